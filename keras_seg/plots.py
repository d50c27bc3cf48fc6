"""The pictures of a run and of a report, drawn with Matplotlib.

Every function returns a Figure that `png` or `svg` turns into a file's content;
nothing touches pyplot, so drawing is safe beside a training and in any thread.
Names are drawn as they are: "$" starts no formula and a leading "_" hides nothing.
"""

import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from keras_seg.labels import IGNORE_ID, colourise
from keras_seg.storage import write_file

INK, MUTED, RULE = "#1b1c1e", "#686b70", "#d8dade"
# Okabe and Ito's colours, told apart with any colour vision, without the yellow that
# is lost on white; the base of a comparison is drawn in INK.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
THEME = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    RULE: "var(--rule)",
    COLOURS[0]: "var(--blue)",  # too dark for a dark page
}
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)))
IGNORED_COLOUR = (224, 224, 192)  # as PASCAL VOC paints void
LOG_RATIO = 25  # a loss that spans more than this is drawn on a logarithmic axis
MOST_LABELS = 8  # lines that can be told apart; the others are grey
SHORT = 26  # characters of a name in a figure
LOSS_COLOUR, MIOU_COLOUR = COLOURS[5], COLOURS[0]
LEGEND_COLUMNS = 3

Rows = Sequence[Mapping[str, float]]


def save_curves(history: Rows, path: Path) -> None:
    """Loss and mIoU of one run over its steps, as a PNG.

    Args:
        history: lines of history.csv with "step", "loss", "val_loss", "train_miou"
            and "val_miou"; may be empty, NaN where there is no number.
        path: replaced as a whole.

    Raises:
        StorageError: the disk is full or not writable.
    """
    figure = Figure(figsize=(10.4, 3.8), layout="constrained")
    parts = (
        ("Loss", "loss", "val_loss", False),
        ("mIoU (%)", "train_miou", "val_miou", True),
    )
    for axes, (title, train, validation, percent) in zip(figure.subplots(1, 2), parts):
        lines = [
            ("validation", COLOURS[0], "-", [_points(history, validation, percent)]),
            ("training", COLOURS[1], DASHES[1], [_points(history, train, percent)]),
        ]
        _draw_lines(axes, title, lines, percent)
    write_file(path, png(figure))


def save_samples(
    samples: Mapping[str, np.ndarray],
    palette: Sequence[tuple[int, int, int]],
    names: Sequence[str],
    path: Path,
) -> None:
    """Image, truth and prediction of some samples of one run, as a PNG.

    Args:
        samples: "image" uint8 [N, H, W, 3], "label" and "prediction" uint8 [N, H, W]
            with 255 = ignored, and "ids" str [N].
        palette, names: of the classes, in id order.
        path: replaced as a whole.

    Raises:
        StorageError: the disk is full or not writable.
    """
    figure = sample_grid(
        samples["image"],
        samples["label"],
        {"prediction": samples["prediction"]},
        palette,
        names,
        ids=[str(name) for name in samples["ids"]],
    )
    write_file(path, png(figure))


def arm_colours(
    arms: Sequence[str], base: str | None, given: Mapping[str, str] | None = None
) -> dict[str, tuple]:
    """{arm: (colour, dash)}: the base in ink, the others different from each other.

    Args:
        arms, base: names.
        given: {arm: colour} that are settled already.
    """
    given = {} if given is None else given
    free = [colour for colour in COLOURS if colour not in given.values()]
    others = [arm for arm in arms if arm != base and arm not in given]
    styles = {
        arm: (
            free[position % len(free)],
            DASHES[position // len(free) % len(DASHES)],
        )
        for position, arm in enumerate(others)
    }
    styles |= {arm: (colour, "-") for arm, colour in given.items()}
    return {arm: styles.get(arm, (INK, "-")) for arm in arms}


def curves(
    histories: Mapping[str, Sequence[Rows]],
    column: str,
    title: str,
    *,
    styles: Mapping[str, tuple],
    named: Sequence[str],
    percent: bool = False,
) -> Figure:
    """One column of history.csv over the steps, a line for each arm and seed.

    Args:
        histories: {arm: one history for each seed}.
        column: of the histories, such as "val_miou".
        title: what is drawn, with its unit.
        styles: of `arm_colours`.
        named: the arms that are drawn in their style and named at their line's end;
            the others are grey.
        percent: draw 100 times the values.
    """
    figure = Figure(figsize=(5.5, 3.4), layout="constrained")
    axes = figure.subplots()
    shown = list(named)[:MOST_LABELS]
    rest = [arm for arm in histories if arm not in shown]
    lines = []
    if rest:
        runs = [
            _points(rows, column, percent) for arm in rest for rows in histories[arm]
        ]
        lines.append((f"{len(rest)} other arms", RULE, "-", runs))
    for arm in shown:
        runs = [_points(rows, column, percent) for rows in histories.get(arm, ())]
        lines.append((arm, *styles[arm], runs))
    _draw_lines(axes, title, lines, percent)
    return figure


def curves_of_one(histories: Sequence[Rows], title: str) -> Figure:
    """Loss and mIoU of one arm: training as lines, validation as crosses (BODY Fig. 4).

    Args:
        histories: of the arm's seeds.
        title: its name.
    """
    training, validation = ("-", ""), ("", "x")
    lines = [
        ("training loss", "loss", LOSS_COLOUR, training),
        ("validation loss", "val_loss", LOSS_COLOUR, validation),
        ("training mIoU", "train_miou", MIOU_COLOUR, training),
        ("validation mIoU", "val_miou", MIOU_COLOUR, validation),
    ]
    drawn = [(column, *style, histories) for _, column, *style in lines]
    figure = _loss_and_miou(drawn, title, len(lines))
    entries = [(name, colour, style) for name, _, colour, style in lines]
    _line_legend(figure, entries, columns=2)
    return figure


def curves_together(
    histories: Mapping[str, Sequence[Rows]], styles: Mapping[str, tuple], title: str
) -> Figure:
    """Validation loss, dashed, and mIoU, solid, of several arms (BODY Fig. 17).

    Args:
        histories: {arm: one history for each seed}.
        styles: of `arm_colours`.
        title: above the axes.
    """
    dashed, solid = (DASHES[1], ""), ("-", "")
    figure = _loss_and_miou(
        [
            (column, styles[arm][0], style, runs)
            for arm, runs in histories.items()
            for column, style in (("val_loss", dashed), ("val_miou", solid))
        ],
        title,
        len(histories) + 2,
    )
    entries = [(arm, styles[arm][0], solid) for arm in histories]
    _line_legend(figure, [*entries, ("loss", MUTED, dashed), ("mIoU", MUTED, solid)])
    return figure


def per_class_bars(
    names: Sequence[str],
    values: Mapping[str, Sequence[float]],
    title: str,
    styles: Mapping[str, tuple],
) -> Figure:
    """Horizontal bars in percent for each class, the first class on top.

    Args:
        names: of the classes, C of them.
        values: {arm: [C] in 0..1}; NaN has no bar but the word "absent".
        title: what is drawn, with its unit.
        styles: of `arm_colours`.
    """
    thickness = 0.8 / max(1, len(values))
    height = max(2.4, 0.9 + len(names) * max(0.26, 0.14 * len(values)))
    figure = Figure(figsize=(5.5, height), layout="constrained")
    axes = figure.subplots()
    rows = np.arange(len(names))
    for position, (arm, scores) in enumerate(values.items()):
        scores = 100 * np.asarray(scores, dtype=float)
        places = rows - 0.4 + (position + 0.5) * thickness
        colour = styles[arm][0]
        axes.barh(places, np.nan_to_num(scores), 0.92 * thickness, color=colour)
        for place, score in zip(places, scores):
            text = "absent" if np.isnan(score) else f"{score:.0f}"
            _text(axes, 1.0 + np.nan_to_num(score), place, text, size=7, colour=MUTED)
    _name_ticks(axes.yaxis, [_short(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 106)
    axes.set_xticks(range(0, 101, 20))
    _finish_axes(axes, title, grid="x")
    _legend(figure, [(arm, styles[arm][0]) for arm in values])
    return figure


def confusion_matrix(
    confusion: Sequence[Sequence[int]], names: Sequence[str], title: str
) -> Figure:
    """Shares of the truth's pixels in percent, rows = truth, columns = prediction.

    Args:
        confusion: integer [C, C]. A row without pixels stays empty.
        names: of the classes, C of them.
        title: above the matrix.
    """
    confusion = np.asarray(confusion, dtype=float)
    totals = confusion.sum(1, keepdims=True)
    shares = np.divide(
        confusion, totals, out=np.zeros_like(confusion), where=totals > 0
    )
    side = 2.0 + 0.36 * len(names)
    figure = Figure(figsize=(side + 0.4, side), layout="constrained")
    axes = figure.subplots()
    # Opacity instead of lightness, so that it reads on a light and a dark page.
    cells = np.zeros((*shares.shape, 4))
    cells[..., :3] = matplotlib.colors.to_rgb(COLOURS[0])
    cells[..., 3] = 0.85 * shares**0.6
    axes.imshow(cells, interpolation="none")
    for row, column in np.argwhere(shares >= 0.01):
        text = f"{100 * shares[row, column]:.0f}"
        _text(axes, column, row, text, size=7.5, colour=INK, align="center")
    short = [_short(name) for name in names]
    _name_ticks(axes.xaxis, short, rotation=90)
    _name_ticks(axes.yaxis, short)
    _finish_axes(axes, title)
    axes.set_xlabel("prediction", color=MUTED, fontsize=9)
    axes.set_ylabel("truth", color=MUTED, fontsize=9)
    return figure


def class_weights(
    names: Sequence[str],
    pixels: Sequence[float],
    weights: Mapping[str, Sequence[float]],
    title: str,
) -> Figure:
    """Weights of the classes, the most frequent class first.

    Args:
        names: of the classes, C of them.
        pixels: [C] training pixels of each class.
        weights: {scheme: [C], from 0}; zeros are left out of the logarithmic axis.
        title: above the axes.
    """
    pixels = np.asarray(pixels, dtype=float)
    order = np.argsort(-pixels, kind="stable")
    figure = Figure(figsize=(5.5, 3.7), layout="constrained")
    axes = figure.subplots()
    styles = arm_colours(list(weights), None)
    for scheme, values in weights.items():
        values = np.asarray(values, dtype=float)[order]
        values = np.where(values > 0, values, np.nan)
        colour, dash = styles[scheme]
        axes.plot(values, color=colour, linestyle=dash, marker="o", markersize=4)
    _log_axis(axes)
    shares = pixels[order] / max(1.0, pixels.sum())
    labels = [
        f"{_short(names[k])} {100 * share:.2g} %" for k, share in zip(order, shares)
    ]
    _name_ticks(axes.xaxis, labels, rotation=90)
    _finish_axes(axes, title, grid="y")
    _legend(figure, [(scheme, styles[scheme][0]) for scheme in weights])
    return figure


def class_pixels(names: Sequence[str], pixels: Sequence[float], title: str) -> Figure:
    """Horizontal bars of each class' share of the pixels, the largest on top.

    The axis is logarithmic: a rare class may have a hundred-thousandth of them. CITY
    Fig. 13 has the same bars, upright, in numbers of whole images.

    Args:
        names: of the classes, C of them.
        pixels: [C] pixels of each class, from 0; a class without any has no bar.
        title: what is drawn, with its unit, percent.
    """
    pixels = np.asarray(pixels, dtype=float)
    order = np.argsort(-pixels, kind="stable")
    shares = 100 * pixels[order] / max(1.0, pixels.sum())
    height = max(2.4, 0.9 + 0.22 * len(names))
    figure = Figure(figsize=(5.5, height), layout="constrained")
    axes = figure.subplots()
    least = min(shares[shares > 0], default=1.0) / 3
    rows = np.arange(len(names))
    axes.barh(rows, np.maximum(shares, least) - least, 0.74, least, color=COLOURS[0])
    axes.set_xscale("log")
    axes.set_xlim(least, 250)  # room for the largest one's number
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    for row, share in zip(rows, shares):
        text = f"{share:.2g}" if share else "none"
        _text(axes, 1.12 * max(share, least), row, text, size=7, colour=MUTED)
    _name_ticks(axes.yaxis, [_short(names[k]) for k in order])
    axes.set_ylim(len(names) - 0.4, -0.6)
    _finish_axes(axes, title, grid="x")
    return figure


def sample_grid(
    images: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    predictions: Mapping[str, Sequence[np.ndarray | None]],
    palette: Sequence[tuple[int, int, int]],
    names: Sequence[str],
    ids: Sequence[str] | None = None,
) -> Figure:
    """A row for each image: the image, its truth, the prediction of each arm.

    Args:
        images: N of uint8 [H, W, 3].
        labels: N of uint8 [H, W], 255 = ignored.
        predictions: {arm: N of uint8 [H, W], or None where it has none}.
        palette, names: of the classes, in id order.
        ids: N names to write beside the rows.
    """
    maps = [labels, *predictions.values()]
    rows = [
        (
            ids[row] if ids is not None else "",
            [
                image,
                *(None if m[row] is None else paint(m[row], palette) for m in maps),
            ],
        )
        for row, image in enumerate(images)
    ]
    legend = legend_entries([*labels, *_flat(predictions)], palette, names)
    return picture_grid(["image", "truth", *predictions], rows, legend)


def picture_grid(
    header: Sequence[str],
    rows: Sequence[tuple[str, Sequence[np.ndarray | None]]],
    legend: Sequence[tuple[str, tuple[int, int, int]]],
) -> Figure:
    """Pictures in rows and columns, a legend of colours below.

    Args:
        header: titles of the columns.
        rows: (name or "", pictures uint8 [H, W, 3], or None for an empty place).
        legend: (name, colour).
    """
    width = max(5.0, 1.75 * len(header))
    picture = (width - 0.3) / len(header)
    shapes = [image.shape for _, images in rows for image in images[:1]]
    aspect = max((shape[0] / shape[1] for shape in shapes), default=1.0)
    per_line = max(1, int(width / 1.45))
    legend_height = 0.2 * math.ceil(len(legend) / per_line) + 0.15
    height = 0.35 + len(rows) * (picture * aspect + 0.05) + legend_height
    figure = Figure(figsize=(width, height))
    grid = figure.subplots(
        max(1, len(rows)),
        len(header),
        squeeze=False,
        gridspec_kw={
            "left": 0.28 / width,
            "right": 0.998,
            "top": 1 - 0.33 / height,
            "bottom": legend_height / height,
            "wspace": 0.03,
            "hspace": 0.03,
        },
    )
    for column, title in enumerate(header):
        text = grid[0, column].set_title(_wrap(title), fontsize=8, color=INK)
        text.set_parse_math(False)
    for axes in grid.flat:
        axes.set_axis_off()
    for line, (name, images) in zip(grid, rows):
        for axes, image in zip(line, images):
            if image is not None:
                axes.imshow(image, interpolation="nearest", aspect="auto")
        if name:
            _row_name(line[0], name)
    handles = [
        Patch(facecolor=np.divide(colour, 255), edgecolor=MUTED, linewidth=0.4)
        for _, colour in legend
    ]
    _place_legend(
        figure,
        handles,
        [name for name, _ in legend],
        loc="lower center",
        ncols=min(per_line, max(1, len(legend))),
    )
    return figure


def paint(label: np.ndarray, palette: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """Class ids uint8 [H, W] to RGB uint8 [H, W, 3]; what is ignored is off-white.

    Black, as `labels.colourise` has it, would be a class in PASCAL VOC's palette.
    """
    picture = colourise(label, palette)
    picture[label == IGNORE_ID] = IGNORED_COLOUR
    return picture


def legend_entries(
    maps: Sequence[np.ndarray],
    palette: Sequence[tuple[int, int, int]],
    names: Sequence[str],
) -> list[tuple[str, tuple[int, int, int]]]:
    """(name, colour) of the classes that occur in label maps, in id order."""
    present: set[int] = set()
    for ids in maps:
        present.update(np.unique(ids).tolist())
    entries = [(names[k], palette[k]) for k in sorted(present) if k < len(names)]
    if IGNORE_ID in present:
        entries.append(("not labelled", IGNORED_COLOUR))
    return entries


def png(figure: Figure) -> bytes:
    """The figure on white, 144 dots per inch. Equal figures give equal bytes."""
    content = io.BytesIO()
    figure.set_dpi(144)
    FigureCanvasAgg(figure).print_png(content, metadata={"Software": None})
    figure.set_layout_engine("none")  # half of the time is finding the layout
    return content.getvalue()


def svg(figure: Figure, name: str) -> str:
    """The figure as an <svg> element to stand inside a page.

    Its text is text in the page's font, its background the page's, and the
    colours of THEME are CSS variables of the page.

    Args:
        figure: to draw.
        name: a prefix for its identifiers, different for each figure of a page.
    """
    content = io.StringIO()
    figure.patch.set_alpha(0)
    settings = {"svg.fonttype": "none", "svg.hashsalt": name}
    with matplotlib.rc_context(settings):
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


# Parts


def _points(rows: Rows, column: str, percent: bool) -> tuple[list, list]:
    """Steps and values of a column where both are finite."""
    factor = 100 if percent else 1
    pairs = [
        (row["step"], factor * row.get(column, math.nan))
        for row in rows
        if math.isfinite(row.get(column, math.nan))
    ]
    return [step for step, _ in pairs], [value for _, value in pairs]


def _draw_lines(axes, title: str, lines: Sequence[tuple], percent: bool) -> None:
    """Lines (name, colour, dash, runs), each named beside the end of its last run."""
    drawn = [line for line in lines if any(steps for steps, _ in line[3])]
    values = [v for line in drawn for _, run in line[3] for v in run]
    if not drawn:
        _text(axes, 0.5, 0.5, "no numbers yet", size=10, colour=MUTED, align="center")
        _finish_axes(axes, title)
        axes.set_xticks([])
        axes.set_yticks([])
        return
    last_step = max(step for line in drawn for steps, _ in line[3] for step in steps)
    for _, colour, dash, runs in drawn:
        for steps, run in runs:
            width = 1.0 if colour == RULE else 1.7
            axes.plot(steps, run, color=colour, linestyle=dash, linewidth=width)
            if steps and steps[-1] < last_step:  # it ended early
                axes.plot(steps[-1], run[-1], color=colour, marker="x", markersize=6)
            elif len(steps) == 1:
                axes.plot(steps, run, color=colour, marker="o", markersize=4)
    if not percent and min(values) > 0 and max(values) > LOG_RATIO * min(values):
        _log_axis(axes)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    _finish_axes(axes, title, grid="y")
    axes.set_xlabel("step", color=MUTED, fontsize=9)
    axes.set_xlim(left=0)
    if percent:
        axes.set_ylim(bottom=0)
    _name_lines(axes, drawn)


def _loss_and_miou(lines: Sequence[tuple], title: str, entries: int) -> Figure:
    """Columns of histories on two axes, the loss on the left, the mIoU on the right.

    Args:
        lines: (column, colour, (dash, marker), histories).
        title: above the axes.
        entries: of the legend below, for which room is left.
    """
    below = 0.55 + 0.2 * math.ceil(entries / LEGEND_COLUMNS)
    height = 2.9 + below
    figure = Figure(figsize=(5.5, height))
    margins = {"bottom": below / height, "top": 1 - 0.35 / height}
    left = figure.subplots(gridspec_kw={"left": 0.115, "right": 0.9, **margins})
    right = left.twinx()
    losses = []
    for column, colour, (dash, marker), histories in lines:
        percent = column.endswith("miou")
        axes = right if percent else left
        for rows in histories:
            steps, values = _points(rows, column, percent)
            losses += [] if percent else values
            if len(steps) == 1 and not marker:
                dash, marker = "", "o"
            axes.plot(
                steps,
                values,
                color=colour,
                linestyle=dash,
                linewidth=1.5,
                marker=marker,
                markersize=4.5,
            )
    if losses and min(losses) > 0 and max(losses) > LOG_RATIO * min(losses):
        _log_axis(left)
    left.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    left.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    _finish_axes(left, title, grid="y")
    _finish_axes(right, "")
    right.spines["right"].set_visible(True)
    right.spines["right"].set_color(MUTED)
    left.set_xlabel("step", color=MUTED, fontsize=9)
    left.set_ylabel("loss", color=MUTED, fontsize=9)
    right.set_ylabel("mIoU (%)", color=MUTED, fontsize=9)
    left.set_xlim(left=0)
    right.set_ylim(bottom=0)
    return figure


def _name_lines(axes, lines: Sequence[tuple]) -> None:
    """Names right of the axes, moved apart where lines end close together."""
    to_fraction = axes.transScale + axes.transLimits
    ends = []
    for name, colour, dash, runs in lines:
        last = [(steps[-1], run[-1]) for steps, run in runs if steps]
        step = max(step for step, _ in last)
        # Of several seeds, the middle one.
        value = sorted(value for _, value in last)[len(last) // 2]
        ends.append((to_fraction.transform((step, value))[1], name, colour, dash))
    ends.sort(key=lambda end: end[0])
    places = spread_apart([end[0] for end in ends], gap=0.078)
    for (fraction, name, colour, dash), place in zip(ends, places):
        axes.annotate(
            "",
            (1.06, place),
            (1.005, fraction),
            xycoords="axes fraction",
            textcoords="axes fraction",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linestyle": dash,
                "linewidth": 1.2,
                "shrinkA": 0,
                "shrinkB": 0,
            },
        )
        label = axes.annotate(
            _short(name),
            (1.07, place),
            xycoords="axes fraction",
            va="center",
            fontsize=9,
            color=MUTED if colour == RULE else INK,
            annotation_clip=False,
        )
        label.set_parse_math(False)


def spread_apart(places: Sequence[float], gap: float) -> list[float]:
    """Ascending places in 0..1, moved as little as needed to be `gap` apart.

    Where they cannot all fit into 0..1, they are as far apart as they can be.
    """
    if not places:
        return []
    gap = min(gap, 1 / max(1, len(places) - 1))
    moved = [min(max(place, 0.0), 1.0) for place in places]
    for k in range(1, len(moved)):
        moved[k] = max(moved[k], moved[k - 1] + gap)
    moved[-1] = min(moved[-1], 1.0)
    for k in range(len(moved) - 2, -1, -1):
        moved[k] = min(moved[k], moved[k + 1] - gap)
    return moved


def _log_axis(axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _finish_axes(axes, title: str, grid: str = "") -> None:
    heading = axes.set_title(title, loc="left", fontsize=10.5, color=INK)
    heading.set_parse_math(False)
    axes.patch.set_alpha(0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(MUTED)
        axes.spines[side].set_linewidth(0.8)
    axes.tick_params(colors=MUTED, labelsize=8.5, which="both", width=0.8)
    if grid:
        axes.grid(axis=grid, color=RULE, linewidth=0.8)
        axes.set_axisbelow(True)


def _name_ticks(axis, names: Sequence[str], **style) -> None:
    """Names, drawn as they are, at 0, 1, 2, ... of an axis."""
    axis.set_ticks(range(len(names)), names, **style)
    for label in axis.get_ticklabels():
        label.set_parse_math(False)


def _legend(figure: Figure, entries: Sequence[tuple]) -> None:
    handles = [Patch(color=colour) for _, colour in entries]
    names = [name for name, _ in entries]
    _place_legend(
        figure,
        handles,
        names,
        loc="outside lower center",
        ncols=min(LEGEND_COLUMNS, len(names)),
    )


def _line_legend(
    figure: Figure, entries: Sequence[tuple], columns: int = LEGEND_COLUMNS
) -> None:
    """Entries are (name, colour, (dash, marker))."""
    handles = [
        Line2D([], [], color=colour, linestyle=dash, marker=marker, markersize=4.5)
        for _, colour, (dash, marker) in entries
    ]
    names = [name for name, *_ in entries]
    _place_legend(
        figure, handles, names, loc="lower center", ncols=columns, handlelength=2.2
    )


def _place_legend(figure: Figure, handles, names: Sequence[str], **where) -> None:
    # Texts are set afterwards: Matplotlib drops entries that begin with "_".
    legend = figure.legend(
        handles,
        [str(k) for k in range(len(names))],
        frameon=False,
        fontsize=8,
        handleheight=0.9,
        columnspacing=1.2,
        borderaxespad=0.1,
        **{"handlelength": 1.1, **where},
    )
    for text, name in zip(legend.get_texts(), names):
        text.set_parse_math(False)
        text.set_text(_short(name))
        text.set_color(INK)


def _text(axes, x, y, text, *, size, colour, align="left") -> None:
    axes.text(
        x,
        y,
        text,
        fontsize=size,
        color=colour,
        ha=align,
        va="center",
        parse_math=False,
    )


def _row_name(axes, name: str) -> None:
    axes.text(
        -0.02,
        0.5,
        _short(name),
        transform=axes.transAxes,
        rotation=90,
        ha="right",
        va="center",
        fontsize=6.5,
        color=MUTED,
        parse_math=False,
    )


def _flat(predictions: Mapping[str, Sequence]) -> list[np.ndarray]:
    return [
        label for maps in predictions.values() for label in maps if label is not None
    ]


def _short(name: str) -> str:
    """Long names of arms often differ at their ends only: the middle is left out."""
    name = " ".join(str(name).split())
    if len(name) <= SHORT:
        return name
    end = SHORT // 2 - 1
    return f"{name[: SHORT - end - 1]}…{name[-end:]}"


def _wrap(name: str) -> str:
    """A column's title in at most two lines."""
    words, lines = _short(name).split(" "), [""]
    for word in words:
        if len(lines) == 1 and lines[0] and len(lines[0]) + len(word) > 17:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)
