import io
import math
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from keras_seg import plots as figures

PALETTE = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (0, 0, 128)]
NAMES = ["background", "$head$", "_torso", "<b>&leg"]


def history(steps=(100, 200, 300), miou=(0.1, 0.2, 0.3)):
    return [
        {
            "step": float(step),
            "loss": 2.0 - value,
            "val_loss": 2.1 - value,
            "train_miou": value + 0.05,
            "val_miou": value,
        }
        for step, value in zip(steps, miou)
    ]


def read(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def has_colour(picture: np.ndarray, colour: str) -> bool:
    rgb = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
    return bool((np.abs(picture.astype(int) - rgb).max(-1) <= 2).any())


def drawn(axes) -> dict[str, list[tuple]]:
    """{colour: [(x, y) of every line of it]}, markers left out."""
    lines: dict[str, list[tuple]] = {}
    for line in axes.lines:
        if line.get_marker() in ("", "None"):
            pair = (list(line.get_xdata()), list(line.get_ydata()))
            lines.setdefault(line.get_color(), []).append(pair)
    return lines


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_import_needs_neither_keras_nor_tensorflow():
    code = (
        "import sys, keras_seg.plots; unwanted = {'keras', 'tensorflow', "
        "'matplotlib.pyplot'}; sys.exit(len(unwanted & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("rows", "has_line"),
    [
        ([], False),
        (history(steps=[100], miou=[0.1]), True),
        (history(miou=[0.1, math.nan, 0.3]), True),
        (history(miou=[math.nan] * 3), False),
    ],
    ids=["empty", "one step", "a gap", "only NaN"],
)
def test_curves_of_a_run(tmp_path, rows, has_line):
    figures.save_curves(rows, tmp_path / "curves.png")

    picture = read((tmp_path / "curves.png").read_bytes())
    assert has_colour(picture, figures.COLOURS[0]) == has_line
    assert has_colour(picture, figures.COLOURS[1]) == has_line
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


def test_curves_draw_every_seed_in_percent_without_gaps():
    histories = {
        "base": [history(), history(miou=[0.1, math.nan, 0.4])],
        "other": [history(steps=[100, 200], miou=[0.5, 0.6])],
    }
    styles = figures.arm_colours(["base", "other"], "base")

    figure = figures.curves(
        histories, "val_miou", "x", styles=styles, named=["base", "other"], percent=True
    )

    lines = drawn(figure.axes[0])
    (first, second), (other,) = lines[figures.INK], lines[figures.COLOURS[0]]
    assert first[1] == pytest.approx([10, 20, 30])
    assert second == ([100, 300], pytest.approx([10, 40]))
    assert other == ([100, 200], pytest.approx([50, 60]))
    assert {"base", "other"} <= set(texts(figure.axes[0]))
    ends = [line for line in figure.axes[0].lines if line.get_marker() == "x"]
    assert [line.get_xdata()[0] for line in ends] == [200]  # it ended early


def test_many_arms_are_grey_but_for_the_named():
    names = [f"arm {k}" for k in range(40)]
    styles = figures.arm_colours(names, names[0])
    histories = {name: [history()] for name in names}

    figure = figures.curves(
        histories, "loss", "x", styles=styles, named=[names[0], names[7]]
    )

    lines = drawn(figure.axes[0])
    assert len(lines[figures.RULE]) == 38
    named = {text for text in texts(figure.axes[0]) if text}
    assert named == {"arm 0", "arm 7", "38 other arms"}


def test_long_names_keep_both_ends():
    names = ["U-Net with batch norm, ce, L1", "U-Net with batch norm, ce, L2"]
    styles = figures.arm_colours(names, None)
    histories = {name: [history()] for name in names}

    figure = figures.curves(histories, "loss", "x", styles=styles, named=names)

    first, second = sorted(text for text in texts(figure.axes[0]) if text)
    assert first.startswith("U-Net")
    assert first.endswith(", ce, L1")
    assert second.endswith(", ce, L2")
    assert len(first) == figures.SHORT


def test_arm_colours_differ():
    styles = figures.arm_colours([f"arm {k}" for k in range(19)], "arm 0")

    assert len(set(styles.values())) == 19
    assert styles["arm 0"] == (figures.INK, "-")


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([], []),
        ([0.5], [0.5]),
        ([0.1, 0.5, 0.9], [0.1, 0.5, 0.9]),
        ([0.5, 0.5], [0.5, 0.6]),
        ([0.95, 1.0], [0.9, 1.0]),
        ([0.0, 0.0, 0.05], [0.0, 0.1, 0.2]),
        ([-3.0, 7.0], [0.0, 1.0]),
        ([0.5] * 21, np.linspace(0, 1, 21)),
    ],
)
def test_labels_are_moved_apart_and_stay_inside(places, expected):
    assert figures.spread_apart(places, gap=0.1) == pytest.approx(expected)


def test_bars_are_scores_and_an_absent_class_is_named_so():
    values = {"base": [0.5, math.nan, 0.25, 1.0], "other": [0.1, 0.2, 0.3, 0.4]}
    styles = figures.arm_colours(list(values), "base")

    axes = figures.per_class_bars(NAMES, values, "IoU", styles).axes[0]

    widths = [bar.get_width() for bar in axes.patches]
    assert widths == pytest.approx([50, 0, 25, 100, 10, 20, 30, 40])
    assert texts(axes) == ["50", "absent", "25", "100", "10", "20", "30", "40"]
    tops = [bar.get_y() for bar in axes.patches]
    assert tops == sorted(tops[:4]) + sorted(tops[4:])
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first class on top


def test_confusion_is_in_percent_of_the_truth():
    confusion = [[60, 40, 0, 0], [1, 99, 0, 0], [0, 0, 0, 0], [0, 3, 0, 997]]

    axes = figures.confusion_matrix(confusion, NAMES, "x").axes[0]

    cells = {text.get_position(): text.get_text() for text in axes.texts}
    # (column, row); 3 of 1000 is below 1 % and stays empty, like the row of zeros.
    assert cells == {
        (0, 0): "60",
        (1, 0): "40",
        (0, 1): "1",
        (1, 1): "99",
        (3, 3): "100",
    }


def test_weights_stand_in_the_order_of_frequency():
    weights = {"w1": [1.0, 2.0, 3.0, 0.0], "w2": [4.0, 5.0, 6.0, 7.0]}

    axes = figures.class_weights(NAMES, [10, 30, 20, 0], weights, "x").axes[0]

    first, second = (line.get_ydata() for line in axes.lines)
    assert first[:3].tolist() == [2, 3, 1]
    assert np.isnan(first[3])
    assert second.tolist() == [5, 6, 4, 7]
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels[0] == "$head$ 50 %"


def test_pixels_of_the_classes_from_the_most_frequent():
    """CITY Fig. 13; 3, 600, 0 and 397 of 1000 pixels."""
    axes = figures.class_pixels(NAMES, [3, 600, 0, 397], "x").axes[0]

    ends = [bar.get_x() + bar.get_width() for bar in axes.patches]
    assert ends[:3] == pytest.approx([60, 39.7, 0.3])
    assert axes.patches[3].get_width() == 0
    assert axes.get_xlim()[0] < 0.3
    assert axes.get_xscale() == "log"
    assert texts(axes) == ["60", "40", "0.3", "none"]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [NAMES[k] for k in (1, 3, 0, 2)]


def test_ignored_pixels_are_no_class():
    label = np.array([[0, 1, 255]], np.uint8)

    assert figures.paint(label, PALETTE).tolist() == [
        [[0, 0, 0], [128, 0, 0], list(figures.IGNORED_COLOUR)]
    ]
    assert figures.legend_entries([label, label + 1], PALETTE, NAMES) == [
        ("background", (0, 0, 0)),
        ("$head$", (128, 0, 0)),
        ("_torso", (0, 128, 0)),
        ("not labelled", figures.IGNORED_COLOUR),
    ]


def test_samples_show_image_truth_and_prediction(tmp_path):
    samples = {
        "ids": np.array(["a$b$", "_c"]),
        "image": np.full((2, 30, 50, 3), (250, 10, 200), np.uint8),
        "label": np.full((2, 30, 50), 1, np.uint8),
        "prediction": np.full((2, 30, 50), 2, np.uint8),
    }

    figures.save_samples(samples, PALETTE, NAMES, tmp_path / "samples.png")

    picture = read((tmp_path / "samples.png").read_bytes())
    thirds = np.array_split(picture[40:-60], 3, axis=1)
    for third, colour in zip(thirds, ("#fa0ac8", "#800000", "#008000")):
        assert has_colour(third, colour)
    assert not has_colour(picture, "#000080")  # a class that does not occur


def test_grid_leaves_a_missing_prediction_empty():
    images = [np.zeros((20, 30, 3), np.uint8)] * 2
    labels = [np.zeros((20, 30), np.uint8)] * 2
    predictions = {"one": labels, "two": [labels[0], None]}

    figure = figures.sample_grid(images, labels, predictions, PALETTE, NAMES)

    assert [len(axes.images) for axes in figure.axes] == [1, 1, 1, 1, 1, 1, 1, 0]


def test_svg_is_safe_inside_a_page_and_follows_its_theme():
    styles = figures.arm_colours(NAMES, NAMES[0])
    histories = {name: [history()] for name in NAMES}

    def draw(name):
        figure = figures.curves(histories, "loss", "a < b", styles=styles, named=NAMES)
        return figures.svg(figure, name)

    text = draw("first")

    assert text.startswith("<svg ")
    assert text == draw("first")
    for name in ("$head$", "_torso", "&lt;b&gt;&amp;leg", "a &lt; b"):
        assert f">{name}</text>" in text
    assert "<b>" not in text
    assert "http" not in text
    assert "var(--ink)" in text
    assert figures.INK not in text
    assert 'id="first-' in text
    assert "first-" not in draw("second")


def test_equal_figures_give_equal_files(tmp_path):
    for name in ("a.png", "b.png"):
        figures.save_curves(history(), tmp_path / name)

    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_curves_of_one_arm_as_the_thesis_draws_them():
    """Fig. 4: training as lines, validation as crosses, two axes."""
    figure = figures.curves_of_one([history()], "Normal")

    loss, miou = figure.axes
    (train,), (crosses,) = (
        [line for line in miou.lines if line.get_marker() == marker]
        for marker in ("", "x")
    )
    assert list(train.get_ydata()) == pytest.approx([15, 25, 35])
    assert list(crosses.get_ydata()) == pytest.approx([10, 20, 30])
    assert crosses.get_linestyle() == "None"
    assert {line.get_color() for line in loss.lines} == {figures.LOSS_COLOUR}
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names[:2] == ["training loss", "validation loss"]


def test_curves_of_all_arms_in_one():
    """Fig. 17: the loss dashed, the mIoU solid, a colour for each arm."""
    histories = {"a": [history()], "b": [history(miou=[0.3, 0.4, math.nan])]}
    styles = figures.arm_colours(["a", "b"], "a")

    loss, miou = figures.curves_together(histories, styles, "x").axes

    assert [line.get_color() for line in miou.lines] == [styles[k][0] for k in "ab"]
    assert list(miou.lines[1].get_ydata()) == pytest.approx([30, 40])
    assert {line.get_linestyle() for line in miou.lines} == {"-"}
    assert {line.get_linestyle() for line in loss.lines} == {"--"}


def test_given_colours_are_nobody_elses():
    given = {"plain": figures.COLOURS[2], "joints": figures.COLOURS[0]}
    arms = ["plain", "joints", *(f"arm {k}" for k in range(4))]
    styles = figures.arm_colours(arms, "plain", given)
    assert styles["plain"] == (figures.COLOURS[2], "-")
    assert len({colour for colour, _ in styles.values()}) == 6
