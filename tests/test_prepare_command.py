"""datasets/prepare.py as a user meets it: messages, exit codes, kills."""

import importlib.util
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
from PIL import Image

from keras_seg import command_line
from keras_seg.data import DATASETS, load
from keras_seg.data.prepared import open_prepared
from keras_seg.errors import UsageError

SCRIPT = Path(__file__).parents[1] / "datasets" / "prepare.py"


@pytest.fixture(scope="module")
def main():
    spec = importlib.util.spec_from_file_location("prepare_command", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture
def prepare(main, capfd):
    """Runs the command: exit code, stdout, the error lines of stderr."""

    def run(*argv):
        capfd.readouterr()
        code = command_line.run(main, [str(word) for word in argv])
        out, err = capfd.readouterr()
        lines = [x for x in err.splitlines() if not x.startswith(("prepa", "verif"))]
        return code, out, lines

    return run


MINIATURES = {
    "cityscapes": (miniatures.cityscapes, ()),
    "voc": (miniatures.voc, ()),
    "atr": (miniatures.atr, ("--no-square",)),
    "camvid": (miniatures.camvid, ()),
    "ccp": (miniatures.ccp, ()),
    "folder": (miniatures.folder, ("--classes", "a,b,c", "--group-by", "seq.")),
}


@pytest.mark.parametrize("name", MINIATURES)
def test_prepare_verify_show(name, prepare, tmp_path):
    make, options = MINIATURES[name]
    make(tmp_path / "raw")
    command = (name, "--src", tmp_path / "raw", "--out", tmp_path / "out", *options)
    command += ("--size", 16, 24, "--limit", 2)
    code, out, errors = prepare(*command)
    assert (code, errors) == (0, [])
    assert out.startswith(f"prepared: {tmp_path / 'out'} (train 2, val ")
    prepared = open_prepared(tmp_path / "out")
    assert prepared.image_size == (16, 24)
    assert prepared.dataset == {"voc": "voc2007"}.get(name, name)
    assert all(1 <= len(prepared.samples(split)) <= 2 for split in prepared.splits)

    assert prepare(*command)[1].startswith("already prepared: ")
    code, out, errors = prepare("verify", tmp_path / "out")
    assert (code, errors) == (0, [])
    assert out.startswith(f"whole: {tmp_path / 'out'} (train 2, ")
    code, out, errors = prepare("show", tmp_path / "out")
    assert (code, out, errors) == (0, f"{tmp_path / 'out' / 'sheet.png'}\n", [])
    with Image.open(tmp_path / "out" / "sheet.png") as sheet:
        assert sheet.width > 1000
        assert sheet.height > 200
    assert prepare("verify", tmp_path / "out")[0] == 0  # the sheet does no harm


def test_every_dataset_has_a_card():
    for name in MINIATURES:
        card = (SCRIPT.parent / f"{name}.md").read_text()
        assert f"python datasets/prepare.py {name} " in card
        for heading in ("Licence", "Expected tree", "Expected counts"):
            assert heading in card, name


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("camvid", "keep each as it is"),
        ("surreal", "320 320"),
        ("synthetic_humans", "320 320"),
    ],
)
def test_help_says_the_size_that_is_the_default(name, default, main, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([name, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert f"resize every image to it; default: {default} " in text


def test_registry():
    assert load("camvid").LABELS.num_classes == 11
    with pytest.raises(UsageError, match="dataset: coco; expected one of surreal, "):
        load("coco")
    with pytest.raises(TypeError):
        DATASETS["coco"] = "x"


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        ((), "NAME: missing; expected a value"),
        (("coco",), "NAME: coco; expected one of surreal, synthetic_humans, "),
        (("camvid",), "--src, --out: missing; expected a value"),
        (("camvid", "--src", "raw"), "--out: missing; expected a value"),
        (
            ("camvid", "--src", "none", "--out", "x"),
            "--src: none; expected an existing folder",
        ),
        (
            ("camvid", "--src", "raw", "--out", "x", "--size", "0", "4"),
            "--size: 0; expected a whole number of at least 1",
        ),
        (
            ("camvid", "--src", "raw", "--out", "x", "--skip-bad", "some"),
            "--skip-bad: some; expected a whole number of at least 0",
        ),
        (
            ("camvid", "--src", "raw", "--out", "raw/train.txt"),
            "--out: ",
        ),
        (("folder", "--src", "raw", "--out", "x"), "--classes: missing"),
        (("verify", "none"), "prepared folder: none; expected an existing folder"),
        (("show", "none"), "prepared folder: none; expected an existing folder"),
    ],
)
def test_wrong_use_is_one_line_and_code_2(argv, error, prepare, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    miniatures.camvid(tmp_path / "raw")
    before = sorted(tmp_path.rglob("*"))
    code, out, errors = prepare(*argv)
    assert (code, out) == (2, "")
    (line,) = errors
    assert line.startswith(f"error: {error}")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("split", ["train", "val"])
def test_truncated_image_is_code_3_and_publishes_nothing(split, prepare, tmp_path):
    miniatures.camvid(tmp_path / "raw")
    path = tmp_path / "raw" / split / "0001TP_000001.png"
    path.write_bytes(path.read_bytes()[:-20])
    command = ("camvid", "--src", tmp_path / "raw", "--out", tmp_path / "new" / "out")
    code, out, errors = prepare(*command)
    assert (code, out) == (3, "")
    rejected = tmp_path / "new" / "out.rejected.csv"
    assert errors == [
        f"error: {path}: truncated at {path.stat().st_size} bytes "
        f"(1 of 8 bad, listed in {rejected}); expected a whole file"
    ]
    assert list((tmp_path / "new").iterdir()) == [rejected]
    code, out, _ = prepare(*command, "--skip-bad", "all")
    assert code == 0
    assert list((tmp_path / "new").iterdir()) == [tmp_path / "new" / "out"]


def test_verify_lists_and_leaves_with_3(prepare, tmp_path):
    miniatures.camvid(tmp_path / "raw")
    prepare("camvid", "--src", tmp_path / "raw", "--out", tmp_path / "out")
    damaged = sorted((tmp_path / "out" / "images" / "train").iterdir())[1:3]
    for path in damaged:
        path.write_bytes(path.read_bytes()[:100])
    code, out, errors = prepare("verify", tmp_path / "out")
    assert code == 3
    assert [line.split(": ")[0] for line in out.splitlines()] == list(map(str, damaged))
    assert errors == [f"error: {tmp_path / 'out'}: 2 problems; expected none"]


def test_show_names_an_unknown_split(prepare, tmp_path):
    miniatures.camvid(tmp_path / "raw")
    prepare("camvid", "--src", tmp_path / "raw", "--out", tmp_path / "out")
    code, _, errors = prepare("show", tmp_path / "out", "--split", "test")
    assert code == 3
    assert errors == [
        f"error: {tmp_path / 'out'}: split: test; expected one of train, val"
    ]


def test_show_takes_any_names(prepare, tmp_path):
    raw = tmp_path / "raw"
    miniatures.folder(raw, count=3, num_classes=2)
    for kind in ("images", "labels"):
        for path in sorted((raw / kind).iterdir()):
            path.rename(path.with_name(f"$x_{'long' * 12}{path.name}"))
    code, _, errors = prepare(
        *("folder", "--src", raw, "--out", tmp_path / "out"),
        *("--classes", "$\\frac{a$,a class with a name of quite some length"),
    )
    assert (code, errors) == (0, [])
    code, _, errors = prepare("show", tmp_path / "out", "--count", 1)
    assert (code, errors) == (0, [])
    place = tmp_path / "none" / "sheet.png"
    code, _, errors = prepare("show", tmp_path / "out", "--out", place)
    assert (code, len(errors)) == (2, 1)


def test_image_in_two_splits_is_noted(prepare, tmp_path):
    raw = tmp_path / "raw"
    miniatures.camvid(raw)
    image = (raw / "train" / "0001TP_000002.png").read_bytes()
    (raw / "val" / "0001TP_000001.png").write_bytes(image)
    _, out, _ = prepare("camvid", "--src", raw, "--out", tmp_path / "out")
    assert out.splitlines()[1] == (
        "note: 1 images are in two splits, the first "
        "val/0001TP_000001 = train/0001TP_000002"
    )


# In processes of their own


def command(*argv):
    return [sys.executable, str(SCRIPT), *map(str, argv)]


def test_help_and_import_load_no_framework(tmp_path):
    check = (
        "import runpy, sys\n"
        f"sys.argv = ['prepare.py', 'camvid', '--help']\n"
        "try:\n"
        f"    runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
        "except SystemExit as leaving:\n"
        "    assert leaving.code == 0\n"
        "assert not {'keras', 'tensorflow', 'matplotlib'} & set(sys.modules)\n"
        "assert 'keras_seg.data.camvid' in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "--skip-bad" in done.stdout


@pytest.fixture(scope="module")
def slow_raw(tmp_path_factory):
    """Images that take long enough for a kill in the middle."""
    raw = tmp_path_factory.mktemp("slow") / "raw"
    miniatures.camvid(raw, (("train", 24), ("val", 2)), size=(8, 12))
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (900, 1200, 3)).astype(np.uint8)
    miniatures.save(noise, raw / "noise.png", compress_level=1)
    miniatures.save(noise[..., 0] % 12, raw / "mask.png", compress_level=1)
    for path in (raw / "train").iterdir():
        path.write_bytes((raw / "noise.png").read_bytes())
        mask = raw / "trainannot" / path.name
        mask.write_bytes((raw / "mask.png").read_bytes())
    return raw


@pytest.fixture(scope="module")
def undisturbed(slow_raw, main):
    out = slow_raw.parent / "undisturbed"
    assert main(["camvid", "--src", str(slow_raw), "--out", str(out)]) == 0
    return open_prepared(out)


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_preparation_runs_again_to_the_same_hash(
    ending, slow_raw, undisturbed, main, tmp_path
):
    out = tmp_path / "out"
    argv = ("camvid", "--src", slow_raw, "--out", out, "--workers", 1)
    with subprocess.Popen(
        command(*argv),
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs, this test among them, may ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        labels = tmp_path / ".out.partial" / "labels" / "train"
        deadline = time.monotonic() + 60
        while not (labels.is_dir() and len(list(labels.iterdir())) >= 3):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(ending)
        error = process.communicate()[1]
    codes = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}
    assert process.returncode == codes[ending]
    assert "Traceback" not in error
    assert not out.exists()
    if ending != signal.SIGKILL:
        assert list(tmp_path.iterdir()) == []
    assert main([str(word) for word in argv]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    assert open_prepared(out).manifest_hash == undisturbed.manifest_hash


def test_full_disk_is_code_5_and_leaves_nothing(tmp_path):
    miniatures.camvid(tmp_path / "raw", size=(200, 300))
    script = (
        "import resource, runpy, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        f"sys.argv[1:] = {['camvid', '--src', str(tmp_path / 'raw')]!r}\n"
        f"sys.argv += ['--out', {str(tmp_path / 'new' / 'out')!r}]\n"
        f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 5
    lines = [x for x in done.stderr.splitlines() if not x.startswith("preparing")]
    assert len(lines) == 1
    assert "File too large" in lines[0]
    assert list((tmp_path / "new").iterdir()) == []


def test_the_same_from_any_folder_locale_and_time_zone(tmp_path):
    miniatures.camvid(tmp_path / "raw")
    hashes = set()
    for number, (cwd, zone, locale) in enumerate(
        [(tmp_path, "UTC", "C"), (Path("/"), "Asia/Tokyo", "tr_TR.UTF-8")]
    ):
        out = tmp_path / str(number)
        subprocess.run(
            command("camvid", "--src", tmp_path / "raw", "--out", out),
            check=True,
            capture_output=True,
            cwd=cwd,
            env={**os.environ, "TZ": zone, "LC_ALL": locale},
        )
        hashes.add(open_prepared(out).manifest_hash)
        meta = json.loads((out / "meta.json").read_text())
        assert meta["command"].startswith("python datasets/prepare.py camvid --src ")
    assert len(hashes) == 1
