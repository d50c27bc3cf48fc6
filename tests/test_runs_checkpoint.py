"""Checkpoints: whole or not at all, hashed, the one before where one is damaged."""

import itertools
import json
import os
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest

from keras_seg import storage
from keras_seg.errors import StorageError
from keras_seg.runs import checkpoint


def arrays(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "model/0000/conv/kernel": rng.normal(size=(3, 2)).astype("float32"),
        "model/0001/../up": rng.integers(0, 9, 4),
        "optimizer/0000/iterations": np.array(seed, "int64"),
    }


def save(folder, step, keep=2):
    checkpoint.save(folder, step, arrays(step), {"note": f"of {step}"}, keep)


def test_what_was_saved_is_loaded(tmp_path):
    save(tmp_path, 7)
    step, found, meta = checkpoint.load_newest(tmp_path)
    assert (step, meta) == (7, {"note": "of 7"})
    assert found.keys() == arrays(7).keys()
    for name, array in arrays(7).items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


@pytest.mark.parametrize("old", ["of 7", '"step": 7', '"format": 2'])
def test_a_changed_record_is_damage(old, tmp_path):
    save(tmp_path, 7)
    path = tmp_path / "step-00000007" / "meta.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, old[:-1] + chr(ord(old[-1]) ^ 1)))
    with pytest.raises(ValueError, match="SHA-256|format 3"):
        checkpoint.load(path.parent)


def test_format_1_which_had_no_hash_of_its_record_is_read(tmp_path):
    save(tmp_path, 7)
    path = tmp_path / "step-00000007" / "meta.json"
    record = json.loads(path.read_text()) | {"format": 1}
    del record["record_sha256"]
    path.write_text(json.dumps(record))
    assert checkpoint.load_newest(tmp_path)[2] == {"note": "of 7"}


def test_only_the_newest_are_kept(tmp_path):
    for step in (1, 20, 3):
        save(tmp_path, step)
    assert checkpoint.steps(tmp_path) == [3, 20]


def test_the_one_just_written_stays_whatever_its_step(tmp_path):
    save(tmp_path, 60, keep=1)
    save(tmp_path, 40, keep=1)
    assert checkpoint.steps(tmp_path) == [40]


def test_later_ones_are_dropped(tmp_path):
    for step in (3, 5, 8):
        save(tmp_path, step, keep=3)
    checkpoint.drop_after(tmp_path, 5)
    assert checkpoint.steps(tmp_path) == [3, 5]
    assert checkpoint.load_newest(tmp_path / "none") is None


def truncate(file):
    file.write_bytes(file.read_bytes()[:-100])


def flip_a_bit(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


DAMAGES = {
    "truncated": ("arrays.npz", truncate),
    "flipped bit": ("arrays.npz", flip_a_bit),
    "empty": ("arrays.npz", lambda file: file.write_bytes(b"")),
    "no arrays": ("arrays.npz", lambda file: file.unlink()),
    "no meta": ("meta.json", lambda file: file.unlink()),
    "half a meta": ("meta.json", truncate),
    "another format": (
        "meta.json",
        lambda file: file.write_text(
            json.dumps(json.loads(file.read_text()) | {"format": 99})
        ),
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_skipped_for_the_one_before(tmp_path, capsys, damage):
    save(tmp_path, 1)
    save(tmp_path, 2)
    name, spoil = DAMAGES[damage]
    spoil(tmp_path / "step-00000002" / name)
    assert checkpoint.load_newest(tmp_path)[0] == 1
    assert "skipped" in capsys.readouterr().err


def test_all_damaged_is_an_error_and_no_new_beginning(tmp_path):
    save(tmp_path, 1)
    truncate(tmp_path / "step-00000001" / "arrays.npz")
    with pytest.raises(StorageError, match="All checkpoints .* --restart") as caught:
        checkpoint.load_newest(tmp_path)
    assert caught.value.exit_code == 5


def test_a_full_disk_leaves_the_old_one_and_nothing_temporary(tmp_path):
    """A limit on the size of files gives EFBIG, as a full disk gives ENOSPC."""
    save(tmp_path, 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(StorageError, match="step-00000002 .* Free 800,000 bytes"):
            checkpoint.save(tmp_path, 2, {"a": np.zeros(100_000)}, {}, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [entry.name for entry in tmp_path.iterdir()] == ["step-00000001"]
    assert checkpoint.load_newest(tmp_path)[0] == 1


class Killed(BaseException):
    """Of a process that does nothing to the disk any more, as after SIGKILL."""


# What a save does to the disk, call by call.
CALLS = [(os, "fsync"), (os, "replace"), (np, "savez"), (shutil, "rmtree")]
CALLS += [(Path, "mkdir"), (Path, "write_text")]


def die_at_call(patch, number: int) -> None:
    """Die right before the call of that number, counted over all of CALLS."""
    counter = itertools.count()

    def counted(function):
        def call(*arguments, **options):
            if next(counter) >= number:
                raise Killed
            return function(*arguments, **options)

        return call

    for owner, name in CALLS:
        patch.setattr(owner, name, counted(getattr(owner, name)))


@pytest.mark.parametrize("keep", [1, 2])
def test_killed_at_any_point_of_a_save_one_is_whole(tmp_path, keep):
    deaths = 0
    for number in itertools.count():
        folder = tmp_path / str(number)
        save(folder, 1, keep)
        try:
            with pytest.MonkeyPatch.context() as patch:
                die_at_call(patch, number)
                save(folder, 2, keep)
        except Killed:
            deaths += 1
        else:
            break
        step, found, _ = checkpoint.load_newest(folder)
        assert step in (1, 2)
        for name, array in arrays(step).items():
            np.testing.assert_array_equal(found[name], array)
        storage.sweep(folder)
        save(folder, 3, keep)  # the same process, started again
        names = sorted(entry.name for entry in folder.iterdir())
        assert names[-1] == "step-00000003"
        assert len(names) == keep
    assert deaths >= 9


class Variable:
    """As much of a keras.Variable as checkpoints use."""

    def __init__(self, path, value):
        self.path, self.value = path, np.asarray(value)
        self.shape = self.value.shape

    def assign(self, value):
        self.value = value


def test_variables_of_the_same_path_are_told_apart():
    variables = [Variable("a/kernel", [1.0]), Variable("a/kernel", [2.0])]
    named = checkpoint.named_arrays(variables, "model")
    others = [Variable("a/kernel", [0.0]), Variable("a/kernel", [0.0])]
    checkpoint.assign(others, named, "model")
    assert [variable.value[0] for variable in others] == [1.0, 2.0]


def test_arrays_of_another_network_are_refused():
    named = checkpoint.named_arrays([Variable("a/kernel", [1.0, 2.0])], "model")
    with pytest.raises(StorageError, match=r"model/0000/a/kernel has the shape \(2,\)"):
        checkpoint.assign([Variable("a/kernel", [1.0])], named, "model")
    with pytest.raises(StorageError, match="missing"):
        checkpoint.assign([Variable("b/kernel", [1.0, 2.0])], named, "model")
    with pytest.raises(StorageError, match="1 arrays of the model, not 0"):
        checkpoint.assign([], named, "model")
