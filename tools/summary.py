"""Print the table of networks: paper, parameters, GFLOP, stride, heads.

python tools/summary.py [--markdown | --costs]

Parameters are the trainable ones, at filter_scale 1 and 2. GFLOP: two operations per
multiplication of the convolutions and dense layers, one image, at the input size and
number of classes of the network's document. The input's sides are multiples of the
stride; a head's size is that of its logits for that input.
"""

import csv
import io
import logging
import math
import runpy
import sys
from pathlib import Path

from keras_seg import backend, command_line, nets
from keras_seg.ablation import estimate, protocol, runner

STUDIES = Path(__file__).resolve().parents[1] / "ablations" / "studies"

COLUMNS = ("net", "paper", "parameters", "doubled", "input", "GFLOP", "stride", "heads")
NUMERIC = ("parameters", "doubled", "GFLOP", "stride")


def main(argv: list[str]) -> int:
    parser = command_line.Parser(prog="summary.py", description=__doc__)
    parser.add_argument(
        "--markdown", action="store_true", help="the table as it stands in the README"
    )
    parser.add_argument(
        "--costs",
        action="store_true",
        help="what ablations/costs.csv holds: the work of every arm of the studies",
    )
    args = parser.parse_args(argv)
    backend.configure()
    logging.disable(logging.WARNING)  # of random weights: there are none here
    if args.costs:
        print(costs())
        return 0
    rows = [row(name) for name in nets.NETS]
    print(markdown(rows) if args.markdown else text(rows))
    return 0


def row(name: str) -> dict[str, str]:
    """What the table says of a network, by column."""
    net = nets.get(name)
    height, width, num_classes = net.reference
    from keras_seg.nets import flops

    model = outline(name, (height, width, 3), num_classes)
    doubled = outline(name, (height, width, 3), num_classes, filter_scale=2)
    heads = (f"{h} {t.shape[1]}x{t.shape[2]}" for h, t in model.output.items())
    return {
        "net": name,
        "paper": net.paper,
        "parameters": f"{parameters(model):,}",
        "doubled": f"{parameters(doubled):,}",
        "input": f"{height}x{width}, {num_classes} classes",
        "GFLOP": f"{flops.forward(model) / 1e9:.1f}",
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


def costs() -> str:
    """CSV: GFLOP per million pixels of every network of every study's arms."""
    found = {}
    for config in study_configs():
        key = estimate.cost_key(config)
        if key not in found:
            found[key] = gflop_per_megapixel(config)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["net", "filter_scale", "knobs", "gflop"])
    writer.writerows([*key, f"{value:.4g}"] for key, value in sorted(found.items()))
    return text.getvalue().rstrip("\n")


def study_configs():
    """The configurations of all arms of all studies, at every scale."""
    for path in sorted(STUDIES.glob("*.py")):
        study = runpy.run_path(str(path))["STUDY"]
        for plan in study.plans.values():
            for scale in protocol.SCALES:
                base = plan.base(scale, study.data)
                for stage in plan.stages:
                    arms = runner.planned_arms(plan, stage, base)
                    yield from (arm.config for arm in arms)


def gflop_per_megapixel(config) -> float:
    from keras_seg.nets import flops

    height, width, num_classes = nets.get(config.net.name).reference
    options = {"filter_scale": config.net.filter_scale, **config.net.knobs}
    model = outline(config.net.name, (height, width, 3), num_classes, **options)
    return flops.forward(model) / 1e9 / (height * width / 1e6)


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
