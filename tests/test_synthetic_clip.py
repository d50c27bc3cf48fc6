"""Whole clips: labels, joints, light, looks and the files of a clip."""

import sys

import cv2
import numpy as np
import pytest
from scipy.io import loadmat
from scipy.ndimage import label as components

from keras_seg.synthetic import body, clip, defect, look, motion, scene, shade, writer


@pytest.fixture(scope="module")
def clips():
    """Ten clips of three frames."""
    return [clip.make_clip(0, "train", index, 3) for index in range(10)]


@pytest.fixture(scope="module")
def with_depth():
    """{frames: clip} of one and of two frames."""
    return {n: clip.make_clip(0, "test", n, n, with_depth=True) for n in (1, 2)}


def test_a_few_clips_show_all_parts(clips):
    seen = np.unique(np.concatenate([c.segm_clean.ravel() for c in clips]))
    assert seen.tolist() == list(range(25))


def test_a_clip_is_a_function_of_seed_split_and_index(clips, with_depth):
    first, again = with_depth[1], clip.make_clip(0, "test", 1, 1, with_depth=True)
    for name in ("rgb", "segm", "segm_clean", "depth", "joints_3d", "pose", "shape"):
        assert np.array_equal(getattr(first, name), getattr(again, name)), name
    different = [*clips, *with_depth.values(), clip.make_clip(1, "test", 1, 1)]
    assert len({c.shape.tobytes() for c in different}) == len(different)


def test_joints_2d_are_the_rounded_projection_of_joints_3d(clips):
    """SURREAL's formula, applied to the float32 numbers that are stored."""
    for c in clips:
        x, y, z = c.joints_3d.astype(float)
        tx, ty, tz = c.cam_loc.astype(float)
        u = 160 - 600 * (z - tz) / (tx - x)
        v = 120 + 600 * (y - ty) / (tx - x)
        assert np.array_equal(c.joints_2d, np.round(np.stack([u, v])))


def test_joints_are_in_their_parts(clips):
    """Knees, head and elbows have their labels near by, unless they are hidden."""
    hits = []
    for c in clips:
        for t, labels in enumerate(c.segm_clean):
            u, v = c.joints_2d[..., t].astype(int)
            for joint in (4, 5, 15, 18, 19):
                if 0 <= u[joint] < 320 and 0 <= v[joint] < 240:
                    rows = np.s_[max(v[joint] - 2, 0) : v[joint] + 3]
                    columns = np.s_[max(u[joint] - 2, 0) : u[joint] + 3]
                    hits.append(joint + 1 in labels[rows, columns])
    assert len(hits) > 125
    assert np.mean(hits) > 0.6


def test_people_are_as_large_as_in_surreal(clips):
    shares = np.array([(c.segm > 0).mean() for c in clips])
    assert 0.015 < shares.mean() < 0.06
    assert shares.min() > 0.004  # nobody leaves the picture


def test_depth_is_finite_on_the_person(with_depth):
    c = with_depth[2]
    assert c.depth.dtype == np.float32
    assert np.array_equal(c.segm > 0, c.depth < 1e3)
    assert (c.depth[c.segm == 0] == np.float32(1e10)).all()
    inside = c.depth[c.segm > 0]
    assert abs(inside.mean() - (c.cam_loc[0] - c.joints_3d[0].mean())) < 0.3


def test_people_differ_from_backgrounds(clips):
    for c in clips[:4]:
        moved = np.abs(c.rgb[0].astype(int) - c.rgb[-1]).max(axis=2) > 40
        person = (c.segm[0] > 0) | (c.segm[-1] > 0)
        assert moved[person].mean() > 5 * moved[~person].mean()


def test_defect_is_small_and_labelled_head(clips):
    """Only trunk and hips change, to head, and under 2 % of the body's pixels."""
    changed, body_pixels, specks = 0, 0, 0
    for c in clips:
        different = c.segm != c.segm_clean
        assert (c.segm[different] == 16).all()
        clean = c.segm_clean[different]
        assert np.isin(clean, [1, 2, 3, 4, 7, 10, 14, 15]).all()
        changed += different.sum()
        body_pixels += (c.segm > 0).sum()
        for image, clean_image in zip(c.segm, c.segm_clean):
            eight = np.ones((3, 3))
            specks += components(image == 16, eight)[1]
            specks -= components(clean_image == 16, eight)[1]
    assert 0 < changed / body_pixels < 0.02
    assert specks > 5


def test_defect_is_fixed_on_the_mesh():
    template = body.load("female")
    parts = defect.defective_parts(template)
    changed = np.flatnonzero(parts != template.face_part)
    assert 40 < len(changed) < 400
    centres = template.mean[template.faces[changed]].mean(axis=1)
    assert (centres[:, 2] > template.joints[9, 2]).all()  # in front
    assert (np.abs(centres[:, 0]) < 0.11).all()


def test_splits_share_no_motion():
    names = [name for split in clip.SPLITS for name in clip.MOTIONS[split]]
    assert sorted(names) == sorted(motion.load_all())


def test_clothes_change_no_labels():
    """Every outfit leaves the body's faces and parts alone and stays close to it."""
    styles = set()
    for index in range(14):
        sex = body.SEXES[index % 2]
        person = look.Person(np.random.default_rng([9, index]), sex)
        template = body.load(sex)
        own = len(template.faces)
        assert np.array_equal(person.faces[:own], template.faces)
        assert np.array_equal(person.face_part[:own], template.face_part)
        assert person.faces.max() < len(person.vertices)
        assert person.face_part.min() >= 1
        assert person.face_part.max() <= 24
        np.testing.assert_allclose(person.skin.sum(axis=1), 1, atol=2e-3)
        bare, _ = template.shaped(person.shape)
        pushed = np.linalg.norm(person.vertices[: len(bare)] - bare, axis=1)
        assert 0.002 < pushed.max() < 0.09
        styles.add(person.description.split("hair-")[1])
    assert len(styles) >= 5


def test_backgrounds_differ():
    small, kinds = [], []
    for index in range(9):
        rng = np.random.default_rng(index)
        background = scene.draw(rng, np.array([8.0, 0, 0]), 0.9)
        assert background.linear.shape == (240, 320, 3)
        assert np.isfinite(background.linear).all()
        assert background.linear.min() >= 0
        small.append(255 * shade.to_srgb(background.linear[::40, ::40]).ravel())
        kinds.append(background.description.split()[0])
    small = np.array(small)
    apart = np.abs(small[:, None] - small[None]).mean(axis=2)
    assert apart[~np.eye(len(apart), dtype=bool)].min() > 8
    assert kinds.count("photo") < len(kinds) / 2
    assert {"room", "outdoors"} <= set(kinds)


def test_irradiance_is_the_integral_of_the_light():
    """All nine coefficients, against a Monte Carlo integral over the hemisphere."""
    rng = np.random.default_rng(0)
    light = rng.uniform(0, 0.2, 9)
    light[0] = 2
    d = rng.standard_normal((400_000, 3))
    d /= np.linalg.norm(d, axis=1, keepdims=True)
    x, y, z = d.T
    # The real spherical harmonics.
    basis = [0.282095 + 0 * x, 0.488603 * y, 0.488603 * z, 0.488603 * x]
    basis += [1.092548 * x * y, 1.092548 * y * z, 0.315392 * (3 * z * z - 1)]
    basis += [1.092548 * x * z, 0.546274 * (x * x - y * y)]
    radiance = sum(c * b for c, b in zip(light, basis))
    normals = np.array([[0.0, 1, 0], [0.6, -0.64, 0.48], [0, 0, -1], [1, 0, 0]])
    integral = (radiance * np.maximum(normals @ d.T, 0)).mean(axis=1) * 4 * np.pi
    np.testing.assert_allclose(shade.irradiance(normals, light), integral, rtol=0.01)
    # By hand: from everywhere, then from above, where 2 * 0.511664 * 0.5 * y is added.
    for light, expected in (
        ([1] + [0] * 8, 0.886227),
        ([1, -0.5] + [0] * 7, 0.886227 - 0.511664 * normals[:, 1]),
    ):
        found = shade.irradiance(normals, np.array(light))
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_srgb_tables():
    levels = np.arange(256, dtype=np.uint8)
    linear = shade.bytes_to_linear(levels)
    assert linear[255] == 1
    # IEC 61966-2-1 by hand: ((188/255 + 0.055)/1.055)^2.4 = 0.5029.
    assert linear[188] == pytest.approx(0.5029, abs=1e-4)
    # The film is sRGB up to its knee at 0.65, level 209.
    film = shade.film_to_bytes(linear).astype(int)
    assert np.abs(film - levels)[:210].max() <= 1
    assert (np.diff(film) >= 0).all()


@pytest.mark.parametrize("frames", [1, 2])
def test_files_have_surreals_types(tmp_path, with_depth, frames):
    made = with_depth[frames]
    writer.write_clip(tmp_path, made)
    stem = f"{made.sequence}_c0001"
    names = {path.name.removeprefix(stem) for path in tmp_path.iterdir()}
    mats = {"_segm.mat", "_segmclean.mat", "_depth.mat", "_info.mat"}
    assert names == {".mp4", *mats}
    info = loadmat(tmp_path / f"{stem}_info.mat")
    expected = {
        "clipNo": ("uint8", (1, 1)),
        "gender": ("uint8", (frames, 1)),
        "light": ("float32", (9, frames)),
        "stride": ("uint8", (1, 1)),
        "camDist": ("float32", (1, 1)),
        "camLoc": ("float32", (3, 1)),
        "joints2D": ("float32", (2, 24, frames)),
        "joints3D": ("float32", (3, 24, frames)),
        "pose": ("float32", (72, frames)),
        "shape": ("float32", (10, frames)),
        "zrot": ("float32", (frames, 1)),
    }
    assert {n: (info[n].dtype.name, info[n].shape) for n in expected} == expected
    assert info["stride"].item() == 50
    assert info["sequence"].tolist() == [made.sequence]
    assert info["source"].tolist() == ["synth"]
    for name in ("bg", "cloth"):  # MATLAB cells
        assert (info[name].dtype, info[name].shape) == (object, (1, frames))
        assert isinstance(info[name][0, 0].item(), str)
    assert np.array_equal(info["joints3D"], made.joints_3d)

    for name, key, dtype, images in (
        ("segm", "segm", "uint8", made.segm),
        ("segmclean", "segm", "uint8", made.segm_clean),
        ("depth", "depth", "float32", made.depth),
    ):
        arrays = loadmat(tmp_path / f"{stem}_{name}.mat")
        found = {k: array for k, array in arrays.items() if not k.startswith("__")}
        assert list(found) == [f"{key}_{k + 1}" for k in range(frames)]
        for array, image in zip(found.values(), images):
            assert array.dtype == dtype
            assert np.array_equal(array, image)


@pytest.mark.parametrize(("encoder", "error"), [("av", 3), ("opencv", 6)])
def test_video_has_the_frames_at_30_a_second(tmp_path, monkeypatch, encoder, error):
    path = tmp_path / "a.mp4"
    if encoder == "opencv":  # without PyAV
        monkeypatch.setitem(sys.modules, "av", None)
    else:
        av = pytest.importorskip("av")
    rows, columns = np.mgrid[:240, :320]
    frames = np.full((4, 240, 320, 3), 90, np.uint8)
    frames[..., 0] = rows
    for k in range(4):
        frames[k, ..., 1] = columns // 2 + 10 * k
    writer.write_video(path, frames)
    if encoder == "av":
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert stream.codec_context.name == "h264"
            assert stream.pix_fmt == "yuv420p"
            assert stream.average_rate == 30
    video = cv2.VideoCapture(str(path))
    assert video.get(cv2.CAP_PROP_FPS) == 30
    found = [video.read()[1][..., ::-1] for _ in range(4)]
    assert not video.read()[0]
    assert np.abs(np.array(found).astype(int) - frames).mean() < error


def test_equal_frames_give_equal_bytes_wherever_they_are_in_memory(tmp_path):
    pytest.importorskip("av")
    rng = np.random.default_rng(0)
    scene = np.full((240, 320, 3), 128, np.uint8)
    for _ in range(60):
        top, bottom = np.sort(rng.integers(0, 240, 2))
        left, right = np.sort(rng.integers(0, 320, 2))
        scene[top : bottom + 1, left : right + 1] = rng.integers(0, 256, 3)
    frames = np.stack([np.roll(scene, 2 * k, axis=1) for k in range(4)])
    frames = np.clip(frames + rng.normal(0, 2, frames.shape), 0, 255).astype(np.uint8)
    found = set()
    for _ in range(10):
        # Leave holes, so that the encoder's buffers are elsewhere every time.
        blocks = [np.zeros(rng.integers(1000, 1_000_000)) for _ in range(20)]
        del blocks[::2]
        writer.write_video(tmp_path / "a.mp4", frames)
        found.add((tmp_path / "a.mp4").read_bytes())
    assert len(found) == 1
