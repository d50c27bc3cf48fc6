"""Numbers of a stage's results: means over seeds, differences, floors.

An arm's number is the mean over its seeds that are done; NaN is what has no value.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from keras_seg import backend, plots
from keras_seg.ablation.protocol import Arm, ArmResult, StageResult
from keras_seg.report import intervals
from keras_seg.report.intervals import Interval
from keras_seg.runs import folder
from keras_seg.runs.folder import PerImage


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


def score_reader(key: str) -> Callable[[ArmResult], float]:
    """`score` of one key."""
    return lambda run: score(run, key)


def of_seeds(result: StageResult, name: str, key: str) -> list[float]:
    """A number of the summary for each run of an arm that is done."""
    return [score(run, key) for run in done(result, name)]


def mean_score(result: StageResult, name: str | None, key: str) -> float:
    """The mean of `of_seeds`; NaN for no arm, None."""
    return math.nan if name is None else mean(of_seeds(result, name, key))


def difference(result: StageResult, name: str | None, other: str | None) -> float:
    """Mean mIoU of one arm minus that of another, in 0..1."""
    return mean_score(result, name, "miou") - mean_score(result, other, "miou")


def interval(
    result: StageResult,
    name: str | None,
    other: str | None,
    sequences: Mapping[str, Mapping[str, str]],
    metric: str = "miou",
) -> Interval | None:
    """A difference of means with a paired bootstrap interval over images and seeds.

    The counts per image are read from the run folders, for the split and size of the
    stage's numbers.

    Args:
        result: of the stage.
        name, other: the arms; the interval is of the first minus the second.
        sequences: {split: {image id: sequence}}, as of `Prepared.sequences`.
        metric: one of `intervals.SCORES`.

    Returns:
        None where an arm is None or has no finished run, a run has no counts per image
        or counts that are not those of its scores, the runs were scored on different
        images, or on too few.

    Raises:
        StorageError: a file of counts is damaged.
    """
    runs = [done(result, arm) for arm in (name, other)]
    arms = [{run.seed: _per_image(run) for run in listed} for listed in runs]
    counts = [each for arm in arms for each in arm.values()]
    if not all(arms) or any(each is None for each in counts):
        return None
    metrics = [run.metrics for listed in runs for run in listed]
    for one, each in zip(metrics, counts):
        if (
            one["split"] != metrics[0]["split"]
            or one.get("scored_ids") != metrics[0].get("scored_ids")
            or each.ids != counts[0].ids
            or not np.array_equal(each.truth, counts[0].truth)
        ):
            return None
    split = metrics[0]["split"]
    groups = intervals.groups_of(counts[0].ids, sequences.get(split, {}))
    if groups.max(initial=0) == 0:
        return None
    ours, others = ({seed: _stacked(arm[seed]) for seed in arm} for arm in arms)
    classes = metrics[0].get("scored_ids")
    return intervals.paired_difference(
        ours, others, groups, classes=classes, metric=metric
    )


def _stacked(counts: PerImage) -> np.ndarray:
    """int64 [3, N, C]."""
    return np.stack([counts.intersection, counts.truth, counts.predicted])


def _per_image(result: ArmResult) -> PerImage | None:
    """The counts behind the scores of a run that is done."""
    # Scores of another split or size name it; metrics.json does not.
    full_size = result.metrics.get("full_size")
    split = None if full_size is None else result.metrics["split"]
    counts = folder.read_per_image(result.run, split, bool(full_size))
    if counts is None:
        return None
    hits = np.diag(confusion(result))
    ids = result.metrics.get("scored_ids") or range(len(hits))
    expected = np.where(np.isin(np.arange(len(hits)), ids), hits, 0)
    return counts if np.array_equal(counts.intersection.sum(0), expected) else None


def batch_iou(result: ArmResult, batch: int = 16) -> float:
    """Mean over batches of the mean IoU of the classes present in each (VOC07).

    Args:
        result: a run that is done.
        batch: images of each, in the order of the split.

    Returns:
        NaN where the run has no counts per image.
    """
    counts = _per_image(result)
    if counts is None:
        return math.nan
    ids = result.metrics.get("scored_ids")
    arrays = _stacked(counts)[..., slice(None) if ids is None else list(ids)]
    ious = []
    for first in range(0, len(counts.ids), batch):
        hits, truth, predicted = arrays[:, first : first + batch].sum(axis=1)
        union = truth + predicted - hits
        ious.append(mean((hits[union > 0] / union[union > 0]).tolist()))
    return mean(ious)


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
    """Share of the pixels whose part is found that are given the wrong side.

    Of the pixels of paired classes only those count that are predicted as their own
    class or its mirror image: an arm that finds no hand mistakes no left hand either.
    Guessing the side gives 0.5. NaN where there are no pairs or no pixels that count.
    """
    if not pairs:
        return math.nan
    left, right = np.array(pairs).T
    swapped = confusion[left, right].sum() + confusion[right, left].sum()
    found = swapped + confusion[left, left].sum() + confusion[right, right].sum()
    return float(swapped / found) if found else math.nan


def gap(result: ArmResult) -> float:
    """Training minus validation mIoU at the step that was kept."""
    for row in result.history:
        if row["step"] == result.metrics["step"]:
            return row.get("train_miou", math.nan) - row.get("val_miou", math.nan)
    return math.nan


def grouped_accuracy(
    result: StageResult, name: str, groups: Mapping[str, Sequence[int]]
) -> dict[str, float]:
    """{group: accuracy} of an arm: means over its classes, then over seeds."""
    runs = [
        _metrics().grouped_accuracy(confusion(run), groups)
        for run in done(result, name)
    ]
    return {group: mean([run[group] for run in runs]) for group in groups}


def floors(
    result: StageResult, class_names: Sequence[str], train_pixels: Sequence[int]
) -> list[tuple[str, dict]]:
    """Scores of predictions that need no learning.

    Args:
        result: the truth is that of its first run that is done.
        class_names: C of them.
        train_pixels: [C]; the most frequent class is that of the training split.

    Returns:
        (what is predicted, `metrics.summary`): the most frequent class everywhere;
        where class 0 is the background, also the true silhouette with every part
        called the most frequent part. [] while no run is done.
    """
    runs = all_done(result)
    if not runs:
        return []
    truth = confusion(runs[0]).sum(1)
    pixels = np.asarray(train_pixels)

    def scored(prediction):
        matrix = np.zeros((len(truth), len(truth)), np.int64)
        matrix[np.arange(len(truth)), prediction] = truth
        classes = runs[0].metrics.get("scored_ids")
        return _metrics().summary(matrix, classes=classes)

    common = int(pixels.argmax())
    found = [(f"every pixel “{class_names[common]}”", scored(common))]
    if plots.has_background(class_names) and len(class_names) > 2:
        part = 1 + int(pixels[1:].argmax())
        name = f"the true silhouette, every part “{class_names[part]}”"
        found.append((name, scored([0] + [part] * (len(truth) - 1))))
    return found


def _metrics():
    """keras_seg.metrics, which imports Keras."""
    backend.configure()
    from keras_seg import metrics

    return metrics
