"""Safe reading of raw images and masks, and their geometry.

Raw files come from anywhere. The header is read before anything is decoded: a file of
another format, or of more than `MAX_PIXELS` pixels, is refused. Then a PNG or JPEG is
walked to its end marker, because decoders make up what is missing: Pillow accepts a PNG
that lacks its last bytes, OpenCV a JPEG cut in half.

Masks are read by Pillow, which keeps palette indices (TensorFlow and OpenCV turn them
into colours). Pixels of 16 bits are read by OpenCV, since Pillow has no 16-bit colours.
"""

import io
import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from keras_seg.data import files
from keras_seg.errors import DataError

MAX_PIXELS = 64_000_000
MAX_SIDE = 65_500  # pixels; OpenCV writes no longer JPEG
MAX_SCANS = 100  # of a JPEG: each is a pass over all pixels; usual are 10
_MAX_PIECES = 1_000_000  # chunks or segments of a file
MAX_FILE_BYTES = 8 * MAX_PIXELS  # 16-bit RGBA without compression

_BLOCK = 1 << 20  # values worked on at a time, where that takes memory

# What a file begins with: its format, as Pillow names it
_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"BM", "BMP"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"RIFF", "WEBP"),
)
# Pictures of other formats, by where their mark is, which have to be converted first
_OTHERS = (
    (4, b"ftypheic", "a HEIC picture"),
    (4, b"ftypheix", "a HEIC picture"),
    (4, b"ftypmif1", "a HEIF picture"),
    (4, b"ftypavif", "an AVIF picture"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    (128, b"DICM", "a DICOM file"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR picture"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"%PDF", "a PDF"),
    (0, b"<svg", "an SVG drawing"),
    (0, b"version https://git-lfs", "a pointer of Git LFS: run git lfs pull"),
)
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_EXIF_ORIENTATION, _TIFF_BITS = 274, 258
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length
# In entropy-coded data 0xFF is followed by 0x00 (stuffing), a restart marker or 0xFF
# (fill); anything else ends the scan.
_JPEG_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)


@dataclass(frozen=True)
class RawImage:
    """A decoded image."""

    pixels: np.ndarray  # uint8 RGB [H, W, 3]
    format: str  # "png" or "jpg", in which it is prepared
    content: bytes | None  # of a file that fits a prepared folder as it is, else None
    orientation: int = 1  # of EXIF, which was applied; 1 where there is none
    is_deep: bool = False  # whether the file has 16 bits a channel


@dataclass(frozen=True)
class RawMask:
    """A decoded mask of any kind."""

    # Levels or palette indices uint8 or uint16 [H, W], or RGB or RGBA [H, W, 3 or 4]
    pixels: np.ndarray
    palette: np.ndarray | None  # uint8 [N, 3], the colours of the indices
    is_lossy: bool  # whether its compression changes values, as JPEG's does


@dataclass
class _File:
    """A whole file, not yet decoded."""

    path: Path
    content: bytes  # up to and including the end marker
    format: str  # of `_SIGNATURES`
    bit_depth: int  # bits a channel


def read_raw_image(
    path: Path, levels: tuple[int, int] | None = None, upright: bool = True
) -> RawImage:
    """Read an image file of any kind as 8-bit RGB.

    Grey becomes three equal channels, palettes their colours; alpha is dropped.

    Args:
        path: PNG, JPEG, TIFF, BMP, WebP or GIF.
        levels: of 16-bit files, the levels that become 0 and 255; None takes the upper
            8 bits. Levels beyond them are clipped.
        upright: whether an EXIF orientation is applied, as viewers and most annotation
            tools do.

    Raises:
        DataError: it is damaged, too large, or has another format or several pages.
    """
    file = _load(path)
    image = _decode(file)
    orientation = _orientation(image) if upright else 1
    as_is = (
        image.mode == "RGB"
        and file.format in ("PNG", "JPEG")
        and file.bit_depth == 8
        and orientation == 1
        and (upright or _orientation(image) == 1)
        and "transparency" not in image.info
        and getattr(image, "n_frames", 1) == 1
    )
    is_deep = file.bit_depth == 16
    pixels = _eight_bits(_deep(file), levels) if is_deep else _rgb(image, path)
    pixels = np.ascontiguousarray(turned(pixels, orientation))
    content = file.content if as_is else None
    kept = "jpg" if file.format == "JPEG" else "png"
    return RawImage(pixels, kept, content, orientation, is_deep)


def is_deep(path: Path) -> bool:
    """Whether the header of an image says 16 bits a channel; False where it is bad."""
    try:
        with Image.open(path) as image:
            if image.format != "PNG":
                return image.format == "TIFF" and _tiff_depth(image) == 16
        with path.open("rb") as file:  # behind signature, sides and the chunk's name
            return file.read(25)[24] == 16
    except Exception:  # it is read and named later
        return False


def count_levels(path: Path) -> np.ndarray:
    """int64 [65536]: how often each level is in a 16-bit image; errors as above."""
    return np.bincount(_deep(_load(path)).ravel(), minlength=1 << 16)


def read_raw_mask(path: Path) -> RawMask:
    """Read a mask of any kind as it is; `keras_seg.data.masks` says what it means.

    DataError as for images.
    """
    file = _load(path)
    image = _decode(file, most_bits=32)
    is_lossy = file.format == "JPEG" or file.content[8:16] == b"WEBPVP8 "
    if file.bit_depth == 16:
        return RawMask(_deep(file), None, is_lossy)
    if image.mode in ("I", "F"):  # ids in 32 bits, as ImageJ saves them
        pixels = np.array(image)
        levels = np.clip(np.nan_to_num(pixels), 0, (1 << 16) - 1).astype(np.uint16)
        if not np.array_equal(pixels, levels):
            raise DataError(f"{path} has values that are no whole numbers to 65535.")
        return RawMask(levels, None, is_lossy)
    if image.mode == "1":
        return RawMask(np.array(image).astype(np.uint8), None, is_lossy)
    if image.mode == "L":
        # Pillow stretches 2- and 4-bit grey levels to 0..255.
        step = 255 // (2**file.bit_depth - 1)
        pixels = np.array(image) if step == 1 else np.array(image) // step
        return RawMask(pixels, None, is_lossy)
    if image.mode == "P":
        colours = np.array(image.getpalette("RGB") or [0, 0, 0], np.uint8)
        return RawMask(np.array(image), colours.reshape(-1, 3), is_lossy)
    if image.mode in ("LA", "PA", "La"):
        image = image.convert("RGBA")
    if image.mode not in ("RGB", "RGBA"):
        raise DataError(f"{path} is a mask of mode {image.mode}, not ids or colours.")
    return RawMask(np.array(image), None, is_lossy)


def count_pixels(path: Path) -> int:
    """Width times height that an image's header claims; `MAX_PIXELS` without one."""
    try:
        with Image.open(path) as image:
            return min(image.width * image.height, MAX_PIXELS)
    except Exception:  # it is read and named later
        return MAX_PIXELS


def read_raw_label(path: Path) -> np.ndarray:
    """Read a mask whose levels or palette indices are class ids: uint8 [H, W].

    DataError as for images; also of colours, of 16 bits and of a JPEG.
    """
    mask = read_raw_mask(path)
    if mask.is_lossy:
        raise DataError(f"{path} is a JPEG mask. Use a PNG: JPEG changes class ids.")
    if mask.pixels.dtype != np.uint8:
        raise DataError(f"{path} is a 16-bit mask. Save its class ids with 8 bits.")
    if mask.pixels.ndim == 3:
        raise DataError(f"{path} is an RGB mask. Save 8-bit class ids.")
    return mask.pixels


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


def turned(array: np.ndarray, orientation: int) -> np.ndarray:
    """[H, W, ...] as an EXIF orientation, 1 to 8, wants it to be seen."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return array


def pad_to_square(array: np.ndarray, fill: int = 0) -> np.ndarray:
    """Centre [H, W, ...] in a square of the longer side."""
    height, width = array.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = np.full((side, side, *array.shape[2:]), fill, array.dtype)
    square[top : top + height, left : left + width] = array
    return square


def fitted(size: tuple[int, int], canvas: tuple[int, int], fit: str) -> tuple[int, int]:
    """(height, width) that an image of a size gets in a canvas (`DataSettings.fit`).

    A letterboxed image keeps its aspect ratio, to a pixel, and is as large as it can
    be: as Pillow's ImageOps.contain makes it. It is put into the top left corner.
    """
    (height, width), (most_height, most_width) = size, canvas
    if fit == "stretch" or height * most_width == width * most_height:
        return canvas
    if width * most_height > height * most_width:
        return max(1, round(height / width * most_width)), most_width
    return most_height, max(1, round(width / height * most_height))


def on_canvas(array: np.ndarray, canvas: tuple[int, int], value: int) -> np.ndarray:
    """The array [h, w, ...] in the top left corner of [H, W, ...], else the value."""
    if array.shape[:2] == canvas:
        return array
    found = np.full((*canvas, *array.shape[2:]), value, array.dtype)
    found[: array.shape[0], : array.shape[1]] = array
    return found


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
    kind = next((kind for mark, kind in _SIGNATURES if content.startswith(mark)), None)
    if kind == "PNG":
        return _walk_png(path, content)
    if kind == "JPEG":
        return _walk_jpeg(path, content)
    if kind in ("BMP", "WEBP", "GIF"):
        _check_length(path, content, kind)
    if kind is not None and (kind != "WEBP" or content[8:12] == b"WEBP"):
        return _File(path, content, kind, 8)  # a TIFF's depth is known once it is open
    for place, mark, what in _OTHERS:
        if content[place:].startswith(mark):
            raise DataError(f"{path} is {what}. Convert it to PNG or JPEG first.")
    raise DataError(f"{path} is neither PNG nor JPEG, TIFF, BMP, WebP or GIF.")


def _check_length(path: Path, content: bytes, kind: str) -> None:
    """DataError where the file is shorter than its header says, or has no end."""
    if kind == "GIF":
        is_whole = content.rstrip(b"\0").endswith(b";")
    else:
        place, more = (2, 0) if kind == "BMP" else (4, 8)
        (size,) = struct.unpack("<I", content[place : place + 4].ljust(4, b"\xff"))
        is_whole = len(content) >= size + more
    if not is_whole:
        raise _truncated(path, content)


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
            return _File(path, content[:end], "PNG", bit_depth)
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
            return _File(path, content[: position + 2], "JPEG", bit_depth)
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


def _decode(file: _File, most_bits: int = 16) -> Image.Image:
    path = file.path
    try:
        image = Image.open(io.BytesIO(file.content), formats=[file.format])
        _check_pixels(path, *image.size)
        if file.format in ("TIFF", "WEBP", "GIF"):
            _check_one_page(path, image)
        if file.format == "TIFF":
            depth = _tiff_depth(image)
            if depth > most_bits:
                raise DataError(f"{path} has {depth} bits a channel. Save it with 16.")
            file.bit_depth = depth
        image.load()
    except DataError:
        raise
    except Exception as error:  # Pillow raises many kinds on damaged files
        raise DataError(f"{path} is damaged ({error}).") from None
    return image


def _tiff_depth(image: Any) -> int:
    return max(image.tag_v2.get(_TIFF_BITS, (1,)))


def _check_one_page(path: Path, image: Image.Image) -> None:
    try:
        image.seek(1)
    except EOFError:
        image.seek(0)
        return
    raise DataError(f"{path} has several pages or frames. Save each as a file.")


def _deep(file: _File) -> np.ndarray:
    """uint16 [H, W] or RGB(A) [H, W, 3 or 4] of a file of 16 bits a channel."""
    array = cv2.imdecode(np.frombuffer(file.content, np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None or array.dtype != np.uint16:
        raise DataError(f"{file.path} is a 16-bit image of a kind that is not read.")
    if array.ndim == 3:
        array = array[..., [2, 1, 0, *range(3, array.shape[2])]]
    return array


def _eight_bits(deep: np.ndarray, levels: tuple[int, int] | None) -> np.ndarray:
    """uint8 RGB [H, W, 3] of uint16 pixels; `levels` become 0 and 255."""
    if levels is None:
        pixels = (deep >> 8).astype(np.uint8)
    else:
        low, high = levels
        steps = (np.arange(1 << 16) - low) * (255 / max(1, high - low))
        pixels = np.clip(np.rint(steps), 0, 255).astype(np.uint8)[deep]
    return (
        np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels[..., :3]
    )


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none."""
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # damaged EXIF data do not harm the pixels
        return 1
    return orientation if orientation in range(1, 9) else 1


def _rgb(image: Image.Image, path: Path) -> np.ndarray:
    if image.mode.startswith(("I", "F")):
        raise DataError(f"{path} has pixels of mode {image.mode}. Save 8 or 16 bits.")
    if image.mode == "P":  # by way of RGBA: transparent palettes
        image = image.convert("RGBA")
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))
