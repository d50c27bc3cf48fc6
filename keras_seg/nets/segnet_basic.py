"""SegNet-basic: four 7x7 convolutions down, four up, unpooled by pooling indices.

Badrinarayanan et al., "SegNet: A Deep Convolutional Encoder-Decoder Architecture for
Image Segmentation", 2015; as in BODY 3.3. Pooling keeps where each maximum was and the
decoder puts its values back there; the decoder has no ReLU.

Differs from the paper: `use_bias=False` follows the paper's and BODY's text (their
Caffe and TensorFlow code has biases). BODY prints convolution-ReLU-batch norm; the
paper and all code have batch norm before the ReLU, as here. `upsample="deconv"` is
the network of BODY's code (tkuanlun350/Tensorflow-SegNet): trainable 2x2 transposed
convolutions instead of indices (there with batch norm without gamma and beta).
Batch norm 0.99, 1e-3, beta from 0.001; He normal kernels.
"""

import keras
from keras import layers

from keras_seg.errors import UsageError
from keras_seg.nets import blocks
from keras_seg.nets.layers import (
    BilinearKernel,
    LocalResponseNormalization,
    MaxPoolingWithIndices,
    MaxUnpooling,
)

INIT = "he_normal"
STAGES = 4
FILTERS = 64


def build(
    input_shape,
    num_classes,
    *,
    filter_scale=1,
    upsample="indices",
    use_bias=False,
    input_norm="lrn",
):
    """The network for images [B, H, W, 3] of any size.

    Args:
        input_shape: (H, W, channels).
        num_classes: int. Channels of the logits.
        filter_scale: int. Factor on the 64 filters of every convolution.
        upsample: "indices" or "deconv".
        use_bias: biases in the eight 7x7 convolutions.
        input_norm: "lrn" for Caffe's local response normalisation of the image, None
            for none.

    Returns:
        keras.Model of image float32 (RGB 0..255) to {"logits": raw float32 [B, H, W,
        num_classes]}.
    """
    if upsample not in ("indices", "deconv"):
        raise UsageError("segnet_basic upsample", upsample, "indices or deconv")
    if input_norm not in ("lrn", None):
        raise UsageError("segnet_basic input_norm", input_norm, "lrn or None")
    filters = FILTERS * filter_scale
    image = keras.Input(input_shape, name="image")
    x = image
    if input_norm == "lrn":
        x = LocalResponseNormalization(name="input_lrn")(x)

    pooled_from = {}  # stage: (height and width before its pooling, indices)
    for i in range(1, STAGES + 1):
        x = _conv_bn(x, filters, f"enc{i}_conv", use_bias)
        x = blocks.relu(x, name=f"enc{i}_relu")
        size = tuple(x.shape[1:3])
        x, indices = MaxPoolingWithIndices(name=f"enc{i}_pool")(x)
        pooled_from[i] = size, indices

    for i in range(STAGES, 0, -1):
        size, indices = pooled_from[i]
        if upsample == "indices":
            x = MaxUnpooling(*size, name=f"dec{i}_unpool")([x, indices])
        else:
            x = _deconv(x, size, f"dec{i}_up")
        x = _conv_bn(x, filters, f"dec{i}_conv", use_bias)

    logits = blocks.head(x, num_classes, initializer=INIT, name="classifier")
    return keras.Model(image, {"logits": logits}, name="segnet_basic")


def _conv_bn(x, filters, name, use_bias):
    x = blocks.conv(x, filters, 7, use_bias=use_bias, initializer=INIT, name=name)
    return blocks.batch_norm(
        x,
        momentum=0.99,
        epsilon=1e-3,
        beta_initializer=keras.initializers.Constant(0.001),
        name=f"{name}_bn",
    )


def _deconv(x, size, name):
    """2x2 transposed convolution to twice the size, cropped where that was odd."""
    x = blocks.deconv(
        x,
        x.shape[-1],
        2,
        use_bias=False,
        initializer=BilinearKernel(),
        name=name,
    )
    extra = [have - wanted for have, wanted in zip(x.shape[1:3], size)]
    if any(extra):
        cropping = tuple((0, pixels) for pixels in extra)
        x = layers.Cropping2D(cropping, name=f"{name}_crop")(x)
    return x
