"""The figures of a stage: what is drawn, in panels and without, and for which arms."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from keras_seg import plots
from keras_seg.ablation.protocol import Arm, ArmResult, Stage, StageResult
from keras_seg.config import Config
from keras_seg.report import charts
from keras_seg.report.blocks import Chart, Charts, Details, Pictures
from keras_seg.report.view import Context, StageView

BASE = Config(net="icnet", data={"size": (4, 6)}, validation={"every": 20}, steps=40)
ARMS = [Arm(f"arm{k}", f"Arm {k}", BASE) for k in range(12)]
PALETTE = [(20 * k, 9, k) for k in range(12)]
NAMES = [f"class {k}" for k in range(12)]
CONTEXT = Context("x", "demo", "camvid", NAMES, PALETTE, [5] * 12, {})
LETTERS = "abcd"
# Twelve arms as three nets' four losses, the last arm first and one of them twice.
PANELS = {
    f"net {net}": {f"arm{11 - 3 * k - net}": LETTERS[k] for k in range(4)}
    for net in range(3)
} | {"two": {"arm3": "third", "arm8": "eighth"}}
COLUMNS = ("val-miou", "train-miou", "val-loss", "loss")
CLASSES = ["background", "$head$", "_torso", "<b>&leg"]


# One figure


def history(miou=(0.1, 0.2, 0.3)):
    return [
        {"step": float(step), "loss": 2.0 - value, "val_loss": 2.1 - value}
        | {"train_miou": value + 0.05, "val_miou": value}
        for step, value in zip((100, 200, 300), miou)
    ]


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def legend(figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def curves(histories, column, named=None, base=None):
    """The figure of these histories and the lines in it."""
    named = named or list(histories)
    styles = plots.arm_colours(list(histories), base)
    figure = charts.arm_curves(histories, column, "x", styles=styles, named=named)
    return figure, figure.axes[0].lines


def test_curves_draw_every_seed_in_percent_without_gaps():
    base = [history(), history(miou=[0.1, math.nan, 0.4])]
    histories = {"base": base, "other": [history(miou=[0.5, 0.6])]}

    figure, lines = curves(histories, "val_miou", base="base")

    drawn = [line for line in lines if line.get_marker() == "None"]
    colours = [line.get_color() for line in drawn]
    assert colours == [plots.INK, plots.INK, plots.COLOURS[0]]
    steps = [line.get_xdata().tolist() for line in drawn]
    assert steps == [[100, 200, 300], [100, 300], [100, 200]]
    heights = [height for line in drawn for height in line.get_ydata()]
    assert heights == pytest.approx([10, 20, 30, 10, 40, 50, 60])
    assert legend(figure) == ["base", "other"]
    ends = [line for line in lines if line.get_marker() == "x"]
    assert [line.get_xdata()[0] for line in ends] == [200]  # it ended early


def test_many_arms_are_grey_but_for_the_named():
    histories = {f"arm {k}": [history()] for k in range(40)}

    figure, lines = curves(histories, "loss", ["arm 0", "arm 7"], base="arm 0")

    assert [line.get_color() for line in lines].count(plots.RULE) == 38
    assert legend(figure) == ["arm 0", "arm 7", "38 other arms"]


def test_long_names_are_whole():
    names = [f"U-Net with batch norm after every layer, loss {k}, " * 3 for k in "ab"]

    figure, _ = curves({name: [history()] for name in names}, "loss")

    shown = legend(figure)
    assert [" ".join(text.split()) for text in shown] == [n.strip() for n in names]
    assert max(len(line) for text in shown for line in text.split("\n")) < 84


def test_curves_of_one_arm_as_the_thesis_draws_them():
    """BODY Fig. 4: training as lines, validation as crosses, two axes."""
    figure = charts.curves_of_one([history()], "Normal")

    loss, miou = figure.axes
    train, crosses = sorted(miou.lines, key=lambda line: line.get_marker())
    assert (train.get_marker(), crosses.get_marker()) == ("", "x")
    assert list(train.get_ydata()) == pytest.approx([15, 25, 35])
    assert list(crosses.get_ydata()) == pytest.approx([10, 20, 30])
    assert crosses.get_linestyle() == "None"
    assert {line.get_color() for line in loss.lines} == {charts.LOSS_COLOUR}
    assert legend(figure)[:2] == ["training loss", "validation loss"]


def test_curves_of_all_arms_in_one():
    """BODY Fig. 17: the loss dashed, the mIoU solid, a colour for each arm."""
    histories = {"a": [history()], "b": [history(miou=[0.3, 0.4, math.nan])]}
    styles = plots.arm_colours(["a", "b"], "a")

    loss, miou = charts.curves_together(histories, styles, "x").axes

    assert [line.get_color() for line in miou.lines] == [styles[k][0] for k in "ab"]
    assert list(miou.lines[1].get_ydata()) == pytest.approx([30, 40])
    assert {line.get_linestyle() for line in miou.lines} == {"-"}
    assert {line.get_linestyle() for line in loss.lines} == {"--"}


def test_bars_are_scores_and_an_absent_class_is_named_so():
    values = {"base": [0.5, math.nan, 0.25, 1.0], "other": [0.1, 0.2, 0.3, 0.4]}
    styles = plots.arm_colours(list(values), "base")

    axes = charts.iou_bars(CLASSES, values, styles).axes[0]

    widths = [bar.get_width() for bar in axes.patches]
    assert widths == pytest.approx([50, 0, 25, 100, 10, 20, 30, 40])
    assert texts(axes) == ["50", "absent", "25", "100", "10", "20", "30", "40"]
    tops = [bar.get_y() for bar in axes.patches]
    assert tops == sorted(tops[:4]) + sorted(tops[4:])
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first class on top


def test_confusion_is_in_percent_of_the_truth():
    confusion = np.array([[60, 40, 0, 0], [1, 99, 0, 0], [0] * 4, [0, 3, 0, 997]])

    axes = charts.confusion_matrix(confusion, CLASSES, "x").axes[0]

    # (column, row); 3 of 1000 is below 1 % and stays empty, like the row of zeros.
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    expected = {(0, 0): "60", (1, 0): "40", (0, 1): "1", (1, 1): "99", (3, 3): "100"}
    assert cells == expected


def test_weights_stand_in_the_order_of_frequency():
    weights = {"w1": [1.0, 2.0, 3.0, 0.0], "w2": [4.0, 5.0, 6.0, 7.0]}

    axes = charts.class_weights(CLASSES, [10, 30, 20, 0], weights).axes[0]

    first, second = (line.get_ydata() for line in axes.lines)
    assert first.tolist() == pytest.approx([2, 3, 1, math.nan], nan_ok=True)
    assert second.tolist() == [5, 6, 4, 7]
    assert axes.get_xticklabels()[0].get_text() == "$head$ 50 %"


def test_pixels_of_the_classes_from_the_most_frequent():
    """CITY Fig. 13; 3, 600, 0 and 397 of 1000 pixels."""
    axes = charts.class_pixels(CLASSES, [3, 600, 0, 397]).axes[0]

    ends = [bar.get_x() + bar.get_width() for bar in axes.patches]
    assert ends[:3] == pytest.approx([60, 39.7, 0.3])
    assert axes.patches[3].get_width() == 0
    assert axes.get_xlim()[0] < 0.3
    assert axes.get_xscale() == "log"
    assert texts(axes) == ["60", "40", "0.3", "none"]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [CLASSES[k] for k in (1, 3, 0, 2)]


# The figures of a stage


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


def curves_of(view) -> tuple[dict[str, Chart], list[str]]:
    """{name: chart}, and the names of those that are not folded."""
    blocks = charts.curves(view)
    (unfolded,) = [block for block in blocks if isinstance(block, Charts)]
    drawn = {chart.name: chart for chart in flat(blocks, Chart)}
    return drawn, [chart.name for chart in unfolded.charts]


def grids_of(view) -> list[Pictures]:
    return list(flat(charts.pictures(view), Pictures))


def lines(chart: Chart) -> dict[float, tuple]:
    """{height of a line: (its colour, its dash)}; in these results all are level."""
    return {
        line.get_ydata()[0]: (line.get_color(), line.get_linestyle())
        for line in chart.figure.axes[0].lines
    }


def classes_in(grid: Pictures) -> list[int]:
    """The class that fills each column's prediction, the same in all rows."""
    found = []
    for column in range(2, len(grid.header)):
        levels = np.stack([images[column] for _, images in grid.rows]).reshape(-1, 3)
        (colour,) = np.unique(levels, axis=0).tolist()
        found.append(PALETTE.index(tuple(colour)))
    return found


def test_each_panel_has_curves_and_pictures_of_exactly_its_arms(tmp_path):
    view = view_of(tmp_path, panels=PANELS)
    drawn, unfolded = curves_of(view)
    grids = grids_of(view)

    numbers = range(1, 5)
    assert set(drawn) == {f"grid-{c}-panel{k}" for c in COLUMNS for k in numbers}
    assert unfolded == [f"grid-val-miou-panel{k}" for k in numbers]
    assert [grid.name for grid in grids] == [f"grid-pictures-panel{k}" for k in numbers]
    for k, (title, labels), grid in zip(numbers, PANELS.items(), grids):
        arms = [int(name.removeprefix("arm")) for name in labels]
        loss = drawn[f"grid-loss-panel{k}"]
        assert set(lines(loss)) == set(arms)
        assert len(set(lines(loss).values())) == len(labels)
        assert legend(loss.figure) == list(labels.values())
        assert loss.figure.axes[0].get_title(loc="left") == f"Training loss: {title}"
        validation = lines(drawn[f"grid-val-loss-panel{k}"])
        assert set(validation) == {1 + number for number in arms}
        assert grid.header == ["image", "truth", *labels.values()]
        assert classes_in(grid) == arms
        known = sorted({0, *arms})  # the truth is all of class 0
        assert [name for name, _ in grid.legend] == [NAMES[k] for k in known]
    colours = [
        [lines(drawn[f"grid-loss-panel{net + 1}"])[11 - 3 * k - net] for k in range(4)]
        for net in range(3)
    ]
    assert colours[0] == colours[1] == colours[2]
    assert len({chart.description for chart in drawn.values()}) == len(drawn)


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

    loss = curves_of(view)[0]["grid-loss-panel1"]

    styles = lines(loss)
    grey = {number for number, style in styles.items() if style[0] == plots.RULE}
    assert grey == {2, 3, 4}
    assert len({styles[number] for number in best}) == plots.MOST_LABELS == 8
    assert legend(loss.figure) == [*(f"#{k}" for k in best), "3 other arms"]
    (grid,) = grids_of(view)
    assert classes_in(grid) == best


@pytest.mark.parametrize("panels", [{}, {"one": dict(arm1="a", arm2="b", arm0="c")}])
def test_arms_are_drawn_in_the_colours_they_name(tmp_path, panels):
    """The first arm of a panel is the one in ink."""
    base, other = ("arm1", "arm0") if panels else ("arm0", "arm1")
    colours = {other: plots.COLOURS[0]}
    arms = [dataclasses.replace(a, colour=colours.get(a.name, "")) for a in ARMS[:3]]

    (panel,) = view_of(tmp_path, arms, panels=panels).panels()

    given = {name: panel.styles[label][0] for name, label in panel.labels.items()}
    assert given == {base: plots.INK, **colours, "arm2": plots.COLOURS[1]}


@pytest.mark.parametrize("count", [8, 12])
def test_a_stage_without_panels_is_drawn_as_one(tmp_path, count):
    """All arms where they are few; else the base and the seven best."""
    view = view_of(tmp_path, ARMS[:count])
    shown = [0, *range(count - 7, count)]

    drawn, unfolded = curves_of(view)

    documents = ["grid-together", *(f"grid-arm{k}" for k in range(8))]
    assert list(drawn) == [*(f"grid-{column}" for column in COLUMNS), *documents]
    assert unfolded == ["grid-val-miou", "grid-train-miou"]
    assert set(lines(drawn["grid-loss"])) == set(range(count))
    others = [f"{count - 8} other arms"] if count > 8 else []
    names = [f"Arm {k}" for k in shown]
    assert legend(drawn["grid-loss"].figure) == names + others
    (grid,) = grids_of(view)
    assert grid.name == "grid-pictures"
    assert grid.header == ["image", "truth", *names]
    assert classes_in(grid) == shown


def test_of_many_arms_the_points_of_those_drawn_have_colours():
    names = [f"arm {number}" for number in range(12)]
    places = {name: (float(k), 10.0 + k) for k, name in enumerate(names)}
    named = [names[5], names[0], names[9]]
    styles = plots.arm_colours([*named, *names], named[0], {})
    styles[names[9]] = (styles[names[9]][0], "--")
    figure = charts.scatter(places, "GFLOP", styles, named)
    (axes,) = figure.axes
    drawn = {float(line.get_xdata()[0]): line for line in axes.lines}
    assert sorted(drawn) == [float(number) for number in range(12)]
    colours = {x: line.get_color() for x, line in drawn.items()}
    assert colours[5.0] == styles["arm 5"][0]
    assert {colours[x] for x in (1.0, 2.0, 11.0)} == {plots.RULE}
    assert drawn[9.0].get_markerfacecolor() == "none"
    assert drawn[0.0].get_markerfacecolor() == styles["arm 0"][0]
    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["arm 5", "arm 0", "arm 9", "9 other arms"]
