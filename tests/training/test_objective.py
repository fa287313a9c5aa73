"""Cross-entropy, label smoothing and z-loss against torch's; chunks against the whole."""

from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lmlab.kernels import native
from lmlab.model import build
from lmlab.training import cross_entropy
from lmlab.training import losses as losses_module
from lmlab.training.chunking import chunked
from lmlab.training.logprobs import token_log_probs
from lmlab.training.losses import fused_token_losses, token_losses
from lmlab.training.objective import NextToken
from tests_support import TINY, composed


@pytest.mark.parametrize("scale", [1.0, 1000.0])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_cross_entropy_equals_torch(scale: float, reduction: str) -> None:
    torch.manual_seed(0)
    logits = (torch.randn(3, 5, 11, dtype=torch.float32) * scale).requires_grad_()
    other = logits.detach().clone().requires_grad_()
    targets = torch.randint(0, 11, (3, 5))
    ours = cross_entropy(logits, targets, reduction)
    theirs = F.cross_entropy(other.flatten(0, 1), targets.flatten(), reduction=reduction)
    torch.testing.assert_close(ours, theirs)
    ours.backward()
    theirs.backward()
    torch.testing.assert_close(logits.grad, other.grad)
    assert torch.isfinite(ours)


def test_half_precision_logits_are_summed_in_float32() -> None:
    logits = torch.randn(2, 7).bfloat16()
    assert cross_entropy(logits, torch.tensor([1, 2])).dtype == torch.float32


def test_label_smoothing_equals_torch() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(13, 11) * 5, torch.randint(0, 11, (13,))
    terms = token_losses(logits, targets, label_smoothing=0.1)
    expected = F.cross_entropy(logits, targets, label_smoothing=0.1, reduction="sum")
    torch.testing.assert_close(terms["loss"] + terms["label_smoothing"], expected)
    torch.testing.assert_close(terms["loss"], F.cross_entropy(logits, targets, reduction="sum"))


def test_z_loss_by_hand() -> None:
    logits = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    terms = token_losses(logits, torch.tensor([0, 1]), z_loss=0.5)
    squares = logits.exp().sum(dim=-1).log() ** 2
    torch.testing.assert_close(terms["z_loss"], 0.5 * squares.sum())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("z_loss", "label_smoothing"), [(0.0, 0.0), (1e-2, 0.0), (1e-2, 0.1)])
@pytest.mark.parametrize("cached", [1, 44, 1000, None], ids=["rows", "parts", "whole", "native"])
def test_the_fused_losses_equal_the_definition(
    dtype: torch.dtype,
    z_loss: float,
    label_smoothing: float,
    cached: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if cached is not None:
        monkeypatch.setattr(native, "INSTRUCTIONS", ())
        monkeypatch.setattr(losses_module, "CACHED_LOGITS", cached)
    results = []
    for losses in (token_losses, fused_token_losses):
        torch.manual_seed(0)
        logits = (torch.randn(2, 5, 11) * 5).to(dtype).requires_grad_()
        targets = torch.randint(0, 11, (2, 5))
        terms = losses(logits, targets, z_loss, label_smoothing)
        (2 * sum(terms.values())).backward()
        results.append(({k: v.detach() for k, v in terms.items()}, logits.grad))
    torch.testing.assert_close(results[1][0], results[0][0])
    torch.testing.assert_close(results[1][1], results[0][1])
    logits = torch.full((1, 3), 1e4)
    assert fused_token_losses(logits, torch.tensor([1]))["loss"].item() == pytest.approx(1.0986123)


def gradients(objective: NextToken, dtype: torch.dtype | None) -> tuple[Tensor, dict, list[Tensor]]:
    ids = torch.randint(0, 257, (3, 33), generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=dtype) if dtype else nullcontext():
        total, terms = objective(ids[:, :-1], ids[:, 1:])
    weight = objective.weight(ids[:, :-1], ids[:, 1:])
    total, terms = total / weight, {name: value / weight for name, value in terms.items()}
    (3 * total).backward()
    assert isinstance(objective.model, nn.Module)
    grads = [p.grad for p in objective.model.parameters() if p.grad is not None]
    objective.model.zero_grad(set_to_none=True)
    return total.detach(), terms, grads


@pytest.mark.parametrize("chunk_tokens", [1, 7, 32, 1000])
@pytest.mark.parametrize(
    "choices",
    [(), ("model.tie_embeddings=true", "model.logit_softcap=5.0")],
    ids=["plain", "tied and capped"],
)
def test_chunks_equal_the_whole(chunk_tokens: int, choices: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    model = build(composed(*TINY, *choices).model, 257)
    options = {"z_loss": 1e-2, "label_smoothing": 0.1}
    total, terms, grads = gradients(NextToken(model, **options), None)
    chunked = NextToken(model, **options, chunk_tokens=chunk_tokens)
    chunked_total, chunked_terms, chunked_grads = gradients(chunked, None)
    assert list(chunked_terms) == list(terms) == ["loss", "z_loss", "label_smoothing"]
    torch.testing.assert_close(chunked_total, total)
    torch.testing.assert_close(chunked_terms, terms)
    for ours, expected in zip(chunked_grads, grads, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-7)
    with torch.no_grad():
        ids = torch.arange(64).reshape(2, 32)
        torch.testing.assert_close(chunked(ids, ids)[0], NextToken(model, **options)(ids, ids)[0])


@pytest.mark.parametrize("chunk_tokens", [None, 7])
def test_a_fused_loss_goes_backward_once(chunk_tokens: int | None) -> None:
    ids = torch.arange(64).reshape(2, 32)
    total, _ = NextToken(build(composed(*TINY).model, 257), chunk_tokens=chunk_tokens)(ids, ids)
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="backward once"):
        total.backward()


def test_a_fused_loss_has_no_second_derivative() -> None:
    """It is refused: a penalty on the gradient would have no effect."""
    logits = torch.randn(4, 7, requires_grad=True)
    targets = torch.arange(4)
    whole = fused_token_losses(logits, targets)["loss"]
    terms = chunked(lambda x, y: token_losses(x * 2, y), (), logits, targets, 2)
    log_probs, _ = token_log_probs(logits, lambda x: x * 2, targets, 2, parameters=())
    for loss in (whole, terms["loss"], log_probs.sum()):
        with pytest.raises(RuntimeError, match="no second derivative; use token_losses"):
            torch.autograd.grad(loss, logits, create_graph=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_chunks_equal_the_whole_in_half_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = build(composed(*TINY).model, 257)
    total, _, grads = gradients(NextToken(model), dtype)
    chunked_total, _, chunked_grads = gradients(NextToken(model, chunk_tokens=40), dtype)
    torch.testing.assert_close(chunked_total, total)
    for ours, expected in zip(chunked_grads, grads, strict=True):
        error = (ours - expected).norm() / expected.norm()
        assert error < 0.02


@pytest.mark.parametrize("size", [None, 2, 2000], ids=["whole", "chunks", "one chunk"])
@pytest.mark.parametrize("losses", [token_losses, fused_token_losses])
@pytest.mark.parametrize(
    ("logit", "count", "scale"),
    [(18.0, 4, 2.0**16), (-128.0, 1024, 2.0**-6)],
    ids=["underflow", "overflow"],
)
def test_float16_gradients_have_the_scale_of_the_loss(
    losses: Callable[..., dict[str, Tensor]],
    size: int | None,
    logit: float,
    count: int,
    scale: float,
) -> None:
    """Without the scale the gradients of the head do not fit into float16."""
    head = nn.Linear(1, 2, bias=False)
    head.weight.data = torch.tensor([[1.0], [0.0]])
    found = []
    for enabled in (False, True):
        hidden = torch.full((count, 1), logit, requires_grad=True)
        targets = torch.zeros(count, dtype=torch.long)
        with torch.autocast("cpu", dtype=torch.float16, enabled=enabled):
            if size is None or not enabled:
                loss = losses(head(hidden), targets)["loss"]
            else:
                loss = chunked(
                    lambda x, y: losses(head(x), y), (head.weight,), hidden, targets, size
                )["loss"]
        found.append(torch.autograd.grad(loss * scale, (hidden, head.weight)))
    torch.testing.assert_close(found[1], found[0], rtol=2e-3, atol=0)


def test_the_logits_of_the_batch_are_never_there_together() -> None:
    model = build(composed(*TINY).model, 257)
    seen: list[int] = []
    logits = model.logits
    model.logits = lambda hidden: seen.append(hidden.shape[:-1].numel()) or logits(hidden)
    gradients(NextToken(model, chunk_tokens=40), None)
    assert seen == [40, 40, 16]


@pytest.mark.parametrize("ffn", ["glu", "moe"])
def test_checkpointed_activations_give_the_same_gradients(ffn: str) -> None:
    torch.manual_seed(0)
    model = build(composed(*TINY, f"model/ffn={ffn}").model, 257)
    total, terms, grads = gradients(NextToken(model), None)
    model.checkpoint_activations = True
    calls = []
    for block in model.blocks:
        block.register_forward_pre_hook(lambda *_: calls.append(1))
    again, terms_again, grads_again = gradients(NextToken(model), None)
    assert len(calls) == 2 * len(model.blocks)
    assert torch.equal(total, again)
    assert terms == terms_again
    assert all(map(torch.equal, grads, grads_again))
