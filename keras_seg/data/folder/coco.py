"""COCO's JSON: polygons and run lengths of instances, drawn by pycocotools.

Lin et al. 2014. A class of instances becomes a class of pixels; smaller instances are
on top of larger ones. Roboflow and CVAT write the same format.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_seg.command_line import install_hint
from keras_seg.data.folder import annotations
from keras_seg.data.folder.annotations import Annotated, Drawer, Shape, Size
from keras_seg.data.splits import split_name
from keras_seg.errors import DataError, UsageError

_KEYS = {"images", "annotations", "categories"}


def find(
    opened: Sequence[tuple[Path, Any]], src: Path
) -> tuple[list[Annotated], list[str]] | None:
    """What the JSON files of this format annotate, and their categories.

    None where there is none. The split is that of a file's or its folder's name.
    """
    found: list[Annotated] = []
    order: dict[str, None] = {}
    mine = [(p, v) for p, v in opened if isinstance(v, dict) and v.keys() >= _KEYS]
    for path, value in mine:
        with annotations.damage_named(path, "COCO file"):
            one, categories = _read(path, value, src)
        found += one
        order |= dict.fromkeys(categories)
    return (found, list(order)) if mine else None


def _read(path: Path, value: Any, src: Path) -> tuple[list[Annotated], list[str]]:
    categories = {
        each["id"]: str(each["name"])
        for each in sorted(value["categories"], key=lambda each: int(each["id"]))
    }
    # Roboflow lists the name of the whole project first, which no shape has.
    used = {each["category_id"] for each in value["annotations"]}
    order = [name for key, name in categories.items() if key in used]
    order += [n for k, n in categories.items() if k not in used and k != 0]
    shapes: dict[Any, list[tuple[float, Shape]]] = {}
    sizes: dict[Any, Size] = {}
    for image in value["images"]:
        sizes[image["id"]] = annotations.image_size(image["height"], image["width"])
        shapes[image["id"]] = []
    for each in value["annotations"]:
        if each["image_id"] not in sizes:
            raise DataError(f"{path} has an annotation of an image it does not list.")
        if each["category_id"] not in categories:
            raise DataError(f"{path} has an annotation of a category it does not list.")
        segmentation, area = each.get("segmentation"), float(each.get("area") or 0)
        if not segmentation:
            raise DataError(
                f"{path}: annotation {each.get('id')} has no segmentation, only a box."
            )
        shape = Shape(
            categories[each["category_id"]],
            _drawer(segmentation, sizes[each["image_id"]]),
        )
        shapes[each["image_id"]].append((area, shape))
    split = _split(path, src)
    folders = _folders(path, src)
    found = []
    for image in value["images"]:
        key = image["id"]
        largest_first = sorted(shapes[key], key=lambda pair: -pair[0])
        place = annotations.find_image(folders, str(image["file_name"]), path)
        found.append(
            Annotated(
                split, place, path, sizes[key], tuple(s for _, s in largest_first)
            )
        )
    return found, order


def _split(path: Path, src: Path) -> str:
    """Of instances_train2017.json, or train/_annotations.coco.json; "" without."""
    for word in reversed(path.stem.replace("-", "_").split("_")):
        if (split := split_name(word)) is not None:
            return split
    return (split_name(path.parent.name) or "") if path.parent != src else ""


def _folders(path: Path, src: Path) -> list[Path]:
    """Where the images may be: beside the file, below it, in folders of its splits."""
    folders = [path.parent]
    for base in dict.fromkeys((path.parent, path.parent.parent, src)):
        if base.is_relative_to(src):
            folders += [base, *sorted(p for p in base.iterdir() if p.is_dir())]
            for name in ("images", "Images", "JPEGImages", "data"):
                if (base / name).is_dir():
                    inner = base / name
                    folders += [
                        inner,
                        *sorted(p for p in inner.iterdir() if p.is_dir()),
                    ]
    return list(dict.fromkeys(folders))


def _drawer(segmentation: Any, size: Size) -> Drawer:
    """Draws polygons, or run lengths; what they may hold is checked first.

    pycocotools is C code that believes what it is given.
    """

    def draw(label: np.ndarray, class_id: int) -> None:
        mask = _pycocotools()
        height, width = size
        if isinstance(segmentation, list):
            polygons = [_checked(polygon, size) for polygon in segmentation]
            runs = mask.merge(mask.frPyObjects(polygons, height, width))
        else:
            counts = segmentation["counts"]
            if isinstance(counts, str):
                counts = _counts(counts)
            is_whole = all(type(n) is int and n >= 0 for n in counts)
            if not is_whole or sum(counts) != height * width:
                raise DataError("run lengths that are not those of the image's pixels")
            runs = mask.frPyObjects(
                {"counts": counts, "size": [height, width]}, height, width
            )
        label[mask.decode(runs) > 0] = class_id

    def drawn(label: np.ndarray, class_id: int) -> None:
        try:
            draw(label, class_id)
        except (UsageError, DataError):
            raise
        except Exception as error:
            raise DataError(f"{type(error).__name__}: {error}") from None

    return drawn


def _checked(polygon: Any, size: Size) -> list[float]:
    """A polygon with coordinates near the image, x and y in turn."""
    values = [float(value) for value in polygon]
    if len(values) < 6 or len(values) % 2:
        raise DataError(f"a polygon of {len(values)} coordinates")
    limit = 2 * max(size)
    if not all(math.isfinite(value) and abs(value) <= limit for value in values):
        raise DataError("a polygon far outside of the image")
    return values


def _counts(text: str) -> list[int]:
    """Run lengths of COCO's compressed text (maskApi.c, rleFrString)."""
    counts: list[int] = []
    place = 0
    while place < len(text):
        value, shift, more = 0, 0, True
        while more:
            if place >= len(text) or shift > 60:
                raise DataError("run lengths that end too early")
            code = ord(text[place]) - 48
            value |= (code & 31) << shift
            more, place, shift = bool(code & 32), place + 1, shift + 5
            if not more and code & 16:
                value |= -1 << shift
        if len(counts) > 2:
            value += counts[-2]
        counts.append(value)
    return counts


def _pycocotools() -> Any:
    try:
        from pycocotools import mask
    except ImportError:
        raise UsageError(
            f"COCO's annotations need the extra: {install_hint('coco')}."
        ) from None
    return mask
