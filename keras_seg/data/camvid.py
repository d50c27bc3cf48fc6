"""CamVid in the copy of the SegNet tutorial: 11 classes and void, 360 x 480.

Brostow et al. 2009; lists and classes of Badrinarayanan et al. 2017 (SegNet). The
lists are by video sequence; val is one stretch of the sequence 0016E5, whose other
frames are in train. See datasets/camvid.md.
"""

from pathlib import Path

from keras_seg.data import raw
from keras_seg.data.prepared import Prepared
from keras_seg.data.writer import Options
from keras_seg.errors import DataError
from keras_seg.labels import LabelSpec

LABELS = LabelSpec(
    names=(
        *("Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence"),
        *("Car", "Pedestrian", "Bicyclist"),
    ),
    # A script in circulation has Road_marking at 3: wrong for these 11 ids.
    palette=(
        *((128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128)),
        *((60, 40, 222), (128, 128, 0), (192, 128, 128), (64, 64, 128)),
        *((64, 0, 128), (64, 64, 0), (0, 128, 192)),
    ),
)
IDS = raw.kept_ids(LABELS, void=[11])


def prepare(
    src: str | Path, out: str | Path, options: Options
) -> tuple[Prepared, bool]:
    """Prepare the tutorial's CamVid: train.txt, val.txt, test.txt if it is there."""
    src = raw.source_folder(src)
    pairs = [
        pair
        for split in ("train", "val", "test")
        if split != "test" or (src / "test.txt").exists()
        for pair in _listed(src, split)
    ]
    return raw.prepare_pairs(src, out, "camvid", LABELS, pairs, options, ids=IDS)


def _listed(src: Path, split: str) -> list[raw.RawPair]:
    path = src / f"{split}.txt"
    pairs = []
    for line in raw.read_list(path):
        names = line.split()
        if len(names) != 2:
            raise DataError(f"{path} has a line without an image and a mask: {line}")
        # The tutorial's lists say /SegNet/CamVid/train/x.png: the last two parts count.
        image, label = (
            raw.inside(src, "/".join(name.split("/")[-2:])) for name in names
        )
        sequence = image.stem.partition("_")[0]  # 0001TP_006690
        pairs.append(raw.RawPair(split, image.stem, image, label, sequence=sequence))
    return pairs
