"""Text that is on every machine, as corpora: Python code, English prose, many languages.

A corpus is one file of documents, each followed by `<|endoftext|>`. The documents come in an order
that depends on their content alone, so that any beginning of a corpus is a fair sample of it.
"""

import gettext
import gzip
import hashlib
import itertools
import re
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from lmlab.files import atomic_write

END = "<|endoftext|>"
_NO_PROSE = re.compile(r"[^A-Za-z ,.;'\n()-]")


def code() -> Iterator[str]:
    """The Python files of the standard library and of the installed packages."""
    for path in _files({".py"}):
        yield _read(path)


def english() -> Iterator[str]:
    """The paragraphs of prose in docstrings, guides and manual pages, each of them once."""
    seen: set[int] = set()
    for text in itertools.chain(map(_read, _files({".py"})), guides(), manuals()):
        new = []
        for paragraph in re.split(r"\n\s*\n", text):
            paragraph = re.sub(r"\n[ \t]+", "\n", paragraph.strip())
            whole = len(paragraph) >= 80 and paragraph[0].isupper() and paragraph[-1] in ".:!?"
            if not whole or len(_NO_PROSE.sub("", paragraph)) < 0.93 * len(paragraph):
                continue
            if hash(paragraph) not in seen:
                seen.add(hash(paragraph))
                new.append(paragraph)
        if new:
            yield "\n\n".join(new) + "\n"


def guides() -> Iterator[str]:
    """Guides in .rst and .md, and what packages say about themselves."""
    for path in _files({".rst", ".md"}):
        yield _read(path)
    for path in _files({""}, name="METADATA"):
        yield _read(path)


def manuals() -> Iterator[str]:
    """Manual pages, without the commands that set them."""
    for path in sorted(Path("/usr/share/man").glob("man*/*.gz")):
        lines = []
        for line in re.sub(r"\\(f.|&|/)", "", _read(path)).split("\n"):
            kept = re.sub(r"^\.[BI]R? ", "", line)
            lines.append("" if kept.startswith((".", "'")) else kept)
        yield "\n".join(lines).replace("\\-", "-")


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
                room = size - file.tell()
                if len(document) > room:
                    file.write(document[:room].decode(errors="ignore").encode())
                    break
                file.write(document)
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
        data = path.read_bytes()
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    except (OSError, EOFError, UnicodeDecodeError):
        return ""
