"""Accuracy of a policy, counted by hand."""

from collections.abc import Sequence

import pytest

from alignment.small_policies import TOKENIZER, policy, problems
from lmlab.alignment.accuracy import wilson_interval
from lmlab.alignment.policy_evaluation import EVALUATION, evaluate_policy
from lmlab.alignment.problems.problem import Problem
from lmlab.alignment.rewards import Reward
from lmlab.alignment.rollouts import Decoding, response_seed
from lmlab.generation.generate import generate
from lmlab.generation.options import Options
from lmlab.training.distributed import SINGLE_PROCESS

ASKED = problems(12)


def judge(asked: Sequence[Problem], responses: Sequence[str]) -> list[Reward]:
    """An answer is right when its bytes are even in number: random weights often manage that."""
    return [Reward(1.0, float(len(r.encode()) % 2 == 0), len(r)) for r in responses]


def test_accuracies_are_counted_as_by_hand() -> None:
    model = policy().eval()
    decoding = Decoding(6, ("0", "a", "e"), max_batch=5)
    found = evaluate_policy(
        model,
        TOKENIZER,
        ASKED,
        judge,
        decoding,
        samples=4,
        seed=3,
        distributed=SINGLE_PROCESS,
        should_stop=lambda: False,
    )
    assert found is not None
    right = []
    for place, problem in enumerate(ASKED):
        answers = []
        for temperature, count in ((0.0, 1), (1.0, 4)):
            for sample in range(count):
                options = Options(
                    max_new_tokens=6,
                    temperature=temperature,
                    stop=("0", "a", "e"),
                    seed=response_seed(3, EVALUATION, place, sample),
                )
                (made,) = generate(model, TOKENIZER, [problem.prompt], options)
                answers.append(judge([problem], [made.text])[0].answer)
        right.append(answers)
    greedy = sum(answers[0] for answers in right) / 12
    assert found["val/accuracy"] == greedy
    assert 0 <= found["val/accuracy_low"] < greedy < found["val/accuracy_high"] <= 1
    sampled = sum(sum(answers[1:]) for answers in right) / 48
    assert 0 < sampled < 1
    assert found["val/sampled_accuracy"] == sampled
    for name in ("accuracy", "sampled_accuracy", "pass_at_4"):
        interval = wilson_interval(found[f"val/{name}"] * 12, 12)
        assert (found[f"val/{name}_low"], found[f"val/{name}_high"]) == pytest.approx(interval)
    assert found["val/pass_at_4"] == sum(max(answers[1:]) for answers in right) / 12


def test_a_stop_ends_it() -> None:
    stopped = evaluate_policy(
        policy(),
        TOKENIZER,
        ASKED,
        judge,
        Decoding(6),
        samples=0,
        seed=0,
        distributed=SINGLE_PROCESS,
        should_stop=lambda: True,
    )
    assert stopped is None
