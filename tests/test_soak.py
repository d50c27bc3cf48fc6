"""Kill training at random moments: the result must be the same to the bit.

The slow tests kill 20 times for each kind of run, every third time inside a save, and
a whole stage, with its arms and without them; they take about half an hour:

    python -m pytest -m slow tests/test_soak.py
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from keras_seg import storage
from keras_seg.config import Augment, Config, to_dict
from keras_seg.data.writer import NewSample, Options, write_prepared
from keras_seg.labels import LabelSpec
from keras_seg.runs import checkpoint

ROOT = Path(__file__).parents[1]
CLASSES = 25  # of the hourglass with joints: the background and 24 parts
IMAGES = {"train": 12, "val": 6}
KILLS, RUNS, STEPS = 20, 5, 60
# Clock times, speeds and places; what a killed runner's arm was told to do.
MAY_DIFFER = ("log.txt", "timing.csv", "environment.json", "wanted.json", ".lock")
TIMES = ("seconds", "timed_seconds", "timed_steps")  # of a checkpoint's state
TIME_COLUMNS = ("train_minutes", "ms_per_image")  # of a stage's table


# Each has a state that the others lack
SMALL = Config(
    net={"name": "hourglass", "stacks": 2, "depth": 2, "features": 8, "stem": 8},
    data={"size": (32, 48), "batch": 2},
    validation={"every": STEPS // 4, "batch": 4},
    steps=STEPS,
    augment=Augment(mirror=0.5, scale=(0.7, 1.4)),
)
CONFIGS = {
    # Batch norm switches from inference to training mode inside the run.
    "icnet": SMALL.changed(
        net="icnet",
        data={"size": (32, 64)},
        optimizer={"bn_mode": "full", "bn_start": STEPS // 2},
    ),
    "joints": SMALL.changed(
        net={"joints": 24},
        data={"joints": "centroid"},
        optimizer={"name": "rmsprop", "lr": 0.001},
    ),
    "dropout": SMALL.changed(
        net={"stacks": 1, "dropout": 0.3},
        optimizer={"name": "adam", "lr": 0.001, "accumulate": 2},
    ),
}


@pytest.fixture(scope="module")
def patches(tmp_path_factory) -> Path:
    """A prepared folder: random patches of 25 classes, each of its own colour."""
    folder = tmp_path_factory.mktemp("soak") / "data"
    rng = np.random.default_rng(0)
    colours = rng.permutation(np.arange(CLASSES) * 10)
    palette = tuple((int(c), 255 - int(c), int(c) // 2) for c in colours)
    labels = LabelSpec(tuple(f"class{k}" for k in range(CLASSES)), palette)

    def sample(split: str, number: int) -> NewSample:
        coarse = rng.integers(0, CLASSES, (4, 6)).astype(np.uint8)
        label = coarse.repeat(8, axis=0).repeat(8, axis=1)
        return NewSample(split, f"{number:02d}", labels.colourise(label), label)

    items = [sample(split, k) for split, count in IMAGES.items() for k in range(count)]
    write_prepared(folder, "patches", labels, items, lambda i: [i], Options(), {})
    return folder


# Comparing runs


def differ(run: Path, whole: Path) -> list[str]:
    """Names of what two finished runs do not have in common."""
    names, expected = compared_files(run), compared_files(whole)
    different = sorted(names ^ expected)
    for name in sorted(names & expected):
        if (run / name).read_bytes() != (whole / name).read_bytes():
            different.append(name)
    return different + differ_in_checkpoint(run / "best", whole / "best")


def compared_files(run: Path) -> set[str]:
    """The files of a run that must equal another's; checkpoints are compared apart."""
    files = [f.relative_to(run) for f in run.rglob("*") if f.is_file()]
    return {
        file.as_posix()
        for file in files
        if file.name not in MAY_DIFFER and not file.match("step-*/*")
    }


def differ_in_checkpoint(folder: Path, whole: Path) -> list[str]:
    """Arrays, and other parts, that the newest checkpoints do not have in common."""
    step, arrays, meta = checkpoint.load_newest(folder) or (None, {}, {})
    other_step, others, other_meta = checkpoint.load_newest(whole) or (None, {}, {})
    different = sorted(arrays.keys() ^ others.keys())
    different += [
        name
        for name in sorted(arrays.keys() & others.keys())
        if arrays[name].dtype != others[name].dtype
        or arrays[name].shape != others[name].shape
        or arrays[name].tobytes() != others[name].tobytes()
    ]
    different += ["step"] if step != other_step else []
    different += ["meta"] if meta != other_meta else []
    return [f"{folder.name}: {name}" for name in different]


def table_without_times(path: Path) -> list[dict[str, str]]:
    rows = storage.read_table(path)
    assert set(TIME_COLUMNS) <= set(rows[0])
    return [{k: v for k, v in row.items() if k not in TIME_COLUMNS} for row in rows]


def make_run(run: Path, seconds: float) -> Path:
    """The files of a finished run, which took `seconds`."""
    run.mkdir()
    storage.write_json(run / "metrics.json", {"summary": {"miou": 0.8}})
    storage.write_table(run / "timing.csv", [{"name": "train", "value": seconds}])
    kernel = np.linspace(-1, 1, 6, dtype="float32").reshape(2, 3)
    arrays = {"model/0/kernel": kernel, "model/1/seed": np.array([5, 77], "uint32")}
    checkpoint.save(run / "best", 8, arrays, {"config": {"net": "icnet"}}, 1)
    return run


def test_one_bit_of_a_run_is_found_but_not_its_time(tmp_path):
    run, other = make_run(tmp_path / "a", 1.0), make_run(tmp_path / "b", 9.0)
    assert differ(run, other) == []
    step, arrays, meta = checkpoint.load_newest(run / "best")
    arrays["model/1/seed"][0] ^= 1
    checkpoint.save(run / "best", step, arrays, meta, 1)
    content = (run / "metrics.json").read_bytes()
    (run / "metrics.json").write_bytes(content.replace(b"8", b"9"))
    (other / "samples.npz").touch()
    found = ["samples.npz", "metrics.json", "best: model/1/seed"]
    assert differ(run, other) == found


# Killing runs


def train_command(data: Path, config: Config, run: Path, every: int) -> list[str]:
    config_file = run.with_suffix(".json")
    storage.write_json(config_file, to_dict(config))
    words = ["-m", "keras_seg.runs.train", "--config", config_file, "--out", run]
    words += ["--data", data, "--threads", 2, "--checkpoint-every", every]
    return [sys.executable, *map(str, words)]


def start(command: list[str], log: Path) -> subprocess.Popen:
    """A process in a group of its own, its stderr in a file."""
    with open(log, "a") as stderr:
        return subprocess.Popen(command, stderr=stderr, start_new_session=True)


def finish(process: subprocess.Popen, log: Path) -> None:
    assert process.wait() == 0, log.read_text()[-2000:]


def wait_for_training(process: subprocess.Popen, run: Path) -> None:
    """Until this process has written environment.json: the net is restored."""
    environment = run / "environment.json"
    before = environment.stat().st_mtime_ns if environment.exists() else 0
    while process.poll() is None:
        if environment.exists() and environment.stat().st_mtime_ns != before:
            return
        time.sleep(0.01)


def half_saved(run: Path, writer: int) -> bool:
    """Whether the process `writer` is, or died, inside a save of a checkpoint."""
    return any(run.glob(f"*/.tmp-{writer}-*"))


def kill_somewhere(process, run, longest, in_save, chance) -> bool:
    """SIGKILL at a random moment, or inside a save; False if it ended before."""
    wait_for_training(process, run)
    time.sleep(chance.uniform(0.0, longest))
    while in_save and process.poll() is None and not half_saved(run, process.pid):
        time.sleep(0.0002)
    process.kill()
    return process.wait() == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("kind", CONFIGS)
def test_twenty_kills_and_the_same_bits(kind, patches, tmp_path):
    whole, log, chance = tmp_path / "whole", tmp_path / "log", random.Random(0)
    process = start(train_command(patches, CONFIGS[kind], whole, 10), log)
    wait_for_training(process, whole)
    began = time.monotonic()
    finish(process, log)
    seconds = time.monotonic() - began
    kills = in_saves = 0
    for number in range(RUNS):
        run = tmp_path / f"run{number}"
        command = train_command(patches, CONFIGS[kind], run, 10)
        # What a run was too fast for is left to the next ones.
        for left in range(-(-(KILLS - kills) // (RUNS - number)), 0, -1):
            process = start(command, log)
            in_save = in_saves < (kills + 1) / 3
            longest = seconds / (left + 1)
            if not kill_somewhere(process, run, longest, in_save, chance):
                break
            kills += 1
            in_saves += half_saved(run, process.pid)
        finish(start(command, log), log)
        assert differ(run, whole) == []
    assert kills == KILLS
    assert in_saves >= 3


# Killing a stage

STUDY = """
from keras_seg.ablation.protocol import Arm, DataFacts, Plan, Stage, Study
from keras_seg.config import from_dict

PAPER = from_dict({config})


def arms(base):
    rates = {{"slow": 0.0003, "middle": 0.001, "fast": 0.003}}
    return [
        Arm(name, name, base.changed(optimizer={{"lr": lr}}))
        for name, lr in rates.items()
    ]


STUDY = Study(
    name="soak",
    title="Soak",
    datasets=(),
    data=DataFacts((32, 48), 12),
    plans={{
        "hourglass": Plan(
            paper=lambda data: PAPER,
            scales={{"demo": {{}}, "bench": {{}}}},
            stages=(Stage("rate", "Which learning rate?", "soak", arms),),
        )
    }},
)
"""


@pytest.mark.slow
def test_a_stage_killed_with_its_arms_and_without_them(patches, tmp_path):
    study, log, chance = tmp_path / "soak.py", tmp_path / "log", random.Random(0)
    study.write_text(STUDY.format(config=to_dict(CONFIGS["dropout"])))

    def command(out: Path) -> list[str]:
        words = [ROOT / "ablations" / "run.py", "--study", study, "--stage", "rate"]
        words += ["--data", patches, "--out", out, "--jobs", 2, "--threads", 2]
        return [sys.executable, *map(str, words)]

    began = time.monotonic()
    finish(start(command(tmp_path / "whole"), log), log)
    seconds, kills = time.monotonic() - began, 0
    for number in range(4):
        process = start(command(tmp_path / "killed"), log)
        time.sleep(chance.uniform(0.0, 1.5 * seconds / 4))
        if process.poll() is not None:
            break
        if number % 2:
            process.kill()  # the arms notice, save themselves and end
        else:
            os.killpg(process.pid, signal.SIGKILL)  # the arms are of its group
        process.wait()
        kills += 1
    assert kills >= 2
    finish(start(command(tmp_path / "killed"), log), log)

    whole, killed = (tmp_path / k / "soak" / "hourglass" for k in ("whole", "killed"))
    for run in sorted(whole.glob("rate/*/seed*")):
        assert differ(killed / run.relative_to(whole), run) == []
    winner, table = "rate/winner.json", "tables/rate.csv"
    assert (killed / winner).read_bytes() == (whole / winner).read_bytes()
    assert table_without_times(killed / table) == table_without_times(whole / table)
    events = (killed / "journal.jsonl").read_text().splitlines()
    assert sum(json.loads(event)["event"] == "begun" for event in events) > 3


# Memory


@pytest.mark.slow
def test_memory_does_not_grow_after_200_steps(patches, tmp_path):
    """At most 5 % from step 200 to step 2,000."""
    run, log = tmp_path / "run", tmp_path / "log"
    config = CONFIGS["joints"].changed(steps=2000, validation={"every": 500})
    process = start(train_command(patches, config, run, 200), log)
    measured = []
    while process.poll() is None:
        if max(checkpoint.steps(run / "checkpoints"), default=0) >= 200:
            measured.append(resident_bytes(process))
        time.sleep(0.2)
    finish(process, log)
    measured = [size for size in measured if size]
    assert measured[-1] <= 1.05 * measured[0]


def resident_bytes(process: subprocess.Popen) -> int:
    try:
        fields = Path(f"/proc/{process.pid}/statm").read_text().split()
    except OSError:
        return 0
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") if fields else 0
