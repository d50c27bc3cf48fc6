"""How long an arm takes on this machine, and how many steps a budget of time leaves.

Roughly, without building its network: the work of a network is known per pixel (a
table that `tools/summary.py --costs` writes); the machine's speed is that of one matrix
product. For a budget, a few steps of each kind of arm are timed.
"""

import csv
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from keras_seg import storage
from keras_seg.command_line import duration, note
from keras_seg.config import Config, to_dict
from keras_seg.data.prepared import Prepared
from keras_seg.errors import KerasSegError, LockedError, UsageError
from keras_seg.runs.executors import Process
from keras_seg.runs.speed import STEPS as TIMED_STEPS

# Of the speed of a matrix product, as measured in training on two cores: 0.45
# (ICNet, many small convolutions) to 0.95 (SegNet-basic, few large ones).
EFFICIENCY = 0.6
BACKWARD = 2.0  # a step's work beside the forward pass, in forward passes
ARM_SECONDS = 20.0  # to start, compile and write
MATRIX = 1536  # rows and columns
RECORD = "budget.json"  # what was found; a resumed question has the same steps
RESERVE = 0.1  # of a budget, for what is not timed: samples, figures, the report
FINISH_SECONDS = 8.0  # of a run, after its last score

Cost = tuple[str, int, str]  # net, filter_scale, knobs in JSON


def cost_key(config: Config) -> Cost:
    """What the work per pixel depends on."""
    return (
        config.net.name,
        config.net.filter_scale,
        json.dumps(config.net.knobs, sort_keys=True),
    )


def read_costs(path: Path) -> dict[Cost, float]:
    """GFLOP of a forward pass per million pixels; {} without the file (an install)."""
    if not path.is_file():
        return {}
    with open(path, newline="") as file:
        return {
            (row["net"], int(row["filter_scale"]), row["knobs"]): float(row["gflop"])
            for row in csv.DictReader(file)
        }


def machine_speed() -> float:
    """GFLOP/s of a float32 matrix product, with all cores, here and now."""
    matrix = np.ones((MATRIX, MATRIX), np.float32)
    best = math.inf
    for _ in range(3):
        began = time.perf_counter()
        np.matmul(matrix, matrix)
        best = min(best, time.perf_counter() - began)
    return 2 * MATRIX**3 / best / 1e9


def seconds(
    config: Config, val_images: int, costs: Mapping[Cost, float], speed: float
) -> float:
    """The time of one run; NaN where the table does not know the network.

    Args:
        config: of the run.
        val_images: in the validation split.
        costs: as `read_costs` gives them.
        speed: as `machine_speed` gives it.
    """
    whole, crop = math.prod(config.data.size), config.data.crop
    gflop = costs.get(cost_key(config), math.nan) * whole / 1e6
    share = 1.0 if crop is None else math.prod(crop) / whole  # of an image, in a step
    trained = share * config.steps * config.optimizer.accumulate * config.data.batch
    validations = math.ceil(config.steps / config.validation.every)
    # At every validation, and once more when the best weights are scored.
    scored = validations * min(val_images, config.validation.samples or val_images)
    passes = (1 + BACKWARD) * trained + scored + val_images
    return ARM_SECONDS + gflop * passes / (EFFICIENCY * speed)


# What a budget leaves


def budget_steps(
    budget: float,
    base: Config,
    arms: Sequence[Config],
    prepared: Prepared,
    folder: Path,
    *,
    trainings: int,
    validations: int,
    every: int | None,
    threads: int | None,
    launch: Callable[[Sequence[str]], Process],
    anew: bool = False,
) -> tuple[int, float]:
    """How many steps all arms can have within a budget; what was found is kept.

    Args:
        budget: seconds, for all trainings one after the other.
        base: of the arms; its length does not matter.
        arms: their configurations.
        prepared: the data.
        folder: of the question, locked; its RECORD is read, or written. Of processes
            that share it one measures, and the others wait for what it finds.
        trainings: of each arm, for all seeds and folds.
        validations: of each training, unless it says `every`.
        every: steps between validations, where they do not depend on the steps.
        threads, launch: as of an arm.
        anew: measure although there is a record.

    Returns:
        The steps, and the seconds that all of it is expected to take.

    Raises:
        UsageError: nothing fits into the budget.
        KerasSegError: an arm could not be timed.
    """
    file = folder / RECORD
    asked = {"budget": budget, "data": prepared.manifest_hash, "base": _undated(base)}
    undated = dict(asked)  # as versions asked that did not count by `every`
    if every is not None:
        asked["every"] = every
    with _one_at_a_time(folder / "timing"):
        if file.is_file() and not anew:
            record = storage.read_json(file)
            if record.get("asked") in (asked, undated):
                note(f"--budget: {record['steps']} steps, as found when it began.")
                return record["steps"], record["seconds"]
        began = time.monotonic()
        kinds = {_kind(arm): arm for arm in arms}
        speeds = {}
        for number, (kind, arm) in enumerate(kinds.items(), 1):
            note(f"--budget: timing {number} of {len(kinds)}: {arm.net.name}")
            speeds[kind] = _timed(arm, prepared, folder, threads, launch)
        spent = time.monotonic() - began
        runs = [speeds[_kind(arm)] for arm in arms] * trainings
        scoring = sum(run["validation"] for run in runs)
        fixed = sum(run["start"] + FINISH_SECONDS for run in runs) + scoring
        each = sum(run["step"] for run in runs)
        if every is None:
            fixed += validations * scoring
        else:  # of a last stretch, too, however short it is
            fixed += scoring
            each += scoring / every
        room = (1 - RESERVE) * budget - spent - fixed
        steps = _rounded(room / each)
        if steps < 1:
            least = (spent + fixed + validations * each) / (1 - RESERVE)
            raise UsageError(
                f"--budget {duration(budget)} is too short: {len(runs)} runs need "
                f"about {duration(least)} to begin, to score and for {validations} "
                "steps. Give more time, fewer arms, seeds or folds, or a smaller "
                "--size."
            )
        seconds = spent + fixed + steps * each
        times = {
            kind: {k: round(v, 4) for k, v in s.items()} for kind, s in speeds.items()
        }
        record = {"asked": asked, "steps": steps, "seconds": seconds, "timed": times}
        storage.write_json(file, record)
        note(f"--budget: {steps} steps for each of {len(runs)} runs.")
        return steps, seconds


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Wait for whichever process holds the folder, then hold it; it is not kept."""
    with ExitStack() as stack:
        is_waiting = False
        while True:
            with suppress(LockedError):
                stack.enter_context(storage.lock(folder, is_passing=True))
                break
            if not is_waiting:
                note("--budget: waiting for the process that times the arms")
            is_waiting = True
            time.sleep(1)
        yield


def _undated(config: Config) -> dict[str, Any]:
    """The settings but for those that say how long."""
    values = to_dict(config)
    del values["steps"], values["validation"]["every"]
    return values


def _kind(config: Config) -> str:
    """What the time of a step depends on; weights, rates and seeds do not change it."""
    values = to_dict(config)
    parts = {name: values[name] for name in ("net", "data", "augment", "precision")}
    loss, how = values["loss"], values["optimizer"]
    parts["loss"] = [loss["name"], loss["l1"] > 0, loss["l2"] > 0]
    parts["optimizer"] = [how["name"], how["accumulate"]]
    return json.dumps(parts, sort_keys=True)


def _timed(
    config: Config,
    prepared: Prepared,
    folder: Path,
    threads: int | None,
    launch: Callable[[Sequence[str]], Process],
) -> dict[str, float]:
    """Of `keras_seg.runs.speed`, in a process of its own as the arms are."""
    wanted, found = folder / "timing-wanted.json", folder / "timing.json"
    storage.write_json(wanted, to_dict(config))
    words = ["-m", "keras_seg.runs.speed", "--config", str(wanted.absolute())]
    words += ["--data", str(prepared.folder.absolute()), "--out", str(found.absolute())]
    words += ["--threads", str(threads)] if threads else []
    began = time.monotonic()
    process = launch(words)
    try:
        exit_code = process.wait()
        if exit_code != 0:
            error = KerasSegError(
                f"The arm with the network {config.net.name} cannot be timed: the "
                "reason is above."
            )
            error.exit_code = max(1, exit_code)
            raise error
        result = storage.read_json(found)
    except BaseException:  # Ctrl-C and SIGTERM too
        process.terminate()
        raise
    finally:
        for file in (wanted, found):
            file.unlink(missing_ok=True)
    # Starting Python and its libraries comes before what the process can see.
    timed = TIMED_STEPS * result["step"] + 2 * result["validation"]
    seen = result["start"] + timed
    result["start"] += max(0.0, time.monotonic() - began - seen)
    return result


def _rounded(steps: float) -> int:
    """Down to two digits."""
    if steps < 1:
        return 0
    unit = 10 ** max(0, math.floor(math.log10(steps)) - 1)
    return int(steps // unit * unit)
