"""FCN of strided and dilated convolutions with tanh.

VOC07 3.3, model 5a (Table 1): six convolutions and six transposed ones, each followed
by tanh and batch norm. The six in the middle have both stride 2 and dilation 2.

With stride and dilation both 2, a convolution reads only every second row and column
of its input, one pixel in four. The transposed ones write only to every second row and
column: at least three output pixels in four hold just the bias, a checkerboard that the
next layers pass on. This may explain the model's poor result.

Differs from the paper: Table 1 prints 21 input channels, read as 3 (RGB), and does not
name the type of the first decoder layer, read as transposed like the others. Biases
everywhere, batch norm 0.9, 1e-5 (PyTorch's defaults), Glorot uniform kernels. Keras
cannot combine stride and dilation; `_strided_dilated_conv` and `StridedDilatedDeconv`
compute the same with what it has.
"""

from functools import partial

import keras
from keras import layers, ops

from keras_seg.nets import blocks
from keras_seg.nets.layers import crop

INIT = "glorot_uniform"
NORM = {"momentum": 0.9, "epsilon": 1e-5}
PLAIN_ENCODER = (32, 32, 64)
DILATED_ENCODER = ((128, 3), (256, 5), (512, 5))  # width, kernel size
DILATED_DECODER = ((512, 5, 0), (256, 5, 0), (128, 3, 1))  # ..., output padding
PLAIN_DECODER = (64, 32, 32)

_conv = partial(blocks.conv, use_bias=True, initializer=INIT)
_deconv = partial(blocks.deconv, use_bias=True, initializer=INIT)


def build(
    input_shape: tuple[int, int, int], num_classes: int, *, filter_scale: int = 1
) -> keras.Model:
    """The network for images [B, H, W, 3], H and W multiples of 8, at least 40.

    Args:
        filter_scale: factor on every width but the logits'.

    Returns:
        keras.Model of image float32 (ImageNet's mean 0, deviation 1) to
        {"logits": raw float32 [B, H, W, num_classes]}.
    """
    image = keras.Input(input_shape, name="image")
    x = image
    for i, filters in enumerate(PLAIN_ENCODER, 1):
        x = _conv(x, filters * filter_scale, 3, f"enc{i}", padding=1)
        x = _tanh_bn(x, f"enc{i}")  # [B, H, W, filters]
    for i, (filters, kernel_size) in enumerate(DILATED_ENCODER, 4):
        # [B, H/2 - 1, W/2 - 1, 128], [B, H/4 - 3, W/4 - 3, 256],
        # [B, H/8 - 4, W/8 - 4, 512]
        x = _strided_dilated_conv(x, filters * filter_scale, kernel_size, f"enc{i}")
        x = _tanh_bn(x, f"enc{i}")

    for i, (filters, kernel_size, output_padding) in enumerate(DILATED_DECODER, 1):
        # [B, H/4 - 3, W/4 - 3, 512], [B, H/2 - 1, W/2 - 1, 256], [B, H, W, 128]
        x = StridedDilatedDeconv(
            filters * filter_scale,
            kernel_size,
            padding=1,
            output_padding=output_padding,
            kernel_initializer=INIT,
            name=f"dec{i}",
        )(x)
        x = _tanh_bn(x, f"dec{i}")
    for i, filters in enumerate(PLAIN_DECODER, 4):
        x = _deconv(x, filters * filter_scale, 3, f"dec{i}", strides=1, padding=1)
        x = _tanh_bn(x, f"dec{i}")  # [B, H, W, filters]
    logits = blocks.head(x, num_classes, "classifier", initializer=INIT)
    return keras.Model(image, {"logits": logits}, name="fcn_dilated_tanh")


def _strided_dilated_conv(x, filters, kernel_size, name):
    """Convolution with padding 1, stride 2, dilation 2: [B, H, W, C] -> [B, h, w, F].

    h = floor((H - 2 kernel_size + 1) / 2) + 1. Output i reads the rows 2i, 2i + 2, ...
    of the padded input, so it is a plain convolution of every second row and column.
    """
    x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
    # Average pooling over a single pixel picks every second one unchanged.
    x = layers.AveragePooling2D(1, strides=2, name=f"{name}_subsample")(x)
    return _conv(x, filters, kernel_size, name, padding="valid")


@keras.saving.register_keras_serializable("keras_seg")
class StridedDilatedDeconv(layers.Layer):
    """Transposed convolution with stride 2 and dilation 2, PyTorch's geometry.

    Maps [B, h, w, C] to [B, H, W, filters] with
    H = 2 (h - 1) - 2 padding + 2 (kernel_size - 1) + output_padding + 1. Input i writes
    to the rows 2i, 2i + 2, ... of the unpadded output: a plain transposed convolution
    whose rows and columns are then interleaved with zeros. The bias is added last and
    is the whole value of at least three pixels in four.

    Args:
        filters: int. Output channels.
        kernel_size: int.
        padding: int. Rows and columns cut off at the top and left.
        output_padding: int <= padding. Fewer cut off at the bottom and right.
        kernel_initializer: of the kernel [k, k, filters, C]; the bias starts at zero.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        padding: int = 0,
        output_padding: int = 0,
        kernel_initializer: blocks.Initializer = "glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if output_padding > padding:
            raise ValueError("needs output_padding <= padding")
        self.filters, self.kernel_size = filters, kernel_size
        self.padding, self.output_padding = padding, output_padding
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape):
        size = self.kernel_size
        self.kernel = self.add_weight(
            name="kernel",
            shape=(size, size, self.filters, input_shape[-1]),
            initializer=self.kernel_initializer,
        )
        self.bias = self.add_weight(
            name="bias", shape=(self.filters,), initializer="zeros"
        )

    def call(self, x):
        _, height, width, _ = self.compute_output_shape(x.shape)
        x = ops.conv_transpose(
            x, self.kernel, padding="valid", data_format="channels_last"
        )
        rows, columns = x.shape[1:3]  # h + kernel_size - 1, w + kernel_size - 1
        x = ops.reshape(x, (-1, rows, 1, columns, 1, self.filters))
        x = ops.pad(x, ((0, 0), (0, 0), (0, 1), (0, 0), (0, 1), (0, 0)))
        x = ops.reshape(x, (-1, 2 * rows, 2 * columns, self.filters))
        return crop(x, self.padding, self.padding, height, width) + self.bias

    def compute_output_shape(self, input_shape):
        batch, height, width, _ = input_shape
        extra = 2 * (self.kernel_size - 1) - 2 * self.padding + self.output_padding + 1
        height, width = (2 * (side - 1) + extra for side in (height, width))
        return (batch, height, width, self.filters)

    def get_config(self):
        return super().get_config() | {
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "padding": self.padding,
            "output_padding": self.output_padding,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


def _tanh_bn(x, name):
    x = layers.Activation("tanh", name=f"{name}_tanh")(x)
    return blocks.batch_norm(x, f"{name}_bn", **NORM)
