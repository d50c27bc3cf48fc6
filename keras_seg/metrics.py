"""Metrics of segmentation, all from one confusion matrix of integer counts.

M[t, p] counts the pixels of true class t predicted as class p, over the whole data
set. TP = diagonal, truth = row sums, predicted = column sums:

    IoU       TP / (truth + predicted - TP)     recall     TP / truth
    F1        2 TP / (truth + predicted)        precision  TP / predicted

A value whose denominator is 0 is NaN and left out of means: an absent class (neither
in truth nor predicted) counts neither as 0 nor as 1; a class that is only predicted
has IoU and F1 0. This is the rule of Cityscapes' scripts.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_seg.errors import DataError, UsageError
from keras_seg.labels import IGNORE_ID

ops: Any = keras.ops  # Keras tensors have no static types

# Of the two words of a count: those of over a hundred replicas add without overflow.
_BASE = 1 << 24


# Scores of counts


def confusion_matrix(
    labels: np.ndarray,
    predictions: np.ndarray,
    num_classes: int,
    ignore_id: int = IGNORE_ID,
) -> np.ndarray:
    """Count pixels by true and predicted class.

    Args:
        labels: true ids, integers of any shape.
        predictions: predicted ids 0..num_classes-1, integers of the same shape.
        num_classes: C.
        ignore_id: pixels whose label is this do not count.

    Returns:
        int64 [C, C], rows = truth.

    Raises:
        DataError (a ValueError): an id outside 0..C-1 at a pixel that counts.
        UsageError (a ValueError): shapes that differ, ids that are no integers.
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.shape != predictions.shape:
        raise UsageError(
            f"Labels of shape {labels.shape} cannot be compared with predictions of "
            f"shape {predictions.shape}."
        )
    for what, ids in (("Labels", labels), ("Predictions", predictions)):
        if ids.dtype.kind not in "iu":
            raise UsageError(f"{what} are {ids.dtype}; they must be integers.")
    valid = labels != ignore_id
    labels = labels[valid].astype(np.int64)
    predictions = predictions[valid].astype(np.int64)
    for what, ids in (("label id", labels), ("predicted id", predictions)):
        unknown = ids[(ids < 0) | (ids >= num_classes)]
        if unknown.size:
            raise DataError(
                f"There is a {what} {unknown[0]}; ids are 0 to {num_classes - 1}."
            )
    counts = np.bincount(labels * num_classes + predictions, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def summary(
    confusion: np.ndarray, classes: Sequence[int] | None = None
) -> dict[str, Any]:
    """Everything that is reported of a confusion matrix.

    Args:
        confusion: [C, C] counts, rows = truth.
        classes: ids that are evaluated; None is all. The pixels of other true classes
            are dropped, as if ignored; a prediction of another class remains an error
            of the true class (Cityscapes' rule).

    Returns:
        A dict of float64 [C] arrays `iou, recall, precision, f1` (NaN where undefined
        or not evaluated), `absent_ids` (a list of int), and floats in 0..1, NaN where
        there is nothing to average:

        * pixel_accuracy, mean_accuracy (mean recall), miou, fwiou (weighted with the
          truth), f1_macro, f1_weighted (with the truth), f1_micro (= pixel_accuracy);
        * of the foreground, the evaluated classes but 0: precision_micro_fg,
          recall_micro_fg, f1_micro_fg, miou_fg, iou_ovr2 (mean over classes of the
          mean of IoU and of the IoU of "all the rest", CLOTH's two-class IoU), f1_body
          (foreground against background as two classes).

    Raises:
        UsageError: no matrix of counts, or ids that are no classes of it.
    """
    confusion = _checked(confusion)
    evaluated = _evaluated(len(confusion), classes)
    confusion = np.where(evaluated[:, None], confusion, 0)
    values = _per_class(confusion)
    truth, predicted = confusion.sum(1), confusion.sum(0)
    true_positives = np.diag(confusion)
    is_absent = evaluated & (truth + predicted == 0)
    for value in values.values():
        value[~evaluated] = np.nan
    iou = values["iou"]

    total = truth.sum()
    accuracy = _ratio(true_positives.sum(), total)
    foreground = evaluated & (np.arange(len(confusion)) > 0)
    hits = true_positives[foreground].sum()
    body_hits = confusion[1:, 1:].sum()
    # "All the rest" of class c: TN / (N - TP).
    rest_iou = _ratio(
        total - truth - predicted + true_positives, total - true_positives
    )
    return {
        "pixel_accuracy": accuracy,
        "mean_accuracy": _mean(values["recall"]),
        "miou": _mean(iou),
        "fwiou": _ratio(np.nansum(truth * iou), total),
        "f1_macro": _mean(values["f1"]),
        "f1_weighted": _ratio(np.nansum(truth * values["f1"]), total),
        "f1_micro": accuracy,
        "precision_micro_fg": _ratio(hits, predicted[foreground].sum()),
        "recall_micro_fg": _ratio(hits, truth[foreground].sum()),
        "f1_micro_fg": _ratio(2 * hits, (truth + predicted)[foreground].sum()),
        "miou_fg": _mean(iou[foreground]),
        "iou_ovr2": _mean((iou + rest_iou)[foreground] / 2),
        "f1_body": _ratio(2 * body_hits, truth[1:].sum() + predicted[1:].sum()),
        **values,
        "absent_ids": np.flatnonzero(is_absent).tolist(),
    }


def scores(
    confusion: np.ndarray, classes: Sequence[int] | None = None
) -> dict[str, Any]:
    """A confusion matrix and its `summary` as metrics.json holds them, in JSON values.

    Returns:
        {"confusion": [[int]], "summary": {name: 0..1 or None}, "per_class": {"iou",
        "recall", "precision", "f1": [0..1 or None]}, "absent_ids": [int],
        "scored_ids": [int] or None}; a score is None where it is not defined.
    """
    overall = summary(confusion, classes)
    absent = overall.pop("absent_ids")
    per_class = {k: v for k, v in overall.items() if isinstance(v, np.ndarray)}
    return plain(
        {
            "confusion": np.asarray(confusion),
            "summary": {k: v for k, v in overall.items() if k not in per_class},
            "per_class": per_class,
            "absent_ids": absent,
            "scored_ids": classes,
        }
    )


def grouped_accuracy(
    confusion: np.ndarray, groups: Mapping[str, Sequence[int]]
) -> dict[str, float]:
    """Mean recall of the classes of each group (BODY tables 2 and 5).

    The unweighted mean of the members' recalls, not the recall of the merged class:
    BODY's printed rows agree with nothing else. Members without a true pixel are left
    out; NaN where none has one.

    Raises:
        UsageError: a group is empty or has an id that is no class.
    """
    recall = _per_class(_checked(confusion))["recall"]
    for name, ids in groups.items():
        if not ids or min(ids) < 0 or max(ids) >= len(recall):
            raise UsageError(
                f"The group {name} has the ids {list(ids)}; it must have some of 0 to "
                f"{len(recall) - 1}."
            )
    return {name: _mean(recall[list(ids)]) for name, ids in groups.items()}


def image_counts(
    confusion: np.ndarray, classes: Sequence[int] | None = None
) -> np.ndarray:
    """What an image adds to the scores of each class over the data set.

    Args:
        confusion: [C, C] counts of the image, rows = truth.
        classes: ids that are evaluated, as of `summary`.

    Returns:
        int64 [3, C]: pixels of the intersection, of the truth and of the prediction.
        Summed over images, they give IoU, F1 and recall of `summary`.
    """
    confusion = _checked(confusion)
    evaluated = _evaluated(len(confusion), classes)
    confusion = np.where(evaluated[:, None], confusion, 0)
    return np.stack([np.diag(confusion), confusion.sum(1), confusion.sum(0)])


def plain(value: Any) -> Any:
    """The value as JSON knows it: arrays as lists, what is not finite as None."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def _checked(confusion) -> np.ndarray:
    confusion = np.asarray(confusion)
    if confusion.ndim != 2 or confusion.shape[0] != confusion.shape[1]:
        raise UsageError(
            f"A confusion matrix is square; this one has the shape {confusion.shape}."
        )
    if confusion.dtype.kind not in "iu" or (confusion < 0).any():
        raise UsageError("A confusion matrix holds counts, whole numbers from 0.")
    return confusion.astype(np.int64)


def _evaluated(num_classes: int, classes) -> np.ndarray:
    evaluated = np.zeros(num_classes, bool)
    ids = range(num_classes) if classes is None else list(classes)
    if not ids or min(ids) < 0 or max(ids) >= num_classes:
        raise UsageError(
            f"The evaluated classes are {list(ids)}; they must be some of 0 to "
            f"{num_classes - 1}."
        )
    evaluated[ids] = True
    return evaluated


def _per_class(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """IoU, recall, precision and F1 of each class, NaN where 0 / 0."""
    true_positives = np.diag(confusion)
    truth, predicted = confusion.sum(1), confusion.sum(0)
    return {
        "iou": _ratio(true_positives, truth + predicted - true_positives),
        "recall": _ratio(true_positives, truth),
        "precision": _ratio(true_positives, predicted),
        "f1": _ratio(2 * true_positives, truth + predicted),
    }


def _ratio(part, whole) -> Any:
    """part / whole in float64, NaN where whole is 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    ratio = np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole != 0)
    return ratio if ratio.ndim else float(ratio)


def _mean(values: np.ndarray) -> float:
    """Mean of the values that are not NaN; NaN where there are none."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")


# Counting in a graph


def check_shapes(name: str, label: Any, logits: Any) -> None:
    """UsageError unless ids are [B, H, W] and logits [B, h, w, C], sizes known."""
    label, logits = tuple(label.shape), tuple(logits.shape)
    if len(label) != 3 or len(logits) != 4 or None in label[1:] + logits[1:]:
        raise UsageError(
            f"{name} got the shapes {label} and {logits}; it takes class ids [B, H, W] "
            "and logits [B, h, w, C] of known height and width."
        )


def resize_labels(label: Any, height: int, width: int) -> Any:
    """Class ids [B, H, W] by nearest, half-pixel centres, to [B, height, width]."""
    old_height, old_width = label.shape[1:]
    if (old_height, old_width) == (height, width):
        return label
    rows = _nearest(old_height, height)
    columns = _nearest(old_width, width)
    pixels = (rows[:, None] * old_width + columns).reshape(-1)
    flat = ops.reshape(label, (-1, old_height * old_width))
    return ops.reshape(ops.take(flat, pixels, axis=1), (-1, height, width))


def _nearest(old: int, new: int) -> np.ndarray:
    """int32 [new]: floor((i + 0.5) * old / new), in integers and so without error."""
    return ((2 * np.arange(new) + 1) * old // (2 * new)).astype(np.int32)


def confusions(
    label: Any, logits: Any, num_classes: int, ignore_id: int = IGNORE_ID
) -> Any:
    """The confusion matrix of each image of a batch, in Keras' operations.

    Args:
        label: class ids [B, H, W] of any dtype.
        logits: float [B, h, w, C]; resized to the label (bilinear) where it differs.
        num_classes: C.
        ignore_id: pixels whose label is this do not count.

    Returns:
        int32 [B, C * C + 1]: the matrix, rows = truth, then the number of pixels whose
        label is neither a class nor the ignored id.
    """
    size = tuple(label.shape[1:3])
    if size != tuple(logits.shape[1:3]):
        logits = ops.image.resize(logits, size, "bilinear")
    label = ops.cast(label, "int32")
    is_known = ops.logical_and(label >= 0, label < num_classes)
    invalid, ignored = num_classes**2, num_classes**2 + 1
    cell = ops.where(is_known, label * num_classes + class_ids(logits), invalid)
    cell = ops.where(ops.equal(label, ignore_id), ignored, cell)
    cell = ops.reshape(cell, (-1, size[0] * size[1]))
    return _occurrences(cell, ignored + 1)[:, :ignored]


def class_ids(logits):
    """int32 [B, h, w]: the class of the largest logit, the lowest id of equal ones.

    Keras' argmax takes five times as long with TensorFlow on a CPU; JAX sorts for its
    top_k.
    """
    if keras.backend.backend() == "jax":
        return ops.cast(ops.argmax(logits, axis=-1), "int32")
    return ops.top_k(logits, k=1)[1][..., 0]


def _occurrences(numbers, size: int):
    """int32 [B, size]: how often 0..size-1 occur in each row of int32 [B, N].

    Integers, as the sum of floats depends on the order. bincount is up to 25 times as
    fast, but JAX cannot compile it, and TensorFlow refuses it on a GPU under op
    determinism. There, XLA would sort before it adds to one place after the other;
    comparing with every number is one pass that stores nothing.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow" and not keras.distribution.list_devices("gpu"):
        return ops.bincount(numbers, minlength=size)
    if backend == "jax" and not keras.distribution.list_devices()[0].startswith("cpu"):
        is_number = ops.equal(
            numbers[:, None], ops.arange(size, dtype="int32")[:, None]
        )
        return ops.sum(ops.cast(is_number, "int32"), axis=-1)  # of [B, size, N]
    rows = ops.shape(numbers)[0]
    first = ops.reshape(ops.arange(rows, dtype="int32") * size, (-1, 1))
    numbers = ops.reshape(numbers + first, (-1,))
    ones = ops.ones_like(numbers)
    counts = ops.segment_sum(ones, numbers, num_segments=rows * size)
    return ops.reshape(counts, (-1, size))


@keras.saving.register_keras_serializable("keras_seg")
class ConfusionMatrix(keras.metrics.Metric):
    """A confusion matrix gathered in `fit` and `evaluate`; its result is the mIoU.

    y_true: class ids [B, H, W] of any dtype; y_pred: logits [B, h, w, C]. The counts
    are integers and exact beyond 2^31 on every backend: each is kept as two int32
    words of base 2^24, as JAX and GPUs lack 64-bit integers or are slow with them.

    Args:
        num_classes: C.
        ignore_id: pixels whose label is this do not count.
        resize: where the sizes differ, "logits" are resized to the label (bilinear,
            for validation), or "labels" to the logits (nearest, cheap, for training).
        direct_weights: [C], or None. Factors of the logits before the argmax, for the
            consistent variant of "direct" weighting (see `losses.CrossEntropy`).
        name: str. Name in the logs.
        dtype: of the result.
    """

    def __init__(
        self,
        num_classes: int,
        ignore_id: int = IGNORE_ID,
        resize: str = "logits",
        direct_weights: Sequence[float] | np.ndarray | None = None,
        name: str = "miou",
        dtype=None,
    ):
        super().__init__(name=name, dtype=dtype)
        if resize not in ("logits", "labels"):
            raise UsageError(f"resize is {resize!r}; it must be logits or labels.")
        if direct_weights is not None:
            direct_weights = [float(weight) for weight in direct_weights]
            if len(direct_weights) != num_classes:
                raise UsageError(
                    f"There are {len(direct_weights)} direct weights for {num_classes} "
                    "classes; there must be one for each."
                )
        self.num_classes = int(num_classes)
        self.ignore_id = int(ignore_id)
        self.resize = resize
        self.direct_weights = direct_weights
        # [C * C] the matrix, then the pixels with an invalid label.
        cells = self.num_classes**2 + 1
        self._low = self.add_variable((cells,), "zeros", dtype="int32", name="low")
        self._high = self.add_variable((cells,), "zeros", dtype="int32", name="high")

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Count a batch.

        Raises:
            UsageError: other shapes, or a number of classes, than stated; or sample
                weights.
        """
        if sample_weight is not None:
            raise UsageError(f"{self.name} takes no sample_weight.")
        label = ops.convert_to_tensor(y_true)
        logits = ops.cast(y_pred, "float32")
        check_shapes(self.name, label, logits)
        if logits.shape[-1] != self.num_classes:
            raise UsageError(
                f"{self.name} counts {self.num_classes} classes, but the logits have "
                f"{logits.shape[-1]}."
            )
        if self.resize == "labels":
            label = resize_labels(label, *logits.shape[1:3])
        if self.direct_weights is not None:
            logits = logits * ops.convert_to_tensor(self.direct_weights, "float32")
        counts = confusions(label, logits, self.num_classes, self.ignore_id)
        low = self._low + ops.sum(counts, axis=0)
        carry = ops.floor_divide(low, _BASE)
        self._low.assign(low - carry * _BASE)
        self._high.assign(self._high + carry)

    def result(self):
        """The mIoU, absent classes left out; NaN while nothing is counted.

        NaN also once a label is neither a class nor the ignored id: without its pixels
        the score would look better than it is. `invalid` counts them.
        """
        low, high = ops.cast(self._low, "float32"), ops.cast(self._high, "float32")
        counts = high * _BASE + low
        has_invalid, counts = counts[-1] > 0, counts[:-1]
        matrix = ops.reshape(counts, (self.num_classes, self.num_classes))
        true_positives = ops.diagonal(matrix)
        union = ops.sum(matrix, axis=0) + ops.sum(matrix, axis=1) - true_positives
        present = union > 0
        iou = true_positives / ops.where(present, union, 1.0)
        miou = ops.sum(iou) / ops.sum(ops.cast(present, "float32"))
        miou = ops.where(has_invalid, float("nan"), miou)
        return ops.cast(miou, self.dtype)

    def confusion(self) -> np.ndarray:
        """int64 [C, C], rows = truth."""
        return self._counts()[:-1].reshape(self.num_classes, self.num_classes)

    @property
    def invalid(self) -> int:
        """Pixels whose label is neither a class nor the ignored id; should be 0."""
        return int(self._counts()[-1])

    def _counts(self) -> np.ndarray:
        low = ops.convert_to_numpy(self._low).astype(np.int64)
        return ops.convert_to_numpy(self._high).astype(np.int64) * _BASE + low

    def get_config(self):
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "ignore_id": self.ignore_id,
            "resize": self.resize,
            "direct_weights": self.direct_weights,
        }
