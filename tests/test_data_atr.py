"""ATR: padded images, the published split sizes, left and right."""

import miniatures
import numpy as np
from PIL import Image
from test_data import square

from keras_seg.data import atr
from keras_seg.data.prepared import read_image
from keras_seg.data.raw import seeded_split
from keras_seg.data.writer import Options


def test_images_are_padded_to_squares(tmp_path):
    miniatures.atr(tmp_path / "raw")
    prepared, _ = atr.prepare(tmp_path / "raw", tmp_path / "out", Options())
    assert [len(prepared.samples(s)) for s in ("train", "val", "test")] == [18, 1, 1]
    assert prepared.image_size == (40, 40)
    for sample in prepared.samples("train"):
        with Image.open(tmp_path / "raw" / "JPEGImages" / f"{sample.id}.jpg") as raw:
            expected = square(np.array(raw)).astype(int)
        # It is encoded once more; chroma is halved, so pixels differ a little.
        assert np.abs(read_image(sample.image) - expected).mean() < 6


def test_published_split_sizes():
    """CO-CNN: 16,000 / 700 / 1,000 of 17,700 people."""
    groups = {f"{number}_1": f"{number}_1" for number in range(17_700)}
    splits = list(seeded_split(groups, atr.VAL_SHARE, atr.TEST_SHARE).values())
    assert [splits.count(s) for s in ("train", "val", "test")] == [16_000, 700, 1_000]


def test_left_and_right_change_places():
    names, table = atr.LABELS.names, atr.LABELS.flip_table()
    other = {"left-": "right-", "right-": "left-"}
    for class_id, name in enumerate(names):
        side = name[: name.find("-") + 1]
        assert names[table[class_id]] == other.get(side, side) + name[len(side) :]
    assert table[255] == 255
