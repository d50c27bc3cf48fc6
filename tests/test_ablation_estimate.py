"""Estimated times: arithmetic by hand, a table that knows every arm of every study."""

import json
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from keras_seg import study
from keras_seg.ablation import estimate, runner
from keras_seg.config import Config
from keras_seg.data.prepared import open_prepared
from keras_seg.errors import KerasSegError, UsageError

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


# A budget


class Timing:
    """Stands in for `python -m keras_seg.runs.speed`."""

    def __init__(self, folder, found=None, exit_code=0):
        self.folder, self.exit_code, self.timed = folder, exit_code, []
        self.found = found or {"step": 0.5, "validation": 1.0, "start": 4.0}

    def __call__(self, words):
        options = dict(zip(words[2::2], words[3::2]))
        self.timed.append(json.loads(Path(options["--config"]).read_text()))
        if self.exit_code == 0:
            Path(options["--out"]).write_text(json.dumps(self.found))
        return self

    def wait(self):
        return self.exit_code

    def terminate(self):
        pass


def steps_within(budget, timing, prepared, arms, **more):
    return estimate.budget_steps(
        budget,
        arms[0],
        arms,
        prepared,
        timing.folder,
        trainings=2,
        validations=10,
        threads=None,
        launch=timing,
        **{"every": None, **more},
    )


@pytest.fixture
def arms():
    base = Config(net="icnet", data={"size": (32, 64)}, steps=1)
    return [base, base.changed(loss={"weights": "w1"})]


def test_all_arms_get_the_steps_that_fit(arms, shapes, tmp_path, monkeypatch):
    """Four runs of 4 + 11 + 8 s and half a second a step; a tenth is kept back.

    (0.9 x 200 - 4 x 23) / 2 = 44, and 1000 s give 404, rounded down to two digits.
    """
    monkeypatch.setattr(estimate.time, "monotonic", lambda: 0.0)
    timing, prepared = Timing(tmp_path), open_prepared(shapes)
    assert steps_within(200.0, timing, prepared, arms) == (
        44,
        180.0,
    )
    assert len(timing.timed) == 1  # weights change nothing in how long a step takes
    # The record is what counts from then on, whatever the machine does.
    assert steps_within(200.0, Timing(tmp_path, {}), prepared, arms)[0] == 44
    assert steps_within(1000.0, timing, prepared, arms)[0] == 400
    wide = arms[0].changed(net={"filter_scale": 2})
    steps_within(200.0, timing, prepared, [*arms, wide], anew=True)
    scales = [config["net"]["filter_scale"] for config in timing.timed]
    assert scales == [1, 1, 1, 2]
    assert [file.name for file in tmp_path.iterdir()] == [estimate.RECORD]


def test_validations_after_so_many_steps_take_their_time(
    arms, shapes, tmp_path, monkeypatch
):
    """Four runs of 4 + 8 s, and a second for each validation, the last score included.

    44 steps: 22 s, 9 validations and a score, 4 x (12 + 22 + 10) = 176 of the 180 s;
    with 45 to 49 steps there are as many, and 50 take 188 s.
    """
    monkeypatch.setattr(estimate.time, "monotonic", lambda: 0.0)
    timing, prepared = Timing(tmp_path), open_prepared(shapes)
    steps, seconds = steps_within(200.0, timing, prepared, arms, every=5)
    assert 40 <= steps <= 46
    assert 4 * (12 + steps / 2 + math.ceil(steps / 5) + 1) <= seconds <= 180
    assert steps_within(200.0, timing, prepared, arms, every=7)[0] > steps


def test_shards_that_begin_together_have_the_same_steps(arms, shapes, tmp_path, capsys):
    prepared, begun = open_prepared(shapes), threading.Event()

    class Slow(Timing):
        def wait(self):
            begun.set()
            end = time.monotonic() + 60
            while "waiting for the process" not in capsys.readouterr().err:
                assert time.monotonic() < end
                time.sleep(0.01)
            return super().wait()

    first = Slow(tmp_path)
    second = Timing(tmp_path, {"step": 5.0, "validation": 1.0, "start": 4.0})
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(steps_within, 200.0, first, prepared, arms)
        assert begun.wait(60)
        found = steps_within(200.0, second, prepared, arms)
        assert found == future.result(60)
    assert second.timed == []


def test_a_budget_that_is_too_short_is_refused(arms, shapes, tmp_path):
    prepared = open_prepared(shapes)
    with pytest.raises(
        UsageError, match="--budget 1 min 30 s is too short: 4 runs need"
    ):
        steps_within(90.0, Timing(tmp_path), prepared, arms)
    with pytest.raises(KerasSegError, match="network icnet cannot be timed") as caught:
        steps_within(90.0, Timing(tmp_path, exit_code=3), prepared, arms)
    assert caught.value.exit_code == 3
    assert list(tmp_path.iterdir()) == []
