"""FCN of five strided convolutions down and five transposed ones up, without skips.

The baseline of CITY (Table 1) and of VOC07 (3.1), from the same course. CITY has batch
norm before the activation (`order="bn_act"`), VOC07 after it (`order="act_bn"`: "after
each layer we apply batch normalization again").

Differs from the paper: CITY prints no strides; stride 2 and output padding 1 are those
of VOC07. Padding is PyTorch's (one row and column on every side), transposed
convolutions have its geometry. Biases everywhere, batch norm 0.9, 1e-5 (PyTorch's
defaults); Glorot uniform kernels ("Xavier").
"""

import keras

from keras_seg.errors import UsageError
from keras_seg.nets import blocks

INIT = "glorot_uniform"
NORM = {"momentum": 0.9, "epsilon": 1e-5}
ENCODER = (32, 64, 128, 256, 512)
DECODER = (512, 256, 128, 64, 32)


def build(input_shape, num_classes, *, filter_scale=1, order="bn_act"):
    """The network for images [B, H, W, 3], H and W multiples of 32.

    Args:
        input_shape: (H, W, channels).
        num_classes: int. Channels of the logits.
        filter_scale: int. Factor on every width but the logits'.
        order: "bn_act" or "act_bn".

    Returns:
        keras.Model of image float32 (ImageNet's mean 0, deviation 1) to {"logits": raw
        float32 [B, H, W, num_classes]}.
    """
    if order not in ("bn_act", "act_bn"):
        raise UsageError("fcn_strided order", order, "bn_act or act_bn")
    image = keras.Input(input_shape, name="image")
    x = image
    for i, filters in enumerate(ENCODER, 1):  # [B, H / 2^i, W / 2^i, filters]
        x = blocks.conv(
            x,
            filters * filter_scale,
            3,
            strides=2,
            padding=1,
            use_bias=True,
            initializer=INIT,
            name=f"conv{i}",
        )
        x = _norm_and_act(x, order, f"conv{i}")
    for i, filters in enumerate(DECODER, 6):
        x = blocks.deconv(
            x,
            filters * filter_scale,
            3,
            padding=1,
            output_padding=1,
            use_bias=True,
            initializer=INIT,
            name=f"deconv{i}",
        )
        x = _norm_and_act(x, order, f"deconv{i}")
    logits = blocks.head(x, num_classes, initializer=INIT, name="conv_final")
    return keras.Model(image, {"logits": logits}, name="fcn_strided")


def _norm_and_act(x, order, name):
    if order == "act_bn":
        x = blocks.relu(x, name=f"{name}_relu")
        return blocks.batch_norm(x, name=f"{name}_bn", **NORM)
    x = blocks.batch_norm(x, name=f"{name}_bn", **NORM)
    return blocks.relu(x, name=f"{name}_relu")
