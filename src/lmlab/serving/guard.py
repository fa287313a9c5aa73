"""Checks before a request reaches a route: host, origin, key, size and time of the body."""

import asyncio
import hmac
import ipaddress
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lmlab.errors import UserError
from lmlab.serving.errors import ApiError

LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Limits:
    """Limits of what a client may send, and how long it may take."""

    max_body: int = 1_000_000
    """Bytes."""
    header_seconds: float = 20
    """From the first byte of a request, or the connection, to the end of its headers."""
    body_seconds: float = 30
    """From the end of the headers to that of the body."""
    write_seconds: float = 30
    """A client that reads nothing for so long is disconnected."""
    grace_seconds: float = 10
    """Time for running requests after the signal to stop."""
    max_connections: int = 512


@dataclass(frozen=True)
class Access:
    """Who may send requests: which hosts the server is addressed by, which pages, with which key.

    A page of another site can send requests to a server on this machine, also under a name of its
    own that it points here (DNS rebinding): its Origin or its Host is refused.
    """

    hosts: frozenset[str] = LOCAL
    any_address: bool = False
    """Accept any IP address as a host: the server is bound to all interfaces."""
    origins: frozenset[str] = frozenset()
    key: str | None = None

    @classmethod
    def of(cls, host: str, origins: Sequence[str] = (), key: str | None = None) -> "Access":
        """Return the access to a server bound to `host`; raises UserError for an origin."""
        hosts, bound = set(LOCAL), host.lower()
        everywhere = bound in ("0.0.0.0", "::")
        hosts.add(socket.gethostname().lower() if everywhere else bound)
        permitted = set()
        for origin in origins:
            scheme, _, place = origin.lower().partition("://")
            name = _hostname(place)
            if scheme not in _DEFAULT_PORTS or not name or set(place) & set("/?#@"):
                raise UserError(
                    f"--allow-origin must be like http://name or https://name:port, got {origin!r}"
                )
            hosts.add(name)
            permitted.add(f"{scheme}://{_without_default_port(scheme, place)}")
        return cls(frozenset(hosts), everywhere, frozenset(permitted), key)

    def check(self, headers: Headers, path: str) -> None:
        """Raise ApiError (401, 403) for a request that is not to be answered."""
        hosts = headers.getlist("host")
        host = hosts[0].lower() if len(hosts) == 1 else ""
        name = _hostname(host)
        if name not in self.hosts and not (self.any_address and _is_address(name)):
            raise ApiError(
                403,
                f"The host {name!r} is not this server; start it with --allow-origin "
                f"http://{host or 'NAME'} if that is its name.",
                code="host_not_allowed",
            )
        origin = headers.get("origin", "").lower()
        if origin and origin not in self.origins and origin.partition("://")[2] != host:
            raise ApiError(
                403,
                f"Requests from pages of {origin!r} are refused; --allow-origin permits them.",
                code="origin_not_allowed",
            )
        if self.key is not None and path.startswith("/v1"):
            scheme, _, given = headers.get("authorization", "").partition(" ")
            same = hmac.compare_digest(given.strip().encode(), self.key.encode())
            if scheme.lower() != "bearer" or not same:
                raise ApiError(
                    401,
                    "Incorrect API key; send the header 'Authorization: Bearer KEY'.",
                    code="invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )


class Guard:
    """Middleware that checks access and reads the body, up to a size and within a time."""

    def __init__(self, app: ASGIApp, access: Access, limits: Limits) -> None:
        self.app, self.access, self.limits = app, access, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return
        try:
            self.access.check(Headers(scope=scope), scope["path"])
            body = await self._body(scope, receive)
        except ApiError as error:
            response = error.response()
            response.headers["Connection"] = "close"  # the body is not read to its end
            await response(scope, receive, send)
            return
        if body is None:
            return
        unread = [body]

        async def replay() -> Message:
            if unread:
                return {"type": "http.request", "body": unread.pop(), "more_body": False}
            return await receive()

        await self.app(scope, replay, send)

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """Return the body; None when the client left. Raises ApiError (408, 413)."""
        declared = Headers(scope=scope).get("content-length", "0")
        if declared.isascii() and declared.isdigit() and int(declared) > self.limits.max_body:
            raise self._too_large()
        body = bytearray()
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    body += message.get("body", b"")
                    if len(body) > self.limits.max_body:
                        raise self._too_large()
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            seconds = self.limits.body_seconds
            raise ApiError(408, f"The body did not arrive within {seconds:g} seconds.") from None

    def _too_large(self) -> ApiError:
        limit = self.limits.max_body
        return ApiError(413, f"The body is larger than {limit:,} bytes.", code="request_too_large")


def _hostname(host: str) -> str:
    """Return a Host header without its port and brackets; empty when it is not valid."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port  # raises ValueError when it is none
        return parts.hostname or ""
    except ValueError:
        return ""


def _without_default_port(scheme: str, place: str) -> str:
    """Return a valid NAME or NAME:PORT as a browser writes it in an origin of `scheme`."""
    port = urlsplit(f"//{place}").port
    name = re.sub(r":\d*$", "", place)
    return name if port in (None, _DEFAULT_PORTS[scheme]) else f"{name}:{port}"


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
