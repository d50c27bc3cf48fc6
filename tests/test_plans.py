"""The studies' declarations, held against the documents' arms and hyperparameters.

The tables are written from the documents: what is not in an arm's row has the default
of `Config`. How often is validated is ours wherever no row says it.
"""

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from outlines import outline

from keras_seg import metrics, nets
from keras_seg import plots as figures
from keras_seg.ablation.protocol import SCALES
from keras_seg.config import Augment, Config, to_dict
from keras_seg.runs.loop import HISTORY_KEYS

ROOT = Path(__file__).resolve().parents[1]
RUN = ROOT / "ablations" / "run.py"
OURS = ("val_every", "val_samples", "val_batch", "seed")

# BODY 3.1: stages that several networks have

MIRROR = Augment(mirror=0.5)
SCALE = Augment(scale=(0.5, 2.0))
BOTH = Augment(mirror=0.5, scale=(0.5, 2.0))
AUGMENTATIONS = {
    "plain": {},
    "mirror_scale": {"augment": BOTH},
    "mirror_scale_swap": {
        "augment": Augment(mirror=0.5, scale=(0.5, 2.0), swap_lr=True)
    },
    "mirror": {"augment": MIRROR},
    "mirror_swap": {"augment": Augment(mirror=0.5, swap_lr=True)},
    "scale": {"augment": SCALE},
    "noise": {"augment": Augment(noise=10.0)},
}
OUTER = {
    "normal": {},
    "w1_outer": {"class_weights": "w1", "strategy": "outer"},
    "w2_outer": {"class_weights": "w2", "strategy": "outer"},
}
DIRECT = {
    "normal": {},
    "w1_outer": OUTER["w1_outer"],
    "w1_direct": {"class_weights": "w1", "strategy": "direct"},
    "w2_outer": OUTER["w2_outer"],
    "w2_direct": {"class_weights": "w2", "strategy": "direct"},
    "w1_direct_inference": {
        "class_weights": "w1",
        "strategy": "direct",
        "direct_at_inference": True,
    },
    "w2_direct_inference": {
        "class_weights": "w2",
        "strategy": "direct",
        "direct_at_inference": True,
    },
}


def rows(base, arms):
    """Every arm's settings: the base's, but for what its row says."""
    return {name: base | changes for name, changes in arms.items()}


# BODY 3.2.3: 40,000 steps, gamma and beta from 20,000 on
ICNET = {
    "net": "icnet",
    "size": (320, 320),
    "batch": 64,
    "steps": 40_000,
    "optimizer": "sgd",
    "lr": 0.01,
    "momentum": 0.9,
    "schedule": "poly",
    "poly_power": 0.9,
    "weight_decay": 1e-4,
    "bn_start": 20_000,
    "val_every": 200,
}
SHORT = ICNET | {"steps": 2000, "bn_start": 0, "val_every": 200}
ICNET_STAGES = {
    "search": rows(
        SHORT,
        {
            f"lr{lr:g}_batch{batch}".replace(".", "_"): {"lr": lr, "batch": batch}
            for lr in (0.1, 0.01, 0.001)
            for batch in (16, 32, 64)
        },
    ),
    "filters": rows(ICNET, {"normal": {}, "doubled": {"filter_scale": 2}}),
    "augment": rows(ICNET, AUGMENTATIONS),
    "weighting": rows(ICNET, DIRECT),
    "final": rows(ICNET, {"winner": {"steps": 90_000}}),
    "bn_switch": rows(
        ICNET,
        {
            "at_50": {},
            "at_0": {"bn_start": 0},
            "at_25": {"bn_start": 10_000},
            "never": {"bn_start": 40_000},
        },
    ),
    "pretrained": rows(ICNET, {"scratch": {}, "pretrained": {}}),
}

# BODY 3.3.3: constant 0.01, batch 32
SEGNET_BASIC = {
    "net": "segnet_basic",
    "size": (320, 320),
    "batch": 32,
    "steps": 40_000,
    "optimizer": "adam",
    "lr": 0.01,
    "schedule": "constant",
    "val_every": 200,
}
DOUBLED = SEGNET_BASIC | {"filter_scale": 2}
SEGNET_BASIC_STAGES = {
    "filters": {"normal": SEGNET_BASIC, "doubled": DOUBLED},
    "augment": rows(DOUBLED, AUGMENTATIONS),
    "weighting": rows(DOUBLED, OUTER),
    "final": rows(DOUBLED, {"winner": {"steps": 90_000}}),
}

# BODY 4.1; optimizer of the code it began from
HOURGLASS = {
    "net": "hourglass",
    "size": (320, 320),
    "knobs": {"remat": True},
    "batch": 4,
    "accumulate": 4,
    "steps": 40_000,
    "optimizer": "rmsprop",
    "lr": 2.5e-4,
    "rho": 0.99,
    "epsilon": 1e-8,
    "schedule": "exponential",
    "decay_rate": 0.96,
    "decay_every": 2000,
    "val_every": 200,
}
PLAIN = {"remat": True, "targets": "full", "joints": None}
JOINTS = {"remat": True, "targets": "full", "joints": 24}
TARGETS = rows(
    HOURGLASS,
    {
        "plain": {"knobs": PLAIN},
        "hierarchy": {"knobs": PLAIN | {"targets": "hierarchy"}},
        "joints": {"knobs": JOINTS, "joint_targets": "surreal"},
        "joints_centroid": {"knobs": JOINTS, "joint_targets": "centroid"},
    },
)
HOURGLASS_STAGES = {name: {name: arm} for name, arm in TARGETS.items()} | {
    "targets": TARGETS,
    "joint_weight": rows(
        HOURGLASS | {"knobs": JOINTS},
        {
            "lambda_1": {"joint_loss_weight": 1.0},
            "lambda_0_1": {"joint_loss_weight": 0.1},
            "lambda_10": {"joint_loss_weight": 10.0},
        },
    ),
    "final": {"winner": HOURGLASS},
}

# CLOTH 4.1: rate 0.001, batch 4; 16,000 images, 50 epochs, Adam
CLOTH = {
    "size": (256, 256),
    "batch": 4,
    "steps": 50 * 4000,
    "optimizer": "adam",
    "lr": 0.001,
    "schedule": "constant",
}
GRID = {
    f"{net}_{loss}{end}": CLOTH | {"net": net, "loss": loss, "l1": l1, "l2": l2}
    for net in ("fcn", "unet", "attention_unet", "unet_bn")
    for loss in ("ce", "focal")
    for end, l1, l2 in (
        ("", 0.0, 0.0),
        ("_l2", 0.0, 0.5),
        ("_l1", 0.5, 0.0),
        ("_l1_l2", 0.5, 0.5),
    )
}


def of_grid(*parts):
    return {
        name: arm for name, arm in GRID.items() if re.fullmatch("".join(parts), name)
    }


def named(*names):
    return {name: GRID[name] for name in names}


FIG_5 = named(
    "fcn_focal_l1", "unet_focal_l1", "attention_unet_focal_l1", "unet_bn_focal_l1"
)
CLOTHING_STAGES = {
    "table1": of_grid("(unet|attention_unet|unet_bn)_focal.*"),
    "fig3": GRID,
    "fig4": named("unet_bn_focal_l1", "attention_unet_focal_l1", "unet_focal_l1")
    | {
        "attention_unet_plain_focal_l1": GRID["attention_unet_focal_l1"]
        | {"knobs": {"batch_norm": False}}
    },
    "fig6": of_grid("(unet|unet_bn)_(ce|focal)(_l1_l2)?"),
    "qualitative": FIG_5 | of_grid("(fcn|attention_unet|unet_bn)_(ce|focal).*"),
}

# CITY 3 and 4: 2975 images, so 744 steps an epoch of 4, 1488 of 2
CITY = {
    "net": "fcn_strided",
    "size": (512, 1024),
    "batch": 4,
    "steps": 35 * 744,
    "optimizer": "adam",
    "lr": 0.005,
    "schedule": "constant",
    "loss": "ce",
}
TWO = CITY | {"batch": 2, "steps": 30 * 1488}
STEP10 = TWO | {
    "lr": 1e-4,
    "schedule": "step",
    "decay_rate": 0.1,
    "decay_every": 10 * 1488,
}
AUG = STEP10 | {
    "augment": Augment(mirror=0.2, rotate=10.0, rotate_probability=0.2),
    "weight_decay": 1e-4,
    "decay_on": "all",
}
TABLE_4 = {
    "baseline": CITY,
    "aug": AUG,
    "adapted": CITY | {"net": "fcn_strided_prelu", "steps": 32 * 744},
    "dice": CITY | {"loss": "dice", "steps": 37 * 744},
    "transfer": TWO | {"net": "fcn_resnet50", "knobs": {"freeze": True}},
    "unet": STEP10 | {"net": "unet_slim"},
    "aug_full": AUG | {"size": (1024, 2048)},
}
WHOLE = TABLE_4["transfer"] | {"knobs": {"freeze": False}}
CITYSCAPES_STAGES = (
    {"table4": TABLE_4}
    | {
        name: {name: TABLE_4[name]}
        for name in ("baseline", "aug", "aug_full", "adapted", "dice")
    }
    | {
        "transfer": {
            "transfer": TABLE_4["transfer"],
            "transfer_unfrozen": WHOLE,
            "transfer_scratch": WHOLE,
        },
        "unet": {"unet": TABLE_4["unet"]},
    }
)

# ATTN 3.1: 2975 images, so 12 steps an epoch of 256
ATTN = {
    "net": "fcn_attention",
    "preprocess": "imagenet",
    "size": (224, 224),
    "batch": 16,
    "accumulate": 16,
    "steps": 50 * 12,
    "optimizer": "adam",
    "lr": 1e-3,
    "schedule": "poly",
    "poly_power": 0.95,
}
FCN = ATTN | {"net": "fcn"}
AGAINST_FCN = {
    "fcn": FCN,
    "fcn_attention": ATTN,
    "fcn_vgg16": FCN | {"preprocess": "bgr_minus_mean"},
    "fcn_attention_vgg16": ATTN | {"preprocess": "bgr_minus_mean"},
}
ATTENTION_FCN_STAGES = {
    "cityscapes": AGAINST_FCN,
    "voc2012": AGAINST_FCN,
    "ablation": rows(
        ATTN,
        {
            "full": {},
            "no_skips": {"knobs": {"skips": False}},
            "no_attention": {"knobs": {"attention": False}},
            "no_aspp": {"knobs": {"aspp": False}},
            "pooling": {"knobs": {"downsample": "pool"}},
            "narrow": {"knobs": {"width": 0.234}},
        },
    ),
    "reduction": {"reduction_16": ATTN}
    | rows(
        ATTN, {f"reduction_{c}": {"knobs": {"reduction": c}} for c in (2, 4, 8, 32)}
    ),
}

# VOC07 3: 209 images, so 14 steps an epoch of 16
VOC = {
    "net": "fcn_strided",
    "knobs": {"order": "act_bn"},
    "size": (224, 224),
    "batch": 16,
    "steps": 20 * 14,
    "optimizer": "adam",
    "lr": 0.001,
    "schedule": "constant",
    "normalise": "weights",
}
VOC_4B = VOC | {
    "steps": 50 * 14,
    "lr": 5e-4,
    "class_weights": "voc07",
    "weight_occurrences": "pixels",
    "background_weight": 0.15,
}
VOC_5 = VOC | {
    "knobs": {},
    "steps": 50 * 14,
    "lr": 5e-4,
    "class_weights": "voc07",
    "weight_occurrences": "none",
    "background_weight": 0.1,
}
VOC_TABLE_4 = {
    "baseline": VOC,
    "4a": VOC | {"steps": 30 * 14, "lr": 5e-4, "schedule": "cosine", "lr_min": 1e-4},
    "4b": VOC_4B,
    "4c": VOC_4B | {"augment": Augment(mirror=1.0)},
    "5a": VOC_5 | {"net": "fcn_dilated_tanh"},
    "5b": VOC_5 | {"net": "fcn_resnet34"},
    "5b_scratch": VOC_5 | {"net": "fcn_resnet34"},
    "5c": VOC_5 | {"net": "unet_valid", "lr": 1e-4},
}
VOC2007_STAGES = {
    "table4": VOC_TABLE_4,
    "table4_test": VOC_TABLE_4,
    "occurrences": {
        "4b": VOC_4B,
        "4b_images": VOC_4B | {"weight_occurrences": "images"},
    },
}

# The Caffe files of SegNet; one recipe for the other networks
CAFFE = {
    "net": "segnet_basic",
    "size": (360, 480),
    "pad": True,
    "batch": 4,
    "steps": 10_000,
    "optimizer": "sgd",
    "lr": 0.1,
    "momentum": 0.9,
    "schedule": "constant",
    "weight_decay": 5e-4,
}
OURS_ON_CAMVID = CAFFE | {
    "optimizer": "adam",
    "lr": 1e-3,
    "schedule": "poly",
    "poly_power": 0.9,
    "weight_decay": 0.0,
}
CAMVID_STAGES = {
    "networks": {
        "segnet_basic": CAFFE,
        "segnet": CAFFE | {"net": "segnet", "lr": 0.001, "steps": 40_000},
        "icnet": OURS_ON_CAMVID | {"net": "icnet"},
        "unet_bn": OURS_ON_CAMVID | {"net": "unet_bn"},
        "fcn_strided": OURS_ON_CAMVID | {"net": "fcn_strided"},
        "hourglass": OURS_ON_CAMVID
        | {
            "net": "hourglass",
            "knobs": {"features": 64},
        },
    },
    "weighting": rows(
        CAFFE,
        {
            "none": {},
            "median": {"class_weights": "median"},
            "w1": {"class_weights": "w1", "strategy": "outer"},
            "w2": {"class_weights": "w2", "strategy": "outer"},
        },
    ),
}

TABLES = {
    ("body_parts", "icnet"): ICNET_STAGES,
    ("body_parts", "segnet_basic"): SEGNET_BASIC_STAGES,
    ("body_parts", "hourglass"): HOURGLASS_STAGES,
    ("clothing", "networks"): CLOTHING_STAGES,
    ("cityscapes", "networks"): CITYSCAPES_STAGES,
    ("attention_fcn", "networks"): ATTENTION_FCN_STAGES,
    ("voc2007", "networks"): VOC2007_STAGES,
    ("camvid", "networks"): CAMVID_STAGES,
}
PRETRAINED = {
    "pretrained": "icnet",
    "transfer": "fcn_resnet50",
    "transfer_unfrozen": "fcn_resnet50",
    "fcn_vgg16": "fcn",
    "fcn_attention_vgg16": "fcn_attention",
    "5b": "fcn_resnet34",
}
STUDIES = [
    runpy.run_path(str(path))["STUDY"]
    for path in sorted((ROOT / "ablations" / "studies").glob("*.py"))
]
STUDY_OF_BODY = next(study for study in STUDIES if study.name == "body_parts")
ALL_STAGES = [
    pytest.param(study, plan, stage, id=f"{study.name}-{net}-{stage.name}")
    for study in STUDIES
    for net, plan in study.plans.items()
    for stage in plan.stages
]


def arms_at(scale, study, plan, stage):
    """The stage's arms, each stage from its base: knobs and sizes are no winner's."""
    return stage.arms(plan.base(scale, study.data))


def test_the_tables_have_every_study():
    declared = {(study.name, net) for study in STUDIES for net in study.plans}
    assert declared == set(TABLES)


@pytest.mark.parametrize(("study", "net"), TABLES, ids=str)
def test_a_dry_run_lists_the_documents_arms_and_settings(study, net, capsys):
    main = runpy.run_path(str(RUN))["main"]
    plan = next(one for one in STUDIES if one.name == study).plans[net]
    assert [stage.name for stage in plan.stages] == list(TABLES[study, net])
    for stage, table in TABLES[study, net].items():
        command = ["--study", study, "--net", net, "--stage", stage]
        assert main([*command, "--scale", "paper", "--plan"]) == 0
        heading, *lines = capsys.readouterr().out.splitlines()
        assert heading.startswith(f"{net} {stage}: Starts from ")
        listed = dict(line.strip().split(": ", 1) for line in lines)
        assert list(listed) == list(table)
        for arm, settings in table.items():
            found, wanted = json.loads(listed[arm]), to_dict(Config(**settings))
            for key in OURS:
                if key not in settings:
                    del found[key], wanted[key]
            assert found == wanted, f"{stage} {arm}"


def test_a_dry_run_imports_no_tensorflow():
    commands = [
        ["--study", study, "--net", net, "--stage", "all", "--plan"]
        for study, net in TABLES
    ]
    program = "\n".join(
        (
            "import runpy, sys",
            f"main = runpy.run_path({str(RUN)!r})['main']",
            f"codes = [main(command) for command in {commands}]",
            "assert not any(codes)",
            "assert not {'tensorflow', 'keras'} & set(sys.modules)",
        )
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("study", "plan", "stage"), ALL_STAGES)
def test_every_net_takes_its_knobs_and_size(study, plan, stage, scale):
    for arm in arms_at(scale, study, plan, stage):
        config = arm.config
        nets.input_stride(
            config.net.name, **config.net.knobs
        )  # refuses an unknown knob
        if not config.data.pad:
            nets.refuse_size(config.net.name, config.data.size, **config.net.knobs)


@pytest.mark.parametrize(("study", "plan", "stage"), ALL_STAGES)
def test_a_smoke_test_is_small(study, plan, stage):
    for arm in arms_at("smoke", study, plan, stage):
        config = arm.config
        assert config.steps <= 8, arm.name
        assert config.data.batch * config.optimizer.accumulate <= 2, arm.name
        assert config.validation.samples == 4, arm.name
        assert config.data.size[0] * config.data.size[1] <= 160 * 160, arm.name


@pytest.mark.slow
def test_every_net_is_built_with_its_knobs():
    wanted = {
        (arm.config.net.name, tuple(arm.config.net.knobs.items())): arm.config
        for study in STUDIES
        for plan in study.plans.values()
        for stage in plan.stages
        for arm in arms_at("smoke", study, plan, stage)
    }
    for (net, knobs), config in wanted.items():
        knobs = {key: value for key, value in knobs if key != "remat"}
        size = nets.padded_size(net, config.data.size, **knobs)
        classes = 25 if net == "hourglass" else 3
        assert "logits" in outline(net, size, classes, **knobs).output


@pytest.mark.parametrize(("study", "plan", "stage"), ALL_STAGES)
def test_what_a_stage_names_exists(study, plan, stage):
    arms = arms_at("paper", study, plan, stage)
    names = [arm.name for arm in arms]
    assert len(set(names)) == len(names) == len({arm.title for arm in arms})
    assert stage.question.endswith("?")
    assert stage.published_winner in {None, *names}
    assert set(stage.curves) <= set(HISTORY_KEYS)
    assert set(stage.datasets) <= set(study.datasets)
    scores = {
        key
        for key, value in metrics.summary([[2, 1], [1, 2]]).items()
        if isinstance(value, float)
    }
    for claim in stage.claims:
        assert {claim.arm, claim.than} <= set(names), claim
        assert claim.arm != claim.than
        assert claim.metric in scores | {"train_val_gap", "ms_per_image"}, claim
    for panel in stage.panels.values():
        assert set(panel) <= set(names)
        assert len(set(panel.values())) == len(panel) <= figures.MOST_LABELS
    drawn = {name for panel in stage.panels.values() for name in panel}
    assert drawn in (set(), set(names))
    groups = {name for groups in study.groups.values() for name in groups}
    for arm in arms:
        assert re.fullmatch("[a-z0-9_-]+", arm.name)
        assert arm.pretrained == "" or PRETRAINED[arm.name] == arm.config.net.name
        for key, value in arm.published.items():
            key = key.removesuffix(" ±")
            others = {"f1", "f1_unknown", "iou_batch_present"}
            assert key in scores | groups | others or key.startswith("iou "), key
            assert 0 <= value <= 100 or (arm.name, value) == ("transfer", 138.24)


# CLOTH Fig. 3: (I) to (VIII), each the four nets; Fig. 5: four nets with focal loss
# and L1; Fig. 2: (a) to (c) are nets, (I) to (VIII) in each of them.
NETS_OF_CLOTH = ("fcn", "unet", "attention_unet", "unet_bn")
LOSSES_OF_CLOTH = [
    *("ce", "ce_l2", "ce_l1", "ce_l1_l2"),
    *("focal", "focal_l2", "focal_l1", "focal_l1_l2"),
]


def test_panels_of_cloths_figures():
    plan = next(one for one in STUDIES if one.name == "clothing").plans["networks"]
    fig_3, fig_2_and_5 = (
        [list(panel) for panel in plan.stage(name).panels.values()]
        for name in ("fig3", "qualitative")
    )
    assert fig_3 == [
        [f"{net}_{loss}" for net in NETS_OF_CLOTH] for loss in LOSSES_OF_CLOTH
    ]
    assert fig_2_and_5 == [
        list(FIG_5),
        *(
            [f"{net}_{loss}" for loss in LOSSES_OF_CLOTH]
            for net in ("fcn", "attention_unet", "unet_bn")
        ),
    ]


# Hypotheses that no document states: of the labels put right, of prediction without
# the weights and of pretrained weights the thesis says nothing, of a narrower gap
# only with SegNet; the hourglass' results (BODY 4.1.4) are empty; nobody wrote on
# CamVid with W1 and W2; ATTN measures neither FCN's class accuracy nor the pyramid;
# VOC07 does not say which occurrences it counts.
OUR_HYPOTHESES = {
    ("icnet", "augment"): [("mirror_scale_swap", "plain"), ("mirror_scale", "plain")],
    ("icnet", "weighting"): [("w1_direct_inference", "w1_direct")],
    ("icnet", "pretrained"): [("pretrained", "scratch")],
    ("segnet_basic", "augment"): [("mirror_scale_swap", "plain")],
    ("hourglass", "targets"): [
        ("hierarchy", "plain"),
        ("joints", "plain"),
        ("joints_centroid", "joints"),
    ],
    ("camvid", "weighting"): [
        *(("w1", "none"), ("w2", "none"), ("w2", "w1"), ("w1", "w2"))
    ],
    ("attention_fcn", "cityscapes"): [("fcn_attention", "fcn")],
    ("attention_fcn", "voc2012"): [("fcn_attention", "fcn")],
    ("attention_fcn", "ablation"): [("no_aspp", "full")],
    ("voc2007", "occurrences"): [("4b_images", "4b")],
}


def test_what_no_document_claims_is_ours():
    found = {}
    for study in STUDIES:
        for net, plan in study.plans.items():
            for stage in plan.stages:
                ours = [(one.arm, one.than) for one in stage.claims if one.ours]
                if ours:
                    found[study.name if net == "networks" else net, stage.name] = ours
    assert found == OUR_HYPOTHESES
    (icnet, segnet) = (
        [
            claim.metric
            for claim in STUDY_OF_BODY.plans[net].stage("augment").claims
            if not claim.ours
        ]
        for net in ("icnet", "segnet_basic")
    )
    assert (icnet, segnet) == (["miou"], ["miou", "train_val_gap"])


def test_pixels_against_images_is_what_the_stage_compares():
    """Without the baseline, which VOC07 does not choose between the two."""
    study = next(one for one in STUDIES if one.name == "voc2007")
    plan = study.plans["networks"]
    stage = plan.stage("occurrences")
    base, other = arms_at("paper", study, plan, stage)
    occurrences = [arm.config.loss.occurrences for arm in (base, other)]
    assert occurrences == ["pixels", "images"]
    assert stage.published_winner is None


def test_colours_are_those_of_the_thesis_figure():
    """Fig. 17: red for coarse to fine, blue for joints, green for the original net."""
    found = {
        arm.name: figures.COLOURS.index(arm.colour)
        for study in STUDIES
        for plan in study.plans.values()
        for stage in plan.stages
        for arm in arms_at("paper", study, plan, stage)
        if arm.colour
    }
    blue, green, red = 0, 2, 5
    assert found == {"plain": green, "hierarchy": red, "joints": blue}


def test_arms_that_begin_from_weights():
    begin = {
        arm.name
        for study in STUDIES
        for plan in study.plans.values()
        for stage in plan.stages
        for arm in arms_at("paper", study, plan, stage)
        if arm.pretrained
    }
    assert begin == set(PRETRAINED)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(
    "study",
    [study for study in STUDIES if "networks" in study.plans],
    ids=lambda study: study.name,
)
def test_an_arm_is_the_same_in_every_stage_that_has_it(study, scale):
    plan = study.plans["networks"]
    found = {}
    for stage in plan.stages:
        for arm in arms_at(scale, study, plan, stage):
            assert found.setdefault(arm.name, arm.config) == arm.config, arm.name


@pytest.mark.parametrize(
    ("study", "arm", "published"),
    [
        # CITY Table 4
        (
            "cityscapes",
            "dice",
            {"pixel_accuracy": 74.01, "miou": 21.55, "iou building": 57.57}
            | {"iou traffic sign": 26.20, "iou person": 18.59, "iou car": 42.52}
            | {"iou bicycle": 0.0},
        ),
        # CLOTH Table 1
        (
            "clothing",
            "unet_focal_l1",
            {"iou_ovr2": 63.2, "iou_ovr2 ±": 1.1, "precision_micro_fg": 34.4}
            | {"precision_micro_fg ±": 2.9, "recall_micro_fg": 33.3}
            | {"recall_micro_fg ±": 0.4},
        ),
        # VOC07 Table 4
        (
            "voc2007",
            "5c",
            {"miou": 4.887, "iou_batch_present": 4.887, "pixel_accuracy": 51.972},
        ),
        # ATTN Table 2
        ("attention_fcn", "fcn_attention", {"mean_accuracy": 90.7, "miou": 82.9}),
    ],
)
def test_published_numbers(study, arm, published):
    study = next(one for one in STUDIES if one.name == study)
    plan = study.plans["networks"]
    arms = {one.name: one for one in arms_at("paper", study, plan, plan.stages[0])}
    assert arms[arm].published == published


# BODY Tables 1, 3, 4 and 6: mIoU, accuracy, F1
BODY_SCORES = {
    ("icnet", "filters", "normal"): (38.19, 94.64, 88.17),
    ("icnet", "filters", "doubled"): (27.51, 93.01, 84.97),
    ("icnet", "augment", "plain"): (38.19, 94.64, 88.17),
    ("icnet", "augment", "mirror_scale"): (32.60, 91.15, 91.61),
    ("icnet", "final", "winner"): (45.14, 95.76, 89.73),
    ("segnet_basic", "filters", "normal"): (38.80, 94.87, 54.34),
    ("segnet_basic", "filters", "doubled"): (39.17, 94.79, 54.49),
    ("segnet_basic", "augment", "plain"): (39.17, 94.79, 54.49),
    ("segnet_basic", "augment", "mirror_scale"): (23.28, 89.24, 33.21),
    ("segnet_basic", "final", "winner"): (33.59, 94.62, 44.32),
}
# BODY Tables 2 and 5: mIoU, class accuracy, then that of the groups
BODY_GROUPS = (
    *("Background", "Head", "Torso", "U.Legs", "L.Legs", "Neck", "Shoulder"),
    *("U.Arms", "L.Arms", "Feets", "Hands", "Fingers", "Toes"),
)
BODY_WEIGHTING = {
    "icnet": """
normal     38.2 48.7  98.9 84.9 74.78 64.3 53.8 64.0 54.2 52.7  39.5  32.3  19.8  9.3  9.5
w1_outer   37.5 52.3  97.7 90.0 74.8  70.9 61.7 60.9 56.0 57.34 50.1  38.9  22.9 10.2 11.3
w1_direct   6.5  7.9  99.9 6.13 15.5   7.7  0.8  0.0  4.7  1.9   0.0   3.6   0.0  0.0  0.0
w2_outer   25.8 54.8  89.2 89.3 61.6  64.1 65.2 72.4 60.3 47.0  46.03 52.35 33.4 31.0 36.9
w2_direct  25.5 34.0  99.3 78.7 70.7  70.0 59.0  1.9  8.9 32.9  15.7   7.1   0.5  0.0  0.0
""",  # noqa: E501
    "segnet_basic": """
normal     39.17 49.9  99.1 84.2 70.9 63.2 58.4 58.1 51.8 52.7 43.9 39.9 28.8 12.4  9.8
w1_outer   38.8  55.6  97.5 90.3 74.2 66.8 61.8 58.3 65.1 62.0 49.6 42.0 36.3 25.3 14.2
w2_outer   21.65 56.3  78.18 79.8 65.6 60.0 57.1 85.8 71.1 52.5 51.8 44.2 41.7 34.1 38.4
""",
}


def published_of_body(net, stage):
    """{arm: its published numbers} of the arms that have any."""
    plan = STUDY_OF_BODY.plans[net]
    arms = arms_at("paper", STUDY_OF_BODY, plan, plan.stage(stage))
    return {arm.name: arm.published for arm in arms if arm.published}


@pytest.mark.parametrize("stage", ["filters", "augment", "final"])
@pytest.mark.parametrize(
    ("net", "f1"), [("icnet", "f1_unknown"), ("segnet_basic", "f1")]
)
def test_published_scores_of_body(net, f1, stage):
    """Only SegNet's F1 can be the macro F1: it is at most 2 mIoU / (1 + mIoU)."""
    wanted = {
        arm: {"miou": row[0], "pixel_accuracy": row[1], f1: row[2]}
        for (of_net, of_stage, arm), row in BODY_SCORES.items()
        if (of_net, of_stage) == (net, stage)
    }
    assert published_of_body(net, stage) == wanted
    for miou, _, score in (row for key, row in BODY_SCORES.items() if key[0] == net):
        assert (score <= 200 * miou / (100 + miou)) == (f1 == "f1")


@pytest.mark.parametrize("net", BODY_WEIGHTING)
def test_published_weighting_of_body(net):
    wanted = {}
    for line in BODY_WEIGHTING[net].strip().splitlines():
        arm, *numbers = line.split()
        keys = ("miou", "mean_accuracy", *BODY_GROUPS)
        wanted[arm] = dict(zip(keys, map(float, numbers), strict=True))
    assert published_of_body(net, "weighting") == wanted


def test_the_hourglass_has_no_published_number():
    stages = STUDY_OF_BODY.plans["hourglass"].stages
    assert not any(published_of_body("hourglass", stage.name) for stage in stages)


def test_published_numbers_of_the_test_images():
    study = next(one for one in STUDIES if one.name == "voc2007")
    plan = study.plans["networks"]
    stage = plan.stage("table4_test")
    assert stage.split == "test"
    arms = {arm.name: arm for arm in arms_at("paper", study, plan, stage)}
    assert arms["5b"].published["miou"] == 10.563
    assert arms["5b"].published["pixel_accuracy"] == 70.622
    assert arms["5b_scratch"].published == {}
