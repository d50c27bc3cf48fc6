"""Cloth: colours that clothes have, and patterned tiles of them."""

import cv2
import numpy as np

from keras_seg.synthetic import noise, photos

TILE = noise.TILE
TILE_M = 0.5  # side of a tile on the body, metres
# Everyday colours, sRGB: black, greys, white, navy, denim, beige, brown, olive, wine.
PLAIN_COLOURS = (
    (24, 24, 28),
    (52, 54, 60),
    (112, 114, 118),
    (176, 176, 174),
    (236, 235, 230),
    (28, 36, 66),
    (58, 82, 122),
    (108, 134, 168),
    (196, 178, 146),
    (122, 92, 64),
    (74, 54, 42),
    (86, 92, 58),
    (104, 30, 42),
    (222, 208, 178),
    (34, 62, 52),
)


def colour(rng: np.random.Generator) -> np.ndarray:
    """sRGB float [3] in 0..1: an everyday colour, or any hue in one case of three."""
    if rng.random() < 0.62:
        base = np.array(PLAIN_COLOURS[rng.integers(len(PLAIN_COLOURS))]) / 255
        return np.clip(base * rng.uniform(0.85, 1.15) + rng.normal(0, 0.02, 3), 0, 1)
    return from_hsv(rng.random(), rng.uniform(0.3, 0.95), rng.uniform(0.25, 0.95))


def from_hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    """sRGB float [3] of hue, saturation and value in 0..1."""
    hsv = np.array([[[hue * 360, saturation, value]]], np.float32)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0].astype(float)


def _bands(rng: np.random.Generator, colours: int) -> np.ndarray:
    """int [TILE]: which colour each line of a repeating set of bands has."""
    period = TILE // int(rng.choice([2, 4, 8, 16], p=[0.15, 0.35, 0.35, 0.15]))
    edges = np.sort(rng.choice(np.arange(1, period), colours - 1, replace=False))
    one = np.searchsorted(edges, np.arange(period), side="right")
    return np.tile(one, TILE // period)


def _blobs(rng: np.random.Generator, count: int, sizes: tuple[int, int]) -> np.ndarray:
    """uint8 [TILE, TILE]: rosettes of ids 1, 2, 3 scattered without a seam."""
    canvas = np.zeros((3 * TILE, 3 * TILE), np.uint8)
    petals = int(rng.integers(3, 7))
    for _ in range(count):
        centre, size = rng.integers(TILE, size=2), int(rng.integers(*sizes))
        ink, turn = int(rng.integers(1, 4)), rng.random() * 2 * np.pi
        for petal in range(petals):
            angle = turn + 2 * np.pi * petal / petals
            at = centre + size * 0.7 * np.array([np.cos(angle), np.sin(angle)])
            axes = max(1, int(size * 0.55)), max(1, int(size * 0.3))
            for shift_x in (0, TILE, 2 * TILE):
                for shift_y in (0, TILE, 2 * TILE):
                    place = int(at[0]) + shift_x, int(at[1]) + shift_y
                    tilt = float(np.degrees(angle))
                    cv2.ellipse(canvas, place, axes, tilt, 0, 360, ink, -1)
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
    away = np.hypot(rows % cell - cell / 2, (columns + shift) % cell - cell / 2)
    return colours[(away < cell * rng.uniform(0.18, 0.36)).astype(int)]


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
    _, image = photos.crop(rng, TILE // 2, TILE // 2, least=0.3)
    image = image.astype(np.float32) / 255  # mirrored both ways: no seam
    image = np.concatenate([image, image[:, ::-1]], axis=1)
    return np.concatenate([image, image[::-1]], axis=0)


def _denim(rng, colours):
    blue = from_hsv(rng.uniform(0.57, 0.64), rng.uniform(0.25, 0.65), 1.0)
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


def draw_tile(rng: np.random.Generator, kind: str = "any") -> np.ndarray:
    """A cloth tile: sRGB float32 [TILE, TILE, 3] in 0..1, TILE_M wide, seamless.

    Args:
        kind: "any"; "quiet" (plain, melange, denim: trousers, jackets); "denim".
    """
    colours = np.array([colour(rng) for _ in range(4)])
    if kind == "denim":
        pattern = _denim
    elif kind == "quiet":
        pattern = (_plain, _heather, _denim, _pinstripes)[
            rng.choice(4, p=[0.55, 0.25, 0.12, 0.08])
        ]
    else:
        weights = np.array(list(PATTERNS.values()))
        chosen = rng.choice(len(weights), p=weights / weights.sum())
        pattern = list(PATTERNS)[chosen]
    weave = 1 + 0.03 * noise.draw(rng, "fine")
    tile = pattern(rng, colours) * weave[..., None]
    return np.clip(tile, 0, 1).astype(np.float32)


def draw_folds(rng: np.random.Generator) -> np.ndarray:
    """Light and shadow of creases: float32 [TILE, TILE], a factor around 1."""
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
