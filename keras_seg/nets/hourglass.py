"""Stacked hourglass for segmentation: plain, coarse-to-fine, and with joints.

Newell et al., "Stacked Hourglass Networks for Human Pose Estimation", ECCV 2016; as
in BODY 4.1.2 (Fig. 12-15), which keeps the full resolution for segmentation: no stride
in the stem and no first pooling. Each stack predicts, and its prediction is fed back
into the features of the next one. `targets="hierarchy"` trains each stack on a coarser
labelling of the body than the next (Fig. 14); `joints=24` adds hourglasses beside
stack `aux_at + 1` that predict heatmaps of the joints (Fig. 15).

Differs from the paper: full resolution (`stem_stride=2, stem_pool=True` is the
original), 4 stacks of depth 4 (20x20 at the bottom for 320x320), segmentation logits.
All convolutions have biases, as in the original's Torch code. Batch norm 0.9, 1e-5;
Glorot normal kernels.

Memory of a training step (4 stacks, 256 features, 25 classes, batch 1, float32),
measured on a CPU with and without `remat=True`: 2.4 and 2.5 GiB at 96x96, 2.9 and
3.7 GiB at 160x160, 6.3 GiB with it at 320x320. Scaled by the number of pixels, 320x320
needs about 9 GiB without it.
"""

from functools import partial

import keras
from keras import layers, ops

from keras_seg.errors import UsageError
from keras_seg.labels import Head
from keras_seg.nets import blocks

INIT = "glorot_normal"
NORM = {"momentum": 0.9, "epsilon": 1e-5}

# Coarse-to-fine labellings of the 25 SURREAL classes (0 background, 1..24 the parts):
# number of classes: the class of each part. Every class is a union of finer ones.
LEVELS = {
    # background, body
    2: (0,) + (1,) * 24,
    # background, head, torso with neck and shoulders, arms, legs
    5: (0, 2, 4, 4, 2, 4, 4, 2, 4, 4, 2, 4, 4, 2, 2, 2, 1) + (3,) * 8,
    # arms and legs in upper and lower
    7: (0, 2, 5, 5, 2, 6, 6, 2, 6, 6, 2, 6, 6, 2, 2, 2, 1, 3, 3) + (4,) * 6,
    # neck, forearms, hands, shins, feet
    10: (0, 2, 7, 7, 2, 8, 8, 2, 9, 9, 2, 9, 9, 3, 2, 2, 1, 4, 4, 5, 5, 6, 6, 6, 6),
    # the groups of BODY's tables: shoulders, fingers, toes
    13: (0, 2, 3, 3, 2, 4, 4, 2, 9, 9, 2, 12, 12, 5, 6, 6, 1, 7, 7, 8, 8, 10, 10)
    + (11, 11),
    25: tuple(range(25)),
}
# The same of SURREAL's own 14 parts, for data prepared with --merge surreal14
LEVELS_14 = {
    2: (0,) + (1,) * 14,
    5: (0, 1, 2) + (3,) * 6 + (4,) * 6,
    7: (0, 1, 2) + (3, 4, 4) * 2 + (5, 6, 6) * 2,
    15: tuple(range(15)),
}
CHAINS = {
    1: (25,),
    2: (2, 25),
    3: (2, 5, 25),
    4: (2, 5, 7, 25),
    5: (2, 5, 7, 13, 25),
    6: (2, 5, 7, 10, 13, 25),
}

_conv = partial(blocks.conv, use_bias=True, initializer=INIT)


def build(
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    filter_scale: int = 1,
    stacks: int = 4,
    depth: int = 4,
    features: int = 256,
    stem: int = 64,
    stem_stride: int = 1,
    stem_pool: bool = False,
    targets: str = "full",
    joints: int | None = None,
    aux_at: int = 0,
    aux_modules: int = 1,
    remat: bool = False,
    dropout: float = 0.0,
) -> keras.Model:
    """The network for images [B, H, W, 3], H and W multiples of `input_stride`.

    Args:
        num_classes: classes of the last stack, and of the others too if targets is
            "full"; 25, or 15 (`LEVELS_14`), if it is "hierarchy".
        filter_scale: factor on `features` and `stem`.
        stacks: number of hourglasses in a row.
        depth: number of poolings in an hourglass.
        features: channels between the residual units.
        stem: channels of the first convolution.
        stem_stride, stem_pool: 2 and True give the original's quarter resolution.
        targets: "full" or "hierarchy" (`LEVELS`, `CHAINS`).
        joints: number of heatmaps of the joint branch; None for no branch.
        aux_at: stack (from 0, not the last) after which the joint branch starts.
        aux_modules: number of hourglasses in the joint branch.
        remat: recompute the residual units in the backward pass instead of storing
            their activations.
        dropout: rate after each hourglass.

    Returns:
        keras.Model of image float32 (RGB / 255) to raw float32 outputs at the stride
        of the stem: "stack0_logits", ... and, of the last stack, "logits"
        [B, H, W, num_classes]; "joints0_heatmaps", ... [B, H, W, joints].
    """
    _check(num_classes, stacks, depth, stem_stride, targets, joints, aux_at)
    features, stem = features * filter_scale, stem * filter_scale
    unit = {"depth": depth, "remat": remat, "dropout": dropout}
    image = keras.Input(input_shape, name="image")

    # Below, h = H and w = W unless the stem has a stride or a pooling.
    x = _conv(image, stem, 7, "stem_conv", strides=stem_stride, padding=3)
    x = blocks.bn_relu(x, "stem", **NORM)
    x = _residual(x, 2 * stem, "stem_res1", remat)
    if stem_pool:
        x = layers.MaxPooling2D(2, name="stem_pool")(x)
    x = _residual(x, 2 * stem, "stem_res2", remat)
    x = _residual(x, features, "stem_res3", remat)  # [B, h, w, features]

    outputs = {}
    for i, classes in enumerate(_classes(num_classes, stacks, targets)):
        is_last = i == stacks - 1
        head = "logits" if is_last else f"stack{i}_logits"
        lin, outputs[head] = _module(x, classes, f"stack{i}", head, **unit)
        if not is_last:
            x = _reinject(x, lin, outputs[head], f"stack{i}")
        if joints and i == aux_at:
            branch = x
    for j in range(aux_modules if joints else 0):
        head = f"joints{j}_heatmaps"
        lin, outputs[head] = _module(branch, joints, f"joints{j}", head, **unit)
        if j < aux_modules - 1:
            branch = _reinject(branch, lin, outputs[head], f"joints{j}")
    return keras.Model(image, outputs, name="hourglass")


def heads(
    num_classes: int,
    *,
    stacks: int = 4,
    targets: str = "full",
    joints: int | None = None,
    aux_modules: int = 1,
    stem_stride: int = 1,
    stem_pool: bool = False,
    **_,
) -> dict[str, Head]:
    """The outputs of `build` with these knobs; every stack's loss has weight 1."""
    stride = stem_stride * (2 if stem_pool else 1)
    levels, result = LEVELS_14 if num_classes == 15 else LEVELS, {}
    for i, classes in enumerate(_classes(num_classes, stacks, targets)):
        lookup = levels[classes] if classes != num_classes else None
        result["logits" if i == stacks - 1 else f"stack{i}_logits"] = Head(
            lookup=lookup
        )
    for j in range(aux_modules if joints else 0):
        result[f"joints{j}_heatmaps"] = Head(target="heatmaps", stride=stride)
    return result


def input_stride(
    *, depth: int = 4, stem_stride: int = 1, stem_pool: bool = False, **_
) -> int:
    """The product of all halvings: doubling back must restore the exact size."""
    return stem_stride * (2 if stem_pool else 1) * 2**depth


def _classes(num_classes, stacks, targets):
    """The number of classes of each stack."""
    if targets == "full":
        return (num_classes,) * stacks
    chain = CHAINS[min(stacks, 6)] + (25,) * (stacks - 6)
    if num_classes == 15:
        coarse = tuple(classes for classes in chain if classes in LEVELS_14)
        chain = coarse + (15,) * (stacks - len(coarse))
    return chain


def _module(x, channels, name, head, *, depth, remat, dropout):
    """One hourglass and its head: the features `lin` and the raw output."""
    features = x.shape[-1]
    x = _hourglass(x, depth, name, remat)
    if dropout:
        x = layers.Dropout(dropout, name=f"{name}_dropout")(x)
    x = _residual(x, features, f"{name}_res", remat)
    x = _conv(x, features, 1, f"{name}_lin")
    lin = blocks.bn_relu(x, f"{name}_lin", **NORM)
    return lin, blocks.head(lin, channels, head, initializer=INIT)


def _hourglass(x, depth, name, remat):
    """Residual units at `depth` + 1 resolutions, [B, h, w, C] to the same shape."""
    features = x.shape[-1]
    level = f"{name}_level{depth}"
    up = _residual(x, features, f"{level}_up", remat)
    low = layers.MaxPooling2D(2, name=f"{level}_pool")(x)  # [B, h/2, w/2, C]
    low = _residual(low, features, f"{level}_low1", remat)
    if depth > 1:
        low = _hourglass(low, depth - 1, name, remat)
    else:
        low = _residual(low, features, f"{level}_low2", remat)
    low = _residual(low, features, f"{level}_low3", remat)
    low = layers.UpSampling2D(2, interpolation="nearest", name=f"{level}_resize")(low)
    # [B, h, w, C]
    return layers.Add(name=f"{level}_add")([up, low])


def _reinject(x, lin, output, name):
    """Input of the next module: the features plus 1x1 maps of `lin` and the output."""
    features = x.shape[-1]
    lin = _conv(lin, features, 1, f"{name}_lin_back")
    output = _conv(output, features, 1, f"{name}_out_back")
    return layers.Add(name=f"{name}_merge")([x, lin, output])


def _residual(x, filters, name, remat):
    """Pre-activation bottleneck: 1x1 to half the width, 3x3, 1x1, plus the input."""
    skip = x
    if x.shape[-1] != filters:
        skip = _conv(x, filters, 1, f"{name}_skip")
    if remat:
        x = RematerialisedUnits(filters, name=name)(x)
    else:
        for i, (width, kernel_size) in enumerate(_units(filters), 1):
            x = blocks.bn_relu(x, f"{name}_conv{i}", **NORM)
            x = _conv(x, width, kernel_size, f"{name}_conv{i}")
    return layers.Add(name=f"{name}_add")([x, skip])


def _units(filters):
    """(channels, kernel size) of the convolutions of a residual unit."""
    return ((filters // 2, 1), (filters // 2, 3), (filters, 1))


def _check(num_classes, stacks, depth, stem_stride, targets, joints, aux_at):
    blocks.check_at_least_1("hourglass", "stacks", stacks)
    blocks.check_at_least_1("hourglass", "depth", depth)
    blocks.check_choice("hourglass", "stem_stride", stem_stride, (1, 2))
    blocks.check_choice("hourglass", "targets", targets, ("full", "hierarchy"))
    if targets == "hierarchy" and num_classes not in (25, 15):
        raise UsageError(
            f"targets of hourglass is hierarchy, which needs SURREAL's 25 classes, or "
            f"the 15 of its merged parts, not {num_classes}. Choose full."
        )
    if joints and not 0 <= aux_at < stacks - 1:
        raise UsageError(
            f"aux_at of hourglass is {aux_at}; it must be a stack (counted from 0) "
            f"before the last of {stacks}."
        )


@keras.saving.register_keras_serializable("keras_seg")
class RematerialisedUnits(keras.layers.Layer):
    """The three units of a residual block, recomputed in the backward pass.

    Weights and results are those of the plain layers. Batch norm's statistics are
    computed inside the recomputed part, but its moving averages are updated outside:
    otherwise every step would update them twice. The recomputed part does not know that
    it is trained, so it keeps TensorFlow's convolutions (`backend.convolution`).
    """

    def __init__(self, filters: int, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.units = []
        for i, (width, kernel_size) in enumerate(_units(filters), 1):
            norm = layers.BatchNormalization(name=f"conv{i}_bn", **NORM)
            conv = layers.Conv2D(
                width,
                kernel_size,
                padding="same",
                kernel_initializer=INIT,
                name=f"conv{i}",
            )
            self.units.append((norm, conv))

    def build(self, input_shape):
        for norm, conv in self.units:
            norm.build(input_shape)
            conv.build(input_shape)
            input_shape = conv.compute_output_shape(input_shape)

    def call(self, x, training=False):
        if not training:
            return self._run(x, training=False)[0]
        x, moments = keras.remat(self._run_in_training)(x)
        for (norm, _), (mean, variance) in zip(self.units, moments):
            for moving, value in (
                (norm.moving_mean, mean),
                (norm.moving_variance, variance),
            ):
                value = ops.stop_gradient(value)
                moving.assign(moving * norm.momentum + value * (1 - norm.momentum))
        return x

    def _run_in_training(self, x):
        return self._run(x, training=True)

    def _run(self, x, training):
        moments = []
        for norm, conv in self.units:
            x = ops.cast(x, "float32")
            if training:
                mean, variance = ops.moments(x, axes=(0, 1, 2))
                moments.append((mean, variance))
            else:
                mean, variance = norm.moving_mean, norm.moving_variance
            x = ops.batch_normalization(
                x,
                mean,
                variance,
                axis=-1,
                offset=norm.beta,
                scale=norm.gamma,
                epsilon=norm.epsilon,
            )
            x = conv(ops.relu(ops.cast(x, self.compute_dtype)))
        return x, moments

    def compute_output_shape(self, input_shape):
        return (*input_shape[:3], self.filters)

    def get_config(self):
        return super().get_config() | {"filters": self.filters}
