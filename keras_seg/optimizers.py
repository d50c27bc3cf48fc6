"""SGD, Adam and RMSprop with the two rules the documents add to the gradient.

* Weight decay as L2: `weight_decay * w` is added to the gradient of w, which is what
  ICNet's code (1e-4 * sum(w^2)/2 in the loss, convolution kernels only) and torch's
  Adam (CITY, every weight) do. Keras' own `weight_decay` is the decoupled one.
* Batch norm switch: gradients of gamma and beta are multiplied by
  [step >= bn_start] (BODY 3.2.3: "the last 20000 with batch normalization parameter
  updating"). One optimizer state, no recompilation.
"""

from collections.abc import Sequence

import keras
from keras import ops

from keras_seg import schedules
from keras_seg.config import Config


class _Rules:
    """Mixin before a Keras optimizer; `set_rules` once, before `build`."""

    def set_rules(self, weight_decay: float, decay_on: str, bn_start: int) -> None:
        self._l2, self._decay_on, self._bn_start = weight_decay, decay_on, bn_start

    def apply(self, grads, trainable_variables=None):
        variables = trainable_variables
        if variables is None:
            variables = self._trainable_variables
        # `iterations` counts steps; the schedule is given batches (see _PerUpdate).
        trained = ops.cast(self.iterations >= self._bn_start, "float32")
        grads = [self._adjust(g, v, trained) for g, v in zip(grads, variables)]
        super().apply(grads, trainable_variables)

    def _adjust(self, grad, variable, affine_is_trained):
        if grad is None:
            return None
        kind = variable.path.rsplit("/", 1)[-1]
        if self._l2 and (self._decay_on == "all" or kind == "kernel"):
            grad = grad + self._l2 * ops.cast(variable, grad.dtype)
        if self._bn_start and kind in ("gamma", "beta"):
            grad = grad * ops.cast(affine_is_trained, grad.dtype)
        return grad


class RuledSGD(_Rules, keras.optimizers.SGD):
    pass


class RuledAdam(_Rules, keras.optimizers.Adam):
    pass


class RuledRMSprop(_Rules, keras.optimizers.RMSprop):
    pass


class _PerUpdate(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule of optimizer steps where Keras counts accumulated batches."""

    def __init__(self, schedule, every: int):
        self.schedule, self.every = schedule, every

    def __call__(self, batch):
        return self.schedule(ops.floor_divide(ops.cast(batch, "int32"), self.every))

    def get_config(self):
        return {"schedule": self.schedule, "every": self.every}


def learning_rate(config: Config) -> keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate as a function of the optimizer step, 0-based."""
    return schedules.build(
        config.schedule,
        config.lr,
        config.steps,
        power=config.poly_power,
        lr_min=config.lr_min,
        decay_every=config.decay_every,
        decay_rate=config.decay_rate,
    )


def build(config: Config, variables: Sequence) -> keras.optimizers.Optimizer:
    """The optimizer of a run, built for `variables` (a model's trainable weights).

    Its state depends on the number of steps only, so it resumes from arrays alone.
    """
    every = config.accumulate
    rate = learning_rate(config)
    common = {
        "learning_rate": rate if every == 1 else _PerUpdate(rate, every),
        "gradient_accumulation_steps": None if every == 1 else every,
    }
    if config.optimizer == "sgd":
        optimizer = RuledSGD(momentum=config.momentum, **common)
    elif config.optimizer == "adam":
        optimizer = RuledAdam(epsilon=config.epsilon, **common)
    else:
        optimizer = RuledRMSprop(rho=config.rho, epsilon=config.epsilon, **common)
    optimizer.set_rules(config.weight_decay, config.decay_on, config.bn_start)
    optimizer.build(variables)
    return optimizer
