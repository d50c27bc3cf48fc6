"""One task for many items: in threads, in processes, on a Ray cluster.

Each function takes (work, items, workers) and gives the results in the items' order,
whichever is finished first. An item has the attributes `split` and `id`.
"""

import importlib
import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context

from keras_seg.command_line import end_with_parent, install_hint
from keras_seg.errors import DataError, UsageError

_RAY_TASKS_PER_CPU = 4  # handed to the cluster ahead of the oldest result


def in_threads(work: Callable, items: Sequence, workers: int) -> Generator:
    """For work that is fast or releases the interpreter lock."""
    with _ending(ThreadPoolExecutor(workers)) as pool:
        yield from pool.map(work, items)


def in_processes(work: Callable, items: Sequence, workers: int) -> Generator:
    """For work that holds the interpreter lock or may crash; `work` is picklable.

    The result of an item whose process dies (a decoder that crashes) is a DataError.
    """
    left = list(items)
    while left:
        done = 0
        try:
            with _ending(_processes(workers)) as pool:
                for future in [pool.submit(work, item) for item in left]:
                    yield future.result()
                    done += 1
        except BrokenProcessPool:
            pass
        left = left[done:]
        if left:  # any of those in progress may be the one that crashed
            yield _alone(work, left.pop(0))


def on_ray(work: Callable, items: Sequence, workers: int) -> Generator:
    """As processes, on the cluster that $RAY_ADDRESS names, or a local one.

    Every machine has to see the raw and the prepared folder under the same paths.
    `workers` is the size of a local cluster only.
    """
    try:
        ray = importlib.import_module("ray")
    except ImportError:
        raise UsageError(
            f"--executor ray needs the extra: {install_hint('ray')}."
        ) from None
    here = not ray.is_initialized()
    if here:
        local = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers}
        ray.init(log_to_driver=False, include_dashboard=False, **local)
    try:
        task, shared_work = ray.remote(_call), ray.put(work)
        ahead = int(ray.cluster_resources().get("CPU", 1)) * _RAY_TASKS_PER_CPU
        running: deque = deque()
        for item in items:
            if len(running) >= ahead:
                yield _ray_result(ray, *running.popleft())
            running.append((item, task.remote(shared_work, item)))
        while running:
            yield _ray_result(ray, *running.popleft())
    finally:
        if here:
            ray.shutdown()


def _call(work: Callable, item):
    return work(item)


def _ray_result(ray, item, reference):
    try:
        return ray.get(reference)
    except ray.exceptions.WorkerCrashedError:
        return _crashed(item)


def _alone(work: Callable, item):
    with _ending(_processes(1)) as pool:
        try:
            return pool.submit(work, item).result()
        except BrokenProcessPool:
            return _crashed(item)


def _crashed(item) -> DataError:
    return DataError(f"{item.split}/{item.id} crashed its decoder.")


def _processes(workers: int) -> ProcessPoolExecutor:
    # spawn: the parent may have threads, which a fork would leave in any state.
    return ProcessPoolExecutor(workers, get_context("spawn"), _start_worker)


@contextmanager
def _ending(pool: Executor):
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    # Ctrl-C reaches every process of the terminal; the parent answers it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent(then="exit")
