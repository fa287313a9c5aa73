"""What each algorithm learns from a rollout: advantages, and the responses to train on."""

from dataclasses import dataclass

import torch

from lmlab.alignment.advantages import generalized_advantages, group_normalized, whiten
from lmlab.alignment.collecting import Rollout
from lmlab.alignment.config import PolicyLossKind
from lmlab.alignment.experience import Experience, at_last_token


@dataclass(frozen=True)
class GroupRelative:
    """GRPO: rewards compared with those of the other responses to the prompt."""

    loss: PolicyLossKind
    group_size: int
    divide_by_std: bool

    def __call__(self, rollout: Rollout) -> tuple[Experience, list[int]]:
        """Return the trajectories with the advantage of a response at each of its tokens."""
        trajectories = rollout.trajectories
        advantages = trajectories.rewards[:, 0]
        if self.loss != "no_baseline":
            advantages = group_normalized(
                advantages, self.group_size, divide_by_std=self.divide_by_std
            )
        spread = advantages[:, None] * trajectories.mask
        return trajectories._replace(advantages=spread), list(range(len(advantages)))


@dataclass(frozen=True)
class Expert:
    """Expert iteration: responses with at least this reward, all with the advantage 1."""

    threshold: float

    def __call__(self, rollout: Rollout) -> tuple[Experience, list[int]]:
        """Return the trajectories, and the rows that are kept."""
        trajectories = rollout.trajectories
        kept = (trajectories.rewards[:, 0] >= self.threshold).nonzero().flatten().tolist()
        return trajectories._replace(advantages=trajectories.mask.float()), kept


@dataclass(frozen=True)
class ActorCriticAdvantages:
    """PPO: generalized advantages by the value head; the reward is at the last token."""

    discount: float
    trace: float
    whiten: bool

    def __call__(self, rollout: Rollout) -> tuple[Experience, list[int]]:
        """Return the trajectories with the advantage and the return of each token."""
        trajectories = rollout.trajectories
        assert trajectories.old_values is not None
        mask = trajectories.mask.float()
        advantages, returns = generalized_advantages(
            at_last_token(trajectories.rewards[:, 0], trajectories.mask),
            trajectories.old_values,
            mask,
            discount=self.discount,
            trace=self.trace,
        )
        if self.whiten:
            advantages = whiten(advantages, mask)
        rows = torch.arange(len(mask)).tolist()
        return trajectories._replace(advantages=advantages, returns=returns), rows
