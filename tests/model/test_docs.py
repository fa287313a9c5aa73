"""The page of architectures is what its command makes."""

import importlib.util

import pytest

from tests_support import ROOT


@pytest.mark.slow
def test_the_page_is_up_to_date() -> None:
    path = ROOT / "docs" / "architectures.py"
    spec = importlib.util.spec_from_file_location("architectures_page", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = path.with_suffix(".md").read_text(encoding="utf-8")
    assert page == module.page(), "run: python docs/architectures.py"
