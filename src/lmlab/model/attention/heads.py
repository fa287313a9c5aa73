"""The base of all attention layers: projections, heads, QK norm and rotation."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lmlab.model.attention.config import HeadsConfig
from lmlab.model.context import NO_CONTEXT, Context, Rows
from lmlab.model.layers import Linear, parallel_linear
from lmlab.model.norm import RMSNorm
from lmlab.model.position import check_positions, rotate

Heads = Float[Tensor, "batch heads time d_k"]


class HeadProjections(nn.Module, ABC):
    """Attention with projections to heads and back.

    Fewer heads of keys and values than of queries make it GQA (Ainslie et al. 2023) or MQA.
    """

    def __init__(
        self,
        config: HeadsConfig,
        d_model: int,
        num_heads: int,
        head_dim: int,
        norm_eps: float,
        *,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.num_heads, self.head_dim = num_heads, head_dim
        self.num_kv_heads = config.num_kv_heads or num_heads
        width, kv_width = num_heads * head_dim, self.num_kv_heads * head_dim
        qkv_bias, output_bias = config.bias != "none", config.bias == "all"
        self.q_proj = Linear(d_model, width, bias=qkv_bias, device=device)
        self.k_proj = Linear(d_model, kv_width, bias=qkv_bias, device=device)
        self.v_proj = Linear(d_model, kv_width, bias=qkv_bias, device=device)
        self.output_proj = Linear(width, d_model, bias=output_bias, device=device)
        self.qkv_proj: nn.Module | None = None
        """The first three as one, in weights for inference."""
        norm = RMSNorm if config.qk_norm else None
        self.q_norm = norm(head_dim, norm_eps, device=device) if norm else nn.Identity()
        self.k_norm = norm(head_dim, norm_eps, device=device) if norm else nn.Identity()

    def forward(
        self, x: Float[Tensor, "*batch time d_model"], context: Context = NO_CONTEXT
    ) -> Float[Tensor, "*batch time d_model"]:
        """Return the attention's output at each token, for any leading dimensions.

        Raises ValueError when `x` has no time or the positions do not fit `x`.
        """
        if x.ndim < 2:
            raise ValueError(f"attention needs (..., time, d_model), got shape {tuple(x.shape)}")
        tokens = x.shape[:-1]
        if context.positions is not None:
            check_positions(context.positions.shape, tokens)
        if context.segments is not None and context.positions is None:
            raise ValueError("segments need positions, which begin anew in each segment")
        if context.rotation is not None:
            check_positions(context.rotation.shape[:-2], tokens)
        if x.ndim == 3:
            return self.attend(x, context)
        flat = Context(
            positions=_one_batch(context.positions, tokens, 0),
            rotation=_one_batch(context.rotation, tokens, 2),
            segments=_one_batch(context.segments, tokens, 0),
            rows=context.rows,
            cache=context.cache,
        )
        return self.attend(x.reshape(-1, *x.shape[-2:]), flat).view(x.shape)

    @abstractmethod
    def attend(
        self, x: Float[Tensor, "batch time d_model"], context: Context
    ) -> Float[Tensor, "batch time d_model"]:
        """Return the attention's output for one batch dimension."""

    def split(self, x: Float[Tensor, "batch time d_model"]) -> tuple[Heads, Heads, Heads]:
        """Return queries, keys and values, the first two normalised."""
        heads = (self.num_heads, self.num_kv_heads, self.num_kv_heads)
        if self.qkv_proj is not None:
            q, k, v = self.qkv_proj(x).unflatten(-1, (-1, self.head_dim)).split(heads, dim=-2)
        else:
            projected = parallel_linear(x, self.q_proj, self.k_proj, self.v_proj)
            q, k, v = (y.unflatten(-1, (-1, self.head_dim)) for y in projected)
        return self.q_norm(q).transpose(1, 2), self.k_norm(k).transpose(1, 2), v.transpose(1, 2)

    def merge(self, heads: Heads) -> Float[Tensor, "batch time d_model"]:
        """Return the output of all heads, projected together."""
        return self.output_proj(heads.transpose(1, 2).flatten(-2))


def in_rows(x: Heads, rows: Rows) -> Heads:
    """Return the heads of tokens, a batch of one, in each of the rows that they stand in."""
    heads = F.embedding(rows.token, x.transpose(1, 2).flatten(-2)[0])
    return heads.unflatten(-1, x.shape[1::2]).transpose(1, 2)


def from_rows(heads: Heads, rows: Rows) -> Heads:
    """Return the heads of tokens, a batch of one, from the first place of each in the rows."""
    tokens = F.embedding(rows.first, heads.transpose(1, 2).flatten(-2).flatten(0, 1))
    return tokens.unflatten(-1, heads.shape[1::2]).transpose(0, 1).unsqueeze(0)


def _one_batch(x: Tensor | None, tokens: torch.Size, inner: int) -> Tensor | None:
    """Flatten the leading dimensions of positions or rotations as those of the tokens."""
    lead = x.ndim - inner - 1 if x is not None else 0
    if x is None or lead == 0:
        return x
    return x.expand(*tokens[:-1], *x.shape[lead:]).reshape(-1, *x.shape[lead:])


def rotate_heads(x: Heads, rotation: Tensor | None) -> Heads:
    """Return queries or keys rotated; with None unchanged."""
    if rotation is None:
        return x
    # Time before heads is how the projection left them in memory.
    return rotate(x.transpose(1, 2), rotation.unsqueeze(-3)).transpose(1, 2)
