"""What the datasets of image and mask files share: pairs, splits, conversion."""

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from keras_seg import storage
from keras_seg.data import Option, files, images
from keras_seg.data.prepared import Prepared
from keras_seg.data.splits import seeded_split
from keras_seg.data.writer import (
    AnyItem,
    NewSample,
    Notes,
    Options,
    write_prepared,
)
from keras_seg.errors import DataError, UsageError
from keras_seg.labels import IGNORE_ID, LabelSpec


@dataclass(frozen=True)
class RawPair:
    """An image and its mask as they were found; either may be missing."""

    split: str  # train, val or test; "" until it is decided
    id: str
    image: Path
    label: Path
    error: DataError | None = None  # why the pair is bad, where that is known already
    sequence: str = ""  # as of `prepared.Sample`
    # Where the mask is no file of pixels: makes class ids uint8 [H, W] for an image of
    # that (height, width), from `drawn_from`; DataError if it cannot.
    draw: Callable[[tuple[int, int]], np.ndarray] | None = None
    drawn_from: tuple[Path, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """The raw files of the pair: the image and what its label comes from."""
        return self.image, *((self.label,) if self.draw is None else self.drawn_from)


@dataclass(frozen=True)
class Reading:
    """How raw files are read; every dataset's default, which `folder` changes.

    Attributes:
        exif: what an EXIF orientation of an image means for its mask, of `EXIF`.
        levels: of 16-bit images, those that become 0 and 255; None measures them: the
            0.1th and 99.9th percentile of the training images.
        follow_links: whether links may lead out of the raw folder.
    """

    exif: str = "auto"
    levels: tuple[int, int] | None = None
    follow_links: bool = False


# "displayed", "stored": the mask is of the picture as it is seen, or as it is stored.
# "auto": what fits its size; where both do, as it is seen. "ignore": neither is turned.
EXIF = ("auto", "displayed", "stored", "ignore")
_LEFT_OUT = 1  # of 1,000 pixels, at either end of the levels of 16-bit images


SQUARE = Option(
    "square",
    "pad with zeros to a square of the longer side, centred, as CLOTH does; the border "
    "is of class 0",
    bool,
    default=True,
)


def source_folder(src: str | Path) -> Path:
    """--src as a path; UsageError where it is not a folder."""
    src = Path(src)
    if not src.is_dir():
        raise UsageError(f"--src {src} is not a folder. Name the raw data's.")
    return src


def read_list(path: Path) -> list[str]:
    """The stripped lines of a list file that are not empty; DataError without any."""
    lines = [line.strip() for line in files.read_text(path).splitlines()]
    lines = [line for line in lines if line]
    if not lines:
        raise DataError(f"{path} lists no samples: split {path.stem} is empty.")
    return lines


def inside(src: Path, name: str) -> Path:
    """The path of a listed name under --src; DataError where it leads out of it."""
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or not name.isprintable():
        raise DataError(f"The listed file {name!r} leads out of --src.")
    return src / pure


def pairs_of_folders(images: Path, masks: Path, split: str = "") -> list[RawPair]:
    """The files of two folders, paired by equal names without extension.

    Subfolders are searched too; `a/b.png` has the id a_b. A file without a partner
    makes a pair whose other path does not exist. What is no picture is left out.
    """
    by_name = [files.pictures(folder) for folder in (images, masks)]
    pairs = []
    for name in sorted(by_name[0].keys() | by_name[1].keys()):
        found = [files.get(name, []) for files in by_name]
        image = found[0][0] if found[0] else images / f"{name}.jpg"
        mask = found[1][0] if found[1] else masks / f"{name}.png"
        error = None
        if not found[0]:
            error = DataError(f"{mask} has no image of its name in {images}.")
        elif not found[1]:
            error = DataError(f"{image} has no mask of its name in {masks}.")
        for same in found:
            if len(same) > 1:
                error = DataError(f"{same[1]} has the same name as {same[0].name}.")
        pairs.append(RawPair(split, name.replace("/", "_"), image, mask, error))
    if not pairs:
        what = f": split {split} is empty" if split else ""
        raise DataError(f"{images} has no images{what}.")
    return pairs


def split_pairs(
    pairs: Sequence[RawPair], val_share: float, test_share: float
) -> list[RawPair]:
    """Give pairs a split by `seeded_split`; sequences stay together."""
    groups = {pair.id: pair.sequence or pair.id for pair in pairs}
    splits = seeded_split(groups, val_share, test_share)
    return [replace(pair, split=splits[pair.id]) for pair in pairs]


def first_of_each_split(items: Iterable[AnyItem], limit: int | None) -> list[AnyItem]:
    """The first `limit` items of each split, in their order."""
    kept, taken = [], Counter()
    for item in items:
        taken[item.split] += 1
        if limit is None or taken[item.split] <= limit:
            kept.append(item)
    return kept


def mark_duplicates(pairs: Sequence[RawPair]) -> list[RawPair]:
    """Give pairs whose split and id are another's an error.

    Case does not count: some file systems take A.png and a.png for one file.
    """
    seen: dict[tuple[str, str], RawPair] = {}
    marked = []
    for pair in pairs:
        first = seen.setdefault((pair.split, pair.id.casefold()), pair)
        if first is not pair:
            error = DataError(f"{pair.image} has the same id as {first.image}.")
            pair = replace(pair, error=error)
        marked.append(pair)
    return marked


def check_file(path: Path, root: Path | None) -> None:
    """DataError where a file is missing or a link leads out of the resolved `root`."""
    if not path.is_file():
        if path.is_symlink():
            raise DataError(f"{path} is a link to a file that is missing.")
        raise DataError(f"{path} is missing.")
    if root is not None and not path.resolve().is_relative_to(root):
        raise DataError(
            f"{path} is a link that leads out of --src. Own data: --follow-links."
        )


def kept_ids(labels: LabelSpec, void: Iterable[int] = ()) -> dict[int, int]:
    """{raw id: class id} where masks have the classes' own ids, and `void` ones."""
    return dict(enumerate(range(labels.num_classes))) | dict.fromkeys(void, IGNORE_ID)


def prepare_pairs(
    src: Path,
    out: str | Path,
    dataset: str,
    labels: LabelSpec,
    pairs: Sequence[RawPair],
    options: Options,
    *,
    ids: Mapping[int, int] | None = None,
    read_mask: Callable[[Path], np.ndarray] = images.read_raw_label,
    settings: Mapping[str, object] | None = None,
    square: bool = False,
    scored_ids: Sequence[int] | None = None,
    reading: Reading | None = None,
    notes: Notes | None = None,
    look: Callable[[list[RawPair], Notes], list[RawPair]] | None = None,
) -> tuple[Prepared, bool]:
    """Prepare the pairs of a dataset; see `write_prepared`.

    Args:
        src: the raw folder; links that lead out of it are refused.
        pairs: in the order of the splits' lists, which `options.limit` cuts.
        ids: {raw id: class id, or 255 to ignore it}; None is `kept_ids(labels)`.
            Other ids in a mask are an error.
        read_mask: path of a mask -> raw ids uint8 [H, W]; DataError if it is bad.
        settings: the dataset's own options.
        square: pad image and label with 0 to a square before resizing.
        reading: how images are read.
        notes: of the raw data, for `keras_seg.data.summary`.
        look: called with the pairs before the first is converted, if there is
            something to do; gives them back, the bad ones with their `error`.
    """
    unused = _unused(pairs)
    pairs = first_of_each_split(mark_duplicates(pairs), options.limit)
    reading = reading or Reading()
    conversion = _Conversion(
        src.resolve(),
        read_mask,
        kept_ids(labels) if ids is None else ids,
        options.size,
        square,
        reading,
    )
    notes = {} if notes is None else notes

    def items(stage: Path) -> list[RawPair]:
        found = pairs if look is None else look(pairs, notes)
        notes["unused"] = unused
        conversion.measure_levels(found, options.workers, notes)
        return found

    return write_prepared(
        out,
        dataset,
        labels,
        items,
        conversion,
        options,
        {**(settings or {}), "square": square, "source": _fingerprint(src, pairs)},
        scored_ids=scored_ids,
        notes=notes,
    )


def _fingerprint(src: Path, pairs: Sequence[RawPair]) -> str:
    """SHA-256 over names and sizes of the raw files, to notice changed ones.

    Times are left out, because copying changes them, and contents, because reading them
    takes as long as preparing. --overwrite is for what this misses.
    """
    lines = []
    for pair in pairs:
        line = [pair.split, pair.id]
        for path in pair.files:
            size = path.stat().st_size if path.is_file() else None
            line += [path.relative_to(src).as_posix(), size]
        lines.append(line)
    return storage.json_sha256(lines)


def _unused(pairs: Sequence[RawPair]) -> dict[str, int]:
    """{file extension: number} of the files beside those of the pairs.

    System files, descriptions, images that no list names: nothing is left out silently.
    """
    used = {path for pair in pairs for path in pair.files}
    unused: Counter[str] = Counter()
    for folder in sorted({path.parent for path in used}):
        if folder.is_dir():
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_file() and folder / entry.name not in used:
                        name = Path(entry.name)
                        unused[name.suffix.lower() or name.name] += 1
    return dict(sorted(unused.items()))


class _PixelBudget:
    """Lets pixels be converted at a time up to a number, or one image beyond it."""

    def __init__(self, pixels: int):
        self._free, self._total = pixels, pixels
        self._changed = threading.Condition()

    @contextmanager
    def spent(self, pixels: int) -> Iterator[None]:
        """Wait until so many pixels are free, and hold them in the block."""
        pixels = min(pixels, self._total)
        with self._changed:
            self._changed.wait_for(lambda: pixels <= self._free)
            self._free -= pixels
        try:
            yield
        finally:
            with self._changed:
                self._free += pixels
                self._changed.notify_all()


# A pixel takes about 20 bytes in work: whatever the workers, below 2 GB.
_BUDGET = _PixelBudget(images.MAX_PIXELS)


class _Conversion:
    """Makes the sample of a pair."""

    def __init__(
        self,
        root: Path,  # resolved, out of which no link leads
        read_mask: Callable[[Path], np.ndarray],
        ids: Mapping[int, int],
        size: tuple[int, int] | None,
        square: bool,
        reading: Reading,
    ):
        self.root, self.read_mask, self.ids = root, read_mask, ids
        self.size, self.square, self.reading = size, square, reading
        self.levels = reading.levels

    def measure_levels(
        self, pairs: Sequence[RawPair], workers: int, notes: Notes
    ) -> None:
        """Settle which levels of 16-bit images become 0 and 255."""
        with ThreadPoolExecutor(workers) as pool:
            images_of_train = [p.image for p in pairs if p.split == "train"]
            others = [p.image for p in pairs if p.split != "train"]
            paths = images_of_train + others
            deep = [
                path
                for path, is_deep in zip(paths, pool.map(images.is_deep, paths))
                if is_deep
            ]
            if not deep:
                return
            measured = set(deep).intersection(images_of_train) or deep
            if self.levels is None:
                counts = np.zeros(1 << 16, np.int64)
                for found in pool.map(_levels_of, sorted(measured)):
                    counts += found
                self.levels = _percentiles(counts)
        notes["levels"] = list(self.levels)
        notes["levels_measured"] = self.reading.levels is None

    def __call__(self, pair: RawPair) -> Iterator[NewSample]:
        if pair.error is not None:
            raise pair.error
        for path in pair.files:
            check_file(path, None if self.reading.follow_links else self.root)
        with _BUDGET.spent(images.count_pixels(pair.image)):
            yield self._sample(pair)  # it is encoded meanwhile

    def _sample(self, pair: RawPair) -> NewSample:
        exif = self.reading.exif
        raw = images.read_raw_image(pair.image, self.levels, exif != "ignore")
        image, content, notes = raw.pixels, raw.content, []
        if raw.is_deep:
            notes.append("deep")
        if pair.draw is None:
            label = self.read_mask(pair.label)
            label = images.map_ids(label, self.ids, pair.label)
        else:
            label = pair.draw(_stored_size(raw) if exif == "stored" else _shape(image))
            notes += [] if pair.drawn_from else ["without_mask"]
        if raw.orientation != 1:
            notes.append("turned")
            label = _as_displayed(label, raw, exif, notes)
        if image.shape[:2] != label.shape:
            raise DataError(
                f"{pair.label} has {_size(label)} pixels, but its image {_size(image)}."
            )
        if self.square:
            image, label = images.pad_to_square(image), images.pad_to_square(label)
        if self.size is not None:
            image = images.resize_image(image, self.size)
            label = images.resize_label(label, self.size)
        if image is raw.pixels and content is not None:
            image = content  # byte for byte
        sample = NewSample(pair.split, pair.id, image, label, raw.format)
        return replace(sample, sequence=pair.sequence, notes=tuple(notes))


def _shape(array: np.ndarray) -> tuple[int, int]:
    return array.shape[0], array.shape[1]


def _stored_size(raw: images.RawImage) -> tuple[int, int]:
    height, width = _shape(raw.pixels)
    return (width, height) if raw.orientation >= 5 else (height, width)


def _as_displayed(
    label: np.ndarray, raw: images.RawImage, exif: str, notes: list[str]
) -> np.ndarray:
    """The mask turned as its image was, where it belongs to the stored picture."""
    displayed, stored = _shape(raw.pixels), _stored_size(raw)
    fits_both = label.shape == displayed == stored
    if exif == "auto" and fits_both:
        notes.append("ambiguous")
    is_stored = exif == "stored" or (exif == "auto" and label.shape == stored)
    if is_stored and not (exif == "auto" and fits_both):
        notes.append("turned_masks")
        label = np.ascontiguousarray(images.turned(label, raw.orientation))
    return label


def _levels_of(path: Path) -> np.ndarray:
    try:
        return images.count_levels(path)
    except DataError:  # it is read and named later
        return np.zeros(1 << 16, np.int64)


def _percentiles(counts: np.ndarray) -> tuple[int, int]:
    """The lowest and the highest level, without the outermost pixels."""
    below, total = np.cumsum(counts), int(counts.sum())
    low = int(np.argmax(1000 * below > _LEFT_OUT * total))
    high = int(np.argmax(1000 * below >= (1000 - _LEFT_OUT) * total))
    return low, max(high, low + 1)


def _size(array: np.ndarray) -> str:
    return f"{array.shape[0]} x {array.shape[1]}"
