"""SURREAL's clips: pools and strides on a hand-made tree, frames that can be used."""

from pathlib import Path

import miniature_clips
import numpy as np
import pytest

from keras_seg.data.surreal.clips import Clip, Info, find_clips, read_info
from keras_seg.data.surreal.index import (
    IndexedClip,
    excluded,
    index_clips,
    pools,
    usable_frames,
)
from keras_seg.data.surreal.selection import frame_step
from keras_seg.errors import DataError


def in_this_process(work, items):
    yield from map(work, items)


def indexed(split, sequence, number, frames=1):
    name = f"{sequence}_c{number:04d}"
    clip = Clip(split, sequence, name, Path(split, name), (1, 1, 1))
    return IndexedClip(clip, np.ones(frames, bool), np.zeros((frames, 24, 3)))


@pytest.mark.parametrize(
    ("leaky", "expected"), [(False, "c1 c2"), (True, "a1 a3 c1 c2")]
)
def test_test_takes_no_sequence_of_val(leaky, expected):
    """val: clip 2 of a, clip 1 of b. test: these and their neighbours, and c."""
    in_splits = {"train": "a1", "val": "a2 b1", "test": "a1 a2 a3 b1 c1 c2"}
    clips = [
        indexed(split, name[0], int(name[1]))
        for split, names in in_splits.items()
        for name in names.split()
    ]
    found = {
        split: " ".join(c.clip.id.replace("_c000", "") for c in pool)
        for split, pool in pools(clips, leaky).items()
    }
    assert found == {"train": "a1", "val": "a2 b1", "test": expected}


def test_clips_are_chosen_by_the_stride_in_their_files(tmp_path):
    strides = {"run0": 30, "run1": 70, "run2": 50}
    for run, stride in strides.items():
        miniature_clips.make(tmp_path, run=run, stride=stride, frames=1).write()
    clips = find_clips(tmp_path)
    assert len(clips) == 3
    for run, stride in strides.items():
        found, bad = index_clips(clips, tmp_path.resolve(), stride, in_this_process)
        assert [c.clip.stem.parts[-3] for c in found] == [run]
        assert not bad


def test_finds_the_three_files_of_each_clip_only(tmp_path):
    made = miniature_clips.make(tmp_path, "val", "ung_7_2", 12, frames=1).write()
    for ending in ("_depth.mat", "_segmclean.mat", "_info.txt", ".avi"):
        made.path(ending).touch()
    (tmp_path / "cmu" / "val" / "notes.txt").touch()
    (found,) = find_clips(tmp_path)
    named = found.split, found.sequence, found.id
    assert named == ("val", "ung_7_2", "ung_7_2_c0012")
    paths = [made.path(ending) for ending in (".mp4", "_segm.mat", "_info.mat")]
    assert found.sizes == tuple(path.stat().st_size for path in paths)
    with pytest.raises(DataError, match="cmu has no clips"):
        find_clips(tmp_path / "cmu")


def test_one_frame_without_the_last_axis(tmp_path):
    """MATLAB drops a last axis of length 1; SciPy keeps it."""
    made = miniature_clips.make(tmp_path, frames=1).write()
    kept = read_info(made.path("_info.mat"))
    made.write_info(joints2D=made.joints_2d[..., 0], joints3D=made.joints_3d[..., 0])
    dropped = read_info(made.path("_info.mat"))
    for info in (kept, dropped):
        np.testing.assert_array_equal(info.joints_2d, [made.joints_2d[..., 0].T])
        np.testing.assert_array_equal(info.joints_3d, [made.joints_3d[..., 0].T])
        assert info.stride == 50


def test_frames_that_cannot_be_used():
    rng = np.random.default_rng(0)
    joints_2d = rng.uniform(100, 140, (7, 24, 2)).astype(np.float32)
    joints_3d = rng.normal(size=(7, 24, 3)).astype(np.float32)
    joints_2d[1] = 0
    joints_3d[2] = 0
    joints_3d[3, 5, 1] = np.nan
    joints_2d[4, :, 0] += 210  # all of 310..350: the middle is right of 320
    joints_2d[5, :, 1] -= 130  # all of -30..10
    joints_2d[6, 0] = (-60, 120)  # one joint outside; the middle is at about 40
    usable = usable_frames(Info(50, joints_2d, joints_3d))
    assert usable.tolist() == [True, False, False, False, False, False, True]


@pytest.mark.parametrize(
    ("sequence", "subject", "expected"),
    [
        ("18_01", "18", True),
        ("ung_18_3", "18", True),
        ("118_01", "18", False),
        ("01_18", "18", False),
        ("143_21", "143_21", True),
        ("143_02", "143_21", False),
        ("08_01", "8", True),
        ("train00018_walk", "18", False),
        ("train00018_walk", "train00018_walk", True),
        ("18_01", "walk", False),
    ],
)
def test_excluded_subjects(sequence, subject, expected):
    assert excluded(sequence, ["999", subject]) is expected


def test_frames_are_thinned_as_far_as_enough_are_left():
    """12 and 6 frames: every 5th leaves 3 + 2, every 4th 3 + 2, every 3rd 4 + 2."""
    pool = [indexed("val", "a", 1, frames=12), indexed("val", "b", 1, frames=6)]
    steps = [(5, 5), (6, 3), (7, 2), (9, 2), (10, 1), (99, 1), (None, 1)]
    assert [frame_step(pool, count, 5) for count, _ in steps] == [s for _, s in steps]
    assert frame_step(pool, 6, 2) == 2


def write(content):
    return lambda clip: clip.path("_info.mat").write_bytes(content)


MATLAB_7_3 = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\x89HDF\r\n"
DAMAGE = [
    (write(b"no mat file" * 30), "not a MATLAB 5 file"),
    (write(MATLAB_7_3), "not a MATLAB 5 file"),
    (lambda clip: cut_info(clip), "is truncated"),
    (lambda c: c.write_info(joints2D=c.joints_2d[:, 1:]), "has shape (2, 23, 4)"),
    (lambda c: c.write_info(joints3D="none"), "no numeric variable joints3D"),
    (lambda c: c.write_info(joints2D=c.joints_2d[..., 1:]), "frames: {'joints2D': 3"),
    (lambda c: c.write_info(stride=np.uint8([[50, 30]])), "has shape (1, 2)"),
    (lambda c: c.path("_segm.mat").unlink(), "_segm.mat is missing"),
    (lambda clip: link_out(clip.path(".mp4")), "leads out of --src"),
]


def link_out(path):
    outside = path.rename(path.parents[5] / "outside.mp4")
    path.symlink_to(outside)


def cut_info(clip):
    write(clip.path("_info.mat").read_bytes()[:-40])(clip)


@pytest.mark.parametrize(("damage", "message"), DAMAGE)
def test_a_bad_clip_is_named_and_the_others_are_indexed(damage, message, tmp_path):
    raw = tmp_path / "raw"
    first = miniature_clips.make(raw, number=1).write()
    miniature_clips.make(raw, number=2).write()
    damage(first)
    found, bad = index_clips(find_clips(raw), raw.resolve(), 50, in_this_process)
    assert [c.clip.id for c in found] == ["01_01_c0002"]
    ((clip, error),) = bad.items()
    assert clip.id == "01_01_c0001"
    assert "01_01_c0001" in str(error)
    assert message in str(error)
