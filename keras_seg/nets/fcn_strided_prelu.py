"""The strided FCN with one more convolution and PReLU instead of ReLU.

CITY 3.4 ("adapted" baseline): a sixth convolution at the bottom of `fcn_strided`, and
activations max(x, 0) + slope min(x, 0) with one learnt slope per layer.

Differs from the paper: CITY gives neither the place of the new convolution nor its
width or stride; 512 filters with stride 1 after the fifth keep the decoder unchanged.
The slope starts at 0.25 (PyTorch's default); "all the activation functions" is taken to
include those of the transposed convolutions. Padding, biases, batch norm and kernels as
in `fcn_strided`.
"""

from functools import partial

import keras
from keras import layers

from keras_seg.nets import blocks

INIT = "glorot_uniform"
NORM = {"momentum": 0.9, "epsilon": 1e-5}
ENCODER = ((32, 2), (64, 2), (128, 2), (256, 2), (512, 2), (512, 1))  # width, stride
DECODER = (512, 256, 128, 64, 32)

_conv = partial(blocks.conv, padding=1, use_bias=True, initializer=INIT)
_deconv = partial(
    blocks.deconv, padding=1, output_padding=1, use_bias=True, initializer=INIT
)


def build(
    input_shape: tuple[int, int, int], num_classes: int, *, filter_scale: int = 1
) -> keras.Model:
    """The network for images [B, H, W, 3], H and W multiples of 32.

    Args:
        filter_scale: factor on every width but the logits'.

    Returns:
        keras.Model of image float32 (ImageNet's mean 0, deviation 1) to
        {"logits": raw float32 [B, H, W, num_classes]}.
    """
    image = keras.Input(input_shape, name="image")
    x = image
    for i, (filters, strides) in enumerate(ENCODER, 1):
        x = _conv(x, filters * filter_scale, 3, f"conv{i}", strides=strides)
        x = _bn_prelu(x, f"conv{i}")  # [B, H/2^i, W/2^i, filters]; conv6 [B, H/32, ...]
    # Numbered as in fcn_strided, whose bottom is conv5: deconv6 follows conv6.
    for i, filters in enumerate(DECODER, 6):
        x = _deconv(x, filters * filter_scale, 3, f"deconv{i}")
        x = _bn_prelu(x, f"deconv{i}")  # [B, H/2^(10-i), W/2^(10-i), filters]
    logits = blocks.head(x, num_classes, "conv_final", initializer=INIT)
    return keras.Model(image, {"logits": logits}, name="fcn_strided_prelu")


def _bn_prelu(x, name):
    x = blocks.batch_norm(x, f"{name}_bn", **NORM)
    return layers.PReLU(
        alpha_initializer=keras.initializers.Constant(0.25),
        shared_axes=[1, 2, 3],
        name=f"{name}_prelu",
    )(x)
