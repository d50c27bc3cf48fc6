"""A report as a list of blocks, and how they become HTML and Markdown.

The blocks know nothing of studies; every text in them is plain text and is escaped
here. The HTML is one page without scripts or links to other files; in Markdown the
figures are links to the PNG files that `pictures` gives.
"""

import base64
import html
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from keras_seg import plots as figures

Colour = tuple[int, int, int]
PICTURE_PX = 420  # long side of a photograph in the page
LEAST_PX, COLUMN_PX = 116, 300  # narrowest and widest column of a grid of pictures
WIDE_INCHES = 7  # a wider chart has a line of its own and is not made small
NONE = "–"  # stands where there is no value


@dataclass(frozen=True)
class Heading:
    """A heading of `level` 2 to 4; `anchor` is where links of the contents lead."""

    level: int
    text: str
    anchor: str = ""


@dataclass(frozen=True)
class Paragraph:
    """Some sentences, the first one set off as `lead`.

    `kind` is "", "verdict", "note" or "source".
    """

    text: str
    kind: str = ""
    lead: str = ""


@dataclass(frozen=True)
class Items:
    """A list of sentences."""

    texts: Sequence[str]


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: what it says; an empty one is shown as a dash.
        best: the best of its column: bold.
        heat: in 0..1, the strength of its shade; None for none.
        tags: words in small boxes behind the text.
        colour: of a small square before the text.
        small: a second line.
        link: anchor of the heading to which it leads.
        span: number of columns.
    """

    text: str
    best: bool = False
    heat: float | None = None
    tags: Sequence[str] = ()
    colour: Colour | None = None
    small: str = ""
    link: str = ""
    span: int = 1


@dataclass(frozen=True)
class Row:
    """A row of a table; `kind` is "", "winner", "floor" or "failed"."""

    cells: Sequence[Cell]
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """A table; its first column names the rows; `numbers` aligns the others right."""

    header: Sequence[str]
    rows: Sequence[Row]
    numbers: bool = True


@dataclass(frozen=True)
class Chart:
    """A drawn figure; `name` is its file's, without the ending."""

    name: str
    figure: Figure
    description: str


@dataclass(frozen=True)
class Charts:
    """Charts side by side where there is room."""

    charts: Sequence[Chart]


@dataclass(frozen=True)
class Pictures:
    """A grid of photographs and label maps.

    Attributes:
        name: of the file that has them all, without the ending.
        header: titles of the columns.
        rows: (name of the row, pictures uint8 [H, W, 3] or None), photograph first.
        legend: (name, colour) of the classes.
        figure: the same as one figure, for Markdown.
        photographs: how many columns, from the first, are photographs.
        blends: whether the others can be laid over the photograph of their row.
    """

    name: str
    header: Sequence[str]
    rows: Sequence[tuple[str, Sequence[np.ndarray | None]]]
    legend: Sequence[tuple[str, Colour]]
    figure: Figure
    photographs: int = 1
    blends: bool = False


@dataclass(frozen=True)
class Code:
    """Lines to copy."""

    text: str


@dataclass(frozen=True)
class Details:
    """Blocks that are folded away at first."""

    title: str
    blocks: Sequence


def pictures(blocks: Sequence) -> Iterator[tuple[str, bytes]]:
    """(file name, PNG content) of every figure the Markdown links to."""
    for block in blocks:
        match block:
            case Chart() | Pictures():
                yield f"{block.name}.png", figures.png(block.figure)
            case Charts():
                yield from pictures(block.charts)
            case Details():
                yield from pictures(block.blocks)


# HTML


def to_html(title: str, blocks: Sequence) -> str:
    """The whole page: its style, its pictures, no script, nothing to load."""
    body = "\n".join(_html(block) for block in blocks)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{_text(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n<h1>{_text(title)}</h1>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _html(block) -> str:
    match block:
        case Heading():
            anchor = f' id="{_text(block.anchor)}"' if block.anchor else ""
            return f"<h{block.level}{anchor}>{_text(block.text)}</h{block.level}>"
        case Paragraph():
            kind = f' class="{block.kind}"' if block.kind else ""
            lead = f"<strong>{_text(block.lead)}</strong> " if block.lead else ""
            return f"<p{kind}>{lead}{_text(block.text)}</p>"
        case Items():
            items = "".join(f"<li>{_text(text)}</li>" for text in block.texts)
            return f"<ul>{items}</ul>"
        case Code():
            return f"<pre>{html.escape(block.text)}</pre>"
        case Table():
            return _html_table(block)
        case Chart():
            drawing = figures.svg(block.figure, block.name)
            label = f'<svg role="img" aria-label="{_text(block.description)}" '
            inches = block.figure.get_size_inches()[0]
            wide = ' class="wide" tabindex="0"' if inches > WIDE_INCHES else ""
            return f"<figure{wide}>{drawing.replace('<svg ', label, 1)}</figure>"
        case Charts():
            return f'<div class="charts">{"".join(map(_html, block.charts))}</div>'
        case Pictures():
            return _html_pictures(block)
        case Details():
            inside = "\n".join(_html(part) for part in block.blocks)
            title = _text(block.title)
            return f"<details><summary>{title}</summary>\n{inside}\n</details>"
    raise TypeError(f"no block: {block!r}")


def _html_table(table: Table) -> str:
    head = "".join(f'<th scope="col">{_text(title)}</th>' for title in table.header)
    lines = []
    for row in table.rows:
        cells = [_html_cell(cell, "td") for cell in row.cells[1:]]
        kind = f' class="{row.kind}"' if row.kind else ""
        lines.append(f"<tr{kind}>{_html_cell(row.cells[0], 'th')}{''.join(cells)}</tr>")
    kind = "" if table.numbers else ' class="words"'
    return _html_scrolled(kind, head, "".join(lines))


def _html_scrolled(kind: str, head: str, body: str) -> str:
    """A table in a box of its own, which scrolls where the page is narrow."""
    return (
        f'<div class="scroll" tabindex="0"><table{kind}><thead><tr>{head}</tr></thead>'
        f"\n<tbody>{body}</tbody></table></div>"
    )


def _html_cell(cell: Cell, tag: str) -> str:
    text = _text(cell.text or NONE)
    if cell.link:
        text = f'<a href="#{_text(cell.link)}">{text}</a>'
    if cell.best:
        text = f"<b>{text}</b>"
    if cell.colour is not None:
        text = _square(cell.colour) + text
    text += "".join(f' <span class="tag">{_text(word)}</span>' for word in cell.tags)
    if cell.small:
        text += f"<small>{_text(cell.small)}</small>"
    attributes = ' scope="row"' if tag == "th" else ""
    if cell.colour is not None:
        attributes += ' class="named"'
    if cell.span > 1:
        attributes += f' colspan="{cell.span}"'
        text = f"<div>{text}</div>"
    if cell.heat is not None:
        attributes += f' style="--heat:{100 * min(1, max(0, cell.heat)):.0f}%"'
    return f"<{tag}{attributes}>{text}</{tag}>"


def _html_pictures(block: Pictures) -> str:
    head = "".join(f'<th scope="col">{_text(title)}</th>' for title in block.header)
    lines = []
    for name, images in block.rows:
        cells = []
        for position, (title, image) in enumerate(zip(block.header, images)):
            if image is None:
                cells.append(f"<td>{NONE}</td>")
                continue
            is_photo = position < block.photographs
            address = _photo(image) if is_photo else _label_map(image)
            picture = f'<img src="{address}" alt="{_text(f"{name}: {title}")}">'
            kind = "" if is_photo else ' class="map"'
            cells.append(f"<td><div{kind}>{picture}</div></td>")
        photo = f' style="--photo:url({_photo(images[0])})"' if block.blends else ""
        lines.append(f"<tr{photo}>{''.join(cells)}</tr>")
    legend = "".join(
        f"<span>{_square(colour)}{_text(name)}</span>" for name, colour in block.legend
    )
    columns = len(block.header)
    width = f' style="min-width:{LEAST_PX * columns}px;'
    width += f'max-width:{COLUMN_PX * columns}px"'
    grid = _html_scrolled(f' class="pictures"{width}', head, "".join(lines))
    if block.blends:
        mark = _text(f"{block.name}-blend")
        switch = f'<input type="checkbox" class="blend" id="{mark}">'
        label = f'<label for="{mark}">Lay the classes over the photograph</label>'
        grid = f"<div>{switch}{label}{grid}</div>"
    return f'{grid}<p class="legend">{legend}</p>'


def _photo(image: np.ndarray) -> str:
    photo = Image.fromarray(image)
    photo.thumbnail((PICTURE_PX, PICTURE_PX), Image.Resampling.LANCZOS)
    return _address(photo, "jpeg", quality=88)


def _label_map(image: np.ndarray) -> str:
    label = Image.fromarray(image)
    label.thumbnail((PICTURE_PX, PICTURE_PX), Image.Resampling.NEAREST)
    return _address(label, "png", optimize=True)


def _address(image: Image.Image, kind: str, **settings) -> str:
    content = io.BytesIO()
    image.save(content, kind, **settings)
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"


def _square(colour: Colour) -> str:
    red, green, blue = (int(level) for level in colour)
    return f'<i style="background:rgb({red},{green},{blue})"></i>'


def _text(text: str) -> str:
    return html.escape(str(text), quote=True).replace(" %", "\u00a0%")


# Markdown


def to_markdown(title: str, blocks: Sequence, folder: str) -> str:
    """The same content; `folder` is where the pictures lie, relative to the file."""
    parts = [f"# {_plain(title)}", *(_markdown(block, folder) for block in blocks)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _markdown(block, folder: str) -> str:
    match block:
        case Heading():
            return f"{'#' * block.level} {_plain(block.text)}"
        case Paragraph():
            lead = f"**{_plain(block.lead)}** " if block.lead else ""
            text = lead + _plain(block.text)
            return f"> {text}" if block.kind == "verdict" else text
        case Items():
            return "\n".join(f"* {_plain(text)}" for text in block.texts)
        case Code():
            return "\n".join(f"    {line}" for line in block.text.splitlines())
        case Table():
            return _markdown_table(block)
        case Chart():
            return f"![{_plain(block.description)}]({folder}/{block.name}.png)"
        case Charts():
            return "\n".join(_markdown(chart, folder) for chart in block.charts)
        case Pictures():
            return (
                f"![{', '.join(map(_plain, block.header))}]({folder}/{block.name}.png)"
            )
        case Details():
            inside = [_markdown(part, folder) for part in block.blocks]
            return "\n\n".join([f"#### {_plain(block.title)}", *inside])
    raise TypeError(f"no block: {block!r}")


def _markdown_table(table: Table) -> str:
    aligned = "---:" if table.numbers else ":---"
    lines = [
        [_plain(title) or " " for title in table.header],
        [":---"] + [aligned] * (len(table.header) - 1),
    ]
    for row in table.rows:
        cells = []
        for cell in row.cells:
            cells.append(_markdown_cell(cell))
            cells += [""] * (cell.span - 1)
        lines.append(cells)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _markdown_cell(cell: Cell) -> str:
    text = _plain(cell.text or NONE)
    if cell.best:
        text = f"**{text}**"
    if cell.tags:
        text += f" ({', '.join(map(_plain, cell.tags))})"
    if cell.small:
        text += f" ({_plain(cell.small)})"
    return text


def _plain(text: str) -> str:
    """Text in which Markdown finds no markup, on one line."""
    line = " ".join(str(text).split())
    return re.sub(r"([\\`*_{}\[\]<>|#~$&!@])", r"\\\1", line)


STYLE = """
:root { --page:#fff; --card:#f5f6f8; --ink:#1b1c1e; --muted:#62666c; --rule:#d8dade;
  --accent:#0067a3; --win:#e8f3fa; --heat-colour:0,114,178; --bad:#a63c00;
  --blue:#0072b2; }
@media (prefers-color-scheme: dark) {
  :root { --page:#15181c; --card:#1e2227; --ink:#e6e8ea; --muted:#9ba1a8;
    --rule:#363b42; --accent:#6cb8ea; --win:#17303f; --heat-colour:44,140,205;
    --bad:#f0955f; --blue:#3d9ad6; }
}
* { box-sizing:border-box; }
body { margin:0; background:var(--page); color:var(--ink); line-height:1.5;
  font-family:system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial,
  "Liberation Sans", sans-serif; font-size:15px; overflow-wrap:break-word; }
main { max-width:1340px; margin:0 auto; padding:24px 20px 60px; }
h1 { font-size:1.75rem; line-height:1.25; margin:0 0 .6rem; }
h2 { font-size:1.3rem; line-height:1.3; margin:3rem 0 .3rem; padding-top:1.4rem;
  border-top:1px solid var(--rule); }
h3 { font-size:1.05rem; margin:2rem 0 .5rem; }
h4 { font-size:.95rem; margin:1.2rem 0 .4rem; }
p, ul { margin:.5rem 0; max-width:80ch; }
ul { padding-left:1.3rem; }
a { color:var(--accent); }
.source, .note, ul { color:var(--muted); font-size:.9rem; }
.verdict { max-width:none; margin:1rem 0; padding:.9rem 1.1rem;
  background:var(--card); border-left:4px solid var(--accent);
  border-radius:0 6px 6px 0; }
.verdict strong { display:block; font-size:1.12rem; margin-bottom:.25rem; }
.scroll { overflow-x:auto; margin:.8rem 0; }
.scroll:focus-visible { outline:2px solid var(--accent); }
table { border-collapse:collapse; font-size:.88rem;
  font-variant-numeric:tabular-nums; }
th, td { padding:.36rem .6rem; text-align:right; vertical-align:baseline;
  border-bottom:1px solid var(--rule); white-space:nowrap; }
thead th { color:var(--muted); font-weight:600; vertical-align:bottom;
  white-space:normal; min-width:4.6rem; border-bottom:2px solid var(--rule); }
th:first-child { text-align:left; position:sticky; left:0; background:var(--page);
  min-width:8rem; max-width:17rem; white-space:normal; }
tbody th { font-weight:500; }
tbody th.named { white-space:nowrap; }
.words td, .words th { text-align:left; white-space:normal; overflow-wrap:normal; }
.words th:first-child { max-width:34rem; }
.words small { line-height:1.35; }
td { background:rgba(var(--heat-colour), calc(var(--heat, 0%) * .62)); }
td b { font-weight:700; border-bottom:2px solid var(--accent); }
small { display:block; color:var(--muted); font-size:.78rem; }
td[style] small { color:var(--ink); }
.winner th, .winner td { background:var(--win); }
.floor th, .floor td { color:var(--muted); font-style:italic; }
.failed td { color:var(--bad); text-align:left; white-space:normal; }
.failed td div { max-width:min(75ch, 56vw); }
.tag { display:inline-block; padding:0 .4em; border:1px solid currentColor;
  border-radius:4px; color:var(--accent); font-size:.72rem; font-weight:600;
  font-style:normal; line-height:1.45; white-space:nowrap; }
i { display:inline-block; width:.85em; height:.85em; margin-right:.45em;
  border:1px solid var(--muted); border-radius:2px; vertical-align:-.06em; }
.charts { display:grid; gap:18px 28px; margin:.8rem 0;
  grid-template-columns:repeat(auto-fit, minmax(min(100%, 430px), 1fr)); }
figure { margin:0; max-width:610px; }
figure svg { display:block; width:100%; height:auto; }
.wide { grid-column:1 / -1; max-width:900px; overflow-x:auto; }
.wide svg { min-width:680px; }
.pictures { width:100%; table-layout:fixed; }
.pictures th, .pictures td { border:0; padding:0 6px 6px 0; text-align:center;
  position:static; min-width:0; vertical-align:bottom; }
.pictures th:first-child { min-width:0; text-align:center; }
.pictures td { vertical-align:middle; color:var(--muted); }
.pictures img { display:block; width:100%; border-radius:3px; }
.map img { image-rendering:pixelated; }
.blend { margin:0 .5em 0 0; accent-color:var(--accent); vertical-align:-.1em; }
.blend + label { font-size:.9rem; color:var(--muted); cursor:pointer; }
.blend:checked ~ .scroll .map { border-radius:3px;
  background:var(--photo) center / 100% 100%; }
.blend:checked ~ .scroll .map img { opacity:.55; }
.legend { display:flex; flex-wrap:wrap; gap:.2rem 1.1rem; max-width:none;
  font-size:.85rem; }
pre { white-space:pre-wrap; overflow-wrap:anywhere; padding:.8rem 1rem;
  background:var(--card); border-radius:6px; font-size:.85rem; }
details { margin:1rem 0; border:1px solid var(--rule); border-radius:6px;
  padding:.5rem .9rem; }
summary { cursor:pointer; font-weight:600; }
@media (max-width:600px) {
  main { padding:16px 12px 40px; }
  h1 { font-size:1.4rem; }
  th, td { padding:.34rem .5rem; }
  th:first-child { min-width:6.5rem; max-width:9rem; }
  .words th:first-child { min-width:10.5rem; max-width:13rem; }
}
@media print { .scroll { overflow:visible; } details { break-inside:avoid; } }
"""
