"""PyTorch's files of weights, read as data: nothing in them is executed.

`torch.save` writes a state dict as a pickle, a program for a machine with a stack, and
its arrays beside it. `read` runs the dozen instructions that such a program consists
of on lists, dicts, texts and numbers, and stops at any other; of the functions that a
pickle may call it knows the three that a state dict needs, and calls none. PyTorch
need not be installed.

Both layouts are read: the zip of PyTorch 1.6 and later, and the single file before it.
"""

import io
import math
import pickletools
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C  # of the single file
DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
}
MOST_BYTES = 1 << 32  # of a file


@dataclass(frozen=True)
class _Global:
    """A function or class that the pickle names."""

    name: str


@dataclass(frozen=True)
class _Storage:
    """A one-dimensional array beside the pickle."""

    dtype: str
    key: str


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read(path: Path) -> dict[str, np.ndarray]:
    """{name: array} of a state dict, with PyTorch's names and layouts (OIHW).

    Raises:
        ValueError: it is no state dict of dense arrays on a processor, or damaged.
        OSError: it cannot be read.
    """
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES} bytes")
    # In memory: of a file, Python would make room for as many bytes as a length claims
    file = io.BytesIO(path.read_bytes())
    try:
        is_zip = zipfile.is_zipfile(file)
        file.seek(0)
        state, storages = _read_zip(file) if is_zip else _read_single(file)
    except _DAMAGED as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if not isinstance(state, dict) or not state:
        raise ValueError("it holds no state dict")
    arrays = {}
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            raise ValueError(f"its entry {name!r} is no array")
        arrays[name] = _array(name, tensor, storages)
    return arrays


_DAMAGED = (
    *(IndexError, KeyError, TypeError, AttributeError, EOFError, OverflowError),
    *(zipfile.BadZipFile, RuntimeError, OSError),  # of zipfile; OSError: a wrong place
    *(zlib.error, NotImplementedError),
)


def _read_zip(file: BinaryIO) -> tuple[Any, dict[str, bytes]]:
    with zipfile.ZipFile(file) as archive:
        sizes = {item.filename: item.file_size for item in archive.infolist()}
        if sum(sizes.values()) > MOST_BYTES:
            raise ValueError(f"it unpacks to more than {MOST_BYTES} bytes")
        (program,) = (name for name in sizes if name.endswith("/data.pkl"))
        folder = program.removesuffix("data.pkl")
        order = f"{folder}byteorder"
        if order in sizes and archive.read(order) != b"little":
            raise ValueError("its numbers are big-endian")
        state = _run(io.BytesIO(archive.read(program)))
        names = [name for name in sizes if name.startswith(f"{folder}data/")]
        return state, {name.rpartition("/")[2]: archive.read(name) for name in names}


def _read_single(file: BinaryIO) -> tuple[Any, dict[str, bytes]]:
    """Five pickles (magic, version, system, state, keys); sizes and bytes of each."""
    if _run(file) != MAGIC:
        raise ValueError("it was not written by torch.save")
    _run(file)
    if _run(file).get("little_endian") is not True:
        raise ValueError("its numbers are big-endian")
    state = _run(file)
    sizes = {key: np.dtype(DTYPES[dtype]).itemsize for dtype, key in _used(state)}
    storages = {}
    for key in _run(file):
        size = int.from_bytes(file.read(8), "little") * sizes.get(key, 1)
        if size > MOST_BYTES:
            raise ValueError(f"one of its arrays has {size} bytes")
        storages[key] = file.read(size)
    return state, storages


def _used(state: Any) -> Iterator[tuple[str, str]]:
    for tensor in state.values():
        if isinstance(tensor, _Tensor):
            yield tensor.storage.dtype, tensor.storage.key


def _array(name: str, tensor: _Tensor, storages: dict[str, bytes]) -> np.ndarray:
    dtype = np.dtype(DTYPES[tensor.storage.dtype])
    content = storages.get(tensor.storage.key, b"")
    values = np.frombuffer(
        content[: len(content) // dtype.itemsize * dtype.itemsize], dtype
    )
    shape, strides, offset = tensor.shape, tensor.strides, tensor.offset
    if len(strides) != len(shape) or min((offset, *shape, *strides)) < 0:
        raise ValueError(f"{name} has the shape {shape} and the strides {strides}")
    last = offset + sum((side - 1) * step for side, step in zip(shape, strides))
    if not math.prod(shape) or math.prod(shape) > len(values) or last >= len(values):
        raise ValueError(f"{name} lacks values")
    steps = [step * dtype.itemsize for step in strides]
    return np.lib.stride_tricks.as_strided(
        values[offset:], shape, steps, writeable=False
    )


# The machine

_MARK = object()
_PLAIN = frozenset(
    "BINUNICODE SHORT_BINUNICODE BININT BININT1 BININT2 LONG1 BINFLOAT".split()
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_SHORT_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def _run(file: BinaryIO) -> Any:
    """The value of the pickle at the file's position; the position is then after it."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def after_mark() -> list[Any]:
        place = len(stack) - 1 - stack[::-1].index(_MARK)
        items = stack[place + 1 :]
        del stack[place:]
        return items

    for instruction, argument, _ in pickletools.genops(file):
        name = instruction.name
        if name in _PLAIN:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in _SHORT_TUPLES:
            count = _SHORT_TUPLES[name]
            stack[-count:] = [tuple(stack[-count:])]
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[int(argument)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[int(argument)])
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "TUPLE":
            stack.append(tuple(after_mark()))
        elif name == "GLOBAL":
            stack.append(_Global(str(argument)))
        elif name == "BINPERSID":
            stack.append(_storage(stack.pop()))
        elif name == "REDUCE":
            arguments = stack.pop()
            stack.append(_called(stack.pop(), arguments))
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            stack[-1][key] = value
        elif name == "SETITEMS":
            items = after_mark()
            stack[-1].update(zip(items[::2], items[1::2]))
        elif name == "APPENDS":
            items = after_mark()
            stack[-1].extend(items)
        elif name == "BUILD":
            stack.pop()  # attributes: the versions of the modules
        elif name == "STOP":
            return stack.pop()
        elif name != "PROTO":
            raise ValueError(f"its pickle uses {name}, which no state dict needs")
    raise ValueError("its pickle has no end")


def _storage(identity: Any) -> _Storage:
    """Of ("storage", type, key, device, number of values, ...)."""
    kind, dtype, key = identity[:3]
    name = dtype.name.removeprefix("torch ")
    if kind != "storage" or name not in DTYPES or not isinstance(key, str):
        raise ValueError(f"it has a {name}, not one of {', '.join(DTYPES)}")
    if len(identity) > 5 and identity[5] is not None:  # only in the single file
        raise ValueError("one of its arrays is a view of another")
    return _Storage(name, key)


def _called(function: Any, arguments: tuple[Any, ...]) -> Any:
    """What the function that a pickle calls would return, as data."""
    if function == _Global("collections OrderedDict") and not arguments:
        return {}
    if function == _Global("torch._utils _rebuild_tensor_v2"):
        storage, offset, shape, strides = arguments[:4]
        numbers = (offset, *shape, *strides)
        if isinstance(storage, _Storage) and all(type(n) is int for n in numbers):
            return _Tensor(storage, offset, tuple(shape), tuple(strides))
    if function == _Global("torch._utils _rebuild_parameter"):
        return arguments[0]
    name = function.name if isinstance(function, _Global) else function
    raise ValueError(f"its pickle calls {name}, which no state dict needs")
