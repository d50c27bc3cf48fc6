"""python -m keras_seg.synthetic: make clips of synthetic people.

python -m keras_seg.synthetic --out RAW --clips 40 8 8 --frames 20 --seed 0
"""

import argparse
import os
import sys
from pathlib import Path

from keras_seg.command_line import Parser, Progress, natural_int, positive_int, run
from keras_seg.errors import UsageError
from keras_seg.synthetic.generate import MAX_CLIPS, Settings, generate

MAX_FRAMES = 1000  # of a clip, whose frames are all in memory


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(
        prog="python -m keras_seg.synthetic",
        description="Make clips of synthetic people in SURREAL's format.",
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, help="the folder that will hold cmu/")
    add(
        "--clips",
        type=natural_int,
        nargs=3,
        required=True,
        metavar=("TRAIN", "VAL", "TEST"),
        help="number of clips in each split",
    )
    add("--frames", type=positive_int, default=20, help="per clip")
    add("--seed", type=natural_int, default=0)
    note = "processes; the clips do not depend on it"
    add("--workers", type=positive_int, default=os.cpu_count() or 1, help=note)
    note = "write depth images too, three quarters of all bytes"
    add("--depth", action="store_true", help=note)
    options = parser.parse_args(arguments)
    if not any(options.clips):
        raise UsageError("--clips 0 0 0 asks for no clip; ask for at least one.")
    if max(options.clips) > MAX_CLIPS:
        raise UsageError(
            f"--clips {max(options.clips)} is too many: at most {MAX_CLIPS} per split."
        )
    if options.frames > MAX_FRAMES:
        raise UsageError(
            f"--frames {options.frames} is too many: at most {MAX_FRAMES} per clip."
        )
    return options


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    settings = Settings(options.seed, options.frames, options.depth)
    total = sum(options.clips) * options.frames
    with Progress("synthetic humans", total, "frames") as progress:
        generate(
            options.out, options.clips, settings, options.workers, progress.advance
        )
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
