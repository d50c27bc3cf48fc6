"""What a PyTorch twin of a network is made of, and its comparison with the network."""

import numpy as np
import torch
from torch.nn import functional as F


class Twin:
    """A network in torch's own operations, in float64, on a Keras model's weights.

    Weights are looked up by the name of their Keras layer. A subclass writes
    `forward`: image [B, C, H, W] to {head: [B, C, h, w]}.

    Attributes:
        EPSILON: batch norm's.
        training: whether batch norm uses the statistics of the batch.
        unused: paths of the weights that no operation has used yet.
    """

    EPSILON = 1e-5

    def __init__(self, model):
        self.weights = {
            weight.path: torch.tensor(np.asarray(weight)).double()
            for weight in model.weights
        }
        self.unused = set(self.weights)
        self.training = False

    def has(self, name):
        return f"{name}/kernel" in self.weights

    def weight(self, name, parameter):
        """None where the layer has no such weight."""
        self.unused.discard(f"{name}/{parameter}")
        return self.weights.get(f"{name}/{parameter}")

    def conv(self, name, x, **options):
        kernel = self.weight(name, "kernel").permute(3, 2, 0, 1)  # [k, k, in, out]
        return F.conv2d(x, kernel, self.weight(name, "bias"), **options)

    def conv_same(self, name, x, stride=1, dilation=1):
        """Convolution with TensorFlow's SAME zeros."""
        size = self.weight(name, "kernel").shape[0]
        if size == 3 and stride == 2:
            # An even size: one row and column of zeros, bottom and right
            return self.conv(name, F.pad(x, (0, 1, 0, 1)), stride=2)
        padding = dilation * (size // 2)
        return self.conv(name, x, stride=stride, dilation=dilation, padding=padding)

    def deconv(self, name, x, **options):
        kernel = self.weight(name, "kernel").permute(3, 2, 0, 1)  # [k, k, out, in]
        return F.conv_transpose2d(x, kernel, self.weight(name, "bias"), **options)

    def dense(self, name, x):
        return F.linear(x, self.weight(name, "kernel").T, self.weight(name, "bias"))

    def norm(self, name, x):
        names = ("moving_mean", "moving_variance", "gamma", "beta")
        weights = [self.weight(name, parameter) for parameter in names]
        return F.batch_norm(x, *weights, self.training, momentum=0, eps=self.EPSILON)


def randomise(model, seed=0):
    """Weights that leave no layer at zero or one: biases, gamma, beta, statistics."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        name = weight.path.split("/")[-1]
        if name in ("gamma", "moving_variance"):
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        elif name != "kernel":
            weight.assign(rng.normal(0, 0.1, weight.shape))


def check_agreement(model, twin, image, heads, tolerance):
    """Equal outputs, in inference and in training mode of batch norm.

    The twin computes in float64, so that the only rounding is the model's own.

    Args:
        twin: subclass of Twin; it must use every weight of the model.
        image: float32 [B, H, W, C].
        heads: names of the outputs to compare.
        tolerance: largest difference, as a share of the largest absolute output.
    """
    randomise(model)
    twin = twin(model)
    channels_first = torch.tensor(image.transpose(0, 3, 1, 2)).double()
    for training in (False, True):
        twin.training = training
        expected = twin.forward(channels_first)
        outputs = model(image, training=training)
        assert set(outputs) == set(expected)
        assert not twin.unused
        for head in heads:
            tensor = expected[head].numpy().transpose(0, 2, 3, 1)
            atol, case = tolerance * np.abs(tensor).max(), f"{head}, {training=}"
            np.testing.assert_allclose(outputs[head], tensor, 0, atol, err_msg=case)
