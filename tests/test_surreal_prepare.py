"""SURREAL from raw clips to the prepared folder: content, faults, repetition."""

import csv
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import miniature_clips
import numpy as np
import pytest

from keras_seg import command_line
from keras_seg.data import surreal, synthetic_humans, workers
from keras_seg.data.prepared import open_prepared, read_image, read_label
from keras_seg.data.surreal import frames as surreal_frames
from keras_seg.data.verify import verify
from keras_seg.data.writer import Options
from keras_seg.errors import DataError, UsageError
from keras_seg.synthetic.generate import Settings, generate

SCRIPT = Path(__file__).parents[1] / "datasets" / "prepare.py"
ALL = {"frames": (None, None, None)}
SIDE = round(1.2 * miniature_clips.FIGURE[0])  # of the crops: 132


@pytest.fixture
def in_threads(monkeypatch):
    """Spares the start of processes where they are not what is tested."""
    monkeypatch.setitem(surreal.EXECUTORS, "processes", workers.in_threads)


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


def lines_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_frame_becomes_a_square_sample(clips, raw, tmp_path, in_threads):
    """Without resizing, labels are slices of the raw ones and joints move along."""
    options = Options(size=(SIDE, SIDE))
    prepared, written = surreal.prepare(raw, tmp_path / "out", options, **ALL)
    assert written
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
            np.testing.assert_array_equal(
                read_label(sample.label), clip.labels[t][square]
            )
            np.testing.assert_allclose(
                joints, clip.joints_2d[:, :, t].T - (left, top), atol=1e-4
            )
            image = read_image(sample.image).astype(int)
            errors = [
                np.abs(image - raw_image[square]).mean() for raw_image in clip.images
            ]
            assert np.argmin(errors) == t  # no other frame
            assert errors[t] < 6  # MPEG-4 and JPEG; BGR would be 20 and more
            assert sample.image.suffix == ".jpg"


def test_default_size_selection_list_and_sheet(raw, tmp_path, in_threads):
    prepared, _ = surreal.prepare(
        raw, tmp_path / "out", Options(), frames=(5, 3, None), clusters=(2, 2, 2)
    )
    assert prepared.image_size == (320, 320)
    assert [len(prepared.samples(s)) for s in prepared.splits] == [5, 3, 8]
    assert verify(tmp_path / "out") == []
    lines = lines_of(tmp_path / "out" / "selection.csv")
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
    two, _ = surreal.prepare(raw, tmp_path / "two", Options(workers=2), **settings)
    assert verify(tmp_path / "two") == []
    one, _ = surreal.prepare(raw, tmp_path / "one", Options(workers=1), **settings)
    assert one.manifest_hash == two.manifest_hash
    for name in ("manifest.csv", "selection.csv", "samples.png"):
        content = [(tmp_path / d / name).read_bytes() for d in ("one", "two")]
        assert content[0] == content[1]


def test_repeated_and_other_requests(raw, tmp_path, in_threads, monkeypatch):
    first, written = surreal.prepare(raw, tmp_path / "out", Options(), **ALL)
    assert written
    (tmp_path / "out" / "samples.png").unlink()  # as killed just before it
    monkeypatch.setattr(surreal.surreal_index, "index_clips", None)  # not again
    again, written = surreal.prepare(raw, tmp_path / "out", Options(), **ALL)
    assert not written
    assert again.manifest_hash == first.manifest_hash
    assert (tmp_path / "out" / "samples.png").exists()
    for other in ({"margin": 0.5}, {"repair": "zones"}, {"every": 2}):
        with pytest.raises(UsageError, match=f"prepared with {next(iter(other))}"):
            surreal.prepare(raw, tmp_path / "out", Options(), **ALL, **other)


def test_other_raw_files_are_noticed(own_raw, tmp_path, in_threads):
    raw, clip = own_raw
    surreal.prepare(raw, tmp_path / "out", Options(), **ALL)
    clip.path(".mp4").write_bytes(clip.path(".mp4").read_bytes() + b"\0")
    with pytest.raises(UsageError, match="prepared from other files"):
        surreal.prepare(raw, tmp_path / "out", Options(), **ALL)


def test_killed_and_done_again(raw, tmp_path, in_threads):
    """A rerun ends with the hash of an uninterrupted one."""
    command = [sys.executable, SCRIPT, "synthetic_humans", "--src", str(raw)]
    running = subprocess.Popen(
        [*command, "--out", str(tmp_path / "out"), "--workers", "1"],
        stderr=subprocess.DEVNULL,
    )
    images = tmp_path / ".out.partial" / "images"
    for _ in range(600):
        if images.exists() or running.poll() is not None:
            break
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL  # it was not done yet
    assert not (tmp_path / "out").exists()
    prepared, written = synthetic_humans.prepare(raw, tmp_path / "out", Options())
    assert written
    assert not (tmp_path / ".out.partial").exists()
    whole, _ = synthetic_humans.prepare(raw, tmp_path / "whole", Options())
    assert prepared.manifest_hash == whole.manifest_hash


def cut(path, keep):
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])


def zero_the_middle(path):
    content = bytearray(path.read_bytes())
    start, end = content.find(b"mdat") + 4, content.find(b"moov")
    start += (end - start) // 5
    content[start : end - 100] = bytes(end - 100 - start)
    path.write_bytes(content)


def without_one(clip):
    clip.labels = clip.labels[:-1]
    clip.write_labels()


# What is done to a clip, and what its error says.
DAMAGE = {
    "mp4 cut in half": (
        lambda c: cut(c.path(".mp4"), 0.5),
        ".mp4: cannot be decoded",
    ),
    "mp4 of zeros in the middle": (
        lambda c: zero_the_middle(c.path(".mp4")),
        r".mp4: only \d of 4 frames can be decoded",
    ),
    "mp4 of fewer frames": (
        lambda c: c.write_video(c.images[:3]),
        ".mp4: 3 frames.* expected 4",
    ),
    "a playlist": (
        lambda c: c.path(".mp4").write_text("#EXTM3U\n/etc/hostname\n"),
        ".mp4: no mp4 file",
    ),
    "an empty mp4": (lambda c: c.path(".mp4").write_bytes(b""), ".mp4: no mp4 file"),
    "another frame size": (
        lambda c: c.write_video(np.zeros((4, 120, 160, 3), np.uint8)),
        r".mp4: (0 frames|cannot|120 x 160)",
    ),
    "segm truncated": (
        lambda c: cut(c.path("_segm.mat"), 0.7),
        "_segm.mat: truncated",
    ),
    "segm garbage": (
        lambda c: c.path("_segm.mat").write_bytes(b"\x00" * 500),
        "_segm.mat: no MATLAB 5 file",
    ),
    "segm missing": (without_one, "_segm.mat: segm_4: missing"),
    "segm too much": (
        lambda c: c.write_labels(segm_5=c.labels[0]),
        "_segm.mat: segm_5: too much",
    ),
    "segm shape": (
        lambda c: c.write_labels(segm_2=c.labels[0].T),
        r"_segm.mat: segm_2: shape \(320, 240\)",
    ),
    "segm dtype": (
        lambda c: c.write_labels(segm_2=c.labels[0].astype(float)),
        "_segm.mat: segm_2: float64.*expected uint8",
    ),
    "segm id": (
        lambda c: c.write_labels(segm_3=np.where(c.labels[0] == 5, 25, c.labels[0])),
        r"_segm.mat: segm_3: class id 25 \(720 pixels above 24\)",
    ),
    "info of fewer frames": (
        lambda c: c.write_info(
            joints2D=c.joints_2d[..., :3], joints3D=c.joints_3d[..., :3]
        ),
        r"_segm.mat: segm_4: too much",
    ),
    "info garbage": (
        lambda c: c.path("_info.mat").write_bytes(b"x" * 200),
        "_info.mat: no MATLAB 5 file",
    ),
    "info missing": (lambda c: c.path("_info.mat").unlink(), "_info.mat: missing"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_clip_is_named(what, own_raw, tmp_path, in_threads):
    raw, clip = own_raw
    damage, message = DAMAGE[what]
    damage(clip)
    out = tmp_path / "out"
    with pytest.raises(DataError, match=f"01_01_c0001{message}"):
        surreal.prepare(raw, out, Options(), **ALL)
    assert not out.exists()
    (line,) = lines_of(tmp_path / "out.rejected.csv")
    assert (line["split"], line["id"]) == ("train", "01_01_c0001")


def test_the_rest_is_published_when_asked_for(own_raw, tmp_path, in_threads, capsys):
    raw, clip = own_raw
    clip.path("_info.mat").write_bytes(b"x" * 200)
    other = miniature_clips.make(raw, "train", "02_03", 1, seed=1)
    cut(other.path(".mp4"), 0.5)
    out, options = tmp_path / "out", Options(skip_bad=2)
    with pytest.raises(DataError, match=r"no MATLAB 5 file \(1 of 7 bad"):
        surreal.prepare(raw, out, Options(), **ALL)  # before anything is converted
    with pytest.raises(DataError, match=r"2 of 6 bad.*--skip-bad 1"):
        surreal.prepare(raw, out, Options(skip_bad=1), **ALL)
    prepared, _ = surreal.prepare(raw, out, options, **ALL)
    rejected = {line["id"] for line in prepared.meta["rejected"]}
    assert rejected == {"01_01_c0001", "02_03_c0001"}
    assert [s.id[:11] for s in prepared.samples("train")] == ["01_01_c0002"] * 5
    assert (out / "selection.csv").exists()
    assert verify(out) == []
    assert "train: 4 of 9 chosen frames left out" in capsys.readouterr().err


def test_a_listed_selection_is_followed(raw, tmp_path, in_threads):
    first, _ = surreal.prepare(
        raw, tmp_path / "first", Options(), frames=(4, 2, 2), clusters=(2, 2, 2)
    )
    path = tmp_path / "mine.csv"
    shutil.copy(tmp_path / "first" / "selection.csv", path)
    second, _ = surreal.prepare(raw, tmp_path / "second", Options(), selection=path)
    assert second.manifest_hash == first.manifest_hash
    header, *lines = path.read_text().splitlines()
    for line, message in (
        (lines[0].replace("cmu/train", "../cmu/train"), r"line 2: train \.\./cmu"),
        (lines[0].replace("train,", "test,", 1), "line 2: test cmu/train"),
        ("train,x", "line 2: 2 fields"),
        (",".join([*lines[0].split(",")[:3], "0", "1"]), "line 2: 0, 1"),
        (",".join([*lines[0].split(",")[:3], "99", "1"]), "expected frame 99 too"),
        (f"{lines[0]}\n{lines[1]}\n{lines[0]}", "f000[1-5] 2 times; expected unique"),
    ):
        path.write_text(f"{header}\n{line}\n")
        with pytest.raises(DataError, match=message):
            surreal.prepare(raw, tmp_path / "third", Options(), selection=path)


def test_more_frames_than_there_are(raw, tmp_path, in_threads, capsys):
    prepared, _ = surreal.prepare(raw, tmp_path / "out", Options(), frames=(5, 99, 0))
    assert prepared.splits == ("train", "val")
    assert len(prepared.samples("val")) == 4
    assert "val: 99 frames wanted, all 4 there are taken" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(DataError, match="split test: no usable frames"):
        surreal.prepare(
            raw, tmp_path / "out", Options(), frames=(5, 5, 5), exclude=("6",)
        )
    limited, _ = surreal.prepare(raw, tmp_path / "out", Options(limit=2), **ALL)
    assert [len(limited.samples(split)) for split in limited.splits] == [2, 2, 2]


def test_frames_with_little_of_a_person_are_left_out(
    own_raw, tmp_path, in_threads, capsys
):
    raw, clip = own_raw
    labels = clip.labels.copy()
    labels[1] = 0
    labels[2, :, : miniature_clips.WIDTH] *= np.cumsum(labels[2] > 0).reshape(
        labels[2].shape
    ) <= (surreal_frames.FEWEST_BODY_PIXELS - 1)
    clip.labels = labels
    clip.write_labels()
    prepared, _ = surreal.prepare(raw, tmp_path / "out", Options(), **ALL)
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
        prepared, _ = surreal.prepare(
            raw, tmp_path / repair, options, repair=repair, **ALL
        )
        label[repair] = read_label(prepared.samples("train")[0].label)
    head = np.count_nonzero(clean[0] == 16)
    assert np.count_nonzero(label["none"] == 16) == head + 6
    np.testing.assert_array_equal(label["thesis"], label["zones"])
    assert np.count_nonzero(label["thesis"] == 16) == head


def test_merged_parts(raw, tmp_path, in_threads):
    plain, _ = surreal.prepare(raw, tmp_path / "plain", Options(), **ALL)
    merged, _ = surreal.prepare(
        raw, tmp_path / "merged", Options(), merge="surreal14", **ALL
    )
    assert merged.labels == surreal.LABELS14
    # Specification 5.1, ids 1 to 24.
    table = [2, 12, 9, 2, 13, 10, 2, 14, 11, 2, 14, 11, 2, 2, 2, 1, 6, 3, 7, 4, 8]
    table = np.array([0, *table, 5, 8, 5])
    for one, other in zip(plain.samples("train"), merged.samples("train")):
        np.testing.assert_array_equal(
            table[read_label(one.label)], read_label(other.label)
        )


def test_merging_keeps_left_and_right():
    """Mirroring then merging is merging then mirroring."""
    mirror, mirror14 = surreal.LABELS.flip_table(), surreal.LABELS14.flip_table()
    merge = np.array(surreal.SURREAL14)
    np.testing.assert_array_equal(merge[mirror[:25]], mirror14[merge])
    for name, other in surreal.LABELS.flip_pairs:
        names = [surreal.LABELS.names[i] for i in (name, other)]
        assert names[0].replace("left", "right") == names[1]
    for name, other in surreal.LABELS14.flip_pairs:
        names = [surreal.LABELS14.names[i] for i in (name, other)]
        assert names[1].replace("left", "right") == names[0]
    sides = [name for name in surreal.LABELS.names if name.startswith("left")]
    assert len(sides) == len(surreal.LABELS.flip_pairs) == 9
    members = sorted(i for ids in surreal.GROUPS.values() for i in ids)
    assert members == list(range(25))
    assert len(surreal.GROUPS) == 13


def test_generated_clips_end_to_end(tmp_path, in_threads):
    """Generated, prepared, verified; joints lie on their parts."""
    generate(tmp_path / "raw", (2, 1, 1), Settings(seed=3, frames=3))
    prepared, _ = synthetic_humans.prepare(
        tmp_path / "raw", tmp_path / "out", Options()
    )
    assert prepared.dataset == "synthetic_humans"
    assert [len(prepared.samples(s)) for s in prepared.splits] == [6, 3, 3]
    assert verify(tmp_path / "out") == []
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--frames", "5", "5"], "--frames: too few values; expected 3 arguments"),
        (["--frames", "5", "x", "5"], "--frames: x; expected a whole number"),
        (["--margin", "-1"], "--margin: -1; expected a number from 0 to 2"),
        (["--size", "320", "256"], "--size: 320 256; expected a square"),
        (["--repair", "best"], "--repair: best; expected one of thesis, zones, none"),
        (["--selection", "no.csv"], "no.csv: No such file"),
    ],
)
def test_wrong_options(arguments, message, raw, tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("prepare_command", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    command = ["surreal", "--src", str(raw), "--out", str(tmp_path / "out")]
    assert command_line.run(module.main, [*command, *arguments]) in (2, 3)
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: {message}")
    assert printed.count("\n") == 1


def test_a_relative_source_is_the_same(raw, tmp_path, in_threads, monkeypatch):
    absolute, _ = surreal.prepare(raw, tmp_path / "one", Options(), **ALL)
    monkeypatch.chdir(raw)
    again, written = surreal.prepare(".", tmp_path / "one", Options(), **ALL)
    assert not written
    other, _ = surreal.prepare(".", tmp_path / "two", Options(), **ALL)
    assert other.manifest_hash == again.manifest_hash == absolute.manifest_hash


def test_ray_gives_the_same(raw, tmp_path, in_threads):
    pytest.importorskip("ray")
    here, _ = surreal.prepare(raw, tmp_path / "here", Options(), **ALL)
    there, _ = surreal.prepare(
        raw, tmp_path / "there", Options(workers=2), executor="ray", **ALL
    )
    assert there.manifest_hash == here.manifest_hash


def test_ray_is_an_extra(raw, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"--executor: ray; expected the extra"):
        surreal.prepare(raw, tmp_path / "out", Options(), executor="ray", **ALL)
    assert os.listdir(tmp_path) == []


def test_opened_folders_have_joints_for_every_sample(raw, tmp_path, in_threads):
    surreal.prepare(raw, tmp_path / "out", Options(), **ALL)
    prepared = open_prepared(tmp_path / "out")
    for split in prepared.splits:
        assert prepared.joints(split).shape == (len(prepared.samples(split)), 24, 2)
