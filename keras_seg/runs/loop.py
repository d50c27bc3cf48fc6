"""One session of a training run. Start reading at `train`.

Import it through `keras_seg.runs.train.train`, which prepares the process first.

A window is the `validation.every` steps from one validation to the next: one row of
history.csv. Checkpoints fall anywhere; one from the inside of a window also holds the
metrics' partial sums. Batches are counted: with `optimizer.accumulate` > 1 an optimizer
step is that many.
"""

import itertools
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_seg import backend, metrics, plots, storage
from keras_seg.command_line import Line, duration, note
from keras_seg.config import Config
from keras_seg.data.pipeline import Feed
from keras_seg.data.prepared import Prepared
from keras_seg.data.summary import summarise
from keras_seg.errors import (
    DivergedError,
    InterruptedRunError,
    UsageError,
    memory_failure_named,
)
from keras_seg.nets import pretrained
from keras_seg.runs import checkpoint, evaluate, folder, optimizers
from keras_seg.runs.event_log import EventLog
from keras_seg.runs.options import Interruption, Options

KEPT_CHECKPOINTS = 2  # the newest may be damaged by the disk; then the one before
SAVING_SHARE = 0.005  # of the wall time at the default interval; 1 % with the best ones
SAVING_SECONDS = (30.0, 600.0)  # shortest and longest default interval
KEPT_VALIDATIONS = 8  # the best, from whose counts a report chooses the step anew
HISTORY_KEYS = ("miou", "pixel_accuracy", "mean_accuracy", "f1_macro", "fwiou")
HISTORY_KEYS += ("f1_micro_fg", "precision_micro_fg", "recall_micro_fg")


def train(
    config: Config,
    prepared: Prepared,
    out: Path,
    options: Options,
    asked: Interruption,
) -> dict[str, Any]:
    """Train until `config.steps`, from wherever `out` is, and score the best weights.

    Args:
        config, prepared: what is trained, on what.
        out: the run folder, locked.
        options: how.
        asked: changes when a signal asks the run to stop.

    Returns:
        The content of metrics.json.
    """
    with memory_failure_named():
        run = Run(config, prepared, out, options, asked)
        if not options.title:  # a stage says it once, for all its arms
            note(f"data: {prepared.folder}")
            note(summarise(prepared).text())
        if options.restart:  # not before the network could be built
            for each in run.together:
                folder.forget(each.out)
        run.restore()
        for each in run.together:
            each.write_identity()
        events = {}
        if options.tensorboard:
            for each in run.together:
                events[each] = EventLog(each.out / "tensorboard", each.state.history)
        saving = Saving(run)
        guests = Guests(run)
        # Steps first: the others read the number of steps it counts.
        callbacks = [Steps(run), guests, saving, ProgressLine(run)]
        with guests.present():
            while not run.is_over:
                logs = run.fit_window(callbacks)
                row = {}
                for each in reversed(run.together):  # the run itself last
                    each.follow(run.state)
                    validation = each.validate()
                    row = each.history_row(logs, validation)
                    each.keep_best(row)
                    each.keep_counts(validation)
                    each.write_history(row)
                    if each in events:
                        events[each].add(row)
                is_asked = guests.window_ended(row) or run.is_patience_out
                run.state.stopped = is_asked and run.state.step not in run.ends
                saving.save_if_due(inside_window=False)
        for follower in run.followers:
            follower.follow(run.state)
            follower.save(inside_window=False)  # its own last state
            follower.finish()
        return run.finish()


@dataclass
class State:
    """What a checkpoint holds beside arrays."""

    step: int = 0  # batches trained
    history: list[dict[str, float]] = field(default_factory=list)  # of history.csv
    best_step: int = -1
    best_miou: float = -1.0
    seconds: float = 0.0  # spent in training steps, over all sessions
    timed_seconds: float = 0.0  # of them, without the first step of each session,
    timed_steps: int = 0  # which compiles; for the speed
    inexact: list[str] = field(default_factory=list)  # changes that were allowed
    stopped: bool = False  # before its last step, as its patience or a callback asked


def read_state(values: Mapping[str, Any]) -> State:
    """The state in a checkpoint's meta.json.

    Raises:
        TypeError, ValueError, AttributeError: a value that no run has written.
    """
    state = State(**values)
    whole = [state.step, state.best_step, state.timed_steps]
    numbers = [state.best_miou, state.seconds, state.timed_seconds, *whole]
    numbers += [value for row in state.history for value in row.values()]
    is_whole = all(type(number) is int for number in whole)
    if not is_whole or not all(type(number) in (int, float) for number in numbers):
        raise ValueError("state")
    state.inexact = list(map(str, state.inexact))
    return state


class Run:
    """Everything of one run in this process: settings, network, data, state.

    Raises:
        UsageError: the network cannot be built or does not fit the data.
    """

    def __init__(
        self,
        config: Config,
        prepared: Prepared,
        out: Path,
        options: Options,
        asked: Interruption,
    ):
        self.config = config
        self.prepared = prepared
        self.out = out
        self.options = options
        self.asked = asked
        self.state = State()
        self.identity = folder.identity(config, prepared)
        self.total = config.steps * config.optimizer.accumulate
        self.window = config.validation.every * config.optimizer.accumulate
        lengths = (*config.extended, config.steps)
        self.ends = [length * config.optimizer.accumulate for length in lengths]

        num_classes = prepared.labels.num_classes
        self.network = evaluate.Network(config, num_classes, config.data.crop)
        self.net = self.network.net
        # What is validated: the same network, unless it is trained on crops or its
        # weights are averaged
        self.scored = self.network
        if config.data.crop is not None or config.optimizer.ema:
            self.scored = evaluate.Network(config, num_classes)
        self.fresh: Sequence[str] = ()  # layers that `init_weights` did not set
        if options.init_weights:
            self.fresh = self._load_weights(options.init_weights)
        self.optimizer = optimizers.build(config, self.net.trainable_variables)
        arguments = self.network.compile_arguments(prepared)
        self.train_confusion = arguments["metrics"]["logits"]
        self.scorer = evaluate.Scorer(self.scored, prepared)
        self.train_samples = self.network.samples(
            prepared, "train", config.data.samples
        )
        validation = config.validation
        self.val_samples = self.scored.samples(
            prepared, "val", validation.samples, validation.choice
        )
        self.workers = options.workers or backend.loader_threads()
        self.feed = Feed(
            self.train_samples,
            config.data.batch,
            self.network.preprocess,
            self.network.heads,
            config.data.joints,
            self.workers,
            config.data.crop,
            normalise=backend.name() == "tensorflow",  # else the device does
        )
        # On JAX: the batches of all windows to come
        self.stream: Iterator | None = None
        # The metrics' sums of the window that a checkpoint fell into, until its first
        # step
        self.metric_arrays: Mapping[str, np.ndarray] | None = None
        self.saved_best: tuple[int, ...] = ()  # the best steps of the kept checkpoints
        self.saved_validations: tuple[set[int], ...] = ()  # the best ones of each
        self.mean_over = ""  # the classes of the last validation's mIoU, unless all
        self.followers = [Follower(self, *each) for each in options.followers]
        self.others = [each.train_confusion for each in self.followers]
        if self.others:
            arguments["metrics"] = {"logits": [self.train_confusion, *self.others]}
        # TensorFlow's own kernels: XLA and op determinism exclude each other
        compiles = backend.name() != "tensorflow"
        self.net.compile(optimizer=self.optimizer, jit_compile=compiles, **arguments)
        if backend.name() != "jax":
            self._make_metric_variables()  # a first step that does is traced twice

    @property
    def together(self) -> "list[Run]":
        """The run and those that follow it."""
        return [self, *self.followers]

    def follow(self, state: State) -> None:
        """Take over how far the training is; a run that follows none is that itself."""

    def _load_weights(self, path: Path) -> list[str]:
        """Start from a file's weights or a run's; the layers that it does not set."""
        file = folder.weights_file(path)
        if not path.is_dir():
            return pretrained.load(self.net, self.config.net.name, file)
        with storage.damage_named(file, "It is no checkpoint.", "Name another run."):
            arrays, meta = checkpoint.load(file.parent)
            arrays = {k: v for k, v in arrays.items() if k.startswith("model/")}
            others = len(meta.get("identity", meta)["data"]["classes"])
        classes = (others, self.prepared.labels.num_classes)
        fresh = checkpoint.assign_by_name(self.net.weights, arrays, classes, path)
        return list(dict.fromkeys(name.rpartition("/")[0] for name in fresh))

    # Restoring

    def restore(self) -> None:
        """Set weights, optimizer and state from the newest checkpoint, if any.

        Raises:
            UsageError: another configuration, or another environment and no
                `allow_inexact`.
            StorageError: there are checkpoints, but all are damaged.
        """
        newest = checkpoint.load_newest(self.out / "checkpoints")
        if newest is None:
            for each in self.together:
                checkpoint.drop_after(each.out / "best", -1)
                folder.keep_validations(each.out, ())
            if self.options.init_weights:
                fresh = ", ".join(self.fresh) or "none"
                self.log(
                    f"starting from the weights of {self.options.init_weights}; layers "
                    f"that start at random: {fresh}"
                )
            elif any(is_frozen_kernel(weight) for weight in self.net.weights):
                self.log(
                    "warning: the frozen layers have random weights. Give them others "
                    "with --init-weights."
                )
            return
        step, arrays, meta = newest
        place = self.out / "checkpoints"
        with storage.damage_named(place, "Its newest meta.json is not that of a run."):
            identity, fingerprint = dict(meta["identity"]), dict(meta["fingerprint"])
            state, mid_window = read_state(meta["state"]), bool(meta["mid_window"])
            followers = dict(meta.get("followers", {}))
        wanted, *longer = self._identities(step)
        folder.check_same(identity, wanted, place, also=longer)
        self.state = state
        self._check_fingerprint(fingerprint)
        self._take_up_best()
        with storage.damage_named(place, "Its newest meta.json is not that of a run."):
            self.followers = [one for one in self.followers if one.take_up(followers)]
        checkpoint.drop_after(self.out / "checkpoints", step)
        checkpoint.assign(self.net.variables, arrays, "model")
        checkpoint.assign(self.optimizer.variables, arrays, "optimizer")
        if mid_window:
            if backend.name() == "jax":
                self._make_metric_variables()
            self.metric_arrays = arrays
        self.log(f"resuming at step {self.updates}")

    def _take_up_best(self) -> None:
        """Keep what the restored state knows as its best, and nothing later."""
        self.saved_best = (self.state.best_step,)
        self.saved_validations = (self.best_validations(),)
        checkpoint.drop_after(self.out / "best", self.state.best_step)
        known = folder.validation_steps(self.out)
        folder.keep_validations(self.out, [k for k in known if k <= self.updates])

    def _identities(self, step: int) -> list[dict[str, Any]]:
        """Those that the run can have had at a step: before it was extended, another.

        The first is that of the shortest run with such a step, whose bits it has.
        """
        lengths = (*self.config.extended, self.config.steps)
        return [
            folder.identity(
                self.config.changed(steps=length, extended=lengths[:position]),
                self.prepared,
            )
            for position, (length, end) in enumerate(zip(lengths, self.ends))
            if step <= end
        ]

    def _check_fingerprint(self, found: Mapping[str, Any]) -> None:
        for key, (old, new) in folder.differences(found, backend.fingerprint()):
            if not self.options.allow_inexact:
                raise UsageError(
                    f"The environment's {key} is {new!r}, but {old!r} when the run "
                    "started, and its bits depend on it. Use --allow-inexact to resume "
                    "all the same, or --restart to train anew."
                )
            self.state.inexact.append(f"{key}: {old} -> {new}")

    def _make_metric_variables(self) -> None:
        """Make before the first step what Keras would make in it."""
        outputs = {
            name: np.zeros((1, *output.shape[1:]), "float32")
            for name, output in self.net.output.items()
        }
        targets = {
            name: outputs[name] if head.target == "heatmaps" else outputs[name][..., 0]
            for name, head in self.network.heads.items()
        }
        self.net.compute_loss(y=targets, y_pred=outputs)
        self.net.compute_metrics(None, targets, outputs)

    def write_identity(self) -> None:
        """Write what tells whose run this is; from here on the folder is a run's."""
        (self.out / "failure.json").unlink(missing_ok=True)
        folder.drop_scores(self.out)  # of a shorter run, which this one extends
        storage.write_json(self.out / "config.json", self.identity)
        environment = {
            "fingerprint": backend.fingerprint(),
            "inexact": self.state.inexact,
            "commit": backend.commit(),
            "data": str(self.prepared.folder.resolve()),
            "command": sys.argv,
        }
        storage.write_json(self.out / "environment.json", environment)
        levels = self.prepared.meta.get("raw", {}).get("levels")
        folder.write_labels(self.out, self.prepared.labels, levels)

    # A window

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to train."""
        return self.state.stopped or self.state.step >= self.total

    @property
    def is_patience_out(self) -> bool:
        """Whether as many validations as `validation.patience` found nothing better."""
        patience = self.config.validation.patience
        begun = max((0, *(n for n in self.config.extended if n <= self.updates)))
        since = max(begun, self.state.best_step)
        vain = sum(row["step"] > since for row in self.state.history)
        return patience is not None and vain >= patience

    def is_window_end(self, step: int) -> bool:
        """Whether a validation follows the batch: regularly, and at each old end."""
        return step % self.window == 0 or step in self.ends

    def fit_window(self, callbacks: list[keras.callbacks.Callback]) -> dict[str, float]:
        """Train to the end of the window; the losses and the mIoU over it.

        Raises:
            DivergedError: the loss is not finite.
            DataError: a sample is damaged.
        """
        start = self.state.step
        stop = (start // self.window + 1) * self.window
        stop = min(stop, *(end for end in self.ends if end > start))
        rules = self.config.optimizer
        if rules.bn_mode == "full":  # switches between windows: `Config` sees to it
            self.network.freeze_batch_norm(start < rules.bn_start * rules.accumulate)
        asynchronous = PendingLogs(callbacks, add_history=True, model=self.net)
        try:
            fitted = self.net.fit(
                self._batches(start, stop),
                steps_per_epoch=stop - start,
                callbacks=asynchronous if backend.name() == "jax" else callbacks,
                shuffle=False,  # the batches are in their order already
                verbose=0,
            )
        except Exception:
            if self.train_samples.error is not None:  # tf.data makes another of it
                raise self.train_samples.error from None
            raise
        logs = {key: float(values[-1]) for key, values in fitted.history.items()}
        if not math.isfinite(logs["loss"]):
            raise self._diverged(f"The loss is {logs['loss']}")
        return logs

    def _batches(self, start: int, stop: int) -> Any:
        """The batches of a window, as `fit` takes them."""
        seed, augment = self.config.seed, self.config.augment
        if backend.name() == "tensorflow":
            return self.feed.training(seed, augment, start, stop).dataset()
        if self.stream is None:  # once, so that it loads while a window is validated
            batches = self.feed.training(seed, augment, start, self.total)
            self.stream = self.network.on_device(batches)
        return (batch for batch in itertools.islice(self.stream, stop - start))

    def validate(self) -> evaluate.Scored:
        """Score the present weights on the images of validation."""
        if self.scored is not self.network:
            self._bring(self.weights())
        scored = self.scorer.score(self.val_samples, self.workers)
        if len(self.val_samples) == len(self.prepared.samples("val")):
            evaluate.check_any(self.scored, self.prepared, scored)
        return scored

    def weights(self) -> dict[str, np.ndarray]:
        """What is validated, kept as the best and exported: the averages, if any."""
        averages = {id(v): mean for v, mean in optimizers.averages(self.optimizer)}
        arrays = checkpoint.named_arrays(self.net.variables, "model")
        for name, variable in zip(arrays, self.net.variables):
            if id(variable) in averages:
                arrays[name] = np.asarray(averages[id(variable)].value)
        return arrays

    def _bring(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Set the weights of the network that is validated."""
        # By position: names of random generators count up from network to network.
        variables = self.scored.net.variables
        for variable, name in zip(variables, sorted(arrays), strict=True):
            variable.assign(arrays[name])

    def history_row(
        self, logs: Mapping[str, float], validation: evaluate.Scored
    ) -> dict[str, float]:
        """A row of history.csv."""
        row = {"step": self.updates, "loss": logs["loss"]}
        row |= {key: value for key, value in logs.items() if key.endswith("_loss")}
        rate = optimizers.learning_rate(self.config)
        row["lr"] = float(rate(max(0, self.updates - 1)))
        trained = self._summary(self.train_confusion.confusion())
        row |= {f"train_{key}": trained[key] for key in HISTORY_KEYS}
        row["val_loss"] = validation.loss
        validated = self._summary(validation.confusion)
        scored = self.prepared.scored_ids or self.prepared.labels.names
        self.mean_over = folder.mean_over(validated | {"scored_ids": scored})
        return row | {f"val_{key}": validated[key] for key in HISTORY_KEYS}

    def _summary(self, confusion: np.ndarray) -> dict[str, Any]:
        return metrics.summary(confusion, classes=self.prepared.scored_ids)

    def keep_best(self, row: Mapping[str, float]) -> None:
        """Keep the weights in best/ if no validation was better; the first always."""
        if row["val_miou"] > self.state.best_miou or self.state.best_step < 0:
            arrays = self.weights()
            self._check_finite(arrays)
            self.state.best_step = self.updates
            # No valid pixel to score leaves NaN, which nothing would exceed.
            is_nan = math.isnan(row["val_miou"])
            self.state.best_miou = -1.0 if is_nan else row["val_miou"]
            # Those that a checkpoint refers to stay until `save` has written the next
            best = self.out / "best"
            checkpoint.save(best, self.updates, arrays, self.identity, keep=None)

    def keep_counts(self, validation: evaluate.Scored) -> None:
        """Keep the counts per image, if the validation is of all images."""
        if len(self.val_samples) == len(self.prepared.samples("val")):
            path = folder.validation_file(self.out, self.updates)
            path.parent.mkdir(exist_ok=True)
            folder.write_per_image(path, validation.counts)

    def best_validations(self) -> set[int]:
        """The steps of the best validations so far."""
        rows = [row for row in self.state.history if not math.isnan(row["val_miou"])]
        rows.sort(key=lambda row: (-row["val_miou"], row["step"]))
        return {int(row["step"]) for row in rows[:KEPT_VALIDATIONS]}

    def write_history(self, row: dict[str, float]) -> None:
        """Add a row to history.csv, which is replaced as a whole."""
        self.state.history.append(row)
        storage.write_table(self.out / "history.csv", self.state.history, hashed=True)

    def save(self, inside_window: bool) -> None:
        """Write the whole state of the run as a checkpoint."""
        arrays = checkpoint.named_arrays(self.net.variables, "model")
        arrays |= checkpoint.named_arrays(self.optimizer.variables, "optimizer")
        self._check_finite(arrays)
        if inside_window:
            for group, variables in self.metric_groups():
                arrays |= checkpoint.named_arrays(variables, group)
        meta = {
            "state": asdict(self.state),
            "followers": {each.key: asdict(each.state) for each in self.followers},
            "mid_window": inside_window,
            "fingerprint": backend.fingerprint(),
            "identity": self._identities(self.state.step)[0],
        }
        place = self.out / "checkpoints"
        checkpoint.save(place, self.state.step, arrays, meta, KEPT_CHECKPOINTS)
        for each in self.together:
            each.saved_best = (*each.saved_best, each.state.best_step)
            each.saved_best = each.saved_best[-KEPT_CHECKPOINTS:]
            checkpoint.keep_only(each.out / "best", each.saved_best)
            each.saved_validations = (*each.saved_validations, each.best_validations())
            each.saved_validations = each.saved_validations[-KEPT_CHECKPOINTS:]
            folder.keep_validations(each.out, set().union(*each.saved_validations))

    def metric_groups(self) -> Iterator[tuple[str, list]]:
        """(group in a checkpoint, variables): the run's metrics, its followers'."""
        others = {id(variable) for one in self.others for variable in one.variables}
        every = self.net.metrics_variables
        yield "metric", [variable for variable in every if id(variable) not in others]
        for each in self.followers:
            yield f"metric of {each.key}", list(each.train_confusion.variables)

    def _check_finite(self, arrays: Mapping[str, np.ndarray]) -> None:
        for name, array in arrays.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise self._diverged(f"{name} is not finite")

    def _diverged(self, what: str) -> DivergedError:
        good = checkpoint.steps(self.out / "checkpoints")
        last = f"that of step {good[-1]}" if good else "none"
        return DivergedError(
            f"{what} at step {self.updates}: the run diverged. The last good "
            f"checkpoint is {last}."
        )

    # The end

    def finish(self) -> dict[str, Any]:
        """Score the best weights on all of val, write the records."""
        kept = checkpoint.place(self.out / "best", self.state.best_step)
        with storage.damage_named(kept, "It is no checkpoint."):
            arrays, _ = checkpoint.load(kept)
        checkpoint.assign(self.net.variables, arrays, "model")
        if self.scored is not self.network:
            self._bring(arrays)
        samples = self.scored.samples(self.prepared, "val")
        best = self.scorer.score(samples, self.workers)
        evaluate.check_any(self.scored, self.prepared, best)
        result: dict[str, Any] = {
            "step": self.state.best_step,
            "steps": self.config.steps,
            "split": "val",
            **({"stopped": self.updates} if self.state.stopped else {}),
            **evaluate.record(self.scored, self.prepared, best),
        }
        place = folder.samples_file(self.out)
        evaluate.save_samples(self.scored, self.prepared, samples, place)
        evaluate.save_predictions(self.scored, self.prepared, samples, self.out)
        curves = plots.run_curves(self.state.history)
        storage.write_file(self.out / "curves.png", plots.png(curves))
        timing = self._timing()
        rows = [{"name": name, "value": float(v)} for name, v in timing.items()]
        storage.write_table(self.out / "timing.csv", rows, hashed=True)
        folder.write_per_image(folder.per_image_file(self.out, None), best.counts)
        checkpoint.keep_only(self.out / "checkpoints", [self.state.step])
        checkpoint.keep_only(self.out / "best", [self.state.best_step])
        folder.keep_validations(self.out, self.best_validations())
        over = folder.mean_over(result)
        self.log(
            f"done: val mIoU {result['summary']['miou']:.4f}{over and f' {over}'} at "
            f"step {result['step']} of {result['steps']}, "
            f"{timing['ms_per_image']:.1f} ms/image"
        )
        storage.write_json(self.out / "metrics.json", result)  # last: it is finished
        return result

    def _timing(self) -> dict[str, float]:
        images = self.state.timed_steps * self.config.data.batch
        return {
            "train_seconds": self.state.seconds,
            "images_per_second": images / max(self.state.timed_seconds, 1e-9),
            "ms_per_image": self.scored.milliseconds_per_image(),
        }

    @property
    def updates(self) -> int:
        """Optimizer steps trained."""
        return self.state.step // self.config.optimizer.accumulate

    def log(self, line: str) -> None:
        """A line on stderr and, with the time, in log.txt."""
        note(f"{self.options.title}{line}")
        folder.log(self.out, line)


class PendingLogs(keras.callbacks.CallbackList):
    """Callbacks that get the logs of a step while the device may still compute it."""

    def on_train_batch_end(self, batch, logs=None):
        for callback in self.callbacks:
            callback.on_train_batch_end(batch, logs)


class Follower(Run):
    """An arm whose training is another one's: it differs in how it predicts.

    It has its own scores, best weights and folder; the leader's checkpoint holds its
    state.
    """

    def __init__(self, leader: Run, config: Config, out: Path):
        self.__dict__.update(leader.__dict__)
        self.config, self.out = config, out
        self.identity = folder.identity(config, leader.prepared)
        self.key = storage.json_sha256(self._identities(0)[0])  # stays when extended
        self.state, self.saved_best, self.followers = State(), (), []
        self.saved_validations = ()
        self.options = replace(leader.options, title=f"{out.parent.name}: ")
        self.network = self.scored = leader.network.predicting_as(config)
        if leader.scored is not leader.network:
            self.scored = leader.scored.predicting_as(config)
        self.scorer = evaluate.Scorer(self.scored, leader.prepared)
        arguments = self.network.compile_arguments(leader.prepared)
        self.train_confusion = arguments["metrics"]["logits"]
        self.train_confusion.name += f"_{self.key[:8]}"
        self.others = []

    def follow(self, state: State) -> None:
        for name in ("step", "seconds", "timed_seconds", "timed_steps", "inexact"):
            setattr(self.state, name, getattr(state, name))

    def take_up(self, found: Mapping[str, Any]) -> bool:
        """Resume from what a leader's checkpoint holds; whether it holds anything."""
        if self.key not in found:
            return False
        self.state = read_state(found[self.key])
        self._take_up_best()
        return True


def is_frozen_kernel(weight: Any) -> bool:
    """Whether a weight is a kernel that is not trained."""
    return weight.path.endswith("/kernel") and not weight.trainable


class Steps(keras.callbacks.Callback):
    """Counts steps and their time; sets partial metric sums after a resume."""

    def __init__(self, run: Run):
        super().__init__()
        self.run = run
        self.began = 0.0
        self.has_compiled = False
        self.pending: Any = None  # the loss of the last step

    def on_epoch_begin(self, epoch, logs=None):
        if self.run.metric_arrays is not None:  # Keras has just reset the metrics
            sums, self.run.metric_arrays = self.run.metric_arrays, None
            for group, variables in self.run.metric_groups():
                checkpoint.assign(variables, sums, group)

    def on_train_batch_begin(self, batch, logs=None):
        self.began = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        # JAX returns before a step is done: stay one step ahead, else memory fills with
        # batches and the time measured is none.
        if backend.name() == "jax":
            before, self.pending = self.pending, (logs or {})["loss"]
            if before is not None:
                before.block_until_ready()
        state, seconds = self.run.state, time.monotonic() - self.began
        state.step += 1
        state.seconds += seconds
        if self.has_compiled:
            state.timed_seconds += seconds
            state.timed_steps += 1
        self.has_compiled = True


class Guests(keras.callbacks.Callback):
    """Passes what happens on to the callbacks of the user, as one training.

    A window is a `fit` of its own: passed on as it is, each would begin and end a
    training. To the user's callbacks a window is an epoch.
    """

    def __init__(self, run: Run):
        super().__init__()
        self.run = run
        epochs = math.ceil(run.total / run.window)
        params: Any = {"epochs": epochs, "steps": run.window, "verbose": 0}
        self.callbacks = keras.callbacks.CallbackList(
            list(run.options.callbacks), model=run.net, **params
        )

    @contextmanager
    def present(self) -> Iterator[None]:
        """The training begins and ends, also where the block raises."""
        self.callbacks.on_train_begin()
        try:
            yield
        finally:
            self.callbacks.on_train_end()

    def window_ended(self, row: Mapping[str, float]) -> bool:
        """Pass a row of the history on; whether a callback wants the training to end.

        Keras' way to say so is `model.stop_training`, which `fit` resets.
        """
        self.callbacks.on_epoch_end(len(self.run.state.history) - 1, dict(row))
        return bool(self.run.net.stop_training)

    def on_epoch_begin(self, epoch, logs=None):
        self.callbacks.on_epoch_begin(len(self.run.state.history))

    def on_train_batch_begin(self, batch, logs=None):
        self.callbacks.on_train_batch_begin(batch, logs)

    def on_train_batch_end(self, batch, logs=None):
        self.callbacks.on_train_batch_end(batch, logs)


class Saving(keras.callbacks.Callback):
    """Saves when it is due, at the end, and when the run is asked to stop."""

    def __init__(self, run: Run):
        super().__init__()
        self.run = run
        self.saved_at = time.monotonic()
        self.interval = SAVING_SECONDS[0]

    def on_train_batch_end(self, batch, logs=None):
        step = self.run.state.step
        if not self.run.is_window_end(step):
            self.save_if_due(inside_window=True)
        # else the window is closed first, and `train` saves

    def save_if_due(self, inside_window: bool) -> None:
        """Save, perhaps.

        Raises:
            InterruptedRunError: a signal asked the run to stop, and it is saved.
        """
        run = self.run
        step, every = run.state.step, run.options.checkpoint_every
        if every is None:
            is_due = time.monotonic() - self.saved_at >= self.interval
        else:
            is_due = step % every == 0
        if is_due or run.asked.signal or run.is_over:
            _ = self.model  # on JAX, brings the variables up to date
            began = time.monotonic()
            run.save(inside_window)
            self.saved_at = time.monotonic()
            shortest, longest = SAVING_SECONDS
            cost = (self.saved_at - began) / SAVING_SHARE
            self.interval = min(max(cost, shortest), longest)
        if run.asked.signal and not run.is_over:
            raise InterruptedRunError(
                f"Interrupted by {run.asked.signal} at step {run.updates}; "
                "the same command resumes there.",
                run.asked.signal,
            )


class ProgressLine(keras.callbacks.Callback):
    """One line: step, loss, mIoU, images a second, time left."""

    def __init__(self, run: Run):
        super().__init__()
        self.run = run
        self.line = Line()
        self.first_step = run.state.step
        self.began = 0.0

    def on_train_batch_end(self, batch, logs=None):
        run, done = self.run, self.run.state.step
        if done == self.first_step + 1:
            self.began = time.monotonic()  # the first step compiles: it is left out
        is_last = done == run.total
        if self.line.is_due or is_last:
            text = f"{run.options.title}{self.text(logs or {})}"
            self.line.show(text, final=is_last)

    def text(self, logs: Mapping[str, Any]) -> str:
        """What the line shows now."""
        run, done = self.run, self.run.state.step
        line = f"step {done}/{run.total}  loss {float(logs['loss']):.4f}"
        train_miou = logs.get("logits_miou", logs.get("miou"))
        if train_miou is not None:
            line += f"  mIoU {float(train_miou):.3f}"
        if run.state.history:
            line += f"  val mIoU {run.state.history[-1]['val_miou']:.3f}"
            line += f" {run.mean_over}" if run.mean_over else ""
        measured, seconds = done - self.first_step - 1, time.monotonic() - self.began
        if measured and seconds:
            rate = measured / seconds
            line += f"  {rate * run.config.data.batch:.1f} images/s"
            line += f"  {duration((run.total - done) / rate)} left"
        return line
