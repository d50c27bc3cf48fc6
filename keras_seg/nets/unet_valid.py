"""U-Net with no padding in the encoder and a padding of 2 in the decoder.

VOC07 3.3, model 5c (Table 3), after Ronneberger et al. 2015: unpadded 3x3 convolutions
and 2x2 max pooling to 1/16, then transposed 2x2 convolutions and 3x3 convolutions with
padding 2, which enlarge. For H = 224 the sides are 220, 106, 49, 20 before each
pooling, 6 at the bottom, then 16, 37, 78, 160: the logits have H - 64.

Differs from the paper: Table 3 prints 21 input channels, read as 3 (RGB). Its channel
counts leave no room for concatenated skips, so there are none unless `skips`, which
crops the middle of the encoder's features as the original U-Net does. VOC07 states 8x8
at the bottom, which is true of 256x256, not of its 224x224. It does not say how the
smaller output is compared with the label: see `output_policy`. The ReLU and batch norm
that the table prints for pooling layers are left out. ReLU, then batch norm (0.9, 1e-5,
PyTorch's defaults) after every convolution and transposed convolution; biases
everywhere; Glorot uniform kernels.
"""

from functools import partial

import keras
from keras import layers, ops

from keras_seg.nets import blocks
from keras_seg.nets.layers import Crop

INIT = "glorot_uniform"
NORM = {"momentum": 0.9, "epsilon": 1e-5}
ENCODER = (64, 128, 256, 512)
BOTTLENECK = 1024
# Level: channels and output padding of the transposed convolution, channels of the
# block after it.
DECODER = {4: (1024, 0, 512), 3: (512, 1, 256), 2: (256, 0, 128), 1: (128, 0, 64)}
BORDER = 32  # the logits of H - 64 are the middle of the image

_conv = partial(blocks.conv, use_bias=True, initializer=INIT)


def build(
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    filter_scale: int = 1,
    skips: bool = False,
    output_policy: str = "resize",
) -> keras.Model:
    """The network for images [B, H, W, 3], H and W multiples of 16, at least 144.

    Args:
        filter_scale: factor on every width but the logits'.
        skips: concatenate the encoder's features, cropped, before each block.
        output_policy: "resize" takes the logits for the whole image at a smaller size:
            label and prediction are resized. "crop" takes them for its middle, pixel
            for pixel, and fills the border of 32 pixels with the outermost logits,
            through which no gradient flows. A loss that averages over pixels counts
            the border too, so its gradient points as that of a cropped label but is
            (H - 64) (W - 64) / (H W) times as long, 0.51 at 224x224 (without class
            weights and ignored pixels). Metrics score the border as predicted.

    Returns:
        keras.Model of image float32 (ImageNet's mean 0, deviation 1) to
        {"logits": raw float32 [B, H - 64, W - 64, num_classes]}; [B, H, W, num_classes]
        with "crop".
    """
    policies = ("resize", "crop")
    blocks.check_choice("unet_valid", "output_policy", output_policy, policies)
    image = keras.Input(input_shape, name="image")
    x = image

    encoded = {}
    for i, filters in enumerate(ENCODER, 1):
        # [B, H - 4, W - 4, 64], [B, H/2 - 6, ..., 128], [B, H/4 - 7, ..., 256],
        # [B, H/8 - 8, ..., 512]
        x = encoded[i] = _block(x, filters * filter_scale, 0, f"enc{i}")
        # Rounds down on level 3, whose sides are odd.
        x = layers.MaxPooling2D(2, name=f"enc{i}_pool")(x)
    x = _block(x, BOTTLENECK * filter_scale, 0, "bottleneck")
    # [B, H/16 - 8, W/16 - 8, 1024]

    for i, (up_filters, output_padding, filters) in DECODER.items():
        # [B, H/8 - 16, ..., 1024], [B, H/4 - 23, ..., 512], [B, H/2 - 38, ..., 256],
        # [B, H - 68, ..., 128]; the block then adds 4 rows and columns
        x = _deconv(x, up_filters * filter_scale, output_padding, f"dec{i}_up")
        if skips:
            skip = _crop_to(encoded[i], x.shape[1:3], f"enc{i}_crop")
            x = layers.Concatenate(name=f"dec{i}_concat")([skip, x])
        x = _block(x, filters * filter_scale, 2, f"dec{i}")

    logits = blocks.head(x, num_classes, "classifier", initializer=INIT)
    if output_policy == "crop":
        logits = RepeatBorder(BORDER, dtype="float32", name="logits_border")(logits)
    return keras.Model(image, {"logits": logits}, name="unet_valid")


def _block(x, filters, padding, name):
    """Two 3x3 convolutions with ReLU and batch norm."""
    for j in (1, 2):
        x = _conv(x, filters, 3, f"{name}_conv{j}", padding=padding)
        x = blocks.relu_bn(x, f"{name}_conv{j}", **NORM)
    return x


def _deconv(x, filters, output_padding, name):
    """2x2, stride 2; the row and column of an output padding hold just the bias."""
    x = layers.Conv2DTranspose(
        filters,
        2,
        strides=2,
        padding="valid",
        output_padding=output_padding,
        kernel_initializer=INIT,
        name=name,
    )(x)
    return blocks.relu_bn(x, name, **NORM)


def _crop_to(x, size, name):
    """The middle of x, [B, *size, C]."""
    cropping = []
    for have, wanted in zip(x.shape[1:3], size):
        before = (have - wanted) // 2
        cropping.append((before, have - wanted - before))
    return Crop(tuple(cropping), name=name)(x)


@keras.saving.register_keras_serializable("keras_seg")
class RepeatBorder(layers.Layer):
    """Pads by repeating the outermost rows and columns, with no gradient through them.

    Maps [B, H, W, C] to [B, H + 2 border, W + 2 border, C].
    """

    def __init__(self, border: int, **kwargs):
        super().__init__(**kwargs)
        self.border = int(border)

    def call(self, x):
        _, height, width, _ = x.shape
        around = (self.border, self.border)
        rows = ops.clip(
            ops.arange(height + 2 * self.border) - self.border, 0, height - 1
        )
        columns = ops.clip(
            ops.arange(width + 2 * self.border) - self.border, 0, width - 1
        )
        repeated = ops.take(ops.take(x, rows, axis=1), columns, axis=2)
        middle = ops.pad(x, ((0, 0), around, around, (0, 0)))
        is_middle = ops.pad(ops.ones_like(x), ((0, 0), around, around, (0, 0)))
        return middle + ops.stop_gradient(repeated * (1 - is_middle))

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        return (batch, height + 2 * self.border, width + 2 * self.border, channels)

    def get_config(self):
        return super().get_config() | {"border": self.border}
