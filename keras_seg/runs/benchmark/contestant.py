"""A process that trains, predicts or loads when it is its turn, and says how long.

    python -m keras_seg.runs.benchmark.contestant '{"kind": "keras", ...}'

Several live beside each other and take turns, so that a machine which grows slower is
slower for all of them. They speak in JSON lines: on stdin {"what", "steps"}, on stdout
{"seconds"} of a step with the most memory so far; first of all {} or {"error"}.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from keras_seg import command_line, nets, storage
from keras_seg.config import Config, from_dict

PAUSE = 0.3  # seconds before a turn: the threads of the one before come to rest
CLASSES = 25

Turn = Callable[[int], float]  # steps -> seconds of a step


class FailedError(Exception):
    """A contestant cannot take part; the text says why."""


class Contestant:
    """The process, seen from the one that gives the turns.

    Args:
        spec: what it is: "kind" of `KINDS`, and what that takes.
        log: where its stderr goes.
        environment: variables of its own.

    Attributes:
        seconds: from its start until it was ready.
        memory: the most bytes it has used.

    Raises:
        FailedError: it cannot take part.
    """

    def __init__(
        self,
        spec: Mapping[str, Any],
        log: Path,
        environment: Mapping[str, str] | None = None,
    ):
        self.log, self.memory = log, 0
        began = time.monotonic()
        with open(log, "a") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", __name__, json.dumps(spec)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                env=os.environ | dict(environment or {}),
                start_new_session=True,  # what it starts ends with it
            )
        self._answer()
        self.seconds = time.monotonic() - began

    def turn(self, what: str, steps: int) -> float:
        """Seconds of a step."""
        time.sleep(PAUSE)
        assert self.process.stdin is not None
        try:
            print(json.dumps([what, steps]), file=self.process.stdin, flush=True)
        except BrokenPipeError:
            pass  # `_answer` says why
        answer = self._answer()
        self.memory = answer["memory"]
        return answer["seconds"]

    def stop(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                answer = json.loads(line)
                if "error" in answer:
                    self.stop()
                    raise FailedError(answer["error"])
                return answer
        code = self.process.wait()
        raise FailedError(f"it ended with exit code {code}; {self.log} says why")


# In the process: each kind imports what it measures, and nothing else


def _network(spec: Mapping[str, Any]) -> tuple[Config, Any]:
    """The configuration and its network; the weights are kept for PyTorch's twin."""
    from keras_seg.runs.benchmark import ours

    config = from_dict(spec["config"])
    network, weights = ours.built(config, CLASSES)
    storage.write_arrays(Path(spec["weights"]), weights)
    return config, network


def _repeated(step: Callable[[], Any]) -> Turn:
    """Seconds of a step that ends when it returns."""

    def turn(steps: int) -> float:
        began = time.perf_counter()
        for _ in range(steps):
            step()
        return (time.perf_counter() - began) / steps

    return turn


def _pixels(config: Config) -> np.ndarray:
    """A batch of images, uint8 RGB."""
    shape = (config.data.batch, *config.data.size, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def _keras(spec: Mapping[str, Any]) -> dict[str, Turn]:
    from keras_seg.runs.benchmark import ours

    config, network = _network(spec)
    one = ours.Ours(config, network, CLASSES)
    one.train(0)
    return {"train": one.train}


def _keras_predictions(spec: Mapping[str, Any]) -> dict[str, Turn]:
    from keras_seg.runs.benchmark import ours

    config = from_dict(spec["config"])
    network, _ = ours.built(config, CLASSES)
    arrays = storage.read_arrays(Path(spec["weights"]))
    for weight in network.net.weights:
        weight.assign(arrays[weight.path])
    network.fix_weights()
    images = _pixels(config)
    return {"predict": _repeated(lambda: ours.serve(network, images))}


def _keras_scores(spec: Mapping[str, Any]) -> dict[str, Turn]:
    from keras_seg.runs.benchmark import ours

    config, network = _network(spec)
    one = ours.Scores(config, network, Path(spec["data"]))
    return {"evaluate": one.evaluate, "forward": one.forward}


def _keras_loader(spec: Mapping[str, Any]) -> dict[str, Turn]:
    from keras_seg.runs.benchmark import ours

    config = from_dict(spec["config"])
    return {"load": ours.Loaded(config, Path(spec["data"]), spec["workers"]).load}


def _twin(spec: Mapping[str, Any]) -> Any:
    from keras_seg.runs.benchmark import theirs

    config = from_dict(spec["config"])
    way = theirs.Way(spec["compiles"], spec["is_channels_last"])
    weights = storage.read_arrays(Path(spec["weights"]))
    preprocess = nets.get(config.net.name).preprocess
    return theirs.Theirs(config, weights, CLASSES, way, preprocess)


def _torch(spec: Mapping[str, Any]) -> dict[str, Turn]:
    one = _twin(spec)
    one.train(1)
    return {
        "train": one.train,
        "evaluate": lambda batches: one.evaluate(batches, CLASSES),
    }


def _torch_predictions(spec: Mapping[str, Any]) -> dict[str, Turn]:
    return {"predict": _twin(spec).serve_pixels}


def _torch_loader(spec: Mapping[str, Any]) -> dict[str, Turn]:
    from keras_seg.data import pipeline
    from keras_seg.data.prepared import open_prepared
    from keras_seg.runs.benchmark import theirs

    config = from_dict(spec["config"])
    samples = pipeline.Samples(
        open_prepared(Path(spec["data"])), "train", config.data.size
    )
    pairs = [samples.plain(k)[:2] for k in range(len(samples))]
    images, labels = map(np.stack, zip(*pairs))
    batches = theirs.loader(images, labels, config.data.batch, spec["workers"])
    return {"load": _repeated(lambda: next(batches))}


def _engine(spec: Mapping[str, Any]) -> dict[str, Turn]:
    from keras_seg.runs import engines

    config = from_dict(spec["config"])
    serve = engines.check(spec["engine"]).open(Path(spec["folder"]), None)
    images = _pixels(config)
    return {"predict": _repeated(lambda: serve(images))}


def _exports(spec: Mapping[str, Any]) -> dict[str, Turn]:
    """Writes exports, and the weights of all predictions.

    `KINDS` has it for its memory's sake.
    """
    from keras_seg.runs import export
    from keras_seg.runs.benchmark import ours

    network, _ = ours.built(from_dict(spec["config"]), CLASSES)
    storage.write_arrays(Path(spec["weights"]), ours.settle(network))
    nothing: Any = None  # these formats are not calibrated on data
    source = export.Source(network, None, nothing)

    def written(format: str, folder: Path) -> Turn:
        def write(steps: int) -> float:
            began = time.perf_counter()
            folder.mkdir()
            export.FORMATS[format].write(source, folder)
            return time.perf_counter() - began

        return write

    return {
        format: written(format, Path(folder))
        for format, folder in spec["folders"].items()
    }


KINDS: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Turn]]] = MappingProxyType(
    {
        "keras": _keras,
        "keras predictions": _keras_predictions,
        "keras scores": _keras_scores,
        "keras loader": _keras_loader,
        "torch": _torch,
        "torch loader": _torch_loader,
        "torch predictions": _torch_predictions,
        "engine": _engine,
        "exports": _exports,
    }
)


def main(argv: list[str]) -> int:
    spec = json.loads(argv[0])
    turns: dict[str, Turn] = {}

    def ready() -> dict[str, Any]:
        turns.update(KINDS[spec["kind"]](spec))
        return {}

    _answer(ready)
    for line in sys.stdin:
        what, steps = json.loads(line)
        _answer(lambda: {"seconds": turns[what](steps), "memory": memory()})  # noqa: B023
    return 0


def _answer(compute: Callable[[], dict[str, Any]]) -> None:
    try:
        answer = compute()
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        answer = {"error": f"{type(error).__name__}: {lines[0][:200]}"}
    print(json.dumps(answer), flush=True)


def memory() -> int:
    """The most bytes that this process has used."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


if __name__ == "__main__":
    sys.exit(command_line.run(main))
