"""Verdicts on what a document says, from intervals and from single numbers."""

import math
from pathlib import Path

import pytest

from keras_seg.ablation.protocol import Arm, ArmResult, Claim, Stage, StageResult
from keras_seg.config import Config
from keras_seg.report import claims
from keras_seg.report.intervals import Interval

CONFIG = Config(net="icnet", data={"size": (32, 48)}, steps=40)
ARMS = {name: Arm(name, name.title(), CONFIG) for name in ("base", "ours")}


def interval(low, high):
    middle = (low + high) / 2
    return Interval(middle, low, high, images=60, groups=60, seeds=1)


def judged(expected, ours=(0.0,), base=(0.0,), between=None, metric="miou"):
    """The verdict on "ours against base" of runs that are done with these numbers."""
    results = [
        ArmResult(ARMS[name], seed, Path(str(number)), "done", metrics={})
        for name, numbers in (("base", base), ("ours", ours))
        for seed, number in enumerate(numbers)
    ]
    stage = Stage("stage", "Does it?", "test", lambda base: [])
    result = StageResult(stage, tuple(results), None, "")
    claim = Claim("it does", "ours", "base", expected, metric)
    found = claims.judge(result, claim, lambda run: float(str(run.run)), between)
    return found.verdict


@pytest.mark.parametrize(
    ("low", "high", "higher", "lower", "same"),
    [
        (0.001, 0.004, "holds", "does not hold", "holds"),
        (-0.004, -0.001, "does not hold", "holds", "holds"),
        (-0.01, 0.01, "undecided", "undecided", "holds"),
        (-0.02, 0.005, "undecided", "undecided", "undecided"),
        (0.005, 0.02, "holds", "does not hold", "undecided"),
        (0.011, 0.02, "holds", "does not hold", "does not hold"),
        (-0.02, -0.011, "does not hold", "holds", "does not hold"),
        (math.nan, math.nan, "undecided", "undecided", "undecided"),
    ],
)
def test_interval_decides(low, high, higher, lower, same):
    """ "same" is within a percentage point."""
    between = interval(low, high)
    assert judged("higher", between=between).startswith(higher)
    assert judged("lower", between=between).startswith(lower)
    assert judged("same", between=between).startswith(same)


@pytest.mark.parametrize(
    ("ours", "base", "higher", "same"),
    [
        ((0.5,), (0.4,), "seems to hold", "seems not to hold"),
        ((0.4,), (0.5,), "seems not to hold", "seems not to hold"),
        ((0.4,), (0.4,), "seems not to hold", "seems to hold"),
        # Means 0.5 and 0.4 with deviations 0.1414 each: sqrt(2 0.02) = 0.2 > 0.1.
        ((0.4, 0.6), (0.3, 0.5), "undecided", "undecided"),
        # The same means with deviations 0.0141: 0.02 < 0.1.
        ((0.49, 0.51), (0.39, 0.41), "seems to hold", "seems not to hold"),
        ((math.nan,), (0.4,), "undecided (not measured)", "undecided (not"),
        ((), (0.4,), "not run", "not run"),
        ((0.4,), (), "not run", "not run"),
    ],
)
def test_numbers_without_an_interval_say_less(ours, base, higher, same):
    assert judged("higher", ours, base).startswith(higher)
    assert judged("same", ours, base).startswith(same)


def test_what_follows_from_the_network_is_certain():
    assert judged("higher", (8.0,), (2.0,), metric="parameters") == claims.HOLDS
    assert judged("same", (8.0,), (2.0,), metric="gflop") == claims.FAILS
    assert judged("lower", (8.0,), (2.0,), metric="gflop") == claims.FAILS
    assert judged("lower", (8.0,), (2.0,), metric="ms_per_image").startswith("seems")
