"""Chinese, Japanese, Thai and the like put no space between words: each letter is a word."""

import random

import pytest
from cleaning_support import run, step

from lmlab.cleaning import gopher_quality_filter, native
from lmlab.cleaning.hashing import jaccard, ngram_set, normalize

LETTERS = [chr(code) for code in range(0x4E00, 0x4E00 + 1500)]


def chinese(letters: int, seed: int = 0) -> str:
    dice = random.Random(seed)
    return "".join(dice.choices(LETTERS, k=letters))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("我们是中国人。你好", ["我", "们", "是", "中", "国", "人", "。", "你", "好"]),
        ("用Python写的,3.5版", ["用", "Python", "写", "的", ",", "3.5", "版"]),
        ("これはテスト", ["こ", "れ", "は", "テ", "ス", "ト"]),
        ("ครับ ดี", ["ค", "รั", "บ", "ดี"]),  # with their marks
        ("한국어 단어", ["한국어", "단어"]),  # Korean has spaces
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert native.split_words(text) == words


@pytest.mark.parametrize(("letters", "kept"), [(49, False), (50, True)])
def test_gopher_counts_letters_and_judges_no_mean_length(letters: int, kept: bool) -> None:
    text = chinese(letters)
    found = run(step("course", "gopher"), text)
    assert (found.removal is None) == kept == gopher_quality_filter(text)
    assert found.scores["gopher.words"] == letters
    assert "gopher.mean_word_length" not in found.scores


def test_the_mean_length_is_that_of_words_with_spaces() -> None:
    found = run(step("course", "gopher"), "word " * 60 + chinese(59))
    assert found.scores["gopher.mean_word_length"] == 4


def test_stop_words_of_the_language() -> None:
    changes = {"stop_words": ["的", "是"], "min_stop_words": 2}
    plain = chinese(80).replace("的", "一").replace("是", "一")
    assert run(step("gopher", "gopher", **changes), plain).removal is not None
    assert run(step("gopher", "gopher", **changes), plain + "这是我的").removal is None


def test_repetition() -> None:
    assert run(step("gopher", "repetition"), chinese(300)).removal is None
    assert run(step("gopher", "repetition"), chinese(300) + chinese(100) * 2).removal is not None


def test_an_ngram_has_two_letters_for_a_word() -> None:
    again = chinese(90) + "".join(f"{chinese(9, seed=1)}{chinese(9, seed=n)}" for n in range(2, 12))
    scores = run(step("gopher", "repetition"), again).scores
    assert scores["repetition.duplicate_ngram_5"] == 0  # only nine letters in a row come again
    assert scores["repetition.top_ngram_4"] == pytest.approx(80 / 270)


def test_near_duplicates() -> None:
    a = chinese(400)
    b = f"{a[:100]}改{a[101:]}"
    assert jaccard(ngram_set(a, 5), ngram_set(b, 5)) == pytest.approx(391 / 401)
    assert jaccard(ngram_set(a, 5), ngram_set(chinese(400, seed=1), 5)) == 0


def test_both_definitions_agree() -> None:
    for code in range(0x0E00, 0x40000):
        letter = chr(code)
        if letter.isalpha():
            apart = len(native.split_words(letter * 2)) == 2
            assert (len(normalize(letter * 2).split()) > 1) == apart, hex(code)
