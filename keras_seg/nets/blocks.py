"""What two or more networks share: convolutions with an explicit norm and padding.

Tensor in, tensor out; every layer is named after `name`, so that a weight's path says
where it is: `<name>/kernel`, `<name>_bn/gamma`. Batch norm momentum and epsilon and
the kernel initialiser differ between the papers and are
always given by the network's file.
"""

from keras import layers

from keras_seg.nets.layers import BilinearResize


def conv(
    x,
    filters,
    kernel_size,
    *,
    name,
    initializer,
    use_bias,
    strides=1,
    dilation=1,
    padding="same",
):
    """2-D convolution. [B, H, W, C] -> [B, H', W', filters].

    Args:
        padding: "same" and "valid" as in TensorFlow, or the number of zero rows and
            columns on every side (PyTorch). The two differ for strides > 1 on even
            sizes: TensorFlow then pads the bottom and right only.
    """
    if isinstance(padding, int):
        if strides == 1 and 2 * padding == dilation * (kernel_size - 1):
            padding = "same"  # the same zeros, without a copy of the padded input
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
    x,
    filters,
    kernel_size,
    *,
    name,
    initializer,
    use_bias,
    strides=2,
    padding=0,
    output_padding=0,
):
    """Transposed convolution with PyTorch's geometry.

    [B, H, W, C] -> [B, H', W', filters] with
    H' = (H - 1) strides - 2 padding + kernel_size + output_padding. Keras' own "same"
    crops the other sides. Needs output_padding <= padding and kernel_size >= strides.
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
        x = layers.Cropping2D((crop, crop), name=f"{name}_crop")(x)
    return x


def batch_norm(x, *, name, momentum, epsilon, beta_initializer="zeros"):
    """Batch normalisation over (B, H, W) with gamma and beta.

    Args:
        momentum: the share of the old moving statistics that a step keeps (Keras'
            meaning; PyTorch's 0.1 is 0.9 here).
    """
    return layers.BatchNormalization(
        momentum=momentum,
        epsilon=epsilon,
        beta_initializer=beta_initializer,
        name=name,
    )(x)


def relu(x, *, name):
    return layers.ReLU(name=name)(x)


def head(x, num_classes, *, name, initializer, kernel_size=1):
    """Convolution with bias to float32 logits [B, H, W, num_classes].

    float32 also under mixed precision: softmax and losses need it.
    """
    return layers.Conv2D(
        num_classes,
        kernel_size,
        padding="same",
        kernel_initializer=initializer,
        dtype="float32",
        name=name,
    )(x)


def resize(x, height, width, *, name, dtype=None):
    """Bilinear resize, half-pixel centres; x itself where the size is right."""
    if tuple(x.shape[1:3]) == (height, width):
        return x
    return BilinearResize(height, width, dtype=dtype, name=name)(x)
