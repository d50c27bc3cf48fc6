"""Harmful files: refused quickly, in little memory, and without running their code.

Our own (checkpoints, weights, prepared folders, .mat) are opened in one process with
2 GB of address space. Keras' formats are left to Keras, on whose refusals we rely where
a user loads a saved network.
"""

import configparser
import io
import json
import os
import pickle
import re
import struct
import subprocess
import sys
import threading
import time
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import keras
import miniatures
import numpy as np
import pytest
from PIL import Image

from keras_seg import storage, study
from keras_seg.data import raw
from keras_seg.runs import checkpoint

ROOT = Path(__file__).resolve().parents[1]
MEMORY, SECONDS = 2 << 30, 10  # for any one file


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


# Archives of arrays


def member(shape: tuple[int, ...], data: bytes, dtype="<f4") -> bytes:
    """A .npy file whose header claims `shape`."""
    file = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + data


def archive(content: bytes, compression=zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as opened:
        opened.writestr("conv1/weights.npy", content)
    return file.getvalue()


def changed(content: bytes, offset: int, new: bytes) -> bytes:
    """The archive with other bytes at this offset of its central directory."""
    place = content.index(b"PK\x01\x02") + offset
    return content[:place] + new + content[place + len(new) :]


def npz_files(canary: Path) -> dict[str, bytes]:
    zeros = member((250_000,), bytes(1_000_000))
    packed = archive(zeros, zipfile.ZIP_DEFLATED)
    pickled = member((1,), pickle.dumps(Touch(canary)), "|O")
    code = member((1,), b"").replace(b"(1,)", b"f()")
    return {
        "claims 4 TB": archive(member((1 << 40,), bytes(16))),
        "claims an overflow": archive(member((1 << 40, 1 << 40), b"")),
        "claims 2^40 values of no size": archive(member((1 << 40,), b"", "|S0")),
        "claims a negative size": archive(member((-1,), b"")),
        "unpacks to 4 GB": changed(packed, 24, struct.pack("<I", (1 << 32) - 2)),
        "unpacks to more than it says": changed(packed, 24, struct.pack("<I", 1000)),
        "pickle": archive(pickled),
        "encrypted": changed(archive(zeros), 8, b"\x01\x00"),
        "header of code": archive(code + bytes(4)),
        "bare pickle": pickle.dumps(Touch(canary)),
        "no member": archive(b""),
    }


# Images and .mat


def png(width: int, height: int) -> bytes:
    """A PNG of black pixels, compressed a thousandfold."""
    packer = zlib.compressobj(1)
    first, row = (
        packer.compress(bytes(width + 1)) + packer.flush(zlib.Z_FULL_FLUSH)
        for _ in range(2)
    )
    return miniatures.png(width, height, 8, 0, first + row * (height - 1))


def jpeg(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG")
    content = bytearray(file.getvalue())
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(content)


def jpeg_of_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan is repeated: each costs as much as all."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "JPEG", progressive=True)
    content = file.getvalue()
    scan = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + scan * count + content[-2:]


IMAGES = {
    "huge.png": png(40_000, 40_000),
    "huge.jpg": jpeg(65_000, 65_000),
    "scans.jpg": jpeg_of_scans(3_000),
    "line.png": png(64_000_000, 1),
    "column.png": png(1, 64_000_000 // 500),
}


def mat(dims: tuple[int, int], data: bytes, compress: bool) -> bytes:
    """A MATLAB 5 file with one uint8 matrix that claims `dims`."""

    def element(kind: int, content: bytes) -> bytes:
        padding = bytes(-len(content) % 8)
        return struct.pack("<II", kind, len(content)) + content + padding

    matrix = element(6, struct.pack("<II", 9, 0)) + element(
        5, struct.pack("<ii", *dims)
    )
    matrix += element(1, b"segm_1\0\0") + element(2, data)
    variable = element(14, matrix)
    if compress:
        packed = zlib.compress(variable, 1)
        variable = struct.pack("<II", 15, len(packed)) + packed
    return b"MATLAB 5.0".ljust(124) + b"\x00\x01IM" + variable


def mat_files() -> dict[str, bytes]:
    return {
        "claims 4 EB": mat((2**31 - 1, 2**31 - 1), bytes(64), False),
        "claims 4 EB, packed": mat((2**31 - 1, 2**31 - 1), bytes(64), True),
        "unpacks to 600 MB": mat((600, 1_000_000), bytes(600_000_000), True),
    }


READERS = """
import json, resource, sys, time
from pathlib import Path
from keras_seg.runs import checkpoint, folder as run_folder
from keras_seg.data import images, matlab, prepared, raw
from keras_seg.nets import pretrained

class Model:
    weights = []

readers = {
    "checkpoint": checkpoint.load,
    "npz": lambda path: pretrained.load(Model, "icnet", path),
    "image": prepared.read_image,
    "label": prepared.read_label,
    "raw image": images.read_raw_image,
    "raw label": images.read_raw_label,
    "mat": lambda path: matlab.read_mat(path, "segm_1").sum(),
    "metrics": run_folder.read_metrics,
    "meta": prepared.read_meta,
    "manifest": lambda path: prepared._read_manifest(path.parent),
    "list": raw.read_list,
}
memory = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
for reader, path in json.loads(sys.stdin.read()):
    began = time.monotonic()
    try:
        readers[reader](Path(path))
        outcome = "accepted"
    except Exception as error:
        outcome = f"{type(error).__name__}: {error}"
    seconds = time.monotonic() - began
    print(json.dumps([reader, path, outcome, seconds]), flush=True)
"""


def write_corpus(folder: Path) -> list[tuple[str, str]]:
    """(reader, file) of everything that has to be refused."""
    corpus = []
    for name, content in npz_files(folder / "canary").items():
        (folder / f"{name}.npz").write_bytes(content)
        place = checkpoint.save(folder / name, 1, {"a": np.zeros(3)}, {}, 1)
        (place / "arrays.npz").write_bytes(content)
        record = json.loads((place / "meta.json").read_text())
        record["sha256"] = storage.sha256(place / "arrays.npz")
        (place / "meta.json").write_text(json.dumps(record))
        corpus += [("npz", f"{place.parent}.npz"), ("checkpoint", place)]
    nested = folder / "nested"
    nested.mkdir()
    for name in ("meta.json", "metrics.json"):
        (nested / name).write_text("[" * 200_000)
    corpus += [(reader, nested) for reader in ("checkpoint", "metrics", "meta")]
    for name, content in IMAGES.items():
        path = folder / name
        path.write_bytes(content)
        readers = ("raw image", "raw label", "image", "label")
        corpus += [(reader, path) for reader in readers]
    os.mkfifo(folder / "pipe")
    for name in ("pipe.png", "manifest.csv", "pipe.npz", "zero.png"):
        (folder / name).symlink_to("/dev/zero" if name == "zero.png" else "pipe")
    (folder / "piped").mkdir()
    (folder / "piped" / "meta.json").symlink_to(folder / "pipe")
    (folder / "zero").symlink_to("/dev/zero")
    corpus += [("list", folder / "pipe"), ("list", folder / "zero")]
    corpus += [("meta", folder / "piped"), ("manifest", folder / "manifest.csv")]
    corpus += [("mat", folder / "pipe"), ("npz", folder / "pipe.npz")]
    corpus += [(r, folder / f) for r in readers for f in ("pipe.png", "zero.png")]
    for name, content in mat_files().items():
        (folder / f"{name}.mat").write_bytes(content)
        corpus.append(("mat", folder / f"{name}.mat"))
    return [(reader, str(path)) for reader, path in corpus]


def test_harmful_files_are_refused_by_a_named_error_at_once(tmp_path):
    corpus = write_corpus(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-c", READERS, str(MEMORY)],
        input=json.dumps(corpus),
        capture_output=True,
        text=True,
        timeout=SECONDS * len(corpus),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert sorted(tmp_path.rglob("*")) == before  # no canary
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(reader, path) for reader, path, *_ in outcomes] == corpus
    refused = ("DataError", "UsageError", "StorageError")
    for reader, path, outcome, seconds in outcomes:
        # checkpoint.load says what is damaged; load_newest takes the one before.
        kinds = ("ValueError",) if reader == "checkpoint" else refused
        assert outcome.split(":")[0] in kinds, (reader, path, outcome)
        assert "MemoryError" not in outcome, (reader, path)
        assert seconds < SECONDS, (reader, path)


PREPARE = """
import json, resource, sys
from keras_seg import command_line
from keras_seg.data import prepare

code = command_line.run(prepare.main)
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps([code, used.ru_utime, used.ru_maxrss * 1024]))
"""


@pytest.mark.slow
def test_the_largest_pairs_are_prepared_in_bounded_time_and_memory(tmp_path):
    """Noise, which no encoder is fast at; three at once for as many workers.

    The time is the processor's, without the kernel's: where other processes press for
    memory, handing out pages alone takes twice as long.
    """
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (8_000, 8_000, 4), np.uint8)
    for number in range(3):
        for kind in ("images", "labels"):
            (tmp_path / "raw" / kind).mkdir(parents=True, exist_ok=True)
        image, mask = Image.fromarray(noise), Image.fromarray(noise[..., 0] % 2)
        image.save(tmp_path / f"raw/images/{number}.png", compress_level=1)
        mask.save(tmp_path / f"raw/labels/{number}.png", compress_level=1)
    words = ["folder", "--src", "raw", "--out", "out", "--classes", "a,b"]
    words += ["--workers", "3"]
    done = subprocess.run(
        [sys.executable, "-c", PREPARE, *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    code, seconds, memory = json.loads(done.stdout.splitlines()[-1])
    assert code == 0, done.stderr
    assert seconds < 3 * SECONDS
    assert memory < MEMORY


def test_pixels_in_work_are_bounded():
    budget, held, most = raw._PixelBudget(100), [0], []
    lock = threading.Lock()

    def work(pixels):
        with budget.spent(pixels):
            with lock:
                held[0] += min(pixels, 100)
                most.append(held[0])
            time.sleep(0.001)
            with lock:
                held[0] -= min(pixels, 100)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [60, 30, 30, 30, 200, 1, 50, 50, 50] * 5))
    assert max(most) <= 100
    assert len([n for n in most if n > 60]) > 3  # several at a time


def test_the_corpus_is_as_harmful_as_it_claims(tmp_path):
    """Without the checks the files do what they say."""
    canary = tmp_path / "canary"
    file = io.BytesIO(npz_files(canary)["pickle"])
    _ = np.load(file, allow_pickle=True)["conv1/weights"]
    assert canary.is_dir()
    with Image.open(io.BytesIO(png(300, 200))) as image:
        assert np.asarray(image).shape == (200, 300)
    packed = archive(member((250_000,), bytes(1_000_000)), zipfile.ZIP_DEFLATED)
    assert len(packed) < 3000
    assert np.load(io.BytesIO(packed))["conv1/weights"].shape == (250_000,)


def test_the_keras_that_refuses_is_asked_for():
    """Older ones load some of the files below."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    required = settings["options"]["install_requires"].split()
    (line,) = [line for line in required if line.startswith("keras")]
    lowest = re.match(r"keras>=(\d+)\.(\d+)\.(\d+),<4$", line).groups()
    assert tuple(map(int, lowest)) >= (3, 15, 1)


def test_names_that_become_folders_lead_nowhere():
    """Studies, networks, stages and arms: OUT/<study>/<net>/<stage>/<arm>/."""
    names = set()
    for path in (ROOT / "ablations" / "studies").glob("*.py"):
        found = study.load(path.stem)
        names |= {found.name, *found.plans}
        for plan in found.plans.values():
            base = plan.base("paper", found.data)
            names |= {stage.name for stage in plan.stages}
            names |= {arm.name for s in plan.stages for arm in s.arms(base)}
    assert len(names) > 20
    assert not [name for name in names if not re.fullmatch("[a-z0-9][a-z0-9_-]*", name)]


UNUSED = "load_model|load_weights|get_file|urlretrieve|extractall|deserialize"
UNUSED += r"|model_from_json|model_from_config|unpack_archive|yaml\.load"


# What is called all the same: a download that is checked by its hash and not unpacked,
# and the export of a run in Keras' format, in safe mode (the canaries below)
CALLED = {("imagenet.py", "get_file"), ("engines.py", "load_model")}


def test_no_loader_that_runs_what_a_file_says_is_called():
    found = set()
    for folder in ("keras_seg", "tools", "datasets", "ablations"):
        for path in (ROOT / folder).rglob("*.py"):
            calls = re.findall(rf"\b({UNUSED})\(", path.read_text())
            found |= {(path.name, call) for call in calls}
    assert found <= CALLED


# Keras' own formats: three canaries of what its older versions let through


def saved(folder: Path) -> Path:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="dense")])
    model.save(folder / "model.keras")
    return folder / "model.keras"


def with_lambda(folder: Path, canary: Path) -> Path:
    place = str(canary)
    touch = keras.layers.Lambda(lambda x: [x, os.makedirs(place)][0])
    model = keras.Sequential([keras.Input((4,)), touch])
    model.save(folder / "lambda.keras")
    canary.rmdir()  # it ran when the model was built
    return folder / "lambda.keras"


def with_os_system(folder: Path, canary: Path) -> Path:
    def edit(content):
        config = json.loads(content)
        names = {"config": "system", "registered_name": "system"}
        function = {"module": "os", "class_name": "function", **names}
        config["config"]["layers"][1]["config"]["activation"] = function
        return json.dumps(config).encode()

    return rewrite(saved(folder), "config.json", edit)


def with_shape_bomb(folder: Path, canary: Path) -> Path:
    def edit(content):
        file = io.BytesIO(content)
        with h5py.File(file, "r+") as opened:
            variables = opened["layers/dense/vars"]
            del variables["0"]
            shape = (1 << 40, 3)
            variables.create_dataset("0", shape, "float32", chunks=(1024, 3))
        return file.getvalue()

    return rewrite(saved(folder), "model.weights.h5", edit)


def rewrite(path: Path, name: str, change) -> Path:
    """The archive with one member changed."""
    with zipfile.ZipFile(path) as archive:
        members = {n: archive.read(n) for n in archive.namelist()}
    members[name] = change(members[name])
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return path


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (with_lambda, "arbitrary code execution"),
        (with_os_system, "Full object config: .*'module': '(os|builtins)'"),
        (with_shape_bomb, "shape bomb"),
    ],
)
def test_keras_refuses_what_it_once_accepted(make, reason, tmp_path):
    path = make(tmp_path, tmp_path / "canary")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises((ValueError, TypeError), match=reason):
        keras.saving.load_model(path)
    assert sorted(tmp_path.rglob("*")) == before
