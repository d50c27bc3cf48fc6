"""Faster, or reproducible, replacements of the backends' own operations."""

import functools
import importlib
from typing import Any

from keras_seg.backend import convolution


def add_in_order() -> None:
    """Add three or more tensors in a fixed order, which op determinism does not.

    TensorFlow's AddN sums into the first input whose buffer no other op needs any
    more, so the order of its sum depends on which op happened to finish first: on a
    busy machine a gradient differs, rarely, in its last digit. The tape adds
    gradients with it, and the graph optimizer turns chains of additions into it. Both
    are told not to; it costs 1-2 % of a step.
    """
    import tensorflow as tf

    # By name: TensorFlow does not declare what it keeps to itself.
    backprop: Any = importlib.import_module("tensorflow.python.eager.backprop")
    pywrap_tfe: Any = importlib.import_module("tensorflow.python.pywrap_tfe")

    def add(gradients):
        plain = all(tf.is_tensor(g) and g.dtype != tf.variant for g in gradients)
        if not plain:  # sparse ones, lists of tensors
            return backprop._aggregate_grads(gradients)
        return functools.reduce(tf.add, gradients)

    space = backprop._default_vspace._replace(aggregate_fn=add)
    pywrap_tfe.TFE_Py_RegisterVSpace(space)
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})


def normalise_in_one() -> None:
    """Let batch norm in training be one operation of TensorFlow, and its gradient one.

    Keras' own reads and writes the image a dozen times. In predictions in bfloat16 with
    constant weights it goes to float32 and back, which keeps TensorFlow from joining it
    to the convolution before it: there it is a factor and a bias. On a GPU Keras' way
    is kept.
    """
    import keras
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        return
    layer: Any = keras.layers.BatchNormalization
    native = getattr(layer.call, "native", layer.call)

    def call(self, inputs, training=None, mask=None):
        is_plain = self.scale and self.center and len(inputs.shape) == 4
        is_plain = is_plain and self.axis in (-1, 3) and mask is None
        if self.renorm or self.synchronized or self.compute_dtype == "float64":
            is_plain = False
        if not training and is_plain and convolution.are_weights_constant():
            if self.compute_dtype == "bfloat16":
                return _scaled(self, tf.convert_to_tensor(inputs))
        if not (training and self.trainable and is_plain):
            return native(self, inputs, training=training, mask=mask)
        x = tf.convert_to_tensor(inputs)
        if x.dtype != tf.bfloat16:  # its statistics are float32 anyway
            x = tf.cast(x, "float32")
        found = tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=self.gamma.value,
            offset=self.beta.value,
            mean=[],
            variance=[],
            epsilon=self.epsilon,
            is_training=True,
        )
        # The operation's variance is that of the sample, over n - 1
        count = tf.cast(x.shape.num_elements() or tf.size(x), "float32") / x.shape[-1]
        share = 1.0 - self.momentum
        for moving, value in (
            (self.moving_mean, share * found.batch_mean),
            (self.moving_variance, share * (count - 1) / count * found.batch_variance),
        ):
            moving.assign(tf.multiply(moving.value, self.momentum) + value)
        return tf.cast(found.y, self.compute_dtype)

    vars(call)["native"] = native
    layer.call = call


def _scaled(batch_norm: Any, x: Any) -> Any:
    """The output of a layer with its moving statistics, bfloat16."""
    import tensorflow as tf

    mean, variance, gamma, beta = (
        tf.convert_to_tensor(one.value)
        for one in (
            batch_norm.moving_mean,
            batch_norm.moving_variance,
            batch_norm.gamma,
            batch_norm.beta,
        )
    )
    factor = tf.cast(gamma * tf.math.rsqrt(variance + batch_norm.epsilon), x.dtype)
    bias = beta - mean * tf.cast(factor, mean.dtype)  # of the rounded factor
    return tf.nn.bias_add(x * factor, tf.cast(bias, x.dtype))


def pool_without_scatter() -> None:
    """Give JAX's max pooling a gradient that XLA computes without a scatter.

    XLA's own adds each value to the place of its maximum. On a GPU the order of atomic
    additions is another each time, and the deterministic kind sorts all of them first.
    Here each place of the window is a strided slice, whose gradient is a padding.
    """
    jax = importlib.import_module("jax")
    nn: Any = importlib.import_module("keras.src.backend.jax.nn")
    native = getattr(nn.max_pool, "native", nn.max_pool)

    def max_pool(inputs, pool_size, strides=None, padding="valid", data_format=None):
        if inputs.ndim != 4 or data_format not in (None, "channels_last"):
            return native(inputs, pool_size, strides, padding, data_format)
        window = (pool_size, pool_size) if isinstance(pool_size, int) else pool_size
        steps = window if strides is None else strides
        steps = (steps, steps) if isinstance(steps, int) else steps
        options = (window, steps, padding, data_format)

        def first_maximum(x, maximum):
            sides = jax.lax.padtype_to_pads(
                x.shape[1:3], window, steps, padding.upper()
            )
            lowest = jax.numpy.array(-jax.numpy.inf, x.dtype)
            x = jax.lax.pad(
                x, lowest, [(0, 0, 0), *((*s, 0) for s in sides), (0, 0, 0)]
            )
            rows, columns = maximum.shape[1:3]
            places = [
                x[:, i : i + (rows - 1) * steps[0] + 1 : steps[0]][
                    :, :, j : j + (columns - 1) * steps[1] + 1 : steps[1]
                ]
                for i in range(window[0])
                for j in range(window[1])
            ]
            found = places.pop()
            for place in reversed(places):
                found = jax.numpy.where(place == maximum, place, found)
            return found

        @jax.custom_vjp
        def pool(x):
            return native(x, *options)

        def forward(x):
            maximum = native(x, *options)
            return maximum, (x, maximum)

        def backward(kept, gradient):
            x, maximum = kept
            return jax.vjp(lambda x: first_maximum(x, maximum), x)[1](gradient)

        pool.defvjp(forward, backward)
        return pool(inputs)

    vars(max_pool)["native"] = native
    nn.max_pool = max_pool
