"""Batches of examples and pairs, the same for any number of processes."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lmlab.alignment.config import Normalization
from lmlab.alignment.packing import pack
from lmlab.alignment.sequences import TokenSequence, padded, padded_length, token_weights
from lmlab.training.batch import Batch
from lmlab.training.distributed import DistributedContext


class Supervised(NamedTuple):
    """A batch of demonstrations; a row holds one, or several with attention within each."""

    input_ids: Int[Tensor, "rows time"]
    labels: Int[Tensor, "rows time"]
    weights: Float[Tensor, "rows time"]
    """Weight of each label's loss; 0: it is given."""
    divisor: Float[Tensor, "rows"]
    """What each row adds to the divisor of the sum of weighted losses."""
    positions: Int[Tensor, "rows time"] | None = None
    """Position of each token in its example; None: one example a row."""
    segments: Int[Tensor, "rows time"] | None = None
    """Number of each token's example in its row; -1: padding."""

    @property
    def labels_learnt(self) -> int:
        """The number of labels that are learnt."""
        return int((self.weights > 0).sum())


class Preferences(NamedTuple):
    """A batch of pairs, the chosen response first."""

    input_ids: Int[Tensor, "pairs 2 time"]
    labels: Int[Tensor, "pairs 2 time"]
    response_mask: Bool[Tensor, "pairs 2 time"]
    reference: Float[Tensor, "pairs 2"] | None
    """Log-probabilities of the responses under the reference; None: they are asked for."""

    @property
    def labels_learnt(self) -> int:
        """The number of labels that are learnt."""
        return int(self.response_mask.sum())


class ShuffledSource:
    """Batches of rows in an order that is drawn anew for each pass over them.

    The rows of a step depend on (seed, step) alone; each process gets its part of them, which
    `collate` makes a batch of: its arguments are this process's rows, and those of all.
    """

    def __init__(
        self,
        collate: Callable[[Sequence[int], Sequence[int]], Batch],
        count: int,
        batch_size: int,
        seed: int,
        distributed: DistributedContext,
    ) -> None:
        self.collate, self.count, self.batch_size, self.seed = collate, count, batch_size, seed
        share = batch_size // distributed.data_size
        self._part = slice(distributed.data_rank * share, (distributed.data_rank + 1) * share)
        self._orders: dict[int, Int[np.ndarray, count]] = {}

    def rows(self, step: int) -> list[int]:
        """Return the rows of a step, those of all processes."""
        first = step * self.batch_size
        places = [divmod(i, self.count) for i in range(first, first + self.batch_size)]
        epochs = {epoch for epoch, _ in places}
        known = self._orders
        self._orders = {e: known[e] if e in known else self._order(e) for e in epochs}
        return [int(self._orders[epoch][place]) for epoch, place in places]

    def __call__(self, step: int) -> Batch:
        """Return this process's batch of a step."""
        rows = self.rows(step)
        return self.collate(rows[self._part], rows)

    def _order(self, epoch: int) -> Int[np.ndarray, "count"]:
        # Sorted raw bits: NumPy's own permutations may change between its versions.
        raw = np.random.Philox(key=self.seed, counter=epoch << 128).random_raw(self.count)
        return np.argsort(raw, kind="stable")

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: a batch depends on (seed, step) alone."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take nothing back."""


class Demonstrations:
    """Makes batches of token sequences, one a row or packed."""

    def __init__(
        self,
        sequences: Sequence[TokenSequence],
        context_length: int,
        *,
        packing: bool,
        normalization: Normalization,
        constant: float = 1.0,
    ) -> None:
        self.sequences, self.context_length = sequences, context_length
        self.packing, self.normalization, self.constant = packing, normalization, constant
        lengths = [sequence.length for sequence in sequences]
        self.rows = pack(lengths, context_length) if packing else [[i] for i in range(len(lengths))]

    def __call__(self, numbers: Sequence[int], among: Sequence[int] = ()) -> Supervised:
        """Return the batch of some rows, by number, padded as one of the rows `among` would be."""
        rows = [[self.sequences[i] for i in self.rows[number]] for number in numbers]
        longest = max(
            sum(self.sequences[i].length for i in self.rows[number])
            for number in (*numbers, *among)
        )
        length = (
            self.context_length if self.packing else padded_length(longest, self.context_length)
        )
        ids, labels, positions = (torch.zeros(len(rows), length, dtype=torch.long) for _ in "123")
        weights, divisor = torch.zeros(len(rows), length), torch.zeros(len(rows))
        segments = torch.full((len(rows), length), -1)
        for number, row in enumerate(rows):
            start = 0
            for segment, sequence in enumerate(row):
                at = slice(start, start + sequence.length)
                tokens = torch.from_numpy(sequence.ids)
                ids[number, at], labels[number, at] = tokens[:-1], tokens[1:]
                learned = torch.from_numpy(sequence.learned[1:])
                weights[number, at], share = token_weights(
                    learned, self.normalization, self.constant
                )
                divisor[number] += share
                positions[number, at] = torch.arange(sequence.length)
                segments[number, at] = segment
                start = at.stop
        if not self.packing:
            return Supervised(ids, labels, weights, divisor)
        return Supervised(ids, labels, weights, divisor, positions, segments)


class PreferencePairs:
    """Makes batches of pairs of token sequences."""

    def __init__(
        self,
        pairs: Sequence[tuple[TokenSequence, TokenSequence]],
        context_length: int,
        reference: Float[Tensor, "pairs 2"] | None,
    ) -> None:
        self.pairs, self.context_length, self.reference = pairs, context_length, reference

    def __call__(self, numbers: Sequence[int], among: Sequence[int] = ()) -> Preferences:
        """Return the batch of some pairs, by number, padded as one of those `among` would be."""
        both = [sequence for number in numbers for sequence in self.pairs[number]]
        longest = max(
            sequence.length for number in (*numbers, *among) for sequence in self.pairs[number]
        )
        tokens = padded(both, padded_length(longest, self.context_length))
        reference = None if self.reference is None else self.reference[list(numbers)]
        ids, labels, mask = (part.unflatten(0, (-1, 2)) for part in tokens)
        return Preferences(ids, labels, mask, reference)


def shares(
    count: int, batch_size: int, distributed: DistributedContext
) -> Iterator[tuple[list[int], bool]]:
    """Yield the rows that this process evaluates, in batches, and whether they count.

    All processes get equally many batches; the first row stands where one has none of its own.
    """
    mine = list(range(count))[distributed.data_rank :: distributed.data_size]
    largest = -(-count // distributed.data_size)
    for number in range(-(-largest // batch_size)):
        part = mine[number * batch_size : (number + 1) * batch_size]
        yield (part or [0]), bool(part)
