"""The tables of a stage: scores, settings, classes, what else is published.

The rows are arms, or classes with a column for each arm. The same numbers as CSV.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from keras_seg.ablation.plans import flat
from keras_seg.ablation.protocol import Arm, ArmResult
from keras_seg.report import scores, statistics, wording
from keras_seg.report.blocks import Cell, Details, Paragraph, Row, Table
from keras_seg.report.families import Simultaneous
from keras_seg.report.view import StageView
from keras_seg.report.wording import percent, percent_short, points

# Between the numbers of a setting
SEPARATORS = {"data.size": " x ", "data.crop": " x ", "augment.scale": " to "}
STATES = {"oom": "out of memory", "missing": "not run yet"}
CLASS_SCORES = {"recall": "Accuracy", "iou": "IoU", "precision": "Precision"}
PUBLISHED_MIOU = "published mIoU %"
DEVIATION = " ±"  # ends the key of a published number's deviation
JUMP_TITLE = "jump at half of the steps, points"
PER_BATCH = "iou_batch_present"  # as VOC07 seems to have averaged
LEVEL = "95 % interval"


# The table of scores


@dataclass(frozen=True)
class Column:
    """A number of each run: how it is written, and which one is best."""

    name: str  # in the CSV file, of a claim's metric, and key of a floor's number
    title: str
    value: Callable[[ArmResult], float]  # of a run that is done; NaN for none
    write: Callable[[float], str]
    best: Callable | None = None  # max or min; None: no value is better than another
    published: str = ""  # key of the document's number that stands below ours
    is_share: bool = False  # in 0..1, and differences are written in points
    is_listed: bool = False  # each training's number is written, not their mean


def score_column(key: str, title: str, published: str | None = None) -> Column:
    """A number of `keras_seg.metrics.summary`."""
    published = key if published is None else published
    value = functools.partial(scores.score, key=key)
    return Column(key, title, value, percent, max, published, is_share=True)


SCORES = (  # of every table
    score_column("miou", "mIoU %", published=""),  # has a column of its own
    score_column("pixel_accuracy", "accuracy %"),
    score_column("f1_macro", "macro F1 %", "f1"),
    score_column("mean_accuracy", "mean class accuracy %"),
)
KEPT_STEP = Column(
    *("kept_step", "kept step", scores.kept_step, wording.whole), is_listed=True
)
LOSS_FALL = Column(
    *("train_loss_fall", "fall of the training loss %", scores.loss_fall, percent),
    is_share=True,
)
COSTS = (
    Column("parameters", "parameters", lambda r: r.parameters, wording.whole, min),
    Column(
        "gflop",
        "GFLOP",
        lambda run: scores.metrics(run).get("gflop", math.nan),
        wording.three_digits,
        min,
    ),
    # No time is marked as best: it depends on what ran beside the arm.
    Column(
        "train_minutes",
        "training, min",
        lambda run: run.timing.get("train_seconds", math.nan) / 60,
        wording.decimal,
    ),
    Column(
        "ms_per_image",
        "ms/image",
        lambda run: run.timing.get("ms_per_image", math.nan),
        wording.decimal,
    ),
)


def columns(view: StageView) -> list[Column]:
    """Those of every stage, and the scores that its document or a claim names."""

    def swapped(run):
        confusion = scores.confusion(run)
        return scores.left_right_confusion(confusion, view.context.flip_pairs)

    gap_title = "train\u00a0−\u00a0val, points"
    swapped_title = "left/right swapped %"
    fixed = [
        *SCORES,
        Column("train_val_gap", gap_title, scores.gap, points, is_share=True),
        # None is best: an arm that finds little mistakes little.
        Column("left_right_swapped", swapped_title, swapped, percent, is_share=True),
        KEPT_STEP,
        *COSTS,
    ]
    known = {name for column in fixed for name in (column.name, column.published)}
    named = [claim.metric for claim in view.stage.claims]
    named += [key for arm in view.arms for key in arm.published]
    more = [
        score_column(key, f"{wording.metric(key)} %")
        for key in dict.fromkeys(named)
        if key in wording.METRICS and key not in known
    ]
    if LOSS_FALL.name in named:
        more.append(LOSS_FALL)
    if "jump" in named:
        more.append(Column("jump", JUMP_TITLE, scores.jump, points, is_share=True))
    if any(PER_BATCH in arm.published for arm in view.arms):
        column = score_column(PER_BATCH, f"{wording.metric(PER_BATCH)} %")
        fixed.insert(1, replace(column, value=scores.batch_iou))
    position = fixed.index(SCORES[-1]) + 1
    return fixed[:position] + more + fixed[position:]


def scores_table(view: StageView) -> Table:
    """Arms and floors with their numbers; what is best and what failed is marked."""
    shown: list[tuple[str, str, Mapping[str, Cell]]] = []
    for column in columns(view):
        cells = _column_cells(view, column)
        if any(cell.text or cell.small for cell in cells.values()):
            shown.append((column.name, column.title, cells))
    published_mious = view.shows_published and any(
        "miou" in arm.published for arm in view.arms
    )
    if shown and published_mious:
        cells = {arm.name: Cell(published(arm, "miou")) for arm in view.arms}
        shown.insert(1, ("", PUBLISHED_MIOU, cells))
    if shown and len(view.arms) > 1:
        cells = {arm.name: _difference_cell(view, arm) for arm in view.arms}
        has_interval = any(cell.small for cell in cells.values())
        title = "against base, points" + (f" [{LEVEL}]" if has_interval else "")
        shown.insert(1, ("", title, cells))
    rows = []
    for arm in view.arms:
        title = Cell(arm.title, tags=_tags(view, arm))
        if arm in view.finished:
            kind = "winner" if arm.name == view.result.winner else ""
            rows.append(Row([title, *(cells[arm.name] for *_, cells in shown)], kind))
        else:
            if published_mious and "miou" in arm.published:
                small = f"published mIoU {published(arm, 'miou')} %"
                title = replace(title, small=small)
            reason = Cell(reasons(view.result.of(arm.name)), span=max(1, len(shown)))
            rows.append(Row([title, reason], "failed"))
    for name, floor in view.floors:
        cells = [Cell(percent(floor.get(key, math.nan))) for key, *_ in shown]
        rows.append(Row([Cell(f"floor: {name}"), *cells], "floor"))
    rows += _rows_of_others(view, [(key, title) for key, title, _ in shown])
    return Table(["Arm", *([title for _, title, _ in shown] or ["Result"])], rows)


def _rows_of_others(view: StageView, shown: Sequence[tuple[str, str]]) -> list[Row]:
    """What the document prints of other authors' studies, by columns (key, title)."""
    if not view.shows_published:
        return []
    rows = []
    for name, numbers in view.stage.others.items():
        cells = [Cell(f"published: {name}")]
        for key, title in shown:
            key = "miou" if title == PUBLISHED_MIOU else key if key != "miou" else ""
            cells.append(Cell(f"{numbers[key]:g}" if key in numbers else ""))
        rows.append(Row(cells, "floor"))
    return rows


def _column_cells(view: StageView, column: Column) -> dict[str, Cell]:
    """{arm: its cell}: mean and spread, the best one marked."""
    values = {
        arm.name: [
            column.value(training)
            for run in scores.done(view.result, arm.name)
            for training in (run.trainings if column.is_listed else [run])
        ]
        for arm in view.arms
    }
    means = [scores.mean(numbers) for numbers in values.values()]
    marked = _best(means, column.write, column.best)
    return {
        arm.name: Cell(
            _with_spread(values[arm.name], column),
            best=is_best,
            small=_small(view, arm, column),
        )
        for arm, is_best in zip(view.arms, marked)
    }


def _best(
    values: Sequence[float], write: Callable[[float], str], best: Callable | None
) -> list[bool]:
    """Which values are written like the best one; none if all are written alike."""
    texts = [write(value) for value in values]
    known = [value for value in values if not math.isnan(value)]
    if best is None or len(set(texts) - {""}) < 2:
        return [False] * len(texts)
    return [text == write(best(known)) for text in texts]


def _with_spread(values: Sequence[float], column: Column) -> str:
    """The mean and, for scores of several seeds, ± their standard deviation."""
    if column.is_listed:
        known = sorted({value for value in values if not math.isnan(value)})
        return ", ".join(map(column.write, known))
    text = column.write(scores.mean(values))
    spread = scores.spread(values)
    if column.best is not max or math.isnan(spread):
        return text
    return f"{text} ± {column.write(spread)}"


def _small(view: StageView, arm: Arm, column: Column) -> str:
    if column is KEPT_STEP:
        return _steps_small(view, arm)
    if column is SCORES[0]:
        return wording.mean_over(scores.done(view.result, arm.name))
    return _published_small(view, arm, column.published)


def _steps_small(view: StageView, arm: Arm) -> str:
    """Of how many steps, and whether more would have raised the score further."""
    runs = scores.done(view.result, arm.name)
    if not runs:
        return ""
    rising = "; still improving" if scores.still_improving(runs) else ""
    return f"of {wording.whole(arm.config.steps)}{rising}"


def _difference_cell(view: StageView, arm: Arm) -> Cell:
    if arm.name == view.base.name:
        return Cell("")
    difference = scores.difference(view.result, arm.name, view.base.name)
    interval = view.evidence.pairs.get((arm.name, view.base.name))
    return Cell(points(difference), small=bracketed(interval))


def bracketed(interval: Simultaneous | None) -> str:
    """[low, high] in points; "" without an interval."""
    return "" if interval is None else between(interval.low, interval.high)


def between(
    low: float, high: float, write: Callable[[float], str] = wording.points
) -> str:
    return f"[{write(low)},\u00a0{write(high)}]"


def certainty(interval: Simultaneous | None) -> str:
    """The verdict in words; "" without an interval."""
    return "" if interval is None else interval.verdict


def seeds(view: StageView, *names: str) -> str:
    """How many trainings of these arms are done."""
    return wording.seeds([len(scores.done(view.result, name)) for name in names])


def _tags(view: StageView, arm: Arm) -> list[str]:
    tags = []
    if len(view.arms) > 1 and arm.name == view.result.winner:
        tags.append("winner")
    if len(view.arms) > 1 and arm.name == view.base.name:
        tags.append("base")
    if arm.name == view.stage.published_winner:
        tags.append("document's choice")
    wanted = len(view.result.of(arm.name))
    finished = len(scores.done(view.result, arm.name))
    if finished:
        part = f"{finished} of {wanted} seeds"
        tags.append(part if finished < wanted else seeds(view, arm.name))
    return tags


def reasons(runs: Sequence[ArmResult]) -> str:
    """What became of runs that are not done, equal ones once."""
    texts = []
    for run in runs:
        state = STATES.get(run.state, run.state)
        texts.append(f"{state}: {run.reason.rstrip('.')}" if run.reason else state)
    return "; ".join(dict.fromkeys(texts))


# How sure the differences are


def comparisons_table(view: StageView) -> list[Table | Paragraph]:
    """Every arm against the base, and the winner's lead, with what they rest on."""
    rows = []
    for (ours, base), each in view.evidence.pairs.items():
        wins = each.comparison.wins
        decide = "" if 1 in each.comparison.seeds else would_decide(view, each)
        cells = [
            Cell(
                f"{view.titles[ours]} against {view.titles[base]}",
                small=seeds(view, ours, base),
            ),
            Cell(points(each.comparison.difference), small=bracketed(each)),
            Cell(wording.p_value(each.p)),
            _permutation_cell(view, ours, base),
            Cell("" if math.isnan(wins) else f"{100 * wins:.0f} %"),
            Cell(each.verdict, best=each.is_clear, small=decide),
        ]
        rows.append(Row(cells))
    for title, difference, interval in corrected(view):
        title = f"winner against {title}, corrected for the choice"
        cells = [Cell(title), Cell(points(difference), small=interval)]
        rows.append(Row([*cells, *[Cell("")] * 4]))
    if not rows:
        return []
    header = ["Difference of mIoU", f"points [{LEVEL}]", "p", "p of permutations"]
    header += ["beats it", "in words"]
    number = len(view.evidence.pairs)
    adjusted = f", for {number} comparisons at once," if number > 1 else ""
    bases = dict.fromkeys(
        each.comparison.basis for each in view.evidence.pairs.values()
    )
    note = f"The {LEVEL}{adjusted} {'; or '.join(bases)}."
    return [Table(header, rows, numbers=False), Paragraph(note, "note")]


def _permutation_cell(view: StageView, ours: str, base: str) -> Cell:
    of_images, of_seeds = view.evidence.permutations(ours, base)
    several = "" if math.isnan(of_seeds) else f"seeds {wording.p_value(of_seeds)}"
    return Cell(f"images {wording.p_value(of_images)}", small=several)


def corrected(view: StageView) -> list[tuple[str, float, str]]:
    """(over which arm, the lead corrected for the choice, its interval), if known."""
    if (found := view.evidence.winner) is None:
        return []
    leads = []
    if found.name != view.base.name:
        leads.append((view.base.title, found.corrected_over_base))
    if found.runner_up != view.base.name:
        leads.append(("the runner-up", found.corrected_over_runner_up))
    return [
        (title, one.difference, between(*one.interval(_level(view))))
        for title, one in leads
    ]


def _level(view: StageView) -> float:
    """Of each interval, for the stage's comparisons at once (Bonferroni)."""
    return 1 - (1 - statistics.LEVEL) / len(view.evidence.pairs)


def would_decide(view: StageView, found: Simultaneous) -> str:
    """How many seeds or images would settle what is open; "" if it is not."""
    if found.verdict != statistics.OPEN:
        return ""
    need = statistics.needed(found.comparison, most=100, level=_level(view))
    if need is None:
        return "to decide, train at least two seeds of each arm"
    if need.images == found.comparison.images:
        return "to decide, repeat the study with other seeds"
    ways = []
    if need.seeds is not None:
        ways.append(f"{need.seeds} seeds")
    if need.images is not None:
        ways.append(f"{wording.whole(need.images)} images")
    if need.both is not None and need.both[0] != need.seeds:
        ways.append(f"{need.both[0]} seeds and {wording.whole(need.both[1])} images")
    if not ways:
        return "too small to be decided by more seeds or images"
    return f"to decide a difference of this size: {', or '.join(ways)}"


# What else is published


def published(arm: Arm, key: str) -> str:
    """A number of the document with its deviation, as printed; "" where it has none."""
    if key not in arm.published:
        return ""
    text = f"{arm.published[key]:g}"
    deviation = arm.published.get(key + DEVIATION)
    return text if deviation is None else f"{text} ± {deviation:g}"


def _published_small(view: StageView, arm: Arm, key: str) -> str:
    text = published(arm, key) if view.shows_published else ""
    return f"published {text}" if text else ""


def other_published(view: StageView) -> Table | None:
    """The document's numbers that no other table of the stage has."""
    shown = {"miou", *(column.published for column in columns(view))}
    shown |= view.context.groups.keys()
    classes = view.context.names
    shown |= {f"{kind} {name}" for kind in CLASS_SCORES for name in classes}
    keys = dict.fromkeys(key for arm in view.arms for key in arm.published)
    rest = [key for key in keys if key not in shown and not key.endswith(DEVIATION)]
    if not rest or not view.shows_published:
        return None
    rows = [
        Row([Cell(arm.title), *(Cell(published(arm, key)) for key in rest)])
        for arm in view.arms
    ]
    return Table(["Arm", *(f"{wording.metric(key)} %" for key in rest)], rows)


# Settings


def settings(arm: Arm) -> dict[str, str]:
    """{path: value} of the arm's configuration."""
    found = {
        path: _setting(value, SEPARATORS.get(path, ", "))
        for path, value in flat(arm.settings())
    }
    weights = "net.init_weights_sha256"
    if arm.pretrained and found.get(weights) != "none":
        found[weights] = f"{found[weights][:12]} ({arm.pretrained})"
    return found


def settings_table(arm: Arm) -> Table:
    rows = [Row([Cell(path), Cell(value)]) for path, value in settings(arm).items()]
    return Table(["Setting", "Value"], rows, numbers=False)


def differences(arms: Sequence[Arm]) -> Table | Paragraph:
    """The settings in which the arms differ."""
    values = [settings(arm) for arm in arms]
    paths = [
        path
        for path in dict.fromkeys(path for one in values for path in one)
        if len({one.get(path, "") for one in values}) > 1
    ]
    if not paths:
        return Paragraph("Nothing: the arms have the same settings.")
    rows = [
        Row([Cell(arm.title), *(Cell(one.get(path, "")) for path in paths)])
        for arm, one in zip(arms, values)
    ]
    return Table(["Arm", *paths], rows, numbers=False)


def _setting(value, separator: str = ", ") -> str:
    if isinstance(value, list | tuple):
        return separator.join(map(_setting, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value == {}:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


# Classes


def class_tables(view: StageView) -> list[Details]:
    """Folded tables, that of the groups or what the document prints first."""
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
    return [Details(title, [table]) for title, table in tables]


def _class_table(view: StageView, kind: str) -> Table:
    values = [scores.per_class(view.result, arm.name, kind) for arm in view.finished]
    pixels = np.asarray(view.context.train_pixels, dtype=float)
    rows = []
    for k, (name, colour) in enumerate(zip(view.context.names, view.palette)):
        share = Cell(f"{100 * pixels[k] / max(1.0, pixels.sum()):.2g}")
        cells = _heat_cells(view, [one[k] for one in values], f"{kind} {name}")
        rows.append(Row([Cell(name, colour=colour), share, *cells]))
    means = [Cell(percent_short(scores.mean(one))) for one in values]
    rows.append(Row([Cell("mean"), Cell(""), *means]))
    return Table(["Class", "training pixels %", *_seeded_titles(view)], rows)


def _group_table(view: StageView) -> Table:
    groups, names = view.context.groups, [arm.name for arm in view.finished]
    values = [scores.grouped_accuracy(view.result, name, groups) for name in names]
    rows = [
        Row([Cell(group), *_heat_cells(view, [one[group] for one in values], group)])
        for group in groups
    ]
    means = [scores.mean_score(view.result, name, "mean_accuracy") for name in names]
    cells = [Cell(percent_short(mean)) for mean in means]
    rows.append(Row([Cell("mean of the classes"), *cells]))
    return Table(["Group", *_seeded_titles(view)], rows)


def _seeded_titles(view: StageView) -> list[str]:
    return [f"{arm.title} ({seeds(view, arm.name)})" for arm in view.finished]


def _heat_cells(view: StageView, values: Sequence[float], key: str) -> list[Cell]:
    """Numbers of one class, an arm each, shaded by height; the best arm bold."""
    marked = _best(values, percent_short, max)
    return [
        Cell(
            percent_short(value),
            best=is_best,
            heat=None if math.isnan(value) else value,
            small=_published_small(view, arm, key),
        )
        for arm, value, is_best in zip(view.finished, values, marked)
    ]


# Rows of CSV files


def scores_rows(view: StageView, folder: Path) -> list[dict]:
    """One row for each run with all its numbers as they are, then the floors."""
    result, names = view.result, view.context.names
    finished = scores.all_done(result)
    keys = [key for run in finished for key in scores.metrics(run)["summary"]]
    keys = list(dict.fromkeys(keys))
    more = [one for one in columns(view) if one.name not in keys]
    printed = dict.fromkeys(key for arm in view.arms for key in arm.published)
    rows = []
    for run in result.results:
        arm, done = run.arm, run.state == "done"
        place = run.run.relative_to(folder) if run.run.is_relative_to(folder) else ""
        row: dict = {"arm": arm.name, "title": arm.title, "seed": run.seed}
        row |= {"state": run.state, "reason": run.reason, "run": place}
        row |= {key: scores.score(run, key) if done else "" for key in keys}
        row |= {one.name: one.value(run) if done else "" for one in more}
        for kind in CLASS_SCORES:
            of_classes = [""] * len(names)
            if done:
                of_classes = scores.metrics(run)["per_class"][kind]
            row |= {f"{kind} {name}": value for name, value in zip(names, of_classes)}
        row |= _difference_fields(view, arm)
        is_winner = arm.name == result.winner
        said = certainty(view.evidence.lead) or "no interval"
        row["winner"] = said if is_winner else ""
        if view.shows_published:
            row |= {f"published_{key}": arm.published.get(key, "") for key in printed}
        rows.append(row)
    for name, floor in view.floors:
        rows.append({"arm": "floor", "title": name} | {k: floor.get(k) for k in keys})
    return [safe(row) for row in rows]


def _difference_fields(view: StageView, arm: Arm) -> dict:
    """Difference of the arm's mean to the base's, and how sure it is."""
    names = ("difference_to_base", "interval_low", "interval_high", "p")
    names += ("p_permuted_images", "p_permuted_seeds", "certainty")
    if arm.name == view.base.name or arm not in view.finished:
        return dict.fromkeys(names, "")
    difference = scores.difference(view.result, arm.name, view.base.name)
    found = view.evidence.pairs.get((arm.name, view.base.name))
    numbers: tuple = ("",) * 5
    if found:
        permuted = view.evidence.permutations(arm.name, view.base.name)
        numbers = (found.low, found.high, found.p, *permuted)
    return dict(zip(names, (difference, *numbers, certainty(found))))


def safe(row: Mapping[str, object]) -> dict[str, object]:
    """The row with no name or text that a spreadsheet takes for a formula."""
    return {_quoted(key): _quoted(value) for key, value in row.items()}


def _quoted(value):
    if value is None or isinstance(value, float | int | np.number):
        return value
    text = str(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
