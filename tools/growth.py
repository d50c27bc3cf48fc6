"""Measure how costs grow with image size, batch, width and number of images.

python tools/growth.py --net icnet --out docs/explanation/growth.csv

Processor time on one thread, which other programs change little, and the most memory;
every point in a process of its own. OUT gets a line for each point, and a figure with
the same name and the ending png is drawn beside it. The same command resumes: what OUT
has of the network is not measured again.
"""

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from keras_seg import backend, command_line, plots, storage
from keras_seg.config import Config
from keras_seg.errors import UsageError
from keras_seg.runs.benchmark.contestant import memory

USUAL: Mapping[str, int] = {"side": 128, "batch": 8, "width": 1}
TRAINING: Mapping[str, Sequence[int]] = {
    "side": (64, 96, 128, 192, 256, 320),
    "batch": (1, 2, 4, 8, 16),
    "width": (1, 2, 4),
}
IMAGES = (1_000, 10_000, 90_000)
CROWDED = (96, 192)  # values without a number on their axis
CLASSES = 25
LEAST_SECONDS = 3.0  # that a point's steps take together
AXES = {
    "side": ("height and width of the images, px", "s of a step"),
    "batch": ("images of a batch", "s of a step"),
    "width": ("net.filter_scale", "s of a step"),
    "images": ("images of the folder", "s to open it"),
}


def main(argv: list[str]) -> int:
    parser = command_line.Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--net", default="icnet", help="default: icnet")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.csv")
    args = parser.parse_args(argv)
    if args.out.suffix != ".csv":
        raise UsageError(f"--out is {args.out}; name a file that ends in .csv.")
    rows = read(args.out, args.net) if args.out.is_file() else []
    context = multiprocessing.get_context("spawn")
    for varies, value in points():
        if any((row["varies"], row["value"]) == (varies, value) for row in rows):
            continue
        command_line.note(f"{varies} {value:,}")
        same = [row for row in rows if is_middle(varies, value) and is_middle(**row)]
        if same:
            found = {key: same[0][key] for key in ("seconds", "start_seconds", "mib")}
        else:
            measure = opened if varies == "images" else trained
            with ProcessPoolExecutor(1, context) as pool:
                found = pool.submit(measure, args.net, varies, value).result()
        rows.append({"net": args.net, "varies": varies, "value": value, **found})
        storage.write_table(args.out, rows)
    rows.sort(key=lambda row: (list(AXES).index(row["varies"]), row["value"]))
    storage.write_table(args.out, rows)
    storage.write_file(args.out.with_suffix(".png"), plots.png(figure(rows)))
    print(*table(rows), sep="\n")
    return 0


def points() -> Iterator[tuple[str, int]]:
    """What varies, and its values."""
    for varies, values in (*TRAINING.items(), ("images", IMAGES)):
        for value in values:
            yield varies, value


def is_middle(varies: str, value: int, **_: Any) -> bool:
    """Whether nothing differs from the usual: one measurement for every axis."""
    return USUAL.get(varies) == value


def config_of(net: str, varies: str, value: int) -> Config:
    """The configuration in which `varies` has `value`, and the rest is as usual."""
    values = {**USUAL, varies: value}
    width = {"filter_scale": values["width"]} if values["width"] > 1 else {}
    return Config(
        net={"name": net, **width},
        data={"size": (values["side"], values["side"]), "batch": values["batch"]},
        optimizer={"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4},
        validation={"batch": values["batch"]},
        steps=1000,
    )


def trained(net: str, varies: str, value: int) -> dict[str, float]:
    """Seconds of a step and of all before it, in a process that did nothing else."""
    backend.configure()
    from keras_seg.runs.benchmark import ours

    config = config_of(net, varies, value)
    network, _ = ours.built(config, CLASSES, threads=1)
    one = ours.Ours(config, network, CLASSES)
    one.train(1)
    start = time.process_time()
    steps, seconds = 0, 0.0
    while seconds < LEAST_SECONDS or steps < 2:
        one.train(steps + 2)
        seconds = time.process_time() - start
        steps += steps + 4  # with the two that `train` does not count
    return measured(seconds / steps, start)


def opened(net: str, varies: str, value: int) -> dict[str, float]:
    """Seconds to open a prepared folder of so many images, and the memory it takes."""
    from keras_seg.data.prepared import open_prepared

    with tempfile.TemporaryDirectory(prefix="growth-") as folder:
        make_folder(Path(folder), value)
        before = memory()
        start = time.process_time()
        open_prepared(folder)
        seconds = time.process_time() - start
        return measured(seconds, start) | {
            "mib": max(1, round((memory() - before) / 2**20))
        }


def make_folder(folder: Path, count: int) -> None:
    """A prepared folder that can be opened, of empty files: opening reads none."""
    rng = np.random.default_rng(0)
    shares = {"train": count - count // 10, "val": count // 10}
    lines = ["split,id,image,image_sha256,label_sha256,height,width,sequence"]
    for split, share in shares.items():
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for number in range(share):
            name = f"{number:06d}"
            hashes = rng.bytes(32).hex(), rng.bytes(32).hex()
            row = (split, name, f"{name}.png", *hashes, "240", "320", name[:4])
            lines.append(",".join(row))
            for kind in ("images", "labels"):
                (folder / kind / split / f"{name}.png").touch()
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    counts = ("pixels", "images", "presence_pixels")
    meta: dict[str, Any] = {
        "format_version": 1,
        "dataset": "growth",
        "classes": ["a", "b"],
        "palette": [[0, 0, 0], [255, 255, 255]],
        "flip_pairs": [],
        "image_size": [240, 320],
        "splits": {
            split: {"samples": share, "ignored": 0, "total": 2}
            | dict.fromkeys(counts, [1, 1])
            for split, share in shares.items()
        },
        "joints": {},
        "request": {},
        "rejected": [],
    }
    storage.write_json(folder / "meta.json", meta)


def measured(seconds: float, start: float) -> dict[str, float]:
    found = {"seconds": float(f"{seconds:.4g}"), "start_seconds": round(start, 1)}
    return found | {"mib": round(memory() / 2**20)}


def read(path: Path, net: str) -> list[dict[str, Any]]:
    """The rows of a file; UsageError where they are of another network."""
    rows = storage.read_table(path, "Delete it.")
    if rows and rows[0].get("net") != net:
        raise UsageError(f"{path} is of {rows[0].get('net')}; name another file.")
    numbers = {"value": int, "seconds": float, "start_seconds": float, "mib": int}
    return [
        {**row, **{key: to(row[key]) for key, to in numbers.items()}} for row in rows
    ]


def growth(rows: Sequence[Mapping[str, Any]], number: int, key: str) -> float | None:
    """By which power of the value a cost grew since the line before; None of the first.

    The value of "side" is a length: a cost that is linear in pixels has the power 2.
    """
    row, before = rows[number], rows[number - 1]
    if number == 0 or row["varies"] != before["varies"]:
        return None
    ratio = np.log(row["value"] / before["value"])
    return float(np.log(row[key] / before[key]) / ratio)


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The points as a table in Markdown."""
    lines = ["| | | seconds | grew by the power | MiB | grew by |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: |")
    for number, row in enumerate(rows):
        powers = [growth(rows, number, key) for key in ("seconds", "mib")]
        time_power, memory_power = ("" if p is None else f"{p:.2f}" for p in powers)
        cells = [row["varies"], f"{row['value']:,}", f"{row['seconds']:.3g}"]
        cells += [time_power, f"{row['mib']:,}", memory_power]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


@plots.styled
def figure(rows: Sequence[Mapping[str, Any]]) -> plots.Figure:
    """A panel for each thing that varies, both axes logarithmic."""
    found = plots.Figure(figsize=(7.5, 5.4))
    for axes, (varies, names) in zip(found.subplots(2, 2).flat, AXES.items()):
        chosen = [row for row in rows if row["varies"] == varies]
        values, seconds = zip(*((row["value"], row["seconds"]) for row in chosen))
        power = 2 if varies in ("side", "width") else 1
        line = [seconds[-1] * (value / values[-1]) ** power for value in values]
        axes.plot(values, line, color=plots.MUTED, linestyle=":", label="in proportion")
        axes.plot(values, seconds, marker="o", label="measured")
        axes.set(xscale="log", yscale="log", xlabel=names[0], ylabel=names[1])
        shown = [value for value in values if value not in CROWDED]
        axes.set_xticks(shown, [f"{value:,}" for value in shown])
        axes.set_xticks([], minor=True)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.grid(axis="y")
        axes.legend()
    return found


if __name__ == "__main__":
    sys.exit(command_line.run(main))
