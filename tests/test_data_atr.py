"""ATR: the split rule, padding to a square, left and right."""

import miniatures
import numpy as np
from PIL import Image

from keras_seg.data import atr
from keras_seg.data.prepared import read_image, read_label
from keras_seg.data.raw import seeded_split
from keras_seg.data.verify import verify
from keras_seg.data.writer import Options


def centred_square(array):
    """Zeros around, by hand: the odd pixel goes to the end."""
    height, width = array.shape[:2]
    side = max(height, width)
    square = np.zeros((side, side, *array.shape[2:]), array.dtype)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = array
    return square


def test_miniature_is_padded_to_squares(tmp_path):
    expected = miniatures.atr(tmp_path / "raw")
    prepared, _ = atr.prepare(tmp_path / "raw", tmp_path / "out", Options())
    assert [len(prepared.samples(s)) for s in ("train", "val", "test")] == [18, 1, 1]
    assert prepared.image_size == (40, 40)
    for split in prepared.splits:
        for sample in prepared.samples(split):
            label = read_label(sample.label)
            np.testing.assert_array_equal(label, centred_square(expected[sample.id]))
            image = read_image(sample.image)
            with Image.open(
                tmp_path / "raw" / "JPEGImages" / f"{sample.id}.jpg"
            ) as raw:
                expected_image = centred_square(np.array(raw)).astype(int)
            # It is encoded once more; chroma is halved, so pixels differ a little.
            assert np.abs(image - expected_image).mean() < 6
    assert verify(tmp_path / "out") == []


def test_published_split_sizes():
    """CO-CNN: 16,000 / 700 / 1,000 of 17,700 people."""
    groups = {f"{number}_1": f"{number}_1" for number in range(17_700)}
    splits = list(seeded_split(groups, atr.VAL_SHARE, atr.TEST_SHARE).values())
    assert [splits.count(s) for s in ("train", "val", "test")] == [16_000, 700, 1_000]


def test_left_and_right_change_places():
    names, table = atr.LABELS.names, atr.LABELS.flip_table()
    for class_id, name in enumerate(names):
        if "left-" in name:
            name = name.replace("left-", "right-")
        elif "right-" in name:
            name = name.replace("right-", "left-")
        assert names[table[class_id]] == name
    assert table[255] == 255
