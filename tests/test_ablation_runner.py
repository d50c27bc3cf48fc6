"""The ablation engine: winners, chains, what is skipped, what became of an arm."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import miniatures
import pytest

from keras_seg import storage
from keras_seg.ablation import protocol, runner
from keras_seg.ablation.protocol import Arm, ArmResult, Plan, Stage, choose_winner
from keras_seg.ablation.task import Journal, state_from_exit_code
from keras_seg.config import Config, to_dict
from keras_seg.data.prepared import open_prepared
from keras_seg.errors import (
    DataError,
    DivergedError,
    KerasSegError,
    LockedError,
    OutOfMemoryError,
    StorageError,
    UsageError,
)
from keras_seg.runs import export as exporting
from keras_seg.runs import folder as run_folder
from keras_seg.runs import train as training

BASE = Config(net="icnet", data={"size": (32, 64)}, optimizer={"lr": 0.1}, steps=10)


def widths(base):
    return [
        Arm("normal", "Normal", base),
        Arm("doubled", "Doubled", base.changed(net={"filter_scale": 2})),
    ]


def weightings(base):
    return [
        Arm("none", "None", base),
        Arm("w1", "W1", base.changed(loss={"weights": "w1"})),
        Arm("w2", "W2", base.changed(loss={"weights": "w2"})),
    ]


def longer(base):
    return [Arm("long", "Long", base.changed(steps=base.steps * 2))]


WIDTH = Stage("width", "Wider?", "test", widths, published_winner="normal")
WEIGHTING = Stage("weighting", "Weighted?", "test", weightings, "none")
FINAL = Stage("final", "How far?", "test", longer, split="test")
PLAN = Plan(lambda data: BASE, (WIDTH, WEIGHTING, FINAL))


def miou_of(config: Config) -> float:
    """What the pretended training reaches; doubled filters and W1 win."""
    score = 0.3 + 0.1 * (config.net.filter_scale == 2) + 0.01 * config.seed
    return score + {"none": 0.0, "w1": 0.05, "w2": -0.2}[config.loss.weights]


class Trainer:
    """Stands in for training: leaves the files of a run, fails where it is told."""

    def __init__(self):
        self.trained: list[Path] = []
        self.failures: dict[str, BaseException] = {}

    def __call__(self, config, data, run, options):
        self.trained.append(run)
        run.mkdir(parents=True, exist_ok=True)
        prepared = open_prepared(data)
        if not options.restart:
            config, extends = training._as_extended(config, prepared, run, options)
            if not extends:
                wanted = run_folder.identity(config, prepared)
                run_folder.check_identity(run, wanted)
        identity = run_folder.identity(config, prepared)
        storage.write_json(run / "config.json", identity)
        if run.parent.name in self.failures:
            raise self.failures[run.parent.name]
        parameters = {"trainable": 100 * config.net.filter_scale, "all": 0}
        metrics = miniatures.scores(miou_of(config), parameters=parameters)
        (run / "checkpoints").mkdir(exist_ok=True)
        storage.write_json(run / "metrics.json", metrics)

    def evaluate(self, run, data, split, threads, full_size=False):
        (run / "evaluation").mkdir(exist_ok=True)
        manifest = open_prepared(data).manifest_hash
        scores = run_folder.read_metrics(run) | {"split": split, "manifest": manifest}
        path = run_folder.evaluation_file(run, split, full_size)
        storage.write_json(path, scores)


@pytest.fixture
def trainer(monkeypatch):
    stand_in = Trainer()
    monkeypatch.setattr(training, "train", stand_in)
    monkeypatch.setattr(training, "evaluate", stand_in.evaluate)
    return stand_in


def execution(folder, shapes, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    prepared = open_prepared(shapes)
    return runner.Execution(folder=folder, prepared=prepared, isolate=False, **changes)


@pytest.fixture
def where(trainer, shapes, tmp_path):
    return execution(tmp_path, shapes)


def alone(*arms):
    """A stage of these arms, (name, change of the base, what else is said of it)."""

    def made(base):
        return [Arm(n, n, base.changed(**change), **more) for n, change, more in arms]

    return Stage("alone", "Which?", "test", made)


def reports(where, *stages, plan=PLAN, base=BASE, winners=()):
    """What there is to report after each stage."""
    return list(runner.run_stages(plan, stages, base, where, winners))


def run(where, *stages, **changes):
    """The results of the stages."""
    last = reports(where, *stages, **changes)[-1]
    return [next(r for r in last if r.stage == stage) for stage in stages]


def keep_states(folder):
    """Of all runs there, as of questions of one's own."""
    for file in folder.glob("*/*/seed*/config.json"):
        steps = run_folder.read_identity(file.parent)["config"]["steps"]
        (file.parent / "checkpoints" / f"step-{steps:08d}").mkdir(exist_ok=True)


def lengths(folder):
    """{stage/arm/seed: (steps, what it was extended by)}."""
    found = {}
    for file in sorted(folder.glob("*/*/seed*/config.json")):
        config = run_folder.read_identity(file.parent)["config"]
        path = str(file.parent.relative_to(folder))
        found[path] = config["steps"], config["extended"]
    return found


def extended(where, long):
    """The stage WIDTH, trained and then extended to another base."""
    kept = replace(where, keeps_state=True)
    run(kept, WIDTH)
    keep_states(where.folder)
    run(replace(kept, extend=True), WIDTH, base=long)
    return kept


def test_arms_that_are_new_in_an_extended_stage_take_its_course(where):
    long = BASE.changed(steps=30)
    kept = extended(where, long)
    assert lengths(where.folder) == {
        "width/doubled/seed0": (30, [10]),
        "width/normal/seed0": (30, [10]),
    }
    (result,) = run(replace(kept, seeds=2), WIDTH, base=long)
    found = lengths(where.folder)
    assert found["width/doubled/seed1"] == (30, [10])
    assert {one.arm.config.extended for one in result.results} == {(10,)}
    keep_states(where.folder)
    longest = BASE.changed(steps=90)
    run(replace(kept, extend=True, seeds=3), WIDTH, base=longest)
    assert set(map(str, lengths(where.folder).values())) == {"(90, [10, 30])"}


def test_stages_are_extended_together(where):
    kept = replace(where, keeps_state=True)
    run(kept, WIDTH, WEIGHTING)
    keep_states(where.folder)
    before, long = lengths(where.folder), BASE.changed(steps=30)
    for asked, words in (
        ((WIDTH,), "--extend is of all stages .* weighting is there, too"),
        ((WEIGHTING,), "width is there, too"),
    ):
        with pytest.raises(UsageError, match=words):
            run(replace(kept, extend=True), *asked, base=long)
    assert lengths(where.folder) == before
    shutil.rmtree(where.folder / "weighting/w2/seed0/checkpoints/step-00000010")
    with pytest.raises(UsageError, match="weighting/w2/.* last state was not kept"):
        run(replace(kept, extend=True), WIDTH, WEIGHTING, base=long)
    assert lengths(where.folder) == before
    run(kept, WIDTH, WEIGHTING)
    (where.folder / "weighting/w2/seed0/checkpoints/step-00000010").mkdir()
    run(replace(kept, extend=True), WIDTH, WEIGHTING, base=long)
    assert set(map(str, lengths(where.folder).values())) == {"(30, [10])"}


def test_arms_of_their_own_lengths_are_extended_each_from_its_own(where):
    def made(base):
        more = base.changed(steps=base.steps * 3)
        return [Arm("short", "S", base), Arm("long", "L", more)]

    stage = Stage("alone", "Which?", "test", made)
    plan = Plan(lambda data: BASE, (stage,))
    kept = replace(where, keeps_state=True)
    run(kept, stage, plan=plan)
    keep_states(where.folder)
    base = BASE.changed(steps=20)
    run(replace(kept, extend=True), stage, plan=plan, base=base)
    run(replace(kept, seeds=2), stage, plan=plan, base=base)
    assert lengths(where.folder) == {
        "alone/long/seed0": (60, [30]),
        "alone/long/seed1": (60, [30]),
        "alone/short/seed0": (20, [10]),
        "alone/short/seed1": (20, [10]),
    }


def test_arms_that_are_trained_anew_after_an_extension_are_as_fresh_ones(where):
    long = BASE.changed(steps=30)
    kept = extended(where, long)
    run(replace(kept, restart=True), WIDTH, base=long)
    assert set(map(str, lengths(where.folder).values())) == {"(30, [])"}


def test_a_stage_that_cannot_be_extended_is_left_as_it_is(where):
    run(where, WIDTH, WEIGHTING)
    before = {path: path.stat().st_mtime_ns for path in where.folder.rglob("*")}
    longer = replace(where, extend=True)
    with pytest.raises(UsageError, match="last state was not kept"):
        run(longer, WIDTH, WEIGHTING, base=BASE.changed(steps=30))
    assert {p: p.stat().st_mtime_ns for p in where.folder.rglob("*")} == before
    run(where, WIDTH, WEIGHTING)


def test_each_stage_starts_from_the_winner_before_it(where):
    results = run(where, WIDTH, WEIGHTING, FINAL)
    assert [result.winner for result in results] == ["doubled", "w1", "long"]
    final = results[-1].results[0]
    assert final.arm.config.net.filter_scale == 2
    assert final.arm.config.loss.weights == "w1"
    assert final.arm.config.steps == 20
    assert "Doubled (the winner of the stage run here)" in results[-1].start
    assert final.metrics["split"] == "test"


def test_the_documents_winner_where_no_earlier_stage_was_run(where):
    (result,) = run(where, WEIGHTING)
    assert {r.arm.config.net.filter_scale for r in result.results} == {1}
    assert "Normal (the document's winner)" in result.start


def test_a_winner_of_format_1_is_still_the_winner(where, tmp_path):
    run(where, WIDTH)
    path = tmp_path / "width" / "winner.json"
    old = {"net": "icnet", "size": [32, 64], "filter_scale": 2, "lr": 0.1, "steps": 10}
    record = storage.read_json(path) | {"format": 1, "config": old}
    path.write_text(json.dumps(record))
    (result,) = run(where, WEIGHTING)
    assert "Doubled (the winner of the stage run here)" in result.start


def test_winner_given_by_hand(where, shapes, tmp_path):
    (result,) = run(where, WEIGHTING, winners=["doubled"])
    assert {r.arm.config.net.filter_scale for r in result.results} == {2}
    # Both stages may have an arm of that name: the stage tells which one is meant.
    config, start = runner.stage_start(PLAN, FINAL, BASE, None, ["width/doubled"])
    assert (config.net.filter_scale, config.loss.weights) == (2, "none")
    assert "Doubled (as --winner says); weighting: None (the doc" in start
    runner.check_winners(PLAN, [FINAL], BASE, ["width/doubled"])
    runner.check_winners(PLAN, PLAN.stages, BASE, ["width/normal"])
    results = run(execution(tmp_path / "all", shapes), *PLAN.stages, winners=["normal"])
    assert [result.winner for result in results] == ["doubled", "w1", "long"]
    assert {r.arm.config.net.filter_scale for r in results[1].results} == {1}
    with pytest.raises(UsageError, match="weighting/doubled .* that final starts from"):
        runner.check_winners(PLAN, [FINAL], BASE, ["weighting/doubled"])
    with pytest.raises(UsageError, match=r"w2 .* Those are normal, doubled\."):
        runner.check_winners(PLAN, [WEIGHTING], BASE, ["w2"])
    twice = Plan(PLAN.paper, (WIDTH, replace(WIDTH, name="again"), FINAL))
    with pytest.raises(UsageError, match="several stages. .* width/normal, again/nor"):
        runner.check_winners(twice, [FINAL], BASE, ["normal"])
    runner.check_winners(twice, [FINAL], BASE, ["again/normal"])


def test_a_winner_given_for_each_stage():
    winners = ["width/doubled", "w1"]
    runner.check_winners(PLAN, [FINAL], BASE, winners)
    config, start = runner.stage_start(PLAN, FINAL, BASE, None, winners)
    assert (config.net.filter_scale, config.loss.weights) == (2, "w1")
    assert start.count("as --winner says") == 2
    runner.check_winners(PLAN, [FINAL], BASE, ["w1", "weighting/w1"])
    both = "weighting/w1 and --winner weighting/w2 are both arms of weighting"
    with pytest.raises(UsageError, match=both):
        runner.check_winners(PLAN, [FINAL], BASE, ["w1", "doubled", "w2"])


def test_no_stage_starts_from_the_winner_of_one_that_decides_nothing(where):
    aside = replace(WIDTH, decides=False)
    plan = replace(PLAN, stages=(aside, WEIGHTING, FINAL))
    results = run(where, *plan.stages, plan=plan)
    assert [result.winner for result in results] == ["doubled", "w1", "long"]
    final = results[-1]
    assert final.results[0].arm.config.net.filter_scale == 1
    assert final.start.startswith("Starts from weighting: W1")
    with pytest.raises(UsageError, match=r"Those are none, w1, w2\."):
        runner.check_winners(plan, [FINAL], BASE, ["doubled"])


def test_no_stage_of_an_unchained_plan_starts_from_a_winner(where):
    plan = replace(PLAN, chained=False)
    results = run(where, *plan.stages, plan=plan)
    assert [result.winner for result in results] == ["doubled", "w1", "long"]
    final = results[-1]
    assert final.results[0].arm.config == BASE.changed(steps=20)
    assert final.start == "Starts from the network as it is."
    with pytest.raises(UsageError, match="It starts from no other stage"):
        runner.check_winners(plan, [FINAL], BASE, ["doubled"])


def test_what_is_done_is_skipped_and_equal_runs_are_shared(where, trainer):
    first = run(where, WIDTH, WEIGHTING)
    # 2 widths, then 2 weightings: the doubled net without weights is there already.
    assert len(trainer.trained) == 4
    assert first[1].results[0].run == first[0].results[1].run
    trainer.trained.clear()
    again = run(where, WIDTH, WEIGHTING)
    assert trainer.trained == []
    assert [r.miou for s in again for r in s.results] == [
        r.miou for s in first for r in s.results
    ]


def test_an_equal_run_that_lacks_a_split_is_scored_not_trained(
    where, trainer, tmp_path
):
    unchanged = replace(alone(("won", {}, {})), name="last")
    on_test = replace(unchanged, split="test")
    in_full = replace(unchanged, name="in_full", full_size=True)
    plan = Plan(PLAN.paper, (WIDTH, on_test, in_full))
    stages = [WIDTH, on_test, in_full]
    results = run(where, *stages, plan=plan)
    assert len({result.results[0].run for result in results[1:]}) == 1
    doubled = tmp_path / "width" / "doubled" / "seed0"
    assert results[1].results[0].run == results[2].results[0].run == doubled
    assert results[1].results[0].metrics["split"] == "test"
    assert (doubled / "evaluation" / "val-full-size.json").is_file()
    assert [run.parent.name for run in set(trainer.trained)].count("won") == 0


def test_an_arm_with_pretrained_weights_needs_their_file(trainer, shapes, tmp_path):
    vgg16 = {"pretrained": "VGG16, ImageNet"}
    stage = alone(("scratch", {}, {}), ("pretrained", {}, vgg16))
    plan = Plan(PLAN.paper, (stage,))
    where = execution(tmp_path / "runs", shapes)
    (result,) = run(where, stage, plan=plan)
    assert [arm.name for arm in result.arms] == ["scratch"]
    file = tmp_path / "weights.npy"
    file.write_bytes(b"abc")
    where = replace(where, init_weights=file)
    (result,) = run(where, stage, plan=plan)
    assert [arm.name for arm in result.arms] == ["scratch", "pretrained"]
    # FIPS 180-4's example: the SHA-256 of "abc".
    assert result.arms[1].config.net.init_weights_sha256 == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    assert result.arms[0].config.net.init_weights_sha256 is None
    # What was run is there without the file as well, and is not run again.
    trained = list(trainer.trained)
    where = replace(where, init_weights=None)
    (again,) = run(where, stage, plan=plan)
    assert [(r.arm, r.state) for r in again.results] == [
        (r.arm, "done") for r in result.results
    ]
    assert trainer.trained == trained


def test_other_data_in_the_same_folder_are_refused(trainer, shapes, tmp_path):
    run(execution(tmp_path / "out", shapes), WIDTH)
    other = miniatures.shapes(tmp_path / "other", counts=(("train", 4), ("val", 2)))
    trainer.trained.clear()
    where = execution(tmp_path / "out", other)
    line = r"--data .*other is not the data of .*seed0, which was trained on shapes"
    with pytest.raises(UsageError, match=line):
        run(where, WEIGHTING)
    assert trainer.trained == []
    (result,) = run(replace(where, restart=True), WIDTH)
    assert result.winner == "doubled"


def test_left_and_right_are_exchanged_only_where_there_are_any(
    trainer, shapes, tmp_path, capsys
):
    mirror = {"augment": {"mirror": 0.5}}
    swap = {"augment": {"mirror": 0.5, "swap_lr": True}}
    stage = alone(("mirror", mirror, {}), ("swap", swap, {}))
    plan = Plan(PLAN.paper, (stage,))
    where = execution(tmp_path / "pairs", shapes)
    (result,) = run(where, stage, plan=plan)
    assert [arm.name for arm in result.arms] == ["mirror", "swap"]
    labels = replace(where.prepared.labels, flip_pairs=())
    without = replace(where.prepared, labels=labels)
    where = replace(where, prepared=without, folder=tmp_path / "none")
    where.folder.mkdir()
    (result,) = run(where, stage, plan=plan)
    assert [arm.name for arm in result.arms] == ["mirror"]
    assert "alone: swap needs left and right classes" in capsys.readouterr().err


def test_a_stage_keeps_its_seeds_although_its_runs_lie_in_another(
    trainer, shapes, tmp_path
):
    where = execution(tmp_path, shapes, seeds=2)
    same = replace(alone(("one", {}, {})), name="same")
    plan = Plan(PLAN.paper, (WIDTH, same, FINAL), chained=False)
    run(where, WIDTH, same, plan=plan)
    assert not list((tmp_path / "same").glob("*/seed*"))
    last = reports(replace(where, seeds=1), FINAL, plan=plan)[-1]
    seeds = {found.stage.name: len(found.results) for found in last}
    assert seeds == {"width": 4, "same": 2, "final": 1}


def test_steps_of_epochs():
    # CITY: 2975 images, 4 a batch, 35 epochs: 744 steps each, the last one short.
    facts = protocol.DataFacts((1024, 2048), 2975)
    assert facts.steps(35, 4) == 26_040


def test_a_failed_arm_is_shown_and_the_others_finish(where, trainer, tmp_path):
    trainer.failures = {
        "none": DivergedError("The loss at step 3 is nan."),
        "w2": DivergedError("The loss at step 4 is nan."),
    }
    (result,) = run(where, WEIGHTING)
    assert [r.state for r in result.results] == ["diverged", "done", "diverged"]
    assert result.results[0].reason.startswith("The loss at step 3")
    assert result.winner == "w1"
    winner = json.loads((tmp_path / "weighting" / "winner.json").read_text())
    assert winner["arm"] == "w1"
    # What is done needs no checkpoint to go on from, what failed might.
    assert not (tmp_path / "weighting" / "w1" / "seed0" / "checkpoints").exists()
    trainer.failures.clear()
    trainer.trained.clear()
    (result,) = run(where, WEIGHTING)
    assert [r.state for r in result.results] == ["done"] * 3
    assert [p.parent.name for p in trainer.trained] == ["none", "w2"]


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (OutOfMemoryError("Out of memory."), "oom"),
        (StorageError("The disk is full."), "failed"),
        (LockedError("Another process is working on it."), "failed"),
    ],
)
def test_a_chain_ends_where_an_arm_failed_for_a_passing_cause(
    error, state, where, trainer, tmp_path
):
    """And the same command resumes it there."""
    run(where, WIDTH)
    shutil.rmtree(tmp_path / "width" / "doubled")
    trainer.failures = {"doubled": error}
    (last,) = reports(where, WIDTH, WEIGHTING)  # no report of the second stage
    assert [found.stage.name for found in last] == ["width"]
    assert [r.state for r in last[0].results] == ["done", state]
    assert not (tmp_path / "width" / "winner.json").exists()
    trainer.failures.clear()
    trainer.trained.clear()
    results = run(where, WIDTH, WEIGHTING)
    assert [result.winner for result in results] == ["doubled", "w1"]
    assert [path.parent.name for path in trainer.trained] == ["doubled", "w1", "w2"]


@pytest.mark.parametrize("is_older", [False, True], ids=["", "without base.json"])
def test_stages_of_another_base_are_not_put_side_by_side(
    is_older, where, trainer, tmp_path
):
    run(where, WIDTH)
    if is_older:
        (tmp_path / "base.json").unlink()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    other = BASE.changed(data={"size": (64, 64)})
    for again in (where, replace(where, restart=True)):
        line = r"^data\.size is \[64, 64\], but \[32, 64\] in .*Name another --out"
        with pytest.raises(UsageError, match=line):
            run(again, WEIGHTING, base=other)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    run(where, WEIGHTING)
    # Nothing of the old base is kept
    results = run(replace(where, restart=True), WIDTH, WEIGHTING, base=other)
    assert [result.winner for result in results] == ["doubled", "w1"]
    run(where, FINAL, base=other)


def test_a_folder_with_another_configuration_is_refused(where):
    run(where, WIDTH)
    other = BASE.changed(optimizer={"lr": 0.5})
    steps = runner.run_stages(PLAN, [WIDTH], other, where)
    with pytest.raises(UsageError, match=r"^optimizer\.lr is 0\.5, but 0\.1 in "):
        next(steps)  # nothing is reported
    run(replace(where, restart=True), WIDTH, base=other)


def test_a_bug_fails_its_arm_and_leaves_its_type_and_message(where, trainer, capsys):
    trainer.failures = {"none": TypeError("no such thing")}
    (found,) = run(where, WEIGHTING)
    assert [result.state for result in found.results] == ["failed", "done", "done"]
    assert found.results[0].reason == "TypeError: no such thing"
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_damaged_data_end_the_stage_at_once(where, trainer):
    trainer.failures = {"none": DataError("a.png is truncated.")}
    with pytest.raises(DataError, match=r"^a\.png is truncated\.$"):
        run(where, WEIGHTING)
    assert len(trainer.trained) == 1


def test_an_interrupted_stage_is_reported_and_has_no_winner_yet(
    where, trainer, tmp_path
):
    trainer.failures = {"w1": KeyboardInterrupt()}
    steps = runner.run_stages(PLAN, [WEIGHTING, FINAL], BASE, where)
    (found,) = next(steps)
    states = [result.state for result in found.results]
    assert states == ["done", "interrupted", "missing"]
    with pytest.raises(KeyboardInterrupt):
        next(steps)
    assert not (tmp_path / "weighting" / "winner.json").exists()
    trainer.failures.clear()
    run(where, WEIGHTING)
    assert json.loads((tmp_path / "weighting" / "winner.json").read_text())["arm"]


EXPORTED = replace(FINAL, exports=True)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), StorageError("The disk.")])
def test_a_stage_is_reported_although_its_export_did_not_end(error, where, monkeypatch):
    def stopped(*_, **__):
        raise error

    monkeypatch.setattr(exporting, "export", stopped)
    plan = replace(PLAN, stages=(EXPORTED,))
    steps = runner.run_stages(plan, plan.stages, BASE, where)
    assert next(steps)[0].winner == "long"
    with pytest.raises(type(error)):
        next(steps)


@pytest.mark.parametrize(
    ("exit_code", "reason", "expected"),
    [(5, "The disk is full.", 5), (-11, "", 1), (0, "", None)],
)
def test_an_export_has_a_process_of_its_own(
    exit_code, reason, expected, where, tmp_path
):
    plan = replace(PLAN, stages=(EXPORTED,))
    run(where, FINAL, plan=replace(PLAN, stages=(FINAL,)))
    arm = tmp_path / "final" / "long" / "seed0"
    started = []

    class Process:
        def __init__(self, arguments):
            started.append(arguments)

        def wait(self):
            if reason:
                run_folder.write_failure(arm, StorageError(reason))
            return exit_code

    where = replace(where, isolate=True, launch=Process, threads=2)
    steps = runner.run_stages(plan, plan.stages, BASE, where)
    assert next(steps)[0].winner == "long"
    if expected is None:
        assert list(steps) == []
    else:
        line = f"export of .*seed0 failed: {reason or 'exit code -11'}"
        with pytest.raises(KerasSegError, match=line) as caught:
            next(steps)
        assert caught.value.exit_code == expected
    data = str(where.prepared.folder.absolute())
    words = ["-m", "keras_seg.runs.export", str(arm), "--data", data, "--threads", "2"]
    assert started == [words]


def test_an_arm_that_died_has_no_reason_of_an_earlier_session(where, tmp_path):
    arm = tmp_path / "final" / "long" / "seed0"
    arm.mkdir(parents=True)
    run_folder.write_failure(arm, StorageError("The disk is full."))

    class Process:
        def __init__(self, arguments):
            pass

        def wait(self):
            return -11

    (found,) = run(replace(where, isolate=True, launch=Process), FINAL)
    assert [(r.state, r.reason) for r in found.results] == [("oom", "exit code -11")]


def test_other_stages_keep_their_winner_and_seeds(where, shapes, tmp_path):
    run(execution(tmp_path, shapes, seeds=2), WIDTH)
    before = (tmp_path / "width" / "winner.json").read_bytes()
    last = reports(where, WEIGHTING)[-1]
    assert (tmp_path / "width" / "winner.json").read_bytes() == before
    assert [len(stage.results) for stage in last] == [4, 3]


def test_the_report_has_every_stage_that_was_run_and_no_other(where):

    def report_of(*stages):
        last = reports(where, *stages, winners=["normal"])[-1]
        return [result.stage.name for result in last]

    # The arm "none" of weighting is the arm "normal" of width, which was not asked.
    assert report_of(WEIGHTING) == ["weighting"]
    assert report_of(WEIGHTING) == ["weighting"]
    assert report_of(WIDTH) == ["width", "weighting"]
    assert report_of(WEIGHTING) == ["width", "weighting"]


def test_scores_on_a_split_of_its_own_only_where_the_stage_says_so(where):
    (before,) = run(where, WIDTH)
    for result in before.results:
        (result.run / "evaluation").mkdir()
        for split in ("val", "test"):
            path = result.run / "evaluation" / f"{split}.json"
            path.write_text(json.dumps({"summary": {"miou": 0.99}, "manifest": "x"}))
    (after,) = run(where, WIDTH)
    assert [r.miou for r in after.results] == [r.miou for r in before.results]


def test_seeds_are_runs_of_their_own(trainer, shapes, tmp_path):
    (result,) = run(execution(tmp_path, shapes, seeds=2), WIDTH)
    names = [(r.arm.name, r.seed, r.arm.config.seed) for r in result.results]
    assert names == [("normal", 0, 0), ("normal", 1, 0)] + [
        ("doubled", 0, 0),
        ("doubled", 1, 0),
    ]
    assert [round(r.miou, 2) for r in result.results] == [0.3, 0.31, 0.4, 0.41]


def test_shares_of_a_stage_are_trained_side_by_side_and_then_decide(
    trainer, shapes, tmp_path
):
    """Three weightings with two seeds, in two shares and afterwards as a whole."""
    shares = []
    for number in (1, 2):
        part = execution(tmp_path, shapes, seeds=2, shard=(number, 2))
        with part.locked(), execution(tmp_path, shapes, shard=(2, 2)).locked():
            with pytest.raises(LockedError), execution(tmp_path, shapes).locked():
                pass
            found = runner.run_shard(PLAN, WEIGHTING, BASE, part, ["normal"])
        assert found.winner is None
        shares.append({(r.arm.name, r.seed): r.state for r in found.results})
        assert set(shares[-1].values()) == {"done"}
    assert not shares[0].keys() & shares[1].keys()
    arms = [arm.name for arm in weightings(BASE)]
    assert {*shares[0], *shares[1]} == {(arm, seed) for arm in arms for seed in (0, 1)}
    assert [len(share) for share in shares] == [3, 3]
    assert len(trainer.trained) == len(set(trainer.trained)) == 6
    trainer.trained.clear()
    whole = execution(tmp_path, shapes, seeds=2)
    (found,) = run(whole, WEIGHTING, winners=["normal"])
    assert trainer.trained == []
    assert found.winner == "w1"


def test_a_torn_line_of_the_journal_is_left_out(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.add(run="a/b/seed0", event="diverged", reason="nan")
    with open(journal.path, "a") as file:
        file.write('{"run": "a/b/seed0", "eve')
    assert journal.last("a/b/seed0")["event"] == "diverged"
    assert journal.last("a/c/seed0") == {}
    journal.add(run="a/b/seed0", event="done")
    assert journal.last("a/b/seed0")["event"] == "done"


@pytest.mark.parametrize(
    ("exit_code", "state"),
    [(4, "diverged"), (137, "oom"), (-9, "oom"), (-11, "oom"), (143, "interrupted")]
    + [(130, "interrupted"), (-15, "interrupted"), (1, "failed"), (5, "failed")],
)
def test_the_exit_code_tells_what_became_of_an_arm(exit_code, state):
    assert state_from_exit_code(exit_code) == state


def result(name, miou, parameters, seed=0):
    metrics = {"summary": {"miou": miou}, "parameters": {"trainable": parameters}}
    arm = Arm(name, name, BASE)
    return ArmResult(arm, seed, Path(), "done", metrics=metrics)


def test_the_higher_mean_miou_wins_and_ties_go_to_fewer_parameters():
    rows = [result("a", 0.3, 9), result("a", 0.5, 9, 1), result("b", 0.45, 9)]
    assert choose_winner(rows) == "b"
    rows = [result("a", 0.4, 9), result("b", 0.4, 5)]
    assert choose_winner(rows) == "b"
    failed = ArmResult(Arm("c", "c", BASE), 0, Path(), "failed")
    assert choose_winner([failed]) is None


@pytest.mark.parametrize(
    ("image_size", "pixels", "size"),
    [
        ((360, 480), 96 * 128, (96, 128)),
        ((240, 240), 96 * 128, (96, 96)),
        ((10, 500), 32, (32, 32)),
    ],
)
def test_sizes_keep_the_aspect_ratio(image_size, pixels, size):
    assert protocol.DataFacts(image_size, 10).size(pixels, 32) == size


def test_scale_smoke_is_derived():
    """From demo, with 64 x 64 px, two steps of two images, four to validate on."""

    def paper(data):
        optimizer = {"accumulate": 4, "bn_start": 9}
        return BASE.changed(
            optimizer=optimizer, data={"batch": 64}, steps=data.steps(3, 5)
        )

    scales = {"demo": {"data.size": 9, "optimizer.lr": 0.5, "steps": 40, "net.fc": 9}}
    plan = Plan(paper, (), scales | {"smoke": {"net.fc": 1}}, stride=8)
    facts = protocol.DataFacts((100, 200), 50)
    assert plan.base("paper", facts) == plan.base("bench", facts) == paper(facts)
    demo = paper(facts).changed(
        net={"fc": 9}, data={"size": (8, 8)}, optimizer={"lr": 0.5}, steps=40
    )
    assert plan.base("demo", facts) == demo
    assert plan.base("smoke", facts) == demo.changed(
        net={"fc": 1},
        data={"size": (48, 88), "batch": 2},
        optimizer={"accumulate": 1, "bn_start": 1},
        validation={"every": 1, "samples": 4, "batch": 2},
        steps=2,
    )


def test_a_claim_is_a_comparison():
    found = protocol.claim("less is more", "less > more", "f1_macro", ours=True)
    assert found == protocol.Claim(
        "less is more", "less", "more", "higher", metric="f1_macro", ours=True
    )


@pytest.mark.parametrize(
    ("comparison", "expected"),
    [
        ("a < b", ("a", "b", "lower", None)),
        ("a = b", ("a", "b", "same", None)),
        ("a <= b", ("a", "b", "not higher", None)),
        ("a >= b", ("a", "b", "not lower", None)),
        ("5b = 1.9 * baseline", ("5b", "baseline", "same", 1.9)),
        ("final/winner@val > weighting/w1", (*("final/winner@val", "weighting/w1"),)),
    ],
)
def test_what_a_claim_expects(comparison, expected):
    found = protocol.claim("so it is", comparison)
    values = (found.arm, found.than, found.expected, found.factor)
    assert values[: len(expected)] == expected


def test_the_sides_of_a_claim():
    found = protocol.claim("it generalises", "final/long@test >= w1", margin=0.02)
    assert found.sides == (
        protocol.Side("long", stage="final", split="test"),
        protocol.Side("w1"),
    )
    assert str(found.sides[0]) == "final/long@test"


@pytest.mark.parametrize(
    ("comparison", "margin", "message"),
    [
        ("a b", None, "'a b' is not ARM SIGN"),
        ("a ~ b", None, "'a ~ b' is not ARM SIGN"),
        ("a@train2 > b", None, "'a@train2' is not"),
        ("a > b", 0.1, "takes no margin"),
        ("a = b", -0.1, "margin -0.1 of “text” is not above 0"),
        ("a = 0 * b", None, "factor 0.0 of “text” is not above 0"),
    ],
)
def test_a_claim_that_makes_no_sense(comparison, margin, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        protocol.claim("text", comparison, margin=margin)


KILLED = Config(
    net="segnet_basic",
    data={"size": (12, 20), "batch": 2},
    validation={"every": 2},
    steps=6,
)
STUDY_SCRIPT = """
import json, sys
from pathlib import Path
from keras_seg import command_line, storage
from keras_seg.ablation import runner
from keras_seg.ablation.protocol import Arm, Plan, Stage
from keras_seg.config import from_dict
from keras_seg.data.prepared import open_prepared

def main(argv):
    data, out, *configs = argv
    arms = [
        Arm(f"arm{k}", "An arm", from_dict(json.loads(config)))
        for k, config in enumerate(configs)
    ]
    stage = Stage("rate", "Which?", "test", lambda base: arms)
    plan = Plan(lambda data: arms[0].config, (stage,))
    jobs = len(arms)
    where = runner.Execution(Path(out), open_prepared(data), threads=2, jobs=jobs)
    with storage.lock(where.folder):
        list(runner.run_stages(plan, [stage], arms[0].config, where))

sys.exit(command_line.run(main))
"""


@pytest.mark.parametrize(
    ("arms", "group"),
    [
        pytest.param(1, False, id="runner"),
        pytest.param(2, True, id="runner and arms", marks=pytest.mark.slow),
    ],
)
@pytest.mark.usefixtures("_plain_runs")
def test_killed_in_the_middle_of_an_arm_the_same_command_finishes(
    shapes, tmp_path, arms, group
):
    """SIGKILL; the arms of a killed runner save themselves and end before the next."""
    folder = tmp_path / "out"
    rates = [{"lr": 0.001 * (k + 1)} for k in range(arms)]
    configs = [KILLED.changed(optimizer=rate) for rate in rates]
    command = [sys.executable, "-c", STUDY_SCRIPT, str(shapes), str(folder)]
    command += [json.dumps(to_dict(config)) for config in configs]
    process = subprocess.Popen(command, start_new_session=True)
    deadline = time.monotonic() + 180
    runs = [folder / "rate" / f"arm{k}" / "seed0" for k in range(arms)]
    while not all((run / "config.json").is_file() for run in runs):  # all at work
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    if group:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
    subprocess.run(command, check=True)
    options = training.Options(threads=2)
    for k, (run, config) in enumerate(zip(runs, configs)):
        training.train(config, shapes, tmp_path / f"uninterrupted{k}", options)
        for name in ("metrics.json", "history.csv"):
            expected = tmp_path / f"uninterrupted{k}" / name
            assert (run / name).read_bytes() == expected.read_bytes()
    events = (folder / "journal.jsonl").read_text().splitlines()
    assert json.loads(events[-1])["event"] == "done"


def test_what_killed_writers_left_in_a_study_is_swept(where, tmp_path):
    for folder in (".", "figures", "tables", "width"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / ".tmp-12-half").touch()
        (tmp_path / folder / ".tmp-mine").touch()
    run(where, WIDTH)
    found = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob(".tmp-*"))
    assert [str(path) for path in found] == [
        ".tmp-mine",
        *(f"{folder}/.tmp-mine" for folder in ("figures", "tables", "width")),
    ]
