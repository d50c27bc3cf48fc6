"""PyTorch twins of networks, written from the papers with torch's own operations."""

import torch
from peers_port import Twin
from torch import nn
from torch.nn import functional as F


def relu_sum(*tensors):
    return F.relu(sum(tensors))


class ICNet(Twin):
    """Half resolution input, strided reductions, summed pyramid, two fusions."""

    NORM = (0.95, 1e-5)

    def __init__(self, num_classes):
        super().__init__()
        self.conv_norm("conv1_1_3x3_s2", 3, 32, 3)
        self.conv_norm("conv1_2_3x3", 32, 32, 3)
        self.conv_norm("conv1_3_3x3", 32, 64, 3)
        self.stages = []  # (name, has projection, stride, dilation)
        inputs = 64
        for stage, repeats, mid, outputs, dilation in (
            (2, 3, 32, 128, 1),
            (3, 4, 64, 256, 1),
            (4, 6, 128, 512, 2),
            (5, 3, 256, 1024, 4),
        ):
            for i in range(1, repeats + 1):
                name = f"conv{stage}_{i}"
                if i == 1:
                    self.conv_norm(f"{name}_1x1_proj", inputs, outputs, 1)
                self.conv_norm(f"{name}_1x1_reduce", inputs, mid, 1)
                self.conv_norm(f"{name}_3x3", mid, mid, 3)
                self.conv_norm(f"{name}_1x1_increase", mid, outputs, 1)
                stride = 2 if name == "conv3_1" else 1
                self.stages.append((name, i == 1, stride, dilation))
                inputs = outputs
        self.conv_norm("conv5_4_k1", 1024, 256, 1)
        self.conv_norm("conv_sub4", 256, 128, 3)
        self.conv_norm("conv3_1_sub2_proj", 256, 128, 1)
        self.conv_norm("conv_sub2", 128, 128, 3)
        self.conv_norm("conv1_sub1", 3, 32, 3)
        self.conv_norm("conv2_sub1", 32, 32, 3)
        self.conv_norm("conv3_sub1", 32, 64, 3)
        self.conv_norm("conv3_sub1_proj", 64, 128, 1)
        self.conv("sub4_out", 256, num_classes, 1, bias=True)
        self.conv("sub24_out", 128, num_classes, 1, bias=True)
        self.conv("conv6_cls", 128, num_classes, 1, bias=True)

    def bottleneck(self, x, name, is_projected, stride, dilation):
        run = self.run_same
        shortcut = run(f"{name}_1x1_proj", x, stride) if is_projected else x
        x = F.relu(run(f"{name}_1x1_reduce", x, stride))
        x = F.relu(run(f"{name}_3x3", x, dilation=dilation))
        return relu_sum(shortcut, run(f"{name}_1x1_increase", x))

    def forward(self, image):
        def resize(x, factor):
            return F.interpolate(x, scale_factor=factor, mode="bilinear")

        x = resize(image, 0.5)
        x = F.relu(self.run_same("conv1_1_3x3_s2", x, stride=2))
        x = F.relu(self.run_same("conv1_2_3x3", x))
        x = F.relu(self.run_same("conv1_3_3x3", x))
        x = F.max_pool2d(x, 3, 2, padding=1)
        for stage in self.stages:
            x = self.bottleneck(x, *stage)
            if stage[0] == "conv3_1":
                conv3_1 = x
                x = resize(x, 0.5)
        levels = [F.adaptive_avg_pool2d(x, bins) for bins in (1, 2, 3, 6)]
        size = x.shape[2:]
        x = x + sum(F.interpolate(level, size, mode="bilinear") for level in levels)
        sub4 = resize(F.relu(self.run_same("conv5_4_k1", x)), 2)
        low = self.run_same("conv_sub4", sub4, dilation=2)
        sub24 = resize(relu_sum(low, self.run_same("conv3_1_sub2_proj", conv3_1)), 2)
        x = image
        for i in (1, 2, 3):
            x = F.relu(self.run_same(f"conv{i}_sub1", x, stride=2))
        low = self.run_same("conv_sub2", sub24, dilation=2)
        sub12 = resize(relu_sum(low, self.run_same("conv3_sub1_proj", x)), 2)
        return {
            "logits": self["conv6_cls"](sub12),
            "sub24_logits": self["sub24_out"](sub24),
            "sub4_logits": self["sub4_out"](sub4),
        }


class SegNetBasic(Twin):
    """Response normalisation, four stages down, torch's own unpooling back up."""

    NORM = (0.99, 1e-3)
    STAGES = [f"enc{i}" for i in (1, 2, 3, 4)] + [f"dec{i}" for i in (4, 3, 2, 1)]

    def __init__(self, num_classes):
        super().__init__()
        inputs = 3
        for name in self.STAGES:
            self.conv_norm(f"{name}_conv", inputs, 64, 7, padding=3)
            inputs = 64
        self.conv("classifier", 64, num_classes, 1, bias=True)

    def forward(self, x):
        x = F.local_response_norm(x, 5, alpha=1e-4, beta=0.75, k=1.0)
        pooled = []
        for i in (1, 2, 3, 4):
            x = F.relu(self[f"enc{i}_conv_bn"](self[f"enc{i}_conv"](x)))
            size = x.shape[2:]
            x, where = F.max_pool2d(x, 2, 2, ceil_mode=True, return_indices=True)
            pooled.append((size, where))
        for i in (4, 3, 2, 1):
            size, where = pooled[i - 1]
            x = F.max_unpool2d(x, where, 2, 2, output_size=size)
            x = self[f"dec{i}_conv_bn"](self[f"dec{i}_conv"](x))
        return {"logits": self["classifier"](x)}


class Hourglass(Twin):
    """Pre-activation residual units, nested hourglasses, predictions fed back."""

    def __init__(self, num_classes, stacks, depth, features, stem):
        super().__init__()
        self.stacks, self.depth = stacks, depth
        self.conv("stem_conv", 3, stem, 7, bias=True, padding=3)
        self.norm("stem_bn", stem)
        self.residual("stem_res1", stem, 2 * stem)
        self.residual("stem_res2", 2 * stem, 2 * stem)
        self.residual("stem_res3", 2 * stem, features)
        for s in range(stacks):
            for level in range(1, depth + 1):
                for unit in ("up", "low1", "low2", "low3"):
                    if unit != "low2" or level == 1:
                        name = f"stack{s}_level{level}_{unit}"
                        self.residual(name, features, features)
            self.residual(f"stack{s}_res", features, features)
            self.conv(f"stack{s}_lin", features, features, 1, bias=True)
            self.norm(f"stack{s}_lin_bn", features)
            self.conv(self.head(s), features, num_classes, 1, bias=True)
            if s < stacks - 1:
                self.conv(f"stack{s}_lin_back", features, features, 1, bias=True)
                self.conv(f"stack{s}_out_back", num_classes, features, 1, bias=True)

    def head(self, stack):
        return "logits" if stack == self.stacks - 1 else f"stack{stack}_logits"

    def residual(self, name, inputs, outputs):
        half = outputs // 2
        for i, (before, after, kernel_size) in enumerate(
            ((inputs, half, 1), (half, half, 3), (half, outputs, 1)), 1
        ):
            self.norm(f"{name}_conv{i}_bn", before)
            options = {"bias": True, "padding": kernel_size // 2}
            self.conv(f"{name}_conv{i}", before, after, kernel_size, **options)
        if inputs != outputs:
            self.conv(f"{name}_skip", inputs, outputs, 1, bias=True)

    def run(self, name, x):
        skip = self[f"{name}_skip"](x) if f"{name}_skip" in self.layers else x
        for i in (1, 2, 3):
            x = self[f"{name}_conv{i}"](F.relu(self[f"{name}_conv{i}_bn"](x)))
        return x + skip

    def hourglass(self, x, stack, level):
        name = f"stack{stack}_level{level}"
        up = self.run(f"{name}_up", x)
        low = self.run(f"{name}_low1", F.max_pool2d(x, 2))
        if level > 1:
            low = self.hourglass(low, stack, level - 1)
        else:
            low = self.run(f"{name}_low2", low)
        low = self.run(f"{name}_low3", low)
        return up + F.interpolate(low, scale_factor=2, mode="nearest")

    def forward(self, x):
        x = F.relu(self["stem_bn"](self["stem_conv"](x)))
        for i in (1, 2, 3):
            x = self.run(f"stem_res{i}", x)
        outputs = {}
        for s in range(self.stacks):
            y = self.run(f"stack{s}_res", self.hourglass(x, s, self.depth))
            lin = F.relu(self[f"stack{s}_lin_bn"](self[f"stack{s}_lin"](y)))
            out = self[self.head(s)](lin)
            outputs[self.head(s)] = out
            if s < self.stacks - 1:
                x = (
                    x
                    + self[f"stack{s}_lin_back"](lin)
                    + self[f"stack{s}_out_back"](out)
                )
        return outputs


class ResNet34Decoder(Twin):
    """torchvision's resnet34 without its classifier, then VOC07's decoder."""

    def __init__(self, num_classes, stages, decoder):
        super().__init__()
        inputs = stages[0][1]
        self.conv("conv1", 3, inputs, 7, stride=2, padding=3)
        self.norm("bn1", inputs)
        self.blocks = []
        for stage, (repeats, outputs) in enumerate(stages, 1):
            for i in range(repeats):
                name = f"layer{stage}_{i}"
                stride = 2 if stage > 1 and i == 0 else 1
                self.conv(f"{name}_conv1", inputs, outputs, 3, stride=stride, padding=1)
                self.norm(f"{name}_bn1", outputs)
                self.conv(f"{name}_conv2", outputs, outputs, 3, padding=1)
                self.norm(f"{name}_bn2", outputs)
                if stride == 2:
                    self.conv(f"{name}_downsample_0", inputs, outputs, 1, stride=2)
                    self.norm(f"{name}_downsample_1", outputs)
                self.blocks.append(name)
                inputs = outputs
        self.norm("encoder_bn", inputs)
        double = {"stride": 2, "padding": 1, "output_padding": 1}
        for i, outputs in enumerate(decoder, 1):
            self.deconv(f"dec{i}_deconv", inputs, outputs, 3, bias=True, **double)
            self.norm(f"dec{i}_bn", outputs)
            inputs = outputs
        self.conv("classifier", inputs, num_classes, 1, bias=True)

    def encode(self, x):
        x = F.relu(self["bn1"](self["conv1"](x)))
        x = F.max_pool2d(x, 3, 2, padding=1)
        for name in self.blocks:
            shortcut = x
            if f"{name}_downsample_0" in self.layers:
                shortcut = self[f"{name}_downsample_1"](self[f"{name}_downsample_0"](x))
            x = F.relu(self[f"{name}_bn1"](self[f"{name}_conv1"](x)))
            x = relu_sum(self[f"{name}_bn2"](self[f"{name}_conv2"](x)), shortcut)
        return x

    def forward(self, x):
        x = self["encoder_bn"](self.encode(x))
        for i in range(1, 6):
            x = self[f"dec{i}_bn"](F.relu(self[f"dec{i}_deconv"](x)))
        return {"logits": self["classifier"](x)}


class UNet(Twin):
    """Batch norm after every convolution and transposed convolution (CLOTH)."""

    NORM = (0.99, 1e-3)

    def __init__(self, num_classes, width):
        super().__init__()
        inputs = 3
        for i in (1, 2, 3, 4):
            self.block(f"enc{i}", inputs, width)
            self.deconv(f"dec{i}_up", 2 * width, width, 2, bias=True, stride=2)
            self.norm(f"dec{i}_up_bn", width)
            self.block(f"dec{i}", 2 * width, width)
            inputs, width = width, 2 * width
        self.block("bottleneck", inputs, width)
        self.conv("classifier", width // 16, num_classes, 1, bias=True)

    def block(self, name, inputs, outputs):
        self.conv_norm(f"{name}_conv1", inputs, outputs, 3, padding=1)
        self.conv_norm(f"{name}_conv2", outputs, outputs, 3, padding=1)

    def run(self, name, x):
        return F.relu(self[f"{name}_bn"](self[name](x)))

    def run_block(self, name, x):
        return self.run(f"{name}_conv2", self.run(f"{name}_conv1", x))

    def forward(self, x):
        skips = []
        for i in (1, 2, 3, 4):
            skips.append(self.run_block(f"enc{i}", x))
            # SAME of an even size: one row and column more, bottom and right
            x = F.max_pool2d(F.pad(skips[-1], (0, 1, 0, 1), value=-torch.inf), 3, 2)
        x = self.run_block("bottleneck", x)
        for i in (4, 3, 2, 1):
            x = torch.cat([skips.pop(), self.run(f"dec{i}_up", x)], dim=1)
            x = self.run_block(f"dec{i}", x)
        return {"logits": self["classifier"](x)}


class FCNAttention(Twin):
    """Strided convolutions for pooling, ASPP, summed skips, squeeze-and-excitation."""

    STAGES = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))  # convolutions, width
    DECODER = ((4, 512), (3, 256), (2, 128), (1, 64), (0, 32))

    def __init__(self, num_classes, width):
        super().__init__()

        def scaled(filters):
            return int(filters * width)

        inputs = 3
        for i, (repeats, filters) in enumerate(self.STAGES, 1):
            for j in range(1, repeats + 1):
                self.conv_norm(f"enc{i}_conv{j}", inputs, scaled(filters), 3)
                inputs = scaled(filters)
            self.conv_norm(f"enc{i}_down", inputs, inputs, 3)
        bins = scaled(256)
        self.conv_norm("aspp_1x1", inputs, bins, 1)
        for rate in (6, 12, 18):
            self.conv_norm(f"aspp_rate{rate}", inputs, bins, 3)
        self.conv_norm("aspp_image", inputs, bins, 1)
        self.conv_norm("aspp_out", 5 * bins, bins, 1)
        inputs = bins
        for i, filters in self.DECODER:
            outputs = scaled(filters)
            self.deconv(f"dec{i}_up", inputs, outputs, 4, stride=2, padding=1)
            self.norm(f"dec{i}_up_bn", outputs)
            if i:
                skip = scaled(self.STAGES[i - 1][1])
                self.conv(f"dec{i}_skip", skip, outputs, 1, bias=True)
            reduced = max(outputs // 16, 1)
            self.layers[f"dec{i}_se_reduce"] = nn.Linear(outputs, reduced)
            self.layers[f"dec{i}_se_expand"] = nn.Linear(reduced, outputs)
            inputs = outputs
        self.conv("classifier", inputs, num_classes, 1, bias=True)

    def run(self, name, x, **options):
        return F.relu(self.run_same(name, x, **options))

    def forward(self, x):
        stages = []
        for i, (repeats, _) in enumerate(self.STAGES, 1):
            for j in range(1, repeats + 1):
                x = self.run(f"enc{i}_conv{j}", x)
            x = self.run(f"enc{i}_down", x, stride=2)
            stages.append(x)
        mean = self.run("aspp_image", x.mean((2, 3), keepdim=True))
        x = self.run(
            "aspp_out",
            torch.cat(
                [
                    self.run("aspp_1x1", x),
                    *(self.run(f"aspp_rate{r}", x, dilation=r) for r in (6, 12, 18)),
                    mean.expand(-1, -1, *x.shape[2:]),
                ],
                dim=1,
            ),
        )
        for i, _ in self.DECODER:
            x = F.relu(self[f"dec{i}_up_bn"](self[f"dec{i}_up"](x)))
            if i:
                x = x + self[f"dec{i}_skip"](stages[i - 1])
            factors = F.relu(self[f"dec{i}_se_reduce"](x.mean((2, 3))))
            factors = torch.sigmoid(self[f"dec{i}_se_expand"](factors))
            x = x * factors[:, :, None, None]
        return {"logits": self["classifier"](x)}
