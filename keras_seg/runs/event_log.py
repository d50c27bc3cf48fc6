"""A run's history as TensorBoard shows it (the extra `tensorboard`).

The event file is made anew from the history whenever a run is resumed, so that a run
that was killed shows one curve, without the steps that were lost.
"""

import importlib
import importlib.util
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_seg.command_line import install_hint
from keras_seg.errors import UsageError


def require_installed() -> None:
    """UsageError unless TensorBoard can be imported."""
    if importlib.util.find_spec("tensorboard") is None:
        hint = install_hint("tensorboard")
        raise UsageError(f"TensorBoard is not installed: {hint}.")


class EventLog:
    """Writes rows of history.csv as scalars; training and validation side by side."""

    def __init__(self, folder: Path, history: Sequence[Mapping[str, float]]):
        writers: Any = importlib.import_module("tensorboard.summary")
        shutil.rmtree(folder, ignore_errors=True)
        self.writer = writers.Writer(str(folder))
        for row in history:
            self.add(row)

    def add(self, row: Mapping[str, float]) -> None:
        """One row: "step" and numbers; those that are not finite are left out."""
        for key, value in row.items():
            if key != "step" and math.isfinite(value):
                self.writer.add_scalar(tag(key), value, int(row["step"]))
        self.writer.flush()


def tag(column: str) -> str:
    """The name of a column of history.csv in TensorBoard: "miou/validation"."""
    for prefix, name in (("val_", "validation"), ("train_", "training")):
        if column.startswith(prefix):
            return f"{column.removeprefix(prefix)}/{name}"
    return f"{column}/training"
