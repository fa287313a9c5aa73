"""Text that is on every machine, as corpora: Python code, English prose, many languages.

A corpus is one file of documents, each followed by `<|endoftext|>`. The documents come in an order
that depends on their content alone, so that any beginning of a corpus is a fair sample of it.
"""

import gettext
import gzip
import hashlib
import re
import sys
import sysconfig
import textwrap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from lmlab.files import atomic_write

END = "<|endoftext|>"
_DOCSTRING = re.compile(r'"""([^"\\]{200,}?)"""')


def code() -> Iterator[str]:
    """The Python files of the standard library and of the installed packages."""
    for path in _files({".py"}):
        yield _read(path)


def english() -> Iterator[str]:
    """Docstrings and guides."""
    for path in _files({".py"}):
        docstrings = [textwrap.dedent(text).strip() for text in _DOCSTRING.findall(_read(path))]
        if docstrings:
            yield "\n\n".join(docstrings)
    yield from guides()


def guides() -> Iterator[str]:
    """Guides in .rst and .md, and what packages say about themselves."""
    for path in _files({".rst", ".md"}):
        yield _read(path)
    for path in _files({""}, name="METADATA"):
        yield _read(path)


def languages() -> Iterator[str]:
    """The translations of installed programs."""
    roots = [Path("/usr/share/locale"), Path(sys.prefix) / "share" / "locale", *_roots()]
    for path in sorted(path for root in roots for path in root.rglob("*.mo")):
        try:
            with path.open("rb") as file:
                catalog = gettext.GNUTranslations(file)
        except (OSError, UnicodeDecodeError, ValueError, LookupError):
            continue
        yield "\n".join(text for text in catalog._catalog.values() if text)  # type: ignore[attr-defined]


def mixed() -> Iterator[str]:
    """Everything; the docstrings are in the code."""
    yield from code()
    yield from guides()
    yield from languages()


CORPORA: dict[str, Callable[[], Iterator[str]]] = {
    "english": english,
    "code": code,
    "languages": languages,
    "mixed": mixed,
}


def write(name: str, folder: Path, size: int) -> Path:
    """Write about `size` bytes of a corpus, or all there is; a file that is there is taken."""
    path = folder / f"{name}-{size}.txt"
    if not path.exists():
        with atomic_write(path, "wb") as file:
            for document in _shuffled(CORPORA[name]()):
                file.write(document[: size - file.tell()])
                if file.tell() >= size:
                    break
        _mend_the_end(path)
    return path


def documents(path: Path) -> Iterator[str]:
    """The documents of a corpus, one after the other, without the separator."""
    rest = ""
    with path.open(encoding="utf-8", newline="") as file:
        while piece := file.read(1 << 20):
            *whole, rest = (rest + piece).split(END)
            yield from whole
    if rest:
        yield rest


def _shuffled(texts: Iterable[str]) -> Iterator[bytes]:
    """Each text once, in the order of its hash; the temporary spill keeps memory small."""
    unique = {}
    for text in texts:
        document = text.replace(END, " ").encode(errors="ignore") + END.encode()
        unique[hashlib.sha256(document).digest()] = gzip.compress(document, 1)
    for digest in sorted(unique):
        yield gzip.decompress(unique.pop(digest))


def _mend_the_end(path: Path) -> None:
    """Cut what is left of a character at the end of a file."""
    with path.open("rb+") as file:
        file.seek(max(0, path.stat().st_size - 64))
        start, tail = file.tell(), file.read()
        file.truncate(start + len(tail.decode(errors="ignore").encode()))


def _roots() -> list[Path]:
    paths = sysconfig.get_paths()
    candidates = [Path(paths["stdlib"]), Path(paths["purelib"]), *map(Path, sys.path)]
    return [p for p in dict.fromkeys(candidates) if p.is_dir() and p != Path.cwd()]


def _files(suffixes: set[str], name: str = "") -> Iterator[Path]:
    seen: set[Path] = set()
    for root in _roots():
        for path in sorted(root.rglob(name or "*")):
            if path.suffix in suffixes and path not in seen and path.is_file():
                seen.add(path)
                yield path


def _read(path: Path) -> str:
    """The text of a file; nothing when it is not UTF-8."""
    try:
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError):
        return ""
