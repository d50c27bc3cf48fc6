"""U-Net with batch norm and 512 channels at the bottom.

CITY 3.7 (Table 3), after Ronneberger et al. 2015. Against the original: the bottom (512
channels) and the decoder's blocks (256, 128, 64, 16) are narrower, nothing is cropped.

Differs from the paper: Table 3 writes "cat[conv2_2, conv5_2]" for the concatenation of
a skip and the transposed convolution of the level below, which is what its channel
counts say. Transposed convolutions have neither batch norm nor activation. Biases
everywhere, batch norm 0.9, 1e-5 (PyTorch's defaults); Glorot uniform kernels.
"""

import keras
from keras import layers

from keras_seg.nets import blocks

INIT = "glorot_uniform"
NORM = {"momentum": 0.9, "epsilon": 1e-5}
ENCODER = (64, 128, 256, 512)
BOTTLENECK = 512
# Level: channels of the transposed convolution, of the block after the concatenation.
DECODER = {4: (512, 256), 3: (256, 128), 2: (128, 64), 1: (64, 16)}


def build(input_shape, num_classes, *, filter_scale=1):
    """The network for images [B, H, W, 3], H and W multiples of 16.

    Args:
        input_shape: (H, W, channels).
        num_classes: int. Channels of the logits.
        filter_scale: int. Factor on every width but the logits'.

    Returns:
        keras.Model of image float32 (ImageNet's mean 0, deviation 1) to {"logits": raw
        float32 [B, H, W, num_classes]}.
    """
    image = keras.Input(input_shape, name="image")
    x = image

    skips = {}  # level: [B, H / 2^(level - 1), W / 2^(level - 1), C]
    for i, filters in enumerate(ENCODER, 1):
        x = skips[i] = _block(x, filters * filter_scale, f"enc{i}")
        x = layers.MaxPooling2D(2, name=f"enc{i}_pool")(x)
    x = _block(x, BOTTLENECK * filter_scale, "bottleneck")  # stride 16

    for i, (up_filters, filters) in DECODER.items():
        x = blocks.deconv(
            x,
            up_filters * filter_scale,
            2,
            use_bias=True,
            initializer=INIT,
            name=f"dec{i}_up",
        )
        x = layers.Concatenate(name=f"dec{i}_concat")([skips[i], x])
        x = _block(x, filters * filter_scale, f"dec{i}")

    logits = blocks.head(x, num_classes, initializer=INIT, name="classifier")
    return keras.Model(image, {"logits": logits}, name="unet_slim")


def _block(x, filters, name):
    """Two 3x3 convolutions with batch norm and ReLU."""
    for j in (1, 2):
        x = blocks.conv(
            x, filters, 3, use_bias=True, initializer=INIT, name=f"{name}_conv{j}"
        )
        x = blocks.batch_norm(x, name=f"{name}_conv{j}_bn", **NORM)
        x = blocks.relu(x, name=f"{name}_conv{j}_relu")
    return x
