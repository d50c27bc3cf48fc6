"""Scores of a network: which ids count, how a size that does not fit is treated."""

import numpy as np
import pytest

from keras_seg.config import Config
from keras_seg.runs import evaluate as evaluation

KNOBS = {"stacks": 1, "depth": 1, "features": 8, "stem": 4}


def test_only_the_scored_ids_count():
    """Ids 1 and 2 of three: the pixels of class 0 drop out, false alarms stay."""
    confusion = np.array([[90, 5, 5], [2, 6, 0], [1, 3, 8]])
    found = evaluation.scores(confusion, (1, 2))
    # Class 1: 6 right, 8 true, 6 + 3 predicted on scored pixels; class 2: 8, 12, 8.
    expected = [6 / (8 + 9 - 6), 8 / (12 + 8 - 8)]
    assert found["summary"]["miou"] == pytest.approx(np.mean(expected))
    assert found["per_class"]["iou"][0] is None
    assert found["scored_ids"] == [1, 2]
    assert found["confusion"] == confusion.tolist()
    everything = evaluation.scores(confusion, None)
    assert everything["per_class"]["iou"][0] == pytest.approx(90 / 103)


def test_a_size_that_does_not_fit_is_padded_and_cropped_back():
    config = Config(
        net={"name": "hourglass", **KNOBS},
        data={"size": (21, 37), "pad": True},
        steps=1,
    )
    network = evaluation.Network(config, num_classes=5)
    images = np.random.default_rng(0).integers(0, 256, (2, 21, 37, 3)).astype("uint8")
    assert network.logits(images).shape == (2, 21, 37, 5)
    weights = np.array([0.0, 0.0, 0.0, 0.0, 1.0])
    weighted = network.logits(images, weights)
    assert not weighted[..., :4].any()
    ids = network.predict(images)
    assert ids.dtype == np.uint8
    np.testing.assert_array_equal(ids, network.logits(images).argmax(-1))


def test_samples_are_spread_over_the_split():
    assert evaluation.spread(101, 4) == [12, 37, 63, 88]
    assert evaluation.spread(3, 4) == [0, 1, 2]
