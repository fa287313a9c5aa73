"""The MX quantiser against torchao's, bit for bit, and numbers by hand."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lmlab.kernels.mx import (
    ELEMENTS,
    Element,
    Rounding,
    quantization_error,
    quantization_report,
    quantize_dequantize,
    quantize_mx,
)

CHOICES = [(e, r) for e in ("e4m3", "e5m2") for r in ("floor", "rceil")]


def torchao(x: Tensor, element: Element, rounding: Rounding) -> tuple[Tensor, Tensor]:
    """Return scales and payload as bytes."""
    module: Any = pytest.importorskip("torchao.prototype.mx_formats.mx_tensor")
    mode = module.ScaleCalculationMode[rounding.upper()]
    scales, payload = module.to_mx(x, ELEMENTS[element], 32, mode)
    return scales.view(torch.uint8), payload.view(torch.uint8)


def assert_same_bits(x: Tensor, element: Element, rounding: Rounding) -> None:
    ours = quantize_mx(x, element, rounding)
    scales, payload = torchao(x, element, rounding)
    assert torch.equal(ours.scales, scales)
    mine = ours.payload
    # Any NaN is the same NaN.
    nan = mine.float().isnan()
    assert torch.equal(nan, payload.view(ELEMENTS[element]).float().isnan())
    assert torch.equal(mine.view(torch.uint8)[~nan], payload[~nan])


@pytest.mark.parametrize(("element", "rounding"), CHOICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equals_torchao_at_every_scale(
    element: Element, rounding: Rounding, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    exponents = torch.arange(-149.0, 128.0)
    x = torch.randn(len(exponents), 64).clamp(-1.9, 1.9) * torch.exp2(exponents)[:, None]
    assert_same_bits(x.to(dtype), element, rounding)


@pytest.mark.parametrize(("element", "rounding"), CHOICES)
@pytest.mark.parametrize(
    "special",
    [0.0, -0.0, math.inf, -math.inf, math.nan, 448.0, 57344.0, 1e-45, 2.0**-126, 3.4e38],
)
def test_equals_torchao_on_special_values(
    element: Element, rounding: Rounding, special: float
) -> None:
    for filling in (0.0, 1.0, special):
        x = torch.full((2, 32), filling)
        x[1, 7] = special
        assert_same_bits(x, element, rounding)


bits = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize(("element", "rounding"), CHOICES)
@given(patterns=st.lists(bits, min_size=32, max_size=32))
@settings(max_examples=200, deadline=None)
def test_equals_torchao_on_any_bits(
    element: Element, rounding: Rounding, patterns: list[int]
) -> None:
    signed = [p - 2**32 if p >= 2**31 else p for p in patterns]
    x = torch.tensor([signed], dtype=torch.int32).view(torch.float32)
    assert_same_bits(x, element, rounding)


@pytest.mark.parametrize(("element", "rounding"), CHOICES)
@given(
    values=st.lists(st.floats(width=32, allow_nan=False), min_size=32, max_size=32),
)
@settings(max_examples=100, deadline=None)
def test_overflow_saturates(element: Element, rounding: Rounding, values: list[float]) -> None:
    rounded = quantize_mx(torch.tensor(values), element, rounding)
    assert rounded.payload.float().isfinite().all()


def test_numbers_by_hand() -> None:
    x = torch.zeros(32)
    x[0], x[1], x[2] = 1000.0, 500.0, 1.0
    floor, rceil = (quantize_mx(x, "e4m3", r) for r in ("floor", "rceil"))
    # floor(log2 1000) - 8 = 1: 1000 / 2 = 500 saturates at 448.
    assert floor.scales.tolist() == [128]
    assert floor.dequantize()[:3].tolist() == [896.0, 512.0, 1.0]
    # ceil(log2(1000 / 448)) = 2: 1000 / 4 = 250 rounds to 256.
    assert rceil.scales.tolist() == [129]
    assert rceil.dequantize()[:3].tolist() == [1024.0, 512.0, 1.0]


@pytest.mark.parametrize("shape", [(5, 64), (2, 3, 32), (7, 33), (4, 1)])
def test_blocks_of_columns_are_blocks_of_the_transpose(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    across, down = quantize_mx(x, dim=-1), quantize_mx(x.mT.contiguous(), dim=-2)
    assert torch.equal(across.scales, down.scales.mT)
    assert torch.equal(across.dequantize(), down.dequantize().mT)
    assert across.scales.shape[-1] == -(-shape[-1] // 32)


@pytest.mark.parametrize("element", ["e4m3", "e5m2"])
def test_the_error_is_bounded_by_the_precision_of_the_element(element: Element) -> None:
    x = torch.randn(64, 256)
    error = quantization_error(x, element)
    half_unit = torch.finfo(ELEMENTS[element]).eps / 2
    assert 0 < error.relative < half_unit
    assert error.saturated < 0.05
    assert error.underflowed < 0.01
    twice = quantize_dequantize(quantize_dequantize(x, element), element)
    assert quantization_error(twice, element).relative <= error.relative


def test_the_report_names_what_is_lost() -> None:
    x = torch.full((1, 32), 1e-6)
    x[0, 0] = 500.0
    error = quantization_error(x, "e4m3", "floor")
    assert error.underflowed == 31 / 32
    assert error.saturated == 1 / 32
    assert error.largest == 52.0


def test_a_report_has_a_row_for_each_tensor() -> None:
    report = quantization_report({"a.weight": torch.zeros(2, 32), "b": torch.full((1, 40), 3.0)})
    assert report.splitlines()[2:] == [
        "| a.weight | 2 x 32 | 0.0000 | 0 | 0.00% | 0.00% |",
        "| b | 1 x 40 | 0.0000 | 0 | 0.00% | 0.00% |",
    ]


def test_other_types_are_refused() -> None:
    with pytest.raises(ValueError, match="float32, bfloat16 or float16"):
        quantize_mx(torch.ones(32, dtype=torch.int32))  # type: ignore[arg-type]
