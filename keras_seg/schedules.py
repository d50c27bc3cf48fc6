"""Learning rate schedules: functions of the optimizer's iterations and nothing else.

All are Keras' own classes, so that a saved model or optimizer loads anywhere.
"""

from keras.optimizers import schedules

from keras_seg.errors import UsageError


def build(
    kind: str,
    lr: float,
    steps: int,
    *,
    power: float = 0.9,
    lr_min: float = 0.0,
    decay_every: int = 2000,
    decay_rate: float = 0.1,
) -> schedules.LearningRateSchedule:
    """The learning rate as a function of the step s, 0..steps.

    constant        lr
    poly            lr (1 - s / steps)^power
    cosine          lr_min + (lr - lr_min) (1 + cos(pi s / steps)) / 2
    step            lr decay_rate^floor(s / decay_every)
    exponential     the same: BODY's code (0.96 every 2000 steps, a staircase)

    Beyond `steps`, poly and cosine stay at their last value.

    `steps`, `decay_every` and s are optimizer steps. Keras gives the schedule of an
    optimizer with `gradient_accumulation_steps=n` batches instead, n to a step:
    `keras_seg.optimizers` divides them; in a script of your own give `steps` and
    `decay_every` n times as large.

    Args:
        kind: one of the names above.
        lr: learning rate at step 0, > 0.
        steps: length of the run in optimizer steps, >= 1.
        power: exponent of poly, > 0.
        lr_min: floor of cosine, 0..lr.
        decay_every: optimizer steps between drops of step and exponential, >= 1.
        decay_rate: factor of a drop, > 0.

    Raises:
        UsageError: an unknown kind, or a number outside its range.
    """
    positive = {"lr": lr, "power": power, "decay_rate": decay_rate}
    for name, value in positive.items():
        if not 0 < value < float("inf"):
            raise UsageError(name, value, "a finite number above 0")
    for name, value in {"steps": steps, "decay_every": decay_every}.items():
        if value < 1:
            raise UsageError(name, value, "at least 1")
    if not 0 <= lr_min <= lr:
        raise UsageError("lr_min", lr_min, f"0 to the learning rate, {lr}")

    if kind == "constant":
        return schedules.ExponentialDecay(lr, steps, decay_rate=1.0)
    if kind == "poly":
        return schedules.PolynomialDecay(lr, steps, end_learning_rate=0.0, power=power)
    if kind == "cosine":
        return schedules.CosineDecay(lr, steps, alpha=lr_min / lr)
    if kind in ("step", "exponential"):
        return schedules.ExponentialDecay(lr, decay_every, decay_rate, staircase=True)
    raise UsageError("schedule", kind, "constant, poly, step, cosine or exponential")
