"""Datasets: raw files -> the prepared folder -> `tf.data`.

`DATASETS` is read-only and imports nothing heavy; a dataset's module is imported
when it is used. Adding a dataset is one file, one line here and one card in
datasets/ (see CONTRIBUTING.md). The file has

    prepare(src, out, options, **own) -> (Prepared, bool)    see data.writer
    add_arguments(parser)                                    its own options, if any
"""

import importlib
from collections.abc import Mapping
from types import MappingProxyType, ModuleType

from keras_seg.errors import UsageError

DATASETS: Mapping[str, str] = MappingProxyType(
    {
        "surreal": "keras_seg.data.surreal",
        "synthetic_humans": "keras_seg.data.synthetic_humans",
        "cityscapes": "keras_seg.data.cityscapes",
        "voc": "keras_seg.data.voc",
        "atr": "keras_seg.data.atr",
        "camvid": "keras_seg.data.camvid",
        "ccp": "keras_seg.data.ccp",
        "folder": "keras_seg.data.folder",
    }
)


def load(name: str) -> ModuleType:
    """The module of a dataset; UsageError lists the known names."""
    if name not in DATASETS:
        raise UsageError("dataset", name, "one of " + ", ".join(DATASETS))
    return importlib.import_module(DATASETS[name])
