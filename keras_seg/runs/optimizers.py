"""Keras' optimizers with the rules that the documents and recipes add to them.

* Weight decay as L2: `weight_decay * w` is added to the gradient of w, which is what
  ICNet's code (1e-4 * sum(w^2)/2 in the loss, convolution kernels only) and torch's
  Adam (CITY, every weight) do. adamw decays apart from the gradient: before its step
  w becomes w - lr weight_decay w (Loshchilov and Hutter 2019, as in torch).
* Batch norm switch: gradients of gamma and beta are multiplied by
  [step >= bn_start] (BODY 3.2.3: "the last 20000 with batch normalization parameter
  updating"). One optimizer state, no recompilation.
* A factor on the learning rate of the weights that a pretrained file fills.
* A moving average of the weights, which the optimizer keeps among its variables. Its
  step t = 0, 1, ... keeps min(ema, t / (t + 9)) of it, so that it forgets the random
  start (as tf.train.ExponentialMovingAverage does with num_updates). The moving
  statistics of batch norm, averages already, are not averaged again.
* On TensorFlow a step of SGD with momentum or Adam is one operation for each weight,
  where Keras' own are a dozen, which take time to trace as to run.
"""

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from keras_seg import backend, nets
from keras_seg.config import Config, OptimizerSettings
from keras_seg.errors import UsageError
from keras_seg.runs import schedules

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Optimizer:
    """An optimizer by its name.

    Attributes:
        class_name: Keras' class.
        settings: what that takes of the configuration beside the learning rate.
        decoupled: whether weights decay apart from their gradients.
    """

    class_name: str
    settings: tuple[str, ...]
    decoupled: bool = False


OPTIMIZERS: Mapping[str, Optimizer] = MappingProxyType(
    {
        "sgd": Optimizer("SGD", ("momentum",)),
        "adam": Optimizer("Adam", ("epsilon",)),
        "rmsprop": Optimizer("RMSprop", ("rho", "epsilon")),
        "adamw": Optimizer("Adam", ("epsilon",), decoupled=True),
    }
)


def learning_rate(
    config: Config,
) -> "keras.optimizers.schedules.LearningRateSchedule":
    """The learning rate as a function of the optimizer step, 0-based."""
    return schedules.build(config.optimizer, config.steps, config.extended)


def build(config: Config, variables: Sequence) -> "keras.optimizers.Optimizer":
    """The optimizer of a run, built for `variables` (a model's trainable weights).

    Its state depends on the number of steps only, so it resumes from arrays alone.
    """
    settings = config.optimizer
    chosen = OPTIMIZERS[settings.name]
    rate, every = learning_rate(config), settings.accumulate
    options: dict[str, Any] = {
        name: getattr(settings, name) for name in chosen.settings
    }
    if settings.clip_norm:
        options["global_clipnorm"] = settings.clip_norm
    if settings.ema:
        options |= {"use_ema": True, "ema_momentum": settings.ema}
    optimizer = _ruled(chosen.class_name)(
        learning_rate=rate if every == 1 else _per_update(rate, every),
        gradient_accumulation_steps=None if every == 1 else every,
        **options,
    )
    optimizer.rules = settings
    optimizer.slowed = _encoder(config, variables)
    optimizer.build(variables)
    return optimizer


def averages(optimizer: "keras.optimizers.Optimizer") -> Iterator[tuple[Any, Any]]:
    """(weight, its moving average) of all that the optimizer averages."""
    if optimizer.use_ema:
        yield from zip(
            optimizer._trainable_variables, optimizer._model_variables_moving_average
        )


def _encoder(config: Config, variables: Sequence) -> set[str]:
    """Paths of the weights with a learning rate of their own.

    UsageError where one is set, but the network has no such weights.
    """
    factor, name = config.optimizer.encoder_lr, config.net.name
    if factor == 1:
        return set()
    if not (pattern := nets.get(name).encoder):
        raise UsageError(
            f"optimizer.encoder_lr is {factor:g}, but no pretrained weights are known "
            f"for {name}: set optimizer.encoder_lr to 1."
        )
    found = {v.path for v in variables if re.match(pattern, v.path)}
    if not found:
        raise UsageError(
            f"optimizer.encoder_lr is {factor:g}, but the encoder of {name} is not "
            "trained: set optimizer.encoder_lr to 1."
        )
    return found


@functools.cache
def _ruled(class_name: str) -> Any:
    """Keras' optimizer of that name, with the rules applied in every step."""
    import keras

    ops: Any = keras.ops  # Keras tensors have no static types
    base = getattr(keras.optimizers, class_name)
    is_at_once = backend.name() == "tensorflow" and class_name in _AT_ONCE

    class Ruled(base):
        rules: OptimizerSettings
        slowed: set[str]

        def apply(self, grads, trainable_variables=None):
            variables = trainable_variables
            if variables is None:
                variables = self._trainable_variables
            grads = [
                _adjusted(grad, variable, self.iterations, self.rules)
                for grad, variable in zip(grads, variables)
            ]
            super().apply(grads, trainable_variables)

        def update_step(self, gradient, variable, learning_rate):
            # TensorFlow's variable, which has no path, or Keras'
            path = self._trainable_variables[self._get_variable_index(variable)].path
            if path in self.slowed:
                learning_rate = learning_rate * self.rules.encoder_lr
            decay = self.rules.weight_decay
            if decay and OPTIMIZERS[self.rules.name].decoupled:
                if _decays(path, self.rules):
                    rate = ops.cast(learning_rate, variable.dtype)
                    self.assign_sub(variable, variable * (rate * decay))
            if is_at_once:
                _AT_ONCE[class_name](self, gradient, variable, learning_rate)
            else:
                super().update_step(gradient, variable, learning_rate)

        def _backend_update_step(self, grads, trainable_variables, learning_rate):
            if is_at_once and class_name == "Adam":  # here, once for all weights
                step = ops.cast(self.iterations + 1, "float32")
                self.powers = tuple(b**step for b in (self.beta_1, self.beta_2))
            super()._backend_update_step(grads, trainable_variables, learning_rate)

        def _update_model_variables_moving_average(self, trainable_variables):
            steps = ops.cast(self.iterations, "float32")
            kept = ops.minimum(steps / (steps + 9), self.ema_momentum)
            if every := self.gradient_accumulation_steps:
                # Between steps, where the weights rest, so does their average
                is_step = ops.equal((self._iterations + 1) % every, 0)
                kept = ops.where(is_step, kept, 1.0)
            for weight, average in zip(
                trainable_variables, self._model_variables_moving_average
            ):
                share = ops.cast(kept, weight.dtype)
                average.assign(share * average + (1 - share) * weight)

        def finalize_variable_values(self, var_list):
            """Keras puts the averages into the weights here, after each `fit`."""

    return Ruled


def _sgd_at_once(optimizer, gradient, variable, learning_rate) -> None:
    import tensorflow as tf

    if not optimizer.momentum:
        variable.assign_sub(gradient * learning_rate)
        return
    speed = optimizer.momentums[optimizer._get_variable_index(variable)]
    tf.raw_ops.ResourceApplyKerasMomentum(
        var=variable.handle,
        accum=speed.value.handle,
        lr=learning_rate,
        grad=gradient,
        momentum=optimizer.momentum,
    )


def _adam_at_once(optimizer, gradient, variable, learning_rate) -> None:
    import tensorflow as tf

    index = optimizer._get_variable_index(variable)
    tf.raw_ops.ResourceApplyAdam(
        var=variable.handle,
        m=optimizer._momentums[index].value.handle,
        v=optimizer._velocities[index].value.handle,
        beta1_power=optimizer.powers[0],
        beta2_power=optimizer.powers[1],
        lr=learning_rate,
        beta1=optimizer.beta_1,
        beta2=optimizer.beta_2,
        epsilon=optimizer.epsilon,
        grad=gradient,
    )


# By the class of Keras: (optimizer, gradient, tf.Variable, learning rate), all float32
_AT_ONCE = {"SGD": _sgd_at_once, "Adam": _adam_at_once}


def _decays(path: str, rules: OptimizerSettings) -> bool:
    return rules.decay_on == "all" or path.rsplit("/", 1)[-1] == "kernel"


def _adjusted(grad: Any, variable: Any, iterations: Any, rules: OptimizerSettings):
    import keras

    ops: Any = keras.ops  # Keras tensors have no static types
    if grad is None:
        return None
    kind = variable.path.rsplit("/", 1)[-1]
    is_l2 = rules.weight_decay and not OPTIMIZERS[rules.name].decoupled
    if is_l2 and _decays(variable.path, rules):
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
