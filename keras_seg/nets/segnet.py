"""SegNet: VGG16's 13 convolutions down, 13 up, unpooled by pooling indices.

Badrinarayanan et al., "SegNet: A Deep Convolutional Encoder-Decoder Architecture for
Image Segmentation", 2015; as described in BODY 3.3 (which trains SegNet-basic only).
Every convolution is followed by batch norm and ReLU, in the decoder too; the last one
gives the logits.

Differs from the paper: nothing known. Batch norm 0.99, 1e-3, beta from 0.001, as in
the Caffe files; He normal kernels. The encoder can start from VGG16's weights
(`keras_seg.nets.pretrained`).
"""

import keras

from keras_seg.nets import blocks
from keras_seg.nets.layers import MaxPoolingWithIndices, MaxUnpooling

INIT = "he_normal"
ENCODER = ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3)
# Stage 5 first; the last of its widths is that of the stage below. Stage 1 has one
# convolution and the one that gives the logits.
DECODER = ((512, 512, 512), (512, 512, 256), (256, 256, 128), (128, 64), (64,))


def build(input_shape, num_classes, *, filter_scale=1, use_bias=True):
    """The network for images [B, H, W, 3] of any size.

    Args:
        input_shape: (H, W, channels).
        num_classes: int. Channels of the logits.
        filter_scale: int. Factor on every width but the logits'.
        use_bias: biases in the convolutions (the last one always has it).

    Returns:
        keras.Model of image float32 (BGR minus mean) to {"logits": raw float32 [B, H,
        W, num_classes]}.
    """
    image = keras.Input(input_shape, name="image")
    x = image

    pooled_from = {}  # stage: (height and width before its pooling, indices)
    for i, widths in enumerate(ENCODER, 1):
        for j, filters in enumerate(widths, 1):
            x = _conv_bn_relu(x, filters * filter_scale, f"enc{i}_conv{j}", use_bias)
        size = tuple(x.shape[1:3])
        x, indices = MaxPoolingWithIndices(name=f"enc{i}_pool")(x)
        pooled_from[i] = size, indices

    for i, widths in zip((5, 4, 3, 2, 1), DECODER):
        size, indices = pooled_from[i]
        x = MaxUnpooling(*size, name=f"dec{i}_unpool")([x, indices])
        for j, filters in enumerate(widths, 1):
            x = _conv_bn_relu(x, filters * filter_scale, f"dec{i}_conv{j}", use_bias)

    logits = blocks.head(
        x, num_classes, kernel_size=3, initializer=INIT, name="classifier"
    )
    return keras.Model(image, {"logits": logits}, name="segnet")


def _conv_bn_relu(x, filters, name, use_bias):
    x = blocks.conv(x, filters, 3, use_bias=use_bias, initializer=INIT, name=name)
    x = blocks.batch_norm(
        x,
        momentum=0.99,
        epsilon=1e-3,
        beta_initializer=keras.initializers.Constant(0.001),
        name=f"{name}_bn",
    )
    return blocks.relu(x, name=f"{name}_relu")
