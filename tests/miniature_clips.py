"""Small raw clips in SURREAL's format: a striped figure that moves over a ramp."""

import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy.io import savemat

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # damaged videos are quiet

HEIGHT, WIDTH = 240, 320
# The figure from top to bottom: rows of these parts, so many pixels high each.
STRIPES = ((16, 14), (13, 6), (10, 20), (7, 10), (4, 10), (1, 10), (2, 20), (5, 20))
FIGURE = (sum(height for _, height in STRIPES), 36)


@dataclass
class MiniClip:
    """A clip as arrays; `write` saves it, `stem` is where."""

    stem: Path
    images: np.ndarray  # uint8 RGB [T, 240, 320, 3]
    labels: np.ndarray  # uint8 [T, 240, 320]
    joints_2d: np.ndarray  # float32 [2, 24, T]
    joints_3d: np.ndarray  # float32 [3, 24, T]
    stride: int

    def write(self) -> "MiniClip":
        self.stem.parent.mkdir(parents=True, exist_ok=True)
        self.write_labels()
        self.write_info()
        self.write_video()
        return self

    def path(self, ending: str) -> Path:
        return self.stem.with_name(self.stem.name + ending)

    def write_labels(self, **variables):
        names = {f"segm_{k}": label for k, label in enumerate(self.labels, start=1)}
        savemat(self.path("_segm.mat"), names | variables, do_compression=True)

    def write_info(self, **variables):
        cell = np.empty((1, len(self.images)), object)
        cell[0] = "a background"
        info = {
            "bg": cell,
            "joints2D": self.joints_2d,
            "joints3D": self.joints_3d,
            "stride": np.uint8([[self.stride]]),
            "sequence": self.stem.parent.name,
        }
        savemat(self.path("_info.mat"), info | variables, do_compression=True)

    def write_video(self, frames=None):
        path, codec = str(self.path(".mp4")), cv2.VideoWriter_fourcc(*"mp4v")
        video = cv2.VideoWriter(path, codec, 30, (WIDTH, HEIGHT))
        for image in self.images if frames is None else frames:
            video.write(np.ascontiguousarray(image[..., ::-1]))
        video.release()


def make(
    root: Path,
    split: str = "train",
    sequence: str = "01_01",
    number: int = 1,
    run: str = "run0",
    stride: int = 50,
    frames: int = 4,
    seed: int = 0,
) -> MiniClip:
    """A clip of random poses; the figure walks from left to right."""
    rng = np.random.default_rng([seed, number, frames])
    top, left = int(rng.integers(10, 110)), int(rng.integers(10, 60))
    labels = np.zeros((frames, HEIGHT, WIDTH), np.uint8)
    rows = np.concatenate([np.full(height, part) for part, height in STRIPES])
    joints_2d = np.zeros((2, 24, frames), np.float32)
    for t in range(frames):
        x = left + 6 * t
        labels[t, top : top + FIGURE[0], x : x + FIGURE[1]] = rows[:, None]
        joints_2d[0, :, t] = x + rng.integers(0, FIGURE[1], 24)
        joints_2d[1, :, t] = top + rng.integers(0, FIGURE[0], 24)
    ramp = np.linspace(20, 90, WIDTH)[None, :, None] * [1.0, 0.8, 0.6]
    colours = np.random.default_rng(1).integers(100, 250, (25, 3))
    images = np.where(labels[..., None] > 0, colours[labels], ramp).astype(np.uint8)
    name = f"{sequence}_c{number:04d}"
    return MiniClip(
        root / "cmu" / split / run / sequence / name,
        images,
        labels,
        joints_2d,
        rng.normal(size=(3, 24, frames)).astype(np.float32),
        stride,
    )


def dataset(root: Path) -> list[MiniClip]:
    """Three clips of train, one of val, two of test, and one of another stride."""
    clips = [
        make(root, "train", "01_01", 1),
        make(root, "train", "01_01", 2, frames=5),
        make(root, "train", "02_03", 1, seed=1),
        make(root, "train", "02_03", 1, run="run1", stride=30),
        make(root, "val", "05_01", 2, seed=2),
        make(root, "test", "06_01", 1, seed=3),
        make(root, "test", "06_01", 2, seed=3),
    ]
    return [clip.write() for clip in clips]
