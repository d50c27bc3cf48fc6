"""Configurations: a round trip through JSON, and what is refused by name."""

import json

import pytest

from keras_seg.config import Augment, Config, from_dict, to_dict
from keras_seg.errors import UsageError

SMALL = {"net": "icnet", "size": [64, 96], "steps": 3}


def test_a_round_trip_through_json_gives_the_same_configuration():
    config = Config(
        net="hourglass",
        size=(64, 96),
        steps=7,
        knobs={"stacks": 2, "targets": "hierarchy", "bins": (1, 2)},
        augment=Augment(mirror=0.5, scale=(0.5, 2.0)),
        val_samples=4,
    )
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


def test_a_whole_number_is_taken_where_a_fraction_belongs():
    lr = from_dict(SMALL | {"lr": 1}).lr
    assert lr == 1.0
    assert isinstance(lr, float)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"learning_rate": 1}, r"setting learning_rate: 1; expected one of net, size"),
        ({"augment": {"flip": 1}}, r"setting augment.flip: 1; expected one of mirror"),
        ({"steps": "many"}, r"setting steps: many; expected int"),
        ({"steps": True}, r"setting steps: True; expected int"),
        ({"size": [64]}, r"setting size: \[64\]; expected 2 values"),
        ({"knobs": 3}, r"setting knobs: 3; expected an object"),
        ({"optimizer": "lion"}, r"optimizer: lion; expected one of sgd, adam"),
        ({"preprocess": "grey"}, r"preprocess: grey; expected one of bgr_minus_"),
        ({"seed": 2**32}, r"seed: 4294967296; expected a whole number below 2\^32"),
        ({"momentum": 1}, r"momentum: 1.0; expected a number below 1"),
        ({"lr": 0}, r"lr: 0; expected a number above 0"),
        ({"lr_min": 1}, r"lr_min: 1.0; expected at most lr, 0.01"),
        ({"augment": {"noise": -1}}, r"augment.noise: -1.0; expected a finite number"),
        ({"batch": 0}, r"batch: 0; expected at least 1"),
        ({"lr": float("nan")}, r"lr: nan; expected a finite number from 0"),
        ({"augment": {"scale": [2, 1]}}, r"augment.scale: \(2.0, 1.0\); expected 0 <"),
        ({"augment": {"mirror": 2}}, r"augment.mirror: 2.0; expected a probability"),
        (
            {"bn_mode": "full", "bn_start": 3, "val_every": 2},
            r"bn_start: 3; expected a multiple of val_every 2",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_wrong_settings_are_refused_by_name(changes, line):
    with pytest.raises(UsageError, match=line):
        from_dict(SMALL | changes)


def test_a_missing_setting_is_named():
    with pytest.raises(UsageError, match="setting steps: missing"):
        from_dict({"net": "icnet", "size": [64, 64]})
