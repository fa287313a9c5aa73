"""The vocabularies that tiktoken publishes: what its files of ranks do not hold."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lmlab.tokenizer.pretokenize import check_special_tokens


@dataclass(frozen=True)
class Published:
    """Pattern and special tokens of a published file of ranks."""

    name: str
    pattern: str
    special_tokens: Mapping[str, int]

    def ids(self, names: Sequence[str], largest_rank: int) -> dict[str, int]:
        """The ids of special tokens: the published ones, and for new ones the ids after all."""
        check_special_tokens(names)
        new = [name for name in names if name not in self.special_tokens]
        free = max(largest_rank, *self.special_tokens.values()) + 1
        ids = {**self.special_tokens, **dict(zip(new, range(free, free + len(new)), strict=True))}
        return {name: ids[name] for name in names}


_GPT2_END = {"<|endoftext|>": 50256}
_BY_SHA256 = {
    "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930": Published(
        "r50k_base", "gpt2", _GPT2_END
    ),
    "94b5ca7dff4d00767bc256fdd1b27e5b17361d7b8a5f968547f9f23eb70d2069": Published(
        "p50k_base", "gpt2", _GPT2_END
    ),
    "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7": Published(
        "cl100k_base",
        "cl100k",
        {
            "<|endoftext|>": 100257,
            "<|fim_prefix|>": 100258,
            "<|fim_middle|>": 100259,
            "<|fim_suffix|>": 100260,
            "<|endofprompt|>": 100276,
        },
    ),
    "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d": Published(
        "o200k_base", "o200k", {"<|endoftext|>": 199999, "<|endofprompt|>": 200018}
    ),
}
"""The checksums that tiktoken itself compares a downloaded file with."""


def recognised(text: str) -> Published | None:
    """The published vocabulary whose file of ranks is `text`, if it is one."""
    return _BY_SHA256.get(hashlib.sha256(text.encode()).hexdigest())
