"""Tokens, masks and packing: packed rows have the loss and gradient of rows apart."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lmlab.alignment.batches import Demonstrations, ShuffledSource, shares
from lmlab.alignment.config import Normalization
from lmlab.alignment.examples import Example
from lmlab.alignment.objectives import SupervisedObjective
from lmlab.alignment.packing import pack
from lmlab.alignment.sequences import (
    TokenSequence,
    fitted,
    tokenize_prompt_and_output,
    tokenized,
)
from lmlab.alignment.templates import Piece
from lmlab.errors import DataError
from lmlab.model import build
from lmlab.tokenizer import byte_tokenizer
from lmlab.training.distributed import SINGLE_PROCESS, DistributedContext
from tests_support import composed

BYTES = byte_tokenizer(["<|endoftext|>"])


def example(*texts: str) -> Example:
    """Given, learnt, given, ..."""
    return Example(tuple(Piece(text, bool(i % 2)) for i, text in enumerate(texts)), "a:1")


def test_prompt_and_output_are_joined_padded_and_shifted() -> None:
    tokens = tokenize_prompt_and_output(["ab", "c"], ["xyz", "w"], BYTES)
    assert tokens.input_ids.tolist() == [[*b"abxy"], [*b"cw", 0, 0]]
    assert tokens.labels.tolist() == [[*b"bxyz"], [*b"w", 0, 0, 0]]
    assert tokens.response_mask.tolist() == [
        [False, True, True, True],
        [True, False, False, False],
    ]


def test_pieces_are_tokenised_apart() -> None:
    sequence = tokenized(example("ab", "c<|endoftext|>", "d", "e"), BYTES)
    assert sequence.ids.tolist() == [97, 98, 99, 256, 100, 101]
    assert sequence.learned.tolist() == [False, False, True, True, False, True]
    with pytest.raises(DataError, match="a:1: has no token to learn after the first"):
        tokenized(example("", "a"), BYTES)


def test_examples_longer_than_the_context() -> None:
    long, short = tokenized(example("ab", "cdef"), BYTES), tokenized(example("a", "b"), BYTES)
    prompt = tokenized(example("abcdef", "g"), BYTES)
    everything = [long, short, prompt]
    with pytest.raises(DataError, match=r"x: its 6 tokens do not fit into model.context_length=3"):
        fitted(everything, ["x", "y", "z"], 3, "error")
    (cut, kept, gone), changed = fitted(everything, ["x", "y", "z"], 3, "truncate")
    assert cut is not None
    assert cut.ids.tolist() == [*b"abcd"]
    assert (kept is short, gone, changed) == (True, None, 2)
    found, changed = fitted(everything, ["x", "y", "z"], 3, "drop")
    assert ([sequence is not None for sequence in found], changed) == ([False, True, False], 2)


@settings(deadline=None)
@given(st.lists(st.integers(1, 20), max_size=60))
def test_packing_keeps_each_sequence_once_and_wastes_little(lengths: list[int]) -> None:
    rows = pack(lengths, 20)
    assert sorted(itertools.chain(*rows)) == list(range(len(lengths)))
    used = [sum(lengths[i] for i in row) for row in rows]
    assert all(0 < total <= 20 for total in used)
    # at most one row is half empty, or two would be one
    assert sum(2 * total <= 20 for total in used) <= 1


def test_packing_by_hand() -> None:
    assert pack([3, 5, 2, 4, 6], 10) == [[3, 4], [0, 1, 2]]
    with pytest.raises(ValueError, match="a sequence of 11 tokens does not fit into 10"):
        pack([11], 10)


def some_sequences(count: int = 11) -> list[TokenSequence]:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(count):
        length = int(rng.integers(3, 14))
        learned = rng.random(length) < 0.5
        learned[-1] = True
        found.append(TokenSequence(rng.integers(0, 50, length), learned))
    return found


ARCHITECTURES = {
    "full": (),
    "windowed": ("model/attention=sliding_window", "model.attention.window=4"),
    "strided": ("model/attention=strided", "model.attention.stride=3", "model.attention.window=2"),
    "learned positions": ("model/position=learned",),
    "few kv heads": ("model.attention.num_kv_heads=1",),
    "eager": ("model.attention.backend=eager",),
}


@pytest.mark.parametrize("normalization", ["token", "sequence", "constant"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_packed_rows_have_the_loss_and_gradient_of_rows_apart(
    name: str, normalization: Normalization
) -> None:
    torch.manual_seed(0)
    config = composed(
        "model.d_model=32", "model.num_layers=2", "model.num_heads=2", "model.d_ff=64",
        "model.context_length=24", *ARCHITECTURES[name],
    ).model  # fmt: skip
    model = build(config, 50).double()
    objective = SupervisedObjective(model, chunk_tokens=7)
    sequences = some_sequences()

    def measured(packing: bool) -> tuple[Tensor, list[Tensor], int]:
        rows = Demonstrations(
            sequences, 24, packing=packing, normalization=normalization, constant=5.0
        )
        batch = rows(range(len(rows.rows)))
        total, _ = objective(*batch)
        loss = total / objective.weight(*batch)
        return loss, list(torch.autograd.grad(loss, list(model.parameters()))), len(rows.rows)

    apart, gradients, count = measured(False)
    packed, packed_gradients, packed_count = measured(True)
    assert packed_count < count
    torch.testing.assert_close(packed, apart, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(packed_gradients, gradients, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("normalization", ["token", "sequence", "constant"])
def test_the_loss_is_that_of_the_formula(normalization: Normalization) -> None:
    torch.manual_seed(0)
    config = composed("model.d_model=32", "model.num_layers=1", "model.context_length=24").model
    model = build(config, 50)
    sequences = some_sequences(3)
    objective = SupervisedObjective(model)
    rows = Demonstrations(sequences, 24, packing=False, normalization=normalization, constant=5.0)
    batch = rows([0, 1, 2])
    losses = []
    for ids, learned in sequences:
        tokens = torch.from_numpy(ids)
        log_p = torch.log_softmax(model(tokens[None, :-1])[0], dim=-1)
        chosen = -log_p[range(len(ids) - 1), tokens[1:]]
        losses.append(chosen[torch.from_numpy(learned[1:])])
    expected = {
        "token": torch.cat(losses).mean(),
        "sequence": torch.stack([loss.mean() for loss in losses]).mean(),
        "constant": torch.stack([loss.sum() / 5 for loss in losses]).mean(),
    }[normalization]
    total, terms = objective(*batch)
    torch.testing.assert_close(total / objective.weight(*batch), expected)
    torch.testing.assert_close(terms["loss"], total.detach())


def test_a_tokens_attention_stays_within_its_example() -> None:
    torch.manual_seed(0)
    model = build(composed("model.d_model=32", "model.context_length=24").model, 51)
    rows = Demonstrations(some_sequences(4), 24, packing=True, normalization="token")
    batch = rows([0])
    assert batch.segments is not None
    changed = batch.input_ids.clone()
    changed[batch.segments == 0] += 1
    before, after = (
        model.hidden(ids, batch.positions, segments=batch.segments)
        for ids in (batch.input_ids, changed)
    )
    other = batch.segments > 0
    assert other.any()
    torch.testing.assert_close(before[other], after[other], rtol=0, atol=1e-6)
    assert not torch.equal(before[batch.segments == 0], after[batch.segments == 0])


def test_segments_need_positions_and_a_softmax() -> None:
    segments = torch.zeros(1, 4, dtype=torch.long)
    for attention, problem in (("full", "need positions"), ("linear", "keep the examples of")):
        config = composed("model.d_model=32", f"model/attention={attention}").model
        model = build(config, 50)
        positions = None if attention == "full" else torch.arange(4)[None]
        with pytest.raises(ValueError, match=problem):
            model.hidden(segments, positions, segments=segments)


def test_each_pass_over_the_rows_has_an_order_of_its_own() -> None:
    def source(batch: int, context: DistributedContext = SINGLE_PROCESS) -> ShuffledSource:
        return ShuffledSource(lambda rows, _: (torch.tensor(rows),), 10, batch, 3, context)

    one = source(4)
    passes = [row for step in range(5) for row in one.rows(step)]
    assert sorted(passes[:10]) == sorted(passes[10:]) == list(range(10))
    assert passes[:10] != passes[10:]
    assert source(4).rows(3) == one.rows(3)  # a function of the step
    parts = [source(4, DistributedContext(rank, 2, rank))(1)[0] for rank in range(2)]
    assert torch.cat([part for part in parts if part is not None]).tolist() == one.rows(1)
    assert len(source(25).rows(0)) == 25  # larger than a pass


def test_processes_share_what_is_evaluated() -> None:
    contexts = [DistributedContext(rank, 3, rank) for rank in range(3)]
    parts = [list(shares(7, 2, context)) for context in contexts]
    assert {len(part) for part in parts} == {2}
    counted = [row for part in parts for rows, counts in part if counts for row in rows]
    assert sorted(counted) == list(range(7))
