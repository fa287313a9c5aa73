"""Decompression: any frames, any cut of them, windows, and how much memory it takes."""

import gzip
import io
import tarfile
import tracemalloc
import zlib
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from lmlab.errors import DataError
from lmlab.io.compression import Compression, DamagedFile, NotText, decompress, read_blocks

KINDS = pytest.mark.parametrize("kind", ["gzip", "zstd"])
COMPRESS = {"gzip": gzip.compress, "zstd": zstandard.compress}
BROKEN = (EOFError, zlib.error, zstandard.ZstdError)


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@KINDS
@given(
    texts=st.lists(
        st.binary(max_size=3000) | st.integers(0, 300_000).map(bytes), min_size=1, max_size=4
    ),
    size=st.integers(1, 2000),
)
def test_frames_one_after_another(kind: Compression, texts: list[bytes], size: int) -> None:
    packed = b"".join(map(COMPRESS[kind], texts))
    assert b"".join(decompress(cut(packed, size), kind)) == b"".join(texts)


@KINDS
@given(text=st.binary(min_size=1, max_size=3000), data=st.data())
def test_a_frame_that_is_cut(kind: Compression, text: bytes, data: st.DataObject) -> None:
    packed, whole = COMPRESS[kind](text), COMPRESS[kind](b"before")
    keep = data.draw(st.integers(1, len(packed) - 1))
    with pytest.raises(EOFError):
        list(decompress([whole + packed[:keep]], kind))


@KINDS
def test_what_is_not_a_frame(kind: Compression) -> None:
    with pytest.raises(BROKEN):
        list(decompress([b"some text"], kind))


def test_gzip_as_other_tools_write_it() -> None:
    """Zeros may follow a member (gzip's manual, "Tapes"); a wrong checksum is an error."""
    packed = gzip.compress(b"text")
    assert b"".join(decompress([packed + bytes(99), bytes(9), packed], "gzip")) == b"texttext"
    wrong = packed[:-8] + bytes([packed[-8] ^ 1]) + packed[-7:]
    with pytest.raises(zlib.error, match="incorrect data check"):
        list(decompress([wrong], "gzip"))


def test_a_zstd_file_may_begin_with_a_frame_to_skip(tmp_path: Path) -> None:
    """As pzstd writes it: RFC 8878, 3.1.2."""
    path = tmp_path / "a.txt"
    path.write_bytes(b"\x50\x2a\x4d\x18\x02\0\0\0ab" + zstandard.compress(b"text"))
    assert b"".join(read_blocks(path)) == b"text"


@KINDS
def test_memory_does_not_grow_with_the_content(kind: Compression) -> None:
    packed = COMPRESS[kind](bytes(400 << 20))
    tracemalloc.start()
    assert sum(map(len, decompress([packed], kind))) == 400 << 20
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 << 20


def frame(exponent: int, text: bytes) -> bytes:
    """A zstd frame by hand with a window of 2^(10 + exponent) bytes: RFC 8878, 3.1.1."""
    block = (len(text) << 3 | 1).to_bytes(3, "little")
    return b"\x28\xb5\x2f\xfd\x00" + bytes([exponent << 3]) + block + text


@pytest.mark.parametrize("long", [27, 28, 29])
def test_a_long_window_is_read(tmp_path: Path, long: int) -> None:
    """`zstd --long=28`; the zstd program itself reads it with --long=28 only."""
    path = tmp_path / "a.txt.zst"
    path.write_bytes(frame(long - 10, b"a small text\n"))
    assert zstandard.get_frame_parameters(path.read_bytes()).window_size == 1 << long
    assert b"".join(read_blocks(path)) == b"a small text\n"


def test_a_window_that_is_too_long_is_not_called_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.zst"
    path.write_bytes(zstandard.compress(b"before") + frame(21, b"a small text\n"))
    with pytest.raises(DataError, match="needs 2,048 MiB of memory to decompress") as caught:
        list(read_blocks(path))
    assert not isinstance(caught.value, DamagedFile)
    assert "zstd -dc --long=31 a.txt.zst" in str(caught.value)
    assert "\n" not in str(caught.value)


@KINDS
def test_compression_is_recognized_by_content(tmp_path: Path, kind: Compression) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(COMPRESS[kind](b"some text"))
    assert b"".join(read_blocks(path)) == b"some text"


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.txt"))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"PK\x03\x04 ...", "a zip archive"),
        (tar(), "a tar archive"),
        (gzip.compress(tar(), mtime=0), "a tar archive"),
        (b"BZh91AY&SY...", "bzip2"),
        ("text".encode("utf-16"), "UTF-16 text"),
    ],
    ids=["zip", "tar", "tar.gz", "bzip2", "UTF-16"],
)
def test_other_formats_are_named(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(NotText, match=what) as caught:
        list(read_blocks(path))
    assert str(caught.value).startswith(f"{path}: is ")
