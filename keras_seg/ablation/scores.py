"""Numbers of a stage's results: means over seeds, differences, floors.

An arm's number is the mean over its seeds that are done; NaN is what has no value.
"""

import math
from collections.abc import Sequence

import numpy as np

from keras_seg import backend
from keras_seg.ablation.protocol import Arm, ArmResult, StageResult


def base(result: StageResult) -> Arm:
    """The arm the others are compared with: the stage's first."""
    return result.arms[0]


def all_done(result: StageResult) -> list[ArmResult]:
    """The runs of all arms that are done."""
    return [run for run in result.results if run.state == "done"]


def done(result: StageResult, name: str) -> list[ArmResult]:
    """The runs of one arm that are done."""
    return [run for run in result.of(name) if run.state == "done"]


def rival(result: StageResult) -> str | None:
    """The arm the winner is measured against: the base, or where that won the next.

    None where it has no result.
    """
    if result.winner != base(result).name:
        return base(result).name if done(result, base(result).name) else None
    others = [
        arm.name
        for arm in result.arms
        if arm.name != result.winner and done(result, arm.name)
    ]
    return max(others, key=lambda n: mean_score(result, n, "miou"), default=None)


def score(result: ArmResult, key: str) -> float:
    """A number of the summary of a run that is done."""
    value = result.metrics["summary"].get(key)
    return math.nan if value is None else float(value)


def of_seeds(result: StageResult, name: str, key: str) -> list[float]:
    """A number of the summary for each run of an arm that is done."""
    return [score(run, key) for run in done(result, name)]


def mean_score(result: StageResult, name: str | None, key: str) -> float:
    """The mean of `of_seeds`; NaN for no arm, None."""
    return math.nan if name is None else mean(of_seeds(result, name, key))


def difference(result: StageResult, name: str | None, other: str | None) -> float:
    """Mean mIoU of one arm minus that of another, in 0..1."""
    return mean_score(result, name, "miou") - mean_score(result, other, "miou")


def per_class(result: StageResult, name: str, key: str) -> list[float]:
    """[C]: mean over the seeds that have a value."""
    runs = [numbers(run.metrics["per_class"][key]) for run in done(result, name)]
    return [mean(values) for values in zip(*runs)]


def confusion(result: ArmResult) -> np.ndarray:
    """int64 [C, C] of a run that is done, rows = truth."""
    return np.asarray(result.metrics["confusion"], dtype=np.int64)


def numbers(values: Sequence[float | None]) -> list[float]:
    """JSON's null as NaN."""
    return [math.nan if value is None else float(value) for value in values]


def mean(values: Sequence[float]) -> float:
    """The mean of the values that are not NaN; NaN where none is."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def spread(values: Sequence[float]) -> float:
    """Standard deviation of a sample; NaN for fewer than two values."""
    known = [value for value in values if not math.isnan(value)]
    return float(np.std(known, ddof=1)) if len(known) > 1 else math.nan


def left_right_confusion(
    confusion: np.ndarray, pairs: Sequence[tuple[int, int]]
) -> float:
    """Share of the pixels of paired classes that are predicted as their mirror image.

    NaN where there are no pairs or no pixels of them.
    """
    if not pairs:
        return math.nan
    left, right = np.array(pairs).T
    pixels = confusion[left].sum() + confusion[right].sum()
    swapped = confusion[left, right].sum() + confusion[right, left].sum()
    return float(swapped / pixels) if pixels else math.nan


def gap(result: ArmResult) -> float:
    """Training minus validation mIoU at the step that was kept."""
    for row in result.history:
        if row["step"] == result.metrics["step"]:
            return row.get("train_miou", math.nan) - row.get("val_miou", math.nan)
    return math.nan


def floors(
    result: StageResult, class_names: Sequence[str], train_pixels: Sequence[int]
) -> list[tuple[str, dict]]:
    """Scores of predictions that need no learning.

    Args:
        result: the truth is that of the first run that is done.
        class_names: C of them.
        train_pixels: [C]; "most frequent" is meant of the training split.

    Returns:
        (what is predicted, `metrics.summary`): the most frequent class everywhere;
        where class 0 is the background, also the true silhouette with every part
        called the most frequent part. [] while no run is done.
    """
    runs = all_done(result)
    if not runs:
        return []
    backend.configure()
    from keras_seg import metrics  # imports Keras

    truth = confusion(runs[0]).sum(1)
    pixels = np.asarray(train_pixels)

    def scored(prediction):
        matrix = np.zeros((len(truth), len(truth)), np.int64)
        matrix[np.arange(len(truth)), prediction] = truth
        return metrics.summary(matrix, classes=runs[0].metrics.get("scored_ids"))

    common = int(pixels.argmax())
    found = [(f"every pixel “{class_names[common]}”", scored(common))]
    if class_names[0].lower() == "background" and len(class_names) > 2:
        part = 1 + int(pixels[1:].argmax())
        name = f"the true silhouette, every part “{class_names[part]}”"
        found.append((name, scored([0] + [part] * (len(truth) - 1))))
    return found
