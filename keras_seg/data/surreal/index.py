"""The index of SURREAL: every clip's joints, and which frames a split may take."""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from keras_seg.command_line import Progress
from keras_seg.data.surreal.clips import (
    FRAME_SIZE,
    INFO,
    SPLITS,
    Clip,
    Info,
    check_files,
    read_info,
)
from keras_seg.errors import DataError


@dataclass(frozen=True)
class IndexedClip:
    """A clip of the wanted stride; T frames."""

    clip: Clip
    usable: np.ndarray  # bool [T], see `usable_frames`
    joints_3d: np.ndarray  # float32 [T, 24, 3], as in `Info`


def excluded(sequence: str, subjects: Iterable[str]) -> bool:
    """Whether a sequence belongs to one of the subjects.

    A subject is "18" (sequences 18_01, ung_18_2, ...), a subject with its trial
    "143_21", or the whole name of a sequence.
    """
    numbers = [int(part) for part in sequence.split("_") if part.isdecimal()]
    for subject in subjects:
        parts = subject.split("_")
        if sequence == subject or (
            all(part.isdecimal() for part in parts)
            and numbers[: len(parts)] == [int(part) for part in parts]
        ):
            return True
    return False


def usable_frames(info: Info) -> np.ndarray:
    """bool [T]: frames that have joints, and a person whose middle is in the frame.

    Joints that are all 0 or not finite are none. The middle is that of the box of all
    joints.
    """
    height, width = FRAME_SIZE
    some = info.joints_2d.any(axis=(1, 2)) & info.joints_3d.any(axis=(1, 2))
    some &= np.isfinite(info.joints_3d).all(axis=(1, 2))
    low, high = info.joints_2d.min(axis=1), info.joints_2d.max(axis=1)
    x, y = ((low + high) / 2).T
    inside = (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)
    return some & inside


def index_clips(
    clips: Sequence[Clip], root: Path, stride: int, each: Callable[..., Generator]
) -> tuple[list[IndexedClip], dict[Clip, DataError]]:
    """Index every clip: those of this stride in their order, and the bad ones.

    The stride is read from the file: the order of the run folders differs between
    descriptions of SURREAL. `each` maps: it takes (work, items).
    """
    found, bad = [], {}
    results = each(partial(_index_clip, root, stride), clips)
    with Progress("indexing", len(clips), "clips") as progress, closing(results):
        for clip, result in zip(clips, results):
            progress.advance()
            if isinstance(result, DataError):
                bad[clip] = result
            elif result is not None:
                found.append(result)
    return found, bad


def _index_clip(root: Path, stride: int, clip: Clip) -> IndexedClip | DataError | None:
    try:
        check_files(clip, root)
        info = read_info(clip.path(INFO))
    except DataError as error:
        return error
    if info.stride != stride:
        return None
    return IndexedClip(clip, usable_frames(info), info.joints_3d)


def pools(
    clips: Iterable[IndexedClip], leaky_test: bool = False
) -> dict[str, list[IndexedClip]]:
    """{split: clips it may take frames from}.

    SURREAL's val clips are in its test folder too, and neighbouring clips of a sequence
    overlap. So test takes no clip of a sequence that has one in val; with `leaky_test`,
    as is common, only the val clips themselves are left out.
    """
    by_split: dict[str, list[IndexedClip]] = {split: [] for split in SPLITS}
    for indexed in clips:
        by_split[indexed.clip.split].append(indexed)
    key = (lambda clip: clip.id) if leaky_test else (lambda clip: clip.sequence)
    in_val = {key(indexed.clip) for indexed in by_split["val"]}
    by_split["test"] = [
        indexed for indexed in by_split["test"] if key(indexed.clip) not in in_val
    ]
    return by_split
