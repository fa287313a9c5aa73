"""Backward passes that have no derivative of their own."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Return the backward pass of a Function, through which a second derivative is a RuntimeError.

    torch's own returns constants where the gradient it is given is one, as that of a sum: a second
    derivative would be 0 without a word.
    """
    once = torch.autograd.function.once_differentiable(backward)

    @wraps(backward)
    def differentiate(ctx: Any, *grads: Tensor | None) -> Any:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():  # create_graph=True
            grads = tuple(None if g is None else g.detach().requires_grad_() for g in grads)
        return once(ctx, *grads)

    return differentiate
