"""The rasteriser against hand arithmetic and an independent ray caster."""

import numpy as np
import pytest

from keras_seg.synthetic import body, camera, motion, raster

# Right angle at (1, 1), legs of 4 px.
TRIANGLE = np.array([[1.0, 1, 2], [5, 1, 2], [1, 5, 2]])


def test_one_triangle_by_hand():
    seen = raster.rasterise(TRIANGLE, np.array([[0, 1, 2]]), (7, 8))
    found = set(zip(seen.rows.tolist(), seen.columns.tolist()))
    inside = {
        (r, c)
        for r in range(7)
        for c in range(8)
        if c + 0.5 > 1 and r + 0.5 > 1 and (c + 0.5) + (r + 0.5) <= 6  # pixel centres
    }
    assert found == inside
    np.testing.assert_allclose(seen.depth, 2, rtol=1e-6)
    np.testing.assert_allclose(seen.weights.sum(axis=1), 1, rtol=1e-6)


def test_back_faces_are_invisible():
    assert len(raster.rasterise(TRIANGLE, np.array([[0, 2, 1]]), (7, 8)).face) == 0


def test_the_nearer_of_two_is_visible_and_depth_is_perspective():
    square = np.array([[0.0, 0], [8, 0], [0, 6], [8, 6]])
    far = np.column_stack([square, [4.0, 4, 4, 4]])
    tilted = np.column_stack([square, [2.0, 8, 2, 8]])  # crosses the far square
    faces = np.array([[0, 1, 2], [1, 3, 2]])
    seen = raster.rasterise(
        np.vstack([far, tilted]), np.vstack([faces, faces + 4]), (6, 8)
    )
    assert len(seen.face) == 48
    for row, column, face, depth in zip(seen.rows, seen.columns, seen.face, seen.depth):
        share = (column + 0.5) / 8  # 1/z is linear in the picture
        z = 1 / ((1 - share) / 2 + share / 8)
        assert depth == pytest.approx(min(z, 4), rel=1e-5), (row, column)
        assert (face >= 2) == (z < 4)


def test_interpolation_is_perspective_correct():
    """Interpolated positions are on the rays through the pixel centres."""
    rng = np.random.default_rng(0)
    points = rng.uniform([-0.5, -0.5, 4], [0.5, 0.5, 9], (30, 3))
    uvz = np.column_stack([160 + 600 * points[:, :2] / points[:, 2:], points[:, 2]])
    faces = rng.permutation(30).reshape(10, 3)
    seen = raster.rasterise(uvz, faces, (240, 320))
    assert len(seen.face) > 500
    hits = seen.interpolate(faces, points)
    u, v = (160 + 600 * hits[:, axis] / hits[:, 2] for axis in (0, 1))
    np.testing.assert_allclose(u, seen.columns + 0.5, atol=2e-3)
    np.testing.assert_allclose(v, seen.rows + 0.5, atol=2e-3)


def test_grid_of_samples_matches_pixel_centres():
    template = body.load("female")
    uvz = camera.project(template.mean @ camera.world_rotation(0.4).T, [6.0, 0.1, 0.1])
    plain = raster.rasterise(uvz, template.faces, (240, 320))
    fine = raster.rasterise(uvz, template.faces, (481, 641), (0.0, 0.0), 2)
    centres = (fine.rows % 2 == 1) & (fine.columns % 2 == 1)
    assert np.array_equal(fine.rows[centres] // 2, plain.rows)
    assert np.array_equal(fine.columns[centres] // 2, plain.columns)
    assert np.array_equal(fine.face[centres], plain.face)


@pytest.mark.peers
def test_equals_an_independent_ray_caster():
    rtcore = pytest.importorskip("embreex.rtcore_scene")
    mesh = pytest.importorskip("embreex.mesh_construction")
    motions = motion.load_all()
    rng = np.random.default_rng(1)
    rows, columns = np.mgrid[:240, :320]
    for name in list(motions)[::4]:
        template = body.load(body.SEXES[int(rng.integers(2))])
        vertices, joints = template.shaped(rng.standard_normal(10) * 0.8)
        pose = motions[name].pose[int(rng.integers(len(motions[name].pose)))]
        rotations, positions = body.pose_joints(
            joints, pose, np.zeros(3), template.parents
        )
        posed = body.skin_vertices(
            vertices, joints, template.skin, rotations, positions
        )
        turn = camera.world_rotation(rng.uniform(0, 6.28))
        world = (posed @ turn.T).astype(np.float32)
        cam_loc = np.array([rng.uniform(6, 9), 0.1, -0.2])

        seen = raster.rasterise(
            camera.project(world, cam_loc), template.faces, (240, 320)
        )
        labels = np.zeros((240, 320), np.uint8)
        labels[seen.rows, seen.columns] = template.face_part[seen.face]

        # u = 160 - 600 (Z - Tz) / d, v = 120 + 600 (Y - Ty) / d, d = Tx - X.
        directions = np.empty((240, 320, 3), np.float32)
        directions[..., 0] = -1
        directions[..., 1] = (rows + 0.5 - 120) / 600
        directions[..., 2] = -(columns + 0.5 - 160) / 600
        scene = rtcore.EmbreeScene()
        mesh.TriangleMesh(scene, world[template.faces])
        origins = np.tile(cam_loc.astype(np.float32), (240 * 320, 1))
        hits = scene.run(origins, directions.reshape(-1, 3))
        expected = np.where(hits >= 0, template.face_part[hits], 0).reshape(240, 320)
        person = (expected > 0) | (labels > 0)
        assert person.sum() > 500
        different = np.count_nonzero(expected[person] != labels[person])
        assert different <= 2, (name, different)  # rays may graze edges
