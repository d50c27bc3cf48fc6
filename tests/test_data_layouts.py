"""Folders, names and lists as people have them: pairs are found, or choices named."""

import os
import unicodedata

import miniatures
import numpy as np
import pytest
from miniatures import labels_of
from PIL import Image

from keras_seg.data import folder
from keras_seg.data.writer import Options
from keras_seg.errors import DataError, UsageError

SIZE = (6, 9)


def disc(number):
    """A label whose number of object pixels tells which one it is."""
    label = np.zeros(SIZE, np.uint8)
    label.reshape(-1)[: number + 5] = 1
    return label


def write(root, image, mask, count=6, each=disc):
    """Images and masks at patterns with the number for {}."""
    rng = np.random.default_rng(0)
    for number in range(count):
        if image:
            photo = miniatures.photo(rng, SIZE)
            miniatures.save(photo, root / image.format(number))
        if mask:
            miniatures.save(each(number), root / mask.format(number))


def prepare(tmp_path, classes="bg,obj", raw="raw", out="out", **settings):
    options = Options(workers=1, skip_bad=settings.pop("skip_bad", 0))
    return folder.prepare(tmp_path / raw, tmp_path / out, options, classes, **settings)[
        0
    ]


def assert_pairs(prepared, count=6, splits=None):
    """Every image has its own mask: that of the number in its name."""
    labels = labels_of(prepared)
    assert len(labels) == count
    for (_, name), label in labels.items():
        number = int("".join(c for c in name if c.isdigit())[-1])
        np.testing.assert_array_equal(label, disc(number), name)
    if splits:
        assert {s: len(prepared.samples(s)) for s in prepared.splits} == splits


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        *(("images", "masks"), ("Images", "Labels"), ("IMG", "GT"), ("imgs", "ann")),
        *(("data/img", "data/ann"), ("img_dir", "ann_dir"), ("image", "annotations")),
        ("JPEGImages", "SegmentationClassPNG"),
    ],
)
def test_common_folder_pairs_are_found(images, masks, tmp_path):
    write(tmp_path / "raw", images + "/im{}.jpg", masks + "/im{}.png")
    prepared = prepare(tmp_path)
    assert_pairs(prepared)
    assert prepared.raw["found"] == f"{images} and {masks}"


@pytest.mark.parametrize("mask", ["im{}_mask", "im{}.jpg", "mask_im{}", "im{}_gt_ids"])
def test_what_masks_have_around_the_name_is_found_out(mask, tmp_path):
    write(tmp_path / "raw", "images/im{}.jpg", f"labels/{mask}.png", 12, disc_of_digit)
    prepared = prepare(tmp_path)
    assert_pairs(prepared, 12)
    assert f"masks {mask.replace('im{}', 'NAME')} of" in prepared.raw["found"]


def disc_of_digit(number):
    return disc(number % 10)


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/im{}_photo", "labels/im{}_label"),
        ("images/img_{}", "labels/mask_{}"),
        ("images/image{} (raw)", "labels/label{}"),
    ],
)
def test_what_images_and_masks_both_have_around_the_name_is_found_out(
    image, mask, tmp_path
):
    write(tmp_path / "raw", f"{image}.jpg", f"{mask}.png", 12, disc_of_digit)
    assert_pairs(prepare(tmp_path), 12)
    next((tmp_path / "raw" / "labels").glob("*7*")).unlink()
    with pytest.raises(DataError, match="--label-suffix, --label-prefix, --image-suff"):
        prepare(tmp_path, out="two")


def test_several_masks_of_an_image_are_a_choice(tmp_path):
    write(tmp_path / "raw", "images/im{}_left.jpg", "labels/im{}_ids.png")
    write(tmp_path / "raw", "", "labels/im{}_color.png", each=lambda n: disc(n) * 9)
    with pytest.raises(DataError, match="--label-suffix, --label-prefix, --image-suff"):
        prepare(tmp_path)
    affixes = {"image_suffix": "_left", "label_suffix": "_ids"}
    assert_pairs(prepare(tmp_path, **affixes))
    write(tmp_path / "raw2", "images/im{}.jpg", "labels/im{}_ids.png")
    write(tmp_path / "raw2", "", "labels/im{}_color.png")
    with pytest.raises(
        DataError, match="NAME_color, NAME_ids. Choose one with --label-"
    ):
        prepare(tmp_path, raw="raw2", out="two")
    two = prepare(tmp_path, raw="raw2", out="two", label_suffix="_ids")
    assert_pairs(two)
    assert two.raw["unused"] == {".png": 6}


@pytest.mark.parametrize("given", [{}, {"label_suffix": "_mask"}])
def test_images_and_masks_in_one_folder(given, tmp_path):
    write(tmp_path / "raw", "im{}.jpg", "im{}_mask.png", 12, disc_of_digit)
    assert_pairs(prepare(tmp_path, **given), 12)


def test_a_photograph_and_its_mask_may_have_one_name(tmp_path):
    raw = tmp_path / "raw"
    write(raw, "im{}.jpg", "im{}.png")
    (tmp_path / "train.txt").write_text("beside --src, not in it")
    assert_pairs(prepare(tmp_path))
    (raw / "val.txt").write_text("im4.jpg\nim5.jpg")
    (raw / "train.txt").write_text("im0\nim1\nim2\nim3")
    assert_pairs(prepare(tmp_path, out="listed"), 6, SPLITS)
    (raw / "train.txt").unlink()
    (raw / "val.txt").unlink()
    for split in ("train", "val"):
        write(tmp_path / "raw2", f"{split}/im{{}}.JPEG", f"{split}/im{{}}.png")
    splits = {"train": 6, "val": 6}
    assert_pairs(prepare(tmp_path, raw="raw2", out="two"), 12, splits)
    write(raw, "im1{}.jpg", "im1{}.png", 14)
    (raw / "im3.png").unlink()
    with pytest.raises(DataError, match="im3.jpg has no mask of its name"):
        prepare(tmp_path, out="three")


def test_named_folders_are_used(tmp_path):
    write(tmp_path / "raw", "a/x/im{}.png", "b/im{}_m.png")
    settings = {"images": "a/x", "labels": "b", "label_suffix": "_m"}
    assert_pairs(prepare(tmp_path, **settings))
    write(tmp_path / "raw2", "images/im{}.png", "labels/im{}.png")
    write(tmp_path / "raw2", "", "masks/im{}.png")
    with pytest.raises(DataError, match="several folders for masks: labels, masks"):
        prepare(tmp_path, raw="raw2", out="two")
    chosen = {"images": "images", "labels": "masks"}
    assert_pairs(prepare(tmp_path, raw="raw2", out="two", **chosen))


def test_unknown_folders_are_listed(tmp_path):
    write(tmp_path / "raw", "left/im{}.png", "right/im{}.png")
    with pytest.raises(DataError, match="it has left, right. Name them with --images"):
        prepare(tmp_path)


def test_labels_that_are_no_masks_are_named(tmp_path):
    write(tmp_path / "raw", "images/im{}.png", "")
    (tmp_path / "raw" / "labels").mkdir()
    (tmp_path / "raw" / "labels" / "im0.txt").write_text("0 0.5 0.5 0.1 0.1")
    with pytest.raises(DataError, match="im0.txt, line 1, has a box, not a polygon"):
        prepare(tmp_path)
    (tmp_path / "raw" / "labels" / "im0.txt").write_text("a note")
    with pytest.raises(DataError, match="labels has no masks but .txt files. Name the"):
        prepare(tmp_path)


SPLITS = {"train": 4, "val": 2}


@pytest.mark.parametrize(
    ("train", "val"),
    [("train", "val"), ("Training", "Validation"), ("TRAIN", "valid"), ("t_", "")],
)
@pytest.mark.parametrize("order", ["images/{}", "{}/images", "{}"])
def test_splits_of_folders_are_kept_in_any_case(train, val, order, tmp_path):
    train, val = (train, val) if val else ("train_set", "dev")
    for split, numbers in ((train, range(4)), (val, range(4, 6))):
        place = order.format(split)
        masks = place.replace("images", "labels")
        suffix = "" if "images" in place else "_mask"
        for number in numbers:
            photo = miniatures.photo(np.random.default_rng(number), SIZE)
            miniatures.save(photo, tmp_path / "raw" / place / f"im{number}.png")
            mask = tmp_path / "raw" / masks / f"im{number}{suffix}.png"
            miniatures.save(disc(number), mask)
    assert_pairs(prepare(tmp_path), 6, SPLITS)


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        *(("{}_images", "{}_masks"), ("images-{}", "labels-{}"), ("{}", "{}annot")),
        *(("X_{}", "y_{}"), ("data/{} Photos", "data/{} GT"), ("{}", "{}_labels")),
    ],
)
def test_folders_named_after_split_and_content_are_pairs(images, masks, tmp_path):
    for split, count in (("train", 4), ("val", 2)):
        pair = (f"{one.format(split)}/im{{}}" for one in (images, masks))
        image, mask = pair
        write(tmp_path / "raw", f"{image}.jpg", f"{mask}.png", count)
    prepared = prepare(tmp_path)
    assert_pairs(prepared, 6, SPLITS)
    write(
        tmp_path / "raw",
        "data/training_images/im{}.png"
        if "/" in images
        else "training_images/im{}.png",
        "",
    )
    with pytest.raises(DataError, match="are both images of the split train"):
        prepare(tmp_path, out="two")


def test_splits_may_share_a_folder_of_masks(tmp_path):
    write(tmp_path / "raw", "", "masks/im{}.png")
    rng = np.random.default_rng(0)
    for number in range(6):
        place = tmp_path / "raw/images" / ("train" if number < 4 else "val")
        miniatures.save(miniatures.photo(rng, SIZE), place / f"im{number}.jpg")
    assert_pairs(prepare(tmp_path), 6, SPLITS)
    miniatures.save(disc(1), tmp_path / "raw/masks/other.png")
    with pytest.raises(DataError, match="other.png has no image of its name"):
        prepare(tmp_path, out="two")


def test_names_that_look_like_splits_are_refused(tmp_path):
    for split in ("fold1", "fold2"):
        write(
            tmp_path / "raw", f"images/{split}/im{{}}.png", f"labels/{split}/im{{}}.png"
        )
    with pytest.raises(DataError, match="fold1 may be a split of its own"):
        prepare(tmp_path)


def test_train_alone_gives_up_some_for_val_and_says_so(tmp_path):
    write(tmp_path / "raw", "images/train/im{}.png", "labels/train/im{}.png")
    prepared = prepare(tmp_path)
    assert_pairs(prepared, 6, {"train": 5, "val": 1})
    assert prepared.raw["val_from_train"] == 1
    more = prepare(tmp_path, out="more", val_share=0.5)
    assert_pairs(more, 6, {"train": 3, "val": 3})
    none = prepare(tmp_path, out="none", val_share=0.0)
    assert_pairs(none, 6, {"train": 6})


def test_train_beside_test_is_never_divided_unasked(tmp_path):
    for split in ("train", "test"):
        write(
            tmp_path / "raw", f"images/{split}/im{{}}.png", f"labels/{split}/im{{}}.png"
        )
    with pytest.raises(DataError, match="no val split, only test, train.* --val-share"):
        prepare(tmp_path)
    divided = prepare(tmp_path, val_share=0.5)
    assert [len(divided.samples(s)) for s in divided.splits] == [3, 3, 6]
    kept = {name for split, name in labels_of(divided) if split == "test"}
    assert kept == {f"im{k}" for k in range(6)}
    with pytest.raises(UsageError, match="leave out --val-share and --test-share"):
        prepare(tmp_path, out="x", test_share=0.1)


def test_one_image_is_train_and_val(tmp_path):
    write(tmp_path / "raw", "images/im{}.png", "labels/im{}.png", 1)
    prepared = prepare(tmp_path)
    assert labels_of(prepared).keys() == {("train", "im0"), ("val", "im0")}


# Lists


IDS = [f"im{k}" for k in range(6)]
LINES = {
    "names": "{}",
    "extensions": "{}.jpg",
    "paths": "images/{}.jpg",
    "absolute paths": "/home/somebody/mine/images/{}.jpg",
    "back slashes": ".\\images\\{}.jpg",
    "from its own folder": "../images/{}.jpg",
    "quotes": '"images/{}.jpg"',
    "pairs in quotes": "'images/{0}.jpg' 'labels/{0}.png'",
    "pairs": "images/{0}.jpg labels/{0}.png",
    "pairs with commas": "images/{0}.jpg, labels/{0}.png",
    "pairs with tabs": "{0}.jpg\t{0}.png",
}
ENCODINGS = {"utf-8": "\n", "utf-8-sig": "\r\n", "utf-16": "\r\n"}


@pytest.mark.parametrize("form", LINES)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_lists_of_every_form_and_encoding(form, encoding, tmp_path):
    raw = tmp_path / "raw"
    write(raw, "images/im{}.jpg", "labels/im{}.png")
    for name, ids in (("Train", IDS[:4]), ("validation", IDS[4:])):
        text = ENCODINGS[encoding].join(LINES[form].format(x) for x in ids)
        (raw / f"{name}.txt").write_bytes(text.encode(encoding))
    prepared = prepare(tmp_path)
    assert_pairs(prepared, 6, SPLITS)
    assert "listed in Train.txt, validation.txt" in prepared.raw["found"]


TABLES = {
    "pairs": ("", "images/{0}.jpg,labels/{0}.png"),
    "columns with names": ("mask;image", "labels/{0}.png;{0}.jpg"),
    "names alone": ("file\ttaken by", '"{0}.jpg"\tme'),
}


@pytest.mark.parametrize("form", TABLES)
@pytest.mark.parametrize("splits", ["a table each", "a column"])
def test_tables_give_splits_and_pairs(form, splits, tmp_path):
    """They are never overlooked, and the images shuffled instead."""
    raw = tmp_path / "raw"
    write(raw, "images/im{}.jpg", "labels/im{}.png")
    header, line = TABLES[form]
    between = max(",;\t", key=line.count)
    if splits == "a column":
        rows = [f"{header or 'image,mask'}{between}Set"]
        for split, ids in (("training", IDS[:4]), ("VAL", IDS[4:])):
            rows += [f"{line.format(x)}{between}{split}" for x in ids]
        (raw / "files.csv").write_text("\r\n".join(rows))
    else:
        for name, ids in (("train.tsv", IDS[:4]), ("val.CSV", IDS[4:])):
            rows = [header, *(line.format(x) for x in ids)]
            (raw / name).write_text("\n".join(rows))
    (raw / "notes.csv").write_bytes(b'sp\xe9cial\n"\n')
    prepared = prepare(tmp_path)
    assert_pairs(prepared, 6, SPLITS)
    assert "listed in " in prepared.raw["found"]


def test_tables_that_are_wrong_say_why(tmp_path):
    raw = tmp_path / "raw"
    write(raw, "images/im{}.jpg", "labels/im{}.png")
    rows = [f"im{k}.jpg,{'train' if k < 5 else 'fold 2'}" for k in range(6)]
    (raw / "all.csv").write_text("\n".join(["image,split", *rows]))
    with pytest.raises(DataError, match="all.csv, line 7, has the split 'fold 2'. Na"):
        prepare(tmp_path)
    (raw / "all.csv").write_text("image,split\n")
    with pytest.raises(DataError, match="all.csv lists no samples"):
        prepare(tmp_path)


def test_a_list_pairs_names_that_differ(tmp_path):
    raw = tmp_path / "raw"
    write(raw, "images/im{}.jpg", "labels/other{}.png")
    for split, ids in (("train", range(4)), ("val", range(4, 6))):
        lines = [f"images/im{k}.jpg labels/other{k}.png" for k in ids]
        (raw / f"{split}.txt").write_text("\n".join(lines))
    assert_pairs(prepare(tmp_path), 6, SPLITS)


def test_lists_that_are_wrong_say_why(tmp_path):
    raw = tmp_path / "raw"
    write(raw, "images/im{}.jpg", "labels/im{}.png")
    (raw / "train.txt").write_text("".join(f"{x}  1\n" for x in IDS))
    with pytest.raises(DataError, match=r"flags \(1, 0, -1\) behind its names"):
        prepare(tmp_path)
    (raw / "train.txt").write_text("im0\nim1\nim77\n")
    (raw / "val.txt").write_text("im2\n")
    with pytest.raises(DataError, match="train.txt lists im77, which .* does not have"):
        prepare(tmp_path)
    (raw / "train.txt").write_bytes("im0\nim\u00fc\n".encode("latin-1"))
    with pytest.raises(DataError, match="train.txt is not text in UTF-8. Save it as"):
        prepare(tmp_path)
    (raw / "train.txt").unlink()
    (raw / "val.txt").rename(raw / "fold1.txt")
    with pytest.raises(DataError, match="fold1.txt may list a split. Name the lists"):
        prepare(tmp_path)


# Names


def test_names_are_equal_in_any_unicode_form(tmp_path):
    raw = tmp_path / "raw"
    for number in range(3):
        name = f"Stra\u00dfe \u00fc{number}"
        photo = miniatures.photo(np.random.default_rng(number), SIZE)
        apart = unicodedata.normalize("NFD", name)
        miniatures.save(photo, raw / "images" / f"{apart}.png")
        miniatures.save(disc(number), raw / "labels" / f"{name}.png")
    (raw / "train.txt").write_text(f"Stra\u00dfe \u00fc0\n{apart[:-1]}1\n")
    (raw / "val.txt").write_text(f"{name}\n")
    prepared = prepare(tmp_path)
    assert_pairs(prepared, 3, {"train": 2, "val": 1})
    assert all(
        unicodedata.is_normalized("NFC", name) for _, name in labels_of(prepared)
    )


def test_system_files_and_descriptions_are_left_out_and_counted(tmp_path):
    raw = tmp_path / "raw"
    write(raw, "images/im{}.JPG", "labels/im{}.PNG")
    clean = labels_of(prepare(tmp_path))
    for name in ("Thumbs.db", "desktop.ini", "im0.json", "im1.json", ".DS_Store"):
        (raw / "images" / name).write_bytes(b"junk")
    (raw / "labels" / "classes.txt").write_text("bg\nobj\n")
    prepared = prepare(tmp_path, out="two")
    assert labels_of(prepared).keys() == clean.keys()  # the same split
    assert prepared.raw["unused"] == {
        **{".DS_Store": 1, ".db": 1, ".ini": 1, ".json": 2, ".txt": 1},
    }


def test_folders_of_operating_systems_and_servers_are_none_of_the_users(tmp_path):
    raw = tmp_path / "raw"
    write(raw, "mine/images/im{}.jpg", "mine/labels/im{}.png")
    write(raw, "mine/images/@eaDir/im{}.jpg/THUMB.jpg", "")
    write(raw, "mine/images/.ipynb_checkpoints/im{}-checkpoint.jpg", "")
    for name in ("__MACOSX/mine/images/._im0.jpg", "mine/labels/__MACOSX/im0.png"):
        (raw / name).parent.mkdir(parents=True)
        (raw / name).write_bytes(b"\0\5\x16\7")
    assert_pairs(prepare(tmp_path))


def test_pictures_that_cannot_be_read_are_not_left_out(tmp_path):
    raw = tmp_path / "raw"
    write(raw, "images/im{}.jpg", "labels/im{}.png")
    (raw / "images" / "im0.jpg").rename(raw / "images" / "im0.heic")
    (raw / "images" / "im0.heic").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 30)
    with pytest.raises(DataError, match="im0.heic is a HEIC picture. Convert it"):
        prepare(tmp_path)


def test_nested_names_that_are_too_long_or_collide_stay_apart(tmp_path):
    raw, deep = tmp_path / "raw", "/".join(["a" * 60] * 5)
    for number, place in enumerate(
        (f"{deep}/x0", f"{deep[:-1]}b/x1", "a/b_2", "a_b/2")
    ):
        photo = miniatures.photo(np.random.default_rng(number), SIZE)
        miniatures.save(photo, raw / f"images/{place}.png")
        miniatures.save(disc(number), raw / f"labels/{place}.png")
    prepared = prepare(tmp_path)
    found = labels_of(prepared)
    assert len({name for _, name in found}) == 4
    assert all(len(name.encode()) <= 200 for _, name in found)
    areas = sorted(int(label.sum()) for label in found.values())
    assert areas == [5, 6, 7, 8]


def test_links_are_followed_if_asked(tmp_path):
    disk, raw = tmp_path / "disk", tmp_path / "raw"
    write(disk, "images/im{}.png", "labels/im{}.png")
    raw.mkdir()
    for kind in ("images", "labels"):
        (raw / kind).symlink_to(disk / kind)
    with pytest.raises(DataError, match="leads out of --src. .*--follow-links"):
        prepare(tmp_path)
    assert_pairs(prepare(tmp_path, follow_links=True))
    for kind in ("images", "labels"):
        (raw / kind).unlink()
        (raw / kind).mkdir()
        (raw / kind / "more").symlink_to(disk / kind)
        (raw / kind / "circle").symlink_to(raw / kind)
    with pytest.raises(DataError, match="is not followed. Own data: --follow-links"):
        prepare(tmp_path, out="two")
    assert_pairs(prepare(tmp_path, out="two", follow_links=True))
    os.unlink(disk / "images" / "im0.png")
    (raw / "images" / "im0.png").symlink_to(disk / "none.png")


def test_images_without_a_mask_are_of_one_class_if_asked(tmp_path):
    raw = tmp_path / "raw"
    write(raw, "images/im{}.png", "labels/im{}.png")
    for number in (1, 4):
        (raw / "labels" / f"im{number}.png").unlink()
    with pytest.raises(DataError, match="im1.png has no mask .* --missing-mask CLASS"):
        prepare(tmp_path)
    for given in ("obj", "1"):
        prepared = prepare(tmp_path, out=given, missing_mask=given)
        found = {name: label for (_, name), label in labels_of(prepared).items()}
        for number in range(6):
            expected = disc(number) if number not in (1, 4) else np.ones(SIZE)
            np.testing.assert_array_equal(found[f"im{number}"], expected)
        assert prepared.raw["without_mask"] == 2


@pytest.mark.parametrize("form", ["{1}/im{0}.png", "im{0}/{1}.png", "im{0}_{1}.png"])
def test_one_mask_per_class(form, tmp_path):
    raw = tmp_path / "raw"
    write(raw, "images/im{}.png", "")
    for number in range(6):
        road, car = disc(number), np.zeros(SIZE, np.uint8)
        car[-1] = 1
        car[0, 0] = 1  # on the road
        for name, mask in (("Road", road), ("car", car)):
            path = raw / "labels" / form.format(number, name)
            miniatures.save(mask * 255, path)
    prepared = prepare(tmp_path, "bg,road,car")
    for (_, name), label in labels_of(prepared).items():
        expected = disc(int(name[2:]))
        expected[-1] = 2
        expected[0, 0] = 2
        np.testing.assert_array_equal(label, expected)
    assert "one mask per class" in prepared.raw["found"]
    image = Image.fromarray(np.zeros((3, 3), np.uint8))
    image.save(raw / "labels" / form.format(0, "car"))
    with pytest.raises(DataError, match="has another size than the other masks"):
        prepare(tmp_path, "bg,road,car", out="two")
