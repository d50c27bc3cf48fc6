"""Run a stage of a study: train its arms, choose a winner, write the report.

python ablations/run.py --net icnet --stage weighting
python ablations/run.py --net icnet --stage all --data datasets/prepared/camvid

The same command resumes an interrupted one and skips what is done.
"""

import sys

from keras_seg import command_line, study


def main(argv: list[str]) -> int:
    return study.main(argv)


if __name__ == "__main__":
    sys.exit(command_line.run(main))
