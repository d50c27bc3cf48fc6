"""Runs on JAX, in processes that cannot import TensorFlow."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import run_without_tensorflow

from keras_seg import storage
from keras_seg.runs import folder as run_folder

pytestmark = [
    pytest.mark.jax,
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("jax") is None, reason="JAX is not installed"
    ),
]


def train(folder: Path, data: Path, flags: str = "", *devices: int) -> str:
    # Compiled once for the runs that are alike, and fast rather than well
    flags += " --xla_backend_optimization_level=0"
    environment = os.environ | {
        "KERAS_BACKEND": "jax",
        "XLA_FLAGS": flags + " --xla_llvm_disable_expensive_passes=true",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, run_without_tensorflow.__file__, folder, data]
    done = subprocess.run(
        [*map(str, command), *map(str, devices)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_run_needs_no_tensorflow_and_is_resumed_to_the_same_bits(shapes, tmp_path):
    found = json.loads(train(tmp_path, shapes))
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    assert "Interrupted by SIGTERM at step 3" in (resumed / "log.txt").read_text()
    for name in ("history.csv", "metrics.json", "per_image.npz"):
        assert (whole / name).read_bytes() == (resumed / name).read_bytes(), name
    expected, _ = run_folder.load_best(whole)
    for name, array in run_folder.load_best(resumed)[0].items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
    environment = storage.read_json(whole / "environment.json")["fingerprint"]
    assert environment["backend"] == "jax"
    assert environment["devices"] == 1
    assert "--xla_gpu_deterministic_ops=true" in environment["variables"]
    assert found == {
        "images": 3,
        "shape": [24, 40],
        "same": True,
        "epochs": [3, 3, False],  # of 10 images in batches of 4
    }


def test_two_devices_share_a_batch_as_if_they_were_one(shapes, tmp_path):
    """Batch norm and losses are means over all of it, void pixels left out."""
    flags = "--xla_force_host_platform_device_count=2"
    for devices in (1, 2):
        train(tmp_path / str(devices), shapes, flags, devices)
    one, two = tmp_path / "1" / "whole", tmp_path / "2" / "whole"
    environment = storage.read_json(two / "environment.json")["fingerprint"]
    assert environment["devices"] == 2
    rows = zip(run_folder.read_history(one), run_folder.read_history(two), strict=True)
    for row, other in rows:
        for name in ("loss", "val_loss"):
            assert row[name] == pytest.approx(other[name], rel=1e-4), name
    expected, _ = run_folder.load_best(one)
    for name, array in run_folder.load_best(two)[0].items():
        scale = max(1.0, np.abs(expected[name]).max())
        np.testing.assert_allclose(array, expected[name], 0, 1e-4 * scale, err_msg=name)
