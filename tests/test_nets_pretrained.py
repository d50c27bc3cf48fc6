"""Published weights from files: every layout, and what is said of a wrong file."""

import json
import subprocess
import sys

import h5py
import keras
import numpy as np
import pytest
from outlines import outline

from keras_seg import nets
from keras_seg.errors import UsageError
from keras_seg.nets import pretrained

RNG = np.random.default_rng(0)
ICNET_PARAMETERS = {
    "kernel": "weights",
    "bias": "biases",
    "gamma": "scale",
    "beta": "offset",
    "moving_mean": "mean",
    "moving_variance": "variance",
}


def random_like(weight):
    return RNG.uniform(0.1, 1, weight.shape).astype("float32")


def value(model, path):
    return np.asarray(next(w for w in model.weights if w.path == path))


@pytest.fixture(scope="module")
def icnet():
    return nets.build("icnet", (32, 32, 3), 19)


@pytest.fixture(scope="module")
def icnet_arrays(icnet):
    """{layer: {parameter: array}} as in hellochick's files."""
    arrays = {}
    for weight in icnet.weights:
        layer, parameter = weight.path.split("/")
        arrays.setdefault(layer, {})[ICNET_PARAMETERS[parameter]] = random_like(weight)
    return arrays


def save_npz(path, arrays):
    flat = {f"{la}/{p}": a for la, params in arrays.items() for p, a in params.items()}
    np.savez(path, **flat)
    return path


def test_icnet_loads_every_weight_by_name(icnet, icnet_arrays, tmp_path):
    path = save_npz(tmp_path / "icnet.npz", icnet_arrays)
    assert pretrained.load(icnet, "icnet", path) == []
    for weight in icnet.weights:
        layer, parameter = weight.path.split("/")
        expected = icnet_arrays[layer][ICNET_PARAMETERS[parameter]]
        np.testing.assert_array_equal(weight, expected, err_msg=weight.path)


def test_icnet_keeps_its_classifiers_for_other_classes(icnet_arrays, tmp_path):
    model = nets.build("icnet", (32, 32, 3), 25)
    before = value(model, "conv6_cls/kernel")
    path = save_npz(tmp_path / "icnet.npz", icnet_arrays)
    kept = pretrained.load(model, "icnet", path)
    assert sorted(kept) == ["conv6_cls", "sub24_out", "sub4_out"]
    np.testing.assert_array_equal(value(model, "conv6_cls/kernel"), before)
    np.testing.assert_array_equal(
        value(model, "conv5_3_3x3/kernel"), icnet_arrays["conv5_3_3x3"]["weights"]
    )


def test_doubled_icnet_names_the_first_weight_that_differs(icnet_arrays, tmp_path):
    model = nets.build("icnet", (32, 32, 3), 19, filter_scale=2)
    before = value(model, "conv3_1_1x1_proj/kernel")
    path = save_npz(tmp_path / "icnet.npz", icnet_arrays)
    message = (
        r"conv1_1_3x3_s2/weights in init weights .*icnet.npz: shape \(3, 3, 3, 32\); "
        r"expected \(3, 3, 3, 64\), that of icnet's conv1_1_3x3_s2/kernel"
    )
    with pytest.raises(UsageError, match=message):
        pretrained.load(model, "icnet", path)
    np.testing.assert_array_equal(value(model, "conv3_1_1x1_proj/kernel"), before)


def test_missing_weight_is_named(icnet, icnet_arrays, tmp_path):
    arrays = {k: v for k, v in icnet_arrays.items() if k != "conv4_6_1x1_increase_bn"}
    path = save_npz(tmp_path / "icnet.npz", arrays)
    with pytest.raises(UsageError, match="icnet.npz: no conv4_6_1x1_increase_bn/scale"):
        pretrained.load(icnet, "icnet", path)


def test_pickled_npy_is_refused_with_the_line_that_converts_it(
    icnet, icnet_arrays, tmp_path
):
    path = tmp_path / "icnet.npy"
    np.save(path, icnet_arrays, allow_pickle=True)
    with pytest.raises(UsageError, match="may hold a pickle") as refused:
        pretrained.load(icnet, "icnet", path)
    assert "\n" not in str(refused.value)
    _, _, code = str(refused.value).partition(' -c "')
    subprocess.run([sys.executable, "-c", code.removesuffix('"')], check=True)
    assert pretrained.load(icnet, "icnet", path.with_suffix(".npz")) == []


VGG16 = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))


def vgg16_arrays():
    """{layer: [kernel, bias]} of VGG16's convolutions."""
    arrays, inputs = {}, 3
    for stage, (repeats, outputs) in enumerate(VGG16, 1):
        for i in range(1, repeats + 1):
            arrays[f"block{stage}_conv{i}"] = [
                RNG.normal(size=(3, 3, inputs, outputs)).astype("float32"),
                RNG.normal(size=outputs).astype("float32"),
            ]
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


@pytest.mark.parametrize("name", ["segnet", "fcn", "fcn_attention"])
def test_vgg16_encoder_from_the_older_layout(name, tmp_path):
    arrays = vgg16_arrays()
    path = save_legacy_h5(tmp_path / "vgg16_notop.h5", arrays)
    model = nets.build(name, (32, 32, 3), 4, **({"fc": 8} if name == "fcn" else {}))
    kept = pretrained.load(model, name, path)
    for stage, (repeats, _) in enumerate(VGG16, 1):
        for i in range(1, repeats + 1):
            layer = model.get_layer(f"enc{stage}_conv{i}")
            for weight, array in zip(layer.weights, arrays[f"block{stage}_conv{i}"]):
                np.testing.assert_array_equal(weight, array, err_msg=layer.name)
            assert layer.name not in kept
    assert {"segnet": "classifier", "fcn": "score"}.get(name, "enc1_down") in kept


def test_vgg16_encoder_from_keras_3_weights(tmp_path):
    vgg16 = keras.applications.VGG16(weights=None, include_top=False)
    path = tmp_path / "vgg16.weights.h5"
    vgg16.save_weights(path)
    model = nets.build("segnet", (32, 32, 3), 4)
    pretrained.load(model, "segnet", path)
    for ours, theirs in (
        ("enc1_conv1", "block1_conv1"),
        ("enc5_conv3", "block5_conv3"),
    ):
        for a, b in zip(model.get_layer(ours).weights, vgg16.get_layer(theirs).weights):
            np.testing.assert_array_equal(a, b)


def test_fcn_takes_the_dense_layers_as_convolutions(tmp_path):
    arrays = vgg16_arrays()
    # fc1 sees the 7x7x512 maps flattened row by row.
    arrays["fc1"] = [RNG.normal(size=(25088, 16)).astype("float32"), np.zeros(16, "f4")]
    arrays["fc2"] = [RNG.normal(size=(16, 16)).astype("float32"), np.ones(16, "f4")]
    model = nets.build("fcn", (32, 32, 3), 4, fc=16)
    path = save_legacy_h5(tmp_path / "vgg16.h5", arrays)
    pretrained.load(model, "fcn", path)
    kernel = value(model, "fc6/kernel")
    row, column, channel = 2, 5, 77
    np.testing.assert_array_equal(
        kernel[row, column, channel],
        arrays["fc1"][0][(row * 7 + column) * 512 + channel],
    )
    np.testing.assert_array_equal(value(model, "fc7/bias"), np.ones(16))


@pytest.mark.parametrize("suffix", [".h5", ".weights.h5"])
def test_resnet50_encoder(suffix, tmp_path):
    resnet50 = keras.applications.ResNet50(weights=None, include_top=False)
    for weight in resnet50.weights:
        if not weight.path.endswith("kernel"):
            weight.assign(random_like(weight))
    path = tmp_path / f"resnet50{suffix}"
    if suffix == ".h5":
        layers = {
            layer.name: [np.asarray(weight) for weight in layer.weights]
            for layer in resnet50.layers
            if layer.weights
        }
        save_legacy_h5(path, layers)
    else:
        resnet50.save_weights(path)
    model = nets.build("fcn_resnet50", (32, 32, 3), 4)
    kept = pretrained.load(model, "fcn_resnet50", path)
    assert sorted(kept) == ["conv_final"] + sorted(f"deconv{i}" for i in range(6, 11))
    image = RNG.normal(size=(1, 32, 32, 3)).astype("float32")
    np.testing.assert_array_equal(
        model.get_layer("resnet50")(image), resnet50(image, training=False)
    )


def torchvision_names():
    """{name: shape} of torchvision's resnet34, counters of batches included."""
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
        shapes[f"{norm}.num_batches_tracked"] = ()
    return shapes | {"fc.weight": (1000, 512), "fc.bias": (1000,)}


def torchvision_arrays():
    return {
        name: np.array(7, "int64")
        if name.endswith("tracked")
        else RNG.uniform(0.1, 1, shape).astype("float32")
        for name, shape in torchvision_names().items()
    }


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
    return path


def check_resnet34(model, arrays):
    for ours, theirs in (
        ("conv1/kernel", "conv1.weight"),
        ("layer3_5_conv2/kernel", "layer3.5.conv2.weight"),
        ("layer2_0_downsample_0/kernel", "layer2.0.downsample.0.weight"),
    ):
        expected = arrays[theirs].transpose(2, 3, 1, 0)
        np.testing.assert_array_equal(value(model, ours), expected)
    for ours, theirs in (
        ("bn1/gamma", "bn1.weight"),
        ("layer1_2_bn2/beta", "layer1.2.bn2.bias"),
        ("layer4_0_downsample_1/moving_mean", "layer4.0.downsample.1.running_mean"),
        ("layer4_2_bn1/moving_variance", "layer4.2.bn1.running_var"),
    ):
        np.testing.assert_array_equal(value(model, ours), arrays[theirs])


def test_resnet34_encoder_from_safetensors_when_the_net_is_built(tmp_path):
    arrays = torchvision_arrays()
    path = save_safetensors(tmp_path / "resnet34.safetensors", arrays)
    model = nets.build("fcn_resnet34", (32, 32, 3), 4, weights=str(path))
    check_resnet34(model, arrays)


@pytest.mark.peers
def test_resnet34_encoder_from_a_state_dict(tmp_path):
    torch = pytest.importorskip("torch")
    arrays = torchvision_arrays()
    path = tmp_path / "resnet34.pth"
    torch.save({name: torch.tensor(array) for name, array in arrays.items()}, path)
    model = nets.build("fcn_resnet34", (32, 32, 3), 4)
    kept = pretrained.load(model, "fcn_resnet34", path)
    check_resnet34(model, arrays)
    assert sorted(kept) == ["classifier"] + [f"dec{i}_deconv" for i in range(1, 6)]


@pytest.mark.peers
def test_pth_that_runs_a_program_is_refused_and_runs_nothing(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "resnet34.pth"
    torch.save({"conv1.weight": _Program(tmp_path / "ran")}, path)
    model = nets.build("fcn_resnet34", (32, 32, 3), 4)
    with pytest.raises(UsageError, match="resnet34.pth: cannot be read"):
        pretrained.load(model, "fcn_resnet34", path)
    assert not (tmp_path / "ran").exists()


class _Program:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return type(self.path).touch, (self.path,)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("icnet", "weights.npz"),
        ("segnet", "weights.h5"),
        ("segnet", "weights.weights.h5"),
        ("fcn_resnet34", "weights.safetensors"),
        pytest.param("fcn_resnet34", "weights.pth", marks=pytest.mark.peers),
    ],
)
@pytest.mark.parametrize("content", [b"", b"not weights at all" * 10])
def test_file_of_another_kind_is_one_clear_line(name, file, content, tmp_path):
    if file.endswith(".pth"):
        pytest.importorskip("torch")
    path = tmp_path / file
    path.write_bytes(content)
    model = None  # the file is read before any weight is touched
    with pytest.raises(UsageError, match=f"init weights .*{file}: cannot be read"):
        pretrained.load(model, name, path)


@pytest.fixture(scope="module")
def segnet():
    return outline("segnet", (32, 32), 3)


def legacy_h5(file, names=("block1_conv1",), weights=("kernel:0", "bias:0")):
    """The layer's group of a file with the older layout."""
    file.attrs["layer_names"] = [name.encode() for name in names]
    group = file.create_group(names[0])
    group.attrs["weight_names"] = [name.encode() for name in weights]
    return group


def weight_is_a_group(file):
    legacy_h5(file).create_group("kernel:0")


def layers_is_an_array(file):
    file["layers"] = np.zeros(3)


def layer_is_an_array(file):
    file.attrs["layer_names"] = [b"block1_conv1"]
    file["block1_conv1"] = np.zeros(3)


def names_are_a_number(file):
    file.attrs["layer_names"] = 3


def names_are_numbers(file):
    file.attrs["layer_names"] = [3, 4]


def soft_link(file):
    group = legacy_h5(file)
    group["other"] = np.zeros((3, 3, 3, 64), "float32")
    group["kernel:0"] = h5py.SoftLink("/block1_conv1/other")


def external_link(file):
    legacy_h5(file)["kernel:0"] = h5py.ExternalLink("other.h5", "/secret")


def linked_layer(file):
    file.attrs["layer_names"] = [b"block1_conv1"]
    file["block1_conv1"] = h5py.ExternalLink("other.h5", "/")


def linked_layers(file):
    file["layers"] = h5py.ExternalLink("other.h5", "/")


def external_storage(file):
    external = [("other.bin", 0, 3 * 3 * 3 * 64 * 4)]
    legacy_h5(file).create_dataset(
        "kernel:0", (3, 3, 3, 64), "float32", external=external
    )


def virtual_array(file):
    layout = h5py.VirtualLayout((3, 3, 3, 64), "float32")
    layout[:] = h5py.VirtualSource("other.h5", "secret", (3, 3, 3, 64))
    legacy_h5(file).create_virtual_dataset("kernel:0", layout)


@pytest.mark.parametrize(
    ("write", "detail"),
    [
        (weight_is_a_group, "kernel:0 is no array"),
        (layers_is_an_array, "layers is no group"),
        (layer_is_an_array, "block1_conv1 is no group"),
        (names_are_a_number, "not iterable"),
        (names_are_numbers, "no attribute 'split'"),
        (soft_link, "kernel:0 is a link"),
        (external_link, "kernel:0 is a link"),
        (linked_layer, "block1_conv1 is a link"),
        (linked_layers, "layers is a link"),
        (external_storage, "kernel:0 lies in another file"),
        (virtual_array, "kernel:0 lies in another file"),
    ],
)
def test_hdf5_of_another_layout_is_one_clear_line(segnet, write, detail, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["secret"] = np.zeros((3, 3, 3, 64), "float32")
    (tmp_path / "other.bin").write_bytes(bytes(3 * 3 * 3 * 64 * 4))
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w") as file:
        write(file)
    message = rf"init weights .*weights.h5: cannot be read \(.*{detail}"
    with pytest.raises(UsageError, match=message) as refused:
        pretrained.load(segnet, "segnet", path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("shape", "dtype", "detail"),
    [
        # 4 TiB of zeros that take no place in the file
        ((2**40,), "float32", r"shape \(1099511627776,\); expected \(3, 3, 3, 64\)"),
        ((3, 3, 3, 64), "S3", r"\|S3; expected numbers"),
    ],
)
def test_hdf5_array_is_not_read_before_it_is_known_to_fit(
    segnet, shape, dtype, detail, tmp_path
):
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w") as file:
        group = legacy_h5(file)
        group.create_dataset("kernel:0", shape, dtype, chunks=True)
        group["bias:0"] = np.zeros(64, "float32")
    message = f"block1_conv1/kernel in init weights .*weights.h5: {detail}"
    with pytest.raises(UsageError, match=message):
        pretrained.load(segnet, "segnet", path)


def test_hdf5_arrays_that_the_net_lacks_are_not_read(tmp_path):
    arrays = vgg16_arrays()
    path = save_legacy_h5(tmp_path / "vgg16.h5", arrays)
    with h5py.File(path, "a") as file:
        group = legacy_h5(file, ("fc1", *arrays))
        group.create_dataset("kernel:0", (2**40,), "float32", chunks=True)
        group["bias:0"] = np.zeros(16, "float32")
    model = nets.build("segnet", (32, 32, 3), 3)
    assert "enc1_conv1" not in pretrained.load(model, "segnet", path)


@pytest.mark.parametrize(
    ("header", "detail"),
    [
        (b"[" * 100_000, ".*recursion"),
        (
            b'{"conv1.weight": {"dtype": "BF16", "shape": [1], "data_offsets": [0,2]}}',
            "conv1.weight is BF16, not one of F64, F32, F16, I64",
        ),
        (
            b'{"conv1.weight": {"dtype": "F32", "shape": [1000000000000000000000000], '
            b'"data_offsets": [0, 0]}}',
            "",
        ),
        (b'{"conv1.weight": [3]}', ""),
        (b"[]", ""),
    ],
)
def test_safetensors_of_another_kind_is_one_clear_line(header, detail, tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    model = None  # the file is read before any weight is touched
    message = rf"init weights .*weights.safetensors: cannot be read \({detail}"
    with pytest.raises(UsageError, match=message) as refused:
        pretrained.load(model, "fcn_resnet34", path)
    assert "\n" not in str(refused.value)


def test_missing_file_is_named(icnet, tmp_path):
    with pytest.raises(UsageError, match="init weights: .*no.npz; expected a file"):
        pretrained.load(icnet, "icnet", tmp_path / "no.npz")


def test_net_without_published_weights_names_those_that_have(tmp_path):
    with pytest.raises(UsageError, match="unet.* expected one of the nets icnet, seg"):
        pretrained.load(None, "unet", tmp_path)
