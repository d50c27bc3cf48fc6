"""Your own data: images with masks, or with shapes of an annotation tool.

Masks of every common kind and layout are read: see datasets/folder.md and
docs/how-to/own-data.md. Where something could be meant in two ways, the command stops
and names the option that decides.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from keras_seg.command_line import fraction, natural_int
from keras_seg.data import Option, files, masks, raw
from keras_seg.data.folder import (
    annotations,
    coco,
    cvat,
    labelme,
    layouts,
    names,
    values,
    yolo,
)
from keras_seg.data.prepared import Prepared
from keras_seg.data.raw import RawPair
from keras_seg.data.writer import Notes, Options
from keras_seg.errors import DataError, UsageError

VAL_SHARE = TEST_SHARE = 0.1
_CLASSES_CSV = "_classes.csv"  # Roboflow's: Pixel Value, Class
_DEEPEST = 4  # folders below --src in which annotations are looked for


OPTIONS = (
    Option(
        "classes",
        "the class names in the order of their ids, from 0; needed unless --map or the "
        "annotations name them",
        metavar="A,B,C",
    ),
    Option(
        "map",
        "which values of the masks (grey levels, ranges of them, colours, or others) "
        "or which labels of the annotations are which class",
        metavar="VALUE=CLASS,...",
    ),
    Option(
        "palette",
        "the colour of each class: masks are then read by colours, also grey ones; "
        "pictures use it too",
        metavar="RRGGBB,...",
    ),
    Option(
        "void",
        "values or labels that are ignored, or others for all that are not named; 255 "
        "is, unless it is a class; 0 without --map: ids begin with 1",
        metavar="VALUE,...",
    ),
    Option(
        "tolerance",
        "a value this near to a named one, in each channel, counts as that: for "
        "blurred edges and JPEG masks",
        natural_int,
        metavar="LEVELS",
    ),
    Option(
        "mask_channel",
        "what of a colour mask holds the values",
        default="colour",
        choices=masks.CHANNELS,
    ),
    Option(
        "flip_pairs",
        "classes that change places when an image is mirrored",
        metavar="LEFT:RIGHT,...",
    ),
    Option("images", "the images' folder in --src", metavar="DIR"),
    Option("labels", "the masks' folder in --src; may be the same", metavar="DIR"),
    Option("label_suffix", "what masks' names have behind the image's", metavar="TEXT"),
    Option("label_prefix", "what they have before it", metavar="TEXT"),
    Option("image_suffix", "what images' names have that masks' lack", metavar="TEXT"),
    Option(
        "missing_mask",
        "images without a mask are all of this class",
        metavar="CLASS",
    ),
    Option("follow_links", "follow links that lead out of --src", bool, default=False),
    Option(
        "group_by",
        "images whose names match with the same group (or the same text) are one "
        "sequence: they get the same split, if there are no splits yet, and count "
        "as one in intervals of scores",
        metavar="REGEX",
    ),
    Option(
        "val_share",
        "share of the images for validation, where there are no splits or no val; "
        f"without splits {VAL_SHARE}",
        fraction,
        metavar="0..1",
    ),
    Option(
        "test_share",
        f"share for test, where there are no splits; default: {TEST_SHARE}",
        fraction,
        metavar="0..1",
    ),
    Option(
        "exif",
        "masks are of the picture as it is displayed or as it is stored, where EXIF "
        "says that it is turned; auto: what fits the size; ignore: turn nothing",
        default="auto",
        choices=raw.EXIF,
    ),
    Option(
        "range",
        "levels of 16-bit images that become black and white; otherwise they are "
        "measured on the training images",
        natural_int,
        values=2,
        metavar=("LOW", "HIGH"),
    ),
)


@dataclass(frozen=True)
class Settings:
    """The values of `OPTIONS`, which explains them."""

    classes: str | None = None
    map: str | None = None
    palette: str | None = None
    void: str | None = None
    tolerance: int | None = None
    mask_channel: str = "colour"
    flip_pairs: str | None = None
    images: str | None = None
    labels: str | None = None
    label_suffix: str | None = None
    label_prefix: str | None = None
    image_suffix: str | None = None
    missing_mask: str | None = None
    follow_links: bool = False
    group_by: str | None = None
    val_share: float | None = None
    test_share: float | None = None
    exif: str = "auto"
    range: tuple[int, int] | None = None

    def __post_init__(self):
        if not 0 <= (self.tolerance or 0) <= 255:
            raise UsageError(f"--tolerance {self.tolerance} is not 0 to 255.")
        if (self.val_share or 0) + (self.test_share or 0) >= 1:
            raise UsageError("--val-share and --test-share leave nothing for train.")
        if self.range and not 0 <= self.range[0] < self.range[1] < 1 << 16:
            raise UsageError(
                f"--range {self.range[0]} {self.range[1]} is not two levels of 0 to "
                "65535, the lower first."
            )

    @property
    def names(self) -> tuple[str, ...] | None:
        """The names of --classes; UsageError where one is empty."""
        if self.classes is None:
            return None
        found = tuple(name.strip() for name in self.classes.split(","))
        if not all(found):
            raise UsageError(
                f"--classes {self.classes} has an empty name between its commas."
            )
        return found

    def changed(self) -> dict[str, Any]:
        """All that are not the default, for the request; None for the others."""
        default = Settings()
        found = vars(self)
        return {k: None if v == getattr(default, k) else v for k, v in found.items()}


def prepare(
    src: str | Path,
    out: str | Path,
    options: Options,
    classes: str | None = None,
    **chosen,
) -> tuple[Prepared, bool]:
    """Prepare a folder; `chosen` are fields of `Settings`.

    Raises:
        UsageError: an option that makes no sense, or that something is missing for.
        DataError: see `write_prepared`; nothing is found, or it is ambiguous.
    """
    src = raw.source_folder(src)
    wanted = Settings(classes=classes, **chosen)
    notes: Notes = {}
    how: dict[str, Any] = {}
    found = _annotated(src, wanted, notes)
    if found is None:
        labels, pairs, read_masks = _with_masks(src, wanted, notes)
        look = partial(_look, read_masks, options)
        how = {"read_mask": read_masks.read, "look": look}
    else:
        labels, pairs = found
    pairs = _split(_in_sequences(pairs, wanted.group_by), wanted, src, notes)
    settings = {
        **wanted.changed(),
        "classes": labels.names,
        "flip_pairs": labels.flip_pairs,
    }
    reading = raw.Reading(wanted.exif, wanted.range, wanted.follow_links)
    return raw.prepare_pairs(
        src,
        out,
        "folder",
        labels,
        pairs,
        options,
        ids=raw.kept_ids(labels, void=[masks.IGNORE_ID]),
        settings=settings,
        reading=reading,
        notes=notes,
        **how,
    )


def _look(
    read_masks: values.Masks, options: Options, pairs: list[RawPair], notes: Notes
) -> list[RawPair]:
    marked, refusal = read_masks.look(pairs, options.workers)
    if refusal is not None:
        notes["refusal"] = refusal
    return marked


# Masks


def _with_masks(src: Path, wanted: Settings, notes: Notes):
    """The classes, the pairs, and what reads their masks."""
    class_names, value_map, palette = wanted.names, wanted.map, wanted.palette
    if value_map is None and palette is None:
        class_names, value_map = _described(src, class_names)
    parsed = values.parse(
        class_names,
        value_map,
        palette,
        wanted.void,
        wanted.tolerance or 0,
        wanted.mask_channel,
    )
    labels = values.label_spec(parsed, wanted.flip_pairs)
    affixes = None
    given = (wanted.image_suffix, wanted.label_prefix, wanted.label_suffix)
    if any(text is not None for text in given):
        affixes = names.Affixes(*(text or "" for text in given))
    layout = layouts.Wanted(
        wanted.images,
        wanted.labels,
        affixes,
        _class_id(wanted.missing_mask, labels.names),
        wanted.follow_links,
        labels.names,
    )
    pairs, notes["found"] = layouts.find(src, layout)
    return labels, pairs, values.Masks(parsed)


def _class_id(name: str | None, class_names: Sequence[str]) -> int | None:
    """The id of --missing-mask: a class' name, its id, or 255."""
    if name is None:
        return None
    if name in class_names:
        return class_names.index(name)
    if name.isdigit() and (int(name) < len(class_names) or int(name) == 255):
        return int(name)
    raise UsageError(f"--missing-mask {name} is none of {', '.join(class_names)}.")


def _described(
    src: Path, class_names: tuple[str, ...] | None
) -> tuple[tuple[str, ...] | None, str | None]:
    """The classes, and --map as a file beside the masks says it, if there is one.

    CVAT's labelmap.txt, or Roboflow's _classes.csv.
    """
    for path in _files_below(src, cvat.LABELMAP):
        colours = cvat.read_labelmap(path)
        found = {f"{r:02x}{g:02x}{b:02x}": name for name, (r, g, b) in colours.items()}
        return _as_map(path, found, class_names, is_strict=True)
    for path in _files_below(src, _CLASSES_CSV):
        rows = [line.split(",") for line in files.read_text(path).splitlines()[1:]]
        rows = [[cell.strip() for cell in row] for row in rows if len(row) == 2]
        found = {value: name for value, name in rows if value.isdigit()}
        return _as_map(path, found, class_names, is_strict=False)
    return class_names, None


def _as_map(
    path: Path,
    found: Mapping[str, str],
    class_names: tuple[str, ...] | None,
    is_strict: bool,
) -> tuple[tuple[str, ...] | None, str | None]:
    known = tuple(dict.fromkeys(found.values()))
    if class_names is None or set(known) <= set(class_names):
        value_map = ",".join(f"{value}={name}" for value, name in found.items())
        return class_names or known, value_map
    if is_strict:
        raise UsageError(
            f"{path} has the classes {', '.join(known)}, but --classes "
            f"{', '.join(class_names)}. Leave --classes out, or give the colours' "
            "classes with --map."
        )
    return class_names, None


# Annotations


def _annotated(src: Path, wanted: Settings, notes: Notes):
    """The classes and pairs of an annotation tool's files; None where there are masks.

    Masks are preferred: the files of a tool are often left beside them.
    """
    if wanted.images is not None or wanted.labels is not None:
        return None
    if _has_masks(src):
        return None
    json_files, xml = _files_below(src, "*.json"), _files_below(src, "*.xml")
    opened = [(path, annotations.read_json(path)) for path in json_files]
    has_empty = wanted.missing_mask is not None
    readers = {
        "COCO annotations": partial(coco.find, opened),
        "LabelMe annotations": partial(labelme.find, opened, has_empty=has_empty),
        "CVAT annotations": partial(cvat.find, xml),
        "YOLO annotations": partial(
            yolo.find, has_empty=has_empty, follow_links=wanted.follow_links
        ),
    }
    for name, find in readers.items():
        if (found := find(src)) is not None:
            annotated, order = found
            notes["found"] = name
            break
    else:
        return None
    notes["skipped_shapes"] = sum(one.skipped for one in annotated)
    named = annotations.name_classes(
        annotated, wanted.names, wanted.map, wanted.void, order
    )
    parsed = values.parse(named.classes, None, wanted.palette, None, 0, "colour")
    labels = values.label_spec(parsed, wanted.flip_pairs)
    empty = _class_id(wanted.missing_mask, labels.names)
    return labels, annotations.pairs(annotated, named, empty)


def _has_masks(src: Path) -> bool:
    try:
        return bool(layouts.find_trees(src, layouts.Wanted()))
    except DataError:
        return False


def _files_below(src: Path, pattern: str) -> list[Path]:
    """Visible files of that name in --src and a few folders below."""
    found = []
    for depth in range(_DEEPEST):
        for path in sorted(src.glob("*/" * depth + pattern)):
            below = path.relative_to(src).parts
            if path.is_file() and not any(map(files.is_hidden, below)):
                found.append(path)
    return found


# Splits


def _split(
    pairs: Sequence[RawPair], wanted: Settings, src: Path, notes: Notes
) -> list[RawPair]:
    """Give the pairs without a split one; train a val where the user wants it."""
    free = [pair for pair in pairs if not pair.split]
    listed = [pair for pair in pairs if pair.split]
    val_share = VAL_SHARE if wanted.val_share is None else wanted.val_share
    test_share = TEST_SHARE if wanted.test_share is None else wanted.test_share
    if free:
        _check_groups(free, wanted.group_by)
        if len(free) == 1 and not listed:  # to see whether anything works at all
            return [replace(free[0], split=split) for split in ("train", "val")]
        return listed + raw.split_pairs(free, val_share, 0 if listed else test_share)
    there = {pair.split for pair in listed}
    if wanted.test_share is not None or (wanted.val_share and "val" in there):
        raise UsageError(
            f"{src} says which images are {', '.join(sorted(there))}: leave out "
            "--val-share and --test-share."
        )
    if "val" in there or "train" not in there or wanted.val_share == 0:
        return listed
    if wanted.val_share is None and there != {"train"}:
        raise DataError(
            f"{src} has no val split, only {', '.join(sorted(there))}, and training "
            f"needs one. Take it from train with --val-share {VAL_SHARE}; "
            "--val-share 0 prepares none."
        )
    train = [pair for pair in listed if pair.split == "train"]
    _check_groups(train, wanted.group_by)
    rest = [pair for pair in listed if pair.split != "train"]
    divided = raw.split_pairs(train, val_share, 0)
    notes["val_from_train"] = sum(pair.split == "val" for pair in divided)
    return divided + rest


def _check_groups(pairs: Sequence[RawPair], group_by: str | None) -> None:
    groups = {pair.sequence or pair.id for pair in pairs}
    if len(groups) == 1 and len(pairs) > 1:
        raise UsageError(
            f"--group-by {group_by} puts all {len(pairs)} images into one group, "
            f"{groups.pop()}, which cannot be in two splits. Use another expression."
        )


def _in_sequences(pairs: Sequence[RawPair], group_by: str | None) -> list[RawPair]:
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
