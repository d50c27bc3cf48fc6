"""PNGs that are decoded a strip at a time: Pillow's pixels, in little memory."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from keras_seg.errors import DataError
from keras_seg.runs import large_png, pictures

SIZE = (37, 53)


@pytest.fixture
def strips(monkeypatch):
    """Of 300 bytes, or one row."""
    monkeypatch.setattr(large_png, "STRIP", 300)


def drawn(mode, seed=0):
    """Smooth and noisy parts, so that an encoder uses every filter."""
    rng = np.random.default_rng(seed)
    ramp = np.add.outer(3 * np.arange(SIZE[0]), 2 * np.arange(SIZE[1])) % 256
    pixels = np.stack([ramp, ramp[::-1], ramp[:, ::-1], ramp[::-1, ::-1]], -1)
    pixels[10:20] = rng.integers(0, 256, (10, SIZE[1], 4))
    image = Image.fromarray(pixels.astype(np.uint8), "RGBA")
    return image.convert("RGB").quantize(100) if mode == "P" else image.convert(mode)


def filtered(image, kinds):
    """A PNG's content with chosen filters, from the specification (9.2)."""
    pixels = np.asarray(image)
    step = pixels[0, 0].size
    flat = pixels.reshape(len(pixels), -1).astype(int)
    rows = []
    for y, row in enumerate(flat):
        left = np.concatenate([np.zeros(step, int), row[:-step]])
        above = flat[y - 1] if y else np.zeros_like(row)
        corner = np.concatenate([np.zeros(step, int), above[:-step]])
        guess = left + above - corner
        apart = [abs(guess - one) for one in (left, above, corner)]
        nearest = np.where(
            (apart[0] <= apart[1]) & (apart[0] <= apart[2]),
            left,
            np.where(apart[1] <= apart[2], above, corner),
        )
        kind = kinds[y % len(kinds)]
        minus = [0 * row, left, above, (left + above) // 2, nearest][kind]
        rows.append(bytes([kind]) + ((row - minus) % 256).astype(np.uint8).tobytes())
    return zlib.compress(b"".join(rows))


def png(image, packed, depth=8, interlaced=0, piece=100):
    height, width = SIZE
    colour = {"L": 0, "RGB": 2, "P": 3, "LA": 4, "RGBA": 6}[image.mode]
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    chunks = [(b"IHDR", header)]
    if image.mode == "P":
        chunks.append((b"PLTE", bytes(image.getpalette())))
    chunks += [
        (b"IDAT", packed[start : start + piece])
        for start in range(0, len(packed), piece)
    ]
    content = large_png.SIGNATURE
    for kind, data in [*chunks, (b"IEND", b"")]:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        content += struct.pack(">I", len(data)) + kind + data + checksum
    return content


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA"])
def test_the_pixels_are_pillows(mode, strips, tmp_path):
    image, path = drawn(mode), tmp_path / "a.png"
    expected = np.asarray(image.convert("RGBA").convert("RGB"))
    for kinds in ((0,), (1,), (2,), (3,), (4,), (4, 2, 3, 1, 0, 3, 4)):
        path.write_bytes(png(image, filtered(image, kinds)))
        with Image.open(path) as other:  # the test writes what Pillow reads
            np.testing.assert_array_equal(np.asarray(other), np.asarray(image))
        found, orientation = large_png.read(path)
        np.testing.assert_array_equal(found, expected)
        assert orientation == 1


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("behind", [False, True])
def test_a_large_png_is_turned_wherever_its_orientation_is(
    orientation, behind, strips, tmp_path, monkeypatch
):
    image, path, exif = drawn("RGB"), tmp_path / "a.png", Image.Exif()
    exif[274] = orientation
    image.save(path, exif=exif)
    content = path.read_bytes()
    start = content.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(content[start : start + 4], "big")
    if behind:
        moved = content[:start] + content[end:]
        path.write_bytes(moved[:-12] + content[start:end] + moved[-12:])
    monkeypatch.setattr(pictures, "MAX_PIXELS", 10)
    turned = image.rotate({3: 180, 6: -90}[orientation], expand=True)
    np.testing.assert_array_equal(pictures.pixels(path), np.asarray(turned))


def test_the_size_of_a_png_is_found_without_decoding_it(tmp_path, monkeypatch):
    drawn("RGB").save(tmp_path / "a.png")

    def load(self):
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", load)
    assert pictures.size_in_file(tmp_path / "a.png") == SIZE


def test_other_kinds_are_left_to_another_decoder(tmp_path):
    image, path = drawn("RGB"), tmp_path / "a.png"
    packed = filtered(image, (0,))
    for options in ({"depth": 16}, {"interlaced": 1}):
        path.write_bytes(png(image, packed, **options))
        assert large_png.read(path) is None
    image.save(tmp_path / "a.jpg")
    assert large_png.read(tmp_path / "a.jpg") is None


def test_damage_is_named(strips, tmp_path):
    image, path = drawn("RGB"), tmp_path / "a.png"
    packed = filtered(image, (4,))
    whole = png(image, packed)
    changed = bytearray(whole)
    changed[200] ^= 1
    other = zlib.compress(bytes([9]) + zlib.decompress(packed)[1:])  # no such filter
    for content, reason in (
        (whole[:-20], "is truncated at"),
        (whole[: len(whole) // 2], "is truncated at"),
        (png(image, packed[: len(packed) // 2]), "is truncated at"),
        (changed, "is damaged .checksum"),
        (png(image, packed[:50] + b"x" + packed[51:]), "is damaged"),
        (png(image, other), "is damaged"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"a.png {reason}"):
            large_png.read(path)
