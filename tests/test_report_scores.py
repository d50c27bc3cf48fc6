"""Intervals of a stage's differences: read from run folders, None where they cannot be.

The interval's numbers are in test_report_intervals.py.
"""

from dataclasses import replace

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


def finished(folder, arm, seed, full_size=None, classes=None, ids=IDS) -> ArmResult:
    run = folder / arm / f"seed{seed}"
    (run / "evaluation").mkdir(parents=True)
    confusions = confusions_of(arm, seed)
    counts = np.stack([metrics.image_counts(c, classes) for c in confusions], axis=1)
    split = "val" if full_size is None else "test"
    place = run_folder.per_image_file(
        run, None if full_size is None else split, bool(full_size)
    )
    run_folder.write_per_image(place, run_folder.PerImage(ids, *counts))
    total = confusions.sum(0)
    found = {"split": split, "scored_ids": classes, "confusion": total.tolist()}
    found |= {} if full_size is None else {"full_size": full_size}
    summary = metrics.summary(total, classes=classes)
    found["summary"] = {key: summary[key] for key in bootstrap.SCORES}
    return ArmResult(ARMS[arm], seed, run, "done", metrics=found)


def stage_of(*results) -> StageResult:
    stage = Stage("weighting", "Does weighting help?", "test", lambda base: [])
    return StageResult(stage, results, "ours", "")


@pytest.mark.parametrize("full_size", [None, False, True])
@pytest.mark.parametrize("classes", [None, SCORED])
def test_interval_is_of_the_difference_the_stage_shows(full_size, classes, tmp_path):
    result = stage_of(
        *(
            finished(tmp_path, arm, seed, full_size, classes)
            for arm in ARMS
            for seed in (0, 1)
        )
    )
    split = "val" if full_size is None else "test"
    found = scores.interval(result, "ours", "base", {split: DRIVES})
    expected = scores.difference(result, "ours", "base")
    assert found.difference == pytest.approx(expected, abs=1e-12)
    assert (found.images, found.groups, found.seeds) == (24, 6, 2)
    assert found.is_clear
    reverse = scores.interval(result, "base", "ours", {split: DRIVES})
    assert (reverse.low, reverse.high) == pytest.approx((-found.high, -found.low))
    # The sequences of another split are none of these images'.
    alone = scores.interval(result, "ours", "base", {"train": DRIVES})
    assert alone.groups == 24


def test_a_claim_is_judged_by_the_interval_of_its_own_score(tmp_path):
    runs = [finished(tmp_path, arm, 0) for arm in ARMS]
    claimed = ("miou", "mean_accuracy", "ms_per_image")
    stage = replace(
        stage_of().stage,
        claims=tuple(
            Claim(f"{key} rises", "ours", "base", "higher", key) for key in claimed
        ),
    )
    result = StageResult(stage, runs, "ours", "")
    context = Context("run.py", "bench", "test", "wxyz", [(0, 0, 0)] * 4, [1] * 4, {})
    found = tables.findings(StageView(result, context))

    assert [one.claim.metric for one in found] == list(claimed)
    for one, key in zip(found[:2], claimed):
        ours, base = (runs[arm].metrics["summary"][key] for arm in (1, 0))
        assert one.interval.difference == pytest.approx(ours - base, abs=1e-12)
        assert one.verdict == claims.HOLDS
    assert found[0].interval != found[1].interval
    assert found[2].interval is None


def test_interval_is_that_of_the_files(tmp_path):
    result = stage_of(*(finished(tmp_path, arm, 3) for arm in ARMS))
    arms = []
    for arm in ("ours", "base"):
        confusions = confusions_of(arm, 3)
        diagonal = confusions.diagonal(axis1=1, axis2=2)
        arms.append({3: np.stack([diagonal, confusions.sum(2), confusions.sum(1)])})
    groups = np.arange(24) // 4
    expected = bootstrap.paired_difference(*arms, groups)
    assert scores.interval(result, "ours", "base", {"val": DRIVES}) == expected


def test_no_interval_without_the_counts_of_every_run(tmp_path):
    base, ours = (finished(tmp_path, arm, 0) for arm in ARMS)
    second = finished(tmp_path, "ours", 1)
    assert scores.interval(stage_of(base, ours, second), "ours", "base", {})
    assert scores.interval(stage_of(ours, second), "ours", "base", {}) is None
    failed = ArmResult(ARMS["base"], 0, base.run, "failed")
    assert scores.interval(stage_of(failed, ours), "ours", "base", {}) is None
    assert scores.interval(stage_of(base, ours), None, "base", {}) is None
    run_folder.per_image_file(second.run, None).unlink()  # of an older version
    assert scores.interval(stage_of(base, ours, second), "ours", "base", {}) is None


def test_no_interval_between_different_images_or_scores(tmp_path):
    base = finished(tmp_path, "base", 0)
    others = {
        "ids": finished(tmp_path / "ids", "ours", 0, ids=IDS[::-1]),
        "classes": finished(tmp_path / "classes", "ours", 0, classes=SCORED),
        "split": finished(tmp_path / "split", "ours", 0, full_size=False),
    }
    for what, ours in others.items():
        assert scores.interval(stage_of(base, ours), "ours", "base", {}) is None, what
    # Scores that another evaluation has replaced since
    ours = finished(tmp_path, "ours", 0)
    confusion = (np.array(ours.metrics["confusion"]) + np.eye(4, dtype=int)).tolist()
    ours = replace(ours, metrics=ours.metrics | {"confusion": confusion})
    assert scores.interval(stage_of(base, ours), "ours", "base", {}) is None


def test_damaged_counts_are_named(tmp_path):
    base, ours = (finished(tmp_path, arm, 0) for arm in ARMS)
    run_folder.per_image_file(ours.run, None).write_bytes(b"PK")
    with pytest.raises(StorageError, match=r"ours/seed0/per_image\.npz is damaged"):
        scores.interval(stage_of(base, ours), "ours", "base", {})
