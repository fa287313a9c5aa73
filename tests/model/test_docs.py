"""The page of architectures is what its command makes."""

import importlib.util

import pytest

from tests_support import ROOT


@pytest.mark.slow
def test_the_page_is_up_to_date() -> None:
    path = ROOT / "scripts" / "architectures.py"
    spec = importlib.util.spec_from_file_location("architectures_page", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = module.PAGE.read_text(encoding="utf-8")
    assert page == module.page(), "run: python scripts/architectures.py"
