"""The networks of CITY: strided FCN, with PReLU, with ResNet50, slim U-Net."""

import keras
import numpy as np
import pytest
from outlines import count, outline, output_shape

from keras_seg import nets
from keras_seg.errors import UsageError
from keras_seg.nets import (
    fcn_resnet50,
    fcn_strided,
    fcn_strided_prelu,
    pretrained,
)


@pytest.mark.parametrize(
    ("num_classes", "trainable", "weights"),
    [(19, 5_500_179, 5_504_147), (11, 5_499_915, 5_503_883)],
)
def test_fcn_strided_counts_for_other_classes(num_classes, trainable, weights):
    model = outline("fcn_strided", (384, 480), num_classes)
    assert count(model.trainable_weights) == trainable
    assert count(model.weights) == weights


@pytest.mark.parametrize("name", ["fcn_strided", "fcn_strided_prelu"])
def test_strided_layer_sizes(name):
    model = outline(name, (512, 1024), 34)
    for i, channels in enumerate((32, 64, 128, 256, 512), 1):
        side = 512 // 2**i
        assert output_shape(model, f"conv{i}") == (side, 2 * side, channels)
    if name == "fcn_strided_prelu":
        assert output_shape(model, "conv6") == (16, 32, 512)
    for i, channels in enumerate((512, 256, 128, 64, 32), 6):
        side = 2 ** (i - 1)
        assert output_shape(model, f"deconv{i}_bn") == (side, 2 * side, channels)


@pytest.mark.parametrize(
    ("order", "is_negative"), [("bn_act", False), ("act_bn", True)]
)
def test_order_of_activation_and_batch_norm(order, is_negative, monkeypatch):
    monkeypatch.setattr(fcn_strided, "ENCODER", (4,) * 5)
    monkeypatch.setattr(fcn_strided, "DECODER", (4,) * 5)
    keras.utils.set_random_seed(0)
    model = nets.build("fcn_strided", (32, 64, 3), 2, order=order)
    followers = [f"conv{i}_pad" for i in (2, 3, 4, 5)]
    followers += [f"deconv{i}" for i in (6, 7, 8, 9, 10)] + ["conv_final"]
    units = [model.get_layer(name).input for name in followers]
    image = np.random.default_rng(0).normal(size=(2, 32, 64, 3)).astype("float32")
    for values in keras.Model(model.input, units)(image, training=True):
        # With batch norm last the mean is 0, with ReLU last nothing is below 0.
        assert (np.min(values) < 0) == is_negative


def test_unknown_order_is_refused():
    with pytest.raises(UsageError, match="fcn_strided order: relu; expected bn_act"):
        nets.build("fcn_strided", (32, 64, 3), 2, order="relu")


def test_prelu_has_one_slope_for_each_layer(monkeypatch):
    encoder = tuple((4, strides) for _, strides in fcn_strided_prelu.ENCODER)
    monkeypatch.setattr(fcn_strided_prelu, "ENCODER", encoder)
    monkeypatch.setattr(fcn_strided_prelu, "DECODER", (4,) * 5)
    model = nets.build("fcn_strided_prelu", (32, 64, 3), 2)
    prelus = [layer for layer in model.layers if layer.name.endswith("_prelu")]
    assert len(prelus) == 11
    x = np.random.default_rng(0).normal(size=(2, 1, 2, 4)).astype("float32")
    for layer in prelus:
        assert [np.array(weight).item() for weight in layer.weights] == [0.25]
    np.testing.assert_allclose(prelus[5](x), np.where(x > 0, x, 0.25 * x), atol=1e-7)


def test_resnet50_layer_sizes():
    model = outline("fcn_resnet50", (512, 1024), 34)
    assert output_shape(model, "resnet50") == (16, 32, 2048)
    for i, channels in enumerate((512, 256, 128, 64, 32), 6):
        side = 2 ** (i - 1)
        assert output_shape(model, f"deconv{i}_bn") == (side, 2 * side, channels)


def test_unfrozen_resnet50_is_trainable():
    model = outline("fcn_resnet50", (64, 96), 34, freeze=False)
    # Of ResNet50's 23,587,712 weights 53,120 are moving statistics.
    assert count(model.trainable_weights) == 11_008_002 + 23_587_712 - 53_120


def test_doubled_filters_leave_resnet50_as_it_is():
    model = outline("fcn_resnet50", (64, 96), 34, filter_scale=2)
    assert count(model.get_layer("resnet50").weights) == 23_587_712
    assert output_shape(model, "deconv6_bn") == (4, 6, 1024)


def test_frozen_resnet50_keeps_weights_and_statistics(monkeypatch):
    monkeypatch.setattr(fcn_resnet50, "DECODER", (4,) * 5)
    model = nets.build("fcn_resnet50", (32, 64, 3), 3)
    encoder = model.get_layer("resnet50")
    assert encoder.trainable_weights == []
    before = encoder.get_weights()
    rng = np.random.default_rng(0)
    image = rng.normal(0, 50, (2, 32, 64, 3)).astype("float32")
    label = rng.integers(0, 3, (2, 32, 64))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss={"logits": loss})
    model.train_on_batch(image, {"logits": label})
    for weight, value in zip(encoder.weights, before):
        np.testing.assert_array_equal(weight, value, err_msg=weight.path)
    assert np.any(model.get_layer("deconv6_bn").moving_mean)
    # Its batch norm also normalises by these statistics in training.
    bottom = keras.Model(model.input, model.get_layer("deconv6").input)
    np.testing.assert_array_equal(bottom(image, training=True), encoder(image))


def test_frozen_resnet50_without_a_file_is_told_loudly(caplog):
    outline("fcn_resnet50", (32, 64), 3)
    assert "random weights unless some are loaded" in caplog.text
    caplog.clear()
    outline("fcn_resnet50", (32, 64), 3, freeze=False)
    assert caplog.text == ""


def test_resnet50_weights_come_from_the_file_named(monkeypatch, caplog):
    loaded = []
    monkeypatch.setattr(pretrained, "load", lambda *args: loaded.append(args))
    model = outline("fcn_resnet50", (32, 64), 3, weights="resnet50.h5")
    assert loaded == [(model, "fcn_resnet50", "resnet50.h5")]
    assert caplog.text == ""


def test_unet_slim_layer_sizes():
    model = outline("unet_slim", (512, 1024), 34)
    for i, side, channels, up, out in (
        (1, 512, 64, 64, 16),
        (2, 256, 128, 128, 64),
        (3, 128, 256, 256, 128),
        (4, 64, 512, 512, 256),
    ):
        assert output_shape(model, f"enc{i}_conv2") == (side, 2 * side, channels)
        assert output_shape(model, f"dec{i}_up") == (side, 2 * side, up)
        assert output_shape(model, f"dec{i}_conv2") == (side, 2 * side, out)
    assert output_shape(model, "bottleneck_conv2") == (32, 64, 512)


def test_unet_slim_concatenates_the_bare_transposed_convolution():
    model = outline("unet_slim", (32, 64), 3)
    for i in (1, 2, 3, 4):
        skip, up = model.get_layer(f"dec{i}_concat").input
        assert skip is model.get_layer(f"enc{i}_conv2_relu").output
        assert up is model.get_layer(f"dec{i}_up").output
