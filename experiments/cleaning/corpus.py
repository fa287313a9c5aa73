"""Make the corpus of this experiment from Debian's packages of documentation.

    python experiments/cleaning/corpus.py corpus    # needs apt-get and dpkg-deb, no root

corpus/crawl/*.warc.gz: the pages of a package, at most 3 MB, chosen by a hash of their names, so
that two versions of a manual give the same pages. corpus/held_out/*.jsonl: paragraphs of two books.
"""

import argparse
import gzip
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from resiliparse.parse.html import HTMLTree

CRAWL = (
    *("apache2-doc", "aptitude-doc-en", "clang-14-doc", "clang-15-doc", "debian-faq"),
    *("debian-policy", "debian-reference-en", "developers-reference", "exim4-doc-html"),
    *("gimp-help-en", "git-doc", "harden-doc", "installation-guide-amd64", "linux-doc-6.1"),
    *("llvm-14-doc", "llvm-15-doc", "llvm-16-doc", "octave-doc", "openjdk-17-doc"),
    *("postgresql-doc-15", "python-django-doc", "python3.11-doc", "sqlite3-doc"),
)
HELD_OUT = {  # package -> what is read of it, and its paragraphs
    "debian-handbook": ("html/en-US/*.html", "div.para"),
    "anarchism": ("html/sec*.html", "p"),
}
MOST_BYTES = 3_000_000
LARGEST_PAGE = MOST_BYTES // 4
SHORTEST_PARAGRAPH = 80


def unpack(package: str, folder: Path) -> Path:
    """Download a package, unpack it and return its folder of documentation."""
    subprocess.run(["apt-get", "download", "-qq", package], cwd=folder, check=True)
    [archive] = folder.glob(f"{package}_*.deb")
    print(archive.name.removesuffix(".deb"), flush=True)
    target = folder / package
    subprocess.run(["dpkg-deb", "-x", archive, target], check=True)
    return target / "usr/share"


def choose(root: Path) -> list[Path]:
    """The pages of a package in the order of the hashes of their last two names, up to 3 MB."""
    pages = [path for path in root.rglob("*.html*") if path.is_file() and not path.is_symlink()]
    pages.sort(key=lambda p: (hashlib.sha256("/".join(p.parts[-2:]).encode()).digest(), str(p)))
    chosen, total = [], 0
    for path in pages:
        size = path.stat().st_size
        if size <= LARGEST_PAGE and total + size <= MOST_BYTES:
            chosen.append(path)
            total += size
    return chosen


def record(path: Path, root: Path) -> bytes:
    """A WARC record of an HTTP response with the page, compressed by itself."""
    body = path.read_bytes()
    body = gzip.decompress(body) if path.suffix == ".gz" else body
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + body
    head = (
        "WARC/1.0\r\nWARC-Type: response\r\nContent-Type: application/http; msgtype=response\r\n"
        f"WARC-Target-URI: file:///usr/share/{path.relative_to(root).as_posix()}\r\n"
        f"WARC-Record-ID: <urn:sha256:{hashlib.sha256(http).hexdigest()}>\r\n"
        f"WARC-Date: 2026-01-01T00:00:00Z\r\nContent-Length: {len(http)}\r\n\r\n"
    )
    return gzip.compress(head.encode() + http + b"\r\n\r\n", mtime=0)


def paragraphs(page: str, selector: str) -> str:
    """The paragraphs of a page that hold no other one, with spaces between words, a line each."""
    found = []
    for element in HTMLTree.parse(page).body.query_selector_all(selector):
        text = " ".join(element.text.split())
        if len(text) >= SHORTEST_PARAGRAPH and element.query_selector(selector) is None:
            found.append(text)
    return "\n".join(found)


def main() -> None:
    """Write the crawl and the books."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path)
    target = parser.parse_args().directory
    for name in ("crawl", "held_out"):
        (target / name).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for package in CRAWL:
            root = unpack(package, Path(folder))
            pages = choose(root)
            if not pages:
                sys.exit(f"{package} has no pages")
            data = b"".join(record(path, root) for path in pages)
            (target / "crawl" / f"{package}.warc.gz").write_bytes(data)
        for package, (pattern, selector) in HELD_OUT.items():
            root = unpack(package, Path(folder)) / "doc" / package
            texts = [
                paragraphs(path.read_text(encoding="utf-8", errors="replace"), selector)
                for path in sorted(root.glob(pattern))
            ]
            lines = [
                json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts if text
            ]
            (target / "held_out" / f"{package}.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
