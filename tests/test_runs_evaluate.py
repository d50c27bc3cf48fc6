"""Scores of a network against loops, at the run's size and at the labels' own."""

import dataclasses

import keras
import miniature_net
import numpy as np
import oracles
import pytest

from keras_seg import backend, class_weights, preprocess
from keras_seg.config import Config
from keras_seg.data.prepared import open_prepared, read_label
from keras_seg.runs import evaluate as evaluation

with miniature_net.known():
    CONFIG = Config(
        net={"name": miniature_net.NAME, "stride": 1, "early": False},
        data={"size": (12, 20)},
        loss={"weights": "w1"},
        validation={"batch": 4},  # of six images: the last batch is smaller
        steps=1,
    )


@pytest.fixture(scope="module", autouse=True)
def _miniature():
    with miniature_net.known():
        yield


@pytest.fixture(scope="module")
def prepared(shapes):
    return open_prepared(shapes)


@pytest.mark.parametrize(("strategy", "batch"), [("outer", 4), ("direct", 5)])
def test_scores_are_those_of_the_definition(strategy, batch, prepared):
    is_direct = strategy == "direct"
    config = CONFIG.changed(
        loss={"strategy": strategy, "direct_at_inference": is_direct},
        validation={"batch": batch},
    )
    network = evaluation.Network(config, 4)
    samples = network.samples(prepared, "val")
    batches = []
    scorer = evaluation.Scorer(network, prepared)
    scored = scorer.score(samples, on_batch=batches.append)
    assert batches == [batch, 6 - batch]

    images, labels, _ = zip(*(samples.plain(k) for k in range(6)))
    weights = class_weights.inverse_frequency(prepared.counts("train").pixels)
    on_logits = weights if is_direct else None
    np.testing.assert_equal(network.direct_weights(prepared), on_logits)
    metric = network.compile_arguments(prepared)["metrics"]["logits"]
    np.testing.assert_equal(metric.direct_weights, on_logits)
    predictions = network.predict(np.stack(images), on_logits)
    assert_counts(scored, samples.ids, labels, predictions)
    inputs = preprocess.apply(network.preprocess, np.stack(images))
    logits = network.net.predict(inputs, verbose=0)["logits"]
    losses = [
        oracles.cross_entropy(np.stack(labels[a:b]), logits[a:b], weights, strategy)
        for a, b in ((0, batch), (batch, 6))
    ]
    np.testing.assert_allclose(
        scored.loss, (batch * losses[0] + (6 - batch) * losses[1]) / 6, 1e-5
    )

    # At the size of the label files, whether they are equal or not
    files = prepared.samples("val")
    other = dataclasses.replace(files[0], height=files[0].height + 1)
    labels = [read_label(file.label) for file in files]
    logits = network.logits(np.stack(images), on_logits)
    predictions = oracles.bilinear(logits, 24, 40).argmax(-1)
    for own in (files, (other, *files[1:])):
        found = evaluation.Scorer(network, prepared, own).score(samples)
        assert found.loss == scored.loss
        assert_counts(found, samples.ids, labels, predictions)


def test_no_single_image_reaches_wide_kernels(prepared, monkeypatch):
    """oneDNN may take its reference loops for one image, never for two."""
    seen = []

    def recorded(model, is_portable=False):
        def predict(x):
            seen.append(len(x[0] if isinstance(x, list) else x))
            return model.predict_on_batch(x)

        return predict

    monkeypatch.setattr(evaluation, "forward", recorded)
    config = CONFIG.changed(
        net={"name": "segnet_basic"}, data={"size": (16, 32)}, validation={"batch": 5}
    )
    network = evaluation.Network(config, 4)
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 32, 3), np.uint8)
    expected = network.logits(images)
    np.testing.assert_allclose(network.logits(images[1:2]), expected[1:2], atol=1e-5)
    assert seen == [3, 2]

    scorer = evaluation.Scorer(network, prepared)  # of six images
    scored = scorer.score(network.samples(prepared, "val"))
    assert seen[2:] == [5, 2]
    assert len(scored.counts.ids) == 6

    seen.clear()
    narrow = CONFIG.changed(data={"size": (16, 32)})
    evaluation.Network(narrow, 4).logits(images[:1])
    assert seen == [1]


def test_letterboxed_images_are_scored_without_what_is_beside_them(prepared):
    """24 x 40 px in 20 x 20: 12 rows are the image's."""
    config = CONFIG.changed(data={"size": (20, 20), "fit": "letterbox"})
    network = evaluation.Network(config, 4)
    samples = network.samples(prepared, "val")
    images, labels, _ = zip(*(samples.plain(k) for k in range(6)))
    assert all((label[12:] == 255).all() for label in labels)
    found = evaluation.Scorer(network, prepared).score(samples)
    logits = network.logits(np.stack(images))
    assert_counts(found, samples.ids, labels, logits.argmax(-1))
    # At the labels' own size, whether all have the same or not
    files = prepared.samples("val")
    other = dataclasses.replace(files[0], height=files[0].height + 1)
    labels = [read_label(file.label) for file in files]
    predictions = oracles.bilinear(logits[:, :12], 24, 40).argmax(-1)
    for own in (files, (other, *files[1:])):
        found = evaluation.Scorer(network, prepared, own).score(samples)
        assert_counts(found, samples.ids, labels, predictions)


def assert_counts(scored, ids, labels, predictions):
    pairs = zip(labels, predictions)
    matrices = np.stack([oracles.confusion(t, p, 4) for t, p in pairs])
    np.testing.assert_array_equal(scored.confusion, matrices.sum(0))
    assert scored.counts.ids == ids
    np.testing.assert_array_equal(scored.counts.truth, matrices.sum(2))
    np.testing.assert_array_equal(scored.counts.predicted, matrices.sum(1))
    diagonals = np.diagonal(matrices, axis1=1, axis2=2)
    np.testing.assert_array_equal(scored.counts.intersection, diagonals)


def test_the_loss_has_the_penalties_on_kernels(prepared):
    plain = evaluation.Network(CONFIG, 4)
    kernels = {"l1": 0.5, "l2": 0.25, "penalise": "kernels"}
    penalised = evaluation.Network(CONFIG.changed(loss=kernels), 4)
    penalised.net.set_weights(plain.net.get_weights())
    without, found = (
        evaluation.Scorer(one, prepared).score(one.samples(prepared, "val")).loss
        for one in (plain, penalised)
    )
    weights = [w for w in plain.net.trainable_weights if w.path.endswith("kernel")]
    values = np.concatenate([np.ravel(weight) for weight in weights])
    penalty = 0.5 * np.abs(values).mean() + 0.25 * np.square(values).mean()
    assert penalty > 0.01
    np.testing.assert_allclose(found - without, penalty, rtol=1e-4)


def test_without_the_joints_of_a_head_there_is_no_loss(prepared):
    net = {"name": "hourglass", "stacks": 2, "depth": 1, "features": 8, "stem": 4}
    network = evaluation.Network(CONFIG.changed(net=net | {"joints": 24}), 4)
    result, counts = evaluation.evaluate(network, prepared, "val")
    assert result["loss"] is None
    assert counts.truth.sum() == np.sum(result["confusion"]) > 0


def test_a_size_that_does_not_fit_is_padded_and_cropped_back(prepared):
    config = CONFIG.changed(net={"stride": 4}, data={"size": (21, 37), "pad": True})
    network = evaluation.Network(config, num_classes=4)
    samples = network.samples(prepared, "val", limit=2)
    images, labels, _ = zip(*(samples.plain(k) for k in range(2)))
    images = np.stack(images)
    logits = network.logits(images)
    assert logits.shape == (2, 21, 37, 4)
    weights = np.array([0.0, 0.0, 0.0, 1.0])
    weighted = network.logits(images, weights)
    assert not weighted[..., :3].any()
    ids = network.predict(images)
    assert ids.dtype == np.uint8
    np.testing.assert_array_equal(ids, logits.argmax(-1))
    scored = evaluation.Scorer(network, prepared).score(samples)
    assert_counts(scored, samples.ids, labels, ids)


@pytest.mark.parametrize(
    ("net", "precision"),
    [
        # Without indices: where two pixels nearly tie, either wins a maximum
        ({"name": "segnet_basic", "upsample": "deconv"}, "float32"),
        ({"name": "icnet"}, "float32"),
        ({"name": "icnet"}, "mixed_bfloat16"),
    ],
)
def test_fixed_weights_predict_as_the_network_did_when_they_were_fixed(net, precision):
    keras.utils.set_random_seed(0)
    config = Config(net=net, data={"size": (32, 64)}, steps=1)
    with backend.dtype_policy_kept():
        keras.config.set_dtype_policy(precision)
        network = evaluation.Network(config, num_classes=5)
    rng = np.random.default_rng(0)
    for variable in network.inference.variables:  # moving variances stay positive
        factor, more = 0.8 + 0.4 * rng.random((2, *variable.shape))
        is_kernel = len(variable.shape) > 1
        variable.assign(np.asarray(variable) * factor + (0 if is_kernel else more / 8))
    images = rng.integers(0, 256, (3, 32, 64, 3), np.uint8)
    inputs = preprocess.apply(network.preprocess, images)
    expected = network.inference(inputs, training=False)["logits"]
    expected = np.asarray(expected, np.float32)
    network.fix_weights()
    found = [network.logits(images), network.logits(images[1:2])]
    for variable in network.inference.variables:
        variable.assign(0 * np.asarray(variable))
    found.append(network.logits(images[:2]))
    if precision != "float32":  # batch norm is a part of the convolutions
        casts = [
            one for one in network._infer.graph.get_operations() if one.type == "Cast"
        ]
        assert not any(
            "_bn" in one.name for one in casts if one.inputs[0].shape.rank == 4
        )
    tolerance = 1e-4 if precision == "float32" else 1e-2
    tolerance *= np.abs(expected).max()
    for logits, part in zip(found, (slice(None), slice(1, 2), slice(2))):
        assert logits.dtype == np.float32
        assert np.abs(logits - expected[part]).max() < tolerance


def test_samples_are_evenly_spaced_over_the_split():
    assert evaluation.evenly_spaced(101, 4) == [12, 37, 63, 88]
    assert evaluation.evenly_spaced(3, 4) == [0, 1, 2]
