"""An account as text: one line or in full."""

from lmlab.accounting.account import Account
from lmlab.text import duration

TITLES = {
    "projections": "Q, K, V, output",
    "scores": "scores",
    "ffn": "feed-forward",
    "head": "output head",
}
STEP_FLOPS = {"adamw": 14}
"""FLOPs of one optimizer step per parameter; roots and divisions count as one."""


def short(account: Account) -> str:
    """Return FLOPs, memory and cache in one line."""
    return (
        f"forward {account.flops:.4g} FLOPs a sequence ({_shares(account)}); "
        f"memory {amount(account.fixed_bytes)} + {amount(account.activation_bytes)} a sequence; "
        f"cache {amount(account.cache_bytes_per_token)} a token"
    )


def full(
    account: Account, optimizer: str, tokens: float, memory: float, peak: float, mfu: float
) -> str:
    """Return the tree, FLOPs by part, memory, the largest batch in `memory` bytes, and the time."""
    a = account
    seconds = a.training_seconds(tokens, peak, mfu)
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
            "",
            f"training on {tokens:.4g} tokens: {tokens * a.flops_per_token:.4g} FLOPs, "
            f"{duration(seconds)} at {100 * mfu:g} % of {peak:.4g} FLOP/s",
        ]
    )


def _shares(account: Account) -> str:
    return ", ".join(
        f"{TITLES[part]} {100 * n / account.flops:.1f} %"
        for part, n in account.forward_flops.items()
    )


def amount(size: float) -> str:
    """Return a number of bytes with its unit, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(size) < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.2f} {unit}"
