"""The native encoder against the reference and tiktoken; interruption and full disks."""

import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st
from tokenizer_strategies import cuts, patterns, special_tokens, texts

from lmlab.tokenizer import reference
from lmlab.tokenizer.native import Encoder, FileEncoder, InvalidUtf8, PatternName
from lmlab.tokenizer.pretokenize import PATTERNS
from lmlab.tokenizer.vocabulary import Pair

CHUNKS = st.sampled_from([1, 2, 3, 7, 20, 100, 1 << 19])
BYTES = [bytes([byte]) for byte in range(256)]
TRAINING = "the cat's mat isn't the catalogue, they'll say: 1234 mats\n\n   日本語の日本 été aaaa"


def learned(text: str, pattern: str = "gpt2", most: int = 200) -> list[Pair]:
    counts = reference.count_pretokens(text, (), pattern)
    return list(itertools.islice(reference.learn(counts), most))


def encoder_of(
    merges: Sequence[Pair], pattern: PatternName | None = "gpt2", specials: Sequence[str] = ()
) -> Encoder:
    tokens = [*BYTES, *dict.fromkeys(a + b for a, b in merges)]
    ids = {token.encode(): len(tokens) + i for i, token in enumerate(specials)}
    return Encoder([*tokens, *ids], merges, ids, pattern)


def to_file(encoder: Encoder, pieces: Sequence[bytes], chunk_bytes: int, threads: int) -> list[int]:
    with tempfile.TemporaryFile() as file:
        sink = FileEncoder(encoder, file.fileno(), num_threads=threads, chunk_bytes=chunk_bytes)
        for piece in pieces:
            sink.add(piece)
        written = sink.finish()
        file.seek(0)
        ids: list[int] = np.frombuffer(file.read(), encoder.dtype).tolist()
    assert written == len(ids)
    return ids


@given(data=st.data(), text=texts, training=texts, specials=special_tokens, pattern=patterns)
def test_every_way_of_encoding_equals_the_reference(
    data: st.DataObject, text: str, training: str, specials: list[str], pattern: PatternName
) -> None:
    merges = learned(training + text, pattern, 30)
    encoder = encoder_of(merges, pattern, specials)
    vocab = reference.build_vocab(merges, specials)
    expected = reference.encode(text, vocab, merges, specials, pattern=pattern)
    assert encoder.encode(text).tolist() == expected
    assert encoder.encode(text.encode()).tolist() == expected
    pieces = [piece.encode() for piece in data.draw(cuts(text))]
    stream = encoder.stream()
    fed = [int(i) for piece in pieces for i in stream.feed(piece)]
    assert fed + stream.finish().tolist() == expected
    chunk_bytes, threads = data.draw(CHUNKS), data.draw(st.integers(1, 3))
    assert to_file(encoder, pieces, chunk_bytes, threads) == expected
    assert encoder.decode_bytes(expected) == text.encode()


def test_large_text_is_the_same_for_any_threads() -> None:
    encoder = encoder_of(learned(TRAINING), specials=["<|e|>"])
    dice = random.Random(0)
    words = [*TRAINING.split(" "), "<|e|>", "\n\n", "12345", "x" * 50]
    text = " ".join(dice.choices(words, k=400_000))  # several chunks
    alone = encoder.encode(text, num_threads=1)
    assert encoder.decode_bytes(alone) == text.encode()
    np.testing.assert_array_equal(encoder.encode(text, num_threads=3), alone)
    assert to_file(encoder, [text.encode()], 1 << 16, 3) == alone.tolist()
    assert to_file(encoder, [text.encode()], 1 << 19, 1) == alone.tolist()
    texts = text.split("\n")
    for one, ids in zip(texts, encoder.encode_batch(texts, num_threads=3), strict=True):
        assert ids.tolist() == encoder.encode(one).tolist()
    for texts in ([text], ["a", text, "b", text, text[:-9], "c"], [text, text.encode(), "", "d"]):
        expected = [encoder.encode(one, num_threads=1) for one in texts]
        for threads in (1, 2, 3):
            batch = encoder.encode_batch(texts, num_threads=threads)
            for ids, one in zip(batch, expected, strict=True):
                np.testing.assert_array_equal(ids, one)
    with pytest.raises(InvalidUtf8, match=f"at byte {len(text.encode())}$"):
        encoder.encode_batch(["a", text.encode() + b"\xff", "b"], num_threads=2)


@pytest.mark.parametrize("way", ["encode", "encode_batch"])
def test_one_large_text_is_encoded_by_several_threads(way: str) -> None:
    encoder = encoder_of(learned(TRAINING))
    text = TRAINING * (60_000_000 // len(TRAINING))
    mine, all_threads = time.thread_time(), time.process_time()
    if way == "encode":
        encoder.encode(text, num_threads=3)
    else:
        encoder.encode_batch([text], num_threads=3)
    share = (time.thread_time() - mine) / (time.process_time() - all_threads)
    assert 0.02 < share < 0.9


@given(text=texts, ranks=st.lists(st.text("ab日 ", min_size=2, max_size=5), unique=True))
def test_ids_as_ranks_equal_tiktoken(text: str, ranks: list[str]) -> None:
    """Any list of tokens, also such as no training makes."""
    tokens = [*BYTES, *(token.encode() for token in ranks)]
    theirs = tiktoken.Encoding(
        "ranks",
        pat_str=PATTERNS["gpt2"],
        mergeable_ranks={token: rank for rank, token in enumerate(tokens)},
        special_tokens={},
    )
    ours = Encoder(tokens, None, {}, "gpt2")
    for one in (text, text.replace("e", "a").replace("t", "b"), "ab ba日" * 30, "ab" * 300):
        assert ours.encode(one).tolist() == theirs.encode_ordinary(one)


@given(data=st.data())
def test_any_order_of_merges_equals_the_reference(data: st.DataObject) -> None:
    """Also such as no training makes: made in one order, applied in another."""
    tokens = [b"a", b"b", b"c"]
    merges: list[Pair] = []
    for _ in range(data.draw(st.integers(0, 8))):
        pair = (data.draw(st.sampled_from(tokens)), data.draw(st.sampled_from(tokens)))
        if pair not in merges:
            merges.append(pair)
            tokens.append(pair[0] + pair[1])
    merges = data.draw(st.permutations(merges))
    encoder = encoder_of(merges, None)
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    word = data.draw(st.text("abc", min_size=1, max_size=100)).encode()
    found = [encoder.decode_bytes([int(i)]) for i in encoder.encode_pretokens([word])]
    assert found == list(reference.encode_pretoken(word, ranks))


def test_pretokens_with_more_ids_than_a_cache_entry_holds() -> None:
    encoder = encoder_of(learned(TRAINING))
    vocab, merges = reference.build_vocab(learned(TRAINING)), learned(TRAINING)
    for length in range(1, 80):
        for word in ("z" * length, "the" * length, " " * length, "日" * length, "\0" * length):
            expected = reference.encode(word, vocab, merges, pattern="gpt2")
            for _ in range(3):  # not cached, cached, used
                assert encoder.encode(word).tolist() == expected


def random_merges(dice: random.Random, letters: bytes, count: int) -> list[Pair]:
    tokens = [bytes([letter]) for letter in letters]
    merges: list[Pair] = []
    while len(merges) < count:
        pair = (dice.choice(tokens), dice.choice(tokens))
        if pair not in merges:
            merges.append(pair)
            tokens.append(pair[0] + pair[1])
    return merges


@pytest.mark.parametrize("letters", [b"ab", b"abcdefgh"])
def test_words_merged_side_by_side_equal_the_reference(letters: bytes) -> None:
    """Unknown words of every length, some of them twice, next to each other and to known ones."""
    dice = random.Random(0)
    merges = random_merges(dice, letters, 60)
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    tokens = [*BYTES, *dict.fromkeys(a + b for a, b in merges)]
    filler = [b"" for _ in range(70_000 - len(tokens))]
    words = [bytes(dice.choices(letters, k=size)) for size in range(1, 71) for _ in range(12)]
    words = [b" " + word for word in dice.choices(words, k=2000)]
    expected = [reference.encode_pretoken(word, ranks) for word in words]
    for encoder in (encoder_of(merges), Encoder([*tokens, *filler], merges, {}, "gpt2")):
        ids = encoder.encode(b"".join(words).decode())
        assert [encoder.decode_bytes([int(i)]) for i in ids] == list(itertools.chain(*expected))


def test_many_merges() -> None:
    dice = random.Random(0)
    letters = bytes(range(97, 123))
    tokens = [bytes(dice.choices(letters, k=3)) for _ in range(40_000)]
    merges = [(token[:2], token[2:]) for token in dict.fromkeys(tokens)]
    merges = [(pair[:1], pair[1:]) for pair, _ in dict.fromkeys(merges)] + merges
    merges = list(dict.fromkeys(merges))
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    encoder = encoder_of(merges, None)
    for _ in range(500):
        word = bytes(dice.choices(letters, k=dice.randint(1, 30)))
        found = [encoder.decode_bytes([int(i)]) for i in encoder.encode_pretokens([word])]
        assert found == list(reference.encode_pretoken(word, ranks))


def test_more_than_65536_ids() -> None:
    merges = learned(TRAINING)
    tokens = [*BYTES, *(a + b for a, b in merges)]
    vocab = [*tokens, *(b"" for _ in range(70_000 - len(tokens) - 1)), b"<|e|>"]
    wide = Encoder(vocab, merges, {b"<|e|>": 69_999}, "gpt2")
    narrow = encoder_of(merges)
    assert wide.dtype == np.uint32
    assert narrow.dtype == np.uint16
    text = TRAINING * 3 + "x" * 100 + " " * 40
    assert wide.encode(text).tolist() == narrow.encode(text).tolist()
    assert wide.encode("a<|e|>").tolist() == [97, 69_999]
    assert wide.encode("a").dtype == np.uint32


@pytest.mark.parametrize("word", ["a" * 1_000_000, "ab" * 200_000, "日本" * 60_000])
def test_very_long_pretoken(word: str) -> None:
    encoder = encoder_of(learned("aaaaaaaa abababab 日本日本日本 " * 3))
    begun = time.monotonic()
    ids = encoder.encode(word)
    stream = encoder.stream()
    fed = [stream.feed(word.encode()[i : i + 1000]) for i in range(0, len(word.encode()), 1000)]
    assert time.monotonic() - begun < 60  # quadratic work would take hours
    assert encoder.decode_bytes(ids) == word.encode()
    np.testing.assert_array_equal(np.concatenate([*fed, stream.finish()]), ids)


def test_vocabulary_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="no token for byte 0x41"):
        Encoder([b"" if byte == b"A" else byte for byte in BYTES], [], {}, "gpt2")
    with pytest.raises(ValueError, match="merge 1 needs a token"):
        Encoder([*BYTES, b"ab"], [(b"a", b"b"), (b"ab", b"c")], {}, "gpt2")
    with pytest.raises(ValueError, match="special token is empty"):
        Encoder(BYTES, [], {b"": 5}, "gpt2")


def test_text_that_is_no_utf8() -> None:
    encoder = encoder_of([])
    with pytest.raises(InvalidUtf8, match="at byte 3"):
        encoder.encode(b"abc\xff")
    with pytest.raises(InvalidUtf8, match="at byte 1"):
        encoder.encode_batch([b"fine", b"x\xe2\x82"])
    with pytest.raises(UnicodeEncodeError):
        encoder.encode("a\ud800")
    stream = encoder.stream()
    stream.feed(b"ab\xe2\x82")
    with pytest.raises(InvalidUtf8, match="at byte 2"):
        stream.finish()
    stream = encoder.stream(errors="replace")
    ids = [*stream.feed(b"ab\xe2\x82"), *stream.feed(b"x\xff"), *stream.finish()]
    assert encoder.decode_bytes(ids) == "ab\ufffdx\ufffd".encode()


@pytest.mark.parametrize("bad", [-1, 256, 2**40])
def test_id_out_of_range(bad: int) -> None:
    with pytest.raises(IndexError, match=f"id {bad} at position 2"):
        encoder_of([]).decode_bytes([1, 2, bad])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_full_disk() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    try:
        sink = FileEncoder(encoder_of([]), descriptor)
        sink.add(b"text " * 100)
        with pytest.raises(OSError, match="No space left"):
            sink.finish()
    finally:
        os.close(descriptor)


def test_progress_may_stop_the_work(tmp_path: Path) -> None:
    file = tmp_path / "text"
    file.write_bytes(b"some words " * 10_000_000)

    def stop(done: int) -> None:
        raise ValueError(f"enough after {done}")

    descriptor = os.open(tmp_path / "ids", os.O_WRONLY | os.O_CREAT)
    try:
        sink = FileEncoder(encoder_of([]), descriptor, progress=stop)
        with pytest.raises(ValueError, match="enough after"):
            sink.add_file(file)
    finally:
        os.close(descriptor)


WORK = {
    "count": "c = native.Counter('gpt2')\nwhile True: c.add_file(path)",
    "encode": "e = native.Encoder(V, [], {}, 'gpt2')\nt = open(path, 'rb').read() * 40\n"
    "while True: e.encode(t, num_threads=2)",
    "one word": "e = native.Encoder([*V, b'xx'], [(b'x', b'x')], {}, 'gpt2')\n"
    "while True: e.encode('x' * 20_000_000)",
    "words in threads": "e = native.Encoder([*V, b'xx'], [(b'x', b'x')], {}, 'gpt2')\n"
    "while True: e.encode_batch(['x' * 20_000_000] * 3, num_threads=2)",
    "stream": "e = native.Encoder([*V, b'xx'], [(b'x', b'x')], {}, 'gpt2').stream()\n"
    "while True: e.feed(b'x' * 20_000_000), e.finish()",
    "pretokens": "e = native.Encoder([*V, b'xx'], [(b'x', b'x')], {}, None)\n"
    "while True: e.encode_pretokens([b'x' * 20_000_000])",
    "train": "c = native.Counter(None)\nimport random\nd = random.Random(0)\n"
    "c.add_pretokens([d.randbytes(40) for _ in range(400_000)])\nprint('training', flush=True)\n"
    "c.train(10**6)\nwhile True: pass",
}


@pytest.mark.parametrize("work", WORK)
def test_ctrl_c_stops_native_work_within_a_second(work: str, tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"the quick brown fox 12345 jumps\n" * 300_000)
    code = (
        "import sys\nfrom pathlib import Path\nfrom lmlab.tokenizer import native\n"
        f"path = Path({str(path)!r})\nV = [bytes([b]) for b in range(256)]\n"
        f"print('ready', flush=True)\n{WORK[work]}"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stderr is not None
    try:
        assert child.stdout.readline() == "ready\n"
        if work == "train":
            assert child.stdout.readline() == "training\n"
        time.sleep(1)
        child.send_signal(signal.SIGINT)
        # A second is the promise; the rest is for a machine that is busy with other things.
        child.wait(timeout=10)
        assert "KeyboardInterrupt" in child.stderr.read()
    finally:
        child.kill()
        child.wait()
