"""Clothing Co-Parsing: 58 kinds of clothing and body, and background.

Yang, Luo and Lin 2014: the 1,004 photographs with pixel-level annotation. Real data
on which CLOTH's experiments can run without a request form. See datasets/ccp.md.
"""

from pathlib import Path

import numpy as np

from keras_seg.data import raw
from keras_seg.data.matlab import read_mat
from keras_seg.data.prepared import Prepared
from keras_seg.data.voc import palette
from keras_seg.data.writer import Options
from keras_seg.errors import DataError
from keras_seg.labels import LabelSpec

_NAMES = (
    "null accessories bag belt blazer blouse bodysuit boots bra bracelet cape cardigan "
    "clogs coat dress earrings flats glasses gloves hair hat heels hoodie intimate "
    "jacket jeans jumper leggings loafers necklace panties pants pumps purse ring "
    "romper sandals scarf shirt shoes shorts skin skirt sneakers socks stockings suit "
    "sunglasses sweater sweatshirt swimwear t-shirt tie tights top vest wallet watch "
    "wedges"
).split()
LABELS = LabelSpec(names=tuple(_NAMES), palette=palette(len(_NAMES)))

OPTIONS = (raw.SQUARE,)


def prepare(
    src: str | Path, out: str | Path, options: Options, square: bool = True
) -> tuple[Prepared, bool]:
    """Prepare a folder with photos and annotations/pixel-level."""
    src = raw.source_folder(src)
    annotations = src / "annotations" / "pixel-level"
    # Most photographs have tags only: the annotations say which are used.
    pairs = [
        raw.RawPair("", path.stem, src / "photos" / f"{path.stem}.jpg", path)
        for path in sorted(annotations.glob("*.mat"))
    ]
    if not pairs:
        raise DataError(f"{annotations} has no files 0001.mat, 0002.mat, ...")
    pairs = raw.split_pairs(pairs, val_share=0.1, test_share=0.1)
    return raw.prepare_pairs(
        src, out, "ccp", LABELS, pairs, options, read_mask=_read_mask, square=square
    )


def _read_mask(path: Path) -> np.ndarray:
    label = read_mat(path, "groundtruth")
    if label.dtype != np.uint8 or label.ndim != 2:
        raise DataError(
            f"groundtruth in {path} is {label.dtype} {label.shape}, not uint8 [H, W]."
        )
    return label
