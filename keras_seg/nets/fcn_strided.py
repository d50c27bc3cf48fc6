"""FCN of five strided convolutions and five transposed ones, without skips.

The baseline of CITY (Table 1) and of VOC07 (3.1), two reports of the same course. CITY
has batch norm before the activation (`order="bn_act"`), VOC07 after it
(`order="act_bn"`: "after each layer we apply batch normalization again").

Differs from the paper: CITY prints no strides; stride 2 and output padding 1 are those
of VOC07. Padding is PyTorch's (one row and column on every side), and so is the
geometry of the transposed convolutions. Biases everywhere, batch norm 0.9, 1e-5
(PyTorch's defaults); Glorot uniform kernels ("Xavier").
"""

from functools import partial

import keras

from keras_seg.nets import blocks

INIT = "glorot_uniform"
NORM = {"momentum": 0.9, "epsilon": 1e-5}
ENCODER = (32, 64, 128, 256, 512)
DECODER = (512, 256, 128, 64, 32)

_conv = partial(blocks.conv, padding=1, use_bias=True, initializer=INIT)
_deconv = partial(
    blocks.deconv, padding=1, output_padding=1, use_bias=True, initializer=INIT
)


def build(
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    filter_scale: int = 1,
    order: str = "bn_act",
) -> keras.Model:
    """The network for images [B, H, W, 3], H and W multiples of 32.

    Args:
        filter_scale: factor on every width but the logits'.
        order: "bn_act" or "act_bn".

    Returns:
        keras.Model of image float32 (ImageNet's mean 0, deviation 1) to
        {"logits": raw float32 [B, H, W, num_classes]}.
    """
    blocks.check_choice("fcn_strided", "order", order, ("bn_act", "act_bn"))
    normalise = blocks.bn_relu if order == "bn_act" else blocks.relu_bn
    image = keras.Input(input_shape, name="image")
    x = image
    for i, filters in enumerate(ENCODER, 1):
        x = _conv(x, filters * filter_scale, 3, f"conv{i}", strides=2)
        x = normalise(x, f"conv{i}", **NORM)  # [B, H/2^i, W/2^i, filters]
    for i, filters in enumerate(DECODER, 6):
        x = _deconv(x, filters * filter_scale, 3, f"deconv{i}")
        x = normalise(x, f"deconv{i}", **NORM)  # [B, H/2^(10-i), W/2^(10-i), filters]
    logits = blocks.head(x, num_classes, "conv_final", initializer=INIT)
    return keras.Model(image, {"logits": logits}, name="fcn_strided")
