"""Lives of a run, a prepared folder and a stage on a disk that fails.

    LD_PRELOAD=faulty_disk.so python tests/faulty_disk.py LIVES FOLDER EVERY FIRST [one]

LIVES are names of the table below, with commas between them. Each life is led once in
peace, which counts its changing system calls. Then it is led again for every EVERY-th
call from number FIRST on, and with every fault of FAULTS (with "one", with one of them
in turn): the call fails with that error, or the process is killed in it. Then the same
command is given once more, in peace. A line of JSON for each case says what became of
it.

Networks are stood in for by arrays that each step changes, so that a life takes tenths
of a second; everything that is written and read is the real code's.
"""

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import miniatures
import numpy as np

from keras_seg import backend, command_line, plots, storage, study
from keras_seg.config import Config, to_dict
from keras_seg.data import prepare
from keras_seg.data.prepared import open_prepared
from keras_seg.errors import KerasSegError
from keras_seg.runs import checkpoint, evaluate, executors, loop
from keras_seg.runs import folder as run_folder
from keras_seg.runs import train as training

FAULTS = {"ENOSPC": errno.ENOSPC, "EDQUOT": errno.EDQUOT, "EIO": errno.EIO, "kill": 0}
FULL = ("ENOSPC", "EDQUOT")  # a disk that is full stays full
KINDS = ("open", "write", "fsync", "rename", "link", "unlink", "mkdir", "rmdir")
KINDS += ("truncate",)
# Clock times, and what tells of the earlier session
MAY_DIFFER = ("log.txt", "timing.csv", "environment.json", "journal.jsonl", ".lock")
MAY_DIFFER += ("wanted.json", "failure.json")
HIDDEN = re.compile(r"(^|/)\.")
CONFIG = Config(
    net="segnet_basic",
    data={"size": (32, 48), "batch": 4},
    validation={"every": 4},
    steps=8,
)


class Plan(ctypes.Structure):
    """`struct plan` of faulty_disk.c."""

    _fields_ = [
        ("calls", ctypes.c_long),
        ("at", ctypes.c_long),
        ("error", ctypes.c_int),
        ("full", ctypes.c_int),
        ("no_locks", ctypes.c_int),
        ("kinds", ctypes.c_long * len(KINDS)),
        ("failed", ctypes.c_char * 64),
    ]


def the_plan() -> Plan:
    library = ctypes.CDLL(None)
    library.faulty_disk_plan.restype = ctypes.POINTER(Plan)
    return library.faulty_disk_plan().contents


def watch(folder: Path) -> None:
    ctypes.CDLL(None).faulty_disk_watch(str(folder).encode())


# A run without a network


class Variable:
    """As much of a keras.Variable as checkpoints use."""

    def __init__(self, path, value):
        self.path, self.value = path, np.array(value)

    @property
    def shape(self):
        return self.value.shape

    def assign(self, value):
        self.value = np.array(value)


class Net:
    """What `fit` trains: a step adds random numbers that depend on (step, seed)."""

    output: dict = {}
    stop_training = False

    def __init__(self, seed: int):
        rng = np.random.default_rng(seed)
        self.variables = [Variable("kernel", rng.normal(size=(3, 4)))]
        self.variables += [Variable("seed", np.array([seed, 7], "uint32"))]
        self.metrics_variables = [Variable("loss/total", np.zeros(()))]
        moment = Variable("m", [0.0, 0.0])
        self.trainable_variables = [Variable("iterations", np.array(0)), moment]
        self.weights = self.variables

    def compile(self, **_):
        pass

    def compute_loss(self, **_):
        pass

    def compute_metrics(self, *_):
        pass

    def fit(self, steps, steps_per_epoch, callbacks, **_):
        (total,) = self.metrics_variables
        total.assign(0.0)
        for callback in callbacks:
            callback.set_model(self)
            callback.on_epoch_begin(0)
        for step in steps:
            for callback in callbacks:
                callback.on_train_batch_begin(step)
            gradient = np.random.default_rng(step).normal(size=(3, 4))
            kernel, (iterations, moment) = self.variables[0], self.trainable_variables
            moment.assign(0.9 * moment.value + gradient[0, :2])
            kernel.assign(kernel.value - 0.1 * gradient * moment.value.sum())
            iterations.assign(iterations.value + 1)
            total.assign(total.value + abs(kernel.value).mean())
            logs = {"loss": float(total.value)}
            for callback in callbacks:
                callback.on_train_batch_end(step, logs)
        return SimpleNamespace(history={"loss": [float(total.value)]})


class Samples:
    error = None
    ids = ("a", "b", "c")
    size = (4, 6)

    def inside(self, position):
        return self.size

    def __len__(self):
        return len(self.ids)

    def plain(self, position):
        return np.full((4, 6, 3), position, np.uint8), np.zeros((4, 6), np.uint8)


class Network:
    """Stands in for `evaluate.Network`."""

    heads: dict = {}
    preprocess = "unit"
    parameters = {"trainable": 12, "all": 14}
    gflop = 0.5

    def __init__(self, config, num_classes, *_):
        self.config, self.num_classes = config, num_classes
        self.net = Net(config.seed + config.net.filter_scale)

    def compile_arguments(self, _):
        counts = lambda: self.counts()[0]  # noqa: E731
        return {"metrics": {"logits": SimpleNamespace(confusion=counts)}}

    def samples(self, *_, **__):
        return Samples()

    def direct_weights(self, _):
        return None

    def predict(self, image, _):
        return np.ones(image.shape[:3], np.uint8)

    def milliseconds_per_image(self):
        return 1.0

    def counts(self) -> np.ndarray:
        """int64 [3, C, C], of three images; they depend on the weights."""
        bits = hashlib.sha256(self.net.variables[0].value.tobytes()).digest()
        shape = 3, self.num_classes, self.num_classes
        return np.random.default_rng(list(bits)).integers(1, 50, shape)


class Scorer:
    """Stands in for `evaluate.Scorer`."""

    def __init__(self, network, *_):
        self.network = network

    def score(self, *_, **__):
        counts = self.network.counts()
        hits = np.stack([np.diagonal(one) for one in counts])
        per_image = run_folder.PerImage(Samples.ids, hits, counts.sum(2), counts.sum(1))
        return evaluate.Scored(0.5, counts.sum(0), per_image)


class Feed:
    """Stands in for `data.pipeline.Feed`: batches are numbers."""

    def __init__(self, *_, **__):
        pass

    def training(self, seed, augment, start, stop, *_):
        return SimpleNamespace(dataset=lambda: range(start, stop))


def without_networks() -> None:
    evaluate.Network, evaluate.Scorer, loop.Feed = Network, Scorer, Feed
    loop.optimizers.build = lambda _, variables: SimpleNamespace(
        variables=variables, use_ema=False
    )
    # Unused, TensorFlow has no threads, and its process can be forked.
    backend.start, backend.name = lambda *_: None, lambda: "tensorflow"
    backend.fingerprint = lambda: {"cpu": "the same", "gpus": "none"}
    training.import_backend = lambda: None
    for name in ("run_curves", "run_samples"):
        setattr(plots, name, lambda *_, **__: None)
    plots.png = lambda _: b"a picture"
    save = checkpoint.save

    def noted_save(folder, step, *rest, **options):
        place = save(folder, step, *rest, **options)
        if folder.name == "checkpoints" and SAVED.exists():
            with open(SAVED / str(folder).replace("/", "|"), "w") as file:
                file.write(str(step))
        return place

    checkpoint.save = noted_save


SAVED = Path("unset")  # a file for each folder of checkpoints: the last that was saved


class Forked:
    """Runs an arm in a fork of this process instead of a new Python."""

    def __init__(self, arguments):
        # A signal while Python takes up its work in the fork would be lost; after it,
        # one ends the fork as it ends a new Python, until it knows better.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        self.pid = os.fork()
        if self.pid == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        if self.pid == 0:
            leave(training.main, list(arguments[2:]))

    def wait(self):
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def terminate(self):
        with contextlib.suppress(ProcessLookupError):  # as Popen, where it has ended
            os.kill(self.pid, 15)


def leave(main, arguments) -> None:
    """End this process as the command would."""
    try:
        code = command_line.run(main, arguments)
    except SystemExit as leaving:
        code = leaving.code
    finally:
        sys.stderr.flush()
    os._exit(code)


# Lives


def run_words(place: Path, root: Path) -> tuple[Callable, list]:
    config = place / "config.json"
    config.write_text(json.dumps(to_dict(CONFIG)))
    words = ["--config", config, "--data", place / "data", "--out", root / "run"]
    return training.main, [*words, "--checkpoint-every", 3]


def prepare_words(place: Path, root: Path) -> tuple[Callable, list]:
    words = ["camvid", "--src", place / "raw", "--out", root / "data"]
    return prepare.main, [*words, "--workers", 1]


def overwrite_words(place: Path, root: Path) -> tuple[Callable, list]:
    main, words = prepare_words(place, root)
    return main, [*words, "--limit", 2, "--overwrite"]


STUDY = """
from keras_seg.ablation.protocol import Arm, DataFacts, Plan, Stage, Study
from keras_seg.config import from_dict

BASE = from_dict({config})
WIDTH = Stage("width", "Wider?", "test", lambda base: [
    Arm("normal", "Normal", base),
    Arm("double", "Double", base.changed(net={{"filter_scale": 2}})),
])
PLAN = Plan(paper=lambda data: BASE, stages=(WIDTH,), scales={{"demo": {{}}}})
STUDY = Study("faulty", "Faulty", (), DataFacts((24, 40), 10), {{"segnet_basic": PLAN}})
"""


def stage_words(place: Path, root: Path) -> tuple[Callable, list]:
    (place / "faulty.py").write_text(STUDY.format(config=to_dict(CONFIG)))

    def report(request, _, execution, results):
        states = [result.state for stage in results for result in stage.results]
        storage.write_file(execution.folder / "report.md", f"{states}")
        return study.Report(execution.folder / "report.md")

    study.write_report, executors.local = report, Forked
    words = ["--study", place / "faulty.py", "--stage", "width", "--threads", 2]
    return study.main, [*words, "--data", place / "data", "--out", root / "out"]


LIVES = {"run": run_words, "prepare": prepare_words}
LIVES |= {"overwrite": overwrite_words, "stage": stage_words}


class Life:
    """One life, led over and over in the same place.

    Args:
        name: of LIVES.
        place: a folder of this process' own.
    """

    def __init__(self, name: str, place: Path):
        global SAVED
        self.name, self.place, self.root = name, place, place / "disk"
        self.plan = the_plan()
        self.log = place / "stderr"
        SAVED = self.saved = place / "saved"
        if name in ("run", "stage"):
            miniatures.shapes(place / "data")
        else:
            miniatures.camvid(place / "raw")
        self.before = place / "before"  # what is on the disk at the start of a life
        self.before.mkdir()
        if name == "overwrite":
            self._lead(prepare_words)
            shutil.rmtree(self.before)
            self.root.rename(self.before)

    def begin(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self.before, self.root)
        shutil.rmtree(self.saved, ignore_errors=True)
        self.saved.mkdir()

    def lead(self, at: int = -1, fault: str = "kill") -> int:
        """The exit code of a life whose call number `at` fails."""
        return self._lead(LIVES[self.name], at, fault)

    def _lead(self, life, at: int = -1, fault: str = "kill") -> int:
        self.root.mkdir(exist_ok=True)
        plan = self.plan
        plan.calls, plan.at, plan.error = 0, at, FAULTS[fault]
        plan.full, plan.failed = fault in FULL, b""
        pid = os.fork()
        if pid == 0:
            stderr = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(stderr, 1)
            os.dup2(stderr, 2)
            watch(self.root)
            main, words = life(self.place, self.root)
            leave(main, list(map(str, words)))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        plan.at = -1
        return code

    def content(self) -> dict[str, str]:
        """{file: hash} of what must be the same however often a life was disturbed."""
        return {
            path.relative_to(self.root).as_posix(): contents(path)
            for path in sorted(self.root.rglob("*"))
            if path.is_file() and path.name not in MAY_DIFFER
        }

    def half_written(self) -> list[str]:
        """What is not whole under its own name."""
        found = []
        for path in self.root.rglob("*"):
            temporary = [p for p in path.parts if p.startswith(".")]
            if temporary or not path.is_file():
                continue
            try:
                check_whole(path)
            except (KerasSegError, ValueError, OSError) as error:
                found.append(f"{path.relative_to(self.root)}: {error}")
        for path in self.root.rglob("meta.json"):
            data = path.parent
            if data.name == "data" and ".data" not in str(data):
                try:
                    open_prepared(data)
                except KerasSegError as error:
                    found.append(str(error))
        return found

    def lost(self) -> list[str]:
        """Checkpoints that were saved and are there no more, nor later ones."""
        found = []
        for file in self.saved.iterdir():
            folder = Path(file.name.replace("|", "/"))
            if (folder.parent / "metrics.json").exists():
                continue
            try:
                newest = checkpoint.load_newest(folder)
            except KerasSegError:
                newest = None
            if newest is None or newest[0] < int(file.read_text()):
                found.append(f"{folder}: step {file.read_text()}")
            elif newest[2]["state"]["best_step"] >= 0:
                best = folder.parent / "best"
                name = f"step-{newest[2]['state']['best_step']:08d}"
                try:
                    checkpoint.load(best / name)
                except ValueError:
                    found.append(f"{best}: {name}")
        return found


def contents(path: Path) -> str:
    """A hash, but of records that tell of clock times and places what is left."""
    if path.name == "meta.json":
        try:
            record = json.loads(path.read_text())
        except ValueError:  # one that was being written, in a hidden folder
            return hashlib.sha256(path.read_bytes()).hexdigest()
        if not path.parent.name.startswith("step-"):  # of prepared data
            return json.dumps(record | {"command": ""})
        state = record["meta"].get("state", {})
        for key in ("seconds", "timed_seconds", "timed_steps"):
            state.pop(key, None)
        record.pop("record_sha256", None)
        return json.dumps(record)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_whole(path: Path) -> None:
    if path.parent.name.startswith("step-"):
        checkpoint.load(path.parent)
    elif path.name == "journal.jsonl":
        storage.read_json_lines(path)
    elif path.suffix == ".json":
        storage.read_json(path)
    elif path.suffix == ".csv" and path.name != "manifest.csv":
        storage.read_table(path)
    elif path.suffix == ".npz":
        storage.read_arrays(path)


def main(lives: str, place: str, every: str, first: str, ways: str = "all") -> None:
    without_networks()
    for name in lives.split(","):
        lead(name, Path(place) / name, int(every), int(first), ways)


def lead(name: str, folder: Path, every: int, first: int, ways: str) -> None:
    folder.mkdir(parents=True)
    life = Life(name, folder)
    life.begin()
    began = time.monotonic()
    for kind in range(len(KINDS)):
        life.plan.kinds[kind] = 0
    assert life.lead() == 0, life.log.read_text()
    kinds = dict(zip(KINDS, life.plan.kinds))
    calls, whole = life.plan.calls, life.content()
    seconds = time.monotonic() - began
    say(life=name, calls=calls, kinds=kinds, files=len(whole), seconds=seconds)
    for turn, number in enumerate(range(first, calls, every)):
        for fault in FAULTS if ways == "all" else [list(FAULTS)[turn % len(FAULTS)]]:
            life.begin()
            code = life.lead(number, fault)
            failed, stderr = life.plan.failed.decode(), life.log.read_text()
            half, lost = life.half_written(), life.lost()
            found = life.content().items()  # a leftover may wait to be swept
            is_whole = dict(e for e in found if not HIDDEN.search(e[0])) == whole
            again = life.lead()
            say(
                life=name,
                call=number,
                fault=fault,
                failed=failed,
                code=code,
                unforeseen="unforeseen" in stderr or "Traceback" in stderr,
                half=half,
                lost=lost,
                is_whole=is_whole,
                again=again,
                differs=sorted(dict(life.content().items() ^ whole.items())),
                stderr=stderr[-600:],
                stderr_again=life.log.read_text()[-600:] if again else "",
            )


def say(**what) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
