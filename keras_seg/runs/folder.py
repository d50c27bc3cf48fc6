"""The run folder: what is in it, how it is read, and which run it belongs to.

Files: config.json (the identity: configuration and data), environment.json, labels.json
(classes and colours), history.csv, timing.csv, metrics.json (written last: finished),
failure.json (why the last session ended early), checkpoints/ (of a finished run its
last state), best/, curves.png, samples.png, samples.npz, predictions.npz (of validation
images), per_image.npz (what each image adds to the scores of each class), validations/
(the same of the best validations), log.txt; evaluation/ has the like of metrics.json,
per_image.npz and the samples for other splits and sizes. Knows neither Keras nor
TensorFlow.
"""

import functools
import json
import math
import shutil
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from keras_seg import backend, storage
from keras_seg.config import Config, from_dict, to_dict
from keras_seg.data import folds
from keras_seg.data.prepared import Prepared, open_prepared
from keras_seg.errors import KerasSegError, LockedError, StorageError, UsageError
from keras_seg.labels import LabelSpec
from keras_seg.runs import checkpoint

PREDICTIONS, WINNER = "predictions.npz", "winner.json"
MOST_SEEDS = 10_000  # more in a file are no number of seeds
FORMAT_VERSION = 2  # of the identity; 1 had a configuration without parts
# What a run leaves beside its log; metrics.json says that the rest is whole.
ENTRIES = ("metrics.json", "config.json", "environment.json", "history.csv")
ENTRIES += ("labels.json",)
ENTRIES += ("timing.csv", "failure.json", "wanted.json", "curves.png", "samples.png")
ENTRIES += (
    "samples.npz",
    PREDICTIONS,
    "per_image.npz",
    "checkpoints",
    "best",
    "evaluation",
)
ENTRIES += ("tensorboard", "export", "validations")


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


# The identity


def identity(config: Config, prepared: Prepared) -> dict[str, Any]:
    """What makes a run itself: runs with equal identity are equal to the bit.

    Whether mirroring exchanges left and right is in it as it is on these data.
    """
    values = to_dict(config)  # plain JSON values
    augment = values["augment"]
    if augment["swap_lr"] is None:
        augment["swap_lr"] = augment["mirror"] > 0 and bool(prepared.labels.flip_pairs)
    data = {
        "dataset": prepared.dataset,
        "classes": list(prepared.labels.names),
        "manifest": prepared.manifest_hash,
    }
    divided = folds.divide(prepared, config.data.folds, config.data.fold)
    if isinstance(divided, folds.Fold):  # which follows from the sequences as well
        data["held_out"] = divided.held_out
    return {"format": FORMAT_VERSION, "config": values, "data": data}


def as_trained(prepared: Prepared, identity: Mapping[str, Any]) -> Prepared:
    """The data as the run of this identity had them; others as they are."""
    if prepared.manifest_hash != identity["data"]["manifest"]:
        return prepared
    settings = from_dict(identity["config"]).data
    return folds.divide(prepared, settings.folds, settings.fold)


def own_data(run: Path, identity: Mapping[str, Any]) -> Prepared | None:
    """The data of a run as it had them; None where they are no longer there."""
    place = read_environment(run).get("data", "")
    try:
        prepared = open_prepared(place)
    except KerasSegError:
        return None
    is_same = prepared.manifest_hash == identity["data"]["manifest"]
    return as_trained(prepared, identity) if is_same else None


def as_extended(config: Config, prepared: Prepared, run: Path) -> Config:
    """The configuration with what the run in a folder, as long, was extended by."""
    if not (run / "config.json").is_file():
        return config
    found = read_identity(run)
    differing = dict(differences(found, identity(config, prepared)))
    if differing.keys() != {"config.extended"}:
        return config
    return config.changed(extended=from_dict(found["config"]).extended)


def shorter(config: Config, prepared: Prepared, run: Path) -> Config | None:
    """The configuration of the run in a folder if it is this one with fewer steps."""
    if not (run / "config.json").is_file():
        return None
    found = read_identity(run)
    differing = dict(differences(found, identity(config, prepared)))
    old = from_dict(found["config"])
    is_length = differing.keys() <= {"config.steps", "config.extended"}
    return old if is_length and old.steps < config.steps else None


def read_identity(run: Path) -> dict[str, Any]:
    """The identity of the run in a folder, in the current format.

    Raises:
        StorageError: its config.json is damaged, or of a later format.
    """
    path = run / "config.json"
    return current_identity(storage.read_json(path), path)


def current_identity(
    found: Mapping[str, Any], place: Path, way_out: str = storage.RESTART
) -> dict[str, Any]:
    """An identity of any format in the current one.

    Args:
        found: the identity.
        place: where it was found.
        way_out: ends the message where it is damaged.

    Raises:
        StorageError: it is damaged, or of a later format.
    """
    version = found.get("format")
    if version not in (1, FORMAT_VERSION):
        raise StorageError(
            f"{place} has the format {version!r}, but this version of keras_seg reads "
            f"1 to {FORMAT_VERSION}. Use a later version, or another run folder."
        )
    with storage.damage_named(place, "It is not the identity of a run.", way_out):
        config = json.loads(_current_config(json.dumps(found["config"])))
        for key, kind in _DATA.items():
            if not isinstance(found["data"][key], kind):
                raise ValueError(key)
    return {**found, "format": FORMAT_VERSION, "config": config}


_DATA = {"dataset": str, "classes": list, "manifest": str}


@functools.lru_cache(1024)  # a stage compares each of its runs with all others
def _current_config(text: str) -> str:
    """JSON in, JSON out: nobody can change what is kept."""
    written = json.loads(text)
    config = to_dict(from_dict(written))  # with settings added since
    config["augment"]["swap_lr"] = bool(config["augment"]["swap_lr"])
    validation = config["validation"]
    if validation["samples"] is not None:
        if "choice" not in written.get("validation", {}):
            validation["choice"] = "first"  # before there was a choice
    return json.dumps(config)


def check_identity(run: Path, wanted: Mapping[str, Any]) -> None:
    """Check that `run` is new or has this identity.

    Raises:
        UsageError: it has another; the first setting that differs is named. Or it has
            files with the names of a run's that are not ours.
        StorageError: its config.json is damaged.
    """
    check_no_foreign_files(run)
    path = run / "config.json"
    if path.is_file():
        check_same(storage.read_json(path), wanted, path)


def check_no_foreign_files(run: Path) -> None:
    """UsageError where files would be replaced or removed that no run wrote.

    A run writes config.json before anything else that it keeps.
    """
    path = run / "config.json"
    if path.is_file():
        try:
            is_ours = {"format", "config", "data"} <= storage.read_json(path).keys()
        except StorageError:  # damaged; the file beside it tells
            is_ours = (run / "environment.json").is_file()
        found = [] if is_ours else [path.name]
    else:
        before_it = ("wanted.json", "failure.json")  # of an arm that was refused
        names = [name for name in ENTRIES if name not in before_it]
        found = [name for name in names if (run / name).exists()]
    if found:
        raise UsageError(
            f"{run} holds {found[0]}, but no run of this project: nothing there is "
            "replaced or removed. Name another folder."
        )


def check_same(
    found: Mapping[str, Any],
    wanted: Mapping[str, Any],
    place: Path,
    way_out: str = "Name another --out, or use --restart to train anew.",
    also: Iterable[Mapping[str, Any]] = (),
) -> None:
    """Check that the identity found in `place`, in any format, is this one.

    Args:
        found, wanted: the identities.
        place: where the first was found.
        way_out: ends the message where it is another.
        also: identities that will do as well.

    Raises:
        UsageError: it is another; the first setting that differs is named.
        StorageError: it is damaged.
    """
    found = current_identity(found, place, way_out)
    if found in map(_as_json, also):
        return
    for key, (old, new) in differences(found, _as_json(wanted)):
        raise UsageError(
            f"{key.removeprefix('config.')} is {new!r}, but {old!r} in {place}. "
            f"{way_out}"
        )


def same(run: Path, wanted: Mapping[str, Any]) -> bool:
    """Whether the run in this folder has this identity."""
    is_run = (run / "config.json").is_file()
    return is_run and read_identity(run) == _as_json(wanted)


def differences(
    old: Any, new: Any, prefix: str = ""
) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """(dotted key, (old value, new value)) of all that differs, in key order."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted(old.keys() | new.keys()):
            yield from differences(old.get(key), new.get(key), f"{prefix}{key}.")
    elif old != new:
        yield prefix.rstrip("."), (old, new)


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


# Contents


def forget(run: Path) -> None:
    """Drop a run so that it starts anew; its log and what is not its own are kept.

    Its identity goes last: a killed --restart is taken up by the same command.

    Raises:
        UsageError: the folder holds no run, so nothing in it is ours to remove.
        LockedError: the run is just being exported.
    """
    check_no_foreign_files(run)
    for workshop in (run / "export").glob(f".*{storage.WORKSHOP}"):
        with storage.lock(workshop, is_passing=True):
            pass
    names = [name for name in ENTRIES if name != "config.json"]
    for entry in (run / name for name in (*names, "config.json")):
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)


def drop_scores(run: Path) -> None:
    """Drop what is known of a finished run, which is no longer finished then."""
    names = ("metrics.json", "per_image.npz", "timing.csv", "samples.npz", PREDICTIONS)
    for name in names:
        (run / name).unlink(missing_ok=True)
    shutil.rmtree(run / "evaluation", ignore_errors=True)


def drop_checkpoints(run: Path) -> None:
    """Drop what only an unfinished run needs; the best weights are kept.

    What cannot be dropped now is when the stage is run again.
    """
    place = run / "checkpoints"
    if place.is_dir() or any(run.glob(f"{storage.TEMPORARY}*")):
        with suppress(LockedError, StorageError, OSError), storage.lock(run):
            storage.sweep(run)
            if place.is_dir():
                storage.remove_folder(place)


def read_metrics(run: Path) -> dict[str, Any] | None:
    """metrics.json of a finished run; None while it is not finished.

    Raises:
        StorageError: it is damaged.
    """
    return _read_scores(run / "metrics.json", {"step": int}, storage.RESTART)


def _read_scores(
    path: Path, kinds: Mapping[str, Any], way_out: str
) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    found = storage.read_json(path, way_out, {**_SCORES, **kinds})
    with storage.damage_named(path, "It does not hold the scores of a run.", way_out):
        confusion = np.array(found["confusion"])
        size = len(found["classes"])
        if confusion.shape != (size, size) or confusion.dtype != np.int64:
            raise ValueError("confusion")
        _check_numbers(found["summary"].values())
        _check_numbers([found["summary"]["miou"], 0 + found["parameters"]["trainable"]])
        for values in found["per_class"].values():
            _check_numbers(values, size)
        for key in ("scored_ids", "absent_ids"):
            if not set(found.get(key) or ()) <= set(range(size)):
                raise ValueError(key)
    return found


# What every file of scores holds
_SCORES = {"summary": dict, "per_class": dict, "confusion": list, "classes": list}
_SCORES |= {"split": str, "images": int, "parameters": dict}
_SCORES |= {"gflop": int | float | None, "scored_ids": list | None}


def _check_numbers(values: Iterable[Any], length: int | None = None) -> None:
    """ValueError unless all are finite numbers or None."""
    found = list(values)
    if length is not None and len(found) != length:
        raise ValueError(f"{len(found)} values, not {length}")
    for value in found:
        if value is not None and not math.isfinite(value):
            raise ValueError(f"{value}")


def mean_over(found: Mapping[str, Any]) -> str:
    """Over which classes a mean IoU is, "over 1 of 2 classes"; "" if over all.

    Args:
        found: the content of metrics.json, or `keras_seg.metrics.scores`. What is left
            out of the mean are classes in neither truth nor prediction.
    """
    absent = len(found.get("absent_ids") or ())
    classes = len(found.get("scored_ids") or found.get("confusion") or ())
    return f"over {classes - absent} of {classes} classes" if absent else ""


def evaluation_file(run: Path, split: str, full_size: bool = False) -> Path:
    """The file of a run's scores on a split, at its own size or at the labels'."""
    return run / "evaluation" / f"{split}{'-full-size' if full_size else ''}.json"


def read_evaluation(
    run: Path, split: str, full_size: bool = False
) -> dict[str, Any] | None:
    """The scores of a run on a split; None where it was not scored so."""
    path = evaluation_file(run, split, full_size)
    kinds = {"manifest": str, "full_size": bool | None}
    return _read_scores(path, kinds, "Delete it, and score the run again.")


def per_image_file(run: Path, split: str | None, full_size: bool = False) -> Path:
    """The file of the counts per image: of metrics.json (None), or an evaluation."""
    if split is None:
        return run / "per_image.npz"
    scores = evaluation_file(run, split, full_size)
    return scores.with_name(f"{scores.stem}-per-image.npz")


def samples_file(run: Path, split: str = "val") -> Path:
    """The file of some images with their predictions, the .png beside it."""
    if split == "val":
        return run / "samples.npz"
    return run / "evaluation" / f"{split}-samples.npz"


def read_samples(run: Path, split: str = "val") -> dict[str, np.ndarray] | None:
    """{"ids", "image", "label", "prediction"} of `samples_file`; None without one.

    Raises:
        StorageError: the file is damaged.
    """
    return _read_pictures(samples_file(run, split), ("image", "label", "prediction"))


def read_predictions(run: Path) -> dict[str, np.ndarray] | None:
    """{image: class ids uint8 [h, w]} of PREDICTIONS; None without such a file.

    Raises:
        StorageError: the file is damaged.
    """
    found = _read_pictures(run / PREDICTIONS, ("prediction",))
    return None if found is None else dict(zip(found["ids"], found["prediction"]))


def _read_pictures(path: Path, names: Sequence[str]) -> dict[str, Any] | None:
    """{"ids": list of str, name: uint8 [N, h, w] or [N, h, w, 3]}."""
    if not path.is_file():
        return None
    way_out = "Delete it: a report then lacks these pictures."
    with storage.damage_named(path, "It holds no pictures.", way_out):
        arrays = _read_arrays(path)
        ids = list(map(str, arrays["ids"]))
        found = {name: arrays[name] for name in names}
        size = found["prediction"].shape[1:]
        for name, array in found.items():
            shape = (len(ids), *size, *([3] if name == "image" else []))
            if array.shape != shape or array.dtype != np.uint8:
                raise ValueError(name)
        return {"ids": ids, **found}


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
    return _read_counts(path) if path.is_file() else None


def validation_file(run: Path, step: int) -> Path:
    """The file of the counts per image of the validation after a step."""
    return run / "validations" / f"step-{step:08d}.npz"


def validation_steps(run: Path) -> list[int]:
    """The steps whose validations have such a file, ascending."""
    return sorted(int(path.stem[5:]) for path in run.glob("validations/step-*.npz"))


def keep_validations(run: Path, wanted: Iterable[int]) -> None:
    """Remove the counts of all validations but those after `wanted` steps."""
    for step in set(validation_steps(run)) - set(wanted):
        validation_file(run, step).unlink()


def read_validations(run: Path) -> dict[int, PerImage]:
    """{step: counts per image} of the validations that were kept, in their order.

    Raises:
        StorageError: a file is damaged.
    """
    steps = validation_steps(run)
    return {step: _read_counts(validation_file(run, step)) for step in steps}


def _read_counts(path: Path) -> PerImage:
    with storage.damage_named(path, "It holds no counts per image."):
        arrays = _read_arrays(path)
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


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        return storage.read_arrays(path)
    except OSError as error:  # a spoilt archive may point before its beginning
        raise ValueError(str(error)) from error


def read_history(run: Path) -> list[dict[str, float]]:
    """The lines of history.csv as numbers, empty fields as NaN; [] without one."""
    path = run / "history.csv"
    if not path.is_file():
        return []
    way_out = "Restore it, or delete it: a report then lacks the curves of this run."
    with storage.damage_named(path, "It is no table of numbers.", way_out):
        rows = [
            {key: float(value) if value else math.nan for key, value in row.items()}
            for row in storage.read_table(path, way_out)
        ]
        if rows and "step" not in rows[0]:
            raise ValueError("no steps")
        return rows


def read_timing(run: Path) -> dict[str, float]:
    """{name: value} of timing.csv; {} without one."""
    path = run / "timing.csv"
    if not path.is_file():
        return {}
    way_out = "Delete it: a report then lacks the times of this run."
    with storage.damage_named(path, "It is no table of values.", way_out):
        rows = storage.read_table(path, way_out)
        return {row["name"]: float(row["value"]) for row in rows}


def read_environment(run: Path) -> dict[str, Any]:
    """environment.json: fingerprint, commit, command and the folder of the data."""
    path = run / "environment.json"
    if not path.is_file():
        raise UsageError(f"{run} is no run folder: it has no environment.json.")
    way_out = "Delete it, and name the prepared folder with --data."
    return storage.read_json(path, way_out, _ENVIRONMENT)


_ENVIRONMENT = {"data": str, "fingerprint": dict | None, "commit": str | None}
_ENVIRONMENT |= {"inexact": list | None}


def write_labels(
    run: Path, labels: LabelSpec, levels: Sequence[int] | None = None
) -> None:
    """Write labels.json: what the ids of a run mean, wherever its data are.

    `levels` are those of 16-bit pictures that become 0 and 255, where it has such.
    """
    record = {"classes": labels.names, "palette": labels.palette}
    record |= {"flip_pairs": labels.flip_pairs, "levels": levels}
    storage.write_json(run / "labels.json", record)


def read_levels(run: Path) -> tuple[int, int] | None:
    """The levels of 16-bit pictures that become 0 and 255; None: the upper 8 bits."""
    path = run / "labels.json"
    found = storage.read_json(path).get("levels") if path.is_file() else None
    if found is None:
        return None
    with storage.damage_named(path, "Its levels are no two numbers."):
        low, high = found
        return int(low), int(high)


def read_labels(run: Path) -> LabelSpec | None:
    """The classes of a run with their colours; None where it is older than the file.

    Raises:
        StorageError: the file is damaged.
    """
    path = run / "labels.json"
    if not path.is_file():
        return None
    way_out = "Delete it: names and colours are then those of the data."
    found = storage.read_json(path, way_out)
    with storage.damage_named(path, "It holds no classes with their colours.", way_out):
        palette, pairs = found["palette"], found["flip_pairs"]
        return LabelSpec(
            tuple(found["classes"]),
            tuple((int(red), int(green), int(blue)) for red, green, blue in palette),
            tuple((int(left), int(right)) for left, right in pairs),
        )


def find_run(place: Path) -> Path:
    """The run that a folder stands for: itself, or the winner of the stage in it.

    A stage has as many runs of its winner as seeds; this is the first. Arms of equal
    configuration share a run, which may then be in the folder of another stage.

    Raises:
        UsageError: the stage has no winner yet, or several runs of each seed (folds);
            or the folder holds several stages.
    """
    runs = find_runs(place)
    if len(runs) > 1:
        raise UsageError(
            f"{place} is a stage of {len(runs)} folds: its winner was trained so many "
            "times, each time without some of the images. keras-seg predict takes them "
            "all together. For one network, train the winner on the images as they "
            f"were split: keras-seg train --config {runs[0] / 'config.json'} --set "
            "data.folds=null --data DATA --out RUN; or name one of its runs."
        )
    return runs[0]


def find_runs(place: Path) -> list[Path]:
    """As `find_run`, but of a stage with folds a run of each, which predict together.

    Raises:
        UsageError: the stage has no winner yet, or the folder holds several stages.
    """
    if (place / "best").is_dir() or not place.is_dir():
        return [place]
    if (place / WINNER).is_file():
        return _winning_runs(place)
    stages = sorted(path.parent for path in place.glob(f"**/{WINNER}"))
    if len(stages) == 1:
        return _winning_runs(stages[0])
    if stages:
        names = ", ".join(map(str, stages))
        raise UsageError(f"{place} holds several stages; name one of {names}.")
    if any(place.glob("*/seed*")):
        raise UsageError(
            f"{place} is a stage without a winner: an arm has not ended. Run the same "
            "ablation again, or name the folder of one of its runs."
        )
    return [place]


def _winning_runs(stage: Path) -> list[Path]:
    winner = read_winner(stage)
    assert winner is not None  # its file was seen
    wanted = _of_any_fold(winner.identity)
    number = winner.identity["config"]["data"]["folds"] or 1
    found: dict[int, Path] = {}
    for run in sorted(
        stage.parent.glob("*/*/seed*"),
        key=lambda run: (run.parent != stage / winner.arm, run),  # its own first
    ):
        if (run / "best").is_dir() and (run / "config.json").is_file():
            identity = read_identity(run)
            if _of_any_fold(identity) == wanted:
                found.setdefault(identity["config"]["data"]["fold"], run)
    if len(found) < number:
        raise UsageError(
            f"The winner of {stage}, {winner.arm}, is not there any more: none of the "
            "runs beside it has its configuration."
        )
    return [found[fold] for fold in range(number)]


def _of_any_fold(identity: Mapping[str, Any]) -> dict[str, Any]:
    """An identity without what tells the folds of a training apart."""
    config, data = identity["config"], dict(identity["data"])
    data.pop("held_out", None)
    config = {**config, "data": {**config["data"], "fold": 0}}
    return {**identity, "config": config, "data": data}


@dataclass(frozen=True)
class Winner:
    """What a stage that has ended decided.

    Attributes:
        arm: its name.
        seeds: how many runs each arm of the stage has.
        identity: of the arm's run with seed 0, in the current format.
    """

    arm: str
    seeds: int
    identity: Mapping[str, Any]


def read_winner(stage: Path) -> Winner | None:
    """The winner of the stage in a folder; None where it has none.

    Raises:
        StorageError: its file is damaged.
    """
    path = stage / WINNER
    if not path.is_file():
        return None
    way_out = f"Run the stage {stage.name} again, which decides anew."
    found = storage.read_json(path, way_out, {"arm": str})
    arm, seeds = found.pop("arm"), found.pop("seeds", 1)
    if type(seeds) is not int or not 0 < seeds <= MOST_SEEDS:
        what = f"Its seeds are {seeds!r:.40}."
        raise StorageError(f"{path} is damaged. {what} {way_out}")
    return Winner(arm, seeds, current_identity(found, path, way_out))


def write_winner(stage: Path, winner: Winner | None) -> None:
    """Replace the winner of a stage; None: it has decided nothing."""
    path = stage / WINNER
    if winner is None:
        path.unlink(missing_ok=True)
        return
    stage.mkdir(exist_ok=True)  # all its runs may be in other stages
    record = {"arm": winner.arm, "seeds": winner.seeds, **winner.identity}
    storage.write_json(path, record)


def common_environment(runs: Iterable[Path]) -> dict[str, object]:
    """Versions and machine of the runs, and their commits; where they differ, all.

    {} where none was begun.
    """
    found = _environments(runs)
    if not found:
        return {}
    values: dict[str, object] = {}
    for key in dict.fromkeys(key for one in found for key in _fingerprint(one)):
        each = dict.fromkeys(str(_fingerprint(one).get(key, "")) for one in found)
        values[key] = " | ".join(each)
    commits = dict.fromkeys(one.get("commit") or "not known" for one in found)
    return values | {
        "commit": ", ".join(commits),
        "commit of this report": backend.commit(),
    }


def weights_file(path: Path) -> Path:
    """The file of weights that a path means: itself, or a run's or a checkpoint's.

    Raises:
        UsageError: a folder without weights.
    """
    if not path.is_dir():
        return path
    if (path / checkpoint.ARRAYS).is_file():
        return path / checkpoint.ARRAYS
    best = checkpoint.steps(path / "best")
    if not best:
        raise UsageError(
            f"--init-weights {path} is a folder, but no run with a best checkpoint."
        )
    return path / "best" / f"step-{best[-1]:08d}" / checkpoint.ARRAYS


def environment_changes(runs: Iterable[Path]) -> list[str]:
    """Names of what the runs' bits depend on, and that was not the same for all.

    It differs between the runs, or changed while one was under way and that was
    allowed (`Options.allow_inexact`). [] where everything was the same.
    """
    found = _environments(runs)
    keys = dict.fromkeys(key for one in found for key in _fingerprint(one))
    changes = [line for one in found for line in one.get("inexact") or ()]
    changed = {str(line).partition(":")[0] for line in changes}
    differing = {
        key
        for key in keys
        if any(
            _fingerprint(one).get(key) != _fingerprint(found[0]).get(key)
            for one in found
        )
    }
    return sorted(differing | changed)


def _environments(runs: Iterable[Path]) -> list[dict[str, Any]]:
    """environment.json of those runs that were begun."""
    begun = [run for run in runs if (run / "environment.json").is_file()]
    return [read_environment(run) for run in begun]


def _fingerprint(environment: Mapping[str, Any]) -> dict[str, Any]:
    return environment.get("fingerprint") or {}


def load_best(run: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The best checkpoint: arrays "model/..." and the run's identity.

    The identity is in the current format.

    Raises:
        UsageError: the folder holds no run with a best checkpoint.
        StorageError: it is damaged.
    """
    newest = checkpoint.load_newest(run / "best")
    if newest is None:
        raise UsageError(f"{run} is no run folder: it has no best checkpoint.")
    _, arrays, found = newest
    return arrays, current_identity(found, run / "best")


# Failures and the log


def log(run: Path, text: str) -> None:
    """Add lines to log.txt, with the time."""
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    with open(run / "log.txt", "a") as file:
        file.write(f"{stamp} {text}\n")


def write_failure(run: Path, error: Exception) -> None:
    """Leave why a session ended early in the run folder, if the disk lets us.

    Of a foreseen error that is its sentence; of any other also its type, place and
    traceback, which log.txt gets too.
    """
    code = getattr(error, "exit_code", KerasSegError.exit_code)
    reason = " ".join(str(error).split())
    record: dict[str, Any] = {"exit_code": code, "reason": reason}
    if not isinstance(error, KerasSegError):
        record |= {"error": type(error).__name__, "place": _place(error)}
        record["traceback"] = "".join(traceback.format_exception(error))
    try:
        log(run, record.get("traceback", reason).rstrip())
        storage.write_json(run / "failure.json", record)
    except (OSError, StorageError):
        pass  # the disk is what failed, and the reason is on stderr


@contextmanager
def failure_recorded(
    run: Path,
    only: type[Exception] = Exception,
    but: tuple[type[Exception], ...] = (),
) -> Iterator[None]:
    """`write_failure` where the block raises an error of these kinds."""
    try:
        yield
    except but:
        raise
    except only as error:
        write_failure(run, error)
        raise


def _place(error: Exception) -> str:
    """ "file.py:123 in function": where the error left this package."""
    frames = traceback.extract_tb(error.__traceback__)
    package = str(Path(__file__).parents[1])
    own = [frame for frame in frames if frame.filename.startswith(package)] or frames
    if not own:
        return "unknown place"
    return f"{Path(own[-1].filename).name}:{own[-1].lineno} in {own[-1].name}"


def read_failure(run: Path) -> str:
    """Why the last session of a run ended early, in one line; "" if it did not.

    The sentence of a foreseen error; "TypeError: ... (loop.py:88)" of another.
    """
    path = run / "failure.json"
    if not path.is_file():
        return ""
    try:
        found = storage.read_json(path)
    except StorageError:
        return f"not known, as {path} is damaged"
    reason = str(found.get("reason"))
    if "error" not in found:
        return reason
    place = str(found.get("place")).partition(" ")[0]
    return f"{found['error']}: {reason} ({place})"
