"""What the counts per image of a stage say of the differences between its arms."""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from keras_seg.ablation.protocol import StageResult
from keras_seg.report import scores
from keras_seg.report.families import Simultaneous, adjust
from keras_seg.report.grouping import Grouping, group_images
from keras_seg.report.statistics import Comparison, Measured, compare, measure
from keras_seg.report.winner import Winner, find_winner
from keras_seg.storage import StorageError


class Evidence:
    """Comparisons of the arms of a stage, each arm measured once.

    Of arms scored on other images than the first of them, and of those without counts
    per image, nothing is said.

    Attributes:
        damaged: what could not be read.
    """

    def __init__(self, result: StageResult, sequences: Mapping[str, Mapping[str, str]]):
        """`sequences` is {split: {image id: sequence}}."""
        self.result, self.sequences = result, sequences
        self.base = result.arms[0].name
        self.damaged: list[str] = []
        self._measured: dict[tuple[str, str], Measured] = {}

    @cached_property
    def arms(self) -> dict[str, scores.Counted]:
        """Those that can be compared."""
        found: dict[str, scores.Counted] = {}
        for arm in self.result.arms:
            try:
                counted = scores.counted(self.result, arm.name)
            except StorageError as error:
                self.damaged.append(str(error))
                continue
            if counted and all(counted.matches(one) for one in found.values()):
                found[arm.name] = counted
        return found

    @cached_property
    def grouping(self) -> Grouping | None:
        """Of the images, the same for every comparison; None where there is none."""
        influences = [
            self.measured(name, "miou").influences.mean(axis=0) for name in self.arms
        ]
        if len(influences) < 2 or influences[0].size < 2:
            return None
        first, *others = influences
        differences = np.nan_to_num([other - first for other in others])
        counted = next(iter(self.arms.values()))
        sequences = self.sequences.get(counted.split, {})
        return group_images(counted.ids, sequences, differences)

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
        return compare(arms[0], arms[1], self.grouping, (ours, base))

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
        counts = {name: list(arm.counts) for name, arm in self.arms.items()}
        found = find_winner(counts, self.base, self.grouping, first.classes)
        best_two = (self.result.winner, scores.runner_up(self.result))
        return found if (found.name, found.runner_up) == best_two else None
