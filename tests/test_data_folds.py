"""Cross-validation: what is held out, and that nothing of it reaches the training."""

from collections import Counter

import miniatures
import numpy as np
import pytest

from keras_seg import class_weights
from keras_seg.config import Config
from keras_seg.data import folds
from keras_seg.data.pipeline import Samples
from keras_seg.data.prepared import open_prepared, read_label
from keras_seg.data.splits import assign_folds
from keras_seg.data.writer import NewSample
from keras_seg.errors import UsageError
from keras_seg.labels import LabelSpec
from keras_seg.runs import evaluate
from keras_seg.runs import folder as run_folder

LABELS = LabelSpec(("a", "b", "c"), ((0, 0, 0), (255, 0, 0), (0, 255, 0)))
SIZE = (6, 10)
# (split, id, sequence): ids that both splits have, a sequence in both of them, images
# that stand alone, of which one is named like a sequence
ITEMS = [
    *(("train", f"{k:02d}", "s1" if k < 4 else "s2") for k in range(7)),
    *(("train", name, "") for name in ("s1", "x", "y")),
    *(("val", f"{k:02d}", "s2" if k < 2 else "s3") for k in range(5)),
    ("test", "00", "s1"),
]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    rng = np.random.default_rng(3)
    samples = []
    for split, name, sequence in ITEMS:
        label = rng.choice(np.array([0, 0, 1, 2, 255], np.uint8), SIZE)
        if rng.random() < 0.4:
            label[label == 2] = 0  # so that a class is in some images only
        image = rng.integers(0, 256, (*SIZE, 3)).astype(np.uint8)
        joints = rng.uniform(0, 6, (24, 2)).astype(np.float32)
        samples.append(
            NewSample(split, name, image, label, joints=joints, sequence=sequence)
        )
    folder = tmp_path_factory.mktemp("data") / "folds"
    return open_prepared(miniatures.publish(folder, "folds", LABELS, samples).folder)


def of_each_fold(prepared, number=3):
    return [folds.divide(prepared, number, k) for k in range(number)]


def test_every_image_is_held_out_once_and_no_sequence_is_on_both_sides(prepared):
    files = {s.image for split in ("train", "val") for s in prepared.samples(split)}
    held_out = Counter()
    for fold in of_each_fold(prepared):
        train, val = fold.samples("train"), fold.samples("val")
        assert {s.image for s in (*train, *val)} == files
        assert not {s.image for s in train} & {s.image for s in val}
        assert not {s.sequence for s in train if s.sequence} & {s.sequence for s in val}
        assert {s.split for s in train} == {"train"}
        assert [s.id for s in val] == sorted({s.id for s in val})
        assert fold.samples("test") == prepared.samples("test")
        held_out.update(s.image for s in val)
    assert held_out == Counter(files)
    # 15 images: s2 has 5, s1 4, s3 3, and three stand alone
    sizes = sorted(len(fold.samples("val")) for fold in of_each_fold(prepared))
    assert sizes == [5, 5, 5]


def test_images_of_one_id_in_both_splits_are_told_apart(prepared):
    whole = folds.divide(prepared, 3, None)
    ids = [sample.id for sample in whole.samples("val")]
    assert len(set(ids)) == 15
    assert {"train/00", "val/00", "05", "s1", "x"} <= set(ids)
    assert whole.sequences("val")["val/00"] == "s2"


def test_weights_counts_and_joints_are_of_the_images_of_the_fold(prepared):
    """The counts of a split, counted from its label files one by one."""
    for fold in of_each_fold(prepared):
        for split in ("train", "val"):
            labels = [read_label(s.label) for s in fold.samples(split)]
            found = fold.counts(split)
            for c in range(3):
                having = [label for label in labels if (label == c).any()]
                assert found.pixels[c] == sum((label == c).sum() for label in labels)
                assert found.images[c] == len(having)
                assert found.presence_pixels[c] == sum(label.size for label in having)
            assert found.ignored == sum((label == 255).sum() for label in labels)
            assert found.total == 60 * len(labels)
        config = Config(
            net="icnet", data={"size": (32, 32)}, loss={"weights": "w1"}, steps=1
        )
        pixels = fold.counts("train").pixels
        weights = evaluate.training_weights(config, fold)
        np.testing.assert_allclose(weights, 1 - pixels / pixels.sum())
    joints = {
        sample.image: row
        for split in ("train", "val")
        for sample, row in zip(prepared.samples(split), prepared.joints(split))
    }
    for sample, row in zip(fold.samples("val"), fold.joints("val")):
        np.testing.assert_array_equal(row, joints[sample.image])


def test_the_weights_of_different_folds_differ(prepared):
    loss = Config(net="icnet", data={"size": (32, 32)}, steps=1).changed(
        loss={"weights": "median"}
    )
    found = [
        class_weights.from_counts(loss.loss, fold.counts("train")).tolist()
        for fold in of_each_fold(prepared)
    ]
    assert len({tuple(each) for each in found}) == 3


def test_the_pipeline_reads_the_images_of_the_fold(prepared):
    fold = folds.divide(prepared, 3, 1)
    samples = Samples(fold, "val", SIZE)
    for position, sample in enumerate(fold.samples("val")):
        np.testing.assert_array_equal(
            samples.plain(position)[1], read_label(sample.label)
        )


def test_a_divided_folder_is_divided_otherwise_or_whole_again(prepared):
    fold = folds.divide(prepared, 3, 1)
    assert folds.divide(fold, None) is prepared
    assert folds.divide(fold, 3, 1) is fold
    two = folds.divide(fold, 2, 1)
    assert len(two.samples("train")) + len(two.samples("val")) == 15


def test_what_is_held_out_is_part_of_a_runs_identity(prepared):
    config = Config(net="icnet", data={"size": (32, 32)}, steps=1)
    assert "held_out" not in run_folder.identity(config, prepared)["data"]
    found = [
        run_folder.identity(config.changed(data={"folds": 3, "fold": fold}), prepared)[
            "data"
        ]["held_out"]
        for fold in range(3)
    ]
    assert len(set(found)) == 3


def test_the_assignment_is_equal_and_does_not_depend_on_the_order():
    groups = [f"g{k // 5}" for k in range(60)]
    found = assign_folds(groups, 4)
    assert sorted(Counter(found).values()) == [15, 15, 15, 15]
    assert all(len(set(found[k : k + 5])) == 1 for k in range(0, 60, 5))
    assert assign_folds(groups[::-1], 4) == found[::-1]


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (7, "7 folds are too many: .* of 6 sequences, which are kept together. .* 6"),
    ],
)
def test_more_folds_than_sequences_are_refused(number, message, prepared):
    with pytest.raises(UsageError, match=message):
        folds.divide(prepared, number)


def test_more_folds_than_images_are_refused(tmp_path):
    data = open_prepared(miniatures.shapes(tmp_path / "shapes", (("train", 3),)))
    with pytest.raises(
        UsageError, match="4 folds .* has 3 training and .* images. Choose at most 3"
    ):
        folds.divide(data, 4)
    assert folds.divide(data, 3, 2).splits == ("train", "val")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"folds": 1}, "data.folds is 1; it must be at least 2"),
        ({"folds": 3, "fold": 3}, "data.fold is 3; it must be at most 2 of 3 folds"),
        ({"fold": 1}, "data.fold is 1; it must be 0 without data.folds"),
    ],
)
def test_settings_that_make_no_fold(data, message):
    with pytest.raises(UsageError, match=message):
        Config(net="icnet", data={"size": (32, 32), **data}, steps=1)
