"""What a user says of the values in the masks, and what the masks really hold.

`Wanted` is what the options --classes, --map, --palette, --void, --tolerance and
--mask-channel say. Grey masks beside a palette may hold ids or the palette's own greys,
so all masks are looked at before the first is converted; then a refusal can name every
value that has no meaning, and the option that gives it one.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from keras_seg.command_line import Progress
from keras_seg.data import images, masks, voc
from keras_seg.data.masks import Reading
from keras_seg.data.raw import RawPair
from keras_seg.errors import DataError, UsageError
from keras_seg.labels import IGNORE_ID, LabelSpec

OTHERS = "others"  # stands for all values that are not named
_NAMED_LEVELS = 16  # of a suggestion, at most


@dataclass(frozen=True)
class Wanted:
    """The meaning of the masks' values as far as the options give it.

    Attributes:
        names: of the classes.
        palette: RGB of each class, for pictures.
        reading: of the values that are named; without levels, the ids are meant.
        has_map: whether --map names the values; else they are ids or the palette.
        ids_from_one: whether --void 0 says that the ids begin with 1.
    """

    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    reading: Reading
    has_map: bool
    ids_from_one: bool


def parse(
    names: Sequence[str] | None,
    value_map: str | None,
    palette: str | None,
    void: str | None,
    tolerance: int,
    channel: str,
) -> Wanted:
    """The options in one; UsageError where they make no sense."""
    entries = _entries(value_map) if value_map is not None else []
    if names is None:
        named = [name for _, name in entries]
        if not named:
            raise UsageError("Name the classes with --classes A,B,C.")
        names = list(dict.fromkeys(named))
    if value_map is not None and palette is not None:
        entries_have_colours = any(isinstance(value, str) for value, _ in entries)
        if entries_have_colours:
            raise UsageError("--map already gives colours; leave --palette out.")
    ids = {name: class_id for class_id, name in enumerate(names)}
    levels: dict[int, int] = {}
    colours: dict[int, int] = {}
    others = None
    for value, name in entries:
        if name not in ids:
            raise UsageError(
                f"--map {value_map} names the class {name}, which --classes lacks."
            )
        if value == OTHERS:
            others = ids[name]
        else:
            _add(value, ids[name], levels, colours, f"--map {value_map}")
    shown = None
    if palette is not None:
        shown = tuple(_colour("--palette", text) for text in palette.split(","))
        if len(shown) != len(names):
            raise UsageError(
                f"--palette has {len(shown)} colours for {len(names)} classes."
            )
        if len(set(shown)) != len(shown):
            raise UsageError(f"--palette {palette} has one colour twice.")
        if not entries:
            colours = {_code(rgb): class_id for class_id, rgb in enumerate(shown)}
    from_one = False
    for text in void.split(",") if void is not None else ():
        text = text.strip()
        value = OTHERS if text == OTHERS else _value("--void", text)
        if value == OTHERS:
            others = IGNORE_ID
        elif not entries and isinstance(value, int) and value < len(names):
            if value or colours:
                raise UsageError(
                    f"--void {text} is the id of a class, {names[value]}. Say with "
                    "--map which values the classes have."
                )
            from_one = True
        else:
            _add(value, IGNORE_ID, levels, colours, f"--void {void}")
    if entries and shown is None:
        shown = _shown(names, colours)
    shown = shown or voc.palette(len(names))
    reading = Reading(levels, colours, others, tolerance, channel)
    return Wanted(tuple(names), shown, reading, bool(entries), from_one)


def _entries(text: str) -> list[tuple[int | str, str]]:
    """(value, class name) of each part of --map; a range gives several."""
    entries: list[tuple[int | str, str]] = []
    for part in text.split(","):
        value, equals, name = (word.strip() for word in part.partition("="))
        if not (value and equals and name):
            raise UsageError(f"--map {part.strip()!r} is not VALUE=CLASS.")
        ends = re.fullmatch(r"(\d{1,5})-(\d{1,5})", value)
        if value == OTHERS:
            entries.append((OTHERS, name))
        elif ends:
            first, last = int(ends[1]), int(ends[2])
            entries += [(level, name) for level in range(first, last + 1)]
        else:
            entries.append((_value("--map", value), name))
    return entries


def _value(option: str, text: str) -> int | str:
    """A level as a number, a colour as six hexadecimal digits."""
    if re.fullmatch(r"\d{1,5}", text) and int(text) < 1 << 16:
        return int(text)
    red, green, blue = _colour(option, text)
    return f"{red:02x}{green:02x}{blue:02x}"


def _colour(option: str, text: str) -> tuple[int, int, int]:
    digits = text.strip().removeprefix("#")
    if not re.fullmatch("[0-9a-fA-F]{6}", digits):
        raise UsageError(
            f"{option} {text.strip()} is not a colour as RRGGBB"
            + ("." if option == "--palette" else ", nor a level of 0 to 65535.")
        )
    red, green, blue = bytes.fromhex(digits)
    return red, green, blue


def _code(rgb: tuple[int, int, int]) -> int:
    return rgb[0] << 16 | rgb[1] << 8 | rgb[2]


def _add(
    value: int | str,
    class_id: int,
    levels: dict[int, int],
    colours: dict[int, int],
    option: str,
) -> None:
    is_level = isinstance(value, int)
    table, key = (levels, value) if is_level else (colours, int(value, 16))
    if table.setdefault(key, class_id) != class_id:
        raise UsageError(f"{option} gives the value {value} two meanings.")


def _shown(
    names: Sequence[str], colours: Mapping[int, int]
) -> tuple[tuple[int, int, int], ...] | None:
    """The first colour of each class, where all have one."""
    first: dict[int, int] = {}
    for code, class_id in colours.items():
        first.setdefault(class_id, code)
    if any(class_id not in first for class_id in range(len(names))):
        return None
    codes = (first[class_id] for class_id in range(len(names)))
    return tuple((code >> 16, code >> 8 & 255, code & 255) for code in codes)


@dataclass
class Found:
    """What all masks of a dataset hold."""

    masks: int = 0
    levels: Counter = field(default_factory=Counter)  # of grey and palette masks
    # Of masks: grey, grey colours, palette, colours, alpha
    kinds: Counter = field(default_factory=Counter)
    unknown: Counter = field(default_factory=Counter)  # {value: pixels}
    strangers: int = 0  # masks with unknown values


class Masks:
    """Reads the masks of a folder; `look` at all of them comes first."""

    def __init__(self, wanted: Wanted):
        self.wanted = wanted
        self.reading = wanted.reading

    def read(self, path: Path) -> np.ndarray:
        """Class ids uint8 [H, W]; DataError names the values without a meaning."""
        mask = self._open(path)
        label, unknown = self._ids(mask, path)
        if unknown:
            raise masks.refuse(path, unknown)
        return label

    def look(
        self, pairs: Sequence[RawPair], workers: int
    ) -> tuple[list[RawPair], str | None]:
        """The pairs, those with a bad mask marked, and what to tell of these.

        Decides what grey masks beside a palette hold, and where ids begin.
        """
        found = Found()
        marked = list(pairs)
        read = [k for k, pair in enumerate(pairs) if not (pair.error or pair.draw)]
        paths = [pairs[k].label for k in read]
        seen = dict(zip(read, _each(self._levels, paths, workers, "looking at")))
        for result in seen.values():
            if isinstance(result, tuple):
                kind, levels = result
                found.masks += 1
                found.kinds[kind] += 1
                found.levels += levels
        if not found.masks:
            return marked, None
        self._decide(found)
        unknown: dict[int, Counter | DataError] = {}
        for k, result in seen.items():
            if isinstance(result, DataError):
                unknown[k] = result
            elif result[0] == "grey" or not self.reading.colours and result[1]:
                unknown[k] = self.reading.unknown_levels(result[1])
        again = [k for k in read if k not in unknown]  # colours
        paths = [pairs[k].label for k in again]
        unknown |= zip(again, _each(self._unknown, paths, workers, "checking"))
        for k, result in unknown.items():
            if isinstance(result, DataError):
                marked[k] = replace(marked[k], error=result)
            elif result:
                found.unknown += result
                found.strangers += 1
                error = masks.refuse(marked[k].label, result)
                marked[k] = replace(marked[k], error=error)
        return marked, self._refusal(found) if found.unknown else None

    def _open(self, path: Path) -> images.RawMask:
        mask = images.read_raw_mask(path)
        if mask.is_lossy and not self.reading.tolerance:
            raise DataError(
                f"{path} is a JPEG mask or a lossy one, whose compression changes "
                "values. Save PNG, or read the nearest values with --tolerance 64."
            )
        return mask

    def _ids(self, mask: images.RawMask, path: Path) -> tuple[np.ndarray, Counter]:
        try:
            return self.reading.ids(mask)
        except DataError as error:
            raise DataError(f"{path} cannot be read: {error}.") from None

    def _levels(self, path: Path) -> tuple[str, Counter]:
        mask = self._open(path)
        if masks.has_shape_in_alpha(mask):
            return "alpha", Counter()
        if masks.has_values(mask):
            kind = "grey" if mask.palette is None else "palette"
            kind = kind if mask.pixels.ndim == 2 else "grey colours"
            return kind, masks.level_counts(mask)
        return "colours", Counter()

    def _unknown(self, path: Path) -> Counter:
        return self._ids(self._open(path), path)[1]

    def _decide(self, found: Found) -> None:
        """Complete the reading by what the masks hold."""
        wanted, reading = self.wanted, self.wanted.reading
        count = len(wanted.names)
        levels = dict(reading.levels)
        if reading.channel == "colour" and found.kinds["alpha"] == found.masks > 0:
            raise DataError(
                "Every mask has one colour throughout and its shapes in the alpha "
                "channel. Read them with --mask-channel alpha --map "
                f"{_as_map((0, 255), wanted.names)}."
            )
        if wanted.has_map:
            levels.setdefault(IGNORE_ID, IGNORE_ID)
        elif reading.channel != "colour":
            levels = {**{k: k for k in range(count)}, IGNORE_ID: IGNORE_ID, **levels}
        elif reading.colours:
            greys = {c // 0x010101: i for c, i in reading.colours.items()}
            greys = {v: i for v, i in greys.items() if v * 0x010101 in reading.colours}
            ids = {k: k for k in range(count)}
            held = set(found.levels) - set(levels)
            if found.kinds["grey"]:
                as_greys = held <= greys.keys() | {IGNORE_ID}
                as_ids = held <= ids.keys() | {IGNORE_ID}
                same = all(greys.get(v) == ids.get(v) for v in held - {IGNORE_ID})
                if as_greys and as_ids and not same:
                    raise UsageError(
                        "The grey masks hold "
                        f"{', '.join(map(str, sorted(held)))}, which may be the ids of "
                        "classes or the greys of --palette. Say which with --map, as "
                        f"{_as_map(sorted(held), wanted.names)}."
                    )
                if as_ids and not as_greys:
                    levels = {**ids, **levels}
            if IGNORE_ID not in greys:
                levels.setdefault(IGNORE_ID, IGNORE_ID)
        else:
            first = 0
            if wanted.ids_from_one:
                if not found.levels[count] and found.levels:
                    raise UsageError(
                        f"--void 0 is the id of class {wanted.names[0]}: no mask has "
                        f"the id {count}, so the ids do not begin with 1. Say with "
                        "--map which values the classes have."
                    )
                first, levels[0] = 1, IGNORE_ID
            ids = {first + k: k for k in range(count)}
            levels = {**ids, IGNORE_ID: IGNORE_ID, **levels}
            self._check_two_values(found, levels)
        self.reading = replace(reading, levels=levels)

    def _check_two_values(self, found: Found, levels: Mapping[int, int]) -> None:
        """Masks of 0 and 255: black and white, not one class and void."""
        only_class = {levels.get(v) for v in found.levels} - {IGNORE_ID, None}
        names = self.wanted.names
        if IGNORE_ID in found.levels and len(only_class) == 1 and len(names) > 1:
            if set(found.levels) <= {0, IGNORE_ID}:
                share = found.levels[IGNORE_ID] / found.levels.total()
                black_white = _as_map([0, IGNORE_ID], names[:2])
                raise DataError(
                    f"The masks hold 0 and 255 only, and 255 is ignored: class "
                    f"{names[1]} would never occur, and {share:.1%} of the pixels "
                    f"would be ignored. Read black and white as classes with "
                    f"--map {black_white}."
                )

    def _refusal(self, found: Found) -> str:
        text = (
            f"{found.strangers} of {found.masks} masks have values of no class: "
            f"{masks.listed(found.unknown)}."
        )
        return f"{text} {self._way_out(found)}"

    def _way_out(self, found: Found) -> str:
        names, unknown = self.wanted.names, set(found.unknown)
        levels = sorted(found.levels)
        numbers = {int(value) for value in unknown if len(value) < 6}  # levels
        ways = []
        is_plain = not (self.wanted.has_map or self.reading.colours)
        if is_plain and len(numbers) == len(unknown):
            rest = [v for v in levels if v != 0]
            if numbers == {len(names)} and len(levels) == len(names) + 1:
                ways.append("--void 0 where ids begin with 1 and 0 is not labelled")
            if len(levels) == len(names):
                ways.append(f"--map {_as_map(levels, names)}")
            elif len(rest) == len(names) and numbers != {len(names)}:
                ways.append(f"--map {_as_map(rest, names)} --void 0")
        elif is_plain:
            ways.append("--palette RRGGBB,... with the colour of each class")
        if len(unknown) > len(names):
            distance = self.reading.farthest(unknown)
            ways.append(f"--tolerance {distance} for the nearest class (blurred edges)")
        ways += ["--map VALUE=CLASS,...", "--void VALUE,... or --void others"]
        return f"Give them a meaning: {'; '.join(ways)}."


def _as_map(levels: Iterable[int], names: Sequence[str]) -> str:
    return ",".join(f"{level}={name}" for level, name in zip(levels, names))


def _each(work: Callable, paths: Sequence[Path], workers: int, what: str) -> list:
    """The results in order; a DataError as it is."""

    def one(path: Path):
        try:
            return work(path)
        except DataError as error:
            return error

    results: list = []
    if not paths:
        return results
    line = Progress(f"preparing: {what} masks", len(paths))
    with ThreadPoolExecutor(workers) as pool, line as progress:
        for result in pool.map(one, paths):
            progress.advance()
            results.append(result)
    return results


def label_spec(wanted: Wanted, flip_pairs: str | None) -> LabelSpec:
    """The classes with their colours and pairs; UsageError where a pair is none."""
    names, pairs = wanted.names, []
    for pair in flip_pairs.split(",") if flip_pairs else ():
        sides = [side.strip() for side in pair.split(":")]
        if len(sides) != 2 or not set(sides) <= set(names):
            raise UsageError(
                f"--flip-pairs {pair} is not left:right, two names of --classes."
            )
        pairs.append((names.index(sides[0]), names.index(sides[1])))
    return LabelSpec(names, wanted.palette, tuple(pairs))
