"""Text from tokens as they come: whole characters, and stop strings."""

import codecs
from collections.abc import Sequence


class TextStream:
    """Turns the bytes of tokens into text pieces, whose sum is the decoded whole.

    A piece ends between characters. Text that may begin a stop string is held back until more is
    known. Bytes that are not UTF-8 become U+FFFD, as in `Tokenizer.decode`.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self.stop = stop
        self.ended_by: str | None = None
        """The stop string that came; of several at one place the longest."""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    @property
    def stopped(self) -> bool:
        """Whether a stop string came."""
        return self.ended_by is not None

    def push(self, data: bytes) -> str:
        """Return the text that is certain now; `stopped` says whether a stop string came."""
        return self._release(self._decoder.decode(data))

    def finish(self) -> str:
        """Return the rest, a character that is not complete included."""
        last = self._release(self._decoder.decode(b"", final=True))
        rest, self._held = ("", "") if self.stopped else (self._held, "")
        return last + rest

    def _release(self, new: str) -> str:
        if not self.stop:
            return new
        if self.stopped:
            return ""
        text = self._held + new
        found = [(at, -len(stop), stop) for stop in self.stop if (at := text.find(stop)) >= 0]
        if found:
            at, _, self.ended_by = min(found)
            self._held = ""
            return text[:at]
        keep = max((_overlap(text, stop) for stop in self.stop), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` that begins `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if stop.startswith(text[-n:])), 0)
