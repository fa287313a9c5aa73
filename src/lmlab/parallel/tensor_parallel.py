"""Tensor parallelism: heads and feed-forward widths divided among processes, by DTensors."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, ClassVar

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

from lmlab.errors import ConfigError
from lmlab.kernels.low_precision import ALIGNMENT
from lmlab.parallel.config import ShardedWeightsConfig
from lmlab.parallel.division import Division
from lmlab.parallel.fsdp import FSDP, gather_whole
from lmlab.parallel.initial import materialize

Product = Callable[[Tensor, Tensor], Tensor]
PROJECTIONS = ("q_proj", "k_proj", "v_proj")


class TensorParallel(FSDP):
    """Each process has some heads of each attention and some columns of each feed-forward.

    The first matrices are divided by rows of their weight, the last one by columns, so that a block
    needs two all-reduces forward and two backward (Shoeybi et al. 2019, section 3). Everything else
    is the same in all processes of a group: embedding, norms, head, and the routed experts of a
    mixture. `mesh` has the dimensions "data" and "tensor"; groups along "data" are FSDP.
    """

    sharded: ClassVar[bool] = True

    def __init__(self, config: ShardedWeightsConfig, mesh: DeviceMesh, precision: str) -> None:
        super().__init__(config, mesh["data"], precision)
        self.tensor = mesh["tensor"]
        self.multiple = ALIGNMENT if precision == "fp8" else 1
        """Columns of each process are a multiple of it."""
        self.between_groups = self.mesh.size() > 1
        self.division = Division(
            weights=mesh.size(), optimizer_state=mesh.size(), activations=self.tensor.size()
        )
        self._of_heads: list[nn.Module] = []
        """Modules used for the heads of this process alone: their gradients are parts."""

    def check(self, model: nn.Module) -> None:
        """Raise ConfigError for heads or widths that are not divisible, and for what cannot be."""
        size = self.tensor.size()
        for attention in _attentions(model):
            for key, heads in (
                ("model.num_heads", attention.num_heads),
                ("model.attention.num_kv_heads", attention.num_kv_heads),
            ):
                if heads % size:
                    raise ConfigError(
                        key,
                        f"{heads} heads are not divisible among the {size} processes of "
                        "parallel=tp; choose a multiple, or set parallel.size to a divisor",
                    )
                self._require_multiple(key, heads * attention.head_dim)
            if getattr(attention, "dropout", 0.0) > 0:
                raise ConfigError(
                    "model.attention.dropout",
                    f"{attention.dropout:g} would drop the same weights in the heads of all "
                    "processes of parallel=tp; set it to 0, or use parallel=fsdp",
                )
        for ffn in _feed_forwards(model):
            width = ffn.w1.weight.shape[0]
            if width % size:
                raise ConfigError(
                    "model.d_ff",
                    f"{width} is not divisible among the {size} processes of parallel=tp; choose "
                    "a multiple, or set parallel.size to a divisor",
                )
            self._require_multiple("model.d_ff", width)

    def _require_multiple(self, key: str, width: int) -> None:
        """Raise ConfigError when float8 products do not take a process's part of a width."""
        size = self.tensor.size()
        if width // size % self.multiple:
            raise ConfigError(
                key,
                f"a width of {width} leaves {width // size} to each of the {size} processes of "
                f"parallel=tp, and trainer.precision=fp8 needs multiples of {self.multiple}; "
                "change the width, or use mxfp8",
            )

    def wrap(self, objective: nn.Module, model: nn.Module) -> nn.Module:
        """Divide the layers of the blocks in place, then shard them between groups."""
        size = self.tensor.size()
        for attention in _attentions(model):
            for name in PROJECTIONS:
                _divide_rows(attention.get_submodule(name), self.tensor)
            _divide_columns(attention.get_submodule("output_proj"), self.tensor)
            attention.num_heads //= size
            attention.num_kv_heads //= size
            attention.register_forward_pre_hook(partial(_enter, self.tensor))
            self._of_heads += [attention.get_submodule("q_norm"), attention.get_submodule("k_norm")]
        for ffn in _feed_forwards(model):
            for name in ("w1", "w3"):
                if hasattr(ffn, name):
                    _divide_rows(ffn.get_submodule(name), self.tensor)
            _divide_columns(ffn.get_submodule("w2"), self.tensor)
            ffn.register_forward_pre_hook(partial(_enter, self.tensor))
        if self.between_groups:
            return super().wrap(objective, model)
        materialize(model, self.mesh.device_type)
        return objective

    @contextmanager
    def accumulating(self) -> Iterator[None]:
        """Enter the context of FSDP; inside a group gradients need no synchronization."""
        with super().accumulating() if self.between_groups else nullcontext():
            yield

    def finish_gradients(self) -> None:
        """Add up the gradients that come from the heads of each process."""
        for parameter in (p for module in self._of_heads for p in module.parameters()):
            if (grad := parameter.grad) is not None:
                part = grad.to_local() if isinstance(grad, DTensor) else grad
                dist.all_reduce(part, group=self.tensor.get_group())

    def full_weights(self, model: nn.Module) -> dict[str, Tensor]:
        """Gather the whole weights on rank 0, in CPU memory; empty on other ranks."""
        return gather_whole(model)


def _attentions(model: nn.Module) -> Iterator[Any]:
    return (module for module in model.modules() if hasattr(module, "q_proj"))


def _feed_forwards(model: nn.Module) -> Iterator[Any]:
    """Yield the modules of two or three matrices; experts are tensors of a module instead."""
    return (m for m in model.modules() if isinstance(getattr(m, "w1", None), nn.Module))


def _enter(
    mesh: DeviceMesh, module: nn.Module, inputs: tuple[Tensor, *tuple[Any, ...]]
) -> tuple[Any, ...]:
    """Pass the input on; its gradient is the sum over the group (f of Megatron-LM)."""
    x, *rest = inputs
    whole = DTensor.from_local(x, mesh, [Replicate()], run_check=False)
    return whole.to_local(grad_placements=[Partial()]), *rest


def _divide_rows(layer: Any, mesh: DeviceMesh) -> None:
    """Keep some rows of a linear layer's weight: it returns some columns of the output."""
    _distribute(layer, "weight", mesh, 0)
    layer.product = partial(_some_columns, layer.product)
    if layer.bias is not None:
        _distribute(layer, "bias", mesh, 0)
        layer.product = partial(_as_dtensor, mesh, layer.product)
        layer.register_forward_hook(lambda module, inputs, output: output.to_local())


def _some_columns(product: Product, x: Tensor, weight: DTensor) -> Tensor:
    return product(x, weight.to_local())


def _as_dtensor(mesh: DeviceMesh, product: Product, x: Tensor, weight: DTensor) -> Tensor:
    """Return columns of the output to which the divided bias can be added."""
    y = product(x, weight)
    return DTensor.from_local(y, mesh, [Shard(y.ndim - 1)], run_check=False)


def _divide_columns(layer: Any, mesh: DeviceMesh) -> None:
    """Keep some columns of a linear layer's weight; its outputs are summed over the group."""
    _distribute(layer, "weight", mesh, 1)
    layer.product = partial(_summed, mesh, layer.product)


def _summed(mesh: DeviceMesh, product: Product, x: Tensor, weight: DTensor) -> Tensor:
    """Return the sum of the group's products; its gradient is passed on (g of Megatron-LM)."""
    part = DTensor.from_local(product(x, weight.to_local()), mesh, [Partial()], run_check=False)
    return part.redistribute(placements=[Replicate()]).to_local()


def _distribute(layer: nn.Module, name: str, mesh: DeviceMesh, dim: int) -> None:
    whole = getattr(layer, name)
    # Every process has the same weights: each takes its part without communication.
    part = distribute_tensor(whole.detach(), mesh, [Shard(dim)], src_data_rank=None)
    setattr(layer, name, nn.Parameter(part, requires_grad=whole.requires_grad))
