"""The prepared folder: written whole or not at all, read with suspicion."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import miniatures
import numpy as np
import pytest

from keras_seg import storage
from keras_seg.data.images import encode_png
from keras_seg.data.prepared import (
    hash_joints,
    open_prepared,
    read_image,
    read_label,
)
from keras_seg.data.verify import verify
from keras_seg.data.workers import in_processes, in_threads
from keras_seg.data.writer import NewSample, Options, write_prepared
from keras_seg.errors import DataError, LockedError, UsageError
from keras_seg.labels import LabelSpec

LABELS = LabelSpec(
    ("sky", "left", "right", "never"),
    ((0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)),
    ((1, 2),),
)


@dataclass(frozen=True)
class Item:
    split: str
    id: str
    seed: int
    fault: str = ""


ITEMS = [
    Item(split, f"{name}", seed)
    for seed, (split, name) in enumerate(
        [("val", "b"), ("train", "z"), ("train", "a"), ("val", "a"), ("test", "ü 1")]
    )
]


def arrays(item):
    rng = np.random.default_rng(item.seed)
    height, width = 5 + item.seed, 7
    image = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    label = rng.choice(np.array([0, 1, 2, 255], np.uint8), (height, width))
    joints = rng.normal(size=(3, 2)).astype(np.float32)
    return image, label, joints


def convert(item):
    image, label, joints = arrays(item)
    yield NewSample(item.split, item.id, image, label, joints=joints)
    if item.fault == "bad":
        raise DataError(f"{item.id}.raw is truncated.")
    if item.fault == "range":
        yield NewSample(item.split, "range", image, np.full_like(label, 4))
    if item.fault == "bug":
        raise ZeroDivisionError
    if item.fault == "crash":
        os._exit(9)


def write(
    out, items=ITEMS, convert=convert, settings=None, each=in_threads, ids=None, **other
):
    options = Options(**{"workers": 2, "command": "prepare it"} | other)
    rest = options, settings or {}, "images", each, ids
    return write_prepared(out, "tiny", LABELS, items, convert, *rest)


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_round_trip(tmp_path):
    written, now = write(tmp_path / "out")
    assert now
    prepared = open_prepared(tmp_path / "out")
    assert prepared == written
    assert prepared.splits == ("train", "val", "test")
    assert prepared.dataset == "tiny"
    assert prepared.labels == LABELS
    assert prepared.image_size is None
    assert prepared.meta["command"] == "prepare it"
    assert [s.id for s in prepared.samples("train")] == ["a", "z"]
    assert [s.id for s in prepared.samples("val")] == ["a", "b"]
    by_key = {(item.split, item.id): arrays(item) for item in ITEMS}
    for split in prepared.splits:
        joints = prepared.joints(split)
        assert joints.dtype == np.float32
        for sample, row in zip(prepared.samples(split), joints, strict=True):
            image, label, expected_joints = by_key[split, sample.id]
            np.testing.assert_array_equal(read_image(sample.image), image)
            np.testing.assert_array_equal(read_label(sample.label), label)
            np.testing.assert_array_equal(row, expected_joints)
            assert (sample.height, sample.width) == label.shape
    assert names_in(tmp_path) == {"out"}  # no lock, nothing half made
    assert verify(tmp_path / "out") == []
    asked = (prepared.samples, prepared.sequences, prepared.counts, prepared.joints)
    for ask in asked:
        with pytest.raises(DataError, match="no split 'dev'. Its splits: train, val,"):
            ask("dev")


def test_counts_are_those_of_a_loop(tmp_path):
    prepared, _ = write(tmp_path / "out")
    for split in prepared.splits:
        labels = [arrays(item)[1] for item in ITEMS if item.split == split]
        counts = prepared.counts(split)
        for class_id in range(4):
            having = [label for label in labels if (label == class_id).any()]
            assert counts.pixels[class_id] == sum((x == class_id).sum() for x in labels)
            assert counts.images[class_id] == len(having)
            assert counts.presence_pixels[class_id] == sum(x.size for x in having)
        assert counts.pixels.dtype == counts.presence_pixels.dtype == np.int64
        assert counts.pixels[3] == counts.images[3] == 0
        assert counts.ignored == sum((label == 255).sum() for label in labels) > 0
        assert counts.total == sum(label.size for label in labels)


def test_workers_and_processes_change_no_byte(tmp_path):
    write(tmp_path / "one")
    write(tmp_path / "four", ITEMS[::-1], workers=4)
    write(tmp_path / "processes", each=in_processes)
    expected = content(tmp_path / "one")
    assert content(tmp_path / "four") == expected
    assert content(tmp_path / "processes") == expected


def test_hash_is_of_the_data_and_not_of_the_place(tmp_path):
    first, _ = write(tmp_path / "out")
    shutil.copytree(tmp_path / "out", tmp_path / "elsewhere" / "copy")
    copy = open_prepared(tmp_path / "elsewhere" / "copy")
    assert copy.manifest_hash == first.manifest_hash
    other = [replace(ITEMS[0], seed=9), *ITEMS[1:]]
    assert write(tmp_path / "two", other)[0].manifest_hash != first.manifest_hash
    assert write(tmp_path / "three", ITEMS[1:])[0].manifest_hash != first.manifest_hash


def test_scored_ids_are_kept_and_are_part_of_the_identity(tmp_path):
    every, _ = write(tmp_path / "every")
    assert every.scored_ids is None
    assert "scored_ids" not in every.meta
    some, _ = write(tmp_path / "some", ids=(1, 3))
    assert some.scored_ids == (1, 3)
    assert some.manifest_hash != every.manifest_hash
    assert verify(tmp_path / "some") == []
    assert not write(tmp_path / "some", ids=(1, 3))[1]
    with pytest.raises(UsageError, match=r"with scored_ids null, not \[1, 3\]"):
        write(tmp_path / "every", ids=(1, 3))


def test_sequences_are_kept_and_are_no_part_of_the_identity(tmp_path):
    """Also not of folders from before there were any, which are read as before."""
    names = {"z": "drive 2/a", "b": "drive 1"}

    def convert_in_sequences(item):
        for sample in convert(item):
            yield replace(sample, sequence=names.get(sample.id, ""))

    out = tmp_path / "out"
    prepared, _ = write(out, convert=convert_in_sequences)
    assert prepared.sequences("train") == {"z": "drive 2/a"}
    assert prepared.sequences("val") == {"b": "drive 1"}
    assert prepared.sequences("test") == {}
    assert verify(out) == []
    assert write(tmp_path / "alone")[0].manifest_hash == prepared.manifest_hash

    lines = (out / "manifest.csv").read_text().splitlines()  # no commas in the values
    older_lines = [line.rpartition(",")[0] + "\n" for line in lines]
    (out / "manifest.csv").write_text("".join(older_lines))
    with pytest.raises(DataError, match="manifest.csv was changed after it was prep"):
        open_prepared(out)
    miniatures.resign(out)
    older = open_prepared(out)
    assert older.manifest_hash == prepared.manifest_hash
    assert older.sequences("train") == {}
    assert older.samples("train") == tuple(
        replace(sample, sequence="") for sample in prepared.samples("train")
    )


def test_same_request_is_not_redone_and_another_is_refused(tmp_path):
    out, settings = tmp_path / "out", {"source": "x", "square": True}
    first, _ = write(out, settings=settings)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert write(out, settings=settings) == (first, False)
    for own, size, message in (
        ({"square": False}, None, "prepared with square true, not false"),
        ({"source": "y"}, None, "prepared from other files"),
        ({}, (4, 5), r"with size null, not \[4, 5\]"),
    ):
        with pytest.raises(UsageError, match=message):
            write(out, settings=settings | own, size=size)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    other, now = write(out, ITEMS[1:], settings={"source": "y"}, overwrite=True)
    assert now
    assert other.manifest_hash != first.manifest_hash
    assert names_in(tmp_path) == {"out"}


def test_places_that_hold_something_else_are_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    for place in ("file", "file/under"):
        with pytest.raises(UsageError, match=f"{place} cannot be a folder: .*file is"):
            write(tmp_path / place)
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="full holds other files"):
            write(tmp_path / "full", overwrite=overwrite)
    assert content(tmp_path) == {"file": b"mine", "full/thesis.txt": b"mine"}
    (tmp_path / "empty").mkdir()
    assert write(tmp_path / "empty")[1]


def add_notes(out):
    (out / "notes").mkdir()
    (out / "notes" / "thesis.txt").write_text("mine")


def add_folder(out):
    (out / "labels" / "train" / "mine").mkdir()


def link_a_split(out):
    (out / "images" / "test").rename(out.parent / "moved")
    (out / "images" / "test").symlink_to(out.parent / "moved")


def put(name, text):
    return lambda out: (out / name).write_text(text)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (put("meta.json", '{"my": 1}'), "meta.json has format version None"),
        (put("meta.json", '{"format_version": 1}'), "is damaged .field dataset"),
        (put("meta.json", "{"), "meta.json is damaged"),
        (put("manifest.csv", "split"), "manifest.csv is damaged.*Remove it yourself"),
        (put("mine.png", "mine"), "out also holds mine.png"),
        (put("images/mine.png", "mine"), "out also holds images/mine.png"),
        (put("images/train/c.png", "mine"), "out also holds images/train/c.png"),
        (put("labels/val/a.txt", "mine"), "out also holds labels/val/a.txt"),
        (put("joints/mine.npz", "mine"), "out also holds joints/mine.npz"),
        (add_notes, "out also holds notes"),
        (add_folder, "out also holds labels/train/mine"),
        (link_a_split, "out also holds images/test"),
    ],
)
def test_overwrite_replaces_nothing_but_prepared_folders(change, named, tmp_path):
    write(tmp_path / "out")
    change(tmp_path / "out")
    before = content(tmp_path)
    with pytest.raises(UsageError, match=f"replaces prepared folders only.*{named}"):
        write(tmp_path / "out", ITEMS[1:], overwrite=True)
    assert content(tmp_path) == before


def test_overwrite_keeps_what_came_while_it_worked(tmp_path):
    write(tmp_path / "out")

    def find(stage):
        add_notes(tmp_path / "out")
        return ITEMS[1:]

    with pytest.raises(UsageError, match="out also holds notes"):
        write(tmp_path / "out", find, overwrite=True)
    assert (tmp_path / "out" / "notes" / "thesis.txt").read_text() == "mine"
    assert verify(tmp_path / "out") == []


def test_overwrite_replaces_a_damaged_folder_with_its_pictures(tmp_path):
    out = tmp_path / "out"
    first, _ = write(out)
    for name in ("selection.csv", "samples.png", "sheet.png"):
        (out / name).write_bytes(b"ours")
    (out / "images" / "val" / "a.png").write_bytes(b"damaged")
    (out / "images" / "train" / "a.png").unlink()
    again, now = write(out, overwrite=True)
    assert now
    assert again == first
    assert not (out / "sheet.png").exists()
    assert names_in(tmp_path) == {"out"}


def test_a_link_to_the_place_is_followed(tmp_path):
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "data")
    for overwrite in (False, True):
        prepared, now = write(tmp_path / "out", overwrite=overwrite)
        assert now
        assert prepared.folder == tmp_path / "disk" / "data"
    assert (tmp_path / "out").is_symlink()
    assert names_in(tmp_path / "disk") == {"data"}


@pytest.mark.parametrize("name", [".out.partial", "out.rejected.csv"])
def test_names_that_the_work_needs_are_not_taken_from_the_user(name, tmp_path):
    place = tmp_path / name
    place = place / "new" if place.suffix == ".partial" else place
    place.parent.mkdir(exist_ok=True)
    place.write_text("mine")
    with pytest.raises(UsageError, match=f"{name} is in the way"):
        write(tmp_path / "out")
    assert place.read_text() == "mine"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_a_labelled_pixel_is_refused(split, tmp_path):
    def convert_ignored(item):
        for sample in convert(item):
            ignored = np.full_like(sample.label, 255)
            yield replace(sample, label=ignored) if item.split == split else sample

    message = f"No pixel of split {split} is labelled: .* in all of its 2 images"
    with pytest.raises(DataError, match=message):
        write(tmp_path / "out", convert=convert_ignored)
    assert names_in(tmp_path) == set()


def test_a_test_split_may_have_no_labels(tmp_path):
    def convert_test(item):
        for sample in convert(item):
            ignored = np.full_like(sample.label, 255)
            yield replace(sample, label=ignored) if item.split == "test" else sample

    prepared, _ = write(tmp_path / "out", convert=convert_test)
    assert prepared.counts("test").pixels.sum() == 0


def test_rejected_ids_are_no_formulas(tmp_path):
    """A spreadsheet runs a cell that begins with one of = + - @ or a tab."""
    names = ["=1+1", "+x", "-x", "@x", "a=b"]
    bad = [Item("val", name, 1, "bad") for name in names]
    with pytest.raises(DataError):
        write(tmp_path / "out", [*ITEMS, *bad])
    rows = storage.read_table(tmp_path / "out.rejected.csv")
    assert [row["id"] for row in rows] == ["'=1+1", "'+x", "'-x", "'@x", "a=b"]
    # The second attempt replaces its own list.
    with pytest.raises(DataError):
        write(tmp_path / "out", [*ITEMS, *bad[:1]])
    assert len(storage.read_table(tmp_path / "out.rejected.csv")) == 1


@pytest.mark.parametrize("each", [in_threads, in_processes])
def test_bad_items(each, tmp_path):
    items = [*ITEMS, Item("val", "bad", 7, "bad"), Item("train", "r", 8, "range")]
    with pytest.raises(DataError, match=r"bad.raw is truncated. In all 2 of 7 images"):
        write(tmp_path / "out", items, each=each)
    rows = storage.read_table(tmp_path / "out.rejected.csv")
    named = [(row["split"], row["id"]) for row in rows]
    assert named == [("val", "bad"), ("train", "r")]
    assert rows[0]["error"] == "bad.raw is truncated."
    assert "train/range has class id 4 in 91 pixels" in rows[1]["error"]  # 13 x 7
    assert names_in(tmp_path) == {"out.rejected.csv"}

    prepared, _ = write(tmp_path / "out", items, skip_bad=2)
    assert [row["id"] for row in prepared.meta["rejected"]] == ["bad", "r"]
    # Their first samples were whole and are left out with them.
    assert not list((tmp_path / "out").rglob("bad.png"))
    assert verify(tmp_path / "out") == []
    with pytest.raises(UsageError, match="without 2 bad items; --skip-bad 0 allows"):
        write(tmp_path / "out", items)


def test_item_whose_worker_dies_is_bad_and_the_others_are_not(tmp_path):
    items = [*ITEMS[:2], Item("val", "dies", 7, "crash"), *ITEMS[2:]]
    prepared, _ = write(tmp_path / "out", items, each=in_processes, skip_bad=1)
    (row,) = prepared.meta["rejected"]
    assert (row["id"], row["error"]) == ("dies", "val/dies crashed its decoder.")
    assert prepared.manifest_hash == write(tmp_path / "two")[0].manifest_hash


def test_a_bug_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError):
        write(tmp_path / "out", [*ITEMS, Item("val", "x", 9, "bug")])
    assert list(tmp_path.iterdir()) == []


ELSEWHERE = [("val", "../x"), ("val", ".hidden"), ("..", "x"), ("val", "a\nb")]


@pytest.mark.parametrize(("split", "name"), ELSEWHERE)
def test_names_that_lead_elsewhere_are_refused(split, name, tmp_path):
    with pytest.raises(DataError, match="is not the name of a visible file"):
        write(tmp_path / "in" / "out", [*ITEMS, Item(split, name, 1)])
    assert content(tmp_path).keys() == {"in/out.rejected.csv"}


@pytest.mark.parametrize(
    ("items", "named"),
    [
        ([*ITEMS, Item("val", "b", 9)], "id val/b is used more than once"),
        ([item for item in ITEMS if item.split != "train"], "Split train is empty"),
        ([*ITEMS, Item("dev", "x", 9, "bad")], "Split dev is empty"),
    ],
)
def test_ids_used_twice_and_empty_splits_are_refused(items, named, tmp_path):
    with pytest.raises(DataError, match=named):
        write(tmp_path / "out", items, skip_bad=5)
    assert list(tmp_path.iterdir()) == []


def test_writers_in_threads_do_not_meet(tmp_path):
    def work(_):
        try:
            return write(tmp_path / "out")[1]
        except LockedError:
            return None

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(work, range(3))).count(True) == 1
    assert verify(tmp_path / "out") == []


# Reading


@pytest.fixture
def out(tmp_path):
    write(tmp_path / "out")
    return tmp_path / "out"


def edit_meta(**changes):
    def edit(out):
        meta = json.loads((out / "meta.json").read_text())
        (out / "meta.json").write_text(json.dumps(meta | changes))

    return edit


def edit_manifest(old, new):
    def edit(out):
        text = (out / "manifest.csv").read_text()
        assert old in text
        (out / "manifest.csv").write_text(text.replace(old, new, 1))

    return edit


def link_away(place):
    def link(out):
        path = out / place
        path.rename(out.parent / path.name)
        path.symlink_to(out.parent / path.name)

    return link


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (edit_meta(format_version=2), "format version 2, not 1"),
        (put("meta.json", "{"), "meta.json is damaged"),
        (put("meta.json", "[]"), "meta.json"),
        (edit_meta(classes="abcd"), "field classes"),
        (edit_meta(palette=[[0, 0, 0]]), "palette has 1 colours"),
        (edit_meta(classes=["a", "b", "c"]), "meta.json"),
        (edit_meta(splits={}), "split"),
        (edit_meta(scored_ids=[1, 4]), r"scored_ids \[1, 4\] are not .* below 4"),
        (edit_meta(scored_ids=[2, 1]), "scored_ids"),
        (edit_meta(scored_ids=[1, 1]), "scored_ids"),
        (edit_meta(scored_ids=[]), "scored_ids"),
        (edit_meta(scored_ids=[True]), "scored_ids"),
        (edit_meta(scored_ids="12"), "scored_ids"),
        (lambda out: (out / "meta.json").unlink(), "meta.json is missing"),
        (lambda out: (out / "manifest.csv").unlink(), "manifest.csv"),
        (edit_manifest("split,id", "id,split"), "manifest.csv.*another header"),
        (edit_manifest("train,a,a.png", "train,a,../a.png"), "line 2 has image"),
        (edit_manifest("train,a,", "train,../a,"), "line 2 has 'train', '...a"),
        (edit_manifest("train,a,a.png", "..,a,a.png"), "line 2 has '..', 'a'"),
        (edit_manifest("train,a,a.png", "/,a,a.png"), "line 2 has '/', 'a'"),
        (edit_manifest("train,z,z.png", "train,a,a.png"), "train/a more than once"),
        (edit_manifest("train,z,z.png", "val,z,z.png"), "samples of split (train|val)"),
        (edit_manifest(",7,7", ",0,7"), "line 2 has size '0' x '7'"),
        (edit_manifest(",7,7,", ",7,7"), "line 2 has 7 fields, not 8"),
        (edit_manifest(",7,7,", ",7,7,\x1b[2J"), "line 2 has sequence '.x1b"),
        (edit_manifest(",sequence", ""), "line 2 has 8 fields, not 7"),
        (lambda out: (out / "images/train/a.png").unlink(), "a.png is missing"),
        (lambda out: shutil.rmtree(out / "labels/val"), "labels/val"),
        (link_away("images/train/a.png"), "leads out of the prepared folder"),
        (link_away("labels/val"), "leads out of the prepared folder"),
    ],
)
def test_damaged_folder_is_refused(damage, named, out):
    damage(out)
    with pytest.raises(DataError, match=named):
        open_prepared(out)


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_damaged_files_are_named_on_reading(kind, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    label = np.zeros((40, 60), np.uint8)
    prepared, _ = write(
        tmp_path / "out",
        [Item("train", "a", 0)],
        lambda item: [NewSample("train", "a", image, label, kind)],
    )
    (sample,) = prepared.samples("train")
    assert sample.image.suffix == f".{kind}"
    whole = sample.image.read_bytes()
    short = (whole[:-20], whole[: len(whole) // 2], whole[:-1], b"")
    for content in (*short, b"\0" * 99 + whole[-12:]):
        sample.image.write_bytes(content)
        reason = "truncated" if content in short else ""
        with pytest.raises(DataError, match=f"a.{kind} is damaged .{reason}"):
            read_image(sample.image)
    sample.image.unlink()
    with pytest.raises(DataError, match="No such file"):
        read_image(sample.image)
    sample.label.write_bytes(encode_png(image))
    with pytest.raises(DataError, match="not 8-bit class ids"):
        read_label(sample.label)


def test_verify_finds_every_flipped_byte(out):
    """Three bits anywhere in every file of the folder."""
    rng = np.random.default_rng(0)
    paths = sorted(p for p in out.rglob("*") if p.is_file())
    assert len(paths) == 2 * len(ITEMS) + 3 + 3  # pairs, joints, and the three texts
    for path in paths:
        whole = path.read_bytes()
        for place in rng.integers(0, len(whole), 3):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << rng.integers(8)
            path.write_bytes(damaged)
            try:
                assert verify(out), (path.name, place)
            except DataError:
                pass  # it cannot even be opened
        path.write_bytes(whole)
    assert verify(out) == []


def test_verify_names_what_is_wrong(out):
    (out / "images" / "train" / "extra.png").write_bytes(b"x")
    path = out / "labels" / "val" / "a.png"
    path.write_bytes((out / "labels" / "val" / "b.png").read_bytes())
    extra, swapped = (str(problem) for problem in verify(out))
    assert extra == f"{out}/images/train/extra.png is not in manifest.csv."
    assert swapped == f"{path} differs from its SHA-256 in manifest.csv."
    (out / "joints" / "val.npz").unlink()
    assert "val.npz" in str(verify(out)[0])


def test_verify_recounts(out):
    meta = json.loads((out / "meta.json").read_text())
    meta["splits"]["val"]["images"][1] += 1
    (out / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(DataError, match="meta.json was changed after it was prepared"):
        verify(out)
    miniatures.resign(out)  # as if it had been prepared wrongly
    (problem,) = map(str, verify(out))
    place = f"val.images in {out}/meta.json"
    assert problem.startswith(f"{place} is [2, 3, 2, 0], but [2, 2, 2, 0] were")


def test_joints_that_changed_are_refused(out):
    joints = open_prepared(out).joints("val")
    assert hash_joints(joints) != hash_joints(joints[::-1])
    np.savez(out / "joints" / "val.npz", joints=joints[::-1])
    with pytest.raises(DataError, match="val.npz is damaged .another SHA-256"):
        open_prepared(out).joints("val")
    (out / "joints" / "val.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match="val.npz is damaged"):
        open_prepared(out).joints("val")


def test_items_are_found_only_if_there_is_something_to_do(tmp_path):
    calls = []

    def find(stage):
        calls.append(stage)
        (stage / "list.csv").write_text("mine")
        return [*ITEMS, Item("val", "bad", 7, "bad")]

    prepared, now = write(tmp_path / "out", find, skip_bad=1)
    assert now
    assert (tmp_path / "out" / "list.csv").read_text() == "mine"
    assert prepared.manifest_hash == write(tmp_path / "two")[0].manifest_hash
    assert not write(tmp_path / "out", find, skip_bad=1)[1]
    assert len(calls) == 1
