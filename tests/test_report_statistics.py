"""Verdicts: scipy's tests, hand arithmetic, loops, enumeration, simulated coverage."""

import itertools
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from keras_seg import metrics
from keras_seg.report import families, grouping, statistics, winner
from keras_seg.report.statistics import SCORES, Measured, compare

TOOL = Path(__file__).resolve().parents[1] / "tools" / "coverage.py"


def alone(images: int) -> grouping.Grouping:
    """Independent images."""
    return grouping.Grouping(np.arange(images), "images", images)


def mean_score(values) -> Measured:
    """A score that is the mean of values [S, N]: every influence is exact."""
    values = np.asarray(values, float)
    scores = values.mean(axis=1)
    return Measured(scores, (values - scores[:, None]) / values.shape[1])


# Influences


def test_influences_of_a_ratio_by_hand():
    """IoU (30 + 10) / (50 + 50): an image adds its own hits and union."""
    hits, union = np.array([30, 10]), np.array([50, 50])
    counts = np.array([[hits, union, hits]])[..., None]  # all predictions are hits
    found = statistics.measure(counts)
    assert found.scores == pytest.approx([0.4])
    assert found.influences[0] == pytest.approx((hits - 0.4 * union) / 100)


@pytest.mark.parametrize("scored", [None, (0, 2)])
@pytest.mark.parametrize("metric", SCORES)
def test_scores_are_those_of_the_summary_and_influences_of_the_jackknife(
    metric, scored
):
    images = 400
    rng = np.random.default_rng(0)
    confusions = rng.integers(1, 50, (images, 4, 4))
    counts = np.stack([metrics.image_counts(c, scored) for c in confusions], axis=1)
    found = statistics.measure(counts[None], scored, metric)

    def summary(matrices):
        found = metrics.summary(matrices.sum(axis=0), classes=scored)
        if metric == "mean_precision":  # which the summary lacks
            return np.nanmean(found["precision"])
        return found[metric]

    assert found.scores[0] == pytest.approx(summary(confusions))
    assert found.influences.sum() == pytest.approx(0, abs=1e-9)
    # Leaving an image out changes the score by its influence, to within 1 / N of it
    for image in range(0, images, 40):
        without = summary(np.delete(confusions, image, axis=0))
        change = found.scores[0] - without
        tolerance = 0.02 * np.abs(found.influences).max()
        assert found.influences[0, image] == pytest.approx(change, abs=tolerance)


def test_unknown_metric_is_named():
    with pytest.raises(ValueError, match="miuo"):
        statistics.measure(np.ones((1, 3, 2, 2)), metric="miuo")


# One comparison


def test_one_seed_is_the_paired_t_test():
    rng = np.random.default_rng(1)
    ours, base = rng.normal(size=(2, 1, 30))
    found = compare(mean_score(ours), mean_score(base), alone(30))
    test = stats.ttest_rel(ours[0], base[0])
    assert found.p_value() == pytest.approx(test.pvalue)
    assert found.interval() == pytest.approx(tuple(test.confidence_interval()))
    assert found.p_value(0.1, "above") == pytest.approx(
        stats.ttest_rel(ours[0] - 0.1, base[0], alternative="greater").pvalue
    )


@pytest.mark.parametrize("seeds", [(3, 3), (5, 2)])
def test_seeds_alone_are_the_welch_test(seeds):
    """All images alike: only trainings differ."""
    rng = np.random.default_rng(2)
    scores = [rng.normal(size=number) for number in seeds]
    arms = [mean_score(np.repeat(each[:, None], 40, axis=1)) for each in scores]
    found = compare(*arms, alone(40))
    test = stats.ttest_ind(*scores, equal_var=False)
    assert found.seeds == seeds
    assert found.freedom == pytest.approx(test.df)
    assert found.p_value() == pytest.approx(test.pvalue)
    assert found.interval(0.9) == pytest.approx(tuple(test.confidence_interval(0.9)))


def test_the_interaction_is_counted_once():
    """Against the mean squares of the two-way tables, cell by cell."""
    rng = np.random.default_rng(3)
    groups, shared = 25, rng.normal(size=25)
    tables = [
        0.8 * rng.normal(size=(seeds, 1)) + shared + rng.normal(size=(seeds, groups))
        for seeds in (4, 3)
    ]
    found = compare(*map(mean_score, tables), alone(groups))
    of_seeds, interaction = [], []
    for table in tables:
        seeds, mean = len(table), table.mean()
        rows, columns = table.mean(axis=1), table.mean(axis=0)
        of_seeds.append(sum((row - mean) ** 2 for row in rows) / (seeds - 1) / seeds)
        square = sum(
            (table[s, g] - rows[s] - columns[g] + mean) ** 2
            for s in range(seeds)
            for g in range(groups)
        )
        interaction.append(square / ((seeds - 1) * (groups - 1)) / (seeds * groups))
    difference = tables[0].mean(axis=0) - tables[1].mean(axis=0)
    of_groups = difference.var(ddof=1) / groups
    variance = of_groups + sum(of_seeds) - sum(interaction)
    assert found.error**2 == pytest.approx(variance)
    assert found.freedom == pytest.approx(
        variance**2 / (of_groups**2 / 24 + of_seeds[0] ** 2 / 3 + of_seeds[1] ** 2 / 2)
    )
    squares = sum((part**2).sum() for part in found.parts.values())
    assert squares == pytest.approx(variance)
    assert found.shares == pytest.approx(difference / groups)


def test_no_seed_variance_is_made_up_where_interaction_explains_it():
    """Trainings that are equal on average differ in their interaction only."""
    rng = np.random.default_rng(4)
    tables = rng.normal(size=(2, 3, 30))
    tables -= tables.mean(axis=2, keepdims=True)
    found = compare(*map(mean_score, tables), alone(30))
    test = stats.ttest_rel(*tables.mean(axis=1))
    assert found.freedom == 29
    assert found.p_value() == pytest.approx(test.pvalue)


def test_what_all_arms_vary_is_a_floor_for_each():
    """Three arms of 3, 3 and 2 trainings; all images alike, so only trainings differ.

    Variances 1, 9 and 2 with 2, 2 and 1 degrees of freedom: their mean is 22 / 5. The
    first has that; the second has its own, which is more than twice as much.
    """
    scores = [np.array([-1.0, 0, 1]), np.array([-3.0, 0, 3]), np.array([4.0, 6])]
    pooled = statistics.pool(scores)
    assert (pooled.value, pooled.freedom) == (22 / 5, 5)
    assert pooled.of_arm(scores[0]) == (22 / 5, 5)
    assert pooled.of_arm(scores[1]) == (9, 2)
    assert pooled.of_arm(np.array([-2.5, 0, 2.5])) == (6.25, 5)
    arms = [mean_score(np.repeat(each[:, None], 40, axis=1)) for each in scores]
    found = compare(arms[1], arms[0], alone(40), pooled=pooled)
    variances = [9 / 3, 22 / 5 / 3]
    assert found.error**2 == pytest.approx(sum(variances))
    expected = sum(variances) ** 2 / (variances[0] ** 2 / 2 + variances[1] ** 2 / 5)
    assert found.freedom == pytest.approx(expected)
    squares = sum((part**2).sum() for part in found.parts.values())
    assert squares == pytest.approx(found.error**2)
    assert statistics.pool(scores[:2]) is None
    assert statistics.pool([scores[0], scores[1], scores[2][:1]]) is None


def test_equal_trainings_have_the_spread_of_the_other_arms():
    same = mean_score(np.zeros((3, 40)))
    other = mean_score(np.ones((3, 40)))
    pooled = statistics.pool([np.zeros(3), np.ones(3), np.array([-1.0, 0, 1])])
    found = compare(same, other, alone(40), pooled=pooled)
    assert found.error**2 == pytest.approx(2 * (2 / 6) / 3)
    squares = sum((part**2).sum() for part in found.parts.values())
    assert squares == pytest.approx(found.error**2)


def test_different_images_are_the_welch_test():
    """One training each, on images that have nothing to do with each other."""
    rng = np.random.default_rng(31)
    values = [rng.normal(size=(1, 30)), 0.3 + 2 * rng.normal(size=(1, 24))]
    groupings = (alone(30), alone(24))
    found = statistics.compare_apart(*map(mean_score, values), groupings)
    test = stats.ttest_ind(values[0][0], values[1][0], equal_var=False)
    assert found.freedom == pytest.approx(test.df)
    assert found.interval() == pytest.approx(tuple(test.confidence_interval()))
    squares = sum((part**2).sum() for part in found.parts.values())
    assert squares == pytest.approx(found.error**2)
    assert "clear" not in found.verdict


def test_the_same_trainings_on_other_images_are_the_paired_t_test():
    """All images alike: what makes a training lucky cancels."""
    rng = np.random.default_rng(32)
    luck = rng.normal(size=4)
    scores = [luck + 0.1 * rng.normal(size=4), luck + 0.1 * rng.normal(size=4)]
    arms = [
        mean_score(np.repeat(each[:, None], number, axis=1))
        for each, number in zip(scores, (30, 24))
    ]
    groupings = (alone(30), alone(24))
    found = statistics.compare_apart(*arms, groupings, same_trainings=True)
    test = stats.ttest_rel(*scores)
    assert found.interval() == pytest.approx(tuple(test.confidence_interval()))
    apart = statistics.compare_apart(*arms, groupings)
    test = stats.ttest_ind(*scores, equal_var=False)
    assert apart.p_value() == pytest.approx(test.pvalue)
    for each in (found, apart):
        squares = sum((part**2).sum() for part in each.parts.values())
        assert squares == pytest.approx(each.error**2)


def test_numbers_of_trainings_are_the_welch_test():
    rng = np.random.default_rng(33)
    ours, base = rng.normal(size=5), 1 + 3 * rng.normal(size=3)
    test = stats.ttest_ind(ours, base, equal_var=False)
    found = statistics.compare_trainings(ours, base)
    assert found.interval() == pytest.approx(tuple(test.confidence_interval()))
    assert found.p_value() == pytest.approx(test.pvalue)
    assert not found.is_conclusive
    assert statistics.compare_trainings(ours, base, independent=math.inf).is_conclusive
    with pytest.raises(ValueError, match="one training"):
        statistics.compare_trainings(ours[:1], base)


def test_an_arm_against_itself_differs_by_nothing():
    arm = mean_score(np.random.default_rng(5).normal(size=(1, 30)))
    found = compare(arm, arm, alone(30))
    assert (found.interval(), found.p_value()) == ((0.0, 0.0), 1.0)
    assert found.verdict == "open"


@pytest.mark.parametrize(
    ("seeds", "images", "words"),
    [
        (3, 30, "clearly ahead"),
        (1, 30, "ahead on these images; another start may turn it around"),
        (3, 4, "ahead on these images, which are too few to tell"),
        (1, 4, "ahead on these images, which are too few to tell"),
    ],
)
def test_a_lead_is_clear_with_several_seeds_and_enough_images_only(
    seeds, images, words
):
    rng = np.random.default_rng(6)
    base = rng.normal(size=(seeds, images)) / 100
    for sign, said in ((1, words), (-1, words.replace("ahead", "behind"))):
        found = compare(mean_score(base + sign), mean_score(base), alone(images))
        assert found.p_value() < 0.001
        assert found.verdict == said
        assert found.is_clear == said.startswith("clearly")


def test_the_basis_says_what_is_covered():
    ours, base = np.random.default_rng(7).normal(size=(2, 3, 40))
    images = compare(mean_score(ours), mean_score(base[:2]), alone(40))
    assert images.basis == (
        "covers the choice of 40 images and the randomness of 3 and 2 seeds"
    )
    numbers = np.repeat(np.arange(20), 2)
    pairs = grouping.Grouping(numbers, "sequences", 20.0)
    found = compare(mean_score(ours[:1]), mean_score(base[:1]), pairs)
    assert found.basis == (
        "covers the choice of 40 images of 20 sequences, not the randomness of training"
    )
    video = grouping.Grouping(numbers, "blocks", 12.3, 1.2)
    assert "40 images of video (worth 12 independent ones)" in (
        compare(mean_score(ours), mean_score(base), video).basis
    )


def test_chance_that_a_new_training_wins():
    """Trainings alone: the new two and the difference of the means are uncertain."""
    scores = np.array([0.5, 0.52, 0.54]), np.array([0.49, 0.5, 0.51])
    arms = [mean_score(np.repeat(each[:, None], 30, axis=1)) for each in scores]
    found = compare(*arms, alone(30))
    spread = math.sqrt((0.02**2 + 0.01**2) * (1 + 1 / 3))
    assert found.wins == pytest.approx(stats.t.cdf(0.02 / spread, found.freedom))
    assert math.isnan(
        compare(mean_score([[0, 1]]), mean_score([[1, 1]]), alone(2)).wins
    )


def test_a_factor_is_a_difference_of_logarithms():
    rng = np.random.default_rng(8)
    base = 0.3 + 0.001 * rng.normal(size=(3, 40))
    ours, others = mean_score(2 * base).log(), mean_score(base).log()
    found = compare(ours, others, alone(40))
    assert math.exp(found.difference) == pytest.approx(2)
    # Of a ratio of means, the variance is that of log(x) for every image, nearly
    logs = mean_score(np.log(2 * base))
    assert found.error == pytest.approx(
        compare(logs, mean_score(np.log(base)), alone(40)).error, rel=1e-2
    )
    assert statistics.judge(found, math.log(1.8), math.log(2.2)) == statistics.HOLDS


# Groups


def test_images_outside_of_sequences_are_their_own_group():
    found = grouping.group_images("abcd", {}, np.zeros((1, 4)))
    assert (found.kind, found.groups, found.independent) == ("images", 4, 4)


def test_an_image_may_be_named_like_a_sequence():
    ids = ["x1", "x2", "a", *map(str, range(20))]
    found = grouping.group_images(ids, {"x1": "a", "x2": "a"}, np.zeros((1, 23)))
    assert found.numbers.tolist() == [0, 0, *range(1, 22)]


def test_copies_of_images_in_their_group_say_nothing_new():
    """Counted as images of their own, five copies seem surer by the root of 5."""
    ours, base = np.random.default_rng(2).normal(size=(2, 1, 40))
    copies = [mean_score(np.repeat(values, 5, axis=1)) for values in (ours, base)]
    grouped = grouping.Grouping(np.repeat(np.arange(40), 5), "sequences", 40)
    once = compare(mean_score(ours), mean_score(base), alone(40))
    assert compare(*copies, grouped).interval() == pytest.approx(once.interval())
    ratio = compare(*copies, alone(200)).error / once.error
    assert ratio == pytest.approx(math.sqrt(39 / 199))


def test_many_sequences_are_the_groups_and_unequal_ones_count_less():
    ids = [str(number) for number in range(40)]
    sequences = {id: f"s{min(int(id), 20)}" for id in ids}  # the last has 20 images
    found = grouping.group_images(ids, sequences, np.zeros((1, 40)))
    assert (found.kind, found.groups, found.inflation) == ("sequences", 21, 1)
    assert found.independent == pytest.approx(40**2 / (20 + 20**2))


def autoregression(rng, rows: int, images: int, rho: float) -> np.ndarray:
    values = rng.normal(size=(rows, images))
    for image in range(1, images):
        new = math.sqrt(1 - rho**2) * values[:, image]
        values[:, image] = rho * values[:, image - 1] + new
    return values


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_a_video_is_worth_what_its_correlation_leaves(rho):
    """Correlation time (1 + rho) / (1 - rho); blocks are inflated by what is left."""
    images = 2000
    series = autoregression(np.random.default_rng(9), 20, images, rho)
    ids = [str(number) for number in range(images)]
    found = grouping.group_images(ids, dict.fromkeys(ids, "video"), series)
    time = images / found.independent
    assert time == pytest.approx((1 + rho) / (1 - rho), rel=0.15)
    assert (found.kind, found.groups) == ("blocks", 20)
    assert (np.diff(found.numbers) >= 0).all()
    r, length = (time - 1) / (time + 1), 100
    of_mean = sum(r ** abs(a - b) for a in range(length) for b in range(length))
    assert found.inflation == pytest.approx(time * length / of_mean)


def test_short_and_slow_videos_are_worth_little():
    ids = [str(number) for number in range(100)]
    slow = np.sin(np.arange(100) / 20)[None]
    found = grouping.group_images(ids, dict.fromkeys(ids, "video"), slow)
    assert found.groups == 5
    assert found.independent < 5


def test_two_videos_are_cut_apart():
    ids = [str(number) for number in range(60)]
    sequences = {id: "ab"[int(id) % 2] for id in ids}  # their images alternate
    found = grouping.group_images(
        ids, sequences, np.random.default_rng(0).normal(size=(2, 60))
    )
    assert found.kind == "blocks"
    for number in range(found.groups):
        members = np.flatnonzero(found.numbers == number)
        assert len({sequences[ids[m]] for m in members}) == 1


def test_one_image_has_no_interval():
    with pytest.raises(ValueError, match="1 image"):
        grouping.group_images("a", {}, np.zeros((1, 1)))
    one = grouping.Grouping(np.zeros(3, int), "sequences", 1.0)
    with pytest.raises(ValueError, match="one group"):
        compare(mean_score([[1, 2, 3]]), mean_score([[1, 2, 2]]), one)


def test_what_is_left_of_the_correlation_widens_the_interval():
    """Four blocks that contribute 1, -1, 2 and -2, inflated 1.5 times."""
    blocks = grouping.Grouping(np.repeat(np.arange(4), 3), "blocks", 6.0, 1.5)
    values = 4 * np.repeat([1.0, -1.0, 2.0, -2.0], 3)[None]
    found = compare(mean_score(values), mean_score(values * 0), blocks)
    assert found.error**2 == pytest.approx(1.5 * 4 / (4 - 1.5) * (1 + 1 + 4 + 4))
    assert found.freedom == 3


# Claims


def of_interval(low: float, high: float, seeds: int = 3) -> statistics.Comparison:
    """A comparison with this 90 % interval."""
    spread = np.random.default_rng(10).normal(size=(seeds, 30))
    values = spread - spread.mean(axis=1, keepdims=True)
    unit = compare(mean_score(values), mean_score(values * 0), alone(30))
    width = unit.interval(0.9)[1]
    scaled = values * (high - low) / 2 / width + (low + high) / 2
    return compare(mean_score(scaled), mean_score(values * 0), alone(30))


@pytest.mark.parametrize(
    ("expected", "low", "high", "judged"),
    [
        ("same", -0.009, 0.009, "holds"),
        ("same", -0.009, 0.011, "open"),
        ("same", 0.011, 0.03, "fails"),
        ("not higher", -0.05, 0.009, "holds"),
        ("not higher", 0.002, 0.009, "holds"),
        ("not higher", 0.011, 0.02, "fails"),
        ("not lower", -0.009, 0.3, "holds"),
        ("not lower", -0.3, -0.011, "fails"),
        ("higher", 0.01, 0.02, "holds"),
        ("higher", 0.0001, 0.02, "open"),  # its 95 % interval includes 0
        ("lower", 0.01, 0.02, "fails"),
        ("lower", -0.02, 0.03, "open"),
    ],
)
def test_claims_are_judged_by_one_sided_tests(expected, low, high, judged):
    region = statistics.region(expected, 0.01)
    found = of_interval(low, high)
    assert found.interval(0.9) == pytest.approx((low, high))
    assert statistics.judge(found, *region) == judged
    if judged != "open":
        softly = statistics.judge(of_interval(low, high, seeds=1), *region)
        assert softly == {"holds": "seems to hold", "fails": "seems to fail"}[judged]


@pytest.mark.parametrize(
    ("expected", "region"),
    [
        ("same", (1.8, 2.2)),
        ("higher", (2, math.inf)),
        ("not higher", (0, 2.2)),
        ("not lower", (1.8, math.inf)),
        ("lower", (0, 2)),
    ],
)
def test_a_factor_is_held_against_the_ratio(expected, region):
    found = np.exp(statistics.region(expected, 0.2, factor=2.0))
    assert found == pytest.approx(region)


# Families


def independent_family(rng, number: int, effect: float) -> list[statistics.Comparison]:
    """Comparisons of unrelated studies."""
    family = []
    for each in range(number):
        values = rng.normal(size=(1, 50))
        found = compare(
            mean_score(values + effect * (each + 1)),
            mean_score(values * 0),
            alone(50),
            (f"ours {each}", f"base {each}"),
        )
        parts = {(*name, str(each)): part for name, part in found.parts.items()}
        family.append(
            statistics.Comparison(**{**vars(found), "parts": parts, "seeds": (3, 3)})
        )
    return family


def test_unrelated_comparisons_are_adjusted_as_by_sidak():
    family = independent_family(np.random.default_rng(11), 4, 0.15)
    found = families.adjust(family, resamples=100_000)
    order = sorted(range(4), key=lambda n: family[n].p_value())
    at_least = 0.0
    for position, number in enumerate(order):
        left = 4 - position
        at_least = max(at_least, 1 - (1 - family[number].p_value()) ** left)
        assert found[number].p == pytest.approx(at_least, abs=0.005)
    sidak = 0.95**0.25
    for each in found:
        low, high = each.comparison.interval(sidak)
        assert each.high == pytest.approx(high, abs=0.01)
        if not each.is_clear:
            assert each.low == pytest.approx(low, abs=0.01)
        else:  # agrees with the step-down test
            assert each.low == pytest.approx(max(low, 0), abs=0.01)


def test_the_same_comparison_twice_costs_nothing():
    rng = np.random.default_rng(12)
    ours, base = (mean_score(each) for each in rng.normal(size=(2, 3, 30)))
    one = compare(ours, base, alone(30))
    for each in families.adjust([one, one, one], resamples=50_000):
        assert each.p == pytest.approx(one.p_value(), abs=0.01)
        assert (each.low, each.high) == pytest.approx(one.interval(), rel=0.05)


def test_a_claim_in_a_family_is_judged_by_its_simultaneous_interval():
    family = independent_family(np.random.default_rng(13), 3, 0.3)
    for each in families.adjust(family):
        low, high = each.low, each.high
        assert each.judge(low - 0.01, high + 0.01) == "holds"
        assert each.judge(high + 0.01, math.inf) == "fails"
        assert each.judge((low + high) / 2, math.inf) == "open"


def test_no_difference_is_not_adjusted_to_one():
    same = mean_score(np.random.default_rng(14).normal(size=(3, 30)))
    (found,) = families.adjust([compare(same, same, alone(30))])
    assert found.p == 1.0
    assert not found.is_clear


def test_sign_flips_are_those_of_scipy():
    shares = np.random.default_rng(15).normal(0.3, 1, size=10)
    exact = stats.permutation_test(
        (shares,), np.sum, permutation_type="samples", n_resamples=np.inf
    )
    assert families.sign_flip(shares) == pytest.approx(exact.pvalue)
    assert families.sign_flip(shares, resamples=1000) == pytest.approx(
        exact.pvalue, abs=0.05
    )


def test_relabelling_by_enumeration():
    assert families.relabel(np.array([4.0, 5, 6]), np.array([1.0, 2, 3])) == 2 / 20
    ours, base = np.array([0.3, 0.9, 0.4, 0.8]), np.array([0.1, 0.5])
    every = np.concatenate([ours, base])
    observed = abs(ours.mean() - base.mean())
    as_far = 0
    for chosen in itertools.combinations(range(6), 4):
        others = [n for n in range(6) if n not in chosen]
        found = abs(every[list(chosen)].mean() - every[others].mean())
        as_far += found >= observed - 1e-12
    assert families.relabel(ours, base) == pytest.approx(as_far / 15)
    sampled = families.relabel(ours, base, resamples=14)
    assert 1 / 15 <= sampled <= 1


# What would decide


def test_power_is_that_of_simulated_welch_tests():
    rng = np.random.default_rng(16)
    scores = np.array([0.0, 0.02, 0.04]), np.array([0.0, 0.01, 0.02])
    arms = [mean_score(np.repeat(each[:, None], 30, axis=1)) for each in scores]
    found = compare(*arms, alone(30))  # difference .01, spreads .02 and .01
    ours, base = rng.normal(0.01, 0.02, (4000, 40)), rng.normal(0, 0.01, (4000, 40))
    tests = stats.ttest_ind(ours, base, axis=1, equal_var=False)
    clear = (tests.pvalue <= 0.05) & (tests.statistic > 0)
    assert found.power((40, 40), 1.0) == pytest.approx(clear.mean(), abs=0.02)
    wanted = statistics.needed(found)
    assert wanted.images is None  # trainings alone are uncertain
    assert found.power((wanted.seeds, wanted.seeds), 1.0) >= 0.8
    assert found.power((wanted.seeds - 1, wanted.seeds - 1), 1.0) < 0.8


def test_images_decide_where_seeds_do_not_differ():
    rng = np.random.default_rng(17)
    image = rng.normal(size=25)
    image = 0.3 + (image - image.mean()) / image.std(ddof=1)
    found = compare(
        mean_score([image, image]), mean_score(np.zeros((2, 25))), alone(25)
    )
    wanted = statistics.needed(found)
    assert wanted.seeds is None
    # The paired t test with mean .3 and deviation 1
    for images, enough in ((wanted.images, True), (wanted.images - 2, False)):
        effect = 0.3 * math.sqrt(images)
        power = stats.nct.sf(stats.t.ppf(0.975, images - 1), images - 1, effect)
        assert (power >= 0.8) == enough


def test_one_seed_cannot_be_planned_with():
    ours, base = np.random.default_rng(18).normal(size=(2, 1, 30))
    assert statistics.needed(
        compare(mean_score(ours), mean_score(base), alone(30))
    ) is (None)


# The winner


def counts_of(hits: np.ndarray) -> np.ndarray:
    """[3, N, 1] of images of 100 pixels: the score is the mean of hits / 100."""
    full = np.full(len(hits), 100.0)
    return np.stack([hits, full, hits])[..., None]


def test_a_stable_choice_needs_no_correction():
    """The winner is the best without any tenth and any training."""
    rng = np.random.default_rng(19)
    arms = {
        name: [counts_of(rng.uniform(low, low + 20, 40)) for _ in range(3)]
        for name, low in (("base", 20), ("best", 70), ("second", 45))
    }
    found = winner.find_winner(arms, "base", alone(40))
    assert (found.name, found.runner_up) == ("best", "second")
    assert found.chosen == {"best": 1.0}
    means = {
        name: np.mean([c[0].mean() / 100 for c in listed])
        for name, listed in arms.items()
    }
    for plain, corrected, other in (
        (found.over_base, found.corrected_over_base, "base"),
        (found.over_runner_up, found.corrected_over_runner_up, "second"),
    ):
        assert plain.difference == pytest.approx(means["best"] - means[other])
        assert corrected.difference == pytest.approx(plain.difference)
        assert corrected.error == pytest.approx(plain.error)
    second = winner.find_winner(arms | {"base": arms["best"]}, "base", alone(40))
    assert (second.name, second.over_base) == ("base", None)
    with pytest.raises(ValueError, match="two arms"):
        winner.find_winner({"base": arms["base"]}, "base", alone(40))


def test_the_step_is_chosen_on_other_images():
    """Two steps, either good on one half; the halves decide against each other."""
    half = np.repeat([90.0, 10.0], 20)
    steps = np.stack([counts_of(half), counts_of(half[::-1])])
    same = np.stack([counts_of(np.full(40, 50.0))] * 2)
    found = winner.find_winner({"a": [steps], "b": [same]}, "b", alone(40))
    assert found.over_runner_up.difference == pytest.approx(0)
    # Without a tenth, the step that is bad there looks better
    assert found.corrected_over_base.difference < -0.3


def test_every_fold_has_the_step_that_its_own_images_choose():
    """Two folds: one scores 50 and then 80 %, the other 80 and then 50 %."""
    steps = np.stack([counts_of(np.full(40, hits)) for hits in (50.0, 80.0)])
    order = np.random.default_rng(22).permutation(40)
    folds = [
        winner.Part(order[:30], steps[:, :, :30]),
        winner.Part(order[30:], steps[::-1, :, :10]),
    ]
    one_step = counts_of(np.where(np.isin(np.arange(40), order[:30]), 80.0, 50.0))
    base = counts_of(np.full(40, 10.0))
    arms = {"folds": [folds], "one step": [one_step], "base": [base]}
    found = winner.find_winner(arms, "base", alone(40))
    assert (found.name, found.runner_up) == ("folds", "one step")
    assert found.over_base.difference == pytest.approx(0.8 - 0.1)
    assert found.over_runner_up.difference == pytest.approx(0.8 - 0.725)
    assert found.corrected_over_runner_up.difference == pytest.approx(0.8 - 0.725)


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_luck_of_the_choice_is_taken_off(seeds):
    """Six equal arms of three steps: the lead over the base is luck."""
    rng = np.random.default_rng(20)
    plain, corrected = [], []
    for _ in range(60):
        arms = {}
        for name in "abcdef":
            starts = rng.normal(50, 2 if seeds > 1 else 0, (seeds, 1, 1))
            hits = np.clip(starts + rng.normal(0, 8, (seeds, 3, 30)), 0, 100)
            arms[name] = [np.stack([counts_of(k) for k in run]) for run in hits]
        found = winner.find_winner(arms, "a", alone(30))
        if found.over_base is not None:
            plain.append(found.over_base.difference)
        corrected.append(found.corrected_over_base.difference)
    assert np.mean(plain) > 0.012
    assert abs(np.mean(corrected)) < 3 * np.std(corrected) / math.sqrt(60)


# The proof, in short


@pytest.mark.parametrize(
    "name",
    ["20 images", "50 images, other arm, seeds vary a tenth", "too few: 4 images"],
)
def test_simulated_studies_are_covered(name):
    studies = 400
    command = [sys.executable, TOOL, "--studies", str(studies), "--only", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (row,) = (line for line in done.stdout.splitlines() if line.startswith(f"| {name}"))
    coverage, _, clear = (cell.strip(" %") for cell in row.split("|")[2:5])
    tolerance = 3 * math.sqrt(0.05 * 0.95 / studies)
    assert 0.93 - tolerance <= float(coverage) / 100 <= 0.97 + tolerance
    if name.startswith("too few"):
        assert float(clear) == 0


@pytest.mark.slow
def test_the_most_power_is_that_of_students_test():
    """8 trainings of each of two arms, one of them 3 standard errors ahead."""
    name = "power: 3 errors, 8 seeds"
    command = [sys.executable, TOOL, "--studies", "2", "--only", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    cell = done.stdout.splitlines()[-1].split("|")[-2]
    rng = np.random.default_rng(23)
    ahead = rng.normal(3 * math.sqrt(2 / 8), 1, (100_000, 8))
    found = stats.ttest_ind(ahead, rng.normal(0, 1, (100_000, 8)), axis=1).pvalue
    share = (found <= 0.05).mean()
    assert float(cell.strip(" %")) / 100 == pytest.approx(share, abs=0.005)
