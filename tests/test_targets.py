"""Targets of the heads: lookups, joint heatmaps and part centroids."""

import numpy as np
import pytest

from keras_seg.data import targets
from keras_seg.errors import UsageError


def heatmaps(joints, size, canvas=None):
    maps = np.zeros((*(canvas or size), len(joints)), np.float32)
    targets.draw_heatmaps(np.asarray(joints, np.float32), size, maps)
    return maps


def test_heatmap_has_the_oracle_values_at_320():
    maps = heatmaps([[100, 60]], (320, 200))
    values = {0: 1, 1: 0.980199, 5: 0.606531, 10: 0.135335, 15: 0.011109, 16: 0}
    for distance, expected in values.items():
        for row, column in ((60, 100 + distance), (60 - distance, 100)):
            assert maps[row, column, 0] == pytest.approx(expected, abs=1e-6)


def test_heatmaps_equal_the_formula_everywhere():
    size, canvas = (64, 96), (64, 128)  # sigma is 1 px, as Newell has it at 64
    joints = [[10.3, 20.8], [-0.4, 63.2], [95.4, 0], [np.nan, 5], [96, 30], [3, -0.6]]
    maps = heatmaps(joints, size, canvas)
    y, x = np.mgrid[:64, :128]
    for joint, (joint_x, joint_y) in enumerate(joints[:3]):
        squared = (x - np.float32(joint_x)) ** 2.0 + (y - np.float32(joint_y)) ** 2.0
        expected = np.where((squared <= 9) & (x < 96), np.exp(-squared / 2), 0)
        np.testing.assert_allclose(maps[..., joint], expected, atol=1e-6)
    assert (maps[..., 3:] == -1).all()  # missing, outside right, outside above


def test_centroid_is_the_mean_place_of_the_pixels_of_a_part():
    rng = np.random.default_rng(0)
    label = rng.choice([0, 1, 2, 7, 24, 255], (31, 47)).astype(np.uint8)
    expected = np.full((24, 2), np.nan)
    for part in (1, 2, 7, 24):
        rows, columns = np.nonzero(label == part)
        expected[part - 1] = columns.mean(), rows.mean()
    centroids = targets.part_centroids(label)
    np.testing.assert_allclose(centroids, expected, rtol=1e-6)
    assert centroids.dtype == np.float32


def test_left_and_right_joints_change_places():
    names = (
        "Pelvis L_Hip R_Hip Spine1 L_Knee R_Knee Spine2 L_Ankle R_Ankle Spine3 L_Foot "
        "R_Foot Neck L_Collar R_Collar Head L_Shoulder R_Shoulder L_Elbow R_Elbow "
        "L_Wrist R_Wrist L_Hand R_Hand"
    ).split()
    joints = np.arange(48, dtype=np.float32).reshape(24, 2)
    mirrored = targets.mirrored_joints(joints)
    swap = {"L_": "R_", "R_": "L_"}
    others = [swap.get(name[:2], name[:2]) + name[2:] for name in names]
    expected = joints[[names.index(other) for other in others]]
    np.testing.assert_array_equal(mirrored, expected)


def test_lookup_maps_classes_and_keeps_the_ignored():
    table = targets.lookup_table((0, 2, 1, 1), 4)
    label = np.array([[0, 1, 2], [3, 255, 1]], np.uint8)
    np.testing.assert_array_equal(table[label], [[0, 2, 1], [1, 255, 2]])
    assert table.dtype == np.uint8
    assert targets.lookup_table(None, 4) is None


@pytest.mark.parametrize("lookup", [(0, 1), (0, 1, 2, 255), (0, 1, 2, -1)])
def test_a_lookup_that_does_not_fit_is_refused(lookup):
    with pytest.raises(UsageError, match="4 ids"):
        targets.lookup_table(lookup, 4)
