"""The command `keras-seg`: every step from raw data to predictions of own pictures.

    keras-seg prepare NAME --src RAW --out DIR     a dataset as a prepared folder
    keras-seg verify DIR                           are its files as they were written?
    keras-seg show DIR                             a sheet of samples, class frequencies
    keras-seg train --net NET --data DIR ...       train a network
    keras-seg evaluate RUN --split test            score it
    keras-seg predict RUN FILES... --out DIR       class ids and overlays of pictures
    keras-seg export RUN                           a model that needs none of this code
    keras-seg ablate --net NET --stage STAGE       a stage of a study, with its report
    keras-seg summary                              the table of networks
    keras-seg benchmark --out FILE                 how fast this machine is

keras-seg VERB --help lists the options of each.
"""

import importlib
import sys
from collections.abc import Mapping
from types import MappingProxyType

from keras_seg import command_line

# Module, function, and what help shows before the options where it is not the verb.
# Imported when called, so that the list of verbs answers at once.
VERBS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "prepare": ("keras_seg.data.prepare", "main", "keras-seg prepare"),
        "verify": ("keras_seg.data.prepare", "verify", "keras-seg"),
        "show": ("keras_seg.data.prepare", "show", "keras-seg"),
        "train": ("keras_seg.runs.commands", "train"),
        "evaluate": ("keras_seg.runs.commands", "evaluate"),
        "predict": ("keras_seg.runs.commands", "predict"),
        "export": ("keras_seg.runs.commands", "export"),
        "ablate": ("keras_seg.study", "main", "keras-seg ablate"),
        "summary": ("keras_seg.runs.commands", "summary"),
        "benchmark": ("keras_seg.runs.benchmark.command", "main"),
    }
)


def main(argv: list[str] | None = None) -> int:
    """The console script: call the verb, give the exit code."""
    return command_line.run(call, argv)


def call(argv: list[str]) -> int | None:
    """Call the verb that argv begins with."""
    if not argv or argv[0] in ("-h", "--help"):
        print((__doc__ or "").strip())
        return 0
    verb, *rest = argv
    if verb not in VERBS:
        known = ", ".join(VERBS)
        parser = command_line.Parser(prog="keras-seg")
        parser.error(f"There is no command {verb!r}. Commands: {known}")
    module, function, *program = VERBS[verb]
    return getattr(importlib.import_module(module), function)(rest, *program)


if __name__ == "__main__":
    sys.exit(main())
