"""Rows with equal beginnings: their hidden states and gradients are those of each row by itself."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.small_policies import collector, policy
from lmlab.alignment.beginnings import beginnings, hidden_states
from lmlab.alignment.sequences import joined
from lmlab.kernels.onednn import ROW_MULTIPLE
from lmlab.model.context import Rows

TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=4)
VARIANTS: dict[str, tuple[str, ...]] = {
    "full": (),
    "gqa": ("model.attention.num_kv_heads=1",),
    "window": ("model/attention=sliding_window", "model.attention.window=3"),
    "learned": ("model/position=learned", "model.block=parallel"),
    "moe": ("model/ffn=moe", "model.ffn.num_experts=4"),
    "linear": ("model/attention=linear",),
}


@given(st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=8))
@settings(max_examples=80, deadline=None)
def test_a_number_stands_for_one_beginning(pairs: list[tuple[list[int], list[int]]]) -> None:
    tokens = joined([p for p, _ in pairs], [r for _, r in pairs])
    numbers = beginnings(tokens.input_ids, tokens.response_mask)
    seen: dict[int, tuple[int, ...]] = {}
    for row, (prompt, response) in enumerate(pairs):
        inputs = [*prompt, *response][:-1]
        assert (numbers[row, len(inputs) :] == -1).all()
        for end, number in enumerate(numbers[row, : len(inputs)].tolist(), start=1):
            assert seen.setdefault(number, tuple(inputs[:end])) == tuple(inputs[:end])
    assert len(set(seen.values())) == len(seen)


@pytest.mark.parametrize("name", VARIANTS)
def test_states_and_gradients_are_those_of_the_rows(name: str) -> None:
    model = policy(*VARIANTS[name])
    batch = collector(policy())(0).trajectories
    assert len({tuple(row.tolist()) for row in batch.input_ids[:, :4]}) < len(batch.input_ids)
    numbers = beginnings(batch.input_ids, batch.mask)
    results = []
    for found in (
        model.hidden(batch.input_ids),
        hidden_states(model, batch.input_ids, numbers),
    ):
        model.zero_grad()
        weights = torch.linspace(-1, 1, found[batch.mask].numel()).view(found[batch.mask].shape)
        (found[batch.mask] * weights).sum().backward()
        grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        results.append((found[batch.mask], grads))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-4, atol=1e-5)
    assert results[0][1].keys() == results[1][1].keys()
    for key, grad in results[0][1].items():
        torch.testing.assert_close(grad, results[1][1][key], rtol=1e-3, atol=1e-4, msg=key)


def test_the_number_of_computed_tokens_has_few_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN keeps a kernel for each of them."""
    model = policy()
    hidden, counts = model.hidden, []

    def counting(ids: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        counts.append(len(ids))
        return hidden(ids, *args, **options)

    batch = collector(model)(0).trajectories
    monkeypatch.setattr(model, "hidden", counting)
    for rows in range(8, len(batch.input_ids) + 1):
        ids, mask = batch.input_ids[:rows], batch.mask[:rows]
        hidden_states(model, ids, beginnings(ids, mask))
    assert len(counts) > 1
    assert all(count % ROW_MULTIPLE == 0 for count in counts)


def test_linear_attention_refuses_shared_tokens() -> None:
    model = policy("model/attention=linear")
    one = torch.zeros(1, dtype=torch.long)
    rows = Rows(one.expand(1, 2), one, torch.tensor([[0, 2, 0, 0]]))
    with pytest.raises(ValueError, match="reads rows one by one"):
        model.hidden(torch.tensor([1]), torch.tensor([0]), rows=rows)


def test_a_rollout_of_a_single_step_is_measured_now_and_then() -> None:
    """What is generated is the same; measured log-probabilities never become old ones."""
    model = policy()
    plain = collector(model)
    single = collector(model, single_step=True, measured_every=2)
    for number in range(3):
        ours, theirs = single(number), plain(number)
        assert ours.responses == theirs.responses
        assert ours.trajectories.old_log_probs is None
        assert (ours.log_probs is None) == (ours.entropy is None) == (number == 1)
        if ours.log_probs is not None:
            assert theirs.log_probs is not None
            assert torch.equal(ours.log_probs, theirs.log_probs)
