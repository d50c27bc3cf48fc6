"""A PNG decoded some rows at a time, for pictures of gigabytes.

OpenCV and Pillow hold as much again while they decode one. Here the filtered rows are
unpacked a strip at a time, and each strip is given to Pillow as a small PNG. Its first
row is the last one of the strip before: filters look at the row above, no further.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from keras_seg.errors import DataError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
STRIP = 1 << 22  # bytes of filtered rows, at least one row
_ORIENTATION = 274
_PIECE = 1 << 20  # bytes of a chunk that are read at a time
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a colour type
_COLOUR_TYPE = {1: 0, 2: 4, 3: 2, 4: 6}  # of so many channels, without a palette


def read(file: Path) -> tuple[np.ndarray, int] | None:
    """uint8 RGB [H, W, 3] of a PNG, alpha dropped, and its EXIF orientation.

    None where it is no PNG, or of a kind that is not read so: interlaced, or not of 8
    bits a channel.

    Raises:
        DataError: it is damaged.
    """
    with open(file, "rb") as opened:
        if opened.read(len(SIGNATURE)) != SIGNATURE:
            return None
        try:
            return _read(_pieces(opened))
        except EOFError:
            size = file.stat().st_size
            raise DataError(f"{file} is truncated at {size} bytes.") from None
        except (ValueError, struct.error, zlib.error, OSError, SyntaxError) as error:
            raise DataError(f"{file} is damaged ({error}).") from None


def _pieces(opened: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """(kind of the chunk, a piece of it), up to the end; ValueError for a checksum."""
    while True:
        length, kind = struct.unpack(">I4s", _exactly(opened, 8))
        checksum = zlib.crc32(kind)
        while True:
            piece = _exactly(opened, min(length, _PIECE))
            checksum = zlib.crc32(piece, checksum)
            length -= len(piece)
            yield kind, piece
            if not length:
                break
        if struct.pack(">I", checksum) != _exactly(opened, 4):
            raise ValueError("checksum")
        if kind == b"IEND":
            return


def _exactly(opened: BinaryIO, length: int) -> bytes:
    found = opened.read(length)
    if len(found) < length:
        raise EOFError
    return found


def _read(pieces: Iterator[tuple[bytes, bytes]]) -> tuple[np.ndarray, int] | None:
    kind, header = next(pieces)
    width, height, depth, colour, _, _, is_interlaced = struct.unpack(
        ">IIBBBBB", header
    )
    if depth != 8 or is_interlaced or colour not in _CHANNELS:
        return None
    channels, palette, exif, top = _CHANNELS[colour], b"", b"", 0
    image = np.empty((height, width, 3), np.uint8)
    strips = _Strips(width, channels)
    for kind, piece in pieces:
        if kind == b"PLTE":
            palette += piece
        if kind == b"eXIf":
            exif += piece
        if kind == b"IDAT":
            for rows in strips.add(piece):
                rows = rows[: height - top]
                if colour == 3:
                    rows = _colours(palette)[rows[..., 0]]
                shown = 3 if rows.shape[2] > 2 else 1  # grey is repeated
                image[top : top + len(rows)] = rows[..., :shown]
                top += len(rows)
    if top < height:
        raise EOFError
    return image, _orientation(exif)


def _orientation(content: bytes) -> int:
    """Of EXIF data; 1 where they name none, or are damaged: that harms no pixel."""
    exif = Image.Exif()
    try:
        exif.load(b"Exif\0\0" + content)
        return exif.get(_ORIENTATION, 1)
    except Exception:
        return 1


def _colours(palette: bytes) -> np.ndarray:
    """uint8 [256, 3]; black where the palette is shorter."""
    table = np.zeros((256, 3), np.uint8)
    found = np.frombuffer(palette[: 256 * 3], np.uint8).reshape(-1, 3)
    table[: len(found)] = found
    return table


class _Strips:
    """Turns compressed bytes into rows uint8 [n, W, channels]."""

    def __init__(self, width: int, channels: int):
        self.width, self.channels = width, channels
        self.length = 1 + width * channels  # bytes of a filtered row
        self.packed, self.waiting = zlib.decompressobj(), bytearray()
        self.above = bytes(self.length)  # the row above, as one without a filter

    def add(self, piece: bytes) -> Iterator[np.ndarray]:
        """The rows that are whole with this piece."""
        most = max(STRIP // self.length, 1) * self.length
        while piece:
            self.waiting += self.packed.decompress(piece, most)
            piece = self.packed.unconsumed_tail
            if len(self.waiting) >= most or self.packed.eof:
                yield from self._rows()

    def _rows(self) -> Iterator[np.ndarray]:
        count = len(self.waiting) // self.length
        if not count:
            return
        filtered = bytes(self.waiting[: count * self.length])
        del self.waiting[: count * self.length]
        rows = _decoded(self.above + filtered, self.width, count + 1, self.channels)
        self.above = b"\0" + rows[-1].tobytes()
        yield rows[1:]


def _decoded(filtered: bytes, width: int, height: int, channels: int) -> np.ndarray:
    """uint8 [height, width, channels] of filtered rows."""
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPE[channels], 0, 0, 0)
    content = [SIGNATURE]
    for kind, data in (
        (b"IHDR", header),
        (b"IDAT", zlib.compress(filtered, 0)),
        (b"IEND", b""),
    ):
        checksum = zlib.crc32(data, zlib.crc32(kind))
        content += [struct.pack(">I", len(data)), kind, data]
        content += [struct.pack(">I", checksum)]
    with Image.open(io.BytesIO(b"".join(content)), formats=["PNG"]) as image:
        return np.array(image).reshape(height, width, channels)
