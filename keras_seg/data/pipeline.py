"""From a prepared folder to batches, as a pure function of (seed, sample index).

Training takes the samples i = 0, 1, 2, ... without end. Sample i is shown in epoch
i // N at position i % N of that epoch's permutation, with an augmentation drawn from
(seed, i): nothing depends on what was loaded before, by which thread or in which
process, so a run may start at any step.

    feed = Feed(samples, batch=16, preprocess="imagenet", heads=heads)
    feed.training(seed, augment, start_step=0, stop_step=2000).dataset()   # tf.data
    for image, targets in feed.evaluation(): ...                           # NumPy

Both give the same bits; the second works where TensorFlow is not installed.
"""

import functools
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from keras_seg import preprocess as preprocessing
from keras_seg.config import Augment
from keras_seg.data import augment as augmentation
from keras_seg.data import targets
from keras_seg.data.images import fitted, on_canvas, resize_image, resize_label
from keras_seg.data.prepared import (
    Prepared,
    Sample,
    label_pixels,
    read_image,
    read_label,
)
from keras_seg.errors import DataError, UsageError
from keras_seg.labels import IGNORE_ID, Head

if TYPE_CHECKING:
    import tensorflow as tf

# A split keeps this much of decoded samples in memory, and more as long as a quarter of
# the machine's memory is free: several arms may run on it.
CACHE_BYTES = 1 << 30
FREE_SHARE = 0.25
FREE_CHECKED = 64  # samples from one look at the memory to the next
PREFETCHED = 2  # batches that are ready before they are asked for

# The purposes of random generators: each (seed, index, purpose) has its own stream
_ORDER, _GEOMETRY, _NOISE, _COLOUR, _PLACE = range(5)

Plain = tuple[np.ndarray, np.ndarray, np.ndarray | None]  # image, label, joints


class Samples:
    """One split, every image resized to one size and kept in memory where it fits.

    Args:
        size: (height, width) in pixels that every sample is resized to.
        fit: whether it is stretched to that size, or keeps its aspect ratio; the rest
            is then 0 in the image and 255 in the label (`images.fitted`).
        padded_size: None, or the (height, width) that batches are padded to at the
            bottom and on the right, the image with 0 after normalisation, the label
            with 255.
        limit: None, or the number of samples used.
        choice: which ones: "spread" over the split and its sequences, or the "first".
        cache_bytes: memory for decoded samples; the others are decoded each time. None
            is as much as fits (`FREE_SHARE`).

    Attributes:
        joints: float32 [N, 24, 2], (x, y) in pixels at `size`, NaN for a joint outside
            of the image; None where the dataset has none.
        error: the first exception that making a batch raised, or None. A tf.data
            pipeline turns it into an error of TensorFlow's: raise this one instead.

    Raises:
        DataError: no such split, or it has other joints than SURREAL's 24.
    """

    def __init__(
        self,
        prepared: Prepared,
        split: str,
        size: tuple[int, int],
        *,
        fit: str = "stretch",
        padded_size: tuple[int, int] | None = None,
        limit: int | None = None,
        choice: str = "spread",
        cache_bytes: int | None = None,
    ):
        every = prepared.samples(split)
        chosen = _chosen(every, limit, choice)
        self._files = [every[position] for position in chosen]
        self.ids = tuple(sample.id for sample in self._files)
        self.labels = prepared.labels
        height, width = size
        self.size = height, width
        self.fit = fit
        self.padded_size = padded_size or self.size
        joints = prepared.joints(split)
        joints = None if joints is None else joints[chosen]
        self.joints = self._resized_joints(joints, split)
        self.error: Exception | None = None
        self._cache: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._takes_more = cache_bytes is None
        wanted = CACHE_BYTES if cache_bytes is None else cache_bytes
        self._cache_length = wanted // (height * width * 4)

    def __len__(self) -> int:
        return len(self._files)

    def plain(self, k: int) -> Plain:
        """Sample k of the split, resized, not augmented, not padded; do not modify.

        Returns:
            image: uint8 RGB [H, W, 3], bilinear, antialiased where it shrinks.
            label: uint8 [H, W], class ids and 255, by nearest with half-pixel centres.
            joints: float32 [24, 2] or None.

        Raises:
            DataError: a file cannot be read, image and label have different sizes, or
                a label is outside the classes; the file is named.
        """
        pair = self._cache.get(k)
        if pair is None:
            pair = self._read(self._files[k])
            if self._has_room():
                self._cache[k] = pair
        return *pair, None if self.joints is None else self.joints[k]

    def inside(self, k: int) -> tuple[int, int]:
        """Height and width of what is sample k's own in the image of `plain`."""
        file = self._files[k]
        return fitted((file.height, file.width), self.size, self.fit)

    def _has_room(self) -> bool:
        if len(self._cache) < self._cache_length:
            return True
        if self._takes_more and free_memory() > FREE_SHARE:
            self._cache_length += FREE_CHECKED
            return True
        self._takes_more = False  # what is free later is for others
        return False

    def _read(self, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        image, label = (
            read_image(sample.image, sample.image_sha256),
            read_label(sample.label, sample.label_sha256),
        )
        if image.shape[:2] != label.shape:
            raise DataError(
                "{2} has {1} x {0} pixels, ".format(*label.shape, sample.label)
                + "but its image {1} x {0}.".format(*image.shape)
            )
        label_pixels(label, self.labels.num_classes, sample.label)
        size = fitted(label.shape, self.size, self.fit)
        image, label = resize_image(image, size), resize_label(label, size)
        image = np.ascontiguousarray(on_canvas(image, self.size, 0))
        label = np.ascontiguousarray(on_canvas(label, self.size, IGNORE_ID))
        image.flags.writeable = label.flags.writeable = False
        return image, label

    def _resized_joints(
        self, joints: np.ndarray | None, split: str
    ) -> np.ndarray | None:
        """Joints of the files in pixels at `size`; those outside the image as NaN."""
        if joints is None:
            return None
        if joints.shape[1:] != (targets.PARTS, 2):
            raise DataError(
                f"The joints of {split} have shape {joints.shape}, not [N, 24, 2]."
            )
        extents = np.array([(file.width, file.height) for file in self._files])
        extents = extents[:, None, :]  # [N, 1, 2]
        sizes = [self.inside(k)[::-1] for k in range(len(self._files))]
        joints = joints.astype(np.float64)
        is_inside = (joints >= -0.5) & (joints < extents - 0.5)
        joints = (joints + 0.5) * (np.array(sizes)[:, None] / extents) - 0.5
        joints[~is_inside.all(axis=2)] = np.nan
        return joints.astype(np.float32)


def _chosen(samples: Sequence[Sample], limit: int | None, choice: str) -> list[int]:
    """The positions of at most `limit` samples, ascending.

    "spread" goes through the sequences one after the other in equal strides: each gets
    its share of the choice, rounded, spread over its frames. An image that stands
    alone is a sequence of its own.
    """
    count = len(samples)
    if limit is None or limit >= count:
        return list(range(count))
    if choice == "first":
        return list(range(limit))
    ordered = sorted(
        range(count), key=lambda k: (samples[k].sequence or samples[k].id, k)
    )
    return sorted(ordered[(2 * k + 1) * count // (2 * limit)] for k in range(limit))


def free_memory() -> float:
    """The share, 0..1, of the memory this process may use that is free; 0 if unknown.

    The smaller one of the machine's (Linux) and the container's (cgroup version 2).
    """
    group = Path("/sys/fs/cgroup")
    try:
        machine = _numbers(Path("/proc/meminfo"))
        share = machine["MemAvailable"] / machine["MemTotal"]
    except (OSError, KeyError):
        return 0.0
    try:
        most = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        cached = _numbers(group / "memory.stat")["inactive_file"]  # given up on demand
    except (OSError, KeyError, ValueError):  # no container, or one without a limit
        return share
    return min(share, 1 - (used - cached) / most)


def _numbers(file: Path) -> dict[str, int]:
    """{name: number} of a file of lines "name: number unit"."""
    lines = [line.replace(":", " ").split() for line in file.read_text().splitlines()]
    return {line[0]: int(line[1]) for line in lines}


def sample_at(seed: int, index: int, count: int) -> int:
    """Which of `count` samples is number `index` of a training run."""
    epoch, place = divmod(index, count)
    return int(_epoch_order(seed, epoch, count)[place])


@functools.lru_cache(maxsize=4)
def _epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    return _generator(seed, epoch, _ORDER).permutation(count)


def _generator(seed: int, index: int, purpose: int) -> np.random.Generator:
    key = np.array([seed, index], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, purpose]))


def training_sample(
    samples: Samples,
    seed: int,
    index: int,
    augment: Augment,
    crop: tuple[int, int] | None = None,
) -> Plain:
    """Sample number `index` of a training run, augmented; as `Samples.plain`.

    crop: (height, width) of the result; None is that of the samples.
    """
    image, label, joints = samples.plain(sample_at(seed, index, len(samples)))
    geometry = augmentation.draw_geometry(augment, _generator(seed, index, _GEOMETRY))
    if augment.balance > 0:
        place_source = _generator(seed, index, _PLACE)
        if place_source.random() < augment.balance:
            geometry = augmentation.over_a_class(geometry, label, crop, place_source)
    image, label, joints = augmentation.apply(geometry, image, label, joints, crop)
    swaps = augment.swap_lr
    if swaps is None:
        swaps = bool(samples.labels.flip_pairs)
    if geometry.mirror and swaps:
        label = samples.labels.flip_table()[label]
        if joints is not None:
            joints = targets.mirrored_joints(joints)
    colour = augmentation.draw_colour(augment, _generator(seed, index, _COLOUR))
    if colour != augmentation.Colour():
        image = augmentation.apply_colour(colour, image)
    if augment.noise > 0:
        noise_source = _generator(seed, index, _NOISE)
        image = augmentation.add_noise(image, augment.noise, noise_source)
    return image, label, joints


@dataclass(frozen=True)
class Feed:
    """How samples become batches for a network.

    UsageError where the preprocess or a target is unknown, or "surreal" has no joints.
    """

    samples: Samples
    batch: int
    preprocess: str  # a key of `keras_seg.preprocess.PREPROCESS`
    heads: Mapping[str, Head]  # `target`, `lookup` and, for heatmaps, `stride` count
    # Heatmaps show the dataset's joints, or ("centroid") the centre of each part of the
    # augmented label.
    joints: str = "surreal"
    workers: int = 1  # batches made at a time; never changes a bit
    # (height, width) of the training samples, None for whole images; `padded_size` of
    # the samples is then that of the crops.
    crop: tuple[int, int] | None = None
    # False leaves images uint8 and unpadded: the device does both, see `on_device`
    normalise: bool = True

    def __post_init__(self):
        if self.workers > 1:
            cv2.setNumThreads(1)  # OpenCV's own would only be in the way of these
        if self.preprocess not in preprocessing.PREPROCESS:
            known = ", ".join(preprocessing.PREPROCESS)
            raise UsageError(f"Unknown preprocess '{self.preprocess}'. Known: {known}.")
        for name, head in self.heads.items():
            if head.target not in ("labels", "heatmaps"):
                raise UsageError(
                    f"Head {name} has the target {head.target}, not labels or heatmaps."
                )
            targets.lookup_table(head.lookup, self.samples.labels.num_classes)
        if self.joints not in ("surreal", "centroid"):
            raise UsageError(f"data.joints is {self.joints}, not surreal or centroid.")
        has_heatmaps = any(head.target == "heatmaps" for head in self.heads.values())
        if has_heatmaps and self.joints == "surreal" and self.samples.joints is None:
            raise UsageError(
                "The data have no joints for heatmaps. Set data.joints to centroid."
            )

    def training(
        self, seed: int, augment: Augment, start_step: int, stop_step: int
    ) -> "Batches":
        """The batches of the steps start_step..stop_step - 1.

        Step k has the samples k * batch..(k + 1) * batch - 1 of the order and with the
        augmentation drawn from the seed.
        """

        def make(step: int) -> list[np.ndarray]:
            indices = range(step * self.batch, (step + 1) * self.batch)
            return self._arrays(
                [
                    training_sample(self.samples, seed, i, augment, self.crop)
                    for i in indices
                ]
            )

        return Batches(self, make, range(start_step, stop_step), self.batch)

    def evaluation(self) -> "Batches":
        """All samples once, in order, not augmented; the last batch may be smaller."""
        count = len(self.samples)

        def make(step: int) -> list[np.ndarray]:
            indices = range(step * self.batch, min((step + 1) * self.batch, count))
            return self._arrays([self.samples.plain(k) for k in indices])

        return Batches(self, make, range(-(-count // self.batch)), None)

    @property
    def kinds(self) -> tuple[tuple[str, tuple[int, ...] | None, int], ...]:
        """(target, lookup, stride) of the heads, each different one once."""
        return tuple(dict.fromkeys(map(_kind, self.heads.values())))

    def structured(self, arrays: Sequence[Any]) -> tuple[Any, dict[str, Any]]:
        """(image, {head: target}) from the image and one target of each kind."""
        image, *different = arrays
        by_kind = dict(zip(self.kinds, different))
        return image, {name: by_kind[_kind(head)] for name, head in self.heads.items()}

    def signature(self) -> list[tuple[str, tuple[int, ...]]]:
        """(dtype, shape without the batch) of the image and of each kind's target."""
        size = self.samples.padded_size
        signature: list[tuple[str, tuple[int, ...]]] = [("float32", (*size, 3))]
        if not self.normalise:
            signature = [("uint8", (*(self.crop or self.samples.size), 3))]
        for target, _, stride in self.kinds:
            if target == "heatmaps":
                signature.append(("float32", (*_reduced(size, stride), targets.PARTS)))
            else:
                signature.append(("uint8", size))
        return signature

    def _arrays(self, batch: Sequence[Plain]) -> list[np.ndarray]:
        """The image, and one target of each kind."""
        images, labels, joints = zip(*batch)
        size, padded_size = labels[0].shape, self.samples.padded_size
        image, label = np.stack(images), np.stack(labels)
        if self.normalise:
            image = preprocessing.apply(self.preprocess, image)
            if padded_size != size:
                image = _padded(image, padded_size, 0)
        if padded_size != size:
            label = _padded(label, padded_size, IGNORE_ID)
        kinds, num_classes = self.kinds, self.samples.labels.num_classes
        has_heatmaps = any(target == "heatmaps" for target, _, _ in kinds)
        if has_heatmaps and self.joints == "centroid":
            joints = [targets.part_centroids(one) for one in labels]
        arrays = [image]
        for target, lookup, stride in kinds:
            if target == "heatmaps":
                maps = _reduced(size, stride), _reduced(padded_size, stride)
                arrays.append(_heatmaps(joints, stride, *maps))
            else:
                table = targets.lookup_table(lookup, num_classes)
                arrays.append(label if table is None else table[label])
        return arrays


@dataclass(frozen=True)
class Batches:
    """Batches that a `Feed` makes: iterate over them, or take them as a `dataset`.

    A batch is (image float32 [N, H, W, 3], {head: target}). A target is uint8
    [N, H, W] (ids and 255) or float32 [N, h, w, 24] (heatmaps, -1 throughout where the
    joint is not visible). [H, W] is `padded_size`; h and w are those of the head. Of a
    feed that does not normalise, the image is uint8 RGB of the samples' `size`.
    """

    feed: Feed
    make: Callable[[int], list[np.ndarray]]
    steps: range
    size: int | None  # samples per batch where all have as many

    def __iter__(self) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """NumPy arrays. An error of a sample is raised as it is."""
        workers, pending = self.feed.workers, deque()
        pool = ThreadPoolExecutor(workers, thread_name_prefix="loader")
        try:
            for step in self.steps:
                pending.append(pool.submit(self._made, step))
                if len(pending) > workers + PREFETCHED:
                    yield self.feed.structured(pending.popleft().result())
            while pending:
                yield self.feed.structured(pending.popleft().result())
        finally:
            pool.shutdown(cancel_futures=True)

    def dataset(self) -> "tf.data.Dataset":
        """A tf.data pipeline of the same bits.

        A file that cannot be used raises a tf.errors.OpError while it is iterated over;
        `Samples.error` then has the cause.
        """
        import tensorflow as tf

        signature = self.feed.signature()
        dtypes = [tf.as_dtype(dtype) for dtype, _ in signature]

        def one_batch(step):
            # Stateless: op determinism would run a stateful function one call at a time
            arrays = tf.numpy_function(self._made, [step], dtypes, stateful=False)
            for array, (_, shape) in zip(arrays, signature):
                array.set_shape((self.size, *shape))
            return self.feed.structured(arrays)

        options = tf.data.Options()
        # The autotune thread delays the end of fit by up to its whole length again
        options.autotune.enabled = False
        options.deterministic = True
        return (
            tf.data.Dataset.range(self.steps.start, self.steps.stop)
            .map(one_batch, num_parallel_calls=self.feed.workers, deterministic=True)
            .prefetch(PREFETCHED)
            .with_options(options)
        )

    def _made(self, step: int) -> list[np.ndarray]:
        try:
            return self.make(int(step))
        except Exception as error:
            self.feed.samples.error = self.feed.samples.error or error
            raise


def _kind(head: Head) -> tuple[str, tuple[int, ...] | None, int]:
    return head.target, head.lookup, head.stride


def _padded(array: np.ndarray, size: tuple[int, int], value: int) -> np.ndarray:
    """[N, H, W, ...] padded to size (height, width) at the bottom and on the right."""
    padded = np.full((len(array), *size, *array.shape[3:]), value, array.dtype)
    padded[:, : array.shape[1], : array.shape[2]] = array
    return padded


def _reduced(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Height and width at 1 / stride, rounded up."""
    return -(-size[0] // stride), -(-size[1] // stride)


def _heatmaps(
    joints: Sequence[np.ndarray],
    stride: int,
    size: tuple[int, int],
    padded_size: tuple[int, int],
) -> np.ndarray:
    """float32 [N, h, w, 24] of padded_size (h, w); the image has `size` of it."""
    maps = np.zeros((len(joints), *padded_size, targets.PARTS), dtype=np.float32)
    for one, out in zip(joints, maps):
        # A pixel's centre is at a whole number, at every resolution.
        targets.draw_heatmaps((one + 0.5) / stride - 0.5, size, out)
    return maps
