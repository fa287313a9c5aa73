"""The documents that models are evaluated on: files, or the text that runs held out."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from lmlab.config import load_yaml
from lmlab.data.corpus import cache_root
from lmlab.data.paths import find_files
from lmlab.data.reading import Document, is_text, read_documents
from lmlab.data.separator import decode_separator
from lmlab.errors import DataError, UserError
from lmlab.io.compression import Advance
from lmlab.io.progress import bar, say
from lmlab.layout import CONFIG
from lmlab.loading import END_OF_DOCUMENT
from lmlab.runs.run import DATA, read_json
from lmlab.tokenizer import Tokenizer

VALIDATION = "val.bin"
_FLAGS = {
    "data.format=text": "--data-format text",
    "data.separator": "--separator",
    "data.jsonl_field": "--jsonl-field",
}
"""Keys in messages about files, and the flags that stand for them here."""


@dataclass(frozen=True)
class TextCorpus:
    """Named documents that can be read again and again."""

    name: str
    read: Callable[[Advance], Iterator[Document]]
    """Yields the documents; its argument is called with the bytes read from the disk."""
    disk_bytes: int
    limit: int | None = None
    """Documents to read at most."""

    def documents(self, advance: Advance = lambda _: None) -> Iterator[Document]:
        """Yield the documents, up to the limit."""
        return islice(self.read(advance), self.limit)

    def count_bytes(self, progress: bool) -> int:
        """Return the bytes of all documents, as UTF-8.

        Raises DataError for what cannot be read, and when there is no document.
        """
        with bar(f"reading {self.name}", self.disk_bytes, progress) as shown:
            total = sum(len(document) for document in self.documents(shown.update))
        if not total:
            raise DataError(f"{self.name}: holds no text; give other files with --data")
        return total


def from_paths(
    name: str,
    patterns: Sequence[str],
    *,
    separator: str | None = None,
    jsonl_field: str = "text",
    format: Literal["text", "jsonl"] | None = None,
    limit: int | None = None,
) -> TextCorpus:
    r"""Return the corpus in files, folders and patterns, read as `data=text` reads them.

    Without a separator (escapes as in `\n\n`) a plain text file is one document. Files of folders
    that are not UTF-8 text are left out. Raises DataError where nothing is found, UserError for a
    separator that cannot be read.
    """
    if not all(pattern.strip() for pattern in patterns):
        raise UserError("--data '' names nothing; give a file, folder or pattern")
    try:
        between = None if separator is None else decode_separator(separator)
    except ValueError as error:
        raise UserError(f"--separator: {error}") from None
    if between == "":
        raise UserError("--separator '' separates nothing; leave it out, or give a text like '\\n'")
    files = find_files("--data", patterns, Path(os.environ.get("LMLAB_DATA") or "data"))
    skipped = [path for path in files.paths if path in files.from_folders and not is_text(path)]
    paths = [path for path in files.paths if path not in skipped]
    if skipped:
        say(f"left out because not UTF-8 text: {skipped[0]} and {len(skipped) - 1:,} more files")
    read = partial(read_documents, separator=between, jsonl_field=jsonl_field, format=format)

    def documents(advance: Advance) -> Iterator[Document]:
        for path in paths:
            empty = True
            try:
                for document in read(path, advance=advance):
                    empty = False
                    yield document
            except DataError as error:
                raise type(error)(_with_flags(str(error))) from None
            if empty and path not in files.from_folders:
                raise DataError(f"{path}: holds no text; fill it, or leave it out of --data")

    size = sum(path.stat().st_size for path in paths)
    return TextCorpus(name, documents, size, limit)


def corpus_name(patterns: Sequence[str]) -> str:
    """Return a short name for what the patterns name."""
    first = Path(patterns[0]).expanduser()
    name = first.name or first.resolve().name or str(first)
    return name if len(patterns) == 1 else f"{name} and {len(patterns) - 1:,} more"


def held_out(directory: Path, *, limit: int | None = None) -> TextCorpus:
    """Return the text that a run held out, from the prepared data that it was trained on.

    Raises UserError when the run records none, or the prepared data is not at hand or has changed.
    """
    record = _data_record(directory)
    prepared = _prepared(directory)
    file = prepared / VALIDATION
    if not file.is_file():
        raise UserError(
            f"the held-out text of {directory} is not at hand: {prepared} does not exist; give "
            "--data, or set LMLAB_DATA to the folder of the prepared data"
        )

    def documents(advance: Advance) -> Iterator[Document]:
        tokenizer = Tokenizer.load(prepared / "tokenizer")
        ids = np.fromfile(file, np.dtype(record["dtype"]))
        ends = np.flatnonzero(ids == tokenizer.special_tokens[END_OF_DOCUMENT]).tolist()
        digest, begin = blake2b(digest_size=16), 0
        for end in ends:
            document = tokenizer.decode_bytes(ids[begin:end])
            digest.update(b"%d:" % len(document))
            digest.update(document)
            advance((end + 1 - begin) * ids.itemsize)
            begin = end + 1
            yield document
        # The hash is of the text as it was read; a tokenizer that normalizes gives other bytes.
        if digest.hexdigest() != record["val_hash"] and not tokenizer.cutting.nfc:
            raise DataError(f"{file}: is not the text that {directory} held out; give --data")

    return TextCorpus("held-out text", documents, file.stat().st_size, limit)


def common_held_out(directories: Sequence[Path], *, limit: int | None = None) -> TextCorpus:
    """Return the text that all of the runs held out.

    Raises UserError when it is not the same text: that of one may be training text of another.
    """
    hashes = {directory: _data_record(directory)["val_hash"] for directory in directories}
    for directory, text in hashes.items():
        if text != hashes[directories[0]]:
            raise UserError(
                f"{directories[0]} and {directory} held out different text; name a text that none "
                "of them was trained on: --data FILE"
            )
    at_hand = [
        directory for directory in directories if (_prepared(directory) / VALIDATION).is_file()
    ]
    return held_out((at_hand or directories)[0], limit=limit)


def _prepared(directory: Path) -> Path:
    """Return where the prepared data of a run was."""
    record = _data_record(directory)
    root = cache_root(load_yaml(directory / CONFIG).data)
    return root / f"{record['corpus']}-{record['fingerprint']}"


def _data_record(directory: Path) -> dict[str, str]:
    try:
        record = read_json(directory / DATA)  # a DataError names a damaged one
        return {key: record[key] for key in ("corpus", "fingerprint", "dtype", "val_hash")}
    except (OSError, KeyError):
        raise UserError(f"{directory} records no held-out text; give --data FILE") from None


def _with_flags(message: str) -> str:
    """Return a message that names flags of the command instead of keys of a configuration."""
    for key, flag in _FLAGS.items():
        message = message.replace(key, flag)
    return message
