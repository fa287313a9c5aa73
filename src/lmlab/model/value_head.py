"""A policy with a value head, for PPO."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lmlab.model.config import ModelConfig
from lmlab.model.layers import Linear
from lmlab.model.transformer import Transformer

VALUE_HEAD = "value_head."
"""Prefix of the parameters that a policy without values lacks."""


class ActorCritic(Transformer):
    """A Transformer whose hidden states also predict the return of what follows.

    The value head begins at zero.
    """

    def __init__(
        self, config: ModelConfig, vocab_size: int, device: torch.device | str | None = None
    ) -> None:
        super().__init__(config, vocab_size, device)
        self.value_head = Linear(config.d_model, 1, device=self.lm_head.weight.device)
        nn.init.zeros_(self.value_head.weight)

    def values(self, hidden: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch"]:
        """Return the predicted return at each position, in float32."""
        return self.value_head(hidden).squeeze(-1).float()


def without_value_head(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of the Transformer alone."""
    return {name: value for name, value in weights.items() if not name.startswith(VALUE_HEAD)}
