"""Your own data: layouts, splits, masks of every kind, bad files by name."""

import os
import re
from collections import defaultdict
from pathlib import Path

import miniatures
import numpy as np
import pytest
from miniatures import assert_labels, labels_of
from PIL import Image

from keras_seg import storage
from keras_seg.data import folder
from keras_seg.data.writer import Options
from keras_seg.errors import DataError, UsageError

CLASSES = "sky,road,car"
MANY_CLASSES = ",".join(f"class {number}" for number in range(21))


def prepare(tmp_path, classes=CLASSES, out="out", options=None, **settings):
    return folder.prepare(
        tmp_path / "raw",
        tmp_path / out,
        options or Options(workers=1),
        classes,
        **settings,
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
        ({"palette": "000000,ff0000"}, "palette.* 2 colours for 3"),
        ({"palette": "000000,ff0000,red"}, "--palette red"),
        ({"palette": "000000,ff0000,ff0000"}, "--palette"),
        ({"void": "2"}, "--void 2 is the id of a class, car. Say with --map"),
        ({"void": "0"}, "--void 0 is the id of class sky: no mask has the id 3"),
        ({"void": "a"}, "--void a is not a colour as RRGGBB, nor a level"),
        ({"palette": "000000,ff0000,00ff00", "void": "ff0000"}, "--void ff0000"),
        ({"map": "0=sky,1"}, "--map '1' is not VALUE=CLASS"),
        ({"map": "0=sky,1=lake"}, "names the class lake, which --classes lacks"),
        ({"map": "0=sky,0=road"}, "gives the value 0 two meanings"),
        ({"map": "0-9=sky,9=car"}, "gives the value 9 two meanings"),
        ({"map": "65536=sky"}, "--map 65536 is not a colour"),
        ({"classes": None}, "Name the classes with --classes"),
        ({"tolerance": 256}, "--tolerance 256"),
        ({"val_share": 0.6, "test_share": 0.4}, "leave nothing for train"),
        ({"range": (9, 9)}, "--range 9 9"),
        ({"missing_mask": "lake"}, "--missing-mask lake is none of sky, road, car"),
        ({"images": "images"}, "--images and --labels go together"),
        ({"images": "images", "labels": "x"}, "--labels x is not a folder in --src"),
        ({"images": "images", "labels": "../raw"}, "--labels ../raw is not inside"),
        ({"flip_pairs": "sky:lake"}, "--flip-pairs sky:lake"),
        ({"group_by": "("}, "--group-by \\("),
        ({"group_by": "^frame"}, "--group-by .* matches nothing in seq0_frame0"),
        ({"group_by": "^seq"}, "puts all 10 images into one group, seq"),
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
    ("labels", png_of(np.full((16, 20), 3, "uint8")), "no class: 3 in 320 pixels"),
    ("labels", png_of(np.zeros((16, 19), "uint8")), "16 x 19 .*but its image"),
]


@pytest.mark.parametrize(("kind", "damage", "reason"), BAD)
def test_bad_files_refuse_the_whole_and_can_be_left_out(kind, damage, reason, tmp_path):
    miniatures.folder(tmp_path / "raw")
    damage(tmp_path / "raw" / kind / "seq1_frame4.png")
    with pytest.raises(DataError, match=f"(seq1_frame4|1 of 10 masks).*{reason}"):
        prepare(tmp_path)
    (line,) = storage.read_table(tmp_path / "out.rejected.csv")
    assert re.search(f"seq1_frame4.*{reason}", line["error"])
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
    with pytest.raises(DataError, match="leads out of --src|passwd, which .* not have"):
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


# What the values of masks mean


def write_masks(tmp_path, masks, raw="raw"):
    """Images of random pixels with these masks, arrays or pictures."""
    rng = np.random.default_rng(0)
    for number, mask in enumerate(masks):
        image = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
        photo = miniatures.photo(rng, image.size[::-1])
        miniatures.save(photo, tmp_path / raw / "images" / f"{number}.png")
        miniatures.save(image, tmp_path / raw / "labels" / f"{number}.png")


def ids_of(count=6, num_classes=2, ids=None):
    rng = np.random.default_rng(1)
    return [
        miniatures.blobs(rng, (8, 12), ids or range(num_classes)) for _ in range(count)
    ]


def assert_ids(prepared, expected):
    assert_labels(prepared, {f"{k}": ids for k, ids in enumerate(expected)})


def as_palette(levels):
    return Image.fromarray(levels).convert("P")


def as_rgb(levels):
    return np.repeat(levels[..., None], 3, axis=2)


@pytest.mark.parametrize("saved_as", [np.array, as_palette, as_rgb])
@pytest.mark.parametrize(
    "given",
    [{"map": "0=bg,255=obj"}, {"palette": "000000,ffffff"}],
    ids=["map", "palette"],
)
def test_black_and_white_masks(saved_as, given, tmp_path):
    ids = ids_of()
    write_masks(tmp_path, [saved_as(255 * x) for x in ids])
    assert_ids(prepare(tmp_path, "bg,obj", **given), ids)


def test_black_and_white_without_a_word_is_refused(tmp_path):
    write_masks(tmp_path, [255 * x for x in ids_of()])
    with pytest.raises(DataError, match="obj would never occur.*--map 0=bg,255=obj"):
        prepare(tmp_path, "bg,obj")


def test_ids_from_one(tmp_path):
    ids = ids_of(num_classes=4)
    write_masks(tmp_path, ids)
    with pytest.raises(DataError, match=r"no class: 3 in .*--void 0 where ids begin"):
        prepare(tmp_path)
    expected = [np.where(x == 0, 255, x - 1).astype(np.uint8) for x in ids]
    assert_ids(prepare(tmp_path, void="0"), expected)
    by_map = prepare(tmp_path, out="two", map="1=sky,2=road,3=car", void="0")
    assert_ids(by_map, expected)


def test_levels_of_several_values_to_one_class(tmp_path):
    ids = ids_of(num_classes=6)
    write_masks(tmp_path, [40 * x for x in ids])
    mapped = prepare(tmp_path, None, map="0=a,40-100=b,120=a,160=c", void="200")
    assert mapped.labels.names == ("a", "b", "c")
    table = np.array([0, 1, 1, 0, 2, 255], np.uint8)
    assert_ids(mapped, [table[x] for x in ids])
    rest = prepare(tmp_path, None, "two", map="0=a,others=b")
    assert_ids(rest, [(x > 0).astype(np.uint8) for x in ids])
    void = prepare(tmp_path, None, "three", map="0=a,40=b", void="others")
    assert_ids(void, [np.where(x > 1, 255, x) for x in ids])


def test_spread_levels_are_suggested_as_a_map(tmp_path):
    write_masks(tmp_path, [100 * x for x in ids_of(num_classes=3)])
    with pytest.raises(DataError, match="--map 0=sky,100=road,200=car") as caught:
        prepare(tmp_path)
    assert "6 of 6 masks have values of no class: " in str(caught.value)
    values = np.concatenate(ids_of(num_classes=3))
    for value in (1, 2):  # all of them, with their pixels
        count = np.count_nonzero(values == value)
        assert f"{100 * value} in {count} pixels" in str(caught.value)


def test_16_bit_levels_are_mapped(tmp_path):
    ids = ids_of()
    write_masks(tmp_path, [x.astype(np.uint16) * 40_000 for x in ids])
    assert_ids(prepare(tmp_path, None, map="0=bg,40000=obj"), ids)


def test_colours_to_names_give_the_palette(tmp_path):
    ids, colours = ids_of(num_classes=3), np.array([[9, 0, 0], [0, 9, 0], [0, 0, 9]])
    write_masks(tmp_path, [colours.astype(np.uint8)[x] for x in ids])
    prepared = prepare(tmp_path, None, map="#090000=a,000900=b,000009=a")
    assert prepared.labels.palette == ((9, 0, 0), (0, 9, 0))
    assert_ids(prepared, [np.array([0, 1, 0])[x] for x in ids])


def test_grey_ids_beside_a_palette_for_pictures(tmp_path):
    """Where ids and greys could both be meant, the user is asked."""
    ids = ids_of(num_classes=3)
    write_masks(tmp_path, ids)
    prepared = prepare(tmp_path, palette="4682b4,804080,00008e")
    assert prepared.labels.palette[0] == (0x46, 0x82, 0xB4)
    assert_ids(prepared, ids)
    with pytest.raises(UsageError, match="ids of classes or the greys of --palette"):
        prepare(tmp_path, out="two", palette="020202,010101,000000")


def test_blurred_edges(tmp_path):
    large = [x.repeat(4, 0).repeat(4, 1) for x in ids_of()]
    red = [np.stack([255 * x, 0 * x, 0 * x], -1) for x in large]
    blurred = [Image.fromarray(x).resize((12, 8), Image.Resampling.BOX) for x in red]
    sharp = [x.resize((11, 7), Image.Resampling.BILINEAR) for x in blurred]
    write_masks(tmp_path, sharp)
    given = {"classes": "bg,obj", "palette": "000000,ff0000"}
    with pytest.raises(DataError) as caught:
        prepare(tmp_path, **given)
    option = re.search(r"--tolerance (\d+) for the nearest class", str(caught.value))
    tolerance = int(option[1])
    expected = [(np.array(x)[..., 0] > 127).astype(np.uint8) for x in sharp]
    assert_ids(prepare(tmp_path, tolerance=tolerance, **given), expected)
    void = prepare(tmp_path, out="two", void="others", **given)
    levels = [np.array(x)[..., 0] for x in sharp]
    edge = [np.where((x > 0) & (x < 255), 255, x // 255) for x in levels]
    assert_ids(void, edge)


def test_jpeg_masks_need_a_tolerance(tmp_path):
    ids = [x.repeat(4, 0).repeat(4, 1) for x in ids_of()]
    write_masks(tmp_path, ids)
    for number, x in enumerate(ids):
        path = tmp_path / "raw" / "labels" / f"{number}.png"
        path.unlink()
        miniatures.save(255 * x, path.with_suffix(".jpg"), quality=95)
    given = {"classes": "bg,obj", "map": "0=bg,255=obj"}
    with pytest.raises(DataError, match="0.jpg is a JPEG mask .* --tolerance 64"):
        prepare(tmp_path, **given)
    assert_ids(prepare(tmp_path, tolerance=64, **given), ids)


def test_shapes_in_the_alpha_channel(tmp_path):
    ids = ids_of()
    masks = [np.dstack([0 * x, 7 + 0 * x, 0 * x, 255 * x]) for x in ids]
    write_masks(tmp_path, masks)
    given = {"mask_channel": "alpha", "map": "0=bg,255=obj"}
    assert_ids(prepare(tmp_path, None, **given), ids)
    with pytest.raises(DataError, match="--mask-channel alpha"):
        prepare(tmp_path, "bg,obj", out="two")


def test_all_pixels_ignored_is_refused(tmp_path):
    write_masks(tmp_path, [np.full((8, 12), 255, np.uint8)] * 4)
    with pytest.raises(DataError, match="No pixel of split train is labelled|all are"):
        prepare(tmp_path)
    assert not (tmp_path / "out").exists()
