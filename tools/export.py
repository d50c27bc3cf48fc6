"""Export a run's best weights as a model: keras-seg export."""

import sys

from keras_seg import command_line
from keras_seg.runs.commands import export as main

if __name__ == "__main__":
    sys.exit(command_line.run(main))
