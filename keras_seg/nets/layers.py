"""Layers that Keras lacks: cropping, fixed-size resizing, pooling, unpooling, LRN."""

import keras
import numpy as np
from keras import ops


def crop(x, top: int, left: int, height: int, width: int):
    """The part [B, height, width, C] of x whose first pixel is at (top, left).

    The gradient of an index, x[:, top:], takes TensorFlow as long as a convolution.
    """
    if keras.backend.backend() == "tensorflow":  # -1 is the whole batch
        return ops.slice(x, (0, top, left, 0), (-1, height, width, x.shape[3]))
    return x[:, top : top + height, left : left + width]


@keras.saving.register_keras_serializable("keras_seg")
class Crop(keras.layers.Cropping2D):
    """`Cropping2D` of [B, H, W, C] whose gradient is one padding."""

    def call(self, inputs):
        (top, _), (left, _) = self.cropping
        _, height, width, _ = self.compute_output_shape(inputs.shape)
        return crop(inputs, top, left, height, width)


@keras.saving.register_keras_serializable("keras_seg")
class BilinearResize(keras.layers.Layer):
    """Bilinear resize to a fixed size, half-pixel centres, no antialiasing.

    Maps [B, H, W, C] to [B, height, width, C] of the layer's dtype. Both sizes are
    fixed when the graph is built: Keras 3.15 cannot resize to an unknown size inside
    `fit` or an export.
    """

    def __init__(self, height: int, width: int, **kwargs):
        super().__init__(**kwargs)
        self.height, self.width = int(height), int(width)

    def call(self, x):
        size = (self.height, self.width)
        # In float32: Keras clips what it casts to narrower types, at the resized size
        x = ops.cast(x, "float32")
        resized = ops.image.resize(
            x, size, interpolation="bilinear", data_format="channels_last"
        )
        return ops.cast(resized, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.height, self.width, input_shape[3])

    def get_config(self):
        return super().get_config() | {"height": self.height, "width": self.width}


@keras.saving.register_keras_serializable("keras_seg")
class AdaptiveAveragePooling(keras.layers.Layer):
    """Means over a grid of `bins` x `bins` regions that cover the whole input.

    Maps [B, H, W, C] to [B, bins, bins, C]. Region i of a side of length h is
    [floor(i h / bins), ceil((i + 1) h / bins)): regions overlap if h is no multiple of
    bins. Computed as a product with one constant matrix.
    """

    def __init__(self, bins: int, **kwargs):
        super().__init__(**kwargs)
        self.bins = int(bins)
        if self.bins < 1:
            raise ValueError(f"bins is {bins}; a grid has at least 1 region a side")

    def build(self, input_shape):
        rows, columns = (averaging_matrix(n, self.bins) for n in input_shape[1:3])
        self.matrix = np.kron(rows, columns)  # [bins * bins, H * W]

    def call(self, x):
        _, height, width, channels = x.shape
        matrix = ops.convert_to_tensor(self.matrix, dtype=self.compute_dtype)
        x = ops.matmul(matrix, ops.reshape(x, (-1, height * width, channels)))
        return ops.reshape(x, (-1, self.bins, self.bins, channels))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.bins, self.bins, input_shape[3])

    def get_config(self):
        return super().get_config() | {"bins": self.bins}


def averaging_matrix(length: int, bins: int) -> np.ndarray:
    """float32 [bins, length]: row i holds the weights of the mean over region i."""
    matrix = np.zeros((bins, length), np.float32)
    for i in range(bins):
        start = i * length // bins
        stop = -(-(i + 1) * length // bins)
        matrix[i, start:stop] = 1 / (stop - start)
    return matrix


@keras.saving.register_keras_serializable("keras_seg")
class MaxPoolingWithIndices(keras.layers.Layer):
    """2x2 max pooling with stride 2 that also returns the position of each maximum.

    Maps [B, H, W, C] to the maxima [B, ceil(H/2), ceil(W/2), C] and, in the same
    shape, int8 indices into the window: 0 top left, 1 top right, 2 bottom left,
    3 bottom right; the first wins a tie. An odd side is padded at the bottom or right,
    as with "same". Splits and comparisons only, so that any backend can compile it.
    """

    def call(self, x, training=False):
        odd_rows, odd_columns = x.shape[1] % 2, x.shape[2] % 2
        if odd_rows or odd_columns:
            padding = ((0, 0), (0, odd_rows), (0, odd_columns), (0, 0))
            x = ops.pad(x, padding, constant_values=-1e30)
        candidates = _window_pixels(x)
        maximum = candidates[0]
        for candidate in candidates[1:]:
            maximum = ops.maximum(maximum, candidate)
        # From last to first, so that the first maximum wins a tie. TensorFlow selects
        # int8 ten times as slowly as floats.
        is_maximum = [ops.equal(candidate, maximum) for candidate in candidates[:3]]
        index = ops.full_like(maximum, 3)
        for i in (2, 1, 0):
            index = ops.where(is_maximum[i], ops.cast(i, index.dtype), index)
        index = ops.cast(index, "int8")
        if not training:
            return maximum, index
        # Equal to `maximum`, whose gradient JAX shares among equal candidates
        pooled = candidates[3]
        for i in (2, 1, 0):
            pooled = ops.where(is_maximum[i], candidates[i], pooled)
        return pooled, index

    def compute_output_spec(self, x, training=False):
        batch, height, width, channels = x.shape
        shape = (batch, -(-height // 2), -(-width // 2), channels)
        return (
            keras.KerasTensor(shape, dtype=self.compute_dtype),
            keras.KerasTensor(shape, dtype="int8"),
        )


def _window_pixels(x):
    """The top left, top right, bottom left and bottom right of each 2x2 window.

    Whole rows and pairs of pixels are split: slices with a stride, and their gradient,
    take TensorFlow ten times as long.
    """
    _, height, width, channels = x.shape
    x = ops.reshape(x, (-1, height // 2, 2, width // 2, 2 * channels))
    return [pixel for row in ops.unstack(x, axis=2) for pixel in ops.split(row, 2, -1)]


@keras.saving.register_keras_serializable("keras_seg")
class MaxUnpooling(keras.layers.Layer):
    """Puts values back where `MaxPoolingWithIndices` found its maxima, zeros elsewhere.

    Maps values and indices, both [B, h, w, C], to [B, height, width, C], the size
    before pooling: 2h or 2h - 1.
    """

    def __init__(self, height: int, width: int, **kwargs):
        super().__init__(**kwargs)
        self.height, self.width = int(height), int(width)

    def call(self, inputs):
        x, index = inputs
        _, height, width, channels = x.shape
        zero = ops.zeros_like(x)
        parts = [ops.where(ops.equal(index, i), x, zero) for i in range(4)]
        rows = [ops.stack(parts[:2], axis=3), ops.stack(parts[2:], axis=3)]
        x = ops.stack(rows, axis=2)  # [B, h, 2, w, 2, C]
        x = ops.reshape(x, (-1, 2 * height, 2 * width, channels))
        is_whole = (self.height, self.width) == (2 * height, 2 * width)
        return x if is_whole else crop(x, 0, 0, self.height, self.width)

    def compute_output_shape(self, input_shape):
        batch, _, _, channels = input_shape[0]
        return (batch, self.height, self.width, channels)

    def get_config(self):
        return super().get_config() | {"height": self.height, "width": self.width}


@keras.saving.register_keras_serializable("keras_seg")
class LocalResponseNormalization(keras.layers.Layer):
    """Caffe's LRN across channels: x (1 + alpha / size sum x^2) ^ -beta.

    Maps [B, H, W, C] to the same shape. The sum runs over the `size` channels around
    each, fewer at the ends.
    """

    def __init__(
        self, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, **kwargs
    ):
        super().__init__(**kwargs)
        self.size, self.alpha, self.beta = size, alpha, beta

    def call(self, x):
        channels = np.arange(x.shape[-1])
        is_near = np.abs(channels[:, None] - channels) <= self.size // 2
        near = ops.convert_to_tensor(is_near.astype("float32"), self.compute_dtype)
        energy = ops.matmul(ops.square(x), near)
        return x * ops.power(1 + self.alpha / self.size * energy, -self.beta)

    def get_config(self):
        config = {"size": self.size, "alpha": self.alpha, "beta": self.beta}
        return super().get_config() | config


@keras.saving.register_keras_serializable("keras_seg")
class BilinearKernel(keras.initializers.Initializer):
    """Transposed convolution kernel [k, k, C, C] that upsamples each channel by itself.

    Caffe's formula: 1 - |x / f - c| with f = ceil(k / 2), c = (2f - 1 - f mod 2) / 2f,
    along both sides, on the diagonal of the channels. With stride 2, k = 4 is bilinear
    upsampling; k = 2 copies the value to the top left pixel only.
    """

    def __call__(self, shape, dtype=None):
        size = shape[0]
        f = -(-size // 2)
        c = (2 * f - 1 - f % 2) / (2 * f)
        side = 1 - np.abs(np.arange(size) / f - c)
        kernel = np.einsum("i,j,oc->ijoc", side, side, np.eye(shape[2], shape[3]))
        return ops.convert_to_tensor(kernel, dtype=dtype or "float32")
