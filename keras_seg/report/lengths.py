"""How a stage's answer depends on how long its arms were trained.

What its trainings scored up to each validation tells what they would have scored had
they ended there, but for the learning rate, which a schedule would have lowered by
then. So the curves of one stage stand for several shorter stages.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from keras_seg.ablation.protocol import Claim
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
        steps: int [V], of the validations that all trainings have.
        best: {arm: [S, V]} best validation mIoU of each seed so far, in 0..1.
    """

    steps: np.ndarray
    best: Mapping[str, np.ndarray]

    @property
    def means(self) -> dict[str, np.ndarray]:
        """{arm: [V]} means over the seeds."""
        return {name: best.mean(axis=0) for name, best in self.best.items()}

    def order(self, number: int) -> list[str]:
        """The arms at a validation, the best first."""
        means = self.means
        return sorted(means, key=lambda name: -means[name][number])


def of_stage(view: StageView) -> Lengths | None:
    """None where fewer than two arms, or two validations, can be compared."""
    runs = {arm.name: scores.done(view.result, arm.name) for arm in view.finished}
    histories = [
        {row["step"]: row["val_miou"] for row in one.history if "val_miou" in row}
        for some in runs.values()
        for run in some
        for one in run.trainings
    ]
    common = set.intersection(*map(set, histories)) if histories else set()
    steps = np.array(sorted(common), int)
    if len(runs) < 2 or len(steps) < 2:
        return None

    def best(run) -> np.ndarray:
        """Of one seed; with folds their mean."""
        curves = [
            [row["val_miou"] for row in one.history if row["step"] in common]
            for one in run.trainings
        ]
        return np.fmax.accumulate(curves, axis=1).mean(axis=0)

    found = {name: np.stack([best(run) for run in some]) for name, some in runs.items()}
    return Lengths(steps, found)


def blocks(view: StageView, findings: Sequence[claims.Finding]) -> list:
    """A heading, when the order last changed, and tables of arms and of claims."""
    found = of_stage(view)
    if found is None:
        return []
    shown = [
        Heading(3, "How the answer depends on the length"),
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
        "As if every training had ended at the step, with its best weights so far."
    ]
    if view.base.config.optimizer.schedule != "constant":
        texts.append(
            "It would have ended with a lower learning rate, and probably a little "
            "better."
        )
    first = since([order[0] for order in orders])
    leader = view.titles[orders[-1][0]]
    if first == 0:
        texts.append(f"{leader} leads at every length.")
    else:
        before = view.titles[orders[first - 1][0]]
        texts.append(f"{leader} leads from step {steps[first]} on, {before} before.")
    if len(found.best) > 2:
        settled = since(orders)
        texts.append(
            "The order of all arms is the same at every length."
            if settled == 0
            else f"The order of all arms last changed at step {steps[settled]} of "
            f"{steps[-1]}."
        )
    texts.append("Whether a lead is more than chance, only the whole trainings tell.")
    return texts


def _arms_table(view: StageView, found: Lengths) -> Table:
    """The mean mIoU of each arm at some lengths, and how many seeds agree."""
    drawn = view.whole().drawn
    names = [arm.name for arm in view.finished if arm.name in drawn]
    count = len(found.steps)
    numbers = np.unique(np.linspace(0, count - 1, min(count, MOST_ROWS)).round())
    rows = []
    for number in numbers.astype(int):
        first, second = found.order(number)[:2]
        cells = [
            Cell(wording.percent(float(found.means[name][number])), best=name == first)
            for name in names
        ]
        lead = found.means[first][number] - found.means[second][number]
        cells += [Cell(wording.points(float(lead))), Cell(_agreeing(found, number))]
        rows.append(Row([Cell(f"{found.steps[number]}"), *cells]))
    titles = [view.titles[name] for name in names]
    header = ["mIoU % up to step", *titles, "lead, points", "seeds with this leader"]
    return Table(header, rows)


def _agreeing(found: Lengths, number: int) -> str:
    """How many of the seeds that all arms have have the leader of their mean."""
    seeds = min(map(len, found.best.values()))
    leader = found.order(number)[0]
    leads = [
        max(found.best, key=lambda name: found.best[name][seed, number]) == leader
        for seed in range(seeds)
    ]
    return f"{sum(leads)} of {seeds}"


def _claims_table(
    view: StageView, found: Lengths, findings: Sequence[claims.Finding]
) -> Table | None:
    """Of claims about the mIoU of two arms of this stage: what held at each length."""
    last = len(found.steps) - 1
    numbers = [int(np.searchsorted(found.steps, s * found.steps[-1])) for s in SHARES]
    numbers = sorted({min(number, last) for number in numbers})
    rows = []
    for finding in findings:
        claim = finding.claim
        ours, than = (side.arm for side in claim.sides)
        is_here = all(not side.stage and not side.split for side in claim.sides)
        is_here = is_here and claim.metric == "miou" and claim.factor is None
        if not (is_here and {ours, than} <= found.best.keys()):
            continue
        differences = found.means[ours] - found.means[than]
        agrees = [_agrees(claim, value) for value in differences]
        first = since(agrees)
        word = "agrees" if agrees[-1] else "disagrees"
        always = f"{word} at every length"
        cells = [Cell(wording.points(float(differences[number]))) for number in numbers]
        cells.append(
            Cell(f"{word} from step {found.steps[first]} on" if first else always)
        )
        rows.append(Row([Cell(claim.text), *cells]))
    if not rows:
        return None
    steps = [f"step {found.steps[number]}" for number in numbers]
    return Table(["Claim about mIoU, difference in points", *steps, "so far"], rows)


def _agrees(claim: Claim, difference: float) -> bool:
    low, high = region(claim.expected, claims.margin(claim, 0.0, is_share=True), None)
    return bool(low < difference < high)
