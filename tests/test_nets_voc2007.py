"""The networks of VOC07: dilated tanh FCN (5a) and unpadded U-Net (5c)."""

import keras
import naive_convolution
import numpy as np
import pytest
import tensorflow as tf
from outlines import count, outline, output_shape

from keras_seg import nets
from keras_seg.errors import UsageError
from keras_seg.nets import fcn_dilated_tanh, unet_valid
from keras_seg.nets.fcn_dilated_tanh import StridedDilatedDeconv


def narrow_dilated_tanh(monkeypatch, size):
    monkeypatch.setattr(fcn_dilated_tanh, "PLAIN_ENCODER", (4, 4, 4))
    monkeypatch.setattr(fcn_dilated_tanh, "DILATED_ENCODER", ((4, 3), (6, 5), (4, 5)))
    decoder = ((6, 5, 0), (4, 5, 0), (6, 3, 1))
    monkeypatch.setattr(fcn_dilated_tanh, "DILATED_DECODER", decoder)
    monkeypatch.setattr(fcn_dilated_tanh, "PLAIN_DECODER", (4, 4, 4))
    return nets.build("fcn_dilated_tanh", (*size, 3), 2)


def narrow_unet_valid(monkeypatch, size, **knobs):
    monkeypatch.setattr(unet_valid, "ENCODER", (3, 4, 4, 4))
    monkeypatch.setattr(unet_valid, "BOTTLENECK", 5)
    decoder = {4: (4, 0, 4), 3: (4, 1, 3), 2: (3, 0, 4), 1: (4, 0, 3)}
    monkeypatch.setattr(unet_valid, "DECODER", decoder)
    keras.utils.set_random_seed(0)
    return nets.build("unet_valid", (*size, 3), 2, **knobs)


def test_baseline_of_voc07():
    model = outline("fcn_strided", (224, 224), 21, order="act_bn")
    assert count(model.trainable_weights) == 5_500_245
    assert count(model.weights) == 5_504_213
    assert output_shape(model, "conv5_bn") == (7, 7, 512)
    assert model.output["logits"].shape == (None, 224, 224, 21)


def test_dilated_tanh_layer_sizes():
    model = outline("fcn_dilated_tanh", (224, 224), 21)
    units = {f"enc{i}": size for i, size in enumerate((224, 224, 224, 111, 53, 24), 1)}
    units |= {
        f"dec{i}": size for i, size in enumerate((53, 111, 224, 224, 224, 224), 1)
    }
    channels = (32, 32, 64, 128, 256, 512, 512, 256, 128, 64, 32, 32)
    for (unit, side), filters in zip(units.items(), channels):
        assert output_shape(model, f"{unit}_bn") == (side, side, filters)


@pytest.mark.parametrize("size", [(40, 48), (56, 80), (104, 40)])
def test_dilated_tanh_gives_back_every_multiple_of_8(size):
    model = outline("fcn_dilated_tanh", size, 3)
    assert model.output["logits"].shape == (None, *size, 3)


def test_dilated_tanh_normalises_after_tanh(monkeypatch):
    model = narrow_dilated_tanh(monkeypatch, (40, 48))
    for unit in [f"enc{i}" for i in range(1, 7)] + [f"dec{i}" for i in range(1, 7)]:
        tanh, norm = (model.get_layer(f"{unit}_{part}") for part in ("tanh", "bn"))
        assert norm.input is tanh.output


@pytest.mark.parametrize(("unit", "size"), [("enc4", (40, 48)), ("enc5", (19, 23))])
def test_strided_dilated_convolution_is_pytorchs(unit, size, monkeypatch):
    """Kernel sizes 3 and 5, even and odd sides, stride 2, padding 1, dilation 2."""
    model = narrow_dilated_tanh(monkeypatch, (40, 48))
    pad, layer = model.get_layer(f"{unit}_pad"), model.get_layer(unit)
    assert tuple(pad.input.shape[1:3]) == size
    rng = np.random.default_rng(0)
    for weight in layer.weights:
        weight.assign(rng.normal(size=weight.shape))
    image = rng.normal(size=(2, *size, 4)).astype("float32")
    equivalent = keras.Model(pad.input, layer.output)
    expected = naive_convolution.conv(image, *layer.get_weights(), 2, 1, dilation=2)
    np.testing.assert_allclose(equivalent(image), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("kernel_size", "padding", "output_padding"),
    [(5, 1, 0), (3, 1, 1), (3, 1, 0), (3, 0, 0), (1, 0, 0)],
)
@pytest.mark.parametrize("size", [(4, 5), (7, 3)])
def test_strided_dilated_deconv_is_pytorchs(size, kernel_size, padding, output_padding):
    layer = StridedDilatedDeconv(4, kernel_size, padding, output_padding)
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, *size, 3)).astype("float32")
    layer.build(image.shape)
    for weight in layer.weights:
        weight.assign(rng.normal(size=weight.shape))
    expected = naive_convolution.deconv(
        image, *layer.get_weights(), 2, padding, output_padding, dilation=2
    )
    assert layer.compute_output_shape(image.shape) == expected.shape
    np.testing.assert_allclose(layer(image), expected, atol=1e-4)


def test_strided_dilated_deconv_leaves_three_pixels_in_four_at_the_bias(monkeypatch):
    model = narrow_dilated_tanh(monkeypatch, (40, 48))
    layer = model.get_layer("dec3")
    rng = np.random.default_rng(0)
    for weight in layer.weights:
        weight.assign(rng.normal(size=weight.shape))
    image = rng.normal(size=(2, 19, 23, 4)).astype("float32")
    is_written = np.array(layer(image) != np.array(layer.bias)).any(axis=3)
    assert is_written.shape == (2, 40, 48)
    assert is_written.mean() == 0.25
    assert is_written[:, 1::2, 1::2].all()


def test_strided_dilated_convolution_reads_one_pixel_in_four(monkeypatch):
    model = narrow_dilated_tanh(monkeypatch, (40, 48))
    pad, layer = model.get_layer("enc4_pad"), model.get_layer("enc4")
    image = tf.random.stateless_normal((1, 40, 48, 4), (1, 2))
    with tf.GradientTape() as tape:
        tape.watch(image)
        total = tf.reduce_sum(keras.Model(pad.input, layer.output)(image) ** 2)
    is_read = np.any(tape.gradient(total, image), axis=3)
    assert 0.2 < is_read.mean() <= 0.25


@pytest.mark.parametrize(
    ("side", "sides"),
    [
        (224, (222, 220, 108, 106, 51, 49, 22, 20, 8, 6)),
        (256, (254, 252, 124, 122, 59, 57, 26, 24, 10, 8)),
    ],
)
def test_unet_valid_encoder_sizes(side, sides):
    model = outline("unet_valid", (side, side), 21)
    units = [f"enc{i}" for i in (1, 2, 3, 4)] + ["bottleneck"]
    convs = [f"{unit}_conv{j}" for unit in units for j in (1, 2)]
    assert [output_shape(model, conv)[0] for conv in convs] == list(sides)


@pytest.mark.parametrize(
    ("side", "sides"),
    [
        (224, (12, 14, 16, 33, 35, 37, 74, 76, 78, 156, 158, 160)),
        (256, (16, 18, 20, 41, 43, 45, 90, 92, 94, 188, 190, 192)),
    ],
)
def test_unet_valid_decoder_sizes(side, sides):
    model = outline("unet_valid", (side, side), 21)
    layers = [f"dec{i}_{j}" for i in (4, 3, 2, 1) for j in ("up", "conv1", "conv2")]
    assert [output_shape(model, layer)[0] for layer in layers] == list(sides)


def test_unet_valid_with_skips_crops_them():
    model = outline("unet_valid", (224, 256), 21, skips=True)
    assert count(model.trainable_weights) == 36_968_341
    assert {
        i: [tuple(x.shape[1:]) for x in model.get_layer(f"dec{i}_concat").input]
        for i in (4, 3, 2, 1)
    } == {
        4: [(12, 16, 512), (12, 16, 1024)],
        3: [(33, 41, 256), (33, 41, 512)],
        2: [(74, 90, 128), (74, 90, 256)],
        1: [(156, 188, 64), (156, 188, 128)],
    }


def test_unet_valid_output_padding_holds_the_bias_only(monkeypatch):
    model = narrow_unet_valid(monkeypatch, (144, 160))
    layer = model.get_layer("dec3_up")
    rng = np.random.default_rng(0)
    for weight in layer.weights:
        weight.assign(rng.normal(size=weight.shape))
    image = rng.normal(size=(2, 5, 7, 4)).astype("float32")
    expected = naive_convolution.deconv(image, *layer.get_weights(), 2, 0, 1)
    assert expected.shape[1:3] == (11, 15)
    np.testing.assert_allclose(layer(image), expected, atol=1e-5)
    np.testing.assert_allclose(expected[:, -1], np.broadcast_to(layer.bias, (2, 15, 4)))


def test_unet_valid_cropped_logits_lie_where_the_image_does(monkeypatch):
    """Through the first level's skip alone, a logit sees the 9 x 9 pixels around it."""
    model = narrow_unet_valid(monkeypatch, (144, 160), skips=True, output_policy="crop")
    for weight in model.get_layer("dec1_up").weights:
        weight.assign(np.zeros(weight.shape))
    rng = np.random.default_rng(0)
    image = tf.constant(rng.normal(size=(1, 144, 160, 3)).astype("float32"))
    row, column = 50, 90
    with tf.GradientTape() as tape:
        tape.watch(image)
        logit = model(image)["logits"][0, row, column, 0]
    seen = np.argwhere(np.any(tape.gradient(logit, image)[0], axis=2))
    np.testing.assert_array_equal(seen.min(axis=0), [row - 4, column - 4])
    np.testing.assert_array_equal(seen.max(axis=0), [row + 4, column + 4])


def test_unet_valid_cropped_logits_have_a_border_without_gradient(monkeypatch):
    resized = narrow_unet_valid(monkeypatch, (144, 160))
    cropped = narrow_unet_valid(monkeypatch, (144, 160), output_policy="crop")
    cropped.set_weights(resized.get_weights())
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, 144, 160, 3)).astype("float32")
    logits = np.array(resized(image)["logits"])
    assert logits.shape == (2, 80, 96, 2)
    expected = np.pad(logits, ((0, 0), (32, 32), (32, 32), (0, 0)), mode="edge")
    np.testing.assert_array_equal(cropped(image)["logits"], expected)

    factor = rng.normal(size=expected.shape).astype("float32")
    logits = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        total = tf.reduce_sum(cropped.get_layer("logits_border")(logits) * factor)
    gradient = tape.gradient(total, logits)
    np.testing.assert_array_equal(gradient, factor[:, 32:-32, 32:-32])


def test_unet_valid_crop_has_a_part_of_the_gradient_of_a_cropped_label(monkeypatch):
    """(160 / 224)^2 of it at 224 x 224: the mean is over the border's pixels too."""
    model = narrow_unet_valid(monkeypatch, (224, 224), output_policy="crop")
    rng = np.random.default_rng(0)
    logits = tf.constant(rng.normal(size=(2, 160, 160, 2)).astype("float32"))
    label = rng.integers(0, 2, size=(2, 224, 224))

    def gradient(place, label):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            loss = keras.losses.sparse_categorical_crossentropy(
                label, place(logits), from_logits=True
            )
            loss = tf.reduce_mean(loss)
        return tape.gradient(loss, logits)

    found = gradient(model.get_layer("logits_border"), label)
    cropped = gradient(lambda x: x, label[:, 32:-32, 32:-32])
    factor = (160 / 224) ** 2
    np.testing.assert_allclose(found, factor * cropped, rtol=1e-4, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "size", "knobs", "message"),
    [
        ("fcn_dilated_tanh", (40, 32), {}, "40 x 32; .* at least 40, next 40 x 40"),
        ("unet_valid", (128, 160), {}, "128 x 160; .* next 144 x 160"),
        (
            "unet_valid",
            (144, 160),
            {"output_policy": "pad"},
            "output_policy: pad; expected resize or crop",
        ),
    ],
)
def test_what_the_nets_cannot_do_is_refused(name, size, knobs, message):
    with pytest.raises(UsageError, match=message):
        nets.build(name, (*size, 3), 2, **knobs)


@pytest.mark.parametrize("size", [(40, 40), (40, 48)])
def test_smallest_size_of_dilated_tanh(size):
    assert outline("fcn_dilated_tanh", size, 2).get_layer("enc6").output.shape[1] == 1


def test_smallest_size_of_unet_valid():
    model = outline("unet_valid", (144, 144), 2)
    assert output_shape(model, "bottleneck_conv2") == (1, 1, 1024)
