"""Which mask belongs to which image, by their names."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from keras_seg.data.files import normal

_LONGEST = 200  # bytes of an id: with extension and split below what a disk allows
_TRIED = 40  # images from which a common part of the masks' names is guessed


@dataclass(frozen=True)
class Affixes:
    """What the names of images and masks have around the part they share."""

    image_suffix: str = ""
    prefix: str = ""  # of masks
    suffix: str = ""  # of masks
    image_prefix: str = ""

    def image_key(self, name: str) -> str | None:
        """The shared part of an image's name without extension, or None."""
        return _without(name, self.image_prefix, self.image_suffix)

    def mask_key(self, name: str) -> str | None:
        """The same of a mask's name."""
        return _without(name, self.prefix, self.suffix)


def _without(name: str, prefix: str, suffix: str) -> str | None:
    folder, slash, base = name.rpartition("/")
    inner = len(base) > len(prefix) + len(suffix) or not (prefix or suffix)
    if not (inner and base.startswith(prefix) and base.endswith(suffix)):
        return None
    return folder + slash + base[len(prefix) : len(base) - len(suffix)]


def guess(images: Iterable[str], masks: Iterable[str]) -> list[Affixes]:
    """Common prefixes and suffixes of masks' names, the one of most images first.

    None where names are equal already; several of equally many images are a choice
    that the user has to make.
    """
    images, masks = sorted(images), sorted(masks)
    if set(images) & set(masks):
        return [Affixes()]
    by_folder: dict[str, list[str]] = {}
    for mask in masks:
        by_folder.setdefault(mask.rpartition("/")[0], []).append(mask)
    candidates: Counter[tuple[str, str]] = Counter()
    for image in images[:_TRIED]:
        folder, _, base = image.rpartition("/")
        for mask in by_folder.get(folder, []):
            name = mask.rpartition("/")[2]
            prefix, found, suffix = name.partition(base)
            if found:
                candidates[prefix, suffix] += 1
    known, counts = set(masks), Counter()
    for prefix, suffix in candidates:
        for image in images:
            folder, slash, base = image.rpartition("/")
            if f"{folder}{slash}{prefix}{base}{suffix}" in known:
                counts[prefix, suffix] += 1
    best = max(counts.values(), default=0)
    found = [affix for affix, count in counts.items() if count == best]
    both = [Affixes("", prefix, suffix) for prefix, suffix in sorted(found)]
    return both or _around_both(images, masks)


def _around_both(images: Sequence[str], masks: Sequence[str]) -> list[Affixes]:
    """What images and masks each have around the part they share; [] unless all do.

    img_1 and mask_1, 1_photo and 1_label.
    """
    affix = Affixes("", *_around(masks))
    before, behind = _around(images)
    affix = replace(affix, image_prefix=before, image_suffix=behind)
    keys = [set(map(affix.image_key, images)), set(map(affix.mask_key, masks))]
    is_known = len(images) > 1 and keys[0] == keys[1] and None not in keys[0]
    return [affix] if is_known else []


def _around(paths: Sequence[str]) -> tuple[str, str]:
    """The prefix and suffix of all names, without the digits next to the rest."""
    names = [path.rpartition("/")[2] for path in paths]
    before = os.path.commonprefix(names).rstrip("0123456789")
    turned = os.path.commonprefix([name[len(before) :][::-1] for name in names])
    return before, turned.rstrip("0123456789")[::-1]


def ids(keys: Iterable[str]) -> dict[str, str]:
    """{key: id}: the path with _ for /, shortened where it is too long for a name.

    Keys of the same id get a part of the hash of the key as well.
    """
    joined = {key: key.replace("/", "_") for key in keys}
    times = Counter(joined.values())
    result = {}
    for key, name in joined.items():
        is_long = len(name.encode()) > _LONGEST
        if is_long or times[name] > 1:
            digest = hashlib.sha256(key.encode()).hexdigest()[:8]
            while len(name.encode()) > _LONGEST - 9:
                name = name[1:]
            name = f"{name}-{digest}".lstrip(".")
        result[key] = name
    return result


class Index:
    """Finds files by the ways in which lists name them."""

    def __init__(self, files: Mapping[str, Iterable[Path]], root: Path):
        self._keys: dict[str, set[str]] = {}
        for key, paths in files.items():
            for path in paths:
                names = {key, normal(path.relative_to(root).as_posix())}
                names |= {normal(PurePosixPath(key).name), normal(path.name)}
                names |= {normal(path.relative_to(root).with_suffix("").as_posix())}
                for name in names:
                    self._keys.setdefault(name, set()).add(key)

    def find(self, text: str) -> str | None:
        """The key of a listed name, path or end of a path; None without just one."""
        parts = [p for p in normal(text).replace("\\", "/").split("/") if p != "."]
        parts = [part for part in parts if part]
        for start in range(len(parts)):
            found = self._keys.get("/".join(parts[start:]), set())
            if len(found) == 1:
                return next(iter(found))
            if found:
                return None
        return None
