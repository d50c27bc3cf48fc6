"""PASCAL VOC: palette masks, lists, years."""

import miniatures
import numpy as np
import pytest

from keras_seg.data import voc
from keras_seg.data.prepared import read_label
from keras_seg.data.verify import verify
from keras_seg.data.writer import Options
from keras_seg.errors import DataError, UsageError

# Specification 5.3, as every VOC tool paints them.
PALETTE = (
    [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128)]
    + [(0, 128, 128), (128, 128, 128), (64, 0, 0), (192, 0, 0), (64, 128, 0)]
    + [(192, 128, 0), (64, 0, 128), (192, 0, 128), (64, 128, 128), (192, 128, 128)]
    + [(0, 64, 0), (128, 64, 0), (0, 192, 0), (128, 192, 0), (0, 64, 128)]
)


def test_palette():
    assert list(voc.LABELS.palette) == PALETTE
    assert voc.LABELS.names[15] == "person"
    assert voc.palette(256)[255] == (224, 224, 192)  # VOC's void


@pytest.mark.parametrize("src", ["", "VOC2007"], ids=["devkit", "year"])
def test_palette_indices_survive(src, tmp_path):
    expected = miniatures.voc(tmp_path / "raw")
    prepared, _ = voc.prepare(tmp_path / "raw" / src, tmp_path / "out", Options())
    assert prepared.splits == ("train", "val", "test")
    assert prepared.image_size is None  # the sizes differ
    found = {
        (sample.split, sample.id): read_label(sample.label)
        for split in prepared.splits
        for sample in prepared.samples(split)
    }
    assert found.keys() == expected.keys()
    for key, ids in expected.items():
        np.testing.assert_array_equal(found[key], ids)
    raw = tmp_path / "raw" / "VOC2007" / "JPEGImages"
    for sample in prepared.samples("train"):  # JPEGs are not encoded again
        assert sample.image.read_bytes() == (raw / f"{sample.id}.jpg").read_bytes()
    assert prepared.dataset == "voc2007"
    assert verify(tmp_path / "out") == []


def test_both_years_need_a_choice(tmp_path):
    miniatures.voc(tmp_path / "raw", "2007")
    miniatures.voc(tmp_path / "raw", "2012")
    for test_mask in ("2012_000008", "2012_000009"):  # withheld
        (tmp_path / f"raw/VOC2012/SegmentationClass/{test_mask}.png").unlink()
    with pytest.raises(UsageError, match="--year"):
        voc.prepare(tmp_path / "raw", tmp_path / "out", Options())
    prepared, _ = voc.prepare(
        tmp_path / "raw", tmp_path / "out", Options(), year="2012"
    )
    assert prepared.splits == ("train", "val")
    assert prepared.dataset == "voc2012"
    assert prepared.samples("train")[0].id == "2012_000001"


def test_empty_list_is_named(tmp_path):
    miniatures.voc(tmp_path / "raw")
    lists = tmp_path / "raw" / "VOC2007" / "ImageSets" / "Segmentation"
    (lists / "val.txt").write_text("\n")
    with pytest.raises(DataError, match=r"val\.txt: split val is empty"):
        voc.prepare(tmp_path / "raw", tmp_path / "out", Options())
    (lists / "val.txt").unlink()
    with pytest.raises(DataError, match=r"val\.txt: missing"):
        voc.prepare(tmp_path / "raw", tmp_path / "out", Options())
