"""One-line errors, exit codes and the progress line of every command."""

import errno
import io
import os
import signal
import subprocess
import sys

import pytest

from keras_seg import command_line, errors


def parser():
    p = command_line.Parser(prog="tool")
    p.add_argument("name", choices=["camvid", "voc"])
    p.add_argument("--out", required=True)
    p.add_argument("--size", nargs=2, type=command_line.positive_int)
    p.add_argument("--rate", type=float)
    return p


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["coco", "--out", "x"], "name: coco; expected one of camvid, voc"),
        (["voc"], "--out: missing; expected a value"),
        (
            ["voc", "--out", "x", "--siz", "3"],
            "argument: --siz 3; expected the options that --help lists",
        ),
        (
            ["voc", "--out", "x", "--size", "0", "3"],
            "--size: 0; expected a whole number of at least 1",
        ),
        (
            ["voc", "--out", "x", "--size", "a", "3"],
            "--size: a; expected a whole number of at least 1",
        ),
        (
            ["voc", "--out", "x", "--size", "3"],
            "--size: too few values; expected 2 arguments",
        ),
        (
            ["voc", "--out", "x", "--rate", "fast"],
            "--rate: fast; expected a number",
        ),
    ],
    ids=["choice", "missing", "unknown", "range", "type", "count", "number"],
)
def test_wrong_use_is_one_line_and_code_2(arguments, expected, capsys):
    assert command_line.run(parser().parse_args, arguments) == 2
    captured = capsys.readouterr()
    assert captured.err == f"error: {expected}\n"
    assert captured.out == ""


def test_help_leaves_with_0(capsys):
    with pytest.raises(SystemExit) as leaving:
        command_line.run(parser().parse_args, ["--help"])
    assert leaving.value.code == 0
    assert "--size" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.DataError("image", "a.png", "a whole file"), 3),
        (errors.DivergedError("loss", "nan", "a finite loss"), 4),
        (errors.StorageError("disk", "full", "room"), 5),
        (errors.LockedError("out", "in use", "a free folder"), 75),
        (OSError(errno.ENOSPC, "No space left on device", "out/a.png"), 5),
        (PermissionError(errno.EACCES, "Permission denied", "out/a.png"), 5),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError("division by zero"), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_exceptions_become_exit_codes_and_one_line(error, code, capsys):
    def main(argv):
        raise error

    assert command_line.run(main, []) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    if isinstance(error, OSError):
        assert lines[0].startswith(f"error: out/a.png: {error.strerror}; expected ")


def test_debug_variable_adds_the_traceback(monkeypatch, capsys):
    def main(argv):
        raise errors.DataError("image", "a.png", "a whole file")

    monkeypatch.setenv(command_line.DEBUG_VARIABLE, "1")
    assert command_line.run(main, []) == 3
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback")
    assert lines[-1] == "error: image: a.png; expected a whole file"


def test_sigterm_runs_cleanup_and_leaves_with_143():
    script = """
import os, signal, sys
from keras_seg import command_line
def main(argv):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    finally:
        print("cleaned")
sys.exit(command_line.run(main, []))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout) == (143, "cleaned\n")
    assert done.stderr == ""


def test_run_gives_the_signal_handler_back():
    before = signal.getsignal(signal.SIGTERM)
    assert command_line.run(lambda argv: None, []) == 0
    assert signal.getsignal(signal.SIGTERM) is before


def test_module_is_standard_library_only():
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, keras_seg.command_line; "
            "print([m for m in ('numpy', 'keras', 'tensorflow') if m in sys.modules])",
        ],
        capture_output=True,
        text=True,
        env=os.environ,
        check=True,
    )
    assert done.stdout == "[]\n"


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_in_a_file_is_a_line_every_ten_seconds_and_a_last_one():
    clock, stream = Clock(), io.StringIO()
    with command_line.Progress("preparing", 60, "images", stream, clock) as progress:
        for _ in range(60):
            clock.now += 0.5  # 2 images a second
            progress.advance()
    assert stream.getvalue().splitlines() == [
        "preparing: 20/60 images, 2.0/s, 20 s left",
        "preparing: 40/60 images, 2.0/s, 10 s left",
        "preparing: 60/60 images, 2.0/s, 30 s",
    ]


def test_progress_on_a_terminal_rewrites_one_line():
    clock, stream = Clock(), Terminal()
    with command_line.Progress("preparing", 4, "clips", stream, clock) as progress:
        for _ in range(4):
            clock.now += 1.0
            progress.advance()
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().endswith("preparing: 4/4 clips, 1.0/s, 4 s\n")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(7.4, "7 s"), (200, "3 min 20 s"), (7500, "2 h 05 min"), (59.6, "1 min 00 s")]
    + [(float("nan"), "an unknown time")],
)
def test_duration(seconds, text):
    assert command_line.duration(seconds) == text
