"""Curves and pictures of a stage with many arms, in panels and without."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from keras_seg import plots as figures
from keras_seg.ablation.protocol import Arm, ArmResult, Stage, StageResult
from keras_seg.config import Config
from keras_seg.labels import LabelSpec
from keras_seg.report import charts
from keras_seg.report.document import Chart, Charts, Details, Pictures
from keras_seg.report.view import Context, StageView

BASE = Config(net="icnet", data={"size": (4, 6)}, validation={"every": 20}, steps=40)
ARMS = [Arm(f"arm{k}", f"Arm {k}", BASE) for k in range(12)]
LABELS = LabelSpec(
    tuple(f"class {k}" for k in range(12)), tuple((20 * k, 9, k) for k in range(12))
)
CONTEXT = Context("x", "demo", "a_study", "camvid", LABELS, [5] * 12, {})
LETTERS = "abcd"
# Twelve arms as three nets' four losses, the last arm first and one of them twice.
PANELS = {
    f"net {net}": {f"arm{11 - 3 * k - net}": LETTERS[k] for k in range(4)}
    for net in range(3)
} | {"two": {"arm3": "third", "arm8": "eighth"}}
COLUMNS = ("val-miou", "train-miou", "val-loss", "loss")


def result_of(folder: Path, arm: Arm) -> ArmResult:
    """Loss and predicted class are the arm's number; later arms are better."""
    number = int(arm.name.removeprefix("arm"))
    run = folder / arm.name
    run.mkdir()
    truth = np.zeros((2, 4, 6), np.uint8)
    np.savez(
        run / "samples.npz",
        ids=np.array(["one", "two"]),
        image=np.full((2, 4, 6, 3), 99, np.uint8),
        label=truth,
        prediction=truth + np.uint8(number),
    )
    score = 0.3 + number / 100
    rows = [
        {"step": step, "loss": number, "val_loss": 1 + number}
        | {"val_miou": score, "train_miou": score}
        for step in (20.0, 40.0)
    ]
    metrics = {"summary": {"miou": score}, "confusion": np.eye(12, dtype=int)}
    return ArmResult(arm, 0, run, "done", "", metrics, rows)


def view_of(folder: Path, arms=ARMS, **more) -> StageView:
    stage = Stage("grid", "Which?", "BODY", lambda _: (), **more)
    results = tuple(result_of(folder, arm) for arm in arms)
    return StageView(StageResult(stage, results, arms[-1].name, ""), CONTEXT)


def flat(blocks, kind):
    for block in blocks:
        if isinstance(block, kind):
            yield block
        elif isinstance(block, Charts | Details):
            inside = block.charts if isinstance(block, Charts) else block.blocks
            yield from flat(inside, kind)


def lines(chart: Chart) -> dict[float, tuple]:
    """{height of a line: (its colour, its dash)}; in these results all are level."""
    return {
        line.get_ydata()[0]: (line.get_color(), line.get_linestyle())
        for line in chart.figure.axes[0].lines
    }


def names_in(chart: Chart) -> list[str]:
    """The names beside the lines, sorted."""
    texts = (text.get_text() for text in chart.figure.axes[0].texts)
    return sorted(text for text in texts if text)


def classes_in(grid: Pictures) -> list[int]:
    """The class that fills each column's prediction, the same in all rows."""
    found = []
    for column in range(2, len(grid.header)):
        (colour,) = {
            tuple(level)
            for _, images in grid.rows
            for level in images[column].reshape(-1, 3).tolist()
        }
        found.append(LABELS.palette.index(colour))
    return found


def test_each_panel_has_curves_of_exactly_its_arms(tmp_path):
    view = view_of(tmp_path, panels=PANELS)

    drawn = {
        chart.name: chart for chart in flat(charts.curves(view, view.styles()), Chart)
    }

    assert set(drawn) == {
        f"grid-{column}-panel{k}" for column in COLUMNS for k in (1, 2, 3, 4)
    }
    for k, (title, labels) in enumerate(PANELS.items(), 1):
        numbers = {int(name.removeprefix("arm")) for name in labels}
        loss = drawn[f"grid-loss-panel{k}"]
        assert set(lines(loss)) == numbers
        assert len(set(lines(loss).values())) == len(labels)
        assert names_in(loss) == sorted(labels.values())
        assert loss.figure.axes[0].get_title(loc="left") == f"Training loss: {title}"
        validation = lines(drawn[f"grid-val-loss-panel{k}"])
        assert set(validation) == {1 + number for number in numbers}
    colours = [
        [lines(drawn[f"grid-loss-panel{net + 1}"])[11 - 3 * k - net] for k in range(4)]
        for net in range(3)
    ]
    assert colours[0] == colours[1] == colours[2]
    assert len({chart.description for chart in drawn.values()}) == len(drawn)


def test_training_loss_of_panels_is_not_folded(tmp_path):
    view = view_of(tmp_path, panels=PANELS)

    blocks = charts.curves(view, view.styles())

    (unfolded,) = [block for block in blocks if isinstance(block, Charts)]
    assert [chart.name for chart in unfolded.charts] == [
        f"grid-loss-panel{k}" for k in (1, 2, 3, 4)
    ]


def test_each_panel_has_pictures_of_exactly_its_arms(tmp_path):
    grids = list(flat(charts.pictures(view_of(tmp_path, panels=PANELS)), Pictures))

    assert [grid.name for grid in grids] == [
        f"grid-pictures-panel{k}" for k in (1, 2, 3, 4)
    ]
    for grid, labels in zip(grids, PANELS.values()):
        assert grid.header == ["image", "truth", *labels.values()]
        numbers = [int(name.removeprefix("arm")) for name in labels]
        assert classes_in(grid) == numbers
        known = sorted({0, *numbers})  # the truth is all of class 0
        assert [name for name, _ in grid.legend] == [f"class {k}" for k in known]


def test_an_arm_that_is_left_out_changes_no_other_panel_or_colour(tmp_path):
    for part in ("whole", "less"):
        (tmp_path / part).mkdir()
    panels = {"lost": {"arm0": "zero"}} | PANELS
    kept = [arm for arm in ARMS if arm.name not in ("arm0", "arm11")]
    whole = view_of(tmp_path / "whole", panels=panels).panels()

    less = view_of(tmp_path / "less", kept, panels=panels).panels()

    assert [panel.name for panel in less] == [f"panel{k}" for k in (2, 3, 4, 5)]
    for one, other in zip(whole[1:], less):
        assert one.styles == other.styles
        assert set(one.labels) - set(other.labels) <= {"arm0", "arm11"}


def test_a_panel_has_no_more_arms_than_can_be_told_apart(tmp_path):
    """Eleven arms: the first one of the panel and the seven best, the others grey."""
    panels = {"many": {f"arm{k}": f"#{k}" for k in range(1, 12)}}
    view = view_of(tmp_path, panels=panels)
    best = [1, 5, 6, 7, 8, 9, 10, 11]

    (loss,) = [
        chart
        for chart in flat(charts.curves(view, view.styles()), Chart)
        if chart.name == "grid-loss-panel1"
    ]
    (grid,) = flat(charts.pictures(view), Pictures)

    styles = lines(loss)
    assert {number for number in styles if styles[number][0] == figures.RULE} == {
        *(2, 3, 4)
    }
    assert len({styles[number] for number in best}) == figures.MOST_LABELS == 8
    assert names_in(loss) == sorted(["3 other arms", *(f"#{k}" for k in best)])
    assert classes_in(grid) == best


def test_a_panel_keeps_the_colours_that_arms_name(tmp_path):
    arms = [dataclasses.replace(ARMS[0], colour=figures.COLOURS[0]), *ARMS[1:3]]
    panels = {"one": {"arm1": "a", "arm2": "b", "arm0": "c"}}

    (panel,) = view_of(tmp_path, arms, panels=panels).panels()

    colours = (figures.INK, figures.COLOURS[1], figures.COLOURS[0])
    assert tuple(panel.styles[label][0] for label in "abc") == colours


@pytest.mark.parametrize("count", [8, 12])
def test_a_stage_without_panels_is_drawn_as_one(tmp_path, count):
    """All arms where they are few; else the base and the seven best."""
    view = view_of(tmp_path, ARMS[:count])
    shown = [0, *range(count - 7, count)]

    blocks = charts.curves(view, view.styles())
    drawn = {chart.name: chart for chart in flat(blocks, Chart)}
    (grid,) = flat(charts.pictures(view), Pictures)

    documents = ["grid-together", *(f"grid-arm{k}" for k in range(8))]
    assert list(drawn) == [*(f"grid-{column}" for column in COLUMNS), *documents]
    assert set(lines(drawn["grid-loss"])) == set(range(count))
    others = [f"{count - 8} other arms"] if count > 8 else []
    names = [f"Arm {k}" for k in shown]
    assert names_in(drawn["grid-loss"]) == sorted(names + others)
    assert grid.name == "grid-pictures"
    assert grid.header == ["image", "truth", *names]
    assert classes_in(grid) == shown
