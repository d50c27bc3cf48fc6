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


@dataclass(frozen=True)
class Augment:
    """Random geometry of a training sample, drawn from (seed, sample index) only.

    One affine map is composed of the parts that are switched on; the image is
    resampled bilinearly and filled with 0, the label by nearest and filled with 255.
    """

    mirror: float = 0.0  # probability of a left-right mirror image
    swap_lr: bool = False  # exchange left and right class ids when mirrored; the
    # thesis did not (BODY 3.1), which contradicts 18 of its 24 parts
    flip180: float = 0.0  # probability of a half turn: BODY's "180 degrees flip" read
    # literally
    scale: tuple[float, float] = (1.0, 1.0)  # zoom factor, uniform; a crop or a pad to
    # the training size follows at a random place
    rotate: float = 0.0  # degrees; the angle is uniform in [-rotate, rotate]
    rotate_probability: float = 1.0  # share of the samples that are rotated
    noise: float = 0.0  # standard deviation of Gaussian pixel noise, grey levels 0..255


@dataclass(frozen=True)
class Config:
    """One training run. Two runs with equal configuration and equal data are equal."""

    # What is trained
    net: str  # a key of keras_seg.nets.NETS
    size: tuple[int, int]  # height and width in pixels the images are resized to
    steps: int  # optimizer steps
    filter_scale: int = 1  # width: 2 is the thesis' "doubled filters"
    knobs: Mapping[str, object] = field(default_factory=dict)  # the paper's own options
    pad: bool = False  # pad up to the net's stride (label 255) instead of refusing
    init_weights_sha256: str | None = None  # of the file given with --init-weights

    # The data
    batch: int = 16  # images a step
    seed: int = 0  # of weights, order, augmentation and dropout
    augment: Augment = field(default_factory=Augment)
    joint_targets: str = "surreal"  # "surreal" joints or "centroid" of each part

    # The loss
    loss: str = "ce"  # ce, dice or focal
    l1: float = 0.0  # penalty on |prediction - truth| (CLOTH)
    l2: float = 0.0  # penalty on (prediction - truth)^2 (CLOTH)
    class_weights: str = "none"  # none, w1, w2, median, voc07, from training counts
    strategy: str = "outer"  # outer: weigh the pixel's loss; direct: weigh the logits
    normalise: str = "pixels"  # divide by valid pixels, or by the sum of "weights"
    weight_occurrences: str = "pixels"  # what voc07 counts: "pixels" or "images"
    background_weight: float = 0.15  # voc07: the background's weight
    direct_at_inference: bool = False  # weigh the logits in prediction as well
    joint_loss_weight: float = 1.0  # lambda of the hourglass' joint branch

    # The optimizer
    optimizer: str = "sgd"  # sgd, adam or rmsprop
    lr: float = 0.01  # initial learning rate
    momentum: float = 0.9  # sgd only, not Nesterov
    rho: float = 0.99  # rmsprop only
    epsilon: float = 1e-8  # rmsprop and adam
    schedule: str = "poly"  # constant, poly, step, cosine or exponential
    poly_power: float = 0.9  # of poly
    lr_min: float = 0.0  # floor of cosine
    decay_every: int = 2000  # steps between drops of step and exponential
    decay_rate: float = 0.1  # factor at each drop of step and exponential
    weight_decay: float = 0.0  # L2: this times the weight is added to its gradient
    decay_on: str = "kernels"  # convolution "kernels" (ICNet's code) or "all" weights
    bn_start: int = 0  # step at which batch norm's gamma and beta begin to be trained
    bn_mode: str = "affine"  # before bn_start: affine = batch statistics, fixed gamma
    # and beta; full = batch norm runs in inference mode (BODY's wording, literally)
    accumulate: int = 1  # batches whose gradients are summed into one step
    precision: str = "float32"  # or mixed_bfloat16; logits and losses stay float32

    # Validation
    val_every: int = 200  # steps between validations, one line of history each
    val_samples: int | None = None  # images of the periodic validation; None is all
    val_batch: int = 16  # images a batch in evaluation

    def __post_init__(self):
        _check_choices(self)
        _check_ranges(self)


_CHOICES = {
    "joint_targets": ("surreal", "centroid"),
    "loss": ("ce", "dice", "focal"),
    "class_weights": ("none", "w1", "w2", "median", "voc07"),
    "strategy": ("outer", "direct"),
    "normalise": ("pixels", "weights"),
    "weight_occurrences": ("pixels", "images"),
    "optimizer": ("sgd", "adam", "rmsprop"),
    "schedule": ("constant", "poly", "step", "cosine", "exponential"),
    "decay_on": ("kernels", "all"),
    "bn_mode": ("affine", "full"),
    "precision": ("float32", "mixed_bfloat16"),
}
_AT_LEAST_ONE = ("steps", "filter_scale", "batch", "val_every", "val_batch")
_AT_LEAST_ONE += ("accumulate", "decay_every")
_NOT_NEGATIVE = ("seed", "l1", "l2", "lr", "lr_min", "weight_decay", "bn_start")
_NOT_NEGATIVE += ("joint_loss_weight", "background_weight")


def _check_choices(config: Config) -> None:
    for name, choices in _CHOICES.items():
        if getattr(config, name) not in choices:
            raise UsageError(name, getattr(config, name), f"one of {choices}")


def _check_ranges(config: Config) -> None:
    for name in _AT_LEAST_ONE:
        if getattr(config, name) < 1:
            raise UsageError(name, getattr(config, name), "at least 1")
    for name in _NOT_NEGATIVE:
        if not 0 <= getattr(config, name) < float("inf"):
            raise UsageError(name, getattr(config, name), "a finite number from 0")
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
