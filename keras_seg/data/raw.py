"""What the datasets of image and mask files share: pairs, splits, conversion."""

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from keras_seg import storage
from keras_seg.data import Option, files, images
from keras_seg.data.prepared import Prepared
from keras_seg.data.writer import AnyItem, NewSample, Options, write_prepared
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
    makes a pair whose other path does not exist. Hidden files are left out.
    """
    by_name = [_files_by_name(folder) for folder in (images, masks)]
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


def _files_by_name(folder: Path) -> dict[str, list[Path]]:
    """{path below the folder without extension: files}."""
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        below = path.relative_to(folder)
        if path.is_dir() and path.is_symlink():
            raise DataError(f"{path} is a link to a folder, which is not followed.")
        if path.is_file() and not any(part.startswith(".") for part in below.parts):
            files.setdefault(below.with_suffix("").as_posix(), []).append(path)
    return files


def split_pairs(
    pairs: Sequence[RawPair], val_share: float, test_share: float
) -> list[RawPair]:
    """Give pairs a split by `seeded_split`; sequences stay together."""
    groups = {pair.id: pair.sequence or pair.id for pair in pairs}
    splits = seeded_split(groups, val_share, test_share)
    return [replace(pair, split=splits[pair.id]) for pair in pairs]


def seeded_split(
    groups: Mapping[str, str], val_share: float, test_share: float
) -> dict[str, str]:
    """{id: split} of {id: group} by a shuffle with seed 0 of the sorted groups.

    Ids of one group get the same split. val and test get at least one id each, test
    none where its share is 0.
    """
    members: dict[str, list[str]] = {}
    for sample_id in sorted(groups):
        members.setdefault(groups[sample_id], []).append(sample_id)
    shuffled = sorted(members)
    random.Random(0).shuffle(shuffled)
    wanted = {
        split: max(1, round(share * len(groups))) if share else 0
        for split, share in (("val", val_share), ("test", test_share))
    }
    splits, taken = {}, {"val": 0, "test": 0}
    for group in shuffled:
        split = next((s for s in ("val", "test") if taken[s] < wanted[s]), "train")
        if split in taken:
            taken[split] += len(members[group])
        splits.update(dict.fromkeys(members[group], split))
    return splits


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


def check_file(path: Path, root: Path) -> None:
    """DataError where a file is missing or a link leads out of the resolved `root`."""
    if not path.is_file():
        raise DataError(f"{path} is missing.")
    if not path.resolve().is_relative_to(root):
        raise DataError(f"{path} is a link that leads out of --src.")


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
    """
    pairs = first_of_each_split(mark_duplicates(pairs), options.limit)
    root, ids = src.resolve(), kept_ids(labels) if ids is None else ids
    return write_prepared(
        out,
        dataset,
        labels,
        pairs,
        partial(_convert, root, read_mask, ids, options.size, square),
        options,
        {**(settings or {}), "square": square, "source": _fingerprint(src, pairs)},
        scored_ids=scored_ids,
    )


def _fingerprint(src: Path, pairs: Sequence[RawPair]) -> str:
    """SHA-256 over names and sizes of the raw files, to notice changed ones.

    Times are left out, because copying changes them, and contents, because reading them
    takes as long as preparing. --overwrite is for what this misses.
    """
    lines = []
    for pair in pairs:
        line = [pair.split, pair.id]
        for path in (pair.image, pair.label):
            size = path.stat().st_size if path.is_file() else None
            line += [path.relative_to(src).as_posix(), size]
        lines.append(line)
    return storage.json_sha256(lines)


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


def _convert(
    root: Path,
    read_mask: Callable[[Path], np.ndarray],
    ids: Mapping[int, int],
    size: tuple[int, int] | None,
    square: bool,
    pair: RawPair,
) -> Iterator[NewSample]:
    if pair.error is not None:
        raise pair.error
    for path in (pair.image, pair.label):
        check_file(path, root)
    with _BUDGET.spent(images.count_pixels(pair.image)):
        yield _sample(read_mask, ids, size, square, pair)  # it is encoded meanwhile


def _sample(
    read_mask: Callable[[Path], np.ndarray],
    ids: Mapping[int, int],
    size: tuple[int, int] | None,
    square: bool,
    pair: RawPair,
) -> NewSample:
    raw = images.read_raw_image(pair.image)
    label = images.map_ids(read_mask(pair.label), ids, pair.label)
    image, content = raw.pixels, raw.content
    if image.shape[:2] != label.shape:
        raise DataError(
            f"{pair.label} has {_size(label)} pixels, but its image {_size(image)}."
        )
    if square:
        image, label = images.pad_to_square(image), images.pad_to_square(label)
    if size is not None:
        image = images.resize_image(image, size)
        label = images.resize_label(label, size)
    if image is raw.pixels and content is not None:
        image = content  # byte for byte
    sample = NewSample(pair.split, pair.id, image, label, raw.format)
    return replace(sample, sequence=pair.sequence)


def _size(array: np.ndarray) -> str:
    return f"{array.shape[0]} x {array.shape[1]}"
