"""What a run prints: one line before it starts, a few when it has finished."""

import os
import re
import textwrap
from pathlib import Path
from typing import Any

import torch


def describe(
    parameters: int,
    vocab_size: int,
    steps: int,
    tokens: int | None,
    flops: float | None,
    exact: bool,
    device: torch.device,
    precision: str,
) -> str:
    """Return the resolved choices that matter, in one line; None for what is not yet known.

    FLOPs that are not `exact` are an upper bound.
    """
    length = f"{steps:,} steps"
    if tokens is not None:
        length += f", {tokens:,} tokens"
    if flops is not None:
        length += f", {'' if exact else 'at most '}{flops:.3g} FLOPs"
    return f"{parameters:,} parameters, vocabulary {vocab_size:,}; {length}; {device}, {precision}"


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


def first_and_last_sample(directory: Path) -> list[str]:
    """Return the oldest text of samples.txt, shortened, and the newest one, in lines."""
    path = directory / "samples.txt"
    if not path.exists():
        return []
    _, *parts = re.split(r"^=== step (\d+) ===$", path.read_text(encoding="utf-8"), flags=re.M)
    samples = list(zip(parts[::2], parts[1::2], strict=True))
    lines = []
    for step, text in samples[:-1][:1]:
        printable = "".join(c if c.isprintable() else " " for c in text)
        shortened = textwrap.shorten(printable, 240, placeholder=" ...")
        lines += [f"  sample at step {step}", *_quoted(textwrap.wrap(shortened, 80))]
    for step, text in samples[-1:]:
        lines += [f"  sample at step {step}", *_quoted(text.strip("\n").splitlines())]
    return lines


def _quoted(lines: list[str]) -> list[str]:
    return [f"    | {line}" for line in lines]


def _short(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
