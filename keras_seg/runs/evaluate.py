"""A network with what belongs to it: heads, samples, predictions, cost."""

import time
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from keras_seg import class_weights, metrics, nets, preprocess, storage
from keras_seg import plots as figures
from keras_seg.command_line import Progress
from keras_seg.config import Config
from keras_seg.data.pipeline import Samples
from keras_seg.data.prepared import Prepared, read_label
from keras_seg.nets import flops
from keras_seg.runs import folder as run_folder

TIMED_SECONDS = 3.0  # at most, for the time of one image
TIMED_IMAGES = 20


class Network:
    """The network of a configuration, built with fresh weights.

    Attributes:
        config: Config.
        net: keras.Model with every supervised head.
        heads: {name: keras_seg.nets.Head}.
        inference: keras.Model, image -> {"logits": full-size logits}.
        preprocess: a key of `keras_seg.preprocess.PREPROCESS`.
        parameters: {"trainable", "all"}: numbers of scalars in the weights.
        gflop: of predicting one image (`keras_seg.nets.flops`).
    """

    def __init__(self, config: Config, num_classes: int):
        self.config = config
        size = config.data.size
        if config.data.pad:
            size = nets.padded_size(config.net.name, size, **config.net.knobs)
        self.preprocess = config.net.preprocess or nets.get(config.net.name).preprocess
        self.net = nets.build(
            config.net.name,
            (*size, 3),
            num_classes,
            filter_scale=config.net.filter_scale,
            **config.net.knobs,
        )
        self.heads = nets.heads(config.net.name, num_classes, **config.net.knobs)
        self.inference = nets.inference_model(self.net)
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

    def samples(
        self, prepared: Prepared, split: str, limit: int | None = None
    ) -> Samples:
        """The images and labels of a split at the size the network takes."""
        return Samples(
            prepared,
            split,
            self.config.data.size,
            padded_size=self.net.input_shape[1:3],
            limit=limit,
        )

    def direct_weights(self, prepared: Prepared) -> np.ndarray | None:
        """The weights on the logits in prediction; None unless configured so."""
        if (
            self.config.loss.strategy != "direct"
            or not self.config.loss.direct_at_inference
        ):
            return None
        return weights_of(self.config, prepared)

    def logits(
        self, images: np.ndarray, weights: np.ndarray | None = None
    ) -> np.ndarray:
        """float32 [N, H, W, C] of images uint8 RGB [N, H, W, 3] of `config.size`.

        Images are padded to the network's stride where it needs it, and the logits
        cropped back; `weights` [C] multiply them (`direct_weights`).
        """
        inputs = preprocess.apply(self.preprocess, images)
        height, width = images.shape[1:3]
        pad = [(0, 0), (0, 0), (0, 0), (0, 0)]
        pad[1] = (0, self.net.input_shape[1] - height)
        pad[2] = (0, self.net.input_shape[2] - width)
        logits = self.inference.predict_on_batch(np.pad(inputs, pad))["logits"]
        logits = np.asarray(logits)[:, :height, :width]
        return logits if weights is None else logits * weights.astype("float32")

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
        if changed:
            self.net.make_train_function(force=True)

    def milliseconds_per_image(self) -> float:
        """The least time of predicting one image, after two predictions to warm up.

        The least, since what else the machine does can only add to it.
        """
        image = np.zeros((1, *self.net.input_shape[1:]), "float32")
        for _ in range(2):
            self.inference.predict_on_batch(image)
        seconds: list[float] = []
        while len(seconds) < TIMED_IMAGES and sum(seconds) < TIMED_SECONDS:
            began = time.perf_counter()
            np.asarray(self.inference.predict_on_batch(image)["logits"])
            seconds.append(time.perf_counter() - began)
        return min(seconds) * 1000


def scores(confusion: np.ndarray, scored_ids: Sequence[int] | None) -> dict:
    """A confusion matrix and all that derives from it, as plain JSON values.

    Args:
        confusion: int64 [C, C], rows = truth.
        scored_ids: the ids that count (`Prepared.scored_ids`); None is all.

    Returns:
        {"confusion": [[int]], "summary": {name: 0..1 or None}, "per_class": {"iou",
        "recall", "precision", "f1": [0..1 or None]}, "absent_ids": [int],
        "scored_ids": [int] or None}; a score is None where it is not defined.
    """
    values = metrics.summary(confusion, classes=scored_ids)
    per_class = {k: v for k, v in values.items() if isinstance(v, np.ndarray)}
    absent = values["absent_ids"]
    overall = {k: v for k, v in values.items() if k not in {*per_class, "absent_ids"}}
    return metrics.plain(
        {
            "confusion": confusion,
            "summary": overall,
            "per_class": per_class,
            "absent_ids": absent,
            "scored_ids": scored_ids,
        }
    )


def weights_of(config: Config, prepared: Prepared) -> np.ndarray | None:
    """float64 [C]: the class weights of a run, from its training split; or None."""
    return class_weights.from_counts(config.loss, prepared.counts("train"))


def evaluate(
    network: Network, prepared: Prepared, split: str, full_size: bool = False
) -> tuple[dict, run_folder.PerImage]:
    """Score a network on a split, image by image.

    Args:
        network: with trained weights.
        prepared, split: the data.
        full_size: at each label's own size, logits resized bilinearly (CITY 5.2);
            else at the run's size, as in training.

    Returns:
        As metrics.json: split, images, classes, confusion, summary, per_class; and the
        counts per image.
    """
    config, num_classes = network.config, prepared.labels.num_classes
    weights = network.direct_weights(prepared)
    samples = network.samples(prepared, split)
    files = prepared.samples(split)
    total = np.zeros((num_classes, num_classes), np.int64)
    counts = []
    with Progress(f"evaluate {split}", len(samples)) as progress:
        for first in range(0, len(samples), config.validation.batch):
            batch = range(first, min(first + config.validation.batch, len(samples)))
            pairs = [samples.plain(position) for position in batch]
            logits = network.logits(np.stack([pair[0] for pair in pairs]), weights)
            for position, pair, one in zip(batch, pairs, logits):
                label = pair[1]
                if full_size:
                    label = read_label(files[position].label)
                    one = keras.ops.image.resize(one, label.shape, "bilinear")
                ids = np.asarray(one).argmax(-1)
                confusion = metrics.confusion_matrix(label, ids, num_classes)
                counts.append(metrics.image_counts(confusion, prepared.scored_ids))
                total += confusion
            progress.advance(len(batch))
    result = {
        "split": split,
        "full_size": full_size,
        "images": len(samples),
        "classes": list(prepared.labels.names),
        **scores(total, prepared.scored_ids),
        "parameters": network.parameters,
        "gflop": network.gflop,
    }
    return result, run_folder.PerImage(samples.ids, *np.stack(counts, axis=1))


def save_samples(
    network: Network, prepared: Prepared, samples: Samples, run: Path, number: int
) -> None:
    """Keep some images with truth and prediction: samples.npz and samples.png.

    Args:
        number: how many, evenly spread over the split.
    """
    chosen = spread(len(samples), number)
    pairs = [samples.plain(position) for position in chosen]
    images = np.stack([pair[0] for pair in pairs])
    kept = {
        "ids": np.array([samples.ids[position] for position in chosen]),
        "image": images,
        "label": np.stack([pair[1] for pair in pairs]),
        "prediction": network.predict(images, network.direct_weights(prepared)),
    }
    storage.write_arrays(run / "samples.npz", kept)
    figures.save_samples(
        kept, prepared.labels.palette, prepared.labels.names, run / "samples.png"
    )


def spread(length: int, number: int) -> list[int]:
    """`number` positions in 0..length-1, evenly spread, ascending, all different."""
    number = min(length, number)
    return [(2 * k + 1) * length // (2 * number) for k in range(number)]


def _size(variables: Sequence) -> int:
    return sum(int(np.prod(variable.shape)) for variable in variables)
