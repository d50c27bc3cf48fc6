"""Raw images and masks of every kind; damaged ones are refused by name."""

import math
import zlib
from fractions import Fraction

import cv2
import miniatures
import numpy as np
import pytest
from PIL import Image, ImageOps

from keras_seg.data import images
from keras_seg.errors import DataError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (10, 14, 3)).astype(np.uint8)
GREY = RNG.integers(0, 256, (10, 14)).astype(np.uint8)
GREY16 = RNG.integers(0, 65536, (10, 14)).astype(np.uint16)


def png(width, height, bits, colour_type, rows: bytes, *chunks) -> bytes:
    """A PNG file of rows without their filter bytes."""
    per_row = len(rows) // height
    lines = (b"\0" + rows[y * per_row : (y + 1) * per_row] for y in range(height))
    packed = zlib.compress(b"".join(lines))
    return miniatures.png(width, height, bits, colour_type, packed, *chunks)


def grey_as_rgb(grey):
    return np.repeat(grey[..., None], 3, axis=2)


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (RGB, RGB),
        (np.dstack([RGB, GREY]), RGB),
        (GREY, grey_as_rgb(GREY)),
        (np.dstack([GREY, GREY[::-1]]), grey_as_rgb(GREY)),
        (GREY16, grey_as_rgb((GREY16 // 256).astype(np.uint8))),
        (GREY > 127, grey_as_rgb(np.where(GREY > 127, 255, 0))),
    ],
    ids=["rgb", "rgba", "grey", "grey alpha", "grey 16", "bits"],
)
def test_png_kinds_become_rgb(pixels, expected, tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    raw = images.read_raw_image(path)
    np.testing.assert_array_equal(raw.pixels, expected)
    assert raw.pixels.dtype == np.uint8
    assert raw.format == "png"
    as_is = pixels is RGB
    assert raw.content == (path.read_bytes() if as_is else None)


def test_16_bit_rgb_keeps_the_upper_bits(tmp_path):
    pixels = RNG.integers(0, 65536, (4, 6, 3)).astype(">u2")
    (tmp_path / "a.png").write_bytes(png(6, 4, 16, 2, pixels.tobytes()))
    raw = images.read_raw_image(tmp_path / "a.png")
    np.testing.assert_array_equal(raw.pixels, pixels // 256)
    assert raw.content is None  # the prepared folder is 8-bit


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_kinds_become_rgb(mode, tmp_path):
    smooth = np.add.outer(np.arange(40), np.arange(30)).astype(np.uint8) * 3
    expected = Image.fromarray(grey_as_rgb(smooth)).convert(mode)
    expected.save(tmp_path / "a.jpg", quality=95)
    raw = images.read_raw_image(tmp_path / "a.jpg")
    difference = raw.pixels - np.array(expected.convert("RGB")).astype(int)
    assert np.abs(difference).max() < 8
    assert (raw.content is not None) == (mode == "RGB")


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to view
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    raw = images.read_raw_image(tmp_path / "a.png")
    np.testing.assert_array_equal(raw.pixels, np.rot90(RGB, -1))
    assert raw.content is None


def test_bytes_behind_the_end_are_dropped(tmp_path):
    for name in ("a.png", "a.jpg"):
        path = tmp_path / name
        Image.fromarray(RGB).save(path)
        whole = path.read_bytes()
        path.write_bytes(whole + b"\0" * 9)
        assert images.read_raw_image(path).content == whole


def flipped_bit(content):
    return content[:45] + bytes([content[45] ^ 1]) + content[46:]  # of pixel data


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "progressive.jpg"])
@pytest.mark.parametrize("kept", [0.5, -20, -1, 15])
def test_truncated_files_are_refused(name, kept, tmp_path):
    path = tmp_path / name
    noise = RNG.integers(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(path, progressive=name.startswith("progressive"))
    assert images.read_raw_image(path).pixels.shape == noise.shape
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if kept == 0.5 else kept])
    with pytest.raises(DataError, match=rf"{name} is truncated at \d+ bytes"):
        images.read_raw_image(path)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.png", b"", "an empty file"),
        ("a.png", b"GIF88a" + b"\0" * 30, "neither PNG nor JPEG"),
        ("a.jpg", b"\xff\xd8\xff\xe0" + b"\0" * 30, "damaged"),
        ("a.jpg", b"\xff\xd8\xff\xd9", "damaged"),
        ("a.png", png(4, 4, 8, 2, b"\0" * 12), "damaged"),  # too few rows
        ("a.png", flipped_bit(png(4, 4, 8, 2, b"\0" * 48)), "damaged"),
    ],
)
def test_other_content_is_refused(name, content, reason, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name} is {reason}"):
        images.read_raw_image(tmp_path / name)


def test_missing_and_folder_are_refused(tmp_path):
    for name, reason in (("no.png", "No such file"), ("", "directory")):
        with pytest.raises(DataError, match=f"{name} cannot be read: .*{reason}"):
            images.read_raw_image(tmp_path / name)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("palette", [False, True], ids=["grey", "palette"])
def test_masks_of_few_bits_keep_their_ids(bits, palette, tmp_path):
    ids = RNG.integers(0, 2**bits, (6, 16)).astype(np.uint8)
    spread = ((ids[..., None] >> np.arange(bits)[::-1]) & 1).astype(np.uint8)
    rows = np.packbits(spread.reshape(6, -1), axis=1).tobytes()
    # A palette of equal colours: only the indices tell the classes apart.
    chunks = [(b"PLTE", b"\7\7\7" * 2**bits)] if palette else []
    content = png(16, 6, bits, 3 if palette else 0, rows, *chunks)
    (tmp_path / "a.png").write_bytes(content)
    np.testing.assert_array_equal(images.read_raw_label(tmp_path / "a.png"), ids)


@pytest.mark.parametrize("suffix", ["tif", "bmp", "webp", "gif"])
def test_other_lossless_formats_are_read_like_png(suffix, tmp_path):
    path = tmp_path / f"a.{suffix}"
    image = Image.fromarray(RGB)
    if suffix == "gif":  # of 256 colours
        image = Image.fromarray(GREY)
    image.save(path, lossless=True)
    raw = images.read_raw_image(path)
    expected = grey_as_rgb(GREY) if suffix == "gif" else RGB
    np.testing.assert_array_equal(raw.pixels, expected)
    assert (raw.format, raw.content) == ("png", None)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(DataError, match=f"a.{suffix} is (truncated at|damaged)"):
        images.read_raw_image(path)


@pytest.mark.parametrize("suffix", ["tif", "webp", "gif"])
def test_several_pages_are_refused(suffix, tmp_path):
    path, pages = tmp_path / f"a.{suffix}", [Image.fromarray(RGB)] * 2
    pages[1] = Image.fromarray(RGB[::-1])
    pages[0].save(path, save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match="has several pages or frames"):
        images.read_raw_image(path)


DEEP = RNG.integers(100, 1124, (6, 8)).astype(np.uint16)  # 10 bits


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_levels_of_16_bits_become_black_and_white(suffix, channels, tmp_path):
    pixels = DEEP if channels == 1 else np.dstack([DEEP, DEEP[::-1], DEEP[:, ::-1]])
    path = tmp_path / f"a.{suffix}"
    bgr = pixels if channels == 1 else pixels[..., ::-1]
    cv2.imwrite(str(path), bgr)
    assert images.is_deep(path)
    raw = images.read_raw_image(path, (200, 1000))
    expected = np.clip((pixels.astype(float) - 200) * 255 / 800, 0, 255)
    expected = np.rint(expected).astype(np.uint8)
    expected = grey_as_rgb(expected) if channels == 1 else expected
    np.testing.assert_array_equal(raw.pixels, expected)
    assert raw.is_deep
    counts = images.count_levels(path)
    np.testing.assert_array_equal(counts, np.bincount(pixels.ravel(), minlength=65536))
    Image.fromarray(RGB).save(path)
    assert not images.is_deep(path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_are_those_of_pillow(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        expected = np.array(ImageOps.exif_transpose(image))
    raw = images.read_raw_image(tmp_path / "a.png")
    np.testing.assert_array_equal(raw.pixels, expected)
    np.testing.assert_array_equal(images.turned(RGB, orientation), expected)
    assert raw.orientation == orientation
    stored = images.read_raw_image(tmp_path / "a.png", upright=False)
    np.testing.assert_array_equal(stored.pixels, RGB)
    assert (stored.content is None) == (orientation != 1)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\0\0\0\x18ftypheic" + b"\0" * 30, "a HEIC picture. Convert it"),
        (b"\0" * 128 + b"DICM" + b"\0" * 30, "a DICOM file"),
        (b"\x93NUMPY" + b"\0" * 30, "a NumPy array"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
    ],
)
def test_pictures_of_other_formats_are_named(content, what, tmp_path):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match=f"a.png is {what}"):
        images.read_raw_image(tmp_path / "a.png")


def test_masks_of_every_kind_are_decoded_as_they_are(tmp_path):
    path, ids = tmp_path / "a.png", RNG.integers(0, 9, (5, 7)).astype(np.uint8)
    Image.fromarray(RGB).save(path)
    mask = images.read_raw_mask(path)
    np.testing.assert_array_equal(mask.pixels, RGB)
    assert (mask.palette, mask.is_lossy) == (None, False)
    miniatures.palette_image(ids, [*range(27)]).save(path)
    mask = images.read_raw_mask(path)
    np.testing.assert_array_equal(mask.pixels, ids)
    np.testing.assert_array_equal(mask.palette[:9], np.arange(27).reshape(9, 3))
    Image.fromarray(GREY16).save(path)
    np.testing.assert_array_equal(images.read_raw_mask(path).pixels, GREY16)
    for dtype in (np.int32, np.float32):
        Image.fromarray(GREY16.astype(dtype)).save(tmp_path / "a.tif")
        pixels = images.read_raw_mask(tmp_path / "a.tif").pixels
        np.testing.assert_array_equal(pixels, GREY16)
        with pytest.raises(DataError, match="a.tif has 32 bits a channel"):
            images.read_raw_image(tmp_path / "a.tif")
    for value in (-1, 0.5, np.nan, 65536):
        Image.fromarray(np.full((3, 4), value, np.float32)).save(tmp_path / "a.tif")
        with pytest.raises(DataError, match="no whole numbers"):
            images.read_raw_mask(tmp_path / "a.tif")
    Image.fromarray(np.dstack([GREY, GREY[::-1]])).save(path)
    expected = np.dstack([GREY, GREY, GREY, GREY[::-1]])
    np.testing.assert_array_equal(images.read_raw_mask(path).pixels, expected)
    for name, options in (
        ("a.jpg", {}),
        ("a.webp", {}),
        ("b.webp", {"lossless": True}),
    ):
        Image.fromarray(RGB).save(tmp_path / name, **options)
        mask = images.read_raw_mask(tmp_path / name)
        assert mask.is_lossy == (name != "b.webp")


@pytest.mark.parametrize(
    ("name", "pixels", "reason"),
    [
        ("a.jpg", GREY, "a JPEG mask"),
        ("a.png", GREY16, "a 16-bit mask"),
        ("a.png", np.dstack([GREY, GREY]), "an RGB mask"),
        ("a.png", RGB, "an RGB mask"),
    ],
)
def test_masks_without_ids_are_refused(name, pixels, reason, tmp_path):
    Image.fromarray(pixels).save(tmp_path / name)
    with pytest.raises(DataError, match=f"{name} is {reason}"):
        images.read_raw_label(tmp_path / name)


def test_map_ids_names_value_and_count():
    ids = {0: 5, 1: 6, 2: 0, 9: 1, 255: 255}
    label = np.array([[0, 1, 255], [1, 0, 0]], np.uint8)
    mapped = images.map_ids(label, ids, "m.png")
    np.testing.assert_array_equal(mapped, [[5, 6, 255], [6, 5, 5]])
    label[0, 1:] = 7
    message = "m.png has class id 7 in 2 pixels. Its ids must be 0 to 2, or 9, or 255."
    with pytest.raises(DataError, match=message):
        images.map_ids(label, ids, "m.png")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        *(((9, 12), new) for new in ((6, 16), (18, 5), (3, 3), (27, 36))),
        ((2, 240), (7, 600)),  # centres between two pixels
        ((240, 2), (600, 7)),
    ],
)
def test_label_resize_takes_the_nearest_centre(old, new):
    """Target pixel i of n reads source floor((i + 1/2) N / n)."""
    label = RNG.integers(0, 256, old).astype(np.uint8)
    rows, columns = (
        [math.floor(Fraction(2 * i + 1, 2) * length / count) for i in range(count)]
        for length, count in zip(old, new)
    )
    resized = images.resize_label(label, new)
    np.testing.assert_array_equal(resized, label[rows][:, columns])


def test_a_centre_between_two_pixels_takes_the_later_one():
    # By hand: centres of 5 pixels over 2 are at .2, .6, 1, 1.4 and 1.8
    label = np.array([[3, 8]], np.uint8)
    np.testing.assert_array_equal(images.resize_label(label, (1, 5)), [[3, 3, 8, 8, 8]])


def test_pad_to_square_is_centred():
    padded = images.pad_to_square(np.ones((2, 5), np.uint8), 7)
    assert padded.shape == (5, 5)
    assert (padded[1:3] == 1).all()
    assert (padded[[0, 3, 4]] == 7).all()
