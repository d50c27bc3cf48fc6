"""ResNet50 as a frozen encoder under the decoder of the strided FCN.

CITY 3.6 (transfer learning, Table 2): He et al., "Deep Residual Learning for Image
Recognition", CVPR 2016, with ImageNet's weights; five transposed convolutions follow.

Differs from the paper: Table 2 lists an average pool to 1x1 before the decoder, but the
text says that the decoder takes the last convolution's output; the pool is left out.
The encoder is that of keras.applications, with its preprocessing (BGR minus mean).
Decoder as in `fcn_strided`: biases, batch norm 0.9, 1e-5, Glorot uniform kernels.
"""

import logging

import keras

from keras_seg.nets import blocks

INIT = "glorot_uniform"
NORM = {"momentum": 0.9, "epsilon": 1e-5}
DECODER = (512, 256, 128, 64, 32)

log = logging.getLogger(__name__)


def build(input_shape, num_classes, *, filter_scale=1, freeze=True, weights=None):
    """The network for images [B, H, W, 3], H and W multiples of 32.

    Args:
        input_shape: (H, W, 3).
        num_classes: int. Channels of the logits.
        filter_scale: int. Factor on the decoder's widths; the encoder keeps its own.
        freeze: train the decoder only; the encoder's batch norm keeps its statistics.
        weights: path of keras.applications' weight file of ResNet50 without its top;
            None for random weights.

    Returns:
        keras.Model of image float32 (BGR minus mean) to {"logits": raw float32 [B, H,
        W, num_classes]}.
    """
    image = keras.Input(input_shape, name="image")
    encoder = keras.applications.ResNet50(
        include_top=False, weights=None, input_shape=input_shape
    )
    if freeze:
        encoder.trainable = False
        x = encoder(image, training=False)  # [B, H/32, W/32, 2048]
    else:
        x = encoder(image)
    for i, filters in enumerate(DECODER, 6):
        x = blocks.deconv(
            x,
            filters * filter_scale,
            3,
            padding=1,
            output_padding=1,
            use_bias=True,
            initializer=INIT,
            name=f"deconv{i}",
        )
        x = blocks.batch_norm(x, name=f"deconv{i}_bn", **NORM)
        x = blocks.relu(x, name=f"deconv{i}_relu")
    logits = blocks.head(x, num_classes, initializer=INIT, name="conv_final")
    model = keras.Model(image, {"logits": logits}, name="fcn_resnet50")
    if weights is not None:
        from keras_seg.nets import pretrained

        pretrained.load(model, "fcn_resnet50", weights)
    elif freeze:
        log.warning(
            "fcn_resnet50: the frozen encoder has random weights unless some are "
            "loaded; name a file of ImageNet's with weights= or --init-weights"
        )
    return model
