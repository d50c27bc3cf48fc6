"""Which images count as one observation: groups that are nearly independent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

FEWEST_GROUPS = 20  # of independent groups: nothing is clear from fewer
BLOCKS = (5, 20)  # fewest and most of them that one video is cut into


@dataclass(frozen=True)
class Grouping:
    """Which images count as one independent observation.

    Attributes:
        numbers: int64 [N], the group of each image, 0..G-1.
        kind: "images", "sequences" or "blocks" of consecutive images.
        independent: how many independent observations the images are worth.
        inflation: >= 1; the variance of a mean over groups, divided by what it would be
            if neighbouring groups were independent.
    """

    numbers: np.ndarray
    kind: str
    independent: float
    inflation: float = 1.0

    @property
    def groups(self) -> int:
        return int(self.numbers.max(initial=-1)) + 1

    @property
    def factor(self) -> float:
        """Variance of a sum of G group sums, by the sum of their squares.

        G / (G - 1) for independent groups. A sum over correlated ones varies more, by
        `inflation`, and their spread around their own mean shows only
        (G - inflation) / G of their variance.
        """
        return self.inflation * self.groups / (self.groups - self.inflation)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """[..., G]: values [..., N] summed over the images of each group."""
        result = np.zeros((self.groups, *values.shape[:-1]))
        np.add.at(result, self.numbers, np.moveaxis(values, -1, 0))
        return np.moveaxis(result, 0, -1)


def group_images(
    ids: Sequence[str], sequences: Mapping[str, str], differences: np.ndarray
) -> Grouping:
    """Groups of images that are nearly independent.

    Sequences where there are at least `FEWEST_GROUPS`, an image outside of one counting
    as its own. Fewer (one video) are cut into blocks of consecutive images (Carlstein
    1986), long in comparison with the measured correlation; what correlation is left
    between blocks is that of a first-order autoregression. Results then hold for these
    sequences only. Few long blocks and a t quantile are more robust than many short
    ones (Ibragimov and Müller 2010).

    Args:
        ids: of the N images; those of a sequence in its order.
        sequences: {id: sequence} of the images that belong to one.
        differences: [M, N] influences on the M differences of interest.

    Raises:
        ValueError: fewer than two images.
    """
    if len(ids) < 2:
        raise ValueError(f"{len(ids)} images; an interval needs at least two")
    members = _members(ids, sequences)
    sizes = np.array([len(positions) for positions in members])
    if sizes.max() == 1:
        return Grouping(np.arange(len(ids)), "images", len(ids))
    if len(sizes) >= FEWEST_GROUPS:
        independent = sizes.sum() ** 2 / (sizes**2).sum()  # Kish 1965
        return Grouping(_numbered(members), "sequences", float(independent))
    time = correlation_time([differences[:, positions] for positions in members])
    wanted = np.clip(len(ids) / (3 * (time - 1) + 1), *BLOCKS)
    blocks = [
        part
        for positions in members
        for part in np.array_split(
            positions,
            min(len(positions), max(1, round(wanted * len(positions) / len(ids)))),
        )
    ]
    inflation = _inflation(time, len(ids) / len(blocks))
    return Grouping(
        _numbered(blocks), "blocks", len(ids) / time, min(inflation, len(blocks) / 2)
    )


def correlation_time(series: Sequence[np.ndarray]) -> float:
    """How many consecutive images are worth one independent image, >= 1.

    The integrated autocorrelation time 1 + 2 (r1 + r2 + ...), summed up to a lag of 1.5
    times itself (Sokal 1989), corrected for the bias that comes with subtracting the
    mean (Marriott and Pope 1954).

    Args:
        series: [M, n] of each sequence, M quantities of its n images; the mean of a
            quantity over all sequences is subtracted.
    """
    lengths = [part.shape[1] for part in series]
    images = sum(lengths)
    every = np.concatenate(series, axis=1)
    centred = every - every.mean(axis=1, keepdims=True)
    deviation = centred.std(axis=1, keepdims=True)
    scaled = np.divide(
        centred, deviation, out=np.zeros_like(centred), where=deviation > 0
    )
    parts = np.split(scaled, np.cumsum(lengths)[:-1], axis=1)
    power = max((scaled**2).sum(), np.finfo(float).tiny)
    total = time = 1.0
    for lag in range(1, max(2, images // 3)):
        products = sum((part[:, lag:] * part[:, :-lag]).sum() for part in parts)
        total += 2 * products / power
        time = max(total, 1.0) / max(1 - (2 * lag + 1) / images, 0.2)
        if lag >= 1.5 * time:
            break
    return min(max(time, 1.0), images)


def _members(ids: Sequence[str], sequences: Mapping[str, str]) -> list[np.ndarray]:
    """The positions of each sequence's images; an image outside of one is its own."""
    members: dict[tuple[bool, str], list[int]] = {}
    for position, each in enumerate(ids):
        name = sequences.get(each)  # an image may be named like a sequence
        members.setdefault((name is None, name or each), []).append(position)
    return [np.array(positions) for positions in members.values()]


def _numbered(groups: Sequence[np.ndarray]) -> np.ndarray:
    """int64 [N]: the number of the group that each position is in."""
    numbers = np.zeros(sum(len(positions) for positions in groups), np.int64)
    for number, positions in enumerate(groups):
        numbers[positions] = number
    return numbers


def _inflation(time: float, length: float) -> float:
    """Long-run variance by that of block means, of a first-order autoregression."""
    rho = (time - 1) / (time + 1)
    return 1 / (1 - 2 * rho * (1 - rho**length) / (length * (1 - rho**2)))
