"""Losses: oracle numbers of the specification (section 3), PyTorch, NumPy loops."""

import numpy as np
import pytest

from keras_seg import losses

# One pixel, true class 2, and the weights of the counts [900, 60, 30, 10].
LOGITS = np.array([2.0, 1.0, 0.5, -1.0], "float32").reshape(1, 1, 1, 4)
LABEL = np.full((1, 1, 1), 2, "uint8")
W1 = [0.1, 0.94, 0.97, 0.99]
W2 = [1.275357, 17.254787, 30.897626, 59.564628]
FOCAL = losses.Focal()
CE = losses.CrossEntropy()


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (CE, 1.995182),
        (losses.CrossEntropy(W1), 1.935326),
        (losses.CrossEntropy(W1, "direct"), 1.268909),
        (losses.CrossEntropy(W2), 61.646385),
        (losses.CrossEntropy(W2, "direct"), 1.958107),
        (losses.CrossEntropy(W2, normalise="weights"), 1.995182),
        (FOCAL, 0.372358),
        (losses.Focal(alpha=1), 1.489434),
        (losses.Focal(gamma=0, alpha=1), 1.995182),
        (losses.WithErrorPenalty(FOCAL, 0, 0), 0.372358),
        (losses.WithErrorPenalty(FOCAL, 0, 0.5), 0.518502),
        (losses.WithErrorPenalty(FOCAL, 0.5, 0), 0.588361),
        (losses.WithErrorPenalty(FOCAL, 0.5, 0.5), 0.734504),
        (losses.WithErrorPenalty(CE, 0, 0.5), 2.141325),
        (losses.WithErrorPenalty(CE, 0.5, 0), 2.211185),
        (losses.WithErrorPenalty(CE, 0.5, 0.5), 2.357328),
        (losses.WithErrorPenalty(CE, 1, 0), 1.995182 + 0.432006),
        (losses.WithErrorPenalty(CE, 0, 1), 1.995182 + 0.292287),
    ],
)
def test_value_at_one_pixel(loss, expected):
    np.testing.assert_allclose(float(loss(LABEL, LOGITS)), expected, rtol=1e-5)
