"""tools/soak.py: what it compares, what it counts, and that it tells when it is wrong.

The runs here are pretended: files of a run without training, and a program that saves
as training does. What training itself does is in test_training.py and test_faults.py.
"""

import csv
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from keras_seg import storage
from keras_seg.runs import checkpoint

SCRIPT = Path(__file__).parents[1] / "tools" / "soak.py"


@pytest.fixture(scope="module")
def soak():
    spec = importlib.util.spec_from_file_location("soak", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ARRAYS = {
    "model/0000/conv/kernel": np.linspace(-1, 1, 6, dtype="float32").reshape(2, 3),
    "model/0001/dropout/seed_generator_state": np.array([5, 77], "uint32"),
    "optimizer/0000/iteration": np.array(8, "int64"),
    "optimizer/0001/conv_kernel_momentum": np.full((2, 3), 0.1, "float32"),
}
IDENTITY = {"config": {"net": "icnet"}, "data": {"manifest": "0"}}


def make_run(run: Path, seconds: float) -> Path:
    """The files of a finished run, which took `seconds`."""
    run.mkdir(parents=True)
    rows = [{"step": step, "val_miou": 0.1 * step} for step in (4, 8)]
    storage.write_json(run / "config.json", IDENTITY)
    storage.write_table(run / "history.csv", rows)
    storage.write_json(run / "metrics.json", {"summary": {"miou": 0.8}})
    storage.write_arrays(run / "per_image.npz", {"truth": np.arange(6)})
    storage.write_table(
        run / "timing.csv", [{"name": "train_seconds", "value": seconds}]
    )
    storage.write_json(run / "environment.json", {"command": [str(run)]})
    (run / "log.txt").write_text(f"{seconds}")
    state = {"step": 8, "best_miou": 0.8, "history": rows, "seconds": seconds}
    meta = {"identity": IDENTITY, "state": state | {"timed_steps": seconds}}
    checkpoint.save(run / "checkpoints", 4, {"older": np.array(seconds)}, meta, 2)
    checkpoint.save(run / "checkpoints", 8, ARRAYS, meta, 2)
    best = {k: v for k, v in ARRAYS.items() if k.startswith("model")}
    checkpoint.save(run / "best", 8, best, IDENTITY, 1)
    return run


@pytest.fixture
def runs(tmp_path):
    """Two equal runs; the second was slower."""
    return make_run(tmp_path / "a", 1.0), make_run(tmp_path / "b", 9.0)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def flip_in_checkpoint(folder: Path, name: str) -> None:
    step, arrays, meta = checkpoint.load_newest(folder)
    changed = np.atleast_1d(arrays[name]).copy()
    changed.view("uint8").reshape(-1)[0] ^= 1
    changed = changed.reshape(arrays[name].shape)
    checkpoint.save(folder, step, arrays | {name: changed}, meta, 2)


def test_equal_runs_differ_in_nothing_whatever_time_they_took(soak, runs):
    assert soak.differ(*runs) == []


@pytest.mark.parametrize("name", ARRAYS)
def test_one_bit_of_a_checkpoint_is_found(soak, runs, name):
    flip_in_checkpoint(runs[1] / "checkpoints", name)
    assert soak.differ(*runs) == [f"checkpoints: {name}"]


def test_one_bit_of_the_best_weights_is_found(soak, runs):
    name = "model/0000/conv/kernel"
    flip_in_checkpoint(runs[1] / "best", name)
    assert soak.differ(*runs) == [f"best: {name}"]


@pytest.mark.parametrize(
    "name", ["history.csv", "metrics.json", "config.json", "per_image.npz"]
)
def test_one_bit_of_a_file_is_found(soak, runs, name):
    flip_a_bit(runs[1] / name)
    assert soak.differ(*runs) == [name]


def test_what_only_one_run_has_is_found(soak, runs):
    (runs[0] / "per_image.npz").unlink()
    (runs[1] / "checkpoints" / ".tmp-1-step-00000008").mkdir()
    (runs[1] / "checkpoints" / ".tmp-1-step-00000008" / "arrays.npz").touch()
    shutil.rmtree(runs[1] / "best")
    found = soak.differ(*runs)
    assert "per_image.npz" in found
    assert "checkpoints/.tmp-1-step-00000008/arrays.npz" in found
    assert "best: step" in found


def test_another_step_or_state_of_the_checkpoint_is_found(soak, runs):
    folder = runs[1] / "checkpoints"
    _, arrays, meta = checkpoint.load_newest(folder)
    meta["state"]["best_miou"] = np.nextafter(0.8, 1)
    checkpoint.save(folder, 8, arrays, meta, 2)
    assert soak.differ(*runs) == ["checkpoints: meta"]
    checkpoint.save(folder, 9, arrays, meta, 2)
    assert soak.differ(*runs) == ["checkpoints: step", "checkpoints: meta"]


def make_stage(folder: Path, seconds: float) -> Path:
    make_run(folder / "rate" / "slow" / "seed0", seconds)
    storage.write_json(folder / "rate" / "winner.json", {"arm": "slow"})
    (folder / "tables").mkdir()
    line = {"arm": "slow", "miou": 0.8, "train_minutes": seconds, "ms_per_image": 1.5}
    storage.write_table(folder / "tables" / "rate.csv", [line])
    return folder


@pytest.mark.parametrize(
    "name",
    ["rate/slow/seed0/metrics.json", "rate/winner.json", "tables/rate.csv"],
)
def test_one_byte_of_a_stage_is_found(soak, tmp_path, name):
    stages = make_stage(tmp_path / "a", 1.0), make_stage(tmp_path / "b", 9.0)
    assert soak.differ_in_stage(*stages) == []
    path = stages[1] / name
    path.write_bytes(path.read_bytes().replace(b"slow", b"slaw").replace(b"8", b"7"))
    assert soak.differ_in_stage(*stages) == [name]


def test_the_table_of_the_report_names_its_times_as_the_soak_does(soak):
    from keras_seg.labels import LabelSpec
    from keras_seg.report import tables

    columns = tables.columns_of(LabelSpec(("a", "b"), ((0, 0, 0), (9, 9, 9))))
    assert {column.name for column in columns} >= set(soak.TIME_COLUMNS)


# A program that saves as training does, and what the soak makes of it

PROGRAM = """
import sys, time
from pathlib import Path
import numpy as np
from keras_seg import checkpoint, run_folder

run, faults = Path(sys.argv[1]), sys.argv[2:]
folder = run / "checkpoints"
savez = np.savez

def slowly(file, **arrays):
    savez(file, **arrays)
    time.sleep(0.02)

np.savez = slowly
storage.sweep(folder)
storage.sweep(run / "best")
step, arrays, meta = checkpoint.load_newest(folder) or (0, {}, {"history": []})
state, history = arrays.get("state", np.ones(3)), meta["history"]
if step and "forgets its history" in faults:
    history = []
if step and "replays a step" in faults:
    step -= 1
storage.write_json(run / "environment.json", {"at": time.time()})
while step < 30:
    step += 1
    time.sleep(0.01)
    state = np.cos(state + step)
    if step % 10 == 0:
        history.append({"step": step, "loss": float(state[0])})
    if step % 5 == 0 and "never saves" not in faults:
        checkpoint.save(folder, step, {"state": state}, {"history": history}, 2)
if "never saves" not in faults:
    checkpoint.save(run / "best", 30, {"state": state}, {}, 1)
storage.write_table(run / "history.csv", history)
"""


@pytest.fixture
def soaked(soak, tmp_path, monkeypatch, capsys):
    """A function that soaks the program with faults: (exit code, what is printed)."""

    def run_soak(*faults: str, kills: int = 3):
        def command(args, config, run, every):
            run.mkdir(parents=True, exist_ok=True)
            return [sys.executable, "-c", PROGRAM, str(run), *faults]

        monkeypatch.setattr(soak, "train_command", command)
        words = ["--out", str(tmp_path / "out"), "--only", "dropout"]
        words += ["--kills", str(kills), "--runs", "2"]
        return soak.main(words), capsys.readouterr().out.splitlines()[-1]

    return run_soak


def test_a_program_that_goes_on_exactly_passes(soaked):
    exit_code, line = soaked()
    assert line.split()[:3] == ["dropout", "2", "3"]
    assert line.endswith("none")
    assert exit_code == 0


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ("replays a step", "checkpoints: state"),
        ("forgets its history", "history.csv"),
    ],
)
def test_a_program_that_does_not_is_found(soaked, fault, found):
    exit_code, line = soaked(fault)
    assert found in line
    assert exit_code == 1


def test_kills_outside_of_saves_are_not_counted_as_inside(soaked):
    exit_code, line = soaked("never saves")
    assert "only 0 of 1 kills in saves" in line
    assert exit_code == 1


def test_a_save_counts_only_while_its_own_writer_is_in_it(soak, tmp_path):
    folder = tmp_path / "checkpoints"
    (folder / ".tmp-77-step-00000004").mkdir(parents=True)  # of another one's kill
    assert soak.half_saved(tmp_path, 77)
    assert not soak.half_saved(tmp_path, 78)
    assert not soak.half_saved(tmp_path, 7)


def test_too_few_kills_are_told(soak):
    assert soak.too_few("kills", 2, 3) == ("only 2 of 3 kills",)
    assert soak.too_few("kills", 3, 3) == ()


@pytest.mark.parametrize(
    ("sizes", "found"),
    [
        ([1000, 1000, 1040], "none"),
        ([1000, 1000, 1060], "1,000 to 1,060 bytes"),
        ([], "memory was not measured"),
    ],
    ids=["grows little", "grows", "not measured"],
)
def test_memory_that_grows_is_told(soak, tmp_path, monkeypatch, capsys, sizes, found):
    """A process that says it is at step 100, 200, 400, 600 and then gone."""
    steps, sizes = iter([[100], [200], [400], [600]]), iter(sizes)
    monkeypatch.setattr(soak.checkpoint, "steps", lambda folder: next(steps, [600]))
    monkeypatch.setattr(soak, "resident_bytes", lambda process: next(sizes, 0))
    program = [sys.executable, "-c", "import time; time.sleep(1.5)"]
    monkeypatch.setattr(soak, "train_command", lambda *arguments: program)
    out = str(tmp_path / "out")
    assert soak.main(["--out", out, "--only", "memory"]) == int(found != "none")
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"  {found}")


def test_memory_of_this_process_is_what_it_takes(soak):
    process = subprocess.Popen(
        [sys.executable, "-c", "x = b'1' * 50_000_000; print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    process.stdout.readline()
    found = soak.resident_bytes(process)
    process.communicate(b"\n")
    assert 50_000_000 < found < 100_000_000
    assert soak.resident_bytes(process) == 0


def test_a_run_that_fails_is_no_success(soak, tmp_path):
    process = soak.start([sys.executable, "-c", "raise SystemExit(3)"], tmp_path / "r")
    with pytest.raises(RuntimeError, match="exit code 3"):
        soak.finish(process)


@pytest.mark.slow
def test_the_soak_kills_and_finds_nothing(soak, tmp_path, capsys):
    options = ["--kills", "3", "--runs", "1", "--steps", "24"]
    options += ["--checkpoint-every", "4", "--only", "dropout"]
    assert soak.main(["--out", str(tmp_path / "out"), *options]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("none")


@pytest.mark.slow
def test_the_soak_kills_a_stage_and_finds_nothing(soak, tmp_path, capsys):
    options = ["--steps", "12", "--only", "stage"]
    assert soak.main(["--out", str(tmp_path / "out"), *options]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("none")
    study = tmp_path / "out" / "stage" / "killed" / "soak" / "hourglass"
    with open(study / "tables" / "rate.csv") as file:
        states = [line["state"] for line in csv.DictReader(file)]
    assert states[:3] == ["done"] * 3
    events = (study / "journal.jsonl").read_text().splitlines()
    assert sum(json.loads(e)["event"] == "begun" for e in events) > 3


@pytest.mark.slow
def test_memory_does_not_grow_from_window_to_window(
    soak, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(soak, "MEMORY_STEPS", (100, 600))
    assert soak.main(["--out", str(tmp_path / "out"), "--only", "memory"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("none")
