"""Measure what the report's intervals cover, on simulated studies with a known answer.

python tools/coverage.py                                 # 10,000 studies per row
python tools/coverage.py --studies 300 --only video

Images and trainings are drawn from real counts per image (tools/coverage.npz): four
trainings of ICNet on CamVid that differ in their seed only, 60 steps at 96 x 128, and
one with other settings. A new training varies around the four as they vary among
themselves, in every class and image; images are drawn with replacement. A video stays
at an image with probability r and jumps to another one otherwise, so that everything in
it has the autocorrelations r, r^2, r^3, ... What every arm scores on all images with
infinitely many trainings is known, and so is what an interval should cover.

Columns: coverage of 95 % intervals; their half width by that of an interval from the
known standard error; studies called clear; studies of several arms in which any is
called clear, and in which all simultaneous intervals cover; where there is an effect
and trainings make the error, the most that could be called clear (`most_power`).
"""

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import optimize, stats

from keras_seg import command_line
from keras_seg.report import families, grouping, statistics

COUNTS = Path(__file__).with_name("coverage.npz")
TRUTH_TRAININGS = 1000  # that the expected score is averaged over
PILOT = 1000  # studies from which the standard error is taken
BATCH_VALUES = 100_000  # counts in memory at once: what fits a cache


@dataclass(frozen=True)
class Setting:
    """How studies are simulated.

    Attributes:
        name: of the row.
        images: number of them.
        seeds: trainings of the base and of every other arm.
        spread: of trainings, by the real one.
        correlation: of neighbouring images in a sequence, 0..1.
        sequence: images of one; 1: independent images.
        different: whether the arms differ in which images they are good at.
        effect: true difference of the second arm and the base, in standard errors.
        arms: all but the second equal the base in their expected score.
        ratio: of the spread of the other arms' trainings to that of the base's.
        odd: of the second arm's to that.
        folds: each seed is so many trainings, each scored on other images.
    """

    name: str
    images: int = 50
    seeds: tuple[int, int] = (3, 3)
    spread: float = 1.0
    correlation: float = 0.0
    sequence: int = 1
    different: bool = False
    effect: float = 0.0
    arms: int = 2
    ratio: float = 1.0
    odd: float = 1.0
    folds: int = 1


SETTINGS = (
    Setting("20 images", images=20),
    Setting("50 images"),
    Setting("50 images, seeds vary a third", spread=1 / 3),
    Setting("50 images, seeds vary a tenth", spread=0.1),
    Setting("50 images, other arm", different=True),
    Setting("50 images, other arm, seeds vary a third", spread=1 / 3, different=True),
    Setting("50 images, other arm, seeds vary a tenth", spread=0.1, different=True),
    Setting("50 images, other arm varies half as much", different=True, ratio=1 / 2),
    Setting("50 images, other arm varies a third as much", different=True, ratio=1 / 3),
    Setting("50 images, 2 seeds", seeds=(2, 2)),
    Setting("50 images, 5 and 3 seeds", seeds=(5, 3), different=True),
    Setting("50 images, 5 seeds", seeds=(5, 5), spread=1 / 3, different=True),
    Setting("25 sequences of 8, r = .9", 200, correlation=0.9, sequence=8),
    Setting(
        "25 sequences of 8, r = .9, other arm, seeds vary a third",
        *(200, (3, 3), 1 / 3, 0.9, 8, True),
    ),
    Setting("video of 200, r = .5", 200, (3, 3), 1 / 3, 0.5, 200, True),
    Setting("video of 600, r = .9", 600, correlation=0.9, sequence=600),
    Setting(
        "video of 600, r = .9, other arm, seeds vary a third",
        *(600, (3, 3), 1 / 3, 0.9, 600, True),
    ),
    Setting(
        "video of 600, r = .9, other arm, seeds vary a tenth",
        *(600, (3, 3), 0.1, 0.9, 600, True),
    ),
    Setting(
        "3 videos of 250, r = .9, other arm, seeds vary a third",
        *(750, (3, 3), 1 / 3, 0.9, 250, True),
    ),
    Setting("50 images, 5 folds", folds=5),
    Setting("50 images, 5 folds, 2 seeds", seeds=(2, 2), folds=5),
    Setting("50 images, 5 folds, other arm", different=True, folds=5),
    Setting(
        "25 sequences of 8, r = .9, 5 folds, other arm",
        *(200, (3, 3), 1.0, 0.9, 8, True),
        folds=5,
    ),
    Setting("too few: 4 images", images=4),
    Setting("too few: video of 100, r = .9", 100, correlation=0.9, sequence=100),
    Setting("too few: 1 seed", images=100, seeds=(1, 1)),
    Setting("too few: 1 seed, other arm", images=100, seeds=(1, 1), different=True),
    Setting("7 arms", arms=7),
    Setting("7 arms, seeds vary a third", spread=1 / 3, arms=7, different=True),
    Setting("7 arms, 5 seeds", seeds=(5, 5), arms=7, different=True),
    Setting(
        "7 arms, video of 600, r = .9, seeds vary a third",
        *(600, (3, 3), 1 / 3, 0.9, 600, True, 0.0, 7),
    ),
    Setting("7 arms, one varies 1.5 times as much", arms=7, different=True, odd=1.5),
    Setting("7 arms, one varies twice as much", arms=7, different=True, odd=2.0),
    Setting("7 arms, one varies half as much", arms=7, different=True, odd=0.5),
    Setting("4 arms, one varies twice as much", arms=4, different=True, odd=2.0),
    Setting("power: 3 errors, 3 seeds", effect=3.0),
    Setting("power: 3 errors, 3 seeds, 4 arms", arms=4, effect=3.0),
    Setting("power: 3 errors, 3 seeds, 7 arms", arms=7, effect=3.0),
    Setting("power: 3 errors, 5 seeds, 7 arms", 50, (5, 5), arms=7, effect=3.0),
    Setting(
        "power: 3 errors, 3 seeds that vary a third, other arm, 7 arms",
        *(50, (3, 3), 1 / 3, 0.0, 1, True, 3.0, 7),
    ),
    Setting("power: 3 errors, 5 seeds", seeds=(5, 5), effect=3.0),
    Setting("power: 3 errors, 8 seeds", seeds=(8, 8), effect=3.0),
    Setting(
        "power: 3 errors, 3 seeds that vary a third, other arm",
        *(50, (3, 3), 1 / 3, 0.0, 1, True, 3.0),
    ),
    Setting(
        "power: 3 errors, 3 seeds that vary a tenth, other arm",
        *(50, (3, 3), 0.1, 0.0, 1, True, 3.0),
    ),
    Setting(
        "power: 3 errors, 3 seeds that vary a thirtieth, other arm",
        *(50, (3, 3), 1 / 30, 0.0, 1, True, 3.0),
    ),
)


class Population:
    """All images and all trainings that studies are drawn from."""

    def __init__(self, counts: np.ndarray, other: np.ndarray):
        """From counts [K, 3, P, C] of K trainings and [3, P, C] of another arm's."""
        counts = np.moveaxis(counts.astype(np.float64), 2, 0)  # [P, K, 3, C]
        other = np.moveaxis(other.astype(np.float64), 1, 0)
        self.mean = counts.mean(axis=1)
        self.deviations = (counts - self.mean[:, None]) / np.sqrt(counts.shape[1] - 1)
        self.other = self.mean + 0.2 * (other - self.mean)

    def counts(self, rng, drawn, seeds: int, setting: Setting, arm: int, gain: float):
        """float64 [B, S, 3, N, C] of trainings of an arm on drawn images [B, N]."""
        mean = self.other if arm and setting.different else self.mean
        spread = setting.spread * (setting.ratio if arm else 1)
        spread *= setting.odd if arm == 1 else 1
        basis = np.concatenate(
            [mean[:, None], spread * self.deviations], axis=1
        )  # [P, 1 + K, 3, C]
        studies, images = drawn.shape
        _, size, _, classes = basis.shape
        folds = setting.folds
        weights = rng.standard_normal((studies, seeds * folds, size))
        weights[..., 0] = 1
        pieces = np.moveaxis(basis[drawn], 2, 1).reshape(studies, size, -1)
        counts = (weights @ pieces).reshape(studies, seeds, folds, images, 3, classes)
        held_out = np.arange(images) // setting.sequence % folds
        counts = counts[:, :, held_out, np.arange(images)]
        return np.moveaxis(possible(counts, gain), 2, 3)

    def expected(self, setting: Setting, arm: int, gain: float) -> float:
        """The expected score of an arm, over trainings, on all images."""
        rng = np.random.default_rng(0)  # the same trainings for every arm and gain
        every = np.arange(len(self.mean))[None]
        counts = self.counts(rng, every, TRUTH_TRAININGS, setting, arm, gain)
        return float(statistics.score(counts[0].sum(axis=2)).mean())

    def gain(self, setting: Setting, difference: float) -> float:
        """By which an arm's hits must grow to be so much better than the base."""
        wanted = self.expected(setting, 0, 0.0) + difference
        found = optimize.root_scalar(
            lambda gain: self.expected(setting, 1, gain) - wanted,
            bracket=(-0.9, 3.0),
            xtol=1e-5,
        )
        return found.root


def possible(counts: np.ndarray, gain: float) -> np.ndarray:
    """Counts [..., 3, C] with more hits, but no more than there are pixels."""
    hits, truth, predicted = np.moveaxis(counts, -2, 0)
    predicted = np.maximum(predicted, 0)
    hits = np.clip(hits * (1 + gain), 0, np.minimum(truth, predicted))
    return np.stack([hits, truth, predicted], axis=-2)


def draw_images(rng, studies: int, setting: Setting, pool: int) -> np.ndarray:
    """int64 [B, N]: which image of the pool each image is."""
    shape = (studies, setting.images)
    drawn = rng.integers(pool, size=shape)
    stays = rng.random(shape) < setting.correlation
    stays[:, :: setting.sequence] = False
    last = np.maximum.accumulate(np.where(stays, 0, np.arange(setting.images)), axis=1)
    return np.take_along_axis(drawn, last, axis=1)


def measured_studies(rng, population: Population, setting: Setting, studies, gains):
    """The arms of each study, `Measured`, one after another."""
    trainings = setting.seeds[0] + setting.seeds[1] * (setting.arms - 1)
    trainings *= setting.folds
    values = setting.images * trainings * population.mean[0].size
    batch = max(1, BATCH_VALUES // values)
    for first in range(0, studies, batch):
        number = min(batch, studies - first)
        drawn = draw_images(rng, number, setting, len(population.mean))
        arms = []
        for arm, gain in enumerate(gains):
            seeds = setting.seeds[min(arm, 1)]
            counts = population.counts(rng, drawn, seeds, setting, arm, gain)
            flat = statistics.measure(counts.reshape(-1, *counts.shape[2:]))
            arms.append(
                (
                    flat.scores.reshape(number, seeds),
                    flat.influences.reshape(number, seeds, -1),
                )
            )
        for study in range(number):
            yield [statistics.Measured(s[study], i[study]) for s, i in arms]


def comparisons(arms, setting: Setting, ids, sequences) -> list[statistics.Comparison]:
    """Of every arm with the base."""
    base, *others = arms
    means = [
        arm.influences.mean(axis=0) - base.influences.mean(axis=0) for arm in others
    ]
    groups = grouping.group_images(ids, sequences, np.stack(means))
    pooled = statistics.pool([arm.scores for arm in arms])
    return [
        statistics.compare(arm, base, groups, (f"arm {number}", "base"), pooled)
        for number, arm in enumerate(others)
    ]


def simulate(population: Population, setting: Setting, studies: int, seed: int) -> dict:
    """Shares of the studies, by column."""
    ids = [str(number) for number in range(setting.images)]
    sequences = {}
    if setting.sequence > 1:
        sequences = {id: str(int(id) // setting.sequence) for id in ids}
    equal = population.gain(setting, 0.0) if setting.different else 0.0
    gains = [0.0] + [equal] * (setting.arms - 1)
    if setting.odd != 1:  # the expected score depends a little on the spread
        gains[2:] = [population.gain(replace(setting, odd=1.0), 0.0)] * len(gains[2:])

    def run(number, rng):
        for arms in measured_studies(rng, population, setting, number, gains):
            yield comparisons(arms, setting, ids, sequences)

    rng = np.random.default_rng(seed)
    truth = [0.0] * (setting.arms - 1)
    for _ in range(2 if setting.effect else 0):  # the effect changes the error a little
        pilot = [found[0].difference for found in run(PILOT, rng)]
        truth[0] = setting.effect * float(np.std(pilot))
        gains[1] = population.gain(setting, truth[0])
    rows = []
    for found in run(studies, rng):
        first = found[0]
        low, high = first.interval()
        row = [first.difference, high - low, low <= truth[0] <= high, first.is_clear]
        if setting.arms > 2:
            family = families.adjust(found, resamples=1000)
            row += [any(each.is_clear for each in family)]
            row += [all(e.low <= t <= e.high for e, t in zip(family, truth))]
        rows.append(row)
    columns = np.array(rows, float).T
    result = {
        "coverage": columns[2].mean(),
        "width": columns[1].mean() / (2 * 1.96 * columns[0].std()),
        "clear": columns[3].mean(),
    }
    if setting.arms > 2:
        result |= {"any": columns[4].mean(), "all": columns[5].mean()}
    return result


def most_power(setting: Setting) -> float:
    """The share of studies that a test of equal spreads can call clear at most.

    Where the trainings make the error, that of the t-test whose variance is that of all
    arms together. No unbiased test has more power against any effect of either sign
    (Lehmann and Romano 2005, sections 5.3 and 7.3).
    """
    ours, others = setting.seeds
    freedom = (ours - 1) + (setting.arms - 1) * (others - 1)
    limit = stats.t.ppf((1 + statistics.LEVEL) / 2, freedom)
    above = stats.nct.sf(limit, freedom, setting.effect)
    return float(above + stats.nct.cdf(-limit, freedom, setting.effect))


def main(argv: list[str]) -> int:
    parser = command_line.Parser(prog="coverage.py", description=__doc__)
    positive = command_line.positive_int
    parser.add_argument("--studies", type=positive, default=10_000, help="of each row")
    parser.add_argument("--only", default="", help="rows whose names contain this")
    parser.add_argument("--counts", type=Path, default=COUNTS, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=command_line.natural_int, default=1)
    args = parser.parse_args(argv)
    with np.load(args.counts) as file:
        population = Population(file["counts"], file["other"])
    print("| studies | coverage | width | clear | any clear | all covered | most |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for setting in SETTINGS:
        if args.only in setting.name:
            found = simulate(population, setting, args.studies, args.seed)
            cells = [f"{found['coverage']:.1%}", f"{found['width']:.2f}"]
            cells += [f"{found['clear']:.1%}"]
            if setting.effect and setting.spread == 1:
                found["most"] = most_power(setting)
            more = ("any", "all", "most")
            cells += [f"{found[k]:.1%}" if k in found else "" for k in more]
            print("|", " | ".join([setting.name, *cells]), "|", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(command_line.run(main))
