"""Processes of arms and of shares of pictures, here and on a Ray cluster."""

import signal
import time

import pytest

from keras_seg.errors import UsageError
from keras_seg.runs import executors

# An arm is `python ... --parent PID`: these leave that argument alone.
FAILS = ["-c", "import sys; sys.exit(4)"]
SAVES_ITSELF = [
    "-c",
    "import pathlib, signal, sys, time\n"
    "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
    "pathlib.Path(sys.argv[1]).touch()\n"
    "time.sleep(60)",
]


def check(launch, tmp_path):
    assert launch(FAILS).wait() == 4
    started = tmp_path / "started"
    process = launch([*SAVES_ITSELF, str(started)])
    patience = time.monotonic() + 60
    while not started.exists() and time.monotonic() < patience:
        time.sleep(0.05)
    process.terminate()
    return process.wait()


def test_exit_code_and_termination_of_a_local_process(tmp_path):
    assert check(executors.local, tmp_path) == 143


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_exit_code_and_termination_on_a_cluster(tmp_path):
    ray = pytest.importorskip("ray")
    launch = executors.Ray(cpus=1)
    try:
        assert check(launch, tmp_path) in (143, -signal.SIGTERM)
    finally:
        ray.shutdown()


def test_without_ray_it_is_said(monkeypatch):
    monkeypatch.setattr(executors.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'keras_seg\[ray\]'"):
        executors.require_ray()
