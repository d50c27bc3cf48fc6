"""Raw dataset -> prepared folder; checks and shows prepared folders.

python datasets/prepare.py NAME --src RAW --out DIR [--size H W] [--limit N]
python datasets/prepare.py verify DIR
python datasets/prepare.py show DIR
"""

import os
import shlex
import sys
from pathlib import Path

from keras_seg import command_line
from keras_seg.data import DATASETS, load

COMMON = ("src", "out", "size", "limit", "workers", "skip_bad", "overwrite")


def main(argv: list[str]) -> int:
    if argv and argv[0] in DATASETS:
        return prepare(argv[0], argv[1:])
    parser = command_line.Parser(prog="prepare.py", description=__doc__)
    parser.add_argument("what", choices=[*DATASETS, "verify", "show"])
    if argv and argv[0] in ("verify", "show"):
        parser.add_argument("folder", type=Path)
    parser.parse_args(argv)
    return 0


def prepare(name: str, argv: list[str]) -> int:
    from keras_seg.data import writer

    module = load(name)
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
        help="resize every image to it; default: keep each as it is",
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
        type=writer.skip_bad,
        metavar="N|all",
        default=0,
        help="leave out so many bad items; default: any refuses the whole",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace a folder prepared by another command",
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
    counts = ", ".join(f"{s} {len(prepared.samples(s))}" for s in prepared.splits)
    print(f"{'prepared' if written else 'already prepared'}: {out} ({counts} images)")
    return 0


if __name__ == "__main__":
    sys.exit(command_line.run(main))
