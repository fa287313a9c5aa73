"""Downloads over bad connections: python -m pytest tests/data/test_download.py."""

import contextlib
import gzip
import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from lmlab.data import prepare
from lmlab.data.config import OpenWebTextConfig, RemoteFile, TinyStoriesConfig
from lmlab.data.download import download_all, local_name
from lmlab.errors import DataError
from lmlab.io import download
from lmlab.tokenizer.config import ByteConfig

CONTENT = bytes(i * 7 % 251 for i in range(300_000))
END = "<|endoftext|>"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Server:
    """Serves `files`, and elsewhere `content`, with each of `faults` once, in turn."""

    content: bytes = CONTENT
    files: dict[str, bytes] = field(default_factory=dict)
    tag: str | None = '"v1"'
    faults: list[str] = field(default_factory=list)
    requests: list[str | None] = field(default_factory=list)
    """The Range header of each request."""
    url: str = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        wanted = handler.headers["Range"]
        self.requests.append(wanted)
        fault = self.faults.pop(0) if self.faults else "none"
        if fault.isdecimal():
            handler.send_error(int(fault))
            return
        content = self.files.get(handler.path, self.content)
        start = 0
        current = handler.headers["If-Range"] in (None, self.tag)
        if wanted and current and fault != "ignore range":
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(content) and start:
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(content)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        body = content[start:]
        if fault == "short":  # as some mirrors do, whatever range was asked for
            body = body[: len(body) // 3]
        handler.send_response(206 if start else 200)
        if start:
            first = 0 if fault == "wrong place" else start
            handler.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        handler.send_header("Content-Length", str(len(body)))
        if self.tag:
            handler.send_header("ETag", self.tag)
        handler.end_headers()
        handler.wfile.write(body[: len(body) // 2] if fault == "cut" else body)
        if fault == "cut":
            handler.close_connection = True


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(download, "PAUSE", 0.001)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    served = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with contextlib.suppress(BrokenPipeError):
                served.answer(self)

        def log_message(self, *arguments: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *arguments: object) -> None:
            """A client that hangs up is no news here."""

    with Quiet(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        served.url = f"http://127.0.0.1:{http.server_port}/some/corpus.txt"
        yield served
        http.shutdown()
        thread.join()


@pytest.fixture
def fetch(server: Server, tmp_path: Path) -> Callable[..., Path]:
    def fetch(sha256: str | None = SHA256, progress: bool = False) -> Path:
        file = RemoteFile(url=server.url, sha256=sha256)
        [path] = download_all(
            {"data.train": file}, tmp_path / "down", license="Be kind.", progress=progress
        )
        return path

    return fetch


Fetch = Callable[..., Path]


def left(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir()}


def test_a_download_is_published_whole_and_kept(
    server: Server, fetch: Fetch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = fetch(progress=True)
    assert path == tmp_path / "down" / local_name(server.url)
    assert path.read_bytes() == CONTENT
    assert left(path.parent) == {path.name, f"{path.name}.json", "LICENSE.txt", ".lock"}
    shown = capsys.readouterr().err
    assert "Be kind." in shown
    assert f"downloading {path.name}: 100%" in shown
    assert fetch() == path
    assert server.requests == [None]
    assert "Be kind." not in capsys.readouterr().err


def test_a_cut_connection_is_resumed_where_it_broke(server: Server, fetch: Fetch) -> None:
    server.faults = ["cut", "cut"]
    assert fetch().read_bytes() == CONTENT
    assert server.requests == [None, "bytes=150000-", "bytes=225000-"]


def test_a_server_that_gives_less_than_there_is_gets_asked_again(
    server: Server, fetch: Fetch
) -> None:
    server.faults = ["cut", "short"]
    assert fetch(None).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=150000-", "bytes=200000-"]


def test_a_later_start_resumes(server: Server, fetch: Fetch, tmp_path: Path) -> None:
    server.faults = ["cut"] + ["503"] * download.ATTEMPTS
    with pytest.raises(DataError, match="150,000 bytes are kept") as caught:
        fetch()
    assert server.url in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "down" / local_name(server.url)).exists()
    server.faults = []
    assert fetch().read_bytes() == CONTENT
    assert server.requests[-1] == "bytes=150000-"


def test_a_server_that_ignores_the_range_starts_over(server: Server, fetch: Fetch) -> None:
    server.faults = ["cut", "ignore range"]
    assert fetch().read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_a_server_that_resumes_elsewhere_is_not_believed(server: Server, fetch: Fetch) -> None:
    server.faults = ["cut", "wrong place"]
    assert fetch().read_bytes() == CONTENT
    assert server.requests == [None, "bytes=150000-", None]


def test_a_file_that_changed_meanwhile_comes_whole(server: Server, fetch: Fetch) -> None:
    server.faults = ["cut"] + ["500"] * download.ATTEMPTS
    with pytest.raises(DataError):
        fetch(None)
    server.content, server.tag = CONTENT[::-1], '"v2"'
    assert fetch(None).read_bytes() == CONTENT[::-1]


def test_without_a_validator_or_hash_nothing_is_resumed(server: Server, fetch: Fetch) -> None:
    server.tag, server.faults = None, ["cut"]
    assert fetch(None).read_bytes() == CONTENT
    assert server.requests == [None, None]


def test_a_complete_part_of_a_killed_process_is_published(
    server: Server, fetch: Fetch, tmp_path: Path
) -> None:
    server.faults = ["cut"] + ["500"] * download.ATTEMPTS
    with pytest.raises(DataError):
        fetch()
    (tmp_path / "down" / f"{local_name(server.url)}.part").write_bytes(CONTENT)
    assert fetch().read_bytes() == CONTENT
    assert server.requests[-1] == "bytes=300000-"


def test_a_wrong_hash_keeps_nothing(server: Server, fetch: Fetch, tmp_path: Path) -> None:
    server.content = CONTENT + b"!"
    with pytest.raises(DataError, match=f"not {SHA256}") as caught:
        fetch()
    assert hashlib.sha256(server.content).hexdigest() in str(caught.value)
    assert "data.train.sha256" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert left(tmp_path / "down") == {
        f"{local_name(server.url)}.json",
        "LICENSE.txt",
        ".lock",
    }


def test_pieces_that_do_not_fit_are_fetched_again(
    server: Server, fetch: Fetch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.faults = ["cut"] + ["500"] * download.ATTEMPTS
    with pytest.raises(DataError):
        fetch()
    (tmp_path / "down" / f"{local_name(server.url)}.part").write_bytes(b"damage" * 1000)
    assert fetch().read_bytes() == CONTENT
    assert "do not fit together" in capsys.readouterr().err


@pytest.mark.parametrize("status", ["404", "403"])
def test_a_missing_file_is_one_line_at_once(server: Server, fetch: Fetch, status: str) -> None:
    server.faults = [status]
    with pytest.raises(DataError, match=f"answers {status}.*correct data.train.url") as caught:
        fetch()
    assert server.url in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(server.requests) == 1


def test_no_server_is_one_line(server: Server, fetch: Fetch) -> None:
    server.url = "http://127.0.0.1:9/corpus.txt"  # the port of "discard": nobody listens
    with pytest.raises(DataError, match="Connection refused") as caught:
        fetch()
    assert "\n" not in str(caught.value)


def test_a_file_brought_by_hand_is_taken_if_it_is_the_right_one(
    server: Server, fetch: Fetch, tmp_path: Path
) -> None:
    (tmp_path / "down").mkdir()
    path = tmp_path / "down" / local_name(server.url)
    path.write_bytes(CONTENT)
    assert fetch() == path
    assert server.requests == []
    (path.parent / f"{path.name}.json").unlink()
    path.write_bytes(b"something else")
    assert fetch().read_bytes() == CONTENT
    assert server.requests == [None]


def test_the_local_name_is_a_function_of_the_url() -> None:
    urls = [
        "http://a/train/0000.txt",
        "http://a/validation/0000.txt",
        "http://b/train/0000.txt",
        "http://a/train/0000.txt?download=true",
        "http://a/",
        "http://a/%2e%2e%2f%00",
        f"http://a/{'x' * 400}.txt.gz",
    ]
    names = [local_name(url) for url in urls]
    assert len(set(names)) == len(urls)
    assert names == [local_name(url) for url in urls]
    assert all(re.fullmatch(r"[A-Za-z0-9._+-]{1,120}", name) for name in names)
    assert names[-1].endswith(".txt.gz")


def corpus(server: Server, tmp_path: Path, train: str, validation: str) -> TinyStoriesConfig:
    files = {
        name: RemoteFile(url=server.url.replace("/some/corpus.txt", path), sha256=None)
        for name, path in (("train", train), ("validation", validation))
    }
    return TinyStoriesConfig(
        kind="tinystories", cache_dir=str(tmp_path / "cache"), separator=END, license="", **files
    )


def test_two_files_of_the_same_name_stay_two(
    server: Server, tmp_path: Path, byte: ByteConfig
) -> None:
    for part, count in (("train", 9), ("validation", 7)):
        documents = (f"{part} {i}" for i in range(count))
        server.files[f"/{part}/0000.txt"] = END.join(documents).encode()
    config = corpus(server, tmp_path, "/train/0000.txt", "/validation/0000.txt")
    meta = prepare(config, byte, progress=False).meta
    assert (meta.train_documents, meta.val_documents) == (9, 7)


PAGE = b"<!DOCTYPE html>please log in"


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("t.txt.gz", PAGE, "is a web page, not the file"),
        ("t.txt", b"\n<!-- hello -->\n<html><body>" + PAGE, "is a web page, not the file"),
        ("t.txt.gz", b"some text", "is named .gz but is not compressed that way"),
        ("t.txt", b"", "is empty"),
        ("t.txt.gz", gzip.compress(b"text " * 99, mtime=0)[:-9], "damaged or cut short"),
    ],
)
def test_wrong_content_is_one_line_and_not_kept(
    server: Server, tmp_path: Path, byte: ByteConfig, name: str, content: bytes, problem: str
) -> None:
    server.files = {"/v.txt": b"validation", f"/{name}": content}
    config = corpus(server, tmp_path, f"/{name}", "/v.txt")
    with pytest.raises(DataError, match=problem) as caught:
        prepare(config, byte, progress=False)
    assert "\n" not in str(caught.value)
    right = END.join(f"text {i}" for i in range(9)).encode()
    server.files[f"/{name}"] = gzip.compress(right) if name.endswith(".gz") else right
    assert prepare(config, byte, progress=False).meta.train_documents == 9


def test_a_page_that_is_there_already_is_downloaded_again(server: Server, fetch: Fetch) -> None:
    path = fetch(None)
    path.write_bytes(PAGE)
    assert fetch(None).read_bytes() == CONTENT


def test_processes_that_ask_at_once_download_once(server: Server, fetch: Fetch) -> None:
    server.faults = ["cut"]
    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.requests == [None, "bytes=150000-"]


def test_a_full_disk_is_one_line_and_keeps_what_came(
    server: Server, fetch: Fetch, small_disk: Path, tmp_path: Path
) -> None:
    server.content = bytes(2 << 20)
    (tmp_path / "down").symlink_to(small_disk)
    with pytest.raises(DataError, match="No space left on device while downloading") as caught:
        fetch(None)
    assert "data.cache_dir" in str(caught.value)
    assert "\n" not in str(caught.value)
    name = local_name(server.url)
    assert left(small_disk) == {f"{name}.part", f"{name}.json", "LICENSE.txt", ".lock"}


def test_a_downloaded_corpus_end_to_end(
    server: Server, tmp_path: Path, byte: ByteConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    stories = [f"\nStory {i}.\n" for i in range(5000)]
    training = END.join([*stories, stories[7]]).encode()
    server.files = {
        "/owt_train.txt.gz": gzip.compress(training),
        "/owt_valid.txt.gz": gzip.compress(END.join([stories[7], "\nAnother.\n"]).encode()),
    }
    server.faults = ["cut"]
    yaml_path = Path(__file__).parents[2] / "conf" / "data" / "openwebtext.yaml"
    plain = yaml.safe_load(yaml_path.read_text())
    for key in ("train", "validation"):
        plain[key]["url"] = server.url.replace("/some", "").replace(
            "corpus.txt", plain[key]["url"].rsplit("/")[-1]
        )
    config = OpenWebTextConfig(**{**plain, "cache_dir": str(tmp_path / "cache")})
    prepared = prepare(config, byte, progress=False)
    assert capsys.readouterr().err.strip() == config.license
    kept = [story for i, story in enumerate(stories) if i != 7]
    decode = prepared.tokenizer.decode
    assert decode(prepared.train.tolist()) == "".join(story + END for story in kept)
    assert decode(prepared.val.tolist()) == f"{stories[7]}{END}\nAnother.\n{END}"
    assert prepared.meta.duplicates == 2
    # What is prepared outlives what it was made of.
    for path in (tmp_path / "cache" / "downloads" / "openwebtext").iterdir():
        path.unlink()
    asked = len(server.requests)
    assert prepare(config, byte, progress=False).reused
    assert len(server.requests) == asked
