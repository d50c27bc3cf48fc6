"""Cloth: everyday colours, patterned tiles and creases."""

import cv2
import numpy as np

from keras_seg.synthetic import noise, photos
from keras_seg.synthetic.draws import ANY, from_hex, hsv, pick

TILE = noise.TILE
TILE_M = 0.5  # side of a tile on the body, metres
# Black, greys, white, navy, denim, beige, brown, olive, wine, sand, bottle green.
EVERYDAY_COLOURS = from_hex(
    "18181c 34363c 707276 b0b0ae ecebe6 1c2442 3a527a 6c86a8 "
    "c4b292 7a5c40 4a362a 565c3a 681e2a ded0b2 223e34"
)


def colour(rng: np.random.Generator) -> np.ndarray:
    """sRGB float [3] in 0..1: an everyday colour, or any hue in one draw of three."""
    if rng.random() < 0.62:
        base = EVERYDAY_COLOURS[rng.integers(len(EVERYDAY_COLOURS))]
        return np.clip(base * rng.uniform(0.85, 1.15) + rng.normal(0, 0.02, 3), 0, 1)
    return hsv(rng, ANY, (0.3, 0.95), (0.25, 0.95))


def _bands(rng: np.random.Generator, colours: int) -> np.ndarray:
    """int [TILE]: the colour of each line in a repeating sequence of bands."""
    period = TILE // int(rng.choice([2, 4, 8, 16], p=[0.15, 0.35, 0.35, 0.15]))
    edges = np.sort(rng.choice(np.arange(1, period), colours - 1, replace=False))
    one = np.searchsorted(edges, np.arange(period), side="right")
    return np.tile(one, TILE // period)


def _blobs(rng: np.random.Generator, count: int, sizes: tuple[int, int]) -> np.ndarray:
    """uint8 [TILE, TILE]: scattered flowers of ids 1, 2 and 3, seamless."""
    canvas = np.zeros((3 * TILE, 3 * TILE), np.uint8)
    petals = int(rng.integers(3, 7))
    for _ in range(count):
        centre, size = rng.integers(TILE, size=2), int(rng.integers(*sizes))
        ink, turn = int(rng.integers(1, 4)), rng.random() * 2 * np.pi
        for petal in range(petals):
            angle = turn + 2 * np.pi * petal / petals
            tip = centre + size * 0.7 * np.array([np.cos(angle), np.sin(angle)])
            axes = max(1, int(size * 0.55)), max(1, int(size * 0.3))
            for shift_x in (0, TILE, 2 * TILE):
                for shift_y in (0, TILE, 2 * TILE):
                    middle = int(tip[0]) + shift_x, int(tip[1]) + shift_y
                    tilt = float(np.degrees(angle))
                    cv2.ellipse(canvas, middle, axes, tilt, 0, 360, ink, -1)
    return canvas[TILE : 2 * TILE, TILE : 2 * TILE]


def _plain(rng, colours):
    return np.broadcast_to(colours[0], (TILE, TILE, 3))


def _heather(rng, colours):
    grain = 1 + 0.12 * noise.draw(rng, "fine") + 0.05 * noise.draw(rng, "streak")
    return colours[0] * grain[..., None]


def _stripes(rng, colours):
    inks = colours[_bands(rng, int(rng.integers(2, 5)))]
    return np.broadcast_to(inks[:, None], (TILE, TILE, 3))


def _pinstripes(rng, colours):
    inks = colours[_bands(rng, 2)]
    return np.broadcast_to(inks[None], (TILE, TILE, 3))


def _checks(rng, colours):
    rows, columns = _bands(rng, 3), _bands(rng, 3)
    return (colours[rows][:, None] + colours[columns][None]) / 2


def _dots(rng, colours):
    cell = TILE // int(rng.choice([8, 12, 16]))
    rows, columns = np.mgrid[:TILE, :TILE]
    shift = (rows // cell % 2) * (cell // 2)
    radius = np.hypot(rows % cell - cell / 2, (columns + shift) % cell - cell / 2)
    return colours[(radius < cell * rng.uniform(0.18, 0.36)).astype(int)]


def _camouflage(rng, colours):
    first, second = noise.draw(rng, "cloud"), noise.draw(rng, "cloud")
    rough = 0.25 * noise.draw(rng, "rough")
    ids = (first + rough > 0.3) + 2 * (second + rough > 0.5)
    return colours[ids]


def _flowers(rng, colours):
    return colours[_blobs(rng, int(rng.integers(25, 70)), (5, 16))]


def _splashes(rng, colours):
    share = np.clip(noise.draw(rng, "cloud") * 0.6 + 0.5, 0, 1)[..., None]
    return colours[0] * share + colours[1] * (1 - share)


def _zigzag(rng, colours):
    rows, columns = np.mgrid[:TILE, :TILE]
    period = int(rng.choice([16, 32, 64]))
    rise = np.abs(columns % period - period // 2)
    return colours[(rows + rise) // (period // 2) % 2]


def _photo(rng, colours):
    _, image = photos.crop(rng, TILE // 2, TILE // 2, min_share=0.3)
    image = image.astype(np.float32) / 255
    # Mirrored both ways, so that the tile has no seam.
    image = np.concatenate([image, image[:, ::-1]], axis=1)
    return np.concatenate([image, image[::-1]], axis=0)


def _denim(rng, colours):
    blue = hsv(rng, (0.57, 0.64), (0.25, 0.65), 1.0)
    rows, columns = np.mgrid[:TILE, :TILE]
    twill = 0.04 * ((rows + columns) % 4 < 2)
    worn = 0.10 * noise.draw(rng, "cloud") + 0.06 * noise.draw(rng, "fine")
    return blue * (rng.uniform(0.22, 0.62) + twill + worn)[..., None]


def _knit(rng, colours):
    rows, columns = np.mgrid[:TILE, :TILE]
    rib = 0.85 + 0.15 * np.cos(columns * 2 * np.pi / int(rng.choice([8, 16])))
    return colours[0] * rib[..., None]


PATTERNS = {
    _plain: 5.0,
    _heather: 2.0,
    _stripes: 2.0,
    _pinstripes: 0.8,
    _checks: 1.6,
    _dots: 0.6,
    _camouflage: 0.5,
    _flowers: 1.0,
    _splashes: 0.6,
    _zigzag: 0.4,
    _photo: 0.5,
    _knit: 0.8,
}
QUIET_PATTERNS = {_plain: 0.55, _heather: 0.25, _denim: 0.12, _pinstripes: 0.08}


def draw_tile(rng: np.random.Generator, kind: str = "any") -> np.ndarray:
    """A seamless cloth tile, TILE_M wide: sRGB float32 [TILE, TILE, 3] in 0..1.

    Args:
        kind: "any"; "quiet" for trousers and jackets (plain, heather, denim,
            pinstripes); or "denim".
    """
    colours = np.array([colour(rng) for _ in range(4)])
    if kind == "denim":
        pattern = _denim
    elif kind == "quiet":
        pattern = pick(rng, QUIET_PATTERNS)
    else:
        pattern = pick(rng, PATTERNS)
    weave = 1 + 0.03 * noise.draw(rng, "fine")
    tile = pattern(rng, colours) * weave[..., None]
    return np.clip(tile, 0, 1).astype(np.float32)


def draw_folds(rng: np.random.Generator) -> np.ndarray:
    """Shading of creases: float32 [TILE, TILE], a factor around 1."""
    height = noise.warp(
        noise.draw(rng, "fold"),
        14 * noise.draw(rng, "cloud"),
        14 * noise.draw(rng, "cloud"),
    )
    height = cv2.GaussianBlur(np.tile(height, (2, 2)), (0, 0), rng.uniform(2.5, 5))
    height = height[TILE // 2 : -TILE // 2, TILE // 2 : -TILE // 2]
    slope = height - np.roll(height, (4, 3), axis=(0, 1))
    slope /= slope.std()
    depth = rng.uniform(0.03, 0.12)
    return np.exp(depth * np.clip(slope, -2.5, 2.5)).astype(np.float32)
