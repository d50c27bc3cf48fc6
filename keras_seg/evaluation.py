"""A network with what belongs to it: heads, samples, predictions, cost."""

import time
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from keras_seg import class_weights, figures, metrics, nets, preprocess, run_folder
from keras_seg.config import Config
from keras_seg.data.pipeline import Samples
from keras_seg.data.prepared import Prepared

TIMED_SECONDS = 3.0  # at most, for the time of one image
TIMED_IMAGES = 20


class Network:
    """The network of a configuration, built with fresh weights.

    Attributes:
        config: Config.
        net: keras.Model with every supervised head.
        heads: {name: keras_seg.nets.Head}.
        inference: keras.Model, image -> {"logits": full-size logits}.
        stride: int. Images are padded to multiples of it if `config.pad`.
    """

    def __init__(self, config: Config, num_classes: int):
        self.config = config
        size = config.size
        if config.pad:
            size = nets.padded_size(config.net, size, **config.knobs)
        self.stride = nets.input_stride(config.net, **config.knobs)
        self.net = nets.build(
            config.net,
            (*size, 3),
            num_classes,
            filter_scale=config.filter_scale,
            **config.knobs,
        )
        self.heads = nets.heads(config.net, num_classes, **config.knobs)
        self.inference = nets.inference_model(self.net)

    def samples(
        self, prepared: Prepared, split: str, limit: int | None = None
    ) -> Samples:
        """The images and labels of a split at the size the network takes."""
        return Samples(
            prepared,
            split,
            self.config.size,
            stride_pad=self.stride if self.config.pad else None,
            limit=limit,
        )

    def direct_weights(self, prepared: Prepared) -> np.ndarray | None:
        """The weights on the logits in prediction; None unless configured so."""
        if self.config.strategy != "direct" or not self.config.direct_at_inference:
            return None
        return weights_of(self.config, prepared)

    def predict(self, images: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
        """Class ids uint8 [N, H, W] of images uint8 [N, H, W, 3].

        Args:
            images: RGB, of the size the network was built for.
            weights: float [C] on the logits, or None.
        """
        kind = nets.get(self.config.net).preprocess
        inputs = preprocess.apply(kind, images)
        logits = np.asarray(self.inference.predict_on_batch(inputs)["logits"])
        if weights is not None:
            logits = logits * weights.astype("float32")
        return logits.argmax(-1).astype("uint8")

    def freeze_batch_norm(self, frozen: bool) -> None:
        """Batch norm with fixed statistics, gamma and beta; or as usual again."""
        changed = False
        for layer in self.net._flatten_layers(include_self=False):
            if isinstance(layer, keras.layers.BatchNormalization):
                changed |= layer.trainable == frozen
                layer.trainable = not frozen
        if changed:
            self.net.make_train_function(force=True)

    def parameters(self) -> dict[str, int]:
        """{"trainable", "all"}: numbers of scalars in the weights."""
        return {
            "trainable": _size(self.net.trainable_weights),
            "all": _size(self.net.weights),
        }

    def milliseconds_per_image(self) -> float:
        """Median time of predicting one image, after two predictions to warm up."""
        image = np.zeros((1, *self.net.input_shape[1:]), "float32")
        for _ in range(2):
            self.inference.predict_on_batch(image)
        seconds: list[float] = []
        while len(seconds) < TIMED_IMAGES and sum(seconds) < TIMED_SECONDS:
            began = time.perf_counter()
            np.asarray(self.inference.predict_on_batch(image)["logits"])
            seconds.append(time.perf_counter() - began)
        return float(np.median(seconds)) * 1000


def scores(confusion: np.ndarray) -> dict:
    """A confusion matrix and all that derives from it, as plain JSON values.

    Returns:
        {"confusion": [[int]], "summary": {name: 0..1 or None}, "per_class": {"iou",
        "recall", "precision", "f1": [0..1 or None]}}; None is not defined (absent).
    """
    values = metrics.summary(confusion)
    per_class = {k: v for k, v in values.items() if isinstance(v, np.ndarray)}
    overall = {k: v for k, v in values.items() if k not in per_class}
    return metrics.plain(
        {"confusion": confusion, "summary": overall, "per_class": per_class}
    )


def weights_of(config: Config, prepared: Prepared) -> np.ndarray | None:
    """float64 [C]: the class weights of a run, from its training split; or None."""
    counts = prepared.counts("train")
    return class_weights.from_counts(
        config.class_weights,
        counts.pixels,
        counts.presence_pixels,
        counts.images,
        background=config.background_weight,
        occurrences=config.weight_occurrences,
    )


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
    run_folder.write_arrays(run / "samples.npz", kept)
    figures.save_samples(
        kept, prepared.labels.palette, prepared.labels.names, run / "samples.png"
    )


def spread(length: int, number: int) -> list[int]:
    """`number` positions in 0..length-1, evenly spread, ascending, all different."""
    number = min(length, number)
    return [(2 * k + 1) * length // (2 * number) for k in range(number)]


def _size(variables: Sequence) -> int:
    return sum(int(np.prod(variable.shape)) for variable in variables)
