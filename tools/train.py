"""Train one network on a prepared folder: keras-seg train."""

import sys

from keras_seg import command_line
from keras_seg.runs.commands import augment_of  # noqa: F401
from keras_seg.runs.commands import train as main

if __name__ == "__main__":
    sys.exit(command_line.run(main))
