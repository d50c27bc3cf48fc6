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
"""

from keras_seg.ablation.protocol import Arm, DataFacts, Plan, Stage, Study, claim
from keras_seg.config import Config

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
            claim("W1 does not raise mIoU", "w1 < none", ours=True),
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

STUDY = Study(
    name="camvid",
    title="CamVid: the networks side by side, class weights for SegNet-basic",
    datasets=("camvid",),
    data=DataFacts(image_size=(360, 480), train_images=367),
    plans={"networks": Plan(paper, STAGES, SCALES, chained=False)},
)
