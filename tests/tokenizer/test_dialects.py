"""Patterns and vocabularies of other libraries, read as their owners read them or refused."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import regex
import tiktoken
import tokenizers
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizer_strategies import PIECES

from lmlab.errors import DataError, UserError
from lmlab.tokenizer.bpe import Tokenizer, byte_tokenizer
from lmlab.tokenizer.dialects import from_oniguruma
from lmlab.tokenizer.formats import byte_alphabet

AWKWARD = [*PIECES, "aé\u200db", "a\u200cb", "²", "1²3", "ab\ncd", "l&l", "w]", "123456", "e\u0301"]
awkward = st.lists(st.sampled_from(AWKWARD), max_size=12).map("".join)

QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK = [
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
]


def write(path: Path, patterns: list[str], **changes: Any) -> Path:
    """A tokenizer.json of bytes and pairs of letters, cut by Splits one after the other."""
    splits = [
        {"type": "Split", "pattern": {"Regex": p}, "behavior": "Isolated", "invert": False}
        for p in patterns
    ]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    merges = [["a", "b"], ["l", "l"], ["1", "2"], ["Ċ", "c"], ["Ċ", "Ċ"], ["Ã", "©"], ["Â", "²"]]
    merges += [["a", "Ã©"], ["3", "4"], ["Ġ", "Ġ"], ["'", "s"]]
    tokens = [*byte_alphabet(), *(left + right for left, right in merges)]
    content: dict[str, Any] = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [*splits, level | {"use_regex": False}],
        },
        "decoder": level | {"use_regex": False},
        "model": {
            "type": "BPE",
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": merges,
        },
    }
    path.write_text(json.dumps(content | changes))
    return path


@pytest.mark.parametrize(
    ("patterns", "changes"),
    [
        ([r"\p{N}"], {}),  # leaves text out
        ([r"\w+|\s+"], {}),
        ([r"\W+|[\w\s]"], {}),
        ([r"[^\w\n]+$|[\s\S]"], {}),
        ([r"(?m:.)\z|(?i:'s|AB)|\n"], {}),
        ([r"(?>a|ab)c|b++|1{2,}"], {}),
        ([QWEN], {"normalizer": {"type": "NFC"}}),
        ([QWEN], {"normalizer": {"type": "Sequence", "normalizers": []}}),
        (DEEPSEEK, {"normalizer": {"type": "Sequence", "normalizers": []}}),
    ],
)
@given(text=awkward)
@example(text="  \u00b2\u00bd")  # in a set they are not in Oniguruma's \\w
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_equals_tokenizers(
    tmp_path: Path, patterns: list[str], changes: dict[str, Any], text: str
) -> None:
    path = write(tmp_path / "tokenizer.json", patterns, **changes)
    theirs = tokenizers.Tokenizer.from_file(str(path)).encode(text).ids
    ours = Tokenizer.from_huggingface(path)
    assert ours.encode(text) == theirs
    assert list(ours.encode_iterable(text)) == theirs
    ours.to_huggingface(tmp_path / "again.json")
    again = tokenizers.Tokenizer.from_file(str(tmp_path / "again.json"))
    assert again.encode(text).ids == theirs
    ours.save(tmp_path / "folder")
    assert Tokenizer.load(tmp_path / "folder").encode(text) == theirs


@pytest.mark.parametrize(
    ("pattern", "construct"),
    [
        (r"[a-z&&[^aeiou]]+|[\s\S]", "&&"),
        (r"[a[^b]]", r"\[ inside a set"),
        (r"\p{N}{1,3}+|\P{N}+", r"\{1,3\}\+"),
        (r"\p{N}{2}?", r"\{2\}\?"),
        (r"\h+", r"\\\\h"),
        (r"^a", r"\^"),
        (r"\ba", r"\\\\b"),
        (r"(?i:ss)", "ss in any case"),
        (r"(?<name>a)", r"\(\?<n"),
        (r"a|(b", r"is broken: missing \)"),
        (r"a*", "matches the empty string"),
    ],
)
def test_pattern_of_tokenizers_without_an_equal(
    tmp_path: Path, pattern: str, construct: str
) -> None:
    with pytest.raises(DataError, match=rf"tokenizer.json: pattern .*{construct}"):
        Tokenizer.from_huggingface(write(tmp_path / "tokenizer.json", [pattern]))


CONSTRUCTS = [*r"()[]{}|*+?^$.\-&,:<=!>1asdpLw'\n", "(?i:", "(?=", r"\p{L}", r"\w", "{1,3}"]


@given(pattern=st.lists(st.sampled_from(CONSTRUCTS), max_size=12).map("".join))
@example("(?i:'s)| ?(a")
@example("a{9999999999999}")
@settings(max_examples=300)
def test_any_pattern_of_tokenizers_is_read_or_refused(pattern: str) -> None:
    read = message = ""
    try:
        read = from_oniguruma(pattern)
    except UserError as error:
        message = str(error)
    assert repr(pattern) in message or not regex.fullmatch(read, "")


@pytest.mark.parametrize("pattern", [r"(?s:.){1,3}+", r"\bx|(?s:.)", r"(?P<a>.)|\n"])
def test_own_pattern_without_an_equal(tmp_path: Path, pattern: str) -> None:
    tokenizer = Tokenizer(byte_tokenizer().vocab, [], pattern=pattern)
    with pytest.raises(UserError, match=r"a\.json: pattern .* means different things"):
        tokenizer.to_huggingface(tmp_path / "a.json")


@given(text=awkward)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_own_pattern_equals_tokenizers(tmp_path: Path, text: str) -> None:
    vocab = byte_tokenizer().vocab | {256: b"a&", 257: b"\nc"}
    merges = [(b"a", b"&"), (b"\n", b"c")]
    tokenizer = Tokenizer(vocab, merges, pattern=r"\w+[[&]?|\W$|(?s:.)")
    tokenizer.to_huggingface(tmp_path / "a.json")
    hf = tokenizers.Tokenizer.from_file(str(tmp_path / "a.json"))
    assert hf.encode(text).ids == tokenizer.encode(text)


RANKS = [*(bytes([byte]) for byte in range(256)), b"ab", b"cd", b"abcde", b" ab"]


def ranks_file(path: Path, tokens: list[bytes]) -> Path:
    lines = (f"{base64.b64encode(token).decode()} {i}\n" for i, token in enumerate(tokens))
    path.write_text("".join(lines))
    return path


@given(text=st.text("abcde ", max_size=30))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rank_of_three_parts_equals_tiktoken(tmp_path: Path, text: str) -> None:
    ours = Tokenizer.from_tiktoken(ranks_file(tmp_path / "ranks", RANKS), pattern="gpt2")
    theirs = tiktoken.Encoding(
        "ours",
        pat_str=r" ?\p{L}+| ?\p{N}+|\s+(?!\S)|\s+",
        mergeable_ranks={token: i for i, token in enumerate(RANKS)},
        special_tokens={},
    )
    assert ours.encode(text) == theirs.encode_ordinary(text)
    ours.to_tiktoken(tmp_path / "again")
    assert (tmp_path / "again").read_text() == (tmp_path / "ranks").read_text()


def test_ranks_that_are_refused(tmp_path: Path) -> None:
    path = ranks_file(tmp_path / "ranks", [*RANKS, b"cde"])
    with pytest.raises(DataError, match="rank 258, b'abcde', is no merge of two earlier"):
        Tokenizer.from_tiktoken(path, pattern="gpt2")
    with pytest.raises(UserError, match="'&&' means different things to tiktoken"):
        Tokenizer.from_tiktoken(ranks_file(path, RANKS), pattern="[a-z&&[^a]]|(?s:.)")


def test_special_tokens_through_the_byte_alphabet(tmp_path: Path) -> None:
    """Their characters are in the alphabet too, but they stand there as they are."""
    vocab = {"<|año|>": 0} | {character: i for i, character in enumerate(byte_alphabet(), 1)}
    (tmp_path / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    files = tmp_path / "vocab.json", tmp_path / "merges.txt"
    tokenizer = Tokenizer.from_files(*files, ["<|año|>", "é"])
    assert tokenizer.special_tokens == {"<|año|>": 0, "é": 257}
    assert tokenizer.encode("<|año|>a") == [0, 98]
    tokenizer.save(tmp_path / "ours")
    assert json.loads((tmp_path / "ours" / "vocab.json").read_text()) == vocab
    assert Tokenizer.load(tmp_path / "ours").special_tokens == tokenizer.special_tokens
    assert Tokenizer.load(tmp_path / "ours").vocab == tokenizer.vocab
