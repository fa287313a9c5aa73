"""The hand-written scanners against the patterns themselves, run by the `regex` package."""

import importlib.util
import itertools
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizer_strategies import PIECES, patterns, special_tokens, texts

from lmlab.tokenizer.native import PatternName, split_pretokens
from lmlab.tokenizer.pretokenize import PATTERNS, compile_pattern, split_special

SEPARATOR = "<|stop|>"
AROUND = [
    "{0}", "{0}{0}", "a{0}a", "A{0}b", "1{0}1", " {0} ", "\n{0}\n", ".{0}.", "'{0}", " {0}a",
    "{0}'S{0}", "{0}\n\n {0}", "é{0}中",
]  # fmt: skip


def expected(text: str, pattern: str) -> list[bytes]:
    return [match.encode() for match in compile_pattern(pattern).findall(text)]


def every_character() -> Iterator[str]:
    return map(chr, itertools.chain(range(0xD800), range(0xE000, 0x110000)))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_code_point(pattern: PatternName) -> None:
    text = "".join(f"{c}a {c}1{c}\n" for c in every_character())
    found, places = split_pretokens(text, pattern), expected(text, pattern)
    for number, (one, other) in enumerate(zip(found, places, strict=False)):
        assert one == other, f"pretoken {number}, after {found[max(number - 3, 0) : number]}"
    assert len(found) == len(places)


@pytest.mark.slow
@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_code_point_by_itself(pattern: PatternName, around: str) -> None:
    parts = [around.format(c) for c in every_character() if c not in SEPARATOR]
    found = iter(split_pretokens(SEPARATOR.join(parts), pattern, [SEPARATOR.encode()]))
    for part in parts:
        for pretoken in expected(part, pattern):
            assert next(found) == pretoken, f"in {part!a}"
    assert next(found, None) is None


@given(text=texts, pattern=patterns)
def test_arbitrary_text(text: str, pattern: PatternName) -> None:
    assert split_pretokens(text, pattern) == expected(text, pattern)


@given(
    pieces=st.lists(st.sampled_from([*PIECES, " word", "Word ", "don't", "we'll", "x = 1\n"])),
    pattern=patterns,
    repeat=st.integers(1, 30),
)
def test_text_longer_than_a_block(pieces: list[str], pattern: PatternName, repeat: int) -> None:
    text = "".join(pieces) * repeat
    assert split_pretokens(text, pattern) == expected(text, pattern)


@pytest.mark.parametrize(
    "alphabet",
    [
        "a '\n", "ab 's't'll'v'e", "aA1.' \t\r\n", "aé中1½ \u00a0\u3000'.s\n", "\u0301aA中'S /\n",
        "aaaaaaaaaaaaaaaaaaaa ", "            a\n", "!!!!!!!!\n\n/",
    ],
)  # fmt: skip
@pytest.mark.parametrize("pattern", PATTERNS)
def test_random_walks_over_few_characters(pattern: PatternName, alphabet: str) -> None:
    dice = random.Random(alphabet)
    for _ in range(300):
        text = "".join(dice.choices(alphabet, k=dice.randrange(300)))
        assert split_pretokens(text, pattern) == expected(text, pattern), ascii(text)


@given(text=texts, specials=special_tokens, pattern=patterns)
def test_special_tokens(text: str, specials: list[str], pattern: PatternName) -> None:
    parts = [part for part, is_special in split_special(text, specials) if not is_special]
    pretokens = [pretoken for part in parts for pretoken in expected(part, pattern)]
    assert split_pretokens(text, pattern, [token.encode() for token in specials]) == pretokens


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    path = Path(__file__).parents[2] / "scripts/unicode_tables.py"
    spec = importlib.util.spec_from_file_location("unicode_tables", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "unicode_tables", module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_committed_table_is_what_the_script_writes(script: ModuleType) -> None:
    assert script.TARGET.read_text() == script.header()


def test_script_notices_a_table_out_of_date(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(script, "TARGET", tmp_path / "table.hpp")
    monkeypatch.setattr(script, "header", lambda: "new")
    monkeypatch.setattr(sys, "argv", ["unicode_tables.py"])
    assert script.main() == 0
    monkeypatch.setattr(sys, "argv", ["unicode_tables.py", "--check"])
    assert script.main() == 0
    (tmp_path / "table.hpp").write_text("old")
    assert script.main() == 1
