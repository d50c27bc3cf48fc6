"""Your own data: layouts, splits, masks of every kind, bad files by name."""

import os
from collections import defaultdict
from pathlib import Path

import miniatures
import numpy as np
import pytest
from miniatures import assert_labels, labels_of
from PIL import Image

from keras_seg.data import folder
from keras_seg.data.writer import Options
from keras_seg.errors import DataError, UsageError

CLASSES = "sky,road,car"
MANY_CLASSES = ",".join(f"class {number}" for number in range(21))


def prepare(tmp_path, classes=CLASSES, out="out", options=None, **settings):
    return folder.prepare(
        tmp_path / "raw", tmp_path / out, options or Options(), classes, **settings
    )[0]


def counts(prepared):
    return [len(prepared.samples(split)) for split in ("train", "val", "test")]


def test_plain_folder_is_split_80_10_10(tmp_path):
    expected = miniatures.folder(tmp_path / "raw", count=20)
    prepared = prepare(tmp_path, flip_pairs="sky:car")
    assert counts(prepared) == [16, 2, 2]
    assert_labels(prepared, expected)
    assert prepared.labels.names == ("sky", "road", "car")
    assert prepared.labels.flip_pairs == ((0, 2),)
    # The split is a function of the names: order on the disk plays no part.
    for path in sorted((tmp_path / "raw").rglob("*.png"), reverse=True):
        path.touch()
    again = prepare(tmp_path, out="again", flip_pairs="sky:car")
    assert labels_of(again).keys() == labels_of(prepared).keys()


def test_same_names_and_sizes_are_the_same_files_until_overwrite(tmp_path):
    """As --help states; a copy with other times is not redone."""
    miniatures.folder(tmp_path / "raw", count=5)
    mask = tmp_path / "raw" / "labels" / "seq0_frame0.png"
    miniatures.save(np.zeros((16, 20), np.uint8), mask, compress_level=0)
    size = mask.stat().st_size
    arguments = tmp_path / "raw", tmp_path / "out"
    assert folder.prepare(*arguments, Options(), CLASSES)[1]
    os.utime(mask, (1, 1))
    assert not folder.prepare(*arguments, Options(), CLASSES)[1]

    miniatures.save(np.ones((16, 20), np.uint8), mask, compress_level=0)
    assert mask.stat().st_size == size
    assert not folder.prepare(*arguments, Options(), CLASSES)[1]
    prepared, now = folder.prepare(*arguments, Options(overwrite=True), CLASSES)
    assert now
    (found,) = (x for (_, name), x in labels_of(prepared).items() if name == mask.stem)
    assert (found == 1).all()


def test_group_by_keeps_sequences_together(tmp_path):
    def splits_of_sequences(prepared):
        splits = defaultdict(set)
        for split, name in labels_of(prepared):
            splits[name.split("_")[0]].add(split)
        return splits

    miniatures.folder(tmp_path / "raw", count=30)  # seq0 to seq9, three frames each
    prepared = prepare(tmp_path, group_by=r"^(seq\d+)_")
    splits = splits_of_sequences(prepared)
    assert len(splits) == 10
    assert all(len(where) == 1 for where in splits.values())
    assert counts(prepared) == [24, 3, 3]
    for split in prepared.splits:
        ids = [sample.id for sample in prepared.samples(split)]
        expected = {name: name.split("_")[0] for name in ids}
        assert prepared.sequences(split) == expected
    torn = splits_of_sequences(prepare(tmp_path, out="alone"))
    assert max(map(len, torn.values())) > 1


def test_own_splits_are_kept_and_nested_names_joined(tmp_path):
    raw, rng = tmp_path / "raw", np.random.default_rng(0)
    for name in ("train/a/1", "train/b/1", "val/1"):
        ids = miniatures.blobs(rng, (8, 12), range(3))
        miniatures.save(miniatures.photo(rng, (8, 12)), raw / f"images/{name}.jpg")
        miniatures.save(ids, raw / f"labels/{name}.png")
    prepared = prepare(tmp_path)
    keys = {("train", "a_1"), ("train", "b_1"), ("val", "1")}
    assert labels_of(prepared).keys() == keys
    assert prepared.sequences("train") == {}
    # Where there are splits already, sequences are only recorded.
    again = prepare(tmp_path, out="two", group_by="(.)$")
    assert labels_of(again).keys() == keys
    assert again.sequences("train") == {"a_1": "1", "b_1": "1"}
    assert again.manifest_hash == prepared.manifest_hash


@pytest.fixture
def voc_layout(tmp_path):
    """{(split, id): label} and the lists' folder of a raw folder in VOC's layout."""
    expected = miniatures.voc(tmp_path)
    (tmp_path / "VOC2007").rename(tmp_path / "raw")
    return expected, tmp_path / "raw" / "ImageSets" / "Segmentation"


def test_voc_layout_uses_its_lists(voc_layout, tmp_path):
    expected, lists = voc_layout
    prepared = prepare(tmp_path, MANY_CLASSES)
    assert labels_of(prepared).keys() == expected.keys()

    names = [name for split, name in expected if split != "test"]
    (lists / "trainval.txt").write_text("\n".join(names))
    (lists / "train.txt").unlink()
    (lists / "val.txt").unlink()
    two = prepare(tmp_path, MANY_CLASSES, "two")
    assert counts(two) == [6, 1, 2]
    assert {n for s, n in labels_of(two) if s != "test"} == set(names)

    for path in lists.iterdir():
        path.unlink()
    assert counts(prepare(tmp_path, MANY_CLASSES, "three")) == [7, 1, 1]


def test_voc_lists_may_name_files_with_spaces(voc_layout, tmp_path):
    expected, lists = voc_layout
    for file in ("JPEGImages/000001.jpg", "SegmentationClass/000001.png"):
        path = tmp_path / "raw" / file
        path.rename(path.with_stem("my photo 1"))
    (lists / "train.txt").write_text("my photo 1 \r\n\n000002\n")
    found = labels_of(prepare(tmp_path, MANY_CLASSES))
    train = {name for split, name in found if split == "train"}
    assert train == {"my photo 1", "000002"}
    label = found["train", "my photo 1"]
    np.testing.assert_array_equal(label, expected["train", "000001"])


def test_colour_masks_with_void(tmp_path):
    ids = miniatures.folder(tmp_path / "raw", count=10)
    colours = np.zeros((256, 3), np.uint8)
    colours[[0, 1, 2, 255]] = ((0, 0, 0), (255, 0, 16), (0, 255, 0), (224, 224, 192))
    for name, label in ids.items():
        miniatures.save(colours[label], tmp_path / "raw" / "labels" / f"{name}.png")
    prepared = prepare(tmp_path, palette="000000,#ff0010,00FF00", void="E0E0C0")
    assert_labels(prepared, ids)
    assert prepared.labels.palette[1] == (255, 0, 16)


def test_void_id(tmp_path):
    ids = miniatures.folder(tmp_path / "raw", count=10, num_classes=4)
    expected = {name: np.where(label == 3, 255, label) for name, label in ids.items()}
    assert_labels(prepare(tmp_path, void="3"), expected)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"classes": "a,,b"}, "--classes a,,b"),
        ({"classes": "a,b,a"}, "Class names repeat"),
        ({"palette": "000000,ff0000"}, "palette.* 2 colours"),
        ({"palette": "000000,ff0000,red"}, "--palette red"),
        ({"palette": "000000,ff0000,ff0000"}, "--palette"),
        ({"void": "2"}, "--void 2"),
        ({"void": "e0e0c0"}, "--void e0e0c0"),
        ({"palette": "000000,ff0000,00ff00", "void": "ff0000"}, "--void ff0000"),
        ({"flip_pairs": "sky:lake"}, "--flip-pairs sky:lake"),
        ({"group_by": "("}, "--group-by \\("),
        ({"group_by": "^frame"}, "--group-by .* matches nothing in seq0_frame0"),
        ({"group_by": "(x?)"}, "--group-by .* matches nothing in seq0_frame0"),
    ],
)
def test_wrong_arguments_are_named(settings, named, tmp_path):
    miniatures.folder(tmp_path / "raw")
    with pytest.raises(UsageError, match=named):
        prepare(tmp_path, **settings)
    assert not (tmp_path / "out").exists()


def png_of(array):
    return lambda path: Image.fromarray(array).save(path)


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def link_out(path):
    outside = path.parents[2] / "outside.png"
    path.rename(outside)
    path.symlink_to(outside)


def duplicate(path):
    with Image.open(path) as image:
        image.save(path.with_suffix(".jpg"))


BAD = [
    ("images", cut, "is truncated at"),
    ("labels", cut, "is truncated at"),
    ("images", Path.unlink, "no image of its name"),
    ("labels", Path.unlink, "no mask of its name"),
    ("images", link_out, "a link that leads out of --src"),
    ("labels", link_out, "a link that leads out of --src"),
    ("images", duplicate, "the same name as"),
    ("labels", png_of(np.full((16, 20), 3, "uint8")), "id 3 in 320 .* 0 to 2, or 255"),
    ("labels", png_of(np.zeros((16, 19), "uint8")), "16 x 19 .*but its image"),
]


@pytest.mark.parametrize(("kind", "damage", "reason"), BAD)
def test_bad_files_refuse_the_whole_and_can_be_left_out(kind, damage, reason, tmp_path):
    miniatures.folder(tmp_path / "raw")
    damage(tmp_path / "raw" / kind / "seq1_frame4.png")
    with pytest.raises(DataError, match=f"seq1_frame4.*{reason}"):
        prepare(tmp_path)
    prepared = prepare(tmp_path, options=Options(skip_bad=1))
    (left_out,) = prepared.meta["rejected"]
    assert left_out["id"] == "seq1_frame4"
    assert len(labels_of(prepared)) == 9


def test_link_to_a_folder_is_named(tmp_path):
    miniatures.folder(tmp_path / "raw")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "raw" / "images" / "more").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="more is a link to a folder"):
        prepare(tmp_path)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "x\x1b[0m"])
def test_lists_cannot_lead_out(name, voc_layout, tmp_path):
    (voc_layout[1] / "val.txt").write_text(f"{name}\n")
    with pytest.raises(DataError, match="leads out of --src"):
        prepare(tmp_path, MANY_CLASSES)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("folders", ["", "images labels", "images/train labels"])
def test_folder_without_a_layout_is_refused(folders, tmp_path):
    raw = tmp_path / "raw"
    for name in folders.split(" "):
        (raw / name).mkdir(parents=True)
    if "train" in folders:
        (raw / "images" / "odd.png").touch()
    with pytest.raises(DataError, match=str(raw)):
        prepare(tmp_path)
    assert not (tmp_path / "out").exists()
