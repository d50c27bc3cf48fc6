"""A network with what belongs to it, and the one function that scores it."""

import copy
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_seg import (
    backend,
    class_weights,
    losses,
    metrics,
    nets,
    plots,
    preprocess,
    storage,
)
from keras_seg.command_line import Progress
from keras_seg.config import Config
from keras_seg.data.images import fitted, on_canvas
from keras_seg.data.pipeline import Feed, Samples
from keras_seg.data.prepared import Prepared, Sample, read_label
from keras_seg.errors import DataError, NothingToScoreError
from keras_seg.labels import IGNORE_ID
from keras_seg.nets import flops
from keras_seg.runs import folder

TIMED_SECONDS = 3.0  # at most, for the time of one image
TIMED_IMAGES = 20
# Of predictions that are kept for the report, before compression
KEPT_IMAGES, KEPT_BYTES = 256, 16 << 20
SAMPLE_IMAGES = 4  # kept with their predictions
MOST_BYTES_OF_CONSTANTS = 1 << 30  # in a graph, which can hold 2 GB

ops: Any = keras.ops  # Keras tensors have no static types


class Network:
    """The network of a configuration, built with fresh weights.

    Args:
        config: the configuration.
        num_classes: of the data.
        size: (height, width) of its images without padding; None is `data.size`.

    Attributes:
        config: Config.
        net: keras.Model with every supervised head.
        heads: {name: keras_seg.labels.Head}.
        inference: keras.Model, image -> {"logits": logits of the image's size}.
        preprocess: a key of `keras_seg.preprocess.PREPROCESS`.
        parameters: {"trainable", "all"}: numbers of scalars in the weights.
        gflop: of predicting one image (`keras_seg.nets.flops`).
        is_portable: predict in the operations of exports, which may be slower.
        trained_on: the data in which class weights count; None: those that are given.
    """

    is_portable = False
    trained_on: Prepared | None = None

    def __init__(
        self, config: Config, num_classes: int, size: tuple[int, int] | None = None
    ):
        self.config = config
        size = size or config.data.size
        if config.data.pad:
            size = nets.padded_size(config.net.name, size, **config.net.knobs)
        self.preprocess = config.net.preprocess or nets.get(config.net.name).preprocess
        self.net: Any = nets.build(
            config.net.name,
            (*size, 3),
            num_classes,
            filter_scale=config.net.filter_scale,
            **config.net.knobs,
        )
        if config.loss.penalise == "kernels":
            losses.penalise_kernels(self.net, config.loss.l1, config.loss.l2)
        self.heads = nets.heads(config.net.name, num_classes, **config.net.knobs)
        self.inference: Any = nets.inference_model(self.net)
        self.parameters = {
            "trainable": _size(self.net.trainable_weights),
            "all": _size(self.net.weights),
        }
        self.gflop = flops.forward(self.inference) / 1e9
        self._batch_norms = [
            layer
            for layer in self.net.layers
            if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
        ]

    def predicting_as(self, config: Config) -> "Network":
        """The same network and weights, with another configuration's predictions."""
        other = copy.copy(self)
        other.config = config
        return other

    def samples(
        self,
        prepared: Prepared,
        split: str,
        limit: int | None = None,
        choice: str = "spread",
    ) -> Samples:
        """The images and labels of a split at the size the network takes."""
        return Samples(
            prepared,
            split,
            self.config.data.size,
            fit=self.config.data.fit,
            padded_size=self.net.input_shape[1:3],
            limit=limit,
            choice=choice,
        )

    def inside(self, size: tuple[int, int]) -> tuple[int, int]:
        """What of `config.data.size` an image of a size gets: height and width."""
        return fitted(size, self.config.data.size, self.config.data.fit)

    def direct_weights(self, prepared: Prepared) -> np.ndarray | None:
        """float64 [C] on the logits in prediction; None unless configured so."""
        loss = self.config.loss
        if loss.strategy != "direct" or not loss.direct_at_inference:
            return None
        return training_weights(self.config, self.trained_on or prepared)

    def compile_arguments(self, prepared: Prepared) -> dict[str, Any]:
        """Losses, their weights and the mIoU (`losses.compile_arguments`)."""
        settings = self.config.loss
        weights = training_weights(self.config, self.trained_on or prepared)
        joints = {"heatmaps": settings.joint_weight}
        return losses.compile_arguments(
            self.net,
            losses.build(settings, weights),
            loss_weights={
                name: head.loss_weight * joints.get(head.target, 1.0)
                for name, head in self.heads.items()
            },
            direct_weights=self.direct_weights(prepared),
        )

    def logits(
        self, images: np.ndarray, weights: np.ndarray | None = None
    ) -> np.ndarray:
        """float32 [N, H, W, C] of images uint8 RGB [N, H, W, 3] of `config.data.size`.

        Images are padded to the network's stride where it needs it, and the logits
        cropped back; `weights` [C] multiply them (`direct_weights`).
        """
        inputs = preprocess.apply(self.preprocess, images)
        height, width = images.shape[1:3]
        inputs = np.pad(inputs, self._padding(height, width))
        logits = self._infer(inputs)["logits"]
        logits = np.asarray(logits)[:, :height, :width]
        return logits if weights is None else logits * weights.astype("float32")

    def _padding(self, height: int, width: int) -> list[tuple[int, int]]:
        """Of images [N, height, width, 3], to what the network takes."""
        padded_height, padded_width = self.net.input_shape[1:3]
        rows, columns = padded_height - height, padded_width - width
        return [(0, 0), (0, rows), (0, columns), (0, 0)]

    @cached_property
    def _infer(self) -> Callable[[Any], Any]:
        predict = forward(self.inference, self.is_portable)
        return backend.beside_a_copy(predict, self.inference.variables)

    def fix_weights(self) -> None:
        """Predict with the present weights from now on, whatever becomes of them.

        On TensorFlow they are constants of the compiled prediction: it has no more to
        cast them and to join batch norm to them, which for one image takes as long as
        the rest. The logits differ in the last digits.
        """
        self._infer = fixed(self.inference)

    def on_device(self, batches: Iterable[tuple]) -> Iterator[tuple]:
        """Batches whose images are uint8, with images as `net` takes them, on JAX.

        The host sends a quarter of the bytes and is spared the arithmetic. The bits
        are those of `preprocess.apply`.
        """
        import jax  # pyright: ignore

        # What each of 256 levels becomes in each channel. XLA would make a division a
        # product with the reciprocal, which has other bits.
        levels = np.arange(256, dtype=np.uint8)[:, None].repeat(3, axis=1)
        table = jax.device_put(preprocess.apply(self.preprocess, levels).ravel())
        is_reversed, _, _ = preprocess.STANDARDS[self.preprocess]

        @jax.jit
        def standardise(image, table):
            image = image[..., ::-1] if is_reversed else image
            places = 3 * ops.cast(image, "int32") + ops.arange(3, dtype="int32")
            return ops.pad(ops.take(table, places), self._padding(*image.shape[1:3]))

        for image, targets in batches:
            yield standardise(image, table), targets

    def predict(
        self, images: np.ndarray, weights: np.ndarray | None = None
    ) -> np.ndarray:
        """Class ids uint8 [N, H, W]; arguments as of `logits`."""
        return self.logits(images, weights).argmax(-1).astype("uint8")

    def freeze_batch_norm(self, frozen: bool) -> None:
        """Batch norm with fixed statistics, gamma and beta; or as usual again."""
        changed = any(layer.trainable == frozen for layer in self._batch_norms)
        for layer in self._batch_norms:
            layer.trainable = not frozen
            if backend.name() == "jax":
                # The optimizer there takes all of its variables in every step. It is
                # given the gradient 0 for these (`optimizers`).
                for variable in (layer.gamma, layer.beta):
                    if variable is not None:
                        variable.trainable = True
        if changed:
            self.net.make_train_function(force=True)

    def milliseconds_per_image(self) -> float:
        """The least time of predicting one image, after two predictions to warm up.

        The least, since what else the machine does can only add to it.
        """
        image = np.zeros((1, *self.net.input_shape[1:]), "float32")
        for _ in range(2):
            self._infer(image)
        seconds: list[float] = []
        while len(seconds) < TIMED_IMAGES and sum(seconds) < TIMED_SECONDS:
            began = time.perf_counter()
            np.asarray(self._infer(image)["logits"])
            seconds.append(time.perf_counter() - began)
        return min(seconds) * 1000


def forward(model: Any, is_portable: bool = False) -> Callable[[Any], Any]:
    """The model's prediction of a batch, compiled, with the weights of each call."""
    if backend.name() != "jax":

        def predict_in_the_fastest_way(x):
            with backend.for_this_processor():
                return model.predict_on_batch(x)

        return model.predict_on_batch if is_portable else predict_in_the_fastest_way
    import jax  # pyright: ignore

    # Keras' own assigns every weight anew after each call, and waits for the result
    @jax.jit
    def predict(weights, x):
        return model.predict_step(weights, (x,))[0]

    def predict_with_present_weights(x):
        if not model.built:
            with keras.StatelessScope():
                model(x)
        parts = model.trainable_variables, model.non_trainable_variables
        return predict([[one.value for one in part] for part in parts], x)

    return predict_with_present_weights


def fixed(model: Any) -> Callable[[Any], Any]:
    """The model's prediction of a batch, compiled, with the weights it has now."""
    if backend.name() != "tensorflow":
        return forward(model)
    import tensorflow as tf

    weights = [(one, one.numpy()) for one in model.variables]
    if sum(array.nbytes for _, array in weights) > MOST_BYTES_OF_CONSTANTS:
        return backend.beside_a_copy(forward(model), model.variables)

    def predict(x):
        constants = [(one, tf.constant(array)) for one, array in weights]
        here = backend.for_this_processor(constant_weights=True)
        with keras.StatelessScope(constants), here:
            return model(x, training=False)

    compiled: Any = tf.function(predict, autograph=False)
    image = tf.TensorSpec(model.input_shape, "float32")
    traced = compiled.get_concrete_function(image)
    weights.clear()  # the graph has them
    return traced


def label_levels(config: Config, num_classes: int) -> list[tuple[int, ...] | None]:
    """Lookups (`Head`) of the levels that a network learns, from coarse to fine.

    [] where it learns the plain labels only.
    """
    heads = nets.heads(config.net.name, num_classes, **config.net.knobs)
    lookups = [head.lookup for head in heads.values() if head.target == "labels"]
    return lookups if any(lookups) else []


def training_weights(config: Config, prepared: Prepared) -> np.ndarray | None:
    """float64 [C]: the configured weights of the classes; None for "none"."""
    return class_weights.from_counts(config.loss, prepared.counts("train"))


@dataclass(frozen=True)
class Scored:
    """What `Scorer.score` finds.

    Attributes:
        loss: that of training, mean over the images; NaN where the data lack the
            joints that a head is trained on.
        confusion: int64 [C, C], rows = truth.
        counts: of each image; pixels whose true class is not scored are left out.
    """

    loss: float
    confusion: np.ndarray
    counts: folder.PerImage


class Scorer:
    """Scores a network: the one way, during training as afterwards.

    Args:
        network: scored with the weights it has at each call.
        prepared: the data.
        files: None to score at the run's size, as in training; or the samples that
            `score` will be given, to score at the size of each label file, to which
            logits are resized bilinearly (CITY 5.2). The loss is that of the run's
            size in either case.
    """

    def __init__(
        self,
        network: Network,
        prepared: Prepared,
        files: Sequence[Sample] | None = None,
    ):
        self.network, self.prepared, self.files = network, prepared, files
        # Images of different sizes are counted one by one, outside of the graph: it
        # would be compiled again for every size.
        sizes = {(file.height, file.width) for file in files or ()}
        size = network.config.data.size
        if len(sizes) == 1:
            size = network.inside(*sizes)
        self._step: Any = _Step(network, prepared, size, counts_inside=len(sizes) <= 1)
        self._predict = forward(self._step)

    def score(
        self,
        samples: Samples,
        workers: int = 2,
        on_batch: Callable[[int], object] = lambda images: None,
    ) -> Scored:
        """Score the network on all samples.

        Args:
            samples: of `Network.samples`.
            workers: threads of the loader; never changes a bit.
            on_batch: called with the number of images of every batch.

        Raises:
            DataError: a damaged file, or a label that has pixels of no class.
        """
        heads, joints = self.network.heads, self.network.config.data.joints
        if joints == "surreal" and samples.joints is None:
            heads = {k: head for k, head in heads.items() if head.target == "labels"}
        batch = self.network.config.validation.batch
        is_jax = backend.name() == "jax"
        feed = Feed(
            samples,
            batch,
            self.network.preprocess,
            heads,
            joints,
            workers,
            normalise=not is_jax,
        )
        batches: Any = feed.evaluation()
        if is_jax:
            batches = self.network.on_device(_filled(batches, batch))
        else:  # a single image may be much slower than two (`beside_a_copy`)
            batches = _filled(batches, 2)
        loss: Any = keras.metrics.Mean()
        counts: list[np.ndarray] = []
        pending: deque = deque()  # the device computes one batch while one is counted

        def count() -> None:
            found, labels = pending.popleft()
            number = min(batch, len(samples) - len(counts))
            loss.update_state(found["loss"], sample_weight=number)
            counts.extend(self._counts(found, labels)[:number])
            on_batch(number)

        for step, (image, targets) in enumerate(batches):
            labels = self._labels(targets["logits"], step * batch)
            inputs = [image, targets, *([labels] if self._step.counts_inside else [])]
            pending.append((self._predict(inputs), labels))
            if len(pending) > is_jax:
                count()
        while pending:
            count()
        return self._scored(samples, float(loss.result()), np.stack(counts))

    def _labels(self, targets: np.ndarray, first: int) -> Any:
        """The labels of a batch: its targets, or what the files from `first` hold."""
        if self.files is None:
            height, width = self.network.config.data.size
            return targets[:, :height, :width]
        files = self.files[first : first + len(targets)]
        labels = [read_label(file.label, file.label_sha256) for file in files]
        if not self._step.counts_inside:
            return labels
        return _more(np.stack(labels), len(targets) - len(labels), IGNORE_ID)

    def _counts(self, found, labels) -> np.ndarray:
        """int32 [B, C * C + 1], as `metrics.confusions` gives them."""
        if self._step.counts_inside:
            return np.asarray(found["counts"])
        num_classes = self.prepared.labels.num_classes
        rows = []
        for label, logits in zip(labels, found["logits"]):
            height, width = self.network.inside(label.shape)
            logits = logits[None, :height, :width]
            rows.append(metrics.confusions(label[None], logits, num_classes))
        return np.concatenate([ops.convert_to_numpy(row) for row in rows])

    def _scored(self, samples: Samples, loss: float, counts: np.ndarray) -> Scored:
        for name, pixels in zip(samples.ids, counts[:, -1]):
            if pixels:
                raise DataError(f"The label of {name} has {pixels} pixels of no class.")
        num_classes = self.prepared.labels.num_classes
        matrices = counts[:, :-1].reshape(-1, num_classes, num_classes)
        matrices, scored = matrices.astype(np.int64), self.prepared.scored_ids
        images = [metrics.image_counts(matrix, scored) for matrix in matrices]
        per_image = folder.PerImage(samples.ids, *np.stack(images, axis=1))
        return Scored(loss, matrices.sum(axis=0), per_image)


def _filled(batches: Iterable[tuple], size: int) -> Iterator[tuple]:
    """Batches filled up to a size with images that do not count."""
    for image, targets in batches:
        missing = max(size - len(image), 0)
        targets = {  # void pixels, and joints that are not visible
            name: _more(target, missing, IGNORE_ID if target.ndim == 3 else -1)
            for name, target in targets.items()
        }
        yield _more(image, missing, 0), targets


def _more(array: np.ndarray, count: int, value: int) -> np.ndarray:
    """The array [N, ...] with `count` further rows of a value."""
    if count == 0:
        return array
    more = np.full((count, *array.shape[1:]), value, array.dtype)
    return np.concatenate([array, more])


class _Step(keras.Model):
    """A batch in one compiled graph: its loss, and each image's confusion matrix.

    Maps [image, {head: target}, label] to {"loss": a scalar, "counts": int32
    [B, C * C + 1]}; or, where the counting is left to the caller, [image, {head:
    target}] to {"loss", "logits": float32 [B, H, W, C] of the run's size}.
    """

    def __init__(
        self,
        network: Network,
        prepared: Prepared,
        size: tuple[int, int],
        counts_inside: bool,
    ):
        # Not autocast: under mixed precision the heatmaps of joints would be rounded.
        super().__init__(name="scoring", dtype="float32", autocast=False)
        net, inference = network.net, network.inference
        outputs = {"heads": net.output, "logits": inference.output["logits"]}
        self.net = keras.Model(net.input, outputs)
        self.num_classes = prepared.labels.num_classes
        self.size = size  # of what is counted, without the padding
        self.direct_weights = network.direct_weights(prepared)
        self.counts_inside = counts_inside
        self.arguments = network.compile_arguments(prepared)

    def predict_on_batch(self, x):
        if self.predict_function is None and backend.name() == "tensorflow":
            self._trace_any_batch(x)
        return super().predict_on_batch(x)

    def _trace_any_batch(self, x) -> None:
        """Make one graph for any number of images, as `evaluate` of Keras does.

        Else there is one for the full batches and another for the last one, and under
        bfloat16 a graph of fixed shapes has other bits.
        """
        import tensorflow as tf

        self.make_predict_function()
        specs = keras.tree.map_structure(
            lambda array: tf.TensorSpec((None, *array.shape[1:]), array.dtype), x
        )
        compiled: Any = self.predict_function
        compiled.get_concrete_function([(specs,)])

    def call(self, inputs):
        image, targets, *label = inputs
        outputs: Any = self.net(image, training=False)
        logits = outputs["logits"][:, : self.size[0], : self.size[1]]
        if self.direct_weights is not None:
            logits = logits * ops.convert_to_tensor(self.direct_weights, "float32")
        result = {"loss": self._loss(targets, outputs["heads"])}
        if not self.counts_inside:
            return result | {"logits": logits}
        counts = metrics.confusions(label[0], logits, self.num_classes)
        return result | {"counts": counts}

    def _loss(self, targets, outputs):
        if set(targets) != set(outputs):
            return ops.full((), float("nan"))
        weights = self.arguments["loss_weights"]
        of_heads = sum(
            weights[name] * loss(targets[name], outputs[name])
            for name, loss in self.arguments["loss"].items()
        )
        # As in training, with the penalties on kernels; there are none as a rule.
        return sum(self.net.losses, of_heads)


def evaluate(
    network: Network, prepared: Prepared, split: str, full_size: bool = False
) -> tuple[dict[str, Any], folder.PerImage]:
    """Score a trained network on a split.

    Args:
        network: with trained weights.
        prepared, split: the data.
        full_size: at each label's own size; else at the run's (`Scorer`).

    Returns:
        What evaluation/<split>.json holds: split, full_size and as metrics.json; and
        the counts per image.
    """
    samples = network.samples(prepared, split)
    files = prepared.samples(split) if full_size else None
    with Progress(f"evaluate {split}", len(samples)) as progress:
        scorer = Scorer(network, prepared, files)
        scored = scorer.score(samples, on_batch=progress.advance)
    result = {"split": split, "full_size": full_size}
    check_any(network, prepared, scored, full_size)
    return result | record(network, prepared, scored), scored.counts


def record(network: Network, prepared: Prepared, scored: Scored) -> dict[str, Any]:
    """What metrics.json and evaluation/<split>.json have in common, in JSON values."""
    return {
        "images": len(scored.counts.ids),
        "classes": list(prepared.labels.names),
        "loss": metrics.plain(scored.loss),
        **metrics.scores(scored.confusion, prepared.scored_ids),
        "parameters": network.parameters,
        "gflop": network.gflop,
    }


def check_any(
    network: Network, prepared: Prepared, scored: Scored, full_size: bool = False
) -> None:
    """NothingToScoreError where no pixel was scored."""
    if not scored.counts.truth.any():
        height, width = network.config.data.size
        size = "the labels' own size" if full_size else f"{height} x {width} pixels"
        raise NothingToScoreError(
            f"No pixel of a scored class is left of {', '.join(scored.counts.ids[:3])} "
            f"in {prepared.folder} at {size}. "
            + ("Score other images." if full_size else "Choose a larger data.size.")
        )


def merged(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The scores of disjoint images together, from those of each, as of `record`."""
    confusion = np.array([one["confusion"] for one in found], np.int64).sum(axis=0)
    kept = {k: v for k, v in found[0].items() if k not in ("loss", "step", "stopped")}
    kept["images"] = sum(one["images"] for one in found)
    return kept | metrics.scores(confusion, found[0].get("scored_ids"))


def save_samples(
    network: Network, prepared: Prepared, samples: Samples, path: Path
) -> None:
    """Keep some images, evenly spaced over a split, with truth and prediction.

    Args:
        path: of the .npz (`folder.samples_file`); a .png of the same name is drawn.
    """
    chosen = evenly_spaced(len(samples), SAMPLE_IMAGES)
    pairs = [samples.plain(position) for position in chosen]
    images = np.stack([pair[0] for pair in pairs])
    weights = network.direct_weights(prepared)
    found = [_predicted(network, samples, position, weights) for position in chosen]
    kept = {
        "ids": np.array([samples.ids[position] for position in chosen]),
        "image": images,
        "label": np.stack([pair[1] for pair in pairs]),
        "prediction": np.stack(found),
    }
    storage.write_arrays(path, kept)
    labels = prepared.labels
    figure = plots.run_samples(kept, labels.palette, labels.names)
    storage.write_file(path.with_suffix(".png"), plots.png(figure))


def save_predictions(
    network: Network, prepared: Prepared, samples: Samples, run: Path
) -> None:
    """Keep what is predicted for KEPT_IMAGES, fewer where they exceed KEPT_BYTES.

    predictions.npz: their ids, and the class ids uint8 [N, H, W] at the run's size.
    """
    room = max(1, KEPT_BYTES // math.prod(network.config.data.size))
    chosen = evenly_spaced(len(samples), min(room, KEPT_IMAGES))
    weights = network.direct_weights(prepared)
    found = [_predicted(network, samples, position, weights) for position in chosen]
    kept = {"ids": np.array([samples.ids[k] for k in chosen])}
    storage.write_arrays(
        run / folder.PREDICTIONS, kept | {"prediction": np.stack(found)}
    )


def _predicted(
    network: Network, samples: Samples, position: int, weights: np.ndarray | None
) -> np.ndarray:
    """Class ids uint8 [H, W] of a sample, 255 beside a letterboxed one.

    Alone: the graph of a single image is what the timing compiles, too.
    """
    height, width = samples.inside(position)
    found = network.predict(samples.plain(position)[0][None], weights)[0]
    return on_canvas(found[:height, :width], samples.size, IGNORE_ID)


def evenly_spaced(length: int, number: int) -> list[int]:
    """`number` positions in 0..length-1, evenly spaced, ascending, all different."""
    number = min(length, number)
    return [(2 * k + 1) * length // (2 * number) for k in range(number)]


def _size(variables: Sequence) -> int:
    return sum(int(np.prod(variable.shape)) for variable in variables)
