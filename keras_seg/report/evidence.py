"""What the counts per image of a stage say of the differences between its arms."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np

from keras_seg.ablation.protocol import ArmResult, Claim, Side, StageResult
from keras_seg.report import scores
from keras_seg.report.families import Simultaneous, adjust, relabel, sign_flip
from keras_seg.report.grouping import Grouping, group_images
from keras_seg.report.statistics import (
    OF_CLASS,
    SCORES,
    Comparison,
    Measured,
    SeedVariance,
    compare,
    compare_apart,
    compare_trainings,
    measure,
    pool,
)
from keras_seg.report.winner import Training, Winner, find_winner
from keras_seg.storage import StorageError

EXACT = ("parameters", "gflop")  # follow from the network, so they are certain
OF_TRAINING = ("train_loss_fall",)  # numbers in which other images play no part


class Evidence:
    """Comparisons of the arms of a stage, each arm measured once.

    Of arms scored on other images than the first of them, and of those without counts
    per image, nothing is said.

    Attributes:
        damaged: what could not be read.
    """

    def __init__(
        self,
        result: StageResult,
        sequences: Mapping[str, Mapping[str, str]],
        names: Sequence[str] = (),
        others: Mapping[str, StageResult] | None = None,
    ):
        """Compare the arms of `result`.

        Args:
            sequences: {split: {image id: sequence}}.
            names: of the classes.
            others: {name: stage} that claims may name.
        """
        self.result, self.sequences = result, sequences
        self.names, self.others = list(names), others or {}
        self.base = result.arms[0].name
        self.damaged: list[str] = []
        self._measured: dict[tuple[str, str], Measured] = {}
        self._sides: dict[Side, scores.Counted | None] = {}

    @cached_property
    def arms(self) -> dict[str, scores.Counted]:
        """Those that can be compared."""
        found: dict[str, scores.Counted] = {}
        for arm in self.result.arms:
            counted = self._counted(scores.done(self.result, arm.name))
            if counted and all(counted.matches(one) for one in found.values()):
                found[arm.name] = counted
        return found

    def _counted(self, runs: Sequence[ArmResult]) -> scores.Counted | None:
        try:
            return scores.counted(runs)
        except StorageError as error:
            if str(error) not in self.damaged:
                self.damaged.append(str(error))
            return None

    @cached_property
    def grouping(self) -> Grouping | None:
        """Of the images, the same for every comparison; None where there is none."""
        influences = [
            self.measured(name, "miou").influences.mean(axis=0) for name in self.arms
        ]
        if len(influences) < 2 or influences[0].size < 2:
            return None
        first, *others = influences
        counted = next(iter(self.arms.values()))
        return self._group(counted, [other - first for other in others])

    def _group(
        self, counted: scores.Counted, influences: Sequence[np.ndarray]
    ) -> Grouping:
        sequences = self.sequences.get(counted.split, {})
        return group_images(counted.ids, sequences, np.nan_to_num(influences))

    def measured(self, name: str, metric: str) -> Measured:
        """An arm that can be compared."""
        if (name, metric) not in self._measured:
            arm = self.arms[name]
            found = measure(arm.counts, arm.classes, metric)
            self._measured[name, metric] = found
        return self._measured[name, metric]

    def family(
        self, asked: Sequence[tuple[str, str, str]]
    ) -> dict[tuple[str, str, str], Simultaneous]:
        """Differences, adjusted for their number.

        Args:
            asked: (arm, the one it is compared with, metric), one of
                `statistics.SCORES`. What cannot be compared is left out.
        """
        found = {}
        for ours, base, metric in asked:
            if self.grouping is not None and {ours, base} <= self.arms.keys():
                compared = self._compare(ours, base, metric)
                if math.isfinite(compared.difference):
                    found[ours, base, metric] = compared
        return dict(zip(found, adjust(list(found.values())))) if found else {}

    def _compare(self, ours: str, base: str, metric: str) -> Comparison:
        arms = [self.measured(name, metric) for name in (ours, base)]
        assert self.grouping is not None
        pooled = self._pooled(metric)
        return compare(arms[0], arms[1], self.grouping, (ours, base), pooled)

    def _pooled(self, metric: str) -> SeedVariance | None:
        """Of all arms of the stage."""
        return pool([self.measured(name, metric).scores for name in self.arms])

    def permutations(self, ours: str, base: str) -> tuple[float, float]:
        """p-values that exchange images (groups of them), and trainings; mIoU.

        Each takes the other as given, and neither is adjusted for the number of
        comparisons. NaN of trainings where there is one.
        """
        of_images = sign_flip(self._compare(ours, base, "miou").shares)
        first, second = (self.measured(name, "miou").scores for name in (ours, base))
        if min(len(first), len(second)) < 2:
            return of_images, math.nan
        return of_images, relabel(first, second)

    def of_claim(
        self, claim: Claim, value: Callable[[ArmResult], float]
    ) -> Comparison | None:
        """What a claim compares: a difference, or the logarithm of a ratio.

        From counts per image where both sides have them, else from the numbers of the
        trainings; None where there are too few of either.

        Args:
            claim: whose sides may be of other stages or splits.
            value: the claim's metric of a finished run, or NaN.
        """
        ours, than = (
            scores.of_side(self.result, self.others, side) for side in claim.sides
        )
        compared = self._by_image(claim, ours, than)
        if compared is None and claim.metric not in EXACT:
            first, second = (np.array([*map(value, runs)]) for runs in (ours, than))
            if claim.factor is not None:
                first, second = (
                    np.log(np.where(n > 0, n, np.nan)) for n in (first, second)
                )
            if min(len(first), len(second)) > 1:
                independent = math.inf if claim.metric in OF_TRAINING else 0.0
                names = (claim.arm, claim.than)
                compared = compare_trainings(first, second, names, independent)
        if compared is None or not math.isfinite(compared.difference):
            return None
        return compared

    def _by_image(
        self, claim: Claim, ours: Sequence[ArmResult], than: Sequence[ArmResult]
    ) -> Comparison | None:
        metric, classes = self._score(claim.metric)
        first, second = (
            self._side(side, runs) for side, runs in zip(claim.sides, (ours, than))
        )
        if metric is None or first is None or second is None:
            return None
        if classes and not {*classes} <= {*(first.classes or classes)}:
            return None
        arms = [
            measure(side.counts, classes or side.classes, metric)
            for side in (first, second)
        ]
        if claim.factor is not None:
            if not min(arm.scores.min() for arm in arms) > 0:
                return None
            arms = [arm.log() for arm in arms]
        means = [arm.influences.mean(axis=0) for arm in arms]
        if min(map(len, means)) < 2:
            return None
        names = (claim.arm, claim.than)
        if first.matches(second):
            if {*names} <= self.arms.keys() and self.grouping is not None:
                plain = classes is None and claim.factor is None
                pooled = self._pooled(metric) if plain else None
                return compare(arms[0], arms[1], self.grouping, names, pooled)
            grouping = self._group(first, [means[0] - means[1]])
            return compare(arms[0], arms[1], grouping, names)
        groupings = (self._group(first, means[:1]), self._group(second, means[1:]))
        same = [run.run for run in ours] == [run.run for run in than]
        return compare_apart(arms[0], arms[1], groupings, names, same)

    def _score(self, metric: str) -> tuple[str | None, list[int] | None]:
        """A key of SCORES and the class ids it is of, None for those evaluated."""
        kind, _, name = metric.partition(" ")
        if kind in OF_CLASS and name in self.names:
            return OF_CLASS[kind], [self.names.index(name)]
        return (metric if metric in SCORES else None), None

    def _side(self, side: Side, runs: Sequence[ArmResult]) -> scores.Counted | None:
        if not side.stage and not side.split and side.arm in self.arms:
            return self.arms[side.arm]
        if side not in self._sides:
            self._sides[side] = self._counted(runs)
        return self._sides[side]

    @cached_property
    def pairs(self) -> dict[tuple[str, str], Simultaneous]:
        """Every arm against the base, the winner against the runner-up: mIoU."""
        asked = [(arm.name, self.base, "miou") for arm in self.result.arms[1:]]
        first, second = self.result.winner, scores.runner_up(self.result)
        if first and second and self.base not in (first, second):
            asked.append((first, second, "miou"))
        return {key[:2]: each for key, each in self.family(asked).items()}

    @cached_property
    def lead(self) -> Simultaneous | None:
        """Of the winner over the base, or where that won over the runner-up."""
        first, second = self.result.winner, scores.rival(self.result)
        if first is None or second is None:
            return None
        if first != self.base:
            return self.pairs.get((first, second))
        if (found := self.pairs.get((second, first))) is None:
            return None
        turned = self._compare(first, second, "miou")
        return Simultaneous(turned, found.p, -found.high, -found.low)

    def _candidates(self, name: str) -> list[Training]:
        """Of each training [3, N, C], or its parts where several steps are known."""
        arm = self.arms[name]
        found: list[Training] = []
        for run, counts in zip(scores.done(self.result, name), arm.counts):
            try:
                steps = scores.counted_steps(run, arm.ids)
            except StorageError as error:
                self.damaged.append(str(error))
                steps = []
            found.append(steps or counts)
        return found

    @cached_property
    def winner(self) -> Winner | None:
        """The winner's lead, corrected for having been chosen on these images.

        None where it was chosen on others, or where an arm cannot be compared.
        """
        done = {run.arm.name for run in scores.all_done(self.result)}
        if self.grouping is None or done != self.arms.keys() or self.base not in done:
            return None
        first = self.arms[self.base]
        means = [self.measured(name, "miou").scores.mean() for name in done]
        if first.split != "val" or not np.isfinite(means).all():
            return None
        counts = {name: self._candidates(name) for name in done}
        found = find_winner(counts, self.base, self.grouping, first.classes)
        best_two = (self.result.winner, scores.runner_up(self.result))
        return found if (found.name, found.runner_up) == best_two else None
