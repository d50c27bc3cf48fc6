"""Print the table of networks: paper, parameters, GFLOP, stride, heads.

python tools/summary.py [--markdown]

Parameters are the trainable ones, at filter_scale 1 and 2. GFLOP: two operations per
multiplication of the convolutions and dense layers, one image, at the input size and
number of classes of the network's document. The input's sides are multiples of the
stride; a head's size is that of its logits for that input.
"""

import logging
import math
import sys

from keras_seg import backend, command_line, nets

COLUMNS = ("net", "paper", "parameters", "doubled", "input", "GFLOP", "stride", "heads")
NUMERIC = ("parameters", "doubled", "GFLOP", "stride")


def main(argv: list[str]) -> int:
    parser = command_line.Parser(prog="summary.py", description=__doc__)
    parser.add_argument(
        "--markdown", action="store_true", help="the table as it stands in the README"
    )
    args = parser.parse_args(argv)
    backend.configure()
    logging.disable(logging.WARNING)  # of random weights: there are none here
    rows = [row(name) for name in nets.NETS]
    print(markdown(rows) if args.markdown else text(rows))
    return 0


def row(name: str) -> dict[str, str]:
    """What the table says of a network, by column."""
    net = nets.get(name)
    height, width, num_classes = net.reference
    model = outline(name, (height, width, 3), num_classes)
    doubled = outline(name, (height, width, 3), num_classes, filter_scale=2)
    heads = (f"{h} {t.shape[1]}x{t.shape[2]}" for h, t in model.output.items())
    return {
        "net": name,
        "paper": net.paper,
        "parameters": f"{parameters(model):,}",
        "doubled": f"{parameters(doubled):,}",
        "input": f"{height}x{width}, {num_classes} classes",
        "GFLOP": f"{flops(model) / 1e9:.1f}",
        "stride": str(net.stride),
        "heads": ", ".join(heads),
    }


def outline(name, input_shape, num_classes, **options):
    """The network without values in its weights, which takes no time and memory."""
    import keras

    with keras.StatelessScope(initialize_variables=False):
        model = nets.build(name, input_shape, num_classes, **options)
    keras.backend.clear_session()  # else Keras makes the weights at the next chance
    return model


def parameters(model) -> int:
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def flops(model) -> int:
    """Operations of the convolutions and dense layers for one image."""
    from keras import Model, layers

    from keras_seg.nets.fcn_dilated_tanh import StridedDilatedDeconv

    transposed = (layers.Conv2DTranspose, StridedDilatedDeconv)
    total = 0
    for layer in model.layers:
        if isinstance(layer, Model):
            total += flops(layer)
        elif hasattr(layer, "kernel"):
            # Each kernel weight is used once per pixel of the smaller side.
            side = layer.input if isinstance(layer, transposed) else layer.output
            pixels = math.prod(side.shape[1:-1])
            total += 2 * pixels * math.prod(layer.kernel.shape)
    return total


def markdown(rows) -> str:
    """A GitHub table; a net's name links to its file."""
    align = ("---:" if column in NUMERIC else "---" for column in COLUMNS)
    lines = ["| " + " | ".join(COLUMNS) + " |", "| " + " | ".join(align) + " |"]
    for cells in rows:
        link = f"[{cells['net']}](keras_seg/nets/{nets.get(cells['net']).module}.py)"
        values = [link] + [cells[column] for column in COLUMNS[1:]]
        lines.append("| " + " | ".join(values) + " |")
    return "\n".join(lines)


def text(rows) -> str:
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


if __name__ == "__main__":
    sys.exit(command_line.run(main))
