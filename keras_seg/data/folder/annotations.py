"""Shapes of annotation tools instead of masks: COCO, LabelMe, CVAT, YOLO.

Each format has a module with `find`, which gives what is annotated, as `Annotated`. The
pixels of no shape are of the first class, or ignored where that has shapes too.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from keras_seg.data import files
from keras_seg.data.folder import names
from keras_seg.data.raw import RawPair
from keras_seg.errors import DataError, UsageError
from keras_seg.labels import IGNORE_ID

BACKGROUND = "background"  # the name of the first class where none is given
Size = tuple[int, int]  # height, width
# (draw a class id into uint8 [H, W] at a shape; DataError if it is no shape)
Drawer = Callable[[np.ndarray, int], None]


@dataclass(frozen=True)
class Shape:
    """A region with the name of its class."""

    label: str
    draw: Drawer


@dataclass(frozen=True)
class Annotated:
    """An image with its shapes, those that cover others last."""

    split: str  # "" where the annotations say none
    image: Path
    source: Path  # the file that the shapes are from
    size: Size | None  # that the shapes were drawn at; None is the image's
    shapes: tuple[Shape, ...] = ()
    skipped: int = 0  # lines and points, which have no area
    error: DataError | None = None


@dataclass
class Names:
    """Labels of the annotations and the classes that they are of."""

    classes: tuple[str, ...]
    ids: dict[str, int] = field(default_factory=dict)  # {label: class id or 255}

    @property
    def rest(self) -> int:
        """The id of the pixels of no shape."""
        return IGNORE_ID if 0 in self.ids.values() else 0


def name_classes(
    found: Sequence[Annotated],
    classes: Sequence[str] | None,
    label_map: str | None,
    void: str | None,
    order: Sequence[str] = (),
) -> Names:
    """The classes, and which labels are of which.

    Args:
        classes: of --classes; None: background, and the labels in `order` or sorted.
        label_map: of --map: LABEL=CLASS,...; other labels are classes of their names.
        void: of --void: labels that are ignored.

    Raises:
        UsageError: --map or --void names a label that no shape has.
        DataError: labels of no class; all are listed with their shapes.
    """
    counts: Counter[str] = Counter(shape.label for one in found for shape in one.shapes)
    known = counts.keys() | set(order)
    named: dict[str, str | None] = {}
    for part in label_map.split(",") if label_map else ():
        label, equals, name = (word.strip() for word in part.partition("="))
        if not (label and equals and name) or label not in known:
            raise UsageError(
                f"--map {part.strip()!r} is not LABEL=CLASS of one of the labels "
                f"{', '.join(sorted(known))}."
            )
        named[label] = name
    for label in (word.strip() for word in void.split(",")) if void else ():
        if label not in known and label != "others":
            raise UsageError(
                f"--void {label} is none of the labels {', '.join(sorted(known))}."
            )
        named[label] = None
    if classes is None:
        labels = [*order, *sorted(counts.keys() - set(order))]
        targets = [named.get(label, label) for label in labels]
        wanted = dict.fromkeys(name for name in targets if name is not None)
        classes = list(wanted)
        if BACKGROUND not in wanted:
            classes = [BACKGROUND, *classes]
    of_class = {name: class_id for class_id, name in enumerate(classes)}
    ids, strange = {}, Counter()
    for label in known:
        name = named.get(label, label)
        if name is None:
            ids[label] = IGNORE_ID
        elif name in of_class:
            ids[label] = of_class[name]
        elif "others" in named:
            ids[label] = IGNORE_ID
        elif label in named or counts[label]:
            strange[name] += counts[label]
    if strange:
        listed = ", ".join(f"{name} ({n} shapes)" for name, n in strange.most_common())
        raise DataError(
            f"Labels of no class of --classes: {listed}. Add them, say with --map "
            "LABEL=CLASS what they are, or ignore them with --void LABEL."
        )
    return Names(tuple(classes), ids)


def pairs(
    found: Sequence[Annotated], classes: Names, empty: int | None
) -> list[RawPair]:
    """The pairs of what is annotated; `empty` is the id of images without a file."""
    ids = names.ids([f"{one.image.parent.name}/{one.image.stem}" for one in found])
    stems = Counter((one.split, one.image.stem) for one in found)
    made = []
    for one in found:
        name = files.normal(one.image.stem)
        if stems[one.split, one.image.stem] > 1:
            name = ids[f"{one.image.parent.name}/{one.image.stem}"]
        has_file = one.source != one.image
        rest = classes.rest if has_file or empty is None else empty
        made.append(
            RawPair(
                *(one.split, name, one.image, one.source, one.error),
                draw=partial(_drawn, one, classes.ids, rest),
                drawn_from=(one.source,) if has_file else (),
            )
        )
    return made


def _drawn(one: Annotated, ids: Mapping[str, int], rest: int, size: Size) -> np.ndarray:
    label = np.full(one.size or size, rest, np.uint8)
    for number, shape in enumerate(one.shapes):
        try:
            shape.draw(label, ids[shape.label])
        except DataError as error:
            raise DataError(
                f"Shape {number} ({shape.label}) of {one.image.name} in {one.source} "
                f"is damaged: {error}."
            ) from None
    return label


# What the formats share


@contextmanager
def damage_named(path: Path, what: str) -> Iterator[None]:
    """Turn what wrong types and missing keys raise into a DataError."""
    try:
        yield
    except DataError as error:
        if str(path) in str(error):
            raise
        raise DataError(f"{path} has {error}.") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise DataError(
            f"{path} is no {what} ({type(error).__name__}: {error})."
        ) from None
    except (RecursionError, OverflowError) as error:
        raise DataError(f"{path} is no {what} ({type(error).__name__}).") from None


def read_json(path: Path) -> Any:
    """The value of a JSON file; DataError where it is none."""
    text = files.read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged: {error}.") from None


def image_size(height: Any, width: Any) -> Size:
    """A size that a file states; DataError where it is none, or too large."""
    for side in (height, width):
        if type(side) is not int or not 1 <= side <= 65_500:
            raise DataError(f"the size {height!r} x {width!r}")
    if height * width > 64_000_000:
        raise DataError(f"the size {height} x {width}")
    return height, width


def points(values: Iterable[Any], least: int) -> list[tuple[float, float]]:
    """(x, y) of a shape; DataError where they are too few or no finite numbers."""
    found = [(float(x), float(y)) for x, y in values]
    if len(found) < least:
        raise DataError(f"{len(found)} points, not {least}")
    if not all(math.isfinite(c) and abs(c) < 1e6 for point in found for c in point):
        raise DataError("a coordinate that is no number of pixels")
    return found


def polygon(corners: Sequence[tuple[float, float]]) -> Drawer:
    """The inside of a polygon with its edge, as LabelMe draws it."""

    def draw(label: np.ndarray, class_id: int) -> None:
        canvas = Image.new("1", label.shape[::-1])
        ImageDraw.Draw(canvas).polygon(list(corners), outline=1, fill=1)
        label[np.array(canvas)] = class_id

    return draw


def ellipse(box: Sequence[float]) -> Drawer:
    """The inside of an ellipse in (left, top, right, bottom)."""

    def draw(label: np.ndarray, class_id: int) -> None:
        canvas = Image.new("1", label.shape[::-1])
        ImageDraw.Draw(canvas).ellipse(list(box), outline=1, fill=1)
        label[np.array(canvas)] = class_id

    return draw


def bitmap(inside: np.ndarray, left: int, top: int) -> Drawer:
    """A small mask bool [h, w] at a place."""

    def draw(label: np.ndarray, class_id: int) -> None:
        height, width = inside.shape
        fits = left >= 0 and top >= 0
        if not (
            fits and top + height <= label.shape[0] and left + width <= label.shape[1]
        ):
            raise DataError("a mask that is not inside of the image")
        label[top : top + height, left : left + width][inside] = class_id

    return draw


def find_image(folders: Iterable[Path], name: str, source: Path) -> Path:
    """The image of a stated name, in one of the folders or below; DataError without."""
    parts = files.normal(name).replace("\\", "/").split("/")
    if ".." in parts or not name.isprintable() or not parts[-1]:
        raise DataError(f"{source} names the image {name!r}, which leads elsewhere.")
    folders = list(folders)
    for folder in folders:
        for start in range(len(parts)):
            path = folder.joinpath(*[part for part in parts[start:] if part])
            if path.is_file():
                return path
    return folders[0] / parts[-1]  # its absence is told when it is read
