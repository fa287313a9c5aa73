"""Special tokens in text: kept whole, read as text, or refused; few or very many of them."""

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizer_strategies import cuts, patterns, special_tokens, texts, trained

from lmlab.errors import DataError, UserError
from lmlab.tokenizer.bpe import Tokenizer, byte_tokenizer
from lmlab.tokenizer.pretokenize import split_special
from lmlab.tokenizer.special import SpecialSplitter
from lmlab.tokenizer.train import train_bpe

WORDS = r"\w+|\s+|[^\w\s]+"  # a pattern that is not native


@pytest.fixture(scope="module", params=["gpt2", WORDS])
def tokenizer(request: pytest.FixtureRequest, corpus: str) -> Tokenizer:
    return trained(corpus, 500, ["<|a|>", "<|a|>x", "é"], request.param)


@given(data=st.data(), text=texts)
def test_as_text_equals_a_tokenizer_without_special_tokens(
    tokenizer: Tokenizer, data: st.DataObject, text: str
) -> None:
    plain = Tokenizer(tokenizer.vocab, tokenizer.merges, pattern=tokenizer.pattern)
    expected = plain.encode(text)
    assert tokenizer.encode(text, special="text") == expected
    assert tokenizer.encode_array(text.encode(), special="text").tolist() == expected
    assert [ids.tolist() for ids in tokenizer.encode_batch([text], special="text")] == [expected]
    pieces = data.draw(cuts(text))
    assert list(tokenizer.encode_iterable(pieces, special="text")) == expected
    lengths = tokenizer.byte_lengths()
    assert lengths[expected].sum() == len(text.encode())


@given(data=st.data(), text=texts)
def test_error_names_the_first_special_token(
    tokenizer: Tokenizer, data: st.DataObject, text: str
) -> None:
    parts = list(split_special(text, list(tokenizer.special_tokens)))
    first = next((i for i, (_, is_special) in enumerate(parts) if is_special), None)
    pieces = data.draw(cuts(text))
    if first is None:
        assert tokenizer.encode(text, special="error") == tokenizer.encode(text)
        assert list(tokenizer.encode_iterable(pieces, special="error")) == tokenizer.encode(text)
        return
    place = len("".join(part for part, _ in parts[:first]).encode())
    message = f"special token {parts[first][0]!r} at byte {place};"
    for encode in (
        lambda: tokenizer.encode(text, special="error"),
        lambda: list(tokenizer.encode_iterable(pieces, special="error")),
        lambda: tokenizer.encode_batch([text], special="error"),
    ):
        with pytest.raises(DataError) as error:
            encode()
        assert message in str(error.value)


def test_files(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path, out = tmp_path / "text", tmp_path / "ids.bin"
    path.write_text("some <|a|>x words")
    for special in ("text", "parse"):
        tokenizer.encode_file(path, out, special=special)  # type: ignore[arg-type]
        ids = np.fromfile(out, tokenizer.dtype).tolist()
        assert ids == tokenizer.encode("some <|a|>x words", special=special)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"text: special token '<\|a\|>x' at byte 5"):
        tokenizer.encode_file(path, out, special="error")
    with pytest.raises(UserError, match="give one of parse, text, error"):
        tokenizer.encode("a", special="whole")  # type: ignore[arg-type]


def test_as_text_equals_tokenizers(small: Tokenizer, tmp_path: Path) -> None:
    small.to_huggingface(tmp_path / "tokenizer.json")
    hf = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    hf.encode_special_tokens = True
    text = "the mark <|endoftext|> stands between texts<|endoftext|>"
    assert small.encode(text, special="text") == hf.encode(text).ids
    assert small.special_tokens["<|endoftext|>"] not in small.encode(text, special="text")


def test_special_token_with_the_smaller_id_of_an_ordinary_one() -> None:
    vocab = {0: b"a"} | {byte + 1: bytes([byte]) for byte in range(256)}
    tokenizer = Tokenizer(vocab, [], {"a": 0})
    assert tokenizer.encode("ab") == [0, 99]
    assert tokenizer.encode("ab", special="text") == [98, 99]
    assert tokenizer.byte_lengths()[[0, 98]].tolist() == [0, 1]


def test_special_token_that_text_becomes_too() -> None:
    tokenizer = Tokenizer(byte_tokenizer().vocab, [], ["a"])
    assert tokenizer.encode("ab", special="text") == [97, 98]
    assert tokenizer.byte_lengths()[97] == 1


@given(data=st.data(), text=texts, specials=special_tokens)
def test_splitter_equals_the_definition(
    data: st.DataObject, text: str, specials: list[str]
) -> None:
    def flat(parts: Iterator[tuple[str, str | None]]) -> Iterator[tuple[str, bool]]:
        for part, name in parts:
            if part:
                yield part, False
            if name is not None:
                yield name, True

    expected = list(split_special(text, specials))
    assert list(flat(SpecialSplitter(specials).split(data.draw(cuts(text))))) == expected


def test_very_many_special_tokens_equal_tokenizers(small: Tokenizer, tmp_path: Path) -> None:
    dice = random.Random(0)
    names = {"".join(dice.choices("<|ab é", k=dice.randint(2, 12))) for _ in range(20_000)}
    tokenizer = Tokenizer(small.vocab, small.merges, sorted(names))
    hf = tokenizers.Tokenizer.from_str(
        (small.to_huggingface(tmp_path / "a.json"), (tmp_path / "a.json").read_text())[1]
    )
    hf.add_special_tokens([tokenizers.AddedToken(name, normalized=False) for name in sorted(names)])
    text = "".join(dice.choices("<|ab é", k=3000))
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    found = [tokenizer.vocab[i].decode(errors="replace") for i in ids]
    theirs = hf.encode(text)
    assert [name for name in found if name in names] == [
        text[a:b] for a, b in theirs.offsets if text[a:b] in names
    ]


# Training


@given(documents=st.lists(texts, max_size=5), pattern=patterns)
def test_documents_are_counted_one_by_one(documents: list[str], pattern: str) -> None:
    """As with a separator between them that none of them mentions."""
    _, merges = train_bpe(iter(documents), 320, ["<|a|>"], pattern=pattern, documents=True)
    separated = "\0<|\0|>\0".join(documents)
    _, expected = train_bpe(iter([separated]), 320, ["\0<|\0|>\0"], pattern=pattern)
    assert merges == expected


@pytest.mark.parametrize("pattern", ["gpt2", WORDS])
def test_documents_that_mention_a_special_token_are_not_cut_there(pattern: str) -> None:
    documents = ["the mark<|end|>"] * 3
    _, merges = train_bpe(iter(documents), 300, ["<|end|>"], pattern=pattern, documents=True)
    made = {left + right for left, right in merges}
    assert {b"<|", b"|>", b"end"} <= made
    _, merges = train_bpe(iter(["".join(documents)]), 300, ["<|end|>"], pattern=pattern)
    assert b"end" not in {left + right for left, right in merges}
