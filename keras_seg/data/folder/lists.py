"""Lists that say which images are for training, validation and test.

A list is a text file with an image a line, or a table: a column each for image, mask
and, where one table has all images, the split.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from keras_seg.data import files
from keras_seg.data.folder.names import Index
from keras_seg.data.splits import looks_like_a_split, split_name
from keras_seg.errors import DataError

# Where lists are, below the folder that has the images' folder
PLACES = (".", "ImageSets/Segmentation", "ImageSets", "splits", "lists", "split")
_EVERYTHING = ("default", "all", "trainval")  # lists that give no split
_REJECTED = ".rejected.csv"  # what a preparation left out (`keras_seg.data.writer`)
_SPLIT_COLUMNS = ("split", "set", "subset", "partition", "phase")  # of a table


@dataclass(frozen=True)
class Listed:
    """A line of a list."""

    split: str  # "" of a list that gives none
    text: str
    image: str | None  # its key
    mask: str | None  # its key, where the line names one


def find(root: Path, places: tuple[str, ...] = PLACES) -> dict[str, Path]:
    """{split: list}; "" for a list of all images, where no other says more.

    Raises:
        DataError: two lists of one split, or one whose name may be a split's.
    """
    for place in places:
        folder = root / place
        if not folder.is_dir():
            continue
        texts = [
            path
            for path in sorted(folder.iterdir())
            if path.suffix.lower() in (".txt", ".lst", ".csv", ".tsv")
            and not (path.is_dir() or path.name.endswith(_REJECTED))
        ]
        found: dict[str, Path] = {}
        for path in texts:
            split = split_name(path.stem)
            if split is not None:
                if split in found:
                    raise DataError(f"{path} and {found[split]} both list {split}.")
                found[split] = path
        if not found:
            tables = [path for path in texts if _gives_splits(path)]
            if len(tables) == 1:
                return {"": tables[0]}
        odd = [
            path
            for path in texts
            if path not in found.values()
            and path.stem.lower() not in _EVERYTHING
            and looks_like_a_split(path.stem)
        ]
        if odd and not {"train", "val"} & found.keys():
            raise DataError(
                f"{odd[0]} may list a split. Name the lists train.txt, val.txt and "
                "test.txt."
            )
        if not {"train", "val"} & found.keys():
            for path in texts:
                if path.stem.lower() in _EVERYTHING:
                    found.setdefault("", path)
        if found:
            return found
    return {}


def read(path: Path, split: str, images: Index, masks: Index) -> list[Listed]:
    """The lines of a list: names with or without extension, paths, pairs of paths.

    Raises:
        DataError: it is empty, or its lines end with the flags of a list of one class.
    """
    if path.suffix.lower() in (".csv", ".tsv"):
        return _read_table(path, split, images, masks)
    lines = [line.strip() for line in files.read_text(path).splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise DataError(
            f"{path} lists no samples: split {split or path.stem} is empty."
        )
    listed = []
    for line in lines:
        key, mask = images.find(line.strip("\"'")), None
        if key is None:
            key, mask = next(_pairs(line, images, masks), (None, None))
        if key is None:
            _check_inside(line)
        listed.append(Listed(split, line, key, mask))
    flags = [re.fullmatch(r".*\S[ \t]+(-1|0|1)", line) for line in lines]
    if all(flags) and not any(one.image for one in listed):
        raise DataError(
            f"{path} has flags (1, 0, -1) behind its names: it is the list of a class. "
            "Name just the images of the split."
        )
    return listed


def _read_table(path: Path, split: str, images: Index, masks: Index) -> list[Listed]:
    """The rows of a table; its first one may name the columns.

    DataError: it is empty, or a split is none of train, val and test.
    """
    rows = _rows(path)
    column = _split_column(rows)
    listed = []
    for number, row in enumerate(rows):
        place, image = _first_found(row, images)
        if image is None and number == 0:
            continue  # the names of the columns
        _, mask = _first_found(row[:place] + row[place + 1 :], masks)
        own = split
        if column is not None and not split:
            own = split_name(row[column]) if column < len(row) else None
            if own is None:
                raise DataError(
                    f"{path}, line {number + 1}, has the split "
                    f"{''.join(row[column : column + 1])!r}. Name train, val or test."
                )
        listed.append(Listed(own, " ".join(row), image, mask))
    if not listed:
        raise DataError(
            f"{path} lists no samples: split {split or path.stem} is empty."
        )
    return listed


def _first_found(cells: Sequence[str], index: Index) -> tuple[int, str | None]:
    """Which cell is the first that names a file, and the file's key."""
    found = ((place, index.find(cell)) for place, cell in enumerate(cells))
    return next((one for one in found if one[1] is not None), (0, None))


def _rows(path: Path) -> list[list[str]]:
    """The rows of a table, between commas, semicolons or tabs, without empty ones."""
    lines = files.read_text(path).splitlines()
    first = next(filter(str.strip, lines), "")
    between = max(",;\t", key=first.count)
    try:
        rows = list(csv.reader(lines, delimiter=between, strict=True))
    except csv.Error as error:
        raise DataError(f"{path} is no table ({error}).") from None
    rows = [[cell.strip() for cell in row] for row in rows]
    return [row for row in rows if any(row)]


def _gives_splits(path: Path) -> bool:
    """Whether a file is a table of which a column gives the split."""
    if path.suffix.lower() not in (".csv", ".tsv"):
        return False
    try:
        return _split_column(_rows(path)) is not None
    except DataError:  # whatever it is, it is no list
        return False


def _split_column(rows: Sequence[Sequence[str]]) -> int | None:
    """Which column of a table gives the split; None where it has none."""
    names = [name.lower() for name in next(iter(rows), [])]
    return next((k for k, name in enumerate(names) if name in _SPLIT_COLUMNS), None)


def _pairs(line: str, images: Index, masks: Index) -> Iterator[tuple[str, str]]:
    """(image, mask) of a line that names both, whatever is between them."""
    for between in re.finditer(r"[ \t]*[,;\t][ \t]*|[ \t]+", line):
        left, right = line[: between.start()], line[between.end() :]
        image, mask = images.find(left.strip("\"'")), masks.find(right.strip("\"'"))
        if image is not None and mask is not None:
            yield image, mask


def _check_inside(line: str) -> None:
    """DataError where a line leads out of the raw folder; a prefix does no harm."""
    pure = PurePosixPath(line.replace("\\", "/"))
    if ".." in pure.parts or not line.replace("\t", " ").isprintable():
        raise DataError(f"The listed file {line!r} leads out of --src.")
