"""Configurations: parts, paths, a round trip through JSON, and what is refused."""

import json

import pytest

from keras_seg.config import (
    FORMAT_1,
    Augment,
    Config,
    from_dict,
    parse_setting,
    set_path,
    settings,
    to_dict,
)
from keras_seg.errors import UsageError

SMALL = {"net": "icnet", "data": {"size": [64, 96]}, "steps": 3}


def with_settings(*texts):
    values = json.loads(json.dumps(SMALL))
    for text in texts:
        set_path(values, *parse_setting(text))
    return from_dict(values)


def test_a_round_trip_through_json_gives_the_same_configuration():
    config = Config(
        net={"name": "hourglass", "stacks": 2, "bins": (1, 2)},
        data={"size": (64, 96)},
        steps=7,
        augment=Augment(mirror=0.5, scale=(0.5, 2.0)),
        validation={"samples": 4},
    )
    values = json.loads(json.dumps(to_dict(config)))
    assert values["net"]["stacks"] == 2
    assert from_dict(values) == config


def test_a_whole_number_is_taken_where_a_fraction_belongs():
    lr = with_settings("optimizer.lr=1").optimizer.lr
    assert lr == 1.0
    assert isinstance(lr, float)


def test_a_setting_changes_itself_and_nothing_else():
    base = with_settings("augment.mirror=0.5", "net.cff_dilation=1")
    changed = base.changed(augment={"swap_lr": True}, net={"bins": [1, 2]}, steps=5)
    assert changed.augment == Augment(mirror=0.5, swap_lr=True)
    assert changed.net.knobs == {"cff_dilation": 1, "bins": (1, 2)}
    assert (changed.steps, base.steps) == (5, 3)
    assert changed.changed(augment={"swap_lr": None}).augment == base.augment


def test_another_network_takes_no_knobs_along():
    base = with_settings("net.filter_scale=2", "net.bins=[1]")
    assert base.changed(net="unet").net == Config(**SMALL | {"net": "unet"}).net
    assert base.changed(net={"name": "unet", "depth": 2}).net.knobs == {"depth": 2}
    assert with_settings("net.bins=[1]", "net=unet").net.knobs == {}


def test_the_flat_format_1_is_read():
    old = {"net": "hourglass", "size": [64, 96], "steps": 3, "knobs": {"stacks": 2}}
    old |= {"loss": "dice", "optimizer": "adam", "lr": 0.1, "val_every": 2}
    old |= {"augment": {"mirror": 0.5}, "joint_targets": "centroid", "seed": 4}
    new = Config(
        net={"name": "hourglass", "stacks": 2},
        data={"size": (64, 96), "joints": "centroid"},
        augment={"mirror": 0.5},
        loss={"name": "dice"},
        optimizer={"name": "adam", "lr": 0.1},
        validation={"every": 2},
        steps=3,
        seed=4,
    )
    assert from_dict(old) == new


def test_every_setting_of_format_1_has_its_place():
    paths = {path for path, *_ in settings()} | {"net.knobs"}
    assert set(FORMAT_1.values()) <= paths


def test_settings_are_described_with_the_choices_of_their_tables():
    described = {path: rest for path, *rest in settings()}
    assert "mixed_bfloat16" in described["precision"][3]
    assert described["loss.weights"][3] == ("none", "w1", "w2", "median", "voc07")
    assert described["optimizer.lr"][:2] == [float, 0.01]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("learning_rate=1", "no setting 'learning_rate'"),
        ("lr=1", r"no setting 'lr'. Did you mean optimizer.lr\?"),
        ("optimizer.learning_rate=1", "no setting 'optimizer.learning_rate'"),
        ("augment.flip=1", r"no setting 'augment.flip'. Did you mean augment.flip180"),
        ("loss=ce", "no setting 'loss'"),
        ("steps", "PART.NAME=VALUE"),
        ("steps=many", "steps is 'many'; it must be a whole number"),
        ("steps=true", "steps is True; it must be a whole number"),
        ("data.size=[64]", r"data.size is \[64\]; it must be 2 values"),
        ("data.pad=1", "data.pad is 1; it must be true or false"),
        ("net.knobs=3", "net.knobs is 3"),
        (
            "optimizer.name=lion",
            "optimizer.name is 'lion'; it must be one of sgd, adam",
        ),
        ("net.name=icent", "net.name is 'icent'; it must be one of icnet, segnet"),
        ("loss.name=foo", "loss.name is 'foo'; it must be one of ce, dice, focal"),
        ("net.preprocess=grey", "must be one of bgr_minus_mean"),
        ("loss.weights=w3", "loss.weights is 'w3'; it must be one of none, w1"),
        ("seed=4294967296", r"seed is 4294967296; it must be below 2\^32"),
        ("optimizer.momentum=1", "optimizer.momentum is 1.0; it must be below 1"),
        ("optimizer.lr=0", "optimizer.lr is 0.0; it must be above 0"),
        ("optimizer.lr_min=1", "at most the learning rate, 0.01"),
        ("optimizer.lr=NaN", "optimizer.lr is nan; it must be a finite number"),
        ("augment.noise=-1", "augment.noise is -1.0; it must be a finite number"),
        ("data.batch=0", "data.batch is 0; it must be at least 1"),
        ("augment.scale=[2, 1]", "a lowest and a highest factor"),
        ("augment.hue=0.6", "augment.hue is 0.6; it must be at most half a turn"),
        ("augment.contrast=1.1", "augment.contrast is 1.1; it must be at most 1"),
        ("data.crop=[0,4]", "data.crop is .*; it must be a height and a width"),
        ("optimizer.ema=1", "optimizer.ema is 1.0; it must be below 1"),
        ("augment.mirror=2", "augment.mirror is 2.0; it must be a probability"),
        ("augment.swap_lr=maybe", "augment.swap_lr is 'maybe'; it must be true or"),
        ("loss.weights=1,-2", "loss.weights is .* one finite number from 0 for each"),
        ("loss.weights=0,0", "loss.weights is .* not all of them 0"),
        ("loss.weights=1,w1", "loss.weights is '1,w1'; it must be one of none, w1"),
        ("validation.patience=0", "patience is 0; it must be at least 1"),
        ("extended=2,2", r"extended is \[2, 2\]; it must ascend .* below steps, 3"),
        ("extended=[3]", r"extended is \[3\]; it must ascend .* below steps, 3"),
    ],
)
def test_wrong_settings_are_named(text, words):
    with pytest.raises(UsageError, match=words):
        with_settings(text)


@pytest.mark.parametrize("text", ["1,2.5,0", "[1, 2.5, 0]"])
def test_class_weights_are_a_scheme_or_numbers(text):
    config = with_settings(f"loss.weights={text}")
    assert config.loss.weights == (1.0, 2.5, 0.0)
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config
    assert with_settings("loss.weights=w1").loss.weights == "w1"


def test_settings_that_contradict_each_other_are_named():
    with pytest.raises(UsageError, match="loss.weights is 'w1'.* 'dice' takes no cla"):
        with_settings("loss.name=dice", "loss.weights=w1")
    with pytest.raises(UsageError, match="loss.smoothing is 0.1.* not of focal"):
        with_settings("loss.name=focal", "loss.smoothing=0.1")
    with pytest.raises(UsageError, match="loss.plus is 'dice', which loss.name is"):
        with_settings("loss.name=dice", "loss.plus=dice")
    with pytest.raises(UsageError, match="augment.balance is 0.5, but nothing is crop"):
        with_settings("augment.balance=0.5")
    with pytest.raises(UsageError, match="bn_start is 3; .* multiple of validation.ev"):
        with_settings(
            "optimizer.bn_mode=full", "optimizer.bn_start=3", "validation.every=2"
        )


@pytest.mark.parametrize(
    ("part", "value"), [("data", 3), ("net", None), ("net", [1]), ("augment", True)]
)
def test_a_part_that_is_no_object_is_named(part, value):
    with pytest.raises(UsageError, match=f"^{part} is .* an object of settings"):
        from_dict(SMALL | {part: value})


@pytest.mark.parametrize("missing", ["net", "data", "steps"])
def test_a_missing_setting_is_named(missing):
    values = {key: value for key, value in SMALL.items() if key != missing}
    with pytest.raises(UsageError, match=f"setting {missing} is missing"):
        from_dict(values)
