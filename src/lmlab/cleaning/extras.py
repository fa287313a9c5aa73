"""The packages of the extra `cleaning`, imported when a step that needs them is built."""

import importlib
from typing import Any

from lmlab.errors import UserError


def package(module: str, distribution: str) -> Any:
    """Import a module; raises UserError with the command that installs its package."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise UserError(
            f"this needs the package {distribution}; install it with pip install 'lmlab[cleaning]'"
        ) from None
