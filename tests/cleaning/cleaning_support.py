"""Steps as the recipes configure them."""

from typing import Any

import yaml
from pydantic import TypeAdapter

from lmlab.cleaning.build import build
from lmlab.cleaning.config import StepBase, StepConfig
from lmlab.cleaning.document import Document, Step
from tests_support import CONF


def recipe(name: str) -> dict[str, Any]:
    """Return step name -> its values as the recipe has them."""
    steps = yaml.safe_load((CONF / "cleaning" / f"{name}.yaml").read_text())["steps"]
    return {key: value for key, value in steps.items() if key not in ("exact_lines", "minhash")}


def config(name: str, step: str, **changes: Any) -> StepBase:
    """Return the configuration of a recipe's step."""
    adapter: TypeAdapter[StepBase] = TypeAdapter(StepConfig)
    return adapter.validate_python(recipe(name)[step] | changes)


def step(name: str, kind: str, **changes: Any) -> Step:
    """Return a recipe's step, built."""
    return build(config(name, kind, **changes))


def run(made: Step, text: str = "", raw: bytes | None = None) -> Document:
    """Return a document after a step."""
    [document] = made([Document("file:0", text, raw)])
    return document
