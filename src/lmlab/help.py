"""The text of `python train.py --help`, made from the configuration classes and the YAML files."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from lmlab.config import RunConfig
from lmlab.config_errors import GLOBAL_GROUPS
from lmlab.locations import FOLDERS, roots
from lmlab.schema import descriptions, members, named_members

EXAMPLES = """\
Train a language model:  python train.py [GROUP=CHOICE ...] [KEY=VALUE ...]

  python train.py                                the default: three minutes on two CPU cores
  python train.py model=small lr=3e-4            another model, another learning rate
  python train.py data=text 'data.paths=[notes/*.md]'   your own text
  python train.py -m lr=1e-3,3e-3 seed=0,1       every combination, one after the other
  python train.py -m sweep=lr_tuning             a sweep from sweeps/
  python train.py -m sweep=lr_tuning hydra/launcher=submitit_slurm    the same on a Slurm cluster
  python train.py resume=runs/default/...        continue a run
  python train.py --cfg job                      print the configuration and stop
"""


def help_text(conf: Path, root: type[BaseModel] = RunConfig, examples: str = EXAMPLES) -> str:
    """Return examples, the groups with their choices, and every key with its meaning.

    `root` is the class of the whole configuration.
    """
    lines = [examples, "Groups (GROUP=CHOICE)"]
    for name, choices in groups_of(root, group_choices(roots(conf))).items():
        lines += textwrap.wrap(
            f"{name:<18} {', '.join(choices)}",
            100,
            initial_indent="  ",
            subsequent_indent=" " * 21,
            break_on_hyphens=False,
        )
    lines += ["", "Keys (KEY=VALUE); null means: derived or off"]
    lines += _describe(root, "")
    return "\n".join(lines) + "\n"


def groups_of(root: type[BaseModel], choices: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the groups that a configuration of class `root` is composed of.

    These are groups of its keys; those for whole files (experiment, sweep, debug) are a run's.
    """
    own = {*root.model_fields, *(GLOBAL_GROUPS if root is RunConfig else ())}
    return {name: found for name, found in choices.items() if name.split("/")[0] in own}


def group_choices(folders: Sequence[Path]) -> dict[str, list[str]]:
    """Return the choices of every group, of all folders together."""
    choices: dict[str, set[str]] = {}
    for root in folders:
        conf = root / "conf"
        for folder in sorted(path for path in conf.rglob("*") if path.is_dir()):
            files = {file.stem for file in folder.glob("*.yaml")}
            choices.setdefault(str(folder.relative_to(conf)), set()).update(files)
    for group, name in FOLDERS.items():
        for root in folders:
            files = {
                str(file.relative_to(root / name).with_suffix(""))
                for file in (root / name).rglob("*.yaml")
            }
            choices.setdefault(group, set()).update(files)
    return {group: sorted(names) for group, names in choices.items() if names}


def _describe(cls: type[BaseModel], prefix: str) -> list[str]:
    leaves: list[str] = []
    nested: list[str] = []
    texts = descriptions(cls)
    for name, field in cls.model_fields.items():
        named = named_members(field.annotation)
        path = f"{prefix}{name}.NAME" if named else f"{prefix}{name}"
        variants = named or members(field.annotation)
        if not variants and name != "kind":
            leaves += _entry(path, _choices_text(field.annotation) + texts.get(name, ""))
        for variant in variants:
            summary = (variant.__doc__ or "").strip().splitlines()[0]
            kind = variant.model_fields.get("kind")
            choice = f"={get_args(kind.annotation)[0]}" if kind else ""
            nested += ["", f"  {path}{choice}: {summary}"]
            nested += _describe(variant, f"{path}.")
    return leaves + nested


def _choices_text(annotation: Any) -> str:
    if get_origin(annotation) is not Literal:
        return ""
    return "/".join(str(choice).lower() for choice in get_args(annotation)) + ": "


def _entry(path: str, text: str) -> list[str]:
    return textwrap.wrap(
        f"{path:<34} {' '.join(text.split())}",
        100,
        initial_indent="    ",
        subsequent_indent=" " * 39,
        break_on_hyphens=False,
    )
