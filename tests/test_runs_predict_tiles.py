"""Tiles, flips and ensembles, with networks that are a line of NumPy."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from keras_seg.data.images import resize_image
from keras_seg.errors import UsageError
from keras_seg.labels import LabelSpec
from keras_seg.runs import predict
from keras_seg.runs.predict import Member, Options, Predictor

LABELS = LabelSpec(
    ("ground", "left", "right", "hat", "coat"), ((0, 0, 0),) * 5, ((1, 2),)
)
WEIGHTS = np.random.default_rng(4).normal(0, 1, (3, 5)).astype("float32")
REACH = 6  # pixels that the network below sees in each direction


def seen_from_afar(images: np.ndarray) -> np.ndarray:
    """A network of stride 4: means of 13 x 13 px around every 4th, then larger again.

    Like those of Keras it pads with zeros, and the mean of what is outside is 0.
    """
    side = (2 * REACH + 1,) * 2
    found = []
    for image in images:
        soft = cv2.boxFilter(
            image.astype("float32"), -1, side, borderType=cv2.BORDER_CONSTANT
        )
        coarse = soft[::4, ::4].repeat(4, 0).repeat(4, 1)
        found.append((coarse[: image.shape[0], : image.shape[1]] - 120) @ WEIGHTS / 40)
    return np.stack(found)


def pointwise(images: np.ndarray) -> np.ndarray:
    return (images.astype("float32") - 120) @ WEIGHTS / 40


def member(network=seen_from_afar, labels=LABELS, weights="w", size=(16, 24), **more):
    return Member(Path("a run"), labels, size, 4, weights, lambda _: network, **more)


@pytest.fixture(scope="module")
def picture():
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (9, 13, 3), np.uint8)
    large = cv2.resize(small, (131, 94), interpolation=cv2.INTER_CUBIC)
    return cv2.add(large, rng.integers(0, 40, large.shape, np.uint8))


def whole(picture, scale=1.0):
    """float64 [H, W, 5], by OpenCV's resizing of what the network gives at once."""
    size = tuple(round(side * scale) for side in picture.shape[:2])
    logits = seen_from_afar(resize_image(picture, size)[None])[0]
    shape = picture.shape[1::-1]
    logits = np.stack(
        [cv2.resize(plane, shape) for plane in logits.T.swapaxes(1, 2)], -1
    )
    powers = np.exp(logits.astype("float64") - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


# A reach of 6 px, and 3 to the left within a step of 4: half of the overlap is 12.
@pytest.mark.parametrize("tile", [(32, 40), (32, 400), (400, 28), (92, 128)])
def test_tiles_give_what_the_whole_gives(picture, tile):
    model = Predictor([member()], Options(scale=1, tile=tile, overlap=24))
    assert model.sizes(picture.shape[:2]) is None
    expected = whole(picture)
    found = model.probabilities(picture)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(model(picture), found.argmax(-1))
    assert len(np.unique(model(picture))) > 2


def test_what_is_nearer_to_a_cut_than_the_network_sees_may_differ(picture):
    """The same without an overlap: or the test above would show nothing."""
    model = Predictor([member()], Options(scale=1, tile=(32, 40), overlap=0))
    apart = np.abs(model.probabilities(picture) - whole(picture)).max(-1)
    assert apart[30:34].max() > 0.01  # at the cut between two tiles
    assert apart[REACH + 4 : 32 - REACH - 4, 10:24].max() < 1e-5  # inside of one


@pytest.mark.parametrize("scale", [0.5, 1.7])
def test_tiles_of_a_resized_picture_are_the_whole_resized_one(
    picture, scale, monkeypatch
):
    expected = whole(picture, scale)
    model = Predictor([member()], Options(scale=scale, tile=(32, 40), overlap=28))
    assert np.abs(model.probabilities(picture) - expected).max() < 1e-4
    # A picture that is large is resized in parts, whose rounding differs by a level.
    monkeypatch.setattr(predict, "MAX_PIXELS", 131 * 40)
    assert np.abs(model.probabilities(picture) - expected).max() < 0.03
    at_once = Predictor([member()], Options(scale=scale))
    assert np.abs(at_once.probabilities(picture) - expected).max() < 0.03


def test_a_small_picture_may_be_worked_on_in_tiles_as_well():
    """Enlarged 30 times: most tiles stand for less than a pixel of it."""
    rng = np.random.default_rng(1)
    picture = rng.integers(0, 256, (2, 5, 3), np.uint8)
    model = Predictor([member()], Options(scale=30, tile=(32, 32), overlap=24))
    found = model.probabilities(picture)
    assert np.abs(found - whole(picture, 30)).max() < 1e-4
    np.testing.assert_array_equal(model(picture), found.argmax(-1))


def test_a_picture_is_tiled_where_it_is_too_large_for_once(picture, monkeypatch):
    seen = []

    def network(images):
        seen.append(images.shape[1:3])
        return seen_from_afar(images)

    model = Predictor([member(network)], Options(scale=1))
    expected = model.probabilities(picture)
    assert seen == [(94, 131)]
    monkeypatch.setattr(predict, "WHOLE", 94 * 131 - 1)
    monkeypatch.setattr(predict, "TILE", (48, 48))
    tiled = Predictor([member(network)], Options(scale=1, overlap=24))
    np.testing.assert_allclose(tiled.probabilities(picture), expected, atol=1e-5)
    assert max(seen[1:]) == (48, 48)
    assert len(seen) - 1 == 3 * 5  # steps of 24: 0, 24, 48 and 0, 24, 48, 72, 84


def test_rows_at_a_time_are_the_whole(picture, monkeypatch):
    model = Predictor([member()])  # at its own size, 16 x 24
    expected = model.probabilities(picture)
    ids = model(picture)
    monkeypatch.setattr(predict, "BLOCK_VALUES", 131 * 5 * 7)
    np.testing.assert_allclose(model.probabilities(picture), expected, atol=1e-6)
    np.testing.assert_array_equal(model(picture), ids)


def test_a_flip_averages_with_the_mirrored_picture_left_and_right_exchanged(picture):
    model = Predictor([member(pointwise)], Options(flip=True, size=picture.shape[:2]))
    logits = pointwise(picture[None])[0].astype("float64")
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    plain = powers / powers.sum(-1, keepdims=True)
    # Pixel by pixel the mirrored picture says the same, of the other arm.
    expected = (plain + plain[..., [0, 2, 1, 3, 4]]) / 2
    np.testing.assert_allclose(model.probabilities(picture), expected, atol=1e-5)
    lopsided = Predictor([member()], Options(flip=True, scale=1))
    there = lopsided.probabilities(picture)
    back = lopsided.probabilities(picture[:, ::-1].copy())[:, ::-1]
    np.testing.assert_allclose(back[..., [0, 2, 1, 3, 4]], there, atol=1e-5)


def letterboxed(picture, size):
    """float32 [H, W, 5] of a picture that Pillow puts into the top left corner."""
    how = {"method": Image.Resampling.BILINEAR}
    upright = Image.fromarray(picture)
    width, height = ImageOps.contain(upright, size[::-1], **how).size
    boxed = ImageOps.pad(upright, size[::-1], **how, color=(0,) * 3, centering=(0, 0))
    logits = seen_from_afar(np.asarray(boxed)[None])[0][:height, :width]
    shape = picture.shape[1::-1]
    planes = [np.ascontiguousarray(plane) for plane in np.moveaxis(logits, -1, 0)]
    return np.stack([cv2.resize(plane, shape) for plane in planes], -1)


@pytest.mark.parametrize("options", [{}, {"size": (33, 50)}])
def test_a_letterboxed_picture_keeps_its_aspect_ratio(picture, options):
    """Wide and tall; what the network says beside it counts nowhere."""
    model = Predictor([member(size=(40, 40), fit="letterbox")], Options(**options))
    size = options.get("size", (40, 40))
    for one in (picture, picture.swapaxes(0, 1).copy()):
        powers = np.exp(letterboxed(one, size).astype("float64"))
        expected = powers / powers.sum(-1, keepdims=True)
        np.testing.assert_allclose(model.probabilities(one), expected, atol=1e-5)
        np.testing.assert_array_equal(model(one), expected.argmax(-1))
        # Mirrored, it is put into the same corner.
        flipped = Predictor(model.members, Options(**options, flip=True))
        there = flipped.probabilities(one)
        back = flipped.probabilities(one[:, ::-1].copy())[:, ::-1]
        np.testing.assert_allclose(back[..., [0, 2, 1, 3, 4]], there, atol=1e-5)


def test_tiles_of_a_letterboxed_picture_have_its_aspect_ratio(picture):
    """94 x 131 px in 84 x 84 is 60 x 84."""
    shown = Options(size=(84, 84), tile=(32, 40), overlap=28)
    model = Predictor([member(fit="letterbox")], shown)
    expected = letterboxed(picture, (60, 84))
    np.testing.assert_array_equal(model(picture), expected.argmax(-1))


def test_an_ensemble_averages_probabilities_at_the_size_of_the_picture(picture):
    small, large = member(size=(16, 24)), member(size=(40, 60), weights="v")
    both = Predictor([small, large])
    each = [Predictor([one]).probabilities(picture) for one in (small, large)]
    expected = np.mean(each, axis=0)
    np.testing.assert_allclose(both.probabilities(picture), expected, atol=1e-5)
    two = np.sort(expected, -1)[..., -2:]
    is_clear = two[..., 1] - two[..., 0] > 1e-4
    np.testing.assert_array_equal(
        both(picture)[is_clear], expected.argmax(-1)[is_clear]
    )
    assert both.size == (16, 24)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 1.0, "size": (3, 4)}, "Both size and scale"),
        ({"scale": 0.0}, "scale is 0.0; it must be more"),
        ({"size": (0, 4)}, "size is"),
        ({"tile": (32, 32)}, "Give scale=1"),
        ({"scale": 1.0, "overlap": -1}, "overlap is -1"),
    ],
)
def test_options_that_say_nothing_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        Options(**options)


def test_tiles_that_leave_no_step_are_refused(picture):
    model = Predictor([member()], Options(scale=1, tile=(16, 16), overlap=14))
    with pytest.raises(UsageError, match="16 pixels cannot share 14 .* steps of 4"):
        model(picture)


def test_what_does_not_go_together_is_refused():
    other = LabelSpec(("sky", "sea"), ((0, 0, 0), (9, 9, 9)))
    with pytest.raises(UsageError, match="has the classes sky, sea, but a run has gro"):
        Predictor([member(), member(labels=other)])
    fixed = member(is_fixed=True)
    with pytest.raises(UsageError, match="takes images of 16 x 24 .* --size 32 48"):
        Predictor([fixed], Options(size=(32, 48)))
    with pytest.raises(UsageError, match="takes tiles of 16 x 24"):
        Predictor([fixed], Options(scale=1, tile=(32, 48)))


def test_an_export_works_in_tiles_of_its_size(picture):
    seen = []

    def network(images):
        seen.append(images.shape[1:3])
        return pointwise(images)

    model = Predictor([member(network, is_fixed=True)], Options(scale=1, overlap=8))
    np.testing.assert_array_equal(model(picture), pointwise(picture).argmax(-1))
    assert max(seen) == (16, 24)
