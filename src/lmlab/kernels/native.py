"""The native core of the kernels: the only module that imports `_core`. It may be missing."""

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode
from torch.utils.dlpack import to_dlpack  # type: ignore[attr-defined]

from lmlab.kernels.parts import empty_parts_like

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

Rotation = Float[Tensor, "rows time half 2"]
"""Cosine and sine that pairs of queries' and keys' numbers are rotated by; `rows` is batch or 1.
With `Sharing`, of the tokens in place of the times."""


def computes(*args: Tensor) -> bool:
    """Return whether the core can be called with the tensors: they are data here, of no subclass,
    and no mode counts or traces operators.
    """
    return (
        bool(INSTRUCTIONS)
        and _get_current_dispatch_mode() is None
        and all(x.is_cpu and type(x) in (Tensor, nn.Parameter) for x in args)
    )


def _call(kernel: Any, instructions: str | None, *args: object) -> None:
    """Call a kernel of the core. Tensors become capsules: the core would make the same of them, in
    ten times the time."""
    capsules = (to_dlpack(x) if isinstance(x, Tensor) else x for x in args)
    kernel(instructions or INSTRUCTIONS[0], *capsules, torch.get_num_threads())


def _in_rows(x: Heads) -> Heads:
    return x if x.stride(-1) == 1 else x.contiguous()


def empty_like(x: Heads) -> Heads:
    """Return an empty tensor that lies in memory as (batch, time, heads, d_k), as a model's do."""
    batch, heads, time, width = x.shape
    return x.new_empty(batch, time, heads, width).transpose(1, 2)


def _parts_like(*heads: Heads) -> list[Heads]:
    """Return empty tensors that lie in memory as (batch, time, heads, d_k), parts of one where
    `heads` are."""
    parts = empty_parts_like(*(x.transpose(1, 2).flatten(-2) for x in heads))
    return [
        part.unflatten(-1, (-1, x.shape[-1])).transpose(1, 2)
        for part, x in zip(parts, heads, strict=True)
    ]


def attention(
    q: Heads,
    k: Heads,
    v: Heads,
    window: int | None,
    sharing: Sharing | None = None,
    rotation: Rotation | None = None,
    instructions: str | None = None,
) -> tuple[Heads, Float[Tensor, "batch heads time"]]:
    """Return causal attention and the log of each query's sum of exponentials.

    A query sees `window` keys, itself included; None: all up to itself. Key heads may be fewer than
    query heads. With a rotation queries and keys are rotated first. The dtype is one of DTYPES; all
    that is computed in between is float32. A result does not depend on the number of threads.
    `instructions` is one of INSTRUCTIONS; None: the fastest.

    With `sharing`, q, k, v and the output are those of the tokens (1, heads, tokens, d_k), each in
    a row; a place that an earlier row has too gets no normaliser. Tokens in no row get 0.
    """
    q, k, v = (_in_rows(x) for x in (q, k, v))
    rows, time = rows_of(q, sharing)
    # Tokens in no row stay 0.
    out = empty_like(q) if sharing is None else empty_like(q).zero_()
    normalisers = torch.empty(rows, q.shape[1], time)
    rotation = None if rotation is None else rotation.float().contiguous()
    args = (q, k, v, window or time, sharing, rotation, out, normalisers)
    _call(_core.attention, instructions, *args)
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
    rotation: Rotation | None = None,
    instructions: str | None = None,
    *,
    as_parts: bool = False,
) -> tuple[Heads, Heads, Heads]:
    """Return the gradients of q, k and v, given that of `out`; the others are as in `attention`.

    `as_parts`: where q, k and v are parts of one tensor (batch, time, d), so are their gradients.
    """
    dq, dk, dv = _parts_like(q, k, v) if as_parts else map(empty_like, (q, k, v))
    if sharing is not None:  # tokens in no row stay 0
        for each in (dq, dk, dv):
            each.zero_()
    grad, q, k, v, out = (_in_rows(x) for x in (grad, q, k, v, out))
    rotation = None if rotation is None else rotation.float().contiguous()
    places = (window or rows_of(q, sharing)[1], sharing, rotation)
    args = (grad, q, k, v, out, normalisers, *places, dq, dk, dv)
    _call(_core.attention_backward, instructions, *args)
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
    _call(_core.single, instructions, q, k, v, allowed, cap or 0.0, out)
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
    logits, targets = logits.contiguous(), targets.contiguous()
    terms = torch.empty(len(logits), 3)
    grads = torch.empty_like(logits) if gradient else None
    _call(_core.losses, instructions, logits, targets, z_loss, label_smoothing, grads, terms)
    return terms, grads


def gate(
    gate: Float[Tensor, "*batch d_ff"],
    value: Float[Tensor, "*batch d_ff"],
    instructions: str | None = None,
) -> Float[Tensor, "*batch d_ff"]:
    """Return `silu(gate) * value` (Shazeer 2020), in float32 inside.

    Both have one dtype of DTYPES. Each number is computed by itself.
    """
    out = torch.empty(gate.shape, dtype=gate.dtype)
    _call(_core.gate, instructions, *map(_matrix, (gate, value, out)))
    return out


def gate_backward(
    grad: Float[Tensor, "*batch d_ff"],
    gate: Float[Tensor, "*batch d_ff"],
    value: Float[Tensor, "*batch d_ff"],
    instructions: str | None = None,
) -> tuple[Float[Tensor, "*batch d_ff"], Float[Tensor, "*batch d_ff"]]:
    """Return the gradients of `gate` and `value`: parts of one tensor where those are."""
    grads = empty_parts_like(gate, value)
    _call(_core.gate_backward, instructions, *map(_matrix, (grad, gate, value, *grads)))
    return grads[0], grads[1]


def norm(
    x: Float[Tensor, "*batch d"],
    gain: Float[Tensor, "d"],
    eps: float,
    instructions: str | None = None,
) -> tuple[Float[Tensor, "*batch d"], Float[Tensor, "rows"]]:
    """Return `x / sqrt(mean(x^2) + eps) * gain` (Zhang and Sennrich 2019), in float32 inside, and
    the factor of each row. `x` has one dtype of DTYPES, `gain` is float32.
    """
    x = x.contiguous()
    out, inverse = torch.empty_like(x), torch.empty(x.shape[:-1].numel())
    _call(_core.norm, instructions, x, gain.contiguous(), eps, out, inverse)
    return out, inverse


def norm_backward(
    grad: Float[Tensor, "*batch d"],
    x: Float[Tensor, "*batch d"],
    gain: Float[Tensor, "d"],
    inverse: Float[Tensor, "rows"],
    instructions: str | None = None,
) -> tuple[Float[Tensor, "*batch d"], Float[Tensor, "d"]]:
    """Return the gradients of `x` and `gain`; `inverse` is what `norm` returned."""
    grad, x = grad.contiguous(), x.contiguous()
    x_grad = torch.empty_like(x)
    sums = torch.empty(-(-len(inverse) // _core.NORM_ROWS), len(gain))
    args = (grad, x, gain.contiguous(), inverse, x_grad, sums)
    _call(_core.norm_backward, instructions, *args)
    return x_grad, sums.sum(dim=0)


def _matrix(x: Tensor) -> Float[Tensor, "*batch d"]:
    """Return `x`, with its rows in a matrix if they do not follow one another."""
    if x.is_contiguous():
        return x
    x = x.reshape(-1, x.shape[-1])
    return x if x.stride(-1) == 1 else x.contiguous()
