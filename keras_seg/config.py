"""Every setting of a training run, its default, unit and reason.

A configuration is a frozen dataclass. It is written as JSON into the run folder and
read back with `from_dict`, which refuses unknown keys and wrong types by name.
Places (where data and runs lie), thread counts and checkpoint intervals are not
part of it: they never change the result.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field

from keras_seg.errors import UsageError
from keras_seg.preprocess import PREPROCESS


def setting(default=dataclasses.MISSING, help: str = ""):
    """A field with its default and its meaning, as `--help` shows it."""
    if callable(default):
        return field(default_factory=default, metadata={"help": help})
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Augment:
    """Random geometry of a training sample, drawn from (seed, sample index) only.

    One affine map is composed of the parts that are switched on; the image is
    resampled bilinearly and filled with 0, the label by nearest and filled with 255.
    """

    mirror: float = setting(0.0, "probability of a left-right mirror image")
    # The thesis mirrored without exchanging ids, which contradicts 18 of 24 parts.
    swap_lr: bool = setting(False, "exchange left and right class ids when mirrored")
    # BODY's "180 degrees flip" read literally.
    flip180: float = setting(0.0, "probability of a half turn")
    # A crop or a pad to the training size follows, at a random place.
    scale: tuple[float, float] = setting((1.0, 1.0), "range of the uniform zoom factor")
    rotate: float = setting(0.0, "degrees; uniform in [-rotate, rotate]")
    rotate_probability: float = setting(1.0, "share of the samples that are rotated")
    noise: float = setting(0.0, "std of Gaussian pixel noise, grey levels of 0..255")


@dataclass(frozen=True)
class Config:
    """One training run. Two runs with equal configuration and equal data are equal."""

    # What is trained
    net: str = setting(help="a key of keras_seg.nets.NETS")
    size: tuple[int, int] = setting(help="height and width images are resized to, px")
    steps: int = setting(help="optimizer steps")
    filter_scale: int = setting(1, "width; 2 is the thesis' doubled filters")
    knobs: Mapping[str, object] = setting(dict, "the network's own options")
    pad: bool = setting(False, "pad to the net's stride (label 255), do not refuse")
    # ATTN feeds the FCN what VGG's ImageNet weights want; CLOTH feeds it RGB / 255.
    preprocess: str | None = setting(None, "input normalisation; null: the net's own")
    init_weights_sha256: str | None = setting(None, "of the pretrained weights' file")

    # The data
    batch: int = setting(16, "images a batch")
    seed: int = setting(0, "of weights, data order, augmentation and dropout")
    augment: Augment = setting(Augment, "random geometry")
    joint_targets: str = setting("surreal", "surreal joints, or centroid of each part")

    # The loss
    loss: str = setting("ce", "ce, dice or focal")
    l1: float = setting(0.0, "penalty on |prediction - truth| (CLOTH)")
    l2: float = setting(0.0, "penalty on (prediction - truth)^2 (CLOTH)")
    class_weights: str = setting("none", "none, w1, w2, median or voc07")
    strategy: str = setting("outer", "outer weighs the loss, direct the logits")
    normalise: str = setting("pixels", "divide by valid pixels, or sum of weights")
    weight_occurrences: str = setting(
        "pixels", "what voc07 counts: pixels, images, none"
    )
    background_weight: float = setting(0.15, "voc07: the background's weight")
    direct_at_inference: bool = setting(False, "direct weights in prediction as well")
    joint_loss_weight: float = setting(1.0, "lambda of the hourglass' joint branch")

    # The optimizer
    optimizer: str = setting("sgd", "sgd, adam or rmsprop")
    lr: float = setting(0.01, "initial learning rate")
    momentum: float = setting(0.9, "sgd only; not Nesterov")
    rho: float = setting(0.99, "rmsprop only")
    epsilon: float = setting(1e-8, "rmsprop and adam")
    schedule: str = setting("poly", "constant, poly, step, cosine or exponential")
    poly_power: float = setting(0.9, "of poly")
    lr_min: float = setting(0.0, "floor of cosine")
    decay_every: int = setting(2000, "steps between drops of step and exponential")
    decay_rate: float = setting(0.1, "factor at each drop of step and exponential")
    weight_decay: float = setting(0.0, "L2: this times a weight joins its gradient")
    decay_on: str = setting("kernels", "convolution kernels (ICNet), or all weights")
    bn_start: int = setting(0, "step at which gamma and beta begin to be trained")
    # affine: batch statistics, fixed gamma and beta. full: batch norm in inference
    # mode until then, BODY's wording taken literally.
    bn_mode: str = setting("affine", "what is fixed before bn_start: affine or full")
    accumulate: int = setting(1, "batches whose gradients make one step")
    precision: str = setting("float32", "float32 or mixed_bfloat16")

    # Validation
    val_every: int = setting(200, "steps between validations and lines of history")
    val_samples: int | None = setting(None, "images of those validations; null: all")
    val_batch: int = setting(16, "images a batch in evaluation")

    def __post_init__(self):
        _check_choices(self)
        _check_ranges(self)


_CHOICES = {
    "joint_targets": ("surreal", "centroid"),
    "loss": ("ce", "dice", "focal"),
    "class_weights": ("none", "w1", "w2", "median", "voc07"),
    "strategy": ("outer", "direct"),
    "normalise": ("pixels", "weights"),
    "weight_occurrences": ("pixels", "images", "none"),
    "optimizer": ("sgd", "adam", "rmsprop"),
    "schedule": ("constant", "poly", "step", "cosine", "exponential"),
    "decay_on": ("kernels", "all"),
    "bn_mode": ("affine", "full"),
    "precision": ("float32", "mixed_bfloat16"),
}
_AT_LEAST_ONE = ("steps", "filter_scale", "batch", "val_every", "val_batch")
_AT_LEAST_ONE += ("accumulate", "decay_every")


def _check_choices(config: Config) -> None:
    for name, choices in _CHOICES.items():
        if getattr(config, name) not in choices:
            raise UsageError(
                name, getattr(config, name), "one of " + ", ".join(choices)
            )


def _check_ranges(config: Config) -> None:
    for name in _AT_LEAST_ONE:
        if getattr(config, name) < 1:
            raise UsageError(name, getattr(config, name), "at least 1")
    for settings, prefix in ((config, ""), (config.augment, "augment.")):
        for spec in dataclasses.fields(settings):
            value = getattr(settings, spec.name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if is_number and not 0 <= value < float("inf"):
                raise UsageError(prefix + spec.name, value, "a finite number from 0")
    for name in ("momentum", "rho"):
        if getattr(config, name) >= 1:
            raise UsageError(name, getattr(config, name), "a number below 1")
    for name in ("lr", "epsilon", "decay_rate"):
        if getattr(config, name) == 0:
            raise UsageError(name, 0, "a number above 0")
    if config.lr_min > config.lr:
        raise UsageError("lr_min", config.lr_min, f"at most lr, {config.lr}")
    if config.seed >= 2**32:
        raise UsageError("seed", config.seed, "a whole number below 2^32")
    if config.preprocess is not None and config.preprocess not in PREPROCESS:
        raise UsageError(
            "preprocess", config.preprocess, "one of " + ", ".join(PREPROCESS)
        )
    if config.bn_mode == "full" and config.bn_start % config.val_every:
        raise UsageError(
            "bn_start", config.bn_start, f"a multiple of val_every {config.val_every}"
        )
    if config.val_samples is not None and config.val_samples < 1:
        raise UsageError("val_samples", config.val_samples, "at least 1, or null")
    if min(config.size) < 1:
        raise UsageError("size", config.size, "height and width of at least 1 px")
    low, high = config.augment.scale
    if not 0 < low <= high < float("inf"):
        raise UsageError("augment.scale", (low, high), "0 < lowest <= highest")
    for name in ("mirror", "flip180", "rotate_probability"):
        if not 0 <= getattr(config.augment, name) <= 1:
            value = getattr(config.augment, name)
            raise UsageError(f"augment.{name}", value, "a probability in 0..1")


def to_dict(config: Config) -> dict:
    """The configuration as plain JSON values; `from_dict` gives it back."""
    return _plain(config)


def from_dict(values: Mapping[str, object]) -> Config:
    """A configuration from JSON values.

    Raises:
        UsageError: an unknown or missing key, or a value of the wrong type.
    """
    return _build(Config, values, "")


def _plain(value):
    if dataclasses.is_dataclass(value):
        return {
            f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def _build(cls, values, prefix):
    if not isinstance(values, Mapping):
        raise UsageError(prefix.rstrip(".") or "configuration", values, "an object")
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in hints:
            raise UsageError(
                f"setting {prefix}{key}", values[key], "one of " + ", ".join(hints)
            )
    for spec in dataclasses.fields(cls):
        required = (
            spec.default is dataclasses.MISSING
            and spec.default_factory is dataclasses.MISSING
        )
        if required and spec.name not in values:
            raise UsageError(f"setting {prefix}{spec.name}", "missing", "a value")
    return cls(**{key: _cast(hints[key], values[key], prefix + key) for key in values})


def _cast(hint, value, name):
    """The value as the type of its field; JSON has no tuples and one number type."""
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, name + ".")
    origin = typing.get_origin(hint)
    if origin is types.UnionType:
        if value is None:
            return None
        return _cast(typing.get_args(hint)[0], value, name)
    if origin is tuple:
        items = typing.get_args(hint)
        if not isinstance(value, tuple | list) or len(value) != len(items):
            raise UsageError(f"setting {name}", value, f"{len(items)} values")
        return tuple(_cast(t, v, name) for t, v in zip(items, value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if origin is not None:  # Mapping[str, object]
        if not isinstance(value, Mapping):
            raise UsageError(f"setting {name}", value, "an object")
        return {
            key: tuple(item) if isinstance(item, list) else item
            for key, item in value.items()
        }
    if not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
        raise UsageError(f"setting {name}", value, hint.__name__)
    return value
