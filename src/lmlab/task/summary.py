"""What a run says about itself: one line before it starts, a few when it has ended."""

import os
from pathlib import Path
from typing import Any

import torch


def describe(
    parameters: int,
    vocab_size: int,
    steps: int,
    tokens: int,
    flops_per_token: float,
    device: torch.device,
    precision: str,
) -> str:
    """Return the resolved choices that matter, in one line."""
    return (
        f"{parameters:,} parameters, vocabulary {vocab_size:,}; "
        f"{steps:,} steps, {tokens:,} tokens, "
        f"{tokens * flops_per_token:.3g} FLOPs; {device}, {precision}"
    )


def summarise(result: dict[str, Any], directory: Path, report: Path, plot: Path) -> str:
    """Return the end of a run: how good, how fast, what it writes, where to look."""
    lines = ["", f"{result['status']} after {result['steps']:,} steps, {result['seconds']:.0f} s"]
    lines.append(f"  validation loss   {result['val_loss']:.4f} nats per token")
    bits, xz = result["val_bits_per_byte"], result["xz_bits_per_byte"]
    lines.append(f"  bits per byte     {bits:.3f} (xz needs {xz:.3f} for the same files)")
    lines.append(f"  speed             {result['tokens_per_second']:,.0f} tokens/s")
    samples = directory / "samples.txt"
    if samples.exists():
        last = samples.read_text(encoding="utf-8").rpartition("=== step ")[2]
        text = last.partition("\n")[2].strip("\n")
        lines += ["  sample", *(f"    | {line}" for line in text.splitlines())]
    lines += [f"  report            {_short(report)}", f"  loss curve        {_short(plot)}"]
    return "\n".join(lines)


def _short(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
