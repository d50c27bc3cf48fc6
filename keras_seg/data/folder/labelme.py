"""LabelMe: a JSON file beside each image, with polygons and other shapes."""

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from keras_seg.data import files
from keras_seg.data.folder import annotations
from keras_seg.data.folder.annotations import Annotated, Drawer, Shape
from keras_seg.data.splits import split_name
from keras_seg.errors import DataError

_WITHOUT_AREA = ("line", "linestrip", "point", "points")


def find(
    opened: Sequence[tuple[Path, Any]], src: Path, has_empty: bool
) -> tuple[list[Annotated], list[str]] | None:
    """What the JSON files of this format annotate; None without any.

    The split is that of a folder's name. An image without a file is an error, or has no
    shapes if `has_empty`.
    """
    found = []
    for path, value in opened:
        if not (isinstance(value, dict) and isinstance(value.get("shapes"), list)):
            continue
        with annotations.damage_named(path, "LabelMe file"):
            one = _read(path, value, src)
        found.append(one)
    annotated = {one.image for one in found}
    for folder in sorted({one.image.parent for one in found}):
        for image in sorted(folder.iterdir()) if folder.is_dir() else ():
            if files.is_picture(image) and image not in annotated:
                error = DataError(
                    f"{image} has no JSON file. If images without any object have "
                    "none, use --missing-mask CLASS."
                )
                split = _split(image, src)
                bad = None if has_empty else error
                found.append(Annotated(split, image, image, None, error=bad))
    return (found, []) if annotated else None


def _read(path: Path, value: Any, src: Path) -> Annotated:
    size = None
    if value.get("imageHeight") and value.get("imageWidth"):
        size = annotations.image_size(value["imageHeight"], value["imageWidth"])
    shapes, skipped = [], 0
    for number, shape in enumerate(value["shapes"]):
        try:
            drawer = _drawer(shape)
        except DataError as error:
            raise DataError(f"{path}: shape {number} has {error}.") from None
        if drawer is None:
            skipped += 1
        else:
            shapes.append(Shape(str(shape["label"]), drawer))
    image = _image(path, value, src)
    return Annotated(_split(path, src), image, path, size, tuple(shapes), skipped)


def _split(path: Path, src: Path) -> str:
    below = path.relative_to(src).parts[:-1]
    return next((s for s in map(split_name, below) if s is not None), "")


def _image(path: Path, value: Any, src: Path) -> Path:
    """The image beside the file, of its name or of the name it states."""
    for beside in sorted(path.parent.glob(f"{_escaped(path.stem)}.*")):
        if files.is_picture(beside):
            return beside
    stated = str(value.get("imagePath") or f"{path.stem}.jpg")
    name = stated.replace("\\", "/").rpartition("/")[2]
    folders = [path.parent, *(p for p in sorted(src.iterdir()) if p.is_dir())]
    return annotations.find_image(folders, name, path)


def _escaped(stem: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in stem)


def _drawer(shape: Any) -> Drawer | None:
    """Draws a shape; None where it has no area."""
    kind = shape.get("shape_type") or "polygon"
    if kind in _WITHOUT_AREA:
        return None
    if kind == "polygon":
        return annotations.polygon(annotations.points(shape["points"], 3))
    two = annotations.points(shape["points"], 2)[:2]
    (x0, y0), (x1, y1) = two
    if kind == "rectangle":
        corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
        return annotations.polygon(corners)
    if kind == "circle":
        radius = math.hypot(x1 - x0, y1 - y0)
        return annotations.ellipse((x0 - radius, y0 - radius, x0 + radius, y0 + radius))
    if kind == "mask":
        return annotations.bitmap(_mask(shape["mask"]), round(x0), round(y0))
    raise DataError(f"the unknown type {kind!r}")


def _mask(text: Any) -> np.ndarray:
    """bool [h, w] of a PNG in base 64."""
    try:
        content = base64.b64decode(str(text), validate=True)
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            annotations.image_size(image.height, image.width)
            return np.array(image.convert("L")) > 0
    except DataError:
        raise
    except Exception as error:  # Pillow raises many kinds
        raise DataError(f"a damaged mask ({error})") from None
