"""Differences between a stage's arms, their intervals, and verdicts on claims.

The numbers of the intervals are in test_report_statistics.py.
"""

import math
from dataclasses import replace

import numpy as np
import pytest

from keras_seg import metrics
from keras_seg.ablation.protocol import Arm, ArmResult, Claim, Stage, StageResult
from keras_seg.config import Config
from keras_seg.report import claims, families, scores, statistics
from keras_seg.report.claims_table import findings
from keras_seg.report.evidence import Evidence
from keras_seg.report.families import Simultaneous
from keras_seg.report.grouping import Grouping
from keras_seg.report.statistics import Measured, compare, measure
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


def finished(
    folder, arm, seed=0, full_size=None, classes=None, ids=IDS, confusions=None
) -> ArmResult:
    run = folder / arm / f"seed{seed}"
    (run / "evaluation").mkdir(parents=True)
    confusions = confusions_of(arm, seed) if confusions is None else confusions
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


def evidence_of(*results, sequences=None) -> Evidence:
    return Evidence(stage_of(*results), sequences or {})


def interval(*results, of=("ours", "base"), sequences=None):
    return evidence_of(*results, sequences=sequences).pairs.get(of)


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
    alone = found.comparison
    expected = scores.difference(stage_of(*runs), "ours", "base")
    assert alone.difference == pytest.approx(expected, abs=1e-12)
    assert (alone.images, alone.kind, alone.seeds) == (24, "blocks", (2, 2))
    assert found.low < alone.difference < found.high
    # The sequences of another split are none of these images'.
    other = interval(*runs, sequences={"train": DRIVES}).comparison
    assert (other.kind, other.groups) == ("images", 24)


def test_the_lead_of_a_base_that_wins_is_over_the_runner_up(tmp_path):
    runs = [finished(tmp_path, arm, seed) for arm in ARMS for seed in (0, 1)]
    found = Evidence(replace(stage_of(*runs), winner="base"), {})
    pair, lead = found.pairs["ours", "base"], found.lead
    assert (lead.low, lead.high, lead.p) == (-pair.high, -pair.low, pair.p)
    assert lead.comparison.difference == -pair.comparison.difference
    assert found.winner is None  # ours has the higher score


def test_every_arm_is_compared_with_the_base_and_the_winner_with_the_next(tmp_path):
    runs = [finished(tmp_path, arm, seed) for arm in ARMS for seed in (0, 1)]
    (tmp_path / "third").mkdir()
    third = Arm("third", "Third", CONFIG)
    runs += [
        replace(finished(tmp_path / "third", "base", seed), arm=third)
        for seed in (2, 3)
    ]
    found = evidence_of(*runs)
    second = scores.runner_up(found.result)
    expected = [("ours", "base"), ("third", "base")]
    expected += [("ours", "third")] * (second == "third")
    assert list(found.pairs) == expected
    for pair, each in found.pairs.items():
        arms = [found.measured(name, "miou") for name in pair]
        one = compare(*arms, found.grouping, pair)
        low, high = one.interval()
        assert each.comparison.error == one.error
        assert each.low <= low
        assert each.high >= high
        assert each.p >= one.p_value()
    chosen = found.winner
    assert (chosen.name, chosen.runner_up) == ("ours", second)
    assert chosen.corrected_over_base.difference == pytest.approx(
        found.lead.comparison.difference, abs=0.02
    )


def test_a_lead_on_images_that_did_not_choose_it_is_not_corrected(tmp_path):
    runs = [finished(tmp_path, arm, full_size=False) for arm in ARMS]  # test
    found = evidence_of(*runs)
    assert found.lead is not None
    assert found.winner is None


def test_a_claim_is_judged_by_the_interval_of_its_own_score(tmp_path):
    runs = [finished(tmp_path, arm, seed) for arm in ARMS for seed in range(3)]
    keys = ("miou", "mean_accuracy", "ms_per_image")
    claimed = tuple(Claim(f"{k} rises", "ours", "base", "higher", k) for k in keys)
    context = Context("run.py", "paper", "test", "wxyz", [(0, 0, 0)] * 4, [1] * 4, {})
    found = findings(StageView(stage_of(*runs, claims=claimed), context))

    assert [one.claim.metric for one in found] == list(keys)
    for one, key in zip(found[:2], keys):
        base, ours = (
            np.mean([r.metrics["summary"][key] for r in runs if r.arm.name == name])
            for name in ARMS
        )
        difference = one.interval.comparison.difference
        assert difference == pytest.approx(ours - base, abs=1e-12)
        assert one.verdict == claims.HOLDS
    assert found[0].interval != found[1].interval
    assert found[2].interval is None


def test_interval_is_that_of_the_files(tmp_path):
    found = interval(*(finished(tmp_path, arm, 3) for arm in ARMS)).comparison
    arms = []
    for arm in ("ours", "base"):
        confusions = confusions_of(arm, 3)
        diagonal = confusions.diagonal(axis1=1, axis2=2)
        counts = np.stack([diagonal, confusions.sum(2), confusions.sum(1)])
        arms.append(measure(counts[None]))
    alone = compare(*arms, Grouping(np.arange(24), "images", 24))
    assert found.interval() == alone.interval()


def test_no_interval_without_the_counts_of_every_run(tmp_path):
    base, ours = (finished(tmp_path, arm) for arm in ARMS)
    second = finished(tmp_path, "ours", 1)
    assert interval(base, ours, second)
    assert interval(ours, second) is None
    assert interval(ArmResult(ARMS["base"], 0, base.run, "failed"), ours) is None
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


def test_images_without_a_pixel_have_no_interval(tmp_path):
    nothing = np.zeros((24, 4, 4), np.int64)
    runs = [finished(tmp_path, arm, confusions=nothing) for arm in ARMS]
    found = evidence_of(*runs)
    assert (found.pairs, found.lead, found.winner) == ({}, None, None)


def test_damaged_counts_are_named(tmp_path):
    base, ours = (finished(tmp_path, arm) for arm in ARMS)
    run_folder.per_image_file(ours.run, None).write_bytes(b"PK")
    found = evidence_of(base, ours)
    assert found.pairs == {}
    assert "ours/seed0/per_image.npz is damaged" in found.damaged[0]


# Verdicts, from intervals and from single numbers


def judged(
    expected,
    ours=(0.0,),
    base=(0.0,),
    between=None,
    metric="miou",
    so_far=False,
    is_ours=False,
):
    """The verdict on "ours against base" of runs that are done with these numbers."""
    claim = Claim("it does", "ours", "base", expected, metric, is_ours)
    return claims.judge(claim, ours, base, between, so_far=so_far).verdict


def found_between(low, high, images=60, seeds=3) -> Simultaneous:
    """A comparison of so many images and seeds with this interval."""
    rng = np.random.default_rng(0)
    arms = [
        Measured(np.full(seeds, score), rng.normal(size=(seeds, images)))
        for score in ((low + high) / 2, 0.0)
    ]
    one = compare(*arms, Grouping(np.arange(images), "images", images))
    return Simultaneous(one, 1.0, low, high)


@pytest.mark.parametrize(
    ("low", "high", "higher", "lower", "same"),
    [
        (0.001, 0.004, "holds", "does not hold", "holds"),
        (-0.004, -0.001, "does not hold", "holds", "holds"),
        (-0.01, 0.01, "open", "open", "holds"),
        (-0.02, 0.005, "open", "open", "open"),
        (0.005, 0.02, "holds", "does not hold", "open"),
        (0.011, 0.02, "holds", "does not hold", "does not hold"),
        (-0.02, -0.011, "does not hold", "holds", "does not hold"),
    ],
)
def test_interval_decides(low, high, higher, lower, same):
    """ "same" is within a percentage point."""
    for expected, verdict in (("higher", higher), ("lower", lower), ("same", same)):
        assert judged(expected, between=found_between(low, high)) == verdict
        seems = {"holds": "seems to hold", "does not hold": "seems not to hold"}
        for few in ({"seeds": 1}, {"images": 19}):
            between = found_between(low, high, **few)
            assert judged(expected, between=between) == seems.get(verdict, verdict)
        so_far = {"holds": "as the document says so far"}
        so_far |= {"does not hold": "against it so far"}
        for seeds in (1, 3):
            between = found_between(low, high, seeds=seeds)
            said = judged(expected, between=between, so_far=True)
            assert said == so_far.get(verdict, verdict)
        # A hypothesis of ours is about these runs.
        between = found_between(low, high)
        assert judged(expected, between=between, so_far=True, is_ours=True) == verdict


@pytest.mark.parametrize(
    ("ours", "base", "higher", "same"),
    [
        ((0.5,), (0.4,), "seems to hold", "seems not to hold"),
        ((0.4,), (0.5,), "seems not to hold", "seems not to hold"),
        ((0.4,), (0.4,), "seems not to hold", "seems to hold"),
        # Means 0.5 and 0.4 with errors 0.1 each: 0.1 is 0.71 times 0.141.
        ((0.4, 0.6), (0.3, 0.5), "open", "open"),
        # The same means with errors 0.01: 7.1 times, where t of 2 degrees is 4.3.
        ((0.49, 0.51), (0.39, 0.41), "seems to hold", "seems not to hold"),
        ((math.nan,), (0.4,), "not measured", "not measured"),
        ((), (0.4,), "not run", "not run"),
        ((0.4,), (), "not run", "not run"),
    ],
)
def test_numbers_of_trainings_say_less(ours, base, higher, same):
    between = None
    if min(len(ours), len(base)) > 1:
        compared = statistics.compare_trainings(np.array(ours), np.array(base))
        (between,) = families.adjust([compared])
    assert judged("higher", ours, base, between) == higher
    assert judged("same", ours, base, between) == same


def test_what_follows_from_the_network_is_certain():
    assert judged("higher", (8.0,), (2.0,), metric="parameters") == claims.HOLDS
    assert judged("same", (8.0,), (2.0,), metric="gflop") == claims.FAILS
    assert judged("lower", (8.0,), (2.0,), metric="gflop") == claims.FAILS
    assert judged("lower", (8.0,), (2.0,), metric="gflop", so_far=True) == claims.FAILS
    assert judged("lower", (8.0,), (2.0,), metric="ms_per_image").startswith("seems")
