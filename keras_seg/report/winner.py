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
    """
    names = list(arms)
    runs = {
        name: [np.asarray(c if np.ndim(c) == 4 else [c], np.float64) for c in listed]
        for name, listed in arms.items()
    }
    measured = {
        name: [measure(counts, classes, metric) for counts in listed]
        for name, listed in runs.items()
    }
    kept = {
        name: [int(np.argmax(each.scores)) for each in listed]
        for name, listed in measured.items()
    }
    plain = {
        name: Measured(
            np.array([each.scores[k] for each, k in zip(measured[name], kept[name])]),
            np.stack(
                [each.influences[k] for each, k in zip(measured[name], kept[name])]
            ),
        )
        for name in names
    }
    best = sorted(names, key=lambda name: -plain[name].scores.mean())
    trainings = min(len(listed) for listed in runs.values())
    images = len(grouping.numbers)
    values = {
        role: np.zeros((trainings, images)) for role in ("first", "second", "base")
    }
    folds = np.array_split(np.arange(grouping.groups), FOLDS)
    choices = []
    for fold in folds:
        out = np.isin(grouping.numbers, fold)
        if not out.any():
            continue
        without = {  # [S, K] of each arm, without the fold
            name: np.array(
                [score(c[:, :, ~out].sum(axis=2), classes, metric) for c in listed]
            )
            for name, listed in runs.items()
        }
        for training in range(trainings):
            ranking = sorted(
                names, key=lambda name: -_mean_without(without[name].max(1), training)
            )
            choices.append(ranking[0])
            for role, name in zip(values, (ranking[0], ranking[1], base)):
                step = int(np.argmax(without[name][training]))
                run = measured[name][training]
                values[role][training, out] = (
                    run.scores[step] + images * run.influences[step, out]
                )
    first, second, of_base = (_from_values(table) for table in values.values())
    return Winner(
        name=best[0],
        runner_up=best[1],
        over_base=None
        if best[0] == base
        else compare(plain[best[0]], plain[base], grouping, (best[0], base)),
        over_runner_up=compare(
            plain[best[0]], plain[best[1]], grouping, (best[0], best[1])
        ),
        corrected_over_base=compare(first, of_base, grouping),
        corrected_over_runner_up=compare(first, second, grouping),
        chosen={name: choices.count(name) / len(choices) for name in set(choices)},
    )


def _mean_without(values: np.ndarray, left_out: int) -> float:
    """The mean of all values but one; of all where there is no other."""
    return float(np.delete(values, left_out).mean() if len(values) > 1 else values[0])


def _from_values(values: np.ndarray) -> Measured:
    """From what each image says of the score [S, N]."""
    scores = values.mean(axis=1)
    return Measured(scores, (values - scores[:, None]) / values.shape[1])
