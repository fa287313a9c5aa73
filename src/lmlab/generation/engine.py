"""Continuous batching: sequences join and leave a batch that decodes one token a step."""

import random
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lmlab.errors import UserError
from lmlab.generation.options import Options
from lmlab.generation.sampler import choose
from lmlab.generation.text import TextStream
from lmlab.generation.weights import Dtype, evaluating, packed
from lmlab.model.transformer import Transformer
from lmlab.tokenizer import Tokenizer

FinishReason = Literal["stop", "length", "cancelled"]
END = "<|endoftext|>"


@dataclass(eq=False)
class Generation:
    """One text that is being generated."""

    prompt: list[int]
    """Tokens that the model reads first, cropped to the context."""
    options: Options
    cropped: int
    """Tokens of the prompt left out because it is longer than the context."""
    tokens: list[int] = field(default_factory=list)
    """Generated tokens; the end token is not among them."""
    text: str = ""
    """Generated text, up to a stop string."""
    logprobs: list[float] = field(default_factory=list)
    """Log-probability of each generated token under the model, before all sampling options."""
    alternatives: list[list[tuple[int, float]]] = field(default_factory=list)
    """Likeliest tokens at each step, with their log-probabilities."""
    finish_reason: FinishReason | None = None

    def __post_init__(self) -> None:
        self.rng = random.Random(self.options.seed)
        self.stream = TextStream(self.options.stop)


@dataclass(frozen=True)
class Piece:
    """What one step added to a sequence."""

    sequence: Generation
    text: str
    """New text in whole characters; may be empty."""


class Engine:
    """Generates with a model for up to `max_batch` sequences at a time.

    `dtype=None` uses the model's own weights without a copy: later training steps are seen.

    The same seed gives the same text whatever else is in the batch. A sequence draws from a
    generator of its own, and its prompt is read by itself. On CPUs with oneDNN (all x86) its
    logits are the same bit for bit, if the widths of heads and feed-forward are multiples of 32.
    Elsewhere they agree up to rounding, since the order of sums depends on the number of rows:
    the text is the same unless a choice lies within it. `fixed_batch` always computes `max_batch`
    rows there, which removes the dependence on their number.
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        *,
        max_batch: int = 8,
        dtype: Dtype | None = None,
        fixed_batch: bool = False,
    ) -> None:
        if max_batch < 1:
            raise UserError(f"max_batch must be at least 1, got {max_batch}")
        self.model = model if dtype is None else packed(model, dtype)
        self.tokenizer = tokenizer
        self.end = tokenizer.special_tokens.get(END)
        self.device = next(model.parameters()).device
        self.max_batch = max_batch
        self.fixed_batch = fixed_batch
        self.cache = self.model.new_cache(max_batch)
        self.active: list[Generation] = []
        self.waiting: deque[Generation] = deque()
        self._vocabulary = tokenizer.vocab

    def submit(self, prompt: Sequence[int], options: Options) -> Generation:
        """Queue a prompt; an empty one begins a document, a long one is cropped from the left."""
        ids = list(prompt)
        if not ids:
            if self.end is None:
                raise UserError(f"an empty prompt needs {END} in the tokenizer; give a prompt")
            ids = [self.end]
        outside = [i for i in ids if not 0 <= i < self.model.vocab_size]
        if outside:
            raise UserError(f"token {outside[0]} is not in the vocabulary")
        kept = ids[-self.model.context_length :]
        sequence = Generation(kept, options, cropped=len(ids) - len(kept))
        self.waiting.append(sequence)
        return sequence

    @torch.inference_mode()
    def cancel(self, sequence: Generation) -> None:
        """Remove a sequence from the queue or the batch."""
        if sequence in self.waiting:
            self.waiting.remove(sequence)
        if sequence in self.active:
            self._leave(self.active.index(sequence))
        sequence.finish_reason = sequence.finish_reason or "cancelled"

    @property
    def busy(self) -> bool:
        """Whether any sequence is waiting or being generated."""
        return bool(self.active or self.waiting)

    @torch.inference_mode()
    def step(self) -> list[Piece]:
        """Generate one token for each sequence in the batch, after filling free rows."""
        with evaluating(self.model):
            logits = [self._decode()] if self.active else []
            logits += self._admit()
        if not logits:
            return []
        table = (torch.cat(logits) if len(logits) > 1 else logits[0]).float().cpu()
        table = table[:, : self.tokenizer.vocab_size]
        pieces = [self._add(s, row) for s, row in zip(self.active, table.unbind(), strict=True)]
        for row in reversed(range(len(self.active))):
            if self.active[row].finish_reason is not None:
                self._leave(row)
        return pieces

    def run(self) -> Iterator[Piece]:
        """Yield pieces until all sequences have finished."""
        while self.busy:
            yield from self.step()

    def _admit(self) -> list[Float[Tensor, "1 vocab"]]:
        logits: list[Tensor] = []
        last: tuple[list[int], Tensor] | None = None
        while self.waiting and len(self.active) < self.max_batch:
            sequence, row = self.waiting.popleft(), len(self.active)
            self.active.append(sequence)
            if last is not None and last[0] == sequence.prompt:  # samples of one prompt
                self.cache.copy_row(row - 1, row)
                logits.append(last[1])
                continue
            self.cache.clear(row)
            self.cache.rows = slice(row, row + 1)
            ids = torch.tensor([sequence.prompt], device=self.device)
            positions = torch.arange(ids.shape[1], device=self.device)
            hidden = self.model.hidden(ids, positions, self.cache)[:, -1]
            last = (sequence.prompt, self.model.logits(hidden))
            logits.append(last[1])
        return logits

    def _decode(self) -> Float[Tensor, "batch vocab"]:
        """Return the next logits of the active sequences, by the cache where the text fits."""
        limit = self.model.context_length
        lengths = [len(s.prompt) + len(s.tokens) for s in self.active]
        idle = self.max_batch - len(self.active) if self.fixed_batch else 0
        # A row past the context goes along at a position that is there, and is computed again.
        last = [[s.tokens[-1]] for s in self.active] + [[0]] * idle
        where = [[min(n, limit) - 1] for n in lengths] + [[0]] * idle
        logits = None
        if min(lengths) <= limit:
            self.cache.rows = slice(0, len(last))
            logits = self.model.logits(
                self.model.hidden(
                    torch.tensor(last, device=self.device),
                    torch.tensor(where, device=self.device),
                    self.cache,
                )[:, -1]
            )[: len(lengths)]
        past = [row for row, n in enumerate(lengths) if n > limit]
        if past:
            recomputed = torch.cat([self._recompute(self.active[row]) for row in past])
            if logits is None:
                return recomputed
            logits[past] = recomputed
        assert logits is not None
        return logits

    def _recompute(self, sequence: Generation) -> Float[Tensor, "1 vocab"]:
        """Return the logits of a text past the context, from the last tokens that fit."""
        window = (sequence.prompt + sequence.tokens)[-self.model.context_length :]
        ids = torch.tensor([window], device=self.device)
        return self.model.logits(self.model.hidden(ids)[:, -1])

    def _add(self, sequence: Generation, logits: Float[Tensor, "vocab"]) -> Piece:
        options = sequence.options
        seen = sequence.prompt + sequence.tokens if options.repetition_penalty != 1 else []
        token = choose(logits, seen, options, sequence.rng)
        if token == self.end:
            sequence.finish_reason = "stop"
        else:
            sequence.tokens.append(token)
        if options.logprobs is not None:
            logprobs = torch.log_softmax(logits, dim=0)
            sequence.logprobs.append(float(logprobs[token]))
            top = logprobs.topk(min(options.logprobs, len(logprobs)))
            pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
            sequence.alternatives.append(list(pairs))
        text = ""
        if token != self.end:
            text = sequence.stream.push(self._vocabulary[token])
            if sequence.stream.stopped:
                sequence.finish_reason = "stop"
            elif len(sequence.tokens) == options.max_new_tokens:
                sequence.finish_reason = "length"
        if sequence.finish_reason is not None:
            text += sequence.stream.finish()
        sequence.text += text
        return Piece(sequence, text)

    def _leave(self, row: int) -> None:
        """Give a row back: the last one takes its place."""
        last = len(self.active) - 1
        self.cache.copy_row(last, row)
        self.active[row] = self.active[last]
        self.active.pop()
