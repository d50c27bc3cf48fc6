"""Every network of NETS against its row: counts, shapes, skips, training, saving.

A network without a row fails `test_every_net_has_a_row`. The numbers of a row come
from the documents and from arithmetic, never from a run of the network.
"""

import functools
import importlib
import subprocess
import sys
from dataclasses import dataclass, field

import keras
import numpy as np
import pytest
import tensorflow as tf
from outlines import count, outline

from keras_seg import nets
from keras_seg.errors import UsageError
from keras_seg.nets.layers import MaxUnpooling


@dataclass(frozen=True)
class Row:
    """What is known of a network from outside its code.

    Attributes:
        reference: (H, W) and num_classes the counts are printed for.
        trainable, weights, doubled: parameter counts: trainable; all (with batch
            norm's moving statistics); trainable at filter_scale=2, where known.
        kernels: class of the kernels' initialiser.
        norm: batch norm's (momentum, epsilon), None without batch norm.
        preprocess: what the network is fed, a key of PREPROCESS.
        outputs: {head: (h, w)} at the reference input.
        wide, wide_outputs: the same at a non-square input.
        merges: {layer name: (h, w, c) of each tensor entering it} at the wide input,
            for every Add, Concatenate and unpooling (values, indices) of the network.
        other_kernels: {layer: initialiser} of the layers that differ.
        small: (H, W) for the tests that compute, non-square.
        small_knobs: knobs for those tests, to keep them quick.
        small_widths: constants of the network's file for those tests but the
            training, where no knob makes it narrow enough.
        slow: training it and exporting it are left to `make test-all`.
        large: so is saving it: nothing makes it narrow.
    """

    reference: tuple[int, int]
    num_classes: int
    trainable: int
    weights: int
    doubled: int | None
    kernels: str
    norm: tuple[float, float] | None
    preprocess: str
    outputs: dict[str, tuple[int, int]]
    wide: tuple[int, int]
    wide_outputs: dict[str, tuple[int, int]]
    merges: dict[str, tuple[tuple[int, int, int], ...]]
    small: tuple[int, int]
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

ROWS = {
    "icnet": Row(
        reference=(320, 320),
        num_classes=25,
        trainable=6_710_411,
        weights=6_738_955,
        doubled=26_755_275,
        kernels="GlorotUniform",
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
        slow=True,
        large=True,
    ),
    "segnet_basic": Row(
        reference=(320, 320),
        num_classes=25,
        trainable=1_416_985,
        weights=1_418_009,
        doubled=5_643_801,
        kernels="HeNormal",
        norm=(0.99, 1e-3),
        preprocess="rgb_255",
        outputs={"logits": (320, 320)},
        wide=(45, 60),  # odd on the way down: 23x30, 12x15, 6x8
        wide_outputs={"logits": (45, 60)},
        merges={
            "dec4_unpool": add(3, 4, 64),
            "dec3_unpool": add(6, 8, 64),
            "dec2_unpool": add(12, 15, 64),
            "dec1_unpool": add(23, 30, 64),
        },
        small=(17, 22),
    ),
    "segnet": Row(
        reference=(320, 320),
        num_classes=25,
        trainable=29_457_433,
        weights=29_473_305,
        doubled=117_749_785,
        kernels="HeNormal",
        norm=(0.99, 1e-3),
        preprocess="bgr_minus_mean",
        outputs={"logits": (320, 320)},
        wide=(360, 480),
        wide_outputs={"logits": (360, 480)},
        merges={
            "dec5_unpool": add(12, 15, 512),
            "dec4_unpool": add(23, 30, 512),
            "dec3_unpool": add(45, 60, 256),
            "dec2_unpool": add(90, 120, 128),
            "dec1_unpool": add(180, 240, 64),
        },
        small=(33, 42),
        slow=True,
        large=True,
    ),
    "fcn_resnet34": Row(
        reference=(224, 224),
        num_classes=21,
        trainable=25_215_381,
        weights=25_235_413,
        doubled=None,
        kernels="GlorotUniform",
        norm=(0.9, 1e-5),
        preprocess="imagenet",
        outputs={"logits": (224, 224)},
        wide=(224, 448),
        wide_outputs={"logits": (224, 448)},
        merges={f"layer1_{i}_add": add(56, 112, 64) for i in range(3)}
        | {f"layer2_{i}_add": add(28, 56, 128) for i in range(4)}
        | {f"layer3_{i}_add": add(14, 28, 256) for i in range(6)}
        | {f"layer4_{i}_add": add(7, 14, 512) for i in range(3)},
        small=(32, 64),
        slow=True,
        large=True,
    ),
    "hourglass": Row(
        reference=(320, 320),
        num_classes=25,
        trainable=12_874_468,
        weights=12_935_652,
        doubled=51_201_380,
        kernels="GlorotNormal",
        norm=(0.9, 1e-5),
        preprocess="unit",
        outputs={
            "stack0_logits": (320, 320),
            "stack1_logits": (320, 320),
            "stack2_logits": (320, 320),
            "logits": (320, 320),
        },
        wide=(48, 80),
        wide_outputs={
            "stack0_logits": (48, 80),
            "stack1_logits": (48, 80),
            "stack2_logits": (48, 80),
            "logits": (48, 80),
        },
        merges=hourglass_merges(48, 80),
        small=(16, 24),
        small_knobs={"stacks": 2, "depth": 2, "features": 16, "stem": 8},
        slow=True,
    ),
    "fcn": Row(
        reference=(256, 256),
        num_classes=18,
        trainable=134_441_462,
        weights=134_441_462,
        doubled=None,
        kernels="HeNormal",
        norm=None,
        preprocess="unit",
        other_kernels={
            "score_pool4": "Zeros",
            "score_pool3": "Zeros",
            "score_stride16_up": "BilinearKernel",
            "score_stride8_up": "BilinearKernel",
            "logits": "BilinearKernel",
        },
        outputs={"logits": (256, 256)},
        wide=(128, 192),
        wide_outputs={"logits": (128, 192)},
        merges={
            "score_stride16_add": add(8, 12, 18),
            "score_stride8_add": add(16, 24, 18),
        },
        small=(32, 64),
        small_knobs={"fc": 16},
        small_widths={"ENCODER": ((16,),) * 5},
        slow=True,
    ),
    "unet": Row(
        reference=(256, 256),
        num_classes=18,
        trainable=31_032_850,
        weights=31_032_850,
        doubled=124_111_890,
        kernels="HeNormal",
        norm=None,
        preprocess="unit",
        outputs={"logits": (256, 256)},
        wide=(128, 192),
        wide_outputs={"logits": (128, 192)},
        merges=unet_merges(128, 192),
        small=(16, 32),
        small_widths={"FILTERS": (8, 8, 8, 8), "BOTTLENECK": 16},
        slow=True,
    ),
    "unet_bn": Row(
        reference=(256, 256),
        num_classes=18,
        trainable=31_040_658,
        weights=31_054_354,
        doubled=124_127_506,
        kernels="HeNormal",
        norm=(0.99, 1e-3),
        preprocess="unit",
        outputs={"logits": (256, 256)},
        wide=(128, 192),
        wide_outputs={"logits": (128, 192)},
        merges=unet_merges(128, 192),
        small=(16, 32),
        small_widths={"FILTERS": (8, 8, 8, 8), "BOTTLENECK": 16},
        slow=True,
    ),
    "attention_unet": Row(
        reference=(256, 256),
        num_classes=18,
        trainable=32_437_142,
        weights=32_452_758,
        doubled=129_705_750,
        kernels="HeNormal",
        norm=(0.99, 1e-3),
        preprocess="unit",
        outputs={"logits": (256, 256)},
        wide=(128, 192),
        wide_outputs={"logits": (128, 192)},
        merges=unet_merges(128, 192)
        | {
            "gate4_add": add(8, 12, 256),
            "gate3_add": add(16, 24, 128),
            "gate2_add": add(32, 48, 64),
            "gate1_add": add(64, 96, 32),
        },
        small=(16, 32),
        small_widths={"FILTERS": (8, 8, 8, 8), "BOTTLENECK": 16},
        slow=True,
    ),
    "fcn_strided": Row(
        reference=(512, 1024),
        num_classes=34,
        trainable=5_500_674,
        weights=5_504_642,
        doubled=21_986_786,
        kernels="GlorotUniform",
        norm=(0.9, 1e-5),
        preprocess="imagenet",
        outputs={"logits": (512, 1024)},
        wide=(64, 160),
        wide_outputs={"logits": (64, 160)},
        merges={},
        small=(32, 64),
        small_widths={"ENCODER": (8, 8, 16, 16, 16), "DECODER": (16, 16, 8, 8, 8)},
        slow=True,
    ),
    "fcn_strided_prelu": Row(
        reference=(512, 1024),
        num_classes=34,
        trainable=7_861_517,
        weights=7_866_509,
        doubled=31_427_053,
        kernels="GlorotUniform",
        norm=(0.9, 1e-5),
        preprocess="imagenet",
        outputs={"logits": (512, 1024)},
        wide=(64, 160),
        wide_outputs={"logits": (64, 160)},
        merges={},
        small=(32, 64),
        small_widths={
            "ENCODER": ((8, 2), (8, 2), (8, 2), (16, 2), (16, 2), (16, 1)),
            "DECODER": (16, 16, 8, 8, 8),
        },
        slow=True,
    ),
    "fcn_resnet50": Row(
        reference=(512, 1024),
        num_classes=34,
        trainable=11_008_002,
        weights=34_597_698,
        doubled=None,
        kernels="GlorotUniform",
        norm=(0.9, 1e-5),
        preprocess="bgr_minus_mean",
        outputs={"logits": (512, 1024)},
        wide=(64, 160),
        wide_outputs={"logits": (64, 160)},
        merges={},  # those of ResNet50 are in the nested encoder
        small=(32, 64),
        small_widths={"DECODER": (16, 16, 8, 8, 8)},
        slow=True,
        large=True,
    ),
    "unet_slim": Row(
        reference=(512, 1024),
        num_classes=34,
        trainable=14_699_298,
        weights=14_707_042,
        doubled=58_767_394,
        kernels="GlorotUniform",
        norm=(0.9, 1e-5),
        preprocess="imagenet",
        outputs={"logits": (512, 1024)},
        wide=(128, 192),
        wide_outputs={"logits": (128, 192)},
        merges=unet_merges(128, 192),
        small=(16, 32),
        small_widths={
            "ENCODER": (8, 8, 8, 8),
            "BOTTLENECK": 8,
            "DECODER": {4: (8, 8), 3: (8, 8), 2: (8, 8), 1: (8, 8)},
        },
        slow=True,
    ),
    "fcn_attention": Row(
        reference=(224, 224),
        num_classes=19,
        trainable=29_625_297,
        weights=29_641_745,
        doubled=118_459_535,
        kernels="HeNormal",
        norm=(0.9, 1e-5),
        preprocess="imagenet",
        outputs={"logits": (224, 224)},
        wide=(128, 192),
        wide_outputs={"logits": (128, 192)},
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
        reference=(224, 224),
        num_classes=21,
        trainable=14_431_765,
        weights=14_435_861,
        doubled=None,
        kernels="GlorotUniform",
        norm=(0.9, 1e-5),
        preprocess="imagenet",
        outputs={"logits": (224, 224)},
        wide=(40, 88),
        wide_outputs={"logits": (40, 88)},
        merges={},
        small=(40, 48),
        small_widths={
            "PLAIN_ENCODER": (8, 8, 8),
            "DILATED_ENCODER": ((8, 3), (16, 5), (16, 5)),
            "DILATED_DECODER": ((16, 5, 0), (8, 5, 0), (8, 3, 1)),
            "PLAIN_DECODER": (8, 8, 8),
        },
        slow=True,
    ),
    "unet_valid": Row(
        reference=(224, 224),
        num_classes=21,
        trainable=33_834_901,
        weights=33_850_517,
        doubled=None,
        kernels="GlorotUniform",
        norm=(0.9, 1e-5),
        preprocess="imagenet",
        outputs={"logits": (160, 160)},
        wide=(144, 256),
        wide_outputs={"logits": (80, 192)},
        merges={},
        small=(144, 160),
        small_widths={
            "ENCODER": (4, 4, 8, 8),
            "BOTTLENECK": 8,
            "DECODER": {4: (8, 0, 8), 3: (8, 1, 8), 2: (8, 0, 4), 1: (4, 0, 4)},
        },
        slow=True,
    ),
}

every_net = pytest.mark.parametrize("name", ROWS)
every_small_net = pytest.mark.parametrize("small_net", ROWS, indirect=True)
larger_nets_slowly = [
    pytest.param(name, marks=pytest.mark.slow) if row.slow else name
    for name, row in ROWS.items()
]
large_nets_slowly = [
    pytest.param(name, marks=pytest.mark.slow) if row.large else name
    for name, row in ROWS.items()
]
SMALL_CLASSES = 3


@functools.cache
def wide_outline(name):
    return outline(name, ROWS[name].wide, ROWS[name].num_classes)


def build_small(name):
    """The network, with weights, for the tests that compute."""
    row = ROWS[name]
    module = importlib.import_module(f"keras_seg.nets.{nets.get(name).module}")
    with pytest.MonkeyPatch.context() as patch:
        for constant, widths in row.small_widths.items():
            patch.setattr(module, constant, widths)
        return nets.build(name, (*row.small, 3), SMALL_CLASSES, **row.small_knobs)


def output_sizes(model):
    return {head: tensor.shape[1:3] for head, tensor in model.output.items()}


def test_every_net_has_a_row():
    assert set(ROWS) == set(nets.NETS)


@every_net
def test_counts_and_shapes_at_the_reference_input(name):
    row = ROWS[name]
    model = outline(name, row.reference, row.num_classes)
    assert count(model.trainable_weights) == row.trainable
    assert count(model.weights) == row.weights
    assert output_sizes(model) == row.outputs
    for head, tensor in model.output.items():
        channels = nets.heads(name, row.num_classes)[head]
        if channels.target == "labels" and channels.lookup is None:
            assert tensor.shape[3] == row.num_classes


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.doubled])
def test_doubled_filters(name):
    row = ROWS[name]
    model = outline(name, row.reference, row.num_classes, filter_scale=2)
    assert count(model.trainable_weights) == row.doubled


@pytest.mark.parametrize(
    ("size", "num_classes", "filter_scale", "trainable", "weights"),
    [
        ((320, 320), 25, 2, 26_755_275, 26_812_363),
        ((320, 320), 19, 1, 6_707_321, None),
        ((320, 320), 19, 2, 26_749_113, None),
        ((384, 480), 11, 1, 6_703_201, 6_731_745),
    ],
)
def test_counts_of_icnet_elsewhere(size, num_classes, filter_scale, trainable, weights):
    model = outline("icnet", size, num_classes, filter_scale=filter_scale)
    assert count(model.trainable_weights) == trainable
    assert weights is None or count(model.weights) == weights


@every_net
def test_shapes_and_skips_at_a_wide_input(name):
    row = ROWS[name]
    model = wide_outline(name)
    assert output_sizes(model) == row.wide_outputs
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


@every_net
def test_registry_entry_agrees_with_the_network(name):
    row = ROWS[name]
    assert nets.get(name).preprocess == row.preprocess
    assert nets.get(name).reference == (*row.reference, row.num_classes)
    model = outline(name, ROWS[name].small, 4, **ROWS[name].small_knobs)
    heads = nets.heads(name, 4, **ROWS[name].small_knobs)
    assert set(heads) == set(model.output)
    assert heads["logits"].target == "labels"
    assert heads["logits"].lookup is None
    default = {head: h.loss_weight for head, h in nets.heads(name, 4).items()}
    assert default == dict(nets.get(name).loss_weights)


@every_net
def test_inference_model_has_the_main_head_at_image_size(name):
    row = ROWS[name]
    model = nets.inference_model(wide_outline(name))
    shapes = {head: tensor.shape for head, tensor in model.output.items()}
    assert shapes == {"logits": (None, *row.wide, row.num_classes)}


@every_net
def test_main_head_at_image_size_in_mixed_precision_is_float32(name):
    row = ROWS[name]
    image = np.random.default_rng(1).normal(size=(2, *row.small, 3)).astype("float32")
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build_small(name)
    finally:
        keras.config.set_dtype_policy("float32")
    assert any(layer.compute_dtype == "bfloat16" for layer in model.layers)
    outputs = model(image)
    for head, logits in outputs.items():
        assert logits.dtype == "float32", head
        assert np.isfinite(logits).all(), head
    main = nets.inference_model(model)(image)["logits"]
    assert main.dtype == "float32"


@pytest.fixture(scope="module")
def small_net(request):
    """What `make_small_net` gives, of each net in turn."""
    return make_small_net(request.param)


def make_small_net(name):
    """(row, network with weights, image [2, H, W, 3])."""
    row = ROWS[name]
    keras.utils.set_random_seed(0)
    model = build_small(name)
    image = np.random.default_rng(1).normal(size=(2, *row.small, 3)).astype("float32")
    return row, model, image


@pytest.mark.parametrize("small_net", large_nets_slowly, indirect=True)
def test_reloaded_keras_file_gives_equal_logits(small_net, tmp_path):
    _, model, image = small_net
    model.save(tmp_path / "net.keras")
    reloaded = keras.models.load_model(tmp_path / "net.keras")
    outputs, expected = reloaded(image), model(image)
    assert set(outputs) == set(expected)
    for head in expected:
        np.testing.assert_array_equal(outputs[head], expected[head], err_msg=head)


@pytest.mark.parametrize("small_net", larger_nets_slowly, indirect=True)
def test_saved_model_gives_equal_logits_for_any_batch_size(small_net, tmp_path):
    _, model, image = small_net
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
    _, model, image = small_net
    saved = model.get_weights()
    rng = np.random.default_rng(2)
    # Layers that start at zero would stop the gradient of all that lies below.
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


@pytest.mark.parametrize("name", larger_nets_slowly)
def test_one_batch_is_learnt_by_heart(name):
    row = ROWS[name]
    height, width = row.small
    keras.utils.set_random_seed(0)
    model = nets.inference_model(
        nets.build(name, (*row.small, 3), SMALL_CLASSES, **row.small_knobs)
    )
    image = np.random.default_rng(1).normal(size=(2, *row.small, 3)).astype("float32")
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


def test_unknown_net_lists_the_known_ones():
    with pytest.raises(UsageError, match=r"net: icnte; expected one of .*icnet"):
        nets.build("icnte", (32, 32, 3), 4)


def test_unknown_knob_names_it_and_the_known_ones():
    with pytest.raises(UsageError, match="bin; expected one of bins, cff_dilation"):
        nets.build("icnet", (32, 32, 3), 4, bin=(1, 2))


def test_bad_size_names_the_next_valid_one():
    message = "size for icnet: 360 x 480; expected multiples of 32, next 384 x 480"
    with pytest.raises(UsageError, match=message):
        nets.build("icnet", (360, 480, 3), 4)


@pytest.mark.parametrize("num_classes", [0, -1, 2.0])
def test_number_of_classes_is_at_least_one(num_classes):
    with pytest.raises(UsageError, match="num_classes"):
        nets.build("icnet", (32, 32, 3), num_classes)


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
    nets.refuse_size(name, padded)
    smallest = nets.padded_size(name, (1, 1))
    model = nets.inference_model(outline(name, smallest, 3))
    assert model.output["logits"].shape == (None, *smallest, 3)


@every_net
def test_registry_has_the_stride_of_the_default_knobs(name):
    """What is known without the module is what the module says."""
    module = importlib.import_module(f"keras_seg.nets.{nets.get(name).module}")
    if hasattr(module, "input_stride"):
        assert module.input_stride(**nets.get(name).fixed) == nets.get(name).stride


@pytest.mark.parametrize(
    ("name", "size", "knobs", "message"),
    [
        ("icnet", (360, 480), {}, "multiples of 32, next 384 x 480"),
        ("unet_valid", (100, 300), {}, "of 16 of at least 144, next 144 x 304"),
        ("fcn_dilated_tanh", (32, 41), {}, "of 8 of at least 40, next 40 x 48"),
        ("hourglass", (32, 40), {}, "multiples of 16, next 32 x 48"),
        ("hourglass", (32, 30), {"depth": 2}, "multiples of 4, next 32 x 32"),
        ("segnet", (0, 3), {}, "multiples of 1, next 1 x 3"),
    ],
)
def test_refused_size_names_the_next_valid_one(name, size, knobs, message):
    shown = f"size for {name}: {size[0]} x {size[1]}; expected .*{message}"
    with pytest.raises(UsageError, match=shown):
        nets.refuse_size(name, size, **knobs)
    valid = tuple(int(side) for side in message.split("next ")[1].split(" x "))
    nets.refuse_size(name, valid, **knobs)


def test_size_is_refused_without_keras():
    code = (
        "import sys\n"
        "from keras_seg import nets\n"
        "for name in nets.NETS:\n"
        "    nets.refuse_size(name, nets.padded_size(name, (100, 37)))\n"
        "assert not {'keras', 'tensorflow'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_registry_is_read_only():
    with pytest.raises(TypeError):
        nets.NETS["icnet"] = None
