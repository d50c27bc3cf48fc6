"""Faster, or reproducible, replacements of the backends' own operations."""

import functools
import importlib
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from keras_seg.backend import winograd


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


_is_for_here = ContextVar("_is_for_here", default=False)


@contextmanager
def for_this_processor() -> Iterator[None]:
    """Trace predictions in the way that is fastest here.

    Exports, and what else a user traces, keep TensorFlow's operations.
    """
    before = _is_for_here.set(True)
    try:
        yield
    finally:
        _is_for_here.reset(before)


def replace_convolution(processor: str) -> None:
    """Give Keras' convolutions on TensorFlow faster ways where there is one.

    * Dilated ones are one operation. Keras' way cuts the image into blocks and computes
      taps that see only zeros, too: nine instead of one where the dilation is as large
      as the image. oneDNN knows dilation, and such taps are left out of the kernel.
    * On a processor with AVX2 large kernels take fewer products, in training and
      `for_this_processor`, and so do most gradients by a kernel; in float32.

    Args:
        processor: as `backend.processor` names it.
    """
    import tensorflow as tf

    nn: Any = importlib.import_module("keras.src.backend.tensorflow.nn")
    calls: Any = importlib.import_module("keras.src.backend.common.global_state")
    native = getattr(nn.conv, "native", nn.conv)
    on_avx2 = "avx2" in processor and not tf.config.list_physical_devices("GPU")

    def conv(
        inputs, kernel, strides=1, padding="valid", data_format=None, dilation_rate=1
    ):
        rates, steps = (
            (one, one) if isinstance(one, int) else tuple(one)
            for one in (dilation_rate, strides)
        )
        is_plain = len(kernel.shape) == 4 and inputs.shape[-1] == kernel.shape[2]
        is_plain = is_plain and padding == "same" and data_format != "channels_first"
        if is_plain and set(steps) == {1}:
            if max(rates) > 1:
                kernel = _without_taps_of_zeros(inputs, kernel, rates)
                return tf.nn.conv2d(inputs, kernel, steps, "SAME", dilations=rates)
            if on_avx2 and _is_supported(inputs, kernel):
                kernel = tf.convert_to_tensor(kernel)
                call = calls.get_global_attribute("current_call_ctx")
                if getattr(call, "training", False):
                    if inputs.shape[0] is not None:
                        return _convolve_for_training(inputs, kernel)
                elif _is_for_here.get():
                    return _convolve(inputs, kernel)
        return native(inputs, kernel, strides, padding, data_format, dilation_rate)

    vars(conv)["native"] = native
    nn.conv = conv


def _without_taps_of_zeros(image, kernel, rates):
    """The taps of a dilated kernel that see more of the image than its padding."""
    taps = []
    for rate, size, length in zip(rates, kernel.shape, image.shape[1:]):
        middle, odd = divmod(size, 2)
        reach = middle if length is None else (length - 1) // rate
        is_whole = not odd or reach >= middle
        first = 0 if is_whole else middle - reach
        taps.append(slice(first, size - first))
    return kernel[tuple(taps)] if any(one.start for one in taps) else kernel


def _convolve_for_training(image, kernel):
    """A convolution with padding "same" that is faster in training on AVX2.

    oneDNN's gradients take up to five times as long as its convolution, and none of it
    saves multiplications (docs/explanation/speed.md).
    """
    import tensorflow as tf

    @tf.custom_gradient
    def convolve(image, kernel):
        def gradients(upstream):
            by_image = _image_gradient(upstream, kernel)
            return by_image, _kernel_gradient(image, upstream, kernel)

        return _convolve(image, kernel), gradients

    return convolve(image, kernel)


def _is_supported(image, kernel) -> bool:
    """Whether the ways below take these tensors."""
    is_single = all(one.dtype == "float32" for one in (image, kernel))
    rows, columns, channels, _ = kernel.shape
    is_odd = rows == columns and rows % 2 == 1 and 1 < rows <= winograd.LARGEST
    return is_single and is_odd and None not in image.shape[1:] and channels >= 32


def _convolve(image, kernel):
    """The convolution with padding "same", in the faster way."""
    import tensorflow as tf

    count, rows, columns, channels = image.shape
    size, _, _, filters = kernel.shape
    bytes_of_one = _bytes_of_copies(rows * columns, channels + filters)
    fits = rows * columns >= _LARGE and bytes_of_one <= _MOST_BYTES
    if size == 3 or not fits or count == 1:  # of one alone: see `beside_a_copy`
        return tf.nn.conv2d(image, kernel, 1, "SAME")
    at_once = max(2, int(_MOST_BYTES // bytes_of_one))
    if count is None or count < 2 * at_once:
        return winograd.convolve(image, kernel)
    results: list[Any] = []
    for part in _parts(count, count // at_once):
        with tf.control_dependencies(results[-1:]):
            results.append(winograd.convolve(image[part], kernel))
    return tf.concat(results, 0)


def _bytes_of_copies(pixels: int, channels: int) -> int:
    """What an image and its result take, transposed, cut into tiles and summed."""
    return 4 * 4 * pixels * channels


def _parts(count: int, number: int) -> Iterator[slice]:
    """A batch in parts, one after the other, so that one's copies are in memory."""
    bounds = [count * part // number for part in range(number + 1)]
    yield from (slice(*pair) for pair in itertools.pairwise(bounds))


# Where the ways below were faster: AVX2, one thread, kernels of 3x3 and 7x7
_LARGE, _SMALL = 64 * 64, 16 * 16  # pixels: at least; at most, with
_MANY_CHANNELS = 256
_FEW_PIXELS = 256  # of a batch
_FEWEST_PAIRS = 32 * 64  # of channels, of the image and of the result
_MOST_BYTES = 512 * 2**20  # for what is computed on the way


def _image_gradient(upstream, kernel):
    """The gradient by the image [N, H, W, C] of a convolution with `kernel`."""
    import tensorflow as tf

    count, rows, columns, filters = upstream.shape
    size, _, channels, _ = kernel.shape
    # The convolution with the flipped kernel
    if rows * columns >= _LARGE and count > 1:
        return _convolve(upstream, tf.transpose(kernel[::-1, ::-1], [0, 1, 3, 2]))
    # What every tap gives each pixel, one product; then each is moved to its place
    bytes_of_taps = 2 * 4 * count * rows * columns * size**2 * channels
    is_small = rows * columns <= _SMALL and bytes_of_taps <= _MOST_BYTES
    if is_small and channels >= _MANY_CHANNELS:
        upstream = tf.reshape(upstream, [-1, filters])
        taps = tf.matmul(upstream, tf.reshape(kernel, [-1, filters]), transpose_b=True)
        taps = tf.reshape(taps, [count, rows, columns, size, size, channels])
        last, edge = size - 1, size // 2
        moved = [
            tf.pad(
                taps[:, :, :, top, left],
                [[0, 0], [top, last - top], [left, last - left], [0, 0]],
            )
            for top in range(size)
            for left in range(size)
        ]
        total = functools.reduce(tf.add, moved)
        return total[:, edge : edge + rows, edge : edge + columns]
    return tf.raw_ops.Conv2DBackpropInput(
        input_sizes=[count, rows, columns, channels],
        filter=kernel,
        out_backprop=upstream,
        strides=[1, 1, 1, 1],
        padding="SAME",
    )


def _kernel_gradient(image, upstream, kernel):
    """The gradient by the kernel; `upstream` is that by the convolution's result."""
    import tensorflow as tf

    count, rows, columns, channels = image.shape
    size, _, _, filters = kernel.shape
    pairs = channels * filters
    pixels = count * rows * columns
    if pixels <= _FEW_PIXELS and channels >= _MANY_CHANNELS and size == 3:
        # One product with copies of the image, one for each tap
        padded = tf.pad(image, [[0, 0], [1, 1], [1, 1], [0, 0]])
        seen = [
            padded[:, top : top + rows, left : left + columns]
            for top in range(size)
            for left in range(size)
        ]
        copies = tf.reshape(tf.concat(seen, 3), [pixels, -1])
        upstream = tf.reshape(upstream, [pixels, filters])
        return tf.reshape(tf.matmul(copies, upstream, transpose_a=True), kernel.shape)
    fits = 4 * size * (size + winograd.RESULTS - 1) * pairs <= _MOST_BYTES
    is_wide = columns >= winograd.RESULTS - 1 and pixels > _FEW_PIXELS
    if pairs < _FEWEST_PAIRS or not (fits and is_wide):
        return tf.raw_ops.Conv2DBackpropFilter(
            input=image,
            filter_sizes=kernel.shape,
            out_backprop=upstream,
            strides=[1, 1, 1, 1],
            padding="SAME",
        )
    at_once = _MOST_BYTES // _bytes_of_copies(rows * columns, channels + filters)
    number = -(-count // max(1, at_once))
    total: Any = None
    for part in _parts(count, number):
        with tf.control_dependencies([] if total is None else [total]):
            each = winograd.kernel_gradient(image[part], upstream[part], size)
        total = each if total is None else total + each
    return total


def normalise_in_one() -> None:
    """Let batch norm in training be one operation of TensorFlow, and its gradient one.

    Keras' own reads and writes the image a dozen times. On a GPU its way is kept.
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
