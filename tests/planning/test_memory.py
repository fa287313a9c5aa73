"""Memory of plans, against torch's tracker of FSDP and against sums by hand."""

import importlib
from types import ModuleType

import pytest
import torch

from lmlab.kernels import native
from lmlab.model import build, layers, norm
from lmlab.model.config import ModelConfig
from lmlab.optim import build_optimizer
from lmlab.planning.layout import Layout
from lmlab.planning.memory import State, moments_of, peak_memory
from lmlab.planning.optimizer_state import OptimizerBytes, optimizer_bytes
from lmlab.planning.pieces import Pieces, trace
from tests_support import composed

SHAPE = ("model=tiny", "model.num_layers=3", "model.context_length=64")


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return importlib.import_module("benchmarks.plan_memory")


def pieces(*overrides: str, sequences: int = 2) -> Pieces:
    """Return the pieces of a small model in float32."""
    return trace(composed(*SHAPE, *overrides).model, 300, sequences, autocast=None)


@pytest.mark.parametrize(
    ("overrides", "devices", "sequences"),
    [
        ((), 4, 2),
        (("parallel.reduce_dtype=bf16",), 4, 1),
        (("parallel.gather_dtype=fp32", "parallel.reduce_dtype=bf16"), 4, 1),
        (("parallel.reshard_after_forward=false",), 8, 1),
        (("trainer.checkpoint_activations=true", "model.num_layers=8"), 4, 4),
        (("model/ffn=moe",), 2, 1),
        (("model.tie_embeddings=true", "model.norm_placement=double"), 4, 2),
    ],
)
def test_fsdp_agrees_with_torch(
    benchmark: ModuleType, overrides: tuple[str, ...], devices: int, sequences: int
) -> None:
    config = composed(*SHAPE, "parallel=fsdp", *overrides)
    case = (config, devices, sequences, 300)
    assert benchmark.predicted(*case) == pytest.approx(benchmark.tracked(*case), rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("case", range(4))
def test_fsdp_agrees_with_torch_at_large_shapes(benchmark: ModuleType, case: int) -> None:
    overrides, devices, sequences = benchmark.SHAPES[case]
    arguments = (composed(*overrides), devices, sequences, benchmark.VOCABULARY)
    assert benchmark.predicted(*arguments) == pytest.approx(benchmark.tracked(*arguments), rel=0.1)


def test_state_by_hand() -> None:
    model = pieces()
    total = model.total
    assert total == sum(p.numel() for p in build(composed(*SHAPE).model, 300).parameters())
    state = State(OptimizerBytes(8 * total, 0, 0), accumulates=False, checkpointed=False)
    ddp = moments_of(Layout("ddp", 4), model, state)["update"]
    assert (ddp.weights, ddp.gradients, ddp.optimizer) == (4 * total, 4 * total, 8 * total)
    zero1 = moments_of(Layout("zero1", 4, shard_optimizer=4), model, state)["update"]
    assert (zero1.weights, zero1.optimizer) == (4 * total, 2 * total)
    fsdp = moments_of(Layout("fsdp", 4, shard=4), model, state)["update"]
    assert fsdp.total == 16 * total / 4
    flat = moments_of(Layout("ddp_flat", 4), model, state)["gradients summed"]
    assert flat.buffers == 4 * total


def test_accumulation_keeps_gradients_in_shards_under_fsdp() -> None:
    model = pieces()
    once, more = (
        peak_memory(
            Layout("fsdp", 4, shard=4),
            model,
            State(
                OptimizerBytes(8 * model.total, 0, 0),
                accumulates=accumulates,
                checkpointed=False,
            ),
        )
        for accumulates in (False, True)
    )
    assert more.gradients == 4 * model.total / 4
    assert once.gradients < more.gradients


def test_activations_grow_with_the_micro_batch_and_shrink_with_checkpointing() -> None:
    one, two = (pieces(sequences=n) for n in (2, 4))
    assert two.blocks[0].saved == pytest.approx(2 * one.blocks[0].saved, rel=0.05)
    totals = [
        peak_memory(
            Layout("ddp", 4),
            two,
            State(
                OptimizerBytes(8 * two.total, 0, 0),
                accumulates=False,
                checkpointed=checkpointed,
            ),
        ).total
        for checkpointed in (False, True)
    ]
    assert totals[1] < totals[0]


def test_saved_bytes_are_those_of_autograd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted by hooks on saved tensors of a real block, computed as on the device of the plan."""
    for module in (norm, layers):
        monkeypatch.setattr(module, "computed_here", lambda x: False)
    monkeypatch.setattr(native, "computes", lambda *_: False)
    config = composed(*SHAPE, "model.attention.backend=sdpa").model
    model = build(config, 300)
    kept: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    x = torch.randn(2, 64, 128, requires_grad=True)
    from lmlab.model.context import Context

    rotation = model.position.rotation(torch.arange(64))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = model.blocks[0](x, Context(rotation=rotation))
    kept.pop(out.untyped_storage().data_ptr(), None)
    rope = rotation.untyped_storage()
    kept.pop(rope.data_ptr(), None)
    found = pieces("model.attention.backend=sdpa").blocks[0]
    assert found.input + found.saved == pytest.approx(sum(kept.values()), rel=0.05)


def hybrid(first: str, second: str, *changes: str) -> ModelConfig:
    """Return a model of two blocks with two attentions."""
    members = "model.attention.members"
    kinds = (
        f"model/attention@{members}.local={first}",
        f"model/attention@{members}.global={second}",
    )
    return composed(*SHAPE, "model.num_layers=2", "model/attention=hybrid", *kinds, *changes).model


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("full", ("local.backend=eager", "global.backend=sdpa")),
        ("full", ("local.dropout=0.1", "global.dropout=0.0")),
        ("linear", ("local.chunk_size=8", "global.chunk_size=64")),
    ],
)
def test_blocks_that_differ_in_their_attention_alone_are_two_pieces(
    kind: str, changes: tuple[str, ...]
) -> None:
    keys = [f"model.attention.members.{each}" for each in changes]
    found = trace(hybrid(kind, kind, *keys), 300, 2, autocast=None).blocks
    alone = []
    for change in changes:
        setting = f"model.attention.{change.partition('.')[2]}"
        model = composed(*SHAPE, "model.num_layers=1", f"model/attention={kind}", setting).model
        alone += trace(model, 300, 2, autocast=None).blocks
    assert found == tuple(alone)
    assert found[0] != found[1]


def test_attention_that_no_fused_kernel_has_is_counted_as_eager() -> None:
    """Soft-capped scores with dropout: `auto` computes them by the definition on a GPU too."""
    both = ("model.attention.logit_softcap=30", "model.attention.dropout=0.1")
    auto = pieces(*both).blocks[0]
    assert auto == pieces(*both, "model.attention.backend=eager").blocks[0]
    assert auto.saved > pieces(both[0]).blocks[0].saved


@pytest.mark.parametrize(("optimizer", "each"), [("adamw", 8), ("sgd", 4)])
def test_optimizer_bytes(optimizer: str, each: int) -> None:
    settings = ["optimizer.momentum=0.9"] if optimizer == "sgd" else []
    config = composed(*SHAPE, f"optimizer={optimizer}", *settings)
    model = build(config.model, 300)
    real = build_optimizer(config.optimizer, model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    real.step()
    wanted = sum(
        value.nbytes
        for state in real.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor) and value.ndim
    )
    found = optimizer_bytes(config.optimizer, build(config.model, 300, device="meta"))
    assert wanted == each * sum(p.numel() for p in model.parameters())
    assert found.state == pytest.approx(wanted, rel=0.01)


def test_muon_needs_whole_matrices_however_few_elements_a_device_owns() -> None:
    config = composed(*SHAPE, "optimizer=muon")
    found = optimizer_bytes(config.optimizer, build(config.model, 300, device="meta"))
    largest = 4 * config.model.d_model * config.model.ffn_width
    # The momentum of a step, stacked, and what the iteration needs of it.
    assert found.whole > 3 * config.model.num_layers * largest
    assert found.divided < 8  # the fused AdamW of all other parameters: its step
    model = pieces()

    def update(devices: int) -> float:
        state = State(found, accumulates=False, checkpointed=False)
        return moments_of(Layout("fsdp", devices, shard=devices), model, state)["update"].buffers

    assert update(2) == update(64) == found.whole
