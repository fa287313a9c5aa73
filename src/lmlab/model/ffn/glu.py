"""Gated feed-forward networks (Shazeer 2020); `GATES` holds the activations."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lmlab.kernels import native
from lmlab.kernels.once import once_differentiable
from lmlab.model.ffn.config import GateActivation
from lmlab.model.layers import Linear, parallel_linear

GATES: dict[GateActivation, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,  # one kernel; layers.silu is the definition
}


def gated(
    activation: Callable[[Tensor], Tensor],
    gate: Float[Tensor, "... d_ff"],
    value: Float[Tensor, "... d_ff"],
) -> Float[Tensor, "... d_ff"]:
    """Return `activation(gate) * value`: silu on the CPU in one pass, with the gradients in one."""
    if (
        activation is F.silu
        and not torch.compiler.is_compiling()
        and native.computes(gate, value)
        and gate.dtype == value.dtype
        and gate.dtype in native.DTYPES
        and gate.shape == value.shape
    ):
        if not torch.is_grad_enabled():
            return native.gate(gate, value)
        out = _SiluGate.apply(gate, value)
        assert isinstance(out, Tensor)
        return out
    return activation(gate) * value


class _SiluGate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(gate, value)
        return native.gate(gate, value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        return native.gate_backward(grad, *ctx.saved_tensors)


class GLU(nn.Module):
    """`W2(act(W1 x) * W3 x)`."""

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        activation: GateActivation = "silu",
        *,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.activation = GATES[activation]
        self.w1 = Linear(d_model, d_ff, device=device)
        self.w2 = Linear(d_ff, d_model, device=device)
        self.w3 = Linear(d_model, d_ff, device=device)

    def forward(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """Return the output at each position."""
        gate, value = parallel_linear(x, self.w1, self.w3)
        return self.w2(gated(self.activation, gate, value))


class SwiGLU(GLU):
    """`W2(SiLU(W1 x) * W3 x)`, the gate of Llama and PaLM."""

    def __init__(self, d_model: int, d_ff: int, *, device: torch.device | str | None = None):
        super().__init__(d_model, d_ff, "silu", device=device)
