"""Readers of files: whatever the bytes are, they are accepted or a named error.

Hypothesis changes good files, by bytes or by values; its choices are the same in every
run. `make test-all` tries many more of them.
"""

import contextlib
import csv
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import miniatures
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat

from keras_seg import config, storage
from keras_seg.ablation import task
from keras_seg.data import images, matlab, prepared
from keras_seg.data.folder import annotations, coco, cvat, labelme
from keras_seg.data.verify import verify
from keras_seg.data.writer import NewSample, Options, write_prepared
from keras_seg.errors import KerasSegError, UsageError
from keras_seg.labels import LabelSpec
from keras_seg.runs import checkpoint
from keras_seg.runs import folder as run_folder

SECONDS = 10  # for one file, on a busy machine
FEW, MANY = 40, 700  # files per case; the many are for make test-all


class Case(NamedTuple):
    """One kind of file."""

    make: Callable[[Path], Path]  # writes good files; returns the one to be spoilt
    read: Callable[[Path], object]
    changes: Callable[[bytes], st.SearchStrategy[bytes]]  # of the good content


# Ways to change a file


def by_bytes(content: bytes) -> st.SearchStrategy[bytes]:
    """Some bytes changed, lost, doubled or cut off."""
    place = st.integers(0, len(content))
    edit = st.tuples(
        st.sampled_from(["set", "cut", "double", "insert"]),
        place,
        st.integers(0, 64),
        st.binary(min_size=1, max_size=8),
    )
    edits = st.lists(edit, min_size=1, max_size=4)
    cut_off = place.map(lambda end: content[:end])
    return edits.map(lambda chosen: edited(content, chosen)) | cut_off


def edited(content: bytes, edits) -> bytes:
    for kind, start, length, new in edits:
        removed = {"set": len(new), "cut": length}.get(kind, 0)
        added = {"cut": b"", "double": content[start : start + length]}.get(kind, new)
        content = content[:start] + added + content[start + removed :]
    return content


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["../x", "/etc/passwd", "", 255, 1e308, -1, 10**30]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


def by_values(content: bytes) -> st.SearchStrategy[bytes]:
    """One value of a JSON file replaced or left out."""
    value = json.loads(content)
    places = list(places_in(value))
    changed = st.tuples(st.sampled_from(places), st.booleans(), json_values)
    return changed.map(lambda c: replaced(value, *c)) | by_bytes(content)


def places_in(value, place=()):
    yield place
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from places_in(inner, (*place, key))


def replaced(value, place, leave_out: bool, new) -> bytes:
    if not place:
        return json.dumps(new).encode()
    whole = json.loads(json.dumps(value))
    inner = whole
    for key in place[:-1]:
        inner = inner[key]
    if leave_out:
        del inner[place[-1]]
    else:
        inner[place[-1]] = new
    return json.dumps(whole).encode()


def by_cells(content: bytes) -> st.SearchStrategy[bytes]:
    """One cell of a CSV file replaced."""
    rows = list(csv.reader(io.StringIO(content.decode())))
    cells = [(r, c) for r, row in enumerate(rows) for c in range(len(row))]
    words = ["../a", "a/b", "a\0b", "a\nb", "-1", "0", "9" * 5000, "1e9", "\u0663", ""]
    new = st.sampled_from(words) | st.text(max_size=12)

    def changed(cell, text):
        copy = [list(row) for row in rows]
        copy[cell[0]][cell[1]] = text
        file = io.StringIO()
        csv.writer(file, lineterminator="\n").writerows(copy)
        return file.getvalue().encode("utf-8", "surrogatepass")

    return st.builds(changed, st.sampled_from(cells), new) | by_bytes(content)


# Files and their readers


def picture(name: str, mode: str = "RGB", **options) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        rng, exif = np.random.default_rng(0), Image.Exif()
        exif[0x0112] = 1
        image = Image.fromarray(miniatures.photo(rng, (9, 14))).convert(mode)
        image.save(folder / name, exif=exif, **options)
        return folder / name

    return make


def read_picture(path: Path) -> None:
    for read in (images.read_raw_image, images.read_raw_label):
        if_named_error(read, path)
    for read in (prepared.read_image, prepared.read_label):
        if_named_error(read, path)


def read_raw_picture(path: Path) -> None:
    images.is_deep(path)
    images.count_pixels(path)
    for read in (images.read_raw_image, images.read_raw_mask):
        if_named_error(read, path)


CORNERS = [2, 3, 9, 3, 9, 8, 2, 8]


def make_coco(folder: Path) -> Path:
    categories = [{"id": k, "name": f"c{k}"} for k in (1, 2)]
    size = {"height": 9, "width": 14}
    shapes = [[CORNERS], {"counts": [20, 40, 66], "size": [9, 14]}]
    shapes.append({"counts": "d0X1R2", "size": [9, 14]})
    rows = [
        {"id": k, "image_id": 1, "category_id": 1, "segmentation": shape, "area": 30}
        for k, shape in enumerate(shapes)
    ]
    listed = [{"id": 1, "file_name": "a.jpg", **size}]
    whole = {"images": listed, "annotations": rows, "categories": categories}
    (folder / "a.coco").write_text(json.dumps(whole))
    return folder / "a.coco"


def make_labelme(folder: Path) -> Path:
    points = [[2, 3], [9, 3], [9, 8]]
    kinds = ("polygon", "rectangle", "circle", "line")
    shapes = [{"label": "a", "points": points, "shape_type": kind} for kind in kinds]
    shapes.append(shapes[0] | {"shape_type": "mask", "mask": "iVBORw0KGgo="})
    whole = {"shapes": shapes[:4], "imagePath": "a.jpg", "imageHeight": 9}
    (folder / "a.labelme").write_text(json.dumps(whole | {"imageWidth": 14}))
    return folder / "a.labelme"


def make_cvat(folder: Path) -> Path:
    shapes = '<polygon label="a" points="2,3;9,3;9,8" z_order="1"/>'
    shapes += '<box label="b" xtl="0" ytl="0" xbr="7" ybr="6"/>'
    shapes += '<mask label="b" left="1" top="2" width="3" height="2" rle="1,2,3"/>'
    image = f'<image id="0" name="a.jpg" width="14" height="9">{shapes}</image>'
    (folder / "a.cvat").write_text(f"<annotations>{image}</annotations>")
    return folder / "a.cvat"


def read_annotations(path: Path) -> None:
    if path.suffix == ".cvat":
        found = cvat.find([path], path.parent)
    else:
        opened = [(path, annotations.read_json(path))]
        found = coco.find(opened, path.parent)
        found = found or labelme.find(opened, path.parent, has_empty=False)
    if found is not None:
        shapes, order = found
        named = annotations.name_classes(shapes, None, None, None, order)
        for pair in annotations.pairs(shapes, named, None):
            if pair.draw:
                assert pair.draw((9, 14)).dtype == np.uint8


def if_named_error(read, path: Path) -> bool:
    """Whether the file is accepted; what is not a named error is raised."""
    try:
        read(path)
        return True
    except KerasSegError as named:
        error = named
    assert error.exit_code in (2, 3, 5)
    assert "\n" not in str(error)
    return False


def make_mat(compress: bool) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        values = {"groundtruth": np.arange(12, dtype="uint8").reshape(3, 4), "x": 1.5}
        savemat(folder / "a.mat", values, do_compression=compress)
        return folder / "a.mat"

    return make


def read_mat(path: Path) -> None:
    matlab.open_mat(path).shapes()
    matlab.read_mat(path, "groundtruth")


def make_prepared(name: str) -> Callable[[Path], Path]:
    labels = LabelSpec(("a", "b"), ((0, 0, 0), (9, 9, 9)), flip_pairs=((0, 1),))

    def make(folder: Path) -> Path:
        image, label = np.zeros((4, 5, 3), np.uint8), np.eye(4, 5).astype(np.uint8)
        joints = np.ones((24, 2), np.float32)
        items = [
            NewSample(split, item, image, label, joints=joints)
            for split, item in (("train", "x"), ("train", "y"), ("val", "z"))
        ]
        out = folder / "prepared"
        write_prepared(out, "tiny", labels, items, lambda i: [i], Options(), {})
        (out / "SHA256SUMS").unlink()  # it would notice every change
        return out / name

    return make


def read_prepared(path: Path) -> None:
    folder = next(p for p in path.parents if p.name == "prepared")
    found = prepared.open_prepared(folder)
    verify(folder, 1)
    with contextlib.suppress(UsageError):  # it may be of another request now
        write_prepared(folder, "tiny", found.labels, [], list, Options(), {})
    for split in found.splits:
        found.counts(split)
        found.joints(split)
        assert all(folder in s.image.resolve().parents for s in found.samples(split))
    assert found.image_size is None or all(type(n) is int for n in found.image_size)
    _ = found.scored_ids, found.labels.flip_table()


def make_checkpoint(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        arrays = {"model/0/kernel": np.ones((3, 4), "float32"), "seed": np.array(3)}
        meta = {"state": {"step": 3, "history": [{"loss": 0.5}]}}
        return checkpoint.save(folder / "run", 3, arrays, meta, 1) / name

    return make


def read_checkpoint(path: Path) -> None:
    checkpoint.load_newest(path.parent.parent)


def read_spoilt_arrays(path: Path) -> None:
    """With the hash that belongs to them, as an attacker would write it."""
    meta = path.parent / "meta.json"
    record = json.loads(meta.read_text()) | {"sha256": storage.sha256(path)}
    meta.write_text(json.dumps(record))
    read_checkpoint(path)


CONFIG = config.Config(
    net={"name": "hourglass", "stacks": 1},
    data={"size": (8, 8)},
    augment={"swap_lr": False},
    steps=3,
)
IDENTITY = {
    "format": run_folder.FORMAT_VERSION,
    "config": config.to_dict(CONFIG),
    "data": {"dataset": "x", "classes": ["a", "b"], "manifest": "0"},
}


def make_run(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        rows = [{"step": 1, "val_miou": math.nan}, {"step": 2, "val_miou": 0.2}]
        storage.write_table(folder / "history.csv", rows)
        storage.write_table(folder / "timing.csv", [{"name": "ms", "value": 1.5}])
        storage.write_json(folder / "config.json", IDENTITY)
        storage.write_json(folder / "failure.json", {"exit_code": 4, "reason": "x"})
        pixels = [np.full((3, 4), 300), np.full((3, 4), 700), np.full((3, 4), 301)]
        counts = run_folder.PerImage(("a", "b", "c"), *pixels)
        run_folder.write_per_image(folder / "per_image.npz", counts)
        return folder / name

    return make


def read_run(path: Path) -> None:
    run = path.parent
    run_folder.same(run, {})
    run_folder.read_history(run)
    run_folder.read_timing(run)
    counts = run_folder.read_per_image(run)
    assert counts is None or len(counts.ids) == len(counts.truth)
    run_folder.read_failure(run)


def make_settings(folder: Path) -> Path:
    storage.write_json(folder / "settings.json", config.to_dict(CONFIG))
    return folder / "settings.json"


def make_journal(folder: Path) -> Path:
    task.Journal(folder / "journal.jsonl").add(run="a/b/seed0", event="begun")
    return folder / "journal.jsonl"


CASES = {
    "png": Case(picture("a.png"), read_picture, by_bytes),
    "jpg": Case(picture("a.jpg"), read_picture, by_bytes),
    "progressive": Case(picture("a.jpg", progressive=True), read_picture, by_bytes),
    "palette": Case(picture("a.png", "P"), read_picture, by_bytes),
    "label": Case(picture("a.png", "L"), read_picture, by_bytes),
    "tif": Case(picture("a.tif"), read_raw_picture, by_bytes),
    "packed tif": Case(
        picture("a.tif", compression="tiff_lzw"), read_raw_picture, by_bytes
    ),
    "bmp": Case(picture("a.bmp"), read_raw_picture, by_bytes),
    "webp": Case(picture("a.webp"), read_raw_picture, by_bytes),
    "gif": Case(picture("a.gif", "P"), read_raw_picture, by_bytes),
    "coco": Case(make_coco, read_annotations, by_values),
    "labelme": Case(make_labelme, read_annotations, by_values),
    "cvat": Case(make_cvat, read_annotations, by_bytes),
    "mat": Case(make_mat(False), read_mat, by_bytes),
    "packed mat": Case(make_mat(True), read_mat, by_bytes),
    "meta": Case(make_prepared("meta.json"), read_prepared, by_values),
    "manifest": Case(make_prepared("manifest.csv"), read_prepared, by_cells),
    "joints": Case(make_prepared("joints/train.npz"), read_prepared, by_bytes),
    "arrays": Case(make_checkpoint("arrays.npz"), read_spoilt_arrays, by_bytes),
    "checkpoint": Case(make_checkpoint("meta.json"), read_checkpoint, by_values),
    "run": Case(
        make_run("config.json"),
        lambda path: run_folder.check_identity(path.parent, IDENTITY),
        by_values,
    ),
    "failure": Case(make_run("failure.json"), read_run, by_values),
    "history": Case(make_run("history.csv"), read_run, by_cells),
    "per image": Case(make_run("per_image.npz"), read_run, by_bytes),
    "timing": Case(make_run("timing.csv"), read_run, by_cells),
    "settings": Case(
        make_settings, lambda path: config.from_dict(storage.read_json(path)), by_values
    ),
    "journal": Case(
        make_journal, lambda path: task.Journal(path).last("a/b/seed0"), by_values
    ),
}


@pytest.mark.parametrize("examples", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", CASES)
def test_spoilt_files_are_accepted_or_refused_by_name(name, examples, tmp_path):
    case = CASES[name]
    path = case.make(tmp_path)
    case.read(path)
    outcomes = []

    @settings(
        max_examples=examples,
        deadline=1000 * SECONDS,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case.changes(path.read_bytes()))
    def spoil(content):
        path.write_bytes(content)
        outcomes.append(if_named_error(case.read, path))

    spoil()
    assert len(outcomes) >= examples / 2
