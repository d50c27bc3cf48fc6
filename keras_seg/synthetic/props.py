"""Small meshes on the head: a bun, a ponytail, the brim of a hat.

Each is (vertices float32 [N, 3], skin float32 [N, 24], faces [M, 3], parts uint8 [M]).
"""

import numpy as np

from keras_seg.synthetic import body


def _on_head(points, faces):
    """A mesh that moves with the head and has its label."""
    skin = np.zeros((len(points), body.NUM_JOINTS), np.float32)
    skin[:, body.HEAD] = 1
    part = np.full(len(faces), body.HEAD + 1, np.uint8)
    return points.astype(np.float32), skin, faces, part


def _grid_faces(rows: int, columns: int) -> np.ndarray:
    """Triangles of a grid of vertices whose last column meets the first."""
    row, column = np.mgrid[: rows - 1, :columns].reshape(2, -1)
    right = (column + 1) % columns
    a, b = row * columns + column, row * columns + right
    c, d = a + columns, b + columns
    return np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)])


def ellipsoid(centre: np.ndarray, radii: np.ndarray):
    rows, columns = 10, 16
    tilt = np.linspace(0, np.pi, rows)[:, None]
    turn = np.arange(columns) * 2 * np.pi / columns
    unit = np.stack(
        np.broadcast_arrays(
            np.sin(tilt) * np.sin(turn), np.cos(tilt), np.sin(tilt) * np.cos(turn)
        ),
        axis=-1,
    )
    return _on_head(centre + unit.reshape(-1, 3) * radii, _grid_faces(rows, columns))


def brim(skull: np.ndarray, level: float, whole: bool, backwards: bool):
    """The brim of a hat (`whole`) or the peak of a cap: a ring with two sides."""
    columns = 32
    turn = np.arange(columns) * 2 * np.pi / columns
    inner = np.array([0.078, 0.1])
    if whole:
        width = np.full(columns, 0.065)
    else:
        facing = -np.cos(turn) if backwards else np.cos(turn)
        width = 0.07 * np.clip((facing - 0.35) / 0.4, 0, 1)
    rings = []
    for share in (0.0, 1.0):
        x = np.sin(turn) * (inner[0] + share * width)
        z = np.cos(turn) * (inner[1] + share * width)
        y = level - skull[1] + 0.12 * z - share * 0.012 * (width > 0)
        rings.append(np.stack([x, y, z], axis=1))
    points = np.concatenate(rings) + skull
    faces = _grid_faces(2, columns)
    return _on_head(points, np.concatenate([faces, faces[:, ::-1]]))
