"""Intervals for differences of scores: would another sample of images agree?

A paired cluster bootstrap (Field and Welsh 2007): images that belong together are drawn
together, the same draw for both arms, and the score of the whole set is recomputed from
the counts of the drawn images. Several seeds are resampled as well. Of n clusters or
seeds, n - 1 are drawn, which makes the variance right for small n (Rao and Wu 1988).
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
RESAMPLES = 2000
FEWEST_SEQUENCES = 5  # fewer cannot be resampled as they are
BLOCKS = 10  # then they are cut into about so many


@dataclass(frozen=True)
class Interval:
    """A difference of a score with a percentile interval."""

    difference: float  # mean score of our seeds minus that of the base's, in -1..1
    low: float  # bounds of the middle 95 % of the resampled differences
    high: float
    images: int
    groups: int  # of images that were drawn as one
    seeds: int  # the lesser number of the two arms; one is not resampled

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0

    @property
    def verdict(self) -> str:
        return "clear" if self.is_clear else "within noise"

    @property
    def basis(self) -> str:
        """What the interval covers, a sentence."""
        drawn = f"{self.images} images"
        if self.groups < self.images:
            drawn += f" in {self.groups} groups of neighbours"
        training = f"and training randomness ({self.seeds} seeds)"
        if self.seeds == 1:
            training = "but not training randomness, as there is one seed per arm"
        return f"The interval covers image sampling ({drawn}) {training}."


def paired_difference(
    ours: Mapping[int, np.ndarray],
    base: Mapping[int, np.ndarray],
    groups: Sequence[int] | np.ndarray,
    resamples: int = RESAMPLES,
    seed: int = 0,
    classes: Sequence[int] | None = None,
    level: float = LEVEL,
    metric: str = "miou",
) -> Interval:
    """How much better one arm is than another, and how sure that is.

    The interval covers image sampling and, with several seeds, roughly the randomness
    of training: few seeds tell little about their own spread. It covers neither images
    unlike these nor the choice of the better of many arms.

    Args:
        ours, base: {seed: integer counts [3, N, C]} of each arm's runs: pixels of
            intersection, truth and prediction for each image and class, the same
            images in the same order. Equal seeds are drawn in pairs, others
            independently.
        groups: [N], the group of each image, from `groups_of`.
        resamples, seed: how many, and from which random numbers.
        classes: ids that are evaluated; None is all.
        level: of the interval.
        metric: one of SCORES, as `keras_seg.metrics.summary` defines it.

    Returns:
        NaN where the images have no pixel of the classes.

    Raises:
        ValueError: no seed, counts of different shape, or fewer than two groups.
    """
    _, numbers = np.unique(groups, return_inverse=True)
    num_groups = int(numbers.max(initial=-1)) + 1
    shapes = {np.shape(counts) for counts in (*ours.values(), *base.values())}
    if not (ours and base) or len(shapes) != 1:
        raise ValueError(f"counts of shapes {sorted(shapes)}, of one and of each arm")
    if shapes.pop()[1] != len(numbers) or num_groups < 2:
        raise ValueError(f"{num_groups} groups of {len(numbers)} images")
    random_source = np.random.default_rng(seed)
    draws = _draws(random_source, resamples, num_groups)
    resampled, observed = [], []
    drawn: dict[tuple[int, ...], np.ndarray] = {}  # of the seeds
    for arm in (ours, base):
        seeds = tuple(sorted(arm))
        if seeds not in drawn:
            drawn[seeds] = _draws(random_source, resamples, len(seeds))
        values = []  # [resamples] of each seed
        for number in seeds:
            of_groups = _summed(np.asarray(arm[number]), numbers, num_groups)
            counts = np.tensordot(draws, of_groups, axes=1)
            values.append(_score(metric, counts, classes))
        weights = drawn[seeds] / drawn[seeds].sum(axis=1, keepdims=True)
        resampled.append((weights * np.stack(values, axis=1)).sum(axis=1))
        sums = [np.asarray(arm[number]).sum(axis=1) for number in seeds]
        observed.append(np.mean([_score(metric, one, classes) for one in sums]))
    tail = 50 * (1 - level)
    low, high = np.percentile(resampled[0] - resampled[1], (tail, 100 - tail))
    return Interval(
        difference=float(observed[0] - observed[1]),
        low=float(low),
        high=float(high),
        images=len(numbers),
        groups=num_groups,
        seeds=min(len(ours), len(base)),
    )


def groups_of(ids: Sequence[str], sequences: Mapping[str, str]) -> np.ndarray:
    """Which images are drawn together: int64 [N], numbers from 0.

    Those of a sequence are; others stand alone. Fewer than `FEWEST_SEQUENCES` cannot
    be resampled and are cut into blocks of consecutive images, about `BLOCKS` in all
    (Carlstein 1986, Künsch 1989); the interval then holds for these sequences only.
    As video changes slowly, the blocks are as long as they can be, longer than the
    N^(1/3) that suits weak dependence (Hall, Horowitz and Jing 1995).

    Args:
        ids: of the N images; those of a sequence in its order.
        sequences: {id: sequence} of the images that belong to one.
    """
    members: dict[Hashable, list[int]] = {}
    for position, each in enumerate(ids):
        name = sequences.get(each)
        # An image may be named like a sequence.
        members.setdefault((name is None, name or each), []).append(position)
    blocks = [np.array(positions) for positions in members.values()]
    if len(blocks) < FEWEST_SEQUENCES:
        length = max(2, -(-len(ids) // BLOCKS))
        blocks = [
            block
            for positions in blocks
            for block in np.array_split(positions, -(-len(positions) // length))
        ]
    groups = np.zeros(len(ids), np.int64)
    for number, positions in enumerate(blocks):
        groups[positions] = number
    return groups


def _draws(random_source, resamples: int, number: int) -> np.ndarray:
    """float64 [resamples, number]: how often each of `number` is drawn; 1 of 1."""
    chances = np.full(number, 1 / number)
    return random_source.multinomial(max(1, number - 1), chances, resamples).astype(
        np.float64  # for a fast matrix product; counts stay exact below 2^53
    )


def _summed(counts: np.ndarray, groups: np.ndarray, num_groups: int) -> np.ndarray:
    """float64 [G, 3, C]: the counts [3, N, C] summed over the images of each group."""
    sums = np.zeros((num_groups, counts.shape[0], counts.shape[2]))
    np.add.at(sums, groups, counts.transpose(1, 0, 2))
    return sums


def _score(
    metric: str, counts: np.ndarray, classes: Sequence[int] | None
) -> np.ndarray:
    """float64 [...]: a score of counts [..., 3, C]; NaN where there is no pixel."""
    ids = range(counts.shape[-1]) if classes is None else classes
    is_foreground = np.array(ids) > 0
    counts = counts[..., list(ids)].astype(np.float64)
    hits, true, said = np.moveaxis(counts, -2, 0)
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


# The scores of `metrics.summary` that claims are about, from pixels of intersection,
# truth and prediction [..., C] and, [C], which classes are foreground.
SCORES = {
    "miou": lambda hits, true, said, fg: _mean_ratio(hits, true + said - hits),
    "pixel_accuracy": lambda hits, true, said, fg: _ratio(hits, true),
    "mean_accuracy": lambda hits, true, said, fg: _mean_ratio(hits, true),
    "f1_macro": lambda hits, true, said, fg: _mean_ratio(2 * hits, true + said),
    "iou_ovr2": _two_class_iou,
    "f1_micro_fg": lambda hits, true, said, fg: _ratio(
        2 * hits[..., fg], (true + said)[..., fg]
    ),
}
