"""The tables of a stage: scores, claims, settings, classes, what else is published.

The rows are arms, or classes with a column for each arm. The same numbers as CSV.
"""

import csv
import dataclasses
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_seg.ablation.protocol import Arm, ArmResult
from keras_seg.config import to_dict
from keras_seg.labels import LabelSpec
from keras_seg.report import claims, scores, wording
from keras_seg.report import intervals as bootstrap
from keras_seg.report.claims import Finding
from keras_seg.report.document import Cell, Details, Heading, Paragraph, Row, Table
from keras_seg.report.intervals import Interval
from keras_seg.report.view import StageView

STATES = {"oom": "out of memory", "missing": "not run yet"}
CLASS_SCORES = {"recall": "Accuracy", "iou": "IoU", "precision": "Precision"}
DEVIATION = " ±"  # ends the key of a published number's deviation
PER_BATCH = "iou_batch_present"  # as VOC07 seems to have averaged
LEVEL = "95 % interval"


# The table of scores


@dataclass(frozen=True)
class Column:
    """A number of each run: how it is written, and which one is best.

    Attributes:
        name: in the CSV file, of a claim's metric, and key of a floor's number.
        title: heads the column.
        value: of a run that is done; NaN where it has none.
        write: the number as text.
        best: max, min, or None where no value is better than another.
        published: key of the document's number that stands below ours.
        is_share: whether it is in 0..1, and differences are written in points.
    """

    name: str
    title: str
    value: Callable[[ArmResult], float]
    write: Callable[[float], str]
    best: Callable | None = None
    published: str = ""
    is_share: bool = False


def score_column(key: str, title: str, published: str | None = None) -> Column:
    """A number of `keras_seg.metrics.summary`."""

    def value(run):
        return scores.score(run, key)

    published = key if published is None else published
    return Column(key, title, value, wording.percent, max, published, True)


SCORES = (  # of every table
    score_column("miou", "mIoU %", published=""),  # has a column of its own
    score_column("pixel_accuracy", "accuracy %"),
    score_column("f1_macro", "macro F1 %", "f1"),
    score_column("mean_accuracy", "mean class accuracy %"),
)


def columns_of(labels: LabelSpec) -> list[Column]:
    """The columns of the table of scores, in their order."""

    def swapped(run):
        confusion = scores.confusion(run)
        return scores.left_right_confusion(confusion, labels.flip_pairs)

    def gflop(run):
        return run.metrics.get("gflop", math.nan)

    def minutes(run):
        return run.timing.get("train_seconds", math.nan) / 60

    def milliseconds(run):
        return run.timing.get("ms_per_image", math.nan)

    percent, points = wording.percent, wording.points
    return [
        *SCORES,
        Column(
            "train_val_gap",
            "train\u00a0−\u00a0val, points",
            scores.gap,
            points,
            is_share=True,
        ),
        Column(
            "left_right_swapped",
            "left/right swapped %",
            swapped,
            percent,
            None,  # an arm that finds little mistakes little
            is_share=True,
        ),
        Column("parameters", "parameters", _parameters, wording.whole, min),
        Column("gflop", "GFLOP", gflop, wording.three_digits, min),
        # No time is marked as best: it depends on what ran beside the arm.
        Column("train_minutes", "training, min", minutes, wording.decimal),
        Column("ms_per_image", "ms/image", milliseconds, wording.decimal),
    ]


def _parameters(run: ArmResult) -> float:
    return run.parameters


def _columns(view: StageView) -> list[Column]:
    """Those of every stage, and the scores that its document or a claim names."""
    columns = columns_of(view.context.labels)
    known = {name for column in columns for name in (column.name, column.published)}
    named = [claim.metric for claim in view.stage.claims]
    named += [key for arm in view.arms for key in arm.published]
    columns[len(SCORES) : len(SCORES)] = [
        score_column(key, f"{wording.metric(key)} %")
        for key in dict.fromkeys(named)
        if key in wording.METRICS and key not in known
    ]
    if any(PER_BATCH in arm.published for arm in view.arms):
        title, write = f"{wording.metric(PER_BATCH)} %", wording.percent
        value = scores.batch_iou
        columns.insert(1, Column(PER_BATCH, title, value, write, max, PER_BATCH, True))
    return columns


def scores_table(view: StageView) -> Table:
    """Arms and floors with their numbers; what is best and what failed is marked."""
    arms = view.arms
    columns: list[tuple[str, str, dict[str, Cell]]] = []
    for column in _columns(view):
        cells = _column_cells(view, column)
        if any(cell.text or cell.small for cell in cells.values()):
            columns.append((column.name, column.title, cells))
    if (
        view.shows_published
        and columns
        and any("miou" in arm.published for arm in arms)
    ):
        cells = {arm.name: Cell(published(arm, "miou")) for arm in arms}
        columns.insert(1, ("", "published mIoU %", cells))
    if len(arms) > 1 and columns:
        cells = {arm.name: _difference_cell(view, arm) for arm in arms}
        title = "against base, points"
        if any(cell.small for cell in cells.values()):
            title += f" [{LEVEL}]"
        columns.insert(1, ("", title, cells))
    rows = []
    for arm in arms:
        title = Cell(arm.title, tags=_tags(view, arm))
        if arm in view.finished:
            kind = "winner" if arm.name == view.result.winner else ""
            cells = [cells[arm.name] for _, _, cells in columns]
            rows.append(Row([title, *cells], kind))
        else:
            if view.shows_published and "miou" in arm.published:
                small = f"published mIoU {published(arm, 'miou')} %"
                title = dataclasses.replace(title, small=small)
            reason = Cell(reasons(view.result.of(arm.name)), span=max(1, len(columns)))
            rows.append(Row([title, reason], "failed"))
    for name, floor in view.floors:
        texts = [wording.percent(floor.get(key, math.nan)) for key, _, _ in columns]
        rows.append(Row([Cell(f"floor: {name}"), *map(Cell, texts)], "floor"))
    titles = [title for _, title, _ in columns]
    return Table(["Arm", *(titles or ["Result"])], rows)


def _column_cells(view: StageView, column: Column) -> dict[str, Cell]:
    """{arm: its cell}: mean and spread, the best one marked."""
    values = {
        arm.name: [column.value(run) for run in scores.done(view.result, arm.name)]
        for arm in view.arms
    }
    means = {name: scores.mean(numbers) for name, numbers in values.items()}
    known = [mean for mean in means.values() if not math.isnan(mean)]
    best = column.write(column.best(known)) if known and column.best else ""
    marked = len({column.write(mean) for mean in known}) > 1
    return {
        arm.name: Cell(
            _with_spread(values[arm.name], column),
            best=marked and column.write(means[arm.name]) == best,
            small=_published_small(view, arm, column.published),
        )
        for arm in view.arms
    }


def _with_spread(values: Sequence[float], column: Column) -> str:
    """The mean and, for scores of several seeds, ± their standard deviation."""
    text = column.write(scores.mean(values))
    spread = scores.spread(values)
    if column.best is not max or math.isnan(spread):
        return text
    return f"{text} ± {column.write(spread)}"


def _difference_cell(view: StageView, arm: Arm) -> Cell:
    if arm.name == view.base.name:
        return Cell("")
    difference = scores.difference(view.result, arm.name, view.base.name)
    interval = view.interval(arm.name, view.base.name)
    return Cell(wording.points(difference), small=bracketed(interval))


def bracketed(interval: Interval | None) -> str:
    """[low, high] in points; "" without an interval."""
    if interval is None or math.isnan(interval.low):
        return ""
    return f"[{wording.points(interval.low)},\u00a0{wording.points(interval.high)}]"


def certainty(interval: Interval | None) -> str:
    """Clear or within noise; with one seed, clear for these trainings only."""
    if interval is None:
        return ""
    alone = ", one seed" if interval.is_clear and interval.seeds == 1 else ""
    return interval.verdict + alone


def _tags(view: StageView, arm: Arm) -> list[str]:
    tags = []
    if len(view.arms) > 1 and arm.name == view.result.winner:
        tags.append("winner")
        if lead := certainty(view.lead()):
            tags.append(lead)
    if len(view.arms) > 1 and arm.name == view.base.name:
        tags.append("base")
    if arm.name == view.stage.published_winner:
        tags.append("document's choice")
    seeds = len(view.result.of(arm.name))
    finished = len(scores.done(view.result, arm.name))
    if 0 < finished < seeds:
        tags.append(f"{finished} of {seeds} seeds")
    return tags


def reasons(runs: Sequence[ArmResult]) -> str:
    """What became of runs that are not done, equal ones said once."""
    texts = []
    for run in runs:
        state = STATES.get(run.state, run.state)
        texts.append(f"{state}: {run.reason}" if run.reason else state)
    return "; ".join(dict.fromkeys(texts))


# What the document says, and what we ask besides


def findings(view: StageView) -> list[Finding]:
    """Every claim of the stage with its verdict, the document's before ours."""
    columns = {column.name: column for column in _columns(view)}
    found = []
    for claim in sorted(view.stage.claims, key=lambda claim: claim.ours):
        column = columns[claim.metric]
        interval = None
        if claim.metric in bootstrap.SCORES:
            interval = view.interval(claim.arm, claim.than, claim.metric)
        found.append(claims.judge(view.result, claim, column.value, interval))
    return found


def claims_table(view: StageView, found: Sequence[Finding]) -> Table:
    """What is said, what was found, whether it holds; claims of one kind."""
    columns = {column.name: column for column in _columns(view)}
    rows = []
    for one in found:
        claim = one.claim
        arm, than = (view.titles.get(n, n) for n in (claim.arm, claim.than))
        column = columns[claim.metric]
        metric = column.title.removesuffix(" %").removesuffix(", points")
        expected = "about the same" if claim.expected == "same" else claim.expected
        write = wording.points if column.is_share else wording.signed
        text = claim.text[:1].upper() + claim.text[1:]
        tested = f"{metric} {expected}: {arm} against {than}"
        is_certain = one.verdict in (claims.HOLDS, claims.FAILS)
        cells = [
            Cell(text, small=tested),
            Cell(write(one.difference), small=bracketed(one.interval)),
            Cell(one.verdict, best=is_certain),
        ]
        rows.append(Row(cells))
    what = "Hypothesis" if found[0].claim.ours else "Claim"
    header = [what, f"difference, points [{LEVEL}]", "verdict"]
    return Table(header, rows, numbers=False)


# What else is published


def published(arm: Arm, key: str) -> str:
    """A number of the document with its deviation, as printed; "" where it has none."""
    value = arm.published.get(key)
    if value is None:
        return ""
    deviation = arm.published.get(key + DEVIATION)
    return f"{value:g}" if deviation is None else f"{value:g} ± {deviation:g}"


def _published_small(view: StageView, arm: Arm, key: str) -> str:
    text = published(arm, key) if view.shows_published else ""
    return f"published {text}" if text else ""


def other_published(view: StageView) -> Table | None:
    """The document's numbers that no other table of the stage has."""
    shown = {"miou", *(column.published for column in _columns(view))}
    shown |= view.context.groups.keys()
    shown |= {
        f"{kind} {name}" for kind in CLASS_SCORES for name in view.context.labels.names
    }
    keys = dict.fromkeys(key for arm in view.arms for key in arm.published)
    rest = [key for key in keys if key not in shown and not key.endswith(DEVIATION)]
    if not rest or not view.shows_published:
        return None
    rows = []
    for arm in view.arms:
        cells = [Cell(published(arm, key)) for key in rest]
        rows.append(Row([Cell(arm.title), *cells]))
    return Table(["Arm", *(f"{wording.metric(key)} %" for key in rest)], rows)


# Settings


def settings(arm: Arm) -> dict[str, str]:
    """{dotted name: value} of the arm's configuration, without the seed."""
    values = to_dict(arm.config)
    values.pop("seed")
    return {name: _setting(value) for name, value in flat(values)}


def settings_table(arm: Arm) -> Table:
    rows = [Row([Cell(name), Cell(value)]) for name, value in settings(arm).items()]
    return Table(["Setting", "Value"], rows, numbers=False)


def differences(arms: Sequence[Arm]) -> Table | Paragraph:
    """The settings in which the arms differ."""
    of_arms = {arm.name: settings(arm) for arm in arms}
    names = dict.fromkeys(name for values in of_arms.values() for name in values)
    differing = [
        name
        for name in names
        if len({values.get(name, "") for values in of_arms.values()}) > 1
    ]
    if not differing:
        return Paragraph("Nothing: no setting differs between the arms.")
    rows = [
        Row(
            [
                Cell(arm.title),
                *(Cell(of_arms[arm.name].get(name, "")) for name in differing),
            ]
        )
        for arm in arms
    ]
    return Table(["Arm", *differing], rows, numbers=False)


def flat(values: Mapping, prefix: str = "") -> Iterator[tuple[str, object]]:
    """(dotted name, value) of nested mappings."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{name}.")
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


# Classes


def class_tables(view: StageView) -> list:
    """One table open: of the groups, or what the document prints; the rest folded."""
    printed = {key.partition(" ")[0] for arm in view.arms for key in arm.published}
    kinds = list(CLASS_SCORES)
    if "iou" in printed and not view.context.groups:
        kinds = ["iou", "recall", "precision"]
    tables = [
        (f"{CLASS_SCORES[kind]} of each class (%)", _class_table(view, kind))
        for kind in kinds
    ]
    if view.context.groups:
        tables.insert(0, ("Accuracy of each group (%)", _group_table(view)))
    (heading, table), *rest = tables
    folded = [Details(title, [one]) for title, one in rest]
    return [Heading(3, heading), table, *folded]


def _class_table(view: StageView, kind: str) -> Table:
    arms, labels = view.finished, view.context.labels
    values = {arm.name: scores.per_class(view.result, arm.name, kind) for arm in arms}
    pixels = np.asarray(view.context.train_pixels, dtype=float)
    shares = pixels / max(1.0, pixels.sum())
    rows = []
    for k, (name, colour) in enumerate(zip(labels.names, labels.palette)):
        cells = _heat_cells([values[arm.name][k] for arm in arms])
        small = [_published_small(view, arm, f"{kind} {name}") for arm in arms]
        cells = [dataclasses.replace(c, small=text) for c, text in zip(cells, small)]
        share = f"{100 * shares[k]:.2g}"
        rows.append(Row([Cell(name, colour=colour), Cell(share), *cells]))
    means = [scores.mean(values[arm.name]) for arm in arms]
    cells = [Cell(wording.percent_short(mean)) for mean in means]
    rows.append(Row([Cell("mean"), Cell(""), *cells]))
    return Table(["Class", "training pixels %", *(arm.title for arm in arms)], rows)


def _group_table(view: StageView) -> Table:
    from keras_seg import metrics  # imports Keras

    arms, groups = view.finished, view.context.groups
    values = {}
    for arm in arms:
        runs = [
            metrics.grouped_accuracy(scores.confusion(run), groups)
            for run in scores.done(view.result, arm.name)
        ]
        values[arm.name] = {
            name: scores.mean([run[name] for run in runs]) for name in groups
        }
    rows = []
    for name in groups:
        cells = _heat_cells([values[arm.name][name] for arm in arms])
        small = [_published_small(view, arm, name) for arm in arms]
        cells = [dataclasses.replace(c, small=text) for c, text in zip(cells, small)]
        rows.append(Row([Cell(name), *cells]))
    means = [scores.mean_score(view.result, arm.name, "mean_accuracy") for arm in arms]
    cells = [Cell(wording.percent_short(mean)) for mean in means]
    rows.append(Row([Cell("mean of the classes"), *cells]))
    return Table(["Group", *(arm.title for arm in arms)], rows)


def _heat_cells(values: Sequence[float]) -> list[Cell]:
    """Numbers of one class, shaded by height; the best arm bold."""
    texts = [wording.percent_short(value) for value in values]
    known = [value for value in values if not math.isnan(value)]
    best = wording.percent_short(max(known, default=math.nan))
    marked = len({text for text in texts if text}) > 1
    return [
        Cell(
            text,
            best=marked and text == best,
            heat=None if math.isnan(value) else value,
        )
        for text, value in zip(texts, values)
    ]


# CSV


def scores_csv(view: StageView, folder: Path) -> str:
    """One line for each run with all its numbers as they are, then the floors."""
    names, result = view.context.labels.names, view.result
    runs = scores.all_done(result)
    keys = list(dict.fromkeys(key for run in runs for key in run.metrics["summary"]))
    columns = [one for one in _columns(view) if one.name not in keys]
    printed = list(dict.fromkeys(key for arm in view.arms for key in arm.published))
    printed = printed if view.shows_published else []
    header = ["arm", "title", "seed", "state", "reason", "run", *keys]
    header += [column.name for column in columns]
    header += [f"{kind} {name}" for kind in CLASS_SCORES for name in names]
    header += ["difference_to_base", "interval_low", "interval_high", "certainty"]
    header.append("winner")
    header += [f"published_{key}" for key in printed]
    lines = []
    for run in result.results:
        arm = run.arm
        place = run.run.relative_to(folder) if run.run.is_relative_to(folder) else ""
        line = [arm.name, arm.title, run.seed, run.state, run.reason, place]
        if run.state == "done":
            line += [scores.score(run, key) for key in keys]
            line += [column.value(run) for column in columns]
            for kind in CLASS_SCORES:
                line += scores.numbers(run.metrics["per_class"][kind])
        else:
            numbers = len(keys) + len(columns) + len(CLASS_SCORES) * len(names)
            line += [""] * numbers
        line += _difference_fields(view, arm)
        is_winner = arm.name == result.winner
        line.append((certainty(view.lead()) or "no interval") if is_winner else "")
        line += [arm.published.get(key, "") for key in printed]
        lines.append(line)
    for name, floor in view.floors:
        line = ["floor", name, "", "", "", "", *(floor.get(key, "") for key in keys)]
        lines.append(line + [""] * (len(header) - len(line)))
    return _csv(header, lines)


def _difference_fields(view: StageView, arm: Arm) -> list:
    """Difference of the arm's mean to the base's, its interval, clear or noise."""
    if arm.name == view.base.name or arm not in view.finished:
        return ["", "", "", ""]
    difference = scores.difference(view.result, arm.name, view.base.name)
    interval = view.interval(arm.name, view.base.name)
    if interval is None:
        return [difference, "", "", ""]
    return [difference, interval.low, interval.high, certainty(interval)]


def claims_csv(found: Sequence[Finding]) -> str:
    """One line for each claim; differences as they are."""
    header = ["claim", "source", "arm", "than", "metric", "expected"]
    header += ["difference", "interval_low", "interval_high", "verdict"]
    lines = []
    for one in found:
        claim, interval = one.claim, one.interval
        ends = ["", ""] if interval is None else [interval.low, interval.high]
        source = "ours" if claim.ours else "document"
        line = [claim.text, source, claim.arm, claim.than, claim.metric]
        lines.append([*line, claim.expected, one.difference, *ends, one.verdict])
    return _csv(header, lines)


def _csv(header: Sequence[str], lines: Sequence[Sequence]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for line in (header, *lines):
        writer.writerow(map(_csv_field, line))
    return text.getvalue()


def _csv_field(value):
    """A value that no spreadsheet takes for a formula; "" for what is no number."""
    if isinstance(value, float | int | np.number):
        return value if math.isfinite(value) else ""
    text = str(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
