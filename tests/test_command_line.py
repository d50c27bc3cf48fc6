"""One-sentence errors, exit codes and the progress line of every command."""

import errno
import io
import os
import re
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

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
        (["coco", "--out", "x"], r"name: .*'coco' \(choose from '?camvid'?, '?voc"),
        (["voc"], "arguments are required: --out"),
        (["voc", "--out", "x", "--siz", "3"], "unrecognized arguments: --siz 3"),
        (["voc", "--out", "x", "--size", "0", "3"], "--size: '0' must be a whole numb"),
        (["voc", "--out", "x", "--size", "a", "3"], "--size: 'a' must be a whole numb"),
        (["voc", "--out", "x", "--size", "3"], "--size: expected 2 arguments"),
        (["voc", "--out", "x", "--rate", "fast"], "--rate: invalid float .*'fast'"),
    ],
    ids=["choice", "missing", "unknown", "range", "type", "count", "number"],
)
def test_wrong_use_is_one_sentence_and_code_2(arguments, expected, capsys):
    assert command_line.run(parser().parse_args, arguments) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert re.match(f"error: .*{expected}.*tool --help lists the options", line)
    assert captured.out == ""


@pytest.mark.parametrize("below", ["", "new", "new/deep"])
def test_a_folder_below_a_file_is_refused_and_the_file_named(below, tmp_path):
    file = tmp_path / "notes.txt"
    file.touch()
    with pytest.raises(errors.UsageError, match=f"^{file} is a file; name a folder"):
        command_line.check_folder(file / below)
    command_line.check_folder(tmp_path / below)


def test_help_leaves_with_0(capsys):
    with pytest.raises(SystemExit) as leaving:
        command_line.run(parser().parse_args, ["--help"])
    assert leaving.value.code == 0
    assert "--size" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.DataError("a.png is truncated."), 3),
        (errors.DivergedError("The loss is NaN."), 4),
        (errors.StorageError("The disk is full."), 5),
        (errors.LockedError("out is in use."), 75),
        (OSError(errno.ENOSPC, "No space left on device", "out/a.png"), 5),
        (PermissionError(errno.EACCES, "Permission denied", "out/a.png"), 5),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_foreseen_errors_become_exit_codes_and_one_line(error, code, capsys):
    def main(argv):
        raise error

    assert command_line.run(main, []) == code
    (line,) = capsys.readouterr().err.splitlines()
    if isinstance(error, OSError):
        assert line.startswith("error: out/a.png ")
        assert error.strerror in line
    elif isinstance(error, errors.KerasSegError):
        assert line == f"error: {error}"


def test_an_unforeseen_error_keeps_its_traceback(capsys):
    assert command_line.run(lambda argv: 1 // 0, []) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback")
    assert "lambda argv: 1 // 0" in "".join(lines)
    assert lines[-1].startswith("error: unforeseen ZeroDivisionError: integer divis")


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_runs_cleanup_and_has_an_exit_code(name, code):
    script = f"""
import os, signal, sys
from keras_seg import command_line
def main(argv):
    try:
        os.kill(os.getpid(), signal.{name})
        signal.pause()
    finally:
        print("cleaned")
sys.exit(command_line.run(main, []))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout) == (code, "cleaned\n")
    assert done.stderr == ""


@pytest.mark.parametrize("folder", ["tools", "ablations"])
def test_a_script_of_another_checkout_says_whose_package_it_uses(folder, tmp_path):
    root = Path(__file__).resolve().parents[1]
    for other in ("mine", "theirs"):
        (tmp_path / other / "tools").mkdir(parents=True)
        (tmp_path / other / folder).mkdir(exist_ok=True)
    (tmp_path / "mine" / "setup.cfg").touch()
    words = (
        "import sys; from keras_seg import command_line; command_line.run(print, [])"
    )
    found = {}
    for place in (tmp_path / "mine", tmp_path / "theirs", root):
        script = place / folder / "script.py"
        if place != root:
            script.write_text(words)
        code = f"__file__ = {str(script)!r}; {words}"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        found[place.name] = done.stderr
    warned = found.pop("mine")
    assert warned.startswith(f"warning: {tmp_path}/mine/{folder}/script.py uses keras_")
    assert f"from {root}, not from {tmp_path}/mine" in warned
    assert set(found.values()) == {""}


PARENT = """
import subprocess, sys
child = subprocess.Popen(
    [sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, close_fds=False
)
child.stdout.read(1)
"""
CHILD = """
import os, sys, time
from keras_seg import command_line
def main(argv):
    command_line.end_with_parent(os.getppid(), {then!r})
    print("!", end="", flush=True)
    try:
        time.sleep(600)
    finally:
        os.write({pipe}, b"saved")
command_line.run(main, [])
"""


@pytest.mark.parametrize(("then", "said"), [("terminate", b"saved"), ("exit", b"")])
def test_a_process_ends_with_its_parent(then, said):
    reader, writer = os.pipe()
    child = CHILD.format(then=then, pipe=writer)
    parent = [sys.executable, "-c", PARENT, child]
    subprocess.run(parent, pass_fds=[writer], check=True, timeout=60)
    os.close(writer)
    assert select.select([reader], [], [], 60)[0]
    assert os.read(reader, 9) == said  # nothing: every process has closed it
    os.close(reader)


def test_without_a_parent_to_watch_nothing_is_started():
    before = threading.active_count()
    command_line.end_with_parent(None)
    assert threading.active_count() == before


def test_run_gives_the_signal_handlers_back_and_leaves_nohup_alone():
    before = signal.getsignal(signal.SIGTERM), signal.SIG_IGN
    hang_up = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        during = []
        look = lambda argv: during.append(signal.getsignal(signal.SIGHUP))  # noqa: E731
        assert command_line.run(look, []) == 0
        assert during == [signal.SIG_IGN]
        found = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP)
        assert found == before
    finally:
        signal.signal(signal.SIGHUP, hang_up)


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


def test_progress_on_a_terminal_rewrites_one_line_at_most_twice_a_second():
    clock, stream = Clock(), Terminal()
    with command_line.Progress("preparing", 40, "clips", stream, clock) as progress:
        for _ in range(40):
            clock.now += 0.1
            progress.advance()
    assert stream.getvalue().count("\n") == 1
    assert 6 <= stream.getvalue().count("\r") <= 9  # in 4 s
    assert stream.getvalue().endswith("preparing: 40/40 clips, 10.0/s, 4 s\n")


def test_a_line_never_wraps(monkeypatch):
    clock, stream = Clock(), Terminal()
    line = command_line.Line(stream, clock)
    for columns in (30, 12):  # the window was made narrower
        monkeypatch.setenv("COLUMNS", str(columns))
        clock.now += 1
        line.show("x" * 100)
    line.show("done", final=True)
    shown = stream.getvalue().split("\r\x1b[K")[1:]
    assert shown == ["x" * 29, "x" * 11, "done\n"]


@pytest.mark.parametrize("error", [OSError(errno.EIO, "gone"), ValueError("closed")])
@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_a_terminal_that_went_away_is_no_error(kind, error, monkeypatch):
    class Gone(kind):
        def write(self, text):
            raise error

    with command_line.Progress("preparing", 2, stream=Gone()) as progress:
        progress.advance(2)
    monkeypatch.setattr(sys, "stderr", Gone())
    command_line.note("nobody reads this")
    monkeypatch.setattr(sys, "stderr", None)
    command_line.note("nor this")
    command_line.Line().show("nor that", final=True)


CLOSED = """
import subprocess, sys
from keras_seg import backend, command_line
def main(argv):
    with open("result.txt", "w") as file:
        command_line.note("begun")
        with backend._stderr_closed():
            print("to nowhere")
        subprocess.run([sys.executable, "-c", "import os; os.write(2, b'a child')"])
        file.write(f"{file.fileno()}")
sys.exit(command_line.run(main, []))
"""


@pytest.mark.parametrize("how", ["<&- >&- 2>&-", "2>&-"])
def test_closed_streams_end_nothing_and_no_file_takes_their_place(how, tmp_path):
    """Closed streams lend their numbers to no file."""
    (tmp_path / "script.py").write_text(CLOSED)
    command = f"{sys.executable} script.py {how}"
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(command_line.__file__).parents[1]),
    }
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=environment, timeout=60
    )
    assert done.returncode == 0
    assert int((tmp_path / "result.txt").read_text()) > 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(7.4, "7 s"), (200, "3 min 20 s"), (7500, "2 h 05 min"), (59.6, "1 min 00 s")]
    + [(float("nan"), "an unknown time")],
)
def test_duration(seconds, text):
    assert command_line.duration(seconds) == text
