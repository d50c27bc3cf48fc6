"""The network of ATTN: layer sizes, squeeze-and-excitation, the pyramid's rates."""

import keras
import numpy as np
import pytest
from outlines import count, narrow, outline, output_shape, random_weights
from scipy.special import expit


def test_encoder_has_the_kernels_of_vgg16():
    model = outline("fcn_attention", (224, 224), 19)
    kernels = [
        weight
        for weight in model.weights
        if weight.path.endswith("/kernel")
        and weight.path.startswith("enc")
        and "_down" not in weight.path
    ]
    assert len(kernels) == 13
    assert count(kernels) == 14_714_688 - 4_224  # without VGG16's biases


@pytest.mark.parametrize(
    ("knobs", "layer"), [({}, "down"), ({"downsample": "pool"}, "pool")]
)
def test_layer_sizes(knobs, layer):
    model = outline("fcn_attention", (224, 224), 19, **knobs)
    for i, channels in enumerate((64, 128, 256, 512, 512), 1):
        side = 224 // 2**i
        assert output_shape(model, f"enc{i}_{layer}") == (side, side, channels)
    assert output_shape(model, "aspp_out") == (7, 7, 256)
    for i, channels in ((4, 512), (3, 256), (2, 128), (1, 64), (0, 32)):
        side = 224 // 2**i
        assert output_shape(model, f"dec{i}_se_scale") == (side, side, channels)


def first_five_layers(**knobs):
    return outline("fcn_attention", (224, 224), 19, encoder="layers", **knobs)


def test_first_five_layers_have_the_parameters_that_attn_counts():
    """1.58 million without skips and 1.63 million with them, by hand.

    Kernels, then gamma and beta: five convolutions of 3x3 on 3, 64, 64, 128, 128
    channels, and five transposed ones of 4x4 back.
    """
    encoder = 9 * (3 * 64 + 64 * 64 + 64 * 128 + 128 * 128 + 128 * 256)
    encoder += 2 * (64 + 64 + 128 + 128 + 256)
    decoder = 16 * (256 * 128 + 128 * 128 + 128 * 64 + 64 * 64 + 64 * 32)
    decoder += 2 * (128 + 128 + 64 + 64 + 32)
    squeeze = sum(k * (k // 16) * 2 + k // 16 + k for k in (128, 128, 64, 64, 32))
    classifier = 32 * 19 + 19
    plain = encoder + decoder + squeeze + classifier
    skips = 128 * 128 + 128 + 128 * 128 + 128 + 2 * (64 * 64 + 64)
    assert (plain, plain + skips) == (1_578_925, 1_620_269)
    without = first_five_layers(aspp=False, skips=False)
    assert count(without.trainable_weights) == plain
    assert count(first_five_layers(aspp=False).trainable_weights) == plain + skips
    # The pyramid: 1x1, three 3x3 and the image's mean from 256 to 256, 1x1 from 1280
    pyramid = 256 * 256 * (1 + 27 + 1) + 5 * 256 * 256 + 6 * 2 * 256
    whole = first_five_layers()
    assert count(whole.trainable_weights) == plain + skips + pyramid


@pytest.mark.parametrize("downsample", ["conv", "pool"])
def test_sizes_of_the_first_five_layers(downsample):
    model = first_five_layers(downsample=downsample)
    end = "relu" if downsample == "conv" else "pool"
    names = ("enc1_conv1", "enc1_conv2", "enc2_conv1", "enc2_conv2", "enc3_conv1")
    for i, channels in enumerate((64, 64, 128, 128, 256), 1):
        side = 224 // 2**i
        found = output_shape(model, f"{names[i - 1]}_{end}")
        assert found == (side, side, channels)
    for i, channels in ((4, 128), (3, 128), (2, 64), (1, 64), (0, 32)):
        side = 224 // 2**i
        assert output_shape(model, f"dec{i}_se_scale") == (side, side, channels)
    assert output_shape(model, "classifier") == (224, 224, 19)


def test_width_leaves_every_layer_at_least_8_channels():
    model = outline("fcn_attention", (32, 32), 3, width=0.01)
    widths = {
        output_shape(model, layer.name)[2]
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Conv2DTranspose)
    }
    assert widths == {8, 3}


def test_squeeze_and_excitation_is_equations_1_to_3():
    model = narrow("fcn_attention", (32, 64), 2, {"ENCODER": ((8,),) * 5})
    reduce, expand = (model.get_layer(f"dec1_se_{p}") for p in ("reduce", "expand"))
    (w1, b1), (w2, b2) = random_weights(reduce), random_weights(expand, seed=1)
    assert w1.shape == (64, 64 // 16)
    scale = model.get_layer("dec1_se_scale")
    both = keras.Model(model.input, [scale.input[0], scale.output])
    image = np.random.default_rng(0).normal(size=(2, 32, 64, 3)).astype("float32")
    u, x = map(np.array, both(image))
    assert u.shape == (2, 16, 32, 64)
    z = u.sum(axis=(1, 2)) / (16 * 32)
    s = expit(np.maximum(z @ w1 + b1, 0) @ w2 + b2)
    np.testing.assert_allclose(x, s[:, None, None, :] * u, rtol=1e-4, atol=1e-5)


def test_rates_beyond_the_map_act_as_a_1x1_convolution():
    widths = {"ENCODER": ((8,),) * 5, "DECODER": {4: 8, 3: 8, 2: 8, 1: 8}}
    model = narrow("fcn_attention", (224, 224), 2, widths)
    x = np.random.default_rng(0).normal(size=(2, 7, 7, 8)).astype("float32")
    for rate, is_1x1 in ((6, False), (12, True), (18, True)):
        layer = model.get_layer(f"aspp_rate{rate}")
        (kernel,) = layer.get_weights()
        centre = x @ kernel[1, 1]
        assert np.allclose(layer(x), centre, atol=1e-5) == is_1x1
