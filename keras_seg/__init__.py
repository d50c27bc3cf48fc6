"""Semantic segmentation in Keras 3: train, predict, export, and staged ablations.

    data = keras_seg.open_data("datasets/prepared/camvid")
    run = keras_seg.train(net="icnet", data=data, size=(192, 256), steps=2000, out="x")
    ids = keras_seg.predict(run, "street.jpg")

Importing this package sets the environment that Keras is to be imported in, and imports
neither Keras nor TensorFlow: a name below is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING

from keras_seg import backend, registered

__version__ = "0.1.0"
__all__ = [
    "batches",
    "build",
    "compile_arguments",
    "evaluate",
    "export",
    "load",
    "open_data",
    "predict",
    "train",
]

if TYPE_CHECKING:
    from keras_seg.data.prepared import open_prepared as open_data
    from keras_seg.losses import compile_arguments
    from keras_seg.runs.face import batches, build, evaluate, export, train
    from keras_seg.runs.predict import load, predict

_PLACES = dict.fromkeys(__all__, ("keras_seg.runs.face", None)) | {
    "compile_arguments": ("keras_seg.losses", None),
    "load": ("keras_seg.runs.predict", None),
    "open_data": ("keras_seg.data.prepared", "open_prepared"),
    "predict": ("keras_seg.runs.predict", None),
}


def __getattr__(name: str):
    if name not in _PLACES:
        raise AttributeError(f"module 'keras_seg' has no attribute {name!r}")
    module, function = _PLACES[name]
    return getattr(importlib.import_module(module), function or name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


backend.set_environment()
registered.register_with_keras()
