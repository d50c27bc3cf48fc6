"""Convolutions on TensorFlow in the way that is fastest on this processor.

oneDNN's gradients take up to twenty times as long as its convolution, and none of it
saves multiplications (docs/explanation/speed.md).
"""

import functools
import importlib
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from keras_seg.backend import winograd

_is_for_here = ContextVar("_is_for_here", default=False)
_are_constant = ContextVar("_are_constant", default=False)


@contextmanager
def for_this_processor(constant_weights: bool = False) -> Iterator[None]:
    """Trace predictions in the way that is fastest here.

    Exports, and what else a user traces, keep TensorFlow's operations.

    Args:
        constant_weights: the weights are constants. Batch norm in bfloat16 then becomes
            a part of the convolution before it (`operations.normalise_in_one`).
    """
    before = _is_for_here.set(True), _are_constant.set(constant_weights)
    try:
        yield
    finally:
        for variable, token in zip((_is_for_here, _are_constant), before):
            variable.reset(token)


def are_weights_constant() -> bool:
    """Whether `for_this_processor` said so."""
    return _are_constant.get()


def replace(processor: str) -> None:
    """Give Keras' convolutions on TensorFlow faster ways where there is one.

    * Dilated ones are one operation. Keras' way cuts the image into blocks and computes
      taps that see only zeros, too: nine instead of one where the dilation is as large
      as the image. oneDNN knows dilation, and such taps are left out of the kernel.
    * On a processor with AVX2 large kernels take fewer products, in training and
      `for_this_processor`, and so do most gradients by a kernel; in float32.
    * In training there, the gradient by a 3x3 kernel of a small image is a product for
      each tap, and a kernel of 1x1 is a product, within the bounds below.

    Args:
        processor: as `backend.processor` names it.
    """
    import tensorflow as tf

    nn: Any = importlib.import_module("keras.src.backend.tensorflow.nn")
    calls: Any = importlib.import_module("keras.src.backend.common.global_state")
    native = getattr(nn.conv, "native", nn.conv)
    on_avx2 = "avx2" in processor and not tf.config.list_physical_devices("GPU")
    on_avx512 = on_avx2 and "avx512" in processor

    def conv(
        inputs, kernel, strides=1, padding="valid", data_format=None, dilation_rate=1
    ):
        rates, steps = (
            (one, one) if isinstance(one, int) else tuple(one)
            for one in (dilation_rate, strides)
        )
        is_plain = len(kernel.shape) == 4 and inputs.shape[-1] == kernel.shape[2]
        is_plain = is_plain and padding == "same" and data_format != "channels_first"
        if not is_plain or set(steps) != {1}:
            return native(inputs, kernel, strides, padding, data_format, dilation_rate)
        call = calls.get_global_attribute("current_call_ctx")
        training = getattr(call, "training", False)
        if on_avx2 and training and None not in inputs.shape:
            kernel = tf.convert_to_tensor(kernel)
            if _is_product(inputs, kernel, on_avx512):
                return _multiply(inputs, kernel)
            by_taps = _has_taps_multiplied(inputs, kernel, rates, on_avx512)
            if by_taps or _is_supported(inputs, kernel, rates):
                return _convolve_for_training(inputs, kernel, rates, by_taps)
        if max(rates) > 1:
            return _dilated(inputs, kernel, rates)
        if on_avx2 and not training and _is_for_here.get():
            kernel = tf.convert_to_tensor(kernel)
            if _is_supported(inputs, kernel, rates):
                return _convolve(inputs, kernel)
        return native(inputs, kernel, strides, padding, data_format, dilation_rate)

    vars(conv)["native"] = native
    nn.conv = conv


# Where the ways below were faster, on one thread. Fewer products, with AVX2:
_LARGE, _SMALL = 64 * 64, 16 * 16  # pixels: at least; at most, with
_MANY_CHANNELS = 256
_FEW_PIXELS = 256  # of a batch
_FEWEST_PAIRS = 32 * 64  # of channels, of the image and of the result
_MOST_BYTES = 512 * 2**20  # for what is computed on the way
# A product for each tap: (most pixels of an image, fewest pairs of channels)
_BY_TAPS_BFLOAT16 = (_SMALL, 64 * 64), (32 * 32, 256 * 512)
_BY_TAPS_AVX512 = (_SMALL, 128 * 128), (32 * 32, 256 * 512)  # float32, dilated
_BY_TAPS_AVX2 = ((64 * 64, 32 * 32),)  # float32, dilated, without AVX-512
# A kernel of 1x1 as a product: pixels of a batch in bfloat16; pairs in float32 without
# AVX-512
_MOST_PIXELS, _MOST_PAIRS = 2**14, 128 * 128


def _is_product(image, kernel, on_avx512: bool) -> bool:
    """Whether a kernel of 1x1 is faster as a product, and so are its gradients."""
    if tuple(kernel.shape[:2]) != (1, 1) or image.dtype != kernel.dtype:
        return False
    count, rows, columns, channels = image.shape
    if image.dtype == "bfloat16":
        return count * rows * columns <= _MOST_PIXELS
    is_narrow = channels * kernel.shape[3] <= _MOST_PAIRS
    return image.dtype == "float32" and (on_avx512 or is_narrow)


def _multiply(image, kernel):
    """The convolution with a kernel of 1x1: every pixel times one matrix."""
    import tensorflow as tf

    channels, filters = kernel.shape[2:]
    pixels = tf.reshape(image, [-1, channels])
    result = tf.matmul(pixels, tf.reshape(kernel, [channels, filters]))
    return tf.reshape(result, [*image.shape[:3], filters])


def _dilated(image, kernel, rates):
    import tensorflow as tf

    kernel = _without_taps_of_zeros(image, kernel, rates)
    return tf.nn.conv2d(image, kernel, 1, "SAME", dilations=rates)


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


def _convolve_for_training(image, kernel, rates, by_taps: bool):
    """A convolution with padding "same" that is faster in training.

    Args:
        by_taps: whether the gradient by the kernel is `_gradient_by_taps`.
    """
    import tensorflow as tf

    is_single = max(rates) == 1 and image.dtype == "float32"

    @tf.custom_gradient
    def convolve(image, kernel):
        def gradients(upstream):
            if is_single:
                by_image = _image_gradient(upstream, kernel)
            else:
                by_image = tf.raw_ops.Conv2DBackpropInput(
                    input_sizes=image.shape,
                    filter=_without_taps_of_zeros(image, kernel, rates),
                    out_backprop=upstream,
                    strides=[1, 1, 1, 1],
                    padding="SAME",
                    dilations=[1, *rates, 1],
                )
            size = kernel.shape[0]
            if by_taps:
                return by_image, _gradient_by_taps(image, upstream, size, rates)
            return by_image, _kernel_gradient(image, upstream, size)

        if is_single:
            return _convolve(image, kernel), gradients
        return _dilated(image, kernel, rates), gradients

    return convolve(image, kernel)


def _has_taps_multiplied(image, kernel, rates, on_avx512: bool) -> bool:
    """Whether `_gradient_by_taps` is the fastest gradient by this kernel."""
    count, rows, columns, channels = image.shape
    pairs = channels * kernel.shape[3]
    if tuple(kernel.shape[:2]) != (3, 3) or image.dtype != kernel.dtype:
        return False
    if image.dtype == "bfloat16":
        bounds, bytes_of_number = _BY_TAPS_BFLOAT16, 2
    elif image.dtype != "float32":
        return False
    elif max(rates) == 1:  # for larger ones fewer products are faster
        return count * rows * columns <= _FEW_PIXELS and channels >= _MANY_CHANNELS
    else:
        bounds = _BY_TAPS_AVX512 if on_avx512 else _BY_TAPS_AVX2
        bytes_of_number = 4
    pixels = rows * columns
    numbers = 9 * count * pixels * (channels + kernel.shape[3])  # of all parts at once
    is_within = any(pixels <= most and pairs >= least for most, least in bounds)
    return is_within and numbers * bytes_of_number <= _MOST_BYTES


def _gradient_by_taps(image, upstream, size, rates):
    """The gradient by the kernel: for each tap one product, of the pixels it sees.

    Args:
        image, upstream: [N, H, W, C] and [N, H, W, K]; `upstream` is the gradient by
            the convolution's result.
        size: of the kernel, odd.
        rates: of dilation, along rows and columns.

    Returns:
        [size, size, C, K] of the image's dtype.
    """
    import tensorflow as tf

    count, rows, columns, channels = image.shape
    filters = upstream.shape[3]
    edges = [rate * (size // 2) for rate in rates]
    places = list(
        itertools.product(
            *(range(-edge, edge + 1, rate) for edge, rate in zip(edges, rates))
        )
    )
    # Fewer operations to trace: most of these are needed several times
    constant = functools.cache(lambda *numbers: tf.constant(numbers))

    def part(tensor, down, right, *sides):
        begin, shape = constant(0, down, right, 0), constant(count, *sides, -1)
        return tf.raw_ops.Slice(input=tensor, begin=begin, size=shape)

    def pixels(tensor):
        return tf.raw_ops.Reshape(tensor=tensor, shape=constant(-1, tensor.shape[3]))

    def product(seen, above):
        return tf.raw_ops.MatMul(a=pixels(seen), b=pixels(above), transpose_a=True)

    if count * rows * columns < filters:
        # One product with copies of the image: they are smaller than the gradient
        padded = tf.pad(image, [[0, 0], *([edge, edge] for edge in edges), [0, 0]])
        copies = [
            part(padded, edges[0] + down, edges[1] + right, rows, columns)
            for down, right in places
        ]
        gradient = product(tf.concat(copies, 3), upstream)
        return tf.reshape(gradient, [size, size, channels, filters])
    with tf.control_dependencies([upstream]):
        image = tf.identity(image)  # its parts take memory in the backward pass only
    taps = []
    for down, right in places:
        sides = rows - abs(down), columns - abs(right)
        if min(sides) > 0:
            seen = part(image, max(0, down), max(0, right), *sides)
            above = part(upstream, max(0, -down), max(0, -right), *sides)
            taps.append(product(seen, above))
        else:
            taps.append(tf.zeros([channels, filters], image.dtype))
    return tf.reshape(tf.stack(taps), [size, size, channels, filters])


def _is_supported(image, kernel, rates) -> bool:
    """Whether the ways below take these tensors."""
    is_single = all(one.dtype == "float32" for one in (image, kernel))
    rows, columns, channels, _ = kernel.shape
    is_odd = rows == columns and rows % 2 == 1 and 1 < rows <= winograd.LARGEST
    is_known = is_single and max(rates) == 1 and None not in image.shape[1:]
    return is_known and is_odd and channels >= 32


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


def _kernel_gradient(image, upstream, size):
    """The gradient by the kernel; `upstream` is that by the convolution's result."""
    import tensorflow as tf

    count, rows, columns, channels = image.shape
    filters = upstream.shape[3]
    pairs = channels * filters
    fits = 4 * size * (size + winograd.RESULTS - 1) * pairs <= _MOST_BYTES
    is_wide = columns >= winograd.RESULTS - 1
    is_wide = is_wide and count * rows * columns > _FEW_PIXELS
    if pairs < _FEWEST_PAIRS or not (fits and is_wide):
        return tf.raw_ops.Conv2DBackpropFilter(
            input=image,
            filter_sizes=[size, size, channels, filters],
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
