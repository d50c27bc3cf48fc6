"""The networks: one file per paper, one line per network in `NETS`.

`NETS` is read-only and imports no Keras; a network's module is imported when it
is built. Adding a network is one file, one line here and one row in
tests/test_nets.py (see CONTRIBUTING.md).
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from keras_seg.errors import UsageError


@dataclass(frozen=True)
class Head:
    """One supervised output of a network.

    Attributes:
        loss_weight: float. The head's factor in the total loss.
        target: "labels" or "heatmaps". What the head is trained on.
        lookup: for "labels", None (the dataset's own ids) or a tuple [C] that maps
            each dataset id to the head's id (coarse-to-fine targets).
    """

    loss_weight: float = 1.0
    target: str = "labels"
    lookup: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Net:
    """What is known of a network without building it.

    Attributes:
        module: str. The module under keras_seg.nets with the builder.
        paper: str. Where the architecture is from: document, section or table.
        stride: int. Input height and width are to be multiples of it.
        preprocess: str. A key of `keras_seg.preprocess.PREPROCESS`.
        loss_weights: {head: weight} of the heads with the default knobs.
        builder: str. The function in `module` (several nets may share a file).
        fixed: knobs that the registry line fixes.
    """

    module: str
    paper: str
    stride: int
    preprocess: str
    loss_weights: Mapping[str, float] = field(
        default_factory=lambda: MappingProxyType({"logits": 1.0})
    )
    builder: str = "build"
    fixed: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))


NETS: Mapping[str, Net] = MappingProxyType(
    {
        "icnet": Net(
            "icnet",
            "Zhao et al. 2018, as in BODY 3.2 (hellochick's ICNet_BN)",
            stride=32,
            preprocess="bgr_minus_mean",
            loss_weights=MappingProxyType(
                {"logits": 1.0, "sub24_logits": 0.4, "sub4_logits": 0.16}
            ),
        ),
    }
)


def get(name: str) -> Net:
    """The registry entry of a network; UsageError lists the known names."""
    if name not in NETS:
        raise UsageError("net", name, "one of " + ", ".join(sorted(NETS)))
    return NETS[name]
