"""Costs as text: one line or in full."""

from lmlab.accounting.costs import Costs
from lmlab.text import duration

TITLES = {
    "projections": "Q, K, V, output",
    "scores": "scores",
    "ffn": "feed-forward",
    "head": "output head",
}
STEP_FLOPS = {"adamw": 14}
"""FLOPs of one optimizer step per parameter; roots and divisions count as one."""


def short(costs: Costs) -> str:
    """Return FLOPs, memory and cache in one line."""
    return (
        f"forward {costs.flops:.4g} FLOPs a sequence ({_shares(costs)}); "
        f"memory {amount(costs.fixed_bytes)} + {amount(costs.activation_bytes)} a sequence; "
        f"cache {amount(costs.cache_bytes_per_token)} a token"
    )


def full(
    costs: Costs,
    optimizer: str,
    tokens: float | None,
    memory: float,
    peak: float,
    mfu: float,
    *,
    exact: bool = True,
) -> str:
    """Return the tree, FLOPs by part, memory, the largest batch in `memory` bytes, and the time.

    The time is that of training on `tokens`, left out for None; not `exact`: at most, because not
    all tokens are learnt.
    """
    a = costs
    batch = a.largest_batch(memory)
    step = ""
    if optimizer in STEP_FLOPS:
        each = STEP_FLOPS[optimizer]
        step = f"; an optimizer step about {each} a parameter, {each * a.parameters:.3g}"
    flops = [
        f"  {TITLES[part]:<18} {n:>12.4e}  {100 * n / a.flops:5.1f} %"
        for part, n in a.forward_flops.items()
    ]
    return "\n".join(
        [
            a.tree,
            "",
            f"vocabulary {a.vocab_size:,}, context {a.context_length:,} tokens",
            "",
            "forward FLOPs of one sequence",
            *flops,
            f"  {'total':<18} {a.flops:>12.4e}",
            f"training: 3 x forward, {a.flops_per_token:.4e} FLOPs a token" + step,
            "",
            "memory in training (weights, gradients and optimizer in float32)",
            f"  {'weights':<18} {amount(a.weight_bytes):>12}",
            f"  {'gradients':<18} {amount(a.gradient_bytes):>12}",
            f"  {'optimizer':<18} {amount(a.optimizer_bytes):>12}",
            f"  {'together':<18} {amount(a.fixed_bytes):>12}  "
            f"{a.fixed_bytes / a.parameters:.0f} bytes a parameter",
            f"  {'activations':<18} {amount(a.activation_bytes):>12}  for each sequence",
            f"  largest batch in {amount(memory)}: " + (f"{batch}" if batch else "none fits"),
            "",
            f"cache in generation, in float32: {a.cache_bytes_per_token:,.0f} bytes a token, "
            f"{amount(a.cache_bytes)} for {a.context_length:,} tokens",
            *([] if tokens is None else ["", _training(costs, tokens, peak, mfu, exact)]),
        ]
    )


def _training(costs: Costs, tokens: float, peak: float, mfu: float, exact: bool) -> str:
    seconds = costs.training_seconds(tokens, peak, mfu)
    return (
        f"training on {tokens:.4g} tokens: {'' if exact else 'at most '}"
        f"{tokens * costs.flops_per_token:.4g} FLOPs, "
        f"{duration(seconds)} at {100 * mfu:g} % of {peak:.4g} FLOP/s"
    )


def _shares(costs: Costs) -> str:
    return ", ".join(
        f"{TITLES[part]} {100 * n / costs.flops:.1f} %" for part, n in costs.forward_flops.items()
    )


def amount(size: float) -> str:
    """Return a number of bytes with its unit, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(size) < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.2f} {unit}"
