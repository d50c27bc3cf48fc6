"""The clips of SURREAL: finding them and reading their files.

    <src>/cmu/{train,val,test}/run{0,1,2}/<sequence>/<sequence>_c0001.mp4
                                                                    _segm.mat
                                                                    _info.mat

Everything that is read is checked: the files come from anywhere, and of 67,582 clips
some arrive damaged. Frames are counted from 1, as in segm_1, segm_2, ...
"""

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from keras_seg import storage
from keras_seg.data.matlab import MatFile, open_mat
from keras_seg.data.raw import check_file
from keras_seg.errors import DataError

FRAME_SIZE = (240, 320)  # height and width of every frame
JOINTS = 24
PARTS = 24  # labels are 0..24
SPLITS = ("train", "val", "test")
VIDEO, LABELS, INFO = ENDINGS = (".mp4", "_segm.mat", "_info.mat")

_FILE = re.compile(r"(.+_c\d+)(\.mp4|_segm\.mat|_info\.mat)")
_MP4_BRAND = b"ftyp"  # bytes 4 to 7


@dataclass(frozen=True)
class Clip:
    """A clip by the names of its files."""

    split: str  # train, val or test, by its folder
    sequence: str  # the folder of its motion sequence
    id: str  # <sequence>_c0001
    stem: Path  # of its files, without their endings
    sizes: tuple[int | None, ...]  # bytes, by ENDINGS; None where a file is missing

    def path(self, ending: str) -> Path:
        return self.stem.with_name(self.id + ending)


@dataclass(frozen=True)
class Info:
    """The part of a clip's _info.mat that is used; T frames."""

    stride: int  # overlap with the next clip in percent: 30, 50 or 70
    joints_2d: np.ndarray  # float32 [T, 24, 2], x and y in px; pixel centres are whole
    joints_3d: np.ndarray  # float32 [T, 24, 3], metres, world axes, y is vertical


def find_clips(src: Path) -> list[Clip]:
    """All clips under src/cmu, sorted by split, run and name; no file is opened."""
    clips = []
    for split in SPLITS:
        for folder in sorted((src / "cmu" / split).glob("run*/*")):
            clips += _clips_of_sequence(split, folder)
    if not clips:
        raise DataError(
            f"{src / 'cmu'} has no clips <split>/run*/<sequence>/*_c0001.mp4."
        )
    return clips


def _clips_of_sequence(split: str, folder: Path) -> list[Clip]:
    found: dict[str, dict[str, int]] = {}
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        for entry in entries:
            match = _FILE.fullmatch(entry.name)
            if match and entry.is_file():
                found.setdefault(match[1], {})[match[2]] = entry.stat().st_size
    clips = []
    for name, sizes in sorted(found.items()):
        in_order = tuple(sizes.get(ending) for ending in ENDINGS)
        clips.append(Clip(split, folder.name, name, folder / name, in_order))
    return clips


def fingerprint(src: Path, clips: Collection[Clip]) -> str:
    """SHA-256 over names and sizes of the raw files, to notice changed ones."""
    lines = [[clip.stem.relative_to(src).as_posix(), clip.sizes] for clip in clips]
    return storage.json_sha256(lines)


def check_files(clip: Clip, root: Path) -> None:
    """DataError where a file is missing or a link leads out of the resolved `root`."""
    for ending in ENDINGS:
        check_file(clip.path(ending), root)


def read_info(path: Path) -> Info:
    """Read an _info.mat; where T is 1, MATLAB has dropped the last axis.

    DataError where it is unreadable or a variable has another shape.
    """
    names = ("stride", "joints2D", "joints3D")
    values = open_mat(path).read(names)
    joints = {}
    for name, axes in (("joints2D", 2), ("joints3D", 3)):
        value = values[name]
        if value.ndim == 2:
            value = value[..., None]
        if value.ndim != 3 or value.shape[:2] != (axes, JOINTS) or not value.size:
            raise DataError(
                f"{name} in {path} has shape {value.shape}, not {axes} x {JOINTS} x T."
            )
        joints[name] = np.ascontiguousarray(value.transpose(2, 1, 0), np.float32)
    frames = {name: len(value) for name, value in joints.items()}
    if len(set(frames.values())) > 1:
        raise DataError(f"{path} has different numbers of frames: {frames}.")
    stride = values["stride"]
    if stride.size != 1:
        raise DataError(f"stride in {path} has shape {stride.shape}, not one number.")
    return Info(int(stride.item()), joints["joints2D"], joints["joints3D"])


def read_labels(path: Path, wanted: Collection[int], total: int) -> list[np.ndarray]:
    """Labels of the wanted frames from a _segm.mat: uint8 [240, 320] each.

    DataError where it does not have just segm_1 .. segm_total, of this shape and with
    ids up to 24.
    """
    file = open_mat(path)
    _check_frames(file, total)
    names = [f"segm_{frame}" for frame in wanted]
    values = file.read(names)
    for name, label in values.items():
        if label.dtype != np.uint8:
            raise DataError(f"{name} in {path} is {label.dtype}, not uint8.")
        if label.max() > PARTS:
            count = np.count_nonzero(label > PARTS)
            raise DataError(
                f"{name} in {path} has class id {label.max()} ({count} pixels above "
                f"{PARTS})."
            )
    return [values[name] for name in names]


def _check_frames(file: MatFile, total: int) -> None:
    shapes = {
        name: shape for name, shape in file.shapes().items() if name.startswith("segm_")
    }
    expected = {f"segm_{frame}" for frame in range(1, total + 1)}
    for name in sorted(expected - shapes.keys(), key=lambda name: int(name[5:])):
        raise DataError(f"{name} is missing in {file.path} of {total} frames.")
    for name, shape in shapes.items():
        if name not in expected:
            raise DataError(f"{name} in {file.path} is beyond its {total} frames.")
        if shape != FRAME_SIZE:
            raise DataError(
                f"{name} in {file.path} has shape {shape}, not {FRAME_SIZE}."
            )


def read_frames(path: Path, wanted: Collection[int], total: int) -> list[np.ndarray]:
    """Frames of a video: uint8 RGB [240, 320, 3] each, in the order of `wanted`.

    The whole video is decoded: a decoder silently skips what is damaged, and only the
    number of decoded frames shows it. DataError where it is not `total`.
    """
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    if start[4:] != _MP4_BRAND:  # nor a playlist, which would open other files
        raise DataError(f"{path} is not an mp4 file.")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # errors are raised below
    threads = [cv2.CAP_PROP_N_THREADS, 1]  # clips are decoded in parallel already
    video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, threads)
    try:
        if not video.isOpened():
            raise DataError(f"{path} cannot be decoded.")
        properties = (
            cv2.CAP_PROP_FRAME_HEIGHT,
            cv2.CAP_PROP_FRAME_WIDTH,
            cv2.CAP_PROP_FRAME_COUNT,
        )
        *size, count = (int(video.get(name)) for name in properties)
        if tuple(size) != FRAME_SIZE:
            raise DataError(f"{path} has {size[0]} x {size[1]} pixels, not 240 x 320.")
        if count != total:
            raise DataError(f"{path} has {count} frames, its {INFO} {total}.")
        frames = {}
        for number in range(1, total + 1):
            if not video.grab():
                raise DataError(
                    f"{path} is damaged: only {number - 1} of {count} frames can be "
                    "decoded."
                )
            if number in wanted:
                done, frames[number] = video.retrieve()
                if not done:
                    raise DataError(f"{path} is damaged in frame {number}.")
    finally:
        video.release()
    return [cv2.cvtColor(frames[number], cv2.COLOR_BGR2RGB) for number in wanted]
