"""The network of ATTN: its switches, squeeze-and-excitation, the pyramid's rates."""

import keras
import numpy as np
import pytest
from outlines import count, outline, output_shape
from scipy.special import expit

from keras_seg import nets
from keras_seg.errors import UsageError
from keras_seg.nets import fcn_attention


@pytest.mark.parametrize(
    ("knobs", "num_classes", "trainable"),
    [
        ({}, 21, 29_625_363),
        ({"skips": False}, 19, 29_276_177),
        ({"attention": False}, 19, 29_580_595),
        ({"aspp": False}, 19, 27_590_609),
        # Two dense layers of K channels: 2 K^2 / C weights, K / C and K biases
        (
            {"reduction": 4},
            19,
            29_580_595 + sum(k * k // 2 + k // 4 + k for k in (512, 256, 128, 64, 32)),
        ),
        ({"width": 0.234}, 19, 1_630_994),
        ({"width": 0.234, "skips": False}, 19, 1_611_644),
        ({"width": 0.23}, 19, 1_576_112),
        # Without the strided convolutions of 64, 128, 256, 512, 512 channels
        (
            {"downsample": "pool"},
            19,
            29_625_297 - 9 * (64**2 + 128**2 + 256**2 + 2 * 512**2) - 2 * 1472,
        ),
    ],
    ids=str,
)
def test_counts_of_the_switches(knobs, num_classes, trainable):
    model = outline("fcn_attention", (64, 96), num_classes, **knobs)
    assert count(model.trainable_weights) == trainable
    assert model.output["logits"].shape == (None, 64, 96, num_classes)


def test_encoder_has_the_kernels_of_vgg16():
    model = outline("fcn_attention", (64, 96), 19)
    kernels = [
        weight
        for weight in model.weights
        if weight.path.endswith("/kernel")
        and weight.path.startswith("enc")
        and "_down" not in weight.path
    ]
    assert len(kernels) == 13
    assert count(kernels) == 14_714_688 - 4_224  # without VGG16's biases


@pytest.mark.parametrize(("downsample", "layer"), [("conv", "down"), ("pool", "pool")])
def test_layer_sizes(downsample, layer):
    model = outline("fcn_attention", (224, 224), 19, downsample=downsample)
    for i, channels in enumerate((64, 128, 256, 512, 512), 1):
        side = 224 // 2**i
        assert output_shape(model, f"enc{i}_{layer}") == (side, side, channels)
    assert output_shape(model, "aspp_out") == (7, 7, 256)
    for i, channels in ((4, 512), (3, 256), (2, 128), (1, 64), (0, 32)):
        side = 224 // 2**i
        assert output_shape(model, f"dec{i}_se_scale") == (side, side, channels)


def test_width_leaves_every_layer_at_least_8_channels():
    model = outline("fcn_attention", (32, 32), 3, width=0.01)
    widths = {
        output_shape(model, layer.name)[2]
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Conv2DTranspose)
    }
    assert widths == {8, 3}


def test_squeeze_and_excitation_is_equations_1_to_3(monkeypatch):
    monkeypatch.setattr(fcn_attention, "ENCODER", ((8,),) * 5)
    keras.utils.set_random_seed(0)
    model = nets.build("fcn_attention", (32, 64, 3), 2)
    names = ("reduce", "expand")
    reduce, expand = (model.get_layer(f"dec1_se_{name}") for name in names)
    rng = np.random.default_rng(0)
    for weight in reduce.weights + expand.weights:
        weight.assign(rng.normal(size=weight.shape))
    scale = model.get_layer("dec1_se_scale")
    both = keras.Model(model.input, [scale.input[0], scale.output])
    u, x = both(rng.normal(size=(2, 32, 64, 3)).astype("float32"))
    u = np.array(u)
    assert u.shape == (2, 16, 32, 64)
    (w1, b1), (w2, b2) = reduce.get_weights(), expand.get_weights()
    assert w1.shape == (64, 64 // 16)
    z = u.sum(axis=(1, 2)) / (16 * 32)
    s = expit(np.maximum(z @ w1 + b1, 0) @ w2 + b2)
    np.testing.assert_allclose(x, s[:, None, None, :] * u, rtol=1e-4, atol=1e-5)


def test_rates_beyond_the_map_act_as_a_1x1_convolution(monkeypatch):
    monkeypatch.setattr(fcn_attention, "ENCODER", ((8,),) * 5)
    monkeypatch.setattr(fcn_attention, "DECODER", {4: 8, 3: 8, 2: 8, 1: 8})
    keras.utils.set_random_seed(0)
    model = nets.build("fcn_attention", (224, 224, 3), 2)
    x = np.random.default_rng(0).normal(size=(2, 7, 7, 8)).astype("float32")
    for rate, is_1x1 in ((6, False), (12, True), (18, True)):
        layer = model.get_layer(f"aspp_rate{rate}")
        (kernel,) = layer.get_weights()
        centre = x @ kernel[1, 1]
        assert np.allclose(layer(x), centre, atol=1e-5) == is_1x1


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"downsample": "max"}, "downsample: max; expected conv or pool"),
        ({"width": 0}, "width: 0; expected a positive number"),
        ({"reduction": 0}, "reduction: 0; expected at least 1"),
    ],
    ids=str,
)
def test_wrong_knobs_are_refused(knobs, message):
    with pytest.raises(UsageError, match=message):
        nets.build("fcn_attention", (64, 64, 3), 2, **knobs)
