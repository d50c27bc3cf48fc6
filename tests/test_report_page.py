"""The report as a reader gets it: HTML, Markdown, CSV and the words of the verdict."""

import base64
import csv
import dataclasses
import html.parser
import io
import math
import re
import statistics
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_seg import plots, storage
from keras_seg.ablation.protocol import Arm, ArmResult, Claim, Stage, StageResult
from keras_seg.ablation.protocol import choose_winner as winner_of
from keras_seg.config import Config
from keras_seg.errors import StorageError
from keras_seg.labels import LabelSpec
from keras_seg.report import page as report
from keras_seg.report import scores, tables, wording
from keras_seg.report.sheets import Example
from keras_seg.report.verdict import verdict
from keras_seg.report.view import Context, StageView
from keras_seg.runs import folder as run_folder

EVIL = "<script>alert(1)</script>|*a* [x](http://y)"
NAMES = ("Background", "=left", "right|arm", "never")
LABELS = LabelSpec(NAMES, ((9, 9, 9), (200, 0, 0), (0, 200, 0), (0, 0, 200)), ((1, 2),))
# Truth: 60, 30, 10, 0 pixels.
POOR = [[50, 10, 0, 0], [20, 5, 5, 0], [10, 0, 0, 0], [0, 0, 0, 0]]
GOOD = [[58, 2, 0, 0], [0, 24, 6, 0], [0, 3, 7, 0], [0, 0, 0, 0]]
BASE = Config(net="icnet", data={"size": (32, 48)}, validation={"every": 20}, steps=40)
ARM = Arm("normal", "Normal", BASE, {"miou": 38.2, "f1": 88.17, "Arms": 12.5})
WEIGHTED = Arm(
    *("w1", EVIL, BASE.changed(loss={"weights": "w1"}), {"miou": 37.5}),
    note="Weights from pixels.",
)
LOST = Arm("w2", "W2", BASE.changed(loss={"weights": "w2"}), {"miou": 25.8})
CRASH = "TypeError: unsupported operand (keras_seg/runs/loop.py:12)"


def summarise(confusion):
    """The parts of metrics.json that follow from a confusion matrix."""
    matrix = np.array(confusion, float)
    hits, truth, predicted = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    parts = {
        "iou": (hits, truth + predicted - hits),
        "recall": (hits, truth),
        "precision": (hits, predicted),
        "f1": (2 * hits, truth + predicted),
    }
    per_class = {
        key: [part / whole if whole else None for part, whole in zip(*pair)]
        for key, pair in parts.items()
    }
    mean = {
        key: statistics.fmean(value for value in values if value is not None)
        for key, values in per_class.items()
    }
    summary = {"miou": mean["iou"], "pixel_accuracy": hits.sum() / matrix.sum()}
    summary |= {"mean_accuracy": mean["recall"], "f1_macro": mean["f1"]}
    f1_fg = 2 * hits[1:].sum() / (truth[1:].sum() + predicted[1:].sum())
    summary |= {"f1_micro_fg": f1_fg, "precision_micro_fg": None}
    return {"summary": summary, "per_class": per_class}


GOOD_SUMMARY, POOR_SUMMARY = summarise(GOOD)["summary"], summarise(POOR)["summary"]


def history(last, steps=(20.0, 40.0)):
    scored = {"train_miou": last + 0.04, "val_miou": last}
    return [{"step": k, "loss": 1.0, "val_loss": math.nan} | scored for k in steps]


def done(folder, arm, confusion, seed=0, minutes=2.0):
    run = folder / arm.name / f"seed{seed}"
    run.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    label = np.zeros((3, 24, 36), np.uint8)
    label[:, 6:18, 6:18] = 1
    label[:, :, 30:] = 255
    np.savez(
        run / "samples.npz",
        ids=np.array(["one", "two", EVIL]),
        image=rng.integers(0, 256, (3, 24, 36, 3), dtype=np.uint8),
        label=label,
        prediction=np.where(label == 1, 2, 0).astype(np.uint8),
    )
    values = summarise(confusion)
    metrics = {"step": 40, "steps": 40, "split": "val", "confusion": confusion}
    metrics |= {"parameters": {"trainable": 1234567, "all": 1240000}, **values}
    rows = history(values["summary"]["miou"])
    timing = {"train_seconds": 60 * minutes, "ms_per_image": 10 * minutes}
    return ArmResult(arm, seed, run, "done", "", metrics, rows, timing)


def failed(folder, arm, seed=0, state="diverged", reason="loss at step 9: nan"):
    run = folder / arm.name / f"seed{seed}"
    return ArmResult(arm, seed, run, state, reason, history=history(0.1, [5.0]))


def stage_of(results, name="weighting", published_winner=None, **more):
    question = "Does weighting help?"
    stage = Stage(name, question, "BODY, table 2", lambda _: (), published_winner)
    stage = dataclasses.replace(stage, **more)
    start = "Starts from the network as it is."
    return StageResult(stage, tuple(results), winner_of(results), start)


def context(**changes):
    values = {
        "command": "python ablations/run.py --net icnet --stage weighting",
        "scale": "demo",
        "study": "body_parts",
        "dataset": "camvid",
        "labels": LABELS,
        "train_pixels": [500, 300, 200, 0],
        "environment": {"commit": "abc123", "gpu": None, "versions": {"keras": "3.15"}},
        "weights": {"w1": [0.5, 0.7, 0.8, 1.0]},
    }
    return Context(**{**values, **changes})


def answer(stage, given=None):
    """The verdict's words."""
    view = StageView(stage, given or context())
    paragraph = verdict(view, tables.findings(view))
    return f"{paragraph.lead} {paragraph.text}"


class Page(html.parser.HTMLParser):
    """What a page shows; complains about unbalanced tags and scripts.

    `rows` has the cells of each table's rows, `folded` the texts inside <details>.
    """

    VOID = {"meta", "img", "br", "hr", "link", "input"}

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.folded, self.rows = [], [], [], []
        self.addresses, self.ids, self.open = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        found = dict(attributes)
        assert not any(name.startswith("on") for name in found)
        links = ("src", "href", "xlink:href", "data", "action")
        self.addresses += [found[name] for name in links if name in found]
        self.ids += [found["id"]] if "id" in found else []
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            (self.folded if "details" in self.open else self.texts).append(data)
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def row(self, title, number=0):
        """The cells of the row that begins so, of the table `number` that has it."""
        found = [cells for cells in self.rows if cells and cells[0].startswith(title)]
        return found[number]


def written_page(folder, results, given=None, **more):
    """The page of one stage, written to `folder`."""
    stage = results if isinstance(results, StageResult) else stage_of(results, **more)
    report.write(folder, title="x", stages=[stage], context=given or context())
    return Page((folder / "report.html").read_text())


def read_csv(path):
    return list(csv.DictReader(io.StringIO(path.read_text())))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A report at scale demo: two stages, a failed arm, hostile names."""
    folder = tmp_path_factory.mktemp("report")
    results = [
        done(folder / "weighting", ARM, POOR, minutes=1.0),
        done(folder / "weighting", WEIGHTED, GOOD),
        failed(folder / "weighting", LOST, state="failed", reason=CRASH),
    ]
    first = stage_of(results, published_winner="normal")
    second = stage_of([done(folder / "final", ARM, GOOD)], "final")
    path = report.write(
        folder, title="Body & parts", stages=[first, second], context=context()
    )
    assert path == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def page(written):
    return Page((written / "report.html").read_text())


@pytest.fixture
def undrawn(monkeypatch):
    """Empty figures, for tests that look at tables only: drawing takes the time."""
    leave_undrawn(monkeypatch)


def leave_undrawn(monkeypatch):
    monkeypatch.setattr(plots, "png", lambda figure: b"")
    monkeypatch.setattr(plots, "svg", lambda figure, name: "<svg ></svg>")


def test_page_is_self_contained_and_escaped(written, page):
    text = (written / "report.html").read_text()

    assert not {"script", "link", "iframe", "object", "base", "form"} & set(page.tags)
    assert all(value.startswith(("data:image/", "#")) for value in page.addresses)
    assert "url(http" not in text
    assert "@import" not in text
    assert any(EVIL in words for words in page.texts)
    assert len(page.ids) == len(set(page.ids))
    links = [value[1:] for value in page.addresses if value.startswith("#stage-")]
    assert links == ["stage-weighting", "stage-final"]
    assert set(links) <= set(page.ids)
    assert page.tags.count("h2") == 4
    # Four curves of each stage, those of the documents (together and of each arm),
    # class figures; the pixels of each class once.
    assert page.tags.count("svg") == 2 * 4 + (1 + 3) + 1 + 3 + 2 + 1


def test_answer_scores_curves_and_pictures_are_open_and_the_rest_is_folded(page):
    shown, folded = " ".join(page.texts), " ".join(page.folded)
    for text in ("above the base arm", "mean class accuracy\u00a0%", "Validation mIoU"):
        assert text in shown
    for text in (
        "Validation loss",
        "IoU of each class",
        "class_weights",
        "How to read",
    ):
        assert text not in shown
    titles = ("Losses", "Curves as the documents draw them", "Environment")
    titles += ("What differs between the arms", "How to read the numbers")
    assert {*titles, "Figure: how many pixels each class has"} <= set(page.folded)
    assert "Multi-Part Body Segmentation" in shown  # what BODY is
    assert "CLOTH:" not in shown + folded  # nothing here cites it


def test_pictures_of_the_page_can_be_decoded_and_leave_the_background(page):
    pictures = [value for value in page.addresses if value.startswith("data:")]

    # 3 images: photograph, truth and 2 arms, then photograph, truth and 1 arm; one
    # more is inside each confusion matrix.
    assert len(pictures) == 3 * 4 + 3 * 3 + 2
    opened = [
        Image.open(io.BytesIO(base64.b64decode(one.partition("base64,")[2])))
        for one in pictures
    ]
    photographs, maps = (
        [one for one in opened if one.size == (36, 24) and one.format == kind]
        for kind in ("JPEG", "PNG")
    )
    assert (len(photographs), len(maps)) == (6, 15)
    truth = np.asarray(maps[0])
    for place, colour in (((0, 0), (0, 0, 0, 0)), ((8, 8), (200, 0, 0, 255))):
        assert tuple(truth[place]) == colour
    assert tuple(truth[0, 32]) == (*plots.IGNORED_COLOUR, 255)


def test_table_of_scores(page):
    normal, weighted = page.row("Normal"), page.row(EVIL)
    poor, good = POOR_SUMMARY, GOOD_SUMMARY
    assert normal[:2] == ["Normal base document's choice", f"{100 * poor['miou']:.2f}"]
    assert weighted[0] == f"{EVIL} winner"
    assert weighted[1] == f"{100 * good['miou']:.2f}"
    assert normal[2] == "–"
    assert weighted[2] == f"+{100 * (good['miou'] - poor['miou']):.2f}"
    assert weighted[3] == "89.00"  # 58 + 24 + 7 of 100
    assert weighted[6] == "+4.00"  # train 4 points above validation
    assert weighted[7] == "22.50"  # 6 + 3 swapped, 31 right
    assert weighted[8:] == ["1,234,567", "2.0", "20.0"]
    assert page.row("W2") == ["W2", f"failed: {CRASH}"]


def test_best_values_are_marked(written):
    text = (written / "report.html").read_text()
    table = text[text.index("left/right swapped") :]
    table = table[: table.index("</table>")]

    # GOOD has the higher scores. The parameters are equal, so none of them is best;
    # that POOR's arm is faster may be due to what ran beside it.
    keys = ("miou", "pixel_accuracy", "f1_macro", "mean_accuracy")
    of_good = [f"{100 * GOOD_SUMMARY[key]:.2f}" for key in keys]
    assert re.findall(r"<b>([^<]*)</b>", table) == of_good


def test_a_dash_is_never_best(tmp_path, undrawn):
    """An arm without a number, in columns where a value can be best and cannot."""
    arms = [dataclasses.replace(ARM, name=f"a{k}", title=f"A{k}") for k in range(3)]
    bare, *runs = (done(tmp_path, arm, GOOD) for arm in arms)
    costs = ({**run.metrics, "gflop": 2.0 + k} for k, run in enumerate(runs))
    runs = [dataclasses.replace(run, metrics=cost) for run, cost in zip(runs, costs)]
    bare = dataclasses.replace(bare, timing={})
    runs = [bare, runs[0], dataclasses.replace(runs[1], history=[])]

    page = written_page(tmp_path, runs)

    text = (tmp_path / "report.html").read_text()
    assert page.row("A0")[-3:] == ["–", "–", "–"]
    assert page.row("A2")[6] == "–"
    assert "Nothing: the arms have the same settings." in page.folded
    assert re.findall(r"<b>([^<]*)</b>", text[: text.index("</table>")]) == ["2"]


def test_floors_by_hand(page):
    # Every pixel background: IoU 60/100, 0, 0; F1 120/160, 0, 0; recall 1, 0, 0.
    background = page.row("floor: every pixel “Background”")[1:6]
    assert background == ["20.00", "–", "60.00", "25.00", "33.33"]
    # Silhouette, every part "=left": IoU 1, 30/40, 0; F1 1, 60/70, 0.
    silhouette = page.row("floor: the true silhouette")[1:6]
    assert silhouette == ["58.33", "–", "90.00", "61.90", "66.67"]


def test_classes_settings_and_environment(page):
    assert page.row("right|arm") == ["right|arm", "20", "0.0", "70.0"]
    assert page.row("never") == ["never", "0", "–", "–"]
    assert ["Arm", "loss.weights"] in page.rows
    assert [EVIL, "w1"] in page.rows
    assert ["data.size", "32 x 48"] in page.rows
    assert ["commit", "abc123"] in page.rows
    assert ["gpu", "not known"] in page.rows
    assert ["versions.keras", "3.15"] in page.rows
    assert f"{EVIL}: Weights from pixels." in page.texts


def test_markdown_says_the_same(written):
    text = (written / "report.md").read_text()

    assert "<script" not in text.replace("\\<script", "")
    found = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    assert len(found) >= 10
    for table in found:
        lines = table.strip().split("\n")
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1, table
    links = re.findall(r"!\[(?:\\.|[^\]\\])*\]\(([^)]*)\)", text)
    assert len(links) == len(set(links)) == text.count("](figures/")
    for link in links:
        Image.open(written / link).verify()
    files = {path.name for path in (written / "figures").iterdir()}
    assert files == {link.removeprefix("figures/") for link in links}
    assert "    python ablations/run.py --net icnet --stage weighting" in text
    assert f"failed: {CRASH}" in text.replace("\\_", "_")


def test_csv_has_the_numbers_and_no_formulas(written):
    rows = read_csv(written / "tables" / "weighting.csv")

    normal, weighted, lost, floor, _ = rows
    assert float(weighted["miou"]) == GOOD_SUMMARY["miou"]
    assert float(weighted["recall right|arm"]) == 0.7
    assert weighted["precision_micro_fg"] == ""
    assert weighted["iou never"] == ""
    assert float(weighted["left_right_swapped"]) == pytest.approx(9 / 40)
    assert weighted["run"] == "weighting/w1/seed0"
    assert (normal["seed"], normal["state"], lost["state"]) == ("0", "done", "failed")
    assert lost["reason"] == CRASH
    assert lost["miou"] == lost["parameters"] == ""
    assert floor["title"] == "every pixel “Background”"
    assert float(floor["miou"]) == pytest.approx(0.2)
    assert all(None not in line for line in rows)
    assert "published_miou" not in rows[0]
    assert [line["winner"] for line in rows[:3]] == ["", "no interval", ""]
    for cell in (cell for line in rows for cell in (*line, *line.values())):
        assert not cell.startswith(("=", "+", "@"))
        assert not cell.startswith("-") or cell[1:2].isdigit()


def test_cell_that_begins_like_a_formula_is_quoted(tmp_path, undrawn):
    arm = dataclasses.replace(ARM, title="=HYPERLINK(1)")

    page = written_page(tmp_path, [failed(tmp_path, arm, reason="+1")])

    (line,) = read_csv(tmp_path / "tables/weighting.csv")
    assert (line["title"], line["reason"]) == ("'=HYPERLINK(1)", "'+1")
    assert "No arm has finished, so there is no answer yet." in page.texts


def test_published_numbers_seeds_and_groups(tmp_path, undrawn):
    better = [[55, 5, 0, 0], [0, 30, 0, 0], [0, 0, 10, 0], [0, 0, 0, 0]]
    results = [
        done(tmp_path, ARM, POOR, seed=0),
        done(tmp_path, ARM, GOOD, seed=1),
        done(tmp_path, WEIGHTED, better, seed=0),
        failed(tmp_path, WEIGHTED, seed=1, state="oom", reason="killed"),
        failed(tmp_path, LOST, seed=0, state="missing", reason=""),
        failed(tmp_path, LOST, seed=1, state="missing", reason=""),
    ]
    groups = {"Arms": (1, 2), "Bg": (0,)}
    given = context(scale="paper", datasets=("camvid",), groups=groups)
    (tmp_path / "w1/seed0/samples.npz").write_bytes(b"PK\x03\x04 cut short")

    page = written_page(tmp_path, results, given)

    mious = [100 * one["miou"] for one in (POOR_SUMMARY, GOOD_SUMMARY)]
    normal = page.row("Normal")
    mean, spread = statistics.fmean(mious), statistics.stdev(mious)
    assert normal[1] == f"{mean:.2f} ± {spread:.2f}"
    assert normal[3] == "38.2"
    assert normal[5].endswith("published 88.17")
    assert page.row(EVIL)[0] == f"{EVIL} winner 1 of 2 seeds"
    assert f"{EVIL}, seed 1: out of memory: killed" in page.texts
    assert page.row("W2") == ["W2published mIoU 25.8\u00a0%", "not run yet"]
    # Recalls 5/30 and 0/10, then 24/30 and 7/10: mean of means.
    expected = 100 * statistics.fmean([(5 / 30 + 0) / 2, (0.8 + 0.7) / 2])
    assert page.row("Arms") == ["Arms", f"{expected:.1f}published 12.5", "100.0"]
    assert ["image", "truth", "Normal"] in page.rows  # the other's cannot be read
    header = (tmp_path / "tables/weighting.csv").read_text().split("\n")[0]
    assert header.endswith("published_miou,published_f1,published_Arms")


@pytest.mark.parametrize(
    ("normal", "other", "published", "scale", "expected"),
    [
        (
            *(POOR, GOOD, "normal", "demo"),
            "0 has the highest validation mIoU, |points above the base arm, Normal.|"
            "chose Normal.|winner is 11.3 points above|With one seed|demonstration",
        ),
        (
            *(GOOD, POOR, "normal", "paper"),
            "The base arm, Normal, has the highest|chose the same arm|other data",
        ),
        (
            *(None, GOOD, None, "smoke"),
            "base arm, Normal, has no result|1 of 2 runs did not|A smoke test",
        ),
        (GOOD, None, None, "bench", "Normal is the only arm with a result"),
        (POOR, (), None, "demo", "Normal reaches|no better and has learned nothing"),
        (None, (), None, "demo", "No arm has finished|1 of 1 run did not"),
    ],
    ids=["other", "base", "no base", "only base", "one arm, poor", "none"],
)
def test_verdict(tmp_path, normal, other, published, scale, expected):
    """None is an arm that failed, () one that the stage does not have."""
    arms = (ARM, dataclasses.replace(WEIGHTED, title="W1 0"))
    results = [
        failed(tmp_path, arm) if matrix is None else done(tmp_path, arm, matrix)
        for arm, matrix in zip(arms, (normal, other))
        if matrix != ()
    ]
    stage = stage_of(results, published_winner=published)

    sentences = answer(stage, context(scale=scale))

    for part in expected.split("|"):
        assert part in sentences


@pytest.mark.parametrize(
    ("normal", "other", "expected"),
    [
        ((POOR, POOR), (GOOD, GOOD), "larger than the spread"),
        ((POOR, GOOD), (GOOD, GOOD), "within the spread"),
    ],
)
def test_verdict_tells_whether_the_seeds_agree(tmp_path, normal, other, expected):
    results = [
        done(tmp_path, arm, confusion, seed)
        for arm, seeds in ((ARM, normal), (WEIGHTED, other))
        for seed, confusion in enumerate(seeds)
    ]

    assert expected in answer(stage_of(results))


@pytest.mark.parametrize(
    ("of_normal", "of_other", "winner", "expected"),
    [
        (
            *(0.3, 0.2, "normal"),
            "The base arm, Normal, is best on the validation images and reaches "
            "22.69 % test mIoU, 46.98 points below W1.",
        ),
        (0.2, 0.3, "w1", "W1 is best on the validation images and reaches 69.66 % te"),
        # Not known of every run: chosen on what is.
        (math.nan, 0.1, "w1", "W1 has the highest test mIoU, 69.66 %"),
    ],
)
def test_winner_on_the_test_images_is_chosen_on_the_validation_images(
    tmp_path, of_normal, of_other, winner, expected
):
    other = dataclasses.replace(WEIGHTED, title="W1")
    results = []
    for arm, confusion, miou in ((ARM, POOR, of_normal), (other, GOOD, of_other)):
        run = done(tmp_path, arm, confusion)
        metrics = {**run.metrics, "split": "test"}
        results.append(dataclasses.replace(run, metrics=metrics, val_miou=miou))

    stage = stage_of(results, split="test")
    assert stage.winner == winner
    assert expected in answer(stage)
    # Of the validation images themselves, the stage's own numbers count: they may be
    # of another size than those that training kept.
    of_val = [
        dataclasses.replace(run, metrics={**run.metrics, "split": "val"})
        for run in results
    ]
    assert winner_of(of_val) == "w1"


def test_left_right_confusion_by_hand():
    # 25 of the 50 pixels of classes 1 and 2 are found: 16 right, 9 wrong.
    confusion = np.array([[58, 2, 0], [19, 11, 6], [6, 3, 5]])

    assert scores.left_right_confusion(confusion, [(1, 2)]) == pytest.approx(9 / 25)
    assert scores.left_right_confusion(confusion, [(0, 1)]) == pytest.approx(21 / 90)
    assert math.isnan(scores.left_right_confusion(confusion, []))
    # Background only is neither right nor left.
    confusion[:, 1:] = 0
    assert math.isnan(scores.left_right_confusion(confusion, [(1, 2)]))


def test_a_bound_just_below_zero_keeps_its_sign():
    assert wording.points(-0.00004) == "−0.00"
    assert wording.points(0.0104) == "+1.04"


def test_file_in_the_way_is_named(tmp_path):
    (tmp_path / "figures").write_text("a file")

    with pytest.raises(StorageError, match=str(tmp_path)):
        report.write(tmp_path, title="x", stages=[], context=context())


def test_nothing_temporary_is_left(written):
    files = {path.name for path in written.iterdir() if path.is_file()}
    assert files == {"report.html", "report.md"}
    assert not list(written.rglob(".tmp-*"))


def test_equal_results_give_equal_reports(tmp_path, undrawn):
    results = [done(tmp_path, ARM, POOR), done(tmp_path, WEIGHTED, GOOD)]
    contents = []
    for _ in range(2):
        written_page(tmp_path, results)
        files = [tmp_path / name for name in ("report.html", "report.md")]
        contents.append([path.read_bytes() for path in files])

    assert contents[0] == contents[1]


# Intervals and claims


def keep_counts(result, images):
    """per_image.npz of a run: `images` copies of its confusion matrix."""
    confusion = np.array(result.metrics["confusion"])
    write_counts(result, [confusion] * images)
    metrics = {**result.metrics, "confusion": (images * confusion).tolist()}
    return dataclasses.replace(result, metrics=metrics)


def write_counts(result, confusions):
    marginals = (np.diag, lambda m: m.sum(1), lambda m: m.sum(0))
    counts = [np.stack([count(one) for one in confusions]) for count in marginals]
    ids = tuple(f"image{k}" for k in range(len(confusions)))
    path = run_folder.per_image_file(result.run, None)
    run_folder.write_per_image(path, run_folder.PerImage(ids, *counts))


CLAIMS = (
    Claim("weighting hurts", "w1", "normal", "lower"),
    Claim("the labels put right, it helps", "w1", "normal", "higher", ours=True),
    Claim("it narrows the gap", "w1", "normal", "lower", "train_val_gap"),
    Claim("W2 is like none", "w2", "normal", "same"),
)


@pytest.fixture(scope="module")
def claimed(tmp_path_factory):
    """Two arms whose images are all alike, so that the interval has no width."""
    folder = tmp_path_factory.mktemp("claimed")
    results = [
        keep_counts(done(folder, ARM, POOR), 8),
        keep_counts(done(folder, WEIGHTED, GOOD), 8),
        failed(folder, LOST),
    ]
    stage = stage_of(results, claims=CLAIMS)
    with pytest.MonkeyPatch.context() as monkeypatch:
        leave_undrawn(monkeypatch)
        return folder, stage, written_page(folder, stage)


def test_interval_stands_below_the_difference(claimed):
    folder, stage, page = claimed
    poor, good = POOR_SUMMARY["miou"], GOOD_SUMMARY["miou"]
    gain = f"+{100 * (good - poor):.2f}"
    assert page.row(EVIL)[:3] == [
        f"{EVIL} winner clear, one seed",
        f"{100 * good:.2f}",
        f"{gain}[{gain},\u00a0{gain}]",
    ]
    said = answer(stage)
    assert f"The difference is clear: its 95 % interval is {gain} to {gain}" in said
    assert "image sampling (8 images) but not training randomness" in said
    (line,) = [
        line
        for line in read_csv(folder / "tables/weighting.csv")
        if line["arm"] == "w1"
    ]
    assert line["certainty"] == line["winner"] == "clear, one seed"
    for name in ("difference_to_base", "interval_low", "interval_high"):
        assert float(line[name]) == pytest.approx(good - poor)


def test_claims_are_held_against_the_runs(claimed):
    folder, stage, page = claimed
    # The claimed lower mIoU is higher; the gap is 4 points in both arms (`history`).
    starts = "Weighting hurts", "It narrows", "W2 is like none"
    hurts, gap, same = (page.row(text) for text in starts)
    assert hurts[0] == f"Weighting hurtsmIoU lower: {EVIL} against Normal"
    assert hurts[2] == "does not hold"
    assert "train\u00a0−\u00a0val lower" in gap[0]
    assert gap[1:] == ["+0.00", "seems not to hold (no interval)"]
    assert same[0].endswith("mIoU about the same: W2 against Normal")
    assert same[1:] == ["–", "not run"]
    said = answer(stage)
    assert "The document's 3 claims: “weighting hurts” does not hold;" in said
    assert "“W2 is like none” was not run." in said
    lines = read_csv(folder / "tables/weighting-claims.csv")
    verdicts = [line["verdict"] for line in lines]
    assert verdicts == [hurts[2], gap[2], "not run", "holds"]
    assert [line["source"] for line in lines] == ["document"] * 3 + ["ours"]
    assert float(lines[0]["interval_low"]) > 0
    assert lines[2]["difference"] == lines[2]["interval_low"] == ""


def test_what_no_document_says_stands_apart(claimed):
    folder, stage, page = claimed
    for text in ((folder / f"report.{end}").read_text() for end in ("html", "md")):
        said, asked = "Claims of the document", "Our hypotheses"
        assert text.count(said) == text.count(asked) == 1
        ours = text.index("The labels put right, it helps")
        claim = text.index("W2 is like none", text.index(said))
        assert text.index(said) < claim < text.index(asked) < ours
    assert page.row("Hypothesis")[2] == "verdict"
    # With what was found, in the verdict of the stage.
    assert "Our own hypothesis “the labels put right, it helps” holds." in answer(stage)


def test_many_hypotheses_are_counted_and_the_document_says_nothing(tmp_path, undrawn):
    texts = [f"it helps by {k}" for k in range(5)]
    claims = tuple(Claim(text, "w1", "normal", "higher", ours=True) for text in texts)
    results = [done(tmp_path, ARM, POOR), failed(tmp_path, WEIGHTED)]
    stage = stage_of(results, claims=claims)
    written_page(tmp_path, stage)

    assert "Our own 5 hypotheses: 5 × not run." in answer(stage)
    text = (tmp_path / "report.md").read_text()
    assert "# Our hypotheses\n" in text
    assert "Claims of the document" not in text


def test_damaged_counts_are_named_and_the_report_is_written(tmp_path, undrawn):
    results = [
        keep_counts(done(tmp_path, arm, confusion), 8)
        for arm, confusion in ((ARM, POOR), (WEIGHTED, GOOD))
    ]
    (results[0].run / "per_image.npz").write_bytes(b"PK\x03\x04")

    page = written_page(tmp_path, results)

    assert any(text.startswith("No interval: ") for text in page.texts)
    assert "[" not in page.row(EVIL)[2].replace(EVIL, "")


def test_iou_per_batch_by_hand(tmp_path):
    """VOC07's average: of 5 images in batches of 4, the last one is a batch alone."""
    run = done(tmp_path, ARM, POOR)
    first, last = np.array(POOR), np.array(GOOD)
    write_counts(run, [first] * 4 + [last])
    total = (4 * first + last).tolist()
    run = dataclasses.replace(run, metrics={**run.metrics, "confusion": total})

    expected = statistics.fmean([POOR_SUMMARY["miou"], GOOD_SUMMARY["miou"]])
    assert scores.batch_iou(run, batch=4) == pytest.approx(expected)
    assert math.isnan(scores.batch_iou(done(tmp_path / "other", ARM, POOR)))


# What a document prints, and where it may stand


@pytest.mark.parametrize(
    ("scale", "of_stage", "of_study", "is_shown"),
    [
        ("paper", ("camvid",), (), True),
        ("paper", ("surreal",), ("camvid",), False),
        ("paper", (), ("camvid",), True),
        ("bench", (), ("camvid",), False),
    ],
)
def test_published_numbers_stand_beside_ours(
    tmp_path, undrawn, scale, of_stage, of_study, is_shown
):
    printed = {"iou right|arm": 3.25, "f1_micro_fg": 41.5, "f1_micro_fg ±": 0.5}
    arm = dataclasses.replace(ARM, published=printed)
    given = context(scale=scale, datasets=of_study)

    page = written_page(tmp_path, [done(tmp_path, arm, GOOD)], given, datasets=of_stage)

    # IoU of class 2: 7 of 10 + 13 - 7; this table is the first, as it is printed.
    number = page.row("right|arm")[2]
    assert number == "43.8" + ("published 3.25" if is_shown else "")
    assert "IoU of each class (%)" in page.folded
    foreground = "F1 of the foreground\u00a0%"
    (header,) = (cells for cells in page.rows if foreground in cells)
    number = page.row("Normal")[header.index(foreground)]
    assert number == "75.61" + ("published 41.5 ± 0.5" if is_shown else "")


def test_f1_of_an_unknown_kind_is_not_beside_ours(tmp_path, undrawn):
    arm = dataclasses.replace(ARM, published={"miou": 38.19, "f1_unknown": 88.17})
    given = context(scale="paper", datasets=("camvid",))

    page = written_page(tmp_path, [done(tmp_path, arm, GOOD)], given)

    assert f"{100 * GOOD_SUMMARY['f1_macro']:.2f}" in page.row("Normal")
    assert ["Arm", "F1 (of which kind is unknown)\u00a0%"] in page.rows
    assert page.row("Normal", 1) == ["Normal", "88.17"]


@pytest.mark.parametrize("scale", ["demo", "paper"])
def test_a_stage_on_other_data_than_it_asks_about(tmp_path, scale):
    results = [done(tmp_path, ARM, POOR)]
    given = context(scale=scale, datasets=("camvid", "surreal"))

    said = [
        answer(stage_of(results, datasets=datasets), given)
        for datasets in (("surreal", "atr"), ("surreal", "camvid"), ())
    ]

    other = "The question is about surreal and atr; these runs are on camvid."
    assert [other in sentences for sentences in said] == [True, False, False]


def test_cost_and_networks_of_the_arms(tmp_path, undrawn):
    wide = Arm("wide", "Wide", BASE.changed(net="unet"))
    results = [done(tmp_path, ARM, POOR), done(tmp_path, wide, GOOD)]
    metrics = {**results[1].metrics, "gflop": 697.447}
    results[1] = dataclasses.replace(results[1], metrics=metrics)

    page = written_page(tmp_path, results)

    column = page.row("Arm").index("GFLOP")
    assert page.row("Normal")[column] == "–"
    assert page.row("Wide")[column] == "697"
    assert any(text.startswith("Networks icnet, unet on camvid") for text in page.texts)


# Curves, sheets, export


def figures_in(folder: Path) -> set[str]:
    return {path.name for path in (folder / "figures").iterdir()}


def test_curves_that_the_stage_names(tmp_path, undrawn):
    run = done(tmp_path, ARM, POOR)
    rows = [row | {"val_f1_micro_fg": 0.25} for row in run.history]
    run = dataclasses.replace(run, history=rows)

    written_page(tmp_path, [run], curves=("f1_micro_fg", "precision_micro_fg"))

    names = figures_in(tmp_path)
    assert "weighting-val-f1-micro-fg.png" in names
    assert not [name for name in names if "precision" in name or "val-miou" in name]


def test_sheets_or_why_they_are_left_out(tmp_path, undrawn):
    """Three classes and no joints: neither sheet; then SURREAL's levels and joints."""
    knobs = {"targets": "hierarchy", "stacks": 2}
    config = BASE.changed(net={"name": "hourglass", **knobs})
    arm = Arm("hierarchy", "Coarse to fine", config)
    stage = stage_of([failed(tmp_path, arm)], sheets=("hierarchy", "joints"))
    labels = LabelSpec(
        tuple(f"part {k}" for k in range(25)), tuple((9 * k, 7, k) for k in range(25))
    )
    joints = np.full((24, 2), 3.0, np.float32)
    example = Example(
        "one", np.zeros((24, 36, 3), np.uint8), np.ones((24, 36), np.uint8), joints
    )

    page = written_page(tmp_path / "without", stage)
    assert len([text for text in page.texts if "is left out" in text]) == 2

    given = context(labels=labels, train_pixels=[1] * 25, examples=[example])
    page = written_page(tmp_path, stage, given)
    assert ["image", "2 classes", "25 classes"] in page.rows
    assert ["image", "joints", "centroids", "both, joined"] in page.rows
    sheets = {f"weighting-sheet-{name}.png" for name in ("hierarchy", "joints")}
    assert sheets <= figures_in(tmp_path)


@pytest.mark.parametrize("exports", [True, False])
def test_export_of_the_winner_is_named(tmp_path, undrawn, exports):
    run = done(tmp_path, ARM, POOR)
    folder = run.run / "export" / "saved_model"
    folder.mkdir(parents=True)
    check = {"images": 8, "largest_difference": 2.5e-7}
    storage.write_json(folder / "export.json", {"size": [32, 48], "check": check})

    written_page(tmp_path, [run], exports=exports)

    text = (tmp_path / "report.md").read_text().replace("\\", "")
    assert ("normal/seed0/export/saved_model is a SavedModel" in text) == exports
    assert ("differ from the network's by at most 2.5e-07" in text) == exports
