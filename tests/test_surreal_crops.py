"""Square crops: sides and places by hand, and a dot that joints have to follow."""

import numpy as np
import pytest

from keras_seg.data.surreal.crops import Square, crop, crop_and_resize, square_around


def box(top, left, height, width, frame=(240, 320)):
    mask = np.zeros(frame, bool)
    # Corners only: the box is that of the pixels, whatever lies between.
    mask[top, left] = mask[top + height - 1, left + width - 1] = True
    return mask


@pytest.mark.parametrize(
    ("mask", "margin", "expected"),
    [
        # 1.2 times 160 is 192. Centre (110, 130): 110 - 96, 130 - 96.
        (box(30, 90, 160, 80), 0.2, Square(14, 34, 192)),
        (box(30, 90, 80, 160), 0.2, Square(0, 74, 192)),  # 70 - 96 is above
        (box(100, 270, 60, 50), 0.2, Square(94, 248, 72)),  # 295 - 36 + 72 > 320
        (box(180, 5, 60, 20), 0.5, Square(150, 0, 90)),  # both beyond: moved in
        # 216 * 1.2 = 259.2: higher than the frame, which is all in it.
        # 240 - 259 = -19 <= top <= 0. Half pixels go up and left.
        (box(24, 150, 216, 30), 0.2, Square(0, 35, 259)),
        (box(0, 150, 216, 30), 0.2, Square(-19, 35, 259)),
        (box(50, 60, 41, 10), 0.0, Square(50, 44, 41)),
    ],
)
def test_square(mask, margin, expected):
    square = square_around(mask, margin)
    assert square == expected
    rows, columns = np.nonzero(mask)
    for places, start in ((rows, square.top), (columns, square.left)):
        assert start <= places.min()
        assert places.max() < start + square.side


def test_beyond_the_frame_images_repeat_and_labels_are_background():
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    label = np.arange(1, 25, dtype=np.uint8).reshape(4, 6)
    square = Square(-2, -1, 8)
    cut = crop(image, square)
    assert cut.shape == (8, 8, 3)
    for row in range(8):
        for column in range(8):
            place = min(max(row - 2, 0), 3), min(max(column - 1, 0), 5)
            np.testing.assert_array_equal(cut[row, column], image[place])
    expected = np.zeros((8, 8), np.uint8)
    expected[2:6, 1:7] = label
    np.testing.assert_array_equal(crop(label, square, fill=0), expected)
    inner = crop(label, Square(1, 2, 3), fill=0)
    np.testing.assert_array_equal(inner, label[1:4, 2:5])


@pytest.mark.parametrize("size", [(96, 96), (160, 160), (33, 33)])
@pytest.mark.parametrize("square", [Square(10, 7, 40), Square(-9, 3, 75)])
def test_joints_go_where_a_dot_goes(square, size):
    """The dot's centre of mass is measured in the resized image and label."""
    frame = (60, 90)
    for x, y in ((30, 22), (12, 44), (41.5, 30.5)):
        image = np.zeros((*frame, 3), np.uint8)
        label = np.zeros(frame, np.uint8)
        rows, columns = np.mgrid[: frame[0], : frame[1]]
        near = (np.abs(rows - y) <= 3) & (np.abs(columns - x) <= 3)
        image[near], label[near] = 255, 5
        image, label, joints = crop_and_resize(
            image, label, np.float32([[x, y], [0, 0]]), square, size
        )
        assert image.shape == (*size, 3)
        assert label.shape == size
        assert joints.dtype == np.float32
        rows, columns = np.mgrid[: size[0], : size[1]]
        for weights, tolerance in ((image[..., 0].astype(float), 0.1), (label, 0.6)):
            mass = weights.sum()
            centre = (columns * weights).sum() / mass, (rows * weights).sum() / mass
            np.testing.assert_allclose(joints[0], centre, atol=tolerance)
