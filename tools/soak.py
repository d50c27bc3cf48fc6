"""Kill training runs at random moments; the result must be the same to the bit.

python tools/soak.py --out FOLDER [--kills 20] [--runs 5] [--steps 60]

Each trial trains a tiny network once without interruption and `--runs` times with
`--kills` SIGKILLs among them, every third one inside a save, each time going on with
the same command. Every file of the runs is compared but those in MAY_DIFFER: of
checkpoints the newest and the best (weights, optimizer, seeds, history). The trial
`stage` is ablations/run.py with two arms at a time, killed with and without them: its
tables are compared too; `memory` is a run of 2,000 steps whose memory must not grow by
5 % after step 200. Prints a table; leaves with 1 where anything differs or where there
were fewer kills than asked for.
"""

import csv
import importlib.util
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_seg import command_line, storage
from keras_seg.ablation.protocol import Arm, DataFacts, Plan, Stage, Study
from keras_seg.config import Augment, Config, to_dict
from keras_seg.data.writer import NewSample, Options, write_prepared
from keras_seg.errors import UsageError
from keras_seg.labels import LabelSpec
from keras_seg.runs import checkpoint

RUN_SCRIPT = Path(__file__).resolve().parents[1] / "ablations" / "run.py"
CLASSES = 25  # of the hourglass with joints: the background and 24 parts
IMAGES = {"train": 12, "val": 6}
KILLS_IN_SAVES = 3  # at least, of nine kills or more
STAGE_KILLS = 4
STAGE = "rate"
MEMORY_STEPS = (200, 2000)
MEMORY_GROWTH = 1.05
# Clock times, speeds and places; what a killed runner's arm was told to do.
MAY_DIFFER = ("log.txt", "timing.csv", "environment.json", "wanted.json", ".lock")
TIMES = ("seconds", "timed_seconds", "timed_steps")  # of a checkpoint's state
TIME_COLUMNS = ("train_minutes", "ms_per_image")  # of a stage's table


@dataclass
class Tally:
    """What was done to the runs of a trial, and what came of it."""

    runs: int = 0
    kills: int = 0
    in_saves: int = 0
    seconds: float = 0.0  # of the uninterrupted run
    differences: tuple[str, ...] = ()


def main(argv: list[str]) -> int:
    positive = command_line.positive_int
    parser = command_line.Parser(prog="soak.py", description=__doc__)
    parser.add_argument("--out", required=True, type=Path, help="a new folder")
    parser.add_argument("--kills", type=positive, default=20, help="per network")
    parser.add_argument("--runs", type=positive, default=5, help="per network")
    parser.add_argument("--steps", type=positive, default=60, help="of each run")
    parser.add_argument("--checkpoint-every", type=positive, default=10)
    parser.add_argument("--seed", type=command_line.natural_int, default=0)
    parser.add_argument("--only", help="icnet, joints, dropout, stage or memory")
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--carry-out-stage", action="store_true", help="internal")
    args = parser.parse_args(argv)
    if args.carry_out_stage:
        return carry_out_stage(args)
    if args.out.exists():
        raise UsageError("--out", args.out, "a folder that does not exist yet")
    make_data(args.out / "data", random_source=np.random.default_rng(args.seed))
    chance = random.Random(args.seed)
    trials = dict.fromkeys(configs(args.steps), soak_runs)
    trials |= {"stage": soak_stage, "memory": soak_memory}
    if args.only is not None and args.only not in trials:
        raise UsageError("--only", args.only, "one of " + ", ".join(trials))
    print(f"{'trial':10s} {'runs':>5s} {'kills':>6s} {'in saves':>9s}  differences")
    found = []
    for name, soak in trials.items():
        if args.only in (None, name):
            tally = soak(name, args, chance)
            found += tally.differences
            listed = ", ".join(tally.differences) or "none"
            counts = f"{tally.runs:5d} {tally.kills:6d} {tally.in_saves:9d}"
            print(f"{name:10s} {counts}  {listed}", flush=True)
    return 1 if found else 0


def configs(steps: int) -> dict[str, Config]:
    """The trials' runs: each has a state that the others lack."""
    small = Config(
        net="hourglass",
        data={"size": (32, 48), "batch": 2},
        validation={"every": max(1, steps // 4), "batch": 4},
        steps=steps,
        augment=Augment(mirror=0.5, scale=(0.7, 1.4)),
    )
    knobs = {"stacks": 2, "depth": 2, "features": 8, "stem": 8}
    return {
        # Batch norm switches from inference to training mode inside the run.
        "icnet": small.changed(
            net="icnet",
            data={"size": (32, 64)},
            optimizer={"bn_mode": "full", "bn_start": steps // 2},
        ),
        "joints": small.changed(
            optimizer={"name": "rmsprop", "lr": 0.001},
            net={**knobs | {"joints": 24}},
            data={"joints": "centroid"},
        ),
        "dropout": small.changed(
            optimizer={"name": "adam", "lr": 0.001, "accumulate": 2},
            net={**knobs | {"stacks": 1, "dropout": 0.3}},
        ),
    }


def make_data(folder: Path, random_source: np.random.Generator) -> None:
    """Random patches of 25 classes, each of its own colour; 32 x 48 px."""
    names = tuple(f"class{k}" for k in range(CLASSES))
    colours = random_source.permutation(np.arange(CLASSES) * 10)
    palette = tuple((int(c), 255 - int(c), int(c) // 2) for c in colours)
    labels = LabelSpec(names, palette)

    def sample(split: str, number: int) -> NewSample:
        coarse = random_source.integers(0, CLASSES, (4, 6)).astype(np.uint8)
        label = coarse.repeat(8, axis=0).repeat(8, axis=1)
        return NewSample(split, f"{number:02d}", labels.colourise(label), label)

    items = [sample(split, k) for split, count in IMAGES.items() for k in range(count)]
    write_prepared(folder, "patches", labels, items, lambda i: [i], Options(), {})


# Single runs


def soak_runs(name: str, args, chance: random.Random) -> Tally:
    config = configs(args.steps)[name]

    def command(run: Path) -> list[str]:
        return train_command(args, config, run, args.checkpoint_every)

    tally = Tally()
    whole = args.out / name / "uninterrupted"
    process = start(command(whole), whole)
    wait_for_training(process, whole)
    began = time.monotonic()
    finish(process)
    tally.seconds = time.monotonic() - began
    for number in range(args.runs):
        run = args.out / name / f"run{number}"
        # What a run was too fast for is left to the next ones.
        kills = -(-(args.kills - tally.kills) // (args.runs - number))
        for left in range(kills, 0, -1):
            process = start(command(run), run)
            killed, in_save = kill_somewhere(process, run, tally, left, chance)
            if not killed:
                break
            tally.kills += 1
            tally.in_saves += in_save
        finish(start(command(run), run))
        tally.runs += 1
        tally.differences += tuple(f"run{number}/{d}" for d in differ(run, whole))
    tally.differences += too_few("kills", tally.kills, args.kills)
    in_saves = min(KILLS_IN_SAVES, args.kills // 3)
    tally.differences += too_few("kills in saves", tally.in_saves, in_saves)
    return tally


def too_few(what: str, found: int, wanted: int) -> tuple[str, ...]:
    return (f"only {found} of {wanted} {what}",) if found < wanted else ()


def train_command(args, config: Config, run: Path, every: int) -> list[str]:
    run.parent.mkdir(parents=True, exist_ok=True)
    config_file = run.parent / "config.json"
    storage.write_json(config_file, to_dict(config))
    words = ["-m", "keras_seg.runs.train", "--config", config_file, "--out", run]
    words += ["--data", args.out / "data", "--threads", args.threads]
    words += ["--checkpoint-every", every]
    return [sys.executable, *map(str, words)]


def start(command: list[str], run: Path) -> subprocess.Popen:
    """A process of its own group, its stderr in a file beside the run."""
    run.parent.mkdir(parents=True, exist_ok=True)
    with open(run.parent / f"{run.name}.log", "a") as log:
        return subprocess.Popen(command, stderr=log, start_new_session=True)


def finish(process: subprocess.Popen) -> None:
    if process.wait() != 0:
        line = f"exit code {process.returncode}; the .log beside the run says why"
        raise RuntimeError(f"{line}: {process.args}")


def wait_for_training(process: subprocess.Popen, run: Path) -> None:
    """Until this sitting wrote environment.json: the net is built and restored."""
    environment = run / "environment.json"
    before = environment.stat().st_mtime_ns if environment.exists() else 0
    while process.poll() is None:
        if environment.exists() and environment.stat().st_mtime_ns != before:
            return
        time.sleep(0.01)


def kill_somewhere(process, run, tally, kills, chance) -> tuple[bool, bool]:
    """(killed before its end, inside a save): SIGKILL at a random moment."""
    wait_for_training(process, run)
    # Every kill that is left gets about the same share of the run.
    time.sleep(chance.uniform(0.0, tally.seconds / (kills + 1)))
    if chance.random() < 1 / 3 or tally.in_saves < tally.kills / 3:
        while process.poll() is None and not half_saved(run, process.pid):
            time.sleep(0.0002)
    if process.poll() is not None:
        finish(process)
        return False, False
    process.kill()
    process.wait()
    return True, half_saved(run, process.pid)


def half_saved(run: Path, writer: int) -> bool:
    """Whether the process `writer` is, or died, inside a save of a checkpoint."""
    return any(run.glob(f"*/.tmp-{writer}-*"))


def differ(run: Path, whole: Path) -> list[str]:
    """Names of what two finished runs do not have in common."""
    names, expected = names_of(run), names_of(whole)
    different = sorted(names ^ expected)
    for name in sorted(names & expected):
        if (run / name).read_bytes() != (whole / name).read_bytes():
            different.append(name)
    for folder in ("checkpoints", "best"):
        different += differ_in_checkpoint(run / folder, whole / folder)
    return different


def names_of(run: Path) -> set[str]:
    """The files of a run that have to be as in another; not whole checkpoints."""
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
    different += ["meta"] if lasting(meta) != lasting(other_meta) else []
    return [f"{folder.name}: {name}" for name in different]


def lasting(meta: dict) -> dict:
    """A checkpoint's record without how long the run took."""
    state = {k: v for k, v in meta.get("state", {}).items() if k not in TIMES}
    return meta | {"state": state}


# A stage


def soak_stage(name: str, args, chance: random.Random) -> Tally:
    def command(folder: Path) -> list[str]:
        words = [__file__, "--carry-out-stage", "--out", folder, "--steps", args.steps]
        return [sys.executable, *map(str, words), "--threads", str(args.threads)]

    tally = Tally(runs=1)
    whole, killed = args.out / name / "uninterrupted", args.out / name / "killed"
    began = time.monotonic()
    finish(start(command(whole), whole))
    tally.seconds = time.monotonic() - began
    for number in range(STAGE_KILLS):
        process = start(command(killed), killed)
        time.sleep(chance.uniform(0.0, 1.5 * tally.seconds / STAGE_KILLS))
        if process.poll() is not None:
            break
        if number % 2:
            process.kill()  # the arms notice, save themselves and end
        else:
            os.killpg(process.pid, signal.SIGKILL)  # the arms are of its group
        process.wait()
        tally.kills += 1
    finish(start(command(killed), killed))
    study = Path("soak", "hourglass")
    tally.differences += tuple(differ_in_stage(killed / study, whole / study))
    tally.differences += too_few("kills", tally.kills, STAGE_KILLS // 2)
    return tally


def differ_in_stage(folder: Path, whole: Path) -> list[str]:
    """Names of what two stages do not have in common: runs, winner, table."""
    different = []
    for run in sorted(whole.glob(f"{STAGE}/*/seed*")):
        place = run.relative_to(whole)
        different += [f"{place}/{name}" for name in differ(folder / place, run)]
    winner, table = f"{STAGE}/winner.json", f"tables/{STAGE}.csv"
    if (folder / winner).read_bytes() != (whole / winner).read_bytes():
        different.append(winner)
    if table_of(folder / table) != table_of(whole / table):
        different.append(table)
    return different


def table_of(path: Path) -> list[dict[str, str]]:
    """The lines of a stage's table without how long anything took."""
    with open(path, newline="") as file:
        lines = list(csv.DictReader(file))
    for line in lines:
        for column in TIME_COLUMNS:
            del line[column]
    return lines


def carry_out_stage(args) -> int:
    """ablations/run.py with a small study; the process that is killed."""
    spec = importlib.util.spec_from_file_location("run", RUN_SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.load_study = lambda name: small_study(args.steps)
    data = args.out.parent.parent / "data"
    words = ["--study", "soak", "--stage", STAGE, "--data", data, "--out", args.out]
    words += ["--jobs", 2, "--threads", args.threads]
    return script.main([str(word) for word in words])


def small_study(steps: int) -> Study:
    """One network, one stage, three arms."""

    def arms(base: Config) -> list[Arm]:
        rates = {"slow": 0.0003, "middle": 0.001, "fast": 0.003}
        return [
            Arm(name, name, base.changed(optimizer={"lr": lr}))
            for name, lr in rates.items()
        ]

    stage = Stage(STAGE, "Which learning rate?", "soak", arms)
    plan = Plan(lambda scale, facts: configs(steps)["dropout"], (stage,))
    facts = DataFacts((32, 48), IMAGES["train"])
    return Study("soak", "Soak", (), facts, {"hourglass": plan})


# Memory


def soak_memory(name: str, args, chance: random.Random) -> Tally:
    first, last = MEMORY_STEPS
    run = args.out / name / "run"
    config = configs(last)["joints"]
    process = start(train_command(args, config, run, first), run)
    early = late = 0
    while process.poll() is None:
        step = max(checkpoint.steps(run / "checkpoints"), default=0)
        if first <= step < last:
            late = resident_bytes(process) or late
            early = early or late
        time.sleep(0.2)
    finish(process)
    if not early:
        return Tally(runs=1, differences=("memory was not measured",))
    growth = () if late <= MEMORY_GROWTH * early else (f"{early:,} to {late:,} bytes",)
    return Tally(runs=1, differences=growth)


def resident_bytes(process: subprocess.Popen) -> int:
    try:
        fields = Path(f"/proc/{process.pid}/statm").read_text().split()
    except OSError:
        return 0
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") if fields else 0


if __name__ == "__main__":
    sys.exit(command_line.run(main))
