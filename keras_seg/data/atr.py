"""ATR clothing: 17 classes and background, 17.7 thousand people (CLOTH).

Liang et al. 2015. The release has no split lists. See datasets/atr.md.
"""

from pathlib import Path

from keras_seg.data import raw
from keras_seg.data.prepared import Prepared
from keras_seg.data.voc import palette
from keras_seg.data.writer import Options
from keras_seg.labels import LabelSpec

LABELS = LabelSpec(
    names=(
        *("background", "hat", "hair", "sunglass", "upper-clothes", "skirt", "pants"),
        *("dress", "belt", "left-shoe", "right-shoe", "face", "left-leg", "right-leg"),
        *("left-arm", "right-arm", "bag", "scarf"),
    ),
    palette=palette(18),
    flip_pairs=((9, 10), (12, 13), (14, 15)),
)
# CO-CNN's split is 16,000 / 700 / 1,000.
VAL_SHARE, TEST_SHARE = 700 / 17_700, 1_000 / 17_700

OPTIONS = (raw.SQUARE,)


def prepare(
    src: str | Path, out: str | Path, options: Options, square: bool = True
) -> tuple[Prepared, bool]:
    """Prepare humanparsing, with JPEGImages and SegmentationClassAug."""
    src = raw.source_folder(src)
    pairs = raw.pairs_of_folders(src / "JPEGImages", src / "SegmentationClassAug")
    pairs = raw.split_pairs(pairs, VAL_SHARE, TEST_SHARE)
    return raw.prepare_pairs(src, out, "atr", LABELS, pairs, options, square=square)
