"""Tasks that learn from their own responses: GRPO, expert iteration and PPO."""

from torch import Tensor, nn

from lmlab.alignment.methods import ActorCriticAdvantages, Expert, GroupRelative
from lmlab.alignment.policy_gradient import PolicyGradientSettings
from lmlab.alignment.source import Method
from lmlab.model import Transformer, build
from lmlab.model.value_head import VALUE_HEAD
from lmlab.task.reinforcement import Reinforcement
from lmlab.task.rl_config import ExpertIterationConfig, GRPOConfig, PPOConfig


class GRPO(Reinforcement):
    """Group relative policy optimization (Shao et al. 2024), and REINFORCE."""

    @property
    def settings(self) -> GRPOConfig:
        """The task's own configuration."""
        settings = self.config.task
        assert isinstance(settings, GRPOConfig)
        return settings

    def loss_settings(self) -> PolicyGradientSettings:
        """Return the configured loss."""
        settings = self.settings
        return PolicyGradientSettings(
            settings.loss,
            settings.normalization,
            settings.rollout.max_new_tokens,
            settings.clip_low,
            settings.clip_high,
            settings.kl,
            chunk_tokens=self.chunk_tokens(),
        )

    def method(self) -> Method:
        """Return advantages within the groups of responses to a prompt."""
        settings = self.settings
        return GroupRelative(settings.loss, settings.rollout.samples, settings.divide_by_std)


class ExpertIteration(Reinforcement):
    """Supervised training on own responses that were rewarded (Anthony et al. 2017)."""

    @property
    def settings(self) -> ExpertIterationConfig:
        """The task's own configuration."""
        settings = self.config.task
        assert isinstance(settings, ExpertIterationConfig)
        return settings

    def loss_settings(self) -> PolicyGradientSettings:
        """Return the cross-entropy of the responses that are kept."""
        settings = self.settings
        return PolicyGradientSettings(
            "no_baseline",
            settings.normalization,
            settings.rollout.max_new_tokens,
            chunk_tokens=self.chunk_tokens(),
        )

    def method(self) -> Method:
        """Return the selection by reward."""
        return Expert(self.settings.threshold)


class PPO(Reinforcement):
    """Proximal policy optimization with a value head (Schulman et al. 2017)."""

    @property
    def settings(self) -> PPOConfig:
        """The task's own configuration."""
        settings = self.config.task
        assert isinstance(settings, PPOConfig)
        return settings

    def build_model(self) -> Transformer:
        """Return the policy with its value head."""
        return build(self.config.model, self.tokenizer.vocab_size, value_head=True)

    def adopted(self, weights: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
        """Return a parent's weights; the value head of one without stays as it is."""
        own = model.state_dict()
        return {n: own[n] for n in own if n.startswith(VALUE_HEAD)} | weights

    def loss_settings(self) -> PolicyGradientSettings:
        """Return the clipped loss, and that of the value head."""
        settings = self.settings
        return PolicyGradientSettings(
            "grpo_clip",
            settings.normalization,
            settings.rollout.max_new_tokens,
            settings.clip_low,
            settings.clip_high,
            settings.kl,
            settings.value_weight,
            settings.value_clip,
            chunk_tokens=self.chunk_tokens(),
        )

    def method(self) -> Method:
        """Return generalized advantages."""
        settings = self.settings
        return ActorCriticAdvantages(settings.discount, settings.trace, settings.whiten)
