"""What can happen to a run from outside, and what it leaves.

Stops between saves are in test_runs_train.py, a death at every point of a save and
damaged checkpoints in test_runs_checkpoint.py, killed stages in
test_ablation_runner.py, damaged data in the tests of preparation and of the pipeline;
test_soak.py kills many runs at random moments.
"""

import contextlib
import csv
import hashlib
import itertools
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import miniature_net
import pytest
from test_runs_train import TINY, assert_same_run

from keras_seg import backend, command_line, storage, study
from keras_seg.ablation import task
from keras_seg.config import Config, to_dict
from keras_seg.errors import (
    StorageError,
    UsageError,
)
from keras_seg.runs import checkpoint, executors
from keras_seg.runs import folder as run_folder
from keras_seg.runs import train as training
from keras_seg.runs.train import Options, train

CONFIG = TINY.changed(steps=8)
OPTIONS = Options(threads=2, checkpoint_every=3)
pytestmark = pytest.mark.usefixtures("_plain_runs")


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


def command(shapes: Path, run: Path, config: Path) -> list[str]:
    config.write_text(json.dumps(to_dict(CONFIG)))
    words = ["-m", "keras_seg.runs.train", "--config", config, "--data", shapes]
    words += ["--out", run, "--threads", 2, "--checkpoint-every", 1]
    return [sys.executable, *map(str, words)]


# Unused, TensorFlow has no threads, and its process can be forked.
DYING = """
import os, signal, sys
import numpy as np
from keras_seg import command_line
from keras_seg.runs import checkpoint
from keras_seg.runs import train as training

training.import_backend()
deaths, *arguments = sys.argv[1:]
for death in deaths.split(","):
    moment, folder, step = death.split("/")
    pid = os.fork()
    if pid == 0:
        break
    status = os.waitpid(pid, 0)[1]
    print(os.waitstatus_to_exitcode(status), flush=True)
    sys.stdin.readline()  # until what it left was looked at
if pid:
    sys.exit()
save, savez, rename = checkpoint.save, np.savez, os.replace

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def half_a_file(path, **arrays):
    savez(path, **arrays)
    os.truncate(path, os.path.getsize(path) // 2)
    die()

def no_name(source, target):
    if "step-" in str(target):
        die()
    rename(source, target)

def dying(place, at, *rest, **options):
    if (place.name, at) == (folder, int(step)):
        if moment == "in the file":
            np.savez = half_a_file
        else:
            os.replace = no_name
    return save(place, at, *rest, **options)

checkpoint.save = dying
sys.exit(command_line.run(training.main, arguments))
"""


def test_two_kills_inside_saves_and_the_same_bits(shapes, uninterrupted, tmp_path):
    run = tmp_path / "run"
    plain = command(shapes, run, tmp_path / "config.json")
    first_validation = CONFIG.validation.every  # which is the best so far
    deaths = (
        ("before its name", "best", first_validation),
        ("in the file", "checkpoints", first_validation + 3),
    )
    words = ["-c", DYING, ",".join("/".join(map(str, death)) for death in deaths)]
    process = subprocess.Popen(
        [sys.executable, *words, *plain[3:]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    for moment, folder, step in deaths:
        assert int(process.stdout.readline()) == -signal.SIGKILL, moment
        (half,) = leftovers(run)
        assert (half.parent.name, half.name[-8:]) == (folder, f"{step:08d}")
        assert not (run / "metrics.json").exists()
        process.stdin.write("\n")
        process.stdin.flush()
    process.communicate()
    assert process.returncode == 0
    train(CONFIG, shapes, run, OPTIONS)
    assert not leftovers(run)
    assert_same_run(run, uninterrupted)


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
        # A shell's background jobs, this test among them, may ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
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
    assert re.match(r"error: Interrupted by SIGINT at step \d", lines[0])
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
    """A disk of 64 MB of its own, five checkpoints; only root may make one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(disk)]
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
    line = rf"{place} could not be written: {reason}. Free [\d,]+ bytes."
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
    with (
        nothing_is_built(monkeypatch),
        pytest.raises(UsageError, match="run is a file"),
    ):
        train(CONFIG, shapes, tmp_path / "run", OPTIONS)


def test_a_read_only_disk_fails_before_anything(shapes, small_disk, monkeypatch):
    remount = ["mount", "-o", "remount,ro", str(small_disk)]
    subprocess.run(remount, check=True)
    with nothing_is_built(monkeypatch), pytest.raises(StorageError) as caught:
        train(CONFIG, shapes, small_disk / "run", OPTIONS)
    assert caught.value.exit_code == 5
    assert "Read-only file system" in str(caught.value)


def test_the_second_of_two_runners_leaves_with_75_and_touches_nothing(
    shapes, uninterrupted, tmp_path
):
    run = tmp_path / "run"
    shutil.copytree(uninterrupted, run)
    (run / "metrics.json").unlink()
    with storage.lock(run):
        before = contents(run)
        second = command(shapes, run, tmp_path / "config.json")
        began = time.monotonic()
        done = subprocess.run(second, capture_output=True, text=True, timeout=60)
        assert time.monotonic() - began < 5
        assert contents(run) == before
    assert done.returncode == 75
    assert len(done.stderr.splitlines()) == 1


STUDY = """
from keras_seg.ablation.protocol import Arm, DataFacts, Plan, Stage, Study
from keras_seg.config import from_dict

ARMS = {{name: from_dict(values) for name, values in {arms}.items()}}
STAGE = Stage(
    "width",
    "Wider?",
    "test",
    lambda base: [Arm(name, name, config) for name, config in ARMS.items()],
)
BASE = next(iter(ARMS.values())).changed(data={{"size": (32, 48)}})
PLAN = Plan(paper=lambda data: BASE, stages=(STAGE,), scales={{"demo": {{}}}})
STUDY = Study("faults", "Faults", (), DataFacts((24, 40), 10), {{"segnet_basic": PLAN}})
"""


@pytest.fixture
def stage(shapes, tmp_path, capsys):
    """A function that runs a stage of the given arms in this process.

    It returns the exit code, the lines on stderr and the table's states by arm.
    """
    folder = tmp_path / "out" / "faults" / "segnet_basic"

    def run_stage(arms: dict[str, Config], *options: str, data: Path = shapes):
        file = tmp_path / "faults.py"
        file.write_text(STUDY.format(arms={k: to_dict(v) for k, v in arms.items()}))
        words = ["--study", file, "--stage", "width", "--data", data]
        words += ["--out", tmp_path / "out", "--threads", 2]
        words += options or ("--scale", "smoke")
        try:
            exit_code = command_line.run(study.main, [str(word) for word in words])
        except SystemExit as leaving:  # what sys.exit(run(...)) makes of SIGTERM
            exit_code = leaving.code
        errors = capsys.readouterr().err.splitlines()
        with open(folder / "tables" / "width.csv", newline="") as file:
            states = {line["arm"]: line["state"] for line in csv.DictReader(file)}
        return exit_code, errors, {name: states[name] for name in arms}

    run_stage.folder = folder
    return run_stage


def test_an_arm_without_memory_is_marked_and_the_others_finish(stage, uninterrupted):
    huge = CONFIG.changed(net={"filter_scale": 4_000})  # kernels of terabytes
    exit_code, errors, states = stage({"huge": huge, "small": CONFIG})
    assert exit_code == 6
    assert states == {"huge": "oom", "small": "done"}
    assert any(line.startswith("width 1/2 huge: oom: Out of memory") for line in errors)
    assert errors[-1].startswith("error: Not every arm finished: huge (oom).")
    assert not (stage.folder / "width" / "winner.json").exists()
    for name in ("metrics.json", "history.csv"):
        place = stage.folder / "width" / "small" / "seed0" / name
        assert place.read_bytes() == (uninterrupted / name).read_bytes()


def test_data_that_break_in_the_middle_of_a_stage_end_it_with_3(
    stage, shapes, tmp_path, monkeypatch
):
    data = tmp_path / "data"
    shutil.copytree(shapes, data)
    train_one = training.train

    def train_and_break(*arguments):
        result = train_one(*arguments)
        for path in (data / "images" / "train").iterdir():
            path.write_bytes(b"no image")
        return result

    monkeypatch.setattr(training, "train", train_and_break)
    with miniature_net.known():
        net = miniature_net.NAME
        short = CONFIG.changed(net=net, validation={"every": 2}, steps=2)
        arms = {f"lr{k}": short.changed(optimizer={"lr": k / 1000}) for k in (1, 2, 3)}
        exit_code, errors, states = stage(arms, data=data)
    assert exit_code == 3
    assert re.match(r"error: .*images/train/train\d\.png is damaged", errors[-1])
    assert states == {"lr1": "done", "lr2": "failed", "lr3": "missing"}
    assert not (stage.folder / "width" / "winner.json").exists()


@pytest.mark.parametrize(
    ("number", "exit_code", "last"),
    [(signal.SIGINT, 130, ["interrupted"]), (signal.SIGTERM, 143, [])],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_an_interrupted_stage_asks_its_arms_to_stop(
    stage, monkeypatch, number, exit_code, last
):
    """The arms are pretended: they end when they are asked to, as arms do, with 143."""
    started = []

    class Process:
        def __init__(self, arguments):
            self.asked = threading.Event()
            started.append(self)
            if len(started) == 2:
                os.kill(os.getpid(), number)

        def terminate(self):
            self.asked.set()

        def wait(self):
            assert self.asked.wait(30), "nobody asked the arm to stop"
            return 143

    monkeypatch.setattr(executors, "local", Process)
    arms = {f"lr{k}": CONFIG.changed(optimizer={"lr": k / 1000}) for k in (1, 2, 3)}
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        found, errors, states = stage(arms, "--scale", "demo", "--jobs", "2")
    finally:
        signal.signal(signal.SIGINT, before)
    assert found == exit_code
    said = [line for line in errors if not line.startswith("  ")]  # not what runs
    assert [line.partition(" ")[0] for line in said[:2]] == ["data:", "Wider?"]
    said = said[2:]
    assert said[0].startswith("stopping: what is trained saves itself")
    assert said[1:] == last
    assert states == {"lr1": "interrupted", "lr2": "interrupted", "lr3": "missing"}
    assert len(started) == 2
    with storage.lock(stage.folder):  # nobody holds it any more
        pass


def test_an_arm_that_another_process_still_saves_is_waited_for(stage, monkeypatch):
    """A killed runner's arm holds its folder until it has saved itself."""
    ends = {"lr1": [75, 75, 4], "lr2": [75] * 99}
    slept = []

    class Process:
        def __init__(self, arguments):
            self.arm = Path(arguments[arguments.index("--out") + 1]).parent.name

        def wait(self):
            return ends[self.arm].pop(0)

    clock = itertools.count(step=100)
    monkeypatch.setattr(
        task,
        "time",
        SimpleNamespace(monotonic=lambda: next(clock), sleep=slept.append),
    )
    monkeypatch.setattr(executors, "local", Process)
    arms = {f"lr{k}": CONFIG.changed(optimizer={"lr": k / 1000}) for k in (1, 2)}
    exit_code, errors, states = stage(arms, "--scale", "demo")
    assert states == {"lr1": "diverged", "lr2": "failed"}
    line = f"lr2: failed: Another process is working on {stage.folder}/width/lr2/seed0."
    assert any(line in error for error in errors)
    assert exit_code == 6
    assert 90 < len(ends["lr2"]) < 99  # not for ever
    assert slept[:3] == [2, 2, 2]
