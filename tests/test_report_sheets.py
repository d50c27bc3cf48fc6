import numpy as np
import pytest

from keras_seg import plots
from keras_seg.report import sheets

NAMES = [f"part {k}" for k in range(25)]
PALETTE = [(5 * k, 255 - 5 * k, k) for k in range(25)]
WHOLE_BODY = (0,) + (1,) * 24


def body_example(joints=None):
    """Part 1 in a square, part 2 beside it, an ignored pixel, background around."""
    label = np.zeros((20, 30), np.uint8)
    label[4:8, 10:14], label[4:8, 14:20], label[0, 0] = 1, 2, 255
    return sheets.Example("one", np.full((20, 30, 3), 90, np.uint8), label, joints)


def test_hierarchy_sheet_paints_each_level_in_the_colours_of_its_first_class():
    levels = [WHOLE_BODY, None]
    sheet = sheets.hierarchy_sheet([body_example()], NAMES, PALETTE, levels).blocks[1]

    assert sheet.header == ["image", "2 classes", "25 classes"]
    ((name, (image, coarse, fine)),) = sheet.rows
    assert name == "one"
    assert (image == 90).all()
    assert tuple(coarse[5, 10]) == tuple(coarse[5, 15]) == PALETTE[1]
    assert tuple(fine[5, 15]) == PALETTE[2]
    assert tuple(coarse[0, 0]) == tuple(fine[0, 0]) == plots.IGNORED_COLOUR
    assert tuple(coarse[10, 2]) == PALETTE[0]


def test_joint_sheet_marks_joints_and_centroids():
    joints = np.full((24, 2), np.nan, np.float32)
    joints[0] = (8.5, 5.5)  # part 1's centroid is (11.5, 5.5): 3 px of 20 apart
    note, sheet = sheets.joint_sheet([body_example(joints)], NAMES).blocks

    ((_, (plain, dots, centroids, both)),) = sheet.rows
    zoom = len(plain) // 20
    at = [(int(6 * zoom), int((x + 0.5) * zoom)) for x in (8.5, 11.5, 16.5)]
    for picture, colours in (
        (plain, (None, None, None)),
        (dots, (sheets.JOINT_COLOUR, None, None)),
        (centroids, (None, sheets.CENTROID_COLOUR, sheets.CENTROID_COLOUR)),
    ):
        for place, colour in zip(at, colours):
            assert tuple(picture[place]) == (colour or (90, 90, 90))
    between = (at[0][0], (at[0][1] + at[1][1]) // 2)
    assert tuple(both[between]) == (255, 255, 255)
    assert "15.0 % of the height" in note.text


@pytest.mark.parametrize(
    ("sheet", "names", "levels", "reason"),
    [
        ("joints", NAMES, [], "joints for each image"),
        ("joints", ["a"], [], "SURREAL's 25 classes; the data have 1"),
        ("hierarchy", NAMES, [], "from coarse to fine"),
        ("hierarchy", ["a"], [WHOLE_BODY], "25 classes; the data have 1"),
    ],
)
def test_sheet_that_the_data_cannot_fill(sheet, names, levels, reason):
    assert reason in sheets.SHEETS[sheet]([body_example()], names, PALETTE, levels)
