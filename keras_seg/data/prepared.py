"""The prepared folder: what every dataset becomes, and how it is read.

    images/<split>/<id>.{png,jpg}    8-bit RGB
    labels/<split>/<id>.png          uint8 class ids, 255 = ignore
    joints/<split>.npz               joints: float32 [N, J, 2], (x, y) px; optional
    manifest.csv                     one line per sample, sorted by split and id
    meta.json                        classes, palette, flip pairs, pixel counts, command
    SHA256SUMS                       of these last three, for sha256sum -c
    selection.csv                    SURREAL's chosen frames; optional
    samples.png, sheet.png           pictures of samples; optional

`keras_seg.data.writer` writes it; only this module reads it.
"""

import csv
import hashlib
import io
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from keras_seg import storage
from keras_seg.data import files
from keras_seg.data.images import (
    MAX_FILE_BYTES,
    MAX_PIXELS,
    MAX_SCANS,
    MAX_SIDE,
    count_values,
)
from keras_seg.errors import DataError, UsageError
from keras_seg.labels import IGNORE_ID, LabelSpec

FORMAT_VERSION = 1
META, MANIFEST, SUMS = "meta.json", "manifest.csv", "SHA256SUMS"
SELECTION, PARTS_SHEET, SHEET = "selection.csv", "samples.png", "sheet.png"
FILES = frozenset({META, MANIFEST, SUMS, SELECTION, PARTS_SHEET, SHEET})
MANIFEST_FIELDS = (
    *("split", "id", "image", "image_sha256", "label_sha256"),
    *("height", "width", "sequence"),
)
_OLDER_FIELDS = MANIFEST_FIELDS[:-1]  # of folders from before there were sequences
SPLIT_ORDER = ("train", "val", "test")

_ID = re.compile(r"[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*")  # one file name
_SIDE = re.compile(r"[1-9][0-9]{0,8}")  # of an image, in pixels
_SHA256 = re.compile(r"[0-9a-f]{64}")
_META_KEYS = {
    **{"dataset": str, "classes": list, "palette": list, "flip_pairs": list},
    **{"image_size": list | None, "splits": dict, "joints": dict, "request": dict},
    "rejected": list,
}
_PER_CLASS = ("pixels", "images", "presence_pixels")  # counts of a split
_AGAIN = "Prepare the folder again with keras-seg prepare."
_END_OF_FILE = {".png": b"IEND\xaeB`\x82", ".jpg": b"\xff\xd9"}


@dataclass(frozen=True)
class Sample:
    """One image with its label, as the manifest lists it."""

    split: str
    id: str
    image: Path
    label: Path
    image_sha256: str
    label_sha256: str
    height: int
    width: int
    # The video, or whatever its images have in common: they are not independent. ""
    # for an image that stands alone.
    sequence: str = ""


@dataclass(frozen=True)
class ClassCounts:
    """What the labels of a split contain; C classes."""

    pixels: np.ndarray  # int64 [C], of each class
    images: np.ndarray  # int64 [C], that contain it
    presence_pixels: np.ndarray  # int64 [C], area of these images, void included
    ignored: int  # pixels of value 255
    total: int  # all pixels


@dataclass(frozen=True)
class Prepared:
    """A prepared folder, opened and checked by `open_prepared`."""

    folder: Path
    dataset: str  # its name: camvid, voc2012, cityscapes34, ...
    labels: LabelSpec
    image_size: tuple[int, int] | None  # (height, width), None where they differ
    meta: Mapping[str, Any]  # all of meta.json
    manifest_hash: str  # see `hash_manifest`; the same wherever the data are stored
    _samples: Mapping[str, tuple[Sample, ...]] = field(repr=False)

    @cached_property
    def divided(self) -> dict[tuple[int, int | None], "Prepared"]:
        """{(folds, fold): these data divided so}, kept by `keras_seg.data.folds`."""
        return {}

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._samples)

    @property
    def scored_ids(self) -> tuple[int, ...] | None:
        """The class ids that count in the evaluation; None is all."""
        ids = self.meta.get("scored_ids")
        return None if ids is None else tuple(ids)

    @property
    def fit(self) -> str:
        """How its images fit into a run's size, where nobody says it (`data.fit`).

        Own photographs have all shapes; the documents stretch those of a data set.
        """
        return "letterbox" if self.dataset == "folder" else "stretch"

    @property
    def raw(self) -> Mapping[str, Any]:
        """What the preparation noted of the raw data; {} where nothing was."""
        return self.meta.get("raw", {})

    def samples(self, split: str) -> tuple[Sample, ...]:
        """The samples of a split by id; DataError where there is no such split."""
        if split not in self._samples:
            message = (
                f"{self.folder} has no split '{split}'. "
                f"Its splits: {', '.join(self.splits)}."
            )
            if split == "val":
                message += " Prepare own data with --val-share to take one from train."
            raise DataError(message)
        return self._samples[split]

    def sequences(self, split: str) -> dict[str, str]:
        """{id: sequence} of the samples of a split that belong to a sequence.

        Also empty where the folder was prepared before sequences were recorded.
        """
        return {s.id: s.sequence for s in self.samples(split) if s.sequence}

    def counts(self, split: str) -> ClassCounts:
        """The class counts of a split."""
        self.samples(split)
        return class_counts(self.meta["splits"][split])

    def joints(self, split: str) -> np.ndarray | None:
        """float32 [N, J, 2], x and y in pixels, in the order of `samples`, or None."""
        samples = self.samples(split)
        if split not in self.meta["joints"]:
            return None
        path = self.folder / "joints" / f"{split}.npz"
        try:
            joints = storage.read_arrays(path)["joints"]
        except (OSError, ValueError, KeyError) as error:
            raise damaged(path, error) from None
        if hash_joints(joints) != self.meta["joints"][split]:
            raise damaged(path, f"another SHA-256 than in {META}")
        if joints.shape[0] != len(samples):
            raise damaged(path, f"{len(joints)} rows for {len(samples)} samples")
        return joints


def open_prepared(folder: str | Path) -> Prepared:
    """Open a prepared folder: check meta.json, the manifest and that the files exist.

    The images and labels are not read; each is held against its hash when it is.

    Raises:
        UsageError: there is no such folder.
        DataError: it is not a prepared folder, has another format version, or its
            manifest is damaged, lists a missing file, or leads out of the folder, or
            one of the two was changed since.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError(
            f"The prepared folder {folder} does not exist. Make it with "
            "keras-seg prepare."
        )
    meta = read_meta(folder)
    labels = _label_spec(folder / META, meta)
    samples = _read_manifest(folder)
    for split in meta["splits"].keys() | samples.keys():
        listed = len(samples.get(split, ()))
        counted = meta["splits"].get(split, {}).get("samples", 0)
        if not listed == counted > 0:
            found = f"{listed} samples of split {split}, in {META} {counted}"
            raise damaged(folder / MANIFEST, found)
    _check_files(folder, samples)
    _check_sums(folder)
    size = meta["image_size"]
    return Prepared(
        folder=folder,
        dataset=meta["dataset"],
        labels=labels,
        image_size=None if size is None else tuple(size),
        meta=meta,
        manifest_hash=hash_manifest(
            [sample for split in samples.values() for sample in split],
            labels,
            meta["joints"],
            meta.get("scored_ids"),
        ),
        _samples=samples,
    )


def foreign_entries(folder: Path) -> list[str]:
    """What a prepared folder holds beside what its manifest lists, sorted.

    Paths relative to the folder. Images and labels may be missing or damaged.

    Raises:
        DataError: meta.json or the manifest is damaged, so that nobody can tell.
    """
    meta = read_meta(folder)
    samples = [one for split in _read_manifest(folder).values() for one in split]
    known = {path for sample in samples for path in (sample.image, sample.label)}
    known |= {folder / "joints" / f"{split}.npz" for split in meta["joints"]}
    known |= {parent for path in known for parent in path.parents}
    known |= {folder / name for name in FILES}
    found, top = [], set(storage.contents(folder))
    for place, folders, names in os.walk(folder):
        if Path(place) == folder:
            folders[:] = top.intersection(folders)
        for name in (*folders, *names):
            path = Path(place, name)
            is_link = path.is_symlink()
            if path not in known or is_link or path.is_dir() != (name in folders):
                found.append(path.relative_to(folder).as_posix())
    return sorted(found)


def read_image(path: Path, sha256: str | None = None) -> np.ndarray:
    """An image of a prepared folder: uint8 RGB [H, W, 3].

    Raises:
        DataError: it is damaged, or `sha256` of the manifest is not its hash.
    """
    bgr = _read(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION, sha256)
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def read_label(path: Path, sha256: str | None = None) -> np.ndarray:
    """A label of a prepared folder: class ids uint8 [H, W]; errors as `read_image`."""
    label = _read(path, cv2.IMREAD_UNCHANGED, sha256)
    if label.ndim != 2 or label.dtype != np.uint8:
        raise damaged(path, f"{label.dtype} {label.shape}, not 8-bit class ids")
    return label


def _read(path: Path, flags: int, sha256: str | None) -> np.ndarray:
    content = files.read_bytes(Path(path), MAX_FILE_BYTES)
    # OpenCV makes up what a truncated JPEG lacks. What we write ends with its marker.
    if not content.endswith(_END_OF_FILE[Path(path).suffix]):
        raise damaged(path, f"truncated at {len(content)} bytes")
    _check_pixels(path, content)
    array = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    if array is None:
        raise damaged(path, "it cannot be decoded")
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise changed(path, MANIFEST)
    return array


def _check_pixels(path: Path, content: bytes) -> None:
    """Check the header: 400 kB can hold more pixels than there is memory for."""
    try:
        with Image.open(io.BytesIO(content), formats=["PNG", "JPEG"]) as image:
            width, height = image.size
    except Exception as error:  # Pillow raises many kinds on damaged files
        raise damaged(path, error) from None
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise damaged(path, f"{width} x {height} pixels; {MAX_PIXELS} are allowed")
    # Each scan is a pass over all pixels. Those that are no markers are few.
    if content.startswith(b"\xff\xd8") and content.count(b"\xff\xda") > MAX_SCANS:
        raise damaged(path, f"more than {MAX_SCANS} scans")


def damaged(path: Path, reason: object) -> DataError:
    """The error of a file that is not as it was prepared."""
    return DataError(f"{path} is damaged ({reason}). {_AGAIN}")


def changed(path: Path, record: str) -> DataError:
    """The error of a whole file whose hash is not the one that was recorded."""
    return DataError(
        f"{path} was changed after it was prepared: its SHA-256 is not that in "
        f"{record}. Restore it, or prepare the folder again."
    )


def _check_sums(folder: Path) -> None:
    """DataError where meta.json or the manifest is not what SHA256SUMS says."""
    if not (folder / SUMS).exists():  # a folder from before it was written
        return
    lines = files.read_text(folder / SUMS).splitlines()
    recorded = {
        name: digest for digest, _, name in (ln.partition("  ") for ln in lines)
    }
    for name in (META, MANIFEST):
        if name in recorded and storage.sha256(folder / name) != recorded[name]:
            raise changed(folder / name, SUMS)


def is_safe_id(text: str) -> bool:
    """Whether a sample's id or a split's name can be a file's name here."""
    return bool(_ID.fullmatch(text)) and text.isprintable()


def sort_key(sample) -> tuple:
    """Order of the manifest: train, val, test, other splits, then by id."""
    split = sample.split
    known = SPLIT_ORDER.index(split) if split in SPLIT_ORDER else len(SPLIT_ORDER)
    return known, split, sample.id


def label_pixels(label: np.ndarray, num_classes: int, place: object) -> np.ndarray:
    """int64 [C + 1]: pixels of the classes 0..C-1 and of 255 in a label uint8 [H, W].

    DataError where there is another value; it names `place`.
    """
    pixels = count_values(label)
    for value in np.flatnonzero(pixels[num_classes:IGNORE_ID]) + num_classes:
        raise DataError(
            f"{place} has class id {value} in {pixels[value]} pixels. Its ids must be "
            f"0 to {num_classes - 1}, or {IGNORE_ID} to be ignored."
        )
    return np.append(pixels[:num_classes], pixels[IGNORE_ID])


def count_pixels(pixels: Sequence[np.ndarray]) -> dict[str, Any]:
    """The counts of a split in meta.json, from `label_pixels` of each label."""
    rows = np.stack(pixels)  # [N, C + 1]
    areas = rows.sum(axis=1, keepdims=True)
    classes = rows[:, :-1]
    return {
        "samples": len(rows),
        "pixels": classes.sum(axis=0).tolist(),
        "images": (classes > 0).sum(axis=0).tolist(),
        "presence_pixels": ((classes > 0) * areas).sum(axis=0).tolist(),
        "ignored": int(rows[:, -1].sum()),
        "total": int(areas.sum()),
    }


def class_counts(counts: Mapping[str, Any]) -> ClassCounts:
    """From `count_pixels`."""
    pixels, images, presence = (np.array(counts[k], np.int64) for k in _PER_CLASS)
    return ClassCounts(pixels, images, presence, counts["ignored"], counts["total"])


def sum_lines(folder: Path, joints: Iterable[str]) -> dict[str, str]:
    """{file: its line of SHA256SUMS}; OSError where one cannot be read.

    `joints` are the splits that have joints.
    """
    names = [MANIFEST, META, *(f"joints/{split}.npz" for split in joints)]
    return {name: f"{storage.sha256(folder / name)}  {name}\n" for name in names}


def hash_joints(joints: np.ndarray) -> str:
    """SHA-256 of the values, whatever the file around them."""
    values = np.ascontiguousarray(joints, np.dtype("<f4"))
    return hashlib.sha256(f"{values.shape}".encode() + values.tobytes()).hexdigest()


def hash_manifest(
    samples: Sequence[Sample],
    labels: LabelSpec,
    joints: Mapping[str, str],
    scored_ids: Sequence[int] | None,
) -> str:
    """SHA-256 of what training and evaluation see of the data.

    Paths, palette and sequences are left out: they change no result of a network.
    `joints` is {split: hash_joints(...)}.
    """
    lines = sorted(
        [s.split, s.id, s.image_sha256, s.label_sha256, s.height, s.width]
        for s in samples
    )
    identity: list = [lines, labels.names, labels.flip_pairs, sorted(joints.items())]
    if scored_ids is not None:
        identity.append(scored_ids)
    return storage.json_sha256(identity)


def read_meta(folder: Path) -> dict[str, Any]:
    """meta.json of a prepared folder; DataError where it is missing or damaged."""
    path = folder / META
    if not path.exists():
        raise DataError(
            f"{path} is missing. A folder that keras-seg prepare made has one."
        )
    try:
        meta = json.loads(files.read_bytes(path, files.MAX_TEXT_BYTES))
    except (ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise damaged(path, error) from None
    version = meta.get("format_version") if isinstance(meta, dict) else None
    if version != FORMAT_VERSION:
        has = f"{path} has format version {version}, not {FORMAT_VERSION}."
        raise DataError(f"{has} {_AGAIN}")
    for key, kind in _META_KEYS.items():
        if key not in meta or not isinstance(meta[key], kind):
            raise damaged(path, f"field {key}")
    for name in (meta["dataset"], *meta["splits"]):
        if not is_safe_id(name):
            raise damaged(path, f"the name {name!r}")
    for split, digest in meta["joints"].items():
        known = split in meta["splits"] and isinstance(digest, str)
        if not (known and _SHA256.fullmatch(digest)):
            raise damaged(path, f"joints.{split} is not the SHA-256 of a split's")
    num_classes = len(meta["classes"])
    for split, counts in meta["splits"].items():
        for key in _PER_CLASS:
            values = counts.get(key) if isinstance(counts, dict) else None
            if not _are_counts(values, num_classes):
                raise damaged(path, f"splits.{split}.{key} is not {num_classes} counts")
        for key in ("samples", "ignored", "total"):
            if not _is_count(counts.get(key)):
                raise damaged(path, f"splits.{split}.{key} is not a count")
    size = meta["image_size"]
    if size is not None and not _are_counts(size, 2):
        raise damaged(path, f"image_size {size} is not a height and a width")
    if not _is_raw(meta.get("raw", {})):
        raise damaged(path, "field raw")
    scored_ids = meta.get("scored_ids")
    if scored_ids is not None and not _are_ids(scored_ids, num_classes):
        found = f"scored_ids {scored_ids} are not ascending ids below {num_classes}"
        raise damaged(path, found)
    return meta


def _is_raw(raw: object) -> bool:
    """Whether the notes of the raw data are what `keras_seg.data.summary` shows."""
    if not isinstance(raw, dict):
        return False
    rest = dict(raw)
    unused, levels = rest.pop("unused", {}), rest.pop("levels", [0, 1])
    return (
        isinstance(unused, dict)
        and all(map(_is_count, unused.values()))
        and _are_counts(levels, 2)
        and all(
            v.isprintable() if isinstance(v, str) else _is_count(v) or v is True
            for v in rest.values()
        )
    )


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _are_counts(values: object, length: int | None = None) -> bool:
    return (
        isinstance(values, list)
        and all(map(_is_count, values))
        and length in (None, len(values))
    )


def _are_ids(values: object, num_classes: int) -> bool:
    """Whether it is a list of some class ids, ascending, each once."""
    if not (isinstance(values, list) and values and _are_counts(values)):
        return False
    return values == sorted(set(values)) and values[-1] < num_classes


def _label_spec(path: Path, meta: Mapping[str, Any]) -> LabelSpec:
    try:
        return LabelSpec(
            tuple(map(str, meta["classes"])),
            tuple((int(r), int(g), int(b)) for r, g, b in meta["palette"]),
            tuple((int(left), int(right)) for left, right in meta["flip_pairs"]),
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise damaged(path, error) from None


def _read_manifest(folder: Path) -> dict[str, tuple[Sample, ...]]:
    path = folder / MANIFEST
    content = files.read_bytes(path, files.MAX_TEXT_BYTES)
    try:
        text = io.StringIO(content.decode("utf-8"), newline="")
        rows = list(csv.reader(text, strict=True))
    except (ValueError, csv.Error) as error:
        raise damaged(path, error) from None
    fields = tuple(rows[0]) if rows else ()
    if fields not in (MANIFEST_FIELDS, _OLDER_FIELDS):
        raise damaged(path, f"another header than {','.join(MANIFEST_FIELDS)}")
    samples = []
    for number, row in enumerate(rows[1:], start=2):
        try:
            samples.append(_sample(folder, row, fields))
        except ValueError as error:
            raise damaged(path, f"line {number} has {error}") from None
    samples.sort(key=sort_key)
    splits: dict[str, list[Sample]] = {}
    for sample in samples:
        same_split = splits.setdefault(sample.split, [])
        if same_split and same_split[-1].id == sample.id:
            raise damaged(path, f"{sample.split}/{sample.id} more than once")
        same_split.append(sample)
    return {split: tuple(listed) for split, listed in splits.items()}


def _sample(folder: Path, row: Sequence[str], fields: Sequence[str]) -> Sample:
    """The sample of a line; ValueError says what of it is wrong."""
    if len(row) != len(fields):
        raise ValueError(f"{len(row)} fields, not {len(fields)}")
    split, sample_id, image, image_sha256, label_sha256, height, width = row[:7]
    sequence = row[7] if len(row) > 7 else ""
    if not (is_safe_id(split) and is_safe_id(sample_id)):
        raise ValueError(f"{split!r}, {sample_id!r}, not a split and a file name")
    if image not in (f"{sample_id}.png", f"{sample_id}.jpg"):
        raise ValueError(f"image {image!r}, not its id with .png or .jpg")
    if not (_SHA256.fullmatch(image_sha256) and _SHA256.fullmatch(label_sha256)):
        raise ValueError("no two SHA-256 of 64 hexadecimal digits")
    if not (_SIDE.fullmatch(height) and _SIDE.fullmatch(width)):
        raise ValueError(f"size {height!r} x {width!r}, not a height and a width in px")
    if not sequence.isprintable():
        raise ValueError(f"sequence {sequence!r}, not a name")
    return Sample(
        split=split,
        id=sample_id,
        image=folder / "images" / split / image,
        label=folder / "labels" / split / f"{sample_id}.png",
        image_sha256=image_sha256,
        label_sha256=label_sha256,
        height=int(height),
        width=int(width),
        sequence=sequence,
    )


def _check_files(folder: Path, samples: Mapping[str, Sequence[Sample]]) -> None:
    """Every listed file exists, and none is a link that leads out of the folder."""
    root = folder.resolve()
    for kind in ("image", "label"):
        for split, listed in samples.items():
            directory = folder / f"{kind}s" / split
            _check_inside(directory, root)
            try:
                with os.scandir(directory) as entries:
                    links = {entry.name: entry.is_symlink() for entry in entries}
            except OSError as error:
                raise damaged(directory, error.strerror) from None
            for path in (getattr(sample, kind) for sample in listed):
                if path.name not in links:
                    raise DataError(f"{path} is missing. {_AGAIN}")
                if links[path.name]:
                    _check_inside(path, root)


def _check_inside(path: Path, root: Path) -> None:
    if not path.resolve().is_relative_to(root):
        raise DataError(
            f"{path} is a link that leads out of the prepared folder. Replace it by "
            "what it points to."
        )
