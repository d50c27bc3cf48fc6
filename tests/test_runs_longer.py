"""Runs that are trained on, stop early, start from others, and are watched."""

import shutil
from dataclasses import replace

import keras
import miniature_net
import miniatures
import numpy as np
import pytest
from test_runs_train import (
    OPTIONS,
    SMALL,
    ask_to_stop,
    assert_same_run,
    at_step,
    contents,
)

from keras_seg import storage
from keras_seg.config import Config
from keras_seg.data.prepared import open_prepared
from keras_seg.errors import InterruptedRunError, UsageError
from keras_seg.runs import checkpoint, optimizers
from keras_seg.runs import folder as run_folder
from keras_seg.runs import train as training
from keras_seg.runs.options import training_key
from keras_seg.runs.train import evaluate, train

CONFIG = SMALL
SHORT = CONFIG.changed(steps=6)
LONG = CONFIG.changed(steps=11, extended=(6,))


@pytest.fixture(scope="module", autouse=True)
def _miniature(_plain_runs):
    with miniature_net.known():
        yield


@pytest.fixture(scope="module")
def short(shapes, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "short"
    train(SHORT, shapes, run, OPTIONS)
    evaluate(run, shapes, "train", 2)
    return run


@pytest.fixture(scope="module")
def long(shapes, tmp_path_factory):
    """As if it had been extended, in one piece."""
    run = tmp_path_factory.mktemp("runs") / "long"
    train(LONG, shapes, run, OPTIONS)
    return run


@pytest.fixture
def copied(short, tmp_path):
    return shutil.copytree(short, tmp_path / "run")


def test_an_extended_run_has_the_bits_of_one_in_one_piece(copied, long, shapes, capfd):
    """Also where it is killed on its way, and the command is given again."""
    wanted = CONFIG.changed(steps=11)
    with at_step(8, ask_to_stop), pytest.raises(InterruptedRunError):
        train(wanted, shapes, copied, OPTIONS)
    said = capfd.readouterr().err
    assert "extending" in said
    assert "SIGTERM: saving after this step; the same command resumes." in said
    assert not (copied / "metrics.json").exists()
    assert not (copied / "evaluation").exists()  # of weights that may no longer be best
    train(wanted, shapes, copied, OPTIONS)
    assert_same_run(copied, long)
    steps = [row["step"] for row in run_folder.read_history(copied)]
    assert steps == [4, 6, 8, 11]
    assert train(wanted, shapes, copied, OPTIONS) == run_folder.read_metrics(copied)


def test_the_rate_is_that_of_each_length():
    """poly: lr (1 - s / steps)^0.9, with 6 steps up to the 6th, then with 11."""
    rate = optimizers.learning_rate(LONG)
    for step, steps in ((0, 6), (5, 6), (6, 11), (10, 11)):
        expected = 0.003 * (1 - step / steps) ** 0.9
        assert float(rate(step)) == pytest.approx(expected, rel=1e-5)


def test_a_run_is_extended_before_its_end_and_stopped_there(shapes, long, tmp_path):
    run, longer = tmp_path / "run", replace(OPTIONS, extend=True)
    with at_step(3, ask_to_stop), pytest.raises(InterruptedRunError):
        train(SHORT, shapes, run, OPTIONS)
    wanted = CONFIG.changed(steps=11)
    for step in (5, 9):
        with at_step(step, ask_to_stop), pytest.raises(InterruptedRunError):
            train(wanted, shapes, run, longer)
    train(wanted, shapes, run, longer)
    assert_same_run(run, long)


def test_followers_are_extended_with_their_leader(shapes, tmp_path):
    loss = {"weights": "w1", "strategy": "direct"}
    lead = CONFIG.changed(loss=loss)
    with_weights = lead.changed(loss={"direct_at_inference": True})

    def options(follower, **more):
        return replace(OPTIONS, followers=[follower], **more)

    def parts(steps, step, **more):
        follower = with_weights.changed(steps=steps), tmp_path / "follower"
        config = lead.changed(steps=steps)
        with at_step(step, ask_to_stop), pytest.raises(InterruptedRunError):
            train(config, shapes, tmp_path / "leader", options(follower, **more))

    parts(6, 3)
    parts(11, 5, extend=True)
    parts(11, 9, extend=True)
    last = with_weights.changed(steps=11), tmp_path / "follower"
    train(lead.changed(steps=11), shapes, tmp_path / "leader", options(last))
    long = {"steps": 11, "extended": (6,)}
    whole = with_weights.changed(**long), tmp_path / "whole follower"
    train(lead.changed(**long), shapes, tmp_path / "whole", options(whole))
    assert_same_run(tmp_path / "leader", tmp_path / "whole")
    assert_same_run(tmp_path / "follower", tmp_path / "whole follower")


@pytest.mark.slow
def test_an_unfinished_run_is_extended_only_where_asked(shapes, long, tmp_path):
    run = tmp_path / "run"
    with at_step(3, ask_to_stop), pytest.raises(InterruptedRunError):
        train(SHORT, shapes, run, OPTIONS)
    wanted, before = CONFIG.changed(steps=11), contents(run)
    with pytest.raises(
        UsageError, match="steps is 11, but 6 .* not finished.*--extend"
    ):
        train(wanted, shapes, run, OPTIONS)
    with pytest.raises(UsageError, match="steps is 2, but 6 in"):
        train(CONFIG.changed(steps=2), shapes, run, OPTIONS)
    assert contents(run) == before
    train(wanted, shapes, run, replace(OPTIONS, extend=True))
    assert_same_run(run, long)


def test_what_cannot_be_extended_is_left_as_it_is(copied, shapes):
    run_folder.drop_checkpoints(copied)
    before = contents(copied)
    with pytest.raises(UsageError, match="last state was not kept.*--init-weights"):
        train(CONFIG.changed(steps=11), shapes, copied, OPTIONS)
    assert contents(copied) == before


@pytest.mark.slow
def test_patience_counts_validations_over_sessions(shapes, tmp_path, monkeypatch):
    """The validation mIoU is made up: the third one is the best."""
    from keras_seg.runs import loop

    made_up = [0.1, 0.2, 0.5, 0.4, 0.5, 0.3, 0.9]
    history_row = loop.Run.history_row

    def row(self, logs, validation):
        number = len(self.state.history)
        return history_row(self, logs, validation) | {"val_miou": made_up[number]}

    monkeypatch.setattr(loop.Run, "history_row", row)
    config = CONFIG.changed(validation={"every": 1, "patience": 3})
    train(config, shapes, tmp_path / "whole", OPTIONS)
    with at_step(5, ask_to_stop), pytest.raises(InterruptedRunError):
        train(config, shapes, tmp_path / "parts", OPTIONS)
    found = train(config, shapes, tmp_path / "parts", OPTIONS)
    assert (found["step"], found["stopped"], found["steps"]) == (3, 6, 11)
    assert_same_run(tmp_path / "parts", tmp_path / "whole")
    with pytest.raises(UsageError, match="stopped at step 6, before its last one"):
        train(config.changed(steps=20), shapes, tmp_path / "whole", OPTIONS)


def arrays(run, group="model"):
    (step,) = checkpoint.steps(run / "best")
    found, _ = checkpoint.load(run / "best" / f"step-{step:08d}")
    return {name.split("/", 2)[2]: array for name, array in found.items()}


@pytest.mark.parametrize("classes", [pytest.param(4, marks=pytest.mark.slow), 5])
def test_a_run_starts_from_another_also_with_other_classes(
    classes, short, shapes, tmp_path, capsys
):
    """One step with a vanishing rate leaves the kernels where they began."""
    data = shapes if classes == 4 else miniatures.shapes(tmp_path / "data", classes=5)
    given = run_folder.weights_file(short)
    config = CONFIG.changed(
        net={"init_weights_sha256": storage.sha256(given)},
        optimizer={"lr": 1e-30, "weight_decay": 0.0},
        steps=1,
    )
    source = short if classes == 5 else given.parent  # a checkpoint will do
    train(config, data, tmp_path / "run", replace(OPTIONS, init_weights=source))
    old, new = arrays(short), arrays(tmp_path / "run")
    kernels = [name for name in new if name.endswith("/kernel")]
    same = [name for name in kernels if old[name].shape == new[name].shape]
    for name in same:
        np.testing.assert_array_equal(new[name], old[name], err_msg=name)
    fresh = {name.rpartition("/")[0] for name in kernels if name not in same}
    assert fresh == ({"classifier", "early"} if classes == 5 else set())
    (line,) = [
        line for line in capsys.readouterr().err.splitlines() if "at random" in line
    ]
    told = line.rpartition(": ")[2].split(", ")
    assert set(told) == (fresh or {"none"})


def test_weights_of_another_network_are_refused(short, shapes, tmp_path):
    given = run_folder.weights_file(short)
    sha256 = storage.sha256(given)
    config = CONFIG.changed(net={"init_weights_sha256": sha256, "filter_scale": 2})
    with pytest.raises(UsageError, match="are of another network, width or option"):
        train(config, shapes, tmp_path / "a", replace(OPTIONS, init_weights=short))
    with pytest.raises(UsageError, match="is a folder, but no run with a best"):
        train(config, shapes, tmp_path / "a", replace(OPTIONS, init_weights=tmp_path))
    assert not (tmp_path / "a").exists()


def test_frozen_layers_with_random_weights_are_told(shapes, tmp_path, capsys):
    config = Config(
        net={"name": "fcn_resnet34", "freeze": True}, data={"size": (32, 32)}, steps=1
    )
    from keras_seg.runs import loop
    from keras_seg.runs.options import Interruption

    prepared = open_prepared(shapes)
    run = loop.Run(config, prepared, tmp_path, OPTIONS, Interruption())
    run.restore()
    assert "the frozen layers have random weights" in capsys.readouterr().err
    run.options = replace(OPTIONS, init_weights=tmp_path / "file")
    run.restore()
    assert "warning" not in capsys.readouterr().err


class Watcher(keras.callbacks.Callback):
    def __init__(self, stop_after=None):
        super().__init__()
        self.events, self.rows, self.stop_after = [], [], stop_after

    def on_train_begin(self, logs=None):
        self.events.append("begin")

    def on_train_end(self, logs=None):
        self.events.append("end")

    def on_train_batch_end(self, batch, logs=None):
        self.events.append(float(logs["loss"]) > 0)

    def on_epoch_begin(self, epoch, logs=None):
        self.events.append(("epoch", epoch))

    def on_epoch_end(self, epoch, logs=None):
        self.rows.append((epoch, logs))
        if epoch == self.stop_after:
            self.model.stop_training = True


def test_callbacks_see_one_training_with_an_epoch_a_validation(shapes, tmp_path):
    watcher, run = Watcher(), tmp_path / "run"
    options = replace(OPTIONS, callbacks=[watcher])
    with at_step(5, ask_to_stop), pytest.raises(InterruptedRunError):
        train(SHORT, shapes, run, options)
    assert watcher.events[-1] == "end"
    train(SHORT, shapes, run, options)
    first = ["begin", ("epoch", 0), *[True] * 4, ("epoch", 1), True, "end"]
    assert watcher.events == [*first, "begin", ("epoch", 1), True, "end"]
    assert watcher.params["epochs"] == 2
    history = run_folder.read_history(run)
    assert [epoch for epoch, _ in watcher.rows] == [0, 1]
    for (_, seen), row in zip(watcher.rows, history):
        np.testing.assert_equal(seen, row)


@pytest.mark.slow
def test_watching_changes_no_bit_and_may_stop(short, shapes, tmp_path):
    run = tmp_path / "watched"
    train(SHORT, shapes, run, replace(OPTIONS, callbacks=[Watcher()]))
    assert_same_run(run, short)
    stops = replace(OPTIONS, callbacks=[Watcher(stop_after=0)])
    found = train(SHORT, shapes, tmp_path / "stopped", stops)
    assert (found["step"], found["stopped"]) == (4, 4)


# Arms that differ in how they predict


def test_a_follower_has_the_bits_of_a_training_of_its_own(shapes, tmp_path):
    """And so has the run that it follows; both are killed on their way."""
    plain = CONFIG.changed(loss={"strategy": "direct"}, steps=9)
    other = plain.changed(loss={"direct_at_inference": True})
    assert training_key(plain) == training_key(other)
    for config, name in ((plain, "plain"), (other, "other")):
        train(config, shapes, tmp_path / "alone" / name, OPTIONS)
    run, follower = tmp_path / "plain" / "seed0", tmp_path / "other" / "seed0"
    options = replace(OPTIONS, followers=[(other, follower)])
    with at_step(7, ask_to_stop), pytest.raises(InterruptedRunError):
        train(plain, shapes, run, options)
    train(plain, shapes, run, options)
    assert_same_run(run, tmp_path / "alone" / "plain")
    assert_same_run(follower, tmp_path / "alone" / "other")
    alone = run_folder.read_history(tmp_path / "alone" / "other")
    assert alone != run_folder.read_history(tmp_path / "alone" / "plain")
    # Each may be trained on.
    assert checkpoint.steps(run / "checkpoints") == [9]
    assert checkpoint.steps(follower / "checkpoints") == [9]


@pytest.mark.slow
def test_a_follower_that_comes_late_is_left_alone(shapes, tmp_path):
    plain = CONFIG.changed(loss={"strategy": "direct"}, steps=5)
    other = plain.changed(loss={"direct_at_inference": True})
    with at_step(3, ask_to_stop), pytest.raises(InterruptedRunError):
        train(plain, shapes, tmp_path / "run", OPTIONS)
    options = replace(OPTIONS, followers=[(other, tmp_path / "late")])
    train(plain, shapes, tmp_path / "run", options)
    assert run_folder.read_metrics(tmp_path / "late") is None


@pytest.mark.parametrize(
    ("changes", "is_shared"),
    [
        ({"loss": {"direct_at_inference": True}}, True),
        ({"loss": {"strategy": "direct"}}, False),
        ({"loss": {"direct_at_inference": True}, "seed": 1}, False),
        (
            {"loss": {"direct_at_inference": True}, "validation": {"patience": 2}},
            False,
        ),
    ],
)
def test_what_shares_a_training(changes, is_shared):
    base = CONFIG.changed(validation=changes.get("validation", {}))
    found = training_key(CONFIG.changed(**changes)) == training_key(base)
    assert found == is_shared


def test_the_best_weights_of_before_stand_for_those_of_now(short, capsys):
    """As where a run was trained on since its best checkpoint was looked up."""
    (step,) = checkpoint.steps(short / "best")
    now = short / "best" / f"step-{step:08d}"
    assert training.weights_file(now, "icnet") == now
    assert capsys.readouterr().err == ""
    gone = short / "best" / "step-00000001"
    assert training.weights_file(gone, "icnet") == short
    assert f"{gone} is gone: {short} has better weights" in capsys.readouterr().err
    nowhere = short.parent / "none" / "best" / "step-00000001"
    assert training.weights_file(nowhere, "icnet") == nowhere
