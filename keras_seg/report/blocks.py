"""A report as a list of blocks, and how they become HTML and Markdown.

Every text in a block is plain text and is escaped here. The HTML (page.html.j2 with
page.css) is one page that loads nothing; its script (page.js) sorts tables, and
everything is there without it. In Markdown the figures are
links to the PNG files that `figure_files` gives.
"""

import base64
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import jinja2
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from keras_seg import plots
from keras_seg.plots import Colour

PICTURE_PX = 420  # long side of a picture in the page
WIDE_INCHES = 7
NO_VALUE = "–"


@dataclass(frozen=True)
class Heading:
    """A heading of `level` 2 to 4; links lead to its `anchor`."""

    level: int
    text: str
    anchor: str = ""


@dataclass(frozen=True)
class Paragraph:
    """Some sentences."""

    text: str
    kind: str = ""  # "verdict", "note", "source" or "code" (lines to copy)
    lead: str = ""  # the first sentence, if it is set off


@dataclass(frozen=True)
class Items:
    """A list of sentences."""

    texts: Sequence[str]


@dataclass(frozen=True)
class Cell:
    """A cell of a table."""

    text: str  # an empty one is shown as a dash
    best: bool = False  # of its column: bold
    heat: float | None = None  # in 0..1, the strength of its shade
    tags: Sequence[str] = ()  # words in small boxes behind the text
    colour: Colour | None = None  # of a small square before the text
    small: str = ""  # a second line
    link: str = ""  # anchor of the heading to which it leads
    span: int = 1  # number of columns


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

    @property
    def is_wide(self) -> bool:
        """Whether it gets a row of its own and is not made small."""
        return self.figure.get_size_inches()[0] > WIDE_INCHES


@dataclass(frozen=True)
class Charts:
    """Charts side by side where there is room."""

    charts: Sequence[Chart]


@dataclass(frozen=True)
class Pictures:
    """A grid of photographs and label maps, as `plots.picture_grid` takes it."""

    name: str  # of the file that has them all, without the ending
    header: Sequence[str]
    rows: Sequence[tuple[str, Sequence[np.ndarray | None]]]
    legend: Sequence[tuple[str, Colour]]
    photographs: int = 1  # so many columns, from the first, are photographs
    overlay: bool = False  # can the reader lay the others over the photograph?
    named: bool = False  # is the name of a row shown below its first picture?
    background: Colour | None = None  # colour of what is transparent then


@dataclass(frozen=True)
class Link:
    """A link to a file or folder beside the report."""

    text: str
    address: str  # relative to the report
    note: str = ""


@dataclass(frozen=True)
class Links:
    """Links in a list."""

    links: Sequence[Link]


@dataclass(frozen=True)
class Details:
    """Blocks that are folded away at first."""

    title: str
    blocks: Sequence


def figure_files(blocks: Iterable) -> Iterator[tuple[str, bytes]]:
    """(file name, PNG content) of every figure the Markdown links to."""
    for block in blocks:
        match block:
            case Chart():
                yield f"{block.name}.png", plots.png(block.figure)
            case Pictures():
                grid = plots.picture_grid(block.header, block.rows, block.legend)
                yield f"{block.name}.png", plots.png(grid)
            case Charts():
                yield from figure_files(block.charts)
            case Details():
                yield from figure_files(block.blocks)


# HTML


def to_html(title: str, blocks: Sequence) -> str:
    """The whole page with its style and its pictures."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_unbroken,
    )
    environment.filters |= {
        "address": quote,
        "svg": lambda chart: Markup(plots.svg(chart.figure, chart.name)),
        "kind": lambda block: type(block).__name__,
        "photo": _photo,
        "label_map": _label_map,
    }
    return environment.get_template("page.html.j2").render(
        title=title, blocks=blocks, no_value=NO_VALUE
    )


def _unbroken(value):
    """A number and its percent sign stay on one line."""
    return value.replace(" %", "\u00a0%") if type(value) is str else value


def _photo(image: np.ndarray) -> str:
    photo = Image.fromarray(image)
    photo.thumbnail((PICTURE_PX, PICTURE_PX), Image.Resampling.LANCZOS)
    return _address(photo, "jpeg", quality=88)


def _label_map(image: np.ndarray, background: Colour | None) -> str:
    """A PNG in which what has the colour of the background is transparent."""
    if background is not None:
        opaque = (image != background).any(axis=-1, keepdims=True)
        image = np.concatenate([image, 255 * opaque.astype(np.uint8)], axis=-1)
    label = Image.fromarray(image)
    label.thumbnail((PICTURE_PX, PICTURE_PX), Image.Resampling.NEAREST)
    return _address(label, "png", optimize=True)


def _address(image: Image.Image, kind: str, **settings) -> str:
    content = io.BytesIO()
    image.save(content, kind, **settings)
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"


# Markdown


def to_markdown(title: str, blocks: Iterable, folder: str) -> str:
    """The same content; `folder` is where the pictures are, relative to the file."""
    parts = [f"# {_plain(title)}", *(_markdown(block, folder) for block in blocks)]
    return "\n\n".join(parts) + "\n"


def _markdown(block, folder: str) -> str:
    match block:
        case Heading():
            return f"{'#' * block.level} {_plain(block.text)}"
        case Paragraph(kind="code"):
            return "\n".join(f"    {line}" for line in block.text.splitlines())
        case Paragraph():
            lead = f"**{_plain(block.lead)}** " if block.lead else ""
            text = (lead + _plain(block.text)).strip()
            return f"> {text}" if block.kind == "verdict" else text
        case Items():
            return "\n".join(f"* {_plain(text)}" for text in block.texts)
        case Links():
            return "\n".join(map(_markdown_link, block.links))
        case Table():
            return _markdown_table(block)
        case Chart():
            return f"![{_plain(block.description)}]({folder}/{block.name}.png)"
        case Charts():
            return "\n".join(_markdown(chart, folder) for chart in block.charts)
        case Pictures():
            titles = ", ".join(map(_plain, block.header))
            return f"![{titles}]({folder}/{block.name}.png)"
        case Details():
            inside = [_markdown(part, folder) for part in block.blocks]
            return "\n\n".join([f"#### {_plain(block.title)}", *inside])
    raise TypeError(f"{block!r} is not a block of a report")


def _markdown_link(link: Link) -> str:
    note = f": {_plain(link.note)}" if link.note else ""
    return f"* [{_plain(link.text)}]({quote(link.address)}){note}"


def _markdown_table(table: Table) -> str:
    aligned = "---:" if table.numbers else ":---"
    lines = [
        [_plain(title) or " " for title in table.header],
        [":---"] + [aligned] * (len(table.header) - 1),
    ]
    for row in table.rows:
        line = []
        for cell in row.cells:
            line += [_markdown_cell(cell)] + [""] * (cell.span - 1)
        lines.append(line)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _markdown_cell(cell: Cell) -> str:
    text = _plain(cell.text or NO_VALUE)
    if cell.best and cell.text:
        text = f"**{text}**"
    for more in (", ".join(cell.tags), cell.small):
        text += f" ({_plain(more)})" if more else ""
    return text


def _plain(text: str) -> str:
    """Text in which Markdown finds no markup, on one line."""
    line = " ".join(str(text).split())
    return re.sub(r"([\\`*_{}\[\]<>|#~$&!@])", r"\\\1", line)
