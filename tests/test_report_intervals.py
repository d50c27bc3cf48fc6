"""Intervals of differences of scores: hand numbers, enumeration, coverage."""

import itertools

import numpy as np
import pytest

from keras_seg import metrics
from keras_seg.report import intervals as bootstrap


def random_counts(rng, images: int, num_classes: int = 3) -> np.ndarray:
    """int64 [3, N, C] of random confusion matrices; the last class is in one image."""
    confusions = rng.integers(0, 50, (images, num_classes, num_classes))
    confusions[1:, -1] = confusions[1:, :, -1] = 0
    return np.stack([metrics.image_counts(each) for each in confusions], axis=1)


def loop_miou(counts: np.ndarray, drawn, classes=None) -> float:
    """The mIoU of the drawn images of counts [3, N, C], class by class."""
    ious = []
    for c in range(counts.shape[2]) if classes is None else classes:
        hits, truth, predicted = (
            sum(int(count[image, c]) for image in drawn) for count in counts
        )
        if truth + predicted > 0:
            ious.append(hits / (truth + predicted - hits))
    return sum(ious) / len(ious)


def test_two_images_by_hand():
    """Of two groups one is drawn: the interval goes from one image to the other.

    Image 1: IoU 60/80 and 20/40, base 40/60 (class 1 absent). Image 2: IoU 1/2 and
    absent, base 1/2 and 0/10.
    """
    ours = np.array([[[60, 20], [10, 0]], [[70, 30], [15, 0]], [[70, 30], [15, 0]]])
    base = np.array([[[40, 0], [10, 0]], [[50, 0], [15, 0]], [[50, 0], [15, 10]]])
    found = bootstrap.paired_difference({0: ours}, {0: base}, [0, 1])
    # Both: 70/100 and 20/40 against 50/80 and 0/10
    assert found.difference == pytest.approx((0.7 + 0.5) / 2 - 0.625 / 2)
    first, second = (0.75 + 0.5) / 2 - 2 / 3, 0.5 - 0.5 / 2
    assert (found.low, found.high) == pytest.approx((first, second))
    assert (found.images, found.groups, found.seeds) == (2, 2, 1)
    assert not found.is_clear
    assert found.verdict == "within noise"


@pytest.mark.parametrize("same_seeds", [True, False])
@pytest.mark.parametrize("classes", [None, (0, 2)])
def test_the_resamples_are_those_of_loops(same_seeds, classes):
    """Against all draws of 3 of 4 groups (7 images) and of 1 of 2 seeds of each arm.

    Of the 256 or 512 results, each as likely as the others, every quantile must lie
    where that of the resamples lies.
    """
    rng = np.random.default_rng(3)
    arms = [{seed: random_counts(rng, 7) for seed in (0, 1)} for _ in range(2)]
    if not same_seeds:
        arms[1] = {seed + 5: counts for seed, counts in arms[1].items()}
    groups = [0, 0, 1, 2, 2, 3, 3]
    results = []
    for draw in itertools.product(range(4), repeat=3):
        drawn = [image for g in draw for image in range(7) if groups[image] == g]
        mious = [
            [loop_miou(counts, drawn, classes) for counts in arm.values()]
            for arm in arms
        ]
        for one, other in itertools.product(range(2), repeat=2):
            if one == other or not same_seeds:
                results.append(mious[0][one] - mious[1][other])
    observed = [
        np.mean([loop_miou(counts, range(7), classes) for counts in arm.values()])
        for arm in arms
    ]
    for level in (0.95, 0.6, 0.2):
        found = bootstrap.paired_difference(
            *arms, groups, resamples=40_000, classes=classes, level=level
        )
        assert found.difference == pytest.approx(observed[0] - observed[1])
        # 40,000 resamples find a quantile to within a hundredth of the results.
        for value, share in ((found.low, 1 - level), (found.high, 1 + level)):
            shares = np.clip([share / 2 - 0.01, share / 2 + 0.01], 0, 1)
            around = np.quantile(results, shares)
            assert around[0] - 1e-12 <= value <= around[1] + 1e-12


@pytest.mark.parametrize("scored", [None, (1, 2, 3), (0, 1, 3)])
@pytest.mark.parametrize("metric", bootstrap.SCORES)
def test_the_difference_is_that_of_the_summary(metric, scored):
    rng = np.random.default_rng(0)
    confusions = rng.integers(0, 30, (2, 20, 4, 4))
    confusions[:, :, 3] = confusions[:, :, :, 3] = 0  # absent
    confusions[:, :, 2] = 0  # without a true pixel
    arms = [
        {0: np.stack([metrics.image_counts(each, scored) for each in arm], axis=1)}
        for arm in confusions
    ]
    found = bootstrap.paired_difference(*arms, range(20), classes=scored, metric=metric)
    of_ours, of_base = (
        metrics.summary(arm.sum(0), classes=scored)[metric] for arm in confusions
    )
    assert of_ours != of_base
    assert found.difference == pytest.approx(of_ours - of_base, abs=1e-12)
    assert found.low < found.difference < found.high


def test_an_arm_against_itself_differs_by_nothing():
    rng = np.random.default_rng(1)
    arm = {seed: random_counts(rng, 12) for seed in range(3)}
    found = bootstrap.paired_difference(arm, arm, np.arange(12) // 2)
    assert (found.difference, found.low, found.high) == (0.0, 0.0, 0.0)


def test_copies_of_images_in_their_group_say_nothing_new():
    """Five copies of each frame: as sure as one; counted as images, falsely surer."""
    rng = np.random.default_rng(2)
    arms = [{0: random_counts(rng, 40)} for _ in range(2)]
    copies = [{0: np.repeat(arm[0], 5, axis=1)} for arm in arms]
    common = (0, 1)  # not the class of a single image, whose error is no root law's
    cases = (arms, range(40)), (copies, np.repeat(range(40), 5)), (copies, range(200))
    once, grouped, alone = (
        bootstrap.paired_difference(*counts, groups, classes=common)
        for counts, groups in cases
    )
    assert (grouped.low, grouped.high) == pytest.approx((once.low, once.high))
    # The standard error of a mean of 200 is that of 40 divided by the root of 5.
    ratio = (alone.high - alone.low) / (grouped.high - grouped.low)
    assert ratio == pytest.approx(5**-0.5, rel=0.15)


def test_seeds_widen_the_interval_and_few_are_not_underestimated():
    """Images that are all alike: what remains is the spread of the seeds.

    The base has mIoU 0.5 with every seed, ours 0.5 +- 0.1 with three; the mean of three
    has the variance s^2 / 3 (Rao and Wu 1988: draws of two).
    """

    def counts(hits):
        return np.tile(np.array([[[hits]], [[100]], [[hits]]]), (1, 10, 1))

    ours = {0: counts(40), 1: counts(50), 2: counts(60)}
    base = {seed: counts(50) for seed in ours}
    found = bootstrap.paired_difference(ours, base, range(10))
    assert (found.low, found.high) == pytest.approx((-0.1, 0.1))
    assert found.difference == pytest.approx(0)
    # One draw of two in nine is the lowest twice, two more the lowest and the middle.
    level = 0.68
    found = bootstrap.paired_difference(ours, base, range(10), level=level)
    assert (found.low, found.high) == pytest.approx((-0.05, 0.05))
    one = bootstrap.paired_difference({0: ours[0]}, {0: base[0]}, range(10))
    assert (one.low, one.high) == pytest.approx((-0.1, -0.1))
    assert one.is_clear


def test_the_words_say_what_was_not_resampled():
    rng = np.random.default_rng(4)
    arms = [{seed: random_counts(rng, 12) for seed in range(3)} for _ in range(2)]
    three = bootstrap.paired_difference(*arms, range(12)).basis
    assert "image sampling (12 images) and training randomness (3 seeds)" in three
    one = [{0: arm[0]} for arm in arms]
    alone = bootstrap.paired_difference(*one, np.arange(12) // 2).basis
    assert "(12 images in 6 groups of neighbours) but not training" in alone


def population(rng, images: int) -> np.ndarray:
    """Two arms' counts [2, 3, N, 3]: images differ in size of classes and difficulty.

    The arms share the truth and the difficulty; the first is a little better.
    """
    truth = rng.gamma(0.7, 300, (images, 3)).astype(int)
    truth[rng.random((images, 3)) < 0.3] = 0
    difficulty = rng.beta(6, 2, (images, 3))
    arms = []
    for skill in (1.0, 0.97):
        share = np.clip(skill * difficulty + rng.normal(0, 0.08, (images, 3)), 0, 1)
        hits = (truth * share).astype(int)
        false = rng.gamma(0.5, 60, (images, 3)).astype(int)
        arms.append(np.stack([hits, truth, hits + false]))
    return np.stack(arms)


def coverage(rng, everything, frames: int, trials: int, as_groups: bool) -> float:
    """How often the interval of a sample of 60 images, `frames` of each, is right."""
    whole = range(everything.shape[2])
    expected = loop_miou(everything[0], whole) - loop_miou(everything[1], whole)
    groups = np.arange(60).repeat(frames) if as_groups else np.arange(60 * frames)
    covered = 0
    for trial in range(trials):
        drawn = rng.choice(everything.shape[2], 60).repeat(frames)
        arms = [{0: arm[:, drawn]} for arm in everything]
        found = bootstrap.paired_difference(*arms, groups, resamples=400, seed=trial)
        covered += found.low <= expected <= found.high
    return covered / trials


def test_intervals_cover_the_truth_as_often_as_they_say():
    """95 % of intervals should; 300 trials tell to within 2.5 points twice over.

    Frames of a sequence that count as images of their own make them far too narrow:
    with four equal frames, 1.96 / 2 standard errors, which cover 67 %.
    """
    rng = np.random.default_rng(5)
    everything = population(rng, 2000)
    assert 0.91 <= coverage(rng, everything, 1, 300, as_groups=True) <= 0.985
    assert coverage(rng, everything, 4, 100, as_groups=True) >= 0.88
    assert coverage(rng, everything, 4, 100, as_groups=False) <= 0.8


def test_images_of_a_sequence_are_one_group():
    ids = ["a1", "a2", "b1", "c1", "a", "x", "y"]
    sequences = {"a1": "a", "a2": "a", "b1": "b", "c1": "b"}
    groups = bootstrap.groups_of(ids, sequences)
    # "a", the image, is not one of the sequence "a"
    assert groups.tolist() == [0, 0, 1, 1, 2, 3, 4]
    assert bootstrap.groups_of(ids, {}).tolist() == list(range(7))


def test_too_few_sequences_are_cut_into_blocks_of_neighbours():
    """CamVid's validation: 101 frames of one drive; its test: 171 and 62 of two."""
    ids = [f"0016E5_{number:05d}" for number in range(7959, 8160, 2)]
    groups = bootstrap.groups_of(ids, dict.fromkeys(ids, "0016E5"))
    assert (np.diff(groups) >= 0).all()
    assert np.bincount(groups).tolist() == [11] + [10] * 9

    ids = [str(number) for number in range(233)]
    sequences = {each: "long" if int(each) < 171 else "short" for each in ids}
    groups = bootstrap.groups_of(ids, sequences)
    sizes = np.bincount(groups)
    assert len(set(groups[:171]) & set(groups[171:])) == 0
    assert sizes.min() >= 20
    assert sizes.max() <= 24  # a tenth of 233, rounded up
    # Even of six images none is taken for a sequence of its own.
    assert bootstrap.groups_of(ids[:6], sequences).tolist() == [0, 0, 1, 1, 2, 2]
    # Interleaved: blocks are of neighbours in their own sequence.
    groups = bootstrap.groups_of(ids, {each: "ab"[int(each) % 2] for each in ids})
    assert set(groups[::2]).isdisjoint(groups[1::2])


ONES = {0: np.ones((3, 4, 2), int)}


@pytest.mark.parametrize(
    ("ours", "base", "groups"),
    [
        ({}, ONES, range(4)),
        (ONES, {0: np.ones((3, 4, 3), int)}, range(4)),
        (ONES, ONES, range(3)),
        (ONES, ONES, [0] * 4),
    ],
    ids=["no seed", "classes", "images", "one group"],
)
def test_what_cannot_be_compared_is_refused(ours, base, groups):
    with pytest.raises(ValueError, match="counts|groups"):
        bootstrap.paired_difference(ours, base, groups)


def test_images_without_a_pixel_have_no_difference():
    nothing = {0: np.zeros((3, 4, 2), int)}
    found = bootstrap.paired_difference(nothing, nothing, range(4))
    assert np.isnan([found.difference, found.low, found.high]).all()
    assert found.verdict == "within noise"
