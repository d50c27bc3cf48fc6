"""Whether a document's claims hold in the runs.

The interval of the difference, or of the ratio, decides. Without one (one training has
no spread, if its number is not a mean over images), the difference itself does, and the
verdict is weaker: "seems to". Of runs smaller than the document's that still improve,
it is what speaks for the document or against it so far.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from keras_seg.ablation.protocol import Claim
from keras_seg.report import scores, statistics
from keras_seg.report.evidence import EXACT
from keras_seg.report.families import Simultaneous
from keras_seg.report.statistics import HOLDS, OPEN, SEEMS_TO_HOLD, region

MARGIN = 0.01  # one percentage point: makes no difference where a claim states none
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


@dataclass(frozen=True)
class Finding:
    """A claim and its verdict.

    Attributes:
        difference: of the means over seeds, or their ratio where the claim has a
            factor; may be NaN.
        interval: of the difference, or of the logarithm of the ratio.
        verdict: one of VERDICTS.
    """

    claim: Claim
    difference: float
    interval: Simultaneous | None
    verdict: str

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Of the interval of `difference`."""
        if self.interval is None:
            return None
        low, high = self.interval.low, self.interval.high
        return (low, high) if self.claim.factor is None else (exp(low), exp(high))


def exp(value: float) -> float:
    """e to this power; infinity where that is too large a number."""
    return math.exp(value) if value < 700 else math.inf


def judge(
    claim: Claim,
    ours: Sequence[float],
    than: Sequence[float],
    interval: Simultaneous | None,
    is_share: bool = True,
    so_far: bool = False,
) -> Finding:
    """Check a claim.

    Args:
        claim: what is said.
        ours, than: the metric of each finished run of its two sides, or NaN.
        interval: of `Evidence.of_claim`, adjusted.
        is_share: whether the metric is a score in 0..1.
        so_far: whether the runs were stopped while they still improved, at a smaller
            scale than the document's.
    """
    if not ours or not than:
        return Finding(claim, math.nan, None, NOT_RUN)
    base = scores.mean(than)
    if claim.factor is None:
        difference = scores.mean(ours) - base
    else:  # the ratio, as the mean of the logarithms has it where that is known
        difference = scores.mean(ours) / base if base > 0 else math.nan
        if interval is not None:
            difference = exp(interval.comparison.difference)
    if math.isnan(difference):
        return Finding(claim, difference, None, NOT_MEASURED)
    low, high = region(claim.expected, margin(claim, base, is_share), claim.factor)
    found = difference if claim.factor is None else math.log(max(difference, 1e-300))
    agrees = low < found < high
    if claim.metric in EXACT:
        return Finding(claim, difference, None, HOLDS if agrees else FAILS)
    if interval is not None:
        judged = interval.judge(low, high)
        verdict = WORDS.get(judged, judged)
    else:  # one training of a side, whose spread is not known
        verdict = SEEMS_TO_HOLD if agrees else SEEMS_TO_FAIL
    if so_far and not claim.ours:
        verdict = SO_FAR.get(verdict, verdict)
    return Finding(claim, difference, interval, verdict)


def margin(claim: Claim, base: float, is_share: bool) -> float:
    """What makes no difference to a claim; `base` is the metric of `claim.than`."""
    if claim.margin is not None:
        return claim.margin
    if claim.factor is not None:
        return claim.factor / 10
    return MARGIN if is_share else abs(base) / 10
