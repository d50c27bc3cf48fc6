"""A picture like BODY's Fig. 1: images above their labels in the palette's colours."""

from pathlib import Path

import numpy as np

from keras_seg.data.images import encode_png, resize_image, resize_label
from keras_seg.data.prepared import Prepared, read_image, read_label

_CELL, _GAP, _BLOCK_GAP = 200, 4, 14  # px
_WHITE = 255


def write_parts_sheet(
    prepared: Prepared,
    path: Path,
    split: str = "train",
    columns: int = 6,
    blocks: int = 2,
) -> None:
    """Write a PNG of up to columns * blocks samples, evenly spread over the split.

    A block is a row of images, which are square, above a row of their labels.
    """
    samples = prepared.samples(split)
    count = min(columns * blocks, len(samples))
    columns = min(columns, count)
    blocks = -(-count // columns)
    chosen = np.linspace(0, len(samples) - 1, count).round().astype(int)
    sheet = np.full(
        (
            blocks * (2 * _CELL + _GAP) + (blocks - 1) * _BLOCK_GAP,
            columns * (_CELL + _GAP) - _GAP,
            3,
        ),
        _WHITE,
        np.uint8,
    )
    for place, sample in enumerate(samples[i] for i in chosen):
        block, column = divmod(place, columns)
        top = block * (2 * _CELL + _GAP + _BLOCK_GAP)
        left = column * (_CELL + _GAP)
        image = resize_image(read_image(sample.image), (_CELL, _CELL))
        label = resize_label(read_label(sample.label), (_CELL, _CELL))
        for row, cell in enumerate((image, prepared.labels.colourise(label))):
            start = top + row * (_CELL + _GAP)
            sheet[start : start + _CELL, left : left + _CELL] = cell
    path.write_bytes(encode_png(sheet))
