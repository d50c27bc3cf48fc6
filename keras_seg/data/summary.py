"""What a prepared folder holds, in a few lines, and what a user should know of it.

Printed after a preparation, by verify and show, and when training begins; reports have
it too.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from keras_seg.data.prepared import Prepared

_LISTED = 20  # classes whose share is shown


@dataclass(frozen=True)
class Summary:
    """Lines about a prepared folder."""

    lines: tuple[str, ...]  # a line for each split, the classes, the raw data
    warnings: tuple[str, ...]  # sentences

    def text(self) -> str:
        """All of it, a line each."""
        return "\n".join([*self.lines, *(f"warning: {one}" for one in self.warnings)])


def summarise(prepared: Prepared) -> Summary:
    """The summary of an opened folder, from its manifest and meta.json alone."""
    return Summary(
        (*_splits(prepared), *_raw(prepared)),
        (*_absent_classes(prepared), *_doubts(prepared)),
    )


def scored_classes(prepared: Prepared, split: str) -> tuple[int, int]:
    """How many classes of a split have a pixel, and how many are scored.

    The mean IoU of a good network is over the first number, not the second.
    """
    ids = _scored(prepared)
    return int(np.count_nonzero(prepared.counts(split).pixels[ids])), len(ids)


def _scored(prepared: Prepared) -> list[int]:
    every = range(prepared.labels.num_classes)
    return list(every if prepared.scored_ids is None else prepared.scored_ids)


def _splits(prepared: Prepared) -> Iterator[str]:
    for split in prepared.splits:
        samples, counts = prepared.samples(split), prepared.counts(split)
        heights = [sample.height for sample in samples]
        widths = [sample.width for sample in samples]
        size = f"{_range(heights)} x {_range(widths)} px"
        groups = {sample.sequence for sample in samples if sample.sequence}
        of_groups = f" of {_number(len(groups), 'sequence')}" if groups else ""
        ignored = _percent(counts.ignored, counts.total)
        images = _number(len(samples), "image") + of_groups
        yield f"{split}: {images}, {size}, {ignored} ignored"
    split = "train" if "train" in prepared.splits else prepared.splits[0]
    counts, names = prepared.counts(split), prepared.labels.names
    if len(names) <= _LISTED:
        shares = (
            f"{name} {_percent(pixels, counts.total)}"
            for name, pixels in zip(names, counts.pixels)
        )
        yield f"classes in {split}: {', '.join(shares)}"


def _range(values: list[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low}-{high}"


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.3g} %" if part else "0 %"


def _raw(prepared: Prepared) -> Iterator[str]:
    """What the preparation did to raw files, from meta.json's "raw"."""
    raw = prepared.raw
    if raw.get("found"):
        yield f"found: {raw['found']}"
    if raw.get("val_from_train"):
        taken = _number(raw["val_from_train"], "image")
        taken += " taken from train, which had no val"
        yield f"val: {taken} (prepare with --val-share for another share)"
    if raw.get("levels"):
        low, high = raw["levels"]
        measured = " (measured on train: 0.1 and 99.9 % of the pixels)"
        yield (
            f"16-bit images: {raw.get('deep', 0)}, their levels {low} to {high} became "
            f"0 to 255{measured if raw.get('levels_measured') else ''}"
        )
    if raw.get("turned"):
        masks = raw.get("turned_masks")
        also = f"; the masks of {masks} too" if masks else ""
        turned = _number(raw["turned"], "image")
        yield f"turned by their EXIF orientation: {turned}{also}"
    if raw.get("without_mask"):
        unmasked = _number(raw["without_mask"], "image")
        yield f"without a mask: {unmasked}, all of one class"
    if raw.get("skipped_shapes"):
        yield f"left out: {raw['skipped_shapes']} lines and points, which have no area"
    if unused := raw.get("unused"):
        kinds = ", ".join(f"{count} {kind}" for kind, count in unused.items())
        yield f"not used: {sum(unused.values())} files beside the raw ones ({kinds})"
    if rejected := prepared.meta["rejected"]:
        yield f"left out: {len(rejected)} bad items, which meta.json lists"


def _absent_classes(prepared: Prepared) -> Iterator[str]:
    names, scored = prepared.labels.names, _scored(prepared)
    absent = {
        split: [i for i in scored if not prepared.counts(split).pixels[i]]
        for split in prepared.splits
    }
    if ids := absent.get("train"):
        yield (
            f"{_classes([names[i] for i in ids])} no pixel in train: no network can "
            "learn to find what it never saw."
        )
    for split, ids in absent.items():
        if split != "train" and ids and len(ids) < len(scored):
            yield (
                f"{_classes([names[i] for i in ids])} no pixel in {split}: scores "
                f"there are means over {len(scored) - len(ids)} of {len(scored)} "
                "classes."
            )


def _classes(names: list[str]) -> str:
    listed = ", ".join(names[:_LISTED]) + ", ..." * (len(names) > _LISTED)
    return f"Class {listed} has" if len(names) == 1 else f"The classes {listed} have"


def _doubts(prepared: Prepared) -> Iterator[str]:
    for split in prepared.splits:
        counts = prepared.counts(split)
        if not counts.pixels.any():
            yield f"All pixels of {split} are ignored, so nothing can be scored there."
        elif counts.ignored > 0.5 * counts.total:
            share = _percent(counts.ignored, counts.total)
            yield f"{share} of the pixels of {split} are ignored."
    if number := prepared.raw.get("ambiguous"):
        yield (
            f"{number} images were turned by their EXIF orientation, and their masks "
            "fit before as after. The masks were taken to be of the displayed picture; "
            "look at them with show. If they are of the stored one, prepare again with "
            "--exif stored."
        )
    if "val" not in prepared.splits:
        yield (
            "There is no val split, which training needs. Own data get one from train "
            "with --val-share 0.1."
        )
    # The same image in two splits: validation would measure memory.
    first, again = {}, []
    for split in prepared.splits:
        for sample in prepared.samples(split):
            other = first.setdefault(sample.image_sha256, sample)
            if other.split != split:
                again.append(f"{split}/{sample.id} = {other.split}/{other.id}")
    if again:
        yield (
            f"{_number(len(again), 'image')} in two splits, the first {again[0]}: "
            "scores there measure memory."
        )
