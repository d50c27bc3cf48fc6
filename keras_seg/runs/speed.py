"""How long a configuration takes on this machine: a few steps and a validation, timed.

python -m keras_seg.runs.speed --config FILE --data DIR --out FILE [--threads N]
"""

import sys
import tempfile
import time
from pathlib import Path

from keras_seg import backend, command_line, storage
from keras_seg.config import Config, from_dict
from keras_seg.data import folds
from keras_seg.data.prepared import Prepared, open_prepared
from keras_seg.runs.options import Interruption, Options

STEPS = 6  # the first one compiles and is not timed


def measure(
    config: Config, prepared: Prepared, threads: int | None
) -> dict[str, float]:
    """Seconds of a step, of a validation, and of all that comes before.

    The steps are real ones from fresh weights; nothing is kept.
    """
    began = time.monotonic()
    backend.start(config.seed, threads, config.precision)
    from keras_seg.runs import loop

    short = config.changed(
        steps=STEPS,
        extended=(),
        validation={"every": STEPS},
        optimizer={"bn_start": 0},
        net={"init_weights_sha256": None},
    )
    with tempfile.TemporaryDirectory() as folder:
        options = Options(threads=threads)
        run = loop.Run(short, prepared, Path(folder), options, Interruption())
        run.fit_window([loop.Steps(run)])
    step = run.state.timed_seconds / run.state.timed_steps
    run.validate()  # compiles, and reads the images
    before = time.monotonic()
    run.validate()
    validation = time.monotonic() - before
    start = before - began - STEPS * config.optimizer.accumulate * step - validation
    step *= config.optimizer.accumulate
    return {"step": step, "validation": validation, "start": max(0.0, start)}


def main(argv: list[str]) -> int:
    parser = command_line.Parser(prog="python -m keras_seg.runs.speed")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=command_line.positive_int)
    parser.add_argument("--parent", type=int)
    args = parser.parse_args(argv)
    if args.parent is not None:
        command_line.end_with_parent(args.parent)
    config = from_dict(storage.read_json(args.config))
    prepared = open_prepared(args.data)
    prepared = folds.divide(prepared, config.data.folds, config.data.fold)
    found = measure(config, prepared, args.threads)
    storage.write_json(args.out, found)
    return 0


if __name__ == "__main__":
    sys.exit(command_line.run(main))
