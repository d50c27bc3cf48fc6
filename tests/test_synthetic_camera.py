"""SURREAL's camera: its published formula, which mirrors."""

import numpy as np
import pytest

from keras_seg.synthetic import body, camera, raster

LEFT_ARM, RIGHT_ARM = 17, 18


def surreal_projection(points, cam_loc):
    """The matrices of SURREAL's own tools: points [N, 3] to pixels [N, 2].

    Extrinsic: rotation [[0,0,1],[0,-1,0],[-1,0,0]] transposed, camera at cam_loc, then
    Blender's camera axes to computer vision's. Intrinsic: 600 px, (160, 120).
    """
    to_blender = np.array([[0.0, 0, 1], [0, -1, 0], [-1, 0, 0]]).T
    to_vision = np.diag([1.0, -1, -1])
    extrinsic = np.hstack([to_blender, -to_blender @ cam_loc.reshape(3, 1)])
    extrinsic = to_vision @ extrinsic
    intrinsic = np.array([[600.0, 0, 160], [0, 600, 120], [0, 0, 1]])
    homogeneous = np.hstack([points, np.ones((len(points), 1))]).T
    image = intrinsic @ extrinsic @ homogeneous
    return (image[:2] / image[2]).T


def test_projection_is_surreals():
    rng = np.random.default_rng(0)
    points = rng.uniform(-1.5, 1.5, (200, 3))
    cam_loc = np.array([7.3, -0.11, 0.2])
    ours = camera.project(points, cam_loc)
    np.testing.assert_allclose(ours[:, :2], surreal_projection(points, cam_loc))
    np.testing.assert_allclose(ours[:, 2], 7.3 - points[:, 0])


def test_joints_2d_are_rounded_pixels():
    joints = np.zeros((3, 24, 2), np.float32)
    joints[:, 5, 1] = [0.5, 0.31, -0.17]
    pixels = camera.joints_2d(joints, np.array([8, 0, 0], np.float32))
    assert pixels.shape == (2, 24, 2)
    assert pixels.dtype == np.float32
    # By hand: 160 + 600 * 0.17 / 7.5 = 173.6, 120 + 600 * 0.31 / 7.5 = 144.8.
    assert pixels[:, 5, 1].tolist() == [174, 145]
    assert pixels[:, 0, 0].tolist() == [160, 120]


def test_world_axes():
    """At zrot 0 the body faces the camera (X); Y points down, Z to its left."""
    turn = camera.world_rotation(0.0)
    assert np.allclose(turn @ [0, 0, 1], [1, 0, 0])
    assert np.allclose(turn @ [0, 1, 0], [0, -1, 0])
    assert np.allclose(turn @ [1, 0, 0], [0, 0, 1])
    for zrot in (0.7, 4.0):
        assert np.linalg.det(camera.world_rotation(zrot)) == pytest.approx(1)
    quarter = camera.world_rotation(np.pi / 2)  # its left turned away from the camera
    assert np.allclose(quarter @ [1, 0, 0], [-1, 0, 0], atol=1e-12)


def label_image(vertices, template, zrot):
    uvz = camera.project(vertices @ camera.world_rotation(zrot).T, [8, 0, 0])
    shape = camera.HEIGHT, camera.WIDTH
    seen = raster.rasterise(uvz, template.faces, shape)
    image = np.zeros(shape, np.uint8)
    image[seen.rows, seen.columns] = template.face_part[seen.face]
    return image


def test_the_camera_mirrors():
    """The LEFT arm of a person who faces the camera is on the LEFT of the picture."""
    template = body.load("female")
    for zrot, arms in ((0.0, (LEFT_ARM, RIGHT_ARM)), (np.pi, (RIGHT_ARM, LEFT_ARM))):
        image = label_image(template.mean, template, zrot)
        left, right = (np.nonzero(image == arm)[1] for arm in arms)
        assert left.max() < 160 < right.min()
        assert (image == 16).sum() > 100  # the head


def test_flipping_with_swapping_is_the_mirrored_pose():
    """A flipped label image with left and right swapped is that of the mirrored pose.

    Only pixels at the borders of parts differ: the mesh is not exactly symmetric.
    """
    template = body.load("male")
    symmetric = template.joints + template.joints[body.MIRRORED_JOINTS] * [-1, 1, 1]
    symmetric = symmetric / 2
    rng = np.random.default_rng(3)
    pose = rng.normal(0, 0.35, (24, 3))
    mirrored = pose[body.MIRRORED_JOINTS] * [1, -1, -1]
    images = []
    for angles, zrot in ((pose, 0.8), (mirrored, -0.8)):
        rotations, positions = body.pose_joints(
            symmetric, angles, np.zeros(3), template.parents
        )
        vertices = body.skin_vertices(
            template.mean, symmetric, template.skin, rotations, positions
        )
        images.append(label_image(vertices, template, zrot))
    swap = np.arange(25)
    swap[1:] = body.MIRRORED_JOINTS + 1
    flipped = swap[images[0][:, ::-1]]
    person = (flipped > 0) | (images[1] > 0)
    assert person.sum() > 1500
    assert (flipped[person] == images[1][person]).mean() > 0.97
    assert (images[0][:, ::-1][person] == images[1][person]).mean() < 0.8
