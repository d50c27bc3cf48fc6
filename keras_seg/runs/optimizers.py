"""Keras' optimizers with the two rules that the documents add to the gradient.

* Weight decay as L2: `weight_decay * w` is added to the gradient of w, which is what
  ICNet's code (1e-4 * sum(w^2)/2 in the loss, convolution kernels only) and torch's
  Adam (CITY, every weight) do. Keras' own `weight_decay` is the decoupled one.
* Batch norm switch: gradients of gamma and beta are multiplied by
  [step >= bn_start] (BODY 3.2.3: "the last 20000 with batch normalization parameter
  updating"). One optimizer state, no recompilation.
"""

import functools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from keras_seg.config import Config, OptimizerSettings
from keras_seg.runs import schedules

if TYPE_CHECKING:
    import keras

# Keras' class of each optimizer, and the settings it takes beside the learning rate
OPTIMIZERS: Mapping[str, tuple[str, tuple[str, ...]]] = MappingProxyType(
    {
        "sgd": ("SGD", ("momentum",)),
        "adam": ("Adam", ("epsilon",)),
        "rmsprop": ("RMSprop", ("rho", "epsilon")),
    }
)


def learning_rate(
    config: Config,
) -> "keras.optimizers.schedules.LearningRateSchedule":
    """The learning rate as a function of the optimizer step, 0-based."""
    return schedules.build(config.optimizer, config.steps)


def build(config: Config, variables: Sequence) -> "keras.optimizers.Optimizer":
    """The optimizer of a run, built for `variables` (a model's trainable weights).

    Its state depends on the number of steps only, so it resumes from arrays alone.
    """
    settings = config.optimizer
    class_name, names = OPTIMIZERS[settings.name]
    rate, every = learning_rate(config), settings.accumulate
    optimizer = _ruled(class_name)(
        learning_rate=rate if every == 1 else _per_update(rate, every),
        gradient_accumulation_steps=None if every == 1 else every,
        **{name: getattr(settings, name) for name in names},
    )
    optimizer.rules = settings
    optimizer.build(variables)
    return optimizer


@functools.cache
def _ruled(class_name: str) -> Any:
    """Keras' optimizer of that name, with the rules applied before every step."""
    import keras

    base = getattr(keras.optimizers, class_name)

    class Ruled(base):
        rules: OptimizerSettings

        def apply(self, grads, trainable_variables=None):
            variables = trainable_variables
            if variables is None:
                variables = self._trainable_variables
            grads = [
                _adjusted(grad, variable, self.iterations, self.rules)
                for grad, variable in zip(grads, variables)
            ]
            super().apply(grads, trainable_variables)

    return Ruled


def _adjusted(grad: Any, variable: Any, iterations: Any, rules: OptimizerSettings):
    import keras

    ops: Any = keras.ops  # Keras tensors have no static types
    if grad is None:
        return None
    kind = variable.path.rsplit("/", 1)[-1]
    if rules.weight_decay and (rules.decay_on == "all" or kind == "kernel"):
        grad = grad + rules.weight_decay * ops.cast(variable, grad.dtype)
    if rules.bn_start and kind in ("gamma", "beta"):
        # `iterations` counts steps; the schedule is given batches (`_per_update`).
        grad = grad * ops.cast(iterations >= rules.bn_start, grad.dtype)
    return grad


def _per_update(schedule, every: int):
    """A schedule of optimizer steps where Keras counts accumulated batches."""
    import keras
    from keras import ops

    class PerUpdate(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            return schedule(ops.floor_divide(ops.cast(step, "int32"), every))

        def get_config(self):
            return {"schedule": schedule, "every": every}

    return PerUpdate()
