"""Run stages: train only what is missing, choose winners, read results.

What is done is read from the run folders themselves; the journal is a record for
people and of why an arm failed. Killing any process at any moment loses at most what
its run's last checkpoint lacks.
"""

import dataclasses
import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from keras_seg import storage
from keras_seg.ablation.protocol import (
    SCALES,
    Arm,
    ArmResult,
    Plan,
    Stage,
    StageResult,
    Study,
    choose_winner,
    merge_folds,
)
from keras_seg.ablation.task import Execution, Task
from keras_seg.command_line import duration, note
from keras_seg.config import Config, from_dict
from keras_seg.errors import KerasSegError, UsageError
from keras_seg.runs import export
from keras_seg.runs import folder as run_folder
from keras_seg.runs.options import training_key

# After these an arm ends alike when it is run again; after the others it may not.
FINAL_STATES = ("done", "diverged")
REPORTING = 10  # times as long as the last results took pass before the next ones


def run_stages(
    plan: Plan,
    asked: Sequence[Stage],
    base: Config,
    execution: Execution,
    winners: Sequence[str] = (),
    after_each: bool = False,
) -> Iterator[list[StageResult]]:
    """Run the stages asked for, in the plan's order, each from the winner before it.

    Where a stage says so, its winner is exported. A stage decides nothing while an arm
    failed for a cause that may pass (memory, disk, a bug): the chain ends there, and
    the same command resumes it.

    Args:
        plan, base: the network's stages and the configuration of the first one.
        asked: stages of the plan.
        execution: where and how; its folder is locked by the caller.
        winners: arms of earlier stages to start from (`check_winners`); of the others
            as found.
        after_each: yield the results so far after finished runs as well, from the
            first one on, as often as what is done with them leaves time for training.

    Yields:
        After every stage, the results of all stages in the output folder. After an
        interrupted stage as well: what stopped it is raised by the next step, so that
        a report can be written before.

    Raises:
        UsageError: an arm's folder holds a run of another configuration, or the output
            folder runs of other data or stages of another base; nothing was touched.
        DataError: an arm found the data damaged; the others would too.
    """
    _settle(plan, asked, base, execution, winners)
    own = ("figures", "tables", *(stage.name for stage in plan.stages))
    storage.sweep(execution.folder, *(execution.folder / name for name in own))
    results: dict[str, StageResult] = {}
    for stage in sorted(asked, key=plan.stages.index):
        config, start = stage_start(plan, stage, base, execution, winners)
        tasks = _missing(stage, config, execution)
        stopped_by = None
        try:
            due = time.monotonic()
            for left in _train(stage, tasks, execution):
                began = time.monotonic()
                if not after_each or not left or began < due:
                    continue
                found = _so_far(_collect(stage, config, start, execution))
                so_far = {**results, stage.name: found}
                yield _with_others(so_far, plan, base, execution, winners)
                ended = time.monotonic()
                due = ended + REPORTING * (ended - began)
        except GeneratorExit:
            raise
        except BaseException as error:  # Ctrl-C and SIGTERM too
            stopped_by = error
        found = results[stage.name] = _collect(stage, config, start, execution)
        has_ended = all(result.state in FINAL_STATES for result in found.results)
        _write_winner(execution, found, has_ended)
        decides = found.winner is not None and has_ended and base.data.folds is None
        if stage.exports and decides and stopped_by is None and export.is_possible():
            try:
                _export(found, execution)
            except BaseException as error:
                stopped_by = error
        yield _with_others(results, plan, base, execution, winners)
        if stopped_by is not None:
            raise stopped_by
        if not has_ended:
            return


def run_shard(
    plan: Plan,
    stage: Stage,
    base: Config,
    execution: Execution,
    winners: Sequence[str] = (),
) -> StageResult:
    """Train this process' share of a stage (`Execution.shard`), and nothing else.

    Nobody chooses a winner before all shares are there: `run_stages` does, afterwards.

    Returns:
        The results of the share.

    Raises:
        As `run_stages`.
    """
    _settle(plan, [stage], base, execution, winners)
    config, start = stage_start(plan, stage, base, execution, winners)
    tasks = _missing(stage, config, execution)
    for _ in _train(stage, tasks, execution):
        pass
    arms = _runnable(stage, config, execution)
    every = sorted(_tasks(stage, arms, execution), key=lambda task: task.seed)
    results = [task.result() for task in _in_shard(every, execution)]
    return StageResult(stage, tuple(results), None, start)


def _in_shard(tasks: Sequence[Task], execution: Execution) -> list[Task]:
    """The tasks of this process' share; those of one training are in one."""
    if execution.shard is None:
        return list(tasks)
    number, count = execution.shard
    keys = list(dict.fromkeys(training_key(task.config) for task in tasks))
    mine = set(keys[number - 1 :: count])
    return [task for task in tasks if training_key(task.config) in mine]


def stage_start(
    plan: Plan,
    stage: Stage,
    base: Config,
    execution: Execution | None = None,
    winners: Sequence[str] = (),
) -> tuple[Config, str]:
    """The configuration a stage starts from, and one sentence on where it is from.

    The winner of every earlier stage is taken along: the one found in the output
    folder (none where `execution` is None), else the one the document chose. `winners`
    (arms of earlier stages, "arm" or "stage/arm") override both.
    """
    config, sentences = base, []
    for previous in plan.before(stage):
        arms = {arm.name: arm for arm in _runnable(previous, config, execution)}
        found = _read_winner(execution, previous, arms) if execution else None
        named = [n for n in arms if {n, f"{previous.name}/{n}"} & set(winners)]
        if named:
            name, source = named[0], "as --winner says"
        elif found is not None:
            name, source = found, "the winner of the stage run here"
        elif previous.published_winner is not None:
            name, source = previous.published_winner, "the document's winner"
        else:
            continue
        config = _with_durations(arms[name].config, config)
        sentences.append(f"{previous.name}: {arms[name].title} ({source})")
    if not sentences:
        return config, "Starts from the network as it is."
    return config, "Starts from " + "; ".join(sentences) + "."


def planned_arms(
    plan: Plan, stage: Stage, base: Config, winners: Sequence[str] = ()
) -> Sequence[Arm]:
    """All arms of a stage, from `winners` or those that the document chose."""
    return stage.arms(stage_start(plan, stage, base, winners=winners)[0])


def planned_configs(studies: Iterable[Study]) -> Iterator[Config]:
    """The configurations of all arms of these studies, at every scale."""
    for study in studies:
        for plan in study.plans.values():
            for scale in SCALES:
                for stage in plan.stages:
                    base = plan.base(scale, study.facts(stage))
                    yield from (arm.config for arm in planned_arms(plan, stage, base))


def check_winners(
    plan: Plan, asked: Sequence[Stage], base: Config, winners: Sequence[str]
) -> None:
    """UsageError unless `winners` are arms that a stage asked for starts from.

    Of a chain they may be arms of the chain itself: the stages after them start there.
    Where several stages have an arm of a name, it has to name the stage too; of one
    stage there is one winner.
    """
    last = max(asked, key=plan.stages.index)
    earlier = [
        f"{stage.name}/{arm.name}"
        for stage in plan.before(last)
        for arm in stage.arms(base)
    ]
    chosen: dict[str, str] = {}
    for winner in winners:
        meant = [path for path in earlier if winner in (path, path.split("/")[1])]
        if len(meant) > 1:
            raise UsageError(
                f"--winner {winner} is an arm of several stages. Name one of "
                f"{', '.join(meant)}."
            )
        if not meant:
            names = ", ".join(dict.fromkeys(path.split("/")[1] for path in earlier))
            known = f"Those are {names}." if names else "It starts from no other stage."
            raise UsageError(
                f"--winner {winner} is not an arm of a stage that {last.name} starts "
                f"from. {known}"
            )
        stage = meant[0].split("/")[0]
        if chosen.setdefault(stage, meant[0]) != meant[0]:
            raise UsageError(
                f"--winner {chosen[stage]} and --winner {meant[0]} are both arms of "
                f"{stage}: leave one out."
            )


def _check_data(execution: Execution) -> None:
    """UsageError where the output folder holds runs of another prepared folder."""
    prepared = execution.prepared
    for path in sorted(execution.folder.glob("*/*/seed*/config.json")):
        data = run_folder.read_identity(path.parent)["data"]
        if data["manifest"] != prepared.manifest_hash:
            raise UsageError(
                f"--data {prepared.folder} is not the data of {path.parent}, which was "
                f"trained on {data['dataset']}. Name another --out, or that data."
            )


def _settle(
    plan: Plan,
    asked: Sequence[Stage],
    base: Config,
    execution: Execution,
    winners: Sequence[str],
) -> None:
    """Check what is in the folder, and leave the base in base.json.

    What stands beside each other in a report has the same size, scale and settings.

    Raises:
        UsageError: the runs there are of other data; a stage there has another base,
            and is not trained anew; or an arm cannot be extended. Nothing was touched.
    """
    if not execution.restart:
        _check_data(execution)
    file = execution.folder / "base.json"
    wanted = run_folder.identity(base, execution.prepared)
    anew = asked if execution.restart else ()
    runs = "*/seed*/config.json"
    kept = [
        stage
        for stage in plan.stages
        if stage not in anew and any((execution.folder / stage.name).glob(runs))
    ]
    way_out = "Name another --out: the stages in a folder start from one base."
    if execution.extend and file.is_file():
        _check_longer(file, wanted)
        _check_extendable(plan, asked, kept, base, execution, winners)
    elif kept and file.is_file():
        found = storage.read_json(file, "Delete it: the same command writes it anew.")
        run_folder.check_same(found, wanted, file, way_out)
    elif kept:  # by a version that wrote no base.json
        for stage in (stage for stage in kept if not plan.before(stage)):
            arm = stage.arms(base)[0]
            path = execution.folder / stage.name / arm.name / "seed0" / "config.json"
            if path.is_file() and not arm.pretrained:
                expected = run_folder.identity(arm.config, execution.prepared)
                found = storage.read_json(path)
                run_folder.check_same(found, expected, path, way_out)
    storage.write_json(file, wanted)


def _check_extendable(
    plan: Plan,
    asked: Sequence[Stage],
    kept: Sequence[Stage],
    base: Config,
    execution: Execution,
    winners: Sequence[str],
) -> None:
    """UsageError unless all that is in the folder can be trained on to `base.steps`."""
    before = read_base(execution.folder) or base
    if base.steps == before.steps:
        return
    left = [stage.name for stage in kept if stage not in asked]
    if left:
        raise UsageError(
            f"--extend is of all stages in {execution.folder}, which have one length, "
            f"and {', '.join(left)} {'is' if len(left) == 1 else 'are'} there, too: "
            "extend them together, or name another --out."
        )
    short = dataclasses.replace(execution, extend=False)
    for stage in asked:
        # From the winner that the stage before it has now
        config, _ = stage_start(plan, stage, before, short, winners)
        config = config.changed(steps=base.steps)
        for task in _tasks(stage, _runnable(stage, config, execution), execution):
            task.check_extendable()


def read_base(folder: Path) -> Config | None:
    """The base of the stages in a folder; None where it has none."""
    file = folder / "base.json"
    if not file.is_file():
        return None
    found = run_folder.current_identity(storage.read_json(file), file)
    return from_dict(found["config"])


def _check_longer(file: Path, wanted: Mapping[str, Any]) -> None:
    """UsageError unless the base differs from that in the file in more steps alone."""
    found = run_folder.current_identity(storage.read_json(file), file)
    for key, (old, new) in run_folder.differences(found, wanted):
        if key != "config.steps" or new < old:
            what = key.removeprefix("config.")
            raise UsageError(
                f"{what} is {new!r}, but {old!r} in {file}. --extend trains what is "
                "there on for more steps; everything else must be as it was."
            )


def _with_durations(winner: Config, own: Config) -> Config:
    """A winner's settings, but how long a run is as in the stage's own."""
    return winner.changed(
        steps=own.steps,
        validation={"every": own.validation.every},
        optimizer={
            "bn_start": own.optimizer.bn_start,
            "decay_every": own.optimizer.decay_every,
        },
    )


def _runnable(stage: Stage, config: Config, execution: Execution | None) -> list[Arm]:
    """The arms of a stage that can be run; all of them where `execution` is None.

    An arm with pretrained weights takes the hash of their file into its configuration;
    without a file it is left out, unless it was run before. Where the data know no
    left and right, an arm that exchanges them would repeat another one.
    """
    arms = list(stage.arms(config))
    if execution is None:
        return arms
    found = []
    for arm in arms:
        if arm.config.augment.swap_lr and not execution.prepared.labels.flip_pairs:
            continue
        if arm.pretrained:
            _, weights = execution.weights_of(arm.config.net.name)
            weights = weights or _earlier_weights(arm, execution)
            if weights is None:
                continue
            config = arm.config.changed(net={"init_weights_sha256": weights})
            arm = dataclasses.replace(arm, config=config)
        found.append(arm)
    return found


def _earlier_weights(arm: Arm, execution: Execution) -> str | None:
    """The hash of the weights that a finished run of the arm started from."""
    for run in sorted(execution.folder.glob(f"*/{arm.name}/seed*")):
        if (run / "metrics.json").is_file() and (run / "config.json").is_file():
            net = run_folder.read_identity(run)["config"]["net"]
            if net["init_weights_sha256"]:
                return net["init_weights_sha256"]
    return None


def _tasks(stage: Stage, arms: Sequence[Arm], execution: Execution) -> list[Task]:
    """A task for every arm, seed and fold, those of an arm together."""
    return [
        Task(stage, arm, seed, execution, fold)
        for arm in arms
        for seed in range(execution.seeds)
        for fold in range(arm.config.data.folds or 1)
    ]


def _results(tasks: Sequence[Task]) -> Iterator[ArmResult]:
    """One of every arm and seed, its folds merged."""
    for _, group in itertools.groupby(tasks, lambda task: (task.arm.name, task.seed)):
        folds = list(group)
        results = [task.result() for task in folds]
        is_divided = folds[0].arm.config.data.folds is not None
        yield merge_folds(results) if is_divided else results[0]


def _missing(stage: Stage, config: Config, execution: Execution) -> list[Task]:
    """The runs of a stage that are not done, all of them with `restart`.

    Those that are done let go of what a kill at their very end left.

    Raises:
        UsageError: an arm's folder holds a run of another configuration.
    """
    arms = _runnable(stage, config, execution)
    for arm in stage.arms(config):
        if arm.name not in {one.name for one in arms}:
            needs = f"--init-weights ({arm.pretrained})" if arm.pretrained else ""
            note(f"{stage.name}: {arm.name} needs {needs or 'left and right classes'}")
    tasks = _tasks(stage, arms, execution)
    tasks.sort(key=lambda task: task.seed)  # every arm once before any arm twice
    tasks = _in_shard(tasks, execution)
    if execution.restart:
        return tasks
    for task in tasks:
        task.check_identity()
    waiting = []
    for task in tasks:
        done = task.find_done()
        if done is None:
            waiting.append(task)
        elif done == task.run and not execution.keeps_state:
            run_folder.drop_checkpoints(done)
    if len(waiting) < len(tasks):
        note(f"{stage.name}: {len(tasks) - len(waiting)} of {len(tasks)} runs are done")
    return waiting


def _share(tasks: Sequence[Task], anew: bool) -> list[Task]:
    """The runs to train: of those whose trainings are equal to the bit, one.

    The others follow it, unless they were begun on their own and go on (not `anew`).
    They differ from it in how they predict.
    """
    groups: dict[str, list[Task]] = {}
    for task in tasks:
        groups.setdefault(training_key(task.wanted), []).append(task)
    leaders = []
    for group in groups.values():
        begun = [] if anew else [task for task in group if task.has_begun]
        first, *alone = begun or group[:1]
        first.followers = [task for task in group if task not in (first, *alone)]
        leaders += [first, *alone]
    return leaders


def _train(stage: Stage, tasks: Sequence[Task], execution: Execution) -> Iterator[int]:
    """Train the runs, `jobs` at a time; failures are left in the journal.

    Yields:
        After each of them, how many are to go.
    """
    tasks = _share(tasks, execution.restart)
    for task in tasks:
        if task.followers:
            names = ", ".join(follower.arm.name for follower in task.followers)
            note(f"{task.name}: its training is that of {names} too")
    began = time.monotonic()
    titles = [
        f"{stage.name} {number + 1}/{len(tasks)} " for number in range(len(tasks))
    ]

    def note_rest(finished: int) -> int:
        left = len(tasks) - finished
        if left:
            seconds = (time.monotonic() - began) / finished * left
            runs = "1 run" if left == 1 else f"{left} runs"
            note(f"{stage.name}: {runs} to go, {duration(seconds)} left")
        return left

    if not execution.isolate:  # in this very thread, which signals reach
        for finished, (task, title) in enumerate(zip(tasks, titles), 1):
            task.train(title)
            yield note_rest(finished)
        return
    with ThreadPoolExecutor(execution.jobs) as pool:
        futures = [pool.submit(task.train, title) for task, title in zip(tasks, titles)]
        try:
            for finished, future in enumerate(as_completed(futures), 1):
                future.result()
                yield note_rest(finished)
        except BaseException:  # Ctrl-C and SIGTERM too: let every arm save itself
            note("stopping: what is trained saves itself; the same command resumes.")
            for task in tasks:
                task.stop()
            raise


def _export(found: StageResult, execution: Execution) -> None:
    """A SavedModel of the winner's first seed in its run folder, unless it is there."""
    run = next(r.run for r in found.of(found.winner or "") if r.state == "done")
    folder = run / "export" / "saved_model"
    if (folder / export.RECORD).is_file():
        record, metrics = export.read_record(folder), run_folder.read_metrics(run)
        exported = run_folder.current_identity(record["run"], folder / export.RECORD)
        is_same = run_folder.same(run, exported)
        if is_same and metrics is not None and record["step"] == metrics["step"]:
            return
    data, threads = execution.prepared.folder, execution.threads
    if not execution.isolate:
        export.export(run, format="saved_model", data=data, threads=threads)
        return
    words = ["-m", "keras_seg.runs.export", str(run.absolute())]
    words += ["--data", str(data.absolute())]
    words += ["--threads", str(threads)] if threads else []
    (run / "failure.json").unlink(missing_ok=True)
    process = execution.launch(words)
    try:
        exit_code = process.wait()
    except BaseException:  # Ctrl-C and SIGTERM too
        process.terminate()
        raise
    if exit_code != 0:
        reason = run_folder.read_failure(run) or f"exit code {exit_code}"
        error = KerasSegError(f"The export of {run} failed: {reason}")
        error.exit_code = exit_code if exit_code > 0 else KerasSegError.exit_code
        raise error


def _collect(
    stage: Stage, config: Config, start: str, execution: Execution
) -> StageResult:
    """The stage's results as they are in the output folder."""
    tasks = _tasks(stage, _runnable(stage, config, execution), execution)
    results = tuple(_results(tasks))
    return StageResult(stage, results, choose_winner(results), start)


def _so_far(found: StageResult) -> StageResult:
    """The results while runs are trained, which look like interrupted ones."""
    results = [
        dataclasses.replace(result, state="missing", reason="")
        if result.state == "interrupted"
        else result
        for result in found.results
    ]
    return dataclasses.replace(found, results=tuple(results))


def _with_others(
    results: Mapping[str, StageResult],
    plan: Plan,
    base: Config,
    execution: Execution,
    winners: Sequence[str],
) -> list[StageResult]:
    """The results given, and those of the other stages that were run before.

    A stage without a folder was not, although it may share a run with one that was.
    """
    found = dict(results)
    for stage in plan.stages:
        if stage.name not in found and (execution.folder / stage.name).is_dir():
            config, start = stage_start(plan, stage, base, execution, winners)
            as_run = dataclasses.replace(execution, seeds=_seeds(stage, execution))
            other = _collect(stage, config, start, as_run)
            if other.winner is not None:
                found[stage.name] = other
    return [found[stage.name] for stage in plan.stages if stage.name in found]


def _seeds(stage: Stage, execution: Execution) -> int:
    """How many seeds a stage was run with; some of its runs may be in other stages."""
    found = run_folder.read_winner(execution.folder / stage.name)
    if found is not None:
        return found.seeds
    runs = execution.folder.glob(f"{stage.name}/*/seed*")
    return max(1, len({run.name.partition("-")[0] for run in runs}))


def _write_winner(execution: Execution, found: StageResult, has_ended: bool) -> None:
    """winner.json of a stage whose arms have all ended; without it none is decided."""
    winner = None
    if found.winner is not None and has_ended:
        arm = next(arm for arm in found.arms if arm.name == found.winner)
        identity = Task(found.stage, arm, 0, execution).identity
        winner = run_folder.Winner(arm.name, execution.seeds, identity)
    run_folder.write_winner(execution.folder / found.stage.name, winner)


def _read_winner(
    execution: Execution, stage: Stage, arms: Mapping[str, Arm]
) -> str | None:
    """The winner a stage has in the output folder, if it is of these arms and data."""
    found = run_folder.read_winner(execution.folder / stage.name)
    if found is None or found.arm not in arms:
        return None
    same = found.identity == Task(stage, arms[found.arm], 0, execution).identity
    return found.arm if same else None
