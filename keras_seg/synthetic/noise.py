"""Seamless noise tiles, the raw material of cloth, walls, clouds and leaves."""

from functools import lru_cache

import numpy as np

TILE = 256  # side of a tile in pixels
_POOL = 10  # tiles of each kind; a draw turns, mirrors and shifts one
_POOL_SEED = 20251

# kind -> (exponent of the power spectrum, stretch along the rows)
KINDS = {
    "cloud": (3.2, 1.0),
    "rough": (2.0, 1.0),
    "fine": (0.6, 1.0),
    "streak": (2.2, 7.0),
    "fold": (3.4, 2.4),
}


@lru_cache(maxsize=len(KINDS))
def _pool(kind: str) -> np.ndarray:
    """float32 [_POOL, TILE, TILE], mean 0, standard deviation 1."""
    exponent, stretch = KINDS[kind]
    rng = np.random.default_rng([_POOL_SEED, list(KINDS).index(kind)])
    rows = np.fft.fftfreq(TILE)[:, None] * TILE
    columns = np.fft.rfftfreq(TILE)[None] * TILE
    radius = np.hypot(rows, columns * stretch)
    radius[0, 0] = 1
    amplitude = radius ** (-exponent / 2)
    amplitude[0, 0] = 0
    spectrum = np.fft.rfft2(rng.standard_normal((_POOL, TILE, TILE))) * amplitude
    tiles = np.fft.irfft2(spectrum, s=(TILE, TILE))
    return (tiles / tiles.std(axis=(1, 2), keepdims=True)).astype(np.float32)


def draw(rng: np.random.Generator, kind: str) -> np.ndarray:
    """float32 [TILE, TILE], mean 0, deviation 1; streaks run along the rows."""
    tile = _pool(kind)[rng.integers(_POOL)]
    if rng.random() < 0.5:
        tile = tile[::-1]
    if rng.random() < 0.5:
        tile = tile[:, ::-1]
    shift = rng.integers(TILE, size=2)
    tile = np.roll(tile, tuple(shift), axis=(0, 1))
    if KINDS[kind][1] == 1 and rng.random() < 0.5:
        tile = tile.T
    return np.ascontiguousarray(tile)


def warp(tile: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """A tile [TILE, TILE, ...] distorted by shifts in pixels, float [TILE, TILE]."""
    grid_rows, grid_columns = np.mgrid[:TILE, :TILE]
    from_rows = (grid_rows + rows.astype(int)) % TILE
    return tile[from_rows, (grid_columns + columns.astype(int)) % TILE]
