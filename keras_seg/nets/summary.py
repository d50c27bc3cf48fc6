"""The table of networks: paper, parameters, GFLOP, stride, heads; tables of layers.

Parameters are the trainable ones, at filter_scale 1 and 2. GFLOP: two operations per
multiplication of the convolutions and dense layers, for one image, at the input size
and number of classes of the network's document. The input's sides are multiples of the
stride; a head's size is that of its logits for that input.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from keras_seg import nets

COLUMNS = ("net", "paper", "parameters", "doubled", "input", "GFLOP", "stride", "heads")
NUMERIC = ("parameters", "doubled", "GFLOP", "stride")


def row(name: str) -> dict[str, str]:
    """What the table says of a network, by column."""
    net = nets.get(name)
    height, width, num_classes = net.reference
    model, doubled = outline(name), outline(name, filter_scale=2)
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
    model = outline(name, filter_scale=filter_scale, **knobs)
    return _gflop(model) / (height * width / 1e6)


def markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """A GitHub table; a net's name links to its file."""
    linked = []
    for cells in rows:
        link = f"[{cells['net']}](keras_seg/nets/{nets.get(cells['net']).module}.py)"
        linked.append({**cells, "net": link})
    return _markdown(linked, COLUMNS)


def text(rows: Sequence[Mapping[str, str]]) -> str:
    """Columns aligned with spaces."""
    return _text(rows, COLUMNS)


# A network's layers

SETTINGS = ("layer name", "layer setting")  # of CITY's tables
GEOMETRY = (  # of VOC07's
    "layer",
    "in-channel/out-channel",
    "kernel size/stride/padding/dilation(/output padding)",
    "activation function/other",
)
SIZES = ("output", "parameters")  # of both, ours
REPEATED = (  # ResNets: stage and block of a layer's name
    re.compile(r"(conv\d)_block(\d+)_.*"),
    re.compile(r"(layer\d)_(\d+)_.*"),
)
SHORTCUTS = re.compile(r".*(_0_conv|_downsample_0|_proj|_skip)")
WORDS = {"BN": "Batch Norm", "Relu": "ReLU"}


def layer_rows(model, name: str) -> list[dict[str, str]]:
    """A network's layers as the document lists them that it is from, in its columns.

    CITY has a name and a setting, VOC07 channels and geometry; other networks are
    listed in VOC07's. Equal blocks of a ResNet are one row, their shortcuts left out.
    """
    from keras_seg.nets import structure

    of_city = nets.get(name).paper.startswith("CITY")
    rows = []
    for each in _with_repeats(structure.steps(model, nested=True)):
        first = each[0][0]
        if first.kind == "input":
            continue
        row = _setting_row(each) if of_city else _geometry_row(each)
        size = "×".join(map(str, each[-1][-1].shape))
        count = sum(step.parameters for block in each for step in block)
        rows.append({**row, "output": size, "parameters": f"{count:,}"})
    return rows


def layers_markdown(rows: Sequence[Mapping[str, str]]) -> str:
    return _markdown(rows, tuple(rows[0]))


def layers_text(rows: Sequence[Mapping[str, str]]) -> str:
    return _text(rows, tuple(rows[0]))


def _with_repeats(steps: Sequence) -> list[list[list]]:
    """Steps in rows: a list of blocks, each a list of steps; most are one of one."""
    rows, last = [], None
    for step in steps:
        match = next(filter(None, (p.fullmatch(step.name) for p in REPEATED)), None)
        stage, block = match.groups() if match else (None, None)
        if stage is None or last is None or stage != last[0]:
            rows.append([[step]])
        elif block != last[1]:
            rows[-1].append([step])
        else:
            rows[-1][-1].append(step)
        last = (stage, block) if stage else None
    return rows


def _stage(blocks: Sequence[Sequence]) -> tuple[str, list]:
    """The name of a ResNet's stage, and the convolutions of its first block."""
    match = next(filter(None, (p.fullmatch(blocks[0][0].name) for p in REPEATED)))
    convs = [step for step in blocks[0] if step.kind == "conv"]
    return match[1], [step for step in convs if not SHORTCUTS.fullmatch(step.name)]


def _setting_row(blocks: Sequence[Sequence]) -> dict[str, str]:
    """CITY's: "[3×3, 32], pad=1, Batch Norm + ReLU"."""
    step = blocks[0][0]
    if len(blocks) > 1 or len(blocks[0]) > 1:
        name, convs = _stage(blocks)
        parts = [f"{one.kernel}×{one.kernel}, {one.shape[-1]}" for one in convs]
        setting = f"[{'; '.join(parts)}] × {len(blocks)}"
        return dict(zip(SETTINGS, (name, setting)))
    words = [_kernel(step)] if step.kernel else [_word(step)]
    if step.strides > 1:
        words.append(f"stride={step.strides}")
    if step.padding:
        words.append(f"pad={step.padding}")
    if step.output_padding:
        words.append(f"output pad={step.output_padding}")
    if step.kind == "concat":
        words = [f"cat[{', '.join(one.name for one in step.inputs)}]"]
    setting = ", ".join(words)
    if around := _around(step):
        setting += f", {' + '.join(around)}"
    return dict(zip(SETTINGS, (step.name, setting)))


def _kernel(step) -> str:
    size = f"{step.kernel}×{step.kernel}"
    return f"[{size}, {step.shape[-1]}]" if step.kind != "pool" else f"max pool {size}"


def _geometry_row(blocks: Sequence[Sequence]) -> dict[str, str]:
    """VOC07's: "3/1/1/1" and "Tanh/batchNorm"."""
    step = blocks[0][0]
    if len(blocks) > 1 or len(blocks[0]) > 1:
        name, convs = _stage(blocks)
        kernels = "; ".join(f"{one.kernel}/{one.strides}" for one in convs)
        channels = f"{step.in_channels}/{blocks[-1][-1].shape[-1]}"
        cells = (name, channels, f"[{kernels}] × {len(blocks)}", "ReLU/Batch Norm")
        return dict(zip(GEOMETRY, cells))
    geometry = "N/A"
    if step.kernel:
        numbers = [step.kernel, step.strides, step.padding, step.dilation]
        if step.kind == "deconv":
            numbers.append(step.output_padding)
        geometry = "/".join(map(str, numbers))
    around = "/".join(_around(step)) or "N/A"
    if step.kind in ("concat", "add", "multiply"):
        around = f"of {', '.join(one.name for one in step.inputs)}" + (
            f"; {around}" if around != "N/A" else ""
        )
    name = f"{step.name} ({_word(step)})"
    channels = f"{step.in_channels}/{step.shape[-1]}"
    return dict(zip(GEOMETRY, (name, channels, geometry, around)))


def _word(step) -> str:
    """What kind of layer it is, as in PyTorch, which the documents name."""
    kinds = {"conv": "Conv2d", "deconv": "ConvTranspose2d", "pool": "Max pool"}
    return kinds.get(step.kind, step.kind)


def _around(step) -> list[str]:
    return [WORDS.get(name, name) for name in (*step.before, *step.after)]


# Tables


def _markdown(rows: Sequence[Mapping[str, str]], columns: Sequence[str]) -> str:
    align = ("---:" if column in NUMERIC else "---" for column in columns)
    lines = ["| " + " | ".join(columns) + " |", "| " + " | ".join(align) + " |"]
    lines += [f"| {' | '.join(cells[one] for one in columns)} |" for cells in rows]
    return "\n".join(lines)


def _text(rows: Sequence[Mapping[str, str]], columns: Sequence[str]) -> str:
    rows = [dict(zip(columns, columns)), *rows]
    widths = {column: max(len(cells[column]) for cells in rows) for column in columns}
    lines = []
    for cells in rows:
        parts = (
            cells[c].rjust(widths[c]) if c in NUMERIC else cells[c].ljust(widths[c])
            for c in columns
        )
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)


def outline(
    name: str,
    size: tuple[int, int] | None = None,
    num_classes: int | None = None,
    **options: Any,
):
    """A network without values in its weights, which take no memory.

    Its size and number of classes are those of its document where none are given.
    """
    import keras

    height, width, classes = nets.get(name).reference
    height, width = size or (height, width)
    classes = num_classes or classes
    with keras.StatelessScope(initialize_variables=False):
        model = nets.build(name, (height, width, 3), classes, **options)
    keras.backend.clear_session()  # else Keras makes the weights at the next chance
    return model


def _gflop(model) -> float:
    from keras_seg.nets import flops

    return flops.forward(model) / 1e9


def _trainable(model) -> int:
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)
