"""What every test shares: a quiet backend, real data, no silently skipped peers."""

import gc
import importlib.util
import os
import resource
import sys
from contextlib import contextmanager
from pathlib import Path

import miniatures
import pytest

from keras_seg import backend

# Last, so that no tool hides a package of its name, as coverage.py would coverage
sys.path.append(str(Path(__file__).resolve().parents[1] / "tools"))

backend.set_environment()

LONGEST = ("test_studies", "test_runs_train", "test_faults", "test_nets")
PEERS = ("torch", "onnxruntime", "tf2onnx", "embreex")


def pytest_sessionstart(session):
    """Where the peers are required (.ci/run), a missing one ends the run."""
    if os.environ.get("KERAS_SEG_REQUIRE_PEERS") == "1":
        missing = [name for name in PEERS if importlib.util.find_spec(name) is None]
        if missing:
            pytest.exit(f"peers required but missing: {', '.join(missing)}", 4)


def pytest_collection_modifyitems(items):
    """The longest files first, so that parallel processes end together."""
    items.sort(key=lambda item: item.path.stem not in LONGEST)


def pytest_collection_finish():
    """What was imported is left out of collections of garbage, and threads are set.

    Where a test imported TensorFlow: as many as runs in this process ask for. They are
    fixed once per process, before the first operation.
    """
    gc.collect()
    gc.freeze()
    if "tensorflow" in sys.modules and backend.name() == "tensorflow":
        threading = sys.modules["tensorflow"].config.threading
        threading.set_intra_op_parallelism_threads(2)
        threading.set_inter_op_parallelism_threads(2)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Where the peers are required, a skipped comparison is a failure."""
    report = yield
    required = os.environ.get("KERAS_SEG_REQUIRE_PEERS") == "1"
    if required and report.skipped and item.get_closest_marker("peers"):
        report.outcome = "failed"
        report.longrepr = f"skipped, but peers are required: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder $KERAS_SEG_DATA with camvid and ccp; skips where it is not set."""
    folder = os.environ.get("KERAS_SEG_DATA")
    if not folder:
        pytest.skip("KERAS_SEG_DATA is not set")
    return Path(folder)


@pytest.fixture
def small_files():
    """A context in which no file grows beyond so many bytes, as on a full disk."""

    @contextmanager
    def limit(size: int):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    return limit


@pytest.fixture(scope="session")
def shapes(tmp_path_factory) -> Path:
    """A prepared folder of coloured patches: 4 classes, void, 24 x 40 px, learnable."""
    return miniatures.shapes(tmp_path_factory.mktemp("data") / "shapes")


@pytest.fixture(scope="module")
def _plain_runs():
    with miniatures.plain_runs():
        yield
