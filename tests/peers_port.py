"""A Keras network's weights in a PyTorch twin, by name, and the comparison of both.

A twin is a torch module with a ModuleDict `layers` whose keys are the names of the
Keras layers that have weights; its `forward` returns {head: [B, C, h, w]}.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class Twin(nn.Module):
    """Layers by name, as the Keras network names them.

    Attributes:
        NORM: batch norm's momentum, as Keras means it, and epsilon.
    """

    NORM = (0.9, 1e-5)

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleDict()

    def __getitem__(self, name):
        return self.layers[name]

    def conv(self, name, inputs, outputs, kernel_size, bias=False, **options):
        self.layers[name] = nn.Conv2d(
            inputs, outputs, kernel_size, bias=bias, **options
        )

    def deconv(self, name, inputs, outputs, kernel_size, bias=False, **options):
        self.layers[name] = nn.ConvTranspose2d(
            inputs, outputs, kernel_size, bias=bias, **options
        )

    def norm(self, name, channels):
        """Keras' momentum is the share of the old statistics; torch's of the new."""
        momentum, epsilon = self.NORM
        self.layers[name] = nn.BatchNorm2d(channels, epsilon, 1 - momentum)

    def conv_norm(self, name, inputs, outputs, kernel_size, **options):
        self.conv(name, inputs, outputs, kernel_size, **options)
        self.norm(f"{name}_bn", outputs)

    def run_same(self, name, x, stride=1, dilation=1):
        """Convolution with TensorFlow's SAME zeros, then batch norm."""
        weight = self[name].weight
        if weight.shape[2] == 3 and stride == 2:
            # An even size: one row and column of zeros, bottom and right
            x = F.conv2d(F.pad(x, (0, 1, 0, 1)), weight, stride=2)
        else:
            padding = dilation * (weight.shape[2] // 2)
            x = F.conv2d(x, weight, None, stride, padding, dilation)
        return self[f"{name}_bn"](x)


def randomise(model, seed=0):
    """Weights that leave no layer at zero or one: biases, gamma, beta, statistics."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        name = weight.path.split("/")[-1]
        if name == "kernel":
            continue
        if name in ("gamma", "moving_variance"):
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        else:
            weight.assign(rng.normal(0, 0.1, weight.shape))


TORCH_NAMES = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def port(model, twin):
    """Copies every weight of the Keras model; neither side may have more."""
    free = {**dict(twin.named_parameters()), **dict(twin.named_buffers())}
    for weight in model.weights:
        layer, name = weight.path.rsplit("/", 1)
        value = torch.tensor(np.asarray(weight))
        if name == "kernel":
            # [k, k, in, out], transposed convolutions [k, k, out, in], dense [in, out]
            value = value.permute(3, 2, 0, 1) if value.ndim == 4 else value.T
        target = free.pop(f"layers.{layer}.{TORCH_NAMES[name]}")
        assert target.shape == value.shape, weight.path
        with torch.no_grad():
            target.copy_(value)
    assert not [name for name in free if not name.endswith("num_batches_tracked")]


def check_agreement(model, twin, image, heads, tolerance):
    """Equal outputs, in inference and in training mode of batch norm.

    The twin computes in float64, so that the only rounding is the model's own.

    Args:
        image: float32 [B, H, W, C].
        heads: names of the outputs to compare.
        tolerance: largest difference, as a share of the largest absolute output.
    """
    twin.double()
    randomise(model)
    port(model, twin)
    channels_first = torch.tensor(image.transpose(0, 3, 1, 2)).double()
    for training in (False, True):
        twin.train(training)
        with torch.no_grad():
            expected = twin(channels_first)
        outputs = model(image, training=training)
        assert set(outputs) == set(expected)
        for head in heads:
            tensor = expected[head].numpy().transpose(0, 2, 3, 1)
            np.testing.assert_allclose(
                outputs[head],
                tensor,
                rtol=0,
                atol=tolerance * np.abs(tensor).max(),
                err_msg=f"{head}, training={training}",
            )
