"""SURREAL from raw clips to the prepared folder: content, faults, repetition."""

import os
import shutil
import sys
from pathlib import Path

import cv2
import miniature_clips
import numpy as np
import pytest

from keras_seg import storage
from keras_seg.data import surreal, synthetic_humans, workers
from keras_seg.data.prepared import read_image, read_label
from keras_seg.data.surreal import parts
from keras_seg.data.surreal.frames import FEWEST_BODY_PIXELS
from keras_seg.data.verify import verify
from keras_seg.data.writer import Options
from keras_seg.errors import DataError, UsageError
from keras_seg.synthetic.generate import Settings, generate

SIDE = round(1.2 * miniature_clips.FIGURE[0])  # of the crops: 132


@pytest.fixture
def in_threads(monkeypatch):
    """Spares the start of processes where they are not what is tested."""
    monkeypatch.setitem(surreal.EXECUTORS, "processes", workers.in_threads)


def prepare(raw, out, options=None, frames=(None, None, None), **settings):
    """The prepared folder, by default of all frames."""
    options = options or Options()
    return surreal.prepare(raw, out, options, frames=frames, **settings)[0]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Raw clips; tests only read them."""
    return miniature_clips.dataset(tmp_path_factory.mktemp("raw"))


@pytest.fixture
def raw(clips):
    return clips[0].stem.parents[4]


@pytest.fixture
def own_raw(raw, tmp_path):
    """A copy that a test may damage, and its first clip."""
    shutil.copytree(raw, tmp_path / "raw")
    clip = miniature_clips.make(tmp_path / "raw", "train", "01_01", 1)
    return tmp_path / "raw", clip


def test_every_frame_becomes_a_square_sample(clips, raw, tmp_path, in_threads):
    """Without resizing, labels are slices of the raw ones and joints move along."""
    prepared = prepare(raw, tmp_path / "out", Options(size=(SIDE, SIDE)))
    assert prepared.dataset == "surreal"
    assert prepared.labels == surreal.LABELS
    assert prepared.image_size == (SIDE, SIDE)
    expected = {}
    for clip in clips:
        for t in range(len(clip.labels) if clip.stride == 50 else 0):
            expected[f"{clip.stem.name}_f{t + 1:04d}"] = clip, t
    samples = [s for split in prepared.splits for s in prepared.samples(split)]
    assert len(samples) == 4 + 5 + 4 + 4 + 4 + 4
    assert {sample.id for sample in samples} == expected.keys()
    for split in prepared.splits:
        for sample, joints in zip(prepared.samples(split), prepared.joints(split)):
            clip, t = expected[sample.id]
            assert prepared.sequences(split)[sample.id] == clip.stem.parent.name
            rows, columns = np.nonzero(clip.labels[t])
            # Half of what the side is longer than the box on each end
            top = max(0, rows.min() - (SIDE - miniature_clips.FIGURE[0]) // 2)
            left = max(0, columns.min() - (SIDE - miniature_clips.FIGURE[1]) // 2)
            square = slice(top, top + SIDE), slice(left, left + SIDE)
            label = read_label(sample.label)
            np.testing.assert_array_equal(label, clip.labels[t][square])
            moved = clip.joints_2d[:, :, t].T - (left, top)
            np.testing.assert_allclose(joints, moved, atol=1e-4)
            image = read_image(sample.image).astype(int)
            errors = [np.abs(image - one[square]).mean() for one in clip.images]
            assert np.argmin(errors) == t  # no other frame
            assert errors[t] < 6  # MPEG-4 and JPEG; BGR would be 20 and more
            assert sample.image.suffix == ".jpg"


def test_default_size_selection_list_and_sheet(raw, tmp_path, in_threads):
    prepared = prepare(raw, tmp_path / "out", frames=(5, 3, None), clusters=(2, 2, 2))
    assert prepared.image_size == (320, 320)
    assert [len(prepared.samples(s)) for s in prepared.splits] == [5, 3, 8]
    assert verify(tmp_path / "out") == []
    lines = storage.read_table(tmp_path / "out" / "selection.csv")
    listed = [(line["split"], line["id"]) for line in lines]
    assert listed == [
        (s.split, s.id) for split in prepared.splits for s in prepared.samples(split)
    ]
    for line in lines:
        assert line["id"] == f"{Path(line['clip']).name}_f{int(line['frame']):04d}"
        assert (raw / f"{line['clip']}.mp4").exists()
        assert int(line["cluster"]) in ({-1} if line["split"] == "test" else {0, 1})
    sheet = cv2.imread(str(tmp_path / "out" / "samples.png"))
    assert sheet.shape == (404, 5 * 204 - 4, 3)
    below = {tuple(map(int, colour)) for colour in sheet[304, :200, ::-1]}
    assert len(below) > 1  # a row through a figure and what is beside it
    assert below <= set(surreal.LABELS.palette)


def test_processes_threads_and_workers_give_the_same(raw, tmp_path):
    settings = {"frames": (6, 2, 3), "clusters": (3, 2, 2)}
    two = prepare(raw, tmp_path / "two", Options(workers=2), **settings)
    assert verify(tmp_path / "two") == []
    one = prepare(raw, tmp_path / "one", Options(workers=1), **settings)
    assert one.manifest_hash == two.manifest_hash
    for name in ("manifest.csv", "selection.csv", "samples.png"):
        content = [(tmp_path / d / name).read_bytes() for d in ("one", "two")]
        assert content[0] == content[1]


def test_repeated_and_other_requests(own_raw, tmp_path, in_threads, capsys):
    raw, clip = own_raw
    first = prepare(raw, tmp_path / "out")
    (tmp_path / "out" / "samples.png").unlink()  # as killed just before it
    assert "indexing" in capsys.readouterr().err
    frames = (None, None, None)
    again, written = surreal.prepare(raw, tmp_path / "out", Options(), frames=frames)
    assert not written
    assert capsys.readouterr().err == ""  # nothing is read again
    assert again.manifest_hash == first.manifest_hash
    assert (tmp_path / "out" / "samples.png").exists()
    for other in ({"margin": 0.5}, {"repair": "zones"}, {"every": 2}):
        with pytest.raises(UsageError, match=f"prepared with {next(iter(other))}"):
            prepare(raw, tmp_path / "out", **other)
    clip.path(".mp4").write_bytes(clip.path(".mp4").read_bytes() + b"\0")
    with pytest.raises(UsageError, match="prepared from other files"):
        prepare(raw, tmp_path / "out")


def cut(path, keep):
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])


def zero_the_middle(path):
    content = bytearray(path.read_bytes())
    start, end = content.find(b"mdat") + 4, content.find(b"moov")
    start += (end - start) // 5
    content[start : end - 100] = bytes(end - 100 - start)
    path.write_bytes(content)


def write(ending, content):
    return lambda clip: clip.path(ending).write_bytes(content)


def labels(name, make):
    return lambda clip: clip.write_labels(**{name: make(clip.labels[0])})


def without_one(clip):
    clip.labels = clip.labels[:-1]
    clip.write_labels()


def with_25(label):
    return np.where(label == 5, 25, label)


def fewer_joints(clip):
    clip.write_info(joints2D=clip.joints_2d[..., :3], joints3D=clip.joints_3d[..., :3])


# What is done to a clip, and its error.
DAMAGE = [
    (lambda c: cut(c.path(".mp4"), 0.5), ".mp4 cannot be decoded"),
    (lambda c: zero_the_middle(c.path(".mp4")), r"damaged: only \d of 4 frames can be"),
    (lambda c: c.write_video(c.images[:3]), ".mp4 has 3 frames, its _info.mat 4"),
    (write(".mp4", b"#EXTM3U\n/etc/hostname\n"), ".mp4 is not an mp4 file"),
    (write(".mp4", b""), ".mp4 is not an mp4 file"),
    (
        lambda c: c.write_video(np.zeros((4, 120, 160, 3), np.uint8)),
        r".mp4 (has 0 frames|cannot|has 120 x 160)",
    ),
    (lambda c: cut(c.path("_segm.mat"), 0.7), "_segm.mat is truncated"),
    (without_one, "segm_4 is missing in .*_segm.mat of 4 frames"),
    (labels("segm_5", np.copy), "segm_5 in .*_segm.mat is beyond its 4 frames"),
    (labels("segm_2", np.transpose), r"segm_2 in .*_segm.mat has shape \(320, 240\)"),
    (labels("segm_2", np.float64), "segm_2 in .*_segm.mat is float64, not uint8"),
    (labels("segm_3", with_25), r"segm_3 in .*id 25 \(720 pixels above 24\)"),
    (fewer_joints, "segm_4 in .*_segm.mat is beyond its 3 frames"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE)
def test_a_damaged_clip_is_named(damage, message, own_raw, tmp_path, in_threads):
    raw, clip = own_raw
    damage(clip)
    out = tmp_path / "out"
    with pytest.raises(DataError, match=message) as refused:
        prepare(raw, out)
    assert f"{clip.stem}" in str(refused.value)
    assert not out.exists()
    (line,) = storage.read_table(tmp_path / "out.rejected.csv")
    assert (line["split"], line["id"]) == ("train", "01_01_c0001")


def test_the_rest_is_published_when_asked_for(own_raw, tmp_path, in_threads, capsys):
    raw, clip = own_raw
    clip.path("_info.mat").write_bytes(b"x" * 200)
    other = miniature_clips.make(raw, "train", "02_03", 1, seed=1)
    cut(other.path(".mp4"), 0.5)
    out = tmp_path / "out"
    with pytest.raises(DataError, match=r"not a MATLAB 5 file .* 1 of 7 clips are bad"):
        prepare(raw, out)  # before anything is converted
    with pytest.raises(DataError, match="2 of 6 clips are bad"):
        prepare(raw, out, Options(skip_bad=1))
    prepared = prepare(raw, out, Options(skip_bad=2))
    rejected = {line["id"] for line in prepared.meta["rejected"]}
    assert rejected == {"01_01_c0001", "02_03_c0001"}
    assert [s.id[:11] for s in prepared.samples("train")] == ["01_01_c0002"] * 5
    assert "train: 4 of 9 chosen frames left out" in capsys.readouterr().err


def test_a_listed_selection_is_followed(raw, tmp_path, in_threads):
    first = prepare(raw, tmp_path / "first", frames=(4, 2, 2), clusters=(2, 2, 2))
    path = tmp_path / "mine.csv"
    shutil.copy(tmp_path / "first" / "selection.csv", path)
    second = prepare(raw, tmp_path / "second", selection=path)
    assert second.manifest_hash == first.manifest_hash
    header, *lines = path.read_text().splitlines()
    fields = lines[0].split(",")[:3]
    for line, message in (
        (lines[0].replace("cmu/train", "../cmu/train"), r"names train \.\./cmu"),
        (lines[0].replace("train,", "test,", 1), "Line 2 .* names test cmu/train"),
        ("train,x", "Line 2 .* has 2 fields"),
        (",".join([*fields, "0", "1"]), "Line 2 .* has 0, 1"),
        (",".join([*fields, "99", "1"]), "frame 99 was chosen"),
        (f"{lines[0]}\n{lines[1]}\n{lines[0]}", "f000[1-5] is used 2 times"),
    ):
        path.write_text(f"{header}\n{line}\n")
        with pytest.raises(DataError, match=message):
            prepare(raw, tmp_path / "third", selection=path)


def test_more_frames_than_there_are(raw, tmp_path, in_threads, capsys):
    prepared = prepare(raw, tmp_path / "out", frames=(5, 99, 0))
    assert prepared.splits == ("train", "val")
    assert len(prepared.samples("val")) == 4
    assert "val: all 4 frames, fewer than the wanted 99" in capsys.readouterr().err
    with pytest.raises(DataError, match="Split test has no usable frames"):
        prepare(raw, tmp_path / "two", frames=(5, 5, 5), exclude=("6",))
    limited = prepare(raw, tmp_path / "limited", Options(limit=2))
    assert [len(limited.samples(split)) for split in limited.splits] == [2, 2, 2]


def test_frames_with_little_of_a_person_are_left_out(
    own_raw, tmp_path, in_threads, capsys
):
    raw, clip = own_raw
    clip.labels[1] = 0
    body = np.flatnonzero(clip.labels[2])
    np.put(clip.labels[2], body[FEWEST_BODY_PIXELS - 1 :], 0)
    clip.write_labels()
    prepared = prepare(raw, tmp_path / "out")
    ids = {sample.id for sample in prepared.samples("train")}
    assert "01_01_c0001_f0001" in ids
    assert not ids & {"01_01_c0001_f0002", "01_01_c0001_f0003"}
    assert "train: 2 of 13 chosen frames left out" in capsys.readouterr().err


def test_the_head_is_repaired_before_cropping(own_raw, tmp_path, in_threads):
    raw, clip = own_raw
    clean = clip.labels.copy()
    row, column = (places[0] for places in np.nonzero(clean[0] == 1))
    clip.labels[0, row + 4 : row + 6, column + 12 : column + 15] = 16
    clip.write_labels()
    options = Options(size=(SIDE, SIDE))
    label = {}
    for repair in ("none", "thesis", "zones"):
        prepared = prepare(raw, tmp_path / repair, options, repair=repair)
        label[repair] = read_label(prepared.samples("train")[0].label)
    head = np.count_nonzero(clean[0] == 16)
    assert np.count_nonzero(label["none"] == 16) == head + 6
    np.testing.assert_array_equal(label["thesis"], label["zones"])
    assert np.count_nonzero(label["thesis"] == 16) == head


def test_merged_parts(raw, tmp_path, in_threads):
    plain = prepare(raw, tmp_path / "plain")
    merged = prepare(raw, tmp_path / "merged", merge="surreal14")
    assert merged.labels == parts.LABELS14
    table = [0, 2, 12, 9, 2, 13, 10, 2, 14, 11, 2, 14, 11, 2, 2, 2, 1, 6, 3, 7, 4, 8]
    table = np.array([*table, 5, 8, 5])
    for one, other in zip(plain.samples("train"), merged.samples("train")):
        expected = table[read_label(one.label)]
        np.testing.assert_array_equal(read_label(other.label), expected)


def test_merging_keeps_left_and_right():
    mirror, mirror14 = surreal.LABELS.flip_table(), parts.LABELS14.flip_table()
    merge = np.array(parts.SURREAL14)
    np.testing.assert_array_equal(merge[mirror[:25]], mirror14[merge])
    for labels in (surreal.LABELS, parts.LABELS14):
        for pair in labels.flip_pairs:
            left, right = sorted(labels.names[i] for i in pair)
            assert left.replace("left", "right") == right
    sides = [name for name in surreal.LABELS.names if name.startswith("left")]
    assert len(sides) == len(surreal.LABELS.flip_pairs) == 9
    members = sorted(i for ids in surreal.GROUPS.values() for i in ids)
    assert members == list(range(25))
    assert len(surreal.GROUPS) == 13


def test_generated_clips_end_to_end(tmp_path, in_threads):
    raw, out = tmp_path / "raw", tmp_path / "out"
    generate(raw, (2, 1, 1), Settings(seed=3, frames=3))
    prepared, _ = synthetic_humans.prepare(raw, out, Options())
    assert prepared.dataset == "synthetic_humans"
    assert [len(prepared.samples(s)) for s in prepared.splits] == [6, 3, 3]
    assert verify(out) == []
    assert (prepared.counts("train").pixels > 0).sum() >= 23
    hits = []
    for sample, joints in zip(prepared.samples("train"), prepared.joints("train")):
        label = read_label(sample.label)
        # The longer side fills the square but for the margin, and twice a pixel.
        rows, columns = np.nonzero(label)
        longer = max(np.ptp(rows), np.ptp(columns)) + 1
        assert longer == pytest.approx(320 / 1.2, abs=4)
        # Joints lie inside the body where nothing covers them.
        x, y = joints.round().astype(int).T
        hits.append(np.mean(label[y.clip(0, 319), x.clip(0, 319)] > 0))
    assert np.mean(hits) > 0.9


def test_a_relative_source_is_the_same(raw, tmp_path, in_threads, monkeypatch):
    absolute = prepare(raw, tmp_path / "one")
    monkeypatch.chdir(raw)
    assert prepare(".", tmp_path / "one") == absolute
    other = prepare(".", tmp_path / "two")
    assert other.manifest_hash == absolute.manifest_hash
    for split in other.splits:
        assert other.joints(split).shape == (len(other.samples(split)), 24, 2)


def test_ray_gives_the_same(raw, tmp_path, in_threads):
    pytest.importorskip("ray")
    here = prepare(raw, tmp_path / "here")
    there = prepare(raw, tmp_path / "there", Options(workers=2), executor="ray")
    assert there.manifest_hash == here.manifest_hash


def test_ray_is_an_extra(raw, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match="--executor ray needs the extra"):
        prepare(raw, tmp_path / "out", executor="ray")
    assert os.listdir(tmp_path) == []
