"""Communication accounting of a model too large for a device, worked through."""

import math
from dataclasses import dataclass

from lmlab.accounting.text import amount
from lmlab.planning.links import best_buckets, bucket_overhead, compute_bound_tokens
from lmlab.text import aligned_table

BYTES_EACH = 16
"""Float32 weight, gradient and two moments of AdamW."""
TPU_FLOPS, TPU_LINKS, TPU_AXES = 4.6e14, 1.8e11, 2
"""FLOP/s of a TPU v5p in bfloat16, bytes a second of an axis of links in both directions, and
axes for FSDP."""


@dataclass(frozen=True)
class FeedForwards:
    """A model of feed-forward blocks alone, each of two linear layers."""

    d_model: int
    d_ff: int
    num_blocks: int

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return 2 * self.d_model * self.d_ff * self.num_blocks

    @property
    def bytes(self) -> int:
        """Bytes of weights, gradients and AdamW's state in float32."""
        return self.parameters * BYTES_EACH

    def devices(self, memory: float) -> int:
        """Return how many devices hold it, when all is divided evenly."""
        return math.ceil(self.bytes / memory)


XXL = FeedForwards(d_model=16384, d_ff=53248, num_blocks=126)


def communication() -> list[str]:
    """Return the accounting of XXL, and the overhead of buckets for its smaller siblings."""
    tokens = compute_bound_tokens(TPU_FLOPS, TPU_LINKS, XXL.d_ff, TPU_AXES)
    size, bandwidth, start = 4 * 2_000_000_000, 2e10, 1e-4
    best = best_buckets(size, bandwidth, start)
    rows = [("buckets", "MB each", "overhead ms", "")]
    for buckets in (1, 4, 16, round(best), 256, 1024):
        seconds = bucket_overhead(size, bandwidth, start, buckets)
        mark = "<- best, sqrt(s / (w o))" if buckets == round(best) else ""
        rows.append((f"{buckets}", f"{size / buckets / 1e6:,.0f}", f"{seconds * 1e3:,.1f}", mark))
    return [
        f"XXL: {XXL.num_blocks} blocks of two linear layers, {XXL.d_model:,} x {XXL.d_ff:,}",
        f"  {XXL.parameters:,} parameters; {BYTES_EACH} bytes each are {amount(XXL.bytes)}, "
        f"{XXL.devices(80e9)} devices of 80 GB",
        f"  FSDP and tensor parallelism on TPU v5p ({TPU_FLOPS:.2g} FLOP/s, {TPU_LINKS:.2g} "
        f"bytes/s) are bound by compute above {tokens:.0f} tokens a device",
        "",
        f"overhead of {size / 1e9:.0f} GB of gradients at {bandwidth / 1e9:.0f} GB/s, "
        f"{start * 1e3:g} ms a call",
        *aligned_table(rows),
    ]
