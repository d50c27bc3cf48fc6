"""From a prepared folder to batches, as a pure function of (seed, sample index).

Training runs through the samples i = 0, 1, 2, ... without end. Sample i is shown in
epoch i // N at place i % N of that epoch's permutation, with an augmentation that is
drawn from (seed, i): nothing depends on what was loaded before, by which thread or in
which process, so a run may start at any step.

`training_batches` and `evaluation_batches` are tf.data pipelines; where TensorFlow is
not installed, `numpy_training_batches` and `numpy_evaluation_batches` yield the same
batches, bit for bit.
"""

import functools
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from keras_seg import preprocess as preprocessing
from keras_seg.config import Augment
from keras_seg.data import augment as augmentation
from keras_seg.data import targets
from keras_seg.data.images import resize_image, resize_label
from keras_seg.data.prepared import read_image, read_label
from keras_seg.errors import DataError, UsageError
from keras_seg.labels import IGNORE_ID

if TYPE_CHECKING:
    import tensorflow as tf

CACHE_BYTES = 1 << 30  # of decoded samples a split keeps in memory, at most
PREFETCHED = 2  # batches that are ready before they are asked for

# What a random generator is for: each (seed, index, purpose) has its own stream
_ORDER, _GEOMETRY, _NOISE = range(3)


class Samples:
    """One split, every image resized to one size and kept in memory where it fits.

    Args:
        prepared: what `keras_seg.data.prepared.open_prepared` returns.
        split: "train", "val" or "test".
        size: (height, width) in pixels that every sample is resized to.
        padded_size: None, or the (height, width) batches are padded to at the bottom
            and on the right, the image with 0 after normalisation, the label with 255.
        limit: None, or the number of samples used, the first ones of the split.
        cache_bytes: how much memory decoded samples may take; the others are decoded
            each time they are asked for.

    Attributes:
        ids: the samples' names, in order.
        labels: the dataset's `LabelSpec`.
        size: (height, width) of a sample.
        padded_size: (height, width) of a batch.
        joints: float32 [N, 24, 2], (x, y) in pixels at `size`, NaN for a joint outside
            of the image; None where the dataset has none.
        error: the first exception that making a batch raised, or None. A tf.data
            pipeline turns it into an error of its own: raise this one instead.

    Raises:
        DataError: the split is empty, or it has other joints than SURREAL's 24.
    """

    def __init__(
        self,
        prepared,
        split: str,
        size: tuple[int, int],
        *,
        padded_size: tuple[int, int] | None = None,
        limit: int | None = None,
        cache_bytes: int = CACHE_BYTES,
    ):
        self._files = list(prepared.samples(split))[:limit]
        if not self._files:
            raise DataError(f"split {split}", "no images", "at least one")
        self.ids = tuple(sample.id for sample in self._files)
        self.labels = prepared.labels
        self.size = height, width = tuple(size)
        self.padded_size = self.size if padded_size is None else tuple(padded_size)
        self.joints = self._resized_joints(prepared.joints(split), split)
        self.error: Exception | None = None
        self._cache: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._cache_length = cache_bytes // (height * width * 4)

    def __len__(self) -> int:
        return len(self._files)

    def plain(self, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Sample k of the split, resized, not augmented, not padded; do not modify.

        Returns:
            image: uint8 RGB [H, W, 3], bilinear, antialiased where it shrinks.
            label: uint8 [H, W], class ids and 255, by nearest with half-pixel centres.
            joints: float32 [24, 2] or None.

        Raises:
            DataError: a file that cannot be read, an image and a label of different
                size, a label outside the classes; the file is named.
        """
        pair = self._cache.get(k)
        if pair is None:
            pair = self._read(self._files[k])
            if len(self._cache) < self._cache_length:
                self._cache[k] = pair
        return *pair, None if self.joints is None else self.joints[k]

    def _read(self, sample):
        image, label = read_image(sample.image), read_label(sample.label)
        if image.shape[:2] != label.shape:
            raise DataError(
                f"{sample.label}",
                "{1} x {0} pixels".format(*label.shape),
                "{1} x {0} as its image".format(*image.shape),
            )
        check_label(label, self.labels.num_classes, sample.label)
        image, label = resize_image(image, self.size), resize_label(label, self.size)
        image, label = np.ascontiguousarray(image), np.ascontiguousarray(label)
        image.flags.writeable = label.flags.writeable = False
        return image, label

    def _resized_joints(self, joints, split):
        """Joints of the files in pixels at `size`; those outside the image as NaN."""
        if joints is None:
            return None
        if joints.shape[1:] != (targets.PARTS, 2):
            raise DataError(f"joints of {split}", joints.shape, "[N, 24, 2]")
        extents = np.array([(file.width, file.height) for file in self._files])
        extents = extents[:, None, :]  # [N, 1, 2]
        joints = joints[: len(self._files)].astype(np.float64)
        is_inside = (joints >= -0.5) & (joints < extents - 0.5)
        joints = (joints + 0.5) * (np.array(self.size[::-1]) / extents) - 0.5
        joints[~is_inside.all(axis=2)] = np.nan
        return joints.astype(np.float32)


def check_label(label: np.ndarray, num_classes: int, name: object) -> None:
    """Raise DataError, naming `name`, where an id is neither a class nor 255."""
    wrong = label[(label >= num_classes) & (label != IGNORE_ID)]
    if wrong.size:
        raise DataError(
            f"{name}",
            f"label {wrong[0]} in {np.count_nonzero(wrong == wrong[0])} pixels",
            f"0..{num_classes - 1}, or {IGNORE_ID} to ignore",
        )


def sample_at(seed: int, index: int, count: int) -> int:
    """Which of `count` samples is number `index` of a training run."""
    epoch, place = divmod(index, count)
    return int(_epoch_order(seed, epoch, count)[place])


@functools.lru_cache(maxsize=4)
def _epoch_order(seed, epoch, count):
    return _generator(seed, epoch, _ORDER).permutation(count)


def _generator(seed, index, purpose):
    key = np.array([seed, index], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, purpose]))


def training_sample(
    samples: Samples, seed: int, index: int, augment: Augment
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Sample number `index` of a training run, augmented; as `Samples.plain`."""
    image, label, joints = samples.plain(sample_at(seed, index, len(samples)))
    geometry = augmentation.draw_geometry(augment, _generator(seed, index, _GEOMETRY))
    image, label, joints = augmentation.apply(geometry, image, label, joints)
    if geometry.mirror and augment.swap_lr:
        label = samples.labels.flip_table()[label]
        if joints is not None:
            joints = targets.mirrored_joints(joints)
    if augment.noise > 0:
        noise_source = _generator(seed, index, _NOISE)
        image = augmentation.add_noise(image, augment.noise, noise_source)
    return image, label, joints


def training_batches(
    samples: Samples,
    *,
    batch: int,
    seed: int,
    augment: Augment,
    start_step: int,
    stop_step: int,
    preprocess: str,
    heads: Mapping[str, object],
    joint_targets: str = "surreal",
    workers: int,
) -> "tf.data.Dataset":
    """The batches of the steps start_step..stop_step - 1.

    Args:
        samples: the training split.
        batch: samples a batch; step k has the samples k * batch..(k + 1) * batch - 1.
        seed: from 0; order and augmentation are drawn from it.
        augment: what may happen to a sample.
        start_step, stop_step: whole numbers from 0.
        preprocess: a key of `keras_seg.preprocess.PREPROCESS`.
        heads: the network's `keras_seg.nets.Head` by name; `target`, `lookup` and, of
            heatmaps, `stride` count.
        joint_targets: what "heatmaps" show: the dataset's joints ("surreal") or the
            centre of each part of the augmented label ("centroid").
        workers: batches made at a time; never changes a bit.

    Returns:
        tf.data.Dataset of (image float32 [batch, H, W, 3], {head: target}). A target
        is uint8 [batch, H, W] (ids and 255) or float32 [batch, h, w, 24] (heatmaps,
        -1 throughout where the joint is not visible). [H, W] is `padded_size`; h and w
        are those of the head.

    Raises:
        UsageError: an unknown preprocess or target, "surreal" without joints.
        tf.errors.OpError: while iterating, a file that cannot be used: see
            `Samples.error`.
    """
    collate = _Collate(samples, preprocess, heads, joint_targets)
    make = _training_maker(samples, collate, batch, seed, augment)
    return _tf_batches(make, collate, start_step, stop_step, batch, workers)


def evaluation_batches(
    samples: Samples,
    *,
    batch: int,
    preprocess: str,
    heads: Mapping[str, object],
    joint_targets: str = "surreal",
    workers: int,
) -> "tf.data.Dataset":
    """All samples once, in order, not augmented; the last batch may be smaller.

    Arguments, elements and errors are those of `training_batches`; the first
    dimension is not static.
    """
    collate = _Collate(samples, preprocess, heads, joint_targets)
    make = _evaluation_maker(samples, collate, batch)
    stop = -(-len(samples) // batch)
    return _tf_batches(make, collate, 0, stop, None, workers)


def numpy_training_batches(
    samples: Samples,
    *,
    batch: int,
    seed: int,
    augment: Augment,
    start_step: int,
    stop_step: int,
    preprocess: str,
    heads: Mapping[str, object],
    joint_targets: str = "surreal",
    workers: int,
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """`training_batches` as NumPy arrays, for machines without TensorFlow.

    An error of a sample is raised as it is.
    """
    collate = _Collate(samples, preprocess, heads, joint_targets)
    make = _training_maker(samples, collate, batch, seed, augment)
    return _numpy_batches(make, collate, start_step, stop_step, workers)


def numpy_evaluation_batches(
    samples: Samples,
    *,
    batch: int,
    preprocess: str,
    heads: Mapping[str, object],
    joint_targets: str = "surreal",
    workers: int,
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """`evaluation_batches` as NumPy arrays, for machines without TensorFlow."""
    collate = _Collate(samples, preprocess, heads, joint_targets)
    make = _evaluation_maker(samples, collate, batch)
    stop = -(-len(samples) // batch)
    return _numpy_batches(make, collate, 0, stop, workers)


class _Collate:
    """Samples to the arrays of a batch: the image, then each different target."""

    def __init__(self, samples, preprocess, heads, joint_targets):
        if preprocess not in preprocessing.PREPROCESS:
            known = ", ".join(preprocessing.PREPROCESS)
            raise UsageError("preprocess", preprocess, f"one of {known}")
        self.size, self.padded_size = samples.size, samples.padded_size
        self.preprocess, self.joint_targets = preprocess, joint_targets
        kinds = {
            head: (spec.target, spec.lookup, spec.stride)
            for head, spec in heads.items()
        }
        self.kinds = tuple(dict.fromkeys(kinds.values()))  # different ones, in order
        self.heads = {head: self.kinds.index(kind) for head, kind in kinds.items()}
        self.tables = [
            targets.lookup_table(lookup, samples.labels.num_classes)
            for _, lookup, _ in self.kinds
        ]
        for target, _, _ in self.kinds:
            if target not in ("labels", "heatmaps"):
                raise UsageError("target of a head", target, "labels or heatmaps")
        if joint_targets not in ("surreal", "centroid"):
            raise UsageError("joint_targets", joint_targets, "surreal or centroid")
        if self.has_heatmaps and joint_targets == "surreal" and samples.joints is None:
            raise UsageError(
                "joint_targets", "surreal, without joints in the data", "centroid"
            )

    @property
    def has_heatmaps(self):
        return any(target == "heatmaps" for target, _, _ in self.kinds)

    def __call__(self, batch):
        images, labels, joints = zip(*batch)
        image = preprocessing.apply(self.preprocess, np.stack(images))
        label = np.stack(labels)
        if self.padded_size != self.size:
            image, label = self._pad(image, 0), self._pad(label, IGNORE_ID)
        if self.has_heatmaps and self.joint_targets == "centroid":
            joints = [targets.part_centroids(one) for one in labels]
        arrays = [image]
        for (target, _, stride), table in zip(self.kinds, self.tables):
            if target == "heatmaps":
                arrays.append(self._heatmaps(joints, stride))
            else:
                arrays.append(label if table is None else table[label])
        return arrays

    def _pad(self, array, value):
        height, width = self.size
        padded = np.full(
            (len(array), *self.padded_size, *array.shape[3:]), value, array.dtype
        )
        padded[:, :height, :width] = array
        return padded

    def _heatmaps(self, joints, stride):
        """float32 [N, H / stride, W / stride, 24], rounded up."""
        size, padded_size = (_reduced(s, stride) for s in (self.size, self.padded_size))
        shape = (len(joints), *padded_size, targets.PARTS)
        maps = np.zeros(shape, dtype=np.float32)
        for one, out in zip(joints, maps):
            # A pixel's centre is at a whole number, at every resolution.
            targets.draw_heatmaps((one + 0.5) / stride - 0.5, size, out)
        return maps

    def structured(self, arrays):
        """(image, {head: target}) of what a call returned."""
        image, *different = arrays
        return image, {head: different[kind] for head, kind in self.heads.items()}

    def signature(self):
        """(dtype, shape without the batch) of every array a call returns."""
        signature = [(np.float32, (*self.padded_size, 3))]
        for target, _, stride in self.kinds:
            if target == "heatmaps":
                size = _reduced(self.padded_size, stride)
                signature.append((np.float32, (*size, targets.PARTS)))
            else:
                signature.append((np.uint8, self.padded_size))
        return signature


def _reduced(size, stride):
    return tuple(-(-side // stride) for side in size)


def _training_maker(samples, collate, batch, seed, augment) -> Callable:
    def make(step):
        indices = range(step * batch, (step + 1) * batch)
        return collate([training_sample(samples, seed, i, augment) for i in indices])

    return _remembering_errors(samples, make)


def _evaluation_maker(samples, collate, batch) -> Callable:
    def make(step):
        indices = range(step * batch, min((step + 1) * batch, len(samples)))
        return collate([samples.plain(k) for k in indices])

    return _remembering_errors(samples, make)


def _remembering_errors(samples, make):
    def make_batch(step):
        try:
            return make(int(step))
        except Exception as error:
            samples.error = samples.error or error
            raise

    return make_batch


def _tf_batches(make, collate, start, stop, batch, workers):
    import tensorflow as tf

    signature = collate.signature()
    dtypes = [tf.as_dtype(dtype) for dtype, _ in signature]

    def one_batch(step):
        # Stateless: op determinism would run a stateful function one call at a time
        arrays = tf.numpy_function(make, [step], dtypes, stateful=False)
        for array, (_, shape) in zip(arrays, signature):
            array.set_shape((batch, *shape))
        return collate.structured(arrays)

    options = tf.data.Options()
    # The autotune thread delays the end of fit by up to its whole length again
    options.autotune.enabled = False
    options.deterministic = True
    return (
        tf.data.Dataset.range(start, stop)
        .map(one_batch, num_parallel_calls=workers, deterministic=True)
        .prefetch(PREFETCHED)
        .with_options(options)
    )


def _numpy_batches(make, collate, start, stop, workers):
    pool = ThreadPoolExecutor(workers, thread_name_prefix="loader")
    pending = deque()
    try:
        for step in range(start, stop):
            pending.append(pool.submit(make, step))
            if len(pending) > workers + PREFETCHED:
                yield collate.structured(pending.popleft().result())
        while pending:
            yield collate.structured(pending.popleft().result())
    finally:
        pool.shutdown(cancel_futures=True)
