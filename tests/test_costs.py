"""tools/costs.py: the arithmetic of its three measurements, and its limits.

What the processes would say is pretended; the figures themselves are of a machine.
"""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "tools" / "costs.py"


@pytest.fixture
def costs(monkeypatch):
    spec = importlib.util.spec_from_file_location("costs", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Worker:
    """Says what it is told to; `Worker.scripts` has the events of the next ones."""

    scripts: list[list[dict]] = []
    strict_seconds = 2.0

    def __init__(self, args=None, run=None, *options):
        self.loose, self.began = "--loose" in options, 100.0
        self.left = Worker.scripts.pop(0) if Worker.scripts else []
        self.process = self
        self.turns = 0

    def events(self, kind):
        while self.left:
            event = self.left.pop(0)
            if event["kind"] == kind:
                yield event

    def first(self, kind):
        return next(self.events(kind))

    def turn(self):
        self.turns += 1
        warm = 50.0 if self.turns <= 2 else 0.0  # turns that must not count
        return warm + (2.0 if self.loose else Worker.strict_seconds)

    def nothing(self):
        pass

    terminate = wait = stop = kill = start = nothing


def measure(costs, monkeypatch, tmp_path, capsys, only, scripts, *options):
    Worker.scripts = scripts
    monkeypatch.setattr(costs, "Worker", Worker)
    monkeypatch.setattr(costs, "PAUSE", 0.0)
    monkeypatch.setattr(costs.threading, "Timer", lambda *_: Worker())
    words = ["--data", "data", "--out", str(tmp_path / "out"), "--only", only]
    return costs.main([*words, *options]), capsys.readouterr().out.strip()


def save(at, seconds, folder="checkpoints"):
    return {"kind": "save", "at": at, "seconds": seconds, "folder": folder}


@pytest.mark.parametrize(("seconds", "exit_code"), [(0.3, 0), (0.9, 1)])
def test_saving_counts_what_comes_regularly(
    costs, monkeypatch, tmp_path, capsys, seconds, exit_code
):
    events = [{"kind": "step", "at": 10.0}, save(40.0, seconds)]
    events += [save(60.0, 0.5, "best"), save(90.0, seconds)]
    events += [save(95.0, 9.0, "best"), save(99.0, 9.0)]  # at the end: not regular
    scripts = [events]
    arguments = (costs, monkeypatch, tmp_path, capsys, "saving", scripts)
    found, line = measure(*arguments)
    share = {0.3: "0.75%", 0.9: "2.25%"}[seconds]  # 2 x 0.3 of 80 seconds
    assert f"{share} of the time: 2 checkpoints of {seconds:.2f} s in 80 s" in line
    assert "0.62% for 1 best weights" in line  # 0.5 of 80
    assert found == exit_code
    assert line.endswith("ABOVE") == bool(exit_code)


def test_saving_without_a_checkpoint_is_no_success(
    costs, monkeypatch, tmp_path, capsys
):
    scripts = [[{"kind": "step", "at": 10.0}, save(99.0, 0.1)]]
    arguments = (costs, monkeypatch, tmp_path, capsys, "saving", scripts)
    found, line = measure(*arguments)
    assert found == 1
    assert "more --seconds" in line


@pytest.mark.parametrize(("late", "exit_code"), [(109.0, 0), (123.0, 1)])
def test_resuming_is_compared_with_beginning(
    costs, monkeypatch, tmp_path, capsys, late, exit_code
):
    """Started at 100; the first step at 108, of the resumed run later."""
    times = [108.0, late, 108.0, late, 108.0, 160.0]
    scripts = [[{"kind": "step", "at": at}] for at in times]
    arguments = (costs, monkeypatch, tmp_path, capsys, "resuming", scripts)
    found, line = measure(*arguments)
    assert f"{late - 108:+.1f} s ({late - 108:+.1f} to +52.0 in 3 pairs" in line
    assert "start-up 8.0 s" in line
    assert found == exit_code


@pytest.mark.parametrize(("strict", "exit_code"), [(2.08, 0), (2.12, 1)])
def test_determinism_is_a_ratio_of_turns(
    costs, monkeypatch, tmp_path, capsys, strict, exit_code
):
    Worker.strict_seconds = strict
    scripts = [[{"kind": "turn", "seconds": 90.0}] for _ in range(2)]
    arguments = (costs, monkeypatch, tmp_path, capsys, "determinism", scripts)
    found, line = measure(*arguments, "--turns", "3")
    assert f"{strict / 2:.3f} times" in line
    assert "in 3 pairs" in line
    assert found == exit_code
