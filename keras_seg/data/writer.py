"""Writes a prepared folder: staged beside its place, renamed when whole.

Whatever happens on the way (a bad file, Ctrl-C, SIGKILL, a full disk), the place
itself holds nothing, or what it held before. The result does not depend on the number
of workers: each sample's files are a function of the sample, and the manifest is
sorted.
"""

import csv
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from keras_seg.command_line import Progress
from keras_seg.data.images import encode_jpeg, encode_png
from keras_seg.data.prepared import (
    ENTRIES,
    FORMAT_VERSION,
    MANIFEST,
    MANIFEST_FIELDS,
    META,
    SUMS,
    Prepared,
    count_pixels,
    hash_joints,
    is_safe_id,
    label_pixels,
    open_prepared,
    read_meta,
    sort_key,
    sum_lines,
)
from keras_seg.data.workers import in_threads
from keras_seg.errors import DataError, LockedError, UsageError
from keras_seg.labels import LabelSpec

_REPLACED = "a prepared folder with nothing else in it to --overwrite"


@dataclass(frozen=True)
class Options:
    """What every preparation can be told.

    Attributes:
        size: (height, width) every image is resized to; None keeps each as it is.
        limit: the first so many samples of each split; None is all.
        workers: threads or processes that convert; never changes the result.
        skip_bad: so many bad items are left out; more refuse the whole.
        overwrite: replace a prepared folder that was made by another command.
        command: the command line, for meta.json.
    """

    size: tuple[int, int] | None = None
    limit: int | None = None
    workers: int = os.cpu_count() or 1
    skip_bad: float = 0  # infinity: any number
    overwrite: bool = False
    command: str = ""


class Item(Protocol):
    """What is converted: one raw sample or one clip of them."""

    split: str
    id: str


@dataclass(frozen=True)
class NewSample:
    """One sample of a prepared folder, before it is written.

    Attributes:
        split: train, val, test or another name.
        id: str, unique in its split; the files' name.
        image: uint8 RGB [H, W, 3], or bytes: a whole PNG or JPEG file of that size.
        label: class ids uint8 [H, W], 255 = ignore.
        format: "png" or "jpg", the image's file.
        joints: float32 [J, 2], x and y in pixels, or None.
        sequence: as of `prepared.Sample`.
    """

    split: str
    id: str
    image: np.ndarray | bytes
    label: np.ndarray
    format: str = "png"
    joints: np.ndarray | None = None
    sequence: str = ""


@dataclass(frozen=True)
class _Record:
    """What is kept of a sample that was written."""

    split: str
    id: str
    image: str  # file name
    image_sha256: str
    label_sha256: str
    height: int
    width: int
    pixels: np.ndarray  # int64 [C + 1], as label_pixels gives it
    joints: np.ndarray | None
    sequence: str


def write_prepared(
    out: str | Path,
    dataset: str,
    labels: LabelSpec,
    items: Sequence[Item] | Callable[[Path], Sequence[Item]],
    convert: Callable[[Item], Iterable[NewSample]],
    options: Options,
    settings: Mapping[str, object],
    unit: str = "images",
    each: Callable[..., Iterator] = in_threads,
    scored_ids: Sequence[int] | None = None,
) -> tuple[Prepared, bool]:
    """Converts the items and publishes the prepared folder.

    Args:
        out: where it is to lie. New, empty, or a prepared folder of the same request
            (which is then left as it is).
        dataset: its name.
        labels: its classes.
        items: what to convert, whole splits (`options.limit` is the caller's). Or a
            function that finds out, for datasets where that takes long: called only
            if there is something to do, with the folder as it is being made, where
            it may leave files of its own (those that `prepared.ENTRIES` names).
        convert: gives the samples of an item; DataError rejects the item. Picklable
            where `each` needs that.
        options: see Options.
        settings: JSON values: everything else that decides the result, and what
            identifies the raw data. A folder with an equal `request` is not redone.
        unit: what the items are, in the plural.
        each: how the items are gone through, a function of `keras_seg.data.workers`.
        scored_ids: the class ids that count in the evaluation, ascending; None is all.

    Returns:
        The opened folder, and whether it was written now.

    Raises:
        UsageError: `out` is a file, or holds something else.
        DataError: more bad items than `options.skip_bad` (`OUT.rejected.csv` lists
            them), an empty split, or an id twice in a split.
        LockedError: another process prepares the same folder.
    """
    out = Path(os.path.abspath(out))
    scored = {} if scored_ids is None else {"scored_ids": list(scored_ids)}
    request = {
        "dataset": dataset,
        "size": None if options.size is None else list(options.size),
        "limit": options.limit,
        **scored,
        **settings,
    }
    request = json.loads(json.dumps(request))  # as it is read back
    with _staging(out) as stage:
        done = _existing(out, request, options)
        if done is not None:
            return done, False
        rejected_file = out.with_name(f"{out.name}.rejected.csv")
        rejected_file.unlink(missing_ok=True)
        if callable(items):
            items = items(stage)
        records, rejected = _convert_all(
            stage,
            items,
            convert,
            labels.num_classes,
            options,
            f"preparing {dataset}",
            unit,
            each,
        )
        _refuse_rejected(rejected, len(items), rejected_file, options.skip_bad)
        records.sort(key=sort_key)
        _refuse_empty_splits(records, {item.split for item in items})
        _refuse_duplicates(records)
        if rejected:
            _remove_unlisted(stage, records)
        joints = _write_joints(stage, records)
        _write_manifest(stage / MANIFEST, records)
        meta = {
            "format_version": FORMAT_VERSION,
            "dataset": dataset,
            "classes": labels.names,
            "palette": labels.palette,
            "flip_pairs": labels.flip_pairs,
            **scored,
            "image_size": _common_size(records),
            "splits": {
                split: count_pixels([r.pixels for r in records if r.split == split])
                for split in dict.fromkeys(record.split for record in records)
            },
            "joints": joints,
            "request": request,
            "command": options.command,
            "rejected": rejected,
        }
        _write_json(stage / META, meta)
        sums = "".join(sum_lines(stage, joints).values())
        (stage / SUMS).write_text(sums, encoding="utf-8")
        _publish(stage, out)
    return open_prepared(out), True


def _existing(out: Path, request: dict, options: Options) -> Prepared | None:
    """The prepared folder that is already there; None where there is room."""
    if out.is_dir() and any(out.iterdir()):
        if not (out / META).is_file():
            raise UsageError("--out", out, "a new or empty folder")
        if options.overwrite:
            _refuse_foreign(out)
            return None
        prepared = open_prepared(out)
        _refuse_other_request(out, prepared.meta["request"], request)
        left_out = len(prepared.meta["rejected"])
        if left_out > options.skip_bad:
            raise UsageError(
                "--skip-bad",
                options.skip_bad,
                f"{left_out}: so many are left out there",
            )
        return prepared
    return None


def _refuse_foreign(out: Path) -> None:
    """What is replaced may be damaged, but holds nothing that is not ours."""
    try:
        read_meta(out)
    except DataError as error:
        raise UsageError("--out", f"{error.what}: {error.found}", _REPLACED) from None
    if foreign := sorted({path.name for path in out.iterdir()} - ENTRIES):
        raise UsageError("--out", f"{out} holds {foreign[0]}", _REPLACED)


def _refuse_other_request(out: Path, there: Mapping, wanted: Mapping) -> None:
    ways = "another --out, or --overwrite"
    for key in wanted:
        if there.get(key) == wanted[key]:
            continue
        if key == "source":
            raise UsageError("--out", f"{out} was prepared from other files", ways)
        raise UsageError(
            "--out",
            f"{out} was prepared with {key} {json.dumps(there.get(key))}",
            f"{key} {json.dumps(wanted[key])}, {ways}",
        )


@contextmanager
def _staging(out: Path):
    """An empty folder beside `out`, ours alone, gone afterwards.

    What a killed run left there is swept. The lock is held by the process, so it
    ends with it.
    """
    if out.exists() and not out.is_dir():
        raise UsageError("--out", f"{out} is a file", "a new or empty folder")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UsageError(
            "--out", f"{out} lies under a file", "a new or empty folder"
        ) from None
    lock_path = out.with_name(f".{out.name}.lock")
    stage, old = _stage_of(out), _old_of(out)
    with lock_path.open("w") as lock:
        if not _lock(lock, lock_path):
            raise LockedError(
                "--out", f"{out} is being prepared by another process", "to wait for it"
            )
        try:
            if old.exists() and not out.exists():  # killed between two renames
                old.rename(out)
            for leftover in (stage, old):
                shutil.rmtree(leftover, ignore_errors=True)
            stage.mkdir()
            yield stage
        finally:
            shutil.rmtree(stage, ignore_errors=True)
            lock_path.unlink(missing_ok=True)


def _lock(file, path: Path) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The one before us removes its lock file: ours must still be the one there.
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except (BlockingIOError, FileNotFoundError):
        return False


def _stage_of(out: Path) -> Path:
    return out.with_name(f".{out.name}.partial")


def _old_of(out: Path) -> Path:
    return out.with_name(f".{out.name}.old")


def _publish(stage: Path, out: Path) -> None:
    if (out / META).exists():  # --overwrite
        _refuse_foreign(out)  # again: the work may have taken hours
        out.rename(_old_of(out))
    stage.rename(out)
    shutil.rmtree(_old_of(out), ignore_errors=True)


def _convert_all(stage, items, convert, num_classes, options, what, unit, each):
    """The records of the good items, and for each bad one a line of the list."""
    records: list[_Record] = []
    rejected: list[dict] = []
    work = partial(_convert_one, stage, num_classes, convert)
    results = each(work, items, options.workers)
    with Progress(what, len(items), unit) as progress, closing(results):
        # Results come in the items' order, whoever finishes first.
        for item, result in zip(items, results):
            progress.advance()
            if isinstance(result, DataError):
                rejected.append(
                    {
                        "split": item.split,
                        "id": item.id,
                        "file": str(result.what),
                        "found": str(result.found),
                        "expected": result.expected,
                    }
                )
            else:
                records.extend(result)
    return records, rejected


def _convert_one(
    stage: Path, num_classes: int, convert, item
) -> list[_Record] | DataError:
    try:
        return [_write_sample(stage, num_classes, sample) for sample in convert(item)]
    except DataError as error:
        return error


def _write_sample(stage: Path, num_classes: int, sample: NewSample) -> _Record:
    for text in (sample.split, sample.id):
        if not is_safe_id(text):
            raise DataError("id", repr(text), "a file's name, without / and not hidden")
    if not sample.sequence.isprintable():
        raise DataError(f"sequence of {sample.id}", repr(sample.sequence), "a name")
    label = sample.label
    if label.dtype != np.uint8 or label.ndim != 2 or label.size == 0:
        raise DataError(sample.id, f"label {label.dtype} {label.shape}", "uint8 [H, W]")
    pixels = label_pixels(label, num_classes, f"{sample.split}/{sample.id}")
    image = sample.image
    if not isinstance(image, bytes):
        if image.dtype != np.uint8 or image.shape != (*label.shape, 3):
            raise DataError(
                sample.id,
                f"image {image.dtype} {image.shape}",
                "uint8 RGB as the label",
            )
        image = encode_png(image) if sample.format == "png" else encode_jpeg(image)
    encoded_label = encode_png(label)
    image_name = f"{sample.id}.{sample.format}"
    for kind, name, content in (
        ("images", image_name, image),
        ("labels", f"{sample.id}.png", encoded_label),
    ):
        folder = stage / kind / sample.split
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return _Record(
        split=sample.split,
        id=sample.id,
        image=image_name,
        image_sha256=hashlib.sha256(image).hexdigest(),
        label_sha256=hashlib.sha256(encoded_label).hexdigest(),
        height=label.shape[0],
        width=label.shape[1],
        pixels=pixels,
        joints=sample.joints,
        sequence=sample.sequence,
    )


def _refuse_rejected(rejected, total, file: Path, skip_bad: float) -> None:
    if len(rejected) <= skip_bad:
        return
    with file.open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(
            stream, ("split", "id", "file", "found", "expected"), lineterminator="\n"
        )
        table.writeheader()
        table.writerows(rejected)
    first = rejected[0]
    count = f"{len(rejected)} of {total} bad, listed in {file}"
    if skip_bad:
        count += f"; --skip-bad {skip_bad}"
    raise DataError(first["file"], f"{first['found']} ({count})", first["expected"])


def _refuse_empty_splits(records: Sequence[_Record], splits: set[str]) -> None:
    for split in sorted(splits | {"train"}):
        if not any(record.split == split for record in records):
            raise DataError("split", f"{split} is empty", "at least one sample")


def _refuse_duplicates(records: Sequence[_Record]) -> None:
    for one, other in zip(records, records[1:]):
        if sort_key(one) == sort_key(other):
            raise DataError("id", f"{one.split}/{one.id} twice", "unique ids")


def _remove_unlisted(stage: Path, records: Sequence[_Record]) -> None:
    """A bad item may have written some of its samples before it failed."""
    listed = {stage / "images" / r.split / r.image for r in records}
    listed |= {stage / "labels" / r.split / f"{r.id}.png" for r in records}
    for kind in ("images", "labels"):
        for path in (stage / kind).rglob("*"):
            if path.is_file() and path not in listed:
                path.unlink()


def _common_size(records: Sequence[_Record]) -> tuple[int, int] | None:
    sizes = {(record.height, record.width) for record in records}
    return sizes.pop() if len(sizes) == 1 else None


def _write_joints(stage: Path, records: Sequence[_Record]) -> dict[str, str]:
    """joints/<split>.npz where the samples have joints; {split: hash}."""
    hashes = {}
    for split in dict.fromkeys(r.split for r in records if r.joints is not None):
        joints = np.stack([r.joints for r in records if r.split == split])
        joints = joints.astype(np.float32)
        (stage / "joints").mkdir(exist_ok=True)
        np.savez(stage / "joints" / f"{split}.npz", joints=joints)
        hashes[split] = hash_joints(joints)
    return hashes


def _write_manifest(path: Path, records: Sequence[_Record]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(MANIFEST_FIELDS)
        for record in records:
            table.writerow([getattr(record, name) for name in MANIFEST_FIELDS])


def _write_json(path: Path, values: Mapping[str, object]) -> None:
    text = json.dumps(values, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
