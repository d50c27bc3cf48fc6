"""Datasets: raw files -> the prepared folder -> batches.

A dataset is one file, one line of `DATASETS`, one card in datasets/ and one row of
tests/test_data.py; CONTRIBUTING.md shows one. The file has

    prepare(src, out, options, **own) -> (Prepared, bool)    see `data.writer`
    OPTIONS = (Option(...), ...)    its keywords `own` as options of the command, if any
    SIZE = (height, width)          images get this size without --size, if it has one
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType, ModuleType
from typing import Any, Literal

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


@dataclass(frozen=True)
class Option:
    """A keyword of a dataset's `prepare`, as an option of datasets/prepare.py."""

    name: str  # of the keyword; `flip_pairs` is --flip-pairs
    help: str
    # Makes the value of a word; ValueError refuses it. `bool`: --name and --no-name.
    type: Callable[[str], Any] = str
    default: Any = None
    required: bool = False
    choices: tuple | None = None  # the values it may have, where they are few
    values: int | Literal["+"] | None = None  # how many it takes; "+" is at least one
    metavar: str | tuple[str, ...] | None = None  # what help texts call the values


def load(name: str) -> ModuleType:
    """The module of a dataset; UsageError lists the known names."""
    if name not in DATASETS:
        raise UsageError(f"Unknown dataset '{name}'. Datasets: {', '.join(DATASETS)}.")
    return importlib.import_module(DATASETS[name])
