"""Objectives: what a training step minimises."""

from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lmlab.training.chunking import chunked
from lmlab.training.losses import Terms, fused_token_losses, token_losses

Losses = tuple[Float[Tensor, ""], Terms]
"""What is minimised, and its terms, detached; `loss` is the cross-entropy, the others are added."""


class LanguageModel(Protocol):
    """What an objective needs of a model."""

    @property
    def lm_head(self) -> nn.Module:
        """What turns hidden states into logits."""

    def hidden(self, ids: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time d_model"]:
        """Return what the head reads."""

    def logits(self, hidden: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch vocab"]:
        """Apply the head."""

    def auxiliary_losses(self) -> Terms:
        """Return what the last forward pass adds to the objective."""


class NextToken(nn.Module):
    """Mean loss of predicting each next token, with the model's auxiliary losses.

    With `chunk_tokens` the head and the loss are applied to as many tokens at a time, so that the
    logits of the whole batch are never in memory together; the result is the same up to rounding.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        z_loss: float = 0.0,
        label_smoothing: float = 0.0,
        chunk_tokens: int | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.z_loss = z_loss
        self.label_smoothing = label_smoothing
        self.chunk_tokens = chunk_tokens

    def forward(
        self, inputs: Int[Tensor, "batch time"], targets: Int[Tensor, "batch time"]
    ) -> Losses:
        """Return what is minimised, and its terms."""
        hidden = self.model.hidden(inputs)
        if self.chunk_tokens is None:
            sums = self._losses(hidden, targets)
        else:
            sums = chunked(
                self._losses,
                tuple(self.model.lm_head.parameters()),
                hidden.flatten(0, 1),
                targets.flatten(),
                self.chunk_tokens,
            )
        terms = {name: value / targets.numel() for name, value in sums.items()}
        if self.training:
            terms |= self.model.auxiliary_losses()
        return torch.stack(list(terms.values())).sum(), {k: v.detach() for k, v in terms.items()}

    def _losses(self, hidden: Tensor, targets: Tensor) -> Terms:
        logits = self.model.logits(hidden)
        # A compiler fuses the definition by itself.
        losses = token_losses if torch.compiler.is_compiling() else fused_token_losses
        return losses(logits, targets, self.z_loss, self.label_smoothing)
