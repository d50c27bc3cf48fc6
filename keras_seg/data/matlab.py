"""Safe reading of MATLAB 5 files: sizes are checked before anything is unpacked."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import scipy.io

from keras_seg.errors import DataError

MAX_BYTES = 512_000_000  # of a file, and of a variable after decompression

_HEADER_BYTES = 128
_COMPRESSED = 15  # miCOMPRESSED


def read_mat(path: Path, name: str) -> np.ndarray:
    """One numeric variable of a MATLAB 5 file.

    Raises:
        DataError: unreadable, no MATLAB 5 file (7.3 is HDF5), truncated, damaged, a
            variable that unpacks to more than MAX_BYTES, no such numeric variable.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise DataError(path, f"{size} bytes", f"at most {MAX_BYTES} bytes")
        content = path.read_bytes()
    except OSError as error:
        raise DataError(path, error.strerror, "a readable file") from None
    _check_sizes(path, content)
    try:
        variables = scipy.io.loadmat(io.BytesIO(content), variable_names=[name])
    except Exception as error:  # scipy, zlib and NumPy raise many kinds
        raise DataError(path, f"damaged ({error})", "a MATLAB 5 file") from None
    value = variables.get(name)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "uif":
        raise DataError(path, f"no variable {name}", "a numeric one of this name")
    return value


def _check_sizes(path: Path, content: bytes) -> None:
    """Every element lies in the file and unpacks to at most MAX_BYTES."""
    # Bytes 124 to 127: version 1.0, then "MI" as a 16-bit number.
    byte_order = {b"\x00\x01IM": "<", b"\x01\x00MI": ">"}.get(content[124:128])
    if byte_order is None:
        raise DataError(path, "no MATLAB 5 file", "one (7.3 files are HDF5)")
    position = _HEADER_BYTES
    while position < len(content):
        if position + 8 > len(content):
            raise DataError(path, f"truncated at {len(content)} bytes", "a whole file")
        kind, length = struct.unpack_from(f"{byte_order}II", content, position)
        element = content[position + 8 : position + 8 + length]
        if len(element) < length:
            raise DataError(path, f"truncated at {len(content)} bytes", "a whole file")
        if kind == _COMPRESSED and not _fits(element):
            raise DataError(
                path,
                "a damaged or far too large variable",
                f"at most {MAX_BYTES} bytes",
            )
        position += 8 + length


def _fits(element: bytes) -> bool:
    unpacker, unpacked = zlib.decompressobj(), 0
    try:
        while unpacked <= MAX_BYTES and not unpacker.eof:
            block = unpacker.decompress(element, 1 << 20)
            if not block:
                break
            unpacked += len(block)
            element = unpacker.unconsumed_tail
    except zlib.error:
        return False
    return unpacked <= MAX_BYTES
