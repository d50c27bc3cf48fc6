"""Repeat studies whose arms are equal: no lead in them may be called clear.

python tools/aa_studies.py --data datasets/prepared/ccp --out runs/aa

Each study has three arms with three seeds each, and all its trainings differ in their
seed only (an A/A test). What the report would say of each is printed as a table and
written to OUT/studies.csv. All trainings run in this process, one after another, in one
compiled graph; a training has the bits that `tools/train.py` gives it in a process of
its own. The same command resumes.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keras_seg import backend, command_line, metrics, storage
from keras_seg.ablation.protocol import (
    Arm,
    ArmResult,
    Stage,
    StageResult,
    choose_winner,
)
from keras_seg.config import Config
from keras_seg.data.prepared import Prepared, open_prepared
from keras_seg.report.evidence import Evidence
from keras_seg.runs import folder
from keras_seg.runs.options import Interruption, Options

ARMS = ("a", "b", "c")
SEEDS = 3


def make_config(args: argparse.Namespace) -> Config:
    """Of every training, but for its seed."""
    return Config(
        net="fcn_strided",
        data={"size": tuple(args.size), "batch": 4},
        optimizer={"name": "adam", "lr": 1e-3},
        validation={"every": max(1, args.steps // 3)},
        steps=args.steps,
    )


def train(config: Config, data: Prepared, out: Path, seeds: int) -> Iterator[ArmResult]:
    """The trainings with seeds 0 to `seeds` - 1, those in `out` as they are."""
    arm, run = Arm("equal", "equal", config), None
    for seed in range(seeds):
        place = out / f"seed{seed}"
        if not (place / "metrics.json").is_file():
            if run is None:
                run = _run(config, data, out)
            place.mkdir(parents=True, exist_ok=True)
            found = _train_one(run, seed)
            folder.write_per_image(folder.per_image_file(place, None), found.counts)
            record = {"step": config.steps, "split": "val"}
            record |= {"images": len(found.counts.ids)}
            record |= {"classes": list(data.labels.names)}
            record |= {"parameters": run.network.parameters}
            record |= metrics.scores(found.confusion, data.scored_ids)
            storage.write_json(place / "metrics.json", record)
        read = folder.read_metrics(place)
        assert read is not None
        command_line.note(f"seed {seed}: mIoU {read['summary']['miou']:.4f}")
        miou = read["summary"]["miou"]
        yield ArmResult(arm, seed, place, "done", metrics=read, val_miou=miou)


def _run(config: Config, data: Prepared, out: Path):
    """A run whose graph serves all trainings."""
    backend.start(0, threads=1)
    from keras_seg.runs import loop

    options = Options(threads=1, workers=1)
    return loop.Run(config, data, out, options, Interruption())


def _train_one(run, seed: int):
    """`keras_seg.runs.loop.train` in a graph that is there; the best validation."""
    import keras

    from keras_seg.runs import evaluate

    keras.utils.set_random_seed(seed)
    config = run.config.changed(seed=seed)
    fresh = evaluate.Network(config, run.prepared.labels.num_classes).net
    run.net.set_weights(fresh.get_weights())
    for variable in run.optimizer.variables:
        if variable is not run.optimizer.learning_rate:
            variable.assign(np.zeros(variable.shape, variable.dtype))
    best_score, best = -1.0, None
    for start in range(0, run.total, run.window):
        stop = min(run.total, start + run.window)
        batches = run.feed.training(seed, config.augment, start, stop).dataset()
        length = stop - start
        run.net.fit(batches, steps_per_epoch=length, shuffle=False, verbose=0)
        found = run.validate()
        scored = metrics.summary(found.confusion, run.prepared.scored_ids)["miou"]
        if best is None or scored > best_score:
            best_score, best = scored, found
    assert best is not None
    return best


def judge(runs: list[ArmResult], data: Prepared) -> dict[str, Any]:
    """A row of the table: the arms' means, and what is said of all comparisons."""
    results = []
    for number, run in enumerate(runs):
        name = ARMS[number // SEEDS]
        results.append(
            ArmResult(
                Arm(name, name, run.arm.config),
                run.seed,
                run.run,
                "done",
                metrics=run.metrics,
                val_miou=run.val_miou,
            )
        )
    stage = Stage("aa", "Is there a difference?", "", lambda _: ())
    result = StageResult(stage, tuple(results), choose_winner(results), "")
    pairs = Evidence(result, {"val": data.sequences("val")}).pairs.values()
    means = [np.mean([run.miou for run in result.of(name)]) for name in ARMS]
    return {
        **{f"mIoU {name} %": f"{100 * mean:.2f}" for name, mean in zip(ARMS, means)},
        "independent images": round(min(p.comparison.independent for p in pairs)),
        "smallest p": f"{min(each.p for each in pairs):.3f}",
        "clear": sum(each.is_clear for each in pairs),
    }


def main(argv: list[str]) -> int:
    parser = command_line.Parser(prog="aa_studies.py", description=__doc__)
    positive = command_line.positive_int
    parser.add_argument("--data", type=Path, required=True, help="prepared folder")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--studies", type=positive, default=20)
    natural = command_line.natural_int
    parser.add_argument(
        "--draws",
        type=natural,
        default=0,
        help="further studies, each of trainings drawn from all of them",
    )
    parser.add_argument("--size", type=positive, nargs=2, default=(64, 32))
    parser.add_argument("--steps", type=positive, default=60)
    args = parser.parse_args(argv)
    data, config = open_prepared(args.data), make_config(args)
    size = len(ARMS) * SEEDS
    rows, runs = [], []
    for run in train(config, data, args.out, args.studies * size):
        runs.append(run)
        if len(runs) % size == 0:
            rows.append({"study": len(rows) + 1, **judge(runs[-size:], data)})
    storage.write_table(args.out / "studies.csv", rows)
    print(f"| {' | '.join(rows[0])} |")
    print("|" + " ---: |" * len(rows[0]))
    for row in rows:
        print(f"| {' | '.join(map(str, row.values()))} |")
    false = sum(row["clear"] > 0 for row in rows)
    print(f"{false} of {len(rows)} studies of equal arms call a lead clear.")
    if args.draws:
        random_source = np.random.default_rng(0)
        false = 0
        for _ in range(args.draws):
            drawn = random_source.permutation(len(runs))[:size]
            false += judge([runs[number] for number in drawn], data)["clear"] > 0
        print(
            f"{false} of {args.draws} draws of {size} of the {len(runs)} trainings do."
        )
    return 0


if __name__ == "__main__":
    sys.exit(command_line.run(main))
