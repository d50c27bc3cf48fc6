"""ablations/run.py as a user meets it."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from keras_seg import storage

ROOT = Path(__file__).resolve().parents[1]
RUN = ROOT / "ablations" / "run.py"


def call(script, *arguments, cwd=None):
    command = [sys.executable, str(script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--net", "icnet"], "error: --stage: missing; expected a stage"),
        (
            ["--net", "lenet", "--stage", "weighting"],
            "error: net: lenet; expected one of attention_unet, ",
        ),
        (
            ["--net", "icnet", "--stage", "colour"],
            "error: stage: colour; expected one of search, filters, augment,",
        ),
        (
            ["--study", "cats", "--stage", "all"],
            "error: study: cats; expected one of attention_fcn, body_parts, ",
        ),
        (
            ["--net", "icnet", "--stage", "all", "--data", "nowhere"],
            "nowhere; expected",
        ),
        (
            ["--net", "icnet", "--stage", "all", "--scale", "huge"],
            "error: --scale: huge; expected one of smoke, demo, bench, paper",
        ),
        (
            ["--net", "icnet", "--stage", "all", "--data", "SHAPES"]
            + ["--size", "100", "128"],
            "size for icnet: 100 x 128; expected multiples of 32, next 128 x 128",
        ),
        (
            ["--net", "icnet", "--stage", "all", "--data", "SHAPES", "--out", "FILE"],
            "error: --out: FILE; expected a folder, but ",
        ),
        (
            ["--net", "icnet", "--stage", "filters", "--data", "SHAPES"]
            + ["--winner", "w1_outer"],
            "error: winner: w1_outer; expected an arm of an earlier stage",
        ),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else None,
)
def test_wrong_use_is_one_line_and_exit_code_2(arguments, line, shapes, tmp_path):
    (tmp_path / "FILE").write_text("")
    arguments = [str(shapes) if a == "SHAPES" else a for a in arguments]
    began = time.monotonic()
    done = call(RUN, *arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert line in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    assert [entry.name for entry in tmp_path.iterdir()] == ["FILE"]
    assert time.monotonic() - began < 30  # 5 s on a machine that is not busy


def test_a_study_that_another_process_runs_is_left_alone(shapes, tmp_path):
    folder = tmp_path / "out" / "body_parts" / "icnet"
    with storage.lock(folder):
        arguments = ("--net", "icnet", "--stage", "filters", "--data", shapes)
        began = time.monotonic()
        done = call(RUN, *arguments, "--size", 32, 64, "--out", "out", cwd=tmp_path)
        assert time.monotonic() - began < 30  # 5 s on a machine that is not busy
        assert [entry.name for entry in folder.iterdir()] == [".lock"]
    assert done.returncode == 75, done.stderr
    assert done.stderr.startswith("error: output folder: ")
    assert len(done.stderr.splitlines()) == 1


def test_list_and_plan_need_no_data(tmp_path):
    listed = call(RUN, "--list", cwd=tmp_path)
    assert listed.returncode == 0
    assert "--net icnet --stage weighting" in listed.stdout
    assert "(published mIoU 38.2 %, mean class accuracy 48.7 %)" in listed.stdout
    arguments = ("--net", "icnet", "--stage", "all", "--scale", "paper", "--plan")
    planned = call(RUN, *arguments, cwd=tmp_path)
    assert planned.returncode == 0
    arms = dict(
        line.strip().split(": ", 1)
        for line in planned.stdout.splitlines()
        if line.startswith("  ")
    )
    weighted = json.loads(arms["w2_direct"])
    # Spec 7.1, row by row.
    assert weighted["batch"] == 64
    assert weighted["lr"] == 0.01
    assert weighted["schedule"] == "poly"
    assert weighted["poly_power"] == 0.9
    assert (weighted["optimizer"], weighted["momentum"]) == ("sgd", 0.9)
    assert (weighted["weight_decay"], weighted["decay_on"]) == (1e-4, "kernels")
    assert (weighted["steps"], weighted["bn_start"]) == (40_000, 20_000)
    assert weighted["val_every"] == 200
    assert weighted["size"] == [320, 320]
    assert weighted["class_weights"] == "w2"
    assert weighted["strategy"] == "direct"
    longest = json.loads(arms["winner"])
    assert (longest["steps"], longest["bn_start"]) == (90_000, 20_000)


def test_a_stage_from_any_directory_and_again(shapes, tmp_path):
    arguments = ("--net", "icnet", "--stage", "final", "--scale", "smoke")
    arguments += ("--data", shapes, "--size", "32", "64", "--out", "out")
    done = call(RUN, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "out" / "body_parts" / "icnet"
    for name in ("report.html", "report.md", "tables/final.csv", "journal.jsonl"):
        assert (folder / name).is_file(), name
    assert (folder / "final" / "winner.json").is_file()
    run = folder / "final" / "winner" / "seed0"
    evaluated = run / "evaluation" / "test-full-size.json"
    assert json.loads(evaluated.read_text())["images"] == 3
    assert "<- winner" in done.stdout
    table = (folder / "tables" / "final.csv").read_bytes()
    again = call(RUN, *arguments, cwd=tmp_path)
    assert again.returncode == 0
    assert "1 of 1 runs are done" in again.stderr
    assert (folder / "tables" / "final.csv").read_bytes() == table
