"""Trajectories of a rollout, and the batches of a policy's training steps made of them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lmlab.alignment.beginnings import beginnings

PerToken = Float[Tensor, "batch time"]


class Experience(NamedTuple):
    """A batch of a policy's training step: one row for each response."""

    input_ids: Int[Tensor, "batch time"]
    labels: Int[Tensor, "batch time"]
    mask: Bool[Tensor, "batch time"]
    advantages: PerToken
    engine_log_probs: PerToken
    """Log-probabilities of the labels when the rollout was made, by the generation engine."""
    rewards: Float[Tensor, "batch parts"]
    """Total, format and answer of each response."""
    mean_length: Float[Tensor, "batch"]
    """Mean number of response tokens in the batch of all processes, the same in each row."""
    old_log_probs: PerToken | None = None
    """As `engine_log_probs`, by the training forward pass; None: they are those of this step, which
    is the only one that the rollout is used for."""
    reference_log_probs: PerToken | None = None
    """By the reference model, where there is a penalty against it."""
    old_values: PerToken | None = None
    """By the value head when the rollout was made."""
    returns: PerToken | None = None
    """What the value head should say."""
    beginnings: Int[Tensor, "batch time"] | None = None
    """Where rows are equal so far, see `lmlab.alignment.beginnings`; None in a whole rollout."""


def on_mask(
    values: Sequence[Sequence[float]], mask: Bool[Tensor, "batch time"]
) -> Float[Tensor, "batch time"]:
    """Return values of response tokens at the places of their labels, 0 elsewhere."""
    result = torch.zeros(mask.shape)
    result[mask] = torch.tensor([value for row in values for value in row])
    return result


def selected(
    trajectories: Experience, rows: Sequence[int], part: slice = slice(None)
) -> Experience:
    """Return a batch of the given rows, or of a part of them, without columns of padding alone.

    `mean_length` is that of all rows.
    """
    index = torch.tensor(rows)
    lengths = trajectories.mask[index].sum(dim=1).float()
    mine = index[part]
    used = int(trajectories.mask[mine].any(dim=0).nonzero().amax()) + 1
    width = trajectories.mask.shape[1:]
    parts: dict[str, Any] = {}
    for name, tensor in trajectories._asdict().items():
        if tensor is not None:
            tensor = tensor[mine]
            tensor = tensor[:, :used] if tensor.shape[1:] == width else tensor
        parts[name] = tensor
    parts["beginnings"] = beginnings(parts["input_ids"], parts["mask"])
    parts["mean_length"] = lengths.mean().expand(len(mine)).clone()
    return Experience(**parts)


def at_last_token(
    values: Float[Tensor, "batch"], mask: Bool[Tensor, "batch time"]
) -> Float[Tensor, "batch time"]:
    """Return the values at the last response token of each row, 0 elsewhere."""
    last = mask.cumsum(dim=1).argmax(dim=1)  # the first place where the count is complete
    return torch.zeros(mask.shape).scatter_(1, last[:, None], values[:, None])
