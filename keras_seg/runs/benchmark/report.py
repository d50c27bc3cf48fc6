"""The tables of a benchmark, from the numbers of its turns."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

OURS = "keras_seg"
PEER = "PyTorch"
GIB = 1 << 30


def markdown(found: Mapping[str, Any]) -> str:
    """The tables of what was measured: {"machine", "parts"}, see `command`."""
    lines = ["# Speed of this machine", "", "Written by `keras-seg benchmark`.", ""]
    lines += [f"* {key}: {value}" for key, value in found["machine"].items()]
    lines += [
        "",
        "Median, minimum and maximum over the rounds, in which the contestants",
        "alternate. A ratio is computed within each round; its median is given, and",
        "above 1 keras_seg is faster. The network of a step, its batch and its",
        "optimizer are the same; keras_seg counts the mIoU as well, as a run does.",
        "Predictions go from uint8 images to class ids and probabilities: `keras_seg`",
        "is the run's own network, `keras` to `litert` are its exports. GiB is peak",
        "memory. The number of the arithmetic grows with every change that alters the",
        "bits of a training, as most that make it faster do",
        "(`keras_seg.backend.ARITHMETIC`).",
    ]
    for name, part in found["parts"].items():
        lines += ["", f"## {title(name, part)}", ""]
        for what, unit in (
            ("train", "images trained a second"),
            ("predict", "images predicted a second"),
            ("load", "images loaded a second"),
            ("evaluate", "images scored a second"),
            ("start", "seconds from the start of the process"),
        ):
            if part.get(what):
                lines += [*table(unit, part[what]), ""]
        lines += [f"* {sentence}" for sentence in part["notes"]]
        when = f"{part['date']}, arithmetic {part['arithmetic']}, {part['seconds']} s"
        lines += [f"* {when}: `{part['command']}`"]
    return "\n".join(lines) + "\n"


def title(name: str, part: Mapping[str, Any]) -> str:
    if "net" not in part:
        return name
    height, width = part["size"]
    return f"{part['net']}, {height}x{width} px, batch {part['batch']}"


def table(unit: str, rows: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Lines of a table; the ratio is to the better PyTorch of the same precision."""
    has_memory = any("bytes" in row for row in rows.values())
    yield f"| | {unit} | against the better PyTorch |" + " GiB |" * has_memory
    yield "| --- | ---: | ---: |" + " ---: |" * has_memory
    for who, row in rows.items():
        values = row.get("rates") or row["seconds"]
        best = best_peer(who, rows)
        ratio = "" if best is None else shown(ratios(row, rows[best]))
        line = f"| {who} | {shown(values)} | {ratio} |"
        if has_memory:
            line += f" {row['bytes'] / GIB:.2f} |" if "bytes" in row else " |"
        yield line


def best_peer(who: str, rows: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The fastest PyTorch of a contestant's precision; None for PyTorch itself."""
    if who.startswith(PEER) or who.endswith("--help"):
        return None
    is_mixed = "bfloat16" in who
    peers = {
        name: statistics.median(row["rates"])
        if "rates" in row
        else -statistics.median(row["seconds"])
        for name, row in rows.items()
        if name.startswith(PEER) and ("bfloat16" in name) == is_mixed
    }
    return max(peers, key=lambda name: peers[name]) if peers else None


def ratios(row: Mapping[str, Any], peer: Mapping[str, Any]) -> list[float]:
    """How many times as fast, round by round."""
    if "rates" in row:
        return [ours / theirs for ours, theirs in zip(row["rates"], peer["rates"])]
    return [theirs / ours for ours, theirs in zip(row["seconds"], peer["seconds"])]


def shown(values: Sequence[float]) -> str:
    """The median, with the least and the most."""
    numbers = (statistics.median(values), min(values), max(values))
    return "{} ({} to {})".format(*map(digits, numbers))


def digits(value: float) -> str:
    """Three digits, or those before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
