"""Light as nine spherical-harmonic coefficients, as in SURREAL; sRGB and film."""

import numpy as np

MIN_IRRADIANCE = 0.02


def draw_light(rng: np.random.Generator) -> np.ndarray:
    """float32 [9], distributed as SURREAL's `light`: from above, of any strength."""
    light = rng.uniform(-0.7, 0.7, 9)
    light[0] = 0.5 + 0.9 * rng.random()
    light[1] = -0.7 * rng.random()  # world y points down
    return light.astype(np.float32)


def irradiance(normals: np.ndarray, light: np.ndarray) -> np.ndarray:
    """The light that reaches surfaces, float32 [N], at least MIN_IRRADIANCE.

    Ramamoorthi and Hanrahan 2001, equation 13, for unit normals [N, 3] in world axes
    and light in the order L00, L1-1, L10, L11, L2-2, L2-1, L20, L21, L22.
    """
    x, y, z = normals.T
    c1, c2, c3, c4, c5 = 0.429043, 0.511664, 0.743125, 0.886227, 0.247708
    level = [float(value) for value in light]
    result = c1 * level[8] * (x * x - y * y)
    result += level[6] * (c3 * z * z - c5) + c4 * level[0]
    result += 2 * c1 * (level[4] * x * y + level[7] * x * z + level[5] * y * z)
    result += 2 * c2 * (level[3] * x + level[1] * y + level[2] * z)
    return np.maximum(result, MIN_IRRADIANCE).astype(np.float32)


def to_linear(srgb: np.ndarray) -> np.ndarray:
    """sRGB 0..1 to linear light, float32 (IEC 61966-2-1)."""
    srgb = np.asarray(srgb, np.float32)
    return np.where(
        srgb <= 0.04045, srgb / 12.92, ((np.maximum(srgb, 0) + 0.055) / 1.055) ** 2.4
    ).astype(np.float32)


def to_srgb(linear: np.ndarray) -> np.ndarray:
    """Linear light to sRGB 0..1, float32, clipped."""
    linear = np.clip(linear, 0, 1).astype(np.float32)
    return np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055
    ).astype(np.float32)


_BYTE_TO_LINEAR = to_linear(np.arange(256) / 255)


def bytes_to_linear(image: np.ndarray) -> np.ndarray:
    """sRGB uint8 [...] to linear light float32 [...]."""
    return _BYTE_TO_LINEAR[image]


# The response of film: sRGB up to a knee, then flatter; white at 3 times white.
_KNEE, _BRIGHTEST, _FILM_STEPS = 0.65, 3.0, 8192
_steps = np.linspace(0, _BRIGHTEST, _FILM_STEPS)
_FILM = np.where(
    _steps < _KNEE,
    _steps,
    _KNEE + (1 - _KNEE) * (1 - np.exp((_KNEE - _steps) / (1 - _KNEE))),
)
_FILM = np.round(to_srgb(_FILM) * 255).astype(np.uint8)


def film_to_bytes(linear: np.ndarray) -> np.ndarray:
    """Linear light [...] to sRGB uint8 [...] with soft highlights."""
    steps = np.clip(linear, 0, _BRIGHTEST) * ((_FILM_STEPS - 1) / _BRIGHTEST) + 0.5
    return _FILM[steps.astype(np.uint16)]
