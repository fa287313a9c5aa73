"""muP: initial weights and learning rates by width (Yang et al. 2022)."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lmlab.errors import ConfigError
from lmlab.model import Transformer, build
from lmlab.optim import build_optimizer
from tests_support import composed

VOCAB, BASE, HEAD = 50, 32, 16
SHAPE = ("model=tiny", "model.num_layers=2", "model.context_length=16", f"model.head_dim={HEAD}")
MUP = ("model.parametrization=mup", f"model.base_width={BASE}")


def config_of(width: int, *overrides: str) -> Any:
    sizes = (
        f"model.d_model={width}",
        f"model.num_heads={width // HEAD}",
        f"model.d_ff={2 * width}",
    )
    return composed(*SHAPE, *sizes, *overrides)


def made(width: int, *overrides: str) -> tuple[Transformer, torch.optim.Optimizer]:
    config = config_of(width, *overrides)
    torch.manual_seed(0)
    model = build(config.model, VOCAB)
    multiplier = config.model.width_multiplier
    return model, build_optimizer(config.optimizer, model, width_multiplier=multiplier)


def test_at_the_base_width_it_is_the_standard_one() -> None:
    for init in ("xavier", "gpt2", "depth_scaled", "zero_residual"):
        (mup, optimizer), (standard, other) = (
            made(BASE, f"model.init={init}", *own) for own in (MUP, ())
        )
        for mine, theirs in zip(mup.parameters(), standard.parameters(), strict=True):
            assert torch.equal(mine, theirs)
        keys = {"params"}
        for one, two in zip(optimizer.param_groups, other.param_groups, strict=True):
            assert {k: v for k, v in one.items() if k not in keys} == {
                k: v for k, v in two.items() if k not in keys
            }


@pytest.mark.parametrize("init", ["xavier", "gpt2"])
def test_deviations_follow_the_width(init: str) -> None:
    def deviations(width: int) -> dict[str, float]:
        model, _ = made(width, *MUP, f"model.init={init}")
        block = model.blocks[0]
        return {
            "embedding": model.token_embedding.weight.std().item(),
            "hidden": block.ffn.branch.w1.weight.std().item(),  # type: ignore[union-attr]
            "head": model.lm_head.weight.std().item(),
        }

    small, large = deviations(BASE), deviations(16 * BASE)
    assert large["embedding"] == pytest.approx(small["embedding"], rel=0.05)
    assert large["hidden"] == pytest.approx(small["hidden"] / 4, rel=0.05)
    assert large["head"] == pytest.approx(small["head"] / 16, rel=0.05)


def batch() -> Tensor:
    return torch.randint(VOCAB, (8, 17), generator=torch.Generator().manual_seed(1))


def loss_of(model: Transformer, multiplier: float = 1.0) -> Tensor:
    ids = batch()
    logits = multiplier * model(ids[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


def test_adamw_equals_the_form_with_a_multiplier_at_the_head() -> None:
    """Table 8 of the paper instead of table 3: the two are the same for Adam."""
    own = ("optimizer=adamw", "lr=3e-3", "optimizer.weight_decay=0", "optimizer.eps=1e-12")
    multiplier = 4.0
    ours, optimizer = made(4 * BASE, *MUP, *own)
    theirs, _ = made(4 * BASE, *MUP, *own)
    with torch.no_grad():
        theirs.lm_head.weight.mul_(multiplier)
    rates = {id(p): 3e-3 for p in theirs.parameters()}
    for name, p in theirs.named_parameters():
        if p.ndim == 2 and name.startswith("blocks."):
            rates[id(p)] /= multiplier
    groups = [{"params": [p], "lr": rates[id(p)]} for p in theirs.parameters()]
    reference = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-12, weight_decay=0)
    for _ in range(5):
        mine, other = loss_of(ours), loss_of(theirs, 1 / multiplier)
        assert mine.item() == pytest.approx(other.item(), rel=2e-5)
        for loss, stepping in ((mine, optimizer), (other, reference)):
            stepping.zero_grad()
            loss.backward()
            stepping.step()


def slopes(*overrides: str) -> dict[str, float]:
    """Return by what power of the width the changes in four steps grow: the coordinate check."""
    widths = (BASE, 4 * BASE, 16 * BASE)
    sizes: dict[str, list[float]] = {"hidden": [], "logits": []}
    for width in widths:
        model, optimizer = made(width, *overrides)
        ids = batch()[:, :-1]
        before = model.hidden(ids).detach(), model(ids).detach()
        for _ in range(4):
            optimizer.zero_grad()
            loss_of(model).backward()
            optimizer.step()
        with torch.no_grad():
            for name, was, now in zip(sizes, before, (model.hidden(ids), model(ids)), strict=True):
                sizes[name].append((now - was).square().mean().sqrt().item())
    span = math.log(widths[-1] / widths[0])
    return {name: math.log(found[-1] / found[0]) / span for name, found in sizes.items()}


@pytest.mark.parametrize(("optimizer", "lr"), [("adamw", 3e-3), ("muon", 3e-3), ("sgd", 0.3)])
def test_changes_do_not_depend_on_the_width(optimizer: str, lr: float) -> None:
    own = (f"optimizer={optimizer}", f"lr={lr}")
    mup = slopes(*own, *MUP)
    assert all(abs(slope) < 0.25 for slope in mup.values()), mup
    assert slopes(*own)["logits"] > 0.5


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_what_decays_in_a_step_does_not_depend_on_the_width(optimizer: str) -> None:
    for width in (BASE, 4 * BASE):
        _, built = made(
            width, *MUP, f"optimizer={optimizer}", "lr=1e-2", "optimizer.weight_decay=0.1"
        )
        decays = [group["lr"] * group["weight_decay"] for group in built.param_groups]
        assert [decay for decay in decays if decay] == pytest.approx([1e-3] * (len(decays) - 1))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.parametrization=mup"], "needs base_width"),
        (["model.base_width=32"], "base_width is for parametrization=mup"),
        ([*MUP, "model.tie_embeddings=true"], "needs tie_embeddings=false"),
        ([*MUP, "model.scale_embeddings=true"], "needs scale_embeddings=false"),
    ],
)
def test_what_does_not_fit_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_of(64, *overrides)
