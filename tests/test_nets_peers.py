"""Networks against PyTorch twins: equal logits from equal weights."""

import keras
import numpy as np
import pytest
from outlines import narrow

from keras_seg import nets

pytest.importorskip("torch")
from peers_nets import FCNAttention, ResNet34Decoder
from peers_port import check_agreement

from keras_seg.runs.benchmark import twins

pytestmark = pytest.mark.peers

HOURGLASS = {"stacks": 2, "depth": 3, "features": 24, "stem": 8}
RESNET34 = {
    "STAGES": ((3, 8), (4, 16), (6, 24), (3, 32)),
    "DECODER": (32, 24, 16, 8, 8),
}
UNET = {"FILTERS": (8, 16, 32, 64), "BOTTLENECK": 128}


def image_like(size):
    """float32 [2, H, W, 3]: flat patches and noise, so that no feature is constant."""
    rng = np.random.default_rng(1)
    coarse = rng.normal(0, 60, (2, -(-size[0] // 16), -(-size[1] // 16), 3))
    patches = np.kron(coarse, np.ones((1, 16, 16, 1)))[:, : size[0], : size[1]]
    return (patches + rng.normal(0, 20, patches.shape)).astype("float32")


@pytest.mark.parametrize(
    ("name", "twin", "size", "widths", "knobs"),
    [
        ("segnet_basic", twins.SegNetBasic, (45, 62), {}, {}),
        ("hourglass", twins.Hourglass, (24, 40), {}, HOURGLASS),
        ("fcn_resnet34", ResNet34Decoder, (64, 96), RESNET34, {}),
        ("unet_bn", twins.UNet, (32, 48), UNET, {}),
        ("fcn_attention", FCNAttention, (64, 96), {}, {"width": 0.25}),
    ],
)
def test_logits_equal_the_twins(name, twin, size, widths, knobs):
    keras.utils.set_random_seed(0)
    model = narrow(name, size, 5, widths, **knobs)
    check_agreement(model, twin, image_like(size), ["logits"], tolerance=1e-4)


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
    image = image_like((160, 256))
    check_agreement(model, twins.ICNet, image, model.output, tolerance=2e-5)
