"""digits as PyTorch writes it: NHWC at the door, NCHW inside.

This file is also copied into TorchServe's folder of the variants that run the module itself, as module.py, and loaded there by
the handler: the standard library and torch only, nothing of abgate. The weights come from outside.
"""

import torch
from torch import nn


class Digits(nn.Module):
    """pixels FP32 [n,8,8,1] -> logits FP32 [n,10]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.hidden = nn.Linear(64 * 4 * 4, 64)
        self.logits = nn.Linear(64, 10)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = pixels.permute(0, 3, 1, 2)
        x = torch.relu(self.conv1(x))
        x = self.pool(torch.relu(self.conv2(x)))
        x = torch.relu(self.hidden(x.flatten(1)))
        logits: torch.Tensor = self.logits(x)
        return logits


def module() -> nn.Module:
    """The network, not yet filled."""
    return Digits()
