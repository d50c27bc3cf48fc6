"""What the values of a mask mean: grey levels, palette indices or colours to class ids.

A `Reading` is the answer for a dataset. It reads masks of every kind: grey levels also
where they are saved as RGB, colours also where they are saved as a palette.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from keras_seg.data.images import RawMask
from keras_seg.errors import DataError
from keras_seg.labels import IGNORE_ID

CHANNELS = ("colour", "red", "green", "blue", "alpha")
_GREY = 0x010101  # times a level: the code of the grey of that level
_BLOCK = 1 << 20  # pixels worked on at a time
_SHOWN = 20  # values that a sentence lists


@dataclass(frozen=True)
class Reading:
    """How the values of masks become class ids.

    Attributes:
        levels: {grey level or palette index: class id, or 255 to ignore it}.
        colours: {24-bit code 0xRRGGBB: class id or 255}.
        others: the id of all other values; None refuses them.
        tolerance: how far a value may be from one of the above, in each channel; the
            nearest counts.
        channel: what is read, one of `CHANNELS`; a channel holds levels.
    """

    levels: Mapping[int, int] = field(default_factory=dict)
    colours: Mapping[int, int] = field(default_factory=dict)
    others: int | None = None
    tolerance: int = 0
    channel: str = "colour"

    def ids(self, mask: RawMask) -> tuple[np.ndarray, Counter]:
        """Class ids uint8 [H, W], and {value: pixels} of those without a meaning.

        A value is named as `--map` takes it. Where it has no meaning, the id is 255.
        """
        values = self._values(mask)
        label, unknown = np.empty(values.shape, np.uint8), Counter()
        is_colour = values.dtype == np.uint32
        table = self._table(is_colour, mask.palette)
        rows = max(1, _BLOCK // values.shape[1])
        for start in range(0, len(values), rows):
            block = values[start : start + rows]
            ids = table[block]
            missing = ids < 0
            if missing.any():
                different, place, counts = np.unique(
                    block[missing], return_inverse=True, return_counts=True
                )
                meant = self._meant(different, is_colour)
                for value in np.flatnonzero(meant < 0):
                    number = int(different[value])
                    name = f"{number:06x}" if is_colour else str(number)
                    unknown[name] += int(counts[value])
                ids[missing] = np.where(meant < 0, IGNORE_ID, meant)[place]
            label[start : start + rows] = ids
        return label, unknown

    def unknown_levels(self, counts: Mapping[int, int]) -> Counter:
        """Those of {grey level or index: pixels} without a meaning, named as `ids`."""
        left = [level for level in counts if self._level_table[level] < 0]
        meant = self._meant(np.array(left, np.int64), False)
        without = (level for level, class_id in zip(left, meant) if class_id < 0)
        return Counter({str(level): counts[level] for level in without})

    def _values(self, mask: RawMask) -> np.ndarray:
        """Levels uint8 or uint16 [H, W], or colour codes uint32 [H, W]."""
        pixels = mask.pixels
        if self.channel != "colour":
            return _channel(mask, CHANNELS.index(self.channel) - 1)
        if pixels.ndim == 2:
            return pixels
        if not self.colours and _is_grey(pixels):
            return pixels[..., 0]
        if pixels.dtype != np.uint8:
            raise DataError("it has 16 bits a channel; save its colours with 8")
        return _codes(pixels)

    def _table(self, is_colour: bool, palette: np.ndarray | None) -> np.ndarray:
        """int16: the id of each value, -1 where it has none."""
        if is_colour:
            return self._colour_table
        if palette is None or not self.colours or self.channel != "colour":
            return self._level_table
        table = np.full(1 << 16, -1, np.int16)
        codes = _codes(palette)
        ids = self._colour_table[codes]
        table[: len(codes)] = np.where(ids < 0, self._meant(codes, True), ids)
        if table[IGNORE_ID] < 0:
            table[IGNORE_ID] = IGNORE_ID  # as PASCAL VOC's boundaries
        return table

    def _meant(self, values: np.ndarray, is_colour: bool) -> np.ndarray:
        """int16 [N]: ids of values that are not listed, -1 where they have none.

        That of the nearest within the tolerance, else that of all others.
        """
        ids = np.full(len(values), -1 if self.others is None else self.others, np.int16)
        if not self.tolerance:
            return ids
        known, table = self._listed_colours if is_colour else self._listed_levels
        for place, value in enumerate(values.tolist()):
            distances = _distances(known, value, is_colour)
            nearest = int(distances.argmin())
            if distances[nearest] <= self.tolerance:
                ids[place] = table[nearest]
        return ids

    def farthest(self, values: Iterable[str]) -> int:
        """The tolerance with which all of these values, as `ids` names them, are read.

        0 where nothing is named.
        """
        most = 0
        for text in values:
            is_colour = len(text) == 6
            value = int(text, 16 if is_colour else 10)
            known, _ = self._listed_colours if is_colour else self._listed_levels
            if len(known):
                most = max(most, int(_distances(known, value, is_colour).min()))
        return most

    @cached_property
    def _level_table(self) -> np.ndarray:
        table = np.full(1 << 16, -1, np.int16)
        greys = {c // _GREY: i for c, i in self.colours.items() if c % _GREY == 0}
        for level, class_id in {**greys, **self.levels}.items():
            table[level] = class_id
        return table

    @cached_property
    def _colour_table(self) -> np.ndarray:
        table = np.full(1 << 24, -1, np.int16)
        greys = {v * _GREY: i for v, i in self.levels.items() if v <= 255}
        for code, class_id in {**greys, **self.colours}.items():
            table[code] = class_id
        return table

    @cached_property
    def _listed_levels(self) -> tuple[np.ndarray, np.ndarray]:
        known = np.flatnonzero(self._level_table >= 0)
        return known, self._level_table[known]

    @cached_property
    def _listed_colours(self) -> tuple[np.ndarray, np.ndarray]:
        known = np.flatnonzero(self._colour_table >= 0)
        return known, self._colour_table[known]


def has_values(mask: RawMask) -> bool:
    """Whether the mask has levels or indices, or colours that are all grey."""
    return mask.pixels.ndim == 2 or _is_grey(mask.pixels)


def has_shape_in_alpha(mask: RawMask) -> bool:
    """Whether a mask has one colour and only its alpha channel differs."""
    pixels = mask.pixels
    if pixels.ndim == 2 or pixels.shape[2] != 4:
        return False
    is_plain = all(np.ptp(pixels[..., channel]) == 0 for channel in range(3))
    return is_plain and np.ptp(pixels[..., 3]) > 0


def level_counts(mask: RawMask) -> Counter:
    """{grey level or palette index: pixels} of a mask that `has_values`."""
    pixels = mask.pixels if mask.pixels.ndim == 2 else mask.pixels[..., 0]
    counts = Counter()
    rows = max(1, _BLOCK // pixels.shape[1])
    for start in range(0, len(pixels), rows):
        found = np.bincount(pixels[start : start + rows].ravel())
        for value in np.flatnonzero(found).tolist():
            counts[value] += int(found[value])
    return counts


def listed(values: Mapping[str, int]) -> str:
    """Values with their pixels in words, the most frequent first."""
    ordered = sorted(values.items(), key=lambda item: -item[1])
    words = [f"{value} in {count:,} pixels" for value, count in ordered[:_SHOWN]]
    if len(ordered) > _SHOWN:
        left = sum(count for _, count in ordered[_SHOWN:])
        words.append(f"{len(ordered) - _SHOWN:,} more values in {left:,} pixels")
    return ", ".join(words)


def refuse(path: Path, unknown: Mapping[str, int]) -> DataError:
    """The error of a mask with values that have no meaning."""
    return DataError(f"{path} has values of no class: {listed(unknown)}.")


def _is_grey(pixels: np.ndarray) -> bool:
    """Whether a colour mask [H, W, 3 or 4] has equal channels throughout."""
    red = pixels[..., 0]
    return all(np.array_equal(red, pixels[..., channel]) for channel in (1, 2))


def _distances(known: np.ndarray, value: int, is_colour: bool) -> np.ndarray:
    """int64 [N]: the largest difference to a value in any channel."""
    shifts, part = ((16, 8, 0), 255) if is_colour else ((0,), (1 << 16) - 1)
    return np.max(
        [abs((known >> s & part) - (value >> s & part)) for s in shifts], axis=0
    )


def _channel(mask: RawMask, channel: int) -> np.ndarray:
    if mask.pixels.ndim == 3 and channel < mask.pixels.shape[2]:
        return mask.pixels[..., channel]
    name = CHANNELS[channel + 1]
    raise DataError(f"it has no channel {name}")


def _codes(pixels: np.ndarray) -> np.ndarray:
    """uint32 [...] 0xRRGGBB of colours uint8 [..., 3 or 4]."""
    codes = pixels[..., 0].astype(np.uint32) << 16
    codes |= pixels[..., 1].astype(np.uint32) << 8
    codes |= pixels[..., 2]
    return codes
