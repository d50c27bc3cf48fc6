"""The run folder: what lies in it, how it is read, and whose run it is.

Files: config.json (the identity: configuration and data), environment.json,
history.csv, timing.csv, metrics.json (written last: the run is finished),
failure.json (why the last sitting ended early), checkpoints/, best/, curves.png,
samples.png, samples.npz, per_image.npz (what each image adds to the scores of each
class), log.txt; evaluation/ has the like of metrics.json and per_image.npz for other
splits and sizes. Knows neither Keras nor TensorFlow.
"""

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_seg import storage
from keras_seg.config import Config, to_dict
from keras_seg.data.prepared import Prepared
from keras_seg.errors import KerasSegError, StorageError, UsageError
from keras_seg.runs import checkpoint

FORMAT_VERSION = 1
# What a run leaves beside its log; metrics.json says that the rest is whole.
ENTRIES = ("metrics.json", "config.json", "environment.json", "history.csv")
ENTRIES += ("timing.csv", "failure.json", "wanted.json", "curves.png", "samples.png")
ENTRIES += ("samples.npz", "per_image.npz", "checkpoints", "best", "evaluation")
ENTRIES += ("tensorboard", "export")


@dataclass(frozen=True)
class PerImage:
    """What each image of a split adds to the scores of each class.

    IoU = sum of intersection / sum of (truth + predicted - intersection) over images.

    Attributes:
        ids: names of the N images, in the order of the split.
        intersection, truth, predicted: int64 [N, C], pixels; those whose true class
            is not scored are left out, as `keras_seg.metrics.summary` does.
    """

    ids: tuple[str, ...]
    intersection: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray


def identity(config: Config, prepared: Prepared) -> dict:
    """What makes a run itself: runs with equal identity are equal to the bit."""
    return {
        "format": FORMAT_VERSION,
        "config": to_dict(config),  # plain JSON values
        "data": {
            "dataset": prepared.dataset,
            "classes": list(prepared.labels.names),
            "manifest": prepared.manifest_hash,
        },
    }


def refuse_another_identity(run: Path, wanted: Mapping) -> None:
    """Nothing if `run` is new or has this identity.

    Raises:
        UsageError: it has another; the first setting that differs is named.
        StorageError: its config.json is damaged.
    """
    path = run / "config.json"
    if not path.is_file():
        if (run / "metrics.json").is_file():
            raise StorageError(
                str(path), "missing", "it beside metrics.json; --restart"
            )
        return
    for key, (old, new) in differences(storage.read_json(path), _as_json(wanted)):
        name = key.removeprefix("config.")
        raise UsageError(
            f"setting {name}", new, f"{old} as in {path}; or another --out or --restart"
        )


def same(run: Path, wanted: Mapping) -> bool:
    """Whether the run in this folder has this identity."""
    path = run / "config.json"
    return path.is_file() and storage.read_json(path) == _as_json(wanted)


def differences(old, new, prefix: str = "") -> Iterator[tuple[str, tuple]]:
    """(dotted key, (old value, new value)) of all that differs, in key order."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted(old.keys() | new.keys()):
            yield from differences(old.get(key), new.get(key), f"{prefix}{key}.")
    elif old != new:
        yield prefix.rstrip("."), (old, new)


def forget(run: Path) -> None:
    """Drop a run so that it begins anew; its log and what is not its own are kept."""
    for entry in (run / name for name in ENTRIES):
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)


def drop_checkpoints(run: Path) -> None:
    """Drop what a finished run could have gone on from; its best weights are kept."""
    shutil.rmtree(run / "checkpoints", ignore_errors=True)


def read_metrics(run: Path) -> dict | None:
    """metrics.json of a finished run; None while it is not finished."""
    path = run / "metrics.json"
    return storage.read_json(path) if path.is_file() else None


def evaluation_file(run: Path, split: str, full_size: bool = False) -> Path:
    """Where a run's scores on a split lie, at its own size or at the labels'."""
    return run / "evaluation" / f"{split}{'-full-size' if full_size else ''}.json"


def read_evaluation(run: Path, split: str, full_size: bool = False) -> dict | None:
    """The scores of a run on a split; None where it was not scored so."""
    path = evaluation_file(run, split, full_size)
    return storage.read_json(path) if path.is_file() else None


def per_image_file(run: Path, split: str | None, full_size: bool = False) -> Path:
    """Where the counts per image lie: of metrics.json (None), or of an evaluation."""
    if split is None:
        return run / "per_image.npz"
    scores = evaluation_file(run, split, full_size)
    return scores.with_name(f"{scores.stem}-per-image.npz")


def write_per_image(path: Path, counts: PerImage) -> None:
    """Write counts per image; equal counts make equal files."""
    arrays = {name: getattr(counts, name) for name in _COUNTS}
    dtype = np.min_scalar_type(max(array.max() for array in arrays.values()))
    arrays = {name: array.astype(dtype) for name, array in arrays.items()}
    storage.write_arrays(path, {"ids": np.array(counts.ids)} | arrays)


def read_per_image(
    run: Path, split: str | None = None, full_size: bool = False
) -> PerImage | None:
    """Counts per image, as of `per_image_file`; None where the run has none.

    Raises:
        StorageError: the file is damaged.
    """
    path = per_image_file(run, split, full_size)
    if not path.is_file():
        return None
    with storage.damage_named(path, "It holds no counts per image."):
        try:
            arrays = storage.read_arrays(path)
        except OSError as error:  # a spoilt archive may point before its beginning
            raise ValueError(str(error)) from error
        ids = arrays["ids"]
        counts = [arrays[name] for name in _COUNTS]
        if ids.ndim != 1 or ids.dtype.kind != "U":
            raise ValueError("ids")
        for count in counts:
            if count.ndim != 2 or count.shape != (len(ids), counts[0].shape[1]):
                raise ValueError("shape")
            if count.dtype.kind != "u" or count.dtype.itemsize > 4:
                raise ValueError("dtype")
        counts = [count.astype(np.int64) for count in counts]
        intersection, truth, predicted = counts
        if (intersection > np.minimum(truth, predicted)).any():
            raise ValueError("intersection")
        return PerImage(tuple(ids.tolist()), *counts)


_COUNTS = ("intersection", "truth", "predicted")


def read_history(run: Path) -> list[dict[str, float]]:
    """The lines of history.csv as numbers, empty fields as NaN; [] without one."""
    path = run / "history.csv"
    if not path.is_file():
        return []
    with storage.damage_named(path, "It is no table of numbers."):
        return [
            {key: float(value) if value else math.nan for key, value in row.items()}
            for row in storage.read_table(path)
        ]


def read_timing(run: Path) -> dict[str, float]:
    """{name: value} of timing.csv; {} without one."""
    path = run / "timing.csv"
    if not path.is_file():
        return {}
    with storage.damage_named(path, "It is no table of values."):
        return {row["name"]: float(row["value"]) for row in storage.read_table(path)}


def read_failure(run: Path) -> str:
    """Why the last sitting of a run ended early, in one line; "" if it did not."""
    path = run / "failure.json"
    return str(storage.read_json(path).get("reason")) if path.is_file() else ""


def read_environment(run: Path) -> dict:
    """environment.json: fingerprint, commit, command and where the data lay."""
    path = run / "environment.json"
    if not path.is_file():
        raise UsageError("run", run, "a run folder with environment.json")
    return storage.read_json(path)


def load_best(run: Path) -> tuple[dict[str, np.ndarray], dict]:
    """The best checkpoint: arrays "model/..." and the run's identity.

    Raises:
        UsageError: the folder holds no run with a best checkpoint.
        StorageError: it is damaged.
    """
    newest = checkpoint.load_newest(run / "best")
    if newest is None:
        raise UsageError("run", run, "a run folder with a best checkpoint")
    _, arrays, wanted = newest
    return arrays, wanted


def write_failure(run: Path, error: Exception) -> None:
    """Leave the reason of an early end in the run folder, if the disk lets us."""
    exit_code = getattr(error, "exit_code", KerasSegError.exit_code)
    reason = str(error) or type(error).__name__
    try:
        storage.write_json(
            run / "failure.json", {"exit_code": exit_code, "reason": reason}
        )
    except StorageError:
        pass  # the disk is what failed, and the reason is on stderr


def _as_json(value):
    return json.loads(json.dumps(value))
