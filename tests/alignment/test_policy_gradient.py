"""Objectives of reinforcement learning, against formulas written with plain torch."""

from typing import Any

import pytest
import torch

from alignment.small_policies import collector, policy
from lmlab.alignment.config import Normalization, PolicyLossKind
from lmlab.alignment.experience import Experience, selected
from lmlab.alignment.methods import ActorCriticAdvantages, Expert, GroupRelative
from lmlab.alignment.policy_gradient import PolicyGradient, PolicyGradientSettings
from lmlab.alignment.source import RolloutSource
from lmlab.model import Transformer
from lmlab.training.runtime import Runtime
from lmlab.training.step import optimize_step


def grpo_source(
    model: Transformer, loss: PolicyLossKind, batch: int = 16, epochs: int = 1
) -> RolloutSource:
    return RolloutSource(collector(model), GroupRelative(loss, 4, True), batch, epochs)


def gradients(
    model: Transformer, batch: Experience, settings: PolicyGradientSettings, size: int | None = None
) -> tuple[list[torch.Tensor], dict[str, float]]:
    objective = PolicyGradient(model, settings)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    weight = objective.weight(*batch)
    runtime = Runtime(torch.device("cpu"))
    stats = optimize_step(objective, optimizer, batch, weight, runtime, micro_batch_size=size)
    grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    return grads, {name: value.item() for name, value in stats.terms.items()}


NORMALIZATIONS: list[Normalization] = ["token", "sequence", "constant"]


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_grpo_on_policy_has_the_gradient_of_reinforce(normalization: Normalization) -> None:
    """One epoch and one mini-batch: all ratios are 1."""
    model = policy()
    batch = grpo_source(model, "grpo_clip")(0)
    assert batch.advantages.abs().sum() > 1
    results = [
        gradients(model, batch, PolicyGradientSettings(loss, normalization, 6.0))[0]
        for loss in ("grpo_clip", "no_clip", "reinforce_with_baseline")
    ]
    assert max(g.abs().max().item() for g in results[0]) > 1e-3
    for other in results[1:]:
        for ours, theirs in zip(results[0], other, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", ["grpo_clip", "no_clip", "reinforce_with_baseline"])
def test_a_single_step_needs_no_old_log_probabilities(loss: PolicyLossKind) -> None:
    """Those of its own forward pass are the same; the difference to the engine's is measured."""
    model = policy()
    batch = grpo_source(model, loss)(0)
    single = RolloutSource(
        collector(model, single_step=True, measured_every=9), GroupRelative(loss, 4, True), 16, 1
    )(0)
    assert batch.old_log_probs is not None
    assert single.old_log_probs is None
    settings = PolicyGradientSettings(loss, "token")
    (grads, terms), (expected, others) = (gradients(model, b, settings) for b in (single, batch))
    for ours, theirs in zip(grads, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert terms.keys() == others.keys()
    assert 0 < terms["engine_difference"] < 1e-4
    assert terms["engine_difference"] == pytest.approx(others["engine_difference"], abs=1e-6)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_the_gradient_is_that_of_the_formula(normalization: Normalization) -> None:
    """REINFORCE by autograd over each response by itself."""
    model = policy()
    batch = grpo_source(model, "reinforce_with_baseline")(0)
    ours, _ = gradients(
        model, batch, PolicyGradientSettings("reinforce_with_baseline", normalization, 6.0), 5
    )
    model.zero_grad()
    rewards = batch.rewards[:, 0].view(4, 4)  # the order of the epoch is undone below
    total = torch.zeros(())
    tokens = batch.mask.sum().item()
    for row in range(len(batch.mask)):
        mask = batch.mask[row]
        log_p = torch.log_softmax(model(batch.input_ids[row][None])[0], -1)
        chosen = log_p.gather(-1, batch.labels[row][:, None])[:, 0]
        advantage = batch.advantages[row][mask][0]
        summed = -(advantage * chosen[mask]).sum()
        divisor = {"token": tokens, "sequence": 16 * mask.sum(), "constant": 16 * 6.0}
        total = total + summed / divisor[normalization]
    total.backward()
    assert rewards.shape == (4, 4)
    for found, parameter in zip(ours, model.parameters(), strict=True):
        torch.testing.assert_close(found, parameter.grad, rtol=1e-3, atol=1e-6)


def test_advantages_are_normalized_within_the_responses_to_a_prompt() -> None:
    rollout = collector(policy())(0)
    trajectories, rows = GroupRelative("grpo_clip", 4, True)(rollout)
    assert rows == list(range(16))
    for group in range(4):
        of = slice(4 * group, 4 * group + 4)
        assert len({p.prompt for p in rollout.problems[of]}) == 1
        rewards = torch.tensor([reward.total for reward in rollout.rewards[of]])
        expected = (rewards - rewards.mean()) / (rewards.std() + 1e-6)
        for row, value in zip(range(16)[of], expected, strict=True):
            found = trajectories.advantages[row][trajectories.mask[row]]
            torch.testing.assert_close(found, value.expand(len(found)))
    raw, _ = GroupRelative("no_baseline", 4, True)(rollout)
    assert raw.advantages[5][raw.mask[5]][0].item() == pytest.approx(rollout.rewards[5].total)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("size", [None, 3])
def test_metrics_are_means(normalization: Normalization, size: int | None) -> None:
    """Over tokens, or over responses, whatever the loss is divided by."""
    model = policy()
    source = grpo_source(model, "grpo_clip", batch=8, epochs=2)
    batch = source(0)
    assert batch.old_log_probs is not None
    with torch.no_grad():
        model.lm_head.weight.mul_(1.2)  # off-policy
    settings = PolicyGradientSettings("grpo_clip", normalization, 6.0, clip_low=0.1, clip_high=0.1)
    _, terms = gradients(model, batch, settings, size)
    log_p = torch.log_softmax(model(batch.input_ids), -1)
    chosen = log_p.gather(-1, batch.labels[..., None])[..., 0]
    ratio = (chosen - batch.old_log_probs).exp()
    clipped = torch.where(batch.advantages > 0, ratio > 1.1, ratio < 0.9)
    clipped &= batch.advantages != 0
    expected = {
        "entropy": -(log_p.exp() * log_p).sum(-1)[batch.mask].mean(),
        "clip_fraction": clipped[batch.mask].float().mean(),
        "reward": batch.rewards[:, 0].mean(),
        "format": batch.rewards[:, 1].mean(),
        "answer": batch.rewards[:, 2].mean(),
        "length": batch.mask.sum(1).float().mean(),
    }
    assert 0 < expected["clip_fraction"] < 1
    for name, value in expected.items():
        assert terms[name] == pytest.approx(value.item(), rel=1e-4), name


def test_the_penalty_against_a_reference() -> None:
    model, reference = policy(), policy(seed=1)
    source = RolloutSource(
        collector(model, reference=reference), GroupRelative("grpo_clip", 4, True), 16, 1
    )
    batch = source(0)
    _, terms = gradients(model, batch, PolicyGradientSettings("grpo_clip", "token", kl=0.5))
    ours, theirs = (
        torch.log_softmax(m(batch.input_ids), -1).gather(-1, batch.labels[..., None])[..., 0]
        for m in (model, reference)
    )
    difference = (theirs - ours)[batch.mask]
    expected = (difference.exp() - difference - 1).mean().item()
    assert terms["kl"] == pytest.approx(expected, rel=1e-3)
    plain = gradients(model, batch, PolicyGradientSettings("grpo_clip", "token"))[1]["loss"]
    assert terms["loss"] - plain == pytest.approx(0.5 * expected, rel=1e-2, abs=1e-5)


def test_expert_iteration_is_supervised_training_on_what_is_kept() -> None:
    model = policy()
    rollout = collector(model)(0)
    trajectories, rows = Expert(0.2)(rollout)
    assert 0 < len(rows) < 16
    assert all((rollout.rewards[row].total >= 0.2) == (row in rows) for row in range(16))
    batch = selected(trajectories, rows)
    _, terms = gradients(model, batch, PolicyGradientSettings("no_baseline", "token"))
    log_p = torch.log_softmax(model(batch.input_ids), -1)
    chosen = log_p.gather(-1, batch.labels[..., None])[..., 0]
    assert terms["loss"] == pytest.approx(-chosen[batch.mask].mean().item(), rel=1e-4)


def test_batches_of_experts_are_full_and_every_response_comes_in_each_epoch() -> None:
    model = policy()
    kept: list[int] = []

    def method(rollout: Any) -> Any:
        trajectories, rows = Expert(0.2)(rollout)
        kept.append(len(rows))
        return trajectories, rows

    source = RolloutSource(collector(model), method, 4, 3)
    sizes = [len(source(step).input_ids) for step in range(-(-3 * 16 // 4))]
    assert set(sizes) == {4}
    rows = 3 * kept[0]
    assert source.rollouts == 1 or -(-rows // 4) < len(sizes)


def test_ppo_learns_values_and_advantages() -> None:
    model = policy(value_head=True)
    method = ActorCriticAdvantages(1.0, 1.0, whiten=False)
    batch = RolloutSource(collector(model), method, 16, 1)(0)
    assert batch.returns is not None
    # The head begins at zero: with discount and trace 1 returns are the reward at every token.
    for row in range(16):
        found = batch.returns[row][batch.mask[row]]
        torch.testing.assert_close(found, batch.rewards[row, 0].expand(len(found)))
        torch.testing.assert_close(batch.advantages[row][batch.mask[row]], found)
    settings = PolicyGradientSettings("grpo_clip", "token", value_weight=0.5, value_clip=0.2)
    _, terms = gradients(model, batch, settings)
    expected = batch.returns[batch.mask].square().mean().item() / 2
    assert terms["value_loss"] == pytest.approx(expected, rel=1e-4)
    head = dict(model.named_parameters())["value_head.weight"]
    assert head.grad is not None
    assert head.grad.abs().max() > 1e-4


def test_a_fixed_batch_stays() -> None:
    source = grpo_source(policy(), "grpo_clip", batch=8)
    first, second = source(0), source(0)
    assert first is second
    assert source.rollouts == 1
