"""Lists that say which images are for training, validation and test."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from keras_seg.data import files
from keras_seg.data.folder.names import Index
from keras_seg.data.splits import looks_like_a_split, split_name
from keras_seg.errors import DataError

# Where lists are, below the folder that has the images' folder
PLACES = (".", "ImageSets/Segmentation", "ImageSets", "splits", "lists", "split")
_EVERYTHING = ("default", "all", "trainval")  # lists that give no split


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
            if path.suffix.lower() in (".txt", ".lst") and not path.is_dir()
        ]
        found: dict[str, Path] = {}
        for path in texts:
            split = split_name(path.stem)
            if split is not None:
                if split in found:
                    raise DataError(f"{path} and {found[split]} both list {split}.")
                found[split] = path
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
    lines = [line.strip() for line in files.read_text(path).splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise DataError(
            f"{path} lists no samples: split {split or path.stem} is empty."
        )
    listed = []
    for line in lines:
        _check_inside(line)
        key, mask = images.find(line), None
        if key is None:
            key, mask = next(_pairs(line, images, masks), (None, None))
        listed.append(Listed(split, line, key, mask))
    flags = [re.fullmatch(r".*\S[ \t]+(-1|0|1)", line) for line in lines]
    if all(flags) and not any(one.image for one in listed):
        raise DataError(
            f"{path} has flags (1, 0, -1) behind its names: it is the list of a class. "
            "Name just the images of the split."
        )
    return listed


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
