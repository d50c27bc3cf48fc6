"""Stages with folds: which trainings there are, and what comes of all of them."""

import json
import zlib
from dataclasses import replace

import numpy as np
import pytest

from keras_seg import metrics, storage
from keras_seg.ablation import runner
from keras_seg.ablation.protocol import Arm, ArmResult, Plan, Stage, merge_folds
from keras_seg.config import Config
from keras_seg.data import folds
from keras_seg.data.prepared import open_prepared
from keras_seg.errors import DivergedError, InterruptedRunError, UsageError
from keras_seg.report import scores
from keras_seg.report.evidence import Evidence
from keras_seg.runs import checkpoint
from keras_seg.runs import folder as run_folder
from keras_seg.runs import train as training

FOLDS = 3
BASE = Config(
    net="icnet",
    data={"size": (32, 64), "folds": FOLDS},
    optimizer={"lr": 0.1},
    steps=10,
)
CLASSES = 4


def two_arms(base):
    return [
        Arm("plain", "Plain", base),
        Arm("w1", "W1", base.changed(loss={"weights": "w1"})),
    ]


STAGE = Stage("question", "Which?", "test", two_arms)
PLAN = Plan(lambda data: BASE, (STAGE,))


def confusion_of(config: Config, image: str, step: int = 10) -> np.ndarray:
    """int64 [4, 4] of an image, by a training with this seed; W1 errs less."""
    name = f"{config.loss.weights} {config.seed} {image} {step}"
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    truth = np.random.default_rng(zlib.crc32(image.encode())).integers(20, 90, CLASSES)
    most = 0.2 if config.loss.weights == "w1" else 0.6
    wrong = (truth * rng.uniform(0, most, CLASSES)).astype(int)
    found = np.diag(truth - wrong)
    found[np.arange(CLASSES), (np.arange(CLASSES) + 1) % CLASSES] += wrong
    return found


def per_image(config: Config, ids, step: int = 10) -> run_folder.PerImage:
    each = [metrics.image_counts(confusion_of(config, name, step)) for name in ids]
    return run_folder.PerImage(tuple(ids), *np.stack(each, axis=1))


class Trainer:
    """Stands in for training: leaves the scores of a run on the images of its fold."""

    def __init__(self):
        self.trained: list[str] = []
        self.failures: dict[str, BaseException] = {}

    def __call__(self, config, data, run, options):
        self.trained.append(f"{run.parent.name}/{run.name}")
        run.mkdir(parents=True, exist_ok=True)
        prepared = folds.divide(open_prepared(data), FOLDS, config.data.fold)
        identity = json.loads(json.dumps(run_folder.identity(config, prepared)))
        storage.write_json(run / "config.json", identity)
        if run.name in self.failures:
            raise self.failures[run.name]
        ids = [sample.id for sample in prepared.samples("val")]
        (run / "validations").mkdir()
        for step in (5, 10):
            counts = per_image(config, ids, step)
            run_folder.write_per_image(run_folder.validation_file(run, step), counts)
        run_folder.write_per_image(
            run_folder.per_image_file(run, None), per_image(config, ids)
        )
        matrix = sum(confusion_of(config, name) for name in ids)
        record = {"step": 10, "steps": 10, "split": "val", "images": len(ids)}
        record |= {"classes": list(prepared.labels.names), "gflop": None}
        record |= {"parameters": {"trainable": 7, "all": 9}, **metrics.scores(matrix)}
        rows = [{"step": step, "loss": 1.0, "val_miou": 0.1 * step} for step in (5, 10)]
        storage.write_table(run / "history.csv", rows)
        checkpoint.save(run / "best", 10, {}, identity, 1)
        storage.write_json(run / "metrics.json", record)


@pytest.fixture
def trainer(monkeypatch):
    stand_in = Trainer()
    monkeypatch.setattr(training, "train", stand_in)
    return stand_in


@pytest.fixture
def where(trainer, shapes, tmp_path):
    prepared = open_prepared(shapes)  # 10 images in train, 6 in val, 3 in test
    folder = tmp_path / "out"
    folder.mkdir()
    return runner.Execution(folder=folder, prepared=prepared, isolate=False)


def results(where, base=BASE, plan=PLAN):
    return list(runner.run_stages(plan, [STAGE], base, where))[-1][0]


def all_ids(where) -> list[str]:
    prepared = where.prepared
    return sorted(s.id for split in ("train", "val") for s in prepared.samples(split))


def test_every_arm_is_trained_once_for_each_seed_and_fold(where, trainer):
    found = results(replace(where, seeds=2))
    assert len(found.results) == 4
    assert trainer.trained == [
        f"{arm}/seed{seed}-fold{fold}"
        for seed in range(2)
        for arm in ("plain", "w1")
        for fold in range(FOLDS)
    ]
    assert [r.state for r in found.results] == ["done"] * 4
    assert found.winner == "w1"
    record = storage.read_json(where.folder / "question" / "winner.json")
    assert (record["arm"], record["seeds"]) == ("w1", 2)
    assert record["config"]["data"]["folds"] == FOLDS


def test_the_scores_are_those_of_all_images_each_counted_once(where):
    """mIoU by hand, of the sum of the confusion matrices of all 16 images."""
    found = results(where)
    ids = all_ids(where)
    assert len(ids) == 16
    for result in found.results:
        config = result.arm.config
        matrix = sum(confusion_of(config, name) for name in ids)
        hits = np.diag(matrix)
        iou = hits / (matrix.sum(0) + matrix.sum(1) - hits)
        assert result.miou == pytest.approx(iou.mean(), abs=1e-12)
        assert result.metrics["images"] == 16
        counts = scores.per_image(result)
        expected = per_image(config, ids)
        assert counts.ids == expected.ids
        for name in ("intersection", "truth", "predicted"):
            np.testing.assert_array_equal(
                getattr(counts, name), getattr(expected, name)
            )
        assert [row["val_miou"] for row in result.history] == [0.5, 1.0]


def test_the_interval_is_over_all_images(where):
    found = results(replace(where, seeds=2))
    pair = Evidence(found, {}).pairs["w1", "plain"].comparison
    assert (pair.images, pair.seeds) == (16, (2, 2))
    assert pair.difference == pytest.approx(
        scores.difference(found, "w1", "plain"), abs=1e-12
    )


def test_the_lead_is_corrected_for_the_step_of_every_fold(where):
    found = results(where)
    evidence = Evidence(found, {})
    (parts,) = evidence._candidates("w1")
    assert len(parts) == FOLDS
    assert sorted(np.concatenate([part.positions for part in parts])) == [*range(16)]
    config, ids = found.arms[1].config, all_ids(where)
    for part in parts:
        for number, step in enumerate((5, 10)):
            names = [ids[position] for position in part.positions]
            counts = per_image(config, names, step)
            np.testing.assert_array_equal(part.counts[number, 0], counts.intersection)


def test_what_was_done_is_skipped_and_the_rest_gives_the_same(where, trainer, shapes):
    trainer.failures = {"seed0-fold1": InterruptedRunError("stopped", "SIGTERM")}
    with pytest.raises(InterruptedRunError):
        results(where)
    assert trainer.trained == ["plain/seed0-fold0", "plain/seed0-fold1"]
    trainer.failures.clear()
    trainer.trained.clear()
    resumed = results(where)
    assert "plain/seed0-fold0" not in trainer.trained
    assert len(trainer.trained) == 2 * FOLDS - 1
    other = where.folder.parent / "other"
    other.mkdir()
    whole = results(replace(where, folder=other))
    assert [r.metrics for r in resumed.results] == [r.metrics for r in whole.results]


def test_an_arm_lacks_a_result_until_its_last_fold(where, trainer):
    trainer.failures = {"seed0-fold2": DivergedError("The loss is nan.")}
    found = results(where)
    assert [r.state for r in found.results] == ["diverged"] * 2
    assert found.results[0].reason == "fold 2: The loss is nan."
    assert found.winner is None


def test_a_fold_that_is_to_come_counts_more_than_one_that_diverged():
    arm = Arm("plain", "Plain", BASE)
    states = ("done", "diverged", "missing")
    made = [ArmResult(arm, 0, None, state) for state in states]
    assert merge_folds(made).state == "missing"
    assert merge_folds([*made, ArmResult(arm, 0, None, "oom")]).state == "oom"


def test_shards_share_the_folds_out(where, trainer):
    for share in range(1, 5):
        before = len(trainer.trained)
        runner.run_shard(PLAN, STAGE, BASE, replace(where, shard=(share, 4)))
        assert len(trainer.trained) - before in (1, 2)
    assert len(set(trainer.trained)) == 2 * FOLDS
    trainer.trained.clear()
    assert results(where).winner == "w1"
    assert trainer.trained == []


def test_stages_with_other_folds_are_refused_beside_these(where, trainer):
    results(where)
    count = len(trainer.trained)
    later = replace(STAGE, name="later")
    plan = replace(PLAN, stages=(STAGE, later))
    for number in (None, 2):
        base = BASE.changed(data={"folds": number})
        with pytest.raises(
            UsageError, match=f"data.folds is {number}, but 3 in .*base"
        ):
            list(runner.run_stages(plan, [later], base, where))
    assert len(trainer.trained) == count


def test_a_stage_of_folds_stands_for_one_run_of_each(where):
    results(replace(where, seeds=2))
    stage = where.folder / "question"
    runs = [stage / "w1" / f"seed0-fold{fold}" for fold in range(FOLDS)]
    for place in (stage, where.folder):
        assert run_folder.find_runs(place) == runs
        with pytest.raises(UsageError, match="3 folds: .*keras-seg predict takes them"):
            run_folder.find_run(place)
    assert run_folder.find_run(runs[1]) == runs[1]
    (runs[1] / "config.json").unlink()
    with pytest.raises(UsageError, match="winner of .*question, w1, is not there"):
        run_folder.find_runs(stage)


def test_a_report_knows_all_images_as_scored(where):
    found = results(where)
    assert scores.folds(found.results) == FOLDS
    pooled = folds.divide(where.prepared, FOLDS, None)
    assert [s.id for s in pooled.samples("val")] == all_ids(where)
    assert pooled.counts("val").total == sum(
        where.prepared.counts(split).total for split in ("train", "val")
    )
