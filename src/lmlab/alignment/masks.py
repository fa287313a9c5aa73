"""Sums and means over the tokens of responses."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lmlab.alignment.config import Normalization


def until_last(mask: Bool[Tensor, "batch time"]) -> Bool[Tensor, "batch time"]:
    """Return where a row's mask is true there or later: all but padding and what changes no loss.

    `mask` is where labels are learnt.
    """
    return mask.flip(1).cumsum(dim=1).flip(1) > 0


def masked_mean(
    values: Float[Tensor, "..."], mask: Float[Tensor, "..."], dim: int | None = None
) -> Float[Tensor, "..."]:
    """Return the mean of the values where `mask` is 1, over `dim` or everything.

    NaN where the mask is empty: such a mean has no value.
    """
    return masked_normalize(values, mask, mask.to(values).sum(dim=dim), dim)


def masked_normalize(
    values: Float[Tensor, "..."],
    mask: Float[Tensor, "..."],
    constant: float | Float[Tensor, "..."],
    dim: int | None = None,
) -> Float[Tensor, "..."]:
    """Return the sum of the values where `mask` is 1, over `dim` or everything, over `constant`."""
    # Not a product, which would make NaN of an infinite value outside of the mask.
    return torch.where(mask.bool(), values, 0.0).sum(dim=dim) / constant


def sequence_sums(
    values: Float[Tensor, "batch time"],
    mask: Float[Tensor, "batch time"],
    normalization: Normalization,
    constant: float = 1.0,
) -> Float[Tensor, "batch"]:
    """Return what each sequence adds to a batch's loss before its division by `sequence_weight`.

    `token`: the sum over its tokens, so that all tokens of a batch count alike (DAPO, Yu et al.
    2025). `sequence`: the mean over its tokens, so that all sequences count alike (GRPO, Shao et
    al. 2024); NaN for a sequence without tokens. `constant`: the sum over a constant (Dr. GRPO,
    Liu et al. 2025).
    """
    if normalization == "sequence":
        return masked_mean(values, mask, dim=-1)
    return masked_normalize(values, mask, constant if normalization == "constant" else 1.0, dim=-1)


def sequence_weight(mask: Float[Tensor, "batch time"], normalization: Normalization) -> float:
    """Return what the sum of `sequence_sums` is divided by: tokens, or sequences with tokens."""
    if normalization == "token":
        return float(mask.sum().item())
    return float(mask.bool().any(dim=-1).sum().item())
