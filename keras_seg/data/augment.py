"""Random geometry of training samples: drawn first, then applied in one resampling.

What is drawn is a small frozen record, `Geometry`; applying it is a pure function.
Every part (mirror, half turn, zoom, rotation, crop or pad) enters one affine map, so
that an image is resampled once: bilinearly, filled with 0, and its label by nearest,
filled with 255. A label therefore never gets an id that it did not have.

Pixel centres have whole coordinates, (0, 0) is the centre of the top left pixel.
Sources: BODY 3.1 and its code, CITY section 3, VOC07 4c.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np

from keras_seg.config import Augment
from keras_seg.labels import IGNORE_ID

# What `--augment NAME` switches on; `--set augment.NAME=VALUE` sets any strength.
AUGMENTATIONS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "mirror": {"mirror": 0.5},
        "scale": {"scale": (0.5, 2.0)},
        "rotate": {"rotate": 10.0},
        "flip180": {"flip180": 0.5},
        "noise": {"noise": 10.0},
    }
)


@dataclass(frozen=True)
class Geometry:
    """What happens to one sample, in this order."""

    mirror: bool = False  # left and right change places
    half_turn: bool = False  # turned by 180 degrees
    scale: float = 1.0  # above 1 cropped to the old size afterwards, below 1 padded
    angle: float = 0.0  # degrees, counter-clockwise as seen, about the centre
    # (vertical, horizontal) in 0..1: where the crop is taken from or the smaller image
    # is put; 0 is the top or the left.
    place: tuple[float, float] = (0.5, 0.5)


def draw_geometry(augment: Augment, rng: np.random.Generator) -> Geometry:
    """The geometry of one sample.

    Always takes the same seven numbers from `rng`, so that switching one part on
    leaves the draws of the others as they were.
    """
    mirror, half_turn, scale, is_rotated, angle, top, left = rng.random(7).tolist()
    low, high = augment.scale
    rotates = is_rotated < augment.rotate_probability
    return Geometry(
        mirror=mirror < augment.mirror,
        half_turn=half_turn < augment.flip180,
        scale=low + (high - low) * scale,
        angle=augment.rotate * (2 * angle - 1) if rotates else 0.0,
        place=(top, left),
    )


def affine(geometry: Geometry, size: tuple[int, int]) -> np.ndarray:
    """float64 [2, 3]: takes (x, y, 1) of the sample to (x, y) of the result.

    size: (height, width) in pixels, before and after.
    """
    height, width = size
    radians = np.deg2rad(geometry.angle)
    cos, sin = geometry.scale * np.cos(radians), geometry.scale * np.sin(radians)
    # y points down: a turn that looks counter-clockwise takes +x towards -y
    linear = np.array([[cos, sin], [-sin, cos]])
    if geometry.half_turn:
        linear = -linear
    if geometry.mirror:
        linear[:, 0] = -linear[:, 0]
    extent = np.array([width, height], dtype=np.float64)
    place = np.array([geometry.place[1], geometry.place[0]])
    corner = place * (1 - geometry.scale) * extent  # of the zoomed image
    centre = corner + geometry.scale * extent / 2 - 0.5
    offset = centre - linear @ ((extent - 1) / 2)
    return np.column_stack([linear, offset])


def apply(
    geometry: Geometry,
    image: np.ndarray,
    label: np.ndarray,
    joints: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """The sample after the geometry; the arguments are left as they are.

    Mirror images and half turns alone are exact: reversed arrays (views). An image
    that shrinks is smoothed first, so that it looks like one that was resized with
    antialiasing, as the images of the validation are; BODY's code resizes without.

    Args:
        image: uint8 [H, W, 3].
        label: uint8 [H, W], class ids and 255.
        joints: float32 [J, 2], (x, y) in pixels, NaN where missing; or None.

    Returns:
        (image, label, joints) of the same shapes and types. Joints may lie outside.
    """
    size = label.shape
    if joints is not None:
        matrix = affine(geometry, size)
        joints = (joints @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
    if geometry.scale == 1 and geometry.angle == 0:
        rows = slice(None, None, -1 if geometry.half_turn else 1)
        columns = slice(None, None, -1 if geometry.half_turn != geometry.mirror else 1)
        return image[rows, columns], label[rows, columns], joints

    matrix = affine(geometry, size)
    if geometry.scale < 1:
        image = cv2.GaussianBlur(image, (0, 0), antialias_sigma(geometry.scale))
    image = cv2.warpAffine(image, matrix, size[::-1], flags=cv2.INTER_LINEAR)
    label = cv2.warpAffine(
        label, matrix, size[::-1], flags=cv2.INTER_NEAREST, borderValue=IGNORE_ID
    )
    return image, label, joints


def antialias_sigma(scale: float) -> float:
    """Deviation in pixels of the smoothing before a bilinear resampling by `scale` < 1.

    Together they have the variance of the triangle filter of an antialiased bilinear
    resize, which is 1 / scale wide on each side: 1 / (6 scale^2); bilinear
    interpolation itself brings 1 / 6.
    """
    return ((1 / scale**2 - 1) / 6) ** 0.5


def add_noise(
    image: np.ndarray, deviation: float, rng: np.random.Generator
) -> np.ndarray:
    """uint8 [H, W, 3] with Gaussian noise on every channel, rounded and clipped.

    deviation: standard deviation in grey levels, 0..255.
    """
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    noise *= np.float32(deviation)
    noise += image
    return np.clip(np.rint(noise, out=noise), 0, 255, out=noise).astype(np.uint8)
