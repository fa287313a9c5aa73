"""Loss, perplexity and bits per byte of a model on documents."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from lmlab.errors import DataError
from lmlab.evaluation.estimate import Estimate, ratio
from lmlab.evaluation.scorer import Request, Scorer
from lmlab.evaluation.windows import check_stride, sliding_windows


@dataclass(frozen=True, eq=False)
class TextResult:
    """The loss of a model on each document of a corpus."""

    nats: Float[np.ndarray, "documents"]
    """Cross-entropy, summed over the tokens."""
    tokens: Int[np.ndarray, "documents"]
    bytes: Int[np.ndarray, "documents"]
    """Bytes of UTF-8."""

    @property
    def loss(self) -> Estimate:
        """Mean cross-entropy in nats per token; it depends on the tokenizer."""
        return ratio(self.nats, self.tokens)

    @property
    def bits_per_byte(self) -> Estimate:
        """Cross-entropy in bits per byte, which compares models with different tokenizers."""
        return ratio(self.nats / math.log(2), self.bytes)

    @property
    def perplexity(self) -> float:
        """Perplexity per token; it depends on the tokenizer."""
        return _exp(self.loss.value)

    @property
    def byte_perplexity(self) -> float:
        """Perplexity per byte, 2 to the power of the bits per byte."""
        return _exp(self.bits_per_byte.value * math.log(2))

    def minus(self, other: "TextResult") -> Estimate:
        """Return how many more bits per byte this model needs than another on the same documents.

        The error is that of paired differences. Raises DataError for other documents.
        """
        if not np.array_equal(self.bytes, other.bytes):
            raise DataError("the documents of the corpus changed while they were read; start again")
        return ratio((self.nats - other.nats) / math.log(2), self.bytes)


def evaluate_text(
    scorer: Scorer,
    documents: Iterable[str | bytes | bytearray],
    *,
    stride: int | None = None,
    context_length: int | None = None,
    advance: Callable[[int], object] = lambda _: None,
) -> TextResult:
    """Return the loss on each document, every token of it counted once.

    The first token of a document is predicted from <|endoftext|>; the one after the document is
    not counted, and empty documents are left out. A document longer than the context is read in
    windows, see `sliding_windows`; None for `stride` is half of `context_length`, whose None is the
    model's. Special tokens in the text are read as ordinary text. Bytes are those of the document
    as it was given, also where the tokenizer normalizes it. `advance` is called with the bytes of
    the scored tokens. Raises UserError for a stride or a context length out of range, DataError
    without any document.
    """
    name = str(scorer.run.directory)
    step, context = check_stride(stride, context_length, scorer.context_length, name)
    byte_lengths = scorer.tokenizer.byte_lengths()
    tokens: list[int] = []
    sizes: list[int] = []

    def requests() -> Iterator[Request]:
        end = np.array([scorer.end])
        for document in filter(len, documents):
            text = document.encode() if isinstance(document, str) else bytes(document)
            ids = np.concatenate([end, scorer.tokenizer.encode_array(text, special="text")])
            tokens.append(len(ids) - 1)
            sizes.append(len(text))
            for window in sliding_windows(len(ids) - 1, context, step):
                inputs = ids[window.begin : window.end + 1]
                yield Request(inputs, window.scored, len(tokens) - 1)

    nats: list[float] = []
    for scored in scorer.score(requests()):
        owner, ids = scored.request.owner, scored.request.ids
        if owner == len(nats):
            nats.append(0.0)
        nats[owner] -= float(scored.log_probs.sum())
        advance(int(byte_lengths[ids[len(ids) - scored.request.scored :]].sum()))
    if not tokens:
        raise DataError("an empty corpus has no loss; give some text")
    return TextResult(np.array(nats), np.array(tokens), np.array(sizes))


def _exp(nats: float) -> float:
    return math.exp(nats) if nats < 700 else math.inf
