"""Lets `keras.models.load_model` find the classes of this project's saved networks.

Keras knows a class only once its module is imported, and importing the modules would
import Keras. So when Keras is imported, a stand-in for every class is registered under
the class's name; it imports the class when a saved network asks for it.
"""

import importlib
import sys
from collections.abc import Mapping
from importlib.abc import MetaPathFinder
from types import MappingProxyType

# The module of every class with @keras.saving.register_keras_serializable("keras_seg")
CLASSES: Mapping[str, str] = MappingProxyType(
    {
        "AdaptiveAveragePooling": "keras_seg.nets.layers",
        "BilinearKernel": "keras_seg.nets.layers",
        "BilinearResize": "keras_seg.nets.layers",
        "LocalResponseNormalization": "keras_seg.nets.layers",
        "MaxPoolingWithIndices": "keras_seg.nets.layers",
        "MaxUnpooling": "keras_seg.nets.layers",
        "RematerialisedUnits": "keras_seg.nets.hourglass",
        "RepeatBorder": "keras_seg.nets.unet_valid",
        "StridedDilatedDeconv": "keras_seg.nets.fcn_dilated_tanh",
        "CrossEntropy": "keras_seg.losses",
        "Dice": "keras_seg.losses",
        "Focal": "keras_seg.losses",
        "JointHeatmaps": "keras_seg.losses",
        "WithErrorPenalty": "keras_seg.losses",
        "ConfusionMatrix": "keras_seg.metrics",
    }
)


def register_with_keras() -> None:
    """Register the stand-ins now, or as soon as Keras is imported."""
    if "keras" in sys.modules:
        _register()
    elif not any(isinstance(finder, _AfterKeras) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterKeras())


class _StandIn:
    """What Keras makes an object from instead of the class, which is not imported."""

    def __init__(self, name: str):
        self.name = name

    def from_config(self, config, **options):
        module = importlib.import_module(CLASSES[self.name])
        return getattr(module, self.name).from_config(config, **options)


def _register() -> None:
    import keras

    known = keras.saving.get_custom_objects()
    for name in CLASSES:
        known.setdefault(f"keras_seg>{name}", _StandIn(name))


class _AfterKeras(MetaPathFinder):
    """Registers at the end of the import of Keras."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname != "keras":
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        found = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next(filter(None, found), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module):
                execute(module)
                _register()

            spec.loader.exec_module = execute_and_register
        return spec
