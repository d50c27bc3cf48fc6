"""A run's best weights as a model that needs none of this code to predict.

A SavedModel takes uint8 images as they are, and holds all that lies between them and
the prediction: normalisation, padding to the network's stride, the main head at the
size of the image, the direct class weights where the run is configured so. It is
written under a temporary name, compared with the Keras network on validation images,
and renamed when it is whole and right.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from keras_seg import backend, storage
from keras_seg.command_line import Progress
from keras_seg.config import from_dict
from keras_seg.data.prepared import Prepared, open_prepared
from keras_seg.errors import StorageError, UsageError
from keras_seg.preprocess import STANDARDS
from keras_seg.runs import checkpoint
from keras_seg.runs import folder as run_folder

FORMATS = ("saved_model",)
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
        run: a run folder with a best checkpoint.
        out: the model's folder; None is RUN/export/<format>. New, or an export of the
            same run, which is replaced at the end.
        format: one of `FORMATS`.
        data: the prepared folder of the run; None is where it lay in training.
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
        raise UsageError("format", format, "one of " + ", ".join(FORMATS))
    if images < 1:
        raise UsageError("images", images, "at least 1")
    if backend.name() != "tensorflow":
        raise UsageError("KERAS_BACKEND", backend.name(), "tensorflow, for an export")
    run = Path(run)
    arrays, identity = run_folder.load_best(run)
    prepared = _open_data(run, data, identity)
    # A float32 network takes the weights of a mixed one, which are float32 as well.
    config = from_dict(identity["config"]).changed(precision="float32")
    out = Path(os.path.realpath(out or run / "export" / format))
    with _staging(out, identity) as new:
        backend.start(config.seed, threads, config.precision)
        from keras_seg.runs import evaluate as evaluation

        network = evaluation.Network(config, prepared.labels.num_classes)
        checkpoint.assign(network.net.variables, arrays, "model")
        weights = network.direct_weights(prepared)
        _write_saved_model(network, weights, new)
        check = _compare(new, network, weights, prepared, images)
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
            "check": check,
        }
        storage.write_json(new / RECORD, record)
        _publish(new, out)
    return out


def read_record(folder: Path) -> dict:
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


def _open_data(run: Path, data: Path | None, identity: Mapping) -> Prepared:
    folder = data or run_folder.read_environment(run).get("data", "unknown")
    wanted = f"the prepared folder of {run}, which --data names"
    if not Path(folder).is_dir():
        raise UsageError("data", folder, wanted)
    prepared = open_prepared(folder)
    if prepared.manifest_hash != identity["data"]["manifest"]:
        raise UsageError("data", f"{folder} holds other data", wanted)
    return prepared


# Places


@contextmanager
def _staging(out: Path, identity: Mapping):
    """A place for what is not whole yet, in a folder beside `out`; gone afterwards.

    What a killed export left there is swept. The folder's lock ends with the process.
    """
    _refuse_another_folder(out, identity)
    stage = out.with_name(f".{out.name}.partial")
    with storage.lock(stage):
        try:
            if (stage / "old").exists() and not out.exists():
                (stage / "old").rename(out)  # killed between two renames
            for leftover in ("new", "old"):
                shutil.rmtree(stage / leftover, ignore_errors=True)
            _refuse_another_folder(out, identity)
            yield stage / "new"
        finally:
            shutil.rmtree(stage, ignore_errors=True)


def _refuse_another_folder(out: Path, identity: Mapping) -> None:
    """Nothing if there is room at `out`, or an export of the run with this identity."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    expected = "a new folder, or an export of this run to replace"
    if not (out / RECORD).is_file():
        raise UsageError("--out", f"{out} is no export", expected)
    if foreign := sorted({entry.name for entry in out.iterdir()} - _ENTRIES):
        raise UsageError("--out", f"{out} holds {foreign[0]}", expected)
    try:
        exported = read_record(out).get("run")
    except StorageError:
        raise UsageError("--out", f"{out / RECORD} is damaged", expected) from None
    if exported != identity:
        raise UsageError("--out", f"{out} is an export of another run", expected)


def _publish(new: Path, out: Path) -> None:
    for path in (*new.rglob("*"), new):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    if out.exists():
        out.rename(new.with_name("old"))
    new.rename(out)


# The model


def _write_saved_model(network, weights: np.ndarray | None, folder: Path) -> None:
    import tensorflow as tf

    # A module that holds the weights and nothing else: Keras' own export stores every
    # weight twice, and those of the heads that only training needs.
    module = tf.Module()
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
            f"writing {folder}", reason, "a writable disk with room"
        ) from error


def _standardise(name: str, image):
    """`keras_seg.preprocess.apply` of a tensor uint8 RGB [N, H, W, 3], bit by bit."""
    import tensorflow as tf

    is_reversed, mean, deviation = STANDARDS[name]
    x = tf.cast(image[..., ::-1] if is_reversed else image, "float32") - mean
    # The graph optimizer makes a division by a constant a product with its
    # reciprocal: in float32 that has other last digits.
    deviation = np.float32(deviation).astype("float64")
    return tf.cast(tf.cast(x, "float64") / deviation, "float32")


def _compare(
    folder: Path, network, weights: np.ndarray | None, prepared: Prepared, images: int
) -> dict:
    """What the check found: the SavedModel in `folder` against the Keras network.

    Raises:
        StorageError: a probability differs by more than `TOLERANCE`, or a class id
            where the two classes are no tie: further apart than what the tolerance
            allows both of them to move.
    """
    import tensorflow as tf

    from keras_seg.runs.evaluate import spread

    model = tf.saved_model.load(folder)
    samples = network.samples(prepared, "val")
    chosen = spread(len(samples), images)
    several = chosen if len(chosen) > 1 else chosen * 2
    largest, differing = 0.0, 0
    with Progress("check the export", len(several) + 1) as progress:
        for batch in (chosen[:1], *_batches(several, network.config.validation.batch)):
            pixels = np.stack([samples.plain(position)[0] for position in batch])
            expected = _softmax(network.logits(pixels, weights))
            served = model.signatures["serving_default"](image=tf.constant(pixels))
            ids, found = served["class_ids"].numpy(), served["probabilities"].numpy()
            there = np.take_along_axis(expected, ids[..., None].astype(int), -1)[..., 0]
            apart = (expected.max(-1) - there).max()
            largest = max(largest, float(np.abs(found - expected).max()))
            differing += int(np.count_nonzero(expected.argmax(-1) != ids))
            if not largest <= TOLERANCE or not apart <= 2 * TOLERANCE:  # NaN neither
                raise StorageError(
                    f"check of the export on {samples.ids[batch[0]]}",
                    f"probabilities differ by {largest:.2g}, those of the class ids by "
                    f"{apart:.2g}",
                    f"at most {TOLERANCE:g} and twice that; nothing was published",
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
