"""ICNet with batch norm: three branches at full, half and quarter resolution.

Zhao et al., "ICNet for Real-Time Semantic Segmentation on High-Resolution Images",
ECCV 2018; as in BODY 3.2, which trains the half-width network of
hellochick/ICNet-tensorflow (class ICNet_BN). `filter_scale=1` is that network (BODY's
"normal"), `filter_scale=2` the unpruned one of the paper (BODY's "doubled filters").

Differs from the paper: bilinear resizes use half-pixel centres (that code aligns
corners, so its heads are 19/39/79 at 320 and ours 20/40/80); the pyramid uses
adaptive average pooling. As in that code, pyramid levels are summed, not concatenated,
and the fusions' 3x3 convolution has dilation 2 (BODY prints 1: `cff_dilation`). Its
fourth pyramid level divides by 4: `bins=(1, 2, 3, 4)`.
Batch norm 0.95, 1e-5; Glorot uniform kernels. Layers have the names of that code, so
that its published weights load by name (`keras_seg.nets.pretrained`).
"""

from functools import partial

import keras
from keras import layers

from keras_seg.nets import blocks
from keras_seg.nets.layers import AdaptiveAveragePooling

INIT = "glorot_uniform"
NORM = {"momentum": 0.95, "epsilon": 1e-5}

# Stage: names of its bottlenecks, width, outputs, dilation (for filter_scale=1).
CONV2 = (("conv2_1", "conv2_2", "conv2_3"), 32, 128, 1)
CONV3_LOW = (("conv3_2", "conv3_3", "conv3_4"), 64, 256, 1)
CONV4 = (tuple(f"conv4_{i}" for i in range(1, 7)), 128, 512, 2)
CONV5 = (("conv5_1", "conv5_2", "conv5_3"), 256, 1024, 4)

_conv_bn = partial(blocks.conv_bn, use_bias=False, initializer=INIT, norm=NORM)
_conv_bn_relu = partial(
    blocks.conv_bn_relu, use_bias=False, initializer=INIT, norm=NORM
)


def build(
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    filter_scale: int = 1,
    bins: tuple[int, ...] = (1, 2, 3, 6),
    cff_dilation: int = 2,
) -> keras.Model:
    """The network for images [B, H, W, 3], H and W multiples of 32.

    Args:
        num_classes: channels of every head.
        filter_scale: factor on every width but the heads'.
        bins: grid sizes of the pyramid's levels.
        cff_dilation: dilation of the 3x3 convolution in the cascade fusions.

    Returns:
        keras.Model of image float32 (BGR minus mean) to raw float32 logits:
        "logits" [B, H/4, W/4, num_classes], "sub24_logits" [B, H/8, W/8, ...],
        "sub4_logits" [B, H/16, W/16, ...].
    """
    height, width, _ = input_shape
    fs = filter_scale
    image = keras.Input(input_shape, name="image")

    # The half-resolution branch, down to 1/16; the quarter-resolution branch shares it
    # up to conv3_1, then continues at 1/32.
    x = blocks.resize(image, height // 2, width // 2, "data_sub2")  # [B, H/2, W/2, 3]
    x = _conv_bn_relu(x, 32 * fs, 3, "conv1_1_3x3_s2", strides=2)  # [B, H/4, W/4, 32]
    x = _conv_bn_relu(x, 32 * fs, 3, "conv1_2_3x3")
    x = _conv_bn_relu(x, 64 * fs, 3, "conv1_3_3x3")
    x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
    x = layers.MaxPooling2D(3, 2, name="pool1_3x3_s2")(x)  # [B, H/8, W/8, 64]
    x = _stage(x, CONV2, fs)
    conv3_1 = _bottleneck(x, "conv3_1", 64 * fs, 256 * fs, strides=2)
    # [B, H/16, W/16, 256]
    x = blocks.resize(conv3_1, height // 32, width // 32, "conv3_1_sub4")
    # [B, H/32, W/32, 256]
    x = _stage(x, CONV3_LOW, fs)
    x = _stage(x, CONV4, fs)
    x = _stage(x, CONV5, fs)  # [B, H/32, W/32, 1024]
    x = _pyramid_sum(x, bins)
    x = _conv_bn_relu(x, 256 * fs, 1, "conv5_4_k1")

    # First cascade feature fusion at 1/16, with the half-resolution branch.
    sub4 = blocks.resize(x, height // 16, width // 16, "conv5_4_interp")
    # [B, H/16, W/16, 256]
    low = _conv_bn(sub4, 128 * fs, 3, "conv_sub4", dilation=cff_dilation)
    high = _conv_bn(conv3_1, 128 * fs, 1, "conv3_1_sub2_proj")
    x = _add_relu([low, high], "sub24_sum")
    sub24 = blocks.resize(x, height // 8, width // 8, "sub24_sum_interp")
    # [B, H/8, W/8, 128]

    # Second fusion at 1/8, with the full-resolution branch.
    low = _conv_bn(sub24, 128 * fs, 3, "conv_sub2", dilation=cff_dilation)
    x = _conv_bn_relu(image, 32 * fs, 3, "conv1_sub1", strides=2)  # [B, H/2, W/2, 32]
    x = _conv_bn_relu(x, 32 * fs, 3, "conv2_sub1", strides=2)  # [B, H/4, W/4, 32]
    x = _conv_bn_relu(x, 64 * fs, 3, "conv3_sub1", strides=2)  # [B, H/8, W/8, 64]
    high = _conv_bn(x, 128 * fs, 1, "conv3_sub1_proj")
    x = _add_relu([low, high], "sub12_sum")
    sub12 = blocks.resize(  # as the head that follows: no casts of large images
        x, height // 4, width // 4, "sub12_sum_interp", dtype="float32"
    )
    # [B, H/4, W/4, 128]

    return keras.Model(
        image,
        {
            "logits": blocks.head(sub12, num_classes, "conv6_cls", initializer=INIT),
            "sub24_logits": blocks.head(
                sub24, num_classes, "sub24_out", initializer=INIT
            ),
            "sub4_logits": blocks.head(sub4, num_classes, "sub4_out", initializer=INIT),
        },
        name="icnet",
    )


def _stage(x, stage, filter_scale):
    names, mid, out, dilation = stage
    for name in names:
        x = _bottleneck(
            x, name, mid * filter_scale, out * filter_scale, dilation=dilation
        )
    return x


def _bottleneck(x, name, mid, out, *, strides=1, dilation=1):
    """1x1 reduce (strided), 3x3, 1x1 increase; projected where the width changes."""
    shortcut = x
    if x.shape[-1] != out:
        shortcut = _conv_bn(x, out, 1, f"{name}_1x1_proj", strides=strides)
    x = _conv_bn_relu(x, mid, 1, f"{name}_1x1_reduce", strides=strides)
    x = _conv_bn_relu(x, mid, 3, f"{name}_3x3", dilation=dilation)
    x = _conv_bn(x, out, 1, f"{name}_1x1_increase")
    return _add_relu([shortcut, x], name)


def _pyramid_sum(x, bins):
    height, width = x.shape[1:3]
    levels = [x]
    for b in bins:
        pooled = AdaptiveAveragePooling(b, name=f"conv5_3_pool{b}")(x)
        levels.append(blocks.resize(pooled, height, width, f"conv5_3_pool{b}_interp"))
    return layers.Add(name="conv5_3_sum")(levels)


def _add_relu(tensors, name):
    return blocks.relu(layers.Add(name=name)(tensors), f"{name}_relu")
