"""The cost of one image: multiplications and additions of a network's forward pass.

Convolutions, transposed convolutions and dense layers are counted. Biases, norms,
activations, pooling and resizing, which add almost nothing, are not.
"""

import math

import keras

from keras_seg.nets.fcn_dilated_tanh import StridedDilatedDeconv

TRANSPOSED = (keras.layers.Conv2DTranspose, StridedDilatedDeconv)


def forward(model: keras.Model) -> int:
    """Floating-point operations for one image; a multiply-add counts as two.

    Args:
        model: a functional model whose layers all have known sizes. A custom layer
            that contains convolutions must keep height and width in all of them.
    """
    return sum(map(_operations, model.layers))


def _operations(layer: keras.layers.Layer) -> int:
    if isinstance(layer, keras.Model):
        return forward(layer)
    kernels = [weight for weight in layer.weights if weight.name == "kernel"]
    if not kernels:
        return 0
    # A kernel is applied once at every position of the output; a transposed one, which
    # spreads each input value, at every position of the input.
    shape = (layer.input if isinstance(layer, TRANSPOSED) else layer.output).shape
    positions = math.prod(shape[1:-1])
    return 2 * positions * sum(math.prod(kernel.shape) for kernel in kernels)
