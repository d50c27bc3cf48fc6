"""The report of a study: what each stage asked, what came out, how to repeat it.

This module decides what is said; `document` how it looks. Scores are shown in percent,
differences in percentage points; several seeds as mean ± standard deviation.
"""

import csv
import dataclasses
import io
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from keras_seg import figures
from keras_seg.ablation import scores
from keras_seg.ablation.document import (
    Cell,
    Chart,
    Charts,
    Code,
    Details,
    Heading,
    Items,
    Paragraph,
    Pictures,
    Row,
    Table,
    pictures,
    to_html,
    to_markdown,
)
from keras_seg.ablation.protocol import Arm, ArmResult, StageResult
from keras_seg.checkpoint import write_file
from keras_seg.config import to_dict
from keras_seg.errors import StorageError
from keras_seg.labels import LabelSpec

SAMPLE_ROWS = 4
LONG_TABLE = 12  # rows; a longer table of settings is folded away
SPLITS = {"val": "validation", "test": "test", "train": "training"}
STATES = {"oom": "out of memory", "missing": "not run yet"}
REDUCED = {
    "smoke": "A smoke test of a few steps, not comparable with the published numbers.",
    "demo": "A demonstration at reduced size, not comparable with the published "
    "numbers.",
    "bench": "A run at reduced size, not comparable with the published numbers.",
}
PUBLISHED = ("miou", "pixel_accuracy", "f1")  # keys of Arm.published in tables
CSV_PER_CLASS = ("iou", "recall", "precision")
LOSS_SETTINGS = ("loss", "l1", "l2", "class_weights", "strategy", "normalise")
GLOSSARY = (
    "IoU of a class: the pixels that truth and prediction share, divided by the pixels "
    "that either has. mIoU: its mean over the classes; the arm with the highest "
    "validation mIoU wins.",
    "Accuracy: the share of all labelled pixels that are right. It is high wherever a "
    "large class is easy.",
    "Class accuracy: the share of a class' true pixels that are found (recall); the "
    "mean gives a rare class as much say as a frequent one. Macro F1: the mean over "
    "the classes of 2 x shared pixels / (true + predicted pixels).",
    "A class that occurs neither in truth nor in prediction is left out of the means "
    f"and shown as “{'–'}”. Pixels without a label count nowhere.",
    "Floor: what needs no learning. An arm that is not clearly above it has learnt "
    "little.",
    "Train − val: training mIoU minus validation mIoU at the step that was kept, in "
    "points; a large gap is overfitting.",
    "ms/image: the time of predicting one image at a time on this machine.",
)


@dataclass(frozen=True)
class Context:
    """What a report tells beyond the results.

    Attributes:
        command: the command line that repeats the study.
        scale: one of protocol.SCALES.
        study, net, dataset: their names.
        labels: the dataset's classes.
        train_pixels: [C] pixels of each class in the training split.
        environment: {what: value}: versions, CPU, threads, commit.
        show_published: whether published numbers may stand beside ours.
        groups: {name: class ids} of grouped accuracies; empty if none.
        weights: {value of the setting class_weights: weights [C]} to be drawn.
    """

    command: str
    scale: str
    study: str
    net: str
    dataset: str
    labels: LabelSpec
    train_pixels: Sequence[int]
    environment: Mapping[str, object]
    show_published: bool = False
    groups: Mapping[str, Sequence[int]] = field(default_factory=dict)
    weights: Mapping[str, Sequence[float]] = field(default_factory=dict)


def write(
    folder: Path, *, title: str, stages: Sequence[StageResult], context: Context
) -> Path:
    """Write report.html, report.md, figures/*.png and tables/<stage>.csv.

    Each file is replaced as a whole, the two reports last.

    Args:
        folder: of the study and net; is made where it is missing.
        title: heading of the report.
        stages: in the order of the study.

    Returns:
        The path of report.html.

    Raises:
        StorageError: the disk is full or not writable.
    """
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        (folder / "tables").mkdir(exist_ok=True)
    except OSError as error:
        expected = "a folder that can be written"
        raise StorageError(str(folder), error.strerror, expected) from error
    blocks = _blocks(stages, context)
    for stage in stages:
        text = _csv(stage, context, folder)
        write_file(folder / "tables" / f"{stage.stage.name}.csv", text)
    for name, content in pictures(blocks):
        write_file(folder / "figures" / name, content)
    write_file(folder / "report.md", to_markdown(title, blocks, "figures"))
    write_file(folder / "report.html", to_html(title, blocks))
    return folder / "report.html"


def verdict(result: StageResult, context: Context) -> str:
    """A stage's answer in a few plain sentences, the most important one first."""
    paragraph = _verdict(result, context, _floors(result, context))
    return f"{paragraph.lead} {paragraph.text}".strip()


def _blocks(stages: Sequence[StageResult], context: Context) -> list:
    seeds = len({result.seed for stage in stages for result in stage.results})
    runs = [result for stage in stages for result in stage.results]
    done = sum(result.state == "done" for result in runs)
    facts = (
        f"Network {context.net} on {context.dataset}, scale {context.scale}, "
        f"{_count(seeds, 'seed')} per arm; {done} of {_count(len(runs), 'run')} done."
    )
    blocks = [Paragraph(facts, "source")]
    if len(stages) > 1:
        blocks.append(_contents(stages))
    for stage in stages:
        blocks += _stage_blocks(stage, context)
    blocks += [
        Heading(2, "How to reproduce", "reproduce"),
        Code(context.command),
        _environment(context.environment),
        Details("How to read the numbers", [Items(GLOSSARY)]),
    ]
    return blocks


def _contents(stages: Sequence[StageResult]) -> Table:
    rows = []
    for result in stages:
        titles = {arm.name: arm.title for arm in result.arms}
        winner = titles.get(result.winner, "")
        gain = scores.difference(result, result.winner, scores.base(result).name)
        rows.append(
            Row(
                [
                    Cell(result.stage.name, link=_anchor(result)),
                    Cell(result.stage.question),
                    Cell(winner),
                    Cell(_percent(scores.mean_score(result, result.winner, "miou"))),
                    Cell(_points(gain) if winner != scores.base(result).title else ""),
                ]
            )
        )
    header = ["Stage", "Question", "Winner", "mIoU %", "points above the base"]
    return Table(header, rows, numbers=False)


def _environment(environment: Mapping[str, object]) -> Table:
    rows = [
        Row([Cell(name), Cell("not known" if value is None else str(value))])
        for name, value in _flat(environment)
    ]
    return Table(["Environment", ""], rows, numbers=False)


# One stage


def _stage_blocks(result: StageResult, context: Context) -> list:
    stage, arms = result.stage, result.arms
    floors = _floors(result, context)
    blocks = [
        Heading(2, stage.question, _anchor(result)),
        Paragraph(f"Stage {stage.name}; {stage.source}. {result.start}", "source"),
        _verdict(result, context, floors),
        _scores_table(result, context, floors),
    ]
    if notes := _notes(result):
        blocks.append(Items(notes))
    heading, differences = "What differs between the arms", _differences(arms)
    if len(arms) > LONG_TABLE:
        blocks.append(Details(heading, [differences]))
    elif len(arms) > 1:
        blocks += [Heading(3, heading), differences]
    named = _named(result)
    # The named first, so that their colours differ.
    titles = dict.fromkeys(arm.title for arm in (*named, *arms))
    styles = figures.arm_colours(list(titles), scores.base(result).title)
    blocks += _curves(result, named, styles)
    done = [arm for arm in arms if scores.done(result, arm.name)]
    if done:
        blocks += _class_tables(result, done, context)
    grid = _pictures(result, named, context)
    if grid is not None:
        blocks += [Heading(3, "Pictures"), grid]
    if done:
        blocks += _more_figures(result, context, styles)
    common = _settings(scores.base(result))
    rows = [Row([Cell(name), Cell(value)]) for name, value in common.items()]
    table = Table(["Setting", "Value"], rows, numbers=False)
    blocks.append(Details(f"All settings of the base arm, {arms[0].title}", [table]))
    return blocks


def _verdict(
    result: StageResult, context: Context, floors: Sequence[tuple[str, Mapping]]
) -> Paragraph:
    if result.winner is None:
        lead = "No arm has finished, so there is no answer yet."
        return Paragraph(_unfinished(result), "verdict", lead)
    titles = {arm.name: arm.title for arm in result.arms}
    sentences = []
    if floors:
        sentences.append(_above_floor(result, *floors[-1]))
    sentences.append(_certainty(result))
    published = result.stage.published_winner
    if published == result.winner:
        sentences.append("The document chose the same arm.")
    elif published in titles:
        sentences.append(f"The document chose {titles[published]} instead.")
    sentences.append(_unfinished(result))
    if context.scale in REDUCED:
        sentences.append(REDUCED[context.scale])
    elif not context.show_published:
        sentences.append("Not comparable with the published numbers: other data.")
    text = " ".join(sentence for sentence in sentences if sentence)
    return Paragraph(text, "verdict", _answer(result))


def _answer(result: StageResult) -> str:
    """Which arm won, and by how much."""
    titles = {arm.name: arm.title for arm in result.arms}
    winner, base = titles[result.winner], scores.base(result)
    score = f"{_percent(scores.mean_score(result, result.winner, 'miou'))} %"
    score += f" {_split(result)} mIoU"
    if len(titles) == 1:
        return f"{winner} reaches {score}."
    if result.winner != base.name and not scores.done(result, base.name):
        return (
            f"{winner} is best with {score}; the base arm, {base.title}, has no result "
            "to compare it with."
        )
    rival = scores.rival(result)
    if rival is None:
        return f"{winner} is the only arm with a result: {score}."
    lead = f"{100 * scores.difference(result, result.winner, rival):.2f} points above"
    if result.winner == base.name:
        return f"The base arm, {winner}, is best with {score}, {lead} {titles[rival]}."
    return f"{winner} is best with {score}, {lead} the base arm, {base.title}."


def _unfinished(result: StageResult) -> str:
    number = sum(run.state != "done" for run in result.results)
    runs = _count(len(result.results), "run")
    return f"{number} of {runs} did not finish." if number else ""


def _certainty(result: StageResult) -> str:
    """Whether the seeds agree about the winner, as far as they can tell."""
    rival = scores.rival(result)
    if rival is None:
        return ""
    spreads = [
        scores.spread(scores.of_seeds(result, name, "miou"))
        for name in (result.winner, rival)
    ]
    if any(math.isnan(spread) for spread in spreads):
        return "With one seed per arm, small differences may be chance."
    if abs(scores.difference(result, result.winner, rival)) <= math.hypot(*spreads):
        return "The difference is within the spread of the seeds."
    return "The difference is larger than the spread of the seeds."


def _above_floor(result: StageResult, name: str, floor: Mapping[str, float]) -> str:
    gain = scores.mean_score(result, result.winner, "miou") - floor["miou"]
    who = "the winner" if len(result.arms) > 1 else "this arm"
    start = f"The floor, {name}, has {_percent(floor['miou'])} %: {who} is "
    if gain > 0:
        return f"{start}{100 * gain:.1f} points above it."
    return f"{start}no better, so nothing useful was learnt."


def _notes(result: StageResult) -> list[str]:
    """The arms' notes, equal ones together, and the seeds a mean lacks."""
    titles: dict[str, list[str]] = {}
    for arm in result.arms:
        if arm.note:
            titles.setdefault(arm.note, []).append(arm.title)
    notes = [f"{', '.join(names)}: {note}" for note, names in titles.items()]
    for run in result.results:
        if run.state != "done" and scores.done(result, run.arm.name):
            notes.append(f"{run.arm.title}, seed {run.seed}: {_reasons([run])}")
    return notes


# The table of scores


@dataclass(frozen=True)
class _Column:
    """A column: one number of each run, how it is written, which one is best.

    `name` heads it in the CSV file and is the key of a floor's number; `published` is
    the key of the document's number that stands below ours.
    """

    name: str
    title: str
    value: Callable[[ArmResult], float]
    write: Callable[[float], str]
    best: Callable | None = None
    published: str = ""


def _score_column(key: str, title: str, published: str = "") -> _Column:
    def value(run):
        return scores.score(run, key)

    return _Column(key, title, value, _percent, max, published)


def _columns(labels: LabelSpec) -> list[_Column]:
    def swapped(run):
        confusion = scores.confusion(run)
        return scores.left_right_confusion(confusion, labels.flip_pairs)

    def minutes(run):
        return run.timing.get("train_seconds", math.nan) / 60

    def milliseconds(run):
        return run.timing.get("ms_per_image", math.nan)

    return [
        _score_column("miou", "mIoU %"),
        _score_column("pixel_accuracy", "accuracy %", "pixel_accuracy"),
        _score_column("f1_macro", "macro F1 %", "f1"),
        _score_column("mean_accuracy", "mean class accuracy %"),
        _Column("train_val_gap", "train − val, points", scores.gap, _points),
        _Column("left_right_swapped", "left/right swapped %", swapped, _percent, min),
        _Column("parameters", "parameters", lambda run: run.parameters, _whole, min),
        _Column("train_minutes", "training, min", minutes, _decimal, min),
        _Column("ms_per_image", "ms/image", milliseconds, _decimal, min),
    ]


def _scores_table(
    result: StageResult, context: Context, floors: Sequence[tuple[str, Mapping]]
) -> Table:
    arms, published = result.arms, context.show_published
    columns: list[tuple[str, str, dict[str, Cell]]] = []
    for column in _columns(context.labels):
        cells = _column_cells(result, column, published)
        if any(cell.text for cell in cells.values()):
            columns.append((column.name, column.title, cells))
    if published and columns and any("miou" in arm.published for arm in arms):
        cells = {arm.name: Cell(_published(arm, "miou")) for arm in arms}
        columns.insert(1, ("", "published mIoU %", cells))
    if len(arms) > 1 and columns:
        cells = {arm.name: Cell(_gain(result, arm)) for arm in arms}
        columns.insert(1, ("", "against base, points", cells))
    rows = []
    for arm in arms:
        title = Cell(arm.title, tags=_tags(result, arm))
        if scores.done(result, arm.name):
            kind = "winner" if arm.name == result.winner else ""
            cells = [cells[arm.name] for _, _, cells in columns]
            rows.append(Row([title, *cells], kind))
        else:
            if published and "miou" in arm.published:
                small = f"published mIoU {_published(arm, 'miou')} %"
                title = dataclasses.replace(title, small=small)
            reason = Cell(_reasons(result.of(arm.name)), span=max(1, len(columns)))
            rows.append(Row([title, reason], "failed"))
    for name, floor in floors:
        texts = [_percent(floor.get(key, math.nan)) for key, _, _ in columns]
        rows.append(Row([Cell(f"floor: {name}"), *map(Cell, texts)], "floor"))
    titles = [title for _, title, _ in columns]
    return Table(["Arm", *(titles or ["Result"])], rows)


def _column_cells(
    result: StageResult, column: _Column, show_published: bool
) -> dict[str, Cell]:
    """{arm: its cell}: mean and spread, the best one marked."""
    values = {
        arm.name: [column.value(run) for run in scores.done(result, arm.name)]
        for arm in result.arms
    }
    means = {name: scores.mean(numbers) for name, numbers in values.items()}
    known = [mean for mean in means.values() if not math.isnan(mean)]
    best = column.write(column.best(known)) if known and column.best else ""
    marked = len({column.write(mean) for mean in known}) > 1
    cells = {}
    for arm in result.arms:
        published = _published(arm, column.published) if show_published else ""
        cells[arm.name] = Cell(
            _with_spread(values[arm.name], column),
            best=marked and column.write(means[arm.name]) == best,
            small=f"published {published}" if published else "",
        )
    return cells


def _gain(result: StageResult, arm: Arm) -> str:
    base = scores.base(result)
    if arm.name == base.name:
        return ""
    return _points(scores.difference(result, arm.name, base.name))


def _reasons(runs: Sequence[ArmResult]) -> str:
    """What became of runs that are not done, equal ones said once."""
    texts = []
    for run in runs:
        state = STATES.get(run.state, run.state)
        texts.append(f"{state}: {run.reason}" if run.reason else state)
    return "; ".join(dict.fromkeys(texts))


def _tags(result: StageResult, arm: Arm) -> list[str]:
    tags = []
    compared = len(result.arms) > 1
    if compared and arm.name == result.winner:
        tags.append("winner")
    if compared and arm.name == scores.base(result).name:
        tags.append("base")
    if arm.name == result.stage.published_winner:
        tags.append("document's choice")
    seeds = len(result.of(arm.name))
    finished = len(scores.done(result, arm.name))
    if 0 < finished < seeds:
        tags.append(f"{finished} of {seeds} seeds")
    return tags


# Settings


def _settings(arm: Arm) -> dict[str, str]:
    """{dotted name: value} of the arm's configuration, without the seed."""
    values = to_dict(arm.config)
    values.pop("seed")
    return {name: _setting(value) for name, value in _flat(values)}


def _differences(arms: Sequence[Arm]) -> Table | Paragraph:
    settings = {arm.name: _settings(arm) for arm in arms}
    names = dict.fromkeys(name for values in settings.values() for name in values)
    differing = [
        name
        for name in names
        if len({values.get(name, "") for values in settings.values()}) > 1
    ]
    if not differing:
        return Paragraph("Nothing: no setting differs between the arms.")
    rows = [
        Row(
            [
                Cell(arm.title),
                *(Cell(settings[arm.name].get(name, "")) for name in differing),
            ]
        )
        for arm in arms
    ]
    return Table(["Arm", *differing], rows, numbers=False)


def _flat(values: Mapping, prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _setting(value) -> str:
    if isinstance(value, list | tuple):
        return " x ".join(map(_setting, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value == {}:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


# Curves, classes, pictures


def _curves(result: StageResult, named: Sequence[Arm], styles: Mapping) -> list:
    histories = {
        arm.title: [run.history for run in result.of(arm.name) if run.history]
        for arm in result.arms
    }
    histories = {title: runs for title, runs in histories.items() if runs}
    if not histories:
        return []
    shown = [arm.title for arm in named if arm.title in histories]
    charts = []
    for column, title, percent in (
        ("val_miou", "Validation mIoU (%)", True),
        ("train_miou", "Training mIoU (%)", True),
        ("val_loss", "Validation loss", False),
        ("loss", "Training loss", False),
    ):
        figure = figures.curves(
            histories, column, title, styles=styles, named=shown, percent=percent
        )
        name = f"{result.stage.name}-{column.replace('_', '-')}"
        charts.append(Chart(name, figure, f"{title} over the training steps"))
    blocks = [Heading(3, "Training"), Charts(charts)]
    losses = {
        tuple(getattr(arm.config, name) for name in LOSS_SETTINGS)
        for arm in result.arms
    }
    if len(losses) > 1:
        text = "The arms' losses differ, so compare the course of the loss curves, "
        blocks.append(Paragraph(text + "not their height.", "note"))
    return blocks


def _class_tables(result: StageResult, arms: Sequence[Arm], context: Context) -> list:
    accuracy = _class_table(result, arms, context, "recall")
    blocks = [Heading(3, "Accuracy of each class (%)")]
    more = []
    if context.groups:
        blocks[0] = Heading(3, "Accuracy of each group (%)")
        blocks.append(_group_table(result, arms, context))
        more.append(Details("Accuracy of each class (%)", [accuracy]))
    else:
        blocks.append(accuracy)
    for key, title in (("iou", "IoU"), ("precision", "Precision")):
        table = _class_table(result, arms, context, key)
        more.append(Details(f"{title} of each class (%)", [table]))
    return blocks + more


def _class_table(
    result: StageResult, arms: Sequence[Arm], context: Context, key: str
) -> Table:
    values = {arm.name: scores.per_class(result, arm.name, key) for arm in arms}
    pixels = np.asarray(context.train_pixels, dtype=float)
    shares = pixels / max(1.0, pixels.sum())
    rows = []
    for k, (name, colour) in enumerate(
        zip(context.labels.names, context.labels.palette)
    ):
        row = [values[arm.name][k] for arm in arms]
        share = f"{100 * shares[k]:.2g}"
        rows.append(Row([Cell(name, colour=colour), Cell(share), *_heat_cells(row)]))
    means = [scores.mean(values[arm.name]) for arm in arms]
    rows.append(Row([Cell("mean"), Cell(""), *map(Cell, map(_one_decimal, means))]))
    header = ["Class", "training pixels %", *(arm.title for arm in arms)]
    return Table(header, rows)


def _group_table(result: StageResult, arms: Sequence[Arm], context: Context) -> Table:
    from keras_seg import metrics  # imports Keras

    values = {}
    for arm in arms:
        runs = [
            metrics.grouped_accuracy(scores.confusion(run), context.groups)
            for run in scores.done(result, arm.name)
        ]
        values[arm.name] = {
            name: scores.mean([run[name] for run in runs]) for name in context.groups
        }
    rows = []
    for name in context.groups:
        cells = _heat_cells([values[arm.name][name] for arm in arms])
        if context.show_published:
            published = [_published(arm, name) for arm in arms]
            cells = [
                dataclasses.replace(cell, small=f"published {value}" if value else "")
                for cell, value in zip(cells, published)
            ]
        rows.append(Row([Cell(name), *cells]))
    means = [scores.mean_score(result, arm.name, "mean_accuracy") for arm in arms]
    cells = [Cell(_one_decimal(mean)) for mean in means]
    rows.append(Row([Cell("mean of the classes"), *cells]))
    return Table(["Group", *(arm.title for arm in arms)], rows)


def _heat_cells(values: Sequence[float]) -> list[Cell]:
    """Numbers of one class, shaded by height; the best arm bold."""
    texts = [_one_decimal(value) for value in values]
    known = [value for value in values if not math.isnan(value)]
    best = _one_decimal(max(known, default=math.nan))
    marked = len({text for text in texts if text}) > 1
    return [
        Cell(
            text,
            best=marked and text == best,
            heat=None if math.isnan(value) else value,
        )
        for text, value in zip(texts, values)
    ]


def _pictures(
    result: StageResult, named: Sequence[Arm], context: Context
) -> Pictures | None:
    """Some images with truth and the prediction of each arm's first finished seed."""
    samples = {}
    for arm in named:
        runs = scores.done(result, arm.name)
        found = _read_samples(runs[0].run) if runs else None
        if found is not None:
            samples[arm.title] = found
    if not samples:
        return None
    first = next(iter(samples.values()))
    positions = range(min(SAMPLE_ROWS, len(first["ids"])))
    ids = [str(first["ids"][k]) for k in positions]
    images = [first["image"][k] for k in positions]
    labels = [first["label"][k] for k in positions]
    predictions = {
        title: [dict(zip(map(str, one["ids"]), one["prediction"])).get(k) for k in ids]
        for title, one in samples.items()
    }
    names, palette = context.labels.names, context.labels.palette
    maps = [label for row in predictions.values() for label in row if label is not None]
    rows = [
        (
            ids[k],
            [
                images[k],
                *(
                    None if label is None else figures.paint(label, palette)
                    for label in (labels[k], *(row[k] for row in predictions.values()))
                ),
            ],
        )
        for k in positions
    ]
    return Pictures(
        f"{result.stage.name}-pictures",
        ["image", "truth", *predictions],
        rows,
        figures.legend_entries([*labels, *maps], palette, names),
        figures.sample_grid(images, labels, predictions, palette, names, ids),
    )


def _read_samples(run: Path) -> dict[str, np.ndarray] | None:
    """samples.npz of a run; None where there is none, or it cannot be read."""
    try:
        with open(run / "samples.npz", "rb") as file:
            arrays = np.load(file, allow_pickle=False)
            return {key: arrays[key] for key in ("ids", "image", "label", "prediction")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _more_figures(result: StageResult, context: Context, styles: Mapping) -> list:
    """Class bars, the winner's confusion, weights against frequency; folded away."""
    names = context.labels.names
    titles = {arm.name: arm.title for arm in result.arms}
    iou = {
        titles[name]: scores.per_class(result, name, "iou")
        for name in (scores.rival(result), result.winner)
        if name is not None
    }
    winner = titles[result.winner]
    confusion = sum(scores.confusion(run) for run in scores.done(result, result.winner))
    stage = result.stage.name
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
    used = {arm.config.class_weights for arm in result.arms}
    weights = {name: w for name, w in context.weights.items() if name in used}
    if weights:
        heading = "Weights, most frequent class first"
        figure = figures.class_weights(names, context.train_pixels, weights, heading)
        description = "Class weights against the classes' share of training pixels"
        charts.append(Chart(f"{stage}-class-weights", figure, description))
    title = "Figures: IoU of each class, confusion matrix"
    title += ", class weights" if weights else ""
    return [Details(title, [Charts(charts)])]


# CSV


def _csv(result: StageResult, context: Context, folder: Path) -> str:
    """One line for each run with all its numbers as they are, then the floors."""
    names, published = context.labels.names, context.show_published
    runs = scores.all_done(result)
    keys = list(dict.fromkeys(key for run in runs for key in run.metrics["summary"]))
    columns = [one for one in _columns(context.labels) if one.name not in keys]
    header = ["arm", "title", "seed", "state", "reason", "run", *keys]
    header += [column.name for column in columns]
    header += [f"{kind} {name}" for kind in CSV_PER_CLASS for name in names]
    header += [f"published_{key}" for key in PUBLISHED if published]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_csv_field, header))
    for run in result.results:
        place = run.run.relative_to(folder) if run.run.is_relative_to(folder) else ""
        line = [run.arm.name, run.arm.title, run.seed, run.state, run.reason, place]
        if run.state == "done":
            line += [scores.score(run, key) for key in keys]
            line += [column.value(run) for column in columns]
            for kind in CSV_PER_CLASS:
                line += scores.numbers(run.metrics["per_class"][kind])
        else:
            numbers = len(keys) + len(columns) + len(CSV_PER_CLASS) * len(names)
            line += [""] * numbers
        line += [run.arm.published.get(key, "") for key in PUBLISHED if published]
        writer.writerow(map(_csv_field, line))
    for name, floor in _floors(result, context):
        line = ["floor", name, "", "", "", "", *(floor.get(key, "") for key in keys)]
        line += [""] * (len(header) - len(line))
        writer.writerow(map(_csv_field, line))
    return text.getvalue()


def _csv_field(value):
    """A value that no spreadsheet takes for a formula; "" for what is no number."""
    if isinstance(value, float | int | np.number):
        return value if math.isfinite(value) else ""
    text = str(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


# Parts


def _anchor(result: StageResult) -> str:
    return f"stage-{result.stage.name}"


def _split(result: StageResult) -> str:
    split = scores.all_done(result)[0].metrics.get("split", result.stage.split)
    return SPLITS.get(split, split)


def _named(result: StageResult) -> list[Arm]:
    """The arms to draw: all, or where they are many the base and the best ones."""
    if len(result.arms) <= figures.MOST_LABELS:
        return list(result.arms)
    ranked = sorted(
        (arm for arm in result.arms[1:] if scores.done(result, arm.name)),
        key=lambda arm: -scores.mean_score(result, arm.name, "miou"),
    )
    kept = {result.arms[0].name, *(a.name for a in ranked[: figures.MOST_LABELS - 1])}
    return [arm for arm in result.arms if arm.name in kept]


def _floors(result: StageResult, context: Context) -> list[tuple[str, dict]]:
    return scores.floors(result, context.labels.names, context.train_pixels)


# Numbers as text; "" where there is none


def _percent(value: float) -> str:
    return "" if math.isnan(value) else f"{100 * value:.2f}"


def _one_decimal(value: float) -> str:
    return "" if math.isnan(value) else f"{100 * value:.1f}"


def _points(value: float) -> str:
    return "" if math.isnan(value) else f"{100 * value:+.2f}".replace("-", "−")


def _whole(value: float) -> str:
    return "" if math.isnan(value) else f"{value:,.0f}"


def _decimal(value: float) -> str:
    return "" if math.isnan(value) else f"{value:,.1f}"


def _published(arm: Arm, key: str) -> str:
    value = arm.published.get(key)
    return "" if value is None else f"{value:g}"


def _with_spread(values: Sequence[float], column: _Column) -> str:
    """The mean and, for scores of several seeds, ± their standard deviation."""
    text = column.write(scores.mean(values))
    spread = scores.spread(values)
    if column.best is not max or math.isnan(spread):
        return text
    return f"{text} ± {column.write(spread)}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
