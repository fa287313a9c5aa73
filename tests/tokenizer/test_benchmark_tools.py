"""What the benchmarks rest on: documents, sections of a README, the check of merges."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from lmlab.tokenizer import train_bpe


@pytest.fixture
def module(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    monkeypatch.setattr(sys, "path", sys.path)
    return importlib.import_module(f"benchmarks.{request.param}")


@pytest.mark.parametrize("module", ["corpora"], indirect=True)
def test_documents_end_at_the_separator(module: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    long = "é" * 1_000_000  # the separator straddles a piece of reading
    path.write_text(f"one<|endoftext|>{long}<|endoftext|>two\r\n<|endoftext|>", newline="")
    assert list(module.documents(path)) == ["one", long, "two\r\n"]


@pytest.mark.parametrize("module", ["corpora"], indirect=True)
def test_corpora_are_cut_between_characters(
    module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(module.CORPORA, "made up", lambda: iter(["é" * 50, "日" * 50, "é" * 50]))
    for size in range(90, 100):
        path = module.write("made up", tmp_path, size)
        text = path.read_bytes().decode()
        assert size - 3 < len(text.encode()) <= size
    whole = module.write("made up", tmp_path, 10_000).read_text()
    assert sorted(whole.split("<|endoftext|>")) == ["", "é" * 50, "日" * 50]  # each of them once


@pytest.mark.parametrize("module", ["tables"], indirect=True)
def test_only_its_own_section_of_a_readme_is_replaced(module: ModuleType, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("# Title\n<!-- a -->\nold\n<!-- /a -->\ntext\n<!-- b -->\n<!-- /b -->\nend\n")
    module.put_section(readme, "a", "new")
    module.put_section(readme, "b", "more")
    assert readme.read_text() == (
        "# Title\n<!-- a -->\nnew\n<!-- /a -->\ntext\n<!-- b -->\nmore\n<!-- /b -->\nend\n"
    )


@pytest.mark.parametrize("module", ["tokenizer"], indirect=True)
def test_merges_may_differ_in_ties_only(module: ModuleType, corpus: str, tmp_path: Path) -> None:
    path = tmp_path / "sample.txt"
    path.write_text(corpus, newline="")
    _, ours = train_bpe(path, 400)
    assert "all 144 merges equal" in module.check_merges(path, ours, ours, "peer")

    swapped = [ours[1], ours[0], *ours[2:]]
    with pytest.raises(SystemExit, match="disagrees at merge 1"):
        module.check_merges(path, ours, swapped, "peer")

    path.write_text("ab cd", newline="")  # every pair occurs once
    said = module.check_merges(path, [(b"c", b"d")], [(b"a", b"b")], "peer")
    assert said.startswith("peer: 0 merges equal, then two pairs are equally frequent")
