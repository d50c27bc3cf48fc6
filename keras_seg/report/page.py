"""The report of a study: what each stage asked, what came out, how to repeat it.

This module decides what is said, `tables` and `charts` what is shown, `document` how
it looks. Scores are shown in percent, differences in percentage points; several seeds
as mean ± standard deviation.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from keras_seg import storage
from keras_seg.ablation.protocol import StageResult
from keras_seg.errors import StorageError
from keras_seg.report import charts, claims, scores, tables, wording
from keras_seg.report.claims import Finding
from keras_seg.report.document import (
    Cell,
    Code,
    Details,
    Heading,
    Items,
    Paragraph,
    Row,
    Table,
    pictures,
    to_html,
    to_markdown,
)
from keras_seg.report.intervals import Interval
from keras_seg.report.view import Context, StageView
from keras_seg.storage import write_file

LONG_TABLE = 12  # rows; a longer table of settings is folded away
FEW_CLAIMS = 4  # so many are named in the verdict, more are counted
SPLITS = {"val": "validation", "test": "test", "train": "training"}
REDUCED = {
    "smoke": "A smoke test of a few steps, not comparable with the published numbers.",
    "demo": "A demonstration at reduced size, not comparable with the published "
    "numbers.",
    "bench": "A run at reduced size, not comparable with the published numbers.",
}
OTHER_DATA = "Not comparable with the published numbers: other data."
EXPORT = Path("export") / "saved_model"  # in a run folder
GLOSSARY = (
    "IoU of a class: the pixels that truth and prediction share, divided by the pixels "
    "that either has. mIoU: its mean over the classes; the arm with the highest one on "
    "the validation images wins, also where a stage's numbers are of the test images.",
    "Accuracy: the share of all labelled pixels that are right. It is high wherever a "
    "large class is easy.",
    "Class accuracy: the share of a class' true pixels that are found (recall); the "
    "mean gives a rare class as much say as a frequent one. Macro F1: the mean over "
    "the classes of 2 x shared pixels / (true + predicted pixels).",
    "Two-class IoU: the mean over the foreground classes of (IoU of the class + IoU of "
    "all the rest) / 2, as CLOTH seems to have it.",
    "A class that occurs neither in truth nor in prediction is left out of the means "
    f"and shown as “{'–'}”. Pixels without a label count nowhere.",
    "95 % interval: where the difference lies in 95 % of 2000 new draws of the "
    "images (those of one sequence together) and, with several seeds, of the seeds. "
    "“Clear”: it lies on one side of 0. “Within noise”: it includes 0. That the winner "
    "is the best of several arms is not allowed for: of many equal ones, the luckiest "
    "may look clear.",
    "Claims are the document's; hypotheses are ours, which no document states. One "
    "“holds” or “does not hold” where the interval says so; “about the same” holds "
    f"where it lies within ±{100 * claims.MARGIN:g} point. “Seems to” is said of a "
    "difference without an interval: other images or seeds may turn it round.",
    "Floor: what needs no learning. An arm that is not clearly above it has learnt "
    "little.",
    "Train − val: training mIoU minus validation mIoU at the step that was kept, in "
    "points; a large gap is overfitting. Training mIoU is of the images as augmented, "
    "while the network still learns: stronger augmentation alone lowers it.",
    "Left/right swapped: of the pixels whose part is found, the share that gets the "
    "other side; guessing gives half.",
    "GFLOP: 10⁹ floating-point operations of the convolutions for predicting one image "
    "at the run's size; a multiply-add counts as two.",
    "ms/image: the shortest time of predicting one image on this machine. Like the "
    "time of training, it is longer where arms were trained side by side.",
)


def write(
    folder: Path, *, title: str, stages: Sequence[StageResult], context: Context
) -> Path:
    """Write report.html, report.md, figures/*.png, tables/<stage>.csv.

    And tables/<stage>-claims.csv where the stage has claims. Each file is replaced as
    a whole, the two reports last.

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
    views = [StageView(result, context) for result in stages]
    blocks = _blocks(views, context, folder)
    for view in views:
        path = folder / "tables" / f"{view.stage.name}.csv"
        write_file(path, tables.scores_csv(view, folder))
        if view.stage.claims:
            path = path.with_name(f"{view.stage.name}-claims.csv")
            write_file(path, tables.claims_csv(tables.findings(view)))
    for name, content in pictures(blocks):
        write_file(folder / "figures" / name, content)
    write_file(folder / "report.md", to_markdown(title, blocks, "figures"))
    write_file(folder / "report.html", to_html(title, blocks))
    return folder / "report.html"


def verdict(result: StageResult, context: Context) -> str:
    """A stage's answer in a few plain sentences, the most important one first."""
    view = StageView(result, context)
    paragraph = _verdict(view, tables.findings(view))
    return f"{paragraph.lead} {paragraph.text}".strip()


def _blocks(views: Sequence[StageView], context: Context, folder: Path) -> list:
    runs = [run for view in views for run in view.result.results]
    seeds = len({run.seed for run in runs})
    nets = list(dict.fromkeys(run.arm.config.net.name for run in runs))
    done = sum(run.state == "done" for run in runs)
    facts = (
        f"{'Networks' if len(nets) > 1 else 'Network'} {', '.join(nets)} on "
        f"{context.dataset}, scale {context.scale}, "
        f"{wording.count(seeds, 'seed')} per arm; {done} of "
        f"{wording.count(len(runs), 'run')} done."
    )
    blocks = [Paragraph(facts, "source")]
    if len(views) > 1:
        blocks.append(_contents(views))
    for view in views:
        blocks += _stage_blocks(view, folder)
    blocks += [
        Heading(2, "The data", "data"),
        charts.class_pixels(context),
        Heading(2, "How to reproduce", "reproduce"),
        Code(context.command),
        _environment(context.environment),
        Details("How to read the numbers", [Items(GLOSSARY)]),
    ]
    return blocks


def _contents(views: Sequence[StageView]) -> Table:
    rows = []
    for view in views:
        result = view.result
        winner = view.titles.get(result.winner, "")
        gain, interval = "", ""
        if result.winner not in (None, view.base.name):
            difference = scores.difference(result, result.winner, view.base.name)
            gain = wording.points(difference)
            interval = tables.bracketed(view.interval(result.winner, view.base.name))
        miou = scores.mean_score(result, result.winner, "miou")
        cells = [
            Cell(view.stage.name, link=view.anchor(), small=view.stage.question),
            Cell(winner, small=tables.certainty(view.lead())),
            Cell(wording.percent(miou)),
            Cell(gain, small=interval),
        ]
        rows.append(Row(cells))
    header = ["Stage", "winner", "mIoU %"]
    header.append(f"points above the base [{tables.LEVEL}]")
    return Table(header, rows, numbers=False)


def _environment(environment: Mapping[str, object]) -> Table:
    rows = [
        Row([Cell(name), Cell("not known" if value is None else str(value))])
        for name, value in tables.flat(environment)
    ]
    return Table(["Environment", ""], rows, numbers=False)


# One stage


def _stage_blocks(view: StageView, folder: Path) -> list:
    stage, found = view.stage, tables.findings(view)
    blocks = [
        Heading(2, stage.question, view.anchor()),
        Paragraph(f"Stage {stage.name}; {stage.source}. {view.result.start}", "source"),
        _verdict(view, found),
        tables.scores_table(view),
    ]
    if (other := tables.other_published(view)) is not None:
        blocks += [Heading(3, "Other published numbers"), other]
    said, asked = _by_source(found)
    if said:
        heading = Heading(3, "What the document says")
        blocks += [heading, tables.claims_table(view, said)]
    if asked:
        heading = Heading(3, "What we ask besides" if said else "What we ask")
        blocks += [heading, tables.claims_table(view, asked)]
    if found and (note := _claims_note(view, found)):
        blocks.append(Paragraph(note, "note"))
    if notes := _notes(view):
        blocks.append(Items(notes))
    heading, differences = (
        "What differs between the arms",
        tables.differences(view.arms),
    )
    if len(view.arms) > LONG_TABLE:
        blocks.append(Details(heading, [differences]))
    elif len(view.arms) > 1:
        blocks += [Heading(3, heading), differences]
    styles = view.styles()
    blocks += charts.curves(view, styles)
    if view.finished:
        blocks += tables.class_tables(view)
    blocks += charts.pictures(view)
    blocks += charts.sheets(view)
    if view.finished:
        blocks.append(charts.classes(view, styles))
    title = f"All settings of the base arm, {view.base.title}"
    blocks.append(Details(title, [tables.settings_table(view.base)]))
    blocks += _export(view, folder)
    return blocks


def _verdict(view: StageView, found: Sequence[Finding]) -> Paragraph:
    result = view.result
    if result.winner is None:
        lead = "No arm has finished, so there is no answer yet."
        return Paragraph(_unfinished(result), "verdict", lead)
    sentences = [_certainty(view)]
    if view.floors:
        sentences.append(_above_floor(result, *view.floors[-1]))
    published = view.stage.published_winner
    if published == result.winner:
        sentences.append("The document chose the same arm.")
    elif published in view.titles:
        sentences.append(f"The document chose {view.titles[published]} instead.")
    said, asked = _by_source(found)
    sentences.append(_claims_sentence(said, "the document's", "claim"))
    sentences.append(_claims_sentence(asked, "our own", "hypothesis"))
    sentences += [_unfinished(result), _asked_of_other_data(view)]
    if view.context.scale in REDUCED:
        sentences.append(REDUCED[view.context.scale])
    elif not view.shows_published:
        sentences.append(OTHER_DATA)
    text = " ".join(sentence for sentence in sentences if sentence)
    return Paragraph(text, "verdict", _answer(view))


def _answer(view: StageView) -> str:
    """Which arm won, and by how much."""
    result, titles, base = view.result, view.titles, view.base
    winner = titles[result.winner]
    score = f"{wording.percent(scores.mean_score(result, result.winner, 'miou'))} %"
    score += f" {_split(result)} mIoU"
    if len(titles) == 1:
        return f"{winner} reaches {score}."
    on_val = all(run.chosen_on_val for run in scores.all_done(result))
    verb = "is best on the validation images and has" if on_val else "is best with"
    if result.winner != base.name and not scores.done(result, base.name):
        return (
            f"{winner} {verb} {score}; the base arm, {base.title}, has no result "
            "to compare it with."
        )
    rival = scores.rival(result)
    if rival is None:
        return f"{winner} is the only arm with a result: {score}."
    difference = scores.difference(result, result.winner, rival)
    side = "below" if difference < 0 else "above"  # only where chosen on other images
    lead = f"{100 * abs(difference):.2f} points {side}"
    if result.winner == base.name:
        return f"The base arm, {winner}, {verb} {score}, {lead} {titles[rival]}."
    return f"{winner} {verb} {score}, {lead} the base arm, {base.title}."


def _split(result: StageResult) -> str:
    split = scores.all_done(result)[0].metrics.get("split", result.stage.split)
    return SPLITS.get(split, split)


def _unfinished(result: StageResult) -> str:
    number = sum(run.state != "done" for run in result.results)
    runs = wording.count(len(result.results), "run")
    return f"{number} of {runs} did not finish." if number else ""


def _asked_of_other_data(view: StageView) -> str:
    """Where a stage names the data it is about, and these are others."""
    asked, found = view.stage.datasets, view.context.dataset
    if not asked or found in asked:
        return ""
    return f"Asked of {wording.joined(list(asked))}; these are runs on {found}."


def _certainty(view: StageView) -> str:
    """Whether the winner's lead is clear, and what that rests on."""
    result, rival = view.result, scores.rival(view.result)
    if rival is None:
        return ""
    lead = view.lead()
    if lead is not None:
        return _of_interval(lead)
    spreads = [
        scores.spread(scores.of_seeds(result, name, "miou"))
        for name in (result.winner, rival)
    ]
    if any(math.isnan(spread) for spread in spreads):
        return "With one seed per arm, small differences may be chance."
    if abs(scores.difference(result, result.winner, rival)) <= math.hypot(*spreads):
        return "The difference is within the spread of the seeds."
    return "The difference is larger than the spread of the seeds."


def _of_interval(lead: Interval) -> str:
    low, high = wording.points(lead.low), wording.points(lead.high)
    said = "This is clear" if lead.is_clear else "This is within noise"
    text = f"{said}: the 95 % interval of the difference is {low} to {high} points. "
    basis = f"For it, {lead.basis}"
    if lead.seeds == 1:
        basis += ": with one seed per arm, another start may turn out otherwise"
    return f"{text}{basis}."


def _above_floor(result: StageResult, name: str, floor: Mapping[str, float]) -> str:
    gain = scores.mean_score(result, result.winner, "miou") - floor["miou"]
    who = "the winner" if len(result.arms) > 1 else "this arm"
    start = f"The floor, {name}, has {wording.percent(floor['miou'])} %: {who} is "
    if gain > 0:
        return f"{start}{100 * gain:.1f} points above it."
    return f"{start}no better, so nothing useful was learnt."


def _by_source(found: Sequence[Finding]) -> tuple[list[Finding], list[Finding]]:
    """The document's claims, and our own hypotheses."""
    said = [one for one in found if not one.claim.ours]
    return said, [one for one in found if one.claim.ours]


def _claims_sentence(found: Sequence[Finding], whose: str, what: str) -> str:
    """How many claims of one kind hold; which ones, where they are few."""
    if len(found) == 1:
        (one,) = found
        verdict = "was not run" if one.verdict == claims.NOT_RUN else one.verdict
        return f"{whose[:1].upper()}{whose[1:]} {what} “{one.claim.text}” {verdict}."
    parts = []
    for said in claims.VERDICTS:
        texts = [one.claim.text for one in found if one.verdict == said]
        if not texts:
            continue
        number = len(texts)
        if said == claims.NOT_RUN:
            part = f"{number} {'was' if number == 1 else 'were'} not run"
        else:
            part = f"{number} {said if number == 1 else _plural(said)}"
        if len(found) <= FEW_CLAIMS:
            part += f": {', '.join(f'“{text}”' for text in texts)}"
        parts.append(part)
    if not parts:
        return ""
    listed = "; ".join(parts) if len(found) <= FEW_CLAIMS else wording.joined(parts)
    return f"Of {whose} {wording.count(len(found), what)}, {listed}."


def _plural(said: str) -> str:
    for one, several in (("holds", "hold"), ("does ", "do "), ("seems ", "seem ")):
        if said.startswith(one):
            return several + said.removeprefix(one)
    return said


def _claims_note(view: StageView, found: Sequence[Finding]) -> str:
    """Why a verdict here may not be one on the document, nor on other seeds."""
    sentences = []
    if view.context.scale in REDUCED:
        sentences.append(
            "This is held against these runs, which are smaller and shorter than the "
            "document's: what does not hold here may hold there."
        )
    elif not view.shows_published:
        sentences.append("This is held against other data than the document's.")
    intervals = [one.interval for one in found if one.interval is not None]
    if any(interval.seeds == 1 for interval in intervals):
        sentences.append(
            "With one seed per arm, the intervals know of other images, not of other "
            "trainings."
        )
    return " ".join(sentences)


def _notes(view: StageView) -> list[str]:
    """The arms' notes, equal ones together, and the seeds a mean lacks."""
    titles: dict[str, list[str]] = {}
    for arm in view.arms:
        if arm.note:
            titles.setdefault(arm.note, []).append(arm.title)
    notes = [f"{', '.join(names)}: {note}" for note, names in titles.items()]
    for run in view.result.results:
        if run.state != "done" and scores.done(view.result, run.arm.name):
            notes.append(f"{run.arm.title}, seed {run.seed}: {tables.reasons([run])}")
    return notes + [f"No interval: {damage}" for damage in view.damaged]


def _export(view: StageView, folder: Path) -> list:
    """Where the exported model of the winner is, and how it was checked."""
    if not view.stage.exports or view.result.winner is None:
        return []
    for run in scores.done(view.result, view.result.winner):
        record = run.run / EXPORT / "export.json"
        if record.is_file():
            found = storage.read_json(record)
            place = run.run / EXPORT
            if place.is_relative_to(folder):
                place = place.relative_to(folder)
            return [Heading(3, "Exported model"), _export_paragraph(place, found)]
    return []


def _export_paragraph(place: Path, record: Mapping) -> Paragraph:
    check = record.get("check", {})
    height, width = record["size"]
    text = (
        f"{place} is a SavedModel that takes uint8 images of {height} x {width} px as "
        "they are and gives class ids and probabilities. Compared with the network on "
        f"{wording.count(check.get('images', 0), 'image')}, its probabilities differ "
        f"by at most {check.get('largest_difference', math.nan):.2g}."
    )
    return Paragraph(text)
