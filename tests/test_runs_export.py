"""Exports: what they predict without this code, what is refused, what is replaced."""

import errno
import json
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import export as command
import miniature_net
import miniatures
import numpy as np
import pytest
from random_runs import build, expected_logits, keep_as_run

from keras_seg import backend, nets, preprocess, storage
from keras_seg.config import Config
from keras_seg.data.writer import NewSample, Options, write_prepared
from keras_seg.errors import LockedError, StorageError, UsageError
from keras_seg.labels import LabelSpec
from keras_seg.runs import engines
from keras_seg.runs import export as exporting
from keras_seg.runs import folder as run_folder
from keras_seg.runs.export import export

ROOT = Path(__file__).resolve().parents[1]
with miniature_net.known():
    DIRECT = Config(
        net={"name": miniature_net.NAME, "preprocess": "bgr_minus_mean"},
        data={"size": (24, 40)},
        loss={"weights": "w1", "strategy": "direct", "direct_at_inference": True},
        validation={"batch": 2},
        steps=1,
    )
CONFIGS = {
    "direct": DIRECT,
    "padded": Config(
        net={
            "name": "hourglass",
            "preprocess": "imagenet",
            **{"stacks": 2, "depth": 1, "features": 8, "stem": 4, "stem_stride": 2}
            | {"targets": "hierarchy", "joints": 24, "remat": True, "dropout": 0.2},
        },
        data={"size": (21, 37), "pad": True},
        steps=1,
        precision="mixed_bfloat16",
    ),
}

# As if neither were installed: every model, one image alone and all of them at once.
TENSORFLOW_ONLY = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("keras", "keras_seg", "tf_keras"):
            return None
        return self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
import numpy as np
import tensorflow as tf

found = {}
for name, folder, images in zip(*[iter(sys.argv[2:])] * 3):
    images = tf.constant(np.load(images))
    predict = tf.saved_model.load(folder).signatures["serving_default"]
    for key, batch in (("one", images[1:2]), ("all", images)):
        for output, value in predict(image=batch).items():
            found[f"{name}_{key}_{output}"] = value.numpy()
for name in ("keras", "keras_seg"):
    assert name not in sys.modules
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    sys.exit(f"{name} is there")
np.savez(sys.argv[1], **found)
"""


@pytest.fixture(scope="module", autouse=True)
def _miniature():
    with miniature_net.known():
        yield


@pytest.fixture(scope="module")
def body(tmp_path_factory):
    """A prepared folder of 25 classes, 24 x 40 px, with one validation image."""
    palette = tuple((10 * k, 255 - 10 * k, k) for k in range(25))
    labels = LabelSpec(tuple(f"part{k}" for k in range(25)), palette)
    rng = np.random.default_rng(3)
    samples = [
        NewSample(
            split,
            f"{split}{k}",
            miniatures.photo(rng, (24, 40)),
            miniatures.blobs(rng, (24, 40), range(25)),
        )
        for split, k in (("train", 0), ("train", 1), ("val", 0))
    ]
    out = tmp_path_factory.mktemp("data") / "body"
    write_prepared(out, "body", labels, samples, lambda s: [s], Options(), {})
    return out


def expected_probabilities(run: Path, images: np.ndarray) -> np.ndarray:
    logits = expected_logits(run, images)
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


@pytest.fixture(scope="module")
def runs(shapes, body, tmp_path_factory):
    """{name: run folder} of `CONFIGS`."""
    folder = tmp_path_factory.mktemp("runs")
    backend.start(0, 2)
    for name, config in CONFIGS.items():
        keep_as_run(config, body if name == "padded" else shapes, folder / name)
    return {name: folder / name for name in CONFIGS}


@pytest.fixture(scope="module")
def exports(runs):
    """{name: the export's folder}."""
    return {name: export(run, threads=2, images=3) for name, run in runs.items()}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """{name: uint8 [3, H, W, 3]}: not those that the check has seen."""
    rng = np.random.default_rng(11)
    return {
        name: rng.integers(0, 256, (3, *config.data.size, 3)).astype("uint8")
        for name, config in CONFIGS.items()
    }


@pytest.fixture(scope="module")
def served(exports, images, tmp_path_factory):
    """What a process without Keras and without this code predicts."""
    folder = tmp_path_factory.mktemp("served")
    arguments = [str(folder / "served.npz")]
    for name, export_folder in exports.items():
        np.save(folder / f"{name}.npy", images[name])
        arguments += [name, str(export_folder), str(folder / f"{name}.npy")]
    command = [sys.executable, "-I", "-c", TENSORFLOW_ONLY, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return dict(np.load(folder / "served.npz"))


@pytest.mark.parametrize("name", CONFIGS)
def test_tensorflow_alone_predicts_what_the_network_does(name, runs, images, served):
    expected = expected_probabilities(runs[name], images[name])
    for key, wanted in (("one", expected[1:2]), ("all", expected)):
        found = served[f"{name}_{key}_probabilities"]
        ids = served[f"{name}_{key}_class_ids"]
        assert (found.dtype, ids.dtype) == (np.float32, np.uint8)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)
        assert ids.shape == wanted.shape[:3]
        two = np.sort(wanted, -1)[..., -2:]
        is_clear = two[..., 1] - two[..., 0] > 1e-4
        assert is_clear.mean() > 0.9
        np.testing.assert_array_equal(ids[is_clear], wanted.argmax(-1)[is_clear])
        assert len(np.unique(ids)) > 1


def test_the_record_says_what_the_model_is(exports, runs, shapes):
    record = exporting.read_record(exports["direct"])
    assert exports["direct"] == (runs["direct"] / "export" / "saved_model").resolve()
    assert record["classes"] == ["ground", "left", "right", "absent"]
    assert record["palette"][1] == [200, 30, 30]
    assert record["size"] == [24, 40]
    assert record["preprocess"] == "bgr_minus_mean"
    assert len(record["direct_weights"]) == 4
    assert record["run"] == run_folder.load_best(runs["direct"])[1]
    assert record["check"]["ids"] == ["val1", "val3", "val5"]  # of six: 1, 3, 5
    assert record["check"]["largest_difference"] <= 1e-5
    padded = exporting.read_record(exports["padded"])
    assert padded["direct_weights"] is None
    assert padded["step"] == 1
    assert padded["check"]["images"] == 1  # of one


def test_normalisation_is_that_of_training_to_the_bit():
    """Every grey level of every channel, as the graph computes it."""
    import tensorflow as tf

    assert preprocess.STANDARDS.keys() == preprocess.PREPROCESS.keys()
    greys = np.arange(256 * 3, dtype=np.uint8).reshape(16, 16, 3)
    greys = np.stack([greys, np.roll(greys, 85, 0)])
    for name in preprocess.PREPROCESS:
        standardise = tf.function(partial(exporting._standardise, name))
        found = standardise(tf.constant(greys)).numpy()
        np.testing.assert_array_equal(found, preprocess.apply(name, greys), name)


def digest(folder: Path) -> dict:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def wrong_model(folder, format, engine=None, threads=None):
    """Opened like any other, but it predicts another class everywhere."""
    right = open_export(folder, format, engine, threads)

    def serve(pixels):
        probabilities = 1 - right(pixels)[1]
        return probabilities.argmax(-1), probabilities

    return serve


open_export = engines.open_export


def full_disk(source, folder):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("what", ["wrong", "not whole"])
def test_a_model_that_is_wrong_or_not_whole_is_not_published(
    what, exports, runs, tmp_path, monkeypatch
):
    out = tmp_path / "model"
    shutil.copytree(exports["direct"], out)
    before = digest(out)
    message = "not predict what the network does on val3: prob.* Nothing was pub"
    if what == "wrong":
        monkeypatch.setattr(engines, "open_export", wrong_model)
    else:
        message = "model could not be written: No space left on device"
        full = exporting.Format(full_disk, "nothing")
        monkeypatch.setattr(exporting, "FORMATS", {"saved_model": full})
    with pytest.raises(StorageError, match=message):
        export(runs["direct"], out, threads=2, images=1)
    assert digest(out) == before
    assert list(tmp_path.iterdir()) == [out]


def test_a_disk_that_fills_while_tensorflow_writes_is_a_storage_error(
    runs, tmp_path, monkeypatch
):
    import tensorflow as tf

    def save(module, folder, **options):
        line = "{{node SaveV2}} part-0; No space left on device"
        raise tf.errors.ResourceExhaustedError(None, None, line)

    monkeypatch.setattr(tf.saved_model, "save", save)
    with pytest.raises(StorageError, match="written: No space left on device. Free"):
        export(runs["direct"], tmp_path / "model", threads=2)
    assert list(tmp_path.iterdir()) == []


def test_an_export_of_the_run_is_replaced_and_nothing_else(
    exports, runs, shapes, tmp_path, capsys
):
    run, out = runs["direct"], tmp_path / "model"
    shutil.copytree(exports["direct"], out)
    record = exporting.read_record(out)
    old = {"net": miniature_net.NAME, "preprocess": "bgr_minus_mean", "size": [24, 40]}
    old |= {"class_weights": "w1", "strategy": "direct", "direct_at_inference": True}
    old |= {"val_batch": 2, "steps": 1}
    of_format_1 = {"run": record["run"] | {"format": 1, "config": old}}
    changed = record | of_format_1 | {"classes": ["old"]}
    (out / exporting.RECORD).write_text(json.dumps(changed))
    arguments = [run, "--out", out, "--data", shapes, "--threads", 2, "--images", 3]
    assert command.main([*map(str, arguments)]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    number = r"\d\.\de[+-]\d\d"
    found = rf"exported: {out} \(3 images checked, largest difference {number}\)"
    assert re.fullmatch(found, line)
    assert exporting.read_record(out)["classes"] == record["classes"]
    assert list(tmp_path.iterdir()) == [out]
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"model holds notes\.txt, .* Name a new"):
        export(run, out, threads=2)
    with pytest.raises(UsageError, match="an export of another run"):
        export(run, exports["padded"], threads=2)
    for place in (tmp_path, run):
        with pytest.raises(UsageError, match="is no export"):
            export(run, place, threads=2)
    for place in (out / "notes.txt", out / "notes.txt" / "new"):
        with pytest.raises(UsageError, match="notes.txt is a file; name a folder"):
            export(run, place, threads=2)
    assert (out / "notes.txt").read_text() == "mine"


def test_what_a_killed_export_left_is_put_in_order(exports, runs, tmp_path):
    """Killed between the two renames: the earlier export is there again at once."""
    out, stage = tmp_path / "model", tmp_path / ".model.partial"
    (stage / "new").mkdir(parents=True)
    (stage / "old").mkdir()
    (stage / storage._OWNER).touch()
    check = {"images": 1, "largest_difference": 0.0}
    record = exporting.read_record(exports["direct"]) | {"check": check}
    record["run"] = record["run"] | {"data": record["run"]["data"] | {"manifest": "9"}}
    (stage / "old" / exporting.RECORD).write_text(json.dumps(record))
    with pytest.raises(UsageError, match="an export of another run"):
        export(runs["direct"], out, threads=2)
    assert exporting.read_record(out) == record
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_one_export_at_a_time(runs, tmp_path):
    with storage.lock(tmp_path / ".model.partial"), pytest.raises(LockedError):
        export(runs["direct"], tmp_path / "model", threads=2)


def test_the_data_are_those_of_the_run(runs, body, tmp_path):
    with pytest.raises(UsageError, match="body holds other data .* --data"):
        export(runs["direct"], tmp_path / "model", data=body, threads=2)
    moved = tmp_path / "run"
    moved.mkdir()
    (moved / "best").symlink_to(runs["direct"] / "best")
    (moved / "environment.json").write_text('{"data": "/nowhere"}')
    with pytest.raises(UsageError, match="/nowhere is not there.* --data"):
        export(moved, threads=2)
    with pytest.raises(UsageError, match="best checkpoint"):
        export(tmp_path / "none", threads=2)
    assert not (moved / "export").exists()


def test_other_formats_are_refused_before_tensorflow_is_imported(tmp_path):
    script = f"""
import sys
from keras_seg.__main__ import main
code = main(["export", {str(tmp_path)!r}, "--format", "jpeg"])
print(code, sorted({{"keras", "tensorflow"}} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True
    )
    assert done.stdout.strip() == "2 []"
    assert re.match("error: .*--format: .*jpeg.*choose from .*saved_model", done.stderr)
    with pytest.raises(UsageError, match="no export format 'jpeg'.*saved_model"):
        export(tmp_path, format="jpeg")


@pytest.mark.slow
@pytest.mark.parametrize("net", nets.NETS)
def test_every_network_is_exported_with_each_weight_once(net, shapes, tmp_path):
    config = Config(net=net, data={"size": nets.padded_size(net, (24, 40))}, steps=1)
    keep_as_run(config, shapes, tmp_path / "run")
    inference = nets.inference_model(build(config, num_classes=4))
    scalars = sum(int(np.prod(weight.shape)) for weight in inference.weights)
    folder = export(tmp_path / "run", threads=2, images=2)
    (stored,) = (folder / "variables").glob("variables.data-*")
    assert 4 * scalars <= stored.stat().st_size < 1.5 * 4 * scalars
    shutil.rmtree(tmp_path / "run")


def test_a_link_is_followed_before_the_work(runs, tmp_path, monkeypatch):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "model")
    seen = []

    def stop(*_):
        seen.extend(path.name for path in (tmp_path / "disk").iterdir())
        raise ZeroDivisionError

    monkeypatch.setattr(exporting.backend, "start", stop)
    with pytest.raises(ZeroDivisionError):
        exporting.export(runs["direct"], out=tmp_path / "link")
    assert seen == [".model.partial"]
    assert list((tmp_path / "disk").iterdir()) == []


def test_an_export_is_put_inside_a_mount_point_and_replaced_there(
    tmp_path, monkeypatch
):
    """The place is what is tried: no model is made."""
    monkeypatch.setattr(storage, "_mount_points", lambda: {str(tmp_path)})
    data = {"dataset": "x", "classes": ["a"], "manifest": "0"}
    config = {"net": {"name": "icnet"}, "data": {"size": [32, 64]}, "steps": 1}
    identity = {"format": 2, "config": config, "data": data}
    identity = run_folder.current_identity(identity, tmp_path)
    check = {"images": 1, "largest_difference": 0.0}

    def publish(content: str, who) -> None:
        with storage.publishing(
            tmp_path, lambda place: exporting._check_replaceable(place, who)
        ) as new:
            (new / "saved_model.pb").write_text(content)
            record = {"size": [32, 64], "check": check, "run": who}
            storage.write_json(new / exporting.RECORD, record)

    for content in ("first", "second"):
        publish(content, identity)
        assert (tmp_path / "saved_model.pb").read_text() == content
    other = identity | {"data": data | {"manifest": "1"}}
    with pytest.raises(UsageError, match="is an export of another run"):
        publish("third", other)
    assert (tmp_path / "saved_model.pb").read_text() == "second"
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UsageError, match=r"holds notes\.txt, which is of no export"):
        publish("third", identity)
