"""PyTorch twins of networks, written from the papers with torch's own operations.

The tests compare networks with them, to the rounding; a benchmark trains them.
"""

from typing import Any

import numpy as np
import torch
from torch.nn import functional

F: Any = functional  # its types know neither None nor plain integers in some places


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

    def weight(self, name, parameter) -> Any:
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


def relu_sum(*tensors):
    return F.relu(sum(tensors))


def resize(x, factor):
    return F.interpolate(x, scale_factor=factor, mode="bilinear")


class ICNet(Twin):
    """Half resolution input, strided reductions, summed pyramid, two fusions."""

    STAGES = ((2, 3, 1), (3, 4, 1), (4, 6, 2), (5, 3, 4))  # number, repeats, dilation

    def run(self, name, x, **options):
        return self.norm(f"{name}_bn", self.conv_same(name, x, **options))

    def bottleneck(self, name, x, is_projected, stride, dilation):
        shortcut = self.run(f"{name}_1x1_proj", x, stride=stride) if is_projected else x
        x = F.relu(self.run(f"{name}_1x1_reduce", x, stride=stride))
        x = F.relu(self.run(f"{name}_3x3", x, dilation=dilation))
        return relu_sum(shortcut, self.run(f"{name}_1x1_increase", x))

    def forward(self, image):
        x = conv3_1 = resize(image, 0.5)
        x = F.relu(self.run("conv1_1_3x3_s2", x, stride=2))
        x = F.relu(self.run("conv1_2_3x3", x))
        x = F.relu(self.run("conv1_3_3x3", x))
        x = F.max_pool2d(x, 3, 2, padding=1)
        for stage, repeats, dilation in self.STAGES:
            for i in range(1, repeats + 1):
                name = f"conv{stage}_{i}"
                stride = 2 if name == "conv3_1" else 1
                x = self.bottleneck(name, x, i == 1, stride, dilation)
                if name == "conv3_1":
                    conv3_1 = x
                    x = resize(x, 0.5)
        levels = [F.adaptive_avg_pool2d(x, bins) for bins in (1, 2, 3, 6)]
        size = x.shape[2:]
        x = x + sum(F.interpolate(level, size, mode="bilinear") for level in levels)
        sub4 = resize(F.relu(self.run("conv5_4_k1", x)), 2)
        low = self.run("conv_sub4", sub4, dilation=2)
        sub24 = resize(relu_sum(low, self.run("conv3_1_sub2_proj", conv3_1)), 2)
        x = image
        for i in (1, 2, 3):
            x = F.relu(self.run(f"conv{i}_sub1", x, stride=2))
        low = self.run("conv_sub2", sub24, dilation=2)
        sub12 = resize(relu_sum(low, self.run("conv3_sub1_proj", x)), 2)
        return {
            "logits": self.conv("conv6_cls", sub12),
            "sub24_logits": self.conv("sub24_out", sub24),
            "sub4_logits": self.conv("sub4_out", sub4),
        }


class SegNetBasic(Twin):
    """Response normalisation, four stages down, torch's own unpooling back up."""

    EPSILON = 1e-3

    def run(self, name, x):
        return self.norm(f"{name}_bn", self.conv(name, x, padding=3))

    def forward(self, x):
        x = F.local_response_norm(x, 5, alpha=1e-4, beta=0.75, k=1.0)
        pooled = []
        for i in (1, 2, 3, 4):
            x = F.relu(self.run(f"enc{i}_conv", x))
            size = x.shape[2:]
            x, where = F.max_pool2d(x, 2, 2, ceil_mode=True, return_indices=True)
            pooled.append((size, where))
        for i in (4, 3, 2, 1):
            size, where = pooled[i - 1]
            x = F.max_unpool2d(x, where, 2, 2, output_size=size)
            x = self.run(f"dec{i}_conv", x)
        return {"logits": self.conv("classifier", x)}


class Hourglass(Twin):
    """Pre-activation residual units, nested hourglasses, predictions fed back."""

    STACKS, DEPTH = 2, 3

    def residual(self, name, x):
        skip = self.conv(f"{name}_skip", x) if self.has(f"{name}_skip") else x
        for i, padding in ((1, 0), (2, 1), (3, 0)):
            x = F.relu(self.norm(f"{name}_conv{i}_bn", x))
            x = self.conv(f"{name}_conv{i}", x, padding=padding)
        return x + skip

    def hourglass(self, x, stack, level):
        name = f"stack{stack}_level{level}"
        up = self.residual(f"{name}_up", x)
        low = self.residual(f"{name}_low1", F.max_pool2d(x, 2))
        if level > 1:
            low = self.hourglass(low, stack, level - 1)
        else:
            low = self.residual(f"{name}_low2", low)
        low = self.residual(f"{name}_low3", low)
        return up + F.interpolate(low, scale_factor=2, mode="nearest")

    def forward(self, x):
        x = F.relu(self.norm("stem_bn", self.conv("stem_conv", x, padding=3)))
        for i in (1, 2, 3):
            x = self.residual(f"stem_res{i}", x)
        outputs = {}
        for s in range(self.STACKS):
            y = self.residual(f"stack{s}_res", self.hourglass(x, s, self.DEPTH))
            lin = F.relu(self.norm(f"stack{s}_lin_bn", self.conv(f"stack{s}_lin", y)))
            is_last = s == self.STACKS - 1
            head = "logits" if is_last else f"stack{s}_logits"
            outputs[head] = out = self.conv(head, lin)
            if not is_last:
                back = self.conv(f"stack{s}_lin_back", lin)
                x = x + back + self.conv(f"stack{s}_out_back", out)
        return outputs


class UNet(Twin):
    """Batch norm after every convolution and transposed convolution (CLOTH)."""

    EPSILON = 1e-3

    def block(self, name, x):
        for conv in (f"{name}_conv1", f"{name}_conv2"):
            x = F.relu(self.norm(f"{conv}_bn", self.conv(conv, x, padding=1)))
        return x

    def forward(self, x):
        skips = []
        for i in (1, 2, 3, 4):
            skips.append(self.block(f"enc{i}", x))
            # SAME of an even size: one row and column more, bottom and right
            x = F.max_pool2d(F.pad(skips[-1], (0, 1, 0, 1), value=-torch.inf), 3, 2)
        x = self.block("bottleneck", x)
        for i in (4, 3, 2, 1):
            x = self.deconv(f"dec{i}_up", x, stride=2)
            x = F.relu(self.norm(f"dec{i}_up_bn", x))
            x = self.block(f"dec{i}", torch.cat([skips.pop(), x], dim=1))
        return {"logits": self.conv("classifier", x)}
