"""Convolutions of blocks.py against loops with PyTorch's geometry."""

import keras
import naive_convolution
import numpy as np
import pytest
from outlines import random_weights

from keras_seg.nets import blocks
from keras_seg.nets.layers import BilinearResize, Crop

BIASED = {"use_bias": True, "initializer": "zeros"}


def check(block, naive, size, kernel_size, options):
    """The block and the loop give equal outputs for [2, *size, 3]."""
    image = keras.Input((*size, 3))
    model = keras.Model(
        image, block(image, 4, kernel_size, "layer", **BIASED, **options)
    )
    weights = random_weights(model)
    values = np.random.default_rng(1).normal(size=(2, *size, 3)).astype("float32")
    expected = naive(values, *weights, *options.values())
    np.testing.assert_allclose(model(values), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("kernel_size", "strides", "padding", "dilation"),
    [
        (3, 2, 1, 1),
        (7, 2, 3, 1),
        (1, 2, 0, 1),
        (3, 1, 2, 1),
        (3, 1, 1, 1),
        (3, 1, 2, 2),
    ],
)
@pytest.mark.parametrize("size", [(8, 11), (7, 10)])
def test_padding_by_number_is_pytorchs(size, kernel_size, strides, padding, dilation):
    options = {"strides": strides, "padding": padding, "dilation": dilation}
    check(blocks.conv, naive_convolution.conv, size, kernel_size, options)


@pytest.mark.parametrize(
    ("kernel_size", "strides", "padding", "output_padding"),
    [(3, 2, 1, 1), (3, 2, 1, 0), (4, 2, 1, 0), (2, 2, 0, 0), (3, 1, 1, 0)],
)
@pytest.mark.parametrize("size", [(4, 7), (5, 6)])
def test_deconv_is_pytorchs(size, kernel_size, strides, padding, output_padding):
    options = {"strides": strides, "padding": padding, "output_padding": output_padding}
    check(blocks.deconv, naive_convolution.deconv, size, kernel_size, options)


def test_deconv_refuses_what_cropping_cannot_give():
    image = keras.Input((4, 4, 3))
    with pytest.raises(ValueError, match="output_padding <= padding"):
        blocks.deconv(image, 4, 2, "layer", output_padding=1, **BIASED)


def test_a_bilinear_resize_in_bfloat16_is_the_rounded_one():
    """3x4 to 5x8 pixels: weights by hand, of half-pixel centres."""
    image = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    image = np.array(keras.ops.cast(image, "bfloat16"), "float64")
    rows = np.array(
        [[1, 0, 0], [0.6, 0.4, 0], [0, 1, 0], [0, 0.4, 0.6], [0, 0, 1]]
    )  # centres at (i + .5) 3/5 - .5: -.2, .4, 1, 1.6, 2.2
    columns = np.zeros((8, 4))
    for i in range(8):  # centres at (i + .5) / 2 - .5: -.25, .25, .75, ..., 3.25
        near, far = i // 2, i // 2 + (1 if i % 2 else -1)
        columns[i, near] += 0.75
        columns[i, min(max(far, 0), 3)] += 0.25
    expected = np.einsum("ij,bjkc,lk->bilc", rows, image, columns)
    layer = BilinearResize(5, 8, dtype="mixed_bfloat16")
    found = layer(keras.ops.cast(image, "bfloat16"))
    assert keras.backend.standardize_dtype(found.dtype) == "bfloat16"
    found = np.array(keras.ops.cast(found, "float32"))
    np.testing.assert_allclose(found, expected, rtol=2**-8, atol=1e-6)


def test_a_bilinear_resize_in_bfloat16_clips_nothing():
    tf = pytest.importorskip("tensorflow")
    layer = BilinearResize(5, 9, dtype="mixed_bfloat16")
    image = tf.zeros((2, 3, 4, 5), "bfloat16")
    graph = tf.function(layer).get_concrete_function(image).graph
    kinds = {operation.type for operation in graph.get_operations()}
    assert kinds.isdisjoint({"Maximum", "Minimum", "ClipByValue"}), kinds


@pytest.mark.parametrize("cropping", [((1, 0), (0, 2)), ((0, 0), (0, 0)), ((2, 1), 1)])
def test_a_crop_is_keras_with_another_gradient(cropping):
    tf = pytest.importorskip("tensorflow")
    (top, bottom), sides = cropping
    left, right = (sides, sides) if isinstance(sides, int) else sides
    layer = Crop(((top, bottom), (left, right)))
    rng = np.random.default_rng(0)
    image = tf.constant(rng.normal(size=(2, 5, 7, 3)).astype("float32"))
    with tf.GradientTape() as tape:
        tape.watch(image)
        found = layer(image)
    expected = image[:, top : 5 - bottom, left : 7 - right]
    np.testing.assert_array_equal(found, expected)
    above = rng.normal(size=found.shape).astype("float32")
    whole = np.zeros(image.shape, "float32")
    whole[:, top : 5 - bottom, left : 7 - right] = above
    np.testing.assert_array_equal(tape.gradient(found, image, above), whole)
    with pytest.raises(ValueError, match="cropping"):
        Crop(((3, 3), (0, 0)))(image)
    graph = tf.function(layer).get_concrete_function(image).graph
    assert "StridedSlice" not in {one.type for one in graph.get_operations()}
