"""What is divided: optimizer state, weights, norms, and the whole model put together again."""

import copy
from typing import Any

import pytest
import torch
from processes import in_processes
from scenarios import CPU, SMALL, VOCAB
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from lmlab.model import build
from lmlab.optim import AdamW, Muon, clip_gradients
from lmlab.optim.shards import global_norm
from lmlab.parallel import ShardedOptimizer, build_strategy
from lmlab.task.samples import whole_model
from lmlab.training.distributed import DistributedContext
from lmlab.training.objective import NextToken
from tests_support import composed


def model_with_grads() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 2))
    for step, parameter in enumerate(model.parameters()):
        parameter.grad = torch.randn(parameter.shape, generator=torch.manual_seed(step))
    return model


def groups_of(model: nn.Module) -> list[dict[str, Any]]:
    matrices = [p for p in model.parameters() if p.ndim == 2]
    return [
        {"params": matrices[:2], "muon": True},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]


def sharded_steps(context: DistributedContext) -> dict[str, Any]:
    model = model_with_grads()
    optimizer = ShardedOptimizer(groups_of(model), Muon, lr=0.1, newton_schulz_steps=2)
    optimizer.add_param_group({"params": [model[2].weight], "lr": 0.05})
    loss = optimizer.step(lambda: torch.tensor(3.0))
    optimizer.param_groups[0]["lr"] = 0.2  # as a schedule does
    optimizer.step()
    state = copy.deepcopy(optimizer.state_dict())
    held = sum(
        t.numel() for s in optimizer.state.values() for t in s.values() if torch.is_tensor(t)
    )
    again = model_with_grads()
    other = ShardedOptimizer(groups_of(again), Muon, newton_schulz_steps=2)
    other.add_param_group({"params": [again[2].weight]})
    box = [copy.deepcopy(state)]
    torch.distributed.broadcast_object_list(box, src=0)
    other.load_state_dict(box[0])
    again.load_state_dict(model.state_dict())
    optimizer.step()
    other.step()
    same = all(
        torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True)
    )
    weights = [p.detach() for p in model.parameters()]
    return {"loss": loss, "state": state, "held": held, "same": same, "weights": weights}


def test_a_sharded_optimizer_is_the_optimizer() -> None:
    model = model_with_grads()
    plain = Muon(groups_of(model), lr=0.1, newton_schulz_steps=2)
    plain.add_param_group({"params": [model[2].weight], "lr": 0.05})
    plain.step()
    plain.param_groups[0]["lr"] = 0.2
    plain.step()
    expected = copy.deepcopy(plain.state_dict())
    plain.step()
    first, second = in_processes(2, sharded_steps)
    for found in (first, second):
        assert found["loss"] == 3.0
        assert found["same"]
        for weight, parameter in zip(found["weights"], model.parameters(), strict=True):
            torch.testing.assert_close(weight, parameter.detach(), rtol=0, atol=1e-6)
    assert first["state"]["param_groups"] == expected["param_groups"]
    assert first["state"]["state"].keys() == expected["state"].keys()
    for number, values in expected["state"].items():
        for name, value in values.items():
            torch.testing.assert_close(first["state"]["state"][number][name], value)
    whole = sum(
        t.numel() for s in expected["state"].values() for t in s.values() if torch.is_tensor(t)
    )
    assert first["held"] + second["held"] == whole
    assert max(first["held"], second["held"]) < 0.7 * whole


def test_a_sharded_optimizer_in_one_process() -> None:
    sharded, plain = model_with_grads(), model_with_grads()
    ShardedOptimizer(sharded.parameters(), AdamW, lr=0.1).step()
    AdamW(plain.parameters(), lr=0.1).step()
    assert all(map(torch.equal, sharded.parameters(), plain.parameters()))


def mixed_norm(context: DistributedContext) -> tuple[list[float], list[torch.Tensor]]:
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("a", "b"))
    wholes = [torch.randn(5, 6, generator=torch.manual_seed(i)) for i in range(4)]
    layouts: list[Any] = [
        None,
        (mesh["b"], [Shard(1)]),
        (mesh, [Shard(0), Shard(1)]),
        (mesh, [Replicate(), Shard(0)]),
    ]
    parameters = []
    for whole, layout in zip(wholes, layouts, strict=True):
        grad = whole if layout is None else distribute_tensor(whole, *layout, src_data_rank=None)
        parameter = nn.Parameter(torch.zeros_like(grad))
        parameter.grad = grad
        parameters.append(parameter)
    norms = [clip_gradients(parameters, 0.5).item()]
    norms.append(global_norm([p.grad for p in parameters if p.grad is not None]).item())
    grads = [p.grad for p in parameters]
    return norms, [g.full_tensor() if hasattr(g, "full_tensor") else g for g in grads]


def test_the_norm_of_tensors_and_dtensors_together() -> None:
    plain = [nn.Parameter(torch.zeros(5, 6)) for _ in range(4)]
    for i, parameter in enumerate(plain):
        parameter.grad = torch.randn(5, 6, generator=torch.manual_seed(i))
    norm = torch.nn.utils.clip_grad_norm_(plain, 0.5).item()
    for norms, grads in in_processes(4, mixed_norm):
        assert norms == pytest.approx([norm, 0.5], rel=1e-5)
        for grad, parameter in zip(grads, plain, strict=True):
            torch.testing.assert_close(grad, parameter.grad)


def gathered_model(context: DistributedContext, kind: str, tied: bool) -> Any:
    config = composed(*SMALL, f"parallel={kind}", f"model.tie_embeddings={tied}".lower())
    strategy = build_strategy(config.parallel, 2, CPU, "fp32")
    torch.manual_seed(0)
    model = build(config.model, VOCAB, device="meta")
    objective = strategy.wrap(NextToken(model), model)
    ids = torch.arange(8)[None]
    with torch.no_grad():
        objective(ids, ids)  # an evaluation must leave nothing gathered
    sharded = sum(hasattr(p, "to_local") for p in model.parameters())
    whole = whole_model(model, strategy)
    held = sum(getattr(p, "_local_tensor", p).numel() for p in model.parameters())
    return sharded, held, whole(ids) if context.is_main_process else None


@pytest.mark.parametrize("kind", ["fsdp", "tp"])
@pytest.mark.parametrize("tied", [False, True])
def test_a_whole_model_for_samples(kind: str, tied: bool) -> None:
    first, second = in_processes(2, gathered_model, kind, tied)
    torch.manual_seed(0)
    config = composed(*SMALL, f"model.tie_embeddings={tied}".lower())
    plain = build(config.model, VOCAB)
    torch.testing.assert_close(first[2], plain(torch.arange(8)[None]))
    elements = sum(p.numel() for p in plain.parameters())
    if kind == "fsdp":
        assert first[0] == len(list(plain.parameters()))
        assert first[1] + second[1] == elements
    else:
        divided = sum(p.numel() for p in plain.blocks.parameters() if p.ndim == 2)
        assert first[1] == second[1] == elements - divided // 2
