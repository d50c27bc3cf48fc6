"""Raw dataset -> prepared folder; checks and shows prepared folders.

python datasets/prepare.py NAME --src RAW --out DIR [--size H W] [--limit N]
python datasets/prepare.py verify DIR
python datasets/prepare.py show DIR
"""

import argparse
import math
import os
import shlex
import sys
import warnings
from pathlib import Path

from keras_seg import command_line
from keras_seg.data import DATASETS, load, writer
from keras_seg.data.prepared import SHEET, open_prepared
from keras_seg.errors import DataError, UsageError

COMMON = ("src", "out", "size", "limit", "workers", "skip_bad", "overwrite")


def main(argv: list[str]) -> int:
    what = argv[0] if argv else ""
    if what in DATASETS:
        return prepare(what, argv[1:])
    if what in CHECKS:
        return CHECKS[what](argv[1:])
    parser = command_line.Parser(
        prog="prepare.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="prepare.py NAME --help lists the options of a dataset.",
    )
    choices = [*DATASETS, *CHECKS]
    parser.add_argument(
        "NAME", choices=choices, help=", ".join(choices), metavar="NAME"
    )
    parser.parse_args(argv)
    return 0


def prepare(name: str, argv: list[str]) -> int:
    warnings.filterwarnings("ignore", module=r"PIL\.")  # what matters is an error
    module = load(name)
    default_size = "keep each as it is"
    if hasattr(module, "SIZE"):
        default_size = "{} {}".format(*module.SIZE)
    parser = command_line.Parser(
        prog=f"prepare.py {name}",
        description=module.__doc__,
        epilog=f"See datasets/{name}.md: where to get it, licence, expected counts.",
    )
    parser.add_argument("--src", required=True, type=Path, help="the raw folder")
    parser.add_argument("--out", required=True, type=Path, help="the prepared folder")
    parser.add_argument(
        "--size",
        nargs=2,
        type=command_line.positive_int,
        metavar=("H", "W"),
        help=f"resize every image to it; default: {default_size}",
    )
    parser.add_argument(
        "--limit",
        type=command_line.positive_int,
        metavar="N",
        help="the first N images of each split",
    )
    parser.add_argument(
        "--workers",
        type=command_line.positive_int,
        metavar="N",
        default=os.cpu_count() or 1,
        help="never changes the result; default: the cores",
    )
    parser.add_argument(
        "--skip-bad",
        type=skip_bad_count,
        metavar="N|all",
        default=0,
        help="leave out so many bad items; default: any refuses the whole",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace a folder prepared by another command, or from raw files that "
        "were changed: files of equal names and sizes count as the same",
    )
    if hasattr(module, "add_arguments"):
        module.add_arguments(parser)
    arguments = vars(parser.parse_args(argv))
    common = {key: arguments.pop(key) for key in COMMON}
    src, out, size = common.pop("src"), common.pop("out"), common.pop("size")
    options = writer.Options(
        size=None if size is None else tuple(size),
        command=shlex.join(["python", "datasets/prepare.py", name, *argv]),
        **common,
    )
    prepared, written = module.prepare(src, out, options, **arguments)
    print(f"{'prepared' if written else 'already prepared'}: {_summary(prepared)}")
    _note_leaks(prepared)
    return 0


def _note_leaks(prepared) -> None:
    """Says so where the same image is in two splits: validation would measure it."""
    first, again = {}, []
    for split in prepared.splits:
        for sample in prepared.samples(split):
            other = first.setdefault(sample.image_sha256, sample)
            if other.split != split:
                again.append(f"{split}/{sample.id} = {other.split}/{other.id}")
    if again:
        print(f"note: {len(again)} images are in two splits, the first {again[0]}")


def skip_bad_count(text: str) -> float:
    """An argparse type: a whole number, or "all" for infinity."""
    return math.inf if text == "all" else command_line.natural_int(text)


def verify(argv: list[str]) -> int:
    parser = command_line.Parser(
        prog="prepare.py verify",
        description="Reads a whole prepared folder: hashes, sizes, label ranges, "
        "pairs, class counts. Lists what is wrong; exit code 3 if anything is.",
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--workers", type=command_line.positive_int, default=os.cpu_count()
    )
    arguments = parser.parse_args(argv)
    from keras_seg.data.verify import verify

    problems = verify(arguments.folder, arguments.workers)
    for problem in problems:
        print(problem)
    if problems:
        raise DataError(arguments.folder, f"{len(problems)} problems", "none")
    print(f"whole: {_summary(open_prepared(arguments.folder))}")
    return 0


def show(argv: list[str]) -> int:
    parser = command_line.Parser(
        prog="prepare.py show",
        description="Draws samples, legend and class frequencies as a PNG.",
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--split", default="train")
    parser.add_argument("--count", type=command_line.positive_int, default=12)
    parser.add_argument("--out", type=Path, help=f"default: {SHEET} in the folder")
    arguments = parser.parse_args(argv)
    from keras_seg.data.sheet import write_sheet

    prepared = open_prepared(arguments.folder)
    path = arguments.out or arguments.folder / SHEET
    if path.is_dir() or not path.parent.is_dir():
        raise UsageError("--out", path, "a file in an existing folder")
    write_sheet(prepared, path, arguments.split, arguments.count)
    print(path)
    return 0


def _summary(prepared) -> str:
    counts = ", ".join(f"{s} {len(prepared.samples(s))}" for s in prepared.splits)
    return f"{prepared.folder} ({counts} images)"


CHECKS = {"verify": verify, "show": show}

if __name__ == "__main__":
    sys.exit(command_line.run(main))
