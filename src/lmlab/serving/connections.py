"""Connections with deadlines: clients that send or read too slowly are disconnected."""

import asyncio
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from lmlab.serving.guard import Limits


class Deadline:
    """Calls a function a time after `start`, unless it is stopped before."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, late: Callable[[], None]):
        self._loop, self._seconds, self._late = loop, seconds, late
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Let the time run; it is not prolonged."""
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._late)

    def stop(self) -> None:
        """Forget the time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def protocol_with(limits: Limits) -> type[H11Protocol]:
    """Return uvicorn's HTTP/1.1 protocol with deadlines for headers and for writing."""

    class Protocol(H11Protocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            # Without a buffer, writing pauses as soon as the client reads too slowly.
            transport.set_write_buffer_limits(high=0)
            self.headers_due = Deadline(self.loop, limits.header_seconds, transport.abort)
            self.reading_due = Deadline(self.loop, limits.write_seconds, transport.abort)
            self.headers_due.start()

        def connection_lost(self, exc: Exception | None) -> None:
            self.headers_due.stop()
            self.reading_due.stop()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is h11.IDLE:  # the headers of a request are not complete
                self.headers_due.start()
            else:
                self.headers_due.stop()

        def pause_writing(self) -> None:
            super().pause_writing()
            self.reading_due.start()

        def resume_writing(self) -> None:
            super().resume_writing()
            self.reading_due.stop()

    return Protocol
