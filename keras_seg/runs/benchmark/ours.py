"""This package's networks as a benchmark runs them: trained by `fit`, and served."""

import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_seg import backend, losses, metrics, nets, preprocess
from keras_seg.config import Config
from keras_seg.data import pipeline
from keras_seg.data.prepared import open_prepared
from keras_seg.labels import Head
from keras_seg.runs import evaluate, loop, optimizers

ops: Any = keras.ops  # Keras tensors have no static types


def built(config: Config, num_classes: int, threads: int | None = None):
    """The network of a run, and its weights by path."""
    backend.start(0, threads, config.precision)
    network = evaluate.Network(config, num_classes)
    return network, _by_path(network)


def _by_path(network: Any) -> dict[str, np.ndarray]:
    return {one.path: np.array(one.value) for one in network.net.weights}


def settle(network: Any) -> dict[str, np.ndarray]:
    """Give batch norm weights and statistics as after a training.

    With those of the beginning predictions are not like later ones: biases of 0 are
    removed, and without them ReLU is not joined to convolutions.

    Returns:
        all weights by path.
    """
    rng = np.random.default_rng(0)
    config = network.config
    norms = [
        layer
        for layer in network.net.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    for layer in norms:
        for weight, center in ((layer.gamma, 1), (layer.beta, 0)):
            if weight is not None:
                weight.assign(rng.normal(center, 0.2, weight.shape))
    images = rng.integers(0, 256, (2, *config.data.size, 3), np.uint8)
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0  # the statistics of this batch
    network.net(preprocess.apply(network.preprocess, images), training=True)
    for layer, momentum in zip(norms, momenta):
        layer.momentum = momentum
    return _by_path(network)


def serve(network: Any, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Class ids and probabilities with the network of a run."""
    logits = network.logits(images)
    ids = metrics.class_ids(logits)
    return np.asarray(ids).astype("uint8"), np.asarray(ops.softmax(logits, -1))


class Ours:
    """A network as a run trains it: `model.fit` on a batch that stays the same.

    Args:
        config: its settings; size, batch and optimizer are those of the step.
        network: `keras_seg.runs.evaluate.Network`.
        num_classes: of the labels.
    """

    def __init__(self, config: Config, network: Any, num_classes: int):
        net = self.net = network.net
        weights = {key: head.loss_weight for key, head in network.heads.items()}
        arguments = losses.compile_arguments(net, loss_weights=weights)
        optimizer = optimizers.build(config, net.trainable_variables)
        self.is_jax = backend.name() == "jax"
        net.compile(optimizer=optimizer, jit_compile=self.is_jax, **arguments)
        rng = np.random.default_rng(0)
        shape = (config.data.batch, *config.data.size)
        image = rng.integers(0, 255, (*shape, 3), np.uint8)
        label = rng.integers(0, num_classes, shape).astype(np.uint8)
        targets = {head: label for head in network.heads}
        if self.is_jax:
            import jax  # pyright: ignore

            (batch,) = network.on_device([(image, targets)])
            self.batch = jax.device_put(batch)
        else:
            self.batch = preprocess.apply(network.preprocess, image), targets
        self.infer = evaluate.forward(network.inference)

    def train(self, steps: int) -> float:
        """Seconds of a step, after two that do not count."""
        times = []
        wait = self._wait

        class Times(keras.callbacks.Callback):
            before = None

            def on_train_batch_end(self, batch, logs=None):
                # JAX returns before a step is done; a run stays one step ahead, too
                wait(self.before)
                self.before = (logs or {})["loss"]
                times.append(time.perf_counter())

        callbacks: Any = [Times()]
        if self.is_jax:
            callbacks = loop.PendingLogs(callbacks, add_history=True, model=self.net)
        self.net.fit(
            self._batches(steps + 2),
            steps_per_epoch=steps + 2,
            callbacks=callbacks,
            shuffle=False,
            verbose=0,
        )
        return (times[-1] - times[1]) / max(1, len(times) - 2)

    def predict(self, steps: int) -> float:
        """Seconds of predicting the batch, to logits of the images' size."""
        self._wait(self.infer(self.batch[0]))
        began = time.perf_counter()
        for _ in range(steps):
            self._wait(self.infer(self.batch[0])["logits"])
        return (time.perf_counter() - began) / steps

    def memory(self) -> int:
        """Most bytes that a device was asked for; 0 where it does not say."""
        if not self.is_jax:
            return 0
        import jax  # pyright: ignore

        statistics = jax.devices()[0].memory_stats() or {}
        return statistics.get("peak_bytes_in_use", 0)

    def _batches(self, steps: int) -> Any:
        if self.is_jax:
            return (self.batch for _ in range(steps))
        import tensorflow as tf

        options = tf.data.Options()
        options.autotune.enabled = False  # as in `keras_seg.data.pipeline`
        return tf.data.Dataset.from_tensors(self.batch).repeat().with_options(options)

    def _wait(self, result: Any) -> None:
        if self.is_jax and result is not None:
            import jax  # pyright: ignore

            jax.block_until_ready(result)


class Scores:
    """Validation at the end of a window, and its forward passes alone."""

    def __init__(self, config: Config, network: Any, data: Path):
        prepared = open_prepared(data)
        self.network = network
        self.samples = network.samples(prepared, "val")
        self.scorer = evaluate.Scorer(network, prepared)
        self.batch = config.validation.batch
        image, _, _ = self.samples.plain(0)
        images = np.stack([image] * self.batch)
        self.images = preprocess.apply(network.preprocess, images)
        self.infer = evaluate.forward(network.inference)

    def evaluate(self, times: int) -> float:
        """Seconds of a batch, the images in memory."""
        began = time.perf_counter()
        for _ in range(times):
            self.scorer.score(self.samples)
        batches = times * len(self.samples) / self.batch
        return (time.perf_counter() - began) / batches

    def forward(self, times: int) -> float:
        """Seconds of predicting a batch."""
        batches = times * len(self.samples) // self.batch
        began = time.perf_counter()
        for _ in range(batches):
            np.asarray(self.infer(self.images)["logits"])
        return (time.perf_counter() - began) / batches


class Loaded:
    """The input pipeline of a run, mirrored and scaled, from memory."""

    def __init__(self, config: Config, data: Path, workers: int):
        name = config.net.name
        samples = pipeline.Samples(open_prepared(data), "train", config.data.size)
        heads = {"logits": Head()}
        normalise = nets.get(name).preprocess
        feed = pipeline.Feed(
            samples, config.data.batch, normalise, heads, workers=workers
        )
        stream = feed.training(0, config.augment, 0, 10**9).dataset()
        self.batches: Any = iter(stream)

    def load(self, steps: int) -> float:
        """Seconds of a batch."""
        began = time.perf_counter()
        for _ in range(steps):
            next(self.batches)
        return (time.perf_counter() - began) / steps
