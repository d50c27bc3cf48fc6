"""What is told of a prepared folder: splits, classes without a pixel, doubts."""

import json
from dataclasses import replace

import miniatures
import numpy as np
import pytest
from PIL import Image

from keras_seg.data import folder
from keras_seg.data.prepared import open_prepared
from keras_seg.data.summary import scored_classes, summarise
from keras_seg.data.writer import NewSample, Options, write_prepared
from keras_seg.labels import LabelSpec

LABELS = LabelSpec(("bg", "cat", "dog", "ghost"), ((0, 0, 0),) * 4)


def publish(out, labels_by_split, ids=None):
    samples = [
        NewSample(
            split, f"{split}{k}", np.full((*label.shape, 3), 9 * k, np.uint8), label
        )
        for split, labels in labels_by_split.items()
        for k, label in enumerate(labels)
    ]
    samples = [replace(s, image=s.image + np.uint8(i)) for i, s in enumerate(samples)]
    return write_prepared(
        out, "tiny", LABELS, samples, lambda s: [s], Options(), {}, scored_ids=ids
    )[0]


def label(*values, size=(4, 5)):
    return np.resize(np.array(values, np.uint8), size)


def test_absent_classes_and_ignored_pixels_are_told(tmp_path):
    splits = {"train": [label(0, 1, 0, 1, 255)], "val": [label(0, 2, size=(6, 5))]}
    prepared = publish(tmp_path / "out", splits)
    summary = summarise(prepared)
    assert summary.lines == (
        "train: 1 image, 4 x 5 px, 20 % ignored",
        "val: 1 image, 6 x 5 px, 0 % ignored",
        "classes in train: bg 40 %, cat 40 %, dog 0 %, ghost 0 %",
    )
    assert summary.warnings == (
        "The classes dog, ghost have no pixel in train: no network can learn to find "
        "what it never saw.",
        "The classes cat, ghost have no pixel in val: scores there are means over 2 of "
        "4 classes.",
    )
    assert scored_classes(prepared, "val") == (2, 4)
    assert summary.text().count("\nwarning: ") == 2


def test_only_scored_classes_can_be_missing(tmp_path):
    splits = {"train": [label(0, 1)], "val": [label(0, 1)]}
    prepared = publish(tmp_path / "out", splits, ids=(0, 1))
    assert summarise(prepared).warnings == ()
    assert scored_classes(prepared, "val") == (2, 2)


def test_sizes_and_mostly_ignored_splits(tmp_path):
    splits = {
        "train": [label(0, 1, 2, 3), label(1, size=(8, 3))],
        "test": [label(0, 255, 255, 255)],
    }
    summary = summarise(publish(tmp_path / "out", splits))
    assert summary.lines[0] == "train: 2 images, 4-8 x 3-5 px, 0 % ignored"
    told = " ".join(summary.warnings)
    assert "75 % of the pixels of test are ignored." in told
    assert "There is no val split, which training needs." in told


@pytest.fixture
def raw(tmp_path):
    """Photographs with EXIF orientations 3 and 6 and 16-bit images, and a text file."""
    rng, place = np.random.default_rng(0), tmp_path / "raw"
    for number in range(10):
        mask = miniatures.blobs(rng, (8, 12), range(2))
        miniatures.save(mask, place / "labels" / f"{number}.png")
        photo, exif = Image.fromarray(miniatures.photo(rng, (8, 12))), Image.Exif()
        if number < 2:
            exif[274] = 3
        if number == 2:  # its mask is that of the stored picture
            exif[274] = 6
        if number == 3:
            deep = np.arange(96).reshape(8, 12).astype(np.uint16) * 10
            photo = Image.fromarray(deep)
        miniatures.save(photo, place / "images" / f"{number}.png", exif=exif)
    (place / "images" / "notes.txt").write_text("x")
    return place


def test_what_was_done_to_raw_files_is_told(raw, tmp_path):
    prepared, _ = folder.prepare(
        raw, tmp_path / "out", Options(), "a,b", range=(0, 950)
    )
    text = summarise(prepared).text()
    assert "16-bit images: 1, their levels 0 to 950 became 0 to 255\n" in text
    assert "turned by their EXIF orientation: 3 images; the masks of 1 too" in text
    assert "not used: 1 files beside the raw ones (1 .txt)" in text
    assert "warning: 2 images were turned by their EXIF orientation, and their" in text
    with Image.open(next((tmp_path / "out").glob("images/*/3.png"))) as image:
        expected = np.rint(np.arange(96).reshape(8, 12) * 10 * 255 / 950)
        np.testing.assert_array_equal(np.array(image)[..., 0], expected)


@pytest.mark.parametrize("exif", ["auto", "displayed", "stored", "ignore"])
def test_masks_belong_to_the_displayed_or_the_stored_picture(exif, tmp_path):
    """A half turn: both pictures have the same size."""
    label = np.zeros((8, 12), np.uint8)
    label[:3, :4] = 1
    colours = np.repeat(200 * label[..., None], 3, axis=2)
    for number in range(2):
        tag = Image.Exif()
        tag[274] = 3
        place = tmp_path / "raw" / "images" / f"{number}.png"
        miniatures.save(Image.fromarray(colours + np.uint8(number)), place, exif=tag)
        miniatures.save(label, tmp_path / "raw" / "labels" / f"{number}.png")
    prepared, _ = folder.prepare(
        tmp_path / "raw", tmp_path / "out", Options(), "a,b", exif=exif
    )
    sample = prepared.samples("train")[0]
    bright = np.array(Image.open(sample.image))[..., 0] > 100
    mask = np.array(Image.open(sample.label)) == 1
    np.testing.assert_array_equal(
        bright, label if exif == "ignore" else label[::-1, ::-1]
    )
    turned = exif == "stored"
    np.testing.assert_array_equal(mask, label[::-1, ::-1] if turned else label)
    told = " ".join(summarise(prepared).warnings)
    assert ("fit before as after" in told) == (exif == "auto")


def test_levels_are_measured_on_train_only(tmp_path):
    """10 of 10,000 pixels on either side do not count; val has others altogether."""
    levels = np.full(10_000, 500, np.uint16)
    levels[:10], levels[10:40], levels[-40:-10], levels[-10:] = 0, 300, 900, 60_000
    for split in ("train", "val"):
        pixels = levels.reshape(100, 100) if split == "train" else levels[::-1] // 9
        image = Image.fromarray(pixels.reshape(100, 100))
        miniatures.save(image, tmp_path / f"raw/images/{split}/a.png")
        mask = np.arange(10_000).reshape(100, 100) % 2
        miniatures.save(mask.astype(np.uint8), tmp_path / f"raw/labels/{split}/a.png")
    prepared, _ = folder.prepare(tmp_path / "raw", tmp_path / "out", Options(), "a,b")
    assert prepared.raw["levels"] == [300, 900]
    assert prepared.raw["levels_measured"] is True


def test_edited_notes_are_refused_by_name(raw, tmp_path):
    folder.prepare(raw, tmp_path / "out", Options(), "a,b")
    (tmp_path / "out" / "SHA256SUMS").unlink()
    path = tmp_path / "out" / "meta.json"
    whole = json.loads(path.read_text())
    for key, value in (
        *(("levels", [1]), ("levels", "x"), ("unused", [1]), ("unused", {"a": "b"})),
        *(("turned", -1), ("turned", None), ("found", "\x1b")),
    ):
        path.write_text(json.dumps(whole | {"raw": whole["raw"] | {key: value}}))
        with pytest.raises(Exception, match="meta.json is damaged .field raw"):
            open_prepared(tmp_path / "out")
