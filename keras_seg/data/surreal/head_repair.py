"""Repair of SURREAL's head labels: specks on chest and pelvis that are called head.

BODY section 2.2, "Finally": of the connected components of the head's id, all but the
largest are refilled from their neighbourhood. That is `repair_head`. It also refills
what an arm cuts off the head, and specks at the outline become background.
`repair_zones` knows where the defect occurs and does neither.
"""

import cv2
import numpy as np

HEAD_ID = 16
ZONE_IDS = (1, 10)  # hips, spine2: where BODY saw the specks, pelvis and chest

_NOTHING = 255  # marks what is beside the frame or still to be filled; no part's id
_NEIGHBOURS = tuple((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j)
_NEAR_HEAD = np.ones((5, 5), np.uint8)  # reaches 2 pixels


def repair_head(label: np.ndarray) -> np.ndarray:
    """A label without stray components of the head, as BODY does it.

    The largest 8-connected component of the head stays (of equal ones the first, by
    rows). The pixels of the others are refilled from their rim inwards: every pixel
    with a known neighbour takes the most frequent value of its known 8 neighbours, of
    equally frequent ones the smallest id; all pixels of a rim at once.

    Takes and returns part ids uint8 [H, W]; 0 is background.
    """
    _, stray = _head_and_stray(label)
    return _refill(label, stray, np.arange(_NOTHING))


def repair_zones(label: np.ndarray) -> np.ndarray:
    """As `repair_head`, but only specks on chest and pelvis, and with their ids.

    A component that touches neither, is within 2 pixels of the head or has more than a
    third of its pixels is a piece of a partly covered head: it stays. What is refilled
    takes the most frequent of its neighbours in `ZONE_IDS`, never the background beside
    it or an arm in front.
    """
    head, stray = _head_and_stray(label)
    zones = np.isin(label, ZONE_IDS).astype(np.uint8)
    touches_zone = cv2.dilate(zones, np.ones((3, 3), np.uint8)) > 0
    near_head = cv2.dilate(head.astype(np.uint8), _NEAR_HEAD) > 0
    _, components = cv2.connectedComponents(stray.astype(np.uint8), connectivity=8)
    areas = np.bincount(components.ravel())
    large = np.flatnonzero(areas > np.count_nonzero(head) / 3)
    near = components[stray & near_head]
    specks = np.setdiff1d(components[stray & touches_zone], np.union1d(near, large))
    return _refill(label, np.isin(components, specks), np.array(ZONE_IDS))


REPAIRS = {"thesis": repair_head, "zones": repair_zones, "none": np.copy}


def _head_and_stray(label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """bool [H, W] twice: the largest component of the head's id, and the others."""
    is_head = label == HEAD_ID
    _, components = cv2.connectedComponents(is_head.astype(np.uint8), connectivity=8)
    numbers = components[is_head]  # from 1, in an order that OpenCV does not tell
    if not numbers.size:
        return is_head, is_head
    areas = np.bincount(numbers)
    first_of_largest = numbers[areas[numbers] == areas.max()][0]
    head = components == first_of_largest
    return head, is_head & ~head


def _refill(label: np.ndarray, stray: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """`label` with the pixels of `stray` refilled from neighbours in `sources`.

    Every component of `stray` has to touch a pixel of a source id.
    """
    height, width = label.shape
    usable = np.zeros(256, bool)
    usable[sources] = True
    # A frame of one pixel, so that neighbours can be addressed by offsets
    known = np.full((height + 2, width + 2), _NOTHING, np.uint8)
    known[1:-1, 1:-1] = np.where(~stray & usable[label], label, _NOTHING)
    filled = known.ravel()  # a view
    offsets = [i * (width + 2) + j for i, j in _NEIGHBOURS]
    rows, columns = np.nonzero(stray)
    todo = (rows + 1) * (width + 2) + columns + 1
    while todo.size:
        values = _most_frequent(filled[todo[:, None] + offsets])
        reached = values != _NOTHING
        filled[todo[reached]] = values[reached]
        todo = todo[~reached]
    return np.where(stray, known[1:-1, 1:-1], label)


def _most_frequent(values: np.ndarray) -> np.ndarray:
    """uint8 [N]: the most frequent of each row [N, 8], the smallest of equals.

    _NOTHING does not count; it is returned where a row holds nothing else.
    """
    ordered = np.sort(values, axis=1)
    counts = (ordered[:, :, None] == ordered[:, None, :]).sum(axis=2)
    counts[ordered == _NOTHING] = 0
    best = counts.argmax(axis=1)  # the first, hence smallest, of equals
    return ordered[np.arange(len(ordered)), best]
