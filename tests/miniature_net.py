"""A network as small as can be with all that a run keeps: for tests of runs alone.

It has batch norm, dropout and two supervised heads. Training the smallest network of
`NETS` with dropout costs five times as much, nearly all of it for its graphs.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import keras
import pytest

from keras_seg import nets
from keras_seg.labels import Head
from keras_seg.nets import blocks

NAME = "miniature"
ENTRY = nets.Net(
    NAME,
    "none",
    stride=2,
    preprocess="unit",
    reference=(24, 40, 4),
    loss_weights={"logits": 1.0, "early_logits": 0.4},
)
INIT = "he_normal"
NORM = {"momentum": 0.9, "epsilon": 1e-5}


def build(
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    filter_scale: int = 1,
    features: int = 8,
    dropout: float = 0.0,
    stride: int = 2,
    early: bool = True,
) -> keras.Model:
    """Two convolutions at 1 / stride of the image's size, a head after each."""
    features *= filter_scale
    image = keras.Input(input_shape, name="image")
    options = {"use_bias": True, "initializer": INIT}
    x = blocks.conv(image, features, 3, "conv1", strides=stride, **options)
    x = blocks.bn_relu(x, "conv1", **NORM)  # [B, H / stride, W / stride, features]
    outputs = {}
    if early:
        outputs["early_logits"] = blocks.head(x, num_classes, "early", initializer=INIT)
    x = keras.layers.Dropout(dropout, name="dropout")(x)
    x = blocks.conv(x, features, 3, "conv2", **options)
    x = blocks.bn_relu(x, "conv2", **NORM)
    outputs["logits"] = blocks.head(x, num_classes, "classifier", initializer=INIT)
    return keras.Model(image, outputs, name=NAME)


def heads(num_classes: int, *, early: bool = True, **_) -> dict[str, Head]:
    weights = ENTRY.loss_weights if early else {"logits": 1.0}
    return {name: Head(loss_weight=weight) for name, weight in weights.items()}


def input_stride(*, stride: int = 2, **_) -> int:
    return stride


@contextmanager
def known() -> Iterator[None]:
    """Within this context, `NETS` has the network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, f"keras_seg.nets.{NAME}", sys.modules[__name__])
        patch.setattr(nets, "NETS", {**nets.NETS, NAME: ENTRY})
        yield
