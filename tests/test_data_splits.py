"""Names of splits, and how images are given to train, val and test."""

from collections import Counter

import pytest

from keras_seg.data.splits import looks_like_a_split, seeded_split, split_name

NAMES = {
    "train": "train Train TRAIN training training_set train2017 train_data train-set",
    "val": "val VAL valid Validation dev val2017 validation_set",
    "test": "test TEST testing test_set Testing",
}


@pytest.mark.parametrize("split", NAMES)
def test_names_mean_splits_in_any_case(split):
    assert {split_name(name) for name in NAMES[split].split()} == {split}


@pytest.mark.parametrize(
    "name", "trainval eval fold1 fold_2 test_a holdout split3 my_train public".split()
)
def test_names_that_may_be_splits_are_not_taken_for_other_folders(name):
    assert split_name(name) is None
    assert looks_like_a_split(name)


@pytest.mark.parametrize("name", "a images contest valley latest constraint 00".split())
def test_other_names_are_other_folders(name):
    assert split_name(name) is None
    assert not looks_like_a_split(name)


def sizes(groups, val, test):
    splits = seeded_split(groups, val, test)
    assert splits.keys() == groups.keys()
    for group in set(groups.values()):  # no group is torn
        assert len({splits[k] for k in groups if groups[k] == group}) == 1
    counts = Counter(splits.values())
    return [counts[split] for split in ("train", "val", "test")]


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, [1, 0, 0]), (2, [1, 1, 0]), (3, [1, 1, 1]), (5, [3, 1, 1]), (40, [32, 4, 4])],
)
def test_few_images_leave_one_for_training(count, expected):
    assert sizes({f"{k}": f"{k}" for k in range(count)}, 0.1, 0.1) == expected


def test_shares_leave_one_for_training_however_large_they_are():
    assert sizes({f"{k}": f"{k}" for k in range(4)}, 0.9, 0.09) == [1, 3, 0]


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ("a" * 50 + "b" * 30 + "c" * 20, [50, 30, 20]),
        ("a" * 90 + "b" * 5 + "c" * 5, [90, 5, 5]),
        ("a" * 80 + "b" * 10 + "c" * 10, [80, 10, 10]),
        ("a" * 60 + "b" * 40, [60, 40, 0]),
        # 10 and 10 of 100 are wanted: 12 with 8 is nearer than 20 with anything.
        ("a" * 60 + "b" * 20 + "c" * 12 + "d" * 8, [80, 12, 8]),
    ],
)
def test_a_few_unequal_groups_come_as_close_as_they_can(groups, expected):
    found = sizes({f"{k}": name for k, name in enumerate(groups)}, 0.1, 0.1)
    assert found[0] == expected[0]
    assert sorted(found[1:]) == sorted(expected[1:])


def test_many_unequal_groups_do_not_overshoot():
    """One giant among many: it stays in train whatever the shuffle says."""
    groups = {f"g{k}": "giant" for k in range(500)}
    groups |= {f"s{k}": f"s{k // 2}" for k in range(100)}
    # val gets its tenth of 600, test what is left of the small ones.
    assert sizes(groups, 0.1, 0.1) == [500, 60, 40]
