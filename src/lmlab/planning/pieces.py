"""What the pieces of a model - embedding, blocks, head with the loss - hold in memory.

Each piece runs once forward and backward on fake tensors, so that every choice of the model is
counted as autograd keeps it: results that the backward pass needs, and what is there besides at the
fullest moment. Compiled models keep less.
"""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from lmlab.model import build
from lmlab.model.attention.choice import choose
from lmlab.model.attention.config import LayerAttentionConfig, of_layer
from lmlab.model.attention.masks import AttentionPattern
from lmlab.model.attention.softmax import SoftmaxAttention
from lmlab.model.config import ModelConfig
from lmlab.model.context import Context
from lmlab.model.transformer import Transformer
from lmlab.planning.live import LiveBytes, fake
from lmlab.training.objective import NextToken


@dataclass(frozen=True)
class Piece:
    """A part of the model; bytes of one micro-batch besides its parameters."""

    parameters: int
    """Number of its own parameters."""
    largest: int
    """Number of the elements of the largest of them."""
    input: int
    """Its input, 0 when the backward pass does not need it."""
    whole_input: int
    """Its input, which activation checkpointing keeps."""
    saved: int
    """Kept from its forward pass to its backward pass, without input and output."""
    forward: int
    """Most in the forward pass, its output included."""
    backward: int
    """Most in the backward pass: `saved`, gradients of activations and of its parameters."""
    backward_without_gradients: int
    """The same without accumulated gradients of parameters."""


@dataclass(frozen=True)
class Pieces:
    """A model, cut at its blocks."""

    stem: Piece
    blocks: tuple[Piece, ...]
    head: Piece
    """Final norm, output head and loss."""
    total: int
    """Number of the model's parameters; those that stem and head share count once."""
    tensors: int
    """Number of the model's parameter tensors."""
    width: int
    """Width of the residual stream."""

    @property
    def root(self) -> int:
        """Number of the parameters outside of blocks."""
        return self.total - sum(block.parameters for block in self.blocks)

    def owned(self, devices: int) -> float:
        """Return the share of the parameters of the device that owns most, in whole tensors."""
        largest = max(piece.largest for piece in (self.stem, *self.blocks, self.head))
        return max(1 / devices, largest / self.total)


def trace(
    config: ModelConfig,
    vocab_size: int,
    sequences: int,
    *,
    autocast: torch.dtype | None,
    in_blocks: torch.dtype = torch.float32,
    chunk_tokens: int | None = None,
) -> Pieces:
    """Return the pieces of a model that predicts next tokens of a micro-batch of `sequences`.

    `autocast` is the dtype of matrix products, None: that of the parameters; `in_blocks` is the
    dtype of the blocks' parameters, of others float32. Blocks with the same attention are run once.
    """
    model = build(config, vocab_size, device="meta")
    sizes = [p.numel() for p in model.parameters()]
    with FakeTensorMode():
        fake(model.blocks, in_blocks)
        fake(model)
        for attention in (m for m in model.modules() if isinstance(m, SoftmaxAttention)):
            # Fused kernels save the same: queries, keys, values, output and a number for each row.
            if _on_gpu(attention, model.context_length) != "eager":
                attention.backend, attention.logit_softcap = "sdpa", None
        ids = torch.zeros(sequences, model.context_length, dtype=torch.long)
        stem, head = _Stem(model), _Head(model, chunk_tokens)
        with torch.no_grad(), _autocast(autocast):
            x = stem(ids)
            rotation = model.position.rotation(torch.arange(model.context_length))
        context = Context(rotation=rotation)
        blocks, seen = list[Piece](), dict[LayerAttentionConfig, Piece]()
        for layer, block in enumerate(model.blocks):
            key = of_layer(config.attention, layer)
            if key not in seen:
                seen[key] = _measure(block, (x, context), autocast)
            blocks.append(seen[key])
        with torch.no_grad(), _autocast(autocast):
            x = model.blocks[-1](x, context)
        first = _measure(stem, (ids,), autocast)
        last = _measure(head, (x, ids), autocast)
    return Pieces(first, tuple(blocks), last, sum(sizes), len(sizes), config.d_model)


def _on_gpu(attention: SoftmaxAttention, length: int) -> str:
    """Return the backend that computes an attention on a GPU."""
    return choose(
        attention.backend,
        "cuda",
        attention.head_dim,
        AttentionPattern(attention.mask),
        length,
        attention.logit_softcap,
        attention.dropout,
        torch.bfloat16,
    )


def _autocast(dtype: torch.dtype | None) -> Any:
    # A new context for each pass: its cache of cast weights ends with it.
    return torch.autocast("cpu", dtype=dtype) if dtype else nullcontext()


def _measure(module: nn.Module, inputs: tuple[Any, ...], autocast: torch.dtype | None) -> Piece:
    """Run a piece forward and backward."""
    x = inputs[0]
    if x.is_floating_point():
        x = x.detach().requires_grad_()
    size = x.untyped_storage().nbytes()
    keeps_input = _keeps_input(module, (x, *inputs[1:]), autocast)
    with LiveBytes(module) as live:
        for tensor in (x, *(t for t in inputs[1:] if isinstance(t, Tensor))):
            live.ignore(tensor)
        with _autocast(autocast):
            out = module(x, *inputs[1:])
        forward = live.peak
        # The output is the input of the next piece; the loss at the end is a number.
        output = out.untyped_storage().nbytes() if out.ndim else 0
        saved = live.now - output
        live.restart()
        out.backward(torch.empty_like(out))
        backward, without = live.peak - output, live.peak_without_grads - output
    parameters = list(module.parameters())
    for parameter in parameters:
        parameter.grad = None
    return Piece(
        parameters=sum(p.numel() for p in parameters),
        largest=max((p.numel() for p in parameters), default=0),
        input=size if keeps_input else 0,
        whole_input=size,
        saved=saved,
        forward=forward,
        backward=backward,
        backward_without_gradients=without,
    )


def _keeps_input(module: nn.Module, inputs: tuple[Any, ...], autocast: torch.dtype | None) -> bool:
    """Whether the backward pass needs the first input."""
    kept = set()

    def pack(tensor: Tensor) -> Tensor:
        kept.add(id(tensor.untyped_storage()))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), _autocast(autocast):
        module(*inputs)
    return id(inputs[0].untyped_storage()) in kept


class _Stem(nn.Module):
    """Token embedding and position, as `Transformer.hidden` has them."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.embedding, self.position, self.dropout = (
            model.token_embedding,
            model.position,
            model.dropout,
        )
        self.scale = model.embedding_scale

    def forward(self, ids: Tensor) -> Float[Tensor, "batch time d_model"]:
        """Return the input of the first block."""
        x = self.embedding(ids)
        if self.scale is not None:
            x = x * self.scale
        return self.dropout(self.position.add(x, torch.arange(ids.shape[1])))


class _Head(nn.Module):
    """Final norm, output head and loss, as `NextToken` computes them."""

    def __init__(self, model: Transformer, chunk_tokens: int | None) -> None:
        super().__init__()
        self.final_norm, self.lm_head = model.final_norm, model.lm_head
        self._logits = model.logits
        self._objective = [NextToken(self, chunk_tokens=chunk_tokens)]  # a list: not a child
        self._objective[0].eval()  # auxiliary losses belong to the blocks

    def hidden(self, x: Tensor) -> Tensor:
        """Return the input of the output head."""
        return self.final_norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits."""
        return self._logits(hidden)

    def auxiliary_losses(self) -> dict[str, Tensor]:
        """Return none."""
        return {}

    def forward(self, x: Tensor, targets: Tensor) -> Tensor:
        """Return the loss."""
        return self._objective[0](x, targets)[0]
