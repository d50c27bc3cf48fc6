"""What one image costs: the multiplications and additions of a network's forward pass.

Counted are convolutions, transposed convolutions and dense layers, which are nearly
all of it; biases, norms, activations, poolings and resizes are left out.
"""

import math

import keras

from keras_seg.nets.fcn_dilated_tanh import StridedDilatedDeconv

TRANSPOSED = (keras.layers.Conv2DTranspose, StridedDilatedDeconv)


def forward(model: keras.Model) -> int:
    """Floating-point operations for one image; a multiply-add counts as two.

    Args:
        model: a functional model whose layers all have known sizes. A layer of our
            own that holds convolutions must keep height and width in all of them.
    """
    return sum(map(_operations, model.layers))


def _operations(layer: keras.layers.Layer) -> int:
    if isinstance(layer, keras.Model):
        return forward(layer)
    kernels = [weight for weight in layer.weights if weight.name == "kernel"]
    if not kernels:
        return 0
    # A kernel is used once at every place of the output; a transposed one, which
    # spreads each input value, at every place of the input.
    shape = (layer.input if isinstance(layer, TRANSPOSED) else layer.output).shape
    places = math.prod(shape[1:-1])
    return 2 * places * sum(math.prod(kernel.shape) for kernel in kernels)
