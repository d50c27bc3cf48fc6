"""More PyTorch twins (`keras_seg.runs.benchmark.twins`), which only tests need."""

import torch
from torch.nn import functional as F

from keras_seg.runs.benchmark.twins import Twin, relu_sum


class ResNet34Decoder(Twin):
    """torchvision's resnet34 without its classifier, then VOC07's decoder."""

    def run(self, conv, norm, x, **options):
        return self.norm(norm, self.conv(conv, x, **options))

    def basic_block(self, name, x, stride):
        shortcut = x
        if stride == 2:
            down = f"{name}_downsample"
            shortcut = self.run(f"{down}_0", f"{down}_1", x, stride=2)
        x = F.relu(
            self.run(f"{name}_conv1", f"{name}_bn1", x, stride=stride, padding=1)
        )
        return relu_sum(
            self.run(f"{name}_conv2", f"{name}_bn2", x, padding=1), shortcut
        )

    def forward(self, x):
        x = F.relu(self.run("conv1", "bn1", x, stride=2, padding=3))
        x = F.max_pool2d(x, 3, 2, padding=1)
        for stage, repeats in ((1, 3), (2, 4), (3, 6), (4, 3)):
            for i in range(repeats):
                stride = 2 if stage > 1 and i == 0 else 1
                x = self.basic_block(f"layer{stage}_{i}", x, stride)
        x = self.norm("encoder_bn", x)
        double = {"stride": 2, "padding": 1, "output_padding": 1}
        for i in range(1, 6):
            x = F.relu(self.deconv(f"dec{i}_deconv", x, **double))
            x = self.norm(f"dec{i}_bn", x)
        return {"logits": self.conv("classifier", x)}


class FCNAttention(Twin):
    """Strided convolutions for pooling, ASPP, summed skips, squeeze-and-excitation."""

    def run(self, name, x, **options):
        return F.relu(self.norm(f"{name}_bn", self.conv_same(name, x, **options)))

    def forward(self, x):
        stages = []
        for i, repeats in enumerate((2, 2, 3, 3, 3), 1):
            for j in range(1, repeats + 1):
                x = self.run(f"enc{i}_conv{j}", x)
            x = self.run(f"enc{i}_down", x, stride=2)
            stages.append(x)
        mean = self.run("aspp_image", x.mean((2, 3), keepdim=True))
        branches = [self.run("aspp_1x1", x)]
        branches += [self.run(f"aspp_rate{r}", x, dilation=r) for r in (6, 12, 18)]
        branches.append(mean.expand(-1, -1, *x.shape[2:]))
        x = self.run("aspp_out", torch.cat(branches, dim=1))
        for i in (4, 3, 2, 1, 0):
            x = self.deconv(f"dec{i}_up", x, stride=2, padding=1)
            x = F.relu(self.norm(f"dec{i}_up_bn", x))
            if i:
                x = x + self.conv(f"dec{i}_skip", stages[i - 1])
            factors = F.relu(self.dense(f"dec{i}_se_reduce", x.mean((2, 3))))
            factors = torch.sigmoid(self.dense(f"dec{i}_se_expand", factors))
            x = x * factors[:, :, None, None]
        return {"logits": self.conv("classifier", x)}
