"""Clients that hang, leave, or send too much, over real sockets."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmlab.serving.guard import Limits
from serving.running import Running, Start, running

PATHS = ("/v1/completions", "/v1/chat/completions")
SHORT = Limits(
    max_body=1000, header_seconds=0.3, body_seconds=0.3, write_seconds=0.3, grace_seconds=2
)


def connected(it: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", it.port), timeout=30)


def head(it: Running, length: int, extra: str = "") -> bytes:
    return (
        f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{it.port}\r\n{extra}"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


def post(it: Running, **body: object) -> bytes:
    data = json.dumps(body).encode()
    return head(it, len(data)) + data


def everything(client: socket.socket) -> bytes:
    """Return what the server sends until it closes the connection."""
    data = b""
    while part := client.recv(65536):
        data += part
    return data


def sent_until_closed(client: socket.socket, data: bytes, times: int, pause: float) -> int:
    """Send the same again and again, and return how many bytes went before the server closed."""
    sent = 0
    with contextlib.suppress(OSError):
        for _ in range(times):
            client.sendall(data)
            sent += len(data)
            time.sleep(pause)
    return sent


@pytest.fixture(scope="module")
def hasty(trained: Path) -> Iterator[Running]:
    with running([trained], limits=SHORT) as it:
        yield it


def test_headers_that_do_not_end(hasty: Running) -> None:
    for start in (b"", b"POST /v1/completions HTTP/1.1\r\nHost: 127."):
        with connected(hasty) as client:
            client.sendall(start)
            assert everything(client) == b""


def test_headers_that_come_byte_by_byte(hasty: Running) -> None:
    with connected(hasty) as client:
        client.sendall(b"GET /health HTTP/1.1\r\n")
        assert sent_until_closed(client, b"X: y\r\n", times=200, pause=0.02) < 1200


def test_a_second_request_that_does_not_end(hasty: Running) -> None:
    with connected(hasty) as client:
        client.sendall(f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{hasty.port}\r\n\r\n".encode())
        assert b"200 OK" in client.recv(65536)
        client.sendall(b"GET")
        client.settimeout(10)  # idle connections may stay for longer
        everything(client)


def test_a_body_that_does_not_end(hasty: Running) -> None:
    with connected(hasty) as client:
        client.sendall(head(hasty, 100) + b'{"prompt"')
        answer = everything(client)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"did not arrive within 0.3 seconds" in answer


def test_a_body_of_100_mb_is_refused_by_its_length(hasty: Running) -> None:
    with connected(hasty) as client:
        client.sendall(head(hasty, 100_000_000))
        answer = everything(client)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "request_too_large"


def test_a_body_of_100_mb_in_chunks_is_not_read(hasty: Running) -> None:
    request = head(hasty, 0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    chunk = b"100000\r\n" + b"a" * 0x100000 + b"\r\n"
    with connected(hasty) as client:
        client.sendall(request)
        assert sent_until_closed(client, chunk, times=100, pause=0.001) < 50_000_000


def test_a_client_sees_413_although_it_sends_all_at_once(served: Running) -> None:
    answer = httpx.post(f"{served.url}/v1/completions", content=b"a" * 100_000_000)
    assert answer.status_code == 413


def leave_while(it: Running, **body: object) -> None:
    """Send a request, leave when the engine works on it, and see its rows become free."""
    with connected(it) as client:
        client.sendall(post(it, prompt="<", temperature=2, **body))
        end = time.monotonic() + 30
        while not it.held:
            assert time.monotonic() < end
            time.sleep(0.001)


def slowed(it: Running, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let each step of the engine take 50 ms more; returns the list that steps are added to."""
    engine = it.models[0].worker.engine
    step, steps = engine.step, []

    def slow() -> object:
        steps.append(len(engine.active))
        time.sleep(0.05)
        return step()

    monkeypatch.setattr(engine, "step", slow)
    return steps


@pytest.mark.parametrize("stream", [False, True])
def test_rows_are_free_when_the_client_leaves(
    start: Start, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = start(max_batch=2)
    steps = slowed(it, monkeypatch)
    leave_while(it, max_tokens=120, n=4, stream=stream)
    it.wait_until_free()
    assert not it.models[0].worker.engine.busy
    assert len(steps) < 100  # the text was not finished


def test_a_client_that_does_not_read(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is disconnected once the buffers between are full, and its rows become free."""
    it = start(limits=SHORT, max_batch=64, send_buffer=32_768)
    steps = slowed(it, monkeypatch)  # else the text may be finished before the client is late
    body = {"prompt": "<", "max_tokens": 127, "n": 60, "stream": True, "logprobs": 20}
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", it.port))
        client.sendall(post(it, **body))
        end = time.monotonic() + 60
        while not it.held:
            assert time.monotonic() < end
            time.sleep(0.001)
        it.wait_until_free()
        assert len(steps) < 100
        client.settimeout(30)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            received = everything(client)
        assert b"[DONE]" not in received


def test_running_requests_are_finished_when_the_server_stops(start: Start) -> None:
    it = start(limits=Limits(grace_seconds=30))
    answers: list[httpx.Response] = []
    body = {"prompt": "<scr", "max_tokens": 100, "temperature": 0}
    asking = threading.Thread(
        target=lambda: answers.append(httpx.post(f"{it.url}/v1/completions", json=body))
    )
    with it.paused():
        asking.start()
        while not it.models[0].worker.open:
            time.sleep(0.01)
        it.server.stop()
        time.sleep(0.3)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{it.url}/health")
    asking.join(30)
    assert answers[0].json()["usage"]["completion_tokens"] > 50


def test_running_requests_are_cut_off_after_the_grace_period(start: Start) -> None:
    it = start(limits=Limits(grace_seconds=0.2))
    with it.paused():
        with httpx.stream(
            "POST", f"{it.url}/v1/completions", json={"prompt": "<", "stream": True}
        ) as stream:
            it.server.stop()
            text = stream.read().decode()
        assert '"code": "server_stopping"' in text or '"code":"server_stopping"' in text
        assert "[DONE]" not in text


def test_a_second_stop_cuts_off_at_once(start: Start) -> None:
    it = start(limits=Limits(grace_seconds=600))
    body = {"prompt": "<", "max_tokens": 100}
    answers: list[httpx.Response] = []
    asking = threading.Thread(
        target=lambda: answers.append(httpx.post(f"{it.url}/v1/completions", json=body))
    )
    with it.paused():
        asking.start()
        while not it.models[0].worker.open:
            time.sleep(0.01)
        it.server.stop()
        it.server.stop()
        asking.join(30)
    assert answers[0].status_code == 503
    assert answers[0].json()["error"]["code"] == "server_stopping"


def test_more_connections_than_allowed(start: Start) -> None:
    it = start(limits=Limits(max_connections=3, grace_seconds=2))
    with connected(it), connected(it):
        assert httpx.get(f"{it.url}/health").status_code == 503
    end = time.monotonic() + 30
    while httpx.get(f"{it.url}/health").status_code != 200:
        assert time.monotonic() < end
        time.sleep(0.05)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    [
        *("model", "prompt", "messages", "max_tokens", "n", "temperature", "top_p", "top_k"),
        *("min_p", "seed", "stop", "logprobs", "echo", "stream", "stream_options", "tools"),
        *("top_logprobs", "repetition_penalty", "suffix", "user"),
    ]
)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": JSON | st.just("user"), "content": JSON | st.just("a")}),
    max_size=3,
)
BODIES = (
    st.binary(max_size=200)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(FIELDS, JSON | MESSAGES, max_size=6).map(
        lambda value: json.dumps(value | {"max_tokens": 2}).encode()
    )
    | st.text().map(lambda text: json.dumps({"prompt": text, "max_tokens": 2}).encode())
)


@pytest.mark.parametrize("path", PATHS)
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(body=BODIES)
def test_no_body_is_a_fault_of_the_server(served: Running, path: str, body: bytes) -> None:
    answer = httpx.post(f"{served.url}{path}", content=body)
    assert answer.status_code in (200, 400, 404)
    if answer.status_code != 200:
        error = answer.json()["error"]
        assert error["type"] == "invalid_request_error"
        assert error["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b'{"prompt": NaN}', b'{"prompt": "\\ud800"}', b"\xff\xfe",
        b"[" * 900_000, b'{"seed": ' + b"9" * 10_000 + b"}", b'{"temperature": 1e999}',
        b'{"prompt": [99999999999999999999]}', b'{"prompt": {}}',
    ],
)  # fmt: skip
def test_odd_bodies(served: Running, body: bytes) -> None:
    answer = httpx.post(f"{served.url}/v1/completions", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_junk_instead_of_http(served: Running) -> None:
    for junk in (b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"):
        with connected(served) as client:
            client.sendall(junk + b"\r\n\r\n")
            assert everything(client).startswith(b"HTTP/1.1 40")
    assert httpx.get(f"{served.url}/health").json()["status"] == "ok"
