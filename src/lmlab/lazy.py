"""Exports imported when they are asked for, so that a configuration never imports torch."""

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy_exports(package: str, exports: Mapping[str, tuple[str, ...]]) -> Callable[[str], Any]:
    """Return a module `__getattr__` that finds each name in the submodule it is listed under.

    The names are in `dir(package)` as well.
    """
    where = {name: module for module, names in exports.items() for name in names}
    namespace = vars(sys.modules[package])

    def __getattr__(name: str) -> Any:
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{where[name]}"), name)

    namespace["__dir__"] = lambda: sorted({*namespace, *where})
    return __getattr__
