"""Kill training runs at random moments; the result must be the same to the bit.

python tools/soak.py --out FOLDER [--kills 20] [--runs 5] [--steps 60]

Each trial trains a tiny network once without interruption and `--runs` times with
`--kills` SIGKILLs among them, every third one inside a save, each time going on with
the same command. Compared are the last and the best checkpoint (weights, optimizer,
seeds), history.csv, metrics.json and per_image.npz. The trial `stage` is a whole
ablation stage, killed with and without its arm; `memory` a run of 2,000 steps whose
memory must not grow by 5 % after step 200. Prints a table; leaves with 1 where anything
differs.
"""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from keras_seg import checkpoint, command_line, run_folder
from keras_seg.ablation import runner
from keras_seg.ablation.protocol import Arm, Plan, Stage
from keras_seg.config import Augment, Config, to_dict
from keras_seg.data.prepared import open_prepared
from keras_seg.data.writer import NewSample, Options, write_prepared
from keras_seg.errors import UsageError
from keras_seg.labels import LabelSpec

CLASSES = 25  # of the hourglass with joints: the background and 24 parts
IMAGES = {"train": 12, "val": 6}
STAGE_KILLS = 4
MEMORY_STEPS = (200, 2000)
MEMORY_GROWTH = 1.05
COMPARED = ("history.csv", "metrics.json", "per_image.npz", "config.json")


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
    parser.add_argument("--every", type=positive, default=10, help="checkpoint every")
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
        size=(32, 48),
        steps=steps,
        batch=2,
        val_every=max(1, steps // 4),
        val_batch=4,
        augment=Augment(mirror=0.5, scale=(0.7, 1.4)),
    )
    knobs = {"stacks": 2, "depth": 2, "features": 8, "stem": 8}
    return {
        # Batch norm switches from inference to training mode inside the run.
        "icnet": replace(
            small, net="icnet", size=(32, 64), bn_mode="full", bn_start=steps // 2
        ),
        "joints": replace(
            small,
            optimizer="rmsprop",
            lr=0.001,
            knobs=knobs | {"joints": 24},
            joint_targets="centroid",
        ),
        "dropout": replace(
            small,
            optimizer="adam",
            lr=0.001,
            knobs=knobs | {"stacks": 1, "dropout": 0.3},
            accumulate=2,
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
        return train_command(args, config, run, args.every)

    tally = Tally()
    whole = args.out / name / "uninterrupted"
    process = start(command(whole), whole)
    wait_for_training(process, whole)
    began = time.monotonic()
    finish(process)
    tally.seconds = time.monotonic() - began
    for number in range(args.runs):
        run = args.out / name / f"run{number}"
        kills = args.kills // args.runs + (number < args.kills % args.runs)
        while kills:
            process = start(command(run), run)
            killed, in_save = kill_somewhere(process, run, tally, kills, chance)
            if not killed:
                break  # it was faster
            kills -= 1
            tally.kills += 1
            tally.in_saves += in_save
        finish(start(command(run), run))
        tally.runs += 1
        tally.differences += tuple(f"run{number}/{d}" for d in differ(run, whole))
    return tally


def train_command(args, config: Config, run: Path, every: int) -> list[str]:
    run.parent.mkdir(parents=True, exist_ok=True)
    config_file = run.parent / "config.json"
    run_folder.write_json(config_file, to_dict(config))
    words = ["-m", "keras_seg.training", "--config", config_file, "--out", run]
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
        while process.poll() is None and not half_saved(run):
            time.sleep(0.0002)
    if process.poll() is not None:
        finish(process)
        return False, False
    process.kill()
    process.wait()
    return True, bool(half_saved(run))


def half_saved(run: Path) -> list[Path]:
    return list(run.glob("*/.tmp-*"))


def differ(run: Path, whole: Path) -> list[str]:
    """Names of what two finished runs do not have in common."""
    different = [
        name
        for name in COMPARED
        if (run / name).read_bytes() != (whole / name).read_bytes()
    ]
    for folder in ("checkpoints", "best"):
        step, arrays, _ = checkpoint.load_newest(run / folder)
        expected_step, expected, _ = checkpoint.load_newest(whole / folder)
        if step != expected_step or arrays.keys() != expected.keys():
            different.append(folder)
            continue
        for name, array in arrays.items():
            if array.tobytes() != expected[name].tobytes():
                different.append(f"{folder}: {name}")
    return different


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
            process.kill()  # the arm notices, saves itself and ends
        else:
            os.killpg(process.pid, signal.SIGKILL)  # the arm is of its group
        process.wait()
        tally.kills += 1
    finish(start(command(killed), killed))
    for run in sorted(whole.glob("*/*/seed*")):
        place = run.relative_to(whole)
        tally.differences += tuple(f"{place}/{d}" for d in differ(killed / place, run))
    winner = "rate/winner.json"
    if (whole / winner).read_bytes() != (killed / winner).read_bytes():
        tally.differences += (winner,)
    return tally


def carry_out_stage(args) -> int:
    """The stage in a process of its own, which is the one that is killed."""
    base = configs(args.steps)["dropout"]

    def arms(config: Config) -> list[Arm]:
        rates = [0.0003, 0.001, 0.003]
        return [Arm(f"lr{r:g}", f"{r:g}", replace(config, lr=r)) for r in rates]

    stage = Stage("rate", "Which learning rate?", "soak", arms)
    data = open_prepared(args.out.parent.parent / "data")
    where = runner.Execution(args.out, data, threads=args.threads)
    plan = Plan(lambda scale, size: base, (stage,))
    with checkpoint.lock(args.out):
        checkpoint.sweep(args.out)
        runner.run_stages(plan, [stage], base, where, None, lambda results: None)
    return 0


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
