"""Special tokens in texts that come in pieces: cut out, or refused."""

import itertools
from collections.abc import Iterable, Iterator, Sequence

from lmlab.errors import DataError
from lmlab.tokenizer.native import SpecialFinder
from lmlab.tokenizer.pretokenize import to_utf8


class SpecialSplitter:
    """Splits texts on special tokens, quickly for any number of them."""

    def __init__(self, special_tokens: Sequence[str]) -> None:
        self._names = list(special_tokens)
        self._finder = SpecialFinder([to_utf8(name) for name in special_tokens])

    def split(self, pieces: Iterable[str]) -> Iterator[tuple[str, str | None]]:
        """The joined pieces as pairs of text (perhaps empty) and the special token behind it.

        The last pair has None. Holds no more text than lies between two special tokens.
        """
        held: list[bytes] = []  # text without a special token
        tail = b""  # text after it that may begin one
        for piece in itertools.chain(pieces, [None]):
            tail += to_utf8(piece or "")
            start = 0
            while True:
                place, index = self._finder.find(tail, start, final=piece is None)
                held.append(tail[start:place])
                start = place
                if index < 0:
                    break
                yield b"".join(held).decode(), self._names[index]
                held.clear()
                start += len(self._names[index].encode())
            tail = tail[start:]
        yield b"".join(held).decode(), None

    def refuse(self, pieces: Iterable[str], source: str = "text") -> Iterator[str]:
        """The same pieces; a special token in them is a DataError that names it and its byte."""
        tail, passed = b"", 0
        for piece in itertools.chain(pieces, [None]):
            tail += to_utf8(piece or "")
            place, index = self._finder.find(tail, final=piece is None)
            passed += place
            if index >= 0:
                raise DataError(
                    f"{source}: special token {self._names[index]!r} at byte {passed}; encode it "
                    "with special='text' or special='parse', or remove it"
                )
            tail = tail[place:]
            if piece is not None:
                yield piece
