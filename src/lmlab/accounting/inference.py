"""What generation costs: FLOPs and bytes of a prefill and of a decode step."""

from dataclasses import dataclass

from lmlab.accounting.count import flops_by_part, forward_flops
from lmlab.model.attention.linear import LinearAttention
from lmlab.model.attention.softmax import SoftmaxAttention
from lmlab.model.ffn.moe import MoE
from lmlab.model.transformer import Transformer

WEIGHT_BYTES = {"fp32": 4, "bf16": 2, "int8": 1}
"""Bytes of a weight in each dtype for generation."""
CACHE_BYTES = {"fp32": 4, "bf16": 2, "int8": 2}
"""Bytes of a cached key's or value's element: int8 computes in bfloat16."""
STATE_BYTES = 4
"""Bytes of an element of linear attention's state, which is float32 in each dtype."""


@dataclass(frozen=True)
class InferenceCosts:
    """A forward pass for generation."""

    tokens: int
    """Tokens that it reads."""
    flops: int
    """Of matrix products; a multiplication and an addition count as two."""
    bytes: int
    """Weights and cached keys, values and states, each read once."""

    @property
    def intensity(self) -> float:
        """Arithmetic intensity, in FLOPs a byte: below a device's ridge, memory is the limit."""
        return self.flops / self.bytes

    def tokens_per_second(self, bandwidth: float) -> float:
        """Return the most tokens a second at a rate of reading memory, in bytes a second."""
        return self.tokens * bandwidth / self.bytes


def decode_costs(model: Transformer, dtype: str, batch: int, length: int) -> InferenceCosts:
    """Return the costs of the next token of `batch` sequences of `length` tokens, it included.

    The model may be on the meta device.
    """
    attentions = [m for m in model.modules() if isinstance(m, SoftmaxAttention)]
    # Scores and weighted sums of the keys before the token: 2 d_k each, a query head and a key.
    keys = sum(a.num_heads * a.head_dim * a.mask.kept(length - 1) for a in attentions)
    flops = batch * (forward_flops(model, 1) + 4 * keys)
    read = _weights_read(model, batch) * WEIGHT_BYTES[dtype]
    return InferenceCosts(batch, flops, read + batch * _cache_bytes(model, dtype, length))


def prefill_costs(model: Transformer, dtype: str, length: int) -> InferenceCosts:
    """Return the costs of reading a prompt of `length` tokens, the head on the last one alone.

    Scores count in full, causal or not. The model may be on the meta device.
    """
    parts = flops_by_part(model, length)
    flops = sum(parts.values()) - parts["head"] * (length - 1) // length
    return InferenceCosts(length, flops, _weights_read(model, length) * WEIGHT_BYTES[dtype])


def _cache_bytes(model: Transformer, dtype: str, length: int) -> int:
    """Return the bytes of the cache of one sequence of `length` tokens."""
    total = 0
    for module in model.modules():
        if isinstance(module, LinearAttention):
            total += STATE_BYTES * module.cache_elements(length)
        elif isinstance(module, SoftmaxAttention):
            total += CACHE_BYTES[dtype] * module.cache_elements(length)
    return total


def _weights_read(model: Transformer, tokens: int) -> int:
    """Return the weights that a pass over `tokens` tokens reads: of experts, the chosen ones."""
    total = sum(p.numel() for p in model.parameters())
    if not model.config.tie_embeddings:  # a table of which only rows are read
        table = model.token_embedding.weight
        total += tokens * table.shape[1] - table.numel()
    for moe in (m for m in model.modules() if isinstance(m, MoE)):
        unread = max(0, moe.num_experts - tokens * moe.top_k) / moe.num_experts
        total -= round(unread * sum(w.numel() for w in (moe.w1, moe.w2, moe.w3)))
    return total
