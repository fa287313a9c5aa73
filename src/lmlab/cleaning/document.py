"""A document on its way through the cleaning steps, and what removes it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Removal:
    """Why a document was removed."""

    step: str
    """The name of the step."""
    reason: str
    """The criterion that the document failed first."""
    score: float
    """The document's value of that criterion's score."""
    spans: tuple[tuple[int, int], ...] = ()
    """The offending parts as (start, end) in characters of the text, where there are any."""


@dataclass(slots=True)
class Document:
    """One document; a step may change its text and metadata, and adds its scores."""

    id: str
    """`<input file>:<offset or row>`: unique, and the same for any number of workers."""
    text: str = ""
    raw: bytes | None = None
    """HTML before extraction; None once the text is extracted."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """What the input brought (url, ...) and what the steps found (language, ...)."""
    scores: dict[str, float] = field(default_factory=dict)
    """`<step>.<name>` -> value."""
    removal: Removal | None = None
    charset: str | None = None
    """The encoding of `raw` that the web server declared."""


@dataclass(frozen=True, slots=True)
class Criterion:
    """An inclusive range for one score; a document outside it is removed."""

    score: str
    """Key in `Document.scores`: `gopher.words`."""
    reason: str
    """Stands in `Removal.reason`."""
    low: float | None = None
    high: float | None = None
    low_key: str = ""
    """The key of the step's configuration that holds `low`; empty for a fixed bound."""
    high_key: str = ""
    """The key of the step's configuration that holds `high`; empty for a fixed bound."""

    def passes(self, value: float) -> bool:
        """Return whether low <= value <= high; NaN fails every bound."""
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


class Step(Protocol):
    """A cleaning step: its result depends on nothing but the documents and its configuration."""

    name: str

    def __call__(self, documents: Sequence[Document]) -> list[Document]:
        """Return the same documents in order, with scores added and `removal` set where one failed.

        Takes no removed documents. The result is the same for any batching.
        """


def first_failure(
    criteria: Sequence[Criterion], scores: dict[str, float]
) -> tuple[Criterion, float] | None:
    """Return the first criterion that the scores fail, with the value; None when all pass."""
    for criterion in criteria:
        value = scores.get(criterion.score)
        if value is not None and not criterion.passes(value):
            return criterion, value
    return None


def decide(step: str, criteria: Sequence[Criterion], document: Document) -> Criterion | None:
    """Set the document's removal by the first criterion it fails, and return that criterion."""
    failure = first_failure(criteria, document.scores)
    if failure is None:
        return None
    criterion, value = failure
    document.removal = Removal(step, criterion.reason, value)
    return criterion
