"""The networks: one file per paper, one line per network in `NETS`.

`NETS` is read-only and imports no Keras; a network's module is imported when it
is built. Adding a network is one file, one line here and one row in
tests/test_nets.py (see CONTRIBUTING.md).
"""

import importlib
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from keras_seg.errors import KerasSegError, UsageError
from keras_seg.labels import Head

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Net:
    """What is known of a network before it is built.

    Attributes:
        module: the module under keras_seg.nets with the builder.
        paper: where the architecture is from: document, section or table.
        stride: input height and width must be multiples of it.
        preprocess: a key of `keras_seg.preprocess.PREPROCESS`.
        reference: (height, width, number of classes) in that document.
        loss_weights: {head: weight} of the heads with the default knobs.
        smallest: input height and width must be at least this.
        encoder: how the paths of the weights begin that a pretrained encoder fills, as
            a regular expression; "" where no weights are known (`pretrained`).
        builder: the function in `module` (several networks may share a file).
        fixed: knobs that this line fixes.
    """

    module: str
    paper: str
    stride: int
    preprocess: str
    reference: tuple[int, int, int]
    loss_weights: Mapping[str, float] = field(
        default_factory=lambda: MappingProxyType({"logits": 1.0})
    )
    smallest: int = 1
    encoder: str = ""
    builder: str = "build"
    fixed: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))


NETS: Mapping[str, Net] = MappingProxyType(
    {
        "icnet": Net(
            "icnet",
            "Zhao et al. 2018, as in BODY 3.2 (hellochick's ICNet_BN)",
            stride=32,
            preprocess="bgr_minus_mean",
            reference=(320, 320, 25),
            encoder=r"conv(?!6_cls)",
            loss_weights=MappingProxyType(
                {"logits": 1.0, "sub24_logits": 0.4, "sub4_logits": 0.16}
            ),
        ),
        "segnet_basic": Net(
            "segnet_basic",
            "Badrinarayanan et al. 2015, as in BODY 3.3",
            stride=1,
            preprocess="rgb_255",
            reference=(320, 320, 25),
        ),
        "segnet": Net(
            "segnet",
            "Badrinarayanan et al. 2015 (VGG16), BODY 3.3",
            stride=1,
            preprocess="bgr_minus_mean",
            reference=(320, 320, 25),
            encoder=r"enc\d_conv",
        ),
        "hourglass": Net(
            "hourglass",
            "Newell et al. 2016, as in BODY 4.1",
            stride=16,
            preprocess="unit",
            reference=(320, 320, 25),
            loss_weights=MappingProxyType(
                {"stack0_logits": 1.0, "stack1_logits": 1.0, "stack2_logits": 1.0}
                | {"logits": 1.0}
            ),
        ),
        "fcn": Net(
            "fcn",
            "Long et al. 2015 (FCN-8s), as in CLOTH 4.1 and ATTN 3.3",
            stride=32,
            preprocess="unit",
            reference=(256, 256, 18),
            encoder=r"enc\d_conv|fc\d",
        ),
        "unet": Net(
            "unet",
            "Ronneberger et al. 2015, as in CLOTH 3",
            stride=16,
            preprocess="unit",
            reference=(256, 256, 18),
            fixed=MappingProxyType({"attention": False, "batch_norm": False}),
        ),
        "unet_bn": Net(
            "unet",
            "CLOTH 3, Fig. 1",
            stride=16,
            preprocess="unit",
            reference=(256, 256, 18),
            fixed=MappingProxyType({"attention": False, "batch_norm": True}),
        ),
        "attention_unet": Net(
            "unet",
            "Oktay et al. 2018, as in CLOTH 4.1",
            stride=16,
            preprocess="unit",
            reference=(256, 256, 18),
            fixed=MappingProxyType({"attention": True}),
        ),
        "fcn_strided": Net(
            "fcn_strided",
            "CITY Table 1; VOC07 3.1 with order=act_bn",
            stride=32,
            preprocess="imagenet",
            reference=(512, 1024, 34),
        ),
        "fcn_strided_prelu": Net(
            "fcn_strided_prelu",
            "CITY 3.4",
            stride=32,
            preprocess="imagenet",
            reference=(512, 1024, 34),
        ),
        "fcn_resnet50": Net(
            "fcn_resnet50",
            "CITY Table 2, with ResNet50 of He et al. 2016",
            stride=32,
            preprocess="bgr_minus_mean",
            reference=(512, 1024, 34),
            encoder=r"conv\d",
        ),
        "unet_slim": Net(
            "unet_slim",
            "CITY Table 3",
            stride=16,
            preprocess="imagenet",
            reference=(512, 1024, 34),
        ),
        "fcn_attention": Net(
            "fcn_attention",
            "Shen and Sun 2022 (ATTN 2.3)",
            stride=32,
            preprocess="imagenet",
            reference=(224, 224, 19),
            encoder=r"enc\d_conv",
        ),
        "fcn_dilated_tanh": Net(
            "fcn_dilated_tanh",
            "VOC07 3.3, Table 1 (5a)",
            stride=8,
            preprocess="imagenet",
            reference=(224, 224, 21),
            smallest=40,  # 1x1 at the bottom
        ),
        "fcn_resnet34": Net(
            "fcn_resnet34",
            "VOC07 3.3, Table 2 (5b), with ResNet34 of He et al. 2016",
            stride=32,
            preprocess="imagenet",
            reference=(224, 224, 21),
            encoder=r"(conv1|bn1|layer)",
        ),
        "unet_valid": Net(
            "unet_valid",
            "VOC07 3.3, Table 3 (5c)",
            stride=16,
            preprocess="imagenet",
            reference=(224, 224, 21),
            smallest=144,  # 1x1 at the bottom
        ),
        "unet_lite0": Net(
            "unet_lite0",
            "EfficientNet-Lite0 (Tan and Le 2019) with U-Net's decoder",
            stride=32,
            preprocess="signed_unit",
            reference=(352, 480, 11),
            encoder=r"(stem|block\d)",
        ),
    }
)


def get(name: str) -> Net:
    """What is known of a network; UsageError lists the names there are."""
    if name not in NETS:
        known = ", ".join(sorted(NETS))
        raise UsageError(f"There is no network {name!r}. Networks: {known}.")
    return NETS[name]


def build(
    name: str,
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    filter_scale: int = 1,
    **knobs,
) -> "keras.Model":
    """A network with fresh weights.

    Args:
        name: a key of `NETS`.
        input_shape: (H, W, channels) of the image; see `input_stride`.
        num_classes: int >= 1. Channels of the main head.
        filter_scale: int >= 1. Factor on the network's widths (BODY's "doubled
            filters" is 2).
        **knobs: the network's own options, keyword arguments of its builder.

    Returns:
        keras.Model of image float32 [B, H, W, channels] to a dict of raw float32
        outputs; "logits" is the main head. Every head keeps its own stride.

    Raises:
        UsageError: an unknown network or knob, a value that a knob cannot take, a size
            that the network cannot take (the next valid one is named), num_classes or
            filter_scale below 1.
    """
    builder = _builder(name, knobs)
    for what, value in (("num_classes", num_classes), ("filter_scale", filter_scale)):
        if not isinstance(value, int) or value < 1:
            raise UsageError(f"{what} is {value}; it must be a whole number from 1.")
    input_shape = tuple(input_shape)
    if len(input_shape) != 3 or not all(
        isinstance(side, int) and side >= 1 for side in input_shape
    ):
        raise UsageError(
            f"input_shape is {input_shape}; it must be (height, width, channels)."
        )
    check_size(name, input_shape[:2], **knobs)
    with _knobs_named(name, knobs):
        return builder(
            input_shape,
            num_classes,
            filter_scale=filter_scale,
            **get(name).fixed,
            **knobs,
        )


def heads(name: str, num_classes: int, **knobs) -> dict[str, Head]:
    """Every supervised output of a network with these knobs, the main one included.

    A module whose heads depend on its knobs has its own function `heads`; the others
    have those of `Net.loss_weights`.
    """
    _builder(name, knobs)
    module = _module(name)
    if hasattr(module, "heads"):
        with _knobs_named(name, knobs):
            return module.heads(num_classes, **get(name).fixed, **knobs)
    return {
        head: Head(loss_weight=weight)
        for head, weight in get(name).loss_weights.items()
    }


def head_weights(net: "keras.Model") -> dict[str, float]:
    """The weight of every head in the total loss, as the network's source states it.

    Known by the names of the heads: networks that share a builder share them, and what
    is in no row of `NETS` (a hourglass of another depth, a network of one's own) weighs
    1.
    """
    for entry in NETS.values():
        if set(entry.loss_weights) == set(net.output):
            return dict(entry.loss_weights)
    return dict.fromkeys(net.output, 1.0)


def input_stride(name: str, **knobs) -> int:
    """What the input's height and width must be multiples of, with these knobs.

    Without knobs it is the table's, and no module is imported.
    """
    if not knobs:
        return get(name).stride
    _builder(name, knobs)
    module = _module(name)
    if hasattr(module, "input_stride"):
        with _knobs_named(name, knobs):
            return module.input_stride(**get(name).fixed, **knobs)
    return get(name).stride


def next_valid_size(
    size: tuple[int, int], stride: int, smallest: int = 1
) -> tuple[int, int]:
    """(height, width), at least `smallest`, rounded up to multiples of `stride`."""
    height, width = (-(-max(side, smallest) // stride) * stride for side in size)
    return height, width


def padded_size(name: str, size: tuple[int, int], **knobs) -> tuple[int, int]:
    """The smallest (height, width) that the network takes and that holds `size`."""
    return next_valid_size(size, input_stride(name, **knobs), get(name).smallest)


def check_size(name: str, size: tuple[int, int], **knobs) -> None:
    """UsageError for a size the network cannot take; it names the next valid one.

    Without knobs this imports no Keras, so a command line can ask before it starts.
    """
    valid = padded_size(name, size, **knobs)
    if tuple(size) != valid:
        stride, smallest = input_stride(name, **knobs), get(name).smallest
        least = f" of at least {smallest}" if smallest > stride else ""
        raise UsageError(
            "{} takes no images of {} x {} px: height and width must be multiples of "
            "{}{}. The next size it takes is {} x {}; --pad fills up to it.".format(
                name, *size, stride, least, *valid
            )
        )


def inference_model(model: "keras.Model") -> "keras.Model":
    """The network for prediction: the main head alone, at the size of the image.

    Args:
        model: a network from `build`; the result shares its layers and weights.

    Returns:
        keras.Model of image [B, H, W, channels] to {"logits": float32 [B, H, W, C]},
        resized bilinearly with half-pixel centres where the head has a stride.
    """
    import keras

    from keras_seg.nets import blocks

    image = model.inputs[0]
    height, width = image.shape[1:3]
    logits = blocks.resize(
        model.output["logits"], height, width, name="logits_resize", dtype="float32"
    )
    return keras.Model(image, {"logits": logits}, name=f"{model.name}_inference")


def _module(name: str):
    return importlib.import_module(f"keras_seg.nets.{get(name).module}")


def _builder(name: str, knobs: Mapping[str, object]):
    """The function that builds the network, once its knobs are known to exist."""
    builder = getattr(_module(name), get(name).builder)
    parameters = inspect.signature(builder).parameters.values()
    known = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    known -= {"filter_scale", *get(name).fixed}
    for knob in knobs:
        if knob not in known:
            has = f"Its knobs: {', '.join(sorted(known))}." if known else "It has none."
            raise UsageError(f"{name} has no knob {knob!r}. {has}")
    return builder


@contextmanager
def _knobs_named(name: str, knobs: Mapping[str, object]) -> Iterator[None]:
    """UsageError for what a builder or Keras raises at values of knobs."""
    try:
        yield
    except (ValueError, TypeError, ArithmeticError) as error:
        if isinstance(error, KerasSegError) or not knobs:
            raise
        values = ", ".join(f"{knob}={value!r}" for knob, value in knobs.items())
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UsageError(
            f"{name} cannot be built with {values}: {reason.rstrip('.')[:200]}. "
            f"keras_seg/nets/{get(name).module}.py describes its knobs."
        ) from error
