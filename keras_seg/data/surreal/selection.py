"""The chosen frames of SURREAL, and the file that lists them.

selection.csv: split, id of the sample, clip (path below the raw folder), frame (from
1), cluster of poses (-1 where the whole pool was taken).
"""

import csv
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_seg import storage
from keras_seg.command_line import note
from keras_seg.data import raw
from keras_seg.data.prepared import SELECTION, Prepared
from keras_seg.data.surreal.clips import SPLITS, Clip
from keras_seg.data.surreal.frames import FEWEST_BODY_PIXELS, SelectedClip, frame_id
from keras_seg.data.surreal.index import IndexedClip, index_clips, pools
from keras_seg.data.surreal.pose_selection import pose_features, select, standardised
from keras_seg.data.surreal.settings import Settings
from keras_seg.data.writer import Options
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


def find_items(
    src: Path,
    clips: Sequence[Clip],
    settings: Settings,
    options: Options,
    each: Callable[..., Generator],
    stage: Path,
) -> list[SelectedClip]:
    """The clips to convert, by index and selection; selection.csv goes to `stage`."""
    bad: dict[Clip, DataError] = {}
    if settings.selection is not None:
        rows = read_selection(settings.selection, src, clips)
    else:
        indexed, bad = index_clips(
            clips,
            src.resolve(),
            settings.stride,
            lambda work, items: each(work, items, options.workers),
        )
        if len(bad) > options.skip_bad:
            # Refused anyway: list what is bad without hours of conversion.
            return [SelectedClip(clip, (), bad.get(clip)) for clip in clips]
        rows = select_frames(pools(indexed, settings.leaky_test), settings)
    rows = raw.first_of_each_split(rows, options.limit)
    _check_unique(rows)
    write_selection(stage / SELECTION, src, rows)
    frames: dict[Clip, list[int]] = {}
    for row in rows:
        frames.setdefault(row.clip, []).append(row.frame)
    items = [SelectedClip(clip, tuple(numbers)) for clip, numbers in frames.items()]
    return items + [SelectedClip(clip, (), error) for clip, error in bad.items()]


def _check_unique(rows: Sequence[SelectedFrame]) -> None:
    # Here, before hours of conversion; the writer checks it after them.
    for (split, id), count in Counter((row.split, row.id) for row in rows).items():
        if count > 1:
            raise DataError(f"The id {split}/{id} is used {count} times.")


def select_frames(
    pools: Mapping[str, Sequence[IndexedClip]],
    settings: Settings,
) -> list[SelectedFrame]:
    """Choose frames of each split, sorted by split and id.

    Where there are fewer frames than wanted, all are taken, with a note; DataError
    where there are none.
    """
    chosen = []
    for number, split in enumerate(SPLITS):
        pool, count = pools[split], settings.frames[number]
        if count == 0 or (count is None and not pool):
            continue
        step = frame_step(pool, count, settings.every)
        places = [
            (place, frame)
            for place, indexed in enumerate(pool)
            for frame in range(0, len(indexed.usable), step)
            if indexed.usable[frame]
        ]
        if not places:
            raise DataError(
                f"Split {split} has no usable frames. --frames can leave it out (0)."
            )
        if count is None or count == len(places):
            note(f"{split}: all {len(places)} frames")
        elif count > len(places):
            note(f"{split}: all {len(places)} frames, fewer than the wanted {count}")
        else:
            note(f"{split}: choosing {count} of {len(places)} frames")
        joints = np.stack([pool[place].joints_3d[frame] for place, frame in places])
        chosen_places, clusters = select(
            standardised(pose_features(joints)),
            len(places) if count is None else count,
            settings.clusters[number],
            np.random.default_rng([settings.seed, number]),
            settings.method,
        )
        frames = [
            SelectedFrame(pool[places[i][0]].clip, places[i][1] + 1, int(cluster))
            for i, cluster in zip(chosen_places, clusters)
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
    """Write selection.csv; `src` is the raw folder."""
    lines = []
    for row in frames:
        clip = row.clip.stem.relative_to(src).as_posix()
        line = (row.split, row.id, clip, row.frame, row.cluster)
        lines.append(dict(zip(FIELDS, line)))
    storage.write_table(path, lines)


def read_selection(path: Path, src: Path, clips: Sequence[Clip]) -> list[SelectedFrame]:
    """The frames a selection.csv lists, sorted by split and id.

    DataError where it cannot be read, or a line names no frame of the clips.
    """
    by_place = {clip.stem.relative_to(src).as_posix(): clip for clip in clips}
    frames = []
    for number, line in enumerate(_read_lines(path), start=2):
        split, _, place, frame, cluster = line
        clip = by_place.get(place)
        if clip is None or clip.split != split:
            raise DataError(
                f"Line {number} of {path} names {split} {place}, which is no clip of "
                "--src."
            )
        if not (frame.isdecimal() and int(frame) and cluster.lstrip("-").isdecimal()):
            raise DataError(
                f"Line {number} of {path} has {frame}, {cluster} where a frame and a "
                "cluster should be."
            )
        frames.append(SelectedFrame(clip, int(frame), int(cluster)))
    return sorted(frames, key=lambda frame: (SPLITS.index(frame.split), frame.id))


def note_left_out(prepared: Prepared) -> None:
    """Print how many chosen frames of each split the prepared folder lacks."""
    lines = _read_lines(prepared.folder / SELECTION)
    for split, count in Counter(line[0] for line in lines).items():
        missing = count - len(prepared.samples(split))
        if missing:
            note(
                f"{split}: {missing} of {count} chosen frames left out: fewer than "
                f"{FEWEST_BODY_PIXELS} pixels of a person, or in a skipped clip"
            )


def _read_lines(path: Path) -> list[list[str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.reader(file, strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}.") from None
    if not lines or tuple(lines[0]) != FIELDS:
        raise DataError(f"{path} has another header than {','.join(FIELDS)}.")
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(FIELDS):
            raise DataError(
                f"Line {number} of {path} has {len(line)} fields, not {len(FIELDS)}."
            )
    return lines[1:]
