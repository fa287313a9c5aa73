"""Texts for the tests of cleaning runs, made from a seed."""

import gzip
import json
import random
from collections.abc import Sequence
from pathlib import Path

import zstandard

from lmlab.clean_app import clean_config
from lmlab.cleaning.document import Document
from lmlab.cleaning.pipeline_config import CleanConfig
from lmlab.cleaning.written import read_written

VOCABULARY = [
    *("the", "be", "to", "of", "and", "that", "have", "with", "river", "stone", "window", "garden"),
    *("letter", "morning", "silver", "paper", "engine", "harbour", "winter", "market", "teacher"),
    *("bridge", "forest", "candle", "number", "music", "orange", "village", "thunder", "pocket"),
]


def sentence(generator: random.Random) -> str:
    """Return words that pass Gopher's rules."""
    words = generator.choices(VOCABULARY, k=generator.randint(6, 14))
    return " ".join(words).capitalize() + "."


def text(generator: random.Random, sentences: int = 12) -> str:
    """Return a document of lines."""
    return "\n".join(sentence(generator) for _ in range(sentences))


def near(original: str, generator: random.Random) -> str:
    """Return the text with one line replaced: most of its 5-grams stay."""
    lines = original.split("\n")
    lines[generator.randrange(len(lines))] = sentence(generator)
    return "\n".join(lines)


def long_lines(generator: random.Random) -> str:
    """Return a document of three lines of 120 words."""
    return "\n".join(" ".join(generator.choices(VOCABULARY, k=120)) + "." for _ in range(3))


def changed_lines(original: str, generator: random.Random) -> str:
    """Return the text with one word of each line replaced: no line stays, most 5-grams do."""
    lines = [line.split(" ") for line in original.split("\n")]
    for line in lines:
        line[generator.randrange(len(line))] = f"word{generator.randrange(10**6)}"
    return "\n".join(" ".join(line) for line in lines)


def write_corpus(directory: Path, files: int = 4, documents: int = 30, seed: int = 0) -> Path:
    """Write jsonl files, plain, .gz and .zst: good, short, exact and near duplicate documents."""
    generator = random.Random(seed)
    directory.mkdir(parents=True, exist_ok=True)
    originals = [text(generator) for _ in range(10)]
    long_ones = [long_lines(generator) for _ in range(4)]
    for number in range(files):
        rows = []
        for row in range(documents):
            kind = generator.random()
            if kind < 0.35:
                body = text(generator)
            elif kind < 0.5:
                body = changed_lines(generator.choice(long_ones), generator)
            elif kind < 0.65:
                body = sentence(generator)
            elif kind < 0.8:
                body = near(generator.choice(originals), generator)
            else:
                body = generator.choice(originals) + f"\nwritten to {row}@example.com by {number}"
            rows.append({"text": body, "url": f"https://example.com/{number}/{row}"})
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
        name = directory / f"part-{number}.jsonl"
        if number % 3 == 0:
            name.write_bytes(data)
        elif number % 3 == 1:
            name.with_suffix(".jsonl.gz").write_bytes(gzip.compress(data))
        else:
            name.with_suffix(".jsonl.zst").write_bytes(zstandard.compress(data))
    return directory


RECIPE = ("~cleaning.steps.extract", "~cleaning.steps.language")
"""The course's recipe without what needs packages and models."""


def config(inputs: Path | Sequence[Path], output: Path, *overrides: str) -> CleanConfig:
    """Return the configuration of a run of the course's recipe without extraction and language."""
    paths = [inputs] if isinstance(inputs, Path) else list(inputs)
    named = ",".join(f"'{path}'" for path in paths)
    return clean_config(f"input=[{named}]", f"output='{output}'", *RECIPE, *overrides)


def documents(directory: Path, folder: str = "shards") -> list[Document]:
    """Return all documents of a folder of a run's output, sorted by id."""
    found = [doc for path in sorted((directory / folder).iterdir()) for doc in read_written(path)]
    return sorted(found, key=lambda document: document.id)


def content(directory: Path) -> dict[str, bytes]:
    """Return the bytes of all that a run published, but for what names its directory."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name not in (".lock", "job.json") and "logs" not in path.parts
    }
