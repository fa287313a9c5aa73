"""Objectives: what a training step minimises."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lmlab.training.chunking import chunked
from lmlab.training.losses import Terms, fused_token_losses, token_losses

Losses = tuple[Float[Tensor, ""], Terms]
"""What is minimised and, detached, what is logged of it, `loss` among it: sums over sequences."""


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


class Objective(nn.Module, ABC):
    """A model with its loss, for a kind of batch."""

    @abstractmethod
    def forward(self, *batch: Any) -> Losses:
        """Return what is minimised and what is logged of it: sums over the batch's sequences."""

    @abstractmethod
    def weight(self, *batch: Any) -> float:
        """Return what the sums are divided by: tokens, sequences, or the sum of a mask."""


class NextToken(Objective):
    """Loss of predicting each next token, summed, with the model's auxiliary losses.

    `chunk_tokens` is how many tokens go through the head and the loss at a time, so that the logits
    of the whole batch are never in memory together; the result is the same up to rounding.
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
        self.fused: Callable[[Tensor, Tensor, float, float], Terms] | None = None
        """A kernel that computes `token_losses`; None: torch."""

    def forward(
        self, inputs: Int[Tensor, "batch time"], targets: Int[Tensor, "batch time"]
    ) -> Losses:
        """Return what is minimised, and its terms: sums over the tokens."""
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
        if self.training:  # auxiliary losses are means over the micro-batch
            auxiliary = self.model.auxiliary_losses()
            sums |= {name: value * targets.numel() for name, value in auxiliary.items()}
        return torch.stack(list(sums.values())).sum(), {k: v.detach() for k, v in sums.items()}

    def weight(self, inputs: Int[Tensor, "batch time"], targets: Int[Tensor, "batch time"]) -> int:
        """Return what the sums are divided by: the number of tokens."""
        return targets.numel()

    def _losses(self, hidden: Tensor, targets: Tensor) -> Terms:
        logits = self.model.logits(hidden)
        if self.fused is not None:
            return self.fused(logits, targets, self.z_loss, self.label_smoothing)
        # A compiler fuses the definition by itself.
        losses = token_losses if torch.compiler.is_compiling() else fused_token_losses
        return losses(logits, targets, self.z_loss, self.label_smoothing)
