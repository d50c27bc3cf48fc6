"""The table of networks: its numbers, and the README's table made of them."""

from pathlib import Path

import pytest
from outlines import outline

from keras_seg import nets
from keras_seg.nets import flops, summary

ROOT = Path(__file__).parents[1]
MARKERS = ("<!-- nets -->", "<!-- /nets -->")


@pytest.fixture(scope="module")
def rows():
    return summary.rows()


@pytest.mark.parametrize(
    ("name", "size", "gflop"),
    [
        ("icnet", 128, 0.458),
        ("icnet", 320, 2.86),
        ("segnet_basic", 64, 2.81),
        ("segnet_basic", 320, 70.3),
        ("hourglass", 320, 697),
    ],
)
def test_operations_counted_elsewhere(name, size, gflop):
    model = outline(name, (size, size), 25)
    assert flops.forward(model) / 1e9 == pytest.approx(gflop, rel=2e-3)


def test_row_of_icnet():
    icnet = summary.row("icnet")
    assert icnet["parameters"] == "6,710,411"
    assert icnet["doubled"] == "26,755,275"
    assert icnet["GFLOP"] == "2.9"
    assert icnet["stride"] == "32"
    assert icnet["heads"] == "logits 80x80, sub24_logits 40x40, sub4_logits 20x20"


def readme_table():
    text = (ROOT / "README.md").read_text()
    for marker in MARKERS:
        assert text.count(marker) == 1, f"the README's table is between {MARKERS}"
    return text.partition(MARKERS[0])[2].partition(MARKERS[1])[0].strip()


def test_readme_has_a_line_for_every_net_which_leads_to_its_file():
    lines = readme_table().splitlines()[2:]
    assert [line.split("]")[0].lstrip("| [") for line in lines] == list(nets.NETS)
    for line in lines:
        assert (ROOT / line.partition("](")[2].partition(")")[0]).is_file(), line


@pytest.mark.slow  # builds every net twice
def test_readme_has_this_table_and_the_text_every_net(rows):
    assert readme_table() == summary.markdown(rows), (
        "paste the output of: python tools/summary.py --markdown"
    )
    lines = summary.text(rows).splitlines()
    assert [line.split()[0] for line in lines] == ["net", *nets.NETS]
