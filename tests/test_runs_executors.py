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


SHOWS_ITS_GPU = [
    "-c",
    "import os, pathlib, sys, time\n"
    "pathlib.Path(sys.argv[1]).write_text(os.environ['CUDA_VISIBLE_DEVICES'])\n"
    "while not pathlib.Path(sys.argv[1] + '.end').exists(): time.sleep(0.02)",
]


def test_every_process_has_a_gpu_to_itself_until_there_are_more(tmp_path):
    launch = executors.OnGpus(["3", "GPU-f00"])

    def start(name):
        process = launch([*SHOWS_ITS_GPU, str(tmp_path / name)])
        while not (tmp_path / name).exists() or not (tmp_path / name).read_text():
            time.sleep(0.02)
        return process, (tmp_path / name).read_text()

    def end(name, process):
        (tmp_path / f"{name}.end").touch()
        assert process.wait() == 0
        assert process.wait() == 0  # gives its GPU back once

    first, second = start("first"), start("second")
    assert {first[1], second[1]} == {"3", "GPU-f00"}
    end("second", second[0])
    third, fourth = start("third"), start("fourth")
    assert third[1] == second[1]  # the free one
    assert fourth[1] in ("3", "GPU-f00")  # asked for
    for name, process in (("first", first), ("third", third), ("fourth", fourth)):
        end(name, process[0])


@pytest.mark.parametrize(
    ("chosen", "listed", "expected"),
    [
        (None, "0\n1\n", ["0", "1"]),
        ("2, 5", "0\n1\n", ["2", "5"]),
        ("", "0\n", []),
        ("-1", "0\n", []),
        (None, None, []),
    ],
)
def test_gpus_are_those_that_cuda_may_see(
    chosen, listed, expected, tmp_path, monkeypatch
):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    monkeypatch.setenv("PATH", str(tmp_path))  # a machine without drivers
    if listed is not None:
        tool = tmp_path / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\nprintf '{listed}'\n")
        tool.chmod(0o755)
    assert executors.gpus() == expected


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
