"""Where the images and masks of a folder are, and which of them make a pair.

Found are: two folders of common names, side by side, in each split, or below one more
folder; images and masks in one folder, told apart by a suffix; one mask per class.
Splits are those of folders or lists; where neither says, the pairs have split "".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from keras_seg.data import files
from keras_seg.data import images as raw_images
from keras_seg.data.folder import lists, names
from keras_seg.data.folder.names import Affixes, Index
from keras_seg.data.raw import RawPair
from keras_seg.data.splits import (
    SPLITS,
    looks_like_a_split,
    split_and_rest,
    split_name,
)
from keras_seg.errors import DataError, UsageError
from keras_seg.labels import IGNORE_ID

_IMAGES = frozenset(
    "images image imgs img img_dir jpegimages photos photo pictures rgb input inputs "
    "frames raw original originals leftimg8bit x".split()
)
_MASKS = frozenset(
    "labels label masks mask annotations annotation anns ann ann_dir gt groundtruth "
    "ground_truth gts segmentation segmentations seg segs target targets segmaps "
    "segmentationclass segmentationclasspng segmentationclassaug seg_masks "
    "labels_png pixel-level annot y".split()
)
_JPEG = (".jpg", ".jpeg")  # what photographs are, and masks are not
_OPTIONS = (
    "Name them with --images DIR --labels DIR, and with --label-suffix where needed."
)


@dataclass(frozen=True)
class Wanted:
    """What the options say of the layout."""

    images: str | None = None  # folders below --src
    labels: str | None = None
    affixes: Affixes | None = None  # None: they are found out
    missing_mask: int | None = None  # the id of an image without a mask
    follow_links: bool = False
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trees:
    """A folder of images and one of their masks; they may be the same."""

    split: str  # "" where lists or a shuffle decide
    images: Path
    masks: Path


def find(src: Path, wanted: Wanted) -> tuple[list[RawPair], str]:
    """The pairs of a folder, and in words what was found.

    Pairs that no list or folder gives a split have split "".

    Raises:
        DataError: nothing is found, several folders could be meant, or names that look
            like splits are none.
        UsageError: an option names a folder that is not there.
    """
    pairs: list[RawPair] = []
    found: dict[str, None] = {}
    trees = find_trees(src, wanted)
    for tree in trees:
        more, how = _pairs(tree, wanted, src)
        pairs += more
        places = [folder.relative_to(src) for folder in (tree.images, tree.masks)]
        found[" and ".join(dict.fromkeys(map(str, places))) + how] = None
    if not pairs:
        raise DataError(f"{trees[0].images} has no images.")
    # Splits may share a folder of masks: those of another one lack no image.
    used = {pair.label for pair in pairs if pair.error is None}
    pairs = [pair for pair in pairs if pair.error is None or pair.label not in used]
    return pairs, "; ".join(found)


def find_trees(src: Path, wanted: Wanted) -> list[Trees]:
    """The folders with images and masks."""
    if wanted.images is not None or wanted.labels is not None:
        if wanted.images is None or wanted.labels is None:
            raise UsageError("--images and --labels go together; they may be equal.")
        chosen = (_folder(src, "--images", wanted.images),)
        return _split_trees(*chosen, _folder(src, "--labels", wanted.labels))
    for root in _roots(src):
        if trees := _two_folders(root) or _split_pairs(root) or _splits_first(root):
            return trees
    for root in _roots(src):
        if files.has_pictures(root) and _is_mixed(root, wanted):
            return _split_trees(root, root)
    seen = ", ".join(sorted(entry.name for entry in src.iterdir())[:12]) or "nothing"
    raise DataError(
        f"{src} has no folders images and labels, nor others that are known; it has "
        f"{seen}. {_without_pictures(src)}{_OPTIONS}"
    )


def _without_pictures(src: Path) -> str:
    """What to say of folders that have a masks' folder's name and no masks."""
    for root in _roots(src):
        for name, folder in subfolders(root).items():
            if name in _MASKS and not files.has_pictures(folder):
                kinds = sorted({p.suffix for p in folder.rglob("*") if p.is_file()})
                held = f"but {', '.join(kinds)} files" if kinds else "or is empty"
                return f"{folder} has no masks {held}. "
    return ""


def subfolders(folder: Path) -> dict[str, Path]:
    """{name in lower case: path} of the visible folders in one."""
    return {
        entry.name.lower(): entry
        for entry in sorted(folder.iterdir())
        if entry.is_dir() and not files.is_hidden(entry.name)
    }


def _roots(src: Path) -> list[Path]:
    """--src and, where it holds a single folder and no picture, that one."""
    inner = list(subfolders(src).values())
    is_wrapped = len(inner) == 1 and not any(map(files.is_picture, src.iterdir()))
    return [src, *inner] if is_wrapped else [src]


def _folder(src: Path, option: str, name: str) -> Path:
    folder = src / name
    if not folder.is_dir():
        raise UsageError(f"{option} {name} is not a folder in --src {src}.")
    if ".." in Path(name).parts or not folder.is_relative_to(src):
        raise UsageError(f"{option} {name} is not inside of --src {src}.")
    return folder


def _two_folders(root: Path) -> list[Trees]:
    """The trees of two folders side by side, if their names are known."""
    inner = subfolders(root)
    images = [folder for name, folder in inner.items() if name in _IMAGES]
    masks = [
        folder
        for name, folder in inner.items()
        if name in _MASKS and files.has_pictures(folder)
    ]
    if not images or not masks:
        return []
    for what, found in (("images", images), ("masks", masks)):
        if len(found) > 1:
            listed = ", ".join(folder.name for folder in found)
            raise DataError(
                f"{root} has several folders for {what}: {listed}. {_OPTIONS}"
            )
    return _split_trees(images[0], masks[0])


def _splits_first(root: Path) -> list[Trees]:
    """The trees of folders named like splits that each have images and masks."""
    splits = _split_folders(root)
    trees: list[Trees] = []
    for split, folder in splits.items():
        inner = _two_folders(folder)
        if not inner and not _is_mixed(folder, Wanted()):
            return []
        inner = inner or [Trees("", folder, folder)]
        trees += [replace(tree, split=split) for tree in inner]
    return trees


def _split_pairs(root: Path) -> list[Trees]:
    """The trees of folders that are named after split and content, side by side.

    train_images and train_masks, images_train and masks_train, train and trainannot.
    """
    found: dict[str, dict[str, Path]] = {}
    for name, folder in subfolders(root).items():
        split, content = split_and_rest(name)
        kind = "masks" if content in _MASKS else "images"
        if split is None or (content and content not in _IMAGES | _MASKS):
            continue
        if kind in (there := found.setdefault(split, {})):
            raise DataError(
                f"{folder} and {there[kind]} are both {kind} of the split {split}."
            )
        there[kind] = folder
    if not any(there.keys() == {"images", "masks"} for there in found.values()):
        return []
    return [
        Trees(split, there["images"], there.get("masks", root / f"{split}_masks"))
        for split in SPLITS
        if "images" in (there := found.get(split, {}))
    ]


def _split_folders(folder: Path) -> dict[str, Path]:
    """{split: folder} of those whose names mean a split.

    Raises:
        DataError: two mean one, or a name only looks like a split's.
    """
    inner, found = subfolders(folder), {}
    for name, path in inner.items():
        split = split_name(name)
        if split in found:
            raise DataError(f"{path} and {found[split]} are both split {split}.")
        if split is not None:
            found[split] = path
    odd = [
        path
        for name, path in inner.items()
        if split_name(name) is None and looks_like_a_split(name)
    ]
    if odd:
        raise DataError(
            f"{odd[0]} may be a split of its own. Name the folders of splits train, "
            "val and test; other folders must not look like one."
        )
    return {split: found[split] for split in SPLITS if split in found}


def _split_trees(images: Path, masks: Path) -> list[Trees]:
    splits = _split_folders(images)
    if not splits:
        return [Trees("", images, masks)]
    for entry in sorted(images.iterdir()):
        is_mine = entry.is_dir() or files.is_picture(entry)
        if is_mine and not files.is_hidden(entry.name) and entry not in splits.values():
            raise DataError(f"{entry} is not in a split: train, val or test.")
    of_masks = _split_folders(masks)
    return [
        Trees(
            split,
            folder,
            of_masks.get(split, masks / folder.name if of_masks else masks),
        )
        for split, folder in splits.items()
    ]


def _is_mixed(folder: Path, wanted: Wanted) -> bool:
    """Whether a folder has images and, told apart by their names, masks."""
    if wanted.affixes is not None:
        return True
    named = files.pictures(folder)
    return bool(_twins(named)) or len(_mixed_affixes(named)) == 1


def _twins(
    named: Mapping[str, list[Path]],
) -> tuple[dict[str, list[Path]], dict[str, list[Path]]] | None:
    """Images and masks of one name in one folder, a.jpg and a.png; None if not so."""
    parts = [
        {
            key: [p for p in paths if (p.suffix.lower() in _JPEG) == is_jpeg]
            for key, paths in named.items()
        }
        for is_jpeg in (True, False)
    ]
    images, masks = ({k: p for k, p in part.items() if p} for part in parts)
    both = images.keys() & masks.keys()
    return (images, masks) if both and len(both) >= 0.9 * len(named) else None


def _mixed_affixes(named: Mapping[str, Sequence[Path]]) -> list[Affixes]:
    """What masks have around the names of images in the same folder."""
    keys = sorted(named)
    counts: dict[tuple[str, str], int] = {}
    known = set(keys)
    bases = {key: key.rpartition("/")[2] for key in keys[:200]}
    candidates = set()
    for place, key in enumerate(keys[:200]):
        for other in keys[max(0, place - 3) : place + 8]:
            base, name = bases[key], other.rpartition("/")[2]
            if name != base and name.startswith(base):
                candidates.add(("", name[len(base) :]))
    for key in keys[:20]:
        for other in keys:
            name = other.rpartition("/")[2]
            if name != bases[key] and name.endswith(bases[key]):
                candidates.add((name[: -len(bases[key])], ""))
    for prefix, suffix in candidates:
        affix = Affixes("", prefix, suffix)
        masks = [key for key in keys if affix.mask_key(key) in known]
        if 2 * len(masks) >= 0.9 * len(keys):
            counts[prefix, suffix] = len(masks)
    best = max(counts.values(), default=0)
    return [Affixes("", *affix) for affix, n in sorted(counts.items()) if n == best]


def _pairs(tree: Trees, wanted: Wanted, src: Path) -> tuple[list[RawPair], str]:
    """The pairs of a tree, and how its masks are named."""
    images = files.pictures(tree.images, wanted.follow_links)
    if tree.masks == tree.images:
        images, masks, affixes = _apart(images, tree, wanted)
    else:
        masks = {}
        if tree.masks.is_dir():
            masks = files.pictures(tree.masks, wanted.follow_links)
        affixes = wanted.affixes
    if affixes is None:
        per_class = _one_mask_per_class(tree, images, masks, wanted)
        if per_class:
            listed, how = _listed(tree, per_class, images, masks, src)
            return listed, f", one mask per class{how}"
        affixes = _guessed(tree, images, masks, src)
    image_of = _by_key(images, affixes.image_key)
    mask_of = _by_key(masks, affixes.mask_key)
    if not image_of:
        return [], ""
    pairs = _matched(tree, wanted, image_of, mask_of)
    listed, how = _listed(tree, pairs, images, masks, src)
    if affixes != Affixes():
        mask = f"{affixes.prefix}NAME{affixes.suffix}"
        image = f"{affixes.image_prefix}NAME{affixes.image_suffix}"
        how = f", masks {mask} of images {image}{how}"
    return listed, how


def _by_key(named: Mapping[str, list[Path]], key_of) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for name, paths in named.items():
        key = key_of(name)
        if key is not None:
            found.setdefault(key, []).extend(paths)
    return found


def _apart(
    named: Mapping[str, list[Path]], tree: Trees, wanted: Wanted
) -> tuple[dict[str, list[Path]], dict[str, list[Path]], Affixes]:
    """Images and masks of one folder."""
    if wanted.affixes is None and (twins := _twins(named)):
        return *twins, Affixes()
    found = [wanted.affixes] if wanted.affixes else _mixed_affixes(named)
    if len(found) != 1 or not (found[0].prefix or found[0].suffix):
        raise DataError(
            f"{tree.images} has images and masks in one folder. Tell them apart with "
            "--label-suffix, as _mask."
        )
    (affix,) = found
    masks = {key: paths for key, paths in named.items() if affix.mask_key(key)}
    return {k: p for k, p in named.items() if k not in masks}, masks, affix


def _guessed(
    tree: Trees,
    images: Mapping[str, list[Path]],
    masks: Mapping[str, list[Path]],
    src: Path,
) -> Affixes:
    found = names.guess(images, masks)
    if len(found) == 1:
        return found[0]
    if not masks or _lists(tree, src):
        return Affixes()  # a list may name the pairs
    image, mask = (next(iter(found.values()))[0] for found in (images, masks))
    if found:
        ways = ", ".join(f"{a.prefix}NAME{a.suffix}" for a in found[:6])
        raise DataError(
            f"The images in {tree.images} have several masks each in {tree.masks}: "
            f"{ways}. Choose one with --label-suffix or --label-prefix."
        )
    raise DataError(
        f"No image in {tree.images}, as {image.name}, has a mask of its name in "
        f"{tree.masks}, as {mask.name}. Say what the names have around the part they "
        "share with --label-suffix, --label-prefix, --image-suffix."
    )


def _matched(
    tree: Trees,
    wanted: Wanted,
    image_of: Mapping[str, list[Path]],
    mask_of: Mapping[str, list[Path]],
) -> list[RawPair]:
    """A pair for each key; one without a partner has an error."""
    keys = sorted(image_of.keys() | mask_of.keys())
    ids, pairs = names.ids(keys), []
    for key in keys:
        images, masks = image_of.get(key, []), mask_of.get(key, [])
        image = images[0] if images else tree.images / f"{key}.jpg"
        mask = masks[0] if masks else tree.masks / f"{key}.png"
        error, draw = None, None
        if not images:
            error = DataError(f"{mask} has no image of its name in {tree.images}.")
        elif not masks and wanted.missing_mask is not None:
            draw = partial(_filled, wanted.missing_mask)
        elif not masks:
            error = DataError(
                f"{image} has no mask of its name in {tree.masks}. If images without "
                "any object have none, use --missing-mask CLASS."
            )
        for same in (images, masks):
            if len(same) > 1:
                error = DataError(f"{same[1]} has the same name as {same[0].name}.")
        pairs.append(RawPair(tree.split, ids[key], image, mask, error, draw=draw))
    return pairs


def _filled(class_id: int, size: tuple[int, int]) -> np.ndarray:
    return np.full(size, class_id, np.uint8)


def _lists(tree: Trees, src: Path) -> dict[str, Path]:
    """The lists beside the images' folder, or in the one that has the masks too.

    Never outside of --src.
    """
    places = [tree.images] if tree.images == tree.masks else []
    places += [tree.images.parent] if tree.images != src else []
    found = () if tree.split else filter(None, map(lists.find, places))
    return next(iter(found), {})


def _listed(
    tree: Trees,
    pairs: list[RawPair],
    images: Mapping[str, list[Path]],
    masks: Mapping[str, list[Path]],
    src: Path,
) -> tuple[list[RawPair], str]:
    """The pairs in the order and with the splits of lists, where there are any.

    And the names of these lists in words.
    """
    found = _lists(tree, src)
    if not found:
        return pairs, ""
    by_image = {pair.image: pair for pair in pairs}
    image_index = Index(images, tree.images.parent)
    mask_index = Index(masks, tree.masks.parent)
    listed = []
    for split, path in found.items():
        for line in lists.read(path, split, image_index, mask_index):
            listed.append(_pair_of_line(line, path, tree, images, masks, by_image))
    return listed, f", listed in {', '.join(path.name for path in found.values())}"


def _pair_of_line(
    line: lists.Listed,
    path: Path,
    tree: Trees,
    images: Mapping[str, list[Path]],
    masks: Mapping[str, list[Path]],
    by_image: Mapping[Path, RawPair],
) -> RawPair:
    if line.image is None:
        name = line.text.replace("\\", "/").replace("/", "_")
        error = DataError(
            f"{path} lists {line.text}, which {tree.images} does not have."
        )
        image = tree.images / f"{name}.jpg"
        return RawPair(line.split, name, image, tree.masks / f"{name}.png", error)
    image = images[line.image][0]
    pair = by_image[image]
    if line.mask is not None:
        mask = masks[line.mask][0]
        pair = replace(pair, label=mask, error=None, draw=None)
    return replace(pair, split=line.split)


# One mask per class


def _one_mask_per_class(
    tree: Trees,
    images: Mapping[str, list[Path]],
    masks: Mapping[str, list[Path]],
    wanted: Wanted,
) -> list[RawPair]:
    """The pairs where each class has masks of its own; [] where it is not so.

    masks/car/a.png, masks/a/car.png or masks/a_car.png for the image a.
    """
    class_of = {name.lower(): class_id for class_id, name in enumerate(wanted.classes)}
    drawn: dict[str, dict[int, Path]] = {}
    for key, (path, *_) in masks.items():
        found = _class_in(key, class_of, images)
        if found is None:
            return []
        image, class_id = found
        drawn.setdefault(image, {})[class_id] = path
    if not drawn or set(images) & set(masks):
        return []
    present = {class_id for named in drawn.values() for class_id in named}
    # What no mask covers: the first class, unless it has masks of its own.
    rest = IGNORE_ID if 0 in present else 0
    ids, pairs = names.ids(sorted(images)), []
    for key in sorted(images):
        named = drawn.get(key, {})
        error = None
        if not named and wanted.missing_mask is None:
            error = DataError(
                f"{images[key][0]} has no mask of any class in {tree.masks}. If images "
                "without any object have none, use --missing-mask CLASS."
            )
        fill = rest if named or wanted.missing_mask is None else wanted.missing_mask
        pairs.append(
            RawPair(
                tree.split,
                ids[key],
                images[key][0],
                next(iter(named.values()), tree.masks / key),
                error,
                draw=partial(_draw_classes, named, fill),
                drawn_from=tuple(named.values()),
            )
        )
    return pairs


def _class_in(
    key: str, class_of: Mapping[str, int], images: Mapping[str, list[Path]]
) -> tuple[str, int] | None:
    """(image, class id) of the mask of one class, by its name."""
    first, _, rest = key.partition("/")
    before, _, last = key.rpartition("/")
    if first.lower() in class_of and rest in images:
        return rest, class_of[first.lower()]
    if last.lower() in class_of and before in images:
        return before, class_of[last.lower()]
    for name, class_id in class_of.items():
        for between in ("_", "-", "."):
            image = key[: -len(name) - 1]
            if key.lower().endswith(f"{between}{name}") and image in images:
                return image, class_id
    return None


def _draw_classes(
    named: Mapping[int, Path], rest: int, size: tuple[int, int]
) -> np.ndarray:
    """Class ids of masks that are 0 outside of their class; later ones are on top."""
    label = None
    for class_id in sorted(named):
        mask = raw_images.read_raw_mask(named[class_id])
        pixels = mask.pixels
        inside = (pixels if pixels.ndim == 2 else pixels[..., :3].max(axis=2)) > 0
        if mask.is_lossy:
            inside = (pixels if pixels.ndim == 2 else pixels[..., :3].max(axis=2)) > 127
        if label is None:
            label = np.full(inside.shape, rest, np.uint8)
        if label.shape != inside.shape:
            raise DataError(f"{named[class_id]} has another size than the other masks.")
        label[inside] = class_id
    return np.full(size, rest, np.uint8) if label is None else label
