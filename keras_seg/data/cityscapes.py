"""Cityscapes, fine annotations: 34 ids, or the 19 classes that are scored.

Cordts et al. 2016; used by CITY (trained on the 34 ids, scored on the 19) and ATTN
(19 classes). The test labels are withheld. Each image is the 20th frame of its own
snippet of video, so images count as independent; the cities of val are too few to be
resampled instead. See datasets/cityscapes.md.
"""

from pathlib import Path

import numpy as np

from keras_seg.data import Option, images, raw
from keras_seg.data.prepared import Prepared
from keras_seg.data.writer import Options
from keras_seg.errors import DataError
from keras_seg.labels import IGNORE_ID, LabelSpec

# id, name, trainId (255: not scored), colour; cityscapesScripts' labels.py. The id
# -1 (license plate) is 255 in the files.
CLASSES = (
    (0, "unlabeled", 255, (0, 0, 0)),
    (1, "ego vehicle", 255, (0, 0, 0)),
    (2, "rectification border", 255, (0, 0, 0)),
    (3, "out of roi", 255, (0, 0, 0)),
    (4, "static", 255, (0, 0, 0)),
    (5, "dynamic", 255, (111, 74, 0)),
    (6, "ground", 255, (81, 0, 81)),
    (7, "road", 0, (128, 64, 128)),
    (8, "sidewalk", 1, (244, 35, 232)),
    (9, "parking", 255, (250, 170, 160)),
    (10, "rail track", 255, (230, 150, 140)),
    (11, "building", 2, (70, 70, 70)),
    (12, "wall", 3, (102, 102, 156)),
    (13, "fence", 4, (190, 153, 153)),
    (14, "guard rail", 255, (180, 165, 180)),
    (15, "bridge", 255, (150, 100, 100)),
    (16, "tunnel", 255, (150, 120, 90)),
    (17, "pole", 5, (153, 153, 153)),
    (18, "polegroup", 255, (153, 153, 153)),
    (19, "traffic light", 6, (250, 170, 30)),
    (20, "traffic sign", 7, (220, 220, 0)),
    (21, "vegetation", 8, (107, 142, 35)),
    (22, "terrain", 9, (152, 251, 152)),
    (23, "sky", 10, (70, 130, 180)),
    (24, "person", 11, (220, 20, 60)),
    (25, "rider", 12, (255, 0, 0)),
    (26, "car", 13, (0, 0, 142)),
    (27, "truck", 14, (0, 0, 70)),
    (28, "bus", 15, (0, 60, 100)),
    (29, "caravan", 255, (0, 0, 90)),
    (30, "trailer", 255, (0, 0, 110)),
    (31, "train", 16, (0, 80, 100)),
    (32, "motorcycle", 17, (0, 0, 230)),
    (33, "bicycle", 18, (119, 11, 32)),
)
_SCORED = [row for row in CLASSES if row[2] != IGNORE_ID]
SCORED_IDS = tuple(row[0] for row in _SCORED)  # of the 34: those with a trainId
LABELS = {
    space: LabelSpec(
        names=tuple(row[1] for row in rows), palette=tuple(row[3] for row in rows)
    )
    for space, rows in (("ids", CLASSES), ("train_ids", _SCORED))
}
IDS = {  # 255: license plate
    "ids": raw.kept_ids(LABELS["ids"], void=[255]),
    "train_ids": {row[0]: row[2] for row in CLASSES} | {255: IGNORE_ID},
}
_IMAGE_END, _LABEL_END = "_leftImg8bit.png", "_gtFine_labelIds.png"

OPTIONS = (
    Option(
        "label_space",
        "ids: the 34 ids (CITY); train_ids: the 19 scored classes, the rest is ignored "
        "(ATTN)",
        default="train_ids",
        choices=tuple(LABELS),
    ),
    Option(
        "test",
        "prepare the test images too, whose labels are withheld: all of them ignored",
        bool,
        default=False,
    ),
)


def prepare(
    src: str | Path,
    out: str | Path,
    options: Options,
    label_space: str = "train_ids",
    test: bool = False,
) -> tuple[Prepared, bool]:
    """Prepare a folder with leftImg8bit and gtFine; "ids" are cityscapes34."""
    src = raw.source_folder(src)
    splits = ("train", "val", "test") if test else ("train", "val")
    pairs = [pair for split in splits for pair in _pairs(src, split)]
    return raw.prepare_pairs(
        src,
        out,
        "cityscapes34" if label_space == "ids" else "cityscapes",
        LABELS[label_space],
        pairs,
        options,
        ids=IDS[label_space],
        read_mask=_read_mask,
        settings={"test": True} if test else None,
        scored_ids=SCORED_IDS if label_space == "ids" else None,
    )


def _read_mask(path: Path) -> np.ndarray:
    """Ids of a mask; those of the test images, which are no labels, are ignored."""
    ids = images.read_raw_label(path)
    return np.full_like(ids, IGNORE_ID) if path.parents[1].name == "test" else ids


def _pairs(src: Path, split: str) -> list[raw.RawPair]:
    frames = {}
    for kind, end in (("leftImg8bit", _IMAGE_END), ("gtFine", _LABEL_END)):
        for path in (src / kind / split).glob(f"*/*{end}"):
            frame = path.name.removesuffix(end)
            frames[frame] = path.parent.name
    if not frames:
        raise DataError(
            f"{src / 'leftImg8bit' / split} has no */*{_IMAGE_END}: split {split} is "
            "empty."
        )
    return [
        raw.RawPair(
            split,
            frame,
            src / "leftImg8bit" / split / city / f"{frame}{_IMAGE_END}",
            src / "gtFine" / split / city / f"{frame}{_LABEL_END}",
        )
        for frame, city in sorted(frames.items())
    ]
