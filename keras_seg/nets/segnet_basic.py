"""SegNet-basic: four 7x7 convolutions, mirrored by four that use pooling indices.

Badrinarayanan et al., "SegNet: A Deep Convolutional Encoder-Decoder Architecture for
Image Segmentation", 2015; as in BODY 3.3. Pooling keeps the position of each maximum
and the decoder puts its values back there; the decoder has no ReLU.

Differs from the paper: `use_bias=False` follows the text of the paper and of BODY
(their Caffe and TensorFlow code has biases). BODY prints convolution-ReLU-batch norm;
the paper and all code have batch norm before the ReLU, as here. `upsample="deconv"` is
the network of BODY's code (tkuanlun350/Tensorflow-SegNet): trainable 2x2 transposed
convolutions instead of indices (there, batch norm has neither gamma nor beta). Batch
norm 0.99, 1e-3, beta from 0.001; He normal kernels.
"""

from functools import partial

import keras

from keras_seg.nets import blocks
from keras_seg.nets.layers import (
    BilinearKernel,
    Crop,
    LocalResponseNormalization,
    MaxPoolingWithIndices,
    MaxUnpooling,
)

INIT = "he_normal"
NORM = {
    "momentum": 0.99,
    "epsilon": 1e-3,
    "beta_initializer": keras.initializers.Constant(0.001),
}
STAGES = 4
FILTERS = 64


def build(
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    filter_scale: int = 1,
    upsample: str = "indices",
    use_bias: bool = False,
    input_norm: str | None = "lrn",
) -> keras.Model:
    """The network for images [B, H, W, 3] of any size.

    Args:
        filter_scale: factor on the 64 filters of every convolution.
        upsample: "indices" or "deconv".
        use_bias: biases in the eight 7x7 convolutions.
        input_norm: "lrn" for Caffe's local response normalisation of the image, None
            for none.

    Returns:
        keras.Model of image float32 (RGB 0..255) to
        {"logits": raw float32 [B, H, W, num_classes]}.
    """
    blocks.check_choice("segnet_basic", "upsample", upsample, ("indices", "deconv"))
    blocks.check_choice("segnet_basic", "input_norm", input_norm, ("lrn", None))
    filters = FILTERS * filter_scale
    conv_bn = partial(blocks.conv_bn, use_bias=use_bias, initializer=INIT, norm=NORM)
    image = keras.Input(input_shape, name="image")
    x = image
    if input_norm == "lrn":
        x = LocalResponseNormalization(name="input_lrn")(x)

    pooled_from = {}  # stage: (height and width before its pooling, indices)
    for i in range(1, STAGES + 1):
        x = conv_bn(x, filters, 7, f"enc{i}_conv")
        x = blocks.relu(x, f"enc{i}_relu")
        size = tuple(x.shape[1:3])
        x, indices = MaxPoolingWithIndices(name=f"enc{i}_pool")(x)
        pooled_from[i] = size, indices  # x: [B, H/2^i, W/2^i, 64], rounded up

    for i in range(STAGES, 0, -1):
        size, indices = pooled_from[i]
        if upsample == "indices":
            x = MaxUnpooling(*size, name=f"dec{i}_unpool")([x, indices])
        else:
            x = _deconv(x, size, f"dec{i}_up")
        x = conv_bn(x, filters, 7, f"dec{i}_conv")  # [B, H/2^(i-1), W/2^(i-1), 64]

    logits = blocks.head(x, num_classes, "classifier", initializer=INIT)
    return keras.Model(image, {"logits": logits}, name="segnet_basic")


def _deconv(x, size, name):
    """2x2 transposed convolution to twice the size, cropped to an odd `size`."""
    x = blocks.deconv(
        x, x.shape[-1], 2, name, use_bias=False, initializer=BilinearKernel()
    )
    extra = [have - wanted for have, wanted in zip(x.shape[1:3], size)]
    if any(extra):
        cropping = tuple((0, pixels) for pixels in extra)
        x = Crop(cropping, name=f"{name}_crop")(x)
    return x
