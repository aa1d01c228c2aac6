"""The text encoder as PyTorch writes it.

This file is also copied into TorchServe's folder of the variants that run the module itself, as module.py, and loaded there by
the handler: the standard library and torch only, nothing of abgate. The weights come from outside.
"""

import torch
from torch import nn
from torch.nn import functional

EPSILON = 1e-12
MASKED = -1e9


class Layer(nn.Module):
    """Attention over the tokens that are not padding, then two dense layers; both added and normalised."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.mixed = nn.Linear(width, width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.attended, self.done = nn.LayerNorm(width, EPSILON), nn.LayerNorm(width, EPSILON)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        x = self.attended(x + self.mixed(y.transpose(1, 2).flatten(2)))
        answer: torch.Tensor = self.done(x + self.down(functional.gelu(self.up(x))))
        return answer


class TextEncoder(nn.Module):
    """ids and mask INT64 [n,length] -> FP32 [n,width], the mean over the tokens that are not padding."""

    def __init__(self, layers: int, width: int, heads: int, words: int, positions: int) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.positions = nn.Parameter(torch.zeros(positions, width))
        self.embedded = nn.LayerNorm(width, EPSILON)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        kept = mask.to(torch.float32)
        bias = ((1 - kept) * MASKED)[:, None, None, :]
        x = self.embedded(self.words(ids) + self.positions[: ids.shape[1]])
        for layer in self.layers:
            x = layer(x, bias)
        mean: torch.Tensor = (x * kept[..., None]).sum(1) / kept.sum(1, keepdim=True)
        return mean


def module(layers: int, width: int, heads: int, words: int, positions: int) -> nn.Module:
    """The network, not yet filled."""
    return TextEncoder(layers, width, heads, words, positions)
