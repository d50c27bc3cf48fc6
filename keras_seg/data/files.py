"""Finding and reading files that come from anywhere.

Only regular files of a bounded size are read: a pipe would be waited for, and a device
has no end. Names are compared in Unicode's composed form: a disk of macOS gives
decomposed ones.
"""

import codecs
import os
import stat
import unicodedata
from pathlib import Path

from keras_seg.errors import DataError

MAX_TEXT_BYTES = 256_000_000  # of lists, tables and annotations

PICTURES = frozenset(".png .jpg .jpeg .tif .tiff .bmp .webp .gif".split())
# Pictures that are not read: left out silently, they would be missed.
_UNREADABLE = frozenset(
    ".heic .heif .avif .jp2 .j2k .dcm .dng .cr2 .nef .arw .exr .psd .svg .jfif".split()
)

# Folders that operating systems and file servers add, in lower case
_SYSTEM = frozenset({"__macosx", "@eadir", "$recycle.bin", "system volume information"})

# UTF-32's begins with UTF-16's, so it comes first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_bytes(path: Path, limit: int) -> bytes:
    """The content of a file; DataError where it cannot be read or has more bytes."""
    try:
        status = path.stat()
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise DataError(f"{path} is a pipe or a device, not a file.")
        if status.st_size > limit:
            raise DataError(f"{path} has {status.st_size} bytes; {limit} are allowed.")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, or in what its byte order mark names.

    DataError where it cannot be read, is too large, or is no text.
    """
    content = read_bytes(path, MAX_TEXT_BYTES)
    encodings = (name for mark, name in _MARKS if content.startswith(mark))
    encoding = next(encodings, "utf-8")
    try:
        text = content.decode(encoding)
    except ValueError:
        raise DataError(
            f"{path} is not text in UTF-8. Save it as UTF-8, or with a byte order mark."
        ) from None
    if "\0" in text:
        raise DataError(f"{path} is no text: it has zero bytes. Save it as UTF-8.")
    return text


def normal(text: str) -> str:
    """A name in composed form, with slashes between folders."""
    return unicodedata.normalize("NFC", text)


def pictures(folder: Path, follow_links: bool = False) -> dict[str, list[Path]]:
    """{path below the folder without extension: files} of the pictures in it.

    Hidden files, system files and descriptions are left out.

    Raises:
        DataError: a link to a folder, unless they are followed.
    """
    found: dict[str, list[Path]] = {}
    seen = {os.path.realpath(folder)}
    for place, folders, files in os.walk(folder, followlinks=follow_links):
        for name in sorted(folders):
            path = Path(place, name)
            if path.is_symlink():
                if not follow_links:
                    raise DataError(
                        f"{path} is a link to a folder, which is not followed. Own "
                        "data: --follow-links."
                    )
                if os.path.realpath(path) in seen:  # a circle
                    folders.remove(name)
                seen.add(os.path.realpath(path))
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        for name in sorted(files):
            path = Path(place, name)
            if is_picture(path):
                below = path.relative_to(folder).with_suffix("")
                found.setdefault(normal(below.as_posix()), []).append(path)
    return found


def is_hidden(name: str) -> bool:
    """Whether a folder or file of this name is the system's, not the user's."""
    return name.startswith(".") or name.lower() in _SYSTEM


def is_picture(path: Path) -> bool:
    """Whether a file is meant to be a picture, by its name."""
    suffix = path.suffix.lower()
    if is_hidden(path.name):
        return False
    return suffix in PICTURES or suffix in _UNREADABLE


def has_pictures(folder: Path) -> bool:
    """Whether there is any picture in a folder or below it, three levels deep."""
    level = [folder]
    for _ in range(4):
        entries = [entry for one in level for entry in one.iterdir()]
        if any(is_picture(entry) and entry.is_file() for entry in entries):
            return True
        level = [e for e in entries if e.is_dir() and not is_hidden(e.name)]
    return False
