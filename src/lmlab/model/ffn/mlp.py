"""Feed-forward networks without a gate; `ACTIVATIONS` holds the activations."""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lmlab.model.ffn.config import MLPActivation
from lmlab.model.layers import Linear

ACTIVATIONS: dict[MLPActivation, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,  # one kernel; layers.silu is the definition
    "relu2": lambda x: torch.relu(x).square(),
}


class MLP(nn.Module):
    """`W2 act(W1 x)`."""

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        activation: MLPActivation,
        *,
        bias: bool = False,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.w1 = Linear(d_model, d_ff, bias=bias, device=device)
        self.w2 = Linear(d_ff, d_model, bias=bias, device=device)

    def forward(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """Return the output at each position."""
        return self.w2(self.activation(self.w1(x)))
