"""The strided FCN with one more convolution and PReLU instead of ReLU.

CITY 3.4 ("adapted" baseline): a sixth convolution at the bottom of `fcn_strided`, and
activations max(x, 0) + slope min(x, 0) with one learnt slope per layer.

Differs from the paper: CITY does not say where the convolution goes, its width or its
stride; 512 filters with stride 1 after the fifth keep the decoder as it is. The slope
starts from 0.25 (PyTorch's default); "all the activation functions" are read to include
the transposed convolutions'. Padding, biases, batch norm and kernels as in
`fcn_strided`.
"""

import keras
from keras import layers

from keras_seg.nets import blocks

INIT = "glorot_uniform"
NORM = {"momentum": 0.9, "epsilon": 1e-5}
ENCODER = ((32, 2), (64, 2), (128, 2), (256, 2), (512, 2), (512, 1))  # width, stride
DECODER = (512, 256, 128, 64, 32)


def build(input_shape, num_classes, *, filter_scale=1):
    """The network for images [B, H, W, 3], H and W multiples of 32.

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
    for i, (filters, strides) in enumerate(ENCODER, 1):
        x = blocks.conv(
            x,
            filters * filter_scale,
            3,
            strides=strides,
            padding=1,
            use_bias=True,
            initializer=INIT,
            name=f"conv{i}",
        )
        x = _bn_prelu(x, f"conv{i}")
    # Numbered as in fcn_strided, whose bottom is conv5.
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
        x = _bn_prelu(x, f"deconv{i}")
    logits = blocks.head(x, num_classes, initializer=INIT, name="conv_final")
    return keras.Model(image, {"logits": logits}, name="fcn_strided_prelu")


def _bn_prelu(x, name):
    x = blocks.batch_norm(x, name=f"{name}_bn", **NORM)
    return layers.PReLU(
        alpha_initializer=keras.initializers.Constant(0.25),
        shared_axes=[1, 2, 3],
        name=f"{name}_prelu",
    )(x)
