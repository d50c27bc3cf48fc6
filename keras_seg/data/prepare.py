"""Prepare a raw dataset; verify or show a prepared folder.

python datasets/prepare.py NAME --src RAW --out DIR [--size H W] [--limit N]
python datasets/prepare.py verify DIR
python datasets/prepare.py show DIR
"""

import argparse
import math
import os
import shlex
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from keras_seg import data
from keras_seg.command_line import Parser, check_folder, natural_int, positive_int
from keras_seg.data import Option
from keras_seg.data.prepared import SHEET, Prepared, open_prepared
from keras_seg.data.summary import summarise
from keras_seg.data.writer import Options
from keras_seg.errors import DataError, UsageError

PROGRAM = "python datasets/prepare.py"

COMMON = (
    Option("src", "the raw folder", Path, required=True),
    Option("out", "the prepared folder", Path, required=True),
    Option(
        "size",
        "resize every image to this; otherwise each keeps its size",
        type=positive_int,
        values=2,
        metavar=("H", "W"),
    ),
    Option("limit", "the first N images of each split", positive_int, metavar="N"),
    Option(
        "workers",
        "how many work at a time; never changes the result",
        positive_int,
        default=os.cpu_count() or 1,
        metavar="N",
    ),
    Option(
        "skip_bad",
        "leave out at most N bad items; one more stops the preparation",
        lambda text: math.inf if text == "all" else natural_int(text),
        default=0,
        metavar="N|all",
    ),
    Option(
        "overwrite",
        "replace a folder prepared by another command, or from raw files that were "
        "changed: files of equal names and sizes count as the same",
        bool,
        default=False,
    ),
)


@dataclass(frozen=True)
class Request:
    """One preparation."""

    dataset: str  # a key of `data.DATASETS`
    src: Path  # the raw folder
    out: Path  # the prepared one
    options: Options
    own: Mapping[str, Any]  # keywords of the dataset's own `prepare`


def main(argv: list[str], program: str = PROGRAM) -> int:
    """Do what the command line says; `program` precedes it in help and meta.json."""
    verb, rest = (argv[0], argv[1:]) if argv else ("", [])
    checks = {"verify": verify, "show": show}
    if verb in data.DATASETS:
        prepare(parse(verb, rest, program))
    elif verb in checks:
        checks[verb](rest, program)
    else:
        names = [*data.DATASETS, *checks]
        what = f"{', '.join(names)}; NAME --help lists its options"
        parser = Parser(prog=program, description=__doc__)
        parser.add_argument("NAME", choices=names, help=what, metavar="NAME")
        parser.parse_args(argv)
    return 0


def parse(dataset: str, argv: list[str], program: str = PROGRAM) -> Request:
    """The request of a dataset's command line."""
    module = data.load(dataset)
    parser = Parser(
        prog=f"{program} {dataset}",
        description=module.__doc__,
        epilog=f"See datasets/{dataset}.md: where to get it, licence, expected counts.",
    )
    own = getattr(module, "OPTIONS", ())
    for option in (*COMMON, *own):
        if option.name == "size" and hasattr(module, "SIZE"):
            option = replace(option, default=module.SIZE, help="resize every image")
        _add_option(parser, option)
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in vars(parser.parse_args(argv)).items()
    }
    keywords = {option.name: given.pop(option.name) for option in own}
    src, out = given.pop("src"), given.pop("out")
    command = f"{program} {shlex.join([dataset, *argv])}"
    return Request(dataset, src, out, Options(**given, command=command), keywords)


def _add_option(parser: argparse.ArgumentParser, option: Option) -> None:
    name, help = f"--{option.name.replace('_', '-')}", option.help
    if option.type is bool:
        has_no = argparse.BooleanOptionalAction if option.default else "store_true"
        parser.add_argument(name, action=has_no, default=option.default, help=help)
        return
    if option.default not in (None, ()):
        help = f"{help}; default: {_shown(option.default)}"
    parser.add_argument(
        name,
        help=help,
        type=option.type,
        default=option.default,
        required=option.required,
        choices=option.choices,
        nargs=option.values,
        metavar=option.metavar,
    )


def _shown(value: object) -> str:
    """A default as it would be typed."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join("all" if each is None else str(each) for each in value)
    return str(value)


def prepare(request: Request) -> Prepared:
    """Prepare a dataset and print what was done."""
    warnings.filterwarnings("ignore", module=r"PIL\.")  # what matters is an error
    _check_places(request.src, request.out)
    prepared, written = data.load(request.dataset).prepare(
        request.src, request.out, request.options, **request.own
    )
    _print("prepared" if written else "already prepared", prepared)
    return prepared


def _check_places(src: Path, out: Path) -> None:
    """UsageError where the prepared folder would be one of the raw files."""
    check_folder(out)
    src, out = Path(os.path.realpath(src)), Path(os.path.realpath(out))
    if out.is_relative_to(src):
        raise UsageError(
            f"--out {out} is inside --src {src}: the next preparation would read its "
            "own result. Name a folder elsewhere."
        )


def verify(argv: list[str], program: str = PROGRAM) -> None:
    """Check every byte of a prepared folder; DataError where something is wrong."""
    parser = Parser(
        prog=f"{program} verify",
        description="Read a whole prepared folder: hashes, sizes, label ranges, pairs, "
        "class counts. List what is wrong; exit code 3 if anything is.",
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=positive_int, default=os.cpu_count())
    arguments = parser.parse_args(argv)
    from keras_seg.data.verify import verify

    problems = verify(arguments.folder, arguments.workers)
    for problem in problems:
        print(problem)
    if problems:
        raise DataError(f"{arguments.folder} has {len(problems)} problems.")
    _print("whole", open_prepared(arguments.folder))


def show(argv: list[str], program: str = PROGRAM) -> None:
    """Draw a sheet of a prepared folder's samples."""
    parser = Parser(
        prog=f"{program} show",
        description="Draw samples, legend and class frequencies as a PNG.",
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--split", default="train")
    parser.add_argument("--count", type=positive_int, default=12)
    parser.add_argument("--out", type=Path, help=f"default: {SHEET} in the folder")
    arguments = parser.parse_args(argv)
    from keras_seg.data.sheet import write_sheet  # Matplotlib

    prepared = open_prepared(arguments.folder)
    path = arguments.out or arguments.folder / SHEET
    if path.is_dir() or not path.parent.is_dir():
        raise UsageError(f"--out {path} must be a file in an existing folder.")
    write_sheet(prepared, path, arguments.split, arguments.count)
    _print("shown", prepared)
    print(path)


def _print(what: str, prepared: Prepared) -> None:
    counts = ", ".join(f"{s} {len(prepared.samples(s))}" for s in prepared.splits)
    print(f"{what}: {prepared.folder} ({counts} images)")
    print(summarise(prepared).text())
