"""A clip of SURREAL -> samples: decode, repair, crop and resize frames and joints."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_seg.data.surreal import clips
from keras_seg.data.surreal.clips import INFO, LABELS, VIDEO, Clip
from keras_seg.data.surreal.crops import crop_and_resize, square_around
from keras_seg.data.surreal.head_repair import REPAIRS
from keras_seg.data.writer import NewSample
from keras_seg.errors import DataError

FEWEST_BODY_PIXELS = 400  # of a frame that is used


@dataclass(frozen=True)
class SelectedClip:
    """A clip and the numbers of its frames that are wanted, or why it is bad."""

    clip: Clip
    frames: tuple[int, ...]
    error: DataError | None = None

    @property
    def split(self) -> str:
        return self.clip.split

    @property
    def id(self) -> str:
        return self.clip.id


def frame_id(clip: Clip, frame: int) -> str:
    """The id of a sample: 01_01_c0001_f0042 is segm_42 of that clip."""
    return f"{clip.id}_f{frame:04d}"


@dataclass(frozen=True)
class Conversion:
    """The conversion of one clip; picklable."""

    root: Path  # the raw folder, resolved
    size: tuple[int, int]
    margin: float  # of the crop, see `crops.square_around`
    repair: str  # one of `head_repair.REPAIRS`
    merge: tuple[int, ...]  # the new id of each part id

    def __call__(self, item: SelectedClip) -> Iterator[NewSample]:
        """Samples of the wanted frames that show enough of a person."""
        if item.error is not None:
            raise item.error
        if not item.frames:
            return
        clip = item.clip
        clips.check_files(clip, self.root)
        joints = clips.read_info(clip.path(INFO)).joints_2d
        total = len(joints)
        if max(item.frames) > total:
            raise DataError(
                f"{clip.path(INFO)} has {total} frames, but frame {max(item.frames)} "
                "was chosen."
            )
        labels = clips.read_labels(clip.path(LABELS), item.frames, total)
        images = clips.read_frames(clip.path(VIDEO), item.frames, total)
        for frame, image, label in zip(item.frames, images, labels):
            # Before cropping: what the crop cuts off counts for the head's components.
            label = REPAIRS[self.repair](label)
            if np.count_nonzero(label) < FEWEST_BODY_PIXELS:
                continue
            square = square_around(label > 0, self.margin)
            image, label, moved = crop_and_resize(
                image, label, joints[frame - 1], square, self.size
            )
            label, name = np.array(self.merge, np.uint8)[label], frame_id(clip, frame)
            yield NewSample(clip.split, name, image, label, "jpg", moved, clip.sequence)
