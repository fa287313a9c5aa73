"""Weights drawn in the constructor equal those drawn after a construction on the meta device."""

import math
from pathlib import Path

import pytest
import torch
from choices import CONTEXT, Combination, name, singles
from test_choices import made
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from lmlab.model import build
from lmlab.model.transformer import Transformer

SINGLES = list(singles())


def drawn(shape: tuple[int, ...], std: float) -> Tensor:
    weight = torch.empty(shape)
    return nn.init.trunc_normal_(weight, std=std, a=-3 * std, b=3 * std)


def xavier(shape: tuple[int, ...]) -> Tensor:
    return drawn(shape, math.sqrt(2 / (shape[-2] + shape[-1])))


@pytest.mark.parametrize("ffn", ["swiglu", "mlp_relu", "moe_fine"])
@pytest.mark.parametrize("init", ["xavier", "depth_scaled"])
@pytest.mark.parametrize("tie", ["false", "true"])
@pytest.mark.parametrize("position", ["rope", "learned"])
def test_weights_are_drawn_in_a_fixed_order(ffn: str, init: str, tie: str, position: str) -> None:
    """Embeddings, attention of all layers, feed-forward of all layers, head, in every version."""
    model = made(SINGLES[0] | {"ffn": ffn, "init": init, "tie": tie, "position": position})
    names = [n for n, p in model.named_parameters(remove_duplicate=False) if p.ndim > 1]
    first = [n for n in names if "embedding" in n] + [n for n in names if ".attention." in n]
    ordered = [*first, *(n for n in names if n not in first)]
    shapes = {n: tuple(p.shape) for n, p in model.named_parameters(remove_duplicate=False)}
    torch.manual_seed(0)
    expected = {
        n: drawn(shapes[n], 1.0) if "embedding" in n else xavier(shapes[n]) for n in ordered
    }
    if tie == "true":
        embedding = drawn(shapes["token_embedding.weight"], model.config.d_model**-0.5)
        expected["token_embedding.weight"] = expected["lm_head.weight"] = embedding
    for n in ordered:
        if init == "depth_scaled" and n.endswith(("output_proj.weight", "w2.weight", ".w2")):
            expected[n] *= (2 * model.config.num_layers) ** -0.5
    weights = dict(model.named_parameters(remove_duplicate=False))
    for n in ordered:
        assert torch.equal(weights[n], expected[n]), n


@pytest.mark.parametrize("combination", SINGLES, ids=name)
def test_a_model_from_the_meta_device_is_the_same(combination: Combination) -> None:
    expected = made(combination)
    after = torch.rand(3)
    model = made(combination, "meta")
    assert all(x.is_meta for x in (*model.parameters(), *model.buffers()))
    model.to_empty(device="cpu")
    torch.manual_seed(0)
    model.reset_parameters()
    assert torch.equal(torch.rand(3), after)
    assert_equal(model, expected)
    ids = torch.arange(CONTEXT).reshape(1, -1)
    torch.testing.assert_close(model.eval()(ids), expected.eval()(ids), atol=0, rtol=0)
    model.reset_parameters()  # a second time, other numbers
    if combination["init"] != "zero_residual":
        weight = model.blocks[0].state_dict()
        assert not all(map(torch.equal, weight.values(), expected.blocks[0].state_dict().values()))


@pytest.mark.parametrize("init", ["xavier", "gpt2", "depth_scaled"])
@pytest.mark.parametrize("tie", ["false", "true"])
def test_a_value_head_begins_at_zero_and_draws_nothing(init: str, tie: str) -> None:
    config = made(SINGLES[0] | {"init": init, "tie": tie}).config
    models = []
    for device, value_head in ((None, False), (None, True), ("meta", True)):
        torch.manual_seed(0)
        model = build(config, 61, device, value_head=value_head)
        if device == "meta":
            model.to_empty(device="cpu")
            torch.manual_seed(0)
            model.reset_parameters()
        models.append(model.state_dict())
    plain, expected, found = models
    assert not expected["value_head.weight"].any()
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key
        assert key not in plain or torch.equal(plain[key], value), key


def assert_equal(model: Transformer, expected: Transformer) -> None:
    for read in (nn.Module.named_parameters, nn.Module.named_buffers):
        ours, theirs = dict(read(model)), dict(read(expected))
        assert list(ours) == list(theirs)
        for key, value in theirs.items():
            assert torch.equal(ours[key], value), key


@pytest.mark.filterwarnings("ignore:DTensor random operators")
@pytest.mark.parametrize("tie", ["false", "true"])
def test_a_sharded_model_draws_its_weights(tie: str, tmp_path: Path) -> None:
    combination = SINGLES[0] | {"tie": tie}
    expected = made(combination)
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        model = made(combination, "meta")
        mesh = torch.distributed.init_device_mesh("cpu", (1,))
        for block in model.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        model.to_empty(device="cpu")
        torch.manual_seed(0)
        model.reset_parameters()
        ids = torch.arange(CONTEXT).reshape(1, -1)
        assert (model.lm_head.weight is model.token_embedding.weight) == (tie == "true")
        model(ids).square().sum().backward()
        expected(ids).square().sum().backward()
        for (key, ours), theirs in zip(
            model.named_parameters(), expected.parameters(), strict=True
        ):
            assert isinstance(ours, DTensor)
            assert isinstance(ours.grad, DTensor)
            torch.testing.assert_close(ours.full_tensor(), theirs, msg=key)
            torch.testing.assert_close(ours.grad.full_tensor(), theirs.grad, msg=key)
    finally:
        torch.distributed.destroy_process_group()
