"""How a run is trained: what changes nothing in its result."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from keras_seg.config import Config, to_dict

if TYPE_CHECKING:
    import keras

# Settings that change nothing in training, only how its weights predict
PREDICTION = (("loss", "direct_at_inference"),)


def training_key(config: Config) -> str:
    """Equal for configurations with equal trainings, to the bit.

    With patience, how they predict decides when they stop.
    """
    values = to_dict(config)
    if config.validation.patience is None:
        for part, name in PREDICTION:
            del values[part][name]
    return json.dumps(values, sort_keys=True)


@dataclass(frozen=True)
class Options:
    """What does not change the result: where and how a run is trained.

    Attributes:
        init_weights: file of pretrained weights (`keras_seg.nets.pretrained`), or a run
            or checkpoint whose weights it starts from, also one of another number of
            classes; the SHA-256 is part of the configuration.
        threads: of TensorFlow's operations; None is the number of cores.
        devices: GPUs that share each batch of this run (JAX); the batch is a multiple.
        workers: threads of the data loader; None is `backend.loader_threads`.
        checkpoint_every: batches between checkpoints; None is by time, so that
            saving costs about 1 % and a kill loses at most 10 minutes.
        allow_inexact: resume although the machine or a library changed; train in
            bfloat16 where it is slow.
        restart: train anew, dropping what the folder holds of the run.
        extend: train an unfinished run of fewer steps to its end and on, as a
            finished one always is.
        callbacks: Keras' own, which look on: `on_train_begin` and `on_train_end` once
            a session, an epoch for every row of history.csv, with its numbers.
        tensorboard: keep a log for TensorBoard in the run folder as well.
        title: shown before every progress line.
        followers: configurations that differ from the run's only in how they predict
            (`PREDICTION`), with their run folders: its training is theirs.
    """

    init_weights: Path | None = None
    threads: int | None = None
    devices: int = 1
    workers: int | None = None
    checkpoint_every: int | None = None
    allow_inexact: bool = False
    restart: bool = False
    extend: bool = False
    callbacks: Sequence["keras.callbacks.Callback"] = ()
    tensorboard: bool = False
    title: str = ""
    followers: Sequence[tuple[Config, Path]] = ()


@dataclass
class Interruption:
    """Which signal asked the run to stop, if one did."""

    signal: str | None = None
