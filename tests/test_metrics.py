"""Metrics: oracle numbers of the specification (section 4), scikit-learn, loops."""

import numpy as np
import pytest

from keras_seg import metrics

CONFUSION = np.array([[50, 2, 3, 0], [4, 20, 1, 0], [2, 3, 15, 0], [0, 0, 0, 0]])


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("iou", [0.819672, 0.666667, 0.625, np.nan]),
        ("f1", [0.900901, 0.8, 0.769231, np.nan]),
        ("miou", 0.703780),
        ("pixel_accuracy", 0.85),
        ("mean_accuracy", 0.819697),
        ("f1_macro", 0.823377),
        ("f1_weighted", 0.849342),
        ("f1_micro", 0.85),
        ("fwiou", 0.742486),
        ("precision_micro_fg", 0.795455),
        ("recall_micro_fg", 0.777778),
        ("f1_micro_fg", 0.786517),
        ("f1_body", 0.876404),
        ("miou_fg", 0.645833),
        # Class 1: (20/30 + 70/80) / 2, class 2: (15/24 + 76/85) / 2.
        ("iou_ovr2", 0.765196),
        ("absent_ids", [3]),
    ],
)
def test_summary_of_the_specification(key, expected):
    value = metrics.summary(CONFUSION)[key]
    np.testing.assert_allclose(value, expected, atol=1e-6)
