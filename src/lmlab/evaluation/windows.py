"""Sliding windows over a document: each token is predicted once, with as much text as fits."""

from collections.abc import Iterator
from dataclasses import dataclass

from lmlab.errors import UserError


@dataclass(frozen=True)
class Window:
    """Inputs `begin` to `end` of a document; the last `scored` of their targets are counted."""

    begin: int
    end: int
    scored: int


def sliding_windows(length: int, context_length: int, stride: int) -> Iterator[Window]:
    """Yield windows in which each of `length` targets is counted once.

    Input 0 is the token before the document, and the target of input i is token i of the document.
    The first window counts all of its targets, each later one the next `stride`, which have at
    least `context_length - stride` tokens before them. The last window is moved to the left until
    it is full. A stride of `context_length` gives windows without overlap.
    """
    end = 0
    while end < length:
        before = end
        end = min(before + (stride if before else context_length), length)
        yield Window(max(0, end - context_length), end, end - before)


def check_stride(
    stride: int | None, context_length: int | None, longest: int, name: str
) -> tuple[int, int]:
    """Return the stride and the context length for a model with a context of `longest` tokens.

    None for `context_length` is `longest`; None for `stride` is half of the context length. `name`
    is that of the model, for the UserError that a value out of range raises.
    """
    context = longest if context_length is None else context_length
    if not 1 <= context <= longest:
        raise UserError(
            f"the context length must be from 1 to {longest:,}, the context of {name}, "
            f"got {context:,}"
        )
    step = max(1, context // 2) if stride is None else stride
    if not 1 <= step <= context:
        raise UserError(
            f"the stride must be from 1 to the context length, {context:,} tokens for {name}, "
            f"got {step:,}"
        )
    return step, context
