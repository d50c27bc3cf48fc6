"""Cityscapes: the tree, both label spaces, the withheld test labels."""

import miniatures
import numpy as np
import pytest

from keras_seg.data import cityscapes
from keras_seg.data.prepared import read_label
from keras_seg.data.verify import verify
from keras_seg.data.writer import Options
from keras_seg.errors import DataError

# Specification 5.2: id -> trainId; every other id is not scored.
TRAIN_IDS = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9}
TRAIN_IDS |= {23: 10, 24: 11, 25: 12, 26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18}


@pytest.mark.parametrize("label_space", ["ids", "train_ids"])
def test_miniature(label_space, tmp_path):
    expected = miniatures.cityscapes(tmp_path / "raw")
    prepared, _ = cityscapes.prepare(
        tmp_path / "raw", tmp_path / "out", Options(), label_space=label_space
    )
    names = {"ids": "cityscapes34", "train_ids": "cityscapes"}
    assert prepared.dataset == names[label_space]
    assert prepared.splits == ("train", "val")  # test's labels are withheld
    assert prepared.sequences("train") == {}
    found = {
        (sample.split, sample.id): read_label(sample.label)
        for split in prepared.splits
        for sample in prepared.samples(split)
    }
    assert found.keys() == expected.keys()
    for key, raw in expected.items():
        if label_space == "train_ids":
            raw = np.vectorize(lambda value: TRAIN_IDS.get(value, 255))(raw)
        np.testing.assert_array_equal(found[key], raw)
    scored_ids = {"ids": tuple(TRAIN_IDS), "train_ids": None}
    assert prepared.scored_ids == scored_ids[label_space]
    assert verify(tmp_path / "out") == []


def test_label_spaces_follow_the_official_table():
    ids, train_ids = (cityscapes.LABELS[space] for space in ("ids", "train_ids"))
    assert (ids.num_classes, train_ids.num_classes) == (34, 19)
    for class_id, train_id in enumerate(cityscapes.TRAIN_IDS):
        assert train_id == TRAIN_IDS.get(class_id, 255)
        if train_id != 255:
            assert ids.names[class_id] == train_ids.names[train_id]
            assert ids.palette[class_id] == train_ids.palette[train_id]
    assert ids.names[18] == "polegroup"  # CITY Fig. 13: the rarest of the 34
    assert train_ids.palette[11] == (220, 20, 60)  # person
    assert train_ids.palette[18] == (119, 11, 32)  # bicycle


def test_missing_annotations_are_listed(tmp_path):
    miniatures.cityscapes(tmp_path / "raw")
    gone = next((tmp_path / "raw" / "gtFine" / "val" / "ulm").glob("*labelIds*"))
    gone.unlink()
    with pytest.raises(DataError, match=f"{gone}: missing"):
        cityscapes.prepare(tmp_path / "raw", tmp_path / "out", Options())
    assert not (tmp_path / "out").exists()


def test_instance_ids_by_mistake_are_named(tmp_path):
    miniatures.cityscapes(tmp_path / "raw")
    path = next((tmp_path / "raw" / "gtFine" / "train" / "ulm").glob("*labelIds*"))
    miniatures.save(np.full((32, 64), 26_001, np.uint16), path)
    with pytest.raises(DataError, match="a 16-bit mask .*; expected 8-bit class ids"):
        cityscapes.prepare(tmp_path / "raw", tmp_path / "out", Options())
