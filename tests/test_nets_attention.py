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
