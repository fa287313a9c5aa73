"""`lmlab plan`: what it prints, and mistakes in one line."""

import json
from pathlib import Path

import pytest

from lmlab.cli import main
from lmlab.planning.layouts import layouts
from lmlab.planning.links import Cluster
from tests_support import CONF, composed

MODEL = ["model=tiny", "trainer.batch_size=16", "optimizer=adamw"]


def plan(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run the command and return what it prints."""
    assert main(["plan", *MODEL, *arguments]) == 0
    return capsys.readouterr().out


def test_every_strategy_is_planned() -> None:
    kinds = {layout.kind for n in (1, 16) for layout in layouts(Cluster(n, min(n, 8), 1e9, 1e9))}
    assert kinds == {path.stem for path in (CONF / "parallel").glob("*.yaml")}


def test_every_layout_is_a_configuration() -> None:
    for layout in layouts(Cluster(16, 8, 1e9, 1e9)):
        assert composed(*layout.overrides).parallel.kind == layout.kind


def test_a_plan_recommends_and_prints_its_command(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    picture = tmp_path / "plan.png"
    out = plan(capsys, "--devices", "16", "--plot", str(picture))
    assert "<- recommended" in out
    command = out.splitlines()[-1]
    assert command.startswith("python train.py model=tiny trainer.batch_size=16 ")
    assert "hydra/launcher=submitit_slurm slurm.nodes=2 slurm.tasks_per_node=8" in command
    composed(*(word for word in command.split()[2:] if not word.startswith("hydra/")))
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_json_has_every_plan(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(plan(capsys, "--devices", "2", "--devices-per-node", "2", "--json"))
    best = found["plans"][found["recommended"]]
    assert best["fits"]
    parts = {k: v for k, v in best["bytes"].items() if k not in ("total", "moment")}
    assert sum(parts.values()) == pytest.approx(best["bytes"]["total"])
    seconds = best["seconds"]
    assert seconds["total"] == seconds["compute"] + seconds["update"] + seconds["exposed"]
    batches = {p["micro_batch_size"] for p in found["plans"] if p["overrides"] == ["parallel=fsdp"]}
    assert batches == {1, 2, 4, 8}


def test_a_strategy_can_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    out = plan(capsys, "parallel=zero1", "--devices", "4")
    assert "zero1" in out
    assert "fsdp" not in out


def test_overrides_stand_anywhere(capsys: pytest.CaptureFixture[str]) -> None:
    together = plan(capsys, "model.d_ff=512", "parallel=ddp", "--devices", "2")
    assert together == plan(capsys, "model.d_ff=512", "--devices", "2", "parallel=ddp")
    assert main(["plan", "--devices", "2", *MODEL, "--every", "lr"]) == 1
    assert "'lr': cannot be read as an override" in capsys.readouterr().err


def test_heads_that_tp_cannot_divide_are_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    out = plan(capsys, "model.attention.num_kv_heads=2", "--devices", "8")
    assert "num_kv_heads=2 is not divisible by 4 devices" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--devices", "8", "--device", "h10"], "did you mean 'H100'"),
        (["--devices", "0"], "argument --devices: must be positive, got 0"),
        (["--devices", "2.5"], "argument --devices: must be a whole number, got 2.5"),
        (["parallel=ddp", "--devices", "32"], "batch_size=16 is not divisible by 32 devices"),
        (["parallel=hsdp", "--devices", "8"], "parallel=hsdp needs several nodes"),
        (
            ["trainer.micro_batch_size=8", "parallel=ddp", "--devices", "4"],
            "trainer.micro_batch_size=8 does not divide the 4 sequences of a device",
        ),
        (["--devices", "16", "--device", "RTX_4090"], "has no `network`"),
        (["--devices", "8", "--usable", "2"], "--usable is a share, up to 1, got 2"),
        (["modle=tiny", "--devices", "8"], "did you mean 'model'"),
        (
            ["model=xl", "model.vocab_size=50257", "trainer.batch_size=2", "--devices", "2",
             "--devices-per-node", "2", "--usable", "0.1"],
            "no plan fits: the least is",
        ),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *MODEL, *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_what_would_fit_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "model=7b", "trainer.batch_size=4", "optimizer=adamw",
                 "parallel=fsdp", "--devices", "1"]) == 1  # fmt: skip
    assert "it fits with --devices" in capsys.readouterr().err
