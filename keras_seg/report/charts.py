"""The figures of a stage: curves, pictures, sheets, classes; each as a block."""

import math
import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from keras_seg import plots as figures
from keras_seg.errors import UsageError
from keras_seg.report import scores, wording
from keras_seg.report.document import (
    Chart,
    Charts,
    Details,
    Heading,
    Paragraph,
    Pictures,
)
from keras_seg.report.sheets import SHEETS
from keras_seg.report.view import Context, StageView

SAMPLE_ROWS = 4
LOSS_SETTINGS = ("loss", "l1", "l2", "class_weights", "strategy", "normalise")
SETS = {"val": "Validation", "train": "Training"}


def curves(view: StageView, styles: Mapping[str, tuple]) -> list:
    """Every arm in one chart for each number; folded, as the documents draw them.

    A stage with panels has a chart for each number and panel.
    """
    histories = _histories(view, view.titles)
    if not histories:
        return []
    columns = _columns(view, histories)
    if view.stage.panels:
        return [Heading(3, "Training"), *_panel_curves(view, columns)]
    shown = [arm.title for arm in view.drawn() if arm.title in histories]
    charts = []
    for column, title, percent in columns:
        figure = figures.curves(
            histories, column, title, styles=styles, named=shown, percent=percent
        )
        name = f"{view.stage.name}-{column.replace('_', '-')}"
        charts.append(Chart(name, figure, f"{title} over the training steps"))
    documents = {title: histories[title] for title in shown}
    return [
        Heading(3, "Training"),
        Charts(charts),
        *_losses_note(view, view.titles),
        _document_curves(view, documents, styles),
    ]


def _histories(view: StageView, labels: Mapping[str, str]) -> dict[str, list]:
    """{label: a history for each seed} of the arms that have any."""
    histories = {
        label: [run.history for run in view.result.of(name) if run.history]
        for name, label in labels.items()
    }
    return {label: runs for label, runs in histories.items() if runs}


def _columns(view: StageView, histories: Mapping[str, Sequence]) -> list[tuple]:
    """(column of the histories, its title, whether in percent), training loss last."""
    columns = [
        (f"{part}_{key}", f"{SETS[part]} {wording.metric(key)} (%)", True)
        for key in view.stage.curves
        for part in SETS
        if _has(histories, f"{part}_{key}")
    ]
    return [
        *columns,
        ("val_loss", "Validation loss", False),
        ("loss", "Training loss", False),
    ]


def _losses_note(view: StageView, names: Collection[str]) -> list[Paragraph]:
    """That losses of arms drawn together cannot be compared, if so."""
    losses = {
        tuple(getattr(arm.config, setting) for setting in LOSS_SETTINGS)
        for arm in view.arms
        if arm.name in names
    }
    if len(losses) < 2:
        return []
    text = "The arms' losses differ, so compare the course of the loss curves, "
    return [Paragraph(text + "not their height.", "note")]


def _panel_curves(view: StageView, columns: Sequence[tuple]) -> list:
    """Training loss of every panel, as a document draws it; the rest is folded."""
    panels = [(panel, _histories(view, panel.labels)) for panel in view.panels()]
    drawn = []
    for column, title, percent in columns:
        charts = []
        for panel, histories in panels:
            text = f"{title}: {panel.title}"
            figure = figures.curves(
                histories,
                column,
                text,
                styles=panel.styles,
                named=[label for label in panel.drawn.values() if label in histories],
                percent=percent,
            )
            name = f"{view.stage.name}-{column.replace('_', '-')}-{panel.name}"
            charts.append(Chart(name, figure, f"{text}, over the training steps"))
        drawn.append((title, Charts(charts)))
    *folded, (_, training_loss) = drawn
    notes = [note for panel, _ in panels for note in _losses_note(view, panel.labels)]
    return [
        training_loss,
        *notes[:1],
        *(Details(title, [charts]) for title, charts in folded),
    ]


def _has(histories: Mapping[str, Sequence], column: str) -> bool:
    return any(
        math.isfinite(row.get(column, math.nan))
        for runs in histories.values()
        for rows in runs
        for row in rows
    )


def _document_curves(
    view: StageView, histories: Mapping[str, Sequence], styles: Mapping[str, tuple]
) -> Details:
    """Loss and mIoU on two axes: of all arms (BODY Fig. 17), and of each (Fig. 4)."""
    stage, charts = view.stage.name, []
    if len(histories) > 1:
        title = "Validation loss (dashed) and mIoU (solid)"
        figure = figures.curves_together(histories, styles, title)
        charts.append(Chart(f"{stage}-together", figure, f"{title} of all arms"))
    for number, (title, runs) in enumerate(histories.items()):
        figure = figures.curves_of_one(runs, title)
        text = f"Loss and mIoU of {title}, training and validation"
        charts.append(Chart(f"{stage}-arm{number}", figure, text))
    return Details("Curves as the documents draw them", [Charts(charts)])


def pictures(view: StageView) -> list:
    """Some images with truth and the prediction of each arm's first finished seed.

    A stage with panels has such pictures for each of them, all but the first folded.
    """
    name = f"{view.stage.name}-pictures"
    if not view.stage.panels:
        shown = {arm.name: arm.title for arm in view.drawn()}
        grid = _picture_grid(view, name, shown)
        return [] if grid is None else [Heading(3, "Pictures"), grid]
    grids = [
        (panel.title, _picture_grid(view, f"{name}-{panel.name}", panel.drawn))
        for panel in view.panels()
    ]
    grids = [(title, grid) for title, grid in grids if grid is not None]
    if not grids:
        return []
    (title, first), *others = grids
    return [
        Heading(3, "Pictures"),
        Heading(4, title),
        first,
        *(Details(title, [grid]) for title, grid in others),
    ]


def _picture_grid(
    view: StageView, name: str, labels: Mapping[str, str]
) -> Pictures | None:
    """Columns of the arms in `labels` ({name: title}); None if there are no samples."""
    samples = {}
    for arm, label in labels.items():
        runs = scores.done(view.result, arm)
        found = _read_samples(runs[0].run) if runs else None
        if found is not None:
            samples[label] = found
    if not samples:
        return None
    first = next(iter(samples.values()))
    positions = range(min(SAMPLE_ROWS, len(first["ids"])))
    ids = [str(first["ids"][k]) for k in positions]
    maps = [[first["label"][k] for k in positions]]
    for one in samples.values():
        predictions = dict(zip(map(str, one["ids"]), one["prediction"]))
        maps.append([predictions.get(name) for name in ids])
    names, palette = view.context.labels.names, view.context.labels.palette
    rows = [
        (
            ids[k],
            [
                first["image"][k],
                *(
                    None if column[k] is None else figures.paint(column[k], palette)
                    for column in maps
                ),
            ],
        )
        for k in positions
    ]
    known = [label for column in maps for label in column if label is not None]
    header = ["image", "truth", *samples]
    legend = figures.legend_entries(known, palette, names)
    grid = figures.picture_grid(header, rows, legend)
    return Pictures(name, header, rows, legend, grid, blends=True)


def _read_samples(run: Path) -> dict[str, np.ndarray] | None:
    """samples.npz of a run; None where there is none, or it cannot be read."""
    try:
        with open(run / "samples.npz", "rb") as file:
            arrays = np.load(file, allow_pickle=False)
            return {key: arrays[key] for key in ("ids", "image", "label", "prediction")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def sheets(view: StageView) -> list:
    """The pictures of the data that the stage asks for, or why they are left out."""
    blocks, labels = [], view.context.labels
    for name in view.stage.sheets:
        try:
            lookups = _lookups(view) if name == "hierarchy" else ()
            sheet = SHEETS[name](view.context.examples, labels, lookups)
        except UsageError as error:
            text = f"A picture of the data ({name}) is left out: {error}."
            blocks.append(Paragraph(text, "note"))
            continue
        grid = figures.picture_grid(sheet.header, sheet.rows, sheet.legend)
        block = Pictures(
            f"{view.stage.name}-sheet-{name}",
            sheet.header,
            sheet.rows,
            sheet.legend,
            grid,
            photographs=len(sheet.header) if name == "joints" else 1,
        )
        blocks.append(Details(sheet.title, [Paragraph(sheet.note, "note"), block]))
    return blocks


def _lookups(view: StageView) -> list:
    """From coarse to fine, the levels that an arm of the stage learns; [] if none.

    Raises:
        UsageError: the network does not know such levels of these classes.
    """
    from keras_seg import nets

    for arm in view.arms:
        config = arm.config
        heads = nets.heads(
            config.net.name, view.context.labels.num_classes, **config.net.knobs
        )
        lookups = [one.lookup for one in heads.values() if one.target == "labels"]
        if any(lookup is not None for lookup in lookups):
            return lookups
    return []


def class_pixels(context: Context) -> Details:
    """How unequal the classes are (CITY Fig. 13); folded away."""
    title = "Share of the labelled training pixels (%)"
    figure = figures.class_pixels(context.labels.names, context.train_pixels, title)
    description = "Share of each class in the pixels of the training images"
    chart = Chart("class-pixels", figure, description)
    return Details("Figure: how many pixels each class has", [Charts([chart])])


def classes(view: StageView, styles: Mapping[str, tuple]) -> Details:
    """Class bars, the winner's confusion, weights against frequency; folded away."""
    result, context, stage = view.result, view.context, view.stage.name
    names = context.labels.names
    iou = {
        view.titles[name]: scores.per_class(result, name, "iou")
        for name in (scores.rival(result), result.winner)
        if name is not None
    }
    winner = view.titles[result.winner]
    confusion = sum(scores.confusion(run) for run in scores.done(result, result.winner))
    charts = [
        Chart(
            f"{stage}-class-iou",
            figures.per_class_bars(names, iou, "IoU of each class (%)", styles),
            f"IoU of each class: {' and '.join(iou)}",
        ),
        Chart(
            f"{stage}-confusion",
            figures.confusion_matrix(confusion, names, f"Confusion of {winner} (%)"),
            f"Confusion matrix of {winner}, in percent of the true class' pixels",
        ),
    ]
    used = {wording.weighting(arm.config) for arm in view.arms}
    weights = {name: w for name, w in context.weights.items() if name in used}
    if weights:
        heading = "Weights, most frequent class first"
        figure = figures.class_weights(names, context.train_pixels, weights, heading)
        description = "Class weights against the classes' share of training pixels"
        charts.append(Chart(f"{stage}-class-weights", figure, description))
    title = "Figures: IoU of each class, confusion matrix"
    title += ", class weights" if weights else ""
    return Details(title, [Charts(charts)])
