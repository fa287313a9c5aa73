"""Losses computed on a part of the tokens at a time, so that their logits fit into memory."""

from collections.abc import Callable, Iterator, Sequence
from itertools import starmap
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lmlab.training.device import current_autocast
from lmlab.training.losses import Terms, refuse_second_derivative


def fastest_chunk(device: torch.device) -> int | None:
    """Return how many tokens at a time are fastest, measured with vocabularies up to 50,257."""
    return 1024 if device.type == "cpu" else None


@torch.compiler.disable  # type: ignore[untyped-decorator]
def chunked(
    losses: Callable[[Tensor, Tensor], Terms],
    parameters: tuple[Tensor, ...],
    hidden: Float[Tensor, "tokens d_model"],
    targets: Int[Tensor, "tokens"],
    size: int,
) -> Terms:
    """Return `losses(hidden, targets)`, sums over tokens, computed on `size` tokens at a time.

    `parameters` are those that `losses` uses. Only the sum of all terms has a gradient: it is
    carried by the first of them, and the others are detached. It can go backward once.
    """
    if not torch.is_grad_enabled():
        return _add(starmap(losses, _pieces(hidden, targets, size)))
    names: list[str] = []
    total, *values = _Chunked.apply(losses, names, size, hidden, targets, *parameters)
    terms = dict(zip(names, values, strict=True))
    first = names[0]
    # The value of the first term with the gradient of the total.
    terms[first] = terms[first] + (total - total.detach())
    return terms


def _add(parts: Any) -> Terms:
    sums: Terms = {}
    for part in parts:
        for name, value in part.items():
            sums[name] = sums[name] + value if name in sums else value
    return sums


class _Chunked(torch.autograd.Function):
    """Computes the gradients of a chunk right after its losses, while its logits are there.

    In float16 they would underflow before the loss is scaled: there the backward pass computes
    them, and the logits again.
    """

    @staticmethod
    def forward(
        ctx: Any,
        losses: Callable[[Tensor, Tensor], Terms],
        names: list[str],
        size: int,
        hidden: Tensor,
        targets: Tensor,
        *parameters: Tensor,
    ) -> tuple[Tensor, ...]:
        ctx.autocast, dtype = current_autocast(hidden)
        ctx.gradients, ctx.again = None, None
        if dtype == torch.float16:
            ctx.again = losses, size
            ctx.save_for_backward(hidden, targets, *parameters)
            sums = _add(starmap(losses, _pieces(hidden, targets, size)))
        else:
            sums, ctx.gradients = _differentiated(losses, size, hidden, targets, parameters)
        names.extend(sums)
        values = list(sums.values())
        ctx.mark_non_differentiable(*values)
        return torch.stack(values).sum(), *values

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        refuse_second_derivative()
        if ctx.again is not None:
            hidden, targets, *parameters = ctx.saved_tensors
            losses, size = ctx.again
            with ctx.autocast():
                _, gradients = _differentiated(losses, size, hidden, targets, parameters, grads[0])
        elif ctx.gradients is None:
            raise RuntimeError("a loss in chunks can go backward once")
        else:
            gradients = ctx.gradients
            ctx.gradients = None  # they are scaled in place: the head's are the largest of all
            torch._foreach_mul_(gradients, grads[0])
        hidden_grad, *parameter_grads = gradients
        return None, None, None, hidden_grad, None, *parameter_grads


def _differentiated(
    losses: Callable[[Tensor, Tensor], Terms],
    size: int,
    hidden: Tensor,
    targets: Tensor,
    parameters: Sequence[Tensor],
    scale: Tensor | None = None,
) -> tuple[Terms, list[Tensor]]:
    """Return the sums, and the gradients of all of them times `scale`: hidden's, parameters'."""
    sums: Terms = {}
    hidden_grad = torch.empty_like(hidden)
    parameter_grads: list[Tensor] = []
    pieces = zip(_pieces(hidden, targets, size), hidden_grad.split(size), strict=True)
    for (piece, piece_targets), piece_grad in pieces:
        with torch.enable_grad():
            piece = piece.detach().requires_grad_()
            terms = losses(piece, piece_targets)
            total = torch.stack(list(terms.values())).sum()
        grad, *grads = torch.autograd.grad(total, (piece, *parameters), scale)
        piece_grad.copy_(grad)
        if parameter_grads:
            torch._foreach_add_(parameter_grads, grads)
        else:
            parameter_grads = [each.contiguous() for each in grads]
        sums = _add([sums, {name: value.detach() for name, value in terms.items()}])
    return sums, [hidden_grad, *parameter_grads]


def _pieces(hidden: Tensor, targets: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(hidden.split(size), targets.split(size), strict=True)
