"""Input normalisation of the networks, by the name that a network gives it."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from keras_seg.errors import UsageError

CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)  # of the ImageNet photographs, 0..255
IMAGENET_MEAN_RGB = (123.675, 116.28, 103.53)  # (.485, .456, .406) times 255
IMAGENET_STD_RGB = (58.395, 57.12, 57.375)  # (.229, .224, .225) times 255

# What every normalisation is: (are the channels reversed, mean, deviation)
STANDARDS: Mapping[str, tuple] = MappingProxyType(
    {
        "bgr_minus_mean": (True, CAFFE_MEAN_BGR, (1.0, 1.0, 1.0)),
        "rgb_255": (False, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        "unit": (False, (0.0, 0.0, 0.0), (255.0, 255.0, 255.0)),
        "imagenet": (False, IMAGENET_MEAN_RGB, IMAGENET_STD_RGB),
        "signed_unit": (False, (127.0, 127.0, 127.0), (128.0, 128.0, 128.0)),
    }
)


def bgr_minus_mean(image: np.ndarray) -> np.ndarray:
    """RGB 0..255 [..., 3] to float32 BGR less the Caffe mean (ICNet, SegNet, VGG)."""
    return _standardise(image, *STANDARDS["bgr_minus_mean"])


def rgb_255(image: np.ndarray) -> np.ndarray:
    """RGB 0..255 [..., 3] to float32 RGB 0..255, unchanged (SegNet-basic)."""
    # Its row of STANDARDS subtracts 0 and divides by 1.
    return image.astype(np.float32)


def unit(image: np.ndarray) -> np.ndarray:
    """RGB 0..255 [..., 3] to float32 RGB 0..1 (hourglass, CLOTH)."""
    return _standardise(image, *STANDARDS["unit"])


def imagenet(image: np.ndarray) -> np.ndarray:
    """RGB 0..255 [..., 3] to float32 RGB of mean 0 and deviation 1 over ImageNet."""
    return _standardise(image, *STANDARDS["imagenet"])


def signed_unit(image: np.ndarray) -> np.ndarray:
    """RGB 0..255 [..., 3] to float32 RGB -0.99..1 (EfficientNet-Lite)."""
    return _standardise(image, *STANDARDS["signed_unit"])


def _standardise(image, is_reversed, mean, deviation):
    """(image - mean) / deviation, channel by channel.

    Three long strided loops: broadcasting over a last axis of 3 is four times slower.
    """
    if is_reversed:
        image = image[..., ::-1]
    standard = np.empty(image.shape, dtype=np.float32)
    for channel in range(3):
        out = standard[..., channel]
        np.subtract(
            image[..., channel], np.float32(mean[channel]), out=out, dtype=np.float32
        )
        if deviation[channel] != 1:
            out /= np.float32(deviation[channel])
    return standard


PREPROCESS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = MappingProxyType(
    {
        function.__name__: function
        for function in (bgr_minus_mean, rgb_255, unit, imagenet, signed_unit)
    }
)


def apply(name: str, image: np.ndarray) -> np.ndarray:
    """The image as the network wants it.

    Args:
        name: a key of `PREPROCESS`, as in `keras_seg.nets.NETS[net].preprocess`.
        image: uint8 or float RGB [..., 3], 0..255.

    Returns:
        float32 [..., 3]; a new array. Padding, of value 0, comes after it.

    Raises:
        UsageError: an unknown name.
    """
    if name not in PREPROCESS:
        raise UsageError(
            f"Unknown normalisation {name!r}. Normalisations: {', '.join(PREPROCESS)}."
        )
    return PREPROCESS[name](image)
