"""The same networks as a PyTorch user trains, serves and feeds them."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
import torch
from torch.nn import functional as F

from keras_seg.config import Config
from keras_seg.preprocess import STANDARDS
from keras_seg.runs.benchmark import twins

TWINS: Mapping[str, type[twins.Twin]] = MappingProxyType(
    {
        "icnet": twins.ICNet,
        "segnet_basic": twins.SegNetBasic,
        "unet_bn": twins.UNet,
        "hourglass": twins.Hourglass,
    }
)


@dataclass(frozen=True)
class Way:
    """How PyTorch is used.

    Attributes:
        compiles: with torch.compile.
        is_channels_last: its tensors in memory; else NCHW.
    """

    compiles: bool = True
    is_channels_last: bool = True

    @property
    def layout(self) -> Any:
        last, first = torch.channels_last, torch.contiguous_format
        return last if self.is_channels_last else first


class Theirs:
    """The twin of a network with an optimizer, on a batch that stays the same.

    Args:
        config: settings of the step; mixed precision is autocast.
        weights: of our network, by path; on its normalisation `preprocess`.
        num_classes: of the labels.
        way: how PyTorch is used.
        preprocess: a key of `keras_seg.preprocess.PREPROCESS`.
    """

    def __init__(
        self,
        config: Config,
        weights: Mapping[str, np.ndarray],
        num_classes: int,
        way: Way,
        preprocess: str,
    ):
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.backends.cudnn.benchmark = True
        self.is_mixed = config.precision != "float32"
        self.module = module(config, weights, way.layout).to(self.device)
        shape = (config.data.batch, *config.data.size)
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, 255, (*shape, 3), np.uint8)
        self.pixels = torch.tensor(pixels).to(self.device)
        self.layout = way.layout
        self.standard = STANDARDS[preprocess]
        self.image = self._standardised(self.pixels).contiguous()
        self.image = self.image.contiguous(memory_format=way.layout)
        label = rng.integers(0, num_classes, shape)
        self.label = torch.tensor(label).to(self.device)
        settings = config.optimizer
        self.optimizer = torch.optim.SGD(
            self.module.parameters(),
            lr=settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )
        size = tuple(config.data.size)

        def loss(image: Any, label: Any) -> Any:
            total = 0
            for logits in self.module(image).values():
                label_there = F.interpolate(
                    label[:, None].float(), logits.shape[2:], mode="nearest"
                )[:, 0].long()
                total = total + F.cross_entropy(logits.float(), label_there)
            return total

        def infer(image: Any) -> Any:
            logits = self.module(image)["logits"].float()
            return F.interpolate(logits, size, mode="bilinear")

        def serve(pixels: Any) -> Any:
            logits = infer(self._standardised(pixels))
            return logits.argmax(1).to(torch.uint8), logits.softmax(1)

        compiled: Any = torch.compile if way.compiles else lambda function: function
        self.loss, self.infer, self.serve = map(compiled, (loss, infer, serve))

    def _standardised(self, pixels: Any) -> Any:
        """uint8 RGB [N, H, W, 3] to float32 [N, 3, H, W] as the network takes it."""
        is_reversed, mean, deviation = self.standard
        image = pixels.permute(0, 3, 1, 2).float()
        image = image.flip(1) if is_reversed else image
        mean, deviation = (
            torch.tensor(one, device=self.device).view(1, 3, 1, 1)
            for one in (mean, deviation)
        )
        return ((image - mean) / deviation).contiguous(memory_format=self.layout)

    def mixed(self) -> Any:
        return torch.autocast(self.device, torch.bfloat16, enabled=self.is_mixed)

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def train(self, steps: int) -> float:
        """Seconds of a step."""
        self.module.train()
        began = 0.0
        for step in range(steps + 1):
            if step == 1:
                self.wait()
                began = time.perf_counter()
            self.optimizer.zero_grad(set_to_none=True)
            with self.mixed():
                loss = self.loss(self.image, self.label)
            loss.backward()
            self.optimizer.step()
        self.wait()
        return (time.perf_counter() - began) / steps

    def predict(self, steps: int) -> float:
        """Seconds of predicting the batch, to logits of the images' size."""
        return self._timed(self.infer, self.image, steps)

    def serve_pixels(self, steps: int) -> float:
        """Seconds of predicting the batch, from uint8 to ids and probabilities."""
        return self._timed(self.serve, self.pixels, steps)

    def _timed(self, infer: Callable[[Any], object], image: Any, steps: int) -> float:
        self.module.train(False)
        began = 0.0
        with torch.no_grad(), self.mixed():
            for step in range(steps + 1):
                if step == 1:
                    began = time.perf_counter()
                infer(image)
                self.wait()
        return (time.perf_counter() - began) / steps

    def evaluate(self, batches: int, num_classes: int) -> float:
        """Seconds of a batch: its logits, and their counts by true and other class."""
        self.module.train(False)
        counts = torch.zeros(num_classes**2, dtype=torch.int64)
        began = time.perf_counter()
        with torch.no_grad(), self.mixed():
            for _ in range(batches):
                found = self.infer(self._standardised(self.pixels)).argmax(1)
                cells = (self.label * num_classes + found).flatten()
                counts += torch.bincount(cells, minlength=num_classes**2)
        return (time.perf_counter() - began) / batches

    def memory(self) -> int:
        """Most bytes taken on a GPU; 0 on a CPU."""
        return torch.cuda.max_memory_allocated() if self.device == "cuda" else 0


def module(config: Config, weights: Mapping[str, np.ndarray], layout: Any) -> Any:
    """The twin with parameters of PyTorch's layout that it trains."""
    twin = TWINS[config.net.name]

    class Net(twin, torch.nn.Module):
        STACKS = config.net.knobs.get("stacks", 4)
        DEPTH = config.net.knobs.get("depth", 4)

        def __init__(self):
            torch.nn.Module.__init__(self)
            self.names = set()
            for path, array in weights.items():
                value = torch.tensor(array)
                name = path.replace("/", "__")
                self.names.add(name)
                if value.ndim == 4:
                    value = value.permute(3, 2, 0, 1)  # [out, in, k, k]
                    value = value.contiguous(memory_format=layout)
                if path.rsplit("/", 1)[-1].startswith("moving"):
                    self.register_buffer(name, value)
                else:
                    self.register_parameter(name, torch.nn.Parameter(value))

        def has(self, name: str) -> bool:
            return f"{name}__kernel" in self.names

        def weight(self, name: str, parameter: str) -> Any:
            found = getattr(self, f"{name}__{parameter}", None)
            if parameter == "kernel" and found is not None and found.ndim == 4:
                return found.permute(2, 3, 1, 0)  # the twin permutes it back
            return found

        def norm(self, name: str, x: Any) -> Any:
            names = ("moving_mean", "moving_variance", "gamma", "beta")
            mean, variance, gamma, beta = (self.weight(name, one) for one in names)
            return F.batch_norm(
                x, mean, variance, gamma, beta, self.training, 0.05, self.EPSILON
            )

    return Net()


class Pairs(torch.utils.data.Dataset):
    """Images and labels in memory, mirrored and scaled by one warp with OpenCV."""

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        image, label = self.images[k], self.labels[k]
        height, width = label.shape
        first, second = torch.rand(2).tolist()  # torch seeds each worker
        factor = 0.5 + 1.5 * first
        turn = -1.0 if second < 0.5 else 1.0
        across, down = factor * turn, factor
        centre = (width - 1) / 2, (height - 1) / 2
        matrix = np.array(
            [
                [across, 0, centre[0] - across * centre[0]],
                [0, down, centre[1] - down * centre[1]],
            ]
        )
        size = (width, height)
        image = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR)
        label = cv2.warpAffine(
            label,
            matrix,
            size,
            flags=cv2.INTER_NEAREST,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=255,
        )
        image = image.astype(np.float32) - np.float32(120)
        return torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(label)


def loader(
    images: np.ndarray, labels: np.ndarray, batch: int, workers: int
) -> Iterator[Any]:
    """Batches without end, from a DataLoader with processes."""
    make: Callable[..., Any] = torch.utils.data.DataLoader
    data = make(
        Pairs(images, labels),
        batch_size=batch,
        shuffle=True,
        num_workers=workers,
        drop_last=True,
        persistent_workers=True,
    )
    while True:
        yield from data
