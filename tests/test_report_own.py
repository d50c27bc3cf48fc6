"""What a report shows beside verdict and tables: next steps, disputed images, costs."""

from dataclasses import replace

import miniatures
import numpy as np
import pytest
from test_report_page import (
    BASE,
    CONTEXT,
    GOOD,
    POOR,
    Page,
    done,
    leave_undrawn,
    stage_of,
)

from keras_seg import plots
from keras_seg.ablation.protocol import Arm, claim
from keras_seg.data.prepared import open_prepared
from keras_seg.errors import StorageError
from keras_seg.report import charts, disputed, tables, wording
from keras_seg.report import page as report
from keras_seg.report.blocks import Pictures
from keras_seg.report.view import StageView
from keras_seg.runs import folder

PLAIN = Arm("plain", "Plain", BASE.changed(data={"size": (24, 40)}))
WIDE = Arm("wide", "Wide", PLAIN.config.changed(net={"filter_scale": 2}))


@pytest.fixture(scope="module")
def prepared(shapes):
    return open_prepared(shapes)


@pytest.fixture(scope="module")
def own(prepared):
    """The context of a question of the user's on the shapes."""
    return replace(
        CONTEXT,
        scale="paper",
        dataset="mine",
        names=prepared.labels.names,
        palette=prepared.labels.palette,
        flip_pairs=(),
        prepared=prepared,
        is_own=True,
        next_steps={"weighting": [("an export", "keras-seg export runs/a 'b c'")]},
    )


def with_pictures(result, prepared, right):
    """The run with predictions: the truth where `right` says so, else class 3."""
    samples = prepared.samples("val")
    labels = [miniatures.read_label(sample.label) for sample in samples]
    kept = np.stack(labels).copy()
    kept[kept == 255] = 0
    counts = np.zeros((3, len(samples), 4), np.int64)
    for number, (label, share) in enumerate(zip(labels, right)):
        wrong = np.arange(label.size).reshape(label.shape) >= share * label.size
        kept[number][wrong] = 3
        for c in range(4):
            truth, predicted = label == c, (kept[number] == c) & (label != 255)
            found = (truth & predicted).sum(), truth.sum(), predicted.sum()
            counts[:, number, c] = found
    ids = tuple(sample.id for sample in samples)
    folder.write_per_image(
        folder.per_image_file(result.run, None), folder.PerImage(ids, *counts)
    )
    np.savez(result.run / folder.PREDICTIONS, ids=np.array(ids), prediction=kept)
    return result


@pytest.fixture
def stage(prepared, tmp_path):
    plain = done(tmp_path, PLAIN, POOR, gflop=1.0)
    wide = done(tmp_path, WIDE, GOOD, minutes=4.0, gflop=3.0)
    with_pictures(plain, prepared, [0.5, 0.5, 0.5, 0.9, 0.1, 0.5])
    with_pictures(wide, prepared, [1.0, 0.5, 0.3, 0.8, 1.0, 0.6])
    result = stage_of([plain, wide])
    return replace(result, stage=replace(result.stage, source=""))


def test_the_iou_of_an_image_is_the_mean_of_its_classes():
    """2/4, 0/1, none and 3/3; 1/2 alone; no pixel at all."""
    hits = np.array([[2, 0, 0, 3], [1, 0, 0, 0], [0, 0, 0, 0]])
    truth = np.array([[3, 1, 0, 3], [1, 0, 0, 0], [0, 0, 0, 0]])
    predicted = np.array([[3, 0, 0, 3], [2, 0, 0, 0], [0, 0, 0, 0]])
    counts = folder.PerImage(("a", "b", "empty"), hits, truth, predicted)
    assert disputed.image_ious(counts) == {"a": pytest.approx(0.5), "b": 0.5}


def test_an_error_map_is_pink_where_it_is_wrong():
    label = np.array([[0, 1, 255], [2, 2, 0]])
    prediction = np.array([[0, 2, 1], [2, 0, 0]])
    found = plots.paint_errors(label, prediction, (1, 2, 3))
    pink, ok, void = plots.WRONG_COLOUR, (1, 2, 3), plots.IGNORED_COLOUR
    expected = [[ok, pink, void], [ok, pink, ok]]
    np.testing.assert_array_equal(found, np.array(expected, np.uint8))


def test_the_worst_the_best_and_the_most_disputed(stage, own, prepared):
    """The winner, Wide, is right in shares of 1, .5, .3, .8, 1 and .6 of the images."""
    ids = [sample.id for sample in prepared.samples("val")]
    found = disputed.blocks(StageView(stage, own))
    extremes, contested = [block for block in found if isinstance(block, Pictures)]
    names = [name for name, _ in extremes.rows]
    assert [name.split(",")[0] for name in names[:2]] == [ids[2], ids[1]]
    assert {name.split(",")[0] for name in names[2:]} == {ids[0], ids[4]}
    assert "worst: " in names[0]
    assert "best: 100.0 %" in names[2]
    assert extremes.header == ["image", "truth", "Wide", "Wide: errors"]
    assert contested.rows[0][0].startswith(f"{ids[4]}, ")  # .1 against 1
    assert contested.header[2:] == ["Plain", "Plain: errors", "Wide", "Wide: errors"]
    errors = extremes.rows[2][1][3]
    assert not (errors == plots.WRONG_COLOUR).all(axis=-1).any()


def test_without_the_data_or_the_predictions_there_are_no_such_images(stage, own):
    assert disputed.blocks(StageView(stage, replace(own, prepared=None))) == []
    for result in stage.results:
        (result.run / folder.PREDICTIONS).unlink()
    view = StageView(stage, own)
    assert disputed.blocks(view) == []
    assert view.left_out == []


def test_a_report_says_what_it_lacks_because_a_file_is_damaged(
    stage, own, tmp_path, monkeypatch
):
    leave_undrawn(monkeypatch)
    plain, wide = (result.run for result in stage.results)
    whole = report.write(tmp_path, title="Which?", stages=[stage], context=own)
    assert whole.left_out == []
    spoilt = {
        wide / "samples.npz": "No pictures: ",
        plain / folder.PREDICTIONS: "No disputed images: ",
        plain / "per_image.npz": "No interval: ",
    }
    for path in spoilt:
        path.write_bytes(path.read_bytes()[:-30])

    done = report.write(tmp_path, title="Which?", stages=[stage], context=own)

    page = Page(done.path.read_text())
    for path, what in spoilt.items():
        expected = f"{what}{path} is damaged. "
        assert [line for line in done.left_out if line.startswith(expected)]
        assert any(text.startswith(expected) for text in page.texts)
    assert len(done.left_out) == 4  # without its counts no image is disputed either
    assert done.answers.keys() == {"weighting"}
    assert done.answers["weighting"].startswith("Wide")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("image", lambda image: image[:, :-1]),
        ("label", lambda label: label[:-1]),
        ("prediction", lambda prediction: prediction.astype(np.int32)),
        ("ids", lambda ids: ids[0]),
    ],
)
def test_pictures_that_no_run_writes_are_damage(name, change, stage):
    path = stage.results[0].run / "samples.npz"
    arrays = dict(np.load(path))
    before = folder.read_samples(path.parent)
    assert before is not None
    assert before["ids"] == arrays["ids"].tolist()
    np.savez(path, **{**arrays, name: change(arrays[name])})
    with pytest.raises(StorageError, match="samples.npz is damaged. It holds no pict"):
        folder.read_samples(path.parent)


def test_the_report_says_what_the_data_are(stage, own, tmp_path, monkeypatch):
    leave_undrawn(monkeypatch)
    done = report.write(tmp_path, title="Which?", stages=[stage], context=own)
    page, text = Page(done.path.read_text()), (tmp_path / "report.md").read_text()
    data = text[text.index("## The data") :]
    for line in (
        "train: 10 images, 24 x 40 px, ",
        "val: 6 images, 24 x 40 px, ",
        "Warning: Class absent has no pixel in train: no network can learn to find",
        "Warning: Class absent has no pixel in val: scores there are means over 3 of 4",
    ):
        assert sum(line in shown.replace("\xa0", " ") for shown in page.texts) == 1
        assert f"* {line}" in data


def test_what_a_score_costs(stage, own):
    (_, drawn) = charts.costs(StageView(stage, own))
    assert [chart.name for chart in drawn.charts] == [
        "weighting-minutes",
        "weighting-gflop",
    ]
    (axes,) = drawn.charts[1].figure.axes
    places = [line.get_xydata()[0].tolist() for line in axes.lines]
    assert places == [
        [1.0, pytest.approx(100 * 49 / 216)],
        [3.0, pytest.approx(100 * 3511 / 5040)],
    ]
    alike = replace(stage.results[1], metrics=stage.results[0].metrics)
    alike = replace(alike, timing=stage.results[0].timing)
    assert charts.costs(StageView(stage_of([stage.results[0], alike]), own)) == []


@pytest.mark.parametrize("claims", [(), (claim("width helps", "wide > plain"),)])
def test_the_report_of_an_own_question_speaks_of_no_document(
    claims, stage, own, tmp_path, monkeypatch
):
    leave_undrawn(monkeypatch)
    stage = replace(stage, stage=replace(stage.stage, claims=claims))
    done = report.write(tmp_path, title="Which?", stages=[stage], context=own)
    page = Page(done.path.read_text())
    shown = " ".join([*page.texts, *page.folded])
    assert "width helps" in shown or not claims
    for word in ("ocument", "published", ", scale", "thesis", "CLOTH"):
        assert word not in shown, word
    assert "ocument" not in (tmp_path / "report.md").read_text()


def test_next_steps_and_files_are_in_the_report(stage, own, tmp_path, monkeypatch):
    leave_undrawn(monkeypatch)
    for name in ("config.json", "log.txt"):
        (stage.results[1].run / name).write_text("{}")
    done = report.write(tmp_path, title="Which?", stages=[stage], context=own)
    page = Page(done.path.read_text())
    assert any("keras-seg export runs/a 'b c'" in text for text in page.folded)
    links = [a for a in page.addresses if not a.startswith(("data:", "#"))]
    assert links == [
        "tables/weighting.csv",
        "wide/seed0/config.json",
        "wide/seed0/log.txt",
        "plain/seed0/",
    ]
    markdown = (tmp_path / "report.md").read_text()
    assert "(wide/seed0/config.json): the winner's settings" in markdown
    assert "    keras-seg export runs/a 'b c'" in markdown


def test_the_names_of_all_columns_are_metrics_of_claims(stage, own):
    for column in tables.columns(StageView(stage, own)):
        assert wording.is_metric(column.name, None), column.name
    assert wording.is_metric("iou Road", None)
    assert not wording.is_metric("iou Road", ["Sky"])
    assert not wording.is_metric("mIoU", None)
