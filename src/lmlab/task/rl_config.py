"""Configuration of the tasks that learn from their own responses."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lmlab.alignment.config import Normalization, PolicyLossKind
from lmlab.alignment.problems.config import ProblemsConfig
from lmlab.schema import Config

Count = Annotated[int, Field(ge=1)]
Clip = Annotated[float, Field(gt=0)]


class RolloutConfig(Config):
    """Responses that the policy is trained on."""

    NOT_IDENTITY = frozenset({"max_batch"})

    prompts: Count
    """Prompts of a rollout."""
    samples: Count
    """Responses to each prompt: the group size."""
    max_new_tokens: Count
    """Longest response, in tokens."""
    min_new_tokens: Annotated[int, Field(ge=0)]
    """The end token is not drawn before this many tokens."""
    stop: tuple[Annotated[str, Field(min_length=1)], ...]
    """Texts that end a response; the end token always does."""
    max_batch: Count
    """Responses generated at a time; shorter ones make room for others."""
    dtype: Literal["fp32", "bf16"] | None
    """Weights of generation, packed for it at each rollout; null: those of the policy, without a
    copy."""


class PolicyEvaluationConfig(Config):
    """How a policy is evaluated on held-out problems."""

    problems: Count | None
    """Held-out problems, chosen by a hash, the same in every evaluation; null: all."""
    samples: Annotated[int, Field(ge=0)]
    """Sampled responses to each problem, for sampled accuracy and pass@k; 0: greedy only."""


class _RolloutTaskConfig(Config):
    problems: ProblemsConfig
    """Where prompts and truths come from."""
    prompt_template: str
    """Text around each prompt; {prompt} is replaced by it."""
    reward: Annotated[str, Field(min_length=1)]
    """Name of a reward, or the dotted path of your own function (prompt, response, truth)."""
    reward_deadline: Annotated[float, Field(gt=0)] | None
    """Seconds after which a response's reward counts as failed, in a process of its own; null:
    computed in this process, without a deadline."""
    rollout: RolloutConfig
    epochs: Count
    """How often each response of a rollout is trained on."""
    evaluation: PolicyEvaluationConfig
    shown_prompts: Annotated[int, Field(ge=0)]
    """Prompts of a rollout whose responses are kept for `lmlab report`."""
    shown_every: Count
    """Rollouts between those that are kept."""

    NOT_IDENTITY = frozenset({"shown_prompts", "shown_every"})

    def fills_context(self) -> bool:
        """Return whether each row of a batch has as many tokens as the context."""
        return False

    @model_validator(mode="after")
    def _has_a_place_for_the_prompt(self) -> Self:
        if "{prompt}" not in self.prompt_template:
            raise ValueError("prompt_template lacks {prompt}, which each prompt replaces")
        return self

    def check(self, batch_size: int, context_length: int) -> None:
        """Raise ValueError unless a response fits into the context."""
        if self.rollout.max_new_tokens >= context_length:
            raise ValueError(
                f"task.rollout.max_new_tokens={self.rollout.max_new_tokens} leaves no room for a "
                f"prompt in model.context_length={context_length}"
            )


class _PolicyGradientConfig(_RolloutTaskConfig):
    normalization: Normalization
    """token: all tokens of a batch count alike; sequence: all responses; constant: as sequence,
    but sums over tokens are divided by rollout.max_new_tokens, not by the response's length."""
    clip_low: Clip
    """How far the ratio of probabilities may fall below 1; read by the losses that clip it."""
    clip_high: Clip
    """How far the ratio of probabilities may rise above 1; read by the losses that clip it."""
    kl: Annotated[float, Field(ge=0)]
    """Weight of the penalty against the model in init_from; 0: none."""

    def check(self, batch_size: int, context_length: int) -> None:
        """Raise ValueError unless a response fits, and batches divide a rollout."""
        super().check(batch_size, context_length)
        rollout = self.rollout
        responses = rollout.prompts * rollout.samples
        if responses % batch_size:
            raise ValueError(
                f"a rollout of task.rollout.prompts={rollout.prompts} times "
                f"task.rollout.samples={rollout.samples} = {responses} responses is not divisible "
                f"by trainer.batch_size={batch_size}, the responses of a training step"
            )


class GRPOConfig(_PolicyGradientConfig):
    """Group relative policy optimization (Shao et al. 2024, arXiv:2402.03300)."""

    kind: Literal["grpo"]
    loss: PolicyLossKind
    """no_baseline: the reward times log p; reinforce_with_baseline: the advantage times log p;
    grpo_clip: the advantage times the clipped ratio of probabilities; no_clip: times the ratio."""
    divide_by_std: bool
    """Divide advantages by the standard deviation of the group's rewards; false: Dr. GRPO (Liu et
    al. 2025). Not read by loss=no_baseline, which takes the rewards."""

    @model_validator(mode="after")
    def _groups_have_a_baseline(self) -> Self:
        if self.loss != "no_baseline" and self.rollout.samples < 2:
            raise ValueError(
                "rollout.samples must be at least 2: a response is compared with the others to "
                "its prompt; or take loss=no_baseline"
            )
        return self


class ExpertIterationConfig(_RolloutTaskConfig):
    """Supervised training on own responses that were rewarded (Anthony et al. 2017)."""

    kind: Literal["expert_iteration"]
    normalization: Normalization
    """token: all tokens of a batch count alike; sequence: all responses; constant: as sequence,
    but sums over tokens are divided by rollout.max_new_tokens, not by the response's length."""
    threshold: float
    """Responses with at least this reward are kept."""


class PPOConfig(_PolicyGradientConfig):
    """Proximal policy optimization with a value head (Schulman et al. 2017, arXiv:1707.06347)."""

    kind: Literal["ppo"]
    discount: Annotated[float, Field(gt=0, le=1)]
    """Discount of later rewards, for each token."""
    trace: Annotated[float, Field(ge=0, le=1)]
    """Lambda of generalized advantage estimation (Schulman et al. 2016)."""
    whiten: bool
    """Give the advantages of a rollout mean 0 and standard deviation 1."""
    value_weight: Annotated[float, Field(ge=0)]
    """Weight of the value head's loss."""
    value_clip: Clip | None
    """How far a value may move from that at the rollout; null: no clip."""


RolloutTaskConfig = GRPOConfig | ExpertIterationConfig | PPOConfig
