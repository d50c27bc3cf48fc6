"""What a run draws, and the colours and helpers that reports share with it.

Functions return a Figure that `png` or `svg` turns into a file's content. Nothing
touches pyplot. The look is in plots.mplstyle.
"""

import io
import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from keras_seg.labels import IGNORE_ID, colourise, has_background

Colour = tuple[int, int, int]
Rows = Sequence[Mapping[str, float]]  # of history.csv
Points = tuple[list[float], list[float]]  # steps, values

STYLE = matplotlib.rc_params_from_file(
    Path(__file__).with_suffix(".mplstyle"), use_default_template=False
)
styled = matplotlib.rc_context(STYLE)  # decorates whatever draws

INK, MUTED, RULE = (
    STYLE[key] for key in ("text.color", "axes.labelcolor", "grid.color")
)
COLOURS: tuple[str, ...] = tuple(STYLE["axes.prop_cycle"].by_key()["color"])
THEME = {  # what becomes a CSS variable of the page
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    RULE: "var(--rule)",
    COLOURS[0]: "var(--blue)",  # too dark for a dark page
}
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)))
# PASCAL VOC's colours for both. SURREAL paints its background almost as it paints the
# upper spine, the largest part.
BACKGROUND_COLOUR, IGNORED_COLOUR = (0, 0, 0), (224, 224, 192)
WRONG_COLOUR = (255, 64, 200)  # of an error: pink, which few palettes have
LOG_RATIO = 25  # a loss that spans more than this is drawn on a logarithmic axis
MOST_LABELS = 8  # lines that can be told apart; the others are grey
LEGEND_CHARACTERS = 84  # that fit side by side under a figure of standard width
TITLE_CHARACTERS = 58  # of a line of a title
TICK_CHARACTERS = 30  # of a line of a name beside an axis


# What a run draws


@styled
def run_curves(history: Rows) -> Figure:
    """Loss and mIoU of one run, from the lines of history.csv."""
    figure = Figure(figsize=(10.4, 3.8))
    styles = {"validation": (COLOURS[0], "-"), "training": (COLOURS[1], DASHES[1])}
    parts = (
        ("Loss", ("val_loss", "loss"), False),
        ("mIoU (%)", ("val_miou", "train_miou"), True),
    )
    for axes, (title, columns, percent) in zip(figure.subplots(1, 2), parts):
        lines = [
            (*style, [points(history, column, percent)])
            for style, column in zip(styles.values(), columns)
        ]
        draw_lines(axes, title, lines, percent)
    line_legend(figure, [(name, *style) for name, style in styles.items()])
    return figure


def run_samples(
    samples: Mapping[str, np.ndarray], palette: Sequence[Colour], names: Sequence[str]
) -> Figure:
    """Image, truth and prediction of some samples of one run.

    `samples` are "image" uint8 [N, H, W, 3], "label" and "prediction" uint8 [N, H, W]
    with 255 = ignored, and "ids" str [N].
    """
    palette = picture_palette(palette, names)
    maps = [samples["label"], samples["prediction"]]
    rows = [
        (str(name), [image, *(paint(label, palette) for label in labels)])
        for name, image, *labels in zip(samples["ids"], samples["image"], *maps)
    ]
    legend = legend_entries(maps, palette, names)
    return picture_grid(["image", "truth", "prediction"], rows, legend)


# Lines


def arm_colours(
    arms: Sequence[str], base: str | None, given: Mapping[str, str] | None = None
) -> dict[str, tuple]:
    """{arm: (colour, dash)}: the base in ink, the others different from each other.

    `given` is {arm: colour} of those that are settled already.
    """
    given = given or {}
    free = [colour for colour in COLOURS if colour not in given.values()]
    styles: dict[str, tuple] = {arm: (colour, "-") for arm, colour in given.items()}
    others = [arm for arm in arms if arm != base and arm not in given]
    for position, arm in enumerate(others):
        row, column = divmod(position, len(free))
        styles[arm] = (free[column], DASHES[row % len(DASHES)])
    return {arm: styles.get(arm, (INK, "-")) for arm in arms}


def points(rows: Rows, column: str, percent: bool) -> Points:
    """Steps and values of a column where it is finite, times 100 for `percent`."""
    pairs = [(row["step"], row.get(column, math.nan)) for row in rows]
    pairs = [(step, value) for step, value in pairs if math.isfinite(value)]
    factor = 100 if percent else 1
    return [step for step, _ in pairs], [factor * value for _, value in pairs]


def draw_lines(
    axes: Axes, title: str, lines: Iterable[tuple], percent: bool = False
) -> None:
    """Draw lines (colour, dash, the points of each run) over the training steps.

    A run that ends before the others ends in a cross.
    """
    drawn = [
        (colour, dash, run) for colour, dash, runs in lines for run in runs if run[0]
    ]
    set_title(axes, title)
    if not drawn:
        axes.text(0.5, 0.5, "no numbers yet", ha="center", color=MUTED, fontsize=10)
        axes.set(xticks=[], yticks=[])
        return
    last_step = max(steps[-1] for _, _, (steps, _) in drawn)
    for colour, dash, (steps, values) in drawn:
        width = 1.0 if colour == RULE else None
        axes.plot(steps, values, color=colour, linestyle=dash, linewidth=width)
        if steps[-1] < last_step:
            axes.plot(steps[-1], values[-1], color=colour, marker="x", markersize=6)
        elif len(steps) == 1:
            axes.plot(steps, values, color=colour, marker="o")
    axes.grid(axis="y")
    step_axis(axes)
    if percent:
        axes.set_ylim(bottom=0)
    else:
        log_axis_if_wide(axes, [value for _, _, run in drawn for value in run[1]])


def set_title(axes: Axes, title: str) -> None:
    """A title in as many lines as it needs."""
    axes.set_title(textwrap.fill(title, TITLE_CHARACTERS))


def step_axis(axes: Axes) -> None:
    """Training steps from 0 on the horizontal axis."""
    axes.set_xlabel("step")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter("{x:,.0f}")


def log_axis_if_wide(axes: Axes, losses: Sequence[float]) -> None:
    """A logarithmic vertical axis for losses of very different size."""
    if losses and min(losses) > 0 and max(losses) > LOG_RATIO * min(losses):
        log_axis(axes)


def log_axis(axes: Axes) -> None:
    """A logarithmic vertical axis with plain numbers."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


# Pictures


def picture_palette(palette: Sequence[Colour], names: Sequence[str]) -> list[Colour]:
    """The classes' colours in pictures, with a background unlike any part's."""
    first = BACKGROUND_COLOUR if has_background(names) else palette[0]
    return [first, *palette[1:]]


def paint(label: np.ndarray, palette: Sequence[Colour]) -> np.ndarray:
    """Class ids uint8 [H, W] to RGB uint8 [H, W, 3]; what is ignored is off-white."""
    picture = colourise(label, palette)
    picture[label == IGNORE_ID] = IGNORED_COLOUR
    return picture


def paint_errors(
    label: np.ndarray, prediction: np.ndarray, right: Colour
) -> np.ndarray:
    """RGB uint8 [H, W, 3]: what is wrong in pink, what is not labelled off-white.

    Args:
        label, prediction: class ids [H, W].
        right: the colour of pixels that are right.
    """
    picture = np.empty((*label.shape, 3), np.uint8)
    picture[:] = right
    picture[label != prediction] = WRONG_COLOUR
    picture[label == IGNORE_ID] = IGNORED_COLOUR
    return picture


def legend_entries(
    maps: Iterable[np.ndarray], palette: Sequence[Colour], names: Sequence[str]
) -> list[tuple[str, Colour]]:
    """(name, colour) of the classes that occur in label maps, in id order."""
    present = sorted({int(k) for ids in maps for k in np.unique(ids)})
    entries = [(names[k], palette[k]) for k in present if k < len(names)]
    if IGNORE_ID in present:
        entries.append(("not labelled", IGNORED_COLOUR))
    return entries


@styled
def picture_grid(
    header: Sequence[str],
    rows: Sequence[tuple[str, Sequence[np.ndarray | None]]],
    legend: Sequence[tuple[str, Colour]],
) -> Figure:
    """Pictures in rows and columns with a legend of colours below.

    `header` are titles of the columns; `rows` are (name or "", pictures uint8
    [H, W, 3], or None for an empty place).
    """
    titles = [textwrap.fill(title, 19) for title in header]
    width = max(5.0, 1.75 * len(header))
    shapes = [images[0].shape for _, images in rows if images[0] is not None]
    aspect = max((shape[0] / shape[1] for shape in shapes), default=1.0)
    picture_height = (width - 0.4) / len(header) * aspect
    # In characters of the small print, 0.06 inches each.
    longest = max((len(name) for name, _ in legend), default=0)
    per_line = max(1, int(width / 0.06 / (6 + longest)))
    length = max(6, int(picture_height / 0.06))
    names = [textwrap.fill(name, length) for name, _ in rows]
    left = 0.16 + 0.12 * max((name.count("\n") + 1 for name in names), default=0)
    top = 0.1 + 0.14 * max(title.count("\n") + 1 for title in titles)
    bottom = 0.15 + 0.18 * math.ceil(len(legend) / per_line)
    height = top + max(1, len(rows)) * (picture_height + 0.05) + bottom
    figure = Figure(figsize=(width, height))
    figure.set_layout_engine("none")
    edges = {"left": left / width, "right": 0.998}
    edges |= {"top": 1 - top / height, "bottom": bottom / height}
    grid = figure.subplots(
        max(1, len(rows)),
        len(header),
        squeeze=False,
        gridspec_kw={"wspace": 0.03, "hspace": 0.03, **edges},
    )
    for axes, title in zip(grid[0], titles):
        axes.set_title(title, fontsize=8, loc="center")
    for axes in grid.flat:
        axes.set_axis_off()
    for line, name, (_, images) in zip(grid, names, rows):
        for axes, image in zip(line, images):
            if image is not None:
                axes.imshow(image, interpolation="nearest", aspect="auto")
        style = {"fontsize": 6.5, "color": MUTED, "multialignment": "center"}
        style |= {"transform": line[0].transAxes, "ha": "right", "va": "center"}
        line[0].text(-0.03, 0.5, name, rotation=90, **style)
    handles = []
    for _, (red, green, blue) in legend:
        face = (red / 255, green / 255, blue / 255)
        handles.append(Patch(facecolor=face, edgecolor=MUTED, linewidth=0.4))
    classes = [name for name, _ in legend]
    _legend(figure, handles, classes, per_line, loc="lower center", handlelength=1.1)
    return figure


# Legends


def line_legend(figure: Figure, entries: Iterable[tuple]) -> None:
    """A legend below the axes: (name, colour, dash) or (name, colour, dash, marker)."""
    entries = list(entries)
    handles = [
        Line2D([], [], color=colour, linestyle=dash, marker="".join(marker))
        for _, colour, dash, *marker in entries
    ]
    _legend(figure, handles, [name for name, *_ in entries], handlelength=2.2)


def point(colour: str, is_filled: bool) -> dict[str, Any]:
    """How a point of a scatter plot is drawn."""
    face = colour if is_filled else "none"
    style = {"marker": "o", "linestyle": "", "markersize": 7, "markeredgewidth": 1.5}
    return style | {"color": colour, "markerfacecolor": face}


def point_legend(figure: Figure, entries: Mapping[str, tuple[str, bool]]) -> None:
    """A legend below the axes from {name: what `point` takes}."""
    handles = [Line2D([], [], **point(*style)) for style in entries.values()]
    _legend(figure, handles, list(entries), handlelength=1.1)


def patch_legend(figure: Figure, entries: Mapping[str, str]) -> None:
    """A legend below the axes from {name: colour}."""
    handles = [Patch(color=colour) for colour in entries.values()]
    _legend(figure, handles, list(entries), handlelength=1.1)


def _legend(figure, handles, names, columns=0, loc="outside lower left", **style):
    names = [textwrap.fill(name, LEGEND_CHARACTERS - 6) for name in names]
    if not columns:
        longest = max(map(len, names), default=0)
        columns = min(3, max(1, LEGEND_CHARACTERS // (longest + 6)))
        columns = math.ceil(len(names) / math.ceil(len(names) / columns))  # full rows
    if loc.startswith("outside"):  # the figure grows, the axes keep their height
        lines = math.ceil(len(names) / columns) + sum(n.count("\n") for n in names)
        figure.set_figheight(figure.get_figheight() + 0.17 * lines)
    numbers = [str(k) for k in range(len(names))]
    legend = figure.legend(handles, numbers, loc=loc, ncols=columns, **style)
    # Names are set afterwards: Matplotlib drops entries that begin with "_".
    for text, name in zip(legend.get_texts(), names):
        text.set_text(name)


# Files


@styled
def png(figure: Figure) -> bytes:
    """The figure on white, 144 dots per inch. Equal figures give equal bytes."""
    content = io.BytesIO()
    FigureCanvasAgg(figure).print_png(content, metadata={"Software": None})
    figure.set_layout_engine("none")  # half of the time is finding the layout
    return content.getvalue()


def svg(figure: Figure, name: str) -> str:
    """The figure as an <svg> element to stand inside a page.

    Its text is text in the page's font, its background the page's, and the
    colours of THEME are CSS variables of the page. `name`, different for each figure
    of a page, is a prefix for its identifiers.
    """
    content = io.StringIO()
    figure.patch.set_alpha(0)
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        FigureCanvasSVG(figure).print_svg(content, metadata={"Date": None})
    figure.set_layout_engine("none")
    text = content.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    text = re.sub(r'(\bid="|"url\(#|url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    for colour, variable in THEME.items():
        text = text.replace(colour, variable)
    return text
