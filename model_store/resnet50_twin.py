"""resnet50 as PyTorch writes it: NHWC at the door, NCHW inside.

This file is also copied into TorchServe's folder of the variants that run the module itself, as module.py, and loaded there by
the handler: the standard library and torch only, nothing of abgate. The weights come from outside.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import nn

CLASSES = 1000
# number, blocks, width, stride of the first block
STAGES = ((2, 3, 64, 1), (3, 4, 128, 2), (4, 6, 256, 2), (5, 3, 512, 2))
EPSILON = 1.001e-5  # Keras's


class Convolution(NamedTuple):
    """A convolution with bias and the batch normalisation behind it, by Keras's name without _conv and _bn."""

    name: str
    inputs: int
    outputs: int
    size: int
    stride: int


def convolutions() -> Iterator[Convolution]:
    """Every convolution of the network."""
    yield Convolution("conv1", 3, 64, 7, 2)
    channels = 64
    for stage, blocks, width, stride in STAGES:
        for block in range(1, blocks + 1):
            name, step = f"conv{stage}_block{block}", stride if block == 1 else 1
            if block == 1:
                yield Convolution(f"{name}_0", channels, 4 * width, 1, step)
            yield Convolution(f"{name}_1", channels, width, 1, step)
            yield Convolution(f"{name}_2", width, width, 3, 1)
            yield Convolution(f"{name}_3", width, 4 * width, 1, 1)
            channels = 4 * width


class ResNet50(nn.Module):
    """pixels FP32 [n,224,224,3] -> logits FP32 [n,1000]."""

    def __init__(self) -> None:
        super().__init__()
        self.units = nn.ModuleDict()
        for c in convolutions():
            convolution = nn.Conv2d(c.inputs, c.outputs, c.size, c.stride, c.size // 2)
            self.units[c.name] = nn.Sequential(convolution, nn.BatchNorm2d(c.outputs, EPSILON))
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.predictions = nn.Linear(2048, CLASSES)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        units = self.units
        x = self.pool(torch.relu(units["conv1"](pixels.permute(0, 3, 1, 2))))
        for stage, blocks, _, _ in STAGES:
            for block in range(1, blocks + 1):
                name = f"conv{stage}_block{block}"
                shortcut = units[f"{name}_0"](x) if block == 1 else x
                y = torch.relu(units[f"{name}_1"](x))
                y = units[f"{name}_3"](torch.relu(units[f"{name}_2"](y)))
                x = torch.relu(shortcut + y)
        logits: torch.Tensor = self.predictions(x.mean((2, 3)))
        return logits


def module() -> nn.Module:
    """The network, not yet filled."""
    return ResNet50()
