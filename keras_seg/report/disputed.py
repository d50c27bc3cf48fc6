"""The images that tell most about a stage: its winner's worst and best, the disputed.

Chosen by the IoU of each image, the mean over the classes that it or its prediction
has. The predictions are those that runs keep (predictions.npz).
"""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from keras_seg import plots
from keras_seg.ablation.protocol import ArmResult
from keras_seg.data.pipeline import Samples
from keras_seg.report import scores
from keras_seg.report.blocks import Heading, Paragraph, Pictures
from keras_seg.report.view import StageView
from keras_seg.runs import folder

IMAGES = 2  # of each kind
RIGHT = (228, 232, 236)  # where the palette has no background
Predictions = Mapping[str, np.ndarray]  # {image: class ids [h, w]}


def blocks(view: StageView) -> list:
    """Two grids of pictures; [] where the runs or the data are not at hand."""
    if view.context.prepared is None or view.result.winner is None:
        return []
    found: dict[str, tuple[dict[str, float], Predictions]] = {}
    for arm in view.whole().drawn:
        for run in scores.done(view.result, arm)[:1]:
            what = "disputed images"
            counts = view.read(what, partial(counts_on_val, run))
            kept = view.read(what, partial(predictions, run))
            if counts is not None and kept:
                found[arm] = image_ious(counts), kept
    winner = view.result.winner
    if winner not in found:
        return []
    ious, kept = found[winner]
    ranked = sorted((name for name in kept if name in ious), key=lambda n: ious[n])
    if len(ranked) < 2:
        return []
    number = min(IMAGES, len(ranked) // 2)
    extremes = [(name, "worst") for name in ranked[:number]]
    extremes += [(name, "best") for name in reversed(ranked[-number:])]
    text = (
        "The validation images with the lowest and the highest IoU of the winner, "
        f"{view.titles[winner]}"
    )
    rows = [(name, f"{kind}: {_percent(ious[name])}") for name, kind in extremes]
    result: list = [
        Heading(3, "The winner's worst and best images"),
        Paragraph(f"{text}. Pink pixels are wrong.", "note"),
        _grid(view, "extremes", rows, {winner: kept}),
    ]
    common = set.intersection(*(set(kept) & set(ious) for ious, kept in found.values()))
    if len(found) > 1 and common:
        result += _disputed(view, found, common)
    return result


def _disputed(view: StageView, found: Mapping, common: set[str]) -> list:
    """The images on which the arms differ most."""

    def spread(name: str) -> float:
        of_arms = [ious[name] for ious, _ in found.values()]
        return max(of_arms) - min(of_arms)

    chosen = sorted(sorted(common), key=spread, reverse=True)[:IMAGES]
    rows = []
    for name in chosen:
        of_arms = [ious[name] for ious, _ in found.values()]
        rows.append((name, f"{_percent(min(of_arms))} to {_percent(max(of_arms))}"))
    text = "Those on which the arms' IoUs are farthest apart. Pink pixels are wrong."
    kept = {arm: kept for arm, (_, kept) in found.items()}
    return [
        Heading(3, "The most disputed images"),
        Paragraph(text, "note"),
        _grid(view, "disputed", rows, kept, maps=len(found) == 2),
    ]


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def image_ious(counts: folder.PerImage) -> dict[str, float]:
    """{image: the mean IoU of the classes that occur in it or in its prediction}."""
    hits = counts.intersection.astype(float)
    union = counts.truth + counts.predicted - hits
    present = union > 0
    ious = np.divide(hits, union, out=np.zeros_like(hits), where=present)
    number = present.sum(axis=1)
    return {
        name: float(line.sum() / n)
        for name, line, n in zip(counts.ids, ious, number)
        if n
    }


def counts_on_val(run: ArmResult) -> folder.PerImage | None:
    """The counts per image of the validation images, at the run's size."""
    found = [folder.read_per_image(training.run) for training in run.trainings]
    known = [counts for counts in found if counts is not None]
    return scores.merged(known) if len(known) == len(found) else None


def predictions(run: ArmResult) -> Predictions:
    """What the trainings of a run keep of their predictions."""
    kept: dict[str, np.ndarray] = {}
    for training in run.trainings:
        kept |= folder.read_predictions(training.run) or {}
    return kept


def _grid(
    view: StageView,
    name: str,
    rows: Sequence[tuple[str, str]],
    arms: Mapping[str, Predictions],
    maps: bool = True,
) -> Pictures:
    """Columns: image, truth, and of each arm the prediction and its errors.

    Without `maps`, the errors alone.
    """
    prepared = view.context.prepared
    assert prepared is not None
    sizes = {one.name: (one.config.data.size, one.config.data.fit) for one in view.arms}
    samples = {
        (size, fit): Samples(prepared, "val", size, fit=fit)
        for size, fit in {sizes[arm] for arm in arms}
    }
    first = samples[sizes[next(iter(arms))]]
    background = view.palette[0] if plots.has_background(view.context.names) else None
    header = ["image", "truth"]
    for arm in arms:
        title = view.titles[arm]
        header += [title, f"{title}: errors"] if maps else [f"{title}: errors"]
    lines, seen = [], []
    for image, caption in rows:
        picture, label, _ = first.plain(first.ids.index(image))
        line = [picture, plots.paint(label, view.palette)]
        seen.append(label)
        for arm, kept in arms.items():
            at_size = samples[sizes[arm]]
            truth = at_size.plain(at_size.ids.index(image))[1]
            if maps:
                line.append(plots.paint(kept[image], view.palette))
                seen.append(kept[image])
            line.append(plots.paint_errors(truth, kept[image], background or RIGHT))
        lines.append((f"{image}, {caption}", line))
    legend = plots.legend_entries(seen, view.palette, view.context.names)
    return Pictures(
        f"{view.stage.name}-{name}",
        header,
        lines,
        [*legend, ("wrong", plots.WRONG_COLOUR)],
        overlay=True,
        background=background or RIGHT,
        named=True,
    )
