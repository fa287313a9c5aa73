"""Norms of layers, the device's peak, profiles."""

import json
from pathlib import Path

import pytest
import torch

from lmlab.model import build, products
from lmlab.training import throughput
from lmlab.training.objective import NextToken
from lmlab.training.throughput import Meter, data_sheet_peak, measured_peak
from lmlab.training.watch import OPERATORS, TRACE, LayerStats, profiled
from tests_support import TINY, composed

CPU = torch.device("cpu")


def test_norms_of_each_layer() -> None:
    torch.manual_seed(0)
    model = build(composed(*TINY).model, 257)
    norms = LayerStats(model)
    ids = torch.randint(0, 257, (2, 33))
    NextToken(model)(ids[:, :-1], ids[:, 1:])[0].backward()
    assert norms(False) == {}
    measured = norms(True)
    layers = ["token_embedding", "final_norm", "lm_head", "block_0", "block_1"]
    kinds = ("weight_norm", "grad_norm", "activation_rms")
    missing = {"activation_rms/lm_head"} - measured.keys()  # a head may be called in chunks
    assert set(measured) | missing == {f"{kind}/{layer}" for kind in kinds for layer in layers}
    block = torch.cat([p.flatten() for p in model.blocks[1].parameters()])
    torch.testing.assert_close(measured["weight_norm/block_1"], block.norm())
    head = model.lm_head.weight.grad
    assert head is not None
    torch.testing.assert_close(measured["grad_norm/lm_head"], head.norm())
    # Embeddings are N(0, 1) cut at 3 sigma, whose root mean square is 0.9866.
    assert measured["activation_rms/token_embedding"].item() == pytest.approx(0.99, abs=0.05)
    model.eval()
    before = measured["activation_rms/block_0"]
    model(torch.zeros(1, 4, dtype=torch.long))
    assert torch.equal(norms(True)["activation_rms/block_0"], before), (
        "evaluations are not training"
    )


def test_the_best_peak_ever_measured_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMLAB_CACHE", str(tmp_path))
    monkeypatch.setattr(throughput, "SECONDS", 0.01)
    peak = measured_peak(CPU, "fp32")
    assert peak > 1e8
    monkeypatch.setattr(throughput, "measure_peak", lambda *_: 3.0)  # a busy machine
    assert measured_peak(CPU, "fp32") == peak
    path = tmp_path / "peaks.json"
    assert list(json.loads(path.read_text()).values()) == [peak]
    monkeypatch.setattr(throughput, "measure_peak", lambda *_: 2 * peak)
    assert measured_peak(CPU, "fp32") == measured_peak(CPU, "fp32") == 2 * peak
    assert measured_peak(CPU, "fp16") == 2 * peak
    assert len(json.loads(path.read_text())) == 2
    for damaged in ("{damaged", "[1]", "null"):
        path.write_text(damaged)
        assert measured_peak(CPU, "fp32") == 2 * peak
        assert list(json.loads(path.read_text()).values()) == [2 * peak]


def test_a_peak_without_fast_kernels_is_measured_on_a_product_that_fits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, sizes, randn = [0.0], list[int](), torch.randn

    def recorded(size: int, *others: int, device: torch.device) -> torch.Tensor:
        sizes.append(size)
        return randn(1, 1)

    def multiplied(device: torch.device) -> None:
        clock[0] += 2 * sizes[-1] ** 3 / flops if loaded else 5.0
        loaded.append(True)

    monkeypatch.setattr(torch, "randn", recorded)
    monkeypatch.setattr(throughput, "synchronize", multiplied)
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: clock[0])
    for flops, largest in ((2e8, 256), (1e12, 2048)):
        began, loaded = clock[0] + 5, list[bool]()  # the first product loads its kernels
        assert throughput.measure_peak(CPU, "fp16") == pytest.approx(flops)
        assert sizes[-1] == largest
        assert clock[0] - began < 2 * throughput.SECONDS


def test_bfloat16_that_is_multiplied_in_float32_has_its_peak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMLAB_CACHE", str(tmp_path))
    monkeypatch.setattr(throughput, "measure_peak", lambda *_: 3.0)
    for slow in (True, False):
        monkeypatch.setattr(products, "SLOW_BFLOAT16", slow)
        measured_peak(CPU, "bf16")
    names = list(json.loads((tmp_path / "peaks.json").read_text()))
    assert [name.split(", ")[1] for name in names] == ["float32", "bfloat16"]


def test_known_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"NVIDIA H100 80GB HBM3": 989e12, "NVIDIA H100 PCIe": 756e12, "NVIDIA L40S": 362e12}
    names |= {"NVIDIA A100-SXM4-80GB": 312e12, "NVIDIA H100 NVL": 835e12}
    names |= {"NVIDIA RTX A1000": None, "NVIDIA A10G": None, "NVIDIA RTX A4000": None}
    for name, peak in names.items():
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _, name=name: name)
        assert data_sheet_peak(torch.device("cuda")) == peak
    assert data_sheet_peak(CPU) is None


def test_rates_are_shares_of_the_peaks() -> None:
    meter = Meter({"mfu": 1000.0, "matmul_utilization": 2000.0})
    meter.continue_from(100, 10.0)
    meter.count(200, 1200.0)
    meter.seconds = 12.0
    shares = {"mfu": 0.6, "matmul_utilization": 0.3, "batch_time_share": 0.0}
    assert meter.rates() == {"tokens_per_second": 100.0} | shares
    meter.count(200, None)
    meter.seconds = 14.0
    assert meter.rates() == {"tokens_per_second": 100.0, "batch_time_share": 0.0}
    meter.count(200, 1200.0)
    meter.seconds = 16.0
    assert meter.rates()["mfu"] == 0.6
    assert meter.overall() == 700 / 16


def test_a_profile_is_a_trace_and_a_table(tmp_path: Path) -> None:
    said: list[str] = []
    with profiled(2, tmp_path, said.append) as profile:
        for _ in range(8):
            torch.ones(32, 32) @ torch.ones(32, 32)
            profile(False)
    products = [
        event
        for event in json.loads((tmp_path / TRACE).read_text())["traceEvents"]
        if event.get("name") == "aten::mm"
    ]
    assert len(products) == 2
    assert "aten::mm" in (tmp_path / OPERATORS).read_text()
    assert any(TRACE in line for line in said)
    assert any(OPERATORS in line for line in said)
    (tmp_path / "short").mkdir()
    with profiled(5, tmp_path / "short", said.append) as profile:
        profile(False)
    assert said[-1] == "no profile: the run had fewer than 4 steps"
    with profiled(5, tmp_path / "short", said.append) as profile:
        for _ in range(6):
            profile(False)
    assert said[-2].startswith("profile of 3 steps")
