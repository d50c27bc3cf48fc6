"""A process without TensorFlow that trains on JAX, for test_runs_jax.py.

python run_without_tensorflow.py FOLDER DATA: trains a tiny network in FOLDER/whole, and
the same in FOLDER/resumed, interrupted inside of its second window and resumed; scores
and predicts with the latter. With a third argument, the number of devices, FOLDER/whole
alone, by SGD: of the biases before batch norm, whose gradient is 0 but for rounding,
Adam would make steps as large as of any other weight.
"""

import json
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

import keras_seg
from keras_seg import preprocess
from keras_seg.config import Augment, Config
from keras_seg.data import pipeline
from keras_seg.data.prepared import open_prepared
from keras_seg.errors import InterruptedRunError
from keras_seg.runs import train as training
from keras_seg.runs.options import Options

CONFIG = Config(
    net={
        "name": "hourglass",
        "stacks": 1,
        "depth": 1,
        "features": 8,
        "stem": 4,
        "stem_stride": 2,
        "dropout": 0.2,
    },
    data={"size": (24, 40), "batch": 4},
    optimizer={"name": "adam", "lr": 0.003, "weight_decay": 1e-4, "bn_start": 2},
    loss={"weights": "w1"},
    validation={"every": 2, "samples": 5, "batch": 2},
    steps=5,
    augment=Augment(mirror=0.5, scale=(0.7, 1.4)),
)


def main(folder: Path, data: Path, devices: str = "") -> None:
    options = Options(threads=2, workers=2, checkpoint_every=2)
    if devices:
        options = replace(options, devices=int(devices))
        sgd = CONFIG.changed(optimizer={"name": "sgd", "lr": 0.01})
        training.train(sgd, data, folder / "whole", options)
        return
    training.train(CONFIG, data, folder / "whole", options)
    from keras_seg.runs import evaluate, loop

    count = loop.Steps.on_train_batch_end

    def counted(self, batch, logs=None):
        count(self, batch, logs)
        if self.run.state.step == 3:
            signal.raise_signal(signal.SIGTERM)

    loop.Steps.on_train_batch_end = counted
    try:
        training.train(CONFIG, data, folder / "resumed", options)
    except InterruptedRunError as interruption:
        print(interruption, file=sys.stderr)
    loop.Steps.on_train_batch_end = count
    training.train(CONFIG, data, folder / "resumed", options)
    scores = keras_seg.evaluate(folder / "resumed", "test", full_size=True)
    prepared = open_prepared(data)
    picture = prepared.samples("test")[0].image
    ids = keras_seg.predict(folder / "resumed", picture)

    # On the device as on the host
    network = evaluate.Network(CONFIG.changed(net={"preprocess": "imagenet"}), 4)
    samples = pipeline.Samples(prepared, "val", (24, 40))
    raw = np.stack([samples.plain(k)[0] for k in range(2)])
    ((image, _),) = network.on_device([(raw, {})])
    same = np.array_equal(image, preprocess.imagenet(raw))

    net = keras_seg.build("fcn_strided", (64, 64), data)
    batches = keras_seg.batches(data, "train", net, batch=4, seed=3)
    first, second = ([image for image, _ in batches] for _ in range(2))
    found = {
        "images": scores["images"],
        "shape": ids.shape,
        "same": same,
        "epochs": [len(first), len(second), np.array_equal(first, second)],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    vars(sys)["modules"]["tensorflow"] = None  # an import of it fails
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
