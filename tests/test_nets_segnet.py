"""SegNet and SegNet-basic: pooling indices, input norm, bilinear kernels."""

import numpy as np
import pytest
import tensorflow as tf
from outlines import outline

from keras_seg.nets.layers import (
    BilinearKernel,
    LocalResponseNormalization,
    MaxPoolingWithIndices,
    MaxUnpooling,
)


def test_transposed_convolutions_keep_odd_sizes():
    model = outline("segnet_basic", (45, 61), 4, upsample="deconv")
    assert model.output["logits"].shape == (None, 45, 61, 4)


SIZES = [(8, 8), (9, 7), (45, 60), (1, 5)]


def maps(size, ties):
    """[2, H, W, 3]; with ties, half of the values are 0 as after a ReLU."""
    values = np.random.default_rng(0).normal(size=(2, *size, 3)).astype("float32")
    return np.maximum(values, 0) if ties else values


def positions(indices, size):
    """y W + x of each maximum in the image, from its index in the 2x2 window."""
    rows, columns = np.mgrid[: indices.shape[1], : indices.shape[2]][:, :, :, None]
    return (2 * rows + indices // 2) * size[1] + 2 * columns + indices % 2


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_indices_and_unpooling_equal_tensorflows_argmax(size, ties, training):
    values = maps(size, ties)
    pooled, indices = MaxPoolingWithIndices()(values, training=training)
    unpooled = MaxUnpooling(*size)([pooled, indices])

    expected, argmax = tf.nn.max_pool_with_argmax(values, 2, 2, "SAME")
    np.testing.assert_array_equal(pooled, expected)
    indices = np.asarray(indices).astype(int)
    found = positions(indices, size) * 3 + np.arange(3)  # TF: (y W + x) C + c
    np.testing.assert_array_equal(found, argmax)
    for sample in range(2):
        scattered = tf.scatter_nd(
            tf.reshape(argmax[sample], (-1, 1)),
            tf.reshape(expected[sample], (-1,)),
            [size[0] * size[1] * 3],
        )
        np.testing.assert_array_equal(
            unpooled[sample], tf.reshape(scattered, (*size, 3))
        )


@pytest.mark.peers
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_indices_unpooling_and_gradient_equal_torchs(size, ties, training):
    torch = pytest.importorskip("torch")
    values = maps(size, ties)
    variable = tf.Variable(values)
    with tf.GradientTape() as tape:
        pooled, indices = MaxPoolingWithIndices()(variable, training=training)
        unpooled = MaxUnpooling(*size)([pooled * 2, indices])
        loss = tf.reduce_sum(unpooled**2)
    gradient = tape.gradient(loss, variable)

    image = torch.tensor(values.transpose(0, 3, 1, 2), requires_grad=True)
    expected, where = torch.nn.functional.max_pool2d(
        image, 2, 2, ceil_mode=True, return_indices=True
    )
    scattered = torch.nn.functional.max_unpool2d(
        expected * 2, where, 2, 2, output_size=size
    )
    (scattered**2).sum().backward()

    def channels_last(tensor):
        return tensor.detach().numpy().transpose(0, 2, 3, 1)

    np.testing.assert_array_equal(pooled, channels_last(expected))
    np.testing.assert_array_equal(
        positions(np.asarray(indices).astype(int), size), channels_last(where)
    )
    np.testing.assert_array_equal(unpooled, channels_last(scattered))
    np.testing.assert_allclose(gradient, channels_last(image.grad), rtol=1e-6)


@pytest.mark.parametrize("channels", [3, 9])
def test_response_normalisation_equals_caffes_formula(channels):
    rng = np.random.default_rng(0)
    image = rng.uniform(0, 255, (2, 3, 4, channels)).astype("float32")
    expected = np.empty_like(image)
    for c in range(channels):
        energy = sum(
            image[..., near].astype(float) ** 2
            for near in range(max(c - 2, 0), min(c + 2, channels - 1) + 1)
        )
        expected[..., c] = image[..., c] / (1 + 1e-4 / 5 * energy) ** 0.75
    result = LocalResponseNormalization()(image)
    np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_bilinear_kernel_interpolates_each_channel_alone():
    side = np.array([0.25, 0.75, 0.75, 0.25])
    kernel = np.asarray(BilinearKernel()((4, 4, 2, 2)))
    np.testing.assert_allclose(kernel[:, :, 0, 0], np.outer(side, side))
    np.testing.assert_allclose(kernel[:, :, 1, 1], np.outer(side, side))
    assert not kernel[:, :, 0, 1].any()
    top_left = np.asarray(BilinearKernel()((2, 2, 1, 1)))[:, :, 0, 0]
    np.testing.assert_array_equal(top_left, [[1, 0], [0, 0]])
