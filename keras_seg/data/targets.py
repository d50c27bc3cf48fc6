"""What a network's heads are trained on, made from the label or the joints."""

from collections.abc import Sequence

import numpy as np

from keras_seg.errors import UsageError
from keras_seg.labels import IGNORE_ID

PARTS = 24  # SURREAL's body parts, ids 1..24; joint j belongs to part j + 1
INVISIBLE = -1.0  # fills the heatmap of a joint that is missing or outside

# Left and right joints, numbered from 0: SURREAL's part ids less 1
JOINT_PAIRS = ((1, 2), (4, 5), (7, 8), (10, 11), (13, 14))
JOINT_PAIRS += ((16, 17), (18, 19), (20, 21), (22, 23))


def lookup_table(lookup: Sequence[int] | None, num_classes: int) -> np.ndarray | None:
    """uint8 [256] from dataset ids to a head's ids, 255 to itself; None as it is.

    `lookup` has the head's id of each dataset id; UsageError where it does not fit.
    """
    if lookup is None:
        return None
    if len(lookup) != num_classes or not all(0 <= i < IGNORE_ID for i in lookup):
        raise UsageError(
            f"The lookup of a head is {tuple(lookup)}; it must have {num_classes} ids "
            "in 0..254, one per class."
        )
    table = np.full(256, IGNORE_ID, dtype=np.uint8)
    table[:num_classes] = lookup
    return table


def mirrored_joints(joints: np.ndarray) -> np.ndarray:
    """[24, 2] with left and right joints exchanged, as in a mirrored person."""
    order = np.arange(PARTS)
    for left, right in JOINT_PAIRS:
        order[left], order[right] = right, left
    return joints[order]


def part_centroids(label: np.ndarray) -> np.ndarray:
    """Mean (x, y) of the pixels of each part 1..24 in SURREAL labels uint8 [H, W].

    float32 [24, 2], in pixels; NaN where there is none.
    """
    height, width = label.shape
    # Counts of each part by row and by column: whole numbers, so the means are exact
    counts = np.bincount(
        (label + np.arange(height, dtype=np.intp)[:, None] * 256).ravel(),
        minlength=256 * height,
    ).reshape(height, 256)
    by_column = np.bincount(
        (label + np.arange(width, dtype=np.intp) * 256).ravel(), minlength=256 * width
    ).reshape(width, 256)
    parts = slice(1, PARTS + 1)
    pixels = counts[:, parts].sum(axis=0)
    x = np.arange(width) @ by_column[:, parts]
    y = np.arange(height) @ counts[:, parts]
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN of a missing part
        return np.stack([x / pixels, y / pixels], axis=1).astype(np.float32)


def draw_heatmaps(joints: np.ndarray, size: tuple[int, int], out: np.ndarray) -> None:
    """Draw a peak for each joint: exp(-d^2 / 2 sigma^2), 0 beyond 3 sigma.

    sigma is 5 pixels at a height of 320: Newell's 1 pixel at 64, scaled.

    Args:
        joints: [J, 2], (x, y) in pixels; NaN where missing.
        size: (height, width) of the image; a joint outside it is not visible.
        out: float32 [H, W, J] of zeros, at least `size`; drawn on. The whole map of
            a joint that is not visible becomes -1, which the loss leaves out.
    """
    height, width = size
    sigma = 5.0 * height / 320.0
    reach = 3.0 * sigma
    for joint, (x, y) in enumerate(joints.astype(np.float64)):
        # Also false for NaN
        if not (-0.5 <= x < width - 0.5 and -0.5 <= y < height - 0.5):
            out[..., joint] = INVISIBLE
            continue
        left, right = max(0, int(x - reach)), min(width, int(x + reach) + 2)
        top, bottom = max(0, int(y - reach)), min(height, int(y + reach) + 2)
        squared = (np.arange(left, right) - x) ** 2
        squared = squared + ((np.arange(top, bottom) - y) ** 2)[:, None]
        peak = np.exp(squared / (-2 * sigma**2))
        peak[squared > reach**2] = 0
        out[top:bottom, left:right, joint] = peak
