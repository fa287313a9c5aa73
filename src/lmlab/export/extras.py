"""The packages of the extra `export`, imported when they are used."""

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

from lmlab.errors import UserError


def package(name: str) -> Any:
    """Import a package; raises UserError with the command that installs it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != name.split(".")[0]:
            raise
        raise UserError(
            f"this needs the package {name}; install it with pip install 'lmlab[export]'"
        ) from None


@contextlib.contextmanager
def quiet_transformers() -> Iterator[Any]:
    """Yield transformers, without its warnings and progress bars."""
    transformers = package("transformers")
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield transformers
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
