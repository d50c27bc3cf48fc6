"""CVAT: "CVAT for images" (annotations.xml), and the colours of its mask export."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from keras_seg.data import files
from keras_seg.data.folder import annotations
from keras_seg.data.folder.annotations import Annotated, Drawer, Shape
from keras_seg.data.splits import split_name
from keras_seg.errors import DataError

LABELMAP = "labelmap.txt"
_WITHOUT_AREA = ("polyline", "points", "skeleton", "cuboid", "tag")


def find(paths: Sequence[Path], src: Path) -> tuple[list[Annotated], list[str]] | None:
    """What the XML files of this format among `paths` annotate; None without any."""
    found: list[Annotated] = []
    for path in paths:
        text = files.read_text(path)
        if "<annotations>" not in text[:5000]:
            continue
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise DataError(f"{path} defines entities, which CVAT does not.")
        with annotations.damage_named(path, "CVAT file"):
            try:
                root = ElementTree.fromstring(text)
            except ElementTree.ParseError as error:
                raise DataError(f"{path} is damaged: {error}.") from None
            if root.find("track") is not None:
                raise DataError(
                    f"{path} is CVAT for video. Export CVAT for images, or masks."
                )
            found += [_read(path, image, src) for image in root.iter("image")]
    return (found, []) if found else None


def _read(path: Path, image: Any, src: Path) -> Annotated:
    size = annotations.image_size(int(image.get("height")), int(image.get("width")))
    shapes, skipped = [], 0
    in_order = sorted(image, key=lambda shape: int(shape.get("z_order") or 0))
    for shape in in_order:
        drawer = None
        if shape.tag not in _WITHOUT_AREA:
            drawer = _drawer(shape)
        if drawer is None:
            skipped += 1
        else:
            shapes.append(Shape(str(shape.get("label")), drawer))
    split = split_name(image.get("subset") or "") or ""
    folders = [path.parent, src]
    folders += [p for p in sorted(src.glob("*")) if p.is_dir()]
    folders += [p for p in sorted(src.glob("*/*")) if p.is_dir()]
    place = annotations.find_image(folders, str(image.get("name")), path)
    return Annotated(split, place, path, size, tuple(shapes), skipped)


def _drawer(shape: Any) -> Drawer:
    if shape.tag == "polygon":
        corners = (pair.split(",") for pair in shape.get("points").split(";"))
        return annotations.polygon(annotations.points(corners, 3))
    if shape.tag == "box":
        left, top, right, bottom = (
            float(shape.get(key)) for key in ("xtl", "ytl", "xbr", "ybr")
        )
        corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
        return annotations.polygon(annotations.points(corners, 4))
    if shape.tag == "ellipse":
        x, y, rx, ry = (float(shape.get(key)) for key in ("cx", "cy", "rx", "ry"))
        annotations.points([(x, y), (rx, ry)], 2)
        return annotations.ellipse((x - rx, y - ry, x + rx, y + ry))
    if shape.tag == "mask":
        keys = ("left", "top", "width", "height")
        left, top, width, height = (int(shape.get(key)) for key in keys)
        annotations.image_size(height, width)
        runs = [int(run) for run in shape.get("rle").split(",")]
        if any(run < 0 for run in runs) or sum(runs) != width * height:
            raise DataError("run lengths that are not those of the mask")
        values = np.arange(len(runs)) % 2 == 1
        inside = np.repeat(values, runs).reshape(height, width)
        return annotations.bitmap(inside, left, top)
    raise DataError(f"the unknown shape {shape.tag!r}")


def read_labelmap(path: Path) -> dict[str, tuple[int, int, int]]:
    """{class: RGB} of the labelmap.txt of a mask export, in its order.

    DataError where a line is not `label:r,g,b:parts:actions`.
    """
    colours = {}
    for line in files.read_text(path).splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        levels = rest.partition(":")[0].split(",")
        try:
            red, green, blue = (int(level) for level in levels)
            if not all(0 <= level <= 255 for level in (red, green, blue)):
                raise ValueError
        except ValueError:
            raise DataError(f"{path} has the line {line!r}, not label:r,g,b.") from None
        colours[name.strip()] = (red, green, blue)
    if not colours:
        raise DataError(f"{path} names no class.")
    return colours
