"""Print the table of networks: paper, parameters, GFLOP, stride, heads.

python tools/summary.py [--markdown]    the table, as keras-seg summary
python tools/summary.py NET --layers    a network's layers
python tools/summary.py NET --diagram FILE.svg [--part PART]
                                        its structure, drawn
python tools/summary.py --costs         the content of ablations/costs.csv: the work
                                        of every arm of the studies
"""

import csv
import io
import sys

from keras_seg import backend, command_line, study
from keras_seg.ablation import estimate, runner
from keras_seg.nets import summary
from keras_seg.runs import commands


def main(argv: list[str]) -> int:
    if "--costs" not in argv:
        return commands.summary(argv)
    backend.configure()
    print(costs())
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
