"""The body model, the motions and their assets."""

import numpy as np
import pytest
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from keras_seg.synthetic import body, motion

# The parents of SMPL's joints, from SURREAL's documentation.
PARENTS = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19]
PARENTS += [20, 21]


@pytest.fixture(params=body.SEXES)
def template(request):
    return body.load(request.param)


def test_mesh_has_the_documented_counts(template):
    assert template.mean.shape == (13524, 3)
    assert template.faces.shape == (27036, 3)
    assert template.directions.shape == (10, 13524, 3)
    assert template.parents.tolist() == PARENTS
    counts = np.bincount(template.face_part, minlength=25)[1:]
    documented = "442 674 674 342 469 469 424 631 631 1678 1497 1497 486 66 66 8438 "
    documented += "591 591 494 494 484 484 2707 2707"
    assert counts.tolist() == [int(n) for n in documented.split()]


def test_mesh_is_closed_to_the_outside(template):
    """Faces are counter-clockwise: the signed volume is a person's."""
    a, b, c = (template.mean[template.faces[:, k]] for k in range(3))
    volume = np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6
    assert 0.04 < volume < 0.11  # m3


def test_labels_are_symmetric(template):
    centres = template.mean[template.faces].mean(axis=1)
    distance, twin = KDTree(centres).query(centres * [-1, 1, 1])
    part_of_mirror = body.MIRRORED_JOINTS[template.face_part - 1] + 1
    paired = distance < 1e-3
    assert paired.mean() > 0.98
    same = template.face_part[twin[paired]] == part_of_mirror[paired]
    middle = np.abs(centres[paired, 0]) < 0.01  # faces on the line between two parts
    assert same[~middle].all()
    assert same.mean() > 0.99


def test_t_pose_and_pelvis_are_where_smpl_has_them(template):
    joints = template.joints
    assert np.allclose(joints[0], 0)
    shoulder, elbow, wrist = joints[[16, 18, 20]]
    assert np.allclose([elbow[1:], wrist[1:]], shoulder[1:], atol=2e-3)
    hip, knee, ankle = joints[[1, 4, 7]]
    assert np.allclose([knee[[0, 2]], ankle[[0, 2]]], hip[[0, 2]], atol=2e-3)
    assert 0.08 < -hip[1] < 0.11  # SMPL's pelvis is 9 cm above its hips


def test_people_have_the_heights_of_people():
    rng = np.random.default_rng(0)
    for sex, mean in (("female", 1.62), ("male", 1.74)):
        shapes = rng.standard_normal((40, 10))
        heights = [np.ptp(body.load(sex).shaped(s)[0][:, 1]) for s in shapes]
        assert np.mean(heights) == pytest.approx(mean, abs=0.06)
        assert 0.05 < np.std(heights) < 0.16


def posed(template, pose, pelvis):
    """Vertices [V, 3] and joints [24, 3] of the mean body in a pose."""
    rotations, positions = body.pose_joints(
        template.joints, pose, pelvis, template.parents
    )
    vertices = body.skin_vertices(
        template.mean, template.joints, template.skin, rotations, positions
    )
    return vertices, positions


def test_skinning_moves_a_rigid_part_rigidly(template):
    rng = np.random.default_rng(1)
    pose = rng.normal(0, 0.5, (24, 3))
    vertices, positions = posed(template, pose, np.array([1.0, 2, 3]))
    head = np.flatnonzero(template.skin[:, 15] == 1)
    assert len(head) > 1000
    # By hand: the head's rotation is the product along pelvis, spine, neck, head.
    turn = Rotation.identity()
    for joint in (0, 3, 6, 9, 12, 15):
        turn = turn * Rotation.from_rotvec(pose[joint])
    expected = turn.apply(template.mean[head] - template.joints[15]) + positions[15]
    np.testing.assert_allclose(vertices[head], expected, atol=2e-6)


def test_zero_pose_is_the_identity(template):
    vertices, _ = posed(template, np.zeros((24, 3)), template.joints[0])
    np.testing.assert_allclose(vertices, template.mean, atol=1e-6)


def test_there_are_twenty_motions_without_jumps():
    motions = motion.load_all()
    assert len(motions) == 20
    for name, one in motions.items():
        turns = Rotation.from_rotvec(one.pose.reshape(-1, 3))
        rows = np.arange(len(one.pose) * 24).reshape(-1, 24)
        step = turns[rows[:-1].ravel()].inv() * turns[rows[1:].ravel()]
        assert step.magnitude().max() < 1.2, name  # rad in 1/30 s


@pytest.mark.parametrize("name", ["walk", "0walk_forward", "turn_left0"])
def test_walkers_stay_on_the_floor(name, template):
    """The lowest point of a walking body stays level: retargeting is right."""
    pose, root = motion.sample(motion.load_all()[name], np.arange(0, 2.6, 0.2))
    path = motion.pelvis_path(pose, root, template.joints)
    lowest = [posed(template, *at)[0][:, 1].min() for at in zip(pose, path)]
    assert np.std(lowest) < 0.01
    assert abs(np.mean(lowest)) < 0.03


def test_a_looping_walk_continues_where_it_ended():
    walk = motion.load_all()["walk"]
    times = np.arange(0, 4, 1 / 30)
    pose, root = motion.sample(walk, times)
    speed = np.linalg.norm(np.diff(root, axis=0), axis=1) * 30
    assert speed.max() < 2.0  # m/s: no jump between two rounds
    assert np.linalg.norm(root[-1, [0, 2]]) > 3.0  # and no return to the start
    local = Rotation.from_rotvec(pose[:, 1]).as_matrix()
    assert np.abs(np.diff(local, axis=0)).max() < 0.35


def test_sampling_reproduces_the_stored_frames():
    for name in ("kick", "turn_right0"):
        one = motion.load_all()[name]
        pose, root = motion.sample(one, np.arange(5, 20) / 30)
        np.testing.assert_allclose(root, one.root[5:20], atol=1e-6)
        stored = Rotation.from_rotvec(one.pose[5:20].reshape(-1, 3))
        off = stored.inv() * Rotation.from_rotvec(pose.reshape(-1, 3))
        assert off.magnitude().max() < 1e-5


def test_mirrored_motion_is_the_mirrored_body(template):
    pose, root = motion.sample(motion.load_all()["dance_a"], np.array([0.4]))
    mirrored, mirrored_root = motion.mirrored(pose, root)
    symmetric = template.joints.copy()
    symmetric += symmetric[body.MIRRORED_JOINTS] * [-1, 1, 1]
    symmetric /= 2

    def place(angles, at):
        return body.pose_joints(symmetric, angles, at, template.parents)[1]

    expected = place(pose[0], root[0])[body.MIRRORED_JOINTS] * [-1, 1, 1]
    np.testing.assert_allclose(place(mirrored[0], mirrored_root[0]), expected)
