"""A stage's answer in a few sentences, the most important one first."""

import math
from collections.abc import Sequence

from keras_seg.report import claims, scores, statistics, tables, wording
from keras_seg.report.blocks import Paragraph
from keras_seg.report.claims import Finding
from keras_seg.report.families import Simultaneous
from keras_seg.report.view import StageView
from keras_seg.runs import folder as run_folder

FEW_CLAIMS = 4  # so many are quoted in the verdict, more are counted
REDUCED = {
    "smoke": "A smoke test of a few steps, not comparable with published numbers.",
    "demo": "A demonstration at reduced size, not comparable with published numbers.",
    "bench": "A run at reduced size, not comparable with published numbers.",
}
ALTERED = "Not comparable with the published numbers"
OTHER_DATA = f"{ALTERED}, which are for other data."
COSTS = {  # the columns `tables.COSTS` in words
    "parameters": "parameters",
    "gflop": "operations",
    "train_minutes": "training time",
    "ms_per_image": "time per image",
}
VERBS = {claims.OPEN: " is ", claims.NOT_MEASURED: " was ", claims.NOT_RUN: " was "}
VERBS |= {claims.FOR_SO_FAR: ": ", claims.AGAINST_SO_FAR: ": "}


def verdict(view: StageView, found: Sequence[Finding]) -> Paragraph:
    """Who won, how sure that is, and which claims hold; `found` are the claims'."""
    result = view.result
    unfinished = sum(run.state != "done" for run in result.results)
    runs = wording.count(len(result.results), "run")
    waiting = sum(run.state == "missing" for run in result.results)
    missing = f"{unfinished} of {runs} did not finish." if unfinished else ""
    if waiting and waiting == unfinished:
        missing = f"{waiting} of {runs} still to come."
    if result.winner is None:
        lead = "No arm has finished, so there is no answer yet."
        return Paragraph(missing, "verdict", lead)
    said, asked = split_by_source(found)
    sentences = [
        _certainty(view),
        _still_improving(view),
        _costs(view),
        _above_floor(view),
        _document_choice(view),
        *_against_others(view),
        _claims_sentence(said, _whose(view), "claim"),
        _claims_sentence(asked, "Our own", "hypothesis"),
        missing,
        _environments(view),
        _other_data(view),
    ]
    if view.context.scale in REDUCED:
        sentences.append(REDUCED[view.context.scale])
    elif view.altered:
        sentences.append(f"{ALTERED}: {view.altered}.")
    elif not view.shows_published and not view.context.is_own:
        sentences.append(OTHER_DATA)
    text = " ".join(sentence for sentence in sentences if sentence)
    return Paragraph(text, "verdict", _answer(view))


def _whose(view: StageView) -> str:
    return "The study's" if view.context.is_own else "The document's"


def split_by_source(found: Sequence[Finding]) -> tuple[list[Finding], list[Finding]]:
    """The document's claims, and our own hypotheses."""
    said = [one for one in found if not one.claim.ours]
    return said, [one for one in found if one.claim.ours]


def claims_note(view: StageView, found: Sequence[Finding]) -> str:
    """What limits the verdicts on the claims; "" if nothing does."""
    sentences = []
    if view.context.scale in REDUCED:
        sentences.append(
            "These runs are smaller and shorter than the document's: what speaks "
            "against a claim here may not do so there."
        )
    elif view.altered:
        sentences.append(f"These are not the document's runs: {view.altered}.")
    elif not view.shows_published and not view.context.is_own:
        sentences.append("These runs are on other data than the document's.")
    if any(
        one.interval is not None and 1 in one.interval.comparison.seeds for one in found
    ):
        sentences.append(
            "With one seed of an arm, the intervals cover the choice of images but "
            "not the randomness of training."
        )
    return " ".join(sentences)


def _answer(view: StageView) -> str:
    """Which arm won, and by how much."""
    result, titles, base = view.result, view.titles, view.base
    winner = titles[result.winner or ""]
    miou = wording.percent(scores.mean_score(result, result.winner, "miou"))
    split = scores.metrics(scores.all_done(result)[0]).get("split", result.stage.split)
    over = wording.mean_over(scores.done(result, result.winner or ""))
    score = (
        "out-of-fold" if base.config.data.folds else wording.SPLITS.get(split, split)
    )
    score = f"{score} mIoU{over and f' {over}'}"
    rival = scores.rival(result)
    if len(titles) == 1:
        return f"{winner} reaches {miou} % {score}."
    if result.winner == base.name and rival is None:
        return f"{winner} is the only arm with a result: {miou} % {score}."
    if all(run.chosen_on_val for run in scores.all_done(result)):
        text = f"is best on the validation images and reaches {miou} % {score}"
    else:
        text = f"has the highest {score}, {miou} %"
    if rival is None:
        return (
            f"{winner} {text}. The base arm, {base.title}, has no result to compare "
            "it with."
        )
    difference = scores.difference(result, result.winner, rival)
    side = "below" if difference < 0 else "above"  # only where chosen on other images
    lead = f"{100 * abs(difference):.2f} points {side}"
    if result.winner == base.name:
        return f"The base arm, {winner}, {text}, {lead} {titles[rival]}."
    return f"{winner} {text}, {lead} the base arm, {base.title}."


def _certainty(view: StageView) -> str:
    """How sure the winner's lead is, and what that rests on."""
    result, rival = view.result, scores.rival(view.result)
    if rival is None:
        return ""
    if (lead := view.evidence.lead) is not None:
        return " ".join(filter(None, _lead_sentences(view, lead, view.titles[rival])))
    spreads = [
        scores.spread(scores.of_seeds(result, name, "miou"))
        for name in (result.winner or "", rival)
    ]
    if any(math.isnan(spread) for spread in spreads):
        return "With one seed per arm, small differences may be chance."
    if abs(scores.difference(result, result.winner, rival)) <= math.hypot(*spreads):
        return "The difference is within the spread of the seeds."
    return "The difference is larger than the spread of the seeds."


def _lead_sentences(view: StageView, lead: Simultaneous, rival: str) -> list[str]:
    winner = view.titles[view.result.winner or ""]
    if lead.verdict == statistics.OPEN:
        said = "Which of the two is better is open"
    else:
        said = f"{winner} is {lead.verdict}"
    low, high = wording.points(lead.low), wording.points(lead.high)
    sentences = [
        f"{said}: the 95 % interval of the difference is {low} to {high} points (p: "
        f"{wording.p_value(lead.p)}). The interval {lead.comparison.basis}."
    ]
    for (ours, other), each in view.evidence.pairs.items():
        if view.base.name not in (ours, other):
            gain = wording.points(each.comparison.difference)
            sentences.append(
                f"Over the runner-up, {view.titles[other]}, the lead is {gain} points "
                f"{tables.bracketed(each)}: {each.verdict}."
            )
    leads = [
        f"{wording.points(difference)} points {interval} over {title}"
        for title, difference, interval in tables.corrected(view)
    ]
    if leads:
        sentences.append(
            "Corrected for having been chosen on these images, the lead is "
            f"{wording.joined(leads)}."
        )
    if not math.isnan(lead.comparison.wins):
        sentences.append(
            f"On new images, a new training of {winner} beats one of {rival} with a "
            f"chance of {100 * lead.comparison.wins:.0f} %."
        )
    if decide := tables.would_decide(view, lead):
        sentences.append(f"{decide[:1].upper()}{decide[1:]}.")
    return sentences


def _still_improving(view: StageView) -> str:
    """How many arms had not been trained to their end."""
    rising = [
        scores.still_improving(scores.done(view.result, arm.name))
        for arm in view.finished
    ]
    if len(rising) < 2:
        return "It was still improving at its last step." if any(rising) else ""
    if None in rising:
        return "One validation per run does not tell whether arms still improved."
    number = rising.count(True)
    if number == 0:
        return ""
    return (
        f"{number} of {len(rising)} arms {'was' if number == 1 else 'were'} still "
        "improving at the last step: their order may change with longer training."
    )


LITTLE = 0.05  # of a cost: less is not worth a word, times vary as much


def _costs(view: StageView) -> str:
    """What the winner is worse in than the arm it beats: scores, time, parameters."""
    result, rival = view.result, scores.rival(view.result)
    if rival is None or result.winner is None:
        return ""
    shares = [
        column
        for column in tables.columns(view)
        if column.best is max and column.name in statistics.SCORES
    ]
    family = view.evidence.family(
        [(result.winner, rival, column.name) for column in shares]
    )
    costs = []
    for column in shares:
        ours, other = (
            scores.mean_score(result, name, column.name)
            for name in (result.winner, rival)
        )
        if ours < other and column.name != "miou":
            name = wording.metric(column.name)
            found = family.get((result.winner, rival, column.name))
            sure = f" ({found.verdict})" if found else ""
            costs.append(f"{100 * (other - ours):.2f} points of {name}{sure}")
    for column in tables.COSTS:
        ours, other = (
            scores.mean([column.value(run) for run in scores.done(result, name)])
            for name in (result.winner, rival)
        )
        if ours > (1 + LITTLE) * other:
            title = COSTS[column.name]
            costs.append(f"{wording.three_digits(ours / other)} times the {title}")
    winner, against = view.titles[result.winner], view.titles[rival]
    if not costs:
        return (
            f"Against {against}, {winner} costs nothing: no other score is lower, no "
            "time or number of parameters higher."
        )
    return f"Against {against}, {winner} costs {wording.joined(costs)}."


def _above_floor(view: StageView) -> str:
    if not view.floors:
        return ""
    name, floor = view.floors[-1]
    miou = scores.mean_score(view.result, view.result.winner, "miou")
    who = "the winner" if len(view.arms) > 1 else "this arm"
    start = f"The floor, {name}, scores {wording.percent(floor['miou'])} %: {who} is "
    if miou > floor["miou"]:
        return f"{start}{100 * (miou - floor['miou']):.1f} points above it."
    return f"{start}no better and has learned nothing useful."


def _document_choice(view: StageView) -> str:
    published = view.stage.published_winner
    if published == view.result.winner:
        return "The document chose the same arm."
    if published in view.titles:
        return f"The document chose {view.titles[published]}."
    return ""


def _against_others(view: StageView) -> list[str]:
    """How many of the other studies in the document's table its arms are above."""
    if not view.shows_published or not view.stage.others:
        return []
    numbers = view.stage.others.values()
    sentences = []
    for arm in (arm for arm in view.finished if arm.published):
        counts = []
        for key in arm.published:
            known = [row[key] for row in numbers if key in row]
            found = 100 * scores.mean_score(view.result, arm.name, key)
            if known and not math.isnan(found):
                above = sum(found > number for number in known)
                counts.append(f"{above} of {len(known)} in {wording.metric(key)}")
        if counts:
            studies = wording.count(len(numbers), "study")
            sentences.append(
                f"Of the {studies} that the document compares itself with, {arm.title} "
                f"is above {wording.joined(counts)}."
            )
    return sentences


def scored_at(view: StageView) -> str:
    """On which images, and at which size, the stage's numbers are; "" without any."""
    runs = scores.all_done(view.result)
    if not runs:
        return ""
    measured = scores.metrics(runs[0])
    split = measured.get("split", view.stage.split)
    sizes = dict.fromkeys(run.arm.config.data.size for run in runs)
    where = f"at {wording.joined([wording.size(size) for size in sizes])}"
    if measured.get("full_size"):
        size = view.context.image_size
        where = "at the size of each label" + (
            f", {wording.size(size)}" if size else ""
        )
    elif len(sizes) > 1:
        where = f"each arm at its own size, {where.removeprefix('at ')}"
    on = f"the {wording.SPLITS.get(split, split)} images"
    if folds := runs[0].arm.config.data.folds:
        number = wording.whole(measured["images"])
        on = f"all {number} images, out of fold ({folds} folds)"
    return f"Scored on {on}, {where}."


def _environments(view: StageView) -> str:
    """Where the arms were not all trained on one machine with one set of versions."""
    runs = [
        training.run
        for run in scores.all_done(view.result)
        for training in run.trainings
    ]
    changes = run_folder.environment_changes(runs)
    if not changes:
        return ""
    return (
        f"The arms were not trained in one environment ({wording.joined(changes)} "
        "differ; see Environment below), which may be part of their differences."
    )


def _other_data(view: StageView) -> str:
    """Where a stage names the data it is about, and these are others."""
    asked, found = view.stage.datasets, view.context.dataset
    if not asked or found in asked:
        return ""
    return f"The question is about {wording.joined(asked)}; these runs are on {found}."


def _claims_sentence(found: Sequence[Finding], whose: str, what: str) -> str:
    """The verdicts on claims of one kind; where they are many, how often each."""
    if not found:
        return ""
    verdicts = [
        f"“{one.claim.text}”{VERBS.get(one.verdict, ' ')}{one.verdict}" for one in found
    ]
    if len(found) == 1:
        return f"{whose} {what} {verdicts[0]}."
    given = [one.verdict for one in found]
    if len(found) > FEW_CLAIMS:
        known = [each for each in claims.VERDICTS if each in given]
        verdicts = [f"{given.count(each)} × {each}" for each in known]
    return f"{whose} {wording.count(len(found), what)}: {'; '.join(verdicts)}."
