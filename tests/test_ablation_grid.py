"""Questions in one line: arms, titles, defaults, and what makes no sense."""

import dataclasses
from pathlib import Path

import pytest

from keras_seg import command_line
from keras_seg import study as studies
from keras_seg.ablation import grid
from keras_seg.ablation.grid import Question, Varied
from keras_seg.data.prepared import open_prepared
from keras_seg.errors import UsageError
from keras_seg.study import Request

ICNET = {"net": {"name": "icnet"}, "steps": 40}


@pytest.fixture(scope="module")
def prepared(shapes):
    return open_prepared(shapes)


def arms(prepared, *texts, values=ICNET, **how):
    question = Question(values, tuple(map(grid.parse, texts)), **how)
    study = grid.study(question, prepared)
    (plan,) = study.plans.values()
    return plan.stages[0].arms(plan.base("demo", study.data))


@pytest.mark.parametrize(
    ("text", "path", "values"),
    [
        ("loss.weights=none,w1", "loss.weights", ("none", "w1")),
        ("loss.weights=none,[1,2.5]", "loss.weights", ("none", [1, 2.5])),
        ("augment.mirror=0,0.5", "augment.mirror", (0, 0.5)),
        ("data.size=[32,64],[64,96]", "data.size", ([32, 64], [64, 96])),
        ("augment.swap_lr=true,false,null", "augment.swap_lr", (True, False, None)),
        ("net=icnet,unet_bn", "net", ("icnet", "unet_bn")),
        ("net.name=icnet,unet", "net", ("icnet", "unet")),
        (
            'net={"name":"hourglass","stacks":2},icnet',
            "net",
            ({"name": "hourglass", "stacks": 2}, "icnet"),
        ),
    ],
)
def test_values_are_json_or_bare_words(text, path, values):
    assert grid.parse(text) == Varied(path, values)


def test_several_settings_make_every_combination(prepared):
    found = arms(prepared, "loss.weights=none,w1", "augment.mirror=0,0.5")
    assert [arm.title for arm in found] == [
        "weights none, mirror 0",
        "weights none, mirror 0.5",
        "weights w1, mirror 0",
        "weights w1, mirror 0.5",
    ]
    assert found[3].name == "weights_w1_mirror_0_5"
    made = [(arm.config.loss.weights, arm.config.augment.mirror) for arm in found]
    assert made == [("none", 0.0), ("none", 0.5), ("w1", 0.0), ("w1", 0.5)]


def test_photographs_keep_their_aspect_ratio_unless_told_otherwise(prepared):
    def fits(*texts, values=ICNET):
        return [arm.config.data.fit for arm in arms(prepared, *texts, values=values)]

    assert fits("loss.weights=none,w1") == ["letterbox"] * 2
    stretched = ICNET | {"data": {"fit": "stretch"}}
    assert fits("loss.weights=none,w1", values=stretched) == ["stretch"] * 2
    assert fits("data.fit=letterbox,stretch") == ["letterbox", "stretch"]


def test_one_at_a_time_is_around_the_base(prepared):
    texts = ("loss.weights=none,w1", "augment.mirror=0.5")
    found = arms(prepared, *texts, one_at_a_time=True)
    assert [arm.title for arm in found] == ["base", "weights w1", "mirror 0.5"]
    made = [(arm.config.loss.weights, arm.config.augment.mirror) for arm in found]
    assert made == [("none", 0.0), ("w1", 0.0), ("none", 0.5)]


def test_what_training_starts_from_is_varied_like_a_setting(prepared, shapes):
    texts = ("init_weights=none,imagenet", "augment.mirror=0,0.5")
    found = arms(prepared, *texts, values={"net": {"name": "unet_lite0"}, "steps": 4})
    assert [arm.title for arm in found] == [
        "init_weights none, mirror 0",
        "init_weights none, mirror 0.5",
        "init_weights imagenet, mirror 0",
        "init_weights imagenet, mirror 0.5",
    ]
    assert [arm.pretrained for arm in found] == ["", "", "imagenet", "imagenet"]
    assert found[0].config == found[2].config
    request = Request(
        net="unet_lite0", vary=tuple(map(grid.parse, texts)), data=shapes, steps=4
    )
    assert request.weights == "imagenet"
    assert studies.ask(request).pretrained == ""
    plan = list(studies.planning(dataclasses.replace(request, action="plan")))
    in_json = studies.planning(dataclasses.replace(request, action="plan", json=True))
    assert "From weights: init_weights_imagenet_mirror_0 (imagenet), " in next(in_json)
    (line,) = (line for line in plan if "init_weights_imagenet_mirror_0_5" in line)
    assert line.endswith(": augment.mirror=0.5 starts from imagenet")
    study, _ = studies.find(request)
    (plan,) = study.plans.values()
    question = plan.stages[0].question
    assert question.startswith("Which start (init_weights) and augment.mirror are best")


def test_what_a_configuration_started_from_is_not_the_start_of_an_arm(prepared):
    values = {"net": {"name": "icnet", "init_weights_sha256": "a" * 64}, "steps": 4}
    without, with_them = arms(prepared, "init_weights=none,runs/a", values=values)
    assert without.config.net.init_weights_sha256 is None
    assert (without.pretrained, with_them.pretrained) == ("", "runs/a")


@pytest.mark.parametrize("nothing", [None, "none"])
def test_a_start_is_given_in_python_as_on_the_command_line(nothing):
    varied = Varied("init_weights", (nothing, Path("runs/a")))
    assert varied == grid.parse("init_weights=none,runs/a")


def test_a_header_counts_the_trainings_of_either_start(prepared, shapes, tmp_path):
    varied = (grid.parse("init_weights=none,imagenet"),)
    request = Request(
        net="unet_lite0", vary=varied, data=shapes, steps=4, seeds=3, out=tmp_path
    )
    study, _ = studies.find(request)
    (part,) = studies.choose(request, study, prepared)
    where = studies.make_execution(request, study, part.net, prepared)
    header = "\n".join(studies.header(request, study, part, where, 60.0))
    assert "6 trainings on" in header


def test_networks_are_arms(prepared):
    values = {"steps": 40}
    texts = ("optimizer.lr=0.001,0.01", "net=icnet,unet_bn")
    found = arms(prepared, *texts, values=values)
    assert [arm.title for arm in found][:2] == ["icnet, lr 0.001", "icnet, lr 0.01"]
    assert [arm.config.net.name for arm in found] == ["icnet"] * 2 + ["unet_bn"] * 2
    assert {arm.config.optimizer.name for arm in found} == {"adam"}
    study = grid.study(Question(values, (grid.parse("net=icnet,unet"),)), prepared)
    assert study.title == f"net on {prepared.folder.name}"
    (stage,) = study.plans["net"].stages
    assert stage.question == f"Which network is best on {prepared.folder.name}?"


def test_the_defaults_fit_the_data(prepared):
    """24 x 40 px: multiples of 32 of about 192 x 256 pixels in that aspect ratio.

    zoom = sqrt(49152 / 960) = 7.155: 171.7 x 286.2, so 160 x 288.
    """
    (first, _) = arms(prepared, "loss.weights=none,w1")
    assert first.config.data.size == (160, 288)
    assert first.config.optimizer.lr == 1e-3
    assert first.config.validation.every == 4  # 10 validations
    own = ICNET | {"optimizer": {"name": "sgd"}, "validation": {"every": 7}}
    (first, _) = arms(prepared, "loss.weights=none,w1", values=own)
    assert first.config.optimizer.name == "sgd"
    assert first.config.validation.every == 7


def test_photographs_of_many_sizes_keep_their_median_aspect_ratio(prepared):
    sizes = [(300, 200), (600, 400), (900, 600), (200, 300), (303, 200)]
    samples = tuple(
        dataclasses.replace(sample, height=height, width=width)
        for sample, (height, width) in zip(prepared.samples("train"), sizes)
    )
    several = dataclasses.replace(
        prepared, image_size=None, _samples={"train": samples, "val": samples}
    )
    # 3 : 2; sqrt(49152 / 1.5) = 181.0, so 271.5 x 181.0
    (first, _) = arms(several, "loss.weights=none,w1")
    assert first.config.data.size == (256, 192)


def test_epochs_are_equal_whatever_the_batch(prepared):
    """10 images: an epoch is 1 batch of 16 and 3 of 4 images."""
    values = {"net": {"name": "icnet"}}
    found = arms(prepared, "data.batch=16,4", values=values, epochs=5)
    assert [arm.config.steps for arm in found] == [5, 15]


def test_epochs_are_of_the_images_that_are_trained_on(prepared):
    """4 and 10 images, by 2: an epoch is 2 and 5 steps."""
    values = {"net": {"name": "icnet"}, "data": {"batch": 2}}
    found = arms(prepared, "data.samples=4,10", values=values, epochs=3)
    assert [arm.config.steps for arm in found] == [6, 15]
    assert [studies._epochs(arm.config, 10) for arm in found] == [3, 3]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("adam", 1e-3)),
        ({"weight_decay": 1e-4}, ("adam", 1e-3)),
        ({"lr": 0.003}, ("adam", 0.003)),
        ({"name": "sgd"}, ("sgd", 0.01)),
    ],
)
def test_adam_is_the_optimizer_unless_another_is_named(given, expected, prepared):
    values = ICNET | {"optimizer": given}
    for arm in arms(prepared, "loss.weights=none,w1", values=values):
        assert (arm.config.optimizer.name, arm.config.optimizer.lr) == expected


@pytest.mark.parametrize("name", [{}, {"name": "unet_bn"}])
def test_networks_have_the_width_and_the_preprocessing_of_the_base(name, prepared):
    """An option of one network is not one of the others."""
    net = {"filter_scale": 2, "preprocess": "unit", **name}
    texts = ['net={"name":"segnet_basic","use_bias":true},icnet,unet_bn']
    found = arms(prepared, *texts, values={"net": net, "steps": 40})
    names = ["segnet_basic", "icnet", "unet_bn"]
    assert [arm.config.net.name for arm in found] == names
    assert {arm.config.net.filter_scale for arm in found} == {2}
    assert {arm.config.net.preprocess for arm in found} == {"unit"}
    assert [dict(arm.config.net.knobs) for arm in found] == [{"use_bias": True}, {}, {}]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("optimizer.momentum=0.9,0.99", "read by the optimizer sgd only"),
        ("optimizer.decay_on=kernels,all", "read by optimizer.weight_decay only"),
        ("loss.hard_share=0.1,0.2", "read by the loss ohem"),
        ("loss.direct_at_inference=false,true", "by loss.strategy=direct with class"),
        ("loss.joint_weight=1,2", "read by networks with joints"),
        ("augment.swap_lr=false,true", "read by mirrored images"),
    ],
)
def test_what_no_arm_reads_is_not_varied(text, words, prepared):
    with pytest.raises(UsageError, match=f"{text.partition('=')[0]} changes .*{words}"):
        arms(prepared, text)


def test_options_of_a_network_are_of_that_arm_alone(prepared):
    texts = [
        'net={"name":"hourglass","stacks":2},{"name":"hourglass","depth":2},hourglass',
        'net={"name":"icnet","filter_scale":2},icnet,unet_bn',
    ]
    values = {"steps": 40, "data": {"size": [64, 64]}}
    found = [arms(prepared, text, values=values) for text in texts]
    assert [dict(arm.config.net.knobs) for arm in found[0]] == [
        {"stacks": 2},
        {"depth": 2},
        {},
    ]
    assert [(arm.config.net.name, arm.config.net.filter_scale) for arm in found[1]] == [
        ("icnet", 2),
        ("icnet", 1),
        ("unet_bn", 1),
    ]


def test_what_one_arm_reads_may_be_varied(prepared):
    texts = ("optimizer.name=adam,sgd", "optimizer.momentum=0.9,0.99")
    assert len(arms(prepared, *texts)) == 4


@pytest.mark.parametrize(
    ("texts", "how", "words"),
    [
        (["loss.weights"], {}, "gives no values"),
        (["loss.weights=w1"], {}, "has one value, so it varies nothing"),
        (["loss.weights=w1,w1"], {}, "has the value 'w1' twice"),
        (["loss.weight=w1,w2"], {}, "no setting 'loss.weight'"),
        (["loss.weights=w1,w9"], {}, "loss.weights is 'w9'"),
        (["seed=1,2"], {}, "--vary cannot take seed: --seeds"),
        (["init_weights=a,b"], {}, "compares none with one file of weights"),
        (["init_weights=a"], {}, "With --init-weights instead, all arms start from"),
        (["net.init_weights_sha256=a,b"], {}, "init_weights=none,FILE compares"),
        (["loss.l1=0,1", "loss.l1=2,3"], {}, "loss.l1 is given twice"),
        (["loss.l1=0"], {"one_at_a_time": True}, "All arms are alike"),
        (["net=icnet,lenet"], {}, "net.name is 'lenet'"),
        (["loss.l1=0,1"], {"name": "../x"}, "is no name of a folder"),
        (["loss.l1=0,1"], {"values": {"steps": 4}}, "--net is missing"),
    ],
)
def test_what_makes_no_sense_is_named(texts, how, words, prepared):
    with pytest.raises(UsageError, match=words):
        arms(prepared, *texts, **how)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--vary loss.l1=0,1 --net icnet", "How long is each arm trained"),
        ("--vary loss.l1=0,1 --steps 4 --epochs 2", "Both --steps and --epochs"),
        ("--vary loss.l1=0,1 --steps 4 --set steps=3", "Both --steps and --set steps"),
        ("--vary loss.l1=0,1 --stage filters", "leave out --study, --stage"),
        ("--net icnet --stage filters --steps 3", "--steps is of a question of your"),
        ("--vary loss.l1=0,1 --budget soon", "--budget 'soon' is no time"),
        (
            "--vary init_weights=none,a --init-weights a --net icnet --steps 3",
            "both say what arms start from",
        ),
    ],
)
def test_options_that_do_not_go_together(words, message, shapes):
    with pytest.raises(UsageError, match=message):
        studies.find(studies.parse([*words.split(), "--data", str(shapes)], "run"))


def test_a_question_without_data_asks_for_them():
    request = Request(vary=(Varied("loss.l1", (0, 1)),), net="icnet", steps=2)
    with pytest.raises(UsageError, match="--data is missing: a question of your own"):
        studies.find(request)


def test_a_configuration_file_is_the_base(shapes, tmp_path):
    file = tmp_path / "config.json"
    file.write_text('{"net": "unet", "loss": {"l1": 3}, "steps": 9, "seed": 4}')
    words = f"--vary loss.weights=none,w1 --config {file} --data {shapes}"
    words += " --set optimizer.lr=0.5 --size 64 32"
    study, _ = studies.find(studies.parse(words.split(), "run"))
    base = study.plans["unet-loss-weights"].base("demo", study.data)
    assert (base.net.name, base.loss.l1, base.steps) == ("unet", 3.0, 9)
    assert (base.optimizer.lr, base.data.size, base.seed) == (0.5, (64, 32), 0)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("45m", 2700), ("2h", 7200), ("1h30m", 5400)]
)
def test_a_budget_is_a_time(text, seconds):
    assert command_line.time_span(text) == seconds
    words = ["--vary", "loss.l1=0,1", "--budget", text]
    assert studies.parse(words, "run").budget == seconds


def test_the_plan_of_a_question(shapes, capsys):
    words = "--vary loss.weights=none,[1,5,2] --set optimizer.clip_norm=2.5 --net icnet"
    more = ["--steps", "4", "--data", str(shapes), "--size", "64", "96", "--plan"]
    assert studies.main([*words.split(), *more]) == 0
    first, *common, none, numbers, last = capsys.readouterr().out.splitlines()
    assert first.startswith("icnet-loss-weights question: ")
    shared = set(" ".join(common).removeprefix("  all arms: ").split())
    assert {"data.size=[64,96]", "steps=4", "optimizer.clip_norm=2.5"} <= shared
    assert not any(each.startswith(("loss.weights", "seed")) for each in shared)
    assert "optimizer.ema=0.0" not in shared  # a default
    assert none == "  weights_none: loss.weights=none"
    assert numbers.endswith(": loss.weights=[1.0,5.0,2.0]")
    assert "defaults (docs/reference/settings.md)" in last


def test_a_network_without_weights_is_refused_before_anything_is_made(
    prepared, shapes, tmp_path
):
    words = "--net unet --vary init_weights=none,imagenet --steps 4 --size 32 48"
    more = ["--data", str(shapes), "--out", str(tmp_path / "runs")]
    request = studies.parse([*words.split(), *more], "run")
    study, _ = studies.find(request)
    parts = studies.choose(request, study, prepared)
    with pytest.raises(UsageError, match="No ImageNet weights are known for unet"):
        studies.check_requirements(request, parts, prepared)
    assert not (tmp_path / "runs").exists()
