"""The best of several arms, and what its lead is worth after the luck of the choice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from keras_seg.report.grouping import Grouping
from keras_seg.report.statistics import Comparison, Measured, compare, measure, score

FOLDS = 10  # of the cross-fitting


@dataclass(frozen=True)
class Winner:
    """The best of several arms, as measured and corrected for having been chosen.

    Attributes:
        name, runner_up: the arms with the highest and second highest score.
        over_base: None where the base won.
        over_runner_up: as measured.
        corrected_over_base, corrected_over_runner_up: cross-fitted; of the choice
            rather than of the arm: other data may choose another.
        chosen: {arm: share of the choices it won}.
    """

    name: str
    runner_up: str
    over_base: Comparison | None
    over_runner_up: Comparison
    corrected_over_base: Comparison
    corrected_over_runner_up: Comparison
    chosen: Mapping[str, float]


@dataclass(frozen=True)
class Part:
    """Counts of a training, or of one of its folds, at the steps to choose among.

    Attributes:
        positions: int64 [n], where its images stand among all N.
        counts: [K, 3, n, C] of K steps.
    """

    positions: np.ndarray
    counts: np.ndarray


Training = np.ndarray | Sequence[Part]


def find_winner(
    arms: Mapping[str, Sequence[Training]],
    base: str,
    grouping: Grouping,
    classes: Sequence[int] | None = None,
    metric: str = "miou",
) -> Winner:
    """The best arm, and what its lead is worth after the luck of the choice.

    Cross-fitting (Stone 1974): the arm, and the step of every training where there are
    several, are chosen without a tenth of the groups and, with several seeds, without
    one training of every arm, and measured on what was left out. Of a training with
    folds each has a step of its own, which its own images choose.

    Args:
        arms: {name: counts of each training}: [3, N, C], or [K, 3, N, C] of K steps,
            or a part for each fold.
        base: the arm that the others are compared with.
        grouping: of the images.
        classes, metric: as in `measure`.

    Raises:
        ValueError: fewer than two arms.
    """
    if len(arms) < 2:
        raise ValueError("a winner needs at least two arms")
    parts = {name: [_parts(one) for one in listed] for name, listed in arms.items()}

    def at_best_steps(out: np.ndarray) -> dict[str, np.ndarray]:
        """{name: [S, 3, N, C]}: each training at what is best without images [N]."""
        return {
            name: np.stack([_at_best_step(one, out, classes, metric) for one in listed])
            for name, listed in parts.items()
        }

    nothing = np.zeros(len(grouping.numbers), bool)
    kept = {
        name: measure(counts, classes, metric)
        for name, counts in at_best_steps(nothing).items()
    }
    first, second = sorted(kept, key=lambda name: -kept[name].scores.mean())[:2]

    trainings = min(len(listed) for listed in parts.values())
    left_out = np.zeros((3, trainings, len(grouping.numbers)))  # first, second, base
    choices = []
    for fold in np.array_split(np.arange(grouping.groups), FOLDS):
        out = np.isin(grouping.numbers, fold)
        if not out.any():
            continue
        counts = at_best_steps(out)
        rest = {  # [S] of each arm, without the fold
            name: score(each[:, :, ~out].sum(axis=2), classes, metric)
            for name, each in counts.items()
        }
        for training in range(trainings):
            chosen = sorted(rest, key=lambda name: -_without(rest[name], training))[:2]
            choices.append(chosen[0])
            for role, name in enumerate((*chosen, base)):
                found = measure(counts[name][training, None], classes, metric)
                left_out[role, training, out] = _by_image(found)[out]
    of_first, of_second, of_base = (_from_values(values) for values in left_out)

    over_base = None
    if first != base:
        over_base = compare(kept[first], kept[base], grouping, (first, base))
    return Winner(
        name=first,
        runner_up=second,
        over_base=over_base,
        over_runner_up=compare(kept[first], kept[second], grouping, (first, second)),
        corrected_over_base=compare(of_first, of_base, grouping),
        corrected_over_runner_up=compare(of_first, of_second, grouping),
        chosen={name: choices.count(name) / len(choices) for name in set(choices)},
    )


def _parts(training: Training) -> Sequence[Part]:
    """Of all images, where it has none."""
    if not isinstance(training, np.ndarray):
        return training
    counts = training if training.ndim == 4 else training[None]
    return [Part(np.arange(counts.shape[2]), counts)]


def _at_best_step(
    parts: Sequence[Part],
    out: np.ndarray,
    classes: Sequence[int] | None,
    metric: str,
) -> np.ndarray:
    """float64 [3, N, C]: counts at the step of each part that is best without `out`."""
    found = np.zeros((3, len(out), parts[0].counts.shape[-1]))
    for part in parts:
        rest = part.counts[:, :, ~out[part.positions]].sum(axis=2)
        step = int(np.argmax(score(rest.astype(np.float64), classes, metric)))
        found[:, part.positions] = part.counts[step]
    return found


def _without(scores: np.ndarray, training: int) -> float:
    """The mean of the scores [S] of all trainings but one; of one if it is alone."""
    others = np.delete(scores, training)
    return float(np.mean(others if len(others) else scores))


def _by_image(measured: Measured) -> np.ndarray:
    """[N]: what each image says of the score of one training; their mean is it."""
    (influences,) = measured.influences
    return measured.scores[0] + len(influences) * influences


def _from_values(values: np.ndarray) -> Measured:
    """From what each image says of the scores [S, N]."""
    scores = values.mean(axis=1)
    return Measured(scores, (values - scores[:, None]) / values.shape[1])
