"""Whole clips: labels, joints, light, looks and the files they become."""

import numpy as np
import pytest
from scipy.io import loadmat
from scipy.ndimage import label as components

from keras_seg.synthetic import body, clip, defect, look, motion, scene, shade, writer


@pytest.fixture(scope="module")
def clips():
    """Twelve clips of six frames."""
    return [clip.make_clip(0, "train", index, 6) for index in range(12)]


def test_twelve_clips_of_six_frames_show_all_parts(clips):
    seen = np.unique(np.concatenate([c.segm_clean.ravel() for c in clips]))
    assert seen.tolist() == list(range(25))


def test_a_clip_is_a_function_of_its_name():
    first, again = (clip.make_clip(3, "val", 1, 2, with_depth=True) for _ in range(2))
    for name in ("rgb", "segm", "segm_clean", "depth", "joints_3d", "pose", "shape"):
        assert np.array_equal(getattr(first, name), getattr(again, name)), name
    for other in (
        clip.make_clip(4, "val", 1, 2),
        clip.make_clip(3, "test", 1, 2),
        clip.make_clip(3, "val", 2, 2),
    ):
        assert not np.array_equal(first.shape, other.shape)


def test_joints_2d_are_the_rounded_projection_of_joints_3d(clips):
    """SURREAL's formula, from the float32 numbers as they are stored."""
    for c in clips:
        x, y, z = c.joints_3d.astype(float)
        tx, ty, tz = c.cam_loc.astype(float)
        u = 160 - 600 * (z - tz) / (tx - x)
        v = 120 + 600 * (y - ty) / (tx - x)
        assert np.array_equal(c.joints_2d, np.round(np.stack([u, v])))


def test_joints_lie_in_their_parts(clips):
    """A visible hip, knee or elbow has the labels of the parts that meet there."""
    hits, count = 0, 0
    for c in clips:
        u, v = c.joints_2d.astype(int)
        for t in range(c.segm.shape[0]):
            for joint in (4, 5, 15, 18, 19):
                if 0 <= u[joint, t] < 320 and 0 <= v[joint, t] < 240:
                    count += 1
                    rows = np.s_[max(v[joint, t] - 2, 0) : v[joint, t] + 3]
                    columns = np.s_[max(u[joint, t] - 2, 0) : u[joint, t] + 3]
                    hits += joint + 1 in c.segm_clean[t][rows, columns]
    assert count > 300
    assert hits / count > 0.6  # the rest is behind other parts


def test_people_are_about_as_large_as_in_surreal(clips):
    shares = np.array([(c.segm > 0).mean() for c in clips])
    assert 0.015 < shares.mean() < 0.06
    assert shares.min() > 0.004  # nobody leaves the picture


def test_depth_is_finite_where_somebody_is():
    c = clip.make_clip(1, "test", 0, 2, with_depth=True)
    assert c.depth.dtype == np.float32
    assert np.array_equal(c.segm > 0, c.depth < 1e3)
    assert (c.depth[c.segm == 0] == np.float32(1e10)).all()
    inside = c.depth[c.segm > 0]
    assert abs(inside.mean() - (c.cam_loc[0] - c.joints_3d[0].mean())) < 0.3


def test_people_differ_from_backgrounds(clips):
    """The picture changes where the person is, and the labels say where."""
    for c in clips[:4]:
        moved = np.abs(c.rgb[0].astype(int) - c.rgb[-1]).max(axis=2) > 40
        person = (c.segm[0] > 0) | (c.segm[-1] > 0)
        assert moved[person].mean() > 5 * moved[~person].mean()


def test_defect_is_small_and_labelled_head(clips):
    """Only torso and hips change, to head, in under 2 % of a body's pixels."""
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
    parts = defect.with_defect(template)
    changed = np.flatnonzero(parts != template.face_part)
    assert 40 < len(changed) < 400
    centres = template.mean[template.faces[changed]].mean(axis=1)
    assert (centres[:, 2] > template.joints[9, 2]).all()  # in front
    assert (np.abs(centres[:, 0]) < 0.11).all()


def test_splits_share_no_motion():
    names = [set(clip.MOTIONS[split]) for split in clip.SPLITS]
    assert not (names[0] & names[1])
    assert not (names[0] & names[2])
    assert not (names[1] & names[2])
    assert set.union(*names) == set(motion.load_all())


def test_clothes_change_no_labels():
    """Whatever is worn: the body keeps its faces and parts, nothing sticks far out."""
    styles = set()
    for index in range(24):
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
    """No two of many backgrounds are alike, and most are not photographs."""
    small, kinds = [], []
    for index in range(16):
        background = scene.draw(
            np.random.default_rng(index), np.array([8.0, 0, 0]), 0.9
        )
        assert background.linear.shape == (240, 320, 3)
        assert np.isfinite(background.linear).all()
        assert background.linear.min() >= 0
        picture = shade.linear_to_bytes(background.linear)
        small.append(picture[::40, ::40].astype(float).ravel())
        kinds.append(background.description.split()[0])
    small = np.array(small)
    apart = np.abs(small[:, None] - small[None]).mean(axis=2)
    assert apart[~np.eye(len(apart), dtype=bool)].min() > 8
    assert kinds.count("photo") < len(kinds) / 2
    assert {"room", "outdoors"} <= set(kinds)


def test_irradiance_of_constant_light():
    """Light from everywhere, L00 = 1: 0.886227 whatever the normal; from above: by
    hand 0.886227 - 2 * 0.511664 * 0.5 * y for L1-1 = -0.5."""
    rng = np.random.default_rng(0)
    normals = rng.standard_normal((50, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    light = np.zeros(9)
    light[0] = 1
    np.testing.assert_allclose(shade.irradiance(normals, light), 0.886227, rtol=1e-5)
    light[1] = -0.5
    expected = np.maximum(0.886227 - 0.511664 * normals[:, 1], 0.02)
    np.testing.assert_allclose(shade.irradiance(normals, light), expected, rtol=1e-5)


def test_irradiance_is_the_integral_of_the_light():
    """All nine coefficients, against a Monte Carlo integral over the hemisphere."""
    rng = np.random.default_rng(0)
    light = rng.uniform(0, 0.2, 9)
    light[0] = 2
    d = rng.standard_normal((400_000, 3))
    d /= np.linalg.norm(d, axis=1, keepdims=True)
    x, y, z = d.T
    # The real spherical harmonics, written out.
    basis = [0.282095 + 0 * x, 0.488603 * y, 0.488603 * z, 0.488603 * x]
    basis += [1.092548 * x * y, 1.092548 * y * z, 0.315392 * (3 * z * z - 1)]
    basis += [1.092548 * x * z, 0.546274 * (x * x - y * y)]
    radiance = sum(c * b for c, b in zip(light, basis))
    normals = np.array([[0.0, 1, 0], [0.6, -0.64, 0.48], [0, 0, -1], [1, 0, 0]])
    integral = (radiance * np.maximum(normals @ d.T, 0)).mean(axis=1) * 4 * np.pi
    np.testing.assert_allclose(shade.irradiance(normals, light), integral, rtol=0.01)


def test_srgb_tables():
    levels = np.arange(256, dtype=np.uint8)
    linear = shade.bytes_to_linear(levels)
    assert linear[255] == 1
    # IEC 61966-2-1 by hand: ((188/255 + 0.055)/1.055)^2.4 = 0.5029.
    assert linear[188] == pytest.approx(0.5029, abs=1e-4)
    assert np.abs(shade.linear_to_bytes(linear).astype(int) - levels).max() <= 1


@pytest.mark.parametrize("frames", [1, 3])
def test_files_have_surreals_types(tmp_path, frames):
    made = clip.make_clip(0, "val", 5, frames, with_depth=True)
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
    for name, (dtype, shape) in expected.items():
        assert info[name].dtype == dtype, name
        assert info[name].shape == shape, name
    assert info["stride"].item() == 50
    assert info["sequence"].tolist() == [made.sequence]
    assert info["source"].tolist() == ["synth"]
    for name in ("bg", "cloth"):  # MATLAB cells
        assert info[name].dtype == object
        assert info[name].shape == (1, frames)
        assert isinstance(info[name][0, 0].item(), str)
    assert np.array_equal(info["joints3D"], made.joints_3d)

    for name, key, dtype, images in (
        ("segm", "segm", "uint8", made.segm),
        ("segmclean", "segm", "uint8", made.segm_clean),
        ("depth", "depth", "float32", made.depth),
    ):
        arrays = loadmat(tmp_path / f"{stem}_{name}.mat")
        found = [k for k in arrays if not k.startswith("__")]
        assert found == [f"{key}_{k + 1}" for k in range(frames)]
        for k in range(frames):
            assert arrays[f"{key}_{k + 1}"].dtype == dtype
            assert np.array_equal(arrays[f"{key}_{k + 1}"], images[k])


def read_video(path):
    import cv2

    video = cv2.VideoCapture(str(path))
    frames = []
    while (read := video.read())[0]:
        frames.append(read[1][..., ::-1])
    return np.array(frames), video.get(cv2.CAP_PROP_FPS)


def smooth_frames(count):
    rows, columns = np.mgrid[:240, :320]
    frames = np.empty((count, 240, 320, 3), np.uint8)
    for k in range(count):
        frames[k, ..., 0] = rows
        frames[k, ..., 1] = columns // 2 + 10 * k
        frames[k, ..., 2] = 90
    return frames


def test_video_is_h264_at_30_frames_a_second(tmp_path):
    av = pytest.importorskip("av")
    frames = smooth_frames(4)
    writer.write_video(tmp_path / "a.mp4", frames)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.pix_fmt == "yuv420p"
        assert stream.average_rate == 30
    found, fps = read_video(tmp_path / "a.mp4")
    assert fps == 30
    assert found.shape == frames.shape
    assert np.abs(found.astype(int) - frames).mean() < 3


def test_equal_frames_give_equal_bytes_wherever_they_lie_in_memory(tmp_path):
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
    for _ in range(15):
        # Leave holes, so that the encoder's buffers lie elsewhere every time.
        blocks = [np.zeros(rng.integers(1000, 1_000_000)) for _ in range(20)]
        del blocks[::2]
        writer.write_video(tmp_path / "a.mp4", frames)
        found.add((tmp_path / "a.mp4").read_bytes())
    assert len(found) == 1


def test_video_without_pyav(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    frames = smooth_frames(3)
    writer.write_video(tmp_path / "a.mp4", frames)
    found, fps = read_video(tmp_path / "a.mp4")
    assert fps == 30
    assert found.shape == frames.shape
    assert np.abs(found.astype(int) - frames).mean() < 6
