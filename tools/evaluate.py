"""Score a finished run on a split: keras-seg evaluate."""

import sys

from keras_seg import command_line
from keras_seg.runs.commands import evaluate as main

if __name__ == "__main__":
    sys.exit(command_line.run(main))
