"""Is a prepared folder what its preparation wrote? Every byte of it is read."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from keras_seg.command_line import Progress
from keras_seg.data.prepared import (
    MANIFEST,
    META,
    SUMS,
    Prepared,
    Sample,
    count_pixels,
    label_pixels,
    open_prepared,
    read_image,
    read_label,
    sha256,
    sum_lines,
)
from keras_seg.errors import DataError


def verify(folder: str | Path, workers: int = os.cpu_count() or 1) -> list[DataError]:
    """Checks hashes, sizes, label ranges, pairs and class counts.

    Returns:
        What is wrong, each naming its file; empty where all is well.

    Raises:
        UsageError: no such folder.
        DataError: it cannot be opened as a prepared folder at all.
    """
    prepared = open_prepared(folder)
    samples = [s for split in prepared.splits for s in prepared.samples(split)]
    problems = [*_check_sums(prepared), *_unlisted(prepared, samples)]
    num_classes = prepared.labels.num_classes
    pixels: dict[str, list[np.ndarray]] = {split: [] for split in prepared.splits}
    with (
        Progress("verifying", len(samples)) as progress,
        ThreadPoolExecutor(workers) as pool,
    ):
        for sample, result in zip(
            samples, pool.map(lambda s: _check_sample(s, num_classes), samples)
        ):
            progress.advance()
            if isinstance(result, DataError):
                problems.append(result)
            else:
                pixels[sample.split].append(result)
    if not problems:  # else the counts differ anyway
        problems += _check_counts(prepared, pixels)
    return problems


def _check_sums(prepared: Prepared) -> Iterator[DataError]:
    path = prepared.folder / SUMS
    try:
        recorded = path.read_bytes().decode("utf-8")
    except (OSError, ValueError) as error:
        yield DataError(path, f"unreadable ({error})", "the file as prepared")
        return
    lines = sum_lines(prepared.folder, prepared.meta["joints"])
    changed = [name for name, line in lines.items() if line not in recorded]
    for name in changed:
        yield DataError(prepared.folder / name, "changed", f"the SHA-256 in {SUMS}")
    if not changed and recorded != "".join(lines.values()):
        yield DataError(path, "changed", f"the SHA-256 of {', '.join(lines)}")


def _unlisted(prepared: Prepared, samples: list[Sample]) -> Iterator[DataError]:
    """Files that the manifest does not know."""
    known = {path for sample in samples for path in (sample.image, sample.label)}
    known |= {
        prepared.folder / "joints" / f"{split}.npz" for split in prepared.meta["joints"]
    }
    for kind in ("images", "labels", "joints"):
        for path in sorted((prepared.folder / kind).rglob("*")):
            if path not in known and not path.is_dir():
                yield DataError(path, f"not in {MANIFEST}", "only listed files")


def _check_sample(sample: Sample, num_classes: int) -> np.ndarray | DataError:
    """int64 [C + 1], as `label_pixels` gives it; or what is wrong."""
    try:
        for path, recorded in (
            (sample.image, sample.image_sha256),
            (sample.label, sample.label_sha256),
        ):
            if sha256(path) != recorded:
                raise DataError(path, "changed", f"the SHA-256 in {MANIFEST}")
        label = read_label(sample.label)
        size = (sample.height, sample.width)
        for path, shape in (
            (sample.image, read_image(sample.image).shape[:2]),
            (sample.label, label.shape),
        ):
            if shape != size:
                raise DataError(path, f"size {shape}", f"{size} as in {MANIFEST}")
        return label_pixels(label, num_classes, sample.label)
    except DataError as error:
        return error


def _check_counts(prepared: Prepared, pixels) -> Iterator[DataError]:
    for split, rows in pixels.items():
        recorded = prepared.meta["splits"][split]
        for name, found in count_pixels(rows).items():
            if recorded[name] != found:
                place = f"{prepared.folder / META}: {split}.{name}"
                yield DataError(place, recorded[name], f"{found}, counted")
