"""Shards of documents that mention the separator, and of very many short ones."""

from pathlib import Path

import numpy as np
import pytest

from lmlab.data import shards
from lmlab.data.shards import Shard
from lmlab.errors import DataError
from lmlab.tokenizer import Tokenizer, byte_tokenizer

END = "<|endoftext|>"


@pytest.mark.parametrize("batch", [1, 1 << 16])
def test_only_separators_are_end_marks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(shards, "BATCH_DOCUMENTS", batch)
    tokenizer = byte_tokenizer([END])
    documents = [f"the mark {END} stands between texts", "ab", "", END]
    with Shard(tmp_path / "a.bin", tokenizer) as shard:
        for document in documents:
            shard.add(document)
    ids = np.fromfile(tmp_path / "a.bin", "<u2")
    assert len(ids) == shard.tokens
    assert (ids == 256).sum() == len(documents)
    assert tokenizer.byte_lengths()[ids].sum() == sum(len(text) for text in documents)
    assert tokenizer.decode(ids) == "".join(text + END for text in documents)


def test_separator_that_text_becomes_too(tmp_path: Path) -> None:
    token = END.encode()
    vocab = byte_tokenizer().vocab
    merges = []
    for i in range(1, len(token)):
        merges.append((token[:i], token[i : i + 1]))
        vocab[255 + i] = token[: i + 1]
    tokenizer = Tokenizer(vocab, merges, [END], pattern=r"(?s:.)+")
    with pytest.raises(DataError, match="is an ordinary token of this vocabulary too"):
        Shard(tmp_path / "a.bin", tokenizer)
