"""Exports of every format, opened as the how-to says by a process without the rest."""

import importlib.util
import multiprocessing
import re
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from random_runs import expected_logits, keep_as_run

import keras_seg
from keras_seg import backend, nets
from keras_seg.backend import winograd
from keras_seg.config import Config
from keras_seg.data.images import resize_image
from keras_seg.errors import UsageError
from keras_seg.runs import engines
from keras_seg.runs import export as exporting
from keras_seg.runs.export import FORMATS, export

ROOT = Path(__file__).resolve().parents[1]
# What a process that opens the format must do without
WITHOUT = {
    "saved_model": "keras tf_keras keras_seg",
    "keras": "keras_seg tf_keras",
    "onnx": "tensorflow keras keras_seg tf2onnx onnx openvino",
    "openvino": "tensorflow keras keras_seg tf2onnx onnx onnxruntime",
    "litert": "tensorflow keras keras_seg tf2onnx onnx",
}
EXACT = [name for name, format in FORMATS.items() if format.is_exact]
# Pooling with indices, a local response normalisation, weights on the logits
CONFIG = Config(
    net={"name": "segnet_basic", "preprocess": "bgr_minus_mean"},
    data={"size": (24, 40), "fit": "letterbox"},
    loss={"weights": "w1", "strategy": "direct", "direct_at_inference": True},
    steps=1,
)
BLOCK = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}.split():
            return None
        return self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""


def skip_unless_made(format):
    modules = [*FORMATS[format].modules, *needed(format)]
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed")


def needed(format):
    return [one.module for one in engines.ENGINES.values() if format in one.formats][:1]


def documented(name):
    """A block of Python of the how-to."""
    text = (ROOT / "docs" / "how-to" / "export.md").read_text()
    code = text.partition(f"<!-- {name} -->\n```python\n")[2].partition("```")[0]
    assert code
    return code


def probabilities(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


@pytest.fixture(scope="module")
def run(shapes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("work") / "runs" / "mine"
    backend.start(0, 2)
    keep_as_run(CONFIG, shapes, folder)
    return folder


@pytest.fixture(scope="module")
def photo():
    """uint8 [90, 60, 3] as people see it; the camera stores it lying."""
    small = np.random.default_rng(3).integers(0, 256, (9, 6, 3), np.uint8)
    return np.array(Image.fromarray(small).resize((60, 90), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def batch():
    return np.random.default_rng(4).integers(0, 256, (3, 24, 40, 3), np.uint8)


@pytest.mark.parametrize("format", EXACT)
def test_the_documented_code_predicts_with_the_runtime_alone(
    format, run, photo, batch, tmp_path
):
    skip_unless_made(format)
    export(run, format=format, threads=2, images=2)
    folder = run.parents[1]
    exif = Image.Exif()
    exif[274] = 6  # a quarter turn to the right
    lying = Image.fromarray(np.rot90(photo, 1).copy())
    lying.save(folder / "street.jpg", exif=exif, quality=100, subsampling=0)
    np.save(folder / "batch.npy", batch)
    picture = documented("picture").replace("(192, 256)", "(24, 40)")
    absent = WITHOUT[format]
    script = "\n".join(
        [
            BLOCK.format(absent=absent),
            picture,
            documented(format),
            documented("own size"),
            "one, images = result, np.load('batch.npy')",
            documented(format),
            f"assert not set(sys.modules) & set({absent.split()!r})",
            f"np.savez({str(tmp_path / 'found.npz')!r}, ids=ids, one=one['class_ids'],",
            "    of_one=one['probabilities'], all=result['probabilities'])",
        ]
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", script], capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "found.npz")
    with Image.open(folder / "street.jpg") as stored:
        upright = np.rot90(np.array(stored), -1)  # after the loss of JPEG
    assert upright.shape == (90, 60, 3)
    small = np.zeros((24, 40, 3), np.uint8)
    small[:, :16] = resize_image(upright.copy(), (24, 16))
    expected = probabilities(expected_logits(run, small[None]))
    atol = FORMATS[format].tolerance
    np.testing.assert_allclose(found["of_one"], expected, rtol=0, atol=atol)
    is_clear = np.diff(np.sort(expected, -1)[..., -2:])[..., 0] > 1e-3
    np.testing.assert_array_equal(found["one"][is_clear], expected.argmax(-1)[is_clear])
    several = probabilities(expected_logits(run, batch))
    np.testing.assert_allclose(found["all"], several, rtol=0, atol=atol)
    model = keras_seg.load(run / "export" / format)
    np.testing.assert_array_equal(model(folder / "street.jpg").shape, (90, 60))
    assert (model(folder / "street.jpg") == found["ids"]).mean() > 0.99
    record = exporting.read_record(run / "export" / format)
    assert (record["format"], record["flip_pairs"]) == (format, [[1, 2]])


def test_a_size_of_its_own(run, shapes, tmp_path):
    """Smaller than the run's, and no multiple of the network's stride."""
    folder = export(run, threads=2, images=2, size=(21, 37))
    assert folder == (run / "export" / "saved_model-21x37").resolve()
    record = exporting.read_record(folder)
    assert record["size"] == [21, 37]
    other = CONFIG.changed(data={"size": (21, 37), "pad": True})
    assert other.data.size == (21, 37)
    images = np.random.default_rng(0).integers(0, 256, (2, 21, 37, 3), np.uint8)
    _, found = engines.open_export(folder, "saved_model")(images)
    padded = np.zeros((2, 24, 40, 3), np.uint8)
    padded[:, :21, :37] = images
    assert found.shape == (2, 21, 37, 4)
    # Far from the padding, which is of value 0 after the normalisation, all is as at 24
    # by 40 only if the weights are the same.
    model = keras_seg.load(run, size=(21, 37))
    for image, expected in zip(images, found):
        np.testing.assert_allclose(model.probabilities(image), expected, atol=1e-4)


def test_an_export_keeps_tensorflows_convolutions(run, monkeypatch):
    """And is compared with them; a prediction with the run may use others."""
    used, convolve = [], winograd.convolve
    monkeypatch.setattr(backend, "processor", lambda: "AMD EPYC (avx avx2 fma)")
    monkeypatch.setattr(
        winograd, "convolve", lambda *two: used.append(two) or convolve(*two)
    )
    folder = export(run, threads=2, images=2, size=(64, 64))
    assert not used
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    _, exported = engines.open_export(folder, "saved_model")(images)
    model = keras_seg.load(run, size=(64, 64))
    for image, expected in zip(images, exported):
        np.testing.assert_allclose(model.probabilities(image), expected, atol=1e-3)
    assert used


def test_a_loaded_run_has_the_faster_operations_wherever_it_is_loaded(run, monkeypatch):
    """Not only where something has trained before."""
    replaced = []
    for module, name in (
        (backend.convolution, "replace"),
        (backend.operations, "normalise_in_one"),
    ):
        monkeypatch.setattr(module, name, lambda *_, name=name: replaced.append(name))
    keras_seg.load(run)
    assert replaced == ["replace", "normalise_in_one"]


@pytest.mark.parametrize("bins", [1, 2, 3, 6])
@pytest.mark.parametrize("size", [(6, 12), (4, 5), (10, 7), (3, 2)])
def test_pooling_of_exports_is_that_of_the_network(size, bins):
    x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype("float32")
    expected = np.empty((2, bins, bins, 3))
    for row, column in np.ndindex(bins, bins):
        top, bottom = row * size[0] // bins, -(-(row + 1) * size[0] // bins)
        left, right = column * size[1] // bins, -(-(column + 1) * size[1] // bins)
        expected[:, row, column] = x[:, top:bottom, left:right].mean((1, 2))
    found = np.asarray(exporting._pooled(bins, x))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_the_softmax_of_onnx_runs_over_pixels_one_after_the_other(run):
    """Where the classes come before the pixels, ONNX Runtime is 20 times as slow."""
    skip_unless_made("onnx")
    import onnx

    folder = export(run, format="onnx", threads=2, images=2)
    nodes = onnx.load(folder / "model.onnx").graph.node
    makers = {name: node.op_type for node in nodes for name in node.output}
    for kind in ("Softmax", "ArgMax"):
        (found,) = [node for node in nodes if node.op_type == kind]
        assert makers[found.input[0]] == "Reshape"


def test_a_missing_converter_is_named(run, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        exporting.importlib.util,
        "find_spec",
        lambda name: None if name == "tf2onnx" else find_spec(name),
    )
    with pytest.raises(UsageError, match=r"onnx needs tf2onnx, not .*keras_seg\[onnx"):
        export(run, format="onnx")


def test_what_cannot_be_converted_is_said(run, monkeypatch):
    def fail(source, folder):
        raise RuntimeError("no rule for Unpool\nand more")

    bad = exporting.Format(fail, "nothing", (), "onnx")
    monkeypatch.setattr(exporting, "FORMATS", {"onnx": bad, "keras": FORMATS["keras"]})
    with pytest.raises(UsageError, match=r"to onnx \(no rule for Unpool\).*keras"):
        export(run, format="onnx", threads=2)
    assert not (run / "export" / "onnx-x").exists()


# 8-bit integers


def counts(wrong):
    """int64 [N, 3, 2]: images of 100 pixels, of which so many are wrong in class 0."""
    rows = [[[50 - k, 50], [50, 50], [50 - k, 50 + k]] for k in wrong]
    return np.array(rows, np.int64)


def test_the_bound_of_a_loss_is_that_of_its_mean():
    none = counts([0] * 40)
    assert exporting.upper_bound(none, none) == 0
    assert exporting.upper_bound(counts([1] * 40), none) < 0
    # IoU of class 0: 48 of 50, of class 1: 50 of 52; the same of every image
    assert exporting.upper_bound(none, counts([2] * 40)) == pytest.approx(
        1 - (48 / 50 + 50 / 52) / 2
    )
    # Half of the images lose 4 pixels: the mean loss is the same, its bound is not. The
    # standard error of the share of such images is sqrt(0.25 / 40) = 0.079.
    mixed = exporting.upper_bound(none, counts([0, 4] * 20))
    worst = 4 * (0.5 + 1.645 * 0.079)
    expected = 1 - ((50 - worst) / 50 + 50 / (50 + worst)) / 2
    assert mixed == pytest.approx(expected, rel=0.06)


def test_integers_that_cost_too_much_are_not_published(run, monkeypatch):
    """The random network is sure of nothing, so 8 bits change many pixels."""
    skip_unless_made("onnx-int8")
    monkeypatch.setattr(exporting, "MOST_LOSS", -1.0)
    with pytest.raises(UsageError, match=r"loses -?\d.*95 % .* -100\.0 are allowed"):
        export(run, format="onnx-int8", threads=2)
    assert not (run / "export" / "onnx-int8").exists()
    monkeypatch.setattr(exporting, "MOST_LOSS", 1.0)
    folder = export(run, format="onnx-int8", threads=2)
    check = exporting.read_record(folder)["check"]
    assert check["images"] == 6
    assert check["miou_loss"] <= check["miou_loss_upper_bound"] < 1
    import onnx

    graph = onnx.load(folder / "model.onnx").graph
    kinds = {node.op_type for node in graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    int8 = [one for one in graph.initializer if one.data_type == onnx.TensorProto.INT8]
    assert len(int8) >= 4  # the kernels


# Every network


@pytest.mark.slow
@pytest.mark.parametrize("format", [name for name in EXACT if name != "saved_model"])
@pytest.mark.parametrize("net", nets.NETS)
def test_every_network_in_every_format(net, format, shapes, tmp_path):
    """Each in a process of its own: converters keep the weights they converted."""
    skip_unless_made(format)
    if (net, format) in NOT_CONVERTED:
        pytest.skip("documented as not converted")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        apart = pool.submit(converted, net, format, shapes, tmp_path / "run").result()
    assert apart <= FORMATS[format].tolerance


def converted(net, format, shapes, run):
    """The largest difference of an export of random weights from the network."""
    config = Config(net=net, data={"size": nets.padded_size(net, (24, 40))}, steps=1)
    # The residuals of the hourglass add up: its logits would reach 2,000.
    scales = (0.2, 0.6) if net == "hourglass" else (0.5, 1.5)
    keep_as_run(config, shapes, run, scales)
    record = exporting.read_record(export(run, format=format, threads=2, images=2))
    return record["check"]["largest_difference"]


# tf2onnx keeps too many copies of 134 million weights for 24 GB
NOT_CONVERTED = {("fcn", "onnx"), ("fcn", "openvino")}


def test_the_how_to_lists_every_format():
    text = (ROOT / "docs" / "how-to" / "export.md").read_text()
    listed = re.findall(r"^\| `(\w[\w-]*)` \|", text, re.MULTILINE)
    assert listed == list(FORMATS)
