"""Mixture of experts without capacities: tokens are sorted by expert."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lmlab.model.ffn.config import MoEConfig, RouterSoftmax
from lmlab.model.ffn.experts import (
    groupable,
    grouped_experts,
    joinable,
    joined_experts,
    looped_experts,
    without_data,
)
from lmlab.model.ffn.glu import GATES, GLU
from lmlab.model.init import truncated_normal_
from lmlab.model.layers import full_precision
from lmlab.model.products import Product, linear

Logits = Float[Tensor, "tokens experts"]
Chosen = tuple[Float[Tensor, "tokens k"], Int[Tensor, "tokens k"]]


class Routing(NamedTuple):
    """Statistics of the routing in one forward pass, of the tokens that count."""

    load: Float[Tensor, "experts"]
    """Fraction of the choices of each expert."""
    balance: Float[Tensor, ""]
    """`num_experts * sum_i load_i * probability_i`: 1: balanced, num_experts: worst."""
    z: Float[Tensor, ""]
    """Mean squared logsumexp of the router's logits."""


def softmax_before(logits: Logits, k: int) -> Chosen:
    """Return the k largest probabilities among all experts, and their experts."""
    return _pair(torch.softmax(logits, dim=-1).topk(k))


def softmax_after(logits: Logits, k: int) -> Chosen:
    """Return the softmax over the k largest logits, and their experts (Jiang et al. 2024)."""
    top, experts = _pair(logits.topk(k))
    return torch.softmax(top, dim=-1), experts


def _pair(top: Any) -> Chosen:
    return top.values, top.indices


ROUTERS: dict[RouterSoftmax, Callable[[Logits, int], Chosen]] = {
    "before": softmax_before,
    "after": softmax_after,
}


class MoE(nn.Module):
    """`sum_i g_i FFN_i(u)` over the experts with the largest `u . e_i`, plus the shared ones.

    `routing` holds the statistics of the last forward pass in training mode.
    """

    def __init__(
        self,
        config: MoEConfig,
        d_model: int,
        d_ff: int,
        *,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.num_experts = config.num_experts * config.granularity
        self.top_k = config.top_k * config.granularity
        self.load_balancing_loss = config.load_balancing_loss
        self.router_z_loss = config.router_z_loss
        self.choose = ROUTERS[config.router_softmax]
        self.activation = GATES[config.activation]
        self.routing: Routing | None = None
        self.counted: Bool[Tensor, "*batch time"] | None = None
        """Tokens that count in `routing`; None: all."""
        self.product: Product = linear
        width = d_ff // config.granularity

        def weights(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(*shape, device=device))

        self.centroids = weights(self.num_experts, d_model)
        self.w1 = weights(self.num_experts, width, d_model)
        self.w2 = weights(self.num_experts, d_model, width)
        self.w3 = weights(self.num_experts, width, d_model)
        self.reset_parameters()
        # The sum of n experts on the same input is one expert n times as wide.
        shared = config.shared_experts * width
        self.shared = GLU(d_model, shared, config.activation, device=device) if shared else None

    def reset_parameters(self) -> None:
        """Draw initial weights of router and routed experts: N(0, 2 / (d_in + d_out))."""
        for weight in (self.centroids, self.w1, self.w2, self.w3):
            truncated_normal_(weight, std=(2 / (weight.shape[-2] + weight.shape[-1])) ** 0.5)

    def forward(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """Return the mixture at each position; the router computes in float32."""
        tokens = x.reshape(-1, x.shape[-1])
        with full_precision(x.device):
            logits = linear(tokens.float(), self.centroids.float())
        gates, experts = self.choose(logits, self.top_k)
        counts = _counts(experts, self.num_experts)
        if self.training:
            self.routing = _routing(logits, experts, counts, self.counted)
        order = experts.flatten().argsort(stable=True)
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(len(order), device=order.device)
        grouped = _Scatter.apply(tokens, order, inverse, self.top_k)
        out = self._experts(grouped, counts)
        out = _Gather.apply(out, order, inverse).unflatten(0, (-1, self.top_k))
        mixed = (gates.to(out.dtype).unsqueeze(-2) @ out).squeeze(-2).view_as(x)
        return mixed if self.shared is None else mixed + self.shared(x)

    def _experts(
        self, grouped: Float[Tensor, "choices d_model"], counts: Int[Tensor, "experts"]
    ) -> Float[Tensor, "choices d_model"]:
        weights = (self.w1, self.w2, self.w3)
        plain = self.product is linear
        if plain and grouped.device.type == "cuda" and groupable(grouped, self.w2):
            return grouped_experts(grouped, counts, *weights, self.activation)
        if plain and joinable(grouped, *weights):
            return joined_experts(grouped, counts, *weights, self.activation)
        return looped_experts(grouped, counts, *weights, self.activation, self.product)


def _counts(experts: Int[Tensor, "tokens k"], num_experts: int) -> Int[Tensor, "experts"]:
    if without_data(experts):
        return torch.empty(num_experts, dtype=torch.long, device=experts.device)
    return torch.bincount(experts.flatten(), minlength=num_experts)


def _routing(
    logits: Logits,
    experts: Int[Tensor, "tokens k"],
    counts: Int[Tensor, "experts"],
    counted: Bool[Tensor, "*batch time"] | None,
) -> Routing:
    probabilities = torch.softmax(logits, dim=-1)
    squares = torch.logsumexp(logits, dim=-1).square()
    if counted is None:
        load, probability, z = counts / counts.sum(), probabilities.mean(dim=0), squares.mean()
    else:
        ones = counted.reshape(-1, 1).long()
        counts = torch.zeros_like(counts).index_add_(
            0, experts.flatten(), ones.expand_as(experts).flatten()
        )
        load = counts / counts.sum().clamp(min=1)
        share = ones / ones.sum().clamp(min=1)
        probability, z = (share * probabilities).sum(dim=0), (share[:, 0] * squares).sum()
    return Routing(load, len(load) * (load * probability).sum(), z)


class _Scatter(torch.autograd.Function):
    """Copy each token to its k places; the gradient is their sum, without atomic adds."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor, k: int) -> Tensor:
        ctx.save_for_backward(inverse)
        ctx.k = k
        return x[order // k]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (inverse,) = ctx.saved_tensors
        return grads[0][inverse].unflatten(0, (-1, ctx.k)).sum(dim=1), None, None, None


class _Gather(torch.autograd.Function):
    """Undo the order; the gradient restores it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(order)
        return x[inverse]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (order,) = ctx.saved_tensors
        return grads[0][order], None, None
