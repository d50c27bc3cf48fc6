"""datasets/prepare.py as a user meets it: messages, exit codes, kills."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import miniatures
import numpy as np
import pytest

from keras_seg import command_line
from keras_seg.data import prepare
from keras_seg.data.prepared import open_prepared

SCRIPT = Path(__file__).parents[1] / "datasets" / "prepare.py"


@pytest.fixture
def run(capfd):
    """Runs the command: exit code, stdout, the lines of stderr but for progress."""

    def run(*argv):
        capfd.readouterr()
        code = command_line.run(prepare.main, [str(word) for word in argv])
        out, err = capfd.readouterr()
        lines = [x for x in err.splitlines() if not x.startswith(("prepa", "verif"))]
        return code, out, lines

    return run


@pytest.fixture
def raw(tmp_path):
    miniatures.camvid(tmp_path / "raw")
    return tmp_path / "raw"


@pytest.fixture
def out(run, raw, tmp_path):
    """A prepared folder, not yet looked at."""
    assert run("camvid", "--src", raw, "--out", tmp_path / "out")[0] == 0
    return tmp_path / "out"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("camvid", "resize every image to this; otherwise each keeps its size"),
        ("surreal", "resize every image; default: 320 320 "),
        ("synthetic_humans", "resize every image; default: 320 320 "),
        ("surreal", "or all; 0 leaves the split out; default: 90000 15000 15000 "),
        ("synthetic_humans", "or all; 0 leaves the split out; default: all all all "),
        ("ccp", "--square, --no-square pad with zeros"),
        ("folder", "--classes A,B,C the class names"),
    ],
)
def test_help_names_options_and_defaults(name, text, capsys):
    with pytest.raises(SystemExit, match="0"):
        prepare.main([name, "--help"])
    assert text in " ".join(capsys.readouterr().out.split())


def test_a_command_line_is_a_request():
    argv = ["surreal", "--src", "a", "--out", "b b", "--frames", "all", "5", "0"]
    request = prepare.parse(argv[0], argv[1:], "keras-seg prepare")
    assert (request.src, request.out) == (Path("a"), Path("b b"))
    assert request.options.size == (320, 320)
    assert request.options.command.startswith("keras-seg prepare surreal --src a --out")
    assert request.own["frames"] == (None, 5, 0)
    assert request.own["clusters"] == (1000, 200, 200)
    many = prepare.parse(argv[0], [*argv[1:], "--skip-bad", "all", "--exclude", "7"])
    assert many.options.skip_bad == float("inf")
    assert many.own["exclude"] == ("7",)


WRONG_USE = {
    "": "required: NAME",
    "coco": "argument NAME: invalid choice: 'coco' (choose from ",
    "camvid": "required: --src, --out",
    "camvid --src raw": "required: --out",
    "camvid --src none --out x": "--src none is not a folder",
    "camvid --src raw --out x --size 0 4": "--size: '0' must be a whole number of at",
    "camvid --src raw --out x --skip-bad some": "--skip-bad: 'some' must be a whole",
    "camvid --src raw --out raw/train.txt": "train.txt is a file",
    "camvid --src raw --out raw/x": "raw/x is inside --src",
    "folder --src raw --out x": "Name the classes with --classes A,B,C.",
    "verify none": "prepared folder none does not exist",
    "show none": "prepared folder none does not exist",
    "surreal --src raw --out x --frames 5 5": "--frames: expected 3 arguments",
    "surreal --src raw --out x --frames 5 x 5": "--frames: 'x' must be a whole number",
    "surreal --src raw --out x --margin -1": "--margin -1.0 is not a number from",
    "surreal --src raw --out x --size 320 256": "--size 320 256 is not a square",
    "surreal --src raw --out x --repair best": "--repair: invalid choice: 'best'",
    "surreal --src clips --out x --selection no.csv": "no.csv is not a file",
}


@pytest.mark.parametrize("argv", WRONG_USE)
def test_wrong_use_is_one_line_and_code_2(argv, run, raw, monkeypatch):
    monkeypatch.chdir(raw.parent)
    clip = Path("clips/cmu/train/run0/01_01/01_01_c0001.mp4")
    clip.parent.mkdir(parents=True)
    clip.touch()
    before = sorted(raw.parent.rglob("*"))
    code, printed, errors = run(*argv.split())
    assert (code, printed) == (2, "")
    (line,) = errors
    assert line.startswith("error: ")
    assert WRONG_USE[argv] in line
    assert sorted(raw.parent.rglob("*")) == before


@pytest.mark.parametrize("split", ["train", "val"])
def test_truncated_image_is_code_3_and_publishes_nothing(split, run, raw, tmp_path):
    path = raw / split / "0001TP_000001.png"
    path.write_bytes(path.read_bytes()[:-20])
    command = ("camvid", "--src", raw, "--out", tmp_path / "new" / "out")
    code, printed, errors = run(*command)
    assert (code, printed) == (3, "")
    rejected = tmp_path / "new" / "out.rejected.csv"
    (line,) = errors
    assert line.startswith(
        f"error: {path} is truncated at {path.stat().st_size} bytes. "
        f"In all 1 of 8 images are bad; {rejected} lists them."
    )
    assert list((tmp_path / "new").iterdir()) == [rejected]
    code, printed, _ = run(*command, "--skip-bad", "all")
    assert code == 0
    assert list((tmp_path / "new").iterdir()) == [tmp_path / "new" / "out"]


@pytest.mark.parametrize("inside", ["", "prepared", "images/prepared"])
def test_a_prepared_folder_is_never_inside_of_the_raw_one(inside, run, tmp_path):
    miniatures.folder(tmp_path / "raw")
    (tmp_path / "link").symlink_to("raw")
    before = sorted(tmp_path.rglob("*"))
    places = "--src", tmp_path / "raw", "--out", tmp_path / "link" / inside
    code, _, (error,) = run("folder", *places, "--classes", "a,b,c")
    assert code == 2
    assert f"is inside --src {tmp_path / 'raw'}" in error
    assert sorted(tmp_path.rglob("*")) == before


def test_a_list_that_is_a_pipe_is_code_3(run, raw, tmp_path):
    (raw / "val.txt").unlink()
    os.mkfifo(raw / "val.txt")
    code, _, (error,) = run("camvid", "--src", raw, "--out", tmp_path / "out")
    assert (code, f"{raw / 'val.txt'} is a pipe or a device" in error) == (3, True)


def test_class_names_are_printable(run, tmp_path):
    miniatures.folder(tmp_path / "raw")
    places = "--src", tmp_path / "raw", "--out", tmp_path / "out"
    code, _, (error,) = run("folder", *places, "--classes", "a,b\x1b[31m,c")
    assert (code, "class name 'b\\x1b[31m'" in error) == (2, True)


def test_verify_lists_and_leaves_with_3(run, out):
    damaged = sorted((out / "images" / "train").iterdir())[1:3]
    for path in damaged:
        path.write_bytes(path.read_bytes()[:100])
    code, printed, errors = run("verify", out)
    assert [line.split(" ")[0] for line in printed.splitlines()] == [*map(str, damaged)]
    assert (code, errors) == (3, [f"error: {out} has 2 problems."])


def test_show_names_an_unknown_split_and_a_wrong_place(run, out):
    code, _, errors = run("show", out, "--split", "test")
    message = f"error: {out} has no split 'test'. Its splits: train, val."
    assert (code, errors) == (3, [message])
    code, _, errors = run("show", out, "--out", out / "none" / "sheet.png")
    assert (code, len(errors)) == (2, 1)


def test_show_takes_any_names(run, tmp_path):
    raw = tmp_path / "raw"
    miniatures.folder(raw, count=3, num_classes=2)
    for path in sorted(raw.glob("*/*.png")):
        path.rename(path.with_name(f"$x_{'long' * 12}{path.name}"))
    classes = "$\\frac{a$,a class with a name of quite some length"
    out = tmp_path / "out"
    for command in (
        ("folder", "--src", raw, "--out", out, "--classes", classes),
        ("show", out, "--count", 1),
    ):
        code, _, errors = run(*command)
        assert (code, errors) == (0, [])


def test_image_in_two_splits_is_noted(run, raw, tmp_path):
    image = (raw / "train" / "0001TP_000002.png").read_bytes()
    (raw / "val" / "0001TP_000001.png").write_bytes(image)
    _, printed, _ = run("camvid", "--src", raw, "--out", tmp_path / "out")
    assert printed.splitlines()[-1] == (
        "warning: 1 image in two splits, the first val/0001TP_000001 = "
        "train/0001TP_000002: scores there measure memory."
    )


def test_full_disk_is_code_5_and_leaves_nothing(run, tmp_path, small_files):
    miniatures.camvid(tmp_path / "raw", size=(200, 300))
    places = "--src", tmp_path / "raw", "--out", tmp_path / "new" / "out"
    with small_files(20_000):
        code, _, (error,) = run("camvid", *places)
    assert code == 5
    assert "File too large" in error
    assert not (tmp_path / "new").exists()


# In processes of their own


def test_help_loads_no_framework():
    check = (
        "import atexit, sys\n"
        "from keras_seg.data import prepare\n"
        "frameworks = {'keras', 'tensorflow', 'matplotlib'}\n"
        "atexit.register(lambda: print(sorted(frameworks & set(sys.modules))))\n"
        "prepare.main(['camvid', '--help'])\n"
    )
    command = [sys.executable, "-c", check]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--skip-bad" in done.stdout
    assert done.stdout.endswith("\n[]\n")


@pytest.fixture(scope="module")
def slow_raw(tmp_path_factory):
    """Images that take long enough for a kill in the middle."""
    raw = tmp_path_factory.mktemp("slow") / "raw"
    miniatures.camvid(raw, (("train", 24), ("val", 2)), size=(8, 12))
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (900, 1200, 3)).astype(np.uint8)
    for kind, pixels in (("train", noise), ("trainannot", noise[..., 0] % 12)):
        miniatures.save(pixels, raw / "one.png", compress_level=1)
        for path in (raw / kind).iterdir():
            path.write_bytes((raw / "one.png").read_bytes())
    return raw


@pytest.fixture(scope="module")
def undisturbed(slow_raw):
    out = slow_raw.parent / "undisturbed"
    assert prepare.main(["camvid", "--src", str(slow_raw), "--out", str(out)]) == 0
    return open_prepared(out)


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_preparation_runs_again_to_the_same_hash(
    ending, slow_raw, undisturbed, tmp_path
):
    """From another folder, in another locale and time zone, too."""
    out = tmp_path / "out"
    argv = ["camvid", "--src", str(slow_raw), "--out", str(out), "--workers", "1"]
    with subprocess.Popen(
        [sys.executable, str(SCRIPT), *argv],
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs, this test among them, may ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        labels = tmp_path / ".out.partial" / "new" / "labels" / "train"
        while not (labels.is_dir() and len(list(labels.iterdir())) >= 3):
            assert process.poll() is None
            time.sleep(0.002)
        process.send_signal(ending)
        error = process.communicate()[1]
    codes = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}
    assert process.returncode == codes[ending]
    assert "Traceback" not in error
    assert not out.exists()
    if ending != signal.SIGKILL:
        assert list(tmp_path.iterdir()) == []
        assert prepare.main(argv) == 0
    else:
        subprocess.run(
            [sys.executable, str(SCRIPT), *argv],
            check=True,
            capture_output=True,
            cwd="/",
            env={**os.environ, "TZ": "Asia/Tokyo", "LC_ALL": "tr_TR.UTF-8"},
        )
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    assert open_prepared(out).manifest_hash == undisturbed.manifest_hash
    command = json.loads((out / "meta.json").read_text())["command"]
    assert command.startswith("python datasets/prepare.py camvid --src ")
