"""A trained run."""

from pathlib import Path

import pytest

from lmlab.task import run as train
from tests_support import composed


@pytest.fixture(scope="session")
def trained(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 12 steps on bytes, with a context of 32."""
    run = tmp_path_factory.mktemp("trained") / "a run"
    train(composed(*tiny), run)
    return run
