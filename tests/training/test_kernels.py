"""Kernels and low precision in the model and the trainer: the choices, and what is refused."""

import subprocess
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lmlab.errors import ConfigError
from lmlab.kernels import measured, support
from lmlab.model import build, layers, norm
from lmlab.model.attention.choice import check_backends
from lmlab.model.ffn import glu
from lmlab.training import kernels as training_kernels
from lmlab.training import losses as token_losses
from lmlab.training import objective as training_objective
from lmlab.training.device import resolve_precision
from lmlab.training.kernels import check_kernels, check_widths, set_precision, use_kernels
from lmlab.training.objective import NextToken
from tests_support import TINY, composed
from training_losses import losses

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    "overrides",
    [
        ["model.attention.num_kv_heads=1"],
        ["model/attention=sliding_window", "model.attention.window=7"],
        ["model.attention.logit_softcap=5"],
    ],
    ids=["gqa", "window", "softcap"],
)
def test_losses_with_tiled_attention_are_those_of_the_reference(overrides: list[str]) -> None:
    tiled = losses(*overrides, "model.attention.backend=tiled")
    assert tiled == pytest.approx(losses(*overrides, "model.attention.backend=eager"), rel=1e-5)
    assert tiled[-1] < tiled[0]


@pytest.mark.parametrize("precision", ["fp8", "mxfp8"])
def test_low_precision_trains_close_to_bfloat16_but_not_equally(precision: str) -> None:
    if resolve_or_none(precision) is None:
        pytest.skip("this torch has no float8 product on the CPU")
    moe = ["model/ffn=moe", "model.d_ff=32"]
    for overrides in ([], moe):
        wanted, ours = losses(*overrides, precision="bf16"), losses(*overrides, precision=precision)
        assert ours == pytest.approx(wanted, rel=0.05)
        assert ours != wanted
        assert ours[-1] < ours[0]


def resolve_or_none(precision: str) -> str | None:
    try:
        return resolve_precision(precision, CPU)
    except ConfigError:
        return None


def test_low_precision_is_in_the_blocks_and_not_in_the_head() -> None:
    model = build(composed(*TINY).model, 257)
    set_precision(model, "mxfp8")
    changed = {name for name, m in model.named_modules() if "product" in vars(m)}
    plain = build(composed(*TINY).model, 257)
    x = torch.randn(3, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for name in changed:
            ours, theirs = model.get_submodule(name), plain.get_submodule(name)
            theirs.load_state_dict(ours.state_dict())
            value = x[:, : ours.weight.shape[1]] if ours.weight.shape[1] <= 32 else x.repeat(1, 2)
            same = torch.equal(ours(value), theirs(value))
            assert same == (name == "lm_head"), name
    assert torch.equal(model.lm_head(x), plain.lm_head(x))


def test_without_autocast_low_precision_is_exact() -> None:
    model = build(composed(*TINY).model, 257)
    ids = torch.randint(257, (1, 8))
    before = model(ids)
    set_precision(model, "mxfp8")
    assert torch.equal(model(ids), before)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["model.d_ff=40"],
            r"multiples of 16, the weight blocks.0.ffn.branch.w1.weight has 40 x 32",
        ),
        (["model/ffn=moe", "model.d_ff=24"], "multiples of 16, the weight blocks.0.ffn"),
        (
            ["model.num_heads=4", "model.head_dim=6"],
            "multiples of 16, the weight blocks.0.attention",
        ),
    ],
)
def test_widths_that_float8_does_not_take_are_refused(overrides: list[str], message: str) -> None:
    config = composed(*TINY, *overrides).model
    check_widths(config, "mxfp8")
    with pytest.raises(ConfigError, match=message):
        check_widths(config, "fp8")


TRITON, TILED = "model.attention.backend=triton", "model.attention.backend=tiled"
SHORT = "model.context_length=12"


@pytest.mark.parametrize(
    ("overrides", "device", "message"),
    [
        ([TRITON], CPU, "'triton' runs on CUDA only, the device is 'cpu'; use auto or eager"),
        ([TRITON, "model.head_dim=8"], CUDA, "'triton' takes heads of width 16 to 128, got 8"),
        ([TRITON, "model.head_dim=160"], CUDA, "'triton' takes heads of width 16 to 128, got 160"),
        ([TRITON, SHORT], CUDA, "tiles of 16 tokens or more, model.context_length is 12"),
        ([TILED, SHORT], CPU, "tiles of 16 tokens or more, model.context_length is 12"),
    ],
)
def test_a_backend_that_cannot_train_is_refused(
    overrides: list[str], device: torch.device, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(support, "INSTALLED", True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    with pytest.raises(ConfigError, match=message) as caught:
        check_backends(composed(*TINY, *overrides).model, device, "fp32")
    assert str(caught.value).startswith("config error at 'model.attention.backend'")


def test_old_devices_and_a_missing_triton_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(support, "INSTALLED", True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(ConfigError, match=r"needs compute capability 8.0, the device has 7.5"):
        check_backends(composed(*TINY, TRITON).model, CUDA, "bf16")
    with pytest.raises(ConfigError, match=r"'triton' needs compute capability 8.0"):
        check_kernels("triton", CUDA)
    monkeypatch.setattr(support, "INSTALLED", False)
    for check in (
        lambda: check_backends(composed(*TINY, TRITON).model, CUDA, "bf16"),
        lambda: check_kernels("triton", CUDA),
    ):
        with pytest.raises(ConfigError, match="which is not installed: pip install triton"):
            check()
    check_kernels("auto", CUDA)
    check_kernels("torch", CPU)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.kernels=triton", "config error at 'trainer.kernels': 'triton' runs on CUDA only"),
        (TRITON, "config error at 'model.attention.backend': 'triton' runs on CUDA only"),
        ("trainer.precision=fp4", "config error at 'trainer.precision': 'fp4' is not one of"),
    ],
)
def test_a_run_refuses_before_it_prepares_data(
    override: str, message: str, train: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = train(*TINY, "data.paths=[absent.txt]", override)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith(message), done.stderr


def test_a_run_in_mxfp8_says_that_it_is_emulated(
    tiny: list[str], train: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = train(*tiny, "trainer.precision=mxfp8", "budget.steps=2")
    assert done.returncode == 0, done.stderr
    assert "cpu, mxfp8 (emulated)" in done.stdout + done.stderr


def test_auto_takes_only_what_was_measured_faster(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("LMLAB_CACHE", str(tmp_path))
    monkeypatch.setattr(training_kernels, "triton_problem", lambda device: None)

    def taken(kernels: str, *overrides: str) -> tuple[str | None, NextToken]:
        objective = NextToken(build(composed(*TINY, *overrides).model, 64))
        return use_kernels(objective, kernels, CPU), objective

    assert taken("auto")[0] is None
    measured.record(CPU, {"rms_norm": 1.5, "cross_entropy": 0.9, "attention": 2.0})
    said, objective = taken("auto")
    assert said == "Triton kernels: attention (2.00 x torch), rms_norm (1.50 x torch)"
    assert objective.fused is None
    attention = objective.model.blocks[0].attention.branch  # type: ignore[attr-defined]
    assert attention.backend == "triton"
    assert objective.model.final_norm.fused is not None  # type: ignore[attr-defined]
    said, objective = taken("auto", "model.attention.backend=eager", "model.norm=layernorm")
    assert said is None
    assert taken("torch")[0] is None
    said, objective = taken("triton")
    assert said == "Triton kernels: cross_entropy, rms_norm"
    assert objective.fused is not None


def test_a_damaged_record_counts_as_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("LMLAB_CACHE", str(tmp_path))
    for text in ("", "[]", '{"cpu": 3}', "{"):
        (tmp_path / "kernels.json").write_text(text)
        assert measured.speedups(CPU) == {}
    measured.record(CPU, {"rms_norm": 2.0})
    assert measured.speedups(CPU) == {"rms_norm": 2.0}


def test_a_run_with_triton_loads_where_triton_does_not_run() -> None:
    model = build(composed(*TINY, TRITON).model, 64)
    reference = build(composed(*TINY, "model.attention.backend=eager").model, 64)
    reference.load_state_dict(model.state_dict())
    ids = torch.randint(64, (2, 9))
    torch.testing.assert_close(model(ids), reference(ids))
    cache = build(composed(*TINY, TILED).model, 64)
    cache.load_state_dict(model.state_dict())
    state = cache.new_cache()
    steps = torch.cat([cache(ids[:, :5], cache=state), cache(ids[:, 5:], cache=state)], dim=1)
    torch.testing.assert_close(steps, reference(ids))


@pytest.mark.parametrize("precision", ["fp8", "mxfp8"])
def test_low_precision_compiles_without_a_graph_break(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Eager takes the compiler's ways through norms, layers and losses: those for this processor sum
    # in another order, and low precision makes more of the last digits.
    for module in (layers, norm):
        monkeypatch.setattr(module, "computed_here", lambda _: False)
    monkeypatch.setattr(training_objective, "fused_token_losses", token_losses.token_losses)
    monkeypatch.setattr(glu, "gated", lambda activation, gate, value: activation(gate) * value)
    if resolve_or_none(precision) is None:
        pytest.skip("this torch has no float8 product on the CPU")
    torch.manual_seed(0)
    objective = NextToken(build(composed(*TINY).model, 64))
    ids = torch.randint(64, (2, 17))

    def gradient(call: Callable[..., Any]) -> dict[str, Tensor]:
        objective.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            call(ids[:, :-1], ids[:, 1:])[0].backward()
        return {n: p.grad for n, p in objective.named_parameters() if p.grad is not None}

    set_precision(objective.model, precision)  # type: ignore[arg-type]
    eager = gradient(objective)
    torch.compiler.reset()  # it stops compiling after eight models, those of other tests too
    compiled = gradient(torch.compile(objective, fullgraph=True, backend="aot_eager"))
    assert compiled.keys() == eager.keys()
    for name, theirs in eager.items():
        assert torch.equal(compiled[name], theirs), name
