"""A z-buffer rasteriser in NumPy for meshes of many sub-pixel triangles."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Fragments:
    """What the N samples that a mesh covers show."""

    rows: np.ndarray  # int32 [N], of the sample
    columns: np.ndarray  # int32 [N]
    face: np.ndarray  # int32 [N], the triangle
    depth: np.ndarray  # float32 [N], metres along the viewing direction
    weights: np.ndarray  # float32 [N, 3], perspective-correct barycentric coordinates

    def interpolate(self, faces: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Values [N, K] at the fragments, from values [V, K] at the vertices."""
        corners = faces[self.face]  # [N, 3]
        result = self.weights[:, :1] * values[corners[:, 0]]
        result += self.weights[:, 1:2] * values[corners[:, 1]]
        result += self.weights[:, 2:] * values[corners[:, 2]]
        return result


def rasterise(
    uvz: np.ndarray,
    faces: np.ndarray,
    shape: tuple[int, int],
    offset: tuple[float, float] = (0.5, 0.5),
    scale: float = 1.0,
) -> Fragments:
    """The nearest front face at every sample, ordered by row, then column.

    A front face has its corners in clockwise order in the picture (u right, v down).
    SURREAL's camera mirrors, so these are the faces that are counter-clockwise seen
    from outside.

    Args:
        uvz: [V, 3] pixels and depth in metres, all in front of the camera.
        shape: (rows, columns) of the sample grid.
        offset: (u, v) of the sample in column 0, row 0, in pixels.
        scale: samples per pixel in each direction.
    """
    rows, columns = shape
    x = (uvz[:, 0] - offset[0]) * scale  # sample (c, r) is at x = c, y = r
    y = (uvz[:, 1] - offset[1]) * scale
    x0, x1, x2 = x[faces[:, 0]], x[faces[:, 1]], x[faces[:, 2]]
    y0, y1, y2 = y[faces[:, 0]], y[faces[:, 1]], y[faces[:, 2]]
    area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
    left = np.maximum(np.ceil(np.minimum(np.minimum(x0, x1), x2)), 0)
    right = np.minimum(np.floor(np.maximum(np.maximum(x0, x1), x2)), columns - 1)
    top = np.maximum(np.ceil(np.minimum(np.minimum(y0, y1), y2)), 0)
    bottom = np.minimum(np.floor(np.maximum(np.maximum(y0, y1), y2)), rows - 1)
    kept = np.flatnonzero((area > 0) & (right >= left) & (bottom >= top))

    left, top = left[kept].astype(np.int64), top[kept].astype(np.int64)
    width = right[kept].astype(np.int64) - left + 1
    height = bottom[kept].astype(np.int64) - top + 1
    # One (triangle, sample) pair for every sample in every bounding box.
    count = width * height
    owner = np.repeat(np.arange(len(kept)), count)
    nth = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    row_in_box = nth // width[owner]
    sample_x = left[owner] + nth - row_in_box * width[owner]
    sample_y = top[owner] + row_in_box

    # Twice the area of the triangle between the sample and each edge.
    ax, ay = x0[kept][owner] - sample_x, y0[kept][owner] - sample_y
    bx, by = x1[kept][owner] - sample_x, y1[kept][owner] - sample_y
    cx, cy = x2[kept][owner] - sample_x, y2[kept][owner] - sample_y
    w0 = bx * cy - cx * by
    w1 = cx * ay - ax * cy
    w2 = ax * by - bx * ay
    inside = np.flatnonzero((w0 >= 0) & (w1 >= 0) & (w2 >= 0))

    face = kept[owner[inside]]
    inverse_z = 1.0 / uvz[:, 2]
    weights = np.stack([w0[inside], w1[inside], w2[inside]], axis=1)
    weights *= inverse_z[faces[face]] / area[face][:, None]
    depth = 1.0 / weights.sum(axis=1)
    weights *= depth[:, None]

    sample = sample_y[inside] * columns + sample_x[inside]
    order = np.lexsort((depth, sample))
    ordered = sample[order]
    nearest = order[np.flatnonzero(np.diff(ordered, prepend=-1))]
    sample = sample[nearest]
    return Fragments(
        rows=(sample // columns).astype(np.int32),
        columns=(sample % columns).astype(np.int32),
        face=face[nearest].astype(np.int32),
        depth=depth[nearest].astype(np.float32),
        weights=weights[nearest].astype(np.float32),
    )
