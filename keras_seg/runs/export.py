"""A run's best weights as a model that needs none of this code to predict.

A SavedModel takes uint8 images as they are, and holds all that is between them and the
prediction: normalisation, padding to the network's stride, the main head at the size of
the image, the direct class weights where the run is configured so. It is compared with
the Keras network on validation images before it is published.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from keras_seg import backend, command_line, storage
from keras_seg.command_line import Progress, check_folder
from keras_seg.config import from_dict
from keras_seg.data.prepared import Prepared, open_prepared
from keras_seg.errors import StorageError, UsageError
from keras_seg.preprocess import STANDARDS
from keras_seg.runs import checkpoint
from keras_seg.runs import folder as run_folder

FORMAT_VERSION = 1
RECORD = "export.json"
IMAGES = 8  # of the validation split that the check takes
# Largest difference of a probability. Both run the same operations on the same bits;
# where they are fused otherwise the last digits of float32 differ: by 3e-7 in a trained
# ICNet, and by a few 1e-6 where logits reach 30.
TOLERANCE = 1e-5

_ENTRIES = {"saved_model.pb", "fingerprint.pb", "variables", "assets", RECORD}


def export(
    run: Path,
    out: Path | None = None,
    format: str = "saved_model",
    data: Path | None = None,
    threads: int | None = None,
    images: int = IMAGES,
) -> Path:
    """Write a run's best weights as a model, checked against the Keras network.

    The SavedModel's signature "serving_default" maps image uint8 RGB [N, H, W, 3], of
    any N and the run's `Config.size`, to "class_ids" uint8 [N, H, W] and
    "probabilities" float32 [N, H, W, C]. It computes in float32, also where the run
    was trained in mixed precision. Its folder has export.json (`read_record`).

    Args:
        run: a run folder with a best checkpoint, or a stage's folder: its winner.
        out: the model's folder; None is RUN/export/<format>. New, or an export of the
            same run, which is replaced at the end.
        format: one of `FORMATS`.
        data: the prepared folder of the run; None is where it was in training.
        threads: intra-op threads; None is the number of cores.
        images: how many validation images are compared, evenly spread, once alone and
            once in batches.

    Returns:
        The model's folder.

    Raises:
        UsageError: no such run or format, other data than the run's, an `out` that
            holds something else.
        StorageError: the disk is full, the checkpoints are damaged, or what was
            written predicts otherwise than the network; nothing is left behind and an
            earlier export is intact.
        LockedError: another process writes the same export.
    """
    if format not in FORMATS:
        known = ", ".join(FORMATS)
        raise UsageError(f"There is no export format {format!r}. Formats: {known}.")
    if images < 1:
        raise UsageError(f"images is {images}; the check needs at least 1.")
    if backend.name() != "tensorflow":
        raise UsageError(
            f"KERAS_BACKEND is {backend.name()}; an export needs tensorflow."
        )
    run = run_folder.find_run(Path(run))
    arrays, identity = run_folder.load_best(run)
    prepared = _open_data(run, data, identity)
    # A float32 network takes the weights of a mixed one, which are float32 as well.
    config = from_dict(identity["config"]).changed(precision="float32")
    out = Path(os.path.realpath(out or run / "export" / format))

    check_folder(out)

    def check_place(place: Path) -> None:
        _check_replaceable(place, identity)

    with storage.publishing(out, check_place) as new:
        backend.start(config.seed, threads, config.precision)
        from keras_seg.runs import evaluate as evaluation

        network = evaluation.Network(config, prepared.labels.num_classes)
        checkpoint.assign(network.net.variables, arrays, "model")
        weights = network.direct_weights(prepared)
        predict = FORMATS[format](network, weights, new)
        record = {
            "format_version": FORMAT_VERSION,
            "format": format,
            "classes": list(prepared.labels.names),
            "palette": [list(colour) for colour in prepared.labels.palette],
            "size": list(config.data.size),
            "preprocess": network.preprocess,
            "direct_weights": None if weights is None else weights.tolist(),
            "run": identity,
            "step": (run_folder.read_metrics(run) or {}).get("step"),
            "commit": backend.commit(),
            "environment": backend.fingerprint(),
            "check": _compare(predict, network, weights, prepared, images),
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


def read_record(folder: Path) -> dict[str, Any]:
    """export.json of an export.

    Returns:
        format, classes, palette (RGB of each class), size (height, width), preprocess
        and direct_weights (both are inside of the model), run (the run's
        identity: configuration and data), step of the weights, commit, environment
        (versions of the libraries, machine) and check: split, ids of the images,
        largest_difference of a probability, differing_pixels (ties), tolerance.

    Raises:
        StorageError: it is damaged.
    """
    return storage.read_json(folder / RECORD)


def _open_data(run: Path, data: Path | None, identity: Mapping[str, Any]) -> Prepared:
    folder = Path(data or run_folder.read_environment(run).get("data", "unknown"))
    way_out = f"Name the prepared folder of {run} with --data."
    if not folder.is_dir():
        raise UsageError(f"The data folder {folder} is not there. {way_out}")
    prepared = open_prepared(folder)
    if prepared.manifest_hash != identity["data"]["manifest"]:
        raise UsageError(f"{folder} holds other data than the run had. {way_out}")
    return prepared


def _check_replaceable(out: Path, identity: Mapping[str, Any]) -> None:
    """UsageError unless `out` has room, or an export of the run with this identity."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    way_out = "Name a new folder, or an export of this run to replace, with --out."
    if not (out / RECORD).is_file():
        raise UsageError(f"{out} is no export. {way_out}")
    if foreign := sorted({entry.name for entry in out.iterdir()} - _ENTRIES):
        raise UsageError(f"{out} holds {foreign[0]}, which is of no export. {way_out}")
    try:
        exported = read_record(out).get("run")
        if isinstance(exported, Mapping):
            exported = run_folder.current_identity(exported, out / RECORD)
    except StorageError:
        raise UsageError(f"{out / RECORD} is damaged. {way_out}") from None
    if exported != identity:
        raise UsageError(f"{out} is an export of another run. {way_out}")


# The model


Predict = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def _saved_model(network: Any, weights: np.ndarray | None, folder: Path) -> Predict:
    """Write a SavedModel into `folder`, and load it back."""
    import tensorflow as tf

    # A module that holds the weights and nothing else: Keras' own export stores every
    # weight twice, and those of the heads that only training needs.
    module: Any = tf.Module()
    module.weights = [variable.value for variable in network.inference.weights]
    height, width = network.config.data.size
    rows, columns = (
        padded - side
        for padded, side in zip(network.net.input_shape[1:3], (height, width))
    )

    def serve(image):
        x = _standardise(network.preprocess, image)
        x = tf.pad(x, [(0, 0), (0, rows), (0, columns), (0, 0)])
        logits = network.inference(x, training=False)["logits"]
        logits = logits[:, :height, :width]
        if weights is not None:
            logits *= weights.astype("float32")
        return {
            "class_ids": tf.cast(tf.argmax(logits, axis=-1), "uint8"),
            "probabilities": tf.nn.softmax(logits),
        }

    image = tf.TensorSpec((None, height, width, 3), "uint8", name="image")
    module.serve = tf.function(serve, input_signature=[image])
    try:
        tf.saved_model.save(module, folder, signatures=module.serve)
    except tf.errors.OpError as error:
        reason = error.message.rpartition("; ")[2]  # after the place in the graph
        raise StorageError(
            f"{folder} could not be written: {reason}. Free space, or name another "
            "folder with --out."
        ) from error
    model: Any = tf.saved_model.load(folder)

    def predict(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        served = model.signatures["serving_default"](image=tf.constant(pixels))
        return served["class_ids"].numpy(), served["probabilities"].numpy()

    return predict


# Each writes (network, weights on its logits or None) into an empty folder, and returns
# what the model there predicts of uint8 RGB [N, H, W, 3]: class ids, probabilities.
FORMATS: Mapping[str, Callable[[Any, np.ndarray | None, Path], Predict]] = (
    MappingProxyType({"saved_model": _saved_model})
)


def _standardise(name: str, image: Any) -> Any:
    """`keras_seg.preprocess.apply` of a tensor uint8 RGB [N, H, W, 3], bit by bit."""
    import tensorflow as tf

    is_reversed, mean, deviation = STANDARDS[name]
    x = tf.cast(image[..., ::-1] if is_reversed else image, "float32") - mean
    # The graph optimizer makes a division by a constant a product with its
    # reciprocal: in float32 that has other last digits.
    deviation = np.float32(deviation).astype("float64")
    return tf.cast(tf.cast(x, "float64") / deviation, "float32")


def _compare(
    predict: Predict,
    network: Any,
    weights: np.ndarray | None,
    prepared: Prepared,
    images: int,
) -> dict[str, Any]:
    """What the check found: the exported model against the Keras network.

    Raises:
        StorageError: a probability differs by more than `TOLERANCE`, or a class id
            where the two classes are no tie: further apart than what the tolerance
            allows both of them to move.
    """
    from keras_seg.runs.evaluate import evenly_spaced

    samples = network.samples(prepared, "val")
    chosen = evenly_spaced(len(samples), images)
    several = chosen if len(chosen) > 1 else chosen * 2
    largest, differing = 0.0, 0
    with Progress("check the export", len(several) + 1) as progress:
        for batch in (chosen[:1], *_batches(several, network.config.validation.batch)):
            pixels = np.stack([samples.plain(position)[0] for position in batch])
            expected = _softmax(network.logits(pixels, weights))
            ids, found = predict(pixels)
            there = np.take_along_axis(expected, ids[..., None].astype(int), -1)[..., 0]
            apart = (expected.max(-1) - there).max()
            largest = max(largest, float(np.abs(found - expected).max()))
            differing += int(np.count_nonzero(expected.argmax(-1) != ids))
            if not largest <= TOLERANCE or not apart <= 2 * TOLERANCE:  # NaN neither
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
        "tolerance": TOLERANCE,
    }


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
