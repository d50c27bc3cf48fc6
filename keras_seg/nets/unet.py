"""U-Net, U-Net with batch norm everywhere, and Attention U-Net.

Ronneberger, Fischer and Brox, "U-Net: Convolutional Networks for Biomedical Image
Segmentation", MICCAI 2015; Oktay et al., "Attention U-Net: Learning Where to Look for
the Pancreas", 2018; as compared in CLOTH 4.1 (Fig. 1). One function builds the three:
`unet` without batch norm, `unet_bn` with it after every convolution and transposed
convolution (CLOTH's proposal), `attention_unet` with a gate on every skip, with or
without batch norm in its blocks.

Differs from the paper: "same" padding, so that skips fit without cropping and logits
have the image's size; 3x3 max pooling with stride 2 as CLOTH says (`pool_size=2` is
the original); no dropout. CLOTH does not say whether its Attention U-Net has batch
norm; the public code has it. The gate's coefficients are resized bilinearly, its
output convolution has batch norm always, as in that code. Batch norm 0.99, 1e-3; He
normal kernels (CLOTH names neither).
"""

import keras
from keras import layers

from keras_seg.errors import UsageError
from keras_seg.nets import blocks

INIT = "he_normal"
NORM = {"momentum": 0.99, "epsilon": 1e-3}
FILTERS = (64, 128, 256, 512)
BOTTLENECK = 1024


def build(
    input_shape,
    num_classes,
    *,
    filter_scale=1,
    attention=False,
    batch_norm=True,
    pool_size=3,
):
    """The network for images [B, H, W, 3], H and W multiples of 16.

    Args:
        input_shape: (H, W, channels).
        num_classes: int. Channels of the logits.
        filter_scale: int. Factor on every width but the logits'.
        attention: gate every skip by the decoder's features.
        batch_norm: after every convolution; without it they have biases instead.
        pool_size: 3 (CLOTH) or 2, always with stride 2.

    Returns:
        keras.Model of image float32 (RGB / 255) to {"logits": raw float32 [B, H, W,
        num_classes]}.
    """
    if pool_size not in (2, 3):
        raise UsageError("unet pool_size", pool_size, "3 or 2")
    image = keras.Input(input_shape, name="image")
    x = image

    skips = {}  # level: [B, H / 2^(level - 1), W / 2^(level - 1), C]
    for i, filters in enumerate(FILTERS, 1):
        x = skips[i] = _block(x, filters * filter_scale, f"enc{i}", batch_norm)
        x = layers.MaxPooling2D(
            pool_size, strides=2, padding="same", name=f"enc{i}_pool"
        )(x)
    x = _block(x, BOTTLENECK * filter_scale, "bottleneck", batch_norm)  # stride 16

    for i, filters in reversed(list(enumerate(FILTERS, 1))):
        skip = _attention_gate(skips[i], x, f"gate{i}") if attention else skips[i]
        x = blocks.deconv(
            x,
            filters * filter_scale,
            2,
            use_bias=True,
            initializer=INIT,
            name=f"dec{i}_up",
        )
        if batch_norm:
            x = _bn_relu(x, f"dec{i}_up")
        x = layers.Concatenate(name=f"dec{i}_concat")([skip, x])
        x = _block(x, filters * filter_scale, f"dec{i}", batch_norm)

    logits = blocks.head(x, num_classes, initializer=INIT, name="classifier")
    name = "attention_unet" if attention else "unet_bn" if batch_norm else "unet"
    return keras.Model(image, {"logits": logits}, name=name)


def _block(x, filters, name, batch_norm):
    """Two 3x3 convolutions."""
    for j in (1, 2):
        x = blocks.conv(
            x,
            filters,
            3,
            use_bias=not batch_norm,
            initializer=INIT,
            name=f"{name}_conv{j}",
        )
        if batch_norm:
            x = _bn_relu(x, f"{name}_conv{j}")
        else:
            x = blocks.relu(x, name=f"{name}_conv{j}_relu")
    return x


def _attention_gate(skip, gating, name):
    """The skip [B, 2h, 2w, C], weighed by where the features [B, h, w, 2C] look.

    psi = sigmoid(conv(relu(theta(skip) + phi(gating)))), one coefficient per place.
    """
    height, width, channels = skip.shape[1:]
    inner = channels // 2
    theta = blocks.conv(
        skip,
        inner,
        2,
        strides=2,
        use_bias=False,
        initializer=INIT,
        name=f"{name}_theta",
    )
    phi = blocks.conv(
        gating, inner, 1, use_bias=True, initializer=INIT, name=f"{name}_phi"
    )
    x = layers.Add(name=f"{name}_add")([theta, phi])
    x = blocks.relu(x, name=f"{name}_relu")
    x = blocks.conv(x, 1, 1, use_bias=True, initializer=INIT, name=f"{name}_psi")
    x = layers.Activation("sigmoid", name=f"{name}_sigmoid")(x)
    x = blocks.resize(x, height, width, name=f"{name}_resize")
    x = layers.Multiply(name=f"{name}_multiply")([skip, x])
    x = blocks.conv(x, channels, 1, use_bias=True, initializer=INIT, name=f"{name}_out")
    return blocks.batch_norm(x, name=f"{name}_out_bn", **NORM)


def _bn_relu(x, name):
    x = blocks.batch_norm(x, name=f"{name}_bn", **NORM)
    return blocks.relu(x, name=f"{name}_relu")
