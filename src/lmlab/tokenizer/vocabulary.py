"""What a tokenizer is made of, checked once: tokens, merges, special tokens and the pattern."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lmlab.errors import DataError
from lmlab.tokenizer.limits import MAX_IDS, MAX_MERGES
from lmlab.tokenizer.pretokenize import (
    PATTERNS,
    PLAIN,
    Cutting,
    check_special_tokens,
    compile_pattern,
    to_utf8,
)

Pair = tuple[bytes, bytes]

# What other projects write for the same pretokens.
SAME_PATTERN = {
    **{text: name for name, text in PATTERNS.items()},
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+": "gpt2",
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s": "gpt2",
}


@dataclass(frozen=True)
class Vocabulary:
    """A byte-level BPE vocabulary that holds together; made by `Vocabulary.of`."""

    tokens: dict[int, bytes]
    merges: list[Pair]
    special_tokens: dict[str, int]
    pattern: str
    ignore_merges: bool
    """A pretoken that is a token is that token, whether merges make it or not, as in Llama 3."""
    cutting: Cutting = PLAIN
    chat_template: str | None = None
    """Jinja template of conversations that is kept with the vocabulary."""

    @classmethod
    def of(
        cls,
        tokens: Mapping[int, bytes],
        merges: Sequence[Pair],
        special_tokens: Sequence[str] | Mapping[str, int] | None = None,
        pattern: str = "gpt2",
        ignore_merges: bool = False,
        cutting: Cutting = PLAIN,
    ) -> "Vocabulary":
        """Check the parts and append the special tokens that have no id yet.

        `special_tokens` may give ids of its own. Parts that do not belong together are a DataError:
        a missing byte, a merge whose parts or result are no tokens, an id that is taken.
        """
        tokens = dict(tokens)
        check_special_tokens(special_tokens or ())
        names = list(special_tokens or ())
        wanted = special_tokens if isinstance(special_tokens, Mapping) else {}
        by_bytes = {token: i for i, token in sorted(tokens.items())}  # the largest id wins
        special: dict[str, int] = {}
        free = max([*tokens, *wanted.values()], default=-1) + 1
        for name in names:
            token = to_utf8(name)
            i = wanted.get(name, by_bytes.get(token, free))
            free += i == free
            if i < 0 or tokens.get(i, token) != token:
                raise DataError(
                    f"special token {name!r} cannot have id {i}: it is {tokens.get(i)!r}"
                )
            tokens[i] = token
            special[name] = i
        pattern = SAME_PATTERN.get(pattern, pattern)
        compile_pattern(pattern)
        vocabulary = cls(tokens, list(merges), special, pattern, ignore_merges, cutting)
        vocabulary._check()
        return vocabulary

    def renamed(self, old: str, new: str) -> "Vocabulary":
        """Return it with another name for a special token, under the same id."""
        special = {new if k == old else k: i for k, i in self.special_tokens.items()}
        tokens = self.tokens | {self.special_tokens[old]: new.encode()}
        return replace(self, tokens=tokens, special_tokens=special)

    def extended(self, names: Sequence[str], chat_template: str | None) -> "Vocabulary":
        """Return it with more special tokens and a template; tokens it lacks get the next ids."""
        if chat_template is not None:  # one kind of line end, as files are read
            chat_template = chat_template.replace("\r\n", "\n").replace("\r", "\n")
        new = [name for name in dict.fromkeys(names) if name not in self.special_tokens]
        if not new:
            return replace(self, chat_template=chat_template)
        by_bytes = {token: i for i, token in self.tokens.items()}
        special, free = dict(self.special_tokens), self.size
        for name in new:
            special[name] = by_bytes.get(to_utf8(name), free)
            free += special[name] == free
        extended = Vocabulary.of(
            self.tokens, self.merges, special, self.pattern, self.ignore_merges, self.cutting
        )
        return replace(extended, chat_template=chat_template)

    def _check(self) -> None:
        for i in self.tokens:
            if not 0 <= i < MAX_IDS:
                raise DataError(f"token id {i} is outside 0..{MAX_IDS - 1}")
        if len(self.merges) > MAX_MERGES:
            raise DataError(
                f"{len(self.merges)} merges are too many: at most {MAX_MERGES} are read"
            )
        ordinary = self.ordinary_ids
        for byte in range(256):
            if bytes([byte]) not in ordinary:
                raise DataError(f"the vocabulary has no token for byte 0x{byte:02x}")
        for number, (left, right) in enumerate(self.merges, 1):
            for token in (left, right, left + right):
                if token not in ordinary:
                    raise DataError(
                        f"merge {number}, {left!r} + {right!r}, needs the token {token!r}, which "
                        "the vocabulary does not have: do the two belong together?"
                    )

    @functools.cached_property
    def made(self) -> dict[bytes, Pair]:
        """Each token that merges make, with the first merge that makes it."""
        made: dict[bytes, Pair] = {}
        for left, right in self.merges:
            made.setdefault(left + right, (left, right))
        return made

    @functools.cached_property
    def ordinary_ids(self) -> dict[bytes, int]:
        """Token to id without the special tokens; of equal tokens the smallest id."""
        special = set(self.special_tokens.values())
        ids: dict[bytes, int] = {}
        for i, token in sorted(self.tokens.items()):
            if i not in special:
                ids.setdefault(token, i)
        for name, i in self.special_tokens.items():
            token = name.encode()
            if len(token) == 1 or token in self.made:  # special and ordinary at once, like "a"
                ids.setdefault(token, i)
        return ids

    def is_joined(self, token: bytes) -> bool:
        """Whether two ordinary tokens are `token` together."""
        ids = self.ordinary_ids
        return any(token[:k] in ids and token[k:] in ids for k in range(1, len(token)))

    def check_complete(self, source: str) -> None:
        """Raise a DataError when merges seem to be missing, as in a file that was cut.

        Merges are cut at their end, so tokens behind the last one that a merge makes are looked at:
        one of several bytes that is not special, but that two other tokens could make. A token
        before it that no merge makes is never used, which does no harm.
        """
        if self.ignore_merges:
            return
        ordinary = self.ordinary_ids
        last = max((ordinary[token] for token in self.made), default=-1)
        for token, i in ordinary.items():
            if i > last and len(token) > 1 and self.is_joined(token):
                raise DataError(
                    f"{source}: no merge makes token {i}, {token!r}: the merges are cut short or "
                    "belong to another vocabulary"
                )

    @property
    def size(self) -> int:
        """The largest id plus one: the rows an embedding needs."""
        return max(self.tokens) + 1
