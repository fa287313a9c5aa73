"""Problems made by rule: they are the same on every machine."""

import json
import random
from collections.abc import Callable, Iterator

from lmlab.alignment.problems.config import AdditionConfig, CountdownConfig, ReasoningGymConfig
from lmlab.alignment.problems.problem import Problem
from lmlab.errors import UserError

OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
}


def addition(config: AdditionConfig) -> Iterator[Problem]:
    """Yield every sum of two integers of `digits` digits; `a+b` and `b+a` are one group."""
    first = 0 if config.digits == 1 else 10 ** (config.digits - 1)
    last = 10**config.digits
    for a in range(first, last):
        for b in range(first, last):
            group = f"{min(a, b)}+{max(a, b)}"
            yield Problem(f"{a}+{b}=", str(a + b), f"{a + b}\n", group)


def countdown(config: CountdownConfig) -> Iterator[Problem]:
    """Yield problems that have a solution: a random expression's numbers, shuffled, and its value.

    The target is positive. The truth is JSON with `numbers` and `target`. Problems with the same
    numbers in another order, and the same target, are one group.
    """
    for number in range(config.count):
        rng = random.Random(f"countdown/{number}")
        numbers = [rng.randint(1, config.largest) for _ in range(config.numbers)]
        value = 0
        while value <= 0:
            expression, value = _expression(rng.sample(numbers, len(numbers)), rng)
        shown = " ".join(str(n) for n in numbers)
        truth = json.dumps({"numbers": numbers, "target": value})
        group = f"{sorted(numbers)} > {value}"
        yield Problem(f"{shown} > {value}:", truth, f"{expression}\n", group)


def _expression(numbers: list[int], rng: random.Random) -> tuple[str, int]:
    """Return a random expression that uses all numbers, and its value."""
    parts = [(str(number), number) for number in numbers]
    while len(parts) > 1:
        (left, a), (right, b) = parts.pop(), parts.pop()
        operation = rng.choice(list(OPERATIONS))
        text, value = f"{left}{operation}{right}", OPERATIONS[operation](a, b)
        parts.insert(rng.randint(0, len(parts)), (f"({text})" if parts else text, value))
    return parts[0]


def reasoning_gym(config: ReasoningGymConfig) -> Iterator[Problem]:
    """Yield problems of reasoning-gym; the truth is the entry as JSON, which its scorer needs."""
    try:
        import reasoning_gym as gym
    except ImportError as error:
        raise UserError(
            "task.problems.kind=reasoning_gym needs the package reasoning-gym: "
            "pip install 'lmlab[alignment]'"
        ) from error
    if config.name not in gym.factory.DATASETS:
        raise UserError(f"task.problems.name: reasoning-gym has no task '{config.name}'")
    for entry in gym.create_dataset(config.name, size=config.count, seed=0):
        answer = entry["answer"]  # None where a task has many right ones and gives none
        truth, solution = json.dumps(entry, default=str), "" if answer is None else str(answer)
        yield Problem(f"{entry['question']}\n", truth, solution)
