"""Every format out and in again, and what a damaged or foreign file answers."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import tokenizers
import transformers
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tiktoken.load import load_tiktoken_bpe
from tokenizer_strategies import PIECES, special_tokens, texts, trained

from lmlab.errors import DataError, UserError
from lmlab.tokenizer import native
from lmlab.tokenizer.bpe import Tokenizer, byte_tokenizer
from lmlab.tokenizer.formats import META, byte_alphabet, from_printable, to_printable
from lmlab.tokenizer.limits import MAX_IDS
from lmlab.tokenizer.pretokenize import PATTERNS
from lmlab.tokenizer.reference import encode_pretoken
from lmlab.tokenizer.train import train_bpe

TEXT = "".join(PIECES) + "some words, and more<|endoftext|>of them"
END = ["<|endoftext|>"]


def parts(tokenizer: Tokenizer) -> tuple[Any, ...]:
    return tokenizer.vocab, tokenizer.merges, tokenizer.special_tokens, tokenizer.pattern


def test_byte_alphabet_is_gpt2s() -> None:
    # what `transformers` ships as GPT-2's table
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    assert dict(enumerate(byte_alphabet())) == bytes_to_unicode()
    assert to_printable(b" \n\xff") == "ĠĊÿ"
    assert from_printable("ĠĊÿ") == b" \n\xff"


# Round trips


@pytest.fixture(params=["gpt2", "cl100k", "o200k", r"\w+|\W+"])
def of_pattern(request: pytest.FixtureRequest, corpus: str) -> Tokenizer:
    return trained(corpus, 500, [*END, "<|a|>", "a special one é"], request.param)


def test_folder(of_pattern: Tokenizer, tmp_path: Path) -> None:
    of_pattern.save(tmp_path / "new" / "folder")
    assert parts(Tokenizer.load(tmp_path / "new" / "folder")) == parts(of_pattern)


def test_folder_holds_gpt2s_files(of_pattern: Tokenizer, tmp_path: Path) -> None:
    of_pattern.save(tmp_path)
    again = Tokenizer.from_files(
        tmp_path / "vocab.json",
        tmp_path / "merges.txt",
        list(of_pattern.special_tokens),
        of_pattern.pattern,
    )
    assert parts(again) == parts(of_pattern)


def test_huggingface(of_pattern: Tokenizer, tmp_path: Path) -> None:
    of_pattern.to_huggingface(tmp_path / "tokenizer.json")
    assert parts(Tokenizer.from_huggingface(tmp_path / "tokenizer.json")) == parts(of_pattern)
    hf = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    assert hf.encode(TEXT, add_special_tokens=False) == of_pattern.encode(TEXT)


def test_tiktoken(of_pattern: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "ranks.tiktoken"
    of_pattern.to_tiktoken(path)
    again = Tokenizer.from_tiktoken(path, of_pattern.special_tokens, of_pattern.pattern)
    assert parts(again) == parts(of_pattern)
    encoding = tiktoken.Encoding(
        "ours",
        pat_str=PATTERNS.get(of_pattern.pattern, of_pattern.pattern),
        mergeable_ranks=load_tiktoken_bpe(str(path)),
        special_tokens=of_pattern.special_tokens,
    )
    assert encoding.encode(TEXT, allowed_special="all") == of_pattern.encode(TEXT)


@given(training=texts, specials=special_tokens)
@settings(max_examples=30)
def test_round_trips_with_awkward_special_tokens(
    tmp_path_factory: pytest.TempPathFactory, training: str, specials: list[str]
) -> None:
    tokenizer = trained(training, 290, specials)
    folder = tmp_path_factory.mktemp("formats")
    tokenizer.save(folder)
    assert parts(Tokenizer.load(folder)) == parts(tokenizer)
    tokenizer.to_tiktoken(folder / "ranks")
    again = Tokenizer.from_tiktoken(folder / "ranks", tokenizer.special_tokens, "gpt2")
    assert parts(again) == parts(tokenizer)
    if {"a", "é"} & set(specials):  # byte 0xe9 is written é
        with pytest.raises(UserError, match="cannot hold the special token"):
            tokenizer.to_huggingface(folder / "tokenizer.json")
    else:
        tokenizer.to_huggingface(folder / "tokenizer.json")
        assert parts(Tokenizer.from_huggingface(folder / "tokenizer.json")) == parts(tokenizer)


def test_from_tokenizers_own_trainer(corpus: str, tmp_path: Path) -> None:
    """A tokenizer.json that we did not write: ids in another order, GPT-2's ByteLevel alone."""
    hf = tokenizers.Tokenizer(tokenizers.models.BPE())
    hf.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    hf.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    hf.train_from_iterator(
        [corpus],
        tokenizers.trainers.BpeTrainer(
            vocab_size=600, special_tokens=END, initial_alphabet=alphabet, show_progress=False
        ),
    )
    hf.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.from_huggingface(tmp_path / "tokenizer.json")
    assert tokenizer.special_tokens == {"<|endoftext|>": 0}
    assert tokenizer.encode(TEXT) == hf.encode(TEXT).ids
    tokenizer.save(tmp_path / "ours")
    assert parts(Tokenizer.load(tmp_path / "ours")) == parts(tokenizer)


@pytest.fixture(params=["gpt2", r"\w+|\W+"])
def whole_words(request: pytest.FixtureRequest, small: Tokenizer, tmp_path: Path) -> Path:
    """A tokenizer.json with words that are tokens but that merges do not make, as in Llama 3."""
    path = tmp_path / "tokenizer.json"
    Tokenizer(small.vocab, small.merges, END, request.param).to_huggingface(path)
    content = json.loads(path.read_text())
    words = ["zq", "qz é", " words", " zzzzzz", "ing", ".:.:", "x" * 30, "y" * 60, "é" * 500]
    for i, word in enumerate(words, 600):
        content["model"]["vocab"][to_printable(word.encode())] = i
    content["model"]["ignore_merges"] = True
    path.write_text(json.dumps(content))
    return path


@given(text=st.lists(st.sampled_from([*"azq .:é", " words", "ing", " zzzzzz", *END])).map("".join))
@example("zq" + " words, wording and ing .:.: " + " ".join(["x" * 30, "y" * 60, "é" * 500] * 2))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_words_that_merges_do_not_make(whole_words: Path, text: str) -> None:
    tokenizer = Tokenizer.from_huggingface(whole_words)
    hf = tokenizers.Tokenizer.from_file(str(whole_words))
    assert tokenizer.encode(text) == hf.encode(text).ids
    assert list(tokenizer.encode_iterable(text)) == hf.encode(text).ids


def test_words_that_merges_do_not_make_are_saved(whole_words: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_huggingface(whole_words)
    assert len(tokenizer.encode("zq")) == 1
    tokenizer.save(tmp_path / "ours")
    tokenizer.to_huggingface(tmp_path / "again.json")
    again = [
        Tokenizer.load(tmp_path / "ours"),
        Tokenizer.from_huggingface(tmp_path / "again.json"),
        pickle.loads(pickle.dumps(tokenizer)),
    ]
    assert [parts(one) for one in again] == [parts(tokenizer)] * 3
    assert all(len(one.encode("zq")) == 1 for one in again)
    with pytest.raises(UserError, match="needs a merge for each token"):
        tokenizer.to_tiktoken(tmp_path / "ranks")
    content = json.loads(whole_words.read_text())
    content["model"]["vocab"]["日"] = 700
    whole_words.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"tokenizer.json: token '日' is not written in bytes"):
        Tokenizer.from_huggingface(whole_words)


def test_merges_of_huggingface_may_be_strings(small: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    small.to_huggingface(path)
    content = json.loads(path.read_text())
    content["model"]["merges"] = [" ".join(merge) for merge in content["model"]["merges"]]
    path.write_text(json.dumps(content))
    assert parts(Tokenizer.from_huggingface(path)) == parts(small)


def test_special_tokens_missing_from_the_files_are_appended(
    small: Tokenizer, tmp_path: Path
) -> None:
    small.save(tmp_path)
    files = tmp_path / "vocab.json", tmp_path / "merges.txt"
    assert Tokenizer.from_files(*files).special_tokens == {}
    more = Tokenizer.from_files(*files, special_tokens=["<|new|>", "<|endoftext|>"])
    assert more.special_tokens == {"<|new|>": 500, "<|endoftext|>": 499}
    small.to_tiktoken(tmp_path / "ranks")
    ranks = Tokenizer.from_tiktoken(tmp_path / "ranks", ["<|new|>"], "gpt2")
    assert ranks.special_tokens == {"<|new|>": 499}


# Damage


def write_all(tokenizer: Tokenizer, folder: Path) -> None:
    tokenizer.save(folder / "folder")
    tokenizer.to_huggingface(folder / "tokenizer.json")
    tokenizer.to_tiktoken(folder / "ranks.tiktoken")


READERS: dict[str, Callable[[Path], Tokenizer]] = {
    f"folder/{META}": lambda folder: Tokenizer.load(folder / "folder"),
    "folder/vocab.json": lambda folder: Tokenizer.load(folder / "folder"),
    "folder/merges.txt": lambda folder: Tokenizer.load(folder / "folder"),
    "tokenizer.json": lambda folder: Tokenizer.from_huggingface(folder / "tokenizer.json"),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_cut_file(small: Tokenizer, tmp_path: Path, name: str, keep: float) -> None:
    write_all(small, tmp_path)
    path = tmp_path / name
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(DataError, match=name.split("/")[-1]):
        READERS[name](tmp_path)


def test_tiktoken_tokens_longer_than_any_word(tmp_path: Path) -> None:
    """The merge behind each rank is found again, up to tokens of hundreds of bytes."""
    text = " ".join(["=" * 300, "-" * 90, "été" * 40, "low lower newest"] * 3)
    tokenizer = Tokenizer(*train_bpe(iter([text]), 340))
    assert max(map(len, tokenizer.vocab.values())) > 100
    tokenizer.to_tiktoken(tmp_path / "ranks")
    ranks = {token: i for i, token in tokenizer.vocab.items()}
    order: dict[tuple[bytes, bytes], int] = {}
    for token in sorted(ranks, key=ranks.__getitem__):
        if len(token) > 1:
            left, right = encode_pretoken(token, order)
            order[left, right] = len(order)
    again = Tokenizer.from_tiktoken(tmp_path / "ranks", pattern="gpt2")
    assert again.merges == list(order) == tokenizer.merges


@pytest.mark.parametrize("name", [*READERS, "ranks.tiktoken"])
@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00", b"GIF89a", b"[]", b"{}", b'{"model": []}', b'{"a": 1, "b": 1}']
)
def test_foreign_file(small: Tokenizer, tmp_path: Path, name: str, content: bytes) -> None:
    write_all(small, tmp_path)
    (tmp_path / name).write_bytes(content)
    read = READERS.get(name, lambda folder: Tokenizer.from_tiktoken(folder / "ranks.tiktoken"))
    with pytest.raises(DataError, match=name.split("/")[-1]):
        read(tmp_path)


@pytest.mark.parametrize("lines", [0, 1, 100, 242])
def test_gpt2_merges_cut_at_the_end_of_a_line(small: Tokenizer, tmp_path: Path, lines: int) -> None:
    small.save(tmp_path)
    merges = tmp_path / "merges.txt"
    merges.write_text("".join(merges.read_text().splitlines(keepends=True)[: 1 + lines]))
    with pytest.raises(DataError, match=r"merges.txt: no merge makes token .* cut short"):
        Tokenizer.from_files(tmp_path / "vocab.json", merges)


def test_gpt2_files_of_two_tokenizers(small: Tokenizer, corpus: str, tmp_path: Path) -> None:
    small.save(tmp_path / "a")
    trained(corpus[::-1], 500).save(tmp_path / "b")
    with pytest.raises(DataError, match="do the two belong together"):
        Tokenizer.from_files(tmp_path / "a" / "vocab.json", tmp_path / "b" / "merges.txt")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a b c", "line 2 is no merge"),
        ("ab", "line 2 is no merge"),
        ("日 本", "line 2 is no merge"),
    ],
)
def test_gpt2_merges_that_are_none(
    small: Tokenizer, tmp_path: Path, line: str, message: str
) -> None:
    small.save(tmp_path)
    (tmp_path / "merges.txt").write_text(f"#version: 0.2\n{line}\n")
    with pytest.raises(DataError, match=message):
        Tokenizer.from_files(tmp_path / "vocab.json", tmp_path / "merges.txt")


@pytest.mark.parametrize(
    ("vocab", "message"),
    [
        ({"a": 1.5}, "no usable id"),
        ({f"{i:x}": i for i in range(256)} | {"a": 2**21 - 1}, "token id 2097151 is outside"),
        ({"a": -1}, "no usable id"),
        ({"a": True}, "no usable id"),
        ({"a": None}, "no usable id"),
        ({"a": 0, "b": 0}, "no usable id"),
        ({"a": 0}, "no token for byte 0x00"),
        ({"\ud800": 0}, "no Unicode"),
    ],
)
def test_gpt2_vocabulary_that_is_none(
    tmp_path: Path, vocab: dict[str, object], message: str
) -> None:
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    (tmp_path / "merges.txt").write_text("")
    with pytest.raises(DataError, match=rf"vocab.json.*{message}"):
        Tokenizer.from_files(tmp_path / "vocab.json", tmp_path / "merges.txt")


def test_a_number_of_too_many_digits(small: Tokenizer, tmp_path: Path) -> None:
    small.save(tmp_path)
    (tmp_path / "vocab.json").write_text('{"a": ' + "1" * 5000 + "}")
    with pytest.raises(DataError, match=r"vocab.json: not JSON"):
        Tokenizer.from_files(tmp_path / "vocab.json", tmp_path / "merges.txt")
    (tmp_path / "ranks").write_text("YQ== " + "1" * 5000)
    with pytest.raises(DataError, match="line 1 is no token and rank"):
        Tokenizer.from_tiktoken(tmp_path / "ranks")


def test_the_largest_vocabulary_is_the_native_encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = byte_tokenizer().vocab | {MAX_IDS - 1: b"<|last|>"}
    assert Tokenizer(largest, [], ["<|last|>"]).encode("a<|last|>") == [97, MAX_IDS - 1]
    tokens = [largest.get(i, b"") for i in range(MAX_IDS)]
    with pytest.raises(ValueError, match="more than 2,097,151 ids"):
        native.Encoder([*tokens, b"more"], [], {}, None)
    monkeypatch.setattr("lmlab.tokenizer.vocabulary.MAX_MERGES", 1)
    with pytest.raises(DataError, match="2 merges are too many: at most 1"):
        Tokenizer(byte_tokenizer().vocab | {256: b"aa"}, [(b"a", b"a")] * 2)


@pytest.mark.slow
def test_more_merges_than_the_native_encoder_holds(tmp_path: Path) -> None:
    byte_tokenizer().save(tmp_path)
    vocab = json.loads((tmp_path / "vocab.json").read_text()) | {"aa": 256}
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    (tmp_path / "merges.txt").write_text("a a\n" * 2**22)
    with pytest.raises(DataError, match="4194304 merges are too many: at most 4194303"):
        Tokenizer.from_files(tmp_path / "vocab.json", tmp_path / "merges.txt")


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no tokenizer is saved here"):
        Tokenizer.load(tmp_path)
    with pytest.raises(DataError, match=r"vocab.json: cannot be read: No such file"):
        Tokenizer.from_files(tmp_path / "vocab.json", tmp_path / "merges.txt")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        Tokenizer.from_huggingface(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        Tokenizer.from_tiktoken(tmp_path / "ranks")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"normalizer": {"type": "NFKC"}}, "a normalizer other than NFC, 'NFKC'"),
        ({"pre_tokenizer": None}, "pre_tokenizer"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "pre_tokenizer"),
        ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}}, "pre_tokenizer"),
        ({"model": {"type": "Unigram", "vocab": []}}, "not a BPE"),
        ({"added_tokens": [{"content": "a"}]}, "not as expected"),
        ({"added_tokens": 3}, "not as expected"),
        ({"added_tokens": [{"content": "<|a|>", "id": 2**21}]}, "token id 2097152 is outside"),
        ({"added_tokens": [{"content": "<|a|>", "id": "x"}]}, "added_tokens is not as expected"),
        ({"added_tokens": [{"content": "<|a|>", "id": None}]}, "added_tokens is not as expected"),
        ({"added_tokens": [{"content": "<|a|>", "id": [1]}]}, "added_tokens is not as expected"),
        ({"added_tokens": [{"content": "<|a|>", "id": 300.5}]}, "added_tokens is not as expected"),
        ({"added_tokens": [{"content": 5, "id": 500}]}, "added_tokens is not as expected"),
        ({"added_tokens": [{"content": "<s>", "id": 500, "lstrip": True}]}, "'<s>' has lstrip"),
        ({"added_tokens": [{"content": "<s>", "id": 500, "rstrip": True}]}, "'<s>' has rstrip"),
        ({"added_tokens": [{"content": "a", "id": 500, "single_word": True}]}, "has single_word"),
        ({"added_tokens": [{"content": "<|a|>", "id": 97}]}, "cannot have id 97"),
    ],
)
def test_huggingface_of_another_kind(
    small: Tokenizer, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = tmp_path / "tokenizer.json"
    small.to_huggingface(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=f"tokenizer.json: .*{message}"):
        Tokenizer.from_huggingface(path)


@pytest.mark.parametrize("key", ["dropout", "unk_token", "byte_fallback", "end_of_word_suffix"])
def test_huggingface_model_of_another_kind(small: Tokenizer, tmp_path: Path, key: str) -> None:
    path = tmp_path / "tokenizer.json"
    small.to_huggingface(path)
    content = json.loads(path.read_text())
    content["model"][key] = 1
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"{key}.* is not byte-level BPE"):
        Tokenizer.from_huggingface(path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text + "Zm9v\n", "line 500 is no token and rank"),
        (lambda text: text + "Zm9v x\n", "line 500 is no token and rank"),
        (lambda text: text + "!!! 600\n", "line 500 is no token and rank"),
        (lambda text: text + "Zm9v 3\n", "line 500 is no token and rank"),
        (lambda text: text[: text.index("\n", len(text) // 2) - 1], "is no token and rank"),
        (lambda text: text.split("\n", 1)[1], "no token for byte 0x00"),
    ],
)
def test_damaged_ranks(
    small: Tokenizer, tmp_path: Path, damage: Callable[[str], str], message: str
) -> None:
    path = tmp_path / "ranks"
    small.to_tiktoken(path)
    path.write_text(damage(path.read_text()))
    with pytest.raises(DataError, match=message):
        Tokenizer.from_tiktoken(path, pattern="gpt2")


def test_tiktoken_cannot_hold_ids_in_another_order(small: Tokenizer, tmp_path: Path) -> None:
    swapped = {**small.vocab, 256: small.vocab[257], 257: small.vocab[256]}
    with pytest.raises(UserError, match="ids that grow with the merges"):
        Tokenizer(swapped, small.merges).to_tiktoken(tmp_path / "ranks")
    assert not (tmp_path / "ranks").exists()


def test_huggingface_cannot_hold_two_tokens_written_the_same(tmp_path: Path) -> None:
    tokenizer = Tokenizer(byte_tokenizer().vocab, [], {"Ġ": 256})  # an ordinary space is Ġ too
    with pytest.raises(UserError, match="cannot hold the special token 'Ġ'"):
        tokenizer.to_huggingface(tmp_path / "tokenizer.json")


# Parts that do not belong together


@pytest.mark.parametrize(
    ("vocab", "merges", "message"),
    [
        ({97: b"a"}, [], "no token for byte 0x00"),
        ({-1: b"x"}, [], "token id -1 is outside"),
        ({2**24: b"x"}, [], "token id 16777216 is outside"),
        ({256: b"ab"}, [(b"a", b"c")], r"merge 1, b'a' \+ b'c', needs the token b'ac'"),
        ({256: b"abc"}, [(b"ab", b"c")], r"merge 1, b'ab' \+ b'c', needs the token b'ab'"),
    ],
)
def test_bad_vocabulary(
    vocab: dict[int, bytes], merges: list[tuple[bytes, bytes]], message: str
) -> None:
    complete = byte_tokenizer().vocab if 97 not in vocab else {}
    with pytest.raises(DataError, match=message):
        Tokenizer(complete | vocab, merges)


@pytest.mark.parametrize(
    ("special", "message"),
    [
        (["a", "a"], "given twice"),
        ([""], "empty"),
        ({"<|a|>": 97}, "cannot have id 97: it is b'a'"),
    ],
)
def test_bad_special_tokens(special: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Tokenizer(byte_tokenizer().vocab, [], special)
