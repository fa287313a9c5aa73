"""Throw random texts and broken files at the native cores and compare with plain Python.

    python scripts/fuzz.py [SECONDS] [--seed N]

Best run on the sanitizer build (scripts/sanitize.sh). A failure prints the seed of its round;
`--seed N` repeats that round.
"""

import argparse
import contextlib
import itertools
import random
import sys
import tempfile
import time
from collections import Counter as Counting
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lmlab.cleaning.hashing import UNSPACED_RANGES
from lmlab.cleaning.html import decode_html, main_content_extractor
from lmlab.cleaning.native import html_depth, repetition, split_words
from lmlab.errors import UserError
from lmlab.tokenizer import reference
from lmlab.tokenizer.bpe import Tokenizer
from lmlab.tokenizer.native import Counter, Encoder, FileEncoder, PatternName, split_pretokens
from lmlab.tokenizer.pretokenize import PATTERNS, compile_pattern

Dice = random.Random
ALPHABETS = [
    "ab", "ab ", " \n\ta", "'s'll've", "aA1 .\n", "aA\u0301中ж'S /\r\n", "\0\x1c\u00a0\u3000a1½ⅷ",
    " the cat's mats\n", "!?//\n", "🙂👩\u200d a", "<|a|> b", "0123456789",
]  # fmt: skip
SPECIALS = ["<|a|>", "<|a|>b", "a b", " ", "a", "中", "ab"]


def some_text(dice: Dice, most: int = 400) -> str:
    """Mostly of few characters, now and then of any; sometimes one piece over and over."""
    if dice.random() < 0.2:
        codes = (dice.randrange(0x110000 - 0x800) for _ in range(dice.randrange(most)))
        return "".join(chr(code if code < 0xD800 else code + 0x800) for code in codes)
    text = "".join(dice.choices(dice.choice(ALPHABETS), k=dice.randrange(most)))
    return text * dice.choice([1, 1, 1, 20])


def some_pieces(dice: Dice, data: bytes) -> list[bytes]:
    """The bytes cut anywhere."""
    size = dice.choice([1, 2, 7, 100, 1 << 20])
    return [data[start : start + size] for start in range(0, len(data), size)]


def some_pattern(dice: Dice) -> PatternName:
    """One of the native patterns."""
    names: list[PatternName] = ["gpt2", "cl100k", "o200k"]
    return dice.choice(names)


def scanner(dice: Dice) -> None:
    """Native pretokens are those of the pattern."""
    text, pattern = some_text(dice), some_pattern(dice)
    found = compile_pattern(PATTERNS[pattern]).findall(text)
    assert split_pretokens(text, pattern) == [pretoken.encode() for pretoken in found]


def trainer(dice: Dice) -> None:
    """Native counts and merges are the reference's, for any pieces, chunks and threads."""
    text, pattern = some_text(dice), some_pattern(dice)
    specials = dice.sample(SPECIALS, dice.randrange(4))
    counts = reference.count_pretokens(text, specials, pattern)

    def counter() -> Counter:
        counter = Counter(
            pattern,
            [token.encode() for token in specials],
            num_threads=dice.randint(1, 3),
            chunk_bytes=dice.choice([1, 3, 50, 1 << 19]),
        )
        for piece in some_pieces(dice, text.encode()):
            counter.add(piece)
        return counter

    assert counter().counts() == counts
    num_merges = dice.choice([1, 20, 2000])
    assert counter().train(num_merges) == list(
        itertools.islice(reference.learn(counts), num_merges)
    )


def encoder(dice: Dice) -> None:
    """Every way of encoding gives the reference's ids."""
    text, pattern = some_text(dice), some_pattern(dice)
    specials = dice.sample(SPECIALS, dice.randrange(4))
    counts = reference.count_pretokens(text + some_text(dice), specials, pattern)
    merges = list(itertools.islice(reference.learn(counts), 40))
    vocab = reference.build_vocab(merges, specials)
    expected = reference.encode(text, vocab, merges, specials, pattern=pattern)
    ids = {token.encode(): 256 + len(merges) + i for i, token in enumerate(specials)}
    tokens = list(vocab.values()) + [b""] * dice.choice([0, 70_000])  # uint16, uint32
    native = Encoder(tokens, merges, ids, pattern)
    data = text.encode()
    assert native.encode(data).tolist() == expected
    assert native.encode(text, num_threads=2).tolist() == expected
    assert native.decode_bytes(expected) == data
    stream = native.stream()
    fed = [stream.feed(piece) for piece in some_pieces(dice, data)]
    assert np.concatenate([*fed, stream.finish()]).tolist() == expected
    with tempfile.TemporaryFile() as file:
        sink = FileEncoder(
            native,
            file.fileno(),
            num_threads=dice.randint(1, 3),
            chunk_bytes=dice.choice([1, 3, 50, 1 << 19]),
        )
        for piece in some_pieces(dice, data):
            sink.add(piece)
        assert sink.finish() == len(expected)
        file.seek(0)
        assert np.frombuffer(file.read(), native.dtype).tolist() == expected


def broken_text(dice: Dice) -> None:
    """Any bytes are either refused where Python refuses them or replaced as Python replaces."""
    data = bytearray(some_text(dice, 60).encode())
    for _ in range(dice.randrange(4)):
        data.insert(dice.randrange(len(data) + 1), dice.choice(b"\xff\xc3\xe2\x82\xed\xf0\x9f\x80"))
    chunk_bytes, pieces = dice.choice([1, 5, 1 << 19]), some_pieces(dice, bytes(data))
    replacing = Counter("gpt2", errors="replace", chunk_bytes=chunk_bytes)
    strict = Counter("gpt2", chunk_bytes=chunk_bytes)
    for piece in pieces:
        replacing.add(piece)
    replaced = bytes(data).decode(errors="replace")
    assert replacing.counts() == reference.count_pretokens(replaced, (), "gpt2")
    try:
        data.decode()
        expected = None
    except UnicodeDecodeError as error:
        expected = f"invalid UTF-8 at byte {error.start}"
    try:
        for piece in pieces:
            strict.add(piece)
        strict.counts()
        found = None
    except ValueError as error:
        found = str(error)
    assert found == expected


def file_reader(dice: Dice) -> None:
    """A damaged vocabulary file is refused in one line, or read; nothing else happens."""
    tokenizer = Tokenizer({i: bytes([i]) for i in range(256)} | {256: b"ab"}, [(b"a", b"b")], ["x"])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        readers: list[Callable[[Path], Tokenizer]] = [
            lambda path: Tokenizer.load(path.parent),
            Tokenizer.from_huggingface,
            lambda path: Tokenizer.from_tiktoken(path, pattern="gpt2"),
        ]
        choice = dice.randrange(3)
        if choice == 0:
            tokenizer.save(folder)
        elif choice == 1:
            tokenizer.to_huggingface(folder / "tokenizer.json")
        else:
            Tokenizer(tokenizer.vocab, tokenizer.merges).to_tiktoken(folder / "ranks.tiktoken")
        path = dice.choice(sorted(folder.iterdir()))
        data = bytearray(path.read_bytes())
        for _ in range(dice.randint(1, 3)):
            at = dice.randrange(len(data) + 1)
            damage = dice.randrange(3)
            if damage == 0:
                del data[at : at + dice.choice([1, 10, 1 << 20])]
            elif damage == 1:
                data[at:at] = bytes(dice.choices(b'"{}[],:0aA\xff\n \\', k=dice.randint(1, 5)))
            else:
                data[at : at + 1] = dice.randbytes(1)
        path.write_bytes(data)
        with contextlib.suppress(UserError):
            damaged = readers[choice](path)
            text = some_text(dice, 50)
            assert damaged.decode(damaged.encode(text)) == text


def repeated_ngrams(dice: Dice) -> None:
    """Shares of n-grams are those of a loop over strings."""
    text = some_text(dice)
    words, n = split_words(text), dice.randint(1, 6)
    assert "".join(words) == "".join(text.split())
    found = repetition(text, [n], [n])
    top, duplicate = found[f"top_ngram_{n}"], found[f"duplicate_ngram_{n}"]
    space = " "
    if 2 * sum(map(is_unspaced, words)) > len(words):  # twice as many letters without spaces
        n, space = 2 * n, ""
    counts = Counting(space.join(words[i : i + n]) for i in range(len(words) - n + 1))
    seen, repeated, i = set(), 0, 0
    while i + n <= len(words):
        gram = "".join(words[i : i + n])
        repeated += len(gram) if gram in seen else 0
        i += n if gram in seen else 1
        seen.add(gram)
    most = max(counts.values(), default=0)
    shares = {len(gram) * most / len(text) for gram, count in counts.items() if count == most}
    assert top in (shares or {0.0})
    assert duplicate == (repeated / len(text) if text else 0)


def is_unspaced(word: str) -> bool:
    """Return whether a word begins with a letter of a script that puts no space between words."""
    return word[0].isalpha() and any(low <= ord(word[0]) <= high for low, high in UNSPACED_RANGES)


MARKUP = [
    *("<p>", "</p>", "<div class='a-nav'", ">", "</", "<!--", "-->", '<a href="', "&am", "p;"),
    *("<script>", "</script", "&#x", "12;", "<br>", "text", "é", "<td>", "<li", "'", "="),
]


def markup(dice: Dice) -> None:
    """Broken pages are read within their bounds."""
    pieces = dice.choices(MARKUP, k=dice.randrange(200))
    page = decode_html("".join(pieces).encode() + dice.randbytes(dice.randrange(20))).encode()
    main_content_extractor().extract(page, dice.choice([1, 10, 1000]))
    main_content_extractor().blocks(page, context=True)
    assert html_depth(page, 5) <= 6


TARGETS = [scanner, trainer, encoder, broken_text, file_reader, repeated_ngrams, markup]


def one_round(seed: int) -> None:
    """Every target once."""
    for target in TARGETS:
        target(random.Random(f"{seed} {target.__name__}"))


def main() -> int:
    """Rounds until the time is up or one fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("seconds", type=float, nargs="?", default=60.0)
    parser.add_argument("--seed", type=int, help="repeat one round")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        one_round(arguments.seed)
        return 0
    first = seed = random.SystemRandom().randrange(10**9)
    end = time.monotonic() + arguments.seconds
    while time.monotonic() < end:
        try:
            one_round(seed)
        except BaseException:
            print(f"failed: repeat with --seed {seed}", file=sys.stderr)
            raise
        seed += 1
    print(f"{seed - first} rounds of {len(TARGETS)} targets without a failure")
    return 0


if __name__ == "__main__":
    sys.exit(main())
