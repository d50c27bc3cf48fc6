"""The chosen frames of SURREAL, and the file that lists them.

selection.csv: split, id of the sample, clip (path below the raw folder), frame (from
1), cluster of poses (-1 where the whole pool was taken).
"""

import csv
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_seg.data.surreal.clips import SPLITS, Clip
from keras_seg.data.surreal.frames import frame_id
from keras_seg.data.surreal.index import IndexedClip
from keras_seg.data.surreal.pose_selection import pose_features, select, standardised
from keras_seg.errors import DataError

FIELDS = ("split", "id", "clip", "frame", "cluster")


@dataclass(frozen=True)
class SelectedFrame:
    """A frame, its number from 1, and its cluster of poses."""

    clip: Clip
    frame: int
    cluster: int

    @property
    def split(self) -> str:
        return self.clip.split

    @property
    def id(self) -> str:
        return frame_id(self.clip, self.frame)


def select_frames(
    pools: Mapping[str, Sequence[IndexedClip]],
    counts: Mapping[str, int | None],
    every: int,
    clusters: Mapping[str, int],
    seed: int,
    method: str,
) -> list[SelectedFrame]:
    """Chooses frames of each split, sorted by split and id.

    Args:
        pools: {split: clips}.
        counts: {split: how many}; None takes all, 0 none. All are taken, and it is
            said, where there are fewer than wanted.
        every: see `frame_step`.
        clusters: {split: number of clusters}.
        seed: of the selection.
        method: see `pose_selection.select`.

    Raises:
        DataError: frames are wanted of a split that has none.
    """
    chosen = []
    for number, split in enumerate(SPLITS):
        pool, count = pools[split], counts[split]
        if count == 0 or (count is None and not pool):
            continue
        step = frame_step(pool, count, every)
        places = [
            (place, frame)
            for place, indexed in enumerate(pool)
            for frame in range(0, len(indexed.usable), step)
            if indexed.usable[frame]
        ]
        if not places:
            raise DataError(
                f"split {split}", "no usable frames", "some, or 0 of --frames"
            )
        if count is None or count == len(places):
            _tell(f"{split}: all {len(places)} frames")
        elif count > len(places):
            _tell(f"{split}: {count} frames wanted, all {len(places)} there are taken")
        else:
            _tell(f"{split}: choosing {count} of {len(places)} frames")
        joints = np.stack([pool[place].joints_3d[frame] for place, frame in places])
        selection = select(
            standardised(pose_features(joints)),
            len(places) if count is None else count,
            clusters[split],
            np.random.default_rng([seed, number]),
            method,
        )
        frames = [
            SelectedFrame(pool[places[i][0]].clip, places[i][1] + 1, int(cluster))
            for i, cluster in zip(selection.chosen, selection.clusters)
        ]
        chosen += sorted(frames, key=lambda frame: frame.id)
    return chosen


def frame_step(pool: Sequence[IndexedClip], count: int | None, every: int) -> int:
    """The largest step up to `every` between frames that leaves `count` to choose.

    1 where none does, or where all frames are wanted (None).
    """
    if count is None:
        return 1
    for step in range(every, 1, -1):
        if sum(np.count_nonzero(indexed.usable[::step]) for indexed in pool) >= count:
            return step
    return 1


def write_selection(path: Path, src: Path, frames: Sequence[SelectedFrame]) -> None:
    """Writes selection.csv; `src` is the raw folder."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(FIELDS)
        for frame in frames:
            clip = frame.clip.stem.relative_to(src).as_posix()
            table.writerow([frame.split, frame.id, clip, frame.frame, frame.cluster])


def read_selection(path: Path, src: Path, clips: Sequence[Clip]) -> list[SelectedFrame]:
    """The frames a selection.csv lists, sorted by split and id.

    Args:
        path: the file, from this preparation or another one.
        src: the raw folder.
        clips: all of it; the file can name no others.

    Raises:
        DataError: unreadable, no such file, or a line that names no frame of them.
    """
    by_place = {clip.stem.relative_to(src).as_posix(): clip for clip in clips}
    frames = []
    for number, line in enumerate(_read_lines(path), start=2):
        split, _, place, frame, cluster = line
        clip = by_place.get(place)
        if clip is None or clip.split != split:
            raise DataError(
                f"{path}: line {number}", f"{split} {place}", "a clip of --src"
            )
        if not (frame.isdecimal() and int(frame) and cluster.lstrip("-").isdecimal()):
            raise DataError(
                f"{path}: line {number}", f"{frame}, {cluster}", "a frame and a cluster"
            )
        frames.append(SelectedFrame(clip, int(frame), int(cluster)))
    return sorted(frames, key=lambda frame: (SPLITS.index(frame.split), frame.id))


def count_selected(path: Path) -> dict[str, int]:
    """{split: frames that a selection.csv lists}."""
    return dict(Counter(line[0] for line in _read_lines(path)))


def _read_lines(path: Path) -> list[list[str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.reader(file, strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(path, f"unreadable ({error})", "a selection.csv") from None
    if not lines or tuple(lines[0]) != FIELDS:
        raise DataError(path, "another header", ",".join(FIELDS))
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(FIELDS):
            raise DataError(
                f"{path}: line {number}", f"{len(line)} fields", f"{len(FIELDS)}"
            )
    return lines[1:]


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
