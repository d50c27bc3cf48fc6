"""Runs whose best weights are random: what a test needs that does not care for them."""

import json
from pathlib import Path

import keras
import miniatures
import numpy as np

from keras_seg import class_weights, nets, preprocess, storage
from keras_seg.config import Config, from_dict
from keras_seg.data.prepared import open_prepared
from keras_seg.runs import checkpoint
from keras_seg.runs import folder as run_folder


def keep_as_run(
    config: Config, data: Path, run: Path, scales: tuple[float, float] = (0.5, 1.5)
) -> None:
    """A run whose best weights are random, moving statistics included."""
    prepared = open_prepared(data)
    net = build(config, prepared.labels.num_classes)
    rng = np.random.default_rng(5)
    for variable in net.variables:
        kind = variable.path.rpartition("/")[2]
        if kind in ("moving_mean", "beta", "bias"):
            variable.assign(rng.normal(0, 0.2, variable.shape))
        elif kind == "moving_variance":
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
        elif kind == "gamma":
            variable.assign(rng.uniform(*scales, variable.shape))
    arrays = checkpoint.named_arrays(net.variables, "model")
    identity = run_folder.identity(config, prepared)
    checkpoint.save(run / "best", 1, arrays, json.loads(json.dumps(identity)), 1)
    storage.write_json(run / "environment.json", {"data": str(data)})
    storage.write_json(run / "metrics.json", miniatures.scores(0.5))


def build(config: Config, num_classes: int):
    keras.utils.clear_session()  # names of random states are counted
    height, width = (24, 40) if config.data.pad else config.data.size
    return nets.build(
        config.net.name, (height, width, 3), num_classes, **config.net.knobs
    )


def expected_logits(run: Path, images: np.ndarray) -> np.ndarray:
    """float64 [N, H, W, C], from the best weights, in NumPy but for the network."""
    arrays, identity = run_folder.load_best(run)
    config = from_dict(identity["config"])
    net = build(config, len(identity["data"]["classes"]))
    checkpoint.assign(net.variables, arrays, "model")
    mode = config.net.preprocess or nets.get(config.net.name).preprocess
    height, width = config.data.size
    inputs = np.zeros((len(images), *net.input_shape[1:]), "float32")
    inputs[:, :height, :width] = preprocess.apply(mode, images)
    logits = nets.inference_model(net)(inputs, training=False)["logits"]
    logits = np.array(logits, "float64")[:, :height, :width]
    if config.loss.direct_at_inference:
        data = open_prepared(run_folder.read_environment(run)["data"])
        logits *= class_weights.inverse_frequency(data.counts("train").pixels)
    return logits
