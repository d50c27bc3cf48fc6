"""Images to load and to score where none were prepared."""

import os
from pathlib import Path

import numpy as np

from keras_seg.data.writer import NewSample, Options, write_prepared
from keras_seg.labels import LabelSpec


def patches(out: Path, size: tuple[int, int], count: int, num_classes: int) -> Path:
    """A prepared folder of coloured patches with noise, a quarter of them in val."""
    rng = np.random.default_rng(0)
    names = tuple(f"class{k}" for k in range(num_classes))
    colours = rng.integers(0, 220, (num_classes, 3)).tolist()
    labels = LabelSpec(names, tuple(map(tuple, colours)))
    samples = []
    for number in range(count):
        coarse = rng.integers(0, num_classes, (size[0] // 32, size[1] // 32))
        label = np.kron(coarse, np.ones((32, 32))).astype(np.uint8)
        image = labels.colourise(label) + rng.integers(0, 30, (*size, 3), np.uint8)
        split = "val" if number % 4 == 3 else "train"
        samples.append(NewSample(split, f"s{number:04d}", image, label))
    options = Options(workers=os.cpu_count() or 1)
    return write_prepared(out, "patches", labels, samples, lambda s: [s], options, {})[
        0
    ].folder
