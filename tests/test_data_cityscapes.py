"""Cityscapes: both label spaces, missing and wrong annotations."""

import miniatures
import numpy as np
import pytest

from keras_seg.data import cityscapes
from keras_seg.data.writer import Options
from keras_seg.errors import DataError

# id -> trainId, as cityscapesScripts has it; every other id is not scored.
TRAIN_IDS = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9}
TRAIN_IDS |= {23: 10, 24: 11, 25: 12, 26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18}


def test_34_ids_of_which_19_are_scored(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    expected = miniatures.cityscapes(raw)
    prepared, _ = cityscapes.prepare(raw, out, Options(), label_space="ids")
    assert prepared.dataset == "cityscapes34"
    assert prepared.splits == ("train", "val")  # test's labels are withheld
    assert prepared.sequences("train") == {}
    miniatures.assert_labels(prepared, expected)
    assert prepared.scored_ids == tuple(TRAIN_IDS)
    prepared, _ = cityscapes.prepare(raw, tmp_path / "19", Options())
    assert (prepared.dataset, prepared.scored_ids) == ("cityscapes", None)


def test_label_spaces_follow_the_official_table():
    ids, train_ids = (cityscapes.LABELS[space] for space in ("ids", "train_ids"))
    assert (ids.num_classes, train_ids.num_classes) == (34, 19)
    for class_id in range(34):
        train_id = cityscapes.IDS["train_ids"][class_id]
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
    with pytest.raises(DataError, match=f"{gone} is missing"):
        cityscapes.prepare(tmp_path / "raw", tmp_path / "out", Options())
    assert not (tmp_path / "out").exists()


def test_instance_ids_by_mistake_are_named(tmp_path):
    miniatures.cityscapes(tmp_path / "raw")
    path = next((tmp_path / "raw" / "gtFine" / "train" / "ulm").glob("*labelIds*"))
    miniatures.save(np.full((32, 64), 26_001, np.uint16), path)
    with pytest.raises(DataError, match=f"{path} is a 16-bit mask"):
        cityscapes.prepare(tmp_path / "raw", tmp_path / "out", Options())
