"""U-Net, U-Net with batch norm everywhere, and Attention U-Net.

Ronneberger, Fischer and Brox, "U-Net: Convolutional Networks for Biomedical Image
Segmentation", MICCAI 2015; Oktay et al., "Attention U-Net: Learning Where to Look for
the Pancreas", 2018; as compared in CLOTH 4.1 (Fig. 1). One function builds all three:
`unet` without batch norm, `unet_bn` with it after every convolution and transposed
convolution (CLOTH's proposal), `attention_unet` with a gate on every skip, with or
without batch norm in its blocks.

Differs from the paper: "same" padding, so that skips fit without cropping and logits
have the image's size; 3x3 max pooling with stride 2 as CLOTH describes (`pool_size=2`
is the original); no dropout. CLOTH does not say whether its Attention U-Net has batch
norm; the public code does. As in that code, the gate's coefficients are resized
bilinearly and its output convolution always has batch norm. Batch norm 0.99, 1e-3; He
normal kernels (CLOTH states neither).
"""

from functools import partial

import keras
from keras import layers

from keras_seg.nets import blocks

INIT = "he_normal"
NORM = {"momentum": 0.99, "epsilon": 1e-3}
FILTERS = (64, 128, 256, 512)
BOTTLENECK = 1024

_conv = partial(blocks.conv, initializer=INIT)
_deconv = partial(blocks.deconv, use_bias=True, initializer=INIT)


def build(
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    filter_scale: int = 1,
    attention: bool = False,
    batch_norm: bool = True,
    pool_size: int = 3,
) -> keras.Model:
    """The network for images [B, H, W, 3], H and W multiples of 16.

    Args:
        filter_scale: factor on every width but the logits'.
        attention: gate every skip by the decoder's features.
        batch_norm: after every convolution; without it, convolutions have biases.
        pool_size: 3 (CLOTH) or 2, always with stride 2.

    Returns:
        keras.Model of image float32 (RGB / 255) to
        {"logits": raw float32 [B, H, W, num_classes]}.
    """
    blocks.check_choice("unet", "pool_size", pool_size, (3, 2))
    image = keras.Input(input_shape, name="image")
    x = image

    skips = {}  # level i: [B, H/2^(i-1), W/2^(i-1), filters]
    for i, filters in enumerate(FILTERS, 1):
        x = skips[i] = _block(x, filters * filter_scale, f"enc{i}", batch_norm)
        x = layers.MaxPooling2D(
            pool_size, strides=2, padding="same", name=f"enc{i}_pool"
        )(x)  # [B, H/2^i, W/2^i, filters]
    x = _block(x, BOTTLENECK * filter_scale, "bottleneck", batch_norm)
    # [B, H/16, W/16, 1024]

    for i, filters in reversed(list(enumerate(FILTERS, 1))):
        skip = _attention_gate(skips[i], x, f"gate{i}") if attention else skips[i]
        x = _deconv(x, filters * filter_scale, 2, f"dec{i}_up")
        # [B, H/2^(i-1), W/2^(i-1), filters]
        if batch_norm:
            x = blocks.bn_relu(x, f"dec{i}_up", **NORM)
        x = layers.Concatenate(name=f"dec{i}_concat")([skip, x])
        x = _block(x, filters * filter_scale, f"dec{i}", batch_norm)

    logits = blocks.head(x, num_classes, "classifier", initializer=INIT)
    name = "attention_unet" if attention else "unet_bn" if batch_norm else "unet"
    return keras.Model(image, {"logits": logits}, name=name)


def _block(x, filters, name, batch_norm):
    """Two 3x3 convolutions."""
    for j in (1, 2):
        x = _conv(x, filters, 3, f"{name}_conv{j}", use_bias=not batch_norm)
        if batch_norm:
            x = blocks.bn_relu(x, f"{name}_conv{j}", **NORM)
        else:
            x = blocks.relu(x, f"{name}_conv{j}_relu")
    return x


def _attention_gate(skip, gating, name):
    """The skip [B, 2h, 2w, C], weighted by the features below it [B, h, w, 2C].

    psi = sigmoid(conv(relu(theta(skip) + phi(gating)))), one coefficient per position.
    """
    height, width, channels = skip.shape[1:]
    inner = channels // 2
    theta = _conv(skip, inner, 2, f"{name}_theta", strides=2, use_bias=False)
    # [B, h, w, C/2]
    phi = _conv(gating, inner, 1, f"{name}_phi", use_bias=True)
    x = layers.Add(name=f"{name}_add")([theta, phi])
    x = blocks.relu(x, f"{name}_relu")
    x = _conv(x, 1, 1, f"{name}_psi", use_bias=True)  # [B, h, w, 1]
    x = layers.Activation("sigmoid", name=f"{name}_sigmoid")(x)
    x = blocks.resize(x, height, width, f"{name}_resize")  # [B, 2h, 2w, 1]
    x = layers.Multiply(name=f"{name}_multiply")([skip, x])
    x = _conv(x, channels, 1, f"{name}_out", use_bias=True)
    return blocks.batch_norm(x, f"{name}_out_bn", **NORM)
