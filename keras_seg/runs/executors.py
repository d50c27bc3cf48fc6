"""Where a process runs, of an arm or a share of pictures: here, or on a Ray cluster.

A launcher takes the arguments of `python` and returns a process with `wait()`, its
exit code, and `terminate()`. An arm saves a checkpoint and stops once the process that
started it is gone (`--parent`), so nothing is lost when that one is killed.
"""

import importlib
import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from keras_seg.command_line import install_hint
from keras_seg.errors import UsageError

EXECUTORS = ("local", "ray")
POLL_SECONDS = 0.2


class Process(Protocol):
    def wait(self) -> int: ...

    def terminate(self) -> None: ...


def local(arguments: Sequence[str]) -> Process:
    """Start `python arguments` on this machine."""
    return subprocess.Popen(_command(arguments))


def gpus() -> list[str]:
    """The GPUs that arms may use here, as CUDA_VISIBLE_DEVICES names them.

    Those that the variable names, else all that nvidia-smi lists; [] without any.
    """
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        names = [name.strip() for name in chosen.split(",")]
        return [name for name in names if name and not name.startswith("-")]
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.split() if done.returncode == 0 else []


class OnGpus:
    """Starts processes on this machine, each on the GPU that has the fewest of them.

    Args:
        names: of the GPUs (`gpus`), at least one.
    """

    def __init__(self, names: Sequence[str]):
        self._users = dict.fromkeys(names, 0)
        self._lock = threading.Lock()

    def __call__(self, arguments: Sequence[str]) -> Process:
        with self._lock:
            gpu = min(self._users, key=lambda name: self._users[name])
            self._users[gpu] += 1
        variables = os.environ | {"CUDA_VISIBLE_DEVICES": gpu}
        try:
            process = subprocess.Popen(_command(arguments), env=variables)
        except BaseException:
            self._release(gpu)
            raise
        return _OnGpu(process, lambda: self._release(gpu))

    def _release(self, gpu: str) -> None:
        with self._lock:
            self._users[gpu] -= 1


class _OnGpu:
    """A process that gives its GPU back once it was waited for."""

    def __init__(self, process: subprocess.Popen, release: Callable[[], None]):
        self.process, self.release = process, release

    def wait(self) -> int:
        exit_code = self.process.wait()
        self.release()
        self.release = lambda: None
        return exit_code

    def terminate(self) -> None:
        self.process.terminate()


def require_ray() -> None:
    """UsageError unless Ray can be imported."""
    if importlib.util.find_spec("ray") is None:
        raise UsageError(
            f"--executor ray needs Ray, which is not installed: {install_hint('ray')}."
        )


class Ray:
    """Starts arms as tasks of a Ray cluster (the extra `ray`).

    The cluster is the one that RAY_ADDRESS names, else one of this machine alone. All
    machines need this package installed, and OUT and the data at the same place. Where
    the cluster has GPUs, each arm gets one to itself.

    Args:
        cpus: of each arm, kept free for it.
    """

    def __init__(self, cpus: int):
        ray = _ray()
        ray.init(ignore_reinit_error=True, include_dashboard=False)
        options: dict[str, Any] = {"num_cpus": cpus, "max_retries": 0}
        if ray.cluster_resources().get("GPU"):
            options["num_gpus"] = 1
        self._task = ray.remote(**options)(_run_here)

    def __call__(self, arguments: Sequence[str]) -> Process:
        return _RayProcess(self._task.remote(list(arguments)))


class _RayProcess:
    """A task of the cluster, in the shape of a local process."""

    def __init__(self, reference: Any):
        self.reference = reference

    def wait(self) -> int:
        """The arm's exit code; -SIGTERM where the cluster lost or stopped it."""
        ray = _ray()
        try:
            return ray.get(self.reference)
        except ray.exceptions.RayError:
            return -signal.SIGTERM

    def terminate(self) -> None:
        _ray().cancel(self.reference)  # raises KeyboardInterrupt in `_run_here`


def _ray() -> Any:
    """The module, which is installed only where it is asked for."""
    return importlib.import_module("ray")


def _run_here(arguments: Sequence[str]) -> int:
    """On a machine of the cluster: run an arm until it ends or is cancelled."""
    process = subprocess.Popen(_command(arguments))
    try:
        while process.poll() is None:  # Ray cannot interrupt a wait
            time.sleep(POLL_SECONDS)
        return process.returncode
    except KeyboardInterrupt:
        process.terminate()
        return process.wait()


def _command(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, *arguments, "--parent", str(os.getpid())]
