"""Unpacking zstd as it comes, in memory that does not grow with how well it was packed."""

from collections.abc import Iterable, Iterator

import zstandard

# A block of 4 bytes may stand for 128 KiB, so these unpack to 8 MiB at most.
_FED = 256
_PIECE = 1 << 17  # to hand on, at least: few bytes at a time would be slow for whoever takes them


def unpack(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The content of one or more zstd frames; EOFError when the last is cut, or a ZstdError."""
    # Not zstandard's stream_reader, which takes a frame that is cut for the end of the file.
    frame = None
    held: list[bytes] = []
    size = 0
    for block in blocks:
        for start in range(0, len(block), _FED):
            data = block[start : start + _FED]
            while data:
                frame = frame or zstandard.ZstdDecompressor().decompressobj()
                content = frame.decompress(data)
                data = frame.unused_data if frame.eof else b""
                frame = None if frame.eof else frame
                held.append(content)
                size += len(content)
                if size >= _PIECE:
                    yield b"".join(held)
                    held, size = [], 0
    if size:
        yield b"".join(held)
    if frame is not None:
        raise EOFError("the end is missing")
