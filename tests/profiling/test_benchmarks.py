"""Tables of steps and attention, and the demonstrations with the course's figures."""

import multiprocessing
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from lmlab.cli import main
from lmlab.errors import ConfigError, UserError
from lmlab.gpu.names import Precision
from lmlab.profiling import attention, benchmark, demos, measure
from lmlab.profiling.benchmark import OUT_OF_MEMORY, Setting, Times, step_table, time_steps
from tests_support import ROOT, composed

CPU = torch.device("cpu")
TINY = ("model.d_model=32", "model.num_layers=1", "model.num_heads=2", "trainer.device=cpu")


def setting(context: int, batch: int) -> Setting:
    """Return a setting of a tiny model."""
    sizes = [f"model.context_length={context}", f"trainer.batch_size={batch}"]
    return Setting("tiny", composed(*TINY, *sizes))


def cells(table: str) -> list[list[str]]:
    """Return the rows of a Markdown table, without its header."""
    return [[c.strip() for c in line.split("|")[1:-1]] for line in table.splitlines()[2:]]


def test_steps_are_timed_by_phase() -> None:
    times = time_steps(setting(16, 2), 3)
    assert times.seconds.keys() == {"forward", "backward", "optimizer"}
    assert all(len(each) == 3 and min(each) > 0 for each in times.seconds.values())


def test_each_warmup_is_a_row_of_later_steps() -> None:
    def run(each: Setting, steps: int) -> Times:
        cold = [10.0] + [1.0] * (steps - 1)
        return Times(each, dict.fromkeys(("forward", "backward", "optimizer"), cold))

    said: list[str] = []
    settings = [setting(64, 4), setting(128, 4)]
    rows = cells(step_table(settings, [0, 1], 2, said.append, run))
    assert [row[:4] for row in rows][:2] == [["tiny", "64", "4", "0"], ["tiny", "64", "4", "1"]]
    assert rows[0][4] == "5,500.0 ± 6,364.0"
    assert rows[0][7] == "16,500.0 ± 19,091.9"
    assert rows[1][4] == "1,000.0 ± 0.0"
    assert len(rows) == 4
    assert said == ["tiny, context 64", "tiny, context 128"]


def test_out_of_memory_is_a_row() -> None:
    rows = cells(
        step_table(
            [setting(64, 1)],
            [0, 5],
            2,
            lambda _: None,
            lambda each, _: Times(each, problem=OUT_OF_MEMORY),
        )
    )
    assert rows == [["tiny", "64", "1", "", OUT_OF_MEMORY, "", "", ""]]
    large = Setting(
        "2_7b", composed("model=2_7b", "trainer.batch_size=10000", "trainer.device=cpu")
    )
    assert time_steps(large, 1).problem == OUT_OF_MEMORY


@pytest.mark.slow
def test_another_problem_is_no_row() -> None:
    impossible = Setting("tiny", composed(*TINY, "model.attention.backend=flex"))
    with pytest.raises(ConfigError, match="'flex' trains on CUDA only"):
        benchmark.in_a_process(impossible, 1)


@pytest.mark.slow
def test_a_process_that_the_system_ends_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    assert multiprocessing.get_all_start_methods()
    monkeypatch.setattr(benchmark, "time_steps", _killed)
    assert benchmark.in_a_process(setting(16, 1), 1).problem == OUT_OF_MEMORY


def _killed(each: Setting, steps: int) -> Times:
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)
    return Times(each)


@pytest.mark.parametrize("backend", attention.BACKENDS)
def test_attention_is_attention(backend: str) -> None:
    q, k, v = (torch.randn(2, 40, 16) for _ in range(3))
    found = attention.BACKENDS[backend](q, k, v)
    wanted = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert torch.allclose(found, wanted, atol=1e-5)


def test_memory_before_the_backward_pass_grows_with_the_square_of_the_length() -> None:
    def memory(backend: str, length: int) -> int:
        attend = attention.BACKENDS[backend]
        return attention.measure(attend, (1, length, 16), CPU, torch.float32, 1).memory

    scores = memory("eager", 512) - memory("eager", 256)
    assert scores > 3 * 256**2 * 4  # at least the probabilities of the three further quarters
    assert memory("sdpa", 512) < 3 * memory("sdpa", 256)
    assert memory("sdpa", 512) < memory("eager", 512) / 5


def test_memory_before_the_backward_pass_is_counted_the_same_on_every_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Inputs, one saved product and the output, each once; nothing else that is allocated."""

    def randn(shape: tuple[int, ...], device: torch.device, **more: Any) -> torch.Tensor:
        return torch.zeros(shape, **more)

    monkeypatch.setattr(torch, "randn", randn)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 10**9)
    monkeypatch.setattr(attention, "synchronize", lambda device: None)
    for device in (CPU, torch.device("cuda")):
        found = attention.measure(lambda q, k, v: q * k * v, (2, 8, 4), device, torch.float32, 2)
        assert found.memory == 5 * 2 * 8 * 4 * 4


def test_attention_that_does_not_fit_or_takes_too_long_is_a_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = attention.attention_table("eager", [16], [16, 32], 1, CPU, repeats=1, budget=1e-9)
    rows = cells(table)
    assert "±" in rows[0][2]
    assert "not run: above 1e-09 s" in rows[1]
    monkeypatch.setattr(attention, "available_memory", lambda _: 10_000)
    rows = cells(attention.attention_table("eager", [16], [16, 64], 1, CPU, repeats=1))
    assert [row[2] == OUT_OF_MEMORY for row in rows] == [False, True]


def test_accumulation_has_the_figures_of_the_course() -> None:
    shown = "\n".join(demos.accumulation())
    half, single = torch.float16, torch.float32
    sums = [
        demos.accumulate(single, single),
        demos.accumulate(half, half),
        demos.accumulate(single, half),
        demos.accumulate(single, half, converted=True),
    ]
    figures = ["10.0001", "9.9531", "10.0021", "10.0021"]
    assert [f"{total:.4f}" for total in sums] == figures
    at = -1
    for figure in figures:  # in this order
        at = shown.index(figure, at + 1)


def test_dtypes_under_autocast() -> None:
    rows = {}
    for line in demos.dtypes(composed("model=tiny").model)[2:-1]:
        name, *kinds = line.replace("  ", "\t").split("\t")
        rows[name.strip()] = [kind.strip() for kind in kinds if kind.strip()]
    assert rows["output head"] == ["float32", "float32", "bfloat16"]
    assert rows["feed-forward"] == ["float32", "float32", "bfloat16"]
    assert rows["norm"] == ["float32", "float32", "float32"]
    assert rows["loss"] == ["bfloat16", "float32"]
    assert rows["gradients"] == ["float32"]


@pytest.mark.slow
def test_five_kernels_become_one() -> None:
    found = demos.count_kernels(size=1000)
    assert found.eager == ["aten::sin", "aten::pow", "aten::cos", "aten::pow", "aten::add"]
    assert found.compiled == 1


def test_recomputation_saves_one_tensor_for_three() -> None:
    saved = demos.count_saved(demos.three_sigmoids)
    recomputed = demos.count_saved(demos.Recomputed.apply)
    assert (saved.tensors, saved.sigmoids) == (3, 3)
    assert (recomputed.tensors, recomputed.sigmoids) == (1, 6)
    assert torch.equal(saved.grad, recomputed.grad)


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "accumulation", "recomputation"]) == 0
    out = capsys.readouterr().out
    assert "9.9531" in out
    assert "three sigmoids" in out
    path = tmp_path / "attention.md"
    command = "benchmark attention --widths 16 --lengths 64 32 --batch 1 --repeats 1 --device cpu"
    assert main([*command.split(), "--output", str(path)]) == 0
    assert [row[:2] for row in cells(path.read_text())] == [["16", "32"], ["16", "64"]]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("demo accumulate", "no demo 'accumulate'; demos: accumulation"),
        ("benchmark steps --sizes gigantic", "gigantic"),
        ("benchmark steps optimizer=sgdd --sizes tiny", "sgdd"),
        ("benchmark steps trainer.device=cuda:99 --sizes tiny", "'cuda:99' is not available"),
        (
            "benchmark steps model=small",
            "'model=small': the rows of the table say it; give --sizes",
        ),
        ("benchmark steps --sizes tiny +trainer.batch_size=2", "give --batch"),
        ("benchmark steps --sizes tiny model.attention.backend=triton", "'triton'"),
        ("benchmark steps --sizes tiny task=grpo", "grpo"),
        ("benchmark steps --sizes tiny trainer.precision=fp8 model.d_model=136", "'fp8' needs"),
        ("benchmark steps --sizes tiny --output /", "Is a directory: /"),
        ("benchmark attention --output nowhere.md/x.md", "nowhere.md"),
        ("benchmark attention --budget 0", "--budget must be a number of seconds above 0, got 0"),
        ("benchmark attention --budget nan", "--budget must be a number of seconds above 0"),
        ("benchmark steps --steps 0", "--steps must be 1 or more, got 0"),
        ("benchmark steps --warmups -1", "--warmups must be 0 or more"),
        ("benchmark attention --widths 0", "--widths must be 1 or more, got 0"),
        ("benchmark attention --device cuda:99", "'cuda:99' is not available"),
    ],
)
def test_mistakes_are_one_line(
    command: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "nowhere.md").touch()
    monkeypatch.chdir(tmp_path)
    assert main(command.split()) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_flash_benchmark_refuses_in_one_line_without_a_gpu() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "flash.py")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "flash.py: needs a CUDA device, torch finds none here\n"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    "command",
    ["waves --measure", "coalescing --measure", "roofline --matmul 8 8 8 --measure"],
)
def test_measuring_without_a_gpu_is_refused(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["gpu", *command.split()]) == 1
    assert "finds no CUDA device here; leave out --measure" in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["bf16", "fp32", "tf32"])
def test_a_product_is_measured(precision: Precision) -> None:
    assert 0 < measure.matmul_seconds(512, 512, 512, precision) < 1
    assert measure.read_bandwidth(1, 0, 4) > measure.read_bandwidth(8, 0, 4)
    with pytest.raises(UserError, match="fp8"):
        measure.matmul_seconds(8, 8, 8, "fp8")
