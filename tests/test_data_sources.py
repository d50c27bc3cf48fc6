"""What each published dataset has of its own: splits, classes, counts, its faults."""

import re
from collections import Counter
from pathlib import Path

import miniatures
import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat, savemat

from keras_seg import data
from keras_seg.data import atr, camvid, ccp, cityscapes, voc
from keras_seg.data.prepared import read_image, read_label
from keras_seg.data.splits import seeded_split
from keras_seg.data.writer import Options
from keras_seg.errors import DataError, UsageError


@pytest.fixture
def raw(tmp_path):
    return tmp_path / "raw"


@pytest.fixture
def prepare(raw, tmp_path):
    """Prepares a dataset of the raw folder, into a new place each time."""
    number = 0

    def prepare(module, src=raw, options=None, **own):
        nonlocal number
        number += 1
        out = tmp_path / f"out{number}"
        return module.prepare(src, out, options or Options(), **own)[0]

    return prepare


def counts(prepared):
    return [len(prepared.samples(split)) for split in prepared.splits]


def write(text):
    return lambda path: path.write_text(text)


def save(mask):
    return lambda path: miniatures.save(mask, path)


def groundtruth(mask):
    return lambda path: savemat(path, {"groundtruth": mask})


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


VAL, MAT = "val.txt", "annotations/pixel-level/0003.mat"
VOC_VAL = "VOC2007/ImageSets/Segmentation/val.txt"
TRAIN_IDS, VAL_IDS = (f"gtFine/{s}/ulm/*labelIds*" for s in ("train", "val"))
INSTANCES = np.full((32, 64), 26_001, np.uint16)
FAULTS = [
    ("camvid", VAL, write("../a.png b/a.png"), r"'\.\./a\.png' leads out of --src"),
    ("camvid", VAL, write("val/a.png"), "{} has a line without .* a mask: val/a.png"),
    ("camvid", VAL, Path.unlink, "{} cannot be read"),
    ("cityscapes", VAL_IDS, Path.unlink, "{} is missing"),
    ("cityscapes", TRAIN_IDS, save(INSTANCES), "{} is a 16-bit mask"),
    ("ccp", MAT, cut, "{} is truncated at"),
    ("ccp", MAT, write("\x93" * 500), "{} is not a MATLAB 5 file"),
    ("ccp", MAT, lambda p: savemat(p, {"mask": 1.0}), "{} has no numeric variable"),
    ("ccp", MAT, groundtruth(np.ones((4, 4), "int32")), r"{} is int32 \(4, 4\)"),
    ("ccp", MAT, groundtruth(np.full((44, 31), 59, "uint8")), "{} .* 59 in 1364 pix"),
    ("ccp", MAT, groundtruth(np.ones((44, 20), "uint8")), "{} .*44 x 20 .* 44 x 31"),
    ("voc", VOC_VAL, write("\n"), "{} lists no samples: split val"),
    ("voc", VOC_VAL, Path.unlink, "{} is missing"),
]


@pytest.mark.parametrize(("name", "file", "damage", "message"), FAULTS)
def test_bad_files_are_named(name, file, damage, message, raw, tmp_path):
    getattr(miniatures, name)(raw)
    path = next(raw.glob(file))
    damage(path)
    with pytest.raises(DataError, match=message.format(path)):
        data.load(name).prepare(raw, tmp_path / "out", Options())
    assert not (tmp_path / "out").exists()


# ATR


def test_atr_images_are_padded_to_squares(raw, prepare):
    miniatures.atr(raw)
    prepared = prepare(atr)
    assert counts(prepared) == [18, 1, 1]
    assert prepared.image_size == (40, 40)
    for sample in prepared.samples("train"):
        with Image.open(raw / "JPEGImages" / f"{sample.id}.jpg") as image:
            expected = miniatures.square(np.array(image)).astype(int)
        # It is encoded once more; chroma is halved, so pixels differ a little.
        assert np.abs(read_image(sample.image) - expected).mean() < 6


def test_published_split_sizes_of_atr():
    """CO-CNN: 16,000 / 700 / 1,000 of 17,700 people."""
    groups = {f"{number}_1": f"{number}_1" for number in range(17_700)}
    splits = Counter(seeded_split(groups, atr.VAL_SHARE, atr.TEST_SHARE).values())
    assert splits == {"train": 16_000, "val": 700, "test": 1_000}


def test_left_and_right_of_atr_change_places():
    names, table = atr.LABELS.names, atr.LABELS.flip_table()
    other = {"left-": "right-", "right-": "left-"}
    for class_id, name in enumerate(names):
        side = name[: name.find("-") + 1]
        assert names[table[class_id]] == other.get(side, side) + name[len(side) :]
    assert table[255] == 255


# CamVid


def test_camvid_images_are_copied_and_sequences_are_known(raw, prepare):
    miniatures.camvid(raw)
    prepared = prepare(camvid)
    assert prepared.splits == ("train", "val")
    assert prepared.image_size == (24, 36)
    assert set(prepared.sequences("val").values()) == {"0001TP"}
    for sample in prepared.samples("val"):
        path = raw / "val" / f"{sample.id}.png"
        assert sample.image.read_bytes() == path.read_bytes()
        assert read_image(sample.image).shape == (24, 36, 3)


@pytest.mark.real_data
def test_published_pixel_counts_of_camvid(real_data, prepare):
    """SegNet tutorial: pixels and images of ids 0..10 and void, 367 training images."""
    prepared = prepare(camvid, real_data / "camvid")
    assert counts(prepared)[:2] == [367, 101]
    assert prepared.image_size == (360, 480)
    sequences = Counter(prepared.sequences("train").values())
    assert sequences == {"0001TP": 62, "0006R0": 101, "0016E5": 204}
    assert Counter(prepared.sequences("val").values()) == {"0016E5": 101}
    found = prepared.counts("train")
    pixels = [10682767, 14750079, 623349, 20076880, 2845085, 6166762, 743859, 714595]
    assert found.pixels.tolist() == [*pixels, 3719877, 405385, 184967]
    assert found.ignored == 2503995
    having = [366, 365, 366, 367, 349, 319, 351, 173, 360, 317, 201]
    assert found.images.tolist() == having
    assert found.presence_pixels.tolist() == [n * 360 * 480 for n in having]
    assert found.total == 367 * 360 * 480


# Clothing Co-Parsing


def test_only_annotated_photographs_of_ccp_are_used(raw, prepare):
    annotated = miniatures.ccp(raw)
    assert len(list((raw / "photos").iterdir())) == len(annotated) + 1
    prepared = prepare(ccp)
    assert counts(prepared) == [8, 1, 1]
    assert {name for _, name in miniatures.labels_of(prepared)} == annotated.keys()
    assert prepared.image_size == (44, 44)


@pytest.mark.real_data
def test_real_photographs_of_ccp(real_data, prepare):
    src = real_data / "ccp"
    names = [str(name[0]) for name in loadmat(src / "label_list.mat")["label_list"][0]]
    assert list(ccp.LABELS.names) == names
    prepared = prepare(ccp, src, square=False)
    assert counts(prepared) == [240, 30, 30]
    found = [prepared.counts(split) for split in prepared.splits]
    card = (Path(__file__).parents[1] / "datasets" / "ccp.md").read_text()
    listed = re.findall(r"\| (\d+) ([\w-]+) \| (\d+) \| (\d+) (?=\|)", card)
    assert len(listed) == 59
    for class_id, name, pixels, having in listed:
        assert ccp.LABELS.names[int(class_id)] == name
        assert sum(c.pixels[int(class_id)] for c in found) == int(pixels)
        assert sum(c.images[int(class_id)] for c in found) == int(having)
    assert f"{sum(c.total for c in found)} pixels" in card
    # Twelve masks as scipy reads them, without anything of ours between.
    for split in prepared.splits:
        for sample in prepared.samples(split)[:4]:
            path = src / "annotations" / "pixel-level" / f"{sample.id}.mat"
            label = loadmat(path)["groundtruth"]
            np.testing.assert_array_equal(read_label(sample.label), label)


# Cityscapes

# id -> trainId, as cityscapesScripts has it; every other id is not scored.
TRAIN_ID = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9}
TRAIN_ID |= {23: 10, 24: 11, 25: 12, 26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18}


def test_34_ids_of_cityscapes_of_which_19_are_scored(raw, prepare):
    expected = miniatures.cityscapes(raw)
    prepared = prepare(cityscapes, label_space="ids")
    assert prepared.dataset == "cityscapes34"
    assert prepared.splits == ("train", "val")  # test's labels are withheld
    assert prepared.sequences("train") == {}
    miniatures.assert_labels(prepared, expected)
    assert prepared.scored_ids == tuple(TRAIN_ID)
    prepared = prepare(cityscapes)
    assert (prepared.dataset, prepared.scored_ids) == ("cityscapes", None)


def test_test_images_of_cityscapes_are_prepared_without_labels_when_asked(raw, prepare):
    miniatures.cityscapes(raw)
    assert prepare(cityscapes).splits == ("train", "val")
    prepared = prepare(cityscapes, label_space="ids", test=True)
    assert prepared.splits == ("train", "val", "test")
    counts = prepared.counts("test")
    assert counts.ignored == counts.total == 2 * 32 * 64
    assert prepared.counts("val").pixels.sum() > 0


def test_label_spaces_of_cityscapes_follow_the_official_table():
    ids, train_ids = (cityscapes.LABELS[space] for space in ("ids", "train_ids"))
    assert (ids.num_classes, train_ids.num_classes) == (34, 19)
    for class_id in range(34):
        train_id = cityscapes.IDS["train_ids"][class_id]
        assert train_id == TRAIN_ID.get(class_id, 255)
        if train_id != 255:
            assert ids.names[class_id] == train_ids.names[train_id]
            assert ids.palette[class_id] == train_ids.palette[train_id]
    assert ids.names[18] == "polegroup"  # CITY Fig. 13: the rarest of the 34
    assert train_ids.palette[11] == (220, 20, 60)  # person
    assert train_ids.palette[18] == (119, 11, 32)  # bicycle


# PASCAL VOC

# As every VOC tool paints them.
PALETTE = (
    [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128)]
    + [(0, 128, 128), (128, 128, 128), (64, 0, 0), (192, 0, 0), (64, 128, 0)]
    + [(192, 128, 0), (64, 0, 128), (192, 0, 128), (64, 128, 128), (192, 128, 128)]
    + [(0, 64, 0), (128, 64, 0), (0, 192, 0), (128, 192, 0), (0, 64, 128)]
)


def test_palette_of_voc():
    assert list(voc.LABELS.palette) == PALETTE
    assert voc.LABELS.names[15] == "person"
    assert voc.palette(256)[255] == (224, 224, 192)  # VOC's void


@pytest.mark.parametrize("src", ["", "VOC2007"], ids=["devkit", "year"])
def test_palette_indices_of_voc_survive(src, raw, prepare):
    expected = miniatures.voc(raw)
    prepared = prepare(voc, raw / src)
    assert prepared.splits == ("train", "val", "test")
    assert prepared.image_size is None  # the sizes differ
    assert prepared.dataset == "voc2007"
    miniatures.assert_labels(prepared, expected)
    for sample in prepared.samples("train"):  # JPEGs are not encoded again
        path = raw / "VOC2007" / "JPEGImages" / f"{sample.id}.jpg"
        assert sample.image.read_bytes() == path.read_bytes()


def test_both_years_of_voc_need_a_choice(raw, prepare):
    for year in ("2007", "2012"):
        miniatures.voc(raw, year)
    for withheld in ("2012_000008", "2012_000009"):
        (raw / f"VOC2012/SegmentationClass/{withheld}.png").unlink()
    with pytest.raises(UsageError, match="has both years. Choose one with --year"):
        prepare(voc)
    prepared = prepare(voc, year="2012")
    assert prepared.splits == ("train", "val")
    assert prepared.dataset == "voc2012"
    assert prepared.samples("train")[0].id == "2012_000001"
