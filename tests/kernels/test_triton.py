"""The Triton kernels against their definitions: on a CUDA device, or in the interpreter.

`test_interpreter.py` runs this file in a child process, because Triton decides at its import
whether it interprets.
"""

import pytest
import torch
from kernel_cases import INTERPRETED, assert_attention_equals_the_formula, draw
from torch import Tensor

from lmlab.kernels import definitions
from lmlab.kernels.matmul_tiles import MatmulTiles

pytest.importorskip("triton")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not (INTERPRETED or torch.cuda.is_available()),
        reason="needs a CUDA device, or TRITON_INTERPRET=1",
    ),
]
OPTIONS = [
    (False, None, None),
    (True, None, None),
    (True, 20, None),
    (True, 90, 0.7),
]


@pytest.fixture(autouse=True)
def exact_float32() -> None:
    torch.set_float32_matmul_precision("highest")


def close(mine: Tensor, wanted: Tensor, scale: float = 1.0) -> None:
    tolerance = scale * (1e-5 if mine.dtype == torch.float32 else 1e-2)
    torch.testing.assert_close(mine, wanted, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("is_causal", [False, True])
def test_attention_in_the_shapes_of_the_course(
    is_causal: bool, device: str, dtype: torch.dtype
) -> None:
    from lmlab.kernels.flash_triton import TritonAttention

    def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool, *_: None) -> tuple[Tensor, Tensor]:
        out = TritonAttention.apply(q, k, v, causal)
        (lse,) = (x for x in out.grad_fn.saved_tensors if x.shape == (2, 128))
        return out, lse

    inputs = draw((2, 128, 64), dtype=dtype, device=device)
    assert_attention_equals_the_formula(attend, inputs, is_causal)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(("time", "width", "kv_heads"), [(1, 16, 2), (130, 40, 1), (200, 128, 2)])
def test_attention_equals_the_formula(
    options: tuple[bool, int | None, float | None],
    time: int,
    width: int,
    kv_heads: int,
    device: str,
    dtype: torch.dtype,
) -> None:
    from lmlab.kernels.flash_triton import triton_attention

    inputs = draw((1, 2, time, width), (1, kv_heads, time, width), dtype, device)
    assert_attention_equals_the_formula(triton_attention, inputs, *options)


def test_attention_of_other_layouts_and_lengths(device: str) -> None:
    """Time before heads, as a projection leaves it; strided elements; more keys than queries."""
    from lmlab.kernels.flash_triton import triton_attention

    def heads(time: int) -> Tensor:
        x = torch.randn(2, time, 3, 16, device=device).requires_grad_()
        return x.transpose(1, 2)

    strided = torch.randn(2, 3, 16, 40, device=device).requires_grad_().mT
    assert_attention_equals_the_formula(triton_attention, (heads(40), strided, heads(40)), True)
    assert_attention_equals_the_formula(triton_attention, (heads(20), heads(70), heads(70)))


def test_attention_is_registered_completely(device: str) -> None:
    from lmlab.kernels.flash_triton import triton_attention

    inputs = draw((1, 2, 20, 16), (1, 1, 20, 16), device=device)
    torch.library.opcheck(triton_attention, (*inputs, True, 7, 2.0))


@pytest.mark.parametrize(("width", "dtype"), [(8, torch.float32), (256, torch.float16)])
def test_attention_refuses_other_head_widths(width: int, dtype: torch.dtype, device: str) -> None:
    from lmlab.kernels.flash_triton import triton_attention

    with pytest.raises(ValueError, match=f"takes heads of width 16 to 128, got {width}"):
        triton_attention(*draw((1, 4, width), dtype=dtype, device=device))


def test_attention_refuses_what_a_grid_cannot_hold(device: str) -> None:
    from lmlab.kernels.flash_triton import triton_attention

    x = torch.empty(1, device=device).expand(70_000, 1, 1, 16)
    with pytest.raises(ValueError, match="65,535 heads of all sequences"):
        triton_attention(x, x, x)


def test_kernels_refuse_other_types(device: str) -> None:
    from lmlab.kernels.flash_triton import triton_attention
    from lmlab.kernels.triton_kernels.matmul import triton_matmul

    x = torch.ones(16, 16, device=device, dtype=torch.float64)
    with pytest.raises(ValueError, match="take float32, float16, bfloat16, got float64"):
        triton_attention(x, x, x)
    with pytest.raises(ValueError, match="take float32, float16, bfloat16, got float64"):
        triton_matmul(x, x)


@pytest.mark.parametrize(("rows", "vocab"), [(1, 7), (33, 5003)])
def test_cross_entropy(rows: int, vocab: int, device: str, dtype: torch.dtype) -> None:
    from lmlab.kernels.triton_kernels.cross_entropy import triton_cross_entropy

    torch.manual_seed(0)
    logits = (5 * torch.randn(rows, vocab, device=device)).to(dtype).requires_grad_()
    targets = torch.randint(vocab, (rows,), device=device)
    ours = triton_cross_entropy(logits, targets)
    theirs = definitions.cross_entropy(logits, targets)
    for mine, wanted in zip(ours, theirs, strict=True):
        close(mine, wanted)
    grads = [torch.randn(rows, device=device) for _ in range(3)]
    (mine,), (wanted,) = (torch.autograd.grad(x, logits, grads) for x in (ours, theirs))
    close(mine, wanted)


def test_cross_entropy_of_masked_logits(device: str) -> None:
    from lmlab.kernels.triton_kernels.cross_entropy import triton_cross_entropy

    logits = torch.randn(2, 5000, device=device)
    logits[:, 10:] = -torch.inf
    loss, lse, _ = triton_cross_entropy(logits, torch.tensor([3, 9], device=device))
    close(lse, logits.logsumexp(-1))
    assert loss.isfinite().all()


@pytest.mark.parametrize(("rows", "width"), [(1, 8), (70, 100), (1300, 33), (5, 5000)])
def test_rms_norm(rows: int, width: int, device: str, dtype: torch.dtype) -> None:
    from lmlab.kernels.triton_kernels.rms_norm import triton_rms_norm

    torch.manual_seed(0)
    x = torch.randn(rows, width, device=device).to(dtype).requires_grad_()
    weight = torch.randn(width, device=device, requires_grad=True)
    out, inverse = triton_rms_norm(x, weight, 1e-5)
    wanted, wanted_inverse = definitions.rms_norm(x, weight, 1e-5)
    close(out, wanted)
    close(inverse, wanted_inverse)
    grad = torch.randn_like(out)
    ours, theirs = (torch.autograd.grad(y, (x, weight), grad) for y in (out, wanted))
    close(ours[0], theirs[0])
    close(ours[1], theirs[1], scale=rows**0.5)


def test_rows_are_registered_completely(device: str) -> None:
    from lmlab.kernels.triton_kernels.cross_entropy import triton_cross_entropy
    from lmlab.kernels.triton_kernels.rms_norm import triton_rms_norm

    x = torch.randn(4, 32, device=device, requires_grad=True)
    weight = torch.ones(32, device=device, requires_grad=True)
    torch.library.opcheck(triton_rms_norm, (x, weight, 1e-5))
    targets = torch.zeros(4, dtype=torch.long, device=device)
    torch.library.opcheck(triton_cross_entropy, (x, targets))


@pytest.mark.parametrize("shape", [(1, 1), (5, 64), (2, 17, 100)])
def test_weighted_sum(shape: tuple[int, ...], device: str, dtype: torch.dtype) -> None:
    from lmlab.kernels.triton_kernels.weighted_sum import WeightedSum

    torch.manual_seed(0)
    x = torch.randn(shape, device=device).to(dtype).requires_grad_()
    weight = torch.randn(shape[-1], device=device).to(dtype).requires_grad_()
    ours, theirs = WeightedSum.apply(x, weight), definitions.weighted_sum(x, weight)
    close(ours, theirs, scale=3)
    grad = torch.randn_like(ours)
    mine, wanted = (torch.autograd.grad(y, (x, weight), grad) for y in (ours, theirs))
    for a, b in zip(mine, wanted, strict=True):
        close(a, b, scale=3)
    with pytest.raises(ValueError, match="does not fit"):
        WeightedSum.apply(x, weight.new_ones(shape[-1] + 1))


@pytest.mark.parametrize("shape", [(1, 1, 1), (40, 33, 70)])
@pytest.mark.parametrize("tiles", [MatmulTiles(16, 16, 16), MatmulTiles(32, 16, 64)], ids=str)
def test_matmul(
    shape: tuple[int, int, int], tiles: MatmulTiles, device: str, dtype: torch.dtype
) -> None:
    from lmlab.kernels.triton_kernels.matmul import triton_matmul

    m, n, k = shape
    a, b = (torch.randn(s, device=device).to(dtype) for s in ((m, k), (k, n)))
    close(triton_matmul(a, b, tiles), (a.double() @ b.double()).to(dtype), scale=2)
    with pytest.raises(ValueError, match="cannot multiply"):
        triton_matmul(a, a.new_ones(k + 1, 2))
