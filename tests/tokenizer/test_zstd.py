"""Unpacking zstd: any frames, any cut of them, and how much memory it takes."""

import tracemalloc

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from lmlab.tokenizer.zstd import unpack


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@given(
    texts=st.lists(st.binary(max_size=3000) | st.integers(0, 300_000).map(bytes), max_size=4),
    size=st.integers(1, 2000),
)
def test_frames_one_after_another(texts: list[bytes], size: int) -> None:
    packed = b"".join(map(zstandard.compress, texts))
    assert b"".join(unpack(cut(packed, size))) == b"".join(texts)


@given(text=st.binary(min_size=1, max_size=3000), data=st.data())
def test_a_frame_that_is_cut(text: bytes, data: st.DataObject) -> None:
    packed = zstandard.compress(text)
    whole = zstandard.compress(b"before")
    keep = data.draw(st.integers(1, len(packed) - 1))
    with pytest.raises(EOFError):
        list(unpack([whole + packed[:keep]]))


def test_what_is_no_frame() -> None:
    with pytest.raises(zstandard.ZstdError):
        list(unpack([b"some text"]))


def test_memory_does_not_grow_with_the_content() -> None:
    packed = zstandard.compress(bytes(400 << 20))  # 40 KB
    tracemalloc.start()
    assert sum(map(len, unpack([packed]))) == 400 << 20
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 << 20
