"""A policy with a value head, for PPO."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lmlab.model.config import ModelConfig
from lmlab.model.layers import Linear
from lmlab.model.transformer import Transformer

VALUE_HEAD = "value_head."
"""Prefix of the parameters that a policy without values lacks."""


class ValueHead(Linear):
    """A linear layer that begins at zero and draws nothing."""

    def reset_parameters(self) -> None:
        """Set the weight to 0."""
        nn.init.zeros_(self.weight)


class ActorCritic(Transformer):
    """A Transformer whose hidden states also predict the return of what follows.

    The value head begins at zero.
    """

    def __init__(
        self, config: ModelConfig, vocab_size: int, device: torch.device | str | None = None
    ) -> None:
        super().__init__(config, vocab_size, device)
        self.value_head = ValueHead(config.d_model, 1, device=self.lm_head.weight.device)

    def reset_parameters(self) -> None:
        """Draw all weights, those of a Transformer first; the value head begins at zero."""
        super().reset_parameters()
        if "value_head" in self._modules:  # the constructor draws the Transformer without it
            self.value_head.reset_parameters()

    def values(self, hidden: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch"]:
        """Return the predicted return at each position, in float32."""
        return self.value_head(hidden).squeeze(-1).float()


def without_value_head(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of the Transformer alone."""
    return {name: value for name, value in weights.items() if not name.startswith(VALUE_HEAD)}
