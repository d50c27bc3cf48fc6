"""Clothing Co-Parsing: MATLAB masks, the pixel-level photographs only."""

import os
from pathlib import Path

import miniatures
import numpy as np
import pytest
from scipy.io import loadmat, savemat

from keras_seg.data import ccp, matlab
from keras_seg.data.prepared import read_label
from keras_seg.data.verify import verify
from keras_seg.data.writer import Options
from keras_seg.errors import DataError


def test_miniature(tmp_path):
    expected = miniatures.ccp(tmp_path / "raw")
    prepared, _ = ccp.prepare(
        tmp_path / "raw", tmp_path / "out", Options(), square=False
    )
    assert [len(prepared.samples(s)) for s in ("train", "val", "test")] == [8, 1, 1]
    found = {
        sample.id: read_label(sample.label)
        for split in prepared.splits
        for sample in prepared.samples(split)
    }
    assert found.keys() == expected.keys()  # not the photograph without annotation
    for name, ids in expected.items():
        np.testing.assert_array_equal(found[name], ids)
    assert verify(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-20]), "truncated at"),
        (lambda path: path.write_bytes(b"\x93" * 500), "no MATLAB 5 file"),
        (lambda path: savemat(path, {"mask": np.ones((4, 4))}), "no variable"),
        (
            lambda path: savemat(path, {"groundtruth": np.ones((4, 4), np.int32)}),
            r"int32 \(4, 4\)",
        ),
        (
            lambda path: savemat(path, {"groundtruth": np.full((44, 31), 59, "uint8")}),
            "class id 59 in 1364 pixels",
        ),
        (
            lambda path: savemat(path, {"groundtruth": np.ones((44, 20), "uint8")}),
            "44 x 20, but its image 44 x 31",
        ),
    ],
    ids=["truncated", "garbage", "name", "type", "range", "size"],
)
def test_bad_masks_are_named(damage, reason, tmp_path):
    miniatures.ccp(tmp_path / "raw")
    path = tmp_path / "raw" / "annotations" / "pixel-level" / "0003.mat"
    damage(path)
    with pytest.raises(DataError, match=rf"{path}.*{reason}"):
        ccp.prepare(tmp_path / "raw", tmp_path / "out", Options())
    assert not (tmp_path / "out").exists()


def test_decompression_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(matlab, "MAX_BYTES", 1_000_000)
    path = tmp_path / "bomb.mat"
    savemat(path, {"groundtruth": np.zeros((2000, 2000), "uint8")}, do_compression=True)
    assert path.stat().st_size < 10_000
    with pytest.raises(DataError, match="far too large"):
        matlab.read_mat(path, "groundtruth")
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError):
        matlab.read_mat(path, "groundtruth")


@pytest.mark.real_data
def test_real_photographs(tmp_path):
    if "KERAS_SEG_DATA" not in os.environ:
        pytest.skip("KERAS_SEG_DATA is not set")
    src = Path(os.environ["KERAS_SEG_DATA"]) / "ccp"
    names = [str(name[0]) for name in loadmat(src / "label_list.mat")["label_list"][0]]
    assert list(ccp.LABELS.names) == names
    prepared, _ = ccp.prepare(src, tmp_path / "out", Options(size=(64, 64), limit=5))
    assert [len(prepared.samples(s)) for s in prepared.splits] == [5, 5, 5]
    assert prepared.image_size == (64, 64)
