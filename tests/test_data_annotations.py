"""COCO, LabelMe and CVAT: shapes become labels; damaged files are named."""

import base64
import io
import json
import sys

import miniatures
import numpy as np
import pytest
from miniatures import assert_labels, labels_of
from PIL import Image

from keras_seg.data import folder
from keras_seg.data.folder import coco
from keras_seg.data.writer import Options
from keras_seg.errors import DataError, UsageError

SIZE = (12, 18)


def images(root, *names):
    rng = np.random.default_rng(0)
    for name in names:
        miniatures.save(miniatures.photo(rng, SIZE), root / name)


def prepare(tmp_path, classes=None, out="out", **settings):
    skip_bad = settings.pop("skip_bad", 0)
    options = Options(workers=1, skip_bad=skip_bad)
    return folder.prepare(
        tmp_path / "raw", tmp_path / out, options, classes, **settings
    )[0]


def box(top, left, bottom, right, value=1, label=None):
    label = np.zeros(SIZE, np.uint8) if label is None else label
    label[top:bottom, left:right] = value
    return label


# COCO


def corners(left, top, right, bottom):
    return [left, top, right, top, right, bottom, left, bottom]


def runs(inside):
    """Uncompressed run lengths: by columns, from a run of zeros."""
    flat = inside.T.reshape(-1).astype(int)
    changes = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *changes, flat.size]).tolist()
    return [0, *counts] if flat[0] else counts


def compressed(counts):
    """COCO's text for run lengths, by its definition (LEB128 of 5 bits + '0')."""
    text = ""
    for place, count in enumerate(counts):
        value = count - (counts[place - 2] if place > 2 else 0)
        while True:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            text += chr(48 + bits + 32 * more)
            if not more:
                break
    return text


BLOB = np.random.default_rng(3).random(SIZE) > 0.6


def coco_file(*annotations, **changes):
    """Four images; the categories are no contiguous ids, one has no shape."""
    rows = [
        {"id": k, "image_id": i, "category_id": c, "segmentation": s, "area": a}
        for k, (i, c, s, a) in enumerate(annotations)
    ]
    listed = [
        {"id": i, "file_name": f"im{i}.jpg", "height": SIZE[0], "width": SIZE[1]}
        for i in range(4)
    ]
    names = {7: "car", 3: "person", 9: "dog"}
    categories = [{"id": key, "name": name} for key, name in names.items()]
    whole = {"images": listed, "annotations": rows, "categories": categories}
    return json.dumps(whole | changes)


ROWS = (
    (0, 7, [corners(2, 3, 10, 9)], 48),
    (0, 3, [corners(4, 4, 6, 6)], 4),  # the smaller one is on top
    (1, 3, {"counts": runs(BLOB), "size": list(SIZE)}, 9),
    (2, 7, {"counts": compressed(runs(BLOB)), "size": list(SIZE)}, 9),
)
COCO = {
    "im0": box(4, 4, 6, 6, 1, box(3, 2, 9, 10, 2)),
    "im1": np.where(BLOB, 1, 0),
    "im2": np.where(BLOB, 2, 0),
    "im3": np.zeros(SIZE),
}


@pytest.fixture
def coco_folder(tmp_path):
    pytest.importorskip("pycocotools")
    raw = tmp_path / "raw"
    images(raw, *(f"images/im{k}.jpg" for k in range(4)))
    (raw / "annotations").mkdir()
    (raw / "annotations" / "instances.json").write_text(coco_file(*ROWS))
    return raw


def test_coco_polygons_and_run_lengths(coco_folder, tmp_path):
    prepared = prepare(tmp_path)
    # In the order of the category ids; those without a shape come last.
    assert prepared.labels.names == ("background", "person", "car", "dog")
    assert_labels(prepared, COCO)
    assert prepared.raw["found"] == "COCO annotations"
    named = prepare(tmp_path, "nothing,car,person,dog", out="two")
    swapped = {name: np.array([0, 2, 1])[ids.astype(int)] for name, ids in COCO.items()}
    assert_labels(named, swapped)


def test_coco_labels_are_mapped_and_ignored(coco_folder, tmp_path):
    prepared = prepare(tmp_path, map="person=living,dog=living", void="car")
    assert prepared.labels.names == ("background", "living")
    ids = np.array([0, 1, 255])
    assert_labels(prepared, {n: ids[x.astype(int)] for n, x in COCO.items()})
    with pytest.raises(DataError, match=r"person \(2 shapes\)|car \(2 shapes\)"):
        prepare(tmp_path, "bg,car", out="two")
    with pytest.raises(UsageError, match="--map 'cat=x' is not LABEL=CLASS of one of"):
        prepare(tmp_path, map="cat=x", out="two")


def test_classes_that_all_have_shapes_leave_the_rest_ignored(coco_folder, tmp_path):
    prepared = prepare(tmp_path, "person,car,dog", skip_bad=1)
    labels = {name: x for (_, name), x in labels_of(prepared).items()}
    expected = np.where(BLOB, 0, 255)
    np.testing.assert_array_equal(labels["im1"], expected)


def test_roboflow_and_coco_say_the_split(tmp_path):
    pytest.importorskip("pycocotools")
    raw = tmp_path / "raw"
    for split in ("train", "valid"):
        images(raw, *(f"{split}/im{k}.jpg" for k in range(4)))
        (raw / split / "_annotations.coco.json").write_text(coco_file(*ROWS))
    prepared = prepare(tmp_path)
    assert {s: len(prepared.samples(s)) for s in prepared.splits} == {
        "train": 4,
        "val": 4,
    }
    for split in ("train", "valid"):
        (raw / split).rename(raw / f"{split}2017")
        file = raw / f"{split}2017" / "_annotations.coco.json"
        (raw / "annotations").mkdir(exist_ok=True)
        file.rename(raw / "annotations" / f"instances_{split}2017.json")
    (raw / "valid2017").rename(raw / "val2017")
    (raw / "annotations" / "instances_valid2017.json").rename(
        raw / "annotations" / "instances_val2017.json"
    )
    again = prepare(tmp_path, out="two")
    assert labels_of(again).keys() == labels_of(prepared).keys()


DAMAGED = {
    "a polygon of 4 coordinates": (0, 7, [[1, 2, 3, 4]], 1),
    "a polygon far outside": (0, 7, [[1e9, 2, 3, 4, 5, 6]], 1),
    "run lengths that are not": (0, 7, {"counts": [5, 5], "size": [2, 5]}, 1),
    "run lengths that are not those": (0, 7, {"counts": [-1, 217], "size": [1, 1]}, 1),
    "run lengths that end too early": (0, 7, {"counts": "o", "size": list(SIZE)}, 1),
    "TypeError": (0, 7, {"counts": 5}, 1),
    "no segmentation, only a box": (0, 7, [], 1),
    "a category it does not list": (0, 1, [corners(1, 1, 5, 5)], 1),
    "an image it does not list": (9, 7, [corners(1, 1, 5, 5)], 1),
}


@pytest.mark.parametrize("reason", DAMAGED)
def test_damaged_coco_files_are_named(reason, coco_folder, tmp_path):
    path = coco_folder / "annotations" / "instances.json"
    path.write_text(coco_file(*ROWS[1:], DAMAGED[reason]))
    with pytest.raises(DataError, match=f"instances.json.*{reason}"):
        prepare(tmp_path, "bg,person,car,dog")


@pytest.mark.parametrize(
    "changes",
    [
        {"images": [{"id": 0}]},
        {"images": 5},
        {"annotations": [[]]},
        {"categories": [{"id": "x", "name": "y"}]},
        {"images": [{"id": 0, "file_name": "a.jpg", "height": 1e9, "width": 1}]},
        {"images": [{"id": 0, "file_name": "../a", "height": 9, "width": 9}]},
    ],
)
def test_coco_files_of_wrong_values_are_named(changes, coco_folder, tmp_path):
    path = coco_folder / "annotations" / "instances.json"
    path.write_text(coco_file(**changes))
    with pytest.raises(DataError, match="instances.json"):
        prepare(tmp_path, "bg,person,car,dog")


def test_coco_needs_its_extra(coco_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(UsageError, match=r"pip install 'keras_seg\[coco\]'"):
        prepare(tmp_path)


def test_run_lengths_of_pycocotools_are_understood():
    mask = pytest.importorskip("pycocotools.mask")
    for seed in range(5):
        inside = np.random.default_rng(seed).random((40, 70)) > 0.5
        inside[:, 20:60] = seed % 2
        text = mask.encode(np.asfortranarray(inside, np.uint8))["counts"].decode()
        assert coco._counts(text) == runs(inside)


# LabelMe


def labelme_file(name, *shapes, **changes):
    rows = [
        {"label": label, "points": points, "shape_type": kind}
        for label, points, kind in shapes
    ]
    whole = {"shapes": rows, "imagePath": name, "imageHeight": 12, "imageWidth": 18}
    return json.dumps(whole | changes)


RECTANGLE = ("car", [[2, 3], [9, 8]], "rectangle")
POLYGON = ("person", [[4, 4], [6, 4], [6, 6], [4, 6]], "polygon")
LINE = ("car", [[0, 0], [9, 9]], "line")


@pytest.fixture
def labelme_folder(tmp_path):
    raw = tmp_path / "raw"
    images(raw, "a.jpg", "b.jpg", "c.png")
    (raw / "a.json").write_text(labelme_file("a.jpg", RECTANGLE, POLYGON, LINE))
    (raw / "b.json").write_text(labelme_file("..\\imgs\\b.jpg"))
    inside = np.array([[1, 0, 1], [0, 1, 1]], bool)
    png = io.BytesIO()
    Image.fromarray(inside).save(png, "PNG")
    shape = {"label": "car", "points": [[5, 7], [7, 8]], "shape_type": "mask"}
    shape["mask"] = base64.b64encode(png.getvalue()).decode()
    (raw / "c.json").write_text(labelme_file("c.png", shapes=[shape]))
    return raw


def test_labelme_shapes(labelme_folder, tmp_path):
    prepared = prepare(tmp_path)
    assert prepared.labels.names == ("background", "car", "person")
    a = box(3, 2, 9, 10)  # LabelMe draws a shape's edge too
    c = np.zeros(SIZE, np.uint8)
    c[7:9, 5:8] = [[1, 0, 1], [0, 1, 1]]
    expected = {"a": box(4, 4, 7, 7, 2, a), "b": np.zeros(SIZE), "c": c}
    assert_labels(prepared, expected)
    assert prepared.raw["skipped_shapes"] == 1
    images(labelme_folder, "d.jpg")
    with pytest.raises(DataError, match="d.jpg has no JSON file.*--missing-mask"):
        prepare(tmp_path, out="two")
    two = prepare(tmp_path, out="two", missing_mask="person")
    found = {name: x for (_, name), x in labels_of(two).items()}
    np.testing.assert_array_equal(found["d"], np.full(SIZE, 2))


def test_labelme_circles_are_round(tmp_path):
    images(tmp_path / "raw", "a.jpg", "b.jpg")
    circle = ("o", [[9, 6], [9, 2]], "circle")
    for name in "ab":
        text = labelme_file(f"{name}.jpg", circle)
        (tmp_path / "raw" / f"{name}.json").write_text(text)
    (label, _) = labels_of(prepare(tmp_path)).values()
    y, x = np.mgrid[:12, :18]
    distance = np.hypot(y - 6, x - 9)
    assert (label[distance < 3.5] == 1).all()
    assert (label[distance > 5] == 0).all()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (labelme_file("a.jpg", ("x", [[1, 2]], "polygon")), "1 points, not 3"),
        (labelme_file("a.jpg", ("x", [[1, "y"]] * 3, "polygon")), "no LabelMe file"),
        (labelme_file("a.jpg", ("x", [[1, 1e30]] * 3, "polygon")), "no number of pix"),
        (labelme_file("a.jpg", ("x", [[1, 2]] * 3, "blob")), "unknown type 'blob'"),
        (labelme_file("a.jpg", shapes=[5]), "no LabelMe file"),
        (labelme_file("a.jpg", imageHeight=-1), "the size"),
        (labelme_file("a.jpg", RECTANGLE, imageHeight=24), "24 x 18 pixels, but its"),
        ("{", "is damaged"),
        ("[" * 99_999, "is damaged"),
    ],
)
def test_damaged_labelme_files_are_named(text, reason, labelme_folder, tmp_path):
    (labelme_folder / "a.json").write_text(text)
    with pytest.raises(DataError, match=rf"a.json.*{reason}"):
        prepare(tmp_path)


# YOLO


RIGHT = "0.5 0.25 1 0.25 1.0 0.75 0.5 0.75"  # of 18 x 12 px: 9, 3 to 18, 9
YAML = {
    "a list in a line": "nc: 2\nnames: ['car', \"person\"]  # of Roboflow\n",
    "a list": "names:\n- car\n- person # the driver\nroboflow:\n  license: CC\n",
    "numbers": "path: x\nnames:\n  0: car\n\n  1: person\nnc: 2\n",
    "numbers in a line": "names: {0: car, 1: person}\n",
}


@pytest.mark.parametrize("form", YAML)
@pytest.mark.parametrize("order", ["{}/{}", "{1}/{0}"])
def test_yolos_polygons(form, order, tmp_path):
    raw = tmp_path / "raw"
    for split, name in (("train", "a.jpg"), ("valid", "b.png"), ("valid", "c.jpg")):
        images(raw, f"{order.format(split, 'images')}/{name}")
        labels = raw / order.format(split, "labels")
        labels.mkdir(parents=True, exist_ok=True)
        text = f"1 0 0 1 0 1 1 0 1\n\n0 {RIGHT}\n" if name == "a.jpg" else ""
        (labels / name).with_suffix(".txt").write_text(text)
    (raw / "data.yaml").write_text(YAML[form])
    prepared = prepare(tmp_path)
    assert prepared.labels.names == ("background", "car", "person")
    a = box(3, 9, 10, 18, 1, np.full(SIZE, 2, np.uint8))  # later ones are on top
    empty = np.zeros(SIZE)
    expected = {("train", "a"): a, ("val", "b"): empty, ("val", "c"): empty}
    assert_labels(prepared, expected)
    assert prepared.raw["found"] == "YOLO annotations"
    images(raw, f"{order.format('train', 'images')}/d.jpg")
    with pytest.raises(DataError, match="d.jpg has no text file.*--missing-mask"):
        prepare(tmp_path, out="two")
    two = prepare(tmp_path, out="two", missing_mask="person")
    assert_labels(two, expected | {("train", "d"): np.full(SIZE, 2)})


def test_yolos_classes_without_names_are_mapped(tmp_path):
    """The text files are beside the images."""
    raw = tmp_path / "raw"
    images(raw, "a.jpg", "b.jpg")
    for name in "ab":
        (raw / f"{name}.txt").write_text(f"3 {RIGHT}\n")
    prepared = prepare(tmp_path, map="3=car")
    assert prepared.labels.names == ("background", "car")
    expected = box(3, 9, 10, 18)
    assert_labels(prepared, {"a": expected, "b": expected})
    (raw / "classes.txt").write_text("w\nx\ny\nz\n")
    assert prepare(tmp_path, out="two").labels.names[4] == "z"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0 0.5 0.5 0.1 0.1", "has a box, not a polygon"),
        ("0 0.5 0.5 0.1 0.1 0.2", "has 5 numbers behind its class"),
        ("0 0.5 0.5 0.1 0.1 0.2 12", "has a corner outside of the image"),
        ("0 0.5 0.5 0.1 0.1 0.2 nan", "has a corner outside of the image"),
        ("0 0.5 0.5 0.1 0.1 0.2 x", "is not a class and numbers"),
        (f"7 {RIGHT}", "has the class 7 of 2 names"),
    ],
)
def test_damaged_yolo_files_are_named(line, reason, tmp_path):
    raw = tmp_path / "raw"
    images(raw, "a.jpg", "b.jpg")
    (raw / "a.txt").write_text(f"0 {RIGHT}\n")
    (raw / "b.txt").write_text(f"0 {RIGHT}\n{line}\n")
    (raw / "data.yaml").write_text(YAML["a list"])
    with pytest.raises(DataError, match=f"b.txt, line 2, {reason}"):
        prepare(tmp_path)
    (raw / "data.yaml").write_text("names: &all\n")
    with pytest.raises(DataError, match="data.yaml has no names of classes"):
        prepare(tmp_path)


# CVAT


XML = """<?xml version="1.0"?><annotations><version>1.1</version>
<image id="0" name="a.jpg" subset="Train" width="18" height="12">
 <polygon label="car" points="2.0,3.0;9.0,3.0;9.0,8.0;2.0,8.0" z_order="1"/>
 <box label="person" xtl="0" ytl="0" xbr="17" ybr="11" z_order="0"/>
 <polyline label="car" points="1,1;2,2" z_order="3"/>
</image>
<image id="1" name="sub/b.jpg" subset="Validation" width="18" height="12">
 <mask label="car" left="5" top="7" width="3" height="2" rle="0,1,1,2,1,1"/>
</image></annotations>"""


def test_cvat_for_images(tmp_path):
    images(tmp_path / "raw", "images/a.jpg", "images/sub/b.jpg")
    (tmp_path / "raw" / "annotations.xml").write_text(XML)
    prepared = prepare(tmp_path)
    assert prepared.labels.names == ("background", "car", "person")
    b = np.zeros(SIZE, np.uint8)
    b[7:9, 5:8] = [[1, 0, 1], [1, 0, 1]]  # runs 0, 1, 1, 2, 1, 1 of the six pixels
    a = box(3, 2, 9, 10, 1, np.full(SIZE, 2, np.uint8))
    assert_labels(prepared, {("train", "a"): a, ("val", "b"): b})
    for old, new, reason in (
        ('rle="0,1,1,2,1,1"', 'rle="0,1"', "run lengths"),
        ('left="5"', 'left="17"', "not inside of the image"),
        ("<annotations>", "<annotations><!ENTITY", "defines entities"),
        ("</annotations>", "", "is damaged"),
        ('points="2.0,3.0;', 'points="x;', "no CVAT file"),
        ("<version>", '<track id="0"/><version>', "CVAT for video"),
    ):
        text = XML.replace(old, new)
        assert text != XML
        (tmp_path / "raw" / "annotations.xml").write_text(text)
        with pytest.raises(DataError, match=f"annotations.xml.*{reason}"):
            prepare(tmp_path, out="two")


def test_the_colours_of_cvats_masks_are_those_of_its_labelmap(tmp_path):
    raw, colours = tmp_path / "raw", [(0, 0, 0), (250, 50, 83), (61, 61, 245)]
    rng, expected = np.random.default_rng(1), {}
    images(raw, *(f"JPEGImages/im{k}.png" for k in range(4)))
    for number in range(4):
        ids = miniatures.blobs(rng, SIZE, range(3))
        rgb = np.array(colours, np.uint8)[ids]
        miniatures.save(rgb, raw / "SegmentationClass" / f"im{number}.png")
        expected[f"im{number}"] = ids
    (raw / "ImageSets" / "Segmentation").mkdir(parents=True)
    lists = raw / "ImageSets" / "Segmentation"
    (lists / "default.txt").write_text("im0\nim1\nim2\nim3\n")
    lines = ["# label:color_rgb:parts:actions", "background:0,0,0::"]
    lines += ["car:250,50,83::", "person:61,61,245::"]
    (raw / "labelmap.txt").write_text("\n".join(lines))
    prepared = prepare(tmp_path)
    assert prepared.labels.names == ("background", "car", "person")
    assert prepared.labels.palette == tuple(colours)
    assert_labels(prepared, expected)
    other = prepare(tmp_path, "background,person,car", out="two")
    swapped = np.array([0, 2, 1])
    assert_labels(other, {name: swapped[ids] for name, ids in expected.items()})
    with pytest.raises(
        UsageError, match="labelmap.txt has the classes background, car"
    ):
        prepare(tmp_path, "a,b,c", out="three")
    (raw / "labelmap.txt").write_text("car:250,50::")
    with pytest.raises(DataError, match="labelmap.txt has the line 'car:250,50::'"):
        prepare(tmp_path, out="three")


def test_roboflows_masks_have_their_classes_beside_them(tmp_path):
    raw, expected = tmp_path / "raw", {}
    for split in ("train", "valid"):
        images(raw, *(f"{split}/im{split}{k}.jpg" for k in range(2)))
        for number in range(2):
            ids = miniatures.blobs(np.random.default_rng(number), SIZE, range(3))
            name = f"im{split}{number}"
            miniatures.save(ids, raw / split / f"{name}_mask.png")
            expected[split.replace("valid", "val"), name] = ids
        text = "Pixel Value, Class\n0, background\n1, dog\n2, cat\n"
        (raw / split / "_classes.csv").write_text(text)
    prepared = prepare(tmp_path)
    assert prepared.labels.names == ("background", "dog", "cat")
    assert_labels(prepared, expected)
    # The file decides which value is which class, not the order of --classes.
    other = prepare(tmp_path, "background,cat,dog", out="two")
    swapped = np.array([0, 2, 1])
    assert_labels(other, {key: swapped[ids] for key, ids in expected.items()})
