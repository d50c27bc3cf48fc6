"""Diagrams of networks, drawn from the built network: blocks, shapes, skips, heads.

A block is at the height of its resolution, finer above coarser, so that an encoder goes
down, a decoder up, and a skip across. `PARTS` says what is one block, and which parts
of a network can be drawn alone.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import keras
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from keras_seg.errors import UsageError
from keras_seg.nets.layers import MaxPoolingWithIndices, MaxUnpooling
from keras_seg.nets.structure import Step, steps

FORMATS = (".svg", ".png")
COLUMN, BOX = 3.1, 2.2  # widths of a column and of a block in it
LINE, GAP = 0.27, 0.75  # height of a line of text, and between two rows
INCHES = 0.66  # of a unit
FILLS = {
    "input": "#e8e8e8",
    "outside": "#ffffff",
    "encoder": "#d3e4f3",
    "decoder": "#fbe2c5",
    "attention": "#e7d9ee",
    "join": "#ffffff",
    "head": "#d5ecd4",
}
INK, MUTED = "#1a1a1a", "#5f5f5f"
JOINS = {"add": "+", "concat": "concatenate", "multiply": "×"}
INDICES = "indices"  # a part that is no part of the graph: values that go through it
EXAMPLE = ((1, 3, 2, 0), (5, 2, 1, 7), (0, 4, 6, 1), (2, 1, 3, 2))  # pooled and back
MOST_LINES = 4  # of steps named in a block; more are counted


@dataclass(frozen=True)
class Part:
    """What a diagram shows.

    Attributes:
        title: above it, after the network's name.
        only: a regular expression of the names of the steps that are drawn; empty: all.
        blocks: (regular expression, title): steps whose names match it, and agree in
            its groups, are one block; groups fill the title's {0} and {1}.
    """

    title: str
    only: str = ""
    blocks: tuple[tuple[str, str], ...] = ()


_U_BLOCKS = (
    (r"enc(\d)_(?:conv\d|pool)", "encoder {0}"),
    (r"bottleneck.*", "bottleneck"),
    (r"gate(\d)_.*", "attention gate {0}"),
    (r"dec(\d)_.*", "decoder {0}"),
)
_SEGNET_BLOCKS = (
    (r"enc(\d)_(?:conv\d?|pool)", "encoder {0}"),
    (r"dec(\d)_.*", "decoder {0}"),
)
_HOURGLASS_BLOCKS = (
    (r"stem_.*", "stem"),
    (r"(stack|joints)(\d)_level.*", "hourglass, {0} {1}"),
    (r"(stack|joints)(\d)_(?:res_.*|lin)", "features, {0} {1}"),
    (r"(stack|joints)(\d)_(?:lin_back|out_back|merge)", "fed back, {0} {1}"),
)
_RESIDUAL = (r"(stack\d_level\d)_(up|low\d)_.*", "residual module")

PARTS: Mapping[str, Mapping[str, Part]] = MappingProxyType(
    {
        "icnet": {
            "": Part(
                "three branches and their fusion",
                blocks=(
                    (r"conv1_\d_.*|pool1_.*", "conv1, half resolution"),
                    (r"conv2_\d.*", "conv2, 3 bottlenecks"),
                    (r"conv3_1(?:_3x3|_1x1_\w+)?", "conv3_1, bottleneck"),
                    (r"conv3_1_sub4|conv3_[234].*", "conv3, 3 bottlenecks"),
                    (r"conv4_.*", "conv4, 6 bottlenecks"),
                    (r"conv5_3_(?:pool|sum).*", "pyramid pooling, summed"),
                    (r"conv5_[123].*", "conv5, 3 bottlenecks"),
                    (r"conv5_4_.*", "conv5_4"),
                    (r"conv_sub4|conv3_1_sub2_proj|sub24_sum", "cascade fusion"),
                    (r"conv_sub2|conv3_sub1_proj|sub12_sum", "cascade fusion, finer"),
                    (r"conv[123]_sub1", "high resolution"),
                ),
            ),
            "fusion": Part(
                "cascade feature fusion",
                r"conv5_4_interp|conv_sub4|conv3_1_sub2_proj|sub24_sum",
            ),
        },
        "segnet_basic": {
            "": Part("encoder and decoder", blocks=_SEGNET_BLOCKS),
            INDICES: Part("pooling indices and where they are used again"),
        },
        "segnet": {
            "": Part("encoder and decoder", blocks=_SEGNET_BLOCKS),
            INDICES: Part("pooling indices and where they are used again"),
        },
        "hourglass": {
            "": Part("stacked modules", blocks=_HOURGLASS_BLOCKS),
            "module": Part("one module", r"stack0_level.*", (_RESIDUAL,)),
            "residual": Part("a residual module", r"stack0_res_.*"),
            "supervision": Part(
                "intermediate supervision",
                r"stack0_(?:lin|logits|lin_back|out_back|merge)",
            ),
        },
        "fcn": {"": Part("FCN-8s", blocks=((r"enc(\d)_.*", "encoder {0}"),))},
        "unet": {"": Part("", blocks=_U_BLOCKS)},
        "unet_bn": {"": Part("", blocks=_U_BLOCKS)},
        "attention_unet": {
            "": Part("", blocks=_U_BLOCKS),
            "gate": Part("an attention gate", r"gate4_.*"),
        },
        "unet_slim": {"": Part("", blocks=_U_BLOCKS)},
        "unet_valid": {"": Part("", blocks=_U_BLOCKS)},
        "fcn_attention": {
            "": Part(
                "encoder, pyramid, decoder with skips and attention",
                blocks=(
                    (r"enc(\d)_(?:conv\d|down|pool)", "encoder {0}"),
                    (r"aspp_.*", "pyramid (ASPP)"),
                    (r"dec(\d)_(?:up|skip|add)", "decoder {0}"),
                    (r"dec(\d)_se_.*", "attention {0}"),
                ),
            ),
            "attention": Part("an attention module", r"dec4_se_.*"),
        },
        "fcn_resnet34": {"": Part("", blocks=((r"(layer\d)_.*", "{0}"),))},
    }
)


@dataclass
class Block:
    """Steps drawn as one.

    Attributes:
        title: its first line.
        steps: of the network; empty for what is outside of a part.
        kind: a key of `FILLS`.
        shape: of what leaves it, before a pooling at its end.
        sources: {block: words on the arrow}.
        rank: its column.
        row: how far down its middle is.
    """

    title: str
    steps: list[Step]
    kind: str
    shape: tuple[int, ...]
    sources: dict["Block", str] = field(default_factory=dict)
    rank: int = 0
    row: float = 0.0

    __hash__ = object.__hash__

    @property
    def height(self) -> int:
        """Rows of pixels of the finest step in it: where it stands."""
        sizes = [step.shape[0] for step in self.steps if len(step.shape) == 3]
        return max(sizes, default=self.shape[0])

    @property
    def tall(self) -> float:
        """The height of its box: its lines and its shape."""
        return (len(self.lines()) + 1) * LINE + 0.12

    def lines(self) -> list[str]:
        """What is written in it above its shape: title and steps."""
        if self.kind == "join":
            return [describe(step) for step in self.steps]
        named = [line for line in map(describe, self.steps) if line]
        found = [
            f"{number} × {line}" if number > 1 else line
            for line, number in _runs(named)
        ]
        if len(found) > MOST_LINES:
            kinds = Counter(step.kind for step in self.steps)
            convs = kinds["conv"] + kinds["deconv"]
            found = [f"{convs} convolutions"] if convs else [_counted(kinds)]
        return [self.title, *(line for line in found if line != self.title)]

    def size(self) -> str:
        """Its shape and, where it ends in a pooling, the size that this leaves."""
        text = "×".join(map(str, self.shape))
        if len(self.steps) > 1 and self.steps[-1].kind == "pool":
            text += " → {}×{}".format(*self.steps[-1].shape)
        return text


def part(net: str, name: str = "") -> Part:
    """A part of a network; UsageError lists those there are."""
    known = PARTS.get(net, {"": Part("")})
    if name not in known:
        others = ", ".join(filter(None, known)) or "none"
        raise UsageError(f"{net} has no part {name!r} to draw. Parts: {others}.")
    return known[name]


def write(model: keras.Model, net: str, path: Path, name: str = "") -> None:
    """Draw a network, or a part of it, into an .svg or .png file.

    Raises:
        UsageError: another kind of file, or no such part.
    """
    if path.suffix not in FORMATS:
        raise UsageError(f"--diagram {path} is neither an .svg nor a .png file.")
    title = f"{net}: {part(net, name).title}".removesuffix(": ")
    is_graph = name != INDICES
    figure = draw(blocks(model, net, name), title) if is_graph else draw_indices(title)
    kinds = {".svg": FigureCanvasSVG, ".png": FigureCanvasAgg}
    canvas = kinds[path.suffix](figure)
    try:
        with path.open("wb") as file:
            canvas.print_figure(file, format=path.suffix[1:], dpi=110)
    except OSError as error:
        raise UsageError(f"--diagram {path} cannot be written: {error}.") from error


# From steps to blocks


def blocks(model: keras.Model, net: str, name: str = "") -> list[Block]:
    """The blocks of a diagram, placed, in the order of the graph."""
    chosen, all_steps = part(net, name), steps(model)
    patterns = [
        (re.compile(pattern), title)
        for pattern, title in chosen.blocks
        # Strided convolutions are no blocks that end in a pooling.
        if not pattern.startswith("enc") or _ends_in_pooling(all_steps)
    ]
    heads = {tensor._keras_history.operation.name for tensor in model.output.values()}
    of_step: dict[str, Block] = {}
    found: dict[tuple, Block] = {}
    for step in all_steps:
        if chosen.only and not re.fullmatch(chosen.only, step.name):
            continue
        key, title = _group(step.name, patterns)
        block = found.get(key)
        if block is None:
            block = found[key] = Block(title, [], "encoder", step.shape)
        block.steps.append(step)
        of_step[step.name] = block
        for source in step.inputs:
            if source.name not in of_step:  # of another part
                outside = Block(source.name, [], "outside", source.shape)
                of_step[source.name] = found[(source.name,)] = outside
            other = of_step[source.name]
            if other is not block:
                block.sources[other] = _words(source, step)
    listed = [block for block in found.values()]
    for block in listed:
        block.kind = _kind(block, heads)
        plain = [step for step in block.steps if step.kind != "pool"]
        if block.steps:
            block.shape = (plain or block.steps)[-1].shape
    listed = _with_resizing_on_arrows(listed)
    _place(listed)
    return listed


def _ends_in_pooling(all_steps: Sequence[Step]) -> bool:
    return any(re.fullmatch(r"enc\d_(?:down|pool)", step.name) for step in all_steps)


def _group(name: str, patterns) -> tuple[tuple, str]:
    for pattern, title in patterns:
        if match := pattern.fullmatch(name):
            return (pattern.pattern, *match.groups()), title.format(*match.groups())
    return (name,), name


def _words(source: Step, step: Step) -> str:
    """On the arrow between two steps."""
    if step.kind == "unpool" and source.kind == "pool" and len(step.inputs) == 2:
        is_indices = step.inputs[1] is source
        return "indices" if is_indices else ""
    return ""


def _kind(block: Block, heads: set[str]) -> str:
    kinds = {step.kind for step in block.steps}
    if not block.steps:
        return "outside"
    if kinds == {"input"}:
        return "input"
    if any(step.name in heads for step in block.steps):
        return "head"
    if kinds <= {"add", "concat", "multiply"}:
        return "join"
    if "multiply" in kinds or kinds & {"mean", "dense"} and "conv" not in kinds:
        return "attention"
    if kinds & {"deconv", "unpool"} or kinds == {"resize"}:
        return "decoder"
    return "encoder"


def _with_resizing_on_arrows(listed: list[Block]) -> list[Block]:
    """Poolings and resizings between two blocks become words on the arrow."""
    targets = Counter(source for block in listed for source in block.sources)
    moved = {
        block: next(iter(block.sources))
        for block in listed
        if len(block.steps) == 1
        and block.steps[0].kind in ("pool", "resize")
        and len(block.sources) == targets[block] == 1
    }
    for block in listed:
        for source in [one for one in block.sources if one in moved]:
            words = describe(source.steps[0])
            del block.sources[source]
            block.sources[moved[source]] = words
    return [block for block in listed if block not in moved]


def describe(step: Step) -> str:
    """A step in a few words; "" where its block's title says it."""
    size = f"{step.kernel}×{step.kernel}"
    stride = f" /{step.strides}" if step.strides > 1 else ""
    dilation = f", dilation {step.dilation}" if step.dilation > 1 else ""
    after = "".join(f" · {name}" for name in step.after)
    before = "".join(f"{name} · " for name in step.before)
    if step.kind in ("conv", "deconv"):
        return f"{before}{step.kind} {size}{stride}{dilation}{after}"
    if step.kind == "pool":
        return f"max pool {size}{stride}"
    if step.kind == "resize":
        old, new = step.inputs[0].shape[0], step.shape[0]
        if new % old == 0:
            return f"resize ×{new // old}"
        return f"resize /{old // new}" if old % new == 0 else "resize"
    if step.kind == "bins":
        return f"mean of {size}"
    if step.kind == "dense":
        return f"dense {step.shape[-1]}{after}"
    if step.kind in JOINS:
        return f"{JOINS[step.kind]}{after}"
    return {"input": "", "net": "network", "mean": "mean of the image"}.get(
        step.kind, f"{step.kind}{after}"
    )


def _counted(kinds: Mapping[str, int]) -> str:
    names = {"bins": "means", "resize": "resizings", "add": "+"}
    named = ((names.get(kind, kind), number) for kind, number in kinds.items())
    return ", ".join(
        f"{number} {name}" if number > 1 else name for name, number in named
    )


def _runs(words: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Equal neighbours, counted."""
    last, number = None, 0
    for word in [*words, None]:
        if word != last:
            if last is not None:
                yield last, number
            last, number = word, 0
        number += 1


# Placing


def _place(listed: Sequence[Block]) -> None:
    """Columns by the longest way, late where there is room; rows by resolution."""
    targets = defaultdict(list)
    for block in listed:
        for source in block.sources:
            targets[source].append(block)
    order = _sorted(listed)
    for block in order:
        block.rank = max((s.rank + 1 for s in block.sources), default=0)
    for block in reversed(order):
        # A head that nothing follows pulls nothing to the end.
        inner = [one for one in targets[block] if one.kind != "head" or targets[one]]
        if inner and block.kind != "input":
            block.rank = min(target.rank for target in inner) - 1
    for block in order:
        if block.kind == "head" and not targets[block]:
            block.rank = max(source.rank for source in block.sources) + 1
    columns_used = sorted({block.rank for block in listed})
    for block in listed:
        block.rank = columns_used.index(block.rank)
    top = 0.0
    for height in sorted({block.height for block in listed}, reverse=True):
        level = [block for block in listed if block.height == height]
        columns: dict[int, list[Block]] = defaultdict(list)
        # What leads on stands in the line of its level; heads below.
        for block in sorted(level, key=lambda one: one.kind == "head"):
            columns[block.rank].append(block)
        for line in range(max(map(len, columns.values()))):
            found = [column[line] for column in columns.values() if line < len(column)]
            tallest = max(block.tall for block in found)
            for block in found:
                block.row = top + tallest / 2
            top += tallest + GAP


def _sorted(listed: Sequence[Block]) -> list[Block]:
    """Sources before targets: Keras lists operations by their distance to the heads."""
    done: dict[Block, None] = {}

    def add(block: Block) -> None:
        if block not in done:
            for source in block.sources:
                add(source)
            done[block] = None

    for block in listed:
        add(block)
    return list(done)


# Drawing


def draw(listed: Sequence[Block], title: str) -> Figure:
    """The diagram of placed blocks."""
    width = (max(block.rank for block in listed) + 1) * COLUMN
    depth = max(block.row + block.tall / 2 for block in listed) + 0.3
    figure = Figure(figsize=(max(width, 5) * INCHES, (depth + 0.9) * INCHES))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(-0.35, max(width, 5) - 0.2)
    axes.set_ylim(-depth, 0.9)
    axes.axis("off")
    axes.text(0, 0.5, title, fontsize=10, weight="bold", color=INK)
    lanes = Counter()  # so that arrows into a column do not lie upon each other
    for block in listed:
        for source, words in block.sources.items():
            _arrow(axes, listed, source, block, words, lanes[block.rank])
            lanes[block.rank] += 1
    for block in listed:
        _box(axes, block)
    return figure


def draw_indices(title: str) -> Figure:
    """Values that the layers of SegNet pool and put back where they were."""
    values = np.array(EXAMPLE, "float32")[None, :, :, None]
    pooled, indices = MaxPoolingWithIndices()(values)
    back = MaxUnpooling(*values.shape[1:3])([pooled, indices])
    grids = [np.asarray(each)[0, :, :, 0] for each in (values, pooled, back)]
    kept = grids[2] != 0
    figure = Figure(figsize=(7.6, 2.7))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(-0.5, 14.7)
    axes.set_ylim(-4.5, 0.9)
    axes.axis("off")
    axes.text(0, 0.45, title, fontsize=10, weight="bold", color=INK)
    words = ("encoder: before pooling", "pooled", "decoder: unpooled")
    for left, grid, word in zip((0, 6.1, 10.2), grids, words):
        top = -(4 - len(grid)) / 2
        for (row, column), value in np.ndenumerate(grid):
            filled = len(grid) < 4 or kept[row, column]
            corner = (left + column, top - row - 1)
            fill = FILLS["decoder" if left else "encoder"] if filled else "#ffffff"
            axes.add_patch(Rectangle(corner, 1, 1, facecolor=fill, edgecolor=MUTED))
            place = (corner[0] + 0.5, corner[1] + 0.5)
            style = {"ha": "center", "va": "center", "fontsize": 9, "color": INK}
            axes.text(*place, f"{value:g}", **style)
        axes.text(left, -4.35, word, fontsize=7, color=MUTED, va="bottom")
    style = {"arrowstyle": "-|>", "color": MUTED}
    for start, end in (((4.1, -2), (6.0, -2)), ((8.2, -2), (10.1, -2))):
        axes.annotate("", end, start, arrowprops=style)
    axes.annotate(
        "",
        (10.1, -0.45),
        (4.1, -0.45),
        arrowprops=style | {"linestyle": "--"},
    )
    axes.text(7.1, -0.38, "indices", fontsize=7, color=MUTED, ha="center", va="bottom")
    axes.text(5.05, -1.9, "max pool", fontsize=7, color=MUTED, ha="center", va="bottom")
    axes.text(9.15, -1.9, "unpool", fontsize=7, color=MUTED, ha="center", va="bottom")
    return figure


def _box(axes, block: Block) -> None:
    left, middle, height = block.rank * COLUMN, -block.row, block.tall
    style = "--" if block.kind == "outside" else "-"
    axes.add_patch(
        FancyBboxPatch(
            (left, middle - height / 2),
            BOX,
            height,
            boxstyle="round,pad=0.04",
            facecolor=FILLS[block.kind],
            edgecolor=MUTED,
            linestyle=style,
            linewidth=0.9,
            zorder=3,
        )
    )
    lines = [*block.lines(), block.size()]
    top = middle + height / 2 - 0.06
    for number, line in enumerate(lines):
        is_shape = number == len(lines) - 1
        axes.text(
            left + BOX / 2,
            top - (number + 0.5) * LINE,
            line,
            fontsize=6.4 if len(line) < 25 else 5.4,
            weight="bold" if number == 0 else "normal",
            color=MUTED if is_shape else INK,
            ha="center",
            va="center",
            zorder=4,
        )


def _arrow(
    axes, listed: Sequence[Block], source: Block, target: Block, words: str, lane: int
) -> None:
    """From a block to a later one, around what stands between them."""
    start = (source.rank * COLUMN + BOX + 0.04, -source.row)
    end = (target.rank * COLUMN - 0.04, -target.row)
    between = [block for block in listed if source.rank < block.rank < target.rank]

    def is_free(height: float) -> bool:
        return all(abs(height + b.row) > b.tall / 2 + 0.1 for b in between)

    aside = (COLUMN - BOX) * (0.2 + 0.15 * (lane % 5))
    bend, out = end[0] - aside, start[0] + aside
    if is_free(start[1]):
        points = [start, (bend, start[1]), (bend, end[1]), end]
        words_at = _beside_bend(listed, source, target, bend)
    elif is_free(end[1]):
        points = [start, (out, start[1]), (out, end[1]), end]
        words_at = (out + 0.06, end[1] + 0.06, "left")
    else:  # in the gap above all that stands between
        tops = [b.tall / 2 - b.row for b in between]
        high = max(top for top in tops) + 0.15 + 0.1 * (lane % 5)
        points = [start, (out, start[1]), (out, high), (bend, high), (bend, end[1])]
        points.append(end)
        words_at = (out + 0.06, high + 0.04, "left")
    xs, ys = zip(*points)
    axes.plot(xs[:-1], ys[:-1], color=MUTED, linewidth=0.9, zorder=1)
    axes.annotate(
        "",
        xy=points[-1],
        xytext=points[-2],
        arrowprops={"arrowstyle": "-|>", "color": MUTED, "linewidth": 0.9}
        | {"shrinkA": 0, "shrinkB": 0, "mutation_scale": 7},
        zorder=2,
    )
    if words:
        x, y, side = words_at
        style = {"fontsize": 5.6, "color": MUTED, "va": "bottom", "zorder": 4}
        axes.text(x, y, words, ha=side, **style)


def _beside_bend(
    listed: Sequence[Block], source: Block, target: Block, bend: float
) -> tuple[float, float, str]:
    """Where the words of an arrow are: no other arrow of its source has that stretch.

    On a straight arrow after its start, else beside its vertical part, in the gap next
    to the source's row.
    """
    if source.row == target.row:
        return source.rank * COLUMN + BOX + 0.1, 0.06 - source.row, "left"
    tall = max(block.tall for block in listed if block.row == source.row)
    away = tall / 2 + GAP / 2
    down = target.row > source.row
    return bend - 0.06, -source.row - away if down else -source.row + away, "right"
