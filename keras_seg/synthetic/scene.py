"""Backgrounds, a new one for every clip: rooms, outdoors, photographs, backdrops."""

from dataclasses import dataclass

import cv2
import numpy as np

from keras_seg.synthetic import camera, outdoors, photos, rooms, shade, surfaces
from keras_seg.synthetic.draws import pick
from keras_seg.synthetic.stage import Stage, View

SHARES = {"room": 0.5, "outdoors": 0.32, "photo": 0.12, "backdrop": 0.06}


@dataclass(frozen=True)
class Background:
    """What is behind the person."""

    linear: np.ndarray  # RGB float32 [240, 320, 3], linear light
    description: str  # a word or two
    # bool [240, 320]: the floor that the person stands on and casts a shadow on; None
    # if the person is not part of the scene.
    ground: np.ndarray | None = None


def draw(rng: np.random.Generator, cam_loc: np.ndarray, floor_y: float) -> Background:
    """A background for a person whose feet are floor_y metres below the origin.

    In most scenes the person stands on the floor; the others have a camera of their
    own, as SURREAL's photographs do.
    """
    kind = pick(rng, SHARES)
    if kind == "photo":
        name, image = photos.crop(rng, camera.HEIGHT, camera.WIDTH)
        return Background(shade.bytes_to_linear(image), f"photo {name}")
    if kind == "backdrop":
        return Background(_backdrop(rng), "backdrop")
    height = floor_y - float(cam_loc[1])
    stands = height > 0.15 and rng.random() < 0.65
    if stands:
        view, near = View(height=height), float(cam_loc[0])
    else:
        view = View(
            height=rng.uniform(0.6, 2.2),
            focal=rng.uniform(280, 620),
            pitch=rng.normal(-0.03, 0.1),
            roll=rng.normal(0, 0.02),
        )
        near = rng.uniform(2, 7)
    stage = Stage(view)
    if kind == "room":
        room = rooms.Room(rng, stage, near)
        name = room.build()
        sky = np.full((*stage.rays().shape[:2], 3), 0.02, np.float32)
        sun = _direction(rng, low=0.1), np.full(3, rng.uniform(0.1, 0.5))
        ambient = rng.uniform(0.45, 0.85) * np.exp(rng.normal(0, 0.05, 3))
        image = stage.render(sky, sun, ambient, lamps=room.lamps)
    else:
        name = outdoors.Land(rng, stage, near).build()
        sky = outdoors.draw_sky(rng, stage.rays())
        strong = rng.random() < 0.6
        colour = np.array([1, 0.96, 0.88]) * (rng.uniform(0.5, 0.9) if strong else 0.15)
        ambient = np.array([0.92, 0.97, 1.08]) * rng.uniform(0.3, 0.55)
        sun = _direction(rng, low=0.3), colour
        image = stage.render(sky, sun, ambient, fog=rng.uniform(0.1, 0.7))
    # Expose as a camera would: neither black nor blown out.
    image *= rng.uniform(0.15, 0.34) / max(float(image.mean()), 1e-3)
    ground = stage.ground if stands else None
    return Background(image, f"{kind} {name}", ground)


def _direction(rng, low: float) -> np.ndarray:
    """A direction to a light above and in front of the scene."""
    turn, rise = rng.uniform(0, 2 * np.pi), rng.uniform(low, 1.2)
    flat = np.cos(rise)
    return np.array([flat * np.sin(turn), np.sin(rise), -abs(flat * np.cos(turn))])


def _backdrop(rng: np.random.Generator) -> np.ndarray:
    """A studio backdrop: a texture in a soft light."""
    kinds = [surfaces.plaster, surfaces.carpet, surfaces.marble, surfaces.curtain]
    kinds += [surfaces.abstract, surfaces.wallpaper]
    tile = kinds[rng.integers(len(kinds))](rng)
    image = cv2.resize(tile, (camera.WIDTH,) * 2, interpolation=cv2.INTER_CUBIC)
    rows, columns = np.mgrid[: camera.HEIGHT, : camera.WIDTH]
    centre = rng.uniform(0.2, 0.8, 2) * image.shape[:2]
    distance = np.hypot(rows - centre[0], columns - centre[1]) / camera.WIDTH
    light = np.exp(-((distance / rng.uniform(0.5, 1.5)) ** 2))[..., None]
    return shade.to_linear(image[: camera.HEIGHT]) * light.astype(np.float32)
