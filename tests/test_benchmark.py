"""keras-seg benchmark: its statistics, its tables, what it refuses, equal work."""

import json
import sys
import time

import numpy as np
import pytest

from keras_seg import command_line
from keras_seg.config import Config
from keras_seg.runs.benchmark import command, report
from keras_seg.runs.benchmark.contestant import Contestant, FailedError

GIB = 1 << 30


def test_a_ratio_is_the_median_of_the_rounds_own_to_the_better_peer():
    """Of all medians, 30 / 16 would be 1.88; of the rounds 3, 1.5 and 2."""
    rows = {
        "keras_seg": {"rates": [30.0, 15.0, 40.0], "bytes": 3 * GIB // 2},
        "PyTorch NCHW": {"rates": [15.0, 1.0, 1.0], "bytes": GIB},  # the fastest once
        "PyTorch channels_last": {"rates": [10.0, 10.0, 20.0], "bytes": GIB},
        "PyTorch bfloat16 NCHW": {"rates": [90.0, 90.0, 90.0], "bytes": GIB},
        "keras_seg bfloat16": {"rates": [45.0, 45.0, 9.0], "bytes": GIB},
    }
    head, _, *lines = report.table("images a second", rows)
    assert head == "| | images a second | against the better PyTorch | GiB |"
    assert lines[0] == "| keras_seg | 30 (15 to 40) | 2 (1.5 to 3) | 1.50 |"
    assert lines[1] == "| PyTorch NCHW | 1 (1 to 15) |  | 1.00 |"
    assert lines[4] == "| keras_seg bfloat16 | 45 (9 to 45) | 0.5 (0.1 to 0.5) | 1.00 |"


def test_the_ratio_of_seconds_is_the_peers_to_ours():
    rows = {
        "keras_seg": {"seconds": [4.0, 5.0]},
        "PyTorch NCHW": {"seconds": [8.0, 2.5]},
        "PyTorch channels_last": {"seconds": [80.0, 80.0]},
        "keras-seg --help": {"seconds": [0.1234, 0.1234]},
    }
    lines = list(report.table("seconds", rows))[2:]
    assert lines[0] == "| keras_seg | 4.5 (4 to 5) | 1.25 (0.5 to 2) |"
    assert lines[3] == "| keras-seg --help | 0.123 (0.123 to 0.123) |  |"


def test_without_pytorch_there_is_no_ratio():
    rows = {"keras_seg": {"rates": [120.4]}}
    assert list(report.table("", rows))[2] == "| keras_seg | 120 (120 to 120) |  |"


class Measured:
    """Stands in for `command.measure`: counts, and gives a part."""

    def __init__(self, monkeypatch):
        self.names = []
        monkeypatch.setattr(command, "measure", self)
        monkeypatch.setattr(command, "described", lambda: {"processor": "A"})
        parts = {"icnet-128": command.CASES["icnet-128"], "loader": None}
        monkeypatch.setattr(command, "PARTS", tuple(parts))

    def __call__(self, name, args, folder):
        self.names.append(name)
        rates = {"keras_seg": {"rates": [float(len(self.names))]}}
        part = {"net": "icnet", "size": (128, 96), "batch": 2, "train": rates}
        return part | {"notes": ["bfloat16 is left out."]}


def run(*words) -> int:
    return command_line.run(command.main, [str(word) for word in words])


def test_parts_are_measured_once_and_kept_in_one_file(monkeypatch, tmp_path):
    measured, out = Measured(monkeypatch), tmp_path / "new" / "speed.md"
    assert run("--out", out, "--only", "loader") == 0
    assert run("--out", out) == 0
    assert measured.names == ["loader", "icnet-128"]
    text = out.read_text()
    assert "* processor: A" in text
    assert text.count("## icnet, 128x96 px, batch 2") == 2
    assert "| keras_seg | 2 (2 to 2) |" in text
    assert f"`keras-seg benchmark --out {out} --only loader`" in text
    assert "* bfloat16 is left out." in text
    assert run("--out", out, "--only", "loader") == 0
    assert measured.names[2:] == ["loader"]
    parts = json.loads((tmp_path / "new" / "speed.json").read_text())["parts"]
    assert parts["loader"]["train"]["keras_seg"]["rates"] == [3.0]


def test_what_another_machine_measured_is_refused(monkeypatch, tmp_path, capsys):
    measured, out = Measured(monkeypatch), tmp_path / "speed.md"
    assert run("--out", out, "--only", "loader") == 0
    before = out.read_bytes()
    monkeypatch.setattr(command, "described", lambda: {"processor": "B"})
    capsys.readouterr()
    assert run("--out", out) == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path / 'speed.json'} was measured with processor A, but here it "
        "is B. Name another file with --out.\n"
    )
    assert (measured.names, out.read_bytes()) == (["loader"], before)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--only", "icnet"], "invalid choice: 'icnet' (choose from"),
        (["--out", "a.json"], "--out a.json is for the tables; name a .md file."),
        (["--compiled"], "--compiled needs a C++ compiler (g++ or clang++), which"),
        (["--rounds", "0"], "'0' must be a whole number of at least 1"),
    ],
)
def test_wrong_use_is_one_sentence(words, sentence, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(command.shutil, "which", lambda name: None)
    assert run(*words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line
    assert not list(tmp_path.iterdir())


def test_what_is_left_out_is_said(monkeypatch):
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name: None)
    ways, (sentence,) = command.torch_ways(False)
    assert ways == {}
    assert "not installed (pip install 'keras_seg[peers]')" in sentence
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(command, "compiler", lambda: "g++")
    ways, notes = command.torch_ways(True)
    assert [*ways] == ["NCHW", "channels_last"] + [
        "compiled NCHW",
        "compiled channels_last",
    ]
    assert notes == []
    monkeypatch.setattr(command, "compiler", lambda: None)
    ways, (sentence,) = command.torch_ways(False)
    assert len(ways) == 2
    assert "there is no C++ compiler" in sentence


class StandIn:
    """A contestant of so many seconds a step, which fails in its turn `fails`."""

    memory = 7

    def __init__(self, seconds, turns, fails=None):
        self.seconds, self.turns, self.fails, self.count = seconds, turns, fails, 0

    def turn(self, what, steps):
        self.count += 1
        if self.count == self.fails:
            raise FailedError("MemoryError: none left")
        self.turns.append((self.seconds, what, steps))
        return self.seconds

    def stop(self):
        self.turns.append("stopped")


def test_contestants_take_turns_of_about_a_second_in_changing_order(tmp_path):
    group = command.Group(tmp_path, rounds=2, seconds=1)
    turns = []
    group.members = {
        "fast": StandIn(0.25, turns),
        "long": StandIn(3.0, turns),
        "weak": StandIn(0.5, turns, fails=3),
    }
    what = {"fast": "train", "long": "train", "weak": "predict"}
    found = group.take_turns(what, images=6)
    assert found["fast"] == {"rates": [24.0, 24.0], "bytes": 7}
    assert found["long"]["rates"] == [2.0, 2.0]
    assert turns[:2] == [(0.25, "train", 1), (0.25, "train", 4)]  # they settle
    # In the first round the weak one fails; the second one is in reverse
    assert turns[5:] == [
        (0.25, "train", 4),
        (3.0, "train", 1),
        (3.0, "train", 1),
        (0.25, "train", 4),
    ]
    assert "weak" not in found
    assert group.notes == ["weak is left out: MemoryError: none left"]


def test_a_process_that_cannot_take_part_says_why(tmp_path):
    with pytest.raises(FailedError, match="KeyError: 'nothing'"):
        Contestant({"kind": "nothing"}, tmp_path / "log")


def test_a_process_ends_with_what_it_started(tmp_path, monkeypatch):
    """OpenVINO forks a process that outlives a conversion and holds its pipes."""
    code = (
        "import subprocess, sys; subprocess.Popen(['sleep', '60']); print('{}', flush"
    )
    code += "=True); sys.stdin.read()"
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    one = Contestant({}, tmp_path / "log")
    began = time.monotonic()
    one.stop()
    assert time.monotonic() - began < 20


MINIATURE = Config(
    net={"name": "hourglass", "features": 8, "stem": 4, "stacks": 1, "depth": 1},
    data={"size": (16, 24), "batch": 2},
    optimizer={"lr": 0.05, "momentum": 0.9, "schedule": "constant"},
    steps=10,
)


@pytest.mark.slow
@pytest.mark.peers
@pytest.mark.parametrize("is_channels_last", [False, True])
def test_both_train_and_predict_the_same(is_channels_last):
    """Equal weights after two steps from equal ones: nobody does less."""
    pytest.importorskip("torch")
    from keras_seg.runs.benchmark import ours, theirs

    network, _ = ours.built(MINIATURE, 5, 2)
    weights = ours.settle(network)  # no weight is 0 or 1
    mine = ours.Ours(MINIATURE, network, 5)
    way = theirs.Way(False, is_channels_last)
    peer = theirs.Theirs(MINIATURE, weights, 5, way, network.preprocess)
    np.testing.assert_allclose(
        peer.image.numpy().transpose(0, 2, 3, 1), mine.batch[0], rtol=0, atol=1e-6
    )
    peer.module.eval()
    logits = peer.infer(peer.image).detach().numpy().transpose(0, 2, 3, 1)
    expected = np.asarray(mine.infer(mine.batch[0])["logits"])
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)
    served = peer.serve(peer.pixels)
    mine_served = ours.serve(network, np.asarray(peer.pixels))
    assert (served[0].numpy() == mine_served[0]).mean() > 0.99
    probabilities = served[1].detach().numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(mine_served[1].sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(mine_served[1], probabilities, rtol=0, atol=1e-4)
    assert mine.train(0) >= 0  # two steps, before those that count
    assert peer.train(1) > 0
    trained = {one.path: one for one in mine.net.trainable_weights}
    moved = 0.0
    for path, weight in trained.items():
        value = getattr(peer.module, path.replace("/", "__")).detach().numpy()
        if value.ndim == 4:
            value = value.transpose(2, 3, 1, 0)
        np.testing.assert_allclose(value, weight, rtol=0, atol=2e-4, err_msg=path)
        moved = max(moved, float(np.abs(value - weights[path]).max()))
    assert moved > 0.01  # far beyond that tolerance


@pytest.mark.peers
def test_pytorchs_loader_moves_image_and_label_together():
    pytest.importorskip("torch")
    from keras_seg.runs.benchmark import theirs

    label = np.kron(np.arange(12).reshape(1, 3, 4), np.ones((1, 16, 16)))
    label = label.astype(np.uint8)
    image = np.repeat(20 * label[..., None], 3, axis=-1)  # a level for each id
    batches = theirs.loader(image, label, batch=1, workers=1)
    for _ in range(4):
        found, ids = (one.numpy()[0] for one in next(batches))
        level = (found[0] + 120) / 20
        inside = ids != 255
        # Bilinear and nearest differ at the borders of the patches alone
        assert (np.abs(level - ids)[inside] < 0.1).mean() > 0.7
    batches.close()
