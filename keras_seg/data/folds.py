"""Cross-validation of a prepared folder: its images divided anew, none written anew.

The training and validation images are put together and divided into folds. A run with
`data.folds` K and `data.fold` k is validated on fold k and trained on the others, so
that K runs score every image once, each with a network that never saw it. Images of a
sequence are in one fold. Which fold an image is in follows from the ids and sequences
alone.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import numpy as np

from keras_seg import storage
from keras_seg.data.prepared import (
    ClassCounts,
    Prepared,
    Sample,
    class_counts,
    count_pixels,
    label_pixels,
    read_label,
)
from keras_seg.data.splits import assign_folds
from keras_seg.data.workers import in_threads
from keras_seg.errors import UsageError

POOLED = ("train", "val")
READERS = 2  # threads that read labels


@dataclass(frozen=True)
class Fold(Prepared):
    """A prepared folder whose splits train and val are those of a fold.

    Where `number` is None, train and val are both all of the images.
    """

    whole: Prepared = field(repr=False)
    folds: int
    number: int | None
    # Where the samples of the new splits stand among those of train and val
    _positions: Mapping[str, Sequence[int]] = field(repr=False)

    @cached_property
    def held_out(self) -> str:
        """SHA-256 of which images are held out; part of a run's identity."""
        return storage.json_sha256([sample.id for sample in self.samples("val")])

    def joints(self, split: str) -> np.ndarray | None:
        if split not in POOLED:
            return self.whole.joints(split)
        found = [self.whole.joints(one) for one in _pooled(self.whole)]
        known = [joints for joints in found if joints is not None]
        if len(known) < len(found):
            return None
        return np.concatenate(known)[list(self._positions[split])]

    def counts(self, split: str) -> ClassCounts:
        if split not in POOLED:
            return self.whole.counts(split)
        every = [self.whole.counts(one) for one in _pooled(self.whole)]
        whole = _combined(every, [1] * len(every))
        if self.number is None:
            return whole
        if split == "val":
            return self._held_out_counts
        return _combined([whole, self._held_out_counts], [1, -1])

    @cached_property
    def _held_out_counts(self) -> ClassCounts:
        """Of the labels that are held out, which are read; the others are the rest."""

        def pixels(sample: Sample) -> np.ndarray:
            label = read_label(sample.label, sample.label_sha256)
            return label_pixels(label, self.labels.num_classes, sample.label)

        rows = list(in_threads(pixels, self.samples("val"), READERS))
        return class_counts(count_pixels(rows))


def divide(prepared: Prepared, folds: int | None, fold: int | None = 0) -> Prepared:
    """The data with the splits train and val of a fold; each way is made once.

    Args:
        prepared: opened, or divided already.
        folds: how many; None are the splits as they were prepared.
        fold: that is held out; None: every image is in train and in val, as all folds
            together are scored.

    Raises:
        UsageError: more folds than sequences, which are not divided.
    """
    whole = prepared.whole if isinstance(prepared, Fold) else prepared
    if folds is None:
        return whole
    if (folds, fold) not in whole.divided:
        whole.divided[folds, fold] = _divide(whole, folds, fold)
    return whole.divided[folds, fold]


def _divide(whole: Prepared, folds: int, number: int | None) -> Fold:
    pool = _renamed([s for split in _pooled(whole) for s in whole.samples(split)])
    # An image that stands alone is a group; it may be named like a sequence.
    groups = [f"s {s.sequence}" if s.sequence else f"i {s.id}" for s in pool]
    number_of_groups = len(set(groups))
    if folds > number_of_groups:
        what = f"{len(pool)} training and validation images"
        if number_of_groups < len(pool):
            what += f" of {number_of_groups} sequences, which are kept together"
        way_out = (
            f"Choose at most {number_of_groups}."
            if number_of_groups > 1
            else "Prepare more, or leave the folds out."
        )
        raise UsageError(
            f"{folds} folds are too many: {whole.folder} has {what}. {way_out}"
        )
    fold_of = assign_folds(groups, folds)
    order = sorted(range(len(pool)), key=lambda position: pool[position].id)
    positions = {
        "train": [k for k in order if number is None or fold_of[k] != number],
        "val": [k for k in order if number is None or fold_of[k] == number],
    }
    samples: dict[str, tuple[Sample, ...]] = {
        split: tuple(replace(pool[k], split=split) for k in chosen)
        for split, chosen in positions.items()
    }
    others = [split for split in whole.splits if split not in POOLED]
    samples |= {split: whole.samples(split) for split in others}
    values: Any = {one.name: getattr(whole, one.name) for one in fields(Prepared)}
    return Fold(
        **{**values, "_samples": samples},
        whole=whole,
        folds=folds,
        number=number,
        _positions=positions,
    )


def _pooled(whole: Prepared) -> list[str]:
    """Those of the two splits that there are."""
    return [split for split in POOLED if split in whole.splits]


def _renamed(pool: Sequence[Sample]) -> list[Sample]:
    """Samples of two splits that have one id are told apart by their split."""
    times = Counter(sample.id for sample in pool)
    return [
        replace(sample, id=f"{sample.split}/{sample.id}")
        if times[sample.id] > 1
        else sample
        for sample in pool
    ]


def _combined(counts: Sequence[ClassCounts], signs: Sequence[int]) -> ClassCounts:
    def total(name: str) -> Any:
        return sum(sign * getattr(one, name) for one, sign in zip(counts, signs))

    return ClassCounts(**{one.name: total(one.name) for one in fields(ClassCounts)})
