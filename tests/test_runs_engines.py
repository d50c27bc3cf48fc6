"""Which engine opens what, and which is the fastest: measured once, kept, used."""

import json
import time

import miniatures
import pytest

from keras_seg import storage
from keras_seg.config import Config, to_dict
from keras_seg.errors import StorageError, UsageError
from keras_seg.runs import checkpoint, engines, export, fastest
from keras_seg.runs import folder as run_folder
from keras_seg.runs.engines import ENGINES, Engine

DATA = {"dataset": "shapes", "classes": ["a", "b"], "manifest": "0" * 64}


def test_an_engine_opens_its_formats_only(tmp_path):
    with pytest.raises(UsageError, match="openvino does not open .* for tensorflow"):
        engines.open_export(tmp_path, "saved_model", "openvino")
    with pytest.raises(UsageError, match="no engine 'abacus'. Engines: keras, .*auto"):
        engines.open_export(tmp_path, "onnx", "abacus")
    with pytest.raises(UsageError, match="the format 'jpeg', which nothing opens"):
        engines.open_export(tmp_path, "jpeg")


def test_a_runtime_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"onnxruntime, which .*'keras_seg\[onnx\]'"):
        engines.open_export(tmp_path, "onnx")


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "litert"])
def test_a_damaged_model_is_named(name, tmp_path):
    engine = ENGINES[name]
    pytest.importorskip(engine.module)
    for file in ("model.onnx", "model.xml", "model.tflite"):
        (tmp_path / file).write_bytes(b"no model")
    with pytest.raises(StorageError, match="cannot be opened: .* Export the run again"):
        engines.open_export(tmp_path, engine.formats[0], name)


@pytest.fixture
def run(tmp_path):
    """A run whose best weights are none; only its identity and step count here."""
    config = to_dict(Config(net="icnet", data={"size": (32, 64)}, steps=1))
    identity = {"format": 2, "config": config, "data": DATA}
    identity = json.loads(json.dumps(identity))
    checkpoint.save(tmp_path / "run" / "best", 7, {}, identity, 1)
    scores = miniatures.scores(0.5) | {"step": 7}
    storage.write_json(tmp_path / "run" / "metrics.json", scores)
    return tmp_path / "run"


@pytest.fixture
def measured(run, monkeypatch):
    """Engines that take some milliseconds; {name: how often they were opened}."""
    opened = {"quick": 0, "slow": 0, "native": 0}
    milliseconds = {"quick": 0, "slow": 20, "native": 5}

    def engine(name):
        def open(folder, threads):
            assert folder.is_dir()
            opened[name] += 1

            def serve(images):
                assert images.shape == (fastest.BATCH, 32, 64, 3)
                time.sleep(milliseconds[name] / 1000)

            return serve

        return Engine("json", (name,), "cpu", open)

    def write(run, format, data=None, threads=None):
        folder = run / "export" / format
        folder.mkdir(parents=True, exist_ok=True)
        step = storage.read_json(run / "metrics.json")["step"]
        identity = run_folder.load_best(run)[1]
        record = {"run": identity, "step": step, "format": format, "size": [32, 64]}
        record["check"] = {"images": 1, "largest_difference": 0.0}
        storage.write_json(folder / "export.json", record)
        return folder

    table = {"slow": engine("slow"), "quick": engine("quick")}
    monkeypatch.setattr(fastest, "ENGINES", table)
    monkeypatch.setattr(engines, "ENGINES", table)
    monkeypatch.setattr(export, "export", write)

    def native():
        opened["native"] += 1
        return lambda images: time.sleep(milliseconds["native"] / 1000)

    return opened, native, milliseconds


def test_the_fastest_engine_is_measured_once(run, measured, capsys):
    opened, native, _ = measured
    for _ in range(2):
        choice = fastest.choose(run, "auto", native)
        assert choice == fastest.Choice("quick", run / "export" / "quick")
    assert opened == {"quick": 1, "slow": 1, "native": 1}
    assert "quick" in capsys.readouterr().err
    (record,) = storage.read_json(run / "export" / "engines.json").values()
    assert record["fastest"] == "quick"
    assert record["ms_per_image"]["slow"] * fastest.BATCH >= 20


def test_other_weights_or_another_machine_are_measured_anew(run, measured, monkeypatch):
    opened, native, milliseconds = measured
    fastest.choose(run, "auto", native)
    milliseconds["quick"] = 30
    scores = miniatures.scores(0.5) | {"step": 8}
    storage.write_json(run / "metrics.json", scores)
    assert fastest.choose(run, "auto", native) is None  # Keras itself
    monkeypatch.setattr(fastest.backend, "processor", lambda: "another one")
    milliseconds["quick"] = 0
    assert fastest.choose(run, "auto", native).engine == "quick"
    assert opened["native"] == 3
    assert len(storage.read_json(run / "export" / "engines.json")) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"fastest": "unknown"},
        {"fastest": None},
        {"ms_per_image": {"quick": "fast"}},
        {"ms_per_image": None},
        {"exports": {"quick": "../../elsewhere"}},
        {"exports": []},
    ],
)
def test_times_that_were_edited_are_measured_anew(changes, run, measured):
    opened, native, _ = measured
    before = fastest.choose(run, "auto", native)
    path = run / "export" / "engines.json"
    ((machine, record),) = storage.read_json(path).items()
    storage.write_json(path, {machine: record | changes})
    assert fastest.choose(run, "auto", native) == before
    assert opened["native"] == 2
    path.write_text("{")
    with pytest.raises(StorageError, match="engines.json is damaged.* Delete it: the"):
        fastest.choose(run, "auto", native)


def test_eight_bits_of_earlier_weights_are_not_used(run, measured):
    _, native, _ = measured
    fastest.ENGINES["onnxruntime"] = fastest.ENGINES["quick"]
    export.export(run, "onnx-int8")
    measured_names = []
    for step in (7, 8):
        scores = miniatures.scores(0.5) | {"step": step}
        storage.write_json(run / "metrics.json", scores)
        fastest.choose(run, "auto", native)
        (record,) = storage.read_json(run / "export" / "engines.json").values()
        measured_names.append(set(record["ms_per_image"]))
    assert measured_names[0] - measured_names[1] == {"onnxruntime int8"}


def test_a_named_engine_is_not_measured(run, measured):
    opened, native, _ = measured
    choice = fastest.choose(run, "slow", native)
    assert choice == fastest.Choice("slow", run / "export" / "slow")
    assert opened == {"quick": 0, "slow": 0, "native": 0}


def test_every_engine_has_a_format_of_its_own():
    firsts = [engine.formats[0] for engine in ENGINES.values()]
    assert len(set(firsts)) == len(firsts)
    known = {name for engine in ENGINES.values() for name in engine.formats}
    assert known == set(export.FORMATS)
