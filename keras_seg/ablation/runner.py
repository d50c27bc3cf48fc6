"""Run a stage: one process per arm and seed, a journal, and only what is missing.

What is done is read from the run folders themselves; the journal is a record for
people and of why an arm failed. Killing any process at any moment loses at most what
its run's last checkpoint lacks.
"""

import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from keras_seg import storage
from keras_seg.ablation import executors
from keras_seg.ablation.protocol import (
    Arm,
    ArmResult,
    Plan,
    Stage,
    StageResult,
    choose_winner,
)
from keras_seg.command_line import duration
from keras_seg.config import Config, to_dict
from keras_seg.data.prepared import Prepared
from keras_seg.errors import (
    INTERRUPTED_EXIT_CODES,
    DataError,
    DivergedError,
    InterruptedRunError,
    KerasSegError,
    LockedError,
    OutOfMemoryError,
    UsageError,
)
from keras_seg.runs import folder as run_folder
from keras_seg.runs.train import sha256

# Settings of how long a run is; a later stage keeps its own instead of the winner's.
DURATIONS = ("steps", "val_every", "bn_start", "decay_every")
FINAL_STATES = ("done", "diverged", "oom", "failed")
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
        isolate: one process per arm. False (scale smoke) runs them in this one.
        allow_inexact: let a run go on although the machine or a library changed.
        restart: train the arms of the stages that are asked for anew.
        init_weights: file for the arms that begin from pretrained weights; without
            one those that were not run yet are left out.
        tensorboard: let every arm keep a log for TensorBoard.
        launch: starts the process of an arm (`keras_seg.ablation.executors`).
    """

    folder: Path
    prepared: Prepared
    seeds: int = 1
    jobs: int = 1
    threads: int | None = None
    isolate: bool = True
    allow_inexact: bool = False
    restart: bool = False
    init_weights: Path | None = None
    tensorboard: bool = False
    launch: Callable[[Sequence[str]], executors.Process] = executors.local

    @cached_property
    def init_weights_sha256(self) -> str | None:
        """Of the file of pretrained weights, read once; None without one."""
        return None if self.init_weights is None else sha256(self.init_weights)


def run_stages(
    plan: Plan,
    asked: Sequence[Stage],
    base: Config,
    execution: Execution,
    winner: str | None,
    write_report: Callable[[Sequence[StageResult]], object],
) -> list[StageResult]:
    """Run the stages asked for, in the plan's order, each from the winner before it.

    Args:
        plan, base: the network's stages and the configuration of the first one.
        asked: stages of the plan.
        execution: where and how.
        winner: an arm of an earlier stage to start from (`refuse_unknown_winner`);
            None is as found.
        write_report: called after every stage, and when one is interrupted, with the
            results of all stages that lie in the output folder.

    Returns:
        The results of the stages asked for.

    Raises:
        UsageError: an arm's folder holds a run of another configuration, or the output
            folder runs of other data; nothing was touched.
        DataError: an arm found the data damaged; the others would too.
    """
    if not execution.restart:
        _refuse_other_data(execution)
    results: dict[str, StageResult] = {}
    for stage in sorted(asked, key=plan.stages.index):
        config, start = stage_start(plan, stage, base, execution, winner)
        waiting = _missing(stage, config, execution)
        try:
            _carry_out(stage, waiting, execution)
        finally:
            found = collect(stage, config, start, execution)
            if all(result.state in FINAL_STATES for result in found.results):
                _write_winner(execution, found)
            results[stage.name] = found
            write_report(_with_others(results, plan, base, execution, winner))
    return [results[stage.name] for stage in asked]


def _with_others(
    results: Mapping[str, StageResult],
    plan: Plan,
    base: Config,
    execution: Execution,
    winner: str | None,
) -> list[StageResult]:
    """The results given, and those of the other stages that were run before.

    A stage without a folder was not, although it may share a run with one that was.
    """
    found = dict(results)
    for stage in plan.stages:
        if stage.name not in found and (execution.folder / stage.name).is_dir():
            config, start = stage_start(plan, stage, base, execution, winner)
            seeds = _seeds_of(stage, execution)
            as_run = dataclasses.replace(execution, seeds=seeds)
            other = collect(stage, config, start, as_run)
            if other.winner is not None:
                found[stage.name] = other
    return [found[stage.name] for stage in plan.stages if stage.name in found]


def _seeds_of(stage: Stage, execution: Execution) -> int:
    """How many seeds a stage was run with; some of its runs may lie in others."""
    path = _winner_file(execution, stage)
    if path.is_file():
        return int(storage.read_json(path).get("seeds", 1))
    runs = execution.folder.glob(f"{stage.name}/*/seed*")
    return max(1, len({run.name for run in runs}))


def _refuse_other_data(execution: Execution) -> None:
    """UsageError where the output folder holds runs of another prepared folder."""
    prepared = execution.prepared
    for path in sorted(execution.folder.glob("*/*/seed*/config.json")):
        data = storage.read_json(path).get("data", {})
        if data.get("manifest") != prepared.manifest_hash:
            raise UsageError(
                "--data",
                prepared.folder,
                f"the data ({data.get('dataset')}) of {path.parent}; or another --out",
            )


def stage_start(
    plan: Plan,
    stage: Stage,
    base: Config,
    execution: Execution | None,
    winner: str | None,
) -> tuple[Config, str]:
    """The configuration a stage starts from, and one sentence on where it is from.

    The winner of every earlier stage is taken along: the one found in the output
    folder (none where `execution` is None), else the one the document chose. `winner`
    (an arm of an earlier stage, "arm" or "stage/arm") overrides both.
    """
    config, sentences = base, []
    for previous in plan.before(stage):
        arms = {arm.name: arm for arm in arms_of(previous, config, execution)}
        found = _read_winner(execution, previous, arms) if execution else None
        named = next((n for n in arms if winner in (n, f"{previous.name}/{n}")), None)
        if named is not None:
            name, source = named, "as --winner says"
        elif found is not None:
            name, source = found, "the winner of the stage run here"
        elif previous.published_winner is not None:
            name, source = previous.published_winner, "the document's winner"
        else:
            continue
        durations = {key: getattr(config, key) for key in DURATIONS}
        config = dataclasses.replace(arms[name].config, **durations)
        sentences.append(f"{previous.name}: {arms[name].title} ({source})")
    if not sentences:
        return config, "Starts from the network as it is."
    return config, "Starts from " + "; ".join(sentences) + "."


def planned_arms(
    plan: Plan, stage: Stage, base: Config, winner: str | None = None
) -> Sequence[Arm]:
    """All arms of a stage, from `winner` or the winners that the document chose."""
    config, _ = stage_start(plan, stage, base, None, winner)
    return stage.arms(config)


def arms_of(stage: Stage, config: Config, execution: Execution | None) -> list[Arm]:
    """The arms of a stage that can be run; all of them where `execution` is None.

    An arm with pretrained weights takes the hash of their file into its configuration;
    without a file it is left out, unless it was run before. Where the data know no
    left and right, an arm that exchanges them would be another one over again.
    """
    arms = list(stage.arms(config))
    if execution is None:
        return arms
    found = []
    for arm in arms:
        if arm.config.augment.swap_lr and not execution.prepared.labels.flip_pairs:
            continue
        if arm.pretrained:
            weights = execution.init_weights_sha256
            weights = weights or _weights_begun_from(arm, execution)
            if weights is None:
                continue
            config = arm.config.changed(net={"init_weights_sha256": weights})
            arm = dataclasses.replace(arm, config=config)
        found.append(arm)
    return found


def _weights_begun_from(arm: Arm, execution: Execution) -> str | None:
    """The hash of the weights that a finished run of the arm began from."""
    for run in sorted(execution.folder.glob(f"*/{arm.name}/seed*")):
        if (run / "metrics.json").is_file() and (run / "config.json").is_file():
            config = storage.read_json(run / "config.json").get("config", {})
            if config.get("init_weights_sha256"):
                return config["init_weights_sha256"]
    return None


def refuse_unknown_winner(
    plan: Plan, asked: Sequence[Stage], base: Config, winner: str | None
) -> None:
    """UsageError unless `winner` is None or an arm that a stage asked for starts from.

    Of a chain it may be an arm of the chain itself: the stages after it start there.
    Where several stages have an arm of its name, it has to name the stage too.
    """
    last = max(asked, key=plan.stages.index)
    earlier = [
        (stage.name, arm.name)
        for stage in plan.before(last)
        for arm in stage.arms(base)
    ]
    names = list(dict.fromkeys(arm for _, arm in earlier))
    if winner not in (None, *names, *map("/".join, earlier)):
        known = ", ".join(names) or "none, since it starts from no other stage"
        expected = f"an arm of an earlier stage ({known}), or stage/arm"
        raise UsageError("winner", winner, expected)
    meant = [f"{stage}/{arm}" for stage, arm in earlier if arm == winner]
    if len(meant) > 1:
        raise UsageError("winner", winner, f"one of {', '.join(meant)}")


def _missing(stage: Stage, config: Config, execution: Execution) -> list["_Task"]:
    """The runs of a stage that are not done, all of them with `restart`.

    Raises:
        UsageError: an arm's folder holds a run of another configuration.
    """
    arms = arms_of(stage, config, execution)
    for arm in stage.arms(config):
        if arm.name not in {one.name for one in arms}:
            needs = f"--init-weights ({arm.pretrained})" if arm.pretrained else ""
            _say(f"{stage.name}: {arm.name} needs {needs or 'left and right classes'}")
    tasks = [
        _Task(stage, arm, seed, execution)
        for seed in range(execution.seeds)
        for arm in arms
    ]
    if execution.restart:
        return tasks
    for task in tasks:
        task.refuse_another_run()
    waiting = [task for task in tasks if task.find_done() is None]
    if len(waiting) < len(tasks):
        _say(f"{stage.name}: {len(tasks) - len(waiting)} of {len(tasks)} runs are done")
    return waiting


def _carry_out(stage: Stage, tasks: Sequence["_Task"], execution: Execution) -> None:
    """Bring runs to their end, `jobs` at a time; failures are left in the journal."""
    journal = Journal(execution.folder / "journal.jsonl")
    began = time.monotonic()

    def carry_out(number: int, task: _Task) -> None:
        task.carry_out(f"{stage.name} {number}/{len(tasks)} ", journal)

    def say_rest(finished: int) -> None:
        left = len(tasks) - finished
        if left:
            seconds = (time.monotonic() - began) / finished * left
            _say(f"{stage.name}: {left} runs to go, {duration(seconds)} left")

    if not execution.isolate:  # in this very thread, which signals reach
        for number, task in enumerate(tasks, 1):
            carry_out(number, task)
            say_rest(number)
        return
    with ThreadPoolExecutor(execution.jobs) as pool:
        futures = [pool.submit(carry_out, n, task) for n, task in enumerate(tasks, 1)]
        try:
            for finished, future in enumerate(as_completed(futures), 1):
                future.result()
                say_rest(finished)
        except BaseException:  # Ctrl-C and SIGTERM too: let every arm save itself
            for task in tasks:
                task.stop()
            raise


def collect(
    stage: Stage, config: Config, start: str, execution: Execution
) -> StageResult:
    """The stage's results as they lie in the output folder."""
    tasks = [
        _Task(stage, arm, seed, execution)
        for arm in arms_of(stage, config, execution)
        for seed in range(execution.seeds)
    ]
    results = tuple(task.result() for task in tasks)
    return StageResult(stage, results, choose_winner(results), start)


def _write_winner(execution: Execution, found: StageResult) -> None:
    """winner.json of a stage whose arms all came to an end, good or bad."""
    if found.winner is None:
        return
    arm = next(arm for arm in found.arms if arm.name == found.winner)
    record = {"arm": arm.name, "seeds": execution.seeds}
    record |= _Task(found.stage, arm, 0, execution).identity
    path = _winner_file(execution, found.stage)
    path.parent.mkdir(exist_ok=True)  # all its runs may lie in other stages
    storage.write_json(path, record)


class Journal:
    """An append-only file of JSON lines: what was begun and how it ended."""

    def __init__(self, path: Path):
        self.path = path

    def add(self, **event) -> None:
        event = {"time": datetime.now(UTC).isoformat(timespec="seconds"), **event}
        with open(self.path, "a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read() != b"\n":  # a writer was killed in its line
                    file.write(b"\n")
            file.write(json.dumps(event).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def last(self, run: str) -> dict:
        """The last event of a run; {} without one. A torn last line is left out."""
        found: dict = {}
        if self.path.is_file():
            for line in self.path.read_text(errors="replace").splitlines():
                try:
                    event = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                if isinstance(event, dict) and event.get("run") == run:
                    found = event
        return found


class _Task:
    """One arm with one seed: its folder, its process, what became of it."""

    def __init__(self, stage: Stage, arm: Arm, seed: int, execution: Execution):
        self.stage, self.arm, self.seed, self.execution = stage, arm, seed, execution
        self.config = arm.config.changed(seed=seed)
        self.run = execution.folder / stage.name / arm.name / f"seed{seed}"
        self.name = f"{stage.name}/{arm.name}/seed{seed}"
        self.process: executors.Process | None = None
        self.stopped = False

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
        """The file this run begins from, if it begins from one."""
        begins_from_one = self.config.net.init_weights_sha256 is not None
        return self.execution.init_weights if begins_from_one else None

    @property
    def identity(self) -> dict:
        return run_folder.identity(self.config, self.execution.prepared)

    def refuse_another_run(self) -> None:
        run_folder.refuse_another_identity(self.run, self.identity)

    def find_done(self) -> Path | None:
        """The folder of a finished run that equals this one and has its numbers."""
        for run in self._trained():
            if not self.evaluates or self._evaluation(run) is not None:
                return run
        return None

    def _trained(self) -> Iterator[Path]:
        """Folders of finished runs that equal this one, in whichever stage.

        The base of a stage is often an arm of the stage before: it is not run twice.
        """
        others = sorted(self.execution.folder.glob("*/*/seed*"))
        for run in dict.fromkeys([self.run, *others]):
            if (run / "metrics.json").is_file() and run_folder.same(run, self.identity):
                yield run

    def carry_out(self, title: str, journal: Journal) -> None:
        """Run the arm to its end in a process of its own (scale smoke: in this)."""
        if self.stopped:
            return
        seeds = f" seed {self.seed}" if self.execution.seeds > 1 else ""
        title = f"{title}{self.arm.name}{seeds}: "
        journal.add(run=self.name, event="begun")
        began = time.monotonic()
        if self.evaluates and not self.execution.restart:
            # An equal run that lacks only the evaluation gets it, and is not repeated.
            self.run = next(self._trained(), self.run)
        carry_out = self._in_a_process if self.execution.isolate else self._in_this_one
        exit_code, reason = carry_out(title)
        state = "done" if exit_code == 0 else state_of(exit_code)
        if state == "done":  # a study of many arms would fill the disk; best/ is kept
            run_folder.drop_checkpoints(self.run)
        journal.add(
            run=self.name,
            event=state,
            exit_code=exit_code,
            reason=reason,
            seconds=round(time.monotonic() - began, 1),
        )
        if state not in ("done", "interrupted"):
            _say(f"{title}{state}: {reason}")
        if exit_code == DataError.exit_code:
            raise DataError(reason)

    def stop(self) -> None:
        """Ask the arm to save itself and end; it is not begun if it was not yet."""
        self.stopped = True
        if self.process is not None:
            self.process.terminate()

    def result(self) -> ArmResult:
        done = self.find_done()
        if done is not None:
            return ArmResult(
                self.arm,
                self.seed,
                done,
                "done",
                metrics=self._metrics(done),
                history=run_folder.read_history(done),
                timing=run_folder.read_timing(done),
                val_miou=run_folder.read_metrics(done)["summary"]["miou"],
            )
        last = Journal(self.execution.folder / "journal.jsonl").last(self.name)
        state = last.get("event", "missing")
        if state in ("begun", "done"):  # killed without a word, or deleted since
            state = "interrupted" if state == "begun" else "missing"
        history = run_folder.read_history(self.run)
        reason = last.get("reason", "")
        return ArmResult(self.arm, self.seed, self.run, state, reason, history=history)

    def _metrics(self, run: Path) -> dict:
        found = self._evaluation(run) if self.evaluates else None
        return found or run_folder.read_metrics(run)

    def _evaluation(self, run: Path) -> dict | None:
        """The run's scores on the stage's split, unless they are of other data."""
        found = run_folder.read_evaluation(run, self.stage.split, self.stage.full_size)
        manifest = self.execution.prepared.manifest_hash
        return found if found and found["manifest"] == manifest else None

    def _in_a_process(self, title: str) -> tuple[int, str]:
        self.run.mkdir(parents=True, exist_ok=True)
        config_file = self.run / "wanted.json"
        storage.write_json(config_file, to_dict(self.config))
        command = ["-m", "keras_seg.runs.train", "--title", title]
        command += ["--config", _absolute(config_file), "--out", _absolute(self.run)]
        command += ["--data", _absolute(self.execution.prepared.folder)]
        if self.execution.threads:
            command += ["--threads", str(self.execution.threads)]
        if self.evaluates:
            command += ["--evaluate", self.stage.split]
            command += ["--full-size"] if self.stage.full_size else []
        if self.init_weights:
            command += ["--init-weights", _absolute(self.init_weights)]
        if self.execution.tensorboard:
            command += ["--tensorboard"]
        if self.execution.restart:
            command += ["--restart"]
        if self.execution.allow_inexact:
            command += ["--allow-inexact"]
        patience = time.monotonic() + LOCKED_PATIENCE
        while True:
            self.process = self.execution.launch(command)
            if self.stopped:  # asked between the check and the start
                self.process.terminate()
            exit_code = self.process.wait()
            locked = exit_code == LockedError.exit_code
            if not locked or self.stopped or time.monotonic() > patience:
                break
            time.sleep(2)  # a killed runner's arm is just saving itself
        if exit_code == 0:
            config_file.unlink()
            return 0, ""
        return exit_code, run_folder.read_failure(self.run) or f"exit code {exit_code}"

    def _in_this_one(self, title: str) -> tuple[int, str]:
        from keras_seg.runs.train import Options, evaluate, train

        options = Options(
            init_weights=self.init_weights,
            threads=self.execution.threads,
            allow_inexact=self.execution.allow_inexact,
            restart=self.execution.restart,
            tensorboard=self.execution.tensorboard,
            title=title,
        )
        try:
            data = self.execution.prepared.folder
            train(self.config, data, self.run, options)
            if self.evaluates:
                split, full_size = self.stage.split, self.stage.full_size
                evaluate(self.run, data, split, self.execution.threads, full_size)
        except InterruptedRunError:
            raise
        except KerasSegError as error:
            return error.exit_code, str(error)
        return 0, ""


def state_of(exit_code: int) -> str:
    """An arm's state (protocol.STATES) from the exit code of its process, not 0."""
    if exit_code == DivergedError.exit_code:
        return "diverged"
    if exit_code in (*INTERRUPTED_EXIT_CODES.values(), -signal.SIGINT, -signal.SIGTERM):
        return "interrupted"
    if exit_code in (OutOfMemoryError.exit_code, -signal.SIGKILL, -signal.SIGSEGV):
        # The kernel's memory killer, and what a failed allocation ends in natively.
        return "oom"
    return "failed"


def _winner_file(execution: Execution, stage: Stage) -> Path:
    return execution.folder / stage.name / "winner.json"


def _read_winner(
    execution: Execution, stage: Stage, arms: Mapping[str, Arm]
) -> str | None:
    """The winner a stage has in the output folder, if it is of these arms and data."""
    path = _winner_file(execution, stage)
    if not path.is_file():
        return None
    record = storage.read_json(path)
    name = record.pop("arm", None)
    record.pop("seeds", None)
    if not isinstance(name, str) or name not in arms:
        return None
    same = record == _Task(stage, arms[name], 0, execution).identity
    return name if same else None


def _absolute(path: Path) -> str:
    """Another machine of a cluster does not share the working directory."""
    return str(path.absolute())


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
