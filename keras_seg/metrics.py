"""Metrics of segmentation, all from one confusion matrix of integer counts.

M[t, p] counts the pixels of true class t predicted as class p, over the whole data
set. TP = diagonal, truth = row sums, predicted = column sums:

    IoU       TP / (truth + predicted - TP)     recall     TP / truth
    F1        2 TP / (truth + predicted)        precision  TP / predicted

A value whose denominator is 0 is NaN and left out of means: an absent class (neither
in truth nor predicted) counts neither as 0 nor as 1; a class that is only predicted
has IoU and F1 0. This is the rule of Cityscapes' scripts.
"""

from collections.abc import Iterable, Mapping, Sequence

import keras
import numpy as np
from keras import ops

from keras_seg.errors import DataError, UsageError
from keras_seg.labels import IGNORE_ID
from keras_seg.losses import check_shapes, resize_labels

_ABSENT = {"skip": np.nan, "zero": 0.0, "one": 1.0}
# Of the words of a count: those of over a hundred replicas add without overflow.
_BASE = 1 << 24


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
        raise UsageError("shape of predictions", predictions.shape, f"{labels.shape}")
    for what, ids in (("labels", labels), ("predictions", predictions)):
        if ids.dtype.kind not in "iu":
            raise UsageError(f"dtype of {what}", ids.dtype, "integers")
    valid = labels != ignore_id
    labels = labels[valid].astype(np.int64)
    predictions = predictions[valid].astype(np.int64)
    for what, ids in (("label id", labels), ("predicted id", predictions)):
        unknown = ids[(ids < 0) | (ids >= num_classes)]
        if unknown.size:
            raise DataError(what, unknown[0], f"0 to {num_classes - 1}")
    counts = np.bincount(labels * num_classes + predictions, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def summary(
    confusion: np.ndarray, absent: str = "skip", classes: Sequence[int] | None = None
) -> dict:
    """Everything that is reported of a confusion matrix.

    Args:
        confusion: [C, C] counts, rows = truth.
        absent: what an absent class has as IoU, F1, recall and precision: "skip"
            (NaN, left out of means), "zero" or "one".
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
    """
    confusion = _checked(confusion)
    if absent not in _ABSENT:
        raise UsageError("absent", absent, "skip, zero or one")
    evaluated = _evaluated(len(confusion), classes)
    confusion = np.where(evaluated[:, None], confusion, 0)
    values = _per_class(confusion)
    truth, predicted = confusion.sum(1), confusion.sum(0)
    true_positives = np.diag(confusion)
    is_absent = evaluated & (truth + predicted == 0)
    for value in values.values():
        value[is_absent] = _ABSENT[absent]
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


def grouped_accuracy(
    confusion: np.ndarray, groups: Mapping[str, Sequence[int]]
) -> dict[str, float]:
    """Mean recall of the classes of each group (BODY tables 2 and 5).

    The unweighted mean of the members' recalls, not the recall of the merged class
    (see `merge_classes`): BODY's printed rows agree with nothing else. Members without
    a true pixel are left out; NaN where none has one.
    """
    recall = _per_class(_checked(confusion))["recall"]
    for name, ids in groups.items():
        if not ids or min(ids) < 0 or max(ids) >= len(recall):
            raise UsageError(f"group {name}", ids, f"ids 0 to {len(recall) - 1}")
    return {name: _mean(recall[list(ids)]) for name, ids in groups.items()}


def merge_classes(confusion: np.ndarray, lookup: Sequence[int]) -> np.ndarray:
    """The confusion matrix after class i has become class lookup[i] in both axes."""
    confusion = _checked(confusion)
    if len(lookup) != len(confusion) or min(lookup) < 0:
        raise UsageError("lookup", list(lookup), f"{len(confusion)} ids from 0")
    merged = np.zeros((max(lookup) + 1, max(lookup) + 1), confusion.dtype)
    np.add.at(merged, (np.asarray(lookup)[:, None], np.asarray(lookup)), confusion)
    return merged


def majority_floor(counts: np.ndarray) -> dict:
    """The summary of predicting the most frequent class everywhere.

    Args:
        counts: [C] true pixels of each class, or a confusion matrix [C, C].
    """
    counts = np.asarray(counts)
    if counts.ndim == 2:
        counts = _checked(counts).sum(1)
    confusion = np.zeros((len(counts), len(counts)), np.int64)
    confusion[:, np.argmax(counts)] = counts
    return summary(confusion)


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


def per_image_iou(confusions: Iterable[np.ndarray]) -> np.ndarray:
    """float64 [N]: the mean IoU of each of N confusion matrices, absent classes left
    out; for the spread between images, or batches."""
    return np.array([_mean(_per_class(_checked(one))["iou"]) for one in confusions])


def iou_batch_present(confusions: Iterable[np.ndarray]) -> float:
    """Mean over batches of the mean IoU of the classes present in each (VOC07).

    VOC07's printed IoUs are too high for its accuracies over the whole data set; they
    fit this average. Batches without a valid pixel are left out.
    """
    return _mean(per_image_iou(confusions))


def macro_f1_bound(miou: float) -> float:
    """The largest macro F1 that a mean IoU allows: 2 m / (1 + m).

    F1 = 2 IoU / (1 + IoU) is concave, so the mean of F1 is at most F1 of the mean.
    Shows that BODY's F1 of ICNet is no macro F1 of the matrix behind its mIoU.
    """
    return 2 * miou / (1 + miou)


def plain(value):
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
        raise UsageError("shape of the confusion matrix", confusion.shape, "[C, C]")
    if confusion.dtype.kind not in "iu" or (confusion < 0).any():
        raise UsageError("confusion matrix", confusion.dtype, "counts, integers from 0")
    return confusion.astype(np.int64)


def _evaluated(num_classes: int, classes) -> np.ndarray:
    evaluated = np.zeros(num_classes, bool)
    ids = range(num_classes) if classes is None else list(classes)
    if not ids or min(ids) < 0 or max(ids) >= num_classes:
        raise UsageError("classes", ids, f"ids 0 to {num_classes - 1}")
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


def _ratio(part, whole):
    """part / whole in float64, NaN where whole is 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    ratio = np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole != 0)
    return ratio if ratio.ndim else float(ratio)


def _mean(values: np.ndarray) -> float:
    """Mean of the values that are not NaN; NaN where there are none."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")


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
        direct_weights: Sequence[float] | None = None,
        name: str = "miou",
        dtype=None,
    ):
        super().__init__(name=name, dtype=dtype)
        if resize not in ("logits", "labels"):
            raise UsageError("resize", resize, "logits or labels")
        if direct_weights is not None:
            direct_weights = [float(weight) for weight in direct_weights]
            if len(direct_weights) != num_classes:
                raise UsageError(
                    "direct weights", len(direct_weights), f"{num_classes} of them"
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
            raise UsageError(f"sample_weight of {self.name}", "given", "none")
        label = ops.convert_to_tensor(y_true)
        logits = ops.cast(y_pred, "float32")
        check_shapes(self.name, label, logits)
        if logits.shape[-1] != self.num_classes:
            raise UsageError(
                f"classes of {self.name}", self.num_classes, f"{logits.shape[-1]}"
            )
        if self.resize == "labels":
            label = resize_labels(label, *logits.shape[1:3])
        elif tuple(label.shape[1:]) != tuple(logits.shape[1:3]):
            logits = ops.image.resize(logits, tuple(label.shape[1:]), "bilinear")
        if self.direct_weights is not None:
            logits = logits * ops.convert_to_tensor(self.direct_weights, "float32")
        counts = self._count(ops.cast(label, "int32"), _argmax(logits))
        low = self._low + counts
        carry = ops.floor_divide(low, _BASE)
        self._low.assign(low - carry * _BASE)
        self._high.assign(self._high + carry)

    def _count(self, label, prediction):
        """int32 [C * C + 1]: the pixels of each cell, then those with no valid id."""
        classes = self.num_classes
        known = ops.logical_and(label >= 0, label < classes)
        cell = ops.where(known, label * classes + prediction, classes**2)
        ignored = classes**2 + 1
        cell = ops.where(ops.equal(label, self.ignore_id), ignored, cell)
        return _occurrences(ops.reshape(cell, (-1,)), ignored + 1)[:ignored]

    def result(self):
        """The mIoU, absent classes left out; NaN while nothing is counted."""
        low, high = ops.cast(self._low, "float32"), ops.cast(self._high, "float32")
        counts = (high * _BASE + low)[:-1]
        matrix = ops.reshape(counts, (self.num_classes, self.num_classes))
        true_positives = ops.diagonal(matrix)
        union = ops.sum(matrix, axis=0) + ops.sum(matrix, axis=1) - true_positives
        present = union > 0
        iou = true_positives / ops.where(present, union, 1.0)
        miou = ops.sum(iou) / ops.sum(ops.cast(present, "float32"))
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


@keras.saving.register_keras_serializable("keras_seg")
class ImageCounts(ConfusionMatrix):
    """A `ConfusionMatrix` that also keeps the counts of each image of the last batch.

    Args:
        num_classes: C.
        batch: images of a batch, at most.
        classes: ids that are evaluated, as of `summary`; None is all.
        **options: as `ConfusionMatrix` takes them.
    """

    def __init__(
        self,
        num_classes: int,
        batch: int,
        classes: Sequence[int] | None = None,
        **options,
    ):
        super().__init__(num_classes, **options)
        self.batch = int(batch)
        self.classes = None if classes is None else [int(each) for each in classes]
        self._evaluated = _evaluated(self.num_classes, self.classes)
        self._images = self.add_variable(
            (3, self.batch, self.num_classes), "zeros", dtype="int32", name="images"
        )

    def images(self) -> np.ndarray:
        """int64 [3, batch, C], as of `image_counts`; zeros after the last image."""
        return ops.convert_to_numpy(self._images).astype(np.int64)

    def _count(self, label, prediction):
        classes = self.num_classes
        nothing = classes  # the class of pixels that do not count
        known = ops.logical_and(label >= 0, label < classes)
        index = ops.clip(label, 0, classes - 1)
        counts = ops.logical_and(known, ops.not_equal(label, self.ignore_id))
        counts = ops.logical_and(counts, ops.take(self._evaluated, index))
        truth = ops.where(counts, label, nothing)
        predicted = ops.where(counts, prediction, nothing)
        hits = ops.where(ops.equal(truth, predicted), truth, nothing)
        number = ops.arange(self.batch, dtype="int32")[: ops.shape(label)[0]]
        first_cell = ops.reshape(number, (-1, 1, 1)) * (classes + 1)
        cells = self.batch * (classes + 1)
        per_image = [
            ops.reshape(
                _occurrences(ops.reshape(first_cell + ids, (-1,)), cells),
                (self.batch, classes + 1),
            )[:, :classes]
            for ids in (hits, truth, predicted)
        ]
        self._images.assign(ops.stack(per_image))
        return super()._count(label, prediction)

    def get_config(self):
        config = super().get_config()
        return config | {"batch": self.batch, "classes": self.classes}


def _argmax(logits):
    """int32 [B, h, w]: the class of the largest logit, the lowest id of equal ones.

    Keras' argmax takes five times as long with TensorFlow on a CPU.
    """
    return ops.top_k(logits, k=1)[1][..., 0]


def _occurrences(numbers, size: int):
    """int32 [size]: how often each of 0..size-1 occurs in `numbers`, int32 [N].

    Integers, as the sum of floats depends on the order. bincount is up to 25 times as
    fast, but JAX cannot compile it, and TensorFlow refuses it on a GPU under op
    determinism.
    """
    if keras.backend.backend() == "tensorflow":
        if not keras.distribution.list_devices("gpu"):
            return ops.reshape(ops.bincount(numbers, minlength=size), (size,))
    return ops.segment_sum(ops.ones_like(numbers), numbers, num_segments=size)
