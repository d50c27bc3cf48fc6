"""PASCAL VOC: palette masks, lists, years."""

import miniatures
import pytest

from keras_seg.data import voc
from keras_seg.data.writer import Options
from keras_seg.errors import DataError, UsageError

# As every VOC tool paints them.
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
    miniatures.assert_labels(prepared, expected)
    raw = tmp_path / "raw" / "VOC2007" / "JPEGImages"
    for sample in prepared.samples("train"):  # JPEGs are not encoded again
        assert sample.image.read_bytes() == (raw / f"{sample.id}.jpg").read_bytes()
    assert prepared.dataset == "voc2007"


def test_both_years_need_a_choice(tmp_path):
    miniatures.voc(tmp_path / "raw", "2007")
    miniatures.voc(tmp_path / "raw", "2012")
    for test_mask in ("2012_000008", "2012_000009"):  # withheld
        (tmp_path / f"raw/VOC2012/SegmentationClass/{test_mask}.png").unlink()
    raw, out = tmp_path / "raw", tmp_path / "out"
    with pytest.raises(UsageError, match="has both years. Choose one with --year"):
        voc.prepare(raw, out, Options())
    prepared, _ = voc.prepare(raw, out, Options(), year="2012")
    assert prepared.splits == ("train", "val")
    assert prepared.dataset == "voc2012"
    assert prepared.samples("train")[0].id == "2012_000001"


def test_empty_list_is_named(tmp_path):
    miniatures.voc(tmp_path / "raw")
    lists = tmp_path / "raw" / "VOC2007" / "ImageSets" / "Segmentation"
    (lists / "val.txt").write_text("\n")
    with pytest.raises(DataError, match=r"val\.txt lists no samples: split val"):
        voc.prepare(tmp_path / "raw", tmp_path / "out", Options())
    (lists / "val.txt").unlink()
    with pytest.raises(DataError, match=r"val\.txt is missing"):
        voc.prepare(tmp_path / "raw", tmp_path / "out", Options())
