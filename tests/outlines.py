"""Networks that cost little: without values in their weights, or with narrow layers."""

import functools
import importlib

import keras
import numpy as np
import pytest

from keras_seg import nets


@functools.lru_cache(maxsize=64)
def outline(name, size, num_classes, **options):
    """nets.build, but the weights have shapes only: for shapes and counts."""
    with keras.StatelessScope(initialize_variables=False):
        model = nets.build(name, (*size, 3), num_classes, **options)
    # Else Keras makes the weights at the next chance; collecting garbage takes longer.
    keras.backend.clear_session(free_memory=False)
    return model


def narrow(name, size, num_classes, widths, **options):
    """nets.build with `widths`, {constant of the network's file: value}, in place."""
    module = importlib.import_module(f"keras_seg.nets.{nets.get(name).module}")
    with pytest.MonkeyPatch.context() as patch:
        for constant, value in widths.items():
            patch.setattr(module, constant, value)
        return nets.build(name, (*size, 3), num_classes, **options)


def count(weights):
    return sum(int(np.prod(weight.shape)) for weight in weights)


def output_shape(model, layer):
    """(H, W, C) of a layer's output."""
    return tuple(model.get_layer(layer).output.shape[1:])


def random_weights(layer, seed=0):
    """Fills a layer's weights with normal values, which it returns."""
    rng = np.random.default_rng(seed)
    for weight in layer.weights:
        weight.assign(rng.normal(size=weight.shape))
    return layer.get_weights()


def check_frozen(model, frozen, learnt):
    """A training step at 32 x 64 leaves `frozen` unchanged and `learnt` not zero."""
    before = [np.array(weight) for weight in frozen]
    rng = np.random.default_rng(0)
    image = rng.normal(0, 50, (2, 32, 64, 3)).astype("float32")
    label = rng.integers(0, 3, (2, 32, 64))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss={"logits": loss}, run_eagerly=True)
    model.train_on_batch(image, {"logits": label})
    for weight, value in zip(frozen, before):
        np.testing.assert_array_equal(weight, value, err_msg=weight.path)
    assert np.any(learnt)
