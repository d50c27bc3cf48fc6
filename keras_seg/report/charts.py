"""The figures of a stage: curves, pictures of predictions, sheets, class figures."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from keras_seg import plots
from keras_seg.plots import COLOURS, DASHES, MUTED, RULE, TICK_CHARACTERS, Rows
from keras_seg.report import scores, wording
from keras_seg.report.blocks import (
    Chart,
    Charts,
    Details,
    Heading,
    Paragraph,
    Pictures,
)
from keras_seg.report.sheets import SHEETS
from keras_seg.report.view import Context, Panel, StageView
from keras_seg.runs import evaluate, folder

SAMPLE_ROWS = 4
LOSS_COLOUR, MIOU_COLOUR = COLOURS[5], COLOURS[0]
SETS = {"val": "Validation", "train": "Training"}

Histories = Mapping[str, Sequence[Rows]]  # {label: a history for each seed}


# Curves


def curves(view: StageView) -> list:
    """Curves of the scores; folded, those of the losses and as the documents have them.

    A stage with panels has a chart for each number and panel, with those of the first
    validation score open.
    """
    panels = [(panel, _histories(view, panel.labels)) for panel in view.panels()]
    if not any(histories for _, histories in panels):
        return []
    groups: dict[str, list] = {}
    for column, title in _columns(view):
        kind = "Losses" if _is_loss(column) else "Scores"
        group = groups.setdefault(kind if len(panels) == 1 else title, [])
        for panel, histories in panels:
            name = f"{view.stage.name}-{column.replace('_', '-')}"
            name += f"-{panel.name}" if panel.name else ""
            text = f"{title}: {panel.title}" if panel.title else title
            style = {"styles": panel.styles, "named": list(panel.drawn.values())}
            figure = arm_curves(histories, column, text, **style)
            group.append(Chart(name, figure, f"{text}, over the training steps"))
    (_, first), *folded = groups.items()
    blocks: list = [Heading(3, "Training"), Charts(first)]
    blocks += [Details(title, [Charts(charts)]) for title, charts in folded]
    drawn = [[arm for arm in view.arms if arm.name in p.labels] for p, _ in panels]
    if any(len({arm.config.loss for arm in arms}) > 1 for arms in drawn):
        text = "The arms' losses differ: compare the shapes of their curves, not the "
        blocks.append(Paragraph(f"{text}heights.", "note"))
    if not view.stage.panels:
        title = "Loss and mIoU in one picture"
        if not view.context.is_own:
            title = "Curves as the documents draw them"
        blocks.append(_document_curves(view.stage.name, *panels[0], title))
    return blocks


def _histories(view: StageView, labels: Mapping[str, str]) -> Histories:
    """Of the arms in `labels`, {name: label}, that have any."""
    histories = {
        label: [run.history for run in view.result.of(name) if run.history]
        for name, label in labels.items()
    }
    return {label: runs for label, runs in histories.items() if runs}


def _columns(view: StageView) -> list[tuple[str, str]]:
    """(column of the histories, its title): scores that have numbers, then losses."""
    rows = [row for run in view.result.results for row in run.history]
    columns = [
        (f"{part}_{key}", f"{name} {wording.metric(key)} (%)")
        for key in view.stage.curves
        for part, name in SETS.items()
        if any(math.isfinite(row.get(f"{part}_{key}", math.nan)) for row in rows)
    ]
    return [*columns, ("val_loss", "Validation loss"), ("loss", "Training loss")]


def _is_loss(column: str) -> bool:
    return column.endswith("loss")


@plots.styled
def arm_curves(
    histories: Histories,
    column: str,
    title: str,
    *,
    styles: Mapping[str, tuple],
    named: Sequence[str],
) -> Figure:
    """One column of history.csv over the steps, a line for each arm and seed.

    The arms in `named` are drawn in their style, the others grey. What is no loss is
    drawn in percent.
    """
    percent = not _is_loss(column)
    shown = [arm for arm in named if arm in histories][: plots.MOST_LABELS]
    rest = [arm for arm in histories if arm not in shown]
    lines = []
    for arm in rest + shown:  # the grey ones below the others
        colour, dash = styles[arm] if arm in shown else (RULE, "-")
        runs = [plots.points(rows, column, percent) for rows in histories[arm]]
        lines.append((colour, dash, runs))
    figure = Figure()
    plots.draw_lines(figure.subplots(), title, lines, percent)
    entries = [(arm, *styles[arm]) for arm in shown]
    entries += [(f"{len(rest)} other arms", RULE, "-")] if rest else []
    plots.line_legend(figure, entries)
    return figure


def _document_curves(
    stage: str, panel: Panel, histories: Histories, folded: str
) -> Details:
    """Loss and mIoU on two axes: of all arms (BODY Fig. 17), and of each (Fig. 4)."""
    shown = {arm: histories[arm] for arm in panel.drawn.values() if arm in histories}
    charts = []
    if len(shown) > 1:
        title = "Validation loss (dashed) and mIoU (solid)"
        figure = curves_together(shown, panel.styles, title)
        charts.append(Chart(f"{stage}-together", figure, f"{title} of all arms"))
    for number, (title, runs) in enumerate(shown.items()):
        text = f"Loss and mIoU of {title}, training and validation"
        charts.append(Chart(f"{stage}-arm{number}", curves_of_one(runs, title), text))
    return Details(folded, [Charts(charts)])


def curves_of_one(histories: Sequence[Rows], title: str) -> Figure:
    """Loss and mIoU, training as lines, validation as crosses (BODY Fig. 4)."""
    lines = [
        ("training loss", LOSS_COLOUR, "-", "", "loss"),
        ("validation loss", LOSS_COLOUR, "", "x", "val_loss"),
        ("training mIoU", MIOU_COLOUR, "-", "", "train_miou"),
        ("validation mIoU", MIOU_COLOUR, "", "x", "val_miou"),
    ]
    drawn = [(*style, histories) for _, *style in lines]
    return _loss_and_miou(title, drawn, [line[:4] for line in lines])


def curves_together(
    histories: Histories, styles: Mapping[str, tuple], title: str
) -> Figure:
    """Validation loss, dashed, and mIoU, solid, of several arms (BODY Fig. 17)."""
    lines = [
        (styles[arm][0], dash, "", column, runs)
        for arm, runs in histories.items()
        for column, dash in (("val_loss", DASHES[1]), ("val_miou", "-"))
    ]
    entries = [(arm, styles[arm][0], "-") for arm in histories]
    entries += [("loss", MUTED, DASHES[1]), ("mIoU", MUTED, "-")]
    return _loss_and_miou(title, lines, entries)


@plots.styled
def _loss_and_miou(title: str, lines: Sequence[tuple], entries: Sequence) -> Figure:
    """The loss on the left axis, the mIoU on the right one.

    `lines` are (colour, dash, marker, column, histories), `entries` the legend's.
    """
    figure, losses = Figure(), []
    left = figure.subplots()
    right = left.twinx()
    for colour, dash, marker, column, histories in lines:
        percent = not _is_loss(column)
        for rows in histories:
            steps, values = plots.points(rows, column, percent)
            losses += [] if percent else values
            dot = marker or ("o" if len(steps) == 1 else "")
            axes, style = right if percent else left, {"linestyle": dash, "marker": dot}
            axes.plot(steps, values, color=colour, linewidth=1.5, **style)
    plots.set_title(left, title)
    left.set_ylabel("loss")
    left.grid(axis="y")
    plots.step_axis(left)
    plots.log_axis_if_wide(left, losses)
    right.set_ylabel("mIoU (%)")
    right.set_ylim(bottom=0)
    right.spines["right"].set_visible(True)
    plots.line_legend(figure, entries)
    return figure


# What a score costs


def costs(view: StageView) -> list:
    """Points of mIoU against training time, and against GFLOP where arms differ."""
    values = {
        "minutes": "training time (min)",
        "gflop": "GFLOP to predict an image",
    }
    points: dict[str, dict[str, tuple[float, float]]] = {key: {} for key in values}
    for arm in view.finished:
        runs = scores.done(view.result, arm.name)
        miou = scores.mean_score(view.result, arm.name, "miou")
        minutes = [run.timing.get("train_seconds", math.nan) / 60 for run in runs]
        gflop = [scores.metrics(run).get("gflop", math.nan) for run in runs]
        points["minutes"][arm.title] = scores.mean(minutes), 100 * miou
        points["gflop"][arm.title] = scores.mean(gflop), 100 * miou
    charts = []
    for key, axis in values.items():
        known = {
            title: place
            for title, place in points[key].items()
            if math.isfinite(sum(place))
        }
        if len({x for x, _ in known.values()}) > 1:
            whole = view.whole()
            figure = scatter(known, axis, whole.styles, list(whole.drawn.values()))
            text = f"mIoU against {axis} of each arm"
            charts.append(Chart(f"{view.stage.name}-{key}", figure, text))
    return [Heading(3, "What a score costs"), Charts(charts)] if charts else []


@plots.styled
def scatter(
    places: Mapping[str, tuple[float, float]],
    axis: str,
    styles: Mapping[str, tuple],
    named: Sequence[str],
) -> Figure:
    """A point for each arm: {arm: (its cost, its mIoU in percent)}.

    Those in `named` are in their colour, hollow where their lines are dashed; the
    others grey.
    """
    figure = Figure(figsize=(5.5, 3.7))
    axes = figure.subplots()
    shown = [arm for arm in named if arm in places][: plots.MOST_LABELS]
    rest = [arm for arm in places if arm not in shown]
    points = {arm: (RULE, True) for arm in rest}
    points |= {arm: (styles[arm][0], styles[arm][1] == "-") for arm in shown}
    for arm, style in points.items():
        axes.plot(*([one] for one in places[arm]), **plots.point(*style))
    costs = [x for x, _ in places.values()]
    if max(costs) > 10 * min(costs) > 0:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    axes.margins(x=0.15, y=0.15)
    axes.set_xlabel(axis)
    plots.set_title(axes, "mIoU (%)")
    axes.grid()
    entries = {arm: points[arm] for arm in shown}
    entries |= {f"{len(rest)} other arms": (RULE, True)} if rest else {}
    plots.point_legend(figure, entries)
    return figure


# Pictures


def pictures(view: StageView) -> list:
    """Some images with truth and the prediction of each arm's first finished seed.

    They are of the split that the stage's numbers are on. A stage with panels has such
    pictures for each of them, all but the first folded.
    """
    panels = view.panels()
    runs = [
        run
        for panel in panels
        for arm in panel.drawn
        for run in scores.done(view.result, arm)[:1]
    ]
    split = scores.metrics(runs[0]).get("split", "val") if runs else "val"
    if not all(folder.samples_file(run.run, split).is_file() for run in runs):
        split = "val"  # a run of a version that kept no others
    found = [(panel.title, _pictures(view, panel, split)) for panel in panels]
    grids = [(title, grid) for title, grid in found if grid is not None]
    if not grids:
        return []
    (title, first), *others = grids
    caption = f"Some of the {wording.SPLITS.get(split, split)} images."
    if any(scores.metrics(run).get("split", split) != split for run in runs):
        caption += " Those that the scores are on were not kept."
    return [
        Heading(3, "Predictions"),
        Paragraph(caption, "note"),
        *([Heading(4, title)] if title else []),
        first,
        *(Details(title, [grid]) for title, grid in others),
    ]


def _pictures(view: StageView, panel: Panel, split: str) -> Pictures | None:
    """A column for each arm to be drawn; None if there are no samples."""
    samples = {}
    for arm, label in panel.drawn.items():
        for run in scores.done(view.result, arm)[:1]:
            read = partial(folder.read_samples, run.run, split)
            if (found := view.read("pictures", read)) is not None:
                samples[label] = found
    if not samples:
        return None
    first = next(iter(samples.values()))
    ids = [str(each) for each in first["ids"][:SAMPLE_ROWS]]
    maps = [list(first["label"][:SAMPLE_ROWS])]  # of each column, None where missing
    for one in samples.values():
        predictions = dict(zip(map(str, one["ids"]), one["prediction"]))
        maps.append([predictions.get(each) for each in ids])
    rows = []
    for each, image, *line in zip(ids, first["image"], *maps):
        painted = [m if m is None else plots.paint(m, view.palette) for m in line]
        rows.append((each, [image, *painted]))
    known = [label for column in maps for label in column if label is not None]
    names = view.context.names
    return Pictures(
        f"{view.stage.name}-pictures" + (f"-{panel.name}" if panel.name else ""),
        ["image", "truth", *samples],
        rows,
        plots.legend_entries(known, view.palette, names),
        overlay=True,
        background=view.palette[0] if plots.has_background(names) else None,
    )


def sheets(view: StageView) -> list:
    """The pictures of the data that the stage asks for, or why they are left out."""
    blocks, names = [], view.context.names
    for name in view.stage.sheets:
        levels = (evaluate.label_levels(arm.config, len(names)) for arm in view.arms)
        lookups = next(filter(None, levels), [])
        place = f"{view.stage.name}-sheet-{name}"
        images = view.context.examples
        sheet = SHEETS[name](images, names, view.palette, lookups, place)
        if isinstance(sheet, str):
            sheet = Paragraph(f"The sheet {name} is left out. {sheet}", "note")
        blocks.append(sheet)
    return blocks


# Classes


def data_figure(context: Context) -> Details:
    """How unequal the classes are (CITY Fig. 13); folded away."""
    figure = class_pixels(context.names, context.train_pixels)
    description = "Share of each class in the pixels of the training images"
    chart = Chart("class-pixels", figure, description)
    return Details("Figure: how many pixels each class has", [Charts([chart])])


def class_figures(view: StageView) -> Details:
    """Class bars, the winner's confusion, weights against frequency; folded away."""
    result, context, stage = view.result, view.context, view.stage.name
    names = context.names
    iou = {
        view.titles[name]: scores.per_class(result, name, "iou")
        for name in (scores.rival(result), result.winner)
        if name is not None
    }
    runs = scores.done(result, result.winner or "")
    confusion = np.sum([scores.confusion(run) for run in runs], axis=0)
    winner = runs[0].arm.title
    charts = [
        Chart(
            f"{stage}-class-iou",
            iou_bars(names, iou, view.whole().styles),
            f"IoU of each class: {' and '.join(iou)}",
        ),
        Chart(
            f"{stage}-confusion",
            confusion_matrix(confusion, names, f"Confusion of {winner} (%)"),
            f"Confusion matrix of {winner}, in percent of the true class' pixels",
        ),
    ]
    used = {wording.weighting(arm) for arm in view.arms}
    weights = {name: w for name, w in context.weights.items() if name in used}
    title = "Figures: IoU of each class, confusion matrix"
    if weights:
        figure = class_weights(names, context.train_pixels, weights)
        description = "Class weights against the classes' share of training pixels"
        charts.append(Chart(f"{stage}-class-weights", figure, description))
        title += ", class weights"
    return Details(title, [Charts(charts)])


@plots.styled
def iou_bars(
    names: Sequence[str],
    values: Mapping[str, Sequence[float]],
    styles: Mapping[str, tuple],
) -> Figure:
    """Bars of the IoU of each class in percent, the first class on top.

    `values` is {arm: [C] in 0..1}; NaN has no bar but the word "absent".
    """
    thickness = 0.8 / len(values)
    height = max(2.4, 0.9 + len(names) * max(0.26, 0.14 * len(values)))
    figure = Figure(figsize=(5.5, height))
    axes = figure.subplots()
    rows = np.arange(len(names))
    for position, (arm, ious) in enumerate(values.items()):
        ious = 100 * np.asarray(ious, dtype=float)
        places = rows - 0.4 + (position + 0.5) * thickness
        axes.barh(places, np.nan_to_num(ious), 0.92 * thickness, color=styles[arm][0])
        for place, iou in zip(places, ious):
            text = "absent" if np.isnan(iou) else f"{iou:.0f}"
            _number(axes, 1.0 + np.nan_to_num(iou), place, text)
    _class_rows(axes, names, "IoU of each class (%)")
    axes.set_xlim(0, 106)
    axes.set_xticks(range(0, 101, 20))
    plots.patch_legend(figure, {arm: styles[arm][0] for arm in values})
    return figure


@plots.styled
def confusion_matrix(confusion: np.ndarray, names: Sequence[str], title: str) -> Figure:
    """Shares of the truth's pixels in percent: `confusion` [C, C], rows = truth."""
    shares = confusion / np.maximum(1, confusion.sum(1, keepdims=True))
    side = 2.0 + 0.36 * len(names)
    figure = Figure(figsize=(side + 0.4, side))
    axes = figure.subplots()
    # Opacity instead of lightness, so that it reads on a light and a dark page.
    cells = np.zeros((*shares.shape, 4))
    cells[..., :3] = to_rgb(COLOURS[0])
    cells[..., 3] = 0.85 * shares**0.6
    axes.imshow(cells, interpolation="none")
    for row, column in np.argwhere(shares >= 0.01):
        text = f"{100 * shares[row, column]:.0f}"
        axes.text(column, row, text, fontsize=7.5, ha="center", va="center")
    axes.set_xticks(range(len(names)), _wrapped(names), rotation=90)
    axes.set_yticks(range(len(names)), _wrapped(names))
    axes.set(xlabel="prediction", ylabel="truth")
    plots.set_title(axes, title)
    return figure


@plots.styled
def class_weights(
    names: Sequence[str],
    pixels: Sequence[float],
    weights: Mapping[str, Sequence[float]],
) -> Figure:
    """Weights of the classes, the one with the most training pixels first.

    `weights` is {scheme: [C], from 0}; zeros are left out of the logarithmic axis.
    """
    order, shares = _by_frequency(pixels)
    figure = Figure(figsize=(5.5, 3.7))
    axes = figure.subplots()
    styles = plots.arm_colours(list(weights), None)
    for scheme, values in weights.items():
        values = np.asarray(values, dtype=float)[order]
        values = np.where(values > 0, values, np.nan)
        colour, dash = styles[scheme]
        axes.plot(values, color=colour, linestyle=dash, marker="o")
    plots.log_axis(axes)
    labels = [f"{names[k]} {share:.2g} %" for k, share in zip(order, shares)]
    axes.set_xticks(range(len(labels)), _wrapped(labels), rotation=90)
    plots.set_title(axes, "Weights, most frequent class first")
    axes.grid(axis="y")
    plots.line_legend(figure, [(name, *style) for name, style in styles.items()])
    return figure


@plots.styled
def class_pixels(names: Sequence[str], pixels: Sequence[float]) -> Figure:
    """Bars of each class' share of the pixels in percent, the largest on top.

    The axis is logarithmic: a rare class may have a hundred-thousandth of them.
    """
    order, shares = _by_frequency(pixels)
    figure = Figure(figsize=(5.5, max(2.4, 0.9 + 0.22 * len(names))))
    axes = figure.subplots()
    least = min(shares[shares > 0], default=1.0) / 3
    rows = range(len(names))
    axes.barh(rows, np.maximum(shares, least) - least, 0.74, least, color=COLOURS[0])
    axes.set_xscale("log")
    axes.set_xlim(least, 250)  # room for the largest one's number
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    for row, share in zip(rows, shares):
        text = f"{share:.2g}" if share else "none"
        _number(axes, 1.12 * max(share, least), row, text)
    title = "Share of the labelled training pixels (%)"
    _class_rows(axes, [names[k] for k in order], title)
    return figure


def _by_frequency(pixels: Sequence[float]) -> tuple[list[int], np.ndarray]:
    """Ids of the classes, the most frequent one first, and their shares in percent."""
    counts = np.asarray(pixels, dtype=float)
    order = np.argsort(-counts, kind="stable")
    return order.tolist(), 100 * counts[order] / max(1.0, counts.sum())


def _class_rows(axes, names: Sequence[str], title: str) -> None:
    axes.set_yticks(range(len(names)), _wrapped(names))
    axes.set_ylim(len(names) - 0.4, -0.6)
    plots.set_title(axes, title)
    axes.grid(axis="x")


def _number(axes, x: float, y: float, text: str) -> None:
    axes.text(x, y, text, fontsize=7, color=MUTED, va="center")


def _wrapped(names: Sequence[str]) -> list[str]:
    return [textwrap.fill(name, TICK_CHARACTERS) for name in names]
