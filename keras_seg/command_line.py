"""What every command line shares: one-sentence errors, exit codes, progress lines.

Standard library only, so that `--help` and wrong use answer at once. A script is

    def main(argv): ...                 # builds a Parser, does the work, returns 0

    if __name__ == "__main__":
        sys.exit(command_line.run(main))
"""

import argparse
import contextlib
import errno
import math
import os
import re
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NoReturn, TextIO

from keras_seg.errors import (
    INTERRUPTED_EXIT_CODES,
    KerasSegError,
    StorageError,
    UsageError,
)

# Seconds between progress lines: on a terminal, in a file
TERMINAL_SECONDS, FILE_SECONDS = 0.5, 10.0

_STORAGE_ERRNOS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.ESTALE,
    errno.ENAMETOOLONG,
)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are a UsageError: one sentence, no usage block.

    Options are not abbreviated: a script that uses one keeps its meaning when
    another option is added.
    """

    def __init__(self, *args, **kwargs):
        kwargs.setdefault("allow_abbrev", False)
        # A description is a script's docstring: its commands stay on their lines.
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}. {self.prog} --help lists the options.")


class Listing(argparse.Action):
    """An option like --help: it prints the text of `const`, a function, and leaves."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, nargs=0, **kwargs)

    def __call__(self, parser, namespace, values, option_string=None):
        print(self.const())
        parser.exit()


def folder_path(text: str) -> Path:
    """An argparse type: a folder's path; "" is not the current folder but a mistake."""
    if not text.strip():
        raise argparse.ArgumentTypeError("the name of the folder is empty")
    return Path(text)


def check_folder(folder: Path) -> None:
    """UsageError where the folder, or one it is to be in, is a file."""
    for place in (folder, *folder.parents):
        if os.path.exists(place):
            if not os.path.isdir(place):
                raise UsageError(f"{place} is a file; name a folder with --out.")
            return


def install_hint(extra: str) -> str:
    """The command that installs what an extra of the package needs."""
    return f"pip install 'keras_seg[{extra}]'"


def positive_int(text: str) -> int:
    """An argparse type: a whole number of at least 1."""
    return _whole_number(text, 1)


def share(text: str) -> tuple[int, int]:
    """An argparse type: "2/4" is (2, 4), the second of four shares."""
    number, _, count = text.partition("/")
    if number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count):
        return int(number), int(count)
    raise argparse.ArgumentTypeError(f"{text!r} must be I/N, from 1/N to N/N")


def time_span(text: str) -> float:
    """Seconds of a time like 90s, 45m, 2h or 1h30m."""
    parts = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m(?:in)?)?(?:(\d+)s)?", text.strip())
    hours, minutes, seconds = (
        int(n or 0) for n in (parts.groups() if parts else [0] * 3)
    )
    if not hours + minutes + seconds:
        raise UsageError(f"--budget {text!r} is no time; write 90s, 45m or 2h.")
    return 3600.0 * hours + 60 * minutes + seconds


def natural_int(text: str) -> int:
    """An argparse type: a whole number of at least 0."""
    return _whole_number(text, 0)


def fraction(text: str) -> float:
    """An argparse type: a number of at least 0 and below 1."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number from 0 to below 1")
    return number


def _whole_number(text: str, lowest: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = None
    if number is None or number < lowest:
        raise argparse.ArgumentTypeError(
            f"{text!r} must be a whole number of at least {lowest}"
        )
    return number


def run(main: Callable[[list[str]], int | None], argv: list[str] | None = None) -> int:
    """Call main(argv) and turn whatever it raises into a message and an exit code.

    A foreseen error is one sentence; anything else keeps its traceback.

    Args:
        main: takes the arguments without the program's name; returns the exit code
            (None is 0).
        argv: those arguments; default sys.argv[1:].

    Returns:
        int: the exit code (see `keras_seg.errors`; 130 after Ctrl-C, 1 for anything
        unforeseen). SIGTERM leaves with SystemExit(143) and a closed terminal (SIGHUP)
        with 129, so that context managers clean up; `--help` leaves with 0.
    """
    previous = _handle_signals()
    _open_closed_streams()
    _warn_of_another_checkout()
    try:
        return main(sys.argv[1:] if argv is None else argv) or 0
    except KerasSegError as error:
        note(f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        note("interrupted")
        return INTERRUPTED_EXIT_CODES["SIGINT"]
    except BrokenPipeError:
        # The reader of our output has gone (| head): nobody is left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _STORAGE_ERRNOS:
            place = error.filename or "The output"
            note(
                f"error: {place} could not be used: {error.strerror}. "
                "Name a place that is writable and has room."
            )
            return StorageError.exit_code
        note(traceback.format_exc())
        note(
            f"error: unforeseen {type(error).__name__}: {error}. This is a bug: "
            "please report it with the traceback above."
        )
        return KerasSegError.exit_code
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _open_closed_streams() -> None:
    """Lead closed standard streams nowhere: else the next files get their numbers.

    Whatever writes to stderr then, a library or a process of ours, would spoil them.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:  # closed; the lowest number that is free is this one
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(number, mode, closefd=False))


def _warn_of_another_checkout() -> None:
    """Say so where a checkout's script imported the package of another place."""
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if script is None:
        return
    checkout, package = Path(script).resolve().parent.parent, Path(__file__).parent
    is_checkout = (checkout / "setup.cfg").is_file() and (checkout / "tools").is_dir()
    if is_checkout and (checkout / package.name) != package.resolve():
        note(
            f"warning: {script} uses keras_seg from {package.parent}, not from "
            f"{checkout}, where it is. To change that: pip install -e {checkout}"
        )


def _handle_signals() -> dict[signal.Signals, Any]:
    """Let SIGTERM and SIGHUP leave through SystemExit; the handlers of before."""
    previous = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup leaves it
                previous[number] = signal.signal(number, _leave)
    return previous


def _leave(number: int, frame: object) -> NoReturn:
    sys.exit(INTERRUPTED_EXIT_CODES[signal.Signals(number).name])


def end_with_parent(
    pid: int | None = None, then: Literal["terminate", "exit"] = "terminate"
) -> None:
    """End this process once its parent is gone, also where the parent was killed.

    Args:
        pid: the parent; None is the one that started this process through
            multiprocessing, and without one nothing is watched.
        then: "terminate" sends this process SIGTERM, so that a training run saves a
            checkpoint; "exit" leaves at once, for a worker whose folder a new command
            is about to sweep.
    """
    from multiprocessing import connection, parent_process

    parent = parent_process() if pid is None else None
    if pid is None and parent is None:
        return

    def watch():
        if parent is not None:
            connection.wait([parent.sentinel])
        while parent is None and os.getppid() == pid:
            time.sleep(0.5)
        if then == "exit":
            os._exit(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def note(text: str) -> None:
    """Print a line to stderr; on a terminal it replaces an unfinished progress line."""
    clear = "\r\x1b[K" if _is_terminal(sys.stderr) else ""
    _write(sys.stderr, f"{clear}{text.rstrip()}\n")


def note_at_once(text: str) -> None:
    """As `note`, from a signal handler: nothing that may be in the middle of a line."""
    clear = "\r\x1b[K" if _is_terminal(sys.stderr) else ""
    with contextlib.suppress(OSError):  # the terminal went away
        os.write(2, f"{clear}{text}\n".encode())


class Line:
    """A line of progress on stderr.

    On a terminal one line is rewritten, cut to the terminal's width, at most twice a
    second; elsewhere a plain line appears every ten seconds. A terminal that went away
    is no error: what reports its progress continues.

    Args:
        stream: where the line goes; default stderr.
        clock: a function giving seconds.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._on_terminal = _is_terminal(self._stream)
        self._due = clock() + (0 if self._on_terminal else FILE_SECONDS)

    @property
    def is_due(self) -> bool:
        """Whether `show` would show a line now; saves making its text in vain."""
        return self._clock() >= self._due

    def show(self, text: str, final: bool = False) -> None:
        """Show the line if it is time; the final one always."""
        if not (final or self.is_due):
            return
        if self._on_terminal:
            self._due = self._clock() + TERMINAL_SECONDS
            text = f"\r\x1b[K{text[: self._width()]}"
            _write(self._stream, f"{text}\n" if final else text)
        else:
            self._due = self._clock() + FILE_SECONDS
            _write(self._stream, f"{text}\n")

    def _width(self) -> int:
        """Columns, without the last, where some terminals wrap."""
        try:  # stderr's own: stdout may be a pipe
            columns = os.get_terminal_size(self._stream.fileno()).columns
        except (OSError, ValueError, AttributeError):
            columns = 0
        return (columns or shutil.get_terminal_size().columns) - 1


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


def _write(stream: TextIO | None, text: str) -> None:
    try:
        if stream is not None:
            stream.write(text)
            stream.flush()
    except (OSError, ValueError):
        pass  # the terminal went away, or stderr is closed


class Progress:
    """A `Line` that counts: done, rate, time left.

    Use it as a context manager and call `advance`.

    Args:
        what: the line's beginning.
        total: the count at the end.
        unit: what is counted, in the plural.
        stream, clock: as of `Line`.
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
        self._clock = clock
        self._begin = clock()
        self._line = Line(stream, clock)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_):
        self._line.show(self.text(), final=True)

    def advance(self, count: int = 1) -> None:
        """Count; show the line when it is time."""
        self.count += count
        if self.count < self.total and self._line.is_due:
            self._line.show(self.text())

    def text(self) -> str:
        """What the line shows now."""
        seconds = max(self._clock() - self._begin, 1e-9)
        rate = self.count / seconds
        text = f"{self.what}: {self.count}/{self.total} {self.unit}, {rate:.1f}/s"
        if self.count and self.count < self.total:
            return f"{text}, {duration((self.total - self.count) / rate)} left"
        return f"{text}, {duration(seconds)}"


def duration(seconds: float) -> str:
    """Seconds in readable units: 7 s, 3 min 20 s, 2 h 05 min; NaN is unknown."""
    if math.isnan(seconds):
        return "an unknown time"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
