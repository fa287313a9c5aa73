"""What text a corpus consists of, and which of its documents are held out for validation."""

import glob
import os
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from lmlab.data.config import DataConfig, StdlibConfig, TextConfig
from lmlab.data.download import download_all
from lmlab.data.reading import Advance, InvalidText, read_documents
from lmlab.errors import ConfigError, DataError


@dataclass
class Counts:
    """What one pass over a corpus met."""

    train_documents: int = 0
    train_bytes: int = 0
    val_documents: int = 0
    val_bytes: int = 0
    duplicates: int = 0
    """Training documents left out because they also stand in the validation files."""
    skipped_files: int = 0
    """Files left out because they are no UTF-8."""

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
    """Files, and how their documents divide into training and validation."""

    training: tuple[Path, ...]
    validation: tuple[Path, ...]
    """Files held out as a whole; without any, `validation_fraction` of the documents is."""
    validation_fraction: float
    separator: str | None
    jsonl_field: str
    lenient: bool = False
    """Pass over files without text, and files that are no UTF-8, instead of refusing them."""

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return sum(path.stat().st_size for path in (*self.validation, *self.training))

    def documents(
        self, counts: Counts, advance: Advance = lambda _: None
    ) -> Iterator[tuple[bool, str]]:
        """Yield (held out for validation?, document), the same in the same order on every pass.

        The side a document falls on is a hash of its text without surrounding white space, so
        identical documents fall on one side. With validation files of its own, a corpus gives
        those first, and then its training documents without those that the validation files have
        too.
        """
        held_out: set[bytes] = set()
        for path in self.validation:
            for text in self._file(path, counts, advance):
                held_out.add(_digest(text))
                yield True, text
        threshold = 0 if self.validation else int(self.validation_fraction * 2**64)
        for path in self.training:
            for text in self._file(path, counts, advance):
                digest = _digest(text)
                if digest in held_out:
                    counts.duplicates += 1
                else:
                    yield int.from_bytes(digest[:8], "big") < threshold, text

    def _file(self, path: Path, counts: Counts, advance: Advance) -> Iterator[str]:
        empty = True
        try:
            for text in read_documents(
                path, separator=self.separator, jsonl_field=self.jsonl_field, advance=advance
            ):
                empty = False
                yield text
        except InvalidText:
            if not self.lenient:
                raise
            counts.skipped_files += 1
        else:
            if empty and not self.lenient:
                raise DataError(f"{path}: holds no text; fill it, or leave it out of the corpus")


def cache_root(config: DataConfig) -> Path:
    """Return the directory under which downloads and prepared data of `config` lie."""
    return Path(config.cache_dir or os.environ.get("LMLAB_DATA") or "data").expanduser()


def identify(config: DataConfig) -> dict[str, Any]:
    """Return, as JSON, what the text depends on: settings; path, size and time of local files.

    Downloads count by address and hash, so that their prepared data outlive the files themselves.
    Local files are not read for this: a start on many gigabytes that are prepared already must
    stay quick.
    """
    beside = {"cache_dir", "license", "paths", "validation_paths"}
    settings = config.model_dump(mode="json", exclude=beside)
    if isinstance(config, StdlibConfig | TextConfig):
        corpus = _local(config)
        for name in ("training", "validation"):
            settings[f"{name}_files"] = [_stamp(path) for path in getattr(corpus, name)]
    return settings


def _stamp(path: Path) -> list[str | int]:
    try:
        stat = path.stat()
    except OSError as error:  # a link to nowhere, for one
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    return [str(path), stat.st_size, stat.st_mtime_ns]


def open_corpus(config: DataConfig, *, progress: bool) -> Corpus:
    """Return the corpus that `config` means, downloading what is missing."""
    if isinstance(config, StdlibConfig | TextConfig):
        return _local(config)
    train, validation = download_all(
        {"data.train": config.train, "data.validation": config.validation},
        cache_root(config) / "downloads" / config.kind,
        license=config.license,
        progress=progress,
    )
    return Corpus((train,), (validation,), 0.0, config.separator, jsonl_field="text")


def _local(config: StdlibConfig | TextConfig) -> Corpus:
    if isinstance(config, StdlibConfig):
        files = tuple(_standard_library())
        return Corpus(files, (), config.validation_fraction, None, jsonl_field="text", lenient=True)
    if not config.paths:
        raise ConfigError(
            "data.paths", "is empty; name your files, e.g. 'data.paths=[books/*.txt]'"
        )
    if config.validation_paths == []:
        raise ConfigError(
            "data.validation_paths", "is empty; name files, or null to hold documents out"
        )
    validation = _expand("data.validation_paths", config.validation_paths or [])
    training = _expand("data.paths", config.paths) - validation
    if not training:
        raise ConfigError(
            "data.paths", "names nothing that data.validation_paths does not name too"
        )
    return Corpus(
        tuple(sorted(training)),
        tuple(sorted(validation)),
        config.validation_fraction,
        config.separator,
        config.jsonl_field,
    )


def _standard_library() -> list[Path]:
    root = Path(sysconfig.get_path("stdlib"))
    files: list[Path] = []
    for folder, folders, names in os.walk(root):
        # Never entered: installed packages (in Debian's Python, dist-packages) can be very many.
        folders[:] = [name for name in folders if name not in ("site-packages", "dist-packages")]
        files += [Path(folder, name) for name in names if name.endswith(".py")]
    if not files:
        raise DataError(
            f"{root}: this Python has no standard library source; use data=text instead"
        )
    return sorted(files)


def _expand(key: str, patterns: list[str]) -> set[Path]:
    found: set[Path] = set()
    for pattern in patterns:
        # A name with brackets in it is a file first, a pattern second.
        path = Path(pattern).expanduser()
        try:
            names = [str(path)] if path.exists() else glob.glob(str(path), recursive=True)  # noqa: PTH207
        except OSError as error:  # a name that is too long
            raise DataError(f"{key}: {pattern!r} cannot be read: {error.strerror}") from None
        files = {Path(name).resolve() for name in names if not Path(name).is_dir()}
        if not files:
            problem = f"matches no file in {Path.cwd()}"
            if path.is_dir():
                problem = f"is a directory; name its files, e.g. {pattern}/**/*.txt"
            raise DataError(f"{key}: {pattern!r} {problem}")
        found |= files
    return found


def _digest(text: str) -> bytes:
    return blake2b(text.strip().encode(), digest_size=16).digest()
