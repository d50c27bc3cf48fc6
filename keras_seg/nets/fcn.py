"""FCN-8s, -16s and -32s: VGG16 made convolutional, scores summed on the way up.

Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic Segmentation",
CVPR 2015; the comparison of CLOTH 4.1 and the baseline of ATTN 3.3.

Differs from the paper: "same" padding and sides that are multiples of 32 instead of
padding by 100 and cropping. The score of fc7 starts at random, not at zero: nothing
below it is pretrained here. All transposed convolutions start as bilinear
interpolation and are trained (the paper fixes the last one). He normal kernels; no
batch norm. The encoder can start from VGG16's weights (`keras_seg.nets.pretrained`),
which expect BGR minus the mean: such a run wants `--preprocess bgr_minus_mean`.
"""

import keras
from keras import layers

from keras_seg.errors import UsageError
from keras_seg.nets import blocks
from keras_seg.nets.layers import BilinearKernel

INIT = "he_normal"
ENCODER = ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3)
# Scores are summed at the strides before the last upsampling, from the coarsest.
SKIP_STAGES = {32: (), 16: (4,), 8: (4, 3)}


def build(input_shape, num_classes, *, filter_scale=1, stride=8, fc=4096):
    """The network for images [B, H, W, 3], H and W multiples of 32.

    Args:
        input_shape: (H, W, channels).
        num_classes: int. Channels of the logits.
        filter_scale: int. Factor on every width but the scores'.
        stride: 32, 16 or 8: of the finest scores.
        fc: int. Channels of fc6 and fc7; 512 for small machines.

    Returns:
        keras.Model of image float32 (RGB / 255) to {"logits": raw float32 [B, H, W,
        num_classes]}.
    """
    if stride not in SKIP_STAGES:
        raise UsageError("fcn stride", stride, "32, 16 or 8")
    if fc < 1:
        raise UsageError("fcn fc", fc, "at least 1")
    image = keras.Input(input_shape, name="image")
    x = image

    pooled = {}  # stage: [B, H / 2^stage, W / 2^stage, C]
    for i, widths in enumerate(ENCODER, 1):
        for j, filters in enumerate(widths, 1):
            x = _conv_relu(x, filters * filter_scale, 3, f"enc{i}_conv{j}")
        x = pooled[i] = layers.MaxPooling2D(2, name=f"enc{i}_pool")(x)
    for name, kernel_size in (("fc6", 7), ("fc7", 1)):
        x = _conv_relu(x, fc * filter_scale, kernel_size, name)
        x = layers.Dropout(0.5, name=f"{name}_dropout")(x)

    x = blocks.head(x, num_classes, initializer=INIT, name="score")
    for i in SKIP_STAGES[stride]:
        x = _upsample(x, 2, f"score_stride{2**i}_up")
        skip = blocks.head(
            pooled[i], num_classes, initializer="zeros", name=f"score_pool{i}"
        )
        x = layers.Add(name=f"score_stride{2**i}_add")([x, skip])
    logits = _upsample(x, stride, "logits")
    return keras.Model(image, {"logits": logits}, name="fcn")


def _conv_relu(x, filters, kernel_size, name):
    x = blocks.conv(x, filters, kernel_size, use_bias=True, initializer=INIT, name=name)
    return blocks.relu(x, name=f"{name}_relu")


def _upsample(scores, factor, name):
    """Trainable transposed convolution of the scores, float32; bilinear at first."""
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
