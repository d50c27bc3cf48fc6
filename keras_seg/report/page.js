// A click on a column's title sorts its table: numbers with the largest first, words
// from A to Z; another click turns it round. Without scripts the tables stay as they are.
for (const table of document.querySelectorAll("main table")) {
  const body = table.tBodies[0];
  if (table.closest(".pictures") || body.rows.length < 3) continue;
  for (const cell of body.querySelectorAll("[colspan]")) cell.dataset.wide = "";
  for (const title of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.append(...title.childNodes);
    title.append(button);
    button.addEventListener("click", () => sort(table, title));
  }
}

function value(row, column) {
  const cell = row.cells[column];
  if (!cell || "wide" in cell.dataset) return null;
  const text = (cell.querySelector("b") || cell.firstChild || cell).textContent.trim();
  if (text === "" || text === "\u2013") return null;
  const plain = text.replace(/,/g, "").replace("\u2212", "-").replace(/^<\s*/, "");
  const number = parseFloat(plain);
  return Number.isNaN(number) ? text.toLowerCase() : number;
}

function sort(table, title) {
  const column = title.cellIndex, body = table.tBodies[0];
  const rows = [...body.rows];
  const known = rows.map((row) => value(row, column)).filter((one) => one !== null);
  const numeric = known.every((one) => typeof one === "number");
  const before = title.getAttribute("aria-sort");
  const descending = before ? before === "ascending" : numeric;
  for (const other of title.parentNode.cells) other.removeAttribute("aria-sort");
  title.setAttribute("aria-sort", descending ? "descending" : "ascending");
  rows.sort((one, other) => {
    const [a, b] = [value(one, column), value(other, column)];
    if (a === null || b === null) return (a === null) - (b === null);
    const order = numeric ? a - b : String(a).localeCompare(String(b));
    return descending ? -order : order;
  });
  body.append(...rows);
}
