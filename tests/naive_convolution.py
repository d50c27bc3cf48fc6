"""Convolutions with PyTorch's geometry, as loops over what each pixel reads or writes.

Images are [B, H, W, C]; kernels as in Keras: [k, k, in, out], and [k, k, out, in] of
transposed convolutions.
"""

import numpy as np


def conv(image, kernel, bias, stride, padding, dilation=1):
    batch, height, width, _ = image.shape
    size = kernel.shape[0]
    sides = [
        (side + 2 * padding - dilation * (size - 1) - 1) // stride + 1
        for side in (height, width)
    ]
    result = np.zeros((batch, *sides, kernel.shape[3])) + bias
    for i, j in np.ndindex(*sides):
        for u, v in np.ndindex(size, size):
            row = i * stride - padding + u * dilation
            column = j * stride - padding + v * dilation
            if 0 <= row < height and 0 <= column < width:
                result[:, i, j] += image[:, row, column] @ kernel[u, v]
    return result


def deconv(image, kernel, bias, stride, padding, output_padding=0, dilation=1):
    batch, height, width, _ = image.shape
    size = kernel.shape[0]
    sides = [
        (side - 1) * stride - 2 * padding + dilation * (size - 1) + output_padding + 1
        for side in (height, width)
    ]
    result = np.zeros((batch, *sides, kernel.shape[2])) + bias
    for i, j in np.ndindex(height, width):
        for u, v in np.ndindex(size, size):
            row = i * stride - padding + u * dilation
            column = j * stride - padding + v * dilation
            if 0 <= row < sides[0] and 0 <= column < sides[1]:
                result[:, row, column] += image[:, i, j] @ kernel[u, v].T
    return result
