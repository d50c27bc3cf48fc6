"""Winograd's convolutions against TensorFlow's in float64."""

import numpy as np
import pytest
import tensorflow as tf

from keras_seg.backend import winograd

SHAPES = [  # images, then filters and the kernel's size
    ((2, 5, 7, 3), 4, 3),
    ((3, 9, 10, 5), 2, 5),
    ((2, 8, 3, 4), 3, 7),  # fewer columns than the kernel has
    ((1, 4, 1, 2), 2, 3),
    ((2, 6, 16, 40), 20, 7),
]


CLOSENESS = {3: 1e-5, 5: 3e-5, 7: 1e-4}  # of the spread: the sums cancel more and more


def assert_close(found, expected, size):
    error = np.abs(np.asarray(found, "float64") - np.asarray(expected)).max()
    assert error < CLOSENESS[size] * np.std(expected)


@pytest.mark.parametrize(("shape", "filters", "size"), SHAPES)
def test_convolution(shape, filters, size):
    rng = np.random.default_rng(size)
    image = rng.normal(size=shape)
    kernel = rng.normal(size=(size, size, shape[3], filters))
    expected = tf.nn.conv2d(image, kernel, 1, "SAME")
    single = (tf.constant(one, "float32") for one in (image, kernel))
    found = winograd.convolve(*single)
    assert found.shape == expected.shape
    assert_close(found, expected, size)


@pytest.mark.parametrize(("shape", "filters", "size"), SHAPES)
def test_gradient_by_the_kernel(shape, filters, size):
    rng = np.random.default_rng(size)
    image = rng.normal(size=shape)
    upstream = rng.normal(size=(*shape[:3], filters))
    kernel = (size, size, shape[3], filters)
    expected = tf.raw_ops.Conv2DBackpropFilter(
        input=image,
        filter_sizes=kernel,
        out_backprop=upstream,
        strides=[1, 1, 1, 1],
        padding="SAME",
    )
    single = (tf.constant(one, "float32") for one in (image, upstream))
    found = winograd.kernel_gradient(*single, size)
    assert found.shape == kernel
    assert_close(found, expected, size)


@pytest.mark.parametrize("columns", [3, 5, 7])
def test_a_tile_takes_as_many_products_as_it_has_pixels(columns):
    of_results, of_kernel, of_image = winograd.transforms(columns)
    pixels = columns + 3
    shapes = [matrix.shape for matrix in (of_results, of_kernel, of_image)]
    assert shapes == [(4, pixels), (pixels, columns), (pixels, pixels)]
    kernel, tile = np.arange(2.0, columns + 2), np.arange(pixels) ** 2 % 7.0
    found = of_results @ ((of_kernel @ kernel) * (of_image @ tile))
    np.testing.assert_allclose(found, np.correlate(tile, kernel), rtol=1e-5)
