"""What keeps the code a whole: imports point one way, modules stay small, every YAML is good."""

import ast
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from lmlab.config import RunConfig
from lmlab.model import build
from lmlab.schema import keys_at
from tests_support import CONF, ROOT, composed

SRC = ROOT / "src" / "lmlab"
LEVELS = [
    {"io", "gpu"},
    {"tokenizer", "kernels"},
    {"model", "optim", "data", "parallel"},
    {"training", "generation", "runs", "accounting"},
    {"loading", "planning", "alignment"},
    {"task", "serving", "export", "evaluation", "profiling", "scaling", "cleaning"},
    {"cluster"},
]
CONFIGURED = {"task", "serving", "export", "evaluation", "profiling", "cluster", "scaling"}
"""Packages above the configuration of a run, which may import it."""
BASE = {
    *("command", "errors", "figures", "files", "layout", "lazy", "locations", "processor"),
    *("schema", "text"),
}
SOURCES = sorted([*SRC.rglob("*.py"), *(ROOT / "src" / "hydra_plugins").rglob("*.py")])


def imported(path: Path) -> set[str]:
    """Return the modules of lmlab that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def roots(path: Path) -> set[str]:
    """Return the top-level packages that a file imports."""
    return {name.split(".")[0] for name in imported(path)}


def test_imports_point_one_way() -> None:
    level = {package: i for i, packages in enumerate(LEVELS) for package in packages}
    wrong = []
    for path in SRC.rglob("*.py"):
        package = path.relative_to(SRC).parts[0]
        if package not in level or path.name.endswith("cli.py"):  # commands stand above all
            continue
        for name in imported(path):
            parts = name.split(".")
            if parts[0] != "lmlab" or len(parts) < 2:
                continue
            other = parts[1]
            allowed = other == package or other in BASE or level.get(other, 99) < level[package]
            allowed |= package in CONFIGURED and other == "config"
            if not allowed:
                wrong.append(f"{path.relative_to(SRC)} imports {name}")
    assert wrong == []


def test_configurations_import_nothing_heavy() -> None:
    for path in [*SRC.rglob("config.py"), SRC / "hydra_app.py", SRC / "help.py"]:
        heavy = {name.split(".")[0] for name in imported(path)}
        assert not heavy & {"torch", "numpy", "matplotlib", "plotly", "submitit", "wandb"}, path


def test_only_the_composition_sees_hydra() -> None:
    seeing = {path.name for path in SRC.rglob("*.py") if "hydra" in roots(path)}
    assert seeing <= {"hydra_app.py", "clean_app.py", "compose_errors.py", "flags.py"}
    omega = {path.name for path in SRC.rglob("*.py") if "omegaconf" in roots(path)}
    assert omega <= {"hydra_app.py", "compose_errors.py", "config.py"}


def test_only_native_py_imports_a_native_core() -> None:
    for path in SOURCES:
        for name in imported(path):
            if name.split(".")[-1] == "_core":
                assert path == SRC / name.split(".")[1] / "native.py", path


@pytest.mark.parametrize(
    "path",
    [*SOURCES, *SRC.rglob("*.cpp"), *SRC.rglob("*.hpp"), ROOT / "train.py"],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_modules_stay_small(path: Path) -> None:
    generated = "generated" in path.read_text(encoding="utf-8")[:300].lower()
    assert generated or len(path.read_text(encoding="utf-8").splitlines()) <= 300


def choices(folder: Path, group: str) -> list[str]:
    return [
        f"{group}={path.relative_to(folder).with_suffix('')}"
        for path in sorted(folder.rglob("*.yaml"))
        if group in ("experiment", "sweep") or path.parent == folder
    ]


OF_CLEANING = {"cleaning", "executor"}
"""Groups that clean.py composes, not train.py."""
GROUPS = {
    str(path.relative_to(CONF)): path
    for path in sorted(CONF.rglob("*"))
    if path.is_dir() and path.name not in OF_CLEANING
}
EXPERIMENTS = choices(ROOT / "experiments", "experiment")
SWEEPS = choices(ROOT / "sweeps", "sweep")
EVERY = [choice for group, folder in GROUPS.items() for choice in choices(folder, group)]


def sweep_axes(choice: str) -> dict[str, str]:
    """Return the axes of a sweep as Hydra composes them, each with its values as text."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=[choice], return_hydra_config=True)
    return dict(config.hydra.sweeper.params)


def sweep_points(choice: str) -> Iterator[tuple[str, ...]]:
    """Yield the overrides of each run of a sweep, for one seed."""
    given = [f"{axis}={values}" for axis, values in sweep_axes(choice).items() if axis != "seed"]
    parsed = OverridesParser.create().parse_overrides(given)
    yield from itertools.product(
        *(
            [f"{override.key_or_group}={value}" for value in override.sweep_string_iterator()]
            for override in parsed
        )
    )


FILES = ["task.problems.path=a.jsonl", "task.problems.validation_path=b.jsonl"]
REQUIRED = {
    "tokenizer=saved": ["tokenizer.path=runs/a/tokenizer"],
    "task=sft": ["task.examples.paths=[a.jsonl]"],
    "task=dpo": ["task.examples.paths=[a.jsonl]"],
    **{f"task/problems={path.stem}": ["task=grpo"] for path in CONF.glob("task/problems/*.yaml")},
    "task/problems=files": ["task=grpo", *FILES],
}
"""Keys that a choice leaves to the user."""


@pytest.mark.parametrize("choice", EVERY + EXPERIMENTS + SWEEPS)
def test_every_yaml_composes_loads_and_builds(choice: str) -> None:
    config = composed(choice, *REQUIRED.get(choice, ()))
    model = build(config.model, 300, device="meta")
    logits = model(torch.zeros(1, 8, dtype=torch.long, device="meta"))
    assert logits.shape == (1, 8, config.model.vocab_size or 300)


@pytest.mark.parametrize("choice", SWEEPS)
def test_every_axis_of_a_sweep_is_a_key(choice: str) -> None:
    for axis in sweep_axes(choice):
        *parents, key = axis.replace("/", ".").split(".")
        assert key in keys_at(RunConfig, parents) or axis == "experiment", axis
    name = choice.removeprefix("sweep=")
    text = (ROOT / "sweeps" / f"{name}.yaml").read_text(encoding="utf-8")
    assert text.startswith(f"# @package _global_\n# python train.py -m sweep={name}")


@pytest.mark.parametrize("name", [path.stem for path in (ROOT / "sweeps").glob("*.yaml")])
def test_the_course_scale_of_a_sweep_is_one_switch(name: str) -> None:
    """It has the axes of the small one, runs in a folder of its own, and on the course's data."""
    small, course = f"sweep={name}", f"sweep=course/{name}"
    assert course in SWEEPS
    assert sweep_axes(course).keys() == sweep_axes(small).keys()
    config = composed(course)
    assert (composed(small).name, config.name) == (name, f"{name}_course")
    wanted = composed("experiment=tinystories")
    assert (config.data, config.tokenizer) == (wanted.data, wanted.tokenizer)
    assert (config.lr, config.trainer.batch_size) == (wanted.lr, wanted.trainer.batch_size)
    size = ("d_model", "num_layers", "context_length")
    assert config.model.model_dump(include=size) == wanted.model.model_dump(include=size)


def test_shapes_of_the_course_have_equally_many_parameters_in_their_layers() -> None:
    sizes = []
    for model in sweep_points("sweep=course/aspect_ratio"):
        config = composed("sweep=course/aspect_ratio", *model).model
        whole = sum(p.numel() for p in build(config, 300, device="meta").parameters())
        sizes.append(whole - 2 * 300 * config.d_model)
    assert max(sizes) < 1.02 * min(sizes)


@pytest.mark.parametrize("choice", SWEEPS)
def test_every_run_of_a_sweep_builds(choice: str) -> None:
    for point in sweep_points(choice):
        build(composed(choice, *point).model, 300, device="meta")
