"""Random geometry and colours of training samples: drawn first, then applied.

What is drawn is a small frozen record, `Geometry` or `Colour`; applying it is a pure
function. Every part of the geometry (mirror, half turn, zoom, rotation, crop or pad)
enters one affine map, so that an image is resampled once: bilinearly, filled with 0,
and its label by nearest, filled with 255. A label therefore never gets an id that it
did not have.

Pixel centres have whole coordinates, (0, 0) is the centre of the top left pixel.
Sources: BODY 3.1 and its code, CITY section 3, VOC07 4c.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
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
        "balance": {"balance": 0.5},
        "brightness": {"brightness": 0.4},
        "contrast": {"contrast": 0.4},
        "saturation": {"saturation": 0.4},
        "hue": {"hue": 0.1},
        "blur": {"blur": 1.5},
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


def over_a_class(
    geometry: Geometry,
    label: np.ndarray,
    crop: tuple[int, int] | None,
    rng: np.random.Generator,
) -> Geometry:
    """The geometry with a `place` whose crop has a pixel of a class drawn at random.

    The class is drawn from those of the label, each as likely, then the pixel from
    those of the class, then the place from all whose crop holds the pixel. Where
    nothing is cropped on an axis, and where no pixel is labelled, it is as before.

    Args:
        label: uint8 [H, W], class ids and 255, before the geometry.
        crop: (height, width) of the result; None is that of the label.
    """
    which, pixel, *along = rng.random(4).tolist()
    present = np.flatnonzero(np.bincount(label.ravel(), minlength=256)[:IGNORE_ID])
    if not len(present):
        return geometry
    chosen = present[int(which * len(present))]
    pixels = np.flatnonzero(label.ravel() == chosen)
    y, x = divmod(int(pixels[int(pixel * len(pixels))]), label.shape[1])
    extent = np.array(label.shape[::-1], dtype=np.float64)
    zoomed = geometry.scale * extent
    spot = _linear(geometry) @ (np.array([x, y]) - (extent - 1) / 2) + zoomed / 2 - 0.5
    place = list(geometry.place)
    for axis, side in enumerate(crop or label.shape):
        room = zoomed[1 - axis] - side
        if room > 0:
            # Where the crop may begin so that it holds the pixel, whole
            first = np.clip(spot[1 - axis] - side + 1, 0, room)
            last = np.clip(spot[1 - axis], 0, room)
            place[axis] = float((first + along[axis] * (last - first)) / room)
    return replace(geometry, place=(place[0], place[1]))


def affine(
    geometry: Geometry, size: tuple[int, int], crop: tuple[int, int] | None = None
) -> np.ndarray:
    """float64 [2, 3]: takes (x, y, 1) of the sample to (x, y) of the result.

    Args:
        size: (height, width) of the sample in pixels.
        crop: of the result; None is `size`.
    """
    height, width = size
    linear = _linear(geometry)
    extent = np.array([width, height], dtype=np.float64)
    place = np.array([geometry.place[1], geometry.place[0]])
    corner = place * (1 - geometry.scale) * extent  # of the zoomed image
    if crop is not None:
        corner += place * (np.array(crop[::-1]) - extent)
        if _is_exact(geometry):
            corner = np.rint(corner)
    centre = corner + geometry.scale * extent / 2 - 0.5
    offset = centre - linear @ ((extent - 1) / 2)
    return np.column_stack([linear, offset])


def _linear(geometry: Geometry) -> np.ndarray:
    """float64 [2, 2]: what the geometry does to (x, y) about the centre."""
    radians = np.deg2rad(geometry.angle)
    cos, sin = geometry.scale * np.cos(radians), geometry.scale * np.sin(radians)
    # y points down: a turn that looks counter-clockwise takes +x towards -y
    linear = np.array([[cos, sin], [-sin, cos]])
    if geometry.half_turn:
        linear = -linear
    if geometry.mirror:
        linear[:, 0] = -linear[:, 0]
    return linear


def _is_exact(geometry: Geometry) -> bool:
    """Whether pixels only change places."""
    return geometry.scale == 1 and geometry.angle == 0


def apply(
    geometry: Geometry,
    image: np.ndarray,
    label: np.ndarray,
    joints: np.ndarray | None = None,
    crop: tuple[int, int] | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """The sample after the geometry; the arguments are left as they are.

    Mirror images, half turns and crops alone are exact: pixels change places. An image
    that shrinks is smoothed first, so that it looks like one that was resized with
    antialiasing, as the images of the validation are; BODY's code resizes without.

    Args:
        image: uint8 [H, W, 3].
        label: uint8 [H, W], class ids and 255.
        joints: float32 [J, 2], (x, y) in pixels, NaN where missing; or None.
        crop: (height, width) of the result; None is that of the sample.

    Returns:
        (image, label, joints) of the same types, H and W those of the crop. Joints
        may lie outside.
    """
    size = label.shape
    crop = None if crop == size else crop
    matrix = affine(geometry, size, crop)
    if joints is not None:
        joints = (joints @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
    if crop is None and _is_exact(geometry):
        rows, columns = geometry.half_turn, geometry.half_turn != geometry.mirror
        if rows or columns:
            # 0 reverses the rows, 1 the columns, -1 both
            axis = -1 if rows and columns else int(columns)
            image, label = cv2.flip(image, axis), cv2.flip(label, axis)
        return image, label, joints

    width, height = (crop or size)[::-1]
    if geometry.scale < 1:
        image = cv2.GaussianBlur(image, (0, 0), antialias_sigma(geometry.scale))
    image = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR)
    label = cv2.warpAffine(
        label, matrix, (width, height), flags=cv2.INTER_NEAREST, borderValue=IGNORE_ID
    )
    return image, label, joints


def antialias_sigma(scale: float) -> float:
    """Deviation in pixels of the smoothing before a bilinear resampling by `scale` < 1.

    Together they have the variance of the triangle filter of an antialiased bilinear
    resize, which is 1 / scale wide on each side: 1 / (6 scale^2); bilinear
    interpolation itself brings 1 / 6.
    """
    return ((1 / scale**2 - 1) / 6) ** 0.5


@dataclass(frozen=True)
class Colour:
    """What happens to the colours of one sample, in this order."""

    brightness: float = 1.0  # factor
    contrast: float = 1.0  # factor on the distance from the mean grey of the image
    saturation: float = 1.0  # factor on the distance from the grey of the pixel
    hue: float = 0.0  # turns
    blur: float = 0.0  # standard deviation in pixels


def draw_colour(augment: Augment, rng: np.random.Generator) -> Colour:
    """The colours of one sample; takes the same seven numbers from `rng` always."""
    *draws, is_jittered, blur, is_blurred = rng.random(7).tolist()
    jitters = is_jittered < augment.jitter_probability
    blurs = is_blurred < augment.blur_probability
    strengths = (augment.brightness, augment.contrast, augment.saturation, augment.hue)
    changes = [
        strength * (2 * draw - 1) if jitters else 0.0
        for strength, draw in zip(strengths, draws)
    ]
    return Colour(
        brightness=1 + changes[0],
        contrast=1 + changes[1],
        saturation=1 + changes[2],
        hue=changes[3],
        blur=augment.blur * blur if blurs else 0.0,
    )


def apply_colour(colour: Colour, image: np.ndarray) -> np.ndarray:
    """uint8 RGB [H, W, 3] after the change of colours; the argument is left as it is.

    As torchvision's ColorJitter defines its parts on float images, each clipped to
    0..255: x b; x c + (1 - c) mean grey; x s + (1 - s) grey; a turn of HSV's H. Grey
    is 0.299 R + 0.587 G + 0.114 B. The order is fixed; rounded once, before the blur.
    """
    x = image.astype(np.float32)
    if colour.brightness != 1:
        x = _mixed(x, colour.brightness * _IDENTITY)
    if colour.contrast != 1:
        mean = float(cv2.cvtColor(x, cv2.COLOR_RGB2GRAY).mean(dtype=np.float64))
        offset = (1 - colour.contrast) * mean
        x = _mixed(x, colour.contrast * _IDENTITY, offset)
    if colour.saturation != 1:
        grey = (1 - colour.saturation) * _GREY
        x = _mixed(x, colour.saturation * _IDENTITY + grey)
    if colour.hue:
        hsv = cv2.cvtColor(x / np.float32(255), cv2.COLOR_RGB2HSV)
        # OpenCV takes hues above 360 as well, but not below 0.
        hsv[..., 0] += np.float32(360 * (colour.hue % 1))
        x = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * np.float32(255)
    image = cv2.convertScaleAbs(x)  # rounded; none is below 0
    if colour.blur:
        image = cv2.GaussianBlur(image, (0, 0), colour.blur)
    return image


_IDENTITY = np.eye(3)
_GREY = np.full((3, 3), (0.299, 0.587, 0.114))


def _mixed(x: np.ndarray, matrix: np.ndarray, offset: float = 0.0) -> np.ndarray:
    """The channels of x [H, W, 3] mixed by a matrix [3, 3], clipped to 0..255."""
    rows = np.column_stack([matrix, np.full(3, offset)])
    x = cv2.transform(x, rows.astype(np.float32))
    return np.clip(x, 0, 255, out=x)


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
