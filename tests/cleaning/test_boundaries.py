"""Thresholds are inclusive on the side that the papers say, worked by hand."""

from typing import Any

import pytest
from cleaning_support import config, run, step

from lmlab.cleaning import gopher_quality_filter
from lmlab.cleaning.build import criteria
from lmlab.cleaning.document import Criterion, Document, first_failure


def reason(name: str, kind: str, text: str, **changes: Any) -> str | None:
    removal = run(step(name, kind, **changes), text).removal
    return removal.reason if removal else None


def gopher(text: str, **changes: Any) -> str | None:
    return reason("course", "gopher", text, **changes)


@pytest.mark.parametrize(
    ("count", "kept"), [(49, False), (50, True), (100_000, True), (100_001, False)]
)
def test_words(count: int, kept: bool) -> None:
    text = " ".join(["word"] * count)
    assert gopher(text) == (None if kept else "words")
    assert gopher_quality_filter(text) == kept
    assert run(step("course", "gopher"), text).scores["gopher.words"] == count


def test_signs_are_no_words() -> None:
    assert gopher(" ".join(["word"] * 49 + [".", "!", "..."])) == "words"


@pytest.mark.parametrize(
    ("long", "short", "kept"),
    [(99, 1, False), (100, 0, True)],  # 2.99 and 3.0
)
def test_shortest_mean_word_length(long: int, short: int, kept: bool) -> None:
    text = " ".join(["abc"] * long + ["ab"] * short)
    assert gopher(text) == (None if kept else "mean_word_length")


@pytest.mark.parametrize(("longer", "kept"), [(0, True), (1, False)])  # 10.0 and 10.01
def test_longest_mean_word_length(longer: int, kept: bool) -> None:
    text = " ".join(["abcdefghij"] * (100 - longer) + ["abcdefghijk"] * longer)
    assert gopher(text) == (None if kept else "mean_word_length")


@pytest.mark.parametrize(("ellipses", "kept"), [(30, True), (31, False)])
@pytest.mark.parametrize("ellipsis", ["...", "…", "... "])
def test_lines_that_end_in_an_ellipsis(ellipses: int, kept: bool, ellipsis: str) -> None:
    lines = [f"words of a line{ellipsis}"] * ellipses + ["words of a line."] * (100 - ellipses)
    found = run(step("course", "gopher"), "\n".join(lines))
    assert found.scores["gopher.ellipsis_lines"] == ellipses / 100
    assert (found.removal is None) == kept
    if found.removal is not None:
        assert found.removal.reason == "ellipsis_lines"
        assert len(found.removal.spans) == ellipses
        start, end = found.removal.spans[1]
        assert found.text[start:end].strip() == f"words of a line{ellipsis}".strip()


@pytest.mark.parametrize(("numbers", "kept"), [(20, True), (21, False)])
def test_words_with_a_letter(numbers: int, kept: bool) -> None:
    text = " ".join(["12345"] * numbers + ["words"] * (100 - numbers))
    assert gopher(text) == (None if kept else "alphabetic_words")


@pytest.mark.parametrize(("signs", "kept"), [(10, True), (11, False)])
def test_symbol_ratio(signs: int, kept: bool) -> None:
    words = ["and", "the", *["word"] * (98 - signs)]  # a hash sign is a word
    text = " ".join(words + ["#"] * signs)
    assert reason("gopher", "gopher", text) == (None if kept else "hash_ratio")


@pytest.mark.parametrize(("bullets", "kept"), [(90, True), (91, False)])
def test_bullets(bullets: int, kept: bool) -> None:
    lines = ["- the words and more words"] * bullets + ["the words and more"] * (100 - bullets)
    assert reason("gopher", "gopher", "\n".join(lines)) == (None if kept else "bullet_lines")


@pytest.mark.parametrize(
    ("words", "kept"), [(["the"], False), (["the", "of"], True), (["the"] * 9, False)]
)
def test_two_different_stop_words(words: list[str], kept: bool) -> None:
    text = " ".join(["word"] * 60 + words)
    assert reason("gopher", "gopher", text) == (None if kept else "stop_words")


def test_repetition_by_hand() -> None:
    text = "one two\none two\nthree four five"
    scores = run(step("gopher", "repetition"), text).scores
    size = len(text)
    assert scores["repetition.duplicate_lines"] == 1 / 3
    assert scores["repetition.duplicate_line_characters"] == 7 / size
    assert scores["repetition.duplicate_paragraphs"] == 0
    assert scores["repetition.top_ngram_2"] == 2 * len("one two") / size
    assert scores["repetition.top_ngram_3"] == len("one two one") / size
    assert scores["repetition.duplicate_ngram_5"] == 0
    text = "a b c d e a b c d e f"
    scores = run(step("gopher", "repetition"), text).scores
    assert scores["repetition.duplicate_ngram_5"] == 5 / len(text)


@pytest.mark.parametrize(("share", "kept"), [(30, True), (31, False)])
def test_duplicate_lines(share: int, kept: bool) -> None:
    different = [f"{i:02} {chr(97 + i % 26) * 30} {i}" for i in range(100 - share)]
    text = "\n".join([*different, *["00 " + "a" * 30 + " 0"] * share])
    found = reason(
        "gopher", "repetition", text, top_ngrams={}, duplicate_ngrams={},
        max_duplicate_line_characters=None,
    )  # fmt: skip
    assert found == (None if kept else "duplicate_lines")


def test_the_offending_parts_of_repetition() -> None:
    text = "some words are said twice here. " * 2 + "other"
    removal = run(step("gopher", "repetition"), text).removal
    assert removal is not None
    assert removal.reason.startswith(("top_ngram", "duplicate_ngram"))
    assert len({text[start:end] for start, end in removal.spans}) == 1


@pytest.mark.parametrize(("punctuated", "kept"), [(12, True), (11, False)])
def test_fineweb_lines_with_punctuation(punctuated: int, kept: bool) -> None:
    lines = [f"{i} {chr(97 + i % 26) * 40} {i} is a line of more than thirty" for i in range(100)]
    text = "\n".join(line + ("." if i < punctuated else "") for i, line in enumerate(lines))
    assert reason("fineweb", "fineweb", text) == (None if kept else "punctuated_lines")


@pytest.mark.parametrize(("short", "kept"), [(67, True), (68, False)])
def test_fineweb_short_lines(short: int, kept: bool) -> None:
    lines = [f"{i:03} " + "x" * 25 + "." for i in range(short)]  # 30 characters
    lines += [f"{i:03} " + "word " * 10 + "." for i in range(100 - short)]
    found = reason("fineweb", "fineweb", "\n".join(lines), max_newline_ratio=None)
    assert found == (None if kept else "short_lines")


def test_c4_by_hand() -> None:
    text = (
        "The first sentence[1] is here. A second one!\nno punctuation at the end\nToo short.\n"
        "It goes on...\nPlease enable JavaScript to go on.\nWe use cookies on this site.\n"
        'He said "this is good".  \nIs it so? Yes, it is.'
    )
    found = run(step("c4", "c4"), text)
    assert found.removal is None
    assert found.text == (
        'The first sentence is here. A second one!\nHe said "this is good".\nIs it so? Yes, it is.'
    )
    assert found.scores == {
        "c4.sentences": 5,
        "c4.dropped_lines": 5,
        "c4.lorem_ipsum": 0,
        "c4.curly_brackets": 0,
    }


@pytest.mark.parametrize(
    ("line", "why"),
    [("Lorem ipsum dolor sit.", "lorem_ipsum"), ("if (a) { b. }.", "curly_brackets")],
)
def test_c4_removes_pages(line: str, why: str) -> None:
    text = "This is a sentence of words.\n" * 9 + line
    removal = run(step("c4", "c4"), text).removal
    assert removal is not None
    assert removal.reason == why
    assert text[slice(*removal.spans[0])].lower() in ("lorem ipsum", "{")


def test_decisions_replay_from_the_scores_alone() -> None:
    """A removed document keeps all scores of its step, whichever criterion failed first."""
    table = criteria([config("gopher", "gopher")])["gopher"]
    found = run(step("gopher", "gopher"), "# " * 60)
    assert {criterion.score for criterion in table} == set(found.scores)
    failure = first_failure(table, found.scores)
    assert failure is not None
    assert found.removal is not None
    assert (failure[0].reason, failure[1]) == (found.removal.reason, found.removal.score)


def test_a_criterion_includes_its_bounds_and_refuses_nan() -> None:
    criterion = Criterion("a", "a", 1, 2)
    assert [criterion.passes(x) for x in (0.99, 1, 2, 2.01, float("nan"))] == [
        *(False, True, True, False, False)
    ]


@pytest.mark.parametrize("kind", ["gopher", "repetition", "fineweb", "c4", "pii", "language"])
@pytest.mark.parametrize("text", ["", " ", "\n\n", "\0", "\ud800", "\u2028", "a"])
def test_texts_of_nothing(kind: str, text: str) -> None:
    name = {"c4": "c4", "pii": "course", "fineweb": "fineweb"}.get(kind, "gopher")
    document = run(step(name, kind), text)
    assert all(score == score for score in document.scores.values())


def test_any_batching_gives_the_same() -> None:
    made = step("fineweb", "repetition")
    texts = ["word " * n + "\nline\n" * (n % 5) for n in range(40)]
    whole = made([Document(str(i), text) for i, text in enumerate(texts)])
    single = [made([Document(str(i), text)])[0] for i, text in enumerate(texts)]
    assert whole == single


# The course's contract for its four rules.
@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("This is a valid text of high quality by the rules. " * 100, True),
        ("A short snippet.", False),
        ("the be " * 100, False),
        ("the with " * 100, True),
        ("the and extraordinarily extraordinarily extraordinarily " * 100, False),
        ("the and this is fine " * 100, True),
        ("a string that is too long " * 50_000, False),
        ("the and " + "123 " * 800 + "word " * 200, False),
    ],
)
def test_the_courses_filter(text: str, passes: bool) -> None:
    assert gopher_quality_filter(text) == passes
