"""Collecting rollouts: generated and judged by all processes, each for its share of the prompts."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lmlab.alignment.beginnings import beginnings, hidden_states
from lmlab.alignment.experience import Experience, on_mask
from lmlab.alignment.log_probabilities import policy_log_probabilities
from lmlab.alignment.problems.problem import Problem
from lmlab.alignment.rewards import Reward
from lmlab.alignment.rollouts import (
    Decoding,
    Request,
    Response,
    generate_responses,
    response_seed,
)
from lmlab.alignment.sequences import Tokens, joined
from lmlab.generation.weights import evaluating
from lmlab.model import Transformer
from lmlab.model.value_head import ActorCritic
from lmlab.tokenizer import Tokenizer
from lmlab.training.runtime import Runtime

Judge = Callable[[Sequence[Problem], Sequence[str]], list[Reward]]
"""Returns the reward of each response to a problem."""


@dataclass(frozen=True)
class Rollout:
    """Responses to some prompts; those to one prompt follow one another."""

    number: int
    """How many rollouts came before."""
    group_size: int
    """Responses to each prompt."""
    problems: tuple[Problem, ...]
    """One for each response."""
    responses: tuple[Response, ...]
    rewards: tuple[Reward, ...]
    trajectories: Experience
    """Advantages are zero yet."""
    log_probs: Float[Tensor, "batch time"] | None
    """Log-probabilities of the labels by the training forward pass; None: not measured."""
    entropy: Float[Tensor, "batch time"] | None
    """Entropy of each token's distribution, in nats, 0 outside of responses; None as above."""


class Collector:
    """Makes the rollouts of a policy.

    Rollout number n takes the next `prompts` problems of an order that is drawn anew whenever all
    problems were taken, and `samples` responses to each. What is generated depends on the weights,
    the seed, and n alone: not on the number of processes, nor on what is generated together.

    With `single_step` a rollout is used for one step alone, whose forward pass gives the old
    log-probabilities; then only one rollout in `measured_every` is measured, to be looked at.
    """

    def __init__(
        self,
        policy: Transformer,
        tokenizer: Tokenizer,
        problems: Sequence[Problem],
        judge: Judge,
        decoding: Decoding,
        runtime: Runtime,
        *,
        prompts: int,
        samples: int,
        rows_at_a_time: int | None = None,
        chunk_tokens: int | None = None,
        reference: Transformer | None = None,
        single_step: bool = False,
        measured_every: int = 1,
    ) -> None:
        self.policy, self.tokenizer, self.problems = policy, tokenizer, problems
        self.judge, self.decoding, self.runtime = judge, decoding, runtime
        self.prompts, self.samples = prompts, samples
        self.rows_at_a_time, self.chunk_tokens = rows_at_a_time, chunk_tokens
        self.reference = reference
        self.single_step, self.measured_every = single_step, measured_every
        self._order: tuple[int, list[int]] | None = None

    def chosen(self, number: int) -> list[int]:
        """Return the problems of a rollout, by their place."""
        first, count = number * self.prompts, len(self.problems)
        return [
            self._shuffled(place // count)[place % count]
            for place in range(first, first + self.prompts)
        ]

    def __call__(self, number: int) -> Rollout:
        """Return a rollout; all processes must call it."""
        distributed = self.runtime.distributed
        places = list(enumerate(self.chosen(number)))
        mine = places[distributed.data_rank :: distributed.data_size]
        parts = distributed.gather(self._collect(number, mine))
        groups = sorted((group for part in parts for group in part), key=lambda group: group[0])
        return self._joined(number, [sample for _, samples in groups for sample in samples])

    def _shuffled(self, epoch: int) -> list[int]:
        if self._order is None or self._order[0] != epoch:
            order = list(range(len(self.problems)))
            random.Random(f"{self.runtime.seed}/{epoch}").shuffle(order)
            self._order = (epoch, order)
        return self._order[1]

    def _collect(
        self, number: int, places: list[tuple[int, int]]
    ) -> list[tuple[int, list["_Sample"]]]:
        """Return this process's groups with their position in the rollout."""
        if not places:
            return []
        requests, problems = [], []
        for position, place in places:
            problem = self.problems[place]
            ids = tuple(self.tokenizer.encode(problem.prompt))
            for sample in range(self.samples):
                seed = response_seed(self.runtime.seed, number, position, sample)
                requests.append(Request(ids, seed))
                problems.append(problem)
        responses = generate_responses(self.policy, self.tokenizer, requests, self.decoding)
        assert responses is not None
        rewards = self.judge(problems, [response.text for response in responses])
        size = self.rows_at_a_time or len(requests)
        samples: list[_Sample] = []
        for start in range(0, len(requests), size):
            at = slice(start, start + size)
            prompts = [request.prompt for request in requests[at]]
            measured = self._measured(number, prompts, responses[at])
            samples += map(_Sample, problems[at], prompts, responses[at], rewards[at], measured)
        groups = [samples[i : i + self.samples] for i in range(0, len(samples), self.samples)]
        return [(position, group) for (position, _), group in zip(places, groups, strict=True)]

    @torch.no_grad()
    def _measured(
        self, number: int, prompts: list[tuple[int, ...]], responses: list[Response]
    ) -> list[dict[str, list[float]]]:
        """Return what the models say of each response's tokens, by the training forward pass."""
        models = {"reference": self.reference}
        if not self.single_step or number % self.measured_every == 0:
            models["policy"] = self.policy
        tokens = joined(prompts, [response.tokens for response in responses])
        on_cpu: dict[str, Tensor] = {}
        for name, model in models.items():
            if model is not None:
                found = self._said(model, tokens)
                on_cpu |= {f"{name} {part}": x.float().cpu() for part, x in found.items()}
        return [
            {
                name: values[row][tokens.response_mask[row]].tolist()
                for name, values in on_cpu.items()
            }
            for row in range(len(responses))
        ]

    def _said(self, model: Transformer, tokens: Tokens) -> dict[str, Float[Tensor, "batch time"]]:
        """Return log-probabilities, entropies and values of tokens."""
        numbers = beginnings(tokens.input_ids, tokens.response_mask)
        ids, labels, mask, numbers = (x.to(self.runtime.device) for x in (*tokens, numbers))
        with evaluating(model), self.runtime.autocast():
            hidden = hidden_states(model, ids, numbers)
            found = policy_log_probabilities(
                model, hidden, labels, mask, chunk_tokens=self.chunk_tokens
            )._asdict()
            if isinstance(model, ActorCritic):
                found["values"] = model.values(hidden)
        return found

    def _joined(self, number: int, samples: "list[_Sample]") -> Rollout:
        tokens = joined([s.prompt for s in samples], [s.response.tokens for s in samples])

        def column(name: str) -> Tensor | None:
            if name not in samples[0].measured:
                return None
            return on_mask([s.measured[name] for s in samples], tokens.response_mask)

        log_probs = column("policy log_probs")
        rewards = [[s.reward.total, s.reward.format, s.reward.answer] for s in samples]
        trajectories = Experience(
            *tokens,
            advantages=torch.zeros(tokens.response_mask.shape),
            engine_log_probs=on_mask([s.response.log_probs for s in samples], tokens.response_mask),
            rewards=torch.tensor(rewards),
            mean_length=tokens.response_mask.sum(dim=1).float(),
            old_log_probs=None if self.single_step else log_probs,
            reference_log_probs=column("reference log_probs"),
            old_values=column("policy values"),
        )
        return Rollout(
            number,
            self.samples,
            tuple(s.problem for s in samples),
            tuple(s.response for s in samples),
            tuple(s.reward for s in samples),
            trajectories,
            log_probs,
            column("policy entropy"),
        )


@dataclass(frozen=True)
class _Sample:
    problem: Problem
    prompt: tuple[int, ...]
    response: Response
    reward: Reward
    measured: dict[str, list[float]]
    """Values of the response's tokens."""
