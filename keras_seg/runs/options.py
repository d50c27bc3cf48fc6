"""How a run is trained: what changes nothing in its result."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """What does not change the result: where and how a run is trained.

    Attributes:
        init_weights: file of pretrained weights (`keras_seg.nets.pretrained`); its
            SHA-256 is part of the configuration.
        threads: of TensorFlow's operations; None is the number of cores.
        workers: threads of the data loader.
        checkpoint_every: batches between checkpoints; None is by time, so that
            saving costs about 1 % and a kill loses at most 10 minutes.
        allow_inexact: resume although the machine or a library changed.
        restart: train anew, dropping what the folder holds of the run.
        tensorboard: keep a log for TensorBoard in the run folder as well.
        title: shown before every progress line.
    """

    init_weights: Path | None = None
    threads: int | None = None
    workers: int = 2
    checkpoint_every: int | None = None
    allow_inexact: bool = False
    restart: bool = False
    tensorboard: bool = False
    title: str = ""


@dataclass
class Interruption:
    """Which signal asked the run to stop, if one did."""

    signal: str | None = None
