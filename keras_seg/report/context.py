"""The context of a study's report: what the data and the runs add to the results."""

from collections.abc import Mapping, Sequence

from keras_seg.ablation.protocol import StageResult, Study
from keras_seg.data import folds as dividing
from keras_seg.data import pipeline
from keras_seg.data.prepared import Prepared
from keras_seg.report import scores, wording
from keras_seg.report.sheets import Example
from keras_seg.report.view import Context
from keras_seg.runs import evaluate, folder

EXAMPLES = 4  # images in the pictures of the data


def make(
    study: Study,
    prepared: Prepared,
    results: Sequence[StageResult],
    *,
    command: str,
    scale: str,
    altered: Mapping[str, str],
    is_own: bool = False,
) -> Context:
    """The context of a report on these results.

    Args:
        command: the command line that repeats them.
        altered: {stage: why the document's numbers cannot stand beside it}.
        is_own: it is a question of the user's, of which no document speaks.
    """
    labels = prepared.labels
    every = [result for stage in results for result in stage.results]
    runs = [training.run for result in every for training in result.trainings]
    if (number := scores.folds(every)) is not None:
        prepared = dividing.divide(prepared, number, None)
    return Context(
        command=command,
        scale="paper" if is_own else scale,  # there is none that it is smaller than
        dataset=prepared.folder.resolve().name if is_own else prepared.dataset,
        prepared=prepared,
        is_own=is_own,
        names=labels.names,
        palette=labels.palette,
        flip_pairs=labels.flip_pairs,
        train_pixels=prepared.counts("train").pixels.tolist(),
        environment=folder.common_environment(runs),
        datasets=study.datasets,
        altered=altered,
        image_size=prepared.image_size,
        groups=groups(study, prepared),
        weights=weights(prepared, results),
        sequences={split: prepared.sequences(split) for split in prepared.splits},
        examples=examples(prepared, results),
        images={split: len(prepared.samples(split)) for split in prepared.splits},
    )


def groups(study: Study, prepared: Prepared) -> Mapping[str, Sequence[int]]:
    """The groups of the document's classes, where the data have just these classes."""
    found = study.groups.get(prepared.dataset, {})
    members = {class_id for ids in found.values() for class_id in ids}
    return found if members == set(range(prepared.labels.num_classes)) else {}


def weights(
    prepared: Prepared, results: Sequence[StageResult]
) -> dict[str, Sequence[float]]:
    """{name: [C]} of every class weighting of the arms, as the report draws them."""
    arms = [result.arm for stage in results for result in stage.results]
    found = {}
    for arm in sorted(arms, key=wording.weighting):
        values = evaluate.training_weights(arm.config, prepared)
        if values is not None:
            found[wording.weighting(arm)] = values.tolist()
    return found


def examples(prepared: Prepared, results: Sequence[StageResult]) -> list[Example]:
    """A few validation images, evenly spaced, for stages with pictures of the data."""
    with_sheets = [stage for stage in results if stage.stage.sheets]
    how = [r.arm.config.data for stage in with_sheets for r in stage.results]
    if not how:
        return []
    size = prepared.image_size or how[0].size
    samples = pipeline.Samples(prepared, "val", size, fit=how[0].fit)
    chosen = evaluate.evenly_spaced(len(samples), EXAMPLES)
    return [Example(samples.ids[k], *samples.plain(k)) for k in chosen]
