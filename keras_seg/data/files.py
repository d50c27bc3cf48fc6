"""Reading files that come from anywhere: regular ones only, of a bounded size.

A pipe would be waited for and a device has no end, so both are refused before they are
opened.
"""

import codecs
import stat
from pathlib import Path

from keras_seg.errors import DataError

MAX_TEXT_BYTES = 256_000_000  # of lists, tables and annotations

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
