"""Whether a document's claims hold in the runs.

The interval of the difference decides. Without one (a speed has none), the difference
itself does, against the spread of the seeds if there are several, and the verdict is
weaker: "seems to".
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from keras_seg.ablation.protocol import ArmResult, Claim, StageResult
from keras_seg.report import scores
from keras_seg.report.intervals import Interval

MARGIN = 0.01  # "same" is a difference of at most one percentage point
HOLDS, FAILS, OPEN = "holds", "does not hold", "undecided (within noise)"
SEEMS_TO_HOLD = "seems to hold (no interval)"
SEEMS_TO_FAIL = "seems not to hold (no interval)"
NOT_MEASURED, NOT_RUN = "undecided (not measured)", "not run"
VERDICTS = (HOLDS, SEEMS_TO_HOLD, FAILS, SEEMS_TO_FAIL, OPEN, NOT_MEASURED, NOT_RUN)
EXACT = ("parameters", "gflop")  # follow from the network, so they are certain


@dataclass(frozen=True)
class Finding:
    """A claim and its verdict."""

    claim: Claim
    difference: float  # `claim.arm` minus `claim.than`, means over seeds; may be NaN
    interval: Interval | None  # of the difference
    verdict: str  # one of VERDICTS


def judge(
    result: StageResult,
    claim: Claim,
    value: Callable[[ArmResult], float],
    interval: Interval | None,
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
    if interval is not None:
        verdict = _of_interval(claim.expected, interval)
    elif claim.metric in EXACT:
        verdict = HOLDS if _agrees(claim.expected, difference) else FAILS
    elif abs(difference) <= math.hypot(scores.spread(ours), scores.spread(others)):
        verdict = OPEN  # within the spread of the seeds; NaN where there is one seed
    else:
        agrees = _agrees(claim.expected, difference)
        verdict = SEEMS_TO_HOLD if agrees else SEEMS_TO_FAIL
    return Finding(claim, difference, interval, verdict)


def _of_interval(expected: str, interval: Interval) -> str:
    if expected == "same":
        if -MARGIN <= interval.low and interval.high <= MARGIN:
            return HOLDS
        is_apart = interval.low > MARGIN or interval.high < -MARGIN
        return FAILS if is_apart else OPEN
    if not interval.is_clear:
        return OPEN
    return HOLDS if (interval.low > 0) == (expected == "higher") else FAILS


def _agrees(expected: str, difference: float) -> bool:
    if expected == "same":
        return abs(difference) <= MARGIN
    return difference > 0 if expected == "higher" else difference < 0
