"""U-Net with batch norm everywhere and focal loss with L1, on ATR's clothes (CLOTH).

Question: what do batch norm in all layers, the attention gate, the focal loss and a
penalty on the prediction's error, L1 or L2, add to a U-Net? The grid is {FCN, U-Net,
Attention U-Net, U-Net BN} x {cross-entropy, focal} x {none, L2, L1, both}, penalties
with weight 0.5; the stages are the figures and the table that CLOTH cuts out of it, and
an arm that several of them share is trained once. Table 1 prints means and deviations
of three runs, so at scale paper every arm has three (`--seeds` changes it). Fig. 3 is
drawn as its eight panels, one for each loss, with the curves of the four nets; Fig. 5
as one grid of pictures, the four nets with focal + L1, and Fig. 2 as a grid for each of
its three nets, with the eight losses.

CLOTH's IOU is the mean over the clothes of the two-class IoU of each against all the
rest (`iou_ovr2`): nothing else gives 0.496 together with a recall of 0.000. We read its
precision and recall as those of all pixels of clothes (`*_micro_fg`).

"L1 and L2 regularization" is read as a penalty on the prediction's error: the text
speaks of "the calculated difference between the predicted value and the correct value".
It may as well mean the weights; `kernels` compares the two.

CLOTH does not name the following, so they are our choice: the optimizer (Adam), 50
epochs, FCN's variant (8s) and that it is trained from scratch, as the U-Nets are; gamma
2 and alpha 0.25 of the focal loss; whether the Attention U-Net has batch
norm (it has; fig4 has it without as well), and which nets Fig. 4 and 6 show.

Contradictions in the text: it calls focal + L1 with batch norm the best of all, but
Table 1 gives U-Net BN the highest IOU without any penalty (0.731; L1: 0.729); panel VII
of the figures is said to be the best and the worst (VIII, with both penalties, must be
the worst); "23 %" for L1 on the U-Net and "22 %" for batch norm fit no two numbers of
Table 1 (0.632 against 0.496 is 27 % or 13.6 points); the attention gate is said to
hurt, but the Attention U-Net beats the U-Net in every row; the penalties are said to
help focal loss, but with both the U-Net stays at 0.496 and U-Net BN loses 0.1 points.
"""

from keras_seg.ablation import protocol
from keras_seg.ablation.protocol import Arm, Claim, DataFacts, Plan, Stage, Study
from keras_seg.config import Config

NETS = {
    "fcn": "FCN",
    "unet": "U-Net",
    "attention_unet": "Attention U-Net",
    "unet_bn": "U-Net BN",
}
U_NETS = ("unet", "attention_unet", "unet_bn")
FIG_2_NETS = ("fcn", "attention_unet", "unet_bn")
LOSSES = {"ce": "cross-entropy", "focal": "focal"}
PENALTIES = {  # end of an arm's name: end of its title, L1, L2
    "": ("", 0.0, 0.0),
    "_l2": (" + L2", 0.0, 0.5),
    "_l1": (" + L1", 0.5, 0.0),
    "_l1_l2": (" + L1 + L2", 0.5, 0.5),
}
# The other reading of "L1 and L2 regularization"; ends of names as above
ON_KERNELS = {
    f"{end}_kernels": (f"{title} on the weights", l1, l2)
    for end, (title, l1, l2) in PENALTIES.items()
    if end
}
IOU = "iou_ovr2"
FOREGROUND = ("f1_micro_fg", "precision_micro_fg", "recall_micro_fg")
EPOCHS, BATCH = 50, 4


def published(iou, precision, recall):
    """A row of Table 1: percentages, each a mean and a deviation over three runs."""
    row = {}
    keys = (IOU, "precision_micro_fg", "recall_micro_fg")
    for key, (mean, deviation) in zip(keys, (iou, precision, recall)):
        row |= {key: mean, f"{key} ±": deviation}
    return row


TABLE_1 = {
    "unet_focal": published((49.6, 0.0), (0.1, 0.0), (0.0, 0.0)),
    "unet_focal_l2": published((49.6, 0.0), (0.1, 0.1), (0.0, 0.0)),
    "unet_focal_l1": published((63.2, 1.1), (34.4, 2.9), (33.3, 0.4)),
    "unet_focal_l1_l2": published((49.6, 0.0), (0.3, 0.2), (0.0, 0.0)),
    "attention_unet_focal": published((71.5, 0.8), (53.6, 0.2), (42.0, 0.2)),
    "attention_unet_focal_l2": published((72.4, 0.5), (55.5, 0.5), (44.4, 1.3)),
    "attention_unet_focal_l1": published((72.3, 0.2), (55.4, 0.6), (44.1, 0.4)),
    "attention_unet_focal_l1_l2": published((72.3, 0.5), (54.8, 1.2), (43.7, 1.3)),
    "unet_bn_focal": published((73.1, 0.2), (56.5, 0.7), (46.4, 0.5)),
    "unet_bn_focal_l2": published((72.8, 0.4), (56.4, 0.4), (45.8, 0.4)),
    "unet_bn_focal_l1": published((72.9, 0.3), (56.7, 0.3), (45.9, 0.7)),
    "unet_bn_focal_l1_l2": published((73.0, 0.1), (56.4, 0.6), (46.1, 0.1)),
}


def paper(data: DataFacts) -> Config:
    """The FCN with cross-entropy, trained as in CLOTH 4.1."""
    return Config(
        net="fcn",
        data={"size": (256, 256), "batch": BATCH},
        optimizer={"name": "adam", "lr": 1e-3, "schedule": "constant"},
        validation={"every": data.steps(1, BATCH)},
        steps=data.steps(EPOCHS, BATCH),
    )


# The U-Nets are always of full width: few and small images have to do.
SCALES = {
    "bench": {
        "data.size": 96 * 96,
        "net.fc": 512,
        "validation.every": 40,
        "steps": 240,
    },
    "demo": {
        "data.size": 64 * 64,
        "net.fc": 256,
        "validation.every": 10,
        "validation.samples": 60,
        "steps": 40,
    },
    "smoke": {"net.fc": 16},
}


def arm(base: Config, net: str, loss: str, penalty: str) -> Arm:
    """A point of the grid; `base` is the FCN, whose knobs the others do not have."""
    terms, l1, l2 = (PENALTIES | ON_KERNELS)[penalty]
    name = f"{net}_{loss}{penalty}"
    on_kernels = penalty in ON_KERNELS
    penalised = {"l1": l1, "l2": l2, "penalise": "kernels" if on_kernels else "error"}
    return Arm(
        name,
        f"{NETS[net]}, {LOSSES[loss]}{terms}",
        base.changed(net={"name": net}, loss={"name": loss, **penalised}),
        TABLE_1.get(name.removesuffix("_kernels"), {}),
        note="0.5 times the mean of |w| or w² over all kernels: the sum over 31 "
        "million weights would be all that the loss is about."
        if on_kernels
        else "",
    )


def grid(nets=tuple(NETS), losses=tuple(LOSSES), penalties=tuple(PENALTIES)):
    def arms(base: Config) -> list[Arm]:
        return [
            arm(base, net, loss, penalty)
            for net in nets
            for loss in losses
            for penalty in penalties
        ]

    return arms


def readings(base: Config) -> list[Arm]:
    """Focal loss without a penalty, with L1 on the error, with each on the weights."""
    return [
        arm(base, net, "focal", penalty)
        for net in ("unet", "unet_bn")
        for penalty in ("", "_l1", *ON_KERNELS)
    ]


def gates(base: Config) -> list[Arm]:
    """The attention gate with and without batch norm in the net around it."""
    plain = arm(base, "attention_unet", "focal", "_l1")
    return [
        arm(base, "unet_bn", "focal", "_l1"),
        plain,
        arm(base, "unet", "focal", "_l1"),
        Arm(
            "attention_unet_plain_focal_l1",
            "Attention U-Net without batch norm, focal + L1",
            plain.config.changed(net={"batch_norm": False}),
            note="CLOTH does not say whether its Attention U-Net has batch norm; only "
            "the gates have it here.",
        ),
    ]


def pictures(base: Config) -> list[Arm]:
    """Fig. 5's four, then what Fig. 2 has beyond them."""
    first = grid(losses=("focal",), penalties=("_l1",))(base)
    names = {one.name for one in first}
    second = grid(nets=FIG_2_NETS)(base)
    return first + [one for one in second if one.name not in names]


LOSS_TITLES = {  # in the order of Fig. 2 and 3, (I) to (VIII)
    f"{loss}{penalty}": f"{LOSSES[loss]}{PENALTIES[penalty][0]}"
    for loss in LOSSES
    for penalty in PENALTIES
}


def nets_with(loss: str) -> dict[str, str]:
    """A panel: the four nets with one loss, a key of LOSS_TITLES."""
    return {f"{net}_{loss}": title for net, title in NETS.items()}


def losses_of(net: str) -> dict[str, str]:
    """A panel: the eight losses of one net."""
    return {f"{net}_{loss}": title for loss, title in LOSS_TITLES.items()}


def claim(text: str, comparison: str, metric: str = IOU, **what) -> Claim:
    return protocol.claim(text, comparison, metric, **what)


STAGES = (
    Stage(
        "table1",
        "Which U-Net, with which penalty on the focal loss, finds clothes best?",
        "CLOTH 4.2, Table 1",
        grid(nets=U_NETS, losses=("focal",)),
        published_winner="unet_bn_focal_l1",
        claims=(
            claim(
                "batch norm in all layers lifts the U-Net",
                "unet_bn_focal_l1 > unet_focal_l1",
            ),
            claim(
                "U-Net BN is better than the Attention U-Net",
                "unet_bn_focal_l1 > attention_unet_focal_l1",
            ),
            claim("L1 lifts the U-Net", "unet_focal_l1 > unet_focal"),
            claim(
                "the attention gate does not help (Table 1 says it does)",
                "attention_unet_focal_l1 <= unet_focal_l1",
            ),
            claim(
                "L1 lifts the U-Net by 23 % (Table 1 says 27 %)",
                "unet_focal_l1 = 1.23 * unet_focal",
                margin=0.05,
            ),
            claim(
                "U-Net BN is 22 % better than the U-Net (Table 1 says 15 % with L1)",
                "unet_bn_focal_l1 = 1.22 * unet_focal_l1",
                margin=0.05,
            ),
            claim("L2 does not help", "unet_bn_focal_l2 <= unet_bn_focal"),
            claim(
                "L1 is better than no penalty (Table 1 says lower)",
                "unet_bn_focal_l1 > unet_bn_focal",
            ),
            claim("L1 is better than L2", "unet_bn_focal_l1 > unet_bn_focal_l2"),
            claim(
                "both penalties are worse than L1 alone (Table 1 says higher)",
                "unet_bn_focal_l1_l2 < unet_bn_focal_l1",
            ),
        ),
    ),
    Stage(
        "kernels",
        "Does it matter whether L1 and L2 penalise the error or the weights?",
        "CLOTH 4.1 and 4.2, Table 1",
        readings,
        claims=(
            claim(
                "L1 on the weights lifts the U-Net",
                "unet_focal_l1_kernels > unet_focal",
            ),
            claim(
                "L1 on the weights is better than L2 on them",
                "unet_bn_focal_l1_kernels > unet_bn_focal_l2_kernels",
            ),
            claim(
                "L1 on the weights and L1 on the error come to the same",
                "unet_focal_l1_kernels = unet_focal_l1",
                ours=True,
            ),
        ),
    ),
    Stage(
        "fig3",
        "How do the four nets train with each of the eight losses?",
        "CLOTH 4.2, Fig. 3",
        grid(),
        claims=(
            claim("the U-Net without batch norm hardly trains", "unet_ce < unet_bn_ce"),
            claim(
                "the U-Net's loss hardly decreases with cross-entropy",
                "unet_ce < 0.5 * unet_bn_ce",
                "train_loss_fall",
            ),
            claim(
                "the U-Net's loss decreases more with focal loss",
                "unet_focal > unet_ce",
                "train_loss_fall",
            ),
            claim(
                "the FCN's loss decreases less with L1",
                "fcn_focal_l1 < fcn_focal",
                "train_loss_fall",
            ),
            claim("U-Net BN is better than FCN", "unet_bn_ce > fcn_ce"),
            claim(
                "the Attention U-Net is better than FCN", "attention_unet_ce > fcn_ce"
            ),
            claim(
                "focal loss is better than cross-entropy", "unet_bn_focal > unet_bn_ce"
            ),
            claim("L1 hurts the FCN", "fcn_focal_l1 < fcn_focal"),
            claim(
                "both penalties together are worse than none",
                "unet_bn_focal_l1_l2 < unet_bn_focal",
            ),
        ),
        panels={title: nets_with(loss) for loss, title in LOSS_TITLES.items()},
    ),
    Stage(
        "fig4",
        "Does the attention gate raise F1 in the course of training?",
        "CLOTH 4.2, Fig. 4",
        gates,
        curves=FOREGROUND,
        claims=(
            claim(
                "F1 is higher without the attention gate",
                "unet_bn_focal_l1 > attention_unet_focal_l1",
                "f1_micro_fg",
            ),
            claim(
                "F1 is higher without the gate where there is no batch norm either",
                "unet_focal_l1 > attention_unet_plain_focal_l1",
                "f1_micro_fg",
            ),
        ),
    ),
    Stage(
        "fig6",
        "Do both penalties together help cross-entropy, or focal loss?",
        "CLOTH 4.2, Fig. 6",
        grid(nets=("unet", "unet_bn"), penalties=("", "_l1_l2")),
        claims=(
            claim(
                "penalties do not change the U-Net with cross-entropy",
                "unet_ce_l1_l2 = unet_ce",
            ),
            claim(
                "penalties improve the U-Net with focal loss (Table 1 says same)",
                "unet_focal_l1_l2 > unet_focal",
            ),
            claim(
                "penalties improve U-Net BN with focal loss (Table 1 says lower)",
                "unet_bn_focal_l1_l2 > unet_bn_focal",
            ),
        ),
    ),
    Stage(
        "qualitative",
        "Which small pieces, such as shoes and sunglasses, does each net find?",
        "CLOTH 4.2, Fig. 2 and 5",
        pictures,
        panels={LOSS_TITLES["focal_l1"]: nets_with("focal_l1")}
        | {NETS[net]: losses_of(net) for net in FIG_2_NETS},
    ),
)

STUDY = Study(
    name="clothing",
    title="Clothing: batch norm, attention and focal loss in a U-Net",
    datasets=("atr",),
    # Padded to a square; CO-CNN's split.
    data=DataFacts(image_size=(256, 256), train_images=16_000, classes=18),
    seeds=3,
    plans={"networks": Plan(paper, STAGES, SCALES, chained=False)},
)
