"""Learning rates against numbers by hand."""

import math

import keras
import numpy as np
import pytest

from keras_seg.config import OptimizerSettings
from keras_seg.errors import UsageError
from keras_seg.runs import schedules


def settings(kind, **options):
    return OptimizerSettings(schedule=kind, **options)


@pytest.mark.parametrize(
    ("kind", "lr", "options", "step", "expected"),
    [
        ("constant", 0.005, {}, 0, 0.005),
        ("constant", 0.005, {}, 99, 0.005),
        ("poly", 0.01, {}, 0, 0.01),
        ("poly", 0.01, {}, 50, 0.00535887),
        ("poly", 1e-3, {"poly_power": 0.95}, 50, 5.176325e-4),
        ("poly", 0.01, {}, 99, 0.01 * 0.01**0.9),
        ("poly", 0.01, {}, 100, 0.0),
        ("poly", 0.01, {}, 120, 0.0),
        ("cosine", 5e-4, {"lr_min": 1e-4}, 0, 5e-4),
        ("cosine", 5e-4, {"lr_min": 1e-4}, 25, 3e-4 + 2e-4 * math.cos(math.pi / 4)),
        ("cosine", 5e-4, {"lr_min": 1e-4}, 50, 3e-4),
        ("cosine", 5e-4, {"lr_min": 1e-4}, 100, 1e-4),
        ("cosine", 5e-4, {"lr_min": 1e-4}, 120, 1e-4),
        ("step", 1e-4, {"decay_every": 30}, 29, 1e-4),
        ("step", 1e-4, {"decay_every": 30}, 30, 1e-5),
        ("step", 1e-4, {"decay_every": 30}, 89, 1e-6),
        ("exponential", 2.5e-4, {"decay_rate": 0.96}, 1999, 2.5e-4),
        ("exponential", 2.5e-4, {"decay_rate": 0.96}, 2000, 2.4e-4),
        ("exponential", 2.5e-4, {"decay_rate": 0.96}, 39999, 2.5e-4 * 0.96**19),
        # Of 100 steps: 8 rise, or 7.1 rounded up
        ("constant", 0.4, {"warmup": 0.08}, 0, 0.05),
        ("constant", 0.4, {"warmup": 0.08}, 6, 0.35),
        ("constant", 0.4, {"warmup": 0.071}, 6, 0.35),
        ("constant", 0.4, {"warmup": 0.08}, 7, 0.4),
        ("constant", 0.4, {"warmup": 0.08}, 90, 0.4),
        ("poly", 0.01, {"warmup": 0.99, "poly_power": 1.0}, 50, 0.005 * 51 / 99),
    ],
)
def test_value(kind, lr, options, step, expected):
    schedule = schedules.build(settings(kind, lr=lr, **options), 100)
    np.testing.assert_allclose(float(schedule(step)), expected, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("kind", schedules.SCHEDULES)
def test_is_a_function_of_the_iterations_and_survives_serialisation(kind):
    schedule = schedules.build(settings(kind, lr=0.5, lr_min=0.1, decay_every=3), 10)
    copy = keras.optimizers.schedules.deserialize(
        keras.optimizers.schedules.serialize(schedule)
    )
    optimizer = keras.optimizers.SGD(schedule)
    weight = keras.Variable([1.0])
    optimizer.build([weight])
    for step in range(5):
        before = keras.ops.convert_to_numpy(weight)
        optimizer.apply([keras.ops.ones(1)])
        np.testing.assert_allclose(
            before - keras.ops.convert_to_numpy(weight), copy(step), rtol=1e-5
        )


@pytest.mark.parametrize(
    "arguments",
    [
        {"kind": "linear"},
        {"lr": 0},
        {"lr": float("nan")},
        {"lr_min": 0.2},
        {"lr_min": -1e-3},
        {"decay_every": 0},
        {"decay_rate": -0.1},
        {"poly_power": 0},
    ],
)
def test_bad_settings_are_refused(arguments):
    with pytest.raises(UsageError):
        settings(**{"kind": "poly", "lr": 0.1, **arguments})
