"""YOLO: a text file for each image, with a polygon a line, as Roboflow exports it too.

    0 0.12 0.30 0.55 0.31 0.40 0.80

is the class, then x and y of each corner as shares of the image's width and height. The
names of the classes are in data.yaml or classes.txt.
"""

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from keras_seg.data import files
from keras_seg.data.folder import annotations
from keras_seg.data.folder.annotations import Annotated, Drawer, Shape
from keras_seg.data.splits import split_name
from keras_seg.errors import DataError

_NAMES = ("data.yaml", "dataset.yaml", "data.yml", "classes.txt", "obj.names")
_BEYOND = 0.01  # so far outside of the image a corner may be, by rounding
_TRIED = 20  # label files by which the format is recognised


def find(
    src: Path, has_empty: bool, follow_links: bool = False
) -> tuple[list[Annotated], list[str]] | None:
    """What text files beside the images, or in labels for images, annotate.

    None where there are none of this format. An image without a file is an error, or
    has no shapes if `has_empty`.

    Raises:
        DataError: the files hold boxes.
    """
    images = [p for paths in files.pictures(src, follow_links).values() for p in paths]
    labels = {image: _label_file(image, src) for image in images}
    written = [path for path in labels.values() if path is not None]
    if not any(map(_is_yolo, written[:_TRIED])):
        return None
    names, found = _names(src), []
    for image, path in labels.items():
        split = _split(image, src)
        if path is not None:
            shapes = _shapes(path, names)
            found.append(Annotated(split, image, path, None, shapes))
            continue
        error = DataError(
            f"{image} has no text file. If images without any object have none, use "
            "--missing-mask CLASS."
        )
        bad = None if has_empty else error
        found.append(Annotated(split, image, image, None, error=bad))
    return found, names


def _label_file(image: Path, src: Path) -> Path | None:
    """The text file of an image: beside it, or in labels for one in images."""
    parts = list(image.relative_to(src).with_suffix(".txt").parts)
    places = [src.joinpath(*parts)]
    for place in reversed(range(len(parts) - 1)):
        if parts[place].lower() == "images":
            other = "Labels" if parts[place] == "Images" else "labels"
            places.append(src.joinpath(*parts[:place], other, *parts[place + 1 :]))
            break
    return next(filter(Path.is_file, places), None)


def _split(image: Path, src: Path) -> str:
    below = image.relative_to(src).parts[:-1]
    return next((s for s in map(split_name, below) if s is not None), "")


def _is_yolo(path: Path) -> bool:
    """Whether a text file has lines of a class and numbers; False for an empty one."""
    try:
        lines = list(_lines(path))
    except DataError:
        return False
    return bool(lines) and all(
        re.fullmatch(r"\d+(\s+[-+.\deE]+){4,}", line) for _, line in lines
    )


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(files.read_text(path).splitlines(), 1):
        if line.strip():
            yield number, line.strip()


def _shapes(path: Path, names: Sequence[str]) -> tuple[Shape, ...]:
    shapes = []
    for number, line in _lines(path):
        where = f"{path}, line {number},"
        words = line.split()
        if len(words) == 5:
            raise DataError(
                f"{where} has a box, not a polygon. Export the segmentation of the "
                "labels, or masks."
            )
        try:
            class_id, values = int(words[0]), list(map(float, words[1:]))
        except ValueError:
            raise DataError(f"{where} is not a class and numbers.") from None
        if len(values) < 6 or len(values) % 2 or class_id < 0:
            raise DataError(
                f"{where} has {len(values)} numbers behind its class; a polygon has "
                "two for each of at least three corners."
            )
        if not all(math.isfinite(v) and -_BEYOND <= v <= 1 + _BEYOND for v in values):
            raise DataError(
                f"{where} has a corner outside of the image: its numbers are shares of "
                "width and height, from 0 to 1."
            )
        if names and class_id >= len(names):
            raise DataError(f"{where} has the class {class_id} of {len(names)} names.")
        name = names[class_id] if names else str(class_id)
        shapes.append(Shape(name, _polygon(list(zip(values[::2], values[1::2])))))
    return tuple(shapes)


def _polygon(corners: Sequence[tuple[float, float]]) -> Drawer:
    """Draws corners that are shares of the image's width and height."""

    def draw(label: np.ndarray, class_id: int) -> None:
        height, width = label.shape
        pixels = [(x * width, y * height) for x, y in corners]
        annotations.polygon(pixels)(label, class_id)

    return draw


def _names(src: Path) -> list[str]:
    """The names of the classes; [] where no file has them."""
    for name in _NAMES:
        for path in (src / name, *sorted(src.glob(f"*/{name}"))):
            if path.is_file():
                text = files.read_text(path)
                if path.suffix in (".yaml", ".yml"):
                    return _of_yaml(path, text)
                return [line.strip() for line in text.splitlines() if line.strip()]
    return []


def _of_yaml(path: Path, text: str) -> list[str]:
    """The entry `names` of a YAML file: a list, or numbers with names.

    Not all of YAML: what the tools write.
    """
    start = re.search(r"^names[ \t]*:[ \t]*", text, re.MULTILINE)
    rest = text[start.end() :] if start else ""
    if rest.startswith(("[", "{")):
        inner = rest[1:].partition("]" if rest[0] == "[" else "}")[0]
        entries = inner.replace("\n", " ").split(",")
    else:
        block = re.match(r"\s*\n((?:[ \t]+.*\n?|-.*\n?|[ \t]*\n)*)", f"{rest}\n")
        entries = block[1].splitlines() if block else []
    found = [re.sub(r"^\s*(-|\d+\s*:)?\s*", "", entry) for entry in entries]
    names = [re.sub(r"\s+#.*$", "", name).strip().strip("\"'") for name in found]
    names = [name for name in names if name]
    if not names:
        raise DataError(f"{path} has no names of classes that are understood.")
    return names
