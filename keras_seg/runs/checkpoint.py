"""Checkpoints that survive a kill: written whole or not at all, hashed, never in place.

A checkpoint is a folder ``step-00000200`` with ``arrays.npz`` and ``meta.json``; the
latter holds the SHA-256 of the former and of its own content. It is written under a
temporary name, synced and renamed, so a reader meets only whole ones; a damaged one is
skipped for the one before. (Keras' own .h5 loads with a flipped bit without a word.)
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_seg import storage
from keras_seg.command_line import note
from keras_seg.errors import StorageError, UsageError

ARRAYS = "arrays.npz"
FORMAT_VERSION = 2  # 1 had no hash of meta.json; it is read


def save(
    folder: Path,
    step: int,
    arrays: Mapping[str, np.ndarray],
    meta: Mapping,
    keep: int | None,
) -> Path:
    """Write checkpoint `step` into `folder`; the newest `keep` - 1 others remain.

    Args:
        folder: is made where it is missing.
        step: non-negative; its checkpoint is replaced if it exists.
        arrays: {name: array}, any shapes and numeric dtypes.
        meta: JSON values to store beside them.
        keep: how many checkpoints remain, at least 1; None keeps all.

    Returns:
        The checkpoint's folder.

    Raises:
        StorageError: the disk is full or not writable. Older checkpoints are intact
            and nothing temporary is left.
    """
    final = place(folder, step)
    size = sum(array.nbytes for array in arrays.values())
    with storage.new_folder(final, size) as new:
        named: dict[str, Any] = _named(arrays)
        np.savez(new / ARRAYS, **named)
        record = {
            "format": FORMAT_VERSION,
            "step": step,
            "sha256": storage.sha256(new / ARRAYS),
            "meta": meta,
        }
        record["record_sha256"] = storage.json_sha256(json.loads(json.dumps(record)))
        (new / "meta.json").write_text(json.dumps(record))
    if keep is not None:
        others = [other for other in steps(folder) if other != step]
        keep_only(folder, [step, *others[max(0, len(others) - (keep - 1)) :]])
    return final


def place(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is."""
    return folder / f"step-{step:08d}"


def keep_only(folder: Path, wanted: Iterable[int]) -> None:
    """Remove the checkpoints of all steps but `wanted`."""
    for step in set(steps(folder)) - set(wanted):
        storage.remove_folder(place(folder, step))


def drop_after(folder: Path, step: int) -> None:
    """Remove the checkpoints after `step`: damaged, or of a stretch run again."""
    keep_only(folder, [each for each in steps(folder) if each <= step])


def load(checkpoint: Path) -> tuple[dict[str, np.ndarray], dict]:
    """Read one checkpoint folder; `save`'s arrays and meta.

    Raises:
        ValueError: it is damaged; the message says how.
    """
    try:
        record = json.loads((checkpoint / "meta.json").read_text())
        if record["format"] not in (1, FORMAT_VERSION):
            raise ValueError(f"format {record['format']}")
        if record["format"] > 1:
            expected = record.pop("record_sha256")
            if storage.json_sha256(record) != expected:
                raise ValueError("its SHA-256 differs from that in meta.json")
        if storage.sha256(checkpoint / ARRAYS) != record["sha256"]:
            raise ValueError("SHA-256 of arrays.npz differs from meta.json")
        arrays = storage.read_arrays(checkpoint / ARRAYS)
        return {_unnamed(name): a for name, a in arrays.items()}, record["meta"]
    except (OSError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def load_newest(folder: Path) -> tuple[int, dict[str, np.ndarray], dict] | None:
    """The newest undamaged checkpoint as (step, arrays, meta); None if there is none.

    Damaged ones are named on stderr and skipped.

    Raises:
        StorageError: there are checkpoints, but every one is damaged.
    """
    found = steps(folder)
    for step in reversed(found):
        checkpoint = place(folder, step)
        try:
            return step, *load(checkpoint)
        except ValueError as error:
            note(f"warning: skipped {checkpoint}: {error}")
    if found:
        raise StorageError(
            f"All checkpoints in {folder} are damaged. Use --restart to train anew."
        )
    return None


def steps(folder: Path) -> list[int]:
    """The steps that have a checkpoint in `folder`, ascending; [] without one."""
    if not folder.is_dir():
        return []
    names = (entry.name for entry in folder.iterdir())
    return sorted(
        int(name[5:]) for name in names if name[:5] == "step-" and name[5:].isdigit()
    )


def named_arrays(variables: Sequence, group: str) -> dict[str, np.ndarray]:
    """{"group/0007/path": array}: position and path, since paths may repeat."""
    return {
        f"{group}/{position:04d}/{variable.path}": np.asarray(variable.value)
        for position, variable in enumerate(variables)
    }


def assign(variables: Sequence, arrays: Mapping[str, np.ndarray], group: str) -> None:
    """Set variables from `named_arrays` of the same model.

    Raises:
        StorageError: the arrays are of another model; the first mismatch is named.
    """
    mine = {name: a for name, a in arrays.items() if name.startswith(group + "/")}
    for position, variable in enumerate(variables):
        name = f"{group}/{position:04d}/{variable.path}"
        found = mine.get(name)
        if found is None or found.shape != tuple(variable.shape):
            what = "is missing" if found is None else f"has the shape {found.shape}"
            raise StorageError(
                f"The checkpoint is of another network: {name} {what}, not "
                f"{tuple(variable.shape)}."
            )
        variable.assign(found)
    if len(mine) != len(variables):
        raise StorageError(
            f"The checkpoint is of another network: it has {len(mine)} arrays of the "
            f"{group}, not {len(variables)}."
        )


def assign_by_name(
    variables: Sequence,
    arrays: Mapping[str, np.ndarray],
    classes: tuple[int, int],
    place: Path,
) -> list[str]:
    """Set weights from `named_arrays` of a model that may be of other classes.

    Args:
        variables: a model's weights.
        arrays: of the other model.
        classes: the number of classes of the other model, and of this one.
        place: where the arrays are from.

    Returns:
        Paths of the weights that depend on the number of classes, where that differs:
        they keep their initial values.

    Raises:
        UsageError: another weight is missing or has another shape; it is named, and
            nothing was set.
    """
    found = {name.split("/", 2)[2]: array for name, array in arrays.items()}
    values, fresh = [], []
    for variable in variables:
        array, shape = found.get(variable.path), tuple(variable.shape)
        if array is not None and array.shape == shape:
            values.append((variable, array))
        elif array is not None and _differs_by(array.shape, shape, classes):
            fresh.append(variable.path)
        else:
            what = "is missing" if array is None else f"has the shape {array.shape}"
            raise UsageError(
                f"The weights in {place} are of another network, width or option: "
                f"{variable.path} {what}, not {shape}."
            )
    for variable, array in values:
        variable.assign(array)
    return fresh


def _differs_by(
    old: Sequence[int], new: Sequence[int], classes: tuple[int, int]
) -> bool:
    """Whether shapes are equal but for the number of classes."""
    pairs = list(zip(old, new))
    return len(old) == len(new) and all(a == b or (a, b) == classes for a, b in pairs)


def _named(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    # As the name of a zip member, "a/../b" would be a path for whoever unpacks it.
    return {name.replace("/", "|"): array for name, array in arrays.items()}


def _unnamed(name: str) -> str:
    return name.replace("|", "/")
