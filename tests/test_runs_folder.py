"""Counts per image: equal ones make equal files, damaged files are refused."""

import math
import time

import numpy as np
import pytest

from keras_seg import storage
from keras_seg.errors import StorageError
from keras_seg.runs import folder as run_folder

HITS = np.array([[0, 9, 70_000], [3, 0, 1]])
COUNTS = run_folder.PerImage(("street_1", "b"), HITS, HITS + 2, HITS + [[0, 1, 5]])


def test_equal_counts_make_equal_files(tmp_path, monkeypatch):
    paths = [tmp_path / name for name in ("first.npz", "second.npz")]
    for path in paths:
        run_folder.write_per_image(path, COUNTS)
        # Archives may hold the time of writing, in steps of two seconds
        monkeypatch.setattr(time, "time", lambda: 1e9)
        monkeypatch.setattr(time, "localtime", lambda *_: time.gmtime(1e9))
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_counts_are_read_as_they_were_written(tmp_path):
    run_folder.write_per_image(tmp_path / "per_image.npz", COUNTS)
    found = run_folder.read_per_image(tmp_path)
    assert found.ids == COUNTS.ids
    for name in ("intersection", "truth", "predicted"):
        assert getattr(found, name).dtype == np.int64
        np.testing.assert_array_equal(getattr(found, name), getattr(COUNTS, name))
    assert run_folder.read_per_image(tmp_path, "test") is None


@pytest.mark.parametrize(
    "changes",
    [
        {"ids": np.array(["street_1"])},
        {"ids": np.array([1, 2])},
        {"truth": HITS[:, :2].astype("uint32")},
        {"predicted": HITS.astype("float32")},
        {"intersection": (HITS + 9).astype("uint32")},
        {"truth": np.array(7, "uint32")},
    ],
    ids=["fewer ids", "ids", "shape", "floats", "intersection", "scalar"],
)
def test_counts_that_cannot_be_are_refused(changes, tmp_path):
    path = tmp_path / "per_image.npz"
    run_folder.write_per_image(path, COUNTS)
    with np.load(path) as archive:
        arrays = dict(archive)
    storage.write_arrays(path, arrays | changes)
    with pytest.raises(StorageError, match=r"per_image\.npz: damaged"):
        run_folder.read_per_image(tmp_path)


def test_a_damaged_file_of_counts_is_refused(tmp_path):
    path = tmp_path / "per_image.npz"
    run_folder.write_per_image(path, COUNTS)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(StorageError, match=r"per_image\.npz: damaged"):
        run_folder.read_per_image(tmp_path)


def test_rows_of_an_older_version_lack_columns(tmp_path):
    path = tmp_path / "history.csv"
    storage.write_table(path, [{"step": 1}, {"step": 2, "val_f1": 0.25}])
    assert path.read_text() == "step,val_f1\n1,\n2,0.25\n"
    first, second = run_folder.read_history(tmp_path)
    assert math.isnan(first["val_f1"])
    assert second == {"step": 2, "val_f1": 0.25}
