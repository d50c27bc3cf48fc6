"""What the code is compared with: the definitions, as loops over NumPy arrays."""

import math

import numpy as np

IGNORE_ID = 255


def nearest(array, height, width):
    """[B, H, W] sampled at half-pixel centres: output i covers i + 0.5 of its grid."""
    batch, old_height, old_width = array.shape
    resized = np.empty((batch, height, width), array.dtype)
    for i in range(height):
        for j in range(width):
            row = math.floor((i + 0.5) * old_height / height)
            column = math.floor((j + 0.5) * old_width / width)
            resized[:, i, j] = array[:, row, column]
    return resized


def bilinear(array, height, width):
    """[B, H, W, C], half-pixel centres, edges repeated, no antialiasing."""
    batch, old_height, old_width, channels = array.shape
    resized = np.empty((batch, height, width, channels))
    for i in range(height):
        for j in range(width):
            y = min(max((i + 0.5) * old_height / height - 0.5, 0), old_height - 1)
            x = min(max((j + 0.5) * old_width / width - 0.5, 0), old_width - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, old_height - 1), min(left + 1, old_width - 1)
            upper = (1 - x + left) * array[:, top, left] + (x - left) * array[
                :, top, right
            ]
            lower = (1 - x + left) * array[:, bottom, left] + (x - left) * array[
                :, bottom, right
            ]
            resized[:, i, j] = (1 - y + top) * upper + (y - top) * lower
    return resized


def softmax(logits):
    """Of one pixel, [C]."""
    powers = [math.exp(x - max(logits)) for x in logits]
    return [power / sum(powers) for power in powers]


def pixels(label, logits):
    """(true class, logits [C]) of every valid pixel; the label resized by nearest."""
    batch, height, width, _ = logits.shape
    label = nearest(label, height, width)
    return [
        (int(label[index]), logits[index].astype(float))
        for index in np.ndindex(batch, height, width)
        if label[index] != IGNORE_ID
    ]


def cross_entropy(
    label, logits, weights=None, strategy="outer", normalise="pixels", smoothing=0.0
):
    total, count = 0.0, 0.0
    for true, x in pixels(label, logits):
        weight, every = 1.0, np.ones(len(x))
        if weights is not None and strategy == "direct":
            x = x * np.asarray(weights)
        elif weights is not None:
            weight, every = weights[true], weights
        p = softmax(x)
        total += -(1 - smoothing) * weight * math.log(p[true])
        spread = [-w * math.log(q) for w, q in zip(every, p)]
        total += smoothing * sum(spread) / len(x)
        count += weight if normalise == "weights" else 1.0
    return total / count


def focal(label, logits, gamma=2.0, alpha=0.25):
    total, count = 0.0, 0
    for true, x in pixels(label, logits):
        p = softmax(x)[true]
        total += -alpha * (1 - p) ** gamma * math.log(p)
        count += 1
    return total / count


def dice(label, logits):
    classes = logits.shape[-1]
    both, predicted, actual = (np.zeros(classes) for _ in range(3))
    for true, x in pixels(label, logits):
        p = np.array(softmax(x))
        both[true] += p[true]
        predicted += p
        actual[true] += 1
    values = [
        (2 * both[c] + 1e-6) / (predicted[c] + actual[c] + 1e-6)
        for c in range(classes)
        if actual[c] > 0
    ]
    return 1 - sum(values) / len(values)


def tversky(label, logits, false_positives, false_negatives):
    classes = logits.shape[-1]
    hits, alarms, missed = (np.zeros(classes) for _ in range(3))
    for true, x in pixels(label, logits):
        for c, p in enumerate(softmax(x)):
            hits[c] += p * (c == true)
            alarms[c] += p * (c != true)
            missed[c] += (1 - p) * (c == true)
    present = {true for true, _ in pixels(label, logits)}
    values = [
        (hits[c] + 1e-6)
        / (hits[c] + false_positives * alarms[c] + false_negatives * missed[c] + 1e-6)
        for c in present
    ]
    return 1 - sum(values) / len(values)


def jaccard_loss(is_wrong, is_class):
    """1 - IoU of a class where the pixels `is_wrong` are wrong about it."""
    intersection = sum(c and not w for w, c in zip(is_wrong, is_class))
    union = sum(c or w for w, c in zip(is_wrong, is_class))
    return 1 - intersection / union


def lovasz(label, logits):
    """The Lovasz extension as an integral: of the Jaccard loss of {errors > level}."""
    found = pixels(label, logits)
    values = []
    for c in sorted({true for true, _ in found}):
        is_class = [true == c for true, _ in found]
        errors = [abs((true == c) - softmax(x)[c]) for true, x in found]
        levels = [0.0, *sorted(errors)]
        value = 0.0
        for low, high in zip(levels, levels[1:]):
            if high > low:
                is_wrong = [error >= high for error in errors]
                value += (high - low) * jaccard_loss(is_wrong, is_class)
        values.append(value)
    return sum(values) / len(values)


def hard_pixels(label, logits, below, share):
    probable = sorted(softmax(x)[true] for true, x in pixels(label, logits))
    least = math.ceil(share * len(probable))
    chosen = [p for k, p in enumerate(probable) if k < least or p < below]
    return -sum(math.log(p) for p in chosen) / max(1, len(chosen))


def error_penalty(label, logits, l1, l2):
    total, count = 0.0, 0
    for true, x in pixels(label, logits):
        error = np.array(softmax(x)) - np.eye(len(x))[true]
        total += l1 * np.abs(error).mean() + l2 * (error**2).mean()
        count += 1
    return total / count


def joint_heatmaps(target, heatmaps, kind):
    total, count = 0.0, 0
    for index in np.ndindex(*target.shape):
        y, x = float(target[index]), float(heatmaps[index])
        if y < 0:
            continue
        p = 1 / (1 + math.exp(-x))
        cross = -y * math.log(p) - (1 - y) * math.log(1 - p)
        total += cross if kind == "sigmoid" else (x - y) ** 2
        count += 1
    return total / count


def gradient(function, x, step=1e-5):
    """Central differences of a scalar function at the float64 array x."""
    slope = np.empty_like(x)
    for index in np.ndindex(*x.shape):
        above, below = x.copy(), x.copy()
        above[index] += step
        below[index] -= step
        slope[index] = (function(above) - function(below)) / (2 * step)
    return slope


def confusion(label, prediction, classes):
    counts = [[0] * classes for _ in range(classes)]
    for true, predicted in zip(label.ravel(), prediction.ravel()):
        if true != IGNORE_ID:
            counts[true][predicted] += 1
    return np.array(counts)
