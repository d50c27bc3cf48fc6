"""Networks side by side on CamVid, real data without a licence form.

Question: how do the networks of the documents compare on the same 367 images of a
street, and what do class weights gain where the classes are as unequal as here? No
document prints these numbers; every arm is trained from scratch, without augmentation,
at the images' own 360 x 480, padded where a network needs it (ICNet: 384 x 480), and
scored on the 101 validation images.

SegNet-basic and SegNet are trained as in the Caffe files of their authors: SGD with
0.1 and 0.001, momentum 0.9, weight decay 5e-4, batch 4, 10,000 and 40,000 steps. The
other networks share one recipe of our own: Adam 1e-3, polynomial decay with power 0.9,
batch 4, 10,000 steps. The hourglass has 64 features instead of 256: at full resolution
it is the one that needs most memory, an estimated 16 GiB. The hypotheses of `weighting`
are the thesis' findings on SURREAL (BODY 3.2.3 and 3.3.3), tested on other data.

What does a recipe gain? `--net icnet` and `--net unet_bn` take `--recipe modern` apart:
every part on its own, added to a plain training, and left out of the whole; and the
losses that it could have had. What does a pretrained start gain, and how many images is
it worth? `--net unet_lite0` trains on 25, 100 and all 367 images, from scratch and from
ImageNet's weights (`--init-weights imagenet`). These stages are ours as well.
"""

from collections.abc import Mapping
from typing import Any

from keras_seg.ablation.protocol import (
    Arm,
    DataFacts,
    Plan,
    Stage,
    Study,
    claim,
    with_settings,
)
from keras_seg.config import Config
from keras_seg.runs import recipes

SEGNET_LR = 1e-3
ADAM = {"name": "adam", "lr": 1e-3, "schedule": "poly", "poly_power": 0.9}
RECIPE = ADAM | {"weight_decay": 0.0}  # of all networks but the SegNets


def paper(data: DataFacts) -> Config:
    """SegNet-basic, as in its authors' Caffe files."""
    return Config(
        net="segnet_basic",
        data={"size": data.size(360 * 480, stride=1), "pad": True, "batch": 4},
        optimizer={
            "name": "sgd",
            "lr": 0.1,
            "momentum": 0.9,
            "schedule": "constant",
            "weight_decay": 5e-4,
        },
        validation={"every": 250, "batch": 4},
        steps=10_000,
    )


# SGD needs thousands of steps.
FAST = {f"optimizer.{name}": value for name, value in RECIPE.items()}
SCALES = {
    "bench": FAST | {"data.size": 96 * 128, "validation.every": 50, "steps": 400},
    "demo": FAST | {"data.size": 64 * 96, "validation.every": 10, "steps": 40},
}


def networks(base: Config) -> list[Arm]:
    segnet = base.changed(
        net="segnet",
        optimizer={"lr": min(base.optimizer.lr, SEGNET_LR)},
        steps=base.steps * 4,
    )
    others = (
        ("icnet", "ICNet", "icnet"),
        ("unet_bn", "U-Net BN", "unet_bn"),
        ("fcn_strided", "Strided FCN", "fcn_strided"),
        (
            "hourglass",
            "Hourglass, 64 features",
            {"name": "hourglass", "features": 64},
        ),
    )
    return [
        Arm("segnet_basic", "SegNet-basic", base),
        Arm("segnet", "SegNet", segnet),
        *(
            Arm(name, title, base.changed(optimizer=RECIPE, net=net))
            for name, title, net in others
        ),
    ]


def weightings(base: Config) -> list[Arm]:
    titles = {
        "none": "None",
        "median": "Median frequency",
        "w1": "W1 (outer)",
        "w2": "W2 (outer)",
    }
    return [
        Arm(
            weights, title, base.changed(loss={"weights": weights, "strategy": "outer"})
        )
        for weights, title in titles.items()
    ]


STAGES = (
    Stage(
        "networks",
        "Which network is best on CamVid from scratch?",
        "CamVid in the split of SegNet; no document",
        networks,
    ),
    Stage(
        "weighting",
        "Does weighting the classes in the loss help SegNet-basic on CamVid?",
        "weights of BODY 3.1 and of SegNet; no document",
        weightings,
        claims=(
            claim("W1 does not raise mIoU", "w1 <= none", ours=True),
            claim("W2 lowers mIoU", "w2 < none", ours=True),
            claim(
                "W2 balances the classes better than W1 does",
                "w2 > w1",
                "mean_accuracy",
                ours=True,
            ),
            claim("W1 reaches a higher mIoU than W2", "w1 > w2", ours=True),
        ),
    ),
)


# A recipe and its parts

MODERN = {path: line["value"] for path, line in recipes.read("modern").items()}
# The settings of MODERN that belong together. Crops over a class need a zoom, so on
# their own they are added to it.
JITTER = ("brightness", "contrast", "saturation", "hue", "jitter_probability")
PARTS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "mirror": ("Mirror", ("augment.mirror",)),
    "scale": ("Scale", ("augment.scale",)),
    "balance": ("Crops over a class", ("augment.balance",)),
    "colour": ("Colours", tuple(f"augment.{name}" for name in JITTER)),
    "dice": ("Dice beside cross entropy", ("loss.plus",)),
    "adamw": (
        "AdamW",
        ("optimizer.name", "optimizer.weight_decay", "optimizer.decay_on"),
    ),
    "warmup": ("Warm-up", ("optimizer.warmup",)),
    "clip": ("Clipped gradients", ("optimizer.clip_norm",)),
    "ema": ("Averaged weights", ("optimizer.ema",)),
}
# What both sides share, so that an arm changes one thing
SHARED = ("loss.name", "optimizer.lr", "optimizer.schedule", "optimizer.poly_power")


def plain(net: str):
    """The base of a network's recipe: Adam at the recipe's learning rate, no part."""

    def base(data: DataFacts) -> Config:
        config = Config(
            net=net,
            data={"size": data.size(360 * 480, stride=1), "pad": True, "batch": 16},
            optimizer={"name": "adam"},
            validation={"every": 250},
            steps=6_000,
        )
        return with_settings(config, {path: MODERN[path] for path in SHARED})

    return base


def part(*names: str) -> dict[str, Any]:
    """The settings of these parts."""
    return {path: MODERN[path] for name in names for path in PARTS[name][1]}


def recipe(base: Config) -> list[Arm]:
    """A plain training and each part added; the whole recipe and each part left out."""
    # Crops over a class go with the zoom they need
    with_zoom = {"balance": ("scale", "balance")}
    without_zoom = {"scale": ("scale", "balance")}
    arms = [Arm("plain", "Plain", base)]
    for name, (title, _) in PARTS.items():
        added = with_settings(base, part(*with_zoom.get(name, (name,))))
        zoomed = " and scale" if name in with_zoom else ""
        arms.append(Arm(f"only_{name}", f"+ {title}{zoomed}", added))
    arms.append(Arm("modern", "All of them", with_settings(base, part(*PARTS))))
    for name, (title, _) in PARTS.items():
        left_out = without_zoom.get(name, (name,))
        kept = [one for one in PARTS if one not in left_out]
        rest = with_settings(base, part(*kept))
        zoomed = " and crops over a class" if name in without_zoom else ""
        arms.append(Arm(f"without_{name}", f"All but {title}{zoomed}", rest))
    return arms


LOSSES = {
    "ce": ("Cross entropy", {}),
    "smoothed": ("Smoothed labels", {"loss.smoothing": 0.1}),
    "ce_dice": ("+ Dice", {"loss.plus": "dice"}),
    "ce_tversky": ("+ Tversky", {"loss.plus": "tversky"}),
    "ce_lovasz": ("+ Lovasz", {"loss.plus": "lovasz"}),
    "ohem": ("OHEM", {"loss.name": "ohem"}),
    "focal": ("Focal", {"loss.name": "focal"}),
    "weighted": ("Median frequency", {"loss.weights": "median"}),
}


def losses(base: Config) -> list[Arm]:
    """The losses, each under the rest of the recipe."""
    rest = with_settings(base, part(*(name for name in PARTS if name != "dice")))
    return [
        Arm(name, title, with_settings(rest, settings))
        for name, (title, settings) in LOSSES.items()
    ]


RECIPE_STAGES = (
    Stage(
        "recipe",
        "Which parts of the recipe help, on their own and within it?",
        "keras_seg/recipes/modern.toml; no document",
        recipe,
        decides=False,
        claims=(
            claim("the whole recipe helps", "modern > plain", ours=True),
            *(
                claim(f"{name} helps on its own", f"only_{name} > plain", ours=True)
                for name in PARTS
                if name != "balance"
            ),
            claim(
                "crops over a class help beside the zoom",
                "only_balance > only_scale",
                ours=True,
            ),
            *(
                claim(f"the recipe needs {name}", f"without_{name} < modern", ours=True)
                for name in PARTS
            ),
        ),
    ),
    Stage(
        "losses",
        "Which loss suits the recipe?",
        "keras_seg/recipes/modern.toml; no document",
        losses,
        decides=False,
        claims=(
            claim("Dice beside cross entropy helps", "ce_dice > ce", ours=True),
            claim("Lovasz beside it helps more", "ce_lovasz > ce_dice", ours=True),
            claim("hard pixels alone are better", "ohem > ce", ours=True),
        ),
    ),
)
RECIPE_SCALES = {
    "bench": {"data.size": 96 * 128, "validation.every": 100, "steps": 900},
    "demo": {"data.size": 64 * 96, "validation.every": 10, "steps": 40},
}
# A U-Net of full width costs fifty times ICNet's work.
UNET_SCALES = {
    "bench": {"data.size": 64 * 96, "data.batch": 8}
    | {"validation.every": 50, "steps": 400},
    "demo": {"data.size": 48 * 64, "data.batch": 4}
    | {"validation.every": 10, "steps": 30},
}


# A pretrained start

TRAIN_IMAGES = {"25": 25, "100": 100, "all": None}


def lite0(data: DataFacts) -> Config:
    """unet_lite0 with the whole recipe; half its rate, which suits both starts."""
    config = plain("unet_lite0")(data)
    halved = {"optimizer.lr": MODERN["optimizer.lr"] / 2}
    return with_settings(config, part(*PARTS) | halved)


def starts(base: Config) -> list[Arm]:
    """From scratch and from ImageNet's weights, by the number of training images."""
    arms = []
    for name, count in TRAIN_IMAGES.items():
        some = base.changed(data={"samples": count})
        arms += [
            Arm(f"scratch_{name}", f"From scratch, {name} images", some),
            Arm(
                f"pretrained_{name}",
                f"Pretrained, {name} images",
                some,
                pretrained="EfficientNet-Lite0, ImageNet",
            ),
        ]
    return arms


def fine_tunings(base: Config) -> list[Arm]:
    """How much of the pretrained encoder is trained, and how fast."""
    variants = (
        ("all", "All at one rate", {}),
        ("slow_encoder", "Encoder at a tenth", {"optimizer.encoder_lr": 0.1}),
        ("fixed_norm", "Encoder's batch norm fixed", {"net.freeze_norm": True}),
        ("fixed_encoder", "Encoder fixed", {"net.freeze": True}),
    )
    return [
        Arm(
            name,
            title,
            with_settings(base, settings),
            pretrained="EfficientNet-Lite0, ImageNet",
        )
        for name, title, settings in variants
    ]


LITE0_STAGES = (
    Stage(
        "pretrained",
        "What does a pretrained start gain, and how many images is it worth?",
        "weights of ImageNet (Tan and Le 2019); no document",
        starts,
        decides=False,
        claims=(
            *(
                claim(
                    f"pretrained weights help with {name} images",
                    f"pretrained_{name} > scratch_{name}",
                    ours=True,
                )
                for name in TRAIN_IMAGES
            ),
            claim(
                "pretrained weights and 100 images match all images from scratch",
                "pretrained_100 >= scratch_all",
                ours=True,
            ),
        ),
    ),
    Stage(
        "fine_tuning",
        "How much of the pretrained encoder should be trained, and how fast?",
        "weights of ImageNet (Tan and Le 2019); no document",
        fine_tunings,
        decides=False,
        claims=(
            claim("a slower encoder is better", "slow_encoder > all", ours=True),
            claim("a fixed encoder is worse", "fixed_encoder < all", ours=True),
        ),
    ),
)


STUDY = Study(
    name="camvid",
    title="CamVid: networks side by side, class weights, recipes, a pretrained start",
    datasets=("camvid",),
    data=DataFacts(image_size=(360, 480), train_images=367, classes=11),
    plans={
        "networks": Plan(paper, STAGES, SCALES, chained=False),
        "icnet": Plan(plain("icnet"), RECIPE_STAGES, RECIPE_SCALES, chained=False),
        "unet_bn": Plan(
            plain("unet_bn"), RECIPE_STAGES, UNET_SCALES, stride=16, chained=False
        ),
        "unet_lite0": Plan(lite0, LITE0_STAGES, RECIPE_SCALES, chained=False),
    },
)
