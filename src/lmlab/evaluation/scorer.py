"""Log-probabilities of given tokens under a model, in batches of similar length."""

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor
from torch.nn import functional as F

from lmlab.errors import UserError
from lmlab.generation.weights import Dtype, packed
from lmlab.loading import END_OF_DOCUMENT, TrainedRun
from lmlab.training.device import autocast_for

POOL = 16
"""Batches of tokens that are sorted by length together."""
HEAD_TOKENS = {"cpu": 1024}
"""Tokens whose logits are in memory at a time, by device."""
OTHER_HEAD_TOKENS = 8192
Ids = Integer[np.ndarray, "length"]


@dataclass(frozen=True, eq=False)
class Request:
    """Tokens, the last `scored` of which are predicted from those before them."""

    ids: Ids
    """At most one more than the context length: the last one is no input."""
    scored: int
    owner: int
    """Index of the document or text that the tokens are of."""


@dataclass(frozen=True, eq=False)
class Scored:
    """The scored tokens of a request."""

    request: Request
    log_probs: Float[np.ndarray, "scored"]
    """Natural logarithms, float64."""
    greedy: bool | None
    """Whether each token is the likeliest one; None: not asked for."""


class Scorer:
    """Scores tokens with a run's model.

    `dtype="fp32"` computes with the run's own weights. bf16 is bfloat16 weights on a CPU, and
    autocast as in training elsewhere; int8 is that of generation. A batch holds `batch_size`
    sequences of the context length, or more shorter ones.
    """

    def __init__(self, run: TrainedRun, *, dtype: Dtype = "fp32", batch_size: int = 8) -> None:
        if batch_size < 1:
            raise UserError(f"the batch size must be at least 1, got {batch_size}")
        self.run = run
        self.tokenizer = run.tokenizer
        self.context_length = run.model.context_length
        self.device = next(run.model.parameters()).device
        autocast = dtype == "bf16" and self.device.type != "cpu"
        self.autocast = autocast_for("bf16", self.device) if autocast else nullcontext
        self.model = run.model if dtype == "fp32" or autocast else packed(run.model, dtype)
        self._batch_tokens = batch_size * self.context_length
        self._head_tokens = HEAD_TOKENS.get(self.device.type, OTHER_HEAD_TOKENS)

    @property
    def end(self) -> int:
        """The token before a document; raises UserError when the tokenizer has none."""
        end = self.tokenizer.special_tokens.get(END_OF_DOCUMENT)
        if end is None:
            raise UserError(
                f"{self.run.directory}: the tokenizer has no {END_OF_DOCUMENT}, which the first "
                "token of a text is predicted from"
            )
        return end

    def score(self, requests: Iterable[Request], *, greedy: bool = False) -> Iterator[Scored]:
        """Yield the results of the requests, in their order."""
        pool: list[Request] = []
        tokens = 0
        for request in requests:
            pool.append(request)
            tokens += len(request.ids)
            if tokens >= POOL * self._batch_tokens:
                yield from self._score_pool(pool, greedy)
                pool, tokens = [], 0
        yield from self._score_pool(pool, greedy)

    def _score_pool(self, pool: list[Request], greedy: bool) -> Iterator[Scored]:
        order = sorted(range(len(pool)), key=lambda i: -len(pool[i].ids))
        results: dict[int, Scored] = {}
        start = 0
        while start < len(order):
            longest = max(1, len(pool[order[start]].ids) - 1)
            rows = order[start : start + max(1, self._batch_tokens // longest)]
            scored = self._score_batch([pool[i] for i in rows], greedy)
            results |= dict(zip(rows, scored, strict=True))
            start += len(rows)
        for index in range(len(pool)):
            yield results[index]

    @torch.inference_mode()
    def _score_batch(self, batch: list[Request], greedy: bool) -> list[Scored]:
        longest = max(len(request.ids) for request in batch) - 1
        # Padding is on the right, where no token attends to it.
        inputs = np.zeros((len(batch), longest), np.int64)
        mask = np.zeros((len(batch), longest), bool)
        for row, request in enumerate(batch):
            end = len(request.ids) - 1
            inputs[row, :end] = request.ids[:-1]
            mask[row, end - request.scored : end] = True
        targets = np.concatenate([r.ids[len(r.ids) - r.scored :] for r in batch]).astype(np.int64)
        with self.autocast():
            hidden = self.model.hidden(torch.from_numpy(inputs).to(self.device))
            hidden = hidden[torch.from_numpy(mask).to(self.device)]
            log_probs, best = self._log_probs(hidden, torch.from_numpy(targets), greedy)
        pieces = np.cumsum([request.scored for request in batch])[:-1]
        return [
            Scored(request, values, bool(likeliest.all()) if greedy else None)
            for request, values, likeliest in zip(
                batch, np.split(log_probs, pieces), np.split(best, pieces), strict=True
            )
        ]

    def _log_probs(
        self, hidden: Float[Tensor, "tokens d_model"], targets: Int[Tensor, "tokens"], greedy: bool
    ) -> tuple[Float[np.ndarray, "tokens"], Bool[np.ndarray, "tokens"]]:
        """Return the log-probability of each target, and whether it is the likeliest token."""
        log_probs, best = np.empty(len(targets)), np.zeros(len(targets), bool)
        for start in range(0, len(targets), self._head_tokens):
            part = slice(start, start + self._head_tokens)
            wanted = targets[part].to(self.device)
            logits = self.model.logits(hidden[part])[:, : self.tokenizer.vocab_size].float()
            log_probs[part] = -F.cross_entropy(logits, wanted, reduction="none").cpu().numpy()
            if greedy:
                best[part] = (logits.argmax(dim=-1) == wanted).cpu().numpy()
        return log_probs, best
