"""Objectives of supervised fine-tuning and of preferences."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lmlab.alignment.batches import Preferences, Supervised
from lmlab.alignment.config import PreferenceLossKind
from lmlab.alignment.log_probabilities import policy_log_probabilities
from lmlab.alignment.masks import masked_mean, masked_normalize, until_last
from lmlab.alignment.preference import PreferenceLoss, dpo_loss, ipo_loss
from lmlab.model import Transformer
from lmlab.training.losses import Terms
from lmlab.training.objective import Losses, Objective

PREFERENCE_LOSSES: dict[PreferenceLossKind, Callable[..., PreferenceLoss]] = {
    "dpo": dpo_loss,
    "ipo": ipo_loss,
}


class SupervisedObjective(Objective):
    """The weighted negative log-likelihood of demonstrations: batches are `Supervised`."""

    def __init__(self, model: Transformer, chunk_tokens: int | None = None) -> None:
        super().__init__()
        self.model, self.chunk_tokens = model, chunk_tokens

    def forward(self, *batch: Any) -> Losses:
        """Return what is minimised, and what is logged: sums over the labels that are learnt."""
        rows = Supervised(*batch)
        mask = rows.weights > 0
        hidden = self.model.hidden(
            rows.input_ids, rows.positions, segments=rows.segments, counted=until_last(mask)
        )
        log_probs, entropy = policy_log_probabilities(
            self.model, hidden, rows.labels, mask, chunk_tokens=self.chunk_tokens
        )
        terms = {"loss": -(rows.weights * log_probs).sum()}
        if self.training:
            terms |= auxiliary_losses(self.model, rows.divisor.sum())
        total = torch.stack(list(terms.values())).sum()
        terms["entropy"] = (rows.weights * entropy).sum()
        return total, {name: value.detach() for name, value in terms.items()}

    def weight(self, *batch: Any) -> float:
        """Return what the sums are divided by: learnt tokens, or examples."""
        return float(Supervised(*batch).divisor.sum())


class PreferenceObjective(Objective):
    """DPO or IPO over pairs: batches are `Preferences`.

    Logged are the shares of pairs whose chosen response has the larger implicit reward, and the
    means of the rewards and of their difference.
    """

    def __init__(
        self,
        model: Transformer,
        kind: PreferenceLossKind,
        beta: float,
        chunk_tokens: int | None = None,
    ) -> None:
        super().__init__()
        self.model, self.kind, self.beta, self.chunk_tokens = model, kind, beta, chunk_tokens

    def forward(self, *batch: Any) -> Losses:
        """Return what is minimised, and what is logged: sums over the pairs.

        For a batch without reference it returns 0 and, as `log_probs`, those of the responses,
        shape (pairs, 2).
        """
        pairs = Preferences(*batch)
        found = self.log_probs(pairs)
        if pairs.reference is None:
            return found.new_zeros(()), {"log_probs": found.detach()}
        (chosen, rejected), reference = found.unbind(1), pairs.reference.unbind(1)
        losses, good, bad = PREFERENCE_LOSSES[self.kind](
            chosen, rejected, *reference, beta=self.beta
        )
        terms = {"loss": losses.sum()}
        if self.training:
            terms |= auxiliary_losses(self.model, losses.new_tensor(len(losses)))
        total = torch.stack(list(terms.values())).sum()
        terms |= {
            "accuracy": (good > bad).float().sum(),
            "margin": (good - bad).sum(),
            "chosen_reward": good.sum(),
            "rejected_reward": bad.sum(),
        }
        return total, {name: value.detach() for name, value in terms.items()}

    def log_probs(self, pairs: Preferences) -> Tensor:
        """Return log-probabilities of responses, (pairs, 2): sums over tokens, means for IPO."""
        ids, labels, mask = (part.flatten(0, 1) for part in pairs[:3])
        hidden = self.model.hidden(ids, counted=until_last(mask))
        log_probs, _ = policy_log_probabilities(
            self.model, hidden, labels, mask, chunk_tokens=self.chunk_tokens
        )
        if self.kind == "ipo":
            return masked_mean(log_probs, mask, dim=-1).unflatten(0, (-1, 2))
        return masked_normalize(log_probs, mask, 1.0, dim=-1).unflatten(0, (-1, 2))

    def weight(self, *batch: Any) -> float:
        """Return the number of pairs."""
        return float(len(batch[0]))


def auxiliary_losses(model: Transformer, weight: Float[Tensor, ""]) -> Terms:
    """Return the model's auxiliary losses, means over the micro-batch, times its weight.

    Padding does not count in them.
    """
    return {name: value * weight for name, value in model.auxiliary_losses().items()}
