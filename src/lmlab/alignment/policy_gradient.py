"""The objective of reinforcement learning: policy-gradient loss, penalty and value loss."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lmlab.alignment.beginnings import hidden_states
from lmlab.alignment.config import Normalization, PolicyLossKind
from lmlab.alignment.experience import Experience
from lmlab.alignment.log_probabilities import policy_log_probabilities
from lmlab.alignment.losses import kl_penalty, policy_loss, value_loss
from lmlab.alignment.masks import sequence_sums, sequence_weight, until_last
from lmlab.model import Transformer
from lmlab.model.value_head import ActorCritic
from lmlab.training.objective import Losses, Objective


@dataclass(frozen=True)
class PolicyGradientSettings:
    """What a policy's loss is."""

    loss: PolicyLossKind
    normalization: Normalization
    constant: float = 1.0
    """What sums over tokens are divided by where the normalization is `constant`."""
    clip_low: float = 0.2
    clip_high: float = 0.2
    kl: float = 0.0
    """Weight of the penalty against the reference."""
    value_weight: float = 0.0
    """Weight of the value head's loss."""
    value_clip: float | None = None
    chunk_tokens: int | None = None
    """Tokens whose logits are in memory at a time; None: those of a micro-batch."""


class PolicyGradient(Objective):
    """A policy with its loss over a batch of `Experience`.

    Logged beside the loss: the means over tokens of entropy, clipped share, KL penalty and the
    difference to the engine's log-probabilities, and the means over responses of reward, format,
    answer and length.
    """

    def __init__(self, model: Transformer, settings: PolicyGradientSettings) -> None:
        super().__init__()
        self.model = model
        self.settings = settings

    def forward(self, *batch: Any) -> Losses:
        """Return what is minimised, and what is logged of it: sums over the batch's rows."""
        settings, rows = self.settings, Experience(*batch)
        if rows.beginnings is None:
            hidden = self.model.hidden(rows.input_ids, counted=until_last(rows.mask))
        else:
            hidden = hidden_states(self.model, rows.input_ids, rows.beginnings)
        log_probs, entropy = policy_log_probabilities(
            self.model, hidden, rows.labels, rows.mask, chunk_tokens=settings.chunk_tokens
        )
        old_log_probs = log_probs.detach() if rows.old_log_probs is None else rows.old_log_probs
        policy = policy_loss(
            settings.loss,
            log_probs,
            rows.advantages,
            old_log_probs,
            clip_low=settings.clip_low,
            clip_high=settings.clip_high,
        )
        losses = policy.losses
        per_token = {
            "entropy": entropy,
            "clip_fraction": policy.clipped.float(),
            "engine_difference": (old_log_probs - rows.engine_log_probs).abs(),
        }
        if rows.reference_log_probs is not None:
            per_token["kl"] = kl_penalty(log_probs, rows.reference_log_probs)
            losses = losses + settings.kl * per_token["kl"]
        if rows.old_values is not None and rows.returns is not None:
            assert isinstance(self.model, ActorCritic)
            value = value_loss(
                self.model.values(hidden), rows.old_values, rows.returns, settings.value_clip
            )
            per_token |= {"value_loss": value.losses, "value_clip_fraction": value.clipped.float()}
            losses = losses + settings.value_weight * value.losses
        summed = sequence_sums(losses, rows.mask, settings.normalization, settings.constant)
        total = summed.sum()
        terms = {"loss": total} | self._logged(per_token, rows)
        if self.training:  # auxiliary losses are means over the micro-batch
            share = sequence_weight(rows.mask, settings.normalization)
            for name, auxiliary in self.model.auxiliary_losses().items():
                terms[name] = auxiliary * share
                total = total + terms[name]
        return total, {name: value.detach() for name, value in terms.items()}

    def weight(self, *batch: Any) -> float:
        """Return what the sums are divided by: tokens or sequences, by the normalization."""
        return sequence_weight(Experience(*batch).mask, self.settings.normalization)

    def _logged(
        self, per_token: dict[str, Float[Tensor, "batch time"]], rows: Experience
    ) -> dict[str, Float[Tensor, ""]]:
        """Return sums that become means over tokens, or responses, when divided by the weight."""
        by_tokens = self.settings.normalization == "token"
        of_token = torch.ones_like(rows.mean_length) if by_tokens else 1 / rows.mean_length
        of_response = rows.mean_length if by_tokens else torch.ones_like(rows.mean_length)
        mask = rows.mask
        logged = {
            name: (torch.where(mask, values.detach(), 0.0).sum(dim=1) * of_token).sum()
            for name, values in per_token.items()
        }
        responses = dict(zip(("reward", "format", "answer"), rows.rewards.unbind(1), strict=True))
        responses["length"] = mask.sum(dim=1).float()
        return logged | {name: (v * of_response).sum() for name, v in responses.items()}
