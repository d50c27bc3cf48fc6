"""Every network of NETS against its row: counts, shapes, skips, training, saving.

A network without a row fails `test_every_net_has_a_row`. The numbers of a row come
from the documents and from arithmetic, never from a run of the network.
"""

import importlib
import subprocess
import sys
from dataclasses import dataclass, field

import keras
import numpy as np
import pytest
import tensorflow as tf
from outlines import count, narrow, outline

from keras_seg import nets
from keras_seg.errors import UsageError
from keras_seg.nets.layers import MaxUnpooling


@dataclass(frozen=True)
class Row:
    """What is known of a network from outside its code.

    Attributes:
        reference: (H, W) and num_classes the counts are printed for.
        trainable, weights, doubled: parameter counts: trainable; all (with batch
            norm's moving statistics), where it has some; trainable at filter_scale=2,
            where known.
        kernels: class of the kernels' initialiser.
        norm: batch norm's (momentum, epsilon), None without batch norm.
        preprocess: the network's input, a key of PREPROCESS.
        outputs: {head: (h, w)} at the reference input, unless it is one head there.
        wide, wide_outputs: the same at a non-square input.
        merges: {layer name: (h, w, c) of each tensor entering it} at the wide input,
            for every Add, Concatenate and unpooling (values, indices) of the network.
        other_kernels: {layer: initialiser} of the layers that differ.
        small: (H, W) for the tests that compute, non-square.
        small_knobs: knobs for those tests, to keep them quick.
        small_widths: constants of the network's file for those tests but the
            training, where no knob makes it narrow enough.
        slow: training it and exporting it are left to `make test-all`.
        large: so is saving it.
    """

    reference: tuple[int, int]
    num_classes: int
    trainable: int
    wide: tuple[int, int]
    small: tuple[int, int]
    weights: int | None = None
    doubled: int | None = None
    kernels: str = "GlorotUniform"
    norm: tuple[float, float] | None = (0.9, 1e-5)
    preprocess: str = "imagenet"
    outputs: dict[str, tuple[int, int]] = field(default_factory=dict)
    wide_outputs: dict[str, tuple[int, int]] = field(default_factory=dict)
    merges: dict[str, tuple[tuple[int, int, int], ...]] = field(default_factory=dict)
    other_kernels: dict[str, str] = field(default_factory=dict)
    small_knobs: dict[str, object] = field(default_factory=dict)
    small_widths: dict[str, object] = field(default_factory=dict)
    slow: bool = False
    large: bool = False


def add(height, width, channels, count=2):
    """What enters an Add of `count` tensors, or an unpooling."""
    return ((height, width, channels),) * count


def concat(height, width, *channels):
    """What enters a Concatenate, in its order."""
    return tuple((height, width, c) for c in channels)


def hourglass_merges(height, width):
    """The sums of 4 stacks: 13 residual units and 4 levels each, and the merges."""
    merges = {f"stem_res{i}_add": add(height, width, c) for i, c in STEM.items()}
    for stack in range(4):
        h, w = height, width
        for depth in (4, 3, 2, 1):
            level = f"stack{stack}_level{depth}"
            merges[f"{level}_up_add"] = add(h, w, 256)
            merges[f"{level}_add"] = add(h, w, 256)
            h, w = h // 2, w // 2
            merges[f"{level}_low1_add"] = add(h, w, 256)
            merges[f"{level}_low3_add"] = add(h, w, 256)
        merges[f"stack{stack}_level1_low2_add"] = add(h, w, 256)
        merges[f"stack{stack}_res_add"] = add(height, width, 256)
        if stack < 3:
            merges[f"stack{stack}_merge"] = add(height, width, 256, count=3)
    return merges


def unet_merges(height, width):
    """The four skips of a U-Net: as many channels from either side."""
    return {
        f"dec{level}_concat": concat(
            height // 2 ** (level - 1), width // 2 ** (level - 1), channels, channels
        )
        for level, channels in ((4, 512), (3, 256), (2, 128), (1, 64))
    }


STEM = {1: 128, 2: 128, 3: 256}  # outputs of the hourglass' first residual units
STACKS = ("stack0_logits", "stack1_logits", "stack2_logits", "logits")

BODY = {"reference": (320, 320), "num_classes": 25}
CLOTH = {
    "reference": (256, 256),
    "num_classes": 18,
    "kernels": "HeNormal",
    "preprocess": "unit",
    "wide": (128, 192),
    "slow": True,
}
UNET = CLOTH | {
    "merges": unet_merges(128, 192),
    "small": (16, 32),
    "small_widths": {"FILTERS": (8, 8, 8, 8), "BOTTLENECK": 16},
}
CITY = {"reference": (512, 1024), "num_classes": 34, "slow": True}
STRIDED = CITY | {"wide": (64, 160), "small": (32, 64)}
VOC07 = {"reference": (224, 224), "num_classes": 21, "slow": True}

ROWS = {
    "icnet": Row(
        **BODY,
        trainable=6_710_411,
        weights=6_738_955,
        doubled=26_755_275,
        norm=(0.95, 1e-5),
        preprocess="bgr_minus_mean",
        outputs={"logits": (80, 80), "sub24_logits": (40, 40), "sub4_logits": (20, 20)},
        wide=(320, 640),
        wide_outputs={
            "logits": (80, 160),
            "sub24_logits": (40, 80),
            "sub4_logits": (20, 40),
        },
        merges={f"conv2_{i}": add(40, 80, 128) for i in range(1, 4)}
        | {"conv3_1": add(20, 40, 256)}
        | {f"conv3_{i}": add(10, 20, 256) for i in range(2, 5)}
        | {f"conv4_{i}": add(10, 20, 512) for i in range(1, 7)}
        | {f"conv5_{i}": add(10, 20, 1024) for i in range(1, 4)}
        | {
            "conv5_3_sum": add(10, 20, 1024, count=5),
            "sub24_sum": add(20, 40, 128),
            "sub12_sum": add(40, 80, 128),
        },
        small=(32, 64),
        small_widths={
            "CONV4": (tuple(f"conv4_{i}" for i in range(1, 7)), 16, 64, 2),
            "CONV5": (("conv5_1", "conv5_2", "conv5_3"), 16, 96, 4),
        },
        slow=True,
        large=True,
    ),
    "segnet_basic": Row(
        **BODY,
        trainable=1_416_985,
        weights=1_418_009,
        doubled=5_643_801,
        kernels="HeNormal",
        norm=(0.99, 1e-3),
        preprocess="rgb_255",
        wide=(45, 60),  # odd on the way down: 23x30, 12x15, 6x8
        merges={
            "dec4_unpool": add(3, 4, 64),
            "dec3_unpool": add(6, 8, 64),
            "dec2_unpool": add(12, 15, 64),
            "dec1_unpool": add(23, 30, 64),
        },
        small=(9, 14),
        small_widths={"FILTERS": 16},
    ),
    "segnet": Row(
        **BODY,
        trainable=29_457_433,
        weights=29_473_305,
        doubled=117_749_785,
        kernels="HeNormal",
        norm=(0.99, 1e-3),
        preprocess="bgr_minus_mean",
        wide=(360, 480),
        merges={
            "dec5_unpool": add(12, 15, 512),
            "dec4_unpool": add(23, 30, 512),
            "dec3_unpool": add(45, 60, 256),
            "dec2_unpool": add(90, 120, 128),
            "dec1_unpool": add(180, 240, 64),
        },
        small=(33, 42),
        small_widths={
            "ENCODER": ((8, 8), (8, 8), (8,) * 3, (16,) * 3, (16,) * 3),
            "DECODER": ((16,) * 3, (16, 16, 8), (8,) * 3, (8, 8), (8,)),
        },
        slow=True,
        large=True,
    ),
    "fcn_resnet34": Row(
        **VOC07,
        trainable=25_215_381,
        weights=25_235_413,
        wide=(224, 448),
        merges={f"layer1_{i}_add": add(56, 112, 64) for i in range(3)}
        | {f"layer2_{i}_add": add(28, 56, 128) for i in range(4)}
        | {f"layer3_{i}_add": add(14, 28, 256) for i in range(6)}
        | {f"layer4_{i}_add": add(7, 14, 512) for i in range(3)},
        small=(32, 64),
        small_widths={
            "STAGES": ((3, 8), (4, 8), (6, 16), (3, 16)),
            "DECODER": (16, 16, 8, 8, 8),
        },
        large=True,
    ),
    "hourglass": Row(
        **BODY,
        trainable=12_874_468,
        weights=12_935_652,
        doubled=51_201_380,
        kernels="GlorotNormal",
        preprocess="unit",
        outputs=dict.fromkeys(STACKS, (320, 320)),
        wide=(48, 80),
        wide_outputs=dict.fromkeys(STACKS, (48, 80)),
        merges=hourglass_merges(48, 80),
        small=(16, 24),
        small_knobs={"stacks": 2, "depth": 2, "features": 16, "stem": 8},
        slow=True,
    ),
    "fcn": Row(
        **CLOTH,
        trainable=134_441_462,
        norm=None,
        other_kernels={
            "score_pool4": "Zeros",
            "score_pool3": "Zeros",
            "score_stride16_up": "BilinearKernel",
            "score_stride8_up": "BilinearKernel",
            "logits": "BilinearKernel",
        },
        merges={
            "score_stride16_add": add(8, 12, 18),
            "score_stride8_add": add(16, 24, 18),
        },
        small=(32, 64),
        small_knobs={"fc": 16},
        small_widths={"ENCODER": ((16,),) * 5},
    ),
    "unet": Row(**UNET, trainable=31_032_850, doubled=124_111_890, norm=None),
    "unet_bn": Row(
        **UNET,
        trainable=31_040_658,
        weights=31_054_354,
        doubled=124_127_506,
        norm=(0.99, 1e-3),
    ),
    "attention_unet": Row(
        **UNET
        | {
            "merges": UNET["merges"]
            | {
                "gate4_add": add(8, 12, 256),
                "gate3_add": add(16, 24, 128),
                "gate2_add": add(32, 48, 64),
                "gate1_add": add(64, 96, 32),
            }
        },
        trainable=32_437_142,
        weights=32_452_758,
        doubled=129_705_750,
        norm=(0.99, 1e-3),
    ),
    "fcn_strided": Row(
        **STRIDED,
        trainable=5_500_674,
        weights=5_504_642,
        doubled=21_986_786,
        small_widths={"ENCODER": (8, 8, 16, 16, 16), "DECODER": (16, 16, 8, 8, 8)},
    ),
    "fcn_strided_prelu": Row(
        **STRIDED,
        trainable=7_861_517,
        weights=7_866_509,
        doubled=31_427_053,
        small_widths={
            "ENCODER": ((8, 2), (8, 2), (8, 2), (16, 2), (16, 2), (16, 1)),
            "DECODER": (16, 16, 8, 8, 8),
        },
    ),
    "fcn_resnet50": Row(  # its merges are in the nested encoder
        **STRIDED,
        trainable=11_008_002,
        weights=34_597_698,
        preprocess="bgr_minus_mean",
        small_widths={"DECODER": (16, 16, 8, 8, 8)},
        large=True,
    ),
    "unet_slim": Row(
        **CITY,
        trainable=14_699_298,
        weights=14_707_042,
        doubled=58_767_394,
        wide=(128, 192),
        merges=unet_merges(128, 192),
        small=(16, 32),
        small_widths={
            "ENCODER": (8, 8, 8, 8),
            "BOTTLENECK": 8,
            "DECODER": {4: (8, 8), 3: (8, 8), 2: (8, 8), 1: (8, 8)},
        },
    ),
    "fcn_attention": Row(
        reference=(224, 224),
        num_classes=19,
        trainable=29_625_297,
        weights=29_641_745,
        doubled=118_459_535,
        kernels="HeNormal",
        wide=(128, 192),
        merges={
            "aspp_concat": concat(4, 6, 256, 256, 256, 256, 256),
            "dec4_add": add(8, 12, 512),
            "dec3_add": add(16, 24, 256),
            "dec2_add": add(32, 48, 128),
            "dec1_add": add(64, 96, 64),
        },
        small=(32, 64),
        small_widths={
            "ENCODER": ((16,),) * 5,
            "ASPP_FILTERS": 16,
            # Wide enough for attention without dead units
            "DECODER": {4: 64, 3: 64, 2: 64, 1: 64},
            "LAST_DECONV": 64,
        },
        slow=True,
    ),
    "fcn_dilated_tanh": Row(
        **VOC07,
        trainable=14_431_765,
        weights=14_435_861,
        wide=(40, 88),
        small=(40, 48),
        small_widths={
            "PLAIN_ENCODER": (8, 8, 8),
            "DILATED_ENCODER": ((8, 3), (16, 5), (16, 5)),
            "DILATED_DECODER": ((16, 5, 0), (8, 5, 0), (8, 3, 1)),
            "PLAIN_DECODER": (8, 8, 8),
        },
    ),
    "unet_valid": Row(
        **VOC07,
        trainable=33_834_901,
        weights=33_850_517,
        outputs={"logits": (160, 160)},
        wide=(144, 256),
        wide_outputs={"logits": (80, 192)},
        small=(144, 160),
        small_widths={
            "ENCODER": (4, 4, 8, 8),
            "BOTTLENECK": 8,
            "DECODER": {4: (8, 0, 8), 3: (8, 1, 8), 2: (8, 0, 4), 1: (4, 0, 4)},
        },
    ),
    "unet_lite0": Row(
        reference=(352, 480),
        num_classes=11,
        # The encoder has 2,958,848: Lite0's published 4,652,008 without its last
        # convolution (320 x 1280), that one's norm and the classifier (1281 x 1000).
        trainable=2_958_848 + 9 * 351_600 + 4 * 620 + 21 * 11,
        weights=2_958_848 + 39_456 + 9 * 351_600 + 8 * 620 + 21 * 11,
        doubled=2_958_848 + 9 * 1_112_000 + 4 * 1240 + 41 * 11,
        kernels="VarianceScaling",
        norm=(0.99, 1e-3),
        preprocess="signed_unit",
        wide=(64, 96),
        merges={
            "block2_add": add(16, 24, 24),
            "block4_add": add(8, 12, 40),
            **{f"block{i}_add": add(4, 6, 80) for i in (6, 7)},
            **{f"block{i}_add": add(4, 6, 112) for i in (9, 10)},
            **{f"block{i}_add": add(2, 3, 192) for i in (12, 13, 14)},
            "dec5_concat": concat(4, 6, 112, 320),
            "dec4_concat": concat(8, 12, 40, 320),
            "dec3_concat": concat(16, 24, 24, 160),
            "dec2_concat": concat(32, 48, 16, 80),
        },
        slow=True,
        small=(32, 64),
        small_widths={
            "STEM": 8,
            "STAGES": (
                *((1, 3, 1, 1, 8), (1, 3, 2, 2, 8), (2, 5, 2, 2, 8)),
                *((1, 3, 2, 2, 8), (1, 5, 2, 2, 8)),
            ),
            "DECODER": (16, 8, 8, 8, 8),
        },
    ),
}

every_net = pytest.mark.parametrize("name", ROWS)
every_small_net = pytest.mark.parametrize("small_net", ROWS, indirect=True)


def slowly(reason):
    """Every name, those whose row has the reason marked slow."""
    return [
        pytest.param(name, marks=pytest.mark.slow) if getattr(row, reason) else name
        for name, row in ROWS.items()
    ]


SMALL_CLASSES = 3


def wide_outline(name):
    return outline(name, ROWS[name].wide, ROWS[name].num_classes)


def build_small(name):
    """The network, with weights, for the tests that compute."""
    row = ROWS[name]
    return narrow(name, row.small, SMALL_CLASSES, row.small_widths, **row.small_knobs)


def small_image(row):
    """float32 [2, H, W, 3]."""
    return np.random.default_rng(1).normal(size=(2, *row.small, 3)).astype("float32")


def output_sizes(model):
    return {head: tensor.shape[1:3] for head, tensor in model.output.items()}


def test_every_net_has_a_row():
    assert set(ROWS) == set(nets.NETS)


@every_net
def test_counts_and_shapes_at_the_reference_input(name):
    row = ROWS[name]
    model = outline(name, row.reference, row.num_classes)
    assert count(model.trainable_weights) == row.trainable
    assert count(model.weights) == (row.weights or row.trainable)
    assert output_sizes(model) == (row.outputs or {"logits": row.reference})
    for head, tensor in model.output.items():
        channels = nets.heads(name, row.num_classes)[head]
        if channels.target == "labels" and channels.lookup is None:
            assert tensor.shape[3] == row.num_classes


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.doubled])
def test_doubled_filters(name):
    row = ROWS[name]
    model = outline(name, row.reference, row.num_classes, filter_scale=2)
    assert count(model.trainable_weights) == row.doubled


@every_net
def test_shapes_and_skips_at_a_wide_input(name):
    row = ROWS[name]
    model = wide_outline(name)
    assert output_sizes(model) == (row.wide_outputs or {"logits": row.wide})
    merging = (keras.layers.Add, keras.layers.Concatenate, MaxUnpooling)
    merges = {
        layer.name: tuple(tuple(tensor.shape[1:]) for tensor in layer.input)
        for layer in model.layers
        if isinstance(layer, merging)
    }
    assert merges == row.merges


@every_net
def test_kernels_and_batch_norm(name):
    row = ROWS[name]
    model = wide_outline(name)
    kernels, norms = {}, set()
    for layer in model.layers:
        if hasattr(layer, "kernel_initializer"):
            kernels[layer.name] = type(layer.kernel_initializer).__name__
        elif isinstance(layer, keras.layers.BatchNormalization):
            norms.add((layer.momentum, layer.epsilon))
    assert kernels
    assert kernels == dict.fromkeys(kernels, row.kernels) | row.other_kernels
    assert norms == ({row.norm} if row.norm else set())


@pytest.mark.parametrize(
    ("net", "first", "second"),
    [
        ("unet_bn", "bn", "relu"),
        ("attention_unet", "bn", "relu"),
        ("fcn_strided_prelu", "bn", "prelu"),
        ("fcn_resnet50", "bn", "relu"),
        ("unet_slim", "bn", "relu"),
        ("fcn_attention", "bn", "relu"),
        ("fcn_resnet34", "relu", "bn"),  # its decoder; VOC07 normalises last
        ("fcn_dilated_tanh", "tanh", "bn"),
        ("unet_valid", "relu", "bn"),
    ],
)
def test_order_of_batch_norm_and_activation(net, first, second):
    """Where the documents print it."""
    model = wide_outline(net)
    units = [
        layer.name.removesuffix(f"_{second}")
        for layer in model.layers
        if layer.name.endswith(f"_{second}")
        and (net != "fcn_resnet34" or layer.name.startswith("dec"))
        and not layer.name.startswith("gate")
    ]
    assert len(units) >= 5
    for unit in units:
        before = model.get_layer(f"{unit}_{second}").input
        assert before is model.get_layer(f"{unit}_{first}").output


@every_net
def test_registry_entry_agrees_with_the_network(name):
    row = ROWS[name]
    assert nets.get(name).preprocess == row.preprocess
    assert nets.get(name).reference == (*row.reference, row.num_classes)
    heads = nets.heads(name, row.num_classes)
    assert set(heads) == set(wide_outline(name).output)
    assert heads["logits"].target == "labels"
    assert heads["logits"].lookup is None
    weights = {head: settings.loss_weight for head, settings in heads.items()}
    assert weights == dict(nets.get(name).loss_weights)


@every_net
def test_inference_model_has_the_main_head_at_image_size(name):
    row = ROWS[name]
    model = nets.inference_model(wide_outline(name))
    shapes = {head: tensor.shape for head, tensor in model.output.items()}
    assert shapes == {"logits": (None, *row.wide, row.num_classes)}


@every_net
def test_main_head_at_image_size_in_mixed_precision_is_float32(name):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build_small(name)
    finally:
        keras.config.set_dtype_policy("float32")
    assert any(layer.compute_dtype == "bfloat16" for layer in model.layers)
    main = nets.inference_model(model).output["logits"]
    outputs = keras.Model(model.input, model.output | {"main": main})
    for head, logits in outputs(small_image(ROWS[name])).items():
        assert logits.dtype == "float32", head
        assert np.isfinite(logits).all(), head


@pytest.fixture(scope="module")
def small_net(request):
    """What `make_small_net` gives, of each net in turn."""
    return make_small_net(request.param)


def make_small_net(name):
    """(network with weights, image [2, H, W, 3])."""
    keras.utils.set_random_seed(0)
    return build_small(name), small_image(ROWS[name])


@pytest.mark.parametrize("small_net", slowly("large"), indirect=True)
def test_reloaded_keras_file_gives_equal_logits(small_net, tmp_path):
    model, image = small_net
    model.save(tmp_path / "net.keras")
    reloaded = keras.models.load_model(tmp_path / "net.keras")
    outputs, expected = reloaded(image), model(image)
    assert set(outputs) == set(expected)
    for head in expected:
        np.testing.assert_array_equal(outputs[head], expected[head], err_msg=head)


@pytest.mark.parametrize("small_net", slowly("slow"), indirect=True)
def test_saved_model_gives_equal_logits_for_any_batch_size(small_net, tmp_path):
    model, image = small_net
    inference = nets.inference_model(model)
    inference.export(tmp_path / "saved_model", verbose=False)
    served = tf.saved_model.load(tmp_path / "saved_model")
    for batch in (image, image[:1]):
        expected = inference(batch)["logits"]
        logits = served.serve(batch)["logits"]
        scale = np.abs(expected).max()
        np.testing.assert_allclose(logits, expected, atol=1e-5 * scale, rtol=0)


@every_small_net
def test_gradient_reaches_every_trainable_weight(small_net):
    model, image = small_net
    saved = model.get_weights()
    rng = np.random.default_rng(2)
    # Layers that start at zero would stop the gradient of everything below them.
    for weight in model.trainable_weights:
        weight.assign_add(0.01 * rng.normal(size=weight.shape))
    with tf.GradientTape() as tape:
        outputs = model(image, training=True)
        factors = {h: rng.normal(size=t.shape) for h, t in outputs.items()}
        loss = sum(tf.reduce_mean(outputs[h] * factors[h]) for h in factors)
    gradients = tape.gradient(loss, [w.value for w in model.trainable_weights])
    without = [
        weight.path
        for weight, gradient in zip(model.trainable_weights, gradients)
        if gradient is None or not np.any(gradient)
    ]
    model.set_weights(saved)
    assert without == []


@pytest.mark.parametrize("name", slowly("slow"))
def test_one_batch_is_learnt_by_heart(name):
    row = ROWS[name]
    height, width = row.small
    keras.utils.set_random_seed(0)
    model = nets.inference_model(
        nets.build(name, (*row.small, 3), SMALL_CLASSES, **row.small_knobs)
    )
    image = small_image(row)
    rows, columns = np.mgrid[:height, :width]
    label = (rows * 2 // height + columns * 2 // width) % SMALL_CLASSES
    label = np.stack([label, label[::-1, ::-1]])
    optimizer = keras.optimizers.Adam(1e-3)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            logits = model(image, training=True)["logits"]
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(label, logits)
            )
        weights = model.trainable_variables
        gradients = tape.gradient(loss, [w.value for w in weights])
        optimizer.apply_gradients(zip(gradients, weights))
        return loss

    losses = [float(step()) for _ in range(60)]
    assert np.mean(losses[-5:]) < losses[0] / 2


@pytest.mark.parametrize(
    ("name", "size", "num_classes", "knobs", "message"),
    [
        ("icnte", (32, 32), 4, {}, "icnte.*icnet"),
        ("icnet", (32, 32), 4, {"bin": (1, 2)}, "bin.*bins, cff_dilation"),
        ("icnet", (360, 480), 4, {}, "icnet.*360 x 480.*384 x 480"),
        ("icnet", (32, 32), 0, {}, "num_classes"),
        ("icnet", (32, 32), -1, {}, "num_classes"),
        ("icnet", (32, 32), 2.0, {}, "num_classes"),
    ],
)
def test_wrong_argument_is_named(name, size, num_classes, knobs, message):
    with pytest.raises(UsageError, match=message):
        nets.build(name, (*size, 3), num_classes, **knobs)


@pytest.mark.parametrize(
    ("size", "stride", "valid"),
    [((320, 320), 32, (320, 320)), ((1, 33), 32, (32, 64)), ((45, 60), 1, (45, 60))],
)
def test_next_valid_size(size, stride, valid):
    assert nets.next_valid_size(size, stride) == valid


def test_padded_size_of_icnet():
    assert nets.padded_size("icnet", (361, 480)) == (384, 480)


@every_net
def test_padded_size_is_one_the_net_takes(name):
    padded = nets.padded_size(name, (100, 37))
    assert padded[0] >= 100
    assert padded[1] >= 37
    nets.check_size(name, padded)
    smallest = nets.padded_size(name, (1, 1))
    model = nets.inference_model(outline(name, smallest, 3))
    assert model.output["logits"].shape == (None, *smallest, 3)


@every_net
def test_registry_has_the_stride_of_the_default_knobs(name):
    """What is known without importing the module agrees with the module."""
    module = importlib.import_module(f"keras_seg.nets.{nets.get(name).module}")
    if hasattr(module, "input_stride"):
        assert module.input_stride(**nets.get(name).fixed) == nets.get(name).stride


@pytest.mark.parametrize(
    ("name", "size", "knobs", "stride", "valid"),
    [
        ("icnet", (360, 480), {}, "32", (384, 480)),
        ("unet_valid", (100, 300), {}, "16.* 144", (144, 304)),
        ("fcn_dilated_tanh", (32, 41), {}, "8.* 40", (40, 48)),
        ("hourglass", (32, 40), {}, "16", (32, 48)),
        ("hourglass", (32, 30), {"depth": 2}, "4", (32, 32)),
        ("segnet", (0, 3), {}, "1", (1, 3)),
    ],
)
def test_wrong_size_names_the_next_valid_one(name, size, knobs, stride, valid):
    sizes = ["{} x {}".format(*sides) for sides in (size, valid)]
    message = rf"{name}.*{sizes[0]}.*multiples of {stride}\b.*{sizes[1]}"
    with pytest.raises(UsageError, match=message):
        nets.check_size(name, size, **knobs)
    nets.check_size(name, valid, **knobs)


def test_size_is_checked_without_keras():
    code = (
        "import sys\n"
        "from keras_seg import nets\n"
        "for name in nets.NETS:\n"
        "    nets.check_size(name, nets.padded_size(name, (100, 37)))\n"
        "assert not {'keras', 'tensorflow'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_registry_is_read_only():
    with pytest.raises(TypeError):
        nets.NETS["icnet"] = None
