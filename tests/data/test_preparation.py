"""Text to token shards: python -m pytest tests/data/test_preparation.py."""

import functools
import hashlib
import json
import lzma
import os
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmlab import tokenizer as tokenizer_package
from lmlab.data import Prepared, preparation, prepare, require_context, shards
from lmlab.data.config import TextConfig
from lmlab.data.corpus import Counts, open_corpus
from lmlab.errors import ConfigError, DataError
from lmlab.tokenizer.config import BPEConfig, ByteConfig, GPT2Config

END = "<|endoftext|>"
STORIES = [f"Story {i}: the cat and the dog found {i * i} bones.\n" for i in range(200)]
Text = Callable[..., TextConfig]


def documents(prepared: Prepared, split: str) -> list[str]:
    """The documents of a shard, by decoding it from beginning to end."""
    ids = getattr(prepared, split)
    whole = prepared.tokenizer.decode(ids.tolist())
    assert whole.endswith(END)
    return whole.removesuffix(END).split(END)


def halves(config: TextConfig) -> dict[str, list[str]]:
    corpus = open_corpus(config, progress=False)
    pairs = [(held, bytes(document).decode()) for held, document in corpus.documents(Counts())]
    return {"train": [t for held, t in pairs if not held], "val": [t for held, t in pairs if held]}


@pytest.mark.parametrize("kind", ["byte", "bpe"])
def test_shards_hold_the_documents_and_meta_counts_them(
    text: Text, kind: str, request: pytest.FixtureRequest
) -> None:
    config = text(STORIES)
    prepared = prepare(config, request.getfixturevalue(kind), progress=False)
    expected = halves(config)
    assert documents(prepared, "train") == expected["train"]
    assert documents(prepared, "val") == expected["val"]
    meta = prepared.meta
    assert (meta.train_documents, meta.val_documents) == tuple(map(len, expected.values()))
    assert meta.train_bytes == len("".join(expected["train"]).encode())
    assert meta.val_bytes == len("".join(expected["val"]).encode())
    assert (meta.train_tokens, meta.val_tokens) == (len(prepared.train), len(prepared.val))
    assert prepared.train.dtype == prepared.val.dtype == np.dtype("<u2")
    assert meta.vocab_size == prepared.tokenizer.vocab_size
    # Bits per byte divide by the bytes the tokens stand for.
    assert prepared.tokenizer.byte_lengths()[prepared.val].sum() == meta.val_bytes
    assert prepared.directory.name == f"text-{meta.fingerprint}"
    assert not prepared.reused


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1),
    batch=st.integers(1, 50),
)
def test_any_documents_survive_the_way_through_the_shards(
    tmp_path_factory: pytest.TempPathFactory, byte: ByteConfig, texts: list[str], batch: int
) -> None:
    folder = tmp_path_factory.mktemp("any")
    for name, rows in {"train": ["other"], "valid": [*texts, "other text"]}.items():
        lines = "\n".join(json.dumps({"text": row}) for row in rows)
        (folder / f"{name}.jsonl").write_text(lines)
    config = TextConfig(
        kind="text",
        cache_dir=str(folder / "cache"),
        paths=[str(folder / "train.jsonl")],
        validation_paths=[str(folder / "valid.jsonl")],
        validation_fraction=0.5,
        format=None,
        separator=None,
        jsonl_field="text",
    )
    with mock.patch.object(shards, "BATCH", batch):
        prepared = prepare(config, byte, progress=False)
    assert documents(prepared, "val") == [t for t in [*texts, "other text"] if t.strip()]


def test_above_65536_ids_shards_are_32_bits_wide(text: Text, bpe: BPEConfig) -> None:
    vocab = {i: bytes([i]) for i in range(256)}
    # Ids of their own beyond 16 bits, as a downloaded vocabulary may have them.
    vocab |= {70_000 + i: bytes([97, 97 + i]) for i in range(26)}
    merges = [(b"a", bytes([97 + i])) for i in range(26)]
    large = tokenizer_package.Tokenizer(vocab, merges, {END: 100_000})
    with mock.patch.object(tokenizer_package, "build", return_value=large):
        prepared = prepare(text(STORIES), bpe, progress=False)
    assert prepared.train.dtype == np.dtype("<u4")
    assert prepared.train.max() == 100_000
    assert documents(prepared, "train") == halves(text(STORIES))["train"]


def test_the_second_start_reuses(
    text: Text, bpe: BPEConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    first = prepare(text(STORIES), bpe, progress=True)
    shown = capsys.readouterr().err
    assert "corpus: 100%" in shown
    assert "encoding: 100%" in shown
    with mock.patch.object(preparation, "open_corpus", side_effect=AssertionError):
        second = prepare(text(STORIES), bpe, progress=True)
    assert capsys.readouterr().err == ""
    assert (first.reused, second.reused) == (False, True)
    assert second.meta == first.meta
    assert np.array_equal(second.train, first.train)


def test_another_text_or_tokenizer_is_prepared_apart(
    text: Text, byte: ByteConfig, bpe: BPEConfig
) -> None:
    configs = [
        (text(STORIES), byte),
        (text(STORIES), bpe),
        (text(STORIES), bpe.model_copy(update={"vocab_size": 310})),
        (text(STORIES, validation_fraction=0.4), byte),
        (text(STORIES[1:], "other.txt"), byte),
    ]
    prepared = [prepare(data, tokenizer, progress=False) for data, tokenizer in configs]
    assert len({p.directory for p in prepared}) == len(configs)
    assert not any(p.reused for p in prepared)
    assert all(prepare(*config, progress=False).reused for config in configs)


def gpt2_config(folder: Path, **changes: object) -> GPT2Config:
    settings = {
        "kind": "gpt2",
        "vocab_file": folder / "vocab.json",
        "merges_file": folder / "merges.txt",
        "pattern": "gpt2",
        "special_tokens": [END],
    }
    origin = ("vocab_url", "merges_url", "vocab_sha256", "merges_sha256")
    return GPT2Config.model_validate({**dict.fromkeys(origin), **settings, **changes})


def test_another_vocabulary_under_the_same_name_is_another_tokenizer(
    text: Text, tmp_path: Path
) -> None:
    folder = tmp_path / "vocabulary"
    config = gpt2_config(folder)
    with pytest.raises(DataError, match=r"vocab\.json: no such file"):
        prepare(text(STORIES), config, progress=False)
    prepared = []
    for size in (300, 310):
        vocab, merges = tokenizer_package.train_bpe(iter(STORIES), size, [END])
        tokenizer_package.Tokenizer(vocab, merges, [END]).save(folder)
        prepared.append(prepare(text(STORIES), config, progress=False))
    assert [p.meta.vocab_size for p in prepared] == [300, 310]
    assert [p.tokenizer.vocab_size for p in prepared] == [300, 310]
    assert not any(p.reused for p in prepared)
    assert prepare(text(STORIES), config, progress=False).reused
    folder.rename(tmp_path / "moved")
    assert prepare(text(STORIES), gpt2_config(tmp_path / "moved"), progress=False).reused


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A server of the files in tmp_path/web."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "web"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_downloaded_vocabulary_is_prepared_once(text: Text, tmp_path: Path, web: str) -> None:
    vocab, merges = tokenizer_package.train_bpe(iter(STORIES), 300, [END])
    tokenizer_package.Tokenizer(vocab, merges, [END]).save(tmp_path / "web")
    names = {"vocab": "vocab.json", "merges": "merges.txt"}
    urls = {f"{key}_url": f"{web}/{name}" for key, name in names.items()}
    hashes = {
        f"{key}_sha256": hashlib.sha256((tmp_path / "web" / name).read_bytes()).hexdigest()
        for key, name in names.items()
    }
    unchecked = gpt2_config(tmp_path / "a", **urls)
    first = prepare(text(STORIES), unchecked, progress=False)
    assert not first.reused
    assert prepare(text(STORIES), unchecked, progress=False).reused
    checked = gpt2_config(tmp_path / "b", **urls, **hashes)
    assert prepare(text(STORIES), checked, progress=False).reused
    assert not (tmp_path / "b").exists()  # nothing is downloaded for data that are there
    prepare(text(STORIES, validation_fraction=0.3), checked, progress=False)
    assert (tmp_path / "b" / "vocab.json").exists()
    assert prepare(text(STORIES), checked, progress=False).reused


def test_the_tokenizer_sees_training_documents_only_and_is_trained_once(
    text: Text, bpe: BPEConfig, tmp_path: Path
) -> None:
    seen: list[list[str]] = []
    build = tokenizer_package.build

    def spy(config, texts, progress):  # type: ignore[no-untyped-def]
        seen.append(list(texts()))
        return build(config, texts, progress)

    with mock.patch.object(tokenizer_package, "build", spy):
        first = prepare(text(STORIES), bpe, progress=False)
        # The same text elsewhere; and the first data lost.
        second = prepare(text(STORIES, "copy.txt"), bpe, progress=False)
        (first.directory / "train.bin").unlink()
        prepare(text(STORIES), bpe, progress=False)
    assert seen == [halves(text(STORIES))["train"]]
    assert first.directory != second.directory
    assert len([p for p in (tmp_path / "cache" / "tokenizers").iterdir() if p.is_dir()]) == 2


def test_xz_measures_the_validation_text(text: Text, byte: ByteConfig) -> None:
    """Against lzma's own one-shot compression; the container's header and check weigh 60 bytes."""
    config = text([story * 20 for story in STORIES])
    validation = "".join(halves(config)["val"]).encode()
    packed = len(lzma.compress(validation, preset=9 | lzma.PRESET_EXTREME))
    measured = prepare(config, byte, progress=False).meta.xz_bits_per_byte
    assert measured * len(validation) / 8 == pytest.approx(packed, abs=8)
    limited = text([story * 20 for story in STORIES], "other.txt")
    with mock.patch.object(shards, "XZ_LIMIT", 1000):
        measured = prepare(limited, byte, progress=False).meta.xz_bits_per_byte
    packed = len(lzma.compress(validation[:1000], preset=9 | lzma.PRESET_EXTREME))
    assert measured * 1000 / 8 == pytest.approx(packed, abs=8)


def test_a_corpus_must_hold_one_context(text: Text, byte: ByteConfig) -> None:
    prepared = prepare(text(STORIES), byte, progress=False)
    require_context(prepared, prepared.meta.val_tokens - 1)
    with pytest.raises(DataError, match=r"its validation text has .* one context takes") as caught:
        require_context(prepared, prepared.meta.val_tokens)
    assert str(prepared.directory) in str(caught.value)
    with pytest.raises(DataError, match="its training text has"):
        require_context(prepared, prepared.meta.train_tokens)


def test_without_the_end_token_nothing_is_prepared(text: Text) -> None:
    bare = ByteConfig(kind="byte", special_tokens=())
    with pytest.raises(ConfigError, match=r"tokenizer\.special_tokens.*endoftext"):
        prepare(text(STORIES), bare, progress=False)


@pytest.mark.parametrize(
    ("texts", "fraction", "missing"),
    [(["x"], 0.01, "validation"), (["x"], 0.99, "training")],
)
def test_too_few_documents_are_one_line(
    text: Text, byte: ByteConfig, texts: list[str], fraction: float, missing: str
) -> None:
    config = text(texts, validation_fraction=fraction)
    with pytest.raises(DataError, match=f"none of its 1 documents is left for {missing}") as caught:
        prepare(config, byte, progress=False)
    assert "data.separator" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_training_that_is_all_validation_is_one_line(
    text: Text, byte: ByteConfig, tmp_path: Path
) -> None:
    (tmp_path / "valid.txt").write_text("|".join(STORIES))
    config = text(STORIES[:3], validation_paths=[str(tmp_path / "valid.txt")])
    with pytest.raises(DataError, match="and 3 duplicates is left for training"):
        prepare(config, byte, progress=False)


def test_bad_text_leaves_no_trace(text: Text, byte: ByteConfig, tmp_path: Path) -> None:
    config = text(STORIES)
    (tmp_path / "corpus.txt").write_bytes(b"|".join(s.encode() for s in STORIES) + b"|\xff")
    with pytest.raises(DataError, match=r"corpus\.txt: invalid UTF-8 at byte \d+"):
        prepare(config, byte, progress=False)
    assert {p.name for p in (tmp_path / "cache").iterdir()} == {".locks"}


@pytest.mark.parametrize("noticed_by", ["stamp", "counts"])
def test_files_that_change_while_they_are_read_are_noticed(
    text: Text, byte: ByteConfig, tmp_path: Path, noticed_by: str
) -> None:
    config = text(STORIES)
    stamp = preparation.identify(config)
    identify = preparation.identify if noticed_by == "stamp" else lambda _: stamp

    def change(*arguments: object) -> object:
        if noticed_by == "stamp":
            os.utime(tmp_path / "corpus.txt", ns=(0, 0))
        else:
            with (tmp_path / "corpus.txt").open("a") as file:
                file.write("|one more story")
        return build(*arguments)

    build = tokenizer_package.build
    with (
        mock.patch.object(tokenizer_package, "build", change),
        mock.patch.object(preparation, "identify", side_effect=identify),
        pytest.raises(DataError, match="changed while they were read"),
    ):
        prepare(config, byte, progress=False)
    prepared = prepare(config, byte, progress=False)
    total = prepared.meta.train_documents + prepared.meta.val_documents
    assert total == len(STORIES) + (noticed_by == "counts")
