"""The networks of CLOTH: FCN at its three strides, U-Nets, the attention gate."""

import keras
import numpy as np
import pytest
from outlines import narrow, outline, output_shape


def test_fcn_layer_sizes():
    model = outline("fcn", (256, 256), 18)
    for i, side in enumerate((128, 64, 32, 16, 8), 1):
        assert output_shape(model, f"enc{i}_pool")[:2] == (side, side)
    assert output_shape(model, "fc6") == (8, 8, 4096)
    assert output_shape(model, "fc7") == (8, 8, 4096)
    assert output_shape(model, "score") == (8, 8, 18)
    assert output_shape(model, "score_stride16_up") == (16, 16, 18)
    assert output_shape(model, "score_stride8_up") == (32, 32, 18)


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_fcn_scores_are_first_upsampled_bilinearly(stride):
    """A ramp of scores is a ramp of logits; half-pixel centres, the border aside."""
    widths = {"ENCODER": ((2,),) * 5}
    model = narrow("fcn", (128, 192), 2, widths, stride=stride, fc=2)
    deconv = model.get_layer("logits")
    rows, columns = np.mgrid[: 128 // stride, : 192 // stride]
    scores = np.stack([2.0 * rows - 3 * columns, 5.0 * columns], axis=-1)[None]
    rows, columns = (np.mgrid[:128, :192] + 0.5) / stride - 0.5
    expected = np.stack([2 * rows - 3 * columns, 5 * columns], axis=-1)
    inside = slice(stride, -stride)
    np.testing.assert_allclose(
        np.array(deconv(scores))[0, inside, inside],
        expected[inside, inside],
        atol=1e-4,
    )


def test_fcn_doubled_filters_widen_all_but_the_scores():
    model = outline("fcn", (64, 64), 18, filter_scale=2, fc=32)
    assert output_shape(model, "enc5_conv3") == (4, 4, 1024)
    assert output_shape(model, "fc7") == (2, 2, 64)
    assert output_shape(model, "score") == (2, 2, 18)


@pytest.mark.parametrize("pool_size", [2, 3])
@pytest.mark.parametrize("name", ["unet", "unet_bn", "attention_unet"])
def test_unet_layer_sizes(name, pool_size):
    model = outline(name, (256, 256), 18, pool_size=pool_size)
    sizes = ((1, 256, 64), (2, 128, 128), (3, 64, 256), (4, 32, 512))
    for i, side, channels in sizes:
        assert output_shape(model, f"enc{i}_conv2") == (side, side, channels)
        assert output_shape(model, f"dec{i}_up") == (side, side, channels)
        assert output_shape(model, f"dec{i}_conv2") == (side, side, channels)
    assert output_shape(model, "bottleneck_conv2") == (16, 16, 1024)


def test_attention_gate_is_that_of_the_paper():
    """sigmoid(psi(relu(theta(x) + phi(g)))), resized by 2, times x, then out and BN."""
    keras.utils.set_random_seed(0)
    widths = {"FILTERS": (4, 4, 4, 6), "BOTTLENECK": 5}
    model = narrow("attention_unet", (32, 48), 2, widths)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if weight.path == "gate4_out_bn/moving_variance":
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        elif weight.path.startswith("gate4"):
            weight.assign(rng.normal(size=weight.shape))
    skip, gating, gated = (
        model.get_layer(layer).output
        for layer in ("enc4_conv2_relu", "bottleneck_conv2_relu", "gate4_out_bn")
    )
    gate = keras.Model(model.input, {"x": skip, "g": gating, "out": gated})
    values = gate(rng.normal(size=(2, 32, 48, 3)).astype("float32"))
    x, g = np.array(values["x"]), np.array(values["g"])
    assert x.shape == (2, 4, 6, 6)
    assert g.shape == (2, 2, 3, 5)

    def weights(name):
        return [np.array(weight) for weight in model.get_layer(f"gate4_{name}").weights]

    (theta,) = weights("theta")
    windows = x.reshape(2, 2, 2, 3, 2, 6)  # batch, row, in it, column, in it, channel
    inner = np.einsum("brucvi,uvio->brco", windows, theta)
    inner += g @ weights("phi")[0][0, 0] + weights("phi")[1]
    assert (inner < 0).any()
    assert (inner > 0).any()
    psi = np.maximum(inner, 0) @ weights("psi")[0][0, 0] + weights("psi")[1]
    psi = 1 / (1 + np.exp(-psi))
    # Twice the size: a pixel lies 1/4 from the nearer, 3/4 from the other centre.
    to4 = np.array([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
    to6 = np.zeros((6, 3))
    for i in range(6):
        place = min(max((i + 0.5) / 2 - 0.5, 0), 2)
        low = min(int(place), 1)
        to6[i, low : low + 2] = 1 - (place - low), place - low
    psi = np.einsum("ir,jc,brco->bijo", to4, to6, psi)
    out = (x * psi) @ weights("out")[0][0, 0] + weights("out")[1]
    gamma, beta, mean, variance = weights("out_bn")
    out = (out - mean) / np.sqrt(variance + 1e-3) * gamma + beta
    np.testing.assert_allclose(values["out"], out, atol=1e-5)
