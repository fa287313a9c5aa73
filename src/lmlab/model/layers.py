"""Linear, Embedding and the functions of a Transformer."""

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TypeGuard

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lmlab.kernels.parts import join_rows, split_parts
from lmlab.model.init import truncated_normal_
from lmlab.model.products import Product, linear, upcasts
from lmlab.processor import computed_here


class Linear(nn.Module):
    """Linear map `y = W x`, plus b if `bias`; weight (d_out, d_in).

    Initial W: N(0, 2 / (d_in + d_out)) truncated at 3 sigma (Glorot and Bengio 2010); initial b: 0.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        d_in: int,
        d_out: int,
        *,
        bias: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(d_out, d_in, device=device, dtype=dtype))
        empty = partial(torch.empty, d_out, device=device, dtype=dtype)
        self.bias = nn.Parameter(empty()) if bias else None
        self.product: Product = linear
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw initial weights."""
        d_out, d_in = self.weight.shape
        truncated_normal_(self.weight, std=(2 / (d_in + d_out)) ** 0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_out"]:
        """Return `W x + b` over the last dimension."""
        y = self.product(x, self.weight)
        return y if self.bias is None else y + self.bias.to(y.dtype)


def parallel_linear(
    x: Float[Tensor, "... d_in"], *layers: nn.Module
) -> tuple[Float[Tensor, "... d_out"], ...]:
    """Return the output of each layer for the same input.

    In half precision on the CPU it is one product: `x` and its gradient are converted once.
    """
    weights = [layer.weight for layer in layers if _only_multiplies(layer)]
    dtype = torch.get_autocast_dtype("cpu")
    joined = computed_here(x) and torch.is_autocast_enabled("cpu") and torch.is_grad_enabled()
    if not joined or upcasts(x.device, dtype) or len(weights) < len(layers):
        return tuple(layer(x) for layer in layers)
    sizes = [len(weight) for weight in weights]
    if torch.compiler.is_compiling():
        return linear(x, torch.cat([weight.to(dtype) for weight in weights])).split(sizes, dim=-1)
    return split_parts(linear(x, join_rows(dtype, *weights)), sizes)


def _only_multiplies(layer: nn.Module) -> TypeGuard[Linear]:
    """Return whether a layer is a product without a bias, hooks, or a divided weight."""
    return (
        type(layer) is Linear
        and layer.product is linear
        and layer.bias is None
        and type(layer.weight) is nn.Parameter
        and not (layer._forward_hooks or layer._forward_pre_hooks)
    )


class Embedding(nn.Module):
    """Table of vectors by id; weight (num_embeddings, d_model).

    Initial weight: N(0, 1) truncated at 3.
    """

    def __init__(
        self,
        num_embeddings: int,
        d_model: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_embeddings, d_model, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw initial weights."""
        truncated_normal_(self.weight, std=1.0)

    def forward(self, ids: Int[Tensor, "..."]) -> Float[Tensor, "... d_model"]:
        """Return the vector of each id."""
        return F.embedding(ids, self.weight)  # weight[ids] has a slow backward pass


def silu(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return `x * sigmoid(x)` (Elfwing et al. 2018)."""
    return x * torch.sigmoid(x)


def softmax(x: Float[Tensor, "..."], dim: int = -1) -> Float[Tensor, "..."]:
    """Return the softmax over `dim`; the maximum is subtracted first, against overflow."""
    exponentials = torch.exp(x - x.amax(dim=dim, keepdim=True))
    return exponentials / exponentials.sum(dim=dim, keepdim=True)


def softcap(x: Float[Tensor, "..."], cap: float) -> Float[Tensor, "..."]:
    """Return `cap * tanh(x / cap)`: close to x when x is small, bounded by the cap."""
    return cap * torch.tanh(x / cap)


def scaled_dot_product_attention(
    q: Float[Tensor, "... queries d_k"],
    k: Float[Tensor, "... keys d_k"],
    v: Float[Tensor, "... keys d_v"],
    mask: Bool[Tensor, "... queries keys"] | None = None,
    *,
    logit_softcap: float | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "... queries d_v"]:
    """Return `softmax(Q K^T / sqrt(d_k)) V` (Vaswani et al. 2017, section 3.2.1).

    Where `mask` is False the probability is exactly 0; a query with no key returns 0. The scores
    can be soft-capped before the softmax, and probabilities dropped after it.
    """
    scores = q @ k.mT * q.shape[-1] ** -0.5
    if logit_softcap is not None:
        scores = softcap(scores, logit_softcap)
    if mask is not None:
        # The lowest finite number instead of -inf: the softmax of a row of -inf is NaN.
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    probabilities = softmax(scores)
    if mask is not None:
        probabilities = probabilities.masked_fill(~mask, 0.0)
    if dropout > 0:
        probabilities = F.dropout(probabilities, dropout)
    return probabilities @ v


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Return a context without autocast on the device."""
    if device.type == "meta":  # has no autocast
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
