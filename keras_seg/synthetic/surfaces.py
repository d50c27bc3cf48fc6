"""Texture tiles for rooms and streets: sRGB float32 [256, 256, 3], most seamless.

A tile is seamless, to be repeated, unless its docstring says that it is fitted to
the rectangle that it covers.
"""

import cv2
import numpy as np

from keras_seg.synthetic import noise, photos
from keras_seg.synthetic.draws import ANY, from_hsv, hsv

TILE = noise.TILE


def _flat(colour) -> np.ndarray:
    return np.broadcast_to(np.asarray(colour, float), (TILE, TILE, 3))


def _finish(tile: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.clip(tile, 0, 1), np.float32)


def wall_colour(rng) -> np.ndarray:
    """Pale and greyish most of the time."""
    if rng.random() < 0.7:
        return hsv(rng, ANY, (0, 0.2), (0.6, 0.95))
    return hsv(rng, ANY, (0.2, 0.6), (0.3, 0.9))


def wood_colour(rng) -> np.ndarray:
    return hsv(rng, (0.04, 0.11), (0.25, 0.65), (0.25, 0.8))


def front_colour(rng, wooden: float) -> np.ndarray:
    """The colour of a cupboard or door; wooden: probability of wood."""
    return wood_colour(rng) if rng.random() < wooden else wall_colour(rng)


def plaster(rng, colour=None):
    if colour is None:
        colour = wall_colour(rng)
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
        radius = np.hypot(rows % period - period / 2, columns % period - period / 2)
        on = radius < period * rng.uniform(0.15, 0.35)
    else:
        on = noise.draw(rng, "cloud") > 0.4
    grain = 1 + 0.01 * noise.draw(rng, "fine")[..., None]
    return _finish(np.where(on[..., None], ink, base) * grain)


def wood(rng, colour=None):
    """Vertical grain."""
    if colour is None:
        colour = wood_colour(rng)
    grain = 0.10 * noise.draw(rng, "streak").T
    grain = grain + 0.03 * noise.draw(rng, "fine").T
    return _finish(colour * np.exp(grain)[..., None])


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
    chequered = rng.random() < 0.3
    rows, columns = np.mgrid[:TILE, :TILE]
    brightness = 1 + 0.05 * rng.standard_normal((count, count))
    tile = _flat(first) * brightness[rows // cell, columns // cell][..., None]
    if chequered:
        odd = (rows // cell + columns // cell) % 2 == 1
        tile = np.where(odd[..., None], second, tile)
    tile = tile * (1 + 0.03 * noise.draw(rng, "cloud"))[..., None]
    joint = np.minimum(rows % cell, columns % cell) < max(1, cell // 28)
    return _finish(np.where(joint[..., None], tile * rng.uniform(0.5, 0.8), tile))


def marble(rng):
    base = hsv(rng, ANY, (0, 0.15), (0.3, 0.9))
    vein = np.abs(noise.draw(rng, "cloud") + 0.2 * noise.draw(rng, "rough"))
    return _finish(base * (1 - 0.3 * np.exp(-6 * vein))[..., None])


def carpet(rng):
    base = hsv(rng, ANY, (0.05, 0.6), (0.2, 0.7))
    return _finish(base * (1 + 0.07 * noise.draw(rng, "fine"))[..., None])


def concrete(rng):
    base = hsv(rng, (0, 0.15), (0, 0.1), (0.35, 0.75))
    stain = 0.06 * noise.draw(rng, "rough") + 0.03 * noise.draw(rng, "fine")
    return _finish(base * (1 + stain)[..., None])


def asphalt(rng):
    value = rng.uniform(0.2, 0.45)
    stain = 0.06 * noise.draw(rng, "cloud") + 0.1 * noise.draw(rng, "fine")
    return _finish(_flat([value, value, value * 1.04]) * (1 + stain)[..., None])


def sand(rng):
    base = hsv(rng, (0.08, 0.13), (0.2, 0.45), (0.6, 0.9))
    grain = 1 + 0.05 * noise.draw(rng, "rough") + 0.04 * noise.draw(rng, "fine")
    return _finish(base * grain[..., None])


def water(rng):
    base = hsv(rng, (0.45, 0.62), (0.3, 0.7), (0.3, 0.7))
    return _finish(base * (1 + 0.16 * noise.draw(rng, "streak"))[..., None])


def textured(rng, name: str, colour, depth: float):
    """A photographed texture (brick, grass, gravel) in another colour."""
    grain = np.roll(photos.texture(name), rng.integers(TILE, size=2), axis=(0, 1))
    return _finish(np.asarray(colour) * np.exp(depth * grain)[..., None])


def brick(rng):
    colour = hsv(rng, (0.0, 0.09), (0.1, 0.65), (0.35, 0.85))
    if rng.random() < 0.35:  # the courses of the photograph are vertical
        photographed = textured(rng, "brick", colour, 0.35)
        return np.ascontiguousarray(photographed.swapaxes(0, 1))
    rows, columns = np.mgrid[:TILE, :TILE]
    height, width = 16, int(rng.choice([32, 64]))
    course = rows // height
    shifted = (columns + course % 2 * width // 2) % TILE
    contrast, shape = rng.uniform(0.05, 0.2), (TILE // height, TILE // width)
    brightness = 1 + contrast * rng.standard_normal(shape)
    tile = _flat(colour) * brightness[course, shifted // width][..., None]
    tile = tile * (1 + 0.06 * noise.draw(rng, "rough"))[..., None]
    joint = (rows % height < 2) | (shifted % width < 2)
    mortar = np.full(3, rng.uniform(0.4, 0.8))
    return _finish(np.where(joint[..., None], mortar, tile))


def stones(rng):
    """Irregular stones: cells around random points, with joints between them."""
    count = int(rng.integers(30, 120))
    points = rng.uniform(0, TILE, (count, 2))
    copies = [points + TILE * np.array([a, b]) for a in (0, 1, 2) for b in (0, 1, 2)]
    seeds = np.zeros((3 * TILE, 3 * TILE), np.uint8)
    index = np.clip(np.concatenate(copies).astype(int), 0, 3 * TILE - 1)
    seeds[index[:, 0], index[:, 1]] = 1
    _, labels = cv2.distanceTransformWithLabels(
        1 - seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    labels = labels[TILE : 2 * TILE, TILE : 2 * TILE]
    edge = (labels != np.roll(labels, 1, 0)) | (labels != np.roll(labels, 1, 1))
    edge = cv2.dilate(edge.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    base = hsv(rng, (0, 0.15), (0, 0.3), (0.35, 0.75))
    brightness = 1 + 0.12 * rng.standard_normal(int(labels.max()) + 1)
    brightness = brightness[labels] * (1 + 0.05 * noise.draw(rng, "rough"))
    tile = base * brightness[..., None]
    return _finish(np.where(edge[..., None], tile * 0.5, tile))


def lawn(rng):
    colour = hsv(rng, (0.17, 0.32), (0.3, 0.7), (0.25, 0.6))
    patch = np.exp(0.12 * noise.draw(rng, "cloud"))[..., None]
    if rng.random() < 0.5:
        return _finish(textured(rng, "grass", colour, 0.3) * patch)
    return _finish(colour * np.exp(0.22 * noise.draw(rng, "fine").T)[..., None] * patch)


def gravel(rng):
    colour = hsv(rng, (0, 0.14), (0, 0.3), (0.35, 0.7))
    return textured(rng, "gravel", colour, 0.3)


def soil(rng):
    """Earth with fallen leaves."""
    base = hsv(rng, (0.05, 0.1), (0.3, 0.6), (0.2, 0.5))
    litter = noise.draw(rng, "rough") + 0.5 * noise.draw(rng, "fine")
    leaf = hsv(rng, (0.03, 0.3), 0.5, (0.3, 0.7))
    share = np.clip(litter - 0.6, 0, 1)[..., None]
    return _finish(base * np.exp(0.2 * litter)[..., None] * (1 - share) + leaf * share)


def bark(rng):
    base = hsv(rng, (0.04, 0.1), (0.1, 0.45), (0.2, 0.55))
    return _finish(base * np.exp(0.3 * noise.draw(rng, "streak").T)[..., None])


def curtain(rng):
    """Vertical folds."""
    base = hsv(rng, ANY, (0, 0.6), (0.4, 0.95))
    columns = np.arange(TILE) / TILE * 2 * np.pi
    waves = np.sin(columns * rng.integers(5, 14) + 2 * np.sin(columns * 2))
    return _finish(base * (1 + 0.2 * waves[None] + 0 * waves[:, None])[..., None])


def corrugated(rng):
    base = hsv(rng, ANY, (0, 0.5), (0.4, 0.8))
    waves = np.sin(np.arange(TILE) / TILE * 2 * np.pi * 16)
    rust = 0.08 * noise.draw(rng, "streak").T
    return _finish(base * (1 + 0.2 * waves[None] + rust)[..., None])


def books(rng):
    """One shelf of books, fitted."""
    tile = np.full((TILE, TILE, 3), 0.06)
    left = 2
    while left < TILE - 4:
        width, height = int(rng.integers(5, 16)), int(TILE * rng.uniform(0.6, 0.97))
        colour = hsv(rng, ANY, (0.1, 0.8), (0.15, 0.9))
        if rng.random() < 0.06:  # a gap
            left += int(rng.integers(10, 40))
            continue
        tile[TILE - height :, left : left + width] = colour
        tile[TILE - height :, left : left + 1] = colour * 0.5
        band = TILE - height + int(height * rng.uniform(0.1, 0.7))
        title = colour * rng.uniform(0.4, 1.6)
        tile[band : band + 12, left + 1 : left + width - 1] = title
        left += width
    return _finish(tile)


def cabinet(rng, colour=None):
    """The front of a cupboard, fitted: doors or drawers with handles."""
    if colour is None:
        colour = front_colour(rng, wooden=0.6)
    tile = wood(rng, colour).astype(float)
    rows, columns = int(rng.integers(1, 5)), int(rng.integers(1, 4))
    metal = rng.uniform(0.1, 0.9)
    for row in range(rows):
        for column in range(columns):
            top, left = row * TILE // rows, column * TILE // columns
            bottom = (row + 1) * TILE // rows - 1
            right = (column + 1) * TILE // columns - 1
            outer = (left, top), (right, bottom)
            cv2.rectangle(tile, *outer, (colour * 0.45).tolist(), 3)
            inner = (left + 14, top + 14), (right - 14, bottom - 14)
            cv2.rectangle(tile, *inner, (colour * 0.75).tolist(), 2)
            middle = (left + right) // 2, (top + bottom) // 2
            cv2.circle(tile, middle, 5, (metal, metal, metal), -1)
    return _finish(tile)


def door(rng):
    """A panelled door with its frame, fitted."""
    colour = front_colour(rng, wooden=0.6)
    tile = wood(rng, colour).astype(float)
    for top, bottom in ((20, 110), (130, 240)):
        for left, right in ((24, 118), (138, 232)):
            panel = (left, top), (right, bottom)
            cv2.rectangle(tile, *panel, (colour * 0.6).tolist(), 4)
    cv2.circle(tile, (238, 132), 8, (0.8, 0.75, 0.5), -1)
    cv2.rectangle(tile, (0, 0), (TILE - 1, TILE - 1), (colour * 0.5).tolist(), 6)
    return _finish(tile)


def picture(rng):
    """A framed photograph, print or painting, fitted."""
    kind = rng.random()
    if kind < 0.6:
        tile = photos.crop(rng, TILE, TILE, min_share=0.35)[1] / 255.0
    elif kind < 0.85:
        tile = abstract(rng).astype(float)
    else:
        tile = plaster(rng).astype(float)
    frame = hsv(rng, ANY, (0, 0.5), (0.05, 0.9))
    if rng.random() < 0.5:
        cv2.rectangle(tile, (0, 0), (TILE - 1, TILE - 1), (0.93, 0.92, 0.9), 60)
    cv2.rectangle(tile, (0, 0), (TILE - 1, TILE - 1), frame.tolist(), 22)
    return _finish(tile)


def abstract(rng):
    """Patches of colour, fitted: a painting, a poster, graffiti."""
    background = from_hsv(rng.random(), rng.random() * 0.6, rng.uniform(0.3, 1))
    tile = np.ones((TILE, TILE, 3)) * background
    for _ in range(int(rng.integers(3, 14))):
        colour = hsv(rng, ANY, (0.2, 0.9), (0.2, 1)).tolist()
        if rng.random() < 0.5:
            corners = rng.integers(0, TILE, (int(rng.integers(3, 6)), 2))
            cv2.fillPoly(tile, [corners.astype(np.int32)], colour)
        else:
            centre = tuple(int(c) for c in rng.integers(0, TILE, 2))
            axes = tuple(int(a) for a in rng.integers(8, 80, 2))
            turn = float(rng.uniform(0, 180))
            cv2.ellipse(tile, centre, axes, turn, 0, 360, colour, -1)
    shifts = [10 * noise.draw(rng, "cloud") for _ in range(2)]
    return _finish(noise.warp(tile, *shifts))


def screen(rng):
    """A television, fitted: dark glass or a picture."""
    if rng.random() < 0.5:
        rows, columns = np.mgrid[:TILE, :TILE] / TILE
        glass = 0.05 + 0.1 * np.clip(1 - rows - columns, 0, 1)
        tile = np.repeat(glass[..., None], 3, 2)
    else:
        tile = photos.crop(rng, TILE, TILE)[1] / 255.0
    cv2.rectangle(tile, (0, 0), (TILE - 1, TILE - 1), (0.03, 0.03, 0.03), 10)
    return _finish(tile)


def outlook(rng):
    """The view through a window with its glazing bars, fitted."""
    rows = np.linspace(0, 1, TILE)[:, None, None]
    if rng.random() < 0.3:
        tile = photos.crop(rng, TILE, TILE)[1] / 255.0
    elif rng.random() < 0.2:
        tile = np.ones((TILE, TILE, 3)) * from_hsv(0.62, 0.7, 0.1)  # night
    else:
        top = hsv(rng, (0.53, 0.62), (0.05, 0.5), 0.95)
        cloud = np.clip(0.5 + 0.4 * noise.draw(rng, "cloud"), 0, 1)[..., None]
        tile = (top * (1 - rows) + 0.97 * rows) * (1 - 0.3 * cloud) + 0.3 * cloud
        hill = rng.uniform(0.5, 0.8) + 0.08 * noise.draw(rng, "cloud")[:1, :, None]
        green = hsv(rng, (0.2, 0.4), 0.4, (0.3, 0.6))
        leaf = green * np.exp(0.2 * noise.draw(rng, "rough"))[..., None]
        tile = np.where(rows > hill, leaf, tile)
    bars = wall_colour(rng) if rng.random() < 0.4 else np.full(3, 0.92)
    tile = np.ascontiguousarray(tile)
    for number in range(int(rng.integers(0, 3)) + 1):
        column = TILE * (number + 1) // (number + 2)
        cv2.line(tile, (column, 0), (column, TILE), bars.tolist(), 8)
    if rng.random() < 0.6:
        row = int(TILE * rng.uniform(0.3, 0.6))
        cv2.line(tile, (0, row), (TILE, row), bars.tolist(), 8)
    cv2.rectangle(tile, (0, 0), (TILE - 1, TILE - 1), bars.tolist(), 22)
    return _finish(tile)


def facade(rng):
    """One or more storeys of a house."""
    base = rng.choice(3)
    tile = (plaster, brick, concrete)[base](rng).astype(float)
    rows, columns = int(rng.choice([1, 2, 3])), int(rng.choice([1, 2, 3, 4]))
    height, width = rng.uniform(0.4, 0.75), rng.uniform(0.35, 0.8)
    frame = wall_colour(rng)
    glass = hsv(rng, (0.5, 0.65), (0.1, 0.5), (0.15, 0.5))
    for row in range(rows):
        for column in range(columns):
            top = int((row + (1 - height) * 0.6) * TILE / rows)
            left = int((column + (1 - width) / 2) * TILE / columns)
            bottom = top + int(height * TILE / rows)
            right = left + int(width * TILE / columns)
            pane = glass * rng.uniform(0.7, 1.4)
            if rng.random() < 0.1:
                pane = np.array([0.95, 0.85, 0.55])
            cv2.rectangle(tile, (left, top), (right, bottom), pane.tolist(), -1)
            cv2.rectangle(tile, (left, top), (right, bottom), frame.tolist(), 3)
            middle = (left + right) // 2
            cv2.line(tile, (middle, top), (middle, bottom), frame.tolist(), 2)
            sill = (left - 3, bottom + 3), (right + 3, bottom + 3)
            cv2.line(tile, *sill, (frame * 0.6).tolist(), 3)
    return _finish(tile)


def leaves(rng, shape: str = "crown"):
    """Foliage with holes, RGBA, fitted: shape is crown, fir, bush or plant."""
    rows, columns = np.mgrid[:TILE, :TILE] / TILE
    edge = 0.10 * noise.draw(rng, "rough") + 0.05 * noise.draw(rng, "cloud")
    if shape == "fir":
        distance = np.abs(columns - 0.5) / np.maximum(0.48 * rows, 1e-3)
        distance = distance + 0.15 * np.sin(rows * 40)
    elif shape == "plant":
        bend = np.abs(np.arctan2(columns - 0.5, 1.02 - rows))
        gaps = np.sin(bend * rng.integers(9, 20)) > 0.2
        length = np.hypot(columns - 0.5, 1.0 - rows)
        distance = length / 0.95 + 0.5 * gaps + 0.2 * bend
    else:
        distance = np.hypot((columns - 0.5) / 0.48, (rows - 0.5) / 0.48)
    alpha = distance + edge < 0.93
    hue = rng.uniform(0.17, 0.38) if rng.random() < 0.85 else rng.uniform(0.02, 0.13)
    base = hsv(rng, hue, (0.3, 0.75), (0.25, 0.6))
    clump = noise.draw(rng, "rough") * 0.28 + noise.draw(rng, "fine") * 0.16
    light = np.exp(clump + 0.5 * (0.5 - rows) + 0.2 * (0.5 - columns))
    colour = np.clip(base * light[..., None], 0, 1)
    if shape == "crown":  # sky through the leaves
        alpha &= noise.draw(rng, "rough") < 1.7
    return np.concatenate([colour, alpha[..., None]], axis=2).astype(np.float32)


def ridge(rng):
    """Distant hills, woods or houses, RGBA, fitted."""
    rows = np.linspace(0, 1, TILE)[:, None]
    height = 0.5 + 0.16 * noise.draw(rng, "cloud")[0]
    height = height + 0.03 * noise.draw(rng, "rough")[0]
    if rng.random() < 0.35:  # a skyline
        steps = np.sort(rng.integers(0, TILE, int(rng.integers(8, 24))))
        heights = rng.uniform(0.1, 0.8, len(steps) + 1)
        height = heights[np.searchsorted(steps, np.arange(TILE))]
        base = hsv(rng, (0.5, 0.7), 0.15, (0.4, 0.7))
        windows = (np.arange(TILE)[:, None] % 10 < 5) & (np.arange(TILE)[None] % 8 < 4)
        colour = base * (1 - 0.25 * windows[..., None])
    else:
        base = hsv(rng, (0.2, 0.6), (0.1, 0.45), (0.3, 0.65))
        colour = base * np.exp(0.15 * noise.draw(rng, "rough"))[..., None]
    alpha = rows > 1 - np.clip(height, 0.03, 0.97)[None]
    colour = np.clip(colour, 0, 1) * np.ones((TILE, TILE, 1))
    return np.concatenate([colour, alpha[..., None]], axis=2).astype(np.float32)
