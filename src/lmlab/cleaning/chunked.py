"""HTTP bodies in chunks (RFC 9112, section 7.1), also those that were cut short."""

import re

_HEAD_END = re.compile(rb"\r?\n\r?\n")
_IS_CHUNKED = re.compile(rb"^transfer-encoding:[^\r\n]*chunked", re.IGNORECASE | re.MULTILINE)
_SIZE = re.compile(rb"([0-9A-Fa-f]+)[ \t]*(?:;[^\r\n]*)?\r?\n")
_LINE_END = re.compile(rb"\r?\n")
_CUT = re.compile(rb"\r?|[0-9A-Fa-f]+[ \t]*(?:;[^\r\n]*)?\r?")
"""What a cut may leave behind the last chunk: nothing, or half of what is to follow it."""


def begins_with_chunk(body: bytes) -> bool:
    """Whether a body begins with the size of a chunk."""
    return _SIZE.match(body) is not None


def received_chunks(response: bytes) -> tuple[bytes, bool] | None:
    """Return an HTTP response with what arrived of its chunks in one, and whether that is all.

    None for one that is not in chunks, or whose chunks are damaged rather than cut.
    """
    head = _HEAD_END.search(response)
    if head is None or not _IS_CHUNKED.search(response, 0, head.end()):
        return None
    body = bytearray()
    position, is_whole = head.end(), False
    while not is_whole and (size := _SIZE.match(response, position)):
        length, begin = int(size[1], 16), size.end()
        body += response[begin : begin + length]
        position, is_whole = min(begin + length, len(response)), length == 0
        if end := _LINE_END.match(response, position):
            position = end.end()
    if not body or not (is_whole or _CUT.fullmatch(response, position)):
        return None
    return b"%s%x\r\n%s\r\n0\r\n\r\n" % (response[: head.end()], len(body), body), is_whole
