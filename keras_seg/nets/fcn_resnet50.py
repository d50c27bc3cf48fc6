"""ResNet50 as a frozen encoder, with the decoder of the strided FCN.

CITY 3.6 (transfer learning, Table 2): He et al., "Deep Residual Learning for Image
Recognition", CVPR 2016, with ImageNet's weights; five transposed convolutions follow.

Differs from the paper: Table 2 lists an average pool to 1x1 before the decoder, but the
text feeds the decoder with the output of the last convolution; there is no pool here.
The encoder is that of keras.applications, with its preprocessing (BGR minus mean).
Decoder as in `fcn_strided`: biases, batch norm 0.9, 1e-5, Glorot uniform kernels.
"""

from functools import partial

import keras

from keras_seg.nets import blocks

INIT = "glorot_uniform"
NORM = {"momentum": 0.9, "epsilon": 1e-5}
DECODER = (512, 256, 128, 64, 32)

_deconv = partial(
    blocks.deconv, padding=1, output_padding=1, use_bias=True, initializer=INIT
)


def build(
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    filter_scale: int = 1,
    freeze: bool = True,
) -> keras.Model:
    """The network for images [B, H, W, 3], H and W multiples of 32.

    Args:
        filter_scale: factor on the decoder's widths; the encoder keeps its own.
        freeze: train the decoder only; the encoder's batch norm keeps its statistics.
            Its weights are random until ImageNet's are loaded.

    Returns:
        keras.Model of image float32 (BGR minus mean) to
        {"logits": raw float32 [B, H, W, num_classes]}.
    """
    image = keras.Input(input_shape, name="image")
    encoder = keras.applications.ResNet50(
        include_top=False, weights=None, input_shape=input_shape
    )
    encoder.trainable = not freeze
    # training=False is part of the graph: fitting does not update the statistics.
    x = encoder(image, training=False) if freeze else encoder(image)
    # [B, H/32, W/32, 2048]
    for i, filters in enumerate(DECODER, 6):
        x = _deconv(x, filters * filter_scale, 3, f"deconv{i}")
        # [B, H/2^(10-i), W/2^(10-i), filters]
        x = blocks.bn_relu(x, f"deconv{i}", **NORM)
    logits = blocks.head(x, num_classes, "conv_final", initializer=INIT)
    model = keras.Model(image, {"logits": logits}, name="fcn_resnet50")
    return model
