"""Networks against PyTorch twins: equal logits from equal weights."""

import keras
import numpy as np
import pytest

from keras_seg import nets

pytest.importorskip("torch")
import peers_nets
from peers_port import check_agreement

pytestmark = pytest.mark.peers

HOURGLASS = {"stacks": 2, "depth": 3, "features": 24, "stem": 8}


def image_like(size):
    """float32 [2, H, W, 3]: flat patches and noise, so that no feature is constant."""
    rng = np.random.default_rng(1)
    coarse = rng.normal(0, 60, (2, -(-size[0] // 16), -(-size[1] // 16), 3))
    patches = np.kron(coarse, np.ones((1, 16, 16, 1)))[:, : size[0], : size[1]]
    return (patches + rng.normal(0, 20, patches.shape)).astype("float32")


@pytest.mark.parametrize(
    ("name", "size", "knobs", "twin"),
    [
        ("icnet", (160, 256), {}, lambda: peers_nets.ICNet(5)),
        ("segnet_basic", (45, 62), {}, lambda: peers_nets.SegNetBasic(5)),
        (
            "hourglass",
            (24, 40),
            HOURGLASS,
            lambda: peers_nets.Hourglass(5, **HOURGLASS),
        ),
        ("fcn_resnet34", (64, 96), {}, lambda: peers_nets.ResNet34Decoder(5)),
        ("unet_bn", (32, 48), {}, lambda: peers_nets.UNet(5)),
        (
            "fcn_attention",
            (64, 96),
            {"width": 0.25},
            lambda: peers_nets.FCNAttention(5, width=0.25),
        ),
    ],
    ids=[
        "icnet",
        "segnet_basic",
        "hourglass",
        "fcn_resnet34",
        "unet_bn",
        "fcn_attention",
    ],
)
def test_logits_equal_the_twins(name, size, knobs, twin):
    keras.utils.set_random_seed(0)
    model = nets.build(name, (*size, 3), 5, **knobs)
    check_agreement(model, twin(), image_like(size), ["logits"], tolerance=1e-4)


def test_every_head_of_icnet_equals_the_twins_in_double_precision():
    """Rounding alone moves its lowest head by 2e-4 in float32 training mode.

    What is left here is the resizing, which TensorFlow does in float32.
    """
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("float64")
    try:
        model = nets.build("icnet", (160, 256, 3), 5)
    finally:
        keras.config.set_dtype_policy("float32")
    image, twin = image_like((160, 256)), peers_nets.ICNet(5)
    check_agreement(model, twin, image, model.output, tolerance=2e-5)
