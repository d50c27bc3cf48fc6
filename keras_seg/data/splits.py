"""Training, validation and test: their names, and how images are given to them."""

import itertools
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence

SPLITS = ("train", "val", "test")
_TAIL = r"([ _.-]?(set|split|data|images|imgs|\d{4}))?"  # train_set, val2017
_WORDS = {
    "train": "training|train|trn",
    "val": "validation|valid|val|development|dev",
    "test": "testing|test|tst",
}
_NAMES = {
    split: re.compile(rf"({words}){_TAIL}", re.IGNORECASE)
    for split, words in _WORDS.items()
}
_ENDS = r"(?P<rest>.+)[ _.-](?P<split>{})"
_LIKE_A_SPLIT = re.compile(
    r"(?<![a-z])(train|trn|training|trainval|val|valid|validation|test|tst|testing|dev|"
    r"eval|evaluation|hold-?out|held-?out|fold|split|cv|public|private)s?(?![a-z])",
    re.IGNORECASE,
)
_MOST_COMPARED = 9  # groups whose every assignment is compared: 3^9


def split_name(text: str) -> str | None:
    """train, val or test where the name of a folder or list means it; else None."""
    for split, pattern in _NAMES.items():
        if pattern.fullmatch(text):
            return split
    return None


def split_and_rest(text: str) -> tuple[str | None, str]:
    """The split that a name begins or ends with, and what else it says.

    train_masks is train and masks, masks-val val and masks; (None, text) without one.
    """
    words = "|".join(_WORDS.values())
    for pattern in (rf"(?P<split>{words})[ _.-]?(?P<rest>.*)", _ENDS.format(words)):
        if found := re.fullmatch(pattern, text, re.IGNORECASE):
            return split_name(found["split"]), found["rest"]
    return None, text


def looks_like_a_split(text: str) -> bool:
    """Whether a name may mean a split: also eval, fold1, test_a, trainval."""
    return split_name(text) is not None or bool(_LIKE_A_SPLIT.search(text))


def seeded_split(
    groups: Mapping[str, str], val_share: float, test_share: float
) -> dict[str, str]:
    """{id: split} of {id: group}: a shuffle with seed 0 of the sorted groups.

    Ids of one group get the same split. val and test get at least one group each, test
    none where its share is 0 or there are only two groups. A few groups of several
    images are given to the splits so that these come as close to their shares as they
    can; of equally close ways the shuffle chooses. A single group is train.
    """
    members: dict[str, list[str]] = {}
    for sample_id in sorted(groups):
        members.setdefault(groups[sample_id], []).append(sample_id)
    shuffled = sorted(members)
    random.Random(0).shuffle(shuffled)
    sizes = [len(members[group]) for group in shuffled]
    if len(sizes) < 3:
        test_share = 0.0
    if len(sizes) < 2:
        return dict.fromkeys(groups, "train")
    wanted, left = {}, len(groups) - 1  # train keeps one
    for split, share in (("val", val_share), ("test", test_share)):
        wanted[split] = min(left, max(1, round(share * len(groups)))) if share else 0
        left -= wanted[split]
    has_groups = max(sizes, default=0) > 1
    divide = _best if has_groups and len(sizes) <= _MOST_COMPARED else _in_turn
    splits = divide(sizes, wanted)
    return {
        sample_id: split
        for group, split in zip(shuffled, splits)
        for sample_id in members[group]
    }


def _in_turn(sizes: Sequence[int], wanted: Mapping[str, int]) -> list[str]:
    """A split of each group: val until it has enough, then test, the rest train."""
    splits, taken = ["train"] * len(sizes), dict.fromkeys(wanted, 0)
    for place, size in enumerate(sizes):
        for split, count in wanted.items():
            # Not a group that overshoots by more than is missing without it.
            if taken[split] < count and size <= 2 * (count - taken[split]):
                splits[place] = split
                taken[split] += size
                break
    for split, count in wanted.items():
        left = [place for place, given in enumerate(splits) if given == "train"]
        if count and not taken[split] and len(left) > 1:
            splits[min(left, key=lambda place: sizes[place])] = split
    return splits


def _best(sizes: Sequence[int], wanted: Mapping[str, int]) -> list[str]:
    """A split of each group, with the least sum of deviations from what is wanted."""
    needed = {split: count for split, count in wanted.items() if count}
    needed["train"] = sum(sizes) - sum(needed.values())

    def deviation(splits: tuple[str, ...]) -> float:
        if len(set(splits)) < len(needed):
            return float("inf")
        counts = dict.fromkeys(needed, 0)
        for split, size in zip(splits, sizes):
            counts[split] += size
        return sum(abs(counts[split] - count) for split, count in needed.items())

    return list(min(itertools.product(needed, repeat=len(sizes)), key=deviation))


def assign_folds(groups: Sequence[str], folds: int) -> list[int]:
    """The fold, 0..folds-1, in which each image is held out.

    Args:
        groups: of each image; those of one group are held out together.
        folds: at most as many as there are groups.

    A shuffle with seed 0 of the sorted groups; then the largest first, each into the
    smallest fold, so that the folds are as equal as the groups allow.
    """
    sizes = Counter(groups)
    shuffled = sorted(sizes)
    random.Random(0).shuffle(shuffled)
    filled, fold_of = [0] * folds, {}
    for group in sorted(shuffled, key=lambda group: -sizes[group]):
        fold_of[group] = filled.index(min(filled))
        filled[fold_of[group]] += sizes[group]
    return [fold_of[group] for group in groups]
