"""U-Net with batch norm and 512 channels at the bottom.

CITY 3.7 (Table 3), after Ronneberger et al. 2015. The bottom (512 channels) and the
decoder's blocks (256, 128, 64, 16) are narrower than there, and nothing is cropped.

Differs from the paper: Table 3 writes "cat[conv2_2, conv5_2]"; the channel counts
show that a skip is concatenated with the transposed convolution below it. Transposed
convolutions have neither batch norm nor activation. Biases everywhere, batch norm 0.9,
1e-5 (PyTorch's defaults); Glorot uniform kernels.
"""

from functools import partial

import keras
from keras import layers

from keras_seg.nets import blocks

INIT = "glorot_uniform"
NORM = {"momentum": 0.9, "epsilon": 1e-5}
ENCODER = (64, 128, 256, 512)
BOTTLENECK = 512
# Level: channels of the transposed convolution, of the block after the concatenation.
DECODER = {4: (512, 256), 3: (256, 128), 2: (128, 64), 1: (64, 16)}

_conv_bn_relu = partial(blocks.conv_bn_relu, use_bias=True, initializer=INIT, norm=NORM)
_deconv = partial(blocks.deconv, use_bias=True, initializer=INIT)


def build(
    input_shape: tuple[int, int, int], num_classes: int, *, filter_scale: int = 1
) -> keras.Model:
    """The network for images [B, H, W, 3], H and W multiples of 16.

    Args:
        filter_scale: factor on every width but the logits'.

    Returns:
        keras.Model of image float32 (ImageNet's mean 0, deviation 1) to
        {"logits": raw float32 [B, H, W, num_classes]}.
    """
    image = keras.Input(input_shape, name="image")
    x = image

    skips = {}  # level i: [B, H/2^(i-1), W/2^(i-1), filters]
    for i, filters in enumerate(ENCODER, 1):
        x = skips[i] = _block(x, filters * filter_scale, f"enc{i}")
        x = layers.MaxPooling2D(2, name=f"enc{i}_pool")(x)  # [B, H/2^i, W/2^i, ...]
    x = _block(x, BOTTLENECK * filter_scale, "bottleneck")  # [B, H/16, W/16, 512]

    for i, (up_filters, filters) in DECODER.items():
        x = _deconv(x, up_filters * filter_scale, 2, f"dec{i}_up")
        # [B, H/2^(i-1), W/2^(i-1), ...]
        x = layers.Concatenate(name=f"dec{i}_concat")([skips[i], x])
        x = _block(x, filters * filter_scale, f"dec{i}")

    logits = blocks.head(x, num_classes, "classifier", initializer=INIT)
    return keras.Model(image, {"logits": logits}, name="unet_slim")


def _block(x, filters, name):
    """Two 3x3 convolutions with batch norm and ReLU."""
    for j in (1, 2):
        x = _conv_bn_relu(x, filters, 3, f"{name}_conv{j}")
    return x
