"""Measure what reliable runs cost on this machine.

python tools/reliability.py --data datasets/prepared/synthetic_humans --out FOLDER

Nothing else should be running; it takes about five minutes. Four measurements, each
with a limit; exits with 1 where one is above it:

saving       share of the time that checkpoints take at the default interval, and,
             beside it, the best weights
resuming     from the start of the process to the first new step: a run that resumes
             against one that starts
determinism  time of a step with op determinism and ordered loading against one
             without, in pairs: two processes take turns on the same machine
hashing      what hashing the images and labels of a batch takes of a step, with none
             kept in memory: steps and hashing take turns on the same machine
"""

import argparse
import functools
import hashlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from keras_seg import backend, command_line, storage
from keras_seg.config import Augment, Config, to_dict
from keras_seg.data import pipeline
from keras_seg.data.prepared import Sample, open_prepared
from keras_seg.errors import INTERRUPTED_EXIT_CODES, UsageError
from keras_seg.runs import checkpoint
from keras_seg.runs import train as training

SAVING_LIMIT = 0.01  # of the wall time
RESUMING_LIMIT = 10.0  # seconds
DETERMINISM_LIMIT = 1.05  # times
HASHING_LIMIT = 0.02  # of a step
NEVER = 10**6  # steps
SECONDS = 100  # of training, to see checkpoints being saved
PAIRS, TURNS, TURN_STEPS = 3, 10, 5
WARM_UP = 2  # turns that do not count: compilation, caches
PAUSE = 0.3  # seconds between turns, for the other's loader to come to rest


def main(argv: list[str]) -> int:
    args = parse(argv)
    if args.turn is not None:
        return train_and_report(args)
    if args.out.exists():
        raise UsageError(f"--out {args.out} exists already; name a new folder.")
    args.out.mkdir(parents=True)
    is_above = False
    for name, measure in MEASUREMENTS.items():
        if args.only in (None, name):
            line, is_fine = measure(args)
            print(f"{name:12s} {line}{'' if is_fine else '  ABOVE'}", flush=True)
            is_above |= not is_fine
    return 1 if is_above else 0


def parse(argv: list[str]) -> argparse.Namespace:
    positive = command_line.positive_int
    parser = command_line.Parser(prog="reliability.py", description=__doc__)
    parser.add_argument("--data", required=True, type=Path, help="prepared folder")
    parser.add_argument("--out", required=True, type=Path, help="a new folder")
    parser.add_argument("--only", choices=MEASUREMENTS)
    parser.add_argument("--net", default="icnet")
    parser.add_argument("--size", nargs=2, type=positive, default=(96, 128))
    parser.add_argument("--batch", type=positive, default=16)
    parser.add_argument("--threads", type=positive, default=os.cpu_count())
    # This process is the one that trains; steps of a turn, 0 without turns
    parser.add_argument("--turn", type=int, help=argparse.SUPPRESS)
    for name in ("--loose", "--uncached"):
        parser.add_argument(name, action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


# Measuring


class Worker:
    """A process that trains in the folder `run` and reports what it does.

    Attributes:
        started: when, as of time.monotonic().
    """

    def __init__(self, args: argparse.Namespace, run: Path, *options: object):
        words = [__file__, "--data", args.data, "--out", run, "--net", args.net]
        words += ["--size", *args.size, "--batch", args.batch]
        words += ["--threads", args.threads, *options]
        self.log = run.with_suffix(".log")
        self.started = time.monotonic()
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(
                [sys.executable, *map(str, words)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def events(self) -> Iterator[dict]:
        assert self.process.stdout is not None
        return map(json.loads, self.process.stdout)

    def wait_for(self, kind: str) -> dict:
        for event in self.events():
            if event["kind"] == kind:
                return event
        raise RuntimeError(f"a run ended early; {self.log} says why")

    def take_turn(self) -> float:
        """Seconds of its next turn."""
        time.sleep(PAUSE)
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self.wait_for("turn")["seconds"]

    def stop(self) -> None:
        """Let it save itself and end."""
        self.process.terminate()
        self.process.communicate()
        if self.process.returncode != INTERRUPTED_EXIT_CODES["SIGTERM"]:
            raise RuntimeError(f"exit code {self.process.returncode}; see {self.log}")


def measure_saving(args: argparse.Namespace) -> tuple[str, bool]:
    worker = Worker(args, args.out / "saving", "--turn", 0)
    start = worker.wait_for("step")["at"]
    timer = threading.Timer(SECONDS, worker.process.terminate)
    timer.start()
    saves = [event for event in worker.events() if event["kind"] == "save"]
    worker.process.wait()
    return saving(start, saves)


def saving(start: float, saves: Sequence[dict]) -> tuple[str, bool]:
    """The verdict on saves {"folder", "at", "seconds"} since `start`."""
    # The last one came when it was asked to stop, before its time.
    regular = [save for save in saves if save["folder"] == "checkpoints"][:-1]
    if not regular:
        return f"no checkpoint in {SECONDS} s", False
    end = regular[-1]["at"]
    best = [s for s in saves if s["folder"] == "best" and s["at"] <= end]
    share, best_share = (
        sum(save["seconds"] for save in part) / (end - start)
        for part in (regular, best)
    )
    mean = statistics.mean(save["seconds"] for save in regular)
    line = f"{share:.2%} of the time: {len(regular)} checkpoints of {mean:.2f} s in "
    line += f"{end - start:.0f} s (limit {SAVING_LIMIT:.0%}); "
    line += f"{best_share:.2%} for {len(best)} best weights"
    return line, share <= SAVING_LIMIT


def measure_resuming(args: argparse.Namespace) -> tuple[str, bool]:
    fresh, resumed = [], []
    for number in range(PAIRS):
        for seconds in (fresh, resumed):
            worker = Worker(args, args.out / f"resuming{number}", "--turn", 0)
            seconds.append(worker.wait_for("step")["at"] - worker.started)
            worker.stop()
    return resuming(fresh, resumed)


def resuming(fresh: Sequence[float], resumed: Sequence[float]) -> tuple[str, bool]:
    """The verdict on seconds to the first step, in pairs."""
    extra = [late - early for early, late in zip(fresh, resumed)]
    median = statistics.median(extra)
    line = f"{median:+.1f} s ({min(extra):+.1f} to {max(extra):+.1f} in {len(extra)} "
    line += f"pairs; a start takes {statistics.median(fresh):.1f} s; "
    line += f"limit {RESUMING_LIMIT:.0f} s)"
    return line, median <= RESUMING_LIMIT


def measure_determinism(args: argparse.Namespace) -> tuple[str, bool]:
    strict, loose = workers = [
        Worker(args, args.out / name, "--turn", TURN_STEPS, *options)
        for name, options in (("strict", []), ("loose", ["--loose"]))
    ]
    try:
        for worker in workers:
            worker.wait_for("turn")
            for _ in range(WARM_UP):
                worker.take_turn()
        ratios = []
        for number in range(TURNS):
            order = workers if number % 2 else workers[::-1]
            seconds = {worker: worker.take_turn() for worker in order}
            ratios.append(seconds[strict] / seconds[loose])
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.communicate()
    return determinism(ratios)


def determinism(ratios: Sequence[float]) -> tuple[str, bool]:
    """The verdict on times of turns, strict over loose."""
    median = statistics.median(ratios)
    line = f"{median:.3f} times ({min(ratios):.3f} to {max(ratios):.3f} in "
    line += f"{len(ratios)} pairs; limit {DETERMINISM_LIMIT})"
    return line, median <= DETERMINISM_LIMIT


def measure_hashing(args: argparse.Namespace) -> tuple[str, bool]:
    samples = itertools.cycle(open_prepared(args.data).samples("train"))
    out = args.out / "hashing"
    worker = Worker(args, out, "--turn", TURN_STEPS, "--uncached")
    try:
        worker.wait_for("turn")
        for _ in range(WARM_UP):
            worker.take_turn()
        turns = [
            (
                hashing_seconds(itertools.islice(samples, TURN_STEPS * args.batch)),
                worker.take_turn(),
            )
            for _ in range(TURNS)
        ]
    finally:
        worker.process.kill()
        worker.process.communicate()
    return hashing(turns)


def hashing_seconds(samples: Iterable[Sample]) -> float:
    """What hashing the files of these samples takes, without reading them."""
    pairs = [(sample.image, sample.label) for sample in samples]
    contents = [path.read_bytes() for pair in pairs for path in pair]
    start = time.monotonic()
    for content in contents:
        hashlib.sha256(content).hexdigest()
    return time.monotonic() - start


def hashing(turns: Sequence[tuple[float, float]]) -> tuple[str, bool]:
    """The verdict on (seconds of hashing a turn's files, seconds of the turn).

    An upper bound: the loader hashes beside the step where a core is free.
    """
    shares = [seconds / of_turn for seconds, of_turn in turns]
    median = statistics.median(shares)
    hashed, step = (1000 * statistics.median(part) / TURN_STEPS for part in zip(*turns))
    line = f"{median:.2%} of a step ({min(shares):.2%} to {max(shares):.2%} in "
    line += f"{len(turns)} pairs; {hashed:.2f} of {step:.0f} ms; "
    line += f"limit {HASHING_LIMIT:.0%})"
    return line, median <= HASHING_LIMIT


MEASUREMENTS = {
    "saving": measure_saving,
    "resuming": measure_resuming,
    "determinism": measure_determinism,
    "hashing": measure_hashing,
}


# The process that trains


def train_and_report(args: argparse.Namespace) -> int:
    """Train without end; report steps, saves and turns as JSON lines on stdout."""
    backend.configure()
    if args.loose:
        loosen()
    if args.uncached:
        keep_nothing()
    import keras

    save, fit = checkpoint.save, keras.Model.fit

    def timed_save(folder, *arguments, **options):
        start = time.monotonic()
        result = save(folder, *arguments, **options)
        report("save", folder=folder.name, seconds=time.monotonic() - start)
        return result

    class Report(keras.callbacks.Callback):
        steps = 0
        start = time.monotonic()

        def on_train_batch_end(self, batch, logs=None):
            Report.steps += 1
            if Report.steps == 1:
                report("step")
            if args.turn and Report.steps % args.turn == 0:
                report("turn", seconds=time.monotonic() - Report.start)
                if not sys.stdin.readline():
                    sys.exit()  # nobody takes turns any more
                Report.start = time.monotonic()

    def reported_fit(self, *arguments, callbacks=(), **options):
        return fit(self, *arguments, callbacks=[*callbacks, Report()], **options)

    checkpoint.save, keras.Model.fit = timed_save, reported_fit
    config = Config(
        net=args.net,
        data={"size": args.size, "batch": args.batch},
        augment=Augment(mirror=0.5, scale=(0.5, 2.0)),
        optimizer={"name": "adam", "lr": 0.003},
        validation={"samples": 16, **({"every": NEVER} if args.turn else {})},
        steps=NEVER,
    )
    config_file = args.out.with_suffix(".json")
    storage.write_json(config_file, to_dict(config))
    words = ["--config", config_file, "--data", args.data, "--out", args.out]
    words += ["--threads", args.threads, "--parent", os.getppid()]
    return training.main([str(word) for word in words])


def keep_nothing() -> None:
    """Read each sample from its files each time."""
    make = functools.partialmethod(pipeline.Samples.__init__, cache_bytes=0)
    setattr(pipeline.Samples, "__init__", make)  # noqa: B010


def loosen() -> None:
    """Leave out what makes a run reproducible, as most training scripts do."""
    import tensorflow as tf

    ordered_map = tf.data.Dataset.map

    def unordered_map(self, *arguments, **options):
        return ordered_map(self, *arguments, **options | {"deterministic": False})

    tf.data.Dataset.map = unordered_map
    tf.config.experimental.enable_op_determinism = lambda: None


def report(kind: str, **what) -> None:
    print(json.dumps({"kind": kind, "at": time.monotonic(), **what}), flush=True)


if __name__ == "__main__":
    sys.exit(command_line.run(main))
