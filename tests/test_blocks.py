"""Convolutions of blocks.py against loops with PyTorch's geometry."""

import keras
import naive_convolution
import numpy as np
import pytest

from keras_seg.nets import blocks


def with_random_weights(make, size):
    """A model of one convolution on [2, *size, 3], its kernel, its bias, an image."""
    rng = np.random.default_rng(0)
    image = keras.Input((*size, 3))
    options = {"use_bias": True, "initializer": "zeros", "name": "layer"}
    model = keras.Model(image, make(image, **options))
    kernel, bias = (rng.normal(size=w.shape) for w in model.get_weights())
    model.set_weights([kernel, bias])
    return model, kernel, bias, rng.normal(size=(2, *size, 3)).astype("float32")


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
    model, kernel, bias, image = with_random_weights(
        lambda x, **options: blocks.conv(
            x,
            4,
            kernel_size,
            strides=strides,
            padding=padding,
            dilation=dilation,
            **options,
        ),
        size,
    )
    expected = naive_convolution.conv(image, kernel, bias, strides, padding, dilation)
    np.testing.assert_allclose(model(image), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("kernel_size", "strides", "padding", "output_padding"),
    [(3, 2, 1, 1), (3, 2, 1, 0), (4, 2, 1, 0), (2, 2, 0, 0), (3, 1, 1, 0)],
)
@pytest.mark.parametrize("size", [(4, 7), (5, 6)])
def test_deconv_is_pytorchs(size, kernel_size, strides, padding, output_padding):
    model, kernel, bias, image = with_random_weights(
        lambda x, **options: blocks.deconv(
            x,
            4,
            kernel_size,
            strides=strides,
            padding=padding,
            output_padding=output_padding,
            **options,
        ),
        size,
    )
    expected = naive_convolution.deconv(
        image, kernel, bias, strides, padding, output_padding
    )
    np.testing.assert_allclose(model(image), expected, atol=1e-5)


def test_deconv_refuses_what_cropping_cannot_give():
    image = keras.Input((4, 4, 3))
    with pytest.raises(ValueError, match="output_padding <= padding"):
        blocks.deconv(
            image,
            4,
            2,
            output_padding=1,
            use_bias=True,
            initializer="zeros",
            name="layer",
        )
