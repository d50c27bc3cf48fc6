"""Write a prepared folder: made beside its place, renamed when it is whole.

Whatever happens on the way (a bad file, Ctrl-C, SIGKILL, a full disk), the place itself
is left as it was. The result does not depend on the number of workers: each sample's
files are a function of the sample, and the manifest is sorted.
"""

import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from keras_seg import storage
from keras_seg.command_line import Progress
from keras_seg.data.images import encode_jpeg, encode_png
from keras_seg.data.prepared import (
    FORMAT_VERSION,
    MANIFEST,
    MANIFEST_FIELDS,
    META,
    SUMS,
    Prepared,
    count_pixels,
    foreign_entries,
    hash_joints,
    is_safe_id,
    label_pixels,
    open_prepared,
    sort_key,
    sum_lines,
)
from keras_seg.data.workers import in_threads
from keras_seg.errors import DataError, UsageError
from keras_seg.labels import LabelSpec

Notes = dict[str, Any]  # JSON values of meta.json's "raw"
_REJECTED_FIELDS = ("split", "id", "error")
_OTHERWISE = "Name another --out, or replace it with --overwrite."


@dataclass(frozen=True)
class Options:
    """The options that every preparation has."""

    size: tuple[int, int] | None = None  # (height, width); None keeps each image's
    limit: int | None = None  # samples of each split, the first ones; None is all
    workers: int = os.cpu_count() or 1  # never changes the result
    skip_bad: float = 0  # how many bad items may be left out; infinity is any number
    overwrite: bool = False  # replace a folder that another command prepared
    command: str = ""  # the command line, for meta.json


class Item(Protocol):
    """What is converted: one raw sample, or one clip of them."""

    @property
    def split(self) -> str: ...

    @property
    def id(self) -> str: ...


AnyItem = TypeVar("AnyItem", bound=Item)


@dataclass(frozen=True)
class NewSample:
    """One sample of a prepared folder, before it is written."""

    split: str  # train, val, test or another name
    id: str  # unique in its split; the files' name
    image: np.ndarray | bytes  # uint8 RGB [H, W, 3], or a whole file of that size
    label: np.ndarray  # class ids uint8 [H, W], 255 = ignore
    format: str = "png"  # or "jpg", of the image
    joints: np.ndarray | None = None  # float32 [J, 2], x and y in pixels
    sequence: str = ""  # as in `prepared.Sample`
    # What was done to it, see `keras_seg.data.summary`; meta.json counts them.
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Record:
    """A sample that was written."""

    split: str
    id: str
    size: tuple[int, int]
    row: Mapping[str, object]  # of the manifest
    pixels: np.ndarray  # int64 [C + 1], from `label_pixels`
    joints: np.ndarray | None
    notes: tuple[str, ...]


def write_prepared(
    out: str | Path,
    dataset: str,
    labels: LabelSpec,
    items: Sequence[AnyItem] | Callable[[Path], Sequence[AnyItem]],
    convert: Callable[[AnyItem], Iterable[NewSample]],
    options: Options,
    settings: Mapping[str, object],
    unit: str = "images",
    each: Callable[..., Generator] = in_threads,
    scored_ids: Sequence[int] | None = None,
    notes: Notes | None = None,
) -> tuple[Prepared, bool]:
    """Convert the items and publish the prepared folder.

    Args:
        out: its place. New, empty, or a prepared folder of the same request (which is
            then left as it is).
        items: what to convert, already cut to `options.limit`. Or a function that finds
            them, where that takes long: called only if there is something to do, with
            the folder in the making, where it may leave some of `prepared.FILES`.
        convert: gives the samples of an item; DataError rejects the item. Picklable
            where `each` needs that.
        settings: JSON values: everything else that decides the result, and what
            identifies the raw data. A folder with an equal `request` is not redone.
        unit: what the items are, in the plural.
        each: a function of `keras_seg.data.workers`, which maps `convert`.
        scored_ids: the class ids that count in the evaluation, ascending; None is all.
        notes: what `items` notes of the raw data, for meta.json; its "refusal" is no
            note but what a refusal says of the items that have an `error` already.

    Returns:
        The opened folder, and whether it was written now.

    Raises:
        UsageError: `out` is a file, or holds something else.
        DataError: more bad items than `options.skip_bad` (`OUT.rejected.csv` lists
            them), an empty split, an id twice in a split, or no labelled pixel in
            train or val.
        LockedError: another process is preparing the same folder.
        StorageError: the disk is full or not writable.
    """
    out = Path(os.path.realpath(out))  # a link is followed
    rejected_file = out.with_name(f"{out.name}.rejected.csv")
    scored = {} if scored_ids is None else {"scored_ids": list(scored_ids)}
    size, limit = options.size, options.limit
    request = {"dataset": dataset, "size": size, "limit": limit, **scored, **settings}
    request = json.loads(json.dumps(request))  # as it is read back
    _check_rejected_file(rejected_file)
    with storage.publishing(out, partial(_check_place, options.overwrite)) as stage:
        if (out / META).exists() and not options.overwrite:
            stage.rmdir()  # there is nothing to publish
            return _open_equal(out, request, options.skip_bad), False
        rejected_file.unlink(missing_ok=True)
        if callable(items):
            items = items(stage)
        notes = {} if notes is None else notes
        refusal = notes.pop("refusal", None)
        total = len(items)
        bad = [item for item in items if getattr(item, "error", None) is not None]
        if len(bad) > options.skip_bad:  # the others need not be converted
            items = bad
        records: list[_Record] = []
        rejected: list[dict[str, str]] = []
        work = partial(_convert_one, stage, labels.num_classes, convert)
        results = each(work, items, options.workers)
        with (
            Progress(f"preparing {dataset}", len(items), unit) as progress,
            closing(results),
        ):
            # Results come in the items' order, whichever is finished first.
            for item, result in zip(items, results):
                progress.advance()
                if isinstance(result, DataError):
                    row = (item.split, item.id, str(result))
                    rejected.append(dict(zip(_REJECTED_FIELDS, row)))
                else:
                    records.extend(result)
        if len(rejected) > options.skip_bad:
            cells = [{k: _cell(text) for k, text in row.items()} for row in rejected]
            storage.write_table(rejected_file, cells)
            raise DataError(
                f"{refusal or rejected[0]['error']} In all {len(rejected)} of {total} "
                f"{unit} are bad; {rejected_file} lists them. Repair them, or leave "
                "them out with --skip-bad."
            )
        records.sort(key=sort_key)
        _check_splits(records, {"train", *(item.split for item in items)})
        counts = {
            split: count_pixels([r.pixels for r in records if r.split == split])
            for split in dict.fromkeys(record.split for record in records)
        }
        _check_labelled(counts)
        joints = _write_joints(stage, records)
        storage.write_table(stage / MANIFEST, [record.row for record in records])
        sizes = {record.size for record in records}
        meta = {
            "format_version": FORMAT_VERSION,
            "dataset": dataset,
            "classes": labels.names,
            "palette": labels.palette,
            "flip_pairs": labels.flip_pairs,
            **scored,
            "image_size": sizes.pop() if len(sizes) == 1 else None,
            "splits": counts,
            "joints": joints,
            **_all_notes(notes, records),
            "request": request,
            "command": options.command,
            "rejected": rejected,
        }
        text = json.dumps(meta, indent=1, ensure_ascii=False)
        storage.write_file(stage / META, f"{text}\n")
        storage.write_file(stage / SUMS, "".join(sum_lines(stage, joints).values()))
    return open_prepared(out), True


def _check_rejected_file(path: Path) -> None:
    """UsageError where the file of rejected items is somebody else's."""
    if not os.path.lexists(path):
        return
    header = ",".join(_REJECTED_FIELDS).encode() + b"\n"
    with path.open("rb") if path.is_file() else io.BytesIO() as file:
        if file.read(len(header)) != header or path.is_symlink():
            raise UsageError(
                f"{path} is in the way: bad items are listed in a file of that name, "
                "which keras_seg did not make. Move it, or name another --out."
            )


def _check_place(overwrite: bool, out: Path) -> None:
    """UsageError where something is at `out` that must stay."""
    there = next(place for place in (out, *out.parents) if place.exists())
    if not there.is_dir():
        raise UsageError(f"--out {out} cannot be a folder: {there} is a file.")
    if there != out or not storage.contents(out):
        return
    if not (out / META).is_file():
        raise UsageError(f"--out {out} holds other files. Name a new or empty folder.")
    if overwrite:
        # What is replaced may be damaged, but holds nothing that is not ours.
        try:
            foreign = foreign_entries(out)
        except DataError as error:
            raise UsageError(
                f"--overwrite replaces prepared folders only. {error} Remove it "
                "yourself, or name another --out."
            ) from None
        if foreign:
            raise UsageError(
                f"--overwrite replaces prepared folders only, and {out} also holds "
                f"{foreign[0]}. Move it elsewhere first."
            )


def _open_equal(out: Path, request: Mapping[str, Any], skip_bad: float) -> Prepared:
    """The prepared folder at `out`; UsageError where it is of another request."""
    prepared = open_prepared(out)
    there = prepared.meta["request"]
    for key, wanted in request.items():
        if there.get(key) == wanted:
            continue
        if key == "source":
            raise UsageError(f"{out} was prepared from other files. {_OTHERWISE}")
        raise UsageError(
            f"{out} was prepared with {key} {json.dumps(there.get(key))}, not "
            f"{json.dumps(wanted)}. {_OTHERWISE}"
        )
    left_out = len(prepared.meta["rejected"])
    if left_out > skip_bad:
        raise UsageError(
            f"{out} was prepared without {left_out} bad items; --skip-bad {skip_bad} "
            f"allows fewer. {_OTHERWISE}"
        )
    return prepared


def _convert_one(
    stage: Path,
    num_classes: int,
    convert: Callable[[AnyItem], Iterable[NewSample]],
    item: AnyItem,
) -> list[_Record] | DataError:
    try:
        encoded = [_encode(sample, num_classes) for sample in convert(item)]
    except DataError as error:
        return error
    # Only now: an item that turns out to be bad leaves no file.
    for _, files in encoded:
        for name, content in files.items():
            (stage / name).parent.mkdir(parents=True, exist_ok=True)
            (stage / name).write_bytes(content)
    return [record for record, _ in encoded]


def _encode(sample: NewSample, num_classes: int) -> tuple[_Record, dict[str, bytes]]:
    """The sample's record and {name: content} of its files; DataError if it is bad."""
    for text in (sample.split, sample.id):
        if not is_safe_id(text):
            raise DataError(f"The id {text!r} is not the name of a visible file.")
    if not sample.sequence.isprintable():
        raise DataError(f"The sequence {sample.sequence!r} of {sample.id} is no name.")
    label, image = sample.label, sample.image
    if label.dtype != np.uint8 or label.ndim != 2 or label.size == 0:
        raise DataError(
            f"Label {sample.id} is {label.dtype} {label.shape}, not uint8 [H, W]."
        )
    pixels = label_pixels(label, num_classes, f"{sample.split}/{sample.id}")
    if not isinstance(image, bytes):
        if image.dtype != np.uint8 or image.shape != (*label.shape, 3):
            raise DataError(
                f"Image {sample.id} is {image.dtype} {image.shape}, not uint8 RGB of "
                f"its label's size {label.shape}."
            )
        image = encode_png(image) if sample.format == "png" else encode_jpeg(image)
    (height, width), encoded_label = label.shape, encode_png(label)
    hashes = (hashlib.sha256(content).hexdigest() for content in (image, encoded_label))
    file = f"{sample.id}.{sample.format}"
    row = (sample.split, sample.id, file, *hashes, height, width, sample.sequence)
    row = dict(zip(MANIFEST_FIELDS, row, strict=True))
    size = height, width
    rest = sample.joints, sample.notes
    record = _Record(sample.split, sample.id, size, row, pixels, *rest)
    return record, {
        f"images/{sample.split}/{file}": image,
        f"labels/{sample.split}/{sample.id}.png": encoded_label,
    }


def _check_splits(records: Sequence[_Record], splits: Iterable[str]) -> None:
    """DataError where a split has no sample, or an id twice; records are sorted."""
    for split in sorted(splits):
        if not any(record.split == split for record in records):
            raise DataError(f"Split {split} is empty.")
    for one, other in zip(records, records[1:]):
        if sort_key(one) == sort_key(other):
            raise DataError(f"The id {one.split}/{one.id} is used more than once.")


def _check_labelled(counts: Mapping[str, Mapping[str, Any]]) -> None:
    """DataError where there is nothing to learn, or nothing to score."""
    for split in counts.keys() & {"train", "val"}:
        if not any(counts[split]["pixels"]):
            raise DataError(
                f"No pixel of split {split} is labelled: all are ignored (255) in all "
                f"of its {counts[split]['samples']} images. Check the masks' values."
            )


def _all_notes(notes: Notes, records: Sequence[_Record]) -> dict[str, Notes]:
    """The notes of the raw data and how many samples have which; {} without any."""
    counts = Counter(note for record in records for note in record.notes)
    found = {key: value for key, value in notes.items() if value} | dict(counts)
    return {"raw": dict(sorted(found.items()))} if found else {}


def _cell(text: str) -> str:
    """A cell of a table that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in tuple("=+-@\t\r") else text


def _write_joints(stage: Path, records: Sequence[_Record]) -> dict[str, str]:
    """joints/<split>.npz where the samples have joints; {split: hash}."""
    hashes = {}
    for split in dict.fromkeys(r.split for r in records if r.joints is not None):
        rows = [r.joints for r in records if r.split == split and r.joints is not None]
        joints = np.stack(rows).astype(np.float32)
        (stage / "joints").mkdir(exist_ok=True)
        np.savez(stage / "joints" / f"{split}.npz", joints=joints)
        hashes[split] = hash_joints(joints)
    return hashes
