"""The scores of words, lines and repetition decide exactly as datatrove's filters do."""

import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cleaning_support import run, step
from datatrove.data import Document as TheirDocument
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
    c4_filters,
    fineweb_quality_filter,
    gopher_quality_filter,
    gopher_repetition_filter,
)
from datatrove.utils.text import PUNCTUATION_SET, TERMINAL_PUNCTUATION
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lmlab.cleaning import native
from lmlab.cleaning.document import Step
from lmlab.cleaning.hashing import UNSPACED_RANGES
from lmlab.cleaning.punctuation import PUNCTUATION, TERMINAL

REASONS = {
    "gopher_short_doc": "words",
    "gopher_long_doc": "words",
    "gopher_below_avg_threshold": "mean_word_length",
    "gopher_above_avg_threshold": "mean_word_length",
    "gopher_too_many_hashes": "hash_ratio",
    "gopher_too_many_ellipsis": "ellipsis_ratio",
    "gopher_too_many_bullets": "bullet_lines",
    "gopher_too_many_end_ellipsis": "ellipsis_lines",
    "gopher_below_alpha_threshold": "alphabetic_words",
    "gopher_enough_stop_words": "stop_words",
    "dup_para_frac": "duplicate_paragraphs",
    "dup_para_char_frac": "duplicate_paragraph_characters",
    "dup_line_frac": "duplicate_lines",
    "dup_line_char_frac": "duplicate_line_characters",
    "line_punct_ratio": "punctuated_lines",
    "short_line_ratio": "short_lines",
    "char_dup_ratio": "duplicate_line_characters",
    "list_ratio": "newline_ratio",
    "too_few_sentences": "sentences",
    "lorem_ipsum": "lorem_ipsum",
    "curly_bracket": "curly_brackets",
}


def our_reason(theirs: str) -> str:
    """Return our name of datatrove's reason."""
    if theirs.startswith("top_"):
        return f"top_ngram_{theirs.split('_')[1]}"
    if theirs.startswith("duplicated_"):
        return f"duplicate_ngram_{theirs.split('_')[1]}"
    return REASONS[theirs]


@pytest.fixture(autouse=True, scope="module")
def our_words() -> Iterator[None]:
    """Give datatrove our words and sentences: the rules are compared, not the tokenizers."""

    def words(text: str, language: str) -> list[str]:
        return native.split_words(text)

    def sentences(text: str, language: str) -> list[None]:
        return [None] * native.Statistics().sentences(text)

    with pytest.MonkeyPatch.context() as patch:
        for module in (gopher_quality_filter, gopher_repetition_filter, fineweb_quality_filter):
            patch.setattr(module, "split_into_words", words)
        patch.setattr(c4_filters, "split_into_sentences", sentences)
        yield


CASES: list[tuple[str, str, Callable[..., Any]]] = [
    ("gopher", "gopher", GopherQualityFilter),
    ("gopher", "repetition", GopherRepetitionFilter),
    ("fineweb", "fineweb", FineWebQualityFilter),
    ("c4", "c4", C4QualityFilter),
]
OURS = {kind: step(recipe, kind) for recipe, kind, _ in CASES}
THEIRS = {kind: make() for _, kind, make in CASES}


def compare(kind: str, ours: Step, text: str) -> str:
    """Check that both decide alike; return the reason, empty where the document stays."""
    document = TheirDocument(text=text, id="0")
    result = THEIRS[kind].filter(document)
    kept, reason = result if isinstance(result, tuple) else (result, "")
    found = run(ours, text)
    assert (found.removal is None) == kept, (kept, reason, found)
    if found.removal is None:
        assert found.text == document.text
    elif reason != "empty":
        both = {"lorem_ipsum", "curly_brackets"}  # datatrove names what stands first in the text
        assert (
            found.removal.reason == our_reason(reason)
            or {
                found.removal.reason,
                our_reason(reason),
            }
            == both
        )
    return reason if not kept else ""


WORDS = [
    *("the", "and", "of", "cat", "house", "running", "—", "don't", "U.S.", "#", "...", "…", "•"),
    *("-", "12", "3.5", "x", "!", "¿qué?", "слово", "naïve", "e-mail/it", "{", "lorem", "ipsum"),
    *("javascript", "cookie", "policy"),
]


def some_text(dice: random.Random) -> str:
    """A text of few different words and lines: what rules on repetition are about."""
    words = dice.choices(WORDS, k=dice.choice([3, 8, len(WORDS)]))
    lines = [
        " ".join(dice.choices(words, k=dice.randrange(1, 14))) + dice.choice([".", "", "...", "!"])
        for _ in range(dice.randrange(1, 12))
    ]
    ends = ["\n", "\n\n", "\n", "\r\n", "\u2028", " \n"]
    return "".join(
        dice.choice(lines) + dice.choice(ends) for _ in range(dice.choice([1, 5, 40, 200]))
    )


@pytest.mark.parametrize("kind", OURS)
def test_random_texts(kind: str) -> None:
    dice = random.Random(5)
    reasons = {compare(kind, OURS[kind], some_text(dice)) for _ in range(400)}
    assert len(reasons) >= 3  # kept ones, and removed for several reasons


@pytest.mark.parametrize("kind", OURS)
def test_prose_of_the_standard_library(kind: str) -> None:
    """Real text and source code: some pass, some do not."""
    files = sorted(Path(random.__file__).parent.glob("*.py"))[:60]
    for path in files:
        text = path.read_text(encoding="utf-8")
        compare(kind, OURS[kind], text)
        parts = [part for part in text.split('"""')[1::2] if part.strip()]
        compare(kind, OURS[kind], "\n\n".join(parts) or "-")


UNSPACED = "".join(f"{chr(low)}-{chr(high)}" for low, high in UNSPACED_RANGES)
TEXTS = st.one_of(
    st.text(st.sampled_from("ab .\n…#•-!\r\u2028\x1cA1éж'’"), max_size=400),
    st.text(max_size=200),
    st.lists(st.sampled_from(WORDS), max_size=200).map(" ".join),
    st.lists(st.sampled_from(["a b c.", "d e", "", " ", "x…"]), max_size=60).map("\n".join),
).map(lambda text: re.sub(f"[{UNSPACED}]", "ж", text))
"""Without scripts that put no space between words: theirs are by rules of our own."""


@pytest.mark.parametrize("kind", ["repetition", "fineweb", "c4"])
@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
@example("\n\na\n\na\n")
@example("a\ufeff")
@example("\ud800 a")
def test_any_text(kind: str, text: str) -> None:
    if kind == "c4" and not text.split():
        return
    compare(kind, OURS[kind], text)


@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value")
@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
def test_any_text_by_gophers_later_rules(text: str) -> None:
    """The rules behind the length, which short texts never reach."""
    if not native.split_words(text):
        return
    loose = {"min_words": None, "min_mean_word_length": None, "max_mean_word_length": None}
    theirs = GopherQualityFilter(
        min_doc_words=None, min_avg_word_length=None, max_avg_word_length=None
    )
    kept = theirs.filter(TheirDocument(text=text, id="0"))
    found = run(step("gopher", "gopher", **loose), text).removal
    reason = "" if kept is True else our_reason(kept[1])
    assert (found.reason if found else "") == reason


def test_the_sets_of_signs() -> None:
    assert set(PUNCTUATION) == PUNCTUATION_SET
    assert set(TERMINAL) == TERMINAL_PUNCTUATION
