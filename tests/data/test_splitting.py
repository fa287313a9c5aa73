"""Dividing long documents: python -m pytest tests/data/test_splitting.py."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lmlab.data import prepare
from lmlab.data.config import TextConfig
from lmlab.data.corpus import Counts, open_corpus
from lmlab.data.splitting import cut, strip
from lmlab.tokenizer.config import ByteConfig

Text = Callable[..., TextConfig]
FRACTION = st.floats(0.01, 0.9)


@given(st.text(st.sampled_from(" \n\u2003\x85\xa0aé日😀"), max_size=30), st.integers(0, 9000))
@example("\u2003", 5000)
def test_stripping_equals_that_of_str(text: str, copies: int) -> None:
    text = "\u2003\n" * copies + text + "\xa0 " * copies
    document = text.encode()
    inner = strip(document)
    assert document[inner.start : inner.stop].decode() == text.strip()


@given(
    lines=st.lists(st.text(st.characters(codec="utf-8"), max_size=20), min_size=1, max_size=200),
    end=st.sampled_from(["\n", " ", "", "\r\n"]),
    fraction=FRACTION,
    before=st.sampled_from(["", "\n \n", "\u2003"]),
)
def test_both_parts_are_text_and_the_share_is_near(
    lines: list[str], end: str, fraction: float, before: str
) -> None:
    text = end.join(lines)
    document = (before + text).encode()
    place = cut(document, fraction)
    inner = strip(document)
    if place is None:
        assert len(inner) * fraction < 8 or len(inner) * (1 - fraction) < 8 or not text.strip()
        return
    head, tail = document[:place].decode(), document[place:].decode()
    assert head.strip()
    assert tail.strip()
    share = inner.stop - place
    assert 0.5 * fraction * len(inner) - 4 <= share <= 1.5 * fraction * len(inner) + 4
    # A copy with other white space around it is divided at the same place.
    other = cut(document[inner.start : inner.stop] + b"\n\n", fraction)
    assert other == place - inner.start


def test_the_nearest_line_end_wins() -> None:
    text = "".join(f"line {i:04}\n" for i in range(1000)).encode()
    assert cut(text, 0.1) == 9000
    assert cut(text, 0.1003) == 9000
    assert cut(text, 0.1006) == 8990
    assert cut(text.replace(b"\n", b" "), 0.1) == 9000  # no line end: between words
    assert cut(b"a" * 1000 + b"\n" + b"b" * 9000, 0.1) == 9001  # too far away: anywhere
    assert cut("é".encode() * 1001, 0.1) in (1802, 1804)  # not inside a character


BOOK = "".join(f"Line {i}: the cat found {i * i} bones.\n" for i in range(2000))


def test_the_end_of_one_file_is_held_out(
    text: Text, byte: ByteConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    config = text([BOOK], validation_fraction=0.05, separator=None)
    prepared = prepare(config, byte, progress=False)
    train = prepared.tokenizer.decode(prepared.train[:-1].tolist())
    val = prepared.tokenizer.decode(prepared.val[:-1].tolist())
    assert train + val == BOOK
    assert train.endswith("\n")
    assert len(val) / len(BOOK) == pytest.approx(0.05, rel=0.02)
    meta = prepared.meta
    assert (meta.train_documents, meta.val_documents, meta.divided_documents) == (1, 1, 1)
    [said] = capsys.readouterr().err.splitlines()
    assert said.startswith(f"held out for validation: {meta.val_bytes:,} bytes (5.0% of the text)")
    assert said.endswith("the end of 1 long document")
    windows = {train[i : i + 40] for i in range(len(train) - 39)}
    assert not windows & {val[i : i + 40] for i in range(len(val) - 39)}


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(1, 400), min_size=1, max_size=60), fraction=st.floats(0.02, 0.5))
def test_few_documents_give_the_share_and_nothing_is_lost(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], fraction: float
) -> None:
    documents = [
        "".join(f"{n} {i}\n" for i in range(size * 5)) for n, size in enumerate([*sizes, 900])
    ]
    path: Path = tmp_path_factory.mktemp("few") / "a.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in documents))
    config = TextConfig(
        kind="text",
        cache_dir=None,
        paths=[str(path)],
        validation_paths=None,
        validation_fraction=fraction,
        format=None,
        separator=None,
        jsonl_field="text",
    )
    corpus = open_corpus(config, progress=False)
    counts = Counts()
    found = [(held, bytes(text).decode()) for held, text in corpus.documents(counts)]
    assert "".join(text for _, text in found) == "".join(documents)
    longest = sorted(documents, key=len)[-1]
    assert longest not in [text for _, text in found]
    assert counts.divided_documents == len(found) - len(documents)
    assert found == [(held, bytes(text).decode()) for held, text in corpus.documents(Counts())]
    if counts.divided_documents == len(documents):
        share = sum(len(text) for held, text in found if held) / sum(map(len, documents))
        assert share == pytest.approx(fraction, rel=0.55)
