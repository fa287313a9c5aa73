"""Hosts, origins and keys: who may send requests."""

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from lmlab.errors import UserError
from lmlab.serving.errors import ApiError
from lmlab.serving.guard import Access
from serving.running import Running, Start

ALLOWED = 0


def status(access: Access, path: str = "/v1/models", **headers: str) -> int:
    """Return the status of the refusal, ALLOWED without one."""
    try:
        access.check(Headers(headers), path)
    except ApiError as error:
        return error.status
    return ALLOWED


@pytest.mark.parametrize(
    "host", ["localhost:8000", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST", "127.0.0.1"]
)
def test_names_of_this_machine(host: str) -> None:
    assert status(Access.of("127.0.0.1"), host=host) == ALLOWED


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example",
        "10.0.0.1:8000", "", "localhost@evil.example", "[::1", "evil.example#localhost",
    ],
)  # fmt: skip
def test_other_hosts(host: str) -> None:
    assert status(Access.of("127.0.0.1"), host=host) == 403


@given(st.text())
def test_no_host_is_a_fault(host: str) -> None:
    assert status(Access(), host=host.encode().decode("latin-1")) in (ALLOWED, 403)


def test_hosts_of_a_server_on_all_interfaces() -> None:
    access = Access.of("0.0.0.0", ["http://gpu7.example.org:8000"])
    for host in ("10.0.0.1:8000", "[fe80::1]:8000", "gpu7.example.org:8000", "localhost:8000"):
        assert status(access, host=host) == ALLOWED
    assert status(access, host="evil.example:8000") == 403


def test_origins() -> None:
    access = Access.of("127.0.0.1", ["https://notebook.example.org"])
    host = "localhost:8000"
    assert status(access, host=host, origin="http://localhost:8000") == ALLOWED
    assert status(access, host=host, origin="https://notebook.example.org") == ALLOWED
    for origin in ("null", "http://evil.example", "http://localhost:9000", "file://", "http://["):
        assert status(access, host=host, origin=origin) == 403


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("http://x:80", "http://x"),
        ("https://x:443", "https://x"),
        ("https://x:80", "https://x:80"),
        ("http://x:", "http://x"),
        ("http://x:08000", "http://x:8000"),
        ("http://[::2]:80", "http://[::2]"),
        ("HTTP://[::2]:81", "http://[::2]:81"),
    ],
)
def test_an_origin_as_a_browser_sends_it(given: str, sent: str) -> None:
    access = Access.of("127.0.0.1", [given])
    assert access.origins == {sent}
    assert status(access, host="localhost:8000", origin=sent) == ALLOWED


@given(st.text())
def test_no_origin_is_a_fault(origin: str) -> None:
    given = origin.encode().decode("latin-1")
    assert status(Access(), host="localhost", origin=given) in (ALLOWED, 403)


@pytest.mark.parametrize(
    "origin",
    [
        "*", "example.org", "ftp://a", "http://a/path", "http://", "http://[", "http://[::1",
        "http://a:port", "http://a:99999", "http://user@a", "http://a#b", "http://a?b",
    ],
)  # fmt: skip
def test_an_origin_that_is_none(origin: str) -> None:
    with pytest.raises(UserError, match="--allow-origin must be like"):
        Access.of("127.0.0.1", [origin])


def test_key() -> None:
    access = Access.of("127.0.0.1", key="sécret")
    given = {"host": "localhost"}
    assert status(access, **given) == 401
    assert status(access, **given, authorization="Bearer wrong") == 401
    assert status(access, **given, authorization="Basic sécret") == 401
    assert status(access, "/health", **given) == ALLOWED
    assert status(Access.of("127.0.0.1", key="s"), **given, authorization="Bearer s") == ALLOWED


def test_a_page_of_another_site_is_refused(served: Running) -> None:
    foreign = {"Origin": "http://evil.example", "Content-Type": "text/plain"}
    answer = httpx.post(f"{served.url}/v1/completions", headers=foreign, content="{}")
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "origin_not_allowed"
    assert "access-control-allow-origin" not in answer.headers
    rebound = httpx.get(f"{served.url}/v1/models", headers={"Host": "evil.example"})
    assert rebound.json()["error"]["code"] == "host_not_allowed"


def test_an_allowed_page_may_read(start: Start) -> None:
    origin = "https://notebook.example.org"
    it = start(access=Access.of("127.0.0.1", [origin], "k"))
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x"}
    url = f"{it.url}/v1/completions"
    preflight = httpx.options(url, headers={"Origin": origin} | asked)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == origin
    key = {"Origin": origin, "Authorization": "Bearer k"}
    answer = httpx.post(url, headers=key, json={"prompt": "a"})
    assert answer.headers["access-control-allow-origin"] == origin
    refused = httpx.post(url, headers={"Origin": origin}, json={"prompt": "a"})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == origin


def test_unknown_addresses(served: Running) -> None:
    for method, path, status_code in (
        ("GET", "/nothing", 404),
        ("GET", "/page/nothing.js", 404),
        ("GET", "/page/..%2fcli.py", 404),
        ("GET", "/page/%2e%2e/app.py", 404),
        ("GET", "/v1/completions", 405),
        ("DELETE", "/v1/models", 405),
    ):
        answer = httpx.request(method, served.url + path)
        assert answer.status_code == status_code
        assert answer.json()["error"]["type"] == "invalid_request_error"
