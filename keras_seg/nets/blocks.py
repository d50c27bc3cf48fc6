"""Blocks that several networks share: convolutions, batch norm, heads, resizing.

A block takes a tensor and returns one. Its layers are named after `name`, so that the
path of a weight shows where it belongs: `<name>/kernel`, `<name>_bn/gamma`. The papers
differ in batch norm and initialisers, so those have no defaults here: every network
states its own at the top of its file.
"""

from collections.abc import Mapping, Sequence

import keras
from keras import layers

from keras_seg.errors import UsageError
from keras_seg.nets.layers import BilinearResize, Crop

Tensor = keras.KerasTensor
Initializer = str | Mapping[str, object] | keras.initializers.Initializer


def conv(
    x: Tensor,
    filters: int,
    kernel_size: int,
    name: str,
    *,
    initializer: Initializer,
    use_bias: bool,
    strides: int = 1,
    dilation: int = 1,
    padding: str | int = "same",
) -> Tensor:
    """2-D convolution. [B, H, W, C] -> [B, H', W', filters].

    Args:
        padding: "same" and "valid" as in TensorFlow, or the number of zero rows and
            columns on every side (PyTorch). The two differ for strides > 1 on even
            sizes: TensorFlow then pads the bottom and right only.
    """
    if isinstance(padding, int):
        if strides == 1 and 2 * padding == dilation * (kernel_size - 1):
            padding = "same"  # the same zeros, without a padded copy of the input
        else:
            if padding:
                x = layers.ZeroPadding2D(padding, name=f"{name}_pad")(x)
            padding = "valid"
    return layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        dilation_rate=dilation,
        padding=padding,
        use_bias=use_bias,
        kernel_initializer=initializer,
        name=name,
    )(x)


def deconv(
    x: Tensor,
    filters: int,
    kernel_size: int,
    name: str,
    *,
    initializer: Initializer,
    use_bias: bool,
    strides: int = 2,
    padding: int = 0,
    output_padding: int = 0,
) -> Tensor:
    """Transposed convolution with PyTorch's geometry.

    [B, H, W, C] -> [B, H', W', filters] with
    H' = (H - 1) strides - 2 padding + kernel_size + output_padding. (Keras' own "same"
    crops the other sides.)

    Raises:
        ValueError: output_padding > padding or kernel_size < strides.
    """
    if output_padding > padding or kernel_size < strides:
        raise ValueError("needs output_padding <= padding and kernel_size >= strides")
    x = layers.Conv2DTranspose(
        filters,
        kernel_size,
        strides=strides,
        padding="valid",
        use_bias=use_bias,
        kernel_initializer=initializer,
        name=name,
    )(x)
    if padding:
        crop = (padding, padding - output_padding)
        x = Crop((crop, crop), name=f"{name}_crop")(x)
    return x


def batch_norm(
    x: Tensor,
    name: str,
    *,
    momentum: float,
    epsilon: float,
    beta_initializer: Initializer = "zeros",
) -> Tensor:
    """Batch normalisation over (B, H, W) with gamma and beta.

    Args:
        momentum: the share of the old moving statistics that a step keeps (as in
            Keras; PyTorch's 0.1 is 0.9 here).
    """
    return layers.BatchNormalization(
        momentum=momentum,
        epsilon=epsilon,
        beta_initializer=beta_initializer,
        name=name,
    )(x)


def relu(x: Tensor, name: str) -> Tensor:
    return layers.ReLU(name=name)(x)


def bn_relu(x: Tensor, name: str, **norm) -> Tensor:
    """`batch_norm` with the settings `norm`, then ReLU."""
    return relu(batch_norm(x, f"{name}_bn", **norm), f"{name}_relu")


def relu_bn(x: Tensor, name: str, **norm) -> Tensor:
    """ReLU, then `batch_norm` with the settings `norm`."""
    return batch_norm(relu(x, f"{name}_relu"), f"{name}_bn", **norm)


def conv_bn(
    x: Tensor,
    filters: int,
    kernel_size: int,
    name: str,
    *,
    norm: Mapping[str, object],
    **options,
) -> Tensor:
    """`conv` with its `options`, then `batch_norm` with the settings `norm`."""
    x = conv(x, filters, kernel_size, name, **options)
    return batch_norm(x, f"{name}_bn", **norm)


def conv_bn_relu(
    x: Tensor, filters: int, kernel_size: int, name: str, **options
) -> Tensor:
    """`conv_bn`, then ReLU."""
    return relu(conv_bn(x, filters, kernel_size, name, **options), f"{name}_relu")


def head(
    x: Tensor,
    num_classes: int,
    name: str,
    *,
    initializer: Initializer,
    kernel_size: int = 1,
) -> Tensor:
    """Convolution with bias to float32 logits [B, H, W, num_classes].

    float32 also in mixed precision: softmax and the losses need it.
    """
    return layers.Conv2D(
        num_classes,
        kernel_size,
        padding="same",
        kernel_initializer=initializer,
        dtype="float32",
        name=name,
    )(x)


def resize(
    x: Tensor, height: int, width: int, name: str, *, dtype: str | None = None
) -> Tensor:
    """Bilinear resize with half-pixel centres; x itself if it has that size."""
    if tuple(x.shape[1:3]) == (height, width):
        return x
    return BilinearResize(height, width, dtype=dtype, name=name)(x)


def check_choice(net: str, knob: str, value: object, choices: Sequence) -> None:
    """Raises UsageError, which lists the choices, if a knob's value is not one."""
    if value not in choices:
        known = ", ".join(map(str, choices))
        raise UsageError(f"{knob} of {net} is {value}; it must be one of {known}.")


def check_at_least_1(net: str, knob: str, value: int) -> None:
    """Raises UsageError if a knob's value is below 1."""
    if value < 1:
        raise UsageError(f"{knob} of {net} is {value}; it must be at least 1.")
