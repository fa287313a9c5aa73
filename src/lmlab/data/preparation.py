"""Text to token shards: train.bin and val.bin, plain little-endian ids that np.memmap opens."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmlab.data.cache import Entry, get_or_build
from lmlab.data.config import DataConfig
from lmlab.data.corpus import Corpus, Counts, cache_root, identify, open_corpus
from lmlab.data.shards import END_OF_DOCUMENT, Shard, Xz, id_type
from lmlab.errors import ConfigError, DataError
from lmlab.io.progress import bar, say

if TYPE_CHECKING:
    from lmlab.tokenizer import Tokenizer
    from lmlab.tokenizer.config import TokenizerConfig

FORMAT = 2
"""Part of every fingerprint; raise it when the same configuration prepares other data."""


@dataclass(frozen=True)
class Meta:
    """Description of prepared data; bytes count the UTF-8 text without separators."""

    fingerprint: str
    corpus: str
    dtype: str
    vocab_size: int
    train_tokens: int
    val_tokens: int
    train_bytes: int
    val_bytes: int
    train_documents: int
    val_documents: int
    duplicates: int
    """Training documents left out because they are also in the validation files."""
    divided_documents: int
    """Long documents whose last part is held out; both parts count as documents."""
    skipped_files: int
    """Files of folders left out because they are not UTF-8 text."""
    train_hash: str
    """Hash of the training documents; it does not depend on where the files are."""
    val_hash: str
    xz_bits_per_byte: float
    """Bits per byte of the validation text (its first 64 MiB) compressed by `xz -9e`."""


@dataclass(frozen=True)
class Prepared:
    """Token ids of a corpus, on the disk."""

    train: np.memmap[Any, Any]
    """1-D, uint16 or uint32: documents in order, each followed by the id of <|endoftext|>."""
    val: np.memmap[Any, Any]
    tokenizer: "Tokenizer"
    directory: Path
    meta: Meta
    reused: bool
    """An earlier start prepared them."""


def prepare(data: DataConfig, tokenizer: "TokenizerConfig", *, progress: bool = True) -> Prepared:
    """Return the token shards of a corpus, prepared now unless they are in the cache.

    Their directory is `<cache_dir>/<kind>-<fingerprint>/`; the fingerprint covers the corpus, the
    tokenizer's configuration and the content of its files. A damaged directory is built again.
    Raises DataError for files and disks, ConfigError for settings that cannot be used.
    """
    from lmlab.tokenizer import identify as identify_tokenizer

    if tokenizer.kind != "saved" and END_OF_DOCUMENT not in tokenizer.special_tokens:
        raise ConfigError(
            "tokenizer.special_tokens", f"lacks {END_OF_DOCUMENT!r}, which ends every document"
        )
    root = cache_root(data)
    source = {"format": FORMAT, "corpus": identify(data)}
    identity = identify_tokenizer(tokenizer, progress)
    fingerprint = _hash({**source, "tokenizer": identity})

    def build(directory: Path) -> dict[str, Any]:
        corpus = open_corpus(data, progress=progress)
        meta = _build(corpus, tokenizer, identity, root, directory, progress)
        if {"format": FORMAT, "corpus": identify(data)} != source:
            raise DataError(
                f"{data.kind}: the files of the corpus changed while they were read; start again"
            )
        return {"fingerprint": fingerprint, "corpus": data.kind, **meta}

    return _open(get_or_build(root, f"{data.kind}-{fingerprint}", build))


def require_context(prepared: Prepared, context_length: int) -> None:
    """Raise DataError unless both shards hold `context_length` tokens and the next one."""
    for split, tokens in (("training", prepared.train), ("validation", prepared.val)):
        if len(tokens) <= context_length:
            raise DataError(
                f"{prepared.directory}: its {split} text has {len(tokens):,} tokens, but one "
                f"context takes {context_length + 1:,}: add text, or lower the context length"
            )


def _open(entry: Entry) -> Prepared:
    from lmlab.tokenizer import Tokenizer

    meta = Meta(**{field.name: entry.meta[field.name] for field in fields(Meta)})
    dtype = np.dtype(meta.dtype)
    return Prepared(
        train=np.memmap(entry.directory / "train.bin", dtype, mode="r"),
        val=np.memmap(entry.directory / "val.bin", dtype, mode="r"),
        tokenizer=Tokenizer.load(entry.directory / "tokenizer"),
        directory=entry.directory,
        meta=meta,
        reused=entry.reused,
    )


def _build(
    corpus: Corpus,
    config: "TokenizerConfig",
    identity: dict[str, Any],
    root: Path,
    directory: Path,
    progress: bool,
) -> dict[str, Any]:
    """Fill `directory` in three passes over the text; memory holds one document at a time."""
    counts, hashes = _survey(corpus, progress)
    settings = {"format": FORMAT, "text": hashes["train_hash"], "tokenizer": identity}
    tokenizer = _tokenizer(corpus, config, settings, root, progress)
    tokenizer.save(directory / "tokenizer")
    measured = _encode(corpus, tokenizer, counts, directory, progress)
    return {
        **vars(counts),
        "skipped_files": corpus.skipped_files,
        **hashes,
        **measured,
        "dtype": id_type(tokenizer).str,
        "vocab_size": tokenizer.vocab_size,
    }


def _survey(corpus: Corpus, progress: bool) -> tuple[Counts, dict[str, str]]:
    """Read everything once, so that invalid text is found before the long work begins."""
    counts = Counts()
    digests = {True: blake2b(digest_size=16), False: blake2b(digest_size=16)}
    with bar("corpus", corpus.size, progress) as shown:
        for held_out, document in corpus.documents(counts, shown.update):
            digests[held_out].update(b"%d:" % len(document))
            digests[held_out].update(document)
            counts.add(held_out, len(document))
    advice = (
        "add text, change data.validation_fraction, name data.validation_paths, "
        "or set data.separator if a file holds several documents"
    )
    total = counts.train_documents + counts.val_documents
    for split, documents in (
        ("validation", counts.val_documents),
        ("training", counts.train_documents),
    ):
        if not documents:
            dropped = f" and {counts.duplicates:,} duplicates" if counts.duplicates else ""
            raise DataError(
                f"too small a corpus: none of its {total:,} documents{dropped} is left for "
                f"{split}; {advice}"
            )
    if counts.divided_documents:
        share = counts.val_bytes / (counts.val_bytes + counts.train_bytes)
        plural = "s" if counts.divided_documents > 1 else ""
        say(
            f"held out for validation: {counts.val_bytes:,} bytes ({share:.1%} of the text), with "
            f"the end{plural} of {counts.divided_documents:,} long document{plural}"
        )
    return counts, {"train_hash": digests[False].hexdigest(), "val_hash": digests[True].hexdigest()}


def _tokenizer(
    corpus: Corpus, config: "TokenizerConfig", settings: dict[str, Any], root: Path, progress: bool
) -> "Tokenizer":
    """Return the tokenizer, trained on the training documents unless the same was done before."""
    from lmlab.tokenizer import Tokenizer, build

    def train(directory: Path) -> dict[str, Any]:
        build(config, partial(_training, corpus), progress).save(directory / "tokenizer")
        return settings

    if config.kind == "saved":
        tokenizer = Tokenizer.load(config.path)
        if END_OF_DOCUMENT not in tokenizer.special_tokens:
            raise DataError(f"{config.path}: has no {END_OF_DOCUMENT!r}, which ends every document")
        return tokenizer
    entry = get_or_build(root / "tokenizers", f"{config.kind}-{_hash(settings)}", train)
    return Tokenizer.load(entry.directory / "tokenizer")


def _training(corpus: Corpus) -> Iterator[bytes]:
    for held_out, document in corpus.documents(Counts()):
        if not held_out:
            yield bytes(document)


def _encode(
    corpus: Corpus, tokenizer: "Tokenizer", expected: Counts, directory: Path, progress: bool
) -> dict[str, Any]:
    counts = Counts()
    with (
        Xz(expected.val_bytes) as xz,
        Shard(directory / "train.bin", tokenizer) as train,
        Shard(directory / "val.bin", tokenizer) as val,
        bar("encoding", corpus.size, progress) as shown,
    ):
        for held_out, document in corpus.documents(counts, shown.update):
            counts.add(held_out, len(document))
            (val if held_out else train).add(document)
            if held_out:
                xz.add(document)
        bits_per_byte = xz.bits_per_byte()
    if counts != expected:
        raise DataError("the files of the corpus changed while they were read; start again")
    return {
        "train_tokens": train.tokens,
        "val_tokens": val.tokens,
        "xz_bits_per_byte": bits_per_byte,
    }


def _hash(value: object) -> str:
    return blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=8).hexdigest()
