"""FCN with strided convolutions as pooling, ASPP, summed skips and channel attention.

ATTN 2.3 (Fig. 2 and 3): Shen and Sun, "A Deep Learning-Based Image Semantic
Segmentation Algorithm", 2022. The beginning of VGG16 with strided convolutions instead
of pooling, atrous spatial pyramid pooling (ASPP), five transposed convolutions with
skips added, each followed by squeeze-and-excitation (eq. 1 to 3).

Differs from the paper: "the first five layers of VGG16" can be read in two ways, and
the paper's figures do not tell which is meant. `encoder="blocks"`, the default, takes
VGG16's five blocks, 13 convolutions, which alone have 14.7 million parameters.
`encoder="layers"` takes its first five convolutions, each with a stride of 2, mirrored
by the decoder: without the pyramid it has 1,578,925 parameters without skips and
1,620,269 with them, where the paper counts 1.58 and 1.63 million, so that it is likely
the paper's. Both reduce the image by 32, as the text says. (`width=0.234` is the other
way to 1.63 million: narrow blocks.)
Ours, as the paper prints none: the decoder's widths, the pyramid's rates 6, 12, 18 (at
7x7, the bottom for its 224x224 input, rates from 7 act as 1x1 convolutions), and that
skips, "connections in all layers", join the four inner stages of the decoder and are
added, as in FCN; concatenated skips would need more parameters than it counts.
Convolutions and transposed convolutions have no biases; batch norm 0.9, 1e-5; He normal
kernels. The encoder can start from VGG16's kernels (`keras_seg.nets.pretrained`), which
expect BGR minus the mean: use `--preprocess bgr_minus_mean` with them.
"""

from functools import partial

import keras
from keras import layers

from keras_seg.errors import UsageError
from keras_seg.nets import blocks

INIT = "he_normal"
NORM = {"momentum": 0.9, "epsilon": 1e-5}
ENCODER = ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3)
DECODER = {4: 512, 3: 256, 2: 128, 1: 64}  # stage of the skip: channels
# The other reading: VGG16's first five convolutions, by the names that its weights are
# loaded by, and the decoder that mirrors them
LAYERS = {
    "enc1_conv1": 64,
    "enc1_conv2": 64,
    "enc2_conv1": 128,
    "enc2_conv2": 128,
    "enc3_conv1": 256,
}
LAYERS_DECODER = {4: 128, 3: 128, 2: 64, 1: 64}
LAST_DECONV = 32
ASPP_FILTERS = 256
ASPP_RATES = (6, 12, 18)
SMALLEST_WIDTH = 8

_conv_bn_relu = partial(
    blocks.conv_bn_relu, use_bias=False, initializer=INIT, norm=NORM
)


def build(
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    filter_scale: int = 1,
    encoder: str = "blocks",
    width: float = 1.0,
    skips: bool = True,
    attention: bool = True,
    aspp: bool = True,
    downsample: str = "conv",
    reduction: int = 16,
) -> keras.Model:
    """The network for images [B, H, W, 3], H and W multiples of 32.

    Args:
        filter_scale: another factor on the widths, times `width`.
        encoder: "blocks", VGG16's five blocks with a strided convolution after each, or
            "layers", its first five convolutions with a stride of 2.
        width: factor on every width but the logits'; the result is rounded and at
            least 8.
        skips: add the encoder's stages to the decoder.
        attention: squeeze-and-excitation after every decoder stage.
        aspp: the pyramid at the bottom.
        downsample: "conv", or "pool" for VGG16's 2x2 max pooling.
        reduction: the inner layer of squeeze-and-excitation has this many times fewer
            channels, but at least one; C in eq. 2, which ATTN finds best at 16.

    Returns:
        keras.Model of image float32 (ImageNet's mean 0, deviation 1) to
        {"logits": raw float32 [B, H, W, num_classes]}.
    """
    blocks.check_choice("fcn_attention", "encoder", encoder, ("blocks", "layers"))
    blocks.check_choice("fcn_attention", "downsample", downsample, ("conv", "pool"))
    blocks.check_at_least_1("fcn_attention", "reduction", reduction)
    if width <= 0:
        raise UsageError(f"width of fcn_attention is {width}; it must be above 0.")

    def scaled(filters):
        return max(round(filters * width * filter_scale), SMALLEST_WIDTH)

    image = keras.Input(input_shape, name="image")
    x = image
    stages = {}  # i: [B, H/2^i, W/2^i, filters]
    if encoder == "layers":
        for i, (name, filters) in enumerate(LAYERS.items(), 1):
            strides = 2 if downsample == "conv" else 1
            x = _conv_bn_relu(x, scaled(filters), 3, name, strides=strides)
            if downsample == "pool":
                x = layers.MaxPooling2D(2, name=f"{name}_pool")(x)
            stages[i] = x
    else:
        for i, widths in enumerate(ENCODER, 1):
            for j, filters in enumerate(widths, 1):
                x = _conv_bn_relu(x, scaled(filters), 3, f"enc{i}_conv{j}")
            if downsample == "conv":
                x = _conv_bn_relu(x, scaled(widths[-1]), 3, f"enc{i}_down", strides=2)
            else:
                x = layers.MaxPooling2D(2, name=f"enc{i}_pool")(x)
            stages[i] = x

    if aspp:
        x = _aspp(x, scaled(ASPP_FILTERS))  # [B, H/32, W/32, 256]

    for i, filters in (LAYERS_DECODER if encoder == "layers" else DECODER).items():
        x = _deconv_bn_relu(
            x, scaled(filters), f"dec{i}_up"
        )  # [B, H/2^i, W/2^i, filters]
        if skips:
            skip = blocks.conv(
                stages[i],
                scaled(filters),
                1,
                f"dec{i}_skip",
                use_bias=True,
                initializer=INIT,
            )
            x = layers.Add(name=f"dec{i}_add")([x, skip])
        if attention:
            x = _squeeze_and_excite(x, reduction, f"dec{i}_se")
    x = _deconv_bn_relu(x, scaled(LAST_DECONV), "dec0_up")  # [B, H, W, 32]
    if attention:
        x = _squeeze_and_excite(x, reduction, "dec0_se")
    logits = blocks.head(x, num_classes, "classifier", initializer=INIT)
    return keras.Model(image, {"logits": logits}, name="fcn_attention")


def _aspp(x, filters):
    """1x1, three dilated 3x3 and the image mean, concatenated, then 1x1."""
    height, width = x.shape[1:3]
    branches = [_conv_bn_relu(x, filters, 1, "aspp_1x1")]
    for rate in ASPP_RATES:
        branches.append(_conv_bn_relu(x, filters, 3, f"aspp_rate{rate}", dilation=rate))
    mean = layers.GlobalAveragePooling2D(keepdims=True, name="aspp_image_mean")(x)
    # [B, 1, 1, filters]
    mean = _conv_bn_relu(mean, filters, 1, "aspp_image")
    branches.append(blocks.resize(mean, height, width, "aspp_image_resize"))
    x = layers.Concatenate(name="aspp_concat")(branches)
    return _conv_bn_relu(x, filters, 1, "aspp_out")


def _squeeze_and_excite(x, reduction, name):
    """Scales every channel by a factor in 0..1 computed from the means of all."""
    channels = x.shape[-1]
    # At least 1: narrow variants have stages of fewer than 16 channels.
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


def _deconv_bn_relu(x, filters, name):
    x = blocks.deconv(x, filters, 4, name, padding=1, use_bias=False, initializer=INIT)
    return blocks.bn_relu(x, name, **NORM)
