"""One pass over the documents of one input file: read, clean, write, count."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lmlab.cleaning.document import Document, Step
from lmlab.cleaning.pieces import Problem
from lmlab.cleaning.written import JsonLinesWriter
from lmlab.errors import UserError

Progress = Callable[[int, int], object]
"""Is called with numbers of further documents and bytes."""

BATCH, BATCH_CHARACTERS = 256, 4 << 20
"""Documents that steps get at a time, at most; fewer when they are long."""
PROBLEMS_KEPT = 1000
"""Of a file: of more, only the number is kept."""


class Sink(Protocol):
    """Takes the kept documents: a writer of shards, or what collects hashes."""

    def add(self, documents: Sequence[Document]) -> None:
        """Take documents, in order."""


@dataclass
class StepCount:
    """What one step did to the documents of one file."""

    documents_in: int = 0
    documents_out: int = 0
    characters_in: int = 0
    characters_out: int = 0
    removed: dict[str, int] = field(default_factory=dict)
    """Reason -> documents."""
    seconds: float = 0.0


@dataclass
class PassCount:
    """What one pass did to one file."""

    documents: int = 0
    """That were read."""
    kept: int = 0
    kept_characters: int = 0
    problems: int = 0
    """Parts of the input that were passed over."""
    first_problems: list[tuple[int, str]] = field(default_factory=list)
    """Offset and reason."""
    steps: dict[str, StepCount] = field(default_factory=dict)

    def report(self, problem: Problem) -> None:
        """Count a part of the input that was passed over."""
        self.problems += 1
        if len(self.first_problems) < PROBLEMS_KEPT:
            self.first_problems.append((problem.offset, problem.reason))


def run_pass(
    documents: Iterable[Document],
    steps: Sequence[Step],
    sinks: Sequence[AbstractContextManager[Sink]],
    removed: Path,
    counts: PassCount,
    progress: Progress,
) -> None:
    """Clean documents; the kept ones go to the sinks, the removed ones to the file `removed`.

    That file is written when there are any. `counts` is filled. Raises UserError when a document
    is HTML that no step extracts.
    """
    for step in steps:
        counts.steps.setdefault(step.name, StepCount())
    with ExitStack() as stack:
        kept_by = [stack.enter_context(sink) for sink in sinks]
        dropped_by: JsonLinesWriter | None = None
        for batch in batches(documents):
            kept, dropped = _clean(batch, steps, counts)
            for document in kept:
                if document.raw is not None:
                    raise UserError(
                        f"{document.id} is HTML, and the recipe has no extract step; add one under "
                        "cleaning.steps"
                    )
            if dropped and dropped_by is None:
                dropped_by = stack.enter_context(JsonLinesWriter(removed))
            if dropped_by is not None:
                dropped_by.add(dropped)
            for sink in kept_by:
                sink.add(kept)
            counts.documents += len(batch)
            counts.kept += len(kept)
            counts.kept_characters += sum(len(document.text) for document in kept)
            progress(len(batch), 0)


def _clean(
    batch: list[Document], steps: Sequence[Step], counts: PassCount
) -> tuple[list[Document], list[Document]]:
    dropped = []
    for step in steps:
        count = counts.steps[step.name]
        start = time.perf_counter()
        count.documents_in += len(batch)
        count.characters_in += sum(len(document.text) for document in batch)
        kept = []
        for document in step(batch):
            if document.removal is None:
                kept.append(document)
                continue
            dropped.append(document)
            reason = document.removal.reason
            count.removed[reason] = count.removed.get(reason, 0) + 1
        batch = kept
        count.documents_out += len(batch)
        count.characters_out += sum(len(document.text) for document in batch)
        count.seconds += time.perf_counter() - start
    return batch, dropped


def batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Yield documents in lists of bounded size."""
    held: list[Document] = []
    size = 0
    for document in documents:
        held.append(document)
        size += len(document.text) + len(document.raw or b"")
        if len(held) >= BATCH or size >= BATCH_CHARACTERS:
            yield held
            held, size = [], 0
    if held:
        yield held
