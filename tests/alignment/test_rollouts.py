"""Rollouts: what they depend on, and that both forward passes agree on them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.small_policies import TOKENIZER, collector, policy
from lmlab.alignment.experience import at_last_token, on_mask, selected
from lmlab.alignment.rollouts import Decoding, Request, generate_responses, response_seed
from lmlab.alignment.sequences import joined
from lmlab.generation.options import Options
from lmlab.training.objective import NextToken


@pytest.mark.parametrize("max_batch", [1, 3, 16])
def test_responses_do_not_depend_on_their_company(max_batch: int) -> None:
    model = policy()
    whole, other = collector(model)(2), collector(model, max_batch)(2)
    assert whole.responses == other.responses
    assert len({len(response.tokens) for response in whole.responses}) > 1  # unequal lengths
    torch.testing.assert_close(whole.trajectories.old_log_probs, other.trajectories.old_log_probs)


def test_seeds_differ_by_run_rollout_problem_and_sample() -> None:
    places = [(s, r, p, i) for s in (0, 1) for r in (0, 1, 11) for p in (0, 1, 11) for i in (0, 1)]
    assert len({response_seed(*place) for place in places}) == len(places)


def test_engine_and_training_forward_agree() -> None:
    trajectories = collector(policy())(0).trajectories
    mask = trajectories.mask
    assert mask.sum() > 16
    torch.testing.assert_close(
        trajectories.old_log_probs, trajectories.engine_log_probs, rtol=1e-4, atol=1e-4
    )
    assert (trajectories.old_log_probs[~mask] == 0).all()


def test_old_log_probabilities_are_those_of_the_sequences() -> None:
    """Against the model's logits of each sequence by itself, without padding."""
    model = policy().eval()
    rollout = collector(model)(1)
    requests = rollout.trajectories
    for row, response in enumerate(rollout.responses):
        prompt = TOKENIZER.encode(rollout.problems[row].prompt)
        ids = torch.tensor([*prompt, *response.tokens])
        log_p = torch.log_softmax(model(ids[None, :-1])[0], dim=-1)
        expected = log_p[range(len(ids) - 1), ids[1:]][len(prompt) - 1 :]
        found = requests.old_log_probs[row][requests.mask[row]]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        entropy = -(log_p.exp() * log_p).sum(-1)[len(prompt) - 1 :]
        torch.testing.assert_close(
            rollout.entropy[row][requests.mask[row]], entropy, rtol=1e-4, atol=1e-4
        )


def test_weights_are_those_of_the_policy_now() -> None:
    model = policy()
    make = collector(model)
    before = make(0)
    with torch.no_grad():
        model.lm_head.weight.neg_()
    after = make(0)
    assert before.responses != after.responses
    assert [p.prompt for p in before.problems] == [p.prompt for p in after.problems]
    torch.testing.assert_close(
        after.trajectories.old_log_probs, after.trajectories.engine_log_probs, rtol=1e-4, atol=1e-4
    )


def test_every_problem_comes_once_in_an_epoch() -> None:
    make = collector(policy())
    taken = [place for number in range(5) for place in make.chosen(number)]
    assert sorted(taken[:10]) == sorted(taken[10:]) == list(range(10))
    assert taken[:10] != taken[10:]


def test_a_prompt_that_comes_twice_gets_other_responses() -> None:
    rollout = collector(policy(), prompts=20, samples=1)(0)
    assert len({problem.prompt for problem in rollout.problems}) == 10
    assert len(set(rollout.responses)) == 20


def test_an_end_token_is_part_of_the_response() -> None:
    model = policy()
    with torch.no_grad():
        model.lm_head.weight[TOKENIZER.special_tokens["<|endoftext|>"]] *= 40
    prompt = tuple(TOKENIZER.encode("1+1="))
    requests = [Request(prompt, seed) for seed in range(20)]
    responses = generate_responses(model, TOKENIZER, requests, Decoding(4))
    assert responses is not None
    end = TOKENIZER.special_tokens["<|endoftext|>"]
    assert any(response.tokens[-1] == end and response.complete for response in responses)
    assert all(len(response.log_probs) == len(response.tokens) for response in responses)
    longer = generate_responses(model, TOKENIZER, requests, Decoding(4, min_new_tokens=3))
    assert longer is not None
    assert all(end not in response.tokens[:3] for response in longer)
    assert generate_responses(model, TOKENIZER, requests, Decoding(4), lambda: True) is None


def test_a_stop_text_that_is_kept_stays_at_the_end_of_the_text() -> None:
    prompt = tuple(TOKENIZER.encode("1+1="))
    requests = [Request(prompt, seed) for seed in range(100)]
    stop = tuple("aeiou0123456789")
    cut, kept = (
        generate_responses(policy(), TOKENIZER, requests, Decoding(16, stop, kept))
        for kept in ((), tuple("aeiou"))
    )
    assert cut is not None
    assert kept is not None
    ends = {whole.text.removeprefix(short.text) for short, whole in zip(cut, kept, strict=True)}
    assert "" in ends  # ended by another stop text, or by none
    assert set("aeiou") >= ends - {""} != set()
    assert [response.tokens for response in cut] == [response.tokens for response in kept]


def test_min_new_tokens_is_checked() -> None:
    with pytest.raises(Exception, match="min_new_tokens must be an integer of at least 0"):
        Options(min_new_tokens=-1)


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(1, 99), min_size=1, max_size=5),
            st.lists(st.integers(1, 99), min_size=1, max_size=5),
        ),
        min_size=1,
        max_size=6,
    )
)
@settings(max_examples=50, deadline=None)
def test_joined_rows_hold_prompt_and_response(pairs: list[tuple[list[int], list[int]]]) -> None:
    prompts, responses = [p for p, _ in pairs], [r for _, r in pairs]
    tokens = joined(prompts, responses)
    for row, (prompt, response) in enumerate(pairs):
        assert tokens.labels[row][tokens.response_mask[row]].tolist() == response
        kept = len(prompt) + len(response) - 1
        assert tokens.input_ids[row, :kept].tolist() == [*prompt, *response][:-1]
    values = [[float(x) for x in response] for response in responses]
    placed = on_mask(values, tokens.response_mask)
    assert placed[~tokens.response_mask].sum() == 0
    assert placed[tokens.response_mask].tolist() == [x for row in values for x in row]
    last = at_last_token(torch.tensor([row[-1] for row in values]), tokens.response_mask)
    for row, value in enumerate(values):
        assert last[row][tokens.response_mask[row]].tolist() == [0.0] * (len(value) - 1) + [
            value[-1]
        ]


def test_a_batch_has_the_mean_length_of_all_processes() -> None:
    trajectories = collector(policy())(0).trajectories
    rows = [3, 1, 8, 12]
    halves = [selected(trajectories, rows, slice(i, i + 2)) for i in (0, 2)]
    whole = selected(trajectories, rows)
    assert whole.mask.any(dim=0)[-1]  # no column of padding alone
    mean = trajectories.mask[rows].sum().item() / 4
    for batch in (whole, *halves):
        assert batch.mean_length.tolist() == [pytest.approx(mean)] * len(batch.input_ids)
    labels = torch.cat([half.labels[half.mask] for half in halves])
    assert labels.tolist() == whole.labels[whole.mask].tolist()


def test_it_is_no_other_model_than_pretraining_has() -> None:
    """The mean negative log-probability of a rollout is NextToken's loss on the same tokens."""
    model = policy().eval()
    batch = collector(model, prompts=1, samples=1)(0).trajectories
    losses = NextToken(model)(batch.input_ids, batch.labels)[0]
    everything = torch.log_softmax(model(batch.input_ids)[0], -1)
    chosen = everything.gather(-1, batch.labels[0][:, None])[:, 0]
    torch.testing.assert_close(-chosen.sum(), losses)
    torch.testing.assert_close(
        chosen[batch.mask[0]], batch.old_log_probs[0][batch.mask[0]], rtol=1e-4, atol=1e-4
    )
