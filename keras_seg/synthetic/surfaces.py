"""Texture tiles for rooms and streets: sRGB float [256, 256, 3], most are seamless."""

import cv2
import numpy as np

from keras_seg.synthetic import noise, photos
from keras_seg.synthetic.fabric import from_hsv

TILE = noise.TILE


def _flat(colour) -> np.ndarray:
    return np.broadcast_to(np.asarray(colour, float), (TILE, TILE, 3))


def _finish(tile: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.clip(tile, 0, 1), np.float32)


def wall_colour(rng) -> np.ndarray:
    """Pale and greyish most of the time."""
    if rng.random() < 0.7:
        return from_hsv(rng.random(), rng.uniform(0, 0.2), rng.uniform(0.6, 0.95))
    return from_hsv(rng.random(), rng.uniform(0.2, 0.6), rng.uniform(0.3, 0.9))


def wood_colour(rng) -> np.ndarray:
    return from_hsv(
        rng.uniform(0.04, 0.11), rng.uniform(0.25, 0.65), rng.uniform(0.25, 0.8)
    )


def plaster(rng, colour=None):
    colour = wall_colour(rng) if colour is None else colour
    grain = 0.015 * noise.draw(rng, "rough") + 0.02 * noise.draw(rng, "cloud")
    return _finish(colour * (1 + grain[..., None]))


def wallpaper(rng):
    base, ink = wall_colour(rng), wall_colour(rng)
    rows, columns = np.mgrid[:TILE, :TILE]
    period = int(rng.choice([16, 32, 64]))
    kind = rng.integers(3)
    if kind == 0:
        on = columns % period < period * rng.uniform(0.2, 0.6)
    elif kind == 1:
        away = np.hypot(rows % period - period / 2, columns % period - period / 2)
        on = away < period * rng.uniform(0.15, 0.35)
    else:
        on = noise.draw(rng, "cloud") > 0.4
    return _finish(np.where(on[..., None], ink, base) * (1 + 0.01 * _grain(rng)))


def _grain(rng):
    return noise.draw(rng, "fine")[..., None]


def wood(rng, colour=None):
    """Grain along the columns."""
    colour = wood_colour(rng) if colour is None else colour
    streak = noise.draw(rng, "streak").T
    return _finish(
        colour * np.exp(0.10 * streak + 0.03 * noise.draw(rng, "fine").T)[..., None]
    )


def planks(rng):
    colour, tile = wood_colour(rng), np.empty((TILE, TILE, 3))
    width = TILE // int(rng.choice([4, 8, 16]))
    for left in range(0, TILE, width):
        board = wood(rng, colour * rng.uniform(0.82, 1.15))
        tile[:, left : left + width] = board[:, left : left + width]
        tile[:, left] *= 0.6
        joint = int(rng.integers(TILE))
        tile[joint, left : left + width] *= 0.6
    return _finish(tile)


def tiles(rng):
    count = int(rng.choice([2, 4, 8]))
    cell = TILE // count
    first, second = wall_colour(rng), wall_colour(rng)
    chess = rng.random() < 0.3
    rows, columns = np.mgrid[:TILE, :TILE]
    own = 1 + 0.05 * rng.standard_normal((count, count))
    tile = _flat(first) * own[rows // cell, columns // cell][..., None]
    if chess:
        odd = (rows // cell + columns // cell) % 2 == 1
        tile = np.where(odd[..., None], second, tile)
    tile = tile * (1 + 0.03 * noise.draw(rng, "cloud"))[..., None]
    joint = np.minimum(rows % cell, columns % cell) < max(1, cell // 28)
    return _finish(np.where(joint[..., None], tile * rng.uniform(0.5, 0.8), tile))


def marble(rng):
    base = from_hsv(rng.random(), rng.uniform(0, 0.15), rng.uniform(0.3, 0.9))
    vein = np.abs(noise.draw(rng, "cloud") + 0.2 * noise.draw(rng, "rough"))
    return _finish(base * (1 - 0.3 * np.exp(-6 * vein))[..., None])


def carpet(rng):
    base = from_hsv(rng.random(), rng.uniform(0.05, 0.6), rng.uniform(0.2, 0.7))
    return _finish(base * (1 + 0.07 * noise.draw(rng, "fine"))[..., None])


def concrete(rng):
    base = from_hsv(rng.uniform(0, 0.15), rng.uniform(0, 0.1), rng.uniform(0.35, 0.75))
    stain = 0.06 * noise.draw(rng, "rough") + 0.03 * noise.draw(rng, "fine")
    return _finish(base * (1 + stain)[..., None])


def asphalt(rng):
    value = rng.uniform(0.2, 0.45)
    stain = 0.06 * noise.draw(rng, "cloud") + 0.1 * noise.draw(rng, "fine")
    return _finish(_flat([value, value, value * 1.04]) * (1 + stain)[..., None])


def sand(rng):
    base = from_hsv(
        rng.uniform(0.08, 0.13), rng.uniform(0.2, 0.45), rng.uniform(0.6, 0.9)
    )
    return _finish(
        base
        * (1 + 0.05 * noise.draw(rng, "rough") + 0.04 * noise.draw(rng, "fine"))[
            ..., None
        ]
    )


def water(rng):
    base = from_hsv(
        rng.uniform(0.45, 0.62), rng.uniform(0.3, 0.7), rng.uniform(0.3, 0.7)
    )
    return _finish(base * (1 + 0.16 * noise.draw(rng, "streak"))[..., None])


def textured(rng, name: str, colour, depth: float):
    """A photographed texture (brick, grass, gravel) in another colour."""
    grain = np.roll(photos.texture(name), rng.integers(TILE, size=2), axis=(0, 1))
    return _finish(np.asarray(colour) * np.exp(depth * grain)[..., None])


def brick(rng):
    hue = rng.uniform(0.0, 0.09)
    colour = from_hsv(hue, rng.uniform(0.1, 0.65), rng.uniform(0.35, 0.85))
    if rng.random() < 0.35:  # the photographed courses run upwards
        photographed = textured(rng, "brick", colour, 0.35)
        return np.ascontiguousarray(photographed.swapaxes(0, 1))
    rows, columns = np.mgrid[:TILE, :TILE]
    high, wide = 16, int(rng.choice([32, 64]))
    course = rows // high
    shifted = (columns + course % 2 * wide // 2) % TILE
    own = 1 + rng.uniform(0.05, 0.2) * rng.standard_normal((TILE // high, TILE // wide))
    tile = _flat(colour) * own[course, shifted // wide][..., None]
    tile = tile * (1 + 0.06 * noise.draw(rng, "rough"))[..., None]
    joint = (rows % high < 2) | (shifted % wide < 2)
    mortar = np.full(3, rng.uniform(0.4, 0.8))
    return _finish(np.where(joint[..., None], mortar, tile))


def stones(rng):
    """Irregular stones: cells around random points, joints between them."""
    count = int(rng.integers(30, 120))
    points = rng.uniform(0, TILE, (count, 2))
    around = [points + TILE * np.array([a, b]) for a in (-1, 0, 1) for b in (-1, 0, 1)]
    seeds = np.zeros((3 * TILE, 3 * TILE), np.uint8)
    every = np.concatenate(around) + TILE
    index = np.clip(every.astype(int), 0, 3 * TILE - 1)
    seeds[index[:, 0], index[:, 1]] = 1
    away, labels = cv2.distanceTransformWithLabels(
        1 - seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    labels = labels[TILE : 2 * TILE, TILE : 2 * TILE]
    edge = (labels != np.roll(labels, 1, 0)) | (labels != np.roll(labels, 1, 1))
    edge = cv2.dilate(edge.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    base = from_hsv(rng.uniform(0, 0.15), rng.uniform(0, 0.3), rng.uniform(0.35, 0.75))
    own = 1 + 0.12 * rng.standard_normal(int(labels.max()) + 1)
    tile = base * (own[labels] * (1 + 0.05 * noise.draw(rng, "rough")))[..., None]
    return _finish(np.where(edge[..., None], tile * 0.5, tile))


def lawn(rng):
    colour = from_hsv(
        rng.uniform(0.17, 0.32), rng.uniform(0.3, 0.7), rng.uniform(0.25, 0.6)
    )
    patch = np.exp(0.12 * noise.draw(rng, "cloud"))[..., None]
    if rng.random() < 0.5:
        return _finish(textured(rng, "grass", colour, 0.3) * patch)
    return _finish(colour * np.exp(0.22 * noise.draw(rng, "fine").T)[..., None] * patch)


def gravel(rng):
    colour = from_hsv(rng.uniform(0, 0.14), rng.uniform(0, 0.3), rng.uniform(0.35, 0.7))
    return textured(rng, "gravel", colour, 0.3)


def soil(rng):
    """Earth with fallen leaves."""
    base = from_hsv(
        rng.uniform(0.05, 0.1), rng.uniform(0.3, 0.6), rng.uniform(0.2, 0.5)
    )
    litter = noise.draw(rng, "rough") + 0.5 * noise.draw(rng, "fine")
    leaf = from_hsv(rng.uniform(0.03, 0.3), 0.5, rng.uniform(0.3, 0.7))
    share = np.clip(litter - 0.6, 0, 1)[..., None]
    return _finish(base * np.exp(0.2 * litter)[..., None] * (1 - share) + leaf * share)


def bark(rng):
    base = from_hsv(
        rng.uniform(0.04, 0.1), rng.uniform(0.1, 0.45), rng.uniform(0.2, 0.55)
    )
    return _finish(base * np.exp(0.3 * noise.draw(rng, "streak").T)[..., None])


def curtain(rng):
    """Folds along the rows: hang it upright."""
    base = from_hsv(rng.random(), rng.uniform(0, 0.6), rng.uniform(0.4, 0.95))
    columns = np.arange(TILE) / TILE * 2 * np.pi
    waves = np.sin(columns * rng.integers(5, 14) + 2 * np.sin(columns * 2))
    return _finish(base * (1 + 0.2 * waves[None] + 0 * waves[:, None])[..., None])


def corrugated(rng):
    base = from_hsv(rng.random(), rng.uniform(0, 0.5), rng.uniform(0.4, 0.8))
    waves = np.sin(np.arange(TILE) / TILE * 2 * np.pi * 16)
    rust = 0.08 * noise.draw(rng, "streak").T
    return _finish(base * (1 + 0.2 * waves[None] + rust)[..., None])


def books(rng):
    """One shelf of books, to be fitted."""
    tile = np.full((TILE, TILE, 3), 0.06)
    left = 2
    while left < TILE - 4:
        width, height = int(rng.integers(5, 16)), int(TILE * rng.uniform(0.6, 0.97))
        colour = from_hsv(rng.random(), rng.uniform(0.1, 0.8), rng.uniform(0.15, 0.9))
        if rng.random() < 0.06:  # a gap
            left += int(rng.integers(10, 40))
            continue
        tile[TILE - height :, left : left + width] = colour
        tile[TILE - height :, left : left + 1] = colour * 0.5
        band = TILE - height + int(height * rng.uniform(0.1, 0.7))
        tile[band : band + 12, left + 1 : left + width - 1] = colour * rng.uniform(
            0.4, 1.6
        )
        left += width
    return _finish(tile)


def cabinet(rng, colour=None):
    """The front of a cupboard: doors or drawers with handles, to be fitted."""
    colour = (
        (wood_colour(rng) if rng.random() < 0.6 else wall_colour(rng))
        if colour is None
        else colour
    )
    tile = wood(rng, colour).astype(float)
    rows, columns = int(rng.integers(1, 5)), int(rng.integers(1, 4))
    metal = rng.uniform(0.1, 0.9)
    for row in range(rows):
        for column in range(columns):
            top, left = row * TILE // rows, column * TILE // columns
            bottom, right = (
                (row + 1) * TILE // rows - 1,
                (column + 1) * TILE // columns - 1,
            )
            cv2.rectangle(
                tile, (left, top), (right, bottom), (colour * 0.45).tolist(), 3
            )
            inner = (left + 14, top + 14), (right - 14, bottom - 14)
            cv2.rectangle(tile, *inner, (colour * 0.75).tolist(), 2)
            middle = (left + right) // 2, (top + bottom) // 2
            cv2.circle(tile, middle, 5, (metal, metal, metal), -1)
    return _finish(tile)


def door(rng):
    colour = wood_colour(rng) if rng.random() < 0.6 else wall_colour(rng)
    tile = wood(rng, colour).astype(float)
    for top, bottom in ((20, 110), (130, 240)):
        for left, right in ((24, 118), (138, 232)):
            cv2.rectangle(
                tile, (left, top), (right, bottom), (colour * 0.6).tolist(), 4
            )
    cv2.circle(tile, (238, 132), 8, (0.8, 0.75, 0.5), -1)
    cv2.rectangle(tile, (0, 0), (TILE - 1, TILE - 1), (colour * 0.5).tolist(), 6)
    return _finish(tile)


def picture(rng):
    """A framed photograph, print or painting, to be fitted."""
    kind = rng.random()
    if kind < 0.6:
        tile = photos.crop(rng, TILE, TILE, least=0.35)[1] / 255.0
    elif kind < 0.85:
        tile = abstract(rng).astype(float)
    else:
        tile = plaster(rng).astype(float)
    frame = from_hsv(rng.random(), rng.uniform(0, 0.5), rng.uniform(0.05, 0.9))
    if rng.random() < 0.5:
        cv2.rectangle(tile, (0, 0), (TILE - 1, TILE - 1), (0.93, 0.92, 0.9), 60)
    cv2.rectangle(tile, (0, 0), (TILE - 1, TILE - 1), frame.tolist(), 22)
    return _finish(tile)


def abstract(rng):
    """Patches of colour: a painting, a poster, graffiti."""
    tile = np.ones((TILE, TILE, 3)) * from_hsv(
        rng.random(), rng.random() * 0.6, rng.uniform(0.3, 1)
    )
    for _ in range(int(rng.integers(3, 14))):
        colour = from_hsv(
            rng.random(), rng.uniform(0.2, 0.9), rng.uniform(0.2, 1)
        ).tolist()
        if rng.random() < 0.5:
            cv2.fillPoly(
                tile,
                [rng.integers(0, TILE, (int(rng.integers(3, 6)), 2)).astype(np.int32)],
                colour,
            )
        else:
            centre = tuple(int(c) for c in rng.integers(0, TILE, 2))
            axes = tuple(int(a) for a in rng.integers(8, 80, 2))
            cv2.ellipse(
                tile, centre, axes, float(rng.uniform(0, 180)), 0, 360, colour, -1
            )
    warped = noise.warp(
        tile, 10 * noise.draw(rng, "cloud"), 10 * noise.draw(rng, "cloud")
    )
    return _finish(warped)


def screen(rng):
    """A television: dark glass, or a picture."""
    if rng.random() < 0.5:
        rows, columns = np.mgrid[:TILE, :TILE] / TILE
        tile = np.repeat(
            (0.05 + 0.1 * np.clip(1 - rows - columns, 0, 1))[..., None], 3, 2
        )
    else:
        tile = photos.crop(rng, TILE, TILE)[1] / 255.0
    cv2.rectangle(tile, (0, 0), (TILE - 1, TILE - 1), (0.03, 0.03, 0.03), 10)
    return _finish(tile)


def outlook(rng):
    """What is seen through a window, with its bars, to be fitted."""
    rows = np.linspace(0, 1, TILE)[:, None, None]
    if rng.random() < 0.3:
        tile = photos.crop(rng, TILE, TILE)[1] / 255.0
    elif rng.random() < 0.2:
        tile = np.ones((TILE, TILE, 3)) * from_hsv(0.62, 0.7, 0.1)  # night
    else:
        top = from_hsv(rng.uniform(0.53, 0.62), rng.uniform(0.05, 0.5), 0.95)
        cloud = np.clip(0.5 + 0.4 * noise.draw(rng, "cloud"), 0, 1)[..., None]
        tile = (top * (1 - rows) + 0.97 * rows) * (1 - 0.3 * cloud) + 0.3 * cloud
        hill = rng.uniform(0.5, 0.8) + 0.08 * noise.draw(rng, "cloud")[:1, :, None]
        green = from_hsv(rng.uniform(0.2, 0.4), 0.4, rng.uniform(0.3, 0.6))
        leaf = green * np.exp(0.2 * noise.draw(rng, "rough"))[..., None]
        tile = np.where(rows > hill, leaf, tile)
    bars = wall_colour(rng) if rng.random() < 0.4 else np.full(3, 0.92)
    tile = np.ascontiguousarray(tile)
    for number in range(int(rng.integers(0, 3)) + 1):
        place = TILE * (number + 1) // (number + 2)
        cv2.line(tile, (place, 0), (place, TILE), bars.tolist(), 8)
    if rng.random() < 0.6:
        place = int(TILE * rng.uniform(0.3, 0.6))
        cv2.line(tile, (0, place), (TILE, place), bars.tolist(), 8)
    cv2.rectangle(tile, (0, 0), (TILE - 1, TILE - 1), bars.tolist(), 22)
    return _finish(tile)


def facade(rng):
    """A storey or several of a house: repeat it."""
    base = rng.choice(3)
    tile = (plaster, brick, concrete)[base](rng).astype(float)
    rows, columns = int(rng.choice([1, 2, 3])), int(rng.choice([1, 2, 3, 4]))
    high, wide = rng.uniform(0.4, 0.75), rng.uniform(0.35, 0.8)
    frame = wall_colour(rng)
    glass = from_hsv(
        rng.uniform(0.5, 0.65), rng.uniform(0.1, 0.5), rng.uniform(0.15, 0.5)
    )
    for row in range(rows):
        for column in range(columns):
            top = int((row + (1 - high) * 0.6) * TILE / rows)
            left = int((column + (1 - wide) / 2) * TILE / columns)
            bottom, right = (
                top + int(high * TILE / rows),
                left + int(wide * TILE / columns),
            )
            pane = glass * rng.uniform(0.7, 1.4)
            if rng.random() < 0.1:
                pane = np.array([0.95, 0.85, 0.55])
            cv2.rectangle(tile, (left, top), (right, bottom), pane.tolist(), -1)
            cv2.rectangle(tile, (left, top), (right, bottom), frame.tolist(), 3)
            middle = (left + right) // 2
            cv2.line(tile, (middle, top), (middle, bottom), frame.tolist(), 2)
            cv2.line(
                tile,
                (left - 3, bottom + 3),
                (right + 3, bottom + 3),
                (frame * 0.6).tolist(),
                3,
            )
    return _finish(tile)


def leaves(rng, shape: str = "crown"):
    """Foliage with holes, RGBA, to be fitted: a crown, a bush or a house plant."""
    rows, columns = np.mgrid[:TILE, :TILE] / TILE
    edge = 0.10 * noise.draw(rng, "rough") + 0.05 * noise.draw(rng, "cloud")
    if shape == "fir":
        away = np.abs(columns - 0.5) / np.maximum(0.48 * rows, 1e-3) + 0.15 * np.sin(
            rows * 40
        )
    elif shape == "plant":
        bend = np.abs(np.arctan2(columns - 0.5, 1.02 - rows))
        length = np.hypot(columns - 0.5, 1.0 - rows)
        away = (
            length / 0.95
            + 0.5 * (np.sin(bend * rng.integers(9, 20)) > 0.2)
            + 0.2 * bend
        )
    else:
        away = np.hypot((columns - 0.5) / 0.48, (rows - 0.5) / 0.48)
    alpha = away + edge < 0.93
    hue = rng.uniform(0.17, 0.38) if rng.random() < 0.85 else rng.uniform(0.02, 0.13)
    base = from_hsv(hue, rng.uniform(0.3, 0.75), rng.uniform(0.25, 0.6))
    clump = noise.draw(rng, "rough") * 0.28 + noise.draw(rng, "fine") * 0.16
    light = np.exp(clump + 0.5 * (0.5 - rows) + 0.2 * (0.5 - columns))
    colour = np.clip(base * light[..., None], 0, 1)
    if shape == "crown":  # sky through the leaves
        alpha &= noise.draw(rng, "rough") < 1.7
    return np.concatenate([colour, alpha[..., None]], axis=2).astype(np.float32)


def ridge(rng):
    """A line of hills, woods or far houses, RGBA, to be fitted."""
    rows = np.linspace(0, 1, TILE)[:, None]
    height = (
        0.5 + 0.16 * noise.draw(rng, "cloud")[0] + 0.03 * noise.draw(rng, "rough")[0]
    )
    if rng.random() < 0.35:  # a skyline
        steps = np.sort(rng.integers(0, TILE, int(rng.integers(8, 24))))
        height = rng.uniform(0.1, 0.8, len(steps) + 1)[
            np.searchsorted(steps, np.arange(TILE))
        ]
        base = from_hsv(rng.uniform(0.5, 0.7), 0.15, rng.uniform(0.4, 0.7))
        windows = (np.arange(TILE)[:, None] % 10 < 5) & (np.arange(TILE)[None] % 8 < 4)
        colour = base * (1 - 0.25 * windows[..., None])
    else:
        base = from_hsv(
            rng.uniform(0.2, 0.6), rng.uniform(0.1, 0.45), rng.uniform(0.3, 0.65)
        )
        colour = base * np.exp(0.15 * noise.draw(rng, "rough"))[..., None]
    alpha = rows > 1 - np.clip(height, 0.03, 0.97)[None]
    colour = np.clip(colour, 0, 1) * np.ones((TILE, TILE, 1))
    return np.concatenate([colour, alpha[..., None]], axis=2).astype(np.float32)
