"""Read .npz archives that somebody else may have made.

NumPy believes an archive: it unpacks a gigabyte of zeros from a megabyte, and takes
the memory for whatever shape an array's header claims. Here both are checked first.
"""

import zipfile
import zlib
from math import prod
from pathlib import Path

import numpy as np

MAX_UNPACKED = 1 << 30  # bytes that a compressed archive of less may unpack to


def read(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a .npz archive, by name.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no whole archive of plain arrays, or it unpacks to more than
            its own size and MAX_UNPACKED.
    """
    limit = max(path.stat().st_size, MAX_UNPACKED)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            unpacked = sum(member.file_size for member in members)
            if unpacked > limit:
                raise ValueError(f"unpacks to {unpacked:,} bytes")
            return {
                member.filename.removesuffix(".npy"): _read(archive, member)
                for member in members
            }
    except _DAMAGED as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, EOFError, KeyError, TypeError),
    *(NotImplementedError, RuntimeError, SyntaxError, OverflowError),
)


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            header = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            header = np.lib.format.read_array_header_2_0(file)
        else:
            raise ValueError(f"{member.filename}: format version {version}")
        shape, _, dtype = header
        if dtype.hasobject:
            raise ValueError(f"{member.filename}: Python objects")
        if prod(shape) * dtype.itemsize != member.file_size - file.tell():
            raise ValueError(f"{member.filename}: another size than {dtype} {shape}")
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)
