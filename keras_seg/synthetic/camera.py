"""SURREAL's world and camera, from its published formula.

World: X towards the camera, Y DOWN, Z to the side; the origin is the pelvis in the
first frame of a clip. The camera is at camLoc = (distance, dy, dz) and looks along -X,
with a focal length of 600 px and the principal point at (160, 120).

The formula is a REFLECTION (determinant -1): SURREAL's pictures are mirror images. The
left hand of a person who faces the camera is on the left of the picture. The centre of
pixel (column i, row j) is at (i + 0.5, j + 0.5).
"""

import numpy as np

WIDTH, HEIGHT = 320, 240
FOCAL_PX = 600.0
CENTRE_PX = (160.0, 120.0)

# Body axes (x left, y up, z forward) in world axes: X = z, Y = -y, Z = x.
BODY_TO_WORLD = np.array([[0.0, 0, 1], [0, -1, 0], [1, 0, 0]])


def world_rotation(zrot: float) -> np.ndarray:
    """[3, 3]: body to world axes, after a turn of zrot radians about the vertical."""
    sine, cosine = np.sin(zrot), np.cos(zrot)
    turn = np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])
    return BODY_TO_WORLD @ turn


def project(points: np.ndarray, cam_loc: np.ndarray) -> np.ndarray:
    """World points [..., 3] to (u px, v px, depth m) [..., 3], float64."""
    relative = np.asarray(points, float) - np.asarray(cam_loc, float).reshape(3)
    depth = -relative[..., 0]
    u = CENTRE_PX[0] - FOCAL_PX * relative[..., 2] / depth
    v = CENTRE_PX[1] + FOCAL_PX * relative[..., 1] / depth
    return np.stack([u, v, depth], axis=-1)


def joints_2d(joints_3d: np.ndarray, cam_loc: np.ndarray) -> np.ndarray:
    """SURREAL's joints2D [2, ...] of joints3D [3, ...]: float32, whole pixels."""
    uvz = project(np.moveaxis(joints_3d, 0, -1), cam_loc)
    return np.round(np.moveaxis(uvz[..., :2], -1, 0)).astype(np.float32)
