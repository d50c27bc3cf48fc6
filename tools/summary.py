"""Print the table of networks: paper, parameters, GFLOP, stride, heads.

python tools/summary.py [--markdown | --costs]

keras_seg/nets/summary.py says what the columns are.
"""

import csv
import io
import logging
import sys

from keras_seg import backend, command_line, study
from keras_seg.ablation import estimate, runner
from keras_seg.nets import summary


def main(argv: list[str]) -> int:
    parser = command_line.Parser(prog="summary.py", description=__doc__)
    parser.add_argument(
        "--markdown", action="store_true", help="the table as in the README"
    )
    parser.add_argument(
        "--costs",
        action="store_true",
        help="the content of ablations/costs.csv: the work of every arm of the studies",
    )
    args = parser.parse_args(argv)
    backend.configure()
    logging.disable(logging.WARNING)  # of random weights: there are none here
    if args.costs:
        print(costs())
    else:
        table = summary.markdown if args.markdown else summary.text
        print(table(summary.rows()))
    return 0


def costs() -> str:
    """CSV: GFLOP per million pixels of every network of the studies' arms."""
    configs = runner.planned_configs(map(study.load, study.names()))
    found = {estimate.cost_key(config): config.net for config in configs}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["net", "filter_scale", "knobs", "gflop"])
    for key in sorted(found):
        gflop = summary.gflop_per_megapixel(key[0], key[1], found[key].knobs)
        writer.writerow([*key, f"{gflop:.4g}"])
    return text.getvalue().rstrip("\n")


if __name__ == "__main__":
    sys.exit(command_line.run(main))
