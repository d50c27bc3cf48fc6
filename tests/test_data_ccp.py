"""Clothing Co-Parsing: MATLAB masks, the pixel-level photographs only."""

import re
from pathlib import Path

import miniatures
import numpy as np
import pytest
from scipy.io import loadmat, savemat

from keras_seg.data import ccp
from keras_seg.data.writer import Options
from keras_seg.errors import DataError


def test_only_annotated_photographs_are_used(tmp_path):
    annotated = miniatures.ccp(tmp_path / "raw")
    assert len(list((tmp_path / "raw" / "photos").iterdir())) == len(annotated) + 1
    prepared, _ = ccp.prepare(tmp_path / "raw", tmp_path / "out", Options())
    assert [len(prepared.samples(s)) for s in ("train", "val", "test")] == [8, 1, 1]
    assert {name for _, name in miniatures.labels_of(prepared)} == annotated.keys()
    assert prepared.image_size == (44, 44)


def groundtruth(mask):
    return lambda path: savemat(path, {"groundtruth": mask})


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-20]), "truncated at"),
        (lambda path: path.write_bytes(b"\x93" * 500), "not a MATLAB 5 file"),
        (lambda path: savemat(path, {"mask": np.ones((4, 4))}), "no numeric variable"),
        (groundtruth(np.ones((4, 4), np.int32)), r"int32 \(4, 4\)"),
        (groundtruth(np.full((44, 31), 59, "uint8")), "class id 59 in 1364 pixels"),
        (groundtruth(np.ones((44, 20), "uint8")), "44 x 20 pixels, .* image 44 x 31"),
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


@pytest.mark.real_data
def test_real_photographs(real_data, tmp_path):
    src = real_data / "ccp"
    names = [str(name[0]) for name in loadmat(src / "label_list.mat")["label_list"][0]]
    assert list(ccp.LABELS.names) == names
    prepared, _ = ccp.prepare(src, tmp_path / "out", Options(), square=False)
    splits = prepared.splits
    assert [len(prepared.samples(split)) for split in splits] == [240, 30, 30]
    counts = [prepared.counts(split) for split in splits]
    card = (Path(__file__).parents[1] / "datasets" / "ccp.md").read_text()
    listed = re.findall(r"\| (\d+) ([\w-]+) \| (\d+) \| (\d+) (?=\|)", card)
    assert len(listed) == 59
    for class_id, name, pixels, having in listed:
        assert ccp.LABELS.names[int(class_id)] == name
        assert sum(c.pixels[int(class_id)] for c in counts) == int(pixels)
        assert sum(c.images[int(class_id)] for c in counts) == int(having)
    assert f"{sum(c.total for c in counts)} pixels" in card


@pytest.mark.real_data
def test_real_masks_are_the_files_values(real_data, tmp_path):
    """Twelve masks as scipy reads them, without anything of ours between."""
    src = real_data / "ccp"
    prepared, _ = ccp.prepare(src, tmp_path / "out", Options(limit=4), square=False)
    found = miniatures.labels_of(prepared)
    assert len(found) == 12
    for (_, name), label in found.items():
        path = src / "annotations" / "pixel-level" / f"{name}.mat"
        np.testing.assert_array_equal(label, loadmat(path)["groundtruth"])
