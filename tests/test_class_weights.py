"""Class weights against numbers by hand and published ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_seg import class_weights
from keras_seg.config import LossSettings
from keras_seg.data.prepared import ClassCounts
from keras_seg.errors import UsageError

CAMVID_PIXELS = [
    *(10682767, 14750079, 623349, 20076880, 2845085, 6166762),
    *(743859, 714595, 3719877, 405385, 184967),
]
CAMVID_VOID = 2503995
CAMVID_IMAGES = [366, 365, 366, 367, 349, 319, 351, 173, 360, 317, 201]
CAMVID_AREA = 360 * 480


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([900, 60, 30, 10], [0.1, 0.94, 0.97, 0.99]),
        ([500, 300, 200], [0.5, 0.7, 0.8]),
        ([7000, 1500, 800, 400, 200, 100], [0.3, 0.85, 0.92, 0.96, 0.98, 0.99]),
        ([3, 0, 1], [0.25, 1.0, 0.75]),
        (
            CAMVID_PIXELS,
            [
                *(0.824624, 0.757852, 0.989767, 0.670404, 0.953293, 0.898762),
                *(0.987788, 0.988269, 0.938932, 0.993345, 0.996963),
            ],
        ),
    ],
)
def test_inverse_frequency(counts, expected):
    np.testing.assert_allclose(
        class_weights.inverse_frequency(counts), expected, atol=5e-7
    )


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([900, 60, 30, 10], [1.275357, 17.254787, 30.897626, 59.564628]),
        ([500, 300, 200], [1.342108, 1.704820, 1.821054]),
        (
            [7000, 1500, 800, 400, 200, 100],
            [1.257267, 5.645806, 10.141919, 18.504522, 30.800892, 42.668182],
        ),
        # B = 1, 15, 30, 90 as in the first row: the absent class changes nothing.
        ([900, 0, 60, 30, 10], [1.275357, 0, 17.254787, 30.897626, 59.564628]),
        ([7, 7, 7], [1, 1, 1]),  # std B = 0: W = B
        (
            CAMVID_PIXELS,
            [
                *(2.250189, 1.636555, 30.166214, 1.205865, 8.102172, 3.854835),
                *(26.370005, 27.205336, 6.280638, 40.316985, 54.793220),
            ],
        ),
    ],
)
def test_exponential(counts, expected):
    np.testing.assert_allclose(class_weights.exponential(counts), expected, atol=5e-7)


def test_exponential_is_largest_at_four_standard_deviations():
    """dW/dB = 0 at B = 4 std B: beyond it a rarer class weighs less."""
    counts = np.array([10**6] * 30 + [10**4, 100])
    rarity = counts.max() / counts
    assert rarity[-1] > 4 * rarity.std() > rarity[-2]
    weights = class_weights.exponential(counts)
    # W(B) = B exp(-(B - mean) / (4 std)), written out
    scale = np.exp(0.25 * rarity.mean() / rarity.std())
    expected = rarity * np.exp(-rarity / (4 * rarity.std())) * scale
    np.testing.assert_allclose(weights, expected, rtol=1e-12)


def test_median_frequency_by_hand():
    weights = class_weights.median_frequency([900, 60, 30, 10], [1000, 1000, 500, 500])
    np.testing.assert_allclose(weights, [0.066667, 1, 1, 3], atol=5e-7)


def test_median_frequency_leaves_absent_classes_out_of_the_median():
    weights = class_weights.median_frequency(
        [900, 0, 60, 30, 10], [1000, 0, 1000, 500, 500]
    )
    np.testing.assert_allclose(weights, [0.066667, 0, 1, 1, 3], atol=5e-7)


@pytest.mark.parametrize(
    ("pixels", "images", "expected"),
    [
        (
            CAMVID_PIXELS,
            CAMVID_IMAGES,
            [
                *(0.2793, 0.2017, 4.7865, 0.1490, 1.0, 0.4217),
                *(3.8467, 1.9736, 0.7889, 6.3747, 8.8587),
            ],
        ),
        (
            [*CAMVID_PIXELS, CAMVID_VOID],
            [*CAMVID_IMAGES, 367],
            [
                *(0.2565, 0.1853, 4.3963, 0.1369, 0.9185, 0.3873),
                *(3.5331, 1.8127, 0.7246, 5.8550, 8.1365, 1.0974),
            ],
        ),
    ],
    ids=["11 classes", "12 classes"],
)
def test_median_frequency_of_camvid(pixels, images, expected):
    weights = class_weights.median_frequency(pixels, np.multiply(images, CAMVID_AREA))
    np.testing.assert_allclose(weights, expected, atol=5e-5)


def test_background_discount():
    weights = class_weights.background_discount([1000, 4, 10, 0])
    np.testing.assert_allclose(weights, [0.15, 1.75, 1.9, 1.0], atol=1e-12)


def test_background_discount_of_counts_of_one_is_voc07_5():
    weights = class_weights.background_discount(np.ones(4), background=0.1)
    np.testing.assert_array_equal(weights, [0.1, 1, 1, 1])


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("w1", {}, [0.1, 0.94, 0.97, 0.99]),
        ("w2", {}, [1.275357, 17.254787, 30.897626, 59.564628]),
        ("median", {}, [0.066667, 1, 1, 3]),
        ("voc07", {}, [0.15, 2 - 1 / 60, 2 - 1 / 30, 1.9]),
        ("voc07", {"occurrences": "images"}, [0.15, 1.5, 1.75, 1.8]),
        ("voc07", {"occurrences": "none", "background_weight": 0.1}, [0.1, 1, 1, 1]),
    ],
)
def test_from_counts(name, options, expected):
    counts = ClassCounts(
        *np.array([[900, 60, 30, 10], [9, 2, 4, 5], [1000, 1000, 500, 500]]), 0, 1000
    )
    settings = LossSettings(weights=name, **options)
    weights = class_weights.from_counts(settings, counts)
    np.testing.assert_allclose(weights, expected, atol=5e-7)
    assert weights.dtype == np.float64


def test_from_counts_of_none_is_none():
    counts = ClassCounts(*np.ones((3, 2), int), 0, 2)
    assert class_weights.from_counts(LossSettings(weights="none"), counts) is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: LossSettings(weights="w3"),
        lambda: LossSettings(weights="voc07", occurrences="x"),
        lambda: class_weights.inverse_frequency([1, -1]),
        lambda: class_weights.inverse_frequency([0, 0]),
        lambda: class_weights.exponential([1, np.nan]),
        lambda: class_weights.exponential([]),
        lambda: class_weights.exponential([[1, 2]]),
        lambda: class_weights.median_frequency([1, 2], [3]),
        lambda: class_weights.median_frequency([1, 20], [10, 10]),
        lambda: class_weights.background_discount([1, 2], background=-1),
    ],
)
def test_bad_counts_are_refused(make):
    with pytest.raises(UsageError):
        make()


@settings(deadline=None)
@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=30).filter(any))
def test_weights_are_finite_and_do_not_depend_on_the_unit(counts):
    for weigh in (class_weights.inverse_frequency, class_weights.exponential):
        weights = weigh(counts)
        assert np.isfinite(weights).all()
        assert (weights >= 0).all()
        np.testing.assert_allclose(weigh(np.multiply(counts, 3)), weights, rtol=1e-9)


def test_numbers_are_taken_as_they_are():
    counts = ClassCounts(*np.full((3, 3), 7), ignored=0, total=21)
    found = class_weights.from_counts(LossSettings(weights=(1, 0, 2.5)), counts)
    assert found.tolist() == [1, 0, 2.5]
    with pytest.raises(UsageError, match="2 numbers, but the data have 3 classes"):
        class_weights.from_counts(LossSettings(weights=(1, 2)), counts)
