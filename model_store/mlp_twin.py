"""mlp as PyTorch writes it.

This file is also copied into TorchServe's folder of the variants that run the module itself, as module.py, and loaded there by
the handler: the standard library and torch only, nothing of abgate. The weights come from outside.
"""

import torch
from torch import nn


class Mlp(nn.Module):
    """x FP32 [n,width] -> FP32 [n,width], through three Linear layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense1 = nn.Linear(width, width)
        self.dense2 = nn.Linear(width, width)
        self.dense3 = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.dense1(x))
        x = torch.relu(self.dense2(x))
        answer: torch.Tensor = self.dense3(x)
        return answer


def module(width: int) -> nn.Module:
    """The network, not yet filled."""
    return Mlp(width)
