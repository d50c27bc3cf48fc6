"""Prepare a process for Keras: environment before the import, determinism after it.

`set_environment()` before the first import of Keras (`import keras_seg` calls it),
`configure()` to import TensorFlow without its greetings, `start()` before a run. They
decide, once, how fast everything after them is; `start` also how reproducible.
"""

import functools
import importlib
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import MappingProxyType
from typing import Any

from keras_seg.backend import convolution, operations
from keras_seg.backend.convolution import for_this_processor as for_this_processor
from keras_seg.command_line import install_hint, note
from keras_seg.config import LOSSES
from keras_seg.errors import UsageError

# Raise it with every change that alters the bits of a training: a run that began before
# is then resumed only on request.
ARITHMETIC = 5

_TENSORFLOWS = ("tensorflow", "tensorflow-cpu", "tensorflow-gpu", "tensorflow-intel")


# The module of every class with @keras.saving.register_keras_serializable("keras_seg")
SAVED_CLASSES: Mapping[str, str] = MappingProxyType(
    {
        "AdaptiveAveragePooling": "keras_seg.nets.layers",
        "BilinearKernel": "keras_seg.nets.layers",
        "BilinearResize": "keras_seg.nets.layers",
        "Crop": "keras_seg.nets.layers",
        "LocalResponseNormalization": "keras_seg.nets.layers",
        "MaxPoolingWithIndices": "keras_seg.nets.layers",
        "MaxUnpooling": "keras_seg.nets.layers",
        "RematerialisedUnits": "keras_seg.nets.hourglass",
        "RepeatBorder": "keras_seg.nets.unet_valid",
        "StridedDilatedDeconv": "keras_seg.nets.fcn_dilated_tanh",
        **{loss.class_name: "keras_seg.losses" for loss in LOSSES.values()},
        "JointHeatmaps": "keras_seg.losses",
        "Sum": "keras_seg.losses",
        "WithErrorPenalty": "keras_seg.losses",
        "ConfusionMatrix": "keras_seg.metrics",
    }
)


def set_environment() -> None:
    """Set the variables that must be set before Keras and TensorFlow are imported.

    oneDNN is switched on (2.7 times faster ICNet training on processors where
    TensorFlow leaves it off), the backend's own log lines are switched off. On a GPU
    memory is taken as it is needed, so that arms and other programs share it, and XLA
    keeps to kernels that give the same bits each time. What is set already is kept;
    where the module that reads a variable was imported before, it is too late and
    nothing is set.
    """
    if "keras" not in sys.modules:  # not the backend of ~/.keras/keras.json
        os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if "tensorflow" not in sys.modules:
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    if name() == "jax" and "jax" not in sys.modules:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        flags = os.environ.get("XLA_FLAGS", "")
        if _DETERMINISTIC.partition("=")[0] not in flags:
            os.environ["XLA_FLAGS"] = f"{flags} {_DETERMINISTIC}".strip()


# No sums by atomic additions, and no kernels chosen by how fast each was this time
_DETERMINISTIC = "--xla_gpu_deterministic_ops=true"


def configure() -> None:
    """`set_environment`, then import the backend silently.

    Raises:
        UsageError: the chosen backend is not installed, or TensorFlow is twice.
    """
    set_environment()
    require_installed()
    if name() == "tensorflow" and "tensorflow" not in sys.modules:
        with _stderr_closed():  # its C++ side greets there whatever the settings
            importlib.import_module("tensorflow")


def replace_operations() -> None:
    """Give Keras' layers on TensorFlow faster operations, which `start` includes."""
    if name() == "tensorflow":
        convolution.replace(processor())
        operations.normalise_in_one()


def name() -> str:
    """The Keras backend of this process: the one imported, or that will be."""
    if "keras" in sys.modules:
        return sys.modules["keras"].config.backend()
    return os.environ.get("KERAS_BACKEND", "tensorflow")


@contextmanager
def _stderr_closed() -> Iterator[None]:
    with suppress(OSError, ValueError, AttributeError):  # its reader may have gone
        sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # the caller closed it
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
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
            raise UsageError(
                f"KERAS_BACKEND is {name()!r}, which is not installed. Install it, or "
                "set the variable to tensorflow."
            )
        return
    installed = [dist for dist in _TENSORFLOWS if _version(dist)]
    if not installed:
        raise UsageError(
            f"TensorFlow is not installed: {install_hint('cpu')} (or [gpu])."
        )
    if len(installed) > 1:
        raise UsageError(
            f"TensorFlow is installed more than once ({', '.join(installed)}), each "
            "over the others' files: pip uninstall "
            f"{' '.join(installed)}, then install one."
        )


def start(
    seed: int,
    threads: int | None = None,
    precision: str = "float32",
    devices: int = 1,
) -> None:
    """Import Keras and make what follows reproducible.

    Args:
        seed: of Python, NumPy and the backend.
        threads: of the backend's operations on the CPU; None is the number of cores.
            The bits of a run depend on it, so it is part of the fingerprint. In a
            process that has used the backend already it cannot be changed: a line on
            stderr says so.
        precision: "float32", "mixed_bfloat16" or "auto".
        devices: that share every batch of what is built from here on; JAX only.

    Raises:
        UsageError: there are fewer devices, or another backend is used.
    """
    configure()
    if name() == "jax":
        _set_jax_threads(threads or _cores())
    import keras

    if name() == "tensorflow":
        import tensorflow as tf

        set_threads(threads or os.cpu_count() or 1)
        tf.config.experimental.enable_op_determinism()
        operations.add_in_order()
        replace_operations()
        tf.get_logger().setLevel("ERROR")
    if name() == "jax":
        operations.pool_without_scatter()
    keras.utils.clear_session()  # same variable names, whatever was built before
    keras.config.set_floatx("float32")  # whatever ~/.keras/keras.json says
    keras.config.set_image_data_format("channels_last")
    keras.config.set_epsilon(1e-7)
    keras.config.set_dtype_policy(resolved_precision(precision))
    keras.utils.set_random_seed(seed)
    _share_batches(devices)


def _share_batches(count: int) -> None:
    """Split every batch over the first `count` devices, which all hold the weights.

    A step is compiled as a whole: means over a batch, of batch norm and of the losses,
    are those over the batch of all devices.
    """
    import keras

    distribution = keras.distribution
    if count > 1:
        if name() != "jax":
            raise UsageError(
                f"devices is {count}, but KERAS_BACKEND is {name()}: only jax trains "
                "one run on several devices."
            )
        found = distribution.list_devices()
        if len(found) < count:
            raise UsageError(
                f"devices is {count}, but there are {len(found)}: {', '.join(found)}."
            )
        distribution.set_distribution(distribution.DataParallel(devices=found[:count]))
    elif distribution.distribution() is not None:
        distribution.set_distribution(None)


@contextmanager
def dtype_policy_kept() -> Iterator[None]:
    """Give Keras the dtype policy again that it had before the block.

    What `start` changes besides stays: the seeds, and that Keras has forgotten the
    names of layers built before.
    """
    keras = sys.modules.get("keras")
    before = "float32" if keras is None else keras.config.dtype_policy()
    try:
        yield
    finally:
        if "keras" in sys.modules:
            sys.modules["keras"].config.set_dtype_policy(before)


def set_threads(wanted: int) -> None:
    """Threads of TensorFlow's operations, before its first one."""
    import tensorflow as tf

    threading = tf.config.threading
    found = threading.get_intra_op_parallelism_threads()
    if found != wanted:
        try:
            threading.set_intra_op_parallelism_threads(wanted)
            threading.set_inter_op_parallelism_threads(wanted)
        except RuntimeError:  # TensorFlow has made its threads
            _say_once(
                "TensorFlow was used before in this process and keeps its "
                f"{found or 'own number of'} threads. For {wanted} threads, restart "
                "the notebook's kernel (or the process) and train first."
            )


def _set_jax_threads(wanted: int) -> None:
    jax = importlib.import_module("jax")
    bridge: Any = importlib.import_module("jax._src.xla_bridge")
    if not bridge.backends_are_initialized():
        os.environ["NPROC"] = str(wanted)  # read once, when XLA makes its threads
    elif _jax_threads() != wanted and jax.default_backend() == "cpu":
        _say_once(
            "JAX was used before in this process and keeps its "
            f"{_jax_threads()} threads. For {wanted} threads, restart the notebook's "
            "kernel (or the process) and train first."
        )


def _jax_threads() -> int:
    return int(os.environ.get("NPROC", _cores()))


def _cores() -> int:
    return os.cpu_count() or 1


def loader_threads() -> int:
    """Threads of a run's data loader where none are asked for.

    On a CPU 2, since the network needs the cores too. Beside a GPU its share of the
    machine's cores, less two for what feeds it; other arms may use the other GPUs.
    """
    if fingerprint()["gpus"] == "none":
        return 2
    try:
        gpus = len(os.listdir("/proc/driver/nvidia/gpus"))
    except OSError:
        gpus = 1
    return max(2, _cores() // max(1, gpus) - 2)


def beside_a_copy(predict: Callable[[Any], Any], weights: Iterable[Any]) -> Any:
    """The function `predict` of images [N, ...], never of one alone where that is slow.

    TensorFlow leaves the weights of a convolution of one image as they are, unless they
    are constants, and where oneDNN then finds the buffer for a kernel of 7x7 too large,
    it falls back to its reference loops: a thousand times as slow as two images. Seen
    with TensorFlow 2.21 on AVX2.
    """
    shapes = (one.shape for one in weights)
    is_wide = any(
        len(shape) == 4 and max(shape[:2]) > 5 and shape[2] > 3 for shape in shapes
    )
    if name() != "tensorflow" or not is_wide:
        return predict
    import numpy as np
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        return predict

    def predict_two(images):
        if len(images) != 1:
            return predict(images)
        return tf.nest.map_structure(
            lambda found: found[:1], predict(np.repeat(images, 2, axis=0))
        )

    return predict_two


@functools.cache
def _say_once(line: str) -> None:
    note(line)


def fingerprint() -> dict[str, str | int]:
    """Everything besides configuration and data that the bits of a run depend on.

    "threads" is 0 where TensorFlow chose their number (see `start`).
    """
    import keras

    backend = name()
    values: dict[str, str | int] = {
        "python": platform.python_version(),
        "keras": keras.__version__,
        "backend": backend,
        "numpy": _version("numpy"),
        "opencv": _version("opencv-python-headless") or _version("opencv-python"),
        "pillow": _version("pillow"),
        "arithmetic": ARITHMETIC,
        "cpu": processor(),
        "variables": " ".join(
            f"{key}={os.environ[key]}" for key in _STEERING if key in os.environ
        ),
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
    if backend == "jax":
        devices = importlib.import_module("jax").devices()
        kinds = [one.device_kind for one in devices if one.platform != "cpu"]
        values["jaxlib"] = _version("jaxlib")
        values["threads"] = _jax_threads()
        shared = keras.distribution.distribution()
        values["devices"] = 1 if shared is None else shared.device_mesh.devices.size
        values["gpus"] = ", ".join(kinds) or "none"
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


def processor() -> str:
    """Model and instruction sets: different processors share a name ("AMD EPYC")."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    facts = dict(reversed([line.split(":", 1) for line in lines if ":" in line]))
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    if "model name" not in facts:
        return platform.processor()
    sets = [flag for flag in facts.get("flags", "").split() if _SETS.match(flag)]
    model = f"family {facts.get('cpu family')} model {facts.get('model')}"
    return f"{facts['model name']} ({model}; {' '.join(sorted(sets))})"


def resolved_precision(wanted: str) -> str:
    """What `precision` is on this machine: "auto" is decided, the others are kept.

    Decided without importing the backend: bfloat16 where NVIDIA's GPUs that may be used
    have compute capability 8, or without any the processor has arithmetic for it.
    """
    if wanted != "auto":
        return wanted
    capabilities = _compute_capabilities()
    has = min(capabilities) >= 8 if capabilities else _cpu_has_bfloat16()
    return "mixed_bfloat16" if has else "float32"


def without_bfloat16() -> str:
    """The device that `start` found, where it is slower in bfloat16; else ""."""
    if name() == "tensorflow":
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        found = [one.get("compute_capability", (8, 0))[0] for one in details]
    else:
        devices = importlib.import_module("jax").devices()
        gpus = [one for one in devices if one.platform != "cpu"]
        found = [float(getattr(one, "compute_capability", 8)) for one in gpus]
    if gpus:
        return "this GPU" if min(found) < 8 else ""
    is_known = "sse4" in processor()
    return processor() if is_known and not _cpu_has_bfloat16() else ""


def _cpu_has_bfloat16() -> bool:
    return bool(re.search(r"\b(avx512_bf16|amx_bf16)\b", processor()))


def _compute_capabilities() -> list[float]:
    """Of the GPUs that may be used; [] without any."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    platforms = os.environ.get("JAX_PLATFORMS", "") if name() == "jax" else ""
    is_none = visible is not None and (not visible or visible.startswith("-"))
    if is_none or platforms.startswith("cpu"):
        return []
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    command += [f"--id={visible}"] if visible else []
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        return [float(line) for line in done.stdout.split()]
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return []


_SETS = re.compile("avx|amx|fma|sse4|bf16")  # what oneDNN chooses its kernels by
# Variables that change the kernels, and so the bits, of a run
_STEERING = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE")
_STEERING += ("DNNL_DEFAULT_FPMATH_MODE", "XLA_FLAGS", "TF_XLA_FLAGS")
_STEERING += ("NVIDIA_TF32_OVERRIDE", "TF_DETERMINISTIC_OPS", "OMP_NUM_THREADS")
_STEERING += ("JAX_DEFAULT_MATMUL_PRECISION",)


# Saved networks


def register_saved_classes() -> None:
    """Let `keras.models.load_model` find the classes of this project's networks.

    Keras knows a class only once its module is imported, which would import Keras. So
    when Keras is imported, or now if it is, a stand-in for every class is registered
    under the class's name; it imports the class when a saved network asks for it.
    """
    if "keras" in sys.modules:
        _register()
    elif not any(isinstance(finder, _AfterKeras) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterKeras())


class _StandIn:
    """What Keras makes an object from instead of the class, which is not imported."""

    def __init__(self, name: str):
        self.name = name

    def from_config(self, config, **options):
        module = importlib.import_module(SAVED_CLASSES[self.name])
        return getattr(module, self.name).from_config(config, **options)


def _register() -> None:
    import keras

    known = keras.saving.get_custom_objects()
    for name in SAVED_CLASSES:
        known.setdefault(f"keras_seg>{name}", _StandIn(name))


class _AfterKeras(MetaPathFinder):
    """Registers at the end of the import of Keras."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname != "keras":
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        found = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next(filter(None, found), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module):
                execute(module)
                _register()

            spec.loader.exec_module = execute_and_register
        return spec
