"""Check that a prepared folder is what its preparation wrote, by every byte."""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from keras_seg import storage
from keras_seg.command_line import Progress
from keras_seg.data import files
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
    sum_lines,
)
from keras_seg.errors import DataError


def verify(folder: str | Path, workers: int = os.cpu_count() or 1) -> list[DataError]:
    """What is wrong: hashes, sizes, label ranges, pairs and class counts.

    Raises as `open_prepared` where it cannot be opened as a prepared folder at all.
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
        recorded = files.read_text(path)
        lines = sum_lines(prepared.folder, prepared.meta["joints"])
    except (OSError, ValueError) as error:
        yield DataError(f"{path} or a file it lists cannot be read: {error}.")
        return
    changed = [name for name, line in lines.items() if line not in recorded]
    for name in changed:
        yield DataError(f"{prepared.folder / name} differs from its SHA-256 in {SUMS}.")
    if not changed and recorded != "".join(lines.values()):
        yield DataError(f"{path} is not the SHA-256 of {', '.join(lines)}.")


def _unlisted(prepared: Prepared, samples: Sequence[Sample]) -> Iterator[DataError]:
    """Files that are not in the manifest."""
    known = {path for sample in samples for path in (sample.image, sample.label)}
    joints = prepared.folder / "joints"
    known |= {joints / f"{split}.npz" for split in prepared.meta["joints"]}
    for kind in ("images", "labels", "joints"):
        for path in sorted((prepared.folder / kind).rglob("*")):
            if path not in known and not path.is_dir():
                yield DataError(f"{path} is not in {MANIFEST}.")


def _check_sample(sample: Sample, num_classes: int) -> np.ndarray | DataError:
    """int64 [C + 1], from `label_pixels`; or what is wrong."""
    try:
        for path, recorded in (
            (sample.image, sample.image_sha256),
            (sample.label, sample.label_sha256),
        ):
            if storage.sha256(path) != recorded:
                raise DataError(f"{path} differs from its SHA-256 in {MANIFEST}.")
        label = read_label(sample.label)
        size = (sample.height, sample.width)
        for path, shape in (
            (sample.image, read_image(sample.image).shape[:2]),
            (sample.label, label.shape),
        ):
            if shape != size:
                raise DataError(f"{path} has size {shape}, in {MANIFEST} {size}.")
        return label_pixels(label, num_classes, sample.label)
    except OSError as error:
        return DataError(f"A file of {sample.id} cannot be read: {error}.")
    except DataError as error:
        return error


def _check_counts(
    prepared: Prepared, pixels: Mapping[str, Sequence[np.ndarray]]
) -> Iterator[DataError]:
    for split, rows in pixels.items():
        recorded = prepared.meta["splits"][split]
        for name, found in count_pixels(rows).items():
            if recorded[name] != found:
                yield DataError(
                    f"{split}.{name} in {prepared.folder / META} is {recorded[name]}, "
                    f"but {found} were counted."
                )
