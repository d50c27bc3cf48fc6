"""A network as a list of steps: what its layer tables and diagrams are made from.

A step is a convolution, a pooling, a sum and the like with what belongs to it: padding
and cropping that give it PyTorch's geometry, batch norm, activation.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
from keras import layers

from keras_seg.nets.fcn_dilated_tanh import StridedDilatedDeconv
from keras_seg.nets.layers import (
    AdaptiveAveragePooling,
    BilinearResize,
    LocalResponseNormalization,
    MaxPoolingWithIndices,
    MaxUnpooling,
)

PLAIN_KINDS = {  # steps with nothing to say but their name
    layers.Add: "add",
    layers.Concatenate: "concat",
    layers.Multiply: "multiply",
    layers.GlobalAveragePooling2D: "mean",
    MaxUnpooling: "unpool",
    BilinearResize: "resize",
    layers.UpSampling2D: "resize",
    LocalResponseNormalization: "local norm",
}
KINDS = frozenset(PLAIN_KINDS.values())
KINDS |= {"input", "conv", "deconv", "pool", "bins", "dense", "net"}


@dataclass
class Step:
    """One step of a network.

    Attributes:
        name: of its layer.
        kind: one of `KINDS`.
        shape: (height, width, channels) of its output.
        inputs: the steps it takes.
        kernel, strides, padding, dilation, output_padding: of both directions, px;
            padding "same" pads as TensorFlow does, more at the bottom and right.
        before, after: names of the norms and activations around it.
        parameters: trainable, with those of `before` and `after`.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    inputs: list["Step"] = field(default_factory=list)
    kernel: int = 0
    strides: int = 1
    padding: int | str = 0
    dilation: int = 1
    output_padding: int = 0
    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    parameters: int = 0

    @property
    def in_channels(self) -> int:
        return self.inputs[0].shape[-1] if self.inputs else 0


@dataclass(frozen=True)
class _Wire:
    """A tensor: the step it is from, and what the next step has to take over."""

    step: Step
    padding: int = 0
    subsampled: int = 1
    before: tuple[str, ...] = ()
    parameters: int = 0


def steps(model: keras.Model, nested: bool = False) -> list[Step]:
    """The steps of a functional model, in the order of its graph.

    `nested` lists those of models inside of it as well, instead of one for each.
    """
    net: Any = model  # Keras' types do not know of its graph
    sources = {op: _sources(op) for op in net.operations}
    uses = Counter(source for found in sources.values() for source in found)
    found: list[Step] = []
    wires: dict[Any, _Wire] = {}
    for op in net.operations:
        inputs = [wires[source] for source in sources[op]]
        is_chain = len(sources[op]) == 1 and uses[sources[op][0]] == 1
        wire = _folded(op, inputs, is_chain)
        if wire is None and nested and isinstance(op, keras.Model):
            inner = [step for step in steps(op, True) if step.kind != "input"]
            found += inner
            wire = _Wire(inner[-1])
        elif wire is None:
            wire = _Wire(_step(op, inputs))
            found.append(wire.step)
        wires[op] = wire
    return found


def _sources(op) -> list:
    """The operations whose outputs an operation takes."""
    nodes = op._inbound_nodes
    return [tensor._keras_history.operation for tensor in nodes[0].input_tensors]


def _folded(op, inputs: Sequence[_Wire], is_chain: bool) -> _Wire | None:
    """The wire behind a layer that belongs to the step before or after; else None."""
    if len(inputs) != 1:
        return None
    (wire,), step = inputs, inputs[0].step
    if isinstance(op, layers.ZeroPadding2D):
        return replace(wire, padding=op.padding[0][0])
    if isinstance(op, layers.AveragePooling2D) and tuple(op.pool_size) == (1, 1):
        return replace(wire, subsampled=op.strides[0])
    if isinstance(op, layers.Cropping2D) and step.kind == "deconv" and is_chain:
        top, bottom = op.cropping[0]
        step.padding, step.output_padding = top, top - bottom
        step.shape = _shape(op)
        return wire
    if (what := _norm_or_activation(op)) is None:
        return None
    size = _parameters(op)
    if is_chain and not wire.before and step.kind != "input":
        step.after += what
        step.parameters += size
        return wire
    before = (*wire.before, *what)
    return replace(wire, before=before, parameters=wire.parameters + size)


def _norm_or_activation(op) -> list[str] | None:
    """Its name in a list, which is empty for dropout; None for any other layer."""
    if isinstance(op, layers.Dropout):
        return []
    if isinstance(op, layers.BatchNormalization):
        return ["BN"]
    if isinstance(op, layers.ReLU):
        return ["ReLU"]
    if isinstance(op, layers.PReLU):
        return ["PReLU"]
    if isinstance(op, layers.Activation):
        return [_activation(op)]
    return None


def _activation(layer) -> str:
    name = layer.activation.__name__
    return {"relu": "ReLU"}.get(name, name.capitalize())


def _step(op, inputs: Sequence[_Wire]) -> Step:
    step = Step(op.name, "net", _shape(op), [wire.step for wire in inputs])
    step.before = [name for wire in inputs for name in wire.before]
    step.parameters = _parameters(op) + sum(wire.parameters for wire in inputs)
    if isinstance(op, layers.InputLayer):
        step.kind = "input"
    elif isinstance(op, layers.Dense):
        step.kind = "dense"
        step.after = [_activation(op)] if op.activation.__name__ != "linear" else []
    elif isinstance(op, layers.Conv2D | layers.Conv2DTranspose | StridedDilatedDeconv):
        _describe_convolution(step, op, inputs[0])
    elif isinstance(op, layers.MaxPooling2D):
        step.kind, step.kernel, step.strides = "pool", op.pool_size[0], op.strides[0]
        step.padding = "same" if op.padding == "same" else inputs[0].padding
    elif isinstance(op, MaxPoolingWithIndices):
        step.kind, step.kernel, step.strides = "pool", 2, 2
    elif isinstance(op, AdaptiveAveragePooling):
        step.kind, step.kernel = "bins", op.bins
    else:
        step.kind = PLAIN_KINDS.get(type(op), "net")
    return step


def _describe_convolution(step: Step, layer, wire: _Wire) -> None:
    if isinstance(layer, StridedDilatedDeconv):
        step.kind, step.kernel, step.strides, step.dilation = (
            *("deconv", layer.kernel_size, 2, 2),
        )
        step.padding, step.output_padding = layer.padding, layer.output_padding
        return
    is_deconv = isinstance(layer, layers.Conv2DTranspose)
    step.kind = "deconv" if is_deconv else "conv"
    step.kernel, step.strides = layer.kernel_size[0], layer.strides[0]
    step.dilation, step.padding = layer.dilation_rate[0], wire.padding
    if wire.subsampled > 1:  # a convolution of every second pixel
        step.strides = step.dilation = wire.subsampled
    if is_deconv and layer.output_padding:
        step.output_padding = layer.output_padding[0]
    if layer.padding == "same":
        step.padding = "same"
        if step.strides == 1:
            step.padding = step.dilation * (step.kernel - 1) // 2


def _shape(op) -> tuple[int, ...]:
    output = op.output
    if isinstance(output, list | tuple):  # pooling with indices
        output = output[0]
    return tuple(output.shape[1:])


def _parameters(op) -> int:
    weights = getattr(op, "trainable_weights", ())
    count = 0
    for weight in weights:
        size = 1
        for side in weight.shape:
            size *= side
        count += size
    return count
