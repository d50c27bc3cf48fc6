"""The fastest engine for a run on this machine, measured once.

Which one that is depends on the machine and on the network. The times are kept beside
the run's exports, in engines.json, for each machine and each version of the engines.
"""

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_seg import backend, storage
from keras_seg.command_line import note
from keras_seg.errors import KerasSegError
from keras_seg.runs import engines, export
from keras_seg.runs import folder as run_folder
from keras_seg.runs.engines import ENGINES, NATIVE

ROUNDS = 5  # of the measurement; the median of each engine counts
BATCH = 8  # images of the measurement: the batch that files are predicted in
INT8 = " int8"


@dataclass(frozen=True)
class Choice:
    """An engine with the export that it opens."""

    engine: str
    folder: Path


def choose(
    run: Path,
    engine: str,
    native: Callable[[], Callable[[np.ndarray], object]],
    data: Path | None = None,
    threads: int | None = None,
) -> Choice | None:
    """The export of a run that an engine opens, made where it is missing.

    Args:
        run: a run folder with its best weights.
        engine: a key of `ENGINES`, or "auto": the fastest of those installed, measured
            once on this machine and kept in RUN/export/engines.json.
        native: loads the run's network in Keras: uint8 RGB [N, H, W, 3] to anything.
        data: the prepared folder of the run, if it was moved: an export is checked.
        threads: of the engine.

    Returns:
        None where that is Keras, which needs no export.

    Raises:
        UsageError: the engine is not installed, or the data are gone.
        StorageError: the export is wrong, or the disk full.
    """
    if engine != engines.AUTO:
        engines.check(engine)
        return Choice(engine, _exported(run, engine, data, threads))
    path, machine = run / "export" / "engines.json", _machine(threads)
    way_out = "Delete it: the engines are then measured anew."
    known = storage.read_json(path, way_out) if path.is_file() else {}
    record: Any = known.get(machine)
    if not _is_of(run, record):
        record = _measure(run, native(), data, threads)
        path.parent.mkdir(exist_ok=True)
        storage.write_json(path, known | {machine: record})
    name, folder = record["fastest"], record["exports"].get(record["fastest"])
    note(f"engine: {name} ({_in_words(record['ms_per_image'])})")
    if folder is None:
        return None
    opener = name.removesuffix(INT8)
    if not export.is_current(run / "export" / folder, run):
        return Choice(opener, _exported(run, opener, data, threads))
    return Choice(opener, run / "export" / folder)


def _is_of(run: Path, record: Any) -> bool:
    """Whether it is a record of `_measure` of the run's present weights."""
    if not isinstance(record, dict) or record.get("step") != _step(run):
        return False
    name, times, exports = map(record.get, ("fastest", "ms_per_image", "exports"))
    if not (isinstance(times, dict) and isinstance(exports, dict)):
        return False
    if not all(isinstance(ms, int | float) for ms in times.values()):
        return False
    engine = ENGINES.get(str(name).removesuffix(INT8))
    return name == NATIVE or bool(engine and exports.get(name) in engine.formats)


def _in_words(times: Mapping[str, float]) -> str:
    ordered = sorted(times.items(), key=lambda pair: pair[1])
    return ", ".join(f"{name} {ms:.1f} ms an image" for name, ms in ordered)


def _measure(
    run: Path,
    native: Callable[[np.ndarray], object],
    data: Path | None,
    threads: int | None,
) -> dict[str, Any]:
    """The engines' times on this machine, their rounds interleaved."""
    size = run_folder.load_best(run)[1]["config"]["data"]["size"]
    images = np.random.default_rng(0).integers(0, 256, (BATCH, *size, 3), "uint8")
    served: dict[str, Callable[[np.ndarray], object]] = {NATIVE: native}
    exports: dict[str, str] = {}
    for name, engine in ENGINES.items():
        if name in (NATIVE, "tensorflow") or not engine.is_installed():
            continue
        try:
            folder = _exported(run, name, data, threads)
            served[name] = engine.open(folder, threads)
        except KerasSegError as error:
            note(f"engine: {name} is left out. {error}")
            continue
        exports[name] = folder.name
        int8 = run / "export" / "onnx-int8"
        if name == "onnxruntime" and export.is_current(int8, run):
            served[name + INT8] = engine.open(int8, threads)
            exports[name + INT8] = "onnx-int8"
    times: dict[str, list[float]] = {name: [] for name in served}
    for number in range(ROUNDS + 1):  # the first warms up
        for name, serve in served.items():
            began = time.perf_counter()
            serve(images)
            if number:
                times[name].append((time.perf_counter() - began) * 1000 / BATCH)
    medians = {name: float(np.median(values)) for name, values in times.items()}
    fastest = min(medians, key=lambda name: medians[name])
    record = {"fastest": fastest, "ms_per_image": medians, "exports": exports}
    return record | {"step": _step(run)}


def _exported(run: Path, name: str, data: Path | None, threads: int | None) -> Path:
    """The export of the run's best weights that an engine opens; made if missing."""
    formats = ENGINES[name].formats
    for format in formats:
        folder = run / "export" / format
        if not format.endswith("int8") and export.is_current(folder, run):
            return folder
    note(f"{name}: the run is exported once")
    return export.export(run, format=formats[0], data=data, threads=threads)


def _step(run: Path) -> Any:
    return (run_folder.read_metrics(run) or {}).get("step")


def _machine(threads: int | None) -> str:
    """What the speed of engines depends on, besides the network."""
    parts = [backend.processor(), f"{threads or os.cpu_count()} threads"]
    parts.append(f"arithmetic {backend.ARITHMETIC}")
    for engine in ENGINES.values():
        if engine.is_installed():
            name = engine.module.replace("_", "-")
            try:
                parts.append(f"{name} {importlib.metadata.version(name)}")
            except importlib.metadata.PackageNotFoundError:
                parts.append(name)  # TensorFlow has several distributions
    return f"{platform.machine()}: " + ", ".join(parts)
