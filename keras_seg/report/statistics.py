"""How sure a difference between two arms is, over new images and new trainings.

A score such as the mIoU is a ratio over the whole data set. It is linearised: each
image gets an influence, the derivative of the score by the image's weight (the
infinitesimal jackknife: Jaeckel 1972; Efron 1982). From then on a score is a mean over
images, and a study a table of trainings by groups of images, both drawn at random:

    value[training, group] = arm + training + group + training x group

All arms share the groups; trainings (seeds) are independent between arms, which is
conservative where arms share a seed and with it some luck. Intervals use the variance
components of this table and a t quantile, because seeds are few. Knows NumPy and SciPy
only; `tools/coverage.py` shows what the intervals cover.

Shapes: N images, G groups of them, S trainings of an arm, C classes.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import stats

from keras_seg.report.grouping import FEWEST_GROUPS, Grouping

LEVEL = 0.95
HOLDS, FAILS, OPEN = "holds", "fails", "open"
SEEMS_TO_HOLD, SEEMS_TO_FAIL = "seems to hold", "seems to fail"


# Scores and influences


@dataclass(frozen=True)
class Measured:
    """The scores of an arm's trainings and what each image contributes to them.

    Attributes:
        scores: float64 [S].
        influences: float64 [S, N], the change of a training's score per share of
            weight added to an image. They sum to 0 over the images.
    """

    scores: np.ndarray
    influences: np.ndarray

    def log(self) -> "Measured":
        """Of the logarithm of the score: differences become ratios (delta method)."""
        return Measured(np.log(self.scores), self.influences / self.scores[:, None])


def measure(
    counts: np.ndarray, classes: Sequence[int] | None = None, metric: str = "miou"
) -> Measured:
    """Scores and influences of an arm's trainings.

    Args:
        counts: [S, 3, N, C] pixels of intersection, truth and prediction.
        classes: ids that are evaluated; None is all.
        metric: one of SCORES.
    """
    if metric not in SCORES:
        raise ValueError(f"metric {metric!r} is none of {sorted(SCORES)}")
    by_image = np.moveaxis(np.asarray(counts, np.float64), -2, -3)  # [S, N, 3, C]
    total = by_image.sum(axis=-3)  # [S, 3, C]
    step = 1e-4  # central differences: the error is of the order of its square
    above = score(total[:, None] + step * by_image, classes, metric)
    below = score(total[:, None] - step * by_image, classes, metric)
    return Measured(score(total, classes, metric), (above - below) / (2 * step))


def score(
    counts: np.ndarray, classes: Sequence[int] | None = None, metric: str = "miou"
) -> np.ndarray:
    """float64 [...]: a score of counts [..., 3, C]; NaN where there is no pixel."""
    ids = range(counts.shape[-1]) if classes is None else classes
    is_foreground = np.array(ids) > 0
    hits, true, said = np.moveaxis(counts[..., list(ids)], -2, 0)
    return SCORES[metric](hits, true, said, is_foreground)


def _mean_ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """[...]: the mean of part / whole [..., C] over those whose whole is not 0."""
    ratio = np.divide(part, whole, out=np.zeros(whole.shape), where=whole > 0)
    present = (whole > 0).sum(axis=-1)
    total = ratio.sum(axis=-1)
    return np.divide(
        total, present, out=np.full(total.shape, np.nan), where=present > 0
    )


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """[...]: the sum of part [..., C] by that of whole."""
    return _mean_ratio(part.sum(axis=-1, keepdims=True), whole.sum(-1, keepdims=True))


def _two_class_iou(hits, true, said, fg) -> np.ndarray:
    """[...]: the mean of a class' IoU and that of all the rest, over the foreground."""
    total = true.sum(axis=-1, keepdims=True)
    union, rest = true + said - hits, total - hits
    both = hits * rest + (total - union) * union  # hits/union + (total - union)/rest
    return _mean_ratio(both[..., fg], (2 * union * rest)[..., fg])


def _body_f1(hits, true, said, fg) -> np.ndarray:
    """[...]: F1 of the foreground as one class; NaN where the background is not scored.

    What is neither true nor predicted background is foreground in both.
    """
    if fg.all():
        return np.full(hits.shape[:-1], np.nan)
    total = true.sum(axis=-1)
    true, said = (total - part[..., ~fg].sum(axis=-1) for part in (true, said))
    both = true + said - total + hits[..., ~fg].sum(axis=-1)
    return _mean_ratio(2 * both[..., None], (true + said)[..., None])


def _weighted(part: np.ndarray, whole: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[...]: the mean of part / whole [..., C], weighted."""
    ratio = np.divide(part, whole, out=np.zeros(whole.shape), where=whole > 0)
    return _ratio(weights * ratio, weights)


# The scores of `metrics.summary` (the last one excepted), from pixels of intersection,
# truth and prediction [..., C] and, [C], which classes are foreground.
SCORES = {
    "miou": lambda hits, true, said, fg: _mean_ratio(hits, true + said - hits),
    "miou_fg": lambda hits, true, said, fg: _mean_ratio(
        hits[..., fg], (true + said - hits)[..., fg]
    ),
    "fwiou": lambda hits, true, said, fg: _weighted(hits, true + said - hits, true),
    "pixel_accuracy": lambda hits, true, said, fg: _ratio(hits, true),
    "f1_micro": lambda hits, true, said, fg: _ratio(hits, true),
    "mean_accuracy": lambda hits, true, said, fg: _mean_ratio(hits, true),
    "f1_macro": lambda hits, true, said, fg: _mean_ratio(2 * hits, true + said),
    "f1_weighted": lambda hits, true, said, fg: _weighted(2 * hits, true + said, true),
    "iou_ovr2": _two_class_iou,
    "f1_micro_fg": lambda hits, true, said, fg: _ratio(
        2 * hits[..., fg], (true + said)[..., fg]
    ),
    "precision_micro_fg": lambda hits, true, said, fg: _ratio(
        hits[..., fg], said[..., fg]
    ),
    "recall_micro_fg": lambda hits, true, said, fg: _ratio(
        hits[..., fg], true[..., fg]
    ),
    "f1_body": _body_f1,
    "mean_precision": lambda hits, true, said, fg: _mean_ratio(hits, said),
}
# Of one class they are its IoU, recall and precision.
OF_CLASS = {"iou": "miou", "recall": "mean_accuracy", "precision": "mean_precision"}


# One comparison


@dataclass(frozen=True)
class SeedVariance:
    """The variance of a score between trainings, from several arms together.

    Attributes:
        value: mean over the arms, weighted by their degrees of freedom.
        freedom: its degrees of freedom.
    """

    value: float
    freedom: float

    def of_arm(self, arm: np.ndarray) -> tuple[float, float]:
        """Variance and degrees of freedom for the scores [S] of one of the arms.

        Arms may differ in how much they vary, and from few trainings it cannot be told
        whether they do. So what all arms say is a floor for each, and an arm whose own
        variance is more than `ODD` times that stands for itself. With one arm of seven
        varying twice as much, intervals so cover 93 %, those from the mean alone 86 %.
        """
        own = float(arm.var(ddof=1))
        if own > ODD * self.value:
            return own, len(arm) - 1.0
        return max(own, self.value), self.freedom


ODD = 2.0


def pool(arms: Sequence[np.ndarray]) -> SeedVariance | None:
    """The common variance of the scores [S] of each of a stage's arms.

    None of fewer than three arms with several trainings: two are compared with each
    other's spread anyhow.
    """
    several = [arm for arm in arms if len(arm) > 1 and np.isfinite(arm).all()]
    if len(several) < 3:
        return None
    freedom = float(sum(len(arm) - 1 for arm in several))
    squares = sum(float(((arm - arm.mean()) ** 2).sum()) for arm in several)
    return SeedVariance(squares / freedom, freedom)


@dataclass(frozen=True)
class Comparison:
    """The difference of two arms' expected scores.

    Attributes:
        difference: mean over our trainings minus that over the base's.
        error: its standard error, over new images and, with several seeds, trainings.
        freedom: degrees of freedom of the error.
        independent: independent observations that the images are worth.
        images, groups: number of images and of groups.
        kind: of the groups, as in `Grouping`; "apart" where the arms' images differ,
            "trainings" where there are none.
        seeds: trainings of ours and of the base.
        of_groups: variance of the difference over draws of groups, the interaction with
            the trainings included.
        of_seeds: variance of each arm's mean over draws of trainings, as it shows in
            these images, the interaction included; 0 for one seed.
        of_interaction: the interaction's part in each of the two, for each arm.
        seed_freedom: degrees of freedom of `of_seeds`; 0 for one seed.
        parts: {what is drawn: contributions}: uncorrelated parts of the difference's
            deviation, whose squares sum to error**2: of the groups [G], and of each
            arm's trainings [S], for this pair of arms.
        shares: [G] the groups' shares of the difference; they sum to it.
    """

    difference: float
    error: float
    freedom: float
    independent: float
    images: int
    groups: int
    kind: str
    seeds: tuple[int, int]
    of_groups: float
    of_seeds: tuple[float, float]
    of_interaction: tuple[float, float]
    seed_freedom: tuple[float, float]
    parts: Mapping[tuple[str, ...], np.ndarray] = field(repr=False)
    shares: np.ndarray = field(repr=False)

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """The difference lies between the two in `level` of studies like this."""
        half = float(self.error * stats.t.ppf((1 + level) / 2, self.freedom))
        return self.difference - half, self.difference + half

    def p_value(self, null: float = 0.0, side: str = "two-sided") -> float:
        """Chance of a difference this far from `null` if that is the true one.

        Args:
            null: of the difference.
            side: "two-sided", or "above" or "below": which alternative is tested.
        """
        if self.error == 0:
            above, below = self.difference <= null, self.difference >= null
            by_side = {"above": above, "below": below, "two-sided": above and below}
            return float(by_side[side])
        t = (self.difference - null) / self.error
        if side == "two-sided":
            return float(2 * stats.t.sf(abs(t), self.freedom))
        return float(stats.t.sf(t if side == "above" else -t, self.freedom))

    @property
    def is_conclusive(self) -> bool:
        """Whether there is enough to call anything clear: groups and seeds."""
        return min(self.seeds) > 1 and self.independent >= FEWEST_GROUPS

    @property
    def is_clear(self) -> bool:
        return self.is_conclusive and self.p_value() <= 1 - LEVEL

    @property
    def verdict(self) -> str:
        return verdict(self, self.p_value())

    @property
    def basis(self) -> str:
        """What the interval covers, a clause."""
        drawn = f"{self.images} images"
        if self.kind == "sequences":
            drawn += f" of {self.groups} sequences"
        elif self.kind == "blocks":
            drawn += f" of video (worth {self.independent:.0f} independent ones)"
        if min(self.seeds) == 1:
            return f"covers the choice of {drawn}, not the randomness of training"
        ours, base = self.seeds
        seeds = f"{ours}" if ours == base else f"{ours} and {base}"
        return f"covers the choice of {drawn} and the randomness of {seeds} seeds"

    @property
    def wins(self) -> float:
        """Chance that a new training of ours beats one of the base on new images.

        On as many images of this population; a t approximation that includes how
        uncertain the difference is. NaN with one seed.
        """
        if min(self.seeds) == 1:
            return math.nan
        new = self.variance((1, 1), 1.0)
        spread = math.sqrt(self.error**2 + new)
        if spread == 0:
            return 0.5 if self.difference == 0 else float(self.difference > 0)
        return float(stats.t.cdf(self.difference / spread, self.freedom))

    def variance(self, seeds: tuple[int, int], times: float) -> float:
        """Of the difference, with so many seeds and so many times the images."""
        return sum(self._terms(seeds, times))

    def _terms(self, seeds: tuple[int, int], times: float) -> list[float]:
        """Variance of the groups, interaction included, and of each arm's seeds."""
        new = [have / want for have, want in zip(self.seeds, seeds)]
        groups = max(self.of_groups - sum(self.of_interaction), 0.0)
        groups += sum(part * ratio for part, ratio in zip(self.of_interaction, new))
        pure = [max(a - b, 0.0) for a, b in zip(self.of_seeds, self.of_interaction)]
        return [groups / times, *(part * ratio for part, ratio in zip(pure, new))]

    def power(self, seeds: tuple[int, int], times: float, level: float = LEVEL):
        """Chance that such a study finds this difference clear, if it is the true one.

        Args:
            seeds: trainings of each arm.
            times: how many times as many images.
            level: of the interval.
        """
        if min(*seeds, *self.seeds) < 2 or self.independent * times < FEWEST_GROUPS:
            return 0.0
        if self.error == 0:
            return float(self.difference != 0)
        terms = self._terms(seeds, times)
        freedoms = [self.groups * times - 1]
        for have, now, want in zip(self.seed_freedom, self.seeds, seeds):
            freedoms.append(have * (want - 1) / (now - 1))
        freedom = sum(terms) ** 2 / sum(t**2 / f for t, f in zip(terms, freedoms))
        effect = abs(self.difference) / math.sqrt(sum(terms))
        found = stats.nct.sf(stats.t.ppf((1 + level) / 2, freedom), freedom, effect)
        return float(np.nan_to_num(found))


def compare(
    ours: Measured,
    base: Measured,
    grouping: Grouping,
    names: tuple[str, str] = ("ours", "base"),
    pooled: SeedVariance | None = None,
) -> Comparison:
    """How much better one arm is than another, and how sure that is.

    Trainings and groups are crossed random effects (Owen 2007); the base and ours share
    the groups. The variance over groups and that over trainings both contain the
    interaction, which is therefore subtracted once. The sum is not let fall below the
    variance over groups. Degrees of freedom: Satterthwaite 1946, Welch 1947.

    Args:
        ours, base: of the same images and metric.
        grouping: of the images.
        names: of the two arms, by which comparisons know that they are of the same.
        pooled: of all arms of the stage; None: each arm's own variance counts.

    Raises:
        ValueError: fewer than two groups.
    """
    if grouping.groups < 2:
        raise ValueError("one group of images; an interval needs at least two")
    arms = (ours, base)
    tables = [grouping.sums(arm.influences) for arm in arms]  # [S, G] each
    difference = float(ours.scores.mean() - base.scores.mean())
    deviations = tables[0].mean(axis=0) - tables[1].mean(axis=0)  # [G]
    of_groups = grouping.factor * float((deviations**2).sum())
    seeds = (len(ours.scores), len(base.scores))
    of_seeds = of_interaction = seed_freedom = (0.0, 0.0)
    if min(seeds) > 1:
        of_seeds, seed_freedom = _seed_parts(arms, pooled)
        of_interaction = (
            _interaction(tables[0], grouping),
            _interaction(tables[1], grouping),
        )
    excess = max(sum(of_seeds) - sum(of_interaction), 0.0)
    variance = of_groups + excess
    freedom = grouping.groups - 1.0
    if excess > 0:
        terms = [of_groups**2 / freedom]
        terms += [part**2 / number for part, number in zip(of_seeds, seed_freedom)]
        freedom = max(variance**2 / sum(terms), min(seeds) - 1.0)
    parts: dict[tuple[str, ...], np.ndarray] = {
        ("images",): deviations * math.sqrt(grouping.factor)
    }
    for name, arm, part, sign in zip(names, arms, of_seeds, (1, -1)):
        if excess > 0:
            scale = math.sqrt(excess * part / sum(of_seeds))
            parts[(name, *sorted(names))] = sign * scale * _direction(arm.scores)
    sizes = np.bincount(grouping.numbers)
    return Comparison(
        difference=difference,
        error=math.sqrt(variance),
        freedom=freedom,
        independent=grouping.independent,
        images=len(grouping.numbers),
        groups=grouping.groups,
        kind=grouping.kind,
        seeds=seeds,
        of_groups=of_groups,
        of_seeds=of_seeds,
        of_interaction=of_interaction,
        seed_freedom=seed_freedom,
        parts=parts,
        shares=difference * sizes / sizes.sum() + deviations,
    )


def _seed_parts(
    arms: Sequence[Measured], pooled: SeedVariance | None
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Variances of both arms' means over draws of trainings; their freedoms."""
    found = [
        pooled.of_arm(arm.scores)
        if pooled
        else (float(arm.scores.var(ddof=1)), len(arm.scores) - 1.0)
        for arm in arms
    ]
    numbers = [len(arm.scores) for arm in arms]
    variances = [value / number for (value, _), number in zip(found, numbers)]
    return (variances[0], variances[1]), (found[0][1], found[1][1])


def _direction(scores: np.ndarray) -> np.ndarray:
    """[S]: the deviations of the scores, of length 1."""
    deviations = scores - scores.mean()
    length = np.linalg.norm(deviations)
    if length == 0:
        return np.full(len(scores), 1 / math.sqrt(len(scores)))
    return deviations / length


def compare_apart(
    ours: Measured,
    base: Measured,
    groupings: tuple[Grouping, Grouping],
    names: tuple[str, str] = ("ours", "base"),
    same_trainings: bool = False,
) -> Comparison:
    """`compare` for scores of different images, such as validation and test images.

    Nothing that makes an image hard cancels. What makes a training lucky does where the
    trainings of both are the same ones, in the same order.

    Args:
        groupings: of the images of ours and of the base.
        same_trainings: whether the scores are of the same trainings.

    Raises:
        ValueError: fewer than two groups of images.
    """
    if min(grouping.groups for grouping in groupings) < 2:
        raise ValueError("one group of images; an interval needs at least two")
    arms, signs = (ours, base), (1, -1)
    tables = [g.sums(arm.influences) for g, arm in zip(groupings, arms)]  # [S, G] each
    seeds = (len(ours.scores), len(base.scores))
    parts: dict[tuple[str, ...], np.ndarray] = {}
    of_images, freedoms = [], []
    for name, table, grouping, sign in zip(names, tables, groupings, signs):
        deviations = table.mean(axis=0) * math.sqrt(grouping.factor)
        parts["images", name] = sign * deviations
        of_images.append(float((deviations**2).sum()))
        freedoms.append(grouping.groups - 1)
    of_seeds = of_interaction = (0.0, 0.0)
    if min(seeds) > 1:
        inter = [_interaction(table, g) for table, g in zip(tables, groupings)]
        of_interaction = (inter[0], inter[1])
        of_seeds = (_of_mean(ours.scores), _of_mean(base.scores))
        if same_trainings:
            of_seeds = (_of_mean(ours.scores - base.scores), 0.0)
            of_interaction = (sum(inter), 0.0)
    excess = max(sum(of_seeds) - sum(of_interaction), 0.0)
    variance = sum(of_images) + excess
    terms = [part**2 / freedom for part, freedom in zip(of_images, freedoms)]
    if excess > 0:
        terms += [part**2 / (number - 1) for part, number in zip(of_seeds, seeds)]
        drawn = [ours.scores, base.scores]
        if same_trainings:
            drawn = [ours.scores - base.scores]
        for name, values, part, sign in zip(names, drawn, of_seeds, signs):
            scale = math.sqrt(excess * part / sum(of_seeds))
            parts[(name, *sorted(names))] = sign * scale * _direction(values)
    freedom = max(
        variance**2 / sum(terms) if variance > 0 else math.inf, min(seeds) - 1, 1
    )
    return Comparison(
        difference=float(ours.scores.mean() - base.scores.mean()),
        error=math.sqrt(variance),
        freedom=min(freedom, sum(freedoms)),
        independent=min(grouping.independent for grouping in groupings),
        images=sum(len(grouping.numbers) for grouping in groupings),
        groups=sum(grouping.groups for grouping in groupings),
        kind="apart",
        seeds=seeds,
        of_groups=sum(of_images),
        of_seeds=of_seeds,
        of_interaction=of_interaction,
        seed_freedom=(seeds[0] - 1.0, seeds[1] - 1.0),
        parts=parts,
        shares=np.zeros(0),
    )


def compare_trainings(
    ours: np.ndarray,
    base: np.ndarray,
    names: tuple[str, str] = ("ours", "base"),
    independent: float = 0.0,
) -> Comparison:
    """The difference of numbers that are known of whole trainings only (Welch 1947).

    Args:
        ours, base: [S] of each training, at least two.
        independent: how many independent images the numbers rest on: 0 where that is
            not known, so that nothing is clear; infinity where images do not matter.

    Raises:
        ValueError: fewer than two trainings.
    """
    seeds = (len(ours), len(base))
    if min(seeds) < 2:
        raise ValueError("one training; an interval needs at least two")
    of_seeds = (_of_mean(ours), _of_mean(base))
    variance = sum(of_seeds)
    terms = [part**2 / (number - 1) for part, number in zip(of_seeds, seeds)]
    parts = {}
    for name, values, part, sign in zip(names, (ours, base), of_seeds, (1, -1)):
        parts[(name, *sorted(names))] = sign * math.sqrt(part) * _direction(values)
    return Comparison(
        difference=float(np.mean(ours) - np.mean(base)),
        error=math.sqrt(variance),
        freedom=variance**2 / sum(terms) if variance > 0 else sum(seeds) - 2.0,
        independent=independent,
        images=0,
        groups=0,
        kind="trainings",
        seeds=seeds,
        of_groups=0.0,
        of_seeds=of_seeds,
        of_interaction=(0.0, 0.0),
        seed_freedom=(seeds[0] - 1.0, seeds[1] - 1.0),
        parts=parts,
        shares=np.zeros(0),
    )


def _of_mean(scores: np.ndarray) -> float:
    """Variance of the mean of independent scores [S]."""
    return float(scores.var(ddof=1)) / len(scores)


def _interaction(table: np.ndarray, grouping: Grouping) -> float:
    """Of trainings and groups [S, G]: its part of the variance of the arm's mean."""
    seeds = len(table)
    rest = table - table.mean(axis=0)  # rows sum to 0 as they are
    return grouping.factor * float((rest**2).sum()) / (seeds * (seeds - 1))


def verdict(comparison: Comparison, p: float) -> str:
    """A difference in words, by its (adjusted) p-value."""
    if p > 1 - LEVEL:
        return "open"
    side = "ahead" if comparison.difference > 0 else "behind"
    if comparison.independent < FEWEST_GROUPS:
        return f"{side} on these images, which are too few to tell"
    if min(comparison.seeds) == 1:
        return f"{side} on these images; another start may turn it around"
    return f"clearly {side}"


# Claims


def region(
    expected: str, margin: float, factor: float | None = None
) -> tuple[float, float]:
    """The differences of which a claim is true, or the logarithms of ratios.

    Args:
        expected: "higher", "lower", "same", "not higher" or "not lower".
        margin: differences up to it do not matter to the last three.
        factor: that the ratio is held against, with its margin; None for differences.
    """
    centre = 0.0 if factor is None else factor
    low, high = {
        "higher": (centre, math.inf),
        "lower": (-math.inf, centre),
        "same": (centre - margin, centre + margin),
        "not higher": (-math.inf, centre + margin),
        "not lower": (centre - margin, math.inf),
    }[expected]
    if factor is None:
        return low, high
    return math.log(low) if low > 0 else -math.inf, math.log(high)


def judge(comparison: Comparison, low: float, high: float) -> str:
    """Whether the true difference lies between `low` and `high`.

    It does (or does not) if one-sided tests at both bounds say so: the two one-sided
    tests of equivalence (Schuirmann 1987), at 5 % each, where both bounds are finite or
    allow a margin; at 2.5 % where a bound is 0, as everywhere in the report. A factor
    is judged by the comparison of `Measured.log` and the logarithms of its bounds.

    Returns:
        HOLDS, FAILS, OPEN; SEEMS_TO_HOLD or SEEMS_TO_FAIL where there are too few
        seeds or images for more.
    """
    error = 1 - LEVEL
    alpha = error / 2 if 0 in (low, high) else error
    holds = (
        max(comparison.p_value(low, "above"), comparison.p_value(high, "below"))
        <= alpha
    )
    fails = (
        min(comparison.p_value(low, "below"), comparison.p_value(high, "above"))
        <= alpha
    )
    return in_words(comparison, holds, fails)


def in_words(comparison: Comparison, holds: bool, fails: bool) -> str:
    """HOLDS, FAILS or OPEN; SEEMS_TO_... where there is too little for more."""
    if not (holds or fails):
        return OPEN
    if not comparison.is_conclusive:
        return SEEMS_TO_HOLD if holds else SEEMS_TO_FAIL
    return HOLDS if holds else FAILS


# What would decide


@dataclass(frozen=True)
class Needed:
    """What would make a difference clear, were it the true one.

    Attributes:
        seeds: of each arm, with the images there are; None if no number would do.
        images: with the seeds there are; None if no number would do.
        both: (seeds, images), both more by the same factor; None if that is too many.
    """

    seeds: int | None
    images: int | None
    both: tuple[int, int] | None


def needed(
    comparison: Comparison,
    power: float = 0.8,
    most: float = 1000.0,
    level: float = LEVEL,
) -> Needed | None:
    """The study that finds this difference clear with a chance of `power`.

    None with one seed, whose spread is unknown: train at least two.

    Args:
        comparison: with several seeds.
        power: 0..1.
        most: no more than so many times the seeds or images are considered.
        level: of the interval that is to exclude 0.
    """
    if min(comparison.seeds) == 1:
        return None
    least, images = max(comparison.seeds), comparison.images

    def enough(seeds: float, times: float) -> bool:
        number = math.ceil(seeds * least)
        return comparison.power((number, number), times, level) >= power

    times = _smallest(
        lambda f: comparison.power(comparison.seeds, f, level) >= power, most
    )
    seeds = _smallest(lambda f: enough(f, 1.0), most)
    both = _smallest(lambda f: enough(f, f), most)
    return Needed(
        seeds=None if seeds is None else math.ceil(seeds * least),
        images=None if times is None else math.ceil(times * images),
        both=None
        if both is None
        else (math.ceil(both * least), math.ceil(both * images)),
    )


def _smallest(is_enough: Callable[[float], bool], most: float) -> float | None:
    """The smallest factor in 1..most that is enough, to a thousandth; None if none."""
    if not is_enough(most):
        return None
    low, high = 1.0, most
    if is_enough(low):
        return low
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high
