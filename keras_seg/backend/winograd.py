"""Convolutions and their gradients with fewer multiplications.

Winograd's minimal filtering: Lavin and Gray, "Fast Algorithms for Convolutional Neural
Networks", CVPR 2016. Of a row, four results with a kernel of r columns take r + 3
products instead of 4 r; the price is additions, and some of float32's last digits. Here
in one dimension only: the rows of the kernel stay what they are.

A tile is the r + 3 pixels of a row that four neighbouring results see. With one matrix
for each of the three (`transforms`), the results are

    of_results @ ((of_kernel @ kernel) * (of_image @ tile))

for every pair of channels, and what is multiplied there is summed over the channels.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # `import keras_seg` imports no NumPy
    import numpy as np

RESULTS = 4  # of a tile
# Small numbers, of either sign and with their reciprocals, round least
POINTS = (0, 1, -1, 1 / 2, -2, -1 / 2, 2, 4 / 3, -3 / 4)
LARGEST = len(POINTS) + 2 - RESULTS  # kernel: 7 columns


@functools.cache
def transforms(columns: int) -> "tuple[np.ndarray, np.ndarray, np.ndarray]":
    """The matrices of a kernel with so many columns, at most `LARGEST`.

    Returns:
        of_results [4, columns + 3], of_kernel [columns + 3, columns], of_image
        [columns + 3, columns + 3], float32.
    """
    import numpy as np

    points = np.array(POINTS[: RESULTS + columns - 2])
    others = [np.delete(points, k) for k in range(len(points))]
    # Polynomials at the points, and their last coefficient, the value at infinity
    of_results = np.vander(points, RESULTS, increasing=True)
    of_results = np.vstack([of_results, np.eye(RESULTS)[-1]])
    of_kernel = np.vander(points, columns, increasing=True)
    distances = [np.prod(point - rest) for point, rest in zip(points, others)]
    of_kernel = of_kernel / np.array(distances)[:, None]
    of_kernel = np.vstack([of_kernel, np.eye(columns)[-1]])
    # Coefficients of the polynomials that are 0 at the other points, and at all
    of_image = [[*np.poly(rest)[::-1], 0] for rest in others]
    of_image = np.vstack([of_image, np.poly(points)[::-1]])
    of_results, of_kernel, of_image = (
        matrix.astype("float32") for matrix in (of_results.T, of_kernel, of_image)
    )
    return of_results, of_kernel, of_image


def convolve(image: Any, kernel: Any) -> Any:
    """The convolution with padding "same": [N, H, W, C] and [r, r, C, K], r odd.

    N may be unknown.

    Returns:
        float32 [N, H, W, K].
    """
    import tensorflow as tf

    rows, columns = image.shape[1:3]
    size, _, _, filters = kernel.shape
    of_results, of_kernel, of_image = transforms(size)
    edge = size // 2
    image = tf.pad(image, [[0, 0], [edge, edge], [0, 0], [0, 0]])
    pixels = _pixels_of_tiles(image, size)
    by_column = tf.transpose(kernel, [1, 0, 2, 3])
    multiplied = []
    for of_one, each in zip(of_image, tf.unstack(_tensordot(of_kernel, by_column))):
        seen = _weighted_sum(of_one, pixels)  # [N, H + r - 1, tiles, C]
        multiplied.append(tf.nn.conv2d(seen, each[:, None], 1, "VALID"))
    results = tf.stack([_weighted_sum(one, multiplied) for one in of_results], 3)
    results = tf.reshape(results, [-1, rows, _tiles(columns) * RESULTS, filters])
    return results[:, :, :columns]


def kernel_gradient(image: Any, upstream: Any, size: int) -> Any:
    """The gradient by the kernel; `upstream` is that by the convolution's result.

    Args:
        image, upstream: float32 [N, H, W, C] and [N, H, W, K].
        size: of the kernel, odd, at most `LARGEST`.

    Returns:
        float32 [size, size, C, K].
    """
    import tensorflow as tf

    count, rows, columns, channels = image.shape
    filters, edge = upstream.shape[3], size // 2
    of_results, of_kernel, of_image = transforms(size)
    # Rows outermost: what a row of the kernel sees is then a slice without a copy
    image = tf.pad(tf.transpose(image, [1, 0, 2, 3]), [[edge, edge], *[[0, 0]] * 3])
    pixels = _pixels_of_tiles(image, size)
    upstream = tf.transpose(upstream, [1, 0, 2, 3])
    upstream = tf.pad(upstream, [[0, 0], [0, 0], [0, -columns % RESULTS], [0, 0]])
    upstream = tf.reshape(upstream, [rows, -1, RESULTS, filters])
    results = tf.unstack(upstream, axis=2)  # [H, N * tiles, K] each
    gradients = []
    for of_pixels, of_one in zip(of_image, of_results.T):
        seen = _weighted_sum(of_pixels, pixels)  # [H + r - 1, N, tiles, C]
        above = tf.reshape(_weighted_sum(of_one, results), [-1, filters])
        above = tf.transpose(above)
        by_rows = [
            tf.matmul(above, tf.reshape(seen[top : top + rows], [-1, channels]))
            for top in range(size)
        ]
        gradients.append(tf.stack(by_rows))  # [r, K, C]
    by_column = _tensordot(of_kernel.T, tf.stack(gradients))
    return tf.transpose(by_column, [1, 0, 3, 2])


def _pixels_of_tiles(image, size: int) -> list:
    """The first, second, ... pixel of every tile: size + 3 of [.., .., tiles, C].

    The results of a tile are those at its pixels from size // 2 on.
    """
    import tensorflow as tf

    inner, columns, channels = image.shape[1:]
    tiles, edge = _tiles(columns), size // 2
    groups = tiles + -(-(size - 1) // RESULTS)  # of as many pixels as there are results
    padding = [edge, groups * RESULTS - columns - edge]
    image = tf.pad(image, [[0, 0], [0, 0], padding, [0, 0]])
    image = tf.reshape(image, [-1, inner, groups, RESULTS, channels])
    places = [divmod(k, RESULTS) for k in range(RESULTS + size - 1)]
    return [image[:, :, group : group + tiles, k] for group, k in places]


def _tiles(columns: int) -> int:
    return -(-columns // RESULTS)


def _weighted_sum(weights: Iterable[float], tensors: Sequence):
    """In order, without what has no weight."""
    terms = [
        tensor if weight == 1 else tensor * weight
        for weight, tensor in zip(weights, tensors, strict=True)
        if weight
    ]
    return functools.reduce(lambda total, term: total + term, terms)


def _tensordot(matrix: "np.ndarray", tensor):
    """The matrix times the first dimension."""
    import tensorflow as tf

    rest = tensor.shape[1:]
    product = tf.matmul(matrix, tf.reshape(tensor, [len(matrix.T), -1]))
    return tf.reshape(product, [len(matrix), *rest])
