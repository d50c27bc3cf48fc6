"""A trained network as an object: load it once, give it pictures of any size.

model = keras_seg.load("runs/mine")  # a run, or an export of one
ids = model.predict("street.jpg")  # uint8 [H, W], as large as the photograph
"""

import io
from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import overload

import numpy as np
from PIL import Image

from keras_seg import backend, plots, storage
from keras_seg.command_line import Progress, check_folder
from keras_seg.config import from_dict
from keras_seg.data import voc
from keras_seg.data.images import encode_png, read_raw_image, resize_image
from keras_seg.data.prepared import Prepared, open_prepared
from keras_seg.errors import (
    DataError,
    KerasSegError,
    UsageError,
    memory_failure_named,
)
from keras_seg.labels import LabelSpec
from keras_seg.runs import checkpoint, export
from keras_seg.runs import folder as run_folder

# A file, uint8 RGB [H, W, 3], or an image of Pillow in the mode RGB
Picture = str | PathLike | np.ndarray | Image.Image

RESIZED_VALUES = 1 << 26  # logits at a picture's size held at a time: 256 MB


class Predictor:
    """A trained network that takes pictures as they are; made by `load`.

    Attributes:
        folder: the run or the export it is from.
        labels: names and colours of the classes.
        size: (height, width) in pixels at which the network works.
    """

    def __init__(
        self,
        folder: Path,
        labels: LabelSpec,
        size: tuple[int, int],
        logits: Callable[[np.ndarray], np.ndarray],
    ):
        self.folder, self.labels, self.size = folder, labels, size
        self._logits = logits  # uint8 RGB [1, *size, 3] -> float32 [1, *size, C]

    @overload
    def predict(self, images: Picture) -> np.ndarray: ...
    @overload
    def predict(self, images: Sequence[Picture]) -> list[np.ndarray]: ...
    def predict(self, images):
        """The class of every pixel, at each picture's own size.

        The picture is resized to `size`, and the logits are resized back bilinearly
        before the class is chosen.

        Args:
            images: a PNG or JPEG file, whose EXIF orientation is respected, or a uint8
                RGB array [H, W, 3] of any size, or Pillow's image in the mode RGB; or
                a list of these.

        Returns:
            uint8 class ids [H, W]; a list of them for a list.

        Raises:
            DataError: a file cannot be read; it is named.
            UsageError: an array of another shape or type.
        """
        if isinstance(images, Picture) or not isinstance(images, Iterable):
            return self._predict(pixels(images))
        return [self._predict(pixels(image)) for image in images]

    def _predict(self, image: np.ndarray) -> np.ndarray:
        with memory_failure_named():
            logits = self._logits(resize_image(image, self.size)[None])[0]
            return ids_at(logits, image.shape[:2])


def predict(model: Predictor | str | PathLike[str], images):
    """`Predictor.predict` of a run, an export or a loaded model.

    It loads a run each time: for many calls, `load` it once.
    """
    if not isinstance(model, Predictor):
        model = load(model)
    return model.predict(images)


def load(run: str | PathLike[str], data: str | Path | None = None) -> Predictor:
    """Load a run's best weights, or an export, to predict with.

    Args:
        run: a run, its folder, that of a stage (its winner), or that of a SavedModel
            that `export` made.
        data: the prepared folder of the run, if it was moved. Only a run that
            multiplies its logits by class weights in prediction needs it.

    Raises:
        UsageError: the folder holds neither.
        StorageError: what it holds is damaged.
    """
    folder = run_folder.find_run(Path(run))
    if (folder / export.RECORD).is_file():
        return _load_export(folder)
    if folder.suffix in (".keras", ".h5"):
        raise UsageError(
            f"{folder} is a model that Keras saved: open it with "
            "keras.models.load_model, after import keras_seg."
        )
    if not (folder / "best").is_dir():
        raise UsageError(
            f"{folder} holds neither a training run with a best checkpoint nor an "
            "export. Name the folder that --out named in training or in the export."
        )
    return _load_run(folder, data)


def predict_files(
    model: str | PathLike[str],
    files: Sequence[Path],
    out: Path,
    *,
    data: Path | None = None,
    force: bool = False,
) -> list[DataError]:
    """Predict pictures and write NAME_ids.png and NAME_overlay.png of each.

    Args:
        model, data: as of `load`.
        files: PNG or JPEG pictures with different names.
        out: the folder of the results; made where it is missing.
        force: replace results that are there already.

    Returns:
        An error for each picture that cannot be read; the others are done.

    Raises:
        UsageError: a result is there already or would replace a picture, or two
            pictures have the same name. Nothing is written.
        StorageError: the disk is full or not writable.
    """
    targets = _targets(files, out, force)
    predictor = load(model, data)
    errors = []
    with Progress("predict", len(files), "pictures") as progress:
        for file, (ids_file, overlay_file) in zip(files, targets):
            try:
                image = pixels(file)
            except DataError as error:
                errors.append(error)
            else:
                ids = predictor.predict(image)
                out.mkdir(parents=True, exist_ok=True)
                storage.write_file(ids_file, ids_png(ids, predictor.labels))
                painted = overlay(image, ids, predictor.labels)
                storage.write_file(overlay_file, encode_png(painted))
            progress.advance()
    return errors


def _targets(files: Sequence[Path], out: Path, force: bool) -> list[tuple[Path, Path]]:
    names = [file.stem for file in files]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(
            f"Two pictures are called {twice}; their results would replace each other. "
            "Predict them into two folders."
        )
    check_folder(out)
    targets = [(out / f"{name}_ids.png", out / f"{name}_overlay.png") for name in names]
    pictures = {file.resolve() for file in files}
    for path in (path for pair in targets for path in pair):
        if path.resolve() in pictures:
            raise UsageError(
                f"{path} is one of the pictures; its result must not replace it. Name "
                "another folder with --out."
            )
        if path.exists() and not force:
            raise UsageError(f"{path} exists already; --force replaces it.")
    return targets


def ids_png(ids: np.ndarray, labels: LabelSpec) -> bytes:
    """A PNG whose values are class ids [H, W] and whose palette shows their colours."""
    image = Image.fromarray(ids)
    image.putpalette([level for colour in labels.palette for level in colour])
    content = io.BytesIO()
    image.save(content, "png")
    return content.getvalue()


def overlay(image: np.ndarray, ids: np.ndarray, labels: LabelSpec) -> np.ndarray:
    """uint8 RGB [H, W, 3]: half picture, half class colours; the background as it is.

    Only a class 0 named "background" is one.
    """
    painted = ((image.astype(np.uint16) + labels.colourise(ids)) // 2).astype(np.uint8)
    if plots.has_background(labels.names):
        painted[ids == 0] = image[ids == 0]
    return painted


def pixels(image: Picture) -> np.ndarray:
    """uint8 RGB [H, W, 3] of a picture; raises as `Predictor.predict`."""
    if isinstance(image, str | PathLike):
        return read_raw_image(Path(image)).pixels
    image = np.asarray(image)
    is_rgb = image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    if not is_rgb or not image.size:
        raise UsageError(
            f"An image is {image.dtype} {list(image.shape)}; it must be uint8 RGB "
            "[height, width, 3] with values from 0 to 255."
        )
    return image


def ids_at(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 class ids [*size] of float32 logits [h, w, C], resized bilinearly.

    A few classes at a time: all logits of a photograph of 12 million pixels and 25
    classes would take 1.2 GB.
    """
    import keras

    count = max(1, RESIZED_VALUES // (size[0] * size[1]))
    ids, best = np.zeros(size, np.uint8), np.full(size, -np.inf, np.float32)
    for first in range(0, logits.shape[-1], count):
        resized = keras.ops.image.resize(
            logits[..., first : first + count],
            size,
            interpolation="bilinear",
            data_format="channels_last",
        )
        part = np.asarray(resized)
        largest = part.max(-1)
        is_better = largest > best
        ids[is_better] = first + part.argmax(-1)[is_better]
        best[is_better] = largest[is_better]
    return ids


def _load_run(folder: Path, data: str | Path | None) -> Predictor:
    arrays, identity = run_folder.load_best(folder)
    config = from_dict(identity["config"])
    backend.configure()
    import keras

    from keras_seg.runs.evaluate import Network

    names = tuple(identity["data"]["classes"])
    with backend.dtype_policy_kept():
        keras.config.set_dtype_policy(config.precision)
        network = Network(config, len(names))
    # Paths of random generators count what was built before in this process, so the
    # weights are matched by position.
    variables = network.net.variables
    paths = (f"model/{n:04d}/{one.path}" for n, one in enumerate(variables))
    mine = sorted(name for name in arrays if name.startswith("model/"))
    renamed = dict(zip(paths, (arrays[name] for name in mine)))
    checkpoint.assign(variables, renamed, "model")
    prepared = _prepared(folder, data, identity)
    labels = run_folder.read_labels(folder)
    weights = None
    if config.loss.strategy == "direct" and config.loss.direct_at_inference:
        if prepared is None:
            raise UsageError(
                f"The run in {folder} multiplies its logits by class weights of its "
                "data, which are not where they were. Name the prepared folder: data."
            )
        weights = network.direct_weights(prepared)
    if labels is None and prepared is not None:
        labels = prepared.labels
    if labels is None:  # of a version that did not keep the colours
        labels = LabelSpec(names, voc.palette(len(names)))
    return Predictor(
        folder, labels, config.data.size, lambda image: network.logits(image, weights)
    )


def _prepared(folder: Path, data: str | Path | None, identity: dict) -> Prepared | None:
    """The run's prepared folder, for its colours; None where it is gone."""
    place = data or run_folder.read_environment(folder).get("data", "")
    try:
        prepared = open_prepared(place)
    except KerasSegError:
        if data is not None:
            raise
        return None
    if prepared.manifest_hash == identity["data"]["manifest"]:
        return prepared
    if data is not None:
        raise UsageError(f"{data} does not hold the data that {folder} was trained on.")
    return None


def _load_export(folder: Path) -> Predictor:
    record = export.read_record(folder)
    if record["format"] != "saved_model":
        raise UsageError(f"{folder} is no SavedModel but {record['format']}.")
    backend.configure()
    import tensorflow as tf

    model = tf.saved_model.load(folder)
    smallest = np.finfo(np.float32).tiny

    def logits(image):
        served = model.signatures["serving_default"](image=tf.constant(image))
        # Logarithms of probabilities are logits but for a constant of each pixel,
        # which changes no choice between classes, resized or not.
        return np.log(np.maximum(served["probabilities"].numpy(), smallest))

    colours = tuple(tuple(colour) for colour in record["palette"])
    labels = LabelSpec(tuple(record["classes"]), colours)
    size = tuple(record["size"])
    return Predictor(folder, labels, size, logits)
