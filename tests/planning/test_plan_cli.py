"""`lmlab plan`: what it prints, and mistakes in one line."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lmlab.cli import main
from lmlab.errors import ConfigError
from lmlab.gpu.sheets import load_sheet
from lmlab.model import build
from lmlab.parallel.config import FSDPConfig
from lmlab.parallel.fsdp import FSDP
from lmlab.planning.layout import Layout
from lmlab.planning.layouts import Request, layouts
from lmlab.planning.links import Cluster, cluster_of
from lmlab.planning.text import HEAD
from tests_support import CONF, composed

MODEL = ["model=tiny", "trainer.batch_size=16", "optimizer=adamw"]


def plan(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run the command and return what it prints."""
    assert main(["plan", *MODEL, *arguments]) == 0
    return capsys.readouterr().out


def plans(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    """Return the plans for four devices, of a model whose blocks dominate."""
    shape = ("model.vocab_size=300", "model.d_model=512", "model.context_length=64")
    found: dict[str, Any] = json.loads(plan(capsys, *shape, "--devices", "4", "--json", *arguments))
    rows: list[dict[str, Any]] = found["plans"]
    return rows


def all_layouts(devices: int, **request: Any) -> list[Layout]:
    """Return the layouts in nodes of up to eight devices."""
    return layouts(Cluster(devices, min(devices, 8), 1e9, 1e9), Request("bf16", **request))


def test_every_strategy_is_planned() -> None:
    kinds = {layout.kind for n in (1, 16) for layout in all_layouts(n)}
    assert kinds == {path.stem for path in (CONF / "parallel").glob("*.yaml")}


def test_every_layout_is_a_configuration() -> None:
    for layout in all_layouts(16):
        assert composed(*layout.overrides).parallel.kind == layout.kind


@pytest.mark.parametrize(
    ("unit", "size", "given"),
    [
        ("MB", 1e6, ("model.vocab_size=300", "model.d_model=64", "model.d_ff=128")),
        ("GB", 1e9, ("model=small", "model.vocab_size=32000")),
    ],
)
def test_memory_is_in_a_unit_in_which_it_can_be_read(
    capsys: pytest.CaptureFixture[str], unit: str, size: float, given: tuple[str, ...]
) -> None:
    out = plan(capsys, *given, "--devices", "1")
    found = json.loads(plan(capsys, *given, "--devices", "1", "--json"))
    best = found["plans"][found["recommended"]]["bytes"]
    (line,) = [line for line in out.splitlines() if line.endswith("<- recommended")]
    assert f"memory in {unit} a device" in out
    assert line.split()[2:9] == [f"{best[part] / size:,.1f}" for part in HEAD]
    assert best["total"] / size > 1


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


@pytest.mark.parametrize(
    ("kind", "given", "wanted"),
    [
        ("fsdp", {}, [{}, {"reshard_after_forward": "false"}]),
        ("fsdp", {"reshard_after_forward": True}, [{"reshard_after_forward": "true"}]),
        ("fsdp", {"reshard_after_forward": False}, [{"reshard_after_forward": "false"}]),
        ("hsdp", {"shard_size": 2}, [{"shard_size": "2"}]),
        ("tp", {"size": 4}, [{"size": "4"}]),
        ("tp", {"size": None}, [{"size": "null"}]),
        ("tp", {"reduce_dtype": "bf16"}, [{"size": s, "reduce_dtype": "bf16"} for s in "248"]),
        ("ddp_bucketed", {"bucket_size_mb": 1.5}, [{"bucket_size_mb": "1.5"}]),
    ],
)
def test_keys_of_a_strategy_that_are_given_are_kept(
    kind: str, given: dict[str, Any], wanted: list[dict[str, str]]
) -> None:
    found = all_layouts(16, kind=kind, given=given)
    assert [layout.settings for layout in found] == wanted
    assert all(composed(*layout.overrides) for layout in found)


def test_given_keys_have_the_figures_of_the_strategy() -> None:
    (tp,) = all_layouts(16, kind="tp", given={"size": None})
    assert (tp.tensor, tp.shard) == (16, 1)
    (tp,) = all_layouts(16, kind="tp", given={"size": 4, "reshard_after_forward": False})
    assert (tp.tensor, tp.shard, tp.reshard) == (4, 4, False)
    (hsdp,) = all_layouts(16, kind="hsdp", given={"shard_size": 2, "reduce_dtype": "bf16"})
    assert (hsdp.shard, hsdp.replicas, hsdp.reduced) == (2, 8, 2)
    (bucketed,) = all_layouts(16, kind="ddp_bucketed", given={"bucket_size_mb": None})
    assert bucketed.bucket is None


@pytest.mark.parametrize("given", ["fp32", "bf16", None])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "fp8", "mxfp8"])
def test_weights_are_gathered_as_fsdp_gathers_them(precision: str, given: str | None) -> None:
    setting = "null" if given is None else given
    config = composed("parallel=fsdp", f"parallel.gather_dtype={setting}").parallel
    assert isinstance(config, FSDPConfig)
    request = Request(precision, "fsdp", {"gather_dtype": given})
    mesh: Any = SimpleNamespace(ndim=1, size=lambda dim: 4)
    cluster = Cluster(4, 4, 1e9, 1e9)
    if (precision, given) == ("fp32", "bf16"):
        with pytest.raises(ConfigError, match=r"'parallel.gather_dtype': 'bf16' weights"):
            FSDP(config, mesh, precision)
        with pytest.raises(ConfigError, match=r"'parallel.gather_dtype': 'bf16' weights"):
            layouts(cluster, request)
        return
    dtype = FSDP(config, mesh, precision).policy.param_dtype
    assert dtype is not None
    assert {layout.gathered for layout in layouts(cluster, request)} == {dtype.itemsize}


@pytest.mark.parametrize("precision", ["fp8", "mxfp8", "fp16"])
def test_narrow_products_gather_whole_weights(
    precision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """FSDP gathers float32 under them; only bf16 gathers two bytes."""
    fsdp = ("parallel=fsdp", "parallel.reshard_after_forward=true", "trainer.micro_batch_size=1")
    narrow, whole, half = (
        plans(capsys, *fsdp, *more)[0]
        for more in (
            [f"trainer.precision={precision}"],
            ["trainer.precision=bf16", "parallel.gather_dtype=fp32"],
            ["trainer.precision=bf16"],
        )
    )
    assert narrow["bytes"] == whole["bytes"]
    assert narrow["bytes"]["buffers"] > half["bytes"]["buffers"]
    assert narrow["seconds"]["communication"] == whole["seconds"]["communication"]
    assert narrow["seconds"]["communication"] > half["seconds"]["communication"]


def test_settings_of_a_strategy_change_its_plan(capsys: pytest.CaptureFixture[str]) -> None:
    fsdp = ("parallel=fsdp", "parallel.reshard_after_forward=true", "trainer.micro_batch_size=1")
    usual, reduced = (
        plans(capsys, *fsdp, *more)[0] for more in ([], ["parallel.reduce_dtype=bf16"])
    )
    assert reduced["bytes"]["total"] < usual["bytes"]["total"]
    assert reduced["seconds"]["communication"] < usual["seconds"]["communication"]
    bucketed = ("parallel=ddp_bucketed", "trainer.micro_batch_size=1")
    usual, small = (
        plans(capsys, *bucketed, *more)[0] for more in ([], ["parallel.bucket_size_mb=1"])
    )
    assert small["seconds"]["communication"] > usual["seconds"]["communication"]
    command = plan(capsys, *fsdp, "++parallel.reduce_dtype=bf16", "--devices", "4").splitlines()[-1]
    assert command.count("parallel.reduce_dtype=bf16") == 1
    assert "parallel=fsdp parallel.reshard_after_forward=true" in command


def test_the_communication_of_fsdp_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    """Blocks are gathered twice in bf16; all else once, in float32, as gradients are."""
    config = composed(*MODEL, "model.vocab_size=300", "model.d_model=512").model
    model = build(config, 300, device="meta")
    block = sum(p.numel() for p in model.blocks[0].parameters())
    root = sum(p.numel() for p in model.parameters()) - config.num_layers * block
    cluster = cluster_of(load_sheet("H100"), 4)

    def seconds(size: int) -> float:
        return cluster.all_gather(cluster.group(4), size)

    blocks = config.num_layers * (2 * seconds(2 * block) + seconds(4 * block))
    found = plans(capsys, "parallel=fsdp", "trainer.micro_batch_size=4")[0]
    assert found["seconds"]["communication"] == pytest.approx(blocks + 2 * seconds(4 * root))


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
            ["parallel=tp", "parallel.size=3", "--devices", "8"],
            "'parallel.size': 3 does not divide the 8 devices",
        ),
        (
            ["parallel=tp", "parallel.size=6", "--devices", "24"],
            "'parallel.size': groups of 6 devices share nodes of 8 unevenly",
        ),
        (
            ["parallel=hsdp", "parallel.shard_size=5", "--devices", "16"],
            "'parallel.shard_size': 5 does not divide the 16 devices",
        ),
        (
            ["parallel=fsdp", "parallel.gather_dtype=bf16", "trainer.precision=fp32",
             "--devices", "8"],
            "'parallel.gather_dtype': 'bf16' weights cannot be multiplied",
        ),
        (["parallel=ddp", "parallel.size=2", "--devices", "8"], "size"),
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
    command = ["plan", "model=7b", "optimizer=adamw", "parallel=fsdp"]
    assert main([*command, "trainer.batch_size=1", "--devices", "1"]) == 1
    assert "it fits with --devices 2 trainer.batch_size=2" in capsys.readouterr().err
    assert main([*command, "trainer.batch_size=2", "--devices", "2"]) == 0


def test_what_would_fit_keeps_the_strategy_that_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """More devices do not help ddp, in which each has the whole model."""
    assert main(["plan", "model=7b", "trainer.batch_size=16", "optimizer=adamw",
                 "parallel=ddp", "--devices", "16"]) == 1  # fmt: skip
    error = capsys.readouterr().err
    assert "it fits with parallel=fsdp" in error
    assert "--devices" not in error
