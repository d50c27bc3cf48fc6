"""FCN with strided convolutions, attention and skips, against FCN-8s (ATTN).

Question: is ATTN's network better than the original FCN on Cityscapes and on VOC2012,
and which of its parts is responsible: the skips, the attention, the pyramid or the
strided convolutions? Each data set has a stage with the same arms: run `cityscapes` on
Cityscapes (`prepare.py cityscapes`, 19 classes) and `voc2012` on VOC2012, each with its
own `--data`. ATTN prints no number for FCN and compares its network with five other
studies, whose numbers are rows of the two stages' tables.

"The first five layers of VGG16" can be its five blocks of convolutions, or its first
five convolutions, each with a stride of 2 instead of a pooling. Both reduce the image
by 32, as the text says, and both are arms. The second, without a pyramid, has the 1.58
and 1.63 million parameters that ATTN counts without and with skips (1,578,925 and
1,620,269); the first has 29.6 million. A network of the second's size is also what is
likely to take 256 images of 224 x 224 at once on the GPU named. So `first_five` is
likely ATTN's network, but for the pyramid that the text mentions and the counts leave
no room for.

ATTN does not name the following, so they are our choice: the optimizer (Adam); 50
epochs on Cityscapes as on VOC2012; whether VGG16's weights are used (there are arms for
both); FCN's variant (8s) and its input (normalised as for ATTN's network; the arms with
VGG16's own weights get BGR minus the mean, which those weights need); the decoder
widths and the rates of the pyramid; which layers the "connections in all layers" join
(the four inner stages of the decoder) and how (sums, as in FCN: concatenation would
need more parameters than are counted); that scores are of images and labels at 224 x
224, the size of the input, where published scores are usually at the images' own. A
batch of 256 is 16 batches of 16, so batch norm sees 16 images. Of VOC2012 there are the
1464 training images of its own list, not the 10,582 of the augmented one.

Contradictions in the text: VOC has 20 classes in four groups, not "four classes and 20
small classes". Equation 1 lacks its "=".
"""

from keras_seg.ablation.protocol import Arm, DataFacts, Plan, Stage, Study, claim
from keras_seg.config import Config

EPOCHS = 50
BATCH, ACCUMULATE = 16, 16  # 256 images a step
VGG16 = "VGG16, ImageNet"
OTHER_REDUCTIONS = (2, 4, 8, 32)
FIRST_FIVE = {"encoder": "layers", "aspp": False}
# Table 2 and 3: MPA and MIOU, 0 to 1
OTHERS = {
    "cityscapes": {
        "Ion et al.": (0.793, 0.756),
        "Xie et al.": (0.859, 0.795),
        "Zhao et al. (PSPNet)": (0.846, 0.781),
        "Wang et al.": (0.891, 0.821),
        "Li et al.": (0.881, 0.812),
    },
    "voc2012": {
        "Ion et al.": (0.808, 0.751),
        "Xie et al.": (0.865, 0.794),
        "Zhao et al. (PSPNet)": (0.871, 0.814),
        "Wang et al.": (0.895, 0.821),
        "Li et al.": (0.887, 0.819),
    },
}
CITYSCAPES = DataFacts(image_size=(1024, 2048), train_images=2975, classes=19)
VOC2012 = DataFacts(image_size=(224, 224), train_images=1464, classes=21)
CURVES = ("mean_accuracy", "miou")  # MPA and MIOU, Fig. 5 and 8


def paper(data: DataFacts) -> Config:
    """The original FCN, trained as in ATTN 3.1."""
    images = BATCH * ACCUMULATE
    return Config(
        net={"name": "fcn", "preprocess": "imagenet"},
        data={"size": (224, 224), "batch": BATCH},
        optimizer={
            "accumulate": ACCUMULATE,
            "name": "adam",
            "lr": 1e-3,
            "schedule": "poly",
            "poly_power": 0.95,
        },
        validation={"every": data.steps(1, images)},
        steps=data.steps(EPOCHS, images),
    )


SCALES = {
    "bench": {
        "data.size": (96, 96),
        "optimizer.accumulate": 1,
        "net.fc": 512,
        "validation.every": 30,
        "steps": 300,
    },
    "demo": {
        "data.size": (64, 64),
        "data.batch": 8,
        "optimizer.accumulate": 1,
        "net.fc": 256,
        "validation.every": 10,
        "steps": 50,
    },
    "smoke": {"net.fc": 16},
}


def attention(base: Config, **knobs) -> Config:
    """ATTN's network, trained and fed as the FCN is."""
    preprocess = base.net.preprocess
    return base.changed(
        net={"name": "fcn_attention", "preprocess": preprocess, **knobs}
    )


def against_fcn(mean_accuracy: float, miou: float):
    """FCN and both readings of ATTN's network, from scratch and from VGG16."""

    def arms(base: Config) -> list[Arm]:
        numbers = {"mean_accuracy": mean_accuracy, "miou": miou}
        scratch = [
            Arm("fcn", "FCN-8s", base),
            Arm("fcn_attention", "FCN with attention", attention(base), numbers),
            Arm(
                "first_five",
                "FCN with attention, five layers",
                attention(base, **FIRST_FIVE),
                numbers,
                note="The other reading of “the first five layers of VGG16”, with the "
                "1.63 million parameters that ATTN counts.",
            ),
        ]
        pretrained = [
            Arm(
                f"{arm.name}_vgg16",
                f"{arm.title}, from VGG16",
                arm.config.changed(net={"preprocess": "bgr_minus_mean"}),
                note="ATTN does not say whether it starts from VGG16's weights.",
                pretrained=VGG16,
            )
            for arm in scratch
        ]
        return scratch + pretrained

    return arms


def parts(base: Config) -> list[Arm]:
    """The network without each of its parts, and those of ATTN's parameter counts."""
    rows = (
        ("full", "All parts", {}, "ATTN: 47 ms for a forward pass of 256 images."),
        ("no_skips", "No skips", {"skips": False}, ""),
        (
            "no_attention",
            "No attention",
            {"attention": False},
            "ATTN: 42 ms for a forward pass of 256 images.",
        ),
        ("no_aspp", "No pyramid", {"aspp": False}, ""),
        ("pooling", "Pooling, no strided convolutions", {"downsample": "pool"}, ""),
        (
            "narrow",
            "Width 0.234",
            {"width": 0.234},
            "1.63 million parameters in VGG16's five blocks.",
        ),
        (
            "first_five",
            "First five layers of VGG16",
            FIRST_FIVE,
            "ATTN: 1.63 million parameters.",
        ),
        (
            "first_five_no_skips",
            "First five layers, no skips",
            FIRST_FIVE | {"skips": False},
            "ATTN: 1.58 million parameters.",
        ),
        (
            "first_five_no_attention",
            "First five layers, no attention",
            FIRST_FIVE | {"attention": False},
            "",
        ),
        (
            "first_five_aspp",
            "First five layers and the pyramid",
            FIRST_FIVE | {"aspp": True},
            "The pyramid of the text, for which the counted parameters have no room.",
        ),
    )
    return [
        Arm(name, title, attention(base, **knobs), note=note)
        for name, title, knobs, note in rows
    ]


def reductions(base: Config) -> list[Arm]:
    """The default reduction of 16, then the others."""
    return [Arm("reduction_16", "C = 16", attention(base))] + [
        Arm(f"reduction_{ratio}", f"C = {ratio}", attention(base, reduction=ratio))
        for ratio in OTHER_REDUCTIONS
    ]


def comparison(
    name: str, question: str, source: str, numbers, dataset: str, small: tuple[str, ...]
) -> Stage:
    """FCN against ATTN's network on one of two data sets; `small` classes are named."""
    return Stage(
        name,
        question,
        source,
        against_fcn(*numbers),
        published_winner="fcn_attention",
        claims=(
            claim("it is better than the original FCN", "fcn_attention > fcn"),
            claim(
                "it is better than the original FCN (with VGG16's first five layers)",
                "first_five > fcn",
            ),
            *(
                claim(
                    f"it segments small things such as {name} better",
                    "fcn_attention > fcn",
                    f"iou {name}",
                )
                for name in small
            ),
            claim(
                "it finds more of each class than the original FCN",
                "fcn_attention > fcn",
                "mean_accuracy",
                ours=True,
            ),
        ),
        curves=CURVES,
        datasets=(dataset,),
        data={"cityscapes": CITYSCAPES, "voc2012": VOC2012}[dataset],
        others={
            study: {
                "mean_accuracy": round(100 * mpa, 1),
                "miou": round(100 * miou, 1),
            }
            for study, (mpa, miou) in OTHERS[dataset].items()
        },
    )


STAGES = (
    comparison(
        "cityscapes",
        "Is the FCN with attention better than FCN-8s on Cityscapes?",
        "ATTN 3.3, Table 2, Fig. 5 and 6",
        (90.7, 82.9),
        "cityscapes",
        ("person",),
    ),
    comparison(
        "voc2012",
        "Is the FCN with attention better than FCN-8s on VOC2012?",
        "ATTN 3.4, Table 3, Fig. 8 and 9",
        (90.2, 82.7),
        "voc2012",
        ("chair", "bicycle", "person"),
    ),
    Stage(
        "ablation",
        "Which part of the network is worth how much, and what does it cost?",
        "ATTN 2.2 and 2.3",
        parts,
        published_winner="full",
        claims=(
            claim("skips help", "no_skips < full"),
            claim(
                "skips add no more than 3 % to the parameters",
                "first_five <= 1.03 * first_five_no_skips",
                "parameters",
                margin=0.005,
            ),
            claim("attention helps", "no_attention < full"),
            claim("the pyramid's context helps", "no_aspp < full", ours=True),
            claim("pooling loses information", "pooling < full"),
            claim(
                "attention takes longer (42 to 47 ms for 256 images)",
                "full > no_attention",
                "ms_per_image",
            ),
        ),
        curves=CURVES,
    ),
    Stage(
        "reduction",
        "How far may the attention reduce its channels?",
        "ATTN 2.2, equation 2",
        reductions,
        published_winner="reduction_16",
        claims=tuple(
            claim(
                f"a reduction by 16 is better than by {ratio}",
                f"reduction_16 > reduction_{ratio}",
            )
            for ratio in OTHER_REDUCTIONS
        ),
        curves=CURVES,
    ),
)

STUDY = Study(
    name="attention_fcn",
    title="FCN with attention: against FCN-8s, part by part",
    datasets=("cityscapes", "voc2012"),
    data=CITYSCAPES,
    plans={"networks": Plan(paper, STAGES, SCALES, chained=False)},
)
