"""Weights for generation: float32, bfloat16 or int8, in the layout that decodes fastest."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lmlab.generation.kernels import Dtype as Dtype
from lmlab.generation.kernels import Packed, Weight, kernel
from lmlab.model.attention.heads import HeadProjections
from lmlab.model.ffn.glu import GLU
from lmlab.model.ffn.moe import MoE
from lmlab.model.layers import Embedding, Linear
from lmlab.model.position import SinusoidalPosition
from lmlab.model.transformer import Transformer

Make = Callable[[Weight, Tensor | None], Packed]
"""Makes a linear map for inference of a weight and a bias."""


class PackedGLU(nn.Module):
    """`W2(act(W1 x) * W3 x)`, W1 and W3 in one product."""

    def __init__(
        self, w1: Weight, w2: Weight, w3: Weight, activation: Callable[[Tensor], Tensor], make: Make
    ) -> None:
        super().__init__()
        self.activation = activation
        self.w13, self.w2 = make(torch.cat((w1, w3)), None), make(w2, None)

    @classmethod
    def of(cls, glu: GLU, make: Make) -> "PackedGLU":
        """Return a packed copy."""
        w1, w2, w3 = (w.weight.detach() for w in (glu.w1, glu.w2, glu.w3))
        return cls(w1, w2, w3, glu.activation, make)

    def forward(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """Return the output at each position."""
        gate, up = self.w13(x).chunk(2, dim=-1)
        y: Tensor = self.w2(self.activation(gate) * up)
        return y


class PackedExperts(MoE):
    """A mixture of experts whose products are packed; experts without a token cost nothing."""

    @classmethod
    def of(cls, moe: MoE, make: Make) -> "PackedExperts":
        """Return the experts of `moe`; what else it has is shared."""
        packed = cls.__new__(cls)
        nn.Module.__init__(packed)
        packed.__dict__ |= {k: v for k, v in vars(moe).items() if not k.startswith("_")}
        packed.centroids = moe.centroids
        shared = None if moe.shared is None else PackedGLU.of(moe.shared, make)
        setattr(packed, "shared", shared)  # noqa: B010
        stacks = (w.detach().unbind() for w in (moe.w1, moe.w2, moe.w3))
        packed.experts = nn.ModuleList(
            PackedGLU(w1, w2, w3, moe.activation, make) for w1, w2, w3 in zip(*stacks, strict=True)
        )
        return packed

    def _experts(
        self, grouped: Float[Tensor, "choices d_model"], counts: Int[Tensor, "experts"]
    ) -> Float[Tensor, "choices d_model"]:
        experts = cast(nn.ModuleList, self.experts)
        parts = zip(experts, grouped.split(counts.tolist()), strict=True)
        return torch.cat([expert(rows) for expert, rows in parts if len(rows)])


@torch.no_grad()
def packed(model: Transformer, dtype: Dtype, make: Make | None = None) -> Transformer:
    """Return a copy of the model for inference, its weights in `dtype`; norms stay float32.

    bf16 and int8 compute in bfloat16: the residual stream and the cache are bfloat16. Of int8 the
    embedding is bfloat16. `make` replaces the kernel that `kernel` would take.
    """
    make = make or kernel(dtype, next(model.parameters()).device)
    # Parameters are shared until they are replaced, so that memory holds the model once.
    copies: dict[nn.Module, nn.Module] = {}
    result = cast(Transformer, _copied(model, copies))
    result._attentions = [copies[attention] for attention in model._attentions]  # type: ignore[misc]
    _pack_children(result, make)
    result._moes = []  # they hold the weights of the model
    if dtype != "fp32":
        for module in result.modules():
            if isinstance(module, Embedding):
                module.weight = nn.Parameter(module.weight.bfloat16(), requires_grad=False)
            elif isinstance(module, SinusoidalPosition):
                module.table = module.table.bfloat16()
    return result.eval()


def _copied(module: nn.Module, copies: dict[nn.Module, nn.Module]) -> nn.Module:
    """Return a copy that shares the tensors; a deep copy takes ten times as long."""
    result = module.__class__.__new__(module.__class__)
    result.__dict__ = module.__dict__ | {
        "_parameters": dict(module._parameters),
        "_buffers": dict(module._buffers),
        "_modules": {
            name: None if child is None else _copied(child, copies)
            for name, child in module._modules.items()
        },
    }
    copies[module] = result
    return result


def _pack_children(parent: nn.Module, make: Make) -> None:
    for name, child in list(parent.named_children()):
        if isinstance(child, Linear):
            setattr(parent, name, _joined([child], make))
        elif isinstance(child, GLU):
            setattr(parent, name, PackedGLU.of(child, make))
        elif isinstance(child, MoE):
            setattr(parent, name, PackedExperts.of(child, make))
        elif isinstance(child, HeadProjections):
            child.qkv_proj = _joined([child.q_proj, child.k_proj, child.v_proj], make)
            setattr(child, "output_proj", _joined([child.output_proj], make))  # noqa: B010
            del child.q_proj, child.k_proj, child.v_proj
        else:
            _pack_children(child, make)


def _joined(layers: Sequence[Linear], make: Make) -> Packed:
    """Return one product for several layers with the same input."""
    weight = torch.cat([layer.weight.detach() for layer in layers])
    biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
    return make(weight, torch.cat(biases) if biases else None)


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
