"""The studies train: every kind of network and loss here, every stage when asked.

The arms are those of scale smoke: two steps at the smallest size.
"""

import dataclasses
import gc
import runpy
from pathlib import Path

import miniatures
import numpy as np
import pytest

from keras_seg.ablation import estimate
from keras_seg.ablation.protocol import ArmResult, DataFacts, StageResult
from keras_seg.ablation.runner import planned_arms
from keras_seg.data.prepared import open_prepared
from keras_seg.errors import ArmsFailedError, UsageError
from keras_seg.runs import folder as run_folder
from keras_seg.runs import train as training

ROOT = Path(__file__).resolve().parents[1]
STUDIES = {
    path.stem: runpy.run_path(str(path))["STUDY"]
    for path in sorted((ROOT / "ablations" / "studies").glob("*.py"))
}
FACTS = DataFacts(image_size=(40, 48), train_images=6)


@pytest.fixture(scope="module")
def bodies(tmp_path_factory) -> Path:
    return miniatures.bodies(tmp_path_factory.mktemp("data") / "bodies")


def stages():
    """(study, plan's name, plan, stage) of everything that is declared."""
    for study in STUDIES.values():
        for net, plan in study.plans.items():
            for stage in plan.stages:
                yield study, net, plan, stage


def kinds():
    """{what is new about it: configuration}, one for each distinct net and loss."""
    found: dict = {}
    for _, _, plan, stage in stages():
        for arm in planned_arms(plan, stage, plan.base("smoke", FACTS)):
            config = arm.config
            targets = config.net.knobs.get("targets", "full")
            joints = "joints" if config.net.knobs.get("joints") else ""
            kind = (config.net.name, config.loss.name, targets, joints)
            if not arm.pretrained:
                found.setdefault("-".join(kind).rstrip("-"), config)
    return found


KINDS = kinds()


@pytest.fixture
def forgotten():
    """Networks hold each other in cycles: without this they fill the memory."""
    yield
    gc.collect()


@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_two_steps_of_every_network_and_loss(kind, bodies, tmp_path):
    config = KINDS[kind].changed(validation={"every": 1}, steps=2)
    result = training.train(config, bodies, tmp_path / "run")
    assert result["steps"] == 2
    # Every pixel of the four validation images is scored: none is void.
    pixels = np.array(result["confusion"]).sum()
    height, width = config.data.size
    assert pixels == 4 * height * width
    losses = [row["loss"] for row in run_folder.read_history(tmp_path / "run")]
    assert len(losses) == 2
    assert losses[0] != losses[1]


def test_the_hourglass_goes_on_from_its_comparison_alone():
    """Not from one of its arms that was run by itself, nor from a sweep of one."""
    plan = STUDIES["body_parts"].plans["hourglass"]
    assert plan.before(plan.stage("targets")) == ()
    for name in ("joint_weight", "final"):
        assert plan.before(plan.stage(name)) == (plan.stage("targets"),)


def test_the_list_has_a_number_of_every_arm_that_a_document_scores(capsys):
    run = runpy.run_path(str(ROOT / "ablations/run.py"))
    assert run["main"](["--list"]) == 0
    listed = capsys.readouterr().out
    # CLOTH Table 1, ATTN Table 2, BODY Table 1 (whose groups are left out)
    table_1 = "(published two-class IoU 73.1 %, precision of the foreground 56.5 %, "
    assert f"unet_bn_focal: U-Net BN, focal  {table_1}" in listed
    both = "(published mean class accuracy 90.7 %, mIoU 82.9 %)"
    assert f"fcn_attention: FCN with attention  {both}" in listed
    assert "normal: Normal  (published mIoU 38.19 %, accuracy 9" in listed
    assert "fcn_ce: FCN, cross-entropy\n" in listed


def test_the_list_counts_the_seeds(capsys, monkeypatch):
    monkeypatch.setattr(estimate, "machine_speed", lambda: 20.0)
    monkeypatch.setattr(estimate, "seconds", lambda *_: 120.0)
    run = runpy.run_path(str(ROOT / "ablations/run.py"))
    assert run["main"](["--list", "--seeds", "3"]) == 0
    listed = capsys.readouterr().out
    assert "3 seeds, one run at a time" in listed
    # Two arms of two minutes
    assert "doubling every convolution's filters help? (about 12 min 00 s)" in listed


def test_a_comparison_shows_the_network_that_failed(shapes, tmp_path):
    study, run = STUDIES["body_parts"], runpy.run_path(str(ROOT / "ablations/run.py"))
    stages = []
    for net, name in study.compare.items():
        stage = study.plans[net].stage(name)
        (arm,) = stage.arms(study.plans[net].base("smoke", FACTS))
        lost = ArmResult(arm, 0, tmp_path, "diverged", f"loss of {net}: nan")
        stages.append(StageResult(stage, (lost,), None, f"Starts from a {net}."))
    args = run["parse"](["--stage", "compare", "--scale", "smoke"])
    args.out = tmp_path / "out"
    found = run["compare"](study, stages, args, open_prepared(shapes))
    assert [result.arm.name for result in found.results] == list(study.compare)
    assert found.start.startswith("icnet: Starts from a icnet. segnet_basic: Starts")
    report = (args.out / "body_parts" / "compare" / "report.html").read_text()
    assert all(f"diverged: loss of {net}: nan" in report for net in study.compare)
    with pytest.raises(ArmsFailedError, match=r"icnet \(diverged\), segnet_basic"):
        run["refuse_failures"]([found])


def test_each_class_weighting_is_drawn_as_its_arm_has_it(shapes, tmp_path):
    plan = STUDIES["voc2007"].plans["networks"]
    stages = []
    for name in ("table4", "occurrences"):
        arms = plan.stage(name).arms(plan.base("smoke", FACTS))
        results = [ArmResult(arm, 0, tmp_path, "missing") for arm in arms]
        stages.append(StageResult(plan.stage(name), tuple(results), None, ""))
    run = runpy.run_path(str(ROOT / "ablations/run.py"))
    prepared = open_prepared(shapes)
    weights = run["weights_of"](prepared, stages)
    pixels = prepared.counts("train").pixels
    # Every one of the ten images has the classes 0 to 2; class 3 never occurs.
    assert {name: list(values) for name, values in weights.items()} == {
        "voc07 (images, background 0.15)": [0.15, 1.9, 1.9, 1.0],
        "voc07 (none, background 0.1)": [0.1, 1.0, 1.0, 1.0],
        "voc07 (pixels, background 0.15)": pytest.approx(
            [0.15, 2 - 1 / pixels[1], 2 - 1 / pixels[2], 1.0]
        ),
    }


def test_all_stages_are_those_about_the_data(bodies):
    run = runpy.run_path(str(ROOT / "ablations/run.py"))
    plan = STUDIES["attention_fcn"].plans["networks"]
    stages = [stage for stage in plan.stages if stage.in_chain]
    prepared = open_prepared(bodies)

    def names(dataset):
        found = run["about"](stages, dataclasses.replace(prepared, dataset=dataset))
        return [stage.name for stage in found]

    assert names("cityscapes") == ["cityscapes", "ablation", "reduction"]
    assert names("voc2012") == ["voc2012", "ablation", "reduction"]
    assert names("camvid") == [stage.name for stage in stages]


def test_a_size_that_an_arm_cannot_take_is_refused_before_it_is_trained(tmp_path):
    run = runpy.run_path(str(ROOT / "ablations/run.py"))
    arguments = ["--study", "voc2007", "--stage", "table4", "--scale", "smoke"]
    data = miniatures.shapes(tmp_path / "shapes")
    arguments += ["--size", "64", "64", "--data", str(data), "--out", str(tmp_path)]
    with pytest.raises(UsageError, match="size for unet_valid: 64 x 64; expected mult"):
        run["main"](arguments)
    assert [entry.name for entry in tmp_path.iterdir()] == ["shapes"]


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """One folder for all stages, as a user has it: what several have is run once."""
    return tmp_path_factory.mktemp("studied")


@pytest.mark.slow
@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize(
    ("study", "net", "stage"),
    [(study.name, net, stage.name) for study, net, _, stage in stages()],
)
def test_every_stage_at_scale_smoke(study, net, stage, bodies, studied):
    run = runpy.run_path(str(ROOT / "ablations" / "run.py"))
    arguments = ["--study", study, "--stage", stage, "--scale", "smoke"]
    arguments += ["--data", str(bodies), "--out", str(studied)]
    plan_is_named = len(STUDIES[study].plans) > 1
    run["main"](arguments + (["--net", net] if plan_is_named else []))
    folder = studied / study / net
    assert (folder / "report.html").stat().st_size > 10_000
    assert (folder / "tables" / f"{stage}.csv").is_file()


@pytest.mark.slow
def test_the_comparison_at_scale_smoke(bodies, studied):
    run = runpy.run_path(str(ROOT / "ablations" / "run.py"))
    arguments = ["--stage", "compare", "--scale", "smoke", "--data", str(bodies)]
    run["main"]([*arguments, "--out", str(studied)])
    study = studied / "body_parts"
    text = (study / "compare" / "tables" / "compare.csv").read_text()
    lines = [line.split(",") for line in text.splitlines()]
    states = {line[0]: line[3] for line in lines[1:4]}
    assert states == {"icnet": "done", "segnet_basic": "done", "hourglass": "done"}
    exports = study.glob("*/final/winner/seed0/export/saved_model/saved_model.pb")
    assert len(list(exports)) == 3
