"""Clusters of many points: mini-batch k-means and farthest points, in NumPy.

All functions take float arrays [N, D] and are repeatable: what is random comes from
the generator they are given.
"""

import numpy as np

_CHUNK_ROWS = 8192  # distances of so many points to all centres are held at once


def mini_batch_kmeans(
    points: np.ndarray,
    clusters: int,
    rng: np.random.Generator,
    init_points: int = 20_000,
    batch: int = 4096,
    iterations: int = 100,
) -> tuple[np.ndarray, np.ndarray]:
    """Mini-batch k-means (Sculley 2010) from a k-means++ start.

    Every centre moves to the running mean of all batch points it ever got. The start
    is chosen from `init_points` random points.

    Returns:
        Centres float64 [k, D], k at most N, and the nearest one of each point, int64
        [N]. A centre may have no points.
    """
    points = np.asarray(points, np.float64)
    total = len(points)
    clusters = min(clusters, total)
    pool = points
    if total > max(init_points, clusters):
        pool = points[rng.choice(total, max(init_points, clusters), replace=False)]
    centres = pool[kmeans_plus_plus(pool, clusters, rng)]
    counts = np.zeros(clusters)
    for _ in range(iterations):
        chosen = points
        if total > batch:
            chosen = points[rng.choice(total, batch, replace=False)]
        labels = nearest(chosen, centres)
        gained = np.bincount(labels, minlength=clusters)
        sums = np.zeros_like(centres)
        np.add.at(sums, labels, chosen)
        counts += gained
        hit = gained > 0
        step = (sums[hit] - gained[hit, None] * centres[hit]) / counts[hit, None]
        centres[hit] += step
    return centres, nearest(points, centres)


def kmeans_plus_plus(
    points: np.ndarray, clusters: int, rng: np.random.Generator
) -> np.ndarray:
    """Indices int64 [clusters] of starting centres (Arthur and Vassilvitskii 2007).

    Each is drawn with a probability proportional to its squared distance to the
    nearest one before it; where all distances are 0, of the points not yet taken.
    """
    chosen = np.empty(clusters, np.int64)
    chosen[0] = rng.integers(len(points))
    squared = _squared_to(points, points[chosen[0]])
    for number in range(1, clusters):
        total = squared.sum()
        if total > 0:
            place = np.searchsorted(np.cumsum(squared), rng.random() * total, "right")
            chosen[number] = min(place, len(points) - 1)
        else:
            left = np.setdiff1d(np.arange(len(points)), chosen[:number])
            chosen[number] = rng.choice(left)
        squared = np.minimum(squared, _squared_to(points, points[chosen[number]]))
    return chosen


def nearest(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Index of the nearest centre of each point, int64 [N]; the first of equals."""
    lengths = (centres**2).sum(axis=1)
    labels = np.empty(len(points), np.int64)
    for start in range(0, len(points), _CHUNK_ROWS):
        rows = slice(start, start + _CHUNK_ROWS)
        # |p - c|^2 without |p|^2, which is the same for every centre
        labels[rows] = (lengths - 2 * points[rows] @ centres.T).argmin(axis=1)
    return labels


def farthest_points(points: np.ndarray, count: int, first: int) -> np.ndarray:
    """Indices int64 [count] of points each farthest from all before it, from `first`.

    Of equally far ones the first.
    """
    chosen = np.empty(count, np.int64)
    squared = np.full(len(points), np.inf)
    place = first
    for number in range(count):
        chosen[number] = place
        squared = np.minimum(squared, _squared_to(points, points[place]))
        squared[place] = -1.0  # never again, even where all the others are equal
        place = squared.argmax()
    return chosen


def medoid(points: np.ndarray) -> int:
    """Index of the point nearest to the mean of [N, D]; the first of equals."""
    return int(_squared_to(points, points.mean(axis=0)).argmin())


def _squared_to(points: np.ndarray, place: np.ndarray) -> np.ndarray:
    return ((points - place) ** 2).sum(axis=1)
