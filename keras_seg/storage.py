"""Files and folders that are whole or not there at all: write, lock, publish, read.

Everything that this project writes goes through here. A file is written under a
temporary name, synced and renamed; a folder is made beside its place and renamed when
it is whole. A killed process leaves nothing but what the next one sweeps. What is read
back may have been damaged by a disk or made by somebody else, so sizes and shapes are
checked before memory is taken.

A file that is read back holds the SHA-256 of its own content, where its format has room
for it: as last key of a JSON object, as last column of a table, as comment of an
archive. So file and hash are replaced in one step, and a changed bit is damage. Files
of older versions have none and are read as they are.
"""

import csv
import errno
import hashlib
import importlib
import io
import json
import math
import os
import re
import shutil
import sys
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, BinaryIO, cast

import numpy as np

from keras_seg.errors import LockedError, StorageError, UsageError

fcntl: Any = None  # on Windows
with suppress(ImportError):
    fcntl = importlib.import_module("fcntl")

TEMPORARY = ".tmp-"  # begins the name of whatever is not whole yet
LOCK = ".lock"
RESTART = "Use --restart to train anew."  # the way out where a run is damaged
MAX_UNPACKED = 1 << 30  # bytes that a compressed archive of less may unpack to
HASH = "sha256"  # the name under which a file holds the hash of its own content

# The workshop of `publishing`: its name's end, the mark that it is ours, what is in it
WORKSHOP, _OWNER, _STAGES = ".partial", ".made-by-keras_seg", ("new", "old", "ready")
_OUR_LOCK = re.compile(r"\.lock(-\d+)?")
_OURS = re.compile(r"\.tmp-\d+-")  # temporary names have the writer's process id
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


# Files


def write_file(path: Path, content: str | bytes) -> None:
    """Replace a small file as a whole.

    Raises:
        StorageError: the disk is full or not writable; the old file is intact.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise storage_error(error, path, len(data)) from error


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write piece by piece, which replaces `path` when the block ends well.

    It is not synced: for what the same command makes again after a power cut.

    Raises:
        StorageError: the disk is full or not writable; the old file is intact.
    """
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "w+b") as file:
            yield file
        os.replace(temporary, path)
    except OSError as error:
        raise storage_error(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a JSON file, with its hash; ValueError where a number is not finite."""
    write_file(path, json.dumps(_signed(value), indent=1, allow_nan=False) + "\n")


def read_json(
    path: Path, way_out: str = RESTART, kinds: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """The object of a JSON file, without its hash.

    Args:
        path: the file.
        way_out: ends the message where it is damaged.
        kinds: {key: its type, or a union of types}; None as one of them allows that the
            key is missing.

    Raises:
        StorageError: it is damaged, or another value.
    """
    with damage_named(path, "It is no JSON object, or was changed.", way_out):
        found = without_hash(json.loads(path.read_text("utf-8")))
    for key, kind in kinds.items():
        if not isinstance(found.get(key), kind):
            what = f"Its {key} is {found.get(key)!r:.40}."
            raise StorageError(f"{path} is damaged. {what} {way_out}")
    return found


def append_json(path: Path, value: Mapping[str, Any]) -> None:
    """Add a line to a file of JSON objects; a line that a killed writer tore goes."""
    line = _line(value)
    try:
        with _APPENDING, open(path, "a+b") as file:
            is_ours = _wait_for(file)
            file.seek(0)
            *whole, last = file.read().split(b"\n")
            if last and is_ours:
                file.truncate(sum(len(each) + 1 for each in whole))
                line = b"".join(map(_line, _begun(last))) + line
            elif last:  # another process may be just writing it
                line = b"\n" + line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise storage_error(error, path, len(line)) from error


def read_json_lines(path: Path, way_out: str = RESTART) -> list[dict[str, Any]]:
    """The objects of `append_json`, but for a line that a killed writer tore.

    Raises:
        StorageError: a line is damaged; its number is named.
    """
    *lines, last = path.read_bytes().split(b"\n")
    objects: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        what = f"Line {number} is no JSON object, or was changed."
        with damage_named(path, what, way_out):
            objects.append(without_hash(json.loads(line)))
    return objects + _begun(last)


def _wait_for(file: IO[bytes]) -> bool:
    """Lock an open file until it is closed; False where its disk has no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return False
    return True


_APPENDING = threading.Lock()  # arms of a stage report from several threads


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(_signed(value), allow_nan=False).encode() + b"\n"


def _begun(line: bytes) -> list[dict[str, Any]]:
    """The object of a line that lacks its end, or [] where the line is torn."""
    try:
        return [without_hash(json.JSONDecoder().raw_decode(line.decode())[0])]
    except _DAMAGED:
        return []


def write_table(
    path: Path, rows: Sequence[Mapping[str, Any]], hashed: bool = False
) -> None:
    """Replace a CSV file as a whole; a row may lack columns that others have.

    Floats are written with all their digits, so that equal rows make equal files;
    what is missing or not finite becomes an empty field.

    Args:
        path: the file.
        rows: by column.
        hashed: whether the file is read back: its first row gets its hash.
    """
    text = _table(rows)
    if hashed and rows:
        digest = json_sha256(list(csv.DictReader(io.StringIO(text))))
        first, *others = rows
        text = _table(
            [{**dict.fromkeys(_columns(rows)), **first, HASH: digest}, *others]
        )
    write_file(path, text)


def read_table(path: Path, way_out: str = RESTART) -> list[dict[str, str]]:
    """The rows of a CSV file, without its hash; StorageError where it is damaged."""
    with damage_named(path, "It is no CSV table, or was changed.", way_out):
        rows = list(csv.DictReader(io.StringIO(path.read_text("utf-8"), newline="")))
        return _rows_without_hash(rows)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Replace a compressed .npz file as a whole, with its hash."""
    file, named = io.BytesIO(), cast(dict[str, Any], arrays)
    np.savez_compressed(file, **named)
    content = file.getvalue()
    comment = _comment(content)
    write_file(path, content[:-2] + len(comment).to_bytes(2, "little") + comment)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a .npz archive, by name.

    NumPy believes an archive: it unpacks a gigabyte of zeros from a megabyte, and
    allocates whatever shape an array's header claims. Here both are checked first.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no whole archive of plain arrays, or it unpacks to more than
            its own size and MAX_UNPACKED, or its content is not that of its hash.
    """
    limit = max(path.stat().st_size, MAX_UNPACKED)
    if not path.is_file():  # a pipe would be waited for
        raise ValueError("it is no regular file")
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            if archive.comment.startswith(_COMMENT):
                _check_comment(file, archive.comment)
            members = archive.infolist()
            unpacked = sum(member.file_size for member in members)
            if unpacked > limit:
                raise ValueError(f"unpacks to {unpacked:,} bytes")
            return {
                member.filename.removesuffix(".npy"): _read_array(archive, member)
                for member in members
            }
    except _BAD_ARCHIVE as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


_BAD_ARCHIVE = (
    *(zipfile.BadZipFile, zlib.error, EOFError, KeyError, TypeError),
    *(NotImplementedError, RuntimeError, SyntaxError, OverflowError),
)


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            header = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            header = np.lib.format.read_array_header_2_0(file)
        else:
            raise ValueError(f"{member.filename}: format version {version}")
        shape, _, dtype = header
        if dtype.itemsize == 0:  # any number of them would take no room
            raise ValueError(f"{member.filename}: values of no size")
        if dtype.hasobject:
            raise ValueError(f"{member.filename}: Python objects")
        if math.prod(shape) * dtype.itemsize != member.file_size - file.tell():
            raise ValueError(f"{member.filename}: another size than {dtype} {shape}")
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


# Hashes


def _signed(value: Mapping[str, Any]) -> dict[str, Any]:
    return {**value, HASH: json_sha256(value)}


def without_hash(value: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object without the hash that is its last key, if it has one.

    Raises:
        ValueError: its content is not that of its hash.
        AttributeError: it is no object.
    """
    *others, last = value.items() or [(None, None)]
    content: dict[Any, Any] = dict(others)
    digest = json_sha256(content)
    if last == (HASH, digest):
        return content
    if HASH in value or last[1] == digest:  # the latter under a damaged name
        raise ValueError("another SHA-256 than that of its content")
    return dict(value)


def _rows_without_hash(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Rows without the hash that is their last column, if they have one."""
    if not rows:
        return rows
    content = [{k: v for k, v in row.items() if k != HASH} for row in rows]
    column = [row.get(HASH) for row in rows]
    if column == [json_sha256(content), *[""] * (len(rows) - 1)]:
        return content
    cells = map(str, (*rows[0].keys(), *rows[0].values()))
    if any(HASH in cell or _DIGEST.fullmatch(cell) for cell in cells):
        raise ValueError("another SHA-256 than that of its content")
    return rows


_DIGEST = re.compile("[0-9a-f]{64}")


_COMMENT = f"{HASH}:".encode()


def _comment(archive: bytes) -> bytes:
    """The comment for a zip archive that has none."""
    return _COMMENT + hashlib.sha256(archive).hexdigest().encode()


def _check_comment(file: IO[bytes], comment: bytes) -> None:
    file.seek(0)
    content = file.read()
    if not content.endswith(len(comment).to_bytes(2, "little") + comment):
        raise ValueError("bytes after its end")
    if _comment(content[: -len(comment) - 2] + bytes(2)) != comment:
        raise ValueError("another SHA-256 than that of its content")


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hex; OSError where it cannot be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def json_sha256(value: Any) -> str:
    """SHA-256 of a JSON value, in hex: equal values have equal hashes."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


@contextmanager
def damage_named(path: Path, what: str, way_out: str = RESTART) -> Iterator[None]:
    """Turn what parsing a damaged file raises into a StorageError that names it."""
    try:
        yield
    except _DAMAGED as error:
        raise StorageError(f"{path} is damaged. {what} {way_out}") from error


_DAMAGED = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
_DAMAGED += (ArithmeticError, csv.Error)


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, _columns(rows), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: _field(value) for key, value in row.items()})
    return text.getvalue()


def _field(value):
    if isinstance(value, float):
        return repr(float(value)) if math.isfinite(value) else ""
    return value


# Folders


@contextmanager
def lock(
    folder: Path, is_passing: bool = False, shared: bool = False
) -> Iterator[None]:
    """Hold `folder` for this process; it is made where it is missing.

    Where the block raises and nothing was put into a folder made here, the folder is
    removed again. The lock ends with the process, however that ends; on file systems
    without locks a claim takes its place (`_Claim`).

    Args:
        folder: is held.
        is_passing: the folder is removed with its lock, if nothing else is in it.
        shared: hold it with all others who hold it so; they see to it that they do not
            write the same files.

    Raises:
        LockedError: another process holds it.
        UsageError: it is a file.
        StorageError: it cannot be written.
    """
    if fcntl is None:
        raise UsageError(
            "keras_seg needs Linux or macOS, whose locks keep two processes apart. On "
            "Windows, run it in WSL."
        )
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    path = folder / LOCK
    locked = f"Another process is working on {folder}. Wait until it has finished."
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except FileNotFoundError as error:  # its owner is just removing it
        raise LockedError(locked) from error
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"{folder} is a file; name a folder.") from error
    except OSError as error:
        raise storage_error(error, folder) from error
    claim = None
    try:
        try:
            claim = None if _flock(handle, path, shared) else _Claim(folder, shared)
        except (BlockingIOError, FileExistsError, FileNotFoundError) as error:
            raise LockedError(locked) from error
        except OSError as error:
            raise storage_error(error, path) from error
        passing = [folder] if is_passing else []
        try:
            yield
        except BaseException:
            _remove_if_empty([*passing, *made], claim)
            raise
        _remove_if_empty(passing, claim)
    finally:
        if claim is not None:
            claim.release()
        os.close(handle)
        if is_passing:  # NFS keeps a removed file in its folder while it is open
            with suppress(OSError):
                folder.rmdir()


def _flock(handle: int, path: Path, shared: bool) -> bool:
    """Lock an open file; False where its file system has no locks.

    Raises:
        BlockingIOError: another process has locked it.
        FileNotFoundError: another process has removed it.
    """
    try:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise
    # A process that leaves removes its lock file: is ours still the one there?
    if not os.path.samestat(os.fstat(handle), path.stat()):
        raise FileNotFoundError(path)
    return True


_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)  # of some network disks
HEARTBEAT = 5.0  # seconds between the signs of life of who holds a claim
SILENCE = 60.0  # without one, a process of another machine is taken for dead


class _Claim:
    """A file that holds a folder for this process: `.lock-<n>`.

    It says which process of which machine holds the folder, and is touched every
    HEARTBEAT seconds. Who finds only claims of dead processes makes the one with the
    next number, which a single process can; who then sees a claim that was not there
    before gives way. So of two that come at the same moment one holds the folder, or
    none, but never both.

    Raises:
        FileExistsError: another process holds the folder.
    """

    def __init__(self, folder: Path, shared: bool = False):
        known = sorted(folder.glob(_CLAIMS), key=_number)
        alive = [claim for claim in known if _is_held(claim)]
        for claim in alive:
            if not (shared and _is_shared(claim)):
                raise FileExistsError(claim)
        self.path = self._make(folder, _number(known[-1]) + 1 if known else 1, shared)
        new = set(folder.glob(_CLAIMS)) - {self.path, *known}
        if any(not (shared and _is_shared(claim)) for claim in new):
            self.path.unlink(missing_ok=True)
            raise FileExistsError(self.path)
        for claim in set(known) - set(alive):
            claim.unlink(missing_ok=True)
        self._released = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)
        self._heart.start()

    def _make(self, folder: Path, number: int, shared: bool) -> Path:
        """The claim of this number or, where claims are shared, the next free one."""
        path = folder / f"{LOCK}-{number}"
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            if shared:
                return self._make(folder, number + 1, shared)
            raise
        try:
            with open(handle, "w") as file:
                holder = {"machine": _machine(), "shared": shared}
                json.dump({**holder, **_process(os.getpid())}, file)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path

    def _beat(self) -> None:
        while not self._released.wait(HEARTBEAT):
            try:
                os.utime(self.path)
            except FileNotFoundError:
                # This process was stopped for so long that another took the folder;
                # whatever it would write now could destroy the other's work.
                print(
                    f"error: another process took over {self.path.parent}, because "
                    f"this one gave no sign of life for {SILENCE:.0f} s.",
                    file=sys.stderr,
                )
                os._exit(LockedError.exit_code)
            except OSError:
                continue  # of the network, and passing

    def release(self) -> None:
        """Give the folder up; doing it again does nothing."""
        if not self._released.is_set():
            self._released.set()
            self._heart.join()
            with suppress(OSError):
                self.path.unlink(missing_ok=True)


_CLAIMS = f"{LOCK}-*"


def _number(claim: Path) -> int:
    digits = claim.name.rpartition("-")[2]
    return int(digits) if digits.isdecimal() else 0


def _is_held(claim: Path) -> bool:
    """Whether the process of a claim lives; that takes up to SILENCE seconds to see."""
    deadline = time.monotonic() + SILENCE
    first = None
    while True:
        try:
            with open(claim, "rb") as file:  # opening it asks the server, not a cache
                found = file.read(), os.fstat(file.fileno()).st_mtime_ns
        except FileNotFoundError:
            return False
        first = first or found
        with suppress(*_DAMAGED):
            holder = json.loads(found[0])
            holder.pop("shared", None)
            if holder.pop("machine") == _machine():
                return _process(holder["pid"]) == holder
        if found != first:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(SILENCE / 60)


def _is_shared(claim: Path) -> bool:
    """Whether others may hold the folder with the process of a claim."""
    for _ in range(20):
        with suppress(OSError, *_DAMAGED):
            return bool(json.loads(claim.read_bytes())["shared"])
        time.sleep(0.05)  # it is being written
    return False


def _machine() -> str:
    """The machine with its table of processes: a container has one of its own."""
    facts = [os.uname().nodename]
    with suppress(OSError):
        facts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        facts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(facts)


def _process(pid: int) -> dict[str, int | str]:
    """A process and when it began, as ids are used again; {} of one that is dead."""
    try:
        os.kill(pid, 0)
        text = Path(f"/proc/{pid}/stat").read_text()
        state, *fields = text.rpartition(")")[2].split()  # its name may hold anything
        return {} if state in "ZX" else {"pid": pid, "began": fields[18]}
    except ProcessLookupError:
        return {}
    except OSError:  # no /proc; or it is another user's
        return {"pid": pid}


def _remove_if_empty(folders: Iterable[Path], claim: "_Claim | None") -> None:
    """Remove folders that hold but our lock, from the innermost outwards."""
    for folder in folders:
        try:
            names = {entry.name for entry in folder.iterdir()}
            ours = {LOCK} if claim is None else {LOCK, claim.path.name}
            if names and names <= ours:
                if claim is not None:
                    claim.release()
                (folder / LOCK).unlink(missing_ok=True)
            folder.rmdir()
        except FileNotFoundError:  # the block removed it itself
            continue
        except OSError:  # somebody has put something there
            return


@contextmanager
def publishing(out: Path, check: Callable[[Path], None]) -> Iterator[Path]:
    """An empty folder that takes the place of `out` when the block ends well.

    It is in a workshop beside `out`, the folder `.NAME.partial`, which is locked while
    it is in use. Where `out` cannot be renamed, as a mount point or in a folder that
    is not writable, the workshop is inside of it, and the contents change places one
    by one. What was at `out` is removed once the new folder is in its place.

    Args:
        out: the place of the new folder, without symbolic links.
        check: called with `out` before the work and again before it is replaced;
            raises where something is there that must stay. `contents` lists it.

    Raises:
        UsageError: the workshop's name is taken by a folder that is not ours.
        LockedError: another process is publishing to `out`.
        StorageError: the disk is full or not writable; `out` is as it was.
    """
    check(out)
    inside = _stays_in_place(out)
    workshop = (out if inside else out.parent) / f".{out.name}{WORKSHOP}"
    _check_workshop(workshop)
    replace, settle = (
        (_replace_contents, _finish_contents) if inside else (_replace, _put_back)
    )
    with lock(workshop, is_passing=True):
        new = workshop / "new"
        try:
            (workshop / _OWNER).touch()
            settle(workshop, out)
            for leftover in _STAGES:
                shutil.rmtree(workshop / leftover, ignore_errors=True)
            check(out)
            new.mkdir()
            yield new
            if new.exists():  # the caller may have found that there is nothing to do
                _sync_tree(new)
                check(out)  # again: the work may have taken hours
                replace(workshop, out)
        except OSError as error:
            raise storage_error(error, out) from error
        finally:
            settle(workshop, out)
            for leftover in _STAGES:
                shutil.rmtree(workshop / leftover, ignore_errors=True)
            if not any((workshop / leftover).exists() for leftover in _STAGES):
                with suppress(OSError):
                    (workshop / _OWNER).unlink(missing_ok=True)


def contents(folder: Path) -> list[str]:
    """Names in a folder, without a workshop of `publishing` and a disk's lost+found."""
    hidden = {f".{folder.name}{WORKSHOP}"}
    if os.path.ismount(folder):
        hidden.add("lost+found")
    return sorted({entry.name for entry in folder.iterdir()} - hidden)


def _stays_in_place(out: Path) -> bool:
    """Whether a folder is there that cannot be renamed."""
    return out.is_dir() and (
        os.path.ismount(out)
        or str(out) in _mount_points()
        or not os.access(out.parent, os.W_OK)
    )


def _mount_points() -> set[str]:
    """Of Linux; os.path.ismount overlooks a folder mounted within one disk."""
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return set()
    octal = re.compile(r"\\([0-7]{3})")  # a space is \040
    return {
        octal.sub(lambda match: chr(int(match[1], 8)), line.split(" ")[4])
        for line in lines
    }


def _check_workshop(workshop: Path) -> None:
    """UsageError where a folder of the workshop's name is not one that we made."""
    if not workshop.exists() and not workshop.is_symlink():
        return
    there = set() if workshop.is_symlink() else set(os.listdir(workshop))
    there = {name for name in there if not _OUR_LOCK.fullmatch(name)}
    is_ours = not there or _OWNER in there
    if workshop.is_symlink() or not is_ours or there - {_OWNER, *_STAGES}:
        raise UsageError(
            f"{workshop} is in the way: the work is done in a folder of that name, and "
            "that one was not made by keras_seg. Move it, or name another --out."
        )


def _replace(workshop: Path, out: Path) -> None:
    if out.exists():
        out.rename(workshop / "old")
    (workshop / "new").rename(out)
    _sync(out.parent)


def _put_back(workshop: Path, out: Path) -> None:
    """What was at `out`, where somebody was stopped between the two renames."""
    if (workshop / "old").exists() and not out.exists():
        (workshop / "old").rename(out)


def _replace_contents(workshop: Path, out: Path) -> None:
    old = workshop / "old"
    old.mkdir()
    for name in contents(out):
        (out / name).rename(old / name)
    (workshop / "new").rename(workshop / "ready")
    _finish_contents(workshop, out)


def _finish_contents(workshop: Path, out: Path) -> None:
    """Give `out` its new contents or, where they are not ready, its old ones."""
    ready = workshop / "ready"
    source = ready if ready.exists() else workshop / "old"
    if source.exists():
        # Files come last: meta.json says that the folder is whole.
        for path in sorted(source.iterdir(), key=Path.is_file):
            path.rename(out / path.name)
        _sync(out)
        shutil.rmtree(workshop / "old")
        shutil.rmtree(source, ignore_errors=True)


@contextmanager
def new_folder(final: Path, size: int = 0) -> Iterator[Path]:
    """A folder inside a locked one that gets its name when the block ends well.

    Args:
        final: its place; a folder there is replaced.
        size: about how many bytes it will hold, for the message.

    Raises:
        StorageError: the disk is full or not writable; nothing temporary is left.
    """
    temporary = final.with_name(f"{TEMPORARY}{os.getpid()}-{final.name}")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        yield temporary
        _sync_tree(temporary)
        if final.exists():
            remove_folder(final)
        os.replace(temporary, final)
        _sync(final.parent)
    except OSError as error:
        raise storage_error(error, final, size) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder that is nowhere half there: first its name, then its content."""
    leftover = folder.with_name(f"{TEMPORARY}{os.getpid()}-old-{folder.name}")
    try:
        shutil.rmtree(leftover, ignore_errors=True)
        os.replace(folder, leftover)
        shutil.rmtree(leftover)
    except OSError as error:
        raise storage_error(error, folder) from error


def sweep(*folders: Path) -> None:
    """Remove what killed writers left in folders; only under their lock."""
    for folder in filter(Path.is_dir, folders):
        for entry in folder.glob(f"{TEMPORARY}*"):
            if not _OURS.match(entry.name):
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()


def storage_error(error: OSError, path: Path, size: int = 0) -> StorageError:
    """What the operating system said about `path`, with the way out."""
    reason = error.strerror or str(error)
    if error.errno in _DISK_FULL:
        room = f"{size:,} bytes" if size else "space"
        return StorageError(f"{path} could not be written: {reason}. Free {room}.")
    return StorageError(
        f"{path} could not be written: {reason}. Name a folder that can be."
    )


def _sync_tree(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
