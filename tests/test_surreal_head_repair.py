"""Repair of the head's label: an example by hand, loops, known clean labels.

The clean labels are those of generated clips, whose defect is put in on purpose.
"""

from collections import Counter

import numpy as np
import pytest
import scipy.ndimage

from keras_seg.data.surreal.head_repair import REPAIRS, repair_head, repair_zones
from keras_seg.synthetic import clip


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
