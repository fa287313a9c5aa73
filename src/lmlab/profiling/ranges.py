"""Named ranges in a profile: the blocks of a model, their parts, and the steps of attention."""

import contextlib
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.profiler import record_function

from lmlab.model import layers
from lmlab.model.attention import backends
from lmlab.model.attention.heads import HeadProjections
from lmlab.model.ffn.glu import GLU
from lmlab.model.ffn.mlp import MLP
from lmlab.model.ffn.moe import MoE
from lmlab.model.norm import LayerNorm, RMSNorm
from lmlab.model.transformer import Transformer
from lmlab.profiling.trace import BLOCK

PRODUCTS = {torch.Tensor.__matmul__, torch.Tensor.matmul, torch.matmul}
SCORES, SOFTMAX, PRODUCT = "attention scores", "attention softmax", "attention product"


@contextlib.contextmanager
def named_ranges(model: Transformer) -> Iterator[None]:
    """Name what the model does while the block runs; it must not be compiled.

    The eager backend of attention is named in its three steps: scores, softmax and product.
    """
    handles = []
    for module, name in parts(model):
        handles += _ranged(module, name)
    attend = layers.scaled_dot_product_attention

    def stepwise(*args: Any, **kwargs: Any) -> Tensor:
        with _Products():
            return attend(*args, **kwargs)

    try:
        with (
            _replaced(layers, "softmax", _named(SOFTMAX, layers.softmax)),
            _replaced(backends, "scaled_dot_product_attention", stepwise),
        ):
            yield
    finally:
        for handle in handles:
            handle.remove()


def parts(model: Transformer) -> Iterator[tuple[nn.Module, str]]:
    """Yield the modules that get a range of their own, and its name."""
    yield model.token_embedding, "embedding"
    yield model.lm_head, "output head"
    for number, block in enumerate(model.blocks):
        yield block, f"{BLOCK}{number}"
    for module in model.modules():
        if isinstance(module, HeadProjections):
            yield module, "attention"
        elif isinstance(module, GLU | MLP | MoE):
            yield module, "feed-forward"
        elif isinstance(module, RMSNorm | LayerNorm):
            yield module, "norm"


def _ranged(module: nn.Module, name: str) -> list[Any]:
    open_ranges: list[record_function] = []

    def enter(*_: object) -> None:
        entered = record_function(name)
        entered.__enter__()
        open_ranges.append(entered)

    def leave(*_: object) -> None:
        open_ranges.pop().__exit__(None, None, None)

    return [
        module.register_forward_pre_hook(enter),
        module.register_forward_hook(leave, always_call=True),
    ]


@contextlib.contextmanager
def _replaced(module: ModuleType, name: str, value: Callable[..., Tensor]) -> Iterator[None]:
    original = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, original)


def _named(name: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def named(*args: Any, **kwargs: Any) -> Tensor:
        with record_function(name):
            return function(*args, **kwargs)

    return named


class _Products(TorchFunctionMode):
    """Names the first matrix product inside of it the scores, and the second one the product."""

    def __init__(self) -> None:
        super().__init__()
        self.names = iter((SCORES, PRODUCT))

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if function not in PRODUCTS:
            return function(*args, **kwargs)
        with record_function(next(self.names, PRODUCT)):
            return function(*args, **kwargs)
