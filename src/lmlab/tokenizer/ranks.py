"""tiktoken's files of ranks, out and in."""

import base64
import binascii
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lmlab.errors import DataError, UserError
from lmlab.tokenizer import native
from lmlab.tokenizer.dialects import from_rust
from lmlab.tokenizer.formats import read_text
from lmlab.tokenizer.interchange import assemble
from lmlab.tokenizer.outputs import writing
from lmlab.tokenizer.pretokenize import PATTERNS
from lmlab.tokenizer.published import recognised
from lmlab.tokenizer.vocabulary import SAME_PATTERN, Pair, Vocabulary


def write_tiktoken(vocabulary: Vocabulary, path: Path) -> None:
    """Write the ranks of the ordinary tokens: a line each of base64 and rank.

    Pattern and special tokens have no place in the file; `tiktoken.Encoding` takes them apart. A
    vocabulary whose ids do not grow with its merges is a UserError: there an id is a rank. So is
    one with a word that no merge makes but that two tokens make: tiktoken would merge them.
    """
    ids = vocabulary.ordinary_ids
    if vocabulary.pattern not in PATTERNS:
        from_rust(vocabulary.pattern)  # one that tiktoken would read in another way is refused
    if vocabulary.cutting.nfc or vocabulary.cutting.before:
        raise UserError(f"{path}: tiktoken has one pattern and no normalizer; this needs more")
    whole = []
    if vocabulary.ignore_merges:
        whole = [token for token in ids if len(token) > 1 and token not in vocabulary.made]
        for token in whole:
            if vocabulary.is_joined(token):
                raise UserError(
                    f"{path}: tiktoken needs a merge for each token; {token!r} has none"
                )
    made = [ids[left + right] for left, right in vocabulary.merges]
    if any(a >= b for a, b in itertools.pairwise(made)):
        raise UserError(f"{path}: tiktoken needs ids that grow with the merges; these do not")
    keep = {*made, *map(ids.__getitem__, whole), *(ids[bytes([byte])] for byte in range(256))}
    lines = [
        f"{base64.b64encode(token).decode()} {i}\n"
        for token, i in sorted(ids.items(), key=lambda item: item[1])
        if i in keep
    ]
    with writing(path) as file:
        file.writelines(lines)


def read_tiktoken(
    path: Path, special_tokens: Sequence[str] | Mapping[str, int] | None, pattern: str | None
) -> Vocabulary:
    """Read tiktoken's ranks and find the merge behind each of them.

    A file that tiktoken publishes brings its pattern and the ids of its special tokens. Any other
    one without a `pattern` is a UserError.
    """
    text = read_text(path)
    ranks = _ranks(path, text)
    published = recognised(text)
    if published is not None:
        pattern = pattern or published.pattern
        if special_tokens is None:
            special_tokens = published.special_tokens
        elif not isinstance(special_tokens, Mapping):
            special_tokens = published.ids(special_tokens, max(ranks.values()))
    if pattern is None:
        raise UserError(
            f"{path}: the file does not say by which pattern text is cut, and is none that "
            f"tiktoken publishes; give pattern={', '.join(map(repr, PATTERNS))} or the regular "
            "expression that its vocabulary was made with"
        )
    if pattern not in PATTERNS and pattern not in PATTERNS.values():
        pattern = SAME_PATTERN.get(pattern) or from_rust(pattern)
    merges = list(_merges_of_ranks(path, ranks))
    tokens = {i: t for t, i in ranks.items()}
    multiple = sum(len(token) > 1 for token in ranks)
    whole = len(merges) < multiple
    return assemble(path, tokens, merges, special_tokens, pattern, whole)


def _ranks(path: Path, text: str) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    seen: set[int] = set()
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            encoded, rank_text = line.split()
            token, rank = base64.b64decode(encoded, validate=True), int(rank_text)
            if not token or rank < 0 or token in ranks or rank in seen:
                raise ValueError
        except (ValueError, binascii.Error):
            raise DataError(f"{path}: line {number} is no token and rank: {line[:60]!r}") from None
        ranks[token] = rank
        seen.add(rank)
    return ranks


def _merges_of_ranks(path: Path, ranks: Mapping[bytes, int]) -> Iterator[Pair]:
    """A token is made by the merge that joins what earlier merges leave of its bytes."""
    tokens = sorted(ranks, key=ranks.__getitem__)
    try:
        encoder = native.Encoder(tokens, None, {}, None)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None
    for token, parts in zip(tokens, encoder.split_tokens(), strict=True):
        if len(token) == 1:
            continue
        if len(parts) != 2:  # it is only ever a whole pretoken, unless two tokens make it
            for k in range(1, len(token)):
                if token[:k] in ranks and token[k:] in ranks:
                    raise DataError(
                        f"{path}: rank {ranks[token]}, {token!r}, is no merge of two earlier "
                        "tokens but of later ones, which is not supported"
                    )
            continue
        yield tokens[parts[0]], tokens[parts[1]]
