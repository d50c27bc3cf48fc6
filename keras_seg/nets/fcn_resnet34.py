"""ResNet34 with five transposed convolutions on top (VOC07 model 5b).

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016; as in VOC07 3.3,
Table 2. The encoder is torchvision's resnet34 without average pooling and classifier,
with PyTorch's padding, so that its weights load exactly (`keras_seg.nets.pretrained`).

Differs from the paper: VOC07 does not mention freezing the encoder, so it is trained
unless `freeze=True`; without a weight file it starts from random weights.
`filter_scale` widens the decoder only. Batch norm 0.9, 1e-5; Glorot uniform kernels.
"""

from functools import partial

import keras
from keras import layers

from keras_seg.nets import blocks

INIT = "glorot_uniform"
NORM = {"momentum": 0.9, "epsilon": 1e-5}

STAGES = ((3, 64), (4, 128), (6, 256), (3, 512))  # basic blocks and filters
DECODER = (512, 256, 128, 64, 32)

_conv = partial(blocks.conv, padding=0, use_bias=False, initializer=INIT)
_batch_norm = partial(blocks.batch_norm, **NORM)
_deconv = partial(
    blocks.deconv, padding=1, output_padding=1, use_bias=True, initializer=INIT
)


def build(
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    filter_scale: int = 1,
    freeze: bool = False,
) -> keras.Model:
    """The network for images [B, H, W, 3], H and W multiples of 32.

    Args:
        filter_scale: factor on the decoder's widths.
        freeze: keep the encoder's weights and moving statistics unchanged.

    Returns:
        keras.Model of image float32 (ImageNet's mean 0, deviation 1) to
        {"logits": raw float32 [B, H, W, num_classes]}.
    """
    image = keras.Input(input_shape, name="image")
    encoder = keras.Model(image, resnet34(image))
    encoder.trainable = not freeze

    x = _batch_norm(encoder.output, "encoder_bn")  # [B, H/32, W/32, 512]
    for i, filters in enumerate(DECODER, 1):
        x = _deconv(x, filters * filter_scale, 3, f"dec{i}_deconv")
        # [B, H/2^(5-i), W/2^(5-i), filters]
        x = blocks.relu_bn(x, f"dec{i}", **NORM)
    logits = blocks.head(x, num_classes, "classifier", initializer=INIT)
    return keras.Model(image, {"logits": logits}, name="fcn_resnet34")


def resnet34(image: keras.KerasTensor) -> keras.KerasTensor:
    """The convolutional part: [B, H, W, 3] to [B, H/32, W/32, 512].

    Layers are named as in torchvision, with _ for the dots.
    """
    x = _conv(image, STAGES[0][1], 7, "conv1", strides=2, padding=3)
    x = blocks.relu(_batch_norm(x, "bn1"), "relu1")  # [B, H/2, W/2, 64]
    # Zeros never win the maximum: after a ReLU nothing is below them.
    x = layers.ZeroPadding2D(1, name="maxpool_pad")(x)
    x = layers.MaxPooling2D(3, 2, name="maxpool")(x)  # [B, H/4, W/4, 64]
    for stage, (repeats, filters) in enumerate(STAGES, 1):
        for i in range(repeats):
            strides = 2 if stage > 1 and i == 0 else 1
            x = _basic_block(x, filters, strides, f"layer{stage}_{i}")
        # [B, H/2^(stage+1), W/2^(stage+1), filters]
    return x


def _basic_block(x, filters, strides, name):
    shortcut = x
    if strides > 1:
        shortcut = _conv(x, filters, 1, f"{name}_downsample_0", strides=strides)
        shortcut = _batch_norm(shortcut, f"{name}_downsample_1")
    x = _conv(x, filters, 3, f"{name}_conv1", strides=strides, padding=1)
    x = blocks.relu(_batch_norm(x, f"{name}_bn1"), f"{name}_relu1")
    x = _conv(x, filters, 3, f"{name}_conv2", padding=1)
    x = _batch_norm(x, f"{name}_bn2")
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    return blocks.relu(x, f"{name}_relu2")
