"""The command: its files, resuming and errors."""

import json
import re
import subprocess
import sys

import pytest

from keras_seg import command_line, storage
from keras_seg.errors import DataError, LockedError, StorageError, UsageError
from keras_seg.synthetic import __main__ as command
from keras_seg.synthetic import writer
from keras_seg.synthetic.generate import SETTINGS_FILE, Settings, generate

COUNTS = (2, 1, 1)


def digests(root):
    return {
        path.relative_to(root): storage.sha256(path)
        for path in root.rglob("*")
        if path.is_file() and path.name != storage.LOCK
    }


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """What the command makes with two workers."""
    out = tmp_path_factory.mktemp("raw")
    arguments = ["--out", str(out), "--clips", *map(str, COUNTS), "--frames", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "keras_seg.synthetic", *arguments, "--workers", "2"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "synthetic humans: 4/4 frames" in done.stderr
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
    settings = json.loads((raw / SETTINGS_FILE).read_text())
    assert storage.without_hash(settings) == {
        "seed": 0,
        "frames": 1,
        "depth": False,
        "format": 2,
    }


def test_an_interrupted_run_is_completed_with_the_same_bytes(raw, tmp_path):
    """By one process, where two had made the other folder."""
    settings, counted = Settings(frames=1), []
    generate(tmp_path, (1, 0, 0), settings)
    kept = next((tmp_path / "cmu/train/run0").iterdir())
    stamp = kept.stat().st_mtime_ns
    broken = tmp_path / "cmu/train/run0" / f"{storage.TEMPORARY}1-train00001_walk"
    broken.mkdir()
    (broken / "half.mp4").write_bytes(b"half")
    generate(tmp_path, COUNTS, settings, advance=counted.append)
    assert kept.stat().st_mtime_ns == stamp
    assert sum(counted) == 4
    assert digests(tmp_path) == digests(raw)


@pytest.mark.parametrize(
    ("counts", "settings", "message"),
    [
        (COUNTS, Settings(frames=2), "have the frames 1, not 2"),
        (COUNTS, Settings(seed=8, frames=1), "have the seed 0, not 8"),
        ((1, 1, 1), Settings(frames=1), "2 clips of train, more than 1.*at least 2"),
    ],
)
def test_other_settings_need_another_folder(raw, counts, settings, message):
    before = digests(raw)
    with pytest.raises(UsageError, match=f"{message}.* another folder"):
        generate(raw, counts, settings)
    assert digests(raw) == before


def test_clips_without_settings_need_another_folder(tmp_path):
    (tmp_path / "cmu/val/run0/val00000_walk").mkdir(parents=True)
    with pytest.raises(UsageError, match=f"no {SETTINGS_FILE}. Use another folder"):
        generate(tmp_path, (0, 1, 0), Settings())


def test_damaged_settings_are_named(tmp_path):
    (tmp_path / SETTINGS_FILE).write_text("{")
    with pytest.raises(DataError, match=f"{SETTINGS_FILE} is damaged"):
        generate(tmp_path, (1, 0, 0), Settings())


def test_a_failure_leaves_no_half_clip(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer, "write_video", fail)
    with pytest.raises(StorageError, match="No space"):
        generate(tmp_path, (1, 0, 0), Settings(frames=1))
    assert list((tmp_path / "cmu/train/run0").iterdir()) == []


def test_one_writer_at_a_time(tmp_path):
    with storage.lock(tmp_path), pytest.raises(LockedError):
        generate(tmp_path, (1, 0, 0), Settings())


BAD_ARGUMENTS = {
    "--clips 1 1 x": "--clips.*'x' must be a whole number",
    "--clips 1 1": "--clips.*expected 3",
    "--clips 0 0 0": "--clips 0 0 0.*at least one",
    "--clips 1 0 -1": "--clips.*'-1' must be a whole number",
    "--clips 999999 0 0": "--clips 999999.*at most 99999",
    "--clips 1 0 0 --frames 0": "--frames.*'0' must be",
    "--clips 1 0 0 --frames 9999": "--frames 9999.*at most 1000",
    "--clips 1 0 0 --workers 0": "--workers.*'0' must be",
    "--clips 1 0 0 --seed a": "--seed.*'a' must be",
    "--clips 1 0 0 --out file": "file is a file",
}


@pytest.mark.parametrize("arguments", BAD_ARGUMENTS)
def test_bad_arguments_are_one_sentence(arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    argv = ["--out", "raw", *arguments.split()]
    assert command_line.run(command.main, argv) == 2
    printed = capsys.readouterr().err.splitlines()
    (line,) = (x for x in printed if not x.startswith("synthetic humans: 0/"))
    assert re.match(f"error: .*{BAD_ARGUMENTS[arguments]}", line)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
