"""The door to a training run: what it takes, what it checks, how a process runs one.

An uninterrupted run and one that was killed at any moment and started again have the
same weights, history and metrics to the bit, because

* the data are a pure function of (seed, step) (`keras_seg.data.pipeline`),
* a checkpoint holds every model, optimizer and metric variable and the history
  (`keras_seg.runs.loop`, `keras_seg.runs.checkpoint`),
* a run is not resumed with another configuration, data set or environment.

Neither Keras nor TensorFlow is imported before everything that can be checked without
them was checked.
"""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from keras_seg import backend, class_weights, command_line, nets, storage
from keras_seg.config import Config, from_dict
from keras_seg.data import folds
from keras_seg.data.prepared import Prepared, open_prepared
from keras_seg.errors import (
    DataError,
    KerasSegError,
    LockedError,
    UsageError,
    memory_failure_named,
)
from keras_seg.runs import checkpoint, event_log, folder
from keras_seg.runs.options import Interruption, Options


def train(
    config: Config, data: Path, out: Path, options: Options | None = None
) -> dict[str, Any]:
    """Train a run: start it, resume it, or return its result if it is finished.

    A command that is refused (UsageError) leaves nothing behind.

    Args:
        config: what is trained.
        data: a prepared folder with the splits train and val.
        out: the run folder (`keras_seg.runs.folder`); made where it is missing.
        options: None is the defaults.

    Returns:
        The content of metrics.json.

    Raises:
        UsageError: a configuration the net or the data cannot take, or another
            configuration, data set or environment than the run in `out` has.
        DataError: the data are damaged, or a split is missing.
        DivergedError: the loss or a weight is no longer finite.
        StorageError: the disk is full, or every checkpoint is damaged.
        LockedError: another process works on `out`.
        InterruptedRunError: a signal asked to stop; a checkpoint was written.
    """
    options = options or Options()
    config = with_precision(config)
    prepared = _checked_data(config, data, options)
    with storage.lock(out):
        names = ("checkpoints", "best", "evaluation", "validations")
        storage.sweep(out, *(out / name for name in names))
        if not options.restart:
            config, extends = _as_extended(config, prepared, out, options)
            if not extends:
                folder.check_identity(out, folder.identity(config, prepared))
            finished = folder.read_metrics(out)
            if finished is not None and not extends:
                (out / "failure.json").unlink(missing_ok=True)
                command_line.note(f"{options.title}{out} is finished; nothing to do.")
                return finished
        with ExitStack() as stack:
            followers = [
                (each.changed(extended=config.extended), place)
                for each, place in options.followers
            ]
            options = replace(options, followers=followers)
            for place in (out, *_join(options, prepared, stack)):
                recorded = folder.failure_recorded(place, but=(UsageError,))
                stack.enter_context(recorded)
            backend.start(
                config.seed, options.threads, config.precision, options.devices
            )
            _check_precision(config, out, options)
            from keras_seg.runs import loop

            with _interruption(aloud=not options.title) as asked:
                return loop.train(config, prepared, out, options, asked)


def _join(options: Options, prepared: Prepared, stack: ExitStack) -> Iterator[Path]:
    """Lock and check the folders of the followers, for as long as `stack` is open."""
    for config, out in options.followers:
        stack.enter_context(storage.lock(out))
        for place in (out, out / "best"):
            storage.sweep(place)
        old = folder.shorter(config, prepared, out)
        is_extended = old is not None and old.steps in config.extended
        if not options.restart and not is_extended:
            folder.check_identity(out, folder.identity(config, prepared))
        yield out


def _as_extended(
    config: Config, prepared: Prepared, out: Path, options: Options
) -> tuple[Config, bool]:
    """The configuration with what the run in `out` was extended by, or now is.

    A run that differs in its length alone is trained on from its last state.

    Returns:
        The configuration, and whether it extends the run now.

    Raises:
        UsageError: the run has not finished, and `extend` is not set; or its last
            state was not kept.
    """
    folder.check_no_foreign_files(out)
    config = folder.as_extended(config, prepared, out)
    old = folder.shorter(config, prepared, out)
    if old is None:
        return config, False
    lengths = (*old.extended, old.steps)
    if config.extended[: len(lengths)] not in ((), lengths):
        return config, False
    check_extendable(config, old, out, options.extend)
    command_line.note(
        f"{options.title}extending {out} from {old.steps} to {config.steps} steps: "
        f"after step {old.steps} the learning rate is that of a run of {config.steps}."
    )
    return config.changed(extended=config.extended or lengths), True


def check_extendable(config: Config, old: Config, out: Path, extend: bool) -> None:
    """UsageError where the run in `out` cannot be trained on.

    Args:
        config, old: what is wanted, and what is there: the same with fewer steps.
        out: the run folder.
        extend: whether it may be unfinished.
    """
    scores = folder.read_metrics(out)
    anew = "train anew with --restart, or start another run from its best weights, "
    anew += f"--init-weights {out}"
    if scores is not None and "stopped" in scores:
        raise UsageError(
            f"{out} stopped at step {scores['stopped']}, before its last one, so there "
            f"is no end to extend it from: {anew}."
        )
    last = old.steps * old.optimizer.accumulate
    is_at_end = last in checkpoint.steps(out / "checkpoints")
    if scores is not None and not is_at_end:
        raise UsageError(
            f"steps is {config.steps}, but {out} was trained for {old.steps} and its "
            f"last state was not kept, so it cannot be extended: {anew}."
        )
    if not is_at_end and not extend:
        raise UsageError(
            f"steps is {config.steps}, but {old.steps} in {out}, which has not "
            "finished. With --extend it is trained to that end and on; without it, "
            "name another --out, or use --restart."
        )


def _checked_data(config: Config, data: Path, options: Options) -> Prepared:
    """The data, once all that can be checked without Keras was checked."""
    check_installed(options.tensorboard)
    nets.get(config.net.name)
    if config.data.batch % options.devices:
        raise UsageError(
            f"data.batch is {config.data.batch}, which {options.devices} devices "
            "cannot share equally. Choose a multiple."
        )
    file, wanted = options.init_weights, config.net.init_weights_sha256
    if (None if file is None else sha256(file)) != wanted:
        given = f"{file} is not it" if file else "no file was given"
        raise UsageError(
            f"The configuration starts from the weights with the SHA-256 {wanted}, but "
            f"{given} (--init-weights)."
        )
    if not config.net.knobs:  # with knobs, asking imports Keras
        check_size(config)
    prepared = folds.divide(open_prepared(data), config.data.folds, config.data.fold)
    for split in ("train", "val"):
        if split not in prepared.splits:
            raise DataError(
                f"{data} has no split {split!r}, which training needs; its splits: "
                f"{', '.join(prepared.splits)}. Prepare the images again with one: "
                "keras-seg prepare --help says how they are split."
            )
    class_weights.from_counts(config.loss, prepared.counts("train"))
    if not prepared.counts("val").pixels.any():
        raise DataError(
            f"The split val of {data} has no labelled pixel: every one is ignored, so "
            "no score can be computed. Prepare data with labelled validation images."
        )
    return prepared


def check_size(config: Config) -> None:
    """UsageError where the network does not take its knobs or images of this size."""
    if not config.data.pad:
        for size in filter(None, (config.data.crop, config.data.size)):
            nets.check_size(config.net.name, size, **config.net.knobs)


def check_installed(tensorboard: bool = False) -> None:
    """UsageError where the backend, or TensorBoard if it is asked for, is missing."""
    backend.require_installed()
    if tensorboard:
        event_log.require_installed()


def with_precision(config: Config) -> Config:
    """The configuration with the precision that "auto" is on this machine."""
    if config.precision != "auto":
        return config
    return config.changed(precision=backend.resolved_precision("auto"))


def _check_precision(config: Config, out: Path, options: Options) -> None:
    """UsageError where a run that begins would be slower than in float32."""
    if config.precision != "mixed_bfloat16" or options.allow_inexact:
        return
    slow = backend.without_bfloat16()
    if slow and not checkpoint.steps(out / "checkpoints"):
        raise UsageError(
            f"precision is mixed_bfloat16, which is slower than float32 on {slow}: it "
            "has no arithmetic for it. Leave it out, or set precision=auto. "
            "--allow-inexact trains all the same."
        )


def processor() -> str:
    """The model of this machine's processor."""
    return backend.processor()


def import_backend() -> None:
    """Import the backend of Keras without its greetings on stderr."""
    backend.configure()


IMAGENET = "imagenet"  # as a file of weights: those that are known for the network


def weights_file(source: str | Path, net: str) -> Path:
    """The file of pretrained weights that is named for a network, or by "imagenet".

    UsageError where no weights of ImageNet are known for it, or they cannot be had
    (`keras_seg.nets.imagenet`).
    """
    if source == IMAGENET:
        from keras_seg.nets import imagenet

        return imagenet.file(net)
    path = Path(source)
    best = path.parent
    if best.name == "best" and checkpoint.steps(best) and not path.exists():
        command_line.note(
            f"{path} is gone: {best.parent} has better weights by now, which are taken."
        )
        return best.parent
    return path


def sha256(file: Path) -> str:
    """The SHA-256 of a file of weights, in hex; UsageError if it cannot be read.

    Of a run or a checkpoint, that of its arrays.
    """
    try:
        return storage.sha256(folder.weights_file(file))
    except OSError as error:
        raise UsageError(
            f"--init-weights {file} cannot be read: {error.strerror}."
        ) from error


@contextmanager
def _interruption(aloud: bool) -> Iterator[Interruption]:
    """Signals ask for a checkpoint and an end; a second SIGINT insists.

    `aloud`: it is said at once; a stage says it itself.
    SIGHUP, which a closing terminal sends, stays ignored where it is (nohup).
    """
    asked = Interruption()

    def ask(number, _frame):
        if asked.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.signal = signal.Signals(number).name
        if aloud:
            command_line.note_at_once(
                f"{asked.signal}: saving after this step; the same command resumes."
            )

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = [signal.signal(number, ask) for number in numbers]
    try:
        yield asked
    finally:
        for number, handler in zip(numbers, before):
            signal.signal(number, handler)


def evaluate(
    run: Path,
    data: Path,
    split: str,
    threads: int | None = None,
    full_size: bool = False,
) -> dict[str, Any]:
    """Score a run's best weights on a split.

    Writes RUN/evaluation/<split>.json, or <split>-full-size.json, and beside it the
    counts per image, and some images with their predictions.

    Args:
        run: a run folder.
        data: a prepared folder with the classes of the run.
        split: one of its splits.
        threads: as of `Options`.
        full_size: at each label's own size, the logits resized; else at the run's.

    Returns:
        What that file holds (`keras_seg.runs.evaluate.evaluate`).

    Raises:
        UsageError: no such run, data with other classes, or a run whose predictions
            take class weights of its own data, which are gone.
        DataError: no such split, or damaged data.
        OutOfMemoryError: the network and a batch do not fit.
    """
    arrays, identity = folder.load_best(run)
    config = from_dict(identity["config"])
    prepared = folder.as_trained(open_prepared(data), identity)
    if prepared.samples(split) and not prepared.counts(split).pixels.any():
        raise DataError(
            f"The split {split} of {data} has no labelled pixel: there is nothing to "
            "score. keras-seg evaluate --save writes its predictions."
        )
    if list(prepared.labels.names) != identity["data"]["classes"]:
        raise UsageError(
            f"{data} has the classes {', '.join(prepared.labels.names)}, but the run "
            f"was trained on {', '.join(identity['data']['classes'])}."
        )
    counted = _data_of_class_weights(run, identity, prepared)
    backend.start(config.seed, threads, config.precision)
    from keras_seg.runs import evaluate as evaluation

    with memory_failure_named():
        network = evaluation.Network(config, prepared.labels.num_classes)
        network.trained_on = counted
        checkpoint.assign(network.net.variables, arrays, "model")
        result, counts = evaluation.evaluate(network, prepared, split, full_size)
        (run / "evaluation").mkdir(exist_ok=True)
        if split != "val":  # those of val are kept in training
            samples, place = network.samples(prepared, split), folder.samples_file
            evaluation.save_samples(network, prepared, samples, place(run, split))
    trained = folder.read_metrics(run) or {}
    result |= {key: trained.get(key) for key in ("step", "steps")}
    if counted is None:
        result["loss"] = None
    result["manifest"] = prepared.manifest_hash
    folder.write_per_image(folder.per_image_file(run, split, full_size), counts)
    storage.write_json(folder.evaluation_file(run, split, full_size), result)
    return result


def _data_of_class_weights(
    run: Path, identity: dict[str, Any], scored: Prepared
) -> Prepared | None:
    """The data in which the class weights of a run count: its own.

    None where they are gone and the scores but for the loss do not need them.
    """
    settings = from_dict(identity["config"]).loss
    is_own = scored.manifest_hash == identity["data"]["manifest"]
    if is_own or settings.weights not in class_weights.WEIGHTINGS:
        return scored
    own = scored if settings.weights == "none" else folder.own_data(run, identity)
    if own is None and settings.strategy == "direct" and settings.direct_at_inference:
        raise UsageError(
            f"The run in {run} multiplies its logits by class weights of its data, "
            "which are not where they were: put its prepared folder back."
        )
    if own is None:
        command_line.note(
            f"warning: no loss: {run} weights its classes by its own data, which are "
            "not where they were."
        )
    return own


def main(argv: list[str]) -> int:
    """One arm of a stage in a process of its own (see `keras_seg.ablation`)."""
    parser = command_line.Parser(prog="python -m keras_seg.runs.train")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--restart", action="store_true")
    parser.add_argument("--extend", action="store_true")
    parser.add_argument("--threads", type=command_line.positive_int)
    parser.add_argument("--checkpoint-every", type=command_line.positive_int)
    parser.add_argument("--allow-inexact", action="store_true")
    parser.add_argument("--tensorboard", action="store_true")
    parser.add_argument("--title", default="")
    parser.add_argument("--follower", nargs=2, type=Path, action="append", default=[])
    parser.add_argument("--init-weights", type=Path)
    parser.add_argument("--evaluate", help="a split to score the result on as well")
    parser.add_argument("--full-size", action="store_true", help="of that evaluation")
    parser.add_argument("--parent", type=int, help="stop when this process is gone")
    args = parser.parse_args(argv)
    if args.parent is not None:
        command_line.end_with_parent(args.parent)
    options = Options(
        init_weights=args.init_weights,
        restart=args.restart,
        extend=args.extend,
        threads=args.threads,
        checkpoint_every=args.checkpoint_every,
        allow_inexact=args.allow_inexact,
        tensorboard=args.tensorboard,
        title=args.title,
        followers=[
            (from_dict(storage.read_json(file, "Start the stage again.")), out)
            for file, out in args.follower
        ],
    )
    # The study has made the folder, and reads there why an arm ended early: also where
    # it was refused before it began. A locked folder is another process' to write in.
    try:
        config = from_dict(storage.read_json(args.config, "Start the stage again."))
        train(config, args.data, args.out, options)
    except LockedError:
        raise
    except KerasSegError as error:
        if not (args.out / "failure.json").is_file():  # recorded while it trained
            folder.write_failure(args.out, error)
        raise
    for out in (args.out, *(out for _, out in options.followers)):
        if args.evaluate and folder.read_metrics(out) is not None:
            with folder.failure_recorded(out):
                evaluate(out, args.data, args.evaluate, args.threads, args.full_size)
    return 0


if __name__ == "__main__":
    sys.exit(command_line.run(main))
