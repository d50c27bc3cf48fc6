import io
import math

import numpy as np
import pytest
from PIL import Image

from keras_seg import plots

PALETTE = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (0, 0, 128)]
NAMES = ["sky", "$head$", "_torso", "<b>&leg"]


def history(miou=(0.1, 0.2, 0.3)):
    return [
        {"step": float(step), "loss": 2.0 - value, "val_loss": 2.1 - value}
        | {"train_miou": value + 0.05, "val_miou": value}
        for step, value in zip((100, 200, 300), miou)
    ]


def read(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def has_colour(picture: np.ndarray, colour: str) -> bool:
    rgb = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
    return bool((np.abs(picture.astype(int) - rgb).max(-1) <= 2).any())


@pytest.mark.parametrize(
    ("rows", "has_line"),
    [
        ([], False),
        (history(miou=[0.1]), True),
        (history(miou=[0.1, math.nan, 0.3]), True),
        (history(miou=[math.nan] * 3), False),
    ],
    ids=["empty", "one step", "a gap", "only NaN"],
)
def test_curves_of_a_run(rows, has_line):
    content = plots.png(plots.run_curves(rows))

    picture = read(content)
    axes = picture[: picture.shape[0] * 4 // 5]  # above the legend
    assert has_colour(axes, plots.COLOURS[0]) == has_line
    assert has_colour(axes, plots.COLOURS[1]) == has_line
    assert content == plots.png(plots.run_curves(rows))


def test_arm_colours_differ():
    styles = plots.arm_colours([f"arm {k}" for k in range(19)], "arm 0")

    assert len(set(styles.values())) == 19
    assert styles["arm 0"] == (plots.INK, "-")


def test_given_colours_are_nobody_elses():
    given = {"plain": plots.COLOURS[2], "joints": plots.COLOURS[0]}
    arms = ["plain", "joints", *(f"arm {k}" for k in range(4))]
    styles = plots.arm_colours(arms, "plain", given)
    assert styles["plain"] == (plots.COLOURS[2], "-")
    assert len({colour for colour, _ in styles.values()}) == 6


def test_ignored_pixels_are_no_class():
    label = np.array([[0, 1, 255]], np.uint8)

    painted = plots.paint(label, PALETTE).tolist()
    assert painted == [[[0, 0, 0], [128, 0, 0], list(plots.IGNORED_COLOUR)]]
    classes = list(zip(NAMES[:3], PALETTE))
    expected = [*classes, ("not labelled", plots.IGNORED_COLOUR)]
    assert plots.legend_entries([label, label + 1], PALETTE, NAMES) == expected


def test_the_background_looks_like_no_part():
    """SURREAL paints the background and the upper spine almost alike."""
    background, spine = (115, 139, 163), (119, 165, 196)

    palette = plots.picture_palette([background, spine], ["background", "spine2"])

    assert np.linalg.norm(np.subtract(*palette)) > 200
    assert palette[1] == spine
    assert plots.picture_palette(PALETTE, NAMES) == PALETTE


def test_samples_show_image_truth_and_prediction():
    samples = {
        "ids": np.array(["a$b$", "_c"]),
        "image": np.full((2, 30, 50, 3), (250, 10, 200), np.uint8),
        "label": np.full((2, 30, 50), 1, np.uint8),
        "prediction": np.full((2, 30, 50), 2, np.uint8),
    }

    picture = read(plots.png(plots.run_samples(samples, PALETTE, NAMES)))

    thirds = np.array_split(picture[40:-60], 3, axis=1)
    for third, colour in zip(thirds, ("#fa0ac8", "#800000", "#008000")):
        assert has_colour(third, colour)
    assert not has_colour(picture, "#000080")  # a class that does not occur


def test_grid_leaves_a_missing_picture_empty_and_wraps_long_names():
    picture, title = np.zeros((20, 30, 3), np.uint8), "U-Net with batch norm, ce, L1"
    name = "sequence_0001_camera_left_frame_000123_of_the_first_drive"
    rows = [("", [picture] * 3), (name, [picture, picture, None])]

    figure = plots.picture_grid(["image", "truth", title], rows, [])

    assert [len(axes.images) for axes in figure.axes] == [1, 1, 1, 1, 1, 0]
    shown = figure.axes[2].get_title()
    assert shown.replace("\n", " ") == title
    assert "\n" in shown
    (text,) = (text.get_text() for text in figure.axes[3].texts)
    assert text.replace("\n", "") == name


@plots.styled
def draw(name):
    figure = plots.Figure()
    lines = [(plots.INK, "-", [plots.points(history(), "loss", percent=False)])]
    plots.draw_lines(figure.subplots(), "a < b", lines)
    plots.line_legend(figure, [(one, plots.INK, "-") for one in NAMES])
    return plots.svg(figure, name)


def test_svg_is_safe_inside_a_page_and_follows_its_theme():
    text = draw("first")

    assert text.startswith("<svg ")
    assert text == draw("first")
    for name in ("$head$", "_torso", "&lt;b&gt;&amp;leg", "a &lt; b"):
        assert f">{name}</text>" in text
    assert not [part for part in ("<b>", "http", plots.INK) if part in text]
    assert "var(--ink)" in text
    assert 'id="first-' in text
    assert "first-" not in draw("second")
