"""What a script or a notebook calls: train, evaluate, export; or the parts, for `fit`.

`keras_seg.train` and the other names of the package are the functions of this module,
and the command line calls the same.
"""

import dataclasses
import itertools
import json
import math
import numbers
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_seg import backend, config, nets, storage
from keras_seg.command_line import check_folder, note
from keras_seg.config import Augment, Config, NetSettings, from_dict
from keras_seg.data import folds, pipeline
from keras_seg.data.prepared import Prepared, open_prepared
from keras_seg.errors import UsageError
from keras_seg.runs import export as exporting
from keras_seg.runs import folder as run_folder
from keras_seg.runs import recipes
from keras_seg.runs import train as training

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

Data = Prepared | str | Path  # an opened prepared folder, or where it is


open_data = open_prepared


@dataclass(frozen=True)
class Run:
    """A finished training run; like a path, it stands for its folder.

    Attributes:
        folder: where its files are (`keras_seg.runs.folder`).
        config: its settings.
        metrics: the scores of the best weights on the validation split, as in
            metrics.json: "summary" {name: 0..1}, "per_class", "confusion", ...
    """

    folder: Path
    config: Config
    metrics: Mapping[str, Any]

    def __fspath__(self) -> str:
        return str(self.folder)

    @property
    def miou(self) -> float:
        """Mean IoU on the validation split, 0..1."""
        return self.metrics["summary"]["miou"]

    @property
    def history(self) -> list[dict[str, float]]:
        """One row per validation: step, loss, lr, val_miou, ..., as in history.csv."""
        return run_folder.read_history(self.folder)


def train(
    *,
    data: Data,
    out: str | Path,
    net: str | Mapping[str, Any] | None = None,
    size: tuple[int, int] | None = None,
    steps: int | None = None,
    epochs: int | None = None,
    batch: int | None = None,
    config: Config | Mapping[str, Any] | str | Path | None = None,
    recipe: str | Path | None = None,
    **settings: Any,
) -> Run:
    """Train a run: start it, resume it, or return its result if it is finished.

    Args:
        data: the prepared folder, with the splits train and val.
        out: the folder of the run.
        net: a key of `keras_seg.nets.NETS`, or {"name": ..., option: value}.
        size: (height, width) that images are resized to, px.
        steps, epochs: how long, one of the two; an epoch is ceil(images / batch)
            batches.
        batch: images per batch; default 16.
        config: settings to start from; what is given beside it overrides it. A JSON
            file, such as another run's config.json, may be named.
        recipe: a recipe of this package, "modern", or a TOML file of one; its settings
            override those of `config`, and what is given beside it overrides them.
        **settings: other parts of the configuration, loss={"weights": "w1"}, seed=1
            (`keras_seg.config.Config`), and how the run is carried out, threads=2,
            init_weights="imagenet", a file or a run, callbacks=[...] of Keras
            (`keras_seg.runs.train.Options`).

    Raises:
        UsageError: a setting that does not exist or that the network or the data
            cannot take, or `out` holds a run with other settings.
        DataError, DivergedError, StorageError, LockedError, InterruptedRunError: as
            `keras_seg.runs.train.train`.
    """
    options = {field.name for field in dataclasses.fields(training.Options)}
    chosen = {name: settings.pop(name) for name in options & settings.keys()}
    values = read_config(config)
    recipes.apply(values, recipe)
    if not isinstance(net, str | Mapping | NetSettings | None):
        raise UsageError(
            f"net is a {type(net).__name__}; name a network, as net='icnet'. A model "
            "that is built already is trained by its own method fit."
        )
    for name in ("threads", "devices", "workers", "checkpoint_every"):
        if chosen.get(name) is not None:
            chosen[name] = _whole(name, chosen[name])
    if net is not None:
        set_part(values, "net", net)
    shorthands = {"size": size, "batch": batch}
    given = {key: value for key, value in shorthands.items() if value is not None}
    set_part(values, "data", given)
    for name, value in settings.items():
        set_part(values, name, value)
    if steps is not None:
        if epochs is not None:
            raise UsageError("Both steps and epochs are given; name one of the two.")
        values["steps"] = steps
    _check_given(values, epochs)
    if chosen.get("init_weights") is not None:
        name = from_dict(values | {"steps": 1}).net.name
        chosen["init_weights"] = training.weights_file(chosen["init_weights"], name)
        sha256 = training.sha256(chosen["init_weights"])
        set_part(values, "net", {"init_weights_sha256": sha256})
    prepared = _opened(data)
    values.setdefault("data", {}).setdefault("fit", prepared.fit)
    if epochs is not None:
        epochs = _whole("epochs", epochs)
        wanted = from_dict(values | {"steps": 1})
        images = wanted.data.batch * wanted.optimizer.accumulate
        taken = folds.divide(prepared, wanted.data.folds, wanted.data.fold)
        count = wanted.data.used(len(taken.samples("train")))
        values["steps"] = math.ceil(count / images) * epochs
    wanted = from_dict(values)
    nets.get(wanted.net.name)
    training.check_installed(chosen.get("tensorboard", False))
    folder = Path(out)
    check_folder(folder)
    with backend.dtype_policy_kept():
        metrics = training.train(
            wanted, prepared.folder, folder, training.Options(**chosen)
        )
    # As recorded: what depends on the data is settled there
    recorded = from_dict(run_folder.read_identity(folder)["config"])
    return Run(folder, recorded, metrics)


def evaluate(
    run: str | PathLike[str],
    split: str = "val",
    *,
    full_size: bool = False,
    data: str | Path | None = None,
    threads: int | None = None,
) -> dict[str, Any]:
    """Score a run's best weights on a split.

    Args:
        run: a run (`Run`), its folder, or the folder of a stage: its winner.
        split: "train", "val" or "test".
        full_size: at each label's own size, with the logits resized to it; otherwise
            at the run's size, as in training.
        data: the prepared folder, if it was moved.
        threads: intra-op threads; None is the number of cores.

    Returns:
        As `Run.metrics`. It is also stored in the run's folder, evaluation/.
    """
    folder = run_folder.find_run(Path(run))
    place = Path(data or run_folder.read_environment(folder)["data"])
    with backend.dtype_policy_kept():
        return training.evaluate(folder, place, split, threads, full_size)


def predict_split(
    run: str | PathLike[str],
    split: str = "test",
    out: str | Path | None = None,
    *,
    data: str | Path | None = None,
    threads: int | None = None,
    force: bool = False,
) -> Path:
    """Write the predictions of a split as pictures, whether it has labels or not.

    Args:
        run: a run (`Run`), its folder, or the folder of a stage: its winner.
        split: "train", "val", "test" or another of the prepared folder.
        out: the folder; None is RUN/evaluation/<split>-predictions.
        data: the prepared folder, if it was moved.
        threads: intra-op threads; None is the number of cores.
        force: replace predictions of another model.

    Returns:
        The folder, with what `keras_seg.runs.predict_files` writes.
    """
    from keras_seg.runs import predict, predict_files

    folder = run_folder.find_run(Path(run))
    prepared = _data_of(folder, data)
    files = [sample.image for sample in prepared.samples(split)]
    model = predict.load(folder, prepared.folder, threads=threads)
    place = Path(out or folder / "evaluation" / f"{split}-predictions")
    images = files if isinstance(prepared, folds.Fold) else [files[0].parent]
    done = predict_files.predict_files(model, images, place, force=force)
    for error in done.errors:
        raise error
    return place


def is_labelled(
    run: str | PathLike[str], split: str, data: str | Path | None = None
) -> bool:
    """Whether a split has labels: a pixel at least that is not ignored."""
    prepared = _data_of(run_folder.find_run(Path(run)), data)
    return bool(prepared.counts(split).pixels.any())


def _data_of(folder: Path, data: str | Path | None) -> Prepared:
    prepared = open_prepared(data or run_folder.read_environment(folder)["data"])
    return run_folder.as_trained(prepared, run_folder.load_best(folder)[1])


def export(
    run: str | PathLike[str],
    format: str = "saved_model",
    out: str | Path | None = None,
    **options: Any,
) -> Path:
    """Write a run's best weights as a model that predicts without this package.

    Args:
        run: a run (`Run`), its folder, or the folder of a stage: its winner.
        format: a key of `keras_seg.runs.export.FORMATS`.
        out: the model's folder; None is RUN/export/<format>.
        **options: data, threads, images, size, as `keras_seg.runs.export.export`.

    Returns:
        The model's folder.
    """
    with backend.dtype_policy_kept():
        return exporting.export(
            Path(run), None if out is None else Path(out), format, **options
        )


# The parts, for scripts that call `net.fit` themselves


@dataclass(frozen=True)
class _Built:
    """What a network was built for."""

    settings: NetSettings
    num_classes: int


_BUILT: "weakref.WeakKeyDictionary[keras.Model, _Built]" = weakref.WeakKeyDictionary()


def build(
    net: str,
    size: tuple[int, int],
    data: Data | int,
    *,
    filter_scale: int = 1,
    **knobs: Any,
) -> "keras.Model":
    """A network with fresh weights for the classes of `data`: an ordinary keras.Model.

    Args:
        net: a key of `keras_seg.nets.NETS`.
        size: (height, width) of its input, px.
        data: the prepared folder, or the number of classes.
        filter_scale: factor on the network's widths.
        **knobs: the network's own options.

    Returns:
        keras.Model of float32 images [B, H, W, 3], normalised as `batches` does, to a
        dict of raw outputs; "logits" is the main head.
    """
    if isinstance(data, int | numbers.Integral):
        count = int(data)
    else:
        count = _opened(data).labels.num_classes
    try:
        height, width = size
    except (TypeError, ValueError):
        raise UsageError(f"size is {size!r}; it must be (height, width).") from None
    shape = (_whole("The height", height), _whole("The width", width), 3)
    backend.configure()
    model = nets.build(net, shape, count, filter_scale=filter_scale, **knobs)
    settings = NetSettings(name=net, filter_scale=filter_scale, knobs=knobs)
    _BUILT[model] = _Built(settings, count)
    return model


def compile_arguments(net: "keras.Model") -> dict[str, Any]:
    """What `net.compile` needs beside an optimizer: every head's loss, and the mIoU.

    `keras_seg.losses.compile_arguments` takes other losses and weights as well.
    """
    from keras_seg import losses

    return losses.compile_arguments(net, loss_weights=nets.head_weights(net))


def batches(
    data: Data,
    split: str,
    net: "keras.Model",
    batch: int = 16,
    *,
    augment: Augment | Mapping[str, Any] | None = None,
    fit: str | None = None,
    seed: int = 0,
    workers: int = 2,
) -> "tf.data.Dataset | keras.utils.PyDataset":
    """A split as batches for `net.fit` and `net.evaluate`.

    "train" is shuffled anew each time that it is iterated, so in every epoch: an epoch
    is ceil(images / batch) whole batches, of the order that `train` has with this seed.
    Any other split is passed once, in order; its last batch may be smaller.

    Args:
        data: the prepared folder.
        split: "train", "val" or "test".
        net: from `build`; its size, its normalisation and its heads are used.
        batch: images per batch.
        augment: random changes of the split "train"; None is none.
        fit: "stretch" images to the network's size, or "letterbox" them; None:
            letterbox own photographs.
        seed: of order and augmentation.
        workers: batches made at a time.

    Returns:
        tf.data.Dataset of (float32 images [B, H, W, 3], {head: its target}); with
        another backend than TensorFlow, a keras.utils.PyDataset of NumPy arrays.
    """
    built = _built(net)
    prepared = _opened(data)
    if prepared.labels.num_classes != built.num_classes:
        raise UsageError(
            f"The network {net.name} was built for {built.num_classes} classes, but "
            f"{prepared.folder} has {prepared.labels.num_classes}."
        )
    batch, workers = _whole("batch", batch), _whole("workers", workers)
    seed = _whole("seed", seed, least=0)
    changes = config.part("augment", {} if augment is None else augment)
    assert isinstance(changes, Augment)
    if split != "train" and changes != Augment():
        raise UsageError(f"augment changes the split train alone, not {split}.")
    samples = pipeline.Samples(
        prepared, split, net.input_shape[1:3], fit=fit or prepared.fit
    )
    settings = built.settings
    feed = pipeline.Feed(
        samples,
        batch=batch,
        preprocess=nets.get(settings.name).preprocess,
        heads=nets.heads(settings.name, built.num_classes, **settings.knobs),
        joints="centroid" if samples.joints is None else "surreal",
        workers=workers,
    )
    length = math.ceil(len(feed.samples) / feed.batch)

    def epoch(number: int) -> pipeline.Batches:
        if split != "train":
            return feed.evaluation()
        start = number * length
        return feed.training(seed, changes, start, start + length)

    if backend.name() != "tensorflow":
        return _py_dataset(epoch, length)
    if split != "train":
        return feed.evaluation().dataset()
    import tensorflow as tf

    # Keras' remark that it does not shuffle a tf.data.Dataset: this one shuffles.
    warnings.filterwarnings("ignore", "`shuffle=True` was passed", UserWarning)
    numbers = itertools.count()
    return (
        tf.data.Dataset.from_generator(
            lambda: iter(epoch(next(numbers))),
            output_signature=epoch(0).dataset().element_spec,
        )
        .apply(tf.data.experimental.assert_cardinality(length))
        .prefetch(pipeline.PREFETCHED)
    )


def _py_dataset(
    epoch: Callable[[int], Iterable], length: int
) -> "keras.utils.PyDataset":
    """Epochs of `length` batches; `epoch` gives those of one, counted from 0."""
    import keras

    class Epochs(keras.utils.PyDataset):
        """Batches in their own order, whichever index Keras asks for."""

        number, given = 0, 0
        stream: Iterator | None = None

        def __len__(self):
            return length

        def __getitem__(self, index):
            if self.stream is None:
                self.stream, self.given = iter(epoch(self.number)), 0
            self.given += 1
            return next(self.stream)

        def on_epoch_end(self):
            if self.given == length:
                self.number += 1
            if self.given in (0, 1, length):  # 1: Keras has looked at the shapes
                self.stream = None

        def __iter__(self):
            self.number += 1
            yield from epoch(self.number - 1)

    return Epochs()


def _built(net: "keras.Model") -> _Built:
    if net not in _BUILT:
        raise UsageError(
            f"The network {net.name} was not made by keras_seg.build in this process, "
            "so its heads and its normalisation are unknown. Build it with "
            "keras_seg.build and load its weights into it."
        )
    return _BUILT[net]


# Settings


def read_config(
    source: Config | Mapping[str, Any] | str | Path | None,
) -> dict[str, Any]:
    """The settings of a configuration or a JSON file, in parts; {} of None."""
    if source is None:
        return {}
    if isinstance(source, Config):
        return config.to_dict(source)
    if isinstance(source, str | Path):
        file = Path(source)
        try:
            source = json.loads(file.read_text("utf-8"))
        except OSError as error:
            raise UsageError(f"{file} cannot be read: {error.strerror}.") from error
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{file} is not JSON: {error}.") from error
        if not isinstance(source, Mapping):
            raise UsageError(f"{file} holds no JSON object of settings.")
        try:
            source = storage.without_hash(source)
        except ValueError:
            note(f"warning: {file} was changed since a run wrote it; it is taken so.")
            source = {k: v for k, v in source.items() if k != storage.HASH}
    is_of_a_run = isinstance(source.get("config"), Mapping)  # its config.json
    return config.nest(source["config"] if is_of_a_run else source)


def set_part(values: dict[str, Any], name: str, value: Any) -> None:
    """Override the settings that `value` names, in the part `name` of nested values.

    Another network replaces the old one with all its options; options without a
    network are those of the network that is named then.
    """
    if name == "net" and isinstance(value, str):
        value = {"name": value}
    value = config.plain(value)
    if name == "net" and isinstance(value, Mapping):
        old = values.get("net", {}).get("name")
        if old is not None and value.get("name", old) != old:
            values["net"] = {}
    if not isinstance(value, Mapping):
        config.set_path(values, name, value)
        return
    for key, one in value.items():
        config.set_path(values, f"{name}.{key}", one)


def _check_given(values: Mapping[str, Any], epochs: int | None) -> None:
    is_given = {
        "net": "net" in values,
        "size": "size" in values.get("data", {}),
        "steps": "steps" in values or epochs is not None,
    }
    missing = [name for name, given in is_given.items() if not given]
    if missing:
        names = " and ".join(filter(None, [", ".join(missing[:-1]), missing[-1]]))
        raise UsageError(
            f"{names} must be given: --net NET, --size H W, --steps N or --epochs N; "
            "or name a configuration that has them."
        )


def _whole(name: str, value: Any, least: int = 1) -> int:
    if not isinstance(value, numbers.Integral) or value < least:
        raise UsageError(
            f"{name} is {value!r}; it must be a whole number from {least}."
        )
    return int(value)


def _opened(data: Data) -> Prepared:
    if not isinstance(data, Prepared | str | PathLike):
        raise UsageError(f"data is a {type(data).__name__}; name a prepared folder.")
    return data if isinstance(data, Prepared) else open_prepared(data)
