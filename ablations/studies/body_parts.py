"""The thesis: ablations of general networks on body parts (BODY 3.1, 3.2).

Question: which width, augmentation and class weighting does each network want on
SURREAL's 24 body parts? The protocol (BODY 3.1): compare the network with its doubled
filters; the better one with and without augmentation; the better of those with every
class weighting; train the winner long and score it on the test split. The winner is
the arm with the higher validation mIoU.

What the text contradicts: doubling the filters multiplies the parameters by four, not
two; the doubled ICNet could not use the pretrained weights that the normal one began
with; mirroring did not exchange left and right ids; the table's direct W1 row is not
consistent with itself (mean of the groups 8.2, printed 7.9); F1 of the ICNet rows
cannot be the macro F1 of the same confusion matrix (spec 4.1), so it stands beside no
column of ours.
"""

from dataclasses import replace

from keras_seg.ablation.protocol import Arm, Plan, Stage, Study, fit_size
from keras_seg.config import Augment, Config
from keras_seg.data.surreal import GROUPS

MIRROR_AND_SCALE = Augment(mirror=0.5, scale=(0.5, 2.0))


def published(miou, mean_accuracy, *groups):
    """A row of Table 2 or 5: percentages in the table's order."""
    row = {"miou": miou, "mean_accuracy": mean_accuracy}
    return row | dict(zip(GROUPS, groups))


def scores(miou, pixel_accuracy, f1):
    """A row of Table 1, 3, 4 or 6: percentages."""
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


def icnet_base(scale: str, image_size: tuple[int, int]) -> Config:
    """ICNet's configuration at a scale; paper is BODY 3.2.3 and spec 7.1."""
    paper = Config(
        net="icnet",
        size=fit_size(image_size, 320 * 320, stride=32),
        batch=64,
        steps=40_000,
        optimizer="sgd",
        lr=0.01,
        momentum=0.9,
        schedule="poly",
        poly_power=0.9,
        weight_decay=1e-4,
        bn_start=20_000,
        val_every=200,
    )
    if scale == "paper":
        return paper
    # Few steps from scratch: Adam at 3e-3 learns in hundreds of steps what SGD at
    # 0.01 needs thousands for.
    fast = replace(paper, optimizer="adam", lr=3e-3, batch=16)
    if scale == "bench":
        size = fit_size(image_size, 160 * 160, stride=32)
        return replace(fast, size=size, steps=3000, bn_start=1500, val_every=150)
    if scale == "demo":
        size = fit_size(image_size, 96 * 128, stride=32)
        return replace(fast, size=size, steps=240, bn_start=120, val_every=30)
    size = fit_size(image_size, 64 * 64, stride=32)
    smoke = replace(fast, size=size, batch=2, steps=2, bn_start=1, val_every=1)
    return replace(smoke, val_samples=4, val_batch=2)


def search(base: Config) -> list[Arm]:
    """BODY 3.1: "several, short, runs" over learning rate and batch size."""
    short = replace(base, steps=max(1, base.steps // 20), bn_start=0)
    short = replace(short, val_every=max(1, short.steps // 10))
    return [
        Arm(
            f"lr{lr:g}_batch{batch}".replace(".", "_"),
            f"learning rate {lr:g}, batch {batch}",
            replace(short, lr=lr, batch=batch),
        )
        for lr in (base.lr * 10, base.lr, base.lr / 10)
        for batch in sorted({max(1, base.batch // part) for part in (4, 2, 1)})
    ]


def icnet_filters(base: Config) -> list[Arm]:
    return [
        Arm("normal", "Normal", base, scores(38.19, 94.64, 88.17)),
        Arm(
            "doubled",
            "Doubled filters",
            replace(base, filter_scale=2),
            scores(27.51, 93.01, 84.97),
        ),
    ]


def icnet_augment(base: Config) -> list[Arm]:
    swapped = replace(MIRROR_AND_SCALE, swap_lr=True)
    return [
        Arm("plain", "No augmentation", base, scores(38.19, 94.64, 88.17)),
        Arm(
            "mirror_scale",
            "Mirror + scale",
            replace(base, augment=MIRROR_AND_SCALE),
            scores(32.60, 91.15, 91.61),
            note="Mirrors without exchanging left and right ids, as the thesis did.",
        ),
        Arm(
            "mirror_scale_swap",
            "Mirror + scale, left/right exchanged",
            replace(base, augment=swapped),
            note="Not in the thesis: a mirrored left arm is labelled right arm.",
        ),
    ]


def weighting(rows):
    """Every class weighting of BODY 3.1 against none."""

    def arms(base: Config) -> list[Arm]:
        made = [Arm("normal", "Normal", base, rows["normal"])]
        for weights in ("w1", "w2"):
            for strategy in ("outer", "direct"):
                name = f"{weights}_{strategy}"
                config = replace(base, class_weights=weights, strategy=strategy)
                title = f"{weights.upper()} ({strategy})"
                made.append(Arm(name, title, config, rows.get(name, {})))
        return made

    return arms


def icnet_final(base: Config) -> list[Arm]:
    """90,000 steps instead of 40,000; batch norm from step 20,000 as before."""
    longer = replace(base, steps=base.steps * 9 // 4)
    return [Arm("winner", "Winner, 9/4 steps", longer, scores(45.14, 95.76, 89.73))]


ICNET = Plan(
    icnet_base,
    (
        Stage(
            "search",
            "Which learning rate and batch size suit short runs?",
            "BODY 3.1",
            search,
            in_chain=False,
        ),
        Stage(
            "filters",
            "Does doubling every convolution's filters help?",
            "BODY 3.2.3, Table 1",
            icnet_filters,
            published_winner="normal",
        ),
        Stage(
            "augment",
            "Does mirroring and scaling the training images help?",
            "BODY 3.2.3, Table 1",
            icnet_augment,
            published_winner="plain",
        ),
        Stage(
            "weighting",
            "Does weighting the classes in the loss help?",
            "BODY 3.2.3, Table 2",
            weighting(ICNET_WEIGHTING),
            published_winner="normal",
        ),
        Stage(
            "final",
            "How far does the winner get in a long run?",
            "BODY 3.2.3, Table 3",
            icnet_final,
            split="test",
        ),
    ),
)

STUDY = Study(
    name="body_parts",
    title="Body parts: width, augmentation and class weighting",
    datasets=("surreal",),
    plans={"icnet": ICNET},
    groups={"surreal": GROUPS, "synthetic_humans": GROUPS},
)
