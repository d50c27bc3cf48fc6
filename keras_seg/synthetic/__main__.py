"""python -m keras_seg.synthetic: make clips of synthetic people.

python -m keras_seg.synthetic --out RAW --clips 40 8 8 --frames 20 --seed 0
"""

import argparse
import os
import sys
from pathlib import Path

from keras_seg import command_line
from keras_seg.errors import UsageError
from keras_seg.synthetic.generate import MOST_CLIPS, Settings, generate

MOST_FRAMES = 1000  # of a clip: all of them are held in memory


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = command_line.Parser(
        prog="python -m keras_seg.synthetic",
        description="Make clips of synthetic people in SURREAL's format.",
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder that shall hold cmu/"
    )
    parser.add_argument(
        "--clips",
        type=command_line.natural_int,
        nargs=3,
        required=True,
        metavar=("TRAIN", "VAL", "TEST"),
        help="number of clips of each split",
    )
    parser.add_argument(
        "--frames", type=command_line.positive_int, default=20, help="per clip"
    )
    parser.add_argument("--seed", type=command_line.natural_int, default=0)
    parser.add_argument(
        "--workers",
        type=command_line.positive_int,
        default=os.cpu_count() or 1,
        help="processes; the clips do not depend on it",
    )
    parser.add_argument(
        "--depth",
        action="store_true",
        help="write depth images, three quarters of all bytes",
    )
    options = parser.parse_args(arguments)
    if not any(options.clips):
        raise UsageError("--clips", "0 0 0", "at least one clip")
    if max(options.clips) > MOST_CLIPS:
        raise UsageError("--clips", max(options.clips), f"at most {MOST_CLIPS}")
    if options.frames > MOST_FRAMES:
        raise UsageError("--frames", options.frames, f"at most {MOST_FRAMES}")
    if options.out.exists() and not options.out.is_dir():
        raise UsageError("--out", options.out, "a folder")
    return options


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    settings = Settings(options.seed, options.frames, options.depth)
    total = sum(options.clips) * options.frames
    with command_line.Progress("synthetic humans", total, "frames") as progress:
        generate(
            options.out, options.clips, settings, options.workers, progress.advance
        )
    return 0


if __name__ == "__main__":
    sys.exit(command_line.run(main))
