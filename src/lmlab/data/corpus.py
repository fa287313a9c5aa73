"""The text of a corpus, and which part of it is held out for validation."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

from lmlab.data.config import CleanedConfig, DataConfig, StdlibConfig, TextConfig
from lmlab.data.download import download_all, quarantine
from lmlab.data.paths import Files, cleaned_files, find_files, standard_library
from lmlab.data.reading import Document, is_text, read_documents
from lmlab.data.separator import decode_separator
from lmlab.data.splitting import cut, long_length, strip
from lmlab.errors import ConfigError, DataError
from lmlab.io.compression import Advance, DamagedFile
from lmlab.io.progress import bar, say
from lmlab.io.rows import is_parquet


@dataclass
class Counts:
    """What one pass over a corpus found."""

    train_documents: int = 0
    train_bytes: int = 0
    val_documents: int = 0
    val_bytes: int = 0
    duplicates: int = 0
    """Training documents left out because they are also in the validation files."""
    divided_documents: int = 0
    """Long documents whose last part is held out; both parts count as documents."""

    def add(self, held_out: bool, size: int) -> None:
        """Count a document of `size` bytes."""
        if held_out:
            self.val_documents += 1
            self.val_bytes += size
        else:
            self.train_documents += 1
            self.train_bytes += size


@dataclass(frozen=True)
class Corpus:
    """Files, and how their text divides into training and validation."""

    training: tuple[Path, ...]
    validation: tuple[Path, ...]
    """Files held out as a whole; without any, `validation_fraction` of the text is."""
    validation_fraction: float
    separator: str | None
    jsonl_field: str
    format: Literal["text", "jsonl"] | None = None
    long: float = float("inf")
    """Bytes above which the last part of a document is held out."""
    blank_allowed: frozenset[Path] = frozenset()
    """Files that may hold no text."""
    skipped_files: int = 0
    """Files of a folder that were left out because they are not UTF-8 text."""
    downloaded: bool = False

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return sum(path.stat().st_size for path in (*self.validation, *self.training))

    def documents(
        self, counts: Counts, advance: Advance = lambda _: None
    ) -> Iterator[tuple[bool, Document]]:
        """Yield (held out for validation?, document as UTF-8), the same on every pass.

        A hash of a document's text without white space around it decides, so that identical
        documents are on one side. A document longer than `long` is divided: first its training
        part, then its last `validation_fraction`. With validation files, those come first, then
        the training documents without those that are also in the validation files.
        """
        held_out: set[bytes] = set()
        for path in self.validation:
            for document in self._file(path, advance):
                held_out.add(_digest(document))
                yield True, document
        threshold = 0 if self.validation else int(self.validation_fraction * 2**64)
        for path in self.training:
            for document in self._file(path, advance):
                if len(document) > self.long and len(strip(document)) > self.long:
                    place = cut(document, self.validation_fraction)
                    if place is not None:
                        counts.divided_documents += 1
                        tail = bytes(memoryview(document)[place:])
                        if isinstance(document, bytearray):
                            del document[place:]  # without a copy of a long text
                        else:
                            document = document[:place]
                        yield False, document
                        yield True, tail
                        continue
                digest = _digest(document)
                if digest in held_out:
                    counts.duplicates += 1
                else:
                    yield int.from_bytes(digest[:8], "big") < threshold, document

    def measured(self, progress: bool) -> "Corpus":
        """Return this corpus with `long` set from the length of all its documents."""
        total = 0
        with bar("measuring", self.size, progress) as shown:
            for path in self.training:
                for document in self._file(path, shown.update):
                    total += len(strip(document))
        return replace(self, long=long_length(total, self.validation_fraction))

    def _file(self, path: Path, advance: Advance) -> Iterator[Document]:
        blank = True
        try:
            for document in read_documents(
                path,
                separator=self.separator,
                jsonl_field=self.jsonl_field,
                format=self.format,
                advance=advance,
            ):
                blank = False
                yield document
        except DamagedFile as error:
            if not self.downloaded:
                raise
            raise DataError(
                f"{error}; it was moved to {quarantine(path)}: start again to download it again"
            ) from None
        if blank and path not in self.blank_allowed:
            raise DataError(f"{path}: holds no text; fill it, or leave it out of the corpus")


def cache_root(config: DataConfig) -> Path:
    """Return the directory of downloads and prepared data of `config`."""
    return Path(config.cache_dir or os.environ.get("LMLAB_DATA") or "data").expanduser()


def identify(config: DataConfig) -> dict[str, Any]:
    """Return, as JSON, what the text depends on: settings; path, size and time of local files.

    Downloads count by URL and hash, so that their prepared data can be used without the files.
    Local files are not read, so that a start on prepared data is quick.
    """
    location = {"cache_dir", "license", "path", "paths", "validation_paths"}
    settings = config.model_dump(mode="json", exclude=location)
    if settings.get("separator") is not None:
        settings["separator"] = decode_separator(settings["separator"])
    if isinstance(config, StdlibConfig | TextConfig | CleanedConfig):
        for name, files in zip(("training", "validation"), _local_files(config), strict=True):
            settings[f"{name}_files"] = [_stamp(path) for path in files.paths]
    return settings


def _stamp(path: Path) -> list[str | int]:
    try:
        stat = path.stat()
    except OSError as error:  # a broken link, for one
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    return [str(path), stat.st_size, stat.st_mtime_ns]


def open_corpus(config: DataConfig, *, progress: bool) -> Corpus:
    """Return the corpus that `config` describes, downloading what is missing."""
    if isinstance(config, CleanedConfig):
        return _open_cleaned(config)
    if isinstance(config, StdlibConfig | TextConfig):
        return _open_local(config, progress)
    train, validation = download_all(
        {"data.train": config.train, "data.validation": config.validation},
        cache_root(config) / "downloads" / config.kind,
        license=config.license,
        progress=progress,
    )
    separator = decode_separator(config.separator)
    return Corpus((train,), (validation,), 0.0, separator, jsonl_field="text", downloaded=True)


def _open_local(config: StdlibConfig | TextConfig, progress: bool) -> Corpus:
    training, validation = _local_files(config)
    from_folders = training.from_folders | validation.from_folders
    skipped = {path for path in sorted(from_folders) if not is_text(path) and not is_parquet(path)}
    corpus = Corpus(
        tuple(path for path in training.paths if path not in skipped),
        tuple(path for path in validation.paths if path not in skipped),
        config.validation_fraction,
        separator=None,
        jsonl_field="text",
        format="text",
        blank_allowed=from_folders,
        skipped_files=len(skipped),
    )
    if isinstance(config, StdlibConfig):
        return corpus
    if skipped:
        say(f"left out because not UTF-8 text: {min(skipped)} and {len(skipped) - 1:,} more files")
    if not corpus.training or bool(validation.paths) > bool(corpus.validation):
        raise DataError(
            f"data.paths: none of the {len(skipped):,} files found is UTF-8 text; convert them, or "
            "name other files"
        )
    separator = None if config.separator is None else decode_separator(config.separator)
    corpus = replace(
        corpus, separator=separator, jsonl_field=config.jsonl_field, format=config.format
    )
    return corpus if corpus.validation else corpus.measured(progress)


def _open_cleaned(config: CleanedConfig) -> Corpus:
    files, _ = _local_files(config)
    return Corpus(
        files.paths,
        (),
        config.validation_fraction,
        separator=None,
        jsonl_field="text",
        blank_allowed=frozenset(files.paths),  # all documents of an input may be removed
    )


def _local_files(config: StdlibConfig | TextConfig | CleanedConfig) -> tuple[Files, Files]:
    """Return the training and the validation files."""
    if isinstance(config, CleanedConfig):
        return cleaned_files(config.path), Files(())
    if isinstance(config, StdlibConfig):
        return standard_library(), Files(())
    if not config.paths:
        raise ConfigError(
            "data.paths", "is empty; name your files, e.g. 'data.paths=[books/*.txt]'"
        )
    if config.validation_paths == []:
        raise ConfigError(
            "data.validation_paths", "is empty; name files, or null to hold out a share"
        )
    cache = cache_root(config)
    validation = find_files("data.validation_paths", config.validation_paths or [], cache)
    training = find_files("data.paths", config.paths, cache).without(validation)
    if not training.paths:
        raise ConfigError("data.paths", "names only files that data.validation_paths names too")
    return training, validation


def _digest(document: Document) -> bytes:
    inner = strip(document)
    with memoryview(document) as view:
        return blake2b(view[inner.start : inner.stop], digest_size=16).digest()
