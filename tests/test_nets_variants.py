"""Networks with other knobs, widths and classes: their counts; wrong knobs."""

import re

import pytest
from outlines import check_frozen, count, narrow, outline
from test_nets import ROWS

from keras_seg import nets
from keras_seg.errors import UsageError

FULL_SIZE = ("segnet", "fcn", "unet_bn", "fcn_strided", "fcn_attention")  # logits
COARSE_TO_FINE = {"targets": "hierarchy"}
ATTENTION = 29_580_595  # trainable weights without squeeze-and-excitation
ATTENTION_WIDTHS = (512, 256, 128, 64, 32)

# name, size, classes, knobs, trainable weights, all weights (None: not known)
COUNTS = [
    ("icnet", (320, 320), 25, {"filter_scale": 2}, 26_755_275, 26_812_363),
    ("icnet", (320, 320), 19, {}, 6_707_321, None),
    ("icnet", (320, 320), 19, {"filter_scale": 2}, 26_749_113, None),
    ("icnet", (384, 480), 11, {}, 6_703_201, 6_731_745),
    ("segnet_basic", (320, 320), 25, {"filter_scale": 2}, 5_643_801, 5_645_849),
    ("segnet_basic", (320, 320), 25, {"use_bias": True}, 1_417_497, None),
    ("segnet_basic", (320, 320), 25, {"upsample": "deconv"}, 1_482_521, None),
    ("segnet_basic", (360, 480), 11, {}, 1_416_075, 1_417_099),
    ("segnet_basic", (360, 480), 11, {"use_bias": True}, 1_416_587, None),
    ("segnet", (360, 480), 11, {}, 29_449_355, None),
    ("segnet", (320, 320), 25, {"use_bias": False}, 29_449_497, None),
    ("hourglass", (320, 320), 25, {"stacks": 1}, 3_428_761, 3_445_401),
    ("hourglass", (320, 320), 25, {"stacks": 2}, 6_577_330, 6_608_818),
    (
        *("hourglass", (320, 320), 25, {"features": 64, "stem": 32, "stacks": 2}),
        *(448_050, None),
    ),
    ("hourglass", (320, 320), 25, {"remat": True}, 12_874_468, None),
    ("hourglass", (320, 320), 25, COARSE_TO_FINE | {"stacks": 2}, 6_565_531, None),
    ("hourglass", (320, 320), 25, COARSE_TO_FINE, 12_843_175, 12_904_359),
    ("fcn", (64, 96), 19, {}, 134_456_985, None),
    ("fcn", (64, 96), 21, {}, 134_489_759, None),
    ("fcn", (64, 96), 21, {"stride": 16}, 134_815_994, None),
    ("fcn", (64, 96), 21, {"stride": 32}, 136_152_917, None),
    ("unet_bn", (368, 480), 11, {}, 31_040_203, 31_053_899),
    ("attention_unet", (64, 96), 18, {"batch_norm": False}, 32_429_334, 32_431_254),
    ("fcn_strided", (384, 480), 19, {}, 5_500_179, 5_504_147),
    ("fcn_strided", (384, 480), 11, {}, 5_499_915, 5_503_883),
    ("fcn_strided", (224, 224), 21, {"order": "act_bn"}, 5_500_245, 5_504_213),
    # Of ResNet50's 23,587,712 weights 53,120 are moving statistics.
    (
        *("fcn_resnet50", (64, 96), 34, {"freeze": False}),
        *(11_008_002 + 23_587_712 - 53_120, None),
    ),
    ("unet_valid", (224, 256), 21, {"skips": True}, 36_968_341, None),
    # The encoder has 2,958,848 weights, of them as many gamma and beta as statistics
    ("unet_lite0", (64, 96), 11, {"freeze": True}, 3_167_111, 6_167_895),
    (
        *("unet_lite0", (64, 96), 11, {"freeze_norm": True}),
        *(2_958_848 - 39_456 + 3_167_111, 6_167_895),
    ),
    ("fcn_attention", (64, 96), 21, {}, 29_625_363, None),
    ("fcn_attention", (64, 96), 19, {"skips": False}, 29_276_177, None),
    ("fcn_attention", (64, 96), 19, {"attention": False}, ATTENTION, None),
    ("fcn_attention", (64, 96), 19, {"aspp": False}, 27_590_609, None),
    # Two dense layers of K channels: 2 K^2 / C weights, K / C and K biases
    (
        *("fcn_attention", (64, 96), 19, {"reduction": 4}),
        *(ATTENTION + sum(k * k // 2 + k // 4 + k for k in ATTENTION_WIDTHS), None),
    ),
    ("fcn_attention", (64, 96), 19, {"width": 0.234}, 1_630_994, None),
    ("fcn_attention", (64, 96), 19, {"width": 0.234, "skips": False}, 1_611_644, None),
    ("fcn_attention", (64, 96), 19, {"width": 0.23}, 1_576_112, None),
    # Without the strided convolutions of 64, 128, 256, 512, 512 channels
    (
        *("fcn_attention", (64, 96), 19, {"downsample": "pool"}),
        *(29_625_297 - 9 * (64**2 + 128**2 + 256**2 + 2 * 512**2) - 2 * 1472, None),
    ),
]
MORE_COUNTS = [
    ("hourglass", (320, 320), 25, {"depth": 6}, 18_023_140, None),
    ("hourglass", (320, 320), 25, {"joints": 24}, 15_950_332, 16_026_364),
    ("hourglass", (320, 320), 25, {"stacks": 3}, 9_725_899, 9_772_235),
    ("hourglass", (320, 320), 25, {"stacks": 8}, 25_468_744, 25_589_320),
    (
        *("hourglass", (320, 320), 16),
        *({"stacks": 8, "stem_stride": 2, "stem_pool": True}, 25_434_112, None),
    ),
    ("hourglass", (320, 320), 25, {"features": 512, "stem": 128}, 51_201_380, None),
    ("hourglass", (320, 320), 25, COARSE_TO_FINE | {"stacks": 3}, 9_703_840, None),
    ("hourglass", (320, 320), 25, COARSE_TO_FINE | {"stacks": 5}, 15_985_588, None),
    ("hourglass", (320, 320), 25, COARSE_TO_FINE | {"stacks": 6}, 19_126_462, None),
    ("hourglass", (320, 320), 25, COARSE_TO_FINE | {"stacks": 8}, 25_423_600, None),
    (
        *("hourglass", (320, 320), 25, {"joints": 24, "aux_modules": 2}),
        *(19_098_388, None),
    ),
]


@pytest.mark.parametrize(
    ("name", "size", "num_classes", "knobs", "trainable", "weights"),
    COUNTS + [pytest.param(*row, marks=pytest.mark.slow) for row in MORE_COUNTS],
)
def test_counts(name, size, num_classes, knobs, trainable, weights):
    model = outline(name, size, num_classes, **knobs)
    assert count(model.trainable_weights) == trainable
    assert weights is None or count(model.weights) == weights
    if name in FULL_SIZE:
        assert model.output["logits"].shape == (None, *size, num_classes)


@pytest.mark.parametrize(
    ("name", "num_classes", "knobs", "message"),
    [
        ("fcn", 2, {"stride": 4}, "stride .* 4;.* 32, 16, 8"),
        ("fcn", 2, {"fc": 0}, "fc .* 0;.* at least 1"),
        ("unet_bn", 2, {"pool_size": 4}, "pool_size .* 4;.* 3, 2"),
        ("unet", 2, {"batch_norm": True}, "batch_norm.*: pool_size"),
        ("fcn_strided", 2, {"order": "relu"}, "order .* relu;.* bn_act, act_bn"),
        ("fcn_attention", 2, {"encoder": "vgg"}, "encoder .* vgg;.* blocks, layers"),
        ("fcn_attention", 2, {"downsample": "max"}, "downsample .* max;.* conv, pool"),
        ("fcn_attention", 2, {"width": 0}, "width .* 0;.* above 0"),
        ("fcn_attention", 2, {"reduction": 0}, "reduction .* 0;.* at least 1"),
        ("segnet_basic", 2, {"upsample": "linear"}, "upsample .* linear;.* deconv"),
        ("segnet_basic", 2, {"input_norm": "mean"}, "input_norm .* mean;.* lrn, None"),
        ("unet_valid", 2, {"output_policy": "pad"}, "policy .* pad;.* resize, crop"),
        (
            "hourglass",
            12,
            {"targets": "hierarchy"},
            "hierarchy.* 25 .* 15 .* 12.* full",
        ),
        ("hourglass", 25, {"targets": "coarse"}, "targets .* coarse;.* full, hier"),
        ("hourglass", 25, {"joints": 24, "aux_at": 3}, "aux_at .* 3;.* last of 4"),
        ("hourglass", 25, {"stem_stride": 3}, "stem_stride .* 3;.* 1, 2"),
        ("hourglass", 25, {"stacks": 0}, "stacks .* 0;.* at least 1"),
        ("hourglass", 25, {"depth": 0}, "depth .* 0;.* at least 1"),
    ],
)
def test_wrong_knob_is_named(name, num_classes, knobs, message):
    with pytest.raises(UsageError, match=message):
        nets.build(name, (192, 192, 3), num_classes, **knobs)


@pytest.mark.parametrize("knob", ["freeze", "freeze_norm"])
def test_a_training_step_leaves_what_is_frozen(knob):
    """The statistics of the encoder's batch norm too; the decoder learns."""
    widths = ROWS["unet_lite0"].small_widths
    model = narrow("unet_lite0", (32, 64), 3, widths, **{knob: True})
    encoder = [w for w in model.weights if re.match(r"stem|block", w.path)]
    assert len(encoder) > 20
    frozen = [w for w in encoder if knob == "freeze" or "_bn/" in w.path]
    learnt = model.get_layer("dec5_conv1_bn").moving_mean  # 0 before
    check_frozen(model, frozen, learnt)
