"""Token sequences with the mask of what is learnt, and the tensors that a batch is made of."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lmlab.alignment.config import Normalization, TooLong
from lmlab.alignment.examples import Example
from lmlab.errors import DataError
from lmlab.tokenizer import Tokenizer

PAD_MULTIPLE = 8
"""Rows are padded to a multiple of this, so that few different shapes occur."""


class TokenSequence(NamedTuple):
    """The tokens of an example, each with whether it is learnt."""

    ids: Int[np.ndarray, "time"]
    learned: Bool[np.ndarray, "time"]

    @property
    def length(self) -> int:
        """The number of inputs: tokens but the last, which is only predicted."""
        return len(self.ids) - 1


class Tokens(NamedTuple):
    """Sequences padded on the right and shifted: `all[:, :-1]` and `all[:, 1:]`."""

    input_ids: Int[Tensor, "batch time"]
    labels: Int[Tensor, "batch time"]
    response_mask: Bool[Tensor, "batch time"]
    """Where the label is learnt."""


def tokenized(example: Example, tokenizer: Tokenizer) -> TokenSequence:
    """Return the tokens of an example, each of its pieces tokenised apart.

    Raises DataError when none is learnt.
    """
    pieces = [np.asarray(tokenizer.encode(piece.text), np.int64) for piece in example.pieces]
    learned = [
        np.full(len(ids), piece.learned) for ids, piece in zip(pieces, example.pieces, strict=True)
    ]
    sequence = TokenSequence(np.concatenate(pieces), np.concatenate(learned))
    if not sequence.learned[1:].any():
        raise DataError(f"{example.place}: has no token to learn after the first")
    return sequence


def tokenize_prompt_and_output(
    prompts: Sequence[str], outputs: Sequence[str], tokenizer: Tokenizer
) -> Tokens:
    """Return prompts and outputs, tokenised apart and joined; outputs are learnt."""
    return joined(*([tokenizer.encode(text) for text in texts] for texts in (prompts, outputs)))


def joined(prompts: Sequence[Sequence[int]], outputs: Sequence[Sequence[int]]) -> Tokens:
    """Return the tokens of prompts and outputs, joined; outputs are learnt."""
    sequences = []
    for prompt, output in zip(prompts, outputs, strict=True):
        ids = np.array([*prompt, *output], np.int64)
        sequences.append(TokenSequence(ids, np.arange(len(ids)) >= len(prompt)))
    return padded(sequences, max(sequence.length for sequence in sequences))


def padded(sequences: Sequence[TokenSequence], length: int) -> Tokens:
    """Return the sequences as rows of `length` inputs; padding is token 0 and is not learnt."""
    ids = np.zeros((len(sequences), length + 1), np.int64)
    learned = np.zeros(ids.shape, np.bool_)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence.ids)] = sequence.ids
        learned[row, : len(sequence.ids)] = sequence.learned
    both, mask = torch.from_numpy(ids), torch.from_numpy(learned)
    return Tokens(both[:, :-1].contiguous(), both[:, 1:].contiguous(), mask[:, 1:].contiguous())


def padded_length(longest: int, context_length: int) -> int:
    """Return the length that rows are padded to: a multiple of PAD_MULTIPLE within the context."""
    return min(-(-longest // PAD_MULTIPLE) * PAD_MULTIPLE, context_length)


def token_weights(
    learned: Bool[Tensor, "time"], normalization: Normalization, constant: float
) -> tuple[Float[Tensor, "time"], float]:
    """Return the weight of each label of one example, and what the example adds to the divisor.

    The sum of weighted losses over the sum of divisors is the loss of a batch: see
    `lmlab.alignment.masks.sequence_sums` for the normalizations.
    """
    count = float(learned.sum())
    scale = {"token": 1.0, "sequence": 1 / count, "constant": 1 / constant}[normalization]
    return learned * scale, count if normalization == "token" else 1.0


def fitted(
    sequences: Sequence[TokenSequence],
    places: Sequence[str],
    context_length: int,
    too_long: TooLong,
) -> tuple[list[TokenSequence | None], int]:
    """Return the sequences within the context, None for one that is left out, and how many changed.

    Raises DataError for a longer one with `too_long=error`, naming its place.
    """
    found: list[TokenSequence | None] = []
    changed = 0
    for sequence, place in zip(sequences, places, strict=True):
        if sequence.length <= context_length:
            found.append(sequence)
            continue
        if too_long == "error":
            raise DataError(
                f"{place}: its {sequence.length + 1:,} tokens do not fit into "
                f"model.context_length={context_length}; shorten it, or set "
                "task.examples.too_long=truncate or drop"
            )
        changed += 1
        cut = TokenSequence(
            sequence.ids[: context_length + 1], sequence.learned[: context_length + 1]
        )
        found.append(cut if too_long == "truncate" and cut.learned[1:].any() else None)
    return found, changed
