"""Selection of poses: features by turning them, quotas by hand, clusters against peers.

k-means and farthest points are compared with SciPy, scikit-learn and hand arithmetic.
"""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from keras_seg.data.surreal import clustering
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


# Clusters


def blobs(rng, centres=12, each=300, dimensions=5):
    """Well apart: deviation 1, centres on a grid of side 30."""
    places = rng.permutation(3**dimensions)[:centres]
    grid = np.stack(np.unravel_index(places, (3,) * dimensions), axis=1) * 30.0
    truth = np.repeat(np.arange(centres), each)
    return grid[truth] + rng.normal(size=(len(truth), dimensions)), truth


@pytest.mark.parametrize("seed", [0, 1])
def test_separable_blobs_are_found(seed):
    points, truth = blobs(np.random.default_rng(seed))
    centres, labels = clustering.mini_batch_kmeans(
        points, 12, np.random.default_rng(seed), init_points=1000, batch=256
    )
    assert adjusted_rand_score(truth, labels) == 1.0
    # The running means of what the batches held: 100 x 256 points over 12 centres.
    means = np.stack([points[labels == number].mean(axis=0) for number in range(12)])
    np.testing.assert_allclose(centres, means, atol=0.15)


def test_as_good_as_scikit_learn_where_nothing_is_separable():
    points = np.random.default_rng(3).normal(size=(4000, 6))
    (centres, labels), (_, again) = (
        clustering.mini_batch_kmeans(points, 40, np.random.default_rng(0), batch=1024)
        for _ in range(2)
    )
    inertia = ((points - centres[labels]) ** 2).sum()
    full = KMeans(40, n_init=1, random_state=0).fit(points)
    assert inertia < 1.05 * full.inertia_
    np.testing.assert_array_equal(labels, again)


def test_nearest_equals_scipy():
    rng = np.random.default_rng(0)
    points, centres = rng.normal(size=(9000, 7)), rng.normal(size=(30, 7))
    expected = cdist(points, centres).argmin(axis=1)
    np.testing.assert_array_equal(clustering.nearest(points, centres), expected)


def test_starting_centres_are_drawn_by_squared_distance():
    """From 0, the points 1 and 3 have the chances 1/10 and 9/10."""
    rng = np.random.default_rng(0)
    points = np.array([[0.0], [1.0], [3.0]])
    pairs = [clustering.kmeans_plus_plus(points, 2, rng) for _ in range(6000)]
    after_0 = [second for first, second in pairs if first == 0]
    assert len(after_0) == pytest.approx(2000, abs=150)
    assert np.mean(np.equal(after_0, 2)) == pytest.approx(0.9, abs=0.03)


def test_more_clusters_than_different_points():
    points = np.repeat([[0.0, 0.0], [5.0, 1.0]], 3, axis=0)
    rng = np.random.default_rng(0)
    assert sorted(clustering.kmeans_plus_plus(points, 6, rng)) == list(range(6))
    centres, labels = clustering.mini_batch_kmeans(points, 50, rng)
    assert len(centres) == 6
    np.testing.assert_array_equal(centres[labels], points)


def test_farthest_points_on_a_line():
    points = np.array([[0.0], [1.0], [10.0], [4.0], [10.0]])
    # From 1: 10 is 9 away (the first of the two); then 4 is 3 away from 1, 0 only 1;
    # then 0; then the second 10, which is 0 away from the first.
    chosen = clustering.farthest_points(points, 5, first=1)
    assert chosen.tolist() == [1, 2, 3, 0, 4]
    assert clustering.farthest_points(points, 2, first=3).tolist() == [3, 2]


def test_medoid_is_a_point():
    points = np.array([[0.0, 0], [4, 0], [0, 4], [1.2, 1.0]])
    assert clustering.medoid(points) == 3
