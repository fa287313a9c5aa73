"""What a cleaning run's page shows: the funnel, a sample of scores, and documents to read."""

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from lmlab.cleaning.document import Document
from lmlab.cleaning.job import REMOVED, SHARDS, Job
from lmlab.cleaning.manifest import Manifest
from lmlab.cleaning.written import read_written
from lmlab.io.progress import bar

SAMPLE = 20_000
"""Documents whose scores the page holds."""
TEXTS = 60
"""Documents of each outcome whose text the page holds."""
_BEFORE, _SHOWN = 400, 4000  # characters of a text, before the first marked part and in all


@dataclass(order=True)
class _Ranked:
    """A document in a heap of those with the smallest hashes: a sample that any order gives."""

    rank: int
    value: Any = field(compare=False)


class _Sample:
    """The documents with the smallest hash of their id."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._heap: list[_Ranked] = []

    def wants(self, rank: int) -> bool:
        """Whether a document of this rank is in the sample so far."""
        return len(self._heap) < self._size or -rank > self._heap[0].rank

    def add(self, rank: int, value: Any) -> None:
        """Take a document that is wanted."""
        item = _Ranked(-rank, value)
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, item)
        else:
            heapq.heappushpop(self._heap, item)

    def values(self) -> list[Any]:
        """Return the sample, by rank."""
        return [item.value for item in sorted(self._heap, reverse=True)]


def page_data(job: Job, manifest: Manifest, *, progress: bool) -> dict[str, Any]:
    """Return what the page's script reads: criteria, sampled scores and texts."""
    criteria = _criteria(job, manifest)
    places = {(c["step"], c["reason"]): i for i, c in enumerate(criteria)}
    scores, texts = _Sample(SAMPLE), dict[str, _Sample]()
    for document in _documents(job, progress):
        rank = int.from_bytes(blake2b(document.id.encode(), digest_size=8).digest(), "big")
        removal = document.removal
        outcome = "kept" if removal is None else f"{removal.step}: {removal.reason}"
        if scores.wants(rank):
            values = [document.scores.get(criterion["score"]) for criterion in criteria]
            scores.add(rank, (values, _place(document, places)))
        chosen = texts.setdefault(outcome, _Sample(TEXTS))
        if chosen.wants(rank):
            chosen.add(rank, _shown(document, _place(document, places)))
    sampled = scores.values()
    return {
        "criteria": criteria,
        "scores": [[_number(v[i]) for v, _ in sampled] for i in range(len(criteria))],
        "removed": [place for _, place in sampled],
        "total": manifest["documents"],
        "outcomes": sorted(texts, key=lambda name: (name != "kept", name)),
        "texts": {name: found.values() for name, found in texts.items()},
    }


KEPT, OTHER = -1, -2
"""Places of documents that no criterion removed: kept, or removed as a duplicate."""


def _place(document: Document, places: dict[tuple[str, str], int]) -> int:
    """Return the number of the criterion that removed a document, KEPT or OTHER."""
    removal = document.removal
    return KEPT if removal is None else places.get((removal.step, removal.reason), OTHER)


def _criteria(job: Job, manifest: Manifest) -> list[dict[str, Any]]:
    """Return all criteria in order, with the command line's name of each bound."""
    found = []
    for key, step in job.config.cleaning.steps.items():
        for criterion in manifest["criteria"][step.step_name]:
            names = {
                f"{side}_key": f"cleaning.steps.{key}.{name}" if name else ""
                for side in ("low", "high")
                if (name := criterion[f"{side}_key"]) is not None
            }
            found.append({**criterion, **names, "step": step.step_name})
    return found


def _documents(job: Job, progress: bool) -> Iterator[Document]:
    paths = [
        path
        for folder in (SHARDS, REMOVED)
        for path in sorted((job.directory / folder).glob("*"))
        if not path.name.startswith(".")
    ]
    with bar("reading", sum(path.stat().st_size for path in paths), progress) as shown:
        for path in paths:
            yield from read_written(path, shown.update)


def _shown(document: Document, place: int) -> dict[str, Any]:
    """Return what the page shows of a document: its text around the marked parts."""
    removal = document.removal
    spans = () if removal is None else removal.spans
    start = max(0, spans[0][0] - _BEFORE) if spans else 0
    end = min(len(document.text), start + _SHOWN)
    return {
        "id": document.id,
        "text": document.text[start:end],
        "before": start,
        "after": len(document.text) - end,
        "spans": [(max(a, start) - start, min(b, end) - start) for a, b in spans if a < end],
        "scores": {name: _number(value) for name, value in document.scores.items()},
        "metadata": {name: str(value)[:300] for name, value in document.metadata.items()},
        "removed": place,
        "score": None if removal is None else _number(removal.score),
    }


def _number(value: float | None) -> float | None:
    """Return a score in six digits; None for what JSON does not have."""
    return float(f"{value:.6g}") if value is not None and math.isfinite(value) else None


def problem_rows(manifest: Manifest, most: int = 200) -> list[tuple[str, int, str]]:
    """Return file, offset and reason of the first parts of the input that were passed over."""
    rows = [
        (file["path"], offset, reason)
        for file in manifest["files"]
        for offset, reason in file["first_problems"]
    ]
    return rows[:most]
