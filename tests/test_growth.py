"""tools/growth.py: the powers it states, and the folder that it opens."""

import sys
from pathlib import Path

import pytest

from keras_seg.data.prepared import open_prepared
from keras_seg.errors import UsageError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
import growth


def row(varies, value, seconds, mib):
    return {"net": "icnet", "varies": varies, "value": value, "seconds": seconds} | {
        "start_seconds": 9.0,
        "mib": mib,
    }


ROWS = [
    row("side", 64, 0.5, 100),
    row("side", 128, 2.0, 200),  # four times: the power 2 of a side
    row("side", 256, 4.0, 200),
    row("batch", 8, 1.0, 50),
    row("batch", 1, 1.0, 50),
    row("width", 1, 1.0, 50),
    row("images", 1000, 0.1, 10),
    row("images", 10000, 1.0, 100),
]


def test_by_which_power_a_cost_grows():
    found = [growth.growth(ROWS, number, "seconds") for number in range(4)]
    assert found == [None, pytest.approx(2.0), pytest.approx(1.0), None]
    lines = growth.table(ROWS)
    assert lines[2] == "| side | 64 | 0.5 |  | 100 |  |"
    assert lines[3] == "| side | 128 | 2 | 2.00 | 200 | 1.00 |"
    assert lines[-1] == "| images | 10,000 | 1 | 1.00 | 100 | 1.00 |"


def test_every_axis_is_drawn():
    drawn = growth.figure(ROWS)
    measured = [axes.lines[1] for axes in drawn.axes]
    assert [list(line.get_ydata()) for line in measured] == [
        [0.5, 2.0, 4.0],
        [1.0, 1.0],
        [1.0],
        [0.1, 1.0],
    ]
    proportional = drawn.axes[0].lines[0].get_ydata()
    assert list(proportional) == [0.25, 1.0, 4.0]


def test_the_folder_that_is_opened_is_a_prepared_one(tmp_path):
    growth.make_folder(tmp_path, 30)
    prepared = open_prepared(tmp_path)
    assert [len(prepared.samples(split)) for split in ("train", "val")] == [27, 3]
    found = growth.opened("icnet", "images", 40)
    assert found["seconds"] > 0


def test_one_thing_varies():
    config = growth.config_of("icnet", "width", 2)
    assert (config.net.filter_scale, config.data.size) == (2, (128, 128))
    config = growth.config_of("icnet", "side", 320)
    assert (config.net.filter_scale, config.data.size) == (1, (320, 320))
    assert growth.is_middle("batch", 8)
    assert not growth.is_middle("batch", 16)


def test_a_file_of_another_network_is_refused(tmp_path):
    file = tmp_path / "growth.csv"
    growth.storage.write_table(file, ROWS)
    assert growth.read(file, "icnet") == ROWS
    with pytest.raises(UsageError, match="is of icnet"):
        growth.read(file, "unet")
