"""The commands `lmlab kernels` and `lmlab mx`."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lmlab import cli
from lmlab.kernels import support


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine can measure")
def test_measuring_needs_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["kernels", "measure"]) == 1
    said = "lmlab: kernels are measured on a CUDA device, torch finds none here\n"
    assert capsys.readouterr().err == said


def test_compiling_needs_triton(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(support, "INSTALLED", False)
    assert cli.main(["kernels", "compile"]) == 1
    assert capsys.readouterr().err == "lmlab: compiling kernels needs Triton: pip install triton\n"


def test_importing_never_needs_triton() -> None:
    code = "import sys; sys.modules['triton'] = None; import lmlab.cli, lmlab.task.setup"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_error_of_a_runs_weights(
    tiny: list[str],
    train: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    assert train(*tiny, "budget.steps=1", f"hydra.run.dir={run}").returncode == 0
    assert cli.main(["mx", str(run), "--element", "e5m2"]) == 0
    table = capsys.readouterr().out.splitlines()
    head = next(line.split(" | ") for line in table if line.startswith("| lm_head.weight |"))
    assert head[1].endswith(" x 32")
    assert 0.01 < float(head[2]) < 0.125
    assert cli.main(["mx", str(tmp_path / "absent")]) == 1
    assert "does not exist" in capsys.readouterr().err
