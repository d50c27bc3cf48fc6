"""Numbers of a stage's results: means over seeds, differences, floors.

An arm's number is the mean over its seeds that are done; NaN is what has no value.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from keras_seg import metrics as measures
from keras_seg import plots
from keras_seg.ablation.protocol import ArmResult, Side, StageResult
from keras_seg.report.winner import Part
from keras_seg.runs import evaluate, folder
from keras_seg.storage import StorageError

# Runs and arms


def all_done(result: StageResult) -> list[ArmResult]:
    """The runs of all arms that are done."""
    return [run for run in result.results if run.state == "done"]


def done(result: StageResult, name: str) -> list[ArmResult]:
    """The runs of one arm that are done."""
    return [run for run in all_done(result) if run.arm.name == name]


def rival(result: StageResult) -> str | None:
    """The arm the winner is measured against: the base, or where that won the next.

    None where it has no result.
    """
    first = result.arms[0].name
    if result.winner == first:
        return runner_up(result)
    return first if done(result, first) else None


def runner_up(result: StageResult) -> str | None:
    """The best arm but the winner; None where no other has a result."""
    others = {run.arm.name for run in all_done(result)} - {result.winner}
    names = [arm.name for arm in result.arms if arm.name in others]
    return max(names, key=lambda n: mean_score(result, n, "miou"), default=None)


def folds(runs: Iterable[ArmResult]) -> int | None:
    """How many folds the images were scored in; None where they were not divided."""
    found = (run.arm.config.data.folds for run in runs)
    return max(filter(None, found), default=None)


def of_side(
    result: StageResult, others: Mapping[str, StageResult], side: Side
) -> list[ArmResult]:
    """The runs of one side of a claim that are done and have scores of its split.

    Args:
        result: the claim's stage.
        others: {name: stage} of those that were run.
    """
    stage = others.get(side.stage) if side.stage else result
    if stage is None:
        return []
    name = side.arm
    if side.stage and name == "winner" and not stage.of(name):
        name = stage.winner or ""
    runs = [of_split(run, side.split) for run in done(stage, name)]
    return [run for run in runs if run is not None]


def of_split(run: ArmResult, split: str) -> ArmResult | None:
    """A finished run with its scores of a split, "" for any; None where it has none.

    Folds have none of a split that they do not divide: each would have its own.
    """
    if split in ("", metrics(run).get("split", "val")):
        return run
    if run.folds:
        folds = [of_split(fold, split) for fold in run.folds]
        known = tuple(fold for fold in folds if fold is not None)
        if split != "val" or len(known) < len(folds):
            return None
        together = evaluate.merged([*map(metrics, known)])
        return replace(run, metrics=together, folds=known)
    if split == "val":
        found = folder.read_metrics(run.run)
    else:
        found = folder.read_evaluation(run.run, split, full_size=True)
        found = found or folder.read_evaluation(run.run, split)
    return None if found is None else replace(run, metrics=found)


def metrics(run: ArmResult) -> Mapping[str, Any]:
    """metrics.json of a run that is done."""
    assert run.metrics is not None, f"{run.run} is not done"
    return run.metrics


def score(run: ArmResult, key: str) -> float:
    """A number of the summary of a run that is done."""
    value = metrics(run)["summary"].get(key)
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


def mean(values: Sequence[float]) -> float:
    """The mean of the values that are not NaN; NaN where none is."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def spread(values: Sequence[float]) -> float:
    """Standard deviation of a sample; NaN for fewer than two values."""
    known = [value for value in values if not math.isnan(value)]
    return float(np.std(known, ddof=1)) if len(known) > 1 else math.nan


# Numbers from counts per image


@dataclass(frozen=True)
class Counted:
    """The counts per image behind the scores of an arm.

    Attributes:
        ids, split: of the N images.
        classes: ids of those that are scored; None is all.
        counts: int64 [S, 3, N, C], pixels of intersection, truth and prediction of each
            run that is done.
    """

    ids: Sequence[str]
    split: str
    classes: Sequence[int] | None
    counts: np.ndarray

    def matches(self, other: "Counted") -> bool:
        """Whether both were scored on the same images in the same way."""
        names = (self.ids, self.split, self.classes)
        if names != (other.ids, other.split, other.classes):
            return False
        return np.array_equal(self.counts[0, 1], other.counts[0, 1])


def counted(runs: Sequence[ArmResult]) -> Counted | None:
    """The counts per image behind the scores of an arm's finished runs.

    None where there is no run, one has no counts or those of other scores, or they were
    scored on different images.

    Raises:
        StorageError: a file of counts is damaged.
    """
    found = []
    for run in runs:
        if (each := per_image(run)) is None:
            return None
        split, classes = metrics(run)["split"], metrics(run).get("scored_ids")
        found.append(Counted(each.ids, split, classes, _stacked(each)[None]))
    if not found or not all(one.matches(found[0]) for one in found):
        return None
    return replace(found[0], counts=np.concatenate([one.counts for one in found]))


def counted_steps(run: ArmResult, ids: Sequence[str]) -> list[Part]:
    """The validations of a run whose counts were kept: one part, with folds one each.

    [] unless they are of the images `ids`, each once, and the steps that were kept are
    among them.

    Raises:
        StorageError: a file of counts is damaged.
    """
    place = {name: position for position, name in enumerate(ids)}
    parts: list[Part] = []
    for training in run.trainings:
        found = folder.read_validations(training.run)
        if metrics(training).get("step") not in found:
            return []
        first, *others = (counts.ids for counts in found.values())
        if any(names != first for names in others) or not place.keys() >= {*first}:
            return []
        positions = np.array([place.pop(name) for name in first])
        counts = np.stack([_stacked(counts) for counts in found.values()])
        parts.append(Part(positions, counts))
    return [] if place else parts


def batch_iou(run: ArmResult, batch: int = 16) -> float:
    """Mean over batches of the mean IoU of the classes present in each (VOC07).

    The images are in the order of the split. NaN where they were not counted.
    """
    try:
        counts = per_image(run)
    except StorageError:  # the report says so where it lacks intervals
        counts = None
    if counts is None:
        return math.nan
    ids = metrics(run).get("scored_ids")
    arrays = _stacked(counts)[..., slice(None) if ids is None else list(ids)]
    ious = []
    for first in range(0, len(counts.ids), batch):
        hits, truth, predicted = arrays[:, first : first + batch].sum(axis=1)
        union = truth + predicted - hits
        ious.append(mean((hits[union > 0] / union[union > 0]).tolist()))
    return mean(ious)


def _stacked(counts: folder.PerImage) -> np.ndarray:
    """int64 [3, N, C]."""
    return np.stack(_arrays(counts))


def _arrays(counts: folder.PerImage) -> list[np.ndarray]:
    return [counts.intersection, counts.truth, counts.predicted]


def per_image(run: ArmResult) -> folder.PerImage | None:
    """The counts behind the scores of a run that is done; with folds of all images."""
    found = [_counts(training) for training in run.trainings]
    known = [counts for counts in found if counts is not None]
    return merged(known) if len(known) == len(found) else None


def merged(found: Sequence[folder.PerImage]) -> folder.PerImage | None:
    """Counts of disjoint images together, by id; None where they share an image.

    What is merged counts as one training. Trainings of different folds share most of
    their images, so an interval does not cover another draw of training images (Bengio
    and Grandvalet 2004).
    """
    if len(found) == 1:
        return found[0]
    ids = [name for counts in found for name in counts.ids]
    if len({*ids}) < len(ids):
        return None
    order = sorted(range(len(ids)), key=ids.__getitem__)
    arrays = [np.concatenate(rows)[order] for rows in zip(*map(_arrays, found))]
    return folder.PerImage(tuple(ids[k] for k in order), *arrays)


def _counts(run: ArmResult) -> folder.PerImage | None:
    # Only an evaluation states its size; the other scores are those of metrics.json.
    full_size = metrics(run).get("full_size")
    split = None if full_size is None else metrics(run)["split"]
    counts = folder.read_per_image(run.run, split, bool(full_size))
    if counts is None:
        return None
    hits = np.diag(confusion(run))
    ids = metrics(run).get("scored_ids") or range(len(hits))
    expected = np.where(np.isin(np.arange(len(hits)), ids), hits, 0)
    return counts if np.array_equal(counts.intersection.sum(0), expected) else None


# Numbers of classes


def confusion(run: ArmResult) -> np.ndarray:
    """int64 [C, C] of a run that is done, rows = truth."""
    return np.asarray(metrics(run)["confusion"], dtype=np.int64)


def per_class(result: StageResult, name: str, key: str) -> list[float]:
    """[C]: mean over the seeds that have a value."""
    runs = [metrics(run)["per_class"][key] for run in done(result, name)]
    numbers = [[math.nan if one is None else one for one in run] for run in runs]
    return [mean(values) for values in zip(*numbers)]


def grouped_accuracy(
    result: StageResult, name: str, groups: Mapping[str, Sequence[int]]
) -> dict[str, float]:
    """{group: accuracy} of an arm: means over its classes, then over seeds."""
    matrices = [confusion(run) for run in done(result, name)]
    runs = [measures.grouped_accuracy(matrix, groups) for matrix in matrices]
    return {group: mean([run[group] for run in runs]) for group in groups}


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


def gap(run: ArmResult) -> float:
    """Training minus validation mIoU at the step that was kept."""
    return mean([_gap(training) for training in run.trainings])


def _gap(run: ArmResult) -> float:
    for row in run.history:
        if row["step"] == metrics(run)["step"]:
            return row.get("train_miou", math.nan) - row.get("val_miou", math.nan)
    return math.nan


STILL_RISING = 0.01  # of the score: the least that counts as a rise


def still_improving(runs: Sequence[ArmResult]) -> bool | None:
    """Whether an arm's validation mIoU still rose when its trainings ended.

    Of the curve that is the mean over its trainings: its best is in the last quarter,
    whose mean is at least 1 % of itself above that of the quarter before. None where
    there are fewer than two validations.
    """
    curves = [[row.get("val_miou", math.nan) for row in run.history] for run in runs]
    length = min(map(len, curves), default=0)
    if length < 2:
        return None
    curve = np.mean([each[:length] for each in curves], axis=0)
    quarter = max(1, length // 4)
    last, before = curve[-quarter:], curve[-2 * quarter : -quarter]
    is_best = last.max() > curve[:-quarter].max()
    return bool(is_best and last.mean() - before.mean() >= STILL_RISING * last.mean())


def kept_step(run: ArmResult) -> float:
    """The step whose weights were kept and scored; with folds their mean."""
    steps = [metrics(one).get("step", math.nan) for one in run.trainings]
    return mean(steps) if run.folds else steps[0]


def loss_fall(run: ArmResult) -> float:
    """The part of the training loss that is gone at the last step, 0..1.

    Of its mean over the first window of training; comparable between losses.
    """
    losses = [row.get("loss", math.nan) for row in run.history]
    if len(losses) < 2 or not losses[0] > 0:
        return math.nan
    return 1 - losses[-1] / losses[0]


def jump(run: ArmResult) -> float:
    """How much the validation mIoU rises at half of the run; NaN if not known.

    The mean over the tenth of the steps after half of them, at least one validation,
    minus that over the tenth before (BODY Fig. 4, where batch norm joins at half).
    """
    rows = [row for row in run.history if math.isfinite(row.get("val_miou", math.nan))]
    if len(rows) < 2:
        return math.nan
    half = rows[-1]["step"] / 2
    width = max(half / 5, rows[1]["step"] - rows[0]["step"])
    before, after = (
        [row["val_miou"] for row in rows if start < row["step"] <= start + width]
        for start in (half - width, half)
    )
    return mean(after) - mean(before)


def floors(
    result: StageResult, class_names: Sequence[str], train_pixels: Sequence[int]
) -> list[tuple[str, dict]]:
    """Scores of predictions that need no learning; [] while no run is done.

    Returns:
        (what is predicted, `metrics.summary`): the most frequent class of the training
        split everywhere; where class 0 is the background, also the true silhouette
        with every part called the most frequent part.
    """
    runs = all_done(result)
    if not runs:
        return []
    truth = confusion(runs[0]).sum(1)
    pixels = np.asarray(train_pixels)

    def scored(prediction):
        matrix = np.zeros((len(truth), len(truth)), np.int64)
        matrix[np.arange(len(truth)), prediction] = truth
        classes = metrics(runs[0]).get("scored_ids")
        return measures.summary(matrix, classes=classes)

    common = int(pixels.argmax())
    found = [(f"every pixel “{class_names[common]}”", scored(common))]
    if plots.has_background(class_names) and len(class_names) > 2:
        part = 1 + int(pixels[1:].argmax())
        name = f"the true silhouette, every part “{class_names[part]}”"
        found.append((name, scored([0] + [part] * (len(truth) - 1))))
    return found
