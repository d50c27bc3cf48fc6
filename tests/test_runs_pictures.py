"""Pictures of gigabytes are read once, into as much memory as they have pixels."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from keras_seg.errors import DataError
from keras_seg.runs import pictures

SIZE = (37, 53)


@pytest.fixture
def large(monkeypatch):
    """All pictures are large."""
    monkeypatch.setattr(pictures, "MAX_PIXELS", 10)


def drawn(mode):
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 4), np.uint8)
    image = Image.fromarray(pixels)
    return image.convert("RGB").quantize(100) if mode == "P" else image.convert(mode)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_the_pixels_of_a_large_png_are_pillows(mode, large, tmp_path):
    image = drawn(mode)
    image.save(tmp_path / "a.png")
    expected = np.asarray(image.convert("RGBA").convert("RGB"))
    np.testing.assert_array_equal(pictures.pixels(tmp_path / "a.png"), expected)


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("behind", [False, True])
def test_a_large_png_is_turned_wherever_its_orientation_is(
    orientation, behind, large, tmp_path
):
    image, path, exif = drawn("RGB"), tmp_path / "a.png", Image.Exif()
    exif[274] = orientation
    image.save(path, exif=exif)
    content = path.read_bytes()
    start = content.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(content[start : start + 4], "big")
    if behind:  # the pixels
        moved = content[:start] + content[end:]
        path.write_bytes(moved[:-12] + content[start:end] + moved[-12:])
    turned = image.rotate({3: 180, 6: -90}[orientation], expand=True)
    np.testing.assert_array_equal(pictures.pixels(path), np.asarray(turned))


def test_the_size_of_a_png_is_found_without_decoding_it(tmp_path, monkeypatch):
    drawn("RGB").save(tmp_path / "a.png")

    def load(self):
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", load)
    assert pictures.size_in_file(tmp_path / "a.png") == SIZE


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_a_large_picture_without_its_end_is_named(name, large, tmp_path):
    drawn("RGB").save(tmp_path / name)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-9])
    with pytest.raises(DataError, match=f"{name} is truncated at"):
        pictures.pixels(tmp_path / name)


SCRIPT = r"""
import re, sys
from keras_seg.runs import pictures
pictures.MAX_PIXELS = 10

def memory(kind):
    status = open("/proc/self/status").read()
    return 1024 * int(re.search(kind + r":\s+(\d+)", status)[1])

pictures.pixels(sys.argv[1])
before = memory("VmRSS")
image = pictures.pixels(sys.argv[2])
print((memory("VmHWM") - before) / image.nbytes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux'")
@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_a_large_picture_is_held_once(name, tmp_path):
    drawn("RGB").save(tmp_path / name)
    large = tmp_path / f"large-{name}"
    Image.new("RGB", (7000, 6000), "teal").save(large)
    words = [sys.executable, "-c", SCRIPT, tmp_path / name, large]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1.5
