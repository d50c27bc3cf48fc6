"""The settings of SURREAL's preparation, each with its option of the command."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from keras_seg.command_line import natural_int, positive_int
from keras_seg.data import Option, workers
from keras_seg.data.prepared import SELECTION
from keras_seg.data.surreal.head_repair import REPAIRS
from keras_seg.data.surreal.parts import MERGES
from keras_seg.data.surreal.pose_selection import METHODS
from keras_seg.errors import UsageError

EXECUTORS = {"processes": workers.in_processes, "ray": workers.on_ray}


def _setting(default: Any, help: str, **option: Any) -> Any:
    return field(default=default, metadata={"help": help, **option})


def _count_or_all(text: str) -> int | None:
    return None if text == "all" else natural_int(text)


_SPLITS = ("TRAIN", "VAL", "TEST")


@dataclass(frozen=True)
class Settings:
    """What the preparation of SURREAL can be told beside `Options`."""

    # None takes the whole pool.
    frames: tuple[int | None, ...] = _setting(
        (90_000, 15_000, 15_000),
        "how many frames, or all; 0 leaves the split out",
        type=_count_or_all,
        values=3,
        metavar=_SPLITS,
    )
    stride: int = _setting(
        50,
        "overlap of the clips in percent, as their files name it; BODY uses 50",
        type=int,
        choices=(30, 50, 70),
    )
    leaky_test: bool = _setting(
        False,
        "leave only val's clips out of test, not val's sequences: neighbouring clips "
        "overlap, so test then shows poses of val",
        type=bool,
    )
    exclude: tuple[str, ...] = _setting(
        (),
        "leave out subjects (18) or their trials (143_21)",
        values="+",
        metavar="SUBJECT",
    )
    every: int = _setting(
        5,
        "choose among every Nth frame of a clip, or among more where these are too few",
        type=positive_int,
        metavar="N",
    )
    method: str = _setting(
        "kmeans",
        "kmeans: from each cluster of poses in proportion to the root of its size; "
        "farthest: equally many, far from each other",
        choices=METHODS,
    )
    clusters: tuple[int, ...] = _setting(
        (1000, 200, 200),
        "number of clusters of poses",
        type=positive_int,
        values=3,
        metavar=_SPLITS,
    )
    seed: int = _setting(0, "of the selection", type=natural_int, metavar="N")
    selection: Path | None = _setting(
        None,
        f"take the frames that the {SELECTION} of another preparation lists",
        type=Path,
        metavar="FILE",
    )
    repair: str = _setting(
        "thesis",
        "of the head's label: thesis: all but its largest piece, as BODY; zones: only "
        "specks on chest and pelvis",
        choices=tuple(REPAIRS),
    )
    margin: float = _setting(
        0.2,
        "share that is added to the longer side of the person's box",
        type=float,
        metavar="SHARE",
    )
    merge: str = _setting(
        "none",
        "surreal14: the 14 parts that SURREAL's authors train on; none: all 24",
        choices=tuple(MERGES),
    )

    def __post_init__(self):
        if not 0 <= self.margin <= 2:
            raise UsageError(f"--margin {self.margin} is not a number from 0 to 2.")


def options(defaults: Settings = Settings()) -> tuple[Option, ...]:
    """The settings as options of the command, in the order of the steps."""
    settings = [
        Option(spec.name, default=getattr(defaults, spec.name), **spec.metadata)
        for spec in fields(Settings)
    ]
    where = "processes on this machine, or ray: the cluster $RAY_ADDRESS"
    choices = tuple(EXECUTORS)
    return *settings, Option("executor", where, default="processes", choices=choices)
