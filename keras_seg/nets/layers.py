"""Layers that Keras does not have: resizes to a fixed size, adaptive pooling."""

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable("keras_seg")
class BilinearResize(keras.layers.Layer):
    """Bilinear resize to a fixed size, half-pixel centres, not antialiased.

    Maps [B, H, W, C] to [B, height, width, C] of the layer's dtype. Both sizes are
    known when the graph is built: Keras 3.15 cannot resize to an unknown size inside
    `fit` or an export.
    """

    def __init__(self, height, width, **kwargs):
        super().__init__(**kwargs)
        self.height, self.width = int(height), int(width)

    def call(self, x):
        size = (self.height, self.width)
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
    [floor(i h / bins), ceil((i + 1) h / bins)): regions overlap where h is no multiple
    of bins. Two constant matrix products, one per side.
    """

    def __init__(self, bins, **kwargs):
        super().__init__(**kwargs)
        self.bins = int(bins)

    def build(self, input_shape):
        self.rows = averaging_matrix(input_shape[1], self.bins)
        self.columns = averaging_matrix(input_shape[2], self.bins)

    def call(self, x):
        rows = ops.convert_to_tensor(self.rows, dtype=self.compute_dtype)
        columns = ops.convert_to_tensor(self.columns, dtype=self.compute_dtype)
        x = ops.einsum("ih,bhwc->biwc", rows, x)
        return ops.einsum("jw,biwc->bijc", columns, x)

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
