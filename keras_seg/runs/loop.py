"""One sitting of a training run: compile, windows of `model.fit`, callbacks.

Import it through `keras_seg.runs.train.train`, which prepares the process first.

A window is `val_every` steps: one line of history, one validation. Checkpoints fall
anywhere; one from the inside of a window also holds the metrics' partial sums. Steps
are counted in batches: with `accumulate` > 1 an optimizer step is that many.
"""

import math
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import keras
import numpy as np

from keras_seg import backend, losses, metrics, storage
from keras_seg import plots as figures
from keras_seg.command_line import duration
from keras_seg.config import Config
from keras_seg.data import pipeline
from keras_seg.data.prepared import Prepared
from keras_seg.errors import (
    DataError,
    DivergedError,
    InterruptedRunError,
    UsageError,
    memory_failure_named,
)
from keras_seg.runs import checkpoint, optimizers
from keras_seg.runs import folder as run_folder
from keras_seg.runs.evaluate import Network, save_samples, scores, weights_of
from keras_seg.runs.event_log import EventLog

KEPT_CHECKPOINTS = 2  # the newest may be damaged by the disk; then the one before
SAVING_SHARE = 0.005  # of the wall time at the default interval; 1 % with the best ones
SAVING_SECONDS = (30.0, 600.0)  # shortest and longest default interval
PROGRESS_SECONDS = (0.5, 10.0)  # between progress lines: on a terminal, otherwise
SAMPLE_IMAGES = 4  # validation images kept with their predictions
HISTORY_KEYS = ("miou", "pixel_accuracy", "mean_accuracy", "f1_macro", "fwiou")
HISTORY_KEYS += ("f1_micro_fg", "precision_micro_fg", "recall_micro_fg")


@dataclass
class State:
    """What a checkpoint holds beside arrays."""

    step: int = 0  # batches trained
    history: list[dict] = field(default_factory=list)  # rows of history.csv
    best_step: int = -1
    best_miou: float = -1.0
    seconds: float = 0.0  # spent in training steps, over all sittings
    timed_seconds: float = 0.0  # of them, without the first step of each sitting,
    timed_steps: int = 0  # which compiles; for the speed
    inexact: list[str] = field(default_factory=list)  # changes that were allowed


class Run:
    """Everything of one run in this process; `carry_out` brings it to its end."""

    def __init__(self, config: Config, prepared: Prepared, out: Path, options, asked):
        self.config = config
        self.prepared = prepared
        self.out = out
        self.options = options  # training.Options
        self.asked = asked  # training.Interruption
        self.state = State()
        self.identity = run_folder.identity(config, prepared)
        self.total = config.steps * config.optimizer.accumulate
        self.window = config.validation.every * config.optimizer.accumulate
        self.event_log: EventLog | None = None

    def carry_out(self) -> dict:
        """Train what is left, evaluate the best, write the records.

        Returns:
            The content of metrics.json.
        """
        with memory_failure_named():
            self._build()
            self._restore()
            self._write_identity()
            if self.options.tensorboard:
                self.event_log = EventLog(self.out / "tensorboard", self.state.history)
            while self.state.step < self.total:
                self._fit_segment()
            return self._finish()

    # Building and restoring

    def _build(self):
        config, prepared = self.config, self.prepared
        self.network = Network(config, prepared.labels.num_classes)
        self.net = self.network.net
        if self.options.init_weights:
            from keras_seg.nets import pretrained

            pretrained.load(self.net, config.net.name, self.options.init_weights)
        head_losses = losses.for_heads(
            self.net, losses.build(config.loss, weights_of(config, prepared))
        )
        head_weights = {
            name: head.loss_weight
            * (config.loss.joint_weight if head.target == "heatmaps" else 1.0)
            for name, head in self.network.heads.items()
        }
        self.optimizer = optimizers.build(config, self.net.trainable_variables)
        num_classes = prepared.labels.num_classes
        direct_weights = self.network.direct_weights(prepared)
        self.train_confusion = metrics.ConfusionMatrix(
            num_classes, resize="labels", direct_weights=direct_weights, name="miou"
        )
        self.net.compile(
            optimizer=self.optimizer,
            loss=head_losses,
            loss_weights=head_weights,
            metrics={"logits": self.train_confusion},
            jit_compile=False,
        )
        # The thesis' second Network instance: the same weights in inference mode.
        self.validation_net = keras.Model(self.net.input, self.net.output)
        self.confusion = metrics.ImageCounts(
            num_classes,
            batch=config.validation.batch,
            classes=prepared.scored_ids,
            resize="logits",
            direct_weights=direct_weights,
            name="miou",
        )
        self.validation_net.compile(
            loss=head_losses,
            loss_weights=head_weights,
            metrics={"logits": self.confusion},
            jit_compile=False,
        )
        self.train_samples = self.network.samples(prepared, "train")
        self.val_samples = self.network.samples(
            prepared, "val", limit=config.validation.samples
        )

    def _restore(self):
        self.metric_arrays: Mapping[str, np.ndarray] | None = None
        newest = checkpoint.load_newest(self.out / "checkpoints")
        if newest is None:
            checkpoint.drop_after(self.out / "best", -1)
            return
        step, arrays, meta = newest
        for key, (old, new) in run_folder.differences(meta["identity"], self.identity):
            raise UsageError(f"setting {key}", new, f"{old} as in the checkpoint")
        checkpoint.drop_after(self.out / "checkpoints", step)
        checkpoint.drop_after(self.out / "best", meta["state"]["best_step"])
        self.state = State(**meta["state"])
        self._refuse_another_fingerprint(meta["fingerprint"])
        checkpoint.assign(self.net.variables, arrays, "model")
        checkpoint.assign(self.optimizer.variables, arrays, "optimizer")
        if meta["mid_window"]:
            self._make_metric_variables()
            self.metric_arrays = arrays
        self.say(
            f"going on at step {self.state.step // self.config.optimizer.accumulate}"
        )

    def _make_metric_variables(self):
        """Keras makes them in the first step; restored sums are set before it."""
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

    def _refuse_another_fingerprint(self, found: Mapping):
        for key, (old, new) in run_folder.differences(found, backend.fingerprint()):
            if not self.options.allow_inexact:
                raise UsageError(
                    f"environment {key}",
                    new,
                    f"{old} as when the run began, since its bits depend on it; "
                    "or --allow-inexact, or --restart",
                )
            self.state.inexact.append(f"{key}: {old} -> {new}")

    def _write_identity(self):
        storage.write_json(self.out / "config.json", self.identity)
        environment = {
            "fingerprint": backend.fingerprint(),
            "inexact": self.state.inexact,
            "commit": backend.commit(),
            "data": str(self.prepared.folder.resolve()),
            "command": sys.argv,
        }
        storage.write_json(self.out / "environment.json", environment)

    # Training

    def _fit_segment(self):
        """One call of `fit`: as many equal windows as lie ahead, at least one."""
        config, start, stop = self.config, self.state.step, self.total
        if config.optimizer.bn_mode == "full":
            switch = config.optimizer.bn_start * config.optimizer.accumulate
            self.network.freeze_batch_norm(start < switch)
            if start < switch:
                stop = min(stop, switch)
        if start % self.window:  # resumed inside a window: finish that one first
            stop = min(stop, start - start % self.window + self.window)
        length = min(self.window, stop - start)
        windows = (stop - start) // length
        batches = pipeline.training_batches(
            self.train_samples,
            batch=config.data.batch,
            seed=config.seed,
            augment=config.augment,
            start_step=start,
            stop_step=start + windows * length,
            preprocess=self.network.preprocess,
            heads=self.network.heads,
            joint_targets=config.data.joints,
            workers=self.options.workers,
        )
        try:
            self.net.fit(
                batches,
                epochs=windows,
                steps_per_epoch=length,
                callbacks=[_Progress(self), _Windows(self), _Checkpoints(self)],
                shuffle=False,  # the batches are in their order already
                verbose=0,
            )
        except Exception:
            self._raise_data_error()
            raise

    def _raise_data_error(self):
        for samples in (self.train_samples, self.val_samples):
            if samples.error is not None:
                raise samples.error

    def end_window(self, logs: Mapping[str, float]):
        """Validate, keep the best, add a line of history."""
        config, step = self.config, self.state.step
        if not math.isfinite(logs["loss"]):
            self._raise_diverged("loss", logs["loss"])
        validation = self.validate(self.val_samples)
        updates = step // config.optimizer.accumulate
        row = {"step": updates, "loss": float(logs["loss"])}
        row |= {key: float(v) for key, v in logs.items() if key.endswith("_loss")}
        row["lr"] = float(optimizers.learning_rate(config)(max(0, updates - 1)))
        confusion = self.train_confusion.confusion()
        trained = metrics.summary(confusion, classes=self.prepared.scored_ids)
        row |= {f"train_{key}": trained[key] for key in HISTORY_KEYS}
        row["val_loss"] = validation["loss"]
        row |= {f"val_{key}": validation["summary"][key] for key in HISTORY_KEYS}
        self.state.history.append(row)
        if row["val_miou"] > self.state.best_miou or self.state.best_step < 0:
            self.state.best_step = updates
            # No valid pixel to score leaves NaN, which nothing would exceed.
            self.state.best_miou = (
                -1.0 if math.isnan(row["val_miou"]) else row["val_miou"]
            )
            arrays = checkpoint.named_arrays(self.net.variables, "model")
            self._refuse_not_finite(arrays)
            best = self.out / "best"
            checkpoint.save(best, updates, arrays, self.identity, keep=1)
        storage.write_table(self.out / "history.csv", self.state.history)
        if self.event_log is not None:
            self.event_log.add(row)

    def validate(self, samples) -> dict:
        """{"loss", "confusion" int64 [C, C], "summary", "counts" `PerImage`} of the
        present weights."""
        config = self.config
        batches = pipeline.evaluation_batches(
            samples,
            batch=config.validation.batch,
            preprocess=self.network.preprocess,
            heads=self.network.heads,
            joint_targets=config.data.joints,
            workers=self.options.workers,
        )
        batch_counts = _BatchCounts(self.confusion)
        try:
            logs = self.validation_net.evaluate(
                batches, verbose=0, return_dict=True, callbacks=[batch_counts]
            )
        except Exception:
            self._raise_data_error()
            raise
        confusion = self.confusion.confusion()
        if self.confusion.invalid:
            raise DataError(
                "labels", f"{self.confusion.invalid} pixels of no class", "none"
            )
        counts = np.concatenate(batch_counts.arrays, axis=1)[:, : len(samples)]
        return {
            "loss": float(logs["loss"]),
            "confusion": confusion,
            "counts": run_folder.PerImage(samples.ids, *counts),
            "summary": metrics.summary(confusion, classes=self.prepared.scored_ids),
        }

    def save_checkpoint(self, mid_window: bool):
        """Write the whole state of the run."""
        arrays = checkpoint.named_arrays(self.net.variables, "model")
        arrays |= checkpoint.named_arrays(self.optimizer.variables, "optimizer")
        self._refuse_not_finite(arrays)
        if mid_window:
            arrays |= checkpoint.named_arrays(self.net.metrics_variables, "metric")
        meta = {
            "state": asdict(self.state),
            "mid_window": mid_window,
            "fingerprint": backend.fingerprint(),
            "identity": self.identity,
        }
        folder = self.out / "checkpoints"
        checkpoint.save(folder, self.state.step, arrays, meta, KEPT_CHECKPOINTS)

    def _refuse_not_finite(self, arrays: Mapping[str, np.ndarray]):
        for name, array in arrays.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                self._raise_diverged(name, "not finite")

    def _raise_diverged(self, what: str, value):
        good = checkpoint.steps(self.out / "checkpoints")
        last = f"step {good[-1]}" if good else "none"
        raise DivergedError(
            f"{what} at step {self.state.step // self.config.optimizer.accumulate}",
            value,
            f"a finite number (last good checkpoint: {last})",
        )

    # The end

    def _finish(self) -> dict:
        arrays, _ = run_folder.load_best(self.out)
        checkpoint.assign(self.net.variables, arrays, "model")
        samples = self.network.samples(self.prepared, "val")
        best = self.validate(samples)
        result = {
            "step": self.state.best_step,
            "steps": self.config.steps,
            "split": "val",
            "images": len(samples),
            "classes": list(self.prepared.labels.names),
            "loss": metrics.plain(best["loss"]),
            **scores(best["confusion"], self.prepared.scored_ids),
            "parameters": self.network.parameters,
            "gflop": self.network.gflop,
        }
        save_samples(self.network, self.prepared, samples, self.out, SAMPLE_IMAGES)
        figures.save_curves(self.state.history, self.out / "curves.png")
        timed_images = self.state.timed_steps * self.config.data.batch
        timing = {
            "train_seconds": self.state.seconds,
            "images_per_second": timed_images / max(self.state.timed_seconds, 1e-9),
            "ms_per_image": self.network.milliseconds_per_image(),
        }
        rows = [{"name": name, "value": float(v)} for name, v in timing.items()]
        storage.write_table(self.out / "timing.csv", rows)
        counts_file = run_folder.per_image_file(self.out, None)
        run_folder.write_per_image(counts_file, best["counts"])
        storage.write_json(self.out / "metrics.json", result)
        self.say(
            f"done: val mIoU {best['summary']['miou']:.4f} at step {result['step']} "
            f"of {result['steps']}, {timing['ms_per_image']:.1f} ms/image"
        )
        return result

    def say(self, line: str):
        """A line on stderr and, with the time, in log.txt."""
        _write_stderr(f"{self.options.title}{line}\n")
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        with open(self.out / "log.txt", "a") as file:
            file.write(f"{stamp} {line}\n")


class _Windows(keras.callbacks.Callback):
    """Counts steps and closes windows; sets partial metric sums after a resume."""

    def __init__(self, run: Run):
        super().__init__()
        self.run = run
        self.has_compiled = False

    def on_epoch_begin(self, epoch, logs=None):
        if self.run.metric_arrays is not None:
            checkpoint.assign(
                self.model.metrics_variables, self.run.metric_arrays, "metric"
            )
            self.run.metric_arrays = None

    def on_train_batch_begin(self, batch, logs=None):
        self.began = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        state, seconds = self.run.state, time.monotonic() - self.began
        state.step += 1
        state.seconds += seconds
        if self.has_compiled:
            state.timed_seconds += seconds
            state.timed_steps += 1
        self.has_compiled = True

    def on_epoch_end(self, epoch, logs=None):
        _ = self.model  # on JAX, brings the variables up to date
        self.run.end_window(logs)


class _Checkpoints(keras.callbacks.Callback):
    """Saves when it is due, at the end, and when the run is asked to stop."""

    def __init__(self, run: Run):
        super().__init__()
        self.run = run
        self.saved_at = time.monotonic()
        self.interval = SAVING_SECONDS[0]

    def on_train_batch_end(self, batch, logs=None):
        at_window_end = (
            self.run.state.step % self.run.window == 0
            or self.run.state.step == self.run.total
        )
        if not at_window_end:  # else the window is closed first
            self._save_if_due(mid_window=True)

    def on_epoch_end(self, epoch, logs=None):
        mid_window = (
            self.run.state.step % self.run.window != 0
            and self.run.state.step != self.run.total
        )
        self._save_if_due(mid_window)

    def _save_if_due(self, mid_window: bool):
        run = self.run
        step, every = run.state.step, run.options.checkpoint_every
        if every is None:
            due = time.monotonic() - self.saved_at >= self.interval
        else:
            due = step % every == 0
        if due or run.asked.signal or step == run.total:
            _ = self.model  # on JAX, brings the variables up to date
            began = time.monotonic()
            run.save_checkpoint(mid_window)
            self.saved_at = time.monotonic()
            shortest, longest = SAVING_SECONDS
            cost = (self.saved_at - began) / SAVING_SHARE
            self.interval = min(max(cost, shortest), longest)
        if run.asked.signal and step < run.total:
            raise InterruptedRunError(
                f"Interrupted by {run.asked.signal} at step "
                f"{step // run.config.optimizer.accumulate}; "
                "the same command resumes there.",
                run.asked.signal,
            )


class _BatchCounts(keras.callbacks.Callback):
    """Gathers the counts of each image, batch by batch.

    Attributes:
        arrays: int64 [3, batch, C] of each batch (`metrics.ImageCounts.images`).
    """

    def __init__(self, metric: metrics.ImageCounts):
        super().__init__()
        self.metric = metric
        self.arrays: list[np.ndarray] = []

    def on_test_batch_end(self, batch, logs=None):
        _ = self.model  # on JAX, brings the variables up to date
        self.arrays.append(self.metric.images())


class _Progress(keras.callbacks.Callback):
    """One line: step, loss, mIoU, images a second, time left."""

    def __init__(self, run: Run):
        super().__init__()
        self.run = run
        self.first_step = run.state.step
        self.began = self.shown_at = time.monotonic()
        self.terminal = sys.stderr is not None and sys.stderr.isatty()

    def on_train_batch_end(self, batch, logs=None):
        run, now = self.run, time.monotonic()
        done = run.state.step + 1  # this batch is counted by the next callback
        if done == self.first_step + 1:
            self.began = now  # the first step compiles; it says nothing of the speed
        pause = PROGRESS_SECONDS[0 if self.terminal else 1]
        if now - self.shown_at < pause and done != run.total:
            return
        self.shown_at = now
        measured = done - self.first_step - 1
        line = f"step {done}/{run.total}  loss {float(logs['loss']):.4f}"
        train_miou = logs.get("logits_miou", logs.get("miou"))
        if train_miou is not None:
            line += f"  mIoU {float(train_miou):.3f}"
        if run.state.history:
            line += f"  val mIoU {run.state.history[-1]['val_miou']:.3f}"
        if measured > 0 and now > self.began:
            rate = measured / (now - self.began)
            left = (run.total - done) / rate
            line += (
                f"  {rate * run.config.data.batch:.1f} images/s  {duration(left)} left"
            )
        end = "\n" if done == run.total or not self.terminal else ""
        start = "\r\x1b[K" if self.terminal else ""
        _write_stderr(f"{start}{run.options.title}{line}{end}")


def _write_stderr(text: str):
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        pass  # the terminal went away; the run goes on
