"""Segment pictures with a run or an export: keras-seg predict."""

import sys

from keras_seg import command_line
from keras_seg.runs.commands import predict as main

if __name__ == "__main__":
    sys.exit(command_line.run(main))
