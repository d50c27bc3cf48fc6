"""tools/build_assets.py and what it made: pieces that need no package."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from keras_seg.synthetic import body, photos

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def build_assets():
    path = ROOT / "tools" / "build_assets.py"
    spec = importlib.util.spec_from_file_location("build_assets", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_asset_has_its_licence(build_assets):
    notice = (ROOT / "NOTICE").read_text()
    files = [path for path in body.ASSETS.rglob("*") if path.is_file()]
    assert len(files) == 12
    for path in files:
        assert path.name in notice
    names = {*photos.NAMES, *(f"texture_{name}" for name in photos.TEXTURES)}
    assert names == set(build_assets.PHOTOS)
    assert sum(path.stat().st_size for path in files) < 3.5e6


def test_phenotype_factors_share_out_one(build_assets):
    """Every family of targets is weighted by 1 in all, whatever the phenotype."""
    rng = np.random.default_rng(0)
    race = rng.dirichlet(np.ones(3))
    factors = build_assets.phenotype_factors("female", race, *rng.uniform(0, 1, 5))
    assert all(factor >= 0 for factor in factors.values())
    assert len(factors) == 96
    for prefix, count in (("universal-", 18), ("height/", 36), ("proportions/", 36)):
        assert sum(name.startswith(prefix) for name in factors) == count
    universal = [f for name, f in factors.items() if name.startswith("universal-")]
    assert sum(universal) == pytest.approx(1)
    # By hand: the middle of every scale is the average target alone.
    middle = build_assets.phenotype_factors("male", [0, 0, 1], 0, 0.5, 0.5, 0.5, 0.5)
    assert {name for name, factor in middle.items() if factor} == {
        "universal-male-young-averagemuscle-averageweight",
        "caucasian-male-young",
    }


def test_retargeting_hangs_the_arms(build_assets):
    """The clips' zero pose stands with hanging arms, our body has them stretched."""
    still = [1 / 30, 0, 0.9, 0, *[1, 0, 0, 0] * 4, 0, *[1, 0, 0, 0] * 2, 0]
    still += [1, 0, 0, 0, 0, *[1, 0, 0, 0] * 2, 0]
    assert len(still) == 44
    clip = json.dumps({"Loop": "none", "Frames": [still] * 4})
    pose, root, loops = build_assets.retarget(clip)
    assert pose.shape == (3, 24, 3)
    assert not loops
    np.testing.assert_allclose(root, [[0, 0.9, 0]] * 3, atol=1e-6)
    for collar, shoulder, out in ((13, 16, 1.0), (14, 17, -1.0)):
        turn = Rotation.from_rotvec(pose[0, collar])
        turn = turn * Rotation.from_rotvec(pose[0, shoulder])
        np.testing.assert_allclose(turn.apply([out, 0, 0]), [0, -1, 0], atol=1e-6)
    legs = pose[:, [1, 2, 4, 5, 7, 8]]
    assert np.abs(legs).max() < 1e-6


def test_retargeting_turns_axes(build_assets):
    """Forward is x there and z here; a bent knee brings the heel back."""
    frame = [1 / 30, 1.0, 0.9, 0.2, *[1, 0, 0, 0] * 4, -1.0, *[1, 0, 0, 0] * 2, 0]
    frame += [1, 0, 0, 0, 0, *[1, 0, 0, 0] * 2, 0]
    clip = json.dumps({"Loop": "wrap", "Frames": [frame] * 4})
    pose, root, loops = build_assets.retarget(clip)
    assert loops
    np.testing.assert_allclose(root[0], [-0.2, 0.9, 1.0], atol=1e-6)
    shin = Rotation.from_rotvec(pose[0, 5]).apply([0, -1, 0])  # the right knee
    np.testing.assert_allclose(shin, [0, -np.cos(1), -np.sin(1)], atol=1e-6)


def test_rotation_between_is_the_smallest(build_assets):
    rng = np.random.default_rng(1)
    for _ in range(5):
        a, b = rng.standard_normal((2, 3))
        b /= np.linalg.norm(b)
        turn = build_assets.rotation_between(a, b)
        np.testing.assert_allclose(turn @ a, b * np.linalg.norm(a), atol=1e-12)
        angle = np.arccos(a @ b / np.linalg.norm(a))
        assert Rotation.from_matrix(turn).magnitude() == pytest.approx(angle)


def test_t_pose_stretches_arms_and_legs(build_assets):
    """A skeleton of points with any arms and legs; each vertex sits on a joint."""
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
