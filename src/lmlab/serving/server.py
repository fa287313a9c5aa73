"""Start and stop of the server."""

import asyncio
import errno
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import uvicorn
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from lmlab.errors import UserError
from lmlab.serving.app import build_app
from lmlab.serving.connections import protocol_with
from lmlab.serving.guard import Access, Guard, Limits
from lmlab.serving.models import ServedModel

KEEP_ALIVE_SECONDS = 15
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; raises UserError when the address cannot be had."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(2048)
        except BaseException:
            listening.close()
            raise
    except socket.gaierror as error:
        raise UserError(f"--host {host}: {error.strerror}") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(
                f"port {port} is in use; stop the other server or give --port"
            ) from None
        raise UserError(f"cannot listen on {host} port {port}: {error.strerror}") from None
    return listening


def url_of(listening: socket.socket) -> str:
    """Return the address of the page."""
    host, port = listening.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """Serves until SIGINT or SIGTERM, or `stop`.

    It then accepts no more requests, finishes the running ones within a time, and cuts off the
    others. A second signal cuts them off at once.
    """

    def __init__(
        self,
        models: Sequence[ServedModel],
        *,
        access: Access,
        limits: Limits,
        started: Callable[[], None] = lambda: None,
    ) -> None:
        self.models, self.limits, self.on_start = models, limits, started
        app: ASGIApp = Guard(build_app(models), access, limits)
        if access.origins:  # around the guard: its errors are to be read, preflights have no key
            app = CORSMiddleware(
                app, sorted(access.origins), allow_methods=["GET", "POST"], allow_headers=["*"]
            )
        super().__init__(
            uvicorn.Config(
                app,
                http=protocol_with(limits),
                ws="none",
                lifespan="off",
                log_level="error",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                limit_concurrency=limits.max_connections,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=max(1, round(limits.grace_seconds + 2)),
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections."""
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        self.on_start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish the running requests, and end the engines."""
        await super().shutdown(sockets)
        self._cut()
        for model in self.models:
            await model.worker.close()

    def stop(self) -> None:
        """Stop after the running requests; called again, cut them off. From any thread."""
        self._loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        if self.should_exit:
            self._cut()
        self.should_exit = True
        self._loop.call_later(self.limits.grace_seconds, self._cut)

    def _cut(self) -> None:
        for model in self.models:
            model.worker.cut()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at a signal, and return: the process exits with 0."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        before = {number: signal.getsignal(number) for number in SIGNALS}
        for number in SIGNALS:
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(self._stop))
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def serve(server: Server, listening: socket.socket) -> None:
    """Serve on a socket until the server is stopped."""
    server.run(sockets=[listening])
