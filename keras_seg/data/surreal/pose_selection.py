"""Which frames to take: spread over the poses, by clusters of the 3D joints.

BODY section 2.2, "Secondly", names neither features nor method; both are our choice.
"""

from collections.abc import Sequence

import numpy as np

from keras_seg.data.surreal.clustering import farthest_points, medoid, mini_batch_kmeans

PELVIS, LEFT_HIP, RIGHT_HIP = 0, 1, 2
METHODS = ("kmeans", "farthest")


def pose_features(joints_3d: np.ndarray) -> np.ndarray:
    """A pose without its place and its heading: float64 [N, 72].

    The joints are taken relative to the pelvis and turned about the vertical y until
    the hips' line from left to right, seen from above, points along +z.

    Args:
        joints_3d: [N, 24, 3], metres, SURREAL's world axes.
    """
    joints = np.asarray(joints_3d, np.float64)
    joints = joints - joints[:, PELVIS : PELVIS + 1]
    hips = joints[:, RIGHT_HIP] - joints[:, LEFT_HIP]
    length = np.hypot(hips[:, 0], hips[:, 2])
    upright = length > 0  # else the hips' line is vertical: nothing to turn to
    length[~upright] = 1
    sine = np.where(upright, hips[:, 0], 0) / length
    cosine = np.where(upright, hips[:, 2], length) / length
    x, y, z = np.moveaxis(joints, -1, 0)
    sine, cosine = sine[:, None], cosine[:, None]
    turned = np.stack([cosine * x - sine * z, y, sine * x + cosine * z], axis=-1)
    return turned.reshape(len(turned), -1)


def standardised(features: np.ndarray) -> np.ndarray:
    """[N, D] with mean 0 and deviation 1 in each column; constant columns are 0."""
    deviation = features.std(axis=0)
    # What rounding leaves of a constant column is none
    constant = deviation <= 1e-9 * np.abs(features).max(initial=0)
    return (features - features.mean(axis=0)) / np.where(constant, np.inf, deviation)


def quotas(sizes: Sequence[int], total: int, power: float = 0.5) -> np.ndarray:
    """How many to take from each cluster, in proportion to size ** power.

    A cluster that is smaller than its share gives all it has; what it lacks is shared
    again among the others. Whole numbers by the largest remainders, of equal ones the
    first.

    `total` are taken in all, or the sum of the sizes. Returns int64 [k].
    """
    limits = np.asarray(sizes, np.int64)
    total = min(total, int(limits.sum()))
    shares = np.zeros(len(limits))
    open_ = limits > 0
    weights = np.where(open_, limits.astype(np.float64) ** power, 0)
    while open_.any():
        left = total - shares[~open_].sum()
        shares[open_] = left * weights[open_] / weights[open_].sum()
        full = open_ & (shares >= limits)
        if not full.any():
            break
        shares[full] = limits[full]
        open_ &= ~full
    taken = np.floor(shares + 1e-9).astype(np.int64)  # 2.9999999 is 3
    by_remainder = np.argsort(-np.round(shares - taken, 9), kind="stable")
    taken[by_remainder[: total - taken.sum()]] += 1
    return taken


def select(
    features: np.ndarray,
    count: int,
    clusters: int,
    rng: np.random.Generator,
    method: str = "kmeans",
) -> tuple[np.ndarray, np.ndarray]:
    """Choose `count` of N poses; all of them where N is not larger.

    Args:
        features: [N, D], as `standardised` gives them.
        method: "kmeans": quotas by the root of the cluster's size, random inside.
            "farthest": equal quotas, inside greedily the pose that is farthest from
            those chosen, beginning with the medoid; where quotas cannot be equal, the
            clusters whose medoids are farthest from each other come first.

    Returns:
        int64 [count] twice: the indices of the chosen poses, ascending, and the cluster
        of each; -1 where all are taken.
    """
    if count >= len(features):
        everything = np.arange(len(features))
        return everything, np.full(len(features), -1)
    _, labels = mini_batch_kmeans(features, clusters, rng)
    order = np.argsort(labels, kind="stable")
    names, starts = np.unique(labels[order], return_index=True)
    members = np.split(order, starts[1:])  # of the clusters that have any
    if method == "kmeans":
        wanted = quotas([len(ids) for ids in members], count)
        taken = [
            rng.choice(ids, number, replace=False)
            for ids, number in zip(members, wanted)
        ]
    else:
        taken = _farthest(features, members, count)
    chosen = np.concatenate(taken)
    of_cluster = np.repeat(names, [len(ids) for ids in taken])
    ascending = np.argsort(chosen)
    return chosen[ascending], of_cluster[ascending]


def _farthest(
    features: np.ndarray, members: Sequence[np.ndarray], count: int
) -> list[np.ndarray]:
    """The chosen members of each cluster."""
    medoids = np.array([ids[medoid(features[ids])] for ids in members])
    central = medoid(features[medoids])
    # Ties of the quotas go to the first: sorted so that the first are far apart.
    spread = farthest_points(features[medoids], len(members), central)
    wanted = np.empty(len(members), np.int64)
    wanted[spread] = quotas([len(members[i]) for i in spread], count, power=0)
    taken = []
    for ids, first, number in zip(members, medoids, wanted):
        begin = int(np.searchsorted(ids, first))
        taken.append(ids[farthest_points(features[ids], int(number), begin)])
    return taken
