"""Learning rate schedules: functions of the optimizer's iterations and nothing else.

All but the warm-up are Keras' own classes, so that a saved optimizer loads anywhere.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from keras_seg.config import OptimizerSettings

if TYPE_CHECKING:
    from keras.optimizers.schedules import LearningRateSchedule


def build(
    settings: OptimizerSettings, steps: int, extended: Sequence[int] = ()
) -> "LearningRateSchedule":
    """The learning rate as a function of the step s, 0..steps.

    constant        lr
    poly            lr (1 - s / steps)^poly_power
    cosine          lr_min + (lr - lr_min) (1 + cos(pi s / steps)) / 2
    step            lr decay_rate^floor(s / decay_every)
    exponential     the same: BODY's code (0.96 every 2000 steps, a staircase)

    Beyond `steps`, poly and cosine stay at their last value. A warm-up multiplies all
    of them by (s + 1) / w in its first w = ceil(warmup * steps) steps: a linear rise.
    A run that was extended follows the schedule of its old length up to there and of
    the new one afterwards (`extended`).

    `steps`, `decay_every` and s are optimizer steps. Keras passes the schedule of an
    optimizer with `gradient_accumulation_steps=n` batches instead, n per step:
    `keras_seg.runs.optimizers` divides them.

    Args:
        settings: `schedule` is a key of `SCHEDULES`.
        steps: length of the run in optimizer steps, >= 1.
        extended: its lengths before it was extended, ascending, below `steps`.
    """
    pieces = [_piece(settings, length) for length in (*extended, steps)]
    return _joined(pieces, extended) if extended else pieces[0]


def _piece(settings: OptimizerSettings, steps: int) -> "LearningRateSchedule":
    schedule = SCHEDULES[settings.schedule](settings, steps)
    rising = math.ceil(settings.warmup * steps)
    return _warmed(schedule, rising) if rising else schedule


def _warmed(schedule: "LearningRateSchedule", rising: int) -> "LearningRateSchedule":
    """The schedule with a linear rise over its first `rising` steps."""
    import keras
    from keras import ops

    class Warmed(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            rate: Any = schedule(step)
            done: Any = ops.cast(step, rate.dtype)
            return rate * ops.minimum((done + 1) / rising, 1.0)

        def get_config(self):
            return {"schedule": schedule, "rising": rising}

    return Warmed()


def _joined(pieces: Sequence, ends: Sequence[int]) -> "LearningRateSchedule":
    """The first piece up to the first end, and so on; the last one beyond them."""
    import keras

    ops: Any = keras.ops  # Keras tensors have no static types

    class Joined(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            rate = pieces[-1](step)
            for piece, end in reversed(list(zip(pieces, ends))):
                rate = ops.where(step < end, piece(step), rate)
            return rate

        def get_config(self):
            return {"pieces": pieces, "ends": ends}

    return Joined()


def _constant(settings: OptimizerSettings, steps: int):
    from keras.optimizers import schedules

    return schedules.ExponentialDecay(settings.lr, steps, decay_rate=1.0)


def _poly(settings: OptimizerSettings, steps: int):
    from keras.optimizers import schedules

    return schedules.PolynomialDecay(
        settings.lr, steps, end_learning_rate=0.0, power=settings.poly_power
    )


def _cosine(settings: OptimizerSettings, steps: int):
    from keras.optimizers import schedules

    return schedules.CosineDecay(
        settings.lr, steps, alpha=settings.lr_min / settings.lr
    )


def _staircase(settings: OptimizerSettings, steps: int):
    from keras.optimizers import schedules

    return schedules.ExponentialDecay(
        settings.lr, settings.decay_every, settings.decay_rate, staircase=True
    )


SCHEDULES: Mapping[str, Callable[[OptimizerSettings, int], "LearningRateSchedule"]] = (
    MappingProxyType(
        {
            "constant": _constant,
            "poly": _poly,
            "cosine": _cosine,
            "step": _staircase,
            "exponential": _staircase,
        }
    )
)
