"""FCN-8s, -16s and -32s: VGG16 made convolutional, with scores summed while upsampling.

Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic Segmentation",
CVPR 2015; the comparison of CLOTH 4.1 and the baseline of ATTN 3.3.

Differs from the paper: "same" padding and sides that are multiples of 32 instead of
padding by 100 and cropping. The score of fc7 starts at random, not at zero, because
nothing below it is pretrained here. All transposed convolutions start as bilinear
interpolation and are trained (the paper fixes the last one). He normal kernels; no
batch norm. The encoder can start from VGG16's weights (`keras_seg.nets.pretrained`),
which expect BGR minus the mean: use `--preprocess bgr_minus_mean` with them.
"""

import keras
from keras import layers

from keras_seg.nets import blocks
from keras_seg.nets.layers import BilinearKernel

INIT = "he_normal"
ENCODER = ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3)
# Stride of the finest scores: the stages whose scores are added, coarsest first.
SKIP_STAGES = {32: (), 16: (4,), 8: (4, 3)}


def build(
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    filter_scale: int = 1,
    stride: int = 8,
    fc: int = 4096,
) -> keras.Model:
    """The network for images [B, H, W, 3], H and W multiples of 32.

    Args:
        filter_scale: factor on every width but the scores'.
        stride: 32, 16 or 8, that of the finest scores.
        fc: channels of fc6 and fc7; 512 suits small machines.

    Returns:
        keras.Model of image float32 (RGB / 255) to
        {"logits": raw float32 [B, H, W, num_classes]}.
    """
    blocks.check_choice("fcn", "stride", stride, tuple(SKIP_STAGES))
    blocks.check_at_least_1("fcn", "fc", fc)
    image = keras.Input(input_shape, name="image")
    x = image

    pooled = {}  # stage i: [B, H/2^i, W/2^i, filters]
    for i, widths in enumerate(ENCODER, 1):
        for j, filters in enumerate(widths, 1):
            x = _conv_relu(x, filters * filter_scale, 3, f"enc{i}_conv{j}")
        x = pooled[i] = layers.MaxPooling2D(2, name=f"enc{i}_pool")(x)
    for name, kernel_size in (("fc6", 7), ("fc7", 1)):
        x = _conv_relu(x, fc * filter_scale, kernel_size, name)
        x = layers.Dropout(0.5, name=f"{name}_dropout")(x)  # [B, H/32, W/32, 4096]

    x = blocks.head(x, num_classes, "score", initializer=INIT)
    for i in SKIP_STAGES[stride]:
        x = _upsample(x, 2, f"score_stride{2**i}_up")  # [B, H/2^i, W/2^i, classes]
        skip = blocks.head(
            pooled[i], num_classes, f"score_pool{i}", initializer="zeros"
        )
        x = layers.Add(name=f"score_stride{2**i}_add")([x, skip])
    logits = _upsample(x, stride, "logits")  # [B, H, W, classes]
    return keras.Model(image, {"logits": logits}, name="fcn")


def _conv_relu(x, filters, kernel_size, name):
    x = blocks.conv(x, filters, kernel_size, name, use_bias=True, initializer=INIT)
    return blocks.relu(x, f"{name}_relu")


def _upsample(scores, factor, name):
    """Trainable transposed convolution of the scores, initially bilinear, float32."""
    return layers.Conv2DTranspose(
        scores.shape[-1],
        2 * factor,
        strides=factor,
        padding="same",
        use_bias=False,
        kernel_initializer=BilinearKernel(),
        dtype="float32",
        name=name,
    )(scores)
