"""Files that somebody made to do harm: refused, fast, small, without running code.

Ours (checkpoints, weights, prepared folders, .mat) are opened in one process with 2 GB
of address space; Keras' own formats, which only `nets.pretrained` touches, by Keras,
whose refusals we rely on where a user loads an exported model.
"""

import ast
import configparser
import io
import json
import os
import pickle
import re
import runpy
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from PIL import Image

from keras_seg import storage
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


def with_unpacked_size(content: bytes, size: int) -> bytes:
    """The archive with another uncompressed size in its central directory."""
    place = content.index(b"PK\x01\x02") + 24
    return content[:place] + struct.pack("<I", size) + content[place + 4 :]


def encrypted(content: bytes) -> bytes:
    place = content.index(b"PK\x01\x02") + 8
    return content[:place] + b"\x01\x00" + content[place + 2 :]


def npz_files(canary: Path) -> dict[str, bytes]:
    zeros = member((250_000,), bytes(1_000_000))
    packed = archive(zeros, zipfile.ZIP_DEFLATED)
    pickled = member((1,), pickle.dumps(Touch(canary)), "|O")
    return {
        "claims 4 TB": archive(member((1 << 40,), bytes(16))),
        "claims an overflow": archive(member((1 << 40, 1 << 40), b"")),
        "claims a negative size": archive(member((-1,), b"")),
        "unpacks to 4 GB": with_unpacked_size(packed, (1 << 32) - 2),
        "unpacks to more than it says": with_unpacked_size(packed, 1000),
        "pickle": archive(pickled),
        "encrypted": encrypted(archive(zeros)),
        "header of code": archive(
            member((1,), b"").replace(b"(1,)", b"f()") + bytes(4)
        ),
        "bare pickle": pickle.dumps(Touch(canary)),
        "no member": archive(b""),
    }


# Images and .mat


def png(width: int, height: int) -> bytes:
    """A PNG of black pixels, compressed a thousandfold."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + checksum.to_bytes(4)

    packer = zlib.compressobj(1)
    rows = packer.compress(bytes(width + 1)) + packer.flush(zlib.Z_FULL_FLUSH)
    row = packer.compress(bytes(width + 1)) + packer.flush(zlib.Z_FULL_FLUSH)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", rows + row * (height - 1))
        + chunk(b"IEND", b"")
    )


def jpeg(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG")
    content = bytearray(file.getvalue())
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(content)


IMAGES = {"png": png(40_000, 40_000), "jpg": jpeg(65_000, 65_000)}


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


# All of them, opened by our readers


READERS = """
import json, resource, sys, time
from pathlib import Path
from keras_seg import checkpoint, config, run_folder
from keras_seg.data import images, matlab, prepared
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
    # VmHWM is of this program; ru_maxrss also remembers the parent it forked from.
    status = Path("/proc/self/status")
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if status.exists():
        line = next(x for x in status.read_text().splitlines() if "VmHWM" in x)
        kilobytes = int(line.split()[1])
    peak = kilobytes * 1024
    print(json.dumps([reader, path, outcome, seconds, peak]), flush=True)
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """[(reader, file, outcome, seconds, peak bytes)] of the whole corpus."""
    folder = tmp_path_factory.mktemp("corpus")
    canary = folder / "canary"
    wanted = []
    for name, content in npz_files(canary).items():
        (folder / f"{name}.npz").write_bytes(content)
        wanted.append(("npz", folder / f"{name}.npz"))
        place = checkpoint.save(folder / name, 1, {"a": np.zeros(3)}, {}, 1)
        (place / "arrays.npz").write_bytes(content)
        record = json.loads((place / "meta.json").read_text())
        record["sha256"] = storage.sha256(place / "arrays.npz")
        (place / "meta.json").write_text(json.dumps(record))
        wanted.append(("checkpoint", place))
    nested = folder / "nested"
    nested.mkdir()
    for name in ("meta.json", "metrics.json"):
        (nested / name).write_text("[" * 200_000)
    wanted += [("checkpoint", nested), ("metrics", nested), ("meta", nested)]
    for suffix, content in IMAGES.items():
        path = folder / f"bomb.{suffix}"
        path.write_bytes(content)
        wanted += [(reader, path) for reader in ("image", "label")]
        wanted += [(reader, path) for reader in ("raw image", "raw label")]
    for name, content in mat_files().items():
        (folder / f"{name}.mat").write_bytes(content)
        wanted.append(("mat", folder / f"{name}.mat"))
    before = sorted(folder.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-c", READERS, str(MEMORY)],
        input=json.dumps([(reader, str(path)) for reader, path in wanted]),
        capture_output=True,
        text=True,
        timeout=SECONDS * len(wanted),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert not canary.exists()
    assert sorted(folder.rglob("*")) == before
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(r, Path(p)) for r, p, *_ in found] == wanted
    return found


def test_every_file_of_the_corpus_is_refused_by_a_named_error(outcomes):
    refused = ("DataError", "UsageError", "StorageError")
    for reader, path, outcome, _, _ in outcomes:
        # checkpoint.load says what is damaged; load_newest goes on to the one before.
        kinds = ("ValueError",) if reader == "checkpoint" else refused
        assert outcome.split(":")[0] in kinds, (reader, path, outcome)


def test_every_file_of_the_corpus_is_refused_at_once_and_in_little_memory(outcomes):
    for reader, path, outcome, seconds, peak in outcomes:
        assert seconds < SECONDS, (reader, path)
        assert peak < MEMORY, (reader, path)
        assert "MemoryError" not in outcome, (reader, path)


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


def test_links_in_an_output_folder_are_not_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text("kept")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".tmp-1-step").symlink_to(tmp_path / "elsewhere")
    storage.sweep(tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    assert (tmp_path / "elsewhere" / "file").read_text() == "kept"


def test_the_keras_that_refuses_is_asked_for():
    """Older ones load some of the files below (reliability 5)."""
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
        study = runpy.run_path(str(path))["STUDY"]
        names |= {study.name, *study.plans}
        for plan in study.plans.values():
            base = plan.base("paper", study.data)
            names |= {stage.name for stage in plan.stages}
            names |= {arm.name for s in plan.stages for arm in s.arms(base)}
    assert len(names) > 20
    assert not [name for name in names if not re.fullmatch("[a-z0-9][a-z0-9_-]*", name)]


UNUSED = {"load_model", "load_weights", "get_file", "urlretrieve", "extractall"}
UNUSED |= {"deserialize", "model_from_json", "model_from_config", "unpack_archive"}


def test_no_loader_that_runs_what_a_file_says_is_called():
    for folder in ("keras_seg", "tools", "datasets", "ablations"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                    assert name not in UNUSED, f"{path}:{node.lineno}"
                    if name == "load":
                        owner = getattr(node.func, "value", None)
                        assert getattr(owner, "id", "") != "yaml", path


# Keras' own formats: what its versions once let through


@pytest.fixture
def canary(tmp_path):
    return tmp_path / "canary"


def saved(folder: Path) -> Path:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="dense")])
    model.save(folder / "model.keras")
    return folder / "model.keras"


def rewrite(path: Path, name: str, change) -> Path:
    """The archive with one member changed."""
    with zipfile.ZipFile(path) as archive:
        members = {n: archive.read(n) for n in archive.namelist()}
    members[name] = change(members[name])
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return path


def with_dense(folder: Path, change) -> Path:
    """A model whose dense layer's entry in config.json is changed."""

    def edit(content):
        config = json.loads(content)
        change(config["config"]["layers"][1])
        return json.dumps(config).encode()

    return rewrite(saved(folder), "config.json", edit)


def with_weights(folder: Path, change) -> Path:
    """A model whose kernel in the HDF5 file of weights is changed."""

    def edit(content):
        file = io.BytesIO(content)
        with h5py.File(file, "r+") as opened:
            variables = opened["layers/dense/vars"]
            del variables["0"]
            change(variables)
        return file.getvalue()

    return rewrite(saved(folder), "model.weights.h5", edit)


def function(module: str, name: str) -> dict:
    return {
        "module": module,
        "class_name": "function",
        "config": name,
        "registered_name": name,
    }


def as_activation(module: str, name: str):
    def change(layer):
        layer["config"]["activation"] = function(module, name)

    return lambda folder, canary: with_dense(folder, change)


def as_layer(module: str, class_name: str, **config):
    def change(layer):
        layer.update(module=module, class_name=class_name, registered_name=None)
        layer["config"] = {"name": "dense", **config}

    return lambda folder, canary: with_dense(folder, change)


def with_lambda(suffix: str):
    def make(folder, canary):
        place = str(canary)
        touch = keras.layers.Lambda(lambda x: [x, os.makedirs(place)][0])
        model = keras.Sequential([keras.Input((4,)), touch])
        model.save(folder / f"lambda{suffix}")
        canary.rmdir()  # it ran when the model was built
        return folder / f"lambda{suffix}"

    return make


def huge_kernel(variables):
    variables.create_dataset("0", (1 << 40, 3), "float32", chunks=(1024, 3))


def linked_kernel(variables):
    variables["0"] = h5py.ExternalLink("elsewhere.h5", "/kernel")


def external_kernel(variables):
    place = [(str(Path(__file__)).encode(), 0, 48)]
    variables.create_dataset("0", (4, 3), "float32", external=place)


KERAS_FILES = {
    "Lambda": with_lambda(".keras"),
    "Lambda in HDF5": with_lambda(".h5"),
    "os.system": as_activation("os", "system"),
    "eval": as_activation("builtins", "eval"),
    "get_file": as_activation("keras.utils", "get_file"),
    "switch the safe mode off": as_activation(
        "keras.config", "enable_unsafe_deserialization"
    ),
    "vocabulary file": as_layer(
        "keras.layers", "StringLookup", vocabulary=__file__, mask_token=None
    ),
    "SavedModel": as_layer("keras.layers", "TFSMLayer", filepath="elsewhere"),
    "layer name": lambda folder, canary: with_dense(
        folder, lambda layer: layer["config"].update(name="../../dense")
    ),
    "shape bomb": lambda folder, canary: with_weights(folder, huge_kernel),
    "link": lambda folder, canary: with_weights(folder, linked_kernel),
    "external data": lambda folder, canary: with_weights(folder, external_kernel),
}


REASONS = {
    "Lambda": "arbitrary code execution",
    "Lambda in HDF5": "arbitrary code execution",
    "os.system": "Full object config: .*'module': '(os|builtins)'",
    "eval": "Full object config: .*'module': '(os|builtins)'",
    "get_file": "not a modeling function",
    "switch the safe mode off": "not a modeling function",
    "vocabulary file": "Vocabulary file",
    "SavedModel": "arbitrary code execution",
    "layer name": "cannot contain character `/`",
    "shape bomb": "shape bomb",
    "link": "ExternalLink",
    "external data": "external Dataset",
}


@pytest.mark.parametrize("name", KERAS_FILES)
def test_keras_refuses_what_it_once_accepted(name, tmp_path, canary):
    path = KERAS_FILES[name](tmp_path, canary)
    before = sorted(tmp_path.parent.rglob("*"))
    with pytest.raises((ValueError, TypeError), match=REASONS[name]):
        keras.saving.load_model(path)
    assert not canary.exists()
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_keras_refuses_a_lambda_outside_of_files(tmp_path, canary):
    path = with_lambda(".keras")(tmp_path, canary)
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
    with pytest.raises(ValueError, match="safe"):
        keras.layers.deserialize(config["config"]["layers"][1])
    with pytest.raises(ValueError, match="safe"):
        keras.models.model_from_json(json.dumps(config))
    assert not canary.exists()


def test_members_of_an_archive_do_not_leave_it(tmp_path):
    path = saved(tmp_path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../escaped", "x")
        archive.writestr("assets/../../escaped", "x")
    before = sorted(tmp_path.parent.rglob("*"))
    with pytest.warns(UserWarning, match="Skipping invalid path"):
        keras.saving.load_model(path)
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_the_unchanged_file_is_loaded(tmp_path):
    model = keras.saving.load_model(with_dense(tmp_path, lambda layer: None))
    assert model.output_shape == (None, 3)
