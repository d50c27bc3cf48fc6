"""The photographs, all without people, and textures among the assets (see NOTICE)."""

from functools import lru_cache

import cv2
import numpy as np

from keras_seg.errors import DataError
from keras_seg.synthetic import body

NAMES = ("chelsea", "china", "coffee", "flower", "hubble", "raccoon", "rocket")
TEXTURES = ("brick", "grass", "gravel")


@lru_cache(maxsize=len(NAMES) + len(TEXTURES))
def _read(name: str, flag: int) -> np.ndarray:
    path = body.ASSETS / "photos" / f"{name}.jpg"
    image = cv2.imread(str(path), flag)
    if image is None:
        raise DataError(f"{path} is not a readable JPEG. Install keras_seg again.")
    return image


def photo(name: str) -> np.ndarray:
    """RGB uint8 [H, W, 3]."""
    return _read(name, cv2.IMREAD_COLOR)[..., ::-1]


def texture(name: str) -> np.ndarray:
    """float32 [256, 256], mean 0, standard deviation 1."""
    grey = _read(f"texture_{name}", cv2.IMREAD_GRAYSCALE).astype(np.float32)
    return (grey - grey.mean()) / grey.std()


def crop(
    rng: np.random.Generator, height: int, width: int, min_share: float = 0.45
) -> tuple[str, np.ndarray]:
    """A photograph's name, and part of it: RGB uint8 [height, width, 3].

    Mirrored and tinted in half of the draws each; its smallest side is at least
    `min_share` of the largest possible one.
    """
    name = NAMES[rng.integers(len(NAMES))]
    image = photo(name)
    aspect = width / height
    full_height, full_width = image.shape[:2]
    rows = min(full_height, full_width / aspect) * rng.uniform(min_share, 1)
    columns = rows * aspect
    top = rng.uniform(0, full_height - rows)
    left = rng.uniform(0, full_width - columns)
    part = image[int(top) : int(top + rows), int(left) : int(left + columns)]
    method = cv2.INTER_AREA if part.shape[0] > height else cv2.INTER_CUBIC
    part = cv2.resize(np.ascontiguousarray(part), (width, height), interpolation=method)
    if rng.random() < 0.5:
        part = part[:, ::-1]
    if rng.random() < 0.5:
        part = tint(rng, part)
    return name, np.ascontiguousarray(part)


def tint(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """The same picture with its hue, saturation and gamma changed."""
    hsv = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2HSV)
    hue = (hsv[..., 0].astype(int) + int(rng.normal(0, 18))) % 180
    saturation = np.clip(hsv[..., 1] * rng.uniform(0.2, 1.2), 0, 255)
    value = 255 * (hsv[..., 2] / 255) ** rng.uniform(0.65, 1.5)
    hsv = np.stack([hue, saturation, value], axis=-1).astype(np.uint8)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
