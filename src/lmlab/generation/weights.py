"""Weights for generation: float32, bfloat16 or int8, in the layout that decodes fastest."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lmlab.model.ffn.moe import MoE
from lmlab.model.layers import Embedding, Linear
from lmlab.model.position import SinusoidalPosition
from lmlab.model.products import upcasts
from lmlab.model.transformer import Transformer

Dtype = Literal["fp32", "bf16", "int8"]
Weight = Float[Tensor, "d_out d_in"]


class Packed(nn.Module, ABC):
    """A linear map for inference: `y = W x + b`, by a kernel made for its weight."""

    def __init__(self, weight: Weight, bias: Tensor | None) -> None:
        super().__init__()
        self.bias = bias
        self.pack(weight)

    @abstractmethod
    def pack(self, weight: Weight) -> None:
        """Store the weight."""

    @abstractmethod
    def product(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_out"]:
        """Return `W x`."""

    def forward(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_out"]:
        """Map the last dimension."""
        y = self.product(x)
        return y if self.bias is None else y + self.bias.to(y.dtype)


class Transposed(Packed):
    """float32, stored (d_in, d_out): a product with one row reads it in order."""

    def pack(self, weight: Weight) -> None:
        """Store the transpose."""
        self.weight = weight.float().mT.contiguous()

    def product(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_out"]:
        """Return `W x`."""
        return x @ self.weight


class BFloat16(Packed):
    """bfloat16, by the processor's own arithmetic."""

    def pack(self, weight: Weight) -> None:
        """Store the rounded weight."""
        self.weight = weight.bfloat16().contiguous()

    def product(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_out"]:
        """Return `W x`."""
        return F.linear(x, self.weight)


class UpcastBFloat16(Packed):
    """bfloat16 values held as float32, for processors without bfloat16 arithmetic."""

    def pack(self, weight: Weight) -> None:
        """Store the rounded weight as float32, transposed."""
        self.weight = weight.bfloat16().float().mT.contiguous()

    def product(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_out"]:
        """Return `W x`, rounded to bfloat16."""
        return (x.float() @ self.weight).bfloat16()


class Int8(Packed):
    """int8 with one scale for each output channel; inputs and outputs are bfloat16."""

    MULTIPLE = 64
    """torch's kernel reads whole vectors, even past the end of a row: both are padded."""

    def pack(self, weight: Weight) -> None:
        """Round to the nearest of 255 levels between minus and plus the row's largest value."""
        self.d_out, self.d_in = weight.shape
        scale = (weight.float().abs().amax(dim=1) / 127).bfloat16()
        steps = scale.float().clamp(min=torch.finfo(torch.float32).tiny)
        levels = (weight.float() / steps[:, None]).round().clamp(-127, 127).to(torch.int8)
        # torch has the kernel for the CPU only; elsewhere the product is of bfloat16.
        self.on_cpu = weight.device.type == "cpu"
        self.more_in, more_out = (
            (-size % self.MULTIPLE if self.on_cpu else 0) for size in (self.d_in, self.d_out)
        )
        self.weight = F.pad(levels, (0, self.more_in, 0, more_out))
        self.scale = F.pad(scale, (0, more_out))

    def product(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_out"]:
        """Return `W x`."""
        if not self.on_cpu:
            return F.linear(x, self.weight.to(x.dtype)) * self.scale
        rows = x.reshape(-1, self.d_in)
        if self.more_in:
            rows = F.pad(rows, (0, self.more_in))
        y = torch.ops.aten._weight_int8pack_mm(rows, self.weight, self.scale)
        if y.shape[-1] != self.d_out:
            y = y[:, : self.d_out]
        return y.reshape(*x.shape[:-1], self.d_out)


class PackedExperts(MoE):
    """A mixture of experts whose products are packed; experts without a token cost nothing."""

    @classmethod
    def of(cls, moe: MoE, make: Callable[[Weight, None], Packed]) -> "PackedExperts":
        """Return the experts of `moe`; what else it has is shared."""
        packed = cls.__new__(cls)
        nn.Module.__init__(packed)
        packed.__dict__ |= {k: v for k, v in vars(moe).items() if not k.startswith("_")}
        packed.centroids, packed.shared = moe.centroids, moe.shared
        for name in ("w1", "w2", "w3"):
            weights = getattr(moe, name).detach().unbind()
            setattr(packed, name, nn.ModuleList(make(weight, None) for weight in weights))
        return packed

    def _experts(
        self, grouped: Float[Tensor, "choices d_model"], counts: Int[Tensor, "experts"]
    ) -> Float[Tensor, "choices d_model"]:
        out = []
        for expert, rows in enumerate(grouped.split(counts.tolist())):
            if len(rows):
                w1, w2, w3 = (cast(nn.ModuleList, w)[expert] for w in (self.w1, self.w2, self.w3))
                out.append(w2(self.activation(w1(rows)) * w3(rows)))
        return torch.cat(out)


def kernel(dtype: Dtype, device: torch.device) -> type[Packed]:
    """Return the linear map that is fastest for a dtype on a device."""
    if dtype == "int8":
        return Int8
    if dtype == "bf16":
        return UpcastBFloat16 if upcasts(device, torch.bfloat16) else BFloat16
    return Transposed


@torch.no_grad()
def packed(
    model: Transformer, dtype: Dtype, make: Callable[[Weight, Tensor | None], Packed] | None = None
) -> Transformer:
    """Return a copy of the model for inference, its weights in `dtype`; norms stay float32.

    bf16 and int8 compute in bfloat16: the residual stream and the cache are bfloat16. Of int8 the
    embedding is bfloat16. `make` replaces the kernel that `kernel` would take.
    """
    make = make or kernel(dtype, next(model.parameters()).device)
    # Parameters are shared until they are replaced, so that memory holds the model once.
    memo = {id(p): p for p in (*model.parameters(), *model.buffers())}
    result = copy.deepcopy(model, memo)
    for parent in list(result.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Linear):
                bias = None if child.bias is None else child.bias.detach()
                setattr(parent, name, make(child.weight.detach(), bias))
            elif isinstance(child, MoE):
                setattr(parent, name, PackedExperts.of(child, make))
    if dtype != "fp32":
        for module in result.modules():
            if isinstance(module, Embedding):
                module.weight = nn.Parameter(module.weight.bfloat16(), requires_grad=False)
            elif isinstance(module, SinusoidalPosition):
                module.table = module.table.bfloat16()
    return result.eval()


@torch.inference_mode()
def loss_of(model: Transformer, windows: Int[Tensor, "windows time"]) -> float:
    """Return the mean cross-entropy of the tokens after the first of each window, in nats."""
    total = 0.0
    for window in windows:
        logits = model(window[None, :-1])[0].float()
        total += float(F.cross_entropy(logits, window[1:], reduction="sum"))
    return total / windows[:, 1:].numel()


def loss_cost(
    model: Transformer, dtype: Dtype, windows: Int[Tensor, "windows time"]
) -> tuple[float, float]:
    """Return the loss with the model's own weights, in nats, and what `dtype` adds to it.

    Both models are in evaluation mode meanwhile.
    """
    with evaluating(model):
        own = loss_of(model, windows)
    return own, loss_of(packed(model, dtype), windows) - own


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model into evaluation mode, and back into training mode if it was in that."""
    was = model.training
    if was:
        model.eval()
    try:
        yield
    finally:
        if was:
            model.train()
