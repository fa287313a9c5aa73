"""What a run prints: one line before it starts, a few when it has finished."""

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


def summarise(result: dict[str, Any], lines: list[str], report: Path, plot: Path) -> str:
    """Return the end of a run: the task's own lines, speed, and where to look."""
    return "\n".join(
        [
            "",
            f"{result['status']} after {result['steps']:,} steps, {result['seconds']:.0f} s",
            *lines,
            f"  speed             {result['tokens_per_second']:,.0f} tokens/s",
            f"  report            {_short(report)}",
            f"  loss curve        {_short(plot)}",
        ]
    )


def last_sample(directory: Path) -> list[str]:
    """Return the newest text of samples.txt in lines; none when there is none."""
    samples = directory / "samples.txt"
    if not samples.exists():
        return []
    last = samples.read_text(encoding="utf-8").rpartition("=== step ")[2]
    text = last.partition("\n")[2].strip("\n")
    return ["  sample", *(f"    | {line}" for line in text.splitlines())]


def _short(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
