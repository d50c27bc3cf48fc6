"""ablations/run.py as a user meets it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from keras_seg import command_line, storage, study

RUN = Path(__file__).resolve().parents[1] / "ablations" / "run.py"


def call(*arguments, cwd=None):
    command = [sys.executable, str(RUN), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


def call_here(*arguments):
    return command_line.run(study.main, [str(argument) for argument in arguments])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--stage", "all", "--scale", "huge"], ["--scale", "huge", "smoke"]),
        (["--stage", "all", "--data", "nowhere"], ["nowhere"]),
        (["--stage", "all", "--out", ""], ["--out", "name a folder"]),
        (["--stage", "all", "--out", "FILE"], ["--out FILE", "is a file"]),
        (["--stage", "all", "--size", "100", "128"], ["icnet", "128 x 128"]),
    ],
    ids=lambda value: " ".join(value[-2:]),
)
def test_wrong_use_is_one_line_and_exit_code_2(
    options, words, shapes, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("FILE").write_text("")
    assert call_here("--net", "icnet", "--data", shapes, *options) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    (line,) = errors.splitlines()
    assert line.startswith("error: ")
    assert all(word in line for word in words)
    assert [entry.name for entry in tmp_path.iterdir()] == ["FILE"]


def test_a_study_that_another_process_runs_is_left_alone(shapes, tmp_path, capsys):
    folder = tmp_path / "out" / "body_parts" / "icnet"
    with storage.lock(folder):
        arguments = ("--net", "icnet", "--stage", "filters", "--data", shapes)
        assert call_here(*arguments, "--size", 32, 64, "--out", tmp_path / "out") == 75
        assert [entry.name for entry in folder.iterdir()] == [".lock"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: Another process is working on ")


@pytest.mark.usefixtures("_plain_runs")
def test_a_stage_from_any_directory_and_again(shapes, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["--net", "segnet_basic", "--stage", "final", "--scale", "smoke"]
    arguments += ["--data", shapes, "--size", "16", "32", "--out", "out"]
    arguments += ["--threads", 2]
    assert call_here(*arguments) == 0
    assert "<- winner" in capsys.readouterr().out
    folder = tmp_path / "out" / "body_parts" / "segnet_basic"
    for name in ("report.html", "report.md", "tables/final.csv", "journal.jsonl"):
        assert (folder / name).is_file(), name
    assert (folder / "final" / "winner.json").is_file()
    run = folder / "final" / "winner" / "seed0"
    evaluated = json.loads((run / "evaluation" / "test-full-size.json").read_text())
    assert evaluated["images"] == 3
    assert (run / "export" / "saved_model" / "saved_model.pb").is_file()
    table = (folder / "tables" / "final.csv").read_bytes()
    again = call(*arguments, cwd=tmp_path)
    assert again.returncode == 0
    assert "1 of 1 runs are done" in again.stderr
    # Nothing of TensorFlow's own, although asking for a size builds networks
    assert not re.search("oneDNN|absl|cuda|TF_", again.stderr)
    assert (folder / "tables" / "final.csv").read_bytes() == table
