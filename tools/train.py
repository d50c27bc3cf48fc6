"""Train one network on a prepared folder; the same command goes on or is done.

python tools/train.py --net icnet --data datasets/prepared/camvid --size 192 256 \
    --steps 2000 --batch 16 --out runs/icnet_camvid --optimizer adam --lr 0.003

Every setting of keras_seg/config.py is an option; --config FILE reads them all from
a JSON file (a run's config.json, say), and options given beside it override it.
"""

import argparse
import dataclasses
import json
import math
import sys
import typing
from pathlib import Path

from keras_seg import backend, command_line, nets
from keras_seg.config import Augment, Config, from_dict
from keras_seg.data.prepared import open_prepared
from keras_seg.errors import UsageError
from keras_seg.runs import event_log
from keras_seg.runs.train import Options, sha256, train

# What --augment NAME switches on; --config sets any strength.
AUGMENTS = {
    "mirror": {"mirror": 0.5},
    "scale": {"scale": (0.5, 2.0)},
    "rotate": {"rotate": 10.0},
    "flip180": {"flip180": 0.5},
    "noise": {"noise": 10.0},
}
BY_HAND = ("size", "augment", "knobs", "init_weights_sha256")


def main(argv: list[str]) -> int:
    args = parse(argv)
    values = {}
    if args.config is not None:
        values = read_config(args.config)
    given = {
        field.name: getattr(args, field.name)
        for field in dataclasses.fields(Config)
        if field.name not in BY_HAND and getattr(args, field.name) is not None
    }
    values |= given
    prepared = open_prepared(args.data)
    if args.size is not None:
        values["size"] = args.size
    if args.knob:
        values["knobs"] = dict(args.knob)
    if args.augment is not None or args.swap_lr:
        values["augment"] = augment_of(args.augment or [], args.swap_lr)
    if args.init_weights is not None:
        values["init_weights_sha256"] = sha256(args.init_weights)
    if args.epochs is not None:
        if "steps" in given:
            raise UsageError("--epochs", args.epochs, "either --steps or --epochs")
        images = len(prepared.samples("train"))
        batch = values.get("batch", Config.batch)
        batch *= values.get("accumulate", Config.accumulate)
        values["steps"] = math.ceil(images / batch) * args.epochs
    config = from_dict(values)
    nets.get(config.net.name)
    backend.require_installed()
    if args.tensorboard:
        event_log.require_installed()
    options = Options(
        init_weights=args.init_weights,
        threads=args.threads,
        workers=args.workers,
        checkpoint_every=args.checkpoint_every,
        allow_inexact=args.allow_inexact,
        restart=args.restart,
        tensorboard=args.tensorboard,
    )
    train(config, args.data, args.out, options)
    return 0


def parse(argv: list[str]):
    positive = command_line.positive_int
    parser = command_line.Parser(prog="train.py", description=__doc__)
    parser.add_argument("--data", required=True, type=Path, help="prepared folder")
    parser.add_argument("--out", required=True, type=Path, help="run folder")
    parser.add_argument("--config", type=Path, help="JSON file of settings")
    parser.add_argument("--init-weights", type=Path, help="pretrained weights")
    parser.add_argument("--epochs", type=positive, help="instead of --steps")
    parser.add_argument(
        "--size", nargs=2, type=positive, metavar=("H", "W"), help="of the images, px"
    )
    parser.add_argument(
        "--augment",
        type=names_of(AUGMENTS),
        metavar="NAME[,NAME]",
        help=", ".join(AUGMENTS),
    )
    parser.add_argument(
        "--swap-lr", action="store_true", help="exchange left and right when mirrored"
    )
    parser.add_argument(
        "--knob",
        action="append",
        type=knob,
        metavar="NAME=VALUE",
        help="an option of the network, value in JSON; may be repeated",
    )
    parser.add_argument("--threads", type=positive, help="default: the cores")
    parser.add_argument("--workers", type=positive, default=2, help="of the loader")
    parser.add_argument(
        "--checkpoint-every",
        type=positive,
        metavar="N",
        help="batches between checkpoints; default: by time, about 1 %% of it",
    )
    parser.add_argument(
        "--allow-inexact",
        action="store_true",
        help="go on although the machine or a library changed",
    )
    parser.add_argument("--restart", action="store_true", help="begin anew")
    parser.add_argument(
        "--tensorboard", action="store_true", help="write a log for TensorBoard too"
    )
    settings = parser.add_argument_group("settings (keras_seg/config.py)")
    hints = typing.get_type_hints(Config)
    for field in dataclasses.fields(Config):
        if field.name not in BY_HAND:
            add_setting(settings, field, hints[field.name])
    return parser.parse_args(argv)


def add_setting(group, field: dataclasses.Field, hint) -> None:
    flag = "--" + field.name.replace("_", "-")
    text = field.metadata["help"].replace("%", "%%")
    if field.default is not dataclasses.MISSING:
        text += f"; default: {field.default}"
    if hint is bool:
        group.add_argument(flag, action="store_const", const=True, help=text)
    else:
        kind = hint if isinstance(hint, type) else typing.get_args(hint)[0]
        group.add_argument(flag, type=kind, help=text, metavar=kind.__name__.upper())


def names_of(known):
    """An argparse type: comma-separated names out of `known`."""

    def names(text: str) -> list[str]:
        found = text.split(",")
        for name in found:
            if name not in known:
                expected = "one of " + ", ".join(known)
                raise argparse.ArgumentTypeError(f"{name}; expected {expected}")
        return found

    return names


def knob(text: str) -> tuple[str, object]:
    """An argparse type: NAME=VALUE with the value in JSON, or a bare word."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text}; expected NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def augment_of(names: list[str], swap_lr: bool) -> dict:
    changes = {key: value for name in names for key, value in AUGMENTS[name].items()}
    augment = dataclasses.replace(Augment(), swap_lr=swap_lr, **changes)
    return dataclasses.asdict(augment)


def read_config(path: Path) -> dict:
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError("--config", path, f"a JSON file ({error})") from error
    if isinstance(values, dict) and "config" in values:
        values = values["config"]  # a run's config.json
    if not isinstance(values, dict):
        raise UsageError("--config", path, "a JSON object of settings")
    return values


if __name__ == "__main__":
    sys.exit(command_line.run(main))
