"""A picture of a prepared folder: samples, legend and class frequencies."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from keras_seg.data.images import resize_image, resize_label
from keras_seg.data.prepared import Prepared, Sample, read_image, read_label
from keras_seg.labels import IGNORE_ID

IGNORED_COLOUR = (224, 224, 192)  # VOC's; class 0 is often black already

# Inches, at 100 pixels each.
_SAMPLES_WIDTH, _CHART_WIDTH, _NAMES_WIDTH = 12.0, 4.0, 1.9
_MARGIN, _TITLE, _AXIS, _CAPTION, _GAP = 0.15, 0.5, 0.5, 0.22, 0.08
_LEAST_HEIGHT = 6.5  # of the samples


def write_sheet(
    prepared: Prepared, path: Path, split: str = "train", count: int = 12
) -> None:
    """Write a PNG: samples beside their labels, and the class frequencies.

    At least `count` samples are shown, more where there is room, spread evenly over
    the split. The chart is CITY's Fig. 13: pixels of each class divided by the (mean)
    image area; it is the legend too.

    Raises:
        DataError: no such split, or a sample is damaged.
    """
    samples = prepared.samples(split)
    # Width by height of an image beside its label.
    aspect = 2 * float(np.median([sample.width / sample.height for sample in samples]))
    num_bars = prepared.labels.num_classes + 1
    bars_height = max(0.2, min(0.42, 8 / num_bars)) * num_bars
    room = max(bars_height, _LEAST_HEIGHT)
    columns, rows, cell_height = _grid(min(count, len(samples)), aspect, room)
    shown = min(rows * columns, len(samples))
    chosen = np.linspace(0, len(samples) - 1, shown).round().astype(int)  # indices
    rows = -(-shown // columns)
    cell_width = _SAMPLES_WIDTH / columns
    body = max(bars_height + _AXIS, rows * (cell_height + _CAPTION))
    width = _MARGIN + _SAMPLES_WIDTH + _NAMES_WIDTH + _CHART_WIDTH + _MARGIN
    height = _TITLE + body + _MARGIN

    figure = Figure(figsize=(width, height), dpi=100)

    def axes_at(left: float, top: float, wide: float, high: float) -> Axes:
        """Axes in inches from the upper left corner."""
        return figure.add_axes(
            (left / width, 1 - (top + high) / height, wide / width, high / height)
        )

    figure.text(
        _MARGIN / width,
        1 - 0.28 / height,
        _title(prepared, split),
        size=13,
        va="center",
        parse_math=False,
    )
    for place, sample in enumerate(samples[i] for i in chosen):
        row, column = divmod(place, columns)
        axes = axes_at(
            _MARGIN + column * cell_width,
            _TITLE + row * (cell_height + _CAPTION) + _CAPTION,
            cell_width - _GAP,
            cell_height,
        )
        axes.imshow(_pair(prepared, sample, round(50 * cell_width)))
        axes.set_title(_shortened(sample.id), fontsize=8, pad=2, parse_math=False)
        axes.set_anchor("N")
        axes.set_axis_off()
    left = _MARGIN + _SAMPLES_WIDTH + _NAMES_WIDTH
    axes = axes_at(left, _TITLE + _CAPTION, _CHART_WIDTH, bars_height)
    _draw_frequencies(axes, prepared, split)
    FigureCanvasAgg(figure).print_png(path)


def _grid(count: int, aspect: float, room: float) -> tuple[int, int, float]:
    """Columns, rows and a cell's height: the largest cells with room for `count`."""
    columns = 0
    while True:
        columns += 1
        cell_height = (_SAMPLES_WIDTH / columns - _GAP) / aspect
        rows = max(1, int(room / (cell_height + _CAPTION)))
        if rows * columns >= count:
            return columns, rows, cell_height


def _title(prepared: Prepared, split: str) -> str:
    size = prepared.image_size
    counts = ", ".join(f"{len(prepared.samples(s))} {s}" for s in prepared.splits)
    return (
        f"{prepared.dataset}: {counts} images, "
        f"{'of different sizes' if size is None else f'{size[0]} x {size[1]} px'}, "
        f"{prepared.labels.num_classes} classes; shown: {split}"
    )


def _shortened(text: str) -> str:
    return text if len(text) <= 32 else f"{text[:14]}...{text[-14:]}"


def _pair(prepared: Prepared, sample: Sample, width: int) -> np.ndarray:
    """uint8 RGB [h, 2 w, 3]: the image beside its coloured label, w about `width`."""
    scale = min(1.0, width / sample.width)
    size = (max(1, round(sample.height * scale)), max(1, round(sample.width * scale)))
    image = resize_image(read_image(sample.image), size)
    label = resize_label(read_label(sample.label), size)
    colours = prepared.labels.colourise(label)
    colours[label == IGNORE_ID] = IGNORED_COLOUR
    return np.concatenate([image, colours], axis=1)


def _draw_frequencies(axes: Axes, prepared: Prepared, split: str) -> None:
    counts, labels = prepared.counts(split), prepared.labels
    area = counts.total / len(prepared.samples(split))
    bars = [
        (f"{name}  {class_id}", pixels, labels.palette[class_id])
        for class_id, (name, pixels) in enumerate(zip(labels.names, counts.pixels))
    ]
    bars.sort(key=lambda bar: -bar[1])
    bars.append((f"ignored  {IGNORE_ID}", counts.ignored, IGNORED_COLOUR))
    names, pixels, levels = zip(*bars)
    shares, colours = np.array(pixels) / area, np.array(levels) / 255
    present = shares[shares > 0]
    highest = max(present) * 4
    lowest = min(min(present) / 2, highest / 100)  # two powers of ten at least
    font = 9 if len(bars) <= 30 else 7
    places, widths = range(len(bars)), np.maximum(shares, lowest)
    edge = {"edgecolor": "0.4", "linewidth": 0.5}
    axes.barh(places, widths, height=0.8, color=colours, **edge)
    for place, width, count in zip(places, widths, pixels):
        share = f"{100 * count / counts.total:.3g} %" if count else "none"
        axes.text(width, place, f" {share}", va="center", fontsize=font)
    # The legend's patches: a bar may be too short to show its colour.
    axes.barh(
        places,
        0.05,
        left=-0.07,
        height=0.8,
        color=colours,
        transform=axes.get_yaxis_transform(),
        clip_on=False,
        **edge,
    )
    axes.set_xscale("log")
    axes.set_xlim(lowest, highest)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.set_yticks(range(len(bars)), names, fontsize=font, parse_math=False)
    axes.tick_params(axis="y", length=0, pad=24)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel(f"pixels in {split} / pixels of an image (log scale)", fontsize=9)
