"""Many comparisons at once, and permutation tests beside them."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from keras_seg.report.statistics import LEVEL, Comparison, in_words, verdict


@dataclass(frozen=True)
class Simultaneous:
    """A comparison among others.

    Attributes:
        comparison: alone.
        p: adjusted for the whole family.
        low, high: all intervals of the family cover at once in 95 % of studies.
    """

    comparison: Comparison
    p: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        return self.comparison.is_conclusive and self.p <= 1 - LEVEL

    @property
    def verdict(self) -> str:
        return verdict(self.comparison, self.p)

    def judge(self, low: float, high: float) -> str:
        """`statistics.judge` by the simultaneous interval."""
        agrees = low < self.comparison.difference < high
        holds = agrees and low <= self.low and self.high <= high
        fails = not agrees and (self.high <= low or self.low >= high)
        return in_words(self.comparison, holds, fails)


def adjust(
    family: Sequence[Comparison], resamples: int = 10_000, seed: int = 0
) -> list[Simultaneous]:
    """Adjust a family of comparisons for their number.

    Step-down p-values and single-step intervals (Westfall and Young 1993; Romano and
    Wolf 2005). How comparisons depend on each other comes from a multiplier bootstrap:
    every group and every training gets a normal multiplier (Wu 1986; Chernozhukov,
    Chetverikov and Kato 2013), a group the same in all comparisons, a training in those
    of the same two arms: what other comparisons share by one arm's few trainings cannot
    be estimated well, and independence is on the safe side (Šidák 1967). Each keeps its
    own t distribution: smallest p-values are compared, not greatest statistics.

    An interval whose comparison the step-down test finds different from 0 does not
    include 0 (Strassburger and Bretz 2008).

    Args:
        family: all of the same images, or with parts named apart.
        resamples: how many.
        seed: of the resampling.
    """
    random_source = np.random.default_rng(seed)
    deviations = np.zeros((resamples, len(family)))
    for name in dict.fromkeys(name for each in family for name in each.parts):
        having = [n for n, each in enumerate(family) if name in each.parts]
        parts = np.stack([family[n].parts[name] for n in having], axis=1)
        # Sums of normal multipliers of many groups, from fewer normal numbers
        root = np.linalg.qr(parts, mode="r")
        draws = random_source.standard_normal((resamples, len(root)))
        deviations[:, having] += draws @ root
    errors = np.array([each.error or math.inf for each in family])
    resampled = 2 * stats.norm.sf(abs(deviations) / errors)  # p-values
    alone = np.array([each.p_value() for each in family])
    adjusted = np.ones(len(family))
    order = np.argsort(alone, kind="stable")
    at_least = 0.0
    for position, number in enumerate(order):
        smallest = resampled[:, order[position:]].min(axis=1)
        p = (1 + (smallest <= alone[number]).sum()) / (1 + resamples)
        at_least = adjusted[number] = max(at_least, float(p), alone[number])
    level = 1 - float(np.quantile(resampled.min(axis=1), 1 - LEVEL))
    results = []
    for each, p in zip(family, adjusted):
        low, high = each.interval(max(level, LEVEL))
        if p <= 1 - LEVEL:
            low, high = (
                (max(low, 0), high) if each.difference > 0 else (low, min(high, 0))
            )
        results.append(Simultaneous(each, float(p), float(low), float(high)))
    return results


def sign_flip(shares: np.ndarray, resamples: int = 10_000, seed: int = 0) -> float:
    """p-value of a paired permutation test over groups of images (Fisher 1935).

    In each group the arms' names are exchanged or not; trainings are taken as they are.
    All 2**G exchanges are gone through where there are at most `resamples`.

    Args:
        shares: [G], `Comparison.shares`.
    """
    groups = len(shares)
    if 2**groups <= resamples:
        signs = np.array(list(itertools.product((1, -1), repeat=groups)))
        added = 0
    else:
        signs = np.random.default_rng(seed).choice((1, -1), (resamples, groups))
        added = 1
    # The exchange that was observed must count, whatever the order of the sum
    as_far = np.abs(signs @ shares) >= (1 - 1e-9) * abs(shares.sum())
    return float((as_far.sum() + added) / (len(signs) + added))


def relabel(
    ours: np.ndarray, base: np.ndarray, resamples: int = 10_000, seed: int = 0
) -> float:
    """p-value of a permutation test that exchanges trainings (Fisher 1935).

    On these images. With 3 + 3 seeds it cannot fall below 2 / 20.

    Args:
        ours, base: [S] scores, `Measured.scores`.
    """
    scores = np.concatenate([ours, base])
    number, total = len(ours), scores.sum()
    if math.comb(len(scores), number) <= resamples:
        chosen = np.array(list(itertools.combinations(range(len(scores)), number)))
        added = 0
    else:
        random_source = np.random.default_rng(seed)
        every = np.tile(np.arange(len(scores)), (resamples, 1))
        chosen = random_source.permuted(every, axis=1)[:, :number]
        added = 1
    of_ours = scores[chosen].sum(axis=1)
    differences = of_ours / number - (total - of_ours) / len(base)
    observed = np.mean(ours) - np.mean(base)
    as_far = np.abs(differences) >= (1 - 1e-9) * abs(observed)
    return float((as_far.sum() + added) / (len(chosen) + added))
