"""The decoder-only Transformer language model."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lmlab.model.attention import build_attention
from lmlab.model.block import Block
from lmlab.model.config import ModelConfig
from lmlab.model.ffn import build_ffn
from lmlab.model.layers import Embedding, Linear
from lmlab.model.norm import NORMS
from lmlab.model.position import build_position


class Transformer(nn.Module):
    """Token embedding, blocks, a last norm and a linear head; returns logits."""

    def __init__(
        self, config: ModelConfig, vocab_size: int, device: torch.device | str | None = None
    ) -> None:
        super().__init__()
        self.context_length = config.context_length
        self.vocab_size = vocab_size
        d_model, num_heads = config.d_model, config.num_heads

        def norm() -> nn.Module:
            return NORMS[config.norm](d_model, device=device)

        self.token_embedding = Embedding(vocab_size, d_model, device=device)
        self.position = build_position(
            config.position, d_model // num_heads, config.context_length, device
        )
        self.blocks = nn.ModuleList(
            Block(
                build_attention(config.attention, d_model, num_heads, device),
                build_ffn(config.ffn, d_model, config.d_ff, device),
                config.norm_placement,
                norm,
            )
            for _ in range(config.num_layers)
        )
        # Post-norm has just normalised the stream; without norms there is none here either.
        last = config.norm_placement in ("pre", "double")
        self.final_norm = norm() if last else nn.Identity()
        self.lm_head = Linear(d_model, vocab_size, device=device)
        if config.tie_embeddings:
            self.lm_head.weight = self.token_embedding.weight

    def forward(self, ids: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time vocab"]:
        """Return the logits of the next token at each position; `time` up to the context length."""
        time = ids.shape[1]
        if time > self.context_length:
            raise ValueError(f"{time} tokens are more than the context of {self.context_length}")
        rotation = self.position.rotation(torch.arange(time, device=ids.device))
        x = self.token_embedding(ids)
        for block in self.blocks:
            x = block(x, rotation)
        return self.lm_head(self.final_norm(x))
