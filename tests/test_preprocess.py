"""Input normalisation: values by hand and against Keras."""

import numpy as np
import pytest

from keras_seg import preprocess
from keras_seg.errors import UsageError

PIXEL = np.array([10, 200, 30], dtype=np.uint8)  # red, green, blue


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bgr_minus_mean", [30 - 103.939, 200 - 116.779, 10 - 123.68]),
        ("rgb_255", [10, 200, 30]),
        ("unit", [10 / 255, 200 / 255, 30 / 255]),
        ("signed_unit", [-117 / 128, 73 / 128, -97 / 128]),
        (
            "imagenet",
            [
                (10 / 255 - 0.485) / 0.229,
                (200 / 255 - 0.456) / 0.224,
                (30 / 255 - 0.406) / 0.225,
            ],
        ),
    ],
)
def test_values_by_hand(name, expected):
    result = preprocess.apply(name, PIXEL)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "mode"), [("bgr_minus_mean", "caffe"), ("imagenet", "torch")]
)
def test_equals_keras_applications(name, mode):
    from keras.applications.imagenet_utils import preprocess_input

    images = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
    expected = preprocess_input(
        images.astype(np.float32), data_format="channels_last", mode=mode
    )
    np.testing.assert_allclose(preprocess.apply(name, images), expected, atol=2e-5)


@pytest.mark.parametrize("name", preprocess.PREPROCESS)
def test_any_layout_and_number_type_gives_the_same_and_is_left_alone(name):
    images = np.random.default_rng(1).integers(0, 256, (2, 6, 4, 3), dtype=np.uint8)
    before = images.copy()
    expected = preprocess.apply(name, images)
    np.testing.assert_array_equal(images, before)
    mirrored = preprocess.apply(name, images[:, :, ::-1])
    np.testing.assert_array_equal(mirrored, expected[:, :, ::-1])
    as_float = preprocess.apply(name, images.astype(np.float64))
    np.testing.assert_array_equal(as_float, expected)
    assert as_float.dtype == np.float32


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(UsageError, match="bgr_minus_mean, rgb_255, unit, imagenet"):
        preprocess.apply("caffe", PIXEL)


def test_the_table_is_read_only():
    with pytest.raises(TypeError):
        preprocess.PREPROCESS["mine"] = preprocess.unit
