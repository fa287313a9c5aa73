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
from lmlab.generation.sampler import choose_rows, of_tokens, unused_ids
from lmlab.generation.text import TextStream
from lmlab.generation.weights import Dtype, evaluating, packed
from lmlab.kernels.onednn import has_onednn
from lmlab.model.transformer import Transformer
from lmlab.tokenizer import Tokenizer

Logprobs = tuple[float, list[tuple[int, float]]]
"""Log-probability of a token, and the likeliest tokens with theirs."""
FinishReason = Literal["stop", "length", "cancelled"]
END = "<|endoftext|>"
PROMPT_TOKENS = 2048
"""Tokens of prompts that are read together."""


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
        seed = self.options.seed  # of integers, Random takes the absolute value
        self.rng = random.Random(seed if seed >= 0 else str(seed))
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
    `longest` bounds the tokens of a text, prompt included, so that the cache has no more; None: the
    context does.

    The same seed gives the same text whatever else is in the batch. A sequence draws from a
    generator of its own. On CPUs with oneDNN (all x86) its logits are the same bit for bit, if the
    widths of heads and feed-forward are multiples of 32: packed weights sum each row as if it were
    alone, so prompts of one length are read together; others are read one by one. Elsewhere logits
    agree up to rounding, since the order of sums depends on the number of rows: the text is the
    same unless a choice lies within it. `fixed_batch` always computes `max_batch` rows there, which
    removes the dependence on their number.
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        *,
        max_batch: int = 8,
        dtype: Dtype | None = None,
        fixed_batch: bool = False,
        longest: int | None = None,
    ) -> None:
        if max_batch < 1:
            raise UserError(f"max_batch must be at least 1, got {max_batch}")
        self.model = model if dtype is None else packed(model, dtype)
        self.tokenizer = tokenizer
        self.end = tokenizer.special_tokens.get(END)
        self.device = next(model.parameters()).device
        self.max_batch = max_batch
        self.fixed_batch = fixed_batch
        self._reads_together = dtype is not None and has_onednn(self.device) and not fixed_batch
        self.longest = longest
        self.cache = self.model.new_cache(max_batch, longest)
        self.active: list[Generation] = []
        self.waiting: deque[Generation] = deque()
        self._vocabulary = tokenizer.vocab
        self.unused = unused_ids(tokenizer)

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
        if self.longest is not None and len(kept) + options.max_new_tokens > self.longest:
            raise UserError(f"the text may be longer than the engine's longest={self.longest}")
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
        table = torch.cat(logits) if len(logits) > 1 else logits[0]
        table = of_tokens(table, self.tokenizer.vocab_size, self.unused)
        tokens = self._chosen(table)
        logprobs = self._logprobs(table, tokens)
        pieces = [
            self._add(sequence, token, row)
            for sequence, token, row in zip(self.active, tokens, logprobs, strict=True)
        ]
        for row in reversed(range(len(self.active))):
            if self.active[row].finish_reason is not None:
                self._leave(row)
        return pieces

    def run(self) -> Iterator[Piece]:
        """Yield pieces until all sequences have finished."""
        while self.busy:
            yield from self.step()

    def _admit(self) -> list[Float[Tensor, "rows vocab"]]:
        """Fill free rows from the queue; prompts of a length are read together, equal ones once."""
        free = self.max_batch - len(self.active)
        admitted = [self.waiting.popleft() for _ in range(min(free, len(self.waiting)))]
        row_of: dict[tuple[int, ...], int] = {}
        by_length: dict[int, list[Generation]] = {}
        repeated = []
        for sequence in admitted:
            if tuple(sequence.prompt) in row_of:
                repeated.append(sequence)
            else:
                row_of[tuple(sequence.prompt)] = -1
                by_length.setdefault(len(sequence.prompt), []).append(sequence)
        first = len(self.active)
        logits: list[Tensor] = []
        for length, sequences in by_length.items():
            size = max(1, PROMPT_TOKENS // length) if self._reads_together else 1
            for start in range(0, len(sequences), size):
                part = sequences[start : start + size]
                for row, sequence in enumerate(part, start=len(self.active)):
                    row_of[tuple(sequence.prompt)] = row
                logits.append(self._read(part))
        if repeated:
            sources = [row_of[tuple(sequence.prompt)] for sequence in repeated]
            self.cache.copy_rows(sources, len(self.active))
            self.active += repeated
            logits.append(torch.cat(logits)[[source - first for source in sources]])
        return logits

    def _read(self, sequences: list[Generation]) -> Float[Tensor, "rows vocab"]:
        """Read prompts of one length into the next rows; return the logits after each."""
        rows = slice(len(self.active), len(self.active) + len(sequences))
        self.active += sequences
        self.cache.clear(rows)
        self.cache.rows = rows
        ids = torch.tensor([sequence.prompt for sequence in sequences], device=self.device)
        positions = torch.arange(ids.shape[1], device=self.device)
        return self.model.logits(self.model.hidden(ids, positions, self.cache)[:, -1])

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

    def _chosen(self, table: Float[Tensor, "batch vocab"]) -> list[int]:
        """Return the next token of each active sequence."""
        early = [
            row
            for row, s in enumerate(self.active)
            if self.end is not None and len(s.tokens) < s.options.min_new_tokens
        ]
        if early:
            table = table.clone()
            table[early, self.end] = -torch.inf
        seen = [
            s.prompt + s.tokens if s.options.repetition_penalty != 1 else [] for s in self.active
        ]
        options, rngs = [s.options for s in self.active], [s.rng for s in self.active]
        return choose_rows(table, seen, options, rngs)

    def _logprobs(
        self, table: Float[Tensor, "batch vocab"], tokens: list[int]
    ) -> list[Logprobs | None]:
        """Return log-probabilities, of the token and the likeliest, where they are wanted."""
        wanted = [s.options.logprobs for s in self.active]
        if all(count is None for count in wanted):
            return [None] * len(self.active)
        rows = torch.log_softmax(table, dim=1)
        chosen = rows.gather(1, torch.tensor(tokens)[:, None])[:, 0].tolist()
        return [
            None if count is None else (logprob, _likeliest(rows[row], count) if count else [])
            for row, (count, logprob) in enumerate(zip(wanted, chosen, strict=True))
        ]

    def _add(self, sequence: Generation, token: int, logprobs: Logprobs | None) -> Piece:
        options = sequence.options
        if token == self.end:
            sequence.finish_reason = "stop"
        else:
            sequence.tokens.append(token)
        if logprobs is not None:
            sequence.logprobs.append(logprobs[0])
            sequence.alternatives.append(logprobs[1])
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
        if row != last:
            self.cache.copy_rows([last], row)
        self.active[row] = self.active[last]
        self.active.pop()


def _likeliest(logprobs: Float[Tensor, "vocab"], count: int) -> list[tuple[int, float]]:
    top = logprobs.topk(min(count, len(logprobs)))
    return list(zip(top.indices.tolist(), top.values.tolist(), strict=True))
