"""Safe reading of MATLAB 5 files: sizes are checked before anything is unpacked."""

import io
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.io

from keras_seg.errors import DataError

MAX_BYTES = 512_000_000  # of a file, and of a variable after decompression

_HEADER_BYTES = 128
_COMPRESSED = 15  # miCOMPRESSED
_EXPECTED = "a MATLAB 5 file"


@dataclass(frozen=True)
class MatFile:
    """A MATLAB 5 file in memory whose sizes have been checked.

    Attributes:
        path: where it lies, for messages.
        content: the whole file.
    """

    path: Path
    content: bytes

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """{variable: shape}, from the headers; DataError where they are damaged."""
        try:
            found = scipy.io.whosmat(io.BytesIO(self.content))
        except Exception as error:  # scipy, zlib and NumPy raise many kinds
            raise DataError(self.path, f"damaged ({error})", _EXPECTED) from None
        return {name: shape for name, shape, _ in found}

    def read(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        """{variable: numeric array}; nothing else in the file is unpacked.

        Raises:
            DataError: damaged, or no such numeric variable.
        """
        names = list(names)
        try:
            variables = scipy.io.loadmat(io.BytesIO(self.content), variable_names=names)
        except Exception as error:  # as above
            raise DataError(self.path, f"damaged ({error})", _EXPECTED) from None
        values = {name: variables.get(name) for name in names}
        for name, value in values.items():
            if not isinstance(value, np.ndarray) or value.dtype.kind not in "uif":
                raise DataError(
                    self.path, f"no variable {name}", "a numeric one of this name"
                )
        return values


def open_mat(path: Path) -> MatFile:
    """Reads a file and checks its sizes.

    Raises:
        DataError: unreadable, no MATLAB 5 file (7.3 is HDF5), truncated, damaged, a
            variable that unpacks to more than MAX_BYTES.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise DataError(path, f"{size} bytes", f"at most {MAX_BYTES} bytes")
        content = path.read_bytes()
    except OSError as error:
        raise DataError(path, error.strerror, "a readable file") from None
    _check_sizes(path, content)
    return MatFile(path, content)


def read_mat(path: Path, name: str) -> np.ndarray:
    """One numeric variable of a file; raises as `open_mat` and `MatFile.read`."""
    return open_mat(path).read([name])[name]


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
