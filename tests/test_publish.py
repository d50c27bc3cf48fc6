"""tools/publish.py: what of a report is copied for others, and what is left out."""

import io
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_seg.errors import UsageError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
import publish

TEXT = """# Title

![Loss, of all arms](figures/weighting-loss.png)

Some of the validation images.

![image, truth, Normal](figures/weighting-pictures.png)

* [tables/weighting.csv](tables/weighting.csv)
{files}

* [a page](https://example.org/page): elsewhere
"""
RUNS = """\
* [weighting/w\\_1/seed0/best](weighting/w_1/seed0/best): its weights
* [weighting/w\\_1/seed0/](weighting/w_1/seed0/): the run of W1"""
TEXT, PUBLISHED = (
    TEXT.format(files=files)
    for files in (RUNS, "* The folders of the runs are not published.")
)
PHOTOGRAPHS = ("a-pictures", "a-pictures-panel1", "a-sheet-augment", "a-extremes")
CHARTS = ("class-pixels", "picture_size-loss", "a-minutes", "pictures")


@pytest.fixture
def report(tmp_path):
    folder = tmp_path / "icnet"
    (folder / "figures").mkdir(parents=True)
    (folder / "tables").mkdir()
    (folder / "weighting").mkdir()  # the runs, which stay where they are
    (folder / "weighting" / "weights.npz").touch()
    (folder / "report.md").write_text(TEXT)
    (folder / "tables/weighting.csv").write_text("arm,miou\nnormal,0.5\n")
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    for name in ("weighting-loss", "weighting-pictures", "weighting-old"):
        Image.fromarray(noise).save(folder / "figures" / f"{name}.png")
    return folder


def published(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)) for path in files}


def test_what_the_report_shows_is_copied_with_few_colours(report, tmp_path):
    to = tmp_path / "results/icnet"
    assert publish.main([str(report), str(to)]) == 0
    assert published(to) == {
        "report.md",
        "tables/weighting.csv",
        "figures/weighting-loss.png",
        "figures/weighting-pictures.png",
    }
    assert (to / "report.md").read_text() == PUBLISHED
    content = (to / "figures/weighting-pictures.png").read_bytes()
    with Image.open(io.BytesIO(content)) as image:
        assert image.size == (60, 40)
        assert len(image.convert("RGB").getcolors()) <= 64


def test_photographs_are_left_out_where_the_report_may_not_show_them(report, tmp_path):
    to = tmp_path / "results"
    publish.main([str(report), str(to)])
    publish.main([str(report), str(to), "--no-photographs"])  # replaces the former
    assert published(to) == {
        "report.md",
        "tables/weighting.csv",
        "figures/weighting-loss.png",
    }
    lines = (to / "report.md").read_text().splitlines()
    assert lines.count("(Left out here: images of the data set.)") == 1
    assert lines[2] == "![Loss, of all arms](figures/weighting-loss.png)"


def test_which_figures_show_images():
    assert all(publish.is_photograph(f"{name}.png") for name in PHOTOGRAPHS)
    assert not any(publish.is_photograph(f"{name}.png") for name in CHARTS)


def test_nothing_else_is_replaced(report, tmp_path):
    with pytest.raises(UsageError, match="has no report.md"):
        publish.main([str(tmp_path), str(tmp_path / "to")])
    before = published(report)
    study = tmp_path / "study"
    shutil.copytree(report, study)
    for to in (report, report / "tables", study):
        with pytest.raises(UsageError, match="is no published report"):
            publish.main([str(report), str(to)])
    with pytest.raises(UsageError, match="name a folder elsewhere"):
        publish.main([str(report), str(report / "new")])
    assert published(report) == published(study) == before
