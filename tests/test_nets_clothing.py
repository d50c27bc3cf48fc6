"""The networks of CLOTH: FCN at its three strides, U-Nets, the attention gate."""

import keras
import numpy as np
import pytest
from outlines import count, outline, output_shape

from keras_seg import nets
from keras_seg.errors import UsageError
from keras_seg.nets import fcn, unet


@pytest.mark.parametrize(
    ("stride", "num_classes", "trainable"),
    [
        (8, 18, 134_441_462),
        (8, 19, 134_456_985),
        (8, 21, 134_489_759),
        (16, 21, 134_815_994),
        (32, 21, 136_152_917),
    ],
)
def test_fcn_counts(stride, num_classes, trainable):
    model = outline("fcn", (64, 96), num_classes, stride=stride)
    assert count(model.trainable_weights) == trainable
    assert model.output["logits"].shape == (None, 64, 96, num_classes)


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
def test_fcn_scores_are_first_upsampled_bilinearly(stride, monkeypatch):
    """A ramp of scores is a ramp of logits; half-pixel centres, the border aside."""
    monkeypatch.setattr(fcn, "ENCODER", ((2,),) * 5)
    model = nets.build("fcn", (128, 192, 3), 2, stride=stride, fc=2)
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


def test_attention_unet_without_batch_norm_keeps_that_of_its_gates():
    model = outline("attention_unet", (64, 96), 18, batch_norm=False)
    assert count(model.trainable_weights) == 32_429_334
    assert count(model.weights) == 32_431_254


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


def test_unet_bn_for_camvid():
    model = outline("unet_bn", (368, 480), 11)
    assert count(model.trainable_weights) == 31_040_203
    assert count(model.weights) == 31_053_899


def test_attention_gate_is_that_of_the_paper(monkeypatch):
    """sigmoid(psi(relu(theta(x) + phi(g)))), resized by 2, times x, then out and BN."""
    monkeypatch.setattr(unet, "FILTERS", (4, 4, 4, 6))
    monkeypatch.setattr(unet, "BOTTLENECK", 5)
    keras.utils.set_random_seed(0)
    model = nets.build("attention_unet", (32, 48, 3), 2)
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


@pytest.mark.parametrize(
    ("name", "knobs", "message"),
    [
        ("fcn", {"stride": 4}, "fcn stride: 4; expected 32, 16 or 8"),
        ("fcn", {"fc": 0}, "fcn fc: 0; expected at least 1"),
        ("unet_bn", {"pool_size": 4}, "unet pool_size: 4; expected 3 or 2"),
        ("unet", {"batch_norm": True}, "expected one of pool_size"),
    ],
)
def test_wrong_knobs_are_refused(name, knobs, message):
    with pytest.raises(UsageError, match=message):
        nets.build(name, (64, 64, 3), 2, **knobs)
