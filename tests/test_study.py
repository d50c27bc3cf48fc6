"""keras_seg/study.py: from a command line to a request, from a request to a report."""

import dataclasses
import hashlib
import json
from pathlib import Path

import miniatures
import pytest

import keras_seg
from keras_seg import command_line
from keras_seg import study as studies
from keras_seg.ablation import estimate, grid, protocol, runner
from keras_seg.ablation.protocol import ArmResult, DataFacts, StageResult
from keras_seg.data.prepared import open_prepared
from keras_seg.data.surreal.parts import GROUPS, LABELS14
from keras_seg.errors import ArmsFailedError, UsageError
from keras_seg.report import context, page
from keras_seg.report.view import StageView
from keras_seg.runs import executors
from keras_seg.study import Request

FACTS = DataFacts(image_size=(40, 48), train_images=6)


@pytest.fixture(scope="module")
def body():
    return studies.load("body_parts")


def test_a_request_is_made_once_from_the_command_line():
    words = ["--net", "icnet", "--stage", "filters", "--size", "64", "96"]
    words += ["--set", "optimizer.lr=0.5", "--set", "loss.weights=w1", "--seeds", "3"]
    assert studies.parse([*words, "--plan"], "run") == Request(
        net="icnet",
        stage="filters",
        size=(64, 96),
        settings={"optimizer.lr": 0.5, "loss.weights": "w1"},
        seeds=3,
        action="plan",
        command=f"run {' '.join(words)} --plan",
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        Request().seeds = 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--set steps", "PART.NAME=VALUE"),
        ("--set seed=3", "cannot change the seed or the network"),
        ("--set net=unet", "cannot change the seed or the network"),
        ("--set data.size=[9,9] --size 9 9", "both name a size"),
    ],
)
def test_settings_that_a_study_cannot_take(words, message):
    with pytest.raises(UsageError, match=message):
        studies.parse(words.split(), "run")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--net icnet", "--stage is missing.* search, filters, .*, all, compare"),
        ("--stage all", "--net is missing.*: icnet, segnet_basic, hourglass.$"),
        ("--net lenet --stage all", "lenet .*body_parts: icnet, segnet_basic, hourgla"),
        ("--net unet --stage all", "unet is not in this study.*: icnet, segnet_basic"),
        ("--net icnet --stage colour", "--stage colour .* icnet .*: search, filters,"),
        ("--study cats --stage all", "no study 'cats'. Studies: attention_fcn, body_"),
        ("--study cats.py --stage all", "no study 'cats.py'"),
        ("--study camvid --net unet --stage all", "unet is not .*: segnet_basic, seg"),
        ("--study clothing --net unet --stage all", "unet cannot be run alone"),
        ("--net icnet --stage compare", "takes every network: leave --net out"),
        ("--net icnet --stage all --set loss.weight=w1", "'loss.weight'"),
        ("--net icnet --stage all --size 100 128", "icnet .*100 x 128.* 128 x 128"),
        ("--net icnet --stage filters --winner w1_outer", "w1_outer is not an arm"),
    ],
)
def test_what_does_not_exist_is_named(words, message):
    with pytest.raises(UsageError, match=message):
        list(studies.planning(studies.parse([*words.split(), "--plan"], "run")))


def test_json_is_refused_without_a_plan():
    with pytest.raises(UsageError, match="--json goes with --plan"):
        studies.parse("--net icnet --stage filters --json".split(), "run")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--folds 1", "--folds is 1; each fold is held out"),
        ("--folds 3 --set data.folds=2", "--folds K trains every arm once for each"),
        ("--folds 3 --set data.fold=2", "--folds K trains every arm once for each"),
        ("--folds 3 --vary data.fold=0,1", "--vary cannot take data.fold: --folds K"),
        ("--folds 17 --vary data.batch=2,4", "17 folds .* has 16 .* Choose at most 16"),
        ("--folds 2 --stage compare", "final is scored on the test images, but --fold"),
        ("--folds 2 --net icnet --stage all", "final is scored on the test images"),
    ],
)
def test_folds_that_cannot_be_are_refused(words, message, shapes):
    words = f"{words} --steps 2" if "--vary" in words else words
    argv = [*words.split(), "--plan", "--data", str(shapes)]
    with pytest.raises(UsageError, match=message):
        list(studies.planning(studies.parse(argv, "run")))


def test_a_plan_with_folds_says_how_many_trainings_there_are(shapes):
    words = "--net icnet --stage filters --folds 4 --plan --json".split()
    first, *arms = studies.planning(
        studies.parse([*words, "--data", str(shapes)], "run")
    )
    assert first.endswith(f" 4 folds: {4 * len(arms)} trainings per seed.")
    assert all('"folds": 4' in line and '"fold"' not in line for line in arms)


def test_a_study_without_its_data_says_which_it_wants():
    with pytest.raises(UsageError, match="--data is missing. .*voc2007 wants voc2007"):
        studies.run(Request(study="voc2007", stage="table4"))


def test_a_size_that_an_arm_cannot_take_is_refused_before_it_is_trained(tmp_path):
    data = miniatures.shapes(tmp_path / "shapes")
    request = Request(
        study="voc2007",
        stage="table4",
        scale="smoke",
        size=(64, 64),
        data=data,
        out=tmp_path / "out",
    )
    with pytest.raises(UsageError, match=r"unet_valid .*64 x 64"):
        studies.run(request)
    settings = {"net.filtres": 2}
    with pytest.raises(UsageError, match="filtres"):
        studies.run(dataclasses.replace(request, size=None, settings=settings))
    assert [entry.name for entry in tmp_path.iterdir()] == ["shapes"]


def test_settings_change_the_base_of_every_arm(body):
    request = Request(
        net="icnet", stage="weighting", settings={"optimizer.lr": 0.5}, action="plan"
    )
    (part,) = studies.choose(request, body, None)
    assert part.base.optimizer.lr == 0.5
    arms = part.stages[0].arms(part.base)
    assert {arm.config.optimizer.lr for arm in arms} == {0.5}


@pytest.mark.parametrize(
    ("study", "net", "stage"),
    [("camvid", "networks", "networks"), ("body_parts", "icnet", "filters")],
)
def test_a_network_that_may_be_named(study, net, stage):
    request = Request(study=study, net=net, stage=stage, action="plan")
    (part,) = studies.choose(request, studies.load(study), None)
    assert (part.net, part.stages[0].name) == (net, stage)


def test_the_list_shows_published_numbers_and_counts_seeds(capsys, monkeypatch):
    monkeypatch.setattr(estimate, "machine_speed", lambda: 20.0)
    monkeypatch.setattr(estimate, "seconds", lambda *_: 120.0)
    assert studies.main(["--list", "--seeds", "3"]) == 0
    listed = capsys.readouterr().out
    # CLOTH Table 1, ATTN Table 2, BODY Table 1 (whose groups are left out)
    table_1 = "(published two-class IoU 73.1 %, precision of the foreground 56.5 %, "
    assert f"unet_bn_focal: U-Net BN, focal  {table_1}" in listed
    both = "(published mean class accuracy 90.7 %, mIoU 82.9 %)"
    assert f"fcn_attention: FCN with attention  {both}" in listed
    assert "normal: Normal  (published mIoU 38.19 %, accuracy 9" in listed
    assert "(published mIoU 38.2 %, mean class accuracy 48.7 %)" in listed
    assert "fcn_ce: FCN, cross-entropy\n" in listed
    assert "--net icnet --stage weighting" in listed
    # Two arms of two minutes
    assert "3 seeds, one run at a time" in listed
    assert "doubling every convolution's filters help? (about 12 min 00 s)" in listed


OWN = """
from keras_seg.ablation.protocol import Arm, DataFacts, Plan, Stage, Study
from keras_seg.config import Config

STAGE = Stage("one", "Which?", "mine", lambda base: [Arm("plain", "Plain", base)])
BASE = Config(net="icnet", data={"size": (32, 64)}, steps=2)
PLAN = Plan(lambda data: BASE, (STAGE,))
STUDY = Study("own", "My own", (), DataFacts((32, 64), 10), {"icnet": PLAN})
"""


def test_the_list_without_a_checkout(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(studies, "STUDIES", tmp_path / "nowhere")
    monkeypatch.setattr(studies, "COSTS", tmp_path / "nowhere.csv")
    monkeypatch.setattr(estimate, "machine_speed", lambda: 20.0)
    assert studies.main(["--list"]) == 0
    assert "are in a checkout of the project" in capsys.readouterr().out
    own = tmp_path / "own.py"
    own.write_text(OWN)
    assert studies.main(["--study", str(own), "--list"]) == 0
    listed = capsys.readouterr().out
    assert f"--study {own}: My own\n  --stage one: Which? (about" in listed
    assert "plain: Plain" in listed
    assert "checkout" not in listed


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("STUDY = Study(", "SyntaxError: "),
        ("from keras_seg import colours", "ImportError: cannot import name 'colours'"),
        ("STUDY = 1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_study_that_cannot_be_loaded_is_its_authors(code, reason, tmp_path, capsys):
    own = tmp_path / "own.py"
    own.write_text(code)
    words = ["--study", str(own), "--stage", "one"]
    assert command_line.run(studies.main, words) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("Traceback")
    last = errors.splitlines()[-1]
    assert last.startswith(f"error: {own} cannot be loaded as a study: {reason}")


def test_synthetic_humans_are_in_the_working_directory(body, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert studies.open_data(Request(), body) is None
    miniatures.shapes(tmp_path / "datasets" / "prepared" / "synthetic_humans")
    assert studies.open_data(Request(), body).dataset == "shapes"


def shapes_facts(shapes):
    """The miniature's facts: 10 training images of 24 x 40, 4 classes."""
    prepared = open_prepared(shapes)
    assert prepared.image_size is not None
    return DataFacts(prepared.image_size, 10, prepared.labels.num_classes)


@pytest.mark.parametrize(
    ("changes", "facts", "reason"),
    [
        ({}, {}, ""),
        ({"size": (64, 64)}, {}, "--size changed the runs"),
        ({"settings": {"steps": 9}}, {}, "--set changed the runs"),
        ({}, {"classes": 25}, "the labels have 4 classes instead of 25"),
        ({}, {"classes": 0}, ""),
        ({}, {"train_images": 11}, ""),  # as with a few damaged images left out
        ({}, {"train_images": 12}, "10 images were trained on instead of 12"),
        ({}, {"image_size": (1024, 2048)}, "at 24 x 40 px instead of 1024 x 2048 px"),
    ],
)
@pytest.mark.parametrize("own_data", [True, False], ids=["stage's data", "study's"])
def test_published_numbers_stand_only_beside_the_documents_runs(
    own_data, changes, facts, reason, body, shapes, tmp_path, monkeypatch
):
    written = {}
    monkeypatch.setattr(
        page, "write", lambda _, **given: written.update(given) or page.Written(_)
    )
    plan = body.plans["icnet"]
    stage = dataclasses.replace(plan.stage("filters"), full_size=True)
    facts = dataclasses.replace(shapes_facts(shapes), **facts)
    study = dataclasses.replace(body, datasets=() if own_data else ("shapes",))
    study = study if own_data else dataclasses.replace(study, data=facts)
    stage = dataclasses.replace(
        stage,
        datasets=("shapes",) if own_data else (),
        data=facts if own_data else None,
    )
    arms = stage.arms(plan.base("paper", FACTS))
    lost = tuple(ArmResult(arm, 0, tmp_path, "missing") for arm in arms)
    request = Request(net="icnet", scale="paper", out=tmp_path, **changes)
    where = studies.make_execution(request, study, "icnet", open_prepared(shapes))
    found = StageResult(stage, lost, None, "")
    studies.write_report(request, study, where, [found])
    (result,) = written["stages"]
    view = StageView(result, written["context"])
    assert view.shows_published == (reason == "")
    assert view.altered.endswith(reason)
    assert (view.altered == "") == (reason == "")


def test_a_part_of_the_data_has_no_published_numbers_beside_it(body, tmp_path):
    """--limit is found in the prepared folder, however large the rest is."""
    folder = miniatures.shapes(tmp_path / "shapes")
    meta = json.loads((folder / "meta.json").read_text())
    meta["request"]["limit"] = 10
    (folder / "meta.json").write_text(json.dumps(meta))
    miniatures.resign(folder)
    study = dataclasses.replace(body, datasets=("shapes",), data=shapes_facts(folder))
    stage = study.plans["icnet"].stage("filters")
    found = studies.differences(Request(), study, stage, open_prepared(folder))
    assert found == "10 images were trained on instead of 10"
    other = dataclasses.replace(study, datasets=("surreal",))
    assert studies.differences(Request(), other, stage, open_prepared(folder)) == ""


def test_smaller_images_do_not_pass_for_the_documents_own_size(shapes, tmp_path):
    study = studies.load("cityscapes")
    study = dataclasses.replace(study, datasets=("shapes",))
    prepared = open_prepared(shapes)
    request = Request(study="cityscapes", stage="dice", scale="paper", data=shapes)
    parts = studies.choose(request, study, prepared)
    message = r"shapes have 24 x 40 px\. .* dice .* 1024 x 2048 px .*without --size"
    with pytest.raises(UsageError, match=message):
        studies.check_own_size(request, study, parts, prepared)
    # Marked instead: at a smaller scale, with a size of one's own, of other data
    for other in ({"scale": "bench"}, {"size": (64, 64)}):
        changed = dataclasses.replace(request, **other)
        studies.check_own_size(changed, study, parts, prepared)
    others = dataclasses.replace(study, datasets=("cityscapes34",))
    studies.check_own_size(request, others, parts, prepared)


@pytest.mark.parametrize(
    ("scale", "asked", "found"),
    [("paper", None, 3), ("paper", 2, 2), ("bench", None, 1), ("demo", 5, 5)]
    + [("demo", None, 2), ("smoke", None, 1)],
)
def test_the_repeats_are_those_of_a_scale(scale, asked, found, body):
    assert body.demo_seeds == 2
    thrice = dataclasses.replace(body, seeds=3)
    assert studies.seeds(Request(scale=scale, seeds=asked), thrice) == found


def test_groups_are_those_of_surreals_25_classes(body, tmp_path):
    """With --merge surreal14 the ids of the groups would name other parts, or none."""
    prepared = open_prepared(miniatures.bodies(tmp_path / "bodies"))
    prepared = dataclasses.replace(prepared, dataset="surreal")
    assert context.groups(body, prepared) == GROUPS
    merged = dataclasses.replace(prepared, labels=LABELS14)
    assert context.groups(body, merged) == {}
    stage = body.plans["icnet"].stage("filters")
    reason = studies.differences(Request(), body, stage, merged)
    assert reason.startswith("the labels have 15 classes instead of 25")


MIRRORED = grid.Varied("augment.mirror", (0, 0.5))


def test_the_base_may_start_from_weights(body, tmp_path):
    file = tmp_path / "icnet.npz"
    file.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    words = {"net": "icnet", "stage": "filters", "action": "plan"}
    # As a command line gives it
    request = Request(**words, init_weights=str(file), init_base=True)
    (part,) = studies.choose(request, body, None)
    normal, doubled = part.stages[0].arms(part.base)
    assert normal.config.net.init_weights_sha256 == digest
    # Published weights are of the normal width.
    assert doubled.config.net.init_weights_sha256 is None
    (plain,) = studies.choose(Request(**words, init_weights=file), body, None)
    assert plain.base.net.init_weights_sha256 is None
    with pytest.raises(UsageError, match="--init-base needs .*--init-weights FILE"):
        Request(init_base=True)
    with pytest.raises(UsageError, match="--init-base is of a stage of a study"):
        Request(init_base=True, init_weights=str(file), vary=(MIRRORED,))
    other = dataclasses.replace(request, net="hourglass", stage="targets")
    with pytest.raises(UsageError, match="hourglass start from no published weights"):
        studies.choose(other, body, None)


def test_the_plan_has_the_settings_of_a_chain(capsys):
    words = "--net icnet --stage all --scale paper --plan --json"
    assert studies.main(words.split()) == 0
    lines = capsys.readouterr().out.splitlines()
    arms = dict(line.strip().split(": ", 1) for line in lines if line[:2] == "  ")
    weighted, longest = json.loads(arms["w2_direct"]), json.loads(arms["winner"])
    assert weighted["loss"]["weights"] == "w2"
    assert (weighted["steps"], weighted["optimizer"]["bn_start"]) == (40_000, 20_000)
    assert (longest["steps"], longest["optimizer"]["bn_start"]) == (90_000, 20_000)


def test_the_hourglass_starts_from_its_comparison_alone(body):
    """Not from one of its arms that was run by itself, nor from a sweep of one."""
    plan = body.plans["hourglass"]
    earlier = plan.before(plan.stage("targets"))
    assert [stage.name for stage in earlier] == ["search"]
    for name in ("joint_weight", "final"):
        earlier = plan.before(plan.stage(name))
        assert [stage.name for stage in earlier] == ["search", "targets"]


def test_all_stages_are_those_about_the_data(tmp_path):
    study = studies.load("attention_fcn")
    prepared = open_prepared(miniatures.shapes(tmp_path / "shapes"))

    def names(dataset):
        about = dataclasses.replace(prepared, dataset=dataset)
        request = Request(study=study.name, stage="all", data=Path("any"))
        (part,) = studies.choose(request, study, about)
        return [stage.name for stage in part.stages]

    assert names("cityscapes") == ["cityscapes", "ablation", "reduction"]
    assert names("voc2012") == ["voc2012", "ablation", "reduction"]
    assert names("camvid") == [stage.name for stage in study.plans["networks"].stages]


def test_a_comparison_shows_the_network_that_failed(body, shapes, tmp_path):
    stages = []
    for net, name in body.compare.items():
        stage = body.plans[net].stage(name)
        (arm,) = stage.arms(body.plans[net].base("smoke", FACTS))
        lost = ArmResult(arm, 0, tmp_path, "diverged", f"The loss of {net} is nan.")
        stages.append(StageResult(stage, (lost,), None, f"Starts from a {net}."))
    found = studies.compare(body, stages)
    assert [result.arm.name for result in found.results] == list(body.compare)
    assert found.start.startswith("icnet: Starts from a icnet. segnet_basic: Starts")
    request = Request(stage="compare", scale="smoke", out=tmp_path)
    where = studies.make_execution(request, body, "compare", open_prepared(shapes))
    report = studies.write_report(request, body, where, [found]).path.read_text()
    assert all(f"diverged: The loss of {net} is nan" in report for net in body.compare)
    with pytest.raises(ArmsFailedError, match=r"icnet \(diverged\), segnet_basic"):
        studies.check_failures([found])


def test_a_stage_keeps_the_aspect_ratio_of_own_photographs_alone(shapes, body):
    prepared = open_prepared(shapes)
    own = dataclasses.replace(prepared, dataset="folder")
    request = Request(net="icnet", stage="filters", data=shapes)
    told = dataclasses.replace(request, settings={"data.fit": "stretch"})
    found = [
        studies.choose(asked, body, data)[0].base.data.fit
        for asked, data in ((request, prepared), (request, own), (told, own))
    ]
    assert found == ["stretch", "letterbox", "stretch"]


def test_each_class_weighting_is_drawn_as_its_arm_has_it(shapes, tmp_path):
    plan = studies.load("voc2007").plans["networks"]
    stages = []
    for name in ("table4", "occurrences"):
        arms = plan.stage(name).arms(plan.base("smoke", FACTS))
        results = [ArmResult(arm, 0, tmp_path, "missing") for arm in arms]
        stages.append(StageResult(plan.stage(name), tuple(results), None, ""))
    prepared = open_prepared(shapes)
    pixels = prepared.counts("train").pixels
    # Every one of the ten images has the classes 0 to 2; class 3 never occurs.
    assert context.weights(prepared, stages) == {
        "voc07 (images, background 0.15)": pytest.approx([0.15, 1.9, 1.9, 1.0]),
        "voc07 (none, background 0.1)": pytest.approx([0.1, 1.0, 1.0, 1.0]),
        "voc07 (pixels, background 0.15)": pytest.approx(
            [0.15, 2 - 1 / pixels[1], 2 - 1 / pixels[2], 1.0]
        ),
    }


def test_a_process_of_an_arm_gets_what_the_request_says(
    shapes, tmp_path, monkeypatch, capsys
):
    """The arms are pretended: they fail at once."""
    commands = []

    class Process:
        def __init__(self, arguments):
            commands.append(arguments)

        def wait(self):
            return 4

    monkeypatch.setattr(executors, "local", Process)
    request = Request(
        net="icnet",
        stage="filters",
        data=shapes,
        seeds=1,
        threads=3,
        allow_inexact=True,
        size=(32, 64),
        out=tmp_path / "out",
    )
    outcome = studies.run(request)
    assert outcome.report.is_file()
    (stage,) = outcome.results
    assert [result.state for result in stage.results] == ["diverged"] * 2
    assert len(commands) == 2
    told = capsys.readouterr().err  # once for both arms
    assert told.count(f"data: {shapes}\n  train: 10 images, 24 x 40 px") == 1
    assert told.count("warning: Class absent has no pixel in val") == 1
    assert commands[0][:2] == ["-m", "keras_seg.runs.train"]
    options = dict(zip(commands[0][2:-1:2], commands[0][3:-1:2]))
    run = tmp_path / "out" / "body_parts" / "icnet" / "filters" / "normal" / "seed0"
    assert options["--out"] == str(run)
    assert (options["--data"], options["--threads"]) == (str(shapes), "3")
    assert commands[0][-1] == "--allow-inexact"
    assert json.loads(Path(options["--config"]).read_text())["data"]["size"] == [32, 64]


# A study of one's own is checked whole before anything is trained


def own(stage, more=""):
    return f"""
from keras_seg.ablation.protocol import Arm, DataFacts, Plan, Stage, Study, claim
from keras_seg.config import Config

{more}
def arms(base):
    wide = base.changed(net={{"filter_scale": 2}})
    return [Arm("plain", "Plain", base), Arm("wide", "Wide", wide)]

STAGE = Stage("one", "Which?", "mine", {stage})
BASE = Config(net="icnet", data={{"size": (32, 64)}}, steps=2)
PLAN = Plan(lambda data: BASE, (STAGE,))
STUDY = Study("own", "My own", (), DataFacts((32, 64), 10), {{"icnet": PLAN}})
"""


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ("lambda base: []", "stage one: it makes no arm"),
        ("lambda base: [base.nets]", "stage one of .*: AttributeError: .* 'nets'"),
        (
            "lambda base: [('a', base)]",
            r"stage one: \('a', Config.* is no Arm with a C",
        ),
        ("lambda base: arms(base) * 2", "two arms are named 'plain'"),
        ("lambda base: [Arm('My arm', '', base)]", "'My arm' is no name: lower case"),
        ("arms, 'wider'", "published_winner is 'wider', but its arms are plain, wide"),
        ("arms, split='validation'", "split is 'validation'; it must be train, val"),
        ("arms, panels={'a': {'widest': 'W'}}", "a panel shows the arm 'widest', but"),
        (
            "arms, claims=(claim('it helps', 'wider > plain'),)",
            "claim “it helps” names the arm 'wider', but its arms are plain, wide",
        ),
        (
            "arms, claims=(claim('it helps', 'two/wide > plain'),)",
            "claim “it helps” names the stage 'two'; there are one",
        ),
        (
            "arms, claims=(claim('it helps', 'wide > plain', 'mIoU'),)",
            r"is about 'mIoU', which is no metric. Did you mean miou",
        ),
        (
            "arms, claims=(claim('it helps', 'wide > plain', 'iou cow'),)",
            "is about 'iou cow', which is no metric",
        ),
        (
            "lambda base: [Arm('a', 'A', base.changed(data={'size': (33, 64)}))]",
            "icnet .*33 x 64",
        ),
        ("lambda base: [Arm('a', 'A', base.changed(loss={'name': 'x'}))]", "loss.name"),
    ],
)
def test_a_study_of_ones_own_is_checked_whole(
    stage, words, shapes, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(executors, "local", None)  # nothing is begun
    file, out = tmp_path / "own.py", tmp_path / "out"
    file.write_text(own(stage))
    request = Request(study=str(file), stage="one", data=shapes, out=out)
    with pytest.raises(UsageError, match=words):
        studies.run(request)
    assert not out.exists()


def test_the_documents_studies_pass_the_check():
    for name in studies.names():
        study = studies.load(name)
        for plan in study.plans.values():
            base = plan.base("paper", study.data)
            for stage in plan.stages:
                arms = runner.planned_arms(plan, stage, base)
                protocol.check_stage(plan, stage, arms)
                studies.check_claims(stage, None)


def test_a_study_without_its_data_never_falls_back_to_synthetic_people(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(own("arms"))
    for study in [str(file), *studies.names()]:
        found = studies.load(study)
        if found.name == "body_parts":
            assert found.synthetic
            continue
        with pytest.raises(UsageError, match="--data is missing"):
            studies.open_data(Request(study=study, stage="all"), found)


# What is said before, during and after


def test_the_header_says_what_is_about_to_run(shapes, tmp_path, monkeypatch):
    monkeypatch.setattr(estimate, "machine_speed", lambda: 20.0)
    monkeypatch.setattr(estimate, "read_costs", lambda _: {})
    words = "--vary loss.weights=none,w1 --net icnet --steps 20 --seeds 3 --size 32 64"
    words += f" --data {shapes} --out {tmp_path / 'out'}"
    request = studies.parse(words.split(), "run")
    study, prepared = studies.find(request)
    (part,) = studies.choose(request, study, prepared)
    where = studies.make_execution(request, study, part.net, prepared)
    lines = list(studies.header(request, study, part, where, 600.0))
    assert lines[0] == f"Which loss.weights is best for icnet on {shapes.name}? 2 arms:"
    assert lines[1] == "  weights none, weights w1"
    # 20 steps of 16 of 10 images
    assert lines[2] == "  32 x 64 px, 20 steps (32 epochs), 3 seeds"
    assert lines[3].startswith("  6 trainings on ")
    assert lines[3].endswith(": about 10 min 00 s")
    assert lines[4].startswith(f"  {tmp_path / 'out' / 'own' / 'icnet-loss-weights'}: ")


def test_arms_that_share_a_training_are_counted_once(tmp_path, shapes, monkeypatch):
    monkeypatch.setattr(estimate, "machine_speed", lambda: 20.0)
    request = Request(
        net="icnet", stage="weighting", seeds=1, data=shapes, out=tmp_path
    )
    study, prepared = studies.find(request)
    (part,) = studies.choose(request, study, prepared)
    where = studies.make_execution(request, study, part.net, prepared)
    lines = list(studies.header(request, study, part, where, 600.0))
    assert lines[0].endswith(" 7 arms:")
    assert any(line.startswith("  5 trainings on ") for line in lines)


def test_the_console_says_over_how_many_classes_a_score_is(body, tmp_path, monkeypatch):
    """Of 4 classes, one arm lacks two and the winner none; the third has not ended."""
    stage = body.plans["icnet"].stage("filters")
    arms = stage.arms(body.plans["icnet"].base("smoke", FACTS))
    kinds = [(arms[0], 0.25, [1, 3]), (arms[1], 0.5, [])]
    results = [
        ArmResult(
            *(arm, 0, tmp_path, "done", ""),
            metrics={
                "summary": {"miou": miou, "pixel_accuracy": 0.75},
                "confusion": [[1] * 4] * 4,
                "absent_ids": absent,
            },
        )
        for arm, miou, absent in kinds
    ]
    for winner, over in ((arms[0], " over 2 of 4 classes"), (arms[1], "")):
        waiting = ArmResult(arms[0], 1, tmp_path, "missing")
        found = StageResult(stage, (*results, waiting), winner.name, "")
        line = studies.best_so_far([found], tmp_path)
        assert f" %{over} (2 of 3 runs)" in line
    found = StageResult(stage, tuple(results), arms[1].name, "")
    outcome = studies.Outcome([found], tmp_path / "report.html")
    monkeypatch.setattr(studies, "run", lambda _: outcome)
    lines = list(studies.running(Request()))
    assert lines[2].endswith(" 0.2500    0.7500  mIoU over 2 of 4 classes")
    assert lines[3].endswith(" 0.5000    0.7500  <- winner")


def test_next_steps_are_commands_that_run(shapes, tmp_path, monkeypatch):
    """Each is parsed by the command that it names."""
    words = "--vary loss.weights=none,w1 --net icnet --budget 2h --seeds 1 --restart"
    words = [*words.split(), "--data", str(shapes), "--out", str(tmp_path)]
    request = studies.parse(words, "python ablations/run.py")
    request = dataclasses.replace(request, budget=None, steps=20)
    study, prepared = studies.find(request)
    (part,) = studies.choose(request, study, prepared)
    where = studies.make_execution(request, study, part.net, prepared)
    arms = part.stages[0].arms(part.base)
    run = where.folder / "question" / arms[0].name / "seed0"
    result = StageResult(
        part.stages[0], (ArmResult(arms[0], 0, run, "done"),), arms[0].name, ""
    )
    steps = dict(studies.next_steps(request, study, where, result))
    again = steps["more seeds: how much is chance?"].split()
    assert again[:2] == ["python", "ablations/run.py"]
    assert studies.parse(again[2:], "run").seeds == 3
    assert "--restart" not in again
    longer = studies.parse(steps["train all arms twice as long"].split()[2:], "run")
    assert (longer.steps, longer.budget, longer.extend) == (40, None, True)
    few = "too few validation images, 6: score the others as well"
    folded = studies.parse(steps[few].split()[2:], "run")
    assert (folded.folds, folded.steps, folded.budget) == (5, 20, None)
    assert folded.out == tmp_path / "folds"  # other runs than those of the split
    assert folded.vary == request.vary
    rest = [command.split() for command in steps.values()][3:]
    assert [command[1] for command in rest] == [
        "tools/evaluate.py",
        "tools/predict.py",
        "tools/export.py",
    ]
    assert all(command[2] == str(run) for command in rest)
    folds = dataclasses.replace(request, folds=3, init_weights="w.npz")
    hashed = arms[0].config.changed(net={"init_weights_sha256": "a" * 64})
    started = dataclasses.replace(arms[0], config=hashed)
    best = ArmResult(started, 0, run, "done")
    of_weights = dataclasses.replace(result, results=(best,))
    steps = dict(studies.next_steps(folds, study, where, of_weights))
    (train,) = (command for what, command in steps.items() if "as they were" in what)
    assert " --init-weights w.npz --data " in train
    chained = dataclasses.replace(request, vary=(), steps=None, stage="filters")
    study = studies.load("body_parts")
    stage = study.plans["icnet"].stage("filters")
    found = dataclasses.replace(result, stage=stage)
    (after,) = [
        command
        for what, command in studies.next_steps(chained, study, where, found)
        if "next stage" in what
    ]
    assert "--stage augment" in after


# From Python


def test_ablate_asks_what_the_command_asks(shapes, monkeypatch):
    monkeypatch.setattr(studies, "run", lambda request: request)
    vary = {"loss.weights": ["none", [1, 2, 3, 4]]}
    found = keras_seg.ablate(
        data=str(shapes), net="icnet", vary=vary, budget="2h", seeds=3, out="x"
    )
    words = "--net icnet --vary loss.weights=none,[1,2,3,4] --budget 2h --seeds 3"
    wanted = studies.parse([*words.split(), "--data", str(shapes), "--out", "x"], "")
    assert dataclasses.replace(found, command="") == dataclasses.replace(
        wanted, command=""
    )
    assert found.command.startswith("keras_seg.ablate(data='")
    prepared = open_prepared(shapes)
    assert keras_seg.ablate(data=prepared, vary=vary, steps=2).data == shapes


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"networks": "icnet"}, "ablate has no option 'networks'; it has "),
        ({"vary": ["loss.weights"]}, "vary is .*, a list for each setting"),
        ({"vary": {"loss.weights": "none,w1"}}, "vary is .*, a list for each setting"),
        ({"vary": {"loss.weight": ["w1", "w2"]}}, "no setting 'loss.weight'"),
        ({"vary": {"loss.l1": [0, 1]}, "budget": "soon"}, "'soon' is no time"),
    ],
)
def test_what_ablate_cannot_take_is_named(options, words):
    with pytest.raises(UsageError, match=words):
        keras_seg.ablate(**options)


def test_an_outcome_names_the_winners_run(tmp_path, body):
    arms = (
        body.plans["icnet"]
        .stage("filters")
        .arms(body.plans["icnet"].base("smoke", FACTS))
    )
    runs = tuple(ArmResult(arm, 0, tmp_path / arm.name, "done") for arm in arms)
    stage = StageResult(body.plans["icnet"].stage("filters"), runs, "doubled", "")
    assert studies.Outcome([stage], Path()).winner == tmp_path / "doubled"
    nobody = dataclasses.replace(stage, winner=None)
    assert studies.Outcome([nobody], Path()).winner is None


def test_an_extended_question_is_validated_as_often_as_before(shapes, tmp_path):
    """Every 2 of 20 steps, and of 40; else no run of 20 steps could be trained on."""
    words = f"--vary loss.weights=none,w1 --net icnet --data {shapes} --out {tmp_path}"

    def base(more):
        request = studies.parse([*words.split(), *more.split()], "run")
        study, prepared = studies.find(request)
        (part,) = studies.choose(request, study, prepared)
        return request, part, studies.make_execution(request, study, part.net, prepared)

    _, part, where = base("--steps 20")
    assert part.base.validation.every == 2
    where.folder.mkdir(parents=True)
    runner._settle(part.plan, part.stages, part.base, where, ())
    _, longer, where = base("--steps 40 --extend")
    assert longer.base == part.base.changed(steps=40)
    runner._settle(longer.plan, longer.stages, longer.base, where, ())
    assert runner.read_base(where.folder).steps == 40
    for more, words_of in (
        ("--steps 20 --extend", "steps is 20, but 40"),
        (
            "--steps 60 --extend --set optimizer.lr=0.5",
            "optimizer.lr is 0.5, but 0.001",
        ),
    ):
        _, other, where = base(more)
        with pytest.raises(UsageError, match=words_of):
            runner._settle(other.plan, other.stages, other.base, where, ())
    _, named, _ = base("--steps 60 --extend --set validation.every=5")
    assert named.base.validation.every == 5


def test_a_folder_may_be_named_like_an_option(shapes, tmp_path, monkeypatch):
    commands = []

    class Process:
        def __init__(self, arguments):
            commands.append(arguments)

        def wait(self):
            return 4

    monkeypatch.setattr(executors, "local", Process)
    monkeypatch.setattr(studies, "write_report", lambda *_: studies.Report())
    monkeypatch.chdir(tmp_path)
    words = ["--net", "icnet", "--stage", "filters", "--data", str(shapes)]
    words += ["--seeds", "1", "--out=-x"]
    studies.run(studies.parse(words, "run.py"))
    assert (tmp_path / "-x" / "body_parts" / "icnet" / "journal.jsonl").is_file()
    parsed = [words[words.index("--out") + 1] for words in commands]
    assert all(Path(out).is_absolute() for out in parsed)
    assert len(parsed) == 2


@pytest.mark.parametrize(
    ("words", "isolate"),
    [
        ("--scale smoke", False),
        ("--scale smoke --jobs 1", False),
        ("--scale smoke --jobs 2", True),
        ("--scale demo", True),
    ],
)
def test_arms_of_a_test_share_this_process_unless_several_run_at_a_time(
    words, isolate, body, shapes, monkeypatch
):
    monkeypatch.setattr(executors, "gpus", lambda: [])
    request = studies.parse(["--net", "icnet", *words.split()], "run")
    where = studies.make_execution(request, body, "icnet", open_prepared(shapes))
    assert where.isolate == isolate
