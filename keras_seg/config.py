"""Every setting of a training run, with its default, unit and reason.

A configuration is made of frozen parts, one per owner: the network, the data, the
augmentation, the loss, the optimizer, the validation. A setting is named by its path,
"optimizer.lr", the same in JSON, on the command line and in reports. Paths of files,
thread counts and checkpoint intervals are not part of it: they never change a result.
"""

import dataclasses
import difflib
import functools
import importlib
import json
import math
import numbers
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from keras_seg.errors import UsageError

# What a value must satisfy: a test, and the words that follow "must be"
Rule = tuple[Callable[[Any], bool], str]
AT_LEAST_ONE: Rule = (lambda value: value >= 1, "at least 1")
POSITIVE: Rule = (lambda value: value > 0, "above 0")
BELOW_ONE: Rule = (lambda value: value < 1, "below 1")
UP_TO_ONE: Rule = (lambda value: value <= 1, "at most 1")
PROBABILITY: Rule = (lambda value: 0 <= value <= 1, "a probability, 0 to 1")
HALF_TURN: Rule = (lambda value: value <= 0.5, "at most half a turn, 0.5")
SIZE: Rule = (lambda size: min(size) >= 1, "a height and a width of at least 1 px")
ZOOM: Rule = (
    lambda zoom: 0 < zoom[0] <= zoom[1] < math.inf,
    "a lowest and a highest factor, both above 0",
)
SEED: Rule = (lambda seed: seed < 2**32, "below 2^32")
AT_LEAST_TWO: Rule = (lambda value: value >= 2, "at least 2")
WEIGHTS: Rule = (
    lambda weights: (
        isinstance(weights, str)
        or (all(0 <= w < math.inf for w in weights) and any(weights))
    ),
    "a scheme, or one finite number from 0 for each class, not all of them 0",
)


def setting(
    default: Any = MISSING,
    help: str = "",
    *,
    choices: tuple[str, ...] | str = (),
    rule: Rule | None = None,
) -> Any:
    """A field of a part.

    Args:
        default: its default; a callable makes one for every part.
        help: its meaning in a few words, as help texts and the reference show it.
        choices: the values it may take, or "module.TABLE" whose keys they are.
        rule: what else a value must satisfy; numbers are always finite and from 0.
    """
    metadata = {"help": help, "choices": choices, "rule": rule}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Part:
    """A part of the configuration: values are cast to their types and checked."""

    prefix: ClassVar[str] = ""  # "optimizer.": the beginning of its settings' paths

    def __post_init__(self):
        for spec in dataclasses.fields(self):
            path = self.prefix + spec.name
            value = _cast(_hints(type(self))[spec.name], getattr(self, spec.name), path)
            object.__setattr__(self, spec.name, value)
            _check(spec, value, path)


@dataclass(frozen=True)
class NetSettings(Part):
    """The network and its options: one value, so that no knob outlives its network."""

    prefix: ClassVar[str] = "net."

    name: str = setting(help="the architecture", choices="keras_seg.nets.NETS")
    filter_scale: int = setting(
        1, "factor on the widths; 2 is BODY's doubled filters", rule=AT_LEAST_ONE
    )
    # ATTN feeds the FCN what VGG's ImageNet weights want; CLOTH feeds it RGB / 255.
    preprocess: str | None = setting(
        None,
        "input normalisation; null: the network's own",
        choices="keras_seg.preprocess.PREPROCESS",
    )
    init_weights_sha256: str | None = setting(None, "hash of the pretrained weights")
    # In JSON the knobs are entries like the name: {"name": "hourglass", "stacks": 2}.
    knobs: Mapping[str, object] = setting(dict, "the network's own options")


@dataclass(frozen=True)
class DataSettings(Part):
    """How images become batches."""

    prefix: ClassVar[str] = "data."

    size: tuple[int, int] = setting(
        help="height and width that images are resized to, px", rule=SIZE
    )
    fit: str = setting(
        "stretch",
        "how an image fits into that size: all of it, or with its aspect ratio kept, "
        "black and ignored (255) on the right or below. Of own photographs letterbox",
        choices=("stretch", "letterbox"),
    )
    pad: bool = setting(False, "pad to the network's stride (label 255)")
    crop: tuple[int, int] | None = setting(
        None,
        "height and width of training crops, px, at a random place after the zoom; "
        "null: whole images. Validation is on whole images",
        rule=SIZE,
    )
    # Class weights are those of the whole split all the same.
    samples: int | None = setting(
        None,
        "training images that are used, evenly spread over the split; null: all",
        rule=AT_LEAST_ONE,
    )
    batch: int = setting(16, "images per batch", rule=AT_LEAST_ONE)
    joints: str = setting(
        "surreal",
        "what heatmaps show: SURREAL's joints, or the centroid of each part",
        choices=("surreal", "centroid"),
    )
    # Sequences are kept together (`keras_seg.data.folds`).
    folds: int | None = setting(
        None,
        "parts that the training and validation images are divided into anew; null: "
        "trained and validated as they were prepared",
        rule=AT_LEAST_TWO,
    )
    fold: int = setting(
        0, "with folds: the part, from 0, that is held out to validate on"
    )

    def used(self, images: int) -> int:
        """How many of so many training images are used."""
        return images if self.samples is None else min(images, self.samples)

    def __post_init__(self):
        super().__post_init__()
        if self.fold and self.fold >= (self.folds or 0):
            most = "0 without data.folds"
            if self.folds is not None:
                most = f"at most {self.folds - 1} of {self.folds} folds"
            raise UsageError(f"data.fold is {self.fold}; it must be {most}.")


@dataclass(frozen=True)
class Augment(Part):
    """Random changes of a training sample, drawn from (seed, sample index) only.

    The geometric ones are composed into one affine map: the image is resampled
    bilinearly and filled with 0, the label by nearest and filled with 255. Colours,
    blur and noise follow, in this order.
    """

    prefix: ClassVar[str] = "augment."

    mirror: float = setting(0.0, "probability of a left-right flip", rule=PROBABILITY)
    # The thesis flipped without exchanging ids, which contradicts 18 of 24 parts.
    swap_lr: bool | None = setting(
        None,
        "exchange left and right class ids when flipped; null: where the data have any",
    )
    # BODY's "180 degrees flip" read literally
    flip180: float = setting(0.0, "probability of a half turn", rule=PROBABILITY)
    # A crop or a pad to `data.crop`, or to the size of the images, follows, at a random
    # place.
    scale: tuple[float, float] = setting(
        (1.0, 1.0), "range of the uniform zoom factor", rule=ZOOM
    )
    rotate: float = setting(0.0, "degrees; uniform in [-rotate, rotate]")
    rotate_probability: float = setting(
        1.0, "share of the samples that are rotated", rule=PROBABILITY
    )
    # In each image of a street there are few cyclists: a crop at any place has none.
    balance: float = setting(
        0.0,
        "share of the crops that are moved over a pixel of a class that is drawn from "
        "those of the image, each as likely",
        rule=PROBABILITY,
    )
    brightness: float = setting(0.0, "factor, uniform in 1 ± this", rule=UP_TO_ONE)
    contrast: float = setting(
        0.0,
        "factor on the distance from the mean grey, uniform in 1 ± this",
        rule=UP_TO_ONE,
    )
    saturation: float = setting(
        0.0,
        "factor on the distance from the pixel's grey, uniform in 1 ± this",
        rule=UP_TO_ONE,
    )
    hue: float = setting(
        0.0, "turns of the colour circle; uniform in [-hue, hue]", rule=HALF_TURN
    )
    jitter_probability: float = setting(
        1.0,
        "share of the samples whose brightness, contrast, saturation and hue change",
        rule=PROBABILITY,
    )
    blur: float = setting(0.0, "std of a Gaussian blur, px; uniform in [0, blur]")
    blur_probability: float = setting(
        1.0, "share of the samples that are blurred", rule=PROBABILITY
    )
    noise: float = setting(0.0, "std of Gaussian pixel noise, grey levels of 0..255")


@dataclass(frozen=True)
class Loss:
    """What is known of a loss of labels without Keras.

    Attributes:
        class_name: its class in `keras_seg.losses`.
        takes_weights: whether it can weigh classes.
    """

    class_name: str
    takes_weights: bool = False


LOSSES: Mapping[str, Loss] = types.MappingProxyType(
    {
        "ce": Loss("CrossEntropy", takes_weights=True),
        "dice": Loss("Dice"),
        "focal": Loss("Focal"),
        "ohem": Loss("HardPixels"),
        "lovasz": Loss("Lovasz"),
        "tversky": Loss("Tversky"),
    }
)


@dataclass(frozen=True)
class LossSettings(Part):
    """The loss of the heads, and the class weights in it."""

    prefix: ClassVar[str] = "loss."

    name: str = setting("ce", "which loss", choices="keras_seg.config.LOSSES")
    plus: str | None = setting(
        None,
        "a second loss that is added; null: none",
        choices="keras_seg.config.LOSSES",
    )
    plus_weight: float = setting(1.0, "factor of that second loss")
    weights: str | tuple[float, ...] = setting(
        "none",
        "class weights: a scheme, or a number for each class",
        choices="keras_seg.class_weights.WEIGHTINGS",
        rule=WEIGHTS,
    )
    strategy: str = setting(
        "outer",
        "class weights on the loss (outer) or on the logits (direct)",
        choices=("outer", "direct"),
    )
    normalise: str = setting(
        "pixels",
        "divide the loss by the valid pixels or by the sum of their weights",
        choices=("pixels", "weights"),
    )
    occurrences: str = setting(
        "pixels", "what voc07 counts", choices=("pixels", "images", "none")
    )
    background_weight: float = setting(0.15, "voc07: the weight of class 0")
    direct_at_inference: bool = setting(False, "direct weights in prediction as well")
    smoothing: float = setting(
        0.0,
        "ce only: share of the truth that is spread over all classes",
        rule=UP_TO_ONE,
    )
    hard_below: float = setting(
        0.7, "ohem: pixels count whose true class is less probable", rule=PROBABILITY
    )
    hard_share: float = setting(
        1 / 16,
        "ohem: share of the pixels that counts at least, the hardest",
        rule=UP_TO_ONE,
    )
    false_positives: float = setting(0.3, "tversky: weight of false positives")
    false_negatives: float = setting(0.7, "tversky: weight of false negatives")
    l1: float = setting(0.0, "penalty on |prediction - truth| (CLOTH), or on |kernel|")
    l2: float = setting(
        0.0, "penalty on (prediction - truth)^2 (CLOTH), or on kernel^2"
    )
    # CLOTH's "L1 and L2 regularization" may mean either.
    penalise: str = setting(
        "error",
        "what l1 and l2 penalise: the error of the prediction, or the kernels",
        choices=("error", "kernels"),
    )
    joint_weight: float = setting(1.0, "factor of the hourglass' joint branch")

    def __post_init__(self):
        super().__post_init__()
        used = [self.name] if self.plus is None else [self.name, self.plus]
        if self.weights != "none" and not any(LOSSES[n].takes_weights for n in used):
            raise UsageError(
                f"loss.weights is {self.weights!r}, but the loss {self.name!r} takes "
                "no class weights; set it to none."
            )
        if self.smoothing and "ce" not in used:
            raise UsageError(
                f"loss.smoothing is {self.smoothing:g}, but it smooths the labels of "
                f"ce only, not of {self.name}; set it to 0."
            )
        if self.plus == self.name:
            raise UsageError(
                f"loss.plus is {self.plus!r}, which loss.name is already; set it to "
                "another loss, or to null."
            )


@dataclass(frozen=True)
class OptimizerSettings(Part):
    """The optimizer, its schedule and the rules it adds to gradients."""

    prefix: ClassVar[str] = "optimizer."

    name: str = setting(
        "sgd", "which optimizer", choices="keras_seg.runs.optimizers.OPTIMIZERS"
    )
    lr: float = setting(0.01, "initial learning rate", rule=POSITIVE)
    momentum: float = setting(0.9, "sgd only; not Nesterov", rule=BELOW_ONE)
    rho: float = setting(0.99, "rmsprop only", rule=BELOW_ONE)
    epsilon: float = setting(1e-8, "rmsprop, adam and adamw", rule=POSITIVE)
    schedule: str = setting(
        "poly",
        "course of the learning rate",
        choices="keras_seg.runs.schedules.SCHEDULES",
    )
    poly_power: float = setting(0.9, "exponent of poly", rule=POSITIVE)
    lr_min: float = setting(0.0, "floor of cosine")
    decay_every: int = setting(
        2000, "steps between drops of step and exponential", rule=AT_LEAST_ONE
    )
    decay_rate: float = setting(
        0.1, "factor at each drop of step and exponential", rule=POSITIVE
    )
    # A share, so that it fits a run of any length
    warmup: float = setting(
        0.0,
        "share of the steps over which the learning rate rises to the schedule's",
        rule=BELOW_ONE,
    )
    weight_decay: float = setting(
        0.0,
        "L2: this times a weight joins its gradient; adamw: this times the learning "
        "rate is taken off the weight",
    )
    decay_on: str = setting(
        "kernels",
        "what decays: convolution kernels (ICNet) or all weights",
        choices=("kernels", "all"),
    )
    bn_start: int = setting(0, "step at which gamma and beta start training")
    # affine: batch statistics, fixed gamma and beta. full: batch norm in inference
    # mode until then, BODY's wording taken literally.
    bn_mode: str = setting(
        "affine", "what is fixed before bn_start", choices=("affine", "full")
    )
    accumulate: int = setting(
        1, "batches whose gradients make one step", rule=AT_LEAST_ONE
    )
    clip_norm: float = setting(
        0.0, "largest norm of all gradients together, L2 included; 0: any"
    )
    ema: float = setting(
        0.0,
        "what a step keeps of the moving average of the weights, which is then "
        "validated, kept as the best and exported; 0: no average",
        rule=BELOW_ONE,
    )
    encoder_lr: float = setting(
        1.0, "factor on the learning rate of what pretrained weights fill"
    )

    def __post_init__(self):
        super().__post_init__()
        if self.lr_min > self.lr:
            raise UsageError(
                f"optimizer.lr_min is {self.lr_min:g}; it must be at most the "
                f"learning rate, {self.lr:g}."
            )


@dataclass(frozen=True)
class ValidationSettings(Part):
    """When and on what a run is validated."""

    prefix: ClassVar[str] = "validation."

    every: int = setting(
        200, "steps between validations and rows of history.csv", rule=AT_LEAST_ONE
    )
    samples: int | None = setting(
        None, "images of these validations; null: all", rule=AT_LEAST_ONE
    )
    choice: str = setting(
        "spread",
        "which these are: spread over the split and its sequences, or the first",
        choices=("spread", "first"),
    )
    batch: int = setting(16, "images per batch in evaluation", rule=AT_LEAST_ONE)
    patience: int | None = setting(
        None,
        "validations without a better one after which a run stops; null: never",
        rule=AT_LEAST_ONE,
    )

    def __post_init__(self):
        super().__post_init__()
        if self.samples is None:  # all: equal settings are equal runs
            object.__setattr__(self, "choice", "spread")


@dataclass(frozen=True, kw_only=True)
class Config(Part):
    """One training run. Equal configurations and equal data give equal runs.

    A part may be given as a mapping of its settings, the network as its name:
    `Config(net="icnet", data={"size": (96, 128)}, steps=200)`.
    """

    net: NetSettings = setting(help="the network")
    data: DataSettings = setting(help="how images become batches")
    augment: Augment = setting(Augment, "random changes of training samples")
    loss: LossSettings = setting(LossSettings, "the loss")
    optimizer: OptimizerSettings = setting(OptimizerSettings, "the optimizer")
    validation: ValidationSettings = setting(ValidationSettings, "the validation")
    steps: int = setting(help="optimizer steps", rule=AT_LEAST_ONE)
    # The schedule up to each of them is that of a run of so many steps.
    extended: tuple[int, ...] = setting(
        (), "steps at which the run had ended before it was extended"
    )
    seed: int = setting(
        0, "of weights, data order, augmentation and dropout", rule=SEED
    )
    precision: str = setting(
        "float32",
        "of the arithmetic; auto is bfloat16 where that is faster, and the run records "
        "which it was",
        choices=("float32", "mixed_bfloat16", "auto"),
    )

    if TYPE_CHECKING:

        def __init__(self, **parts: Any): ...

    def __post_init__(self):
        super().__post_init__()
        is_zoomed = self.augment.scale[1] > 1
        if self.augment.balance and self.data.crop is None and not is_zoomed:
            raise UsageError(
                f"augment.balance is {self.augment.balance:g}, but nothing is cropped: "
                "set data.crop, or augment.scale to more than 1."
            )
        start, every = self.optimizer.bn_start, self.validation.every
        if self.optimizer.bn_mode == "full" and start % every:
            raise UsageError(
                f"optimizer.bn_start is {start}; with bn_mode full it must be a "
                f"multiple of validation.every, {every}."
            )
        ends = (0, *self.extended, self.steps)
        if any(end <= before for before, end in zip(ends, ends[1:])):
            raise UsageError(
                f"extended is {list(self.extended)}; it must ascend from 1 and end "
                f"below steps, {self.steps}."
            )

    def changed(self, **parts: Any) -> "Config":
        """A copy with other settings.

        Args:
            **parts: by field. A mapping changes the settings it names and keeps the
                others of the part; the name of a network replaces the network with
                all its knobs.
        """
        changes = {}
        for name, value in parts.items():
            old = getattr(self, name, None)
            if isinstance(value, Mapping) and isinstance(old, Part):
                is_other_net = value.get("name", self.net.name) != self.net.name
                if name != "net" or not is_other_net:
                    value = plain(old) | dict(value)
            changes[name] = value
        return dataclasses.replace(self, **changes)


def _is_on(*paths: str) -> Callable[[Config], bool]:
    def is_on(config: Config) -> bool:
        parts = (path.split(".") for path in paths)
        return any(getattr(getattr(config, part), name) for part, name in parts)

    return is_on


def _is_one(path: str, *values: str) -> Callable[[Config], bool]:
    part, name = path.split(".")
    return lambda config: getattr(getattr(config, part), name) in values


def _has_loss(name: str) -> Callable[[Config], bool]:
    return lambda config: name in (config.loss.name, config.loss.plus)


def _has_weights(config: Config) -> bool:
    return config.loss.weights != "none"


_SGD = ("the optimizer sgd", _is_one("optimizer.name", "sgd"))
_ADAPTIVE = (
    "rmsprop, adam and adamw",
    _is_one("optimizer.name", "rmsprop", "adam", "adamw"),
)
_STEPS = (
    "the schedules step and exponential",
    _is_one("optimizer.schedule", "step", "exponential"),
)
_WEIGHTS = ("class weights (loss.weights)", _has_weights)
_VOC07 = ("loss.weights=voc07", _is_one("loss.weights", "voc07"))
_OHEM, _TVERSKY = (
    ("the loss ohem", _has_loss("ohem")),
    ("tversky", _has_loss("tversky")),
)
_COLOURS = _is_on(
    "augment.brightness", "augment.contrast", "augment.saturation", "augment.hue"
)

# {setting: (what reads it, whether a configuration has that)}; all others are read
READ_BY: Mapping[str, tuple[str, Callable[[Config], bool]]] = types.MappingProxyType(
    {
        "augment.swap_lr": (
            "mirrored images (augment.mirror)",
            _is_on("augment.mirror"),
        ),
        "augment.rotate_probability": ("augment.rotate", _is_on("augment.rotate")),
        "augment.jitter_probability": (
            "brightness, contrast, saturation and hue",
            _COLOURS,
        ),
        "augment.blur_probability": ("augment.blur", _is_on("augment.blur")),
        "loss.plus_weight": ("a second loss (loss.plus)", _is_on("loss.plus")),
        "loss.strategy": _WEIGHTS,
        "loss.normalise": _WEIGHTS,
        "loss.occurrences": _VOC07,
        "loss.background_weight": _VOC07,
        "loss.direct_at_inference": (
            "loss.strategy=direct with class weights",
            lambda config: _has_weights(config) and config.loss.strategy == "direct",
        ),
        "loss.joint_weight": (
            "networks with joints (net.joints of the hourglass)",
            lambda config: bool(config.net.knobs.get("joints")),
        ),
        "loss.hard_below": _OHEM,
        "loss.hard_share": _OHEM,
        "loss.false_positives": _TVERSKY,
        "loss.false_negatives": _TVERSKY,
        "loss.penalise": ("loss.l1 and loss.l2", _is_on("loss.l1", "loss.l2")),
        "optimizer.momentum": _SGD,
        "optimizer.rho": ("rmsprop", _is_one("optimizer.name", "rmsprop")),
        "optimizer.epsilon": _ADAPTIVE,
        "optimizer.poly_power": (
            "the schedule poly",
            _is_one("optimizer.schedule", "poly"),
        ),
        "optimizer.lr_min": (
            "the schedule cosine",
            _is_one("optimizer.schedule", "cosine"),
        ),
        "optimizer.decay_every": _STEPS,
        "optimizer.decay_rate": _STEPS,
        "optimizer.decay_on": (
            "optimizer.weight_decay",
            _is_on("optimizer.weight_decay"),
        ),
        "optimizer.bn_mode": ("optimizer.bn_start", _is_on("optimizer.bn_start")),
    }
)

# Where the settings of format 1, which had no parts, are now
FORMAT_1: Mapping[str, str] = types.MappingProxyType(
    {
        "filter_scale": "net.filter_scale",
        "knobs": "net.knobs",
        "preprocess": "net.preprocess",
        "init_weights_sha256": "net.init_weights_sha256",
        "size": "data.size",
        "pad": "data.pad",
        "batch": "data.batch",
        "joint_targets": "data.joints",
        "loss": "loss.name",
        "l1": "loss.l1",
        "l2": "loss.l2",
        "class_weights": "loss.weights",
        "strategy": "loss.strategy",
        "normalise": "loss.normalise",
        "weight_occurrences": "loss.occurrences",
        "background_weight": "loss.background_weight",
        "direct_at_inference": "loss.direct_at_inference",
        "joint_loss_weight": "loss.joint_weight",
        "optimizer": "optimizer.name",
        "lr": "optimizer.lr",
        "momentum": "optimizer.momentum",
        "rho": "optimizer.rho",
        "epsilon": "optimizer.epsilon",
        "schedule": "optimizer.schedule",
        "poly_power": "optimizer.poly_power",
        "lr_min": "optimizer.lr_min",
        "decay_every": "optimizer.decay_every",
        "decay_rate": "optimizer.decay_rate",
        "weight_decay": "optimizer.weight_decay",
        "decay_on": "optimizer.decay_on",
        "bn_start": "optimizer.bn_start",
        "bn_mode": "optimizer.bn_mode",
        "accumulate": "optimizer.accumulate",
        "val_every": "validation.every",
        "val_samples": "validation.samples",
        "val_batch": "validation.batch",
    }
)


def to_dict(config: Config) -> dict[str, Any]:
    """The configuration as plain JSON values; `from_dict` gives it back."""
    return plain(config)


def from_dict(values: Mapping[str, Any]) -> Config:
    """A configuration from JSON values; those of format 1 are read as well.

    Raises:
        UsageError: an unknown or missing setting, or a value that it cannot take.
    """
    if not isinstance(values, Mapping):
        raise UsageError(f"The configuration is {values!r}; it must be an object.")
    return _build(Config, nest(values), "")


def nest(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings in parts; those of format 1, and a network given as its name, moved.

    Raises:
        UsageError: a part is no object of settings.
    """
    nested: dict[str, Any] = {}
    for key, value in values.items():
        is_old = key in FORMAT_1 and not isinstance(value, Mapping | Part)
        if is_old or key == "knobs":
            set_path(nested, FORMAT_1[key], value)
        elif key == "net" and isinstance(value, str):
            set_path(nested, "net.name", value)
        elif isinstance(value, Mapping | Part):
            nested[key] = {**nested.get(key, {}), **plain(value)}
        elif key in _parts():
            raise UsageError(f"{key} is {value!r}; it must be an object of settings.")
        else:
            nested[key] = value
    return nested


def part(name: str, values: Any) -> Part:
    """One part, such as "augment", from its settings; UsageError as `from_dict`."""
    return _build(_parts()[name], values, f"{name}.")


def set_path(values: dict[str, Any], path: str, value: Any) -> None:
    """Set "part.name" in nested JSON values; "net" alone names another network.

    Raises:
        UsageError: no such setting; the nearest ones are named.
    """
    part, _, name = path.partition(".")
    if path == "net":
        values["net"] = {"name": value}
    elif not name and part in ("steps", "extended", "seed", "precision"):
        values[part] = value
    elif name and part in _parts():
        known = [spec.name for spec in dataclasses.fields(_parts()[part])]
        if name not in known and part != "net":  # any other name is a knob's
            raise _unknown(path)
        old = values.setdefault(part, {})
        if isinstance(old, str):
            old = {"name": old}
        values[part] = {**old, name: value}
    else:
        raise _unknown(path)


def parse_setting(text: str) -> tuple[str, Any]:
    """("part.name", value) of "part.name=value", the value in JSON or a bare word."""
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise UsageError(f"--set {text!r} gives no value; write PART.NAME=VALUE.")
    return path, parse_value(value)


def parse_value(text: str) -> Any:
    """The value of JSON, of numbers with commas between them, or of a bare word."""
    for json_text in (text, f"[{text}]"):
        try:
            return json.loads(json_text)
        except ValueError:
            continue
    return text == "True" if text in ("True", "False") else text


def settings() -> Iterator[tuple[str, Any, Any, str, tuple[str, ...]]]:
    """(path, type, default, help, choices) of every setting but the knobs."""
    for spec in dataclasses.fields(Config):
        hint = _hints(Config)[spec.name]
        if spec.name in _parts():
            for inner in dataclasses.fields(hint):
                if inner.name != "knobs":
                    yield _described(
                        inner, _hints(hint)[inner.name], f"{spec.name}.{inner.name}"
                    )
        else:
            yield _described(spec, hint, spec.name)


def _described(spec, hint, path):
    return path, hint, spec.default, spec.metadata["help"], _choices(spec)


def plain(value: Any) -> Any:
    """Parts, mappings and tuples as JSON values; knobs are entries of the network."""
    if isinstance(value, Part):
        fields = dataclasses.fields(value)
        values = {f.name: plain(getattr(value, f.name)) for f in fields}
        return values | values.pop("knobs", {})
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


@functools.cache
def _parts() -> dict[str, type]:
    hints = _hints(Config)
    return {
        name: hints[name] for name in hints if dataclasses.is_dataclass(hints[name])
    }


def _choices(spec: dataclasses.Field) -> tuple[str, ...]:
    choices = spec.metadata["choices"]
    if isinstance(choices, str):  # by name: most tables are above the ground floor
        module, _, table = choices.rpartition(".")
        choices = tuple(getattr(importlib.import_module(module), table))
    return choices


def _check(spec: dataclasses.Field, value: Any, path: str) -> None:
    if value is None:
        return
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and not 0 <= value < math.inf:
        raise UsageError(f"{path} is {value}; it must be a finite number from 0.")
    choices, is_name = _choices(spec), isinstance(value, str)
    if choices and is_name and value not in choices:
        raise UsageError(f"{path} is {value!r}; it must be one of {_list(choices)}.")
    if (rule := spec.metadata["rule"]) is not None and not rule[0](value):
        raise UsageError(f"{path} is {value}; it must be {rule[1]}.")


def _unknown(path: str) -> UsageError:
    known = [each for each, *_ in settings()] + ["net"]
    near = difflib.get_close_matches(path, known, 3, 0.5)
    by_name = [
        one for one in known if one.rpartition(".")[2] == path.rpartition(".")[2]
    ]
    found = list(
        dict.fromkeys([FORMAT_1[path]] if path in FORMAT_1 else by_name + near)
    )
    hint = f"Did you mean {_list(found)}?" if found else f"Parts: {_list(_parts())}."
    return UsageError(f"There is no setting {path!r}. {hint}")


def _list(words) -> str:
    return ", ".join(words)


def _build(cls: Any, values: Any, prefix: str) -> Any:
    if isinstance(values, cls):
        return values
    if cls is NetSettings and isinstance(values, str):
        values = {"name": values}
    if not isinstance(values, Mapping):
        name = prefix.rstrip(".")
        raise UsageError(f"{name} is {values!r}; it must be an object of settings.")
    values = dict(values)
    names = [spec.name for spec in dataclasses.fields(cls)]
    extra = [key for key in values if key not in names]
    if cls is NetSettings:
        knobs = values.get("knobs", {})
        if not isinstance(knobs, Mapping):
            raise UsageError(f"net.knobs is {knobs!r}; it must be an object.")
        values["knobs"] = {**knobs, **{key: values.pop(key) for key in extra}}
    elif extra:
        raise _unknown(prefix + extra[0])
    for spec in dataclasses.fields(cls):
        has_default = spec.default is not MISSING or spec.default_factory is not MISSING
        if not has_default and spec.name not in values:
            raise UsageError(f"The setting {prefix}{spec.name} is missing.")
    return cls(**values)


def _cast(hint: Any, value: Any, path: str) -> Any:
    """The value as the type of its field; JSON has no tuples and one number type."""
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, path + ".")
    origin = typing.get_origin(hint)
    if origin is types.UnionType:
        if value is None and types.NoneType in typing.get_args(hint):
            return None
        first, second = typing.get_args(hint)
        is_list = typing.get_origin(second) is tuple and isinstance(value, tuple | list)
        return _cast(second if is_list else first, value, path)
    if origin is tuple:
        items = typing.get_args(hint)
        if items[-1] is Ellipsis and isinstance(value, tuple | list):
            items = items[:1] * len(value)
        if not isinstance(value, tuple | list) or len(value) != len(items):
            raise UsageError(f"{path} is {value!r}; it must be {len(items)} values.")
        return tuple(_cast(t, v, path) for t, v in zip(items, value))
    if origin is not None:  # Mapping[str, object], the knobs
        return {
            key: tuple(item) if isinstance(item, list) else item
            for key, item in value.items()
        }
    if not isinstance(value, bool):  # NumPy's numbers too
        if hint is int and isinstance(value, numbers.Integral):
            return int(value)
        if hint is float and isinstance(value, numbers.Real):
            return float(value)
    if not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
        kind = {"int": "a whole number", "float": "a number", "str": "a name"}
        wanted = kind.get(hint.__name__, "true or false")
        raise UsageError(f"{path} is {value!r}; it must be {wanted}.")
    return value
