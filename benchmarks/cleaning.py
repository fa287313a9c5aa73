"""Cleaning beside other libraries: documents a second on one core, interleaved.

    python benchmarks/cleaning.py filters [--texts FILE.jsonl] [--documents 300] [--rounds 3]
    python benchmarks/cleaning.py extraction --pages DIR [--rounds 5]

`filters` compares with datatrove's, as it comes (words by spaCy): texts of 400 words, which are the
documentation of the standard library unless --texts names JSON lines. `extraction` compares with
resiliparse and trafilatura on pages as scripts/extraction_weights.py takes them; F1 is that of the
sites which the block classifier was not trained on.
"""

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import trafilatura
import yaml
from datatrove.data import Document as TheirDocument
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from pydantic import TypeAdapter
from resiliparse.extract.html2text import extract_plain_text

from lmlab.cleaning import Document, extract_main_content
from lmlab.cleaning.build import build
from lmlab.cleaning.config import StepBase, StepConfig
from lmlab.cleaning.html import decode_html

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.pages import f1, read_sites
from benchmarks.tables import machine, markdown

WORDS = 400
RECIPES = Path(__file__).parents[1] / "conf" / "cleaning"
FILTERS: list[tuple[str, str, str, type]] = [
    ("Gopher quality", "gopher", "gopher", GopherQualityFilter),
    ("Gopher repetition", "gopher", "repetition", GopherRepetitionFilter),
    ("FineWeb", "fineweb", "fineweb", FineWebQualityFilter),
    ("C4", "c4", "c4", C4QualityFilter),
]
EXTRACTORS: list[tuple[str, Callable[[bytes], str]]] = [
    ("lmlab, main content", extract_main_content),
    ("resiliparse, all text", lambda raw: str(extract_plain_text(decode_html(raw)))),
    (
        "resiliparse, main content",
        lambda raw: str(extract_plain_text(decode_html(raw), main_content=True)),
    ),
    ("trafilatura", lambda raw: str(trafilatura.extract(raw) or "")),
]


def documentation() -> list[str]:
    """Docstrings of the standard library, module by module."""
    files = sorted(Path(random.__file__).parent.rglob("*.py"))
    texts = []
    for path in files:
        if "site-packages" not in path.parts and "test" not in path.parts:
            parts = path.read_text(encoding="utf-8", errors="ignore").split('"""')
            texts.append("\n\n".join(part.strip() for part in parts[1::2]))
    return texts


def pieces(texts: Sequence[str], count: int) -> list[str]:
    """Different texts of about 400 words, with their line breaks."""
    found: list[str] = []
    for text in texts:
        lines: list[str] = []
        words = 0
        for line in text.splitlines():
            lines.append(line)
            words += len(line.split())
            if words >= WORDS:
                found.append("\n".join(lines))
                lines, words = [], 0
    random.Random(0).shuffle(found)
    if len(found) < count:
        raise SystemExit(f"only {len(found)} texts of {WORDS} words: give fewer --documents")
    return found[:count]


def seconds(work: Callable[[Any], object], items: Sequence[Any]) -> float:
    """CPU time of the work on all items."""
    start = time.process_time()
    for item in items:
        work(item)
    return time.process_time() - start


def filters(options: argparse.Namespace) -> None:
    """Print documents a second of each filter."""
    texts = documentation()
    if options.texts is not None:
        lines = options.texts.read_text(encoding="utf-8").splitlines()
        texts = [json.loads(line)["text"] for line in lines]
    some = pieces(texts, options.documents)
    adapter: TypeAdapter[StepBase] = TypeAdapter(StepConfig)
    rows = []
    for name, recipe, kind, make in FILTERS:
        values = yaml.safe_load((RECIPES / f"{recipe}.yaml").read_text())["steps"][kind]
        ours, theirs = build(adapter.validate_python(values)), make()
        times: tuple[list[float], list[float]] = ([], [])
        same = 0
        for number in range(options.rounds):
            mine = [[Document("0", text)] for text in some]
            others = [TheirDocument(text=text, id="0") for text in some]
            times[0].append(seconds(ours, mine))
            times[1].append(seconds(theirs.filter, others))
            if number == 0:
                same = sum(
                    (document.removal is None) == (theirs.filter(TheirDocument(text, "0")) is True)
                    for [document], text in zip(mine, some, strict=True)
                )
        a, b = (len(some) / statistics.median(part) for part in times)
        speed = [f"{a:,.0f}", f"{b:,.0f}", f"{a / b:.0f}x"]
        rows.append([name, *speed, f"{same / len(some):.1%}"])
    print(
        machine(["datatrove", "spacy"]), f"{len(some)} texts, {options.rounds} rounds\n", sep="\n"
    )
    header = ["filter", "lmlab, documents/s", "datatrove, documents/s", "ratio", "same decision"]
    print(markdown(header, rows))


def extraction(options: argparse.Namespace) -> None:
    """Print pages a second and the F1 of each extractor."""
    sites = read_sites(options.pages)
    pages = [raw for site in sites for raw, _ in site]
    held_out = [page for site in sites[1::2] for page in site]
    times: list[list[float]] = [[] for _ in EXTRACTORS]
    for _ in range(options.rounds):
        for mine, (_, extract) in zip(times, EXTRACTORS, strict=True):
            mine.append(seconds(extract, pages))
    rows = []
    for part, (name, extract) in zip(times, EXTRACTORS, strict=True):
        score = f1([extract(raw) for raw, _ in held_out], [truth for _, truth in held_out])
        rows.append([name, f"{len(pages) / statistics.median(part):,.0f}", f"{score:.3f}"])
    size = sum(map(len, pages)) / 1e6
    print(machine(["resiliparse", "trafilatura"]))
    print(f"{len(pages)} pages, {size:.1f} MB; F1 on {len(held_out)}; {options.rounds} rounds\n")
    print(markdown(["extractor", "pages/s", "F1"], rows))


def main() -> None:
    """Run one of the comparisons."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    tools = parser.add_subparsers(required=True)
    tool = tools.add_parser("filters")
    tool.add_argument("--texts", type=Path)
    tool.add_argument("--documents", type=int, default=300)
    tool.add_argument("--rounds", type=int, default=3)
    tool.set_defaults(run=filters)
    tool = tools.add_parser("extraction")
    tool.add_argument("--pages", type=Path, required=True)
    tool.add_argument("--rounds", type=int, default=5)
    tool.set_defaults(run=extraction)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
