"""k-means and farthest points against SciPy, scikit-learn and hand arithmetic."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from keras_seg.data.surreal import clustering


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
