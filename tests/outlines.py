"""Networks without values in their weights: shapes and counts in no time."""

import keras
import numpy as np

from keras_seg import nets


def outline(name, size, num_classes, **options):
    """nets.build, but the weights have shapes only."""
    with keras.StatelessScope(initialize_variables=False):
        model = nets.build(name, (*size, 3), num_classes, **options)
    keras.backend.clear_session()  # else Keras makes the weights at the next chance
    return model


def count(weights):
    return sum(int(np.prod(weight.shape)) for weight in weights)


def output_shape(model, layer):
    """(H, W, C) of what a layer of the model gives."""
    return tuple(model.get_layer(layer).output.shape[1:])
