"""Prepare a raw dataset; verify or show a prepared folder (keras_seg.data.prepare)."""

import sys

from keras_seg import command_line
from keras_seg.data import prepare

if __name__ == "__main__":
    sys.exit(command_line.run(prepare.main))
