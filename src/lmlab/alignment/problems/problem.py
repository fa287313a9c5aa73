"""Problems that a policy is trained on, and their division into training and held-out ones."""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

from lmlab.errors import DataError


@dataclass(frozen=True)
class Problem:
    """A prompt, and what the reward needs to judge a response to it."""

    prompt: str
    truth: str
    """What the reward compares a response with."""
    solution: str = ""
    """A right response, for supervised training; empty where none is known."""
    group: str = ""
    """Problems of one group are all held out or none; empty: the prompt."""


@dataclass(frozen=True)
class Problems:
    """Training and held-out problems, none of which is in both."""

    train: tuple[Problem, ...]
    held_out: tuple[Problem, ...]

    def record(self) -> dict[str, object]:
        """Return counts and hashes, as JSON."""
        return {
            "train_problems": len(self.train),
            "held_out_problems": len(self.held_out),
            "train_hash": _digest(self.train),
            "held_out_hash": _digest(self.held_out),
        }


def divided(problems: Iterable[Problem], fraction: float) -> Problems:
    """Return the problems, a share of them held out by a hash of the group; duplicates left out.

    Which ones are held out depends neither on the order nor on the number of the problems. Raises
    DataError when a part is empty.
    """
    train, held_out = list[Problem](), list[Problem]()
    for problem in {problem.prompt: problem for problem in problems}.values():
        digest = blake2b((problem.group or problem.prompt).encode(), digest_size=8).digest()
        is_held_out = int.from_bytes(digest, "big") < fraction * 2**64
        (held_out if is_held_out else train).append(problem)
    return checked(Problems(tuple(train), tuple(held_out)), "problems")


def subset(problems: tuple[Problem, ...], count: int | None) -> tuple[Problem, ...]:
    """Return at most `count` problems, chosen by a hash of the prompt, in their order; None: all.

    The first ones would be no fair sample: sums, for instance, are sorted by their first summand.
    """
    if count is None:
        return problems
    order = sorted(range(len(problems)), key=lambda i: (hashed("subset", problems[i]), i))
    return tuple(problems[i] for i in sorted(order[:count]))


def hashed(purpose: str, problem: Problem) -> bytes:
    """Return a hash of the prompt, another one for each purpose."""
    return blake2b(f"{purpose} {problem.prompt}".encode(), digest_size=8).digest()


def checked(problems: Problems, source: str) -> Problems:
    """Return the problems; raises DataError when there are none for training or evaluation."""
    for name, part in (("train", problems.train), ("evaluate", problems.held_out)):
        if not part:
            raise DataError(f"{source}: there are no problems to {name} on; give more of them")
    return problems


def _digest(problems: tuple[Problem, ...]) -> str:
    digest = blake2b(digest_size=16)
    for problem in problems:
        digest.update(f"{problem.prompt!r} {problem.truth!r}\n".encode())
    return digest.hexdigest()
