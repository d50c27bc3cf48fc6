"""Differences between a stage's arms, their intervals, and verdicts on claims.

The numbers of the intervals are in test_report_intervals.py.
"""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from keras_seg import metrics
from keras_seg.ablation.protocol import Arm, ArmResult, Claim, Stage, StageResult
from keras_seg.config import Config
from keras_seg.errors import StorageError
from keras_seg.report import claims, scores, tables
from keras_seg.report import intervals as bootstrap
from keras_seg.report.view import Context, StageView
from keras_seg.runs import folder as run_folder

CONFIG = Config(net="icnet", data={"size": (32, 48)}, steps=40)
ARMS = {name: Arm(name, name.title(), CONFIG) for name in ("base", "ours")}
IDS = tuple(f"{drive}_{number}" for drive in "abcdef" for number in range(4))
DRIVES = {each: each.partition("_")[0] for each in IDS}
SCORED = [1, 2, 3]


def confusions_of(arm: str, seed: int) -> np.ndarray:
    """int64 [24, 4, 4]: as a label that all share is predicted, better by ours."""
    truth = np.random.default_rng(7).integers(20, 90, (24, 4))
    rng = np.random.default_rng([seed, arm == "ours"])
    wrong = (truth * rng.uniform(0, 0.3 if arm == "ours" else 0.6, (24, 4))).astype(int)
    confusions = np.zeros((24, 4, 4), np.int64)
    for c in range(4):
        confusions[:, c, c] = (truth - wrong)[:, c]
        confusions[:, c, (c + 1) % 4] = wrong[:, c]
    return confusions


def finished(folder, arm, seed=0, full_size=None, classes=None, ids=IDS) -> ArmResult:
    run = folder / arm / f"seed{seed}"
    (run / "evaluation").mkdir(parents=True)
    confusions = confusions_of(arm, seed)
    counts = [metrics.image_counts(each, classes) for each in confusions]
    # Only an evaluation states its size; else the scores are those of training.
    split, size = (
        ("val", {}) if full_size is None else ("test", {"full_size": full_size})
    )
    place = run_folder.per_image_file(run, split if size else None, bool(full_size))
    per_image = run_folder.PerImage(ids, *np.stack(counts, axis=1))
    run_folder.write_per_image(place, per_image)
    found = {"split": split, **size, **metrics.scores(confusions.sum(0), classes)}
    return ArmResult(ARMS[arm], seed, run, "done", metrics=found)


def stage_of(*results, **more) -> StageResult:
    stage = Stage("weighting", "Does weighting help?", "test", lambda base: [], **more)
    return StageResult(stage, results, "ours", "")


def interval(*results, of=("ours", "base"), sequences=None):
    return scores.interval(stage_of(*results), *of, sequences or {})


@pytest.mark.parametrize("full_size", [None, False, True])
@pytest.mark.parametrize("classes", [None, SCORED])
def test_interval_is_of_the_difference_the_stage_shows(full_size, classes, tmp_path):
    runs = [
        finished(tmp_path, arm, seed, full_size, classes)
        for arm in ARMS
        for seed in (0, 1)
    ]
    drives = {"val" if full_size is None else "test": DRIVES}
    found = interval(*runs, sequences=drives)
    expected = scores.difference(stage_of(*runs), "ours", "base")
    assert found.difference == pytest.approx(expected, abs=1e-12)
    assert (found.images, found.groups, found.seeds) == (24, 6, 2)
    assert found.is_clear
    reverse = interval(*runs, of=("base", "ours"), sequences=drives)
    assert (reverse.low, reverse.high) == pytest.approx((-found.high, -found.low))
    # The sequences of another split are none of these images'.
    assert interval(*runs, sequences={"train": DRIVES}).groups == 24


def test_a_claim_is_judged_by_the_interval_of_its_own_score(tmp_path):
    runs = [finished(tmp_path, arm) for arm in ARMS]
    keys = ("miou", "mean_accuracy", "ms_per_image")
    claimed = tuple(Claim(f"{k} rises", "ours", "base", "higher", k) for k in keys)
    context = Context("run.py", "bench", "test", "wxyz", [(0, 0, 0)] * 4, [1] * 4, {})
    found = tables.findings(StageView(stage_of(*runs, claims=claimed), context))

    assert [one.claim.metric for one in found] == list(keys)
    for one, key in zip(found[:2], keys):
        base, ours = (run.metrics["summary"][key] for run in runs)
        assert one.interval.difference == pytest.approx(ours - base, abs=1e-12)
        assert one.verdict == claims.HOLDS
    assert found[0].interval != found[1].interval
    assert found[2].interval is None


def test_interval_is_that_of_the_files(tmp_path):
    found = interval(
        *(finished(tmp_path, arm, 3) for arm in ARMS), sequences={"val": DRIVES}
    )
    arms = []
    for arm in ("ours", "base"):
        confusions = confusions_of(arm, 3)
        diagonal = confusions.diagonal(axis1=1, axis2=2)
        arms.append({3: np.stack([diagonal, confusions.sum(2), confusions.sum(1)])})
    assert found == bootstrap.paired_difference(*arms, np.arange(24) // 4)


def test_no_interval_without_the_counts_of_every_run(tmp_path):
    base, ours = (finished(tmp_path, arm) for arm in ARMS)
    second = finished(tmp_path, "ours", 1)
    assert interval(base, ours, second)
    assert interval(ours, second) is None
    assert interval(ArmResult(ARMS["base"], 0, base.run, "failed"), ours) is None
    assert interval(base, ours, of=(None, "base")) is None
    run_folder.per_image_file(second.run, None).unlink()  # of an older version
    assert interval(base, ours, second) is None


@pytest.mark.parametrize(
    "other", [{"ids": IDS[::-1]}, {"classes": SCORED}, {"full_size": False}], ids=str
)
def test_no_interval_between_different_images_or_scores(tmp_path, other):
    base, ours = finished(tmp_path, "base"), finished(tmp_path, "ours", **other)
    assert interval(base, ours) is None


def test_no_interval_of_scores_that_another_evaluation_has_replaced(tmp_path):
    base, ours = (finished(tmp_path, arm) for arm in ARMS)
    confusion = (np.array(ours.metrics["confusion"]) + np.eye(4, dtype=int)).tolist()
    ours = replace(ours, metrics=ours.metrics | {"confusion": confusion})
    assert interval(base, ours) is None


def test_damaged_counts_are_named(tmp_path):
    base, ours = (finished(tmp_path, arm) for arm in ARMS)
    run_folder.per_image_file(ours.run, None).write_bytes(b"PK")
    with pytest.raises(StorageError, match=r"ours/seed0/per_image\.npz is damaged"):
        interval(base, ours)


# Verdicts, from intervals and from single numbers


def judged(expected, ours=(0.0,), base=(0.0,), between=None, metric="miou"):
    """The verdict on "ours against base" of runs that are done with these numbers."""
    runs = [
        ArmResult(ARMS[name], seed, Path(), "done", metrics={"x": number})
        for name, numbers in (("base", base), ("ours", ours))
        for seed, number in enumerate(numbers)
    ]
    claim = Claim("it does", "ours", "base", expected, metric)
    found = claims.judge(stage_of(*runs), claim, lambda run: run.metrics["x"], between)
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
    middle = (low + high) / 2
    between = bootstrap.Interval(middle, low, high, images=60, groups=60, seeds=1)
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
