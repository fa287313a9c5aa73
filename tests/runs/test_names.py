"""Names of a sweep's run directories."""

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from lmlab.arguments import for_hydra, quote_paths
from lmlab.runs.names import sweep_run_name

PRINT = "ab12cd34ffffffff"


def test_names_say_what_varies_whatever_the_order() -> None:
    assert sweep_run_name({"lr": 3e-3, "seed": 1}, PRINT) == "lr=0.003,seed=1_ab12cd34"
    assert sweep_run_name({"seed": 1, "lr": 0.003}, PRINT) == "lr=0.003,seed=1_ab12cd34"
    assert sweep_run_name({"model/ffn": "glu", "optimizer.lr": 1e-2}, PRINT) == (
        "ffn=glu,lr=0.01_ab12cd34"
    )
    assert sweep_run_name({"lr": 1.0, "optimizer.lr": 2.0}, PRINT) == (
        "lr=1,optimizer.lr=2_ab12cd34"
    )


def test_names_are_safe_paths() -> None:
    name = sweep_run_name({"data.paths": "['a b/$c.txt', \u00e9]", "x": "." * 500}, PRINT)
    assert name.isascii()
    assert not set(name) & set("/ $'\"[]*;&|<>()~`!{}\\")
    assert len(name) < 120


@pytest.mark.parametrize("quote", ["", "'", '"'])
def test_a_path_with_equals_and_commas_is_an_override(quote: str) -> None:
    path = "runs/sweeps/x/lr=0.003,seed=1_ab12cd34"
    (line,) = quote_paths([f"resume={quote}{path}{quote}"])
    override = OverridesParser.create().parse_override(line)
    assert override.value() == path
    assert not override.is_sweep_override()
    assert quote_paths(["lr=1,2", "resume=runs/a"]) == ["lr=1,2", "resume=runs/a"]


@pytest.mark.parametrize("key", ["resume", "init_from", "hydra.run.dir"])
@pytest.mark.parametrize("path", ["/home/jürgen/läufe", "a = b", "~/x", "a#b;(c)&!", "a b/c:d@e"])
def test_any_path_is_an_override(key: str, path: str) -> None:
    (line,) = quote_paths([f"{key}={path}"])
    assert OverridesParser.create().parse_override(line).value() == str(Path(path).expanduser())


@pytest.mark.parametrize(
    "value", [r"runs/lr\=3", "${hydra.sweep.dir}/x", "'a b'", "runs/${now:%Y-%m-%d}", "null"]
)
def test_a_value_in_hydras_grammar_is_kept(value: str) -> None:
    assert quote_paths([f"hydra.run.dir={value}"]) == [f"hydra.run.dir={value}"]


def test_an_apostrophe_in_a_path() -> None:
    path = str(Path("it's", "lr=1,seed=0_ab"))
    (line,) = quote_paths([f"resume={path}"])
    assert OverridesParser.create().parse_override(line).value() == path


def test_two_commands_at_once() -> None:
    shown = for_hydra(["-m", "--cfg", "job", "lr=1,2", "hydra/launcher=submitit_slurm"])
    assert shown == ["-m", "lr=1,2", "hydra/launcher=show"]
    for others in (["-m", "--cfg=all"], ["-m", "--info"]):
        assert for_hydra(others) == others  # refused with the other flags
