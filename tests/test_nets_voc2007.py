"""The networks of VOC07: dilated tanh FCN (5a), ResNet34 (5b), unpadded U-Net (5c)."""

import keras
import naive_convolution
import numpy as np
import pytest
import tensorflow as tf
from outlines import check_frozen, count, narrow, outline, output_shape, random_weights

from keras_seg.nets.fcn_dilated_tanh import StridedDilatedDeconv
from keras_seg.nets.fcn_resnet34 import resnet34

DILATED_TANH = {
    "PLAIN_ENCODER": (4, 4, 4),
    "DILATED_ENCODER": ((4, 3), (6, 5), (4, 5)),
    "DILATED_DECODER": ((6, 5, 0), (4, 5, 0), (6, 3, 1)),
    "PLAIN_DECODER": (4, 4, 4),
}
UNET_VALID = {
    "ENCODER": (3, 4, 4, 4),
    "BOTTLENECK": 5,
    "DECODER": {4: (4, 0, 4), 3: (4, 1, 3), 2: (3, 0, 4), 1: (4, 0, 3)},
}


def images(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


@pytest.fixture(scope="module")
def dilated_tanh():
    return narrow("fcn_dilated_tanh", (40, 48), 2, DILATED_TANH)


def unet_valid(size, **knobs):
    keras.utils.set_random_seed(0)
    return narrow("unet_valid", size, 2, UNET_VALID, **knobs)


def test_baseline_of_voc07_has_7x7_at_the_bottom():
    model = outline("fcn_strided", (224, 224), 21, order="act_bn")
    assert output_shape(model, "conv5_bn") == (7, 7, 512)


# 5a


def test_dilated_tanh_layer_sizes():
    model = outline("fcn_dilated_tanh", (224, 224), 21)
    units = [f"enc{i}" for i in range(1, 7)] + [f"dec{i}" for i in range(1, 7)]
    sides = (224, 224, 224, 111, 53, 24, 53, 111, 224, 224, 224, 224)
    channels = (32, 32, 64, 128, 256, 512, 512, 256, 128, 64, 32, 32)
    for unit, side, filters in zip(units, sides, channels):
        assert output_shape(model, f"{unit}_bn") == (side, side, filters)


@pytest.mark.parametrize("size", [(40, 48), (56, 80), (104, 40)])
def test_dilated_tanh_gives_back_every_multiple_of_8(size):
    model = outline("fcn_dilated_tanh", size, 3)
    assert model.output["logits"].shape == (None, *size, 3)


@pytest.mark.parametrize("size", [(40, 40), (40, 48)])
def test_smallest_size_of_dilated_tanh(size):
    assert output_shape(outline("fcn_dilated_tanh", size, 3), "enc6")[0] == 1


@pytest.mark.parametrize(("unit", "size"), [("enc4", (40, 48)), ("enc5", (19, 23))])
def test_strided_dilated_convolution_is_pytorchs(dilated_tanh, unit, size):
    """Kernel sizes 3 and 5, even and odd sides, stride 2, padding 1, dilation 2."""
    pad, layer = dilated_tanh.get_layer(f"{unit}_pad"), dilated_tanh.get_layer(unit)
    assert tuple(pad.input.shape[1:3]) == size
    weights, image = random_weights(layer), images(2, *size, 4)
    equivalent = keras.Model(pad.input, layer.output)
    expected = naive_convolution.conv(image, *weights, 2, 1, dilation=2)
    np.testing.assert_allclose(equivalent(image), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("kernel_size", "padding", "output_padding"),
    [(5, 1, 0), (3, 1, 1), (3, 1, 0), (3, 0, 0), (1, 0, 0)],
)
@pytest.mark.parametrize("size", [(4, 5), (7, 3)])
def test_strided_dilated_deconv_is_pytorchs(size, kernel_size, padding, output_padding):
    layer = StridedDilatedDeconv(4, kernel_size, padding, output_padding)
    image = images(2, *size, 3)
    layer.build(image.shape)
    expected = naive_convolution.deconv(
        image, *random_weights(layer), 2, padding, output_padding, dilation=2
    )
    assert layer.compute_output_shape(image.shape) == expected.shape
    np.testing.assert_allclose(layer(image), expected, atol=1e-4)


def test_strided_dilated_deconv_leaves_three_pixels_in_four_at_the_bias(dilated_tanh):
    layer = dilated_tanh.get_layer("dec3")
    _, bias = random_weights(layer)
    is_written = np.array(layer(images(2, 19, 23, 4)) != bias).any(axis=3)
    assert is_written.shape == (2, 40, 48)
    assert is_written.mean() == 0.25
    assert is_written[:, 1::2, 1::2].all()


def test_strided_dilated_convolution_reads_one_pixel_in_four(dilated_tanh):
    pad, layer = dilated_tanh.get_layer("enc4_pad"), dilated_tanh.get_layer("enc4")
    image = tf.constant(images(1, 40, 48, 4))
    with tf.GradientTape() as tape:
        tape.watch(image)
        total = tf.reduce_sum(keras.Model(pad.input, layer.output)(image) ** 2)
    is_read = np.any(tape.gradient(total, image), axis=3)
    assert 0.2 < is_read.mean() <= 0.25


# 5b


def test_encoder_has_the_weights_of_torchvisions_resnet34():
    image = keras.Input((224, 224, 3))
    with keras.StatelessScope(initialize_variables=False):
        encoder = keras.Model(image, resnet34(image))
    assert encoder.output.shape == (None, 7, 7, 512)
    assert count(encoder.trainable_weights) == 21_284_672  # 21,797,672 less fc
    assert count(encoder.weights) == 21_301_696


def test_doubled_filters_widen_the_decoder_of_resnet34_only():
    model = outline("fcn_resnet34", (32, 32), 21, filter_scale=2)
    assert model.get_layer("layer4_2_conv2").filters == 512
    assert model.get_layer("dec1_deconv").filters == 1024


def test_frozen_resnet34_keeps_weights_and_statistics():
    def encoder(model):
        names = ("conv1", "bn1", "layer")
        return [w for w in model.weights if w.path.startswith(names)]

    model = outline("fcn_resnet34", (32, 64), 3, freeze=True)
    assert count(encoder(model)) == 21_301_696
    assert not [w.path for w in encoder(model) if w.trainable]
    assert count(model.trainable_weights) == 25_215_381 - 21_284_672 - 33 * 18
    widths = {"STAGES": ((3, 8), (4, 8), (6, 8), (3, 8)), "DECODER": (8,) * 5}
    model = narrow("fcn_resnet34", (32, 64), 3, widths, freeze=True)
    learnt = model.get_layer("dec1_bn").moving_mean
    check_frozen(model, encoder(model), learnt)


# 5c


@pytest.mark.parametrize(
    ("side", "encoder", "decoder"),
    [
        (
            224,
            (222, 220, 108, 106, 51, 49, 22, 20, 8, 6),
            (12, 14, 16, 33, 35, 37, 74, 76, 78, 156, 158, 160),
        ),
        (
            256,
            (254, 252, 124, 122, 59, 57, 26, 24, 10, 8),
            (16, 18, 20, 41, 43, 45, 90, 92, 94, 188, 190, 192),
        ),
    ],
)
def test_unet_valid_sizes(side, encoder, decoder):
    model = outline("unet_valid", (side, side), 21)
    units = [f"enc{i}" for i in (1, 2, 3, 4)] + ["bottleneck"]
    convs = [f"{unit}_conv{j}" for unit in units for j in (1, 2)]
    assert [output_shape(model, conv)[0] for conv in convs] == list(encoder)
    layers = [f"dec{i}_{j}" for i in (4, 3, 2, 1) for j in ("up", "conv1", "conv2")]
    assert [output_shape(model, layer)[0] for layer in layers] == list(decoder)


def test_smallest_size_of_unet_valid():
    model = outline("unet_valid", (144, 144), 3)
    assert output_shape(model, "bottleneck_conv2") == (1, 1, 1024)


def test_unet_valid_with_skips_crops_them():
    model = outline("unet_valid", (224, 256), 21, skips=True)
    assert {
        i: [tuple(x.shape[1:]) for x in model.get_layer(f"dec{i}_concat").input]
        for i in (4, 3, 2, 1)
    } == {
        4: [(12, 16, 512), (12, 16, 1024)],
        3: [(33, 41, 256), (33, 41, 512)],
        2: [(74, 90, 128), (74, 90, 256)],
        1: [(156, 188, 64), (156, 188, 128)],
    }


def test_unet_valid_output_padding_holds_the_bias_only():
    layer = unet_valid((144, 160)).get_layer("dec3_up")
    kernel, bias = random_weights(layer)
    image = images(2, 5, 7, 4)
    expected = naive_convolution.deconv(image, kernel, bias, 2, 0, 1)
    assert expected.shape[1:3] == (11, 15)
    np.testing.assert_allclose(layer(image), expected, atol=1e-5)
    np.testing.assert_allclose(expected[:, -1], np.broadcast_to(bias, (2, 15, 4)))


def test_unet_valid_cropped_logits_are_aligned_with_the_image():
    """Through the first level's skip alone, a logit sees the 9 x 9 pixels around it."""
    model = unet_valid((144, 160), skips=True, output_policy="crop")
    for weight in model.get_layer("dec1_up").weights:
        weight.assign(np.zeros(weight.shape))
    image = tf.constant(images(1, 144, 160, 3))
    row, column = 50, 90
    with tf.GradientTape() as tape:
        tape.watch(image)
        logit = model(image)["logits"][0, row, column, 0]
    seen = np.argwhere(np.any(tape.gradient(logit, image)[0], axis=2))
    np.testing.assert_array_equal(seen.min(axis=0), [row - 4, column - 4])
    np.testing.assert_array_equal(seen.max(axis=0), [row + 4, column + 4])


def test_unet_valid_cropped_logits_have_a_border_without_gradient():
    resized, cropped = (
        unet_valid((144, 160)),
        unet_valid((144, 160), output_policy="crop"),
    )
    cropped.set_weights(resized.get_weights())
    image = images(2, 144, 160, 3)
    logits = np.array(resized(image)["logits"])
    assert logits.shape == (2, 80, 96, 2)
    expected = np.pad(logits, ((0, 0), (32, 32), (32, 32), (0, 0)), mode="edge")
    np.testing.assert_array_equal(cropped(image)["logits"], expected)

    factor = images(*expected.shape)
    logits = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        total = tf.reduce_sum(cropped.get_layer("logits_border")(logits) * factor)
    gradient = tape.gradient(total, logits)
    np.testing.assert_array_equal(gradient, factor[:, 32:-32, 32:-32])


def test_unet_valid_crop_has_a_part_of_the_gradient_of_a_cropped_label():
    """(160 / 224)^2 of it at 224 x 224: the mean is over the border's pixels too."""
    model = unet_valid((224, 224), output_policy="crop")
    logits = tf.constant(images(2, 160, 160, 2))
    label = np.random.default_rng(1).integers(0, 2, size=(2, 224, 224))

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
