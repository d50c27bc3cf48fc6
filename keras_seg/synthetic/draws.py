"""Random choices and colours that clothes, rooms and streets share."""

from collections.abc import Mapping
from typing import TypeVar

import cv2
import numpy as np

ANY = (0.0, 1.0)  # a range for `hsv`: any hue

Key = TypeVar("Key")


def pick(rng: np.random.Generator, weights: Mapping[Key, float]) -> Key:
    """A key, with a probability in proportion to its weight."""
    shares = np.array(list(weights.values()))
    return list(weights)[rng.choice(len(shares), p=shares / shares.sum())]


def hsv(rng: np.random.Generator, *components: float | tuple[float, float]):
    """sRGB float [3]; hue, saturation and value are numbers or ranges to draw from."""
    drawn = [rng.uniform(*c) if isinstance(c, tuple) else c for c in components]
    return from_hsv(*drawn)


def from_hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    """sRGB float [3] in 0..1 of hue, saturation and value in 0..1."""
    colour = np.array([[[hue * 360, saturation, value]]], np.float32)
    return cv2.cvtColor(colour, cv2.COLOR_HSV2RGB)[0, 0].astype(float)


def from_hex(colours: str) -> np.ndarray:
    """sRGB float [N, 3] in 0..1 of "rrggbb rrggbb ..."."""
    return np.array([list(bytes.fromhex(colour)) for colour in colours.split()]) / 255
