"""What every command line shares: one-line errors, exit codes, a progress line.

Standard library only, so that `--help` and wrong use answer at once. A script is

    def main(argv): ...                 # builds a Parser, does the work, returns 0

    if __name__ == "__main__":
        sys.exit(command_line.run(main))
"""

import argparse
import errno
import math
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import TextIO

from keras_seg.errors import (
    INTERRUPTED_EXIT_CODES,
    KerasSegError,
    StorageError,
    UsageError,
)

DEBUG_VARIABLE = "KERAS_SEG_DEBUG"  # set to 1: tracebacks are printed too

_STORAGE_ERRNOS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
)

_TYPE_NAMES = {"int": "an integer", "float": "a number"}


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are a UsageError: one line, no usage block.

    Options are not abbreviated: a script that uses one keeps its meaning when
    another option is added.
    """

    def __init__(self, *args, **kwargs):
        kwargs.setdefault("allow_abbrev", False)
        # A description is a script's docstring: its commands stay on their lines.
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **kwargs)

    def error(self, message: str):
        raise _usage_error(message)


def _usage_error(message: str) -> UsageError:
    """argparse's message in the form <what>: <value>; expected <...>."""
    if match := re.fullmatch(r"the following arguments are required: (.*)", message):
        return UsageError(match[1], "missing", "a value")
    if match := re.fullmatch(r"unrecognized arguments: (.*)", message, re.DOTALL):
        return UsageError("argument", match[1], "the options that --help lists")
    if match := re.fullmatch(r"argument ([^:]*): (.*)", message, re.DOTALL):
        name, message = match.groups()
        if match := re.fullmatch(r"invalid choice: (.*) \(choose from (.*)\)", message):
            choices = match[2].replace("'", "")
            return UsageError(name, match[1].strip("'\""), f"one of {choices}")
        if match := re.fullmatch(r"invalid (\S+) value: (.*)", message, re.DOTALL):
            kind = _TYPE_NAMES.get(match[1], match[1])
            return UsageError(name, match[2].strip("'\""), kind)
        if match := re.fullmatch(r"expected (.*)", message):
            return UsageError(name, "too few values", match[1])
        if match := re.fullmatch(r"not allowed with argument (.*)", message):
            return UsageError(name, f"given with {match[1]}", "one of the two")
        if match := re.fullmatch(r"(.*); expected (.*)", message, re.DOTALL):
            return UsageError(name, match[1], match[2])  # from a type function here
        return UsageError(name, message, "what --help describes")
    return UsageError("command line", message, "what --help describes")


def positive_int(text: str) -> int:
    """An argparse type: a whole number of at least 1."""
    return _whole_number(text, 1)


def natural_int(text: str) -> int:
    """An argparse type: a whole number of at least 0."""
    return _whole_number(text, 0)


def _whole_number(text: str, lowest: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = None
    if number is None or number < lowest:
        raise argparse.ArgumentTypeError(
            f"{text}; expected a whole number of at least {lowest}"
        )
    return number


def run(main: Callable[[list[str]], int | None], argv: list[str] | None = None) -> int:
    """Calls main(argv) and turns whatever it raises into one line and an exit code.

    Args:
        main: takes the arguments without the program's name; returns the exit code
            (None is 0).
        argv: those arguments; default sys.argv[1:].

    Returns:
        int: the exit code (see `keras_seg.errors`; 130 after Ctrl-C, 1 for anything
        unforeseen). SIGTERM leaves with SystemExit(143), so that context managers
        clean up; `--help` leaves with SystemExit(0).
    """
    previous = _handle_sigterm(_leave_terminated)
    try:
        return main(sys.argv[1:] if argv is None else argv) or 0
    except KerasSegError as error:
        return _report(error, error.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED_EXIT_CODES["SIGINT"]
    except BrokenPipeError:
        # The reader of our output has gone (| head): nobody is left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno not in _STORAGE_ERRNOS:
            return _report_unforeseen(error)
        place = error.filename or "output"
        line = StorageError(place, error.strerror, "a disk with room that is writable")
        return _report(line, line.exit_code)
    except Exception as error:
        return _report_unforeseen(error)
    finally:
        _handle_sigterm(previous)


def _handle_sigterm(handler):
    try:
        return signal.signal(signal.SIGTERM, handler)
    except ValueError:  # not in the main thread: signals are somebody else's
        return None


def _leave_terminated(signum, frame):
    sys.exit(INTERRUPTED_EXIT_CODES["SIGTERM"])


def _report(error: Exception, exit_code: int) -> int:
    if os.environ.get(DEBUG_VARIABLE) == "1":
        traceback.print_exc()
    print(f"error: {error}", file=sys.stderr)
    return exit_code


def _report_unforeseen(error: Exception) -> int:
    line = KerasSegError(
        "unforeseen",
        f"{type(error).__name__}: {error}",
        f"no exception; {DEBUG_VARIABLE}=1 prints the traceback",
    )
    return _report(line, KerasSegError.exit_code)


class Progress:
    """A progress line on stderr: count, rate, time left.

    On a terminal one line is rewritten; elsewhere a plain line appears every ten
    seconds and at the end. Use it as a context manager and call `advance`.

    Args:
        what: str. What is going on, the line's beginning.
        total: int. The count at the end.
        unit: str. What is counted, in the plural.
        stream: where the line goes; default stderr.
        clock: a function giving seconds.
    """

    def __init__(
        self,
        what: str,
        total: int,
        unit: str = "images",
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.what, self.total, self.unit = what, total, unit
        self.count = 0
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._on_terminal = self._stream.isatty()
        self._interval = 0.2 if self._on_terminal else 10.0  # seconds between lines
        self._begin = self._shown_at = clock()
        self._shown_count = -1

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_):
        if self._shown_count != self.count:
            self._show()
        if self._on_terminal:
            print(file=self._stream)

    def advance(self, count: int = 1) -> None:
        """Counts on; shows the line when it is time."""
        self.count += count
        if self._clock() - self._shown_at >= self._interval:
            self._show()

    def line(self) -> str:
        seconds = max(self._clock() - self._begin, 1e-9)
        rate = self.count / seconds
        text = f"{self.what}: {self.count}/{self.total} {self.unit}, {rate:.1f}/s"
        if self.count and self.count < self.total:
            return f"{text}, {duration((self.total - self.count) / rate)} left"
        return f"{text}, {duration(seconds)}"

    def _show(self):
        self._shown_at, self._shown_count = self._clock(), self.count
        if self._on_terminal:
            print(f"\r\x1b[K{self.line()}", end="", file=self._stream, flush=True)
        else:
            print(self.line(), file=self._stream, flush=True)


def duration(seconds: float) -> str:
    """Seconds as people say them: 7 s, 3 min 20 s, 2 h 05 min; NaN is unknown."""
    if math.isnan(seconds):
        return "an unknown time"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
