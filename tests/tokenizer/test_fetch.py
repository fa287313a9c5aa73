"""Downloading vocabulary files, from a server on this machine that sometimes misbehaves."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from lmlab.errors import DataError
from lmlab.io import download
from lmlab.io.download import Remote
from lmlab.tokenizer import Tokenizer, build
from lmlab.tokenizer.config import GPT2Config
from lmlab.tokenizer.download import fetch

CONTENT = b"some bytes " * 10_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    files: ClassVar[dict[str, bytes]]

    def do_GET(self) -> None:
        if self.path not in self.files:
            self.send_error(404)
            return
        content = self.files[self.path]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if "cut" in self.path else content)

    def log_message(self, *_: object) -> None:
        pass


def remote(url: str, sha256: str | None) -> Remote:
    return Remote(url, sha256, "tokenizer.vocab_url", "tokenizer.vocab_sha256")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(download, "PAUSE", 0.001)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    Handler.files = {"/whole": CONTENT, "/cut": CONTENT, "/page": b"<html>log in</html>"}
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("sha256", [SHA256, None])
def test_download(server: str, tmp_path: Path, sha256: str | None) -> None:
    path = tmp_path / "new" / "file"
    fetch(path, remote(f"{server}/whole", sha256))
    assert path.read_bytes() == CONTENT


def test_a_name_that_is_too_long(server: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: File name too long"):
        fetch(tmp_path / ("x" * 300), remote(f"{server}/whole", None))


def test_a_file_that_is_there_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"mine")
    fetch(path, remote("http://127.0.0.1:9/nobody-is-asked", SHA256))
    assert path.read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("name", "sha256", "message"),
    [
        ("cut", SHA256, "55,000 bytes are kept: start again"),
        ("missing", SHA256, "answers 404.*correct tokenizer.vocab_url"),
        ("whole", "0" * 64, f"sha256 is {SHA256}, not 000.*set tokenizer.vocab_sha256={SHA256}"),
        ("page", None, "is a web page"),
    ],
)
def test_a_failed_download_is_one_line_and_no_file(
    server: str, tmp_path: Path, name: str, sha256: str | None, message: str
) -> None:
    with pytest.raises(DataError, match=message) as error:
        fetch(tmp_path / "file", remote(f"{server}/{name}", sha256))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "file").exists()


def test_nobody_answers(server: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Connection refused"):
        fetch(tmp_path / "file", remote("http://127.0.0.1:9/file", None))


def test_build_downloads_what_is_missing_once(
    small: Tokenizer, server: str, tmp_path: Path
) -> None:
    small.save(tmp_path / "there")
    vocab, merges = tmp_path / "there" / "vocab.json", tmp_path / "there" / "merges.txt"
    Handler.files = {"/vocab.json": vocab.read_bytes(), "/merges.txt": merges.read_bytes()}
    config = GPT2Config.model_validate(
        {
            "kind": "gpt2",
            "vocab_file": tmp_path / "here" / "vocab.json",
            "merges_file": tmp_path / "here" / "merges.txt",
            "vocab_url": f"{server}/vocab.json",
            "merges_url": f"{server}/merges.txt",
            "vocab_sha256": hashlib.sha256(vocab.read_bytes()).hexdigest(),
            "merges_sha256": None,
            "pattern": "gpt2",
            "special_tokens": ["<|endoftext|>"],
        }
    )
    for _ in range(2):
        tokenizer = build(config, list)
        assert tokenizer.encode("some words") == small.encode("some words")
        Handler.files = {}  # the second time nothing is asked for
