"""One training of a stage: its run folder, its process, and what became of it."""

import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from keras_seg import storage
from keras_seg.ablation.protocol import STATES, Arm, ArmResult, Stage
from keras_seg.command_line import note
from keras_seg.config import Config, from_dict, to_dict
from keras_seg.data.prepared import Prepared
from keras_seg.errors import (
    INTERRUPTED_EXIT_CODES,
    DataError,
    DivergedError,
    InterruptedRunError,
    KerasSegError,
    LockedError,
    OutOfMemoryError,
    StorageError,
)
from keras_seg.runs import executors
from keras_seg.runs import folder as run_folder
from keras_seg.runs import train as training

LOCKED_PATIENCE = 600  # seconds to wait for the arm of a runner that was killed


@dataclass(frozen=True)
class Execution:
    """Where and how the arms are run; nothing here changes a result.

    Attributes:
        folder: OUT/<study>/<net>.
        prepared: the data.
        seeds: runs per arm, with the seeds 0..seeds-1.
        jobs: arms run at the same time.
        threads: intra-op threads of each arm; None is the number of cores.
        isolate: one process per arm. False (scale smoke, one job) runs them in this
            one.
        allow_inexact: as of `keras_seg.runs.options.Options`.
        restart: train the arms of the stages that are asked for anew.
        extend: train arms that are there with fewer steps on.
        keeps_state: keep the last state of each run, which `extend` needs.
        init_weights: file for the arms that start from pretrained weights, or
            "imagenet"; without one those that were not run yet are left out.
        tensorboard: let every arm keep a log for TensorBoard.
        shard: (i, n): of the trainings of a stage only the i-th of every n, counted
            from 1; the others are other processes'. None is all.
        launch: starts the process of an arm (`keras_seg.runs.executors`).
    """

    folder: Path
    prepared: Prepared
    seeds: int = 1
    jobs: int = 1
    threads: int | None = None
    isolate: bool = True
    allow_inexact: bool = False
    restart: bool = False
    extend: bool = False
    keeps_state: bool = False
    init_weights: Path | str | None = None
    tensorboard: bool = False
    shard: tuple[int, int] | None = None
    launch: Callable[[Sequence[str]], executors.Process] = executors.local

    @cached_property
    def _weights(self) -> dict[str, tuple[Path, str]]:
        return {}  # {network: its file and the hash of that}, each read once

    def weights_of(self, net: str) -> tuple[Path, str] | tuple[None, None]:
        """The file of a network's pretrained weights and its SHA-256, if one is named.

        UsageError where "imagenet" is, and there is none of the network.
        """
        if self.init_weights is None:
            return None, None
        if net not in self._weights:
            file = training.weights_file(self.init_weights, net)
            self._weights[net] = file, training.sha256(file)
        return self._weights[net]

    def locked(self) -> AbstractContextManager[None]:
        """Hold the folder for this process; LockedError where another one does.

        Processes that train shares of a stage hold it together.
        """
        return storage.lock(self.folder, shared=self.shard is not None)

    @property
    def journal(self) -> "Journal":
        return Journal(self.folder / "journal.jsonl")


class Journal:
    """An append-only file of JSON lines: what was begun and how it ended."""

    def __init__(self, path: Path):
        self.path = path

    def add(self, **event: object) -> None:
        event = {"time": datetime.now(UTC).isoformat(timespec="seconds"), **event}
        storage.append_json(self.path, event)

    def last(self, run: str) -> dict[str, Any]:
        """The last event of a run; {} without one.

        Raises:
            StorageError: the journal is damaged.
        """
        if not self.path.is_file():
            return {}
        events = storage.read_json_lines(self.path, _JOURNAL_WAY_OUT)
        found = next((one for one in reversed(events) if one.get("run") == run), {})
        state, reason = found.get("event", "begun"), found.get("reason", "")
        if state not in ("begun", *STATES) or not isinstance(reason, str):
            what = (
                f"{self.path} is damaged: {run} ended as {state!r:.40}, {reason!r:.40}."
            )
            raise StorageError(f"{what} {_JOURNAL_WAY_OUT}")
        return found

    def end(self, run: str) -> tuple[str, str]:
        """State (one of STATES) and reason of a run that is not done."""
        found = self.last(run)
        state = found.get("event", "missing")
        if state in ("begun", "done"):  # killed without a word, or deleted since
            state = "interrupted" if state == "begun" else "missing"
        return state, found.get("reason", "")


_JOURNAL_WAY_OUT = (
    "Delete that line: an arm whose end it told is taken up again where it stopped."
)


class Task:
    """One arm of a stage with one seed, and where there are folds with one of them."""

    def __init__(
        self, stage: Stage, arm: Arm, seed: int, execution: Execution, fold: int = 0
    ):
        self.stage, self.arm, self.execution = stage, arm, execution
        self.seed, self.fold = seed, fold
        folds = arm.config.data.folds
        name = f"seed{seed}" if folds is None else f"seed{seed}-fold{fold}"
        self.run = execution.folder / stage.name / arm.name / name
        self.followers: Sequence[Task] = ()  # what its training is as well
        self.name = f"{stage.name}/{arm.name}/{name}"
        # Of several trainings of the arm, which one this is
        which = {"seed": execution.seeds > 1, "fold": folds is not None}
        words = [f" {one} {getattr(self, one)}" for one in which if which[one]]
        self.title = f"{arm.name}{''.join(words)}: "
        self.process: executors.Process | None = None
        self.stopped = False

    @property
    def config(self) -> Config:
        """What the run is, with what it was extended by.

        One that is not there yet takes the course of the arm's others, or else of an
        arm of its length.
        """
        config, folder = self._fresh, self.execution.folder
        places = [self.run]
        if not (self.run / "config.json").is_file():
            of_the_arm = sorted(self.run.parent.glob("seed*"))
            places = [*of_the_arm, *sorted(folder.glob("*/*/seed*"))]
        for place in places:
            if not (place / "config.json").is_file():
                continue
            found = from_dict(run_folder.read_identity(place)["config"])
            if found.steps == config.steps:
                return config.changed(extended=found.extended)
            is_same_arm = place.parent == self.run.parent
            if self.execution.extend and is_same_arm and found.steps < config.steps:
                return config.changed(extended=(*found.extended, found.steps))
        return config

    @property
    def wanted(self) -> Config:
        """What is trained: with `restart` as if nothing was there."""
        return self._fresh if self.execution.restart else self.config

    @property
    def _fresh(self) -> Config:
        return self.arm.config.changed(seed=self.seed, data={"fold": self.fold})

    @property
    def evaluates(self) -> bool:
        """Whether the final numbers need an evaluation after training.

        They do on another split than val, if the data have it, and at full size.
        """
        if self.stage.split == "val":
            return self.stage.full_size
        return self.stage.split in self.execution.prepared.splits

    @property
    def init_weights(self) -> Path | None:
        """The file this run starts from, if it starts from one."""
        if self.config.net.init_weights_sha256 is None:
            return None
        return self.execution.weights_of(self.config.net.name)[0]

    @property
    def identity(self) -> dict[str, Any]:
        return run_folder.identity(self.config, self.execution.prepared)

    def check_identity(self) -> None:
        """UsageError where the folder holds a run of another configuration."""
        if self.execution.extend:
            data = self.execution.prepared
            if run_folder.shorter(self.config, data, self.run) is not None:
                return
        run_folder.check_identity(self.run, self.identity)

    def check_extendable(self) -> None:
        """UsageError where there is another run, or one that cannot be trained on."""
        self.check_identity()
        old = run_folder.shorter(self.config, self.execution.prepared, self.run)
        if old is not None:
            training.check_extendable(self.config, old, self.run, extend=True)

    @property
    def has_begun(self) -> bool:
        """Whether there is a state to resume from."""
        return (self.run / "checkpoints").is_dir()

    def find_done(self) -> Path | None:
        """The folder of a finished run that equals this one and has its numbers."""
        for run in self._trained():
            if not self.evaluates or self._evaluation(run) is not None:
                return run
        return None

    def result(self) -> ArmResult:
        """What the output folder holds of the run."""
        done = self.find_done()
        history = run_folder.read_history(done or self.run)
        arm = self.arm
        if self.config.extended:
            config = arm.config.changed(extended=self.config.extended)
            arm = replace(arm, config=config)
        if done is not None:
            validation = run_folder.read_metrics(done) or {}
            metrics = self._evaluation(done) if self.evaluates else validation
            assert metrics is not None  # `find_done` saw it
            if metrics["classes"] != list(self.execution.prepared.labels.names):
                raise StorageError(
                    f"The scores in {done} are of other classes than its data. "
                    f"{storage.RESTART}"
                )
            return ArmResult(
                arm,
                self.seed,
                done,
                "done",
                metrics=metrics,
                history=history,
                timing=run_folder.read_timing(done),
                val_miou=validation["summary"]["miou"],
            )
        state, reason = self.execution.journal.end(self.name)
        return ArmResult(arm, self.seed, self.run, state, reason, history=history)

    def train(self, title: str) -> None:
        """Train the arm, in a process of its own unless `Execution.isolate` is false.

        A failure is left in the journal.

        Args:
            title: how progress lines begin.

        Raises:
            DataError: the data are damaged; other arms would find the same.
        """
        if self.stopped:
            return
        title = f"{title}{self.title}"
        journal, began = self.execution.journal, time.monotonic()
        for task in (self, *self.followers):
            journal.add(run=task.name, event="begun")
        if self.evaluates and not self.execution.restart:
            # An equal run that lacks only the evaluation gets it, and is not repeated.
            self.run = next(self._trained(), self.run)
        train = self._in_a_process if self.execution.isolate else self._in_this_one
        exit_code, reason = train(title)
        state = "done" if exit_code == 0 else state_from_exit_code(exit_code)
        ended = [self, *self.followers]
        if state == "done":  # a study of many arms would fill the disk; best/ is kept
            ended = [self, *(t for t in self.followers if t.find_done() is not None)]
            for task in () if self.execution.keeps_state else ended:
                run_folder.drop_checkpoints(task.run)
        for task in ended:
            journal.add(
                run=task.name,
                event=state,
                exit_code=exit_code,
                reason=reason,
                seconds=round(time.monotonic() - began, 1),
            )
        if state not in ("done", "interrupted"):
            note(f"{title}{state}: {reason}")
        if exit_code == DataError.exit_code:
            raise DataError(reason)
        for task in self.followers:  # the leader was begun without them
            if task not in ended:
                task.train(title)

    def stop(self) -> None:
        """Ask the arm to save itself and end; it is not begun if it was not yet."""
        self.stopped = True
        if self.process is not None:
            self.process.terminate()

    def _trained(self) -> Iterator[Path]:
        """Folders of finished runs that equal this one, in any stage.

        The base of a stage is often an arm of the stage before: it is not run twice.
        """
        others = sorted(self.execution.folder.glob("*/*/seed*"))
        for run in dict.fromkeys([self.run, *others]):
            if (run / "metrics.json").is_file() and run_folder.same(run, self.identity):
                yield run

    def _evaluation(self, run: Path) -> Mapping[str, Any] | None:
        """The run's scores on the stage's split, unless they are of other data."""
        found = run_folder.read_evaluation(run, self.stage.split, self.stage.full_size)
        manifest = self.execution.prepared.manifest_hash
        return found if found and found["manifest"] == manifest else None

    def _in_a_process(self, title: str) -> tuple[int, str]:
        """Exit code and reason of `python -m keras_seg.runs.train`."""
        files = {task: task.run / "wanted.json" for task in (self, *self.followers)}
        for task, file in files.items():
            task.run.mkdir(parents=True, exist_ok=True)
            storage.write_json(file, to_dict(task.wanted))
        command = self._command(files[self], title)
        patience = time.monotonic() + LOCKED_PATIENCE
        while True:
            for task in files:  # of another session
                (task.run / "failure.json").unlink(missing_ok=True)
            self.process = self.execution.launch(command)
            if self.stopped:  # asked between the check and the start
                self.process.terminate()
            exit_code = self.process.wait()
            locked = exit_code == LockedError.exit_code
            if not locked or self.stopped or time.monotonic() > patience:
                break
            time.sleep(2)  # a killed runner's arm is just saving itself
        if exit_code == 0:
            for file in files.values():
                file.unlink()
            return 0, ""
        if exit_code == LockedError.exit_code:
            return exit_code, f"Another process is working on {self.run}."
        return exit_code, run_folder.read_failure(self.run) or f"exit code {exit_code}"

    def _command(self, config_file: Path, title: str) -> list[str]:
        """Arguments of python; paths are absolute for the machines of a cluster."""
        execution, stage = self.execution, self.stage
        paths = {
            "--config": config_file,
            "--out": self.run,
            "--data": execution.prepared.folder,
            "--init-weights": self.init_weights,
        }
        values = {name: path.absolute() for name, path in paths.items() if path}
        values |= {"--threads": execution.threads, "--title": title}
        values |= {"--evaluate": stage.split if self.evaluates else None}
        switches = {
            "--full-size": self.evaluates and stage.full_size,
            "--tensorboard": execution.tensorboard,
            "--restart": execution.restart,
            "--extend": execution.extend,
            "--allow-inexact": execution.allow_inexact,
        }
        words = [[name, str(value)] for name, value in values.items() if value]
        words += [[name] for name, is_on in switches.items() if is_on]
        for task in self.followers:
            file, run = (task.run / "wanted.json").absolute(), task.run.absolute()
            words.append(["--follower", str(file), str(run)])
        return [
            "-m",
            "keras_seg.runs.train",
            *(word for pair in words for word in pair),
        ]

    def _in_this_one(self, title: str) -> tuple[int, str]:
        """The same here: exit code and reason."""
        execution, stage = self.execution, self.stage
        options = training.Options(
            init_weights=self.init_weights,
            threads=execution.threads,
            allow_inexact=execution.allow_inexact,
            restart=execution.restart,
            extend=execution.extend,
            tensorboard=execution.tensorboard,
            title=title,
            followers=[(task.wanted, task.run) for task in self.followers],
        )
        data, threads = execution.prepared.folder, execution.threads
        try:
            training.train(self.wanted, data, self.run, options)
            for task in (self, *self.followers):
                if self.evaluates and run_folder.read_metrics(task.run) is not None:
                    run, split = task.run, stage.split
                    training.evaluate(run, data, split, threads, stage.full_size)
        except InterruptedRunError:
            raise
        except KerasSegError as error:
            return error.exit_code, str(error)
        except Exception as error:  # a bug ends one arm, as it would in a process
            traceback.print_exc()
            reason = run_folder.read_failure(self.run)
            return KerasSegError.exit_code, reason or f"{type(error).__name__}: {error}"
        return 0, ""


def state_from_exit_code(exit_code: int) -> str:
    """An arm's state (protocol.STATES) from the exit code of its process, not 0."""
    if exit_code == DivergedError.exit_code:
        return "diverged"
    stopped = (-signal.SIGINT, -signal.SIGTERM, -signal.SIGHUP)
    if exit_code in (*INTERRUPTED_EXIT_CODES.values(), *stopped):
        return "interrupted"
    if exit_code in (
        *(OutOfMemoryError.exit_code, -signal.SIGKILL, -signal.SIGSEGV),
        -signal.SIGABRT,
    ):
        # The kernel's memory killer, and what a failed allocation ends in natively.
        return "oom"
    return "failed"
