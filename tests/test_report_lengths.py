"""How the answer depends on the length: expected values by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from keras_seg import metrics
from keras_seg.ablation.protocol import Arm, ArmResult, Claim, Stage, StageResult
from keras_seg.config import Config
from keras_seg.report import lengths
from keras_seg.report.blocks import Heading, Paragraph, Table
from keras_seg.report.claims import Finding
from keras_seg.report.view import Context, StageView

CONFIG = Config(net="icnet", data={"size": (32, 48)}, steps=400)
CONTEXT = Context(
    command="python ablations/run.py",
    scale="bench",
    dataset="shapes",
    names=("a", "b"),
    palette=((0, 0, 0), (255, 255, 255)),
    train_pixels=(1, 1),
    environment={},
)
CURVES = {  # validation mIoU at steps 100, 200, 300 and 400 of both seeds
    "base": [(0.10, 0.30, 0.20, 0.39), (0.20, 0.20, 0.30, 0.30)],
    "late": [(0.22, 0.20, 0.41, 0.40), (0.10, 0.19, 0.31, 0.50)],
    "poor": [(0.05, 0.06, 0.07, 0.08), (0.05, 0.10, 0.33, 0.10)],
}


def runs(name, curves, steps=(100, 200, 300, 400), config=CONFIG):
    arm = Arm(name, name.title(), config)
    scores = metrics.scores(np.array([[3, 1], [2, 4]]), None) | {"step": 400}
    return [
        ArmResult(
            arm=arm,
            seed=seed,
            run=Path(name),
            state="done",
            reason="",
            metrics=scores,
            history=[{"step": s, "val_miou": v} for s, v in zip(steps, curve)],
            timing={},
        )
        for seed, curve in enumerate(curves)
    ]


def view_of(results, **more):
    stage = Stage("width", "Wider?", "", lambda _: (), **more)
    return StageView(StageResult(stage, tuple(results), "late", ""), CONTEXT)


def finding(name, than, expected, metric="miou", **more):
    claim = Claim(f"{name} {expected} than {than}", name, than, expected, metric)
    return Finding(replace(claim, **more), 0.0, None, "open")


def cells(table: Table):
    return [[cell.text for cell in row.cells] for row in table.rows]


@pytest.fixture
def view():
    return view_of([run for name in CURVES for run in runs(name, CURVES[name])])


def test_what_would_have_led_at_each_length(view):
    heading, said, table = lengths.blocks(view, [])
    assert isinstance(heading, Heading)
    assert isinstance(said, Paragraph)
    assert "Late leads from step 300 on, Base just before." in said.text
    assert "last changed at step 300 of 400." in said.text
    # Base's best so far: .10 .30 .30 .39 and .20 .20 .30 .30
    assert cells(table) == [
        ["100", "15.00", "16.00", "5.00", "Late", "+1.00", "1 of 2"],
        ["200", "25.00", "20.50", "8.00", "Base", "+4.50", "2 of 2"],
        [
            "300",
            "30.00",
            "36.00",
            "20.00",
            "Late",
            "+6.00",
            "1 of 2",
        ],  # Poor .33, Late .31
        ["400", "34.50", "45.50", "20.50", "Late", "+11.00", "2 of 2"],
    ]
    best = [[cell.best for cell in row.cells] for row in table.rows]
    assert [row.index(True) for row in best] == [2, 1, 2, 2]


def test_since_when_a_claim_was_as_at_the_end(view):
    *_, table = lengths.blocks(
        view,
        [
            finding("late", "base", "higher"),
            finding("poor", "base", "not lower", margin=0.02),
            finding("base", "late", "same", margin=0.05),
            finding("late", "base", "higher", metric="mean_accuracy"),
            finding("other/late", "base", "higher"),
            finding("late", "base@test", "higher"),
            finding("late", "base", "higher", factor=2.0),
            finding("late", "absent", "higher"),
        ],
    )
    differences = ["+1.00", "−4.50", "+6.00", "+11.00"]
    assert cells(table) == [
        ["late higher than base", *differences, "agrees from step 300 on"],
        ["poor not lower than base", "−10.00", "−17.00", "−10.00", "−14.00"]
        + ["disagrees at every length"],
        ["base same than late", "−1.00", "+4.50", "−6.00", "−11.00"]
        + ["disagrees from step 300 on"],
    ]


def test_validations_that_not_all_trainings_have_do_not_count():
    late = runs("late", CURVES["late"])
    base = runs("base", [curve[1::2] for curve in CURVES["base"]], steps=(200, 400))
    _, said, table = lengths.blocks(view_of(base + late), [])
    assert [row[0] for row in cells(table)] == ["200", "400"]
    # Late's best of steps 200 and 400 alone: .20 and .40, .19 and .50
    assert cells(table)[1] == ["400", "34.50", "45.00", "Late", "+10.50", "2 of 2"]
    assert "Late leads from step 400 on, Base just before." in said.text
    assert "order" not in said.text  # of two arms it is who leads


def test_nothing_is_said_of_one_arm_or_of_one_validation():
    assert lengths.blocks(view_of(runs("late", CURVES["late"])), []) == []
    short = [
        run
        for name in ("base", "late")
        for run in runs(name, [curve[:1] for curve in CURVES[name]])
    ]
    assert lengths.blocks(view_of(short), []) == []


def test_seeds_are_paired_by_their_number():
    base, late = runs("base", CURVES["base"]), runs("late", CURVES["late"])
    third = replace(base[0], seed=2)
    _, _, table = lengths.blocks(view_of([base[0], third, *late]), [])
    # Seed 0 alone is of both: .10 against .22, .30 against .22, .39 against .41
    assert [row[-1] for row in cells(table)] == ["1 of 1"] * 4
    _, _, table = lengths.blocks(view_of([base[0], late[1]]), [])
    assert [row[-1] for row in cells(table)] == [""] * 4


def test_a_training_that_ended_early_keeps_its_best():
    early = runs("base", [(0.30, 0.20), (0.10, 0.20)])  # out of patience at step 200
    _, said, table = lengths.blocks(view_of(early + runs("late", CURVES["late"])), [])
    assert [row[1] for row in cells(table)] == ["20.00", "25.00", "25.00", "25.00"]
    assert "Late leads from step 300 on" in said.text


def test_a_validation_without_a_score_does_not_count():
    nothing = float("nan")
    base = runs("base", [(nothing, 0.30, 0.20, 0.40)])
    _, _, table = lengths.blocks(view_of(base + runs("late", CURVES["late"])), [])
    assert [row[:2] for row in cells(table)] == [
        ["200", "30.00"],
        ["300", "30.00"],
        ["400", "40.00"],
    ]


def test_arms_of_different_lengths_are_not_compared():
    long = runs("long", CURVES["late"], config=CONFIG.changed(steps=800))
    assert lengths.blocks(view_of(runs("base", CURVES["base"]) + long), []) == []


def test_of_folds_their_mean_counts():
    config = CONFIG.changed(data={"folds": 2})
    results = []
    for name in ("base", "late"):
        first, second = runs(name, CURVES[name], config=config)
        results.append(replace(first, folds=(first, replace(second, seed=0))))
    _, said, table = lengths.blocks(view_of(results), [])
    assert "means over the folds" in said.text
    assert [row[1] for row in cells(table)] == ["15.00", "25.00", "30.00", "34.50"]
    assert [row[-1] for row in cells(table)] == ["1 of 1"] * 4


def test_a_leader_without_a_column_is_named():
    """Of many arms the first and the best at the end are shown."""
    many = [run for k in range(9) for run in runs(f"m{k}", [(0.1, 0.2, 0.3, 0.5 + k)])]
    early = runs("early", [(0.4, 0.1, 0.1, 0.1)])
    for run in many + early:
        run.metrics["summary"]["miou"] = max(r["val_miou"] for r in run.history)
    _, _, table = lengths.blocks(view_of([*many, *early]), [])
    assert "Early" not in table.header
    assert cells(table)[0][-3:] == ["Early", "+30.00", "1 of 1"]


@pytest.mark.parametrize("scored", [{"split": "test"}, {"full_size": True}])
def test_claims_about_other_images_are_left_out(scored):
    results = [run for name in CURVES for run in runs(name, CURVES[name])]
    view = view_of(results, **scored)
    assert len(lengths.blocks(view, [finding("late", "base", "higher")])) == 3
