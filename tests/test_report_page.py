"""The report as a reader gets it: HTML, Markdown, CSV and the words of the verdict."""

import base64
import csv
import html.parser
import io
import math
import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from keras_seg import metrics, plots, storage
from keras_seg.ablation.protocol import (
    Arm,
    ArmResult,
    Claim,
    Stage,
    StageResult,
    claim,
)
from keras_seg.ablation.protocol import choose_winner as winner_of
from keras_seg.config import Config
from keras_seg.errors import StorageError
from keras_seg.report import charts, scores, tables, wording
from keras_seg.report import page as report
from keras_seg.report.claims_table import findings
from keras_seg.report.sheets import Example
from keras_seg.report.verdict import verdict
from keras_seg.report.view import Context, StageView
from keras_seg.report.winner import find_winner
from keras_seg.runs import folder as run_folder

EVIL = "<script>alert(1)</script>|*a* [x](http://y)"
# Truth: 60, 30, 10, 0 pixels. IoU of POOR: 50/90, 5/40, 0; of GOOD: 58/60, 24/35, 7/16.
POOR = [[50, 10, 0, 0], [20, 5, 5, 0], [10, 0, 0, 0], [0, 0, 0, 0]]
GOOD = [[58, 2, 0, 0], [0, 24, 6, 0], [0, 3, 7, 0], [0, 0, 0, 0]]
POOR_MIOU, GOOD_MIOU = 49 / 216, 3511 / 5040
GAIN = "+46.98"
BASE = Config(net="icnet", data={"size": (32, 48)}, validation={"every": 20}, steps=40)
ARM = Arm("normal", "Normal", BASE, {"miou": 38.2, "f1": 88.17, "Arms": 12.5})
WEIGHTED = Arm(
    *("w1", EVIL, BASE.changed(loss={"weights": "w1"}), {"miou": 37.5}),
    note="Weights from pixels.",
)
LOST = Arm("w2", "=W2", BASE.changed(loss={"weights": "w2"}), {"miou": 25.8})
CRASH = "TypeError: unsupported operand (keras_seg/runs/loop.py:12)"
CONTEXT = Context(
    command="python ablations/run.py --net icnet --stage weighting",
    scale="demo",
    dataset="camvid",
    names=("Background", "=left", "right|arm", "never"),
    palette=((9, 9, 9), (200, 0, 0), (0, 200, 0), (0, 0, 200)),
    flip_pairs=((1, 2),),
    train_pixels=[500, 300, 200, 0],
    environment={"commit": "abc123", "gpu": None, "versions": {"keras": "3.15"}},
    weights={"w1": [0.5, 0.7, 0.8, 1.0]},
)
PAPER = replace(CONTEXT, scale="paper", datasets=("camvid",))


def history(last, steps=(20.0, 40.0)):
    """Still rising at the end."""
    values = [0.9 * last, last][-len(steps) :]
    rows = [{"train_miou": last + 0.04, "val_miou": value} for value in values]
    other = {"loss": 1.0, "val_loss": math.nan}
    return [{"step": step} | other | row for step, row in zip(steps, rows)]


def done(folder, arm, confusion, seed=0, minutes=2.0, **more):
    """A finished run; `more` goes into metrics.json."""
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
    values = {"step": 40, "split": "val", "parameters": {"all": 1240000}}
    values |= {"images": 3, "classes": list(CONTEXT.names)}
    values["parameters"]["trainable"] = 1234567
    values |= metrics.scores(np.array(confusion), None) | more
    values["summary"]["precision_micro_fg"] = None
    rows = history(values["summary"]["miou"])
    timing = {"train_seconds": 60 * minutes, "ms_per_image": 10 * minutes}
    return ArmResult(arm, seed, run, "done", "", values, rows, timing)


def failed(folder, arm, seed=0, state="diverged", reason="loss at step 9: nan"):
    run = folder / arm.name / f"seed{seed}"
    return ArmResult(arm, seed, run, state, reason, history=history(0.1, [5.0]))


def stage_of(results, name="weighting", **more):
    stage = Stage(name, "Does weighting help?", "BODY, table 2", lambda _: (), **more)
    start = "Starts from the network as it is."
    return StageResult(stage, tuple(results), winner_of(results), start)


def answer(stage, given=CONTEXT):
    """The verdict's words."""
    view = StageView(stage, given)
    paragraph = verdict(view, findings(view))
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
        if self.open[-1:] not in (["style"], ["script"]):
            (self.folded if "details" in self.open else self.texts).append(data)
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def row(self, title, number=0):
        """The cells of the row that begins so, of the table `number` that has it."""
        found = [cells for cells in self.rows if cells and cells[0].startswith(title)]
        return found[number]


def written_page(folder, stages, given=CONTEXT):
    """The page of these stages, or of one, written to `folder`."""
    stages = [stages] if isinstance(stages, StageResult) else stages
    done = report.write(folder, title="Body & parts", stages=stages, context=given)
    return Page(done.path.read_text())


def read_csv(path):
    return list(csv.DictReader(io.StringIO(path.read_text())))


def best(folder):
    """The numbers in bold of the first table of scores."""
    text = (folder / "report.html").read_text()
    table = text[text.index('<th scope="col">accuracy') :]
    return re.findall(r"<b>([^<]*)</b>", table[: table.index("</table>")])


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
    written_page(folder, [first, second])
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

    assert not {"link", "iframe", "object", "base", "form"} & set(page.tags)
    ours = (Path(report.__file__).parent / "page.js").read_text()
    scripts = re.findall("<script>(.*?)</script>", text, re.DOTALL)
    assert [script.strip() for script in scripts] == [ours.strip()]
    others = [a for a in page.addresses if not a.startswith(("data:image/", "#"))]
    assert "tables/weighting.csv" in others
    assert all((written / unquote(address)).exists() for address in others)
    assert "url(http" not in text
    assert "@import" not in text
    assert any(EVIL in words for words in page.texts)
    assert len(page.ids) == len(set(page.ids))
    links = [value[1:] for value in page.addresses if value.startswith("#stage-")]
    assert links == ["stage-weighting", "stage-final"]
    assert set(links) <= set(page.ids)
    assert page.tags.count("h2") == 4
    # Four curves of each stage, those of the documents (together and of each arm),
    # class figures; scores against time of the first; the pixels of each class once.
    assert page.tags.count("svg") == 2 * 4 + (1 + 3) + 1 + 3 + 2 + 1 + 1
    # Nothing temporary is left.
    files = {path.name for path in written.iterdir() if path.is_file()}
    assert files == {"report.html", "report.md"}
    assert not list(written.rglob(".tmp*"))


def test_answer_scores_curves_and_pictures_are_open_and_the_rest_is_folded(page):
    shown, folded = " ".join(page.texts), " ".join(page.folded)
    for text in ("above the base arm", "mean class accuracy\u00a0%", "Validation mIoU"):
        assert text in shown
    hidden = ("Validation loss", "IoU of each class", "class_weights", "How to read")
    assert not [text for text in hidden if text in shown]
    titles = ("Losses", "Curves as the documents draw them", "Environment")
    titles += ("What differs between the arms", "How to read the numbers")
    assert {*titles, "Figure: how many pixels each class has"} <= set(page.folded)
    assert "Multi-Part Body Segmentation" in shown  # what BODY is
    assert "CLOTH:" not in shown + folded  # nothing here cites it
    assert f"{EVIL}: Weights from pixels." in page.texts


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
    assert tuple(truth[0, 0]) == (0, 0, 0, 0)
    assert tuple(truth[8, 8]) == (200, 0, 0, 255)
    assert tuple(truth[0, 32]) == (*plots.IGNORED_COLOUR, 255)


def test_tables_of_the_page(written, page):
    assert page.row("Normal")[:3] == [
        "Normal base document's choice 1 seed",
        "22.69over 3 of 4 classes",
        "–",
    ]
    miou = "69.66over 3 of 4 classes"  # “never” is in no truth and no prediction
    expected = [f"{EVIL} winner 1 seed", miou, GAIN, "89.00", "80.18", "82.22"]
    expected += ["+4.00", "22.50"]  # training less validation; 6 + 3 of 40 swapped
    expected += ["40of 40; still improving", "1,234,567", "2.0", "20.0"]
    assert page.row(EVIL) == expected
    assert page.row("=W2") == ["=W2", f"failed: {CRASH}"]
    # GOOD has the higher scores. The parameters are equal, so none of them is best;
    # that POOR's arm is faster may be due to what ran beside it.
    assert best(written) == ["69.66", "89.00", "80.18", "82.22"]
    # Every pixel background: IoU 60/100, 0, 0; F1 120/160, 0, 0; recall 1, 0, 0.
    background = page.row("floor: every pixel “Background”")[1:6]
    assert background == ["20.00", "–", "60.00", "25.00", "33.33"]
    # Silhouette, every part "=left": IoU 1, 30/40, 0; F1 1, 60/70, 0.
    silhouette = page.row("floor: the true silhouette")[1:6]
    assert silhouette == ["58.33", "–", "90.00", "61.90", "66.67"]
    assert page.row("right|arm") == ["right|arm", "20", "0.0", "70.0"]
    assert page.row("never") == ["never", "0", "–", "–"]
    for row in (
        ["Arm", "loss.weights"],
        [EVIL, "w1"],
        ["data.size", "32 x 48"],
        ["augment.scale", "1 to 1"],
        ["commit", "abc123"],
        ["gpu", "not known"],
        ["versions.keras", "3.15"],
    ):
        assert row in page.rows


def test_a_dash_is_never_best(tmp_path, undrawn):
    """An arm without a number, in columns where a value can be best and cannot."""
    arms = [replace(ARM, name=f"a{k}", title=f"A{k}") for k in range(3)]
    runs = [
        replace(done(tmp_path, arms[0], GOOD), timing={}),
        done(tmp_path, arms[1], GOOD, gflop=2.0),
        replace(done(tmp_path, arms[2], GOOD, gflop=697.447), history=[]),
    ]

    page = written_page(tmp_path, stage_of(runs))

    assert page.row("A0")[-3:] == ["–", "–", "–"]
    assert page.row("A2")[6] == "–"
    assert page.row("A2")[page.row("Arm").index("GFLOP")] == "697"
    assert "Nothing: the arms have the same settings." in page.folded
    assert best(tmp_path) == ["2"]


def test_markdown_has_the_same_content(written):
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
    assert figures_in(written) == {link.removeprefix("figures/") for link in links}
    assert "    python ablations/run.py --net icnet --stage weighting" in text
    assert f"failed: {CRASH}" in text.replace("\\_", "_")


def test_csv_has_the_numbers_and_no_formulas(written):
    rows = read_csv(written / "tables" / "weighting.csv")

    normal, weighted, lost, floor, _ = rows
    assert float(weighted["miou"]) == pytest.approx(GOOD_MIOU)
    assert float(weighted["recall right|arm"]) == 0.7
    assert weighted["precision_micro_fg"] == weighted["iou never"] == ""
    assert float(weighted["left_right_swapped"]) == pytest.approx(9 / 40)
    assert weighted["run"] == "weighting/w1/seed0"
    assert (normal["seed"], normal["state"], lost["state"]) == ("0", "done", "failed")
    assert (lost["title"], lost["reason"]) == ("'=W2", CRASH)
    assert lost["miou"] == lost["parameters"] == ""
    assert floor["title"] == "every pixel “Background”"
    assert float(floor["miou"]) == pytest.approx(0.2)
    assert all(None not in line for line in rows)
    assert "published_miou" not in rows[0]
    assert [line["winner"] for line in rows[:3]] == ["", "no interval", ""]
    for cell in (cell for line in rows for cell in (*line, *line.values())):
        assert not re.match(r"[=+@]|-\D", cell)


def test_published_numbers_seeds_and_groups(tmp_path, undrawn):
    better = [[55, 5, 0, 0], [0, 30, 0, 0], [0, 0, 10, 0], [0, 0, 0, 0]]
    results = [
        done(tmp_path, ARM, POOR, seed=0),
        done(tmp_path, ARM, GOOD, seed=1),
        done(tmp_path, WEIGHTED, better, seed=0),
        failed(tmp_path, WEIGHTED, seed=1, state="oom", reason="It was killed."),
        failed(tmp_path, LOST, seed=0, state="missing", reason=""),
        failed(tmp_path, LOST, seed=1, state="missing", reason=""),
    ]
    (tmp_path / "w1/seed0/samples.npz").write_bytes(b"PK\x03\x04 cut short")
    given = replace(PAPER, groups={"Arms": (1, 2), "Bg": (0,)})

    page = written_page(tmp_path, stage_of(results), given)

    normal = page.row("Normal")
    # The mean of 22.685 and 69.663; half their distance times the root of 2.
    assert normal[1] == "46.17 ± 33.22over 3 of 4 classes"
    assert normal[3] == "38.2"
    assert normal[5].endswith("published 88.17")
    assert page.row(EVIL)[0] == f"{EVIL} winner 1 of 2 seeds"
    assert f"{EVIL}, seed 1: out of memory: It was killed" in page.texts
    assert page.row("=W2") == ["=W2published mIoU 25.8\u00a0%", "not run yet"]
    # Recalls 5/30 and 0/10, then 24/30 and 7/10: the mean of 8.33 and 75.
    assert page.row("Arms") == ["Arms", "41.7published 12.5", "100.0"]
    assert ["image", "truth", "Normal"] in page.rows  # the other's cannot be read
    header = (tmp_path / "tables/weighting.csv").read_text().split("\n")[0]
    assert header.endswith("published_miou,published_f1,published_Arms")


@pytest.mark.parametrize(
    ("normal", "other", "published", "scale", "expected"),
    [
        (
            *(POOR, GOOD, "normal", "demo"),
            "0 has the highest validation mIoU over 3 of 4 classes, |"
            "points above the base arm, Normal.|"
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
    arms = (ARM, replace(WEIGHTED, title="W1 0"))
    results = [
        failed(tmp_path, arm) if matrix is None else done(tmp_path, arm, matrix)
        for arm, matrix in zip(arms, (normal, other))
        if matrix != ()
    ]
    stage = stage_of(results, published_winner=published)

    sentences = answer(stage, replace(CONTEXT, scale=scale))

    for part in expected.split("|"):
        assert part in sentences


@pytest.mark.parametrize(
    ("second", "expected"),
    [(POOR, "larger than the spread"), (GOOD, "within the spread")],
)
def test_verdict_tells_whether_the_seeds_agree(tmp_path, second, expected):
    """The base's two seeds, the second one as given, against two that are good."""
    results = [
        done(tmp_path, arm, confusion, seed)
        for arm, seeds in ((ARM, (POOR, second)), (WEIGHTED, (GOOD, GOOD)))
        for seed, confusion in enumerate(seeds)
    ]

    assert expected in answer(stage_of(results))


@pytest.mark.parametrize(
    ("of_normal", "of_other", "winner", "expected"),
    [
        (
            *(0.3, 0.2, "normal"),
            "The base arm, Normal, is best on the validation images and reaches "
            "22.69 % test mIoU over 3 of 4 classes, 46.98 points below W1.",
        ),
        (0.2, 0.3, "w1", "W1 is best on the validation images and reaches 69.66 % te"),
        # Not known of every run: chosen on what is.
        (math.nan, 0.1, "w1", "W1 has the highest test mIoU over 3 of 4 classes, 69"),
    ],
)
def test_winner_on_the_test_images_is_chosen_on_the_validation_images(
    tmp_path, of_normal, of_other, winner, expected
):
    other = replace(WEIGHTED, title="W1")
    results = [
        replace(done(tmp_path, arm, confusion, split="test"), val_miou=miou)
        for arm, confusion, miou in ((ARM, POOR, of_normal), (other, GOOD, of_other))
    ]

    stage = stage_of(results, split="test")
    assert stage.winner == winner
    assert expected in answer(stage)
    # Of the validation images themselves, the stage's own numbers count: they may be
    # of another size than those that training kept.
    assert "w1" == winner_of(
        [replace(run, metrics={**run.metrics, "split": "val"}) for run in results]
    )


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
        written_page(tmp_path, [])


# Intervals and claims


def done_with_counts(folder, arm, *confusions, seed=0):
    """A finished run whose images have these confusion matrices."""
    run = done(folder, arm, sum(map(np.array, confusions)).tolist(), seed)
    counts = [metrics.image_counts(np.array(one)) for one in confusions]
    ids = tuple(f"image{k}" for k in range(len(confusions)))
    path = run_folder.per_image_file(run.run, None)
    per_image = run_folder.PerImage(ids, *np.stack(counts, axis=1))
    run_folder.write_per_image(path, per_image)
    return run


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
        done_with_counts(folder, ARM, *[POOR] * 8),
        done_with_counts(folder, WEIGHTED, *[GOOD] * 8),
        failed(folder, LOST),
    ]
    stage = stage_of(results, claims=CLAIMS)
    with pytest.MonkeyPatch.context() as monkeypatch:
        leave_undrawn(monkeypatch)
        return folder, written_page(folder, stage), answer(stage)


def test_interval_stands_below_the_difference(claimed):
    folder, page, said = claimed
    interval = f"{GAIN}[{GAIN},\u00a0{GAIN}]"
    miou = "69.66over 3 of 4 classes"
    assert page.row(EVIL)[:3] == [f"{EVIL} winner 1 seed", miou, interval]
    few = "ahead on these images, which are too few to tell"
    assert f"is {few}: the 95 % interval of the difference is {GAIN} to {GAIN}" in said
    assert "covers the choice of 8 images, not the randomness of training." in said
    # The base is the runner-up, and any of the images choose the same arm.
    corrected = page.row("winner against Normal, corrected for the choice")
    assert corrected[1:] == [interval, "–", "–", "–", "–"]
    # All names exchanged or none: 2 of the 2**8 exchanges are as far apart
    assert page.row(f"{EVIL} against Normal")[3] == "images 0.008"
    assert not any("against the runner-up" in cells[0] for cells in page.rows)
    line = read_csv(folder / "tables/weighting.csv")[1]
    assert line["certainty"] == line["winner"] == few
    assert float(line["p"]) < 0.001
    for name in ("difference_to_base", "interval_low", "interval_high"):
        assert float(line[name]) == pytest.approx(GOOD_MIOU - POOR_MIOU)


def study_of(folder, seeds, images, gain, **more):
    """Three arms on the same images; each finds so much more than the one before."""
    results = []
    truth = np.random.default_rng(0).integers(50, 90, (images, 4))
    for number, arm in enumerate((ARM, WEIGHTED, LOST)):
        for seed in range(seeds):
            rng = np.random.default_rng([number, seed])
            found = 0.4 + gain * number + rng.uniform(-0.1, 0.1, (images, 4))
            hits = (truth * found).astype(int)[..., None] * np.eye(4, dtype=int)
            missed = (truth - hits.sum(-1))[..., None] * np.eye(4, dtype=int)
            confusions = hits + np.roll(missed, 1, axis=-1)
            results.append(done_with_counts(folder, arm, *confusions, seed=seed))
    return stage_of(results, **more)


@pytest.mark.parametrize(
    ("seeds", "images", "words"),
    [
        (3, 24, "clearly ahead"),
        (1, 24, "ahead on these images; another start may turn it around"),
        (3, 4, "ahead on these images, which are too few to tell"),
        (1, 4, "ahead on these images, which are too few to tell"),
    ],
)
def test_one_seed_or_few_images_are_never_clear(
    tmp_path, undrawn, seeds, images, words
):
    claims = (Claim("weighting helps", "w1", "normal", "higher"),)
    page = written_page(tmp_path, study_of(tmp_path, seeds, images, 0.2, claims=claims))

    pair = f"{EVIL} against Normal"
    row = page.row(pair)
    assert row[0] == pair + ("1 seed" if seeds == 1 else "3 seeds")
    if seeds > 1:  # 2 of the 20 ways to choose three trainings of six
        assert row[3].endswith("seeds 0.100")
    assert (row[4] == "–") == (seeds == 1)  # the chance that it beats the base
    assert row[5] == words
    assert page.row("=W2 winner")[0].endswith(wording.count(seeds, "seed"))
    shown = " ".join(page.texts)
    assert words in shown
    assert ("clear" in shown) == words.startswith("clear")
    lines = read_csv(tmp_path / "tables/weighting.csv")
    assert {line["winner"] for line in lines} - {"", None} == {words}
    assert page.row("Weighting helps")[2] == "as the document says so far"


def test_the_table_of_comparisons(tmp_path, undrawn):
    """Simultaneous intervals, and the lead as measured beside the corrected one."""
    stage = study_of(tmp_path, 3, 24, 0.2)
    page, said = written_page(tmp_path, stage), answer(stage)

    evidence = StageView(stage, CONTEXT).evidence
    assert list(evidence.pairs) == [("w1", "normal"), ("w2", "normal"), ("w2", "w1")]
    for (ours, base), each in evidence.pairs.items():
        titles = {"normal": "Normal", "w1": EVIL, "w2": "=W2"}
        row = page.row(f"{titles[ours]} against {titles[base]}")
        ends = f"[{wording.points(each.low)},\u00a0{wording.points(each.high)}]"
        assert row[1].endswith(ends)
        low, high = each.comparison.interval()
        assert high - low < each.high - each.low
    assert f"[{tables.points(evidence.lead.low)}" in page.row("=W2 winner")[2]
    winner = evidence.winner
    for title, plain, found in (
        ("Normal", evidence.lead, winner.corrected_over_base),
        ("the runner-up", evidence.pairs["w2", "w1"], winner.corrected_over_runner_up),
    ):
        low, high = map(wording.points, found.interval(1 - 0.05 / 3))
        lead = wording.points(found.difference)
        row = page.row(f"winner against {title}, corrected for the choice")
        assert row[1] == f"{lead}[{low},\u00a0{high}]"
        assert f"{lead} points [{low},\u00a0{high}] over {title}" in said
        assert wording.points(plain.comparison.difference).lstrip("+") in said
    assert "for 3 comparisons at once, covers the choice of 24 images" in " ".join(
        page.texts
    )
    assert "a new training of =W2 beats one of Normal with a chance of" in said


@pytest.mark.parametrize(
    ("seeds", "expected"),
    [
        (1, "to decide, train at least two seeds of each arm"),
        (3, "to decide a difference of this size: "),
    ],
)
def test_what_would_decide_an_open_verdict(tmp_path, undrawn, seeds, expected):
    page = written_page(tmp_path, study_of(tmp_path, seeds, 24, 0.004))
    shown = " ".join(page.texts)
    assert f". {expected[:1].upper()}{expected[1:]}" in shown
    assert "Which of the two is better is open:" in shown
    cell = page.row(f"{EVIL} against Normal")[5]
    assert cell == "open" if seeds == 1 else cell.startswith(f"open{expected}")


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ([0.4], None),
        ([0.3, 0.4], True),
        ([0.4, 0.4], False),
        ([0.1, 0.2, 0.3, 0.303], False),  # by less than 1 % of 0.303
        ([0.1, 0.2, 0.3, 0.304], True),
        ([0.1, 0.4, 0.3, 0.39], False),  # the best was earlier
        ([0.1, 0.2, 0.3, 0.3, 0.31, 0.31, 0.32, 0.31], True),  # 0.315 after 0.31
        ([0.1, 0.2, 0.3, 0.3, 0.31, 0.32, 0.321, 0.31], False),  # 0.3155 after 0.315
    ],
)
def test_which_arms_still_improve(curve, expected):
    run = ArmResult(ARM, 0, Path(), "done", history=[{"val_miou": v} for v in curve])
    assert scores.still_improving([run]) is expected
    # One seed rises as the other falls: their mean stays
    turned = [{"val_miou": 1 - v} for v in curve]
    assert not scores.still_improving([run, replace(run, history=turned)])


def test_how_far_it_was_trained(tmp_path, undrawn):
    """32 x 48 px, 40 steps of 16 images of 100: 6.4 epochs."""
    given = replace(CONTEXT, images={"train": 100, "val": 24})
    stage = study_of(tmp_path, 2, 24, 0.2)
    flat = [
        replace(run, history=[row | {"val_miou": 0.5} for row in run.history])
        if run.arm is ARM
        else replace(run, metrics={**run.metrics, "step": 20 * (1 + run.seed)})
        for run in stage.results
    ]
    page = written_page(tmp_path, replace(stage, results=tuple(flat)), given)
    facts = "Images of 32 x 48 px; 40 steps of 16 images: 6.4 epochs of 100 training "
    assert f"{facts}images, 24 validation images." in page.texts
    place = page.row("Arm").index("kept step")
    assert page.row("Normal base")[place] == "40of 40"
    assert page.row("=W2 winner")[place] == "20, 40of 40; still improving"
    said = answer(replace(stage, results=tuple(flat)), given)
    assert "2 of 3 arms were still improving at the last step: their order may" in said
    lines = read_csv(tmp_path / "tables/weighting.csv")
    assert [line["kept_step"] for line in lines[:4]] == ["40", "40", "20", "40"]


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        # 40 steps of 16 images are 640: 40 and 16 are seen 16 and 40 times
        ((40, 40), "16 epochs of 40 training images"),
        ((40, 16), "16 to 40 epochs of 16 to 40 training images"),
        ((None, 40), "6.4 to 16 epochs of 40 to 100 training images"),
        ((200, None), "6.4 epochs of 100 training images"),  # more than there are
    ],
)
def test_epochs_are_of_the_images_that_were_used(samples, expected):
    runs = []
    for number in samples:
        config = ARM.config.changed(data={"samples": number})
        runs.append(ArmResult(replace(ARM, config=config), 0, Path(), "done"))
    given = replace(CONTEXT, images={"train": 100, "val": 24})
    text = report._length(runs, given)
    assert text.endswith(f"images: {expected}, 24 validation images.")


def test_a_claim_is_so_far_while_its_arms_still_improve(tmp_path, undrawn):
    claims = (Claim("weighting helps", "w1", "normal", "higher"),)
    stage = study_of(tmp_path, 3, 24, 0.2, claims=claims)
    ended = [
        replace(run, history=[row | {"val_miou": 0.5} for row in run.history])
        for run in stage.results
    ]
    for results, scale, expected in (
        (stage.results, "bench", "as the document says so far"),
        (stage.results, "paper", "holds"),
        (ended, "bench", "holds"),
    ):
        view = StageView(
            replace(stage, results=tuple(results)), replace(CONTEXT, scale=scale)
        )
        (found,) = findings(view)
        assert found.verdict == expected


def test_what_the_winner_costs(tmp_path):
    """It finds more of everything in twice the time, with 3 times the parameters."""
    results = [done(tmp_path, ARM, POOR), done(tmp_path, WEIGHTED, GOOD, minutes=4.0)]
    results[1].metrics["parameters"] = {"trainable": 3 * 1234567}
    said = answer(stage_of(results))
    assert (
        f"Against Normal, {EVIL} costs 3 times the parameters, 2 times the training "
        "time and 2 times the time per image." in said
    )
    results[1] = done(tmp_path / "same", WEIGHTED, GOOD)
    said = answer(stage_of(results))
    assert f"Against Normal, {EVIL} costs nothing: no other score" in said


# Rows are the truth.
EVEN = [[60, 30], [0, 10]]  # accuracy 70 %, mIoU (60/90 + 10/40) / 2 = 45.8 %
LARGE = [[90, 0], [10, 0]]  # accuracy 90 %, mIoU (90/100 + 0) / 2 = 45 %


def test_a_score_that_the_winner_loses_is_named(tmp_path):
    results = [
        done_with_counts(tmp_path, arm, *[counts] * 24, seed=seed)
        for arm, counts in ((ARM, LARGE), (WEIGHTED, EVEN))
        for seed in range(2)
    ]
    given = replace(CONTEXT, names=("a", "b"), palette=CONTEXT.palette[:2])
    given = replace(given, train_pixels=[9, 1], flip_pairs=())
    said = answer(stage_of(results), given)
    assert "costs 20.00 points of accuracy (clearly behind)" in said
    assert "mean class accuracy" not in said  # (60/90 + 1) / 2 against 50 %


def test_the_step_is_chosen_anew_from_the_validations_that_were_kept(tmp_path):
    """As `find_winner` does with all steps' counts; not without the best step's."""
    stage = study_of(tmp_path, 2, 24, 0.02)
    rng, counts, kept = np.random.default_rng(5), {}, {}
    for run in stage.results:
        final = run_folder.read_per_image(run.run)
        final = np.stack([final.intersection, final.truth, final.predicted])
        early = final.copy()
        early[0] = np.rint(final[0] * rng.uniform(0.9, 1.1, final[0].shape))
        early[0] = np.minimum(early[0], np.minimum(final[1], final[2]))
        kept.setdefault(run.arm.name, []).append(np.stack([early, final]))
        counts.setdefault(run.arm.name, []).append(final)
        ids = tuple(f"image{k}" for k in range(24))
        for step, arrays in ((20, early), (40, final)):
            path = run_folder.validation_file(run.run, step)
            path.parent.mkdir(exist_ok=True)
            run_folder.write_per_image(path, run_folder.PerImage(ids, *arrays))

    def corrected():
        evidence = StageView(stage, CONTEXT).evidence
        return evidence.winner, evidence.grouping

    found, grouping = corrected()
    expected = find_winner(kept, "normal", grouping)
    plain = find_winner(counts, "normal", grouping)
    lead = found.corrected_over_base.difference
    assert lead == pytest.approx(expected.corrected_over_base.difference)
    assert lead != pytest.approx(plain.corrected_over_base.difference, abs=1e-6)
    for run in stage.results:
        run_folder.keep_validations(run.run, [20])
    found, _ = corrected()
    assert found.corrected_over_base.difference == pytest.approx(
        plain.corrected_over_base.difference
    )


def test_equal_results_give_equal_reports(tmp_path, undrawn):
    stage = study_of(tmp_path, 2, 24, 0.2)
    contents = []
    for _ in range(2):
        written_page(tmp_path, stage)
        names = ("report.html", "report.md", "tables/weighting.csv")
        contents.append([(tmp_path / name).read_bytes() for name in names])
    assert contents[0] == contents[1]


def test_claims_are_held_against_the_runs(claimed):
    folder, page, said = claimed
    # The claimed lower mIoU is higher; the gap is 4 points in both arms (`history`).
    starts = "Weighting hurts", "It narrows", "W2 is like none"
    hurts, gap, same = (page.row(text) for text in starts)
    assert hurts[0] == f"Weighting hurtsmIoU lower: {EVIL} against Normal (1 seed)"
    assert hurts[2] == "against it so far"
    assert "train\u00a0−\u00a0val lower" in gap[0]
    assert gap[1:] == ["+0.00", "against it so far"]
    assert same[0].endswith("mIoU about the same: =W2 against Normal")
    assert same[1:] == ["–", "not run"]
    assert "The document's 3 claims: “weighting hurts”: against it so far;" in said
    assert "“W2 is like none” was not run." in said
    lines = read_csv(folder / "tables/weighting-claims.csv")
    verdicts = [line["verdict"] for line in lines]
    assert verdicts == [hurts[2], gap[2], "not run", "seems to hold"]
    assert [line["source"] for line in lines] == ["document"] * 3 + ["ours"]
    assert float(lines[0]["interval_low"]) > 0
    assert lines[2]["difference"] == lines[2]["interval_low"] == ""


EVERY_KIND = (  # POOR is Normal, GOOD is W1; see the numbers above
    ("w1 > 3 * normal", {}, "× 3.07", "holds"),  # (3511 / 5040) / (49 / 216)
    ("w1 = 3 * normal", {}, "× 3.07", "holds"),  # within 0.3
    ("w1 = 2 * normal", {"margin": 0.5}, "× 3.07", "does not hold"),
    ("normal < 0.5 * w1", {}, "× 0.326", "holds"),
    ("w1 = normal", {}, "+46.98", "does not hold"),
    ("w1 = normal", {"margin": 0.5}, "+46.98", "holds"),
    ("w1 <= normal", {"metric": "iou right|arm"}, "+43.75", "does not hold"),
    ("w1 >= normal", {"metric": "iou =left"}, "+56.07", "holds"),  # 24/35 - 5/40
    ("w1 >= normal", {"metric": "recall =left"}, "+63.33", "holds"),  # 24/30 - 5/30
    ("w1 >= normal", {"metric": "precision =left"}, "+49.43", "holds"),
    ("w1 > normal", {"metric": "iou never"}, "–", "not measured"),
    ("w1 > normal", {"metric": "iou of nobody"}, "–", "not measured"),
    ("w1 > 1.5 * normal", {"metric": "iou right|arm"}, "–", "not measured"),  # by 0
    ("w1 > normal", {"metric": "train_loss_fall"}, "+50.00", "holds"),  # 3/4 - 1/4
    ("w1 < normal", {"metric": "train_loss_fall"}, "+50.00", "does not hold"),
    ("long/winner >= w1", {}, "+0.00", "holds"),
    ("long/winner > w1", {}, "+0.00", "does not hold"),
    ("long/winner > normal", {}, "+46.98", "holds"),
    ("weighting/winner = w1", {}, "+0.00", "holds"),
    ("w1@test = w1@val", {}, "−46.98", "does not hold"),
    ("w1@test >= w1", {"margin": 0.47}, "−46.98", "holds"),
    ("w1 > normal@test", {}, "–", "not run"),
    ("other/w1 > normal", {}, "–", "not run"),
)


@pytest.fixture(scope="module")
def every_kind(tmp_path_factory):
    """Three alike trainings of two arms and of another stage's, with test images."""
    folder, images = tmp_path_factory.mktemp("kinds"), 24
    results = []
    for seed in range(3):
        for arm, counts, last in ((ARM, POOR, 0.75), (WEIGHTED, GOOD, 0.25)):
            run = done_with_counts(folder, arm, *[counts] * images, seed=seed)
            losses = [row | {"loss": loss} for row, loss in zip(run.history, (1, last))]
            results.append(replace(run, history=losses))
        place = run_folder.evaluation_file(run.run, "test")  # of W1
        place.parent.mkdir()
        found = metrics.scores(images * np.array(POOR), None)
        found |= {"split": "test", "full_size": False, "manifest": "9f"}
        storage.write_json(place, {**run.metrics, **found})
        counts = np.stack([metrics.image_counts(np.array(POOR))] * images, axis=1)
        ids = tuple(f"test{k}" for k in range(images))
        path = run_folder.per_image_file(run.run, "test")
        run_folder.write_per_image(path, run_folder.PerImage(ids, *counts))
        storage.write_json(run.run / "metrics.json", run.metrics)
    long = [
        done_with_counts(
            folder / "long", replace(ARM, name="winner"), *[GOOD] * images, seed=seed
        )
        for seed in range(3)
    ]
    made = tuple(
        claim(f"claim {number} holds", comparison, **how)
        for number, (comparison, how, *_) in enumerate(EVERY_KIND)
    )
    stages = [stage_of(results, claims=made), stage_of(long, "long")]
    with pytest.MonkeyPatch.context() as monkeypatch:
        leave_undrawn(monkeypatch)
        return folder, written_page(folder, stages, PAPER)


@pytest.mark.parametrize("number", range(len(EVERY_KIND)))
def test_every_kind_of_claim(every_kind, number):
    folder, page = every_kind
    comparison, how, found, verdict = EVERY_KIND[number]
    row = page.row(f"Claim {number} holds")
    assert row[1].startswith(found)
    assert row[2] == verdict
    line = read_csv(folder / "tables/weighting-claims.csv")[number]
    assert line["verdict"] == verdict
    assert line["margin"] == str(how.get("margin", ""))


def test_a_claims_sides_and_margin_are_named(every_kind):
    _, page = every_kind
    small = {
        1: f"mIoU 3 times as high (± 0.3): {EVIL} against Normal (3 seeds)",
        5: f"mIoU about the same (within 50 points): {EVIL} against Normal (3 seeds)",
        6: f"IoU of right|arm not higher: {EVIL} against Normal (3 seeds)",
        15: f"mIoU not lower: Normal (stage long) against {EVIL} (3 seeds)",
        19: f"mIoU about the same: {EVIL} (test images) against {EVIL} (validation "
        "images) (3 seeds)",
    }
    for number, text in small.items():
        title = f"Claim {number} holds"
        assert page.row(title)[0].removeprefix(title) == text
    assert "fall of the training loss\u00a0%" in page.row("Arm")


def test_what_no_document_says_stands_apart(claimed):
    folder, page, sentences = claimed
    for text in ((folder / f"report.{end}").read_text() for end in ("html", "md")):
        said, asked = "Claims of the document", "Our hypotheses"
        assert text.count(said) == text.count(asked) == 1
        ours = text.index("The labels put right, it helps")
        claim = text.index("W2 is like none", text.index(said))
        assert text.index(said) < claim < text.index(asked) < ours
    assert page.row("Hypothesis")[2] == "verdict"
    # With what was found, in the verdict of the stage.
    seems = "Our own hypothesis “the labels put right, it helps” seems to hold."
    assert seems in sentences


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
        done_with_counts(tmp_path, ARM, *[POOR] * 8),
        done_with_counts(tmp_path, WEIGHTED, *[GOOD] * 8),
    ]
    (results[0].run / "per_image.npz").write_bytes(b"PK\x03\x04")

    page = written_page(tmp_path, stage_of(results))

    assert any(text.startswith("No interval: ") for text in page.texts)
    assert page.row(EVIL)[2] == GAIN


def test_iou_per_batch_by_hand(tmp_path):
    """VOC07's average: of 5 images in batches of 4, the last one is a batch alone."""
    run = done_with_counts(tmp_path, ARM, *[POOR] * 4, GOOD)
    expected = (POOR_MIOU + GOOD_MIOU) / 2
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
    # F1 of an unknown kind has a table of its own, not a place beside ours.
    printed |= {"f1_unknown": 88.17}
    run = done(tmp_path, replace(ARM, published=printed), GOOD)
    given = replace(CONTEXT, scale=scale, datasets=of_study)

    page = written_page(tmp_path, stage_of([run], datasets=of_stage), given)

    # IoU of class 2: 7 of 10 + 13 - 7; this table is the first, as it is printed.
    number = page.row("right|arm")[2]
    assert number == "43.8" + ("published 3.25" if is_shown else "")
    assert "IoU of each class (%)" in page.folded
    foreground = "F1 of the foreground\u00a0%"
    (header,) = (cells for cells in page.rows if foreground in cells)
    normal = page.row("Normal")
    number = normal[header.index(foreground)]
    assert number == "75.61" + ("published 41.5 ± 0.5" if is_shown else "")
    assert normal[header.index("macro F1\u00a0%")] == "80.18"
    unknown = ["Arm", "F1 (of which kind is unknown)\u00a0%"]
    assert (unknown in page.rows) == (["Normal", "88.17"] in page.rows) == is_shown


def test_jump_at_half_of_the_steps(tmp_path):
    """Of 200 steps, scored every 10: two validations to either side of step 100."""
    run = done(tmp_path, ARM, GOOD)
    rows = [{"step": k, "val_miou": 0.001 * k} for k in range(10, 201, 10)]
    for row in rows[10:]:
        row["val_miou"] += 0.3
    rows[8]["val_miou"] = 0.09 - 0.02  # of step 90
    # (0.41 + 0.42) / 2 - (0.07 + 0.1) / 2
    assert scores.jump(replace(run, history=rows)) == pytest.approx(0.33)
    # Every 50 steps: step 150 against step 100
    few = [{"step": k, "val_miou": 0.01 * k} for k in (50, 100, 150, 200)]
    assert scores.jump(replace(run, history=few)) == pytest.approx(0.5)
    assert math.isnan(scores.jump(replace(run, history=rows[:1])))


@pytest.mark.parametrize("kept", [True, False])
def test_pictures_are_of_the_images_that_were_scored(tmp_path, kept):
    run = done(tmp_path, ARM, GOOD, split="test")
    if kept:
        with np.load(run.run / "samples.npz") as samples:
            arrays = dict(samples) | {"ids": np.array(["t1", "t2", "t3"])}
        (run.run / "evaluation").mkdir()
        np.savez(run.run / "evaluation" / "test-samples.npz", **arrays)
    _, caption, grid = charts.pictures(
        StageView(stage_of([run], split="test"), CONTEXT)
    )
    if kept:
        assert caption.text == "Some of the test images."
        assert [row[0] for row in grid.rows] == ["t1", "t2", "t3"]
    else:  # by a version that kept those of validation only
        said = "validation images. Those that the scores are on were not kept."
        assert caption.text == f"Some of the {said}"
        assert [row[0] for row in grid.rows] == ["one", "two", EVIL]


ALTERED = "the scores are at 24 x 40 px instead of 1024 x 2048 px"


@pytest.mark.parametrize("altered", ["", ALTERED])
def test_rows_of_other_authors_studies_and_why_nothing_published_is_shown(
    tmp_path, undrawn, altered
):
    run = done(tmp_path, replace(ARM, published={"miou": 82.9}), GOOD)
    others = {"Li et al.": {"mean_accuracy": 88.1, "miou": 81.2}}
    given = replace(PAPER, altered={"weighting": altered})

    page = written_page(tmp_path, stage_of([run], others=others), given)

    texts = " ".join(page.texts)
    said = f"Not comparable with the published numbers: {ALTERED}."
    assert (said in texts) == bool(altered)
    header = next(cells for cells in page.rows if "mIoU\u00a0%" in cells)
    # GOOD has a mIoU of 69.66 % and a mean class accuracy of 82.22 %
    above = "compares itself with, Normal is above 0 of 1 in mIoU."
    assert (above in texts) == (altered == "")
    row = [cells for cells in page.rows if cells[0] == "published: Li et al."]
    assert ("published mIoU\u00a0%" in header) == bool(row) == (altered == "")
    if row:
        filled = {a: text for a, text in zip(header, row[0]) if text not in ("", "–")}
        assert filled == {
            "Arm": "published: Li et al.",
            "published mIoU\u00a0%": "81.2",
            "mean class accuracy\u00a0%": "88.1",
        }


@pytest.mark.parametrize(
    ("measured", "size", "words"),
    [
        ({}, (24, 40), "on the validation images, at 32 x 48 px."),
        ({"split": "test"}, None, "on the test images, at 32 x 48 px."),
        ({"full_size": True}, (24, 40), "at the size of each label, 24 x 40 px."),
        ({"full_size": True}, None, "at the size of each label."),
    ],
)
def test_the_report_says_at_which_size_was_scored(
    tmp_path, undrawn, measured, size, words
):
    run = done(tmp_path, ARM, GOOD, **measured)
    given = replace(CONTEXT, image_size=size)
    page = written_page(tmp_path, stage_of([run]), given)
    (source,) = (text for text in page.texts if "Stage weighting;" in text)
    assert source.endswith(words)
    other = replace(ARM, name="large", config=BASE.changed(data={"size": (64, 96)}))
    both = stage_of([run, done(tmp_path, other, GOOD, **measured)])
    texts = " ".join(written_page(tmp_path, both, given).texts)
    sizes = "each arm at its own size, 32 x 48 px and 64 x 96 px."
    assert (sizes in texts) == ("full_size" not in measured)


@pytest.mark.parametrize("scale", ["demo", "paper"])
def test_a_stage_on_other_data_than_it_asks_about(tmp_path, scale):
    results = [done(tmp_path, ARM, POOR)]
    given = replace(CONTEXT, scale=scale, datasets=("camvid", "surreal"))

    said = [
        answer(stage_of(results, datasets=datasets), given)
        for datasets in (("surreal", "atr"), ("surreal", "camvid"), ())
    ]

    other = "The question is about surreal and atr; these runs are on camvid."
    assert [other in sentences for sentences in said] == [True, False, False]


# Networks, curves, sheets, export


def figures_in(folder: Path) -> set[str]:
    return {path.name for path in (folder / "figures").iterdir()}


def test_curves_that_the_stage_names(tmp_path, undrawn):
    arms = ARM, replace(WEIGHTED, config=BASE.changed(net="unet"))
    runs = [done(tmp_path, arm, POOR) for arm in arms]
    rows = [row | {"val_f1_micro_fg": 0.25} for row in runs[0].history]
    runs[0] = replace(runs[0], history=rows)
    stage = stage_of(runs, curves=("f1_micro_fg", "precision_micro_fg"))

    page = written_page(tmp_path, stage)

    names = figures_in(tmp_path)
    assert "weighting-val-f1-micro-fg.png" in names
    assert not [name for name in names if "precision" in name or "val-miou" in name]
    assert any(text.startswith("Networks icnet, unet on camvid") for text in page.texts)


def test_sheets_or_why_they_are_left_out(tmp_path, undrawn):
    """Four classes and no joints: neither sheet; then SURREAL's levels and joints."""
    net = {"name": "hourglass", "targets": "hierarchy", "stacks": 2}
    arm = Arm("hierarchy", "Coarse to fine", BASE.changed(net=net))
    stage = stage_of([failed(tmp_path, arm)], sheets=("hierarchy", "joints"))
    images = np.zeros((24, 36, 3), np.uint8), np.ones((24, 36), np.uint8)
    surreal = replace(
        CONTEXT,
        names=[f"part {k}" for k in range(25)],
        palette=[(9 * k, 7, k) for k in range(25)],
        train_pixels=[1] * 25,
        examples=[Example("one", *images, np.full((24, 2), 3.0, np.float32))],
    )

    page = written_page(tmp_path / "without", stage)
    assert len([text for text in page.texts if "is left out" in text]) == 2
    assert "No arm has finished, so there is no answer yet." in page.texts

    page = written_page(tmp_path, stage, surreal)
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
    record = {"size": [32, 48], "check": check, "run": {}}
    storage.write_json(folder / "export.json", record)
    contents = []
    for _ in range(2):
        written_page(tmp_path, stage_of([run], exports=exports))
        contents.append(
            [(tmp_path / f"report.{e}").read_text() for e in ("html", "md")]
        )

    text = contents[0][1].replace("\\", "")
    assert ("normal/seed0/export/saved_model is a SavedModel" in text) == exports
    assert ("differ from the network's by at most 2.5e-07" in text) == exports
    assert contents[0] == contents[1]  # equal results give equal reports


def test_arms_of_different_environments_are_said_so(tmp_path):
    runs = [done(tmp_path, ARM, POOR), done(tmp_path, WEIGHTED, GOOD)]
    for run, cpu in zip(runs, ("A", "A")):
        record = {"fingerprint": {"cpu": cpu, "threads": 2}, "data": "d"}
        storage.write_json(run.run / "environment.json", record)
    assert "in one environment" not in answer(stage_of(runs))
    record = {"fingerprint": {"cpu": "B", "threads": 4}, "data": "d"}
    storage.write_json(runs[1].run / "environment.json", record)
    said = answer(stage_of(runs))
    assert "The arms were not trained in one environment (cpu and threads" in said


def test_the_answer_knows_the_other_stages_that_claims_name(tmp_path, undrawn):
    of_text = claim("the long one is better", "long/winner > normal")
    stages = [
        stage_of([done(tmp_path, ARM, POOR)], claims=(of_text,)),
        stage_of([done(tmp_path / "long", replace(ARM, name="winner"), GOOD)], "long"),
    ]

    alone, said = (
        report.write(tmp_path, title="A", stages=some, context=CONTEXT).answers[
            "weighting"
        ]
        for some in (stages[:1], stages)
    )

    assert "“the long one is better” was not run." in alone
    assert "was not run" not in said
    assert "“the long one is better”" in said
