"""What the tasks that learn from their own responses share."""

import os
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from torch import nn

from lmlab.alignment.advantages import identical_groups
from lmlab.alignment.collecting import Collector, Rollout
from lmlab.alignment.experience import Experience
from lmlab.alignment.policy_evaluation import evaluate_policy
from lmlab.alignment.policy_gradient import PolicyGradient, PolicyGradientSettings
from lmlab.alignment.problems import open_problems
from lmlab.alignment.problems.problem import Problem, Problems, subset
from lmlab.alignment.records import rollout_record
from lmlab.alignment.rewards import Reward, kept_stops
from lmlab.alignment.rewards.grading import Grader
from lmlab.alignment.rollouts import Decoding
from lmlab.alignment.source import Method, RolloutSource
from lmlab.errors import ConfigError, UserError
from lmlab.model import Transformer
from lmlab.runs.run import Run
from lmlab.task.base import Task
from lmlab.task.dropout import refuse_dropout
from lmlab.task.given_tokenizer import given_tokenizer
from lmlab.task.reference import reference_model
from lmlab.task.rl_config import RolloutTaskConfig
from lmlab.tokenizer import Tokenizer
from lmlab.training.chunking import fastest_chunk
from lmlab.training.state import Criterion, Metrics

MOST_EMPTY = 20
"""Rollouts in a row of which nothing may be kept."""
MOST_DIFFERENT = 0.5
"""Nats by which the engine's log-probability of a token may differ before it is said."""


class Notices:
    """Says the first, second, fourth, eighth ... notice of each kind."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.counts: Counter[str] = Counter()

    def __call__(self, kind: str, text: str) -> None:
        """Say a text, or count it."""
        self.counts[kind] += 1
        count = self.counts[kind]
        if count & (count - 1) == 0:
            self.say(text if count == 1 else f"{text} ({count} times so far)")


class Reinforcement(Task):
    """Training on rollouts, judged by greedy accuracy on held-out problems."""

    criterion: ClassVar[Criterion] = Criterion(
        "val/accuracy", maximize=True, divergence_metric=None
    )
    problems: Problems
    policy: Transformer
    run: Run | None = None
    _tokenizer: Tokenizer

    @property
    @abstractmethod
    def settings(self) -> RolloutTaskConfig:
        """The task's own configuration."""

    @abstractmethod
    def loss_settings(self) -> PolicyGradientSettings:
        """Return what the loss is."""

    @abstractmethod
    def method(self) -> Method:
        """Return what is learnt from a rollout."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the model."""
        return self._tokenizer

    def prepare(self, say: Callable[[str], None]) -> None:
        """Make problems and tokenizer ready."""
        if self.runtime.strategy.sharded:
            raise ConfigError(
                "parallel",
                f"task={self.settings.kind} generates with the whole model in each process; use "
                "parallel=ddp",
            )
        if self.settings.kind != "expert_iteration":  # which is supervised
            refuse_dropout(self.config)
        self.say, self.notices = say, Notices(say)
        self.grader = Grader(
            self.settings.reward, self.settings.reward_deadline, processes=self._graders()
        )
        self._tokenizer = given_tokenizer(self.config.tokenizer)
        problems = open_problems(self.settings.problems, say)
        template = self.settings.prompt_template
        parts = (
            tuple(replace(p, prompt=template.replace("{prompt}", p.prompt)) for p in part)
            for part in (problems.train, problems.held_out)
        )
        self.problems = Problems(*parts)
        self._require_room([*self.problems.train, *self.problems.held_out])

    def judge(self, problems: Sequence[Problem], responses: Sequence[str]) -> list[Reward]:
        """Return the reward of each response; one that fails is zero, counted and said."""
        pairs = zip(problems, responses, strict=True)
        before = self._failures()
        rewards = self.grader([(p.prompt, response, p.truth) for p, response in pairs])
        if failed := self._failures() - before:
            self.notices(
                "reward",
                f"the reward of {failed:,} of {len(rewards):,} responses failed "
                f"({self.grader.last_error}) and counts as zero",
            )
        return rewards

    def _failures(self) -> int:
        return sum(self.grader.failures.values())

    def _graders(self) -> int:
        """Return how many processes judge the responses of this one."""
        return max(1, (os.cpu_count() or 1) // self.runtime.distributed.size)

    def _require_room(self, problems: Sequence[Problem]) -> None:
        room = self.config.model.context_length - self.settings.rollout.max_new_tokens
        lengths = [len(self.tokenizer.encode(problem.prompt)) for problem in problems]
        long = sum(length > room for length in lengths)
        if long or min(lengths) == 0:
            rule = f"longer than {room:,} tokens" if long else "empty"
            number = long or lengths.count(0)
            raise UserError(
                f"{number:,} of {len(problems):,} prompts are {rule}; with "
                f"task.rollout.max_new_tokens={self.settings.rollout.max_new_tokens} they must fit "
                f"into model.context_length={self.config.model.context_length}"
            )

    def batch_flops(self) -> None:
        """Return None: most FLOPs are those of the rollouts, which the loop does not see."""

    def data_record(self) -> dict[str, Any]:
        """Return counts and hashes of the problems."""
        return self.problems.record()

    def chunk_tokens(self) -> int | None:
        """Return the number of tokens that is fastest."""
        return fastest_chunk(self.runtime.device)

    def build_objective(self, model: Transformer) -> PolicyGradient:
        """Return the policy with its loss."""
        self.policy = model
        return PolicyGradient(model, self.loss_settings())

    def build_source(self) -> RolloutSource:
        """Return batches of rollouts of the policy."""
        rollout, reference = self.settings.rollout, None
        if getattr(self.settings, "kl", 0):
            reference = reference_model(self.config, self.policy)
        collector = Collector(
            self.policy,
            self.tokenizer,
            self.problems.train,
            self.judge,
            self.decoding(),
            self.runtime,
            prompts=rollout.prompts,
            samples=rollout.samples,
            rows_at_a_time=self.config.trainer.micro_batch_size,
            chunk_tokens=self.chunk_tokens(),
            reference=reference,
            single_step=self._single_step(),
            measured_every=self.settings.shown_every,
        )
        return RolloutSource(
            collector,
            self.method(),
            self.config.trainer.batch_size,
            self.settings.epochs,
            self._observe,
            self._nothing_kept,
        )

    def _single_step(self) -> bool:
        """Whether a rollout is used for one step alone; values are needed before it in any case."""
        settings, rollout = self.settings, self.settings.rollout
        whole = self.config.trainer.batch_size >= rollout.prompts * rollout.samples
        return settings.kind != "ppo" and settings.epochs == 1 and whole

    def decoding(self) -> Decoding:
        """Return how responses are generated."""
        rollout = self.settings.rollout
        return Decoding(
            rollout.max_new_tokens,
            rollout.stop,
            kept_stops(self.settings.reward),
            rollout.min_new_tokens,
            max_batch=rollout.max_batch,
            dtype=rollout.dtype,
        )

    def build_evaluation(
        self, model: Transformer, objective: nn.Module, run: Run
    ) -> Callable[[int], Metrics | None]:
        """Return the accuracy on held-out problems."""
        self.run = run
        settings = self.settings.evaluation
        problems = subset(self.problems.held_out, settings.problems)
        distributed = self.runtime.distributed

        def evaluate(step: int) -> Metrics | None:
            before = self._failures()
            metrics = evaluate_policy(
                model,
                self.tokenizer,
                problems,
                self.judge,
                self.decoding(),
                samples=settings.samples,
                seed=self.runtime.seed,
                distributed=distributed,
                should_stop=lambda: run.stop_signal is not None,
            )
            failed = distributed.sum(self._failures() - before)[0]
            if metrics is not None and failed:
                metrics["val/reward_failures"] = failed
            return metrics

        return evaluate

    def _observe(self, step: int, rollout: Rollout, trajectories: Experience) -> None:
        """Keep a rollout for the report, and say what is wrong with it."""
        settings = self.settings
        if self.run is not None and rollout.number % settings.shown_every == 0:
            self.run.rollout(
                rollout_record(step, rollout, trajectories, self.tokenizer, settings.shown_prompts)
            )
        samples = settings.rollout.samples
        if samples > 1 and settings.kind != "ppo":
            groups = len(rollout.rewards) // samples
            if identical_groups(trajectories.rewards[:, 0], samples) == groups:
                self.notices(
                    "identical",
                    f"rollout {rollout.number}: the responses to each of its {groups} prompts have "
                    "equal rewards, so none is better than the others",
                )
        if rollout.log_probs is None:
            return
        difference = (rollout.log_probs - trajectories.engine_log_probs).abs().max().item()
        if difference > MOST_DIFFERENT:
            self.notices(
                "engine",
                f"rollout {rollout.number}: log-probabilities of the generation engine and of the "
                f"training forward pass differ by up to {difference:.2g} nats; "
                "task.rollout.dtype and trainer.precision say how each computes",
            )

    def _nothing_kept(self, rollouts: int) -> None:
        if rollouts >= MOST_EMPTY:
            raise UserError(
                f"no response of the last {rollouts} rollouts was kept; start from a better model "
                "with init_from=RUN, or lower task.threshold"
            )
        self.notices("empty", "no response of a rollout is kept; the next one is made")

    def summary(self, result: dict[str, Any], directory: Any) -> list[str]:
        """Return accuracies."""
        low, high = result["val_accuracy_low"], result["val_accuracy_high"]
        interval = f"{result['val_accuracy']:.3f} [{low:.3f}, {high:.3f}]"
        return [
            f"  accuracy          {interval} on held-out problems (greedy)",
            f"  best accuracy     {result['best_val_accuracy']:.3f}",
        ]
