"""The run folder: whose run it is, counts per image, why a session ended early."""

import dataclasses
import json
import math
import time

import miniatures
import numpy as np
import pytest

from keras_seg import storage
from keras_seg.config import Config, to_dict
from keras_seg.data.prepared import open_prepared
from keras_seg.errors import LockedError, StorageError, UsageError
from keras_seg.labels import LabelSpec
from keras_seg.runs import checkpoint
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
    with pytest.raises(StorageError, match=r"per_image\.npz is damaged"):
        run_folder.read_per_image(tmp_path)


def test_a_damaged_file_of_counts_is_refused(tmp_path):
    path = tmp_path / "per_image.npz"
    run_folder.write_per_image(path, COUNTS)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(StorageError, match=r"per_image\.npz is damaged"):
        run_folder.read_per_image(tmp_path)


def test_rows_of_an_older_version_lack_columns(tmp_path):
    storage.write_table(tmp_path / "history.csv", [{"step": 1}, {"step": 2, "f1": 0.5}])
    first, second = run_folder.read_history(tmp_path)
    assert math.isnan(first["f1"])
    assert second == {"step": 2, "f1": 0.5}


PAIRS = ((1, 2),)
DATA = {"dataset": "camvid", "classes": ["Sky", "Road"], "manifest": "9f"}
OLD = {"net": "hourglass", "size": [64, 96], "steps": 3, "knobs": {"stacks": 2}}
OLD |= {"class_weights": "w1", "optimizer": "adam", "lr": 0.1, "val_every": 2}
NEW = Config(
    net={"name": "hourglass", "stacks": 2},
    data={"size": (64, 96)},
    loss={"weights": "w1"},
    optimizer={"name": "adam", "lr": 0.1},
    validation={"every": 2},
    steps=3,
)


def identity(config: Config) -> dict:
    """Of data without left and right classes."""
    values = to_dict(config)
    values["augment"]["swap_lr"] = False
    return {"format": 2, "config": values, "data": DATA}


def test_a_run_of_format_1_is_compared_and_loaded(tmp_path):
    old = {"format": 1, "config": OLD, "data": DATA}
    storage.write_json(tmp_path / "config.json", old)
    assert run_folder.read_identity(tmp_path) == identity(NEW)
    assert run_folder.same(tmp_path, identity(NEW))
    run_folder.check_identity(tmp_path, identity(NEW))
    other = NEW.changed(optimizer={"lr": 0.2})
    assert not run_folder.same(tmp_path, identity(other))
    with pytest.raises(UsageError, match=r"optimizer\.lr is 0\.2, but 0\.1 in"):
        run_folder.check_identity(tmp_path, identity(other))
    arrays = {"model/0/kernel": np.ones(3)}
    checkpoint.save(tmp_path / "best", 2, arrays, old, keep=1)
    assert run_folder.load_best(tmp_path)[1] == identity(NEW)


def test_what_was_read_is_the_readers_to_change(tmp_path):
    storage.write_json(tmp_path / "config.json", identity(NEW))
    run_folder.read_identity(tmp_path)["config"]["optimizer"]["lr"] = 9.0
    assert run_folder.read_identity(tmp_path) == identity(NEW)


def test_settings_that_were_added_since_have_their_defaults(tmp_path):
    """The run mirrors; the version that wrote it exchanged no sides by itself."""
    config = to_dict(NEW.changed(augment={"mirror": 0.5, "swap_lr": False}))
    wanted = {"format": 2, "config": config, "data": DATA}
    old = json.loads(json.dumps(wanted))
    del old["config"]["validation"]["samples"]
    storage.write_json(tmp_path / "config.json", old)
    assert run_folder.same(tmp_path, wanted)


@pytest.mark.parametrize(
    ("mirror", "swap_lr", "pairs", "expected"),
    [
        *[(0.0, None, (), False), (0.5, None, (), False), (0.0, None, PAIRS, False)],
        *[(0.5, None, PAIRS, True), (0.5, False, PAIRS, False), (0.5, True, (), True)],
    ],
)
def test_an_identity_tells_whether_sides_are_exchanged(
    mirror, swap_lr, pairs, expected, shapes
):
    prepared = open_prepared(shapes)
    labels = dataclasses.replace(prepared.labels, flip_pairs=pairs)
    prepared = dataclasses.replace(prepared, labels=labels)
    config = NEW.changed(augment={"mirror": mirror, "swap_lr": swap_lr})
    found = run_folder.identity(config, prepared)["config"]["augment"]
    assert found["swap_lr"] is expected


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"format": 3}, "format 3, but this version of keras_seg reads 1 to 2"),
        ({}, "format None"),
        ({"format": 1, "config": {"width": 3}}, "is damaged"),
        ({"format": 1}, "is damaged"),
    ],
)
def test_an_identity_that_cannot_be_read_is_named(tmp_path, found, words):
    storage.write_json(tmp_path / "config.json", found)
    with pytest.raises(StorageError, match=f"config.json .*{words}"):
        run_folder.read_identity(tmp_path)


@pytest.mark.parametrize(
    ("call", "words"),
    [(run_folder.read_environment, "environment.json"), (run_folder.load_best, "best")],
)
def test_another_folder_is_no_run(tmp_path, call, words):
    with pytest.raises(UsageError, match=f"is no run folder: it has no {words}"):
        call(tmp_path)


def test_why_a_session_ended_early_is_one_line(tmp_path):
    assert run_folder.read_failure(tmp_path) == ""
    run_folder.write_failure(tmp_path, StorageError("The disk\nis full."))
    assert run_folder.read_failure(tmp_path) == "The disk is full."
    with pytest.raises(KeyError), run_folder.failure_recorded(tmp_path):
        json.loads("{}")["a"]
    assert run_folder.read_failure(tmp_path).startswith("KeyError: 'a' (folder.py:")
    assert 'json.loads("{}")["a"]' in (tmp_path / "log.txt").read_text()
    run_folder.write_failure(tmp_path / "missing", StorageError("The disk is full."))


def test_the_classes_of_a_run_are_read_as_they_were_written(tmp_path):
    assert run_folder.read_labels(tmp_path) is None
    labels = LabelSpec(("sky", "left", "right"), ((1, 2, 3), (9, 0, 255), (7, 7, 7)))
    for pairs in ((), ((1, 2),)):
        mine = LabelSpec(labels.names, labels.palette, pairs)
        run_folder.write_labels(tmp_path, mine)
        assert run_folder.read_labels(tmp_path) == mine
    assert run_folder.read_levels(tmp_path) is None
    run_folder.write_labels(tmp_path, mine, [100, 4095])
    assert run_folder.read_levels(tmp_path) == (100, 4095)
    record = storage.read_json(tmp_path / "labels.json")
    for change in ({"palette": [[1, 2]] * 3}, {"classes": 3}, {"flip_pairs": [[1, 9]]}):
        storage.write_json(tmp_path / "labels.json", record | change)
        with pytest.raises(StorageError, match=r"labels\.json is damaged"):
            run_folder.read_labels(tmp_path)


def stage_with_winner(folder, shared: bool = False):
    """A stage whose winner is b; its run is in another stage's folder if `shared`."""
    for lr, arm in ((0.1, "a"), (0.2, "b")):
        config = Config(
            net="icnet", data={"size": (32, 64)}, steps=1, optimizer={"lr": lr}
        )
        found = json.loads(json.dumps(identity(config)))
        place = folder / ("earlier" if shared else "weighting") / arm / "seed0"
        checkpoint.save(place / "best", 1, {}, found, 1)
        storage.write_json(place / "config.json", found)
        if arm == "b":
            (folder / "weighting").mkdir(exist_ok=True)
            winner = {"arm": arm, "seeds": 1} | found
            storage.write_json(folder / "weighting" / "winner.json", winner)
    return place


@pytest.mark.parametrize("shared", [False, True], ids=["own run", "shared run"])
def test_a_stage_stands_for_its_winner(shared, tmp_path):
    run = stage_with_winner(tmp_path / "study", shared)
    for place in (run, tmp_path / "study" / "weighting", tmp_path):
        assert run_folder.find_run(place) == run
    assert run_folder.find_run(tmp_path / "none") == tmp_path / "none"
    (tmp_path / "study" / "filters").mkdir()
    storage.write_json(tmp_path / "study" / "filters" / "winner.json", {})
    with pytest.raises(UsageError, match="several stages; name one of .*filters"):
        run_folder.find_run(tmp_path)


@pytest.mark.parametrize(
    "changes", [{"arm": None}, {"seeds": 0}, {"seeds": 2.0}, {"seeds": True}]
)
def test_a_winner_that_no_stage_writes_is_damage(changes, tmp_path):
    stage_with_winner(tmp_path)
    stage = tmp_path / "weighting"
    record = storage.read_json(stage / "winner.json")
    found = run_folder.read_winner(stage)
    assert (found.arm, found.seeds) == ("b", 1)
    storage.write_json(stage / "winner.json", {**record, **changes})
    for read in (run_folder.read_winner, run_folder.find_run):
        with pytest.raises(StorageError, match="winner.json is damaged. .*weighting"):
            read(stage)


def test_a_stage_without_a_winner_is_named(tmp_path):
    stage_with_winner(tmp_path)
    stage = tmp_path / "weighting"
    (stage / "b" / "seed0" / "config.json").unlink()
    with pytest.raises(UsageError, match="winner of .*weighting, b, is not there"):
        run_folder.find_run(stage)
    (stage / "winner.json").unlink()
    with pytest.raises(UsageError, match="stage without a winner: an arm has not"):
        run_folder.find_run(stage)


def test_a_run_that_is_being_exported_is_not_dropped(tmp_path):
    storage.write_json(tmp_path / "config.json", identity(NEW))
    (tmp_path / "best").mkdir()
    with storage.lock(tmp_path / "export" / ".saved_model.partial"):
        with pytest.raises(LockedError, match=r"\.saved_model\.partial"):
            run_folder.forget(tmp_path)
        assert (tmp_path / "best").is_dir()
    run_folder.forget(tmp_path)
    assert not (tmp_path / "best").exists()
    assert not (tmp_path / "export").exists()


def test_what_the_runs_of_a_stage_do_not_share_is_named(tmp_path):
    assert run_folder.environment_changes([tmp_path]) == []
    same = {"cpu": "A", "threads": 2, "variables": ""}
    others = [same, same | {"cpu": "B"}, same | {"variables": "XLA_FLAGS=1"}]
    runs = [tmp_path / str(number) for number in range(3)]
    for run, fingerprint in zip(runs, others):
        run.mkdir()
        record = {"fingerprint": fingerprint, "data": "d", "inexact": []}
        storage.write_json(run / "environment.json", record)
    assert run_folder.environment_changes(runs[:1] * 2) == []
    assert run_folder.environment_changes(runs) == ["cpu", "variables"]
    assert run_folder.common_environment(runs)["cpu"] == "A | B"
    assert run_folder.common_environment(runs)["threads"] == "2"
    record = {"fingerprint": same, "data": "d", "inexact": ["threads: 1 -> 2"]}
    storage.write_json(runs[0] / "environment.json", record)
    assert run_folder.environment_changes(runs[:1]) == ["threads"]


@pytest.mark.parametrize(
    "changes",
    [
        {"summary": {"miou": "high"}},
        {"summary": {}},
        {"summary": {"miou": 0.5, "f1": math.inf}},
        {"per_class": {"iou": [0.5]}},
        {"confusion": [[1, 2]]},
        {"confusion": [[10**30] * 4] * 4},
        {"parameters": {"trainable": None}},
        {"scored_ids": [7]},
        {"step": None},
    ],
)
def test_scores_that_no_run_writes_are_damage(tmp_path, changes):
    """As edited by hand: without a hash."""
    scores = miniatures.scores(0.5) | changes
    (tmp_path / "metrics.json").write_text(json.dumps(scores))
    with pytest.raises(StorageError, match=r"metrics\.json is damaged"):
        run_folder.read_metrics(tmp_path)
