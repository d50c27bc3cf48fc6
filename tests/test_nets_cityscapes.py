"""The networks of CITY: strided FCN, with PReLU, with ResNet50, slim U-Net."""

import keras
import numpy as np
import pytest
from outlines import check_frozen, count, narrow, outline, output_shape

STRIDES = (2, 2, 2, 2, 2, 1)  # of fcn_strided_prelu's encoder


@pytest.mark.parametrize(
    ("name", "bottom", "channels"),
    [
        ("fcn_strided", "conv5", 512),
        ("fcn_strided_prelu", "conv6", 512),
        ("fcn_resnet50", "resnet50", 2048),
    ],
)
def test_strided_layer_sizes(name, bottom, channels):
    model = outline(name, (512, 1024), 34)
    assert output_shape(model, bottom) == (16, 32, channels)
    if name != "fcn_resnet50":
        for i, channels in enumerate((32, 64, 128, 256, 512), 1):
            side = 512 // 2**i
            assert output_shape(model, f"conv{i}") == (side, 2 * side, channels)
    for i, channels in enumerate((512, 256, 128, 64, 32), 6):
        side = 2 ** (i - 1)
        assert output_shape(model, f"deconv{i}_bn") == (side, 2 * side, channels)


@pytest.mark.parametrize(
    ("order", "is_negative"), [("bn_act", False), ("act_bn", True)]
)
def test_order_of_activation_and_batch_norm(order, is_negative):
    widths = {"ENCODER": (4,) * 5, "DECODER": (4,) * 5}
    model = narrow("fcn_strided", (32, 64), 2, widths, order=order)
    followers = [f"conv{i}_pad" for i in (2, 3, 4, 5)]
    followers += [f"deconv{i}" for i in (6, 7, 8, 9, 10)] + ["conv_final"]
    units = [model.get_layer(name).input for name in followers]
    image = np.random.default_rng(0).normal(size=(2, 32, 64, 3)).astype("float32")
    for values in keras.Model(model.input, units)(image, training=True):
        # With batch norm last the mean is 0, with ReLU last nothing is below 0.
        assert (np.min(values) < 0) == is_negative


def test_prelu_has_one_slope_for_each_layer():
    widths = {"ENCODER": tuple((4, s) for s in STRIDES), "DECODER": (4,) * 5}
    model = narrow("fcn_strided_prelu", (32, 64), 2, widths)
    prelus = [layer for layer in model.layers if layer.name.endswith("_prelu")]
    assert len(prelus) == 11
    x = np.random.default_rng(0).normal(size=(2, 1, 2, 4)).astype("float32")
    for layer in prelus:
        assert [np.array(weight).item() for weight in layer.weights] == [0.25]
    np.testing.assert_allclose(prelus[5](x), np.where(x > 0, x, 0.25 * x), atol=1e-7)


def test_doubled_filters_leave_resnet50_as_it_is():
    model = outline("fcn_resnet50", (64, 96), 34, filter_scale=2)
    assert count(model.get_layer("resnet50").weights) == 23_587_712
    assert output_shape(model, "deconv6_bn") == (4, 6, 1024)


def test_frozen_resnet50_keeps_weights_and_statistics():
    model = narrow("fcn_resnet50", (32, 64), 3, {"DECODER": (4,) * 5})
    encoder = model.get_layer("resnet50")
    assert encoder.trainable_weights == []
    learnt = model.get_layer("deconv6_bn").moving_mean
    check_frozen(model, encoder.weights, learnt)
    # Its batch norm also normalises by these statistics in training.
    bottom = keras.Model(model.input, model.get_layer("deconv6").input)
    image = np.random.default_rng(0).normal(0, 50, (2, 32, 64, 3)).astype("float32")
    np.testing.assert_array_equal(bottom(image, training=True), encoder(image))


def test_unet_slim_layer_sizes():
    model = outline("unet_slim", (512, 1024), 34)
    for i, side, channels, out in (
        (1, 512, 64, 16),
        (2, 256, 128, 64),
        (3, 128, 256, 128),
        (4, 64, 512, 256),
    ):
        assert output_shape(model, f"enc{i}_conv2") == (side, 2 * side, channels)
        assert output_shape(model, f"dec{i}_up") == (side, 2 * side, channels)
        assert output_shape(model, f"dec{i}_conv2") == (side, 2 * side, out)
        # The transposed convolution is concatenated as it is.
        skip, up = model.get_layer(f"dec{i}_concat").input
        assert skip is model.get_layer(f"enc{i}_conv2_relu").output
        assert up is model.get_layer(f"dec{i}_up").output
    assert output_shape(model, "bottleneck_conv2") == (32, 64, 512)
