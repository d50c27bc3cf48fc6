"""Weights of the classes from how often they occur in the training set.

All take one non-negative number per class, [C] (pixels with the ignored id left out),
and return float64 [C]; all raise UsageError for anything else. A class that never
occurs has a finite weight, stated at each function. Not normalised: what the mean of
the weights does to the loss is the choice of `losses.CrossEntropy(normalise=...)`.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from keras_seg.config import LossSettings
from keras_seg.errors import UsageError


class ClassCounts(Protocol):
    """What weights are made from, [C] each: `keras_seg.data.prepared.ClassCounts`."""

    @property
    def pixels(self) -> np.ndarray: ...

    @property
    def presence_pixels(self) -> np.ndarray: ...

    @property
    def images(self) -> np.ndarray: ...


def inverse_frequency(counts: ArrayLike) -> np.ndarray:
    """W1 of BODY 3.1: 1 - C_i / sum C. A class that never occurs weighs 1."""
    counts = _checked("pixel counts", counts)
    return 1 - counts / counts.sum()


def exponential(counts: ArrayLike) -> np.ndarray:
    """W2 of BODY 3.1: B exp(-(B - mean B) / (4 std B)) with B = max C / C_i.

    BODY prints "B = 1/B" for B = 1/A, A = C / max C. std is the population's; where it
    is 0, W = B. A class that never occurs weighs 0 and is left out of mean and std.
    W is largest at B = 4 std B, so the rarest class may weigh less than a less rare
    one.
    """
    counts = _checked("pixel counts", counts)
    present = counts > 0
    rarity = counts.max() / counts[present]
    spread = rarity.std()
    weights = np.zeros_like(counts)
    weights[present] = rarity
    if spread > 0:
        weights[present] *= np.exp(-0.25 * (rarity - rarity.mean()) / spread)
    return weights


def median_frequency(pixels: ArrayLike, presence_pixels: ArrayLike) -> np.ndarray:
    """Median frequency balancing (Eigen and Fergus 2015), as SegNet uses it.

    median(f) / f_c with f_c = pixels of c / `presence_pixels`: the total area, void
    included, of the images that contain c. A class that never occurs weighs 0 and is
    left out of the median.
    """
    pixels = _checked("pixel counts", pixels)
    presence_pixels = _checked("presence pixels", presence_pixels)
    if len(pixels) != len(presence_pixels):
        raise UsageError(
            f"There are {len(pixels)} pixel counts but {len(presence_pixels)} counts "
            "of presence pixels."
        )
    if (pixels > presence_pixels).any():
        raise UsageError(
            f"The presence pixels {presence_pixels.tolist()} are fewer than the pixels "
            f"of a class, {pixels.tolist()}."
        )
    present = pixels > 0
    frequency = pixels[present] / presence_pixels[present]
    weights = np.zeros_like(pixels)
    weights[present] = np.median(frequency) / frequency
    return weights


def background_discount(counts: ArrayLike, background: float = 0.15) -> np.ndarray:
    """Weights of VOC07: `background` for class 0, 2 - 1/n_c for the others.

    n_c are pixels or images ("occurrences" in VOC07 4b); a class that never occurs
    weighs 1. Counts of one give VOC07 5a-5c: ones, and `background` for class 0.
    """
    counts = _checked("occurrences", counts)
    if not 0 <= background < float("inf"):
        raise UsageError(
            f"The background weight is {background}; it must be a finite number from 0."
        )
    weights = 2 - 1 / np.maximum(counts, 1)
    weights[0] = background
    return weights


WEIGHTINGS: Mapping[str, Callable] = MappingProxyType(
    {
        "none": lambda counts, settings: None,
        "w1": lambda counts, settings: inverse_frequency(counts.pixels),
        "w2": lambda counts, settings: exponential(counts.pixels),
        "median": lambda counts, settings: median_frequency(
            counts.pixels, counts.presence_pixels
        ),
        "voc07": lambda counts, settings: background_discount(
            _occurrences(counts, settings), settings.background_weight
        ),
    }
)


def from_counts(settings: LossSettings, counts: ClassCounts) -> np.ndarray | None:
    """The class weights of a configuration: float64 [C], or None for "none".

    Args:
        settings: `weights` is a key of `WEIGHTINGS`, or the weights themselves.
        counts: of the training split.

    Raises:
        UsageError: other than one weight for each class, or no pixel is labelled.
    """
    if not isinstance(settings.weights, str):
        if len(settings.weights) != len(counts.pixels):
            raise UsageError(
                f"loss.weights has {len(settings.weights)} numbers, but the data have "
                f"{len(counts.pixels)} classes; give one for each, in their order."
            )
        return np.array(settings.weights)
    return WEIGHTINGS[settings.weights](counts, settings)


def _occurrences(counts: ClassCounts, settings: LossSettings):
    if settings.occurrences == "none":
        return np.ones(len(counts.pixels))
    return counts.pixels if settings.occurrences == "pixels" else counts.images


def _checked(what: str, counts) -> np.ndarray:
    counts = np.asarray(counts, dtype=np.float64)
    if counts.ndim != 1 or not np.isfinite(counts).all() or (counts < 0).any():
        raise UsageError(
            f"The {what} are {counts.tolist()}; there must be one finite number from 0 "
            "for each class."
        )
    if not counts.any():
        raise UsageError(f"The {what} are all 0; no class occurs.")
    return counts
