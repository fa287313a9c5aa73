"""Where a long document is divided into a training and a validation part."""

import codecs

FEW = 5
"""A document is long when fewer than this many of its length would fill the held-out share."""
SHORTEST = 1000
"""Bytes up to which a document is not divided: parts of a few words are likely to be in both."""
_WINDOW = 1 << 12


def strip(document: bytes | bytearray) -> range:
    """Return the range of bytes of a UTF-8 document without white space around it (str.strip)."""
    size = len(document)
    if size and 32 < document[0] < 128 and 32 < document[-1] < 128:  # nothing to strip
        return range(size)
    start, end = 0, size
    with memoryview(document) as view:
        while start < end:
            text, used = codecs.utf_8_decode(view[start : min(start + _WINDOW, end)])
            rest = text.lstrip()
            start += used - len(rest.encode())
            if rest:
                break
        while start < end:
            low = max(start, end - _WINDOW)
            while view[low] & 0xC0 == 0x80:  # inside a character
                low += 1
            rest = codecs.utf_8_decode(view[low:end])[0].rstrip()
            end = low + len(rest.encode())
            if rest:
                break
    return range(start, end)


def long_length(total: int, fraction: float) -> float:
    """Return the length in bytes above which a document is divided: share / FEW, or SHORTEST."""
    return max(SHORTEST, fraction * total / FEW)


def cut(document: bytes | bytearray, fraction: float) -> int | None:
    """Return the byte at which the held-out part of a long document begins.

    It is the line end nearest to the last `fraction` of the document; where that would hold out
    less than half of `fraction` or more than one and a half of it, the nearest space, or else the
    nearest character. None when a part would have no text. White space around the document does
    not count, so that copies are divided at the same place.
    """
    inner = strip(document)
    share = round(fraction * len(inner))
    if not share:
        return None
    target = inner.stop - share
    slack = share // 2
    low, high = max(inner.start, target - slack - 1), min(inner.stop, target + slack)
    place = _nearest(document, b"\n", low, target, high)
    if place is None:
        place = _nearest(document, b" ", low, target, high)
    if place is None:
        place = target
        while place < inner.stop and document[place] & 0xC0 == 0x80:  # inside a character
            place += 1
    if inner.start < place < inner.stop and len(strip(bytes(document[inner.start : place]))):
        return place
    return None


def _nearest(
    document: bytes | bytearray, mark: bytes, low: int, target: int, high: int
) -> int | None:
    """Return the place after the `mark` in [low, high) nearest to `target`; of two, the first."""
    before = document.rfind(mark, low, target) + 1 or None
    after = document.find(mark, target, high) + 1 or None
    if before is None or after is None:
        return before or after
    return before if target - before <= after - target else after
