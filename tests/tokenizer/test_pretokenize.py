"""Splitting on special tokens and by patterns, against plainer forms."""

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizer_strategies import cuts, patterns, texts

from lmlab.errors import DataError, UserError
from lmlab.tokenizer.pretokenize import (
    check_special_tokens,
    split_pretokens,
    split_special,
    split_special_stream,
    to_utf8,
)


def split_by_hand(text: str, special_tokens: list[str]) -> list[tuple[str, bool]]:
    parts: list[tuple[str, bool]] = []
    ordinary, i = "", 0
    while i < len(text):
        found = [token for token in special_tokens if text.startswith(token, i)]
        if found:
            if ordinary:
                parts.append((ordinary, False))
            ordinary = ""
            parts.append((max(found, key=len), True))
            i += len(parts[-1][0])
        else:
            ordinary += text[i]
            i += 1
    return parts + ([(ordinary, False)] if ordinary else [])


few_letters = st.text("ab<", max_size=30)


@given(few_letters, st.lists(st.text("ab<", min_size=1, max_size=4), unique=True), st.data())
def test_longest_special_token_wins_for_any_cut(
    text: str, special_tokens: list[str], data: st.DataObject
) -> None:
    expected = split_by_hand(text, special_tokens)
    assert list(split_special(text, special_tokens)) == expected
    pieces = data.draw(cuts(text))
    assert list(split_special_stream(pieces, special_tokens)) == expected


def test_stream_gives_parts_as_soon_as_they_are_certain() -> None:
    pieces = iter(itertools.cycle(["one<", "|a|>", "two"]))
    stream = split_special_stream(pieces, ["<|a|>"])
    assert list(itertools.islice(stream, 3)) == [("one", False), ("<|a|>", True), ("twoone", False)]


@given(texts, patterns)
def test_named_patterns_cover_every_text(text: str, pattern: str) -> None:
    assert "".join(split_pretokens(text, pattern)) == text


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("gpt2", ["I", "'ll", " pay", " 1234", "!!", "  \n"]),
        ("cl100k", ["I", "'ll", " pay", " ", "123", "4", "!!", "  \n"]),
        ("o200k", ["I'll", " pay", " ", "123", "4", "!!", "  \n"]),
    ],
)
def test_patterns_differ_where_they_should(pattern: str, expected: list[str]) -> None:
    text = "I'll pay 1234!!  \n"
    assert list(split_pretokens(text, pattern)) == expected


@pytest.mark.parametrize(
    ("text", "found"), [("ab cd", "' cd'"), (" ab", "' ab'"), ("ab!", "'!'"), ("!", "'!'")]
)
def test_pattern_that_does_not_cover_the_text(text: str, found: str) -> None:
    with pytest.raises(UserError, match="does not cover the text") as error:
        list(split_pretokens(text, r"\w+"))
    assert found in str(error.value)


def test_pattern_that_matches_nothing_at_places_still_has_to_cover() -> None:
    assert list(split_pretokens("ab cd", r"\w*|\s")) == ["ab", " ", "cd"]
    with pytest.raises(UserError, match="does not cover"):
        list(split_pretokens("ab cd", r"\w*"))


def test_broken_pattern() -> None:
    with pytest.raises(UserError, match="neither one of gpt2, cl100k, o200k nor a regular"):
        list(split_pretokens("a", "(a"))


@pytest.mark.parametrize(
    ("tokens", "message"),
    [(["a", "a"], "given twice"), (["a", ""], "empty"), (["\ud800"], "lone"), ("<|a|>", "a list")],
)
def test_bad_special_tokens(tokens: Sequence[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_special_tokens(tokens)


def test_lone_surrogate_is_named() -> None:
    with pytest.raises(DataError, match=r"'\\ud83d' at character 2"):
        to_utf8("ab\ud83d")
