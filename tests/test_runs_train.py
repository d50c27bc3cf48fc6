"""Runs: resumed to the same bits, refused where they differ, honest when they fail.

The network is a miniature with batch norm, dropout and two supervised heads.
"""

import json
import math
import shutil
import signal
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import keras
import miniature_net
import miniatures
import numpy as np
import pytest

from keras_seg import backend, storage
from keras_seg.config import Augment, Config
from keras_seg.data.prepared import open_prepared, read_label
from keras_seg.errors import (
    DataError,
    DivergedError,
    InterruptedRunError,
    LockedError,
    NothingToScoreError,
    StorageError,
    UsageError,
)
from keras_seg.runs import checkpoint, export
from keras_seg.runs import folder as run_folder
from keras_seg.runs import train as training
from keras_seg.runs.train import Options, evaluate, train

with miniature_net.known():
    CONFIG = Config(
        net={"name": "miniature", "dropout": 0.2},
        data={"size": (24, 40), "batch": 3},
        optimizer={"name": "rmsprop", "lr": 0.02, "weight_decay": 1e-4, "bn_start": 4},
        loss={"weights": "w1"},
        validation={"every": 4, "samples": 4, "batch": 2},
        steps=11,
        augment=Augment(mirror=0.5, swap_lr=True, scale=(0.7, 1.4)),
    )
    SMALL = CONFIG.changed(data={"size": (12, 20)}, optimizer={"lr": 0.003})
TINY = SMALL.changed(net="segnet_basic")  # for processes, which know no miniature
OPTIONS = Options(threads=2, workers=1, checkpoint_every=3)


@pytest.fixture(scope="module", autouse=True)
def _miniature(_plain_runs):
    with miniature_net.known():
        yield


@pytest.fixture(scope="module")
def traces():
    """The shapes of the images that a training step was traced with."""
    return []


@pytest.fixture(scope="module")
def uninterrupted(shapes, traces, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "uninterrupted"
    step = keras.Model.train_step

    def traced(net, data):
        traces.append(tuple(data[0].shape))
        return step(net, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.Model, "train_step", traced)
        train(CONFIG, shapes, run, OPTIONS)
    return run


@pytest.fixture(scope="module")
def interrupted(shapes, tmp_path_factory):
    """A run that was asked to stop in step 7, inside its second window."""
    run = tmp_path_factory.mktemp("runs") / "interrupted"
    with at_step(7, ask_to_stop), pytest.raises(InterruptedRunError) as caught:
        train(CONFIG, shapes, run, OPTIONS)
    assert caught.value.exit_code == 143
    assert checkpoint.steps(run / "checkpoints") == [6, 7]
    return run


@pytest.fixture
def copied(interrupted, tmp_path):
    run = tmp_path / "elsewhere" / "resumed"
    shutil.copytree(interrupted, run)
    return run


@contextmanager
def at_step(step: int | None, act):
    """Within this context, `act(run)` is called right after a step was counted.

    None is every step.
    """
    from keras_seg.runs import loop

    count = loop.Steps.on_train_batch_end

    def counted(self, batch, logs=None):
        count(self, batch, logs)
        _ = self.model  # on JAX, brings the variables up to date
        if step in (None, self.run.state.step):
            act(self.run)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Steps, "on_train_batch_end", counted)
        yield


def ask_to_stop(run) -> None:
    signal.raise_signal(signal.SIGTERM)


def assert_same_run(found: Path, expected: Path) -> None:
    for name in ("history.csv", "metrics.json", "per_image.npz", "config.json"):
        assert (found / name).read_bytes() == (expected / name).read_bytes(), name
    validations = [contents(run / "validations") for run in (found, expected)]
    assert validations[0] == validations[1]
    best = [run_folder.load_best(run)[0] for run in (found, expected)]
    assert best[0].keys() == best[1].keys()
    for name, array in best[0].items():
        np.testing.assert_array_equal(array, best[1][name], err_msg=name)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_run_leaves_what_the_architecture_lists(uninterrupted):
    names = {entry.name for entry in uninterrupted.iterdir()}
    listed = (
        "config.json environment.json labels.json history.csv timing.csv metrics.json "
    )
    listed += "per_image.npz predictions.npz best curves.png samples.png log.txt"
    assert names >= set(listed.split())
    assert checkpoint.steps(uninterrupted / "checkpoints") == [11]  # its last state
    assert not [name for name in names if name.startswith(".tmp")]
    history = run_folder.read_history(uninterrupted)
    assert [row["step"] for row in history] == [4, 8, 11]  # the last one is shorter
    assert history[0].keys() >= {"loss", "logits_loss", "early_logits_loss", "lr"}
    assert history[0].keys() >= {"train_miou", "val_loss", "val_miou"}
    assert {key[6:] for key in history[0] if key.startswith("train_")} == {
        key[4:] for key in history[0] if key.startswith("val_") and key != "val_loss"
    }
    metrics = run_folder.read_metrics(uninterrupted)
    confusion = np.array(metrics["confusion"])
    assert metrics["images"] == 6
    assert metrics["per_class"]["iou"][3] is None  # a class that is absent
    last = (uninterrupted / "log.txt").read_text().splitlines()[-1]
    assert f"val mIoU {metrics['summary']['miou']:.4f} over 3 of 4 classes at" in last
    diagonal = np.diag(confusion).sum() / confusion.sum()
    np.testing.assert_allclose(metrics["summary"]["pixel_accuracy"], diagonal)
    assert max(row["val_miou"] for row in history) > 0
    text = (uninterrupted / "history.csv").read_text()
    text += (uninterrupted / "metrics.json").read_text()
    assert str(uninterrupted.parent) not in text


@pytest.mark.usefixtures("uninterrupted")
def test_the_training_step_is_traced_once(traces):
    """TensorFlow would trace it twice if the first step made variables."""
    assert traces == [(3, 24, 40, 3)]


def as_format_1(run: Path) -> None:
    """Rewrite a run's identities as the version before wrote them."""
    meta = next(run.glob("best/*/meta.json"))
    record = json.loads(meta.read_text())
    old = {"net": "miniature", "size": [24, 40], "steps": 11, "batch": 3, "seed": 0}
    old["knobs"] = dict(CONFIG.net.knobs)
    old |= {"optimizer": "rmsprop", "lr": 0.02, "weight_decay": 1e-4, "bn_start": 4}
    old |= {"class_weights": "w1", "val_every": 4, "val_samples": 4, "val_batch": 2}
    old["augment"] = {"mirror": 0.5, "swap_lr": True, "scale": [0.7, 1.4]}
    record["meta"] |= {"format": 1, "config": old}
    record["format"] = 1
    del record["record_sha256"]
    meta.write_text(json.dumps(record))
    (run / "config.json").write_text(json.dumps(record["meta"]))


def test_the_counts_per_image_belong_to_the_scores(uninterrupted, shapes, tmp_path):
    """Also of a run that the version before wrote."""
    run = tmp_path / "run"
    shutil.copytree(uninterrupted, run)
    as_format_1(run)
    with pytest.raises(UsageError, match="validation.choice is 'spread', but 'first'"):
        train(CONFIG, shapes, run, OPTIONS)
    as_it_was = CONFIG.changed(validation={"choice": "first"})
    assert train(as_it_was, shapes, run, OPTIONS) == run_folder.read_metrics(run)
    prepared = open_prepared(shapes)
    evaluate(run, shapes, "val", 2)
    evaluate(run, shapes, "train", 2, full_size=True)
    assert not list(run.rglob(".tmp-*"))
    places = {
        (None, False): run_folder.read_metrics(run),
        ("val", False): run_folder.read_evaluation(run, "val"),
        ("train", True): run_folder.read_evaluation(run, "train", full_size=True),
    }
    for (split, full_size), scores in places.items():
        counts = run_folder.read_per_image(run, split, full_size)
        confusion = np.array(scores["confusion"])
        np.testing.assert_array_equal(counts.intersection.sum(0), np.diag(confusion))
        np.testing.assert_array_equal(counts.truth.sum(0), confusion.sum(1))
        np.testing.assert_array_equal(counts.predicted.sum(0), confusion.sum(0))
        # As a loop over the labels' files counts the truth
        samples = prepared.samples(split or "val")
        assert counts.ids == tuple(sample.id for sample in samples)
        for sample, truth in zip(samples, counts.truth):
            label = read_label(sample.label)
            np.testing.assert_array_equal(truth, [(label == c).sum() for c in range(4)])
    names = [run_folder.per_image_file(run, *place) for place in places]
    assert [str(name.relative_to(run)) for name in names] == [
        "per_image.npz",
        "evaluation/val-per-image.npz",
        "evaluation/train-full-size-per-image.npz",
    ]
    # After training as during it, to the last digit
    for key in ("loss", "confusion", "summary"):
        assert places["val", False][key] == places[None, False][key]


def test_resumed_before_a_damaged_checkpoint_it_has_the_same_bits(
    copied, uninterrupted, shapes, tmp_path, monkeypatch, capsys
):
    """In another folder and time zone, with four loader threads instead of one."""
    arrays = copied / "checkpoints" / "step-00000007" / "arrays.npz"
    arrays.write_bytes(arrays.read_bytes()[:-1000])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    train(CONFIG, shapes, copied, replace(OPTIONS, workers=4, checkpoint_every=None))
    errors = capsys.readouterr().err
    assert "skipped" in errors
    assert "resuming at step 6\n" in errors
    assert_same_run(copied, uninterrupted)


def test_another_environment_is_refused_unless_allowed(copied, uninterrupted, shapes):
    """In truth it is the same, so the bits are, too."""

    def begin_with(**found):
        for step in checkpoint.steps(copied / "checkpoints"):
            place = copied / "checkpoints" / f"step-{step:08d}"
            arrays, meta = checkpoint.load(place)
            meta["fingerprint"] |= found
            checkpoint.save(copied / "checkpoints", step, arrays, meta, 9)
        return contents(copied)

    now = backend.ARITHMETIC
    for found, line in (
        ({"arithmetic": now - 1}, f"arithmetic is {now}, but {now - 1} when"),
        ({"arithmetic": now, "threads": 1}, "environment's threads is 2, but 1 when"),
        ({"threads": 2, "cpu": "another"}, "'s cpu is .* but 'another' when"),
    ):
        before = begin_with(**found)
        with pytest.raises(UsageError, match=line):
            train(CONFIG, shapes, copied, OPTIONS)
        assert contents(copied) == before
    train(CONFIG, shapes, copied, replace(OPTIONS, allow_inexact=True))
    inexact = run_folder.read_environment(copied)["inexact"]
    assert inexact[0].startswith("cpu: another -> ")
    assert_same_run(copied, uninterrupted)


def test_the_best_weights_a_checkpoint_refers_to_stay(shapes, tmp_path, monkeypatch):
    """A kill between a better validation and the next checkpoint loses nothing."""
    run, save, seen = tmp_path / "run", checkpoint.save, set()

    def watched_save(folder, *arguments, **options):
        for step in checkpoint.steps(run / "checkpoints"):
            _, meta = checkpoint.load(run / "checkpoints" / f"step-{step:08d}")
            referred = meta["state"]["best_step"]
            assert referred < 1 or referred in checkpoint.steps(run / "best")
        seen.update(checkpoint.steps(run / "best"))
        return save(folder, *arguments, **options)

    monkeypatch.setattr(checkpoint, "save", watched_save)
    config = CONFIG.changed(validation={"every": 1}, steps=9)
    train(config, shapes, run, replace(OPTIONS, checkpoint_every=3))
    assert len(seen) > 1, "no later validation was better"
    assert len(checkpoint.steps(run / "best")) == 1


def test_a_finished_run_is_left_alone(uninterrupted, shapes, capsys):
    before = {p: p.stat().st_mtime_ns for p in uninterrupted.rglob("*")}
    found = train(CONFIG, shapes, uninterrupted, OPTIONS)
    assert found == run_folder.read_metrics(uninterrupted)
    assert "is finished" in capsys.readouterr().err
    after = {p: p.stat().st_mtime_ns for p in uninterrupted.rglob("*")}
    assert after == before


def test_the_data_are_told_before_they_are_trained_on(
    shapes, tmp_path, monkeypatch, capsys
):
    """But not by each arm of a stage, which has a title: the stage tells it."""
    from keras_seg.runs import loop

    def stop(*_):
        raise UsageError("It begins.")

    monkeypatch.setattr(loop.Run, "restore", stop)
    told = []
    for title in ("", "1 of 2 arms: "):
        with pytest.raises(UsageError, match="It begins"):
            train(CONFIG, shapes, tmp_path / "run", replace(OPTIONS, title=title))
        told.append(capsys.readouterr().err)
    assert told[0].startswith(f"data: {shapes}\ntrain: 10 images, 24 x 40 px, ")
    assert "warning: Class absent has no pixel in train" in told[0]
    assert "10 images" not in told[1]


@pytest.mark.parametrize(("samples", "step"), [(None, 2), (4, 4)])
def test_labels_that_vanish_at_the_size_of_the_run_are_named(samples, step, tmp_path):
    """Of every third row the resize keeps none that is labelled in val."""
    rng, whole = np.random.default_rng(0), np.full((24, 40), 255, np.uint8)
    labels = miniatures.LabelSpec(("ground", "thing"), ((0, 0, 0), (9, 9, 9)))
    few = whole.copy()
    few[2::3] = 1
    data = []
    for number in range(10):
        image = rng.integers(0, 256, (24, 40, 3), np.uint8)
        split, label = ("val", few) if number > 3 else ("train", whole * 0)
        data.append(miniatures.NewSample(split, f"{number}", image, label))
    folder = miniatures.publish(tmp_path / "data", "few", labels, data).folder
    config = CONFIG.changed(
        data={"size": (8, 20)}, steps=4, validation={"every": 2, "samples": samples}
    )
    with pytest.raises(
        NothingToScoreError, match="of 4, 5, 6 in .* 8 x 20 .*larger data.size"
    ):
        train(config, folder, tmp_path / "run", OPTIONS)
    assert max(checkpoint.steps(tmp_path / "run" / "checkpoints"), default=0) <= step
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_no_older_weights_take_the_place_of_damaged_best_ones(shapes, tmp_path):
    run = tmp_path / "run"
    train(SMALL.changed(steps=4), shapes, run, OPTIONS)
    (run / "metrics.json").unlink()  # as if it was killed before
    best = checkpoint.place(run / "best", 4)
    shutil.copytree(best, checkpoint.place(run / "best", 2))
    content = bytearray((best / "arrays.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (best / "arrays.npz").write_bytes(content)
    with pytest.raises(StorageError, match="step-00000004 is damaged.*--restart"):
        train(SMALL.changed(steps=4), shapes, run, OPTIONS)
    assert checkpoint.steps(run / "best") == [2, 4]


HOURGLASS = {
    "name": "hourglass",
    **{"stacks": 2, "depth": 1, "features": 8, "stem": 4, "stem_stride": 2},
}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimizer": {"lr": 0.1}}, r"optimizer\.lr is 0\.1, but 0\.02 in"),
        ({"seed": 1}, "seed is 1, but 0 in"),
        ({"augment": Augment()}, r"augment\.mirror is 0\.0, but 0\.5 in"),
        ({"data": {"size": (24, 41)}}, r"24 x 4\d"),
        ({"net": {"width": 3}}, "width"),
        ({"net": HOURGLASS | {"joints": 24}}, "joints"),
    ],
    ids=["lr", "seed", "augment", "size", "knob", "joints"],
)
def test_what_is_refused_is_named_and_leaves_nothing(
    interrupted, shapes, tmp_path, changes, words
):
    before = contents(interrupted)
    config = CONFIG.changed(**changes)
    is_known_later = bool({"net", "data"} & set(changes))  # in building it
    options = replace(OPTIONS, restart=is_known_later)
    with pytest.raises(UsageError, match=words):
        train(config, shapes, interrupted, options)
    assert contents(interrupted) == before
    if is_known_later:
        with pytest.raises(UsageError, match=words):
            train(config, shapes, tmp_path / "new" / "run", OPTIONS)
        assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("error", [UsageError, DataError, StorageError])
def test_the_process_of_an_arm_leaves_why_it_was_refused(error, shapes, tmp_path):
    run, data = tmp_path / "run", tmp_path / "data"
    shutil.copytree(shapes, data)
    run.mkdir()
    width = 41 if error is UsageError else 48
    values = {"net": "hourglass", "data": {"size": [32, width]}, "steps": 1}
    (run / "wanted.json").write_text(json.dumps(values))
    if error is DataError:
        (data / "meta.json").write_text("{")
    if error is StorageError:
        for name in ("config.json", "environment.json"):
            (run / name).write_text("{")
    words = ["--config", run / "wanted.json", "--data", data, "--out", run]
    with pytest.raises(error) as caught:
        training.main([str(word) for word in words])
    assert run_folder.read_failure(run) == str(caught.value)
    assert (run / "log.txt").read_text().count(str(caught.value)) == 1


def test_the_process_of_an_export_leaves_why_it_was_refused(tmp_path):
    (tmp_path / "failure.json").write_text("{}")
    with pytest.raises(UsageError, match="it has no best checkpoint") as caught:
        export.main([str(tmp_path), "--threads", "2"])
    assert run_folder.read_failure(tmp_path) == str(caught.value)


def test_other_data_are_refused(interrupted, tmp_path):
    import miniatures

    other = miniatures.shapes(tmp_path / "other", (("train", 9), ("val", 6)))
    with pytest.raises(UsageError, match=r"data\.manifest is"):
        train(CONFIG, other, interrupted, OPTIONS)


def test_no_undamaged_checkpoint_is_no_new_beginning(copied, shapes):
    for meta in copied.glob("checkpoints/*/meta.json"):
        meta.write_text("")
    with pytest.raises(StorageError, match="--restart"):
        train(CONFIG, shapes, copied, OPTIONS)


def test_restart_drops_the_run_and_nothing_else(copied):
    (copied / "thesis.tex").write_text("mine")
    run_folder.forget(copied)
    left = sorted(entry.name for entry in copied.iterdir())
    assert left == [".lock", "log.txt", "thesis.tex"]


@pytest.mark.parametrize("restart", [False, True], ids=["train", "restart"])
@pytest.mark.parametrize("name", ["history.csv", "best/weights.h5", "config.json"])
def test_files_of_somebody_else_are_never_touched(name, restart, shapes, tmp_path):
    """Names that a run uses too, in a folder that never held one."""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text('{"mine": 1}')
    (tmp_path / ".tmp-draft").write_text("mine")
    with pytest.raises(UsageError, match=f"holds {name.split('/')[0]}, but no run"):
        train(CONFIG, shapes, tmp_path, replace(OPTIONS, restart=restart))
    assert (tmp_path / name).read_text() == '{"mine": 1}'
    assert (tmp_path / ".tmp-draft").read_text() == "mine"


def test_the_identity_goes_last_so_that_a_killed_restart_resumes(copied, monkeypatch):
    order = []
    monkeypatch.setattr(Path, "unlink", lambda path, **_: order.append(path.name))
    run_folder.forget(copied)
    assert order[-1] == "config.json"


def test_validation_without_a_labelled_pixel_is_refused(tmp_path):
    folder = miniatures.shapes(tmp_path / "data")
    meta = json.loads((folder / "meta.json").read_text())
    split = meta["splits"]["val"]
    split["ignored"] += sum(split["pixels"])
    split["pixels"] = [0] * len(split["pixels"])
    (folder / "meta.json").write_text(json.dumps(meta))
    miniatures.resign(folder)
    with pytest.raises(DataError, match="val .* has no labelled pixel"):
        train(CONFIG, folder, tmp_path / "run", OPTIONS)
    assert not (tmp_path / "run").exists()


def test_pretrained_weights_are_those_of_the_configuration(shapes, tmp_path):
    file = tmp_path / "weights.npz"
    file.write_bytes(b"weights")
    claimed = CONFIG.changed(net={"init_weights_sha256": "0" * 64})
    for options in (OPTIONS, replace(OPTIONS, init_weights=file)):
        with pytest.raises(UsageError, match="SHA-256 000.*--init-weights"):
            train(claimed, shapes, tmp_path / "run", options)
    with pytest.raises(UsageError, match=r"no\.npz cannot be read"):
        training.sha256(tmp_path / "no.npz")
    assert not (tmp_path / "run").exists()


def test_a_run_is_held_by_one(interrupted, shapes):
    with storage.lock(interrupted), pytest.raises(LockedError):
        train(CONFIG, shapes, interrupted, OPTIONS)


def test_divergence_is_reported_and_the_last_good_state_kept(shapes, tmp_path):
    # Exponential growth of the rate: fine at first, hopeless after some steps.
    config = SMALL.changed(
        optimizer={"name": "sgd", "lr": 1e-3, "momentum": 0.0, "bn_start": 0}
        | {"schedule": "exponential", "decay_every": 1, "decay_rate": 1e9},
        validation={"every": 1},
    )
    with pytest.raises(DivergedError, match=r"at step \d+") as caught:
        train(config, shapes, tmp_path, replace(OPTIONS, checkpoint_every=1))
    assert caught.value.exit_code == 4
    assert str(caught.value) == run_folder.read_failure(tmp_path)
    assert checkpoint.steps(tmp_path / "checkpoints")
    for step in checkpoint.steps(tmp_path / "checkpoints"):
        arrays, _ = checkpoint.load(tmp_path / "checkpoints" / f"step-{step:08d}")
        assert all(np.isfinite(a).all() for a in arrays.values())


def test_weights_that_are_not_finite_are_not_saved(shapes, tmp_path):
    """Statistics of batch norm, which no loss of a training step shows."""

    def spoil(run):
        paths = {variable.path: variable for variable in run.net.variables}
        spoilt = next(v for p, v in paths.items() if p.endswith("moving_variance"))
        spoilt.assign(np.full(spoilt.shape, np.inf, "float32"))

    with at_step(5, spoil), pytest.raises(DivergedError) as caught:
        train(SMALL, shapes, tmp_path, OPTIONS)
    assert "moving_variance is not finite at step 6" in str(caught.value)
    assert "last good checkpoint is that of step 3" in str(caught.value)
    assert checkpoint.steps(tmp_path / "checkpoints") == [3]


def test_a_file_that_broke_since_preparation_is_named(shapes, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(shapes, data)
    (data / "images" / "train" / "train4.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"train4\.png"):
        train(SMALL, data, tmp_path / "run", OPTIONS)
    assert "train4.png" in run_folder.read_failure(tmp_path / "run")
    assert "traceback" not in storage.read_json(tmp_path / "run" / "failure.json")


def test_an_unforeseen_error_keeps_its_place_and_traceback(
    shapes, tmp_path, monkeypatch
):
    from keras_seg.runs import loop

    monkeypatch.setattr(loop.Run, "restore", lambda run: len(3))
    with pytest.raises(TypeError):
        train(SMALL, shapes, tmp_path, OPTIONS)
    found = storage.read_json(tmp_path / "failure.json")
    assert (found["exit_code"], found["error"]) == (1, "TypeError")
    assert "has no len()" in found["reason"]
    assert "in train" in found["place"]
    log = (tmp_path / "log.txt").read_text()
    for text in (log, found["traceback"]):
        assert text.count("Traceback") == 1
        assert "run.restore()" in text
    place = found["place"].partition(" ")[0]
    reason = f"TypeError: {found['reason']} ({place})"
    assert run_folder.read_failure(tmp_path) == reason
    assert place.startswith("loop.py:")


def test_accumulated_steps_and_a_full_switch_are_resumed(shapes, tmp_path, monkeypatch):
    """Stopped inside a step of three batches, before the switch and after it."""
    from keras_seg.runs import loop

    monkeypatch.setattr(loop, "KEPT_VALIDATIONS", 2)
    config = SMALL.changed(
        optimizer={"accumulate": 3, "bn_start": 2, "bn_mode": "full"},
        validation={"every": 1, "samples": None},
        steps=5,
    )
    whole, run = tmp_path / "whole", tmp_path / "run"
    train(config, shapes, whole, OPTIONS)
    at = {}
    for batch in (4, 11):  # of 15; the switch is at 6
        with at_step(batch, ask_to_stop):
            with pytest.raises(InterruptedRunError, match=f"at step {batch // 3};"):
                train(config, shapes, run, OPTIONS)
        assert checkpoint.steps(run / "checkpoints")[-1] == batch
        at[batch], _ = checkpoint.load(run / "checkpoints" / f"step-{batch:08d}")
    train(config, shapes, run, OPTIONS)
    assert_same_run(run, whole)
    # Counts of the two best validations are kept, those of the best twice
    scores = {row["step"]: row["val_miou"] for row in run_folder.read_history(run)}
    best = sorted(scores, key=lambda step: -scores[step])[:2]
    kept = run_folder.read_validations(run)
    assert list(kept) == sorted(best)
    counts, same = kept[int(best[0])], run_folder.read_per_image(run)
    assert counts.ids == same.ids
    np.testing.assert_array_equal(counts.intersection, same.intersection)
    # Batch norm rests until the switch, the rest of the net does not.
    rests = {"moving_mean": 0.0, "moving_variance": 1.0, "gamma": 1.0, "beta": 0.0}
    for kind, initial in rests.items():
        names = [n for n in at[4] if n.startswith("model/") and n.endswith("/" + kind)]
        assert names
        assert all((at[4][name] == initial).all() for name in names)
        assert all((at[11][name] != initial).any() for name in names)
    kernels = [n for n in at[4] if n.startswith("model/") and n.endswith("/kernel")]
    biases = [n for n in at[4] if n.startswith("model/") and n.endswith("/bias")]
    assert all((at[4][name] != at[11][name]).any() for name in kernels)
    assert any((at[4][name] != 0).any() for name in biases)  # 0 before the first step


RECIPE = SMALL.changed(
    data={"crop": (8, 12)},
    augment={"balance": 0.5, "brightness": 0.4, "hue": 0.1, "blur": 1.0},
    loss={"smoothing": 0.1, "plus": "dice"},
    optimizer={"name": "adamw", "ema": 0.3, "clip_norm": 1.0, "warmup": 0.3}
    | {"bn_start": 0},
    validation={"every": 3, "samples": None},
    steps=8,
)


def test_a_recipe_is_resumed_and_its_averages_are_scored_on_whole_images(
    shapes, tmp_path
):
    trail = []

    def record(run):
        trail.append({v.path: np.array(v) for v in run.net.variables})

    whole, run = tmp_path / "whole", tmp_path / "run"
    with at_step(None, record):
        train(RECIPE, shapes, whole, OPTIONS)
    with at_step(5, ask_to_stop), pytest.raises(InterruptedRunError):
        train(RECIPE, shapes, run, OPTIONS)
    train(RECIPE, shapes, run, OPTIONS)
    assert_same_run(run, whole)
    # The best weights are the averages, by hand; statistics and seeds are the run's
    arrays, _ = run_folder.load_best(whole)
    metrics = run_folder.read_metrics(whole)
    expected = {path: value.copy() for path, value in trail[0].items()}
    for step in range(metrics["step"]):
        kept = min(0.3, step / (step + 9))
        for path, value in trail[step].items():
            share = 0 if "moving_" in path or "seed" in path else kept
            expected[path] = share * expected[path] + (1 - share) * value
    assert len(arrays) == len(expected)
    moved = 0
    for name, array in arrays.items():
        path = name.split("/", 2)[2]
        np.testing.assert_allclose(array, expected[path], rtol=1e-4, atol=1e-6)
        moved += not np.array_equal(array, trail[metrics["step"] - 1][path])
    assert moved > 4
    labels = [read_label(s.label) for s in open_prepared(shapes).samples("val")]
    size = np.array(metrics["confusion"]).sum()
    assert size == pytest.approx(
        sum((label != 255).mean() * 12 * 20 for label in labels), rel=0.02
    )
    # Afterwards it is scored as it was
    again = evaluate(whole, shapes, "val", 2)
    assert again["confusion"] == metrics["confusion"]


@pytest.mark.parametrize(
    "changes",
    [
        {"step": "3"},
        {"step": None},
        {"step": 1.5},
        {"history": [{"loss": "low"}]},
        {"history": [3]},
        {"history": None},
        {"more": 1},
        {"inexact": 3},
        {"best_miou": []},
    ],
)
def test_a_state_that_no_run_wrote_is_damage(changes, tmp_path):
    """As edited in a checkpoint of format 1, which has no hash of its meta.json."""
    from keras_seg.runs import loop

    rows = [{"step": 2, "loss": math.nan}]
    state = asdict(loop.State(2, rows, 2, 0.5, inexact=["cpu: A -> B"]))
    assert asdict(loop.read_state(state)) == state
    with pytest.raises(StorageError, match="is damaged"):
        with storage.damage_named(tmp_path, "It is no state."):
            loop.read_state(state | changes)
