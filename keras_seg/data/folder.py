"""Your own data: a folder of images and masks with your classes.

Plain layout: images/ and labels/ with equal names, with folders train, val, test in
both or without (then a seeded 80/10/10 split). VOC layout: JPEGImages,
SegmentationClass and lists in ImageSets/Segmentation. See datasets/folder.md.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from keras_seg.data import Option, images, raw, voc
from keras_seg.data.prepared import SPLIT_ORDER, Prepared
from keras_seg.data.writer import Options
from keras_seg.errors import DataError, UsageError
from keras_seg.labels import IGNORE_ID, LabelSpec

VAL_SHARE = TEST_SHARE = 0.1

OPTIONS = (
    Option(
        "classes",
        "the class names in the order of their ids, from 0",
        required=True,
        metavar="A,B,C",
    ),
    Option(
        "palette",
        "the colour of each class: masks may then be RGB; pictures use it too",
        metavar="RRGGBB,...",
    ),
    Option(
        "void",
        "an id, or with --palette a colour, that is ignored; 255 always is",
        metavar="ID|RRGGBB",
    ),
    Option(
        "flip_pairs",
        "classes that change places when an image is mirrored",
        metavar="LEFT:RIGHT,...",
    ),
    Option(
        "group_by",
        "images whose names match with the same group (or the same text) are one "
        "sequence: they get the same split, if there are no splits yet, and count "
        "as one in intervals of scores",
        metavar="REGEX",
    ),
)


def prepare(
    src: str | Path,
    out: str | Path,
    options: Options,
    classes: str,
    palette: str | None = None,
    void: str | None = None,
    flip_pairs: str | None = None,
    group_by: str | None = None,
) -> tuple[Prepared, bool]:
    """Prepare a folder of one of the two layouts; `OPTIONS` explain the arguments.

    Raises:
        UsageError: an argument that makes no sense.
        DataError: see `write_prepared`.
    """
    src = raw.source_folder(src)
    labels, colours = _labels(classes, palette, flip_pairs)
    ids = raw.kept_ids(labels, void=[IGNORE_ID])
    if void is not None:
        _add_void(void, ids, colours)
    pairs = _split(_in_sequences(_find(src), group_by))
    settings = {
        "classes": labels.names,
        "palette": palette,
        "void": void,
        "flip_pairs": labels.flip_pairs,
        "group_by": group_by,
    }
    read_mask = partial(images.read_raw_label, colours=colours)
    how = {"ids": ids, "read_mask": read_mask, "settings": settings}
    return raw.prepare_pairs(src, out, "folder", labels, pairs, options, **how)


def _labels(
    classes: str, palette: str | None, flip_pairs: str | None
) -> tuple[LabelSpec, dict[tuple[int, int, int], int] | None]:
    """The LabelSpec, and {colour: id} of a given palette or None."""
    names = tuple(name.strip() for name in classes.split(","))
    if not all(names):
        raise UsageError(f"--classes {classes} has an empty name between its commas.")
    pairs = []
    for pair in flip_pairs.split(",") if flip_pairs else ():
        sides = [side.strip() for side in pair.split(":")]
        if len(sides) != 2 or not set(sides) <= set(names):
            raise UsageError(
                f"--flip-pairs {pair} is not left:right, two names of --classes."
            )
        pairs.append((names.index(sides[0]), names.index(sides[1])))
    if palette is None:
        return LabelSpec(names, voc.palette(len(names)), tuple(pairs)), None
    rgb = tuple(_colour("--palette", text) for text in palette.split(","))
    labels = LabelSpec(names, rgb, tuple(pairs))
    if len(set(rgb)) != len(rgb):
        raise UsageError(f"--palette {palette} has one colour twice.")
    return labels, {colour: class_id for class_id, colour in enumerate(rgb)}


def _colour(option: str, text: str) -> tuple[int, int, int]:
    digits = text.strip().removeprefix("#")
    if not re.fullmatch("[0-9a-fA-F]{6}", digits):
        raise UsageError(f"{option} {text} is not a colour as RRGGBB.")
    red, green, blue = bytes.fromhex(digits)
    return red, green, blue


def _add_void(void: str, ids: dict[int, int], colours: dict | None) -> None:
    if re.fullmatch("[0-9]{1,3}", void) and int(void) <= IGNORE_ID:
        if ids.setdefault(int(void), IGNORE_ID) != IGNORE_ID:
            raise UsageError(f"--void {void} is the id of a class.")
    elif colours is None:
        raise UsageError(
            f"--void {void} is not an id up to 255. A colour needs --palette."
        )
    elif colours.setdefault(_colour("--void", void), IGNORE_ID) != IGNORE_ID:
        raise UsageError(f"--void {void} is the colour of a class.")


def _find(src: Path) -> list[raw.RawPair]:
    """The pairs; those that no list or folder gives a split have split ""."""
    if (src / voc.IMAGES).is_dir():
        pairs = voc.listed_pairs(src)
        if any(pair.split in ("train", "val") for pair in pairs):
            return pairs
        if (src / voc.LISTS / "trainval.txt").exists():
            return pairs + voc.pairs_of_list(src, "trainval", "")
        return pairs or raw.pairs_of_folders(src / voc.IMAGES, src / voc.MASKS)
    folder = src / "images"
    if not folder.is_dir():
        raise DataError(f"{src} has no folders images and labels, nor VOC's layout.")
    entries = [p.name for p in folder.iterdir() if not p.name.startswith(".")]
    splits = [split for split in SPLIT_ORDER if (folder / split).is_dir()]
    if not splits:
        return raw.pairs_of_folders(folder, src / "labels")
    if others := sorted(set(entries) - set(splits)):
        raise DataError(f"{folder / others[0]} is not in a split: train, val or test.")
    return [
        pair
        for split in splits
        for pair in raw.pairs_of_folders(folder / split, src / "labels" / split, split)
    ]


def _split(pairs: Sequence[raw.RawPair]) -> list[raw.RawPair]:
    """Give the pairs without a split one: 80/10/10, or 90/10 beside a test list."""
    free = [pair for pair in pairs if not pair.split]
    listed = [pair for pair in pairs if pair.split]
    share = 0.0 if listed else TEST_SHARE
    return listed + (raw.split_pairs(free, VAL_SHARE, share) if free else [])


def _in_sequences(
    pairs: Sequence[raw.RawPair], group_by: str | None
) -> list[raw.RawPair]:
    if group_by is None:
        return list(pairs)
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise UsageError(
            f"--group-by {group_by} is not a regular expression ({error})."
        ) from None

    def sequence(sample_id: str) -> str:
        match = pattern.search(sample_id)
        name = match and ("/".join(map(str, match.groups())) or match[0])
        if not name:
            raise UsageError(f"--group-by {group_by} matches nothing in {sample_id}.")
        return name

    return [replace(pair, sequence=sequence(pair.id)) for pair in pairs]
