"""Levels, indices and colours become class ids; what has no meaning is counted."""

import numpy as np
import pytest

from keras_seg.data.images import RawMask
from keras_seg.data.masks import Reading, level_counts, listed

RNG = np.random.default_rng(1)
COLOURS = {0x000000: 0, 0xFF0000: 1, 0x0000FF: 2, 0x090909: 255}


def mask(pixels, palette=None):
    palette = None if palette is None else np.array(palette, np.uint8)
    return RawMask(np.array(pixels), palette, False)


def rgb(codes, alpha=False):
    codes = np.array(codes, np.uint32)
    channels = [codes >> 16 & 255, codes >> 8 & 255, codes & 255]
    if alpha:
        channels.append(RNG.integers(0, 256, codes.shape))
    return np.stack(channels, axis=-1).astype(np.uint8)


@pytest.mark.parametrize("alpha", [False, True])
def test_colours_are_read_and_unknown_ones_counted(alpha):
    ids = RNG.choice([0, 1, 2, 255], (7, 9))
    code = {class_id: code for code, class_id in COLOURS.items()}
    codes = np.vectorize(code.get)(ids)
    label, unknown = Reading(colours=COLOURS).ids(mask(rgb(codes, alpha)))
    np.testing.assert_array_equal(label, ids)
    assert label.dtype == np.uint8
    assert not unknown
    codes[2:4, 3], codes[0, 0] = 0x090807, 0x00FF00
    label, unknown = Reading(colours=COLOURS).ids(mask(rgb(codes, alpha)))
    assert unknown == {"090807": 2, "00ff00": 1}
    assert (label[2:4, 3] == 255).all()
    _, unknown = Reading(colours=COLOURS, others=255).ids(mask(rgb(codes, alpha)))
    assert not unknown


def test_levels_of_8_and_16_bits():
    reading = Reading(levels={0: 1, 255: 0, 40_000: 2, 7: 2})
    for dtype, last in ((np.uint8, 7), (np.uint16, 40_000)):
        label, unknown = reading.ids(mask(np.array([[0, 255, last], [3, 3, 0]], dtype)))
        np.testing.assert_array_equal(label, [[1, 0, 2], [255, 255, 1]])
        assert unknown == {"3": 2}


def test_grey_masks_saved_as_rgb_are_levels():
    levels = RNG.integers(0, 3, (4, 5)).astype(np.uint8)
    grey = np.repeat(levels[..., None], 3, axis=2)
    label, unknown = Reading(levels={0: 2, 1: 1, 2: 0}).ids(mask(grey))
    np.testing.assert_array_equal(label, 2 - levels)
    assert not unknown


def test_grey_masks_beside_colours_are_their_greys():
    """White is class 1 as grey level 255, as RGB and as palette index."""
    colours = {0: 0, 0xFFFFFF: 1}
    reading, levels = Reading(colours=colours), np.array([[0, 255, 255]], np.uint8)
    greys = np.repeat(np.arange(256)[:, None], 3, axis=1)
    for pixels, palette in (
        (levels, None),
        (np.repeat(levels[..., None], 3, axis=2), None),
        (levels, greys),
    ):
        label, unknown = reading.ids(mask(pixels, palette))
        np.testing.assert_array_equal(label, [[0, 1, 1]])
        assert not unknown


def test_palette_masks_are_read_by_colours_where_there_are_any():
    indices = np.array([[3, 0, 255], [1, 1, 2]], np.uint8)
    palette = [(0, 0, 255), (255, 0, 0), (1, 1, 1), (0, 0, 0)] + [(5, 5, 5)] * 252
    label, unknown = Reading(colours=COLOURS).ids(mask(indices, palette))
    # Index 255 is ignored where its colour is not named, as in PASCAL VOC.
    np.testing.assert_array_equal(label, [[0, 2, 255], [1, 1, 255]])
    assert unknown == {"2": 1}
    named = Reading(colours={**COLOURS, 0x050505: 1, 0x010101: 2})
    np.testing.assert_array_equal(
        named.ids(mask(indices, palette))[0], [[0, 2, 1], [1, 1, 2]]
    )
    by_index = Reading(levels={0: 0, 1: 1, 2: 2, 3: 3, 255: 255})
    np.testing.assert_array_equal(by_index.ids(mask(indices, palette))[0], indices)


def test_the_nearest_value_within_the_tolerance_counts():
    colours = {0x000000: 0, 0xFF0000: 1, 0x00FF00: 2}
    codes = [[0x100000, 0x7F0000, 0x800000, 0x20E000, 0x4040FF]]
    reading = Reading(colours=colours, tolerance=127)
    label, unknown = reading.ids(mask(rgb(codes)))
    np.testing.assert_array_equal(label, [[0, 0, 1, 2, 255]])
    assert unknown == {"4040ff": 1}
    assert Reading(colours=colours).farthest(["100000", "800000"]) == 127
    rest = Reading(colours=colours, tolerance=127, others=2).ids(mask(rgb(codes)))
    np.testing.assert_array_equal(rest[0], [[0, 0, 1, 2, 2]])
    levels = Reading(levels={0: 0, 200: 1}, tolerance=30)
    label, unknown = levels.ids(mask(np.array([[30, 31, 170, 230, 231]], np.uint8)))
    np.testing.assert_array_equal(label, [[0, 255, 1, 1, 255]])
    assert unknown == {"31": 1, "231": 1}


def test_one_channel_can_hold_the_levels():
    pixels = np.zeros((2, 3, 4), np.uint8)
    pixels[..., 3] = [[0, 255, 255], [0, 0, 255]]
    pixels[..., 0] = [[2, 1, 0], [0, 1, 2]]
    alpha = Reading(levels={0: 0, 255: 1}, channel="alpha")
    np.testing.assert_array_equal(alpha.ids(mask(pixels))[0], pixels[..., 3] // 255)
    red = Reading(levels={0: 0, 1: 1, 2: 2}, channel="red")
    np.testing.assert_array_equal(red.ids(mask(pixels))[0], pixels[..., 0])


def test_large_masks_are_read_in_blocks():
    pixels = RNG.integers(0, 3, (900, 1500)).astype(np.uint8)
    label, unknown = Reading(levels={0: 1, 1: 0}).ids(mask(pixels))
    np.testing.assert_array_equal(label, np.array([1, 0, 255], np.uint8)[pixels])
    assert unknown == {"2": np.count_nonzero(pixels == 2)}
    counts = level_counts(mask(pixels))
    assert counts == {k: np.count_nonzero(pixels == k) for k in range(3)}


def test_values_are_listed_by_their_frequency():
    assert listed({"3": 5, "ff0000": 1_200}) == "ff0000 in 1,200 pixels, 3 in 5 pixels"
    many = {str(k): 1 for k in range(23)}
    assert listed(many).endswith(", 3 more values in 3 pixels")
