"""BPE in plain Python, short enough to be read and slow enough to be replaced: the oracle.

Follows Sennrich et al. 2016 (arXiv:1508.07909, section 3.2), on bytes as GPT-2 does. The native
core must give exactly these merges and these ids.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from lmlab.errors import UserError
from lmlab.tokenizer.limits import MAX_IDS
from lmlab.tokenizer.pretokenize import (
    check_special_tokens,
    split_pretokens,
    split_special,
    to_utf8,
)

Pair = tuple[bytes, bytes]
Word = tuple[bytes, ...]


def train_bpe(
    text: str, vocab_size: int, special_tokens: Sequence[str] = (), *, pattern: str = "gpt2"
) -> tuple[dict[int, bytes], list[Pair]]:
    """Train on one text: (vocabulary, merges in the order of creation).

    Ids are the 256 bytes, then the merges, then the special tokens in the order given. Training
    stops early when no pair is left.
    """
    check_special_tokens(special_tokens)
    check_vocab_size(vocab_size, len(special_tokens))
    counts = count_pretokens(text, special_tokens, pattern)
    merges = list(itertools.islice(learn(counts), vocab_size - 256 - len(special_tokens)))
    return build_vocab(merges, special_tokens), merges


def check_vocab_size(vocab_size: int, num_special: int) -> None:
    """Raise a UserError when bytes and special tokens alone do not fit, or no encoder holds it."""
    if vocab_size > MAX_IDS:
        raise UserError(f"vocab_size {vocab_size} is too large: give at most {MAX_IDS}")
    if vocab_size < 256 + num_special:
        raise UserError(
            f"vocab_size {vocab_size} is too small: 256 bytes and {num_special} special tokens "
            f"need at least {256 + num_special}"
        )


def build_vocab(merges: Sequence[Pair], special_tokens: Sequence[str] = ()) -> dict[int, bytes]:
    """The vocabulary in the order of ids: bytes, merges, special tokens."""
    tokens = [bytes([byte]) for byte in range(256)]
    tokens += [left + right for left, right in merges]
    tokens += [to_utf8(token, "special token") for token in special_tokens]
    return dict(enumerate(tokens))


def count_pretokens(text: str, special_tokens: Sequence[str], pattern: str) -> Counter[bytes]:
    """How often each pretoken occurs; special tokens are not counted."""
    return Counter(
        to_utf8(pretoken)
        for part, is_special in split_special(text, special_tokens)
        if not is_special
        for pretoken in split_pretokens(part, pattern)
    )


def learn_by_recounting(counts: Mapping[bytes, int]) -> Iterator[Pair]:
    """Merges in the order of creation, every pair counted anew each time: the plainest form."""
    words: dict[Word, int] = {as_bytes(pretoken): n for pretoken, n in counts.items()}
    while True:
        pairs: Counter[Pair] = Counter()
        for word, n in words.items():
            for pair in itertools.pairwise(word):
                pairs[pair] += n
        if not pairs:
            return
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        yield best
        words = {merge_pair(word, best): n for word, n in words.items()}


def learn(counts: Mapping[bytes, int]) -> Iterator[Pair]:
    """The same merges, touching only the words that hold the merged pair."""
    words = [as_bytes(pretoken) for pretoken in counts]
    weights = list(counts.values())
    pairs: Counter[Pair] = Counter()
    holders: defaultdict[Pair, set[int]] = defaultdict(set)
    for index, word in enumerate(words):
        for pair in itertools.pairwise(word):
            pairs[pair] += weights[index]
            holders[pair].add(index)
    while pairs:
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        yield best
        for index in holders.pop(best):
            old, new = words[index], merge_pair(words[index], best)
            words[index] = new
            for pair in itertools.pairwise(old):
                pairs[pair] -= weights[index]
            for pair in itertools.pairwise(new):
                pairs[pair] += weights[index]
                holders[pair].add(index)
            for pair in itertools.pairwise(old):
                if pairs[pair] == 0:
                    del pairs[pair]


def as_bytes(pretoken: bytes) -> Word:
    """A pretoken as a word of single bytes."""
    return tuple(pretoken[i : i + 1] for i in range(len(pretoken)))


def merge_pair(word: Word, pair: Pair) -> Word:
    """`word` with every occurrence of `pair` joined, from left to right."""
    merged: list[bytes] = []
    i = 0
    while i < len(word):
        if word[i : i + 2] == pair:
            merged.append(pair[0] + pair[1])
            i += 2
        else:
            merged.append(word[i])
            i += 1
    return tuple(merged)


def encode_pretoken(pretoken: bytes, ranks: Mapping[Pair, int]) -> Word:
    """The tokens of one pretoken: the earliest merge, the leftmost one, until none applies.

    One at a time matters only for merges that no training makes, in which a later merge makes a
    part of an earlier one; tiktoken and tokenizers agree on them.
    """
    word = as_bytes(pretoken)
    while True:
        pairs = [ranks.get(pair, len(ranks)) for pair in itertools.pairwise(word)]
        first = min(pairs, default=len(ranks))
        if first == len(ranks):
            return word
        i = pairs.index(first)
        word = (*word[:i], word[i] + word[i + 1], *word[i + 2 :])


def encode(
    text: str,
    vocab: Mapping[int, bytes],
    merges: Sequence[Pair],
    special_tokens: Sequence[str] = (),
    *,
    pattern: str = "gpt2",
) -> list[int]:
    """The ids of `text`; every special token must be in the vocabulary."""
    # A special token may have the bytes of an ordinary one: it has the larger id, as trained.
    ids = {token: i for i, token in sorted(vocab.items(), reverse=True)}
    special_ids = {token: i for i, token in sorted(vocab.items())}
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    encoded: list[int] = []
    for part, is_special in split_special(text, special_tokens):
        if is_special:
            encoded.append(special_ids[part.encode()])
            continue
        for pretoken in split_pretokens(part, pattern):
            encoded.extend(ids[token] for token in encode_pretoken(to_utf8(pretoken), ranks))
    return encoded


def decode(ids: Sequence[int], vocab: Mapping[int, bytes]) -> str:
    """The text of `ids`; bytes that are no UTF-8 become U+FFFD."""
    return b"".join(vocab[i] for i in ids).decode(errors="replace")
