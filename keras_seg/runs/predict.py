"""A trained network as an object: load it once, give it pictures of any size.

model = keras_seg.load("runs/mine")  # a run, or an export of one
ids = model("street.jpg")  # uint8 [H, W], as large as the photograph
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import overload

import cv2
import numpy as np
from PIL import Image

from keras_seg import backend, nets, storage
from keras_seg.config import from_dict
from keras_seg.data import voc
from keras_seg.data.images import MAX_PIXELS, fitted, on_canvas, resize_image
from keras_seg.data.prepared import Prepared, open_prepared
from keras_seg.errors import UsageError, memory_failure_named
from keras_seg.labels import LabelSpec
from keras_seg.runs import checkpoint, engines, export, fastest
from keras_seg.runs import folder as run_folder
from keras_seg.runs.pictures import Picture, Size, pixels

# Logits at a picture's size held at a time, of all classes: 64 MB
BLOCK_VALUES = 1 << 24
WHOLE = 1 << 20  # pixels that a network takes at once where `scale` or `size` is given
TILE, OVERLAP = (512, 512), 128  # what it takes at once of larger ones, and twice

Run = str | PathLike[str]
# uint8 RGB [N, h, w, 3] of a network's size or smaller -> float32 [N, h, w, C]
Logits = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Options:
    """How pictures are predicted.

    Attributes:
        flip: predict the mirrored picture as well, with left and right exchanged where
            the classes know them, and average the probabilities.
        size: (height, width) in pixels at which the network works; None is the run's.
            Pictures fit into it as in training, stretched or letterboxed.
        scale: instead of `size`: a factor on each picture's own size. Its aspect ratio
            is kept; 1 is the picture as it is.
        tile: (height, width) of what the network takes at once where `size` or `scale`
            is given. None is `TILE`, and only for more than `WHOLE` pixels.
        overlap: pixels that neighbouring tiles share. Each predicts its half of them,
            so a tile gives what the whole would give wherever the network sees no
            further than half of the overlap.
    """

    flip: bool = False
    size: Size | None = None
    scale: float | None = None
    tile: Size | None = None
    overlap: int = OVERLAP

    def __post_init__(self):
        if self.size is not None and self.scale is not None:
            raise UsageError("Both size and scale are given; give one of the two.")
        if self.scale is not None and not 0 < self.scale < math.inf:
            raise UsageError(f"scale is {self.scale}; it must be more than 0.")
        for name in ("size", "tile"):
            sides = getattr(self, name)
            if sides is not None and (len(sides) != 2 or min(sides) < 1):
                raise UsageError(f"{name} is {sides}; it must be (height, width).")
        if self.tile is not None and self.size is None and self.scale is None:
            raise UsageError(
                "tile is given, but the network takes every picture at the run's size. "
                "Give scale=1 for pictures at their own size, or another scale."
            )
        if self.overlap < 0:
            raise UsageError(f"overlap is {self.overlap}; it must be at least 0.")


@dataclass(frozen=True)
class Member:
    """One network of a `Predictor`, from a run or an export.

    Attributes:
        folder: the run or the export.
        labels: names and colours of the classes.
        size: (height, width) at which it was trained, px.
        stride: tiles begin at multiples of it.
        weights: what tells them from others: hash of the run's identity, and step.
        at: the network for images of a size.
        is_fixed: it takes images of `size` only, as exports do.
        levels: of 16-bit pictures, that were 0 and 255 in training; None: all.
        fit: how a picture fits into the size (`keras_seg.config.DataSettings`).
    """

    folder: Path
    labels: LabelSpec
    size: Size
    stride: int
    weights: str
    at: Callable[[Size], Logits]
    is_fixed: bool = False
    levels: tuple[int, int] | None = None
    fit: str = "stretch"


@dataclass(frozen=True)
class Block:
    """A part of a picture with what is predicted there.

    Attributes:
        rows, columns: where it is.
        planes: float32 [C, h, w]; probabilities, or logits where there is one network.
        is_last: of its rows.
    """

    rows: slice
    columns: slice
    planes: np.ndarray
    is_last: bool

    def ids(self) -> np.ndarray:
        """uint8 [h, w]: the class of the largest value; the first of equal ones."""
        # With OpenCV: NumPy's argmax over the first axis takes ten times as long.
        best = self.planes[0].copy()
        ids = np.zeros(best.shape, np.uint8)
        for class_id, plane in enumerate(self.planes[1:], 1):
            is_better = cv2.compare(plane, best, cv2.CMP_GT)
            cv2.copyTo(np.full_like(ids, class_id), is_better, ids)
            cv2.max(plane, best, dst=best)
        return ids


class Predictor:
    """Trained networks that take pictures as they are; made by `load`.

    Attributes:
        folder: the run or the export it is from; the first of several.
        labels: names and colours of the classes.
        size: (height, width) in pixels at which the (first) network was trained.
        members: the networks, whose probabilities are averaged.
        options: how pictures are predicted.
    """

    def __init__(self, members: Sequence[Member], options: Options | None = None):
        self.members, self.options = tuple(members), options or Options()
        first = self.members[0]
        self.folder, self.labels, self.size = first.folder, first.labels, first.size
        for member in self.members[1:]:
            if member.labels.names != self.labels.names:
                raise UsageError(
                    f"{member.folder} has the classes "
                    f"{', '.join(member.labels.names)}, but {first.folder} has "
                    f"{', '.join(self.labels.names)}. Only runs with equal classes "
                    "predict together."
                )
        self._stride = math.lcm(*(member.stride for member in self.members))
        self._flip_table = self.labels.flip_table()[: self.labels.num_classes]
        fixed = [member for member in self.members if member.is_fixed]
        for member in fixed:
            if self.options.size not in (None, member.size):
                raise UsageError(
                    f"The export {member.folder} takes images of {_text(member.size)} "
                    f"pixels only. Export the run with --size "
                    f"{_text(self.options.size or (0, 0)).replace(' x ', ' ')}."
                )
            tile = self.options.tile or member.size
            if self.options.scale is not None and tile != member.size:
                raise UsageError(
                    f"The export {member.folder} takes tiles of {_text(member.size)} "
                    f"pixels only, not {_text(tile)}."
                )
        self._tile = fixed[0].size if fixed else self._aligned(self.options.tile)

    def _aligned(self, tile: Size | None) -> Size | None:
        """A tile whose sides are multiples of the networks' strides."""
        if tile is None:
            return None
        height, width = (-(-side // self._stride) * self._stride for side in tile)
        return height, width

    @overload
    def predict(self, images: Picture) -> np.ndarray: ...
    @overload
    def predict(self, images: Sequence[Picture]) -> list[np.ndarray]: ...
    def predict(self, images):
        """The class of every pixel, at each picture's own size.

        The picture is resized to the networks' size (`Options`), as in training, and
        the logits are resized back bilinearly before the class is chosen.

        Args:
            images: a picture file, whose EXIF orientation is respected, or a uint8 RGB
                array [H, W, 3] of any size, or Pillow's image in the mode RGB; or a
                list of these.

        Returns:
            uint8 class ids [H, W]; a list of them for a list.

        Raises:
            DataError: a file cannot be read; it is named.
            UsageError: an array of another shape or type.
        """
        if isinstance(images, Picture) or not isinstance(images, Iterable):
            return self._ids(self.read(images))
        return [self._ids(self.read(image)) for image in images]

    __call__ = predict

    def read(self, picture: Picture) -> np.ndarray:
        """uint8 RGB [H, W, 3] of a picture, as in training; errors as of `predict`."""
        return pixels(picture, self.members[0].levels)

    def _ids(self, image: np.ndarray) -> np.ndarray:
        ids = np.empty(image.shape[:2], np.uint8)
        for block in self.blocks(image):
            ids[block.rows, block.columns] = block.ids()
        return ids

    def probabilities(self, image: Picture) -> np.ndarray:
        """float32 [H, W, C] of one picture, as of `predict`; C classes, sum 1."""
        picture = self.read(image)
        shape = (*picture.shape[:2], self.labels.num_classes)
        found = np.empty(shape, np.float32)
        for block in self.blocks(picture, probabilities=True):
            found[block.rows, block.columns] = np.moveaxis(block.planes, 0, -1)
        return found

    # In parts, for many pictures at a time and for large ones

    def sizes(self, picture: Size) -> list[Size] | None:
        """At which size each network works on a picture; None where it is in tiles."""
        if self.options.size is None and self.options.scale is None:
            return [member.size for member in self.members]
        size = self._working_size(picture)
        is_whole = (
            size[0] * size[1] <= WHOLE
            if self._tile is None
            else size[0] <= self._tile[0] and size[1] <= self._tile[1]
        )
        return [size for _ in self.members] if is_whole else None

    def _working_size(self, picture: Size) -> Size:
        if self.options.scale is None:
            return self.options.size or self.size
        height, width = (max(1, round(side * self.options.scale)) for side in picture)
        return height, width

    def inputs(self, image: np.ndarray) -> list[np.ndarray] | None:
        """The picture at the size of each network: uint8 [h, w, 3]; None: in tiles."""
        picture = (image.shape[0], image.shape[1])
        sizes = self.sizes(picture)
        if sizes is None:
            return None
        insides = [self._inside(*each, picture) for each in zip(self.members, sizes)]
        how = list(zip(sizes, insides))
        made = {
            (size, inside): on_canvas(
                _working_rows(image, inside, 0, inside[0]), size, 0
            )
            for size, inside in set(how)
        }
        return [made[each] for each in how]

    def _inside(self, member: Member, size: Size, picture: Size) -> Size:
        """What of a network's image of a size is the picture."""
        if self.options.scale is not None:  # has the picture's aspect ratio
            return size
        return fitted(picture, size, member.fit)

    def logits(
        self, inputs: Sequence[np.ndarray], pictures: Sequence[Size]
    ) -> list[np.ndarray]:
        """Each network's float32 [N, h, w, C] of its uint8 [N, h, w, 3].

        Args:
            inputs: of each network, from `inputs`.
            pictures: the sizes of the first ones of the N; what follows fills a batch.
        """
        found = []
        for member, images in zip(self.members, inputs):
            size = (images.shape[1], images.shape[2])
            widths = [self._inside(member, size, picture)[1] for picture in pictures]
            with memory_failure_named():
                found.append(self._with_flip(member.at(size), images, widths))
        return found

    def _with_flip(
        self, network: Logits, images: np.ndarray, widths: Sequence[int]
    ) -> np.ndarray:
        """`widths` of the pictures in the images; beside them is nothing."""
        logits = network(images)
        if not self.options.flip:
            return logits
        mirrored = _mirrored(network(_mirrored(images, widths)), widths)
        found = softmax(logits, -1) + softmax(mirrored[..., self._flip_table], -1)
        return _log(found / 2)

    def blocks(
        self,
        image: np.ndarray,
        logits: Sequence[np.ndarray] | None = None,
        probabilities: bool = False,
    ) -> Iterator[Block]:
        """Predict a picture block by block, row by row, each row from left to right.

        Args:
            image: uint8 RGB [H, W, 3].
            logits: each network's [h, w, C] of `inputs`, where they are there already.
            probabilities: also where logits would do.
        """
        picture = (image.shape[0], image.shape[1])
        if logits is None and (inputs := self.inputs(image)) is not None:
            stacked = [one[None] for one in inputs]
            logits = [one[0] for one in self.logits(stacked, [picture])]
        if logits is None:
            yield from self._tiled(image, probabilities)
            return
        parts = []
        for member, one in zip(self.members, logits):
            inside = self._inside(member, (one.shape[0], one.shape[1]), picture)
            parts.append(_Part(one[: inside[0], : inside[1]], (0, 0), inside))
        height, width = picture
        step = max(1, BLOCK_VALUES // (width * self.labels.num_classes))
        for top in range(0, height, step):
            rows = slice(top, min(top + step, height))
            columns = slice(0, width)
            planes = self._planes(parts, picture, rows, columns, probabilities)
            yield Block(rows, columns, planes, is_last=True)

    def _tiled(self, image: np.ndarray, probabilities: bool) -> Iterator[Block]:
        picture = (image.shape[0], image.shape[1])
        size = self._working_size(picture)
        size = self._inside(self.members[0], size, picture)
        tile = self._tile or self._aligned(TILE)
        assert tile is not None
        vertical, horizontal = (
            _tiles(side, length, self.options.overlap, self._stride)
            for side, length in zip(size, tile)
        )
        # Where a side needs one tile only, its network is as small as the side.
        sides = zip((vertical, horizontal), size, tile)
        shape = tuple(side if len(n) == 1 else length for n, side, length in sides)
        networks = [member.at((shape[0], shape[1])) for member in self.members]
        is_small = max(size[0] * size[1], picture[0] * picture[1]) <= MAX_PIXELS
        whole = _working_rows(image, size, 0, size[0]) if is_small else None
        across = [
            (x, columns)
            for x, left, right in horizontal
            if (columns := _scaled(left, right, size[1], picture[1])) is not None
        ]
        for y, top, bottom in vertical:
            rows = _scaled(top, bottom, size[0], picture[0])
            if rows is None:
                continue
            end = min(y + tile[0], size[0])
            if whole is None:
                band = _working_rows(image, size, y, end)
            else:
                band = whole[y:end]
            for x, columns in across:
                part = np.ascontiguousarray(band[None, :, x : x + tile[1]])
                with memory_failure_named():
                    widths = [part.shape[2]]
                    found = [self._with_flip(one, part, widths) for one in networks]
                parts = [_Part(one[0], (y, x), size) for one in found]
                planes = self._planes(parts, picture, rows, columns, probabilities)
                is_last = columns.stop == picture[1]
                yield Block(rows, columns, planes, is_last)

    def _planes(
        self,
        parts: "Sequence[_Part]",
        picture: Size,
        rows: slice,
        columns: slice,
        probabilities: bool,
    ) -> np.ndarray:
        if len(parts) == 1:
            planes = parts[0].resized(picture, rows, columns)
            return softmax(planes, 0) if probabilities else planes
        found = softmax(parts[0].resized(picture, rows, columns), 0)
        for part in parts[1:]:
            found += softmax(part.resized(picture, rows, columns), 0)
        found /= len(parts)
        return found


@dataclass(frozen=True)
class _Part:
    """Logits [t, u, C] of a tile at `origin` (y, x) of a working image of `size`."""

    logits: np.ndarray
    origin: Size
    size: Size

    def resized(self, picture: Size, rows: slice, columns: slice) -> np.ndarray:
        """float32 [C, h, w]: rows and columns of what is as large as the picture.

        Bilinear with half-pixel centres, as the networks' own resizing.
        """
        y, x = self.origin
        if picture == self.size:
            part = self.logits[
                rows.start - y : rows.stop - y, columns.start - x : columns.stop - x
            ]
            return _planes(part)
        low, high, share = _between(rows, self.size[0], picture[0], y, len(self.logits))
        share = share[:, None, None]
        part = self.logits[low] * (1 - share) + self.logits[high] * share
        planes = _planes(part)  # [C, h, u]
        width = columns.stop - columns.start
        if planes.shape[2] == self.size[1] and width == picture[1]:
            shape = (width, planes.shape[1])
            return np.stack([cv2.resize(plane, shape) for plane in planes])
        low, high, share = _between(
            columns, self.size[1], picture[1], x, planes.shape[2]
        )
        return planes[..., low] * (1 - share) + planes[..., high] * share


def _planes(values: np.ndarray) -> np.ndarray:
    """float32 [h, w, C] to [C, h, w]."""
    height, width, count = values.shape
    flat = np.ascontiguousarray(values, np.float32).reshape(-1, count)
    return cv2.transpose(flat).reshape(count, height, width)


def _between(
    places: slice, size: int, picture: int, origin: int, length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which two of `length` values from `origin` a place is between, and where."""
    exact = (np.arange(places.start, places.stop) + 0.5) * (size / picture) - 0.5
    exact = exact.clip(0, size - 1)
    low = np.floor(exact).astype(int)
    share = (exact - low).astype(np.float32)
    return (
        (low - origin).clip(0, length - 1),
        (low + 1 - origin).clip(0, length - 1),
        share,
    )


def _tiles(
    side: int, length: int, overlap: int, stride: int
) -> list[tuple[int, int, int]]:
    """(start, first, end) of tiles along a side: where each begins, what it predicts.

    Starts are multiples of the stride, and the last tile ends where the side padded to
    the stride does, so that every tile sees the padding that the whole would.
    """
    padded = -(-side // stride) * stride
    if padded <= length:
        return [(0, 0, side)]
    step = (length - overlap) // stride * stride
    if step < 1:
        raise UsageError(
            f"Tiles of {length} pixels cannot share {overlap} of them: the network "
            f"needs steps of {stride}. Use larger tiles or a smaller overlap."
        )
    starts = [*range(0, padded - length, step), padded - length]
    cuts = [(a + length + b) // 2 for a, b in zip(starts, starts[1:])]
    return list(zip(starts, [0, *cuts], [*cuts, side]))


def _mirrored(arrays: np.ndarray, widths: Sequence[int]) -> np.ndarray:
    """[N, h, w, ...] with the first columns, as many as `widths` says, mirrored."""
    found = arrays.copy()
    for one, source, width in zip(found, arrays, widths):
        one[:, :width] = source[:, :width][:, ::-1]
    return found


def _scaled(first: int, end: int, size: int, picture: int) -> slice | None:
    """The pixels of a picture that a range of its working image stands for, if any."""
    start, stop = round(first * picture / size), round(end * picture / size)
    return slice(start, stop) if start < stop else None


def _working_rows(image: np.ndarray, size: Size, first: int, end: int) -> np.ndarray:
    """Rows of the image resized to `size`, as `resize_image` does: uint8 [n, w, 3].

    A large picture is resized in parts, which costs less memory.
    """
    height, width = size
    if image.shape[:2] == size:
        return image[first:end]
    is_whole = (first, end) == (0, height)
    if is_whole and image.shape[0] * image.shape[1] <= MAX_PIXELS:
        return resize_image(np.ascontiguousarray(image), size)[first:end]
    scale = image.shape[0] / height
    step = max(1, int(MAX_PIXELS / 4 / image.shape[1] / scale))
    found = np.empty((end - first, width, 3), np.uint8)
    for top in range(first, end, step):
        bottom = min(top + step, end)
        # What the filter sees beyond the rows it makes
        start = max(0, math.floor((top - 1) * scale) - 2)
        stop = min(len(image), math.ceil((bottom + 1) * scale) + 2)
        part = Image.fromarray(np.ascontiguousarray(image[start:stop]))
        box = (0, top * scale - start, image.shape[1], bottom * scale - start)
        shape = (width, bottom - top)
        made = part.resize(shape, Image.Resampling.BILINEAR, box=box)
        found[top - first : bottom - first] = np.asarray(made)
    return found


def softmax(values: np.ndarray, axis: int) -> np.ndarray:
    """float32, over an axis."""
    powers = np.exp(values - values.max(axis, keepdims=True))
    powers /= powers.sum(axis, keepdims=True)
    return powers


def _log(probabilities: np.ndarray) -> np.ndarray:
    """Logits but for a constant of each pixel, which changes no choice of a class."""
    return np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))


def _text(size: Size) -> str:
    return f"{size[0]} x {size[1]}"


# Loading


def predict(model: Predictor | Run, images):
    """`Predictor.predict` of a run, an export or a loaded model.

    It loads a run each time: for many calls, `load` it once.
    """
    if not isinstance(model, Predictor):
        model = load(model)
    return model.predict(images)


def load(
    run: Run | Sequence[Run],
    data: str | Path | None = None,
    *,
    engine: str | None = None,
    threads: int | None = None,
    flip: bool = False,
    size: Size | None = None,
    scale: float | None = None,
    tile: Size | None = None,
    overlap: int = OVERLAP,
) -> Predictor:
    """Load a run's best weights, or an export, to predict with.

    Args:
        run: a run, its folder, that of a stage (its winner; with folds the run of
            each), or that of an export; or several of these. The probabilities of
            several are averaged.
        data: the prepared folder of the run, if it was moved. Only a run that
            multiplies its logits by class weights in prediction needs it, and one that
            another engine than Keras is to run.
        engine: what computes: a key of `keras_seg.runs.engines.ENGINES`, or "auto",
            the fastest here (measured once); None is Keras, and of an export the
            runtime of its format.
        threads: of the engine; None is the number of cores.
        flip, size, scale, tile, overlap: as of `Options`.

    Raises:
        UsageError: the folder holds neither, or an engine is not installed.
        StorageError: what it holds is damaged.
    """
    options = Options(flip, size, scale, tile, overlap)
    places = [run] if isinstance(run, str | PathLike) else list(run)
    if not places:
        raise UsageError("No run is named.")
    where = None if data is None else Path(data)
    is_own_size = size is None and scale is None  # else that network is not needed
    members = [
        _load(folder, where, engine, threads, is_own_size)
        for place in places
        for folder in run_folder.find_runs(Path(place))
    ]
    return Predictor(members, options)


def _load(
    folder: Path,
    data: Path | None,
    engine: str | None,
    threads: int | None,
    is_own_size: bool,
) -> Member:
    if folder.is_file() and (folder.parent / export.RECORD).is_file():
        folder = folder.parent  # model.onnx itself was named
    if (folder / export.RECORD).is_file():
        return _load_export(folder, engine, threads)
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
    backend.configure()
    if threads is not None and backend.name() == "tensorflow":
        backend.set_threads(threads)
    if engine in (None, engines.NATIVE):
        return _load_run(folder, data, is_own_size)

    def native() -> Callable[[np.ndarray], object]:
        member = _load_run(folder, data)
        return member.at(member.size)

    chosen = fastest.choose(folder, engine, native, data, threads)
    if chosen is None:
        return _load_run(folder, data, is_own_size)
    return _load_export(chosen.folder, chosen.engine, threads)


def _load_run(folder: Path, data: Path | None, is_own_size: bool = True) -> Member:
    arrays, identity = run_folder.load_best(folder)
    config = from_dict(identity["config"])
    backend.configure()
    import keras

    from keras_seg.runs.evaluate import Network

    backend.replace_operations()
    names = tuple(identity["data"]["classes"])
    prepared = _prepared(folder, data, identity)
    labels = run_folder.read_labels(folder)
    if labels is None and prepared is not None:
        labels = prepared.labels
    if labels is None:  # of a version that did not keep the colours
        labels = LabelSpec(names, voc.palette(len(names)))
    is_weighted = config.loss.strategy == "direct" and config.loss.direct_at_inference
    if is_weighted and prepared is None:
        raise UsageError(
            f"The run in {folder} multiplies its logits by class weights of its "
            "data, which are not where they were. Name the prepared folder: data."
        )

    @lru_cache(maxsize=8)
    def at(size: Size) -> Logits:
        sized = config
        if size != config.data.size:
            sized = config.changed(data={"size": size, "pad": True})
        with backend.dtype_policy_kept():
            keras.config.set_dtype_policy(config.precision)
            network = Network(sized, len(names))
        # Paths of random generators count what was built before in this process, so
        # the weights are matched by position.
        variables = network.net.variables
        paths = (f"model/{n:04d}/{one.path}" for n, one in enumerate(variables))
        mine = sorted(name for name in arrays if name.startswith("model/"))
        renamed = dict(zip(paths, (arrays[name] for name in mine)))
        checkpoint.assign(variables, renamed, "model")
        weights = None
        if is_weighted and prepared is not None:
            weights = network.direct_weights(prepared)
        network.fix_weights()
        return lambda images: network.logits(images, weights)

    if is_own_size:  # what is wrong with the run is said by `load`
        at(config.data.size)
    stride = nets.input_stride(config.net.name, **config.net.knobs)
    weights = _weights(identity, (run_folder.read_metrics(folder) or {}).get("step"))
    levels = run_folder.read_levels(folder)
    size, fit = config.data.size, config.data.fit
    return Member(folder, labels, size, stride, weights, at, levels=levels, fit=fit)


def _prepared(folder: Path, data: Path | None, identity: dict) -> Prepared | None:
    """The run's prepared folder, for its colours; None where it is gone."""
    if data is None:
        return run_folder.own_data(folder, identity)
    prepared = open_prepared(data)
    if prepared.manifest_hash != identity["data"]["manifest"]:
        raise UsageError(f"{data} does not hold the data that {folder} was trained on.")
    return run_folder.as_trained(prepared, identity)


def _load_export(folder: Path, engine: str | None, threads: int | None) -> Member:
    record = export.read_record(folder)
    serve = engines.open_export(folder, record["format"], engine, threads)
    height, width = record["size"]
    colours = tuple(tuple(colour) for colour in record["palette"])
    pairs = tuple(tuple(pair) for pair in record.get("flip_pairs", ()))
    labels = LabelSpec(tuple(record["classes"]), colours, pairs)
    identity = run_folder.current_identity(record["run"], folder / export.RECORD)
    net = nets.get(identity["config"]["net"]["name"])

    def logits(images: np.ndarray) -> np.ndarray:
        rows, columns = images.shape[1:3]
        pad = [(0, 0), (0, height - rows), (0, width - columns), (0, 0)]
        _, probabilities = serve(np.pad(images, pad, mode="edge"))
        return _log(probabilities)[:, :rows, :columns]

    weights = _weights(identity, record["step"])
    size, fit = (height, width), identity["config"]["data"]["fit"]
    levels = record.get("levels")
    levels = None if levels is None else (int(levels[0]), int(levels[1]))
    return Member(
        folder, labels, size, net.stride, weights, lambda _: logits, True, levels, fit
    )


def _weights(identity: dict, step: int | None) -> str:
    return f"{storage.json_sha256(identity)[:16]} step {step}"
