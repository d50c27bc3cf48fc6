"""Random geometry and colours, checked against SciPy, Pillow and colorsys."""

import colorsys
import dataclasses

import numpy as np
import pytest
import scipy.ndimage
from PIL import Image, ImageEnhance

from keras_seg.config import Augment
from keras_seg.data import augment
from keras_seg.data.augment import Colour, Geometry

GEOMETRIES = [
    Geometry(scale=1.3),
    Geometry(scale=1.7, place=(0.1, 0.9)),
    Geometry(angle=10.0),
    Geometry(mirror=True, angle=-33.0, scale=1.25, place=(0.8, 0.3)),
    Geometry(half_turn=True, mirror=True, angle=71.0, scale=1.1, place=(0.0, 0.4)),
]


def make_sample(height=37, width=52, seed=0, block=6):
    """A smooth image, a label of blocks with ignored pixels, and some joints."""
    rng = np.random.default_rng(seed)
    noise = rng.uniform(0, 255, (height, width, 3))
    image = scipy.ndimage.gaussian_filter(noise, (2, 2, 0))
    image = np.rint((image - image.min()) / np.ptp(image) * 255).astype(np.uint8)
    blocks = rng.choice([0, 2, 5, 9, 255], (height // block + 1, width // block + 1))
    label = np.kron(blocks, np.ones((block, block)))[:height, :width].astype(np.uint8)
    joints = rng.uniform(5, 30, (4, 2)).astype(np.float32)
    return image, label, joints


def source_places(geometry, height, width, crop):
    """(x, y) in the sample of each pixel of the result: every part undone in turn."""
    y, x = np.mgrid[: crop[0], : crop[1]] + 0.5  # now the top left corner is (0, 0)
    top, left = geometry.place
    y = y - top * (crop[0] - geometry.scale * height)
    x = x - left * (crop[1] - geometry.scale * width)
    y, x = y / geometry.scale - height / 2, x / geometry.scale - width / 2
    turn = np.exp(-1j * np.deg2rad(geometry.angle)) * (x - 1j * y)  # y points up
    x, y = turn.real, -turn.imag
    if geometry.half_turn:
        x, y = -x, -y
    if geometry.mirror:
        x = -x
    return x + width / 2 - 0.5, y + height / 2 - 0.5


@pytest.mark.parametrize("crop", [None, (21, 45), (50, 30)], ids=str)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_image_is_scipys_bilinear_map_and_label_the_nearest_pixel(geometry, crop):
    image, label, _ = make_sample()
    moved, result, _ = augment.apply(geometry, image, label, crop=crop)
    assert moved.shape == (*(crop or label.shape), 3)
    x, y = source_places(geometry, *label.shape, crop or label.shape)
    for channel in range(3):
        expected = scipy.ndimage.map_coordinates(
            image[..., channel].astype(float), [y, x], order=1, mode="grid-constant"
        )
        # Half a level of rounding, and OpenCV 4 places pixels to 1/32
        difference = np.abs(moved[..., channel] - expected)
        assert difference.max() < 6
        assert difference.mean() < 0.4
    padded = np.pad(label, 60, constant_values=255)  # outside
    expected = padded[np.rint(y).astype(int) + 60, np.rint(x).astype(int) + 60]
    is_tie = (abs(x % 1 - 0.5) < 0.01) | (abs(y % 1 - 0.5) < 0.01)
    assert is_tie.mean() < 0.1
    np.testing.assert_array_equal(result[~is_tie], expected[~is_tie])


@pytest.mark.parametrize("crop", [None, (45, 70)], ids=str)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_joints_go_where_their_pixels_go(geometry, crop):
    spot = np.array([24.0, 17.0])  # x, y
    y, x = np.mgrid[:37, :52]
    blob = 255 * np.exp(-((x - spot[0]) ** 2 + (y - spot[1]) ** 2) / 8)
    image = np.repeat(np.rint(blob).astype(np.uint8)[..., None], 3, axis=2)
    label = np.zeros((37, 52), np.uint8)
    joints = np.array([spot, [np.nan, np.nan]], dtype=np.float32)
    result, _, moved = augment.apply(geometry, image, label, joints, crop)
    weight = result[..., 0].astype(float)
    y, x = np.mgrid[: weight.shape[0], : weight.shape[1]]
    centre = [(weight * x).sum() / weight.sum(), (weight * y).sum() / weight.sum()]
    np.testing.assert_allclose(moved[0], centre, atol=0.25)
    assert np.isnan(moved[1]).all()
    assert moved.dtype == np.float32


@pytest.mark.parametrize("seed", range(20))
def test_image_and_label_stay_aligned_and_no_id_is_invented(seed):
    _, label, _ = make_sample(80, 110, seed, block=20)
    image = np.repeat((label // 2)[..., None], 3, axis=2)  # 255 becomes 127
    settings = Augment(
        mirror=0.5, flip180=0.5, scale=(0.5, 2.0), rotate=45, rotate_probability=0.8
    )
    geometry = augment.draw_geometry(settings, np.random.default_rng(seed))
    image, result, _ = augment.apply(geometry, image, label)
    assert set(np.unique(result)) <= set(np.unique(label)) | {255}
    # Within a block, away from the frame, bilinear and nearest see one value
    ids = np.pad(result[3:-3, 3:-3].astype(int), 3, constant_values=-1)
    flat = scipy.ndimage.maximum_filter(ids, 5) == scipy.ndimage.minimum_filter(ids, 5)
    flat &= (ids != 255) & (ids != -1)
    assert flat.any()
    np.testing.assert_array_equal(image[..., 1][flat], ids[flat] // 2)


def test_mirror_and_half_turn_are_exact():
    image, label, joints = make_sample()
    for geometry, turned in [
        (Geometry(mirror=True), np.fliplr),
        (Geometry(half_turn=True), lambda array: np.rot90(array, 2)),
        (Geometry(mirror=True, half_turn=True), np.flipud),
        (Geometry(), np.copy),
    ]:
        result = augment.apply(geometry, image, label, joints)
        np.testing.assert_array_equal(result[0], turned(image))
        np.testing.assert_array_equal(result[1], turned(label))
    mirrored = augment.apply(Geometry(mirror=True), image, label, joints)[2]
    np.testing.assert_allclose(mirrored[:, 0], 51 - joints[:, 0], rtol=1e-6)
    np.testing.assert_allclose(mirrored[:, 1], joints[:, 1], rtol=1e-6)


@pytest.mark.parametrize("place", [(0.0, 1.0), (0.3, 0.8), (0.51, 0.49)])
def test_a_crop_without_zoom_is_exact(place):
    image, label, joints = make_sample()
    for mirror in (False, True):
        geometry = Geometry(mirror=mirror, place=place)
        found = augment.apply(geometry, image, label, joints, crop=(20, 31))
        top, left = round(place[0] * 17), round(place[1] * 21)
        turned = np.fliplr if mirror else np.copy
        window = np.s_[top : top + 20, left : left + 31]
        np.testing.assert_array_equal(found[0], turned(image)[window])
        np.testing.assert_array_equal(found[1], turned(label)[window])
        x = 51 - joints[:, 0] if mirror else joints[:, 0]
        expected = np.stack([x - left, joints[:, 1] - top], axis=1)
        np.testing.assert_allclose(found[2], expected, atol=1e-4)


def test_a_crop_that_is_larger_is_filled():
    image, label, _ = make_sample()
    label[label == 255] = 9
    moved, result, _ = augment.apply(Geometry(), image, label, crop=(41, 60))
    window = np.s_[2:39, 4:56]
    np.testing.assert_array_equal(result[window], label)
    np.testing.assert_array_equal(moved[window], image)
    assert (result != 255).sum() == label.size
    assert moved.sum() == image.sum()


def test_a_positive_angle_turns_counter_clockwise():
    image, label, _ = make_sample(40, 40)
    result = augment.apply(Geometry(angle=90.0), image, label)
    np.testing.assert_array_equal(result[1], np.rot90(label))
    np.testing.assert_allclose(result[0].astype(int), np.rot90(image), atol=1)


def test_place_says_where_the_small_image_lies():
    image, label, _ = make_sample(40, 60)
    label[label == 255] = 0
    for place, rows, columns in [
        ((0.0, 0.0), slice(0, 20), slice(0, 30)),
        ((1.0, 1.0), slice(20, 40), slice(30, 60)),
        ((0.5, 0.0), slice(10, 30), slice(0, 30)),
    ]:
        geometry = Geometry(scale=0.5, place=place)
        moved, result, _ = augment.apply(geometry, image, label)
        is_filled = np.ones((40, 60), bool)
        is_filled[rows, columns] = False
        np.testing.assert_array_equal(result == 255, is_filled)
        assert not moved[is_filled].any()


def test_a_shrunk_image_is_antialiased():
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
    label = np.zeros((64, 96), np.uint8)
    shrunk = augment.apply(Geometry(scale=0.5, place=(0.0, 0.0)), image, label)[0]
    # A quarter of a pixel aside, so that plain sampling takes single pixels
    expected = np.asarray(Image.fromarray(image).resize((48, 32), Image.BILINEAR))
    inner = np.s_[2:30, 2:46]
    ours = np.abs(shrunk[inner].astype(int) - expected[inner]).mean()
    plain = scipy.ndimage.zoom(
        image.astype(float), (0.5, 0.5, 1), order=1, grid_mode=True, mode="nearest"
    )
    assert ours < 0.5 * np.abs(plain[inner] - expected[inner]).mean()


def test_smoothing_has_the_variance_of_the_wider_triangle():
    # A triangle from -w to w has the variance w^2 / 6
    for scale in (0.5, 0.8, 0.25):
        variance = augment.antialias_sigma(scale) ** 2 + 1 / 6
        assert variance == pytest.approx((1 / scale) ** 2 / 6)
    assert augment.antialias_sigma(1.0) == 0


def test_the_sample_is_left_as_it_was():
    sample = make_sample()
    before = [array.tobytes() for array in sample]
    augment.apply(Geometry(scale=0.7, angle=20), *sample)
    augment.apply_colour(Colour(1.2, 0.7, 1.1, 0.1, 0.5), sample[0])
    assert [array.tobytes() for array in sample] == before


def draw_many(settings, number=2000):
    return [
        augment.draw_geometry(settings, np.random.default_rng([7, i]))
        for i in range(number)
    ]


def test_draws_follow_the_settings():
    for geometry in draw_many(Augment(), 50):
        assert geometry == Geometry(place=geometry.place)
    assert all(g.mirror for g in draw_many(Augment(mirror=1.0), 500))
    settings = Augment(
        mirror=0.5, flip180=0.2, scale=(0.5, 2.0), rotate=10, rotate_probability=0.2
    )
    drawn = draw_many(settings)
    scales = [g.scale for g in drawn]
    shares = [(g.mirror, g.half_turn, g.angle != 0) for g in drawn]
    deviation = (0.25 / 2000) ** 0.5  # of a share, at most
    np.testing.assert_allclose(np.mean(shares, 0), [0.5, 0.2, 0.2], atol=4 * deviation)
    assert 0.5 <= min(scales) < 0.51
    assert 1.99 < max(scales) <= 2.0
    assert np.mean(scales) == pytest.approx(1.25, abs=0.04)
    angles = [g.angle for g in drawn]
    assert -10 <= min(angles) < -9
    assert 9 < max(angles) <= 10
    places = np.array([g.place for g in drawn])
    assert places.min() >= 0
    assert places.max() < 1
    assert abs(np.corrcoef(places.T)[0, 1]) < 0.1


@pytest.mark.parametrize("name", augment.AUGMENTATIONS)
def test_every_augmentation_by_name_changes_samples(name):
    settings = augment.AUGMENTATIONS[name]
    assert settings.keys() == {name}
    assert Augment(**settings) != Augment()
    with pytest.raises(TypeError):
        augment.AUGMENTATIONS[name] = {}


def test_one_part_does_not_change_the_draws_of_the_others():
    full = Augment(mirror=0.5, scale=(0.5, 2.0), rotate=10)
    without = dataclasses.replace(full, mirror=0.0)
    for one, other in zip(draw_many(full, 50), draw_many(without, 50)):
        assert dataclasses.replace(one, mirror=False) == other


def test_noise_has_its_deviation_and_stays_in_range():
    rng = np.random.default_rng(0)
    grey = np.full((64, 96, 3), 128, np.uint8)
    noise = augment.add_noise(grey, 10.0, rng).astype(float) - 128
    assert noise.mean() == pytest.approx(0, abs=0.3)
    assert noise.std() == pytest.approx(10, abs=0.3)
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.06
    white = augment.add_noise(np.full((64, 96, 3), 255, np.uint8), 10.0, rng)
    assert white.min() > 190
    assert white.max() == 255


# Crops over a class


def rare_label():
    """40 x 60, mostly class 1, some ignored, a spot of class 4 in a corner."""
    label = np.ones((40, 60), np.uint8)
    label[:, :10] = 255
    label[37:39, 55:58] = 4
    return label


@pytest.mark.parametrize(
    "geometry",
    [Geometry(), Geometry(mirror=True, scale=1.5), Geometry(scale=0.8, half_turn=True)],
    ids=str,
)
def test_a_crop_over_a_class_holds_each_class_of_the_image_as_often(geometry):
    label, crop = rare_label(), (16, 20)
    image = np.zeros((*label.shape, 3), np.uint8)
    holds, places = [], []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        moved = augment.over_a_class(geometry, label, crop, rng)
        assert dataclasses.replace(moved, place=geometry.place) == geometry
        _, result, _ = augment.apply(moved, image, label, crop=crop)
        holds.append((result == 4).any())
        places.append(moved.place)
    places = np.array(places)
    assert places.min() >= 0
    assert places.max() <= 1
    # Two classes: half of the crops are made to hold the spot, few others do
    assert 0.45 < np.mean(holds) < 0.62


def test_the_pixel_of_the_class_is_anywhere_in_the_crop():
    label = np.full((60, 90), 255, np.uint8)
    label[30, 45] = 2
    image = np.zeros((60, 90, 3), np.uint8)
    found = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        geometry = augment.over_a_class(Geometry(), label, (20, 30), rng)
        _, result, _ = augment.apply(geometry, image, label, crop=(20, 30))
        found.append(np.argwhere(result == 2)[0])
    rows, columns = np.array(found).T
    assert {*rows} >= {*range(20)}
    assert len({*columns}) > 25
    assert abs(rows.mean() - 9.5) < 1.2
    assert abs(columns.mean() - 14.5) < 1.8


def test_where_nothing_is_labelled_or_cropped_the_place_stays():
    rng = np.random.default_rng(0)
    geometry = Geometry(place=(0.2, 0.7))
    empty = np.full((40, 60), 255, np.uint8)
    assert augment.over_a_class(geometry, empty, (8, 8), rng) == geometry
    assert augment.over_a_class(geometry, rare_label(), None, rng) == geometry


# Colours


def photo(height=19, width=28, seed=4):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    image[0, 0], image[0, 1], image[0, 2] = (0, 0, 0), (255, 255, 255), (90, 90, 90)
    return image


@pytest.mark.parametrize("factor", [0.6, 1.0, 1.4])
@pytest.mark.parametrize(
    ("part", "peer"),
    [
        ("brightness", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
        ("saturation", ImageEnhance.Color),
    ],
)
def test_brightness_contrast_and_saturation_are_pillows(part, peer, factor):
    image = photo()
    found = augment.apply_colour(Colour(**{part: factor}), image)
    expected = np.asarray(peer(Image.fromarray(image)).enhance(factor))
    assert found.dtype == np.uint8
    # Pillow rounds the grey to whole levels, and cuts off fractions
    np.testing.assert_allclose(found.astype(int), expected, atol=1)
    assert (factor == 1) == np.array_equal(found, image)


@pytest.mark.parametrize("turn", [-0.5, -0.07, 0.02, 0.3])
def test_hue_is_colorsys_turned(turn):
    image = photo()
    found = augment.apply_colour(Colour(hue=turn), image)
    for pixel, new in zip(image.reshape(-1, 3) / 255, found.reshape(-1, 3)):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        expected = colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)
        np.testing.assert_allclose(new, 255 * np.array(expected), atol=0.51)


@pytest.mark.parametrize("deviation", [0.4, 1.0, 2.3])
def test_blur_is_scipys_gaussian(deviation):
    image = photo()
    found = augment.apply_colour(Colour(blur=deviation), image)
    sigma = (deviation, deviation, 0)
    expected = scipy.ndimage.gaussian_filter(
        image.astype(float), sigma, mode="mirror", truncate=4
    )
    np.testing.assert_allclose(found, expected, atol=1.6)
    assert np.abs(found - expected).mean() < 0.5


def test_the_parts_of_a_colour_follow_each_other():
    whole = Colour(1.3, 0.7, 1.2, -0.1, 0.8)
    image = photo()
    in_turn = image
    for name, value in dataclasses.asdict(whole).items():
        in_turn = augment.apply_colour(Colour(**{name: value}), in_turn)
    found = augment.apply_colour(whole, image).astype(int)
    np.testing.assert_allclose(found, in_turn, atol=3)  # which is rounded five times
    for changed in (Colour(contrast=0.7), Colour(brightness=1.3)):
        assert np.abs(augment.apply_colour(changed, image) - found).mean() > 3


def test_draws_of_colours_follow_the_settings():
    def draw(**settings):
        return [
            augment.draw_colour(Augment(**settings), np.random.default_rng([3, i]))
            for i in range(2000)
        ]

    assert set(draw()) == {Colour()}
    settings = {"brightness": 0.4, "contrast": 0.2, "saturation": 1.0, "hue": 0.1}
    found = draw(**settings, jitter_probability=0.5, blur=2.0, blur_probability=0.3)
    table = np.array([dataclasses.astuple(colour) for colour in found])
    unchanged = table == dataclasses.astuple(Colour())
    assert (unchanged[:, :4].all(1) == unchanged[:, :4].any(1)).all()
    assert unchanged[:, 0].mean() == pytest.approx(0.5, abs=0.045)
    assert unchanged[:, 4].mean() == pytest.approx(0.7, abs=0.045)
    jittered = table[~unchanged[:, 0]]
    centre, strength = [1, 1, 1, 0], [0.4, 0.2, 1.0, 0.1]
    for column in range(4):
        found = (jittered[:, column] - centre[column]) / strength[column]
        assert -1 <= found.min() < -0.98
        assert 0.98 < found.max() <= 1
        assert found.mean() == pytest.approx(0, abs=0.08)
    assert abs(np.corrcoef(jittered[:, :4].T) - np.eye(4)).max() < 0.13
    blurs = table[~unchanged[:, 4], 4]
    assert 0 < blurs.min() < 0.03
    assert 1.97 < blurs.max() <= 2
    # Another part leaves the draws of the others as they were
    assert [c.hue for c in draw(hue=0.1)] == [c.hue for c in draw(hue=0.1, blur=1.0)]
