"""The command: what appears on disk, again and again, and what is refused."""

import hashlib
import json
import os
import subprocess
import sys

import pytest

from keras_seg import command_line
from keras_seg.errors import LockedError, UsageError
from keras_seg.synthetic import __main__ as command
from keras_seg.synthetic import generate as generation
from keras_seg.synthetic.generate import Settings, generate


def digests(root):
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    out = tmp_path_factory.mktemp("raw")
    generate(out, (2, 1, 1), Settings(seed=7, frames=1), workers=2)
    return out


def test_tree_is_surreals(raw):
    folders = sorted(str(p.relative_to(raw)) for p in (raw / "cmu").glob("*/*/*"))
    assert [f.split("_")[0] for f in folders] == [
        "cmu/test/run0/test00000",
        "cmu/train/run0/train00000",
        "cmu/train/run0/train00001",
        "cmu/val/run0/val00000",
    ]
    for folder in folders:
        name = folder.split("/")[-1]
        files = {path.name for path in (raw / folder).iterdir()}
        ends = (".mp4", "_segm.mat", "_segmclean.mat", "_info.mat")
        assert files == {f"{name}_c0001{end}" for end in ends}


def test_bytes_do_not_depend_on_the_workers(raw, tmp_path):
    generate(tmp_path, (2, 1, 1), Settings(seed=7, frames=1), workers=1)
    assert digests(tmp_path) == digests(raw)


def test_an_interrupted_run_is_completed(raw, tmp_path):
    settings = Settings(seed=7, frames=1)
    generate(tmp_path, (1, 0, 0), settings)
    kept = next((tmp_path / "cmu/train/run0").iterdir())
    stamp = kept.stat().st_mtime_ns
    broken = tmp_path / "cmu/train/run0" / f"{generation.PARTIAL}train00001"
    broken.mkdir()
    (broken / "half.mp4").write_bytes(b"half")
    counted = []
    generate(tmp_path, (2, 1, 1), settings, done=counted.append)
    assert kept.stat().st_mtime_ns == stamp
    assert sum(counted) == 4
    assert digests(tmp_path) == digests(raw)


def test_other_settings_are_refused(raw):
    with pytest.raises(UsageError, match="frames of .*: 2; expected 1"):
        generate(raw, (2, 1, 1), Settings(seed=7, frames=2))
    with pytest.raises(UsageError, match="seed of .*: 8; expected 7"):
        generate(raw, (2, 1, 1), Settings(seed=8, frames=1))
    with pytest.raises(UsageError, match="1 for train; expected at least the 2"):
        generate(raw, (1, 1, 1), Settings(seed=7, frames=1))


def test_a_failure_leaves_no_half_clip(tmp_path, monkeypatch):
    from keras_seg.synthetic import writer

    def no_room(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer, "write_video", no_room)
    with pytest.raises(OSError, match="No space"):
        generate(tmp_path, (1, 0, 0), Settings(frames=1))
    assert list((tmp_path / "cmu/train/run0").iterdir()) == []


def test_one_writer_at_a_time(tmp_path):
    with generation._locked(tmp_path), pytest.raises(LockedError):
        generate(tmp_path, (1, 0, 0), Settings())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--clips", "1", "1", "x"], "--clips: x; expected a whole number"),
        (["--clips", "1", "1"], "--clips: too few values; expected 3"),
        (["--clips", "0", "0", "0"], "--clips: 0 0 0; expected at least one clip"),
        (["--clips", "1", "0", "-1"], "--clips: -1; expected a whole number"),
        (["--clips", "1", "0", "0", "--frames", "0"], "--frames: 0; expected"),
        (["--clips", "1", "0", "0", "--frames", "9999"], "--frames: 9999; expected"),
        (["--clips", "1", "0", "0", "--workers", "0"], "--workers: 0; expected"),
        (["--clips", "1", "0", "0", "--seed", "a"], "--seed: a; expected"),
        (["--clips", "999999", "0", "0"], "--clips: 999999; expected at most"),
    ],
)
def test_bad_arguments_are_one_line(tmp_path, capsys, arguments, message):
    out = tmp_path / "raw"
    assert command_line.run(command.main, ["--out", str(out), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1
    assert not out.exists()


def test_out_must_be_a_folder(tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("")
    arguments = ["--out", str(file), "--clips", "1", "0", "0"]
    assert command_line.run(command.main, arguments) == 2
    assert "expected a folder" in capsys.readouterr().err


def test_damaged_settings_are_named(tmp_path):
    from keras_seg.errors import DataError

    (tmp_path / generation.SETTINGS_FILE).write_text("{")
    with pytest.raises(DataError, match=generation.SETTINGS_FILE):
        generate(tmp_path, (1, 0, 0), Settings())


def test_the_command_runs_as_a_module(tmp_path):
    command = [sys.executable, "-m", "keras_seg.synthetic", "--out", str(tmp_path)]
    command += ["--clips", "1", "0", "0", "--frames", "1", "--workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert "synthetic humans: 1/1 frames" in done.stderr
    settings = json.loads((tmp_path / generation.SETTINGS_FILE).read_text())
    assert settings["frames"] == 1
    assert settings["seed"] == 0
