"""A miniature of every dataset: prepared, verified, trained on for one step."""

import keras
import miniature_clips
import miniatures
import numpy as np
import pytest

from keras_seg import losses, metrics, nets
from keras_seg.config import Augment
from keras_seg.data import DATASETS, load, pipeline
from keras_seg.data.verify import verify
from keras_seg.data.writer import Options

WIDE, SQUARE = (32, 48), (32, 32)  # SURREAL's crops are squares

# name: (how the raw tree is made, settings of its preparation, classes, size)
MINIATURES = {
    "camvid": (miniatures.camvid, {}, 11, WIDE),
    "cityscapes": (miniatures.cityscapes, {}, 19, WIDE),
    "voc": (miniatures.voc, {}, 21, WIDE),
    "atr": (miniatures.atr, {}, 18, WIDE),
    "ccp": (miniatures.ccp, {}, 59, WIDE),
    "folder": (miniatures.folder, {"classes": "a,b,c"}, 3, WIDE),
    "surreal": (miniature_clips.dataset, {"frames": (4, 2, 2)}, 25, SQUARE),
    "synthetic_humans": (miniature_clips.dataset, {}, 25, SQUARE),
}


def test_every_dataset_has_its_miniature():
    assert MINIATURES.keys() == DATASETS.keys()


@pytest.mark.parametrize("name", MINIATURES)
def test_one_training_step(name, tmp_path):
    make, settings, num_classes, size = MINIATURES[name]
    make(tmp_path / "raw")
    options = Options(size=size, workers=2)
    prepared, _ = load(name).prepare(
        tmp_path / "raw", tmp_path / "out", options, **settings
    )
    assert verify(tmp_path / "out") == []
    assert prepared.labels.num_classes == num_classes
    knobs = {"stacks": 1, "depth": 1, "features": 8, "stem": 4, "stem_stride": 2}
    net = nets.build("hourglass", (*size, 3), num_classes, **knobs)
    net.compile(
        keras.optimizers.SGD(0.1),
        loss=losses.for_heads(net, losses.CrossEntropy()),
        metrics={"logits": metrics.ConfusionMatrix(num_classes)},
        run_eagerly=True,
    )
    batches = pipeline.training_batches(
        pipeline.Samples(prepared, "train", size),
        batch=2,
        seed=0,
        augment=Augment(mirror=0.5, swap_lr=True),
        start_step=0,
        stop_step=1,
        preprocess=nets.get("hourglass").preprocess,
        heads=nets.heads("hourglass", num_classes, **knobs),
        workers=1,
    )
    before = [np.array(weight) for weight in net.trainable_weights]
    logs = net.fit(batches, shuffle=False, verbose=0).history
    # The loss of equal scores is log C; fresh weights give about that.
    assert 0.3 * np.log(num_classes) < logs["loss"][0] < 4 * np.log(num_classes)
    moved = [np.any(np.array(w) != b) for w, b in zip(net.trainable_weights, before)]
    assert all(moved)
