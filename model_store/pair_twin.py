"""pair as PyTorch writes it.

This file is also copied into TorchServe's folder of the variants that run the module itself, as module.py, and loaded there by
the handler: the standard library and torch only, nothing of abgate. The weights come from outside.
"""

import torch
from torch import nn


class Pair(nn.Module):
    """a and b FP32 [n,4] -> sum FP32 [n,4], scaled FP32 [n,2]."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(4))
        self.scaled = nn.Linear(4, 2)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return a + self.gain * b, self.scaled(a * b)


def module() -> nn.Module:
    """The network, not yet filled."""
    return Pair()
