"""Published weights: copies them into a network from a file that the user names.

| network | file |
|---|---|
| icnet (filter_scale 1) | hellochick/ICNet-tensorflow's weights, converted to `.npz` |
| segnet, fcn, fcn_attention | keras.applications' VGG16, `.h5` or `.weights.h5` |
| fcn_resnet50 | keras.applications' ResNet50, `.h5` or `.weights.h5` |
| fcn_resnet34 | torchvision's resnet34 state dict, `.safetensors` or `.pth` |
| unet_lite0 | EfficientNet-Lite0's state dict, as of the extra `pretrained` |

VGG16's weights were trained on BGR minus the mean, 0 to 255. That is what `segnet` is
fed; `fcn` and `fcn_attention` are fed it only with `--preprocess bgr_minus_mean`.

No file is unpickled: a `.pth` is read as data (`keras_seg.nets.state_dict`), and for a
pickled `.npy` the error states the command that converts it.
"""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path

import h5py
import keras
import numpy as np

from keras_seg import storage
from keras_seg.errors import UsageError
from keras_seg.nets import state_dict

Arrays = Mapping[str, np.ndarray]

ICNET_HEADS = ("conv6_cls", "sub24_out", "sub4_out")
ICNET_NAMES = {
    "kernel": "weights",
    "bias": "biases",
    "gamma": "scale",
    "beta": "offset",
    "moving_mean": "mean",
    "moving_variance": "variance",
}
TORCH_NAMES = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
# The order in which Keras writes the weights of a layer.
CONV_ORDER = ("kernel", "bias")
NORM_ORDER = ("gamma", "beta", "moving_mean", "moving_variance")

ICNET_CONVERSION = (
    "python -c \"import numpy as np; d = np.load('{0}.npy', allow_pickle=True, "
    "encoding='latin1').item(); np.savez('{0}.npz', **{{f'{{l}}/{{p}}': a "
    'for l, ps in d.items() for p, a in ps.items()}})"'
)


def load(model: keras.Model, name: str, path: str | Path) -> list[str]:
    """Copies a file's weights into the network, all of them or none.

    Args:
        model: a network from `nets.build(name, ...)`.
        name: the network's name in `NETS`.
        path: the file; see the table above.

    Returns:
        Names of the layers that have a kernel and keep their initial values: the
        decoder, and ICNet's classifiers if the number of classes differs.

    Raises:
        UsageError: no weights are published for this network; the file is missing or
            of another kind; a weight is missing or has another shape (the first such
            weight is named).
    """
    if name not in LOADERS:
        raise UsageError(
            f"No published weights are known for {name}, only for {', '.join(LOADERS)}."
        )
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"The weight file {path} does not exist.")
    with contextlib.ExitStack() as files:
        sources = LOADERS[name](model, path, files)
        values = [
            (weight, _value(name, path, weight, key, array))
            for weight, key, array in sources
        ]
    loaded = set()
    for weight, value in values:
        weight.assign(value)
        loaded.add(weight.path)
    return [
        weight.path.rsplit("/", 1)[0]
        for weight in model.weights
        if weight.path.endswith("/kernel") and weight.path not in loaded
    ]


def _value(name, path, weight, key, array):
    """The file's array for the weight, read only after its shape has been checked."""
    if array is None:
        raise UsageError(f"The weight file {path} lacks {key}, which {name} needs.")
    if array.shape != tuple(weight.shape):
        raise UsageError(
            f"{key} in the weight file {path} has shape {array.shape}, but {name}'s "
            f"{weight.path} has {tuple(weight.shape)}. The file is of another network "
            "or width."
        )
    if array.dtype.kind not in "fiu":
        raise UsageError(
            f"{key} in the weight file {path} is {array.dtype}, not numbers."
        )
    return _read(path, array)


def _read(path, array):
    try:
        return np.asarray(array)
    except OSError as error:
        raise _unreadable(path, "a Keras .h5 or .weights.h5", error) from None


# Each loader returns [(weight, its name in the file, array)]. HDF5 arrays are read
# later, so their open file goes into `files`.


def _icnet(model, path, files):
    arrays = _read_npz(path)
    sources = []
    for weight in model.weights:
        layer, parameter = weight.path.rsplit("/", 1)
        key = f"{layer}/{ICNET_NAMES[parameter]}"
        array = arrays.get(key)
        other_classes = array is None or array.shape != tuple(weight.shape)
        if layer not in ICNET_HEADS or not other_classes:
            sources.append((weight, key, array))
    return sources


def _vgg16(model, path, files):
    """Copies block<i>_conv<j> of the file to enc<i>_conv<j> of the network."""
    arrays = _read_keras_h5(path, files)
    sources = []
    for weight in model.weights:
        layer, parameter = weight.path.rsplit("/", 1)
        stage, _, conv = layer.partition("_conv")
        if stage.startswith("enc") and conv.isdigit():
            key = f"block{stage.removeprefix('enc')}_conv{conv}/{parameter}"
            sources.append((weight, key, arrays.get(key)))
    return sources


def _fcn(model, path, files):
    """VGG16, with its two dense layers as convolutions if the file has them too."""
    arrays = _read_keras_h5(path, files)
    sources = _vgg16(model, path, files)
    for layer, dense in (("fc6", "fc1"), ("fc7", "fc2")):
        kernel, bias = model.get_layer(layer).weights
        array = arrays.get(f"{dense}/kernel")
        if array is not None and array.size == np.prod(kernel.shape):
            array = _read(path, array).reshape(tuple(kernel.shape))
            sources.append((kernel, f"{dense}/kernel", array))
            sources.append((bias, f"{dense}/bias", arrays.get(f"{dense}/bias")))
    return sources


def _resnet50(model, path, files):
    arrays = _read_keras_h5(path, files)
    encoder = model.get_layer("resnet50")
    return [(w, key := w.path, arrays.get(key)) for w in encoder.weights]


def _resnet34(model, path, files):
    """Copies layer1.0.conv1 of the file to layer1_0_conv1 of the network, and so on."""
    arrays = _read_torch(path)
    sources = []
    for weight in model.weights:
        layer, parameter = weight.path.rsplit("/", 1)
        if layer.startswith(("conv", "bn", "layer")):
            key = f"{layer.replace('_', '.')}.{TORCH_NAMES[parameter]}"
            array = arrays.get(key)
            if array is not None and array.ndim == 4:
                array = array.transpose(2, 3, 1, 0)  # OIHW to HWIO
            sources.append((weight, key, array))
    return sources


LITE0_NAMES = {  # of the file, for each part of a block
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
}


def _lite0(model, path, files):
    """Copies _blocks.3._bn1 of the file to block3_depthwise_bn, and so on."""
    arrays = _read_torch(path)
    sources = []
    for weight in model.weights:
        layer, parameter = weight.path.rsplit("/", 1)
        unit, is_norm = layer.removesuffix("_bn"), layer.endswith("_bn")
        block, _, kind = unit.partition("_")
        if unit == "stem":
            theirs = "_bn0" if is_norm else "_conv_stem"
        elif block.startswith("block"):
            names = LITE0_NAMES[kind]
            theirs = f"_blocks.{block.removeprefix('block')}.{names[is_norm]}"
        else:  # the decoder's
            continue
        key = f"{theirs}.{TORCH_NAMES[parameter]}"
        array = arrays.get(key)
        if array is not None and array.ndim == 4:  # OIHW, or C1HW of a depthwise one
            order = (2, 3, 0, 1) if kind == "depthwise" else (2, 3, 1, 0)
            array = array.transpose(order)
        sources.append((weight, key, array))
    return sources


LOADERS = {
    "icnet": _icnet,
    "segnet": _vgg16,
    "fcn": _fcn,
    "fcn_attention": _vgg16,
    "fcn_resnet50": _resnet50,
    "fcn_resnet34": _resnet34,
    "unet_lite0": _lite0,
}


def _read_npz(path) -> Arrays:
    """{"layer/parameter": array}; UsageError for a pickle."""
    with path.open("rb") as file:
        magic = file.read(6)
    if magic == b"\x93NUMPY":
        raise UsageError(
            f"The weight file {path} may hold a pickle, which can run any program. If "
            "you trust it, convert it to .npz first: "
            + ICNET_CONVERSION.format(path.with_suffix(""))
        )
    try:
        return storage.read_arrays(path)
    except (ValueError, OSError) as error:
        raise _unreadable(path, "a NumPy .npz of plain arrays", error) from None


def _read_keras_h5(path, files) -> Mapping[str, h5py.Dataset]:
    """{"layer/parameter": dataset, unread} of either HDF5 layout that Keras has used.

    `.h5`: a group per layer that lists its weights' names in order. `.weights.h5`
    (Keras 3): numbered weights per layer, with the layer's name in an attribute.
    """
    arrays = {}
    try:
        file = files.enter_context(h5py.File(path, "r"))
        if "layer_names" in file.attrs:
            for layer in _names(file, "layer_names"):
                group = _group(file, layer)
                keys = _names(group, "weight_names")
                _add_layer(arrays, layer, [_dataset(group, key) for key in keys])
        else:
            for name in _group(file, "layers"):
                values = _group(file, f"layers/{name}/vars")
                ordered = [_dataset(values, str(i)) for i in range(len(values))]
                _add_layer(arrays, values.attrs["name"], ordered)
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise _unreadable(path, "a Keras .h5 or .weights.h5", error) from None
    return arrays


def _names(group, attribute):
    return [
        name.decode() if isinstance(name, bytes) else name
        for name in group.attrs[attribute]
    ]


def _group(group, name):
    group = _member(group, name)
    if not isinstance(group, h5py.Group):
        raise ValueError(f"{name} is not a group")
    return group


def _dataset(group, name):
    dataset = _member(group, name)
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"{name} is not an array")
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"{name} is stored in another file")
    return dataset


def _member(group, name):
    """The member at a path with slashes; ValueError for links, which can leave it."""
    for part in name.split("/"):
        if not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise ValueError(f"{name} is a link")
        group = group[part]
    return group


def _add_layer(arrays, layer, values):
    order = NORM_ORDER if len(values) == len(NORM_ORDER) else CONV_ORDER
    for parameter, array in zip(order, values):
        arrays[f"{layer}/{parameter}"] = array


def _read_torch(path) -> Arrays:
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        return state_dict.read(path)
    except (ValueError, OSError) as error:
        raise _unreadable(path, "a PyTorch state dict", error) from None


SAFETENSORS_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8"}

SAFETENSORS_ERRORS = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,  # a deeply nested header
)


def _read_safetensors(path) -> Arrays:
    """Layout: header length (8 bytes), JSON {name: dtype, shape, offsets}, raw data."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    data = content[8 + length :]
    try:
        header = json.loads(content[8 : 8 + length])
        arrays = {}
        for key, entry in header.items():
            if key != "__metadata__":
                start, stop = entry["data_offsets"]
                dtype = entry["dtype"]
                if dtype not in SAFETENSORS_DTYPES:
                    known = ", ".join(SAFETENSORS_DTYPES)
                    raise ValueError(f"{key} is {dtype}, not one of {known}")
                array = np.frombuffer(data[start:stop], SAFETENSORS_DTYPES[dtype])
                arrays[key] = array.reshape(entry["shape"])
        return arrays
    except SAFETENSORS_ERRORS as error:
        raise _unreadable(path, "a .safetensors file", error) from None


def _unreadable(path, expected, error):
    detail = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UsageError(
        f"The weight file {path} cannot be read ({detail}). It should be {expected}."
    )
