"""SegNet: VGG16's 13 convolutions, mirrored by 13 that are unpooled by pooling indices.

Badrinarayanan et al., "SegNet: A Deep Convolutional Encoder-Decoder Architecture for
Image Segmentation", 2015; as described in BODY 3.3 (which trains SegNet-basic only).
Every convolution is followed by batch norm and ReLU, in the decoder too; the last one
gives the logits.

Differs from the paper: nothing known. Batch norm 0.99, 1e-3, beta from 0.001, as in
the Caffe files; He normal kernels. The encoder can start from VGG16's weights
(`keras_seg.nets.pretrained`).
"""

from functools import partial

import keras

from keras_seg.nets import blocks
from keras_seg.nets.layers import MaxPoolingWithIndices, MaxUnpooling

INIT = "he_normal"
NORM = {
    "momentum": 0.99,
    "epsilon": 1e-3,
    "beta_initializer": keras.initializers.Constant(0.001),
}
ENCODER = ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3)
# Stage 5 first; the last of its widths is that of the stage below. Stage 1 has one
# convolution and the one that gives the logits.
DECODER = ((512, 512, 512), (512, 512, 256), (256, 256, 128), (128, 64), (64,))


def build(
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    filter_scale: int = 1,
    use_bias: bool = True,
) -> keras.Model:
    """The network for images [B, H, W, 3] of any size.

    Args:
        filter_scale: factor on every width but the logits'.
        use_bias: biases in the convolutions (the last one always has it).

    Returns:
        keras.Model of image float32 (BGR minus mean) to
        {"logits": raw float32 [B, H, W, num_classes]}.
    """
    conv = partial(blocks.conv_bn_relu, use_bias=use_bias, initializer=INIT, norm=NORM)
    image = keras.Input(input_shape, name="image")
    x = image

    pooled_from = {}  # stage: (height and width before its pooling, indices)
    for i, widths in enumerate(ENCODER, 1):
        for j, filters in enumerate(widths, 1):
            x = conv(x, filters * filter_scale, 3, f"enc{i}_conv{j}")
        size = tuple(x.shape[1:3])
        x, indices = MaxPoolingWithIndices(name=f"enc{i}_pool")(x)
        pooled_from[i] = size, indices  # x: [B, H/2^i, W/2^i, widths[-1]], rounded up

    for i, widths in zip((5, 4, 3, 2, 1), DECODER):
        size, indices = pooled_from[i]
        x = MaxUnpooling(*size, name=f"dec{i}_unpool")([x, indices])
        # [B, H/2^(i-1), W/2^(i-1), ...]
        for j, filters in enumerate(widths, 1):
            x = conv(x, filters * filter_scale, 3, f"dec{i}_conv{j}")

    logits = blocks.head(x, num_classes, "classifier", kernel_size=3, initializer=INIT)
    return keras.Model(image, {"logits": logits}, name="segnet")
