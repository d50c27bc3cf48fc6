"""The report of a study: what each stage asked, the answer, how to repeat it.

This module decides what stands where; `verdict`, `tables` and `charts` make the parts
and `blocks` renders them. Scores are in percent, differences in percentage points,
several seeds as mean ± standard deviation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from keras_seg import storage
from keras_seg.ablation.plans import flat
from keras_seg.ablation.protocol import ArmResult, StageResult
from keras_seg.data import folds
from keras_seg.data.summary import summarise
from keras_seg.report import (
    charts,
    claims,
    disputed,
    lengths,
    scores,
    tables,
    wording,
)
from keras_seg.report.blocks import (
    NO_VALUE,
    Cell,
    Details,
    Heading,
    Items,
    Link,
    Links,
    Paragraph,
    Row,
    Table,
    figure_files,
    to_html,
    to_markdown,
)
from keras_seg.report.claims_table import claims_rows, claims_table, findings
from keras_seg.report.grouping import FEWEST_GROUPS
from keras_seg.report.verdict import (
    claims_note,
    scored_at,
    split_by_source,
    verdict,
)
from keras_seg.report.view import Context, StageView
from keras_seg.runs import export

EXPORT = Path("export") / "saved_model"  # in a run folder
MORE = "(docs/explanation/verdicts.md)"
GLOSSARY = (
    "IoU of a class: the pixels that truth and prediction share, divided by the pixels "
    "that either has. mIoU is the mean over the classes. The arm with the highest mIoU "
    "on the validation images wins, even where the stage's numbers are for the test "
    "images.",
    "Accuracy: the share of all labelled pixels that are right. It is high wherever a "
    "large class is easy.",
    "Class accuracy: the share of a class' true pixels that are found (recall). Its "
    "mean gives rare and frequent classes equal weight. Macro F1: the mean over the "
    "classes of 2 x shared pixels / (true + predicted pixels).",
    "Two-class IoU: the mean over the foreground classes of (IoU of the class + IoU of "
    "everything else) / 2, probably the measure of CLOTH.",
    "A class that occurs in neither truth nor prediction is left out of the means and "
    f"shown as “{NO_VALUE}”. Pixels without a label are not counted.",
    "95 % interval: in 95 % of studies like this, all intervals of a table at once "
    "contain the true differences. It covers the choice of images, neighbouring images "
    "of a video not counting as independent, and with several seeds the randomness of "
    f"training. {MORE}",
    "p: the chance of a difference this large if there were none, adjusted for the "
    "number of comparisons. “Clearly” ahead or behind: at most 0.05, with at least two "
    f"seeds of both arms and images worth {FEWEST_GROUPS} independent ones. “Open”: "
    "above 0.05. “On these images” marks a difference that one seed or few images "
    f"cannot settle. {MORE}",
    "p of permutations: how often a difference this large comes out where the arms' "
    "names are exchanged at random, in groups of images or between trainings; for each "
    "comparison alone. Three seeds of each arm cannot fall below 0.1.",
    "Still improving: the best of an arm's validation mIoU, averaged over its seeds, "
    "is in the last quarter of its validations, whose mean is at least 1 % of itself "
    f"above that of the quarter before. {MORE}",
    "Beats it: the chance that a new training scores higher than a new one of the "
    "other arm on as many new images. Corrected for the choice: the best of several "
    "arms is partly the luckiest, so the lead is measured anew on images and trainings "
    f"that had no part in the choice. {MORE}",
    "Would decide: the seeds of each arm, or images, with which a study finds a true "
    f"difference of this size clear in 80 % of cases. {MORE}",
    "Claims are the document's; hypotheses are our own. One “holds” or “does not hold” "
    "where the interval decides; “about the same” holds where all of it is within "
    f"±{100 * claims.MARGIN:g} point or the margin stated. “Seems to” marks what one "
    "seed, few images or a number without counts per image suggest. Runs smaller than "
    "the document's, of arms that still improve, only tell what is “as the document "
    f"says so far” or “against it so far”. {MORE}",
    "Floor: the score of a prediction that needs no learning. An arm that is not "
    "clearly above it has learned little.",
    "Train − val: training mIoU minus validation mIoU at the step that was kept, in "
    "points. A large gap means overfitting. Training mIoU is measured on augmented "
    "images while the network still learns, so stronger augmentation alone lowers it.",
    "Jump at half of the steps: the mean validation mIoU over the tenth of the steps "
    "after half of them, minus that over the tenth before.",
    "Left/right swapped: of the pixels whose part is found, the share that gets the "
    "other side. Guessing gives half.",
    "GFLOP: 10⁹ floating-point operations of the convolutions for predicting one image "
    "at the run's size. A multiply-add counts as two.",
    "ms/image: the shortest time of predicting one image on this machine. Both times "
    "are longer where arms were trained side by side.",
)


OUT_OF_FOLD = (
    "Out of fold: the images are divided into folds, and for each an arm is trained on "
    "the others. So every image is scored once for each seed, by a training that never "
    f"saw it, and the trainings of the folds count as one. {MORE}"
)
OF_DOCUMENTS = ("Claims are the document's", "Two-class IoU")  # in the glossary


@dataclass(frozen=True)
class Written:
    """A report that was written.

    Attributes:
        path: of report.html.
        answers: {stage: the verdict that opens its part, in one line}.
        left_out: what it lacks because a file is damaged, in sentences.
    """

    path: Path
    answers: Mapping[str, str] = field(default_factory=dict)
    left_out: Sequence[str] = ()


class Part(NamedTuple):
    """A stage in the report, with what is said of it."""

    view: StageView
    findings: Sequence[claims.Finding]
    verdict: Paragraph


def write(
    folder: Path, *, title: str, stages: Sequence[StageResult], context: Context
) -> Written:
    """Write report.html, report.md, figures and tables.

    tables/<stage>.csv has the scores, <stage>-claims.csv what became of the claims.
    Each file is replaced as a whole, the two reports last.

    Raises:
        StorageError: the disk is full or not writable.
    """
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        (folder / "tables").mkdir(exist_ok=True)
    except OSError as error:
        raise storage.storage_error(error, folder) from error
    others = {result.stage.name: result for result in stages}
    views = [StageView(result, context, others) for result in stages]
    parts = []
    for view in views:
        found = findings(view)
        parts.append(Part(view, found, verdict(view, found)))
    blocks = _blocks(parts, context, folder)
    for view, found, _ in parts:
        path = folder / "tables" / f"{view.stage.name}.csv"
        storage.write_table(path, tables.scores_rows(view, folder))
        if view.stage.claims:
            path = path.with_name(f"{view.stage.name}-claims.csv")
            storage.write_table(path, claims_rows(found))
    for name, content in figure_files(blocks):
        storage.write_file(folder / "figures" / name, content)
    storage.write_file(folder / "report.md", to_markdown(title, blocks, "figures"))
    storage.write_file(folder / "report.html", to_html(title, blocks))
    return Written(
        folder / "report.html",
        {
            view.stage.name: f"{said.lead} {said.text}"  # as it opens its part
            for view, _, said in parts
        },
        list(dict.fromkeys(line for view in views for line in view.left_out)),
    )


def _blocks(parts: Sequence[Part], context: Context, folder: Path) -> list:
    views = [part.view for part in parts]
    results = [run for view in views for run in view.result.results]
    runs = [training for result in results for training in result.trainings]
    nets = list(dict.fromkeys(run.arm.config.net.name for run in runs))
    seeds = wording.count(len({run.seed for run in runs}), "seed")
    done = sum(run.state == "done" for run in runs)
    scale = "" if context.is_own else f", scale {context.scale}"
    divided = ""
    if (number := scores.folds(runs)) is not None:
        images = wording.count(context.images["val"], "image")
        divided = f" and {number} folds, out of fold over {images}"
    facts = (
        f"{'Networks' if len(nets) > 1 else 'Network'} {', '.join(nets)} on "
        f"{context.dataset}{scale}, {seeds} per arm{divided}; {done} of "
        f"{wording.count(len(runs), 'run')} done."
    )
    blocks: list = [
        Paragraph(facts, "source"),
        Paragraph(_length(runs, context), "source"),
    ]
    sources = " ".join(view.stage.source for view in views)
    for name, document in wording.DOCUMENTS.items():
        if name in sources:
            blocks.append(Paragraph(f"{name}: {document}.", "source"))
    if len(views) > 1:
        blocks.append(_contents(views))
    for part in parts:
        blocks += _stage_blocks(part, folder)
    return [
        *blocks,
        Heading(2, "The data", "data"),
        *_data(context),
        charts.data_figure(context),
        Heading(2, "How to reproduce", "reproduce"),
        Paragraph(context.command, "code"),
        Details("Environment", [_environment(context.environment)]),
        Details("How to read the numbers", [Items(_glossary(context, number))]),
    ]


def _glossary(context: Context, number: int | None) -> Sequence[str]:
    """The words of a report, with `number` folds if that is not None."""
    found = GLOSSARY if number is None else (*GLOSSARY[:1], OUT_OF_FOLD, *GLOSSARY[1:])
    if not context.is_own:
        return found
    return [text for text in found if not text.startswith(OF_DOCUMENTS)]


def _length(runs: Sequence[ArmResult], context: Context) -> str:
    """How far the arms were trained: image size, steps, epochs, images."""
    configs = [run.arm.config for run in runs]
    sizes = dict.fromkeys("{} x {}".format(*each.data.size) for each in configs)
    steps = sorted({each.steps for each in configs})
    batches = sorted({each.data.batch * each.optimizer.accumulate for each in configs})
    text = (
        f"Images of {wording.joined(list(sizes))} px; {wording.span(steps)} steps of "
        f"{wording.span(batches)} images"
    )
    train, val = context.images.get("train"), context.images.get("val")
    if not train:
        return f"{text}."
    if number := scores.folds(runs):
        train -= round(train / number)
    epochs = [
        each.steps * each.data.batch * each.optimizer.accumulate / each.data.used(train)
        for each in configs
    ]
    fewest, *more = sorted({each.data.used(train) for each in configs})
    counted = wording.count(fewest, "training image")
    if more:
        counted = f"{fewest:,} to {wording.count(more[-1], 'training image')}"
    if number:
        counted = f"about {counted}, all but those of a fold"
    elif val:
        counted += f", {wording.count(val, 'validation image')}"
    return f"{text}: {wording.span(sorted(epochs))} epochs of {counted}."


def _data(context: Context) -> list[Items]:
    """What was told of the prepared folder before it was trained on."""
    if context.prepared is None:
        return []
    summary = summarise(folds.divide(context.prepared, None))
    return [Items([*summary.lines, *(f"Warning: {one}" for one in summary.warnings)])]


def _contents(views: Sequence[StageView]) -> Table:
    rows = []
    for view in views:
        result, base = view.result, view.base.name
        winner, gain, interval = view.titles.get(result.winner or "", ""), "", ""
        if result.winner not in (None, base):
            gain = wording.points(scores.difference(result, result.winner, base))
            interval = tables.bracketed(view.evidence.lead)
        miou = scores.mean_score(result, result.winner, "miou")
        trained = tables.seeds(view, result.winner) if result.winner else ""
        over = wording.mean_over(scores.done(result, result.winner or ""))
        cells = [
            Cell(view.stage.name, link=view.anchor(), small=view.stage.question),
            Cell(winner, small=tables.certainty(view.evidence.lead)),
            Cell(wording.percent(miou), small=", ".join(filter(None, [over, trained]))),
            Cell(gain, small=interval),
        ]
        rows.append(Row(cells))
    last = f"points above the base [{tables.LEVEL}]"
    return Table(["Stage", "winner", "mIoU %", last], rows, numbers=False)


def _environment(environment: Mapping[str, object]) -> Table:
    rows = [
        Row([Cell(name), Cell("not known" if value is None else str(value))])
        for name, value in flat(environment)
    ]
    return Table(["Environment", ""], rows, numbers=False)


def _stage_blocks(part: Part, folder: Path) -> list:
    """The answer, the scores, curves and pictures; everything else is folded."""
    view, found, said = part
    stage = view.stage
    origin = f"Stage {stage.name}" + (f"; {stage.source}" if stage.source else "")
    lines = [Paragraph(f"{origin}. {view.result.start} {scored_at(view)}", "source")]
    blocks = [
        Heading(2, stage.question, view.anchor()),
        *(lines if stage.source or not view.context.is_own else []),
        said,
        *_next_steps(view),
        tables.scores_table(view),
        *tables.comparisons_table(view),
    ]
    shown = [
        *_claims(view, found),
        *charts.curves(view),
        *lengths.blocks(view, found),
        *charts.costs(view),
        *charts.pictures(view),
        *disputed.blocks(view),
    ]
    if notes := [*_notes(view), *view.left_out]:  # known once all was read
        blocks.append(Items(notes))
    blocks += shown
    blocks.append(Heading(3, "Details"))
    if len(view.arms) > 1:
        title = "What differs between the arms"
        blocks.append(Details(title, [tables.differences(view.arms)]))
    if (other := tables.other_published(view)) is not None:
        blocks.append(Details("Other published numbers", [other]))
    if view.finished:
        blocks += tables.class_tables(view)
        blocks.append(charts.class_figures(view))
    blocks += charts.sheets(view)
    title = f"All settings of the base arm, {view.base.title}"
    blocks.append(Details(title, [tables.settings_table(view.base)]))
    return blocks + _files(view, folder) + _export(view, folder)


def _next_steps(view: StageView) -> list:
    """Ready commands, each with what it is for."""
    steps = view.context.next_steps.get(view.stage.name, ())
    lines = [f"# {what}\n{command}" for what, command in steps]
    return (
        [Details("What next", [Paragraph("\n".join(lines), "code")])] if lines else []
    )


def _files(view: StageView, folder: Path) -> list:
    """Links to the tables, to what the winner's run holds, and to the other arms."""
    links = [Link(f"tables/{view.stage.name}.csv", f"tables/{view.stage.name}.csv")]
    for run in scores.done(view.result, view.result.winner or "")[:1]:
        if not run.run.is_relative_to(folder):
            continue
        place = run.run.relative_to(folder).as_posix()
        notes = {
            "config.json": "the winner's settings, for --config",
            "best": "its weights",
            "history.csv": "its scores during training",
            "log.txt": "what it said",
        }
        links += [
            Link(f"{place}/{name}", f"{place}/{name}", note)
            for name, note in notes.items()
            if (run.run / name).exists()
        ]
    for arm in view.finished:
        place = scores.done(view.result, arm.name)[0].run
        if arm.name != view.result.winner and place.is_relative_to(folder):
            address = place.relative_to(folder).as_posix()
            links.append(Link(f"{address}/", f"{address}/", f"the run of {arm.title}"))
    return [Details("Files", [Links(links)])]


def _claims(view: StageView, found: Sequence[claims.Finding]) -> list[Details]:
    said, asked = split_by_source(found)
    source = "Claims" if view.context.is_own else "Claims of the document"
    note = [Paragraph(text, "note")] if (text := claims_note(view, found)) else []
    return [
        Details(title, [claims_table(view, some), *note])
        for title, some in ((source, said), ("Our hypotheses", asked))
        if some
    ]


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
    return notes


def _export(view: StageView, folder: Path) -> list:
    """Where the exported model of the winner is, and how it was checked."""
    if not view.stage.exports or view.result.winner is None:
        return []
    for run in scores.done(view.result, view.result.winner):
        place = run.run / EXPORT
        if (place / "export.json").is_file():
            record = export.read_record(place)
            check = record["check"]
            height, width = record["size"]
            if place.is_relative_to(folder):
                place = place.relative_to(folder)
            text = (
                f"{place} is a SavedModel that takes uint8 images of {height} x "
                f"{width} px and returns class ids and probabilities. On "
                f"{wording.count(check['images'], 'image')}, its probabilities differ "
                f"from the network's by at most {check['largest_difference']:.2g}."
            )
            return [Heading(3, "Exported model"), Paragraph(text)]
    return []
