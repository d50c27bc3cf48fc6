"""Sums that do not depend on which op finished first, as AddN's do.

AddN adds into the first input that no other op needs any more. The functions here
hold some inputs back on purpose, which a busy machine does by chance.
"""

import itertools

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
