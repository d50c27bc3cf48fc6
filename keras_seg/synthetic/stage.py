"""A small renderer for still scenes made of textured rectangles.

Axes in metres: x right, y up, z into the picture; the floor is y = 0. Unlike people
(see `camera`) these scenes are not mirrored, which nobody can see.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from keras_seg.synthetic import camera, noise, shade
from keras_seg.synthetic.draws import pick

SAMPLES = 2  # per pixel and direction
LEVELS = 6  # of the texture pyramids
NEAR_M = 0.25


@dataclass(frozen=True)
class View:
    """The camera of a scene."""

    height: float = 1.0  # metres above the floor
    focal: float = camera.FOCAL_PX
    pitch: float = 0.0  # radians, positive looks up
    roll: float = 0.0


class Stage:
    """Textured rectangles, drawn by `render`."""

    def __init__(self, view: View):
        self.view = view
        sine, cosine = np.sin(view.pitch), np.cos(view.pitch)
        tilt = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
        sine, cosine = np.sin(view.roll), np.cos(view.roll)
        lean = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
        self.to_eye = lean @ tilt  # world axes to eye axes (x right, y up, z forward)
        self.eye = np.array([0.0, view.height, 0.0])
        self.surfaces: list[np.ndarray] = []  # sRGB [256, 256, 3 or 4]
        self.quads: list[tuple] = []
        self.ground: np.ndarray | None = None  # bool [240, 320], set by `render`
        self._levels: tuple[np.ndarray, np.ndarray] | None = None

    def surface(self, tile: np.ndarray) -> int:
        """Adds a texture, sRGB or sRGBA float [256, 256, 3 or 4]; returns its id."""
        self.surfaces.append(tile)
        return len(self.surfaces) - 1

    def quad(
        self,
        origin,
        along,
        up,
        surface,
        tile_m=None,
        tint=(1, 1, 1),
        glow=0.0,
        taper=1.0,
    ) -> None:
        """A rectangle origin + a along + b up, a and b in 0..1.

        Args:
            surface: id of the texture.
            tile_m: side of a tile, metres; None fits one tile to the rectangle.
            tint: factor on the linear colour.
            glow: share of the light that it emits itself, 0..1.
            taper: width of the upper edge in widths of the lower one.
        """
        along, up = np.asarray(along, float), np.asarray(up, float)
        size = np.array([np.linalg.norm(along), np.linalg.norm(up)])
        repeats = np.ones(2) if tile_m is None else size / tile_m
        self.quads.append(
            (np.asarray(origin, float), along, up, surface, repeats, tint, glow, taper)
        )

    def box(self, centre, size, surface, yaw=0.0, front=None, **look) -> None:
        """A box that stands on centre [3]; size is (width, height, depth).

        front: a surface fitted to the side that faces -z at yaw 0.
        """
        width, height, depth = size
        sine, cosine = np.sin(yaw), np.cos(yaw)
        x = np.array([cosine, 0, -sine]) * width
        z = np.array([sine, 0, cosine]) * depth
        y = np.array([0.0, height, 0.0])
        corner = np.asarray(centre, float) - x / 2 - z / 2
        facing = dict(look)
        if front is not None:
            facing["tile_m"] = None
        self.quad(corner, x, y, surface if front is None else front, **facing)
        self.quad(corner + x, z, y, surface, **look)
        self.quad(corner + x + z, -x, y, surface, **look)
        self.quad(corner + z, -z, y, surface, **look)
        self.quad(corner + y, x, z, surface, **look)
        self.quad(corner, x, z, surface, **look)

    def column(self, centre, radius, height, surface, top=None, **look) -> None:
        """A round column of 10 sides; top: its radius at the upper end."""
        sides = 10
        top = radius if top is None else top
        turn = np.arange(sides + 1) * 2 * np.pi / sides
        ring = np.stack([np.sin(turn), 0 * turn, np.cos(turn)], axis=1)
        base = np.asarray(centre, float)
        for here, there in zip(ring[:-1], ring[1:]):
            outward = (here + there) / 2
            rise = (top - radius) * outward + [0, height, 0]
            edge = radius * (there - here)
            taper = top / radius
            self.quad(base + radius * here, edge, rise, surface, taper=taper, **look)

    # ------------------------------------------------------------------ rendering

    def render(self, sky: np.ndarray, sun, ambient, fog=0.0, lamps=()) -> np.ndarray:
        """Linear RGB float32 [240, 320, 3].

        Args:
            sky: linear RGB [240, 320, 3] behind everything.
            sun: (direction towards it [3], linear colour [3]).
            ambient: linear colour [3].
            fog: share of the light that 100 m of air replace by the sky's.
            lamps: (position [3], linear colour [3]) of each, shining in all directions.
        """
        owner, inverse_z, rays = self._visible()
        # A pixel whose samples all show the same quad is coloured once, at its centre
        # (the inverse depth of a plane is linear); others, sample by sample.
        samples = _blocks(owner)
        uniform = np.ones(len(samples), bool)
        for sample in range(1, SAMPLES**2):
            uniform &= samples[:, sample] == samples[:, 0]
        mixed = np.flatnonzero(~uniform)
        uniform = np.flatnonzero(uniform & (samples[:, 0] >= 0))
        depths, directions = _blocks(inverse_z), _blocks(rays)
        image = sky.reshape(-1, 3).astype(np.float32)

        flat = [low[1] < 0.2 and a[1] == b[1] == 0 for low, a, b, *_ in self.quads]
        self.ground = np.append(flat, False)[samples[:, 0]]
        self.ground = self.ground.reshape(camera.HEIGHT, camera.WIDTH)

        occlusion = self._occlusion(samples, depths)
        image[uniform] = self._colour(
            samples[uniform, 0],
            _mean(depths[uniform]),
            _mean(directions[uniform]),
            occlusion[uniform],
            image[uniform],
            pixels=1.0,
            lights=(sun, ambient, fog, lamps),
        )
        ids = samples[mixed]
        colours = np.repeat(image[mixed, None], SAMPLES**2, axis=1)
        hit = ids >= 0
        colours[hit] = self._colour(
            ids[hit],
            depths[mixed][hit],
            directions[mixed][hit],
            np.broadcast_to(occlusion[mixed, None], ids.shape)[hit],
            colours[hit],
            pixels=1.0 / SAMPLES,
            lights=(sun, ambient, fog, lamps),
        )
        image[mixed] = _mean(colours)
        return image.reshape(camera.HEIGHT, camera.WIDTH, 3)

    def _colour(
        self, ids, inverse_z, ray, occlusion, sky, pixels, lights
    ) -> np.ndarray:
        """Linear RGB [N, 3] of the quads `ids` where `ray` [N, 3] meets them.

        sky [N, 3] is the colour of the air; pixels, the width of a sample.
        """
        sun, ambient, fog, lamps = lights
        origin, along, up, surface, repeats, tint, glow, normal = self._tables()
        points = ray / inverse_z[:, None] + self.eye.astype(np.float32)
        relative = points - origin[ids]
        a = np.einsum("ij,ij->i", relative, along[ids])
        b = np.einsum("ij,ij->i", relative, up[ids])
        texels = noise.TILE * repeats[ids]
        u, v = a * texels[:, 0], b * texels[:, 1]
        fitted = (repeats == 1).all(axis=1)[ids]  # must not wrap at the edges
        u = np.where(fitted, np.clip(u, 0, noise.TILE - 0.01), u)
        v = np.where(fitted, np.clip(v, 0, noise.TILE - 0.01), v)
        # The number of texels that a sample spans selects the level of the pyramid.
        facing = normal[ids]
        cosine = np.einsum("ij,ij->i", facing, ray)
        facing = facing * np.where(cosine > 0, -1, 1)[:, None].astype(np.float32)
        cosine = np.abs(cosine) / np.linalg.norm(ray, axis=1)
        span = (noise.TILE * repeats * _lengths(along, up)).max(axis=1)[ids]
        span *= pixels / (self.view.focal * inverse_z)
        span /= np.sqrt(np.maximum(cosine, 0.05))
        colour = self._texels(surface[ids], u, v, span) * tint[ids]

        direction, strength = sun
        lit = np.maximum(facing @ np.asarray(direction, np.float32), 0)
        light = lit[:, None] * np.asarray(strength, np.float32)
        light += np.asarray(ambient, np.float32) * (0.8 + 0.2 * facing[:, 1:2])
        for position, power in lamps:
            offset = np.asarray(position, np.float32) - points
            distance = np.linalg.norm(offset, axis=1)
            lit = np.maximum(np.einsum("ij,ij->i", facing, offset) / distance, 0.1)
            lit /= 0.5 + distance**2
            light += lit[:, None] * np.asarray(power, np.float32)
        light *= occlusion[:, None]
        light += glow[ids][:, None] * (1 - light)
        colour *= light
        if fog:
            clear = np.exp(np.log(1 - fog) / 100 / inverse_z)[:, None]
            colour = colour * clear + sky * (1 - clear)
        return colour

    def rays(self, samples: int = 1) -> np.ndarray:
        """float32 [240 samples, 320 samples, 3]: world directions, 1 m deep."""
        columns = (np.arange(camera.WIDTH * samples) + 0.5) / samples
        rows = (np.arange(camera.HEIGHT * samples) + 0.5) / samples
        x = (columns - camera.CENTRE_PX[0]) / self.view.focal
        y = -(rows - camera.CENTRE_PX[1]) / self.view.focal
        eye = np.empty((len(rows), len(columns), 3), np.float32)
        eye[..., 0], eye[..., 1], eye[..., 2] = x[None], y[:, None], 1
        return eye @ self.to_eye.astype(np.float32)

    def _visible(self):
        """The nearest quad [h, w] (-1: none), its 1/depth [h, w], rays [h, w, 3]."""
        rays = self.rays(SAMPLES)
        shape = rays.shape[:2]
        owner = np.full(shape, -1, np.int32)
        nearest = np.zeros(shape, np.float32)
        for number, (origin, along, up, surface, *_, taper) in enumerate(self.quads):
            narrower = (1 - taper) / 2 * along
            outline = [0 * along, along, along + up - narrower, up + narrower]
            corners = origin + np.array(outline)
            corners = _clip_near((corners - self.eye) @ self.to_eye.T)
            if len(corners) < 3:
                continue
            u = camera.CENTRE_PX[0] + self.view.focal * corners[:, 0] / corners[:, 2]
            v = camera.CENTRE_PX[1] - self.view.focal * corners[:, 1] / corners[:, 2]
            polygon = np.stack([u, v], axis=1) * SAMPLES - 0.5
            polygon = np.clip(polygon, -30000, 30000)
            left, top = np.maximum(np.floor(polygon.min(axis=0)).astype(int), 0)
            right, bottom = np.ceil(polygon.max(axis=0)).astype(int) + 1
            right, bottom = min(right, shape[1]), min(bottom, shape[0])
            if right <= left or bottom <= top:
                continue
            inside = np.zeros((bottom - top, right - left), np.uint8)
            shifted = np.round((polygon - [left, top]) * 16).astype(np.int32)
            cv2.fillConvexPoly(inside, shifted, 1, shift=4)
            normal = np.cross(along, up)
            distance = normal @ (origin - self.eye)
            if abs(distance) < 1e-9:
                continue
            window = np.s_[top:bottom, left:right]
            inverse = rays[window] @ (normal / distance).astype(np.float32)
            seen = (inside > 0) & (inverse > nearest[window])
            if self.surfaces[surface].shape[2] == 4 and seen.any():
                seen &= self._opaque(number, rays[window], inverse)
            owner[window][seen] = number
            nearest[window][seen] = inverse[seen]
        return owner, nearest, rays

    def _opaque(self, number: int, rays: np.ndarray, inverse: np.ndarray) -> np.ndarray:
        """bool [h, w]: where the alpha channel of a quad is set."""
        origin, along, up, surface, repeats, *_ = self.quads[number]
        relative = rays / np.maximum(inverse, 1e-6)[..., None] + self.eye - origin
        size = noise.TILE * repeats
        column = relative @ (along / (along @ along)) * size[0]
        row = relative @ (up / (up @ up)) * size[1]
        alpha = self.surfaces[surface][..., 3]
        if (repeats == 1).all():
            row = np.clip(row, 0, noise.TILE - 1)
            column = np.clip(column, 0, noise.TILE - 1)
        row, column = (-1 - row.astype(int)) % noise.TILE, column.astype(int)
        return alpha[row, column % noise.TILE] > 0.5

    def _tables(self):
        """The quads as arrays by number; edges are divided by their squared lengths."""
        origin, along, up, surface, repeats, tint, glow, _ = map(
            np.array, zip(*self.quads)
        )
        normal = np.cross(along, up)
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
        along = along / np.maximum((along**2).sum(axis=1, keepdims=True), 1e-12)
        up = up / np.maximum((up**2).sum(axis=1, keepdims=True), 1e-12)
        floats = (origin, along, up, repeats, tint, glow, normal)
        origin, along, up, repeats, tint, glow, normal = (
            values.astype(np.float32) for values in floats
        )
        return origin, along, up, surface.astype(int), repeats, tint, glow, normal

    def _texels(self, surface, u, v, span) -> np.ndarray:
        """Linear colours [N, 3] at texels u, v of samples that span `span` texels."""
        texels, starts = self._pyramids()
        level = np.log2(np.maximum(span, 1)).astype(int).clip(0, LEVELS - 1)
        width = noise.TILE >> level
        before = np.cumsum([0] + [(noise.TILE >> k) ** 2 for k in range(LEVELS - 1)])
        column = (u.astype(int) >> level) % width
        row = (-1 - (v.astype(int) >> level)) % width
        return texels[starts[surface] + before[level] + row * width + column]

    def _pyramids(self) -> tuple[np.ndarray, np.ndarray]:
        """Linear colours [M, 3] of all levels of all tiles; the start of each tile."""
        if self._levels is None:
            levels, starts, count = [], [], 0
            for tile in self.surfaces:
                colour = tile[..., :3]
                if tile.shape[2] == 4:  # transparent texels must not tint the edges
                    alpha = tile[..., 3:]
                    mean = (colour * alpha).sum((0, 1)) / max(float(alpha.sum()), 1)
                    colour = colour * alpha + mean * (1 - alpha)
                level = shade.bytes_to_linear((colour * 255 + 0.5).astype(np.uint8))
                starts.append(count)
                for _ in range(LEVELS):
                    levels.append(level.reshape(-1, 3))
                    count += len(levels[-1])
                    half = (level.shape[1] // 2, level.shape[0] // 2)
                    level = cv2.resize(level, half, interpolation=cv2.INTER_AREA)
            self._levels = np.concatenate(levels), np.array(starts)
        return self._levels

    def _occlusion(self, owner, inverse_z) -> np.ndarray:
        """[N]: a factor that darkens pixels just behind their surroundings (corners).

        owner, inverse_z: [N, 4], the samples of all pixels.
        """
        hit = owner[:, 0] >= 0
        depth = np.where(hit, 1 / np.maximum(inverse_z[:, 0], 1e-6), 0)
        shape = camera.HEIGHT, camera.WIDTH
        image = np.stack([depth, hit], axis=1).astype(np.float32).reshape(*shape, 2)
        factor = np.ones(shape, np.float32)
        for width in (2.0, 7.0):
            blurred = cv2.GaussianBlur(image, (0, 0), width)
            mean = blurred[..., 0] / np.maximum(blurred[..., 1], 1e-6)
            behind = (image[..., 0] - mean) / np.maximum(image[..., 0], 1e-6) * 40
            factor -= 0.22 * np.clip(behind, 0, 1) * np.clip(3 - behind, 0, 1)
        return factor.ravel()


def _blocks(samples: np.ndarray) -> np.ndarray:
    """A sample grid [2h, 2w, ...] as the samples of each pixel [h w, 4, ...]."""
    rows, columns = camera.HEIGHT, camera.WIDTH
    split = samples.reshape(rows, SAMPLES, columns, SAMPLES, *samples.shape[2:])
    return split.swapaxes(1, 2).reshape(rows * columns, SAMPLES**2, *samples.shape[2:])


def _mean(blocks: np.ndarray) -> np.ndarray:
    """[N, 4, ...] to [N, ...]; adding slices is much faster than mean(axis=1)."""
    total = blocks[:, 0] + blocks[:, 1]
    for sample in range(2, SAMPLES**2):
        total += blocks[:, sample]
    return total / SAMPLES**2


def _lengths(along: np.ndarray, up: np.ndarray) -> np.ndarray:
    return np.stack([np.linalg.norm(along, axis=1), np.linalg.norm(up, axis=1)], axis=1)


def _clip_near(polygon: np.ndarray) -> np.ndarray:
    """The part of a polygon [N, 3], in eye axes, that is beyond NEAR_M."""
    kept = []
    for start, end in zip(polygon, np.roll(polygon, -1, axis=0)):
        if start[2] >= NEAR_M:
            kept.append(start)
        if (start[2] >= NEAR_M) != (end[2] >= NEAR_M):
            share = (NEAR_M - start[2]) / (end[2] - start[2])
            kept.append(start + share * (end - start))
    return np.array(kept)


class Layout:
    """A scene laid out at random on a stage; subclasses list its kinds.

    Nothing stands nearer to the camera than `near`, metres.
    """

    def __init__(self, rng: np.random.Generator, stage: Stage, near: float):
        self.rng, self.stage, self.near = rng, stage, near

    def pick_kind(self, kinds: Mapping[Callable, float]) -> tuple[Callable, str]:
        """One of the methods that build a scene, and its name."""
        chosen = pick(self.rng, kinds)
        return chosen, chosen.__name__.strip("_")

    def choose(self, things: Sequence):
        return things[int(self.rng.integers(len(things)))]

    def paint(self, tile: Callable, *arguments) -> int:
        """The id of a new surface; tile is a function of `surfaces`."""
        return self.stage.surface(tile(self.rng, *arguments))
