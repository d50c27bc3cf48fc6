"""CamVid: copied images, sequences, lists; the published counts of the real files."""

from collections import Counter

import miniatures
import numpy as np
import pytest

from keras_seg.data import camvid
from keras_seg.data.prepared import open_prepared, read_image
from keras_seg.data.writer import Options
from keras_seg.errors import DataError


def test_images_are_copied_and_sequences_are_known(tmp_path):
    miniatures.camvid(tmp_path / "raw")
    prepared, written = camvid.prepare(tmp_path / "raw", tmp_path / "out", Options())
    assert written
    assert prepared.splits == ("train", "val")
    assert prepared.image_size == (24, 36)
    assert set(prepared.sequences("val").values()) == {"0001TP"}
    for sample in prepared.samples("val"):
        raw = tmp_path / "raw" / "val" / f"{sample.id}.png"
        assert sample.image.read_bytes() == raw.read_bytes()
        assert read_image(sample.image).shape == (24, 36, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("../a.png valannot/a.png\n", r"'\.\./a.png' leads out of --src"),
        ("val/a.png\n", "val.txt has a line without an image and a mask: val/a.png"),
        (None, "val.txt cannot be read"),
    ],
)
def test_wrong_lists_are_named(content, message, tmp_path):
    miniatures.camvid(tmp_path / "raw")
    (tmp_path / "raw" / "val.txt").unlink()
    if content:
        (tmp_path / "raw" / "val.txt").write_text(content)
    with pytest.raises(DataError, match=message):
        camvid.prepare(tmp_path / "raw", tmp_path / "out", Options())
    assert not (tmp_path / "out").exists()


@pytest.mark.real_data
def test_published_pixel_counts(real_data, tmp_path):
    """SegNet tutorial: pixels and images of ids 0..10 and void, 367 training images."""
    src = real_data / "camvid"
    camvid.prepare(src, tmp_path / "out", Options())
    prepared = open_prepared(tmp_path / "out")
    assert [len(prepared.samples(split)) for split in ("train", "val")] == [367, 101]
    assert prepared.image_size == (360, 480)
    sequences = Counter(prepared.sequences("train").values())
    assert sequences == {"0001TP": 62, "0006R0": 101, "0016E5": 204}
    assert Counter(prepared.sequences("val").values()) == {"0016E5": 101}
    counts = prepared.counts("train")
    np.testing.assert_array_equal(
        counts.pixels,
        [10682767, 14750079, 623349, 20076880, 2845085, 6166762, 743859, 714595]
        + [3719877, 405385, 184967],
    )
    assert counts.ignored == 2503995
    np.testing.assert_array_equal(
        counts.images, [366, 365, 366, 367, 349, 319, 351, 173, 360, 317, 201]
    )
    np.testing.assert_array_equal(counts.presence_pixels, counts.images * 360 * 480)
    assert counts.total == 367 * 360 * 480
