"""Measure how fast this machine trains and predicts: keras-seg benchmark."""

import sys

from keras_seg import command_line
from keras_seg.runs.benchmark.command import main

if __name__ == "__main__":
    sys.exit(command_line.run(main))
