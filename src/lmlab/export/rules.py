"""Rules that rename and reshape weights, in both directions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from lmlab.errors import UserError

Get = Callable[[str], Tensor]


@dataclass(frozen=True)
class Step:
    """A change of one tensor and its inverse."""

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor], Tensor]


def halves(heads: int) -> Step:
    """Reorder rows: here pairs (2j, 2j + 1) are rotated, there (j, j + half)."""
    return Step(
        lambda x: rearrange(x, "(h half two) ... -> (h two half) ...", h=heads, two=2),
        lambda x: rearrange(x, "(h two half) ... -> (h half two) ...", h=heads, two=2),
    )


def offset(value: float) -> Step:
    """Store a gain without `value`, which the architecture adds."""
    return Step(lambda x: x - value, lambda x: x + value)


def factor(value: float) -> Step:
    """Multiply by `value`."""
    return Step(lambda x: x * value, lambda x: x / value)


def padded(rows: int) -> Step:
    """Put rows of zeros before the first one."""
    return Step(lambda x: torch.cat((x.new_zeros(rows, *x.shape[1:]), x)), lambda x: x[rows:])


TRANSPOSED = Step(lambda x: x.mT, lambda x: x.mT)


@dataclass(frozen=True)
class Rule:
    """Tensors of a model that become tensors of a file, and back."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    steps: tuple[Step, ...] = ()
    """Applied one after the other to what is not split or joined."""
    sizes: tuple[int, ...] = ()
    """Several of ours are joined along `dim`; these are their sizes there."""
    dim: int = 0
    keep: bool = True
    """Whether the file's tensors become the model's; False: they are copies of others."""

    def export(self, get: Get) -> dict[str, Tensor]:
        """Return the file's tensors from the model's."""
        given = [get(name) for name in self.ours]
        if len(self.theirs) > 1:
            return dict(zip(self.theirs, given[0].unbind(), strict=True))
        x = torch.cat(given, dim=self.dim) if len(given) > 1 else given[0]
        for step in self.steps:
            x = step.forward(x)
        return {self.theirs[0]: x}

    def restore(self, get: Get) -> dict[str, Tensor]:
        """Return the model's tensors from the file's."""
        if not self.keep:
            return {}
        if len(self.theirs) > 1:
            return {self.ours[0]: torch.stack([get(name) for name in self.theirs])}
        x = get(self.theirs[0])
        for step in reversed(self.steps):
            x = step.backward(x)
        parts = x.split(self.sizes, dim=self.dim) if len(self.ours) > 1 else [x]
        return dict(zip(self.ours, parts, strict=True))


@dataclass(frozen=True)
class Constant:
    """A tensor of the file that the model has no parameter for."""

    theirs: tuple[str]
    value: Callable[[], Tensor]

    def export(self, get: Get) -> dict[str, Tensor]:
        """Return the constant."""
        return {self.theirs[0]: self.value()}

    def restore(self, get: Get) -> dict[str, Tensor]:
        """Return nothing; raises UserError when the file has other values."""
        name = self.theirs[0]
        if not torch.equal(get(name), self.value()):
            raise UserError(f"{name} has values that the model has no parameter for")
        return {}


Rules = Sequence[Rule | Constant]


def exported_shapes(rules: Rules, shapes: Mapping[str, torch.Size]) -> dict[str, torch.Size]:
    """Return the shapes of the file's tensors from those of the model's."""

    def get(name: str) -> Tensor:
        return torch.empty(shapes[name], device="meta")

    return {name: x.shape for rule in rules for name, x in rule.export(get).items()}
