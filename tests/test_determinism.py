"""Sums that do not depend on which op finished first, as AddN's do.

AddN adds into the first input that no other op needs any more. The functions here
hold some inputs back on purpose, which a busy machine does by chance.
"""

import itertools
import os
import sys

import numpy as np
import pytest

from keras_seg import backend

tf = pytest.importorskip("tensorflow")

TERMS = np.random.default_rng(0).normal(size=(4, 1000)).astype("float32")
HELD = [held for n in range(4) for held in itertools.combinations(range(4), n)]


@pytest.fixture(autouse=True, scope="module")
def started():
    backend.start(0, 2)


@pytest.mark.parametrize("held", HELD, ids=str)
def test_gradients_are_added_in_one_order(held):
    """The gradients of four uses of one tensor; those held have a later consumer."""
    found = tf.function(lambda *terms: added_gradients(terms, held))(*TERMS)
    one_order = tf.function(lambda *terms: added_gradients(terms, ()))(*TERMS)
    np.testing.assert_array_equal(found[0], one_order[0])
    backwards = np.tanh(TERMS[::-1]).cumsum(axis=0)[-1]
    np.testing.assert_allclose(found[0], backwards, rtol=1e-4, atol=1e-5)


def added_gradients(terms, held):
    gradients = []

    @tf.custom_gradient
    def use(x, term):
        def gradient(upstream):
            gradients.append(tf.tanh(upstream * term))
            return gradients[-1], None

        return tf.identity(x), gradient

    x = tf.zeros(1000)
    with tf.GradientTape() as tape:
        tape.watch(x)
        uses = [use(x, term) for term in terms]
        total = tf.stack(uses)
    added = tape.gradient(total, x)
    with tf.control_dependencies([added]):
        later = [tf.reduce_sum(gradients[k]) for k in held]
    return added, later


@pytest.mark.parametrize("held", HELD, ids=str)
def test_chains_of_additions_are_added_as_written(held):
    found = tf.function(lambda *terms: added(terms, held))(*TERMS)[0]
    first, second, third, fourth = np.tanh(TERMS.astype("float64"))
    np.testing.assert_allclose(found, first + second + third + fourth, atol=1e-5)
    parts = tf.function(lambda *terms: [tf.tanh(term) for term in terms])(*TERMS)
    first, second, third, fourth = (part.numpy() for part in parts)
    np.testing.assert_array_equal(found, ((first + second) + third) + fourth)


def added(terms, held):
    terms = [tf.tanh(term) for term in terms]
    total = ((terms[0] + terms[1]) + terms[2]) + terms[3]
    with tf.control_dependencies([total]):
        later = [tf.reduce_sum(terms[k]) for k in held]
    return total, later


def test_threads_that_cannot_be_changed_any_more_are_said_once(capsys):
    """As in a notebook that has used TensorFlow; the run's record tells, too."""
    for _ in range(2):
        backend.start(0, 7)
    assert backend.fingerprint()["threads"] == 2
    errors = capsys.readouterr().err
    assert errors.count("keeps its 2 threads. For 7 threads, restart") == 1


@pytest.mark.parametrize("imported", [True, False])
def test_the_environment_is_set_before_tensorflow_only(imported, monkeypatch):
    names = ("TF_ENABLE_ONEDNN_OPTS", "TF_CPP_MIN_LOG_LEVEL", "GRPC_VERBOSITY")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    if not imported:
        monkeypatch.delitem(sys.modules, "tensorflow")
    monkeypatch.setenv("GRPC_VERBOSITY", "INFO")
    backend.set_environment()
    onednn, level, grpc = (os.environ.get(name) for name in names)
    assert (onednn, level, grpc) == (
        (None, None, "INFO") if imported else ("1", "3", "INFO")
    )
