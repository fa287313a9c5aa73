"""Files of ranks that tiktoken publishes bring their pattern and special tokens."""

import hashlib
from pathlib import Path

import pytest
import tiktoken
from tiktoken.load import load_tiktoken_bpe
from tiktoken_ext import openai_public
from tokenizer_strategies import PIECES

from lmlab.errors import UserError
from lmlab.tokenizer import published
from lmlab.tokenizer.bpe import Tokenizer
from lmlab.tokenizer.published import Published
from lmlab.tokenizer.train import train_bpe

NAMES = ["r50k_base", "p50k_base", "cl100k_base", "o200k_base"]
TEXT = "It'S 12345 HTTPServer\n\n  it's\tdone!!\r\nDON'T été 猫"


def constructor(monkeypatch: pytest.MonkeyPatch, name: str) -> dict[str, object]:
    """What tiktoken says about an encoding; its checksum stands in the place of the ranks."""
    monkeypatch.setattr(
        openai_public, "load_tiktoken_bpe", lambda url, expected_hash: expected_hash
    )
    return openai_public.ENCODING_CONSTRUCTORS[name]()


def test_every_file_of_ranks_of_tiktoken_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = {
        constructor(monkeypatch, name)["mergeable_ranks"]
        for name in openai_public.ENCODING_CONSTRUCTORS
        if name != "gpt2"  # of vocab.bpe and encoder.json
    }
    assert theirs == set(published._BY_SHA256)


@pytest.mark.parametrize("name", NAMES)
def test_pattern_and_special_tokens_are_tiktokens(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    theirs = constructor(monkeypatch, name)
    ours = published._BY_SHA256[theirs["mergeable_ranks"]]
    assert (ours.name, ours.special_tokens) == (name, theirs["special_tokens"])

    path = tmp_path / "ranks"
    Tokenizer(*train_bpe(iter([TEXT * 3, "".join(PIECES)]), 400)).to_tiktoken(path)
    monkeypatch.setitem(published._BY_SHA256, hashlib.sha256(path.read_bytes()).hexdigest(), ours)
    encoding = tiktoken.Encoding(
        name,
        pat_str=str(theirs["pat_str"]),
        mergeable_ranks=load_tiktoken_bpe(str(path)),
        special_tokens=ours.special_tokens,
    )
    tokenizer = Tokenizer.from_tiktoken(path)
    text = TEXT + "<|endoftext|>" + TEXT
    assert tokenizer.encode(text) == encoding.encode(text, allowed_special="all")
    assert tokenizer.special_tokens == ours.special_tokens


@pytest.fixture
def ranks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file of 300 ranks that is recognised, with one special token at 305."""
    path = tmp_path / "ranks"
    Tokenizer(*train_bpe(iter([TEXT * 3, "".join(PIECES)]), 300)).to_tiktoken(path)
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(published._BY_SHA256, checksum, Published("a", "o200k", {"<|end|>": 305}))
    return path


def test_what_is_given_goes_before_what_is_published(ranks: Path) -> None:
    assert Tokenizer.from_tiktoken(ranks).pattern == "o200k"
    assert Tokenizer.from_tiktoken(ranks, pattern="gpt2").pattern == "gpt2"
    assert Tokenizer.from_tiktoken(ranks, []).special_tokens == {}
    some = Tokenizer.from_tiktoken(ranks, ["<|new|>", "<|end|>"])
    assert some.special_tokens == {"<|new|>": 306, "<|end|>": 305}
    assert Tokenizer.from_tiktoken(ranks, {"<|end|>": 400}).special_tokens == {"<|end|>": 400}
    with pytest.raises(UserError, match="given twice"):
        Tokenizer.from_tiktoken(ranks, ["<|end|>", "<|end|>"])


def test_an_unknown_file_needs_its_pattern(ranks: Path) -> None:
    other = ranks.with_name("other.tiktoken")
    other.write_text("".join(ranks.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match=r"other.tiktoken: .* give pattern='gpt2', 'cl100k'"):
        Tokenizer.from_tiktoken(other)
    assert Tokenizer.from_tiktoken(other, pattern="cl100k").pattern == "cl100k"
