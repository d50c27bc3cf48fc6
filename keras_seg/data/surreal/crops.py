"""Square crops around a person: box, crop, and joints that follow (BODY 2.2)."""

from dataclasses import dataclass

import numpy as np

from keras_seg.data.images import resize_image, resize_label


@dataclass(frozen=True)
class Square:
    """A square of whole pixels; it may reach beyond the frame."""

    top: int  # first row, negative above the frame
    left: int
    side: int  # rows and columns


def square_around(mask: np.ndarray, margin: float = 0.2) -> Square:
    """The square crop of a person.

    Its side is (1 + margin) times the longer side of the mask's tight box, rounded.
    It is centred on the box, then shifted into the frame. A side longer than the
    frame reaches beyond it on both ends if it has to, and never leaves a part of the
    frame's length out. The mask, bool [H, W], has at least one pixel.
    """
    (top, bottom), (left, right) = (
        (int(places[0]), int(places[-1]) + 1)
        for places in (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    )
    side = int((1 + margin) * max(bottom - top, right - left) + 0.5)
    height, width = mask.shape
    return Square(
        top=_start(top, bottom, side, height),
        left=_start(left, right, side, width),
        side=side,
    )


def _start(first: int, end: int, side: int, length: int) -> int:
    """Where `side` pixels begin that are centred on first..end of a frame's length."""
    room = length - side
    return min(max((first + end - side) // 2, min(0, room)), max(0, room))


def crop(array: np.ndarray, square: Square, fill: int | None = None) -> np.ndarray:
    """The square of [H, W, ...]: [side, side, ...].

    Beyond the frame the border is repeated, or there is `fill`.
    """
    places = np.arange(square.side)
    rows, columns = places + square.top, places + square.left
    inner_rows = rows.clip(0, array.shape[0] - 1)
    inner_columns = columns.clip(0, array.shape[1] - 1)
    cut = array[np.ix_(inner_rows, inner_columns)]
    if fill is not None:
        cut[rows != inner_rows] = fill
        cut[:, columns != inner_columns] = fill
    return cut


def crop_and_resize(
    image: np.ndarray,
    label: np.ndarray,
    joints: np.ndarray,
    square: Square,
    size: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, label and joints of the square at size (height, width).

    Args:
        image: uint8 RGB [H, W, 3]; repeated beyond the frame, resized antialiased.
        label: class ids uint8 [H, W]; 0 beyond the frame, resized by nearest.
        joints: [J, 2], (x, y); the centre of the first pixel is (0, 0).
    """
    return (
        resize_image(crop(image, square), size),
        resize_label(crop(label, square, fill=0), size),
        move_joints(joints, square, size),
    )


def move_joints(
    joints: np.ndarray, square: Square, size: tuple[int, int]
) -> np.ndarray:
    """float32 [J, 2]: joints [J, 2] of the frame in the resized square.

    Pixel centres are whole numbers, and resizing keeps the pixels' outer edges.
    """
    scale = np.array(size[::-1], np.float64) / square.side  # of x and of y
    moved = (joints - (square.left, square.top) + 0.5) * scale - 0.5
    return moved.astype(np.float32)
