"""Layer tables: the documents' own rows, found in the networks as they are built."""

import pytest
from outlines import count, outline

from keras_seg.errors import UsageError
from keras_seg.nets import structure, summary
from keras_seg.runs import commands


@pytest.mark.parametrize(
    ("name", "size", "knobs"),
    [
        ("icnet", (64, 96), {}),
        ("segnet_basic", (48, 64), {}),
        ("hourglass", (16, 32), {"depth": 1, "stacks": 2, "joints": 24}),
        ("attention_unet", (64, 96), {}),
        ("fcn_attention", (64, 96), {}),
        ("fcn_dilated_tanh", (40, 48), {}),
        ("fcn_resnet34", (64, 96), {}),
    ],
)
def test_every_weight_is_of_one_step(name, size, knobs):
    model = outline(name, size, 25, **knobs)
    steps = structure.steps(model)
    assert sum(step.parameters for step in steps) == count(model.trainable_weights)
    assert {step.kind for step in steps} <= structure.KINDS


def rows(name, size, classes, **knobs):
    return summary.layer_rows(outline(name, size, classes, **knobs), name)


def test_city_table_1():
    """Layer name and setting; the strides, which CITY leaves out, are VOC07's."""
    found = [tuple(row.values())[:2] for row in rows("fcn_strided", (64, 96), 34)]
    after = "Batch Norm + ReLU"
    expected = [
        (f"conv{i}", f"[3×3, {filters}], stride=2, pad=1, {after}")
        for i, filters in enumerate((32, 64, 128, 256, 512), 1)
    ]
    expected += [
        (f"deconv{i}", f"[3×3, {filters}], stride=2, pad=1, output pad=1, {after}")
        for i, filters in enumerate((512, 256, 128, 64, 32), 6)
    ]
    assert found == [*expected, ("conv_final", "[1×1, 34]")]


def test_city_table_2():
    found = {
        row["layer name"]: row["layer setting"]
        for row in rows("fcn_resnet50", (64, 96), 34)
    }
    assert found["conv1_conv"].startswith("[7×7, 64], stride=2")
    blocks = {2: (64, 256, 3), 3: (128, 512, 4), 4: (256, 1024, 6), 5: (512, 2048, 3)}
    for stage, (inner, outer, repeats) in blocks.items():
        setting = f"[1×1, {inner}; 3×3, {inner}; 1×1, {outer}] × {repeats}"
        assert found[f"conv{stage}"] == setting


def test_city_table_3():
    found = [row["layer setting"] for row in rows("unet_slim", (64, 96), 34)]
    pool, conv = "max pool 2×2, stride=2", "[3×3, {}], pad=1, Batch Norm + ReLU"
    expected = []
    for filters in (64, 128, 256, 512):
        expected += [conv.format(filters)] * 2 + [pool]
    expected += [conv.format(512)] * 2
    for level, (up, filters) in zip((4, 3, 2, 1), ((512, 256), (256, 128), (128, 64))):
        expected += [f"[2×2, {up}], stride=2", f"cat[enc{level}_conv2, dec{level}_up]"]
        expected += [conv.format(filters)] * 2
    expected += ["[2×2, 64], stride=2", "cat[enc1_conv2, dec1_up]"]
    expected += [conv.format(16)] * 2 + ["[1×1, 34]"]
    assert sorted(found) == sorted(expected)
    assert found[0] == expected[0]
    assert found[-1] == expected[-1]


VOC07_TABLE_1 = """
3/32    3/1/1/1    Tanh
32/32   3/1/1/1    Tanh
32/64   3/1/1/1    Tanh
64/128  3/2/1/2    Tanh
128/256 5/2/1/2    Tanh
256/512 5/2/1/2    Tanh
512/512 5/2/1/2/0  Tanh
512/256 5/2/1/2/0  Tanh
256/128 3/2/1/2/1  Tanh
128/64  3/1/1/1/0  Tanh
64/32   3/1/1/1/0  Tanh
32/32   3/1/1/1/0  Tanh
32/21   1/1/0/1    N/A
"""


def test_voc07_table_1():
    expected = [line.split() for line in VOC07_TABLE_1.strip().splitlines()]
    found = rows("fcn_dilated_tanh", (224, 224), 21)
    assert [row["in-channel/out-channel"] for row in found] == [e[0] for e in expected]
    geometry = [list(row.values())[2] for row in found]
    assert geometry == [line[1] for line in expected]
    after = [row["activation function/other"] for row in found]
    assert after == ["Tanh/Batch Norm"] * 12 + ["N/A"]
    sides = [int(row["output"].split("×")[0]) for row in found]
    assert sides == [224, 224, 224, 111, 53, 24, 53, 111, 224, 224, 224, 224, 224]


def test_voc07_table_2():
    found = rows("fcn_resnet34", (64, 96), 21)
    assert [list(row.values())[2] for row in found[2:6]] == [
        *("[3/1; 3/1] × 3", "[3/2; 3/1] × 4", "[3/2; 3/1] × 6", "[3/2; 3/1] × 3")
    ]
    decoder = [tuple(row.values())[1:4] for row in found[-6:]]
    channels = ("512/512", "512/256", "256/128", "128/64", "64/32")
    expected = [(each, "3/2/1/1/1", "ReLU/Batch Norm") for each in channels]
    assert decoder == [*expected, ("32/21", "1/1/0/1", "N/A")]


def test_voc07_table_3():
    found = [tuple(row.values())[1:3] for row in rows("unet_valid", (224, 224), 21)]
    expected, last = [], 3
    for filters in (64, 128, 256, 512):
        same = f"{filters}/{filters}"
        expected += [(f"{last}/{filters}", "3/1/0/1"), (same, "3/1/0/1")]
        expected.append((same, "2/2/0/1"))
        last = filters
    expected += [("512/1024", "3/1/0/1"), ("1024/1024", "3/1/0/1")]
    for filters, output_padding in ((1024, 0), (512, 1), (256, 0), (128, 0)):
        half = filters // 2
        expected.append((f"{filters}/{filters}", f"2/2/0/1/{output_padding}"))
        expected += [(f"{filters}/{half}", "3/1/2/1"), (f"{half}/{half}", "3/1/2/1")]
    assert found == [*expected, ("64/21", "1/1/0/1")]


def test_the_command_prints_a_table(capsys):
    words = ["fcn_attention", "--layers", "--size", "64", "96", "--classes", "19"]
    words += ["--knob", "encoder=layers", "--knob", "aspp=false", "--markdown"]
    assert commands.summary(words) == 0
    header, _, *lines = capsys.readouterr().out.splitlines()
    assert header.startswith("| layer | in-channel/out-channel | kernel size/")
    counts = [int(line.split("|")[-2].replace(",", "")) for line in lines]
    assert sum(counts) == 1_620_269  # by hand in test_nets_attention


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--layers", "of one network: name it"),
        ("--diagram x.svg", "of one network: name it"),
        ("icnet", "ask for --layers or for --diagram FILE"),
        ("lenet --layers", "no network 'lenet'"),
    ],
)
def test_what_the_command_cannot_show(words, message):
    with pytest.raises(UsageError, match=message):
        commands.summary(words.split())
