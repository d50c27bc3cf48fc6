"""What computes a prediction: the runtimes that open exports.

Each opens a model from its own files and needs nothing else of this package.
"""

import importlib
import importlib.util
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from keras_seg import backend
from keras_seg.command_line import install_hint
from keras_seg.errors import KerasSegError, StorageError, UsageError

NATIVE, AUTO = "keras", "auto"

# uint8 RGB [N, H, W, 3] -> class ids uint8 [N, H, W], probabilities float32 [.., C]
Serve = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def _open_saved_model(folder: Path, threads: int | None) -> Serve:
    backend.configure()
    import tensorflow as tf

    model: Any = tf.saved_model.load(folder)

    def serve(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = model.signatures["serving_default"](image=tf.constant(images))
        return found["class_ids"].numpy(), found["probabilities"].numpy()

    return backend.beside_a_copy(serve, model.signatures["serving_default"].variables)


def _open_keras(folder: Path, threads: int | None) -> Serve:
    backend.configure()
    import keras

    model: Any = keras.models.load_model(folder / "model.keras")

    def serve(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = model.predict_on_batch(images)
        ids, probabilities = found["class_ids"], found["probabilities"]
        return np.asarray(ids), np.asarray(probabilities)

    return backend.beside_a_copy(serve, model.variables)


def _open_onnx(folder: Path, threads: int | None) -> Serve:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or os.cpu_count() or 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        str(folder / "model.onnx"),
        options,
        providers=onnxruntime.get_available_providers(),
    )
    names = ["class_ids", "probabilities"]

    def serve(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ids, probabilities = map(np.asarray, session.run(names, {"image": images}))
        return ids, probabilities

    return serve


def _open_openvino(folder: Path, threads: int | None) -> Serve:
    import openvino  # pyright: ignore

    path = folder / "model.xml"
    if not path.is_file():
        path = folder / "model.onnx"
    # On some processors OpenVINO would compute in bfloat16 without being asked.
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    settings["INFERENCE_NUM_THREADS"] = threads or os.cpu_count() or 1
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)

    def serve(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = compiled([images])
        return found["class_ids"], found["probabilities"]

    return serve


def _open_litert(folder: Path, threads: int | None) -> Serve:
    interpreter_module: Any = importlib.import_module("ai_edge_litert.interpreter")
    interpreter = interpreter_module.Interpreter(
        model_path=str(folder / "model.tflite"), num_threads=threads or os.cpu_count()
    )
    runner = interpreter.get_signature_runner("serving_default")

    def serve(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = runner(image=images)
        return found["class_ids"], found["probabilities"]

    return serve


@dataclass(frozen=True)
class Engine:
    """A runtime.

    Attributes:
        module: what it is imported as.
        formats: of the exports that it opens, keys of `keras_seg.runs.export.FORMATS`;
            the first is made where none is there.
        extra: of this package, which installs it.
        open: (the export's folder, threads) -> `Serve`.
    """

    module: str
    formats: tuple[str, ...]
    extra: str
    open: Callable[[Path, int | None], Serve]

    def is_installed(self) -> bool:
        return importlib.util.find_spec(self.module) is not None


ENGINES: Mapping[str, Engine] = MappingProxyType(
    {
        NATIVE: Engine("keras", ("keras",), "cpu", _open_keras),
        "tensorflow": Engine("tensorflow", ("saved_model",), "cpu", _open_saved_model),
        "onnxruntime": Engine("onnxruntime", ("onnx", "onnx-int8"), "onnx", _open_onnx),
        "openvino": Engine(
            "openvino", ("openvino", "onnx"), "openvino", _open_openvino
        ),
        "litert": Engine("ai_edge_litert", ("litert",), "litert", _open_litert),
    }
)


def check(name: str) -> Engine:
    """The engine of a name, which is installed.

    Raises:
        UsageError: there is none, or its runtime is missing.
    """
    if name not in ENGINES:
        known = ", ".join([*ENGINES, AUTO])
        raise UsageError(f"There is no engine {name!r}. Engines: {known}.")
    engine = ENGINES[name]
    if not engine.is_installed():
        raise UsageError(
            f"The engine {name} needs {engine.module}, which is not installed: "
            f"{install_hint(engine.extra)}."
        )
    return engine


def open_export(
    folder: Path, format: str, engine: str | None = None, threads: int | None = None
) -> Serve:
    """Open an export.

    Args:
        folder: of the export.
        format: of the export, as its record has it.
        engine: None or "auto" is the first that opens this format.
        threads: of the engine; None is the number of cores.

    Raises:
        UsageError: an engine that does not open this format or is not installed.
        StorageError: the model cannot be opened.
    """
    able = [name for name, one in ENGINES.items() if format in one.formats]
    if not able:
        raise UsageError(f"{folder} has the format {format!r}, which nothing opens.")
    name = able[0] if engine in (None, AUTO) else engine
    if name in ENGINES and name not in able:
        raise UsageError(
            f"The engine {name} does not open {folder}, which has the format {format}. "
            f"That is for {' or '.join(able)}."
        )
    chosen = check(name)
    try:
        return chosen.open(folder, threads)
    except (ImportError, KerasSegError):
        raise
    except Exception as error:  # each runtime raises kinds of its own
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise StorageError(
            f"The model in {folder} cannot be opened: {line}. Export the run again."
        ) from error
