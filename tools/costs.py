"""What reliable runs cost: saving, going on, determinism with ordered loading.

python tools/costs.py --data datasets/prepared/synthetic_humans --out FOLDER

Takes four minutes or so; nothing else should be running. Three measurements, each with
its limit; leaves with 1 where one is above it:

saving       the share of the time that checkpoints take at the default interval, and,
             besides, the best weights
resuming     from the start of the process to the first new step: a run that goes on
             against one that begins
determinism  the time of a step with op determinism and ordered loading against one
             without: two processes train in turns, so that both see the same machine
"""

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from keras_seg import backend, command_line, storage
from keras_seg.config import Augment, Config, to_dict
from keras_seg.errors import INTERRUPTED_EXIT_CODES, UsageError
from keras_seg.runs import checkpoint
from keras_seg.runs import train as training

SAVING_LIMIT = 0.01  # of the wall time
RESUMING_LIMIT = 10.0  # seconds
DETERMINISM_LIMIT = 1.05  # times
NEVER = 10**6  # steps
WARM_UP = 2  # turns that are not counted: compilation, caches
PAUSE = 0.3  # seconds between turns, for the other's loader to come to rest


def main(argv: list[str]) -> int:
    args = parse(argv)
    if args.turn is not None:
        return work(args)
    measurements = {
        "saving": measure_saving,
        "resuming": measure_resuming,
        "determinism": measure_determinism,
    }
    if args.out.exists():
        raise UsageError("--out", args.out, "a folder that does not exist yet")
    if args.only is not None and args.only not in measurements:
        raise UsageError("--only", args.only, "one of " + ", ".join(measurements))
    args.out.mkdir(parents=True)
    is_above = False
    for name, measure in measurements.items():
        if args.only in (None, name):
            line, is_fine = measure(args)
            print(f"{name:12s} {line}{'' if is_fine else '  ABOVE'}", flush=True)
            is_above |= not is_fine
    return 1 if is_above else 0


def parse(argv: list[str]):
    positive, natural = command_line.positive_int, command_line.natural_int
    parser = command_line.Parser(prog="costs.py", description=__doc__)
    parser.add_argument("--data", required=True, type=Path, help="prepared folder")
    parser.add_argument("--out", required=True, type=Path, help="a new folder")
    parser.add_argument("--only", help="saving, resuming or determinism")
    parser.add_argument("--net", default="icnet")
    parser.add_argument("--size", nargs=2, type=positive, default=(96, 128))
    parser.add_argument("--batch", type=positive, default=16)
    parser.add_argument("--threads", type=positive, default=os.cpu_count())
    parser.add_argument("--seconds", type=positive, default=100, help="of saving")
    parser.add_argument("--pairs", type=positive, default=3, help="of resuming")
    parser.add_argument("--turns", type=positive, default=10, help="of determinism")
    parser.add_argument("--steps", type=positive, default=5, help="of a turn")
    # Internal: this process is the one that trains; steps of a turn, 0 for no turns.
    parser.add_argument("--turn", type=natural, help="internal")
    parser.add_argument("--loose", action="store_true", help="internal")
    return parser.parse_args(argv)


# Measuring


class Worker:
    """A process that trains in the folder `run` and says what it does.

    Attributes:
        began: when it was started, as of time.monotonic().
    """

    def __init__(self, args, run: Path, *options: object):
        words = [__file__, "--data", args.data, "--out", run, "--net", args.net]
        words += ["--size", *args.size, "--batch", args.batch]
        words += ["--threads", args.threads, *options]
        self.began = time.monotonic()
        with open(run.with_suffix(".log"), "a") as log:
            self.process = subprocess.Popen(
                [sys.executable, *map(str, words)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.log = run.with_suffix(".log")

    def events(self, kind: str) -> Iterator[dict]:
        """What it says of a kind, up to its end."""
        for line in self.process.stdout:
            event = json.loads(line)
            if event["kind"] == kind:
                yield event

    def first(self, kind: str) -> dict:
        for event in self.events(kind):
            return event
        raise RuntimeError(f"a run ended early; {self.log} says why")

    def turn(self) -> float:
        """Seconds of its next turn."""
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self.first("turn")["seconds"]

    def stop(self) -> None:
        """Let it save itself and end."""
        self.process.terminate()
        self.process.communicate()
        if self.process.returncode != INTERRUPTED_EXIT_CODES["SIGTERM"]:
            raise RuntimeError(f"exit code {self.process.returncode}; see {self.log}")

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def measure_saving(args) -> tuple[str, bool]:
    worker = Worker(args, args.out / "saving", "--turn", 0)
    began = worker.first("step")["at"]
    timer = threading.Timer(args.seconds, worker.process.terminate)
    timer.start()
    saves = list(worker.events("save"))
    worker.process.wait()
    # The last one came when it was asked to stop, before its time.
    *regular, _ = [save for save in saves if save["folder"] == "checkpoints"]
    if not regular:
        return f"no checkpoint in {args.seconds} s; more --seconds", False
    whole = regular[-1]["at"] - began
    best = [s for s in saves if s["folder"] == "best" and s["at"] <= regular[-1]["at"]]
    shares = [sum(save["seconds"] for save in part) / whole for part in (regular, best)]
    mean = statistics.mean(save["seconds"] for save in regular)
    line = f"{shares[0]:.2%} of the time: {len(regular)} checkpoints of {mean:.2f} s "
    line += f"in {whole:.0f} s (limit {SAVING_LIMIT:.0%}); "
    line += f"{shares[1]:.2%} for {len(best)} best weights"
    return line, shares[0] <= SAVING_LIMIT


def measure_resuming(args) -> tuple[str, bool]:
    begin, go_on = [], []
    for number in range(args.pairs):
        run = args.out / f"resuming{number}"
        for seconds in (begin, go_on):
            worker = Worker(args, run, "--turn", 0)
            seconds.append(worker.first("step")["at"] - worker.began)
            worker.stop()
    extra = [late - early for early, late in zip(begin, go_on)]
    median = statistics.median(extra)
    line = f"{median:+.1f} s ({min(extra):+.1f} to {max(extra):+.1f} in {len(extra)} "
    line += f"pairs; start-up {statistics.median(begin):.1f} s; "
    line += f"limit {RESUMING_LIMIT:.0f} s)"
    return line, median <= RESUMING_LIMIT


def measure_determinism(args) -> tuple[str, bool]:
    turn = ("--turn", args.steps)
    strict = Worker(args, args.out / "strict", *turn)
    loose = Worker(args, args.out / "loose", *turn, "--loose")
    try:
        for worker in (strict, loose):
            worker.first("turn")
            for _ in range(WARM_UP):
                worker.turn()
        ratios = []
        for number in range(args.turns):
            seconds = {}
            order = (strict, loose) if number % 2 else (loose, strict)
            for worker in order:
                time.sleep(PAUSE)
                seconds[worker] = worker.turn()
            ratios.append(seconds[strict] / seconds[loose])
    finally:
        strict.kill()
        loose.kill()
    median = statistics.median(ratios)
    line = f"{median:.3f} times ({min(ratios):.3f} to {max(ratios):.3f} in "
    line += f"{len(ratios)} pairs; limit {DETERMINISM_LIMIT})"
    return line, median <= DETERMINISM_LIMIT


# The process that trains


def work(args) -> int:
    """Train without end; tell steps, saves and turns as JSON lines on stdout."""
    backend.configure()
    if args.loose:
        loosen()
    import keras

    save, fit = checkpoint.save, keras.Model.fit

    def timed_save(folder, *arguments, **options):
        began = time.monotonic()
        result = save(folder, *arguments, **options)
        tell("save", folder=folder.name, seconds=time.monotonic() - began)
        return result

    class Tell(keras.callbacks.Callback):
        steps = 0
        began = time.monotonic()

        def on_train_batch_end(self, batch, logs=None):
            Tell.steps += 1
            if Tell.steps == 1:
                tell("step")
            if args.turn and Tell.steps % args.turn == 0:
                tell("turn", seconds=time.monotonic() - Tell.began)
                if not sys.stdin.readline():
                    sys.exit()  # nobody takes turns any more
                Tell.began = time.monotonic()

    def told_fit(self, *arguments, callbacks=(), **options):
        return fit(self, *arguments, callbacks=[*callbacks, Tell()], **options)

    checkpoint.save, keras.Model.fit = timed_save, told_fit
    config = Config(
        net=args.net,
        data={"size": tuple(args.size), "batch": args.batch},
        optimizer={"name": "adam", "lr": 0.003},
        validation={"samples": 16},
        steps=NEVER,
        augment=Augment(mirror=0.5, scale=(0.5, 2.0)),
    )
    if args.turn:
        config = config.changed(validation={"every": NEVER})
    config_file = args.out.with_suffix(".json")
    storage.write_json(config_file, to_dict(config))
    words = ["--config", config_file, "--data", args.data, "--out", args.out]
    words += ["--threads", args.threads, "--parent", os.getppid()]
    return training.main([str(word) for word in words])


def loosen() -> None:
    """Leave out what makes a run reproducible, as most training scripts do."""
    import tensorflow as tf

    ordered_map = tf.data.Dataset.map

    def unordered_map(self, *arguments, **options):
        return ordered_map(self, *arguments, **options | {"deterministic": False})

    tf.data.Dataset.map = unordered_map
    tf.config.experimental.enable_op_determinism = lambda: None
    backend._add_in_order = lambda: None


def tell(kind: str, **what) -> None:
    print(json.dumps({"kind": kind, "at": time.monotonic(), **what}), flush=True)


if __name__ == "__main__":
    sys.exit(command_line.run(main))
