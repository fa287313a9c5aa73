"""Accuracy of a policy on held-out problems."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from lmlab.alignment.accuracy import is_right, wilson_interval
from lmlab.alignment.collecting import Judge
from lmlab.alignment.problems.problem import Problem
from lmlab.alignment.rewards import Reward
from lmlab.alignment.rollouts import Decoding, Request, generate_responses, response_seed
from lmlab.model import Transformer
from lmlab.tokenizer import Tokenizer
from lmlab.training.distributed import DistributedContext

Scored = list[tuple[int, list[Reward]]]
"""Place of a problem, and the rewards of the responses to it."""
EVALUATION = -1
"""Stands for the number of the rollout in the seeds of sampled responses: the same each time."""


def evaluate_policy(
    policy: Transformer,
    tokenizer: Tokenizer,
    problems: Sequence[Problem],
    judge: Judge,
    decoding: Decoding,
    *,
    samples: int,
    seed: int,
    distributed: DistributedContext,
    should_stop: Callable[[], bool],
) -> dict[str, float] | None:
    """Return greedy accuracy, and with `samples` also sampled accuracy and pass@k, each with its
    95 % interval by Wilson over the problems; that of sampled accuracy is wider than it need be.

    The processes share the problems. None, in all of them, once `should_stop` is true in one. All
    processes must call it.
    """
    mine = list(enumerate(problems))[distributed.data_rank :: distributed.data_size]

    def scored(number: int, temperature: float) -> Scored | None:
        decode = replace(decoding, temperature=temperature)
        requests, asked = [], []
        for place, problem in mine:
            ids = tuple(tokenizer.encode(problem.prompt))
            for sample in range(number):
                own = response_seed(seed, EVALUATION, place, sample)
                requests.append(Request(ids, own))
                asked.append(problem)
        responses = generate_responses(policy, tokenizer, requests, decode, should_stop)
        if distributed.maximum(responses is None) or responses is None:
            return None
        rewards = judge(asked, [response.text for response in responses])
        groups = [rewards[i : i + number] for i in range(0, len(rewards), number)]
        own_part = [(place, group) for (place, _), group in zip(mine, groups, strict=True)]
        return sorted(
            (group for part in distributed.gather(own_part) for group in part),
            key=lambda group: group[0],
        )

    greedy = scored(1, 0.0)
    if greedy is None:
        return None
    metrics = _share("val/accuracy", [float(is_right(group[0])) for _, group in greedy])
    metrics |= {
        "val/format": _mean([group[0].format for _, group in greedy]),
        "val/reward": _mean([group[0].total for _, group in greedy]),
    }
    if samples:
        sampled = scored(samples, 1.0)
        if sampled is None:
            return None
        answers = [[float(is_right(reward)) for reward in group] for _, group in sampled]
        metrics |= _share("val/sampled_accuracy", [_mean(group) for group in answers])
        metrics |= _share(f"val/pass_at_{samples}", [max(group) for group in answers])
    return metrics


def _share(name: str, shares: Sequence[float]) -> dict[str, float]:
    """Return the mean share of the problems, and its interval."""
    low, high = wilson_interval(math.fsum(shares), len(shares))
    return {name: _mean(shares), f"{name}_low": low, f"{name}_high": high}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
