"""Log-probabilities, masks, losses and advantages against torch and formulas worked by hand."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, kl_divergence

from lmlab.alignment.advantages import (
    generalized_advantages,
    group_normalized,
    identical_groups,
    whiten,
)
from lmlab.alignment.config import Normalization
from lmlab.alignment.log_probabilities import (
    entropy,
    log_probabilities,
    policy_log_probabilities,
)
from lmlab.alignment.losses import kl_penalty, policy_loss, value_loss
from lmlab.alignment.masks import masked_mean, masked_normalize, sequence_sums, sequence_weight
from lmlab.model import build
from tests_support import composed

KINDS = ("no_baseline", "reinforce_with_baseline", "grpo_clip", "no_clip")


@pytest.mark.parametrize("scale", [1.0, 1e4])  # large logits overflow without logsumexp
def test_log_probabilities_and_entropy_equal_torch(scale: float) -> None:
    torch.manual_seed(0)
    logits, labels = scale * torch.randn(2, 3, 11), torch.randint(11, (2, 3))
    expected = Categorical(logits=logits)
    torch.testing.assert_close(log_probabilities(logits, labels), expected.log_prob(labels))
    torch.testing.assert_close(entropy(logits), expected.entropy())


def test_an_impossible_token_adds_no_entropy() -> None:
    logits = torch.tensor([0.0, 0.0, -torch.inf])
    assert entropy(logits).item() == pytest.approx(math.log(2))


def test_a_policys_log_probabilities_are_those_of_its_logits() -> None:
    torch.manual_seed(0)
    model = build(composed("model=tiny").model, 20)
    ids = torch.randint(20, (2, 9))
    inputs, labels = ids[:, :-1], ids[:, 1:]
    mask = torch.rand(2, 8) < 0.5
    got = policy_log_probabilities(model, model.hidden(inputs), labels, mask, chunk_tokens=3)
    logits = model(inputs)
    torch.testing.assert_close(got.log_probs, log_probabilities(logits, labels) * mask)
    torch.testing.assert_close(got.entropy, entropy(logits) * mask)
    parameters = list(model.parameters())
    ours = torch.autograd.grad(got.log_probs.sum(), parameters)
    theirs = torch.autograd.grad((log_probabilities(logits, labels) * mask).sum(), parameters)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_masked_mean() -> None:
    values = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, torch.inf], [7.0, 8.0, 9.0]])
    mask = torch.tensor([[1, 0, 1], [1, 1, 0], [0, 0, 0]])
    assert masked_mean(values, mask).item() == (1 + 3 + 4 + 5) / 4
    rows = masked_mean(values, mask, dim=1)
    assert rows[:2].tolist() == [2.0, 4.5]
    assert rows[2].isnan()  # of nothing
    assert masked_mean(values, torch.zeros_like(mask)).isnan()
    assert masked_mean(values, mask, dim=0)[:2].tolist() == [2.5, 5.0]


def test_masked_normalize() -> None:
    values, mask = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1, 1], [0, 1]])
    assert masked_normalize(values, mask, 10).item() == pytest.approx(0.7)
    assert masked_normalize(values, mask, 10, dim=1).tolist() == pytest.approx([0.3, 0.4])


@pytest.mark.parametrize(
    ("normalization", "expected"),
    [
        ("token", (1 + 2 + 3 + 4) / 4),
        ("sequence", ((1 + 2 + 3) / 3 + 4) / 2),
        ("constant", (1 + 2 + 3 + 4) / 8 / 2),
    ],
)
def test_normalization_of_a_batch(normalization: Normalization, expected: float) -> None:
    values, mask = torch.tensor([[1.0, 2, 3], [9, 4, 9]]), torch.tensor([[1, 1, 1], [0, 1, 0]])
    sums = sequence_sums(values, mask, normalization, 8)
    got = sums.sum().item() / sequence_weight(mask, normalization)
    assert got == pytest.approx(expected)


def test_losses_by_hand() -> None:
    old = torch.log(torch.tensor([[0.5, 0.5, 0.5, 0.5]]))
    new = torch.log(torch.tensor([[0.5, 0.9, 0.1, 0.55]]))  # ratios 1, 1.8, 0.2, 1.1
    for sign in (1.0, -1.0):
        advantage = torch.tensor([2 * sign])
        plain = (-2 * sign * new).tolist()[0]
        for kind in ("no_baseline", "reinforce_with_baseline"):
            losses, clipped = policy_loss(kind, new, advantage)
            assert losses[0].tolist() == pytest.approx(plain)
            assert not clipped.any()
        losses, clipped = policy_loss("no_clip", new, advantage, old)
        assert losses[0].tolist() == pytest.approx([-2 * sign * r for r in (1, 1.8, 0.2, 1.1)])
        assert not clipped.any()
        losses, clipped = policy_loss("grpo_clip", new, advantage, old, clip_high=0.3)
        ratios = (1, 1.3, 0.2, 1.1) if sign > 0 else (1, 1.8, 0.8, 1.1)
        assert losses[0].tolist() == pytest.approx([-2 * sign * r for r in ratios])
        assert clipped[0].tolist() == [False, sign > 0, sign < 0, False]
        assert clipped.float().mean().item() == 0.25


def test_a_clipped_token_has_no_gradient() -> None:
    new = torch.log(torch.tensor([[0.5, 0.9]])).requires_grad_()
    old = torch.log(torch.tensor([[0.5, 0.5]]))
    policy_loss("grpo_clip", new, torch.tensor([1.0]), old).losses.sum().backward()
    assert new.grad is not None
    assert new.grad.tolist() == [[-1.0, 0.0]]


@pytest.mark.parametrize("kind", ["grpo_clip", "no_clip"])
def test_on_policy_gradients_equal_those_of_reinforce_with_a_baseline(kind: str) -> None:
    torch.manual_seed(0)
    log_probs = torch.randn(4, 5, requires_grad=True)
    advantages = torch.randn(4)

    def gradient(kind: str) -> Tensor:
        losses = policy_loss(kind, log_probs, advantages, log_probs.detach()).losses  # type: ignore[arg-type]
        return torch.autograd.grad(losses.sum(), log_probs)[0]

    torch.testing.assert_close(gradient(kind), gradient("reinforce_with_baseline"))


def test_advantages_of_tokens_count_each_for_itself() -> None:
    log_probs, advantages = torch.randn(2, 3), torch.randn(2, 3)
    losses = policy_loss("reinforce_with_baseline", log_probs, advantages).losses
    torch.testing.assert_close(losses, -advantages * log_probs)


def test_a_ratio_needs_old_log_probabilities() -> None:
    with pytest.raises(ValueError, match="grpo_clip needs old_log_probs"):
        policy_loss("grpo_clip", torch.zeros(1, 1), torch.zeros(1))


def test_the_penalty_estimates_the_divergence() -> None:
    p, q = Categorical(torch.tensor([0.5, 0.3, 0.2])), Categorical(torch.tensor([0.2, 0.2, 0.6]))
    estimates = kl_penalty(p.logits[None], q.logits[None])[0]
    assert (estimates >= 0).all()
    torch.testing.assert_close((p.probs * estimates).sum(), kl_divergence(p, q))


def test_group_normalized_rewards_use_the_unbiased_deviation() -> None:
    rewards = torch.tensor([1.0, 0.0, 0.0, 3.0, 3.0, 3.0])
    std = math.sqrt(((2 / 3) ** 2 + 2 * (1 / 3) ** 2) / 2)
    got = group_normalized(rewards, 3, eps=0.1)
    expected = [(2 / 3) / (std + 0.1), *2 * [(-1 / 3) / (std + 0.1)], 0, 0, 0]
    assert got.tolist() == pytest.approx(expected)
    got = group_normalized(rewards, 3, divide_by_std=False)
    assert got.tolist() == pytest.approx([2 / 3, -1 / 3, -1 / 3, 0, 0, 0])
    assert identical_groups(rewards, 3) == 1


@pytest.mark.parametrize("reward", [0.1, 1 / 3, 30.7, 100.1, -1e6 - 0.1])
@pytest.mark.parametrize("size", [2, 3, 7, 8, 64])
def test_equal_rewards_are_no_advantage_whatever_their_mean_rounds_to(
    reward: float, size: int
) -> None:
    equal = torch.full((size,), reward)
    assert group_normalized(equal, size).tolist() == [0.0] * size
    assert group_normalized(equal, size, divide_by_std=False).tolist() == [0.0] * size
    assert whiten(equal[None], torch.ones(1, size)).tolist() == [[0.0] * size]


def test_groups_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="5 responses are not divisible by group_size=2"):
        group_normalized(torch.zeros(5), 2)
    with pytest.raises(ValueError, match="group_size must be at least 2, got 1"):
        group_normalized(torch.zeros(5), 1)


def test_generalized_advantages_by_their_sum() -> None:
    torch.manual_seed(0)
    rewards, values = torch.randn(1, 6), torch.randn(1, 6)
    mask = torch.tensor([[0, 1, 1, 1, 1, 0]])
    discount, trace = 0.9, 0.7
    got, returns = generalized_advantages(rewards, values, mask, discount=discount, trace=trace)
    inside = range(1, 5)
    after = {t: values[0, t + 1] if t + 1 in inside else 0.0 for t in inside}
    deltas = {t: rewards[0, t] + discount * after[t] - values[0, t] for t in inside}
    for t in range(6):
        expected = sum((discount * trace) ** (k - t) * deltas[k] for k in inside if k >= t)
        expected = expected if t in inside else 0.0
        assert got[0, t].item() == pytest.approx(float(expected), abs=1e-6)
        if t in inside:
            assert returns[0, t].item() == pytest.approx(float(expected + values[0, t]), abs=1e-6)
    assert returns[0, [0, 5]].tolist() == [0, 0]


def test_without_discount_and_trace_returns_are_the_rewards_to_come() -> None:
    rewards = torch.tensor([[0.0, 0.0, 1.0]])
    _, returns = generalized_advantages(rewards, torch.randn(1, 3), torch.ones(1, 3))
    torch.testing.assert_close(returns, torch.ones(1, 3))


def test_whitened_values() -> None:
    values, mask = torch.tensor([[1.0, 5.0, 100.0]]), torch.tensor([[1, 1, 0]])
    half = 1 / math.sqrt(2)
    assert whiten(values, mask)[0].tolist() == pytest.approx([-half, half, 0])


def test_a_single_value_has_no_deviation_and_is_whitened_to_zero() -> None:
    values = torch.tensor([[1.0, 5.0, 100.0]])
    assert whiten(values, torch.tensor([[0, 1, 0]])).tolist() == [[0, 0, 0]]
    assert whiten(values, torch.tensor([[0, 0, 0]])).tolist() == [[0, 0, 0]]


def test_value_loss_by_hand() -> None:
    values, old = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    returns = torch.tensor([[2.0, 0.5]])
    losses, clipped = value_loss(values, old, returns, 0.2)
    assert losses[0].tolist() == pytest.approx([(0.2 - 2) ** 2 / 2, 0.5**2 / 2])
    assert clipped[0].tolist() == [True, False]
    losses, clipped = value_loss(values, old, returns, None)
    assert losses[0].tolist() == pytest.approx([0.5, 0.125])
    assert not clipped.any()
