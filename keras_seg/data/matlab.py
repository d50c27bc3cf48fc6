"""Safe reading of MATLAB 5 files: sizes are checked before anything is unpacked."""

import io
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.io

from keras_seg.data import files
from keras_seg.errors import DataError

MAX_BYTES = 512_000_000  # of a file, and of a variable after decompression

_HEADER_BYTES = 128
_COMPRESSED = 15  # miCOMPRESSED


@dataclass(frozen=True)
class MatFile:
    """A MATLAB 5 file in memory whose sizes have been checked."""

    path: Path  # for messages
    content: bytes

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """{variable: shape}, from the headers; DataError where they are damaged."""
        try:
            found = scipy.io.whosmat(io.BytesIO(self.content))
        except Exception as error:  # scipy, zlib and NumPy raise many kinds
            raise DataError(f"{self.path} is damaged ({error}).") from None
        return {name: shape for name, shape, _ in found}

    def read(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        """{variable: numeric array}, DataError without; nothing else is unpacked."""
        names = list(names)
        try:
            variables = scipy.io.loadmat(io.BytesIO(self.content), variable_names=names)
        except Exception as error:  # as above
            raise DataError(f"{self.path} is damaged ({error}).") from None
        for name in names:
            value = variables.get(name)
            if not isinstance(value, np.ndarray) or value.dtype.kind not in "uif":
                raise DataError(f"{self.path} has no numeric variable {name}.")
        return {name: variables[name] for name in names}


def open_mat(path: Path) -> MatFile:
    """Read a file; DataError where it is damaged, no MATLAB 5 file, or too large."""
    content = files.read_bytes(path, MAX_BYTES)
    _check_sizes(path, content)
    return MatFile(path, content)


def read_mat(path: Path, name: str) -> np.ndarray:
    """One numeric variable of a file; raises as `open_mat` and `MatFile.read`."""
    return open_mat(path).read([name])[name]


def _check_sizes(path: Path, content: bytes) -> None:
    """Every element is whole and unpacks to at most MAX_BYTES."""
    # Bytes 124 to 127: version 1.0, then "MI" as a 16-bit number.
    byte_order = {b"\x00\x01IM": "<", b"\x01\x00MI": ">"}.get(content[124:128])
    if byte_order is None:
        raise DataError(f"{path} is not a MATLAB 5 file (7.3 files are HDF5).")
    position = _HEADER_BYTES
    while position < len(content):
        header = content[position : position + 8]
        kind, length = struct.unpack(f"{byte_order}II", header.ljust(8, b"\0"))
        element = content[position + 8 : position + 8 + length]
        if len(header) < 8 or len(element) < length:
            raise DataError(f"{path} is truncated at {len(content)} bytes.")
        if kind == _COMPRESSED and not _fits(element):
            raise DataError(
                f"{path} has a variable that is damaged or unpacks to more than "
                f"{MAX_BYTES} bytes."
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
