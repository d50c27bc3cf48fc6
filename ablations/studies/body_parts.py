"""The thesis: ablations of three networks on body parts (BODY 3, 4 and 5).

Question: which width, augmentation and class weighting does each general network want
on SURREAL's 24 body parts, and does a network of the human body gain from coarse to
fine labels or from joints? The protocol (BODY 3.1): compare the network with its
doubled filters; the better one with and without augmentation; the better of those with
every class weighting; train the winner long and score it on the test split. The winner
is the arm with the higher validation mIoU. BODY 5, the comparison of the networks, is
empty in the thesis; `--stage compare` fills it.

BODY does not name the following, so they are ours or from the public code it names: the
weights of ICNet's branches (1, 0.4, 0.16; it prints lambda 1 to 3), the probability of
mirroring (0.5) and the range of scaling (0.5 to 2), the size of the input but for the
hourglass (320), that the best checkpoint is scored, the hourglass' optimizer and batch
and the weight of its joint branch. Momentum is Keras' rule, in which past gradients
keep the learning rate they had; tf.train's multiplies them by the present one.

Two readings have arms of their own. "180 degrees flip" is a mirror image in the public
code, and here; `flip180_scale` turns the image by half instead. Until half of the steps
"beta, gamma, mu and sigma are not trained and correspond to fixed random values": that
is `bn_mode=full`, the arms `full_at_50` and `full_never`. `bn_mode=affine`, which all
other stages have, is not BODY's wording: it fixes beta and gamma only.

BODY's code can load published Cityscapes weights, which exist for the normal width
only. That the normal net started from them and the doubled one did not is a guess: the
text does not say. Here both start from scratch; with `--init-weights FILE --init-base`
the base, and every arm of its width, starts from them.

Contradictions in the text: doubling the filters multiplies the parameters by four, not
two; mirroring did not exchange left and right ids; Table 2's direct W1 row is not
consistent with itself (mean of the groups 8.2, printed 7.9); its remark that upper legs
do better than background under W2 (outer) fits the head; the F1 of the ICNet rows is
higher than any macro F1 that their mIoU allows, 2 mIoU / (1 + mIoU), so the two
networks' F1 cannot be compared; the doubled SegNet is said to be better in "all the
performance metrics", but Table 4 has a lower accuracy for it (94.79 against 94.87);
Table 6 calls its row "Normal" and its caption the doubled net, which it is. No number
is printed for the hourglass.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

from keras_seg.ablation.protocol import (
    Arm,
    Claim,
    DataFacts,
    Plan,
    Stage,
    Study,
    claim,
)
from keras_seg.config import Augment, Config
from keras_seg.data.surreal import GROUPS

MIRROR_AND_SCALE = Augment(mirror=0.5, swap_lr=False, scale=(0.5, 2.0))
NOISE = 10.0  # grey levels
RED, BLUE, GREEN = "#d55e00", "#0072b2", "#009e73"  # of Fig. 17
EXCHANGED = "Not in the thesis: a mirrored left arm is labelled right arm."
WEIGHTS = "ICNet, Cityscapes"


def published(miou, mean_accuracy, *groups):
    """A row of Table 2 or 5: percentages in the table's order."""
    row = {"miou": miou, "mean_accuracy": mean_accuracy}
    return row | dict(zip(GROUPS, groups))


def icnet_scores(miou, pixel_accuracy, f1):
    """A row of Table 1 or 3: percentages; no macro F1, which the mIoU would bound."""
    return {"miou": miou, "pixel_accuracy": pixel_accuracy, "f1_unknown": f1}


def segnet_scores(miou, pixel_accuracy, f1):
    """A row of Table 4 or 6: percentages."""
    return {"miou": miou, "pixel_accuracy": pixel_accuracy, "f1": f1}


# Table 2, page 12.
ICNET_WEIGHTING = {
    "normal": published(
        *(38.2, 48.7, 98.9, 84.9, 74.78, 64.3, 53.8, 64.0),
        *(54.2, 52.7, 39.5, 32.3, 19.8, 9.3, 9.5),
    ),
    "w1_outer": published(
        *(37.5, 52.3, 97.7, 90.0, 74.8, 70.9, 61.7, 60.9),
        *(56.0, 57.34, 50.1, 38.9, 22.9, 10.2, 11.3),
    ),
    "w1_direct": published(
        *(6.5, 7.9, 99.9, 6.13, 15.5, 7.7, 0.8, 0.0),
        *(4.7, 1.9, 0.0, 3.6, 0.0, 0.0, 0.0),
    ),
    "w2_outer": published(
        *(25.8, 54.8, 89.2, 89.3, 61.6, 64.1, 65.2, 72.4),
        *(60.3, 47.0, 46.03, 52.35, 33.4, 31.0, 36.9),
    ),
    "w2_direct": published(
        *(25.5, 34.0, 99.3, 78.7, 70.7, 70.0, 59.0, 1.9),
        *(8.9, 32.9, 15.7, 7.1, 0.5, 0.0, 0.0),
    ),
}


# Table 5, page 21.
SEGNET_WEIGHTING = {
    "normal": published(
        *(39.17, 49.9, 99.1, 84.2, 70.9, 63.2, 58.4, 58.1),
        *(51.8, 52.7, 43.9, 39.9, 28.8, 12.4, 9.8),
    ),
    "w1_outer": published(
        *(38.8, 55.6, 97.5, 90.3, 74.2, 66.8, 61.8, 58.3),
        *(65.1, 62.0, 49.6, 42.0, 36.3, 25.3, 14.2),
    ),
    "w2_outer": published(
        *(21.65, 56.3, 78.18, 79.8, 65.6, 60.0, 57.1, 85.8),
        *(71.1, 52.5, 51.8, 44.2, 41.7, 34.1, 38.4),
    ),
}


# Stages that several networks share


def search(base: Config) -> list[Arm]:
    """BODY 3.1: "several, short, runs" over learning rate and batch size."""
    short = base.changed(optimizer={"bn_start": 0}, steps=max(1, base.steps // 20))
    short = short.changed(validation={"every": max(1, short.steps // 10)})
    return [
        Arm(
            f"lr{lr:g}_batch{batch}".replace(".", "_"),
            f"learning rate {lr:g}, batch {batch}",
            short.changed(optimizer={"lr": lr}, data={"batch": batch}),
        )
        for lr in (base.optimizer.lr * 10, base.optimizer.lr, base.optimizer.lr / 10)
        for batch in sorted({max(1, base.data.batch // part) for part in (4, 2, 1)})
    ]


SEARCH = Stage(
    "search",
    "Which learning rate and batch size suit short runs?",
    "BODY 3.1",
    search,
    in_chain=False,
)


def start_note(base: Config) -> str:
    """What limits ICNet's published numbers where the base starts from scratch."""
    if base.net.name != "icnet" or base.net.init_weights_sha256 is not None:
        return ""
    return (
        "The thesis may have started from published Cityscapes weights; this arm "
        "starts from scratch."
    )


def filters(normal: Mapping, doubled: Mapping):
    def arms(base: Config) -> list[Arm]:
        wide = base.changed(net={"filter_scale": 2, "init_weights_sha256": None})
        note = "From scratch: the published weights are of the normal width."
        note = note if base.net.init_weights_sha256 is not None else ""
        return [
            Arm("normal", "Normal", base, normal, start_note(base)),
            Arm("doubled", "Doubled filters", wide, doubled, note),
        ]

    return arms


def final(
    arms,
    source: str,
    question: str = "How far does the winner get in a long run?",
    claims: tuple[Claim, ...] = (),
) -> Stage:
    """The end of a chain: its winner on the test images, exported."""
    return Stage(
        "final",
        question,
        source,
        arms,
        split="test",
        full_size=True,  # only at scale paper do the networks have equal sizes
        exports=True,
        claims=claims,
    )


def long_run(row: Mapping):
    """90,000 steps instead of 40,000; batch norm from step 20,000 as before."""

    def arms(base: Config) -> list[Arm]:
        longer = base.changed(steps=base.steps * 9 // 4)
        return [Arm("winner", "Winner, 9/4 steps", longer, row, start_note(base))]

    return arms


def augmentations(plain: Mapping, mirror_scale: Mapping):
    """The thesis' two rows, and those that take its augmentation apart."""

    def arms(base: Config) -> list[Arm]:
        def row(name, title, augment, published=None, note=""):
            config = base.changed(augment=augment)
            return Arm(name, title, config, published or {}, note)

        both, mirror = MIRROR_AND_SCALE, replace(MIRROR_AND_SCALE, scale=(1.0, 1.0))
        return [
            row("plain", "No augmentation", Augment(), plain, start_note(base)),
            row(
                "mirror_scale",
                "Mirror + scale",
                both,
                mirror_scale,
                "Mirrors without exchanging left and right ids, as the thesis did.",
            ),
            row(
                "mirror_scale_swap",
                "Mirror + scale, left/right exchanged",
                replace(both, swap_lr=True),
                note=EXCHANGED,
            ),
            row("mirror", "Mirror", mirror),
            row(
                "mirror_swap",
                "Mirror, left/right exchanged",
                replace(mirror, swap_lr=True),
                note=EXCHANGED,
            ),
            row("scale", "Scale", replace(both, mirror=0.0)),
            row(
                "flip180_scale",
                "Half turn + scale",
                replace(both, mirror=0.0, flip180=both.mirror),
                note="“180° degrees flip” to the letter; the public code mirrors.",
            ),
            row(
                "noise",
                "Noise",
                Augment(noise=NOISE),
                note=f"Gaussian, {NOISE:g} grey levels; the thesis suggests noise, "
                "untried.",
            ),
        ]

    return arms


def weighting(rows: Mapping[str, Mapping], strategies: tuple[str, ...]):
    """Every class weighting of BODY 3.1 against none."""

    def arms(base: Config) -> list[Arm]:
        made = [Arm("normal", "Normal", base, rows["normal"], start_note(base))]
        for weights in ("w1", "w2"):
            for strategy in strategies:
                name = f"{weights}_{strategy}"
                config = base.changed(loss={"weights": weights, "strategy": strategy})
                title = f"{weights.upper()} ({strategy})"
                made.append(Arm(name, title, config, rows.get(name, {})))
        made += [
            replace(
                arm,
                name=f"{arm.name}_inference",
                title=f"{arm.title[:-1]}, at inference too)",
                config=arm.config.changed(loss={"direct_at_inference": True}),
                published={},
                note="Not in the thesis, whose weights multiply the logits in training "
                "only.",
            )
            for arm in made
            if arm.config.loss.strategy == "direct"
        ]
        return made

    return arms


def augment(
    table: str,
    plain: Mapping,
    mirror_scale: Mapping,
    more: tuple[Claim, ...],
    gap_is_ours: bool,
) -> Stage:
    """`more` are claims of one network's section."""
    return Stage(
        "augment",
        "Does mirroring and scaling the training images help?",
        table,
        augmentations(plain, mirror_scale),
        published_winner="plain",
        claims=(
            claim("mirroring and scaling hurt", "mirror_scale < plain"),
            claim(
                "mirroring and scaling lower the accuracy too",
                "mirror_scale < plain",
                "pixel_accuracy",
            ),
            *more,
            claim(
                "augmentation hurts even without the thesis' label error",
                "mirror_scale_swap < plain",
                ours=True,
            ),
            claim(
                "augmentation narrows the gap between training and validation",
                "mirror_scale < plain",
                "train_val_gap",
                ours=gap_is_ours,
            ),
        ),
    )


OUTER_CLAIMS = (
    claim("W1 outside the loss does not raise mIoU", "w1_outer <= normal"),
    claim("W2 outside the loss lowers mIoU", "w2_outer < normal"),
    claim(
        "W2 balances the classes better than W1 does",
        "w2_outer > w1_outer",
        "mean_accuracy",
    ),
    claim("W1 reaches a higher mIoU than W2", "w1_outer > w2_outer"),
    claim(
        "W1 outside the loss raises class accuracy",
        "w1_outer > normal",
        "mean_accuracy",
    ),
    claim(
        "W2 outside the loss raises class accuracy",
        "w2_outer > normal",
        "mean_accuracy",
    ),
)
DIRECT_CLAIMS = (
    claim("W1 on the logits is of no use", "w1_direct < normal"),
    claim("W2 on the logits is of no use", "w2_direct < normal"),
    claim(
        "W1 on the logits is the worst in class accuracy too",
        "w1_direct < normal",
        "mean_accuracy",
    ),
    claim(
        "W2 on the logits is worse in class accuracy too",
        "w2_direct < normal",
        "mean_accuracy",
    ),
    claim("W1 is worse on the logits than outside", "w1_direct < w1_outer"),
    claim("W2 is worse on the logits than outside", "w2_direct < w2_outer"),
    claim(
        "what ruins W1 on the logits is that prediction leaves the weights out",
        "w1_direct_inference > w1_direct",
        ours=True,
    ),
)


# ICNet, BODY 3.2


def icnet(data: DataFacts) -> Config:
    """ICNet, trained as in BODY 3.2.3."""
    return Config(
        net="icnet",
        data={"size": data.size(320 * 320, stride=32), "batch": 64},
        optimizer={
            "name": "sgd",
            "lr": 0.01,
            "momentum": 0.9,
            "schedule": "poly",
            "poly_power": 0.9,
            "weight_decay": 1e-4,
            "bn_start": 20_000,
        },
        validation={"every": 200},
        steps=40_000,
    )


# Few steps from scratch: Adam at 3e-3 learns in hundreds of steps what SGD at 0.01
# needs thousands for.
FAST = {
    "data.size": 96 * 128,
    "data.batch": 16,
    "optimizer.name": "adam",
    "optimizer.lr": 3e-3,
}
ICNET_SCALES = {
    "bench": FAST | {"optimizer.bn_start": 200, "validation.every": 50, "steps": 400},
    "demo": FAST | {"optimizer.bn_start": 60, "validation.every": 15, "steps": 120},
}


def batch_norm_switch(base: Config) -> list[Arm]:
    """BODY 3.2.4: when gamma and beta join "is not significant"."""
    every = base.validation.every
    arms = [
        Arm(
            name, title, base.changed(optimizer={"bn_start": round(base.steps * share)})
        )
        for name, title, share in (
            ("at_50", "Gamma and beta from half of the steps", 0.5),
            ("at_0", "From the start", 0.0),
            ("at_25", "From a quarter of the steps", 0.25),
            ("never", "Never", 1.0),
        )
    ]
    # Mean and deviation can be fixed only between two validations.
    for name, title, windows in (
        ("full_at_50", "All of batch norm from half", round(base.steps / 2 / every)),
        ("full_never", "None of batch norm ever", math.ceil(base.steps / every)),
    ):
        full = {"bn_mode": "full", "bn_start": max(1, windows) * every}
        note = "Fixed until then: beta, gamma, mu and sigma, as BODY 3.2.4 words it."
        arms.append(Arm(name, title, base.changed(optimizer=full), note=note))
    return arms


def pretrained(base: Config) -> list[Arm]:
    """What may confound Table 1: only the normal net can start from weights."""
    scratch = base.changed(net={"init_weights_sha256": None})
    return [
        Arm("scratch", "From scratch", scratch),
        Arm("pretrained", "Pretrained", scratch, pretrained=WEIGHTS),
    ]


def frames(base: Config) -> list[Arm]:
    """All training frames, a half, a quarter and an eighth of the thesis' 90,000.

    At smaller scales the parts shrink as the steps do.
    """
    half = base.steps * 45_000 // 40_000
    return [Arm("all", "All frames", base)] + [
        Arm(
            f"part_{parts}",
            f"1/{parts} of the frames",
            base.changed(data={"samples": max(1, 2 * half // parts)}),
        )
        for parts in (2, 4, 8)
    ]


ICNET_NORMAL = icnet_scores(38.19, 94.64, 88.17)
ICNET_STAGES = (
    SEARCH,
    Stage(
        "filters",
        "Does doubling every convolution's filters help?",
        "BODY 3.2.3, Table 1",
        filters(ICNET_NORMAL, icnet_scores(27.51, 93.01, 84.97)),
        published_winner="normal",
        claims=(
            claim("doubling the filters hurts", "doubled < normal"),
            claim(
                "doubling the filters lowers the accuracy",
                "doubled < normal",
                "pixel_accuracy",
            ),
            claim("the doubled net overfits more", "doubled > normal", "train_val_gap"),
        ),
    ),
    augment(
        "BODY 3.2.3, Table 1",
        ICNET_NORMAL,
        icnet_scores(32.60, 91.15, 91.61),
        (
            claim(
                "augmentation raises F1 (of an unknown kind; here the weighted one)",
                "mirror_scale > plain",
                "f1_weighted",
            ),
        ),
        gap_is_ours=True,  # BODY 3.3.4 states it of SegNet only
    ),
    Stage(
        "weighting",
        "Does weighting the classes in the loss help?",
        "BODY 3.2.3, Table 2",
        weighting(ICNET_WEIGHTING, ("outer", "direct")),
        published_winner="normal",
        claims=OUTER_CLAIMS + DIRECT_CLAIMS,
    ),
    final(
        long_run(icnet_scores(45.14, 95.76, 89.73)),
        "BODY 3.2.3, Table 3",
        claims=(
            # 45.14 on test images against 38.19 on those of validation: 7 points are
            # what the thesis calls "not much".
            claim(
                "90,000 steps are better than 40,000 by no more than 7 points",
                "winner@test <= weighting/winner@val",
                margin=0.07,
            ),
        ),
    ),
    Stage(
        "bn_switch",
        "Does it matter when batch norm's gamma and beta begin to be trained?",
        "BODY 3.2.4",
        batch_norm_switch,
        in_chain=False,
        claims=(
            claim("from the start is as good", "at_0 = at_50"),
            claim("from a quarter is as good", "at_25 = at_50"),
            claim("never training them is worse", "never < at_50"),
            claim(
                "never training all of batch norm is worse", "full_never < full_at_50"
            ),
            claim("the score jumps where gamma and beta join", "at_50 > never", "jump"),
            claim(
                "the score jumps where all of batch norm joins",
                "full_at_50 > full_never",
                "jump",
            ),
        ),
    ),
    Stage(
        "pretrained",
        "How much of the normal net's lead may be pretrained weights?",
        "BODY 3.2.3: “Enable loading of pretrained model”",
        pretrained,
        in_chain=False,
        claims=(
            claim("starting from weights helps", "pretrained > scratch", ours=True),
        ),
    ),
    Stage(
        "frames",
        "How many of SURREAL's frames does it take?",
        "BODY 2.2: “a cluster of approx. 90k images”, of 6.5 million",
        frames,
        in_chain=False,
        decides=False,
        claims=(
            claim("half of the frames are as good", "part_2 >= all", ours=True),
            claim("an eighth of the frames is worse", "part_8 < all", ours=True),
        ),
    ),
)


# SegNet-basic, BODY 3.3


def segnet_basic(data: DataFacts) -> Config:
    """SegNet-basic, trained as in BODY 3.3.3."""
    return Config(
        net="segnet_basic",
        data={"size": data.size(320 * 320, stride=16), "batch": 32},
        optimizer={"name": "adam", "lr": 0.01, "schedule": "constant"},
        validation={"every": 200},
        steps=40_000,
    )


# 7x7 convolutions cost 25 times ICNet's; few steps end better on a falling rate.
SMALL = {"data.batch": 8, "optimizer.lr": 3e-3, "optimizer.schedule": "poly"}
SEGNET_SCALES = {
    "bench": SMALL | {"data.size": 64 * 64, "validation.every": 40, "steps": 200},
    "demo": SMALL | {"data.size": 48 * 48, "validation.every": 10, "steps": 40},
}
SEGNET_DOUBLED = segnet_scores(39.17, 94.79, 54.49)
SEGNET_STAGES = (
    SEARCH,
    Stage(
        "filters",
        "Does doubling every convolution's filters help?",
        "BODY 3.3.3, Table 4",
        filters(segnet_scores(38.80, 94.87, 54.34), SEGNET_DOUBLED),
        published_winner="doubled",
        claims=(
            claim("doubling the filters helps", "doubled > normal"),
            claim(
                "doubling the filters raises the accuracy (Table 4 says lower)",
                "doubled > normal",
                "pixel_accuracy",
            ),
            claim("doubling the filters raises F1", "doubled > normal", "f1_macro"),
        ),
    ),
    augment(
        "BODY 3.3.3, Table 4",
        SEGNET_DOUBLED,
        segnet_scores(23.28, 89.24, 33.21),
        (claim("augmentation lowers F1", "mirror_scale < plain", "f1_macro"),),
        gap_is_ours=False,
    ),
    Stage(
        "weighting",
        "Does weighting the classes in the loss help?",
        "BODY 3.3.3, Table 5",
        weighting(SEGNET_WEIGHTING, ("outer",)),
        published_winner="normal",
        claims=OUTER_CLAIMS,
    ),
    final(
        long_run(segnet_scores(33.59, 94.62, 44.32)),
        "BODY 3.3.3, Table 6",
        claims=(
            claim(
                "the test images score far below those of validation after 40,000 "
                "steps",
                "winner@test < weighting/winner@val",
            ),
            claim(
                "the same run scores lower on test than on validation",
                "winner@test < winner@val",
                ours=True,
            ),
        ),
    ),
)


# Stacked hourglass, BODY 4


def hourglass(data: DataFacts) -> Config:
    """The hourglass of BODY 4.1, which does not name an optimizer.

    This one is from the public code that it builds on.
    """
    return Config(
        net={"name": "hourglass", "remat": True},
        data={"size": data.size(320 * 320, stride=16), "batch": 4},
        optimizer={
            "accumulate": 4,
            "name": "rmsprop",
            "lr": 2.5e-4,
            "rho": 0.99,
            "epsilon": 1e-8,
            "schedule": "exponential",
            "decay_rate": 0.96,
            "decay_every": 2000,
        },
        validation={"every": 200, "batch": 4},
        steps=40_000,
    )


# 64 features instead of 256 cost a sixteenth; the four stacks are kept.
NARROW = {
    "net": {"name": "hourglass", "features": 64, "stem": 32, "stem_stride": 2},
    "data.size": 128 * 128,
    "optimizer.accumulate": 1,
    "optimizer.lr": 1e-3,
}
HOURGLASS_SCALES = {
    "bench": NARROW
    | {"validation.every": 100, "optimizer.decay_every": 50, "steps": 1000},
    "demo": NARROW | {"validation.every": 10, "optimizer.decay_every": 3, "steps": 60},
    "smoke": {"net.features": 8, "net.stem": 8, "net.stacks": 2, "net.depth": 2},
}


def hourglass_arms(base: Config) -> list[Arm]:
    plain = base.changed(net={"targets": "full", "joints": None})
    hierarchy = plain.changed(net={"targets": "hierarchy"})
    jointly = plain.changed(net={"joints": 24})
    centroids = jointly.changed(data={"joints": "centroid"})
    return [
        Arm("plain", "Plain", plain, colour=GREEN),
        Arm("hierarchy", "Coarse to fine", hierarchy, colour=RED),
        Arm("joints", "With joints", jointly, colour=BLUE),
        Arm("joints_centroid", "With centroids of the parts", centroids),
    ]


def alone(name: str, question: str, source: str, sheets: tuple[str, ...] = ()) -> Stage:
    """One arm of the comparison, as a stage of its own."""

    def arms(base: Config) -> list[Arm]:
        return [arm for arm in hourglass_arms(base) if arm.name == name]

    return Stage(
        name, question, source, arms, in_chain=False, decides=False, sheets=sheets
    )


def joint_weights(base: Config) -> list[Arm]:
    """Three weights of the joint branch's loss; the thesis names none."""
    jointly = base.changed(net={"targets": "full", "joints": 24})
    return [
        Arm(
            f"lambda_{weight:g}".replace(".", "_"),
            f"Joint loss × {weight:g}",
            jointly.changed(loss={"joint_weight": weight}),
        )
        for weight in (1.0, 0.1, 10.0)
    ]


HOURGLASS_STAGES = (
    SEARCH,
    alone("plain", "What does the hourglass reach on the plain task?", "BODY 4.1.3"),
    alone(
        "hierarchy",
        "What does it reach with labels from coarse to fine?",
        "BODY 4.1.3, Fig. 14",
        sheets=("hierarchy",),
    ),
    alone(
        "joints",
        "What does it reach with a branch that locates joints?",
        "BODY 4.1.3, Fig. 15 and 16",
        sheets=("joints",),
    ),
    alone(
        "joints_centroid",
        "What does it reach with a branch that locates the parts' centres?",
        "BODY 4.1.3, Fig. 16",
        sheets=("joints",),
    ),
    Stage(
        "targets",
        "Do coarse to fine labels or joints help the hourglass?",
        "BODY 4.1.3, Fig. 17",
        hourglass_arms,
        # BODY 4.1.3 asks, but 4.1.4, the results, is empty.
        claims=(
            claim("coarse to fine labels help", "hierarchy > plain", ours=True),
            claim("locating joints helps", "joints > plain", ours=True),
            claim("centroids serve as well", "joints_centroid = joints", ours=True),
        ),
        sheets=("hierarchy", "joints"),
    ),
    Stage(
        "joint_weight",
        "How much should the joints' loss weigh?",
        "BODY 4.1.3: the weight is not named",
        joint_weights,
        in_chain=False,
        decides=False,
    ),
    final(
        lambda base: [Arm("winner", "Winner", base)],
        "BODY 4.1.4, empty in the thesis",
        "What does the winner reach on the test images?",
    ),
)

STUDY = Study(
    name="body_parts",
    demo_seeds=2,
    title="Body parts: width, augmentation and class weighting",
    datasets=("surreal",),
    data=DataFacts(image_size=(320, 320), train_images=90_000, classes=25),
    plans={
        "icnet": Plan(icnet, ICNET_STAGES, ICNET_SCALES, pretrained=WEIGHTS),
        "segnet_basic": Plan(segnet_basic, SEGNET_STAGES, SEGNET_SCALES, stride=16),
        "hourglass": Plan(hourglass, HOURGLASS_STAGES, HOURGLASS_SCALES),
    },
    groups={"surreal": GROUPS, "synthetic_humans": GROUPS},
    compare={"icnet": "final", "segnet_basic": "final", "hourglass": "final"},
    compare_source="BODY 5, empty in the thesis",
    synthetic=True,
)
