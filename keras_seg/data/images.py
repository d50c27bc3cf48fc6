"""Safe reading of raw images and masks, and their geometry.

Raw files come from anywhere. The header is read before anything is decoded: a file
that is not a PNG or JPEG, or has more than `MAX_PIXELS` pixels, is refused. Then the
whole file is walked to its end marker, because decoders make up what is missing: Pillow
accepts a PNG that lacks its last bytes, OpenCV a JPEG cut in half.

Masks are read by Pillow, which keeps palette indices (TensorFlow and OpenCV turn them
into colours).
"""

import functools
import io
import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from keras_seg.data import files
from keras_seg.errors import DataError
from keras_seg.labels import IGNORE_ID

MAX_PIXELS = 64_000_000
MAX_SIDE = 65_500  # pixels; OpenCV writes no longer JPEG
MAX_SCANS = 100  # of a JPEG: each is a pass over all pixels; usual are 10
_MAX_PIECES = 1_000_000  # chunks or segments of a file
MAX_FILE_BYTES = 8 * MAX_PIXELS  # 16-bit RGBA without compression

_BLOCK = 1 << 20  # values worked on at a time, where that takes memory

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG_SIGNATURE = b"\xff\xd8\xff"
_EXIF_ORIENTATION = 274
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length
# In entropy-coded data 0xFF is followed by 0x00 (stuffing), a restart marker or 0xFF
# (fill); anything else ends the scan.
_JPEG_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)


@dataclass(frozen=True)
class RawImage:
    """A decoded image."""

    pixels: np.ndarray  # uint8 RGB [H, W, 3]
    format: str  # "png" or "jpg", of the file
    content: bytes | None  # of a file that fits a prepared folder as it is, else None


@dataclass(frozen=True)
class _File:
    """A whole PNG or JPEG file, not yet decoded."""

    path: Path
    content: bytes  # up to and including the end marker
    format: str  # "png" or "jpg"
    bit_depth: int  # bits a channel


def read_raw_image(path: Path) -> RawImage:
    """Read an image file of any kind as 8-bit RGB.

    Grey becomes three equal channels, palettes their colours, 16-bit levels their
    upper 8 bits; alpha is dropped. An EXIF orientation is applied, as viewers and
    annotation tools do. DataError where it is no whole PNG or JPEG, or too large.
    """
    file = _load(path)
    image = _decode(file)
    upright = _upright(image)
    as_is = (
        image.mode == "RGB"
        and file.bit_depth == 8
        and upright is image
        and "transparency" not in image.info
        and getattr(image, "n_frames", 1) == 1
    )
    content = file.content if as_is else None
    return RawImage(np.ascontiguousarray(_rgb(upright)), file.format, content)


def count_pixels(path: Path) -> int:
    """Width times height that an image's header claims; `MAX_PIXELS` without one."""
    try:
        with Image.open(path) as image:
            return min(image.width * image.height, MAX_PIXELS)
    except Exception:  # it is read and named later
        return MAX_PIXELS


def read_raw_label(
    path: Path, colours: Mapping[tuple[int, int, int], int] | None = None
) -> np.ndarray:
    """Read a mask: class ids uint8 [H, W].

    Args:
        path: a PNG: 8-bit (or less) grey ids, palette indices, or with `colours` RGB.
        colours: {(red, green, blue): class id}. RGB and palette masks are then read by
            their colours; palette index 255 stays 255.

    Raises:
        DataError: as for images; 16-bit, a kind that has no ids, a colour that is not
            in `colours`.
    """
    file = _load(path)
    if file.format != "png":
        raise DataError(f"{path} is a JPEG mask. Use a PNG: JPEG changes class ids.")
    if file.bit_depth == 16:
        raise DataError(f"{path} is a 16-bit mask. Save its class ids with 8 bits.")
    image = _decode(file)
    if image.mode == "L":
        # Pillow stretches 2- and 4-bit grey levels to 0..255.
        step = 255 // (2**file.bit_depth - 1)
        return np.array(image) if step == 1 else np.array(image) // step
    if image.mode == "1":
        return np.array(image).astype(np.uint8)
    if image.mode == "P" and colours is None:
        return np.array(image)
    if image.mode not in ("P", "RGB", "RGBA"):
        raise DataError(f"{path} is a mask of mode {image.mode}, not 8-bit class ids.")
    if colours is None:
        raise DataError(
            f"{path} is an RGB mask. Save 8-bit class ids, or name the colours of the "
            "classes with --palette."
        )
    rgb = np.array(image.convert("RGB"))
    label = np.array(image) if image.mode == "P" else np.zeros(rgb.shape[:2], np.uint8)
    rows = max(1, _BLOCK // label.shape[1])
    for start in range(0, len(label), rows):
        part = label[start : start + rows]
        named = part != IGNORE_ID
        part[named] = _ids_of_colours(rgb[start : start + rows][named], colours, path)
    return label


def map_ids(label: np.ndarray, ids: Mapping[int, int], path: Path) -> np.ndarray:
    """Raw ids uint8 [H, W] to class ids uint8 [H, W] by {raw id: class id}.

    DataError, naming `path`, where another id is in the label.
    """
    table = np.full(256, -1, np.int16)
    table[list(ids)] = list(ids.values())
    counts = count_values(label)
    for value in np.flatnonzero(counts * (table < 0)):
        raise DataError(
            f"{path} has class id {value} in {counts[value]} pixels. Its ids must be "
            f"{_listed(sorted(ids))}."
        )
    return cv2.LUT(label, table.astype(np.uint8))


def count_values(array: np.ndarray) -> np.ndarray:
    """int64 [256]: how often each value is in an array of uint8."""
    counts = np.zeros(256, np.int64)
    flat = array.reshape(-1)
    for start in range(0, flat.size, _BLOCK):  # bincount makes 8 bytes of each value
        counts += np.bincount(flat[start : start + _BLOCK], minlength=256)
    return counts


def _listed(ids: Sequence[int]) -> str:
    """Ascending ids in words: 0 to 10, or 255."""
    ends = [i for i in ids if i + 1 not in ids]
    starts = [i for i in ids if i - 1 not in ids]
    runs = [str(a) if a == b else f"{a} to {b}" for a, b in zip(starts, ends)]
    return ", or ".join(runs)


def pad_to_square(array: np.ndarray, fill: int = 0) -> np.ndarray:
    """Centre [H, W, ...] in a square of the longer side."""
    height, width = array.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = np.full((side, side, *array.shape[2:]), fill, array.dtype)
    square[top : top + height, left : left + width] = array
    return square


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear, antialiased when shrinking: uint8 [H, W, 3] to size (height, width).

    Equal to tf.image.resize(antialias=True) and torch's antialias up to rounding.
    """
    if image.shape[:2] == size:
        return image
    height, width = size
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    return np.array(resized)


def resize_label(label: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Nearest with half-pixel centres: uint8 [H, W] to size (height, width).

    Of two pixels equally near it takes the later one, as `metrics.resize_labels` does;
    whole numbers make that exact. cv2.INTER_NEAREST (floor) would shift the label
    against the image; INTER_NEAREST_EXACT sometimes takes the earlier one.
    """
    if label.shape == size:
        return label
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new)
        for old, new in zip(label.shape, size)
    )
    return label[rows][:, columns]


def encode_png(array: np.ndarray) -> bytes:
    """uint8 [H, W] or RGB [H, W, 3] as a PNG file."""
    return _encode(".png", array, [])


def encode_jpeg(image: np.ndarray) -> bytes:
    """uint8 RGB [H, W, 3] as a JPEG file of quality 95."""
    return _encode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])


def _encode(extension: str, array: np.ndarray, parameters: list[int]) -> bytes:
    bgr = np.ascontiguousarray(array[..., ::-1] if array.ndim == 3 else array)
    done, content = cv2.imencode(extension, bgr, parameters)
    if not done:
        raise ValueError(f"OpenCV cannot encode {array.dtype} {array.shape}")
    return content.tobytes()


def _load(path: Path) -> _File:
    content = files.read_bytes(path, MAX_FILE_BYTES)
    if not content:
        raise DataError(f"{path} is an empty file.")
    if content.startswith(_PNG_SIGNATURE):
        return _walk_png(path, content)
    if content.startswith(_JPEG_SIGNATURE):
        return _walk_jpeg(path, content)
    raise DataError(f"{path} is neither PNG nor JPEG.")


def _walk_png(path: Path, content: bytes) -> _File:
    """Check every chunk's checksum up to IEND."""
    position, bit_depth = len(_PNG_SIGNATURE), None
    for _ in range(_MAX_PIECES):
        if position + 12 > len(content):
            raise _truncated(path, content)
        length, kind = struct.unpack_from(">I4s", content, position)
        end = position + 12 + length
        if end > len(content):
            raise _truncated(path, content)
        (checksum,) = struct.unpack_from(">I", content, end - 4)
        if zlib.crc32(memoryview(content)[position + 4 : end - 4]) != checksum:
            raise DataError(f"{path} is damaged (checksum).")
        if bit_depth is None:
            if kind != b"IHDR" or length != 13:
                raise DataError(f"{path} is damaged (no image header).")
            width, height, bit_depth = struct.unpack_from(">IIB", content, position + 8)
            _check_pixels(path, width, height)
        if kind == b"IEND":
            return _File(path, content[:end], "png", bit_depth)
        position = end
    raise DataError(f"{path} has more than {_MAX_PIECES} chunks.")


def _walk_jpeg(path: Path, content: bytes) -> _File:
    """Follow the markers up to the end of the image."""
    position, bit_depth, scans = 2, 8, 0
    for _ in range(_MAX_PIECES):
        if position + 2 > len(content):
            raise _truncated(path, content)
        if content[position] != 0xFF:
            raise DataError(f"{path} is damaged (no marker).")
        marker = content[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker == 0xD9:  # end of image
            return _File(path, content[: position + 2], "jpg", bit_depth)
        elif marker in _JPEG_STANDALONE:
            position += 2
        else:
            if position + 4 > len(content):
                raise _truncated(path, content)
            (length,) = struct.unpack_from(">H", content, position + 2)
            if marker in _JPEG_FRAMES and position + 9 <= len(content):
                bit_depth, height, width = struct.unpack_from(
                    ">BHH", content, position + 4
                )
                _check_pixels(path, width, height)
            position += 2 + length
            if marker == 0xDA:  # start of scan: entropy-coded data follow
                scans += 1
                if scans > MAX_SCANS:
                    raise DataError(f"{path} has more than {MAX_SCANS} scans.")
                following = _JPEG_NEXT_MARKER.search(content, position)
                if following is None:
                    raise _truncated(path, content)
                position = following.start()
    raise DataError(f"{path} has more than {_MAX_PIECES} segments.")


def _truncated(path: Path, content: bytes) -> DataError:
    return DataError(f"{path} is truncated at {len(content)} bytes.")


def _check_pixels(path: Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise DataError(
            f"{path} has {width} x {height} pixels; {MAX_PIXELS} are allowed, "
            f"{MAX_SIDE} on a side."
        )


def _decode(file: _File) -> Image.Image:
    formats = {"png": "PNG", "jpg": "JPEG"}
    try:
        image = Image.open(io.BytesIO(file.content), formats=[formats[file.format]])
        image.load()
    except Exception as error:  # Pillow raises many kinds on damaged files
        raise DataError(f"{file.path} is damaged ({error}).") from None
    return image


def _upright(image: Image.Image) -> Image.Image:
    """The image as its EXIF orientation wants it; itself where there is none."""
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # damaged EXIF data do not harm the pixels
        orientation = 1
    return ImageOps.exif_transpose(image) if orientation in range(2, 9) else image


def _rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):  # 16-bit grey
        grey = (np.array(image) >> 8).astype(np.uint8)
        return np.stack([grey] * 3, axis=-1)
    if image.mode == "P":  # by way of RGBA: transparent palettes
        image = image.convert("RGBA")
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _ids_of_colours(rgb, colours, path):
    """uint8 [N] from uint8 [N, 3]."""
    codes = rgb[:, 0].astype(np.uint32) << 16
    codes |= rgb[:, 1].astype(np.uint32) << 8
    codes |= rgb[:, 2]
    ids = _ids_of_codes(tuple(colours.items()))[codes]
    if (ids < 0).any():
        wrong = int(codes[ids < 0][0])
        colour = (wrong >> 16, wrong >> 8 & 255, wrong & 255)
        count = np.count_nonzero(codes == wrong)
        raise DataError(
            f"{path} has colour {colour} in {count} pixels, which --palette lacks."
        )
    return ids.astype(np.uint8)


@functools.lru_cache(maxsize=1)
def _ids_of_codes(colours):
    """int16 [2^24]: the class id of each 24-bit colour, -1 where it has none."""
    table = np.full(1 << 24, -1, np.int16)
    for (red, green, blue), class_id in colours:
        table[red << 16 | green << 8 | blue] = class_id
    return table
