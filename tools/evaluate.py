"""Score a finished run on a split.

python tools/evaluate.py runs/icnet_camvid --split val [--full-size]
python tools/evaluate.py runs/icnet_surreal --split test --report groups13

Writes RUN/evaluation/<split>.json and prints the scores: the IoU of each class, or the
mean class accuracy of the thesis' 13 groups of body parts (BODY tables 2 and 5).
"""

import math
import sys
from pathlib import Path

import numpy as np

from keras_seg import backend, command_line
from keras_seg.data.surreal import GROUPS, LABELS
from keras_seg.errors import UsageError
from keras_seg.runs import folder as run_folder
from keras_seg.runs import train as training


def main(argv: list[str]) -> int:
    parser = command_line.Parser(prog="evaluate.py", description=__doc__)
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("--split", default="val", help="default: val")
    parser.add_argument(
        "--data", type=Path, help="prepared folder; default: the run's own"
    )
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
    parser.add_argument("--threads", type=command_line.positive_int)
    args = parser.parse_args(argv)
    if args.report == "groups13":
        refuse_other_classes(run_folder.load_best(args.run)[1]["data"]["classes"])
    data = args.data or Path(run_folder.read_environment(args.run)["data"])
    result = training.evaluate(args.run, data, args.split, args.threads, args.full_size)
    if args.report == "groups13":
        print_groups(result)
    else:
        for name, iou in zip(result["classes"], result["per_class"]["iou"]):
            print(f"{name:20s} IoU {'absent' if iou is None else f'{iou:.4f}'}")
    summary = result["summary"]
    print(
        f"{args.split}: mIoU {summary['miou']:.4f}, "
        f"accuracy {summary['pixel_accuracy']:.4f}, {result['images']} images"
    )
    return 0


def refuse_other_classes(classes: list[str]) -> None:
    """UsageError unless the classes are SURREAL's 25, of which the groups are made."""
    if classes != list(LABELS.names):
        expected = f"classes, or a run with SURREAL's {LABELS.num_classes} classes"
        raise UsageError("--report", "groups13", expected)


def print_groups(result: dict) -> None:
    """Each group's mean class accuracy, then the mean of the 25 classes, in percent."""
    backend.configure()
    from keras_seg import metrics  # imports Keras

    accuracy = metrics.grouped_accuracy(np.array(result["confusion"]), GROUPS)
    accuracy["All Classes"] = result["summary"]["mean_accuracy"]
    for name, value in accuracy.items():
        missing = value is None or math.isnan(value)
        print(f"{name:20s} accuracy {'absent' if missing else f'{100 * value:.2f} %'}")


if __name__ == "__main__":
    sys.exit(command_line.run(main))
