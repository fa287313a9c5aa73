"""The native core of the kernels: the only module that imports `_core`. It may be missing."""

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from lmlab.processor import computed_here

if TYPE_CHECKING:
    _core: Any
else:
    try:
        from lmlab.kernels import _core

        _core.instruction_sets  # noqa: B018  # where it is not built, `_core` is its source folder
    except (ImportError, AttributeError):  # a computer with a GPU trains without it
        _core = None

INSTRUCTIONS: tuple[str, ...] = () if _core is None else tuple(_core.instruction_sets())
"""Sets of instructions that the core can use on this processor, the fastest first."""
DTYPES = (torch.float32, torch.bfloat16)

Heads = Float[Tensor, "batch heads time d_k"]
Sharing = Int[Tensor, "batch 2+time"]
"""Rows of tokens that share beginnings: of each row the first place whose token no earlier row has,
the number of tokens without padding, and which token stands in each place."""


def computes(*args: Tensor) -> bool:
    """Return whether the core can be called with the tensors: they are data here, and no mode
    counts or traces operators.
    """
    return (
        bool(INSTRUCTIONS)
        and _get_current_dispatch_mode() is None
        and all(computed_here(x) for x in args)
    )


def _in_rows(x: Heads) -> Heads:
    x = x.detach()
    return x if x.stride(-1) == 1 else x.contiguous()


def empty_like(x: Heads) -> Heads:
    """Return an empty tensor that lies in memory as (batch, time, heads, d_k), as a model's do."""
    batch, heads, time, width = x.shape
    return x.new_empty(batch, time, heads, width).transpose(1, 2)


def _result_like(x: Heads, sharing: Sharing | None) -> Heads:
    """Return a tensor to be written; tokens in no row stay 0."""
    return empty_like(x) if sharing is None else empty_like(x).zero_()


def attention(
    q: Heads,
    k: Heads,
    v: Heads,
    window: int | None,
    sharing: Sharing | None = None,
    instructions: str | None = None,
) -> tuple[Heads, Float[Tensor, "batch heads time"]]:
    """Return causal attention and the log of each query's sum of exponentials.

    A query sees `window` keys, itself included; None: all up to itself. Key heads may be fewer than
    query heads. The dtype is one of DTYPES, all sums are float32. A result does not depend on the
    number of threads. `instructions` is one of INSTRUCTIONS; None: the fastest.

    With `sharing`, q, k, v and the output are those of the tokens (1, heads, tokens, d_k), each in
    a row; a place that an earlier row has too gets no normaliser. Tokens in no row get 0.
    """
    q, k, v = (_in_rows(x) for x in (q, k, v))
    rows, time = rows_of(q, sharing)
    out, normalisers = _result_like(q, sharing), torch.empty(rows, q.shape[1], time)
    _core.attention(
        instructions or INSTRUCTIONS[0],
        *(q, k, v),
        window or time,
        sharing,
        *(out, normalisers),
        torch.get_num_threads(),
    )
    return out, normalisers


def attention_backward(
    grad: Heads,
    q: Heads,
    k: Heads,
    v: Heads,
    out: Heads,
    normalisers: Float[Tensor, "batch heads time"],
    window: int | None,
    sharing: Sharing | None = None,
    instructions: str | None = None,
) -> tuple[Heads, Heads, Heads]:
    """Return the gradients of q, k and v, given that of `out`; the others are as in `attention`."""
    grad, q, k, v, out = (_in_rows(x) for x in (grad, q, k, v, out))
    dq, dk, dv = (_result_like(x, sharing) for x in (q, k, v))
    _core.attention_backward(
        instructions or INSTRUCTIONS[0],
        *(grad, q, k, v, out, normalisers),
        window or rows_of(q, sharing)[1],
        sharing,
        *(dq, dk, dv),
        torch.get_num_threads(),
    )
    return dq, dk, dv


def rows_of(q: Heads, sharing: Sharing | None) -> tuple[int, int]:
    """Return the number of rows and their length."""
    if sharing is None:
        return len(q), q.shape[2]
    return len(sharing), sharing.shape[1] - 2


def single_attention(
    q: Float[Tensor, "batch heads 1 d_k"],
    k: Float[Tensor, "batch kv_heads keys d_k"],
    v: Float[Tensor, "batch kv_heads keys d_k"],
    allowed: Bool[Tensor, "rows keys"] | None,
    cap: float | None = None,
    instructions: str | None = None,
) -> Float[Tensor, "batch heads 1 d_k"]:
    """Return attention of one query a row to the keys where `allowed` (batch or 1, keys) is True.

    None: to all keys. A query without a key returns 0. Scores are soft-capped by `cap`. dtypes and
    sums as in `attention`. A row's result depends neither on other rows nor on how many keys it
    does not see follow.
    """
    q, k, v = (_in_rows(x) for x in (q, k, v))
    out = empty_like(q)
    threads = torch.get_num_threads()
    _core.single(instructions or INSTRUCTIONS[0], q, k, v, allowed, cap or 0.0, out, threads)
    return out


def token_losses(
    logits: Float[Tensor, "rows vocab"],
    targets: Int[Tensor, "rows"],
    z_loss: float,
    label_smoothing: float,
    *,
    gradient: bool,
    instructions: str | None = None,
) -> tuple[Float[Tensor, "rows 3"], Float[Tensor, "rows vocab"] | None]:
    """Return the cross-entropy, z-loss and label smoothing of each row, in float32, and the
    gradient of the sum of them all in the logits' dtype, one of DTYPES, if it is wanted.

    Raises IndexError for a target that is no column. A row's result depends on no other row.
    """
    logits = logits.detach().contiguous()
    terms = torch.empty(len(logits), 3)
    grads = torch.empty_like(logits) if gradient else None
    _core.losses(
        instructions or INSTRUCTIONS[0],
        logits,
        targets.contiguous(),
        z_loss,
        label_smoothing,
        grads,
        terms,
        torch.get_num_threads(),
    )
    return terms, grads
