"""Networks side by side on CamVid, real data without a licence form (spec 7.9).

Question: how do the networks of the documents compare on the same 367 images of a
street, and what do class weights give where the classes are as unequal as here? No
document prints these numbers; every arm is from scratch, without augmentation, at the
images' own 360 x 480, padded where a network asks for it (ICNet: 384 x 480), scored on
the 101 validation images.

SegNet-basic and SegNet are trained as in the Caffe files of their authors: SGD 0.1 and
0.001, momentum 0.9, weight decay 5e-4, batch 4, 10,000 and 40,000 steps. The other
networks share one recipe, ours: Adam 1e-3, polynomial decay with power 0.9, batch 4,
10,000 steps. The hourglass has 64 features instead of 256: at full resolution it is the
one that needs most memory, some 16 GiB by estimate. The hypotheses of `weighting` are
the thesis' findings on SURREAL (BODY 3.2.3 and 3.3.3), asked of other data.
"""

from keras_seg.ablation.protocol import (
    Arm,
    Claim,
    DataFacts,
    Plan,
    Stage,
    Study,
    fit_size,
)
from keras_seg.config import Config

SEGNET_LR = 1e-3


def base(scale: str, data: DataFacts) -> Config:
    """SegNet-basic at a scale; paper is the authors' Caffe files."""
    paper = Config(
        net="segnet_basic",
        data={
            "size": fit_size(data.image_size, 360 * 480, stride=1),
            "pad": True,
            "batch": 4,
        },
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
    if scale == "paper":
        return paper
    fast = shared_recipe(paper)  # SGD needs thousands of steps
    if scale == "bench":
        size = fit_size(data.image_size, 96 * 128, stride=32)
        return fast.changed(data={"size": size}, validation={"every": 50}, steps=400)
    if scale == "demo":
        size = fit_size(data.image_size, 64 * 96, stride=32)
        return fast.changed(data={"size": size}, validation={"every": 10}, steps=40)
    size = fit_size(data.image_size, 32 * 32, stride=32)
    smoke = fast.changed(
        data={"size": size, "batch": 2}, validation={"every": 1}, steps=2
    )
    return smoke.changed(validation={"samples": 4, "batch": 2})


def shared_recipe(base: Config, **changes) -> Config:
    """How all but the SegNets are trained."""
    return base.changed(
        optimizer={
            "name": "adam",
            "lr": 1e-3,
            "schedule": "poly",
            "poly_power": 0.9,
            "weight_decay": 0.0,
        },
        **changes,
    )


def networks(base: Config) -> list[Arm]:
    segnet = base.changed(
        net="segnet",
        optimizer={"lr": min(base.optimizer.lr, SEGNET_LR)},
        steps=base.steps * 4,
    )
    return [
        Arm("segnet_basic", "SegNet-basic", base),
        Arm("segnet", "SegNet", segnet),
        Arm("icnet", "ICNet", shared_recipe(base, net="icnet")),
        Arm("unet_bn", "U-Net BN", shared_recipe(base, net="unet_bn")),
        Arm("fcn_strided", "Strided FCN", shared_recipe(base, net="fcn_strided")),
        Arm(
            "hourglass",
            "Hourglass, 64 features",
            shared_recipe(base, net="hourglass", knobs={"features": 64}),
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


PLAN = Plan(
    base,
    (
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
                Claim("W1 does not raise mIoU", "w1", "none", "lower", ours=True),
                Claim("W2 lowers mIoU", "w2", "none", "lower", ours=True),
                Claim(
                    "W2 balances the classes better than W1 does",
                    "w2",
                    "w1",
                    "higher",
                    metric="mean_accuracy",
                    ours=True,
                ),
                Claim(
                    "W1 reaches a higher mIoU than W2", "w1", "w2", "higher", ours=True
                ),
            ),
        ),
    ),
    chained=False,
)

STUDY = Study(
    name="camvid",
    title="CamVid: the networks side by side, class weights for SegNet-basic",
    datasets=("camvid",),
    data=DataFacts(image_size=(360, 480), train_images=367),
    plans={"networks": PLAN},
)
