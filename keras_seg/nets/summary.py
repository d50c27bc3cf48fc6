"""The table of networks: paper, parameters, GFLOP, stride, heads.

Parameters are the trainable ones, at filter_scale 1 and 2. GFLOP: two operations per
multiplication of the convolutions and dense layers, for one image, at the input size
and number of classes of the network's document. The input's sides are multiples of the
stride; a head's size is that of its logits for that input.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from keras_seg import nets

COLUMNS = ("net", "paper", "parameters", "doubled", "input", "GFLOP", "stride", "heads")
NUMERIC = ("parameters", "doubled", "GFLOP", "stride")


def row(name: str) -> dict[str, str]:
    """What the table says of a network, by column."""
    net = nets.get(name)
    height, width, num_classes = net.reference
    model, doubled = _outline(name), _outline(name, filter_scale=2)
    heads = (f"{h} {t.shape[1]}x{t.shape[2]}" for h, t in model.output.items())
    return {
        "net": name,
        "paper": net.paper,
        "parameters": f"{_trainable(model):,}",
        "doubled": f"{_trainable(doubled):,}",
        "input": f"{height}x{width}, {num_classes} classes",
        "GFLOP": f"{_gflop(model):.1f}",
        "stride": str(net.stride),
        "heads": ", ".join(heads),
    }


def rows() -> list[dict[str, str]]:
    """The rows of all networks."""
    return [row(name) for name in nets.NETS]


def gflop_per_megapixel(
    name: str, filter_scale: int, knobs: Mapping[str, Any]
) -> float:
    """GFLOP of a forward pass per million pixels of the input."""
    height, width, _ = nets.get(name).reference
    model = _outline(name, filter_scale=filter_scale, **knobs)
    return _gflop(model) / (height * width / 1e6)


def markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """A GitHub table; a net's name links to its file."""
    align = ("---:" if column in NUMERIC else "---" for column in COLUMNS)
    lines = ["| " + " | ".join(COLUMNS) + " |", "| " + " | ".join(align) + " |"]
    for cells in rows:
        link = f"[{cells['net']}](keras_seg/nets/{nets.get(cells['net']).module}.py)"
        values = [link] + [cells[column] for column in COLUMNS[1:]]
        lines.append("| " + " | ".join(values) + " |")
    return "\n".join(lines)


def text(rows: Sequence[Mapping[str, str]]) -> str:
    """Columns aligned with spaces."""
    rows = [dict(zip(COLUMNS, COLUMNS)), *rows]
    widths = {column: max(len(cells[column]) for cells in rows) for column in COLUMNS}
    lines = []
    for cells in rows:
        parts = (
            cells[c].rjust(widths[c]) if c in NUMERIC else cells[c].ljust(widths[c])
            for c in COLUMNS
        )
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)


def _outline(name: str, **options: Any):
    """The network at its reference without values in its weights: takes no memory."""
    import keras

    with keras.StatelessScope(initialize_variables=False):
        height, width, num_classes = nets.get(name).reference
        model = nets.build(name, (height, width, 3), num_classes, **options)
    keras.backend.clear_session()  # else Keras makes the weights at the next chance
    return model


def _gflop(model) -> float:
    from keras_seg.nets import flops

    return flops.forward(model) / 1e9


def _trainable(model) -> int:
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)
