"""Export a run's best weights as a TensorFlow SavedModel, checked as it is written.

python tools/export.py runs/icnet_camvid

The model takes uint8 RGB images of the run's size and gives class ids and
probabilities; no other code is needed to load it. See the README, "Export".
"""

import sys
from pathlib import Path

from keras_seg import command_line
from keras_seg.runs import export


def main(argv: list[str]) -> int:
    parser = command_line.Parser(prog="export.py", description=__doc__)
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument(
        "--format",
        choices=export.FORMATS,
        default=export.FORMATS[0],
        help="default: saved_model, the only one so far",
    )
    parser.add_argument(
        "--out", type=Path, help="the model's folder; default: RUN/export/FORMAT"
    )
    parser.add_argument(
        "--data", type=Path, help="the run's prepared folder, if it was moved"
    )
    parser.add_argument(
        "--images",
        type=command_line.positive_int,
        default=export.IMAGES,
        help=f"validation images of the check; default: {export.IMAGES}",
    )
    parser.add_argument("--threads", type=command_line.positive_int)
    args = parser.parse_args(argv)
    folder = export.export(
        args.run, args.out, args.format, args.data, args.threads, args.images
    )
    check = export.read_record(folder)["check"]
    print(
        f"exported: {folder} ({check['images']} images checked, "
        f"largest difference {check['largest_difference']:.1e})"
    )
    return 0


if __name__ == "__main__":
    sys.exit(command_line.run(main))
