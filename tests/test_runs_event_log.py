"""TensorBoard's event file holds the history of the run, each step once."""

import math

import pytest

from keras_seg.runs import event_log

HISTORY = [
    {"step": 5, "loss": 1.5, "train_miou": 0.1, "val_miou": 0.05},
    {"step": 10, "loss": 0.5, "train_miou": 0.3, "val_miou": math.nan},
]


def read(folder):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    tags = events.Tags()["tensors"]
    import tensorflow as tf

    return {
        tag: [(e.step, float(tf.make_ndarray(e.tensor_proto))) for e in found]
        for tag in tags
        for found in [events.Tensors(tag)]
    }


def test_a_resumed_run_has_one_curve(tmp_path):
    pytest.importorskip("tensorboard")
    killed = event_log.EventLog(tmp_path / "events", [])
    for row in (*HISTORY, {"step": 15, "loss": 9.0}):  # step 15 was lost
        killed.add(row)
    log = event_log.EventLog(tmp_path / "events", HISTORY)
    log.add({"step": 15, "loss": 0.25, "val_miou": 0.5})
    found = read(tmp_path / "events")
    assert found["loss/training"] == [(5, 1.5), (10, 0.5), (15, 0.25)]
    assert found["miou/validation"] == [(5, pytest.approx(0.05)), (15, 0.5)]
    assert set(found) == {"loss/training", "miou/training", "miou/validation"}


def test_without_tensorboard_it_is_said_before_training(monkeypatch):
    monkeypatch.setattr(event_log.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(event_log.UsageError, match=r"pip install .keras_seg.tensor"):
        event_log.require_installed()
