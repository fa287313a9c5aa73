"""Log-probabilities of labels and entropies of next-token distributions, in nats."""

from typing import NamedTuple, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lmlab.kernels.onednn import ROW_MULTIPLE
from lmlab.training.logprobs import token_log_probs


class Policy(Protocol):
    """What is needed of a language model."""

    @property
    def lm_head(self) -> nn.Module:
        """The module with the parameters of `logits`."""

    def logits(self, hidden: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch vocab"]:
        """Return the logits of hidden states."""


class TokenStats(NamedTuple):
    """What a model says of each label."""

    log_probs: Float[Tensor, "batch time"]
    """`log p(label)`."""
    entropy: Float[Tensor, "batch time"]
    """Entropy of the distribution that the label was drawn from."""


def log_probabilities(
    logits: Float[Tensor, "*batch vocab"], labels: Int[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """Return `logits[label] - logsumexp(logits)` in float32: the log-probability of each label."""
    logits = logits.float()
    chosen = logits.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    return chosen - torch.logsumexp(logits, dim=-1)


def entropy(logits: Float[Tensor, "*batch vocab"]) -> Float[Tensor, "*batch"]:
    """Return `logsumexp(logits) - sum p logits` in float32; an impossible token adds nothing."""
    logits = logits.float()
    p = torch.softmax(logits, dim=-1)
    finite = logits.clamp(min=torch.finfo(logits.dtype).min)
    return torch.logsumexp(logits, dim=-1) - (p * finite).sum(dim=-1)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def policy_log_probabilities(
    policy: Policy,
    hidden: Float[Tensor, "batch time d_model"],
    labels: Int[Tensor, "batch time"],
    mask: Bool[Tensor, "batch time"] | None = None,
    *,
    chunk_tokens: int | None = None,
) -> TokenStats:
    """Return the log-probability of each label and the entropy, with gradients; 0 off the mask.

    `hidden` are the policy's hidden states. Only those on the mask go through its head,
    `chunk_tokens` at a time; None: together.
    """
    if mask is None:
        mask = torch.ones_like(labels, dtype=torch.bool)
    learnt = labels[mask]
    more = -len(learnt) % ROW_MULTIPLE
    found = token_log_probs(
        F.pad(hidden[mask], (0, 0, 0, more)),
        policy.logits,
        F.pad(learnt, (0, more)),
        chunk_tokens or max(1, labels.numel() + more),
        parameters=tuple(policy.lm_head.parameters()),
    )
    return TokenStats(*(torch.zeros(mask.shape).to(x).masked_scatter(mask, x) for x in found))
