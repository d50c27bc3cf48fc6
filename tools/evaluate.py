"""Score a finished run on a split.

python tools/evaluate.py runs/icnet_camvid --split val [--full-size]

Writes RUN/evaluation/<split>.json and prints the scores.
"""

import sys
from pathlib import Path

from keras_seg import command_line, run_folder, training


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
    parser.add_argument("--threads", type=command_line.positive_int)
    args = parser.parse_args(argv)
    data = args.data or Path(run_folder.read_environment(args.run)["data"])
    result = training.evaluate(args.run, data, args.split, args.threads, args.full_size)
    for name, iou in zip(result["classes"], result["per_class"]["iou"]):
        print(f"{name:20s} IoU {'absent' if iou is None else f'{iou:.4f}'}")
    summary = result["summary"]
    print(
        f"{args.split}: mIoU {summary['miou']:.4f}, "
        f"accuracy {summary['pixel_accuracy']:.4f}, {result['images']} images"
    )
    return 0


if __name__ == "__main__":
    sys.exit(command_line.run(main))
