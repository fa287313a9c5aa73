"""The exports of each package: table, `TYPE_CHECKING` block, `__all__` and `dir()` agree."""

import ast
import importlib
from pathlib import Path

import pytest

from tests_support import ROOT

SOURCE = ROOT / "src"
FILES = [
    path
    for path in sorted((SOURCE / "lmlab").rglob("__init__.py"))
    if "lazy_exports" in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_every_list_of_exports_agrees(path: Path) -> None:
    package = ".".join(path.parent.relative_to(SOURCE).parts)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    (call,) = (
        node for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "lazy_exports"
    )  # fmt: skip
    table = ast.literal_eval(call.args[1])
    listed = {(f"{package}.{inside}", name) for inside, names in table.items() for name in names}
    (block,) = (
        node for node in tree.body
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
    )  # fmt: skip
    typed = {
        (statement.module, alias.name)
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    module = importlib.import_module(package)
    names = {name for _, name in listed}
    assert listed <= typed
    assert set(module.__all__) == names | {name for name in defined if not name.startswith("_")}
    assert set(module.__all__) <= set(dir(module))
    assert all(getattr(module, name).__name__ == name for name in names if name != "RunConfig")
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        module.nope  # noqa: B018
