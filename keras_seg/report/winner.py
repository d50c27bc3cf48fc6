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


def find_winner(
    arms: Mapping[str, Sequence[np.ndarray]],
    base: str,
    grouping: Grouping,
    classes: Sequence[int] | None = None,
    metric: str = "miou",
) -> Winner:
    """The best arm, and what its lead is worth after the luck of the choice.

    Cross-fitting (Stone 1974): the arm, and the step of every training where there are
    several, are chosen without a tenth of the groups and, with several seeds, without
    one training of every arm, and measured on what was left out.

    Args:
        arms: {name: counts of each training}: [3, N, C], or [K, 3, N, C] of K steps.
        base: the arm that the others are compared with.
        grouping: of the images.
        classes, metric: as in `measure`.

    Raises:
        ValueError: fewer than two arms.
    """
    if len(arms) < 2:
        raise ValueError("a winner needs at least two arms")
    counts = {  # [K, 3, N, C] of each training
        name: [np.asarray(c if np.ndim(c) == 4 else [c], np.float64) for c in listed]
        for name, listed in arms.items()
    }
    steps = {  # [K] and [K, N] of each training
        name: [measure(c, classes, metric) for c in listed]
        for name, listed in counts.items()
    }
    kept = {name: _at_best_step(listed) for name, listed in steps.items()}
    first, second = sorted(kept, key=lambda name: -kept[name].scores.mean())[:2]

    trainings = min(len(listed) for listed in counts.values())
    left_out = np.zeros((3, trainings, len(grouping.numbers)))  # first, second, base
    choices = []
    for fold in np.array_split(np.arange(grouping.groups), FOLDS):
        out = np.isin(grouping.numbers, fold)
        if not out.any():
            continue
        rest = {  # scores [K] of each training, without the fold
            name: [score(c[:, :, ~out].sum(axis=2), classes, metric) for c in listed]
            for name, listed in counts.items()
        }
        for training in range(trainings):
            chosen = sorted(rest, key=lambda name: -_without(rest[name], training))[:2]
            choices.append(chosen[0])
            for role, name in enumerate((*chosen, base)):
                step = int(np.argmax(rest[name][training]))
                values = _by_image(steps[name][training], step)
                left_out[role, training, out] = values[out]
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


def _at_best_step(trainings: Sequence[Measured]) -> Measured:
    """Of the trainings of an arm, each measured at several steps."""
    best = [int(np.argmax(each.scores)) for each in trainings]
    return Measured(
        np.array([each.scores[step] for each, step in zip(trainings, best)]),
        np.stack([each.influences[step] for each, step in zip(trainings, best)]),
    )


def _without(scores: Sequence[np.ndarray], training: int) -> float:
    """The mean of all trainings but one, at their best steps; of one if it is alone."""
    best = [each.max() for each in scores]
    others = best[:training] + best[training + 1 :]
    return float(np.mean(others or best))


def _by_image(measured: Measured, step: int) -> np.ndarray:
    """[N]: what each image says of the score; their mean is the score."""
    influences = measured.influences[step]
    return measured.scores[step] + len(influences) * influences


def _from_values(values: np.ndarray) -> Measured:
    """From what each image says of the scores [S, N]."""
    scores = values.mean(axis=1)
    return Measured(scores, (values - scores[:, None]) / values.shape[1])
