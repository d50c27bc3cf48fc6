"""How a stage's answer depends on how long its arms were trained.

What its trainings scored up to each validation tells what they would have scored had
they ended there, but for the learning rate, which a schedule would have lowered by
then. So the curves of one stage stand for several shorter stages.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from keras_seg.ablation.protocol import ArmResult, Claim
from keras_seg.report import claims, scores, wording
from keras_seg.report.blocks import Cell, Heading, Paragraph, Row, Table
from keras_seg.report.statistics import region
from keras_seg.report.view import StageView

MOST_ROWS = 8  # lengths that a table shows
SHARES = (0.25, 0.5, 0.75, 1.0)  # of the steps, at which claims are looked at


@dataclass(frozen=True)
class Lengths:
    """What each arm scored up to each validation.

    Attributes:
        steps: int [V], ascending, of the validations.
        best: {arm: {seed: [V]}} best validation mIoU so far, in 0..1.
        means: {arm: [V]}, over the seeds.
    """

    steps: np.ndarray
    best: Mapping[str, Mapping[int, np.ndarray]]
    means: Mapping[str, Sequence[float]]

    def order(self, number: int) -> list[str]:
        """The arms at a validation, the best first."""
        return sorted(self.means, key=lambda name: -self.means[name][number])

    def seeds_led(self, number: int) -> tuple[int, int]:
        """In how many seeds the leader of the means leads, of those all arms have."""
        common = set.intersection(*(set(seeds) for seeds in self.best.values()))
        leader = self.order(number)[0]
        led = [
            max(self.best, key=lambda name: self.best[name][seed][number]) == leader
            for seed in common
        ]
        return sum(led), len(led)


def of_stage(view: StageView) -> Lengths | None:
    """None where fewer than two arms, or two validations, can be compared.

    Nor can arms of different lengths. A training that ended early, without patience
    for more, keeps its best.
    """
    runs = {arm.name: scores.done(view.result, arm.name) for arm in view.finished}
    curves = {
        (name, run.seed): [_curve(one) for one in run.trainings]
        for name, some in runs.items()
        for run in some
    }
    every = [curve for some in curves.values() for curve in some]
    if len(runs) < 2 or not all(every):
        return None
    if len({arm.config.steps for arm in view.finished}) > 1:
        return None
    last = max(max(curve) for curve in every)
    common = set.intersection(*(set(curve) for curve in every if last in curve))
    # From where on every training has been validated
    firsts = [min(common & set(curve), default=math.inf) for curve in every]
    steps = [step for step in sorted(common) if step >= max(firsts)]
    if len(steps) < 2:
        return None
    best: dict[str, dict[int, np.ndarray]] = {name: {} for name in runs}
    for (name, seed), some in curves.items():
        so_far = [_best(curve, sorted(common), steps) for curve in some]
        best[name][seed] = np.mean(so_far, axis=0)  # of the folds
    means = {
        name: np.mean([*seeds.values()], axis=0).tolist()
        for name, seeds in best.items()
    }
    return Lengths(np.array(steps, int), best, means)


def _curve(run: ArmResult) -> dict[float, float]:
    """{step: validation mIoU} of one training."""
    rows = ((row["step"], row.get("val_miou", math.nan)) for row in run.history)
    return {step: miou for step, miou in rows if not math.isnan(miou)}


def _best(
    curve: Mapping[float, float], common: Sequence[float], steps: Sequence[float]
) -> list[float]:
    """The best up to each of the steps, at validations that are common."""
    return [
        max(curve[one] for one in common if one <= step and one in curve)
        for step in steps
    ]


def blocks(view: StageView, findings: Sequence[claims.Finding]) -> list:
    """A heading, when the order last changed, and tables of arms and of claims."""
    found = of_stage(view)
    if found is None:
        return []
    shown = [
        Heading(3, "How the answer depends on the length of training"),
        Paragraph(" ".join(_sentences(view, found))),
        _arms_table(view, found),
    ]
    table = _claims_table(view, found, findings)
    return [*shown, table] if table is not None else shown


def since(states: Sequence) -> int:
    """The number from which on all states equal the last one."""
    last = len(states) - 1
    while last and states[last - 1] == states[-1]:
        last -= 1
    return last


def _sentences(view: StageView, found: Lengths) -> list[str]:
    steps, orders = found.steps, [found.order(n) for n in range(len(found.steps))]
    texts = [
        "Each row treats training as if it had stopped there, keeping the best weights "
        "so far."
    ]
    schedules = {arm.config.optimizer.schedule for arm in view.finished}
    if schedules != {"constant"}:
        texts.append(
            "It would have ended with a lower learning rate, and probably a little "
            "better."
        )
    if view.base.config.data.folds:
        texts.append("Scores are means over the folds.")
    first = since([order[0] for order in orders])
    leader = view.titles[orders[-1][0]]
    if first == 0:
        texts.append(f"{leader} leads at every length.")
    else:
        before = view.titles[orders[first - 1][0]]
        text = f"{leader} leads from step {steps[first]} on, {before} just before."
        texts.append(text)
    if len(found.best) > 2:
        settled = since(orders)
        texts.append(
            "The order of all arms is the same at every length."
            if settled == 0
            else f"The order of all arms last changed at step {steps[settled]} of "
            f"{steps[-1]}."
        )
    texts.append(
        "These are means: whether a lead is more than chance is judged for the whole "
        "training alone."
    )
    return texts


def _arms_table(view: StageView, found: Lengths) -> Table:
    """The mean mIoU of each arm at some lengths, who leads, and in how many seeds."""
    drawn = view.whole().drawn
    names = [arm.name for arm in view.finished if arm.name in drawn]
    count = len(found.steps)
    numbers = np.unique(np.linspace(0, count - 1, min(count, MOST_ROWS)).round())
    rows = []
    for number in numbers.astype(int):
        first, second = found.order(number)[:2]
        cells = [
            Cell(wording.percent(found.means[name][number]), best=name == first)
            for name in names
        ]
        lead = found.means[first][number] - found.means[second][number]
        led, seeds = found.seeds_led(number)
        cells += [Cell(view.titles[first]), Cell(wording.points(lead))]
        cells.append(Cell(f"{led} of {seeds}" if seeds else ""))
        rows.append(Row([Cell(f"{found.steps[number]}"), *cells]))
    titles = [view.titles[name] for name in names]
    header = ["validation mIoU % up to step", *titles]
    return Table([*header, "leader", "lead, points", "seeds it leads in"], rows)


def _claims_table(
    view: StageView, found: Lengths, findings: Sequence[claims.Finding]
) -> Table | None:
    """Of claims about the mIoU of two arms of the stage: what held at each length."""
    if view.stage.split != "val" or view.stage.full_size:
        return None
    numbers = [int(np.searchsorted(found.steps, s * found.steps[-1])) for s in SHARES]
    rows = []
    for finding in findings:
        claim = finding.claim
        ours, than = (side.arm for side in claim.sides)
        is_here = all(not side.stage and not side.split for side in claim.sides)
        is_here = is_here and claim.metric == "miou" and claim.factor is None
        if not (is_here and {ours, than} <= found.means.keys()):
            continue
        pairs = zip(found.means[ours], found.means[than])
        differences = [one - other for one, other in pairs]
        agrees = [_agrees(claim, value) for value in differences]
        first = since(agrees)
        word = "agrees" if agrees[-1] else "disagrees"
        when = f"from step {found.steps[first]} on" if first else "at every length"
        cells = [wording.points(differences[number]) for number in sorted({*numbers})]
        rows.append(
            Row([Cell(text) for text in (claim.text, *cells, f"{word} {when}")])
        )
    if not rows:
        return None
    steps = [f"step {found.steps[number]}" for number in sorted({*numbers})]
    header = "Claim about mIoU: difference of the means, points"
    return Table([header, *steps, "the means so far"], rows)


def _agrees(claim: Claim, difference: float) -> bool:
    low, high = region(claim.expected, claims.margin(claim, 0.0, is_share=True), None)
    return bool(low < difference < high)
