"""FCN with strided convolutions for pooling, ASPP, summed skips and channel attention.

ATTN 2.3 (Fig. 2 and 3): Shen and Sun, "A Deep Learning-Based Image Semantic
Segmentation Algorithm", 2022. VGG16's five blocks with a strided convolution after
each, atrous spatial pyramid pooling, five transposed convolutions with the skips summed
in, each followed by squeeze-and-excitation (eq. 1 to 3).

Differs from the paper: it prints neither the decoder's widths nor the pyramid's rates;
512 to 32 channels and rates 6, 12, 18 are ours (at 7x7, the size for its 224x224 input,
rates from 7 on act as 1x1 convolutions). Its 1.58 and 1.63 million parameters without
and with skips cannot be those of VGG16, whose convolutions alone have 14.7 million;
`width=0.234` has 1.63 million, without skips 1.61. Convolutions and transposed
convolutions without biases, batch norm 0.9, 1e-5, He normal kernels. The encoder can
start from VGG16's kernels (`keras_seg.nets.pretrained`), which expect BGR minus the
mean: such a run wants `--preprocess bgr_minus_mean`.
"""

import keras
from keras import layers

from keras_seg.errors import UsageError
from keras_seg.nets import blocks

INIT = "he_normal"
NORM = {"momentum": 0.9, "epsilon": 1e-5}
ENCODER = ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3)
DECODER = {4: 512, 3: 256, 2: 128, 1: 64}  # stage of the skip: channels
LAST_DECONV = 32
ASPP_FILTERS = 256
ASPP_RATES = (6, 12, 18)
SMALLEST_WIDTH = 8


def build(
    input_shape,
    num_classes,
    *,
    filter_scale=1,
    width=1.0,
    skips=True,
    attention=True,
    aspp=True,
    downsample="conv",
    reduction=16,
):
    """The network for images [B, H, W, 3], H and W multiples of 32.

    Args:
        input_shape: (H, W, channels).
        num_classes: int. Channels of the logits.
        filter_scale: int. Another factor on the widths, times `width`.
        width: factor on every width but the logits', which is rounded, at least 8.
        skips: sum the encoder's stages into the decoder.
        attention: squeeze-and-excitation after every decoder stage.
        aspp: the pyramid at the bottom.
        downsample: "conv", or "pool" for VGG16's 2x2 max pooling.
        reduction: int. Squeeze-and-excitation's inner layer has that many times fewer
            channels, at least one; C in eq. 2, which ATTN finds best at 16.

    Returns:
        keras.Model of image float32 (ImageNet's mean 0, deviation 1) to {"logits": raw
        float32 [B, H, W, num_classes]}.
    """
    if downsample not in ("conv", "pool"):
        raise UsageError("fcn_attention downsample", downsample, "conv or pool")
    if width <= 0:
        raise UsageError("fcn_attention width", width, "a positive number")
    if reduction < 1:
        raise UsageError("fcn_attention reduction", reduction, "at least 1")

    def scaled(filters):
        return max(round(filters * width * filter_scale), SMALLEST_WIDTH)

    image = keras.Input(input_shape, name="image")
    x = image
    stages = {}  # i: [B, H / 2^i, W / 2^i, C]
    for i, widths in enumerate(ENCODER, 1):
        for j, filters in enumerate(widths, 1):
            x = _conv_bn_relu(x, scaled(filters), 3, f"enc{i}_conv{j}")
        if downsample == "conv":
            x = _conv_bn_relu(x, scaled(widths[-1]), 3, f"enc{i}_down", strides=2)
        else:
            x = layers.MaxPooling2D(2, name=f"enc{i}_pool")(x)
        stages[i] = x

    if aspp:
        x = _aspp(x, scaled(ASPP_FILTERS))

    for i, filters in DECODER.items():
        x = _deconv_bn_relu(x, scaled(filters), f"dec{i}_up")  # the size of stage i
        if skips:
            skip = blocks.conv(
                stages[i],
                scaled(filters),
                1,
                use_bias=True,
                initializer=INIT,
                name=f"dec{i}_skip",
            )
            x = layers.Add(name=f"dec{i}_add")([x, skip])
        if attention:
            x = _squeeze_and_excite(x, reduction, f"dec{i}_se")
    x = _deconv_bn_relu(x, scaled(LAST_DECONV), "dec0_up")  # [B, H, W, 32]
    if attention:
        x = _squeeze_and_excite(x, reduction, "dec0_se")
    logits = blocks.head(x, num_classes, initializer=INIT, name="classifier")
    return keras.Model(image, {"logits": logits}, name="fcn_attention")


def _aspp(x, filters):
    """1x1, three dilated 3x3 and the mean of the image, concatenated, then 1x1."""
    height, width = x.shape[1:3]
    branches = [_conv_bn_relu(x, filters, 1, "aspp_1x1")]
    for rate in ASPP_RATES:
        branches.append(_conv_bn_relu(x, filters, 3, f"aspp_rate{rate}", dilation=rate))
    mean = layers.GlobalAveragePooling2D(keepdims=True, name="aspp_image_mean")(x)
    mean = _conv_bn_relu(mean, filters, 1, "aspp_image")
    branches.append(blocks.resize(mean, height, width, name="aspp_image_resize"))
    x = layers.Concatenate(name="aspp_concat")(branches)
    return _conv_bn_relu(x, filters, 1, "aspp_out")


def _squeeze_and_excite(x, reduction, name):
    """Every channel times a factor in 0..1 from the means of all channels."""
    channels = x.shape[-1]
    # At least 1: the narrow variants have stages of less than 16 channels.
    reduced = max(channels // reduction, 1)
    factors = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_mean")(x)
    for filters, activation, part in (
        (reduced, "relu", "reduce"),
        (channels, "sigmoid", "expand"),
    ):
        factors = layers.Dense(
            filters,
            activation=activation,
            kernel_initializer=INIT,
            name=f"{name}_{part}",
        )(factors)
    return layers.Multiply(name=f"{name}_scale")([x, factors])


def _conv_bn_relu(x, filters, kernel_size, name, *, strides=1, dilation=1):
    x = blocks.conv(
        x,
        filters,
        kernel_size,
        strides=strides,
        dilation=dilation,
        use_bias=False,
        initializer=INIT,
        name=name,
    )
    return _bn_relu(x, name)


def _deconv_bn_relu(x, filters, name):
    x = blocks.deconv(
        x, filters, 4, padding=1, use_bias=False, initializer=INIT, name=name
    )
    return _bn_relu(x, name)


def _bn_relu(x, name):
    x = blocks.batch_norm(x, name=f"{name}_bn", **NORM)
    return blocks.relu(x, name=f"{name}_relu")
