"""How long an arm takes on this machine, roughly, without building its network.

The work of a network is known per pixel (a table that `tools/summary.py --costs`
writes); the machine's speed is that of one matrix product.
"""

import csv
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from keras_seg.config import Config

# Of the speed of a matrix product, as measured in training on two cores: 0.45
# (ICNet, many small convolutions) to 0.95 (SegNet-basic, few large ones).
EFFICIENCY = 0.6
BACKWARD = 2.0  # a step's work beside the forward pass, in forward passes
ARM_SECONDS = 20.0  # to start, compile and write
MATRIX = 1536  # rows and columns

Cost = tuple[str, int, str]  # net, filter_scale, knobs in JSON


def cost_key(config: Config) -> Cost:
    """What the work per pixel depends on."""
    return (
        config.net.name,
        config.net.filter_scale,
        json.dumps(config.net.knobs, sort_keys=True),
    )


def read_costs(path: Path) -> dict[Cost, float]:
    """GFLOP of a forward pass per million pixels; {} without the file (an install)."""
    if not path.is_file():
        return {}
    with open(path, newline="") as file:
        return {
            (row["net"], int(row["filter_scale"]), row["knobs"]): float(row["gflop"])
            for row in csv.DictReader(file)
        }


def machine_speed() -> float:
    """GFLOP/s of a float32 matrix product, with all cores, here and now."""
    matrix = np.ones((MATRIX, MATRIX), np.float32)
    best = math.inf
    for _ in range(3):
        began = time.perf_counter()
        np.matmul(matrix, matrix)
        best = min(best, time.perf_counter() - began)
    return 2 * MATRIX**3 / best / 1e9


def seconds(
    config: Config, val_images: int, costs: Mapping[Cost, float], speed: float
) -> float:
    """The time of one run; NaN where the table does not know the network.

    Args:
        config: of the run.
        val_images: in the validation split.
        costs: as `read_costs` gives them.
        speed: as `machine_speed` gives it.
    """
    whole, crop = math.prod(config.data.size), config.data.crop
    gflop = costs.get(cost_key(config), math.nan) * whole / 1e6
    share = 1.0 if crop is None else math.prod(crop) / whole  # of an image, in a step
    trained = share * config.steps * config.optimizer.accumulate * config.data.batch
    validations = math.ceil(config.steps / config.validation.every)
    # At every validation, and once more when the best weights are scored.
    scored = validations * min(val_images, config.validation.samples or val_images)
    passes = (1 + BACKWARD) * trained + scored + val_images
    return ARM_SECONDS + gflop * passes / (EFFICIENCY * speed)
