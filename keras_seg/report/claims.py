"""Whether a document's claims hold in the runs.

The interval of the difference decides. Without one (a speed has none), the difference
itself does, against the spread of the seeds if there are several, and the verdict is
weaker: "seems to". Of runs smaller than the document's, it is what speaks for the
document or against it so far.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from keras_seg.ablation.protocol import ArmResult, Claim, StageResult
from keras_seg.report import scores, statistics
from keras_seg.report.families import Simultaneous
from keras_seg.report.statistics import HOLDS, OPEN, SEEMS_TO_HOLD, region

MARGIN = 0.01  # "same" is a difference of at most one percentage point
FAILS, SEEMS_TO_FAIL = "does not hold", "seems not to hold"
FOR_SO_FAR, AGAINST_SO_FAR = "as the document says so far", "against it so far"
NOT_MEASURED, NOT_RUN = "not measured", "not run"
VERDICTS = (HOLDS, SEEMS_TO_HOLD, FOR_SO_FAR, FAILS, SEEMS_TO_FAIL, AGAINST_SO_FAR)
VERDICTS += (OPEN, NOT_MEASURED, NOT_RUN)
WORDS: dict[str, str] = {
    statistics.FAILS: FAILS,
    statistics.SEEMS_TO_FAIL: SEEMS_TO_FAIL,
}
SO_FAR: dict[str, str] = dict.fromkeys((HOLDS, SEEMS_TO_HOLD), FOR_SO_FAR)
SO_FAR |= dict.fromkeys((FAILS, SEEMS_TO_FAIL), AGAINST_SO_FAR)
EXACT = ("parameters", "gflop")  # follow from the network, so they are certain


@dataclass(frozen=True)
class Finding:
    """A claim and its verdict."""

    claim: Claim
    difference: float  # `claim.arm` minus `claim.than`, means over seeds; may be NaN
    interval: Simultaneous | None  # of the difference
    verdict: str  # one of VERDICTS


def judge(
    result: StageResult,
    claim: Claim,
    value: Callable[[ArmResult], float],
    interval: Simultaneous | None,
    scale: str = "paper",
) -> Finding:
    """Check a claim; `value` is its metric of a run that is done, or NaN."""
    ours, others = (
        [value(run) for run in scores.done(result, name)]
        for name in (claim.arm, claim.than)
    )
    if not ours or not others:
        return Finding(claim, math.nan, None, NOT_RUN)
    difference = scores.mean(ours) - scores.mean(others)
    if math.isnan(difference):
        return Finding(claim, difference, None, NOT_MEASURED)
    low, high = region(claim.expected, MARGIN)
    agrees = low < difference < high
    if claim.metric in EXACT:
        return Finding(claim, difference, None, HOLDS if agrees else FAILS)
    if interval is not None:
        judged = interval.judge(low, high)
        verdict = WORDS.get(judged, judged)
    elif abs(difference) <= math.hypot(scores.spread(ours), scores.spread(others)):
        verdict = OPEN  # within the spread of the seeds; NaN where there is one seed
    else:
        verdict = SEEMS_TO_HOLD if agrees else SEEMS_TO_FAIL
    if scale != "paper" and not claim.ours:
        verdict = SO_FAR.get(verdict, verdict)
    return Finding(claim, difference, interval, verdict)
