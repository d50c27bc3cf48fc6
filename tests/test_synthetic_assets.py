"""tools/build_assets.py and its assets: what needs none of the source packages."""

import json
from pathlib import Path

import build_assets
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from keras_seg.synthetic import body, photos

NOTICE = Path(__file__).parents[1] / "NOTICE"


def test_every_asset_has_its_licence():
    notice = NOTICE.read_text()
    files = [path for path in body.ASSETS.rglob("*") if path.is_file()]
    assert len(files) == 12
    for path in files:
        assert path.name in notice
    names = {*photos.NAMES, *(f"texture_{name}" for name in photos.TEXTURES)}
    assert names == set(build_assets.PHOTOS)
    assert sum(path.stat().st_size for path in files) < 3.5e6


def test_phenotype_factors_sum_to_one():
    """So does every family of targets, whatever the phenotype."""
    rng = np.random.default_rng(0)
    race = rng.dirichlet(np.ones(3))
    factors = build_assets.phenotype_factors("female", race, *rng.uniform(0, 1, 5))
    assert all(factor >= 0 for factor in factors.values())
    assert len(factors) == 96
    for prefix, count in (("universal-", 18), ("height/", 36), ("proportions/", 36)):
        assert sum(name.startswith(prefix) for name in factors) == count
    universal = [f for name, f in factors.items() if name.startswith("universal-")]
    assert sum(universal) == pytest.approx(1)
    # By hand: the middle of every scale is the average target.
    middle = build_assets.phenotype_factors("male", [0, 0, 1], 0, 0.5, 0.5, 0.5, 0.5)
    assert {name for name, factor in middle.items() if factor} == {
        "universal-male-young-averagemuscle-averageweight",
        "caucasian-male-young",
    }


def retarget(root, right_knee, loop):
    """A clip of four equal frames in DeepMimic's zero pose but for one knee."""
    frame = [1 / 30, *root, *[1, 0, 0, 0] * 4, right_knee, *[1, 0, 0, 0] * 2, 0]
    frame += [1, 0, 0, 0, 0, *[1, 0, 0, 0] * 2, 0]
    assert len(frame) == 44
    return build_assets.retarget(json.dumps({"Loop": loop, "Frames": [frame] * 4}))


def test_retargeting_lowers_the_arms():
    """Arms hang in the zero pose of the clips and are stretched out in the body's."""
    pose, root, loops = retarget([0, 0.9, 0], 0, "none")
    assert pose.shape == (3, 24, 3)
    assert not loops
    np.testing.assert_allclose(root, [[0, 0.9, 0]] * 3, atol=1e-6)
    for collar, shoulder, out in ((13, 16, 1.0), (14, 17, -1.0)):
        turn = Rotation.from_rotvec(pose[0, collar])
        turn = turn * Rotation.from_rotvec(pose[0, shoulder])
        np.testing.assert_allclose(turn.apply([out, 0, 0]), [0, -1, 0], atol=1e-6)
    legs = pose[:, [1, 2, 4, 5, 7, 8]]
    assert np.abs(legs).max() < 1e-6


def test_retargeting_changes_axes():
    """Forward is x in the clips and z in the body; a bent knee moves the heel back."""
    pose, root, loops = retarget([1.0, 0.9, 0.2], -1.0, "wrap")
    assert loops
    np.testing.assert_allclose(root[0], [-0.2, 0.9, 1.0], atol=1e-6)
    shin = Rotation.from_rotvec(pose[0, 5]).apply([0, -1, 0])  # the right knee
    np.testing.assert_allclose(shin, [0, -np.cos(1), -np.sin(1)], atol=1e-6)


def test_rotation_between_is_the_smallest():
    rng = np.random.default_rng(1)
    for _ in range(5):
        a, b = rng.standard_normal((2, 3))
        b /= np.linalg.norm(b)
        turn = build_assets.rotation_between(a, b)
        np.testing.assert_allclose(turn @ a, b * np.linalg.norm(a), atol=1e-12)
        angle = np.arccos(a @ b / np.linalg.norm(a))
        assert Rotation.from_matrix(turn).magnitude() == pytest.approx(angle)


def test_t_pose_stretches_arms_and_legs():
    """A skeleton with arbitrary arms and legs and a vertex at each joint."""
    joints = body.load("male").joints.astype(float)
    rng = np.random.default_rng(2)
    bent = joints.copy()
    for joint in (18, 19, 20, 21, 22, 23, 4, 5, 7, 8, 10, 11):
        bent[joint] += rng.normal(0, 0.1, 3)
    posed, moved = build_assets.to_t_pose(bent, bent, np.eye(24))
    np.testing.assert_allclose(posed, moved, atol=1e-12)
    for parent, child, axis in ((16, 18, [1, 0, 0]), (19, 21, [-1, 0, 0]), (2, 5, 0)):
        bone = moved[child] - moved[parent]
        expected = [0, -1, 0] if axis == 0 else axis
        np.testing.assert_allclose(bone / np.linalg.norm(bone), expected, atol=1e-9)
        length = np.linalg.norm(bent[child] - bent[parent])
        assert np.linalg.norm(bone) == pytest.approx(length)
