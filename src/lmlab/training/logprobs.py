"""Log-probabilities and entropies of tokens, without the logits of all of them in memory."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lmlab.training.device import current_autocast
from lmlab.training.losses import refuse_second_derivative

Head = Callable[[Float[Tensor, "tokens d_model"]], Float[Tensor, "tokens vocab"]]
PerToken = Float[Tensor, "*batch"]


def token_log_probs(
    hidden: Float[Tensor, "*batch d_model"],
    head: nn.Module | Head,
    targets: Int[Tensor, "*batch"],
    chunk_tokens: int,
    *,
    parameters: tuple[Tensor, ...] | None = None,
) -> tuple[PerToken, PerToken]:
    """Return `log p(target)` and the entropy of each token's distribution, in nats and float32.

    The head is applied to `chunk_tokens` tokens at a time, and again in the backward pass, so each
    result can have any gradient and be differentiated more than once with `retain_graph`.
    `parameters` are those `head` uses; None: those of the module `head`. Raises ValueError when
    the shapes differ, when `chunk_tokens` is below 1, or when a function comes without parameters.
    """
    if hidden.shape[:-1] != targets.shape:
        raise ValueError(
            f"hidden states of shape {tuple(hidden.shape)} do not fit targets of shape "
            f"{tuple(targets.shape)}"
        )
    if chunk_tokens < 1:
        raise ValueError(f"chunk_tokens must be at least 1, got {chunk_tokens}")
    if parameters is None:
        if not isinstance(head, nn.Module):
            raise ValueError("a head that is a function needs its parameters")
        parameters = tuple(head.parameters())
    log_p, entropy = _TokenLogProbs.apply(
        head, chunk_tokens, hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1), *parameters
    )
    return log_p.view(targets.shape), entropy.view(targets.shape)


def _distribution(head: Head, hidden: Tensor) -> Tensor:
    return torch.log_softmax(head(hidden), dim=-1, dtype=torch.float32)


def _chosen(log_p: Tensor, targets: Tensor) -> Tensor:
    return log_p.gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def _entropy(log_p: Tensor) -> Tensor:
    return -(log_p.exp() * log_p.clamp(min=torch.finfo(torch.float32).min)).sum(dim=-1)


class _TokenLogProbs(torch.autograd.Function):
    """Computes a chunk's logits in the forward pass, and again in the backward pass.

    There a result without a gradient, as an entropy that is only logged, costs nothing.
    """

    @staticmethod
    def forward(
        ctx: Any, head: Head, size: int, hidden: Tensor, targets: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(hidden, targets, *parameters)
        ctx.set_materialize_grads(False)
        ctx.head, ctx.size = head, size
        ctx.autocast, _ = current_autocast(hidden)
        log_p = hidden.new_empty(targets.shape, dtype=torch.float32)
        entropy = torch.empty_like(log_p)
        for at in _chunks(len(hidden), size):
            distribution = _distribution(head, hidden[at])
            log_p[at], entropy[at] = _chosen(distribution, targets[at]), _entropy(distribution)
        return log_p, entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        refuse_second_derivative()
        hidden, targets, *parameters = ctx.saved_tensors
        needed = ctx.needs_input_grad
        trained = [p for p, wanted in zip(parameters, needed[4:], strict=True) if wanted]
        sums = [torch.zeros_like(p) for p in trained]
        hidden_grad = torch.zeros_like(hidden) if needed[2] else None
        for at in _chunks(len(hidden), ctx.size):
            with torch.enable_grad(), ctx.autocast():
                piece = hidden[at].detach().requires_grad_(needed[2])
                log_p = _distribution(ctx.head, piece)
                chosen = None if grads[0] is None else _chosen(log_p, targets[at])
                entropy = None if grads[1] is None else _entropy(log_p)
            inputs = [piece, *trained] if needed[2] else trained
            results = [y for y in (chosen, entropy) if y is not None]
            upstream = [grad[at] for grad in grads if grad is not None]
            found = list(torch.autograd.grad(results, inputs, upstream, allow_unused=True))
            if hidden_grad is not None:
                hidden_grad[at] = found.pop(0)
            for total, part in zip(sums, found, strict=True):
                if part is not None:
                    total += part
        by_parameter = iter(sums)
        parameter_grads = [next(by_parameter) if wanted else None for wanted in needed[4:]]
        return None, None, hidden_grad, None, *parameter_grads


def _chunks(total: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, total, size))
