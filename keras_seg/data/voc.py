"""PASCAL VOC 2007 and 2012 segmentation: 20 classes and background.

Everingham et al. 2010, 2015; used by VOC07 (2007) and ATTN (2012, scored on val).
See datasets/voc.md.
"""

from pathlib import Path

from keras_seg.data import Option, raw
from keras_seg.data.prepared import Prepared
from keras_seg.data.writer import Options
from keras_seg.errors import DataError, UsageError
from keras_seg.labels import LabelSpec

YEARS = ("2007", "2012")
IMAGES, MASKS = "JPEGImages", "SegmentationClass"
LISTS = Path("ImageSets", "Segmentation")


def palette(count: int) -> tuple[tuple[int, int, int], ...]:
    """VOC's colours of ids 0..count-1: the id's bits dealt out to R, G, B in turn."""

    def level(class_id: int, channel: int) -> int:
        bits = (class_id >> (3 * place + channel) & 1 for place in range(3))
        return sum(bit << (7 - place) for place, bit in enumerate(bits))

    return tuple((level(i, 0), level(i, 1), level(i, 2)) for i in range(count))


_NAMES = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable "
    "dog horse motorbike person pottedplant sheep sofa train tvmonitor"
).split()
LABELS = LabelSpec(names=tuple(_NAMES), palette=palette(len(_NAMES)))

IDS = raw.kept_ids(LABELS, void=[255])  # the boundaries of objects
OPTIONS = (Option("year", "needed where --src has both years", choices=YEARS),)


def prepare(
    src: str | Path, out: str | Path, options: Options, year: str | None = None
) -> tuple[Prepared, bool]:
    """Prepare VOCdevkit or its folder VOC2007 or VOC2012, as voc2007 or voc2012."""
    src = raw.source_folder(src)
    folder = _year_folder(src, year)
    year = folder.name.removeprefix("VOC")
    withheld = "test" if year == "2012" else None
    pairs = [pair for pair in listed_pairs(folder) if pair.split != withheld]
    for split in ("train", "val"):
        if not any(pair.split == split for pair in pairs):
            raise DataError(f"{folder / LISTS / split}.txt is missing.")
    return raw.prepare_pairs(folder, out, f"voc{year}", LABELS, pairs, options, ids=IDS)


def listed_pairs(folder: Path) -> list[raw.RawPair]:
    """The pairs of train.txt, val.txt and test.txt, those of them that exist."""
    return [
        pair
        for split in ("train", "val", "test")
        if (folder / LISTS / f"{split}.txt").exists()
        for pair in pairs_of_list(folder, split, split)
    ]


def pairs_of_list(folder: Path, name: str, split: str) -> list[raw.RawPair]:
    """The pairs of one list file of a VOC layout: a name per line, spaces allowed."""
    pairs = []
    for listed in raw.read_list(folder / LISTS / f"{name}.txt"):
        image = raw.inside(folder / IMAGES, f"{listed}.jpg")
        if not image.is_file() and image.with_suffix(".png").is_file():
            image = image.with_suffix(".png")
        mask = raw.inside(folder / MASKS, f"{listed}.png")
        pairs.append(raw.RawPair(split, listed.replace("/", "_"), image, mask))
    return pairs


def _year_folder(src: Path, year: str | None) -> Path:
    if (src / MASKS).is_dir():
        if src.name not in [f"VOC{known}" for known in YEARS]:
            raise UsageError(f"--src {src} must be named VOC2007 or VOC2012.")
        if year is not None and src.name != f"VOC{year}":
            raise UsageError(f"--year {year} is not the year of {src}.")
        return src
    found = [known for known in YEARS if (src / f"VOC{known}" / MASKS).is_dir()]
    if year is not None:
        found = [known for known in found if known == year]
    if not found:
        raise DataError(
            f"{src} has no SegmentationClass. Name VOCdevkit, VOC2007 or VOC2012."
        )
    if len(found) > 1:
        raise UsageError(f"{src} has both years. Choose one with --year.")
    return src / f"VOC{found[0]}"
