"""What can happen to a run from outside, and what it leaves.

Kills between saves and by a real SIGKILL are in test_training.py and test_runner.py,
damaged checkpoints in test_checkpoint.py, damaged data in the tests of preparation
and of the pipeline; `tools/soak.py` kills many runs at random moments.
"""

import contextlib
import hashlib
import importlib.util
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_training import CONFIG as LARGER
from test_training import assert_same_run

from keras_seg import backend, checkpoint, run_folder
from keras_seg.ablation import runner
from keras_seg.ablation.protocol import Arm, Plan, Stage
from keras_seg.config import to_dict
from keras_seg.data.prepared import open_prepared
from keras_seg.errors import StorageError, UsageError
from keras_seg.training import Options, train

CONFIG = replace(
    LARGER,
    steps=8,
    knobs={"stacks": 1, "depth": 1, "features": 8, "stem": 4, "dropout": 0.2},
    size=(12, 20),
)
OPTIONS = Options(threads=2, checkpoint_every=3)


@pytest.fixture(scope="module")
def uninterrupted(shapes, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "uninterrupted"
    train(CONFIG, shapes, run, OPTIONS)
    return run


def contents(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(f): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def leftovers(run: Path) -> list[Path]:
    return list(run.rglob(".tmp-*"))


class Killed(BaseException):
    """Nobody catches it, so that nothing is cleaned up, as after SIGKILL."""


def killed(shapes: Path, run: Path, spoil) -> None:
    """Train until what `spoil` changed kills the run."""
    with pytest.MonkeyPatch.context() as patch:
        spoil(patch)
        with pytest.raises(Killed):
            train(CONFIG, shapes, run, OPTIONS)


def die_at_rename(name: str, after: bool):
    """Die right before or after a checkpoint gets its name."""
    replace = os.replace

    def dying(source, target):
        here = str(target).endswith(name)
        if after or not here:
            replace(source, target)
        if here:
            raise Killed

    return lambda patch: patch.setattr(checkpoint.os, "replace", dying)


def half_a_file(file, **arrays) -> None:
    """np.savez up to the middle of an archive."""
    savez(file, **arrays)
    file.truncate(file.tell() // 2)
    raise Killed


savez = np.savez


def test_killed_inside_three_saves_the_run_has_the_same_bits(
    shapes, uninterrupted, tmp_path
):
    run = tmp_path / "run"
    killed(shapes, run, die_at_rename("best/step-00000004", after=False))
    assert leftovers(run)
    assert checkpoint.steps(run / "checkpoints") == [3]
    killed(shapes, run, die_at_rename("checkpoints/step-00000006", after=True))
    assert checkpoint.steps(run / "checkpoints") == [3, 6]
    killed(shapes, run, lambda patch: patch.setattr(np, "savez", half_a_file))
    assert leftovers(run)
    train(CONFIG, shapes, run, OPTIONS)
    assert not leftovers(run)
    assert_same_run(run, uninterrupted)


def command(shapes: Path, run: Path, config: Path, threads: int = 2) -> list[str]:
    config.write_text(json.dumps(to_dict(CONFIG)))
    words = ["-m", "keras_seg.training", "--config", config, "--data", shapes]
    words += ["--out", run, "--threads", threads, "--checkpoint-every", 1]
    return [sys.executable, *map(str, words)]


def test_ctrl_c_saves_and_leaves_with_130_wherever_it_runs(
    shapes, uninterrupted, tmp_path
):
    """In a foreign locale, time zone and folder; the rest of the run is at home."""
    run = tmp_path / "run"
    process = subprocess.Popen(
        command(shapes, run, tmp_path / "config.json"),
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        env={**os.environ, "LC_ALL": "tr_TR.UTF-8", "TZ": "Asia/Kathmandu"},
    )
    deadline = time.monotonic() + 120
    while not checkpoint.steps(run / "checkpoints"):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    lines = [line for line in errors.splitlines() if line.startswith("error")]
    assert len(lines) == 1
    assert re.match(r"error: interrupted at step \d by: SIGINT; expected", lines[0])
    assert run_folder.read_failure(run) == lines[0].removeprefix("error: ")
    assert not leftovers(run)
    train(CONFIG, shapes, run, OPTIONS)
    assert_same_run(run, uninterrupted)


@contextlib.contextmanager
def small_files(folder: Path):
    """Files end at 30 kB, as a disk quota might; SIGXFSZ is ignored by Python."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def full_disk(folder: Path):
    """A disk of which 30 kB are left."""
    room = os.statvfs(folder)
    filler = folder.parent / "filler"
    filler.write_bytes(bytes(max(0, room.f_bavail * room.f_frsize - 30_000)))
    try:
        yield
    finally:
        filler.unlink()


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 8 MB of its own; only root may make one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("cannot mount a small disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize(
    "kind", ["file size", pytest.param("disk", marks=pytest.mark.slow)]
)
def test_a_full_disk_is_one_line_and_no_bits(
    kind, shapes, uninterrupted, tmp_path, request
):
    if kind == "disk":
        parent, shrink = request.getfixturevalue("small_disk"), full_disk
    else:
        parent, shrink = tmp_path, small_files
    run = parent / "run"
    fill_up = contextlib.ExitStack()
    save = checkpoint.save

    def save_until_step_6(folder, step, *arguments, **keywords):
        if step == 6:
            fill_up.enter_context(shrink(run))
        return save(folder, step, *arguments, **keywords)

    with fill_up, pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "save", save_until_step_6)
        with pytest.raises(StorageError) as caught:
            train(CONFIG, shapes, run, OPTIONS)
    assert caught.value.exit_code == 5
    place = re.escape(str(run / "checkpoints" / "step-00000006"))
    reason = "File too large" if kind == "file size" else "No space left on device"
    line = rf"writing {place}: {reason}; expected room for [\d,]+ bytes"
    assert re.fullmatch(line, str(caught.value))
    assert not leftovers(run)
    assert checkpoint.load_newest(run / "checkpoints")[0] == 3
    train(CONFIG, shapes, run, OPTIONS)
    assert_same_run(run, uninterrupted)


@contextlib.contextmanager
def nothing_is_built(patch):
    def built(*_):
        raise AssertionError("the model is built")

    patch.setattr(backend, "start", built)
    yield


def test_a_file_where_the_folder_should_be_fails_before_anything(
    shapes, tmp_path, monkeypatch
):
    (tmp_path / "run").write_text("")
    with nothing_is_built(monkeypatch), pytest.raises(UsageError, match="not a file"):
        train(CONFIG, shapes, tmp_path / "run", OPTIONS)


def test_a_read_only_disk_fails_before_anything(shapes, small_disk, monkeypatch):
    remount = ["mount", "-o", "remount,ro", str(small_disk)]
    subprocess.run(remount, check=True)
    with nothing_is_built(monkeypatch), pytest.raises(StorageError) as caught:
        train(CONFIG, shapes, small_disk / "run", OPTIONS)
    assert caught.value.exit_code == 5
    assert "one that can be written" in str(caught.value)


def test_the_second_of_two_runners_leaves_with_75_and_touches_nothing(
    shapes, uninterrupted, tmp_path
):
    run = tmp_path / "run"
    shutil.copytree(uninterrupted, run)
    (run / "metrics.json").unlink()
    with checkpoint.lock(run):
        before = contents(run)
        second = command(shapes, run, tmp_path / "config.json")
        began = time.monotonic()
        done = subprocess.run(second, capture_output=True, text=True, timeout=60)
        assert time.monotonic() - began < 5
        assert contents(run) == before
    assert done.returncode == 75
    assert len(done.stderr.splitlines()) == 1


def test_another_number_of_threads_is_refused_by_name(shapes, uninterrupted, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(uninterrupted, run)
    (run / "metrics.json").unlink()
    other = command(shapes, run, tmp_path / "config.json", threads=1)
    done = subprocess.run(other, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert re.match(r"error: environment threads: 1; expected 2", done.stderr)


def test_an_arm_without_memory_is_marked_and_the_others_finish(shapes, tmp_path):
    huge = replace(CONFIG, knobs=CONFIG.knobs | {"features": 300_000})

    def arms(base):
        return [Arm("huge", "Huge", huge), Arm("small", "Small", base)]

    stage = Stage("width", "Wider?", "test", arms)
    where = runner.Execution(tmp_path, open_prepared(shapes), threads=2, isolate=False)
    (result,) = runner.run_stages(
        Plan(lambda scale, size: CONFIG, (stage,)),
        [stage],
        CONFIG,
        where,
        None,
        lambda results: None,
    )
    assert [r.state for r in result.results] == ["oom", "done"]
    assert result.results[0].reason.startswith("memory: ")
    assert result.winner == "small"


@pytest.fixture(scope="module")
def soak():
    path = Path(__file__).parents[1] / "tools" / "soak.py"
    spec = importlib.util.spec_from_file_location("soak", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_soak_finds_a_difference_of_one_bit(soak, uninterrupted, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(uninterrupted, run)
    assert soak.differ(run, uninterrupted) == []
    step, arrays, meta = checkpoint.load_newest(run / "checkpoints")
    name = next(name for name in arrays if name.endswith("kernel"))
    arrays[name].view("uint32").flat[0] ^= 1
    checkpoint.save(run / "checkpoints", step, arrays, meta, 1)
    history = run / "history.csv"
    history.write_bytes(history.read_bytes().replace(b"1", b"2", 1))
    assert soak.differ(run, uninterrupted) == ["history.csv", f"checkpoints: {name}"]


@pytest.mark.slow
def test_the_soak_kills_and_finds_nothing(soak, tmp_path, capsys):
    options = ["--kills", "3", "--runs", "1", "--steps", "24", "--every", "4"]
    out = str(tmp_path / "out")
    assert soak.main(["--out", out, "--only", "dropout", *options]) == 0
    assert re.search(r"dropout +1 +3 +[1-3]  none", capsys.readouterr().out)
