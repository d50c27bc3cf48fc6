"""Prepare a process for Keras: environment before the import, determinism after it.

Call `configure()` before the first import of Keras, or `start()`, which calls it. It
decides, once, how fast everything after it is; `start` also how reproducible.
"""

import functools
import importlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from keras_seg.errors import UsageError

_TENSORFLOWS = ("tensorflow", "tensorflow-cpu", "tensorflow-gpu", "tensorflow-intel")


def configure() -> None:
    """Set what must be set before Keras is imported, and import the backend silently.

    oneDNN is switched on (2.7 times faster ICNet training on processors where
    TensorFlow leaves it off), the backend's own log lines are switched off. What is
    set in the environment already is kept.

    Raises:
        UsageError: the chosen backend is not installed, or TensorFlow is twice.
    """
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # not ~/.keras/keras.json's
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    require_installed()
    if name() == "tensorflow":
        if "tensorflow" not in sys.modules:
            with _stderr_closed():  # its C++ side greets there whatever the settings
                importlib.import_module("tensorflow")


def name() -> str:
    """The Keras backend of this process, from KERAS_BACKEND; default tensorflow."""
    return os.environ.get("KERAS_BACKEND", "tensorflow")


@contextmanager
def _stderr_closed():
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def require_installed() -> None:
    """Raise UsageError unless the backend is there, TensorFlow exactly once."""
    if name() != "tensorflow":
        if not _version(name()):
            raise UsageError("KERAS_BACKEND", name(), "an installed backend")
        return
    installed = [dist for dist in _TENSORFLOWS if _version(dist)]
    if not installed:
        raise UsageError(
            "TensorFlow",
            "not installed",
            "one of: pip install -e '.[cpu]' or pip install -e '.[gpu]'",
        )
    if len(installed) > 1:
        raise UsageError(
            "TensorFlow",
            "installed more than once (" + ", ".join(installed) + ")",
            "exactly one, since they overwrite each other's files: "
            "pip uninstall " + " ".join(installed) + ", then install one",
        )


def start(seed: int, threads: int | None = None, precision: str = "float32") -> None:
    """Import Keras and make what follows reproducible.

    Args:
        seed: of Python, NumPy and the backend.
        threads: intra-op threads; None is the number of cores. The bits of a run
            depend on it, so it is part of the fingerprint.
        precision: "float32" or "mixed_bfloat16".
    """
    configure()
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        wanted = threads or os.cpu_count() or 1
        if tf.config.threading.get_intra_op_parallelism_threads() != wanted:
            try:
                tf.config.threading.set_intra_op_parallelism_threads(wanted)
                tf.config.threading.set_inter_op_parallelism_threads(wanted)
            except RuntimeError as error:
                raise UsageError(
                    "threads", wanted, "them set before TensorFlow is first used"
                ) from error
        tf.config.experimental.enable_op_determinism()
        _add_in_order()
        tf.get_logger().setLevel("ERROR")
    keras.utils.clear_session()  # same variable names, whatever was built before
    keras.config.set_dtype_policy(precision)
    keras.utils.set_random_seed(seed)


def _add_in_order() -> None:
    """Add three or more tensors in a fixed order, which op determinism does not.

    TensorFlow's AddN sums into the first input whose buffer no other op needs any
    more, so the order of its sum depends on which op happened to finish first: on a
    busy machine a gradient differs, rarely, in its last digit. The tape adds
    gradients with it, and the graph optimizer turns chains of additions into it. Both
    are told not to; it costs 1-2 % of a step.
    """
    import tensorflow as tf
    from tensorflow.python import pywrap_tfe
    from tensorflow.python.eager import backprop

    def add(gradients):
        plain = all(tf.is_tensor(g) and g.dtype != tf.variant for g in gradients)
        if not plain:  # sparse ones, lists of tensors
            return backprop._aggregate_grads(gradients)
        return functools.reduce(tf.add, gradients)

    space = backprop._default_vspace._replace(aggregate_fn=add)
    pywrap_tfe.TFE_Py_RegisterVSpace(space)
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})


def fingerprint() -> dict[str, str | int]:
    """Everything besides configuration and data that the bits of a run depend on."""
    import keras

    backend = keras.backend.backend()
    values: dict[str, str | int] = {
        "python": platform.python_version(),
        "keras": keras.__version__,
        "backend": backend,
        "numpy": _version("numpy"),
        "opencv": _version("opencv-python-headless") or _version("opencv-python"),
        "pillow": _version("pillow"),
        "cpu": _cpu_model(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    if backend == "tensorflow":
        import tensorflow as tf

        values["tensorflow"] = tf.__version__
        values["threads"] = tf.config.threading.get_intra_op_parallelism_threads()
        values["onednn"] = os.environ.get("TF_ENABLE_ONEDNN_OPTS", "")
        gpus = tf.config.list_physical_devices("GPU")
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        names = [one.get("device_name", "unknown") for one in details]
        values["gpus"] = ", ".join(names) or "none"
    else:
        values[backend] = _version(backend)
    return values


def commit() -> str | None:
    """The commit of the checkout this package runs from; None outside of one."""
    folder = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
