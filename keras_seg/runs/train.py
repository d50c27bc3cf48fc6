"""The one way to train: a run in a folder, begun, gone on with, or finished already.

An uninterrupted run and one that was killed at any moment and started again have the
same weights, history and metrics to the bit, because

* the data are a pure function of (seed, step) (`keras_seg.data.pipeline`),
* a checkpoint holds every model, optimizer and metric variable and the history
  (`keras_seg.runs.loop`, `keras_seg.runs.checkpoint`),
* a run refuses to go on with another configuration, data set or environment.
"""

import hashlib
import json
import os
import signal
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from keras_seg import backend, command_line, nets, storage
from keras_seg.config import Config, from_dict
from keras_seg.data.prepared import open_prepared
from keras_seg.errors import UsageError, memory_failure_named
from keras_seg.runs import checkpoint
from keras_seg.runs import folder as run_folder


@dataclass(frozen=True)
class Options:
    """What does not change the result: where and how a run is carried out.

    Attributes:
        init_weights: file of pretrained weights (`keras_seg.nets.pretrained`); its
            SHA-256 is part of the configuration.
        threads: intra-op threads; None is the number of cores.
        workers: threads of the data loader.
        checkpoint_every: batches between checkpoints; None is by time, so that
            saving costs about 1 % and a kill loses at most 10 minutes.
        allow_inexact: go on although the machine or a library changed.
        restart: begin anew, dropping what the folder holds of the run.
        tensorboard: keep a log for TensorBoard in the run folder as well.
        title: shown before every progress line.
    """

    init_weights: Path | None = None
    threads: int | None = None
    workers: int = 2
    checkpoint_every: int | None = None
    allow_inexact: bool = False
    restart: bool = False
    tensorboard: bool = False
    title: str = ""


def train(
    config: Config, data: Path, out: Path, options: Options | None = None
) -> dict:
    """Carry the run in `out` to its end, from wherever it is.

    Args:
        config: what is trained.
        data: a prepared folder with the splits train and val.
        out: the run folder (`keras_seg.runs.folder`); made where it is missing.
        options: how it is carried out; None is the defaults.

    Returns:
        The content of metrics.json.

    Raises:
        UsageError: a configuration the net or the data cannot take, or another
            configuration, data set or environment than the run in `out` has.
        DataError: the data are damaged, or a split is missing.
        DivergedError: the loss or a weight is no longer finite.
        StorageError: the disk is full, or every checkpoint is damaged.
        LockedError: another process works on `out`.
        InterruptedRunError: SIGINT or SIGTERM; a checkpoint was written.
    """
    options = options or Options()
    nets.get(config.net.name)
    _refuse_other_weights(config, options.init_weights)
    if not config.data.pad and not config.net.knobs:  # with knobs, asking imports Keras
        nets.refuse_size(config.net.name, config.data.size)
    prepared = open_prepared(data)
    for split in ("train", "val"):
        prepared.samples(split)
    with storage.lock(out):
        for folder in (out, out / "checkpoints", out / "best"):
            storage.sweep(folder)
        if options.restart:
            run_folder.forget(out)
        identity = run_folder.identity(config, prepared)
        run_folder.refuse_another_identity(out, identity)
        (out / "failure.json").unlink(missing_ok=True)
        finished = run_folder.read_metrics(out)
        if finished is not None:
            print(f"{options.title}{out}: finished already", file=sys.stderr)
            return finished
        try:
            backend.start(config.seed, options.threads, config.precision)
            from keras_seg.runs import loop as fitting

            with _interruption() as interruption:
                run = fitting.Run(config, prepared, out, options, interruption)
                return run.carry_out()
        except Exception as error:
            run_folder.write_failure(out, error)
            raise


def _refuse_other_weights(config: Config, file: Path | None) -> None:
    """The configuration's hash is that of the file of pretrained weights, or None."""
    found = None if file is None else sha256(file)
    if found != config.net.init_weights_sha256:
        raise UsageError(
            "init_weights",
            file or "no file",
            f"the file with SHA-256 {config.net.init_weights_sha256} (--init-weights)",
        )


def sha256(file: Path) -> str:
    """The SHA-256 of a file, in hex; UsageError if it cannot be read."""
    try:
        with open(file, "rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise UsageError("--init-weights", file, "a file that can be read") from error


@dataclass
class Interruption:
    """Which signal asked the run to stop, if one did."""

    signal: str | None = None


@contextmanager
def _interruption():
    """SIGINT and SIGTERM ask for a checkpoint and an end; a second SIGINT insists."""
    asked = Interruption()

    def ask(number, _frame):
        if asked.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.signal = signal.Signals(number).name

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, ask) for number in numbers]
    try:
        yield asked
    finally:
        for number, handler in zip(numbers, before):
            signal.signal(number, handler)


def main(argv: list[str]) -> int:
    """One arm of a stage in a process of its own (see `keras_seg.ablation.runner`)."""
    parser = command_line.Parser(prog="python -m keras_seg.runs.train")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--restart", action="store_true")
    parser.add_argument("--threads", type=command_line.positive_int)
    parser.add_argument("--checkpoint-every", type=command_line.positive_int)
    parser.add_argument("--allow-inexact", action="store_true")
    parser.add_argument("--tensorboard", action="store_true")
    parser.add_argument("--title", default="")
    parser.add_argument("--init-weights", type=Path)
    parser.add_argument("--evaluate", help="a split to score the result on as well")
    parser.add_argument("--full-size", action="store_true", help="of that evaluation")
    parser.add_argument("--parent", type=int, help="stop when this process is gone")
    args = parser.parse_args(argv)
    if args.parent is not None:
        threading.Thread(target=_watch, args=(args.parent,), daemon=True).start()
    options = Options(
        init_weights=args.init_weights,
        restart=args.restart,
        threads=args.threads,
        checkpoint_every=args.checkpoint_every,
        allow_inexact=args.allow_inexact,
        tensorboard=args.tensorboard,
        title=args.title,
    )
    config = from_dict(json.loads(args.config.read_text()))
    train(config, args.data, args.out, options)
    if args.evaluate:
        evaluate(args.out, args.data, args.evaluate, args.threads, args.full_size)
    return 0


def evaluate(
    run: Path,
    data: Path,
    split: str,
    threads: int | None = None,
    full_size: bool = False,
) -> dict:
    """Score a run's best weights on a split.

    Writes RUN/evaluation/<split>.json, or <split>-full-size.json, and beside it the
    counts per image.

    Returns:
        The scores, as `keras_seg.runs.evaluate.evaluate`.

    Raises:
        UsageError: no such run, or data with other classes.
        DataError: no such split, or damaged data.
        OutOfMemoryError: the network and a batch do not fit.
    """
    arrays, identity = run_folder.load_best(run)
    config = from_dict(identity["config"])
    prepared = open_prepared(data)
    prepared.samples(split)
    if list(prepared.labels.names) != identity["data"]["classes"]:
        raise UsageError(
            f"classes of {data}",
            ", ".join(prepared.labels.names),
            "those of the run: " + ", ".join(identity["data"]["classes"]),
        )
    backend.start(config.seed, threads, config.precision)
    from keras_seg.runs import evaluate as evaluation

    with memory_failure_named():
        network = evaluation.Network(config, prepared.labels.num_classes)
        checkpoint.assign(network.net.variables, arrays, "model")
        result, counts = evaluation.evaluate(network, prepared, split, full_size)
    trained = run_folder.read_metrics(run) or {}
    result |= {key: trained.get(key) for key in ("step", "steps")}
    result["manifest"] = prepared.manifest_hash
    (run / "evaluation").mkdir(exist_ok=True)
    counts_file = run_folder.per_image_file(run, split, full_size)
    run_folder.write_per_image(counts_file, counts)
    storage.write_json(run_folder.evaluation_file(run, split, full_size), result)
    return result


def _watch(parent: int) -> None:
    """Ask this process to stop, with a checkpoint, once its parent was killed."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(command_line.run(main))
