"""The commands about one run: train, evaluate, predict, export; and the networks.

Each is a function of the arguments after its name. `keras-seg` and the scripts in
tools/ call them.
"""

import inspect
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from keras_seg.command_line import (
    Listing,
    Parser,
    end_with_parent,
    folder_path,
    natural_int,
    note,
    positive_int,
    share,
)
from keras_seg.errors import DataError, KerasSegError, UsageError
from keras_seg.runs import executors

# Training


def train(argv: list[str]) -> int:
    """Train one network on a prepared folder; the same command resumes, or is done.

    keras-seg train --net icnet --data datasets/prepared/camvid --size 192 256 \\
        --steps 2000 --batch 16 --out runs/icnet_camvid --optimizer adam --lr 0.003

    Every setting has a path, optimizer.lr, and --set PATH=VALUE sets it; --settings
    lists them all. --config FILE reads settings from a JSON file, such as a run's
    config.json; --recipe NAME overrides those of a recipe; what is given beside them
    overrides these settings and no others.
    """
    args = _train_parser().parse_args(argv)
    from keras_seg.config import parse_setting
    from keras_seg.runs import face, recipes

    values = face.read_config(args.config)
    recipes.apply(values, args.recipe)
    if args.net is not None:
        face.set_part(values, "net", args.net)
    if args.size is not None:
        face.set_part(values, "data", {"size": args.size})
    face.set_part(values, "augment", augment_of(args.augment or [], args.swap_lr))
    # The network first: another one drops the options set before it.
    given = sorted(map(parse_setting, args.set), key=lambda one: one[0] != "net.name")
    for path, value in given:
        part, _, name = path.partition(".")
        face.set_part(values, part, {name: value} if name else value)
    if args.epochs is not None and any(text.startswith("steps=") for text in args.set):
        raise UsageError("Both --steps and --epochs are given; give one of the two.")
    face.train(
        data=args.data,
        out=args.out,
        epochs=args.epochs,
        config=values,
        init_weights=args.init_weights,
        threads=args.threads,
        devices=args.devices,
        workers=args.workers,
        checkpoint_every=args.checkpoint_every,
        allow_inexact=args.allow_inexact,
        restart=args.restart,
        extend=args.extend,
        tensorboard=args.tensorboard,
    )
    return 0


def augment_of(names: list[str], swap_lr: bool) -> dict[str, Any]:
    """The settings of the augmentations of these names, keys of AUGMENTATIONS."""
    from keras_seg.data.augment import AUGMENTATIONS

    changes: dict[str, Any] = {"swap_lr": True} if swap_lr else {}
    for name in names:
        if name not in AUGMENTATIONS:
            known = ", ".join(AUGMENTATIONS)
            raise UsageError(f"--augment {name} is unknown. Augmentations: {known}.")
        changes |= AUGMENTATIONS[name]
    return changes


def _train_parser() -> Parser:
    from keras_seg.runs import recipes

    parser = _parser("train", train)
    parser.usage = (
        "keras-seg train --net NET --data DIR --size H W --steps N --out RUN [options]"
    )
    parser.add_argument("--net", help="a network; keras-seg summary lists them")
    _add_folder(parser, "--data", required=True, help="prepared folder")
    parser.add_argument(
        "--size", nargs=2, type=positive_int, metavar=("H", "W"), help="of images, px"
    )
    parser.add_argument("--epochs", type=positive_int, help="instead of --steps")
    _add_folder(parser, "--out", required=True, help="run folder")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PART.NAME=VALUE",
        help="a setting, value in JSON or a bare word; may be repeated",
    )
    parser.add_argument("--config", type=Path, help="JSON file of settings")
    parser.add_argument(
        "--recipe",
        metavar="NAME|FILE",
        help=f"settings with their reasons: {', '.join(recipes.names())}, or a file",
    )
    parser.add_argument(
        "--settings",
        action=Listing,
        const=settings_text,
        help="list all settings and exit",
    )
    parser.add_argument(
        "--init-weights",
        metavar="imagenet|FILE|RUN",
        help="what to start from: ImageNet's weights, a file, the best of a run",
    )
    parser.add_argument(
        "--augment",
        type=lambda text: text.split(","),
        metavar="NAME[,NAME]",
        help="augmentations at their usual strength: mirror, scale, ...",
    )
    parser.add_argument(
        "--swap-lr", action="store_true", help="exchange left and right when mirrored"
    )
    _add_threads(parser)
    parser.add_argument(
        "--devices",
        type=positive_int,
        default=1,
        help="that share every batch (JAX); default: 1",
    )
    parser.add_argument(
        "--workers",
        type=positive_int,
        help="of the loader; default: 2, beside a GPU its share of the cores less 2",
    )
    parser.add_argument(
        "--checkpoint-every",
        type=positive_int,
        metavar="N",
        help="batches between checkpoints; default: by time, about 1 %% of it",
    )
    parser.add_argument(
        "--allow-inexact",
        action="store_true",
        help="resume although the machine or a library changed; train in bfloat16 "
        "where it is slow",
    )
    parser.add_argument(
        "--restart", action="store_true", help="drop the run in the folder"
    )
    parser.add_argument(
        "--extend",
        action="store_true",
        help="with more steps: train an unfinished run to its end and on",
    )
    parser.add_argument(
        "--tensorboard", action="store_true", help="write a log for TensorBoard too"
    )
    _add_short_forms(parser)
    return parser


# Settings that other options set, and those whose short form is not the end of the path
OTHERWISE_SET = ("net.name", "net.init_weights_sha256", "data.size", "extended")
SHORT_FORMS: Mapping[str, str] = MappingProxyType(
    {
        "data.joints": "joint-targets",
        "loss.name": "loss",
        "loss.weights": "class-weights",
        "loss.occurrences": "weight-occurrences",
        "loss.joint_weight": "joint-loss-weight",
        "optimizer.name": "optimizer",
        "validation.every": "val-every",
        "validation.samples": "val-samples",
        "validation.choice": "val-choice",
        "validation.batch": "val-batch",
    }
)


def _add_short_forms(parser: Parser) -> None:
    """Options for single settings; each is a --set in short."""
    from keras_seg.config import settings

    group = parser.add_argument_group("short forms of --set")
    for path, hint, _, meaning, _ in settings():
        part, _, name = path.rpartition(".")
        if path in OTHERWISE_SET or part == "augment":  # --augment
            continue
        flag = "--" + SHORT_FORMS.get(path, name.replace("_", "-"))
        text = f"{path}: {meaning}".replace("%", "%%")
        if hint is bool:
            group.add_argument(
                flag, action="append_const", dest="set", const=f"{path}=true", help=text
            )
        else:
            group.add_argument(
                flag,
                action="append",
                dest="set",
                type=f"{path}={{}}".format,
                metavar="VALUE",
                help=text,
            )
    group.add_argument(
        "--knob",
        action="append",
        dest="set",
        type="net.{}".format,
        metavar="NAME=VALUE",
        help="net.NAME: an option of the network",
    )


def settings_text() -> str:
    """Every setting with its default, its choices and its meaning."""
    from dataclasses import MISSING

    from keras_seg import config

    lines = []
    for path, _, default, meaning, choices in config.settings():
        shown = "" if default is MISSING else f"={json.dumps(config.plain(default))}"
        text = f"{meaning} ({', '.join(choices)})" if choices else meaning
        lines.append(f"{path + shown:40} {text}")
    lines.append(f"{'net.NAME':40} an option of the network NAME, as stacks=2")
    return "\n".join(lines)


# Scores, predictions, exports


def evaluate(argv: list[str]) -> int:
    """Score a finished run on a split.

    keras-seg evaluate runs/icnet_camvid --split val [--full-size]
    keras-seg evaluate runs/icnet_surreal --split test --report groups13
    keras-seg evaluate runs/icnet_camvid --split test --save

    RUN is a run, or the folder of a stage: its winner. Writes
    RUN/evaluation/<split>.json and prints the scores: the IoU of each class, or the
    mean class accuracy of the thesis' 13 groups of body parts (BODY Tables 2 and 5).
    --save writes the predictions too, also of a split without labels.
    """
    parser = _parser("evaluate", evaluate)
    _add_folder(parser, "run", help="a run folder")
    parser.add_argument("--split", default="val", help="default: val")
    _add_folder(parser, "--data", help="prepared folder; default: the run's own")
    parser.add_argument(
        "--full-size",
        action="store_true",
        help="resize the logits to each label's own size, not the label to the run's",
    )
    parser.add_argument(
        "--report",
        choices=("classes", "groups13"),
        default="classes",
        help="what is printed: each class, or the thesis' 13 groups of body parts",
    )
    parser.add_argument(
        "--save",
        nargs="?",
        const=Path(),
        type=folder_path,
        metavar="DIR",
        help="write the predictions of the split as well; default: "
        "RUN/evaluation/<split>-predictions",
    )
    parser.add_argument(
        "--force", action="store_true", help="replace predictions of another model"
    )
    _add_threads(parser)
    args = parser.parse_args(argv)
    from keras_seg.runs import face
    from keras_seg.runs import folder as run_folder

    args.run = run_folder.find_run(args.run)

    if args.report == "groups13":
        check_body_parts(run_folder.load_best(args.run)[1]["data"]["classes"])
    if args.save is not None:
        out = None if args.save == Path() else args.save
        options = {"data": args.data, "threads": args.threads, "force": args.force}
        place = face.predict_split(args.run, args.split, out, **options)
        print(f"predicted: {args.split}, in {place}")
        if not face.is_labelled(args.run, args.split, args.data):
            print(f"{args.split} has no labels, so there are no scores.")
            return 0
    result = face.evaluate(
        args.run,
        args.split,
        full_size=args.full_size,
        data=args.data,
        threads=args.threads,
    )
    if args.report == "groups13":
        print_groups(result)
    else:
        for name, iou in zip(result["classes"], result["per_class"]["iou"]):
            print(f"{name:20s} IoU {'absent' if iou is None else f'{iou:.4f}'}")
    print(score_line(result))
    return 0


def score_line(result: Mapping[str, Any]) -> str:
    """The scores of an evaluation, and over which classes their mean is."""
    from keras_seg.runs import folder

    summary, over = result["summary"], folder.mean_over(result)
    return (
        f"{result['split']}: mIoU {summary['miou']:.4f}{over and f' {over}'}, "
        f"accuracy {summary['pixel_accuracy']:.4f}, {result['images']} images"
    )


def check_body_parts(classes: list[str]) -> None:
    """UsageError unless the classes are SURREAL's 25, of which the groups are made."""
    from keras_seg.data.surreal import LABELS

    if classes != list(LABELS.names):
        raise UsageError(
            "--report groups13 needs a run with SURREAL's "
            f"{LABELS.num_classes} classes; this one has {len(classes)}."
        )


def print_groups(result: Mapping[str, Any]) -> None:
    """Each group's mean class accuracy, then the mean of the 25 classes, in percent."""
    import numpy as np

    from keras_seg import backend
    from keras_seg.data.surreal import GROUPS

    backend.configure()
    from keras_seg import metrics

    accuracy = metrics.grouped_accuracy(np.array(result["confusion"]), GROUPS)
    accuracy["All Classes"] = result["summary"]["mean_accuracy"]
    for name, value in accuracy.items():
        missing = value is None or math.isnan(value)
        print(f"{name:20s} accuracy {'absent' if missing else f'{100 * value:.2f} %'}")


def predict(argv: list[str]) -> int:
    """Segment pictures and videos of your own with a run or an export.

    keras-seg predict runs/icnet_camvid street.jpg photos holidays.mp4 --out predicted

    Writes for each picture, at its own size, NAME_ids.png with the class ids, shown in
    the colours of the classes, and NAME_overlay.png with the classes over the picture;
    the background stays as it is. areas.csv has a row per picture with the pixels of
    each class. The same command resumes; what is done is skipped. Pictures that cannot
    be read are named, the others are done, and the exit code is 3.
    """
    args = _predict_parser().parse_args(argv)
    if args.parent is not None:
        end_with_parent(args.parent)
    jobs = args.jobs or (1 if args.executor == "local" else MOST_JOBS)
    if jobs > 1 and args.shard is not None:
        raise UsageError("--shard is one of several jobs: give it without --jobs.")
    if args.executor == "ray":
        executors.require_ray()
    from keras_seg.runs import predict as prediction
    from keras_seg.runs import predict_files as files

    model = prediction.load(
        [args.model, *args.others],
        args.data,
        engine=args.engine,
        threads=args.threads,
        flip=args.flip,
        size=None if args.size is None else tuple(args.size),
        scale=args.scale,
        tile=None if args.tile is None else tuple(args.tile),
        overlap=args.overlap,
    )
    what: dict[str, Any] = {"outputs": args.outputs, "legend": not args.no_legend}
    before = None
    if jobs > 1:
        count = files.begin(model, args.files, args.out, force=args.force, **what)
        before = files.count_done(args.out)
        threads = args.threads or max(1, (os.cpu_count() or 1) // jobs)
        words = [word for word in argv if word != "--force"]
        words = ["-m", "keras_seg", "predict", *words, "--threads", str(threads)]
        _in_processes(words, min(jobs, count), args.executor, threads)
    done = files.predict_files(
        model,
        args.files,
        args.out,
        batch=args.batch,
        workers=args.workers,
        shard=args.shard,
        force=args.force and jobs == 1,
        **what,
    )
    for error in done.errors:
        note(f"error: {error}")
    count, skipped = done.predicted, done.skipped
    if before is not None:  # what the processes did
        count, skipped = count + skipped - before, before
    known = f" ({skipped} were done before)" if skipped else ""
    print(
        f"predicted: {count} picture{'' if count == 1 else 's'}, in {args.out}{known}"
    )
    return DataError.exit_code if done.errors else 0


MOST_JOBS = 16  # of a cluster, where --jobs does not say


def _in_processes(words: Sequence[str], jobs: int, executor: str, threads: int) -> None:
    """Run a command in so many processes, each with a shard of its pictures.

    Raises:
        KerasSegError: one of them failed for another cause than a bad picture.
    """
    launch = executors.local if executor == "local" else executors.Ray(threads)
    processes: list[executors.Process] = []
    try:
        for number in range(jobs):
            shard = ["--jobs", "1", "--executor", "local"]
            shard += ["--shard", f"{number + 1}/{jobs}"]
            processes.append(launch([*words, *shard]))
        codes = [process.wait() for process in processes]
    except BaseException:  # Ctrl-C and SIGTERM too
        for process in processes:
            process.terminate()
        raise
    failed = [code for code in codes if code not in (0, DataError.exit_code)]
    if failed:
        error = KerasSegError(
            f"{len(failed)} of {jobs} processes failed; what they said is above. The "
            "same command predicts what is missing."
        )
        error.exit_code = failed[0] if failed[0] > 0 else KerasSegError.exit_code
        raise error


def _predict_parser() -> Parser:
    from keras_seg.runs import engines
    from keras_seg.runs import predict as prediction
    from keras_seg.runs import predict_files as files

    parser = _parser("predict", predict)
    _add_folder(parser, "model", metavar="RUN|EXPORT", help="a run, stage or export")
    parser.add_argument(
        "files",
        nargs="+",
        metavar="PICTURE",
        help="pictures, videos, folders, 'a/*.jpg'",
    )
    _add_folder(parser, "--out", required=True, help="folder of the results")
    outputs = "; ".join(f"{name}: {what}" for name, what in files.OUTPUTS.items())
    parser.add_argument(
        "--outputs",
        type=lambda text: tuple(text.split(",")),
        default=files.DEFAULT_OUTPUTS,
        metavar="NAME[,NAME]",
        help=f"default: {','.join(files.DEFAULT_OUTPUTS)}. {outputs}",
    )
    parser.add_argument(
        "--no-legend", action="store_true", help="draw none below the overlays"
    )
    parser.add_argument(
        "--flip", action="store_true", help="average with the mirrored picture"
    )
    parser.add_argument(
        "--with",
        dest="others",
        action="append",
        default=[],
        type=folder_path,
        metavar="RUN|EXPORT",
        help="average with this one; may be repeated",
    )
    group = parser.add_argument_group("at which size; default: the run's, as trained")
    group.add_argument(
        "--size", nargs=2, type=positive_int, metavar=("H", "W"), help="another, px"
    )
    group.add_argument(
        "--scale", type=float, help="factor on each picture's own size; 1: as it is"
    )
    group.add_argument(
        "--tile",
        nargs=2,
        type=positive_int,
        metavar=("H", "W"),
        help="what the network takes at once with --size or --scale; "
        f"default: {prediction.TILE[0]} {prediction.TILE[1]} of larger pictures",
    )
    group.add_argument(
        "--overlap",
        type=natural_int,
        default=prediction.OVERLAP,
        help=f"pixels that tiles share; default: {prediction.OVERLAP}",
    )
    group = parser.add_argument_group("how it is computed")
    group.add_argument(
        "--engine",
        choices=(*engines.ENGINES, engines.AUTO),
        help="auto: the fastest here, measured once; default: keras, an export's own",
    )
    group.add_argument(
        "--batch", type=positive_int, default=files.BATCH, help="pictures at once"
    )
    group.add_argument(
        "--workers", type=positive_int, default=2, help="threads that read and write"
    )
    group.add_argument(
        "--shard", type=share, metavar="I/N", help="do only each Nth picture, from I on"
    )
    _add_threads(group)
    group.add_argument(
        "--jobs", type=positive_int, help="processes that share the work"
    )
    group.add_argument(
        "--executor",
        choices=executors.EXECUTORS,
        default="local",
        help="where the jobs run: here, or on a Ray cluster",
    )
    group.add_argument("--parent", type=int, help="stop when this process is gone")
    _add_folder(parser, "--data", help="prepared folder of the run, if it was moved")
    parser.add_argument(
        "--force", action="store_true", help="replace results that are there already"
    )
    return parser


def export(argv: list[str]) -> int:
    """Export a run's best weights as a model, checked as it is written.

    keras-seg export runs/icnet_camvid
    keras-seg export runs/icnet_camvid --format onnx --size 192 256 --size 384 512

    The model takes uint8 RGB images of one size and gives class ids and probabilities;
    only the runtime of its format is needed to open it.
    """
    from keras_seg.runs import export as exporting

    parser = _parser("export", export)
    _add_folder(parser, "run", help="a run or a stage")
    formats = exporting.FORMATS.items()
    parser.add_argument(
        "--format",
        choices=tuple(exporting.FORMATS),
        default="saved_model",
        help="default: saved_model. "
        + "; ".join(f"{name}: {one.what}" for name, one in formats),
    )
    parser.add_argument(
        "--size",
        nargs=2,
        type=positive_int,
        action="append",
        metavar=("H", "W"),
        help="of the images, px; default: the run's; a model for each if repeated",
    )
    _add_folder(
        parser, "--out", help="the model's folder; default: RUN/export/<format>"
    )
    _add_folder(parser, "--data", help="the run's prepared folder, if it was moved")
    parser.add_argument(
        "--images",
        type=positive_int,
        default=exporting.IMAGES,
        help=f"validation images of the check; default: {exporting.IMAGES}",
    )
    _add_threads(parser)
    args = parser.parse_args(argv)
    sizes = [None if size is None else tuple(size) for size in args.size or [None]]
    if args.out is not None and len(sizes) > 1:
        raise UsageError("--out names one folder; give one --size with it.")
    for size in sizes:
        folder = exporting.export(
            args.run,
            args.out,
            args.format,
            args.data,
            args.threads,
            args.images,
            size,
        )
        check = exporting.read_record(folder)["check"]
        if "miou_loss" in check:
            found = f"mIoU lower by {100 * check['miou_loss']:.2f} points"
        else:
            found = f"largest difference {check['largest_difference']:.1e}"
        print(f"exported: {folder} ({check['images']} images checked, {found})")
    return 0


def summary(argv: list[str]) -> int:
    """Print the table of networks: paper, parameters, GFLOP, stride, heads.

    keras-seg summary icnet --layers
    keras-seg summary icnet --diagram icnet.svg
    keras-seg summary hourglass --diagram module.png --part module

    With a network's name and --layers, its layers in the columns of its document; with
    --diagram, its structure, drawn from the built network.
    """
    args = summary_arguments(argv)
    from keras_seg import backend
    from keras_seg.nets import summary as table

    backend.configure()
    if args.net is None:
        print((table.markdown if args.markdown else table.text)(table.rows()))
        return 0
    model = table.outline(args.net, args.size, args.classes, **args.knobs)
    if args.diagram is not None:
        from keras_seg.nets import diagram

        diagram.write(model, args.net, args.diagram, args.part)
        note(f"{args.diagram} is drawn.")
    if args.layers:
        rows = table.layer_rows(model, args.net)
        print((table.layers_markdown if args.markdown else table.layers_text)(rows))
    return 0


def summary_arguments(argv: list[str]) -> Any:
    """The arguments of `summary`, checked as far as that needs no Keras."""
    from keras_seg import nets
    from keras_seg.config import parse_setting

    parser = _parser("summary", summary)
    parser.add_argument("net", nargs="?", help="one network instead of all")
    parser.add_argument(
        "--markdown", action="store_true", help="the table as in the README"
    )
    parser.add_argument(
        "--layers", action="store_true", help="the layers, as documents list them"
    )
    parser.add_argument(
        "--diagram", type=Path, metavar="FILE", help="draw it into an .svg or .png"
    )
    parser.add_argument("--part", default="", help="draw a part of it alone")
    parser.add_argument(
        "--knob", action="append", default=[], metavar="NAME=VALUE", help="its option"
    )
    parser.add_argument("--size", type=positive_int, nargs=2, metavar=("H", "W"))
    parser.add_argument("--classes", type=positive_int, metavar="N")
    args = parser.parse_args(argv)
    if args.net is None:
        if args.layers or args.diagram or args.knob or args.part:
            raise UsageError("--layers and --diagram are of one network: name it.")
        return args
    nets.get(args.net)
    if not args.layers and args.diagram is None:
        raise UsageError(f"Of {args.net}, ask for --layers or for --diagram FILE.")
    args.knobs = dict(map(parse_setting, args.knob))
    args.size = args.size and tuple(args.size)
    return args


# What their parsers share


def _parser(verb: str, function: Callable) -> Parser:
    return Parser(prog=f"keras-seg {verb}", description=inspect.getdoc(function))


def _add_folder(parser: Parser, name: str, **options: Any) -> None:
    parser.add_argument(name, type=folder_path, **options)


def _add_threads(parser: Any) -> None:
    parser.add_argument("--threads", type=positive_int, help="default: the cores")
