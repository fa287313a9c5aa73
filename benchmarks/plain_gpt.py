"""A Transformer in the plain style of nanoGPT, of the shape of ours: a peer of training speed."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Causal attention and SwiGLU, each after a norm."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.RMSNorm(width), nn.RMSNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.gate_up = nn.Linear(width, 2 * inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(
        self, x: Float[Tensor, "batch time width"], cos: Tensor, sin: Tensor
    ) -> Float[Tensor, "batch time width"]:
        """Return the stream with both branches added."""
        batch, time, width = x.shape
        q, k, v = self.qkv(self.norm_1(x)).chunk(3, dim=-1)
        q, k, v = (t.view(batch, time, self.heads, -1).transpose(1, 2) for t in (q, k, v))
        q, k = rotated(q, cos, sin), rotated(k, cos, sin)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(batch, time, width))
        gate, up = self.gate_up(self.norm_2(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1).to(x.dtype)


class PlainGPT(nn.Module):
    """Returns the summed loss, as an objective does."""

    def __init__(self, config: Any, vocab: int) -> None:
        super().__init__()
        width, heads = config.d_model, config.num_heads
        self.embedding = nn.Embedding(vocab, width)
        self.blocks = nn.ModuleList(
            Block(width, heads, config.ffn_width) for _ in range(config.num_layers)
        )
        self.norm = nn.RMSNorm(width)
        self.head = nn.Linear(width, vocab, bias=False)
        half = width // heads // 2
        frequencies = 10_000.0 ** (-torch.arange(half) / half)
        angles = torch.outer(torch.arange(config.context_length), frequencies)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(
        self, inputs: Int[Tensor, "batch time"], targets: Int[Tensor, "batch time"]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, and the same detached."""
        x = self.embedding(inputs)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        logits = self.head(self.norm(x))
        loss = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="sum")
        return loss, {"loss": loss.detach()}
