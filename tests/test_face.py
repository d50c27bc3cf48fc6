"""The face of the package: the README's code, in every place where it has to work."""

import dataclasses
import re
import subprocess
import sys
import venv
from pathlib import Path

import keras
import miniature_net
import nbclient
import nbformat
import numpy as np
import pytest
from miniatures import photo, save
from miniatures import shapes as make_shapes

import keras_seg
from keras_seg import backend, nets
from keras_seg.ablation import grid, protocol
from keras_seg.config import Config
from keras_seg.errors import UsageError
from keras_seg.runs import face

ROOT = Path(__file__).resolve().parents[1]
NET = miniature_net.NAME


@pytest.fixture(scope="module", autouse=True)
def _miniature():
    with miniature_net.known():
        yield


@pytest.fixture(scope="module")
def readme_code() -> str:
    """The README's first Python block, shortened."""
    text = (ROOT / "README.md").read_text()
    code = text.partition("```python\n")[2].partition("```")[0]
    assert "keras_seg.open_data" in code
    assert "steps=2000" in code
    code = code.replace("steps=2000", "steps=1").replace("(192, 256)", "(16, 32)")
    code = code.replace("icnet", "segnet_basic").replace("batch=16", "batch=5")
    return (
        code + 'print("ids", ids.shape, ids.dtype, model.predict("street.jpg").shape)\n'
    )


@pytest.fixture
def place(tmp_path) -> Path:
    """A folder with what the README's code needs."""
    make_shapes(tmp_path / "datasets" / "prepared" / "camvid")
    save(photo(np.random.default_rng(1), (48, 70)), tmp_path / "street.jpg")
    return tmp_path


def check_results(place: Path) -> None:
    assert (place / "runs" / "mine" / "metrics.json").is_file()
    assert (
        place / "runs" / "mine" / "export" / "saved_model" / "export.json"
    ).is_file()


def test_the_readmes_code_runs_in_a_fresh_process(readme_code, place):
    command = [sys.executable, "-W", "error::DeprecationWarning:keras_seg"]
    done = subprocess.run(
        [*command, "-c", readme_code], cwd=place, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "(48, 70) uint8 (48, 70)" in done.stdout
    check_results(place)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Jupyter's own
def test_the_readmes_code_runs_in_a_notebook_where_tensorflow_was_used(
    readme_code, place
):
    first = "import tensorflow as tf\nint(tf.reduce_sum(tf.ones(3)))\n"
    first += f"import sys; sys.path.append({str(ROOT / 'tests')!r})\n"
    first += "import miniature_net; known = miniature_net.known(); known.__enter__()"
    code = readme_code.replace("segnet_basic", NET)
    cells = [nbformat.v4.new_code_cell(code) for code in (first, code)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    client = nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(place)}}
    )
    client.execute()
    outputs = [output.get("text", "") for output in notebook.cells[1].outputs]
    assert "(48, 70) uint8 (48, 70)" in "".join(outputs)
    check_results(place)


@pytest.mark.slow
def test_the_readmes_code_runs_with_only_the_wheel_and_tensorflow(readme_code, place):
    def call(*words):
        done = subprocess.run(words, cwd=place, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    options = ("--no-deps", "--no-build-isolation", "--wheel-dir", place / "wheel")
    call(sys.executable, "-m", "pip", "wheel", ROOT, *options)
    venv.create(place / "venv", with_pip=True)
    programs = place / "venv" / "bin"
    (wheel,) = (place / "wheel").iterdir()
    call(programs / "pip", "install", "--quiet", wheel, "tensorflow-cpu")
    assert "(48, 70) uint8" in call(programs / "python", "-I", "-c", readme_code)
    check_results(place)
    predict = ("predict", "runs/mine", "street.jpg", "--out", "predicted")
    assert "predicted: 1 picture," in call(programs / "keras-seg", *predict)
    assert "hourglass" in call(programs / "keras-seg", "summary")


def test_importing_the_package_imports_no_backend_and_sets_the_environment():
    script = """
import os, sys
import keras_seg
assert set(keras_seg.__all__) <= set(dir(keras_seg))
print(sorted({"keras", "tensorflow", "numpy"} & set(sys.modules)))
print(os.environ["KERAS_BACKEND"], os.environ["TF_ENABLE_ONEDNN_OPTS"])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["[]", "tensorflow 1"]


def test_every_name_of_the_face_is_a_documented_function():
    for name in keras_seg.__all__:
        function = getattr(keras_seg, name)
        assert callable(function), name
        assert function.__doc__, name
        assert "return" in function.__annotations__ or name == "predict", name
    assert not hasattr(keras_seg, "trian")


@pytest.fixture(scope="module")
def run(shapes, tmp_path_factory):
    """What `train` gives; the paths are strings, the settings parts."""
    return keras_seg.train(
        net=NET,
        data=str(shapes),
        size=(32, 64),
        batch=4,
        epochs=1,
        out=str(tmp_path_factory.mktemp("runs") / "run"),
        loss={"weights": "w1"},
        validation={"every": 2},
        seed=3,
        threads=2,
    )


def test_a_run_knows_its_settings_and_scores(run, shapes):
    assert run.config == Config(
        net=NET,
        data={"size": (32, 64), "batch": 4},
        augment={"swap_lr": False},  # settled: nothing is mirrored
        loss={"weights": "w1"},
        validation={"every": 2},
        seed=3,
        steps=3,  # 10 images, 4 a step
    )
    assert run.miou == run.metrics["summary"]["miou"]
    assert 0 <= run.miou <= 1
    assert [row["step"] for row in run.history] == [2, 3]
    assert (run.folder / "metrics.json").is_file()
    tested = keras_seg.evaluate(run, "test", threads=2)
    assert tested["images"] == 3


def test_a_finished_run_is_opened_by_the_same_call_and_by_its_config(run, shapes):
    given = {"data": keras_seg.open_data(shapes), "out": run.folder, "threads": 2}
    same = keras_seg.train(config=run.config, **given)
    assert same == run
    same = keras_seg.train(config=run.folder / "config.json", loss={}, **given)
    assert same == run
    with pytest.raises(UsageError, match="seed"):
        keras_seg.train(config=run.config, seed=4, **given)
    with pytest.raises(UsageError, match=r"augment\.balance is 0\.5, but 0\.0"):
        keras_seg.train(config=run.config, recipe="modern", **given)
    with pytest.raises(UsageError, match="size and steps must be given"):
        keras_seg.train(net="icnet", **given)
    with pytest.raises(UsageError, match="no setting 'los"):
        keras_seg.train(config=run.config, los={"weights": "w1"}, **given)


def test_own_photographs_keep_their_aspect_ratio_unless_told_otherwise(
    net, shapes, tmp_path, monkeypatch
):
    """In training, and in batches for a loop of one's own."""
    found = []

    def stop(config, *_):
        found.append(config.data.fit)
        raise UsageError("It begins.")

    monkeypatch.setattr("keras_seg.runs.train.train", stop)
    prepared = keras_seg.open_data(shapes)
    own = dataclasses.replace(prepared, dataset="folder")
    told = {"data": {"fit": "stretch"}}
    options = {"net": "hourglass", "size": (40, 40), "steps": 1, "out": tmp_path}
    for data, config in ((prepared, None), (own, None), (own, told)):
        with pytest.raises(UsageError, match="It begins"):
            keras_seg.train(data=data, config=config, **options)
    assert found == ["stretch", "letterbox", "stretch"]
    # 24 x 40 px in 32 x 64
    kinds = ((prepared, None, 64), (own, None, 53), (own, "stretch", 64))
    for data, fit, columns in kinds:
        (_, targets), *_ = keras_seg.batches(data, "val", net, batch=6, fit=fit)
        is_labelled = (np.asarray(targets["logits"]) != 255).any(axis=(0, 1))
        assert is_labelled.sum() == columns


def test_keras_keeps_the_dtype_policy_it_had(shapes, tmp_path):
    settings = {"net": NET, "data": {"size": (32, 64), "batch": 4}, "steps": 1}
    config = Config(**settings, precision="mixed_bfloat16")
    run = keras_seg.train(
        config=config,
        data=shapes,
        out=tmp_path / "run",
        threads=2,
        allow_inexact=True,  # slow without arithmetic for it
    )
    assert keras.config.dtype_policy().name == "float32"
    keras.config.set_dtype_policy("mixed_float16")
    try:
        keras_seg.export(run, threads=2, images=1)
        keras_seg.evaluate(run, threads=2)
        keras_seg.load(run)
        assert keras.config.dtype_policy().name == "mixed_float16"
    finally:
        keras.config.set_dtype_policy("float32")


def test_a_network_replaces_another_with_all_its_options(run):
    values = face.read_config(run.config)
    face.set_part(values, "net", "icnet")
    assert values["net"] == {"name": "icnet"}
    face.set_part(values, "net", {"bins": [1]})
    assert values["net"] == {"name": "icnet", "bins": [1]}


@pytest.fixture(scope="module")
def net(shapes):
    return keras_seg.build(NET, (32, 64), shapes)


def test_the_parts_fit(net, shapes):
    assert isinstance(net, keras.Model)
    assert net.output["logits"].shape[-1] == 4
    net.compile("adam", **keras_seg.compile_arguments(net))
    history = net.fit(
        keras_seg.batches(shapes, "train", net, batch=5, augment={"mirror": 0.5}),
        validation_data=keras_seg.batches(shapes, "val", net, batch=4),
        epochs=2,
        verbose=0,
    ).history
    assert np.isfinite(history["loss"]).all()
    assert 0 <= history["val_logits_miou"][-1] <= 1


def test_batches_pass_the_training_split_once_an_epoch_in_another_order(net, shapes):
    def images(dataset):
        return [image.tobytes() for batch, _ in dataset for image in batch.numpy()]

    training = keras_seg.batches(shapes, "train", net, batch=5)
    assert len(training) == 2
    first, second = images(training), images(training)
    assert len(set(first)) == 10
    assert set(first) == set(second)
    assert first != second
    again = keras_seg.batches(shapes, "train", net, batch=5)
    assert images(again) == first
    validation = keras_seg.batches(shapes, "val", net, batch=4)
    assert images(validation) == images(validation)
    assert len(images(validation)) == 6
    image, targets = next(iter(validation))
    assert (image.shape, image.dtype) == ((4, 32, 64, 3), "float32")
    assert 0 <= np.min(image) < np.max(image) <= 1  # the network's own normalisation
    assert targets.keys() == net.output.keys()
    assert set(np.unique(targets["logits"])) <= {0, 1, 2, 255}


def test_sizes_and_classes_may_be_numpys_numbers(shapes):
    size = np.array([32, 64])
    built = keras_seg.build("segnet_basic", size, np.int64(3))
    assert built.output["logits"].shape == (None, 32, 64, 3)
    values = {"size": tuple(size), "batch": np.int32(2)}
    assert Config(net="icnet", data=values, steps=np.int64(1)) == Config(
        net="icnet", data={"size": (32, 64), "batch": 2}, steps=1
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d, n: keras_seg.build("icnet", 64, d), "size is 64; it must be .hei"),
        (lambda d, n: keras_seg.build("icnet", ("a", 64), d), "height is 'a'"),
        (lambda d, n: keras_seg.build("icnet", (32, 64), None), "data is a NoneType"),
        (lambda d, n: keras_seg.batches(d, "train", n, batch=0), "batch is 0"),
        (lambda d, n: keras_seg.batches(d, "train", n, workers=0), "workers is 0"),
        (lambda d, n: keras_seg.batches(d, "train", n, seed=-1), "seed is -1"),
        (
            lambda d, n: keras_seg.batches(d, "train", n, augment={"foo": 1}),
            "no setting 'augment.foo'",
        ),
        (
            lambda d, n: keras_seg.batches(d, "train", n, augment="mirror"),
            "augment is 'mirror'; it must be an object",
        ),
        (
            lambda d, n: keras_seg.batches(d, "val", n, augment={"mirror": 0.5}),
            "augment changes the split train alone, not val",
        ),
        (
            lambda d, n: keras_seg.batches(
                d, "train", keras_seg.build("icnet", (32, 64), 2)
            ),
            "icnet was built for 2 classes, but .* has 4",
        ),
        (lambda d, n: train(d, net=n), "net is a Functional; name a network"),
        (lambda d, n: train(d, threads="x"), "threads is 'x'; it must be a whole"),
        (lambda d, n: train(d, workers=0), "workers is 0"),
        (lambda d, n: train(d, epochs="x"), "epochs is 'x'"),
        (lambda d, n: train(d, size=64), "data.size is 64; it must be 2 values"),
    ],
)
def test_odd_input_is_one_sentence(call, message, net, shapes):
    with pytest.raises(UsageError, match=message):
        call(shapes, net)


def train(data, **odd):
    given = {"net": "icnet", "size": (32, 64), "out": "nowhere"}
    steps = {} if "epochs" in odd else {"steps": 1}
    return keras_seg.train(**{"data": data, **given, **steps, **odd})


def test_batches_need_a_network_that_was_built_here(shapes):
    stranger = nets.build("segnet_basic", (24, 40, 3), 4)
    with pytest.raises(UsageError, match="segnet_basic was not made by keras_seg"):
        keras_seg.batches(shapes, "train", stranger)


def test_keras_opens_a_saved_network_after_importing_the_package(net, tmp_path):
    """Compiled or not, with layers, losses and metrics of its own."""
    net.save(tmp_path / "mine.keras")
    unpooling = keras_seg.build("segnet_basic", (32, 64), 4)
    unpooling.save(tmp_path / "segnet.keras")
    image = np.random.default_rng(0).random((1, 32, 64, 3), "float32")
    np.savez(
        tmp_path / "expected.npz",
        image=image,
        mine=net(image)["logits"],
        segnet=unpooling(image)["logits"],
    )
    script = """
import sys
import numpy as np
import keras_seg
import keras
assert "keras_seg.losses" not in sys.modules
expected = np.load("expected.npz")
for name in ("mine", "segnet"):
    model = keras.models.load_model(name + ".keras")
    logits = model(expected["image"])["logits"]
    np.testing.assert_allclose(logits, expected[name], rtol=1e-4, atol=1e-4)
assert model.layers
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_every_registered_class_has_a_stand_in():
    """Whoever registers a class adds it to the table."""
    pattern = r'register_keras_serializable\("keras_seg"\)\nclass (\w+)'
    found = {
        name: ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / "keras_seg").rglob("*.py")
        for name in re.findall(pattern, path.read_text())
    }
    assert backend.SAVED_CLASSES == found


def test_precision_is_decided_once_and_refused_where_it_is_slow(
    shapes, tmp_path, monkeypatch
):
    words = {"net": NET, "size": (32, 64), "batch": 4, "steps": 1, "threads": 2}
    slow, out = tmp_path / "slow", tmp_path / "run"
    monkeypatch.setattr(backend, "processor", lambda: "Model (avx2 sse4_1)")
    with pytest.raises(UsageError, match=r"slower .* Model \(avx2 .*precision=auto"):
        keras_seg.train(data=shapes, out=slow, precision="mixed_bfloat16", **words)
    assert not (slow / "config.json").exists()
    run = keras_seg.train(data=shapes, out=out, precision="auto", **words)
    assert run.config.precision == "float32"
    # On another machine it would be another run, which is said by name
    monkeypatch.setattr(backend, "processor", lambda: "Model (avx512_bf16 sse4_1)")
    with pytest.raises(UsageError, match="precision"):
        keras_seg.train(data=shapes, out=out, precision="auto", **words)


@pytest.mark.parametrize(
    ("flags", "expected"), [("avx2", "float32"), ("amx_bf16", "mixed_bfloat16")]
)
def test_an_arm_has_the_precision_of_the_machine(monkeypatch, flags, expected):
    monkeypatch.setattr(backend, "processor", lambda: f"Model ({flags})")
    base = Config(net="icnet", data={"size": (32, 64)}, steps=5)
    changed = protocol.with_settings(base, {"precision": "auto"})
    assert changed.precision == expected
    arm = protocol.Arm("a", "A", base.changed(precision="auto"))
    assert arm.config.precision == expected
    with pytest.raises(UsageError, match="auto is one of the others"):
        grid.parse("precision=float32,auto")
