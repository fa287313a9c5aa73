"""Encoding with many special tokens, beside `tokenizers`: megabytes a second of each, interleaved.

    python benchmarks/special_tokens.py [--megabytes 2] [--rounds 3]

The text is HTML-like, so that most special tokens begin where a tag does.
"""

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tokenizers

from lmlab.tokenizer import Tokenizer, train_bpe

COUNTS = (0, 1, 256, 1_000, 20_000)


def html(size: int) -> str:
    """Words in tags."""
    dice = random.Random(0)
    words = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog"]
    tags = ["p", "div", "span", "a", "b", "li", "|x|"]
    parts: list[str] = []
    length = 0
    while length < size:
        tag = dice.choice(tags)
        parts.append(f"<{tag}>{' '.join(dice.choices(words, k=6))}</{tag}>\n")
        length += len(parts[-1])
    return "".join(parts)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    text = html(int(options.megabytes * 1e6))
    vocab, merges = train_bpe(iter([text]), 500)
    print("special tokens, lmlab MB/s, tokenizers MB/s, ratio")
    for count in COUNTS:
        names = [f"<|reserved_special_token_{i}|>" for i in range(count)]
        ours = Tokenizer(vocab, merges, names)
        with tempfile.TemporaryDirectory() as folder:
            ours.to_huggingface(Path(folder, "a.json"))
            theirs = tokenizers.Tokenizer.from_file(str(Path(folder, "a.json")))
        seconds: list[list[float]] = [[], []]
        for _ in range(options.rounds):
            encoders: tuple[Callable[[str], Any], ...] = (ours.encode_array, theirs.encode)
            for times, encode in zip(seconds, encoders, strict=True):
                start = time.perf_counter()
                encode(text)
                times.append(time.perf_counter() - start)
        mine, other = (options.megabytes / statistics.median(times) for times in seconds)
        print(f"{count:,}, {mine:.1f}, {other:.2f}, {mine / other:.1f}")


if __name__ == "__main__":
    main()
