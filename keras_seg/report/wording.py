"""Numbers and names as the report writes them; "" where there is no number.

Scores are shares in 0..1 and are written in percent, their differences in percentage
points.
"""

import math
from collections.abc import Iterable, Sequence

from keras_seg.ablation.protocol import Arm, ArmResult
from keras_seg.runs import folder

METRICS = {  # keys of `keras_seg.metrics.summary`
    "miou": "mIoU",
    "miou_fg": "mIoU of the foreground",
    "iou_ovr2": "two-class IoU",
    "fwiou": "frequency-weighted IoU",
    "pixel_accuracy": "accuracy",
    "mean_accuracy": "mean class accuracy",
    "f1_macro": "macro F1",
    "f1_weighted": "weighted F1",
    "f1_body": "F1 of foreground against background",
    "f1_micro_fg": "F1 of the foreground",
    "precision_micro_fg": "precision of the foreground",
    "recall_micro_fg": "recall of the foreground",
}
COLUMNS = (  # that a claim may be about beside them; `keras_seg.report.tables.columns`
    *("parameters", "gflop", "train_minutes", "ms_per_image"),
    *("train_val_gap", "left_right_swapped", "train_loss_fall", "jump"),
    "kept_step",
)
OF_CLASSES = ("iou", "recall", "precision")  # with the name of a class: "iou Road"
PUBLISHED = {  # further keys of published numbers
    "f1": "macro F1",
    "f1_unknown": "F1 (of which kind is unknown)",
    "iou_batch_present": "IoU averaged over batches",
}
SPLITS = {"val": "validation", "test": "test", "train": "training"}
DOCUMENTS = {  # as the sources of stages cite them
    "BODY": "J. Borrego Carazo, Fully Convolutional Architectures for Multi-Part Body "
    "Segmentation, thesis, 2018",
    "CLOTH": "S.-H. Choi and S. H. Jung, Stable Acquisition of Fine-Grained Segments "
    "Using Batch Normalization and Focal Loss with L1 Regularization in U-Net "
    "Structure, 2020",
    "CITY": "S. Chen et al., Semantic Segmentation, course report on Cityscapes, 2020",
    "ATTN": "C. Shen and Z. Sun, A Deep Learning-Based Image Semantic Segmentation "
    "Algorithm, 2023",
    "VOC07": "Anonymous, Solving Pixel-level Semantic Segmentation with Fully "
    "Convolutional Network, course report on PASCAL VOC 2007",
}


def metric(key: str) -> str:
    """A metric's name in words; the key where it has none."""
    return (METRICS | PUBLISHED).get(key, key)


def is_metric(name: str, classes: Sequence[str] | None) -> bool:
    """Whether a claim may be about it; `classes` of the data, None where not known."""
    kind, space, of = name.partition(" ")
    if space:
        return kind in OF_CLASSES and (classes is None or of in classes)
    return name in METRICS or name in COLUMNS


def weighting(arm: Arm) -> str:
    """The class weights of an arm; those of VOC07 with their settings."""
    loss = arm.config.loss
    if not isinstance(loss.weights, str):
        return ", ".join(f"{weight:g}" for weight in loss.weights)
    if loss.weights != "voc07":
        return loss.weights
    return f"voc07 ({loss.occurrences}, background {loss.background_weight:g})"


def mean_over(runs: Iterable[ArmResult]) -> str:
    """Over which classes the mIoU of runs that are done is; "" if over all."""
    found = {folder.mean_over(run.metrics) for run in runs if run.metrics} - {""}
    return " or ".join(sorted(found))


def percent(value: float) -> str:
    return "" if math.isnan(value) else f"{100 * value:.2f}"


def percent_short(value: float) -> str:
    return "" if math.isnan(value) else f"{100 * value:.1f}"


def points(value: float) -> str:
    """With its sign, also that of −0.00: a bound just below 0 is below it."""
    return "" if math.isnan(value) else f"{100 * value:+.2f}".replace("-", "−")


def p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def whole(value: float) -> str:
    return "" if math.isnan(value) else f"{value:,.0f}"


def decimal(value: float) -> str:
    return "" if math.isnan(value) else f"{value:,.1f}"


def three_digits(value: float) -> str:
    return whole(value) if not abs(value) < 100 else f"{value:.3g}"


def signed(value: float) -> str:
    """Three digits with their sign."""
    text = three_digits(abs(value))
    return text and f"{'−' if value < 0 else '+'}{text}"


def factor(value: float) -> str:
    """× 1.85"""
    return "" if math.isnan(value) else f"× {value:.3g}"


def count(number: int, what: str) -> str:
    """The number with its noun in the singular or plural."""
    if number == 1:
        return f"{number} {what}"
    if what.endswith("is"):
        return f"{number} {what[:-2]}es"
    return f"{number} {what[:-1]}ies" if what.endswith("dy") else f"{number} {what}s"


def seeds(numbers: Sequence[int]) -> str:
    """How many seeds, of one arm or several: 3 seeds, 2 and 3 seeds."""
    *fewer, most = sorted(set(numbers))
    return joined([*map(str, fewer), count(most, "seed")])


def size(height_and_width: tuple[int, int]) -> str:
    """Of an image."""
    return "{} x {} px".format(*height_and_width)


def span(values: Sequence[float]) -> str:
    """From the smallest to the largest of sorted numbers, one where they are equal."""
    low, high = three_digits(values[0]), three_digits(values[-1])
    return low if low == high else f"{low} to {high}"


def joined(parts: Sequence[str]) -> str:
    """a, b and c"""
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last
