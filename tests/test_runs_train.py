"""Runs: resumed to the same bits, refused where they differ, honest when they fail.

The network is a tiny hourglass: batch norm, dropout and two supervised heads.
"""

import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from keras_seg import storage
from keras_seg.config import Augment, Config
from keras_seg.data.prepared import open_prepared, read_label
from keras_seg.errors import (
    DataError,
    DivergedError,
    InterruptedRunError,
    LockedError,
    StorageError,
    UsageError,
)
from keras_seg.runs import checkpoint
from keras_seg.runs import folder as run_folder
from keras_seg.runs.train import Options, evaluate, train

CONFIG = Config(
    net={
        "name": "hourglass",
        "stacks": 2,
        "depth": 1,
        "features": 8,
        "stem": 4,
        "stem_stride": 2,
        "dropout": 0.2,
    },
    data={"size": (24, 40), "batch": 3},
    optimizer={"name": "rmsprop", "lr": 0.003, "weight_decay": 1e-4, "bn_start": 4},
    loss={"weights": "w1"},
    validation={"every": 4, "samples": 4, "batch": 3},
    steps=11,
    augment=Augment(mirror=0.5, swap_lr=True, scale=(0.7, 1.4)),
)
OPTIONS = Options(threads=2, workers=1, checkpoint_every=3)


@pytest.fixture(scope="module")
def uninterrupted(shapes, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "uninterrupted"
    train(CONFIG, shapes, run, OPTIONS)
    return run


@pytest.fixture(scope="module")
def interrupted(shapes, tmp_path_factory):
    """A run that was asked to stop in step 7, inside its second window."""
    run = tmp_path_factory.mktemp("runs") / "interrupted"
    with pytest.MonkeyPatch.context() as patch:
        ask_to_stop_at(patch, 7)
        with pytest.raises(InterruptedRunError) as caught:
            train(CONFIG, shapes, run, OPTIONS)
    assert caught.value.exit_code == 143
    return run


def ask_to_stop_at(patch, step: int) -> None:
    from keras_seg.runs import loop as fitting

    count = fitting._Windows.on_train_batch_end

    def counted(self, batch, logs=None):
        count(self, batch, logs)
        if self.run.state.step == step:
            signal.raise_signal(signal.SIGTERM)

    patch.setattr(fitting._Windows, "on_train_batch_end", counted)


def assert_same_run(found: Path, expected: Path) -> None:
    for name in ("history.csv", "metrics.json", "per_image.npz", "config.json"):
        assert (found / name).read_bytes() == (expected / name).read_bytes(), name
    newest = [checkpoint.load_newest(run / "checkpoints") for run in (found, expected)]
    assert newest[0][0] == newest[1][0]
    assert newest[0][1].keys() == newest[1][1].keys()
    for name, array in newest[0][1].items():
        np.testing.assert_array_equal(array, newest[1][1][name], err_msg=name)
    best = [run_folder.load_best(run)[0] for run in (found, expected)]
    for name, array in best[0].items():
        np.testing.assert_array_equal(array, best[1][name], err_msg=name)


def test_a_run_leaves_what_the_architecture_lists(uninterrupted):
    names = {entry.name for entry in uninterrupted.iterdir()}
    listed = "config.json environment.json history.csv timing.csv metrics.json "
    listed += "per_image.npz checkpoints best curves.png samples.png log.txt"
    assert names >= set(listed.split())
    assert not [name for name in names if name.startswith(".tmp")]
    history = run_folder.read_history(uninterrupted)
    assert [row["step"] for row in history] == [4, 8, 11]  # the last one is shorter
    assert history[0].keys() >= {"loss", "logits_loss", "stack0_logits_loss", "lr"}
    assert history[0].keys() >= {"train_miou", "val_loss", "val_miou"}
    assert {key[6:] for key in history[0] if key.startswith("train_")} == {
        key[4:] for key in history[0] if key.startswith("val_") and key != "val_loss"
    }
    metrics = run_folder.read_metrics(uninterrupted)
    confusion = np.array(metrics["confusion"])
    assert metrics["images"] == 6
    assert metrics["per_class"]["iou"][3] is None  # a class that is absent
    diagonal = np.diag(confusion).sum() / confusion.sum()
    np.testing.assert_allclose(metrics["summary"]["pixel_accuracy"], diagonal)
    assert max(row["val_miou"] for row in history) > 0
    text = (uninterrupted / "history.csv").read_text()
    text += (uninterrupted / "metrics.json").read_text()
    assert str(uninterrupted.parent) not in text


def test_weights_at_inference_count_in_the_training_scores_too(
    shapes, tmp_path, monkeypatch
):
    from keras_seg.runs.evaluate import Network

    monkeypatch.setattr(Network, "direct_weights", lambda *_: np.zeros(4))
    config = CONFIG.changed(
        loss={"strategy": "direct", "direct_at_inference": True}, steps=2
    )
    train(config, shapes, tmp_path, OPTIONS)
    (row,) = run_folder.read_history(tmp_path)
    # Of equal logits the first class is taken: it is found, the two others are not.
    assert row["train_mean_accuracy"] == pytest.approx(1 / 3)
    assert row["val_mean_accuracy"] == pytest.approx(1 / 3)


def test_the_counts_per_image_belong_to_the_scores(uninterrupted, shapes, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(uninterrupted, run)
    prepared = open_prepared(shapes)
    evaluate(run, shapes, "val")
    evaluate(run, shapes, "train", full_size=True)
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


def test_an_interrupted_run_goes_on_to_the_same_bits(
    interrupted, uninterrupted, shapes, tmp_path, monkeypatch
):
    """In another folder and time zone, with four loader threads instead of one."""
    run = tmp_path / "elsewhere" / "resumed"
    shutil.copytree(interrupted, run)
    assert checkpoint.steps(run / "checkpoints") == [6, 7]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    train(CONFIG, shapes, run, replace(OPTIONS, workers=4, checkpoint_every=None))
    assert_same_run(run, uninterrupted)


def test_a_damaged_checkpoint_costs_steps_but_no_bits(
    interrupted, uninterrupted, shapes, tmp_path, capsys
):
    run = tmp_path / "resumed"
    shutil.copytree(interrupted, run)
    arrays = run / "checkpoints" / "step-00000007" / "arrays.npz"
    arrays.write_bytes(arrays.read_bytes()[:-1000])
    train(CONFIG, shapes, run, OPTIONS)
    assert "skipped" in capsys.readouterr().err
    assert_same_run(run, uninterrupted)


def test_a_finished_run_is_left_alone(uninterrupted, shapes, capsys):
    before = {p: p.stat().st_mtime_ns for p in uninterrupted.rglob("*")}
    found = train(CONFIG, shapes, uninterrupted, OPTIONS)
    assert found == run_folder.read_metrics(uninterrupted)
    assert "finished already" in capsys.readouterr().err
    after = {p: p.stat().st_mtime_ns for p in uninterrupted.rglob("*")}
    assert after == before


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"lr": 0.1}, "setting lr: 0.1; expected 0.003 as in"),
        ({"seed": 1}, "setting seed: 1; expected 0 as in"),
        ({"augment": Augment()}, "setting augment.mirror: 0.0; expected 0.5 as in"),
    ],
    ids=["lr", "seed", "augment"],
)
def test_another_configuration_is_refused_by_name(interrupted, shapes, changes, line):
    with pytest.raises(UsageError, match=line):
        train(replace(CONFIG, **changes), shapes, interrupted, OPTIONS)


def test_other_data_are_refused(interrupted, tmp_path):
    import miniatures

    other = miniatures.shapes(tmp_path / "other", (("train", 9), ("val", 6)))
    with pytest.raises(UsageError, match=r"setting data\.manifest"):
        train(CONFIG, other, interrupted, OPTIONS)


def test_another_environment_is_refused_unless_allowed(interrupted, shapes, tmp_path):
    run = tmp_path / "resumed"
    shutil.copytree(interrupted, run)
    for step in checkpoint.steps(run / "checkpoints"):
        place = run / "checkpoints" / f"step-{step:08d}"
        arrays, meta = checkpoint.load(place)
        meta["fingerprint"]["cpu"] = "another"
        checkpoint.save(run / "checkpoints", step, arrays, meta, 9)
    with pytest.raises(UsageError, match="environment cpu: .*; expected another"):
        train(CONFIG, shapes, run, OPTIONS)
    train(CONFIG, shapes, run, replace(OPTIONS, allow_inexact=True))
    inexact = run_folder.read_environment(run)["inexact"]
    assert inexact[0].startswith("cpu: another -> ")


def test_no_undamaged_checkpoint_is_no_new_beginning(interrupted, shapes, tmp_path):
    run = tmp_path / "resumed"
    shutil.copytree(interrupted, run)
    for meta in run.glob("checkpoints/*/meta.json"):
        meta.write_text("")
    with pytest.raises(StorageError, match="--restart"):
        train(CONFIG, shapes, run, OPTIONS)


def test_restart_drops_the_run_and_nothing_else(shapes, tmp_path):
    """--restart in a folder with other files; the diverged run begins anew."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "thesis.tex").write_text("mine")
    (run / "metrics.json").write_text("{}")
    with pytest.raises(StorageError, match=r"config\.json: missing; expected it"):
        train(CONFIG, shapes, run, OPTIONS)
    run_folder.forget(run)
    assert sorted(entry.name for entry in run.iterdir()) == [".lock", "thesis.tex"]


def test_pretrained_weights_are_those_of_the_configuration(shapes, tmp_path):
    file = tmp_path / "weights.npz"
    file.write_bytes(b"weights")
    claimed = CONFIG.changed(net={"init_weights_sha256": "0" * 64})
    for options in (OPTIONS, replace(OPTIONS, init_weights=file)):
        with pytest.raises(UsageError, match="init_weights: .*SHA-256 000"):
            train(claimed, shapes, tmp_path / "run", options)
    assert not (tmp_path / "run").exists()


def test_a_run_is_held_by_one(interrupted, shapes):
    with storage.lock(interrupted), pytest.raises(LockedError):
        train(CONFIG, shapes, interrupted, OPTIONS)


def test_divergence_is_reported_and_the_last_good_state_kept(shapes, tmp_path):
    run = tmp_path / "diverged"
    # Exponential growth of the rate: fine at first, hopeless after some steps.
    config = CONFIG.changed(
        optimizer={"name": "sgd", "lr": 1e-3, "momentum": 0.0}, validation={"every": 1}
    )
    config = config.changed(
        optimizer={"schedule": "exponential", "decay_every": 1, "decay_rate": 1e9}
    )
    config = config.changed(optimizer={"bn_start": 0})
    with pytest.raises(DivergedError, match=r"at step \d+") as caught:
        train(config, shapes, run, replace(OPTIONS, checkpoint_every=1))
    assert caught.value.exit_code == 4
    assert str(caught.value) == run_folder.read_failure(run)
    assert checkpoint.steps(run / "checkpoints")
    for step in checkpoint.steps(run / "checkpoints"):
        arrays, _ = checkpoint.load(run / "checkpoints" / f"step-{step:08d}")
        assert all(np.isfinite(a).all() for a in arrays.values())


def test_a_file_that_broke_since_preparation_is_named(shapes, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(shapes, data)
    (data / "images" / "train" / "train4.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="train4.png"):
        train(CONFIG, data, tmp_path / "run", OPTIONS)


def test_accumulated_steps_and_a_full_switch_are_gone_on_with(shapes, tmp_path):
    """Stopped inside a step of three batches, before the switch and after it."""
    knobs = CONFIG.net.knobs | {"stacks": 1}
    config = CONFIG.changed(
        validation={"every": 2}, optimizer={"accumulate": 3}, net={**knobs}, steps=5
    )
    config = config.changed(optimizer={"bn_start": 2, "bn_mode": "full"})
    whole, run = tmp_path / "whole", tmp_path / "run"
    train(config, shapes, whole, OPTIONS)
    at = {}
    for batch in (4, 11):  # of 15; the switch is at 6
        with pytest.MonkeyPatch.context() as patch:
            ask_to_stop_at(patch, batch)
            with pytest.raises(InterruptedRunError, match=f"at step {batch // 3} by"):
                train(config, shapes, run, OPTIONS)
        assert checkpoint.steps(run / "checkpoints")[-1] == batch
        at[batch], _ = checkpoint.load(run / "checkpoints" / f"step-{batch:08d}")
    train(config, shapes, run, OPTIONS)
    assert_same_run(run, whole)
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


def test_weights_that_are_not_finite_are_not_saved(shapes, tmp_path):
    """Statistics of batch norm, which no loss of a training step shows."""
    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        spoil_at(patch, 5)
        with pytest.raises(DivergedError) as caught:
            train(CONFIG, shapes, run, OPTIONS)
    line = r"model/\d+/.*moving_variance at step 6: not finite; expected a finite"
    assert re.match(line, str(caught.value))
    assert "last good checkpoint: step 3" in str(caught.value)
    assert checkpoint.steps(run / "checkpoints") == [3]


def spoil_at(patch, step: int) -> None:
    """A variance becomes infinite after `step`."""
    from keras_seg.runs import loop as fitting

    count = fitting._Windows.on_train_batch_end

    def counted(self, batch, logs=None):
        count(self, batch, logs)
        if self.run.state.step == step:
            variables = self.run.net.variables
            spoilt = next(v for v in variables if v.path.endswith("moving_variance"))
            spoilt.assign(np.full(spoilt.shape, np.inf, "float32"))

    patch.setattr(fitting._Windows, "on_train_batch_end", counted)
