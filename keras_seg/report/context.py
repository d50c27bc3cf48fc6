"""The context of a study's report: what the data and the runs add to the results."""

from collections.abc import Sequence

from keras_seg import backend, class_weights
from keras_seg.ablation.protocol import StageResult, Study
from keras_seg.data import pipeline
from keras_seg.data.prepared import Prepared
from keras_seg.report import wording
from keras_seg.report.sheets import Example
from keras_seg.report.view import Context
from keras_seg.runs import evaluate
from keras_seg.runs import folder as run_folder

EXAMPLES = 4  # images in the pictures of the data


def make(
    study: Study,
    prepared: Prepared,
    results: Sequence[StageResult],
    *,
    command: str,
    scale: str,
) -> Context:
    """The context of a report on these results; the command line is to repeat them."""
    return Context(
        command=command,
        scale=scale,
        study=study.name,
        dataset=prepared.dataset,
        labels=prepared.labels,
        train_pixels=prepared.counts("train").pixels.tolist(),
        environment=environment(results),
        datasets=study.datasets,
        groups=study.groups.get(prepared.dataset, {}),
        weights=weights(prepared, results),
        sequences={split: prepared.sequences(split) for split in prepared.splits},
        examples=examples(prepared, results),
    )


def weights(
    prepared: Prepared, results: Sequence[StageResult]
) -> dict[str, Sequence[float]]:
    """{name: [C]} of every class weighting of the arms, as the report draws them."""
    configs = [result.arm.config for stage in results for result in stage.results]
    found = {}
    for config in sorted(configs, key=wording.weighting):
        values = class_weights.from_counts(config.loss, prepared.counts("train"))
        if values is not None:
            found[wording.weighting(config)] = values.tolist()
    return found


def environment(results: Sequence[StageResult]) -> dict[str, object]:
    """Versions and machine as the first run that was begun wrote them; the commits."""
    found = [
        run_folder.read_environment(result.run)
        for stage in results
        for result in stage.results
        if (result.run / "environment.json").is_file()
    ]
    if not found:
        return {}
    commits = dict.fromkeys(one["commit"] or "not known" for one in found)
    return found[0]["fingerprint"] | {
        "commit": ", ".join(commits),
        "commit of this report": backend.commit(),
    }


def examples(prepared: Prepared, results: Sequence[StageResult]) -> list[Example]:
    """A few validation images, evenly spaced, for stages with pictures of the data."""
    with_sheets = [stage for stage in results if stage.stage.sheets]
    sizes = [r.arm.config.data.size for stage in with_sheets for r in stage.results]
    if not sizes:
        return []
    samples = pipeline.Samples(prepared, "val", prepared.image_size or sizes[0])
    chosen = evaluate.evenly_spaced(len(samples), EXAMPLES)
    return [Example(samples.ids[k], *samples.plain(k)) for k in chosen]
