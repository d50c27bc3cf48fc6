"""A run's best weights as a model that needs none of this code to predict.

Every model takes uint8 images as they are, and holds all that is between them and the
prediction: normalisation, padding to the network's stride, the main head at the size of
the image, the direct class weights where the run is configured so. It is opened by the
runtime of its format and compared with the Keras network on validation images before it
is published.
"""

import contextlib
import importlib.util
import io
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from keras_seg import backend, command_line, storage
from keras_seg.command_line import Progress, check_folder, install_hint
from keras_seg.config import from_dict
from keras_seg.data.prepared import Prepared, open_prepared
from keras_seg.errors import StorageError, UsageError
from keras_seg.preprocess import STANDARDS
from keras_seg.runs import checkpoint, engines
from keras_seg.runs import folder as run_folder

FORMAT_VERSION = 1
RECORD = "export.json"
IMAGES = 8  # of the validation split that the check takes
# Largest difference of a probability. Both run the same operations on the same bits;
# where they are fused otherwise the last digits of float32 differ: by 3e-7 in a trained
# ICNet, and by a few 1e-6 where logits reach 30.
TOLERANCE = 1e-5
OTHER_RUNTIME = 1e-4  # which adds in another order: 3e-5 in a SegNet without training
MOST_LOSS = 0.005  # of mIoU, which 8-bit integers may cost at most
CALIBRATION = 32  # training images that the ranges of 8-bit integers are taken from
RESAMPLES = 2000

_ENTRIES = {"saved_model.pb", "fingerprint.pb", "variables", "assets", RECORD}
_ENTRIES |= {"model.keras", "model.onnx", "model.xml", "model.bin", "model.tflite"}


@dataclass(frozen=True)
class Source:
    """What a format is written from.

    Attributes:
        network: `keras_seg.runs.evaluate.Network` with the run's weights.
        weights: float64 [C] on its logits, or None.
        prepared: the data of the run.
    """

    network: Any
    weights: np.ndarray | None
    prepared: Prepared


@dataclass(frozen=True)
class Format:
    """How an export is written.

    Attributes:
        write: writes a `Source` into an empty folder.
        what: the runtime, for people.
        modules: that writing needs, besides TensorFlow.
        extra: of this package, which installs them and the runtime.
        tolerance: largest difference of a probability from the network's.
        is_exact: it predicts what the network does, but for rounding. Otherwise its
            mIoU is compared.
    """

    write: Callable[[Source, Path], None]
    what: str
    modules: tuple[str, ...] = ()
    extra: str = "cpu"
    tolerance: float = TOLERANCE
    is_exact: bool = True


def export(
    run: Path,
    out: Path | None = None,
    format: str = "saved_model",
    data: Path | None = None,
    threads: int | None = None,
    images: int = IMAGES,
    size: tuple[int, int] | None = None,
) -> Path:
    """Write a run's best weights as a model, checked against the Keras network.

    The model maps image uint8 RGB [N, H, W, 3], of any N and the size given, to
    "class_ids" uint8 [N, H, W] and "probabilities" float32 [N, H, W, C]; in a
    SavedModel and a LiteRT file that is the signature "serving_default". It computes
    in float32, also where the run was trained in mixed precision. Its folder has
    export.json (`read_record`).

    Args:
        run: a run folder with a best checkpoint, or a stage's folder: its winner.
        out: the model's folder; None is RUN/export/<format>, of another size than the
            run's RUN/export/<format>-<H>x<W>. New, or an export of the same run, which
            is replaced at the end.
        format: one of `FORMATS`.
        data: the prepared folder of the run; None is where it was in training.
        threads: intra-op threads; None is the number of cores.
        images: how many validation images are compared, evenly spread, once alone and
            once in batches.
        size: (height, width) of the images in pixels; None is the run's.

    Returns:
        The model's folder.

    Raises:
        UsageError: no such run or format, a converter is not installed, other data
            than the run's, an `out` that holds something else.
        StorageError: the disk is full, the checkpoints are damaged, or what was
            written predicts otherwise than the network; nothing is left behind and an
            earlier export is intact.
        LockedError: another process writes the same export.
    """
    _check_format(format)
    if images < 1:
        raise UsageError(f"images is {images}; the check needs at least 1.")
    run = run_folder.find_run(Path(run))
    arrays, identity = run_folder.load_best(run)
    prepared = _open_data(run, data, identity)
    # A float32 network takes the weights of a mixed one, which are float32 as well.
    config = from_dict(identity["config"]).changed(precision="float32")
    name = format
    if size is not None and tuple(size) != config.data.size:
        name += f"-{size[0]}x{size[1]}"
        config = config.changed(data={"size": tuple(size), "pad": True})
    out = Path(os.path.realpath(out or run / "export" / name))

    check_folder(out)

    def check_place(place: Path) -> None:
        _check_replaceable(place, identity)

    with storage.publishing(out, check_place) as new:
        backend.start(config.seed, threads, config.precision)
        from keras_seg.runs import evaluate as evaluation

        network = evaluation.Network(config, prepared.labels.num_classes)
        network.is_portable = True  # what the export is compared with
        checkpoint.assign(network.net.variables, arrays, "model")
        source = Source(network, network.direct_weights(prepared), prepared)
        with _converter_named(format, new):
            FORMATS[format].write(source, new)
        serve = engines.open_export(new, format, threads=threads)
        found = FORMATS[format]
        check = _compare if found.is_exact else _compare_scores
        record = {
            "format_version": FORMAT_VERSION,
            "format": format,
            "classes": list(prepared.labels.names),
            "palette": [list(colour) for colour in prepared.labels.palette],
            "flip_pairs": [list(pair) for pair in prepared.labels.flip_pairs],
            "size": list(config.data.size),
            "fit": config.data.fit,
            "levels": prepared.meta.get("raw", {}).get("levels"),
            "preprocess": network.preprocess,
            "direct_weights": (
                None if source.weights is None else source.weights.tolist()
            ),
            "run": identity,
            "step": (run_folder.read_metrics(run) or {}).get("step"),
            "commit": backend.commit(),
            "environment": backend.fingerprint(),
            "check": check(serve, source, found.tolerance, images),
        }
        storage.write_json(new / RECORD, record)
    return out


def is_possible() -> bool:
    """Whether the backend can export; else a line on stderr says so."""
    if backend.name() == "tensorflow":
        return True
    command_line.note(
        f"The winner is not exported: KERAS_BACKEND is {backend.name()}. On a machine "
        "with TensorFlow, KERAS_BACKEND=tensorflow keras-seg export RUN does it."
    )
    return False


def _check_format(name: str) -> None:
    """UsageError unless there is such a format and all that it needs is installed."""
    if name not in FORMATS:
        known = ", ".join(FORMATS)
        raise UsageError(f"There is no export format {name!r}. Formats: {known}.")
    if backend.name() != "tensorflow":
        raise UsageError(
            f"KERAS_BACKEND is {backend.name()}; an export needs tensorflow."
        )
    format = FORMATS[name]
    missing = [one for one in format.modules if importlib.util.find_spec(one) is None]
    if missing:
        raise UsageError(
            f"The format {name} needs {', '.join(missing)}, not installed here: "
            f"{install_hint(format.extra)}."
        )


def is_current(folder: Path, run: Path) -> bool:
    """Whether `folder` holds an export of a run's best weights as they are."""
    if not (folder / RECORD).is_file():
        return False
    record, metrics = read_record(folder), run_folder.read_metrics(run)
    exported = run_folder.current_identity(record["run"], folder / RECORD)
    is_same = exported == run_folder.load_best(run)[1]
    return is_same and record["step"] == (metrics or {}).get("step")


def read_record(folder: Path) -> dict[str, Any]:
    """export.json of an export.

    Returns:
        format, classes, palette (RGB of each class), flip_pairs, size (height, width),
        preprocess and direct_weights (both are inside of the model), run (the run's
        identity: configuration and data), step of the weights, commit, environment
        (versions of the libraries, machine) and check: split, ids of the images,
        largest_difference of a probability, differing_pixels (ties), tolerance; in
        8-bit integers miou, miou_loss, its upper bound and what is allowed.

    Raises:
        StorageError: it is damaged.
    """
    path, way_out = folder / RECORD, f"Delete {folder}, and export again."
    found = storage.read_json(path, way_out, _RECORD)
    with storage.damage_named(path, "It is no record of an export.", way_out):
        height, width = found["size"]
        check = found["check"]
        apart = check["miou_loss" if "miou_loss" in check else "largest_difference"]
        f"{height:d} {width:d} {check['images']:d} {apart:.2g}"
    return found


_RECORD = {"size": list, "check": dict, "run": dict, "step": int | None}


def _open_data(run: Path, data: Path | None, identity: Mapping[str, Any]) -> Prepared:
    folder = Path(data or run_folder.read_environment(run).get("data", "unknown"))
    way_out = f"Name the prepared folder of {run} with --data."
    if not folder.is_dir():
        raise UsageError(f"The data folder {folder} is not there. {way_out}")
    prepared = open_prepared(folder)
    if prepared.manifest_hash != identity["data"]["manifest"]:
        raise UsageError(f"{folder} holds other data than the run had. {way_out}")
    return run_folder.as_trained(prepared, identity)


def _check_replaceable(out: Path, identity: Mapping[str, Any]) -> None:
    """UsageError unless `out` has room, or an export of the run with this identity."""
    there = storage.contents(out) if out.is_dir() else []
    if not out.exists() or (out.is_dir() and not there):
        return
    way_out = "Name a new folder, or an export of this run to replace, with --out."
    if not (out / RECORD).is_file():
        raise UsageError(f"{out} is no export. {way_out}")
    if foreign := sorted(set(there) - _ENTRIES):
        raise UsageError(f"{out} holds {foreign[0]}, which is of no export. {way_out}")
    try:
        exported = read_record(out).get("run")
        if isinstance(exported, Mapping):
            exported = run_folder.current_identity(exported, out / RECORD)
    except StorageError:
        raise UsageError(f"{out / RECORD} is damaged. {way_out}") from None
    if exported != identity:
        raise UsageError(f"{out} is an export of another run. {way_out}")


# The formats


def _write_saved_model(source: Source, folder: Path) -> None:
    import tensorflow as tf

    from keras_seg.metrics import class_ids

    # A module that holds the weights and nothing else: Keras' own export stores every
    # weight twice, and those of the heads that only training needs.
    network, weights = source.network, source.weights
    module: Any = tf.Module()
    module.weights = [variable.value for variable in network.inference.weights]
    height, width = network.config.data.size
    rows, columns = _padding(network)

    def serve(image):
        x = _standardise(network.preprocess, image)
        x = tf.pad(x, [(0, 0), (0, rows), (0, columns), (0, 0)])
        logits = network.inference(x, training=False)["logits"]
        logits = logits[:, :height, :width]
        if weights is not None:
            logits *= weights.astype("float32")
        return {
            "class_ids": tf.cast(class_ids(logits), "uint8"),
            "probabilities": tf.nn.softmax(logits),
        }

    image = tf.TensorSpec((None, height, width, 3), "uint8", name="image")
    module.serve = tf.function(serve, input_signature=[image])
    _save(module, folder)


def _save(module: Any, folder: Path) -> None:
    """Write a tf.Module with a function `serve` as a SavedModel."""
    import tensorflow as tf

    try:
        tf.saved_model.save(module, folder, signatures=module.serve)
    except tf.errors.OpError as error:
        reason = error.message.rpartition("; ")[2]  # after the place in the graph
        raise StorageError(
            f"{folder} could not be written: {reason}. Free space, or name another "
            "folder with --out."
        ) from error


def _padding(network: Any) -> tuple[int, int]:
    """Rows below and columns to the right that the network's stride needs."""
    rows, columns = (
        padded - side
        for padded, side in zip(network.net.input_shape[1:3], network.config.data.size)
    )
    return rows, columns


def _standardise(name: str, image: Any) -> Any:
    """`keras_seg.preprocess.apply` of a tensor uint8 RGB [N, H, W, 3], bit by bit."""
    import tensorflow as tf

    is_reversed, mean, deviation = STANDARDS[name]
    x = tf.cast(image[..., ::-1] if is_reversed else image, "float32") - mean
    # The graph optimizer makes a division by a constant a product with its
    # reciprocal: in float32 that has other last digits.
    deviation = np.float32(deviation).astype("float64")
    return tf.cast(tf.cast(x, "float64") / deviation, "float32")


def _write_keras(source: Source, folder: Path) -> None:
    """The whole way from uint8 images to predictions, in layers of Keras alone."""
    import keras
    from keras import layers

    ops: Any = keras.ops
    network, weights = source.network, source.weights
    height, width = network.config.data.size
    rows, columns = _padding(network)
    is_reversed, mean, deviation = STANDARDS[network.preprocess]
    image: Any = keras.Input((height, width, 3), dtype="uint8", name="image")
    x = ops.cast(image, "float32")
    if is_reversed:
        x = ops.flip(x, axis=-1)
    variance = [one**2 for one in deviation]
    x = layers.Normalization(mean=list(mean), variance=variance, name="standardise")(x)
    if rows or columns:
        x = layers.ZeroPadding2D(((0, rows), (0, columns)), name="pad")(x)
    # Our own layers have no weights: what they compute is put in their place.
    logits = _with_calls(network.inference, _is_ours)(x)["logits"]
    if rows or columns:
        logits = layers.Cropping2D(((0, rows), (0, columns)), name="crop")(logits)
    if weights is not None:
        logits = layers.Rescaling(weights.tolist(), name="class_weights")(logits)
    ids = ops.cast(ops.argmax(logits, axis=-1), "uint8")
    outputs = {"class_ids": ids, "probabilities": ops.softmax(logits)}
    model = keras.Model(image, outputs, name=network.net.name)
    model.save(folder / "model.keras")


def _is_ours(layer: Any) -> bool:
    return type(layer).__module__.startswith("keras_seg.")


def _is_pooling(layer: Any) -> bool:
    return type(layer).__name__ == "AdaptiveAveragePooling"


def _with_calls(model: Any, is_opened: Callable[[Any], bool]) -> Any:
    """The model with what some layers compute in the place of these layers."""
    import keras

    def call(layer, *arguments, **options):
        if not is_opened(layer):
            return layer(*arguments, **options)
        if _is_pooling(layer):
            return _pooled(layer.bins, *arguments)
        return layer.call(*arguments, **options)

    return keras.models.clone_model(
        model, clone_function=lambda layer: layer, call_function=call
    )


def _pooled(bins: int, x: Any) -> Any:
    """`keras_seg.nets.layers.AdaptiveAveragePooling` for any runtime.

    Products with constant matrices become transpositions that OpenVINO and LiteRT do
    not take for batches of any size. Regions of one size and distance are a plain
    pooling, others means of slices, of rows and then of columns.
    """
    import keras

    ops: Any = keras.ops
    sides: list[list[tuple[int, int]]] = [
        [
            (region * length // bins, -(-(region + 1) * length // bins))
            for region in range(bins)
        ]
        for length in x.shape[1:3]
    ]
    sizes = [{stop - start for start, stop in regions} for regions in sides]
    steps = [{b[0] - a[0] for a, b in pairwise(regions)} or {1} for regions in sides]
    if all(len(one) == 1 for one in (*sizes, *steps)):
        window, stride = (tuple(one.pop() for one in each) for each in (sizes, steps))
        return ops.average_pool(x, window, stride, padding="valid")
    for axis, regions in enumerate(sides, 1):
        parts = [
            x[:, start:stop] if axis == 1 else x[:, :, start:stop]
            for start, stop in regions
        ]
        means = [ops.mean(part, axis=axis, keepdims=True) for part in parts]
        x = ops.concatenate(means, axis=axis)
    return x


def _function(source: Source) -> tuple[Any, Any]:
    """A model, and a tf.function that serves it in operations that converters know."""
    import tensorflow as tf

    network, weights = source.network, source.weights
    model = _with_calls(network.inference, _is_pooling)
    height, width = network.config.data.size
    rows, columns = _padding(network)
    is_reversed, mean, deviation = STANDARDS[network.preprocess]

    def serve(image):
        # As indices: ONNX Runtime walks a reversed slice value by value
        x = tf.gather(image, [2, 1, 0], axis=-1) if is_reversed else image
        x = tf.cast(x, "float32")
        # What changes nothing takes some runtimes time
        x = x - mean if any(mean) else x
        x = x / deviation if set(deviation) != {1} else x
        if rows or columns:
            x = tf.pad(x, [(0, 0), (0, rows), (0, columns), (0, 0)])
        logits = model(x, training=False)["logits"]
        if rows or columns:
            logits = logits[:, :height, :width]
        if weights is not None:
            logits *= weights.astype("float32")
        # As a matrix: otherwise tf2onnx puts the classes before the pixels, and ONNX
        # Runtime's softmax then takes twenty times as long
        classes = logits.shape[-1]
        pixels = tf.reshape(logits, [-1, classes])
        ids = tf.cast(tf.argmax(pixels, axis=-1, output_type="int32"), "uint8")
        probabilities = tf.nn.softmax(pixels)
        return {
            "class_ids": tf.reshape(ids, [-1, height, width]),
            "probabilities": tf.reshape(probabilities, [-1, height, width, classes]),
        }

    image = tf.TensorSpec((None, height, width, 3), "uint8", name="image")
    return model, tf.function(serve, input_signature=[image])


def _write_onnx(source: Source, folder: Path) -> None:
    import tf2onnx

    _, function = _function(source)
    tf2onnx.convert.from_function(
        function,
        input_signature=function.input_signature,
        opset=18,
        output_path=str(folder / "model.onnx"),
    )


def _write_openvino(source: Source, folder: Path) -> None:
    import openvino  # pyright: ignore

    _write_onnx(source, folder)
    model = openvino.convert_model(folder / "model.onnx")
    openvino.save_model(model, folder / "model.xml", compress_to_fp16=False)
    (folder / "model.onnx").unlink()


def _write_litert(source: Source, folder: Path) -> None:
    import tensorflow as tf

    model, function = _function(source)
    module: Any = tf.Module()
    module.weights = [variable.value for variable in model.weights]
    module.serve = function
    _save(module, folder / "saved_model")
    lite: Any = tf.lite
    converter = lite.TFLiteConverter.from_saved_model(str(folder / "saved_model"))
    converter.experimental_enable_resource_variables = False  # weights as constants
    content = converter.convert()
    shutil.rmtree(folder / "saved_model")
    (folder / "model.tflite").write_bytes(content)


def _write_int8(source: Source, folder: Path) -> None:
    """ONNX with convolutions in 8-bit integers, ranges from training images."""
    from onnxruntime import quantization

    _write_onnx(source, folder)
    whole = folder / "float.onnx"
    (folder / "model.onnx").rename(whole)
    calibration: Any = _Calibration(source)
    quantization.quantize_static(
        str(whole),
        str(folder / "model.onnx"),
        calibration,
        quant_format=quantization.QuantFormat.QDQ,
        op_types_to_quantize=["Conv", "ConvTranspose", "MaxPool", "Add", "Relu"],
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
    )
    whole.unlink()


class _Calibration:
    """Training images, one after the other, as ONNX Runtime asks for them."""

    def __init__(self, source: Source):
        from keras_seg.runs.evaluate import evenly_spaced

        samples = source.network.samples(source.prepared, "train")
        chosen = evenly_spaced(len(samples), CALIBRATION)
        self._images = iter([samples.plain(place)[0][None] for place in chosen])

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self._images, None)
        return None if image is None else {"image": image}


_ONNX = ("tf2onnx", "onnxruntime")
FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "saved_model": Format(_write_saved_model, "TensorFlow"),
        "keras": Format(_write_keras, "Keras"),
        "onnx": Format(_write_onnx, "ONNX Runtime", _ONNX, "onnx", OTHER_RUNTIME),
        "onnx-int8": Format(
            _write_int8,
            "ONNX Runtime, in 8-bit integers",
            _ONNX,
            "onnx",
            is_exact=False,
        ),
        "openvino": Format(
            _write_openvino,
            "OpenVINO",
            ("tf2onnx", "openvino"),
            "openvino",
            OTHER_RUNTIME,
        ),
        "litert": Format(
            _write_litert,
            "LiteRT (TensorFlow Lite)",
            ("ai_edge_litert",),
            "litert",
            OTHER_RUNTIME,
        ),
    }
)


@contextlib.contextmanager
def _converter_named(format: str, folder: Path) -> Iterator[None]:
    """Silence converters; what they cannot convert is one sentence."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except (OSError, StorageError):
        raise
    except Exception as error:
        if FORMATS[format].extra == "cpu":  # ours and Keras': a bug
            raise
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UsageError(
            f"This network cannot be converted to {format} ({line}). Export another "
            f"format: {', '.join(name for name in FORMATS if name != format)}."
        ) from error
    finally:
        logging.disable(previous)


# The check


def _compare(
    serve: engines.Serve, source: Source, tolerance: float, images: int
) -> dict[str, Any]:
    """What the check found: the exported model against the Keras network.

    Raises:
        StorageError: a probability differs by more than the tolerance, or a class id
            where the two classes are no tie: further apart than what the tolerance
            allows both of them to move.
    """
    from keras_seg.runs.evaluate import evenly_spaced

    network, weights = source.network, source.weights
    samples = network.samples(source.prepared, "val")
    chosen = evenly_spaced(len(samples), images)
    several = chosen if len(chosen) > 1 else chosen * 2
    largest, differing = 0.0, 0
    with Progress("check the export", len(several) + 1) as progress:
        for batch in (chosen[:1], *_batches(several, network.config.validation.batch)):
            pixels = np.stack([samples.plain(position)[0] for position in batch])
            expected = _softmax(network.logits(pixels, weights))
            ids, found = serve(pixels)
            there = np.take_along_axis(expected, ids[..., None].astype(int), -1)[..., 0]
            apart = (expected.max(-1) - there).max()
            largest = max(largest, float(np.abs(found - expected).max()))
            differing += int(np.count_nonzero(expected.argmax(-1) != ids))
            if not largest <= tolerance or not apart <= 2 * tolerance:  # NaN neither
                raise StorageError(
                    "The exported model does not predict what the network does on "
                    f"{samples.ids[batch[0]]}: probabilities differ by {largest:.2g}, "
                    f"those of the class ids by {apart:.2g}. Nothing was published."
                )
            progress.advance(len(batch))
    return {
        "split": "val",
        "images": len(chosen),
        "ids": [samples.ids[position] for position in chosen],
        "largest_difference": largest,
        "differing_pixels": differing,
        "tolerance": tolerance,
    }


def _compare_scores(serve: engines.Serve, source: Source, *_: object) -> dict[str, Any]:
    """What the model costs in mIoU on the whole validation split.

    Raises:
        UsageError: the upper bound of its loss is not below `MOST_LOSS`.
    """
    network, prepared = source.network, source.prepared
    samples = network.samples(prepared, "val")
    counts: dict[str, list[np.ndarray]] = {"network": [], "model": []}
    with Progress("score the export", len(samples)) as progress:
        for position in range(len(samples)):
            image, label, _ = samples.plain(position)
            logits = network.logits(image[None], source.weights)
            found = {"network": logits[0].argmax(-1), "model": serve(image[None])[0][0]}
            for name, ids in found.items():
                counts[name].append(_image_counts(label, ids, prepared))
            progress.advance()
    before, after = (np.stack(counts[name]) for name in ("network", "model"))
    loss = float(_miou(before.sum(0)) - _miou(after.sum(0)))
    bound = upper_bound(before, after)
    if not bound < MOST_LOSS:
        raise UsageError(
            f"In 8-bit integers the network loses {100 * loss:.2f} points of mIoU on "
            f"the validation images, and up to {100 * bound:.2f} with 95 % confidence; "
            f"less than {100 * MOST_LOSS:.1f} are allowed. Nothing was published: "
            "export another format."
        )
    return {
        "split": "val",
        "images": len(samples),
        "miou": float(_miou(after.sum(0))),
        "miou_loss": loss,
        "miou_loss_upper_bound": bound,
        "most_miou_loss": MOST_LOSS,
    }


def upper_bound(before: np.ndarray, after: np.ndarray) -> float:
    """95 % upper confidence bound of a loss in mIoU, by resampling images in pairs.

    Args:
        before, after: int64 [N, 3, C], each image's pixels of the intersection, of the
            truth and of the prediction.
    """
    rng = np.random.default_rng(0)
    losses = []
    for _ in range(RESAMPLES):
        chosen = rng.integers(0, len(before), len(before))
        losses.append(_miou(before[chosen].sum(0)) - _miou(after[chosen].sum(0)))
    return float(np.quantile(losses, 0.95))


def _image_counts(label: np.ndarray, ids: np.ndarray, prepared: Prepared) -> np.ndarray:
    from keras_seg import metrics

    count = prepared.labels.num_classes
    valid = label < count
    pairs = label[valid].astype(np.int64) * count + ids[valid]
    confusion = np.bincount(pairs, minlength=count * count).reshape(count, count)
    counts = metrics.image_counts(confusion, prepared.scored_ids)
    return counts if prepared.scored_ids is None else counts[:, prepared.scored_ids]


def _miou(counts: np.ndarray) -> float:
    """Mean IoU of the classes that are there, from [3, C] as of `image_counts`."""
    intersection, truth, predicted = counts
    union = truth + predicted - intersection
    return float((intersection[union > 0] / union[union > 0]).mean())


def _batches(positions: Sequence[int], size: int) -> list[Sequence[int]]:
    """The positions in batches of `size`, but at least 2."""
    size = max(2, size)
    return [positions[i : i + size] for i in range(0, len(positions), size)]


def _softmax(logits: np.ndarray) -> np.ndarray:
    """float64 [..., C] of raw float32 logits."""
    powers = np.exp(logits.astype("float64") - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def main(argv: list[str]) -> int:
    """The export of a stage's winner in a process of its own (`keras_seg.ablation`)."""
    parser = command_line.Parser(prog="python -m keras_seg.runs.export")
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--threads", type=command_line.positive_int)
    parser.add_argument("--parent", type=int, help="stop when this process is gone")
    args = parser.parse_args(argv)
    if args.parent is not None:
        command_line.end_with_parent(args.parent)
    with run_folder.failure_recorded(args.run):  # where the study reads it
        export(args.run, data=args.data, threads=args.threads)
    return 0


if __name__ == "__main__":
    sys.exit(command_line.run(main))
