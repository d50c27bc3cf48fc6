"""Pose features by turning poses, quotas by hand, what a selection has to hold."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from keras_seg.data.surreal.pose_selection import (
    pose_features,
    quotas,
    select,
    standardised,
)


def poses(count=6, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 24, 3))


def test_features_do_not_change_with_place_and_heading():
    joints = poses()
    rng = np.random.default_rng(1)
    turned = np.stack(
        [
            Rotation.from_euler("y", angle).apply(pose) + rng.normal(size=3)
            for pose, angle in zip(joints, rng.uniform(0, 2 * np.pi, len(joints)))
        ]
    )
    features = pose_features(joints)
    assert features.shape == (6, 72)
    np.testing.assert_allclose(pose_features(turned), features, atol=1e-12)
    for axis in "xz":  # leaning over is another pose
        leaning = np.stack([Rotation.from_euler(axis, 0.5).apply(p) for p in joints])
        assert np.abs(pose_features(leaning) - features).max() > 0.1


def test_hips_point_along_z_and_nothing_is_mirrored():
    joints = poses()
    features = pose_features(joints).reshape(-1, 24, 3)
    np.testing.assert_array_equal(features[:, 0], 0)
    hips = features[:, 2] - features[:, 1]
    length = np.hypot(*(joints[:, 2] - joints[:, 1])[:, [0, 2]].T)
    np.testing.assert_allclose(hips[:, 0], 0, atol=1e-12)
    np.testing.assert_allclose(hips[:, 2], length)
    centred = joints - joints[:, :1]
    for before, after in zip(centred, features):
        # The rotation between them is one about y: heights and handedness stay.
        np.testing.assert_allclose(after[:, 1], before[:, 1])
        matrix = np.linalg.lstsq(before, after, rcond=None)[0]
        assert np.linalg.det(matrix) == pytest.approx(1)


def test_hips_above_each_other_turn_nothing():
    joints = poses(1)
    joints[0, 2] = joints[0, 1] + [0, 0.2, 0]
    expected = (joints - joints[:, :1]).reshape(1, 72)
    np.testing.assert_allclose(pose_features(joints), expected)


def test_standardised_columns_and_constant_ones():
    columns = np.random.default_rng(0).normal(3.0, [2.0, 0.1, 5.0], (200, 3))
    columns[:, 1] = 0.1  # the mean of 200 times 0.1 is not quite 0.1
    result = standardised(columns)
    np.testing.assert_allclose(result.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(result.std(axis=0), [1, 0, 1], atol=1e-12)


@pytest.mark.parametrize(
    ("sizes", "total", "power", "expected"),
    [
        # Roots 10, 5, 2, 1 of 36: 20, 10, 4, 2. The last two give all they have, 4
        # and 1; 31 are left for 10 : 5, that is 20.67 and 10.33.
        ([100, 25, 4, 1], 36, 0.5, [21, 10, 4, 1]),
        ([16, 16, 4], 20, 0.5, [8, 8, 4]),  # 4 : 4 : 2
        ([9, 0, 9], 7, 0.5, [4, 0, 3]),  # 3.5 each: the first gets the odd one
        # 2, 2, 2 would be 2 each of 6; the 1 gives 1, then 2.5 each of 5.
        ([1, 50, 50], 6, 0.0, [1, 3, 2]),
        ([3, 4], 100, 0.5, [3, 4]),
        ([5, 5], 0, 0.5, [0, 0]),
    ],
)
def test_quotas_by_hand(sizes, total, power, expected):
    assert quotas(sizes, total, power).tolist() == expected


def test_quotas_add_up_and_fit():
    rng = np.random.default_rng(0)
    for _ in range(50):
        sizes = rng.integers(0, 300, 40)
        total = int(rng.integers(0, sizes.sum() + 1))
        taken = quotas(sizes, total)
        assert taken.sum() == total
        assert (taken <= sizes).all()


@pytest.mark.parametrize("method", ["kmeans", "farthest"])
def test_a_selection_spreads_over_the_poses(method):
    """Three heaps of 900, 90 and 9 poses; in proportion 30 would be 27, 3, 0."""
    rng = np.random.default_rng(0)
    heap = np.repeat([0, 1, 2], [900, 90, 9])
    features = rng.normal(size=(999, 4)) + heap[:, None] * 50.0
    chosen, clusters = select(features, 30, 3, np.random.default_rng(5), method)
    assert len(np.unique(chosen)) == 30
    assert (np.diff(chosen) > 0).all()
    taken = np.bincount(heap[chosen])
    # Roots 30, 9.49, 3 of 30: 21.2, 6.7, 2.1. Equal: 10 each, the 9 give all, 21 / 2.
    assert sorted(taken) == ([2, 7, 21] if method == "kmeans" else [9, 10, 11])
    for number in range(3):
        assert len(set(clusters[heap[chosen] == number])) == 1
    again, _ = select(features, 30, 3, np.random.default_rng(5), method)
    np.testing.assert_array_equal(chosen, again)


def test_farthest_takes_poses_far_from_each_other():
    """Of a line of poses in one cluster: its middle, its ends, then between them."""
    features = np.arange(101.0)[:, None]
    chosen, _ = select(features, 5, 1, np.random.default_rng(0), "farthest")
    assert chosen.tolist() == [0, 25, 50, 75, 100]


def test_a_small_pool_is_taken_whole():
    chosen, clusters = select(poses(4).reshape(4, 72), 9, 2, np.random.default_rng(0))
    assert chosen.tolist() == [0, 1, 2, 3]
    assert clusters.tolist() == [-1] * 4
