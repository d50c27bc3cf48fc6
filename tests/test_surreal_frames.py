"""Frames of SURREAL: square crops, joints that follow, repair of the head's label.

The clean labels are those of generated clips, whose defect is put in on purpose.
"""

from collections import Counter

import numpy as np
import pytest
import scipy.ndimage

from keras_seg.data.surreal.crops import Square, crop, crop_and_resize, square_around
from keras_seg.data.surreal.head_repair import REPAIRS, repair_head, repair_zones
from keras_seg.synthetic import clip


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


# The head


def test_an_example_by_hand():
    label = np.uint8(
        [
            [16, 16, 0, 0, 0],
            [16, 16, 0, 4, 4],
            [0, 0, 4, 16, 4],
            [0, 0, 4, 16, 1],
            [0, 0, 1, 1, 1],
        ]
    )
    before, expected = label.copy(), label.copy()
    expected[2:4, 3] = 4, 1
    np.testing.assert_array_equal(repair_head(label), expected)
    np.testing.assert_array_equal(label, before)


def neighbours(place, shape):
    row, column = place
    for i in (row - 1, row, row + 1):
        for j in (column - 1, column, column + 1):
            if (i, j) != place and 0 <= i < shape[0] and 0 <= j < shape[1]:
                yield i, j


def repaired_by_loops(label):
    """BODY 2.2 pixel by pixel."""
    components, _ = scipy.ndimage.label(label == 16, np.ones((3, 3)))
    sizes = np.bincount(components.ravel(), minlength=2)[1:]
    is_stray = (components > 0) & (components != sizes.argmax() + 1)
    todo = set(map(tuple, np.argwhere(is_stray)))
    result = label.copy()
    while todo:
        values = {}
        for place in todo:
            known = [o for o in neighbours(place, label.shape) if o not in todo]
            counts = Counter(int(result[other]) for other in known)
            if counts:
                values[place] = min(counts, key=lambda v: (-counts[v], v))
        for place, value in values.items():
            result[place] = value
        todo -= values.keys()
    return result


@pytest.mark.parametrize("seed", range(8))
def test_equals_loops_on_random_labels(seed):
    rng = np.random.default_rng(seed)
    coarse = rng.choice(np.uint8([0, 1, 4, 10, 16]), (10, 13))
    label = coarse.repeat(3, axis=0).repeat(3, axis=1)[: 25 + seed, :34]
    label[rng.random(label.shape) < 0.15] = 16
    np.testing.assert_array_equal(repair_head(label), repaired_by_loops(label))


def test_of_equal_components_the_first_by_rows_stays():
    expected = np.full((9, 12), 7, np.uint8)
    expected[0:2, 8:10] = 16
    label = expected.copy()
    label[4:6, 0:2] = label[4:6, 6:8] = 16
    np.testing.assert_array_equal(repair_head(label), expected)


@pytest.mark.parametrize("name", REPAIRS)
def test_without_a_head_nothing_changes(name):
    label = np.random.default_rng(0).integers(0, 16, (20, 30), dtype=np.uint8)
    repaired = REPAIRS[name](label)
    np.testing.assert_array_equal(repaired, label)
    assert repaired is not label


def person():
    """uint8 [40, 30]: head over torso, an arm (19) across the head."""
    label = np.zeros((40, 30), np.uint8)
    label[2:14, 10:20] = 16
    label[11:12, 8:22] = 19  # cuts the chin off
    label[14:34, 8:22] = 10
    return label


def test_specks_on_the_chest_are_repaired_with_its_id():
    clean = person()
    label = clean.copy()
    label[24:27, 8:10] = 16  # a speck at the outline
    label[30:32, 14:17] = 16
    np.testing.assert_array_equal(repair_zones(label), clean)
    by_thesis = repair_head(label)
    assert set(by_thesis[24:27, 8:10].ravel()) == {0, 10}  # the outline moves in
    assert not (by_thesis[12:14, 10:20] == 16).any()  # and the chin is gone


def test_a_piece_of_the_head_far_from_the_chest_stays():
    label = person()
    label[5:8, 24:28] = 16  # behind a raised hand
    label[4:9, 22:24] = 21
    np.testing.assert_array_equal(repair_zones(label), label)


def test_half_a_face_below_an_arm_stays():
    label = person()
    label[7:10, 8:22] = 19  # 3 rows high: the face is not near the rest of the head
    label[10:14, 10:20] = 16
    label[24:26, 12:14] = 16
    expected = label.copy()
    expected[24:26, 12:14] = 10
    np.testing.assert_array_equal(repair_zones(label), expected)


def test_generated_clips_get_their_clean_labels_back():
    """At least 99 % of the defective pixels, and no other one changes."""
    defective = restored = 0
    for split, index in (("train", 0), ("train", 3), ("val", 1), ("test", 1)):
        made = clip.make_clip(11, split, index, 5)
        for label, clean in zip(made.segm, made.segm_clean):
            repaired = repair_zones(label)
            is_bad = label != clean
            np.testing.assert_array_equal(repaired[~is_bad], clean[~is_bad])
            defective += np.count_nonzero(is_bad)
            restored += np.count_nonzero(repaired[is_bad] == clean[is_bad])
    assert defective > 50
    assert restored >= 0.99 * defective
