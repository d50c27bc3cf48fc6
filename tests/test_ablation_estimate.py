"""Estimated times: arithmetic by hand, a table that knows every arm of every study."""

import json
import math

import pytest

from keras_seg import study
from keras_seg.ablation import estimate, runner
from keras_seg.config import Config

BASE = Config(
    net="icnet",
    data={"size": (100, 200), "batch": 4},
    validation={"every": 4},
    steps=10,
)


def test_seconds_by_hand():
    costs = {("icnet", 1, "{}"): 30.0}  # GFLOP per million pixels: 0.6 an image
    # 10 steps x 4 images x 3 passes, 3 validations x 8 images, 8 images at the end:
    # 152 passes, 91.2 GFLOP at 0.6 x 20 GFLOP/s.
    found = estimate.seconds(BASE, 8, costs, speed=20.0)
    assert found == pytest.approx(20 + 91.2 / 12)
    assert math.isnan(estimate.seconds(BASE, 8, {}, speed=20.0))
    # Half of each image in training: half of the steps' work
    steps = estimate.seconds(BASE, 0, costs, speed=20.0) - 20
    height, width = BASE.data.size
    crops = BASE.changed(data={"crop": (height // 2, width)})
    found = estimate.seconds(crops, 0, costs, speed=20.0)
    assert found == pytest.approx(20 + steps / 2)


def test_speed_of_this_machine():
    assert 1 < estimate.machine_speed() < 1e5  # GFLOP/s


def test_the_table_knows_every_arm_of_every_study():
    known = estimate.read_costs(study.COSTS)
    configs = runner.planned_configs(map(study.load, study.names()))
    missing = {estimate.cost_key(config) for config in configs} - known.keys()
    assert not missing, "python tools/summary.py --costs > ablations/costs.csv"


def test_the_table_has_the_published_operations():
    # Counted by hand at 320 x 320: ICNet 2.86 GFLOP, SegNet-basic 70.3
    known = estimate.read_costs(study.COSTS)
    for net, gflop in (("icnet", 2.86), ("segnet_basic", 70.3)):
        per_image = known[net, 1, json.dumps({})] * 320 * 320 / 1e6
        assert per_image == pytest.approx(gflop, rel=0.005)
