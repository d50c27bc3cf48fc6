"""Semantic segmentation in Keras 3: train, predict, export, and staged ablations.

    data = keras_seg.open_data("datasets/prepared/camvid")
    run = keras_seg.train(net="icnet", data=data, size=(192, 256), steps=2000, out="x")
    ids = keras_seg.predict(run, "street.jpg")

Importing this package sets the environment that Keras is to be imported in, and imports
neither Keras nor TensorFlow: a name below is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING

from keras_seg import backend

__version__ = "0.1.0"
__all__ = [
    "ablate",
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
    from keras_seg.runs.face import (
        batches,
        build,
        compile_arguments,
        evaluate,
        export,
        open_data,
        train,
    )
    from keras_seg.runs.predict import load, predict
    from keras_seg.study import ablate

# Where a name is if it is not in runs.face
_ELSEWHERE = {"load": "runs.predict", "predict": "runs.predict", "ablate": "study"}


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module 'keras_seg' has no attribute {name!r}")
    module = _ELSEWHERE.get(name, "runs.face")
    return getattr(importlib.import_module(f"keras_seg.{module}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


backend.set_environment()
backend.register_saved_classes()
